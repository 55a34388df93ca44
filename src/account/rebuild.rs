//! Rebuilds from the keystore a ledger that was lost with the account's status. Pure.
//!
//! A ledger that is nobody's (`status.installation` is missing) belongs to a new account, or to one whose status was lost: by a
//! restore that leaves status out, or by a person. An empty ledger that is taken over is treated the same way: another
//! installation, which has no keystore Secrets of the account, may have taken the lost ledger first. The keystore tells new from
//! lost: it has a Secret for every attempt from before its licence to its proven death. So before the first write to such a
//! ledger every keystore Secret of the account gets its slot back, in that very write: nothing can be licensed before it, and
//! nothing that exists is forgotten.
//!
//! - A value that answers 200 is a key that may be in use: its slot is `Live`, unless the consumer Secret shows that it
//!   was never published; then it is `Creating`, and goes the way of any new key. After a switch back to an older key the
//!   newer one counts as published: pods may hold it.
//! - A Secret without a value may belong to a creation of unknown outcome: its slot is `Creating`, and it is judged. If the
//!   consumer Secret holds its key, the key was published, and only the keystore has lost the value: its slot is `Live`.
//! - A Secret that is marked as left to people (`deletionPolicy: Orphan`) stays so: its slot is `Released`. Its ApiKey is missing
//!   on purpose, and its key would be revoked with its namespace.
//! - A value that answers 401 for long, while another key of the account is accepted, belongs to a dead key: its Secret is
//!   deleted.
//! - A value that answers 401 for as long while no other key is accepted, or that answers neither 200 nor 401, may work again:
//!   the service, or the user, may be unavailable. It is put back like one that answers 200.
//!
//! The account's user is the one that its spec expects, else the one whose keys the consumer Secrets hold, else the one of most
//! keys. If that is a tie, a person has to name the user: after a wrong guess only keys of the wrong user would be kept in use.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{
    decide::{Decision, Effect, Look, Turn, first, look, nobodys, pending},
    memory::KeyMemory,
    observe::Observation,
    status::some_of,
};
use crate::{
    api::account::{Failures, Installation, Owner, Slot, SlotState},
    consumer_secret::Written,
    ledger::WRONG_USER,
    time::earlier,
};

/// A keystore Secret of an account whose ledger is nobody's, read live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remnant {
    pub(super) owner: Owner,
    pub(super) key_use: String,
    /// The token that asked for its key.
    pub(super) trigger: Option<String>,
    pub(super) key_name: Option<String>,
    pub(super) key_id: Option<String>,
    pub(super) revision: i64,
    pub(super) attempt: String,
    /// It holds a value.
    pub(super) value: bool,
    /// It is marked as left to people.
    pub(super) released: bool,
    pub(super) created: Option<Timestamp>,
    pub(super) installation: Option<Installation>,
    /// What the owner's consumer Secret says: the switch that wrote it.
    pub(super) published: Option<Written>,
    /// What this process saw of the key.
    pub(super) memory: KeyMemory,
}

impl Remnant {
    /// Its owner's consumer Secret holds its key.
    fn is_shown(&self) -> bool {
        self.published.as_ref().is_some_and(|switch| switch.attempt == self.attempt)
    }

    /// Its key may be in use. What the consumer Secret holds was published, even if the keystore has lost the value.
    fn may_be_used(&self) -> bool {
        self.value || self.is_shown()
    }
}

/// The first write to a ledger that is nobody's: with the slots that it must have.
pub(super) fn pin(seen: &Observation) -> Turn {
    // It is not known which of the keys were published: a guess might take a key for unpublished that pods hold.
    if seen.unread.is_some() {
        return Turn::Nothing;
    }
    let Some(remnants) = &remnants(seen) else { return look(Look::Remnants) };
    let values = remnants.iter().filter(|remnant| remnant.value);
    let unasked = first(values.map(|remnant| ask(seen, remnants, remnant)));
    if !matches!(unasked, Turn::Nothing) {
        return unasked;
    }
    let Ok(user) = user(seen, remnants) else { return Turn::Nothing };
    // If the Secrets were made by another installation, its keystore was restored here, and the ledger is given to that
    // installation, so that a person decides who goes on with it. In a take-over the person has decided already.
    let theirs = remnants.iter().find_map(|remnant| remnant.installation.clone());
    let installation = theirs.filter(|_| nobodys(seen)).unwrap_or_else(|| seen.installation.clone());
    let slots = slots(seen, remnants, user);
    // A user of whom no key is left is not known to be this account's.
    let known = user.filter(|user| users(remnants.iter()).contains(user)).map(str::to_owned);
    Turn::Now(Decision::Act(Effect::Pin { installation, user: known, slots }))
}

/// What was found in the keystore, without the attempts that an emptied ledger still knows to have left it: their Secrets are
/// cleared away later.
fn remnants(seen: &Observation) -> Option<Vec<Remnant>> {
    let left = |remnant: &&Remnant| !seen.departed.contains(&remnant.attempt);
    seen.remnants.as_ref().map(|remnants| remnants.iter().filter(left).cloned().collect())
}

/// No user of Bags is more likely the account's than another.
struct Ambiguous;

/// Whose keys the account's are; `None`: no key has told.
fn user<'a>(seen: &'a Observation, remnants: &'a [Remnant]) -> Result<Option<&'a str>, Ambiguous> {
    if let Some(expected) = seen.account.spec.expected_user.as_deref().filter(|user| !user.is_empty()) {
        return Ok(Some(expected));
    }
    let in_use = users(remnants.iter().filter(|remnant| remnant.is_shown()));
    let votes = if in_use.is_empty() { users(remnants.iter()) } else { in_use };
    let count = |user: &str| votes.iter().filter(|vote| **vote == user).count();
    let most = votes.iter().map(|user| count(user)).max().unwrap_or_default();
    let mut likely: Vec<&str> = votes.iter().copied().filter(|user| count(user) == most).collect();
    likely.dedup();
    match likely.as_slice() {
        [] => Ok(None),
        [user] => Ok(Some(user)),
        _ => Err(Ambiguous),
    }
}

/// The users that these keys told, in order, each as often as a key told it.
fn users<'a>(remnants: impl Iterator<Item = &'a Remnant>) -> Vec<&'a str> {
    let mut users: Vec<&str> = remnants.filter_map(|remnant| remnant.memory.user.as_deref()).collect();
    users.sort_unstable();
    users
}

/// Why the slots of a ledger that was lost are not put back yet: as one word, and for people.
pub(super) fn waits_for(seen: &Observation) -> Option<(&'static str, String)> {
    if let Some(unread) = seen.unread.as_ref().filter(|_| pending(seen)) {
        let message = format!(
            "the ledger was lost; it is put together again from the operator's own Secrets and from those of the ApiKeys, which say what \
             was published, and nothing is made or revoked before: {unread}"
        );
        return Some(("LedgerLost", message));
    }
    let remnants = &remnants(seen).filter(|remnants| !remnants.is_empty() && pending(seen))?;
    let unasked =
        |remnant: &&Remnant| remnant.value && !matches!(ask(seen, remnants, remnant), Turn::Nothing);
    let keys = remnants.iter().filter(unasked).map(|remnant| format!("bags-key-{}", remnant.attempt));
    let keys: Vec<String> = keys.collect();
    let namespace = &seen.installation.namespace;
    if !keys.is_empty() {
        let message = format!(
            "the ledger was lost; it is put together again from the Secrets in namespace \"{namespace}\", and nothing is made or \
             revoked until Bags has answered for the value in {}",
            some_of(keys)
        );
        return Some(("LedgerLost", message));
    }
    user(seen, remnants).is_err().then(|| {
        let mut users = users(remnants.iter());
        users.dedup();
        let message = format!(
            "the ledger was lost, and the Secrets in namespace \"{namespace}\" hold as many keys of one user of Bags as of another \
             ({}): set spec.expectedUser of this account to the right one; nothing is made or revoked until then",
            users.join(", ")
        );
        ("UserAmbiguous", message)
    })
}

/// What has to be asked of a key before its slot is put back.
fn ask(seen: &Observation, remnants: &[Remnant], remnant: &Remnant) -> Turn {
    let KeyMemory { refused_since, unclear_since, refusals, probed, probe_after, .. } = remnant.memory;
    if works(remnant) {
        return Turn::Nothing;
    }
    let span = seen.timings.death_without_control;
    let unclear_for = unclear_since.zip(probed).map(|(since, last)| last.saturating_duration_since(since));
    if unclear_for.is_some_and(|unclear| unclear >= span) {
        return Turn::Nothing;
    }
    let refused_for = refused_since.zip(probed).map(|(since, last)| last.saturating_duration_since(since));
    if unclear_since.is_none() && refusals >= 3 && refused_for.is_some_and(|refused| refused >= span) {
        return refused(seen, remnants, remnant);
    }
    // Asked again after half of the time that three answers must span.
    let again = probed.map(|last| last + span / 2);
    at(seen, again.max(probe_after), Look::Probe(remnant.attempt.clone()))
}

/// Whether a key answered 200 when it was last asked.
fn works(remnant: &Remnant) -> bool {
    let KeyMemory { good, refused_since, unclear_since, .. } = remnant.memory;
    good.is_some() && good >= refused_since.max(unclear_since)
}

/// A key that was refused for long is dead if another key was accepted then, and this one was refused once more. Otherwise Bags
/// may have refused every key, and to delete the Secrets would lose the values of keys that work. Another installation's Secrets
/// stay in any case.
fn refused(seen: &Observation, remnants: &[Remnant], remnant: &Remnant) -> Turn {
    if remnant.installation.as_ref().is_some_and(|made_by| *made_by != seen.installation) {
        return Turn::Nothing;
    }
    let KeyMemory { refused_since, probed, probe_after, .. } = remnant.memory;
    let long = refused_since.map(|since| since + seen.timings.death_without_control);
    let mut others = remnants.iter().filter(|other| other.attempt != remnant.attempt && works(other));
    if others.clone().any(|other| other.memory.good >= long && other.memory.good <= probed) {
        if seen.uncleared.contains(&remnant.attempt) {
            return Turn::In(seen.timings.resync);
        }
        return Turn::Now(Decision::Act(Effect::Clear(remnant.attempt.clone())));
    }
    if others.clone().any(|other| other.memory.good > probed) {
        return at(seen, probe_after, Look::Probe(remnant.attempt.clone()));
    }
    others
        .next()
        .map_or(Turn::Nothing, |other| at(seen, other.memory.probe_after, Look::Probe(other.attempt.clone())))
}

fn at(seen: &Observation, due: Option<tokio::time::Instant>, then: Look) -> Turn {
    let wait = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(seen.now));
    if wait.is_zero() { look(then) } else { Turn::In(wait) }
}

fn slots(seen: &Observation, remnants: &[Remnant], user: Option<&str>) -> Vec<Slot> {
    let of_another = |remnant: &Remnant| {
        remnant.value && remnant.memory.user.as_deref().is_some_and(|theirs| Some(theirs) != user)
    };
    // Only the newest creation may still be under way: an account has one open licence at most (I5).
    let awaits = |remnant: &&Remnant| !remnant.may_be_used() && !remnant.released;
    let newest = remnants.iter().filter(awaits).max_by_key(|remnant| remnant.created);
    let mut by_owner: BTreeMap<&str, Vec<&Remnant>> = BTreeMap::new();
    for remnant in remnants {
        by_owner.entry(&remnant.owner.uid).or_default().push(remnant);
    }
    let mut slots = Vec::new();
    for mut own in by_owner.into_values() {
        own.sort_by_key(|remnant| (remnant.revision, remnant.created));
        let shown = own.iter().find_map(|remnant| remnant.published.clone());
        let current = shown.as_ref().and_then(|switch| own.iter().find(|it| it.attempt == switch.attempt));
        let current = current.map(|remnant| (remnant.attempt.clone(), remnant.revision, remnant.created));
        // Each key is switched to once, so a switch number above the key's revision is that of a switch back, from a newer key
        // that pods may hold. If attempts failed before, each of which took a revision, the number of a switch back may be no
        // higher: a switch is also one if it is younger than a newer key.
        let back = shown.as_ref().zip(current.as_ref()).is_some_and(|(switch, now)| switch.number > now.1);
        let switched_at = shown.as_ref().and_then(|switch| switch.at);
        let before_switch = |remnant: &Remnant| {
            remnant.created.zip(switched_at).is_some_and(|(created, switched)| created < switched)
        };
        let live = |remnant: &&&Remnant| {
            let newer = current.as_ref().is_some_and(|(_, revision, created)| {
                (remnant.revision, remnant.created) > (*revision, *created)
            });
            remnant.may_be_used() && (back || !newer || before_switch(remnant)) && !of_another(remnant)
        };
        // The newest one's: whoever went back to an older key has had the rotation that was asked for.
        let last = own.iter().rfind(|remnant| remnant.may_be_used());
        let answered = last.and_then(|remnant| remnant.trigger.clone());
        // Keys that were left to people had been published as well.
        let switched = own.iter().filter(|remnant| remnant.released || live(remnant)).count();
        let count = i64::try_from(switched).unwrap_or(i64::MAX);
        let living = own.iter().filter(|remnant| !remnant.released && live(remnant)).count();
        // The key that the consumer Secret holds gets the highest number.
        own.sort_by_key(|remnant| current.as_ref().is_some_and(|(attempt, ..)| *attempt == remnant.attempt));
        let mut number = shown.map_or(0, |switch| switch.number).max(count) - count;
        for remnant in &own {
            let state = match (remnant.released, live(&remnant), of_another(remnant)) {
                (true, _, _) => SlotState::Released,
                (false, true, _) => SlotState::Live,
                (false, false, true) => SlotState::Unresolved,
                (false, false, false) => SlotState::Creating,
            };
            number += i64::from(was_published(&state));
            let open = newest.is_some_and(|newest| newest.attempt == remnant.attempt);
            let trigger = if state == SlotState::Live { &answered } else { &remnant.trigger };
            let put_back = slot(seen, remnant, state, number, open);
            // If two keys are live, nobody knows which of them pods were given meanwhile: both count from now on.
            let only = living == 1 && put_back.state == SlotState::Live;
            let since = switched_to(remnant).filter(|_| only).map_or(put_back.since, |at| at.min(seen.wall));
            slots.push(Slot { trigger: trigger.clone(), since, ..put_back });
        }
    }
    slots
}

/// When the consumer Secret's key became the current one, as that Secret says, but no earlier than the key was made. If it
/// counted from now on, the key would be rotated that much later.
fn switched_to(remnant: &Remnant) -> Option<Timestamp> {
    let switch = remnant.published.as_ref().filter(|switch| switch.attempt == remnant.attempt)?;
    Some(switch.at?.max(remnant.created?))
}

/// Only a published key can be left to people.
fn was_published(state: &SlotState) -> bool {
    *state == SlotState::Live || *state == SlotState::Released
}

fn slot(seen: &Observation, remnant: &Remnant, state: SlotState, number: i64, open: bool) -> Slot {
    let past = earlier(seen.wall, seen.timings.licence_term);
    let wrong = state == SlotState::Unresolved;
    Slot {
        owner: remnant.owner.clone(),
        key_use: remnant.key_use.clone(),
        revision: remnant.revision,
        attempt: Some(remnant.attempt.clone()),
        key_name: remnant.key_name.clone(),
        key_id: remnant.key_id.clone(),
        published: was_published(&state).then_some(number),
        last_switch: None,
        trigger: None,
        user: remnant.memory.user.clone(),
        switched_back: None,
        since: if state == SlotState::Creating && !open { past } else { seen.wall },
        failures: wrong.then(|| Failures { count: 1, at: seen.wall, reason: WRONG_USER.to_owned() }),
        state,
    }
}

#[cfg(test)]
mod tests;
