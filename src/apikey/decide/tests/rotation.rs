//! A key is replaced: when it begins, who is restarted, and when the old key goes.

use super::*;
use jiff::SignedDuration;

use crate::{
    api::{
        annotation,
        apikey::{OnRolloutFailure, Restart, RolloutSpec, RotationSpec, Switch, WindowSpec},
    },
    apikey::{
        fixtures::{CREDENTIALS, SECOND, consumer, distrusting, no_credentials, reader, switched},
        observe::PodsSeen,
        quiet::{Shown, Uses},
    },
    workload::{Consumer, Why},
};

const DAY: Duration = Duration::from_hours(24);

fn live() -> Observation {
    seen().with_slot(mine(SlotState::Live))
}

fn every(o: Observation, every: &str) -> Observation {
    let spec = RotationSpec { every: Some(every.into()), ..RotationSpec::default() };
    o.key(|key| key.spec.rotation = Some(spec))
}

fn asked() -> Observation {
    live().annotated(annotation::ROTATE, "now")
}

/// Asked for, and nobody reads the Secret.
fn asked_unread() -> Observation {
    asked().with_pods(&[], false)
}

fn unreadable(o: Observation) -> Observation {
    o.view(|view| view.credentials = Err(no_credentials()))
}

fn with_consumers(o: Observation, consumers: Vec<Consumer>) -> Observation {
    let pods = PodsSeen { consumers, ..o.pods.clone().unwrap_or_default() };
    Observation { pods: Some(pods), ..o }
}

fn restarting(o: Observation, change: impl FnOnce(&mut RolloutSpec)) -> Observation {
    o.key(|key| change(key.spec.rollout.get_or_insert_default()))
}

#[test]
fn a_rotation_begins_when_it_is_due_and_nothing_visible_stands_in_its_way() {
    let refused = |reason| asked_unread().with_slot(failing(1, SECOND, reason, theirs(0, SlotState::Lost)));
    check(vec![
        ("nobody asks", live(), "Issued"),
        ("it is due in nine hours at the latest", every(live(), "10h"), "Issued, 9h29m21s120ms"),
        ("it is due; first it is seen who reads the key", every(live(), "30m"), "LookAtPods"),
        ("somebody asks; first it is seen who reads the key", asked(), "LookAtPods"),
        ("somebody asks", asked_unread(), "ReserveNext uid-0 production/app-0"),
        (
            "the token was handled",
            seen()
                .with_slot(Slot { trigger: Some("now".into()), ..mine(SlotState::Live) })
                .annotated(annotation::ROTATE, "now"),
            "Issued",
        ),
        ("a place is kept: the next key is made", asked().with_slot(mine(SlotState::Reserved)), "Make"),
        (
            "nobody asks any more: the place is given back",
            live().with_slot(mine(SlotState::Reserved)),
            "GiveBack uid-0",
        ),
        (
            "nothing can be made in the place that is kept: it is given back",
            unreadable(asked().with_slot(mine(SlotState::Reserved))),
            "GiveBack uid-0",
        ),
        (
            "nor with credentials that led to another user",
            distrusting(asked().with_slot(mine(SlotState::Reserved)), CREDENTIALS),
            "GiveBack uid-0",
        ),
        (
            "somebody suspends it meanwhile: it keeps no place from the others",
            asked().with_slot(mine(SlotState::Reserved)).suspended(),
            "GiveBack uid-0",
        ),
        (
            "its namespace is not allowed any more: neither does it",
            live().with_slot(mine(SlotState::Reserved)).view(|view| view.permission = Permission::Namespace),
            "GiveBack uid-0",
        ),
        ("no place is kept for it", unreadable(asked_unread()), "RotationBlocked"),
        ("the account is full", asked_unread().view(|view| view.room.limit = 1), "RotationBlocked, 10m"),
        ("a further attempt was just refused", refused("Connect"), "Rotating, 59s"),
        ("it is suspended", asked_unread().suspended(), "RotationBlocked"),
        (
            "it may not use the account any more",
            asked_unread().view(|view| view.permission = Permission::Namespace),
            "RotationBlocked",
        ),
        (
            "two attempts came to nothing",
            asked_unread()
                .with_slot(named("a", Slot { published: None, ..mine(SlotState::Unresolved) }))
                .with_slot(named("b", Slot { published: None, ..mine(SlotState::Unresolved) })),
            "RotationBlocked",
        ),
        (
            "the Secret is somebody else's",
            asked_unread().with_consumer(Found::Foreign(Foreign::Type)),
            "SecretConflict, 1m",
        ),
        (
            "the Secret may not be read any more",
            asked_unread().with_consumer(Found::Foreign(Foreign::Forbidden)),
            "SecretRefused, 1m",
        ),
        (
            "the time zone of a window does not exist",
            in_windows(every(live(), "30m"), &[("02:00", "1h", "Mars/Olympus")]),
            "RotationBlocked",
        ),
    ]);
}

fn in_windows(o: Observation, windows: &[(&str, &str, &str)]) -> Observation {
    let one = |(from, duration, zone): &(&str, &str, &str)| WindowSpec {
        days: vec![],
        from: (*from).into(),
        duration: (*duration).into(),
        time_zone: Some((*zone).into()),
    };
    o.key(|key| key.spec.rotation.as_mut().unwrap().windows = windows.iter().map(one).collect())
}

#[test]
fn a_rotation_that_is_due_begins_in_a_window_and_waits_for_the_next_one_where_that_is_over() {
    // It is 08:00 UTC, and the key was published half an hour ago.
    let due = |windows: &[(&str, &str, &str)]| in_windows(every(live(), "1m"), windows);
    check(vec![
        ("a window is open", due(&[("07:45", "30m", "UTC")]), "LookAtPods"),
        ("the one in which it was due is over", due(&[("07:30", "15m", "UTC")]), "Issued, 23h30m"),
        ("another one opens sooner", due(&[("07:30", "15m", "UTC"), ("11:00", "1h", "UTC")]), "Issued, 3h"),
        ("one is open elsewhere", due(&[("09:00", "30m", "Europe/Berlin")]), "LookAtPods"),
        (
            "somebody asks, whatever the windows say",
            due(&[("07:30", "15m", "UTC")]).annotated(annotation::ROTATE, "now"),
            "LookAtPods",
        ),
        (
            "there was no place before the window was over: it is given back",
            due(&[("07:30", "15m", "UTC")]).with_slot(mine(SlotState::Reserved)),
            "GiveBack uid-0",
        ),
    ]);
}

#[test]
fn what_cannot_be_restarted_without_a_gap_keeps_a_rotation_from_beginning() {
    let with = |how| with_consumers(asked_unread(), vec![consumer("web", how, "", true)]);
    check(vec![
        ("it rolls over", with(""), "ReserveNext uid-0 production/app-0"),
        ("all its pods end first", with("Recreate"), "RotationBlocked, 1m"),
        ("it is paused", with("paused"), "RotationBlocked, 1m"),
        ("its owner restarts it", with("left alone"), "ReserveNext uid-0 production/app-0"),
        (
            "somebody allows the gap",
            restarting(with("Recreate"), |rollout| rollout.allow_gap = Some(true)),
            "ReserveNext uid-0 production/app-0",
        ),
        (
            "nothing is restarted",
            restarting(with("Recreate"), |rollout| rollout.restart = Some(Restart::None)),
            "ReserveNext uid-0 production/app-0",
        ),
        (
            "its pods re-read the file",
            with_consumers(asked_unread(), vec![consumer("web", "Recreate", "", false)]),
            "ReserveNext uid-0 production/app-0",
        ),
    ]);
}

fn stale() -> [crate::workload::Holder; 1] {
    [reader("web-1", Some(Why::Started))]
}

#[test]
fn workloads_are_restarted_one_after_the_other_once_their_pods_would_count() {
    let with = |age, consumers| with_consumers(switched(age, &stale()), consumers);
    let web = |how, mark| consumer("web", how, mark, true);
    let api = |how, mark| consumer("api", how, mark, true);
    let worker = || consumer("worker", "", "", true);
    check(vec![
        ("first the pods are looked at", switched(HOUR, &[]).without_pods(), "LookAtPods"),
        (
            "too early: new pods might get the old value",
            with(SECOND * 80, vec![web("", "")]),
            "Rotating, 10s",
        ),
        ("the first one is a canary", with(SECOND * 90, vec![api("", ""), web("", "")]), "Restart api"),
        (
            "while it is under way nobody else is",
            with(MINUTE * 2, vec![api("underway", "uid-0-2"), web("", "")]),
            "Rotating, 15s",
        ),
        (
            "it came up: the others follow, two at a time",
            with(
                MINUTE * 2,
                vec![
                    consumer("api", "", "uid-0-2", false),
                    web("", ""),
                    worker(),
                    consumer("x", "", "", true),
                ],
            ),
            "Restart web worker",
        ),
        ("the mark of an earlier switch is none", with(MINUTE * 2, vec![web("", "uid-0-1")]), "Restart web"),
        (
            "it is marked, and its old pods still end",
            with(MINUTE * 2, vec![consumer("web", "", "uid-0-2", false)]),
            "Rotating, 15s",
        ),
        (
            "nothing is to be restarted",
            restarting(with(MINUTE * 2, vec![web("", "")]), |rollout| rollout.restart = Some(Restart::None)),
            "Rotating, 15s",
        ),
        (
            "one that was made since would be stopped",
            with(MINUTE * 2, vec![web("Recreate", "")]),
            "Rotating, 15s",
        ),
        (
            "and may be",
            restarting(with(MINUTE * 2, vec![web("Recreate", "")]), |rollout| rollout.allow_gap = Some(true)),
            "Restart web",
        ),
        ("a paused one is not restarted", with(MINUTE * 2, vec![web("paused", "")]), "Rotating, 15s"),
        ("after seven days people are told", with(DAY * 7, vec![web("paused", "")]), "RotationHeld, 15s"),
        ("it is suspended", with(HOUR, vec![web("", "")]).suspended(), "RotationHeld"),
        ("the Secret was edited: first it is mended", with(HOUR, vec![web("", "")]).edited(), "Project"),
    ]);
}

#[test]
fn after_three_that_were_turned_back_a_rotation_begins_only_when_somebody_asks() {
    let turned_back = |times| {
        let slot = Slot { switched_back: Some(times), ..mine(SlotState::Live) };
        seen().with_slot(slot).with_pods(&[], false)
    };
    let asked = turned_back(3).annotated(annotation::ROTATE, "now");
    check(vec![
        ("two: it is due", every(turned_back(2), "30m"), "ReserveNext uid-0 production/app-0"),
        ("three: it is due", every(turned_back(3), "30m"), "RotationBlocked"),
        ("three: it is not due yet", every(turned_back(3), "10h"), "Issued, 9h29m21s120ms"),
        ("three: somebody asks", asked, "ReserveNext uid-0 production/app-0"),
        (
            "a place that was taken before is given back",
            every(turned_back(3), "30m").with_slot(mine(SlotState::Reserved)),
            "GiveBack uid-0",
        ),
    ]);
}

/// It is to go back where a workload does not come up.
fn back(o: Observation) -> Observation {
    let spec =
        RotationSpec { on_rollout_failure: Some(OnRolloutFailure::SwitchBack), ..RotationSpec::default() };
    o.key(|key| key.spec.rotation = Some(spec))
}

/// Something takes away who wrote the Secret, and when.
fn undated(mut o: Observation) -> Observation {
    let Some(Found::Ours(secret)) = &mut o.consumer else { panic!("no Secret to take it from") };
    secret.metadata.managed_fields = None;
    o
}

#[test]
fn a_workload_that_does_not_come_up_holds_the_rotation_or_turns_it_back() {
    let failed = || {
        with_consumers(
            switched(HOUR, &stale()),
            vec![consumer("api", "failed", "uid-0-2", true), consumer("web", "", "", true)],
        )
    };
    let answers = |o: Observation, probe| Observation { previous_probe: Some(probe), ..o };
    let mut returned = back(failed());
    returned = returned.view(|view| {
        view.ledger.slots[0].published = Some(3);
        view.ledger.slots[0].since = ago(HOUR);
    });
    let returned = with_consumers(returned.synced(), vec![consumer("api", "failed", "uid-0-3", true)]);
    check(vec![
        ("it is held, and nobody else is restarted", failed(), "RotationHeld, 15s"),
        ("to go back, the old key must work", back(failed()), "Probe old"),
        ("it works", answers(back(failed()), alive("user-1")), "SwitchBack old from 2"),
        ("it does not work any more", answers(back(failed()), Probe::Dead), "RotationHeld, 10m"),
        ("it went back, and fails again: it does not go to and fro", returned, "RotationHeld, 15s"),
    ]);
    // It came up hours ago, and a Job holds the old key still.
    let since =
        || with_consumers(switched(HOUR * 5, &stale()), vec![consumer("api", "failed", "uid-0-2", false)]);
    check(vec![
        ("it had come up, and fails since", since(), "RotationHeld, 15s"),
        ("which is no reason to go back", answers(back(since()), alive("user-1")), "RotationHeld, 15s"),
    ]);
    assert!(hold(&back(since())).message.contains("its rollout fails since"));
    // All its old pods have ended, as its strategy says.
    let gone = |age| with_consumers(clean(age), vec![consumer("api", "failed", "uid-0-2", false)]);
    check(vec![
        ("no pod holds the old key: it is held all the same", gone(MINUTE * 10), "RotationHeld, 15s"),
        ("and turned back", back(gone(MINUTE * 10)), "Probe old"),
        ("what fails hours after has another reason", back(gone(HOUR * 2)), "RotationHeld, 15s"),
    ]);
}

/// Since so long no pod holds the old key.
fn clean(age: Duration) -> Observation {
    since_clean(switched(age + MINUTE, &[reader("web-2", None)]), age, 2)
}

fn since_clean(o: Observation, age: Duration, count: i64) -> Observation {
    o.key(|key| {
        key.status.get_or_insert_default().switch = Some(Switch {
            count,
            attempt: "new".into(),
            at: ago(age),
            clean_since: Some(ago(age)),
            old_key_used_at: None,
            marked: vec![],
        });
    })
}

/// The last list was asked for so long ago; the old key was used so long ago; the new one answered so long ago, and a list
/// showed it a minute later.
fn listed(o: Observation, list: Duration, old_used: Duration, answered: Option<Duration>) -> Observation {
    let shown = answered.map(|age| Shown { answered: ago(age), lag: SignedDuration::from_mins(1) });
    let uses = Uses {
        may_list: true,
        listed_at: Some(ago(list)),
        tells: true,
        previous: Some(ago(old_used)),
        answered: answered.map(ago),
        shown,
    };
    Observation { uses: Some(uses), ..o }
}

fn quiet_for(o: Observation, text: &str) -> Observation {
    let spec = RotationSpec { quiet_for: Some(text.into()), ..RotationSpec::default() };
    o.key(|key| key.spec.rotation = Some(spec))
}

fn confirmed(o: Observation) -> Observation {
    looked(Duration::ZERO, o)
}

/// The pods were looked at so long ago, for a step that cannot be taken back.
fn looked(age: Duration, o: Observation) -> Observation {
    let pods = PodsSeen { confirmed: Some(ago(age)), ..o.pods.clone().unwrap() };
    Observation { pods: Some(pods), ..o }
}

fn works(o: Observation) -> Observation {
    Observation { current_probe: Some(alive("user-1")), ..o }
}

#[test]
fn the_old_key_goes_when_nothing_can_hold_it_and_nobody_uses_it() {
    let quiet = || listed(clean(HOUR * 25), MINUTE, HOUR * 30, Some(MINUTE * 5));
    let unasked = || listed(clean(HOUR * 25), MINUTE, HOUR * 30, None);
    let unshown = |o: Observation| {
        let uses = Uses { answered: Some(ago(SECOND)), shown: None, ..o.uses.unwrap() };
        Observation { uses: Some(uses), ..o }
    };
    let asked_again = || Observation { listed: true, ..confirmed(quiet()) };
    let unlisted = || clean(HOUR * 25);
    check(vec![
        ("nobody is seen, and who starts may be given it", switched(SECOND * 20, &[]), "Rotating, 40s"),
        (
            "so it is where nobody was seen before",
            since_clean(switched(SECOND * 20, &[]), SECOND * 10, 2),
            "Rotating, 40s",
        ),
        ("the first clean look is written down first", switched(HOUR, &[]), "Rotating, 10m"),
        ("that of an earlier switch is none", since_clean(switched(DAY * 2, &[]), DAY, 1), "Rotating, 10m"),
        (
            "nor is that from before the Secret was written again",
            since_clean(switched(HOUR, &[]), DAY * 2, 2),
            "Rotating, 10m",
        ),
        ("without lists a day is waited", clean(HOUR * 23 + MINUTE * 55), "Rotating, 5m"),
        ("a day is over: the pods are looked at again", unlisted(), "LookAtPods again"),
        ("then the new key is asked", confirmed(unlisted()), "Probe new"),
        ("everything speaks for it", works(confirmed(unlisted())), "Retire old after 2"),
        (
            "this process stood still after its last look: it looks again",
            works(looked(MINUTE * 2, unlisted())),
            "LookAtPods again",
        ),
        (
            "the new key does not work",
            Observation { current_probe: Some(Probe::Dead), ..confirmed(unlisted()) },
            "RotationHeld, 10m",
        ),
        (
            "nor does it where its use should have shown what lists can tell",
            Observation { current_probe: Some(Probe::Dead), ..unasked() },
            "RotationHeld, 10m",
        ),
        (
            "the new key is another user's",
            works(confirmed(unlisted()))
                .account(|account| account.spec.expected_user = Some("user-2".into())),
            "RotationHeld, 10m",
        ),
        (
            "a pod that holds the old key was seen at the last moment",
            confirmed(unlisted()).with_pods(&stale(), true),
            "Rotating, 15s",
        ),
        ("lists show that it is quiet: the pods are looked at again", quiet(), "LookAtPods again"),
        ("then the new key is asked again", confirmed(quiet()), "Probe new"),
        ("then the list is asked for again", works(confirmed(quiet())), "LookAtLists"),
        ("lists show that it is quiet, and all else is well", works(asked_again()), "Retire old after 2"),
        ("lists can tell only if they show a use that is known: it is made", unasked(), "Probe new"),
        ("and the list is asked whether it shows it", works(unshown(unasked())), "LookAtLists"),
        (
            "it does not: nobody can tell, and a day is over",
            Observation { listed: true, ..works(confirmed(unshown(unasked()))) },
            "Retire old after 2",
        ),
        (
            "it does not, and a day is not over",
            Observation {
                listed: true,
                ..works(unshown(quiet_for(listed(clean(HOUR * 2), MINUTE, HOUR * 3, None), "1h")))
            },
            "Rotating, 10m",
        ),
        (
            "a list lags: a later one counts",
            listed(clean(HOUR * 24 + MINUTE * 2), MINUTE, HOUR * 30, Some(SECOND * 90)),
            "Probe new",
        ),
        (
            "it was asked for a moment too early: the next one counts",
            Observation {
                listed: true,
                ..works(listed(clean(HOUR * 24 + SECOND * 121), SECOND * 2, HOUR * 30, Some(SECOND * 90)))
            },
            "Rotating, 1s",
        ),
        (
            "there is none any more",
            Observation {
                listed: true,
                ..works(listed(
                    clean(HOUR * 24 + MINUTE * 11),
                    MINUTE * 10,
                    HOUR * 30,
                    Some(MINUTE * 10 + SECOND * 30),
                ))
            },
            "Rotating, 1m",
        ),
        (
            "it was used two hours ago",
            listed(clean(HOUR * 25), MINUTE, HOUR * 2, Some(MINUTE * 5)),
            "Rotating, 10m",
        ),
        (
            "an hour of both keys at least",
            quiet_for(listed(clean(MINUTE * 50), MINUTE, HOUR * 30, Some(MINUTE * 5)), "1s"),
            "Rotating, 10m",
        ),
        (
            "in seven days it is told",
            listed(clean(DAY * 8), MINUTE, MINUTE * 10, Some(MINUTE * 5)),
            "RotationHeld, 10m",
        ),
        ("suspension keeps both", works(confirmed(unlisted())).suspended(), "RotationHeld"),
        (
            "another installation's ledger keeps both",
            works(confirmed(unlisted())).view(|view| view.ours = Some(false)),
            "RotationHeld",
        ),
    ]);
}

#[test]
fn a_deleted_apikeys_key_goes_once_no_pod_reads_its_secret() {
    let deleted = || live().deleted(MINUTE);
    check(vec![
        ("first the pods are looked at", deleted().without_pods(), "LookAtPods"),
        ("a pod reads the Secret", deleted(), "DeletionWaits, 15s"),
        ("none does: they are looked at again", deleted().with_pods(&[], false), "LookAtPods again"),
        ("none does", deleted().with_pods(&[], true), "Condemn attempt-uid-0-Live"),
        (
            "a pod came at the last moment",
            deleted().with_pods(&[reader("late", None)], true),
            "DeletionWaits, 15s",
        ),
    ]);
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
            &["Production-App-0-new is in the Secret", "accept it any more", "who revoked"],
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
fn only_what_waits_for_a_second_slot_is_starving() {
    let place = |o: Observation| o.view(|view| view.room.limit = 1);
    assert!(hold(&place(asked_unread())).starving);
    let others = [
        asked_unread().suspended(),
        place(asked_unread().suspended()),
        place(unreadable(asked_unread())),
        place(with_consumers(asked_unread(), vec![consumer("web", "Recreate", "", true)])),
    ];
    assert!(others.iter().all(|o| !hold(o).starving));
}

#[test]
fn an_attempt_at_the_next_key_says_nothing_against_the_current_one() {
    let next = |o: Observation| {
        o.with_slot(named(
            "next",
            Slot { revision: 2, published: None, ..aged(SECOND * 30, mine(SlotState::Creating)) },
        ))
    };
    check(vec![
        ("it is being made", next(asked()).running(), "Rotating, 1m"),
        ("nobody knows whether it was made", next(asked()), "Rotating, 3m30s"),
        (
            "it works: it is published",
            next(asked()).saved().probed(alive("user-1")),
            "Publish next for user-1",
        ),
        ("it may not use the service", next(asked()).saved().probed(Probe::Forbidden), "RotationBlocked, 1m"),
    ]);
}
