//! Pods, and the workloads that they belong to. Of what is sent the real server makes much more than the one in memory,
//! and its controllers write at the same time: so these look at what both have to have.

use http::Method;
use serde_json::{Value, json};

use super::{Answer, Subject, Table};

const OTHER: &str = "11111111-2222-3333-4444-555555555555";
/// Plural, kind.
const WORKLOADS: [(&str, &str); 4] = [
    ("deployments", "Deployment"),
    ("replicasets", "ReplicaSet"),
    ("statefulsets", "StatefulSet"),
    ("daemonsets", "DaemonSet"),
];

fn pods_path(subject: &Subject) -> String {
    format!("/api/v1/namespaces/{}/pods", subject.namespace)
}

fn path(subject: &Subject, resource: &str) -> String {
    format!("/apis/apps/v1/namespaces/{}/{resource}", subject.namespace)
}

fn template() -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"automountServiceAccountToken": false, "containers": [{"name": "app", "image": "example.com/app:1"}]},
    })
}

/// A workload without pods, which no controller has anything to do for.
fn workload(resource: &str, kind: &str) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template()});
    match resource {
        "deployments" => (spec["replicas"], spec["paused"]) = (json!(0), json!(true)),
        "statefulsets" => (spec["replicas"], spec["serviceName"]) = (json!(0), json!("web")),
        "replicasets" => spec["replicas"] = json!(0),
        _ => {}
    }
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web"}, "spec": spec})
}

/// Makes a pod. A new namespace takes none until its service account is there.
async fn make_pod(subject: &Subject, name: &str, node: Option<&str>) -> Answer {
    let mut pod = template();
    pod["metadata"]["name"] = json!(name);
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
    }
    loop {
        let made = subject.post(&pods_path(subject), &pod).await;
        if made.code != 403 {
            return made;
        }
    }
}

fn names(list: &Answer) -> Vec<Value> {
    let items = list.body["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].clone()).collect()
}

fn annotated(key: &str) -> Value {
    json!({"spec": {"template": {"metadata": {"annotations": {key: "1"}}}}})
}

pub(super) fn add(table: &mut Table) {
    pods(table);
    workloads(table);
}

fn pods(table: &mut Table) {
    table.case(
        "pods are listed in pages of one version",
        async |subject: Subject| {
            for name in ["a", "b", "c"] {
                make_pod(&subject, name, None).await;
            }
            let path = pods_path(&subject);
            let first = subject.get(&format!("{path}?limit=2")).await;
            make_pod(&subject, "bb", None).await;
            make_pod(&subject, "d", None).await;
            let token = first.metadata()["continue"].as_str().unwrap_or_default();
            let second = subject.get(&format!("{path}?limit=2&continue={token}")).await;
            json!([
                names(&first),
                first.metadata()["remainingItemCount"],
                names(&second),
                second.metadata().get("continue"),
                first.version() == second.version(),
                first.body["kind"],
            ])
        },
        json!([["a", "b"], 1, ["c"], null, true, "PodList"]),
    );
    table.case(
        "a new pod is pending, and its status is written apart from the rest",
        async |subject: Subject| {
            let made = make_pod(&subject, "a", Some("nowhere")).await;
            let path = format!("{}/a", pods_path(&subject));
            let started = json!({"startedAt": "2026-01-02T03:04:05Z"});
            let running = json!({
                "spec": {"nodeName": "elsewhere"},
                "status": {"phase": "Running", "containerStatuses": [{
                    "name": "app", "image": "example.com/app:1", "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"running": started},
                }]},
            });
            let written = subject.merge(&format!("{path}/status"), &running).await;
            let other = subject.merge(&path, &json!({"status": {"phase": "Failed"}})).await;
            json!([
                made.code, made.body["status"]["phase"], written.code, written.body["status"]["phase"],
                written.body["spec"]["nodeName"], written.body["status"]["containerStatuses"][0]["state"]["running"],
                other.code, other.body["status"]["phase"],
            ])
        },
        json!([201, "Pending", 200, "Running", "nowhere", {"startedAt": "2026-01-02T03:04:05Z"}, 200, "Running"]),
    );
    table.case(
        "a pod on a node has its grace to end, which can only be shortened, and is there until then",
        async |subject: Subject| {
            make_pod(&subject, "a", Some("nowhere")).await;
            make_pod(&subject, "b", None).await;
            let path = format!("{}/a", pods_path(&subject));
            let one = subject.delete(&path, &json!({})).await;
            let more = subject.delete(&path, &json!({"gracePeriodSeconds": 60})).await;
            let less = subject.delete(&path, &json!({"gracePeriodSeconds": 9})).await;
            let patched = subject.merge(&path, &json!({"metadata": {"labels": {"team": "red"}}})).await;
            let there = subject.get(&path).await;
            let grace = |answer: &Answer| answer.metadata()["deletionGracePeriodSeconds"].clone();
            let end = |answer: &Answer| -> i64 {
                let time = answer.metadata()["deletionTimestamp"].as_str().unwrap_or_default();
                time.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_second).unwrap_or_default()
            };
            let none = subject.delete(&path, &json!({"gracePeriodSeconds": 0})).await;
            let nowhere = subject.delete(&format!("{}/b", pods_path(&subject)), &json!({})).await;
            json!([
                [one.code, grace(&one), grace(&more), grace(&less), grace(&there)],
                [end(&one) - end(&more), end(&one) - end(&less)],
                [patched.code, there.code, none.code, subject.get(&path).await.code],
                [none.body["kind"], nowhere.code, nowhere.body["kind"]],
                subject.get(&format!("{}/b", pods_path(&subject))).await.code,
            ])
        },
        json!([[200, 30, 30, 9, 9], [0, 21], [200, 200, 200, 404], ["Pod", 200, "Pod"], 404]),
    );
}

fn workloads(table: &mut Table) {
    table.case(
        "the generation of a workload counts changes of its template, and of a Deployment's own annotations",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for (resource, kind) in WORKLOADS {
                let path = path(&subject, resource);
                let made = subject.post(&path, &workload(resource, kind)).await;
                let path = format!("{path}/web");
                let annotation = subject.merge(&path, &annotated("example.com/a")).await;
                let again = subject.merge(&path, &annotated("example.com/a")).await;
                let label = subject.merge(&path, &json!({"metadata": {"labels": {"team": "red"}}})).await;
                let own = json!({"metadata": {"annotations": {"example.com/own": "1"}}});
                let own = subject.merge(&path, &own).await;
                let annotations = &annotation.body["spec"]["template"]["metadata"]["annotations"];
                let all = [&made, &annotation, &again, &label, &own];
                let generations = all.map(|answer| answer.metadata()["generation"].clone());
                seen.push(json!([made.code, annotations["example.com/a"], generations]));
            }
            json!(seen)
        },
        json!([
            [201, "1", [1, 2, 2, 2, 3]],
            [201, "1", [1, 2, 2, 2, 2]],
            [201, "1", [1, 2, 2, 2, 2]],
            [201, "1", [1, 2, 2, 2, 2]],
        ]),
    );
    table.case(
        "a patch of a workload with a version that is not the newest is a conflict",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for (resource, kind) in WORKLOADS {
                let path = path(&subject, resource);
                let made = subject.post(&path, &workload(resource, kind)).await;
                let path = format!("{path}/web");
                subject.merge(&path, &json!({"metadata": {"labels": {"team": "red"}}})).await;
                let mut patch = annotated("example.com/a");
                patch["metadata"] = json!({"resourceVersion": made.version()});
                let stale = subject.merge(&path, &patch).await;
                // Controllers may come in between.
                let fresh = loop {
                    patch["metadata"]["resourceVersion"] = json!(subject.get(&path).await.version());
                    let fresh = subject.merge(&path, &patch).await;
                    if fresh.code != 409 {
                        break fresh;
                    }
                };
                seen.push(json!([stale.said(), fresh.said(), fresh.metadata()["generation"]]));
            }
            json!(seen)
        },
        json!([
            ["409 Conflict", 200, 2],
            ["409 Conflict", 200, 2],
            ["409 Conflict", 200, 2],
            ["409 Conflict", 200, 2],
        ]),
    );
    table.case(
        "a patch of a workload is refused for another uid",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for (resource, kind) in WORKLOADS {
                let path = path(&subject, resource);
                let made = subject.post(&path, &workload(resource, kind)).await;
                let path = format!("{path}/web");
                let mut patch = annotated("example.com/a");
                patch["metadata"] = json!({"uid": OTHER});
                let other = subject.merge(&path, &patch).await;
                patch["metadata"]["uid"] = made.metadata()["uid"].clone();
                let right = subject.merge(&path, &patch).await;
                seen.push(json!([other.said(), right.said()]));
            }
            json!(seen)
        },
        json!([["422 Invalid", 200], ["422 Invalid", 200], ["422 Invalid", 200], ["422 Invalid", 200]]),
    );
    table.case(
        "the status of a workload is written apart from the rest, and moves no generation",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for (resource, kind) in WORKLOADS {
                let path = path(&subject, resource);
                let mut sent = workload(resource, kind);
                sent["status"] = json!({"observedGeneration": 7});
                let made = subject.post(&path, &sent).await;
                let path = format!("{path}/web");
                let mut patch = annotated("example.com/a");
                patch["status"] = json!({"observedGeneration": 1});
                let status = subject.merge(&format!("{path}/status"), &patch).await;
                let main = subject.merge(&path, &json!({"status": {"observedGeneration": 7}})).await;
                seen.push(json!([
                    made.body["status"]["observedGeneration"] == 7,
                    status.code,
                    status.body["status"]["observedGeneration"],
                    status.body["spec"]["template"]["metadata"].get("annotations"),
                    status.metadata()["generation"],
                    main.code,
                    main.body["status"]["observedGeneration"],
                ]));
            }
            json!(seen)
        },
        json!([
            [false, 200, 1, null, 1, 200, 1],
            [false, 200, 1, null, 1, 200, 1],
            [false, 200, 1, null, 1, 200, 1],
            [false, 200, 1, null, 1, 200, 1],
        ]),
    );
    table.case(
        "a workload that is not there is not found, nor patched",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for (resource, _) in WORKLOADS {
                let path = format!("{}/web", path(&subject, resource));
                let merge = "application/merge-patch+json";
                let patched =
                    subject.call(Method::PATCH, &path, merge, annotated("a").to_string().into()).await;
                seen.push(json!([subject.get(&path).await.said(), patched.said()]));
            }
            json!(seen)
        },
        json!([
            ["404 NotFound", "404 NotFound"],
            ["404 NotFound", "404 NotFound"],
            ["404 NotFound", "404 NotFound"],
            ["404 NotFound", "404 NotFound"],
        ]),
    );
}
