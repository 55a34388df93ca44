//! A real cluster for tests: etcd, kube-apiserver and controller-manager on loopback, without nodes.
//!
//! Each test binary boots its own with `tests/cluster/run`, once, and it ends with the test process: its standard
//! input is a pipe that the system closes. Where `BAGS_TEST_KUBECONFIG` names a kubeconfig, that cluster is used
//! instead, and the kinds stay in it.
#![allow(dead_code, reason = "each test binary uses its part")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

pub(crate) mod ledgers;
pub(crate) mod operator;
pub(crate) mod sandbox;
pub(crate) mod scene;
pub(crate) mod world;

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use bags_operator::api::{self, ApiKey, BagsAccount};
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, ObjectMeta, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{conditions, wait::await_condition},
};
use serde::Deserialize;

/// A cluster that serves both kinds.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    /// Of an administrator.
    pub(crate) kubeconfig: PathBuf,
    /// Every request as one line of JSON, at level Metadata; none for a cluster that the user named.
    pub(crate) audit_log: Option<PathBuf>,
    /// The folder of the programs' logs; none for a cluster that the user named.
    pub(crate) logs: Option<PathBuf>,
    /// The `kubectl` of the cluster's version, or the one on PATH.
    pub(crate) kubectl: PathBuf,
}

/// What `tests/cluster/run up` prints when the cluster is ready.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    kubeconfig: PathBuf,
    audit_log: PathBuf,
    logs: PathBuf,
    kubectl: PathBuf,
}

static SHARED: OnceLock<Cluster> = OnceLock::new();

impl Cluster {
    /// The cluster of this test binary; the first caller boots it, the others wait.
    pub(crate) async fn shared() -> Self {
        tokio::task::spawn_blocking(|| SHARED.get_or_init(Self::boot).clone())
            .await
            .expect("the cluster boots; its own words are above")
    }

    /// A cluster of one's own, for a test that breaks it. It lives until the test process ends.
    pub(crate) fn boot() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cluster = named_by_user().unwrap_or_else(boot_control_plane);
        // A runtime of its own: a client lives no longer than the runtime it was made in.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // kube asks again while a new server's caches are filled.
            let patient = Client::try_from(cluster.config().await).unwrap();
            apply_definitions(&patient).await;
            Api::<BagsAccount>::all(patient.clone()).list(&ListParams::default()).await.unwrap();
            Api::<ApiKey>::all(patient).list(&ListParams::default()).await.unwrap();
        });
        cluster
    }

    /// An administrator's client, for the runtime of the calling test.
    pub(crate) async fn client(&self) -> Client {
        let mut config = self.config().await;
        // A test sees what is answered. kube would ask again for minutes where somebody is told to come later.
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    /// Of an administrator.
    async fn config(&self) -> Config {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
    }

    /// A namespace that nobody else uses. It is left behind, as the cluster is.
    pub(crate) async fn namespace(&self, client: &Client, prefix: &str) -> String {
        let metadata = ObjectMeta { generate_name: Some(format!("{prefix}-")), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap().name_any()
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge of a test")]
fn named_by_user() -> Option<Cluster> {
    let kubeconfig = std::env::var("BAGS_TEST_KUBECONFIG").ok()?.into();
    Some(Cluster { kubeconfig, audit_log: None, logs: None, kubectl: "kubectl".into() })
}

fn boot_control_plane() -> Cluster {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/run");
    let mut child = Command::new(&program)
        .args(["up", "--size", "control-plane"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("failed to start {}: {error}", program.display()));
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output is a pipe")).read_line(&mut line).unwrap();
    let ready: Ready = serde_json::from_str(&line)
        .unwrap_or_else(|error| panic!("the cluster did not boot ({error}); it printed: {line}"));
    // Not waited for, and its input kept open: both end with this process.
    std::mem::forget(child);
    Cluster {
        kubeconfig: ready.kubeconfig,
        audit_log: Some(ready.audit_log),
        logs: Some(ready.logs),
        kubectl: ready.kubectl,
    }
}

/// Puts both kinds into the cluster and waits until it serves them.
async fn apply_definitions(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for mut definition in api::definitions() {
        let name = definition.name_any();
        if let Some(present) = definitions.get_opt(&name).await.unwrap() {
            definition.metadata.resource_version = present.resource_version();
            definitions.replace(&name, &PostParams::default(), &definition).await.unwrap();
        } else {
            definitions.create(&PostParams::default(), &definition).await.unwrap();
        }
        let established = await_condition(definitions.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(Duration::from_secs(30), established)
            .await
            .expect("it is served in time")
            .unwrap();
    }
}
