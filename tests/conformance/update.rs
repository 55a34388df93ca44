//! PUT.

use bags_operator::api::ApiKeyStatus;
use k8s_openapi::ByteString;
use kube::{
    ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};
use serde_json::{Value, json};

use super::{Subject, Table, from, key, said, secret, to, version};

const OTHER: &str = "11111111-2222-3333-4444-555555555555";
const OPTIONS: PostParams = PostParams { dry_run: false, field_manager: None };

fn status(phase: &str) -> Option<ApiKeyStatus> {
    Some(from(json!({"phase": phase})))
}

/// A `Secret` that was stored, changed.
async fn put_secret(subject: &Subject, change: impl FnOnce(&mut Value)) -> super::Answer {
    let path = format!("{}/web", subject.secrets_path());
    let mut object = subject.get(&path).await.body;
    change(&mut object);
    subject.put(&path, &object).await
}

async fn put_key(subject: &Subject, change: impl FnOnce(&mut Value)) -> super::Answer {
    let path = format!("{}/web", subject.keys_path());
    let mut object = subject.get(&path).await.body;
    change(&mut object);
    subject.put(&path, &object).await
}

pub(super) fn add(table: &mut Table) {
    table.case(
        "a change moves the version on and keeps what the server set",
        async |subject: Subject| {
            let before = subject.secret("web").await;
            let mut next = before.clone();
            next.data.as_mut().unwrap().insert("more".into(), ByteString(b"two".to_vec()));
            let after = subject.secrets().replace("web", &OPTIONS, &next).await.unwrap();
            json!([
                version(&after) > version(&before),
                after.uid() == before.uid(),
                after.data == next.data,
                after.creation_timestamp() == before.creation_timestamp(),
                subject.secrets().get("web").await.unwrap() == after,
            ])
        },
        json!([true, true, true, true, true]),
    );
    table.case(
        "the generation counts changes of the spec, and no others",
        async |subject: Subject| {
            let made = subject.key("web").await;
            let mut labelled = made.clone();
            labelled.labels_mut().insert("team".into(), "red".into());
            let labelled = subject.keys().replace("web", &OPTIONS, &labelled).await.unwrap();
            let mut suspended = labelled.clone();
            suspended.spec.suspend = Some(true);
            let suspended = subject.keys().replace("web", &OPTIONS, &suspended).await.unwrap();
            let mut reported = suspended.clone();
            reported.status = status("Live");
            let reported = subject.keys().replace_status("web", &OPTIONS, &reported).await.unwrap();
            json!([made, labelled, suspended, reported].map(|key| key.metadata.generation))
        },
        json!([1, 1, 2, 2]),
    );
    table.case(
        "a change of an older version is a conflict",
        async |subject: Subject| {
            let (one, two) = (subject.secret("web").await, subject.key("web").await);
            let (mut first, mut later) = (one.clone(), one);
            first.labels_mut().insert("team".into(), "red".into());
            later.labels_mut().insert("team".into(), "blue".into());
            subject.secrets().replace("web", &OPTIONS, &first).await.unwrap();
            let secret = subject.secrets().replace("web", &OPTIONS, &later).await;
            let (mut first, mut later) = (two.clone(), two);
            first.spec.suspend = Some(true);
            later.status = status("Live");
            subject.keys().replace("web", &OPTIONS, &first).await.unwrap();
            let key = subject.keys().replace("web", &OPTIONS, &later).await;
            let status = subject.keys().replace_status("web", &OPTIONS, &later).await;
            json!([said(&secret), said(&key), said(&status)])
        },
        json!(["409 Conflict", "409 Conflict", "409 Conflict"]),
    );
    table.case(
        "without a version an ApiKey is not changed, and a Secret is",
        async |subject: Subject| {
            subject.key("web").await;
            subject.secret("web").await;
            let without = |object: &mut Value| {
                object["metadata"]["labels"] = json!({"team": "red"});
                object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
            };
            let key = put_key(&subject, without).await;
            let path = format!("{}/web/status", subject.keys_path());
            let mut object = subject.get(&path).await.body;
            without(&mut object);
            let status = subject.put(&path, &object).await;
            let secret = put_secret(&subject, without).await;
            json!([key.said(), status.said(), secret.said(), secret.metadata()["labels"]])
        },
        json!(["422 Invalid", "422 Invalid", 200, {"team": "red"}]),
    );
    table.case(
        "a version of 0 counts as none",
        async |subject: Subject| {
            subject.key("web").await;
            subject.secret("web").await;
            let zero = |object: &mut Value| object["metadata"]["resourceVersion"] = json!("0");
            json!([put_key(&subject, zero).await.said(), put_secret(&subject, zero).await.said()])
        },
        json!(["422 Invalid", 200]),
    );
    table.case(
        "a version that is no number is refused",
        async |subject: Subject| {
            subject.key("web").await;
            subject.secret("web").await;
            let new = |object: &mut Value| object["metadata"]["resourceVersion"] = json!("new");
            let below = |object: &mut Value| object["metadata"]["resourceVersion"] = json!("-1");
            json!([
                put_key(&subject, new).await.said(),
                put_secret(&subject, new).await.said(),
                put_key(&subject, below).await.said(),
                put_secret(&subject, below).await.said(),
            ])
        },
        json!([500, 500, 500, 500]),
    );
    table.case(
        "a change of an object with another uid is a conflict",
        async |subject: Subject| {
            subject.key("web").await;
            subject.secret("web").await;
            let other = |object: &mut Value| {
                object["metadata"]["uid"] = json!(OTHER);
            };
            let none = |object: &mut Value| drop(object["metadata"].as_object_mut().unwrap().remove("uid"));
            let path = format!("{}/web/status", subject.keys_path());
            let mut status = subject.get(&path).await.body;
            other(&mut status);
            json!([
                put_key(&subject, other).await.said(),
                put_secret(&subject, other).await.said(),
                subject.put(&path, &status).await.said(),
                put_key(&subject, none).await.said(),
                put_secret(&subject, none).await.said(),
            ])
        },
        json!(["409 Conflict", "409 Conflict", "409 Conflict", 200, 200]),
    );
    table.case(
        "a PUT of an object that was made anew under the name is a conflict",
        async |subject: Subject| {
            let old = subject.secret("web").await;
            subject.secrets().delete("web", &DeleteParams::default()).await.unwrap();
            let gone = subject.secrets().replace("web", &OPTIONS, &old).await;
            let new = subject.secret("web").await;
            let anew = subject.secrets().replace("web", &OPTIONS, &old).await;
            json!([said(&gone), said(&anew), new.uid() == old.uid()])
        },
        json!(["404 NotFound", "409 Conflict", false]),
    );
    table.case(
        "of two changes of one version one is made",
        async |subject: Subject| {
            let seen = subject.secret("web").await;
            let change = async |team: &str| {
                let mut next = seen.clone();
                next.labels_mut().insert("team".into(), team.into());
                said(&subject.secrets().replace("web", &OPTIONS, &next).await)
            };
            let (one, two) = futures::join!(change("red"), change("blue"));
            let mut both = [one.to_string(), two.to_string()];
            both.sort_unstable();
            json!(both)
        },
        json!(["\"409 Conflict\"", "\"done\""]),
    );
    table.case(
        "of a change and a deletion of one version one is made",
        async |subject: Subject| {
            let mut made = 0;
            for name in ["a", "b", "c", "d"] {
                let seen = subject.secret(name).await;
                let mut next = seen.clone();
                next.labels_mut().insert("team".into(), "red".into());
                let preconditions =
                    Preconditions { uid: seen.uid(), resource_version: seen.resource_version() };
                let options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                let api = subject.secrets();
                let (change, deletion) =
                    futures::join!(api.replace(name, &OPTIONS, &next), api.delete(name, &options));
                made += usize::from(change.is_ok()) + usize::from(deletion.is_ok());
                let there = api.get_opt(name).await.unwrap();
                assert_eq!(there.is_some(), change.is_ok());
            }
            json!(made)
        },
        json!(4),
    );
    table.case(
        "a ledger is written as the operator does it",
        async |subject: Subject| {
            let made = subject.account("main").await;
            let name = made.name_any();
            let mut next = made.clone();
            next.status = Some(from(json!({"slots": [{
                "state": "Reserved", "use": "web/production", "since": "2026-01-02T03:04:05.123456Z", "revision": 1,
                "owner": {"namespace": "shop", "name": "web", "uid": OTHER},
            }]})));
            let written = subject.accounts().replace_status(&name, &OPTIONS, &next).await.unwrap();
            let again = subject.accounts().replace_status(&name, &OPTIONS, &next).await;
            let same = subject.accounts().replace_status(&name, &OPTIONS, &written).await.unwrap();
            let read = subject.accounts().get(&name).await.unwrap();
            json!([
                written.status == next.status,
                written.spec == made.spec,
                written.metadata.generation,
                said(&again),
                same == written,
                read == written,
            ])
        },
        json!([true, true, 1, "409 Conflict", true, true]),
    );
    table.case(
        "a PUT of what is not there is not found",
        async |subject: Subject| {
            let account: bags_operator::api::BagsAccount = from(json!({
                "apiVersion": "keys.bags.fm/v1alpha1", "kind": "BagsAccount",
                "metadata": {"name": subject.unique("web"), "resourceVersion": "5"},
                "spec": {"credentials": {"agentToken": {"secretName": "credentials"}}},
            }));
            let name = account.name_any();
            let secret = subject.secrets().replace("web", &OPTIONS, &from(secret("web"))).await;
            let account = subject.accounts().replace_status(&name, &OPTIONS, &account).await;
            json!([said(&secret), said(&account)])
        },
        json!(["404 NotFound", "404 NotFound"]),
    );
    table.case(
        "a PUT that changes nothing keeps the version",
        async |subject: Subject| {
            let (key, secret) = (subject.key("web").await, subject.secret("web").await);
            let mut reported = key.clone();
            reported.status = status("Live");
            let reported = subject.keys().replace_status("web", &OPTIONS, &reported).await.unwrap();
            let again = subject.keys().replace_status("web", &OPTIONS, &reported).await.unwrap();
            let whole = subject.keys().replace("web", &OPTIONS, &reported).await.unwrap();
            let same = subject.secrets().replace("web", &OPTIONS, &secret).await.unwrap();
            json!([
                version(&reported) > version(&key),
                version(&again) == version(&reported),
                version(&whole) == version(&reported),
                version(&same) == version(&secret),
            ])
        },
        json!([true, true, true, true]),
    );
    table.case(
        "a PUT of the object leaves the status, and one of the status leaves all else",
        async |subject: Subject| {
            let mut object = subject.key("web").await;
            object.status = status("Live");
            let object = subject.keys().replace("web", &OPTIONS, &object).await.unwrap();
            let unreported = object.status.is_none();
            let mut both = object.clone();
            both.status = status("Live");
            both.spec.suspend = Some(true);
            both.labels_mut().insert("team".into(), "red".into());
            both.finalizers_mut().push("example.com/held".into());
            let reported = subject.keys().replace_status("web", &OPTIONS, &both).await.unwrap();
            let mut less = reported.clone();
            less.status = None;
            less.spec.suspend = Some(true);
            let kept = subject.keys().replace("web", &OPTIONS, &less).await.unwrap();
            let mut none = kept.clone();
            none.status = None;
            let none = subject.keys().replace_status("web", &OPTIONS, &none).await.unwrap();
            json!([
                unreported,
                to(&reported)["status"],
                reported.spec.suspend,
                reported.labels().len(),
                reported.finalizers().len(),
                to(&kept)["status"],
                kept.spec.suspend,
                none.status.is_none(),
            ])
        },
        json!([true, {"phase": "Live"}, null, 0, 0, {"phase": "Live"}, true, true]),
    );
    table.case(
        "there is no status of a Secret to write",
        async |subject: Subject| {
            let made = subject.secret("web").await;
            let path = format!("{}/web/status", subject.secrets_path());
            let mut object = to(&made);
            object["kind"] = json!("Secret");
            object["apiVersion"] = json!("v1");
            json!(subject.put(&path, &object).await.code)
        },
        json!(404),
    );
    table.case(
        "an object has to have the name of its path",
        async |subject: Subject| {
            subject.key("web").await;
            subject.secret("web").await;
            let other = |object: &mut Value| object["metadata"]["name"] = json!("other");
            let none = |object: &mut Value| drop(object["metadata"].as_object_mut().unwrap().remove("name"));
            let elsewhere = |object: &mut Value| object["metadata"]["namespace"] = json!("default");
            let nowhere =
                |object: &mut Value| drop(object["metadata"].as_object_mut().unwrap().remove("namespace"));
            json!([
                put_key(&subject, other).await.said(),
                put_secret(&subject, other).await.said(),
                put_key(&subject, none).await.said(),
                put_secret(&subject, none).await.said(),
                put_key(&subject, elsewhere).await.said(),
                put_secret(&subject, elsewhere).await.said(),
                put_key(&subject, nowhere).await.said(),
                put_secret(&subject, nowhere).await.said(),
            ])
        },
        json!([
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            200,
            200,
        ]),
    );
    table.case(
        "the type of a Secret cannot change",
        async |subject: Subject| {
            subject.secret("web").await;
            let other = put_secret(&subject, |object| object["type"] = json!("example.com/other")).await;
            let none =
                put_secret(&subject, |object| drop(object.as_object_mut().unwrap().remove("type"))).await;
            let mut typed = secret("typed");
            typed["type"] = json!("example.com/other");
            let mut typed = subject.post(&subject.secrets_path(), &typed).await.body;
            typed.as_object_mut().unwrap().remove("type");
            let typed = subject.put(&format!("{}/typed", subject.secrets_path()), &typed).await;
            json!([other.said(), none.said(), typed.said()])
        },
        json!(["422 Invalid", 200, "422 Invalid"]),
    );
    table.case(
        "an immutable Secret keeps its data, and stays immutable",
        async |subject: Subject| {
            subject.secret("web").await;
            let set = put_secret(&subject, |object| object["immutable"] = json!(true)).await;
            let data = put_secret(&subject, |object| object["data"]["value"] = json!("dHdv")).await;
            let plain = put_secret(&subject, |object| object["stringData"] = json!({"value": "two"})).await;
            let back =
                put_secret(&subject, |object| drop(object.as_object_mut().unwrap().remove("immutable")))
                    .await;
            let off = put_secret(&subject, |object| object["immutable"] = json!(false)).await;
            let labels =
                put_secret(&subject, |object| object["metadata"]["labels"] = json!({"team": "red"})).await;
            json!([set.said(), data.said(), plain.said(), back.said(), off.said(), labels.said()])
        },
        json!([200, "422 Invalid", "422 Invalid", "422 Invalid", "422 Invalid", 200]),
    );
    table.case(
        "a dry-run of a PUT stores nothing",
        async |subject: Subject| {
            let before = subject.secret("web").await;
            let mut next = before.clone();
            next.labels_mut().insert("team".into(), "red".into());
            let dry_run = PostParams { dry_run: true, ..PostParams::default() };
            let tried = subject.secrets().replace("web", &dry_run, &next).await.unwrap();
            let after = subject.secrets().get("web").await.unwrap();
            json!([tried.labels().len(), version(&tried) == version(&before), after == before])
        },
        json!([1, true, true]),
    );
    table.case(
        "what the server sets is not changed by a PUT",
        async |subject: Subject| {
            let before = subject.key("web").await;
            let after = put_key(&subject, |object| {
                object["metadata"]["creationTimestamp"] = json!("2001-02-03T04:05:06Z");
                object["metadata"]["generation"] = json!(9);
                object["metadata"]["managedFields"] = json!([]);
            })
            .await;
            let none = put_key(&subject, |object| {
                object["metadata"].as_object_mut().unwrap().remove("creationTimestamp");
            })
            .await;
            let dying = put_key(&subject, |object| {
                object["metadata"]["deletionTimestamp"] = json!("2001-02-03T04:05:06Z");
            })
            .await;
            let graceful = put_key(&subject, |object| {
                object["metadata"]["deletionGracePeriodSeconds"] = json!(5);
            })
            .await;
            let created = to(&before)["metadata"]["creationTimestamp"].clone();
            json!([
                after.code,
                after.metadata()["creationTimestamp"] == created,
                after.metadata()["generation"],
                none.metadata()["creationTimestamp"] == created,
                dying.said(),
                graceful.said(),
            ])
        },
        json!([200, true, 1, true, "422 Invalid", "422 Invalid"]),
    );
    table.case(
        "finalizers and labels of the wrong form are refused by a PUT too",
        async |subject: Subject| {
            subject.key("web").await;
            subject.secret("web").await;
            let label = |object: &mut Value| object["metadata"]["labels"] = json!({"team": "not a label"});
            let finalizer = |object: &mut Value| object["metadata"]["finalizers"] = json!(["unqualified"]);
            let kind = |object: &mut Value| object["kind"] = json!("Other");
            json!([
                put_key(&subject, label).await.said(),
                put_secret(&subject, label).await.said(),
                put_key(&subject, finalizer).await.said(),
                put_secret(&subject, finalizer).await.said(),
                put_key(&subject, kind).await.said(),
                put_secret(&subject, kind).await.said(),
            ])
        },
        json!(["422 Invalid", "422 Invalid", 200, "422 Invalid", "422 Invalid", "400 BadRequest"]),
    );
    table.case(
        "a namespace's labels change, and its status and finalizers do not",
        async |subject: Subject| {
            let path = format!("/api/v1/namespaces/{}", subject.namespace);
            let mut object = subject.get(&path).await.body;
            object["metadata"]["labels"] = json!({"team": "red"});
            object["spec"] = json!({});
            object["status"] = json!({"phase": "Terminating"});
            let after = subject.put(&path, &object).await;
            let labels = after.metadata()["labels"].as_object().unwrap();
            json!([
                after.code, labels.keys().collect::<Vec<_>>(), after.body["spec"], after.body["status"],
                after.metadata().get("generation"),
            ])
        },
        json!([200, ["kubernetes.io/metadata.name", "team"], {"finalizers": ["kubernetes"]}, {"phase": "Active"}, null]),
    );
    table.case(
        "an ApiKey that was PUT by hand loses the nulls",
        async |subject: Subject| {
            subject.post(&subject.keys_path(), &key("web")).await;
            let after = put_key(&subject, |object| {
                object["spec"]["purpose"] = Value::Null;
                object["spec"]["secret"] = json!({"labels": null});
            })
            .await;
            json!([after.code, after.body["spec"], after.metadata()["generation"]])
        },
        json!([200, {"accountRef": {"name": "main"}, "environment": "production", "secret": {}}, 2]),
    );
}
