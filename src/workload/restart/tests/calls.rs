//! What the API server is asked for about the owners of pods, and what is sent to it for a restart.

use http::Method;

use super::*;
use crate::{
    fixtures::{failure, server},
    timings::Timings,
    workload::{
        fixtures::{
            OLD, SECRET, at, controller, env, mount, pod, read, reloading, switched, volume, with_volume,
        },
        pod_scan::scan,
    },
};

#[tokio::test]
async fn the_pods_of_a_scan_are_grouped_by_who_owns_them() {
    let owned = |name: &str, owner: Value| {
        with(with(pod(env()), "/metadata/name", name.into()), "/metadata/ownerReferences", json!([owner]))
    };
    let set = |name: &str| controller("apps/v1", "ReplicaSet", name);
    let going = with(owned("web-3", set("web-new")), "/metadata/deletionTimestamp", json!(at(9)));
    let rereads = reloading(with_volume(pod(mount()), volume()));
    let rereads = with(
        with(rereads, "/metadata/name", "web-4".into()),
        "/metadata/ownerReferences",
        json!([set("web-new")]),
    );
    let moved = with(
        owned("db-0", controller("apps/v1", "StatefulSet", "db")),
        "/metadata/creationTimestamp",
        json!(at(90)),
    );
    let bare = with(pod(env()), "/metadata/ownerReferences", Value::Null);
    let gone = owned("log-1", controller("apps/v1", "DaemonSet", "log"));
    let pods =
        [owned("web-2", set("web-new")), owned("web-1", set("web-old")), going, rereads, moved, bare, gone];
    let pods: Vec<_> = pods.iter().map(read).collect();
    let scan = scan(&pods, SECRET, switched(at(0), at(100)), at(100), &Timings::default());
    let (client, came) = server(|request, _| {
        let name = request.uri.rsplit('/').next().unwrap();
        match name {
            "web-old" | "web-new" => {
                let owner = controller("apps/v1", "Deployment", "web");
                let metadata =
                    json!({"name": name, "uid": format!("uid-{name}"), "ownerReferences": [owner]});
                (
                    200,
                    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata}),
                )
            }
            "web" => (200, deployment("web")),
            "db" => (200, stateful_set("db")),
            "log" => failure(404, "NotFound"),
            other => panic!("{other} is not expected"),
        }
    });
    let cache = OwnerCache::default();
    let consumers = consumers(client.clone(), "shop", &scan, &cache).await.unwrap();
    let found: Vec<_> = consumers
        .iter()
        .map(|one| (one.owner.to_string(), one.workload.is_some(), one.pods.join(" "), one.stale.join(" ")))
        .collect();
    let expected = [
        ("Deployment \"web\"", true, "web-1 web-2 web-3 web-4", "web-1 web-2"),
        ("StatefulSet \"db\"", true, "db-0", ""),
        ("DaemonSet \"log\"", false, "log-1", "log-1"),
        ("pods without an owner", false, "web-1", "web-1"),
    ];
    let expected = expected
        .map(|(owner, there, pods, stale)| (owner.to_owned(), there, pods.to_owned(), stale.to_owned()));
    assert_eq!(found, expected);
    assert_eq!(came.lock().unwrap().len(), 5, "each ReplicaSet and each workload once");
}

#[tokio::test]
async fn a_replica_set_without_an_owner_is_asked_for_once_however_many_pods_it_has() {
    let controlled = |name: &str| {
        let owner = controller("apps/v1", "ReplicaSet", "alone");
        read(&with(
            with(pod(env()), "/metadata/name", json!(name)),
            "/metadata/ownerReferences",
            json!([owner]),
        ))
    };
    let pods = ["alone-1", "alone-2", "alone-3"].map(controlled);
    let scan = scan(&pods, SECRET, switched(at(0), at(100)), at(100), &Timings::default());
    let (client, came) = server(|_, _| {
        let metadata = json!({"name": "alone", "uid": "uid-alone"});
        (200, json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata}))
    });
    let consumers = consumers(client, "shop", &scan, &OwnerCache::default()).await.unwrap();
    assert_eq!(consumers.iter().map(|one| one.pods.len()).collect::<Vec<_>>(), [3]);
    assert_eq!(came.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_owner_of_replica_sets_that_is_gone_is_looked_for_anew() {
    let scan = scan(&[read(&pod(env()))], SECRET, switched(at(0), at(100)), at(100), &Timings::default());
    let (client, _) = server(|request, before| {
        let adopted = if before < 2 { "web" } else { "web-2" };
        match request.uri.rsplit('/').next().unwrap() {
            "web-5d4f" => {
                let owner = controller("apps/v1", "Deployment", adopted);
                let metadata = json!({"name": "web-5d4f", "uid": "uid-web-5d4f", "ownerReferences": [owner]});
                (
                    200,
                    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata}),
                )
            }
            "web-2" => (200, deployment("web-2")),
            _ => failure(404, "NotFound"),
        }
    });
    let cache = OwnerCache::default();
    let first = consumers(client.clone(), "shop", &scan, &cache).await.unwrap();
    assert_eq!(
        (first[0].owner.to_string().as_str(), first[0].workload.is_some()),
        ("Deployment \"web\"", false)
    );
    let second = consumers(client, "shop", &scan, &cache).await.unwrap();
    assert_eq!(
        (second[0].owner.to_string().as_str(), second[0].workload.is_some()),
        ("Deployment \"web-2\"", true)
    );
}

#[tokio::test]
async fn without_an_answer_nobody_is_taken_for_an_owner() {
    let scan = scan(&[read(&pod(env()))], SECRET, switched(at(0), at(OLD)), at(OLD), &Timings::default());
    let (client, _) = server(|_, _| failure(500, "InternalError"));
    assert!(consumers(client, "shop", &scan, &OwnerCache::default()).await.is_err());
}

#[tokio::test]
async fn a_mark_is_a_merge_patch_of_one_annotation_on_the_version_that_was_read() {
    let cases = [
        ("deployments", read_deployment(deployment("web")), deployment("web")),
        (
            "statefulsets",
            Workload::from(serde_json::from_value::<StatefulSet>(stateful_set("web")).unwrap()),
            stateful_set("web"),
        ),
        (
            "daemonsets",
            Workload::from(serde_json::from_value::<DaemonSet>(daemon_set("web")).unwrap()),
            daemon_set("web"),
        ),
    ];
    for (plural, workload, body) in cases {
        let (client, came) = server(move |_, before| match before {
            0 => (200, body.clone()),
            _ => failure(409, "Conflict"),
        });
        mark(client.clone(), "shop", &workload, API_KEY, MARK).await.unwrap();
        let refused = mark(client, "shop", &workload, API_KEY, MARK).await.unwrap_err();
        assert!(refused.is_conflict());
        let came = came.lock().unwrap();
        assert_eq!(came.len(), 2, "a conflict is not tried again");
        let sent = &came[0];
        let uri = format!("/apis/apps/v1/namespaces/shop/{plural}/web?&fieldManager=bags-operator-restart");
        assert_eq!((&sent.method, &sent.uri), (&Method::PATCH, &uri));
        assert_eq!(sent.content, "application/merge-patch+json");
        let expected = json!({
            "metadata": {"resourceVersion": "7", "uid": "uid-web"},
            "spec": {"template": {"metadata": {"annotations": {"restart.keys.bags.fm/web": MARK}}}},
        });
        assert_eq!(sent.body, expected);
    }
}
