//! What keeps an old key valid: who still holds it is named, with what to do, and the rotation goes on by itself once that is
//! gone. The controllers are real, the test is scheduler and kubelet; on a real node `make e2e` shows some of the same.

use std::time::Duration;

use bags_operator::{
    api::{ApiKey, BagsAccount, apikey::Switch},
    sandbox::{Capabilities, UserOptions},
};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    apps::v1::{Deployment, StatefulSet},
    batch::v1::Job,
    core::v1::{Node, Pod, ResourceQuota},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    scene::{LIMIT, Scene, Way, condition, holds, says, slots},
    world::World,
};

const NAME: &str = "web-dashboard";

impl Scene<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    async fn make<K>(&self, object: Value)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Serialize
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap();
    }

    /// Makes a pod that nobody makes again; owned by what is no object here, if so.
    async fn make_pod(&self, name: &str, owner: Option<Value>) {
        let mut pod = json!({"metadata": {"name": name}, "spec": template()["spec"]});
        pod["metadata"]["ownerReferences"] = json!(owner.into_iter().collect::<Vec<_>>());
        self.make::<Pod>(pod).await;
    }

    /// So many pods run. Their names.
    async fn running(&self, count: usize) -> Vec<String> {
        let mut pause = tokio::time::interval(Duration::from_millis(100));
        let ready = |pod: &Pod| {
            let status = pod.status.as_ref();
            status.is_some_and(|status| status.phase.as_deref() == Some("Running"))
        };
        let all = async {
            loop {
                pause.tick().await;
                let pods = self.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
                if pods.len() == count && pods.iter().all(ready) {
                    return pods.iter().map(ResourceExt::name_any).collect();
                }
            }
        };
        tokio::time::timeout(LIMIT, all).await.expect("the pods run")
    }

    /// A pod is deleted by a person.
    async fn delete_pod(&self, name: &str) {
        self.api::<Pod>().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Deployment "web" is changed by a person.
    async fn edit_web(&self, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.api::<Deployment>().patch("web", &PatchParams::default(), &patch).await.unwrap();
    }

    async fn ask_for_another_key(&self) {
        self.patch(NAME, json!({"metadata": {"annotations": {"keys.bags.fm/rotate": "first"}}})).await;
    }

    /// The words that say why the old key is kept, once these are among them, and those are not.
    async fn kept(&self, what: &str, words: &[&str], without: &[&str]) -> String {
        let said = |key: &ApiKey| {
            condition(key, "OldKeyRevoked").is_some_and(|it| {
                it.status == "False"
                    && words.iter().all(|word| it.message.contains(word))
                    && !without.iter().any(|word| it.message.contains(word))
            })
        };
        let key = self.key(NAME, what, said).await;
        condition(&key, "OldKeyRevoked").unwrap().message.clone()
    }

    async fn rotated(&self) {
        self.key(NAME, "rotated", |key| holds(key, "OldKeyRevoked", "True")).await;
    }
}

/// A node, its kubelet and its scheduler, until they are dropped: every pod is on it, runs and is ready; one that is deleted
/// is gone at once.
struct Machine {
    _runs: JoinSet<()>,
}

impl Machine {
    #[expect(clippy::disallowed_methods, reason = "the API server's clock is the machine's")]
    async fn of(scene: &Scene<'_>) -> Self {
        let (nodes, pods, name): (Api<Node>, Api<Pod>, _) =
            (Api::all(scene.client.clone()), scene.api(), scene.name.clone());
        let node: Node = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let runs = async move {
            let mut pause = tokio::time::interval(Duration::from_millis(100));
            for turn in 0.. {
                pause.tick().await;
                // Controllers take pods away from a node that says nothing for a while.
                if turn % 50 == 0 {
                    let now = jiff::Timestamp::now().to_string();
                    let ready = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now});
                    let patch = Patch::Merge(json!({"status": {"conditions": [ready]}}));
                    let _ = nodes.patch_status(&name, &PatchParams::default(), &patch).await;
                }
                // What a controller changed meanwhile is looked at again.
                for pod in pods.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default()
                {
                    let _ = Self::see_to(&pods, &pod, &name).await;
                }
            }
        };
        let mut set = JoinSet::new();
        set.spawn(runs);
        Self { _runs: set }
    }

    async fn see_to(pods: &Api<Pod>, pod: &Pod, node: &str) -> Result<(), kube::Error> {
        let name = pod.name_any();
        if pod.metadata.deletion_timestamp.is_some() {
            return pods.delete(&name, &DeleteParams::default().grace_period(0)).await.map(drop);
        }
        if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()) {
            let binding = json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            });
            pods.create_subresource::<Value, Value>("binding", &name, &PostParams::default(), &binding)
                .await?;
        }
        if pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running")) {
            return Ok(());
        }
        let state = json!({"running": {"startedAt": pod.metadata.creation_timestamp}});
        let ready = |kind: &str| json!({"type": kind, "status": "True"});
        let status = json!({
            "phase": "Running", "conditions": [ready("ContainersReady"), ready("Ready")],
            "containerStatuses": [{
                "name": "app", "image": "none", "imageID": "", "ready": true, "restartCount": 0, "state": state,
            }],
        });
        let patch = Patch::Merge(json!({"status": status}));
        pods.patch_status(&name, &PatchParams::default(), &patch).await.map(drop)
    }
}

fn owner(api_version: &str, kind: &str, name: &str, uid: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true})
}

fn template() -> Value {
    let from = json!({"secretKeyRef": {"name": NAME, "key": "BAGS_API_KEY"}});
    let container =
        json!({"name": "app", "image": "none", "env": [{"name": "BAGS_API_KEY", "valueFrom": from}]});
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [container], "automountServiceAccountToken": false},
    })
}

fn selector() -> Value {
    json!({"matchLabels": {"app": "web"}})
}

/// An ApiKey whose key is in use, and is soon let go of.
async fn scene(world: &World, options: UserOptions) -> Scene<'_> {
    let scene = Scene::new(world, Way::Token, options).await;
    scene.apply(NAME, json!({"rotation": {"minOverlap": "1s", "quietFor": "1s"}})).await;
    scene.ready(NAME).await;
    scene
}

#[tokio::test]
async fn who_waits_for_the_overlap_reads_since_when_and_until_when() {
    let world = World::shared().await;
    let scene = scene(world, UserOptions::default()).await;
    scene.patch(NAME, json!({"spec": {"rotation": {"minOverlap": "1h", "quietFor": "2h"}}})).await;
    scene.ask_for_another_key().await;
    let words =
        ["no pod can hold key", "no use of it is known since", "it is revoked after", "at the earliest"];
    scene.kept("until the overlap is over", &words, &[]).await;
    let key = scene
        .key(NAME, "known to be clean", |key| switch(key).is_some_and(|it| it.clean_since.is_some()))
        .await;
    let switch = switch(&key).unwrap();
    assert!(switch.clean_since.unwrap() >= switch.at, "{switch:?}");
    scene.patch(NAME, json!({"spec": {"rotation": {"minOverlap": "1s", "quietFor": "1s"}}})).await;
    scene.rotated().await;
    scene.end().await;
}

fn switch(key: &ApiKey) -> Option<&Switch> {
    key.status.as_ref()?.switch.as_ref()
}

#[tokio::test]
async fn whoever_holds_the_old_key_is_named_with_what_to_do_until_the_last_one_has_let_go() {
    let world = World::shared().await;
    let scene = scene(world, UserOptions::default()).await;
    let _machine = Machine::of(&scene).await;
    let old = scene.working_value(NAME).await;
    let mut left_alone = template();
    left_alone["metadata"]["annotations"] = json!({"keys.bags.fm/restart": "false"});
    scene
        .make::<Deployment>(json!({
            "metadata": {"name": "left-alone"},
            "spec": {"replicas": 1, "selector": selector(), "template": left_alone},
        }))
        .await;
    let left_alone = scene.running(1).await.remove(0);
    scene
        .make::<StatefulSet>(json!({
            "metadata": {"name": "ordered"},
            "spec": {
                "replicas": 1, "serviceName": "ordered", "selector": selector(), "template": template(),
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}},
            },
        }))
        .await;
    scene.make_pod("bare", None).await;
    scene.make_pod("canary-x", Some(owner("argoproj.io/v1alpha1", "Rollout", "canary", "rollout-uid"))).await;
    let before = scene.running(4).await;
    let mut once = template();
    once["spec"]["restartPolicy"] = json!("Never");
    scene.make::<Job>(json!({"metadata": {"name": "nightly"}, "spec": {"template": once}})).await;
    let all = scene.running(5).await;
    let of_job = all.iter().find(|pod| !before.contains(pod)).unwrap();
    let holders = [
        ("bare", "pods without an owner (they are waited for"),
        (of_job.as_str(), "Job \"nightly\" (it is waited for"),
        ("canary-x", "Rollout \"canary\" (restart it yourself"),
        ("ordered-0", "its partition is 1: lower it to 0"),
        (left_alone.as_str(), "keys.bags.fm/restart is false: restart it yourself"),
    ];
    scene.ask_for_another_key().await;
    blocked(
        &scene,
        "StatefulSet \"ordered\"",
        "(its partition 1 leaves the pods below that number as they are)",
    )
    .await;
    scene.patch(NAME, json!({"spec": {"rollout": {"allowGap": true}}})).await;
    for begun in 0..holders.len() {
        let (gone, there) = holders.split_at(begun);
        let words: Vec<&str> = there.iter().flat_map(|(pod, words)| [*pod, *words]).collect();
        let without: Vec<&str> = gone.iter().map(|(pod, _)| *pod).collect();
        let said = scene.kept("naming who holds the old key", &words, &without).await;
        says(&said, &["stays valid: these pods may still use it", &format!("(on {})", scene.name)]);
        assert!(world.sandbox.sandbox.works(&old), "it was revoked while {} held it", there[0].0);
        scene.delete_pod(there[0].0).await;
    }
    scene.rotated().await;
    assert!(!world.sandbox.sandbox.works(&old));
    let (deployment, ordered) = (
        scene.api::<Deployment>().get("left-alone").await.unwrap(),
        scene.api::<StatefulSet>().get("ordered").await.unwrap(),
    );
    assert_eq!(
        [deployment.metadata.generation, ordered.metadata.generation],
        [Some(1); 2],
        "one was restarted"
    );
    scene.end().await;
}

#[tokio::test]
async fn a_namespace_whose_quota_of_secrets_is_used_up_can_rotate_as_no_secret_is_to_be_made() {
    let world = World::shared().await;
    let scene = scene(world, UserOptions::default()).await;
    scene
        .make::<ResourceQuota>(json!({"metadata": {"name": "full"}, "spec": {"hard": {"secrets": "1"}}}))
        .await;
    let full = |quota: Option<&ResourceQuota>| {
        let used = quota.and_then(|quota| quota.status.as_ref()?.used.as_ref());
        used.is_some_and(|used| used.get("secrets").is_some_and(|secrets| secrets.0 == "1"))
    };
    scene.until(scene.api::<ResourceQuota>(), "full", "used up", full).await;
    scene.ask_for_another_key().await;
    scene.rotated().await;
    assert_eq!(scene.made().len(), 2);
    scene.end().await;
}

const WEB: &str = "Deployment \"web\"";

/// Waits until a rotation does not begin as a workload could not be restarted without a gap, told in these words.
async fn blocked(scene: &Scene<'_>, workload: &str, why: &str) {
    let told = |key: &ApiKey| {
        condition(key, "ZeroDowntime").is_some_and(|it| it.status == "False" && it.message.contains(why))
    };
    let key = scene.key(NAME, "not rotated", told).await;
    says(&condition(&key, "ZeroDowntime").unwrap().message, &[workload, "spec.rollout.allowGap: true"]);
    assert_eq!(scene.made().len(), 1, "a key was made for a rotation that cannot end");
}

/// Changes Deployment "web", whereupon the rotation begins by itself and ends.
async fn let_it(scene: &Scene<'_>, spec: Value) {
    scene.edit_web(spec).await;
    scene.rotated().await;
    let web = scene.api::<Deployment>().get("web").await.unwrap();
    let template = serde_json::to_value(web.spec.unwrap().template).unwrap();
    let mark = &template["metadata"]["annotations"][format!("restart.keys.bags.fm/{NAME}")];
    assert!(mark.as_str().is_some_and(|mark| mark.ends_with("-2")), "{template}");
    assert_eq!(scene.events("web", "Restarted").await.len(), 1);
}

#[tokio::test]
async fn a_paused_workload_keeps_a_rotation_from_beginning_until_it_goes_on() {
    let world = World::shared().await;
    let scene = scene(world, UserOptions::default()).await;
    let _machine = Machine::of(&scene).await;
    let spec = json!({"replicas": 2, "selector": selector(), "template": template()});
    scene.make::<Deployment>(json!({"metadata": {"name": "web"}, "spec": spec})).await;
    scene.running(2).await;
    scene.edit_web(json!({"paused": true})).await;
    scene.ask_for_another_key().await;
    blocked(&scene, WEB, "(it is paused)").await;
    counts(
        world,
        &["rotations_held{kind=\"ApiKey\",reason=\"RotationBlocked\"}", "apikeys{phase=\"Ready\"}"],
    )
    .await;
    let_it(&scene, json!({"paused": false})).await;
    scene.end().await;
}

#[tokio::test]
async fn one_replica_without_surge_keeps_a_rotation_from_beginning_until_it_may_be_doubled() {
    let world = World::shared().await;
    let scene = scene(world, UserOptions::default()).await;
    let _machine = Machine::of(&scene).await;
    let strategy =
        |surge: u32, missing: u32| json!({"rollingUpdate": {"maxSurge": surge, "maxUnavailable": missing}});
    let spec = json!({
        "replicas": 1, "selector": selector(), "template": template(), "strategy": strategy(0, 1),
    });
    scene.make::<Deployment>(json!({"metadata": {"name": "web"}, "spec": spec})).await;
    scene.running(1).await;
    scene.ask_for_another_key().await;
    blocked(&scene, WEB, "room to surge").await;
    let_it(&scene, json!({"strategy": strategy(1, 0)})).await;
    scene.end().await;
}

/// Each of these series counts something: other tests may be counted as well.
async fn counts(world: &World, series: &[&str]) {
    for name in series {
        let count = world.operator().measures(&format!("bags_operator_{name}")).await;
        assert!(count.is_some_and(|count| count > 0.0), "{name} is at {count:?}");
    }
}

/// Lets nobody change the pods of the Deployment "guarded".
async fn guard(scene: &Scene<'_>) {
    let name = &scene.name;
    let unchanged = "object.metadata.name != 'guarded' || object.spec.template == oldObject.spec.template";
    let deployments = json!({
        "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments"],
    });
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [deployments]},
            "validations": [{"expression": unchanged, "message": "ask the platform team for a change window"}],
        },
    }))
    .unwrap();
    let here = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}});
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": here},
    }))
    .unwrap();
    let options = PostParams::default();
    Api::<ValidatingAdmissionPolicy>::all(scene.client.clone()).create(&options, &policy).await.unwrap();
    Api::<ValidatingAdmissionPolicyBinding>::all(scene.client.clone())
        .create(&options, &binding)
        .await
        .unwrap();
    let change = Patch::Merge(json!({"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}}));
    let tried = PatchParams { dry_run: true, ..PatchParams::default() };
    let mut pause = tokio::time::interval(Duration::from_millis(100));
    let refused = async {
        while scene.api::<Deployment>().patch("guarded", &tried, &change).await.is_ok() {
            pause.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, refused).await.expect("the policy is in force");
}

#[tokio::test]
async fn a_workload_that_a_policy_lets_nobody_restart_is_named_and_the_others_are_restarted() {
    let world = World::shared().await;
    let scene = scene(world, UserOptions::default()).await;
    let _machine = Machine::of(&scene).await;
    for name in ["guarded", "web"] {
        let (mut template, labels) = (template(), json!({"app": name}));
        template["metadata"]["labels"] = labels.clone();
        let spec = json!({"replicas": 2, "selector": {"matchLabels": labels}, "template": template});
        scene.make::<Deployment>(json!({"metadata": {"name": name}, "spec": spec})).await;
    }
    let before = scene.running(4).await;
    guard(&scene).await;
    scene.ask_for_another_key().await;
    let words = [
        "Deployment \"guarded\"",
        "ask the platform team for a change window",
        "restarted: Deployment \"web\"",
    ];
    scene.kept("naming the policy", &words, &["web-"]).await;
    assert_eq!(scene.events("web", "Restarted").await.len(), 1);
    for pod in before.iter().filter(|pod| pod.starts_with("guarded-")) {
        scene.delete_pod(pod).await;
    }
    scene.rotated().await;
    let guarded = scene.api::<Deployment>().get("guarded").await.unwrap();
    assert_eq!(guarded.metadata.generation, Some(1), "it was changed");
    scene.end().await;
}

#[tokio::test]
async fn where_bags_cannot_revoke_a_person_is_asked_for_the_old_key_and_their_word_ends_it() {
    let world = World::shared().await;
    let capabilities = Capabilities { revoke: false, ..Capabilities::default() };
    let scene = scene(world, UserOptions { capabilities, ..UserOptions::default() }).await;
    let old = scene.made().remove(0);
    scene.ask_for_another_key().await;
    let asked = |account: &BagsAccount| holds(account, "RevocationNeedsPerson", "True");
    let account = scene.account_where("asking a person", asked).await;
    let words = [old.name.as_str(), &old.id, "https://dev.bags.fm", "keys.bags.fm/resolved"];
    says(&condition(&account, "RevocationNeedsPerson").unwrap().message, &words);
    scene.kept("pointing to the account", &["the BagsAccount says whether a person has to act"], &[]).await;
    assert_eq!(slots(&account), 2, "the slot stays taken");
    let awaited = format!("account_revocations_awaited{{account=\"{}\"}}", account.name_any());
    counts(world, &[&awaited, "apikeys{phase=\"RevokingOld\"}"]).await;
    assert_eq!(scene.events(&scene.name, "RevocationNeedsPerson").await.len(), 1);
    world.sandbox.sandbox.revoke_key(&old.id).unwrap();
    let (_, attempt) = old.name.rsplit_once('-').unwrap();
    let annotation = json!({"keys.bags.fm/resolved": attempt});
    scene.patch_account(json!({"metadata": {"annotations": annotation}})).await;
    scene.rotated().await;
    scene.account_where("asking nobody", |account| !holds(account, "RevocationNeedsPerson", "True")).await;
    scene.account_where("with one slot", |account| slots(account) == 1).await;
    scene.end().await;
}

#[tokio::test]
async fn a_new_key_that_dies_keeps_the_old_one_alive() {
    let world = World::shared().await;
    let scene = scene(world, UserOptions::default()).await;
    let old = scene.working_value(NAME).await;
    // Or the old key could be gone before anybody has revoked the new one.
    let _machine = Machine::of(&scene).await;
    scene.make_pod("alone", None).await;
    scene.running(1).await;
    scene.ask_for_another_key().await;
    let said = scene.kept("waiting for a pod", &["alone"], &[]).await;
    says(&said, &["stays valid"]);
    let new = scene.made().into_iter().max_by_key(|key| key.created_at).unwrap();
    world.sandbox.sandbox.revoke_key(&new.id).unwrap();
    scene.delete_pod("alone").await;
    let words = [new.name.as_str(), "Bags does not accept it any more", "is not revoked"];
    scene.kept("saying that the new key is dead", &words, &["alone"]).await;
    assert!(world.sandbox.sandbox.works(&old), "nothing works any more");
    assert_eq!(scene.events(NAME, "RotationHeld").await.len(), 1);
    counts(world, &["rotations_held{kind=\"ApiKey\",reason=\"RotationHeld\"}"]).await;
    scene.delete_now(NAME).await;
    assert!(!world.sandbox.sandbox.works(&old));
    scene.end().await;
}
