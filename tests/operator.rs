//! The operator against a real API server and the sandbox on a real socket: what people see of it.
//!
//! Most tests share one cluster and one operator, each with a namespace, an account and a user of its own. Those that
//! order faults, which meet every user, or that end the operator, take turns with two more clusters.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

#[path = "operator/admission.rs"]
mod admission;
#[path = "operator/alone.rs"]
mod alone;
#[path = "operator/certificates.rs"]
mod certificates;
#[path = "operator/deletion.rs"]
mod deletion;
#[path = "operator/election.rs"]
mod election;
#[path = "operator/gate.rs"]
mod gate;
#[path = "operator/holds.rs"]
mod holds;
#[path = "operator/kubectl.rs"]
mod kubectl;
#[path = "operator/main_job.rs"]
mod main_job;
#[path = "operator/quota.rs"]
mod quota;
#[path = "operator/refused.rs"]
mod refused;
#[path = "operator/rotation.rs"]
mod rotation;
#[path = "operator/trouble.rs"]
mod trouble;
#[path = "operator/webhook.rs"]
mod webhook;
