//! Two processes, one Lease: one works, the other one takes over.

use std::time::Duration;

use bags_operator::{
    leader::{DRAINED, LEASE_NAME, record::transitions},
    sandbox::{Action, FaultRule, UserOptions, When},
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    support::{
        operator::Operator,
        scene::{LIMIT, Scene, Way, text},
        world::World,
    },
    webhook::restricted_user,
};

const LEADS: &str = "bags_operator_leader 1";
const WAITS: &str = "bags_operator_leader 0";
/// An answer may come later than reconciles have time to end, on a slow machine as well.
const PATIENT: [&str; 5] = [
    "--request-deadline=20s",
    "--answer-deadline=21s",
    "--save-deadline=22s",
    "--judge-after=30s",
    "--licence-term=25s",
];

fn leases(scene: &Scene<'_>) -> Api<Lease> {
    Api::namespaced(scene.client.clone(), &scene.world.launch.namespace)
}

fn holder(lease: Option<&Lease>) -> String {
    let spec = lease.and_then(|lease| lease.spec.as_ref());
    spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default()
}

/// The Lease as it is now.
async fn lease(scene: &Scene<'_>) -> Lease {
    leases(scene).get(LEASE_NAME).await.unwrap()
}

/// Writes who holds the Lease, as a person or another program would.
async fn hand_over(scene: &Scene<'_>, holder: &str) {
    let patch: Value = json!({"spec": {"holderIdentity": holder}});
    leases(scene).patch(LEASE_NAME, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

/// How often an operator reconciled anything.
async fn reconciles(operator: &Operator) -> usize {
    let metrics = operator.metrics().await;
    metrics.lines().filter(|line| line.starts_with("bags_operator_reconciles_total{")).count()
}

/// Applies an ApiKey; it must become a key that works.
async fn a_key_is_made(scene: &Scene<'_>, name: &str) {
    scene.apply(name, json!({})).await;
    scene.ready(name).await;
    scene.working_value(name).await;
}

/// Waits for the second process, which leads once the first one is no more.
async fn takes_over(scene: &Scene<'_>, second: &Operator, before: &Lease) {
    second.shows(LEADS).await;
    let after = lease(scene).await;
    assert_ne!(holder(Some(&after)), holder(Some(before)), "another holder");
    assert_eq!(transitions(&after), transitions(before) + 1);
}

#[tokio::test]
async fn when_the_leader_is_killed_the_other_one_takes_over_and_makes_the_next_key() {
    let mut alone = World::alone(&[]).await;
    let first = alone.world.operator.take().unwrap();
    let world = &alone.world;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    first.shows(LEADS).await;
    let second = world.launch.start().await;
    a_key_is_made(&scene, "first-come").await;
    second.shows(WAITS).await;
    assert_eq!(reconciles(&second).await, 0, "who waits does nothing");
    let before = lease(&scene).await;
    first.kill();
    // Nobody leads: it is stored, and waits.
    scene.apply("second-come", json!({})).await;
    takes_over(&scene, &second, &before).await;
    scene.ready("second-come").await;
    scene.working_value("second-come").await;
    scene.working_value("first-come").await;
    assert_eq!(scene.made().len(), 2, "one key for each");
    second.stop().await;
    assert_eq!(holder(Some(&lease(&scene).await)), "", "given back");
    scene.end().await;
}

#[tokio::test]
async fn a_process_that_cannot_fill_its_caches_leaves_the_lease_to_one_that_can() {
    let mut alone = World::alone(&[]).await;
    alone.world.operator.take().unwrap().stop().await;
    let world = &alone.world;
    let rights = json!([
        {"apiGroups": ["keys.bags.fm", "events.k8s.io", "coordination.k8s.io"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["namespaces", "pods"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "create", "update", "patch", "delete"]},
    ]);
    let user = restricted_user(&world.cluster.client().await, rights).await;
    let blind = world.launch.another().with_user(&world.cluster, user).spawn();
    // It runs, and knows the other kinds.
    blind.shows(WAITS).await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    let other = world.launch.start().await;
    other.shows(LEADS).await;
    a_key_is_made(&scene, "first-come").await;
    blind.shows(WAITS).await;
    blind.stop().await;
    other.stop().await;
    scene.end().await;
}

#[tokio::test]
async fn after_sigterm_the_lease_goes_to_the_other_one_at_once_and_back_again() {
    let mut alone = World::alone(&[]).await;
    let mut leader = alone.world.operator.take().unwrap();
    let world = &alone.world;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    leader.shows(LEADS).await;
    for name in ["first-come", "second-come"] {
        let other = world.launch.start().await;
        other.shows(WAITS).await;
        let before = lease(&scene).await;
        leader.stop().await;
        takes_over(&scene, &other, &before).await;
        a_key_is_made(&scene, name).await;
        leader = other;
    }
    assert_eq!(scene.made().len(), 2, "one key for each");
    assert_eq!(transitions(&lease(&scene).await), 2);
    scene.end().await;
}

#[tokio::test]
async fn a_value_that_is_on_its_way_at_sigterm_is_saved_and_the_next_leader_delivers_it() {
    let mut alone = World::alone(&PATIENT).await;
    let leader = alone.world.operator.take().unwrap();
    let world = &alone.world;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    leader.shows(LEADS).await;
    let other = world.launch.start().await;
    other.shows(WAITS).await;
    // Nothing but the save is waited for as long.
    let late = Action::Delay { by: Duration::from_secs(5), when: When::After };
    let rule = FaultRule::once("/agent/dev/keys/create", late);
    world.sandbox.sandbox.add_fault(rule).unwrap();
    scene.apply("web-dashboard", json!({})).await;
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    let made = async {
        while scene.made().is_empty() {
            pause.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, made).await.expect("the key is made, and its answer comes late");
    let before = lease(&scene).await;
    assert!(text(&scene.stored().await[0], "value").is_empty(), "the answer has not come yet");
    leader.stop().await;
    let stored = scene.stored().await;
    assert_eq!(stored.len(), 1);
    let saved = text(&stored[0], "value");
    takes_over(&scene, &other, &before).await;
    scene.ready("web-dashboard").await;
    assert_eq!(scene.working_value("web-dashboard").await, saved);
    assert_eq!(scene.made().len(), 1, "one key, and its value was not lost");
    scene.end().await;
}

#[tokio::test]
async fn a_leader_whose_lease_is_deleted_or_taken_ends_with_an_error_and_touches_nothing() {
    let mut alone = World::alone(&[]).await;
    let mut leader = alone.world.operator.take().unwrap();
    let world = &alone.world;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    leader.shows(LEADS).await;
    // The API server would make a Lease of a mere replacement: the uid in it tells that it is another one.
    leases(&scene).delete(LEASE_NAME, &DeleteParams::default()).await.unwrap();
    assert_eq!(leader.ends().await, Some(1));
    assert!(leases(&scene).get_opt(LEASE_NAME).await.unwrap().is_none(), "it was made again");
    leader = world.launch.start().await;
    leader.shows(LEADS).await;
    hand_over(&scene, "somebody-else").await;
    assert_eq!(leader.ends().await, Some(1));
    assert_eq!(holder(Some(&lease(&scene).await)), "somebody-else");
    let log = world.launch.log();
    for words in [
        "failed to keep leading",
        "the Lease was deleted",
        "the Lease is held by \"somebody-else\"",
        "Lost the Lease",
    ] {
        assert!(log.contains(words), "{words} is not in the log: {log}");
    }
    hand_over(&scene, "").await;
    let _next = world.launch.start().await;
    a_key_is_made(&scene, "first-come").await;
    assert_eq!(scene.made().len(), 1);
    scene.end().await;
}

#[tokio::test]
async fn a_drained_installation_does_nothing_until_the_lease_is_cleared() {
    let mut alone = World::alone(&[]).await;
    let leader = alone.world.operator.take().unwrap();
    let world = &alone.world;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    leader.shows(LEADS).await;
    hand_over(&scene, DRAINED).await;
    assert_eq!(leader.ends().await, Some(1));
    let next = world.launch.start().await;
    next.shows("bags_operator_drained 1").await;
    scene.apply("first-come", json!({})).await;
    // Shown to whoever looks, and nothing else: it has no status, no finalizer, no place.
    let key = scene.keys().get("first-come").await.unwrap();
    assert!(key.status.is_none() && key.metadata.finalizers.is_none(), "{key:?}");
    assert_eq!((reconciles(&next).await, scene.made().len()), (0, 0));
    assert!(world.launch.log().contains("The installation was drained"));
    hand_over(&scene, "").await;
    next.shows(LEADS).await;
    next.shows("bags_operator_drained 0").await;
    scene.ready("first-come").await;
    scene.working_value("first-come").await;
    scene.end().await;
}
