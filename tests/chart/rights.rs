//! Rights: those of `docs/rbac.yaml`, and those that a value adds.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{BOTH, CHART, NAMESPACE, NEITHER, ROOT, objects, of_kind, pod, template, the};

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
fn the_readme_says_to_scale_to_zero_before_a_name_changes() {
    let readme = std::fs::read_to_string(format!("{CHART}/README.md")).unwrap().replace('\n', " ");
    let (_, said) = readme.split_once("  From `leaderElection.enabled: false`").unwrap();
    let (said, _) = said.split_once("  ```").unwrap();
    assert!(said.contains("scale to 0 as well") && said.contains("lose their rights"), "{said}");
    let [by_helm, by_kubectl] = ["--set replicaCount=0", "scale deployment"].map(|how| readme.contains(how));
    assert!(
        by_helm && !by_kubectl,
        "what kubectl scales, an upgrade with server-side apply does not scale back"
    );
    let who_may = |changes: &[&str]| -> BTreeSet<String> {
        let all = rights(&template("minimal", changes));
        all.values().filter_map(|said| said["subjects"][0]["name"].as_str().map(str::to_owned)).collect()
    };
    let before = who_may(&[]);
    for value in ["serviceAccount.name", "nameOverride", "fullnameOverride"] {
        let changed = format!("{value}=keys");
        assert!(before.is_disjoint(&who_may(&[changed.as_str()])), "{value}");
        assert!(said.contains(&format!("`{value}`")), "{value}: {said}");
    }
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

#[test]
fn who_may_edit_or_view_a_namespace_may_do_so_with_api_keys_only_where_a_value_says_so() {
    let roles = |objects: &[Value]| -> Vec<Value> {
        let roles = of_kind(objects, "ClusterRole").into_iter();
        let of_tenants = |role: &&Value| role["metadata"]["name"].as_str().unwrap().contains("-apikeys-");
        roles.filter(of_tenants).cloned().collect()
    };
    for set in ["minimal", "cluster-wide"] {
        assert_eq!(roles(&template(set, &[])), [] as [Value; 0], "{set}");
    }
    assert_eq!(roles(&template("everything", &[])).len(), 2);
    for (value, of, verbs) in [
        (
            "rbac.aggregateToEdit=true",
            "edit",
            json!(["get", "list", "watch", "create", "update", "patch", "delete"]),
        ),
        ("rbac.aggregateToView=true", "view", json!(["get", "list", "watch"])),
    ] {
        let found = roles(&template("minimal", &[value]));
        assert_eq!(found.len(), 1, "{value}");
        assert_eq!(found[0]["metadata"]["name"], format!("bags-operator-apikeys-{of}"));
        let rule = json!({"apiGroups": ["keys.bags.fm"], "resources": ["apikeys"], "verbs": verbs});
        assert_eq!(found[0]["rules"], json!([rule]), "neither a status nor an account");
        let labels = found[0]["metadata"]["labels"].as_object().unwrap();
        let aggregated: Vec<_> = labels.iter().filter(|(label, _)| label.contains("aggregate")).collect();
        let expected = format!("rbac.authorization.k8s.io/aggregate-to-{of}");
        assert_eq!(aggregated, [(&expected, &json!("true"))]);
    }
}
