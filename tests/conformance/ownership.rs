//! Who has which field of a Secret, and since when: `metadata.managedFields`.

use http::{Request, header};
use serde_json::{Value, json};

use super::{Answer, Subject, Table, secret};

async fn made_by(subject: &Subject, manager: &str) -> Answer {
    subject.post(&format!("{}?fieldManager={manager}", subject.secrets_path()), &secret("web")).await
}

async fn patched_by(subject: &Subject, manager: &str, patch: Value) -> Answer {
    let path = format!("{}/web?fieldManager={manager}", subject.secrets_path());
    subject.merge(&path, &patch).await
}

/// What a manager has of an object.
fn of<'a>(answer: &'a Answer, manager: &str) -> &'a Value {
    let entries = answer.metadata()["managedFields"].as_array();
    let mut entries = entries.into_iter().flatten();
    entries.find(|entry| entry["manager"] == *manager).unwrap_or(&Value::Null)
}

fn fields(answer: &Answer, manager: &str) -> Value {
    of(answer, manager)["fieldsV1"].clone()
}

fn time(answer: &Answer, manager: &str) -> String {
    of(answer, manager)["time"].as_str().unwrap_or_default().to_owned()
}

/// Writes something else until the server's clock has moved on by a second.
async fn a_second(subject: &Subject) {
    let path = format!("{}/clock", subject.secrets_path());
    subject.post(&subject.secrets_path(), &secret("clock")).await;
    let (mut begin, mut count) = (String::new(), 0);
    loop {
        count += 1;
        let patch = json!({"metadata": {"annotations": {"example.com/count": count.to_string()}}});
        let written = subject.merge(&format!("{path}?fieldManager=clock"), &patch).await;
        let now = time(&written, "clock");
        if begin.is_empty() {
            begin = now;
        } else if begin != now {
            return;
        }
    }
}

pub(super) fn add(table: &mut Table) {
    table.case(
        "who makes a Secret has all its fields",
        async |subject: Subject| {
            let mut sent = secret("web");
            sent["metadata"]["labels"] = json!({"team": "red"});
            sent["metadata"]["annotations"] = json!({"example.com/a": "1"});
            sent["metadata"]["finalizers"] = json!(["example.com/held"]);
            let made = subject.post(&format!("{}?fieldManager=one", subject.secrets_path()), &sent).await;
            let entry = of(&made, "one");
            let count = made.metadata()["managedFields"].as_array().map(Vec::len);
            let with_time = !time(&made, "one").is_empty();
            json!([
                count,
                entry["operation"],
                entry["apiVersion"],
                entry["fieldsType"],
                entry["fieldsV1"],
                with_time,
            ])
        },
        json!([1, "Update", "v1", "FieldsV1", {
            "f:data": {".": {}, "f:value": {}},
            "f:metadata": {
                "f:annotations": {".": {}, "f:example.com/a": {}},
                "f:finalizers": {".": {}, "v:\"example.com/held\"": {}},
                "f:labels": {".": {}, "f:team": {}},
            },
            "f:type": {},
        }, true]),
    );
    table.case(
        "who changes a field takes it from who had it, whose time stays",
        async |subject: Subject| {
            let made = made_by(&subject, "one").await;
            a_second(&subject).await;
            let changed =
                patched_by(&subject, "two", json!({"data": {"value": "dHdv", "more": "dHdv"}})).await;
            json!([
                fields(&changed, "one"),
                fields(&changed, "two"),
                time(&changed, "one") == time(&made, "one"),
                time(&changed, "two") > time(&made, "one"),
            ])
        },
        json!([{"f:data": {}, "f:type": {}}, {"f:data": {"f:more": {}, "f:value": {}}}, true, true]),
    );
    table.case(
        "a manager's time moves when it changes or adds a field, and it keeps the others",
        async |subject: Subject| {
            let made = made_by(&subject, "one").await;
            a_second(&subject).await;
            let patch = json!({"metadata": {"annotations": {"example.com/a": "1"}}});
            let added = patched_by(&subject, "one", patch).await;
            a_second(&subject).await;
            let changed = patched_by(&subject, "one", json!({"data": {"value": "dHdv"}})).await;
            json!([
                fields(&changed, "one"),
                time(&added, "one") > time(&made, "one"),
                time(&changed, "one") > time(&added, "one"),
                changed.metadata()["managedFields"].as_array().map(Vec::len),
            ])
        },
        json!([{
            "f:data": {".": {}, "f:value": {}}, "f:metadata": {"f:annotations": {".": {}, "f:example.com/a": {}}},
            "f:type": {},
        }, true, true, 1]),
    );
    table.case(
        "a write that changes nothing moves no time, and gives nobody anything",
        async |subject: Subject| {
            let made = made_by(&subject, "one").await;
            a_second(&subject).await;
            let same = patched_by(&subject, "one", json!({"data": {"value": "b25l"}})).await;
            let other = patched_by(&subject, "two", json!({"data": {"value": "b25l"}})).await;
            let put =
                subject.put(&format!("{}/web?fieldManager=two", subject.secrets_path()), &made.body).await;
            let is_as_made =
                |answer: Answer| answer.metadata()["managedFields"] == made.metadata()["managedFields"];
            json!([is_as_made(same), is_as_made(other), is_as_made(put)])
        },
        json!([true, true, true]),
    );
    table.case(
        "a field that is taken away belongs to nobody, and moves no time",
        async |subject: Subject| {
            made_by(&subject, "one").await;
            let patch = json!({"metadata": {"annotations": {"example.com/a": "1", "example.com/b": "1"}}});
            let before = patched_by(&subject, "two", patch).await;
            a_second(&subject).await;
            let patch = json!({"metadata": {"annotations": {"example.com/a": null}}});
            let less = patched_by(&subject, "three", patch).await;
            let none = patched_by(&subject, "two", json!({"metadata": {"annotations": null}})).await;
            json!([
                fields(&less, "two"),
                time(&less, "two") == time(&before, "two"),
                of(&less, "three"),
                of(&none, "two"),
            ])
        },
        json!([{"f:metadata": {"f:annotations": {".": {}, "f:example.com/b": {}}}}, true, null, null]),
    );
    table.case(
        "a PUT of what was read, changed, is the writer's where it differs",
        async |subject: Subject| {
            let mut read = made_by(&subject, "one").await.body;
            read["metadata"]["annotations"] = json!({"example.com/switch": "2"});
            read["data"]["value"] = json!("dHdv");
            let put = subject.put(&format!("{}/web?fieldManager=two", subject.secrets_path()), &read).await;
            json!([put.code, fields(&put, "one"), fields(&put, "two")])
        },
        json!([200, {"f:data": {}, "f:type": {}}, {
            "f:data": {"f:value": {}}, "f:metadata": {"f:annotations": {".": {}, "f:example.com/switch": {}}},
        }]),
    );
    table.case(
        "a client that names no manager is called as its program is",
        async |subject: Subject| {
            let request = Request::post(subject.secrets_path());
            let request = request.header(header::CONTENT_TYPE, "application/json");
            let request = request.header(header::USER_AGENT, "program/1.2 (linux/amd64) rest/of/it");
            let made = subject.send(request.body(secret("web").to_string().into()).unwrap()).await;
            json!([made.code, of(&made, "program")["operation"]])
        },
        json!([201, "Update"]),
    );
    table.case(
        "a client that does not say what it is, is unknown",
        async |subject: Subject| {
            let made = subject.post(&subject.secrets_path(), &secret("web")).await;
            let entry = &made.metadata()["managedFields"][0];
            json!([made.code, entry["operation"], entry["manager"]])
        },
        json!([201, "Update", "unknown"]),
    );
    table.case(
        "a dry-run tells who would have the fields, and gives them to nobody",
        async |subject: Subject| {
            made_by(&subject, "one").await;
            let path = format!("{}/web", subject.secrets_path());
            let patch = json!({"data": {"value": "dHdv"}});
            let tried = subject.merge(&format!("{path}?fieldManager=two&dryRun=All"), &patch).await;
            let after = subject.get(&path).await;
            json!([fields(&tried, "two"), of(&after, "two")])
        },
        json!([{"f:data": {"f:value": {}}}, null]),
    );
}
