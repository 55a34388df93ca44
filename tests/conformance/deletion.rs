//! DELETE, finalizers, and the end of namespaces.

use futures::{StreamExt, TryStreamExt};
use http::Method;
use kube::{
    ResourceExt,
    api::{
        DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
        WatchEvent, WatchParams,
    },
};
use serde_json::{Value, json};

use super::{Subject, Table, from, key, names, said, secret, to, version};

const OTHER: &str = "11111111-2222-3333-4444-555555555555";

fn only(uid: Option<String>, resource_version: Option<String>) -> DeleteParams {
    DeleteParams { preconditions: Some(Preconditions { uid, resource_version }), ..DeleteParams::default() }
}

fn held(mut object: Value) -> Value {
    object["metadata"]["finalizers"] = json!(["example.com/held"]);
    object
}

pub(super) fn add(table: &mut Table) {
    table.case(
        "a deletion answers with what is gone",
        async |subject: Subject| {
            let (key, secret) = (subject.key("web").await, subject.secret("web").await);
            let one = subject.delete(&format!("{}/web", subject.keys_path()), &json!({})).await;
            let two = subject.delete(&format!("{}/web", subject.secrets_path()), &json!({})).await;
            let details = |answer: &super::Answer| answer.body["details"].clone();
            json!([
                one.code,
                one.body["kind"],
                one.body["status"],
                details(&one)["uid"] == json!(key.uid()),
                details(&one)["kind"],
                details(&one)["group"],
                details(&one)["name"],
                two.code,
                two.body["kind"],
                details(&two)["uid"] == json!(secret.uid()),
                details(&two)["kind"],
                said(&subject.keys().get("web").await),
                said(&subject.secrets().get("web").await),
            ])
        },
        json!([
            200,
            "Status",
            "Success",
            true,
            "apikeys",
            "keys.bags.fm",
            "web",
            200,
            "Status",
            true,
            "secrets",
            "404 NotFound",
            "404 NotFound",
        ]),
    );
    table.case(
        "a deletion takes place only if uid and version are as it says",
        async |subject: Subject| {
            let made = subject.secret("web").await;
            let (uid, version) = (made.uid(), made.resource_version());
            let mut seen = Vec::new();
            for options in [
                only(Some(OTHER.to_owned()), None),
                only(Some(OTHER.to_owned()), version.clone()),
                only(uid.clone(), Some("5".to_owned())),
                only(None, Some("5".to_owned())),
                only(uid, version),
            ] {
                seen.push(said(&subject.secrets().delete("web", &options).await));
            }
            seen.push(said(&subject.secrets().get("web").await));
            json!(seen)
        },
        json!(["409 Conflict", "409 Conflict", "409 Conflict", "409 Conflict", "done", "404 NotFound"]),
    );
    table.case(
        "a deletion of an older version is a conflict, held by a finalizer or not",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for object in [key("web"), held(key("held"))] {
                let made = subject.keys().create(&PostParams::default(), &from(object)).await.unwrap();
                let name = made.name_any();
                let patch = json!({"spec": {"suspend": true}});
                subject.keys().patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
                let old = only(made.uid(), made.resource_version());
                seen.push(said(&subject.keys().delete(&name, &old).await));
                let now = subject.keys().get(&name).await.unwrap();
                seen.push(said(
                    &subject.keys().delete(&name, &only(now.uid(), now.resource_version())).await,
                ));
            }
            json!(seen)
        },
        json!(["409 Conflict", "done", "409 Conflict", "done"]),
    );
    table.case(
        "a deletion of what is not there is not found, whatever it is told",
        async |subject: Subject| {
            let options = only(Some(OTHER.to_owned()), Some("5".to_owned()));
            json!([
                said(&subject.keys().delete("web", &DeleteParams::default()).await),
                said(&subject.secrets().delete("web", &options).await),
            ])
        },
        json!(["404 NotFound", "404 NotFound"]),
    );
    table.case(
        "an object that a finalizer holds is marked, and stays",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for (path, object) in [(subject.keys_path(), key("web")), (subject.secrets_path(), secret("web"))]
            {
                let made = subject.post(&path, &held(object)).await;
                let item = format!("{path}/web");
                let marked = subject.delete(&item, &json!({})).await;
                let read = subject.get(&item).await;
                let metadata = marked.metadata();
                seen.push(json!([
                    marked.code,
                    marked.body["kind"],
                    metadata["deletionTimestamp"].is_string(),
                    metadata["deletionGracePeriodSeconds"],
                    metadata.get("generation"),
                    metadata["finalizers"],
                    marked.version() != made.version(),
                    read.version() == marked.version(),
                ]));
            }
            json!(seen)
        },
        json!([
            [200, "ApiKey", true, 0, 2, ["example.com/held"], true, true],
            [200, "Secret", true, 0, null, ["example.com/held"], true, true],
        ]),
    );
    table.case(
        "what is being deleted may be deleted again, which changes nothing",
        async |subject: Subject| {
            let dying = subject.dying_key("web").await;
            let item = format!("{}/web", subject.keys_path());
            let again = subject.delete(&item, &json!({})).await;
            let uid = subject.delete(&item, &json!({"preconditions": {"uid": OTHER}})).await;
            json!([
                again.code,
                again.body["kind"],
                json!(again.version()) == json!(dying.resource_version()),
                uid.said(),
            ])
        },
        json!([200, "ApiKey", true, "409 Conflict"]),
    );
    table.case(
        "the patch that takes the last finalizer away answers with the object, and it is gone",
        async |subject: Subject| {
            let dying = subject.dying_key("web").await;
            let patch = json!({"metadata": {
                "finalizers": [], "resourceVersion": dying.resource_version(), "uid": dying.uid(),
            }});
            let options = PatchParams::default();
            let last = subject.keys().patch("web", &options, &Patch::Merge(&patch)).await.unwrap();
            json!([
                last.finalizers().len(),
                last.metadata.deletion_timestamp.is_some(),
                version(&last) == version(&dying),
                last.metadata.generation,
                said(&subject.keys().get("web").await),
                said(&subject.keys().patch("web", &options, &Patch::Merge(&patch)).await),
            ])
        },
        json!([0, true, true, 2, "404 NotFound", "404 NotFound"]),
    );
    table.case(
        "the PUT that takes the last finalizer away answers with the object, and it is gone",
        async |subject: Subject| {
            let mut dying = subject.dying_key("web").await;
            let before = version(&dying);
            dying.metadata.finalizers = None;
            dying.spec.suspend = Some(true);
            let last = subject.keys().replace("web", &PostParams::default(), &dying).await.unwrap();
            json!([
                last.finalizers().len(),
                last.spec.suspend,
                version(&last) == before,
                last.metadata.generation,
                said(&subject.keys().get("web").await),
            ])
        },
        json!([0, true, true, 3, "404 NotFound"]),
    );
    table.case(
        "while an object is being deleted, finalizers only go",
        async |subject: Subject| {
            let two = held(key("web"));
            let mut two: Value = two;
            two["metadata"]["finalizers"] = json!(["example.com/held", "example.com/more"]);
            subject.post(&subject.keys_path(), &two).await;
            let item = format!("{}/web", subject.keys_path());
            subject.delete(&item, &json!({})).await;
            let mut seen = Vec::new();
            for finalizers in [
                json!(["example.com/held", "example.com/more", "example.com/new"]),
                json!(["example.com/new"]),
                json!(["example.com/more", "example.com/held"]),
                json!(["example.com/held"]),
                json!(["example.com/held", "example.com/more"]),
            ] {
                seen.push(
                    subject.merge(&item, &json!({"metadata": {"finalizers": finalizers}})).await.said(),
                );
            }
            json!(seen)
        },
        json!(["422 Invalid", "422 Invalid", 200, 200, "422 Invalid"]),
    );
    table.case(
        "an object that is being deleted may still be changed, but not called back",
        async |subject: Subject| {
            let mut dying = subject.dying_key("web").await;
            dying.status = Some(from(json!({"phase": "Live"})));
            let options = PostParams::default();
            let reported = subject.keys().replace_status("web", &options, &dying).await.unwrap();
            let item = format!("{}/web", subject.keys_path());
            let patch = json!({"metadata": {"labels": {"team": "red"}}, "spec": {"suspend": true}});
            let changed = subject.merge(&item, &patch).await;
            let mut object = changed.body.clone();
            object["metadata"].as_object_mut().unwrap().remove("deletionTimestamp");
            object["metadata"].as_object_mut().unwrap().remove("deletionGracePeriodSeconds");
            let back = subject.put(&item, &object).await;
            let patch = json!({"metadata": {"deletionTimestamp": null, "deletionGracePeriodSeconds": null}});
            let patched = subject.merge(&item, &patch).await;
            let grace = subject.merge(&item, &json!({"metadata": {"deletionGracePeriodSeconds": 9}})).await;
            json!([
                to(&reported)["status"],
                changed.code,
                changed.metadata()["generation"],
                back.code,
                back.version() == changed.version(),
                patched.version() == changed.version(),
                grace.said(),
            ])
        },
        json!([{"phase": "Live"}, 200, 3, 200, true, true, "422 Invalid"]),
    );
    table.case(
        "the name of an object that is being deleted is taken",
        async |subject: Subject| {
            subject.dying_key("web").await;
            json!(subject.post(&subject.keys_path(), &key("web")).await.said())
        },
        json!("409 AlreadyExists"),
    );
    table.case(
        "what is made anew under a name is another object",
        async |subject: Subject| {
            let one = subject.key("web").await;
            subject.keys().delete("web", &DeleteParams::default()).await.unwrap();
            let two = subject.key("web").await;
            let old = subject.keys().delete("web", &only(one.uid(), None)).await;
            json!([
                one.uid() == two.uid(),
                version(&two) > version(&one),
                two.metadata.generation,
                said(&old)
            ])
        },
        json!([false, true, 1, "409 Conflict"]),
    );
    table.case(
        "a dry-run of a deletion deletes nothing",
        async |subject: Subject| {
            let made = subject.secret("web").await;
            let kept = subject.keys().create(&PostParams::default(), &from(held(key("held")))).await.unwrap();
            let options = DeleteParams { dry_run: true, ..DeleteParams::default() };
            let one = subject.secrets().delete("web", &options).await;
            let two = subject.keys().delete("held", &options).await.unwrap().left().unwrap();
            json!([
                said(&one),
                subject.secrets().get("web").await.unwrap() == made,
                two.metadata.deletion_timestamp.is_some(),
                version(&two) == version(&kept),
                subject.keys().get("held").await.unwrap() == kept,
            ])
        },
        json!(["done", true, true, true, true]),
    );
    table.case(
        "a deletion that waits for dependents or leaves them adds a finalizer",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for (name, policy) in [
                ("foreground", PropagationPolicy::Foreground),
                ("orphan", PropagationPolicy::Orphan),
                ("background", PropagationPolicy::Background),
            ] {
                subject.keys().create(&PostParams::default(), &from(held(key(name)))).await.unwrap();
                let options = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
                let dying = subject.keys().delete(name, &options).await.unwrap().left().unwrap();
                seen.push(dying.finalizers().to_vec());
            }
            json!(seen)
        },
        json!([
            ["example.com/held", "foregroundDeletion"],
            ["example.com/held", "orphan"],
            ["example.com/held"],
        ]),
    );
    table.case(
        "a deletion without a body, and one that cannot be read",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for body in
                ["{", "[]", "{\"kind\": \"Secret\", \"apiVersion\": \"v1\"}", "{\"dryRun\": [\"Some\"]}", ""]
            {
                subject.post(&subject.secrets_path(), &secret("web")).await;
                let path = format!("{}/web", subject.secrets_path());
                seen.push(subject.call(Method::DELETE, &path, "application/json", body.into()).await.said());
            }
            let gone = subject.secrets().get_opt("web").await.unwrap().is_none();
            json!([seen, gone])
        },
        json!([[500, 500, 500, "422 Invalid", 200], true]),
    );
    table.case(
        "a collection is deleted, as far as it is selected",
        async |subject: Subject| {
            for (name, team) in [("a", "red"), ("b", "blue"), ("c", "red")] {
                let mut one = key(name);
                one["metadata"]["labels"] = json!({"team": team});
                subject.post(&subject.keys_path(), &one).await;
            }
            let params = ListParams::default().labels("team=red");
            let deleted = subject.keys().delete_collection(&DeleteParams::default(), &params).await.unwrap();
            let left = names(subject.keys().list(&ListParams::default()).await.unwrap());
            json!([deleted.left().map(names), left])
        },
        json!([["a", "c"], ["b"]]),
    );
    table.case(
        "the namespaces that every cluster has are not deleted",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for name in ["default", "kube-system", "kube-public"] {
                let there = subject.namespaces().get(name).await.unwrap().uid().is_some();
                seen.push(json!([
                    there,
                    said(&subject.namespaces().delete(name, &DeleteParams::default()).await)
                ]));
            }
            json!(seen)
        },
        json!([[true, "403 Forbidden"], [true, "403 Forbidden"], [true, "403 Forbidden"]]),
    );
    table.case(
        "a namespace ends when nothing is left in it",
        async |subject: Subject| {
            let name = subject.namespace.clone();
            subject.secret("web").await;
            subject.keys().create(&PostParams::default(), &from(held(key("web")))).await.unwrap();
            let path = format!("/api/v1/namespaces/{name}");
            let other = json!({"preconditions": {"uid": OTHER}});
            let refused = subject.delete(&path, &other).await;
            let deleted = subject.delete(&path, &json!({})).await;
            let again = subject.delete(&path, &json!({})).await;
            subject.finish(&name, false).await;
            let found = subject.get(&path).await;
            let key = subject.keys().get("web").await.unwrap();
            let secret = subject.secrets().get_opt("web").await.unwrap();
            let free = json!({"metadata": {"finalizers": []}});
            subject.merge(&format!("{}/web", subject.keys_path()), &free).await;
            subject.finish(&name, true).await;
            json!({
                "refused": refused.said(),
                "deleted": [
                    deleted.code, deleted.body["kind"], deleted.body["status"]["phase"], deleted.body["spec"],
                    deleted.metadata()["deletionTimestamp"].is_string(),
                    deleted.metadata().get("deletionGracePeriodSeconds"),
                ],
                "again": [again.code, again.body["kind"]],
                "then": [found.body["status"]["phase"], found.body["spec"]],
                "inside": [key.metadata.deletion_timestamp.is_some(), secret.is_some()],
                "end": [said(&subject.namespaces().get(&name).await), said(&subject.keys().get("web").await)],
            })
        },
        json!({
            "refused": "409 Conflict",
            "deleted": [200, "Namespace", "Terminating", {"finalizers": ["kubernetes"]}, true, null],
            "again": [200, "Namespace"],
            "then": ["Terminating", {"finalizers": ["kubernetes"]}],
            "inside": [true, false],
            "end": ["404 NotFound", "404 NotFound"],
        }),
    );
    table.case(
        "what is in a namespace that is being deleted may be changed, and deleted",
        async |subject: Subject| {
            subject.secret("other").await;
            subject.keys().create(&PostParams::default(), &from(held(key("web")))).await.unwrap();
            subject.namespaces().delete(&subject.namespace, &DeleteParams::default()).await.unwrap();
            let item = format!("{}/web", subject.keys_path());
            let patched = subject.merge(&item, &json!({"spec": {"suspend": true}})).await;
            let deleted = subject.delete(&item, &json!({})).await;
            let freed = subject.merge(&item, &json!({"metadata": {"finalizers": null}})).await;
            json!([patched.said(), deleted.said(), freed.said()])
        },
        json!([200, 200, 200]),
    );
    table.case(
        "a namespace that a finalizer of its own holds is empty, and waits",
        async |subject: Subject| {
            let path = format!("/api/v1/namespaces/{}", subject.namespace);
            subject.secret("web").await;
            let from_here = subject.get(&path).await.version().to_owned();
            subject.merge(&path, &json!({"metadata": {"finalizers": ["example.com/held"]}})).await;
            let deleted = subject.delete(&path, &json!({})).await;
            subject.empty(&subject.namespace).await;
            let found = subject.get(&path).await;
            let secret = subject.secrets().get_opt("web").await.unwrap();
            let freed = subject.merge(&path, &json!({"metadata": {"finalizers": null}})).await;
            let gone = subject.get(&path).await;
            let params = WatchParams::default().fields(&format!("metadata.name={}", subject.namespace));
            let events = subject.namespaces().watch(&params, &from_here).await.unwrap();
            let deletion =
                events.try_filter(|event| std::future::ready(matches!(event, WatchEvent::Deleted(_))));
            futures::pin_mut!(deletion);
            let Some(Ok(WatchEvent::Deleted(last))) = deletion.next().await else { panic!("it was deleted") };
            json!([
                deleted.code,
                deleted.metadata()["finalizers"],
                found.body["spec"],
                found.body["status"]["phase"],
                secret.is_some(),
                freed.code,
                gone.said(),
                last.finalizers(),
            ])
        },
        json!([
            200,
            ["example.com/held"],
            {},
            "Terminating",
            false,
            200,
            "404 NotFound",
            ["example.com/held"],
        ]),
    );
}
