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
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::support::{
    operator::Operator,
    scene::{Scene, Way, holds},
    world::{Alone, World},
};

/// Where clients of the webhook are led to one replica after the other.
#[derive(Clone, Default)]
pub(crate) struct RoundRobin {
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
    pub(crate) fn close(&self) {
        self.replicas.lock().unwrap().clear();
        self.cut.send_modify(|times| *times += 1);
    }

    pub(crate) fn lead_to<'a>(&self, operators: impl IntoIterator<Item = &'a Operator>) {
        *self.replicas.lock().unwrap() = operators.into_iter().map(webhook_of).collect();
    }
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
