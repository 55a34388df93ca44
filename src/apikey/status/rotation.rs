//! What the status says of a rotation. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Word, to_seconds};
use crate::{
    api::{
        account::SlotState,
        apikey::{HoldStatus, Switch},
        condition::{self, kind},
    },
    apikey::{
        decide::rotation::{Due, due, ends_schedule, missed},
        hold::Reason,
        observe::Observation,
        schedule::{Schedule, next_rotation},
    },
    bags::Probe,
    workload::{Owner, mark_value},
};

const REVOKING: &str = "the old key is being revoked; the BagsAccount says whether a person has to act";
const REVOKED: &str = "no earlier key of this ApiKey works any more";
/// At most this many workloads are named.
const MARKED: usize = 200;

/// Where a rotation is; `None`: there is none.
pub(super) fn phase(o: &Observation) -> Option<&'static str> {
    if !o.superseded().is_empty() {
        return Some(match &o.pods {
            Some(pods) if pods.scan.is_clean() => "Overlapping",
            // This run did not look at the pods: the time that an earlier look left in the status tells.
            None if o.clean_since().is_some() => "Overlapping",
            Some(_) | None => "Restarting",
        });
    }
    is_revoking_old(o).then_some("RevokingOld")
}

/// Whether a key that was in use is being revoked. A next key that was never published is not an old one.
fn is_revoking_old(o: &Observation) -> bool {
    o.slots().iter().any(|slot| slot.state == SlotState::Revoking && slot.published.is_some())
}

/// The last switch, where the Secret shows it. What an earlier look at the pods found stays until the next look: nothing else
/// tells since when no pod has been seen with another value.
pub(super) fn switch(o: &Observation, before: Option<&Switch>) -> Option<Switch> {
    let slot = o.current().filter(|_| o.published())?;
    let (count, attempt) = (slot.published?, slot.attempt.clone()?);
    let before = before.filter(|before| before.count == count);
    let open = !o.superseded().is_empty();
    let settled = o.switched_at().is_some_and(|at| o.settles_in(at).is_zero());
    // If Bags does not accept the current key, the two keys are not valid side by side, and where it refuses the whole user,
    // calls with the old key are not seen either.
    let let_in = match &o.current_probe {
        Some(probe) => matches!(probe, Probe::Alive { .. }),
        None => o.current_failure.is_none(),
    };
    let clean_since = match &o.pods {
        Some(pods) if open && settled && let_in && pods.scan.is_clean() => {
            o.clean_since().or_else(|| next_second(o.now))
        }
        Some(_) if open => None,
        Some(_) | None => o.clean_since(),
    };
    let marked = match &o.pods {
        Some(_) if open => marked(o, count),
        Some(_) | None => before.map(|before| before.marked.clone()).unwrap_or_default(),
    };
    let at = o.switched_at().map_or(slot.since, |at| at);
    let used = o.uses.and_then(|uses| uses.previous).map(to_seconds);
    let used = used.filter(|used| clean_since.is_some_and(|clean_since| *used > clean_since));
    let old_key_used_at = used.max(before.and_then(|before| before.old_key_used_at));
    Some(Switch { count, attempt, at: to_seconds(at), clean_since, old_key_used_at, marked })
}

/// The whole second after a time. Rounded down, the time would make an earlier use that a list shows look like a later one.
fn next_second(time: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(time.as_second().saturating_add(1)).ok()
}

/// Workloads that carry the mark of the switch.
fn marked(o: &Observation, number: i64) -> Vec<String> {
    let mark = mark_value(&o.owner.uid, number);
    let consumers = o.pods.iter().flat_map(|pods| &pods.consumers);
    let marked = consumers.filter_map(|consumer| {
        let workload = consumer.workload.as_ref()?;
        let Owner::Workload(reference) = &consumer.owner else { return None };
        (workload.mark(&o.owner.name) == Some(&mark))
            .then(|| format!("{}/{}", reference.kind.as_str(), reference.name))
    });
    marked.take(MARKED).collect()
}

/// Why a rotation does not go on by itself.
pub(super) fn hold(o: &Observation, word: &Word<'_>, before: Option<&HoldStatus>) -> Option<HoldStatus> {
    let fed = |before: &HoldStatus| before.waits_for_slot && (o.has_second_slot() || has_place(o));
    if !matches!(word.reason, Reason::RotationHeld | Reason::RotationBlocked) {
        // One failed run does not end a wait; otherwise hardly any wait would reach the day (`starved_after`) after which it is
        // reported.
        if word.failed {
            return before.filter(|before| !fed(before)).cloned();
        }
        // A rotation that was blocked when the last window closed still counts as blocked while it waits for the next one.
        let blocked = before.filter(|before| before.reason == Reason::RotationBlocked.as_str());
        let waits = word.reason == Reason::Issued && o.current().and_then(|slot| missed(o, slot)).is_some();
        return blocked.filter(|before| waits && !fed(before)).cloned();
    }
    let reason = word.reason.as_str();
    let same = before.filter(|before| before.reason == reason);
    let waits_for_slot = match same {
        // A failed run does not tell whether the rotation would still wait for a slot.
        Some(before) if word.failed => before.waits_for_slot && !fed(before),
        Some(_) | None => word.starving,
    };
    let same = same.filter(|before| before.waits_for_slot == waits_for_slot);
    let since = same.map_or(to_seconds(o.now), |before| before.since);
    Some(HoldStatus { reason: reason.to_owned(), since, waits_for_slot })
}

/// Whether the ApiKey has a slot for its next key.
fn has_place(o: &Observation) -> bool {
    o.slots().iter().any(|slot| [SlotState::Reserved, SlotState::Creating].contains(&slot.state))
}

/// When the next rotation begins by schedule. A rotation that is due keeps the time at which it became due.
pub(super) fn next(o: &Observation) -> Option<Timestamp> {
    let current = o.current()?;
    // The scheduled time will come, but no rotation will begin.
    if ends_schedule(current.switched_back) {
        return None;
    }
    let before = o.key.status.as_ref().and_then(|status| status.next_rotation);
    match due(o, current) {
        Due::At(at) => Some(to_seconds(at)),
        Due::Now => match next_rotation(current.since, &o.owner.uid, &o.key.rotation()) {
            // Somebody asks for a rotation before the scheduled one.
            Schedule::At(at) if at > o.now => Some(to_seconds(at)),
            Schedule::At(at) => Some(before.filter(|before| *before <= o.now).unwrap_or(to_seconds(at))),
            Schedule::OnDemand | Schedule::UnknownZone(_) => None,
        },
        Due::OnDemand | Due::TurnedBack(_) | Due::UnknownZone(_) => None,
    }
}

/// Rotating while there is a rotation, and only then; OldKeyRevoked once there was one; ZeroDowntime while one waits for a
/// workload that a restart would stop.
pub(super) fn conditions(conditions: &mut Vec<Condition>, o: &Observation, word: &Word<'_>) {
    let (generation, now) = (o.key.metadata.generation, o.now);
    let old = !o.superseded().is_empty();
    // If there is no current key any more, the key that is being revoked is an old one only if there was a rotation.
    let rotated = o.current().is_some() || has(conditions, kind::OLD_KEY_REVOKED);
    let revoking = rotated && is_revoking_old(o);
    let reason = if word.reason.is_of_rotation() { word.reason.as_str() } else { Reason::Rotating.as_str() };
    let old_key = match (old, revoking) {
        (true, _) => Some((false, reason, word.message)),
        (false, true) => Some((false, "Revoking", REVOKING)),
        (false, false) if has(conditions, kind::OLD_KEY_REVOKED) => Some((true, "Revoked", REVOKED)),
        (false, false) => None,
    };
    let rotating = word.reason.is_of_rotation().then_some((true, word.reason.as_str(), word.message));
    let gap = word.reason.is_of_rotation() && o.gaps();
    let gap = gap.then_some((false, "GapWithoutConsent", word.message));
    let all = [(kind::OLD_KEY_REVOKED, old_key), (kind::ROTATING, rotating), (kind::ZERO_DOWNTIME, gap)];
    for (type_, said) in all {
        // An ApiKey whose slots cannot be seen may have its old key all the same: the condition stays as it is.
        if type_ == kind::OLD_KEY_REVOKED && o.is_ledger_unseen() {
            continue;
        }
        match said {
            Some((value, reason, message)) => {
                condition::set(conditions, type_, value, reason, message.to_owned(), generation, now);
            }
            None => condition::remove(conditions, type_),
        }
    }
}

fn has(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == type_)
}
