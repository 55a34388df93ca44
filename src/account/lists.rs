//! Lists of an account's keys, and what they prove. Pure.
//!
//! A list decides something only if it covers the account: it must show a key of ours that answered 200 within
//! the last hour, or else the token may belong to someone else. One list may lag, so it takes two to show absence.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    api::account::{Slot, SlotState},
    bags::ListedKey,
    ledger::Ledger,
    time::since,
    timings::Timings,
};

/// How many lists are kept: enough for three over ten minutes beside one a minute.
const KEPT: usize = 24;

/// A key that left the ledger may still be listed for this long, as lists lag. A key that is listed after that was made late, and
/// lives.
const LAG: Duration = Duration::from_mins(10);

/// Whether a list speaks of the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// It shows a key of ours that is known to live.
    Covers,
    /// No key of ours is known to live, but the token's list covered the account before: three count as two.
    Tentative,
    /// It may be the list of another account.
    No,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was asked for, by the monotonic clock.
    pub at: Instant,
    /// When it was asked for, by the wall clock.
    pub wall: Timestamp,
    /// The active keys; never a value.
    pub keys: Vec<ListedKey>,
    /// Whether it speaks of the account.
    pub coverage: Coverage,
    /// The account's user at that time: if the list covers the account, it shows this user's keys.
    pub user: Option<String>,
}

impl Snapshot {
    /// Whether it speaks of a slot's key: not of one that was made for another user.
    fn speaks_of(&self, slot: &Slot) -> Coverage {
        let of_another = slot.user.as_ref().zip(self.user.as_ref()).is_some_and(|(its, ours)| its != ours);
        if of_another { Coverage::No } else { self.coverage }
    }
}

/// What the lists say of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A list shows it.
    Shown {
        /// Its id, where the list has one.
        key_id: Option<String>,
    },
    /// Enough lists that cover the account lack it.
    Absent,
    /// Another list is needed, not before this long from now.
    Undecided {
        /// How long to wait.
        wait: Duration,
    },
    /// The lists do not cover the account.
    NotCovered,
}

/// From when on lists count. The wall clock alone cannot tell, as it may be set back; the monotonic clock knows nothing of the
/// time before this process.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// By the wall clock.
    pub wall: Timestamp,
    /// When this process first saw the slot in its state: no list from before counts.
    pub entered: Instant,
    /// A list that is asked for from then on counts, whatever the wall clock says.
    pub surely: Instant,
}

impl Since {
    /// Whether a list was asked for late enough to count.
    #[must_use]
    pub fn admits(&self, list: &Snapshot) -> bool {
        list.at >= self.entered && (list.wall >= self.wall || list.at >= self.surely)
    }

    /// How long to wait until a list that is asked for counts.
    #[must_use]
    pub fn admits_in(&self, now: Instant, wall: Timestamp) -> Duration {
        let by_wall = Duration::try_from(self.wall.duration_since(wall)).unwrap_or(Duration::ZERO);
        let surely = self.surely.saturating_duration_since(now);
        by_wall.min(surely).max(self.entered.saturating_duration_since(now))
    }
}

/// The last lists of an account, oldest first.
#[derive(Default)]
pub struct Lists {
    history: VecDeque<Snapshot>,
}

impl Lists {
    /// The last one.
    #[must_use]
    pub fn last(&self) -> Option<&Snapshot> {
        self.history.back()
    }

    /// Adds one.
    pub fn push(&mut self, snapshot: Snapshot) {
        self.history.push_back(snapshot);
        if self.history.len() > KEPT {
            self.history.pop_front();
        }
    }

    /// Forgets all: the credentials changed.
    pub fn clear(&mut self) {
        self.history.clear();
    }

    /// What the lists asked for since `since` say of a slot's key.
    #[must_use]
    pub fn verdict(&self, slot: &Slot, since: Since, now: Instant, timings: &Timings) -> Verdict {
        verdict(self.history.iter().filter(|list| since.admits(list)).collect(), slot, now, timings)
    }

    /// What the lists say of a key that was there and should go: like [`verdict`](Self::verdict), but only the lists
    /// after the last one that showed it count.
    #[must_use]
    pub fn absence(&self, slot: &Slot, since: Since, now: Instant, timings: &Timings) -> Verdict {
        let showing = |list: &&Snapshot| find(&list.keys, slot).is_some();
        let Some(shown) = self.history.iter().rev().find(showing) else {
            return self.verdict(slot, since, now, timings);
        };
        let later = || self.history.iter().filter(|list| list.at > shown.at);
        let contradicted = later().any(|list| list.speaks_of(slot) != Coverage::No);
        if !contradicted && since.admits(shown) {
            return Verdict::Shown { key_id: id_of(&shown.keys, slot) };
        }
        verdict(later().filter(|list| since.admits(list)).collect(), slot, now, timings)
    }
}

/// What these lists say of a slot's key.
fn verdict(after: Vec<&Snapshot>, slot: &Slot, now: Instant, timings: &Timings) -> Verdict {
    let speaking = |coverage| after.iter().copied().filter(move |list| list.speaks_of(slot) == coverage);
    // A list that shows the key counts whatever its coverage: a name that holds ten random characters of ours is nobody else's.
    if let Some(list) = after.iter().rev().find(|list| find(&list.keys, slot).is_some()) {
        return Verdict::Shown { key_id: id_of(&list.keys, slot) };
    }
    if spans(speaking(Coverage::Covers), 2, timings.lists_apart) {
        return Verdict::Absent;
    }
    if spans(speaking(Coverage::Tentative), 3, timings.cover_without_key) {
        return Verdict::Absent;
    }
    match after.last() {
        None => Verdict::Undecided { wait: Duration::ZERO },
        Some(list) => match list.speaks_of(slot) {
            Coverage::No => Verdict::NotCovered,
            Coverage::Covers => Verdict::Undecided { wait: remaining(list.at, timings.lists_apart, now) },
            Coverage::Tentative => {
                Verdict::Undecided { wait: remaining(list.at, timings.cover_without_key / 2, now) }
            }
        },
    }
}

fn spans<'a>(lists: impl Iterator<Item = &'a Snapshot>, least: usize, apart: Duration) -> bool {
    let times: Vec<Instant> = lists.map(|list| list.at).collect();
    match (times.first(), times.last()) {
        (Some(first), Some(last)) => times.len() >= least && last.duration_since(*first) >= apart,
        _ => false,
    }
}

fn remaining(at: Instant, apart: Duration, now: Instant) -> Duration {
    apart.saturating_sub(now.saturating_duration_since(at))
}

/// A slot's key in a list: by its id and its name, or else by its id, or by its name. Either should be unique; where one is
/// not, the other one tells whose key it is.
#[must_use]
pub fn find<'a>(keys: &'a [ListedKey], slot: &Slot) -> Option<&'a ListedKey> {
    let by_both = keys.iter().find(|key| has_id(key, slot) && has_name(key, slot));
    let by_id = || keys.iter().find(|key| has_id(key, slot));
    let by_name = || keys.iter().find(|key| has_name(key, slot));
    by_both.or_else(by_id).or_else(by_name)
}

/// The id of a slot's key, as a list tells it. If the slot has no id yet, the name alone says which listed key is meant: if
/// several listed keys have that name, no id is taken, as one of them may be somebody else's.
#[must_use]
pub fn id_of(keys: &[ListedKey], slot: &Slot) -> Option<String> {
    let namesakes = keys.iter().filter(|key| has_name(key, slot)).count();
    let found = find(keys, slot).filter(|key| has_id(key, slot) || namesakes == 1)?;
    found.key_id.clone()
}

fn has_id(key: &ListedKey, slot: &Slot) -> bool {
    key.key_id.is_some() && key.key_id == slot.key_id
}

fn has_name(key: &ListedKey, slot: &Slot) -> bool {
    slot.key_name.as_deref() == Some(key.name.as_str())
}

fn is_of(key: &ListedKey, slot: &Slot) -> bool {
    has_id(key, slot) || has_name(key, slot)
}

/// Whether a list covers the account; `good` tells of an attempt whether its key answered 200 within the last hour.
#[must_use]
pub fn coverage(
    keys: &[ListedKey],
    ledger: &Ledger,
    good: impl Fn(&str) -> bool,
    covered_before: bool,
) -> Coverage {
    let proven = ledger
        .slots
        .iter()
        .any(|slot| slot.attempt.as_deref().is_some_and(&good) && find(keys, slot).is_some());
    let living = ledger.slots.iter().any(|slot| slot.state == SlotState::Live);
    match (proven, living, covered_before) {
        (true, _, _) => Coverage::Covers,
        (false, false, true) => Coverage::Tentative,
        (false, true, _) | (false, false, false) => Coverage::No,
    }
}

/// Whether a list asked for at `wall` shows a key of ours that had been in use for longer than lists lag; `None` where
/// there was none to show.
#[must_use]
pub fn shows_live(keys: &[ListedKey], ledger: &Ledger, wall: Timestamp, timings: &Timings) -> Option<bool> {
    let settled = |since: Timestamp| wall.duration_since(since).unsigned_abs() > timings.judge_after;
    let live = ledger
        .slots
        .iter()
        .filter(|slot| slot.state == SlotState::Live && slot.since < wall && settled(slot.since));
    let mut live = live.peekable();
    live.peek()?;
    Some(live.any(|slot| find(keys, slot).is_some()))
}

/// Whether a list, which shows the keys of its token's user, names another user than the one that the account's keys must belong
/// to. Its rows need not name a user, nor in the words in which Bags told a key its user. So a list that shows a key that was
/// published as the expected user's is that user's, whatever its rows say; and keys of ours that lately left the ledger tell
/// nothing.
#[must_use]
pub fn shows_stranger(
    keys: &[ListedKey],
    at: Instant,
    ledger: &Ledger,
    departed: &HashMap<String, Instant>,
    expected: Option<&str>,
) -> bool {
    let Some(expected) = expected else { return false };
    let known = published_as(ledger, expected).any(|slot| find(keys, slot).is_some());
    let mut users = lasting(keys, at, departed).filter_map(|key| key.user_id.as_ref());
    !known && users.any(|user| user.as_str() != expected)
}

/// Whether a list asked for at `wall` may be too old to show a key that was published as this user's.
#[must_use]
pub fn may_miss(ledger: &Ledger, expected: Option<&str>, wall: Timestamp, timings: &Timings) -> bool {
    let young = |slot: &Slot| since(wall, slot.since) <= timings.judge_after;
    expected.is_some_and(|expected| published_as(ledger, expected).any(young))
}

fn published_as<'a>(ledger: &'a Ledger, user: &'a str) -> impl Iterator<Item = &'a Slot> {
    ledger.slots.iter().filter(move |slot| slot.published.is_some() && slot.user.as_deref() == Some(user))
}

/// Keys in a list asked for at `at`, without those that lately left a slot: a list that lags may still show them. `departed`
/// tells since when attempts are known to have left.
fn lasting<'a>(
    keys: &'a [ListedKey],
    at: Instant,
    departed: &HashMap<String, Instant>,
) -> impl Iterator<Item = &'a ListedKey> + use<'a> {
    let lags = |left: Instant| at.saturating_duration_since(left) < LAG;
    let lately = departed.iter().filter(|(_, left)| lags(**left));
    let endings: Vec<String> = lately.map(|(attempt, _)| format!("-{attempt}")).collect();
    keys.iter().filter(move |key| !endings.iter().any(|ending| key.name.ends_with(ending)))
}

/// Keys in a list asked for at `at` that are in no slot and did not lately leave one: made elsewhere.
#[must_use]
pub fn unmanaged<'a>(
    keys: &'a [ListedKey],
    at: Instant,
    ledger: &Ledger,
    departed: &HashMap<String, Instant>,
) -> Vec<&'a ListedKey> {
    lasting(keys, at, departed).filter(|key| !ledger.slots.iter().any(|slot| is_of(key, slot))).collect()
}

#[cfg(test)]
mod tests;
