//! Admission on a real API server: replicas of the webhook behind a TCP round robin, as a Service would be.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bags_operator::{
    api::{ApiKey, BagsAccount, account::SlotState},
    sandbox::UserOptions,
};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::Status,
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::support::{
    operator::Operator,
    scene::{LIMIT, Scene, Way, all, condition, holds, says, slots, slots_in},
    world::{Alone, World},
};

/// Where clients of the webhook are led to one replica after the other.
#[derive(Clone, Default)]
struct RoundRobin {
    replicas: Arc<Mutex<Vec<SocketAddr>>>,
    next: Arc<AtomicUsize>,
    /// How often all connections were ended.
    cut: Arc<watch::Sender<usize>>,
}

impl RoundRobin {
    /// Begins to listen; the address.
    #[expect(clippy::disallowed_methods, reason = "the proxy ends with the test's runtime")]
    async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = self.clone();
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let Some(replica) = this.pick() else { continue };
                let mut cut = this.cut.subscribe();
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(replica).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        address
    }

    fn pick(&self) -> Option<SocketAddr> {
        let replicas = self.replicas.lock().unwrap();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        (!replicas.is_empty()).then(|| replicas[turn % replicas.len()])
    }

    /// Ends every connection, and leads to nobody.
    fn close(&self) {
        self.replicas.lock().unwrap().clear();
        self.cut.send_modify(|times| *times += 1);
    }

    fn lead_to<'a>(&self, operators: impl IntoIterator<Item = &'a Operator>) {
        *self.replicas.lock().unwrap() = operators.into_iter().map(webhook_of).collect();
    }
}

/// The address of an operator's webhook, as its log last told it.
fn webhook_of(operator: &Operator) -> SocketAddr {
    let log = operator.launch.log();
    let told = log.lines().rev().find(|line| line.contains("Serving admission")).unwrap_or(&log);
    let address = told.split_whitespace().find_map(|word| word.strip_prefix("webhook="));
    address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no webhook in: {told}"))
}

const FLAGS: [&str; 3] =
    ["--webhook-listen=127.0.0.1:0", "--webhook-hosts=127.0.0.1", "--webhook-configuration=bags-operator"];

/// A world whose operators are asked before an ApiKey is made.
struct Gate {
    alone: Alone,
    robin: RoundRobin,
    /// Operators beside the world's own.
    further: Vec<Operator>,
}

impl Gate {
    async fn new(flags: &[&str]) -> Self {
        let flags: Vec<&str> = FLAGS.iter().chain(flags).copied().collect();
        let robin = RoundRobin::default();
        let address = robin.listen().await;
        // An operator is ready once the configuration trusts it: that must be there first.
        let alone = World::alone_after(&flags, async move |client| configure(client, address).await).await;
        robin.lead_to([alone.world.operator()]);
        Self { alone, robin, further: Vec::new() }
    }

    /// With so many replicas in all.
    async fn with_replicas(count: usize) -> Self {
        let mut gate = Self::new(&[]).await;
        for _ in 1..count {
            gate.further.push(gate.alone.world.launch.another().start().await);
        }
        gate.lead();
        gate
    }

    fn lead(&self) {
        self.robin.lead_to(self.alone.world.operator.iter().chain(&self.further));
    }

    async fn scene(&self, account: Value) -> Scene<'_> {
        let scene = Scene::without_account(&self.alone.world, Way::Token, UserOptions::default()).await;
        scene.put_credentials(&scene.credentials()).await;
        scene.make_account(account).await;
        scene.account_where("Ready", |account| holds(account, "Ready", "True")).await;
        scene
    }

    fn configurations(&self, client: kube::Client) -> Api<ValidatingWebhookConfiguration> {
        Api::all(client)
    }

    async fn end(self) {
        let client = self.alone.world.cluster.client().await;
        let _ = self.configurations(client).delete("bags-operator", &DeleteParams::default()).await;
    }
}

/// The configuration as the chart renders it, by URL.
async fn configure(client: kube::Client, address: SocketAddr) {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client);
    let configuration = serde_json::from_value(json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "bags-operator"},
        "webhooks": [{
            "name": "apikeys.keys.bags.fm",
            "clientConfig": {"url": format!("https://{address}/admit")},
            "rules": [{"apiGroups": ["keys.bags.fm"], "apiVersions": ["v1alpha1"], "resources": ["apikeys"],
                       "operations": ["CREATE"], "scope": "Namespaced"}],
            "failurePolicy": "Fail", "sideEffects": "NoneOnDryRun", "matchPolicy": "Equivalent", "timeoutSeconds": 5,
            "admissionReviewVersions": ["v1"],
        }],
    }));
    let _ = api.delete("bags-operator", &DeleteParams::default()).await;
    api.create(&PostParams::default(), &configuration.unwrap()).await.unwrap();
}

fn refusal(error: kube::Error) -> Box<Status> {
    match error {
        kube::Error::Api(status) => status,
        other => panic!("not an answer of the API server: {other}"),
    }
}

/// What came of a crowd's applies.
#[derive(Debug, Default)]
struct Crowd {
    admitted: Vec<String>,
    denied: usize,
    /// Neither admitted nor refused for want of a slot.
    unclear: Vec<String>,
}

/// So many people apply one ApiKey each at the same time; who is told to come again does.
#[expect(clippy::disallowed_methods, reason = "all of them are waited for")]
async fn crowd(scene: &Scene<'_>, round: usize, people: usize) -> Crowd {
    let mut tasks = JoinSet::new();
    for person in 0..people {
        let (api, key) = (scene.keys(), scene.new_key(&format!("app-{round}-{person}"), json!({})));
        tasks.spawn(async move {
            loop {
                match api.create(&PostParams::default(), &key).await {
                    Ok(key) => return Ok(key.name_any()),
                    Err(kube::Error::Api(status)) if status.code == 429 => {
                        let pause = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                        tokio::time::sleep(Duration::from_secs(pause.into())).await;
                    }
                    Err(error) => return Err(error.to_string()),
                }
            }
        });
    }
    let mut crowd = Crowd::default();
    while let Some(came) = tasks.join_next().await {
        match came.unwrap() {
            Ok(name) => crowd.admitted.push(name),
            Err(said) if said.contains("has no slot for another key") => crowd.denied += 1,
            Err(said) => crowd.unclear.push(said),
        }
    }
    crowd
}

/// So many kept places belong to nobody.
async fn lost(scene: &Scene<'_>) -> usize {
    let living: Vec<String> = scene
        .keys()
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .filter_map(ResourceExt::uid)
        .collect();
    let status = scene.account().await.status.unwrap_or_default();
    status.slots.iter().filter(|slot| !living.contains(&slot.owner.uid)).count()
}

#[tokio::test]
async fn of_fifty_who_come_at_once_for_four_slots_four_are_admitted_whichever_replica_they_meet() {
    let gate = Gate::with_replicas(3).await;
    for round in 0..5 {
        let scene = gate.scene(json!({"limit": 4})).await;
        let Crowd { admitted, denied, unclear } = crowd(&scene, round, 50).await;
        assert_eq!(unclear, Vec::<String>::new());
        assert_eq!((admitted.len(), denied), (4, 46), "round {round}");
        for name in &admitted {
            scene.ready(name).await;
        }
        let account = scene.account().await;
        assert_eq!((slots(&account), lost(&scene).await), (4, 0), "round {round}");
        scene.end().await;
    }
    gate.end().await;
}

#[tokio::test]
async fn replicas_that_die_in_the_middle_cost_nobody_a_slot_and_let_nobody_in_too_many() {
    let mut gate = Gate::with_replicas(3).await;
    for round in 0..3 {
        let victim = gate.further.remove(0);
        gate.robin.lead_to(gate.alone.world.operator.iter().chain(&gate.further).chain([&victim]));
        let scene = gate.scene(json!({"limit": 4})).await;
        let people = crowd(&scene, round, 50);
        let kill = async {
            // As soon as somebody is in: the others are on their way.
            scene.account_where("in use", |account| slots(account) > 0).await;
            victim.kill();
        };
        let (crowd, ()) = tokio::join!(people, kill);
        gate.lead();
        // Whoever lost the connection was refused by the API server; their place, if any, comes free again.
        assert!(crowd.admitted.len() <= 4, "{crowd:?}");
        let again = self::crowd(&scene, round + 100, 8).await;
        let reaped = |account: &BagsAccount| {
            slots_in(account, &SlotState::Reserved) == 0
                && slots(account) == slots_in(account, &SlotState::Live)
        };
        scene.account_where("without places that belong to nobody", reaped).await;
        let more = self::crowd(&scene, round + 200, 8).await;
        let admitted = crowd.admitted.len() + again.admitted.len() + more.admitted.len();
        assert_eq!(admitted, 4, "{crowd:?} {again:?} {more:?}");
        for name in crowd.admitted.iter().chain(&again.admitted).chain(&more.admitted) {
            scene.ready(name).await;
        }
        assert_eq!(lost(&scene).await, 0);
        scene.end().await;
        gate.further.push(gate.alone.world.launch.another().start().await);
        gate.lead();
    }
    gate.end().await;
}

#[tokio::test]
async fn a_dry_run_keeps_no_place_and_a_generated_name_does() {
    let gate = Gate::new(&[]).await;
    let scene = gate.scene(json!({"limit": 2})).await;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    for _ in 0..3 {
        scene.keys().create(&dry_run, &scene.new_key("web-dashboard", json!({}))).await.unwrap();
    }
    assert_eq!(slots(&scene.account().await), 0);
    let mut generated = scene.new_key("", json!({}));
    generated.metadata.name = None;
    generated.metadata.generate_name = Some("web-".to_owned());
    for _ in 0..2 {
        let made = scene.keys().create(&PostParams::default(), &generated).await.unwrap();
        scene.ready(&made.name_any()).await;
    }
    for parameters in [dry_run, PostParams::default()] {
        let said = refusal(scene.keys().create(&parameters, &generated).await.unwrap_err());
        assert_eq!((said.code, said.reason.as_str()), (403, "Forbidden"));
        says(&said.message, &["2 of 2 in use (2 by ApiKeys, 0 made elsewhere)", "admission: Queue"]);
    }
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn kubectl_apply_of_twelve_shows_nine_created_and_three_clear_denials() {
    let gate = Gate::new(&[]).await;
    let scene = gate.scene(json!({"rotationReserve": 1})).await;
    let keys: Vec<ApiKey> = (1..=12).map(|n| scene.new_key(&format!("app-{n}"), json!({}))).collect();
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.json", scene.name));
    std::fs::write(
        &file,
        serde_json::to_vec(&json!({"apiVersion": "v1", "kind": "List", "items": keys})).unwrap(),
    )
    .unwrap();
    let world = &gate.alone.world;
    let output = tokio::process::Command::new(&world.cluster.kubectl)
        .arg("--kubeconfig")
        .arg(&world.cluster.kubeconfig)
        .args(["apply", "-f"])
        .arg(&file)
        .output()
        .await
        .unwrap();
    let (made, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(made.lines().filter(|line| line.ends_with(" created")).count(), 9, "{made}{said}");
    let denials: Vec<&str> = said.lines().filter(|line| line.contains("denied the request")).collect();
    assert_eq!(denials.len(), 3, "{said}");
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
    assert!(said.contains("Warning: no slot is left for further ApiKeys"), "{said}");
    assert!(!output.status.success());
    for n in 1..=9 {
        scene.ready(&format!("app-{n}")).await;
    }
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn an_account_that_queues_admits_with_a_warning_and_serves_the_oldest_first() {
    let gate = Gate::new(&[]).await;
    let scene = gate.scene(json!({"limit": 1, "admission": "Queue"})).await;
    scene.apply("first-come", json!({})).await;
    scene.ready("first-come").await;
    scene.apply("second-come", json!({})).await;
    scene.not_ready("second-come", "QuotaExceeded").await;
    scene.apply_after("second-come", "third-come", json!({})).await;
    scene.not_ready("third-come", "QuotaExceeded").await;
    scene.delete_now("first-come").await;
    scene.ready("second-come").await;
    scene.not_ready("third-come", "QuotaExceeded").await;
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn without_a_webhook_only_new_apikeys_stop() {
    let gate = Gate::new(&["--resync=2s"]).await;
    let scene = gate.scene(json!({})).await;
    scene.apply("web-dashboard", json!({})).await;
    scene.ready("web-dashboard").await;
    gate.robin.close();
    let said = scene.keys().create(&PostParams::default(), &scene.new_key("too-early", json!({}))).await;
    let said = refusal(said.unwrap_err());
    assert_eq!(said.code, 500);
    says(&said.message, &["failed calling webhook", "apikeys.keys.bags.fm"]);
    // All else goes on.
    scene.patch("web-dashboard", json!({"spec": {"purpose": "Edited without a webhook"}})).await;
    let deleted = scene.secrets().delete("web-dashboard", &DeleteParams::default()).await.unwrap();
    let old = deleted.left().and_then(|secret| secret.uid());
    scene.secret("web-dashboard", "written again", |secret| secret.uid() != old).await;
    scene.delete_now("web-dashboard").await;
    gate.lead();
    scene.apply("in-time", json!({})).await;
    scene.ready("in-time").await;
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn past_a_webhook_that_is_not_configured_nobody_gets_a_key_too_many() {
    let gate = Gate::new(&[]).await;
    let scene = gate.scene(json!({"limit": 1})).await;
    scene.apply("first-come", json!({})).await;
    scene.ready("first-come").await;
    let configurations = gate.configurations(scene.client.clone());
    configurations.delete("bags-operator", &DeleteParams::default()).await.unwrap();
    let missing = |account: &BagsAccount| {
        condition(account, "AdmissionEnforced")
            .is_some_and(|c| c.status == "False" && c.reason == "WebhookMissing")
    };
    let account = scene.account_where("told that the webhook is missing", missing).await;
    says(&condition(&account, "AdmissionEnforced").unwrap().message, &["bags-operator", "install"]);
    let metrics = gate.alone.world.operator().metrics().await;
    assert!(metrics.contains("bags_operator_webhook_registered 0\n"), "{metrics}");

    let asked = scene.requests_to("/keys/create");
    scene.apply("second-come", json!({})).await;
    scene.not_ready("second-come", "QuotaExceeded").await;
    scene.apply_after("second-come", "third-come", json!({})).await;
    scene.not_ready("third-come", "QuotaExceeded").await;
    let third = scene.keys().get("third-come").await.unwrap();
    assert_eq!(condition(&third, "QuotaAvailable").unwrap().status, "False");
    assert_eq!(scene.requests_to("/keys/create"), asked, "Bags was asked for more than fits");
    scene.patch_account(json!({"spec": {"limit": 2}})).await;
    scene.ready("second-come").await;
    scene.not_ready("third-come", "QuotaExceeded").await;
    scene.patch_account(json!({"spec": {"limit": 3}})).await;
    scene.ready("third-come").await;
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn somebody_elses_bundle_is_replaced() {
    let gate = Gate::new(&[]).await;
    let scene = gate.scene(json!({})).await;
    let patch =
        json!({"webhooks": [{"name": "apikeys.keys.bags.fm", "clientConfig": {"caBundle": STRANGER}}]});
    let configurations = gate.configurations(scene.client.clone());
    configurations.patch("bags-operator", &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
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

/// Lives of certificates that let a test see fifty of them: an authority is replaced every eight seconds.
const SHORT_LIVES: [&str; 3] =
    ["--webhook-ca-life=12s", "--webhook-ca-settle=1s", "--webhook-certificate-life=6s"];

#[tokio::test]
async fn certificates_and_authorities_follow_each_other_without_a_failed_call() {
    let mut gate = Gate::new(&SHORT_LIVES).await;
    gate.further.push(gate.alone.world.launch.another().start().await);
    gate.lead();
    let scene = gate.scene(json!({})).await;
    let rotations = || {
        let logs =
            gate.alone.world.operator.iter().chain(&gate.further).map(|operator| operator.launch.log());
        logs.map(|log| log.matches("Signed a certificate").count()).sum::<usize>()
    };
    let bundles = Arc::new(Mutex::new(BTreeSet::new()));
    let (mut calls, mut failed) = (0, Vec::new());
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    while rotations() < 50 {
        pause.tick().await;
        calls += 1;
        let key = scene.new_key(&format!("app-{calls}"), json!({}));
        if let Err(error) = scene.keys().create(&dry_run, &key).await {
            failed.push(error.to_string());
        }
        if calls % 10 == 0 {
            let configuration = gate.configurations(scene.client.clone()).get("bags-operator").await.unwrap();
            let bundle = configuration.webhooks.unwrap().remove(0).client_config.ca_bundle.unwrap();
            bundles.lock().unwrap().insert(bundle.0);
        }
    }
    assert_eq!(failed, Vec::<String>::new(), "of {calls} calls");
    let bundles = bundles.lock().unwrap().len();
    assert!(bundles > 9, "only {bundles} bundles were seen: the authorities were not replaced");
    scene.end().await;
    gate.end().await;
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
    let slow: Vec<_> = (0..60)
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
    for _ in 0..8 {
        // The server may close before it has read everything: then the write fails.
        let answer = client.post(&url).body(vec![b'x'; 10 * 1024 * 1024]).send().await;
        assert!(answer.map_or(true, |answer| answer.status() == 413), "a body of 10 MiB");
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

/// The most memory that a process ever had, in KiB.
fn peak_memory(operator: &Operator) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", operator.process())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Base64 of `somebody else`.
const STRANGER: &str = "c29tZWJvZHkgZWxzZQ==";
