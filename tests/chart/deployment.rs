//! The Deployment and its pods: restricted, with time to end; and what others say of them, of evictions and of DNS.

use serde_json::{Value, json};

use crate::{CHART, SETS, flags::default_config, pod, template, the};

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
fn the_webhook_is_open_to_everybody_or_to_those_who_are_named() {
    let ingress = |set: &str, changes: &[&str]| {
        let objects = template(set, changes);
        the(&objects, "NetworkPolicy")["spec"]["ingress"].clone()
    };
    let webhook = json!([{"protocol": "TCP", "port": "webhook"}]);
    let open = ingress("minimal", &["networkPolicy.enabled=true"]);
    assert_eq!(open[0], json!({"ports": webhook}));
    let named = ingress("everything", &[]);
    assert_eq!(named[0], json!({"ports": webhook, "from": [{"ipBlock": {"cidr": "192.0.2.0/28"}}]}));
    assert_eq!(named.as_array().map(Vec::len), Some(2), "nothing else opens it");
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
