//! The webhook itself on a real API server: whom the configuration trusts, how it ends, senders that mean no good.

use std::time::Duration;

use bags_operator::api::BagsAccount;
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{
    gate::{Gate, webhook_of},
    support::{
        operator::Operator,
        scene::{LIMIT, all, condition, holds, says},
    },
};

/// Somebody writes a bundle of their own into the configuration.
async fn trust_a_stranger(gate: &Gate, client: &kube::Client) {
    let patch =
        json!({"webhooks": [{"name": "apikeys.keys.bags.fm", "clientConfig": {"caBundle": STRANGER}}]});
    let configurations = gate.configurations(client.clone());
    configurations.patch("bags-operator", &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
}

#[tokio::test]
async fn somebody_elses_bundle_is_replaced() {
    let gate = Gate::new(&[]).await;
    let scene = gate.scene(json!({})).await;
    trust_a_stranger(&gate, &scene.client).await;
    let configurations = gate.configurations(scene.client.clone());
    // Until it is replaced creations may be refused; then they are not.
    let ours = |configuration: Option<&ValidatingWebhookConfiguration>| {
        let webhooks = configuration.into_iter().flat_map(|it| it.webhooks.iter().flatten());
        let bundles: Vec<_> = webhooks.filter_map(|it| it.client_config.ca_bundle.as_ref()).collect();
        !bundles.is_empty() && bundles.iter().all(|bundle| bundle.0.starts_with(b"-----BEGIN CERTIFICATE"))
    };
    scene.until(configurations, "bags-operator", "trusting us again", ours).await;
    let wait = async {
        let mut pause = tokio::time::interval(Duration::from_millis(50));
        while scene.keys().create(&PostParams::default(), &scene.new_key("in-time", json!({}))).await.is_err()
        {
            pause.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("ApiKeys are admitted again");
    scene.ready("in-time").await;
    scene.end().await;
    gate.end().await;
}

/// Puts an object into the place of what an earlier test left behind.
async fn anew<K>(api: Api<K>, object: &K)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let _ = api.delete(&object.name_any(), &DeleteParams::default()).await;
    api.create(&PostParams::default(), object).await.unwrap();
}

/// A user who may do all that an operator does, but for some verbs on webhook configurations.
async fn restricted_user(client: &kube::Client, verbs: &[&str]) -> &'static str {
    const USER: &str = "restricted-operator";
    let role: ClusterRole = serde_json::from_value(json!({
        "metadata": {"name": USER},
        "rules": [
            {"apiGroups": ["", "keys.bags.fm", "events.k8s.io", "coordination.k8s.io"], "resources": ["*"], "verbs": ["*"]},
            {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": verbs},
        ],
    }))
    .unwrap();
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": USER}, "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": USER}],
        "roleRef": {"kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": USER},
    }))
    .unwrap();
    anew(Api::all(client.clone()), &role).await;
    anew(Api::all(client.clone()), &binding).await;
    USER
}

#[tokio::test]
async fn an_operator_that_may_not_write_its_bundle_says_so_until_it_may() {
    let mut gate = Gate::new(&[]).await;
    gate.alone.world.operator.take().unwrap().stop().await;
    let client = gate.alone.world.cluster.client().await;
    trust_a_stranger(&gate, &client).await;
    let user = restricted_user(&client, &["get", "list", "watch"]).await;
    let operator = gate.alone.world.launch.another().with_user(&gate.alone.world.cluster, user).spawn();
    gate.alone.world.operator = Some(operator);
    let scene = gate.scene(json!({})).await;
    let reason = |account: &BagsAccount, status: &str, reason: &str| {
        condition(account, "AdmissionEnforced").is_some_and(|c| c.status == status && c.reason == reason)
    };
    let untrusted = |account: &BagsAccount| reason(account, "False", "WebhookNotTrusted");
    let account = scene.account_where("told that its webhook is not trusted", untrusted).await;
    says(&condition(&account, "AdmissionEnforced").unwrap().message, &["bags-operator", "update"]);
    let metrics = gate.alone.world.operator().metrics().await;
    assert!(metrics.contains("bags_operator_webhook_registered 0\n"), "{metrics}");
    let said = scene.keys().create(&PostParams::default(), &scene.new_key("too-early", json!({}))).await;
    says(&said.unwrap_err().to_string(), &["failed calling webhook"]);
    restricted_user(&client, &["*"]).await;
    scene.account_where("told that it is", |account| holds(account, "AdmissionEnforced", "True")).await;
    gate.lead();
    scene.apply("in-time", json!({})).await;
    scene.ready("in-time").await;
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn after_sigterm_the_lease_goes_at_once_and_reviews_are_answered_until_all_have_heard_of_the_end() {
    let mut gate = Gate::new(&[]).await;
    let scene = gate.scene(json!({})).await;
    let other = gate.alone.world.launch.another().start().await;
    other.shows("bags_operator_leader 0").await;
    // Everybody is still led to the one that ends.
    let leader = gate.alone.world.operator.as_ref().map(Operator::process).unwrap();
    let ended = || !std::path::Path::new(&format!("/proc/{leader}")).exists();
    kill_in_order(leader);
    other.shows("bags_operator_leader 1").await;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    scene.keys().create(&dry_run, &scene.new_key("in-between", json!({}))).await.unwrap();
    assert!(!ended(), "it had ended by then: the answer was another one's");
    gate.robin.lead_to([&other]);
    scene.end().await;
    assert_eq!(gate.alone.world.operator.take().unwrap().ends().await, Some(0));
    gate.end().await;
}

/// SIGTERM.
fn kill_in_order(process: u32) {
    let told = std::process::Command::new("kill").arg("-TERM").arg(process.to_string()).status().unwrap();
    assert!(told.success());
}

#[tokio::test]
async fn hostile_senders_are_answered_clearly_and_keep_nobody_else_waiting() {
    let gate = Gate::new(&[]).await;
    let scene = gate.scene(json!({})).await;
    let operator = gate.alone.world.operator();
    let address = webhook_of(operator);
    let configuration = gate.configurations(scene.client.clone()).get("bags-operator").await.unwrap();
    let bundle = configuration.webhooks.unwrap().remove(0).client_config.ca_bundle.unwrap();
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&bundle.0).unwrap()])
        .build()
        .unwrap();
    let url = format!("https://{address}/admit");

    // Connections that bring nothing, and bodies that never end.
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let slow: Vec<_> = (0..300)
        .map(|_| {
            let first = futures::stream::once(async { Ok::<_, std::io::Error>("{".to_owned()) });
            let body =
                reqwest::Body::wrap_stream(futures::StreamExt::chain(first, futures::stream::pending()));
            client.post(&url).body(body).send()
        })
        .collect();
    let honest = async {
        for n in 0..8 {
            scene.apply(&format!("app-{n}"), json!({})).await;
        }
    };
    let (slow, ()) = tokio::join!(all(slow), honest);
    for answer in slow {
        assert_eq!(answer.unwrap().status(), 408, "a body that never ends");
    }
    // Announced, and refused with the first byte; else once too much has come. No more is sent than is taken: whoever went on
    // might see the end of the connection before the answer.
    for (announced, sent) in [(Some(10 * 1024 * 1024), 1), (None, 1024 * 1024 + 1)] {
        let first = futures::stream::once(async move { Ok::<_, std::io::Error>(vec![b'x'; sent]) });
        let body = reqwest::Body::wrap_stream(futures::StreamExt::chain(first, futures::stream::pending()));
        let announced = announced.map(|length: usize| (reqwest::header::CONTENT_LENGTH, length.into()));
        let answer = client.post(&url).headers(announced.into_iter().collect()).body(body).send().await;
        assert_eq!(answer.unwrap().status(), 413, "a body of 10 MiB");
    }
    // A megabyte of numbers in a member that nobody asked for: skipped, not kept.
    let wide = format!("{{\"junk\": [0{}]}}", ",0".repeat(500_000));
    let wide: Vec<_> = (0..64).map(|_| client.post(&url).body(wide.clone()).send()).collect();
    for answer in all(wide).await.into_iter().map(Result::unwrap) {
        // Not all of them have room at the same time.
        if answer.status() == 503 {
            continue;
        }
        let answer = answer.bytes().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["response"]["allowed"], json!(false), "a wide body");
    }
    let deep = "[".repeat(500_000);
    for (what, body, words) in [
        ("garbage", "garbage".to_owned(), "no AdmissionReview"),
        ("endless nesting", deep, "no AdmissionReview"),
        (
            "another version",
            json!({"apiVersion": "admission.k8s.io/v9", "kind": "AdmissionReview"}).to_string(),
            "v9",
        ),
    ] {
        let answer = client.post(&url).body(body).send().await.unwrap().bytes().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["response"]["allowed"], json!(false), "{what}");
        says(answer["response"]["status"]["message"].as_str().unwrap(), &[words]);
    }
    // In all but its depth it is what an API server sends; what is not judged is skipped, however deep it is.
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let review = deep_review(&scene.name).replacen("\"nested\"", &nested, 1);
    let answer = client.post(&url).body(review).send().await.unwrap().bytes().await.unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["response"]["allowed"], json!(true), "{answer}");
    assert_eq!(client.get(&url).send().await.unwrap().status(), 405);
    // All who brought nothing are sent away.
    for mut connection in idle {
        let mut byte = [0; 1];
        let read = tokio::io::AsyncReadExt::read(&mut connection, &mut byte);
        let read = tokio::time::timeout(LIMIT, read).await.expect("an idle connection is closed");
        assert_eq!(read.unwrap_or(0), 0);
    }
    for n in 0..8 {
        scene.ready(&format!("app-{n}")).await;
    }
    let peak = peak_memory(operator);
    assert!(peak < 200 * 1024, "the operator took {peak} KiB");
    scene.end().await;
    gate.end().await;
}

/// A review of an ApiKey that fits, as a dry run; its status is `nested`.
fn deep_review(namespace: &str) -> String {
    let object = json!({
        "apiVersion": "keys.bags.fm/v1alpha1", "kind": "ApiKey",
        "metadata": {"name": "deep", "namespace": namespace, "uid": "uid-deep"},
        "spec": {"accountRef": {"name": namespace}, "environment": "production"}, "status": "nested",
    });
    let kind = json!({"group": "keys.bags.fm", "version": "v1alpha1", "kind": "ApiKey"});
    let request = json!({
        "uid": "0c9a8d74", "kind": kind, "name": "deep", "namespace": namespace, "operation": "CREATE", "object": object,
        "dryRun": true,
    });
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string()
}

/// The most memory that a process ever had, in KiB.
fn peak_memory(operator: &Operator) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", operator.process())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Base64 of `somebody else`.
const STRANGER: &str = "c29tZWJvZHkgZWxzZQ==";
