//! What a policy of the cluster refuses is found out before a key is made, and told to whoever can lift it.

use bags_operator::{
    api::{ApiKey, mark},
    sandbox::UserOptions,
};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::Secret,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    support::{
        scene::{LIMIT, Scene, Way, condition, holds, says},
        world::World,
    },
    trouble::Trouble,
};

const NAME: &str = "web-dashboard";

/// A policy about Secrets of one namespace, of the scene's name.
struct Policy<'s> {
    scene: &'s Scene<'s>,
}

impl<'s> Policy<'s> {
    async fn new(scene: &'s Scene<'s>, namespace: &str, operation: &str, rule: Value) -> Self {
        let secrets = json!({
            "apiGroups": [""], "apiVersions": ["v1"], "operations": [operation], "resources": ["secrets"],
        });
        let mut spec = json!({"matchConstraints": {"resourceRules": [secrets]}});
        spec.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        let here = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}});
        let policy = json!({"metadata": {"name": scene.name}, "spec": spec});
        let binding = json!({
            "metadata": {"name": scene.name},
            "spec": {"policyName": scene.name, "validationActions": ["Deny"], "matchResources": here},
        });
        let this = Self { scene };
        let options = PostParams::default();
        this.policies().create(&options, &serde_json::from_value(policy).unwrap()).await.unwrap();
        this.bindings().create(&options, &serde_json::from_value(binding).unwrap()).await.unwrap();
        this
    }

    fn policies(&self) -> Api<ValidatingAdmissionPolicy> {
        Api::all(self.scene.client.clone())
    }

    fn bindings(&self) -> Api<ValidatingAdmissionPolicyBinding> {
        Api::all(self.scene.client.clone())
    }

    /// Waits until it is in force: until this is refused.
    async fn refuses<T>(&self, tried: impl AsyncFn() -> kube::Result<T>) {
        let mut pause = tokio::time::interval(std::time::Duration::from_millis(100));
        let refused = async {
            while tried().await.is_ok() {
                pause.tick().await;
            }
        };
        tokio::time::timeout(LIMIT, refused).await.expect("the policy is in force");
    }

    async fn lift(self) {
        let options = DeleteParams::default();
        self.bindings().delete(&self.scene.name, &options).await.unwrap();
        self.policies().delete(&self.scene.name, &options).await.unwrap();
    }
}

#[tokio::test]
async fn a_policy_that_lets_nobody_change_a_secret_is_found_out_before_a_second_key_is_made() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    scene.apply(NAME, json!({"rotation": {"minOverlap": "1s", "quietFor": "1s"}})).await;
    scene.ready(NAME).await;
    let old = scene.working_value(NAME).await;
    let unchanged = json!({"validations": [{"expression": "object.data == oldObject.data"}]});
    let policy = Policy::new(&scene, &scene.name, "UPDATE", unchanged).await;
    let change = Patch::Merge(json!({"data": {"another": "YW5vdGhlcg=="}}));
    let tried = PatchParams { dry_run: true, ..PatchParams::default() };
    policy.refuses(async || scene.secrets().patch(NAME, &tried, &change).await).await;
    scene.patch(NAME, json!({"metadata": {"annotations": {"keys.bags.fm/rotate": "first"}}})).await;
    let blocked = |key: &ApiKey| {
        let told = condition(key, "Ready");
        told.is_some_and(|ready| ready.status == "True" && ready.reason == "RotationBlocked")
    };
    let key = scene.key(NAME, "blocked", blocked).await;
    says(&condition(&key, "Ready").unwrap().message, &[NAME, "422 Invalid", "lift what stands against it"]);
    assert_eq!(scene.made().len(), 1, "a key was made that has nowhere to go");
    assert_eq!(scene.working_value(NAME).await, old);
    assert_eq!(scene.events(NAME, "RotationBlocked").await.len(), 1);
    policy.lift().await;
    scene.key(NAME, "rotated", |key| holds(key, "OldKeyRevoked", "True")).await;
    assert_eq!(scene.made().len(), 2);
    assert_ne!(scene.working_value(NAME).await, old);
    scene.end().await;
}

#[tokio::test]
async fn a_policy_against_the_secret_for_a_value_is_the_platform_teams_and_its_words_are_for_the_log() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    let ours = format!(
        "has(object.metadata.labels) && '{0}' in object.metadata.labels && object.metadata.labels['{0}'] == '{1}'",
        mark::ACCOUNT,
        scene.name
    );
    let refusal = json!({
        "matchConditions": [{"name": "of-the-account", "expression": ours}],
        "validations": [{"expression": "false", "message": "as of shop-of-others/billing"}],
    });
    let namespace = world.launch.namespace.as_str();
    let policy = Policy::new(&scene, namespace, "CREATE", refusal).await;
    let labelled =
        json!({"metadata": {"name": scene.name.clone() + "-tried", "labels": {mark::ACCOUNT: scene.name}}});
    let labelled: Secret = serde_json::from_value(labelled).unwrap();
    let tried = PostParams { dry_run: true, ..PostParams::default() };
    policy.refuses(async || scene.keystore().create(&tried, &labelled).await).await;
    scene.apply(NAME, json!({})).await;
    let words = ["value is to be saved", namespace, "422 Invalid", "platform team"];
    let trouble = Trouble { reason: "SecretRefused", event: Some("SecretRefused"), words: &words };
    trouble.shows(&scene, NAME).await;
    let message = scene.not_ready(NAME, "SecretRefused").await;
    assert!(!message.contains("billing"), "what is said there is not the tenant's to read: {message}");
    assert!(scene.made().is_empty(), "a key was made that has nowhere to go");
    policy.lift().await;
    scene.ready(NAME).await;
    scene.working_value(NAME).await;
    assert_eq!(scene.made().len(), 1, "one key was enough");
    scene.end().await;
}
