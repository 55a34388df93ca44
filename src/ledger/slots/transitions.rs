//! What a change does to the slots of a ledger. Pure.

use jiff::Timestamp;

use super::{DEPARTED, Ledger, Refusal, Terms, VALUE_LOST, WRONG_USER, failed, place};
use crate::api::account::{Owner, Slot, SlotState};

impl Ledger {
    /// A place for an owner's first key, behind `ahead` older owners that wait for one.
    pub(super) fn reserve(
        self,
        owner: &Owner,
        key_use: &str,
        ahead: usize,
        max: Option<i64>,
        terms: &Terms,
    ) -> Result<Self, Refusal> {
        if self.owned_by(&owner.uid).next().is_some() {
            return Err(Refusal::HasPlace);
        }
        let mut next = self.without_earlier_try(owner);
        if max.is_some_and(|max| next.owners_in(&owner.namespace) >= max) {
            return Err(Refusal::NamespaceFull);
        }
        if !terms.room.fits_new(&next.slots, ahead) {
            return Err(Refusal::NoRoom);
        }
        next.put(place(owner, key_use, 1, None, terms.now));
        Ok(next)
    }

    /// A further place of an owner that has exactly `live` live keys; its other slots have to be out of use.
    pub(super) fn reserve_further(
        &mut self,
        owner: &Owner,
        key_use: &str,
        live: usize,
        terms: &Terms,
    ) -> Result<(), Refusal> {
        let (mut slots, mut alive) = (0_usize, 0_usize);
        for slot in self.owned_by(&owner.uid) {
            slots += 1;
            match slot.state {
                SlotState::Lost | SlotState::Unresolved | SlotState::Revoking => {}
                SlotState::Live => alive += 1,
                SlotState::Reserved | SlotState::Creating | SlotState::Released | SlotState::Unknown(_) => {
                    return Err(Refusal::HasPlace);
                }
            }
        }
        if alive > live {
            return Err(Refusal::HasPlace);
        }
        if slots == 0 || alive < live {
            return Err(Refusal::NotInState);
        }
        if !terms.room.fits_extra(&self.slots) {
            return Err(Refusal::NoRoom);
        }
        let revision =
            self.owned_by(&owner.uid).map(|slot| slot.revision).max().unwrap_or(0).saturating_add(1);
        let last_switch = self.last_switch(&owner.uid);
        self.put(place(owner, key_use, revision, last_switch, terms.now));
        Ok(())
    }

    /// Adds a slot, and sorts slots by owner, as `kubectl describe` shows them in this order. Nothing else depends on it.
    fn put(&mut self, slot: Slot) {
        self.slots.push(slot);
        self.slots.sort_by(|a, b| {
            let [a, b] = [a, b].map(|Slot { owner, .. }| (&owner.namespace, &owner.name, &owner.uid));
            a.cmp(&b)
        });
    }

    pub(super) fn license(
        &mut self,
        uid: &str,
        attempt: &str,
        key_name: &str,
        terms: &Terms,
    ) -> Result<&mut Slot, Refusal> {
        if self.open_licence(terms.now, terms.licence_term).is_some() {
            return Err(Refusal::LicenceOpen);
        }
        if self.by_attempt(attempt).is_some() || self.departed.iter().any(|gone| gone == attempt) {
            return Err(Refusal::NotInState);
        }
        let index = self.reserved(uid)?;
        if !terms.room.fits_creation(&self.slots, &self.slots[index]) {
            return Err(Refusal::NoRoom);
        }
        let slot = &mut self.slots[index];
        slot.state = SlotState::Creating;
        slot.attempt = Some(attempt.to_owned());
        slot.key_name = Some(key_name.to_owned());
        slot.since = terms.now;
        Ok(slot)
    }

    pub(super) fn publish(&mut self, attempt: &str, from: SlotState, now: Timestamp) -> Result<(), Refusal> {
        let slot = self.slot(attempt, &[from])?;
        let (uid, back) = (slot.owner.uid.clone(), slot.state == SlotState::Live);
        // A switch number that was used before could make an older key the current one: if there is no higher one, nothing is
        // published.
        let number = self.last_switch(&uid).unwrap_or(0).checked_add(1).ok_or(Refusal::NotInState)?;
        // A switch back takes over the trigger of the newer key: the rotation that it asked for has taken place.
        let asked = if back { self.current(&uid) } else { self.by_attempt(attempt) };
        let trigger = asked.and_then(|slot| slot.trigger.clone());
        let slot = self.slot_mut(attempt).ok_or(Refusal::NotInState)?;
        slot.state = SlotState::Live;
        slot.trigger = trigger;
        slot.published = Some(number);
        slot.last_switch = None;
        slot.switched_back = back.then(|| slot.switched_back.unwrap_or(0).saturating_add(1));
        slot.since = now;
        // The failures of an `Unresolved` slot are about its own key, and stay.
        let settled = |slot: &&mut Slot| slot.owner.uid == uid && slot.state != SlotState::Unresolved;
        self.slots.iter_mut().filter(settled).for_each(|slot| slot.failures = None);
        Ok(())
    }

    pub(super) fn identify(&mut self, attempt: &str, key_id: &str) -> Result<(), Refusal> {
        let slot = self.slot_mut(attempt).filter(|slot| slot.key_id.is_none()).ok_or(Refusal::NotInState)?;
        slot.key_id = Some(key_id.to_owned());
        Ok(())
    }

    pub(super) fn lose(
        &mut self,
        attempt: &str,
        key_id: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        self.enter(attempt, &[SlotState::Creating, SlotState::Unresolved], SlotState::Lost, now)?;
        self.fails(attempt, VALUE_LOST, now)?;
        let slot = self.slot(attempt, &[SlotState::Lost])?;
        // An id that is known stays (I10): a list may show the key's name with another id.
        slot.key_id = slot.key_id.take().or_else(|| key_id.map(str::to_owned));
        Ok(())
    }

    pub(super) fn doubt(&mut self, attempt: &str, reason: &str, now: Timestamp) -> Result<(), Refusal> {
        self.enter(attempt, &[SlotState::Creating], SlotState::Unresolved, now)?;
        let slot = self.slot(attempt, &[SlotState::Unresolved])?;
        slot.failures = Some(failed(slot.failures.as_ref(), reason, now));
        Ok(())
    }

    /// Records that a key was made to no use: its owner's next attempt waits, longer each time.
    pub(super) fn fails(&mut self, attempt: &str, reason: &str, now: Timestamp) -> Result<(), Refusal> {
        let uid = self.by_attempt(attempt).ok_or(Refusal::NotInState)?.owner.uid.clone();
        let before = self.owned_by(&uid).filter_map(|slot| slot.failures.as_ref());
        let failures = failed(before.max_by_key(|failures| failures.count), reason, now);
        self.slot_mut(attempt).ok_or(Refusal::NotInState)?.failures = Some(failures);
        Ok(())
    }

    pub(super) fn not_made(&mut self, attempt: &str, reason: &str, now: Timestamp) -> Result<(), Refusal> {
        let slot = self.slot(attempt, &[SlotState::Creating])?;
        let uid = slot.owner.uid.clone();
        if self.owned_by(&uid).count() > 1 {
            self.depart(attempt);
            // The slot goes, but another slot of the owner keeps the failure, or the next further slot would be taken without a
            // pause.
            let left = self.slots.iter_mut().find(|slot| slot.owner.uid == uid);
            if let Some(slot) = left {
                // That a key is another user's is recorded only in this reason, which has to stay: without it a list might
                // dismiss the key.
                let doubt = slot.failures.as_ref().filter(|known| known.reason == WRONG_USER);
                let reason = if doubt.is_some() { WRONG_USER } else { reason };
                slot.failures = Some(failed(slot.failures.as_ref(), reason, now));
            }
            return Ok(());
        }
        let slot = self.slot_mut(attempt).ok_or(Refusal::NotInState)?;
        slot.state = SlotState::Reserved;
        slot.failures = Some(failed(slot.failures.as_ref(), reason, now));
        slot.attempt = None;
        slot.key_name = None;
        slot.key_id = None;
        slot.user = None;
        slot.trigger = None;
        // A kept place has no `published`; should this slot have one, although it never was live, its number is kept in
        // `last_switch`.
        slot.last_switch = slot.last_switch.max(slot.published.take());
        slot.since = now;
        self.remember(attempt);
        Ok(())
    }

    /// Checks that the last switch of the attempt's owner is still the one of this number, and to another key. The gate may have
    /// been judged long ago, by a process that stalled since: meanwhile this key may have become the current one again.
    pub(super) fn superseded(&self, attempt: &str, switch: i64) -> Result<(), Refusal> {
        let uid = &self.by_attempt(attempt).ok_or(Refusal::NotInState)?.owner.uid;
        let current = self.current(uid).ok_or(Refusal::NotInState)?;
        let holds = current.published == Some(switch) && current.attempt.as_deref() != Some(attempt);
        holds.then_some(()).ok_or(Refusal::NotInState)
    }

    pub(super) fn condemn(&mut self, attempt: &str, emergency: bool, now: Timestamp) -> Result<(), Refusal> {
        let slot = self.by_attempt(attempt).ok_or(Refusal::NotInState)?;
        let uid = slot.owner.uid.clone();
        let others = self.owned_by(&uid).filter(|slot| slot.state == SlotState::Live).count() > 1;
        let current = self.current(&uid).and_then(|slot| slot.attempt.as_deref()) == Some(attempt);
        if current && others && !emergency {
            return Err(Refusal::CurrentKey);
        }
        self.enter(attempt, &[SlotState::Lost, SlotState::Live], SlotState::Revoking, now)
    }

    pub(super) fn bury(&mut self, attempt: &str, owner_lives: bool, now: Timestamp) -> Result<(), Refusal> {
        let slot = self.slot(attempt, &[SlotState::Revoking])?.clone();
        let last_switch = self.last_switch(&slot.owner.uid);
        self.depart(attempt);
        if owner_lives && self.owned_by(&slot.owner.uid).next().is_none() {
            let revision = slot.revision.saturating_add(1);
            self.put(place(&slot.owner, &slot.key_use, revision, last_switch, now));
        }
        // Another slot of the owner keeps the failures of this one, or the next key would be made without a pause.
        let settled =
            |other: &&mut Slot| other.owner.uid == slot.owner.uid && other.state != SlotState::Unresolved;
        if let Some(stays) = self.slots.iter_mut().find(settled) {
            stays.failures = slot.failures.clone().or(stays.failures.take());
        }
        Ok(())
    }

    pub(super) fn enter(
        &mut self,
        attempt: &str,
        from: &[SlotState],
        to: SlotState,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let slot = self.slot(attempt, from)?;
        slot.state = to;
        slot.since = now;
        Ok(())
    }

    pub(in crate::ledger) fn depart(&mut self, attempt: &str) {
        if let Some(uid) = self.by_attempt(attempt).map(|slot| slot.owner.uid.clone()) {
            let number = self.last_switch(&uid);
            self.slots.retain(|slot| slot.attempt.as_deref() != Some(attempt));
            // A switch number is never used again: the highest one is kept by a slot that stays.
            if number > self.last_switch(&uid)
                && let Some(stays) = self.slots.iter_mut().find(|slot| slot.owner.uid == uid)
            {
                stays.last_switch = number;
            }
        }
        self.remember(attempt);
    }

    fn remember(&mut self, attempt: &str) {
        self.departed.push(attempt.to_owned());
        let surplus = self.departed.len().saturating_sub(DEPARTED);
        self.departed.drain(..surplus);
    }
}
