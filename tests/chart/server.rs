//! On a real API server: it takes every rendering, and a release goes through its life.

use std::{
    path::Path,
    process::{Command, Output},
};

use bags_operator::api;
use base64::Engine;
use tokio::sync::Mutex;

use crate::{BOTH, CHART, NAMESPACE, SETS, helm, objects, set_file, support::Cluster, try_template, words};

#[tokio::test]
async fn a_server_takes_every_rendering() {
    let cluster = Cluster::shared().await;
    for namespace in [NAMESPACE, "shop", "1234"] {
        kubectl(&cluster, &["create", "namespace", namespace]); // or it is there
    }
    for (set, changes) in SETS.map(|set| (set, &[][..])).into_iter().chain([("minimal", &BOTH[..])]) {
        let text = try_template(set, changes).unwrap();
        let taken = apply_dry(&cluster, &format!("chart-{set}-{}", changes.len()), &text);
        assert_eq!(taken.lines().count(), objects(&text).len(), "{set}: {taken}");
    }
}

pub(crate) fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Output {
    let mut command = Command::new(&cluster.kubectl);
    command.arg("--kubeconfig").arg(&cluster.kubeconfig).args(arguments).output().unwrap()
}

/// The path of a new file with this text.
pub(crate) fn written(name: &str, text: &str) -> String {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.yaml"));
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// What the server says of each object; none is stored.
fn apply_dry(cluster: &Cluster, name: &str, text: &str) -> String {
    let file = written(name, text);
    let output = kubectl(cluster, &["apply", "--dry-run=server", "--filename", &file]);
    assert!(output.status.success(), "{name}: {}", words(&output.stderr));
    words(&output.stdout)
}

/// A release has a webhook that nobody answers at: while there is one, no ApiKey can be tried out.
static RELEASE: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn a_release_goes_through_its_life_and_leaves_the_kinds() {
    let _turn = RELEASE.lock().await;
    let cluster = Cluster::shared().await;
    if cluster.logs.is_none() {
        return; // a cluster of somebody's, whose kinds may belong to a release of theirs
    }
    let kubeconfig = cluster.kubeconfig.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let output = helm(&[&["--kubeconfig", kubeconfig, "--namespace", "chart-life"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {}", words(&output.stderr));
        words(&output.stdout)
    };
    let client = cluster.client().await;
    let deployments =
        kube::Api::<k8s_openapi::api::apps::v1::Deployment>::namespaced(client.clone(), "chart-life");
    let strategy = async || {
        let deployment = deployments.get("life-bags-operator").await.unwrap();
        deployment.spec.unwrap().strategy.unwrap().type_.unwrap()
    };
    let (minimal, everything) = (set_file("minimal"), set_file("everything"));

    // The kinds are there already, as after the uninstallation of another release.
    let notes = run(&[
        "install",
        "life",
        CHART,
        "--create-namespace",
        "--take-ownership",
        "--values",
        &minimal,
        "--set",
        "leaderElection.enabled=false,webhook.enabled=false,replicaCount=1",
    ]);
    assert!(notes.contains("No namespace takes part yet"), "{notes}");
    assert!(notes.contains("kubectl -n chart-life create secret generic bags-main"), "{notes}");
    kubectl(&cluster, &["create", "namespace", "shop"]); // or it is there
    apply_dry(&cluster, "chart-notes", suggested(&notes));
    assert_eq!(strategy().await, "Recreate");
    // As README.md says it: to 0, and back by the upgrade that makes the change.
    let replicas = async || deployments.get("life-bags-operator").await.unwrap().spec.unwrap().replicas;
    run(&["upgrade", "life", CHART, "--reset-then-reuse-values", "--set", "replicaCount=0"]);
    assert_eq!((strategy().await.as_str(), replicas().await), ("Recreate", Some(0)));
    let turned = [
        "upgrade",
        "life",
        CHART,
        "--values",
        &everything,
        "--set",
        "crds.keep=true,consumerNamespaces=null",
    ];
    run(&turned);
    assert_eq!((strategy().await.as_str(), replicas().await), ("RollingUpdate", Some(3)));
    // The operator's own field of the webhook outlives an upgrade.
    let webhooks =
        kube::Api::<k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration>::all(
            client.clone(),
        );
    let mut written = webhooks.get("life-bags-operator").await.unwrap();
    let bundle = k8s_openapi::ByteString(authority(&cluster));
    written.webhooks.as_mut().unwrap()[0].client_config.ca_bundle = Some(bundle.clone());
    webhooks.replace("life-bags-operator", &Default::default(), &written).await.unwrap();
    run(&[&turned[..], &["--set", "webhook.port=9444"]].concat());
    let after = webhooks.get("life-bags-operator").await.unwrap();
    assert_eq!(after.webhooks.unwrap()[0].client_config.ca_bundle, Some(bundle));
    // Kinds that are not marked to be kept would go with all of their objects, if they were rendered no more.
    run(&["upgrade", "life", CHART, "--values", &everything, "--set", "consumerNamespaces=null"]);
    let without = [&turned[..], &["--set", "crds.enabled=false", "--kubeconfig", kubeconfig]].concat();
    let refused = helm(&[&without[..], &["--namespace", "chart-life"]].concat());
    assert!(!refused.status.success());
    let said = words(&refused.stderr);
    assert!(said.contains("apikeys.keys.bags.fm, which is not marked to be kept"), "{said}");
    run(&turned);
    run(&[&turned[..], &["--set", "crds.enabled=false"]].concat());
    run(&[
        "upgrade",
        "life",
        CHART,
        "--values",
        &minimal,
        "--set",
        "leaderElection.enabled=false,replicaCount=1",
    ]);
    assert_eq!(strategy().await, "Recreate");
    let farewell = run(&["uninstall", "life", "--wait"]);
    assert!(farewell.contains("kept due to the resource policy"), "{farewell}");
    assert!(deployments.get_opt("life-bags-operator").await.unwrap().is_none());
    let definitions = kube::Api::<
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    >::all(client);
    for definition in api::definitions() {
        let name = definition.metadata.name.unwrap();
        assert!(definitions.get_opt(&name).await.unwrap().is_some(), "{name} is gone");
    }
}

/// The manifest in the notes.
fn suggested(notes: &str) -> &str {
    notes.split("<<END\n").nth(1).unwrap().split("\nEND\n").next().unwrap()
}

#[tokio::test]
async fn the_notes_speak_of_a_namespace_that_takes_part() {
    let _turn = RELEASE.lock().await;
    let cluster = Cluster::shared().await;
    kubectl(&cluster, &["create", "namespace", "1234"]); // or it is there
    let (kubeconfig, minimal) = (cluster.kubeconfig.to_str().unwrap(), set_file("minimal"));
    let output = helm(&[
        "--kubeconfig",
        kubeconfig,
        "--namespace",
        "chart-notes",
        "install",
        "notes",
        CHART,
        "--dry-run",
        "--values",
        &minimal,
        "--set",
        "crds.enabled=false",
        "--set-string",
        "consumerNamespaces={1234,shop}",
    ]);
    assert!(output.status.success(), "{}", words(&output.stderr));
    let output = words(&output.stdout);
    let notes = output.split("\nNOTES:\n").nth(1).unwrap();
    assert!(notes.contains("These namespaces take part: 1234, shop."), "{notes}");
    assert!(notes.contains("kubectl -n 1234 wait"), "{notes}");
    let account = &objects(suggested(notes))[0];
    assert_eq!(account["spec"]["allowed"][0]["namespaces"], serde_json::json!(["1234"]));
    let taken = apply_dry(&cluster, "chart-notes-1234", suggested(notes));
    assert_eq!(taken.lines().count(), 2, "{taken}");
}

/// Some certificate authority: that of the cluster.
fn authority(cluster: &Cluster) -> Vec<u8> {
    let kubeconfig = kube::config::Kubeconfig::read_from(&cluster.kubeconfig).unwrap();
    let data = kubeconfig.clusters[0].cluster.as_ref().unwrap().certificate_authority_data.clone();
    base64::engine::general_purpose::STANDARD.decode(data.unwrap()).unwrap()
}
