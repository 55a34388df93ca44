//! A key is replaced: when that begins. Who is restarted is in `restarts`, when the old key goes in `retirement`,
//! and what is said meanwhile in `words`.

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
    consumer_secret::{Foreign, Found},
    workload::{Consumer, Rest, Why},
};

mod restarts;
mod retirement;
mod words;

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

fn in_windows(o: Observation, windows: &[(&str, &str, &str)]) -> Observation {
    let one = |(from, duration, zone): &(&str, &str, &str)| WindowSpec {
        days: vec![],
        from: (*from).into(),
        duration: (*duration).into(),
        time_zone: Some((*zone).into()),
    };
    o.key(|key| key.spec.rotation.as_mut().unwrap().windows = windows.iter().map(one).collect())
}

fn stale() -> [crate::workload::Holder; 1] {
    [reader("web-1", Some(Why::Started))]
}

/// It is to go back where a workload does not come up.
fn back(o: Observation) -> Observation {
    let spec =
        RotationSpec { on_rollout_failure: Some(OnRolloutFailure::SwitchBack), ..RotationSpec::default() };
    o.key(|key| key.spec.rotation = Some(spec))
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

fn confirmed(o: Observation) -> Observation {
    looked(Duration::ZERO, o)
}

/// The pods were looked at so long ago, for a step that cannot be taken back.
fn looked(age: Duration, o: Observation) -> Observation {
    let pods = PodsSeen { confirmed: Some(ago(age)), ..o.pods.clone().unwrap() };
    Observation { pods: Some(pods), ..o }
}

/// A key of an earlier rotation that nobody revokes.
fn waiting(attempt: &str) -> Slot {
    named(attempt, mine(SlotState::Revoking))
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
        (
            "a place is kept: the next key is made",
            asked_unread().with_slot(mine(SlotState::Reserved)),
            "Make",
        ),
        (
            "nobody asks any more: the place is given back",
            live().with_slot(mine(SlotState::Reserved)),
            "GiveBack uid-0",
        ),
        (
            "somebody else's Secret is there: the place is given back",
            Observation {
                consumer: Some(Found::Foreign(Foreign::Unmarked)),
                ..asked().with_slot(mine(SlotState::Reserved))
            },
            "GiveBack uid-0",
        ),
        (
            "a key of an earlier rotation waits for a person",
            asked_unread().with_slot(waiting("a")),
            "ReserveNext uid-0 production/app-0",
        ),
        ("two of them do", asked_unread().with_slot(waiting("a")).with_slot(waiting("b")), "RotationBlocked"),
        (
            "the account has been filled elsewhere since the place was taken",
            asked().with_slot(mine(SlotState::Reserved)).view(|view| view.room.unmanaged = 9),
            "RotationBlocked",
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
        (
            "the API server would not take the Secret just now: no place is kept meanwhile",
            Observation { next_refused: Some((MINUTE, secret_refused())), ..asked_unread() },
            "RotationBlocked, 1m",
        ),
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
            "another ApiKey counts as first to the Secret that it has",
            Observation { secret_rival: Some(rival()), ..asked_unread() },
            "ReserveNext uid-0 production/app-0",
        ),
        (
            "another ApiKey counts as first to it, and a place is kept: the next key is made",
            Observation {
                secret_rival: Some(rival()),
                ..asked_unread().with_slot(mine(SlotState::Reserved))
            },
            "Make",
        ),
        (
            "the time zone of a window does not exist",
            in_windows(every(live(), "30m"), &[("02:00", "1h", "Mars/Olympus")]),
            "RotationBlocked",
        ),
    ]);
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
        ("its last rollout has failed", with("failed"), "RotationBlocked, 1m"),
        ("its last rollout is under way", with("underway"), "ReserveNext uid-0 production/app-0"),
        (
            "it was well when the place was taken",
            with("Recreate").with_slot(mine(SlotState::Reserved)),
            "GiveBack uid-0",
        ),
        (
            "nobody has looked since the place was taken",
            asked().with_slot(mine(SlotState::Reserved)),
            "LookAtPods",
        ),
        ("it still is", with("").with_slot(mine(SlotState::Reserved)), "Make"),
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
