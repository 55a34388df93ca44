//! bags-operator: a Kubernetes operator that makes, delivers, rotates and revokes the API keys of a Bags account.

pub mod api;
pub mod backoff;
pub mod bags;
pub mod clock;
pub mod ledger;
pub mod config;
pub mod events;
pub mod saves;
pub mod timings;
