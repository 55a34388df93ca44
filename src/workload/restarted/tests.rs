//! Each kind's own rules: may it be restarted, would there be a gap, how far is it.

use serde_json::{Value, json};

use super::*;
use crate::workload::fixtures::{daemon_set, deployment, marked, read_deployment, stateful_set, with};

fn set(set: Value) -> Workload {
    Workload::from(serde_json::from_value::<StatefulSet>(set).unwrap())
}

fn daemon(set: Value) -> Workload {
    Workload::from(serde_json::from_value::<DaemonSet>(set).unwrap())
}

/// A Deployment of so many replicas with these bounds of its rolling update.
fn rolling(replicas: i32, surge: Value, unavailable: Value) -> Workload {
    let bounds = json!({"maxSurge": surge, "maxUnavailable": unavailable});
    read_deployment(with(
        with(deployment("web"), "/spec/replicas", replicas.into()),
        "/spec/strategy/rollingUpdate",
        bounds,
    ))
}

fn strategy(workload: Value, kind: &str) -> Value {
    let place = if workload["spec"]["strategy"].is_object() { "strategy" } else { "updateStrategy" };
    with(workload, &format!("/spec/{place}"), json!({"type": kind}))
}

/// So many of its pods may be missing at a time.
fn at_a_time(workload: Value, missing: Value) -> Value {
    with(workload, "/spec/updateStrategy/rollingUpdate", json!({"maxUnavailable": missing}))
}

/// A StatefulSet that does not wait for one pod before it sees to the next.
fn side_by_side(replicas: i32, ready: i32) -> Workload {
    let parallel = with(stateful_set("db"), "/spec/podManagementPolicy", "Parallel".into());
    let of = with(parallel, "/spec/replicas", replicas.into());
    set(with(of, "/status/readyReplicas", ready.into()))
}

#[test]
fn a_workload_is_known_by_kind_name_and_uid_in_its_version() {
    for (workload, kind) in [
        (read_deployment(deployment("web")), WorkloadKind::Deployment),
        (set(stateful_set("web")), WorkloadKind::StatefulSet),
        (daemon(daemon_set("web")), WorkloadKind::DaemonSet),
    ] {
        assert_eq!(workload.reference, WorkloadRef { kind, name: "web".into(), uid: "uid-web".into() });
        assert_eq!(workload.resource_version, "7");
        assert_eq!(
            (workload.may_restart(), workload.gap(), workload.progress()),
            (Ok(()), None, Progress::Complete)
        );
    }
}

#[test]
fn a_mark_is_that_of_its_apikey_on_the_pod_template() {
    let workload = read_deployment(marked(deployment("web"), "0a1b2c3d-4"));
    assert_eq!(workload.mark("web"), Some("0a1b2c3d-4"));
    assert_eq!(workload.mark("web-2"), None);
    assert_eq!(workload.mark(""), None);
    let on_itself = with(deployment("web"), "/metadata/annotations/restart.keys.bags.fm~1web", "1".into());
    assert_eq!(read_deployment(on_itself).mark("web"), None);
}

#[test]
fn a_workload_says_itself_or_on_its_template_that_it_is_not_restarted() {
    for place in ["/metadata/annotations", "/spec/template/metadata/annotations"] {
        for (word, expected) in
            [("false", Err(Obstacle::OptedOut)), ("true", Ok(())), ("False", Ok(())), ("", Ok(()))]
        {
            let told = with(deployment("web"), place, json!({annotation::RESTART: word}));
            assert_eq!(read_deployment(told).may_restart(), expected, "{place} {word}");
        }
    }
}

fn partition(number: Value) -> Value {
    with(stateful_set("db"), "/spec/updateStrategy/rollingUpdate/partition", number)
}

#[test]
fn a_restart_that_would_not_happen_is_not_asked_for() {
    let cases = [
        (
            "paused",
            read_deployment(with(deployment("web"), "/spec/paused", true.into())),
            Err(Obstacle::Paused),
        ),
        ("not paused", read_deployment(with(deployment("web"), "/spec/paused", false.into())), Ok(())),
        ("recreated", read_deployment(strategy(deployment("web"), "Recreate")), Ok(())),
        ("pods deleted by hand", set(strategy(stateful_set("db"), "OnDelete")), Err(Obstacle::OnDelete)),
        ("on each node by hand", daemon(strategy(daemon_set("agent"), "OnDelete")), Err(Obstacle::OnDelete)),
        ("in a new way", daemon(strategy(daemon_set("agent"), "Teleport")), Err(Obstacle::OnDelete)),
        ("the upper pods only", set(partition(json!(2))), Err(Obstacle::Partition(2))),
        ("all pods", set(partition(json!(0))), Ok(())),
        ("all pods, as nothing else is said", set(partition(Value::Null)), Ok(())),
        ("no strategy told", set(with(stateful_set("db"), "/spec/updateStrategy", Value::Null)), Ok(())),
        (
            "no strategy told for nodes",
            daemon(with(daemon_set("a"), "/spec/updateStrategy", Value::Null)),
            Ok(()),
        ),
    ];
    for (case, workload, expected) in cases {
        assert_eq!(workload.may_restart(), expected, "{case}");
    }
    let both = with(
        with(deployment("web"), "/spec/paused", true.into()),
        "/metadata/annotations",
        json!({annotation::RESTART: "false"}),
    );
    assert_eq!(read_deployment(both).may_restart(), Err(Obstacle::OptedOut), "the owner's word before all");
}

#[test]
fn a_rolling_update_has_a_gap_where_the_last_old_pod_may_end_too_early() {
    let null = || Value::Null;
    let cases = [
        ("one replica that is doubled first", rolling(1, json!("25%"), json!("25%")), None),
        ("as the API server fills it in", rolling(1, null(), null()), None),
        ("one replica, one more at a time", rolling(1, json!(1), json!(0)), None),
        ("one replica without surge", rolling(1, json!(0), json!(1)), Some(Gap::NoSurge)),
        ("one replica without surge, in percent", rolling(1, json!("0%"), json!("25%")), Some(Gap::NoSurge)),
        ("one replica, neither more nor fewer", rolling(1, json!(0), json!(0)), Some(Gap::NoSurge)),
        (
            "all of three ordered ones at the same time",
            set(at_a_time(stateful_set("db"), json!(3))),
            Some(Gap::NoSurge),
        ),
        ("two of three ordered ones", set(at_a_time(stateful_set("db"), json!("67%"))), None),
        (
            "ordered ones, more than there are",
            set(at_a_time(stateful_set("db"), json!(9))),
            Some(Gap::NoSurge),
        ),
        ("the upper ones of three ordered ones", set(partition(json!(1))), Some(Gap::Partition(1))),
        ("all of three ordered ones", set(partition(json!(0))), None),
        ("two side by side", side_by_side(2, 2), None),
        ("two side by side, one of them not ready", side_by_side(2, 1), Some(Gap::NoSurge)),
        ("two side by side, none of which is ready", side_by_side(2, 0), None),
        ("three side by side, one of them not ready", side_by_side(3, 2), None),
        ("two, one after the other", set(with(stateful_set("db"), "/status/readyReplicas", json!(1))), None),
        ("ordered ones, less than one", set(at_a_time(stateful_set("db"), json!("10%"))), None),
        (
            "ordered ones, as nobody can read",
            set(at_a_time(stateful_set("db"), json!("x"))),
            Some(Gap::NoSurge),
        ),
        (
            "on all nodes at the same time",
            daemon(at_a_time(daemon_set("a"), json!("100%"))),
            Some(Gap::NoSurge),
        ),
        ("on two of three nodes", daemon(at_a_time(daemon_set("a"), json!(2))), None),
        (
            "on more than half of three nodes",
            daemon(at_a_time(daemon_set("a"), json!("67%"))),
            Some(Gap::NoSurge),
        ),
        (
            "on the only node",
            daemon(with(at_a_time(daemon_set("a"), json!(1)), "/status/desiredNumberScheduled", json!(1))),
            None,
        ),
        (
            "on all nodes, each doubled first",
            daemon(with(daemon_set("a"), "/spec/updateStrategy/rollingUpdate", json!({"maxSurge": "100%"}))),
            None,
        ),
        ("one replica that may be missing", rolling(1, json!(1), json!(1)), Some(Gap::NoSurge)),
        (
            "one replica that may be missing, in percent",
            rolling(1, json!(1), json!("100%")),
            Some(Gap::NoSurge),
        ),
        ("just not all, rounded down", rolling(1, json!(1), json!("99%")), None),
        ("two replicas without surge", rolling(2, json!(0), json!(1)), None),
        ("two that may both be missing", rolling(2, json!(0), json!(2)), Some(Gap::NoSurge)),
        ("a surge of a little is a pod, rounded up", rolling(1, json!("1%"), json!(0)), None),
        ("many that may all be missing", rolling(40, json!("25%"), json!("100%")), Some(Gap::NoSurge)),
        ("many that may nearly all be missing", rolling(40, json!("25%"), json!("99%")), None),
        ("no replica", rolling(0, json!(0), json!(1)), None),
        ("a bound that is none", rolling(3, json!(1), json!("all")), Some(Gap::NoSurge)),
    ];
    for (case, workload, expected) in cases {
        assert_eq!(workload.gap(), expected, "{case}");
    }
}

#[test]
fn other_kinds_and_strategies_have_their_gaps() {
    let replicas = |set: Value, number: i32| with(set, "/spec/replicas", number.into());
    let recreated = strategy(deployment("web"), "Recreate");
    let cases = [
        ("recreated", read_deployment(recreated.clone()), Some(Gap::Recreate)),
        ("recreated, but nothing runs", read_deployment(replicas(recreated, 0)), None),
        ("in a new way", read_deployment(strategy(deployment("web"), "Teleport")), Some(Gap::Recreate)),
        ("paused", read_deployment(with(deployment("web"), "/spec/paused", true.into())), Some(Gap::Paused)),
        ("one ordered pod", set(replicas(stateful_set("db"), 1)), Some(Gap::NoSurge)),
        (
            "one ordered pod, as nothing is said",
            set(with(stateful_set("db"), "/spec/replicas", Value::Null)),
            Some(Gap::NoSurge),
        ),
        ("two ordered pods", set(replicas(stateful_set("db"), 2)), None),
        ("no ordered pod", set(replicas(stateful_set("db"), 0)), None),
        ("ordered pods by hand", set(strategy(stateful_set("db"), "OnDelete")), Some(Gap::OnDelete)),
        ("one on a node", daemon(with(daemon_set("a"), "/status/desiredNumberScheduled", json!(1))), None),
        ("on each node by hand", daemon(strategy(daemon_set("a"), "OnDelete")), Some(Gap::OnDelete)),
    ];
    for (case, workload, expected) in cases {
        assert_eq!(workload.gap(), expected, "{case}");
    }
}

#[test]
fn a_rollout_is_complete_only_if_every_number_says_so_of_the_newest_template() {
    let fields = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"];
    let nodes = ["currentNumberScheduled", "updatedNumberScheduled", "numberReady", "numberAvailable"];
    for number in [Value::Null, json!(0), json!(2), json!(4)] {
        for field in fields {
            let place = format!("/status/{field}");
            let untold = with(deployment("web"), "/status/conditions", Value::Null);
            let of = read_deployment(with(untold, &place, number.clone()));
            assert_eq!(of.progress(), Progress::Underway, "Deployment {field} {number}");
            if !(field == "replicas" && number.is_null()) {
                let of = set(with(stateful_set("db"), &place, number.clone()));
                assert_eq!(of.progress(), Progress::Underway, "StatefulSet {field} {number}");
            }
        }
        for field in nodes.iter().filter(|_| !number.is_null()) {
            let of = daemon(with(daemon_set("a"), &format!("/status/{field}"), number.clone()));
            assert_eq!(of.progress(), Progress::Underway, "DaemonSet {field} {number}");
        }
    }
}

#[test]
fn a_status_of_an_older_template_says_nothing() {
    for (case, place, value, expected) in [
        ("not seen yet", "/metadata/generation", json!(4), Progress::Underway),
        ("seen", "/metadata/generation", json!(2), Progress::Complete),
        ("of no generation", "/metadata/generation", Value::Null, Progress::Underway),
        ("never seen", "/status/observedGeneration", Value::Null, Progress::Underway),
        ("no status", "/status", Value::Null, Progress::Underway),
    ] {
        assert_eq!(
            read_deployment(with(deployment("web"), place, value.clone())).progress(),
            expected,
            "{case}"
        );
        assert_eq!(set(with(stateful_set("db"), place, value.clone())).progress(), expected, "{case}");
        assert_eq!(daemon(with(daemon_set("a"), place, value)).progress(), expected, "{case}");
    }
}

#[test]
fn a_workload_without_replicas_is_complete() {
    let none = json!({"observedGeneration": 3});
    let scaled = with(with(deployment("web"), "/spec/replicas", json!(0)), "/status", none);
    assert_eq!(read_deployment(scaled).progress(), Progress::Complete);
    let zero = json!({"observedGeneration": 3, "desiredNumberScheduled": 0, "currentNumberScheduled": 0,
                      "numberMisscheduled": 0, "numberReady": 0});
    assert_eq!(daemon(with(daemon_set("a"), "/status", zero)).progress(), Progress::Complete);
}

#[test]
fn a_rollout_has_failed_when_its_deadline_passed_and_it_is_not_complete_after_all() {
    let late = |deployment: Value, message: Value| {
        let condition = json!([
            {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"},
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": message}]);
        with(deployment, "/status/conditions", condition)
    };
    let part = with(deployment("web"), "/status/updatedReplicas", json!(1));
    let words = "ReplicaSet \"web-5d4f\" has timed out progressing.";
    let told = read_deployment(late(part.clone(), words.into()));
    assert_eq!(told.progress(), Progress::Failed(words.into()));
    let silent = read_deployment(late(part.clone(), Value::Null));
    assert_eq!(silent.progress(), Progress::Failed("ProgressDeadlineExceeded".into()));
    let done = read_deployment(late(deployment("web"), words.into()));
    assert_eq!(done.progress(), Progress::Complete);
    let newer = read_deployment(late(with(part, "/metadata/generation", json!(4)), words.into()));
    assert_eq!(newer.progress(), Progress::Underway, "the deadline was that of an older template");
}
