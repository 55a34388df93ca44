//! The rules as tables, their order, and properties over random accounts.

use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::{
    account::{
        lists::{Coverage, Verdict},
        memory::{AccountFacts, Endpoint, KeyMemory, NamespaceSeen, RefusedRevocation},
        observe::{CredentialsSeen, ListSeen},
    },
    api::{
        BagsAccount, BagsAccountStatus,
        account::{Capability, Slot},
    },
    bags,
    ledger::slots::tests::{owner, slot},
    timings::Timings,
};

mod arbitrary;

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
    let mut account: BagsAccount = serde_json::from_value(json!({
        "apiVersion": "keys.bags.fm/v1alpha1",
        "kind": "BagsAccount",
        "metadata": {"name": "main", "uid": "uid-main", "resourceVersion": "7", "finalizers": [FINALIZER]},
        "spec": {"credentials": {"agentToken": {"secretName": "bags-main"}}},
    }))
    .unwrap();
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
fn a_lost_key_is_condemned_and_a_dead_one_buried() {
    let lost = attempt(0, SlotState::Lost);
    assert_eq!(
        decide(&with([seen(0, SlotState::Lost)])),
        change_of(Change::Condemn { attempt: lost, emergency: false })
    );
    let dying = attempt(0, SlotState::Revoking);
    let removed = |owner: OwnerSeen| {
        let slot = SlotSeen { stored: Stored::Absent, owner, ..seen(0, SlotState::Revoking) };
        annotated(with([slot]), annotation::RESOLVED, &format!("another, {dying}"))
    };
    let bury = |owner_lives| change_of(Change::Bury { attempt: dying.clone(), owner_lives });
    let mut with_another = removed(OwnerSeen::Cached);
    with_another.slots.push(seen(0, SlotState::Live));
    let cases = [
        ("its owner is looked for", removed(OwnerSeen::Cached), Decision::Look(Look::Owner(owner(0)))),
        ("a living owner keeps its place", removed(OwnerSeen::Lives), bury(true)),
        ("one that is being deleted does not", removed(OwnerSeen::Deleting), bury(false)),
        ("nor does one that is gone", removed(OwnerSeen::Gone), bury(false)),
        ("an owner with another slot needs no place", with_another, bury(false)),
    ];
    for (name, case, expected) in cases {
        assert_eq!(decide(&case), expected, "{name}");
    }
}

#[test]
fn who_revokes_is_told_by_mode_credentials_endpoint_and_id() {
    let slot = SlotSeen {
        memory: KeyMemory { tried: Some(clock()), ..KeyMemory::default() },
        watched: Duration::from_mins(1),
        ..seen(0, SlotState::Revoking)
    };
    let (at, key_id) = (Timestamp::from_second(NOW - 60).unwrap(), slot.key_id.clone().unwrap());
    let revoke = Decision::Act(Effect::Revoke { attempt: attempt(0, SlotState::Revoking), key_id });
    let endpoint = |found, at| AccountFacts {
        endpoint: Some(Endpoint { found, at, with: account().endpoint() }),
        ..AccountFacts::default()
    };
    let mut by_person = with([slot.clone()]);
    let spec = &mut Arc::make_mut(&mut by_person.account).spec;
    spec.revocation = serde_json::from_value(json!({"mode": "Person"})).unwrap();
    let unnamed = SlotSeen { key_id: None, ..slot.clone() };
    let verdict = Verdict::Shown { key_id: None };
    let looked_up = SlotSeen { listed_since: true, verdict, ..unnamed.clone() };
    let day = Timestamp::from_second(NOW - 86_400).unwrap();
    let recorded = |mut account: Observation| {
        let with = account.endpoint();
        let status = Arc::make_mut(&mut account.account).status.get_or_insert_default();
        status.capabilities.revoke = Capability::No;
        status.capabilities.revoke_tried_at = Some(at);
        status.capabilities.revoke_tried_with = Some(with);
        account
    };
    let moved = |mut account: Observation| {
        let spec = &mut Arc::make_mut(&mut account.account).spec;
        spec.revocation = serde_json::from_value(json!({"path": "/elsewhere"})).unwrap();
        account
    };
    let refused = |at| {
        let error = bags::Error::new(bags::Operation::Revoke, bags::Class::Refused, bags::Reason::Forbidden);
        let refusal = RefusedRevocation { at, with: account().endpoint(), error };
        let memory = KeyMemory { revocation_refused: Some(refusal), ..slot.memory.clone() };
        with([SlotSeen { memory, ..slot.clone() }])
    };
    let retokened = |mut account: Observation| {
        account.credentials.token_version = Some("bags-main@2".into());
        account
    };
    let cases = [
        ("the operator", with([slot.clone()]), revoke.clone()),
        ("a person, if so wished", by_person, rest(RESYNC)),
        (
            "a person, where there is no endpoint",
            Observation { facts: endpoint(false, at), ..with([slot.clone()]) },
            rest(RESYNC),
        ),
        (
            "the operator tries again a day later",
            Observation { facts: endpoint(false, day), ..with([slot.clone()]) },
            revoke.clone(),
        ),
        (
            "or knows better",
            Observation { facts: endpoint(true, at), ..with([slot.clone()]) },
            revoke.clone(),
        ),
        ("a person, where Bags refuses it for this key", refused(at), rest(RESYNC)),
        ("which is tried again a day later as well", refused(day), revoke.clone()),
        ("or by another path", moved(refused(at)), revoke.clone()),
        ("what was recorded holds", recorded(with([slot.clone()])), rest(RESYNC)),
        ("another path is another endpoint", moved(recorded(with([slot.clone()]))), revoke.clone()),
        (
            "also in this process's memory",
            moved(Observation { facts: endpoint(false, at), ..with([slot.clone()]) }),
            revoke.clone(),
        ),
        (
            "another token may be let in",
            retokened(Observation { facts: endpoint(false, at), ..recorded(with([slot.clone()])) }),
            revoke,
        ),
        ("an unknown id is looked up", with([unnamed]), Decision::Look(Look::List)),
        ("and if no list tells it, a person", with([looked_up]), rest(RESYNC)),
    ];
    for (name, case, expected) in cases {
        assert_eq!(decide(&case), expected, "{name}");
    }
}

#[test]
fn a_creation_of_unknown_outcome_is_judged_once_its_value_cannot_arrive() {
    let attempt = attempt(0, SlotState::Creating);
    let creating = |age: i64, stored| {
        let mut seen = SlotSeen { stored, ..seen(0, SlotState::Creating) };
        seen.slot.since = Timestamp::from_second(NOW - age).unwrap();
        seen.watched = Duration::from_secs(age.unsigned_abs());
        seen
    };
    let closed = |verdict| SlotSeen {
        memory: KeyMemory { closed: true, ..KeyMemory::default() },
        verdict,
        listed_since: true,
        ..creating(240, Stored::Absent)
    };
    let watched = |seconds, seen| SlotSeen { watched: Duration::from_secs(seconds), ..seen };
    let name = || attempt.clone();
    let other = SlotSeen { memory: KeyMemory::default(), ..seen(1, SlotState::Live) };
    let undecided = |seconds| Verdict::Undecided { wait: Duration::from_secs(seconds) };
    let unlisted = |mut seen: SlotSeen| {
        seen.listed_since = false;
        seen
    };
    let wallet = CredentialsSeen { wallet: true, ..CredentialsSeen::default() };
    let id = Some("id-1".to_owned());
    let cases = [
        ("its value arrived", with([creating(300, Stored::Value)]), rest(RESYNC)),
        ("its save runs here", with([SlotSeen { running: true, ..creating(100, Stored::Empty) }]), rest(140)),
        (
            "its save still runs here",
            with([SlotSeen { running: true, ..creating(300, Stored::Empty) }]),
            rest(1),
        ),
        ("it may still be saved", with([creating(239, Stored::Empty)]), rest(1)),
        (
            "also if the wall clock was set back",
            with([watched(239, creating(-5000, Stored::Empty))]),
            rest(1),
        ),
        (
            "which does not keep it from being judged",
            with([watched(240, creating(-5000, Stored::Empty))]),
            Decision::Look(Look::Entry(name())),
        ),
        (
            "or if it was licensed by a clock that was behind ours",
            with([watched(17, creating(500, Stored::Empty))]),
            rest(40),
        ),
        (
            "also where no process has watched it for so long",
            with([watched(17, creating(540, Stored::Empty))]),
            Decision::Look(Look::Entry(name())),
        ),
        (
            "its Secret is read live",
            with([creating(240, Stored::Empty)]),
            Decision::Look(Look::Entry(name())),
        ),
        (
            "also if the cache has none",
            with([creating(240, Stored::Absent)]),
            Decision::Look(Look::Entry(name())),
        ),
        (
            "and deleted while it is empty",
            with([creating(240, Stored::SurelyEmpty)]),
            Decision::Act(Effect::Close(name())),
        ),
        ("then a list is asked for", with([unlisted(closed(undecided(0)))]), Decision::Look(Look::List)),
        (
            "which must show a key that answered lately",
            with([unlisted(closed(undecided(0))), other]),
            Decision::Look(Look::Probe(self::attempt(1, SlotState::Live))),
        ),
        ("then another one", with([closed(undecided(30))]), rest(30)),
        (
            "one shows it",
            with([closed(Verdict::Shown { key_id: id.clone() })]),
            change_of(Change::Lose { attempt: name(), key_id: id }),
        ),
        (
            "two lack it",
            with([closed(Verdict::Absent)]),
            change_of(Change::NotMade { attempt: name(), reason: OUTCOME_UNKNOWN }),
        ),
        (
            "the list is somebody else's",
            with([closed(Verdict::NotCovered)]),
            change_of(Change::Doubt { attempt: name(), reason: OUTCOME_UNKNOWN }),
        ),
        (
            "there is no list",
            Observation { credentials: wallet, ..with([closed(undecided(0))]) },
            change_of(Change::Doubt { attempt: name(), reason: OUTCOME_UNKNOWN }),
        ),
    ];
    for (name, case, expected) in cases {
        assert_eq!(decide(&case), expected, "{name}");
    }
}

#[test]
fn unresolved_and_released_keys_leave_by_lists_or_by_a_persons_word() {
    let unresolved = attempt(0, SlotState::Unresolved);
    let released = attempt(0, SlotState::Released);
    let slot =
        |state, verdict| SlotSeen { verdict, listed_since: true, stored: Stored::Absent, ..seen(0, state) };
    let failed = |reason, stored| {
        let mut seen = SlotSeen { stored, ..slot(SlotState::Unresolved, Verdict::Absent) };
        let failures = json!({"count": 1, "at": "2026-01-01T00:00:00Z", "reason": reason});
        seen.slot.failures = serde_json::from_value(failures).unwrap();
        with([seen])
    };
    let wrong_user = || failed(WRONG_USER, Stored::Absent);
    let dismiss = |attempt: &str| change_of(Change::Dismiss { attempt: attempt.to_owned() });
    let not_covered = |state| with([slot(state, Verdict::NotCovered)]);
    let cases = [
        (
            "a list shows it",
            with([slot(SlotState::Unresolved, Verdict::Shown { key_id: None })]),
            change_of(Change::Lose { attempt: unresolved.clone(), key_id: None }),
        ),
        ("lists lack it", with([slot(SlotState::Unresolved, Verdict::Absent)]), dismiss(&unresolved)),
        ("no list tells", not_covered(SlotState::Unresolved), rest(RESYNC)),
        (
            "a person tells",
            annotated(not_covered(SlotState::Unresolved), annotation::RESOLVED, &unresolved),
            dismiss(&unresolved),
        ),
        ("another user's key is in no list of ours", wrong_user(), rest(RESYNC)),
        (
            "whose value is known is another user's, whatever failed since",
            failed("Connect", Stored::Value),
            rest(RESYNC),
        ),
        (
            "a person tells of it",
            annotated(wrong_user(), annotation::RESOLVED, &unresolved),
            dismiss(&unresolved),
        ),
        ("a released key stays", not_covered(SlotState::Released), rest(RESYNC)),
        (
            "nor is it looked for",
            with([SlotSeen { listed_since: false, ..seen(0, SlotState::Released) }]),
            rest(RESYNC),
        ),
        (
            "lists lack the released key",
            with([slot(SlotState::Released, Verdict::Absent)]),
            dismiss(&released),
        ),
        (
            "a person removed it",
            annotated(not_covered(SlotState::Released), annotation::RESOLVED, &released),
            dismiss(&released),
        ),
        (
            "an attempt that is not there changes nothing",
            annotated(account(), annotation::RESOLVED, "gone"),
            rest(RESYNC),
        ),
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
}

#[test]
fn revocations_come_before_everything_that_can_wait() {
    let creating = SlotSeen { stored: Stored::SurelyEmpty, ..seen(1, SlotState::Creating) };
    let mut account = with([seen(0, SlotState::Released), creating, seen(2, SlotState::Revoking)]);
    account.slots[1].slot.since = Timestamp::UNIX_EPOCH;
    account.list = None;
    assert_eq!(decide(&account), Decision::Look(Look::Probe(attempt(2, SlotState::Revoking))));
}

fn any_state() -> impl Strategy<Value = SlotState> {
    use SlotState::{Creating, Live, Lost, Released, Reserved, Revoking, Unknown, Unresolved};
    prop_oneof![
        10 => proptest::sample::select(vec![Reserved, Creating, Live, Lost, Unresolved, Revoking, Released]),
        1 => Just(Unknown("Shelved".into())),
    ]
}

prop_compose! {
    fn any_slot()(
        state in any_state(),
        age in 0..9000i64,
        stored in proptest::sample::select(vec![
            Stored::Absent, Stored::Empty, Stored::SurelyEmpty, Stored::Value,
        ]),
        (running, current, closed, listed_since, acknowledged, identified, alive)
            in any::<(bool, bool, bool, bool, bool, bool, bool)>(),
        refusals in 0..4u32,
        span in 0..900u64,
        owner in 0..5usize,
        verdict in prop_oneof![
            Just(Verdict::Shown { key_id: None }),
            Just(Verdict::Absent),
            Just(Verdict::NotCovered),
            (0..60u64).prop_map(|wait| Verdict::Undecided { wait: Duration::from_secs(wait) }),
        ],
    ) -> (SlotSeen, i64) {
        let now = clock();
        let back = |seconds: u64| now.checked_sub(Duration::from_secs(seconds));
        let owner = match owner {
            0 => OwnerSeen::Cached,
            1 => OwnerSeen::Lives,
            2 => OwnerSeen::Deleting,
            3 => OwnerSeen::Gone,
            _ => OwnerSeen::Missing(now),
        };
        let memory = KeyMemory {
            closed,
            refusals,
            refused_since: (refusals > 0).then(|| back(span)).flatten(),
            probed: (refusals > 0).then_some(now),
            acknowledged: acknowledged.then(|| back(span + 1)).flatten(),
            alive_before_revocation: alive,
            ..KeyMemory::default()
        };
        let mut slot = SlotSeen { memory, stored, running, current, verdict, listed_since, owner, ..seen(0, state) };
        slot.slot.since = Timestamp::from_second(NOW - age).unwrap();
        if !identified {
            slot.key_id = None;
        }
        (slot, age)
    }
}

prop_compose! {
    fn any_account()(
        slots in proptest::collection::vec(any_slot(), 0..6),
        (token, foreign, resolved, revoke, going, listed) in any::<(bool, bool, bool, bool, bool, bool)>(),
        namespace in proptest::option::of(proptest::option::of(0..7200u64)),
    ) -> Observation {
        let mut account = account();
        if let Some(gone) = namespace {
            let gone_since = gone.and_then(|ago| account.now.checked_sub(Duration::from_secs(ago)));
            account.facts.namespaces.insert("shop".into(), NamespaceSeen { asked: account.now, gone_since });
        }
        account.credentials.token = token;
        for (n, (mut slot, _)) in slots.into_iter().enumerate() {
            slot.slot.owner = owner(n % 3);
            slot.slot.attempt = slot.slot.attempt.map(|_| format!("attempt-{n}"));
            account.slots.push(slot);
        }
        if foreign {
            account = pinned(account, "89abcdef-0123", "bags");
        }
        if resolved {
            account = annotated(account, annotation::RESOLVED, "attempt-0,attempt-1");
        }
        if revoke {
            account = annotated(account, annotation::REVOKE, "attempt-1,attempt-2");
        }
        if going {
            account = deleting(account);
        }
        if !listed {
            account.list = None;
        }
        account
    }
}

/// Whether a change of a slot is allowed by what is known of it.
fn justified(account: &Observation, change: &Change) -> bool {
    let of = |attempt: &str| account.slots.iter().find(|seen| seen.attempt() == Some(attempt)).unwrap();
    let gone = |seen: &SlotSeen| seen.owner == OwnerSeen::Gone;
    match change {
        Change::Bury { attempt, owner_lives } => {
            let seen = of(attempt);
            let proven = death::next(&account.death(seen)) == Next::Dead;
            seen.slot.state == SlotState::Revoking
                && proven
                && (!owner_lives || seen.owner == OwnerSeen::Lives)
        }
        Change::Condemn { attempt, emergency } => {
            let seen = of(attempt);
            let namespace = account.facts.namespaces.get(&seen.slot.owner.namespace);
            let may_go = account.let_go(seen) || namespace.is_some_and(|known| known.gone_since.is_some());
            let orphan = seen.slot.state == SlotState::Live && gone(seen) && may_go;
            !emergency && (seen.slot.state == SlotState::Lost || orphan)
        }
        Change::GiveBack { owner_uid } => account.slots.iter().any(|seen| {
            seen.slot.owner.uid == *owner_uid && seen.slot.state == SlotState::Reserved && gone(seen)
        }),
        Change::Abandon { attempt } => gone(of(attempt)) && of(attempt).stored == Stored::Value,
        Change::NotMade { attempt, .. } => {
            let seen = of(attempt);
            seen.memory.closed && seen.stored != Stored::Value && seen.verdict == Verdict::Absent
        }
        Change::Doubt { attempt, .. } => of(attempt).memory.closed && of(attempt).stored != Stored::Value,
        Change::Lose { attempt, .. } => matches!(of(attempt).verdict, Verdict::Shown { .. }),
        Change::Dismiss { attempt } => {
            let seen = of(attempt);
            account.resolved(seen) || seen.verdict == Verdict::Absent && !of_another_user(seen)
        }
        Change::Reserve { .. }
        | Change::ReserveFurther { .. }
        | Change::ReserveNext { .. }
        | Change::License { .. }
        | Change::Identify { .. }
        | Change::Publish { .. }
        | Change::SwitchBack { .. }
        | Change::Retire { .. }
        | Change::Release { .. } => false,
    }
}

proptest! {
    #[test]
    fn every_change_of_a_slot_has_its_grounds(account in any_account()) {
        let held = held_by_unknown_state(&account) || standing(&account) == Standing::Foreign;
        match decide(&account) {
            Decision::Act(Effect::Change(change)) => {
                prop_assert!(!held);
                prop_assert!(justified(&account, &change), "{change:?}");
            }
            Decision::Act(Effect::Revoke { attempt, .. }) => {
                let seen = account.slots.iter().find(|seen| seen.attempt() == Some(attempt.as_str())).unwrap();
                prop_assert!(!held && seen.slot.state == SlotState::Revoking);
            }
            Decision::Act(Effect::Close(attempt)) => {
                let seen = account.slots.iter().find(|seen| seen.attempt() == Some(attempt.as_str())).unwrap();
                prop_assert!(!held && !seen.running && seen.stored == Stored::SurelyEmpty);
            }
            Decision::Act(Effect::RemoveFinalizer) => prop_assert!(account.slots.is_empty()),
            Decision::Rest(Some(wait)) => prop_assert!(!wait.is_zero()),
            _ => {}
        }
    }
}
