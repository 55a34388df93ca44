//! What lists prove of a key, and what they do not.

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
    let of =
        |user: Option<&str>| Slot { user: user.map(str::to_owned), ..slot(&owner(0), SlotState::Revoking) };
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
    let wait = |wall, seconds| since.admits_in(at(seconds), Timestamp::from_second(wall).unwrap()).as_secs();
    assert_eq!(wait(4999, 339), 1);
    assert_eq!(wait(4950, 200), 50, "by the wall clock");
    assert_eq!(wait(1000, 200), 140, "by the other one, where the wall clock was set back");
    assert_eq!(wait(9000, 90), 10, "not before the question");
}

/// Whether a list asked for now, with nothing that left a slot, shows a stranger.
#[expect(clippy::disallowed_methods, reason = "an arbitrary time: an Instant has no other")]
fn shows_stranger(keys: &[ListedKey], ledger: &Ledger, expected: Option<&str>) -> bool {
    super::shows_stranger(keys, Instant::now(), ledger, &HashMap::new(), expected)
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

#[tokio::test(start_paused = true)]
#[expect(clippy::disallowed_methods, reason = "tokio's paused clock")]
async fn a_row_that_lately_left_the_ledger_is_no_strangers() {
    let gone = Slot { key_name: Some("Shop-01234567-departedxx".into()), ..slot(&owner(0), SlotState::Live) };
    let mut keys = listed(&[&gone]);
    keys[0].user_id = UserId::parse("called-otherwise");
    let (ledger, left) = (Ledger::default(), Instant::now());
    let departed = HashMap::from([("departedxx".to_owned(), left)]);
    let told = |keys: &[ListedKey], at| super::shows_stranger(keys, at, &ledger, &departed, Some("one"));
    assert!(!told(&keys, left));
    assert!(!told(&keys, left + LAG - Duration::from_secs(1)));
    assert!(told(&keys, left + LAG), "no list lags for so long");
    keys[0].name = "Somebody-Elses".into();
    assert!(told(&keys, left), "it never was in a slot");
}

#[test]
fn a_list_may_be_too_old_to_show_a_key_that_was_lately_published_as_its_users() {
    let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
    let of = |slot: Slot| Ledger { slots: vec![slot], departed: vec![] };
    let live = || Slot { user: Some("one".into()), since: at(1000), ..slot(&owner(0), SlotState::Live) };
    let may_miss = |slot, user, wall| super::may_miss(&of(slot), user, at(wall), &Timings::default());
    for (wall, expected) in [(900, true), (1000, true), (1240, true), (1241, false)] {
        assert_eq!(may_miss(live(), Some("one"), wall), expected, "{wall}");
    }
    assert!(!may_miss(live(), Some("two"), 1000), "it is another user's");
    assert!(!may_miss(live(), None, 1000));
    assert!(!may_miss(Slot { published: None, ..live() }, Some("one"), 1000), "nobody knows whose it is");
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
    let of = |slots: &[&Slot]| Ledger { slots: slots.iter().copied().cloned().collect(), departed: vec![] };
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
