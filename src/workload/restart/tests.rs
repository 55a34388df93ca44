//! Which workloads are restarted, and in which order.

mod arbitrary;
mod calls;

use serde_json::json;

use super::*;
use crate::workload::fixtures::{
    API_KEY, daemon_set, deployment, marked, read_deployment, stateful_set, with,
};

const MARK: &str = "0a1b2c3d-4";

fn deployment_ref(name: &str) -> WorkloadRef {
    WorkloadRef { kind: WorkloadKind::Deployment, name: name.into(), uid: format!("uid-{name}") }
}

/// Of a Deployment with one stale pod, or none.
fn consumer(workload: Value, stale: bool) -> Consumer {
    consumer_of(read_deployment(workload), stale)
}

fn consumer_of(workload: Workload, stale: bool) -> Consumer {
    let pod = format!("{}-1", workload.reference.name);
    Consumer {
        owner: Owner::Workload(workload.reference.clone()),
        workload: Some(workload),
        pods: vec![pod.clone()],
        stale: if stale { vec![pod] } else { Vec::new() },
    }
}

fn ownerless(owner: Owner, stale: bool) -> Consumer {
    let stale = if stale { vec!["one".to_owned()] } else { Vec::new() };
    Consumer { owner, workload: None, pods: vec!["one".into()], stale }
}

fn fresh(name: &str) -> Consumer {
    consumer(deployment(name), true)
}

fn done(name: &str) -> Consumer {
    consumer(marked(deployment(name), MARK), false)
}

fn underway(name: &str) -> Value {
    with(marked(deployment(name), MARK), "/status/updatedReplicas", json!(1))
}

fn recreated(deployment: Value) -> Value {
    with(deployment, "/spec/strategy", json!({"type": "Recreate"}))
}

/// The API server refuses its mark, the first one or a later one.
fn denied(marked: bool) -> Rest {
    Rest::Refused { words: "denied".into(), marked }
}

/// Marked, and somebody wants no pods of it.
fn empty(name: &str) -> Value {
    let none = json!({"observedGeneration": 3});
    with(with(marked(deployment(name), MARK), "/spec/replicas", json!(0)), "/status", none)
}

fn broken(deployment: Value) -> Value {
    let condition = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
                            "message": "timed out"}]);
    with(with(deployment, "/status/availableReplicas", json!(2)), "/status/conditions", condition)
}

fn planned(consumers: &[Consumer], max_concurrent: usize) -> Plan {
    plan(
        consumers,
        API_KEY,
        MARK,
        &Terms { max_concurrent, allow_gap: true, back: false, resting: &BTreeMap::new() },
    )
}

fn names(references: &[WorkloadRef]) -> Vec<&str> {
    references.iter().map(|reference| reference.name.as_str()).collect()
}

#[test]
fn a_mark_names_the_apikey_and_the_switch() {
    assert_eq!(mark_value("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", 17), "0a1b2c3d-17");
    assert_eq!(mark_value("ü", 1), "ü-1");
}

#[test]
fn one_workload_goes_first_and_the_others_only_after_it_is_done() {
    let three = || [fresh("b"), fresh("c"), fresh("d")];
    let with_first = |first: Consumer| Vec::from_iter([first].into_iter().chain(three()));
    let plan = planned(&three(), 2);
    assert_eq!((names(&plan.mark), names(&plan.waiting)), (vec!["b"], vec!["c", "d"]), "a canary");
    let plan = planned(&with_first(consumer(underway("a"), true)), 2);
    assert_eq!((names(&plan.underway), names(&plan.mark)), (vec!["a"], vec![]), "the canary is under way");
    let plan = planned(&with_first(done("a")), 2);
    assert_eq!((names(&plan.done), names(&plan.mark)), (vec!["a"], vec!["b", "c"]), "the canary is done");
    let plan = planned(&[done("a"), consumer(underway("b"), true), fresh("c"), fresh("d")], 2);
    assert_eq!((names(&plan.underway), names(&plan.mark)), (vec!["b"], vec!["c"]));
    let both = [done("a"), consumer(underway("b"), true), consumer(underway("c"), false), fresh("d")];
    assert!(planned(&both, 2).mark.is_empty());
    assert!(planned(&both, 1).mark.is_empty(), "fewer are allowed than are under way");
    assert_eq!(names(&planned(&both, 5).mark), ["d"]);
    assert!(planned(&three(), 0).mark.is_empty());
}

#[test]
fn a_canary_without_pods_has_shown_nothing() {
    let empty = |name| consumer(empty(name), false);
    let plan = planned(&[empty("a"), fresh("b"), fresh("c")], 2);
    assert_eq!(
        (names(&plan.done), names(&plan.mark), names(&plan.waiting)),
        (vec!["a"], vec!["b"], vec!["c"])
    );
    let plan = planned(&[empty("a"), empty("b"), fresh("c"), fresh("d")], 2);
    assert_eq!((names(&plan.mark), names(&plan.waiting)), (vec!["c"], vec!["d"]), "one after the other");
    let plan = planned(&[empty("a"), done("b"), fresh("c"), fresh("d")], 2);
    assert_eq!((names(&plan.mark), names(&plan.waiting)), (vec!["c", "d"], vec![]), "another one came up");
}

#[test]
fn after_a_failed_restart_nothing_more_is_marked() {
    let failed = consumer(broken(marked(deployment("b"), MARK)), true);
    let plan = planned(&[done("a"), failed, fresh("c")], 9);
    let failure =
        |of_mark| Failure { workload: deployment_ref("b"), words: "timed out".to_owned(), of_mark, at: None };
    assert_eq!(plan.failed, [failure(true)]);
    // Its pods have all moved: it had come up.
    let since = consumer(broken(marked(deployment("b"), MARK)), false);
    assert_eq!(planned(&[since], 9).failed, [failure(false)]);
    assert_eq!((names(&plan.mark), names(&plan.done)), (vec![], vec!["a"]));
    assert!(plan.obstructed.is_empty());
}

#[test]
fn on_the_way_back_what_failed_with_the_newer_key_is_restarted() {
    let planned = |mark: &str, back: bool| {
        let consumers = [consumer(broken(marked(deployment("a"), mark)), true)];
        let terms = Terms { max_concurrent: 9, allow_gap: false, back, resting: &BTreeMap::new() };
        names(&plan(&consumers, API_KEY, MARK, &terms).mark).len()
    };
    assert_eq!(planned("0a1b2c3d-3", true), 1);
    assert_eq!(planned("0a1b2c3d-3", false), 0, "one more on top of it would fail as well");
    assert_eq!(planned("9a8b7c6d-3", true), 0, "of an earlier ApiKey of the name");
}

#[test]
fn the_canary_is_one_that_is_well() {
    let unwell = with(deployment("a"), "/status/availableReplicas", json!(2));
    let plan = planned(&[consumer(unwell, true), fresh("b"), fresh("c")], 2);
    assert_eq!((names(&plan.mark), names(&plan.waiting)), (vec!["b"], vec!["c", "a"]));
}

#[test]
fn on_the_way_back_what_is_not_well_is_restarted_first() {
    let unwell = with(deployment("b"), "/status/availableReplicas", json!(2));
    let terms = Terms { max_concurrent: 2, allow_gap: true, back: true, resting: &BTreeMap::new() };
    let plan = plan(&[fresh("a"), consumer(unwell, true)], API_KEY, MARK, &terms);
    assert_eq!((names(&plan.mark), names(&plan.waiting)), (vec!["b"], vec!["a"]));
}

#[test]
fn what_ends_its_old_pods_first_is_down_until_it_is_up() {
    let down = |deployment: Value| names(&planned(&[consumer(deployment, false)], 2).down).len();
    assert_eq!(down(recreated(underway("a"))), 1);
    assert_eq!(down(with(recreated(underway("a")), "/spec/paused", true.into())), 1, "somebody holds it up");
    assert_eq!(down(underway("a")), 0, "its old pods wait for the new ones");
    assert_eq!(down(recreated(marked(deployment("a"), MARK))), 0, "it is up");
    let on_nodes = |count: i32| {
        let not_ready = json!({"observedGeneration": 3, "desiredNumberScheduled": count, "currentNumberScheduled": count,
                               "numberMisscheduled": 0, "updatedNumberScheduled": count, "numberReady": count - 1});
        let mark = json!({"annotations": {format!("restart.keys.bags.fm/{API_KEY}"): MARK}});
        let set = with(with(daemon_set("a"), "/spec/template/metadata", mark), "/status", not_ready);
        let set: DaemonSet = serde_json::from_value(set).unwrap();
        names(&planned(&[consumer_of(set.into(), false)], 2).down).len()
    };
    assert_eq!(on_nodes(1), 1, "on one node there is no other pod to tell");
    assert_eq!(on_nodes(3), 0, "on the others pods with the old key wait for it");
    // Marked, and without a pod that would lead to it.
    let without = Consumer { pods: Vec::new(), ..consumer(recreated(underway("a")), false) };
    let plan = planned(&[without, fresh("b")], 2);
    assert_eq!((names(&plan.down), names(&plan.mark), names(&plan.waiting)), (vec!["a"], vec![], vec!["b"]));
}

#[test]
fn one_that_had_come_up_does_not_keep_the_others_from_it_when_a_pod_is_missing_later() {
    let came_up = json!([{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]);
    let missing = with(marked(deployment("a"), MARK), "/status/readyReplicas", json!(2));
    let lost_one =
        |conditions: Value| consumer(with(missing.clone(), "/status/conditions", conditions), false);
    let plan = planned(&[lost_one(came_up), fresh("b")], 2);
    assert_eq!((names(&plan.done), names(&plan.mark)), (vec!["a"], vec!["b"]));
    let moves = json!([{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}]);
    let plan = planned(&[lost_one(moves), fresh("b")], 2);
    assert_eq!((names(&plan.underway), names(&plan.mark)), (vec!["a"], vec![]));
    // The other kinds do not say that they once were up.
    let mark = json!({"annotations": {format!("restart.keys.bags.fm/{API_KEY}"): MARK}});
    let lost_one = |set: Value, ready: &str| {
        with(with(set, "/spec/template/metadata", mark.clone()), &format!("/status/{ready}"), json!(2))
    };
    let set: StatefulSet = serde_json::from_value(lost_one(stateful_set("a"), "readyReplicas")).unwrap();
    let nodes: DaemonSet = serde_json::from_value(lost_one(daemon_set("a"), "numberReady")).unwrap();
    for workload in [Workload::from(set), Workload::from(nodes)] {
        let plan = planned(&[consumer_of(workload, false), fresh("b")], 2);
        assert_eq!((names(&plan.underway), names(&plan.mark)), (vec!["a"], vec![]));
    }
}

#[test]
fn one_that_ended_its_only_pod_has_not_come_up_before_the_next_one_is_there() {
    // As its controller leaves it while the old pod ends: what it says is of the rollout before.
    let ended = json!({"observedGeneration": 3, "conditions": deployment("a")["status"]["conditions"]});
    let one = with(with(marked(deployment("a"), MARK), "/spec/replicas", json!(1)), "/status", ended);
    let plan = planned(&[consumer(one, true), fresh("b")], 2);
    assert_eq!((names(&plan.underway), names(&plan.done), names(&plan.mark)), (vec!["a"], vec![], vec![]));
}

#[test]
fn only_owners_of_stale_pods_are_marked_and_a_mark_of_another_switch_is_none() {
    let plan = planned(&[consumer(deployment("a"), false), fresh("b")], 9);
    assert_eq!(names(&plan.mark), ["b"]);
    assert_eq!(names(&planned(&[consumer(marked(deployment("a"), "0a1b2c3d-3"), true)], 9).mark), ["a"]);
    let other = plan_of_other_key(&[consumer(marked(deployment("a"), MARK), true)]);
    assert_eq!((names(&other.mark), names(&other.done)), (vec!["a"], vec![]));
}

fn plan_of_other_key(consumers: &[Consumer]) -> Plan {
    plan(
        consumers,
        "another-key",
        MARK,
        &Terms { max_concurrent: 9, allow_gap: true, back: false, resting: &BTreeMap::new() },
    )
}

#[test]
fn a_workload_that_was_just_marked_and_has_no_pod_any_more_is_waited_for() {
    let resting =
        BTreeMap::from([(deployment_ref("gone"), Rest::Pause), (deployment_ref("spent"), Rest::Spent)]);
    let terms = Terms { max_concurrent: 9, allow_gap: true, back: false, resting: &resting };
    let plan = plan(&[fresh("b")], API_KEY, MARK, &terms);
    assert_eq!(
        (names(&plan.underway), names(&plan.mark), names(&plan.waiting)),
        (vec!["gone"], vec![], vec!["b"])
    );
}

#[test]
fn a_workload_that_this_process_just_marked_is_not_marked_again_and_holds_its_place() {
    let consumers = [fresh("a"), fresh("b")];
    let planned = |why: Rest| {
        let resting = BTreeMap::from([(deployment_ref("a"), why)]);
        plan(
            &consumers,
            API_KEY,
            MARK,
            &Terms { max_concurrent: 9, allow_gap: true, back: false, resting: &resting },
        )
    };
    let plan = planned(Rest::Pause);
    assert_eq!((names(&plan.underway), names(&plan.mark)), (vec!["a"], vec![]));
    let refused = Reason::Refused("denied".into());
    for (rest, reason) in
        [(Rest::Spent, Reason::MarkTaken), (denied(false), refused.clone()), (denied(true), refused)]
    {
        let plan = planned(rest);
        assert_eq!(
            (names(&plan.underway), names(&plan.mark)),
            (vec![], vec!["b"]),
            "the others do not wait for it"
        );
        assert_eq!(plan.obstructed, [(Owner::Workload(deployment_ref("a")), reason)]);
    }
}

#[test]
fn a_workload_that_this_process_marked_a_while_ago_is_marked_once_more_where_it_has_stale_pods() {
    let resting = BTreeMap::from([(deployment_ref("a"), Rest::Over)]);
    let terms = Terms { max_concurrent: 9, allow_gap: true, back: false, resting: &resting };
    let plan = plan(&[fresh("a"), fresh("b")], API_KEY, MARK, &terms);
    assert_eq!((names(&plan.mark), names(&plan.waiting)), (vec!["a"], vec!["b"]));
    assert_eq!((names(&plan.underway), names(&plan.done)), (vec![], vec![]));
}

#[test]
fn one_that_is_not_up_stays_under_way_where_its_mark_is_taken_away() {
    let untold = with(deployment("a"), "/status/conditions", Value::Null);
    let not_up = recreated(with(untold, "/status/updatedReplicas", json!(1)));
    let planned = |workload: &Value, why: Rest| {
        let resting = BTreeMap::from([(deployment_ref("a"), why)]);
        let terms = Terms { max_concurrent: 2, allow_gap: true, back: false, resting: &resting };
        plan(&[consumer(workload.clone(), false), fresh("b")], API_KEY, MARK, &terms)
    };
    for rest in [Rest::Pause, Rest::Over, Rest::Spent, denied(true)] {
        let plan = planned(&not_up, rest.clone());
        assert_eq!((names(&plan.underway), names(&plan.down)), (vec!["a"], vec!["a"]), "{rest:?}");
        assert_eq!((names(&plan.mark), names(&plan.waiting)), (vec![], vec!["b"]), "{rest:?}");
        let plan = planned(&recreated(broken(deployment("a"))), rest.clone());
        assert!(plan.failed.iter().all(|failure| failure.of_mark) && plan.failed.len() == 1, "{rest:?}");
        assert_eq!(names(&plan.mark), Vec::<&str>::new(), "{rest:?}: it does not come up");
        let plan = planned(&deployment("a"), rest.clone());
        assert_eq!((names(&plan.done), names(&plan.mark)), (vec!["a"], vec!["b"]), "{rest:?}: it is up");
    }
    // It was never marked.
    let plan = planned(&not_up, denied(false));
    assert_eq!((names(&plan.underway), names(&plan.mark)), (vec![], vec!["b"]));
}

#[test]
fn who_would_be_stopped_is_restarted_only_where_that_is_allowed() {
    let recreate = |stale| consumer(recreated(deployment("a")), stale);
    let planned = |stale, allow_gap| {
        let terms = Terms { max_concurrent: 9, allow_gap, back: false, resting: &BTreeMap::new() };
        plan(&[recreate(stale), fresh("b")], API_KEY, MARK, &terms)
    };
    assert_eq!(names(&planned(true, true).mark), ["a"]);
    let plan = planned(true, false);
    assert_eq!(names(&plan.mark), ["b"]);
    assert_eq!(plan.obstructed, [(Owner::Workload(deployment_ref("a")), Reason::Gap(Gap::Recreate))]);
    assert_eq!(planned(false, false).obstructed, [], "nothing of it is stale");
}

#[test]
fn who_was_restarted_and_has_stale_pods_all_the_same_is_named_and_not_marked_again() {
    let plan = planned(&[consumer(marked(deployment("a"), MARK), true), fresh("b")], 9);
    assert_eq!((names(&plan.done), names(&plan.mark)), (vec!["a"], vec!["b"]));
    assert_eq!(plan.obstructed, [(Owner::Workload(deployment_ref("a")), Reason::RestartedBefore)]);
}

#[test]
fn who_cannot_be_restarted_is_named_with_the_reason_while_it_has_stale_pods() {
    let opted_out = with(deployment("a"), "/metadata/annotations", json!({"keys.bags.fm/restart": "false"}));
    let paused = with(deployment("b"), "/spec/paused", true.into());
    let gone = Owner::Workload(deployment_ref("gone"));
    let job = Owner::Job { name: "once".into() };
    let rollout = Owner::Unknown { kind: "Rollout".into(), name: "web".into() };
    let cases = |stale: bool| {
        [
            (consumer(opted_out.clone(), stale), Reason::Obstacle(Obstacle::OptedOut)),
            (consumer(paused.clone(), stale), Reason::Obstacle(Obstacle::Paused)),
            (consumer(broken(deployment("c")), stale), Reason::RolloutFailed("timed out".into())),
            (ownerless(gone.clone(), stale), Reason::Gone),
            (ownerless(job.clone(), stale), Reason::NotRestartable),
            (ownerless(rollout.clone(), stale), Reason::NotRestartable),
            (ownerless(Owner::Bare, stale), Reason::NotRestartable),
        ]
    };
    for (consumer, reason) in cases(true) {
        let plan = planned(std::slice::from_ref(&consumer), 9);
        let expected = Plan { obstructed: vec![(consumer.owner, reason)], ..Plan::default() };
        assert_eq!(plan, expected);
    }
    for (consumer, _) in cases(false) {
        assert_eq!(planned(&[consumer], 9), Plan::default());
    }
    let all: Vec<_> = cases(true).into_iter().map(|(consumer, _)| consumer).chain([fresh("z")]).collect();
    assert_eq!(names(&planned(&all, 9).mark), ["z"], "the others do not wait for them");
}

#[test]
fn a_restart_that_was_paused_is_under_way_and_obstructed() {
    let stopped = with(underway("a"), "/spec/paused", true.into());
    let plan = planned(&[consumer(stopped.clone(), true), fresh("b")], 9);
    assert_eq!((names(&plan.underway), names(&plan.mark)), (vec!["a"], vec![]));
    let reason = Reason::Obstacle(Obstacle::Paused);
    assert_eq!(plan.obstructed, [(Owner::Workload(deployment_ref("a")), reason)]);
    assert!(planned(&[consumer(stopped, false)], 9).obstructed.is_empty());
}
