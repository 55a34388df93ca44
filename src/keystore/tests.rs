//! The keystore, before an API server whose answers are staged.

use http::Method;
use kube::runtime::{reflector, watcher};
use serde_json::{Value, json};

use super::*;
use crate::fixtures::{Came, Requests, failure, server};

fn placeholder(version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret",
           "metadata": {"name": "bags-key-a", "uid": "uid-a", "resourceVersion": version}})
}

/// Answers one request after the other, and tells which came.
fn keystore(answers: Vec<(u16, Value)>) -> (Keystore, Requests) {
    let (client, came) = server(move |_, before| answers[before].clone());
    (Keystore::new(client, "bags-system", reflector::store().0), came)
}

/// What came: the method, of a write the version it is based on, of a read what it asks for.
fn told(came: &Requests) -> Vec<(Method, Value)> {
    let told = |request: &Came| {
        let version = request.body["metadata"]["resourceVersion"].clone();
        let query = request.uri.split_once('?').filter(|(_, query)| !query.is_empty());
        let asked = query.filter(|_| request.method == Method::GET);
        (request.method.clone(), asked.map_or(version, |(_, query)| query.into()))
    };
    came.lock().unwrap().iter().map(told).collect()
}

#[tokio::test]
async fn an_account_is_put_together_again_from_its_own_entries_alone() {
    let none = json!({"apiVersion": "v1", "kind": "SecretList", "metadata": {}, "items": []});
    let (keystore, came) = keystore(vec![(200, none)]);
    assert!(keystore.live_of("main").await.unwrap().is_empty());
    let of_main = "&labelSelector=keys.bags.fm%2Faccount%3Dmain";
    assert_eq!(told(&came), [(Method::GET, json!(of_main))]);
}

#[tokio::test]
async fn a_copy_under_another_name_is_no_entry() {
    let secret = |name: &str| {
        let labels = json!({mark::ACCOUNT: "main", mark::ATTEMPT: "a"});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}})
    };
    let items = [secret("backup-of-a"), secret("bags-key-a"), secret("bags-key-b")];
    let all = json!({"apiVersion": "v1", "kind": "SecretList", "metadata": {}, "items": items});
    let (keystore, _) = keystore(vec![(200, all)]);
    let found = keystore.live_of("main").await.unwrap();
    let names: Vec<String> = found.iter().map(|entry| entry.secret.name_any()).collect();
    assert_eq!(names, ["bags-key-a"]);
    assert_eq!(found[0].attempt(), Some("a"));
    let (seen, mut writer) = reflector::store::<Secret>();
    for item in items {
        let secret = serde_json::from_value(item).unwrap();
        writer.apply_watcher_event(&watcher::Event::Apply(secret));
    }
    let watching = Keystore::new(keystore.api.into_client(), "bags-system", seen);
    assert_eq!(watching.all_cached().len(), 1);
}

#[tokio::test]
async fn a_save_that_lost_a_conflict_reads_before_it_writes_again_also_where_the_read_failed_once() {
    let answers = vec![
        failure(409, "Conflict"),
        failure(500, "InternalError"),
        (200, placeholder("2")),
        (200, placeholder("3")),
    ];
    let (keystore, came) = keystore(answers);
    let entry = Entry { secret: Arc::new(serde_json::from_value(placeholder("1")).unwrap()) };
    let value = KeyValue::parse(b"value-one-for-tests").unwrap();
    let mut unsaved = Unsaved::new(entry, &value, None);
    assert!(matches!(keystore.save(&mut unsaved).await, Err(SaveError::Call(_))));
    assert!(keystore.save(&mut unsaved).await.is_ok());
    let expected = [
        (Method::PUT, json!("1")),
        (Method::GET, Value::Null),
        (Method::GET, Value::Null),
        (Method::PUT, json!("2")),
    ];
    assert_eq!(told(&came), expected);
}

#[tokio::test]
async fn no_value_is_saved_in_a_secret_that_is_going() {
    let going = |with_value: bool| {
        let mut secret = placeholder("2");
        secret["metadata"]["finalizers"] = json!(["example.com/backup"]);
        secret["metadata"]["deletionTimestamp"] = json!("2026-11-23T12:00:00Z");
        if with_value {
            secret["data"] = json!({FIELD: ByteString(b"value-one-for-tests".to_vec())});
        }
        secret
    };
    let saved = async |found: Value| {
        let (keystore, came) = keystore(vec![failure(409, "Conflict"), (200, found)]);
        let entry = Entry { secret: Arc::new(serde_json::from_value(placeholder("1")).unwrap()) };
        let value = KeyValue::parse(b"value-one-for-tests").unwrap();
        let saved = keystore.save(&mut Unsaved::new(entry, &value, None)).await;
        assert_eq!(told(&came), [(Method::PUT, json!("1")), (Method::GET, Value::Null)]);
        saved
    };
    assert!(matches!(saved(going(false)).await, Err(SaveError::Judged)));
    assert!(saved(going(true)).await.is_ok(), "it had arrived before");
}

#[tokio::test]
async fn a_key_that_is_left_to_people_is_marked_once_and_only_where_it_has_a_secret() {
    let marked = |version| {
        let mut secret = placeholder(version);
        secret["metadata"]["annotations"] = json!({mark::RELEASED: "true"});
        secret
    };
    let read = || (Method::GET, Value::Null);
    let write = || (Method::PUT, json!("1"));
    let cases = [
        ("not yet", vec![(200, placeholder("1")), (200, marked("2"))], vec![read(), write()], true),
        ("marked before", vec![(200, marked("2"))], vec![read()], true),
        ("no Secret", vec![failure(404, "NotFound")], vec![read()], true),
        (
            "no Secret any more",
            vec![(200, placeholder("1")), failure(404, "NotFound")],
            vec![read(), write()],
            true,
        ),
        (
            "somebody was faster",
            vec![(200, placeholder("1")), failure(409, "Conflict")],
            vec![read(), write()],
            false,
        ),
    ];
    for (name, answers, expected, done) in cases {
        let (keystore, came) = keystore(answers);
        assert_eq!(keystore.mark_released("a").await.is_ok(), done, "{name}");
        assert_eq!(told(&came), expected, "{name}");
    }
}
