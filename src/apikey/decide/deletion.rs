//! Rule 1: an ApiKey that is being deleted.
//!
//! A key that was published is revoked only when nothing can still use it: no unfinished pod reads the Secret, or a person
//! says so (`delete-now`), or the namespace goes away as a whole. Then the account finishes what is left.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;

use super::{Decision, Rule, is_in, words};
use crate::{
    api::{
        account::{Capability, RevocationMode, Slot, SlotState},
        annotation,
        apikey::DeletionPolicy,
    },
    apikey::{
        hold::{Hold, Reason},
        observe::{AccountView, Observation},
    },
    ledger::Change,
    time::since,
};

pub(super) fn rule(o: &Observation) -> Rule {
    if !o.has_finalizer() {
        return without_our_finalizer(o);
    }
    let Some(view) = &o.account else {
        return Rule::Act(Decision::Finish { remove_secret: false });
    };
    let deleting_for =
        o.key.metadata.deletion_timestamp.as_ref().map_or(Duration::ZERO, |at| since(o.now, at.0));
    let handed_over = deleting_for >= o.timings.handover;
    if view.ours == Some(false) || view.ledger.unknown_state() {
        return match handed_over {
            true => Rule::Act(Decision::Finish { remove_secret: false }),
            false => {
                let left = o.timings.handover.saturating_sub(deleting_for);
                Rule::Wait(Hold::new(Reason::DeletionWaits, words::foreign_ledger_deletion(view)).after(left))
            }
        };
    }
    // A ledger that belongs to no installation may have been lost: that it has no key of this ApiKey proves nothing.
    if view.ours.is_none() && !handed_over {
        let left = o.timings.handover.saturating_sub(deleting_for);
        return Rule::Wait(Hold::new(Reason::Deleting, words::ledger_of_nobody(view)).after(left));
    }
    if let Some(rule) = change(o, view, deleting_for) {
        return rule;
    }
    let open = o.slots().into_iter().find(|slot| !settled(slot, view, handed_over));
    let left = o.slots().iter().any(|slot| slot.state == SlotState::Released);
    match open {
        Some(slot) => Rule::Wait(
            Hold::new(Reason::Deleting, words::deletion_open(slot))
                .after(o.timings.handover.saturating_sub(deleting_for).min(Duration::from_secs(30))),
        ),
        // Keys that were left to people are still read from the Secret, so it stays, whatever the spec says by now.
        None if left => Rule::Act(Decision::Finish { remove_secret: false }),
        // The Secret of a namespace that is being deleted goes with it, and the right to remove it may have gone before.
        None => {
            let ours = view.ours == Some(true) && o.key.deletion_policy() == DeletionPolicy::Revoke;
            Rule::Act(Decision::Finish { remove_secret: ours && o.namespace_deleted.is_none() })
        }
    }
}

/// Only somebody else's finalizer holds the ApiKey. Ours is put on before its first key is made, but a place may have been
/// reserved even earlier: it is given back.
fn without_our_finalizer(o: &Observation) -> Rule {
    let may_write =
        o.account.as_ref().is_some_and(|view| view.ours != Some(false) && !view.ledger.unknown_state());
    let place = may_write && o.slots().iter().any(|slot| slot.state == SlotState::Reserved);
    if place { Rule::change(Change::GiveBack { owner_uid: o.owner.uid.clone() }) } else { Rule::Pass }
}

/// The next change of a slot, or the wait for what allows it.
fn change(o: &Observation, view: &AccountView, deleting_for: Duration) -> Option<Rule> {
    let slots = o.slots();
    if slots.iter().any(|slot| slot.state == SlotState::Reserved) {
        return Some(Rule::change(Change::GiveBack { owner_uid: o.owner.uid.clone() }));
    }
    if let Some(creating) =
        o.creating.as_ref().filter(|creating| !creating.running && creating.saved.is_some())
    {
        let attempt = creating.slot.attempt.clone().unwrap_or_default();
        return Some(Rule::change(Change::Abandon { attempt }));
    }
    let mut live: Vec<&Slot> = slots.into_iter().filter(|slot| slot.state == SlotState::Live).collect();
    if live.is_empty() {
        return None;
    }
    // The current one last: it is protected while another one is live.
    live.sort_by_key(|slot| slot.published);
    let attempts = live.iter().filter_map(|slot| slot.attempt.clone());
    match (o.key.deletion_policy(), may_revoke(o)) {
        (DeletionPolicy::Orphan, _) => {
            Some(Rule::Act(Decision::Change(attempts.map(|attempt| Change::Release { attempt }).collect())))
        }
        (DeletionPolicy::Revoke, Some(looked_at)) => {
            let condemn = |attempt| Change::Condemn { attempt, emergency: false, looked_at };
            Some(Rule::Act(Decision::Change(attempts.map(condemn).collect())))
        }
        (DeletionPolicy::Revoke, None) if o.pods.is_none() => {
            Some(Rule::Act(Decision::LookAtPods { confirm: false }))
        }
        (DeletionPolicy::Revoke, None) if unread(o) => {
            Some(Rule::Act(Decision::LookAtPods { confirm: true }))
        }
        (DeletionPolicy::Revoke, None) => {
            let advice = o.timings.deletion_advice.saturating_sub(deleting_for);
            let ends_since = o.ends_since();
            let left = ends_since.map(|at| o.timings.handover.saturating_sub(since(o.now, at)));
            let revoked_at = ends_since.map(|at| (at, o.timings.handover));
            let readers: Vec<String> = readers(o).map(str::to_owned).collect();
            let message = words::deletion_waits(&o.key, &live, view, &readers, revoked_at, advice.is_zero());
            let waits = [Some(advice), left, Some(o.timings.scan_every)];
            let wait = waits.into_iter().flatten().filter(|wait| !wait.is_zero()).min();
            Some(Rule::Wait(Hold { wait, ..Hold::new(Reason::DeletionWaits, message) }))
        }
        // Whatever the unknown policy means: neither a revocation nor a release can be undone.
        (DeletionPolicy::Unknown, _) => {
            Some(Rule::wait(Reason::DeletionWaits, words::deletion_policy_unknown(&o.key, &live)))
        }
    }
}

/// Whether published keys may be revoked, and the time of the look at the pods that allows it: `Some(None)` where a person's
/// word or the end of the namespace allows it without a look.
fn may_revoke(o: &Observation) -> Option<Option<Timestamp>> {
    let word = o.key.annotations().get(annotation::DELETE_NOW).is_some_and(|value| value != "false");
    if word || o.ends_since().is_some_and(|at| since(o.now, at) >= o.timings.handover) {
        return Some(None);
    }
    o.last_look().filter(|_| unread(o)).map(Some)
}

/// The pods that read the Secret, by name.
fn readers(o: &Observation) -> impl Iterator<Item = &str> {
    o.pods.iter().flat_map(|pods| &pods.scan.holders).map(|holder| holder.pod.as_str())
}

/// Whether the pods were looked at, and none reads the Secret.
fn unread(o: &Observation) -> bool {
    o.pods.is_some() && readers(o).next().is_none()
}

/// Whether the ApiKey may go although the slot is there: the account, or a person, finishes.
fn settled(slot: &Slot, view: &AccountView, handed_over: bool) -> bool {
    if slot.state == SlotState::Released {
        return true;
    }
    let condemned = is_in(&slot.state, &[SlotState::Revoking, SlotState::Unresolved, SlotState::Lost]);
    (condemned && person_asked(slot, view)) || (handed_over && slot.state != SlotState::Live)
}

/// Whether a person has to remove the key at Bags.
fn person_asked(slot: &Slot, view: &AccountView) -> bool {
    let status = view.account.status.as_ref();
    view.account.revocation_mode() == RevocationMode::Person
        || view.account.spec.credentials.agent_token.is_none()
        || status.is_some_and(|status| status.capabilities.revoke == Capability::No)
        || (slot.state == SlotState::Revoking && slot.key_id.is_none())
}
