//! Everything that concerns an account as a whole: credentials, lists, budgets, and slots without a living owner.
//!
//! `controller` runs `observe` → `decide` → `act` → `status`. `death` (the proof that a key is dead) and `judge` (what lists and
//! other keys tell about a key) serve `decide`; they are pure. `credentials`, `listing`, `lists` and `memory` serve the ApiKeys'
//! reconciler as well.

mod act;
pub mod controller;
pub mod credentials;
mod death;
mod decide;
mod judge;
pub mod listing;
pub mod lists;
pub mod memory;
mod observe;
mod orphans;
mod rebuild;
mod remnants;
mod starved;
mod status;

pub use controller::reconcile;
