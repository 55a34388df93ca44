//! Places and keys whose ApiKey vanished, or is of another account.

use super::*;
use crate::api::annotation;

#[tokio::test]
async fn a_vanished_owners_place_is_given_back_and_its_key_revoked_an_hour_after_its_namespace_went() {
    let stage = stage(true, vec![aged(0, SlotState::Reserved), aged(1, SlotState::Live)]);
    stage.key(&aged(1, SlotState::Live), Some(true));
    let took = stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
    assert_eq!(took, Duration::from_mins(2), "as this process has seen it");
    stage.pass(Duration::from_hours(5)).await;
    assert_eq!(states(&stage.world()), [SlotState::Live]);
    assert!(condition(&stage.world(), "OrphanedKeys").unwrap().message.contains("shop/app-1"));
    assert_eq!(stage.world().events, ["KeyOrphaned"]);
    stage.world().namespace = false;
    let took = stage.until(Duration::from_hours(2), |world| states(world).is_empty()).await;
    assert!(took >= Duration::from_hours(1), "{took:?}");
    assert!(!stage.world().keys[0].alive);
    assert!(condition(&stage.world(), "OrphanedKeys").is_none());
}

#[tokio::test]
async fn a_namespace_that_cannot_be_read_counts_as_there() {
    let live = aged(0, SlotState::Live);
    let stage = stage(true, vec![live.clone()]);
    stage.key(&live, Some(true));
    stage.world().hides_namespace = true;
    stage.pass(Duration::from_hours(5)).await;
    let world = stage.world();
    assert!(world.requests.contains(&"GET /api/v1/namespaces/shop".to_owned()));
    assert_eq!(states(&world), [SlotState::Live]);
    assert!(world.keys[0].alive);
}

#[tokio::test]
async fn a_place_of_an_apikey_of_another_account_is_given_back_and_its_key_is_not() {
    let (place, live) = (aged(0, SlotState::Reserved), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![place, live.clone()]);
    stage.owner_of(0, "other");
    stage.owner_of(1, "other");
    stage.key(&live, Some(true));
    let took = stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
    assert_eq!(took, Duration::from_mins(2), "as this process has seen it");
    stage.pass(Duration::from_hours(2)).await;
    assert_eq!(states(&stage.world()), [SlotState::Live]);
    assert!(condition(&stage.world(), "OrphanedKeys").is_none());
}

#[tokio::test]
async fn a_vanished_owners_key_is_revoked_on_a_persons_word() {
    let live = aged(0, SlotState::Live);
    let stage = stage(true, vec![live.clone()]);
    stage.key(&live, Some(true));
    stage.until(MINUTES, |world| condition(world, "OrphanedKeys").is_some()).await;
    let asked = |world: &World| world.requests.iter().filter(|of| of.contains("/apikeys/")).count();
    stage.pass(Duration::from_hours(1)).await;
    assert_eq!(asked(&stage.world()), 0, "who waits for a person asks for no owner");
    stage.annotate(annotation::REVOKE, &live.attempt.unwrap());
    let took = stage.until(MINUTES, |world| states(world).is_empty()).await;
    assert!(took < Duration::from_mins(1), "{took:?}");
    assert!(!stage.world().keys[0].alive);
    assert!(stage.world().requests.contains(&"BAGS /api/v1/agent/dev/keys/revoke".to_owned()));
}
