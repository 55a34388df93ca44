//! A key is revoked and proven dead, or a person is asked for it.

use super::*;
use crate::api::{account::Capability, annotation};

#[tokio::test]
async fn a_condemned_key_is_revoked_and_gone_within_seconds() {
    let mut dying = aged(0, SlotState::Revoking);
    dying.since = Timestamp::from_second(1_800_000_000).unwrap();
    let mut stage = stage(true, vec![dying.clone()]);
    stage.key(&dying, Some(true));
    stage.owner(0);
    let took = stage.until(MINUTES, |world| states(world) == [SlotState::Reserved]).await;
    assert_eq!(took, Duration::from_secs(1));
    let world = stage.world();
    let asked = |path: &str| world.requests.iter().filter(|request| request.ends_with(path)).count();
    assert_eq!((asked("/auth/me"), asked("/keys/revoke")), (3, 1));
    assert!(world.secrets.is_empty() && !world.keys[0].alive);
    assert_eq!(world.events, ["KeyRevoked"]);
    assert_eq!(world.account.status.as_ref().unwrap().capabilities.revoke, Capability::Yes);
}

#[tokio::test]
async fn a_lost_key_is_revoked_and_proven_gone_by_two_lists() {
    let (lost, live) = (aged(0, SlotState::Lost), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![lost.clone(), live.clone()]);
    stage.key(&lost, None);
    stage.key(&live, Some(true));
    stage.owner(1);
    let took = stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
    assert!((Duration::from_secs(30)..Duration::from_secs(40)).contains(&took), "{took:?}");
    let world = stage.world();
    assert_eq!(world.keys.iter().map(|key| key.alive).collect::<Vec<_>>(), [false, true]);
    assert_eq!(world.account.status.as_ref().unwrap().covering_token.as_deref(), Some("bags-main/token@1"));
}

#[tokio::test]
async fn where_bags_cannot_revoke_a_person_is_asked_and_their_deed_noticed() {
    let stage = a_person_is_asked().await;
    assert!(stage.world().events.contains(&"RevocationNeedsPerson".to_owned()));
    // Its own last answer is not an hour old: no list shows it any more, and none of them lacks the other key.
    stage.pass(Duration::from_mins(15)).await;
    assert_eq!(states(&stage.world()), [SlotState::Revoking, SlotState::Live]);
    stage.world().keys[0].alive = false;
    let took = stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
    assert!(took < Duration::from_mins(15), "{took:?}");
    assert!(condition(&stage.world(), "RevocationNeedsPerson").is_none());
}

#[tokio::test]
async fn a_persons_deed_is_noticed_by_the_key_itself_where_no_list_comes_any_more() {
    for trouble in ["the token is refused", "its Secret is deleted", "there is no list"] {
        let stage = a_person_is_asked().await;
        // The last list shows it.
        stage.pass(Duration::from_mins(15)).await;
        {
            let mut world = stage.world();
            match trouble {
                "the token is refused" => world.refuses_token = true,
                "there is no list" => world.no_list = true,
                _ => world.stored.apply_watcher_event(&watcher::Event::Delete(token())),
            }
        }
        stage.pass(Duration::from_mins(25)).await;
        assert_eq!(states(&stage.world()), [SlotState::Revoking, SlotState::Live], "{trouble}");
        stage.world().keys[0].alive = false;
        stage.until(Duration::from_hours(3), |world| states(world) == [SlotState::Live]).await;
    }
}

#[tokio::test]
async fn a_list_that_lags_behind_a_revocation_calls_it_ineffective_for_nobody() {
    for (late_lists, expected) in [(1, 1), (100, 2)] {
        let (lost, live) = (aged(0, SlotState::Lost), aged(1, SlotState::Live));
        let mut stage = stage(true, vec![lost.clone(), live.clone()]);
        stage.key(&lost, None);
        stage.key(&live, Some(true));
        stage.owner(1);
        let sent =
            |world: &World| world.requests.iter().filter(|came| came.ends_with("/keys/revoke")).count();
        stage.until(MINUTES, |world| sent(world) == 1).await;
        stage.world().late_lists = late_lists;
        stage.pass(Duration::from_mins(25)).await;
        let told = stage.world().events.contains(&"RevocationHasNoEffect".to_owned());
        assert_eq!(told, expected > 1, "{late_lists} lists show it");
        assert!(sent(&stage.world()) >= expected, "{late_lists} lists show it");
        stage.world().late_lists = 0;
        stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
        assert!(told || sent(&stage.world()) == 1);
    }
}

#[tokio::test]
async fn a_typo_in_the_expected_user_delays_no_revocation() {
    let of_user = |slot: Slot| Slot { user: Some("user-1".into()), ..slot };
    let (live, other) = (of_user(aged(0, SlotState::Live)), of_user(aged(1, SlotState::Live)));
    let mut stage = stage(true, vec![live.clone(), other.clone()]);
    for (n, slot) in [&live, &other].into_iter().enumerate() {
        stage.owner(n);
        stage.key(slot, Some(true));
    }
    {
        let mut world = stage.world();
        world.account.spec.expected_user = Some("typo".into());
        world.changed();
    }
    reconcile(&stage.context, "main").await;
    // What that list showed is older than the question.
    *stage.clock.passed.lock().unwrap() += Duration::from_secs(10);
    let since = stage.clock.wall();
    {
        let mut world = stage.world();
        let slots = &mut world.account.status.as_mut().unwrap().slots;
        slots[0] = Slot { state: SlotState::Revoking, since, ..slots[0].clone() };
        world.changed();
    }
    let took = stage.until(MINUTES, |world| !world.keys[0].alive).await;
    assert!(took < Duration::from_mins(1), "{took:?}");
    let events = stage.world().events.clone();
    assert!(!events.contains(&"RevocationNeedsPerson".to_owned()), "{events:?}");
}

#[tokio::test]
async fn of_two_keys_that_go_by_one_id_none_is_revoked_for_the_other_one() {
    let live = aged(1, SlotState::Live);
    let dying = Slot { key_id: live.key_id.clone(), ..aged(0, SlotState::Revoking) };
    let mut stage = stage(true, vec![dying.clone(), live.clone()]);
    stage.owner(1);
    stage.key(&live, Some(true));
    stage.key(&dying, Some(true));
    stage.pass(Duration::from_hours(2)).await;
    assert!(stage.world().keys.iter().all(|key| key.alive), "one of them was revoked");
    let asked = condition(&stage.world(), "RevocationNeedsPerson").cloned().unwrap();
    assert_eq!(asked.reason, "KeyIdShared");
    assert!(asked.message.contains(&dying.key_name.unwrap()), "{}", asked.message);
    // A person goes by its name.
    stage.world().keys[1].alive = false;
    stage.annotate(annotation::RESOLVED, &dying.attempt.unwrap());
    stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
    assert!(stage.world().keys[0].alive);
}

#[tokio::test]
async fn a_wallet_that_cannot_be_read_takes_no_revocation_away() {
    let (dying, live) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![dying.clone(), live.clone()]);
    stage.owner(1);
    stage.key(&dying, Some(true));
    stage.key(&live, Some(true));
    {
        let mut world = stage.world();
        let both = json!({"agentToken": {"secretName": "bags-main"}, "wallet": {"secretName": "gone"}});
        world.account.spec.credentials = serde_json::from_value(both).unwrap();
        world.changed();
    }
    let took = stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
    assert!(took < Duration::from_mins(1), "{took:?}");
    stage.pass(Duration::from_mins(1)).await;
    let world = stage.world();
    assert!(condition(&world, "RevocationNeedsPerson").is_none());
    assert_eq!(condition(&world, "ListCovers").unwrap().reason, "Covers");
    for type_ in ["CredentialsValid", "Ready"] {
        let told = condition(&world, type_).unwrap();
        assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", "CredentialsSecretMissing"));
    }
}

#[tokio::test]
async fn an_account_that_may_not_be_given_its_finalizer_is_looked_after_all_the_same() {
    let dying = aged(0, SlotState::Revoking);
    let stage = stage(true, vec![dying.clone()]);
    stage.key(&dying, Some(true));
    {
        let mut world = stage.world();
        world.keeps_finalizers = true;
        world.account.metadata.finalizers = Some(vec![]);
        world.changed();
    }
    let took = stage.until(MINUTES, |world| states(world).is_empty()).await;
    assert!(took < Duration::from_mins(1), "{took:?}");
    assert!(stage.world().account.finalizers().is_empty());
    assert!(stage.world().events.contains(&"ReconcileFailed".to_owned()), "{:?}", stage.world().events);
    stage.world().keeps_finalizers = false;
    stage.until(MINUTES, |world| !world.account.finalizers().is_empty()).await;
}

/// A minute after its licence a key that Bags does not let in yet leaves its creation for another state, as its ApiKey's
/// reconciler writes it. Another key works. `watched`: this process has seen the creation.
async fn given_up(state: SlotState, value: Option<bool>, published: Option<i64>, watched: bool) -> Stage {
    let licensed = Timestamp::from_second(1_800_000_000).unwrap();
    let young = Slot { since: licensed, ..aged(0, SlotState::Creating) };
    let live = aged(1, SlotState::Live);
    let mut stage = stage(true, vec![young.clone(), live.clone()]);
    stage.key(&young, value);
    stage.key(&live, Some(true));
    stage.owner(0);
    stage.owner(1);
    stage.world().keys[0].alive = false;
    if watched {
        reconcile(&stage.context, "main").await;
    }
    *stage.clock.passed.lock().unwrap() += Duration::from_secs(65);
    let since = stage.clock.wall();
    {
        let mut world = stage.world();
        let slots = &mut world.account.status.as_mut().unwrap().slots;
        slots[0] = Slot { state, since, published, ..slots[0].clone() };
        world.changed();
    }
    stage
}

#[tokio::test]
async fn a_young_key_that_bags_never_accepted_is_not_given_up_by_lists_that_may_lag_behind_its_creation() {
    use SlotState::{Lost, Revoking};
    // Seconds after the licence: four minutes until lists count, and half a minute from the first to the second.
    let cases = [
        ("its value is known", given_up(Revoking, Some(true), None, true).await, 240 + 30),
        ("its value is lost", given_up(Lost, None, None, true).await, 240 + 30),
        ("nobody has seen its creation", given_up(Revoking, Some(true), None, false).await, 65 + 240 + 30),
        ("one that was published", given_up(Revoking, Some(true), Some(1), true).await, 65 + 30),
        (
            "one that was published and whose value is lost",
            given_up(Revoking, None, Some(1), true).await,
            240 + 30,
        ),
    ];
    for (name, stage, expected) in cases {
        let gone = |world: &World| states(world) == [SlotState::Reserved, SlotState::Live];
        let took = stage.until(MINUTES, gone).await;
        assert_eq!(took, Duration::from_secs(expected - 65), "{name}");
    }
}

#[tokio::test]
async fn a_young_key_that_was_left_to_people_is_not_given_up_by_lists_that_may_lag_behind_its_creation() {
    use SlotState::{Live, Lost, Released, Reserved};
    let mut stage = given_up(Released, Some(true), Some(1), true).await;
    // For its sake lists are asked for at once, half a minute apart.
    let lost = aged(2, Lost);
    stage.key(&lost, None);
    stage.owner(2);
    {
        let mut world = stage.world();
        world.account.status.as_mut().unwrap().slots.push(lost);
        world.changed();
    }
    let took = stage.until(MINUTES, |world| states(world) == [Released, Live, Reserved]).await;
    assert!(took < Duration::from_secs(40), "{took:?}");
    stage.until(MINUTES, |world| states(world) == [Live, Reserved]).await;
}

#[tokio::test]
async fn a_key_that_bags_accepts_late_is_still_in_its_slot() {
    let stage = given_up(SlotState::Revoking, Some(true), None, true).await;
    stage.pass(Duration::from_secs(65)).await;
    stage.world().keys[0].alive = true;
    stage.until(MINUTES, |world| condition(world, "RevocationNeedsPerson").is_some()).await;
    assert_eq!(condition(&stage.world(), "RevocationNeedsPerson").unwrap().reason, "StillListed");
    assert_eq!(states(&stage.world()), [SlotState::Revoking, SlotState::Live]);
}

#[tokio::test]
async fn a_person_is_told_where_no_other_key_can_show_that_a_revoked_one_is_dead() {
    let (dying, live) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![dying.clone(), live.clone()]);
    stage.key(&dying, Some(true));
    stage.key(&live, Some(true));
    stage.owner(1);
    stage.world().keys.iter_mut().for_each(|key| key.alive = false);
    stage.until(MINUTES, |world| condition(world, "RevocationNeedsPerson").is_some()).await;
    let asked = condition(&stage.world(), "RevocationNeedsPerson").cloned().unwrap();
    assert_eq!(asked.reason, "NoKeyAccepted", "{}", asked.message);
    assert!(asked.message.contains("no other key of the account"), "{}", asked.message);
    stage.world().keys[1].alive = true;
    stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
}

#[tokio::test]
async fn a_time_in_which_bags_lets_nobody_in_proves_no_key_dead() {
    let asked = |world: &World| world.requests.iter().filter(|request| request.ends_with("/auth/me")).count();
    // Also if the first answer after it is a 401 by accident.
    for accident in [false, true] {
        let dying = Slot { published: Some(1), ..aged(0, SlotState::Revoking) };
        let live = aged(1, SlotState::Live);
        let mut stage = stage(false, vec![dying.clone(), live.clone()]);
        stage.key(&dying, Some(true));
        stage.key(&live, Some(true));
        stage.owner(1);
        stage.world().keys.iter_mut().for_each(|key| key.alive = false);
        stage.pass(Duration::from_mins(2)).await;
        stage.world().keys[0].alive = !accident;
        stage.world().keys[1].alive = true;
        let before = asked(&stage.world());
        stage.until(MINUTES, |world| asked(world) > before).await;
        stage.world().keys[0].alive = true;
        stage.pass(MINUTES).await;
        {
            let world = stage.world();
            assert_eq!(states(&world), [SlotState::Revoking, SlotState::Live], "accident: {accident}");
            assert!(condition(&world, "RevocationNeedsPerson").is_some());
            assert!(!world.events.contains(&"KeyRevoked".to_owned()), "{:?}", world.events);
            assert_eq!(world.secrets.len(), 2);
        }
        stage.world().keys[0].alive = false;
        stage.until(Duration::from_hours(2), |world| states(world) == [SlotState::Live]).await;
    }
}

#[tokio::test]
async fn a_revocation_without_effect_is_told_and_sent_again_until_it_works() {
    let dying = aged(0, SlotState::Revoking);
    let stage = stage(true, vec![dying.clone()]);
    stage.key(&dying, Some(true));
    stage.world().deaf = true;
    let sent = |world: &World| world.requests.iter().filter(|request| request.ends_with("/revoke")).count();
    let took = stage.until(MINUTES, |world| sent(world) == 6).await;
    assert!(took >= Duration::from_secs(1 + 2 + 4 + 8 + 16), "{took:?}");
    assert_eq!(states(&stage.world()), [SlotState::Revoking]);
    assert!(stage.world().events.contains(&"RevocationHasNoEffect".to_owned()));
    stage.world().deaf = false;
    stage.until(MINUTES, |world| states(world).is_empty()).await;
}

#[tokio::test]
async fn a_revocation_that_waits_for_the_operator_s_own_budget_calls_for_nobody() {
    let (dying, live) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![dying.clone(), live.clone()]);
    stage.owner(1);
    stage.key(&dying, Some(true));
    stage.key(&live, Some(true));
    for _ in 0..100 {
        while stage.context.operator_budget.try_take(bags::Priority::Revocation).is_ok() {}
        reconcile(&stage.context, "main").await;
        assert!(condition(&stage.world(), "RevocationNeedsPerson").is_none_or(|told| told.status != "True"));
        *stage.clock.passed.lock().unwrap() += Duration::from_secs(30);
    }
    assert!(!stage.world().requests.iter().any(|request| request.starts_with("BAGS")));
    stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
}

#[tokio::test]
async fn a_revocation_that_is_refused_is_a_persons_and_tried_again_a_day_later() {
    let (dying, live) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![dying.clone(), live.clone()]);
    stage.owner(1);
    stage.key(&dying, Some(true));
    stage.key(&live, Some(true));
    stage.world().forbids = true;
    stage.pass(Duration::from_hours(3)).await;
    let sent = |world: &World| world.requests.iter().filter(|request| request.ends_with("/revoke")).count();
    assert_eq!(sent(&stage.world()), 1);
    let told = condition(&stage.world(), "RevocationNeedsPerson").unwrap().clone();
    assert_eq!(told.reason, "RevocationRefused");
    assert!(told.message.contains("not with this token") && told.message.contains("24h"), "{}", told.message);
    stage.world().forbids = false;
    let took = stage.until(Duration::from_hours(25), |world| states(world) == [SlotState::Live]).await;
    assert!(took > Duration::from_hours(20), "{took:?}");
}

#[tokio::test]
async fn a_secret_that_may_not_be_deleted_keeps_nobody_from_being_asked_for_a_revocation() {
    let (dying, live) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let gone = aged(2, SlotState::Revoking);
    let (creating, place) = (aged(3, SlotState::Creating), aged(4, SlotState::Reserved));
    let mut stage = stage(true, vec![dying.clone(), live.clone(), creating.clone(), place]);
    stage.owner(1);
    stage.owner(3);
    for slot in [&dying, &live, &gone] {
        stage.key(slot, Some(true));
    }
    stage.key(&creating, Some(false));
    {
        let mut world = stage.world();
        world.keys[2].alive = false;
        world.can_revoke = false;
        world.keeps_secrets = true;
        world.account.status.as_mut().unwrap().departed = vec![gone.attempt.unwrap()];
        world.changed();
    }
    stage.until(MINUTES, |world| condition(world, "RevocationNeedsPerson").is_some()).await;
    {
        let world = stage.world();
        let listed = "BAGS /api/v1/agent/dev/keys".to_owned();
        assert!(world.requests.contains(&listed), "what comes after it is done as well");
        assert!(world.events.contains(&"ReconcileFailed".to_owned()), "{:?}", world.events);
        assert_eq!(world.secrets.len(), 4);
    }
    let took = stage.until(MINUTES, |world| !states(world).contains(&SlotState::Reserved)).await;
    assert!(took <= Duration::from_mins(2), "{took:?}: a place waits for nobody's Secret");
    assert!(
        states(&stage.world()).contains(&SlotState::Creating),
        "it is not judged before its value cannot arrive"
    );
    stage.world().keeps_secrets = false;
    stage.until(MINUTES, |world| world.secrets.len() == 2).await;
}

#[tokio::test]
async fn a_rate_limit_keeps_no_revocation_waiting_for_its_end() {
    let (dying, live) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![dying.clone(), live.clone()]);
    stage.owner(1);
    stage.key(&dying, Some(true));
    stage.key(&live, Some(true));
    stage.world().limited = 1;
    let sent = |world: &World| world.requests.iter().filter(|request| request.ends_with("/revoke")).count();
    let took = stage.until(MINUTES, |world| sent(world) == 2).await;
    assert_eq!(took, Duration::from_secs(30), "not at once, nor an hour later");
    let took = stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
    assert!(took <= Duration::from_mins(1), "{took:?}");
    let asked = stage.world().requests.iter().filter(|request| request.starts_with("BAGS")).count();
    assert!(asked <= 5, "{asked}: in the pause one in thirty seconds");
}

#[tokio::test]
async fn a_revoked_key_that_answers_neither_life_nor_death_is_asked_ever_more_rarely() {
    let dying = aged(0, SlotState::Revoking);
    let stage = stage(true, vec![dying.clone()]);
    stage.key(&dying, Some(true));
    let asked = |world: &World| world.requests.iter().filter(|request| request.ends_with("/auth/me")).count();
    reconcile(&stage.context, "main").await;
    assert_eq!(asked(&stage.world()), 2, "before its revocation, and after it");
    stage.world().suspended = true;
    stage.pass(Duration::from_hours(1)).await;
    let more = asked(&stage.world()) - 2;
    assert!((10..=20).contains(&more), "{more}");
    assert_eq!(condition(&stage.world(), "RevocationNeedsPerson").unwrap().reason, "DeathUnclear");
    stage.world().suspended = false;
    let took = stage.until(MINUTES, |world| states(world).is_empty()).await;
    assert!(took <= Duration::from_mins(6), "{took:?}");
}

#[tokio::test]
async fn a_revoked_key_that_something_refuses_in_bags_stead_goes_by_a_persons_word_and_by_nothing_else() {
    let dying = aged(0, SlotState::Revoking);
    let stage = stage(true, vec![dying.clone()]);
    stage.key(&dying, Some(true));
    stage.world().strange = true;
    stage.pass(Duration::from_mins(5)).await;
    assert!(!stage.world().keys[0].alive, "it was revoked");
    assert!(condition(&stage.world(), "RevocationNeedsPerson").is_none(), "it may pass");
    stage.pass(Duration::from_hours(2)).await;
    assert_eq!(states(&stage.world()), [SlotState::Revoking]);
    assert_eq!(condition(&stage.world(), "RevocationNeedsPerson").unwrap().reason, "DeathUnclear");
    stage.annotate(annotation::RESOLVED, &dying.attempt.unwrap());
    let took = stage.until(MINUTES, |world| states(world).is_empty()).await;
    assert!(took < Duration::from_mins(1), "{took:?}");
}

#[tokio::test]
async fn a_persons_word_ends_a_key_that_worked_and_answers_neither_life_nor_death() {
    for suspended in [false, true] {
        let dying = aged(0, SlotState::Revoking);
        let stage = stage(false, vec![dying.clone()]);
        stage.key(&dying, Some(true));
        // It works until a person has removed it.
        stage.pass(Duration::from_mins(2)).await;
        {
            let mut world = stage.world();
            world.keys[0].alive = false;
            world.suspended = suspended;
            world.strange = true;
        }
        stage.annotate(annotation::RESOLVED, &dying.attempt.unwrap());
        let took = stage.until(MINUTES, |world| states(world).is_empty()).await;
        let minutes = Duration::from_mins(10)..=Duration::from_mins(15);
        assert!(minutes.contains(&took), "suspended: {suspended}: {took:?}");
    }
}
