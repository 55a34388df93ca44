//! What a 404 for a revocation says of Bags' revoke endpoint, and what it does not.

use super::*;
use crate::api::{account::Capability, annotation};

#[tokio::test]
async fn a_key_that_bags_does_not_find_does_not_take_the_revocation_from_the_others() {
    for fresh_process in [false, true] {
        let (first, second) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
        let mut stage = stage(true, vec![first.clone(), second.clone()]);
        stage.key(&first, Some(true));
        stage.key(&second, Some(true));
        stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
        if fresh_process {
            let installation = Installation { cluster: CLUSTER.into(), namespace: "bags".into() };
            let successor = operator(&stage.world, &stage.clock, &stage.keys, installation);
            stage.context = Arc::new(successor);
        }
        stage.world().can_revoke = false;
        stage.annotate(annotation::REVOKE, &second.attempt.unwrap());
        stage.until(MINUTES, |world| condition(world, "RevocationNeedsPerson").is_some()).await;
        let asked = condition(&stage.world(), "RevocationNeedsPerson").cloned().unwrap();
        assert_eq!(asked.reason, "RevocationRefused", "fresh process: {fresh_process}");
        let capabilities = stage.world().account.status.as_ref().map(|status| status.capabilities.clone());
        assert_eq!(capabilities.unwrap().revoke, Capability::Yes, "fresh process: {fresh_process}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_still_missing_a_day_later_takes_the_question_from_nobody() {
    let mut stage = a_person_is_asked().await;
    // Another process knows it from the status.
    let installation = Installation { cluster: CLUSTER.into(), namespace: "bags".into() };
    stage.context = Arc::new(operator(&stage.world, &stage.clock, &stage.keys, installation));
    let sent = |world: &World| world.requests.iter().filter(|came| came.ends_with("/keys/revoke")).count();
    let before = sent(&stage.world());
    // At first nobody answers to that look.
    stage.world().misrouted = [503, 503].into();
    let end = stage.clock.wall() + Duration::from_hours(25);
    while stage.clock.wall() < end {
        // One run.
        stage.pass(Duration::from_nanos(1)).await;
        assert!(condition(&stage.world(), "RevocationNeedsPerson").is_some());
    }
    let world = stage.world();
    assert_eq!(sent(&world) - before, 3, "once a day it is looked whether there is one by now");
    let asked = world.events.iter().filter(|event| *event == "RevocationNeedsPerson").count();
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_404_that_passes_takes_the_revocation_from_nobody() {
    for known in [false, true] {
        let (first, second) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
        let mut stage = stage(true, vec![first.clone(), second.clone()]);
        stage.owner(1);
        stage.key(&first, Some(true));
        stage.key(&second, Some(true));
        // Once a list has been seen, a 404 that lasts is the endpoint's.
        if known {
            stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
            let third = Slot { state: SlotState::Revoking, ..aged(2, SlotState::Live) };
            stage.key(&third, Some(true));
            let mut world = stage.world();
            world.account.status.as_mut().unwrap().slots.push(third);
            world.changed();
        }
        // Two in a row, and again after another answer.
        stage.world().misrouted = [404, 404, 503, 404, 404].into();
        let took = stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
        assert!(took < Duration::from_mins(1), "known: {known}: {took:?}");
        let world = stage.world();
        assert!(!world.events.contains(&"RevocationNeedsPerson".to_owned()), "known: {known}");
        assert_eq!(world.account.status.as_ref().unwrap().capabilities.revoke, Capability::Yes);
    }
}

/// What the account can do, and for what a person is asked.
fn revoking_of(world: &World) -> (Capability, String) {
    let capabilities = world.account.status.as_ref().map(|status| status.capabilities.clone()).unwrap();
    (capabilities.revoke, condition(world, "RevocationNeedsPerson").unwrap().reason.clone())
}

#[tokio::test]
async fn a_key_of_another_user_does_not_take_the_revocation_from_the_others() {
    let former = Slot { user: Some("former".into()), ..aged(0, SlotState::Revoking) };
    let (dying, live) = (aged(1, SlotState::Revoking), aged(2, SlotState::Live));
    let mut stage = stage(true, vec![former.clone(), dying.clone(), live.clone()]);
    stage.owner(2);
    for slot in [&former, &dying, &live] {
        stage.key(slot, Some(true));
    }
    {
        let mut world = stage.world();
        world.keys[0].theirs = true;
        world.account.status.as_mut().unwrap().user = Some("user-1".into());
        world.changed();
    }
    let gone = |world: &World| states(world) == [SlotState::Revoking, SlotState::Live];
    let took = stage.until(MINUTES, gone).await;
    assert!(took < Duration::from_mins(1), "{took:?}");
    assert_eq!(revoking_of(&stage.world()), (Capability::Yes, "KeyOfAnotherUser".to_owned()));
    let asked = condition(&stage.world(), "RevocationNeedsPerson").unwrap().message.clone();
    assert!(asked.contains("user former of Bags"), "{asked}");
    assert!(stage.world().keys[0].alive);
}

#[tokio::test]
async fn a_404_for_a_key_that_no_list_of_the_token_shows_says_nothing_of_the_endpoint() {
    // Whether the token was listed by before, and how many lists fail first.
    for (listed_before, failing) in [(true, 0), (false, 0), (false, 1), (false, 4)] {
        let (lost, dying) = (aged(0, SlotState::Revoking), aged(1, SlotState::Revoking));
        let live = aged(2, SlotState::Live);
        let mut stage = stage(true, vec![live.clone()]);
        stage.owner(2);
        stage.key(&lost, None);
        stage.key(&dying, Some(true));
        stage.key(&live, Some(true));
        // Nobody knows whose the first key is.
        stage.world().keys[0].theirs = true;
        if listed_before {
            reconcile(&stage.context, "main").await;
        }
        {
            let mut world = stage.world();
            world.failing_lists = failing;
            let slots = &mut world.account.status.as_mut().unwrap().slots;
            *slots = vec![lost, dying, live];
            world.changed();
        }
        let case = format!("listed before: {listed_before}, failing: {failing}");
        let gone = |world: &World| states(world) == [SlotState::Revoking, SlotState::Live];
        let took = stage.until(MINUTES, gone).await;
        assert!(took < Duration::from_mins(1), "{case}: {took:?}");
        stage.until(MINUTES, |world| condition(world, "RevocationNeedsPerson").is_some()).await;
        assert_eq!(revoking_of(&stage.world()), (Capability::Yes, "RevocationRefused".to_owned()), "{case}");
    }
}

/// A key is to be revoked where nobody knows yet whether Bags can, and so many lists fail first.
async fn asked_for(can_revoke: bool, failing: usize) -> (Duration, (Capability, String)) {
    let (lost, live) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![lost.clone(), live.clone()]);
    stage.owner(1);
    stage.key(&lost, None);
    stage.key(&live, Some(true));
    {
        let mut world = stage.world();
        world.keys[0].theirs = true;
        world.can_revoke = can_revoke;
        world.failing_lists = failing;
    }
    let took = stage.until(MINUTES, |world| condition(world, "RevocationNeedsPerson").is_some()).await;
    let told = revoking_of(&stage.world());
    (took, told)
}

#[tokio::test]
async fn a_list_that_fails_for_a_moment_takes_the_revocation_from_no_key() {
    for failing in [1, 4] {
        let (took, told) = asked_for(true, failing).await;
        assert_eq!(
            told,
            (Capability::Unknown, "RevocationRefused".to_owned()),
            "{failing}: of this key alone"
        );
        assert!(took < Duration::from_mins(1), "{failing}: {took:?}");
    }
}

#[tokio::test]
async fn lists_that_fail_again_and_again_keep_nobody_from_being_asked_for_a_revocation() {
    let (took, told) = asked_for(false, usize::MAX).await;
    assert_eq!(told, (Capability::No, "NoRevokeEndpoint".to_owned()));
    assert!(took < Duration::from_mins(1), "{took:?}");
}

#[tokio::test]
async fn a_revoke_endpoint_is_tried_again_once_its_path_is_corrected() {
    let (dying, live) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![dying.clone(), live.clone()]);
    stage.key(&dying, Some(true));
    stage.key(&live, Some(true));
    stage.owner(1);
    let path = |stage: &Stage, path: &str| {
        let mut world = stage.world();
        world.account.spec.revocation = serde_json::from_value(json!({"path": path})).unwrap();
        world.changed();
    };
    path(&stage, "/wrong");
    stage.until(MINUTES, |world| condition(world, "RevocationNeedsPerson").is_some()).await;
    path(&stage, "/agent/dev/keys/revoke");
    let took = stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
    assert!(took < Duration::from_mins(1), "{took:?}");
}
