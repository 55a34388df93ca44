//! bags-operator: a Kubernetes operator that makes, delivers, rotates and revokes the API keys of a Bags account.

pub mod account;
pub mod admin;
pub mod api;
pub mod apikey;
pub mod backoff;
pub mod bags;
pub mod clock;
pub mod config;
pub mod consumer_secret;
pub mod context;
pub mod env;
pub mod events;
#[cfg(test)]
mod fixtures;
pub mod keystore;
pub mod leader;
pub mod ledger;
pub mod metrics;
pub mod operator;
pub mod outcome;
pub mod sandbox;
pub mod saves;
pub mod server;
pub mod shutdown;
pub mod telemetry;
mod time;
pub mod timings;
pub mod webhook;
pub mod workload;
