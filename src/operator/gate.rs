//! What lets a reconcile begin: full caches, and the Lease.
//!
//! The controllers of a process that waits for the Lease run as well, and take in what the watches report; their reconciles
//! wait here. (A controller goes on taking in changes while as many reconciles run as it allows.)

use std::{sync::Arc, time::Duration};

use kube::runtime::controller::Action;
use tokio_util::sync::CancellationToken;

use super::synced::Synced;
use crate::{context::Context, leader::Leadership, outcome::Outcome};

/// When to try a reconcile again that found the Lease in doubt: by then the Lease is renewed, or the process ends.
const LATER: Duration = Duration::from_secs(5);

/// What both controllers share.
pub(super) struct Gate {
    pub(super) context: Arc<Context>,
    pub(super) synced: Synced,
    pub(super) leadership: Leadership,
    pub(super) stop: CancellationToken,
}

impl Gate {
    /// A reconcile, from when it may begin and for as long as this process leads.
    pub(super) async fn pass(&self, reconcile: impl Future<Output = Outcome>) -> Action {
        match self.open().await {
            Ok(()) => self.leadership.during(reconcile).await.map_or(Action::requeue(LATER), Action::from),
            Err(instead) => instead,
        }
    }

    /// Waits until a reconcile may begin.
    ///
    /// # Errors
    /// What to do instead: the process ends, or the Lease is in doubt.
    async fn open(&self) -> Result<(), Action> {
        let ready = async {
            self.synced.wait().await;
            self.leadership.begun().await;
        };
        match self.stop.run_until_cancelled(ready).await {
            None => Err(Action::await_change()),
            Some(()) if self.leadership.holds() => Ok(()),
            Some(()) => Err(Action::requeue(LATER)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, pin::pin};

    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        admin::Readiness,
        clock::SystemClock,
        fixtures::{failure, process, server},
        metrics::Metrics,
        operator::parts::Watches,
    };

    #[tokio::test]
    async fn a_reconcile_under_way_takes_no_step_once_the_lease_is_lost() {
        for lost in [false, true] {
            let leadership = Leadership::alone(Arc::new(SystemClock), Metrics::new());
            let synced = Synced::new(Readiness::awaiting([]));
            ["ApiKey", "BagsAccount", "Secret"].into_iter().for_each(|kind| synced.done(kind));
            let context = process(&Watches::new(), server(|_, _| failure(404, "NotFound")).0);
            let gate =
                Gate { context, synced, leadership: leadership.clone(), stop: CancellationToken::new() };
            let (answer, answered) = oneshot::channel::<()>();
            let taken = Cell::new(false);
            let mut pass = pin!(gate.pass(async {
                answered.await.unwrap();
                taken.set(true);
                Outcome::Gone
            }));
            assert!(pass.as_mut().now_or_never().is_none());
            if lost {
                leadership.lose();
            }
            answer.send(()).unwrap();
            let expected = if lost { Action::requeue(LATER) } else { Action::await_change() };
            assert_eq!((pass.now_or_never(), taken.get()), (Some(expected), !lost));
        }
    }
}
