//! ApiKeys and accounts as anybody may have written them: a decision and a status come of whatever can be read, and
//! nothing is done to a ledger that this version does not understand.

use std::{cell::RefCell, collections::BTreeMap, collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::apikey::observe::AccountView;
use crate::{
    api::{
        ApiKey, BagsAccount,
        account::Owner,
        arbitrary::{any_account, any_api_key, for_all_read, with_unknown_state},
        name::full_key_name,
    },
    apikey::{
        fixtures::{credentials, failing, no_credentials, now, unanswered, value},
        permission::{max_of, permission},
        status::{Word, status},
    },
    keystore::Entry,
    ledger::{
        Ledger, Room,
        invariants::{Waiver, violations},
        slots::{Terms, current},
    },
};

/// What was seen besides the two objects.
#[derive(Clone, Debug)]
struct Rest {
    flags: [bool; 8],
    ours: Option<bool>,
    found: u8,
    probe: Option<Probe>,
    seconds: [u64; 2],
    ahead: usize,
    at: Timestamp,
}

fn any_rest() -> impl Strategy<Value = Rest> {
    let probe = prop::sample::select(vec![
        None,
        Some(alive("user-1")),
        Some(alive("user-2")),
        Some(Probe::Dead),
        Some(Probe::Forbidden),
        Some(Probe::UserGone),
    ]);
    let ours = prop_oneof![8 => Just(Some(true)), 1 => Just(Some(false)), 1 => Just(None)];
    let ahead = prop_oneof![4 => 0..2_usize, 1 => Just(usize::MAX)];
    let at = prop::sample::select(vec![Timestamp::MIN, ago(HOUR), now(), in_future(HOUR), Timestamp::MAX]);
    (any::<[bool; 8]>(), ours, 0..7_u8, probe, [0..90_u64, 0..90_u64], ahead, at).prop_map(
        |(flags, ours, found, probe, seconds, ahead, at)| Rest {
            flags,
            ours,
            found,
            probe,
            seconds,
            ahead,
            at,
        },
    )
}

/// What `observe` would make of it.
fn observed(key: ApiKey, account: Option<BagsAccount>, rest: &Rest) -> Observation {
    use kube::ResourceExt;
    let [readable, rival, secret_rival, running, saved, valued, terminating, paused] = rest.flags;
    let owner = Owner {
        namespace: key.namespace().unwrap_or_default(),
        name: key.name_any(),
        uid: key.uid().unwrap_or_default(),
    };
    let labels = BTreeMap::from([("shop".to_owned(), "main".to_owned())]);
    let bare = seen();
    let account = account.map(|account| {
        let ledger = Ledger::of(account.status.as_ref());
        AccountView {
            room: Room::of(&account, bare.now, &bare.timings),
            permission: permission(&account, &ledger, &key, &labels),
            max: max_of(&account, &owner.namespace, &labels),
            ahead: rest.ahead,
            use_rival: (rival && !readable).then(|| "shop/app-9".to_owned()),
            paused_until: (paused && rest.at > bare.now).then_some(rest.at),
            next_code: (paused && running && rest.at > bare.now).then_some(rest.at),
            unlisted: (running && rival).then(|| (Duration::from_secs(7), unanswered())),
            credentials: if readable || running { Ok(credentials()) } else { Err(no_credentials()) },
            refused_credentials: rival.then(|| "bags-main@1".to_owned()),
            preparing: paused && rival,
            ours: rest.ours,
            neighbours: rest.ours == Some(false) && paused,
            ledger,
            account: Arc::new(account),
        }
    });
    let o = Observation {
        key: Arc::new(key),
        owner,
        account,
        namespace_deleted: terminating.then_some(rest.at),
        secret_rival: (secret_rival && rival && running).then(crate::apikey::fixtures::rival),
        last_used: saved.then_some(rest.at),
        ..bare
    };
    let creating = o.slots().into_iter().find(|slot| slot.state == SlotState::Creating).cloned();
    let creating = creating.map(|slot| CreatingView {
        slot,
        running: running && paused,
        saved: saved.then(|| Entry::of_tests(Some(&value()), valued.then_some("key-id-1"))),
        probe: rest.probe.clone(),
        refused_for: rival.then(|| Duration::from_secs(rest.seconds[0])),
        probed_ago: rival.then(|| Duration::from_secs(rest.seconds[1])),
    });
    let value = current(o.slots()).filter(|_| valued || saved).map(|_| value());
    let o = Observation { creating, current_value: value, ..o };
    match (o.current().is_some(), rest.found) {
        (false, _) => o,
        (true, kind @ 0..=4) => o.with_consumer(Found::Foreign(Foreign::ALL[usize::from(kind)])),
        (true, 5) => o.with_consumer(Found::Missing),
        (true, _) if o.current_value.is_some() => o.synced(),
        (true, _) => o,
    }
}

/// An ApiKey, its account, and what else was seen.
type Sight = (Value, Option<Value>, Rest);

fn any_sight() -> impl Strategy<Value = Sight> {
    let now = now().as_second();
    (any_api_key(now), prop::option::weighted(0.9, any_account(now)), any_rest())
}

fn read((key, account, rest): &Sight) -> Option<Observation> {
    let key = serde_json::from_value(key.clone()).ok()?;
    let account = account.as_ref().map(|account| serde_json::from_value(account.clone())).transpose().ok()?;
    Some(observed(key, account, rest))
}

/// Whether the changes lead from the ledger, if it is one that the operator could have written, to another such one.
fn judge_changes(o: &Observation, changes: &[Change]) -> Result<(), TestCaseError> {
    let view = o.account.as_ref().expect("a change needs an account");
    prop_assert!(view.ours != Some(false), "another installation's ledger");
    let terms = Terms { room: view.room, now: o.now, licence_term: o.timings.licence_term };
    let sound = violations(&view.ledger, &view.ledger, &terms, Waiver::None).is_empty();
    let mut ledger = view.ledger.clone();
    for change in changes {
        let next = match ledger.apply(change, &terms) {
            Ok(next) => next,
            // The number of the switch is used up.
            Err(_) if !sound || matches!(change, Change::Publish { .. }) => return Ok(()),
            Err(refusal) => return Err(TestCaseError::fail(format!("{change:?} is refused: {refusal}"))),
        };
        let broken = violations(&ledger, &next, &terms, Waiver::None);
        prop_assert!(!sound || broken.is_empty(), "{change:?}: {broken:?}");
        ledger = next;
    }
    Ok(())
}

fn judge(o: &Observation, decision: &Decision) -> Result<(), TestCaseError> {
    let mut slots = o.account.iter().flat_map(|view| &view.ledger.slots);
    let held = slots.any(|slot| matches!(slot.state, SlotState::Unknown(_)));
    match decision {
        Decision::Change(_)
        | Decision::Make
        | Decision::Publish { .. }
        | Decision::Probe { .. }
        | Decision::Restart(_)
            if held =>
        {
            prop_assert!(false, "a ledger of a newer version: {decision:?}");
        }
        Decision::Change(changes) => judge_changes(o, changes)?,
        Decision::Make => {
            let (owner_uid, key_name) =
                (o.owner.uid.clone(), full_key_name(&o.key.key_name(), "cluster", "fresh"));
            judge_changes(
                o,
                &[Change::License { owner_uid, attempt: "fresh".into(), key_name, trigger: None }],
            )?;
        }
        Decision::Publish { attempt, key_id, user: _ } => {
            let attempt = || attempt.clone();
            let known = key_id.clone().map(|key_id| Change::Identify { attempt: attempt(), key_id });
            let changes: Vec<Change> =
                known.into_iter().chain([Change::Publish { attempt: attempt() }]).collect();
            judge_changes(o, &changes)?;
        }
        Decision::Probe { .. } | Decision::LookAtPods { .. } | Decision::LookAtLists => {}
        Decision::Restart(workloads) => prop_assert!(!workloads.is_empty()),
        Decision::Distrust { .. } => prop_assert!(!held),
        Decision::EnsureFinalizer => prop_assert!(!o.has_finalizer()),
        Decision::Project => prop_assert!(o.current().is_some() && o.current_value.is_some()),
        Decision::Finish { remove_secret } => prop_assert!(!held || !remove_secret),
        Decision::Wait(hold) => {
            prop_assert!(hold.wait != Some(Duration::ZERO), "{hold:?}");
            prop_assert!(!hold.message.is_empty() && !hold.message.contains(value().expose()));
        }
    }
    Ok(())
}

/// A status can be written, says the same when it is read again, and is written once.
fn judge_status(o: Observation, word: &Word<'_>) -> Result<(), TestCaseError> {
    let next = status(&o, word);
    let text = serde_json::to_string(&next).unwrap();
    prop_assert!(!text.contains(value().expose()), "{text}");
    prop_assert_eq!(&serde_json::from_str::<crate::api::ApiKeyStatus>(&text).unwrap(), &next);
    prop_assert_eq!(next.observed_generation, o.key.metadata.generation);
    let again = o.key(|key| key.status = Some(next.clone()));
    prop_assert_eq!(status(&again, word), next);
    Ok(())
}

#[test]
fn whatever_else_they_say_a_ledger_of_a_newer_version_is_left_alone() {
    let held = any_sight().prop_map(|(key, account, rest)| {
        (key, account.map(|account| with_unknown_state(account, "Quarantined")), rest)
    });
    for_all_read(file!(), &held, read, |o| judge(&o, &decide(&o)));
}

#[test]
fn whatever_an_apikey_and_its_account_say_there_is_a_decision_and_a_status() {
    let reached = RefCell::new(BTreeSet::new());
    for_all_read(file!(), &any_sight(), read, |o| {
        let decision = decide(&o);
        judge(&o, &decision)?;
        let (reason, message) = match &decision {
            Decision::Wait(Hold { reason, message, .. }) => (*reason, message.clone()),
            other => (Reason::ApiServerUnavailable, format!("{other:?}")),
        };
        let kind = format!("{decision:?}");
        reached
            .borrow_mut()
            .insert(kind.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default().to_owned());
        judge_status(o, &Word { reason, message: &message, starving: false, failed: false })
    });
    let reached = reached.into_inner();
    assert!(["Change", "Finish", "Wait"].iter().all(|kind| reached.contains(*kind)), "{reached:?}");
}

#[test]
fn an_attempt_after_more_than_can_be_counted_is_told_of_all_the_same() {
    let place = failing(i64::MAX, MINUTE, "TooLarge", mine(SlotState::Reserved));
    let Hold { reason, message, .. } = hold(&seen().with_slot(place));
    assert_eq!(reason, Reason::BagsRefused);
    assert!(message.contains("attempt 9223372036854775807 after "), "{message}");
}
