//! What this process remembers of accounts: budgets, lists, and which keys answered how.
//!
//! All of it may be lost: what is missing is asked for again, and until then nothing is proven.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{credentials::LastWallet, lists::Lists};
use crate::{
    api::{BagsAccount, BagsAccountStatus, account::SlotState},
    backoff::FailureClass,
    bags::{self, Budget, Probe, UserId},
    clock::Clock,
    time::earlier,
};

/// What this process remembers of all accounts.
#[derive(Default)]
pub struct Memory {
    accounts: Mutex<HashMap<String, Arc<AccountMemory>>>,
}

/// What this process remembers of one account.
pub struct AccountMemory {
    /// Requests that may be spent on it.
    pub budget: Arc<Budget>,
    /// Its lists; held while one is being fetched, so that all who need one share it.
    pub lists: tokio::sync::Mutex<Lists>,
    /// Held by the one ApiKey that prepares an attempt: if several prepared at once, only one would get the licence, and what the
    /// others prepared would be undone.
    pub preparing: tokio::sync::Mutex<()>,
    /// Its wallet, so that the key pair is not derived at every look.
    pub wallet: LastWallet,
    keys: Mutex<HashMap<String, KeyMemory>>,
    facts: Mutex<AccountFacts>,
}

/// What this process saw of an account as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountFacts {
    /// Version of the credentials that all of this was seen with.
    pub credentials: Option<String>,
    /// Version of the token among them.
    pub token: Option<String>,
    /// Whether the token was accepted by a list.
    pub token_accepted: bool,
    /// How the token was refused, unless a list was answered with it since: other failures meanwhile say nothing of the token.
    pub refused_token: Option<bags::Error>,
    /// Lists that failed in a row, and why the last one did.
    pub list_failure: Option<ListFailure>,
    /// Whether any list showed a last use.
    pub shows_last_use: bool,
    /// Version of the token whose list was seen to cover the account.
    pub covering_token: Option<String>,
    /// The user that the account's keys had to belong to when it did.
    pub covering_user: Option<String>,
    /// Whether Bags has made a key with the credentials since they replaced others; `None`: this process does not know.
    pub tried: Option<bool>,
    /// The revoke endpoint as it was last tried.
    pub endpoint: Option<Endpoint>,
    /// Version of the credentials because of which a creation was last refused, unless a creation has succeeded since.
    pub refused_credentials: Option<String>,
    /// The time whose one-time code was last sent, by the wall clock.
    pub code_sent: Option<Timestamp>,
    /// It was said that the account belongs to another installation of this cluster.
    pub told_of_neighbour: bool,
    /// When the service last answered a ping.
    pub pinged: Option<Instant>,
    /// No ping before this, as the last one failed.
    pub ping_after: Option<Instant>,
    /// Owners of slots that the watch on ApiKeys does not show, and since when: by uid.
    pub missing: HashMap<String, Instant>,
    /// Namespaces of published keys whose ApiKey is missing.
    pub namespaces: HashMap<String, NamespaceSeen>,
    /// Attempts that left the ledger, and since when this process knows so.
    pub departed: HashMap<String, Instant>,
    /// Slots as this process first saw them in their state: by attempt, a kept place by its owner's uid.
    pub entered: HashMap<String, Entered>,
    /// Keystore Secrets of no slot, and since when this process has seen them so: by attempt.
    pub loose: HashMap<String, Instant>,
}

/// A namespace as it was last read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceSeen {
    /// When it was read.
    pub asked: Instant,
    /// Since when it has not been there; `None`: it is there.
    pub gone_since: Option<Instant>,
}

/// A slot as this process first saw it in its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    /// The state.
    pub state: SlotState,
    /// Since when, as the ledger says.
    pub since: Timestamp,
    /// When this process first saw the slot so.
    pub at: Instant,
    /// Since when, as the ledger says, the slot was in the first state that this process saw it in: its licence is no later.
    pub first_since: Timestamp,
    /// When this process first saw the slot in that first state.
    pub first_at: Instant,
}

/// Why there is no newer list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFailure {
    /// How many failed in a row.
    pub count: u32,
    /// What happened.
    pub error: bags::Error,
    /// No other list is asked for before this.
    pub retry_at: Instant,
}

/// The revoke endpoint as it was last tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it was there.
    pub found: bool,
    /// When, by the wall clock.
    pub at: Timestamp,
    /// Path and token, as `judge::endpoint` names them: it says nothing of others.
    pub with: String,
}

/// A revocation as Bags last refused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRevocation {
    /// When, by the wall clock.
    pub at: Timestamp,
    /// Path and token, as `judge::endpoint` names them: it says nothing of others.
    pub with: String,
    /// What it said.
    pub error: bags::Error,
}

/// What this process saw of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyMemory {
    /// When the probe was sent that the key last answered with 200: that use of the key is no earlier.
    pub good: Option<Instant>,
    /// Since when it has answered 401, without a 200 in between.
    pub refused_since: Option<Instant>,
    /// How often it has answered 401 since then.
    pub refusals: u32,
    /// Since when it has answered neither 200 nor 401 in the service's words, without one of them in between.
    pub unclear_since: Option<Instant>,
    /// What it last answered, where that was not 200.
    pub failure: Option<Probe>,
    /// When it last answered anything.
    pub probed: Option<Instant>,
    /// When it was last asked, answered or not.
    pub tried: Option<Instant>,
    /// Probes in a row that were not answered.
    pub unanswered: u32,
    /// It is not asked again before this.
    pub probe_after: Option<Instant>,
    /// It answered 200 after `Revoking` was written and before the revocation was sent.
    pub alive_before_revocation: bool,
    /// When Bags acknowledged our revocation.
    pub acknowledged: Option<Instant>,
    /// Revocations in a row that failed or had no effect.
    pub revocations: u32,
    /// Revocations in a row that were answered 404.
    pub not_found: u32,
    /// No revocation is sent before this.
    pub revoke_after: Option<Instant>,
    /// How Bags refused the last revocation. It is remembered for each key: what Bags says of one id need not hold for another.
    pub revocation_refused: Option<RefusedRevocation>,
    /// A live read showed that the empty keystore Secret is gone: its value can no longer arrive.
    pub closed: bool,
    /// The user it belonged to when it last answered 200.
    pub user: Option<String>,
    /// The latest use that any list has shown: it stands although a later list shows an earlier one, or none.
    pub last_used: Option<Timestamp>,
    /// The last of our own uses (probes that were answered with 200) that a list has shown, and how much later the first list was
    /// asked for that shows it.
    pub shown: Option<(Instant, Duration)>,
}

impl Memory {
    /// The memory of an account, which may spend this many requests an hour. All callers share one memory for as long as the
    /// account exists. `paused_until`: the rate limit's end that the account's status shows, which another process may have
    /// learnt; it is only used for a new memory, as this process learns of later ones itself.
    pub fn of(
        &self,
        name: &str,
        requests_per_hour: u32,
        paused_until: Option<Timestamp>,
        clock: &Arc<dyn Clock>,
    ) -> Arc<AccountMemory> {
        let mut accounts = lock(&self.accounts);
        if let Some(known) = accounts.get(name) {
            known.budget.set_per_hour(requests_per_hour);
            return known.clone();
        }
        let fresh = Arc::new(AccountMemory {
            budget: Arc::new(Budget::per_hour(requests_per_hour, clock.clone())),
            lists: tokio::sync::Mutex::default(),
            preparing: tokio::sync::Mutex::default(),
            wallet: LastWallet::default(),
            keys: Mutex::default(),
            facts: Mutex::default(),
        });
        if let Some(until) = paused_until {
            fresh.budget.pause_until(until);
        }
        accounts.insert(name.to_owned(), fresh.clone());
        fresh
    }

    /// Forgets an account that is gone.
    pub fn forget(&self, name: &str) {
        lock(&self.accounts).remove(name);
    }
}

impl AccountFacts {
    /// Version of the token whose list was seen to cover the account of the user that this status pins: by this process, or by the
    /// one that wrote the status.
    pub fn covering<'a>(&'a self, status: Option<&'a BagsAccountStatus>) -> Option<&'a str> {
        let pinned = status.and_then(|status| status.user.as_ref());
        let own = self.covering_token.as_deref().filter(|_| self.covering_user.as_ref() == pinned);
        own.or_else(|| status.and_then(|status| status.covering_token.as_deref()))
    }
}

impl KeyMemory {
    /// Notes when the key was last used, as a list tells that was asked for at `now`.
    pub fn listed(&mut self, last_used: Option<Timestamp>, now: Instant, wall: Timestamp) {
        // A last use is no later than the list that shows it, by our own clock: a time in the future would have to be waited for.
        self.last_used = self.last_used.max(last_used.map(|used| used.min(wall)));
        let Some(good) = self.good else { return };
        let ago = now.saturating_duration_since(good);
        // The service may tell times in whole seconds.
        let answered = earlier(wall, ago).as_second();
        let shows = last_used.is_some_and(|used| used.as_second() >= answered);
        if shows && self.shown.is_none_or(|(shown, _)| shown != good) {
            self.shown = Some((good, ago));
        }
    }
}

impl AccountMemory {
    /// What is remembered of a key.
    #[must_use]
    pub fn key(&self, attempt: &str) -> KeyMemory {
        lock(&self.keys).get(attempt).cloned().unwrap_or_default()
    }

    /// Changes what is remembered of a key.
    pub fn remember(&self, attempt: &str, change: impl FnOnce(&mut KeyMemory)) {
        change(lock(&self.keys).entry(attempt.to_owned()).or_default());
    }

    /// Forgets keys that are in no slot.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        lock(&self.keys).retain(|attempt, _| keep(attempt));
    }
}

impl AccountMemory {
    /// What is remembered of the account as a whole.
    #[must_use]
    pub fn facts(&self) -> AccountFacts {
        lock(&self.facts).clone()
    }

    /// Since when this process knows that these attempts left the ledger, which keeps no times of them.
    pub fn departed(&self, attempts: &[String], now: Instant) -> HashMap<String, Instant> {
        self.note(|facts| {
            facts.departed.retain(|attempt, _| attempts.contains(attempt));
            for attempt in attempts {
                facts.departed.entry(attempt.clone()).or_insert(now);
            }
            facts.departed.clone()
        })
    }

    /// Changes what is remembered of the account as a whole.
    pub fn note<T>(&self, change: impl FnOnce(&mut AccountFacts) -> T) -> T {
        change(&mut lock(&self.facts))
    }
}

impl KeyMemory {
    /// Notes that the key was probed at `asked`, and answered 200. `revoking`: its slot is `Revoking`. Then the result is whether
    /// Bags had acknowledged a revocation, which turns out to have had no effect.
    pub fn answered_alive(&mut self, asked: Instant, now: Instant, user: &UserId, revoking: bool) -> bool {
        self.answered(now);
        self.user = Some(user.as_str().to_owned());
        self.good = Some(asked);
        self.unclear_since = None;
        self.refused_since = None;
        self.refusals = 0;
        self.failure = None;
        if !revoking {
            return false;
        }
        self.alive_before_revocation = true;
        self.acknowledged.take().is_some()
    }

    /// Whether it answered 200 since then for the user that the account's keys must belong to. A key of another user says
    /// nothing of the account: that user's list shows it too.
    #[must_use]
    pub fn speaks_for(&self, account: &BagsAccount, since: Instant) -> bool {
        let expected = account.expected_user();
        let theirs =
            expected.is_some_and(|expected| self.user.as_deref().is_some_and(|user| user != expected));
        self.good.is_some_and(|good| good >= since) && !theirs
    }

    /// Notes that the key answered 401. Refusals from before `floor` count for nothing.
    pub fn answered_dead(&mut self, now: Instant, floor: Option<Instant>) {
        self.answered(now);
        self.unclear_since = None;
        self.failure = Some(Probe::Dead);
        match self.refused_since.filter(|since| floor.is_none_or(|floor| *since >= floor)) {
            Some(_) => self.refusals = self.refusals.saturating_add(1),
            None => {
                self.refused_since = Some(now);
                self.refusals = 1;
            }
        }
    }

    /// Notes that the key answered in a way that shows neither life nor death.
    pub fn answered_unclear(&mut self, now: Instant, answer: Probe) {
        self.answered(now);
        self.failure = Some(answer);
        self.unclear_since.get_or_insert(now);
    }

    /// Notes that a probe was answered with 401, 403 or 404, but not in the service's own words: something in front of the
    /// service may say so of any key. That shows no life, but it is not counted as a refusal by the service.
    pub fn refused_strangely(&mut self, now: Instant) {
        self.answered(now);
        self.unclear_since.get_or_insert(now);
    }

    fn answered(&mut self, now: Instant) {
        self.tried = Some(now);
        self.probed = Some(now);
        self.unanswered = 0;
        self.probe_after = None;
    }

    /// Notes that a probe was not answered; `again`: when to probe again.
    pub fn silent(&mut self, now: Instant, again: Instant) {
        self.tried = Some(now);
        self.unanswered = self.unanswered.saturating_add(1);
        self.probe_after = Some(again);
    }
}

/// What a failed request to Bags means for the next one.
#[must_use]
pub fn class_of(error: &bags::Error) -> FailureClass {
    match error.class() {
        bags::Class::Refused => FailureClass::Terminal,
        bags::Class::RateLimited { until } => FailureClass::RateLimited(until),
        bags::Class::NotDone | bags::Class::Unknown => FailureClass::Transient,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "tokio's paused clock")]
    async fn a_refusal_that_is_not_in_the_services_words_is_none_of_its_refusals() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut key = KeyMemory { unanswered: 3, probe_after: Some(at(60)), ..KeyMemory::default() };
        key.answered_dead(at(1), None);
        key.refused_strangely(at(31));
        key.refused_strangely(at(61));
        assert_eq!((key.refusals, key.refused_since), (1, Some(at(1))));
        assert_eq!((key.unclear_since, key.probed, key.tried), (Some(at(31)), Some(at(61)), Some(at(61))));
        assert_eq!((key.unanswered, key.probe_after), (0, None));
        key.answered_dead(at(91), None);
        assert_eq!((key.refusals, key.unclear_since), (2, None));
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "tokio's paused clock")]
    async fn a_known_use_is_shown_by_a_list_that_tells_of_it_in_whole_seconds() {
        let (begin, wall) = (Instant::now(), Timestamp::from_second(1_800_000_000).unwrap());
        let millis = Duration::from_millis;
        let user = UserId::parse("user-1").unwrap();
        // Asked at 0.9 s, used at 0.95 s, answered at 1.1 s; the list is asked for at 5 s.
        let shown = |used: Option<i64>| {
            let mut key = KeyMemory::default();
            key.answered_alive(begin + millis(900), begin + millis(1100), &user, false);
            let used = used.map(|second| Timestamp::from_second(1_800_000_000 + second).unwrap());
            key.listed(used, begin + millis(5000), wall + millis(5000));
            key.shown.map(|(asked, lag)| (asked.duration_since(begin), lag))
        };
        assert_eq!(shown(Some(0)), Some((millis(900), millis(4100))), "the second of its use");
        assert_eq!(shown(Some(3)), Some((millis(900), millis(4100))), "somebody has used it since");
        assert_eq!(shown(Some(-1)), None, "a use before that");
        assert_eq!(shown(None), None, "no use at all");
    }
}
