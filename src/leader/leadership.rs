//! What the rest of the process sees of the election.

use std::sync::Arc;

use tokio::{sync::watch, time::Instant};

use crate::{clock::Clock, metrics::Metrics};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Somebody else leads, or nobody yet.
    Waiting,
    /// Until that moment, unless the Lease is renewed; `None`: without end, as nobody is elected.
    Leading(Option<Instant>),
    /// No longer, in order.
    Ended,
    /// No longer, against our will.
    Lost,
}

/// Whether this process leads. Clones share it.
#[derive(Clone)]
pub struct Leadership {
    standing: watch::Sender<Standing>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl Leadership {
    /// Of a process that waits for its turn.
    #[must_use]
    pub fn awaited(clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        Self { standing: watch::Sender::new(Standing::Waiting), clock, metrics }
    }

    /// Of a process that runs alone.
    #[must_use]
    pub fn alone(clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        metrics.leads(true);
        Self { standing: watch::Sender::new(Standing::Leading(None)), clock, metrics }
    }

    /// Waits until this process leads, or did.
    pub async fn begun(&self) {
        self.wait(|standing| standing != Standing::Waiting).await;
    }

    /// Waits until the Lease is lost.
    pub async fn lost(&self) {
        self.wait(|standing| standing == Standing::Lost).await;
    }

    /// Whether this process leads at this moment. The clock decides, not what was last heard: a process that stood
    /// still finds out here before it has found the time to look at the Lease.
    #[must_use]
    pub fn holds(&self) -> bool {
        match *self.standing.borrow() {
            Standing::Leading(until) => until.is_none_or(|until| self.clock.monotonic() < until),
            Standing::Waiting | Standing::Ended | Standing::Lost => false,
        }
    }

    /// It leads until then.
    pub(super) fn lead_until(&self, until: Instant) {
        self.metrics.leads(true);
        self.standing.send_replace(Standing::Leading(Some(until)));
    }

    /// It led, and gives the Lease back.
    pub(super) fn end(&self) {
        self.metrics.leads(false);
        self.standing.send_replace(Standing::Ended);
    }

    /// It led, and the Lease is in doubt.
    pub(crate) fn lose(&self) {
        self.metrics.leads(false);
        self.standing.send_replace(Standing::Lost);
    }

    async fn wait(&self, so: impl Fn(Standing) -> bool) {
        // An error means that every sender is gone, and this one is not.
        let _ = self.standing.subscribe().wait_for(|standing| so(*standing)).await;
    }
}
