//! The chart as helm renders it: the rights are those of `docs/rbac.yaml`, the flags are the program's, the pod is
//! restricted, wrong values are refused in words, and a real API server takes all of it.
//!
//! helm is that of the cluster tool; the first use compiles it (a minute).
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Command, Output},
    sync::OnceLock,
};

use bags_operator::{
    api,
    config::{Cli, Command as Subcommand, Config, LogFormat},
};
use base64::Engine;
use clap::{CommandFactory, Parser};
use serde_json::{Value, json};
use support::Cluster;

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
        (&["replicas=2"], &["additional properties 'replicas' not allowed"]),
        (&["webhook.failurePolicy=Ignore"], &["/webhook", "'failurePolicy' not allowed"]),
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

// ---- rights

/// What is allowed: roles and bindings by kind, namespace and name, without labels.
fn rights(objects: &[Value]) -> BTreeMap<String, Value> {
    let roles = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
    let of = objects.iter().filter(|object| roles.contains(&object["kind"].as_str().unwrap()));
    of.map(|object| {
        let metadata = &object["metadata"];
        let place = metadata["namespace"].as_str().unwrap_or("-");
        let name =
            format!("{} {place} {}", object["kind"].as_str().unwrap(), metadata["name"].as_str().unwrap());
        let mut said = object.clone();
        said.as_object_mut().unwrap().remove("metadata");
        (name, said)
    })
    .collect()
}

#[test]
fn the_rights_are_those_of_docs_rbac_yaml() {
    let documented = objects(&std::fs::read_to_string(format!("{ROOT}/docs/rbac.yaml")).unwrap());
    let rendered = template("minimal", &[]);
    assert_eq!(rights(&rendered), rights(&documented));
    let account = |objects: &[Value]| the(objects, "ServiceAccount")["metadata"]["name"].clone();
    assert_eq!(account(&rendered), account(&documented));
    assert_eq!(pod(&rendered)["serviceAccountName"], account(&documented));
}

#[test]
fn leader_election_and_the_webhook_add_their_rights_and_no_other() {
    let off = rights(&template("minimal", &NEITHER));
    let on = rights(&template("minimal", &BOTH));
    let added = |name: &str| {
        let rules = |rights: &BTreeMap<String, Value>| rights[name]["rules"].as_array().unwrap().clone();
        let (before, after) = (rules(&off), rules(&on));
        assert_eq!(after[..before.len()], before);
        after[before.len()..].to_vec()
    };
    assert_eq!(
        added("Role bags-system bags-operator"),
        [
            json!({
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": ["bags-operator"],
                "verbs": ["get", "update"],
            }),
            json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]}),
        ]
    );
    assert_eq!(
        added("ClusterRole - bags-operator"),
        [json!({
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["validatingwebhookconfigurations"],
            "resourceNames": ["bags-operator"],
            "verbs": ["get", "list", "watch", "update"],
        })]
    );
    let mut rest = on.clone();
    for name in ["Role bags-system bags-operator", "ClusterRole - bags-operator"] {
        rest.insert(name.to_owned(), off[name].clone());
    }
    assert_eq!(rest, off);
}

#[test]
fn secrets_elsewhere_may_be_had_only_where_a_binding_says_so() {
    let bindings = |set: &str| -> Vec<String> {
        let all = rights(&template(set, &[]));
        all.into_iter()
            .filter(|(_, said)| {
                said["roleRef"]["name"].as_str().is_some_and(|role| role.ends_with("-consumers"))
            })
            .map(|(name, _)| name)
            .collect()
    };
    assert_eq!(bindings("minimal"), Vec::<String>::new());
    assert_eq!(
        bindings("everything"),
        ["RoleBinding 1234 bags-operator-consumers", "RoleBinding shop bags-operator-consumers"]
    );
    assert_eq!(bindings("cluster-wide"), ["ClusterRoleBinding - keys-consumers"]);
    for (name, said) in rights(&template("everything", &[])) {
        if let Some(subjects) = said["subjects"].as_array() {
            let expected = [json!({"kind": "ServiceAccount", "name": "bags", "namespace": NAMESPACE})];
            assert_eq!(subjects[..], expected, "{name}");
        }
    }
}

// ---- the pod

#[test]
fn the_pod_is_restricted() {
    for set in SETS {
        let objects = template(set, &[]);
        let pod = pod(&objects);
        let context = &pod["securityContext"];
        assert_eq!(context["runAsNonRoot"], true);
        assert_eq!(context["seccompProfile"], json!({"type": "RuntimeDefault"}));
        let who = (&context["runAsUser"], &context["runAsGroup"]);
        match set {
            "everything" => assert_eq!(who, (&json!(1000), &Value::Null)),
            _ => assert_eq!(who, (&json!(65532), &json!(65532))),
        }
        assert_eq!(
            pod["containers"][0]["securityContext"],
            json!({
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            })
        );
        assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
        assert_eq!(pod["enableServiceLinks"], false);
        for host in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod[host].is_null(), "{host}");
        }
        let probe = |name: &str| pod["containers"][0][name]["httpGet"].clone();
        assert_eq!(probe("livenessProbe"), json!({"path": "/livez", "port": "admin"}));
        assert_eq!(probe("readinessProbe"), json!({"path": "/readyz", "port": "admin"}));
    }
}

#[test]
fn the_user_is_the_cluster_s_where_no_value_names_one() {
    let context = |flags: &[&str]| pod(&template("minimal", flags))["securityContext"].clone();
    let profile = json!({"type": "RuntimeDefault"});
    let none = ["runAsUser=null", "runAsGroup=null"];
    assert_eq!(context(&none), json!({"runAsNonRoot": true, "seccompProfile": profile}));
}

#[test]
fn the_configuration_of_the_webhook_is_annotated_as_the_values_say() {
    let annotations = |set: &str| {
        the(&template(set, &[]), "ValidatingWebhookConfiguration")["metadata"]["annotations"].clone()
    };
    assert_eq!(annotations("everything"), json!({"admissions.enforcer/disabled": "true"}));
    assert!(annotations("minimal").is_null());
}

#[test]
fn without_leader_election_an_upgrade_has_never_two_pods_at_a_time() {
    let strategy = |change: &str| {
        let objects = template("minimal", &["replicaCount=1", change]);
        the(&objects, "Deployment")["spec"]["strategy"].clone()
    };
    assert_eq!(strategy("leaderElection.enabled=false"), json!({"type": "Recreate", "rollingUpdate": null}));
    assert_eq!(strategy("leaderElection.enabled=true"), json!({"type": "RollingUpdate"}));
}

#[test]
fn a_value_just_shown_has_the_time_to_be_saved() {
    let objects = template("minimal", &[]);
    let granted = pod(&objects)["terminationGracePeriodSeconds"].as_u64().unwrap();
    let needed = default_config().timings.save_deadline.as_secs() + 5;
    assert!(granted >= needed, "{granted} s");
    let schema = std::fs::read_to_string(format!("{CHART}/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["properties"]["terminationGracePeriodSeconds"]["minimum"], json!(needed));
}

#[test]
fn a_pod_that_is_not_ready_is_called_no_more_at_once_and_keeps_no_node_from_being_drained() {
    let objects = template("minimal", &[]);
    assert_eq!(pod(&objects)["containers"][0]["readinessProbe"]["failureThreshold"], json!(1));
    let budget = the(&objects, "PodDisruptionBudget");
    assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], json!("AlwaysAllow"));
}

#[test]
fn dns_is_asked_at_the_ports_of_its_pods() {
    let asked = |set: &str, changes: &[&str]| {
        let objects = template(set, changes);
        the(&objects, "NetworkPolicy")["spec"]["egress"][0]["ports"].clone()
    };
    let both =
        |port: u16| [json!({"protocol": "UDP", "port": port}), json!({"protocol": "TCP", "port": port})];
    assert_eq!(asked("minimal", &["networkPolicy.enabled=true"]), json!(both(53)));
    assert_eq!(asked("everything", &[]), json!([both(53), both(5353)].concat()));
}

#[test]
fn the_image_is_named_by_digest_before_tag_and_tag_before_version() {
    let image = |changes: &[&str]| {
        let objects = template("minimal", changes);
        pod(&objects)["containers"][0]["image"].as_str().unwrap().to_owned()
    };
    let repository = "registry.example/bags-operator";
    assert_eq!(image(&[]), format!("{repository}:{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(image(&["image.tag=next"]), format!("{repository}:next"));
    let digest = format!("sha256:{}", "0a".repeat(32));
    assert_eq!(
        image(&["image.tag=next", &format!("image.digest={digest}")]),
        format!("{repository}@{digest}")
    );
}

#[test]
fn a_spread_constraint_without_selector_gets_that_of_the_pods() {
    let selectors = |set: &str| -> Vec<Value> {
        let objects = template(set, &[]);
        let constraints = pod(&objects)["topologySpreadConstraints"].as_array().cloned().unwrap_or_default();
        constraints.iter().map(|constraint| constraint["labelSelector"]["matchLabels"].clone()).collect()
    };
    let ours = json!({
        "app.kubernetes.io/name": "bags-operator", "app.kubernetes.io/instance": "bags-operator",
    });
    assert_eq!(selectors("minimal"), std::slice::from_ref(&ours));
    assert_eq!(selectors("everything"), [ours, json!({"app.kubernetes.io/name": "bags-operator"})]);
    assert_eq!(selectors("cluster-wide"), [] as [Value; 0]);
}

// ---- flags

fn parse(arguments: &[&str]) -> Result<Config, clap::Error> {
    // What the pod has in its environment.
    let given = ["--namespace=bags-system", "--instance=bags-operator"];
    let line = ["bags-operator"].iter().chain(arguments).chain(&given);
    let Subcommand::Run(arguments) = Cli::try_parse_from(line)?.command;
    Ok(Config::try_from(*arguments).unwrap())
}

fn default_config() -> Config {
    parse(&["run"]).unwrap()
}

#[test]
fn the_program_takes_every_flag_and_without_a_value_changed_they_change_nothing() {
    for set in ["minimal", "cluster-wide"] {
        let config = parse(&arguments(&template(set, &[]))).unwrap();
        let webhook =
            config.webhook.clone().expect("the chart has a webhook, the program by itself has none");
        assert_eq!(Config { webhook: None, ..config }, default_config());
        let least = parse(&["run", "--webhook-listen=0.0.0.0:8443", "--webhook-hosts=localhost"]).unwrap();
        assert_eq!(webhook.lives, least.webhook.unwrap().lives);
    }
}

#[test]
fn each_value_arrives_at_the_program() {
    let objects = template("everything", &[]);
    let config = parse(&arguments(&objects)).unwrap();
    assert_eq!(config.bags_url.as_str(), "https://bags.example/api/v1");
    assert_eq!(config.consumer_bags_url, "http://bags-proxy.example/api/v1");
    assert_eq!(config.request_deadline.as_secs(), 60);
    assert_eq!(config.requests_per_hour, 4_000_000);
    assert_eq!(config.bags_ca_file.as_deref(), Some(Path::new("/etc/bags-operator/ca/bundle.pem")));
    assert_eq!((config.concurrency, config.log_format), (64, LogFormat::Json));
    assert_eq!(config.log_filter, "info,bags_operator=debug");
    assert_eq!(config.admin_listen, "[::]:9090".parse().unwrap());
    assert_eq!(config.timings.resync.as_secs(), 300);
    assert!(config.leader.is_some());
    let webhook = config.webhook.unwrap();
    assert_eq!(webhook.listen, "[::]:9443".parse().unwrap());
    assert_eq!(webhook.hosts, ["bags-operator-webhook.bags-system.svc"]);
    assert_eq!(webhook.configuration.as_deref(), Some("bags-operator"));
    let pod = pod(&objects);
    let container = &pod["containers"][0];
    assert_eq!(
        container["ports"],
        json!([{"name": "admin", "containerPort": 9090}, {"name": "webhook", "containerPort": 9443}])
    );
    assert_eq!(container["volumeMounts"][0]["mountPath"], "/etc/bags-operator/ca");
    assert_eq!(pod["volumes"], json!([{"name": "ca", "configMap": {"name": "company-ca"}}]));
}

#[test]
fn the_program_reads_the_variables_of_the_pod() {
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    let known: BTreeSet<_> =
        run.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    let objects = template("everything", &[]);
    let given = pod(&objects)["containers"][0]["env"].as_array().unwrap();
    let names: Vec<_> = given.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["POD_NAMESPACE", "POD_NAME", "BAGS_TIMING_LIMIT_RECHECK"]);
    assert!(names.iter().all(|name| known.contains(name)), "{known:?}");
}

// ---- kinds, webhook

#[test]
fn the_kinds_are_those_of_the_code_and_are_kept_unless_one_says_otherwise() {
    for (set, keep) in [("minimal", json!("keep")), ("everything", Value::Null)] {
        let objects = template(set, &[]);
        let rendered: Vec<_> = of_kind(&objects, "CustomResourceDefinition");
        let mut specs = BTreeMap::new();
        for definition in rendered {
            let metadata = &definition["metadata"];
            assert_eq!(metadata["annotations"]["helm.sh/resource-policy"], keep, "{set}");
            specs.insert(metadata["name"].as_str().unwrap().to_owned(), definition["spec"].clone());
        }
        let expected = api::definitions().into_iter().map(|definition| {
            let spec = serde_json::to_value(&definition.spec).unwrap();
            (definition.metadata.name.unwrap(), spec)
        });
        assert_eq!(specs, expected.collect(), "{set}");
    }
    assert!(of_kind(&template("cluster-wide", &[]), "CustomResourceDefinition").is_empty());
}

#[test]
fn the_webhook_judges_new_api_keys_and_nothing_else() {
    let objects = template("everything", &[]);
    let configuration = the(&objects, "ValidatingWebhookConfiguration");
    assert_eq!(
        configuration["webhooks"],
        json!([{
            "name": "apikeys.keys.bags.fm",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {
                "name": "bags-operator-webhook", "namespace": NAMESPACE, "path": "/admit", "port": 443,
            }},
            "rules": [{
                "apiGroups": ["keys.bags.fm"], "apiVersions": ["v1alpha1"], "resources": ["apikeys"],
                "operations": ["CREATE"], "scope": "Namespaced",
            }],
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "sideEffects": "NoneOnDryRun",
            "timeoutSeconds": 5,
        }]),
        "no caBundle above all: it is the operator's"
    );
    let service = the(&objects, "Service");
    assert_eq!(service["metadata"]["name"], "bags-operator-webhook");
    assert_eq!(service["spec"]["ports"], json!([{"name": "webhook", "port": 443, "targetPort": "webhook"}]));
    let labels = &the(&objects, "Deployment")["spec"]["template"]["metadata"]["labels"];
    for (label, value) in service["spec"]["selector"].as_object().unwrap() {
        assert_eq!(&labels[label], value);
    }
    let without = template("minimal", &["webhook.enabled=false"]);
    assert!(of_kind(&without, "Service").is_empty());
    assert!(of_kind(&without, "ValidatingWebhookConfiguration").is_empty());
}

// ---- a real API server

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

fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Output {
    let mut command = Command::new(&cluster.kubectl);
    command.arg("--kubeconfig").arg(&cluster.kubeconfig).args(arguments).output().unwrap()
}

/// What the server says of each object; none is stored.
fn apply_dry(cluster: &Cluster, name: &str, text: &str) -> String {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.yaml"));
    std::fs::write(&file, text).unwrap();
    let output = kubectl(cluster, &["apply", "--dry-run=server", "--filename", file.to_str().unwrap()]);
    assert!(output.status.success(), "{name}: {}", words(&output.stderr));
    words(&output.stdout)
}

#[tokio::test]
async fn a_release_goes_through_its_life_and_leaves_the_kinds() {
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
    let suggested = notes.split("<<END\n").nth(1).unwrap().split("\nEND\n").next().unwrap();
    kubectl(&cluster, &["create", "namespace", "shop"]); // or it is there
    apply_dry(&cluster, "chart-notes", suggested);
    assert_eq!(strategy().await, "Recreate");
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
    assert_eq!(strategy().await, "RollingUpdate");
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

/// Some certificate authority: that of the cluster.
fn authority(cluster: &Cluster) -> Vec<u8> {
    let kubeconfig = kube::config::Kubeconfig::read_from(&cluster.kubeconfig).unwrap();
    let data = kubeconfig.clusters[0].cluster.as_ref().unwrap().certificate_authority_data.clone();
    base64::engine::general_purpose::STANDARD.decode(data.unwrap()).unwrap()
}
