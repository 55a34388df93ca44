//! Arithmetic on times that saturates instead of overflowing: an object may hold any time, and a flag any duration.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, TimestampArithmetic, Unit};

/// The time that is `by` later, or the latest one that can be represented.
pub(crate) fn later(time: Timestamp, by: impl Into<TimestampArithmetic>) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// The time that is `by` earlier, or the earliest one that can be represented.
pub(crate) fn earlier(time: Timestamp, by: impl Into<TimestampArithmetic>) -> Timestamp {
    time.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

/// How long ago `then` was; zero if it lies in the future.
pub(crate) fn since(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}

/// How long it is until `then`; zero if it lies in the past.
pub(crate) fn until(now: Timestamp, then: Timestamp) -> Duration {
    since(then, now)
}

/// The nearest whole second, for people. Where a time follows from two clocks it is a little different at each look, and with it
/// the text that names it.
pub(crate) fn nearest_second(time: Timestamp) -> Timestamp {
    time.round(Unit::Second).unwrap_or(time)
}

/// The same duration as a signed one, or the longest that can be represented.
pub(crate) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn sums_stop_at_the_edge() {
        let epoch = Timestamp::UNIX_EPOCH;
        assert_eq!(earlier(later(epoch, HOUR), HOUR), epoch);
        assert_eq!(later(epoch, Duration::MAX), Timestamp::MAX);
        assert_eq!(later(epoch, SignedDuration::MAX), Timestamp::MAX);
        assert_eq!(later(Timestamp::MAX, HOUR), Timestamp::MAX);
        assert_eq!(earlier(epoch, Duration::MAX), Timestamp::MIN);
        assert_eq!(earlier(Timestamp::MIN, HOUR), Timestamp::MIN);
        assert_eq!(signed(Duration::MAX), SignedDuration::MAX);
    }

    #[test]
    fn a_time_of_two_clocks_is_named_in_the_same_way_at_each_look() {
        let end = later(Timestamp::UNIX_EPOCH, HOUR);
        let micro = Duration::from_micros(1);
        assert_eq!([earlier(end, micro), later(end, micro)].map(nearest_second), [end, end]);
        assert_eq!(nearest_second(Timestamp::MAX), Timestamp::MAX);
    }

    #[test]
    fn no_time_has_passed_since_what_is_to_come() {
        let then = Timestamp::UNIX_EPOCH;
        let now = later(then, HOUR);
        assert_eq!((since(now, then), since(then, now)), (HOUR, Duration::ZERO));
        assert_eq!((until(then, now), until(now, then)), (HOUR, Duration::ZERO));
    }
}
