//! Virtual time: tokio's paused clock, and a wall clock that goes with it.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, Waker},
};

use bags_operator::clock::Clock;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// When every run begins, by the wall clock: 2027-01-15T08:00:00Z.
const BEGIN: i64 = 1_800_000_000;

/// Both clocks of one run. They move only when every task waits.
pub(crate) struct VirtualClock {
    begin: Instant,
}

impl VirtualClock {
    #[expect(clippy::disallowed_methods, reason = "the runtime's clock is paused: this is virtual time")]
    pub(crate) fn new() -> Self {
        Self { begin: Instant::now() }
    }

    /// Virtual time since the run began.
    pub(crate) fn passed(&self) -> std::time::Duration {
        self.monotonic().saturating_duration_since(self.begin)
    }
}

impl Clock for VirtualClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_second(BEGIN).unwrap_or_default() + self.passed()
    }

    #[expect(clippy::disallowed_methods, reason = "the runtime's clock is paused: this is virtual time")]
    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// The clocks of a machine whose wall clock is wrong.
pub(crate) struct OffClock {
    pub(crate) clock: Arc<VirtualClock>,
    /// So far ahead.
    pub(crate) by: SignedDuration,
}

impl Clock for OffClock {
    fn wall(&self) -> Timestamp {
        self.clock.wall() + self.by
    }

    fn monotonic(&self) -> Instant {
        self.clock.monotonic()
    }
}

/// Tells when every task of the runtime waits for something.
///
/// The runtime calls [`Idle::about_to_park`] when it has nothing left to run. Whoever waits for that is woken then, and
/// the paused clock stays where it is; if nobody waits, the runtime parks and the clock jumps to the next timer.
#[derive(Clone, Default)]
pub(crate) struct Idle(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    waiting: Option<Waker>,
    reached: bool,
}

impl Idle {
    /// For the runtime's `on_thread_park`.
    pub(crate) fn about_to_park(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waker) = state.waiting.take() {
            state.reached = true;
            waker.wake();
        }
    }

    /// Waits until every other task waits. Only the runtime's root future may call it.
    pub(crate) async fn reached(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).reached = false;
        poll_fn(|context| {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.reached {
                return Poll::Ready(());
            }
            state.waiting = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
