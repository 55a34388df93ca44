//! The objects as they stand in the API server.

use serde_json::{Value, json};

use super::{
    consumer::{Consumer, Kind, Reads},
    history::FIELD,
};

const IMAGE: &str = "example.com/app:1";
/// The container that runs before the application's or beside it, where there is one.
const BESIDE: &str = "beside";
/// The container that somebody put into a running pod, where there is one.
const DEBUGGER: &str = "debugger";

/// The variable with the key of a second Secret.
const SECOND: &str = "BAGS_SECOND_API_KEY";

/// The pod template of a workload.
pub(super) fn template(consumer: &Consumer) -> Value {
    let mut container = json!({"name": "app", "image": IMAGE});
    let mut spec = json!({
        "restartPolicy": if consumer.kind == Kind::Job { "Never" } else { "Always" },
        "terminationGracePeriodSeconds": consumer.grace.as_secs(),
    });
    let env = variables(consumer);
    let mount = json!({"name": "key", "mountPath": "/key", "readOnly": true});
    let volume = json!({"name": "key", "secret": {"secretName": consumer.secret}});
    match consumer.reads {
        Reads::Env => container["env"] = env,
        Reads::AllEnv => container["envFrom"] = json!([{"secretRef": {"name": consumer.secret}}]),
        Reads::File | Reads::ReloadedFile => {
            container["volumeMounts"] = json!([mount]);
            spec["volumes"] = json!([volume]);
        }
        Reads::Part => {
            let field = &consumer.field;
            container["volumeMounts"] =
                json!([{"name": "key", "mountPath": format!("/key/{field}"), "subPath": field}]);
            spec["volumes"] = json!([volume]);
        }
        Reads::Projected => {
            container["volumeMounts"] = json!([mount]);
            let sources = json!([{"secret": {"name": consumer.secret}}]);
            spec["volumes"] = json!([{"name": "key", "projected": {"sources": sources}}]);
        }
        Reads::Debugger => {}
        Reads::Init => spec["initContainers"] = json!([{"name": BESIDE, "image": IMAGE, "env": env}]),
        Reads::Sidecar => {
            spec["initContainers"] =
                json!([{"name": BESIDE, "image": IMAGE, "restartPolicy": "Always", "env": env}]);
        }
    }
    if let Some((secret, field)) = consumer.second_source() {
        let reference = json!({"name": secret, "key": field});
        let variable = json!({"name": SECOND, "valueFrom": {"secretKeyRef": reference}});
        let all = container["env"].as_array().into_iter().flatten().cloned().chain([variable]);
        container["env"] = all.collect();
    }
    spec["containers"] = json!([container]);
    let mut metadata = json!({"labels": {"app": consumer.name}});
    let mut annotations = serde_json::Map::new();
    if consumer.reads.claims_to_reload() {
        annotations.insert("keys.bags.fm/reloads".to_owned(), json!("true"));
    }
    if consumer.left_alone {
        annotations.insert("keys.bags.fm/restart".to_owned(), json!("false"));
    }
    if !annotations.is_empty() {
        metadata["annotations"] = Value::Object(annotations);
    }
    json!({"metadata": metadata, "spec": spec})
}

/// The object of a workload; none: it has none but its pod.
pub(super) fn workload(consumer: &Consumer, namespace: &str, template: &Value) -> Option<Value> {
    let selector = json!({"matchLabels": {"app": consumer.name}});
    let (kind, more) = match consumer.kind {
        Kind::Deployment => {
            let mut more = json!({"replicas": consumer.replicas, "strategy": consumer.strategy});
            if consumer.paused {
                more["paused"] = json!(true);
            }
            ("Deployment", more)
        }
        Kind::StatefulSet => {
            let (replicas, strategy) = (consumer.replicas, &consumer.strategy);
            let more =
                json!({"replicas": replicas, "serviceName": consumer.name, "updateStrategy": strategy});
            ("StatefulSet", more)
        }
        Kind::DaemonSet => ("DaemonSet", json!({"updateStrategy": consumer.strategy})),
        Kind::Pod | Kind::Custom | Kind::Job | Kind::Outside => return None,
    };
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": consumer.name, "namespace": namespace}, "spec": more,
    });
    object["spec"]["selector"] = selector;
    object["spec"]["template"] = template.clone();
    Some(object)
}

/// The ReplicaSet of a Deployment's template.
pub(super) fn replica_set(name: &str, revision: usize, deployment: &Value, template: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": name, "namespace": deployment["metadata"]["namespace"],
            "annotations": {"deployment.kubernetes.io/revision": revision.to_string()},
            "ownerReferences": [owner("apps/v1", "Deployment", deployment)],
        },
        "spec": {"replicas": 0, "selector": deployment["spec"]["selector"], "template": template},
    })
}

/// A reference to the controller of something.
pub(super) fn owner(api_version: &str, kind: &str, object: &Value) -> Value {
    let metadata = &object["metadata"];
    json!({
        "apiVersion": api_version, "kind": kind, "name": metadata["name"], "uid": metadata["uid"],
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// A reference to a Job, which is no object here.
pub(super) fn job_owner(name: &str) -> Value {
    let job = json!({"metadata": {"name": name, "uid": format!("job-of-{name}")}});
    owner("batch/v1", "Job", &job)
}

/// A reference to a controller of a kind that only somebody else knows.
pub(super) fn custom_owner(name: &str) -> Value {
    let rollout = json!({"metadata": {"name": name, "uid": format!("rollout-of-{name}")}});
    owner("argoproj.io/v1alpha1", "Rollout", &rollout)
}

/// Variables with the key.
fn variables(consumer: &Consumer) -> Value {
    let (secret, field) = consumer.source();
    json!([{"name": FIELD, "valueFrom": {"secretKeyRef": {"name": secret, "key": field}}}])
}

/// Somebody puts a container into a pod that has the key in its environment.
pub(super) fn debug(pod: &mut Value, consumer: &Consumer) {
    pod["spec"]["ephemeralContainers"] =
        json!([{"name": DEBUGGER, "image": IMAGE, "targetContainerName": "app", "env": variables(consumer)}]);
}

/// A pod, as a controller makes it and a scheduler puts it on a node.
pub(super) fn pod(
    name: &str,
    namespace: &str,
    place: usize,
    template: &Value,
    owner: Option<Value>,
) -> Value {
    let mut metadata = template["metadata"].clone();
    metadata["name"] = json!(name);
    metadata["namespace"] = json!(namespace);
    if let Some(owner) = owner {
        metadata["ownerReferences"] = json!([owner]);
    }
    let mut spec = template["spec"].clone();
    spec["nodeName"] = json!(format!("node-{place}"));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// What a pod's one container does.
pub(super) enum Container {
    /// Why it has not started.
    Waiting(&'static str),
    Running {
        started: String,
        ready: bool,
    },
    Ended {
        at: String,
    },
}

/// A pod's status at a time.
pub(super) fn pod_status(reads: Reads, container: &Container, restarts: u32, now: &str) -> Value {
    let (phase, state, ready) = match container {
        Container::Waiting(reason) => {
            let ran = restarts > 0 || *reason == "CrashLoopBackOff";
            (if ran { "Running" } else { "Pending" }, json!({"waiting": {"reason": reason}}), false)
        }
        Container::Running { started, ready } => {
            ("Running", json!({"running": {"startedAt": started}}), *ready)
        }
        Container::Ended { at } => {
            let ended = json!({"exitCode": 0, "reason": "Completed", "finishedAt": at});
            ("Succeeded", json!({"terminated": ended}), false)
        }
    };
    let word = if ready { "True" } else { "False" };
    let condition = |kind: &str| json!({"type": kind, "status": word, "lastTransitionTime": now});
    // What ran before the application had ended when that started.
    let beside = match (reads, container) {
        (Reads::Init, Container::Running { started, .. }) => Some(json!({"terminated": {
            "exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": started,
        }})),
        (Reads::Init | Reads::Sidecar, _) => Some(state.clone()),
        _ => None,
    };
    let mut status = json!({
        "phase": phase,
        "conditions": [condition("ContainersReady"), condition("Ready")],
        "containerStatuses": [{
            "name": "app", "image": IMAGE, "imageID": "", "ready": ready,
            "restartCount": restarts, "state": &state,
        }],
    });
    if reads == Reads::Debugger {
        status["ephemeralContainerStatuses"] = json!([{
            "name": DEBUGGER, "image": IMAGE, "imageID": "", "ready": false, "restartCount": 0, "state": state,
        }]);
    }
    if let Some(state) = beside {
        status["initContainerStatuses"] = json!([{
            "name": BESIDE, "image": IMAGE, "imageID": "", "ready": true, "restartCount": 0, "state": state,
        }]);
    }
    status
}
