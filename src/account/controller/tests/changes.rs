//! An account that is edited, replaced or deleted, and another installation beside this one.

use std::collections::BTreeSet;

use futures::{FutureExt, StreamExt};

use super::*;
use crate::{api::BagsAccountStatus, operator::wake::Wake};

#[tokio::test]
async fn two_installations_of_one_cluster_do_not_answer_each_other() {
    let live = aged(0, SlotState::Live);
    let mut stage = stage(true, vec![live.clone()]);
    stage.owner(0);
    stage.key(&live, Some(true));
    let other = Installation { cluster: CLUSTER.into(), namespace: "other".into() };
    let neighbour = Arc::new(operator(&stage.world, &stage.clock, &stage.keys, other));
    let writes = |world: &World| world.requests.iter().filter(|request| request.starts_with("PUT")).count();
    reconcile(&stage.context, "main").await;
    let before = writes(&stage.world());
    for context in [&neighbour, &stage.context, &neighbour] {
        assert!(matches!(reconcile(context, "main").await, Outcome::Wait(wait) if !wait.is_zero()));
    }
    assert_eq!(writes(&stage.world()), before);
    assert_eq!(condition(&stage.world(), "Ready").unwrap().status, "True");
    assert_eq!(stage.world().events, ["ForeignInstallation"], "said once, where it wakes nobody");
}

#[tokio::test]
async fn an_edit_of_the_rate_in_the_middle_of_a_run_forgets_nothing_that_the_run_learns() {
    let stage = stage(true, vec![]);
    let memory = |per_hour| {
        stage.world().account.spec.requests_per_hour = Some(per_hour);
        let account = stage.world().account.clone();
        stage.context.memory_of("main", &account)
    };
    let held = memory(250);
    let edited = memory(20);
    held.remember("a", |key| key.closed = true);
    held.budget.pause_until(stage.clock.wall() + Duration::from_mins(5));
    assert!(edited.key("a").closed && edited.budget.paused_until().is_some());
    assert_eq!(edited.budget.remaining(), 10);
}

/// Whether any metric speaks of the account.
fn is_measured(stage: &Stage) -> bool {
    stage.context.metrics.encode().contains("account=\"main\"")
}

#[tokio::test]
async fn an_account_that_goes_while_it_is_looked_at_leaves_no_metric() {
    let stage = stage(true, vec![]);
    for _ in 0..2 {
        reconcile(&stage.context, "main").await;
    }
    assert!(is_measured(&stage));
    // All that is left to do is to show the pause.
    let account = stage.world().account.clone();
    let pause = stage.clock.wall() + Duration::from_mins(5);
    stage.context.memory_of("main", &account).budget.pause_until(pause);
    let before = stage.world().requests.len();
    stage.world().goes = true;
    reconcile(&stage.context, "main").await;
    assert_eq!(stage.world().requests.len(), before + 1);
    assert!(!is_measured(&stage));
}

#[tokio::test]
async fn an_account_that_went_while_nobody_watched_leaves_no_metric_and_one_that_took_its_place_keeps_its_own()
 {
    let stage = stage(true, vec![]);
    let accounts = stage.world().accounts.as_reader();
    let secrets = stage.world().stored.as_reader();
    let (wake, _keys, _accounts) =
        Wake::new(stage.keys.as_reader(), accounts, secrets, stage.context.clone());
    let watched = |event: &watcher::Event<BagsAccount>| {
        stage.world().accounts.apply_watcher_event(event);
        wake.by_account(event);
    };
    let mut next = stage.world().account.clone();
    next.metadata.uid = Some("uid-of-the-next".to_owned());
    for event in [watcher::Event::Init, watcher::Event::InitApply(next), watcher::Event::InitDone] {
        watched(&event);
    }
    assert!(is_measured(&stage), "it is the next one's");
    for event in [watcher::Event::Init, watcher::Event::InitDone] {
        watched(&event);
    }
    assert!(!is_measured(&stage));
}

#[tokio::test]
async fn when_an_apikey_waits_no_more_those_who_wait_are_woken_and_those_with_a_key_are_not() {
    let live = aged(0, SlotState::Live);
    let mut stage = stage(true, vec![live.clone()]);
    for (n, account) in [(0, "main"), (1, "main"), (2, "main"), (3, "another")] {
        stage.owner_of(n, account);
    }
    let accounts = stage.world().accounts.as_reader();
    let secrets = stage.world().stored.as_reader();
    let (wake, mut woken, _accounts) =
        Wake::new(stage.keys.as_reader(), accounts, secrets, stage.context.clone());
    let keys = stage.keys.as_reader();
    let named = |n: usize| {
        let found = keys.find(|key| key.name_any() == owner(n).name);
        ApiKey::clone(&found.unwrap())
    };
    let mut told = |event: watcher::Event<ApiKey>| {
        wake.by_key(&event);
        let names = std::iter::from_fn(|| woken.next().now_or_never().flatten().map(|key| key.name));
        names.collect::<BTreeSet<_>>()
    };
    let waits = BTreeSet::from([owner(2).name]);
    assert_eq!(told(watcher::Event::Delete(named(1))), waits);
    let mut resting = named(1);
    assert_eq!(told(watcher::Event::Apply(resting.clone())), BTreeSet::new(), "it waits on");
    resting.spec.suspend = Some(true);
    assert_eq!(told(watcher::Event::Apply(resting)), waits);
    let mut with_key = named(0);
    with_key.spec.suspend = Some(true);
    assert_eq!(told(watcher::Event::Apply(with_key)), BTreeSet::new(), "it keeps its slot");
}

#[tokio::test]
async fn a_lost_ledger_that_cannot_be_put_together_names_the_secret_that_may_not_be_read() {
    let live = aged(0, SlotState::Live);
    let mut stage = stage(true, vec![]);
    stage.owner(0);
    stage.key(&live, Some(true));
    {
        let mut world = stage.world();
        world.hides_secrets = true;
        world.account.status = None;
        world.changed();
    }
    stage.until(MINUTES, |world| condition(world, "Ready").is_some()).await;
    {
        let world = stage.world();
        let told = condition(&world, "Ready").unwrap();
        assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", "LedgerLost"));
        for part in ["Secret \"app-0\"", "namespace \"shop\"", "403"] {
            assert!(told.message.contains(part), "{part} is not in: {}", told.message);
        }
        assert_eq!(world.events, ["ReconcileFailed"]);
        assert!(states(&world).is_empty() && world.account.status.as_ref().unwrap().installation.is_none());
    }
    stage.world().hides_secrets = false;
    stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
    assert_eq!(condition(&stage.world(), "Ready").unwrap().status, "True");
}

#[tokio::test]
async fn a_deleted_account_goes_when_its_last_slot_is_gone() {
    let dying = aged(0, SlotState::Revoking);
    let stage = stage(true, vec![dying.clone()]);
    stage.key(&dying, Some(true));
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH);
    stage.world().account.metadata.deletion_timestamp = Some(now);
    stage.world().changed();
    stage.until(MINUTES, |world| world.account.finalizers().is_empty()).await;
    assert!(states(&stage.world()).is_empty());
}

#[tokio::test]
async fn a_dead_value_whose_secret_changed_meanwhile_keeps_a_deleted_account_for_no_resync() {
    let dead = aged(0, SlotState::Revoking);
    let stage = stage(true, vec![]);
    stage.key(&dead, Some(true));
    let changed = {
        let mut world = stage.world();
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH);
        world.account.metadata.deletion_timestamp = Some(now);
        world.account.status.as_mut().unwrap().departed = vec![dead.attempt.unwrap()];
        world.secrets[0].metadata.resource_version = Some("2".to_owned());
        world.changed();
        watcher::Event::Apply(world.secrets[0].clone())
    };
    let accounts = stage.world().accounts.as_reader();
    let secrets = stage.world().stored.as_reader();
    let (wake, _keys, mut woken) =
        Wake::new(stage.keys.as_reader(), accounts, secrets, stage.context.clone());
    reconcile(&stage.context, "main").await;
    assert_eq!(stage.world().secrets.len(), 1, "it is not what the cache shows");
    assert!(!stage.world().account.finalizers().is_empty());
    stage.world().stored.apply_watcher_event(&changed);
    wake.by_secret(&changed);
    assert_eq!(woken.next().now_or_never().flatten().map(|account| account.name), Some("main".to_owned()));
    reconcile(&stage.context, "main").await;
    assert!(stage.world().secrets.is_empty() && stage.world().account.finalizers().is_empty());
}

#[tokio::test]
async fn an_account_that_a_newer_version_holds_is_told_so_and_is_not_changed() {
    let (live, held) = (aged(0, SlotState::Live), aged(1, SlotState::Unknown("Hibernating".into())));
    let mut stage = stage(true, vec![live.clone(), held]);
    stage.owner(0);
    stage.key(&live, Some(true));
    let pause = stage.clock.wall() + Duration::from_mins(5);
    let account = stage.world().account.clone();
    stage.context.memory_of("main", &account).budget.pause_until(pause);
    stage.pass(Duration::from_mins(30)).await;
    let world = stage.world();
    assert_eq!(condition(&world, "Ready").unwrap().reason, "UnknownSlotState");
    let writes = world.requests.iter().filter(|sent| !sent.starts_with("GET") && !sent.starts_with("BAGS"));
    let writes: BTreeSet<&str> = writes.map(String::as_str).collect();
    assert_eq!(writes, BTreeSet::from(["PATCH /apis/keys.bags.fm/v1alpha1/bagsaccounts/main/status"]));
    let (before, after) = (account.status.unwrap(), world.account.status.clone().unwrap());
    let BagsAccountStatus { conditions, observed_generation, .. } = after.clone();
    assert_eq!(BagsAccountStatus { conditions, observed_generation, ..before }, after);
}
