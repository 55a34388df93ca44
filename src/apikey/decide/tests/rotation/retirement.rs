//! When the old key goes, and when that of a deleted ApiKey does.

use super::*;

fn quiet_for(o: Observation, text: &str) -> Observation {
    let spec = RotationSpec { quiet_for: Some(text.into()), ..RotationSpec::default() };
    o.key(|key| key.spec.rotation = Some(spec))
}

fn works(o: Observation) -> Observation {
    Observation { current_probe: Some(alive("user-1")), ..o }
}

#[test]
fn lists_that_cannot_be_asked_for_now_tell_of_uses_all_the_same() {
    let may_list = |o: Observation| o.account.unwrap().may_list();
    assert!(may_list(unreadable(live())), "its Secret is gone for an hour, in which somebody may call");
    let wallet_only = live().account(|account| account.spec.credentials.agent_token = None);
    assert!(!may_list(unreadable(wallet_only)), "it has no lists at all");
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
        (
            "in the overlap it looks again, at the Secret as well, after ten minutes",
            clean(HOUR),
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
            "it did not a moment ago: so it is told, and nothing is waited for",
            Observation { current_failure: Some((Probe::Dead, MINUTE * 4)), ..switched(HOUR, &[]) },
            "RotationHeld, 6m",
        ),
        (
            "it did not ten minutes ago: it is asked again",
            Observation { current_failure: Some((Probe::Dead, MINUTE * 10)), ..switched(HOUR, &[]) },
            "Probe new",
        ),
        (
            "a process that never asked it does so before it says what is waited for",
            Observation { current_asked: None, ..switched(HOUR, &[]) },
            "Probe new",
        ),
        (
            "it works again",
            Observation {
                current_failure: Some((Probe::Dead, Duration::ZERO)),
                ..works(switched(HOUR, &[]))
            },
            "Rotating, 10m",
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
            "its credentials cannot be read now: the list is asked for all the same",
            unreadable(works(confirmed(quiet()))),
            "LookAtLists",
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
        ("none does", deleted().with_pods(&[], true), "Condemn attempt-uid-0-Live by a look"),
        (
            "whatever the pods read where a person says so",
            deleted().with_pods(&[], true).annotated(annotation::DELETE_NOW, "true"),
            "Condemn attempt-uid-0-Live",
        ),
        (
            "this process stood still after its last look: it looks again",
            looked(MINUTE * 2, deleted().with_pods(&[], true)),
            "LookAtPods again",
        ),
        (
            "a pod came at the last moment",
            deleted().with_pods(&[reader("late", None)], true),
            "DeletionWaits, 15s",
        ),
    ]);
}
