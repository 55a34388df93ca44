//! What one run for an ApiKey carries from one round to the next.

use std::sync::Arc;

use jiff::Timestamp;

use super::observe::PodsSeen;
use crate::{
    api::{ApiKey, account::Slot},
    bags::Probe,
    consumer_secret::Found,
    ledger::LOOK_HOLDS,
    time::since,
};

/// What is carried from one round of a run to the next.
pub struct Run {
    /// The ApiKey, as last read or written.
    pub key: Arc<ApiKey>,
    /// The ApiKey is gone, or another one has taken its name: nothing is left to do for it.
    pub gone: bool,
    /// The key that was asked in this run, and what it answered.
    pub asked: Option<Asked>,
    /// The consumer Secret as this run wrote it; before the first publication is written: that there is none.
    pub consumer: Option<Found>,
    /// The pods of its namespace, where this run looked at them.
    pub pods: Option<PodsSeen>,
    /// When this run asked for a list of the account's keys, if it has sent no probe since.
    pub listed: Option<Timestamp>,
}

/// A key that was asked whether it works.
pub struct Asked {
    /// Its attempt.
    pub attempt: String,
    /// What it answered.
    pub answer: Probe,
    /// When it was asked.
    pub at: Timestamp,
}

impl Run {
    /// A run that begins.
    #[must_use]
    pub fn of(key: Arc<ApiKey>) -> Self {
        Self { key, gone: false, asked: None, consumer: None, pods: None, listed: None }
    }

    /// What a slot's key answered in this run, where that still holds.
    #[must_use]
    pub fn answer_of(&self, slot: Option<&Slot>, now: Timestamp) -> Option<Probe> {
        let asked = self.asked.as_ref().filter(|asked| still_holds(asked.at, now))?;
        (Some(&asked.attempt) == slot?.attempt.as_ref()).then(|| asked.answer.clone())
    }

    /// Whether a list was asked for in this run that still holds.
    #[must_use]
    pub fn has_listed(&self, now: Timestamp) -> bool {
        self.listed.is_some_and(|at| still_holds(at, now))
    }
}

/// Whether what was seen at `at` is recent enough for a step that cannot be taken back: the process may have stood still since,
/// or waited for its turn.
pub(super) fn still_holds(at: Timestamp, now: Timestamp) -> bool {
    since(now, at) < LOOK_HOLDS
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        api::account::SlotState,
        apikey::fixtures::{MINUTE, SECOND, ago, alive, key, mine, named, now},
    };

    #[test]
    fn what_a_run_was_told_more_than_two_minutes_ago_is_asked_again() {
        let slot = named("new", mine(SlotState::Live));
        let other = named("old", mine(SlotState::Live));
        let run = |age: Duration| {
            let asked = Asked { attempt: "new".into(), answer: alive("user-1"), at: ago(age) };
            Run { asked: Some(asked), listed: Some(ago(age)), ..Run::of(Arc::new(key())) }
        };
        let young = run(MINUTE * 2 - SECOND);
        assert_eq!(young.answer_of(Some(&slot), now()), Some(alive("user-1")));
        assert_eq!(young.answer_of(Some(&other), now()), None);
        assert_eq!(young.answer_of(None, now()), None);
        assert!(young.has_listed(now()));
        let old = run(MINUTE * 2);
        assert_eq!(old.answer_of(Some(&slot), now()), None);
        assert!(!old.has_listed(now()));
        assert!(!Run::of(Arc::new(key())).has_listed(now()));
    }
}
