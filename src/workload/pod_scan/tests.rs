//! Which pods hold the old value: each rule with the cases on both its sides.

mod arbitrary;

use serde_json::{Value, json};

use super::*;
use crate::workload::fixtures::{
    OLD, SECRET, add_container, at, env, env_from, in_state, mount, mount_part, pod, projected, read,
    reloading, running, switched, terminated, volume, waiting, with, with_volume,
};

const STARTED: Verdict = Verdict::Stale(Why::Started);
const MOUNTED: Verdict = Verdict::Stale(Why::Mounted);
const NOT_READY: Verdict = Verdict::Stale(Why::NotReady);
const UNKNOWN: Verdict = Verdict::Stale(Why::Unknown);
/// Long after the switch.
const LATE: i64 = 86_400;
/// `container_margin` and `settle_delay`.
const MARGIN: i64 = 600;
const SETTLED: i64 = 60;

fn settling(seconds: u64) -> Verdict {
    Verdict::Stale(Why::Settling(Duration::from_secs(seconds)))
}

fn scan_at(served: &Value, now: i64) -> Scan {
    scan(&[read(served)], SECRET, switched(at(0), at(now)), at(now), &Timings::default())
}

fn verdict(served: &Value, now: i64) -> Verdict {
    let scan = scan_at(served, now);
    assert_eq!(scan.holders.len(), 1, "{served}");
    scan.holders[0].verdict
}

fn check(cases: &[(&str, Value, Verdict)]) {
    for (case, served, expected) in cases {
        assert_eq!(verdict(served, LATE), *expected, "{case}");
    }
}

fn created(pod: Value, seconds: i64) -> Value {
    with(pod, "/metadata/creationTimestamp", json!(at(seconds)))
}

fn unready(pod: Value) -> Value {
    with(pod, "/status/conditions/1/status", "False".into())
}

fn with_state(pod: Value, state: Value) -> Value {
    in_state(pod, Some(state))
}

fn unscheduled(pod: Value) -> Value {
    in_state(with(pod, "/spec/nodeName", Value::Null), None)
}

fn mounted() -> Value {
    with_volume(pod(mount()), volume())
}

#[test]
fn a_pod_created_late_enough_has_the_new_value_whatever_else_it_says() {
    check(&[
        ("at the very moment", created(pod(env()), SETTLED), Verdict::Moved),
        ("a second too early", created(pod(env()), SETTLED - 1), STARTED),
        ("at the switch", created(pod(env()), 0), STARTED),
        ("a file", created(mounted(), SETTLED), Verdict::Moved),
        ("not told", with(pod(env()), "/metadata/creationTimestamp", Value::Null), STARTED),
        ("told as what is no time", with(pod(env()), "/metadata/creationTimestamp", "new".into()), STARTED),
        (
            "with a node whose clock is behind",
            in_state(created(pod(env()), SETTLED), Some(running(OLD))),
            Verdict::Moved,
        ),
        (
            "with a container of which nothing is told",
            in_state(created(pod(env()), SETTLED), None),
            Verdict::Moved,
        ),
    ]);
}

#[test]
fn what_a_container_read_at_its_start_is_new_only_if_it_started_long_after_the_switch() {
    let shapes = [
        ("env", pod(env())),
        ("envFrom", pod(env_from())),
        ("a part of a volume", with_volume(pod(mount_part("subPath")), volume())),
        ("a part by an expression", with_volume(pod(mount_part("subPathExpr")), volume())),
        ("a part of a projected volume", with_volume(pod(mount_part("subPath")), projected())),
    ];
    for (shape, pod) in shapes {
        let in_state = |state| verdict(&in_state(pod.clone(), state), LATE);
        assert_eq!(in_state(Some(running(OLD))), STARTED, "{shape}");
        assert_eq!(in_state(Some(running(SETTLED))), STARTED, "{shape}");
        assert_eq!(in_state(Some(running(MARGIN - 1))), STARTED, "{shape}");
        assert_eq!(in_state(Some(running(MARGIN))), Verdict::Moved, "{shape}");
        assert_eq!(in_state(Some(json!({"running": {}}))), STARTED, "{shape}: the start is not told");
        assert_eq!(in_state(Some(waiting())), Verdict::Moved, "{shape}");
        assert_eq!(in_state(Some(terminated())), Verdict::Moved, "{shape}");
        assert_eq!(in_state(None), UNKNOWN, "{shape}");
        assert_eq!(verdict(&reloading(pod.clone()), LATE), STARTED, "{shape}: reloading files does not help");
        // The file that a part is mounted from changes up to three minutes after the switch.
        let soon = if shape.starts_with("env") { Verdict::Moved } else { settling(80) };
        for state in [waiting(), terminated()] {
            assert_eq!(verdict(&with_state(pod.clone(), state), 100), soon, "{shape}: it has yet to start");
        }
    }
}

#[test]
fn a_start_that_is_still_to_come_is_none() {
    for (name, started, now, expected) in [
        ("half an hour ahead, and before the switch", 1800, 90, STARTED),
        ("as much ahead as a clock may be", MARGIN, MARGIN - 300, Verdict::Moved),
        ("and a second more", MARGIN, MARGIN - 301, STARTED),
        ("long after the switch", 1800, LATE, Verdict::Moved),
    ] {
        assert_eq!(verdict(&with_state(pod(env()), running(started)), now), expected, "{name}");
    }
}

#[test]
fn a_pod_that_should_be_gone_may_have_started_what_nobody_tells_of() {
    let ends = |state, deleted| {
        let pod = with(in_state(pod(env()), Some(state)), "/metadata/deletionTimestamp", json!(at(deleted)));
        with(pod, "/metadata/deletionGracePeriodSeconds", json!(30))
    };
    check(&[
        ("waiting, and to be gone an hour ago", ends(waiting(), LATE - 3600), UNKNOWN),
        ("terminated, and to be gone two minutes ago", ends(terminated(), LATE - 120), UNKNOWN),
        ("waiting, and to be gone a moment ago", ends(waiting(), LATE - 119), Verdict::Moved),
        ("waiting, within its grace", ends(waiting(), LATE + 20), Verdict::Moved),
        (
            "started with the new value, and to be gone an hour ago",
            ends(running(MARGIN), LATE - 3600),
            Verdict::Moved,
        ),
        ("created with it", created(ends(waiting(), LATE - 3600), SETTLED), Verdict::Moved),
    ]);
}

#[test]
fn a_file_is_new_after_a_restart_or_where_the_application_says_that_it_reads_it_again() {
    for (shape, pod) in [("secret", mounted()), ("projected", with_volume(pod(mount()), projected()))] {
        let in_state = |state| verdict(&in_state(pod.clone(), state), LATE);
        assert_eq!(in_state(Some(running(OLD))), MOUNTED, "{shape}");
        assert_eq!(in_state(Some(running(MARGIN - 1))), MOUNTED, "{shape}");
        assert_eq!(in_state(Some(running(MARGIN))), Verdict::Moved, "{shape}");
        for state in [waiting(), terminated()] {
            assert_eq!(in_state(Some(state.clone())), Verdict::Moved, "{shape}");
            let early = verdict(&self::in_state(pod.clone(), Some(state)), 100);
            assert_eq!(early, settling(80), "{shape}: its file may be there already");
        }
        assert_eq!(in_state(None), UNKNOWN, "{shape}");
        assert_eq!(verdict(&reloading(pod.clone()), LATE), Verdict::Moved, "{shape}");
        assert_eq!(verdict(&reloading(pod.clone()), 100), settling(80), "{shape}");
        let starts = |state, now| verdict(&with_state(reloading(pod.clone()), state), now);
        for state in [waiting(), terminated()] {
            assert_eq!(starts(state.clone(), 100), settling(80), "{shape}: its file may be there already");
            assert_eq!(starts(state, 180), Verdict::Moved, "{shape}");
        }
    }
}

#[test]
fn a_pod_that_reads_its_file_again_is_waited_for_until_it_has_and_is_ready() {
    let pod = reloading(mounted());
    for (now, expected) in [
        (0, settling(180)),
        (179, settling(1)),
        (180, Verdict::Moved),
        (LATE, Verdict::Moved),
        // The API server's clock is ahead of ours.
        (-20, settling(180)),
    ] {
        assert_eq!(verdict(&pod, now), expected, "{now}");
        assert_eq!(verdict(&unready(pod.clone()), now), NOT_READY, "{now}");
    }
    let ending = with(pod.clone(), "/metadata/deletionTimestamp", json!(at(LATE + 60)));
    check(&[
        ("it ends: no kubelet refreshes its file", ending, MOUNTED),
        ("never said to be Ready", with(pod.clone(), "/status/conditions", Value::Null), NOT_READY),
        ("no file of it left in use", in_state(unready(pod), Some(waiting())), Verdict::Moved),
    ]);
}

#[test]
fn who_was_found_to_have_the_new_file_does_not_lose_it_with_its_readiness() {
    let again = |served: &Value, now| {
        let switched = Switched { was_clean: true, ..switched(at(0), at(now)) };
        scan(&[read(served)], SECRET, switched, at(now), &Timings::default()).holders[0].verdict
    };
    let unready = unready(reloading(mounted()));
    assert_eq!(again(&unready, LATE), Verdict::Moved);
    let ending = with(reloading(mounted()), "/metadata/deletionTimestamp", json!(at(LATE + 60)));
    assert_eq!(again(&ending, LATE), Verdict::Moved, "it ends since");
    assert_eq!(again(&unready, 100), settling(80), "the Secret was written again since");
    assert_eq!(again(&mounted(), LATE), MOUNTED, "it does not say that it reads the file again");
    assert_eq!(again(&pod(env()), LATE), STARTED);
}

#[test]
fn every_container_counts_whatever_its_kind() {
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        let with_one = |container: Value, state| {
            let mut served = with_volume(pod(json!({})), volume());
            add_container(&mut served, kind, "one", container, state);
            verdict(&served, LATE)
        };
        assert_eq!(with_one(env(), Some(running(OLD))), STARTED, "{kind}");
        assert_eq!(with_one(mount(), Some(running(OLD))), MOUNTED, "{kind}");
        assert_eq!(with_one(env(), Some(running(MARGIN))), Verdict::Moved, "{kind}");
        let ended = if kind == "initContainers" { STARTED } else { Verdict::Moved };
        assert_eq!(with_one(env(), Some(terminated())), ended, "{kind}");
        assert_eq!(with_one(env(), None), UNKNOWN, "{kind}");
    }
}

#[test]
fn what_an_init_container_read_may_be_with_the_others_for_as_long_as_the_pod_is_there() {
    let before = |container: Value, state| {
        let mut served = with_volume(pod(json!({})), volume());
        add_container(&mut served, "initContainers", "before", container, Some(state));
        served
    };
    let ended = |started: i64| json!({"terminated": {"exitCode": 0, "startedAt": at(started), "finishedAt": at(LATE)}});
    let sidecar = |served| with(served, "/spec/initContainers/0/restartPolicy", json!("Always"));
    check(&[
        ("it began before the switch", before(env(), ended(OLD)), STARTED),
        ("it began too soon after it", before(env(), ended(MARGIN - 1)), STARTED),
        ("it began after it", before(env(), ended(MARGIN)), Verdict::Moved),
        ("nobody knows when it began", before(env(), json!({"terminated": {"exitCode": 0}})), STARTED),
        ("it copied a file", before(mount(), ended(OLD)), MOUNTED),
        (
            "its application reads files again, and not what that made of one",
            reloading(before(mount(), ended(OLD))),
            MOUNTED,
        ),
        ("it began after it, and copied a file", reloading(before(mount(), ended(MARGIN))), Verdict::Moved),
        ("it will begin", before(env(), waiting()), Verdict::Moved),
        ("a sidecar, which begins again", sidecar(before(env(), ended(OLD))), Verdict::Moved),
        ("a new pod", created(before(env(), ended(OLD)), SETTLED), Verdict::Moved),
    ]);
}

#[test]
fn the_reason_told_is_the_one_that_takes_most_to_go_away() {
    let pair = |first: Value, second: Value, state| {
        let mut served = with_volume(pod(first), volume());
        add_container(&mut served, "containers", "second", second, state);
        served
    };
    let old = || Some(running(OLD));
    check(&[
        ("start before file", pair(mount(), env(), old()), STARTED),
        ("file before nothing known", pair(mount(), env(), None), MOUNTED),
        ("nothing known before unready", reloading(unready(pair(mount(), env(), None))), UNKNOWN),
        ("one has moved, the other has not", pair(env(), env(), Some(running(MARGIN))), STARTED),
        (
            "one uses it twice",
            pair(json!({}), json!({"env": env()["env"], "volumeMounts": mount()["volumeMounts"]}), old()),
            STARTED,
        ),
    ]);
    assert_eq!(verdict(&reloading(pair(mount(), mount(), old())), 100), settling(80));
}

#[test]
fn a_pod_that_is_on_no_node_yet_holds_nothing() {
    let handed = json!({"name": "keys", "csi": {"nodePublishSecretRef": {"name": SECRET}}});
    check(&[
        ("env", unscheduled(pod(env())), Verdict::Moved),
        ("a file", unscheduled(mounted()), Verdict::Moved),
        ("a driver", unscheduled(with_volume(pod(mount()), handed)), Verdict::Moved),
        ("an empty name", in_state(with(pod(env()), "/spec/nodeName", "".into()), None), Verdict::Moved),
        ("a name that cannot be read", in_state(with(pod(env()), "/spec/nodeName", json!(1)), None), UNKNOWN),
        ("a status that cannot be read", with(unscheduled(pod(env())), "/status", json!(1)), UNKNOWN),
        ("a container that runs all the same", with(pod(env()), "/spec/nodeName", Value::Null), STARTED),
        (
            "a status that cannot be told whose",
            with(
                with(pod(env()), "/spec/nodeName", Value::Null),
                "/status/containerStatuses/0/name",
                json!(1),
            ),
            UNKNOWN,
        ),
    ]);
}

#[test]
fn what_a_volumes_driver_was_handed_is_held_by_the_pod_as_a_whole() {
    let handed = json!({"name": "keys", "csi": {"nodePublishSecretRef": {"name": SECRET}}});
    let pod = with_volume(pod(mount()), handed);
    check(&[
        ("old", pod.clone(), STARTED),
        ("its container has started anew", in_state(pod.clone(), Some(running(MARGIN))), STARTED),
        ("its container waits", in_state(pod.clone(), Some(waiting())), STARTED),
        ("no status", in_state(pod.clone(), None), STARTED),
        ("it says that it reloads", reloading(pod.clone()), STARTED),
        ("created after the switch", created(pod, SETTLED), Verdict::Moved),
    ]);
}

#[test]
fn a_volume_that_no_container_mounts_is_a_reference_and_holds_nothing() {
    let pod = with_volume(pod(json!({})), volume());
    assert_eq!(verdict(&pod, LATE), Verdict::Moved);
    assert_eq!(readers(&[read(&pod)], SECRET).len(), 1);
}

#[test]
fn what_cannot_be_read_blocks() {
    check(&[
        ("the specification", with(pod(env()), "/spec", json!([])), UNKNOWN),
        ("the containers", with(pod(env()), "/spec/containers", "?".into()), UNKNOWN),
        ("a container", with(pod(env()), "/spec/containers/0", "?".into()), UNKNOWN),
        ("a container's name", with(pod(env()), "/spec/containers/0/name", json!(1)), UNKNOWN),
        ("the variables", with(pod(env()), "/spec/containers/0/env", json!({})), STARTED),
        ("a variable", with(pod(env()), "/spec/containers/0/env/0", json!(1)), STARTED),
        ("its source", with(pod(env()), "/spec/containers/0/env/0/valueFrom", json!(1)), STARTED),
        (
            "the Secret's name",
            with(pod(env_from()), "/spec/containers/0/envFrom/1/secretRef/name", json!({})),
            STARTED,
        ),
        ("the volumes", with(mounted(), "/spec/volumes", json!(1)), UNKNOWN),
        ("a volume", with(mounted(), "/spec/volumes/1", json!(1)), UNKNOWN),
        ("a volume's name", with(mounted(), "/spec/volumes/1/name", json!(1)), UNKNOWN),
        ("a volume's Secret", with(mounted(), "/spec/volumes/1/secret", json!(1)), MOUNTED),
        ("its name", with(mounted(), "/spec/volumes/1/secret/secretName", json!(1)), MOUNTED),
        (
            "a source that is not known",
            with(pod(mount()), "/spec/volumes", json!([{"name": "keys", "x": 1}])),
            STARTED,
        ),
        ("the mounts", with(mounted(), "/spec/containers/0/volumeMounts", json!(1)), UNKNOWN),
        ("a mount", with(mounted(), "/spec/containers/0/volumeMounts/1", json!(1)), UNKNOWN),
        (
            "a part of a volume",
            with(reloading(mounted()), "/spec/containers/0/volumeMounts/1/subPath", json!(1)),
            STARTED,
        ),
        ("the statuses", with(pod(env()), "/status/containerStatuses", json!(1)), UNKNOWN),
        ("a status", with(pod(env()), "/status/containerStatuses/0", json!(1)), UNKNOWN),
        ("a status' name", with(pod(env()), "/status/containerStatuses/0/name", json!(1)), UNKNOWN),
        ("a state", in_state(pod(env()), Some(json!(1))), UNKNOWN),
        ("a start", in_state(pod(env()), Some(json!({"running": {"startedAt": "soon"}}))), STARTED),
    ]);
}

#[test]
fn terminating_pods_and_pods_of_jobs_count_like_any_other() {
    let leaving = with(pod(env()), "/metadata/deletionTimestamp", json!(at(100)));
    let job = with(
        pod(env()),
        "/metadata/ownerReferences",
        json!([crate::workload::fixtures::controller("batch/v1", "Job", "once")]),
    );
    check(&[("it is going", leaving.clone(), STARTED), ("of a Job", job, STARTED)]);
    let holder = &scan_at(&leaving, LATE).holders[0];
    assert!(holder.terminating);
    assert!(!holder.needs_restart(), "it is going anyway");
}

#[test]
fn only_what_read_the_value_once_needs_a_restart() {
    let needs = |served: &Value, now| scan_at(served, now).holders[0].needs_restart();
    assert!(needs(&pod(env()), LATE));
    assert!(needs(&mounted(), LATE));
    assert!(!needs(&created(pod(env()), SETTLED), LATE));
    assert!(!needs(&reloading(mounted()), 100));
    assert!(!needs(&reloading(unready(mounted())), LATE));
    assert!(!needs(&in_state(pod(env()), None), LATE));
}

#[test]
fn a_scan_has_each_pod_that_refers_to_the_secret_by_name() {
    let named = |name: &str, pod: Value| read(&with(pod, "/metadata/name", name.into()));
    let pods = [
        named("c", reloading(mounted())),
        named("a", pod(env())),
        named("stranger", pod(json!({}))),
        named("b", created(pod(env()), 90)),
        named("d", with(reloading(mounted()), "/metadata/uid", "uid-d".into())),
    ];
    let found = scan(&pods, SECRET, switched(at(0), at(150)), at(150), &Timings::default());
    let names =
        |holders: Vec<&Holder>| holders.into_iter().map(|holder| holder.pod.clone()).collect::<Vec<_>>();
    assert_eq!(names(found.holders.iter().collect()), ["a", "b", "c", "d"]);
    assert_eq!(names(found.stale().collect()), ["a", "c", "d"]);
    assert!(!found.is_clean());
    assert_eq!(found.next_look(), Some(Duration::from_secs(30)));
    let holder = &found.holders[0];
    assert_eq!((holder.uid.as_str(), holder.node.as_deref()), ("uid-web-1", Some("node-1")));
    assert_eq!(holder.controller.as_ref().unwrap().name, "web-5d4f");
    let readers: Vec<_> = readers(&pods, SECRET).into_iter().map(|pod| pod.name.as_str()).collect();
    assert_eq!(readers, ["c", "a", "b", "d"]);
}

#[test]
fn without_stale_pods_a_scan_is_clean_and_waits_for_nothing() {
    for pods in [vec![], vec![read(&pod(json!({})))], vec![read(&created(pod(env()), SETTLED))]] {
        let found = scan(&pods, SECRET, switched(at(0), at(LATE)), at(LATE), &Timings::default());
        assert!(found.is_clean());
        assert_eq!(found.next_look(), None);
    }
}

#[test]
fn margins_beyond_all_time_block_and_nothing_overflows() {
    let forever = Timings {
        settle_delay: Duration::MAX,
        container_margin: Duration::MAX,
        reload_delay: Duration::MAX,
        ..Timings::default()
    };
    let pod = [read(&reloading(created(mounted(), LATE)))];
    for (at, now) in [(Timestamp::MIN, Timestamp::MAX), (Timestamp::MAX, Timestamp::MIN)] {
        assert!(!scan(&pod, SECRET, switched(at, now), now, &forever).is_clean());
    }
}
