//! The slots of an account and every change that one of them can go through. Pure.
//!
//! A [`Change`] is a line of the table in `docs/architecture.md`. [`Ledger::apply`] checks it against the ledger
//! as it is now, so a change that lost a race is decided again from scratch when it is applied again.

mod transitions;

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::capacity::Room;
use crate::{
    api::{
        BagsAccountStatus,
        account::{Failures, Owner, Slot, SlotState},
    },
    time::{signed, since},
};

/// Failure reason of a slot whose key belongs to another user of Bags.
pub const WRONG_USER: &str = "WrongUser";
/// `failures.reason` of a slot whose key Bags never accepted.
pub const NEVER_ACCEPTED: &str = "NeverAccepted";
/// `failures.reason` of a slot whose key was made and its value not kept.
pub const VALUE_LOST: &str = "ValueLost";
/// So long the last look at the pods holds: whoever stood still after it looks again.
pub const LOOK_HOLDS: Duration = Duration::from_mins(2);
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
    /// (none) → Reserved: a place for an owner's first key, behind `ahead` older owners that wait for one. The unused place that
    /// an earlier try to create an ApiKey of the same name left is removed. `max`: how many owners of the namespace may have
    /// slots, this one included.
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
    /// Live → Live: an older key is published again. `switch`: the last switch when this was decided; refused if another one has
    /// come since.
    SwitchBack { attempt: String, switch: i64 },
    /// Live → Revoking: an earlier key, which no pod can hold since switch `switch`; refused if another switch has come since, or
    /// if the last look at the pods, at `looked_at`, is too long ago.
    Retire { attempt: String, switch: i64, looked_at: Timestamp },
    /// Creating → Reserved (a further slot: → none): definitely not made.
    NotMade { attempt: String, reason: &'static str },
    /// Creating → Revoking: saved, but never to be published.
    Abandon { attempt: String },
    /// Creating → Lost, Unresolved → Lost: the key exists and its value is gone.
    Lose { attempt: String, key_id: Option<String> },
    /// Creating → Unresolved: nobody can tell whether the key exists, or whose it is.
    Doubt { attempt: String, reason: &'static str },
    /// Lost → Revoking, Live → Revoking. `emergency` lifts the protection of the owner's current key. `looked_at`: when it was
    /// last looked at who may use the key; refused if that is too long ago.
    Condemn { attempt: String, emergency: bool, looked_at: Option<Timestamp> },
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
    /// The ledger belongs to another installation: it was taken over since it was read.
    #[error("the ledger belongs to another installation of the operator")]
    Anothers,
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

    /// The ledger as it is for an owner without a slot: without the place that an earlier try to create an ApiKey of the same
    /// name left. Two ApiKeys of one name cannot exist, so one place is enough for all such tries, and the ApiKey that does exist
    /// takes it back. A place in which a key was tried, or refused, stays: its owner did exist.
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
                next = next.reserve(owner, key_use, *ahead, *max, terms)?;
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
            Change::Identify { attempt, key_id } => next.identify(attempt, key_id)?,
            Change::Publish { attempt } => next.publish(attempt, SlotState::Creating, terms.now)?,
            Change::SwitchBack { attempt, switch } => {
                self.superseded(attempt, *switch)?;
                next.publish(attempt, SlotState::Live, terms.now)?;
            }
            Change::Retire { attempt, switch, looked_at } => {
                self.superseded(attempt, *switch)?;
                look_holds(*looked_at, terms.now)?;
                next.enter(attempt, &[SlotState::Live], SlotState::Revoking, terms.now)?;
            }
            Change::NotMade { attempt, reason } => next.not_made(attempt, reason, terms.now)?,
            Change::Abandon { attempt } => {
                next.enter(attempt, &[SlotState::Creating], SlotState::Revoking, terms.now)?;
                next.fails(attempt, NEVER_ACCEPTED, terms.now)?;
            }
            Change::Lose { attempt, key_id } => next.lose(attempt, key_id.as_deref(), terms.now)?,
            Change::Doubt { attempt, reason } => next.doubt(attempt, reason, terms.now)?,
            Change::Condemn { attempt, emergency, looked_at } => {
                if let Some(looked_at) = looked_at {
                    look_holds(*looked_at, terms.now)?;
                }
                next.condemn(attempt, *emergency, terms.now)?;
            }
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

/// Refuses what was decided by a look that is too old: a process that stalled since does not know of a pod that came meanwhile.
fn look_holds(looked_at: Timestamp, now: Timestamp) -> Result<(), Refusal> {
    if since(now, looked_at) < LOOK_HOLDS { Ok(()) } else { Err(Refusal::NotInState) }
}

/// Whether a slot holds an open licence (I5).
#[must_use]
pub fn licence_open(slot: &Slot, now: Timestamp, term: Duration) -> bool {
    slot.state == SlotState::Creating && now.duration_since(slot.since) < signed(term)
}

/// Whether a slot is a kept place in which no key was ever tried.
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
        user: None,
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
