//! The ApiKey's status, computed from what was observed. Pure; written once a run, and only if it differs.

mod rotation;

use super::{
    hold::{Kind, Reason},
    observe::Observation,
};
use crate::api::{
    ApiKeyStatus,
    account::{Slot, SlotState},
    apikey::{Binding, CurrentKey, EffectiveRollout, EffectiveRotation, EffectiveValues, KeySummary},
    condition::{self, kind},
};
use jiff::{SignedDuration, Timestamp};

/// The last use is written at most this often; otherwise each request of an application would become a write.
const LAST_USE_STEP: SignedDuration = SignedDuration::from_hours(1);

/// What a run came to.
pub struct Word<'a> {
    /// As one word.
    pub reason: Reason,
    /// For people.
    pub message: &'a str,
    /// It waits for a second slot of the account, and for nothing else.
    pub starving: bool,
    /// The run ended early, so it is not known what a complete run would have come to.
    pub failed: bool,
}

/// The status after a run (pure).
#[must_use]
pub fn status(o: &Observation, word: &Word<'_>) -> ApiKeyStatus {
    let before = o.key.status.clone().unwrap_or_default();
    let slots = o.slots();
    let current = o.current();
    let ready = current.is_some() && o.published() && !is_problem_of_current(word.reason);
    // Without an account there is no ledger to read: what was known of the keys is all that anybody still has.
    let unknown = o.account.is_none();
    let mut next = ApiKeyStatus {
        observed_generation: o.key.metadata.generation,
        conditions: before.conditions.clone(),
        phase: Some(phase(o, ready).to_owned()),
        current: match unknown {
            true => before.current.clone(),
            false => current.map(|slot| current_key(slot, o, before.current.as_ref())),
        },
        keys: match unknown {
            true => before.keys.clone(),
            false => slots.iter().map(|slot| summary(slot)).collect(),
        },
        hold: rotation::hold(o, word, before.hold.as_ref()),
        next_rotation: rotation::next(o),
        handled_rotate: match unknown {
            true => before.handled_rotate.clone(),
            false => current.and_then(|slot| slot.trigger.clone()),
        },
        switch: rotation::switch(o, before.switch.as_ref()).or(before.switch),
        effective: Some(EffectiveValues {
            application: o.key.application(),
            key_name: o.key.key_name(),
            secret_name: o.key.secret_name(),
            rotation: Some(EffectiveRotation::from(&o.key.rotation())),
            rollout: Some(EffectiveRollout::from(o.key.rollout())),
        }),
        binding: ready.then(|| Binding { name: o.key.secret_name() }).or(before.binding),
    };
    conditions(&mut next, o, word, ready);
    next
}

fn conditions(status: &mut ApiKeyStatus, o: &Observation, word: &Word<'_>, ready: bool) {
    let (generation, now) = (o.key.metadata.generation, o.now);
    let reason = word.reason.as_str();
    let mut set = |type_: &str, value: bool, reason: &str, message: &str| {
        condition::set(&mut status.conditions, type_, value, reason, message.to_owned(), generation, now);
    };
    let settled = word.reason.kind() == Kind::Settled;
    let issued = Reason::Issued.as_str();
    let deleting = o.key.metadata.deletion_timestamp.is_some();
    if ready && !settled && !deleting {
        set(kind::READY, true, issued, &format!("the key works and is in the Secret; {}", word.message));
    } else {
        set(kind::READY, ready, reason, word.message);
    }
    let quota =
        !matches!(word.reason, Reason::QuotaExceeded | Reason::NamespaceQuotaExceeded | Reason::LimitReached);
    match quota {
        true => set(
            kind::QUOTA_AVAILABLE,
            true,
            "SlotAvailable",
            "the account has a slot for this ApiKey, or nothing speaks against one",
        ),
        false => set(kind::QUOTA_AVAILABLE, false, reason, word.message),
    }
    match (o.published(), o.current()) {
        (true, _) => set(kind::SECRET_SYNCED, true, "Synced", "the Secret holds the current key"),
        // An ApiKey whose slots cannot be seen may have a key in its Secret all the same.
        (false, None) if o.is_ledger_unseen() => set(kind::SECRET_SYNCED, false, reason, word.message),
        (false, None) => set(kind::SECRET_SYNCED, false, "NotPublished", "no key has been published yet"),
        (false, Some(_)) => set(kind::SECRET_SYNCED, false, reason, word.message),
    }
    rotation::conditions(&mut status.conditions, o, word);
    // kstatus: these conditions are present only while they are true.
    for (type_, kind) in [(kind::RECONCILING, Kind::Progressing), (kind::STALLED, Kind::Stalled)] {
        match word.reason.kind() == kind {
            true => condition::set(
                &mut status.conditions,
                type_,
                true,
                reason,
                word.message.to_owned(),
                generation,
                now,
            ),
            false => condition::remove(&mut status.conditions, type_),
        }
    }
}

/// Reasons that speak against the current key itself, not against a next one.
fn is_problem_of_current(reason: Reason) -> bool {
    matches!(reason, Reason::SecretConflict | Reason::SecretRefused)
}

fn phase(o: &Observation, ready: bool) -> &'static str {
    let slots = o.slots();
    let any = |state: SlotState| slots.iter().any(|slot| slot.state == state);
    if o.key.metadata.deletion_timestamp.is_some() {
        return "Deleting";
    }
    match o.creating.as_ref().map(|creating| creating.saved.is_some()) {
        Some(true) => "Verifying",
        Some(false) => "Creating",
        None if ready => rotation::phase(o).unwrap_or("Ready"),
        None if any(SlotState::Live) => "Publishing",
        None if any(SlotState::Unresolved) => "Unresolved",
        None if any(SlotState::Revoking) || any(SlotState::Lost) => "Revoking",
        None => "Pending",
    }
}

fn current_key(slot: &Slot, o: &Observation, before: Option<&CurrentKey>) -> CurrentKey {
    let attempt = slot.attempt.clone().unwrap_or_default();
    let known = before.filter(|before| before.attempt == attempt).and_then(|before| before.last_used_at);
    CurrentKey {
        revision: slot.revision,
        key_id: slot.key_id.clone(),
        key_name: slot.key_name.clone().unwrap_or_default(),
        published_at: Some(to_seconds(slot.since)),
        last_used_at: last_used(known, o.last_used.map(to_seconds)),
        attempt,
    }
}

/// The later of the two times, but the known one while the other is less than an hour later.
fn last_used(known: Option<Timestamp>, seen: Option<Timestamp>) -> Option<Timestamp> {
    match (known, seen) {
        (Some(known), Some(seen)) if seen.duration_since(known) >= LAST_USE_STEP => Some(seen),
        (Some(known), _) => Some(known),
        (None, seen) => seen,
    }
}

fn summary(slot: &Slot) -> KeySummary {
    KeySummary {
        state: slot.state.as_str().to_owned(),
        revision: slot.revision,
        attempt: slot.attempt.clone(),
        key_id: slot.key_id.clone(),
        key_name: slot.key_name.clone(),
        since: to_seconds(slot.since),
    }
}

/// What the API server will give back for a time in whole seconds, so that a comparison with it holds.
fn to_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests;
