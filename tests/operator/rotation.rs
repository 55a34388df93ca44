//! A key is replaced, beside a real API server. What runs in pods is shown on a real node (`make e2e`) and in the world.

use bags_operator::{
    api::{ApiKey, BagsAccount, account::SlotState},
    sandbox::UserOptions,
};
use kube::ResourceExt;
use serde_json::json;

use crate::support::{
    scene::{Scene, Way, condition, holds, says, slots, slots_in},
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
    let rotated = |key: &ApiKey| {
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
    for (reason, times) in [("RotationStarted", 1), ("RotationFinished", 1), ("KeyPublished", 2)] {
        assert_eq!(scene.events(NAME, reason).await.len(), times, "{reason}");
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
    let blocked = |key: &ApiKey| {
        condition(key, "Ready").is_some_and(|c| c.status == "True" && c.reason == "RotationBlocked")
    };
    let key = scene.key(NAME, "waiting for a slot", blocked).await;
    assert!(condition(&key, "Ready").unwrap().message.contains("no slot for a second key"));
    scene.patch_account(json!({"spec": {"limit": 2}})).await;
    let rotated = |key: &ApiKey| condition(key, "OldKeyRevoked").is_some_and(|c| c.status == "True");
    scene.key(NAME, "rotated", rotated).await;
    let one = |account: &BagsAccount| slots_in(account, &SlotState::Live) == 1;
    scene.account_where("with one live slot", one).await;
    scene.end().await;
}

#[tokio::test]
async fn a_key_is_replaced_on_schedule() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    let rotation = json!({"every": "1m", "minOverlap": "1s", "quietFor": "1s"});
    scene.apply(NAME, json!({"rotation": rotation})).await;
    let next = |key: &ApiKey| key.status.as_ref().and_then(|status| status.next_rotation);
    let key = scene.key(NAME, "saying when it is rotated", |key| next(key).is_some()).await;
    let due = next(&key).unwrap();
    let old = scene.working_value(NAME).await;
    scene.key(NAME, "rotated", |key| holds(key, "OldKeyRevoked", "True")).await;
    let key = scene.key(NAME, "saying when it is rotated next", |key| next(key) > Some(due)).await;
    let status = key.status.unwrap();
    assert!(status.switch.unwrap().at >= due, "it was rotated before {due}");
    let current = status.current.unwrap();
    assert_eq!(current.revision, 2);
    assert!(!world.sandbox.sandbox.works(&old));
    for name in ["rotations_total{outcome=\"Finished\"}", "rotation_overlap_seconds_count"] {
        let count = world.operator().measures(&format!("bags_operator_{name}")).await;
        assert!(count.is_some_and(|count| count > 0.0), "{name} is at {count:?}");
    }
    let account = scene.account_where("with one key", |account| slots(account) == 1).await.name_any();
    let oldest = format!("bags_operator_account_oldest_key_timestamp_seconds{{account=\"{account}\"}}");
    let (oldest, published) =
        (world.operator().measures(&oldest).await.unwrap(), current.published_at.unwrap());
    assert!((oldest - published.as_second() as f64).abs() < 2.0, "{oldest} is not {published}");
    scene.end().await;
}

#[tokio::test]
async fn a_window_in_a_time_zone_that_does_not_exist_is_told_and_rotations_begin_once_it_is_corrected() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    let zone = |zone: &str| {
        let always = json!({"from": "00:00", "duration": "24h", "timeZone": zone});
        json!({"rotation": {"every": "1m", "minOverlap": "1s", "quietFor": "1s", "windows": [always]}})
    };
    scene.apply(NAME, zone("Mars/Olympus")).await;
    let blocked = |key: &ApiKey| {
        condition(key, "Ready").is_some_and(|c| c.status == "True" && c.reason == "RotationBlocked")
    };
    let key = scene.key(NAME, "saying that it has no schedule", blocked).await;
    let message = &condition(&key, "Ready").unwrap().message;
    says(message, &["\"Mars/Olympus\"", "Europe/Berlin", "keys.bags.fm/rotate"]);
    assert_eq!(key.status.unwrap().next_rotation, None);
    assert_eq!(scene.events(NAME, "RotationBlocked").await.len(), 1);
    scene.patch(NAME, json!({"spec": zone("Europe/Berlin")})).await;
    scene.key(NAME, "rotated", |key| holds(key, "OldKeyRevoked", "True")).await;
    scene.end().await;
}
