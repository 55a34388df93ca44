//! A key is replaced, beside a real API server. What runs in pods is shown on a real node (`make e2e`) and in the world.

use bags_operator::{api::account::SlotState, sandbox::UserOptions};
use serde_json::json;

use crate::support::{
    scene::{Scene, Way, condition, slots, slots_in},
    world::World,
};

const NAME: &str = "web-dashboard";

#[tokio::test]
async fn a_key_is_replaced_when_somebody_asks_and_the_old_one_is_revoked_last() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    scene.apply(NAME, json!({"rotation": {"minOverlap": "1s", "quietFor": "1s"}})).await;
    scene.ready(NAME).await;
    let old = scene.working_value(NAME).await;
    scene.patch(NAME, json!({"metadata": {"annotations": {"keys.bags.fm/rotate": "first"}}})).await;
    let rotated = |key: &bags_operator::api::ApiKey| {
        condition(key, "OldKeyRevoked").is_some_and(|c| c.status == "True")
            && condition(key, "Ready").is_some_and(|c| c.reason == "Issued")
    };
    let key = scene.key(NAME, "rotated", rotated).await;
    let status = key.status.unwrap();
    assert_eq!(status.handled_rotate.as_deref(), Some("first"));
    assert_eq!((status.current.unwrap().revision, status.switch.unwrap().count), (2, 2));
    assert_ne!(scene.working_value(NAME).await, old);
    assert!(!world.sandbox.sandbox.works(&old));
    scene.account_where("with one slot", |account| slots(account) == 1).await;
    assert_eq!(scene.made().len(), 2);
    for reason in ["RotationStarted", "RotationFinished"] {
        assert_eq!(scene.events(NAME, reason).await.len(), 1, "{reason}");
    }
    scene.end().await;
}

#[tokio::test]
async fn a_rotation_waits_for_a_slot_and_begins_when_one_is_free() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    scene.patch_account(json!({"spec": {"limit": 1, "rotationReserve": 0}})).await;
    scene.apply(NAME, json!({"rotation": {"minOverlap": "1s", "quietFor": "1s"}})).await;
    scene.ready(NAME).await;
    scene.patch(NAME, json!({"metadata": {"annotations": {"keys.bags.fm/rotate": "first"}}})).await;
    let blocked = |key: &bags_operator::api::ApiKey| {
        condition(key, "Ready").is_some_and(|c| c.status == "True" && c.reason == "RotationBlocked")
    };
    let key = scene.key(NAME, "waiting for a slot", blocked).await;
    assert!(condition(&key, "Ready").unwrap().message.contains("no slot for a second key"));
    scene.patch_account(json!({"spec": {"limit": 2}})).await;
    let rotated = |key: &bags_operator::api::ApiKey| {
        condition(key, "OldKeyRevoked").is_some_and(|c| c.status == "True")
    };
    scene.key(NAME, "rotated", rotated).await;
    let one = |account: &bags_operator::api::BagsAccount| slots_in(account, &SlotState::Live) == 1;
    scene.account_where("with one live slot", one).await;
    scene.end().await;
}
