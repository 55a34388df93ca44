//! What the store does when an answer does not come: an API server of a few lines, told what to answer.

use std::time::Duration;

use std::pin::pin;

use futures::FutureExt;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{client::Body, runtime::reflector};
use serde_json::{Value, json};
use tower_test::mock;

use super::*;
use crate::{
    api::account::{Installation, Owner, Slot, SlotState},
    clock::SystemClock,
    fixtures::failure,
};

type Server = mock::Handle<Request<Body>, Response<Body>>;

fn account(version: u64, slots: Value) -> Value {
    json!({
        "apiVersion": "keys.bags.fm/v1alpha1", "kind": "BagsAccount",
        "metadata": {"name": "main", "uid": "uid-main", "resourceVersion": version.to_string()},
        "spec": {"credentials": {}},
        "status": {"installation": {"cluster": "cluster", "namespace": "bags"}, "slots": slots},
    })
}

/// A store whose watch has seen version 1, without slots, and the server behind it.
fn store() -> (LedgerStore, Server) {
    store_of(account(1, json!([])))
}

fn store_of(first: Value) -> (LedgerStore, Server) {
    let (service, server) = mock::pair();
    let (seen, mut writer) = reflector::store();
    let first: BagsAccount = serde_json::from_value(first).unwrap();
    writer.apply_watcher_event(&kube::runtime::watcher::Event::Apply(first));
    let client = Client::new(service, "default");
    let ours = Installation { cluster: "cluster".into(), namespace: "bags".into() };
    (LedgerStore::new(client, Arc::new(SystemClock), Timings::default(), ours, seen), server)
}

/// The slots with this place of one ApiKey.
fn place(state: &str, attempt: Option<&str>) -> Value {
    json!([{
        "owner": {"namespace": "shop", "name": "web", "uid": "uid-web"}, "use": "production/web",
        "revision": 1, "state": state, "attempt": attempt, "since": "2026-01-01T00:00:00Z",
    }])
}

fn reserve() -> Change {
    let owner = Owner { namespace: "shop".into(), name: "web".into(), uid: "uid-web".into() };
    Change::Reserve { owner, key_use: "production/web".into(), ahead: 0, max: None }
}

/// Takes the next request and answers it; returns its method and body.
async fn answer(server: &mut Server, (code, body): (u16, Value)) -> (Method, Option<Value>) {
    // Longer than any pause of the store, and no time at all where the clock stands still otherwise.
    let next = tokio::time::timeout(Duration::from_mins(1), server.next_request());
    let (request, respond) = next.await.expect("a request is sent").expect("a request");
    let method = request.method().clone();
    let sent = request.into_body().collect().await.unwrap().to_bytes();
    let response =
        Response::builder().status(code).body(Body::from(serde_json::to_vec(&body).unwrap())).unwrap();
    respond.send_response(response);
    (method, serde_json::from_slice(&sent).ok())
}

#[tokio::test]
async fn nothing_is_written_into_a_ledger_that_may_be_a_lost_one() {
    let mut lost = account(1, json!([]));
    lost["status"] = json!(null);
    let (store, server) = store_of(lost);
    let mut server = pin!(server);
    let refused = store.change("main", &[reserve()]).await;
    assert!(matches!(refused, Err(StoreError::Refused(Refusal::Nobodys))));
    assert!(server.next_request().now_or_never().is_none(), "its slots could not be put back any more");
}

#[tokio::test]
async fn a_write_that_would_break_an_invariant_is_not_sent() {
    let (store, server) = store();
    let mut server = pin!(server);
    let wrong: Vec<Slot> = serde_json::from_value(place("Creating", Some("attempt-1"))).unwrap();
    let mut written = pin!(store.update("main", |draft| {
        draft.status.slots.clone_from(&wrong);
        Ok(())
    }));
    let written = written.as_mut().now_or_never();
    let told = |words: &String| words.contains("I4: attempt-1");
    assert!(matches!(&written, Some(Err(StoreError::Violation(words))) if told(words)), "{written:?}");
    assert!(server.next_request().now_or_never().is_none(), "a request was sent");
}

#[tokio::test]
async fn nothing_is_written_into_a_ledger_that_was_taken_over_since_it_was_looked_at() {
    let mut taken = account(1, json!([]));
    taken["status"]["installation"]["namespace"] = json!("another");
    let (store, server) = store_of(taken);
    let mut server = pin!(server);
    let refused = store.change("main", &[reserve()]).await;
    assert!(matches!(refused, Err(StoreError::Refused(Refusal::Anothers))));
    assert!(server.next_request().now_or_never().is_none(), "it is judged by whoever has it now");
}

#[tokio::test]
async fn what_was_read_live_is_where_the_next_one_begins_although_the_watch_is_behind() {
    let (store, server) = store();
    let mut server = pin!(server);
    let there = account(2, place("Creating", Some("a")));
    let (live, (method, _)) = tokio::join!(store.refresh("main"), answer(&mut server, (200, there)));
    assert_eq!((method, live.unwrap().resource_version()), (Method::GET, Some("2".to_owned())));
    let known = store.read("main").await.expect("the account");
    assert_eq!(known.status.as_ref().unwrap().slots.len(), 1);
    let refused = store.change("main", &[reserve()]).await;
    assert!(matches!(refused, Err(StoreError::Refused(Refusal::HasPlace))));
    assert!(server.next_request().now_or_never().is_none(), "it was read once");

    let gone = answer(&mut server, failure(404, "NotFound"));
    let (live, _) = tokio::join!(store.refresh("main"), gone);
    assert!(matches!(live, Err(StoreError::NoAccount(_))));
}

#[tokio::test]
async fn after_a_write_of_unknown_outcome_the_next_one_starts_from_a_live_read() {
    let (store, server) = store();
    let mut server = pin!(server);
    let reserve = [reserve()];
    let (first, _) =
        tokio::join!(store.change("main", &reserve), answer(&mut server, failure(500, "InternalError")));
    assert!(matches!(first, Err(StoreError::Kube(_))));

    // The write had been applied: from the watch's version the change would seem possible once more.
    let applied = account(2, place("Reserved", None));
    let (second, (method, _)) =
        tokio::join!(store.change("main", &reserve), answer(&mut server, (200, applied)));
    assert_eq!(method, Method::GET);
    assert!(matches!(second, Err(StoreError::Refused(Refusal::HasPlace))));
    let known = store.read("main").await.expect("the account");
    assert_eq!(known.status.as_ref().unwrap().slots[0].state, SlotState::Reserved);
}

#[tokio::test(start_paused = true)]
async fn what_was_read_before_a_write_of_unknown_outcome_is_not_believed_after_it() {
    let (store, server) = store();
    let mut server = pin!(server);
    let before = store.read("main").await.expect("the account");
    let reserve = [reserve()];
    let (first, _) =
        tokio::join!(store.change("main", &reserve), answer(&mut server, failure(500, "InternalError")));
    assert!(matches!(first, Err(StoreError::Kube(_))));

    let applied = account(2, place("Reserved", None));
    let (second, (method, _)) = tokio::join!(
        store.update_once("main", before, |_| Err(Refusal::NotInState)),
        answer(&mut server, (200, applied)),
    );
    assert_eq!(method, Method::GET);
    assert!(matches!(second, Err(StoreError::Refused(Refusal::NotInState))));
    let known = store.read("main").await.expect("the account");
    assert_eq!(known.resource_version(), Some("2".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_licence_that_was_not_answered_is_taken_back_by_a_write_that_it_conflicts_with() {
    let license = Change::License {
        owner_uid: "uid-web".into(),
        attempt: "a".into(),
        key_name: "Production-Web-a".into(),
        trigger: None,
    };
    let not_made = Change::NotMade { attempt: "a".into(), reason: "LicenceExpired" };
    let mut full = account(1, place("Reserved", None));
    full["status"]["capabilities"] = json!({"list": "Yes"});
    full["status"]["capacity"] =
        json!({"limit": 10, "used": 11, "reserved": 0, "unmanaged": 10, "available": 0});
    for (case, there, version) in [
        ("it is not there, and may be under way", account(1, place("Reserved", None)), Some("1")),
        ("there is no room any more", full, Some("1")),
        ("it arrived", account(2, place("Creating", Some("a"))), Some("2")),
        ("it was judged", account(2, place("Unresolved", Some("a"))), None),
    ] {
        let (store, server) = store_of(account(1, place("Reserved", None)));
        let mut server = pin!(server);
        let asked = [license.clone()];
        let (asked, _) =
            tokio::join!(store.change("main", &asked), answer(&mut server, failure(500, "InternalError")));
        assert!(asked.is_err(), "{case}");
        let script = async {
            assert_eq!(answer(&mut server, (200, there)).await.0, Method::GET, "{case}");
            match version {
                Some(_) => answer(&mut server, (200, account(3, json!([])))).await.1,
                None => None,
            }
        };
        let (taken_back, sent) =
            tokio::join!(store.update("main", |draft| draft.take_back("a", &not_made)), script);
        let Some(version) = version else {
            assert!(matches!(taken_back, Err(StoreError::Refused(_))), "{case}: {taken_back:?}");
            continue;
        };
        assert!(taken_back.is_ok(), "{case}: {taken_back:?}");
        let sent = sent.expect("a write");
        assert_eq!(sent["metadata"]["resourceVersion"], version, "{case}");
        let (slot, departed) = (&sent["status"]["slots"][0], &sent["status"]["departed"]);
        assert_eq!((&slot["state"], &slot["attempt"]), (&json!("Reserved"), &Value::Null), "{case}");
        // Where it never was, nothing failed but a write.
        let failed = if version == "2" { json!("LicenceExpired") } else { Value::Null };
        assert_eq!((&slot["failures"]["reason"], departed), (&failed, &json!(["a"])), "{case}");
    }
}

#[tokio::test]
async fn only_what_the_api_server_understood_and_refused_is_a_rejection() {
    for (code, reason, rejected) in [
        (403, "Forbidden", true),
        (422, "Invalid", true),
        (429, "TooManyRequests", false),
        (500, "InternalError", false),
        (504, "Timeout", false),
    ] {
        let (store, server) = store();
        let mut server = pin!(server);
        let reserve = [reserve()];
        let (failed, _) =
            tokio::join!(store.change("main", &reserve), answer(&mut server, failure(code, reason)));
        assert_eq!(failed.unwrap_err().is_rejection(), rejected, "{code}");
    }
    assert!(!StoreError::Refused(Refusal::NoRoom).is_rejection());
}

#[tokio::test]
async fn after_a_conflict_the_decision_is_made_again_on_what_is_there() {
    let (store, server) = store();
    let mut server = pin!(server);
    let reserve = [reserve()];
    let script = async {
        let (_, first) = answer(&mut server, failure(409, "Conflict")).await;
        assert_eq!(answer(&mut server, (200, account(5, json!([])))).await.0, Method::GET);
        let (_, second) = answer(&mut server, (200, account(6, json!([])))).await;
        (first.unwrap(), second.unwrap())
    };
    let (outcome, (first, second)) = tokio::join!(store.change("main", &reserve), script);
    assert!(outcome.is_ok());
    assert_eq!(
        (&first["metadata"]["resourceVersion"], &second["metadata"]["resourceVersion"]),
        (&json!("1"), &json!("5"))
    );
    assert_eq!(second["status"]["slots"][0]["state"], "Reserved");
}

/// A ledger that a newer version wrote into, with what this one cannot read.
fn of_a_newer_version(version: u64) -> Value {
    let mut account = account(
        version,
        json!([{
            "owner": {"namespace": "shop", "name": "web", "uid": "uid-web"}, "use": "production/web", "revision": 1,
            "state": "Hibernating", "attempt": "a", "published": 1, "since": "2026-01-01T00:00:00Z", "warmth": 3,
        }]),
    );
    account["status"]["hibernation"] = json!("deep");
    account
}

fn hold() -> Condition {
    serde_json::from_value(json!({
        "type": "Ready", "status": "False", "reason": "UnknownSlotState", "message": "held",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }))
    .unwrap()
}

fn say(draft: &mut Draft<'_>) -> Result<(), Refusal> {
    draft.status.conditions = vec![hold()];
    draft.status.observed_generation = Some(7);
    Ok(())
}

#[tokio::test]
async fn of_a_ledger_that_a_newer_version_holds_the_conditions_alone_are_written() {
    let (store, server) = store_of(of_a_newer_version(4));
    let mut server = pin!(server);
    let mut shown = of_a_newer_version(5);
    shown["status"]["conditions"] = json!([hold()]);
    shown["status"]["observedGeneration"] = json!(7);
    let (written, (method, sent)) =
        tokio::join!(store.update("main", say), answer(&mut server, (200, shown)));
    assert_eq!(written.unwrap().resource_version(), Some("5".to_owned()));
    assert_eq!(method, Method::PATCH);
    let expected = json!({
        "metadata": {"resourceVersion": "4"},
        "status": {"conditions": [hold()], "observedGeneration": 7},
    });
    assert_eq!(sent, Some(expected));
    assert!(store.update("main", say).await.is_ok());
    assert!(server.next_request().now_or_never().is_none(), "said once");
}

#[tokio::test]
async fn a_lost_answer_to_such_a_write_leaves_it_in_doubt_as_any_other() {
    let (store, server) = store_of(of_a_newer_version(4));
    let mut server = pin!(server);
    let lost = answer(&mut server, failure(500, "InternalError"));
    let (first, _) = tokio::join!(store.update("main", say), lost);
    assert!(matches!(first, Err(StoreError::Kube(_))));
    let script = async {
        let (read, _) = answer(&mut server, (200, of_a_newer_version(5))).await;
        let (write, sent) = answer(&mut server, failure(409, "Conflict")).await;
        let (again, _) = answer(&mut server, (200, account(6, json!([])))).await;
        // It is held no more.
        let (whole, _) = answer(&mut server, (200, account(7, json!([])))).await;
        assert_eq!(sent.unwrap()["metadata"]["resourceVersion"], "5");
        [read, write, again, whole]
    };
    let (second, methods) = tokio::join!(store.update("main", say), script);
    assert_eq!(methods, [Method::GET, Method::PATCH, Method::GET, Method::PUT]);
    assert!(second.is_ok());
}

#[tokio::test]
async fn nothing_else_is_written_into_a_ledger_that_a_newer_version_holds() {
    let (store, server) = store_of(of_a_newer_version(4));
    let mut server = pin!(server);
    let live = store.read("main").await.unwrap();
    let condemn = Change::Condemn { attempt: "a".into(), emergency: true, looked_at: None };
    type Write = fn(&mut Draft<'_>) -> Result<(), Refusal>;
    let writes: [(&str, Write); 5] = [
        ("a place that the webhook keeps", |draft| draft.apply(&reserve())),
        ("a take-over", |draft| {
            draft.status.installation =
                Some(Installation { cluster: "other".into(), namespace: "bags".into() });
            Ok(())
        }),
        ("slots that were lost", |draft| draft.rebuild(vec![])),
        ("keys made elsewhere", |draft| {
            draft.status.capacity.get_or_insert_default().unmanaged = 2;
            Ok(())
        }),
        ("a pause beside a condition", |draft| {
            draft.status.paused_until = Some(draft.now());
            say(draft)
        }),
    ];
    for (case, write) in writes {
        let refused = store.update("main", write).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{case}: {refused:?}");
        let refused = store.update_once("main", live.clone(), write).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{case}, tried once: {refused:?}");
    }
    let refused = store.change("main", &[condemn]).await;
    assert!(matches!(refused, Err(StoreError::Refused(Refusal::UnknownState))));
    assert!(server.next_request().now_or_never().is_none(), "nothing was sent");
}
