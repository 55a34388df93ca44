//! What holds for every observation, and where decisions lead.

use jiff::Timestamp;
use proptest::prelude::*;

use self::observations::any_observation;
use super::*;
use crate::apikey::observe::{AccountView, PodsSeen};
use crate::{
    api::{
        annotation::DELETE_NOW,
        apikey::{DeletionPolicy, OnRolloutFailure},
    },
    ledger::{Ledger, slots::Terms},
    workload::Workload,
};

mod model;
mod observations;

fn terms(o: &Observation, view: &AccountView) -> Terms {
    Terms { room: view.room, now: o.now, licence_term: o.timings.licence_term }
}

/// Every change of a decision is accepted by the ledger it was decided on.
fn accepted(o: &Observation, changes: &[Change]) -> Result<Ledger, TestCaseError> {
    let view = o.account.as_ref().expect("a change needs an account");
    let mut ledger = view.ledger.clone();
    for change in changes {
        ledger = ledger.apply(change, &terms(o, view)).map_err(|refusal| {
            TestCaseError::fail(format!("{change:?} is refused: {refusal}\n{:#?}", view.ledger))
        })?;
    }
    Ok(ledger)
}

/// Whether published keys of the ApiKey may be condemned, by this look at the pods.
fn may_condemn(o: &Observation, looked_at: Option<Timestamp>) -> bool {
    let Some(deleted) = &o.key.metadata.deletion_timestamp else { return false };
    let word = o.key.metadata.annotations.iter().flatten().any(|(k, v)| k == DELETE_NOW && v != "false");
    let long = |at: Timestamp| since(o.now, at) >= o.timings.handover;
    let may = match looked_at {
        None => word || (long(deleted.0) && o.namespace_deleted.is_some_and(long)),
        Some(_) => {
            let unread = |pods: &PodsSeen| pods.confirmed == looked_at && pods.scan.holders.is_empty();
            o.pods.as_ref().is_some_and(unread)
        }
    };
    o.key.deletion_policy() == DeletionPolicy::Revoke && may
}

/// Whether everything speaks for it that nothing can use an earlier key any more.
fn out_of_use(o: &Observation, attempt: &str) -> bool {
    let old = o.superseded().iter().any(|slot| slot.attempt.as_deref() == Some(attempt));
    let clean = o.pods.as_ref().is_some_and(|pods| pods.confirmed.is_some() && pods.scan.is_clean());
    let works = matches!(o.current_probe, Some(Probe::Alive { .. }));
    let Some(clean_since) = o.clean_since() else { return false };
    let overlap = since(o.now, clean_since) >= o.key.rotation().min_overlap;
    let (quiet_for, age) = (o.key.rotation().quiet_for, since(o.now, clean_since));
    let shown = o.uses.and_then(|uses| uses.shown);
    let seen = shown.is_some_and(|shown| since(shown.answered, clean_since) >= quiet_for);
    let unused = age >= quiet_for && (seen || age >= o.timings.unproven_overlap);
    let settled = o.switched_at().is_some_and(|at| o.settles_in(at).is_zero());
    allowed(o) && settled && old && clean && works && overlap && unused
}

/// Whether the current key is to be replaced.
fn due(o: &Observation) -> bool {
    o.current().is_some_and(|current| {
        crate::apikey::decide::rotation::due(o, current) == crate::apikey::decide::rotation::Due::Now
    })
}

/// Whether the account and the ApiKey let a new key be made or published.
fn allowed(o: &Observation) -> bool {
    let view = o.account.as_ref().expect("an account");
    view.ours == Some(true)
        && view.permission == Permission::Granted
        && view.account.metadata.deletion_timestamp.is_none()
        && !view.ledger.unknown_state()
        && !o.key.suspended()
        && o.key.metadata.deletion_timestamp.is_none()
}

fn judge_changes(o: &Observation, changes: &[Change]) -> Result<(), TestCaseError> {
    let view = o.account.as_ref().expect("a change needs an account");
    prop_assert!(!changes.is_empty());
    prop_assert!(view.ours != Some(false), "another installation's ledger");
    accepted(o, changes)?;
    for change in changes {
        match change {
            Change::Condemn { emergency, attempt, looked_at } => {
                prop_assert!(!emergency && may_condemn(o, *looked_at), "{attempt}");
            }
            Change::ReserveNext { owner, .. } => {
                prop_assert!(allowed(o) && *owner == o.owner && o.published() && due(o));
                prop_assert!(o.pods.is_some() && !o.gaps() && o.next_refused.is_none());
            }
            Change::Retire { attempt, .. } => prop_assert!(out_of_use(o, attempt)),
            Change::SwitchBack { attempt, .. } => {
                let back = o.key.rotation().on_rollout_failure == OnRolloutFailure::SwitchBack;
                let works = matches!(o.previous_probe, Some(Probe::Alive { .. }));
                prop_assert!(allowed(o) && back && works);
                prop_assert!(o.superseded().iter().any(|slot| slot.attempt.as_ref() == Some(attempt)));
            }
            Change::Release { .. } => prop_assert!(
                o.key.metadata.deletion_timestamp.is_some()
                    && o.key.deletion_policy() == DeletionPolicy::Orphan
            ),
            Change::Reserve { owner, .. } | Change::ReserveFurther { owner, .. } => {
                prop_assert!(allowed(o) && *owner == o.owner);
            }
            Change::GiveBack { owner_uid } => prop_assert_eq!(owner_uid, &o.owner.uid),
            Change::Abandon { attempt } | Change::Doubt { attempt, .. } => {
                let creating = o.creating.as_ref().expect("an attempt");
                prop_assert!(creating.saved.is_some());
                prop_assert_eq!(Some(attempt), creating.slot.attempt.as_ref());
            }
            other => prop_assert!(false, "not an ApiKey's to propose: {other:?}"),
        }
    }
    Ok(())
}

fn judge_making(o: &Observation) -> Result<(), TestCaseError> {
    let view = o.account.as_ref().expect("an account");
    let place = o.slots().into_iter().find(|slot| slot.state == SlotState::Reserved);
    prop_assert!(allowed(o));
    let replaces = o.current().is_some();
    prop_assert!(!replaces || due(o) && o.published() && o.superseded().is_empty());
    prop_assert!(!replaces || o.pods.is_some() && !o.gaps());
    // Whoever has the Secret keeps it, whoever else wants it.
    prop_assert!(o.creating.is_none() && (replaces || o.secret_rival.is_none()));
    prop_assert!(view.paused_until.is_none() && view.next_code.is_none());
    prop_assert!(view.ledger.open_licence(o.now, o.timings.licence_term).is_none());
    prop_assert!(place.is_some_and(|place| view.room.fits_creation(&view.ledger.slots, place)));
    let licence = Change::License {
        owner_uid: o.owner.uid.clone(),
        attempt: "fresh".into(),
        key_name: "Production-App-0-fresh".into(),
        trigger: None,
    };
    accepted(o, &[licence]).map(drop)
}

fn judge_publication(o: &Observation, user: &str) -> Result<(), TestCaseError> {
    let (view, creating) =
        (o.account.as_ref().expect("an account"), o.creating.as_ref().expect("an attempt"));
    prop_assert!(allowed(o));
    prop_assert!(creating.saved.is_some());
    prop_assert_eq!(&creating.probe, &Some(alive(user)));
    let expected = view.account.spec.expected_user.as_deref().filter(|user| !user.is_empty());
    prop_assert!(expected.is_none_or(|expected| expected == user));
    Ok(())
}

fn judge_leaving(o: &Observation, remove_secret: bool) -> Result<(), TestCaseError> {
    prop_assert!(o.key.metadata.deletion_timestamp.is_some() && o.has_finalizer());
    let Some(view) = &o.account else { return Ok(()) };
    let foreign = view.ours == Some(false) || view.ledger.unknown_state();
    let kept = [SlotState::Live, SlotState::Reserved];
    prop_assert!(foreign || o.slots().iter().all(|slot| !kept.contains(&slot.state)));
    // Who was left a key reads it from there.
    prop_assert!(!remove_secret || o.slots().iter().all(|slot| slot.state != SlotState::Released));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn whatever_is_seen_a_decision_is_sound(o in any_observation()) {
        match decide(&o) {
            Decision::Change(changes) => judge_changes(&o, &changes)?,
            Decision::Make => judge_making(&o)?,
            Decision::Publish { user, .. } => judge_publication(&o, &user)?,
            Decision::Finish { remove_secret } => judge_leaving(&o, remove_secret)?,
            Decision::Probe { attempt } if o.creating.as_ref().is_none_or(|view| view.slot.attempt.as_ref() != Some(&attempt)) => {
                // The old key is asked only where the Secret may go back to it.
                let back = o.key.rotation().on_rollout_failure == OnRolloutFailure::SwitchBack;
                let current = o.current().is_some_and(|slot| slot.attempt.as_ref() == Some(&attempt));
                prop_assert!(allowed(&o) && !o.superseded().is_empty() && (current || back));
            }
            Decision::LookAtPods { confirm } => {
                prop_assert!(o.current().is_some());
                prop_assert!(o.pods.is_none() || confirm && o.pods.as_ref().is_none_or(|pods| pods.confirmed.is_none()));
            }
            Decision::EnsureFinalizer => {
                prop_assert!(o.key.metadata.deletion_timestamp.is_none() && !o.has_finalizer());
            }
            Decision::LookAtLists => prop_assert!(!o.listed && o.uses.is_some()),
            Decision::Restart(workloads) => {
                let pods = o.pods.as_ref().expect("pods that were looked at");
                prop_assert!(allowed(&o) && !o.superseded().is_empty() && !pods.scan.is_clean());
                prop_assert!(!workloads.is_empty() && workloads.len() <= o.key.rollout().max_concurrent);
                let known = || pods.consumers.iter().filter_map(|consumer| consumer.workload.as_ref());
                let may = |it: &Workload| it.gap().is_none() || o.key.rollout().allow_gap;
                prop_assert!(workloads.iter().all(|one| known().any(|it| it.reference == *one && may(it))));
                prop_assert!(since(o.now, o.switched_at().expect("a switch")) >= o.timings.mark_delay);
            }
            Decision::Probe { attempt } | Decision::Distrust { attempt } => {
                prop_assert!(allowed(&o));
                let creating = o.creating.as_ref().expect("an attempt");
                prop_assert!(creating.saved.is_some());
                prop_assert_eq!(Some(&attempt), creating.slot.attempt.as_ref());
            }
            Decision::Project => {
                prop_assert!(o.current().is_some() && o.current_value.is_some() && !o.key.suspended());
                prop_assert!(matches!(o.consumer, Some(Found::Missing | Found::Ours(_))));
            }
            Decision::Wait(hold) => fit_for_a_person("arbitrary", &hold),
        }
    }
}

#[test]
fn the_arbitrary_observations_reach_every_decision() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut reached = std::collections::BTreeSet::new();
    for _ in 0..50_000 {
        let decision = decide(&any_observation().new_tree(&mut runner).unwrap().current());
        let word = told(&decision);
        reached.insert(word.split([' ', ',']).next().unwrap_or_default().to_owned());
    }
    for word in [
        "Reserve",
        "ReserveFurther",
        "GiveBack",
        "Abandon",
        "Doubt",
        "Condemn",
        "Release",
        "Make",
        "Probe",
        "Publish",
        "Distrust",
        "Project",
        "Finish",
        "DeletionWaits",
        "Deleting",
        "Creating",
        "OutcomeUnknown",
        "KeyNotAccepted",
        "KeyForbidden",
        "ValueMissing",
        "SecretConflict",
        "Suspended",
        "AccountNotFound",
        "AccountDeleting",
        "ForeignInstallation",
        "NewerLedger",
        "NamespaceNotAllowed",
        "EnvironmentNotAllowed",
        "NamespaceQuotaExceeded",
        "DuplicateUse",
        "QuotaExceeded",
        "WrongUser",
        "RateLimited",
        "WaitingForAccount",
        "Unresolved",
        "Revoking",
        "Issued",
        "ReserveNext",
        "SwitchBack",
        "Retire",
        "LookAtPods",
        "LookAtLists",
        "Restart",
        "Rotating",
        "RotationHeld",
        "RotationBlocked",
    ] {
        assert!(reached.contains(word), "no observation led to {word}: {reached:?}");
    }
}
