//! Decides what to do next for an ApiKey. Pure and total.
//!
//! The rules are asked in order, and the first one that acts decides. A rule that only waits yields to the later ones: if none
//! of them acts, the words of the first wait stand, and the earliest deadline of all waits counts.
//!
//! Where the ledger belongs to another installation in the same cluster, none of them is asked: that installation looks after
//! the ApiKey. Otherwise:
//!
//! 1. deletion: give places back, let go or condemn keys, take the Secret and the finalizer away;
//! 2. unfinished: an attempt under way is verified, published or given up;
//! 3. drift: the consumer Secret holds the current key;
//! 4. blocked: suspension, account, permission (only where there is no key yet: a published key stays);
//! 5. creation: a place, a licence, a key;
//! 6. switch: workloads are restarted with a new key, and the old one is condemned once nothing can use it;
//! 7. rotation: a next key is due.

mod creation;
mod deletion;
pub(crate) mod rotation;
pub(crate) mod words;

pub(crate) use creation::speaks_of_credentials;
pub(crate) use words::{LIMIT_REACHED, foreign_secret};

use std::time::Duration;

use super::{
    hold::{Hold, Reason},
    observe::{AccountView, CreatingView, Observation},
    permission::Permission,
};
use crate::{
    api::account::SlotState,
    bags::Probe,
    consumer_secret::{self, Desired, Found},
    ledger::Change,
    time::since,
    workload::WorkloadRef,
};

/// What to do next.
#[derive(Debug)]
pub enum Decision {
    /// Change the ledger.
    Change(Vec<Change>),
    /// Put the finalizer back on, after somebody took it off.
    EnsureFinalizer,
    /// Make a key in the place that is kept.
    Make,
    /// Ask Bags whether the key of an attempt works.
    Probe {
        /// The attempt.
        attempt: String,
    },
    /// Publish the key of an attempt: it answered 200 for the account's user.
    Publish {
        /// The attempt.
        attempt: String,
        /// The key's id, where it became known since the licence.
        key_id: Option<String>,
        /// The user it belongs to.
        user: String,
    },
    /// The key of an attempt belongs to another user: keep it, publish nothing, make nothing more.
    Distrust {
        /// The attempt.
        attempt: String,
    },
    /// Bring the consumer Secret to what it should be.
    Project,
    /// List the pods of the namespace; `confirm`: now, whatever was seen before.
    LookAtPods {
        /// For a step that cannot be taken back.
        confirm: bool,
    },
    /// Ask for a fresh list of the account's keys.
    LookAtLists,
    /// Restart workloads.
    Restart(Vec<WorkloadRef>),
    /// Let the ApiKey go: remove the consumer Secret, if `remove_secret`, then the finalizer.
    Finish {
        /// Whether the consumer Secret goes as well.
        remove_secret: bool,
    },
    /// Nothing now.
    Wait(Hold),
}

impl Decision {
    /// Whether it is only about the next key: the current one works whatever comes of it.
    #[must_use]
    pub fn is_of_next_key(&self, o: &Observation) -> bool {
        let rotates = o.current().is_some() && o.key.metadata.deletion_timestamp.is_none();
        match self {
            Self::Make
            | Self::Probe { .. }
            | Self::LookAtPods { .. }
            | Self::LookAtLists
            | Self::Restart(_)
            | Self::Change(_) => rotates,
            Self::Publish { .. }
            | Self::Distrust { .. }
            | Self::EnsureFinalizer
            | Self::Project
            | Self::Finish { .. }
            | Self::Wait(_) => false,
        }
    }
}

/// What a rule says.
enum Rule {
    /// Do this.
    Act(Decision),
    /// Nothing now, for this reason.
    Wait(Hold),
    /// Not my case.
    Pass,
}

impl Rule {
    fn wait(reason: Reason, message: impl Into<String>) -> Self {
        Self::Wait(Hold::new(reason, message))
    }

    fn change(change: Change) -> Self {
        Self::Act(Decision::Change(vec![change]))
    }
}

/// Decides (pure).
#[must_use]
pub fn decide(observation: &Observation) -> Decision {
    if let Some(hold) = of_a_neighbour(observation) {
        return Decision::Wait(hold);
    }
    if observation.key.metadata.deletion_timestamp.is_some() {
        return match deletion::rule(observation) {
            Rule::Act(decision) => decision,
            Rule::Wait(hold) => Decision::Wait(hold),
            Rule::Pass => Decision::Wait(Hold::new(Reason::Deleting, "waiting for other finalizers")),
        };
    }
    let rules = [unfinished, drift, unprotected, blocked, creation::rule, rotation::switch, rotation::begins];
    let mut said: Option<Hold> = None;
    for rule in rules {
        match rule(observation) {
            Rule::Act(decision) => return decision,
            Rule::Wait(hold) => {
                let wait = [said.as_ref().and_then(|hold| hold.wait), hold.wait].into_iter().flatten().min();
                said = Some(Hold { wait, ..said.unwrap_or(hold) });
            }
            Rule::Pass => {}
        }
    }
    Decision::Wait(said.unwrap_or_else(|| idle(observation)))
}

/// Another installation in this cluster looks after the ApiKey. Every effect of this one would be a second one, and a status
/// that both wrote would never settle: each write wakes the other installation.
fn of_a_neighbour(o: &Observation) -> Option<Hold> {
    o.account.as_ref().filter(|view| view.neighbours)?;
    let message = words::foreign_installation(&o.key.spec.account_ref.name);
    Some(Hold { quiet: true, ..Hold::new(Reason::ForeignInstallation, message) })
}

/// Rule 2: an attempt under way. Whether its key is made no longer depends on the spec; but its publication is a switch, which
/// a suspension or a lost permission stops.
fn unfinished(o: &Observation) -> Rule {
    let (Some(view), Some(account)) = (&o.creating, &o.account) else { return Rule::Pass };
    let rule = attempt_under_way(o, view, account);
    if o.current().is_some() { rotation::blocked(rule) } else { rule }
}

fn attempt_under_way(o: &Observation, view: &CreatingView, account: &AccountView) -> Rule {
    let attempt = view.slot.attempt.clone().unwrap_or_default();
    // A value that is saved is there to be verified, even if its save has not quite ended.
    let Some(saved) = &view.saved else {
        if view.running {
            return Rule::Wait(under_way(o, view));
        }
        let age = since(o.now, view.slot.since);
        let judged = o.timings.judge_after.saturating_sub(age);
        // The account's reconciler judges the attempt, and its write wakes this ApiKey at once. While it cannot judge for
        // hours, a look from here would not find anything either.
        let again =
            (age.saturating_sub(o.timings.judge_after) / 4).clamp(LOOKED_FOR_EVERY.0, LOOKED_FOR_EVERY.1);
        let hold =
            Hold::new(Reason::OutcomeUnknown, words::outcome_unknown(&view.slot, o.timings.judge_after));
        return Rule::Wait(hold.after(judged.max(again)));
    };
    if let Rule::Wait(hold) = standing(o) {
        return Rule::Wait(hold);
    }
    match &view.probe {
        None => match pause_between_probes(view) {
            Some(wait) => {
                Rule::Wait(Hold::new(Reason::KeyNotAccepted, words::not_accepted(view, o)).after(wait))
            }
            None => Rule::Act(Decision::Probe { attempt }),
        },
        Some(Probe::Alive { user })
            if account.account.expected_user().is_some_and(|expected| expected != user.as_str()) =>
        {
            match &account.credentials {
                Ok(_) => Rule::Act(Decision::Distrust { attempt }),
                // The credentials cannot be read: nothing more can be made with them, so they need not be distrusted.
                Err(_) => Rule::change(Change::Doubt { attempt, reason: words::WRONG_USER }),
            }
        }
        Some(Probe::Alive { user }) => Rule::Act(Decision::Publish {
            attempt,
            key_id: saved.key_id().filter(|_| view.slot.key_id.is_none()).map(str::to_owned),
            user: user.as_str().to_owned(),
        }),
        Some(Probe::Dead) if view.refused_for.is_some_and(|refused| refused >= o.timings.propagation) => {
            Rule::change(Change::Abandon { attempt })
        }
        Some(Probe::Dead) => {
            let wait = pause_between_probes(view).unwrap_or(FIRST_PROBE_PAUSE);
            Rule::Wait(Hold::new(Reason::KeyNotAccepted, words::not_accepted(view, o)).after(wait))
        }
        Some(Probe::Forbidden | Probe::UserGone) => Rule::Wait(
            Hold::new(Reason::KeyForbidden, words::forbidden(account))
                .after(o.timings.propagation.max(LONGEST_PROBE_PAUSE)),
        ),
    }
}

/// A creation that is answered quickly does not show in the status; one that takes longer does.
fn under_way(o: &Observation, view: &CreatingView) -> Hold {
    let hold = Hold::new(Reason::Creating, words::creating(&view.slot));
    let age = since(o.now, view.slot.since);
    if age < WORTH_A_WORD {
        return Hold { quiet: true, ..hold.after(WORTH_A_WORD) };
    }
    hold.after(o.timings.answer_deadline)
}

/// How often the value of an attempt is looked for that is not judged in time: the pause at first, and after a long time.
const LOOKED_FOR_EVERY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(1));

/// A creation that takes longer is shown.
const WORTH_A_WORD: Duration = Duration::from_secs(1);
const FIRST_PROBE_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PROBE_PAUSE: Duration = Duration::from_secs(10);

/// A key that answered 401 is asked again after as long as it has been refused, 1 s to 10 s.
fn pause_between_probes(view: &CreatingView) -> Option<Duration> {
    let refused = view.refused_for?;
    let pause = refused.clamp(FIRST_PROBE_PAUSE, LONGEST_PROBE_PAUSE);
    let left = pause.saturating_sub(view.probed_ago.unwrap_or(pause));
    (!left.is_zero()).then_some(left)
}

/// Rule 3: the consumer Secret holds the current key. It is kept so even if the account is being deleted or the permission is
/// lost; suspension stops it.
fn drift(o: &Observation) -> Rule {
    let Some(slot) = o.current() else { return Rule::Pass };
    let Some(value) = &o.current_value else {
        // The values of another installation's ledger are in that installation's keystore.
        if o.account.as_ref().is_some_and(|view| view.ours == Some(false)) {
            return standing(o);
        }
        return Rule::wait(Reason::ValueMissing, words::value_missing(slot));
    };
    let desired = Desired { key: &o.key, slot, value, base_url: &o.base_url };
    match &o.consumer {
        Some(Found::Foreign(foreign)) => {
            // Nothing tells when somebody removes it: the operator does not watch Secrets of tenants.
            let hold = Hold::new(Reason::of_secret(*foreign), words::foreign_secret(&o.key, *foreign));
            Rule::Wait(hold.after(Duration::from_mins(1)))
        }
        Some(found @ (Found::Missing | Found::Ours(_))) if !consumer_secret::in_sync(found, &desired) => {
            match o.key.suspended() {
                true => Rule::wait(Reason::Suspended, words::suspended_drift(&o.key)),
                false => Rule::Act(Decision::Project),
            }
        }
        Some(Found::Missing | Found::Ours(_)) | None => Rule::Pass,
    }
}

/// Rule 3, too: a `kubectl replace` with a manifest takes the finalizer off, and then the keys would outlive their ApiKey.
fn unprotected(o: &Observation) -> Rule {
    let has_key = o.slots().iter().any(|slot| slot.attempt.is_some());
    let ours = o.account.as_ref().is_some_and(|view| view.ours != Some(false));
    if has_key && ours && !o.has_finalizer() { Rule::Act(Decision::EnsureFinalizer) } else { Rule::Pass }
}

/// Rule 4: what stops new keys and switches. A published key stays as it is.
fn blocked(o: &Observation) -> Rule {
    if o.current().is_some() { Rule::Pass } else { standing(o) }
}

/// Whether this is an ApiKey without a slot that waits for something besides one.
fn waits_for_else(o: &Observation, view: &AccountView) -> bool {
    let waits = o.key.suspended() || view.use_rival.is_some() || o.secret_rival.is_some();
    waits && o.slots().is_empty()
}

/// What in the account, or in the ApiKey itself, stops a new key or a switch.
fn standing(o: &Observation) -> Rule {
    let Some(view) = &o.account else {
        return Rule::wait(Reason::AccountNotFound, words::account_not_found(&o.key));
    };
    let name = &o.key.spec.account_ref.name;
    if view.account.metadata.deletion_timestamp.is_some() {
        return Rule::wait(Reason::AccountDeleting, words::account_going(name));
    }
    match view.ours {
        Some(true) => {}
        Some(false) => return Rule::wait(Reason::ForeignInstallation, words::foreign_installation(name)),
        None => {
            return Rule::wait(Reason::WaitingForAccount, words::slots_unknown(name));
        }
    }
    if view.ledger.unknown_state() {
        return Rule::wait(Reason::NewerLedger, words::newer_ledger(name));
    }
    match &view.permission {
        Permission::Granted => {}
        Permission::Namespace => {
            return Rule::wait(
                Reason::NamespaceNotAllowed,
                words::namespace_not_allowed(name, &o.owner.namespace),
            );
        }
        Permission::Environment(allowed) => {
            let message = words::environment_not_allowed(name, &o.key.spec.environment, allowed);
            return Rule::wait(Reason::EnvironmentNotAllowed, message);
        }
        // As at admission: who waits for something else is told that, and takes no place.
        Permission::Max(_) if waits_for_else(o, view) => {}
        Permission::Max(max) => {
            let full = words::namespace_full(name, &o.owner.namespace, *max, &view.ledger.slots);
            let message = format!("{full}; {}", words::MAKE_ROOM_IN_NAMESPACE);
            return Rule::wait(Reason::NamespaceQuotaExceeded, message);
        }
    }
    if o.key.suspended() {
        return Rule::wait(Reason::Suspended, "spec.suspend is true; nothing is made until it is false");
    }
    Rule::Pass
}

fn idle(o: &Observation) -> Hold {
    match o.current() {
        Some(slot) => Hold::new(Reason::Issued, words::issued(&o.key, slot)),
        None => Hold::new(Reason::WaitingForAccount, words::waiting(&o.key)),
    }
}

/// Whether a slot is in one of these states.
fn is_in(state: &SlotState, states: &[SlotState]) -> bool {
    states.contains(state)
}

#[cfg(test)]
mod tests;
