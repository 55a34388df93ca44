use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;

use super::*;
use crate::{
    clock::{Clock, SystemClock},
    leader::{record::transitions, timings::LeaderTimings},
};

const ME: &str = "me_1";

fn candidate(identity: &str) -> Candidate {
    Candidate { identity: identity.to_owned(), timings: LeaderTimings::default() }
}

fn wall(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A Lease of this holder, with this promise in seconds.
fn held_by(holder: &str, promise: Option<i32>) -> Lease {
    let spec = LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: promise,
        ..LeaseSpec::default()
    };
    Lease { spec: Some(spec), ..Lease::default() }
}

/// What is decided when the Lease was first seen so at 0, and a leader's last renewal was sent then.
fn decided(lease: Option<Lease>, leads: bool, now: f64) -> Next {
    let start = SystemClock.monotonic();
    let mut sight = Sight::default();
    sight.observe(lease, start);
    decide(&candidate(ME), &sight, leads.then_some(start), start + seconds(now))
}

/// The same, without the moments.
fn kind(next: &Next) -> String {
    match next {
        Next::Wait(Awaited::Holder { holder, .. }) => format!("wait for {holder}"),
        Next::Wait(Awaited::Drained) => "wait for a person".to_owned(),
        Next::Lose(loss) => format!("lose: {loss}"),
        Next::Look | Next::Create | Next::Take | Next::Renew => format!("{next:?}"),
    }
}

const WAITS: bool = false;
const LEADS: bool = true;

#[test]
fn each_rule_applies_where_it_should() {
    let other = |promise| Some(held_by("other_1", promise));
    let no_spec = Some(Lease::default());
    let cases: [(&str, Option<Lease>, bool, f64, &str); 22] = [
        ("a Lease that is not there is created", None, WAITS, 0.0, "Create"),
        ("one that nobody holds is taken", Some(held_by("", Some(1))), WAITS, 0.0, "Take"),
        ("one that says nothing is taken", no_spec.clone(), WAITS, 0.0, "Take"),
        ("a holder is waited for", other(Some(15)), WAITS, 0.0, "wait for other_1"),
        ("also just before it expires", other(Some(15)), WAITS, 14.999, "wait for other_1"),
        ("when it has expired it is taken", other(Some(15)), WAITS, 15.0, "Take"),
        ("a longer promise than ours is kept to", other(Some(60)), WAITS, 59.0, "wait for other_1"),
        ("and taken when that is over", other(Some(60)), WAITS, 60.0, "Take"),
        ("without a promise our own duration counts", other(None), WAITS, 14.0, "wait for other_1"),
        ("and without a sensible one", other(Some(0)), WAITS, 14.0, "wait for other_1"),
        ("or with a negative one", other(Some(-5)), WAITS, 15.0, "Take"),
        ("one of ours whose answer was lost is renewed", Some(held_by(ME, Some(15))), WAITS, 0.0, "Renew"),
        (
            "another process of the same pod is another holder",
            Some(held_by("me_2", Some(15))),
            WAITS,
            0.0,
            "wait for me_2",
        ),
        ("drained is waited for", Some(held_by(DRAINED, Some(15))), WAITS, 0.0, "wait for a person"),
        ("however old it is", Some(held_by(DRAINED, Some(1))), WAITS, 1e6, "wait for a person"),
        ("a leader renews its own", Some(held_by(ME, Some(15))), LEADS, 9.999, "Renew"),
        (
            "not after its deadline",
            Some(held_by(ME, Some(15))),
            LEADS,
            10.0,
            "lose: the Lease was not renewed for 10 s, so another process may take it soon",
        ),
        (
            "a leader yields to another holder",
            other(Some(15)),
            LEADS,
            0.0,
            "lose: the Lease is held by \"other_1\"",
        ),
        (
            "also to one whose time is over",
            other(Some(1)),
            LEADS,
            5.0,
            "lose: the Lease is held by \"other_1\"",
        ),
        (
            "a leader yields to a drain",
            Some(held_by(DRAINED, Some(1))),
            LEADS,
            0.0,
            "lose: the installation was drained: the Lease is held by \"drained\"",
        ),
        (
            "a leader that was cleared has lost",
            Some(held_by("", None)),
            LEADS,
            0.0,
            "lose: the Lease was deleted, or its holder was cleared",
        ),
        (
            "a leader whose Lease was deleted has lost",
            None,
            LEADS,
            0.0,
            "lose: the Lease was deleted, or its holder was cleared",
        ),
    ];
    for (case, lease, leads, now, expected) in cases {
        assert_eq!(kind(&decided(lease, leads, now)), expected, "{case}");
    }
}

#[test]
fn what_is_not_known_is_looked_at_and_the_deadline_comes_first() {
    let start = SystemClock.monotonic();
    let me = candidate(ME);
    let mut sight = Sight::default();
    assert_eq!(decide(&me, &sight, None, start), Next::Look);
    sight.observe(Some(held_by(ME, Some(15))), start);
    sight.doubt();
    assert_eq!(decide(&me, &sight, Some(start), start + seconds(9.0)), Next::Look);
    assert_eq!(sight.lease(), None);
    let lost = Next::Lose(Loss::NotRenewed(seconds(10.0)));
    assert_eq!(decide(&me, &sight, Some(start), start + seconds(10.0)), lost);
}

#[test]
fn a_lease_expires_by_our_own_observation_whatever_times_stand_in_it() {
    let start = SystemClock.monotonic();
    let (me, other) = (candidate(ME), candidate("other_1"));
    // The holder's clock is an hour behind, then jumps ahead, then goes back: each change is a sign of life.
    let mut lease = other.created(wall(-3600));
    let mut sight = Sight::default();
    for (seen, clock) in [(0.0, 7200), (10.0, -7200), (20.0, 0)] {
        lease = other.renewed(&lease, wall(clock));
        sight.observe(Some(lease.clone()), start + seconds(seen));
    }
    let until = start + seconds(35.0);
    // Looked at again and unchanged, it does not live longer, nor because somebody puts a label on it.
    sight.observe(Some(lease.clone()), start + seconds(30.0));
    lease.metadata.labels = Some([("seen".to_owned(), "yes".to_owned())].into());
    lease.metadata.resource_version = Some("99".into());
    sight.observe(Some(lease.clone()), start + seconds(34.0));
    let holder = "other_1".to_owned();
    let waits = Next::Wait(Awaited::Holder { holder, until });
    assert_eq!(decide(&me, &sight, None, start + seconds(34.9)), waits);
    assert_eq!(decide(&me, &sight, None, until), Next::Take);
    // One that was deleted and made anew begins anew.
    sight.observe(None, until);
    sight.observe(Some(lease), until);
    assert!(matches!(decide(&me, &sight, None, until), Next::Wait(_)));
}

#[test]
fn what_is_written_counts_transitions_and_leaves_the_rest_as_it_was() {
    let (me, other) = (candidate(ME), candidate("other_1"));
    let spec = |lease: &Lease| lease.spec.clone().unwrap();
    let created = other.created(wall(0));
    assert_eq!((transitions(&created), holder(&created)), (0, Some("other_1")));
    assert_eq!(created.metadata.name.as_deref(), Some("bags-operator"));

    let mut stored = created;
    stored.metadata.resource_version = Some("7".into());
    stored.metadata.uid = Some("uid-7".into());
    stored.metadata.labels = Some([("team".to_owned(), "platform".to_owned())].into());
    let renewed = other.renewed(&stored, wall(5));
    assert_eq!(renewed.metadata, stored.metadata, "the version is how the API server sees who was first");
    assert_eq!(
        (spec(&renewed).acquire_time.unwrap().0, spec(&renewed).renew_time.unwrap().0),
        (wall(0), wall(5))
    );
    assert_eq!(transitions(&renewed), 0);

    let taken = me.taken(&renewed, wall(20));
    assert_eq!(taken.metadata, stored.metadata);
    assert_eq!((holder(&taken), transitions(&taken)), (Some(ME), 1));
    assert_eq!(spec(&taken).acquire_time, spec(&taken).renew_time);
    assert_eq!(spec(&taken).lease_duration_seconds, Some(15));

    let released = me.released(&taken, wall(30));
    assert_eq!(released.metadata, stored.metadata);
    assert_eq!((holder(&released), transitions(&released)), (None, 1));
    assert_eq!(spec(&released).lease_duration_seconds, Some(1));
    assert_eq!(transitions(&other.taken(&released, wall(31))), 2);
    let overflowing = LeaseSpec { lease_transitions: Some(i32::MAX), ..LeaseSpec::default() };
    assert_eq!(
        transitions(&me.taken(&Lease { spec: Some(overflowing), ..Lease::default() }, wall(0))),
        i32::MAX
    );
}
