//! The service's rate limit: a window of one hour that slides with every request.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::time::later;

/// The length of every window.
const HOUR: Duration = Duration::from_secs(3600);

/// What the `X-RateLimit-…` headers of an answer say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateStatus {
    /// Requests allowed in any hour.
    pub limit: u32,
    /// Requests that would be allowed now.
    pub remaining: u32,
    /// When the next place becomes free, in Unix seconds (rounded up).
    pub reset: i64,
}

impl RateStatus {
    /// A window that nothing was taken from.
    pub(super) fn untouched(limit: u32, now: Timestamp) -> Self {
        Self { limit, remaining: limit, reset: whole_seconds_up(later(now, HOUR)) }
    }
}

/// The times of the requests that were let in during the last hour.
#[derive(Default)]
pub(super) struct Window {
    taken: VecDeque<Timestamp>,
}

impl Window {
    /// How much room there is, before anything is taken.
    pub(super) fn room(&mut self, limit: u32, now: Timestamp) -> RateStatus {
        while self.taken.front().is_some_and(|oldest| later(*oldest, HOUR) <= now) {
            self.taken.pop_front();
        }
        let taken = u32::try_from(self.taken.len()).unwrap_or(u32::MAX);
        let oldest = self.taken.front().copied().unwrap_or(now);
        RateStatus {
            limit,
            remaining: limit.saturating_sub(taken),
            reset: whole_seconds_up(later(oldest, HOUR)),
        }
    }

    /// Counts one request that was let in.
    pub(super) fn take(&mut self, now: Timestamp) {
        self.taken.push_back(now);
    }

    /// Whether forgetting this window would change no answer.
    pub(super) fn is_idle(&mut self, now: Timestamp) -> bool {
        self.room(0, now);
        self.taken.is_empty()
    }
}

fn whole_seconds_up(time: Timestamp) -> i64 {
    time.as_second() + i64::from(time.subsec_nanosecond() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_place_comes_back_one_hour_after_it_was_taken_and_not_before() {
        let mut window = Window::default();
        window.take(at(0));
        window.take(at(10));
        assert_eq!(window.room(2, at(3599)).remaining, 0);
        assert_eq!(window.room(2, at(3599)).reset, at(3600).as_second());
        assert_eq!(window.room(2, at(3600)).remaining, 1);
        assert_eq!(window.room(2, at(3600)).reset, at(3610).as_second());
        assert_eq!(window.room(2, at(3610)), RateStatus::untouched(2, at(3610)));
    }

    #[test]
    fn a_limit_lowered_below_what_was_taken_leaves_no_room() {
        let mut window = Window::default();
        (0..3).for_each(|second| window.take(at(second)));
        assert_eq!(window.room(1, at(5)).remaining, 0);
    }

    #[test]
    fn the_reset_is_never_told_too_early() {
        let mut window = Window::default();
        window.take(Timestamp::new(1_800_000_000, 1).unwrap());
        assert_eq!(window.room(1, at(1)).reset, at(3601).as_second());
    }
}
