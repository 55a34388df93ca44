//! Creations that are refused.

use http::Method;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use super::{Subject, Table, from, key, said, secret};

pub(super) fn add(table: &mut Table) {
    table.case(
        "a name that is taken is refused",
        async |subject: Subject| {
            subject.key("web").await;
            subject.secret("web").await;
            let keys = subject.keys().create(&PostParams::default(), &from(key("web"))).await;
            let secrets = subject.secrets().create(&PostParams::default(), &from(secret("web"))).await;
            json!([said(&keys), said(&secrets)])
        },
        json!(["409 AlreadyExists", "409 AlreadyExists"]),
    );
    table.case(
        "nothing is created in a namespace that does not exist",
        async |subject: Subject| {
            let missing = subject.unique("missing");
            let keys = subject.keys_path().replace(&subject.namespace, &missing);
            let secrets = subject.secrets_path().replace(&subject.namespace, &missing);
            let key = subject.post(&keys, &key("web")).await;
            let secret = subject.post(&secrets, &secret("web")).await;
            let details = |answer: &super::Answer| answer.body["details"]["kind"].clone();
            json!([key.said(), details(&key), secret.said(), details(&secret)])
        },
        json!(["404 NotFound", "namespaces", "404 NotFound", "namespaces"]),
    );
    table.case(
        "nothing is created in a namespace that is being deleted",
        async |subject: Subject| {
            let mut held = secret("held");
            held["metadata"]["finalizers"] = json!(["example.com/held"]);
            subject.post(&subject.secrets_path(), &held).await;
            subject.namespaces().delete(&subject.namespace, &DeleteParams::default()).await.unwrap();
            let made = subject.post(&subject.secrets_path(), &secret("web")).await;
            let key = subject.post(&subject.keys_path(), &key("web")).await;
            let tried = subject.post(&format!("{}?dryRun=All", subject.secrets_path()), &secret("web")).await;
            let causes = &made.body["details"]["causes"];
            let free = json!({"metadata": {"finalizers": null}});
            subject.merge(&format!("{}/held", subject.secrets_path()), &free).await;
            json!([made.said(), key.said(), tried.said(), causes[0]["reason"], causes[0]["field"]])
        },
        json!([
            "403 Forbidden",
            "403 Forbidden",
            "403 Forbidden",
            "NamespaceTerminating",
            "metadata.namespace"
        ]),
    );
    table.case(
        "a dry-run is refused for what the creation would be refused for",
        async |subject: Subject| {
            subject.secret("taken").await;
            let path = format!("{}?dryRun=All", subject.secrets_path());
            let mut wrong = secret("web");
            wrong["metadata"]["labels"] = json!({"team": "not a label"});
            let taken = subject.post(&path, &secret("taken")).await;
            json!([taken.said(), subject.post(&path, &wrong).await.said()])
        },
        json!(["409 AlreadyExists", "422 Invalid"]),
    );
    table.case(
        "a dry-run of another word than All is refused",
        async |subject: Subject| {
            let path = format!("{}?dryRun=Some", subject.secrets_path());
            json!(subject.post(&path, &secret("web")).await.said())
        },
        json!("422 Invalid"),
    );
    table.case(
        "an object that comes with a version is not created",
        async |subject: Subject| {
            let mut sent = secret("web");
            sent["metadata"]["resourceVersion"] = json!("5");
            let made = subject.post(&subject.secrets_path(), &sent).await;
            let tried = subject.post(&format!("{}?dryRun=All", subject.secrets_path()), &sent).await;
            json!([made.said(), tried.said()])
        },
        json!([500, 201]),
    );
    table.case(
        "a name has to be a name, and to be there",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for name in ["Web", "web_1", "-web", "", "web.example"] {
                seen.push(subject.post(&subject.secrets_path(), &secret(name)).await.said());
                seen.push(subject.post(&subject.keys_path(), &key(name)).await.said());
            }
            let mut namespace = json!({"apiVersion": "v1", "kind": "Namespace"});
            namespace["metadata"] = json!({"name": format!("{}.with.dots", subject.namespace)});
            seen.push(subject.post("/api/v1/namespaces", &namespace).await.said());
            json!(seen)
        },
        json!([
            "422 Invalid",
            "422 Invalid",
            "422 Invalid",
            "422 Invalid",
            "422 Invalid",
            "422 Invalid",
            "422 Invalid",
            "422 Invalid",
            201,
            201,
            "422 Invalid",
        ]),
    );
    table.case(
        "an object that names another namespace than the path is refused",
        async |subject: Subject| {
            let (mut one, mut two) = (secret("web"), key("web"));
            one["metadata"]["namespace"] = json!("default");
            two["metadata"]["namespace"] = json!("default");
            let one = subject.post(&subject.secrets_path(), &one).await;
            json!([one.said(), subject.post(&subject.keys_path(), &two).await.said()])
        },
        json!(["400 BadRequest", "400 BadRequest"]),
    );
    table.case(
        "an object has to be of the kind that the path is for",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for (field, value) in [
                ("kind", json!("BagsAccount")),
                ("kind", Value::Null),
                ("kind", json!("")),
                ("apiVersion", json!("keys.bags.fm/v1")),
                ("apiVersion", Value::Null),
            ] {
                let (mut one, mut two) = (key("web"), secret("web"));
                for object in [&mut one, &mut two] {
                    match &value {
                        Value::Null => drop(object.as_object_mut().unwrap().remove(field)),
                        value => object[field] = value.clone(),
                    }
                }
                seen.push(subject.post(&format!("{}?dryRun=All", subject.keys_path()), &one).await.said());
                seen.push(subject.post(&format!("{}?dryRun=All", subject.secrets_path()), &two).await.said());
            }
            json!(seen)
        },
        json!([
            "422 Invalid",
            "400 BadRequest",
            "400 BadRequest",
            201,
            "400 BadRequest",
            201,
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            201,
        ]),
    );
    table.case(
        "a body that is no object is refused",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for body in ["", "{", "[]", "null", "\"web\"", "{\"metadata\": []}"] {
                for path in [subject.keys_path(), subject.secrets_path()] {
                    let answer = subject.call(Method::POST, &path, "application/json", body.into()).await;
                    seen.push(answer.said());
                }
            }
            json!(seen)
        },
        json!([
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            "422 Invalid",
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
            "400 BadRequest",
        ]),
    );
    table.case(
        "a field of the wrong type is refused",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for (field, value) in [
                ("labels", json!({"team": 1})),
                ("labels", json!("team")),
                ("finalizers", json!("held")),
                ("name", json!(5)),
                ("generation", json!("one")),
            ] {
                let (mut one, mut two) = (key("web"), secret("web"));
                one["metadata"][field] = value.clone();
                two["metadata"][field] = value;
                seen.push(subject.post(&subject.keys_path(), &one).await.said());
                seen.push(subject.post(&subject.secrets_path(), &two).await.said());
            }
            for (field, value) in [
                ("data", json!({"a": "not base64"})),
                ("data", json!([])),
                ("type", json!(1)),
                ("immutable", json!("yes")),
            ] {
                let mut one = secret("web");
                one[field] = value;
                seen.push(subject.post(&subject.secrets_path(), &one).await.said());
            }
            json!(seen)
        },
        json!(vec!["400 BadRequest"; 14]),
    );
    table.case(
        "a body in another form than JSON is refused",
        async |subject: Subject| {
            let body = secret("web").to_string();
            let text = subject.call(Method::POST, &subject.secrets_path(), "text/plain", body.into()).await;
            let body = key("web").to_string();
            let form = "application/x-www-form-urlencoded";
            json!([
                text.said(),
                subject.call(Method::POST, &subject.keys_path(), form, body.into()).await.said()
            ])
        },
        json!(["415 UnsupportedMediaType", "415 UnsupportedMediaType"]),
    );
    table.case(
        "a body of more than three megabytes is refused",
        async |subject: Subject| {
            let mut large = key("web");
            large["spec"]["purpose"] = json!("x".repeat(3 * 1024 * 1024));
            json!(subject.post(&subject.keys_path(), &large).await.said())
        },
        json!("413 RequestEntityTooLarge"),
    );
    table.case(
        "labels, annotations, finalizers and fields of data have to be named well",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for (field, value) in [
                ("labels", json!({"team": "not a label"})),
                ("labels", json!({"not a key": "red"})),
                ("labels", json!({"team": ""})),
                ("annotations", json!({"not a key": "x"})),
                ("annotations", json!({"UPPER.example.com/x": "any text"})),
                ("finalizers", json!(["not a name"])),
                ("finalizers", json!(["unqualified"])),
                ("finalizers", json!(["example.com/held"])),
            ] {
                let (mut one, mut two) = (key("web"), secret("web"));
                one["metadata"][field] = value.clone();
                two["metadata"][field] = value;
                seen.push(subject.post(&format!("{}?dryRun=All", subject.keys_path()), &one).await.said());
                seen.push(subject.post(&format!("{}?dryRun=All", subject.secrets_path()), &two).await.said());
            }
            for field in ["", ".", "..", "..a", "a/b", "a b", ".a", "A-_.1"] {
                let mut one = secret("web");
                one["data"] = json!({field: "b25l"});
                seen.push(subject.post(&format!("{}?dryRun=All", subject.secrets_path()), &one).await.said());
            }
            json!(seen)
        },
        json!([
            "422 Invalid",
            "422 Invalid",
            "422 Invalid",
            "422 Invalid",
            201,
            201,
            "422 Invalid",
            "422 Invalid",
            201,
            201,
            "422 Invalid",
            "422 Invalid",
            201,
            "422 Invalid",
            201,
            201,
            "422 Invalid",
            "422 Invalid",
            "422 Invalid",
            "422 Invalid",
            "422 Invalid",
            "422 Invalid",
            201,
            201,
        ]),
    );
    table.case(
        "a Secret of more than a megabyte is refused",
        async |subject: Subject| {
            let mut large = secret("web");
            large["stringData"] = json!({"value": "x".repeat(1024 * 1024 + 1)});
            json!(subject.post(&subject.secrets_path(), &large).await.said())
        },
        json!("422 Invalid"),
    );
    table.case(
        "admission refuses a creation and its dry-run, and nothing else",
        async |subject: Subject| {
            subject.secret("before").await;
            subject.refuse_secrets().await;
            let dry_run = PostParams { dry_run: true, ..PostParams::default() };
            let tried = subject.secrets().create(&dry_run, &from(secret("web"))).await;
            let made = subject.secrets().create(&PostParams::default(), &from(secret("web"))).await;
            let taken = subject.secrets().create(&PostParams::default(), &from(secret("before"))).await;
            let before = subject.secrets().get("before").await.unwrap();
            let written = subject.secrets().replace("before", &PostParams::default(), &before).await;
            let key = subject.keys().create(&PostParams::default(), &from(key("web"))).await;
            json!([said(&tried), said(&made), said(&taken), said(&written), said(&key)])
        },
        json!(["403 Forbidden", "403 Forbidden", "403 Forbidden", "done", "done"]),
    );
}
