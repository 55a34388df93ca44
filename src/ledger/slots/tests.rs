//! The table of transitions, line by line, and properties over random histories.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::ledger::invariants::{Waiver, violations};

mod arbitrary;

pub(crate) fn owner(n: usize) -> Owner {
    Owner { namespace: "shop".into(), name: format!("app-{n}"), uid: format!("uid-{n}") }
}

pub(crate) fn slot(owner: &Owner, state: SlotState) -> Slot {
    let keyed = state != SlotState::Reserved;
    let attempt = keyed.then(|| format!("attempt-{}-{}", owner.uid, state.as_str()));
    Slot {
        key_name: attempt.as_ref().map(|attempt| format!("Production-App-{attempt}")),
        key_id: attempt.as_ref().map(|attempt| format!("id-{attempt}")),
        published: matches!(state, SlotState::Live | SlotState::Released).then_some(1),
        attempt,
        state,
        ..place(owner, "production/app", 1, None, Timestamp::UNIX_EPOCH)
    }
}

fn terms(limit: i64, seconds: i64) -> Terms {
    Terms {
        room: Room { limit, rotation_reserve: 0, unmanaged: 0 },
        now: Timestamp::from_second(seconds).unwrap(),
        licence_term: Duration::from_secs(120),
    }
}

fn ledger(slots: Vec<Slot>) -> Ledger {
    Ledger { slots, departed: vec![] }
}

fn license(n: usize, attempt: &str) -> Change {
    Change::License {
        owner_uid: owner(n).uid,
        attempt: attempt.into(),
        key_name: format!("Name-{attempt}"),
        trigger: None,
    }
}

fn reserve(n: usize) -> Change {
    Change::Reserve { owner: owner(n), key_use: format!("production/app-{n}"), ahead: 0, max: None }
}

fn attempt(n: usize, state: SlotState) -> String {
    slot(&owner(n), state).attempt.unwrap()
}

#[test]
fn a_key_goes_from_a_place_through_a_licence_to_publication() {
    let start = ledger(vec![]).apply(&reserve(0), &terms(10, 0)).unwrap();
    let licensed = start.apply(&license(0, "a"), &terms(10, 1)).unwrap();
    assert_eq!(licensed.slots[0].state, SlotState::Creating);
    assert_eq!(licensed.slots[0].since.as_second(), 1);
    let live = licensed.apply(&Change::Publish { attempt: "a".into() }, &terms(10, 2)).unwrap();
    assert_eq!((live.slots[0].state.clone(), live.slots[0].published), (SlotState::Live, Some(1)));
    assert_eq!(live.current("uid-0").unwrap().attempt.as_deref(), Some("a"));
}

#[test]
fn slots_stand_by_owner_however_late_they_come() {
    let mut now = ledger(vec![]);
    for n in [2, 0, 1] {
        now = now.apply(&reserve(n), &terms(10, 0)).unwrap();
    }
    now = now.apply(&license(0, "a"), &terms(10, 1)).unwrap();
    now = now.apply(&Change::Publish { attempt: "a".into() }, &terms(10, 2)).unwrap();
    let next = Change::ReserveNext { owner: owner(0), key_use: "production/app-0".into() };
    now = now.apply(&next, &terms(10, 3)).unwrap();
    let order: Vec<(&str, i64)> =
        now.slots.iter().map(|slot| (slot.owner.name.as_str(), slot.revision)).collect();
    assert_eq!(order, [("app-0", 1), ("app-0", 2), ("app-1", 1), ("app-2", 1)]);
}

/// Another object of the same name as owner `n`.
fn again(n: usize) -> Owner {
    Owner { uid: format!("uid-{n}-again"), ..owner(n) }
}

#[test]
fn the_place_that_an_earlier_try_of_the_same_name_left_is_taken_over_and_back() {
    let take = |owner| Change::Reserve { owner, key_use: "production/app".into(), ahead: 0, max: None };
    let left = ledger(vec![]).apply(&take(owner(0)), &terms(1, 0)).unwrap();
    let over = left.apply(&take(again(0)), &terms(1, 9)).unwrap();
    let place = &over.slots[0];
    assert_eq!((over.slots.len(), &place.owner, place.since.as_second()), (1, &again(0), 9));
    let back = over.apply(&take(owner(0)), &terms(1, 10)).unwrap();
    assert_eq!((back.slots.len(), &back.slots[0].owner), (1, &owner(0)));
    assert_eq!(back.apply(&take(owner(0)), &terms(1, 11)), Err(Refusal::HasPlace));
    assert_eq!(back.apply(&take(owner(1)), &terms(1, 11)), Err(Refusal::NoRoom), "another name");
    let elsewhere = Owner { namespace: "bakery".into(), ..again(0) };
    assert_eq!(back.apply(&take(elsewhere), &terms(1, 11)), Err(Refusal::NoRoom), "another namespace");
}

#[test]
fn a_namespace_is_given_no_more_first_places_than_its_max_on_the_ledger_that_is_written() {
    let take =
        |owner: Owner| Change::Reserve { owner, key_use: "production/app".into(), ahead: 0, max: Some(2) };
    // The first one is being rotated, and counts once.
    let rotating = [SlotState::Live, SlotState::Creating].map(|state| slot(&owner(0), state));
    let second = ledger(rotating.to_vec()).apply(&take(owner(1)), &terms(10, 0)).unwrap();
    assert_eq!(second.apply(&take(owner(2)), &terms(10, 0)), Err(Refusal::NamespaceFull));
    assert!(
        second.apply(&take(again(1)), &terms(10, 0)).is_ok(),
        "an earlier try of the same name does not count"
    );
    let elsewhere = Owner { namespace: "bakery".into(), ..owner(2) };
    assert!(second.apply(&take(elsewhere), &terms(10, 0)).is_ok(), "another namespace");
}

#[test]
fn an_object_that_is_made_again_has_a_place_of_its_own_beside_the_slots_of_the_old_one() {
    use SlotState::{Creating, Live, Lost, Released, Reserved, Revoking, Unresolved};
    let used = |edit: fn(&mut Slot)| {
        let mut slot = slot(&owner(0), Reserved);
        edit(&mut slot);
        slot
    };
    let places = [
        used(|slot| slot.revision = 2),
        used(|slot| slot.last_switch = Some(1)),
        used(|slot| slot.failures = Some(failed(None, "Refused", slot.since))),
    ];
    let slots = [Creating, Live, Lost, Released, Revoking, Unresolved].map(|state| slot(&owner(0), state));
    let take = Change::Reserve { owner: again(0), key_use: "production/app".into(), ahead: 0, max: None };
    for old in places.into_iter().chain(slots) {
        let before = ledger(vec![old.clone()]);
        let after = before.apply(&take, &terms(2, 9)).unwrap();
        assert_eq!((after.slots.len(), &after.slots[0]), (2, &old));
        assert_eq!(before.apply(&take, &terms(1, 9)), Err(Refusal::NoRoom), "{old:?}");
    }
}

#[test]
fn an_account_has_one_open_licence_and_the_next_waits_for_its_term() {
    let start = ledger(vec![slot(&owner(0), SlotState::Reserved), slot(&owner(1), SlotState::Reserved)]);
    let one = start.apply(&license(0, "a"), &terms(10, 10)).unwrap();
    assert_eq!(one.apply(&license(1, "b"), &terms(10, 129)), Err(Refusal::LicenceOpen));
    assert!(one.apply(&license(1, "b"), &terms(10, 130)).is_ok());
}

#[test]
fn an_attempt_is_never_licensed_twice() {
    let start = ledger(vec![slot(&owner(0), SlotState::Reserved)]);
    let one = start.apply(&license(0, "a"), &terms(10, 0)).unwrap();
    let back = one.apply(&Change::NotMade { attempt: "a".into(), reason: "Refused" }, &terms(10, 1)).unwrap();
    assert_eq!(back.apply(&license(0, "a"), &terms(10, 2)), Err(Refusal::NotInState));
    assert!(back.apply(&license(0, "b"), &terms(10, 2)).is_ok());
}

#[test]
fn a_refused_attempt_keeps_its_place_and_counts_its_failures() {
    let mut state = ledger(vec![slot(&owner(0), SlotState::Reserved)]);
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        state = state.apply(&license(0, name), &terms(10, 0)).unwrap();
        let refused = Change::NotMade { attempt: name.into(), reason: "Refused" };
        state = state.apply(&refused, &terms(10, 1)).unwrap();
        let failures = state.slots[0].failures.clone().unwrap();
        assert_eq!((failures.count, failures.reason.as_str()), (n as i64 + 1, "Refused"));
        assert_eq!(
            (state.slots[0].state.clone(), state.slots[0].attempt.clone()),
            (SlotState::Reserved, None)
        );
    }
    assert_eq!(state.departed, ["a", "b", "c"]);
}

#[test]
fn a_refused_further_attempt_gives_its_slot_back_and_leaves_a_trace() {
    let start = ledger(vec![slot(&owner(0), SlotState::Unresolved)]);
    let further = Change::ReserveFurther { owner: owner(0), key_use: "production/app".into() };
    let two = start.apply(&further, &terms(10, 0)).unwrap();
    assert_eq!(two.slots[1].revision, 2);
    let licensed = two.apply(&license(0, "b"), &terms(10, 0)).unwrap();
    let refused = Change::NotMade { attempt: "b".into(), reason: "Refused" };
    let mut left = start.slots;
    left[0].failures = Some(failed(None, "Refused", terms(10, 1).now));
    assert_eq!(licensed.apply(&refused, &terms(10, 1)).unwrap().slots, left);
}

#[test]
fn a_refused_further_attempt_does_not_cover_up_that_a_key_is_another_users() {
    let start = ledger(vec![slot(&owner(0), SlotState::Creating)]);
    let doubt = Change::Doubt { attempt: attempt(0, SlotState::Creating), reason: WRONG_USER };
    let further = Change::ReserveFurther { owner: owner(0), key_use: "production/app".into() };
    let refused = Change::NotMade { attempt: "b".into(), reason: "Connect" };
    let changes = [(doubt, 1), (further, 2), (license(0, "b"), 3), (refused, 4)];
    let end = changes.iter().fold(start, |state, (change, at)| state.apply(change, &terms(10, *at)).unwrap());
    let failures = end.slots[0].failures.as_ref().unwrap();
    assert_eq!((failures.reason.as_str(), failures.count), (WRONG_USER, 2));
    // The time is the refusal's: the next further attempt waits.
    assert_eq!((failures.at.as_second(), end.slots[0].since.as_second()), (4, 1));
}

#[test]
fn a_further_slot_needs_every_other_one_of_the_owner_to_be_out_of_use() {
    let further = Change::ReserveFurther { owner: owner(0), key_use: "production/app".into() };
    for (state, allowed) in [
        (SlotState::Lost, true),
        (SlotState::Unresolved, true),
        (SlotState::Revoking, true),
        (SlotState::Reserved, false),
        (SlotState::Creating, false),
        (SlotState::Live, false),
        (SlotState::Released, false),
    ] {
        let outcome = ledger(vec![slot(&owner(0), state.clone())]).apply(&further, &terms(10, 0));
        assert_eq!(outcome.is_ok(), allowed, "{state:?}");
    }
}

#[test]
fn a_next_key_needs_one_live_key_of_its_owner_and_no_other_in_use() {
    let next = Change::ReserveNext { owner: owner(0), key_use: "production/app".into() };
    let live = || slot(&owner(0), SlotState::Live);
    let mut second = live();
    (second.attempt, second.published) = (Some("second".into()), Some(2));
    for (name, others, allowed) in [
        ("the live key alone", vec![], true),
        ("an earlier one is being revoked", vec![slot(&owner(0), SlotState::Revoking)], true),
        ("an attempt was lost", vec![slot(&owner(0), SlotState::Lost)], true),
        ("there is a place", vec![slot(&owner(0), SlotState::Reserved)], false),
        ("one is being made", vec![slot(&owner(0), SlotState::Creating)], false),
        ("the last rotation has not ended", vec![second], false),
    ] {
        let slots = [vec![live()], others].concat();
        assert_eq!(ledger(slots).apply(&next, &terms(10, 0)).is_ok(), allowed, "{name}");
    }
    assert_eq!(ledger(vec![]).apply(&next, &terms(10, 0)), Err(Refusal::NotInState));
    let revoking = ledger(vec![slot(&owner(0), SlotState::Revoking)]);
    assert_eq!(revoking.apply(&next, &terms(10, 0)), Err(Refusal::NotInState));
    let full = ledger((0..10).map(|n| slot(&owner(n), SlotState::Live)).collect());
    assert_eq!(full.apply(&next, &terms(10, 0)), Err(Refusal::NoRoom));
}

#[test]
fn what_was_judged_for_one_switch_does_nothing_after_another() {
    let (mut old, mut new) = (slot(&owner(0), SlotState::Live), slot(&owner(0), SlotState::Live));
    (old.attempt, new.attempt, new.published) = (Some("old".into()), Some("new".into()), Some(2));
    let start = ledger(vec![old, new]);
    let retire = |attempt: &str, switch| Change::Retire {
        attempt: attempt.into(),
        switch,
        looked_at: terms(10, 0).now,
    };
    let back = |attempt: &str, switch| Change::SwitchBack { attempt: attempt.into(), switch };
    let gone = start.apply(&retire("old", 2), &terms(10, 0)).unwrap();
    assert_eq!(gone.by_attempt("old").unwrap().state, SlotState::Revoking);
    assert_eq!(start.apply(&retire("new", 2), &terms(10, 0)), Err(Refusal::NotInState), "the current key");
    start.apply(&retire("old", 2), &terms(10, 119)).unwrap();
    assert_eq!(start.apply(&retire("old", 2), &terms(10, 120)), Err(Refusal::NotInState), "the look is old");
    // A process judged the switch to `new`, and stood still; meanwhile another one went back, and `new` died.
    let changes =
        [back("old", 2), retire("new", 3), Change::Bury { attempt: "new".into(), owner_lives: true }];
    let end = changes.iter().fold(start, |state, change| state.apply(change, &terms(10, 1)).unwrap());
    assert_eq!(end.current("uid-0").unwrap().attempt.as_deref(), Some("old"));
    for late in [retire("old", 2), back("old", 2)] {
        assert_eq!(end.apply(&late, &terms(10, 2)), Err(Refusal::NotInState), "{late:?}");
    }
}

#[test]
fn what_was_judged_by_a_look_does_nothing_once_that_is_long_ago() {
    let start = ledger(vec![slot(&owner(0), SlotState::Live)]);
    let condemn =
        |looked_at| Change::Condemn { attempt: attempt(0, SlotState::Live), emergency: false, looked_at };
    let by_look = condemn(Some(terms(10, 0).now));
    let gone = start.apply(&by_look, &terms(10, 119)).unwrap();
    assert_eq!(gone.slots[0].state, SlotState::Revoking);
    assert_eq!(start.apply(&by_look, &terms(10, 120)), Err(Refusal::NotInState), "the look is old");
    start.apply(&condemn(None), &terms(10, 10_000)).unwrap();
}

#[test]
fn a_switch_back_spends_the_token_that_asked_for_the_rotation() {
    let (mut old, mut new) = (slot(&owner(0), SlotState::Live), slot(&owner(0), SlotState::Live));
    (old.attempt, new.attempt, new.published) = (Some("old".into()), Some("new".into()), Some(2));
    (old.trigger, new.trigger) = (Some("first".into()), Some("second".into()));
    let change = Change::SwitchBack { attempt: "old".into(), switch: 2 };
    let back = ledger(vec![old, new]).apply(&change, &terms(10, 0));
    assert_eq!(back.unwrap().current("uid-0").unwrap().trigger.as_deref(), Some("second"));
}

#[test]
fn switches_back_in_a_row_are_counted_at_the_key_that_stays() {
    let (mut old, mut new) = (slot(&owner(0), SlotState::Live), slot(&owner(0), SlotState::Creating));
    (old.attempt, new.attempt) = (Some("old".into()), Some("new".into()));
    let mut both = ledger(vec![old, new]);
    let publish = Change::Publish { attempt: "new".into() };
    for (times, switch) in [(1, 2), (2, 4), (3, 6)] {
        let published = both.apply(&publish, &terms(10, 0)).unwrap();
        let back = Change::SwitchBack { attempt: "old".into(), switch };
        both = published.apply(&back, &terms(10, 0)).unwrap();
        assert_eq!(both.current("uid-0").unwrap().switched_back, Some(times));
        // The next key is made: as if it were the one that was turned back.
        both.slots[1].state = SlotState::Creating;
    }
    let won = both.apply(&publish, &terms(10, 0)).unwrap();
    assert_eq!(won.current("uid-0").unwrap().switched_back, None, "a new key starts anew");
}

#[test]
fn the_last_slot_of_a_living_owner_keeps_its_place_and_its_switch_number() {
    let start = ledger(vec![slot(&owner(0), SlotState::Live)]);
    let name = attempt(0, SlotState::Live);
    let condemned = Change::Condemn { attempt: name.clone(), emergency: false, looked_at: None };
    let revoking = start.apply(&condemned, &terms(10, 0)).unwrap();
    let buried = |owner_lives| {
        let bury = Change::Bury { attempt: name.clone(), owner_lives };
        revoking.apply(&bury, &terms(10, 1)).unwrap()
    };
    assert!(buried(false).slots.is_empty());
    let place = &buried(true).slots[0];
    assert_eq!((place.state.clone(), place.revision, place.last_switch), (SlotState::Reserved, 2, Some(1)));
    let again = buried(true).apply(&license(0, "b"), &terms(10, 2)).unwrap();
    let live = again.apply(&Change::Publish { attempt: "b".into() }, &terms(10, 3)).unwrap();
    assert_eq!(live.slots[0].published, Some(2));
}

#[test]
fn the_current_key_is_safe_while_another_one_is_live_but_for_an_emergency() {
    let (mut old, mut new) = (slot(&owner(0), SlotState::Live), slot(&owner(0), SlotState::Live));
    (old.attempt, new.attempt, new.published) = (Some("old".into()), Some("new".into()), Some(2));
    let both = ledger(vec![old, new]);
    let condemn = |attempt: &str, emergency| {
        both.apply(&Change::Condemn { attempt: attempt.into(), emergency, looked_at: None }, &terms(10, 0))
    };
    assert_eq!(condemn("new", false), Err(Refusal::CurrentKey));
    assert!(condemn("new", true).is_ok());
    assert!(condemn("old", false).is_ok());
    let back = Change::SwitchBack { attempt: "old".into(), switch: 2 };
    let back = both.apply(&back, &terms(10, 0)).unwrap();
    assert_eq!(back.current("uid-0").unwrap().attempt.as_deref(), Some("old"));
    assert_eq!(back.current("uid-0").unwrap().published, Some(3));
}

#[test]
fn a_switch_number_that_leaves_is_kept_by_a_slot_that_stays() {
    let mut leaving = slot(&owner(0), SlotState::Revoking);
    leaving.published = Some(7);
    let start = ledger(vec![leaving.clone(), slot(&owner(0), SlotState::Creating)]);
    let bury = Change::Bury { attempt: leaving.attempt.unwrap(), owner_lives: true };
    let left = start.apply(&bury, &terms(10, 0)).unwrap();
    let publish = Change::Publish { attempt: attempt(0, SlotState::Creating) };
    assert_eq!(left.apply(&publish, &terms(10, 1)).unwrap().slots[0].published, Some(8));
}

/// Count and reason of the failures of the first owner's slots.
fn failures(state: &Ledger) -> Vec<(i64, &str)> {
    let all = state.owned_by("uid-0").filter_map(|slot| slot.failures.as_ref());
    all.map(|failures| (failures.count, failures.reason.as_str())).collect()
}

#[test]
fn keys_that_were_made_to_no_use_are_counted_until_one_is_published() {
    let apply = |state: Ledger, change: Change| state.apply(&change, &terms(10, 0)).unwrap();
    let bury = |attempt: &str| Change::Bury { attempt: attempt.into(), owner_lives: true };
    let mut state = ledger(vec![slot(&owner(0), SlotState::Reserved)]);
    for (count, attempt) in [(1, "a"), (2, "b"), (3, "c")] {
        state = apply(state, license(0, attempt));
        let attempt = || attempt.to_owned();
        let reason = if count == 2 {
            state = apply(state, Change::Lose { attempt: attempt(), key_id: None });
            state = apply(state, Change::Condemn { attempt: attempt(), emergency: false, looked_at: None });
            VALUE_LOST
        } else {
            state = apply(state, Change::Abandon { attempt: attempt() });
            NEVER_ACCEPTED
        };
        assert_eq!(failures(&state), [(count, reason)]);
        state = apply(state, bury(&attempt()));
        assert_eq!((&state.slots[0].state, failures(&state)), (&SlotState::Reserved, vec![(count, reason)]));
    }
    state = apply(apply(state, license(0, "d")), Change::Publish { attempt: "d".into() });
    assert_eq!(failures(&state), []);
}

#[test]
fn next_keys_that_were_made_to_no_use_are_counted_beside_the_current_one() {
    let apply = |state: Ledger, change: Change| state.apply(&change, &terms(10, 0)).unwrap();
    let mut state = ledger(vec![slot(&owner(0), SlotState::Live)]);
    let next = || Change::ReserveNext { owner: owner(0), key_use: "production/app-0".into() };
    for (count, attempt) in [(1, "a"), (2, "b")] {
        state = apply(apply(state, next()), license(0, attempt));
        state = apply(state, Change::Abandon { attempt: attempt.into() });
        state = apply(state, Change::Bury { attempt: attempt.into(), owner_lives: false });
        assert_eq!((state.slots.len(), failures(&state)), (1, vec![(count, NEVER_ACCEPTED)]));
    }
    state = apply(apply(apply(state, next()), license(0, "c")), Change::Publish { attempt: "c".into() });
    assert_eq!((state.slots.len(), failures(&state)), (2, vec![]));
}

#[test]
fn a_ledger_with_a_state_of_a_newer_version_is_left_alone() {
    let state = SlotState::from("Quarantined".to_owned());
    let start = ledger(vec![slot(&owner(1), state.clone()), slot(&owner(0), SlotState::Reserved)]);
    assert_eq!(start.apply(&license(0, "a"), &terms(10, 0)), Err(Refusal::UnknownState));
    assert_eq!(String::from(state), "Quarantined");
}

#[test]
fn only_the_lines_of_the_table_lead_from_one_state_to_another() {
    use SlotState::{Creating, Live, Lost, Released, Reserved, Revoking, Unresolved};
    let states = [Reserved, Creating, Live, Lost, Unresolved, Revoking, Released];
    type Line = (SlotState, fn(String) -> Change, Option<SlotState>);
    let table: &[Line] = &[
        (Creating, |attempt| Change::Publish { attempt }, Some(Live)),
        (Creating, |attempt| Change::NotMade { attempt, reason: "Refused" }, Some(Reserved)),
        (Creating, |attempt| Change::Abandon { attempt }, Some(Revoking)),
        (Creating, |attempt| Change::Lose { attempt, key_id: None }, Some(Lost)),
        (Unresolved, |attempt| Change::Lose { attempt, key_id: None }, Some(Lost)),
        (Creating, |attempt| Change::Doubt { attempt, reason: "NoList" }, Some(Unresolved)),
        (Lost, |attempt| Change::Condemn { attempt, emergency: false, looked_at: None }, Some(Revoking)),
        (Live, |attempt| Change::Condemn { attempt, emergency: false, looked_at: None }, Some(Revoking)),
        (Live, |attempt| Change::Release { attempt }, Some(Released)),
        (Revoking, |attempt| Change::Bury { attempt, owner_lives: true }, Some(Reserved)),
        (Revoking, |attempt| Change::Bury { attempt, owner_lives: false }, None),
        (Unresolved, |attempt| Change::Dismiss { attempt }, None),
        (Released, |attempt| Change::Dismiss { attempt }, None),
    ];
    for from in &states {
        for (line, change, to) in table {
            let start = ledger(vec![slot(&owner(0), from.clone())]);
            let name = start.slots[0].attempt.clone().unwrap_or_default();
            let outcome = start.apply(&change(name.clone()), &terms(10, 0));
            let allowed = table
                .iter()
                .any(|(state, other, _)| state == from && other(name.clone()) == change(name.clone()));
            assert_eq!(outcome.is_ok(), allowed, "{from:?} by {:?}", change(name));
            if let (Ok(after), true) = (outcome, line == from) {
                assert_eq!(after.slots.first().map(|slot| slot.state.clone()), *to, "{from:?}");
            }
        }
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    let number = 0..4_usize;
    let name = prop::sample::select(vec!["a", "b", "c", "d", "e"]).prop_map(str::to_owned);
    (0..18, number, name, any::<bool>()).prop_map(|(kind, n, attempt, flag)| match kind {
        0 => reserve(n),
        1 if flag => reserve(n),
        1 => Change::Reserve { owner: again(n), key_use: format!("production/app-{n}"), ahead: 0, max: None },
        2 => Change::ReserveFurther { owner: owner(n), key_use: format!("production/app-{n}") },
        3 => Change::GiveBack { owner_uid: owner(n).uid },
        4..=6 => license(n, &attempt),
        7 | 8 => Change::Publish { attempt },
        9 if flag => Change::SwitchBack { attempt, switch: i64::try_from(n).unwrap() + 1 },
        9 => Change::Retire { attempt, switch: i64::try_from(n).unwrap() + 1, looked_at: terms(10, 0).now },
        10 => Change::NotMade { attempt, reason: "Refused" },
        11 => Change::Abandon { attempt },
        12 => Change::Lose { attempt, key_id: None },
        13 => Change::Doubt { attempt, reason: "NoList" },
        14 => {
            let looked_at = (n > 1).then(|| terms(10, 0).now);
            Change::Condemn { attempt, emergency: flag, looked_at }
        }
        15 => Change::Release { attempt },
        16 => Change::ReserveNext { owner: owner(n), key_use: format!("production/app-{n}") },
        _ if flag => Change::Bury { attempt, owner_lives: n % 2 == 0 },
        _ => Change::Dismiss { attempt },
    })
}

proptest! {
    #[test]
    fn no_history_of_changes_breaks_an_invariant(history in prop::collection::vec((any_change(), 0..90_i64), 1..120)) {
        let mut state = Ledger::default();
        let mut seconds = 0;
        for (change, later) in history {
            seconds += later;
            let terms = terms(5, seconds);
            if let Ok(next) = state.apply(&change, &terms) {
                let emergency = matches!(change, Change::Condemn { emergency: true, .. });
                let waiver = if emergency { Waiver::Emergency } else { Waiver::None };
                let broken = violations(&state, &next, &terms, waiver);
                prop_assert!(broken.is_empty(), "{change:?}: {broken:?}\nbefore {state:#?}\nafter {next:#?}");
                let fresh: Vec<&str> = next.slots.iter().filter(|slot| is_fresh(slot)).map(|slot| slot.owner.name.as_str()).collect();
                let names: BTreeSet<&str> = fresh.iter().copied().collect();
                prop_assert_eq!(names.len(), fresh.len(), "two tries of one name keep a place each: {:?}", next);
                state = next;
            }
        }
    }
}
