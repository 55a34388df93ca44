//! The slots of an account and every change that one of them can go through. Pure.
//!
//! A [`Change`] is a line of the table in `docs/architecture.md`. [`Ledger::apply`] checks it against the ledger
//! as it is now, so a change that lost a race is decided again from scratch when it is applied again.

use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::capacity::Room;
use crate::api::{
    BagsAccountStatus,
    account::{Failures, Owner, Slot, SlotState},
};

/// Failure reason of a slot whose key belongs to another user of Bags.
pub const WRONG_USER: &str = "WrongUser";
/// `failures.reason` of a slot whose key Bags never accepted.
pub const NEVER_ACCEPTED: &str = "NeverAccepted";
/// `failures.reason` of a slot whose key was made and its value not kept.
pub const VALUE_LOST: &str = "ValueLost";
/// How many departed attempts are remembered.
const DEPARTED: usize = 20;

/// The slots of one account, and the attempts that last left them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// Every key that exists or may exist, and every place kept for one.
    pub slots: Vec<Slot>,
    /// The last attempts that left, oldest first.
    pub departed: Vec<String>,
}

/// One change of one slot.
#[expect(
    missing_docs,
    reason = "the fields are an attempt, an owner, a use, an id, a reason: they say it themselves"
)]
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// (none) → Reserved: a place for an owner's first key, behind `ahead` older owners that wait for one. What an earlier try
    /// of the same name left goes with it. `max`: so many owners of its namespace may have slots, this one included.
    Reserve { owner: Owner, key_use: String, ahead: usize, max: Option<i64> },
    /// (none) → Reserved: a further place of an owner whose other slots are all Lost, Unresolved or Revoking.
    ReserveFurther { owner: Owner, key_use: String },
    /// (none) → Reserved: a place for the key that replaces an owner's only live one.
    ReserveNext { owner: Owner, key_use: String },
    /// Reserved → (none): the owner is deleted or gone, or does not need a further slot any more.
    GiveBack { owner_uid: String },
    /// Reserved → Creating: slot, lock, intent and licence in one. `trigger`: the token that asks for the key.
    License { owner_uid: String, attempt: String, key_name: String, trigger: Option<String> },
    /// Any state → the same: the key's id became known.
    Identify { attempt: String, key_id: String },
    /// Creating → Live: verified; the same write publishes it.
    Publish { attempt: String },
    /// Live → Live: an older key is published again. Judged for this switch: refused where another one has come since.
    SwitchBack { attempt: String, switch: i64 },
    /// Live → Revoking: an earlier key, which nothing can hold since this switch; refused where another one has come since.
    Retire { attempt: String, switch: i64 },
    /// Creating → Reserved (a further slot: → none): definitely not made.
    NotMade { attempt: String, reason: &'static str },
    /// Creating → Revoking: saved, but never to be published.
    Abandon { attempt: String },
    /// Creating → Lost, Unresolved → Lost: the key exists and its value is gone.
    Lose { attempt: String, key_id: Option<String> },
    /// Creating → Unresolved: nobody can tell whether the key exists, or whose it is.
    Doubt { attempt: String, reason: &'static str },
    /// Lost → Revoking, Live → Revoking. `emergency` lifts the protection of the owner's current key.
    Condemn { attempt: String, emergency: bool },
    /// Live → Released: left to people on purpose.
    Release { attempt: String },
    /// Revoking → Reserved (the last slot of a living owner), else → gone: proven dead.
    Bury { attempt: String, owner_lives: bool },
    /// Unresolved → gone, Released → gone: two covering lists lack it, or a person removed it.
    Dismiss { attempt: String },
}

/// Why a change does not apply to the ledger as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The account has no slot left for it.
    #[error("the account has no slot for it")]
    NoRoom,
    /// As many owners of the namespace have slots as may.
    #[error("the namespace has as many keys of the account as it may have")]
    NamespaceFull,
    /// The ledger belongs to no installation yet: it is a new account's, or it was lost.
    #[error("the ledger belongs to no installation of the operator yet")]
    Nobodys,
    /// Another creation of the account is under way.
    #[error("another creation of the account is under way")]
    LicenceOpen,
    /// The slot is not there, or not in a state that allows the change.
    #[error("the slot is not in a state that allows it")]
    NotInState,
    /// The owner has a place already, or a creation under way.
    #[error("the owner has a place already")]
    HasPlace,
    /// It is the owner's current key and another one is live.
    #[error("it is the owner's current key")]
    CurrentKey,
    /// A slot is in a state of a newer version.
    #[error("a slot is in a state that this version does not know")]
    UnknownState,
}

/// What a change is judged against, besides the slots.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Room of the account.
    pub room: Room,
    /// The wall clock.
    pub now: Timestamp,
    /// How long a licence keeps others waiting.
    pub licence_term: Duration,
}

impl Ledger {
    /// The ledger in an account's status.
    #[must_use]
    pub fn of(status: Option<&BagsAccountStatus>) -> Self {
        status.map_or_else(Self::default, |s| Self { slots: s.slots.clone(), departed: s.departed.clone() })
    }

    /// Slots of an owner.
    pub fn owned_by<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Slot> {
        self.slots.iter().filter(move |slot| slot.owner.uid == uid)
    }

    /// How many owners of a namespace have slots. The second key of a rotation makes nobody a second owner.
    #[must_use]
    pub fn owners_in(&self, namespace: &str) -> i64 {
        let of_it = self.slots.iter().map(|slot| &slot.owner).filter(|owner| owner.namespace == namespace);
        let owners: BTreeSet<&str> = of_it.map(|owner| owner.uid.as_str()).collect();
        i64::try_from(owners.len()).unwrap_or(i64::MAX)
    }

    /// The slot of an attempt.
    #[must_use]
    pub fn by_attempt(&self, attempt: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.attempt.as_deref() == Some(attempt))
    }

    /// The owner's current key (I2): its live slot with the highest `published`.
    #[must_use]
    pub fn current(&self, uid: &str) -> Option<&Slot> {
        current(self.slots.iter().filter(|slot| slot.owner.uid == uid))
    }

    /// The open licence of the account, if there is one.
    #[must_use]
    pub fn open_licence(&self, now: Timestamp, term: Duration) -> Option<&Slot> {
        self.slots.iter().find(|slot| licence_open(slot, now, term))
    }

    /// The ledger as an owner finds it who has no slot: without the place that an earlier try of the same name left. Two objects
    /// of one name cannot be, so one place is enough for all who try, and the one that is there takes it back. A place that
    /// has been used, or refused, is no such place: its owner was there.
    #[must_use]
    pub fn without_earlier_try(mut self, owner: &Owner) -> Self {
        self.slots.retain(|slot| {
            let Owner { namespace, name, uid } = &slot.owner;
            let earlier = (namespace, name) == (&owner.namespace, &owner.name) && *uid != owner.uid;
            !(earlier && is_fresh(slot))
        });
        self
    }

    /// Whether a slot is in a state of a newer version: then nothing is changed.
    #[must_use]
    pub fn unknown_state(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.state, SlotState::Unknown(_)))
    }

    /// The ledger after a change.
    ///
    /// # Errors
    /// When the ledger as it is now does not allow the change.
    pub fn apply(&self, change: &Change, terms: &Terms) -> Result<Self, Refusal> {
        if self.unknown_state() {
            return Err(Refusal::UnknownState);
        }
        let mut next = self.clone();
        match change {
            Change::Reserve { owner, key_use, ahead, max } => {
                if self.owned_by(&owner.uid).next().is_some() {
                    return Err(Refusal::HasPlace);
                }
                next = next.without_earlier_try(owner);
                if max.is_some_and(|max| next.owners_in(&owner.namespace) >= max) {
                    return Err(Refusal::NamespaceFull);
                }
                if !terms.room.fits_new(&next.slots, *ahead) {
                    return Err(Refusal::NoRoom);
                }
                next.slots.push(place(owner, key_use, 1, None, terms.now));
            }
            Change::ReserveFurther { owner, key_use } => next.reserve_further(owner, key_use, 0, terms)?,
            Change::ReserveNext { owner, key_use } => next.reserve_further(owner, key_use, 1, terms)?,
            Change::GiveBack { owner_uid } => {
                let index = next.reserved(owner_uid)?;
                next.slots.remove(index);
            }
            Change::License { owner_uid, attempt, key_name, trigger } => {
                next.license(owner_uid, attempt, key_name, terms)?.trigger.clone_from(trigger);
            }
            Change::Identify { attempt, key_id } => {
                let slot =
                    next.slot_mut(attempt).filter(|slot| slot.key_id.is_none()).ok_or(Refusal::NotInState)?;
                slot.key_id = Some(key_id.clone());
            }
            Change::Publish { attempt } => next.publish(attempt, SlotState::Creating, terms.now)?,
            Change::SwitchBack { attempt, switch } => {
                self.superseded(attempt, *switch)?;
                next.publish(attempt, SlotState::Live, terms.now)?;
            }
            Change::Retire { attempt, switch } => {
                self.superseded(attempt, *switch)?;
                next.enter(attempt, &[SlotState::Live], SlotState::Revoking, terms.now)?;
            }
            Change::NotMade { attempt, reason } => next.not_made(attempt, reason, terms.now)?,
            Change::Abandon { attempt } => {
                next.enter(attempt, &[SlotState::Creating], SlotState::Revoking, terms.now)?;
                next.fails(attempt, NEVER_ACCEPTED, terms.now)?;
            }
            Change::Lose { attempt, key_id } => {
                next.enter(
                    attempt,
                    &[SlotState::Creating, SlotState::Unresolved],
                    SlotState::Lost,
                    terms.now,
                )?;
                next.fails(attempt, VALUE_LOST, terms.now)?;
                let slot = next.slot(attempt, &[SlotState::Lost])?;
                // An id that is known stays (I10): a list may show the key's name under another one.
                slot.key_id = slot.key_id.take().or_else(|| key_id.clone());
            }
            Change::Doubt { attempt, reason } => {
                next.enter(attempt, &[SlotState::Creating], SlotState::Unresolved, terms.now)?;
                let slot = next.slot(attempt, &[SlotState::Unresolved])?;
                slot.failures = Some(failed(slot.failures.as_ref(), reason, terms.now));
            }
            Change::Condemn { attempt, emergency } => next.condemn(attempt, *emergency, terms.now)?,
            Change::Release { attempt } => {
                next.enter(attempt, &[SlotState::Live], SlotState::Released, terms.now)?
            }
            Change::Bury { attempt, owner_lives } => next.bury(attempt, *owner_lives, terms.now)?,
            Change::Dismiss { attempt } => {
                next.slot(attempt, &[SlotState::Unresolved, SlotState::Released])?;
                next.depart(attempt);
            }
        }
        Ok(next)
    }

    /// A further place of an owner that has so many live keys; its other slots are out of use.
    fn reserve_further(
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
        self.slots.push(place(owner, key_use, revision, last_switch, terms.now));
        Ok(())
    }

    fn license(
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

    fn publish(&mut self, attempt: &str, from: SlotState, now: Timestamp) -> Result<(), Refusal> {
        let slot = self.slot(attempt, &[from])?;
        let (uid, back) = (slot.owner.uid.clone(), slot.state == SlotState::Live);
        // A number that was used before would make an older key the current one: rather none is published.
        let number = self.last_switch(&uid).unwrap_or(0).checked_add(1).ok_or(Refusal::NotInState)?;
        // Whoever goes back to an older key has had the rotation that was asked for.
        let asked = if back { self.current(&uid) } else { self.by_attempt(attempt) };
        let trigger = asked.and_then(|slot| slot.trigger.clone());
        let slot = self.slot_mut(attempt).ok_or(Refusal::NotInState)?;
        slot.state = SlotState::Live;
        slot.trigger = trigger;
        slot.published = Some(number);
        slot.last_switch = None;
        slot.switched_back = back.then(|| slot.switched_back.unwrap_or(0).saturating_add(1));
        slot.since = now;
        // A doubt is about its own key, and stays.
        let settled = |slot: &&mut Slot| slot.owner.uid == uid && slot.state != SlotState::Unresolved;
        self.slots.iter_mut().filter(settled).for_each(|slot| slot.failures = None);
        Ok(())
    }

    /// A key was made, and to no use. Its owner's next attempt waits, longer each time.
    fn fails(&mut self, attempt: &str, reason: &str, now: Timestamp) -> Result<(), Refusal> {
        let uid = self.by_attempt(attempt).ok_or(Refusal::NotInState)?.owner.uid.clone();
        let before = self.owned_by(&uid).filter_map(|slot| slot.failures.as_ref());
        let failures = failed(before.max_by_key(|failures| failures.count), reason, now);
        self.slot_mut(attempt).ok_or(Refusal::NotInState)?.failures = Some(failures);
        Ok(())
    }

    fn not_made(&mut self, attempt: &str, reason: &str, now: Timestamp) -> Result<(), Refusal> {
        let slot = self.slot(attempt, &[SlotState::Creating])?;
        let uid = slot.owner.uid.clone();
        if self.owned_by(&uid).count() > 1 {
            self.depart(attempt);
            // The slot goes and the refusal stays, or the next further slot would be taken without a pause.
            let left = self.slots.iter_mut().find(|slot| slot.owner.uid == uid);
            if let Some(slot) = left {
                // That a key is another user's is said here only, and no list may dismiss it for want of that word.
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
        slot.trigger = None;
        // A place has no switch number of its own; one that it should not have had is kept all the same.
        slot.last_switch = slot.last_switch.max(slot.published.take());
        slot.since = now;
        self.remember(attempt);
        Ok(())
    }

    /// Whether a switch of this number to another key is still the last one of the attempt's owner. What a gate was judged on
    /// may be long ago, as where a process stood still: by then the key may be the only one again.
    fn superseded(&self, attempt: &str, switch: i64) -> Result<(), Refusal> {
        let uid = &self.by_attempt(attempt).ok_or(Refusal::NotInState)?.owner.uid;
        let current = self.current(uid).ok_or(Refusal::NotInState)?;
        let holds = current.published == Some(switch) && current.attempt.as_deref() != Some(attempt);
        holds.then_some(()).ok_or(Refusal::NotInState)
    }

    fn condemn(&mut self, attempt: &str, emergency: bool, now: Timestamp) -> Result<(), Refusal> {
        let slot = self.by_attempt(attempt).ok_or(Refusal::NotInState)?;
        let uid = slot.owner.uid.clone();
        let others = self.owned_by(&uid).filter(|slot| slot.state == SlotState::Live).count() > 1;
        let current = self.current(&uid).and_then(|slot| slot.attempt.as_deref()) == Some(attempt);
        if current && others && !emergency {
            return Err(Refusal::CurrentKey);
        }
        self.enter(attempt, &[SlotState::Lost, SlotState::Live], SlotState::Revoking, now)
    }

    fn bury(&mut self, attempt: &str, owner_lives: bool, now: Timestamp) -> Result<(), Refusal> {
        let slot = self.slot(attempt, &[SlotState::Revoking])?.clone();
        let last_switch = self.last_switch(&slot.owner.uid);
        self.depart(attempt);
        if owner_lives && self.owned_by(&slot.owner.uid).next().is_none() {
            let revision = slot.revision.saturating_add(1);
            self.slots.push(place(&slot.owner, &slot.key_use, revision, last_switch, now));
        }
        // That it was of no use stays with its owner, or the next key would be made without a pause.
        let settled =
            |other: &&mut Slot| other.owner.uid == slot.owner.uid && other.state != SlotState::Unresolved;
        if let Some(stays) = self.slots.iter_mut().find(settled) {
            stays.failures = slot.failures.clone().or(stays.failures.take());
        }
        Ok(())
    }

    fn enter(
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

    fn depart(&mut self, attempt: &str) {
        if let Some(uid) = self.by_attempt(attempt).map(|slot| slot.owner.uid.clone()) {
            let number = self.last_switch(&uid);
            self.slots.retain(|slot| slot.attempt.as_deref() != Some(attempt));
            // A switch number is never used again: one that leaves is kept by a slot that stays.
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

    fn reserved(&self, uid: &str) -> Result<usize, Refusal> {
        self.slots
            .iter()
            .position(|slot| slot.owner.uid == uid && slot.state == SlotState::Reserved)
            .ok_or(Refusal::NotInState)
    }

    fn slot_mut(&mut self, attempt: &str) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.attempt.as_deref() == Some(attempt))
    }

    fn slot(&mut self, attempt: &str, states: &[SlotState]) -> Result<&mut Slot, Refusal> {
        self.slot_mut(attempt).filter(|slot| states.contains(&slot.state)).ok_or(Refusal::NotInState)
    }

    /// The owner's highest switch number so far.
    fn last_switch(&self, uid: &str) -> Option<i64> {
        self.owned_by(uid).flat_map(|slot| [slot.published, slot.last_switch]).flatten().max()
    }
}

/// The live slot with the highest `published` among the slots of one owner.
#[must_use]
pub fn current<'a>(slots: impl IntoIterator<Item = &'a Slot>) -> Option<&'a Slot> {
    slots.into_iter().filter(|slot| slot.state == SlotState::Live).max_by_key(|slot| slot.published)
}

/// Whether a slot holds an open licence (I5).
#[must_use]
pub fn licence_open(slot: &Slot, now: Timestamp, term: Duration) -> bool {
    slot.state == SlotState::Creating
        && now.duration_since(slot.since) < SignedDuration::try_from(term).unwrap_or(SignedDuration::MAX)
}

/// Whether a slot is a place, as it was kept: nothing was ever tried in it.
fn is_fresh(slot: &Slot) -> bool {
    *slot == place(&slot.owner, &slot.key_use, 1, None, slot.since)
}

fn place(owner: &Owner, key_use: &str, revision: i64, last_switch: Option<i64>, now: Timestamp) -> Slot {
    Slot {
        owner: owner.clone(),
        key_use: key_use.to_owned(),
        revision,
        state: SlotState::Reserved,
        attempt: None,
        key_name: None,
        key_id: None,
        published: None,
        last_switch,
        trigger: None,
        switched_back: None,
        since: now,
        failures: None,
    }
}

fn failed(before: Option<&Failures>, reason: &str, now: Timestamp) -> Failures {
    let count = before.map_or(0, |failures| failures.count).saturating_add(1);
    Failures { count, at: now, reason: reason.to_owned() }
}

#[cfg(test)]
pub(crate) mod tests;
