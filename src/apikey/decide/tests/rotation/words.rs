//! What is said of a rotation that waits.

use super::*;

/// Something takes away who wrote the Secret, and when.
fn undated(mut o: Observation) -> Observation {
    let Some(Found::Ours(secret)) = &mut o.consumer else { panic!("no Secret to take it from") };
    secret.metadata.managed_fields = None;
    o
}

#[test]
fn who_waits_for_a_rotation_reads_what_for_and_what_to_do() {
    let gap = with_consumers(asked_unread(), vec![consumer("web", "Recreate", "", true)]);
    let obstructed = with_consumers(switched(HOUR, &stale()), vec![consumer("web", "paused", "", true)]);
    let stopped = with_consumers(switched(HOUR, &stale()), vec![consumer("web", "Recreate", "", true)]);
    let failed =
        || with_consumers(switched(HOUR, &stale()), vec![consumer("api", "failed", "uid-0-2", true)]);
    let steps = with_consumers(
        switched(HOUR, &stale()),
        vec![
            consumer("api", "", "uid-0-2", false),
            consumer("jobs", "underway", "uid-0-2", true),
            consumer("web", "underway", "uid-0-2", true),
            consumer("worker", "", "", true),
        ],
    );
    let taken = |o: Observation| {
        let resting = [(consumer("web", "", "", true).workload.unwrap().reference, Rest::Spent)].into();
        let pods = PodsSeen { resting, ..o.pods.clone().unwrap() };
        Observation { pods: Some(pods), ..o }
    };
    let unmarked = taken(with_consumers(switched(HOUR, &stale()), vec![consumer("web", "", "", true)]));
    let quick = |o: Observation| restarting(o, |rollout| rollout.restart = Some(Restart::None));
    let soon = "; a pod that is made before 2027-01-15T08:00:30Z may get the old value, and counts as one that has it";
    let just = || with_consumers(switched(SECOND * 30, &stale()), vec![consumer("web", "paused", "", true)]);
    assert!(hold(&just()).message.ends_with(soon) && hold(&quick(just())).message.ends_with(soon));
    assert!(!hold(&obstructed).message.contains("is made before"), "that time is over");
    let early = with_consumers(switched(MINUTE, &stale()), vec![consumer("web", "", "", true)]);
    let cases: Vec<(Hold, &[&str])> = vec![
        (hold(&gap), &["Deployment \"web\"", "Recreate", "spec.rollout.allowGap: true"]),
        (
            hold(&asked_unread().view(|view| view.room.limit = 1)),
            &["\"main\"", "1 of 1 in use", "delete an ApiKey"],
        ),
        (
            hold(&obstructed),
            &[
                "Production-App-0-old stays valid",
                "web-1 (on node-1)",
                "Deployment \"web\" (it is paused: resume it)",
            ],
        ),
        (
            hold(&steps),
            &[
                "; restarting: Deployment \"jobs\", Deployment \"web\"; restarted: Deployment \"api\"; to be restarted: \
                 Deployment \"worker\"",
            ],
        ),
        (
            hold(&unmarked),
            &[
                "Deployment \"web\" (something took the annotation restart.keys.bags.fm/",
                "twice: restart it yourself now",
            ],
        ),
        (hold(&early), &["web-1 (on node-1); to be restarted: Deployment \"web\""]),
        (
            hold(&stopped),
            &["Deployment \"web\" (strategy Recreate ends all pods", "spec.rollout.allowGap: true"],
        ),
        (
            hold(&failed()),
            &[
                "Deployment \"api\"",
                "has timed out progressing; key Production-App-0-old stays valid",
                "kubectl describe pod",
            ],
        ),
        (
            hold(&Observation { previous_probe: Some(Probe::Dead), ..back(failed()) }),
            &[
                "Deployment \"api\"",
                "no way back",
                "does not accept key Production-App-0-old",
                "kubectl describe pod",
            ],
        ),
        (hold(&undated(switched(HOUR, &[]))), &["metadata.managedFields", "delete Secret \"app-0-bags\""]),
        (
            hold(&switched(SECOND, &[])),
            &["Production-App-0-old stays valid", "no pod is seen", "one that starts now", "kubelet"],
        ),
        (
            hold(&clean(HOUR)),
            &[
                "no pod can hold key Production-App-0-old since 2027-01-15T07:00:00Z",
                "cannot show",
                "after 2027-01-16T07:00:00Z",
            ],
        ),
        (
            hold(&listed(clean(HOUR * 25), MINUTE, HOUR * 2, None)),
            &["an unknown caller uses it: last at 2027-01-15T06:00:00Z"],
        ),
        (
            hold(&listed(clean(HOUR * 20), MINUTE, HOUR * 30, Some(MINUTE * 5))),
            &["no use of it is known since 2027-01-14T12:00:00Z", "revoked after"],
        ),
        (
            hold(&in_windows(every(live(), "1m"), &[("07:30", "15m", "UTC")])),
            &["has been due since 2027-01-15T07:3", "next window, at 2027-01-16T07:30:00Z"],
        ),
        (
            hold(&asked_unread().with_slot(never_worked("a")).with_slot(never_worked("b"))),
            &["waiting until", "is proven dead"],
        ),
        (
            hold(&probed(Probe::Dead)),
            &[
                "Production-App-0-new is in the Secret",
                "accept it any more",
                "who revoked",
                "keys.bags.fm/delete-now=true, delete it",
                "spec.deletionPolicy: Revoke",
            ],
        ),
        (hold(&probed(Probe::Forbidden)), &["suspended at Bags", "Production-App-0-old is not revoked"]),
        (hold(&probed(Probe::UserGone)), &["does not know its user", "Production-App-0-old is not revoked"]),
        (
            hold(
                &probed(alive("user-1"))
                    .account(|account| account.spec.expected_user = Some("user-2".into())),
            ),
            &["of user user-1", "spec.expectedUser", "user-2"],
        ),
    ];
    for (hold, parts) in &cases {
        fit_for_a_person("rotation", hold);
        for part in *parts {
            assert!(hold.message.contains(part), "{part:?} is not in {:?}", hold.message);
        }
    }
}

/// A key that was made, never accepted, and is being revoked.
fn never_worked(attempt: &str) -> Slot {
    named(attempt, Slot { published: None, ..mine(SlotState::Revoking) })
}

/// What the published key answered at the last look.
fn probed(probe: Probe) -> Observation {
    Observation { current_probe: Some(probe), ..confirmed(clean(HOUR * 25)) }
}

#[test]
fn a_switch_back_tells_what_the_next_rotation_waits_for() {
    use crate::apikey::decide::words::switched_back;
    let told = |o: &Observation, times| {
        switched_back(&o.key, Some(&Slot { switched_back: times, ..mine(SlotState::Live) }))
    };
    let (scheduled, on_demand) = (every(live(), "30m"), live());
    for (says, o, times, part) in [
        (
            "the first one",
            &scheduled,
            None,
            "; the next rotation begins on schedule, or with another keys.bags.fm/rotate",
        ),
        ("the second one", &scheduled, Some(1), "; the next rotation begins on schedule, or with another "),
        (
            "the third one",
            &scheduled,
            Some(2),
            "; the last 3 rotations were turned back, and none begins on schedule ",
        ),
        ("one that was asked for after that", &scheduled, Some(3), "; the last 4 rotations were turned back"),
        (
            "without a schedule",
            &on_demand,
            None,
            "; the next rotation begins with another keys.bags.fm/rotate",
        ),
        (
            "without a schedule, the third one",
            &on_demand,
            Some(2),
            "; the next rotation begins with another ",
        ),
    ] {
        let note = told(o, times);
        assert!(note.starts_with("Secret \"app-0-bags\" goes back"), "{says}: {note}");
        assert!(note.contains(part) && note.len() <= 1024, "{says}: {note}");
    }
}
