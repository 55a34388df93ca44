//! Merge patches.

use http::Method;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{Answer, Subject, Table, said, to, version};

const MERGE: &str = "application/merge-patch+json";
const OTHER: &str = "11111111-2222-3333-4444-555555555555";

fn condition(type_: &str) -> Value {
    json!({
        "type": type_, "status": "True", "reason": "Told", "message": "told", "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

pub(super) fn add(table: &mut Table) {
    table.case(
        "a patch with the version and the uid that it saw is applied once",
        async |subject: Subject| {
            let seen = subject.key("web").await;
            let patch = json!({"metadata": {
                "finalizers": ["example.com/held"], "resourceVersion": seen.resource_version(), "uid": seen.uid(),
            }});
            let options = PatchParams::default();
            let once = subject.keys().patch("web", &options, &Patch::Merge(&patch)).await;
            let twice = subject.keys().patch("web", &options, &Patch::Merge(&patch)).await;
            let after = once.as_ref().unwrap();
            json!([
                said(&once), after.finalizers(), after.metadata.generation, version(after) > version(&seen), said(&twice),
            ])
        },
        json!(["done", ["example.com/held"], 1, true, "409 Conflict"]),
    );
    table.case(
        "a patch with another uid is refused, as a conflict only if the version is another too",
        async |subject: Subject| {
            let (key, secret) = (subject.key("web").await, subject.secret("web").await);
            let path = format!("{}/web", subject.keys_path());
            let (right, wrong) = (json!(key.resource_version()), json!("5"));
            let patch = |version: &Value| json!({"metadata": {"uid": OTHER, "resourceVersion": version}});
            let status = format!("{path}/status");
            let other = format!("{}/web", subject.secrets_path());
            json!([
                subject.merge(&path, &patch(&right)).await.said(),
                subject.merge(&path, &patch(&wrong)).await.said(),
                subject.merge(&path, &json!({"metadata": {"uid": OTHER}})).await.said(),
                subject.merge(&status, &patch(&right)).await.said(),
                subject.merge(&status, &patch(&wrong)).await.said(),
                subject.merge(&other, &patch(&json!(secret.resource_version()))).await.said(),
            ])
        },
        json!(["422 Invalid", "409 Conflict", "422 Invalid", 200, "409 Conflict", "422 Invalid"]),
    );
    table.case(
        "a patch without a version is applied to whatever is there",
        async |subject: Subject| {
            let before = subject.key("web").await;
            let path = format!("{}/web", subject.keys_path());
            let one =
                subject.merge(&path, &json!({"metadata": {"labels": {"team": "red", "tier": "web"}}})).await;
            let two = subject
                .merge(&path, &json!({"metadata": {"labels": {"team": null}}, "spec": {"suspend": true}}))
                .await;
            let three =
                subject.merge(&path, &json!({"metadata": {"labels": null}, "spec": {"suspend": null}})).await;
            json!([
                one.metadata()["labels"],
                two.metadata()["labels"],
                two.body["spec"]["suspend"],
                two.metadata()["generation"],
                three.metadata().get("labels"),
                three.body["spec"] == to(&before.spec),
                three.metadata()["generation"],
            ])
        },
        json!([{"team": "red", "tier": "web"}, {"tier": "web"}, true, 2, null, true, 3]),
    );
    table.case(
        "a list in a patch takes the place of the other, and an empty one is no field",
        async |subject: Subject| {
            subject.key("web").await;
            let path = format!("{}/web", subject.keys_path());
            let patch = |finalizers: Value| json!({"metadata": {"finalizers": finalizers}});
            let one = subject.merge(&path, &patch(json!(["example.com/a", "example.com/b"]))).await;
            let two = subject.merge(&path, &patch(json!(["example.com/b"]))).await;
            let three = subject.merge(&path, &patch(json!([]))).await;
            json!([one, two, three].map(|answer| answer.metadata().get("finalizers").cloned()))
        },
        json!([["example.com/a", "example.com/b"], ["example.com/b"], null]),
    );
    table.case(
        "a patch of the object leaves the status, and one of the status leaves all else",
        async |subject: Subject| {
            subject.key("web").await;
            let path = format!("{}/web", subject.keys_path());
            let patch = json!({
                "metadata": {"labels": {"team": "red"}}, "spec": {"suspend": true}, "status": {"phase": "Live"},
            });
            let whole = subject.merge(&path, &patch).await;
            let patch = json!({
                "metadata": {"labels": {"team": "blue"}, "finalizers": ["example.com/held"]},
                "spec": {"suspend": false}, "status": {"phase": "Live"},
            });
            let status = subject.merge(&format!("{path}/status"), &patch).await;
            json!([
                whole.code, whole.body.get("status"), status.code, status.body["status"], status.body["spec"]["suspend"],
                status.metadata()["labels"], status.metadata().get("finalizers"), status.metadata()["generation"],
            ])
        },
        json!([200, null, 200, {"phase": "Live"}, true, {"team": "red"}, null, 2]),
    );
    table.case(
        "a patch of the status changes what it names, at the version that it names",
        async |subject: Subject| {
            let key = subject.key("web").await;
            let path = format!("{}/web/status", subject.keys_path());
            let patch = |version: &str, status: Value| json!({"metadata": {"resourceVersion": version}, "status": status});
            let told = json!({"phase": "Live", "conditions": [condition("One"), condition("Two")]});
            let first = subject.merge(&path, &patch(&key.resource_version().unwrap(), told)).await;
            let version = first.metadata()["resourceVersion"].as_str().unwrap_or_default().to_owned();
            let other = patch(&version, json!({"conditions": [condition("Three")], "observedGeneration": 7}));
            let second = subject.merge(&path, &other).await;
            let stale = subject.merge(&path, &other).await;
            let types = |answer: &Answer| {
                let all = answer.body["status"]["conditions"].as_array().cloned().unwrap_or_default();
                json!(all.iter().map(|condition| condition["type"].clone()).collect::<Vec<_>>())
            };
            json!([
                types(&first), types(&second), second.body["status"]["phase"], second.body["status"]["observedGeneration"],
                stale.said(),
            ])
        },
        json!([["One", "Two"], ["Three"], "Live", 7, "409 Conflict"]),
    );
    table.case(
        "a patch that changes nothing keeps the version",
        async |subject: Subject| {
            let (key, secret) = (subject.key("web").await, subject.secret("web").await);
            let empty = subject.merge(&format!("{}/web", subject.keys_path()), &json!({})).await;
            let same = json!({"spec": {"environment": "production"}, "metadata": {"labels": {"none": null}}});
            let same = subject.merge(&format!("{}/web", subject.keys_path()), &same).await;
            let data = json!({"data": {"value": "b25l"}});
            let data = subject.merge(&format!("{}/web", subject.secrets_path()), &data).await;
            let (one, two) = (key.resource_version().unwrap(), secret.resource_version().unwrap());
            json!([empty.version() == one, same.version() == one, data.version() == two])
        },
        json!([true, true, true]),
    );
    table.case(
        "a patch that takes the version away is treated as a PUT without one",
        async |subject: Subject| {
            subject.key("web").await;
            subject.secret("web").await;
            let patch = json!({"metadata": {"resourceVersion": null, "labels": {"team": "red"}}});
            json!([
                subject.merge(&format!("{}/web", subject.keys_path()), &patch).await.said(),
                subject.merge(&format!("{}/web", subject.secrets_path()), &patch).await.said(),
            ])
        },
        json!(["422 Invalid", 200]),
    );
    table.case(
        "a patch of what is not there is not found",
        async |subject: Subject| {
            let (key, secret) =
                (format!("{}/web", subject.keys_path()), format!("{}/web", subject.secrets_path()));
            let patch = json!({"metadata": {"uid": OTHER, "resourceVersion": "5", "finalizers": []}});
            json!([
                subject.merge(&key, &patch).await.said(),
                subject.merge(&secret, &patch).await.said(),
                subject.merge(&format!("{key}/status"), &patch).await.said(),
                subject.merge(&key, &json!({})).await.said(),
            ])
        },
        json!(["404 NotFound", "404 NotFound", "404 NotFound", "404 NotFound"]),
    );
    table.case(
        "a patch that cannot be read is refused",
        async |subject: Subject| {
            subject.key("web").await;
            subject.secret("web").await;
            let mut seen = Vec::new();
            for path in [format!("{}/web", subject.keys_path()), format!("{}/web", subject.secrets_path())] {
                for body in ["", "{", "[]", "5", "null"] {
                    seen.push(subject.call(Method::PATCH, &path, MERGE, body.into()).await.said());
                }
                seen.push(subject.call(Method::PATCH, &path, "application/json", "{}".into()).await.said());
                seen.push(subject.call(Method::PATCH, &path, "text/plain", "{}".into()).await.said());
            }
            json!(seen)
        },
        json!([
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            "415 UnsupportedMediaType",
            "415 UnsupportedMediaType",
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            "415 UnsupportedMediaType",
            "415 UnsupportedMediaType",
        ]),
    );
    table.case(
        "a patch that makes an object nobody can read is refused",
        async |subject: Subject| {
            subject.key("web").await;
            subject.secret("web").await;
            let (key, secret) =
                (format!("{}/web", subject.keys_path()), format!("{}/web", subject.secrets_path()));
            let mut seen = Vec::new();
            for patch in
                [json!({"metadata": {"labels": 5}}), json!({"metadata": null}), json!({"kind": "Other"})]
            {
                seen.push(subject.merge(&key, &patch).await.said());
                seen.push(subject.merge(&secret, &patch).await.said());
            }
            seen.push(subject.merge(&secret, &json!({"data": {"value": "not base64"}})).await.said());
            json!(seen)
        },
        json!([
            "422 Invalid",
            "422 Invalid",
            "400 BadRequest",
            "400 BadRequest",
            "422 Invalid",
            "422 Invalid",
            "422 Invalid",
        ]),
    );
    table.case(
        "a patch does not rename",
        async |subject: Subject| {
            subject.key("web").await;
            subject.secret("web").await;
            let (key, secret) =
                (format!("{}/web", subject.keys_path()), format!("{}/web", subject.secrets_path()));
            let (name, space) =
                (json!({"metadata": {"name": "other"}}), json!({"metadata": {"namespace": "default"}}));
            json!([
                subject.merge(&key, &name).await.said(),
                subject.merge(&secret, &name).await.said(),
                subject.merge(&key, &space).await.said(),
                subject.merge(&secret, &space).await.said(),
            ])
        },
        json!(["400 BadRequest", "400 BadRequest", "400 BadRequest", "400 BadRequest"]),
    );
    table.case(
        "a dry-run of a patch stores nothing",
        async |subject: Subject| {
            let before = subject.key("web").await;
            let patch = json!({"spec": {"suspend": true}});
            let options = PatchParams::default().dry_run();
            let tried = subject.keys().patch("web", &options, &Patch::Merge(&patch)).await.unwrap();
            let after = subject.keys().get("web").await.unwrap();
            json!([
                tried.spec.suspend,
                tried.metadata.generation,
                version(&tried) == version(&before),
                after == before
            ])
        },
        json!([true, 2, true, true]),
    );
    table.case(
        "a patch of a Secret takes stringData, and keeps what it does not name",
        async |subject: Subject| {
            subject.secret("web").await;
            let path = format!("{}/web", subject.secrets_path());
            let after = subject.merge(&path, &json!({"stringData": {"more": "two"}})).await;
            let less = subject.merge(&path, &json!({"data": {"value": null}})).await;
            let none = subject.merge(&path, &json!({"data": null})).await;
            json!([
                after.body["data"],
                after.body.get("stringData"),
                less.body["data"],
                none.body.get("data")
            ])
        },
        json!([{"value": "b25l", "more": "dHdv"}, null, {"more": "dHdv"}, null]),
    );
    table.case(
        "a patch answers with the metadata where only that is accepted",
        async |subject: Subject| {
            subject.key("web").await;
            let patch = json!({"metadata": {"labels": {"team": "red"}}});
            let options = PatchParams::default();
            let answer = subject.keys().patch_metadata("web", &options, &Patch::Merge(&patch)).await.unwrap();
            json!([answer.labels().get("team"), answer.types.map(|types| types.kind)])
        },
        json!(["red", "PartialObjectMetadata"]),
    );
}
