//! The chart as helm renders it: the rights are those of `docs/rbac.yaml` and fenced, the flags are the program's, the pod is
//! restricted, wrong values are refused in words, and a real API server takes all of it.
//!
//! helm is that of the cluster tool; the first use compiles it (a minute).
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

#[path = "chart/alerts.rs"]
mod alerts;
#[path = "chart/deployment.rs"]
mod deployment;
#[path = "chart/flags.rs"]
mod flags;
#[path = "chart/kinds.rs"]
mod kinds;
#[path = "chart/policy.rs"]
mod policy;
#[path = "chart/rights.rs"]
mod rights;
#[path = "chart/server.rs"]
mod server;
mod support;

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Output},
    sync::OnceLock,
};

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/bags-operator");
const NAMESPACE: &str = "bags-system";
/// The value sets in `ci/`.
const SETS: [&str; 3] = ["minimal", "everything", "cluster-wide"];
/// The two parts that can be off.
const BOTH: [&str; 2] = ["leaderElection.enabled=true", "webhook.enabled=true"];
const NEITHER: [&str; 3] = ["replicaCount=1", "leaderElection.enabled=false", "webhook.enabled=false"];

// ---- helm

fn helm(arguments: &[&str]) -> Output {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let tool = Path::new(ROOT).join("tests/cluster/run");
        let output = Command::new(tool).args(["which", "helm"]).output().unwrap();
        assert!(output.status.success(), "{}", words(&output.stderr));
        words(&output.stdout).trim().to_owned()
    });
    Command::new(program).args(arguments).output().unwrap()
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn set_file(set: &str) -> String {
    format!("{CHART}/ci/{set}-values.yaml")
}

/// What helm renders, or its words of refusal.
fn try_template(set: &str, changes: &[&str]) -> Result<String, String> {
    let file = set_file(set);
    let mut arguments = vec!["template", "bags-operator", CHART, "--namespace", NAMESPACE, "--values", &file];
    for change in changes {
        arguments.extend(["--set", *change]);
    }
    let output = helm(&arguments);
    if output.status.success() { Ok(words(&output.stdout)) } else { Err(words(&output.stderr)) }
}

fn template(set: &str, changes: &[&str]) -> Vec<Value> {
    let text = try_template(set, changes).unwrap_or_else(|refusal| panic!("{set}: {refusal}"));
    objects(&text)
}

fn objects(text: &str) -> Vec<Value> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    objects.into_iter().filter(|object| !object.is_null()).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn the<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "objects of kind {kind}");
    found[0]
}

fn pod(objects: &[Value]) -> &Value {
    &the(objects, "Deployment")["spec"]["template"]["spec"]
}

fn arguments(objects: &[Value]) -> Vec<&str> {
    let arguments = pod(objects)["containers"][0]["args"].as_array().unwrap();
    arguments.iter().map(|argument| argument.as_str().unwrap()).collect()
}

// ---- the chart as a whole

#[test]
fn helm_has_nothing_to_say_against_the_chart() {
    let files: Vec<_> = SETS.iter().map(|set| set_file(set)).collect();
    for values in [vec![]].into_iter().chain(files.iter().map(|file| vec!["--values", file.as_str()])) {
        let output = helm(&[&["lint", "--strict", CHART], &*values].concat());
        assert!(output.status.success(), "{}{}", words(&output.stdout), words(&output.stderr));
    }
}

#[test]
fn chart_and_program_have_one_version() {
    let chart: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(format!("{CHART}/Chart.yaml")).unwrap()).unwrap();
    for version in ["version", "appVersion"] {
        assert_eq!(chart[version], env!("CARGO_PKG_VERSION"), "{version}");
    }
}

/// The paths of the leaves; what is empty is a leaf, and a list is.
fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value.as_object().filter(|fields| !fields.is_empty()) {
        Some(fields) if path != "resources" => {
            for (name, value) in fields {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(value, &below, found);
            }
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn the_readme_has_every_value_and_no_other() {
    let values = std::fs::read_to_string(format!("{CHART}/values.yaml")).unwrap();
    let mut there = BTreeSet::new();
    leaves(&serde_saphyr::from_str(&values).unwrap(), "", &mut there);
    let readme = std::fs::read_to_string(format!("{CHART}/README.md")).unwrap();
    let table = readme.split("## Values").nth(1).unwrap();
    let said: BTreeSet<String> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(said, there);
}

#[test]
fn the_schema_leaves_no_object_of_ours_open() {
    fn walk(schema: &Value, path: &str) {
        if let Some(properties) = schema["properties"].as_object() {
            assert_eq!(schema["additionalProperties"], false, "{path} is open");
            for (name, schema) in properties {
                walk(schema, &format!("{path}.{name}"));
            }
        }
    }
    let schema = std::fs::read_to_string(format!("{CHART}/values.schema.json")).unwrap();
    walk(&serde_json::from_str(&schema).unwrap(), "");
}

#[test]
fn a_release_may_have_any_name_and_a_service_only_one_that_begins_with_a_letter() {
    let render = |release: &str, changes: &[&str]| {
        let file = set_file("minimal");
        let mut arguments = vec!["template", release, CHART, "--namespace", NAMESPACE, "--values", &file];
        arguments.extend(changes);
        let output = helm(&arguments);
        if output.status.success() { Ok(words(&output.stdout)) } else { Err(words(&output.stderr)) }
    };
    let named = ["--set", "fullnameOverride=keys"];
    for (release, changes, expected) in [
        ("keys", &[][..], "keys-bags-operator"),
        ("team.keys", &[], "team-keys-bags-operator"),
        ("2-prod", &named, "keys"),
        ("123", &named, "keys"),
    ] {
        let objects = objects(&render(release, changes).unwrap());
        let deployment = &the(&objects, "Deployment");
        assert_eq!(deployment["metadata"]["name"], expected);
        let labels = [&deployment["metadata"]["labels"], &deployment["spec"]["selector"]["matchLabels"]];
        for labels in labels {
            assert_eq!(labels["app.kubernetes.io/instance"], release);
        }
    }
    for release in ["2-prod", "123"] {
        let refusal = render(release, &[]).unwrap_err();
        assert!(refusal.contains("set fullnameOverride"), "{release}: {refusal}");
    }
}

#[test]
fn a_wrong_value_is_refused_with_its_place_and_what_would_do() {
    for (changes, expected) in [
        (&["image.repository="][..], &["image.repository", "there is no public image yet"][..]),
        (
            &["replicaCount=2", "leaderElection.enabled=false"],
            &["replicaCount", "leaderElection.enabled=true"],
        ),
        (
            &["allConsumerNamespaces=true", "consumerNamespaces={shop}"],
            &["consumerNamespaces and allConsumerNamespaces"],
        ),
        (
            &["webhook.enabled=true", "webhook.port=8080"],
            &["webhook.port and adminPort: two servers of one pod need two ports"],
        ),
        (&["crds.enabled=false", "crds.keep=false"], &["crds.enabled and crds.keep", "crds.keep=true first"]),
        (&["replicas=2"], &["additional properties 'replicas' not allowed"]),
        (&["webhook.failurePolicy=Ignore"], &["/webhook", "'failurePolicy' not allowed"]),
        (&["admissionPolicy.enabled=yes"], &["/admissionPolicy/enabled", "want boolean"]),
        (&["prometheusRule.label=x"], &["/prometheusRule", "'label' not allowed"]),
        (&["bags.url=http://bags.example/api/v1"], &["/bags/url", "^https://"]),
        (&["bags.requestsPerHour=29"], &["/bags/requestsPerHour", "minimum: got 29, want 30"]),
        (&["log.format=xml"], &["/log/format", "'text', 'json'"]),
        (&["image.digest=latest"], &["/image/digest", "sha256:"]),
        (&["image.pullPolicy=Sometimes"], &["/image/pullPolicy", "'IfNotPresent'"]),
        (&["consumerNamespaces={Shop}"], &["/consumerNamespaces/0", "does not match pattern"]),
        (&["consumerNamespaces=shop"], &["/consumerNamespaces", "want array"]),
        (&["extraArgs={-v}"], &["/extraArgs/0", "^--[a-z]"]),
        (&["adminPort=80"], &["/adminPort", "minimum: got 80, want 1,024"]),
        (&["concurrency=many"], &["/concurrency", "want integer"]),
        (
            &["terminationGracePeriodSeconds=184"],
            &["/terminationGracePeriodSeconds", "minimum: got 184, want 185"],
        ),
        (&["networkPolicy.dnsPorts={domain}"], &["/networkPolicy/dnsPorts/0", "want integer"]),
        (&["podDisruptionBudget.maxUnavailable=0"], &["/podDisruptionBudget/maxUnavailable", "minimum"]),
    ] {
        let refusal = try_template("minimal", changes).expect_err(&format!("{changes:?} is refused"));
        for word in expected {
            assert!(refusal.contains(word), "{changes:?}: \"{word}\" is not in: {refusal}");
        }
    }
}

#[test]
fn another_chart_may_depend_on_this_one() {
    template("minimal", &["global.region=north", "enabled=true"]);
}

#[test]
fn every_object_carries_the_common_labels_and_lies_in_the_namespace_of_the_release() {
    for set in SETS {
        let objects = template(set, &[]);
        for object in &objects {
            let name = format!("{set}: {} {}", object["kind"], object["metadata"]["name"]);
            let labels = &object["metadata"]["labels"];
            assert_eq!(labels["app.kubernetes.io/name"], "bags-operator", "{name}");
            assert_eq!(labels["app.kubernetes.io/instance"], "bags-operator", "{name}");
            assert_eq!(labels["app.kubernetes.io/managed-by"], "Helm", "{name}");
            let cluster_wide = [
                "ClusterRole",
                "ClusterRoleBinding",
                "CustomResourceDefinition",
                "ValidatingAdmissionPolicy",
                "ValidatingAdmissionPolicyBinding",
                "ValidatingWebhookConfiguration",
            ];
            let namespace = &object["metadata"]["namespace"];
            if cluster_wide.contains(&object["kind"].as_str().unwrap()) {
                assert!(namespace.is_null(), "{name}");
            } else if is_binding_elsewhere(object) {
                assert!(["shop", "1234"].contains(&namespace.as_str().unwrap()), "{name}");
            } else {
                assert_eq!(namespace, NAMESPACE, "{name}");
            }
        }
    }
}

fn is_binding_elsewhere(object: &Value) -> bool {
    object["kind"] == "RoleBinding" && object["roleRef"]["kind"] == "ClusterRole"
}

#[test]
fn a_name_of_ones_own_goes_before_that_of_the_release() {
    let names = |changes: &[&str]| {
        let objects = template("minimal", changes);
        the(&objects, "Deployment")["metadata"]["name"].as_str().unwrap().to_owned()
    };
    assert_eq!(names(&[]), "bags-operator");
    assert_eq!(names(&["nameOverride=keys"]), "bags-operator-keys");
    assert_eq!(names(&["fullnameOverride=keys"]), "keys");
}
