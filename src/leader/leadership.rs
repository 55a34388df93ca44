//! What the rest of the process sees of the election.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll};

use tokio::{sync::watch, time::Instant};

use crate::{clock::Clock, metrics::Metrics};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Somebody else leads, or nobody yet.
    Waiting,
    /// Leads until that moment, unless the Lease is renewed; `None`: without end, as there is no election.
    Leading(Option<Instant>),
    /// Does not lead any more: this process ends in order.
    Ended,
    /// Does not lead any more: the Lease was lost.
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

    /// Waits until this process leads, or can no longer come to lead.
    pub async fn begun(&self) {
        self.wait(|standing| standing != Standing::Waiting).await;
    }

    /// Waits until the Lease is lost.
    pub async fn lost(&self) {
        self.wait(|standing| standing == Standing::Lost).await;
    }

    /// Whether this process leads at this moment. The clock decides, not the last answer about the Lease: a process that
    /// stood still learns here that its time is over, before it has read the Lease again.
    #[must_use]
    pub fn holds(&self) -> bool {
        match *self.standing.borrow() {
            Standing::Leading(until) => until.is_none_or(|until| self.clock.monotonic() < until),
            Standing::Waiting | Standing::Ended | Standing::Lost => false,
        }
    }

    /// Does this work for as long as this process leads; `None`: it leads no longer. The clock is asked before each step: a
    /// controller runs each reconcile in a task of its own, which may be polled before the election is.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|context| match self.holds() {
            true => work.as_mut().poll(context).map(Some),
            false => Poll::Ready(None),
        })
        .await
    }

    /// This process leads until then.
    pub(super) fn lead_until(&self, until: Instant) {
        self.metrics.leads(true);
        self.standing.send_replace(Standing::Leading(Some(until)));
    }

    /// This process leads no longer, and is about to give the Lease back.
    pub(super) fn end(&self) {
        self.metrics.leads(false);
        self.standing.send_replace(Standing::Ended);
    }

    /// This process leads no longer, as the Lease is in doubt.
    pub(crate) fn lose(&self) {
        self.metrics.leads(false);
        self.standing.send_replace(Standing::Lost);
    }

    async fn wait(&self, so: impl Fn(Standing) -> bool) {
        // An error would mean that every sender is gone, and `self` holds one.
        let _ = self.standing.subscribe().wait_for(|standing| so(*standing)).await;
    }
}
