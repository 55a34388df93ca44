use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{
        account::{Slot, SlotState},
        apikey::SecretTemplate,
    },
    apikey::{
        claim::Others,
        fixtures::{account, key, now, theirs},
    },
    fixtures::{installation, lay_over},
    timings::Timings,
};

/// The usual account, pinned and ready, with these fields of its spec and status over it.
pub(crate) fn with(spec: &Value, status: &Value) -> BagsAccount {
    let mut value = serde_json::to_value(account()).unwrap();
    value["status"] = json!({
        "installation": installation(), "capabilities": {},
        "capacity": {"limit": 10, "used": 0, "reserved": 1, "unmanaged": 0, "available": 9},
        "conditions": [condition("True", "Usable")],
    });
    lay_over(&mut value["spec"], spec);
    lay_over(&mut value["status"], status);
    serde_json::from_value(value).unwrap()
}

fn condition(status: &str, reason: &str) -> Value {
    json!({"type": "Ready", "status": status, "reason": reason, "message": "", "lastTransitionTime": "2027-01-01T00:00:00Z"})
}

fn live(n: usize) -> Vec<Slot> {
    (1..=n).map(|n| theirs(n, SlotState::Live)).collect()
}

fn ask(account: &BagsAccount, key: &ApiKey, others: &[ApiKey]) -> Verdict {
    let keys = others.iter().cloned().map(Arc::new).collect();
    ask_beside(account, key, &Others { keys, ..Others::default() })
}

fn ask_beside(account: &BagsAccount, key: &ApiKey, others: &Others) -> Verdict {
    let ledger = Ledger::of(account.status.as_ref());
    let claim = Claim::of(account, &ledger, key, others, &BTreeMap::new(), now(), &Timings::default());
    judge(&Case { key, account: Some(account), claim: Some(&claim), installation: &installation() })
}

fn reserves(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Admit { reserve: Some(Change::Reserve { .. }), .. })
}

fn denied(verdict: &Verdict) -> &Denial {
    match verdict {
        Verdict::Deny(denial) => denial,
        Verdict::Admit { .. } => panic!("it was admitted: {verdict:?}"),
    }
}

fn warned(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Admit { reserve: None, warnings } => warnings.join("\n"),
        _ => panic!("it was not admitted without a place: {verdict:?}"),
    }
}

/// Another ApiKey of the account, older than ours.
fn other(n: usize, edit: impl FnOnce(&mut ApiKey)) -> ApiKey {
    let mut other = key();
    other.metadata.name = Some(format!("app-{n}"));
    other.metadata.uid = Some(format!("uid-{n}"));
    other.spec.secret = None;
    edit(&mut other);
    other
}

/// `max` keys may be in the namespace, and these are.
fn with_max(max: i64, slots: Vec<Slot>) -> BagsAccount {
    with(&json!({"allowed": [{"namespaces": ["shop"], "max": max}]}), &json!({"slots": slots}))
}

#[test]
fn a_rename_is_admitted_also_where_the_namespace_has_all_it_may_have() {
    let full = |key_use| with_max(1, vec![Slot { key_use, ..theirs(1, SlotState::Live) }]);
    let (key, another) = (new_key(), theirs(2, SlotState::Live).key_use);
    assert_eq!(denied(&ask(&full(another.clone()), &key, &[])).reason, "NamespaceQuotaExceeded");
    // The old name goes once the new one is there.
    let old = other(1, |other| other.spec.application = Some(key.application()));
    let said = warned(&ask(&full(key.key_use()), &key, &[old]));
    assert!(said.contains("app-1"), "{said}");
    let mut suspended = new_key();
    suspended.spec.suspend = Some(true);
    let said = warned(&ask(&full(another), &suspended, &[]));
    assert!(said.contains("no slot is kept"), "{said}");
}

#[test]
fn what_a_namespace_may_still_have_is_for_those_of_it_that_came_first() {
    let account = with_max(2, live(1));
    let waits = other(20, |other| other.spec.application = Some("older".to_owned()));
    let denial = ask(&account, &new_key(), std::slice::from_ref(&waits));
    let said = &denied(&denial).message;
    assert!(said.contains("as it may have (2), with those of older ApiKeys that wait"), "{said}");
    // Those that wait for something else, and those of other namespaces, do not count.
    let mut suspended = waits.clone();
    suspended.spec.suspend = Some(true);
    let mut elsewhere = waits;
    elsewhere.metadata.namespace = Some("elsewhere".to_owned());
    for other in [suspended, elsewhere] {
        assert!(reserves(&ask(&account, &new_key(), &[other])));
    }
}

#[test]
fn who_is_refused_reads_how_many_keys_make_room_by_themselves() {
    let message = |account: &BagsAccount| denied(&ask(account, &new_key(), &[])).message.clone();
    let of_account = |slots: Vec<Slot>| message(&with(&json!({}), &json!({"slots": slots})));
    let mut slots = live(8);
    slots.push(theirs(20, SlotState::Revoking));
    let said = of_account(slots);
    assert!(said.contains("9 of 10 in use") && said.contains("; 1 of them are on their way out"), "{said}");
    let said = message(&with_max(1, vec![theirs(1, SlotState::Revoking)]));
    assert!(said.contains("RevocationNeedsPerson"), "{said}");
    let said = message(&with_max(1, vec![theirs(1, SlotState::Released)]));
    assert!(said.contains("; 1 were left to people") && !said.contains("RevocationNeedsPerson"), "{said}");
    // The old key of a rotation leaves no room: its ApiKey stays.
    let mut rotated = live(2);
    rotated.push(theirs(1, SlotState::Revoking));
    for said in [of_account(live(9)), message(&with_max(2, live(2))), message(&with_max(2, rotated))] {
        assert!(!said.contains("on their way out"), "{said}");
    }
}

pub(crate) fn new_key() -> ApiKey {
    let mut key = key();
    key.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    key
}

#[test]
fn each_obstacle_has_words_of_its_own_that_name_the_way_out() {
    let slots = |slots: Vec<Slot>| json!({"slots": slots});
    let cases = [
        (
            "being deleted",
            {
                let mut account = with(&json!({}), &json!({}));
                account.metadata.deletion_timestamp = new_key().metadata.creation_timestamp;
                account
            },
            "AccountDeleting",
            "name another one",
        ),
        (
            "of another installation",
            with(&json!({}), &json!({"installation": {"cluster": "c", "namespace": "n"}})),
            "ForeignInstallation",
            "keys.bags.fm/take-over",
        ),
        ("not looked at", with(&json!({}), &json!({"installation": null})), "AccountNotReady", "in a moment"),
        (
            "whose ledger was lost",
            with(
                &json!({}),
                &json!({"installation": null, "conditions": [condition("False", "LedgerLost")]}),
            ),
            "AccountNotReady",
            "LedgerLost",
        ),
        (
            "not looked at, although pinned",
            with(&json!({}), &json!({"conditions": []})),
            "AccountNotReady",
            "in a moment",
        ),
        (
            "closed to the namespace, and not ready",
            with(&json!({"allowed": []}), &json!({"conditions": [condition("False", "CredentialsMissing")]})),
            "NamespaceNotAllowed",
            "spec.allowed",
        ),
        (
            "not ready",
            with(&json!({}), &json!({"conditions": [condition("False", "CredentialsMissing")]})),
            "AccountNotReady",
            "CredentialsMissing",
        ),
        (
            "newer",
            with(&json!({}), &slots(vec![theirs(1, SlotState::Unknown("Frozen".into()))])),
            "NewerLedger",
            "until that version runs",
        ),
        (
            "closed to the namespace",
            with(&json!({"allowed": []}), &json!({})),
            "NamespaceNotAllowed",
            "spec.allowed",
        ),
        (
            "closed to the environment",
            with(&json!({"allowed": [{"namespaces": ["shop"], "environments": ["staging"]}]}), &json!({})),
            "EnvironmentNotAllowed",
            "it allows: staging",
        ),
        (
            "full for the namespace",
            with(&json!({"allowed": [{"namespaces": ["shop"], "max": 2}]}), &slots(live(2))),
            "NamespaceQuotaExceeded",
            "as it may have (2)",
        ),
        ("full", with(&json!({}), &slots(live(9))), "QuotaExceeded", "admission: Queue"),
    ];
    for (what, account, reason, words) in cases {
        let verdict = ask(&account, &new_key(), &[]);
        let denial = denied(&verdict);
        assert_eq!(denial.reason, reason, "{what}");
        assert!(denial.message.contains(words), "{what}: {}", denial.message);
        assert_eq!(denial.passing, what.starts_with("not looked at"), "{what}");
        assert!(
            !denial.message.contains("app-1"),
            "{what} names another tenant's ApiKey: {}",
            denial.message
        );
    }
    let verdict = judge(&Case { key: &new_key(), account: None, claim: None, installation: &installation() });
    assert!(denied(&verdict).message.contains("spec.accountRef.name"));
}

#[test]
fn an_account_of_another_installation_in_this_cluster_is_left_to_its_own_webhook() {
    let neighbour = json!({"cluster": installation().cluster, "namespace": "bags-staging"});
    let said = |spec: Value, status: Value| ask(&with(&spec, &status), &new_key(), &[]);
    for (what, verdict) in [
        ("with room", said(json!({}), json!({"installation": neighbour}))),
        ("full", said(json!({}), json!({"installation": neighbour, "slots": live(9)}))),
        ("closed to the namespace", said(json!({"allowed": []}), json!({"installation": neighbour}))),
    ] {
        assert_eq!(verdict, Verdict::Admit { reserve: None, warnings: vec![] }, "{what}");
    }
    let elsewhere = json!({"cluster": "cluster-1", "namespace": installation().namespace});
    assert_eq!(denied(&said(json!({}), json!({"installation": elsewhere}))).reason, "ForeignInstallation");
}

#[test]
fn a_namespace_counts_its_apikeys_and_not_the_second_keys_of_their_rotations() {
    let rotating = vec![theirs(1, SlotState::Live), theirs(1, SlotState::Creating)];
    let asked = |max: i64| {
        let spec = json!({"allowed": [{"namespaces": ["shop"], "max": max}]});
        ask(&with(&spec, &json!({"slots": rotating})), &new_key(), &[])
    };
    let Verdict::Admit { reserve: Some(Change::Reserve { max, .. }), .. } = asked(2) else {
        panic!("refused")
    };
    assert_eq!(max, Some(2), "the ledger is to judge it once more");
    assert_eq!(denied(&asked(1)).reason, "NamespaceQuotaExceeded");
}

#[test]
fn a_full_account_is_told_in_numbers() {
    let status = json!({"slots": live(8), "capacity": {"limit": 10, "used": 9, "reserved": 1, "unmanaged": 1, "available": 0},
        "capabilities": {"list": "Yes"}});
    let verdict = ask(&with(&json!({}), &status), &new_key(), &[]);
    assert_eq!(
        denied(&verdict).message,
        "account \"main\" has no slot for another key: 9 of 10 in use (8 by ApiKeys, 1 made elsewhere), 1 kept for \
         rotations; delete an ApiKey, or ask the platform team for admission: Queue or a higher limit"
    );
}

#[test]
fn what_fits_keeps_its_place_and_is_warned_where_it_is_the_last() {
    let place = |slots, spec: Value| ask(&with(&spec, &json!({"slots": live(slots)})), &new_key(), &[]);
    let Verdict::Admit { reserve: Some(_), warnings } = place(3, json!({})) else { panic!() };
    assert_eq!(warnings, Vec::<String>::new());
    let Verdict::Admit { reserve: Some(_), warnings } = place(8, json!({})) else { panic!() };
    assert_eq!(
        warnings,
        ["no slot is left for further ApiKeys of account \"main\" (9 of 10 in use, 1 kept for rotations)"]
    );
    let Verdict::Admit { reserve: Some(_), warnings } = place(0, json!({"rotationReserve": 0})) else {
        panic!()
    };
    assert!(warnings[0].contains("rotationReserve: 0"), "{warnings:?}");
}

#[test]
fn who_has_a_slot_is_admitted_again_whatever_has_happened_since() {
    let mut slots = live(9);
    slots.push(theirs(0, SlotState::Reserved));
    let account = with(&json!({"allowed": []}), &json!({"slots": slots}));
    assert_eq!(ask(&account, &new_key(), &[]), Verdict::Admit { reserve: None, warnings: vec![] });
}

#[test]
fn who_tries_again_after_a_creation_that_failed_finds_the_place_of_the_first_try() {
    let mut left = theirs(0, SlotState::Reserved);
    left.owner.uid = "uid-of-the-first-try".into();
    let slots = json!({"slots": live(8).into_iter().chain([left.clone()]).collect::<Vec<_>>()});
    assert!(reserves(&ask(&with(&json!({}), &slots), &new_key(), &[])));
    let most = json!({"allowed": [{"namespaces": ["shop"], "max": 9}]});
    assert!(reserves(&ask(&with(&most, &slots), &new_key(), &[])), "its namespace has its share with it");
    (left.owner.name, left.key_use) = ("app-20".into(), "production/app-20".into());
    let slots = json!({"slots": live(8).into_iter().chain([left]).collect::<Vec<_>>()});
    assert_eq!(denied(&ask(&with(&json!({}), &slots), &new_key(), &[])).reason, "QuotaExceeded");
}

#[test]
fn a_second_apikey_of_the_same_use_waits_for_the_first_unless_that_is_going() {
    let account = with(&json!({}), &json!({}));
    let rival = |edit: fn(&mut ApiKey)| {
        other(1, |other| {
            other.spec.application = Some("app-0".into());
            edit(other);
        })
    };
    let said = warned(&ask(&account, &new_key(), &[rival(|_| {})]));
    assert!(said.contains("shop/app-1") && said.contains("waits until"), "{said}");
    let going = rival(|other| other.metadata.deletion_timestamp = new_key().metadata.creation_timestamp);
    assert!(reserves(&ask(&account, &new_key(), &[going])));
    let elsewhere = rival(|other| other.spec.account_ref.name = "another".into());
    assert!(reserves(&ask(&account, &new_key(), &[elsewhere])));
    let intruder = rival(|other| other.metadata.namespace = Some("not-allowed".into()));
    assert!(reserves(&ask(&account, &new_key(), &[intruder])), "who may not use the account holds no use");
}

#[test]
fn a_use_is_held_by_the_place_that_is_kept_for_it_before_any_cache_shows_its_apikey() {
    let mut place = theirs(1, SlotState::Reserved);
    place.key_use = new_key().key_use();
    let ask = |place: &Slot, others: &[ApiKey]| {
        ask(&with(&json!({}), &json!({"slots": [place]})), &new_key(), others)
    };
    let said = warned(&ask(&place, &[]));
    assert!(said.contains(&place.owner.name) && said.contains("waits until"), "{said}");
    let going = other(1, |other| {
        other.metadata.uid = Some(place.owner.uid.clone());
        other.metadata.deletion_timestamp = new_key().metadata.creation_timestamp;
    });
    assert!(reserves(&ask(&place, &[going])), "its owner is being deleted");
    let mut earlier_try = place.clone();
    earlier_try.owner.namespace = new_key().namespace().unwrap();
    earlier_try.owner.name = new_key().name_any();
    assert!(reserves(&ask(&earlier_try, &[])), "an earlier try of the same ApiKey");
}

#[test]
fn a_use_is_held_by_a_key_whose_apikey_no_cache_shows_until_a_live_read_says_that_it_is_gone() {
    let states = [SlotState::Live, SlotState::Unresolved, SlotState::Lost, SlotState::Revoking];
    for state in states {
        let mut slot = theirs(1, state.clone());
        slot.key_use = new_key().key_use();
        let account = with(&json!({}), &json!({"slots": [slot]}));
        let found = |edit: fn(&mut ApiKey)| {
            other(1, |other| {
                other.metadata.uid = Some(slot.owner.uid.clone());
                other.spec.application = Some("app-0".into());
                edit(other);
            })
        };
        let ask = |looked_for: bool, found: Option<ApiKey>| {
            let uids = looked_for.then(|| slot.owner.uid.clone());
            let others = Others {
                keys: found.into_iter().map(Arc::new).collect(),
                looked_for: uids.into_iter().collect(),
            };
            ask_beside(&account, &new_key(), &others)
        };
        for (what, verdict) in
            [("it was not looked for", ask(false, None)), ("it is there", ask(true, Some(found(|_| {}))))]
        {
            let said = warned(&verdict);
            assert!(
                said.contains(&slot.owner.name) && said.contains("waits until"),
                "{state:?}, {what}: {said}"
            );
        }
        let going = found(|other| other.metadata.deletion_timestamp = new_key().metadata.creation_timestamp);
        assert!(reserves(&ask(true, Some(going))), "{state:?}: it is being deleted");
        assert!(reserves(&ask(true, None)), "{state:?}: it vanished, and nobody would ever come");
    }
}

#[test]
fn those_who_wait_come_first() {
    let account = with(&json!({}), &json!({"slots": live(8)}));
    let waits = other(20, |_| {});
    assert_eq!(denied(&ask(&account, &new_key(), std::slice::from_ref(&waits))).reason, "QuotaExceeded");
    let suspended = other(20, |other| other.spec.suspend = Some(true));
    assert!(reserves(&ask(&account, &new_key(), &[suspended])));
    // It would take no slot: the name of its Secret is that of one which goes, or is of another account.
    for edit in [
        (|first| first.metadata.deletion_timestamp = new_key().metadata.creation_timestamp)
            as fn(&mut ApiKey),
        |first| first.spec.account_ref.name = "another".to_owned(),
    ] {
        let template = |key: &mut ApiKey| {
            key.spec.secret =
                Some(SecretTemplate { name: Some("taken".to_owned()), ..SecretTemplate::default() });
        };
        let first = other(19, |first| {
            template(first);
            edit(first);
        });
        assert!(reserves(&ask(&account, &new_key(), &[first, other(20, template)])));
    }
    let said = denied(&ask(&account, &new_key(), std::slice::from_ref(&waits))).message.clone();
    assert!(said.contains("8 of 10 in use") && said.contains("1 wait"), "{said}");
}

#[test]
fn those_who_wait_by_the_label_of_the_same_namespace_come_first_as_well() {
    let allowed = json!({"allowed": [{"selector": {"matchLabels": {"team": "web"}}}]});
    let account = with(&allowed, &json!({"slots": live(8)}));
    let labels = BTreeMap::from([("team".to_owned(), "web".to_owned())]);
    let ledger = Ledger::of(account.status.as_ref());
    let (key, waits) = (new_key(), Arc::new(other(20, |_| {})));
    let others = Others { keys: vec![waits], ..Others::default() };
    let claim = Claim::of(&account, &ledger, &key, &others, &labels, now(), &Timings::default());
    assert_eq!((claim.ahead, claim.fits(&ledger)), (1, false));
}

#[test]
fn a_queue_admits_with_a_warning_what_does_not_fit_and_still_refuses_what_is_not_allowed() {
    let queue = |mut spec: Value, status: Value| {
        spec["admission"] = json!("Queue");
        ask(&with(&spec, &status), &new_key(), &[])
    };
    let said = warned(&queue(json!({}), json!({"slots": live(9)})));
    assert!(said.contains("9 of 10 in use") && said.contains("waits until one is free"), "{said}");
    let max = json!({"allowed": [{"namespaces": ["shop"], "max": 2}]});
    assert!(warned(&queue(max, json!({"slots": live(2)}))).contains("as it may have (2)"));
    assert!(warned(&queue(json!({}), json!({"installation": null}))).contains("waits"));
    let missing = json!({"conditions": [condition("False", "CredentialsMissing")]});
    assert!(warned(&queue(json!({}), missing)).contains("CredentialsMissing"));
    for status in [json!({}), json!({"installation": null}), json!({"conditions": []})] {
        assert_eq!(denied(&queue(json!({"allowed": []}), status)).reason, "NamespaceNotAllowed");
    }
    assert!(reserves(&queue(json!({}), json!({"slots": live(8)}))));
}

#[test]
fn a_suspended_apikey_keeps_no_place() {
    let mut key = new_key();
    key.spec.suspend = Some(true);
    assert!(warned(&ask(&with(&json!({}), &json!({})), &key, &[])).contains("spec.suspend"));
}

#[test]
fn one_that_waits_for_the_name_of_its_secret_keeps_no_place() {
    let account = with(&json!({}), &json!({}));
    let same = |key: &mut ApiKey| key.spec.secret = new_key().spec.secret;
    let elsewhere = |key: &mut ApiKey| {
        same(key);
        key.spec.account_ref.name = "another".to_owned();
    };
    let first = [other(9, same), other(9, elsewhere)];
    for first in &first {
        let said = warned(&ask(&account, &new_key(), std::slice::from_ref(first)));
        assert!(said.contains("\"app-9\" came first") && said.contains("no slot is kept"), "{said}");
    }
    let going = other(9, |first| {
        same(first);
        first.metadata.deletion_timestamp = new_key().metadata.creation_timestamp;
    });
    assert!(reserves(&ask(&account, &new_key(), &[going])), "that one goes by itself");
    let another_namespace = other(9, |first| {
        same(first);
        first.metadata.namespace = Some("elsewhere".to_owned());
    });
    assert!(reserves(&ask(&account, &new_key(), &[another_namespace])));
}

/// A box of an account: room for one key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Box {
    Free,
    KeptForRotations,
    Full,
}

/// How many newcomers an account has boxes for, found by putting every key into one. A second key of somebody goes where room is kept
/// for it; what finds no box lies beside them, and takes nobody's place.
fn boxes_left(limit: usize, slots: &[Slot], unmanaged: usize, reserve: usize) -> usize {
    let mut boxes: Vec<Box> =
        (0..limit).map(|n| if n < reserve { Box::KeptForRotations } else { Box::Free }).collect();
    let mut put = |into: &[Box]| {
        let found = into.iter().find_map(|kind| boxes.iter().position(|one| one == kind));
        if let Some(found) = found {
            boxes[found] = Box::Full;
        }
    };
    let mut owners: Vec<&str> = Vec::new();
    for slot in slots {
        let second = slot.state != SlotState::Released && owners.contains(&slot.owner.uid.as_str());
        if slot.state != SlotState::Released {
            owners.push(&slot.owner.uid);
        }
        put(if second { &[Box::KeptForRotations, Box::Free] } else { &[Box::Free] });
    }
    (0..unmanaged).for_each(|_| put(&[Box::Free]));
    boxes.iter().filter(|one| **one == Box::Free).count()
}

proptest! {
    #[test]
    fn as_many_are_admitted_as_there_are_boxes_left(
        owners in proptest::collection::vec((0_usize..12, 0_usize..7), 0..24),
        limit in 1_usize..14, reserve in 0_usize..4, unmanaged in 0_usize..4, waiting in 0_usize..4,
    ) {
        let states = [
            SlotState::Reserved, SlotState::Creating, SlotState::Live, SlotState::Lost, SlotState::Unresolved,
            SlotState::Revoking, SlotState::Released,
        ];
        let slots: Vec<Slot> = owners.iter().map(|(n, state)| theirs(n + 1, states[*state].clone())).collect();
        let account = with(
            &json!({"limit": limit, "rotationReserve": reserve, "unmanagedKeys": unmanaged}),
            &json!({"slots": slots.clone()}),
        );
        let waiting: Vec<ApiKey> = (0..waiting).map(|n| other(50 + n, |_| {})).collect();
        let verdict = ask(&account, &new_key(), &waiting);
        let free = boxes_left(limit, &slots, unmanaged, reserve);
        prop_assert_eq!(reserves(&verdict), waiting.len() < free, "{:?}", verdict);
        // One after the other, exactly as many are admitted as there are boxes left.
        let mut ledger = Ledger::of(account.status.as_ref());
        let mut admitted = 0;
        for n in 0..limit + 2 {
            let mut account = account.clone();
            account.status.as_mut().unwrap().slots = ledger.slots.clone();
            let newcomer = other(100 + n, |key| key.metadata.creation_timestamp = new_key().metadata.creation_timestamp);
            if let Verdict::Admit { reserve: Some(change), .. } = ask(&account, &newcomer, &[]) {
                let terms = crate::ledger::slots::Terms {
                    room: crate::ledger::Room::of(&account, now(), &Timings::default()),
                    now: now(),
                    licence_term: Timings::default().licence_term,
                };
                ledger = ledger.apply(&change, &terms).unwrap();
                admitted += 1;
            }
        }
        prop_assert_eq!(admitted, free);
    }
}
