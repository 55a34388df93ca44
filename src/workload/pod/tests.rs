//! What is kept of a pod, and how a namespace's pods are listed.

use std::sync::PoisonError;

use serde_json::{Value, json};

use super::*;
use crate::{
    api::annotation,
    fixtures::{failure, server},
    workload::fixtures::{
        self, OLD, SECRET, at, controller, env, in_state, pod, read, running, with, with_volume,
    },
};

#[test]
fn what_is_judged_is_kept_of_a_pod() {
    let served = with(pod(env()), "/metadata/deletionTimestamp", json!(at(5)));
    let kept = read(&served);
    assert_eq!(
        kept,
        Pod {
            name: "web-1".into(),
            uid: "uid-web-1".into(),
            created: Some(at(OLD)),
            deleted: Some(at(5)),
            controller: Some(Controller {
                api_version: "apps/v1".into(),
                kind: "ReplicaSet".into(),
                name: "web-5d4f".into(),
                uid: "uid-web-5d4f".into(),
            }),
            node: Some("node-1".into()),
            unscheduled: false,
            reloads: false,
            ready: true,
            uses: vec![Use {
                secret: SecretName::Known(SECRET.into()),
                by: By::Container(Way::Started, ContainerState::Running(Some(at(OLD)))),
            }],
        }
    );
    assert!(kept.is_terminating());
    assert!(!read(&pod(env())).is_terminating());
}

#[test]
fn only_an_owner_that_controls_the_pod_is_its_controller() {
    let mut friend = controller("v1", "ConfigMap", "friend");
    friend["controller"] = json!(false);
    let place = "/metadata/ownerReferences";
    let of = |owners: Value| read(&with(pod(env()), place, owners)).controller.map(|owner| owner.name);
    assert_eq!(of(json!([friend, controller("batch/v1", "Job", "once")])), Some("once".to_owned()));
    assert_eq!(of(json!([friend])), None);
    assert_eq!(of(Value::Null), None);
}

#[test]
fn a_pod_says_that_it_reloads_with_exactly_true() {
    let says = |word: Value| {
        read(&with(pod(env()), "/metadata/annotations", json!({annotation::RELOADS: word}))).reloads
    };
    assert!(says("true".into()));
    for word in [json!("True"), json!("false"), json!(""), json!(true), Value::Null] {
        assert!(!says(word.clone()), "{word}");
    }
}

#[test]
fn finished_pods_are_left_out_and_only_they() {
    for (phase, kept) in [
        ("Succeeded", false),
        ("Failed", false),
        ("Running", true),
        ("Pending", true),
        ("Unknown", true),
        ("Evacuated", true),
    ] {
        let served = with(pod(env()), "/status/phase", phase.into());
        assert_eq!(Pod::of_tests(&served).is_some(), kept, "{phase}");
    }
    assert!(Pod::of_tests(&with(pod(env()), "/status/phase", json!(["Failed"]))).is_some());
}

#[test]
fn a_pod_of_which_nearly_nothing_is_known_can_be_read() {
    for served in
        [json!({}), json!({"metadata": {}}), json!({"metadata": null, "spec": null, "status": null})]
    {
        assert!(!read(&served).refers_to(SECRET), "{served}");
    }
    assert!(read(&json!({"spec": "?"})).refers_to(SECRET));
}

#[test]
fn a_reference_of_a_hundred_variables_is_kept_once() {
    let variable = env()["env"][0].clone();
    let many = json!({"env": vec![variable; 100]});
    assert_eq!(read(&pod(many)).uses.len(), 1);
}

#[test]
fn every_way_to_refer_to_a_secret_is_found() {
    let mounts = |source: Value| {
        let mut volume = source;
        volume["name"] = "keys".into();
        with_volume(pod(fixtures::mount()), volume)
    };
    let name = json!({"name": SECRET});
    let cases = [
        ("a variable", pod(env())),
        ("all variables", pod(fixtures::env_from())),
        ("a volume", mounts(json!({"secret": {"secretName": SECRET}}))),
        ("a projected volume", with_volume(pod(json!({})), fixtures::projected())),
        ("csi", mounts(json!({"csi": {"driver": "d", "nodePublishSecretRef": name}}))),
        ("csi, by an attribute", mounts(json!({"csi": {"volumeAttributes": {"secretName": SECRET}}}))),
        ("flexVolume", mounts(json!({"flexVolume": {"driver": "d", "secretRef": name}}))),
        ("azureFile", mounts(json!({"azureFile": {"secretName": SECRET, "shareName": "s"}}))),
        ("cephfs", mounts(json!({"cephfs": {"monitors": ["m"], "secretRef": name}}))),
        ("iscsi", mounts(json!({"iscsi": {"secretRef": name, "lun": 0}}))),
        ("rbd", mounts(json!({"rbd": {"secretRef": name}}))),
        ("scaleIO", mounts(json!({"scaleIO": {"secretRef": name}}))),
        ("storageos", mounts(json!({"storageos": {"secretRef": name}}))),
        (
            "a source that is not known yet",
            mounts(json!({"vault": {"entries": [{"deep": {"keySecretRef": name}}]}})),
        ),
        (
            "a projected source that is not known yet",
            mounts(json!({"projected": {"sources": [{"x": {"secretRef": name}}]}})),
        ),
    ];
    for (case, served) in cases {
        let pod = read(&served);
        assert!(pod.refers_to(SECRET), "{case}");
        assert!(!pod.refers_to("another"), "{case}");
    }
}

#[test]
fn what_only_looks_like_a_reference_is_none() {
    let volume = |source: Value| with_volume(pod(fixtures::mount()), source);
    let cases = [
        (
            "the registry's password",
            with(pod(json!({})), "/spec/imagePullSecrets", json!([{"name": SECRET}])),
        ),
        ("a ConfigMap of the same name", volume(json!({"name": "keys", "configMap": {"name": SECRET}}))),
        (
            "a claim of the same name",
            volume(json!({"name": "keys", "persistentVolumeClaim": {"claimName": SECRET}})),
        ),
        ("a variable's value", pod(json!({"env": [{"name": "A", "value": SECRET}]}))),
        (
            "a variable of a ConfigMap",
            pod(json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": SECRET}}}]})),
        ),
        ("another Secret", volume(json!({"name": "keys", "secret": {"secretName": "web-bags-2"}}))),
        (
            "the account's token",
            volume(json!({"name": "keys", "projected": {"sources": [{"serviceAccountToken": {}}]}})),
        ),
    ];
    for (case, served) in cases {
        assert!(!read(&served).refers_to(SECRET), "{case}");
    }
}

#[test]
fn containers_of_all_kinds_are_told_by_their_own_statuses() {
    for (kind, statuses) in [
        ("initContainers", "initContainerStatuses"),
        ("containers", "containerStatuses"),
        ("ephemeralContainers", "ephemeralContainerStatuses"),
    ] {
        let mut served = pod(json!({}));
        fixtures::add_container(&mut served, kind, "one", env(), Some(running(7)));
        assert!(served["status"][statuses].is_array(), "{kind}");
        let by = By::Container(Way::Started, ContainerState::Running(Some(at(7))));
        assert_eq!(read(&served).uses[0].by, by, "{kind}");
    }
}

#[test]
fn a_container_is_in_the_state_that_is_told_and_in_no_other() {
    let cases = [
        ("it runs", Some(running(1)), ContainerState::Running(Some(at(1)))),
        ("it runs, nobody knows since when", Some(json!({"running": {}})), ContainerState::Running(None)),
        ("it waits", Some(fixtures::waiting()), ContainerState::Waiting),
        ("it ended", Some(fixtures::terminated()), ContainerState::Terminated(Some(at(fixtures::OLD)))),
        (
            "it ended, nobody knows when it began",
            Some(json!({"terminated": {}})),
            ContainerState::Terminated(None),
        ),
        ("no state", Some(json!({})), ContainerState::Unclear),
        ("a new state", Some(json!({"hibernating": {}})), ContainerState::Unclear),
        ("no status", None, ContainerState::NoStatus),
        ("running and waiting", Some(json!({"running": {}, "waiting": {}})), ContainerState::Running(None)),
        ("it may run", Some(json!({"running": 1, "waiting": {}})), ContainerState::Unclear),
    ];
    for (case, state, expected) in cases {
        let uses = read(&in_state(pod(env()), state)).uses;
        assert_eq!(uses[0].by, By::Container(Way::Started, expected), "{case}");
    }
}

fn page(names: &[&str], next: &str) -> (u16, Value) {
    let named = |name: &&str| with(pod(env()), "/metadata/name", (*name).into());
    let items: Vec<Value> = names.iter().map(named).collect();
    (200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"continue": next}, "items": items}))
}

fn names(pods: &[Pod]) -> Vec<&str> {
    pods.iter().map(|pod| pod.name.as_str()).collect()
}

#[tokio::test]
async fn pods_are_listed_page_by_page_as_they_are_now() {
    let (client, came) = server(|request, before| match before {
        0 => {
            assert!(!request.uri.contains("continue"));
            page(&["a", "b"], "next page")
        }
        _ => page(&["c"], ""),
    });
    let pods = list(client, "shop").await.unwrap();
    assert_eq!(names(&pods), ["a", "b", "c"]);
    let came = came.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(came.len(), 2);
    for request in came.iter() {
        assert_eq!(request.method, http::Method::GET);
        assert!(request.uri.starts_with("/api/v1/namespaces/shop/pods?"), "{}", request.uri);
        assert!(request.uri.contains("limit=500"), "{}", request.uri);
        assert!(!request.uri.contains("resourceVersion"), "{}", request.uri);
        assert!(request.uri.contains("fieldSelector=status.phase%21%3DSucceeded"), "{}", request.uri);
    }
    assert!(came[1].uri.contains("continue=next+page"), "{}", came[1].uri);
}

#[tokio::test]
async fn a_list_whose_snapshot_is_gone_begins_anew_and_has_no_pod_twice() {
    let (client, came) = server(|_, before| match before {
        0 | 2 => page(&["a", "b"], "next"),
        1 => failure(410, "Expired"),
        _ => page(&["c"], ""),
    });
    assert_eq!(names(&list(client, "shop").await.unwrap()), ["a", "b", "c"]);
    let came = came.lock().unwrap();
    assert!(!came[2].uri.contains("continue"), "{}", came[2].uri);
}

#[tokio::test]
async fn a_list_that_never_comes_to_its_end_is_given_up_and_is_no_half_list() {
    let (client, came) = server(|_, before| match before % 2 {
        0 => page(&["a", "b"], "next"),
        _ => failure(410, "Expired"),
    });
    assert_eq!(list(client, "shop").await.unwrap_err().code(), Some(410));
    assert_eq!(came.lock().unwrap().len(), 2 * TRIES);
}

#[tokio::test]
async fn a_list_fails_where_any_page_fails() {
    for (case, code, body) in [
        ("no right", 403, failure(403, "Forbidden").1),
        ("an error of the server", 500, failure(500, "InternalError").1),
        ("an answer without pods", 200, json!({"kind": "PodList", "metadata": {}})),
        ("pods that are none", 200, json!({"metadata": {}, "items": null})),
        ("a pod that is none", 200, json!({"metadata": {}, "items": [5]})),
        ("something else", 200, json!({})),
    ] {
        let (client, came) = server(move |_, before| match before {
            0 => page(&["a"], "next"),
            _ => (code, body.clone()),
        });
        assert!(list(client, "shop").await.is_err(), "{case}");
        assert_eq!(came.lock().unwrap().len(), 2, "{case}");
    }
}

#[tokio::test]
async fn finished_pods_are_dropped_although_the_server_was_asked_to() {
    let (client, _) = server(|_, _| {
        let (code, mut list) = page(&["a", "b"], "");
        list["items"][0]["status"]["phase"] = "Succeeded".into();
        (code, list)
    });
    assert_eq!(names(&list(client, "shop").await.unwrap()), ["b"]);
}
