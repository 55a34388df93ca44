//! How long to wait before an object is looked at again, by the class of what happened. Pure but for the jitter.
//!
//! Memory: the number of transient failures in a row of each object; forgotten on success, on a terminal failure and on
//! deletion.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use crate::{clock::Randomness, time};

/// The first wait after a transient failure; doubles with each one in a row.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait after a transient failure.
const LONGEST: Duration = Duration::from_mins(5);
/// The longest wait for a rate limit: Bags counts by the hour, so a later reset is not believed without asking again.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// The objects that one rate limit held back are spread over this long after its end.
const PAUSE_SPREAD: Duration = Duration::from_secs(5);
/// Jitter on either side, as a share.
const SPREAD: f64 = 0.2;

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// It may go by itself: timeouts, 5xx, conflicts. Waits 1 s, 2 s, 4 s … 5 min.
    Transient,
    /// A person has to change something; the change wakes the object. Until then only the resync looks at it.
    Terminal,
    /// Nothing may be asked of Bags before this time. What needs no request goes on: the resync looks at the object meanwhile.
    RateLimited(Timestamp),
}

/// Waits for every object of one kind.
pub struct Backoff {
    randomness: Randomness,
    resync: Duration,
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// `resync`: how often every object is looked at again, spread by a fifth.
    #[must_use]
    pub fn new(randomness: Randomness, resync: Duration) -> Self {
        Self { randomness, resync, failures: Mutex::default() }
    }

    /// The wait after a failure of the object with this uid; `now` by the wall clock.
    #[must_use]
    pub fn after_failure(&self, uid: &str, class: FailureClass, now: Timestamp) -> Duration {
        match class {
            FailureClass::Transient => {
                let count = {
                    let mut failures = self.lock();
                    let count = failures.entry(uid.to_owned()).or_default();
                    *count = count.saturating_add(1);
                    *count
                };
                let doublings = (count - 1).min(16);
                self.spread(FIRST.saturating_mul(1 << doublings).min(LONGEST)).min(LONGEST)
            }
            FailureClass::Terminal => {
                self.forget(uid);
                self.resync()
            }
            FailureClass::RateLimited(until) => self.after_pause(now, until).min(self.resync()),
        }
    }

    /// The wait until Bags may be asked again.
    #[must_use]
    pub fn after_pause(&self, now: Timestamp, until: Timestamp) -> Duration {
        let pause = time::until(now, until).clamp(FIRST, LONGEST_PAUSE);
        pause + PAUSE_SPREAD.mul_f64(self.randomness.fraction())
    }

    /// The wait after a run without a failure: until the next deadline, at the latest until the resync. The next failure
    /// starts again with the shortest wait.
    #[must_use]
    pub fn after_success(&self, uid: &str, next_deadline: Option<Duration>) -> Duration {
        self.forget(uid);
        let resync = self.resync();
        next_deadline.map_or(resync, |deadline| deadline.min(resync))
    }

    /// Drops what is remembered of an object, as it is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// The resync, spread by a fifth, so that objects that began together do not stay together.
    fn resync(&self) -> Duration {
        self.spread(self.resync)
    }

    fn spread(&self, wait: Duration) -> Duration {
        wait.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * self.randomness.fraction())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESYNC: Duration = Duration::from_mins(10);
    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn backoff() -> Backoff {
        Backoff::new(Randomness::from_seed(1), RESYNC)
    }

    fn within_a_fifth(wait: Duration, of: Duration) -> bool {
        (of.mul_f64(0.8)..=of.mul_f64(1.2)).contains(&wait)
    }

    #[test]
    fn transient_failures_double_the_wait_up_to_five_minutes() {
        let backoff = backoff();
        for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256] {
            let wait = backoff.after_failure("a", FailureClass::Transient, NOW);
            assert!(within_a_fifth(wait, Duration::from_secs(expected)), "{wait:?} for {expected} s");
        }
        for _ in 0..1000 {
            let wait = backoff.after_failure("a", FailureClass::Transient, NOW);
            assert!((LONGEST.mul_f64(0.8)..=LONGEST).contains(&wait), "{wait:?}");
        }
    }

    #[test]
    fn objects_do_not_share_failures() {
        let backoff = backoff();
        for _ in 0..5 {
            let _ = backoff.after_failure("a", FailureClass::Transient, NOW);
        }
        let other = backoff.after_failure("b", FailureClass::Transient, NOW);
        assert!(within_a_fifth(other, FIRST), "{other:?}");
    }

    #[test]
    fn success_and_deletion_start_again_and_leave_nothing_behind() {
        let backoff = backoff();
        for uid in ["a", "b"] {
            let _ = backoff.after_failure(uid, FailureClass::Transient, NOW);
        }
        let _ = backoff.after_success("a", None);
        backoff.forget("b");
        assert!(backoff.lock().is_empty());
        let wait = backoff.after_failure("a", FailureClass::Transient, NOW);
        assert!(within_a_fifth(wait, FIRST), "{wait:?}");
    }

    #[test]
    fn what_a_person_must_change_waits_for_the_resync() {
        let wait = backoff().after_failure("a", FailureClass::Terminal, NOW);
        assert!(within_a_fifth(wait, RESYNC), "{wait:?}");
    }

    #[test]
    fn a_rate_limit_is_waited_out_and_those_it_held_are_spread() {
        let backoff = backoff();
        let until = NOW + Duration::from_secs(90);
        let waits: Vec<_> =
            (0..50).map(|_| backoff.after_failure("a", FailureClass::RateLimited(until), NOW)).collect();
        let allowed = Duration::from_secs(90)..Duration::from_secs(95);
        assert!(waits.iter().all(|wait| allowed.contains(wait)), "{waits:?}");
        assert!(waits.iter().max() > waits.iter().min());
    }

    #[test]
    fn a_limit_that_is_over_or_absurdly_late_is_asked_again_in_time() {
        let backoff = backoff();
        let over = backoff.after_failure("a", FailureClass::RateLimited(NOW), NOW + Duration::from_secs(5));
        assert!((FIRST..FIRST + PAUSE_SPREAD).contains(&over), "{over:?}");
        let late = backoff.after_pause(NOW, Timestamp::MAX);
        assert!((LONGEST_PAUSE..LONGEST_PAUSE + PAUSE_SPREAD).contains(&late), "{late:?}");
    }

    #[test]
    fn during_a_rate_limit_an_object_is_looked_at_at_the_resync() {
        let until = NOW + Duration::from_mins(55);
        let wait = backoff().after_failure("a", FailureClass::RateLimited(until), NOW);
        assert!(within_a_fifth(wait, RESYNC), "{wait:?}");
    }

    #[test]
    fn success_waits_for_the_next_deadline_at_most_until_the_resync() {
        let backoff = backoff();
        assert_eq!(backoff.after_success("a", Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert!(within_a_fifth(backoff.after_success("a", Some(RESYNC * 9)), RESYNC));
        let waits: Vec<_> = (0..50).map(|_| backoff.after_success("a", None)).collect();
        assert!(waits.iter().all(|wait| within_a_fifth(*wait, RESYNC)));
        assert!(waits.iter().max() > waits.iter().min());
    }
}
