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
    timings::Timings,
};

/// How many lists are kept: enough for three over ten minutes beside one a minute.
const KEPT: usize = 24;

/// A key that left the ledger may be listed for so long. After that it is one that came late, and lives.
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
    /// The account's user then, whose keys it shows where it covers.
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

/// From when on lists count. The wall clock alone cannot tell, as it may be set back; the other one knows nothing of the
/// time before this process.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// By the wall clock.
    pub wall: Timestamp,
    /// When this process first saw the slot in its state: no list from before counts.
    pub entered: Instant,
    /// A list from then on counts, whatever the wall clock says.
    pub surely: Instant,
}

impl Since {
    /// Whether a list was asked for since.
    #[must_use]
    pub fn admits(&self, list: &Snapshot) -> bool {
        list.at >= self.entered && (list.wall >= self.wall || list.at >= self.surely)
    }

    /// In how long a list that is asked for then counts.
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
    // Whatever else a list speaks of: a name that holds ten random characters of ours is nobody else's.
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

/// The id of a slot's key, as a list tells it. Of an id that nobody else told, the name alone says whose it is: several keys
/// of that name tell none, as one of them may be somebody else's.
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

/// Whether a list names a user who is not the one that the account's keys must belong to: a list shows the keys of its token's
/// user. Nobody says that each row names one, nor that it does in the words in which Bags told a key whose it is: a list that shows a
/// key that was published as that user's is that user's, whatever its rows call them.
#[must_use]
pub fn shows_stranger(keys: &[ListedKey], ledger: &Ledger, expected: Option<&str>) -> bool {
    let Some(expected) = expected else { return false };
    let theirs = |slot: &Slot| slot.published.is_some() && slot.user.as_deref() == Some(expected);
    let known = ledger.slots.iter().any(|slot| theirs(slot) && find(keys, slot).is_some());
    let mut users = keys.iter().filter_map(|key| key.user_id.as_ref());
    !known && users.any(|user| user.as_str() != expected)
}

/// Keys in a list asked for at `at` that are in no slot and did not lately leave one: made elsewhere. `departed` tells
/// since when attempts are known to have left.
#[must_use]
pub fn unmanaged<'a>(
    keys: &'a [ListedKey],
    at: Instant,
    ledger: &Ledger,
    departed: &HashMap<String, Instant>,
) -> Vec<&'a ListedKey> {
    let lags = |left: Instant| at.saturating_duration_since(left) < LAG;
    let lately = departed.iter().filter(|(_, left)| lags(**left));
    let endings: Vec<String> = lately.map(|(attempt, _)| format!("-{attempt}")).collect();
    keys.iter()
        .filter(|key| !ledger.slots.iter().any(|slot| is_of(key, slot)))
        .filter(|key| !endings.iter().any(|ending| key.name.ends_with(ending)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bags::UserId,
        ledger::slots::tests::{owner, slot},
    };

    fn listed(slots: &[&Slot]) -> Vec<ListedKey> {
        slots
            .iter()
            .map(|slot| ListedKey {
                key_id: slot.key_id.clone(),
                name: slot.key_name.clone().unwrap_or_default(),
                status: "active".into(),
                created_at: None,
                last_used_at: None,
                user_id: None,
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "tokio's paused clock")]
    async fn lists_of_another_user_say_nothing_of_a_key_that_they_do_not_show() {
        use Coverage::Covers;
        let clock = Clock(Instant::now());
        let of = |user: Option<&str>| Slot {
            user: user.map(str::to_owned),
            ..slot(&owner(0), SlotState::Revoking)
        };
        let lists = clock.lists(&[(10, Covers, &[]), (100, Covers, &[])]);
        let now = clock.0 + Duration::from_secs(100);
        let absence = |user| lists.absence(&of(user), clock.since(0), now, &Timings::default());
        assert_eq!(absence(Some("one")), Verdict::Absent);
        assert_eq!(absence(None), Verdict::Absent, "nobody was known when it was licensed");
        assert_eq!(absence(Some("two")), Verdict::NotCovered);
        let theirs = of(Some("two"));
        let shown = clock.lists(&[(10, Covers, &[&theirs])]);
        let seen = shown.absence(&theirs, clock.since(0), now, &Timings::default());
        assert!(matches!(seen, Verdict::Shown { .. }), "a name of ours is nobody else's");
    }

    struct Clock(Instant);

    impl Clock {
        fn since(&self, seconds: u64) -> Since {
            let (wall, entered) = (i64::try_from(seconds).unwrap(), self.0 + Duration::from_secs(seconds));
            Since { wall: Timestamp::from_second(wall).unwrap(), entered, surely: entered }
        }

        fn lists(&self, answers: &[(u64, Coverage, &[&Slot])]) -> Lists {
            let mut lists = Lists::default();
            for (seconds, coverage, slots) in answers {
                lists.push(Snapshot {
                    at: self.0 + Duration::from_secs(*seconds),
                    wall: Timestamp::from_second(i64::try_from(*seconds).unwrap()).unwrap(),
                    keys: listed(slots),
                    coverage: *coverage,
                    user: Some("one".to_owned()),
                });
            }
            lists
        }
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "tokio's paused clock")]
    async fn it_takes_two_covering_lists_thirty_seconds_apart_to_show_absence() {
        use Coverage::{Covers, No, Tentative};
        let (lost, other) = (slot(&owner(0), SlotState::Unresolved), slot(&owner(1), SlotState::Live));
        let clock = Clock(Instant::now());
        let absent: &[&Slot] = &[&other];
        let undecided = |seconds| Verdict::Undecided { wait: Duration::from_secs(seconds) };
        type Answer<'a> = (u64, Coverage, &'a [&'a Slot]);
        let cases: &[(&str, &[Answer<'_>], Verdict)] = &[
            ("no list", &[], undecided(0)),
            ("one list", &[(100, Covers, absent)], undecided(30)),
            ("two lists too close", &[(100, Covers, absent), (129, Covers, absent)], undecided(30)),
            ("two lists", &[(100, Covers, absent), (130, Covers, absent)], Verdict::Absent),
            ("the first one is too old", &[(40, Covers, absent), (130, Covers, absent)], undecided(30)),
            (
                "one shows it",
                &[(100, Covers, &[&lost]), (130, Covers, absent)],
                Verdict::Shown { key_id: lost.key_id.clone() },
            ),
            ("of somebody else", &[(100, No, absent), (130, No, absent)], Verdict::NotCovered),
            ("two tentative ones", &[(100, Tentative, absent), (700, Tentative, absent)], undecided(300)),
            (
                "three tentative ones over ten minutes",
                &[(100, Tentative, absent), (400, Tentative, absent), (700, Tentative, absent)],
                Verdict::Absent,
            ),
        ];
        for (name, answers, expected) in cases {
            let lists = clock.lists(answers);
            let now = clock.0 + Duration::from_secs(answers.last().map_or(0, |(seconds, _, _)| *seconds));
            let verdict = lists.verdict(&lost, clock.since(50), now, &Timings::default());
            assert_eq!(verdict, *expected, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "tokio's paused clock")]
    async fn what_should_go_is_judged_by_the_lists_after_the_last_that_showed_it() {
        use Coverage::{Covers, No};
        let (dying, other) = (slot(&owner(0), SlotState::Revoking), slot(&owner(1), SlotState::Live));
        let clock = Clock(Instant::now());
        let (absent, present): (&[&Slot], &[&Slot]) = (&[&other], &[&dying, &other]);
        let shown = Verdict::Shown { key_id: dying.key_id.clone() };
        let undecided = |seconds| Verdict::Undecided { wait: Duration::from_secs(seconds) };
        type Answer<'a> = (u64, Coverage, &'a [&'a Slot]);
        let cases: &[(&str, &[Answer<'_>], Verdict)] = &[
            ("the last one shows it", &[(100, Covers, absent), (200, Covers, present)], shown.clone()),
            ("also one that does not cover", &[(200, No, present)], shown.clone()),
            ("one since lacks it", &[(100, Covers, present), (200, Covers, absent)], undecided(30)),
            (
                "two since lack it",
                &[(100, Covers, present), (200, Covers, absent), (230, Covers, absent)],
                Verdict::Absent,
            ),
            ("one of somebody else says nothing", &[(100, Covers, present), (200, No, absent)], shown),
            ("it was shown before the question arose only", &[(40, Covers, present)], undecided(0)),
        ];
        for (name, answers, expected) in cases {
            let lists = clock.lists(answers);
            let now = clock.0 + Duration::from_secs(answers.last().map_or(0, |(seconds, _, _)| *seconds));
            let verdict = lists.absence(&dying, clock.since(50), now, &Timings::default());
            assert_eq!(verdict, *expected, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "tokio's paused clock")]
    async fn lists_count_from_the_question_on_also_where_the_wall_clock_was_set_back() {
        let clock = Clock(Instant::now());
        let at = |seconds: u64| clock.0 + Duration::from_secs(seconds);
        let list = |wall, seconds| Snapshot {
            at: at(seconds),
            wall: Timestamp::from_second(wall).unwrap(),
            keys: vec![],
            coverage: Coverage::Covers,
            user: None,
        };
        let since = Since { wall: Timestamp::from_second(5000).unwrap(), entered: at(100), surely: at(340) };
        let cases = [
            ("before the question", list(4999, 339), false),
            ("after it, by the wall clock", list(5000, 101), true),
            ("after it, by a wall clock that was set back", list(1000, 340), true),
            ("before it, by a wall clock that was ahead", list(9000, 99), false),
        ];
        for (name, list, counts) in cases {
            assert_eq!(since.admits(&list), counts, "{name}");
            assert_eq!(since.admits_in(list.at, list.wall).is_zero(), counts, "{name}");
        }
        let wait =
            |wall, seconds| since.admits_in(at(seconds), Timestamp::from_second(wall).unwrap()).as_secs();
        assert_eq!(wait(4999, 339), 1);
        assert_eq!(wait(4950, 200), 50, "by the wall clock");
        assert_eq!(wait(1000, 200), 140, "by the other one, where the wall clock was set back");
        assert_eq!(wait(9000, 90), 10, "not before the question");
    }

    #[test]
    fn a_list_tells_whose_its_token_is_where_a_row_names_its_user() {
        let slots = [owner(0), owner(1)].map(|owner| slot(&owner, SlotState::Live));
        let told = |users: [Option<&str>; 2], expected| {
            let mut keys = listed(&[&slots[0], &slots[1]]);
            for (key, user) in keys.iter_mut().zip(users) {
                key.user_id = user.and_then(UserId::parse);
            }
            shows_stranger(&keys, &Ledger::default(), expected)
        };
        let (ours, theirs) = (Some("one"), Some("two"));
        assert!(told([theirs, theirs], ours));
        assert!(told([None, theirs], ours), "one row is enough");
        assert!(!told([ours, ours], ours));
        assert!(!told([None, ours], ours), "a row may lack it");
        assert!(!told([None, None], ours));
        assert!(!told([theirs, theirs], None), "nobody knows whose the account is");
        assert!(!shows_stranger(&[], &Ledger::default(), ours), "it shows no key");
    }

    #[test]
    fn a_list_that_shows_a_published_key_of_the_accounts_user_is_no_strangers() {
        let live = Slot { user: Some("one".into()), ..slot(&owner(0), SlotState::Live) };
        let mut keys = listed(&[&live]);
        keys[0].user_id = UserId::parse("two");
        let told = |slot: &Slot, expected| {
            let ledger = Ledger { slots: vec![slot.clone()], departed: vec![] };
            shows_stranger(&keys, &ledger, Some(expected))
        };
        assert!(!told(&live, "one"), "its rows name their user in another way");
        assert!(told(&live, "typo"), "it is published as another user's");
        assert!(told(&Slot { published: None, ..live.clone() }, "one"), "nobody has asked it whose it is");
        let unlisted = Slot { user: live.user.clone(), ..slot(&owner(1), SlotState::Live) };
        assert!(told(&unlisted, "one"), "it is not shown");
    }

    #[test]
    fn a_key_is_found_by_id_and_name_before_either_of_them() {
        let a = slot(&owner(0), SlotState::Live);
        let b = Slot { key_id: a.key_id.clone(), ..slot(&owner(1), SlotState::Live) };
        let keys = listed(&[&b, &a]);
        let name = |slot: &Slot| find(&keys, slot).map(|key| key.name.clone());
        assert_eq!((name(&a), name(&b)), (a.key_name.clone(), b.key_name.clone()), "two keys go by one id");
        let renamed = Slot { key_name: Some("Renamed".into()), ..a.clone() };
        assert!(name(&renamed).is_some(), "by its id");
        let of_another_id = Slot { key_id: Some("another".into()), ..a.clone() };
        assert_eq!(name(&of_another_id), a.key_name, "by its name");
        let neither = Slot { key_id: Some("another".into()), ..renamed };
        assert_eq!(name(&neither), None);
    }

    #[test]
    fn of_several_keys_of_one_name_none_tells_an_id_that_nobody_else_told() {
        let known = slot(&owner(0), SlotState::Revoking);
        let untold = Slot { key_id: None, ..known.clone() };
        let namesake = Slot { key_id: Some("by-hand".into()), ..known.clone() };
        let told = |slot: &Slot, listed_slots: &[&Slot]| id_of(&listed(listed_slots), slot);
        assert_eq!(told(&untold, &[&known]), known.key_id);
        assert_eq!(told(&untold, &[&namesake, &known]), None);
        assert_eq!(told(&known, &[&namesake, &known]), known.key_id, "an id that is known is its own");
        assert_eq!(told(&untold, &[]), None);
    }

    #[test]
    fn a_list_covers_only_by_a_key_that_answered_lately() {
        let (live, lost) = (slot(&owner(0), SlotState::Live), slot(&owner(1), SlotState::Unresolved));
        let both = Ledger { slots: vec![live.clone(), lost.clone()], departed: vec![] };
        let none = Ledger { slots: vec![lost], departed: vec![] };
        let good = |attempt: &str| live.attempt.as_deref() == Some(attempt);
        let keys = listed(&[&live]);
        assert_eq!(coverage(&keys, &both, good, false), Coverage::Covers);
        assert_eq!(coverage(&keys, &both, |_| false, true), Coverage::No);
        assert_eq!(coverage(&[], &both, good, true), Coverage::No);
        assert_eq!(coverage(&[], &none, |_| false, true), Coverage::Tentative);
        assert_eq!(coverage(&[], &none, |_| false, false), Coverage::No);
    }

    #[test]
    fn a_list_may_lag_behind_a_new_key() {
        let (old, new) = (slot(&owner(0), SlotState::Live), slot(&owner(1), SlotState::Live));
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let new = Slot { since: at(1000), ..new };
        let of =
            |slots: &[&Slot]| Ledger { slots: slots.iter().copied().cloned().collect(), departed: vec![] };
        let shows = |listed: &[&Slot], ledger: &[&Slot], seconds| {
            shows_live(&self::listed(listed), &of(ledger), at(seconds), &Timings::default())
        };
        for (name, listed, ledger, seconds, expected) in [
            ("there is no key", &[][..], &[][..], 2000, None),
            ("the first one may not be shown yet", &[], &[&new], 1240, None),
            ("then it should be", &[], &[&new], 1241, Some(false)),
            ("and is", &[&new], &[&new], 1241, Some(true)),
            ("a list from before it", &[], &[&new], 100, None),
            ("an older key should be shown all the same", &[&new], &[&old, &new], 1001, Some(false)),
            ("and is", &[&old], &[&old, &new], 1001, Some(true)),
        ] {
            assert_eq!(shows(listed, ledger, seconds), expected, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "tokio's paused clock")]
    async fn a_key_that_just_left_the_ledger_is_not_somebody_elses() {
        let (ours, mut gone) = (slot(&owner(0), SlotState::Live), slot(&owner(1), SlotState::Live));
        gone.key_name = Some("Production-App-01234567-departedxx".into());
        let ledger = Ledger { slots: vec![ours.clone()], departed: vec!["departedxx".into()] };
        let left = Instant::now();
        let departed = HashMap::from([("departedxx".to_owned(), left)]);
        let count = |gone: &Slot, at| unmanaged(&listed(&[&ours, gone]), at, &ledger, &departed).len();
        assert_eq!(count(&gone, left), 0);
        assert_eq!(count(&gone, left + LAG - Duration::from_secs(1)), 0);
        assert_eq!(count(&gone, left + LAG), 1, "no list lags for so long: the key came late");
        gone.key_name = Some("Somebody-Elses".into());
        assert_eq!(count(&gone, left), 1);
    }
}
