//! The order in which a process ends.
//!
//! 1. `stop`: nothing new begins, by SIGTERM or because the Lease is in doubt.
//! 2. Reconciles under way get some time to come to their end; none at all where the Lease is lost.
//! 3. Saves come to their end, however long that takes. Meanwhile the Lease is renewed, unless it is lost, and `/livez`
//!    answers: otherwise the kubelet would kill the process, and a key's value would be lost with it.
//! 4. `over`: the Lease is released, the admin server stops.
//!
//! Admission needs no Lease and goes on beside all of this: until `over`, and for at least ten seconds after `stop`. So do
//! the watches that fill the caches.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{admin::Readiness, leader::Leadership, saves::Saves};

/// How long reconciles under way get. Together with the release of the Lease and a moment for the process itself,
/// everything but admission and saves ends within three seconds.
const GRACE: Duration = Duration::from_secs(2);

/// What takes part in the end of a process.
pub(super) struct End<'a> {
    pub(super) saves: &'a Saves,
    pub(super) readiness: &'a Readiness,
    pub(super) leadership: &'a Leadership,
    pub(super) stop: &'a CancellationToken,
    pub(super) over: &'a CancellationToken,
}

impl End<'_> {
    /// Runs the controllers until the stop, then waits for what may not be cut off.
    pub(super) async fn after(self, controllers: impl Future<Output = ()>) {
        let Self { saves, readiness, leadership, stop, over } = self;
        {
            tokio::pin!(controllers);
            tokio::select! {
                // The stop first: in doubt about the Lease no reconcile takes another step.
                biased;
                () = stop.cancelled() => {
                    readiness.shut_down();
                    tokio::select! {
                        biased;
                        () = leadership.lost() => {}
                        ended = timeout(GRACE, &mut controllers) => if ended.is_err() {
                            warn!("Reconciles are still running; they end with the process, as by a crash");
                        }
                    }
                }
                () = &mut controllers => {}
            }
            // Reconciles that still run are dropped here: before the Lease is released, and at once if it is lost.
        }
        stop.cancel();
        readiness.shut_down();
        saves.wait_all().await;
        over.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use futures::FutureExt;
    use tokio::{sync::oneshot, time::Instant};

    use super::*;
    use crate::{
        clock::{Clock, SystemClock},
        metrics::Metrics,
    };

    struct Stage {
        saves: Saves,
        readiness: Readiness,
        leadership: Leadership,
        stop: CancellationToken,
        over: CancellationToken,
        begun: Instant,
    }

    fn stage() -> Stage {
        let leadership = Leadership::awaited(Arc::new(SystemClock), Metrics::new());
        Stage {
            saves: Saves::default(),
            readiness: Readiness::awaiting([]),
            leadership,
            stop: CancellationToken::new(),
            over: CancellationToken::new(),
            begun: SystemClock.monotonic(),
        }
    }

    impl Stage {
        fn end(&self) -> End<'_> {
            let Self { saves, readiness, leadership, stop, over, begun: _ } = self;
            End { saves, readiness, leadership, stop, over }
        }

        fn passed(&self) -> Duration {
            SystemClock.monotonic() - self.begun
        }
    }

    /// Tells when it is dropped.
    struct Told<'a>(&'a std::cell::Cell<bool>);

    impl Drop for Told<'_> {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reconciles_get_two_seconds_after_sigterm_and_are_dropped_before_it_is_over() {
        let (stage, dropped) = (stage(), std::cell::Cell::new(false));
        let told = Told(&dropped);
        let stuck = async {
            let _told = told;
            pending::<()>().await;
        };
        stage.stop.cancel();
        stage.end().after(stuck).await;
        assert!(dropped.get() && stage.over.is_cancelled() && !stage.readiness.is_ready());
        assert_eq!(stage.passed(), GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_where_nothing_runs() {
        // The controllers' end and the stop are ready at the same time.
        let stage = stage();
        stage.stop.cancel();
        stage.end().after(async { stage.stop.cancelled().await }).await;
        assert!(stage.over.is_cancelled() && !stage.readiness.is_ready());
        assert_eq!(stage.passed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_could_be_taken_when_the_lease_is_lost_is_not() {
        // Repeated, as a `select!` that is not told otherwise picks at random.
        for _ in 0..50 {
            let (stage, taken) = (stage(), std::cell::Cell::new(false));
            let step = async {
                taken.set(true);
                pending::<()>().await;
            };
            stage.leadership.lose();
            stage.stop.cancel();
            stage.end().after(step).await;
            assert!(stage.over.is_cancelled() && !taken.get());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn with_the_lease_lost_reconciles_are_dropped_at_once_and_saves_come_to_their_end() {
        let (stage, dropped) = (stage(), std::cell::Cell::new(false));
        let (finish, finished) = oneshot::channel::<()>();
        stage.saves.spawn("one".into(), finished.map(drop)).unwrap();
        let told = Told(&dropped);
        let stuck = async {
            let _told = told;
            pending::<()>().await;
        };
        let mut ending = Box::pin(stage.end().after(stuck));
        assert!(ending.as_mut().now_or_never().is_none() && !dropped.get());
        stage.leadership.lose();
        stage.stop.cancel();
        assert!(ending.as_mut().now_or_never().is_none(), "a save runs");
        assert!(dropped.get(), "what ran of the controllers goes on");
        assert_eq!(stage.saves.spawn("two".into(), async {}), Err(crate::saves::NotBegun::ShuttingDown));
        assert!(!stage.over.is_cancelled());
        finish.send(()).unwrap();
        ending.await;
        assert!(stage.over.is_cancelled());
        assert_eq!(stage.passed(), Duration::ZERO);
    }
}
