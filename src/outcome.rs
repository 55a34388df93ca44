//! What a run of a reconciler leaves behind. kube's own `Action` says the same, but its content cannot be read, and a caller
//! that drives a reconciler without a `Controller` needs to read it.

use std::time::Duration;

use kube::runtime::controller::Action;

/// What a run of a reconciler leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Run again after this, or when something changes.
    Wait(Duration),
    /// There is no such object any more: run again when there is.
    Gone,
}

impl From<Outcome> for Action {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Wait(wait) => Self::requeue(wait),
            Outcome::Gone => Self::await_change(),
        }
    }
}
