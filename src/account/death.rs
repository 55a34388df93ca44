//! When a key in `Revoking` counts as dead, and what to do next to get there. Pure.
//!
//! A slot that is given up too early is a living key that nobody knows of; one that is kept too long costs a place.
//! So every doubt keeps the slot. What the revoke endpoint says is never proof: only the key's own 401 is, or,
//! where its value is lost, lists that are known to speak of the account.

use std::time::Duration;

use tokio::time::Instant;

use super::memory::KeyMemory;
use crate::timings::Timings;

const MINUTE: Duration = Duration::from_mins(1);
/// If only the key itself can tell that it is dead, it is probed this long after it went into `Revoking`, then every hour.
const SCHEDULE: [Duration; 4] = [MINUTE, Duration::from_mins(5), Duration::from_mins(15), HOUR];
const HOUR: Duration = Duration::from_hours(1);
/// After this many revocations in a row that failed or had no effect a person is told, and the pause between them grows further.
pub(super) const PATIENCE: u32 = 10;
/// The longest pause between two revocations of one key until a person is told.
const REVOKE_AGAIN: Duration = Duration::from_secs(30);
/// The longest pause before a key is probed again that contradicts a list or a person, or that answers neither 200 nor 401; also
/// the longest pause between two revocations.
const ASK_AGAIN: Duration = Duration::from_mins(5);

/// Who revokes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The operator.
    Operator,
    /// The operator, once a list has told the key's id, or whose it is.
    Unidentified,
    /// A person.
    Person(PersonReason),
}

/// Why a person is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PersonReason {
    /// The platform team wants it so.
    Mode,
    /// The credentials cannot be read.
    CredentialsUnusable,
    /// Wallets cannot revoke.
    NoToken,
    /// The service does not accept the token.
    TokenRefused,
    /// The service has no such endpoint.
    NoEndpoint,
    /// The service refuses to revoke this key.
    Refused,
    /// Revocations fail, or do nothing, again and again.
    Failing,
    /// The service says neither that the key works nor that it does not.
    Unclear,
    /// Nobody told the key's id.
    NoKeyId,
    /// Another key goes by the same id.
    SharedKeyId,
    /// It belongs to another user of the service than the token.
    OtherUser,
    /// Its value is lost, and no list speaks of the account.
    NotProvable,
    /// It has been refused for long, but no other key of the account answers 200, so the refusals prove nothing.
    Unwitnessed,
    /// It has been refused for long, but lists still show it.
    Contradicted,
}

/// What the account's lists say of the key, since it should be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// There is no list that speaks of the account.
    None,
    /// A list that counts is still to be asked for.
    Ask,
    /// Lists fail, or would not count yet; ask for one after this.
    Later(Duration),
    /// The last list lacks the key; another list is needed after this.
    Lacking(Duration),
    /// A list shows the key.
    Shown {
        /// Its id, where the list has one.
        key_id: Option<String>,
    },
    /// Enough lists lack the key.
    Absent,
}

/// What another key of the account says, which should work: if none works, a 401 of this key means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Witness {
    /// Another key has answered 200 between this one's first 401 and its last answer.
    Good,
    /// Another key has answered 200, but only after this one's last answer: until then the service may have refused every key.
    After,
    /// The key of this attempt is to be probed.
    Ask(String),
    /// The other keys were probed and did not answer 200; probe one after this.
    Later(Duration),
    /// There is no other key to probe.
    Nobody,
}

/// What is known of a key in `Revoking`.
#[derive(Clone, Debug)]
pub(super) struct Facts<'a> {
    /// What it answered.
    pub memory: &'a KeyMemory,
    /// Whether its value is known.
    pub value: bool,
    /// Who revokes it.
    pub way: Way,
    /// It was published, or answered 200, or Bags acknowledged its revocation: so it is not a key that Bags has yet to accept.
    pub worked: bool,
    /// What lists say.
    pub list: Evidence,
    /// When the last list was asked for.
    pub listed: Option<Instant>,
    /// What another key says, since this one's first 401.
    pub witness: Witness,
    /// A person said that it is removed.
    pub resolved: bool,
    /// When the service last answered a ping.
    pub pinged: Option<Instant>,
    /// No ping before this.
    pub ping_after: Option<Instant>,
    /// For how long it has been `Revoking`.
    pub age: Duration,
    /// The monotonic clock.
    pub now: Instant,
    /// Distances that make two answers count as two.
    pub timings: &'a Timings,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is dead.
    Dead,
    /// Ask the key itself.
    Probe,
    /// Send a revocation.
    Revoke,
    /// An acknowledged revocation had no effect: say so, and begin again.
    Ineffective,
    /// Ask for a list.
    List,
    /// Ask another key.
    Witness(String),
    /// Ask whether the service is there.
    Ping,
    /// Nothing before this long from now; `None`: nothing until something changes.
    Wait(Option<Duration>),
}

/// 401 answers in a row since the key should be dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Refused {
    count: u32,
    from: Option<Instant>,
    span: Duration,
}

/// From when on a 401 counts, by the monotonic clock: when the key went into `Revoking`, or when Bags acknowledged its
/// revocation, if that was later. `None`: before that clock began.
#[must_use]
pub(super) fn floor(memory: &KeyMemory, now: Instant, age: Duration) -> Option<Instant> {
    now.checked_sub(age).max(memory.acknowledged)
}

impl Facts<'_> {
    fn refused(&self) -> Refused {
        let since = self.memory.refused_since;
        let floor = floor(self.memory, self.now, self.age);
        let counted = since.filter(|since| floor.is_none_or(|floor| *since >= floor));
        match (counted, self.memory.probed) {
            (Some(from), Some(last)) => Refused {
                count: self.memory.refusals,
                from: Some(from),
                span: last.saturating_duration_since(from),
            },
            (None, _) | (_, None) => Refused::default(),
        }
    }

    /// From when on a 401 counts that comes at `now`. If no other key was let in at the time of the refusals so far, only after
    /// it, they prove nothing, and are counted anew.
    pub(super) fn counts_from(&self, now: Instant) -> Option<Instant> {
        if self.witness == Witness::After && self.refused_enough() {
            return Some(now);
        }
        floor(self.memory, now, self.age)
    }

    /// It worked before our revocation was acknowledged: then a 401 is that revocation's effect.
    fn ours(&self) -> bool {
        self.memory.alive_before_revocation && self.memory.acknowledged.is_some()
    }

    /// Whether a revocation was tried, or is not ours to try.
    fn attempted(&self) -> bool {
        self.memory.acknowledged.is_some()
            || self.memory.revocations > 0
            || matches!(self.way, Way::Person(_))
    }

    /// How many 401 the proof needs, and how long a time they have to span.
    fn wanted(&self) -> (u32, Duration) {
        match (&self.witness, &self.list) {
            _ if self.resolved => (1, Duration::ZERO),
            _ if self.ours() => (2, self.timings.death_apart_ours),
            (Witness::Nobody, Evidence::None) => (3, self.timings.death_without_control),
            (Witness::Good | Witness::After | Witness::Ask(_) | Witness::Later(_) | Witness::Nobody, _) => {
                (2, self.timings.death_apart)
            }
        }
    }

    /// The last answer since the key should be dead was neither 200 nor 401, as when its user is gone, or may not use the
    /// service.
    fn unclear(&self) -> bool {
        let floor = floor(self.memory, self.now, self.age);
        self.memory.unclear_since.is_some() && self.memory.probed.is_some_and(|at| Some(at) >= floor)
    }

    /// Whether the key answered 401 often and long enough. Its last answer has to be a 401: unclear answers since then do not
    /// extend the time that the refusals span.
    fn refused_enough(&self) -> bool {
        let (count, span) = self.wanted();
        let refused = self.refused();
        self.memory.unclear_since.is_none() && refused.count >= count && refused.span >= span
    }

    /// Whether only a person can tell that the key is dead: Bags may not have accepted it yet, and a key that it accepts late
    /// answers 401 until then.
    fn may_come_to_life(&self) -> bool {
        !self.worked && !self.resolved && self.list == Evidence::None
    }

    /// The proof.
    fn dead(&self) -> bool {
        if !self.value {
            return self.resolved || self.list == Evidence::Absent && self.attempted();
        }
        // The key gives unclear answers, and a person says that it is removed: there will be no better proof. But if it worked
        // while in `Revoking`, and Bags acknowledged no revocation (as when a person revoked it), one unclear answer is not
        // enough.
        let lived = self.memory.alive_before_revocation && self.memory.acknowledged.is_none();
        let lasted = self.memory.unclear_since.zip(self.memory.probed).is_some_and(|(since, last)| {
            last.saturating_duration_since(since) >= self.timings.death_without_control
        });
        if self.resolved && self.unclear() && (!lived || lasted) {
            return true;
        }
        if !self.refused_enough() {
            return false;
        }
        if self.resolved || self.ours() {
            return true;
        }
        match (&self.witness, &self.list) {
            _ if self.may_come_to_life() => false,
            (Witness::Good, Evidence::None | Evidence::Absent) | (Witness::Nobody, Evidence::Absent) => true,
            (Witness::Nobody, Evidence::None) => self.pinged >= self.memory.probed,
            (Witness::After | Witness::Ask(_) | Witness::Later(_), _)
            | (_, Evidence::Ask | Evidence::Later(_) | Evidence::Lacking(_) | Evidence::Shown { .. }) => {
                false
            }
        }
    }

    fn revocation(&self) -> Option<Turn> {
        // A person's word that the key is removed counts for less than the key's own 200.
        let gone = self.resolved && !(self.value && self.memory.alive_before_revocation);
        if gone || self.memory.acknowledged.is_some() || self.way != Way::Operator {
            return None;
        }
        let begun = floor(self.memory, self.now, self.age);
        let asked = self.memory.tried.is_some_and(|tried| begun.is_none_or(|begun| tried >= begun));
        // To know that the key worked before its revocation makes the proof short, so it is probed first; but a probe that is not
        // answered does not hold the revocation up.
        let next = if self.value && !asked { Next::Probe } else { Next::Revoke };
        Some(self.at(next, self.memory.revoke_after))
    }

    /// When the key itself is to be asked.
    fn probe(&self) -> Option<Turn> {
        // Another answer is wanted from the time in which the service lets another key in.
        let enough = self.refused_enough() && self.witness != Witness::After;
        if !self.value || enough && !self.may_come_to_life() {
            return None;
        }
        let KeyMemory { tried, acknowledged, unclear_since, .. } = *self.memory;
        let refused = self.refused();
        // Wait as long again as the unclear answers had lasted at the last probe: a suspended user hardly comes back within
        // seconds.
        let unclear = tried.zip(unclear_since).filter(|_| self.unclear()).map(|(tried, since)| {
            let lasted = tried.saturating_duration_since(since);
            tried + lasted.min(ASK_AGAIN).max(self.timings.death_apart)
        });
        // Wait as long again as the key had been `Revoking` at the last probe: a person who is quick to revoke it need not wait
        // long.
        let asked = tried.and_then(|tried| {
            let age = self.age.checked_sub(self.now.saturating_duration_since(tried))?;
            Some(tried + age.min(ASK_AGAIN).max(self.timings.death_apart))
        });
        let due = match (refused.from, &self.list) {
            (Some(_), _) if enough => Some(self.now + self.scheduled()),
            (Some(from), _) => {
                let (count, span) = self.wanted();
                let steps = count.saturating_sub(1).max(1);
                Some(from + span * refused.count.min(steps) / steps).max(unclear)
            }
            (None, _) if acknowledged.is_some() => {
                let since = tried.filter(|tried| Some(*tried) > acknowledged);
                unclear.or(since.map(|tried| tried + self.timings.death_apart))
            }
            (None, _) if self.resolved => asked,
            (None, Evidence::Absent) => asked,
            (None, Evidence::None) => Some(self.now + self.scheduled()),
            // The list will tell.
            (None, Evidence::Ask | Evidence::Later(_) | Evidence::Lacking(_) | Evidence::Shown { .. }) => {
                return None;
            }
        };
        Some(self.at(Next::Probe, due.max(self.memory.probe_after)))
    }

    /// How long until the next probe according to `SCHEDULE`.
    fn scheduled(&self) -> Duration {
        let asked_at = self
            .memory
            .tried
            .and_then(|tried| self.age.checked_sub(self.now.saturating_duration_since(tried)));
        let point = |after: Duration| {
            let hours = u32::try_from(after.as_secs() / HOUR.as_secs()).unwrap_or(u32::MAX);
            SCHEDULE
                .into_iter()
                .find(|point| *point > after)
                .unwrap_or(HOUR.saturating_mul(hours.saturating_add(1)))
        };
        match asked_at {
            Some(asked_at) => point(asked_at).saturating_sub(self.age),
            None => SCHEDULE[0].saturating_sub(self.age),
        }
    }

    fn lists(&self) -> Option<Turn> {
        if self.resolved || self.value && self.ours() {
            return None;
        }
        let doubted = if self.value { self.refused().count > 0 } else { self.attempted() };
        let wanted = doubted || self.way == Way::Unidentified;
        match &self.list {
            Evidence::Ask => wanted.then_some(Turn::Now(Next::List)),
            Evidence::Later(wait) => wanted.then_some(Turn::In(*wait)),
            Evidence::Lacking(wait) => Some(self.at(Next::List, Some(self.now + *wait))),
            Evidence::None | Evidence::Shown { .. } | Evidence::Absent => None,
        }
    }

    /// Where the value is lost, only a list can show that an acknowledged revocation did nothing: one that is too late to lag
    /// behind it.
    fn ineffective(&self) -> Option<Turn> {
        let acknowledged = self.memory.acknowledged.filter(|_| !self.value && !self.resolved)?;
        let told = self.listed.is_some_and(|at| at >= acknowledged + self.timings.judge_after);
        (told && matches!(self.list, Evidence::Shown { .. })).then_some(Turn::Now(Next::Ineffective))
    }

    fn others(&self) -> Option<Turn> {
        if !self.value || self.resolved || self.ours() || self.refused().count == 0 {
            return None;
        }
        match (&self.witness, &self.list) {
            (Witness::Ask(attempt), _) => Some(Turn::Now(Next::Witness(attempt.clone()))),
            (Witness::Later(wait), _) => Some(Turn::In(*wait)),
            (Witness::Nobody, Evidence::None) if self.refused_enough() && !self.may_come_to_life() => {
                Some(self.at(Next::Ping, self.ping_after))
            }
            (Witness::Good | Witness::After | Witness::Nobody, _) => None,
        }
    }

    fn at(&self, next: Next, due: Option<Instant>) -> Turn {
        let wait = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(self.now));
        if wait.is_zero() { Turn::Now(next) } else { Turn::In(wait) }
    }
}

enum Turn {
    Now(Next),
    In(Duration),
}

/// What to do next about a key in `Revoking`: revoke it, then gather what proves it dead. A rule that waits yields to
/// the next one.
#[must_use]
pub(super) fn next(facts: &Facts<'_>) -> Next {
    if facts.dead() {
        return Next::Dead;
    }
    let rules = [Facts::revocation, Facts::probe, Facts::lists, Facts::others, Facts::ineffective]
        .map(|rule| rule(facts));
    let mut wait: Option<Duration> = None;
    for turn in rules.into_iter().flatten() {
        match turn {
            Turn::Now(next) => return next,
            Turn::In(turn) => wait = Some(wait.map_or(turn, |wait| wait.min(turn))),
        }
    }
    Next::Wait(wait)
}

/// Why a person has to do something about the key, if so.
#[must_use]
pub(super) fn needs_person(facts: &Facts<'_>) -> Option<PersonReason> {
    match facts.way {
        Way::Person(reason) => Some(reason),
        Way::Operator | Way::Unidentified => {
            if !facts.value && facts.list == Evidence::None && facts.attempted() {
                return Some(PersonReason::NotProvable);
            }
            let unclear = facts.memory.unclear_since.filter(|_| facts.memory.acknowledged.is_some());
            if unclear.is_some_and(|since| {
                facts.now.saturating_duration_since(since) >= facts.timings.death_without_control
            }) {
                return Some(PersonReason::Unclear);
            }
            let long =
                |from| facts.now.saturating_duration_since(from) >= facts.timings.death_without_control;
            if facts.refused_enough() && facts.refused().from.is_some_and(long) {
                match (&facts.witness, &facts.list) {
                    (Witness::Later(_), _) => return Some(PersonReason::Unwitnessed),
                    (_, Evidence::Shown { .. }) => return Some(PersonReason::Contradicted),
                    (Witness::Good | Witness::After | Witness::Ask(_) | Witness::Nobody, _) => {}
                }
            }
            let fails = facts.memory.acknowledged.is_none() && facts.memory.revocations >= PATIENCE;
            fails.then_some(PersonReason::Failing)
        }
    }
}

/// The pause after so many revocations in a row that failed: 1, 2, 4 … 30 s, and once a person knows 1, 2, 4, 5 min.
#[must_use]
pub(super) fn revocation_pause(failures: u32) -> Duration {
    let longest = REVOKE_AGAIN.saturating_mul(1 << failures.saturating_sub(PATIENCE).min(4));
    pause(failures, longest.min(ASK_AGAIN))
}

/// The pause after so many failures in a row: 1, 2, 4 … s.
#[must_use]
pub(super) fn pause(failures: u32, longest: Duration) -> Duration {
    Duration::from_secs(1 << failures.saturating_sub(1).min(12)).min(longest)
}

#[cfg(test)]
mod tests;
