//! The fence around the operator's own account: what the program writes is let through, and nothing else that its rights
//! would allow.

use std::{fmt::Debug, time::Duration};

use bags_operator::{
    api::{ApiKey, account::Slot, mark},
    bags::KeyValue,
    consumer_secret::{ConsumerSecret, Desired, Found},
    workload::{self, WorkloadKind, WorkloadRef},
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        admissionregistration::v1::ValidatingAdmissionPolicy,
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        core::v1::Secret,
    },
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    CHART, NAMESPACE, SETS, helm, of_kind,
    server::{kubectl, written},
    set_file,
    support::Cluster,
    template, words,
};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn each_policy_is_of_the_operator_s_account_is_bound_and_knows_the_marks_of_the_code() {
    let (workloads, secrets) = (mark::RESTART_MARK_PREFIX, mark::OWNER_UID);
    for (set, account) in [("minimal", "bags-operator"), ("everything", "bags")] {
        let objects = template(set, &[]);
        let bindings = of_kind(&objects, "ValidatingAdmissionPolicyBinding");
        let policies = of_kind(&objects, "ValidatingAdmissionPolicy");
        assert_eq!((policies.len(), bindings.len()), (2, 2), "{set}");
        for (policy, (name, mark)) in policies.iter().zip([("workloads", workloads), ("secrets", secrets)]) {
            let name = format!("bags-operator-{name}");
            assert_eq!(policy["metadata"]["name"], name.as_str());
            let spec = &policy["spec"];
            assert_eq!(spec["failurePolicy"], "Fail", "{name}");
            let user = format!("request.userInfo.username == 'system:serviceaccount:{NAMESPACE}:{account}'");
            assert_eq!(spec["matchConditions"], json!([{"name": "the-operator", "expression": user}]));
            assert!(spec.to_string().contains(&format!("'{mark}'")), "{name}: {spec}");
            let bound = bindings.iter().find(|binding| binding["metadata"]["name"] == name.as_str()).unwrap();
            assert_eq!(bound["spec"], json!({"policyName": name, "validationActions": ["Deny"]}));
        }
    }
    for set in SETS {
        let objects = template(set, &["admissionPolicy.enabled=false"]);
        for kind in ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"] {
            assert!(of_kind(&objects, kind).is_empty(), "{set}: {kind}");
        }
    }
}

/// An account with the rights that the chart gives to the operator, behind its policies, and a namespace that takes part.
struct Fence {
    cluster: Cluster,
    admin: Client,
    operator: Client,
    /// The operator's namespace, and the name of all that the chart has made.
    own: String,
    theirs: String,
    file: String,
}

impl Fence {
    async fn new() -> Self {
        let cluster = Cluster::shared().await;
        let admin = cluster.client().await;
        let own = cluster.namespace(&admin, "fence-own").await;
        let theirs = cluster.namespace(&admin, "fence").await;
        let (values, changes) =
            (set_file("minimal"), format!("fullnameOverride={own},consumerNamespaces={{{theirs}}}"));
        let rendered = helm(&[
            "template",
            "fence",
            CHART,
            "--namespace",
            &own,
            "--values",
            &values,
            "--set",
            &changes,
            "--show-only",
            "templates/rbac.yaml",
            "--show-only",
            "templates/admissionpolicy.yaml",
        ]);
        assert!(rendered.status.success(), "{}", words(&rendered.stderr));
        let file = written(&own, &words(&rendered.stdout));
        let applied = kubectl(&cluster, &["apply", "--filename", &file]);
        assert!(applied.status.success(), "{}", words(&applied.stderr));
        let operator = client_of(&cluster, &format!("system:serviceaccount:{own}:{own}")).await;
        Self { cluster, admin, operator, own, theirs, file }
    }

    /// What whoever is not fenced sees of the namespace.
    fn freely<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.admin.clone(), &self.theirs)
    }

    /// The same as the operator's account.
    fn fenced<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.operator.clone(), &self.theirs)
    }

    /// The words of a refusal by this policy.
    fn refusal(&self, policy: &str) -> String {
        format!("ValidatingAdmissionPolicy '{}-{policy}'", self.own)
    }

    /// What the API server has against the policy's expressions, once it has looked at them.
    async fn warnings(&self, policy: &str) -> Value {
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(self.admin.clone());
        let name = format!("{}-{policy}", self.own);
        let mut pause = tokio::time::interval(Duration::from_millis(100));
        let looked_at = async {
            loop {
                pause.tick().await;
                let policy = serde_json::to_value(policies.get(&name).await.unwrap()).unwrap();
                if !policy["status"]["observedGeneration"].is_null() {
                    return policy["status"]["typeChecking"]["expressionWarnings"].clone();
                }
            }
        };
        tokio::time::timeout(LIMIT, looked_at).await.expect("the policy is looked at")
    }

    /// Takes the policies and the rights away again; the namespaces stay, as the cluster does.
    fn end(self) {
        let gone = kubectl(&self.cluster, &["delete", "--wait=false", "--filename", &self.file]);
        assert!(gone.status.success(), "{}", words(&gone.stderr));
    }
}

/// A client of this user, with no more rights than are bound to that name.
async fn client_of(cluster: &Cluster, user: &str) -> Client {
    let mut kubeconfig = Kubeconfig::read_from(&cluster.kubeconfig).unwrap();
    for info in kubeconfig.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
        info.impersonate = Some(user.to_owned());
    }
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// Tries until it is refused in these words: a policy that was just made is in force a moment later, and so are rights.
async fn until_refused<T>(words: &str, attempt: impl AsyncFn() -> Result<T, kube::Error>) {
    let mut pause = tokio::time::interval(Duration::from_millis(100));
    let refused = async {
        loop {
            pause.tick().await;
            match attempt().await {
                Err(error) if error.to_string().contains(words) => return,
                Ok(_) | Err(_) => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, refused).await.expect("the policy is in force");
}

fn template_of_pods() -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}, "annotations": {"theirs": "kept"}},
        "spec": {"automountServiceAccountToken": false, "containers": [{
            "name": "app", "image": "example.com/app:1", "resources": {"requests": {"cpu": "0.5", "memory": "64Mi"}},
            "envFrom": [{"secretRef": {"name": "web"}}], "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        }], "volumes": [{"name": "scratch", "emptyDir": {}}]},
    })
}

/// Changes of a workload of which each must be refused.
fn changes() -> Vec<(&'static str, Value)> {
    let pods = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    let about = |metadata: Value| json!({"spec": {"template": {"metadata": metadata}}});
    let marked = |mut change: Value| {
        let mark = format!("{}web", mark::RESTART_MARK_PREFIX);
        change["spec"]["template"]["metadata"]["annotations"][mark] = json!("uid-0-7");
        change
    };
    let image = pods(json!({"containers": [{"name": "app", "image": "example.com/other:1"}]}));
    let env = json!([{"name": "LD_PRELOAD", "value": "/scratch/it.so"}]);
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "none", "uid": "uid-of-none"});
    vec![
        ("an image", image.clone()),
        ("an image beside the mark", marked(image)),
        (
            "a variable",
            pods(json!({"containers": [{"name": "app", "image": "example.com/app:1", "env": env}]})),
        ),
        ("an account", pods(json!({"serviceAccountName": "another"}))),
        ("a label of the pods", about(json!({"labels": {"another": "one"}}))),
        ("an annotation of the pods", about(json!({"annotations": {"another": "one"}}))),
        ("an annotation that goes", about(json!({"annotations": {"theirs": null}}))),
        ("a field of the workload", json!({"spec": {"minReadySeconds": 3}})),
        ("a finalizer", json!({"metadata": {"finalizers": ["example.com/held"]}})),
        (
            "a way back to an older template",
            json!({"metadata": {"annotations": {"deprecated.deployment.rollback.to": "0"}}}),
        ),
        ("an owner", json!({"metadata": {"ownerReferences": [owner]}})),
    ]
}

/// A workload of this kind takes the operator's marks, and no other change.
async fn a_workload<K>(fence: &Fence, kind: WorkloadKind, spec: Value)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize,
{
    let workload: K = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
    let made = fence.freely::<K>().create(&PostParams::default(), &workload).await.unwrap();
    let (fenced, refusal) = (fence.fenced::<K>(), fence.refusal("workloads"));
    let tried = PatchParams { dry_run: true, ..PatchParams::default() };
    for (what, change) in changes() {
        // The first one may come before the policy is in force.
        until_refused(&refusal, async || fenced.patch("web", &tried, &Patch::Merge(&change)).await).await;
        let error = fenced.patch("web", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap_err();
        assert!(error.to_string().contains(&refusal), "{}: {what}: {error}", kind.as_str());
    }
    let reference = WorkloadRef { kind, name: "web".to_owned(), uid: made.uid().unwrap() };
    for value in ["uid-0-1", "uid-0-2"] {
        for api_key in ["web", "another"] {
            set_mark(fence, &reference, api_key, value).await;
        }
    }
    let after = serde_json::to_value(fence.freely::<K>().get("web").await.unwrap()).unwrap();
    let mark = |api_key: &str| format!("{}{api_key}", mark::RESTART_MARK_PREFIX);
    let expected = json!({"theirs": "kept", mark("web"): "uid-0-2", mark("another"): "uid-0-2"});
    assert_eq!(after["spec"]["template"]["metadata"]["annotations"], expected, "{}", kind.as_str());
    // Nobody else is held up.
    let (_, change) = changes().remove(0);
    fence.freely::<K>().patch("web", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
}

/// As the program does it. The workload's own controller may be quicker with a write of its own.
async fn set_mark(fence: &Fence, reference: &WorkloadRef, api_key: &str, value: &str) {
    loop {
        let read = workload::owner::read(fence.operator.clone(), &fence.theirs, reference).await;
        let workload = read.unwrap().expect("it is there");
        match workload::mark(fence.operator.clone(), &fence.theirs, &workload, api_key, value).await {
            Ok(()) => return,
            Err(error) if error.is_conflict() => {}
            Err(error) => panic!("{reference}: {error}"),
        }
    }
}

#[tokio::test]
async fn of_a_workload_the_operator_may_set_its_mark_and_change_nothing_else() {
    let fence = Fence::new().await;
    let selector = json!({"matchLabels": {"app": "web"}});
    let pods = template_of_pods();
    let claim = json!({
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    a_workload::<Deployment>(
        &fence,
        WorkloadKind::Deployment,
        json!({"replicas": 0, "selector": selector, "template": pods}),
    )
    .await;
    a_workload::<StatefulSet>(
        &fence,
        WorkloadKind::StatefulSet,
        json!({
            "replicas": 0, "serviceName": "web", "selector": selector, "template": pods,
            "volumeClaimTemplates": [claim],
        }),
    )
    .await;
    // The API server counts its templates in an annotation, which a mark changes as well.
    a_workload::<DaemonSet>(&fence, WorkloadKind::DaemonSet, json!({"selector": selector, "template": pods}))
        .await;
    assert_eq!(fence.warnings("workloads").await, Value::Null);
    fence.end();
}

fn secret(metadata: Value) -> Secret {
    serde_json::from_value(json!({"metadata": metadata, "stringData": {"it": "theirs"}})).unwrap()
}

#[tokio::test]
async fn of_secrets_elsewhere_the_operator_may_write_and_remove_its_own_and_no_other() {
    let fence = Fence::new().await;
    let (freely, fenced) = (fence.freely::<Secret>(), fence.fenced::<Secret>());
    let options = PostParams::default();
    let tried = PostParams { dry_run: true, ..PostParams::default() };
    let refusal = fence.refusal("secrets");
    let refused = |what: &str, outcome: Result<(), kube::Error>| {
        let error = outcome.expect_err(what).to_string();
        assert!(error.contains(&refusal), "{what}: {error}");
    };
    until_refused(&refusal, async || fenced.create(&tried, &secret(json!({"name": "unmarked"}))).await).await;

    // All that the program writes, by its own code.
    let key: ApiKey = serde_json::from_value(json!({
        "apiVersion": "keys.bags.fm/v1alpha1", "kind": "ApiKey",
        "metadata": {"name": "web", "namespace": fence.theirs, "uid": "uid-0"},
        "spec": {"accountRef": {"name": "main"}, "environment": "production", "secret": {"labels": {"team": "web"}}},
    }))
    .unwrap();
    let slot: Slot = serde_json::from_value(json!({
        "owner": {"namespace": fence.theirs, "name": "web", "uid": "uid-0"}, "use": "production/web", "revision": 1,
        "state": "Live", "attempt": "attempt0", "published": 1, "since": "2026-11-03T09:30:00Z",
    }))
    .unwrap();
    let (first, second) =
        (KeyValue::parse(b"value-one-for-tests").unwrap(), KeyValue::parse(b"value-two-for-tests").unwrap());
    let consumer = ConsumerSecret::of(fence.operator.clone(), &key);
    let desired = |value| Desired { key: &key, slot: &slot, value, base_url: "https://bags.example/api/v1" };
    consumer.dry_run(&key, None).await.unwrap();
    consumer.write(&Found::Missing, &desired(&first)).await.unwrap().expect("it is made");
    let found = consumer.find(1).await.unwrap();
    consumer.dry_run(&key, Some(&found)).await.unwrap();
    consumer.write(&found, &desired(&second)).await.unwrap().expect("it is written again");

    let foreign = freely.create(&options, &secret(json!({"name": "foreign"}))).await.unwrap();
    let ours = freely.get("web").await.unwrap();
    let marked = |mut secret: Secret, uid: &str| {
        secret.labels_mut().insert(mark::OWNER_UID.to_owned(), uid.to_owned());
        secret
    };
    let token: Secret = serde_json::from_value(json!({
        "metadata": {"name": "token", "annotations": {"kubernetes.io/service-account.name": "default"}},
        "type": "kubernetes.io/service-account-token",
    }))
    .unwrap();
    let mut stripped = ours.clone();
    stripped.labels_mut().remove(mark::OWNER_UID);
    let unmarked = secret(json!({"name": "unmarked"}));
    refused("one without the mark", fenced.create(&options, &unmarked).await.map(drop));
    refused("a token", fenced.create(&options, &marked(token, "uid-0")).await.map(drop));
    let mut edited = foreign.clone();
    edited.string_data = Some([("it".to_owned(), "edited".to_owned())].into());
    refused("an edit", fenced.replace("foreign", &options, &edited).await.map(drop));
    refused("one taken over", fenced.replace("foreign", &options, &marked(foreign, "uid-0")).await.map(drop));
    refused("one let go", fenced.replace("web", &options, &stripped).await.map(drop));
    let passed_on = marked(ours, "uid-1");
    refused("one passed on", fenced.replace("web", &options, &passed_on).await.map(drop));
    refused("a removal", fenced.delete("foreign", &DeleteParams::default()).await.map(drop));

    consumer.remove().await.unwrap();
    assert!(freely.get_opt("web").await.unwrap().is_none());
    // In its own namespace it keeps what it needs, and nobody else is held up anywhere.
    let own: Api<Secret> = Api::namespaced(fence.operator.clone(), &fence.own);
    own.create(&options, &unmarked).await.unwrap();
    freely.create(&options, &unmarked).await.unwrap();
    freely.delete("foreign", &DeleteParams::default()).await.unwrap();
    assert_eq!(fence.warnings("secrets").await, Value::Null);
    fence.end();
}
