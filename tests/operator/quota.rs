//! An account has ten slots, and nobody gets an eleventh.

use std::collections::BTreeSet;

use bags_operator::{
    api::account::SlotState,
    sandbox::{KeyState, UserOptions},
};
use serde_json::json;

use crate::{
    support::{
        scene::{Scene, Way, all, holds, slots, slots_in},
        world::World,
    },
    trouble::Trouble,
};

#[tokio::test]
async fn ten_keys_fit_and_the_eleventh_is_served_when_another_goes() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    let names: Vec<String> = (0..10).map(|n| format!("application-{n}")).collect();
    all(names.iter().map(|name| scene.apply(name, json!({})))).await;
    all(names.iter().map(|name| scene.ready(name))).await;
    let values = all(names.iter().map(|name| scene.working_value(name))).await;
    assert_eq!(values.iter().collect::<BTreeSet<_>>().len(), 10, "each has a value of its own");
    let account = scene.account().await;
    assert_eq!((slots(&account), slots_in(&account, &SlotState::Live)), (10, 10));

    scene.apply("the-eleventh", json!({})).await;
    let words = [
        scene.name.as_str(),
        "10 of 10 in use (10 by ApiKeys, 0 made elsewhere), 0 kept for rotations",
        "delete an ApiKey",
        "platform team",
    ];
    let trouble = Trouble { reason: "QuotaExceeded", event: Some("QuotaExceeded"), words: &words };
    trouble.shows(&scene, "the-eleventh").await;
    scene.apply_after("the-eleventh", "the-twelfth", json!({})).await;
    trouble.shows(&scene, "the-twelfth").await;
    let eleventh = scene.keys().get("the-eleventh").await.unwrap();
    assert!(holds(&eleventh, "QuotaAvailable", "False"));
    assert_eq!(scene.requests_to("/keys/create"), 10, "Bags was asked for more than fits");

    let gone = scene.keys().get("application-3").await.unwrap().status.unwrap().current.unwrap();
    scene.delete_now("application-3").await;
    scene.ready("the-eleventh").await;
    scene.working_value("the-eleventh").await;
    scene.not_ready("the-twelfth", "QuotaExceeded").await;
    assert!(!world.sandbox.sandbox.works(&values[3]), "the deleted ApiKey's key still works");
    let state = |id: &str| scene.made().into_iter().find(|key| key.id == id).map(|key| key.state);
    assert_eq!(state(gone.key_id.as_deref().unwrap()), Some(KeyState::Revoked));
    assert!(scene.secrets().get_opt("application-3").await.unwrap().is_none(), "its Secret is left behind");
    let entry = format!("bags-key-{}", gone.attempt);
    scene.until(scene.keystore(), &entry, "gone", |entry: Option<&_>| entry.is_none()).await;
    let account = scene.account_where("with ten slots", |account| slots(account) == 10).await;
    let attempts: Vec<_> =
        account.status.unwrap().slots.into_iter().filter_map(|slot| slot.attempt).collect();
    assert!(!attempts.contains(&gone.attempt));
    assert_eq!((scene.working().len(), scene.made().len()), (10, 11));
    scene.end().await;
}

#[tokio::test]
async fn a_slot_kept_for_rotations_is_not_given_to_a_new_apikey() {
    let world = World::shared().await;
    let scene = Scene::without_account(world, Way::Token, UserOptions::default()).await;
    scene.put_credentials(&scene.credentials()).await;
    scene.make_account(json!({"limit": 2, "rotationReserve": 1})).await;
    scene.apply("first-come", json!({})).await;
    scene.ready("first-come").await;
    scene.apply("second-come", json!({})).await;
    let words = ["1 of 2 in use", "1 kept for rotations"];
    let trouble = Trouble { reason: "QuotaExceeded", event: Some("QuotaExceeded"), words: &words };
    trouble.shows(&scene, "second-come").await;
    scene.patch_account(json!({"spec": {"rotationReserve": 0}})).await;
    scene.ready("second-come").await;
    scene.end().await;
}
