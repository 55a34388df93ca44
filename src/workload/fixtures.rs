//! Pods and workloads for tests, as JSON: what is judged is what the API server serves.

use jiff::{SignedDuration, Timestamp};
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::{Pod, Switched, Workload};

/// The consumer Secret.
pub(super) const SECRET: &str = "web-bags";
/// The ApiKey.
pub(super) const API_KEY: &str = "web";
/// Seconds from the switch to the creation of a pod that was there long before.
pub(super) const OLD: i64 = -3600;

/// So many seconds after the switch.
pub(super) fn at(seconds: i64) -> Timestamp {
    let switched = Timestamp::from_second(1_800_000_000).unwrap();
    switched.checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

pub(super) fn env() -> Value {
    json!({"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": SECRET, "key": "BAGS_API_KEY"}}}]})
}

pub(super) fn env_from() -> Value {
    json!({"envFrom": [{"configMapRef": {"name": SECRET}}, {"secretRef": {"name": SECRET, "optional": true}}]})
}

/// A mount of the volume `keys`.
pub(super) fn mount() -> Value {
    json!({"volumeMounts": [{"name": "other", "mountPath": "/o"}, {"name": "keys", "mountPath": "/keys"}]})
}

pub(super) fn mount_part(field: &str) -> Value {
    json!({"volumeMounts": [{"name": "keys", "mountPath": "/keys", field: "BAGS_API_KEY"}]})
}

pub(super) fn volume() -> Value {
    json!({"name": "keys", "secret": {"secretName": SECRET, "defaultMode": 420}})
}

pub(super) fn projected() -> Value {
    json!({"name": "keys", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": SECRET}}, {"secret": {"name": SECRET}}]}})
}

pub(super) fn running(seconds: i64) -> Value {
    json!({"running": {"startedAt": at(seconds)}})
}

/// A switch that no look has found clean yet, and both clocks agree on when it was.
pub(super) fn switched(at: Timestamp, now: Timestamp) -> Switched {
    let passed = std::time::Duration::try_from(now.duration_since(at)).unwrap_or_default();
    Switched { at, passed, was_clean: false }
}

pub(super) fn waiting() -> Value {
    json!({"waiting": {"reason": "CrashLoopBackOff"}})
}

pub(super) fn terminated() -> Value {
    json!({"terminated": {"exitCode": 0, "startedAt": at(OLD), "finishedAt": at(OLD)}})
}

/// A Ready pod on a node, created long before the switch, with one container that has been running since.
pub(super) fn pod(container: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": "web-1", "uid": "uid-web-1", "creationTimestamp": at(OLD), "annotations": {},
                     "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
                     "ownerReferences": [controller("apps/v1", "ReplicaSet", "web-5d4f")]},
        "spec": {"nodeName": "node-1", "imagePullSecrets": [{"name": "registry"}], "volumes": []},
        "status": {"phase": "Running", "conditions": [
            {"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]},
    });
    add_container(&mut pod, "containers", "app", container, Some(running(OLD)));
    pod
}

pub(super) fn controller(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": format!("uid-{name}"), "controller": true})
}

/// Adds a container of a kind: `containers`, `initContainers`, `ephemeralContainers`.
pub(super) fn add_container(pod: &mut Value, kind: &str, name: &str, container: Value, state: Option<Value>) {
    let mut container = container;
    container["name"] = name.into();
    push(&mut pod["spec"][kind], container);
    let statuses = format!("{}Statuses", kind.trim_end_matches('s'));
    if let Some(state) = state {
        push(&mut pod["status"][statuses], json!({"name": name, "ready": true, "state": state}));
    }
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        missing => *missing = json!([item]),
    }
}

/// The pod with another value in one place, which may be new; `null` takes away what is there.
pub(super) fn with(mut object: Value, place: &str, value: Value) -> Value {
    let (parent, field) = place.rsplit_once('/').unwrap();
    let field = field.replace("~1", "/");
    match object.pointer_mut(parent).unwrap() {
        Value::Array(items) => items[field.parse::<usize>().unwrap()] = value,
        object => object[field] = value,
    }
    object
}

/// The pod with the volume `keys`.
pub(super) fn with_volume(pod: Value, volume: Value) -> Value {
    with(pod, "/spec/volumes", json!([{"name": "other", "emptyDir": {}}, volume]))
}

/// The pod with another state of its container; `None`: no status of it.
pub(super) fn in_state(pod: Value, state: Option<Value>) -> Value {
    match state {
        Some(state) => with(pod, "/status/containerStatuses/0/state", state),
        None => with(pod, "/status/containerStatuses", Value::Null),
    }
}

pub(super) fn reloading(pod: Value) -> Value {
    with(pod, "/metadata/annotations/keys.bags.fm~1reloads", "true".into())
}

pub(super) fn read(pod: &Value) -> Pod {
    Pod::of_tests(pod).expect("it is not finished")
}

/// A Deployment of three replicas that has been rolled out.
pub(super) fn deployment(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "7", "generation": 3,
                     "annotations": {}},
        "spec": {"replicas": 3, "selector": {}, "strategy": {"type": "RollingUpdate", "rollingUpdate": {}},
                 "template": {"metadata": {"annotations": {"theirs": "kept"}}}},
        "status": {"observedGeneration": 3, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3,
                   "availableReplicas": 3, "conditions": [
                       {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]},
    })
}

/// A StatefulSet of three replicas that has been rolled out.
pub(super) fn stateful_set(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "7", "generation": 3},
        "spec": {"replicas": 3, "selector": {}, "template": {"metadata": {}}, "serviceName": name,
                 "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}},
        "status": {"observedGeneration": 3, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3,
                   "availableReplicas": 3},
    })
}

/// A DaemonSet on three nodes that has been rolled out.
pub(super) fn daemon_set(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "7", "generation": 3},
        "spec": {"selector": {}, "template": {"metadata": {}}, "updateStrategy": {"type": "RollingUpdate"}},
        "status": {"observedGeneration": 3, "desiredNumberScheduled": 3, "currentNumberScheduled": 3,
                   "numberMisscheduled": 0, "updatedNumberScheduled": 3, "numberReady": 3, "numberAvailable": 3},
    })
}

pub(super) fn read_deployment(deployment: Value) -> Workload {
    Workload::from(serde_json::from_value::<k8s_openapi::api::apps::v1::Deployment>(deployment).unwrap())
}

/// The workload with the mark of the ApiKey.
pub(super) fn marked(workload: Value, mark: &str) -> Value {
    let place = format!("/spec/template/metadata/annotations/restart.keys.bags.fm~1{API_KEY}");
    with(workload, &place, mark.into())
}

/// A pod as some API server could serve it: what refers to the Secret, and how far each container is, at random.
pub(super) fn any_pod() -> impl Strategy<Value = Value> {
    let kind = || select(vec!["containers", "initContainers", "ephemeralContainers"]);
    let state = || {
        prop_oneof![
            4 => (-3600..1200_i64).prop_map(|seconds| Some(running(seconds))),
            1 => Just(Some(waiting())),
            1 => Just(Some(terminated())),
            1 => Just(None),
        ]
    };
    let shape = || select(vec![json!({}), env(), env_from(), mount(), mount_part("subPath")]);
    let containers = prop::collection::vec((kind(), shape(), state()), 0..3);
    let handed = json!({"name": "keys", "csi": {"driver": "d", "nodePublishSecretRef": {"name": SECRET}}});
    let volumes = select(vec![
        json!([]),
        json!([volume()]),
        json!([projected()]),
        json!([handed]),
        json!([{"name": "keys", "secret": {"secretName": "another"}}]),
    ]);
    let created = prop_oneof![6 => -7200..60_i64, 1 => 60..600_i64];
    (created, shape(), state(), containers, volumes, any::<[bool; 5]>()).prop_map(
        |(created, first, state, containers, volumes, [reloads, unready, unscheduled, deleted, pending])| {
            let mut pod = in_state(pod(first), state);
            for (n, (kind, container, state)) in containers.into_iter().enumerate() {
                add_container(&mut pod, kind, &format!("more-{n}"), container, state);
            }
            pod["metadata"]["creationTimestamp"] = json!(at(created));
            pod["spec"]["volumes"] = volumes;
            if deleted {
                pod["metadata"]["deletionTimestamp"] = json!(at(30));
            }
            if unready {
                pod["status"]["conditions"][1]["status"] = "False".into();
            }
            if unscheduled {
                pod["spec"]["nodeName"] = Value::Null;
            }
            if pending {
                pod["status"]["phase"] = "Pending".into();
            }
            if reloads { reloading(pod) } else { pod }
        },
    )
}
