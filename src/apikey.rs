//! The reconciler of ApiKeys: observe → decide → act → status.
//!
//! It makes keys, verifies and publishes them, keeps the consumer Secret as it should be, and lets deleted ApiKeys go. Keys
//! that no ApiKey can decide on are the business of the account's reconciler (`account`).

pub mod act;
pub mod claim;
pub mod controller;
pub mod decide;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod hold;
pub(crate) mod holders;
pub mod make;
pub mod observe;
pub mod permission;
pub mod problem;
pub mod quiet;
pub mod refusals;
pub mod run;
pub mod schedule;
pub mod status;
pub mod written;

pub use controller::reconcile;
