//! What only the server in memory has: how tests drive it.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use bags_operator::{
    api::ApiKey,
    clock::{Clock, SystemClock},
};
use bytes::Bytes;
use futures::{StreamExt, pin_mut};
use http::Request;
use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    runtime::watcher::{self, Event, watcher},
};
use serde_json::{Value, json};

use crate::apiserver::{AdmissionVerdict, ApiServer, Change, ChangeKind, Deletion, Payload};

/// A clock that stands.
struct Still(Timestamp);

impl Clock for Still {
    fn wall(&self) -> Timestamp {
        self.0
    }

    fn monotonic(&self) -> tokio::time::Instant {
        SystemClock.monotonic()
    }
}

pub(crate) fn server() -> ApiServer {
    ApiServer::new(Arc::new(Still("2026-01-02T03:04:05.678Z".parse().unwrap())))
}

pub(crate) fn secret(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"},
        "stringData": {"value": "one"},
    })
}

pub(crate) fn key(name: &str) -> Value {
    json!({
        "apiVersion": "keys.bags.fm/v1alpha1", "kind": "ApiKey",
        "metadata": {"name": name, "namespace": "default", "finalizers": ["example.com/held"]},
        "spec": {"accountRef": {"name": "main"}, "environment": "production"},
    })
}

fn told(changes: &[Change]) -> Vec<String> {
    let name = |change: &Change| change.object["metadata"]["name"].as_str().unwrap().to_owned();
    changes.iter().map(|change| format!("{} {}", change.kind.as_str(), name(change))).collect()
}

fn parsed(lines: &[Bytes]) -> Vec<String> {
    let parse = |line: &Bytes| -> Value {
        assert_eq!(line.last(), Some(&b'\n'));
        serde_json::from_slice(line).unwrap()
    };
    lines
        .iter()
        .map(parse)
        .map(|line| {
            let object = &line["object"];
            let name = object["metadata"]["name"].as_str().or(object["reason"].as_str()).unwrap_or_default();
            format!("{} {name}", line["type"].as_str().unwrap())
        })
        .collect()
}

fn watch(query: &str) -> Request<Payload> {
    let path = format!("/api/v1/namespaces/default/secrets?watch=true&{query}");
    Request::get(path).body(Payload::default()).unwrap()
}

#[test]
fn time_is_the_clocks_in_whole_seconds() {
    let server = server();
    let made = server.create(key("web")).unwrap();
    assert_eq!(made["metadata"]["creationTimestamp"], "2026-01-02T03:04:05Z");
    let Ok(Deletion::Pending(dying)) = server.delete("apikeys", "default", "web") else {
        panic!("a finalizer holds it");
    };
    assert_eq!(dying["metadata"]["deletionTimestamp"], "2026-01-02T03:04:05Z");
}

#[test]
fn people_write_as_clients_do() {
    let server = server();
    assert!(server.get("namespaces", "", "kube-system").is_some());
    assert_eq!(server.create(json!({"kind": "Pod"})).unwrap_err().code, 404);
    let made = server.create(key("web")).unwrap();
    assert_eq!(server.create(key("web")).unwrap_err().reason, "AlreadyExists");
    let change = |key: &mut Value| {
        key["spec"]["suspend"] = json!(true);
        key["status"] = json!({"phase": "Live"});
    };
    let changed = server.edit("apikeys", "default", "web", change).unwrap();
    assert_eq!((&changed["metadata"]["generation"], changed.get("status")), (&json!(2), None));
    let reported = server.edit_status("apikeys", "default", "web", change).unwrap();
    assert_eq!(reported["status"], json!({"phase": "Live"}));
    assert_eq!(server.edit_status("secrets", "default", "web", |_| {}).unwrap_err().code, 404);
    assert_eq!(server.edit("apikeys", "default", "other", |_| {}).unwrap_err().code, 404);
    let stale =
        |key: &mut Value| key["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    assert_eq!(server.edit("apikeys", "default", "web", stale).unwrap_err().reason, "Conflict");
    assert_eq!(server.list("apikeys").len(), 1);
    assert!(matches!(server.delete("apikeys", "default", "web"), Ok(Deletion::Pending(_))));
    let free = |key: &mut Value| key["metadata"]["finalizers"] = json!([]);
    server.edit("apikeys", "default", "web", free).unwrap();
    assert!(server.get("apikeys", "default", "web").is_none());
}

#[test]
fn the_log_has_every_change_once_with_what_was_before() {
    let server = server();
    let begin = server.version();
    server.create(secret("a")).unwrap();
    let middle = server.version();
    server.edit("secrets", "default", "a", |secret| secret["data"] = json!({})).unwrap();
    server.create(secret("b")).unwrap();
    assert!(matches!(server.delete("secrets", "default", "a"), Ok(Deletion::Gone(_))));
    let changes = server.changes_since(begin);
    assert_eq!(told(&changes), ["ADDED a", "MODIFIED a", "ADDED b", "DELETED a"]);
    assert_eq!(told(&server.changes_since(middle)), ["MODIFIED a", "ADDED b", "DELETED a"]);
    assert_eq!(server.changes_since(server.version()).len(), 0);
    assert_eq!(server.changes_since(u64::MAX).len(), 0);
    assert!(changes.is_sorted_by(|one, two| one.version < two.version));
    for change in &changes {
        assert_eq!(change.object["metadata"]["resourceVersion"], json!(change.version.to_string()));
        assert_eq!(change.before.is_none(), change.kind == ChangeKind::Added);
        assert_eq!(change.resource, "secrets");
    }
}

#[test]
fn a_watch_moves_on_when_it_is_told_to() {
    let server = server();
    server.create(secret("a")).unwrap();
    let asked = watch(&format!("resourceVersion={}&allowWatchBookmarks=true", server.version()));
    assert!(ApiServer::is_watch(&asked));
    let mut watch = server.watch(&asked).unwrap();
    server.create(secret("b")).unwrap();
    let middle = server.version();
    server.create(key("web")).unwrap();
    server.create(secret("c")).unwrap();
    assert_eq!(parsed(&watch.next_until(&server, middle)), ["ADDED b"]);
    assert_eq!((watch.position(), watch.resource(), watch.takes_bookmarks()), (middle, "secrets", true));
    assert_eq!(parsed(&watch.next(&server)), ["ADDED c"]);
    assert!(watch.next(&server).is_empty() && !watch.has_ended());
    assert_eq!(watch.position(), server.version());
    let bookmark: Value = serde_json::from_slice(&watch.bookmark()).unwrap();
    assert_eq!(bookmark["object"]["metadata"]["resourceVersion"], json!(server.version().to_string()));
}

#[test]
fn what_is_compacted_has_expired_for_watches_and_pages() {
    let server = server();
    let begin = server.version();
    server.create(secret("a")).unwrap();
    server.create(secret("b")).unwrap();
    let page = |query: &str| {
        let path = format!("/api/v1/namespaces/default/secrets?limit=1{query}");
        let answer = server.answer(&Request::get(path).body(Payload::default()).unwrap());
        serde_json::from_slice::<Value>(answer.body()).unwrap()
    };
    let token = page("")["metadata"]["continue"].as_str().unwrap().to_owned();
    let mut open = server.watch(&watch(&format!("resourceVersion={begin}"))).unwrap();
    server.create(secret("c")).unwrap();
    server.compact();
    assert_eq!(parsed(&open.next(&server)), ["ERROR Expired"]);
    assert!(open.has_ended() && open.next(&server).is_empty());
    assert_eq!(page(&format!("&continue={token}"))["reason"], "Expired");
    let mut late = server.watch(&watch(&format!("resourceVersion={}", server.version()))).unwrap();
    server.create(secret("d")).unwrap();
    assert_eq!(parsed(&late.next(&server)), ["ADDED d"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_lists_again_when_its_version_has_expired() {
    let server = server();
    server.create(key("a")).unwrap();
    let keys: Api<ApiKey> = Api::namespaced(server.client(), "default");
    let events = watcher(keys, watcher::Config::default());
    pin_mut!(events);
    let mut seen = Vec::new();
    while seen.iter().filter(|event| *event == "listed").count() < 2 {
        match events.next().await.unwrap() {
            Ok(Event::InitDone) => {
                seen.push("listed".to_owned());
                server.create(secret("other")).ok();
                server.edit("apikeys", "default", "a", |key| key["spec"]["suspend"] = json!(true)).unwrap();
                server.compact();
            }
            Ok(Event::InitApply(key)) => seen.push(key.name_any()),
            Ok(_) => {}
            Err(_) => seen.push("expired".to_owned()),
        }
    }
    assert_eq!(seen, ["a", "listed", "expired", "a", "listed"]);
}

#[test]
fn admission_sees_the_object_and_may_change_it() {
    let server = server();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (seen, inside) = (asked.clone(), server.clone());
    server.set_admission(move |request| {
        let known = inside.list("secrets").len();
        let uid = request.object["metadata"]["uid"].is_string();
        seen.lock().unwrap().push(format!(
            "{} {}/{} {} {uid} {known}",
            request.resource, request.namespace, request.name, request.dry_run
        ));
        match request.name {
            "no" => AdmissionVerdict::Deny { code: 422, message: "not this one".to_owned() },
            "other" => {
                let mut object = request.object.clone();
                object["metadata"]["labels"] = json!({"team": "red"});
                object["metadata"]["uid"] = json!("forged");
                AdmissionVerdict::Mutate(object)
            }
            "bad" => AdmissionVerdict::Mutate(json!([])),
            _ => AdmissionVerdict::Allow,
        }
    });
    server.create(secret("yes")).unwrap();
    let refusal = server.create(secret("no")).unwrap_err();
    assert_eq!((refusal.code, &*refusal.reason), (422, "Invalid"));
    assert!(refusal.message.contains("not this one"));
    assert!(server.create(secret("bad")).is_err());
    let changed = server.create(secret("other")).unwrap();
    assert_eq!(changed["metadata"]["labels"], json!({"team": "red"}));
    assert_ne!(changed["metadata"]["uid"], "forged");
    let path = "/api/v1/namespaces/default/secrets?dryRun=All";
    let tried =
        server.answer(&Request::post(path).body(Bytes::from(secret("tried").to_string()).into()).unwrap());
    assert_eq!(tried.status(), 201);
    assert_eq!(
        *asked.lock().unwrap(),
        [
            "secrets default/yes false true 0",
            "secrets default/no false true 1",
            "secrets default/bad false true 1",
            "secrets default/other false true 1",
            "secrets default/tried true true 2",
        ]
    );
}

#[test]
fn a_watch_that_is_only_answered_tells_what_is_there_and_ends() {
    let server = server();
    server.create(secret("a")).unwrap();
    let answer = server.answer(&watch("resourceVersion=0"));
    assert_eq!(parsed(&[answer.into_body()]), ["ADDED a"]);
}

#[test]
fn a_change_that_asks_the_server_does_not_wait_for_itself() {
    let server = server();
    server.create(secret("a")).unwrap();
    let asked = AtomicBool::new(false);
    server
        .edit("secrets", "default", "a", |secret| {
            secret["metadata"]["labels"] = json!({"team": "red"});
            asked.store(server.get("secrets", "default", "a").is_some(), Ordering::Relaxed);
        })
        .unwrap();
    assert!(asked.into_inner());
}
