//! Creation, and what the server makes of what it is sent.

use k8s_openapi::api::events::v1::Event;
use kube::{Api, ResourceExt, api::PostParams};
use serde_json::{Value, json};

use super::{Subject, Table, from, key, said, secret};

pub(super) fn add(table: &mut Table) {
    table.case(
        "what the server sets on a new ApiKey is its own, whatever the client sent",
        async |subject: Subject| {
            let mut sent = key("web");
            sent["metadata"]["uid"] = json!("11111111-2222-3333-4444-555555555555");
            sent["metadata"]["generation"] = json!(7);
            sent["metadata"]["creationTimestamp"] = json!("2001-02-03T04:05:06Z");
            sent["metadata"]["deletionTimestamp"] = json!("2001-02-03T04:05:06Z");
            sent["metadata"]["selfLink"] = json!("/somewhere");
            let made = subject.post(&subject.keys_path(), &sent).await;
            let metadata = made.metadata();
            let time = metadata["creationTimestamp"].as_str().unwrap();
            json!({
                "code": made.code,
                "uid is the client's": metadata["uid"] == sent["metadata"]["uid"],
                "uid looks like": metadata["uid"].as_str().unwrap().split('-').map(str::len).collect::<Vec<_>>(),
                "generation": metadata["generation"],
                "version is above 0": made.version().parse::<u64>().unwrap() > 0,
                "time is the client's": time.starts_with("2001"),
                "time has no fraction": time.len() == "2001-02-03T04:05:06Z".len() && time.ends_with('Z'),
                "deleting": metadata.get("deletionTimestamp"),
                "link": metadata.get("selfLink"),
                "namespace is the path's": metadata["namespace"] == json!(subject.namespace),
            })
        },
        json!({
            "code": 201, "uid is the client's": false, "uid looks like": [8, 4, 4, 4, 12], "generation": 1,
            "version is above 0": true, "time is the client's": false, "time has no fraction": true,
            "deleting": null, "link": null, "namespace is the path's": true,
        }),
    );
    table.case(
        "a status that is sent with a new ApiKey is dropped",
        async |subject: Subject| {
            let mut sent = key("web");
            sent["status"] = json!({"phase": "Live"});
            let made = subject.post(&subject.keys_path(), &sent).await;
            json!([made.code, made.body.get("status")])
        },
        json!([201, null]),
    );
    table.case(
        "a new Secret is Opaque where it does not say, and has no generation",
        async |subject: Subject| {
            let mut sent = secret("web");
            sent.as_object_mut().unwrap().remove("type");
            let made = subject.post(&subject.secrets_path(), &sent).await;
            json!([made.code, made.body["type"], made.metadata().get("generation")])
        },
        json!([201, "Opaque", null]),
    );
    table.case(
        "stringData is folded into data, and wins there",
        async |subject: Subject| {
            let mut sent = secret("web");
            sent["data"] = json!({"kept": "b25l", "both": "b25l"});
            sent["stringData"] = json!({"both": "two", "empty": ""});
            let made = subject.post(&subject.secrets_path(), &sent).await;
            json!([made.body["data"], made.body.get("stringData")])
        },
        json!([{"kept": "b25l", "both": "dHdv", "empty": ""}, null]),
    );
    table.case(
        "a name is generated where only its beginning is given",
        async |subject: Subject| {
            let mut sent = secret("web");
            sent["metadata"] = json!({"generateName": "web-"});
            let one = subject.post(&subject.secrets_path(), &sent).await;
            let two = subject.post(&subject.secrets_path(), &sent).await;
            let name = |made: &super::Answer| made.metadata()["name"].as_str().unwrap().to_owned();
            json!([one.code, name(&one).starts_with("web-"), name(&one).len(), name(&one) == name(&two)])
        },
        json!([201, true, 9, false]),
    );
    table.case(
        "a dry-run computes the new object and stores nothing",
        async |subject: Subject| {
            let dry_run = PostParams { dry_run: true, ..PostParams::default() };
            let made = subject.secrets().create(&dry_run, &from(secret("web"))).await.unwrap();
            let found = subject.secrets().get_opt("web").await.unwrap();
            json!({
                "uid": made.uid().is_some(), "version": made.resource_version(),
                "created": made.creation_timestamp().is_some(), "found": found.is_some(),
            })
        },
        json!({"uid": true, "version": null, "created": true, "found": false}),
    );
    table.case(
        "nulls and fields that nobody knows are dropped",
        async |subject: Subject| {
            let mut one = key("web");
            one["spec"]["purpose"] = Value::Null;
            one["unknown"] = json!(1);
            one["metadata"]["unknown"] = json!(1);
            one["metadata"]["labels"] = json!({});
            one["metadata"]["finalizers"] = json!([]);
            one["metadata"]["annotations"] = Value::Null;
            let one = subject.post(&subject.keys_path(), &one).await;
            let mut two = secret("web");
            two["unknown"] = json!(1);
            two["data"] = json!({});
            two["immutable"] = Value::Null;
            two["metadata"]["labels"] = json!({});
            let two = subject.post(&subject.secrets_path(), &two).await;
            let fields = |object: &Value| {
                let fields = object.as_object().unwrap().keys().filter(|name| *name != "managedFields");
                fields.cloned().collect::<Vec<_>>()
            };
            json!([
                fields(&one.body),
                fields(one.metadata()),
                one.body["spec"],
                fields(&two.body),
                fields(two.metadata()),
            ])
        },
        json!([
            ["apiVersion", "kind", "metadata", "spec"],
            ["creationTimestamp", "generation", "name", "namespace", "resourceVersion", "uid"],
            {"accountRef": {"name": "main"}, "environment": "production"},
            ["apiVersion", "kind", "metadata", "type"],
            ["creationTimestamp", "name", "namespace", "resourceVersion", "uid"],
        ]),
    );
    table.case(
        "an Event is created as the operator does it",
        async |subject: Subject| {
            let events: Api<Event> = Api::namespaced(subject.client.clone(), &subject.namespace);
            let event = json!({
                "metadata": {"name": "web.17", "namespace": subject.namespace},
                "regarding": {"apiVersion": "keys.bags.fm/v1alpha1", "kind": "ApiKey", "name": "web",
                              "namespace": subject.namespace},
                "reason": "KeyMade", "action": "Create", "type": "Normal", "note": "made",
                "eventTime": "2026-01-02T03:04:05.000006Z",
                "reportingController": "keys.bags.fm/bags-operator", "reportingInstance": "one",
            });
            let event: Event = from(event);
            let made = events.create(&PostParams::default(), &event).await.unwrap();
            let again = events.create(&PostParams::default(), &event).await;
            json!([made.uid().is_some(), made.note, made.event_time == event.event_time, said(&again)])
        },
        json!([true, "made", true, "409 AlreadyExists"]),
    );
    table.case(
        "a new namespace is active, held by the namespace controller, and labelled",
        async |subject: Subject| {
            let name = subject.unique("new");
            let sent = json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": "another"}},
                "status": {"phase": "Terminating"},
            });
            let made = subject.post("/api/v1/namespaces", &sent).await;
            let label = &made.metadata()["labels"]["kubernetes.io/metadata.name"];
            json!([
                made.code,
                made.body["status"],
                made.body["spec"],
                *label == json!(name),
                made.metadata().get("generation")
            ])
        },
        json!([201, {"phase": "Active"}, {"finalizers": ["kubernetes"]}, true, null]),
    );
    table.case(
        "an Event about what has no namespace is created in the default one",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for namespace in ["default".to_owned(), subject.unique("missing")] {
                let events: Api<Event> = Api::namespaced(subject.client.clone(), &namespace);
                let event = json!({
                    "metadata": {"name": subject.unique("main.17"), "namespace": namespace},
                    "regarding": {"apiVersion": "keys.bags.fm/v1alpha1", "kind": "BagsAccount", "name": "main"},
                    "reason": "UserPinned", "action": "Authenticate", "type": "Normal", "note": "pinned",
                    "eventTime": "2026-01-02T03:04:05.000006Z",
                    "reportingController": "keys.bags.fm/bags-operator", "reportingInstance": "one",
                });
                seen.push(said(&events.create(&PostParams::default(), &from(event)).await));
            }
            json!(seen)
        },
        json!(["done", "404 NotFound"]),
    );
}
