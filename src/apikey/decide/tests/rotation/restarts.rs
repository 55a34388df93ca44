//! Which workloads are restarted, and what becomes of a rotation where one does not come up.

use super::*;

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
    let ended = |how| with_consumers(switched(HOUR * 5, &[]), vec![consumer("api", how, "uid-0-2", false)]);
    check(vec![
        (
            "the Job has ended since: it is held all the same",
            back(ended("failed an hour ago")),
            "RotationHeld, 15s",
        ),
        (
            "where nobody tells since when it fails, it may be for the new key",
            back(ended("failed")),
            "Probe old",
        ),
    ]);
    let said = hold(&back(ended("failed an hour ago"))).message;
    assert!(said.contains("had failed before the last pod with the old key went"), "{said}");
    // All its old pods have ended, as its strategy says.
    let gone = |age| with_consumers(clean(age), vec![consumer("api", "failed", "uid-0-2", false)]);
    // Bags refuses the new key since. What fails for that failed long after no pod held the old key any more, or so it seems: the
    // status does not keep that time meanwhile.
    let dead = |age, o: Observation| Observation { current_failure: Some((Probe::Dead, age)), ..o };
    let revoked = || dead(MINUTE, ended("failed an hour ago"));
    let asked = |ago| Observation { current_asked: ago, ..ended("failed an hour ago") };
    let works = Observation { current_probe: Some(alive("user-1")), ..asked(None) };
    let now = |o, probe| Observation { current_probe: Some(probe), ..o };
    // Its keystore Secret was deleted as well.
    let lost = Observation { current_value: None, current_asked: None, ..gone(MINUTE * 10) };
    let late = with_consumers(clean(HOUR * 2), vec![consumer("api", "failed", "uid-0-2", false)]);
    check(vec![
        ("Bags refuses the new key: that is told", revoked(), "RotationHeld, 9m"),
        ("it is asked again after a while", dead(MINUTE * 10, ended("failed an hour ago")), "Probe new"),
        ("a process that never asked it asks", asked(None), "Probe new"),
        ("it worked a while ago: it is asked again", asked(Some(MINUTE * 10)), "Probe new"),
        ("it worked just now", asked(Some(MINUTE)), "RotationHeld, 15s"),
        ("it works: so it is the workload", works, "RotationHeld, 15s"),
        ("before it is turned back, that is asked once more", back(revoked()), "Probe new"),
        ("Bags let nobody in for a while", now(back(revoked()), alive("user-1")), "RotationHeld, 15s"),
        ("it may be turned back, if the old key works", now(back(revoked()), Probe::Dead), "Probe old"),
        ("a key that nobody can ask is turned back from", back(lost), "Probe old"),
        ("which it does", answers(back(revoked()), alive("user-1")), "SwitchBack old from 2"),
        ("or not", answers(back(revoked()), Probe::Dead), "RotationHeld, 10m"),
        (
            "however long after the last pod with the old key",
            answers(back(dead(MINUTE, late)), alive("user-1")),
            "SwitchBack old from 2",
        ),
    ]);
    let said = hold(&revoked()).message;
    assert!(said.contains("Bags does not accept it any more"), "{said}");
    check(vec![
        ("no pod holds the old key: it is held all the same", gone(MINUTE * 10), "RotationHeld, 15s"),
        ("and turned back", back(gone(MINUTE * 10)), "Probe old"),
        ("what fails hours after has another reason", back(gone(HOUR * 2)), "RotationHeld, 15s"),
    ]);
    // It was held, and hours later somebody asks for the way back.
    let later = |age, how| with_consumers(clean(age), vec![consumer("api", how, "uid-0-2", false)]);
    let soon = || later(HOUR * 2, "failed when recreated");
    check(vec![
        ("what failed soon is held until somebody asks", soon(), "RotationHeld, 15s"),
        ("and turned back then, if the old key works", back(soon()), "Probe old"),
        ("which it does", answers(back(soon()), alive("user-1")), "SwitchBack old from 2"),
        (
            "what failed an hour after has another reason",
            back(later(HOUR * 2, "failed an hour ago")),
            "RotationHeld, 15s",
        ),
    ]);
}

#[test]
fn the_old_key_stays_until_what_ended_its_old_pods_is_up_with_the_newer_one() {
    let with = |age, how| with_consumers(clean(age), vec![consumer("web", how, "uid-0-2", false)]);
    let mut returned = with(HOUR * 2, "not up").view(|view| {
        view.ledger.slots[0].published = Some(3);
        view.ledger.slots[0].since = ago(HOUR * 2);
    });
    returned.pods.as_mut().unwrap().consumers = vec![consumer("web", "not up", "uid-0-3", false)];
    check(vec![
        ("it is not up yet", with(HOUR * 2, "not up"), "Rotating, 15s"),
        ("for seven days: people are told", with(DAY * 7, "not up"), "RotationHeld, 15s"),
        ("it is up, and the overlap runs", with(HOUR * 2, "Recreate"), "Rotating, 10m"),
        ("its pods are replaced one by one", with(HOUR * 2, "underway"), "Rotating, 10m"),
        ("on the way back nothing is left to go back to", returned.synced(), "Rotating, 10m"),
    ]);
    let said = hold(&with(HOUR * 2, "not up")).message;
    assert!(said.contains("these are not up with the newer one yet: Deployment \"web\""), "{said}");
}
