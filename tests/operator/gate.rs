//! A world whose API server asks before it makes an ApiKey: replicas of the webhook behind a TCP round robin, as a Service
//! would be.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bags_operator::sandbox::UserOptions;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::support::{
    operator::Operator,
    scene::{LIMIT, Scene, Way, holds},
    world::{Alone, World},
};

/// Where clients of the webhook are led to one replica after the other.
#[derive(Clone, Default)]
pub(crate) struct RoundRobin {
    replicas: Arc<Mutex<Vec<SocketAddr>>>,
    next: Arc<AtomicUsize>,
    /// How often all connections were ended.
    cut: Arc<watch::Sender<usize>>,
    /// How many connections are open.
    open: Arc<watch::Sender<usize>>,
    /// How many connections a replica ended while it owed an answer.
    unanswered: Arc<AtomicUsize>,
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
                let (mut cut, open, unanswered) =
                    (this.cut.subscribe(), Open::new(&this.open), this.unanswered.clone());
                tokio::spawn(async move {
                    let _open = open;
                    let Ok(mut server) = TcpStream::connect(replica).await else { return };
                    tokio::select! {
                        owed = pass_on(&mut client, &mut server) => {
                            unanswered.fetch_add(usize::from(owed), Ordering::Relaxed);
                        }
                        _ = cut.changed() => {
                            drop(server);
                            // Until the client has ended it as well, it may ask once more.
                            let _ = client.shutdown().await;
                            let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
                        }
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

    /// Ends the connections that clients keep for their next question, and returns when they know: it meets the next replica.
    /// Nobody may wait for an answer.
    pub(crate) async fn cut(&self) {
        self.cut.send_modify(|times| *times += 1);
        let mut open = self.open.subscribe();
        let ended = tokio::time::timeout(LIMIT, open.wait_for(|open| *open == 0)).await;
        ended.expect("clients end what was cut").unwrap();
    }

    /// How many calls were cut off by the end of a replica.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Ends every connection, and leads to nobody.
    pub(crate) fn close(&self) {
        self.replicas.lock().unwrap().clear();
        self.cut.send_modify(|times| *times += 1);
    }

    pub(crate) fn lead_to<'a>(&self, operators: impl IntoIterator<Item = &'a Operator>) {
        *self.replicas.lock().unwrap() = operators.into_iter().map(webhook_of).collect();
    }
}

/// One of the connections that are open.
struct Open(Arc<watch::Sender<usize>>);

impl Open {
    fn new(open: &Arc<watch::Sender<usize>>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// Passes bytes on until one side ends; whether that was the replica, and it had not answered what it was sent last.
async fn pass_on(client: &mut TcpStream, server: &mut TcpStream) -> bool {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.split(), server.split());
    let (mut question, mut answer) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let mut asked = false;
    loop {
        tokio::select! {
            read = from_client.read(&mut question) => match read {
                Ok(length) if length > 0 => {
                    asked = true;
                    if to_server.write_all(&question[..length]).await.is_err() {
                        return asked;
                    }
                }
                _ => return false,
            },
            read = from_server.read(&mut answer) => match read {
                Ok(length) if length > 0 => {
                    asked = false;
                    if to_client.write_all(&answer[..length]).await.is_err() {
                        return false;
                    }
                }
                _ => return asked,
            },
        }
    }
}

/// How many reviews an operator has answered with this outcome.
pub(crate) async fn answered(operator: &Operator, outcome: &str) -> f64 {
    let series = format!("bags_operator_admission_reviews_total{{outcome=\"{outcome}\"}}");
    operator.measures(&series).await.unwrap_or_default()
}

/// The address of an operator's webhook, as its log last told it.
pub(crate) fn webhook_of(operator: &Operator) -> SocketAddr {
    let log = operator.launch.log();
    let told = log.lines().rev().find(|line| line.contains("Serving admission")).unwrap_or(&log);
    let address = told.split_whitespace().find_map(|word| word.strip_prefix("webhook="));
    address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no webhook in: {told}"))
}

const FLAGS: [&str; 3] =
    ["--webhook-listen=127.0.0.1:0", "--webhook-hosts=127.0.0.1", "--webhook-configuration=bags-operator"];

/// A world whose operators are asked before an ApiKey is made.
pub(crate) struct Gate {
    pub(crate) alone: Alone,
    pub(crate) robin: RoundRobin,
    /// Operators beside the world's own.
    pub(crate) further: Vec<Operator>,
}

impl Gate {
    pub(crate) async fn new(flags: &[&str]) -> Self {
        let flags: Vec<&str> = FLAGS.iter().chain(flags).copied().collect();
        let robin = RoundRobin::default();
        let address = robin.listen().await;
        // An operator is ready once the configuration trusts it: that must be there first.
        let alone = World::alone_after(&flags, async move |client| configure(client, address).await).await;
        robin.lead_to([alone.world.operator()]);
        Self { alone, robin, further: Vec::new() }
    }

    /// With so many replicas in all.
    pub(crate) async fn with_replicas(count: usize) -> Self {
        let mut gate = Self::new(&[]).await;
        for _ in 1..count {
            gate.further.push(gate.alone.world.launch.another().start().await);
        }
        gate.lead();
        gate
    }

    pub(crate) fn lead(&self) {
        self.robin.lead_to(self.replicas());
    }

    pub(crate) async fn scene(&self, account: Value) -> Scene<'_> {
        let scene = Scene::without_account(&self.alone.world, Way::Token, UserOptions::default()).await;
        scene.put_credentials(&scene.credentials()).await;
        scene.make_account(account).await;
        scene.account_where("Ready", |account| holds(account, "Ready", "True")).await;
        scene
    }

    /// Every replica.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = &Operator> {
        self.alone.world.operator.iter().chain(&self.further)
    }

    pub(crate) fn configurations(&self, client: kube::Client) -> Api<ValidatingWebhookConfiguration> {
        Api::all(client)
    }

    pub(crate) async fn end(self) {
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
