//! What a run writes and tells: status, events, metrics.

use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{
        BagsAccount, BagsAccountStatus,
        account::Installation,
        apikey::{CurrentKey, Switch},
    },
    apikey::fixtures::{MINUTE, account, key, mine, seen, switched},
    consumer_secret::Found,
    fixtures::{Came, Requests, failure, installation, methods, process, server},
    operator::parts::Watches,
};

#[tokio::test]
async fn a_status_that_lost_its_conflicts_is_not_told_and_soon_tried_again() {
    let mut there = key();
    there.metadata.resource_version = Some("1".to_owned());
    let mut watches = Watches::new();
    watches.keys.1.apply_watcher_event(&Event::Apply(there.clone()));
    let reference = ObjectRef::from_obj(&there);
    let mut version = 1;
    let (kube, asked) = server(move |request, _| {
        if request.method == Method::PUT {
            return failure(409, "Conflict");
        }
        // Somebody annotates it each time.
        version += 1;
        there.metadata.resource_version = Some(version.to_string());
        (200, json!(there))
    });
    let outcome = reconcile(&process(&watches, kube), &reference).await;
    assert!(matches!(outcome, Outcome::Wait(wait) if wait < Duration::from_secs(2)), "{outcome:?}");
    assert_eq!(methods(&asked), "PUT GET PUT GET");
}

/// A process with this ApiKey and this account, whose API server answers so.
fn knowing(
    key: &ApiKey,
    account: Option<BagsAccount>,
    answer: impl FnMut(&Came, usize) -> (u16, Value) + Send + 'static,
) -> (Arc<Context>, Requests) {
    let mut watches = Watches::new();
    watches.keys.1.apply_watcher_event(&Event::Apply(key.clone()));
    if let Some(account) = account {
        watches.accounts.1.apply_watcher_event(&Event::Apply(account));
    }
    let (kube, asked) = server(answer);
    (process(&watches, kube), asked)
}

#[tokio::test]
async fn an_apikey_of_a_neighbour_is_counted_nowhere_whatever_failed_before() {
    let neighbour = Installation { namespace: "bags-staging".into(), ..installation() };
    let status = BagsAccountStatus {
        installation: Some(neighbour),
        slots: vec![mine(SlotState::Live)],
        ..BagsAccountStatus::default()
    };
    let account = BagsAccount { status: Some(status), ..account() };
    let (context, _) = knowing(&key(), Some(account), |_, before| match before {
        0 => failure(500, "InternalError"),
        _ => failure(404, "NotFound"),
    });
    let reference = ObjectRef::from_obj(&key());
    let counts = |line: &str| context.metrics.encode().lines().any(|told| told == line);
    reconcile(&context, &reference).await;
    let failed = r#"bags_operator_not_ready{kind="ApiKey",reason="ApiServerUnavailable"} "#;
    assert!(counts(&format!("{failed}1")), "{}", context.metrics.encode());
    // It was served here, in a rotation that was held, until the account was another installation's.
    context.metrics.apikey("uid-0", Some("Pending"), Some(Reason::RotationHeld));
    assert!(counts(r#"bags_operator_apikeys{phase="Pending"} 1"#), "{}", context.metrics.encode());
    reconcile(&context, &reference).await;
    let page = context.metrics.encode();
    let of_apikeys = [
        "bags_operator_not_ready{kind=\"ApiKey\"",
        "bags_operator_apikeys{",
        "bags_operator_rotations_held{",
    ];
    let mut counted = page.lines().filter(|line| of_apikeys.iter().any(|of| line.starts_with(of)));
    assert!(counted.all(|line| line.ends_with(" 0")), "{page}");
}

#[tokio::test]
async fn an_apikey_whose_next_key_fails_does_not_count_as_not_ready() {
    let (context, _) = knowing(&key(), None, |_, _| failure(404, "NotFound"));
    for reason in Reason::ALL {
        after_problem(&context, "uid-0", &Problem::transient(*reason, "it fails"));
        let page = context.metrics.encode();
        let counted: Vec<&str> = page
            .lines()
            .filter(|line| {
                line.starts_with("bags_operator_not_ready{kind=\"ApiKey\"") && line.ends_with(" 1")
            })
            .collect();
        match reason.kind() {
            hold::Kind::Settled => assert!(counted.is_empty(), "{counted:?}"),
            hold::Kind::Progressing | hold::Kind::Stalled => {
                assert!(
                    counted.len() == 1 && counted[0].contains(reason.as_str()),
                    "{reason:?}: {counted:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn an_apikey_without_need_of_pods_leaves_the_list_that_others_share() {
    let mut there = key();
    there.metadata.resource_version = Some("1".to_owned());
    let (context, asked) = knowing(&there.clone(), None, move |request, _| {
        let none = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": []});
        (200, if request.path().ends_with("/pods") { none } else { json!(there) })
    });
    let look = || context.pods.get(context.env.kube.clone(), &*context.env.clock, "shop", MINUTE);
    look().await.unwrap();
    reconcile(&context, &ObjectRef::from_obj(&key())).await;
    look().await.unwrap();
    let lists = asked.lock().unwrap().iter().filter(|request| request.path().ends_with("/pods")).count();
    assert_eq!(lists, 1);
}

#[test]
fn a_key_is_told_to_be_published_once_whenever_another_one_is_in_the_secret() {
    use SlotState::{Creating, Live};
    let holds = |attempt: &str, status| {
        let switch = Switch {
            count: 1,
            attempt: attempt.to_owned(),
            at: Timestamp::UNIX_EPOCH,
            clean_since: None,
            old_key_used_at: None,
            marked: vec![],
        };
        ApiKeyStatus { switch: Some(switch), ..status }
    };
    let (made, both) = ([(Live, 1), (Creating, 2)], [(Live, 1), (Live, 2)]);
    let first = told_so(Reason::Creating, &[(Creating, 1)]);
    let one = holds("a", told_so(Reason::Issued, &[(Live, 1)]));
    let next = holds("a", told_so(Reason::Rotating, &made));
    let two = holds("b", told_so(Reason::Rotating, &both));
    let back = holds("a", told_so(Reason::Rotating, &both));
    let published = [EventReason::KeyPublished];
    assert_eq!(events(Reason::Issued, &first, &one), published, "the first one");
    assert!(events(Reason::Issued, &one, &one).is_empty(), "it was told");
    assert_eq!(events(Reason::Rotating, &next, &two), published, "the next one of a rotation");
    assert_eq!(events(Reason::Rotating, &two, &back), published, "the former one again");
}

#[test]
fn a_key_of_an_earlier_rotation_that_waits_for_a_person_begins_and_ends_none() {
    use SlotState::{Creating, Live, Reserved, Revoking};
    let (issued, rotating) = (Reason::Issued, Reason::Rotating);
    let (started, finished) = (EventReason::RotationStarted, EventReason::RotationFinished);
    let (blocked, blocks) = (Reason::RotationBlocked, EventReason::RotationBlocked);
    let waits = [(Live, 2), (Revoking, 1)];
    let both = [(Live, 2), (Live, 1)];
    let next_place = [(Live, 2), (Reserved, 0), (Revoking, 1)];
    let held_back = [(Live, 2), (Creating, 3)];
    let cases: [(_, _, &[_], _, &[_], &[_]); 14] = [
        ("trouble that passes", Reason::ValueMissing, &[(Live, 2)], issued, &[(Live, 2)], &[]),
        ("an old key goes", rotating, &both, issued, &waits, &[finished]),
        ("it goes with its ApiKey", rotating, &both, Reason::Deleting, &waits, &[]),
        ("the window ends", blocked, &waits, issued, &waits, &[]),
        ("a look fails", blocked, &waits, rotating, &waits, &[]),
        ("it begins", blocked, &waits, rotating, &next_place, &[started]),
        ("it goes on", rotating, &[(Live, 2), (Reserved, 0)], rotating, &[(Live, 2), (Creating, 3)], &[]),
        ("its next key is held back", rotating, &held_back, blocked, &held_back, &[blocks]),
        ("and is not any more", blocked, &held_back, rotating, &held_back, &[]),
        ("the Secret was not written", Reason::ApiServerUnavailable, &both, rotating, &both, &[]),
        ("the Secret was somebody's", Reason::SecretConflict, &both, rotating, &both, &[]),
        ("the value was not there", Reason::ValueMissing, &both, rotating, &both, &[]),
        ("it was blocked with a place", blocked, &next_place, rotating, &held_back, &[started]),
        (
            "one goes, and the next one begins at once",
            rotating,
            &both,
            rotating,
            &next_place,
            &[finished, started],
        ),
    ];
    for (case, was, before, reason, next, expected) in cases {
        assert_eq!(events(reason, &told_so(was, before), &told_so(reason, next)), expected, "{case}");
    }
    let ended = |next: &[_]| has_ended(&told_so(rotating, &both), &told_so(rotating, next));
    assert!(ended(&next_place), "what was told is the same");
    assert!(!ended(&both));
}

#[test]
fn a_look_that_fails_while_a_key_is_replaced_says_nothing_against_the_current_one() {
    let (rotating, away) = (Reason::Rotating, Reason::ApiServerUnavailable);
    let live = || seen().with_slot(mine(SlotState::Live));
    let told = |reason| {
        let status = told_so(reason, &[(SlotState::Live, 2)]);
        live().key(|key| key.status = Some(status))
    };
    let cases = [
        ("both keys live", switched(MINUTE, &[]), rotating),
        ("the next one is being made", told(rotating), rotating),
        ("it cannot begin yet", told(Reason::RotationBlocked), rotating),
        ("no key is being replaced", told(Reason::Issued), away),
        ("nothing was told yet", live(), away),
        ("there is no key yet", seen(), away),
        ("the Secret is not there", switched(MINUTE, &[]).with_consumer(Found::Missing), away),
        ("it is being deleted", switched(MINUTE, &[]).deleted(MINUTE), away),
    ];
    for (case, o, expected) in cases {
        let (last, problem) =
            undecided(Some(Box::new(o)), Problem::transient(away, "the API server is away"));
        assert_eq!((problem.reason, last.is_some()), (expected, true), "{case}");
    }
    assert_eq!(undecided(None, Problem::transient(away, "away")).1.reason, away, "nothing was seen");
}

fn told_so(reason: Reason, keys: &[(SlotState, i64)]) -> ApiKeyStatus {
    let since = Timestamp::UNIX_EPOCH;
    let summary = |(state, revision): &(SlotState, i64)| KeySummary {
        state: state.as_str().to_owned(),
        revision: *revision,
        attempt: None,
        key_id: None,
        key_name: None,
        since,
    };
    let ready = k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
        type_: condition::kind::READY.to_owned(),
        status: "True".to_owned(),
        reason: reason.as_str().to_owned(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: Time(since),
    };
    let current = serde_json::from_value::<CurrentKey>(serde_json::json!({
        "attempt": "a", "keyName": "a", "revision": 2, "publishedAt": "1970-01-01T00:00:00Z"
    }));
    ApiKeyStatus {
        keys: keys.iter().map(summary).collect(),
        current: Some(current.unwrap()),
        conditions: vec![ready],
        ..ApiKeyStatus::default()
    }
}
