//! A ledger that was lost with the account's status, put together again from the keystore. Pure.
//!
//! Nobody's ledger (`status.installation` is missing) is a new account's, or one whose status was lost: by a restore
//! that leaves status out, or by a person. The keystore tells which: it has a Secret for every attempt from before its
//! licence to its proven death. So before the first write to such a ledger every keystore Secret of the account gets
//! its slot back, in that very write: nothing can be licensed before it, and nothing that exists is forgotten.
//!
//! - A value that answers 200 is a key that may be in use: its slot is `Live`, unless the consumer Secret shows that it
//!   was never published; then it is `Creating`, and goes the way of any new key.
//! - An empty one may belong to a creation of unknown outcome: its slot is `Creating`, and it is judged.
//! - A value that answers 401 for long while the service is there is of a key that is dead: it goes.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{
    decide::{Decision, Effect, Look, Turn, first, look, nobodys},
    memory::KeyMemory,
    observe::{Observation, signed},
    status::some_of,
};
use crate::{
    api::account::{Failures, Installation, Owner, Slot, SlotState},
    ledger::WRONG_USER,
};

/// A keystore Secret of an account whose ledger is nobody's, read live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remnant {
    pub(super) owner: Owner,
    pub(super) key_use: String,
    pub(super) key_name: Option<String>,
    pub(super) key_id: Option<String>,
    pub(super) revision: i64,
    pub(super) attempt: String,
    /// It holds a value.
    pub(super) value: bool,
    pub(super) created: Option<Timestamp>,
    pub(super) installation: Option<Installation>,
    /// What the owner's consumer Secret says: number and attempt of the switch that wrote it.
    pub(super) published: Option<(i64, String)>,
    /// What this process saw of the key.
    pub(super) memory: KeyMemory,
}

/// The first write to a ledger that is nobody's: with the slots that it must have.
pub(super) fn pin(seen: &Observation) -> Turn {
    let Some(remnants) = &seen.remnants else { return look(Look::Remnants) };
    let unasked = first(remnants.iter().filter(|remnant| remnant.value).map(|remnant| ask(seen, remnant)));
    if !matches!(unasked, Turn::Nothing) {
        return unasked;
    }
    // Another installation's keystore came here with its Secrets: a person says who goes on with it.
    let theirs = remnants.iter().find_map(|remnant| remnant.installation.clone());
    let installation = theirs.unwrap_or_else(|| seen.installation.clone());
    let user = remnants.iter().find_map(|remnant| remnant.memory.user.clone());
    Turn::Now(Decision::Act(Effect::Pin { installation, user, slots: slots(seen, remnants) }))
}

/// Why the slots of a ledger that was lost are not put back yet, in words.
pub(super) fn waits_for(seen: &Observation) -> Option<String> {
    let remnants = seen.remnants.as_ref().filter(|remnants| !remnants.is_empty() && nobodys(seen))?;
    let unasked = |remnant: &&Remnant| remnant.value && !matches!(ask(seen, remnant), Turn::Nothing);
    let keys = remnants.iter().filter(unasked).map(|remnant| format!("bags-key-{}", remnant.attempt));
    let keys: Vec<String> = keys.collect();
    Some(format!(
        "the ledger was lost; it is put together again from the Secrets in namespace \"{}\", and nothing is made or revoked \
         until Bags has answered for the value in {}",
        seen.installation.namespace,
        some_of(keys)
    ))
}

/// What has to be asked of a key before its slot is put back.
fn ask(seen: &Observation, remnant: &Remnant) -> Turn {
    let KeyMemory { good, refused_since, refusals, probed, probe_after, .. } = remnant.memory;
    if good.is_some() && good >= refused_since {
        return Turn::Nothing;
    }
    let span = seen.timings.death_without_control;
    let refused_for = refused_since.zip(probed).map(|(since, last)| last.saturating_duration_since(since));
    if refusals >= 3 && refused_for.is_some_and(|refused| refused >= span) {
        return match seen.facts.pinged >= probed {
            true => Turn::Now(Decision::Act(Effect::Clear(remnant.attempt.clone()))),
            false => at(seen, seen.facts.ping_after, Look::Ping),
        };
    }
    // Asked again after half of the time that three answers must span.
    let again = probed.map(|last| last + span / 2);
    at(seen, again.max(probe_after), Look::Probe(remnant.attempt.clone()))
}

fn at(seen: &Observation, due: Option<tokio::time::Instant>, then: Look) -> Turn {
    let wait = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(seen.now));
    if wait.is_zero() { look(then) } else { Turn::In(wait) }
}

fn slots(seen: &Observation, remnants: &[Remnant]) -> Vec<Slot> {
    let user = remnants.iter().find_map(|remnant| remnant.memory.user.as_deref());
    let expected = seen.account.spec.expected_user.as_deref().filter(|user| !user.is_empty()).or(user);
    // One creation may still be under way; no other can be: that would have taken the same licence.
    let newest = remnants.iter().filter(|remnant| !remnant.value).max_by_key(|remnant| remnant.created);
    let mut by_owner: BTreeMap<&str, Vec<&Remnant>> = BTreeMap::new();
    for remnant in remnants {
        by_owner.entry(&remnant.owner.uid).or_default().push(remnant);
    }
    let mut slots = Vec::new();
    for mut own in by_owner.into_values() {
        own.sort_by_key(|remnant| (remnant.revision, remnant.created));
        let shown = own.iter().find_map(|remnant| remnant.published.clone());
        let current = shown.as_ref().and_then(|(_, attempt)| own.iter().find(|it| it.attempt == *attempt));
        let current = current.map(|remnant| (remnant.revision, remnant.created));
        let live = |remnant: &&&Remnant| {
            let newer = current.is_some_and(|current| (remnant.revision, remnant.created) > current);
            remnant.value && !newer && remnant.memory.user.as_deref() == expected
        };
        let count = i64::try_from(own.iter().filter(live).count()).unwrap_or(i64::MAX);
        let mut number = shown.map_or(0, |(number, _)| number).max(count) - count;
        for remnant in &own {
            let state = match (live(&remnant), remnant.value) {
                (true, _) => SlotState::Live,
                (false, true) if remnant.memory.user.as_deref() != expected => SlotState::Unresolved,
                (false, _) => SlotState::Creating,
            };
            number += i64::from(state == SlotState::Live);
            let open = newest.is_some_and(|newest| newest.attempt == remnant.attempt);
            slots.push(slot(seen, remnant, state, number, open));
        }
    }
    slots
}

fn slot(seen: &Observation, remnant: &Remnant, state: SlotState, number: i64, open: bool) -> Slot {
    let past = seen.wall.saturating_sub(signed(seen.timings.licence_term)).unwrap_or(seen.wall);
    let wrong = state == SlotState::Unresolved;
    Slot {
        owner: remnant.owner.clone(),
        key_use: remnant.key_use.clone(),
        revision: remnant.revision,
        attempt: Some(remnant.attempt.clone()),
        key_name: remnant.key_name.clone(),
        key_id: remnant.key_id.clone(),
        published: (state == SlotState::Live).then_some(number),
        last_switch: None,
        trigger: None,
        switched_back: None,
        since: if state == SlotState::Creating && !open { past } else { seen.wall },
        failures: wrong.then(|| Failures { count: 1, at: seen.wall, reason: WRONG_USER.to_owned() }),
        state,
    }
}

#[cfg(test)]
mod tests;
