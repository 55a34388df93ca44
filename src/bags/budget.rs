//! How many requests may be sent. The account's applications share the service's limit, so every request of the
//! operator is one less for them.
//!
//! A budget never waits: it says when to come back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    clock::Clock,
    time::{self, later},
};

const HOUR_SECONDS: f64 = 3600.0;
/// The service counts over an hour; a pause of more than twice that comes from a broken clock.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2 * 60 * 60);
/// The rate limit that one account meets may be its user's or the whole machine's. So the other accounts are held back too,
/// but only this long, and by each account at most once an hour: if the limit is the machine's, their own requests will show
/// it, and if it is not, one tenant's busy applications would otherwise stall every account.
const SHARED_PAUSE: Duration = Duration::from_secs(60);
const SHARED_PAUSE_EVERY: Duration = Duration::from_secs(60 * 60);

/// Requests an hour, of one account or of the whole operator.
///
/// A token bucket that holds half an hour's requests and is refilled by the other half: in no hour are there
/// more than `requests`, and after a burst one still trickles through. A tenth is kept for revocations.
pub struct Budget {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

/// What follows from the requests an hour.
#[derive(Clone, Copy, PartialEq)]
struct Rate {
    capacity: f64,
    reserve: f64,
    refill_per_second: f64,
}

impl Rate {
    /// Fewer than two requests an hour are taken for two.
    fn per_hour(requests: u32) -> Self {
        let requests = f64::from(requests.max(2));
        let capacity = requests / 2.0;
        Self {
            capacity,
            reserve: (requests / 10.0).min(capacity - 1.0),
            refill_per_second: capacity / HOUR_SECONDS,
        }
    }
}

struct State {
    rate: Rate,
    tokens: f64,
    /// What was spent beyond what may be spent at once now, as the rate was higher. It counts only if the rate is raised again.
    owed: f64,
    /// What goes of it in a second: it is the service's business for an hour.
    owed_fades: f64,
    at: Instant,
    paused_until: Option<Instant>,
    /// When this account's rate limit last held the other accounts back.
    shared_at: Option<Instant>,
    /// The last revocation that was let through during a pause.
    passed_at: Option<Instant>,
    /// `passed_at` as it was before the last request was taken, for giving that request back.
    passed_before: Option<Instant>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Everything that can wait.
    Normal,
    /// Revocations and their probes: they may use the reserve, and during a pause one is let through every 30 s.
    Revocation,
}

/// Nothing may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    /// When to ask again, by the wall clock.
    pub until: Timestamp,
    /// Whether the service asked for the pause; else the budget is spent.
    pub by_service: bool,
}

impl Budget {
    /// How often a revocation is tried while the service refuses everything.
    pub const PAUSED_REVOCATION_EVERY: Duration = Duration::from_secs(30);

    /// A full budget. Fewer than two requests an hour are taken for two.
    #[must_use]
    pub fn per_hour(requests: u32, clock: Arc<dyn Clock>) -> Self {
        let rate = Rate::per_hour(requests);
        let state = State {
            rate,
            tokens: rate.capacity,
            owed: 0.0,
            owed_fades: 0.0,
            at: clock.monotonic(),
            paused_until: None,
            shared_at: None,
            passed_at: None,
            passed_before: None,
        };
        Self { clock, state: Mutex::new(state) }
    }

    /// Changes the rate. What is spent stays spent, and a pause goes on: else an edit would be a way around both. A raised rate
    /// counts at once: nobody waits for the larger reserve for revocations to fill up.
    pub fn set_per_hour(&self, requests: u32) {
        let rate = Rate::per_hour(requests);
        // What came in so far came at the old rate.
        let mut state = self.refilled(self.clock.monotonic());
        // Each look at the account sets it. What is owed would eat all that comes in, if it were settled each time.
        if state.rate == rate {
            return;
        }
        let spent = state.rate.capacity - state.tokens + state.owed;
        state.tokens = (rate.capacity - spent).max(0.0);
        state.owed = (spent - rate.capacity).max(0.0);
        state.owed_fades = state.owed / HOUR_SECONDS;
        state.rate = rate;
    }

    /// Takes one request, or says when to ask again. Never waits.
    ///
    /// # Errors
    /// [`Throttled`], and then nothing was taken.
    pub fn try_take(&self, priority: Priority) -> Result<(), Throttled> {
        let now = self.clock.monotonic();
        let mut state = self.refilled(now);
        let pause = state.paused_until.filter(|until| *until > now);
        if let Some(until) = pause {
            let again = match priority {
                Priority::Normal => Some(until),
                Priority::Revocation => {
                    let turn = state.passed_at.map(|at| (at + Self::PAUSED_REVOCATION_EVERY).min(until));
                    turn.filter(|at| *at > now)
                }
            };
            if let Some(again) = again {
                return Err(Throttled { until: self.wall(now, again), by_service: true });
            }
        }
        let kept = match priority {
            Priority::Normal => state.rate.reserve,
            Priority::Revocation => 0.0,
        };
        let missing = 1.0 + kept - state.tokens;
        if missing > 0.0 {
            let wait = Duration::from_secs_f64(missing / state.rate.refill_per_second);
            return Err(Throttled { until: self.wall(now, now + wait), by_service: false });
        }
        state.tokens -= 1.0;
        state.passed_before = state.passed_at;
        if pause.is_some() {
            state.passed_at = Some(now);
        }
        Ok(())
    }

    /// Gives back what was last taken, for a request that was not sent after all; also its turn during a pause.
    pub(super) fn give_back(&self) {
        let mut state = self.lock();
        state.passed_at = state.passed_before;
        state.tokens = (state.tokens + 1.0).min(state.rate.capacity);
    }

    /// Stops everything but revocations until then: the service said so. At most two hours; a pause is never
    /// shortened.
    pub fn pause_until(&self, until: Timestamp) {
        let now = self.clock.monotonic();
        let until = now + time::until(self.clock.wall(), until).min(LONGEST_PAUSE);
        let mut state = self.lock();
        state.paused_until = state.paused_until.max(Some(until));
    }

    /// The service has rate-limited this account: pauses its budget until then, and for a moment also `all`, the budget that
    /// it shares with the other accounts.
    pub(super) fn limited_until(&self, until: Timestamp, all: &Self) {
        self.pause_until(until);
        let now = self.clock.monotonic();
        let mut state = self.lock();
        if state.shared_at.is_none_or(|at| now.saturating_duration_since(at) >= SHARED_PAUSE_EVERY) {
            state.shared_at = Some(now);
            drop(state);
            all.pause_until(until.min(later(self.clock.wall(), SHARED_PAUSE)));
        }
    }

    /// The end of the present pause.
    #[must_use]
    pub fn paused_until(&self) -> Option<Timestamp> {
        let now = self.clock.monotonic();
        let until = self.lock().paused_until.filter(|until| *until > now)?;
        Some(self.wall(now, until))
    }

    /// How many requests this budget would let through now, its reserve included.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        // At most u32::MAX / 2, and never negative.
        self.refilled(self.clock.monotonic()).tokens as u32
    }

    fn refilled(&self, now: Instant) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let elapsed = now.saturating_duration_since(state.at).as_secs_f64();
        let Rate { capacity, refill_per_second, .. } = state.rate;
        state.tokens = (state.tokens + elapsed * refill_per_second).min(capacity);
        state.owed = (state.owed - elapsed * state.owed_fades).max(0.0);
        state.at = state.at.max(now);
        state
    }

    fn wall(&self, now: Instant, then: Instant) -> Timestamp {
        later(self.clock.wall(), then.saturating_duration_since(now))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic between two assignments can leave a count that is off by one request, no worse.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::TestClock;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn budget(requests: u32) -> (Arc<TestClock>, Budget) {
        let clock = Arc::new(TestClock::new());
        (clock.clone(), Budget::per_hour(requests, clock))
    }

    fn take_all(budget: &Budget, priority: Priority) -> u32 {
        std::iter::from_fn(|| budget.try_take(priority).ok()).count() as u32
    }

    #[test]
    fn a_tenth_is_kept_for_revocations() {
        let (_, budget) = budget(100);
        assert_eq!(budget.remaining(), 50);
        assert_eq!(take_all(&budget, Priority::Normal), 40);
        assert_eq!(take_all(&budget, Priority::Revocation), 10);
        assert_eq!(budget.remaining(), 0);
    }

    #[test]
    fn no_hour_sees_more_than_the_budget_and_none_is_without_any() {
        let (clock, budget) = budget(100);
        let mut taken = Vec::new();
        for second in 0..3 * 3600 {
            taken.extend(std::iter::repeat_n(second, take_all(&budget, Priority::Revocation) as usize));
            clock.advance(SECOND);
        }
        for (index, start) in taken.iter().enumerate() {
            let within = taken[index..].iter().take_while(|second| **second < start + 3600).count();
            assert!(within <= 100, "{within} requests in the hour from second {start}");
        }
        let last_hour = taken.iter().filter(|second| **second >= 2 * 3600).count();
        assert!((49..=51).contains(&last_hour), "{last_hour}");
    }

    #[test]
    fn a_spent_budget_says_when_the_next_request_may_go() {
        let (clock, budget) = budget(100);
        take_all(&budget, Priority::Normal);
        let throttled = budget.try_take(Priority::Normal).unwrap_err();
        assert!(!throttled.by_service);
        let wait = Duration::try_from(throttled.until.duration_since(clock.wall())).unwrap();
        assert_eq!(wait.as_secs(), 72);
        clock.advance(wait - SECOND);
        budget.try_take(Priority::Normal).unwrap_err();
        clock.advance(SECOND);
        budget.try_take(Priority::Normal).unwrap();
    }

    #[test]
    fn the_smallest_budgets_let_something_through() {
        for requests in 0..30 {
            let (_, budget) = budget(requests);
            assert!(take_all(&budget, Priority::Normal) >= 1, "{requests}");
        }
    }

    #[test]
    fn what_was_not_sent_does_not_use_up_a_turn_in_a_pause() {
        let (clock, budget) = budget(100);
        budget.pause_until(later(clock.wall(), 100 * SECOND));
        for _ in 0..3 {
            budget.try_take(Priority::Revocation).unwrap();
            budget.give_back();
        }
        budget.try_take(Priority::Revocation).unwrap();
        budget.try_take(Priority::Revocation).unwrap_err();
        clock.advance(30 * SECOND);
        budget.try_take(Priority::Revocation).unwrap();
        budget.give_back();
        budget.try_take(Priority::Revocation).unwrap();
        budget.try_take(Priority::Revocation).unwrap_err();
    }

    #[test]
    fn a_pause_stops_everything_but_one_revocation_in_thirty_seconds() {
        let (clock, budget) = budget(100);
        let end = later(clock.wall(), 100 * SECOND);
        budget.pause_until(end);
        assert_eq!(budget.paused_until(), Some(end));
        assert_eq!(budget.try_take(Priority::Normal), Err(Throttled { until: end, by_service: true }));
        budget.try_take(Priority::Revocation).unwrap();
        let again = later(clock.wall(), 30 * SECOND);
        assert_eq!(budget.try_take(Priority::Revocation), Err(Throttled { until: again, by_service: true }));
        clock.advance(30 * SECOND);
        budget.try_take(Priority::Revocation).unwrap();
        budget.try_take(Priority::Normal).unwrap_err();
        clock.advance(70 * SECOND);
        assert_eq!(budget.paused_until(), None);
        budget.try_take(Priority::Normal).unwrap();
    }

    #[test]
    fn a_pause_is_bounded_never_shortened_and_deaf_to_a_jump_of_the_wall_clock() {
        let (clock, budget) = budget(100);
        budget.pause_until(Timestamp::MAX);
        let bound = later(clock.wall(), LONGEST_PAUSE);
        assert_eq!(budget.paused_until(), Some(bound));
        budget.pause_until(later(clock.wall(), SECOND));
        assert_eq!(budget.paused_until(), Some(bound));
        clock.jump(Duration::from_secs(86_400));
        budget.try_take(Priority::Normal).unwrap_err();
    }

    #[test]
    fn at_another_rate_what_is_spent_stays_spent_and_a_pause_goes_on() {
        let (clock, budget) = budget(100);
        take_all(&budget, Priority::Revocation);
        budget.set_per_hour(1000);
        assert_eq!(budget.remaining(), 450, "fifty are spent, and no more");
        budget.try_take(Priority::Normal).unwrap();
        clock.advance(36 * SECOND);
        assert_eq!(budget.remaining(), 454, "it fills at the new rate");
        budget.set_per_hour(1000);
        assert_eq!(budget.remaining(), 454, "the same rate again");
        let end = later(clock.wall(), 100 * SECOND);
        budget.pause_until(end);
        budget.set_per_hour(8);
        assert_eq!((budget.remaining(), budget.paused_until()), (0, Some(end)));
        budget.set_per_hour(1000);
        assert_eq!(budget.remaining(), 454, "lowered and raised: nothing is given back");
    }

    #[test]
    fn a_lowered_rate_lets_something_through_however_often_it_is_asked_for() {
        let (clock, budget) = budget(1000);
        take_all(&budget, Priority::Revocation);
        let mut sent = 0;
        for _ in 0..3600 {
            budget.set_per_hour(30);
            clock.advance(SECOND);
            budget.set_per_hour(30);
            sent += take_all(&budget, Priority::Revocation);
        }
        assert!((14..=15).contains(&sent), "{sent}");
        // Nothing is owed any more: what was spent then is more than an hour ago.
        budget.set_per_hour(1000);
        assert_eq!(budget.remaining(), 485);
    }

    #[test]
    fn a_pause_in_the_past_is_none() {
        let (_, budget) = budget(100);
        budget.pause_until(Timestamp::MIN);
        assert_eq!(budget.paused_until(), None);
        budget.try_take(Priority::Normal).unwrap();
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_but_never_overflows() {
        let (_, budget) = budget(100);
        budget.give_back();
        assert_eq!(budget.remaining(), 50);
        take_all(&budget, Priority::Revocation);
        budget.give_back();
        assert_eq!(take_all(&budget, Priority::Revocation), 1);
    }
}
