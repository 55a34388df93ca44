//! What an account says of itself, case by case; and when it says it by event.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::{
    account::{
        credentials::CredentialProblem,
        decide::tests::{account, deleting, seen},
        lists::{Coverage, Verdict},
        memory::{Endpoint, KeyMemory, NamespaceSeen},
        observe::{CredentialsSeen, LooseEntry, Observation, OwnerSeen, SlotSeen, Stored},
        rebuild::Remnant,
    },
    api::account::Installation,
};

/// The status after a run that saw this.
fn shown(seen: &Observation) -> BagsAccountStatus {
    let mut status = seen.account.status.clone().unwrap_or_default();
    status.slots = seen.slots.iter().map(|slot| slot.slot.clone()).collect();
    show(&mut status, &seen.account, seen, seen.wall);
    status
}

fn said<'a>(status: &'a BagsAccountStatus, type_: &str) -> Option<(bool, &'a str, &'a str)> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((condition.status == "True", &condition.reason, &condition.message))
}

fn with(slots: impl IntoIterator<Item = SlotSeen>) -> Observation {
    Observation { slots: slots.into_iter().collect(), ..account() }
}

#[test]
fn a_healthy_account_is_ready_and_says_nothing_abnormal() {
    let live = seen(0, SlotState::Live);
    let mut account = with([live]);
    if let Some(list) = &mut account.list {
        (list.shows_live, list.unmanaged) = (Some(true), 2);
    }
    let status = shown(&account);
    let conditions: Vec<(&str, &str, &str)> =
        status.conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str())).collect();
    assert_eq!(
        conditions,
        [
            ("Ready", "True", "Usable"),
            ("CredentialsValid", "True", "Accepted"),
            ("ListCovers", "True", "Covers"),
            ("QuotaAvailable", "True", "SlotsAvailable"),
        ]
    );
    assert_eq!(status.capacity.unwrap().unmanaged, 2);
    assert_eq!((status.capabilities.create, status.capabilities.list), (Capability::Yes, Capability::Yes));
}

#[test]
fn what_was_said_once_is_not_written_again() {
    let mut account = with([seen(0, SlotState::Live), seen(1, SlotState::Unresolved)]);
    account.facts.endpoint = Some(Endpoint { found: false, at: account.wall, with: account.endpoint() });
    account.paused_until = Some(account.wall + Duration::from_millis(90_400));
    let first = shown(&account);
    Arc::make_mut(&mut account.account).status = Some(first.clone());
    account.wall += Duration::from_secs(3);
    account.paused_until = account.paused_until.map(|until| until + Duration::from_millis(700));
    assert_eq!(shown(&account), first);
}

#[test]
fn bad_credentials_say_which_secret_and_what_to_do() {
    let problem = CredentialProblem::FieldMissing {
        secret: "bags-main".into(),
        namespace: "bags".into(),
        field: "token".into(),
        present: "tokn".into(),
    };
    let credentials = CredentialsSeen { problem: Some(problem), ..CredentialsSeen::default() };
    let status = shown(&Observation { credentials, ..account() });
    for type_ in [kind::READY, kind::CREDENTIALS_VALID] {
        let (ok, reason, message) = said(&status, type_).unwrap();
        assert_eq!((ok, reason), (false, "CredentialsFieldMissing"));
        assert!(message.contains("\"bags-main\"") && message.contains("tokn"), "{message}");
    }
    assert_eq!(said(&status, kind::LIST_COVERS), None);
}

#[test]
fn starved_rotations_are_named_with_whoever_holds_more_than_one_slot() {
    let owned = |n: usize, state, name: &str| {
        let mut seen = seen(n, state);
        seen.slot.owner.name = name.into();
        seen
    };
    let mut account = with([
        owned(0, SlotState::Live, "api"),
        owned(1, SlotState::Revoking, "api"),
        owned(2, SlotState::Live, "web"),
    ]);
    assert_eq!(said(&shown(&account), kind::ROTATIONS_STARVED), None);
    account.starved = vec!["shop/web".into()];
    let status = shown(&account);
    let (starved, reason, message) = said(&status, kind::ROTATIONS_STARVED).unwrap();
    assert_eq!((starved, reason), (true, "NoSecondSlot"));
    assert!(message.contains("24h and longer: shop/web"), "{message}");
    assert!(message.contains("held by shop/api (Live, Revoking): see why"), "{message}");
    account.slots.remove(1);
    let status = shown(&account);
    let (_, _, message) = said(&status, kind::ROTATIONS_STARVED).unwrap();
    assert!(message.contains("every slot is held by an ApiKey's only key"), "{message}");
    assert!(message.contains("or raise spec.limit if"), "{message}");
}

#[test]
fn distrusted_credentials_are_forgiven_once_they_change() {
    let mut account = account();
    let status = Arc::make_mut(&mut account.account).status.get_or_insert_default();
    status.distrusted_credentials = account.credentials.version.clone();
    assert_eq!(said(&shown(&account), kind::CREDENTIALS_VALID).unwrap().1, "WrongUser");
    account.credentials.version = Some("bags-main@2".into());
    let status = shown(&account);
    assert_eq!(status.distrusted_credentials, None);
    assert!(said(&status, kind::CREDENTIALS_VALID).unwrap().0);
}

#[test]
fn a_wallet_that_bags_refuses_is_not_said_to_be_accepted() {
    let mut account = account();
    let version = account.credentials.version.clone();
    account.facts.token_accepted = true;
    let cases = [
        ("nothing was refused", true, None, "Accepted"),
        ("the wallet was refused", true, version.as_deref(), "WalletRefused"),
        ("another one was refused", true, Some("bags-main@0"), "Accepted"),
        ("the token is asked by lists", false, version.as_deref(), "Accepted"),
    ];
    for (name, wallet, refused, expected) in cases {
        account.credentials.wallet = wallet;
        account.facts.refused_credentials = refused.map(str::to_owned);
        let status = shown(&account);
        let (valid, reason, message) = said(&status, kind::CREDENTIALS_VALID).unwrap();
        assert_eq!((valid, reason), (expected == "Accepted", expected), "{name}: {message}");
        assert!(
            said(&status, kind::READY).unwrap().0,
            "{name}: the next creation shows whether it is so still"
        );
    }
    // Another wallet was put there. Keys were made with the former one, and Bags has not been asked with this one yet.
    account.facts.token_accepted = false;
    account.facts.tried = Some(false);
    account.facts.refused_credentials = None;
    (account.credentials.wallet, account.slots) = (true, vec![seen(0, SlotState::Live)]);
    let reason = |account: &Observation| said(&shown(account), kind::CREDENTIALS_VALID).unwrap().1.to_owned();
    assert_eq!(reason(&account), "NotTried");
    // Another process goes by what was told.
    account.facts.tried = None;
    for (status, told, expected) in [
        ("True", "NotTried", "NotTried"),
        ("False", "WalletRefused", "NotTried"),
        ("False", "TokenRefused", "NotTried"),
        ("True", "Accepted", "Accepted"),
    ] {
        let conditions = vec![condition(kind::CREDENTIALS_VALID, status, told, "so")];
        Arc::make_mut(&mut account.account).status.get_or_insert_default().conditions = conditions;
        assert_eq!(reason(&account), expected, "{told}");
    }
    account.facts.tried = Some(true);
    assert_eq!(reason(&account), "Accepted");
}

#[test]
fn credentials_are_forgiven_once_the_expected_user_is_corrected() {
    let mut account = account();
    let version = account.credentials.version.clone().unwrap();
    let expecting = |account: &mut Observation, user: &str| {
        Arc::make_mut(&mut account.account).spec.expected_user = Some(user.into());
    };
    Arc::make_mut(&mut account.account).status.get_or_insert_default().user = Some("user-0".into());
    expecting(&mut account, "user-1");
    let distrusted = trust_of(&account.account, &version);
    Arc::make_mut(&mut account.account).status.get_or_insert_default().distrusted_credentials =
        Some(distrusted.clone());
    let status = shown(&account);
    let message = said(&status, kind::CREDENTIALS_VALID).unwrap().2;
    assert!(message.contains("user-1") && !message.contains("user-0"), "{message}");
    assert_eq!(status.distrusted_credentials, Some(distrusted));
    expecting(&mut account, "user-2");
    assert_eq!(shown(&account).distrusted_credentials, None);
    expecting(&mut account, "");
    assert_eq!(trust_of(&account.account, &version), version);
}

#[test]
fn a_missing_revoke_endpoint_is_forgotten_once_path_or_token_change() {
    let mut account = account();
    let endpoint = Endpoint { found: false, at: account.wall, with: account.endpoint() };
    account.facts.endpoint = Some(endpoint);
    Arc::make_mut(&mut account.account).status = Some(shown(&account));
    account.facts.endpoint = None;
    let status = shown(&account);
    assert_eq!(status.capabilities.revoke, Capability::No);
    assert!(status.capabilities.revoke_tried_at.is_some());
    account.credentials.token_version = Some("bags-main@2".into());
    let known = shown(&account).capabilities;
    assert_eq!(
        (known.revoke, known.revoke_tried_at, known.revoke_tried_with),
        (Capability::Unknown, None, None)
    );
}

#[test]
fn a_revoke_endpoint_that_was_found_is_recorded_with_path_and_token() {
    let mut account = account();
    account.facts.endpoint = Some(Endpoint { found: true, at: account.wall, with: account.endpoint() });
    let status = shown(&account);
    assert_eq!(status.capabilities.revoke, Capability::Yes);
    Arc::make_mut(&mut account.account).status = Some(status.clone());
    account.facts.endpoint = None;
    assert!(account.endpoint_found());
    assert_eq!(shown(&account).capabilities, status.capabilities);
    let found = account.clone();
    account.credentials.token_version = Some("bags-main@2".into());
    assert!(!account.endpoint_found(), "another token may not be let in");
    let mut account = found;
    account.facts.endpoint = Some(Endpoint { found: false, at: account.wall, with: account.endpoint() });
    assert!(!account.endpoint_found(), "what this process saw is newer");
}

#[test]
fn a_key_without_an_apikey_names_itself_and_the_way_out_until_it_is_on_its_way() {
    let orphan = SlotSeen { owner: OwnerSeen::Gone, ..seen(0, SlotState::Live) };
    let attempt = orphan.slot.attempt.clone().unwrap();
    let name = orphan.slot.key_name.clone().unwrap();
    let mut account = with([orphan, seen(1, SlotState::Live)]);
    let status = shown(&account);
    let (orphaned, _, message) = said(&status, kind::ORPHANED_KEYS).unwrap();
    assert!(orphaned);
    assert!(!message.contains("  "), "{message}");
    for part in ["shop/app-0", &attempt, &name, "keys.bags.fm/revoke: <attempts>", "1h"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    assert!(!message.contains("app-1") && !message.contains("value is lost"), "{message}");
    account.slots[0].stored = Stored::Absent;
    assert!(said(&shown(&account), kind::ORPHANED_KEYS).unwrap().2.contains("value is lost"));
    let gone = NamespaceSeen { asked: account.now, gone_since: Some(account.now) };
    account.facts.namespaces.insert("shop".into(), gone);
    assert_eq!(said(&shown(&account), kind::ORPHANED_KEYS), None);
}

#[test]
fn a_list_without_our_keys_is_said_to_prove_nothing() {
    let mut account = with([seen(0, SlotState::Live)]);
    let cases = [
        (Coverage::No, Some(false), Some((false, "ListDoesNotCover"))),
        (Coverage::No, Some(true), Some((true, "Covers"))),
        (Coverage::No, None, None),
    ];
    for (coverage, shows_live, expected) in cases {
        if let Some(list) = &mut account.list {
            (list.coverage, list.shows_live) = (coverage, shows_live);
        }
        let status = shown(&account);
        let said = said(&status, kind::LIST_COVERS).map(|(ok, reason, _)| (ok, reason));
        assert_eq!(said, expected, "{coverage:?} {shows_live:?}");
    }
}

#[test]
fn the_quota_is_told_with_numbers_once_it_is_used_up() {
    let live = |count| with((0..count).map(|n| seen(n, SlotState::Live)));
    let message = |account: &Observation| {
        let status = shown(account);
        let (ok, reason, message) = said(&status, kind::QUOTA_AVAILABLE).unwrap();
        (ok, reason.to_owned(), message.to_owned())
    };
    assert!(message(&live(8)).0);
    let (ok, reason, text) = message(&live(9));
    assert_eq!((ok, reason.as_str()), (false, "Full"));
    assert!(text.starts_with("9 of 10 in use (0 made elsewhere), 1 kept for rotations"), "{text}");
    let mut over = live(9);
    if let Some(list) = &mut over.list {
        list.unmanaged = 2;
    }
    assert_eq!(message(&over).1, "Full");
    let status = shown(&over);
    let (over, reason, text) = said(&status, kind::OVER_QUOTA).unwrap();
    assert_eq!((over, reason), (true, "LimitExceeded"));
    assert!(text.starts_with("11 of 10 in use (2 made elsewhere)"), "{text}");
    assert_eq!(said(&shown(&live(9)), kind::OVER_QUOTA), None, "full is not over");
}

#[test]
fn a_person_is_told_name_id_page_and_reason_of_every_key_to_revoke() {
    let revoking = seen(0, SlotState::Revoking);
    let (name, id) = (revoking.slot.key_name.clone().unwrap(), revoking.slot.key_id.clone().unwrap());
    let mut account = with([revoking]);
    assert_eq!(said(&shown(&account), kind::REVOCATION_NEEDS_PERSON), None);
    account.facts.endpoint = Some(Endpoint { found: false, at: account.wall, with: account.endpoint() });
    let status = shown(&account);
    let (needed, reason, message) = said(&status, kind::REVOCATION_NEEDS_PERSON).unwrap();
    assert_eq!((needed, reason), (true, "NoRevokeEndpoint"));
    let own = "a last use that comes of that is its own";
    for part in [&name, &id, "https://dev.bags.fm", "shop/app-0", "/agent/dev/keys/revoke", own] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    assert_eq!(status.capabilities.revoke, Capability::No);
    account.slots.clear();
    assert_eq!(said(&shown(&account), kind::REVOCATION_NEEDS_PERSON), None);
}

#[test]
fn a_lost_value_without_a_list_asks_for_a_persons_word() {
    let lost = SlotSeen {
        stored: Stored::Absent,
        verdict: Verdict::NotCovered,
        memory: KeyMemory { revocations: 1, ..KeyMemory::default() },
        ..seen(0, SlotState::Revoking)
    };
    let status = shown(&with([lost]));
    let (_, reason, message) = said(&status, kind::REVOCATION_NEEDS_PERSON).unwrap();
    assert_eq!(reason, "ValueLost");
    assert!(message.contains("keys.bags.fm/resolved"), "{message}");
}

#[test]
fn an_unresolved_key_names_attempt_key_page_and_annotation() {
    let unresolved = seen(0, SlotState::Unresolved);
    let attempt = unresolved.slot.attempt.clone().unwrap();
    let name = unresolved.slot.key_name.clone().unwrap();
    let status = shown(&with([unresolved]));
    let (_, _, message) = said(&status, kind::KEY_UNRESOLVED).unwrap();
    for part in [&attempt, &name, "https://dev.bags.fm", "keys.bags.fm/resolved: <attempts>"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn strays_are_reported_by_name() {
    let mut account = account();
    if let Some(list) = &mut account.list {
        list.stray = vec!["Production-Web-01234567-abcdefghij".into()];
    }
    let entry = |attempt: &str, value| LooseEntry {
        attempt: attempt.into(),
        value,
        created: None,
        watched: Duration::ZERO,
        running: false,
    };
    account.loose = vec![entry("kept", true), entry("empty", false)];
    let status = shown(&account);
    assert!(said(&status, kind::STRAY_KEYS).unwrap().2.contains("Production-Web-01234567-abcdefghij"));
    let (_, _, values) = said(&status, kind::STRAY_VALUES).unwrap();
    assert!(values.contains("bags-key-kept") && !values.contains("bags-key-empty"), "{values}");
}

#[test]
fn a_deletion_counts_and_names_what_it_waits_for() {
    let mut account = with([seen(0, SlotState::Live), seen(1, SlotState::Revoking)]);
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH);
    Arc::make_mut(&mut account.account).metadata.deletion_timestamp = Some(time);
    let status = shown(&account);
    let (ok, reason, message) = said(&status, kind::READY).unwrap();
    assert_eq!((ok, reason), (false, "Deleting"));
    for part in ["2 left", "shop/app-0 (Live)", "shop/app-1 (Revoking)", "keys.bags.fm/forget"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn a_deletion_names_the_way_out_of_slots_whose_apikeys_are_gone() {
    let gone = |n, state| SlotSeen { owner: OwnerSeen::Gone, ..seen(n, state) };
    let (there, released) = (|| seen(0, SlotState::Live), gone(1, SlotState::Released));
    let (orphan, dying) = (gone(2, SlotState::Live), gone(3, SlotState::Revoking));
    let named = |seen: &SlotSeen| {
        let (slot, attempt) = (&seen.slot, seen.attempt().unwrap());
        format!("shop/{} ({}, attempt {attempt})", slot.owner.name, slot.state.as_str())
    };
    let names = [named(&released), named(&orphan)];
    let (delete, revoke, resolve) =
        ("Delete the ApiKeys", "keys.bags.fm/revoke: <attempts>", "keys.bags.fm/resolved: <attempts>");
    let cases = [
        ("an ApiKey that is there", vec![there()], vec![delete]),
        ("a key that is left to people", vec![released.clone()], vec![resolve]),
        ("one whose ApiKey vanished", vec![orphan.clone()], vec![revoke]),
        ("one that goes by itself", vec![dying], vec![]),
        (
            "all of them",
            vec![there(), released.clone(), orphan.clone()],
            vec![delete, resolve, revoke, &names[0], &names[1], "shop/app-0 (Live)"],
        ),
    ];
    for (name, slots, expected) in cases {
        let status = shown(&deleting(with(slots)));
        let (_, reason, message) = said(&status, kind::READY).unwrap();
        assert_eq!(reason, "Deleting", "{name}");
        for part in [delete, revoke, resolve] {
            assert_eq!(message.contains(part), expected.contains(&part), "{name}, {part}: {message}");
        }
        for part in expected.into_iter().chain(["keys.bags.fm/forget"]) {
            assert!(message.contains(part), "{name}: {part} is not in: {message}");
        }
    }
}

#[test]
fn whatever_a_deleted_account_waits_for_its_message_names_how_to_let_it_go_at_once() {
    let dead = LooseEntry {
        attempt: "abcdefghij".into(),
        value: true,
        created: None,
        watched: Duration::ZERO,
        running: false,
    };
    let cases = [
        ("slot", with([seen(0, SlotState::Live)])),
        ("keystore", Observation { departed: vec!["abcdefghij".into()], loose: vec![dead], ..account() }),
        ("ApiKeys that are being deleted", Observation { leaving: true, ..account() }),
    ];
    for (wait, case) in cases {
        let status = shown(&deleting(case));
        let (_, reason, message) = said(&status, kind::READY).unwrap();
        assert_eq!(reason, "Deleting");
        assert!(message.contains(wait) && message.contains("keys.bags.fm/forget: \"true\""), "{message}");
    }
}

#[test]
fn a_deleted_account_whose_ledger_was_lost_says_so() {
    let mut account = deleting(account());
    Arc::make_mut(&mut account.account).status = None;
    let (slot, key) = (seen(0, SlotState::Live).slot, KeyMemory::default());
    account.remnants = Some(vec![Remnant {
        owner: slot.owner,
        key_use: slot.key_use,
        trigger: None,
        key_name: slot.key_name,
        key_id: slot.key_id,
        revision: 1,
        attempt: "abcdefghij".into(),
        value: true,
        released: false,
        created: None,
        installation: Some(account.installation.clone()),
        published: None,
        memory: key,
    }]);
    let status = shown(&account);
    let (ok, reason, message) = said(&status, kind::READY).unwrap();
    assert_eq!((ok, reason), (false, "LedgerLost"));
    assert!(message.contains("bags-key-abcdefghij"), "{message}");
    account.remnants = Some(vec![]);
    let status = shown(&account);
    let (_, reason, message) = said(&status, kind::READY).unwrap();
    assert_eq!(reason, "Deleting");
    assert!(!message.contains("0 left"), "{message}");
}

#[test]
fn another_installations_account_is_only_said_to_be_one() {
    let mut account = with([seen(0, SlotState::Unresolved)]);
    let status = Arc::make_mut(&mut account.account).status.get_or_insert_default();
    status.installation = Some(Installation { cluster: "89abcdef".into(), namespace: "there".into() });
    let mut status = status.clone();
    show_foreign(&mut status, &account.account, &account, account.wall);
    assert_eq!(status.conditions.len(), 1);
    let (ok, reason, message) = said(&status, kind::READY).unwrap();
    assert_eq!((ok, reason), (false, "ForeignInstallation"));
    assert!(message.contains("89abcdef") && message.contains("keys.bags.fm/take-over"), "{message}");
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Condition {
    serde_json::from_value(json!({
        "type": type_, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }))
    .unwrap()
}

#[test]
fn events_are_written_on_transitions_only() {
    let refused = condition(kind::CREDENTIALS_VALID, "False", "TokenRefused", "no");
    let accepted = condition(kind::CREDENTIALS_VALID, "True", "Accepted", "yes");
    let person = |message| condition(kind::REVOCATION_NEEDS_PERSON, "True", "NoAgentToken", message);
    let reasons = |before: &[Condition], after: &[Condition]| -> Vec<EventReason> {
        transitions(before, after).into_iter().map(|(reason, _)| reason).collect()
    };
    let none: &[EventReason] = &[];
    type Case<'a> = (&'a str, &'a [Condition], &'a [Condition], &'a [EventReason]);
    let replaced = condition(kind::CREDENTIALS_VALID, "True", "NotTried", "replaced");
    let cases: [Case<'_>; 8] = [
        (
            "what replaced it is not known to be good",
            std::slice::from_ref(&refused),
            std::slice::from_ref(&replaced),
            none,
        ),
        (
            "until a key was made with it",
            std::slice::from_ref(&replaced),
            std::slice::from_ref(&accepted),
            &[EventReason::CredentialsAccepted],
        ),
        ("the first good word is no news", &[], std::slice::from_ref(&accepted), none),
        ("a refusal is", &[], std::slice::from_ref(&refused), &[EventReason::CredentialsRefused]),
        (
            "and its end",
            std::slice::from_ref(&refused),
            std::slice::from_ref(&accepted),
            &[EventReason::CredentialsAccepted],
        ),
        ("what stays is not", std::slice::from_ref(&refused), std::slice::from_ref(&refused), none),
        (
            "another key for a person is",
            &[person("one")],
            &[person("two")],
            &[EventReason::RevocationNeedsPerson],
        ),
        ("the same key is not", &[person("one")], &[person("one")], none),
    ];
    for (name, before, after, expected) in cases {
        assert_eq!(reasons(before, after), expected, "{name}");
    }
}
