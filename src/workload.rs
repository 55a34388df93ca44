//! What rotation knows of workloads, and the one thing that it does to them.
//!
//! A new value in the consumer Secret is of no use to a process that read the old one at its start. So after a switch the
//! pods that still hold the old value are looked for (`pod`: a list; `pod_scan`: the judgement, pure), the workloads
//! behind them are found (`owner`), and restarted by a mark on their pod templates (`restart`), as far as their own
//! rules allow it and until they are done (`restarted`, pure).
//!
//! The scan is the authority: an old key goes only when no pod can hold it, whatever a workload's status says. So every
//! doubt blocks: a field that cannot be read, a missing time, an owner of an unknown kind.
//!
//! Nothing here reads or writes a Secret, and the mark is all that is written to a workload.

pub(crate) mod lax;
pub mod lists;
pub mod marks;
pub mod owner;
pub mod pod;
pub mod pod_scan;
pub mod restart;
pub mod restarted;

#[cfg(test)]
mod fixtures;

pub use lists::PodLists;
pub use marks::{Marks, Rest};
pub use owner::{Controller, Owner, OwnerCache, WorkloadKind, WorkloadRef};
pub use pod::{Pod, list};
pub use pod_scan::{Holder, Scan, Switched, Verdict, Why, scan};
pub use restart::{Consumer, Failure, Plan, Reason, Terms, consumers, mark, mark_value, plan};
pub use restarted::{Gap, Obstacle, Progress, Workload};
