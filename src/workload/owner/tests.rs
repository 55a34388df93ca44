//! Who owns a pod, and what is read of the workload behind it.

use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::{
    fixtures::{failure, server},
    workload::fixtures::{controller, daemon_set, deployment, stateful_set, with},
};

fn of(api_version: &str, kind: &str, name: &str) -> Controller {
    Controller {
        api_version: api_version.into(),
        kind: kind.into(),
        name: name.into(),
        uid: format!("uid-{name}"),
    }
}

fn reference(kind: WorkloadKind, name: &str) -> WorkloadRef {
    WorkloadRef { kind, name: name.into(), uid: format!("uid-{name}") }
}

fn unknown(kind: &str, name: &str) -> Owner {
    Owner::Unknown { kind: kind.into(), name: name.into() }
}

fn replica_set(owners: Value) -> (u16, Value) {
    let metadata = json!({"name": "web-5d4f", "uid": "uid-web-5d4f", "ownerReferences": owners});
    (200, json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata}))
}

#[tokio::test]
async fn what_controls_a_pod_itself_is_known_without_a_request() {
    let cases = [
        (None, Owner::Bare),
        (
            Some(of("apps/v1", "StatefulSet", "db")),
            Owner::Workload(reference(WorkloadKind::StatefulSet, "db")),
        ),
        (
            Some(of("apps/v1", "DaemonSet", "agent")),
            Owner::Workload(reference(WorkloadKind::DaemonSet, "agent")),
        ),
        (Some(of("batch/v1", "Job", "once")), Owner::Job { name: "once".into() }),
        (Some(of("v1", "ReplicationController", "old")), unknown("ReplicationController", "old")),
        (Some(of("v1", "Node", "node-1")), unknown("Node", "node-1")),
        // Kinds of these names whose rules are others.
        (Some(of("apps.kruise.io/v1beta1", "StatefulSet", "db")), unknown("StatefulSet", "db")),
        (Some(of("apps.kruise.io/v1alpha1", "DaemonSet", "agent")), unknown("DaemonSet", "agent")),
        (Some(of("extensions.test/v1", "ReplicaSet", "web")), unknown("ReplicaSet", "web")),
        (Some(of("batch.volcano.sh/v1alpha1", "Job", "train")), unknown("Job", "train")),
        // A Deployment controls no pod: somebody wrote that by hand.
        (Some(of("apps/v1", "Deployment", "web")), unknown("Deployment", "web")),
        (Some(of("", "", "")), unknown("", "")),
        (Some(of("apps/v1", "ReplicaSet", "")), unknown("ReplicaSet", "")),
    ];
    for (controller, expected) in cases {
        let (client, came) = server(|_, _| failure(500, "InternalError"));
        let found = owner(client, "shop", controller.as_ref(), &OwnerCache::default()).await.unwrap();
        assert_eq!(found, expected);
        assert!(came.lock().unwrap().is_empty(), "{expected}");
    }
}

#[tokio::test]
async fn a_name_that_no_object_can_have_is_nobodys() {
    assert!(["web", "web-5d4f", "shop.web-2"].into_iter().all(is_name));
    let long = "a".repeat(254);
    for name in ["a b", "../x", "x?y", "", ".", "..", "x/y", "x..y", "x%2Fy", "\u{fc}", long.as_str()] {
        let (client, came) = server(|_, _| failure(500, "InternalError"));
        for (api_version, kind) in
            [("apps/v1", "ReplicaSet"), ("apps/v1", "StatefulSet"), ("batch/v1", "Job")]
        {
            let set = of(api_version, kind, name);
            let found = owner(client.clone(), "shop", Some(&set), &OwnerCache::default()).await.unwrap();
            assert_eq!(found, unknown(kind, name));
        }
        // A ReplicaSet's owner is written by people as well.
        let wanted = reference(WorkloadKind::Deployment, name);
        assert_eq!(read(client, "shop", &wanted).await.unwrap(), None, "{name}");
        assert!(came.lock().unwrap().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn behind_a_replica_set_is_whatever_controls_it() {
    let mut friend = controller("apps/v1", "Deployment", "friend");
    friend["controller"] = json!(false);
    let rollout = controller("argoproj.io/v1alpha1", "Rollout", "web");
    let cases = [
        (
            "a Deployment",
            replica_set(json!([friend, controller("apps/v1", "Deployment", "web")])),
            Owner::Workload(reference(WorkloadKind::Deployment, "web")),
        ),
        ("a Rollout", replica_set(json!([rollout])), unknown("Rollout", "web")),
        (
            "a set that owns itself",
            replica_set(json!([controller("apps/v1", "StatefulSet", "x")])),
            unknown("StatefulSet", "x"),
        ),
        ("nothing", replica_set(json!([friend])), unknown("ReplicaSet", "web-5d4f")),
        ("no owners", replica_set(Value::Null), unknown("ReplicaSet", "web-5d4f")),
        ("it is gone", failure(404, "NotFound"), unknown("ReplicaSet", "web-5d4f")),
        (
            "another one of the same name",
            (
                200,
                with(
                    replica_set(json!([controller("apps/v1", "Deployment", "web")])).1,
                    "/metadata/uid",
                    "new".into(),
                ),
            ),
            unknown("ReplicaSet", "web-5d4f"),
        ),
    ];
    for (case, (code, body), expected) in cases {
        let (client, came) = server(move |_, _| (code, body.clone()));
        let set = of("apps/v1", "ReplicaSet", "web-5d4f");
        let found = owner(client, "shop", Some(&set), &OwnerCache::default()).await.unwrap();
        assert_eq!(found, expected, "{case}");
        let came = came.lock().unwrap();
        assert_eq!(came[0].method, Method::GET);
        assert_eq!(came[0].uri, "/apis/apps/v1/namespaces/shop/replicasets/web-5d4f");
        assert!(came[0].accept.contains("as=PartialObjectMetadata"), "{}", came[0].accept);
    }
}

#[tokio::test]
async fn the_owner_of_a_replica_set_is_asked_for_once_and_only_a_found_one_is_remembered() {
    let (client, came) = server(|_, before| match before {
        0 => failure(500, "InternalError"),
        1 => replica_set(json!([])),
        2 | 3 => replica_set(json!([controller("apps/v1", "Deployment", "web")])),
        _ => panic!("asked once too often"),
    });
    let (set, cache) = (of("apps/v1", "ReplicaSet", "web-5d4f"), OwnerCache::default());
    let ask = || owner(client.clone(), "shop", Some(&set), &cache);
    assert!(ask().await.is_err());
    assert_eq!(ask().await.unwrap(), unknown("ReplicaSet", "web-5d4f"));
    let web = Owner::Workload(reference(WorkloadKind::Deployment, "web"));
    assert_eq!(ask().await.unwrap(), web);
    assert_eq!(ask().await.unwrap(), web);
    assert_eq!(came.lock().unwrap().len(), 3);
    // The Deployment is gone, and another one may have its ReplicaSet now.
    cache.forget(&reference(WorkloadKind::StatefulSet, "web"));
    assert_eq!(ask().await.unwrap(), web);
    cache.forget(&reference(WorkloadKind::Deployment, "web"));
    assert_eq!(ask().await.unwrap(), web);
    assert_eq!(came.lock().unwrap().len(), 4);
}

#[test]
fn owners_that_are_remembered_do_not_become_ever_more() {
    let cache = OwnerCache::default();
    for n in 0..3 * REMEMBERED {
        cache.keep(&format!("uid-{n}"), &Owner::Bare);
        assert!(cache.known().len() <= REMEMBERED);
        assert_eq!(cache.find(&format!("uid-{n}")), Some(Owner::Bare));
    }
}

#[tokio::test]
async fn a_workload_is_read_by_its_kind_and_is_the_one_of_its_uid() {
    let kinds = [
        (WorkloadKind::Deployment, "deployments", deployment("web")),
        (WorkloadKind::StatefulSet, "statefulsets", stateful_set("web")),
        (WorkloadKind::DaemonSet, "daemonsets", daemon_set("web")),
    ];
    for (kind, plural, body) in kinds {
        let wanted = reference(kind, "web");
        let answers = [
            (200, body.clone()),
            (200, with(body.clone(), "/metadata/uid", "another".into())),
            (200, with(body.clone(), "/metadata/resourceVersion", Value::Null)),
            failure(404, "NotFound"),
            failure(500, "InternalError"),
        ];
        let (client, came) = server(move |_, before| answers[before].clone());
        let ask = || read(client.clone(), "shop", &wanted);
        let found = ask().await.unwrap().unwrap();
        assert_eq!((&found.reference, found.resource_version.as_str()), (&wanted, "7"));
        assert_eq!(ask().await.unwrap(), None, "{kind:?}: another one");
        assert_eq!(ask().await.unwrap(), None, "{kind:?}: of no version");
        assert_eq!(ask().await.unwrap(), None, "{kind:?}: gone");
        assert_eq!(ask().await.unwrap_err().code(), Some(500));
        let came = came.lock().unwrap();
        assert_eq!(came[0].uri, format!("/apis/apps/v1/namespaces/shop/{plural}/web"));
    }
}

#[test]
fn owners_are_named_as_people_name_them() {
    let names = [
        (Owner::Workload(reference(WorkloadKind::Deployment, "web")), "Deployment \"web\""),
        (Owner::Workload(reference(WorkloadKind::StatefulSet, "db")), "StatefulSet \"db\""),
        (Owner::Workload(reference(WorkloadKind::DaemonSet, "agent")), "DaemonSet \"agent\""),
        (Owner::Job { name: "once".into() }, "Job \"once\""),
        (unknown("Rollout", "web"), "Rollout \"web\""),
        (Owner::Bare, "pods without an owner"),
    ];
    for (owner, expected) in names {
        assert_eq!(owner.to_string(), expected);
    }
}

#[test]
fn a_secret_is_named_wherever_it_stands_in_a_template() {
    let spec = serde_json::json!({"containers": [{"name": "app", "env": [
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "web", "key": "BAGS_API_KEY"}}},
    ]}]});
    assert!(has_text(&spec, "web"));
    assert!(!has_text(&spec, "we") && !has_text(&Value::Null, "web"));
}
