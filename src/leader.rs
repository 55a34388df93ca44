//! Leader election: of all processes of an installation, one works. The others keep their caches filled and wait.
//!
//! The protocol is client-go's, on a Lease in the operator's namespace. A process creates the Lease, or replaces it with
//! its resourceVersion. To a process the Lease has expired when *that process* has not seen it change for as long as its
//! holder promised in it, measured by the process's own monotonic clock; the times in the Lease are for people. A leader
//! gives up well before others may take over, and counts from the moment at which it sent its last acknowledged write. So
//! two never lead at the same time, whichever requests are lost or late and whichever process stands still.
//!
//! Even two leaders would not make a key twice: safety comes from the ledger's resourceVersion. The Lease only keeps them
//! out of each other's way.
//!
//! [`decide`](mod@decide) says what to do next (pure), [`record`] what is written (pure), [`elector`] does it (I/O).
//! [`Leadership`] is what the rest of the process sees of it.

pub mod decide;
pub mod elector;
pub mod leadership;
pub mod record;
pub mod timings;

pub use self::{decide::Loss, elector::Elector, leadership::Leadership};

/// Name of the Lease. An installation is a namespace with its keystore, and all processes of a namespace work on the
/// same keystore: so they share one Lease, whatever release they belong to, and two namespaces never meet.
pub const LEASE_NAME: &str = "bags-operator";

/// A holder from whom nobody takes over: the installation was drained, and nothing is to be done any more until
/// somebody clears the Lease.
pub const DRAINED: &str = "drained";

#[cfg(test)]
mod tests;
