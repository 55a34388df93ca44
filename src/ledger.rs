//! The ledger: the one record of an account's keys, kept in the BagsAccount's status.
//!
//! `slots` (transitions), `capacity` (arithmetic) and `invariants` are pure. `store` reads and writes; it is
//! the only way to the ledger, so that every write starts from an acknowledged version and is checked.

pub mod capacity;
pub mod invariants;
pub mod slots;
pub mod store;

pub use capacity::Room;
pub use slots::{Change, LOOK_HOLDS, Ledger, NEVER_ACCEPTED, Refusal, VALUE_LOST, WRONG_USER};
pub use store::{LedgerStore, StoreError};
