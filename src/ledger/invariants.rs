//! The invariants that are properties of the ledger, or of one transition of it, as one pure function.
//!
//! Written against the table, not against `slots`: it judges two versions of a ledger without knowing which
//! change led from one to the other. The store asks it before every write, every test after every write.

use std::collections::BTreeMap;

use super::slots::{Ledger, Terms, licence_open};
use crate::api::account::{Slot, SlotState};

/// What one step of a ledger may do that no other may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Waiver {
    /// Nothing.
    #[default]
    None,
    /// The step of a KeyRevocation: it may revoke an owner's current key while another one is live.
    Emergency,
    /// Slots that were lost are put back from the keystore, into a ledger without any.
    Rebuild,
}

/// What is wrong with a ledger, or with a step from one version to the next; empty: nothing.
///
/// `waiver`: what this step alone may do.
#[must_use]
pub fn violations(before: &Ledger, after: &Ledger, terms: &Terms, waiver: Waiver) -> Vec<String> {
    let mut found = Vec::new();
    of_one_version(after, &mut found);
    let then = by_attempt(before);
    let now = by_attempt(after);
    licences(&then, &now, terms, &mut found);
    for (attempt, old) in &then {
        match now.get(attempt) {
            Some(new) => step(attempt, old, new, &mut found),
            None => departure(attempt, old, after, &mut found),
        }
    }
    match waiver {
        // The slots come from the keystore: an empty ledger has nothing that they could be checked against.
        Waiver::Rebuild if before.slots.is_empty() => {}
        Waiver::Rebuild => found.push("I1: a ledger with slots was rebuilt".into()),
        Waiver::None | Waiver::Emergency => {
            for (attempt, new) in now.iter().filter(|(attempt, _)| !then.contains_key(*attempt)) {
                birth(attempt, new, before, after, terms, &mut found);
            }
        }
    }
    condemned_currents(before, after, &now, waiver, &mut found);
    found
}

fn by_attempt(ledger: &Ledger) -> BTreeMap<&str, &Slot> {
    ledger.slots.iter().filter_map(|slot| slot.attempt.as_deref().map(|attempt| (attempt, slot))).collect()
}

/// I1, I2 and the shape of slots.
fn of_one_version(ledger: &Ledger, found: &mut Vec<String>) {
    let keyed = ledger.slots.iter().filter(|slot| slot.attempt.is_some()).count();
    if by_attempt(ledger).len() != keyed {
        found.push("I1: an attempt is in more than one slot".into());
    }
    for slot in &ledger.slots {
        let reserved = slot.state == SlotState::Reserved;
        if reserved == slot.attempt.is_some() || reserved && slot.published.is_some() {
            found.push(format!("a {} slot of {} has the wrong fields", slot.state.as_str(), slot.owner.name));
        }
        if slot.state == SlotState::Live && slot.published.is_none() {
            found.push(format!("I2: a live slot of {} was never published", slot.owner.name));
        }
        let twins = ledger.slots.iter().filter(|other| other.owner.uid == slot.owner.uid);
        let rivals = twins.clone().filter(|other| other.published == slot.published).count();
        if slot.published.is_some() && rivals > 1 {
            found.push(format!("I2: two slots of {} share a switch number", slot.owner.name));
        }
        if reserved && twins.filter(|other| other.state == SlotState::Reserved).count() > 1 {
            found.push(format!("{} has two places", slot.owner.name));
        }
    }
}

/// I5: no licence is given while another one is open. Licences that ran out look open again if the clock was set back: no step
/// opened them, so other steps stay allowed.
fn licences(
    then: &BTreeMap<&str, &Slot>,
    now: &BTreeMap<&str, &Slot>,
    terms: &Terms,
    found: &mut Vec<String>,
) {
    let open = now.iter().filter(|(_, slot)| licence_open(slot, terms.now, terms.licence_term));
    let open: Vec<&str> = open.map(|(attempt, _)| *attempt).collect();
    if open.len() > 1 && open.iter().any(|attempt| !then.contains_key(attempt)) {
        found.push(format!("I5: {} open licences", open.len()));
    }
}

/// I6 and the table: a slot that stays.
fn step(attempt: &str, old: &Slot, new: &Slot, found: &mut Vec<String>) {
    use SlotState::{Creating, Live, Lost, Released, Reserved, Revoking, Unknown, Unresolved};
    let allowed = match (&old.state, &new.state) {
        (Creating, Live | Revoking | Lost | Unresolved)
        | (Unresolved, Lost)
        | (Lost, Revoking)
        | (Live, Revoking | Released) => true,
        (Reserved | Creating | Live | Lost | Unresolved | Revoking | Released | Unknown(_), _) => {
            old.state == new.state
        }
    };
    if !allowed {
        let invariant = if old.state == Revoking { "I6" } else { "table" };
        found.push(format!(
            "{invariant}: {attempt} went from {} to {}",
            old.state.as_str(),
            new.state.as_str()
        ));
    }
    if old.owner != new.owner {
        found.push(format!("I10: {attempt} changed its owner"));
    }
    if new.state == Live && old.published != new.published && new.published <= old.published {
        found.push(format!("I2: the switch number of {attempt} went back"));
    }
    if new.state != Live && old.published != new.published {
        found.push(format!("I3: {attempt} was published without being live"));
    }
    if old.key_id.is_some() && new.key_id != old.key_id {
        found.push(format!("I10: {attempt} changed its id"));
    }
}

/// I1: a key leaves only from a state in which it is known to be dead, never made, or dismissed by a person.
fn departure(attempt: &str, old: &Slot, after: &Ledger, found: &mut Vec<String>) {
    match old.state {
        SlotState::Creating | SlotState::Unresolved | SlotState::Revoking | SlotState::Released => {}
        SlotState::Reserved | SlotState::Live | SlotState::Lost | SlotState::Unknown(_) => {
            found.push(format!("I1: {attempt} left the ledger while {}", old.state.as_str()));
        }
    }
    if !after.departed.iter().any(|gone| gone == attempt) {
        found.push(format!("I1: {attempt} left the ledger without a trace"));
    }
}

/// I4: a key enters the ledger by a licence, in a place that was kept and that fits.
fn birth(attempt: &str, new: &Slot, before: &Ledger, after: &Ledger, terms: &Terms, found: &mut Vec<String>) {
    if new.state != SlotState::Creating || new.since != terms.now {
        found.push(format!("I4: {attempt} appeared without a licence of this moment"));
    }
    if before.departed.iter().any(|gone| gone == attempt) {
        found.push(format!("I4: {attempt} was licensed before"));
    }
    let place = before.slots.iter().any(|slot| slot.state == SlotState::Reserved && slot.owner == new.owner);
    if !place {
        found.push(format!("I4: {attempt} had no place"));
    }
    let keys = after.slots.iter().filter(|slot| slot.state != SlotState::Reserved).count();
    if i64::try_from(keys).unwrap_or(i64::MAX).saturating_add(terms.room.unmanaged) > terms.room.limit {
        found.push(format!("I4: {attempt} was licensed beyond the limit of {}", terms.room.limit));
    }
}

/// The protection of the current key: it does not go while another one of its owner stays.
fn condemned_currents(
    before: &Ledger,
    after: &Ledger,
    now: &BTreeMap<&str, &Slot>,
    waiver: Waiver,
    found: &mut Vec<String>,
) {
    let protected = waiver != Waiver::Emergency;
    for slot in before.slots.iter().filter(|slot| slot.state == SlotState::Live && protected) {
        let Some(attempt) = slot.attempt.as_deref() else { continue };
        let current = before.current(&slot.owner.uid).is_some_and(|current| current.attempt == slot.attempt);
        let others = after.owned_by(&slot.owner.uid).any(|other| other.state == SlotState::Live);
        let revoked = now.get(attempt).is_some_and(|new| new.state == SlotState::Revoking);
        if current && others && revoked {
            found.push(format!("I3: {attempt} is its owner's current key and another one is live"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::{
        api::account::SlotState::{Creating, Live, Lost, Reserved, Revoking, Unresolved},
        ledger::{
            Room,
            slots::tests::{owner, slot},
        },
    };

    fn terms() -> Terms {
        Terms {
            room: Room { limit: 2, rotation_reserve: 0, unmanaged: 0 },
            now: Timestamp::UNIX_EPOCH,
            licence_term: Duration::from_secs(120),
        }
    }

    fn of(slots: &[Slot]) -> Ledger {
        Ledger { slots: slots.to_vec(), departed: vec![] }
    }

    /// `slot` in another state, but the same key.
    fn turned(slot: &Slot, state: SlotState) -> Slot {
        Slot { state, ..slot.clone() }
    }

    #[test]
    fn every_key_of_an_owner_may_be_condemned_at_once() {
        let old = slot(&owner(0), Live);
        let mut new = slot(&owner(0), Live);
        (new.attempt, new.published) = (Some("second".into()), Some(2));
        let after = of(&[turned(&old, Revoking), turned(&new, Revoking)]);
        assert_eq!(violations(&of(&[old, new]), &after, &terms(), Waiver::None), Vec::<String>::new());
    }

    #[test]
    fn a_clock_that_was_set_back_opens_licences_that_ran_out_and_stops_no_other_step() {
        let later = Timestamp::UNIX_EPOCH + Duration::from_secs(3600);
        let licensed = |n| Slot { since: later, ..slot(&owner(n), Creating) };
        let (first, second) = (licensed(0), licensed(1));
        let before = of(&[first.clone(), second.clone()]);
        let after = of(&[turned(&first, Unresolved), second.clone()]);
        assert_eq!(violations(&before, &after, &terms(), Waiver::None), Vec::<String>::new());
        let third = of(&[first, second, slot(&owner(2), Creating)]);
        let found = violations(&before, &third, &terms(), Waiver::None);
        assert!(found.iter().any(|v| v.starts_with("I5")), "{found:?}");
        assert_eq!(violations(&of(&[]), &before, &terms(), Waiver::Rebuild), ["I5: 2 open licences"]);
    }

    #[test]
    fn each_broken_invariant_is_named() {
        let live = slot(&owner(0), Live);
        let creating = slot(&owner(0), Creating);
        let revoking = turned(&live, Revoking);
        let mut second = slot(&owner(0), Live);
        (second.attempt, second.published) = (Some("second".into()), Some(2));
        let cases: &[(&str, &[Slot], &[Slot], &str)] = &[
            ("a live key leaves", std::slice::from_ref(&live), &[], "I1"),
            ("a lost key leaves", &[turned(&creating, Lost)], &[], "I1"),
            ("a key is in two slots", &[], &[creating.clone(), creating.clone()], "I1"),
            ("a key comes back from revocation", &[revoking], std::slice::from_ref(&live), "I6"),
            ("a key appears live", &[], std::slice::from_ref(&live), "I4"),
            ("a licence without a place", &[], std::slice::from_ref(&creating), "I4"),
            (
                "two open licences",
                &[slot(&owner(0), Reserved), slot(&owner(1), Reserved)],
                &[creating.clone(), slot(&owner(1), Creating)],
                "I5",
            ),
            (
                "a licence beyond the limit",
                &[slot(&owner(0), Reserved), slot(&owner(1), Live), slot(&owner(2), Live)],
                &[creating.clone(), slot(&owner(1), Live), slot(&owner(2), Live)],
                "I4",
            ),
            (
                "an unresolved key goes live",
                &[turned(&live, Unresolved)],
                std::slice::from_ref(&live),
                "table",
            ),
            (
                "the current key is condemned beside a live one",
                &[live.clone(), second.clone()],
                &[live.clone(), turned(&second, Revoking)],
                "I3",
            ),
            (
                "two keys share a switch",
                &[],
                &[live.clone(), Slot { published: Some(1), ..second.clone() }],
                "I2",
            ),
            (
                "a key changes hands",
                std::slice::from_ref(&live),
                &[Slot { owner: owner(1), ..live.clone() }],
                "I10",
            ),
        ];
        for (name, before, after, expected) in cases {
            let found = violations(&of(before), &of(after), &terms(), Waiver::None);
            assert!(found.iter().any(|v| v.starts_with(expected)), "{name}: {found:?}");
        }
    }
}
