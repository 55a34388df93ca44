//! Taking leave of an ApiKey and of an account.

use bags_operator::{
    api::{account::SlotState, mark},
    sandbox::UserOptions,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use crate::support::{
    scene::{Scene, Way, condition, holds, says, slots, slots_in},
    world::World,
};

const NAME: &str = "web-dashboard";

#[tokio::test]
async fn an_apikey_that_was_never_served_goes_at_once_and_gives_its_place_back() {
    let world = World::shared().await;
    let scene = Scene::without_account(world, Way::Token, UserOptions::default()).await;
    scene.make_account(json!({})).await;
    scene.apply(NAME, json!({})).await;
    scene.not_ready(NAME, "CredentialsMissing").await;
    scene.delete(NAME).await;
    scene.gone(NAME).await;
    scene.account_where("without slots", |account| slots(account) == 0).await;
    assert!(scene.made().is_empty());
    assert!(scene.stored().await.is_empty(), "a keystore Secret is left behind");
    scene.end().await;
}

#[tokio::test]
async fn an_apikey_that_was_replaced_by_its_manifest_takes_its_key_along_when_it_goes() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    scene.apply(NAME, json!({})).await;
    let ready = scene.ready(NAME).await;
    let value = scene.working_value(NAME).await;
    // What `kubectl replace -f` sends: nothing of what others have written into metadata.
    let mut manifest = scene.new_key(NAME, json!({}));
    manifest.metadata.resource_version = ready.metadata.resource_version;
    let replaced = scene.keys().replace(NAME, &PostParams::default(), &manifest).await.unwrap();
    assert!(replaced.finalizers().is_empty(), "the finalizer was taken off");
    scene.key(NAME, "with its finalizer", |key| !key.finalizers().is_empty()).await;
    scene.delete(NAME).await;
    scene.gone(NAME).await;
    assert!(!world.sandbox.sandbox.works(&value), "the key outlived its ApiKey");
    scene.end().await;
}

/// A pod that no node takes: it reads a Secret as soon as one does.
async fn pod_that_reads(scene: &Scene<'_>, secret: &str) -> Api<Pod> {
    let pods: Api<Pod> = Api::namespaced(scene.secrets().into_client(), &scene.name);
    let container = json!({"name": "web", "image": "none", "envFrom": [{"secretRef": {"name": secret}}]});
    let pod = json!({
        "metadata": {"name": "reader"},
        "spec": {"containers": [container], "schedulerName": "none", "automountServiceAccountToken": false},
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    pods
}

#[tokio::test]
async fn a_published_key_is_not_revoked_while_a_pod_reads_it() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    scene.apply(NAME, json!({})).await;
    let key = scene.ready(NAME).await;
    let key_name = key.status.unwrap().current.unwrap().key_name;
    let pods = pod_that_reads(&scene, NAME).await;
    scene.delete(NAME).await;
    let waits = |key: &bags_operator::api::ApiKey| {
        condition(key, "Stalled").is_some_and(|c| c.status == "True" && c.reason == "DeletionWaits")
    };
    let key = scene.key(NAME, "waiting with its deletion", waits).await;
    let message = condition(&key, "Stalled").unwrap().message.clone();
    let command = format!("kubectl annotate apikey {NAME} -n {} keys.bags.fm/delete-now=true", scene.name);
    says(&message, &[&key_name, "these do: reader", &command, "spec.deletionPolicy: Orphan"]);
    let notes = scene.events(NAME, "DeletionWaits").await;
    assert_eq!(notes.len(), 1, "{notes:?}");
    says(&notes[0], &[&command]);
    let late = |key: &bags_operator::api::ApiKey| {
        condition(key, "Stalled").is_some_and(|c| c.message.contains("GitOps wave"))
    };
    scene.key(NAME, "asking for its consumers", late).await;
    let value = scene.working_value(NAME).await;
    pods.delete("reader", &DeleteParams::default().grace_period(0)).await.unwrap();
    scene.gone(NAME).await;
    scene.account_where("without slots", |account| slots(account) == 0).await;
    assert!(!world.sandbox.sandbox.works(&value));
    assert!(scene.secrets().get_opt(NAME).await.unwrap().is_none());
    scene.end().await;
}

#[tokio::test]
async fn an_orphaned_key_goes_on_working_in_its_secret_and_counts() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    scene.apply(NAME, json!({"deletionPolicy": "Orphan"})).await;
    scene.ready(NAME).await;
    scene.delete(NAME).await;
    scene.gone(NAME).await;
    scene.working_value(NAME).await;
    let released = |account: &bags_operator::api::BagsAccount| slots_in(account, &SlotState::Released) == 1;
    let account = scene.account_where("with a released slot", released).await;
    let used = account.status.unwrap().capacity.unwrap().used;
    assert_eq!(used, 1, "it still is one of the account's ten");
    let stored = scene.stored().await;
    let marked = stored.iter().filter(|secret| secret.annotations().contains_key(mark::RELEASED)).count();
    assert_eq!((stored.len(), marked), (1, 1), "who puts a lost ledger together again must know");
    scene.end().await;
}

#[tokio::test]
async fn an_apikey_whose_account_is_gone_goes_and_names_the_keys_that_are_left() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    scene.apply(NAME, json!({})).await;
    scene.ready(NAME).await;
    let key_id = scene.made()[0].id.clone();
    world.ledgers.hold_for(&scene.account().await).await;
    scene.patch_account(json!({"metadata": {"annotations": {"keys.bags.fm/forget": "true"}}})).await;
    scene.accounts().delete(&scene.name, &DeleteParams::default()).await.unwrap();
    let gone = |account: Option<&bags_operator::api::BagsAccount>| account.is_none();
    scene.until(scene.accounts(), &scene.name, "gone", gone).await;
    scene.delete(NAME).await;
    scene.gone(NAME).await;
    let notes = scene.events(NAME, "DeletionHandedOver").await;
    says(&notes[0], &[&scene.name, "nothing was revoked", &key_id]);
    scene.working_value(NAME).await;
    world.ledgers.hold(&scene.name);
}

#[tokio::test]
async fn an_account_waits_until_its_last_slot_is_free() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    scene.apply(NAME, json!({})).await;
    scene.ready(NAME).await;
    scene.accounts().delete(&scene.name, &DeleteParams::default()).await.unwrap();
    let waits = |account: &bags_operator::api::BagsAccount| {
        condition(account, "Ready").is_some_and(|c| c.status == "False" && c.reason == "Deleting")
    };
    let account = scene.account_where("waiting with its deletion", waits).await;
    let message = &condition(&account, "Ready").unwrap().message;
    says(message, &[&format!("{}/{NAME}", scene.name), "keys.bags.fm/forget"]);
    scene.apply("late-comer", json!({})).await;
    says(&scene.not_ready("late-comer", "AccountDeleting").await, &[&scene.name]);
    let value = scene.working_value(NAME).await;
    scene.delete_now(NAME).await;
    let gone = |account: Option<&bags_operator::api::BagsAccount>| account.is_none();
    scene.until(scene.accounts(), &scene.name, "gone", gone).await;
    assert!(!world.sandbox.sandbox.works(&value));
    scene.not_ready("late-comer", "AccountNotFound").await;
    world.ledgers.hold(&scene.name);
}

#[tokio::test]
async fn where_nobody_can_revoke_a_person_is_asked_and_their_word_frees_the_slot() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Wallet, UserOptions::default()).await;
    scene.apply(NAME, json!({})).await;
    let current = scene.ready(NAME).await.status.unwrap().current.unwrap();
    scene.delete_now(NAME).await;
    let asked = |account: &bags_operator::api::BagsAccount| holds(account, "RevocationNeedsPerson", "True");
    let account = scene.account_where("asking a person", asked).await;
    let condition = condition(&account, "RevocationNeedsPerson").unwrap();
    let key_id = current.key_id.unwrap();
    let words = [
        current.key_name.as_str(),
        &key_id,
        "https://dev.bags.fm",
        "keys.bags.fm/resolved",
        &current.attempt,
    ];
    says(&condition.message, &words);
    assert_eq!(condition.reason, "NoAgentToken");
    assert_eq!(slots_in(&account, &SlotState::Revoking), 1, "the slot stays taken");
    let notes = scene.events(&scene.name, "RevocationNeedsPerson").await;
    says(&notes[0], &words[..3]);
    world.sandbox.sandbox.revoke_key(&key_id).unwrap();
    let annotation = json!({"keys.bags.fm/resolved": current.attempt});
    scene.patch_account(json!({"metadata": {"annotations": annotation}})).await;
    scene.account_where("without slots", |account| slots(account) == 0).await;
    scene.account_where("asking nobody", |account| !holds(account, "RevocationNeedsPerson", "True")).await;
    scene.end().await;
}
