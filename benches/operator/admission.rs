//! What the webhook costs: reviews sent straight to it, and creations through the API server, beside a webhook that does
//! nothing.
//!
//! The operator answers reviews as a replica that does not lead, so that no key is made meanwhile: what is measured is
//! admission, not what comes after it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Json, Router, routing::post};
use bags_operator::{
    api::ApiKey,
    leader::{DRAINED, LEASE_NAME},
    server::{Limits, Server},
};
use futures::{StreamExt, stream};
use k8s_openapi::api::{admissionregistration::v1::ValidatingWebhookConfiguration, coordination::v1::Lease};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};
use tokio_util::sync::CancellationToken;

use crate::{
    process,
    table::{Durations, Table, ratio},
    world::{OWN, Operator, World, api_key, next_line},
};

const CLIENTS: usize = 50;
/// Accounts of one measurement.
const ACCOUNTS: usize = 100;
/// As many as Bags allows: what a write costs depends on the slots that are there.
const PLACES: usize = 10;
const REVIEWS: usize = 10_000;
/// A measurement that writes fills its accounts.
const WRITES: usize = ACCOUNTS * PLACES;
/// Each measurement that writes has accounts of its own: the straight one, and these two, the first of which it names.
const THROUGH: [(usize, Option<u32>); 2] = [(ACCOUNTS, Some(PACE)), (2 * ACCOUNTS, None)];
/// Creations a second where they come at a pace.
const PACE: u32 = 200;
/// Names of the configurations. The operator keeps the bundle of its own.
const OURS: &str = "bags-operator";
const NOTHING: &str = "nothing";

/// Another program of this binary: a webhook that lets everything in. It prints its address and its certificate.
pub(crate) fn nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        println!("{}", json!({"address": server.address(), "bundle": certified.cert.pem()}));
        let admit = async |Json(review): Json<Value>| {
            let response = json!({"uid": review["request"]["uid"], "allowed": true});
            Json(
                json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}),
            )
        };
        let limits = Limits {
            connections: 2048,
            first_request: Duration::from_secs(5),
            idle: Duration::from_mins(3),
            lifetime: Duration::from_hours(24),
        };
        let router = Router::new().route("/admit", post(admit));
        server.serve(router, limits, Some(TlsAcceptor::from(Arc::new(tls))), CancellationToken::new()).await;
    });
}

/// A webhook that can be asked.
struct Webhook {
    pid: u32,
    address: SocketAddr,
    bundle: String,
}

/// What a number of requests came to.
struct Figures {
    took: Durations,
    each_second: f64,
    cpu: Duration,
}

pub(crate) fn measure() {
    World::run((1 + THROUGH.len()) * ACCOUNTS, PLACES, async |world| {
        world.create_namespaces().await;
        let (nothing, _program) = start_nothing().await;
        let listen = free_address();
        configure(&world.client, OURS, listen, None).await;
        let flags = [
            format!("--webhook-listen={listen}"),
            "--webhook-hosts=127.0.0.1".to_owned(),
            format!("--webhook-configuration={OURS}"),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let leader = world.operator_with(&flags).await;
        leader.ready().await;
        world.accounts_ready().await;
        leader.stop().await;
        nobody_leads(&world.client).await;
        let operator = world.operator_with(&flags).await;
        operator.ready().await;
        let ours = Webhook { pid: operator.pid(), address: listen, bundle: bundle(&world.client).await };
        straight(&ours, &nothing).await;
        through(&world, &operator, &ours, &nothing).await;
    });
}

async fn start_nothing() -> (Webhook, tokio::process::Child) {
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .arg("nothing")
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let line = next_line(&mut tokio::io::BufReader::new(child.stdout.take().unwrap())).await;
    let told: Value = serde_json::from_str(&line).unwrap();
    let text = |field: &str| told[field].as_str().unwrap();
    let webhook = Webhook {
        pid: child.id().unwrap(),
        address: text("address").parse().unwrap(),
        bundle: text("bundle").to_owned(),
    };
    (webhook, child)
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Leads the API server to a webhook, and to no other.
async fn configure(client: &Client, name: &str, address: SocketAddr, bundle: Option<&str>) {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    for before in [OURS, NOTHING] {
        let _ = api.delete(before, &DeleteParams::default()).await;
    }
    let bundle = bundle.map(|pem| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, pem));
    let configuration = json!({
        "metadata": {"name": name},
        "webhooks": [{
            "name": "apikeys.keys.bags.fm", "sideEffects": "NoneOnDryRun", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://{address}/admit"), "caBundle": bundle},
            "rules": [{"apiGroups": ["keys.bags.fm"], "apiVersions": ["v1alpha1"], "resources": ["apikeys"],
                       "operations": ["CREATE"], "scope": "Namespaced"}],
            "failurePolicy": "Fail", "timeoutSeconds": 5,
        }],
    });
    api.create(&PostParams::default(), &serde_json::from_value(configuration).unwrap()).await.unwrap();
}

async fn bundle(client: &Client) -> String {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let configuration = api.get(OURS).await.unwrap();
    let bundle = configuration.webhooks.unwrap().remove(0).client_config.ca_bundle.unwrap();
    String::from_utf8(bundle.0).unwrap()
}

/// Sees to it that no replica reconciles.
async fn nobody_leads(client: &Client) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), OWN);
    let patch = json!({"spec": {"holderIdentity": DRAINED}});
    leases.patch(LEASE_NAME, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

/// The AdmissionReview about an ApiKey that was never made.
fn review(uid: &str, number: usize, account: usize, dry_run: bool) -> String {
    let mut key = api_key(number, account);
    key.metadata.uid = Some(uid.to_owned());
    let types = json!({"group": "keys.bags.fm", "version": "v1alpha1", "kind": "ApiKey"});
    let resource = json!({"group": "keys.bags.fm", "version": "v1alpha1", "resource": "apikeys"});
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": uid, "kind": types, "resource": resource, "operation": "CREATE", "dryRun": dry_run,
            "name": key.name_any(), "namespace": key.namespace(), "userInfo": {"username": "bench"}, "object": key,
        },
    });
    review.to_string()
}

/// Sends this many reviews, 50 at a time. All of them must be answered as is expected.
async fn ask(webhook: &Webhook, count: usize, allowed: bool, body: impl Fn(usize) -> String) -> Figures {
    let certificate = reqwest::Certificate::from_pem(webhook.bundle.as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([certificate]).build().unwrap();
    let url = format!("https://{}/admit", webhook.address);
    let bodies: Vec<String> = (0..count).map(body).collect();
    let cpu = process::cpu(webhook.pid);
    let begun = Instant::now();
    let took: Vec<Duration> = stream::iter(bodies)
        .map(|body| async {
            let begun = Instant::now();
            let answer = client.post(&url).body(body).header("content-type", "application/json");
            let answer = answer.send().await.unwrap().bytes().await.unwrap();
            let took = begun.elapsed();
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(answer["response"]["allowed"], json!(allowed), "{answer}");
            took
        })
        .buffer_unordered(CLIENTS)
        .collect()
        .await;
    figures(took, begun.elapsed(), process::cpu(webhook.pid) - cpu)
}

fn figures(all: Vec<Duration>, elapsed: Duration, cpu: Duration) -> Figures {
    let each_second = all.len() as f64 / elapsed.as_secs_f64();
    let cpu = cpu / u32::try_from(all.len()).unwrap();
    let mut took = Durations::default();
    all.into_iter().for_each(|duration| took.push(duration));
    Figures { took, each_second, cpu }
}

impl Figures {
    fn show(&self) -> String {
        let Self { took, each_second, cpu } = self;
        let cpu = cpu.as_secs_f64() * 1000.0;
        format!("{each_second:.0}/s, {}, {cpu:.2} ms of CPU each", took.show())
    }
}

/// Reviews straight to the webhook.
async fn straight(ours: &Webhook, nothing: &Webhook) {
    let idle = process::memory(ours.pid).0;
    let baseline =
        ask(nothing, REVIEWS, true, |n| review(&format!("none-{n}"), n, n % ACCOUNTS, false)).await;
    let unknown = ask(ours, REVIEWS, false, |n| review(&format!("deny-{n}"), n, 100_000, false)).await;
    let same = ask(ours, REVIEWS, true, |n| review(&format!("one-{n}"), n, 0, true)).await;
    let dry = ask(ours, REVIEWS, true, |n| review(&format!("dry-{n}"), n, n % ACCOUNTS, true)).await;
    let writes = ask(ours, WRITES, true, |n| review(&format!("write-{n}"), n, n % ACCOUNTS, false)).await;
    let again = ask(ours, REVIEWS, true, |n| {
        let n = n % WRITES;
        review(&format!("write-{n}"), n, n % ACCOUNTS, false)
    })
    .await;
    let full = ask(ours, REVIEWS, false, |n| review(&format!("full-{n}"), WRITES + n, 0, false)).await;
    let all_full =
        ask(ours, REVIEWS, false, |n| review(&format!("full-{n}"), WRITES + n, n % ACCOUNTS, false)).await;
    let (resident, peak) = process::memory(ours.pid);
    let mut table = Table::new(format!("Reviews straight to the webhook, {CLIENTS} at a time: p50 / p99"));
    table.row("a webhook that does nothing", baseline.show(), "");
    table.row("refused: no such account", unknown.show(), "≥ 1000/s, p99 ≤ 50 ms");
    table.row("dry run, one account", same.show(), "≥ 1000/s, p99 ≤ 50 ms");
    table.row(format!("dry run, {ACCOUNTS} accounts"), dry.show(), "≥ 1000/s, p99 ≤ 50 ms");
    table.row(format!("asked again, {ACCOUNTS} accounts"), again.show(), "≥ 1000/s, p99 ≤ 50 ms");
    table.row("refused: full, one account", full.show(), "≥ 1000/s, p99 ≤ 50 ms");
    table.row(format!("refused: full, {ACCOUNTS} accounts"), all_full.show(), "≥ 1000/s, p99 ≤ 50 ms");
    table.row(format!("let in, with a place ({WRITES} in {ACCOUNTS} accounts)"), writes.show(), "");
    table.row("resident before, after, at most", format!("{idle}, {resident}, {peak}"), "");
    table.print();
}

/// What creations through the API server come to.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    DryRun,
    Stored,
    /// By a full account. Beside it stands a dry run that nobody refuses: neither is stored.
    Refused,
}

/// Creates as many ApiKeys as fit, through the API server, 50 at a time, or at a pace; all are stored, or `refused`.
async fn create(
    client: &Client,
    from: usize,
    account: usize,
    dry_run: bool,
    refused: bool,
    pace: Option<u32>,
) -> Vec<Duration> {
    let options = PostParams { dry_run, ..PostParams::default() };
    let begun = tokio::time::Instant::now();
    stream::iter(0..WRITES)
        .map(|n| {
            let options = options.clone();
            async move {
                let due = match pace {
                    Some(pace) => begun + Duration::from_secs(1) * u32::try_from(n).unwrap() / pace,
                    None => tokio::time::Instant::now(),
                };
                tokio::time::sleep_until(due).await;
                let key: ApiKey = api_key(from + n, account + n % ACCOUNTS);
                let api = Api::namespaced(client.clone(), &key.namespace().unwrap());
                let answer = api.create(&options, &key).await;
                let took = due.elapsed();
                match answer {
                    Ok(_) if !refused => {}
                    Err(kube::Error::Api(status)) if refused && status.code == 403 => {}
                    answer => panic!("{answer:?}"),
                }
                took
            }
        })
        .buffer_unordered(CLIENTS)
        .collect()
        .await
}

/// Creations through the API server.
async fn through(world: &World, operator: &Operator, ours: &Webhook, nothing: &Webhook) {
    let numbers = AtomicUsize::new(0);
    let one = async |webhook: &Webhook, way: Way, account: usize, pace: Option<u32>| {
        let from = numbers.fetch_add(WRITES, Ordering::Relaxed);
        let refused = way == Way::Refused && webhook.pid == ours.pid;
        let dry_run = way != Way::Stored && !refused;
        let (cpu, begun) = (process::cpu(webhook.pid), Instant::now());
        let took = create(&world.client, from, account, dry_run, refused, pace).await;
        figures(took, begun.elapsed(), process::cpu(webhook.pid) - cpu)
    };
    let mut table =
        Table::new(format!("{WRITES} creations through the API server: p50 / p99; CPU is the webhook's"));
    // What was stored keeps its places, which are its accounts' last: they refuse whoever comes then.
    for (what, way) in [("dry run", Way::DryRun), ("stored", Way::Stored), ("refused", Way::Refused)] {
        for (account, pace) in THROUGH {
            configure(&world.client, NOTHING, nothing.address, Some(&nothing.bundle)).await;
            settled(&world.client, false).await;
            let baseline = one(nothing, way, account, pace).await;
            clear(&world.client).await;
            configure(&world.client, OURS, ours.address, Some(&ours.bundle)).await;
            settled(&world.client, true).await;
            let measured = one(ours, way, account, pace).await;
            clear(&world.client).await;
            let how = pace.map_or(format!("{CLIENTS} at a time"), |pace| format!("{pace} a second"));
            table.row(format!("{what}, {how}: does nothing"), baseline.show(), "");
            table.row(format!("{what}, {how}: the operator's"), measured.show(), "");
            let times = ratio(measured.took.p99(), baseline.took.p99());
            let half = ratio(measured.took.p50(), baseline.took.p50());
            let mark = if pace.is_some() { "≤ 1.25 ×" } else { "" };
            table.row("  ratio", format!("{half} / {times}"), mark);
        }
    }
    table.row("the operator resident, at most", process::memory(operator.pid()).1, "");
    table.print();
}

/// Waits until the API server asks the webhook that it is led to: it takes the configuration from a watch of its own. Only
/// the operator's refuses an ApiKey of an account that does not exist.
async fn settled(client: &Client, refuses: bool) {
    let end = Instant::now() + Duration::from_secs(30);
    let key = api_key(1_000_000, 1_000_000);
    let api = Api::<ApiKey>::namespaced(client.clone(), &key.namespace().unwrap());
    let options = PostParams { dry_run: true, ..PostParams::default() };
    loop {
        match (api.create(&options, &key).await, refuses) {
            (Ok(_), false) => return,
            (Err(kube::Error::Api(status)), true) if status.code == 403 => return,
            (answer, _) => assert!(Instant::now() < end, "the API server asks another webhook: {answer:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Takes away what was stored: who waits for a place would come before whoever comes next.
async fn clear(client: &Client) {
    let all = Api::<ApiKey>::all(client.clone()).list(&ListParams::default()).await.unwrap();
    stream::iter(all)
        .for_each_concurrent(CLIENTS, async |key| {
            let api = Api::<ApiKey>::namespaced(client.clone(), &key.namespace().unwrap());
            api.delete(&key.name_any(), &DeleteParams::default()).await.unwrap();
        })
        .await;
}
