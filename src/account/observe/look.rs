//! One slot, with everything that is known of it.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{CLOCKS_APART, ListSeen, OwnerSeen, SlotSeen, Stored, place_of};
use crate::{
    account::{
        lists::{self, Lists, Since, Snapshot, Verdict},
        memory::{Entered, KeyMemory},
    },
    api::account::{Slot, SlotState},
    keystore::Entry,
    ledger::Ledger,
    time::signed,
    timings::Timings,
};

/// What a slot is looked at with.
pub(super) struct Look<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) lists: &'a Lists,
    pub(super) timings: &'a Timings,
    pub(super) entered: &'a HashMap<String, Entered>,
    pub(super) departed: &'a HashMap<String, Instant>,
    pub(super) now: Instant,
    pub(super) wall: Timestamp,
}

impl Look<'_> {
    pub(super) fn slot(
        &self,
        slot: &Slot,
        memory: KeyMemory,
        stored: Stored,
        entry: Option<&Entry>,
        running: bool,
        owner: OwnerSeen,
    ) -> SlotSeen {
        let entered = self.entered.get(place_of(slot));
        let since = self.asked_since(slot, entered, &memory, stored == Stored::Value);
        let (shown_wall, shown_surely) = self.shown_after_licence(slot, entered);
        let entered = entered.map_or(self.now, |entered| entered.at);
        let verdict = match slot.state {
            SlotState::Revoking | SlotState::Released => {
                self.lists.absence(slot, since, self.now, self.timings)
            }
            SlotState::Creating | SlotState::Unresolved => {
                self.lists.verdict(slot, since, self.now, self.timings)
            }
            SlotState::Reserved | SlotState::Live | SlotState::Lost | SlotState::Unknown(_) => {
                Verdict::NotCovered
            }
        };
        // A list that would not count yet is not worth a request.
        let verdict = match verdict {
            Verdict::Undecided { wait } => {
                Verdict::Undecided { wait: wait.max(since.admits_in(self.now, self.wall)) }
            }
            Verdict::Shown { .. } | Verdict::Absent | Verdict::NotCovered => verdict,
        };
        let last = self.lists.last();
        let listed_id = || {
            let id = last.and_then(|list| lists::id_of(&list.keys, slot))?;
            let value = entry.and_then(Entry::value);
            // A key id appears in the status: one that tells the key's value, or a part of it, is not taken (I7).
            (!value.is_some_and(|value| value.is_told_by(&id))).then_some(id)
        };
        let stored_id = || entry.and_then(Entry::key_id).map(str::to_owned);
        let key_id = slot.key_id.clone().or_else(stored_id).or_else(listed_id);
        let current = self.ledger.current(&slot.owner.uid).is_some_and(|now| now.attempt == slot.attempt);
        let listed_since = last.is_some_and(|list| since.admits(list));
        let lacks = |list: &Snapshot| lists::find(&list.keys, slot).is_none();
        let unlisted =
            last.is_some_and(|list| memory.good.is_some_and(|good| list.at >= good) && lacks(list));
        let lacking =
            last.is_some_and(|list| (list.wall >= shown_wall || list.at >= shown_surely) && lacks(list));
        SlotSeen {
            slot: slot.clone(),
            memory,
            stored,
            running,
            owner,
            watched: self.now.saturating_duration_since(entered),
            current,
            verdict,
            listed_since,
            unlisted,
            lacking,
            key_id,
        }
    }

    /// From when on lists count for the question that a slot's state asks; earlier ones say nothing about it.
    fn asked_since(&self, slot: &Slot, seen: Option<&Entered>, memory: &KeyMemory, value: bool) -> Since {
        let entered = seen.map_or(self.now, |seen| seen.at);
        let (shown_wall, shown_surely) = self.shown_after_licence(slot, seen);
        let acknowledged = memory.acknowledged.map(|at| {
            let ago = self.now.saturating_duration_since(at);
            self.wall.saturating_sub(signed(ago)).unwrap_or(Timestamp::MIN)
        });
        match slot.state {
            SlotState::Creating => {
                let (wall, surely) = self.shown_from(slot.since, entered);
                Since { wall, entered, surely }
            }
            SlotState::Revoking => {
                let wall = slot.since.max(acknowledged.unwrap_or(Timestamp::MIN));
                let surely = memory.acknowledged.map_or(entered, |at| at.max(entered));
                // A key that once worked shows by its own 401 that it is dead; lists only have to agree.
                if value && (slot.published.is_some() || memory.good.is_some()) {
                    return Since { wall, entered, surely };
                }
                // A key that Bags has not accepted yet may be too young for the lists, and could come to life after its slot is
                // free. If its value is lost, nothing but lists shows that it is gone.
                Since { wall: wall.max(shown_wall), entered, surely: surely.max(shown_surely) }
            }
            // Nothing but lists tells of a key that was left to people, and it may be too young for them.
            SlotState::Released => {
                Since { wall: slot.since.max(shown_wall), entered, surely: entered.max(shown_surely) }
            }
            SlotState::Reserved
            | SlotState::Live
            | SlotState::Lost
            | SlotState::Unresolved
            | SlotState::Unknown(_) => Since { wall: slot.since, entered, surely: entered },
        }
    }

    /// From when on every list shows a slot's key: its licence is no later than the first state that this process saw the slot
    /// in.
    fn shown_after_licence(&self, slot: &Slot, seen: Option<&Entered>) -> (Timestamp, Instant) {
        let (first_since, first_at) =
            seen.map_or((slot.since, self.now), |seen| (seen.first_since, seen.first_at));
        self.shown_from(first_since, first_at)
    }

    /// From when on every list shows a key whose licence was no later than `since`, nor than `seen`: by the wall clock, and by
    /// the monotonic clock.
    fn shown_from(&self, since: Timestamp, seen: Instant) -> (Timestamp, Instant) {
        let judge_after = self.timings.judge_after;
        let wall = since.saturating_add(signed(judge_after + CLOCKS_APART)).unwrap_or(Timestamp::MAX);
        (wall, seen + judge_after)
    }

    pub(super) fn list(&self, mark: &str) -> Option<ListSeen> {
        let last = self.lists.last()?;
        let unmanaged = lists::unmanaged(&last.keys, last.at, self.ledger, self.departed);
        let mark = format!("-{mark}-");
        let marked = unmanaged.iter().filter(|key| key.name.contains(&mark));
        Some(ListSeen {
            at: last.at,
            coverage: last.coverage,
            shows_live: lists::shows_live(&last.keys, self.ledger, last.wall, self.timings),
            stray: marked.map(|key| key.name.clone()).take(10).collect(),
            unmanaged: i64::try_from(unmanaged.len()).unwrap_or(i64::MAX),
        })
    }
}
