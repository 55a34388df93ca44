//! Admission as people meet it: by kubectl.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{Method, header::TRANSFER_ENCODING},
    response::Response,
};
use bags_operator::{
    api::ApiKey,
    server::{Limits, Server},
};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    gate::{Gate, RoundRobin, answered},
    support::scene::{says, slots},
};

/// kubectl before an API server that meets another replica of the webhook with each object that is made.
struct Kubectl<'g> {
    gate: &'g Gate,
    server: String,
    _running: JoinSet<()>,
}

/// What kubectl printed.
#[derive(Debug)]
struct Printed {
    done: bool,
    out: String,
    err: String,
}

/// Passes requests on to the API server. Before each that makes an object, its connections to the webhook are cut.
fn pass_on(client: &kube::Client, robin: &RoundRobin) -> Router {
    let (client, robin) = (client.clone(), robin.clone());
    Router::new().fallback(move |request: Request| {
        let (client, robin) = (client.clone(), robin.clone());
        async move {
            if request.method() == Method::POST {
                robin.cut().await;
            }
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let answer = client.send(axum::http::Request::from_parts(parts, body.into())).await.unwrap();
            let (mut parts, body) = answer.into_parts();
            parts.headers.remove(TRANSFER_ENCODING);
            Response::from_parts(parts, Body::from(body.collect().await.unwrap().to_bytes()))
        }
    })
}

impl<'g> Kubectl<'g> {
    async fn new(gate: &'g Gate) -> Self {
        let router = pass_on(&gate.alone.world.cluster.client().await, &gate.robin);
        let limits = Limits {
            connections: 64,
            first_request: Duration::from_mins(1),
            idle: Duration::from_mins(5),
            lifetime: Duration::from_hours(1),
        };
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address();
        let mut running = JoinSet::new();
        running.spawn(server.serve(router, limits, None, CancellationToken::new()));
        Self { gate, server: format!("http://{address}"), _running: running }
    }

    /// `kubectl apply -f` of a file with these.
    async fn apply(&self, keys: &[ApiKey], flags: &[&str]) -> Printed {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let file = folder.join(format!("kubectl-{}-{number}.json", std::process::id()));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": keys});
        std::fs::write(&file, serde_json::to_vec(&list).unwrap()).unwrap();
        let output = tokio::process::Command::new(&self.gate.alone.world.cluster.kubectl)
            .args(["--kubeconfig=/dev/null", &format!("--server={}", self.server)])
            .arg(format!("--cache-dir={}", folder.join("kubectl-cache").display()))
            .args(["apply", "-f"])
            .arg(&file)
            .args(flags)
            .output()
            .await
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Printed { done: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
    }
}

#[tokio::test]
async fn apply_of_twelve_shows_nine_created_and_three_clear_denials() {
    let gate = Gate::with_replicas(3).await;
    let scene = gate.scene(json!({"rotationReserve": 1})).await;
    let kubectl = Kubectl::new(&gate).await;
    let keys: Vec<ApiKey> = (1..=12).map(|n| scene.new_key(&format!("app-{n}"), json!({}))).collect();
    let printed = kubectl.apply(&keys, &[]).await;
    let made = printed.out.lines().filter(|line| line.ends_with(" created")).count();
    assert_eq!(made, 9, "{printed:?}");
    let denials: Vec<&str> = printed.err.lines().filter(|line| line.contains("denied the request")).collect();
    assert_eq!(denials.len(), 3, "{printed:?}");
    for denial in denials {
        says(
            denial,
            &[
                "admission webhook \"apikeys.keys.bags.fm\"",
                "9 of 10 in use",
                "1 kept for rotations",
                "delete an ApiKey",
            ],
        );
    }
    says(&printed.err, &["Warning: no slot is left for further ApiKeys"]);
    assert!(!printed.done);
    for replica in gate.replicas() {
        assert!(answered(replica, "Admitted").await >= 1.0, "every replica let somebody in");
        assert!(answered(replica, "QuotaExceeded").await >= 1.0, "every replica refused somebody");
    }
    for n in 1..=9 {
        scene.ready(&format!("app-{n}")).await;
    }
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn apply_as_a_dry_run_says_what_would_be_and_keeps_nothing() {
    let gate = Gate::with_replicas(3).await;
    let scene = gate.scene(json!({"limit": 2})).await;
    let kubectl = Kubectl::new(&gate).await;
    // More than fit, if any of them kept a place.
    let keys: Vec<ApiKey> = (1..=6).map(|n| scene.new_key(&format!("app-{n}"), json!({}))).collect();
    let printed = kubectl.apply(&keys, &["--dry-run=server"]).await;
    let would_be = printed.out.lines().filter(|line| line.ends_with(" created (server dry run)")).count();
    assert_eq!((would_be, printed.done), (6, true), "{printed:?}");
    assert_eq!(slots(&scene.account().await), 0);
    assert!(scene.keys().list(&kube::api::ListParams::default()).await.unwrap().items.is_empty());
    for replica in gate.replicas() {
        assert!(answered(replica, "Admitted").await >= 1.0, "every replica was asked");
    }
    let printed = kubectl.apply(&keys[..2], &[]).await;
    assert!(printed.done, "{printed:?}");
    // One refusal by each.
    let printed = kubectl.apply(&keys[2..5], &["--dry-run=server"]).await;
    let denials = printed.err.lines().filter(|line| line.contains("2 of 2 in use")).count();
    assert_eq!((denials, printed.done), (3, false), "{printed:?}");
    for replica in gate.replicas() {
        assert!(answered(replica, "QuotaExceeded").await >= 1.0, "every replica refused one");
    }
    assert_eq!(slots(&scene.account().await), 2);
    for key in ["app-1", "app-2"] {
        scene.ready(key).await;
    }
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn whoever_is_let_in_unwisely_reads_a_warning() {
    let gate = Gate::new(&[]).await;
    let kubectl = Kubectl::new(&gate).await;
    let open = gate.scene(json!({"rotationReserve": 0})).await;
    let queue = gate.scene(json!({"limit": 1, "admission": "Queue"})).await;
    let use_of = |application: &str| json!({"application": application});
    let cases = [
        (open.new_key("first", use_of("web")), "keeps no slot for rotations (rotationReserve: 0)"),
        (open.new_key("again", use_of("web")), "has application \"web\" in environment \"production\""),
        (queue.new_key("first", json!({})), "no slot is left for further ApiKeys"),
        (queue.new_key("second", json!({})), "1 of 1 in use"),
    ];
    for (key, words) in cases {
        let printed = kubectl.apply(std::slice::from_ref(&key), &[]).await;
        assert!(printed.done && printed.out.ends_with(" created\n"), "{printed:?}");
        let mut warnings = printed.err.lines().filter(|line| line.starts_with("Warning: "));
        assert!(warnings.any(|warning| warning.contains(words)), "{words}: {printed:?}");
    }
    open.ready("first").await;
    open.not_ready("again", "DuplicateUse").await;
    queue.ready("first").await;
    queue.not_ready("second", "QuotaExceeded").await;
    open.end().await;
    queue.end().await;
    gate.end().await;
}
