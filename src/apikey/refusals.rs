//! What the API server last refused of further keys, before their licence. It may last for days, so such a key keeps no place
//! meanwhile: the place is given back, and taken again after a pause. All of it may be lost: then it is tried once more at once.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::problem::Problem;

/// The first pause; doubles with each refusal in a row.
const FIRST: Duration = Duration::from_mins(1);
/// The longest pause: who has lifted what stood against the key waits this long at worst.
const LONGEST: Duration = Duration::from_mins(10);

/// The last refusals, by the uid of the ApiKey.
#[derive(Default)]
pub struct Refusals(Mutex<HashMap<String, Refusal>>);

struct Refusal {
    problem: Problem,
    /// How many there were in a row.
    count: u32,
    /// When the key is tried again.
    again: Instant,
}

impl Refusal {
    /// Whether it still counts. A key that is not tried again is not wanted any more, and the next one is another.
    fn is_of(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.again) <= LONGEST
    }
}

impl Refusals {
    /// Remembers a refusal.
    pub fn note(&self, uid: &str, problem: &Problem, now: Instant) {
        let mut all = self.lock();
        let count = all.get(uid).filter(|last| last.is_of(now)).map_or(0, |last| last.count);
        let again = now + FIRST.saturating_mul(1 << count.min(16)).min(LONGEST);
        let refusal = Refusal { problem: problem.clone(), count: count.saturating_add(1), again };
        all.insert(uid.to_owned(), refusal);
    }

    /// What stands against the ApiKey's next key, and how long until that is tried again.
    #[must_use]
    pub fn of(&self, uid: &str, now: Instant) -> Option<(Duration, Problem)> {
        let all = self.lock();
        let last = all.get(uid)?;
        let left = last.again.saturating_duration_since(now);
        (!left.is_zero()).then(|| (left, last.problem.clone()))
    }

    /// Whether the ApiKey's next key was refused when it was last tried, which was lately.
    #[must_use]
    pub fn is_known(&self, uid: &str, now: Instant) -> bool {
        self.lock().get(uid).is_some_and(|last| last.is_of(now))
    }

    /// Forgets an ApiKey: nothing is refused any more, or it is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apikey::hold::Reason;

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "tokio's paused clock")]
    async fn a_refused_key_is_tried_again_after_a_minute_then_two_up_to_ten() {
        let (refusals, mut now) = (Refusals::default(), Instant::now());
        for minutes in [1, 2, 4, 8, 10, 10] {
            refusals.note("a", &Problem::transient(Reason::SecretRefused, "a policy"), now);
            let (left, problem) = refusals.of("a", now).unwrap();
            assert_eq!((left, problem.reason), (Duration::from_mins(minutes), Reason::SecretRefused));
            assert!(refusals.of("b", now).is_none(), "another ApiKey");
            now += left;
            assert!(refusals.of("a", now).is_none(), "it is tried again");
        }
        assert!(refusals.is_known("a", now + LONGEST));
        now += LONGEST + Duration::from_secs(1);
        assert!(!refusals.is_known("a", now), "it was not tried again");
        for forgets in [false, true] {
            if forgets {
                refusals.forget("a");
            }
            refusals.note("a", &Problem::transient(Reason::SecretRefused, "a policy"), now);
            assert_eq!(refusals.of("a", now).map(|(left, _)| left), Some(FIRST), "it begins anew");
        }
    }
}
