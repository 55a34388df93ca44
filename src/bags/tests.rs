//! The client against a service that answers what a test says.

use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::clock::Clock;

/// A clock that moves when a test says so.
pub(super) struct TestClock {
    start: Instant,
    wall: Timestamp,
    offsets: Mutex<(Duration, Duration)>,
}

impl TestClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "an instant cannot be made from a number; only differences count"
    )]
    pub(super) fn new() -> Self {
        let wall = "2026-11-23T12:00:00Z".parse().unwrap();
        Self { start: Instant::now(), wall, offsets: Mutex::default() }
    }

    /// Both clocks go on.
    pub(super) fn advance(&self, by: Duration) {
        let mut offsets = self.offsets.lock().unwrap();
        *offsets = (offsets.0 + by, offsets.1 + by);
    }

    /// The wall clock alone is set forward.
    pub(super) fn jump(&self, by: Duration) {
        self.offsets.lock().unwrap().0 += by;
    }
}

impl Clock for TestClock {
    fn wall(&self) -> Timestamp {
        self.wall + self.offsets.lock().unwrap().0
    }

    fn monotonic(&self) -> Instant {
        self.start + self.offsets.lock().unwrap().1
    }
}
