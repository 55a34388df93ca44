//! A rotation in a namespace with thousands of pods, of which one holds the old key and is never replaced: what it costs to
//! list them again and again.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use bags_operator::api::ApiKey;

use crate::{
    Sizes, process,
    secrets::CLIENTS,
    table::{Durations, Table, seconds},
    world::{World, api_key, namespace_name},
};

/// Clean pods would be listed every ten minutes, others every fifteen seconds: here the second, so that a short window has many.
const FLAGS: [&str; 3] = ["--scan-every=2s", "--settle-delay=1s", "--mark-delay=2s"];
/// Nobody runs it: what is on it stays as it is.
const NODE: &str = "nowhere";
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn measure(sizes: &Sizes) {
    let pods = sizes.pods;
    World::run(1, 4, async |world| {
        world.create_namespaces().await;
        let namespace = namespace_name(0);
        let api = Api::<Pod>::namespaced(world.client.clone(), &namespace);
        // Pods of a node that does not exist would be collected as garbage.
        let node = Node {
            metadata: ObjectMeta { name: Some(NODE.into()), ..ObjectMeta::default() },
            ..Node::default()
        };
        Api::all(world.client.clone()).create(&PostParams::default(), &node).await.unwrap();
        create(&api, pods).await;
        let operator = world.operator_with(&FLAGS).await;
        operator.ready().await;
        world.accounts_ready().await;
        let keys = Api::<ApiKey>::namespaced(world.client.clone(), &namespace);
        keys.create(&PostParams::default(), &api_key(0, 0)).await.unwrap();
        until(&keys, |key| key["status"]["phase"] == "Ready").await;
        let before = process::memory(operator.pid());
        let patch = json!({"metadata": {"annotations": {"keys.bags.fm/rotate": "now"}},
            "spec": {"rotation": {"minOverlap": "1s", "quietFor": "1s"}}});
        keys.patch("web-0", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        until(&keys, |key| key["status"]["phase"] == "Restarting").await;

        let (mark, cpu) = (world.audit.mark(), process::cpu(operator.pid()));
        tokio::time::sleep(sizes.idle).await;
        let cpu = process::cpu(operator.pid()) - cpu;
        let during = process::memory(operator.pid());
        let pages: Vec<_> =
            world.audit.since(mark).into_iter().filter(|request| request.lists("pods")).collect();
        let mut page = Durations::default();
        for request in &pages {
            let took = request.answered.duration_since(request.received);
            page.push(took.try_into().unwrap_or_default());
        }
        api.delete("reader", &DeleteParams::default().grace_period(0)).await.unwrap();
        let begun = Instant::now();
        until(&keys, |key| key["status"]["phase"] == "Ready").await;
        let ended = begun.elapsed();
        let after = process::memory(operator.pid());

        let mut table =
            Table::new(format!("A rotation beside {pods} pods, watched for {} s", sizes.idle.as_secs()));
        table.row(
            "resident before, while pods are listed, after",
            format!("{}, {}, {}", before.0, during.0, after.0),
            "",
        );
        table.row("most resident before, at the end", format!("{}, {}", before.1, after.1), "");
        table.row("pages of 500 pods that were asked for", pages.len().to_string(), "");
        table.row("a page: p50 / p99", page.show(), "");
        table.row("the operator's CPU time meanwhile", seconds(cpu), "");
        table.row("the last reader gone → the old key revoked", seconds(ended), "");
        table.row("warnings in the operator's log", world.warnings().to_string(), "0");
        table.print();
        operator.stop().await;
    });
}

async fn until(keys: &Api<ApiKey>, so: impl Fn(&Value) -> bool) {
    let end = Instant::now() + LIMIT;
    loop {
        let key = serde_json::to_value(keys.get("web-0").await.unwrap()).unwrap();
        if so(&key) {
            return;
        }
        assert!(Instant::now() < end, "it does not come to that: {:#}", key["status"]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// So many pods of some 6 KiB, as a list serves them, none of which reads the Secret; and one that does.
async fn create(api: &Api<Pod>, pods: usize) {
    stream::iter(0..pods)
        .for_each_concurrent(CLIENTS, |number| async move {
            let secret = "something-else";
            api.create(&PostParams::default(), &pod(&format!("pod-{number}"), secret)).await.unwrap();
        })
        .await;
    api.create(&PostParams::default(), &pod("reader", "web-0")).await.unwrap();
}

/// A pod on a node that nobody runs: created before the switch, it is taken for one that holds the old value.
fn pod(name: &str, secret: &str) -> Pod {
    let variables: Vec<Value> = (0..40)
        .map(|n| json!({"name": format!("SETTING_{n}"), "value": format!("https://service-{n}.example.com/v1")}))
        .collect();
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10});
    let container = |container: &str| {
        json!({
            "name": container, "image": "registry.example.com/team/application:1.2.3", "env": variables,
            "envFrom": [{"secretRef": {"name": secret}}], "livenessProbe": probe, "readinessProbe": probe,
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        })
    };
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "application", "pod-template-hash": "5d4f8c7b9"}},
        "spec": {
            "nodeName": NODE, "automountServiceAccountToken": false,
            "containers": [container("application"), container("proxy")],
        },
    }))
    .unwrap()
}
