//! bags-operator: a Kubernetes operator that makes, delivers, rotates and revokes the API keys of a Bags account.

pub mod clock;
