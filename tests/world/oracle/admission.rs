//! Admission: whoever is let in has a place, and nobody else.

use std::collections::BTreeSet;

use bags_operator::{
    api::{
        BagsAccount,
        account::{Slot, SlotState},
    },
    ledger::{Ledger, Room},
};
use jiff::Timestamp;
use serde::Deserialize;

use super::{Oracle, elapsed, ledger};
use crate::{
    creation::{self, Verdict},
    scene::{ACCOUNT, Scene},
};

impl Oracle {
    /// A process answered a review, in time: whoever is let in has a place, or is told to wait; whoever is refused, or only
    /// asked, has none.
    pub(crate) fn reviewed(&mut self, verdict: &Verdict, dry_run: bool, scene: &Scene) {
        let placed = ledger(scene).unwrap_or_default().owned_by(&verdict.uid).next().is_some();
        let name = &verdict.name;
        let has_place = self.ledger_was_lost || has_place(name, &verdict.uid, scene);
        if verdict.allowed && !dry_run && !has_place && !verdict.waits() {
            self.blame(format!("admission: {name} was let in without a place"));
        }
        if verdict.allowed && dry_run && placed {
            self.blame(format!("admission: a place is kept for {name}, which was only tried out"));
        }
        if !verdict.allowed && verdict.code == 403 && placed {
            self.blame(format!("admission: a place is kept for {name}, which was refused"));
        }
    }

    /// An ApiKey that was let in is about to be stored: its place is still there, unless all were lost.
    pub(crate) fn is_stored(&mut self, name: &str, uid: &str, waits: bool, scene: &Scene) {
        if !has_place(name, uid, scene) && !waits && !self.ledger_was_lost {
            self.blame(format!("admission: the place of {name} was given away before it was stored"));
        }
    }

    /// What an account offers, apart from its slots.
    pub(crate) fn room_of(&self, account: &BagsAccount, now: Timestamp) -> Room {
        Room::of(account, now, &self.timings)
    }

    /// Whether a first slot is free, and the one tenant has not its share yet, all those counted who wait for one.
    pub(crate) fn has_room(&self, scene: &Scene, now: Timestamp) -> bool {
        let Some(account) = scene.api.get("bagsaccounts", "", ACCOUNT) else { return false };
        let Ok(account) = BagsAccount::deserialize(&*account) else { return false };
        let room = self.room_of(&account, now);
        let keys = scene.api.list("apikeys");
        let waiting =
            keys.iter().filter(|key| self.ledger.owned_by(creation::uid(key)).next().is_none()).count();
        let most = account.spec.allowed.iter().filter_map(|entry| entry.max).max();
        let owners: BTreeSet<&str> = self.ledger.slots.iter().map(|slot| slot.owner.uid.as_str()).collect();
        let has_share = most.is_none_or(|most| i64::try_from(owners.len() + waiting).is_ok_and(|n| n < most));
        has_share && room.fits_new(&self.ledger.slots, waiting)
    }

    /// A place is kept only where one is free, and for a use that nobody else has a place or a key for.
    pub(super) fn places_are_kept_rightly(
        &mut self,
        before: &Ledger,
        after: &Ledger,
        room: &Room,
        scene: &Scene,
    ) {
        let new = after
            .slots
            .iter()
            .filter(|slot| slot.state == SlotState::Reserved && slot.attempt.is_none())
            .filter(|slot| before.owned_by(&slot.owner.uid).next().is_none());
        for slot in new {
            // The unused place of an earlier try of the same name serves this one.
            let without = before.clone().without_earlier_try(&slot.owner);
            if !room.fits_new(&without.slots, 0) {
                self.blame(format!("admission: a place is kept for {} where none is free", slot.owner.name));
            }
            let again = after.slots.iter().any(|other| {
                let (ours, theirs) = (&slot.owner, &other.owner);
                (&ours.namespace, &ours.name) == (&theirs.namespace, &theirs.name)
                    && ours.uid != theirs.uid
                    && Slot { owner: ours.clone(), since: slot.since, ..other.clone() } == *slot
            });
            if again {
                self.blame(format!("admission: two places are kept for tries of {}", slot.owner.name));
            }
            let mut rivals = before.slots.iter().filter(|other| {
                other.key_use == slot.key_use
                    && (&other.owner.namespace, &other.owner.name)
                        != (&slot.owner.namespace, &slot.owner.name)
            });
            let going = |other: &Slot| {
                let owner = scene.api.get("apikeys", &other.owner.namespace, &other.owner.name);
                owner.is_none_or(|owner| {
                    creation::uid(&owner) != other.owner.uid
                        || !owner["metadata"]["deletionTimestamp"].is_null()
                })
            };
            // Whoever was let in just now is not stored yet: its place counts all the same.
            let young = |other: &Slot| {
                matches!(other.state, SlotState::Reserved | SlotState::Creating)
                    && elapsed(other.since, slot.since) < creation::PATIENCE
            };
            if let Some(rival) = rivals.find(|rival| young(rival) || !going(rival)) {
                self.blame(format!("use: {} and {} have one each", rival.owner.name, slot.owner.name));
            }
        }
    }
}

/// Whether a place is kept for an ApiKey, or for its name: whoever tried the same name since, and comes to nothing, has taken
/// it over, and it is taken back.
fn has_place(name: &str, uid: &str, scene: &Scene) -> bool {
    let ledger = ledger(scene).unwrap_or_default();
    let of_its_name = |slot: &Slot| slot.state == SlotState::Reserved && slot.owner.name == name;
    ledger.owned_by(uid).next().is_some() || ledger.slots.iter().any(of_its_name)
}
