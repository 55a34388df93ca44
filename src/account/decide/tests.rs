//! The rules as tables, and their order. Properties over random accounts are in `properties`.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::{
    account::{
        lists::{Coverage, Verdict},
        memory::{AccountFacts, KeyMemory},
        observe::{CredentialsSeen, ListSeen},
    },
    api::{BagsAccount, BagsAccountStatus, account::Slot},
    fixtures::bags_account,
    ledger::slots::tests::{owner, slot},
    timings::Timings,
};

mod arbitrary;
mod judgement;
mod properties;
mod revocation;

/// The wall clock at the time of decision; slots are in their state since `SINCE`.
pub(in crate::account) const NOW: i64 = 1_000_000;
const SINCE: i64 = NOW - 10;

fn ours() -> Installation {
    Installation { cluster: "01234567-89ab".into(), namespace: "bags".into() }
}

fn pin() -> Decision {
    Decision::Act(Effect::Pin { installation: ours(), user: None, slots: vec![] })
}

/// An account with finalizer and token, listed just now, without slots.
pub(in crate::account) fn account() -> Observation {
    let mut account = bags_account(&json!({
        "metadata": {"uid": "uid-main", "resourceVersion": "7", "finalizers": [FINALIZER]},
        "spec": {"credentials": {"agentToken": {"secretName": "bags-main"}}},
    }));
    account.status = Some(BagsAccountStatus { installation: Some(ours()), ..BagsAccountStatus::default() });
    let now = clock();
    let version = Some("bags-main@1".to_owned());
    Observation {
        registration: crate::webhook::registration::Registration::Unwatched,
        account: Arc::new(account),
        slots: vec![],
        departed: vec![],
        credentials: CredentialsSeen {
            problem: None,
            wallet: false,
            token: true,
            version: version.clone(),
            token_version: version,
        },
        facts: AccountFacts::default(),
        list: Some(ListSeen {
            at: now,
            coverage: Coverage::Covers,
            shows_live: None,
            unmanaged: 0,
            stray: vec![],
        }),
        loose: vec![],
        starved: vec![],
        remnants: None,
        unread: None,
        uncleared: BTreeSet::new(),
        leaving: false,
        finalizer_done: false,
        paused_until: None,
        installation: ours(),
        timings: Timings::default(),
        now,
        wall: Timestamp::from_second(NOW).unwrap(),
    }
}

#[expect(clippy::disallowed_methods, reason = "a fixed point for the table's times")]
fn clock() -> Instant {
    Instant::now() + Duration::from_secs(1_000_000)
}

/// A slot whose key's value is known, whose owner lives, and of which lists say nothing yet.
pub(in crate::account) fn seen(n: usize, state: SlotState) -> SlotSeen {
    let slot = Slot { since: Timestamp::from_second(SINCE).unwrap(), ..slot(&owner(n), state.clone()) };
    SlotSeen {
        memory: KeyMemory::default(),
        stored: Stored::Value,
        running: false,
        owner: OwnerSeen::Cached,
        watched: Duration::ZERO,
        current: state == SlotState::Live,
        verdict: Verdict::Undecided { wait: Duration::ZERO },
        listed_since: false,
        unlisted: false,
        lacking: false,
        key_id: slot.key_id.clone(),
        slot,
    }
}

pub(in crate::account) fn with(slots: impl IntoIterator<Item = SlotSeen>) -> Observation {
    Observation { slots: slots.into_iter().collect(), ..account() }
}

pub(in crate::account) fn attempt(n: usize, state: SlotState) -> String {
    slot(&owner(n), state).attempt.unwrap()
}

pub(in crate::account) fn annotated(mut account: Observation, key: &str, value: &str) -> Observation {
    let annotations = Arc::make_mut(&mut account.account).metadata.annotations.get_or_insert_default();
    annotations.insert(key.to_owned(), value.to_owned());
    account
}

pub(in crate::account) fn deleting(mut account: Observation) -> Observation {
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH);
    Arc::make_mut(&mut account.account).metadata.deletion_timestamp = Some(time);
    account
}

fn pinned(mut account: Observation, cluster: &str, namespace: &str) -> Observation {
    let installation = Installation { cluster: cluster.into(), namespace: namespace.into() };
    let status = Arc::make_mut(&mut account.account).status.get_or_insert_default();
    status.installation = Some(installation);
    account
}

pub(in crate::account) fn change_of(change: Change) -> Decision {
    Decision::Act(Effect::Change(change))
}

pub(in crate::account) fn rest(seconds: u64) -> Decision {
    Decision::Rest(Some(Duration::from_secs(seconds)))
}

pub(in crate::account) const RESYNC: u64 = 600;

#[test]
fn an_account_is_pinned_finalized_listed_and_let_go() {
    let mut bare = account();
    Arc::make_mut(&mut bare.account).metadata.finalizers = None;
    let mut unpinned = account();
    Arc::make_mut(&mut unpinned.account).status = None;
    let live = || with([seen(0, SlotState::Live)]);
    let late = Observation { list: None, ..account() };
    let dead = LooseEntry {
        attempt: "loose".into(),
        value: true,
        created: None,
        watched: Duration::ZERO,
        running: false,
    };
    let without_token = Observation {
        credentials: CredentialsSeen { wallet: true, ..CredentialsSeen::default() },
        ..account()
    };
    let cases = [
        ("nothing to do until the next list", account(), rest(RESYNC)),
        ("a living key needs nothing", live(), rest(RESYNC)),
        ("a wallet has no list to wait for", without_token, Decision::Rest(None)),
        ("no list yet", late, Decision::Look(Look::List)),
        (
            "the first to come looks whether the ledger was lost",
            unpinned.clone(),
            Decision::Look(Look::Remnants),
        ),
        ("and pins it", Observation { remnants: Some(vec![]), ..unpinned }, pin()),
        ("the finalizer is put on", bare.clone(), Decision::Act(Effect::AddFinalizer)),
        (
            "and not again while the cache is behind",
            Observation { finalizer_done: true, ..bare.clone() },
            rest(RESYNC),
        ),
        ("nor on an account that goes", deleting(bare), rest(RESYNC)),
        ("an account without slots goes", deleting(account()), Decision::Act(Effect::RemoveFinalizer)),
        ("one with slots waits", deleting(live()), rest(RESYNC)),
        (
            "nor does one go before its ApiKeys that are being deleted",
            Observation { leaving: true, ..deleting(account()) },
            rest(RESYNC),
        ),
        (
            "unless a person lets it go",
            Observation { leaving: true, ..annotated(deleting(account()), annotation::FORGET, "true") },
            Decision::Act(Effect::RemoveFinalizer),
        ),
        (
            "nor before the keystore is cleared of what is dead",
            Observation { departed: vec!["loose".into()], loose: vec![dead.clone()], ..deleting(account()) },
            Decision::Act(Effect::Clear("loose".into())),
        ),
        (
            "which nobody would do for another installation's",
            Observation {
                departed: vec!["loose".into()],
                loose: vec![dead],
                ..deleting(pinned(account(), "89abcdef-0123", "bags"))
            },
            Decision::Act(Effect::RemoveFinalizer),
        ),
        (
            "unless a person lets it go",
            annotated(deleting(live()), annotation::FORGET, "true"),
            Decision::Act(Effect::RemoveFinalizer),
        ),
        ("false is no word", annotated(deleting(live()), annotation::FORGET, "false"), rest(RESYNC)),
        (
            "nor is it one while nobody deletes it",
            annotated(live(), annotation::FORGET, "true"),
            rest(RESYNC),
        ),
    ];
    for (name, case, expected) in cases {
        assert_eq!(decide(&case), expected, "{name}");
    }
}

#[test]
fn another_installations_ledger_is_left_alone_until_a_person_hands_it_over() {
    let busy = || with([seen(0, SlotState::Lost), seen(1, SlotState::Revoking)]);
    let theirs = || pinned(busy(), "89abcdef-0123", "bags");
    let neighbours = || pinned(busy(), "01234567-89ab", "other");
    let nothing = Decision::Rest(None);
    let pin = pin();
    let hand = |account, word: &str| annotated(account, annotation::TAKE_OVER, word);
    let cases = [
        ("another cluster's", theirs(), nothing.clone()),
        ("another namespace's", neighbours(), nothing.clone()),
        ("named by the first characters", hand(theirs(), "01234567"), pin.clone()),
        ("named in full", hand(theirs(), "01234567-89ab"), pin.clone()),
        ("another cluster is named", hand(theirs(), "89abcdef"), nothing.clone()),
        ("an empty word", hand(theirs(), ""), nothing.clone()),
        ("of two in one cluster, the cluster names none", hand(neighbours(), "01234567"), nothing.clone()),
        ("its namespace does", hand(neighbours(), "01234567-89ab/bags"), pin.clone()),
        ("the other one is named", hand(neighbours(), "01234567-89ab/other"), nothing),
    ];
    for (name, case, expected) in cases {
        assert_eq!(decide(&case), expected, "{name}");
    }
}

#[test]
fn keystore_secrets_without_a_slot_are_cleared_away_unless_they_hold_a_value() {
    let entry = |value, age: i64| LooseEntry {
        attempt: "loose".into(),
        value,
        created: Some(Timestamp::from_second(NOW - age).unwrap()),
        watched: Duration::ZERO,
        running: false,
    };
    let watched = |seconds, entry| LooseEntry { watched: Duration::from_secs(seconds), ..entry };
    let loose = |entry| Observation { loose: vec![entry], ..account() };
    let departed = |entry| Observation { departed: vec!["loose".into()], ..loose(entry) };
    let clear = Decision::Act(Effect::Clear("loose".into()));
    let cases = [
        ("an empty one may get its licence yet", loose(entry(false, 899)), rest(1)),
        ("then not any more, however far the clocks are apart", loose(entry(false, 900)), clear.clone()),
        (
            "this process has watched it for long enough",
            loose(watched(600, entry(false, 600))),
            clear.clone(),
        ),
        ("whatever the wall clock says", loose(watched(599, entry(false, -5000))), rest(1)),
        (
            "what cannot be deleted now is the next run's",
            Observation { uncleared: BTreeSet::from(["loose".to_owned()]), ..departed(entry(true, 0)) },
            rest(RESYNC),
        ),
        ("unless its save runs", loose(LooseEntry { running: true, ..entry(false, 900) }), rest(RESYNC)),
        ("a value is never thrown away", loose(entry(true, 90_000)), rest(RESYNC)),
        ("unless its key is known to be gone", departed(entry(true, 0)), clear.clone()),
        ("an empty one of a judged attempt goes at once", departed(entry(false, 0)), clear),
    ];
    for (name, case, expected) in cases {
        assert_eq!(decide(&case), expected, "{name}");
    }
}

#[test]
fn a_state_of_a_newer_version_stops_every_change_of_slots() {
    let mut account = with([seen(0, SlotState::Lost), seen(1, SlotState::Unknown("Shelved".into()))]);
    account.loose.push(LooseEntry {
        attempt: "x".into(),
        value: false,
        created: None,
        watched: Duration::ZERO,
        running: false,
    });
    account.departed.push("x".into());
    assert_eq!(decide(&account), rest(RESYNC));
    let theirs = pinned(account.clone(), "89abcdef-0123", "bags");
    let handed_over = annotated(theirs, annotation::TAKE_OVER, "01234567-89ab");
    assert_eq!(decide(&handed_over), rest(RESYNC), "nor is it taken over");
    Arc::make_mut(&mut account.account).status.get_or_insert_default().installation = None;
    assert_eq!(decide(&account), rest(RESYNC), "nor taken from nobody");
}

#[test]
fn revocations_come_before_everything_that_can_wait() {
    let creating = SlotSeen { stored: Stored::SurelyEmpty, ..seen(1, SlotState::Creating) };
    let mut account = with([seen(0, SlotState::Released), creating, seen(2, SlotState::Revoking)]);
    account.slots[1].slot.since = Timestamp::UNIX_EPOCH;
    account.list = None;
    assert_eq!(decide(&account), Decision::Look(Look::Probe(attempt(2, SlotState::Revoking))));
}
