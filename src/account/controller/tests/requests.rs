//! What an account asks Bags for, when it waits with that, and what it takes from the answers.

use futures::FutureExt;

use super::*;
use crate::{
    account::listing::{self, Listed},
    api::account::Capability,
};

#[tokio::test]
async fn an_idle_account_lists_at_the_resync_and_asks_nobody_else_anything() {
    let live = aged(0, SlotState::Live);
    let mut stage = stage(true, vec![live.clone()]);
    stage.owner(0);
    stage.key(&live, Some(true));
    assert!(matches!(reconcile(&stage.context, "main").await, Outcome::Wait(_)));
    let first = std::mem::take(&mut stage.world().requests);
    assert_eq!(
        first,
        ["BAGS /api/v1/agent/dev/keys", "PUT /apis/keys.bags.fm/v1alpha1/bagsaccounts/main/status"]
    );
    for _ in 0..3 {
        reconcile(&stage.context, "main").await;
    }
    assert_eq!(stage.world().requests, [""; 0]);
    stage.until(Duration::from_hours(2), |world| world.requests.len() == 6).await;
    assert!(*stage.clock.passed.lock().unwrap() >= Duration::from_mins(60));
    assert!(stage.world().requests.iter().all(|request| request == "BAGS /api/v1/agent/dev/keys"));
    assert_eq!(stage.world().events, [""; 0]);
}

#[tokio::test]
async fn those_who_wait_for_a_list_share_the_one_that_began_after_they_asked() {
    let stage = stage(true, vec![]);
    let account = stage.world().account.clone();
    let memory = stage.context.memory_of("main", &account);
    let credentials = stage.context.credentials(&account).unwrap();
    let fresh = || listing::fresh(&stage.context, &account, &memory, &credentials, Duration::ZERO);
    let lists = || stage.world().requests.iter().filter(|sent| sent.ends_with("/dev/keys")).count();
    stage.world().takes = Duration::from_secs(2);
    let held = memory.lists.lock().await;
    let mut both = Box::pin(async { tokio::join!(fresh(), fresh()) });
    assert!(both.as_mut().now_or_never().is_none(), "somebody else's list is under way");
    *stage.clock.passed.lock().unwrap() += Duration::from_secs(5);
    drop(held);
    let (first, second) = both.await;
    assert!(first.unwrap().is_some() && second.unwrap().is_some());
    assert_eq!(lists(), 1);
    assert!(fresh().await.unwrap().is_some());
    assert_eq!(lists(), 2, "who asks later has one that began later");
}

#[tokio::test]
async fn a_list_is_shared_while_it_is_young_and_of_the_same_token() {
    let stage = stage(true, vec![]);
    let account = stage.world().account.clone();
    let memory = stage.context.memory_of("main", &account);
    let credentials = stage.context.credentials(&account).unwrap();
    let minute = Duration::from_mins(1);
    let fresh = || listing::fresh(&stage.context, &account, &memory, &credentials, minute);
    let lists = || stage.world().requests.iter().filter(|sent| sent.ends_with("/dev/keys")).count();
    let pass = |seconds| *stage.clock.passed.lock().unwrap() += Duration::from_secs(seconds);
    fresh().await.unwrap();
    pass(50);
    fresh().await.unwrap();
    assert_eq!(lists(), 1, "it is young enough");
    let held = memory.lists.lock().await;
    let mut waiting = Box::pin(fresh());
    assert!(waiting.as_mut().now_or_never().is_none(), "somebody else's list is under way");
    pass(20);
    drop(held);
    waiting.await.unwrap();
    assert_eq!(lists(), 2, "it grew too old meanwhile");
    memory.note(|facts| facts.token = Some("of-another-version".into()));
    fresh().await.unwrap();
    assert_eq!(lists(), 3, "the last one may be another user's");
}

/// What the account's list says of it, as whoever makes a key is told.
async fn listed(stage: &Stage) -> Listed {
    let account = stage.world().account.clone();
    let memory = stage.context.memory_of("main", &account);
    let credentials = stage.context.credentials(&account).unwrap();
    let minute = Duration::from_mins(1);
    listing::fresh(&stage.context, &account, &memory, &credentials, minute).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_list_from_before_a_key_was_published_distrusts_nobody() {
    let (ours, by_hand) = (aged(0, SlotState::Live), aged(1, SlotState::Live));
    let stage = stage(true, vec![]);
    stage.key(&by_hand, None);
    stage.world().calls_user = Some("called-otherwise");
    assert!(!listed(&stage).await.shows_stranger, "nobody knows whose the account is");
    let pass = |seconds| *stage.clock.passed.lock().unwrap() += Duration::from_secs(seconds);
    pass(2);
    let since = stage.clock.wall();
    {
        let mut world = stage.world();
        let status = world.account.status.as_mut().unwrap();
        status.user = Some("user-1".into());
        status.slots = vec![Slot { user: Some("user-1".into()), since, ..ours.clone() }];
        world.changed();
    }
    let lags = listed(&stage).await;
    assert!(lags.shows_stranger && lags.may_miss_ours, "it does not show the key yet");
    stage.key(&ours, None);
    pass(1);
    assert!(!listed(&stage).await.shows_stranger, "whoever asks once more is shown it");
    stage.world().keys[1].alive = false;
    pass(241);
    let stranger = listed(&stage).await;
    assert!(stranger.shows_stranger && !stranger.may_miss_ours, "no list lags for so long");
}

#[tokio::test]
async fn a_token_whose_list_covered_the_account_is_its_users_whatever_rows_call_them() {
    let by_hand = aged(0, SlotState::Live);
    let stage = stage(true, vec![]);
    stage.key(&by_hand, None);
    let covered_by = |token: &str| {
        let mut world = stage.world();
        world.calls_user = Some("called-otherwise");
        let status = world.account.status.as_mut().unwrap();
        (status.user, status.covering_token) = (Some("user-1".into()), Some(token.into()));
        world.changed();
    };
    covered_by("bags-main/token@0");
    assert!(listed(&stage).await.shows_stranger, "another token did");
    covered_by("bags-main/token@1");
    assert!(!listed(&stage).await.shows_stranger);
    stage.world().account.spec.expected_user = Some("typo".into());
    assert!(listed(&stage).await.shows_stranger, "a person has named another one since");
}

/// Somebody puts another token into the account's Secret.
fn put_another_token(stage: &Stage) {
    let token = json!({
        "metadata": {"name": "bags-main", "namespace": "bags", "resourceVersion": "2"},
        "data": {"token": k8s_openapi::ByteString(b"another-for-tests".to_vec())},
    });
    let token = watcher::Event::Apply(serde_json::from_value(token).unwrap());
    stage.world().stored.apply_watcher_event(&token);
}

#[tokio::test]
async fn a_list_by_a_former_token_says_nothing_of_the_next_one() {
    let stage = stage(true, vec![]);
    reconcile(&stage.context, "main").await;
    stage.world().refuses_token = true;
    // The list of this run serves nobody any more.
    *stage.clock.passed.lock().unwrap() += Duration::from_secs(1);
    let account = stage.world().account.clone();
    let memory = stage.context.memory_of("main", &account);
    let credentials = stage.context.credentials(&account).unwrap();
    let fresh = || listing::fresh(&stage.context, &account, &memory, &credentials, Duration::ZERO);
    let accepted = || condition(&stage.world(), "CredentialsValid").map(|told| told.status.clone());
    let held = memory.lists.lock().await;
    let mut former = Box::pin(fresh());
    assert!(former.as_mut().now_or_never().is_none(), "somebody else's list is under way");
    put_another_token(&stage);
    let mut next = Box::pin(reconcile(&stage.context, "main"));
    assert!(next.as_mut().now_or_never().is_none(), "it waits for what the former token is told");
    drop(held);
    let (former, _) = tokio::join!(former, next);
    assert!(former.is_err(), "the former token is refused");
    assert_eq!(accepted().as_deref(), Some("True"));
    // Who began with the former one may come even later.
    assert!(fresh().await.is_err());
    reconcile(&stage.context, "main").await;
    assert_eq!(accepted().as_deref(), Some("True"));
}

#[tokio::test]
async fn an_account_waits_for_its_own_pause_and_for_that_of_all() {
    let stage = stage(true, vec![]);
    let account = stage.world().account.clone();
    let memory = stage.context.memory_of("main", &account);
    assert_eq!(stage.context.paused_until(&memory), None);
    let after = |seconds| stage.clock.wall() + Duration::from_secs(seconds);
    stage.context.operator_budget.pause_until(after(30));
    assert_eq!(stage.context.paused_until(&memory), Some(after(30)));
    memory.budget.pause_until(after(90));
    assert_eq!(stage.context.paused_until(&memory), Some(after(90)));
}

#[tokio::test]
async fn a_pause_that_another_process_was_told_of_holds_for_the_next_one() {
    let stage = stage(true, vec![]);
    let end = stage.clock.wall() + Duration::from_mins(10);
    {
        let mut world = stage.world();
        world.account.status.as_mut().unwrap().paused_until = Some(end);
        world.changed();
    }
    let asked = |world: &World| world.requests.iter().any(|request| request.starts_with("BAGS"));
    reconcile(&stage.context, "main").await;
    assert!(!asked(&stage.world()));
    let took = stage.until(MINUTES, asked).await;
    assert!((Duration::from_mins(10)..Duration::from_mins(11)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn lists_that_nobody_answers_for_are_missing_and_looked_for_again_at_the_resync() {
    let live = aged(0, SlotState::Live);
    let mut stage = stage(true, vec![live.clone()]);
    stage.owner(0);
    stage.key(&live, Some(true));
    stage.world().no_list = true;
    let listed = |world: &World| world.account.status.as_ref().map(|status| status.capabilities.list);
    let lists = |world: &World| world.requests.iter().filter(|it| it.ends_with("/dev/keys")).count();
    stage.until(MINUTES, |world| listed(world) == Some(Capability::No)).await;
    assert_eq!(lists(&stage.world()), 2, "one such answer may be another's");
    stage.world().no_list = false;
    stage.until(MINUTES, |world| listed(world) == Some(Capability::Yes)).await;
}

#[tokio::test]
async fn an_id_that_gives_the_value_away_is_not_taken_from_a_list() {
    let live = aged(0, SlotState::Live);
    let mut stage = stage(true, vec![live.clone()]);
    stage.owner(0);
    stage.key(&live, Some(true));
    let list_as = |stage: &Stage, id: &str| {
        let mut world = stage.world();
        world.keys[0].id = id.to_owned();
        world.account.status.as_mut().unwrap().slots[0].key_id = None;
        world.changed();
    };
    let known = |world: &World| world.account.status.as_ref().unwrap().slots[0].key_id.clone();
    list_as(&stage, "value-of");
    stage.pass(Duration::from_mins(30)).await;
    assert_eq!(known(&stage.world()), None);
    list_as(&stage, "id-1");
    stage.until(MINUTES, |world| known(world) == Some("id-1".into())).await;
}

#[tokio::test]
async fn a_refused_token_is_told_and_forgotten_when_its_secret_changes() {
    let live = aged(0, SlotState::Live);
    let mut stage = stage(true, vec![live.clone()]);
    stage.owner(0);
    stage.key(&live, Some(true));
    stage.world().refuses_token = true;
    reconcile(&stage.context, "main").await;
    let refused = condition(&stage.world(), "CredentialsValid").unwrap().clone();
    assert_eq!((refused.status.as_str(), refused.reason.as_str()), ("False", "TokenRefused"));
    assert_eq!(stage.world().events, ["CredentialsRefused"]);
    let requests = stage.world().requests.len();
    reconcile(&stage.context, "main").await;
    assert_eq!(stage.world().requests.len(), requests, "a refused token is not tried again at once");
    put_another_token(&stage);
    reconcile(&stage.context, "main").await;
    assert_eq!(condition(&stage.world(), "CredentialsValid").unwrap().status, "True");
    assert_eq!(condition(&stage.world(), "Ready").unwrap().status, "True");
    assert_eq!(stage.world().events, ["CredentialsRefused", "CredentialsAccepted", "ListCovers"]);
}

#[tokio::test]
async fn a_refused_token_stays_refused_while_lists_fail_for_another_reason() {
    let live = aged(0, SlotState::Live);
    let mut stage = stage(true, vec![live.clone()]);
    stage.owner(0);
    stage.key(&live, Some(true));
    stage.world().refuses_token = true;
    reconcile(&stage.context, "main").await;
    stage.world().down = true;
    stage.pass(Duration::from_mins(15)).await;
    {
        let world = stage.world();
        assert!(world.requests.iter().filter(|request| request.ends_with("/dev/keys")).count() > 1);
        for type_ in ["CredentialsValid", "Ready"] {
            let told = condition(&world, type_).unwrap();
            assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", "TokenRefused"), "{type_}");
        }
        assert_eq!(world.events, ["CredentialsRefused"]);
    }
    stage.world().down = false;
    stage.world().refuses_token = false;
    let accepted =
        |world: &World| condition(world, "CredentialsValid").is_some_and(|told| told.status == "True");
    stage.until(MINUTES, accepted).await;
}

#[tokio::test]
async fn while_bags_is_down_an_account_asks_ever_more_rarely_and_says_so() {
    let (dying, live) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![dying.clone(), live.clone()]);
    stage.owner(1);
    stage.key(&dying, Some(true));
    stage.key(&live, Some(true));
    stage.world().down = true;
    let hour = Duration::from_hours(1);
    while *stage.clock.passed.lock().unwrap() < hour {
        let Outcome::Wait(wait) = reconcile(&stage.context, "main").await else { panic!("gone") };
        *stage.clock.passed.lock().unwrap() += wait;
    }
    let sent = stage.world().requests.iter().filter(|request| request.starts_with("BAGS")).count();
    assert!((40..100).contains(&sent), "{sent}: in the end everything every five minutes");
    assert_eq!(condition(&stage.world(), "RevocationNeedsPerson").unwrap().reason, "RevocationFails");
    let listed = condition(&stage.world(), "ListCovers").unwrap().clone();
    assert_eq!((listed.status.as_str(), listed.reason.as_str()), ("False", "ServerError"));
    stage.world().down = false;
    stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
}
