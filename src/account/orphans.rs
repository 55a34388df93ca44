//! Slots whose ApiKey vanished, and when they go. Pure.
//!
//! A kept place is given back, and a key that was never published is abandoned. A published key may be in use by pods, however
//! its ApiKey vanished, so time alone never revokes it. Only the end of its namespace does, with which its pods ended, or a
//! platform person's word, by the annotation `keys.bags.fm/revoke`.

use std::time::Duration;

use super::{
    decide::{Look, Turn, change, first, look},
    observe::{Observation, OwnerSeen, SlotSeen, Stored},
};
use crate::{api::account::SlotState, ledger::Change, time::earlier};

/// What was read of a namespace counts as read just now for this long.
const JUST_NOW: Duration = Duration::from_mins(1);

/// The rule for slots whose ApiKey vanished.
pub(super) fn orphans(seen: &Observation) -> Turn {
    first(seen.slots.iter().map(|slot| match (&slot.slot.state, slot.attempt()) {
        (SlotState::Reserved, _) => {
            // Any replica keeps places, by its own clock: only what this process has seen itself counts.
            let due = seen.timings.reserved_reap_after.saturating_sub(slot.watched);
            let owner_uid = slot.slot.owner.uid.clone();
            once_gone(slot, due, Change::GiveBack { owner_uid })
        }
        (SlotState::Creating, Some(attempt)) if slot.stored == Stored::Value && !slot.running => {
            once_gone(slot, Duration::ZERO, Change::Abandon { attempt: attempt.to_owned() })
        }
        (SlotState::Live, Some(attempt)) if !slot.current || alone(seen, slot) => {
            published(seen, slot, attempt)
        }
        (
            SlotState::Creating
            | SlotState::Live
            | SlotState::Lost
            | SlotState::Unresolved
            | SlotState::Revoking
            | SlotState::Released
            | SlotState::Unknown(_),
            _,
        ) => Turn::Nothing,
    }))
}

/// Published keys without an ApiKey that stay until a person says otherwise.
pub(super) fn kept(seen: &Observation) -> impl Iterator<Item = &SlotSeen> {
    seen.slots.iter().filter(|slot| {
        let namespace = seen.facts.namespaces.get(&slot.slot.owner.namespace);
        let going = seen.let_go(slot) || namespace.is_some_and(|known| known.gone_since.is_some());
        slot.slot.state == SlotState::Live && vanished(slot) && !going
    })
}

/// Whether a slot's ApiKey is not there.
pub(super) fn vanished(slot: &SlotSeen) -> bool {
    match slot.owner {
        OwnerSeen::Missing(_) | OwnerSeen::Gone => true,
        OwnerSeen::Cached | OwnerSeen::Lives | OwnerSeen::Deleting => false,
    }
}

/// A change that waits for its time, and then for a live read that shows that the owner is gone.
fn once_gone(slot: &SlotSeen, due: Duration, then: Change) -> Turn {
    match slot.owner {
        OwnerSeen::Cached | OwnerSeen::Lives | OwnerSeen::Deleting => Turn::Nothing,
        OwnerSeen::Missing(_) | OwnerSeen::Gone if !due.is_zero() => Turn::In(due),
        OwnerSeen::Missing(_) => look(Look::Owner(slot.slot.owner.clone())),
        OwnerSeen::Gone => change(then),
    }
}

fn published(seen: &Observation, slot: &SlotSeen, attempt: &str) -> Turn {
    let condemn = |looked_at| Change::Condemn { attempt: attempt.to_owned(), emergency: false, looked_at };
    if !vanished(slot) || seen.let_go(slot) {
        return once_gone(slot, Duration::ZERO, condemn(None));
    }
    let namespace = &slot.slot.owner.namespace;
    let ask = || look(Look::Namespace(namespace.clone()));
    let Some(known) = seen.facts.namespaces.get(namespace) else { return ask() };
    let asked = seen.now.saturating_duration_since(known.asked);
    let again = seen.timings.resync.saturating_sub(asked);
    let due = known.gone_since.map(|since| {
        let gone = seen.now.saturating_duration_since(since);
        seen.timings.orphan_after.saturating_sub(gone)
    });
    match due {
        _ if again.is_zero() => ask(),
        None => Turn::In(again),
        Some(due) if !due.is_zero() => Turn::In(due.min(again)),
        Some(_) if asked > JUST_NOW => ask(),
        // A namespace that is created again may have pods: if this process stalls before the write, `looked_at` makes the ledger
        // refuse it, and the namespace is read again.
        Some(_) => {
            let looked_at = earlier(seen.wall, asked);
            once_gone(slot, Duration::ZERO, condemn(Some(looked_at)))
        }
    }
}

/// Whether it is its owner's only live slot: the current key goes last.
fn alone(seen: &Observation, slot: &SlotSeen) -> bool {
    let live = |other: &&SlotSeen| {
        other.slot.state == SlotState::Live && other.slot.owner.uid == slot.slot.owner.uid
    };
    seen.slots.iter().filter(live).count() == 1
}

#[cfg(test)]
mod tests;
