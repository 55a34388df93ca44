//! The arithmetic of slots: what fits into an account. Pure; admission and controllers ask the same functions.
//!
//! Sums saturate: a status may hold any number, and a sum that wrapped around would make room.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use crate::{
    api::{
        BagsAccount, BagsAccountStatus,
        account::{Capability, Capacity, LimitRefusal, Slot, SlotState},
    },
    time::later,
    timings::Timings,
};

/// What an account offers, apart from its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Keys that Bags allows.
    pub limit: i64,
    /// Slots left free for rotations.
    pub rotation_reserve: i64,
    /// Keys made elsewhere; never negative.
    pub unmanaged: i64,
}

/// The parts that `fits_new` adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    steady: i64,
    extra: i64,
    released: i64,
}

impl Room {
    /// The room of an account. Unmanaged keys are counted by its list if it has one, else by its spec; there are more while a
    /// refusal of Bags that showed so is believed, and the account was not edited since. Bags may allow fewer keys than
    /// `spec.limit` says, or count keys that no list shows.
    #[must_use]
    pub fn of(account: &BagsAccount, now: Timestamp, timings: &Timings) -> Self {
        Self::with(account, account.status.as_ref(), now, timings)
    }

    /// The room that an account would have with this status.
    #[must_use]
    pub fn with(
        account: &BagsAccount,
        status: Option<&BagsAccountStatus>,
        now: Timestamp,
        timings: &Timings,
    ) -> Self {
        let lists = status.is_some_and(|status| status.capabilities.list == Capability::Yes);
        let told = if lists {
            status.and_then(|status| status.capacity.as_ref()).map_or(0, |capacity| capacity.unmanaged)
        } else {
            account.spec.unmanaged_keys.unwrap_or(0)
        };
        let refusal = status.and_then(|status| status.refusal.as_ref());
        let edited = |refusal: &LimitRefusal| {
            refusal.generation.is_some() && refusal.generation != account.metadata.generation
        };
        let learnt = refusal.filter(|refusal| believed(refusal, now, timings) && !edited(refusal));
        let learnt = learnt.map_or(0, |refusal| refusal.unmanaged);
        // Fewer than none would make room for more keys than the limit.
        let unmanaged = told.max(learnt).max(0);
        Self { limit: account.limit(), rotation_reserve: account.rotation_reserve(), unmanaged }
    }

    /// Whether one more owner fits: `steady + unmanaged + released + max(rotationReserve, extra) + 1 ≤ limit`.
    /// `ahead` older owners that wait for a slot come first.
    #[must_use]
    pub fn fits_new(&self, slots: &[Slot], ahead: usize) -> bool {
        self.taken(slots).saturating_add(count(ahead)) < self.limit
    }

    /// Whether one more slot of an owner that has slots fits: `used + 1 ≤ limit`.
    #[must_use]
    pub fn fits_extra(&self, slots: &[Slot]) -> bool {
        self.used(slots) < self.limit
    }

    /// Whether the key of a kept place may be made now: keys that exist or may exist, older kept places and this
    /// one stay within the limit. With `used ≤ limit` it is true for every place; over the limit the oldest go first.
    #[must_use]
    pub fn fits_creation(&self, slots: &[Slot], place: &Slot) -> bool {
        let first = slots.iter().filter(|slot| {
            slot.state != SlotState::Reserved
                || (slot.since, &slot.owner.uid) < (place.since, &place.owner.uid)
        });
        count(first.count()).saturating_add(self.unmanaged) < self.limit
    }

    /// Every slot and every unmanaged key.
    #[must_use]
    pub fn used(&self, slots: &[Slot]) -> i64 {
        count(slots.len()).saturating_add(self.unmanaged)
    }

    /// The sums shown to people.
    #[must_use]
    pub fn capacity(&self, slots: &[Slot]) -> Capacity {
        Capacity {
            limit: self.limit,
            used: self.used(slots),
            reserved: self.rotation_reserve.saturating_sub(parts(slots).extra).max(0),
            unmanaged: self.unmanaged,
            available: self.limit.saturating_sub(self.taken(slots)).max(0),
        }
    }

    fn taken(&self, slots: &[Slot]) -> i64 {
        let Parts { steady, extra, released } = parts(slots);
        (steady + released).saturating_add(self.unmanaged).saturating_add(self.rotation_reserve.max(extra))
    }
}

fn parts(slots: &[Slot]) -> Parts {
    let kept: Vec<&Slot> = slots.iter().filter(|slot| slot.state != SlotState::Released).collect();
    let steady = count(kept.iter().map(|slot| slot.owner.uid.as_str()).collect::<BTreeSet<_>>().len());
    Parts { steady, extra: count(kept.len()) - steady, released: count(slots.len() - kept.len()) }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Until when a limit learnt from a refusal is believed: 1, 2, 4 … 24 h (`limit_recheck` doubling).
#[must_use]
pub fn believed_until(refusal: &LimitRefusal, timings: &Timings) -> Timestamp {
    let doublings = u32::try_from(refusal.count.saturating_sub(1).clamp(0, 10)).unwrap_or(10);
    let longest = Duration::from_secs(24 * 3600).max(timings.limit_recheck);
    let term = timings.limit_recheck.saturating_mul(1 << doublings).min(longest);
    later(refusal.at, term)
}

fn believed(refusal: &LimitRefusal, now: Timestamp, timings: &Timings) -> bool {
    now < believed_until(refusal, timings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::slots::tests::{owner, slot};

    fn room(limit: i64, rotation_reserve: i64, unmanaged: i64) -> Room {
        Room { limit, rotation_reserve, unmanaged }
    }

    fn live(n: usize) -> Vec<Slot> {
        (0..n).map(|i| slot(&owner(i), SlotState::Live)).collect()
    }

    #[test]
    fn nine_fit_beside_one_slot_kept_for_rotations() {
        assert!(room(10, 1, 0).fits_new(&live(8), 0));
        assert!(!room(10, 1, 0).fits_new(&live(9), 0));
        assert!(room(10, 0, 0).fits_new(&live(9), 0));
        assert!(!room(10, 0, 0).fits_new(&live(10), 0));
    }

    #[test]
    fn older_waiting_owners_come_first() {
        assert!(room(10, 0, 0).fits_new(&live(8), 1));
        assert!(!room(10, 0, 0).fits_new(&live(8), 2));
    }

    #[test]
    fn a_second_slot_uses_up_the_reserve_and_more_than_the_reserve_counts() {
        let mut slots = live(8);
        slots.push(slot(&owner(0), SlotState::Creating));
        assert_eq!(room(10, 1, 0).capacity(&slots).available, 1);
        slots.push(slot(&owner(1), SlotState::Creating));
        assert_eq!(room(10, 1, 0).capacity(&slots).available, 0);
        assert!(!room(10, 1, 0).fits_extra(&slots));
    }

    #[test]
    fn released_and_unmanaged_keys_count() {
        let mut slots = live(2);
        slots.push(slot(&owner(0), SlotState::Released));
        assert_eq!(
            room(10, 1, 3).capacity(&slots),
            Capacity { limit: 10, used: 6, reserved: 1, unmanaged: 3, available: 3 }
        );
    }

    #[test]
    fn over_the_limit_the_oldest_place_is_served_first() {
        let mut slots = live(8);
        let mut places: Vec<Slot> = (8..10).map(|i| slot(&owner(i), SlotState::Reserved)).collect();
        places[1].since = places[0].since.saturating_add(jiff::SignedDuration::from_secs(1)).unwrap();
        slots.extend(places.clone());
        assert!(room(10, 0, 0).fits_creation(&slots, &places[1]));
        assert!(room(10, 0, 1).fits_creation(&slots, &places[0]));
        assert!(!room(10, 0, 1).fits_creation(&slots, &places[1]));
    }

    #[test]
    fn a_refusal_is_believed_whatever_a_list_shows_and_then_the_list_again() {
        let spec = "{credentials: {agentToken: {secretName: bags}}, limit: 10, unmanagedKeys: 1}";
        let mut account = BagsAccount::new("main", serde_saphyr::from_str(spec).unwrap());
        account.metadata.generation = Some(3);
        let refusal = LimitRefusal { unmanaged: 6, count: 1, generation: Some(3), at: Timestamp::UNIX_EPOCH };
        let unmanaged = |account: &BagsAccount, list, shown, minutes: u64| {
            let mut status =
                BagsAccountStatus { refusal: Some(refusal.clone()), ..BagsAccountStatus::default() };
            status.capabilities.list = list;
            status.capacity.get_or_insert_default().unmanaged = shown;
            let now = Timestamp::UNIX_EPOCH + Duration::from_secs(minutes * 60);
            Room::with(account, Some(&status), now, &Timings::default()).unmanaged
        };
        for (name, list, shown, minutes, expected) in [
            ("more than the list shows", Capability::Yes, 2, 59, 6),
            ("the list shows more", Capability::Yes, 7, 59, 7),
            ("an hour later the list alone", Capability::Yes, 2, 60, 2),
            ("more than the spec says", Capability::No, 0, 59, 6),
            ("an hour later the spec alone", Capability::No, 0, 60, 1),
        ] {
            assert_eq!(unmanaged(&account, list, shown, minutes), expected, "{name}");
        }
        account.metadata.generation = Some(4);
        assert_eq!(unmanaged(&account, Capability::No, 0, 1), 1, "somebody edited the account since");
    }

    #[test]
    fn a_refusal_is_believed_for_1_2_4_up_to_24_hours() {
        let timings = Timings::default();
        let hours = |count| {
            let refusal = LimitRefusal { unmanaged: 1, count, generation: None, at: Timestamp::UNIX_EPOCH };
            believed_until(&refusal, &timings).as_second() / 3600
        };
        assert_eq!([1, 2, 3, 4, 5, 6, 60].map(hours), [1, 2, 4, 8, 16, 24, 24]);
    }
}
