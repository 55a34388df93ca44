//! Creations that nobody knows the outcome of.

use super::*;
use crate::api::annotation;

#[tokio::test]
async fn a_creation_that_made_a_key_unseen_is_found_by_its_name_and_revoked() {
    let made = Slot { key_id: None, ..aged(0, SlotState::Creating) };
    let mut stage = stage(true, vec![made.clone()]);
    stage.key(&Slot { key_id: Some("id-7".into()), ..made }, Some(false));
    stage.owner(0);
    stage.until(MINUTES, |world| states(world) == [SlotState::Revoking]).await;
    assert!(stage.world().secrets.is_empty());
    assert!(stage.world().events.contains(&"KeyLost".to_owned()));
    stage.until(MINUTES, |world| !world.keys[0].alive).await;
}

#[tokio::test]
async fn a_key_that_comes_after_its_attempt_left_counts_once_no_list_can_lag_any_more() {
    let (late, live) = (aged(0, SlotState::Creating), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![live.clone()]);
    stage.owner(1);
    stage.key(&live, Some(true));
    stage.world().account.status.as_mut().unwrap().departed = vec![late.attempt.clone().unwrap()];
    stage.world().changed();
    stage.key(&late, None);
    let unmanaged = |world: &World| {
        world.account.status.as_ref().and_then(|status| status.capacity.as_ref()).map(|sums| sums.unmanaged)
    };
    stage.pass(Duration::from_mins(9)).await;
    assert_eq!(unmanaged(&stage.world()), Some(0));
    stage.until(MINUTES, |world| unmanaged(world) == Some(1)).await;
}

#[tokio::test]
async fn lists_of_a_token_of_the_accounts_former_user_do_not_judge_a_creation_for_the_next_one() {
    let cases = [("user-1", None, SlotState::Reserved), ("next", Some("next"), SlotState::Unresolved)];
    for (licensed_for, named, expected) in cases {
        let made = Slot { key_id: None, user: Some(licensed_for.into()), ..aged(0, SlotState::Creating) };
        let mut stage = stage(true, vec![made.clone()]);
        stage.key(&Slot { key_id: Some("id-7".into()), ..made }, Some(false));
        stage.owner(0);
        {
            let mut world = stage.world();
            // The next user's key is on no list of this token, and the former one's was not made.
            world.keys[0].theirs = true;
            world.account.spec.expected_user = named.map(str::to_owned);
            let status = world.account.status.as_mut().unwrap();
            status.user = Some("user-1".into());
            status.covering_token = Some("bags-main/token@1".into());
            world.changed();
        }
        stage.until(MINUTES, |world| states(world) != [SlotState::Creating]).await;
        assert_eq!(states(&stage.world()), [expected], "{named:?}");
    }
}

#[tokio::test]
async fn what_a_list_proved_for_the_former_user_does_not_come_back_with_the_next_one() {
    let (lost, live) = (aged(0, SlotState::Lost), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![lost.clone(), live.clone()]);
    stage.key(&lost, None);
    stage.key(&live, Some(true));
    stage.owner(1);
    let covering = |world: &World| world.account.status.as_ref().unwrap().covering_token.clone();
    {
        let mut world = stage.world();
        world.account.status.as_mut().unwrap().user = Some("user-1".into());
        world.changed();
    }
    stage.until(MINUTES, |world| covering(world).is_some()).await;
    // What the publication of the next user's first key writes.
    {
        let mut world = stage.world();
        world.account.spec.expected_user = Some("next".into());
        let status = world.account.status.as_mut().unwrap();
        status.pin_user(Some("next".into()));
        status.slots = vec![];
        world.changed();
    }
    stage.pass(Duration::from_secs(5)).await;
    assert_eq!(covering(&stage.world()), None);
}

#[tokio::test]
async fn without_a_list_an_unanswered_creation_waits_for_a_person() {
    let unanswered = aged(0, SlotState::Creating);
    let mut stage = stage(false, vec![unanswered.clone()]);
    stage.owner(0);
    stage.until(MINUTES, |world| states(world) == [SlotState::Unresolved]).await;
    let attempt = unanswered.attempt.unwrap();
    assert!(condition(&stage.world(), "KeyUnresolved").unwrap().message.contains(&attempt));
    assert_eq!(stage.world().events, ["KeyUnresolved"]);
    stage.annotate(annotation::RESOLVED, &attempt);
    stage.until(MINUTES, |world| states(world).is_empty()).await;
    assert!(condition(&stage.world(), "KeyUnresolved").is_none());
}

#[tokio::test]
async fn a_creation_is_judged_also_when_the_wall_clock_was_set_back() {
    let made = Slot { since: Timestamp::from_second(1_800_000_000).unwrap(), ..aged(0, SlotState::Creating) };
    let live = aged(1, SlotState::Live);
    let mut stage = stage(true, vec![made.clone(), live.clone()]);
    stage.key(&made, Some(false));
    stage.key(&live, Some(true));
    stage.owner(0);
    stage.owner(1);
    stage.world().keys.remove(0);
    stage.pass(Duration::from_secs(10)).await;
    *stage.clock.back.lock().unwrap() = Duration::from_hours(5);
    let took = stage.until(MINUTES, |world| states(world)[0] == SlotState::Reserved).await;
    assert!(took < Duration::from_mins(20), "{took:?}");
}
