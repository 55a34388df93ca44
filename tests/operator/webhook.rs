//! The webhook itself on a real API server: whom the configuration trusts, how it ends, senders that mean no good.

use std::{net::SocketAddr, time::Duration};

use bags_operator::api::BagsAccount;
use futures::StreamExt;
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    certificates::connect,
    gate::{Gate, webhook_of},
    support::{
        operator::{Operator, terminate},
        scene::{LIMIT, Scene, all, condition, holds, says},
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

/// A user with these rights.
pub(crate) async fn restricted_user(client: &kube::Client, rules: Value) -> &'static str {
    const USER: &str = "restricted-operator";
    let role: ClusterRole =
        serde_json::from_value(json!({"metadata": {"name": USER}, "rules": rules})).unwrap();
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": USER}, "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": USER}],
        "roleRef": {"kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": USER},
    }))
    .unwrap();
    anew(Api::all(client.clone()), &role).await;
    anew(Api::all(client.clone()), &binding).await;
    USER
}

/// All that an operator does, but for some verbs on webhook configurations.
fn with_webhooks(verbs: &[&str]) -> Value {
    json!([
        {"apiGroups": ["", "keys.bags.fm", "events.k8s.io", "coordination.k8s.io"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": verbs},
    ])
}

#[tokio::test]
async fn an_operator_that_may_not_write_its_bundle_says_so_until_it_may() {
    let mut gate = Gate::new(&[]).await;
    gate.alone.world.operator.take().unwrap().stop().await;
    let client = gate.alone.world.cluster.client().await;
    trust_a_stranger(&gate, &client).await;
    let user = restricted_user(&client, with_webhooks(&["get", "list", "watch"])).await;
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
    restricted_user(&client, with_webhooks(&["*"])).await;
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
    assert!(terminate(leader));
    other.shows("bags_operator_leader 1").await;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    scene.keys().create(&dry_run, &scene.new_key("in-between", json!({}))).await.unwrap();
    assert!(!ended(), "it had ended by then: the answer was another one's");
    gate.robin.lead_to([&other]);
    scene.end().await;
    assert_eq!(gate.alone.world.operator.take().unwrap().ends().await, Some(0));
    gate.end().await;
}

/// Sends to a webhook what an API server would not.
struct Sender {
    client: reqwest::Client,
    url: String,
    address: SocketAddr,
    /// What the API server is told to trust.
    bundle: Vec<u8>,
}

/// How a webhook answered: the code, and the text.
type Said = (u16, String);
/// The same, or why nothing came.
type Answer = Result<Said, reqwest::Error>;

impl Sender {
    async fn new(gate: &Gate, operator: &Operator) -> Self {
        let configurations = gate.configurations(gate.alone.world.cluster.client().await);
        let configuration = configurations.get("bags-operator").await.unwrap();
        let bundle = configuration.webhooks.unwrap().remove(0).client_config.ca_bundle.unwrap().0;
        let trusted = [reqwest::Certificate::from_pem(&bundle).unwrap()];
        let client = reqwest::Client::builder().tls_certs_only(trusted).build().unwrap();
        let address = webhook_of(operator);
        Self { client, url: format!("https://{address}/admit"), address, bundle }
    }

    /// Sends a body; `announced` is the length that its head tells.
    async fn send(&self, body: impl Into<reqwest::Body>, announced: Option<usize>) -> Answer {
        let announced = announced.map(|length| (reqwest::header::CONTENT_LENGTH, length.into()));
        let request = self.client.post(&self.url).headers(announced.into_iter().collect()).body(body);
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Sends so many bytes, and then nothing, without an end.
    async fn begin(&self, length: usize, announced: Option<usize>) -> Answer {
        let first = futures::stream::once(async move { Ok::<_, std::io::Error>(vec![b'{'; length]) });
        let body = reqwest::Body::wrap_stream(first.chain(futures::stream::pending()));
        self.send(body, announced).await
    }

    /// The response of a review to what can be sent at once.
    async fn ask(&self, body: String) -> Value {
        let (code, text) = self.send(body, None).await.unwrap();
        assert_eq!(code, 200, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()["response"].take()
    }
}

/// Somebody honest whose ApiKey is put before the webhook, by the API server.
struct Honest<'s> {
    scene: &'s Scene<'s>,
    admitted: usize,
}

impl Honest<'_> {
    /// One more, while others do what they do.
    async fn beside<T>(&mut self, others: impl Future<Output = T>) -> T {
        let name = format!("app-{}", self.admitted);
        let (came, _) = tokio::join!(others, self.scene.apply(&name, json!({})));
        self.admitted += 1;
        came
    }
}

/// How the webhook answers where it takes nothing in.
const TOO_LATE: (u16, &str) = (408, "the review did not arrive in time\n");
const TOO_LONG: (u16, &str) = (413, "a review has 1 MiB at most\n");
const OVERLOADED: (u16, &str) = (503, "too many reviews at once; try again in a moment\n");

fn is(said: &Answer, expected: (u16, &str)) -> bool {
    said.as_ref().is_ok_and(|said| (said.0, said.1.as_str()) == expected)
}

/// Who is refused while sending may see the end of the connection before the answer.
fn is_cut_off(said: &Answer) -> bool {
    said.as_ref().is_err_and(reqwest::Error::is_request)
}

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn hostile_senders_are_answered_clearly_and_keep_nobody_else_waiting() {
    let gate = Gate::new(&[]).await;
    let scene = gate.scene(json!({})).await;
    let operator = gate.alone.world.operator();
    let sender = Sender::new(&gate, operator).await;
    let mut honest = Honest { scene: &scene, admitted: 0 };

    // Connections that bring nothing, and are sent away. Where more wait than the system keeps for the operator, it drops some
    // and tells nobody: a handshake is answered once all before it were taken in.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.extend(all((0..50).map(|_| TcpStream::connect(sender.address))).await);
        connect(sender.address, &sender.bundle).await.unwrap();
    }
    let away = all(silent.into_iter().map(async |connection| {
        let read = connection.unwrap().read(&mut [0; 1]).await;
        assert_eq!(read.unwrap_or(0), 0);
    }));
    honest.beside(async { tokio::time::timeout(LIMIT, away).await.expect("all are closed") }).await;

    // Connections that shake hands first: so may an API server's rest as well, and they stay while all else goes on.
    let mut resting = Vec::new();
    for _ in 0..20 {
        let more = all((0..50).map(|_| connect(sender.address, &sender.bundle)));
        resting.extend(more.await.into_iter().map(Result::unwrap));
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", operator.process())).unwrap().count();
    assert!(open >= resting.len(), "{open} connections of {} are still open", resting.len());
    honest.beside(async {}).await;

    // Bodies that never end.
    for said in honest.beside(all((0..300).map(|_| sender.begin(1, None)))).await {
        assert!(is(&said, TOO_LATE), "a body that never ends: {said:?}");
    }

    // Bodies that are too long: announced, and refused with the first byte; else once too much has come.
    let said = sender.begin(1, Some(10 * MIB)).await;
    assert!(is(&said, TOO_LONG), "announced as 10 MiB: {said:?}");
    let said = sender.begin(MIB + 1, None).await;
    assert!(is(&said, TOO_LONG) || is_cut_off(&said), "more than a MiB: {said:?}");
    let piece = bytes::Bytes::from(vec![b'x'; MIB]);
    let sent = (0..32).map(|n| {
        let pieces = futures::stream::iter(vec![piece.clone(); 10]).map(Ok::<_, std::io::Error>);
        sender.send(reqwest::Body::wrap_stream(pieces), (n % 2 == 0).then_some(10 * MIB))
    });
    for said in honest.beside(all(sent)).await {
        assert!(is(&said, TOO_LONG) || is_cut_off(&said), "10 MiB: {said:?}");
    }

    // Bodies that take all of the room that there is for long ones. A short one needs none of it.
    let crowded = async {
        let mut overloaded = false;
        while !overloaded {
            for said in all((0..64).map(|_| sender.begin(MIB - 1, None))).await {
                assert!(is(&said, TOO_LATE) || is(&said, OVERLOADED) || is_cut_off(&said), "{said:?}");
                overloaded |= is(&said, OVERLOADED);
            }
        }
    };
    honest
        .beside(async { tokio::time::timeout(LIMIT, crowded).await.expect("there is no room for all") })
        .await;
    // A megabyte of numbers in a member that nobody asked for: skipped, not kept.
    let wide = format!("{{\"junk\": [0{}]}}", ",0".repeat(500_000));
    let mut reviewed = 0;
    for said in honest.beside(all((0..64).map(|_| sender.send(wide.clone(), None)))).await {
        // Not all of them have room, or a processor, at the same time.
        if is(&said, OVERLOADED) || is(&said, TOO_LATE) || is_cut_off(&said) {
            continue;
        }
        let (_, said) = said.unwrap();
        let answer: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!(answer["response"]["allowed"], json!(false), "a wide body");
        reviewed += 1;
    }
    assert!(reviewed > 0, "no wide body was reviewed");

    honest.beside(unreadable(&sender, &scene.name)).await;
    assert_eq!(sender.client.get(&sender.url).send().await.unwrap().status(), 405);
    drop(resting);
    for n in 0..honest.admitted {
        scene.ready(&format!("app-{n}")).await;
    }
    let peak = peak_memory(operator);
    assert!(peak < 200 * 1024, "the operator took {peak} KiB");
    scene.end().await;
    gate.end().await;
}

/// What cannot be read is refused with its reason; what is not judged is admitted without a look.
async fn unreadable(sender: &Sender, namespace: &str) {
    let none = "no AdmissionReview of admission.k8s.io/v1";
    for (what, body, words) in [
        ("garbage", "garbage".to_owned(), none),
        ("nothing", String::new(), none),
        ("endless nesting", "[".repeat(500_000), none),
        (
            "no request",
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}).to_string(),
            "no request",
        ),
        (
            "an earlier version",
            review(namespace, "/apiVersion", json!("admission.k8s.io/v1beta1")),
            "not \"admission.k8s.io/v1beta1\"",
        ),
        (
            "another kind",
            review(namespace, "/apiVersion", json!("apiextensions.k8s.io/v1")),
            "not \"apiextensions.k8s.io/v1\"",
        ),
        (
            "another version of the object",
            review(namespace, "/request/object/spec", json!({"account": "main"})),
            "cannot be read as keys.bags.fm/v1alpha1",
        ),
    ] {
        let answer = sender.ask(body).await;
        assert_eq!(
            (&answer["allowed"], &answer["status"]["code"]),
            (&json!(false), &json!(400)),
            "{what}: {answer}"
        );
        says(answer["status"]["message"].as_str().unwrap(), &[words]);
    }
    let pod = json!({"group": "", "version": "v1", "kind": "Pod"});
    // In all but its depth the last one is what an API server sends; what is not judged is skipped, however deep it is.
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (what, body) in [
        ("another kind of object", review(namespace, "/request/kind", pod)),
        ("a change", review(namespace, "/request/operation", json!("UPDATE"))),
        (
            "a deep one",
            review(namespace, "/request/object/status", json!("nested")).replacen("\"nested\"", &nested, 1),
        ),
    ] {
        let answer = sender.ask(body).await;
        assert_eq!(
            (&answer["allowed"], &answer["uid"]),
            (&json!(true), &json!("0c9a8d74")),
            "{what}: {answer}"
        );
    }
}

/// A review of an ApiKey that fits, as a dry run, but for what stands there.
fn review(namespace: &str, there: &str, other: Value) -> String {
    let object = json!({
        "apiVersion": "keys.bags.fm/v1alpha1", "kind": "ApiKey",
        "metadata": {"name": "deep", "namespace": namespace, "uid": "uid-deep"},
        "spec": {"accountRef": {"name": namespace}, "environment": "production"}, "status": {},
    });
    let kind = json!({"group": "keys.bags.fm", "version": "v1alpha1", "kind": "ApiKey"});
    let request = json!({
        "uid": "0c9a8d74", "kind": kind, "name": "deep", "namespace": namespace, "operation": "CREATE", "object": object,
        "dryRun": true,
    });
    let mut review =
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
    *review.pointer_mut(there).unwrap() = other;
    review.to_string()
}

/// The most memory that a process ever had, in KiB.
fn peak_memory(operator: &Operator) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", operator.process())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Base64 of `somebody else`.
const STRANGER: &str = "c29tZWJvZHkgZWxzZQ==";
