//! Accounts as anybody may have written them: a decision and a status come of whatever can be read, and nothing is
//! done to a ledger that this version does not understand.

use std::{cell::RefCell, collections::BTreeSet};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    account::{
        memory::{Endpoint, NamespaceSeen},
        status::{show, show_foreign, show_held, transitions},
    },
    api::arbitrary::{any_account, for_all_read, with_unknown_state},
    ledger::{
        Ledger, Room,
        invariants::{Waiver, violations},
        slots::Terms,
    },
    time::earlier,
};

/// What was seen of one slot.
#[derive(Clone, Debug)]
struct Sight {
    flags: [bool; 6],
    stored: Stored,
    owner: u8,
    verdict: Verdict,
    seconds: u64,
    refusals: u32,
}

fn any_sight() -> impl Strategy<Value = Sight> {
    let stored =
        proptest::sample::select(vec![Stored::Absent, Stored::Empty, Stored::SurelyEmpty, Stored::Value]);
    let verdict = prop_oneof![
        Just(Verdict::Shown { key_id: Some("id".into()) }),
        Just(Verdict::Absent),
        Just(Verdict::NotCovered),
        (0..60_u64).prop_map(|wait| Verdict::Undecided { wait: Duration::from_secs(wait) }),
    ];
    (any::<[bool; 6]>(), stored, 0..5_u8, verdict, 0..9000_u64, 0..4_u32).prop_map(
        |(flags, stored, owner, verdict, seconds, refusals)| Sight {
            flags,
            stored,
            owner,
            verdict,
            seconds,
            refusals,
        },
    )
}

/// What was seen of the account as a whole.
#[derive(Clone, Debug)]
struct Rest {
    sights: Vec<Sight>,
    flags: [bool; 6],
    paused: Option<Timestamp>,
    unmanaged: i64,
}

fn any_rest() -> impl Strategy<Value = Rest> {
    let paused = vec![
        None,
        Some(Timestamp::MIN),
        Some(Timestamp::from_second(NOW + 5).unwrap()),
        Some(Timestamp::MAX),
    ];
    let unmanaged = prop_oneof![4 => 0..9_i64, 1 => Just(i64::MAX)];
    let sights = proptest::collection::vec(any_sight(), 1..6);
    (sights, any::<[bool; 6]>(), proptest::sample::select(paused), unmanaged)
        .prop_map(|(sights, flags, paused, unmanaged)| Rest { sights, flags, paused, unmanaged })
}

fn slot_seen(ledger: &Ledger, slot: &Slot, sight: &Sight, now: Instant) -> SlotSeen {
    let [running, closed, listed_since, acknowledged, identified, alive] = sight.flags;
    let back = |seconds: u64| now.checked_sub(Duration::from_secs(seconds));
    let memory = KeyMemory {
        closed,
        refusals: sight.refusals,
        refused_since: (sight.refusals > 0).then(|| back(sight.seconds)).flatten(),
        probed: (sight.refusals > 0).then_some(now),
        good: alive.then(|| back(sight.seconds)).flatten(),
        acknowledged: acknowledged.then(|| back(sight.seconds + 1)).flatten(),
        alive_before_revocation: alive,
        ..KeyMemory::default()
    };
    let owner = match sight.owner {
        0 => OwnerSeen::Cached,
        1 => OwnerSeen::Lives,
        2 => OwnerSeen::Deleting,
        3 => OwnerSeen::Gone,
        _ => OwnerSeen::Missing(now),
    };
    SlotSeen {
        memory,
        stored: sight.stored,
        running: running && acknowledged,
        owner,
        watched: Duration::from_secs(sight.seconds / 2),
        current: ledger.current(&slot.owner.uid).is_some_and(|current| current.attempt == slot.attempt),
        verdict: sight.verdict.clone(),
        listed_since,
        unlisted: listed_since && closed,
        lacking: closed,
        key_id: slot.key_id.clone().or_else(|| (identified && alive).then(|| "id".to_owned())),
        slot: slot.clone(),
    }
}

/// What `observe` would make of it.
fn observed(account: BagsAccount, rest: &Rest) -> Observation {
    let bare = super::account();
    let [token, listed, loose, gone, endpoint, finalizer_done] = rest.flags;
    let ledger = Ledger::of(account.status.as_ref());
    let sights = rest.sights.iter().cycle();
    let slots =
        ledger.slots.iter().zip(sights).map(|(slot, sight)| slot_seen(&ledger, slot, sight, bare.now));
    let mut facts = AccountFacts::default();
    if gone {
        let gone_since = bare.now.checked_sub(Duration::from_secs(7200));
        facts.namespaces.insert("shop".into(), NamespaceSeen { asked: bare.now, gone_since });
    }
    if endpoint {
        let at = earlier(bare.wall, Duration::MAX);
        facts.endpoint = Some(Endpoint { found: token && loose, at, with: "main bags-main@1".into() });
    }
    let entry = LooseEntry {
        attempt: ledger.departed.first().cloned().unwrap_or_default(),
        value: token,
        created: rest.paused,
        watched: Duration::ZERO,
        running: false,
    };
    Observation {
        slots: slots.collect(),
        facts,
        list: bare.list.filter(|_| listed).map(|list| ListSeen { unmanaged: rest.unmanaged, ..list }),
        loose: if loose { vec![entry] } else { vec![] },
        remnants: Some(vec![]),
        finalizer_done,
        paused_until: rest.paused,
        credentials: CredentialsSeen { token, ..bare.credentials },
        departed: ledger.departed,
        account: Arc::new(account),
        ..bare
    }
}

fn read((account, rest): &(Value, Rest)) -> Option<Observation> {
    Some(observed(serde_json::from_value(account.clone()).ok()?, rest))
}

/// Whether a change leads from the ledger, if it is one that the operator could have written, to another such one.
fn judge_change(seen: &Observation, change: &Change) -> Result<(), TestCaseError> {
    let ledger = Ledger::of(seen.account.status.as_ref());
    let room = Room::of(&seen.account, seen.wall, &seen.timings);
    let terms = Terms { room, now: seen.wall, licence_term: seen.timings.licence_term };
    let sound = violations(&ledger, &ledger, &terms, Waiver::None).is_empty();
    match ledger.apply(change, &terms) {
        Ok(next) => {
            let broken = violations(&ledger, &next, &terms, Waiver::None);
            prop_assert!(!sound || broken.is_empty(), "{change:?}: {broken:?}");
        }
        Err(refusal) => prop_assert!(!sound, "{change:?} is refused: {refusal}"),
    }
    Ok(())
}

fn judge(seen: &Observation, decision: &Decision) -> Result<(), TestCaseError> {
    let held = seen.slots.iter().any(|slot| matches!(slot.slot.state, SlotState::Unknown(_)));
    let standing = standing(seen);
    let quiet = held || standing == Standing::Foreign;
    match decision {
        Decision::Act(Effect::Change(change)) => {
            prop_assert!(!quiet, "{change:?}");
            judge_change(seen, change)?;
        }
        Decision::Act(
            effect @ (Effect::Close(_) | Effect::Clear(_) | Effect::Revoke { .. } | Effect::Ineffective(_)),
        ) => prop_assert!(!quiet, "{effect:?}"),
        Decision::Act(Effect::Pin { slots, .. }) => {
            prop_assert!(standing == Standing::Takeable && !held && slots.is_empty());
        }
        Decision::Act(Effect::AddFinalizer) => prop_assert!(standing != Standing::Foreign),
        Decision::Act(Effect::RemoveFinalizer) => prop_assert!(seen.slots.is_empty() || forgotten(seen)),
        Decision::Look(look @ (Look::List | Look::Probe(_))) => {
            prop_assert!(standing != Standing::Foreign, "{look:?}");
        }
        Decision::Look(look) => prop_assert!(!quiet, "{look:?}"),
        Decision::Rest(wait) => prop_assert!(*wait != Some(Duration::ZERO)),
    }
    Ok(())
}

/// A status can be written, says the same when it is read again, is written once, and leaves the ledger alone.
fn judge_status(seen: &Observation) -> Result<(), TestCaseError> {
    let before = seen.account.status.clone().unwrap_or_default();
    let shown = |before: &BagsAccountStatus| {
        let mut status = before.clone();
        let show = match (standing(seen), held_by_unknown_state(seen)) {
            (Standing::Foreign, _) => show_foreign,
            (Standing::Takeable | Standing::Ours, true) => show_held,
            (Standing::Takeable | Standing::Ours, false) => show,
        };
        show(&mut status, &seen.account, seen, seen.wall);
        status
    };
    let next = shown(&before);
    if held_by_unknown_state(seen) {
        let BagsAccountStatus { conditions, observed_generation, .. } = next.clone();
        prop_assert_eq!(&BagsAccountStatus { conditions, observed_generation, ..before.clone() }, &next);
    }
    prop_assert_eq!((&next.slots, &next.departed), (&before.slots, &before.departed));
    let text = serde_json::to_string(&next).unwrap();
    prop_assert_eq!(&serde_json::from_str::<BagsAccountStatus>(&text).unwrap(), &next);
    prop_assert_eq!(&shown(&next), &next);
    for condition in next.conditions.iter().filter(|condition| !before.conditions.contains(condition)) {
        prop_assert!(!condition.message.is_empty() && !condition.message.contains("   "), "{condition:?}");
        prop_assert!(condition.reason.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{condition:?}");
    }
    drop(transitions(&before.conditions, &next.conditions));
    prop_assert_eq!(transitions(&next.conditions, &next.conditions), vec![]);
    Ok(())
}

#[test]
fn whatever_else_an_account_says_a_ledger_of_a_newer_version_is_left_alone() {
    let held = any_account(NOW).prop_map(|account| with_unknown_state(account, "Quarantined"));
    for_all_read(file!(), &(held, any_rest()), read, |seen| {
        judge(&seen, &decide(&seen))?;
        judge_status(&seen)
    });
}

#[test]
fn whatever_an_account_says_there_is_a_decision_and_a_status() {
    let reached = RefCell::new(BTreeSet::new());
    for_all_read(file!(), &(any_account(NOW), any_rest()), read, |seen| {
        let decision = decide(&seen);
        judge(&seen, &decision)?;
        let kind = format!("{decision:?}");
        reached.borrow_mut().insert(kind.split(['{', '"']).next().unwrap_or_default().trim().to_owned());
        judge_status(&seen)
    });
    let reached = reached.into_inner();
    let wanted = ["Act(Pin", "Act(RemoveFinalizer)", "Look(List)", "Look(Probe("];
    assert!(wanted.iter().all(|kind| reached.contains(*kind)), "{reached:?}");
    assert!(reached.iter().any(|kind| kind.starts_with("Act(Change(")), "{reached:?}");
}
