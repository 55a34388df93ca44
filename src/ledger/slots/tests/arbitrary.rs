//! Ledgers as anybody may have written them: no number, time or text in them is too much for the arithmetic, for a
//! change, or for the judgement of one.

use std::cell::Cell;

use serde_json::{Value, json};

use super::*;
use crate::{
    api::{
        BagsAccount,
        arbitrary::{any_account, any_slots, for_all_read},
    },
    fixtures::bags_account,
    ledger::capacity::believed_until,
    timings::Timings,
};

const NOW: i64 = 1_800_000_000;

fn read(account: &Value) -> Option<BagsAccount> {
    serde_json::from_value(account.clone()).ok()
}

fn terms_of(account: &BagsAccount) -> Terms {
    let (now, timings) = (Timestamp::from_second(NOW).unwrap(), Timings::default());
    Terms { room: Room::of(account, now, &timings), now, licence_term: timings.licence_term }
}

/// Whether the ledger is one that the operator could have written.
fn sound(ledger: &Ledger, terms: &Terms) -> bool {
    !ledger.unknown_state() && violations(ledger, ledger, terms, Waiver::None).is_empty()
}

/// Every kind of change, for every attempt and owner that the ledger knows, and for some that it does not know.
fn every_change(ledger: &Ledger) -> Vec<Change> {
    let mut attempts: Vec<String> =
        ledger.slots.iter().filter_map(|slot| slot.attempt.clone()).take(6).collect();
    attempts.extend(ledger.departed.first().cloned());
    attempts.push("fresh".into());
    let mut owners: Vec<Owner> = ledger.slots.iter().map(|slot| slot.owner.clone()).take(6).collect();
    owners.push(owner(9));
    owners.extend(owners.first().map(|owner| Owner { uid: "another".into(), ..owner.clone() }));
    let of_owners = owners.iter().flat_map(|owner| {
        let (key_use, owner_uid) = ("production/app".to_owned(), owner.uid.clone());
        let license = |attempt: &str| Change::License {
            owner_uid: owner_uid.clone(),
            attempt: attempt.into(),
            key_name: "Production-App".into(),
            trigger: Some("token".into()),
        };
        [
            Change::Reserve { owner: owner.clone(), key_use: key_use.clone(), ahead: 0, max: None },
            Change::Reserve { owner: owner.clone(), key_use: key_use.clone(), ahead: usize::MAX, max: None },
            Change::Reserve { owner: owner.clone(), key_use: key_use.clone(), ahead: 0, max: Some(2) },
            Change::ReserveFurther { owner: owner.clone(), key_use: key_use.clone() },
            Change::ReserveNext { owner: owner.clone(), key_use },
            Change::GiveBack { owner_uid: owner_uid.clone() },
            license("fresh"),
            license(&attempts[0]),
        ]
    });
    let of_attempts = attempts.iter().cloned().flat_map(|attempt| {
        let same = || attempt.clone();
        [
            Change::Identify { attempt: same(), key_id: "id".into() },
            Change::Publish { attempt: same() },
            Change::SwitchBack { attempt: same(), switch: 1 },
            Change::Retire { attempt: same(), switch: 1, looked_at: Timestamp::from_second(NOW).unwrap() },
            Change::NotMade { attempt: same(), reason: "Refused" },
            Change::Abandon { attempt: same() },
            Change::Lose { attempt: same(), key_id: None },
            Change::Doubt { attempt: same(), reason: "NoList" },
            Change::Condemn { attempt: same(), emergency: false, looked_at: None },
            Change::Condemn { attempt: same(), emergency: false, looked_at: Some(Timestamp::MIN) },
            Change::Condemn {
                attempt: same(),
                emergency: false,
                looked_at: Some(Timestamp::from_second(NOW).unwrap()),
            },
            Change::Condemn { attempt: same(), emergency: true, looked_at: None },
            Change::Release { attempt: same() },
            Change::Bury { attempt: same(), owner_lives: true },
            Change::Bury { attempt: same(), owner_lives: false },
            Change::Dismiss { attempt: same() },
        ]
    });
    of_owners.chain(of_attempts).collect()
}

/// Judges what becomes of a ledger by a change; whether the change applies at all.
fn judge_change(ledger: &Ledger, change: &Change, terms: &Terms, sound: bool) -> Result<bool, TestCaseError> {
    let next = match ledger.apply(change, terms) {
        Ok(next) => next,
        Err(refusal) => {
            prop_assert_eq!(refusal == Refusal::UnknownState, ledger.unknown_state());
            return Ok(false);
        }
    };
    prop_assert!(!ledger.unknown_state(), "{change:?} of a ledger of a newer version");
    let waiver = match change {
        Change::Condemn { emergency: true, .. } => Waiver::Emergency,
        _ => Waiver::None,
    };
    let broken = violations(ledger, &next, terms, waiver);
    prop_assert!(!sound || broken.is_empty(), "{change:?}: {broken:?}\nbefore {ledger:#?}\nafter {next:#?}");
    prop_assert!(next.departed.len() <= ledger.departed.len().max(DEPARTED));
    let slots = i64::try_from(next.slots.len()).unwrap();
    if matches!(change, Change::Reserve { .. } | Change::ReserveFurther { .. } | Change::ReserveNext { .. }) {
        prop_assert!(slots <= terms.room.limit, "{change:?} beyond the limit of {:?}", terms.room);
    }
    if let Change::Reserve { owner, max: Some(max), .. } = change {
        prop_assert!(next.owners_in(&owner.namespace) <= *max, "{change:?} beyond its namespace's max");
    }
    Ok(true)
}

#[test]
fn whatever_a_ledger_holds_a_change_is_refused_or_leads_to_a_sound_one() {
    let (orderly, changed) = (Cell::new(0), Cell::new(0));
    for_all_read(file!(), &any_account(NOW), read, |account| {
        let (ledger, terms) = (Ledger::of(account.status.as_ref()), terms_of(&account));
        let sound = sound(&ledger, &terms);
        orderly.set(orderly.get() + usize::from(sound && ledger.slots.len() > 1));
        for change in every_change(&ledger) {
            let applied = judge_change(&ledger, &change, &terms, sound)?;
            changed.set(changed.get() + usize::from(applied));
        }
        Ok(())
    });
    assert!(orderly.get() >= 20 && changed.get() >= 1000, "{orderly:?} sound ledgers, {changed:?} changes");
}

#[test]
fn whatever_an_account_says_of_numbers_no_more_fits_than_its_limit() {
    for_all_read(file!(), &any_account(NOW), read, |account| {
        let (ledger, Terms { room, .. }) = (Ledger::of(account.status.as_ref()), terms_of(&account));
        let slots = &ledger.slots;
        let held = i64::try_from(slots.len()).unwrap();
        prop_assert!(room.unmanaged >= 0, "{room:?}");
        prop_assert!(!room.fits_extra(slots) || held < room.limit);
        prop_assert!(!room.fits_new(slots, 0) || room.fits_extra(slots));
        prop_assert!(!room.fits_new(slots, usize::MAX));
        for place in slots {
            let keys = slots.iter().filter(|slot| slot.state != SlotState::Reserved).count();
            let fits = room.fits_creation(slots, place);
            prop_assert!(!fits || i64::try_from(keys).unwrap() < room.limit);
        }
        let capacity = room.capacity(slots);
        prop_assert!(capacity.used >= held && capacity.available >= 0 && capacity.reserved >= 0);
        prop_assert!(capacity.available == 0 || room.fits_new(slots, 0));
        if let Some(refusal) = account.status.as_ref().and_then(|status| status.refusal.as_ref()) {
            prop_assert!(believed_until(refusal, &Timings::default()) >= refusal.at);
        }
        Ok(())
    });
}

#[test]
fn any_two_ledgers_are_compared() {
    let pair = (any_slots(NOW), any_slots(NOW), any_account(NOW));
    let slots = |slots: &Value| serde_json::from_value::<Vec<Slot>>(slots.clone()).ok();
    let read = |(before, after, account): &(Value, Value, Value)| {
        Some((ledger(slots(before)?), ledger(slots(after)?), read(account)?))
    };
    for_all_read(file!(), &pair, read, |(before, after, account)| {
        for waiver in [Waiver::None, Waiver::Emergency, Waiver::Rebuild] {
            let broken = violations(&before, &after, &terms_of(&account), waiver);
            let kept = before.slots.iter().all(|old| {
                let exists = matches!(old.state, SlotState::Live | SlotState::Lost) && old.attempt.is_some();
                !exists || after.slots.iter().any(|new| new.attempt == old.attempt)
            });
            prop_assert!(kept || !broken.is_empty(), "a key that exists left unseen");
        }
        Ok(())
    });
}

fn account(status: Value) -> BagsAccount {
    bags_account(&json!({"spec": {"unmanagedKeys": -5}, "status": status}))
}

#[test]
fn numbers_at_the_edge_neither_wrap_around_nor_make_room() {
    let room = |unmanaged: i64| {
        let capabilities = json!({"list": "Yes"});
        let sums = json!({"limit": 10, "used": 0, "reserved": 0, "unmanaged": unmanaged, "available": 0});
        terms_of(&account(json!({"capabilities": capabilities, "capacity": sums}))).room
    };
    let slots = vec![slot(&owner(0), SlotState::Live), slot(&owner(1), SlotState::Released)];
    let full = room(i64::MAX);
    assert_eq!((full.used(&slots), full.capacity(&slots).available), (i64::MAX, 0));
    assert!(!full.fits_new(&slots, usize::MAX) && !full.fits_extra(&slots));
    assert!(!full.fits_creation(&slots, &slots[0]));
    assert_eq!(room(i64::MIN).unmanaged, 0);
    assert_eq!(terms_of(&account(json!({}))).room.unmanaged, 0);
    let odd = Room { limit: i64::MIN, rotation_reserve: i64::MIN, unmanaged: i64::MAX };
    assert_eq!((odd.capacity(&slots).available, odd.capacity(&slots).reserved), (0, 0));
}

#[test]
fn counters_at_the_edge_stay_there_and_a_switch_number_is_never_used_twice() {
    let last = |slot: Slot| Slot {
        revision: i64::MAX,
        failures: Some(Failures { count: i64::MAX, at: Timestamp::UNIX_EPOCH, reason: "Refused".into() }),
        ..slot
    };
    let creating = ledger(vec![last(slot(&owner(0), SlotState::Creating))]);
    let name = attempt(0, SlotState::Creating);
    let refused = Change::NotMade { attempt: name.clone(), reason: "Refused" };
    let kept = creating.apply(&refused, &terms(10, 1)).unwrap();
    assert_eq!(kept.slots[0].failures.as_ref().unwrap().count, i64::MAX);
    let doubted =
        creating.apply(&Change::Doubt { attempt: name.clone(), reason: "NoList" }, &terms(10, 1)).unwrap();
    let further = Change::ReserveFurther { owner: owner(0), key_use: "production/app".into() };
    assert_eq!(doubted.apply(&further, &terms(10, 1)).unwrap().slots[1].revision, i64::MAX);
    let revoking = ledger(vec![last(slot(&owner(0), SlotState::Revoking))]);
    let bury = Change::Bury { attempt: attempt(0, SlotState::Revoking), owner_lives: true };
    assert_eq!(revoking.apply(&bury, &terms(10, 1)).unwrap().slots[0].revision, i64::MAX);

    let mut used_up = creating;
    used_up.slots[0].last_switch = Some(i64::MAX);
    assert_eq!(used_up.apply(&Change::Publish { attempt: name }, &terms(10, 1)), Err(Refusal::NotInState));
}

#[test]
fn a_key_that_a_list_shows_under_another_id_is_lost_under_the_one_that_is_known() {
    let before = ledger(vec![slot(&owner(0), SlotState::Unresolved)]);
    let lose = Change::Lose { attempt: attempt(0, SlotState::Unresolved), key_id: Some("another-id".into()) };
    let after = before.apply(&lose, &terms(10, 1)).unwrap();
    assert_eq!((&after.slots[0].state, &after.slots[0].key_id), (&SlotState::Lost, &before.slots[0].key_id));
    assert_eq!(violations(&before, &after, &terms(10, 1), Waiver::None), Vec::<String>::new());
}

#[test]
fn a_place_has_no_switch_number_although_the_attempt_in_it_had_one() {
    let creating = Slot { published: Some(4), ..slot(&owner(0), SlotState::Creating) };
    let refused = Change::NotMade { attempt: attempt(0, SlotState::Creating), reason: "Refused" };
    let place = ledger(vec![creating]).apply(&refused, &terms(10, 1)).unwrap().slots.remove(0);
    assert_eq!((place.state, place.published, place.last_switch), (SlotState::Reserved, None, Some(4)));
}
