//! Rules 5 and 6: a lost key is condemned, and one in `Revoking` is revoked and buried.

use super::*;
use crate::{
    account::{
        credentials::CredentialProblem,
        death::{PersonReason, Way},
        memory::{Endpoint, ListFailure, RefusedRevocation},
    },
    api::account::Capability,
    bags,
};

#[test]
fn a_lost_key_is_condemned_and_a_dead_one_buried() {
    let lost = attempt(0, SlotState::Lost);
    assert_eq!(
        decide(&with([seen(0, SlotState::Lost)])),
        change_of(Change::Condemn { attempt: lost, emergency: false, looked_at: None })
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
fn a_key_that_the_list_shows_is_the_tokens_users_whomever_a_person_expects() {
    let way = |verdict: Verdict, listed_since| {
        let mut slot = SlotSeen { verdict, listed_since, ..seen(0, SlotState::Revoking) };
        slot.slot.user = Some("one".into());
        let mut account = with([slot.clone()]);
        Arc::make_mut(&mut account.account).spec.expected_user = Some("typo".into());
        account.way(&slot)
    };
    assert_eq!(way(Verdict::Shown { key_id: None }, true), Way::Operator);
    assert_eq!(way(Verdict::Absent, true), Way::Person(PersonReason::OtherUser));
    assert_eq!(way(Verdict::Undecided { wait: Duration::ZERO }, false), Way::Unidentified, "a list tells");
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
    let spoilt = |token| {
        let problem = CredentialProblem::SecretMissing {
            secret: "bags-wallet".into(),
            namespace: "bags".into(),
            field: "wallet.json".into(),
        };
        let credentials = CredentialsSeen { token, ..account().credentials };
        let credentials = CredentialsSeen { problem: Some(problem), version: None, ..credentials };
        Observation { credentials, ..with([slot.clone()]) }
    };
    let beside = |state| SlotSeen { key_id: slot.key_id.clone(), ..seen(1, state) };
    // Of which user the key is, by its licence and by its own word; whose the account is.
    let of = |licensed: Option<&str>, answered: Option<&str>, account: Option<&str>| {
        let [licensed, answered, user] = [licensed, answered, account].map(|user| user.map(str::to_owned));
        let memory = KeyMemory { user: answered, ..slot.memory.clone() };
        let verdict = Verdict::Undecided { wait: Duration::from_secs(RESYNC) };
        let mut account = with([SlotSeen { memory, verdict, listed_since: true, ..slot.clone() }]);
        account.slots[0].slot.user = licensed;
        Arc::make_mut(&mut account.account).status.get_or_insert_default().user = user;
        account
    };
    let unasked = |mut account: Observation| {
        account.slots[0].verdict = Verdict::Undecided { wait: Duration::ZERO };
        account.slots[0].listed_since = false;
        account
    };
    let unlisted = |revocations| {
        let memory = KeyMemory { revocations, ..slot.memory.clone() };
        Observation { list: None, ..with([SlotSeen { memory, ..slot.clone() }]) }
    };
    let lists_fail = |mut account: Observation| {
        let error = bags::Error::new(bags::Operation::List, bags::Class::NotDone, bags::Reason::Connect);
        account.facts.list_failure = Some(ListFailure { count: 1, error, retry_at: account.now });
        account
    };
    let cases = [
        ("the operator", with([slot.clone()]), revoke.clone()),
        ("without waiting for a list", unlisted(0), revoke.clone()),
        ("nor for one that tells what a 404 means", unlisted(1), revoke.clone()),
        ("nor for one that failed", lists_fail(unlisted(1)), revoke.clone()),
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
        ("the operator, where the wallet alone cannot be used", spoilt(true), revoke.clone()),
        (
            "a person, where another key goes by the same id",
            with([slot.clone(), beside(SlotState::Live)]),
            rest(RESYNC),
        ),
        ("also one that was left to people", with([slot.clone(), beside(SlotState::Released)]), rest(RESYNC)),
        (
            "the operator, where that one is to go as well",
            with([slot.clone(), beside(SlotState::Revoking)]),
            revoke.clone(),
        ),
        ("a person, where it is of another user", of(Some("former"), None, Some("user-1")), rest(RESYNC)),
        (
            "once a list has told whose the token is",
            unasked(of(Some("former"), None, Some("user-1"))),
            Decision::Look(Look::List),
        ),
        ("also by its own word", of(Some("user-1"), Some("former"), Some("user-1")), rest(RESYNC)),
        (
            "which counts for more than its licence",
            of(Some("former"), Some("user-1"), Some("user-1")),
            revoke.clone(),
        ),
        ("the operator, where nobody knows whose it is", of(None, None, Some("user-1")), revoke.clone()),
        ("or whose the account is", of(Some("former"), None, None), revoke.clone()),
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
    let unreadable = spoilt(false);
    let way = unreadable.way(&unreadable.slots[0]);
    assert_eq!(way, Way::Person(PersonReason::CredentialsUnusable), "where the token cannot be used either");
}
