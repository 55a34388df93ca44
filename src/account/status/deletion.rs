//! What an account that is being deleted waits for, in words. Pure.

use super::some_of;
use crate::{
    account::{
        act::PAGE,
        decide::{Standing, holds_dead_values, standing},
        observe::{Observation, SlotSeen},
        orphans,
    },
    api::{account::SlotState, annotation},
};

/// What makes a slot go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WayOut {
    /// The deletion of its ApiKey.
    Delete,
    /// A person's word that its key is to be revoked.
    Revoke,
    /// A person's word that its key is removed.
    Resolve,
    /// Time, or what another condition asks for.
    Itself,
}

pub(super) fn waits_for(seen: &Observation) -> String {
    let forget = |left| {
        let forget = annotation::FORGET;
        format!("To let the account go at once and leave {left} to you, annotate it {forget}: \"true\"")
    };
    if seen.slots.is_empty() && holds_dead_values(seen) {
        let secrets = forget("their Secrets");
        return format!("no slot is left; the keystore is cleared of dead keys first. {secrets}");
    }
    if seen.slots.is_empty() && seen.leaving {
        let keys = forget("those ApiKeys");
        return format!(
            "no slot is left; it waits for ApiKeys that are being deleted as well: see what they say. {keys}"
        );
    }
    if seen.slots.is_empty() {
        return "no slot is left: nothing more of the operator holds it".to_owned();
    }
    let slots: Vec<(&SlotSeen, WayOut)> = seen.slots.iter().map(|slot| (slot, way_out(seen, slot))).collect();
    let names = slots.iter().map(|(seen, way)| {
        let (owner, state) = (&seen.slot.owner, seen.slot.state.as_str());
        let attempt = match way {
            WayOut::Revoke | WayOut::Resolve => {
                format!(", attempt {}", seen.attempt().unwrap_or_default())
            }
            WayOut::Delete | WayOut::Itself => String::new(),
        };
        format!("{}/{} ({state}{attempt})", owner.namespace, owner.name)
    });
    let wait = format!("waits until no slot is left; {} left: {}", slots.len(), some_of(names.collect()));
    let ways = [
        (WayOut::Delete, "Delete the ApiKeys that are still there".to_owned()),
        (
            WayOut::Revoke,
            format!(
                "A live key whose ApiKey vanished is revoked once you annotate this account {}: <attempts>",
                annotation::REVOKE
            ),
        ),
        (
            WayOut::Resolve,
            format!(
                "A key that is left to people you remove at {PAGE}; then annotate this account {}: <attempts>",
                annotation::RESOLVED
            ),
        ),
    ];
    let ways = ways.into_iter().filter(|(way, _)| slots.iter().any(|(_, wanted)| wanted == way));
    let sentences = [wait].into_iter().chain(ways.map(|(_, text)| text)).chain([forget("its keys")]);
    sentences.collect::<Vec<_>>().join(". ")
}

fn way_out(seen: &Observation, slot: &SlotSeen) -> WayOut {
    // Of another installation's slots this one knows no ApiKey, and its word would reach nobody.
    if standing(seen) == Standing::Foreign {
        return WayOut::Delete;
    }
    let kept = orphans::kept(seen).any(|kept| kept.slot.attempt == slot.slot.attempt);
    match (&slot.slot.state, orphans::vanished(slot)) {
        (SlotState::Released, _) | (SlotState::Unresolved, true) => WayOut::Resolve,
        (SlotState::Live, true) if kept => WayOut::Revoke,
        (
            SlotState::Reserved
            | SlotState::Creating
            | SlotState::Live
            | SlotState::Lost
            | SlotState::Revoking
            | SlotState::Unknown(_),
            true,
        ) => WayOut::Itself,
        (
            SlotState::Reserved
            | SlotState::Creating
            | SlotState::Live
            | SlotState::Lost
            | SlotState::Unresolved
            | SlotState::Revoking
            | SlotState::Unknown(_),
            false,
        ) => WayOut::Delete,
    }
}
