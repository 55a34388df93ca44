//! The proof of death as a table. Properties over everything that can be known are in `properties`.

use super::*;

mod properties;

/// What is known; times are seconds after `Revoking`.
#[derive(Clone, Debug)]
struct Known {
    now: u64,
    alive_before: bool,
    tried: Option<u64>,
    /// Since when the key has answered neither 200 nor 401; last when it was `tried`.
    unclear: Option<u64>,
    refused: Option<(u32, u64, u64)>,
    acknowledged: Option<u64>,
    revocations: u32,
    revoke_after: Option<u64>,
    value: bool,
    worked: bool,
    way: Way,
    list: Evidence,
    listed: Option<u64>,
    witness: Witness,
    resolved: bool,
    pinged: Option<u64>,
}

fn known(now: u64) -> Known {
    Known {
        now,
        alive_before: false,
        tried: None,
        unclear: None,
        refused: None,
        acknowledged: None,
        revocations: 0,
        revoke_after: None,
        value: true,
        worked: true,
        way: Way::Operator,
        list: Evidence::Ask,
        listed: None,
        witness: Witness::Ask("other".into()),
        resolved: false,
        pinged: None,
    }
}

/// A monotonic clock late enough for any time before it.
#[expect(clippy::disallowed_methods, reason = "a fixed point for the table's times")]
fn revoking_at() -> Instant {
    Instant::now() + Duration::from_secs(1_000_000)
}

fn with<T>(known: &Known, look: impl FnOnce(&Facts<'_>) -> T) -> T {
    let start = revoking_at();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let memory = KeyMemory {
        refused_since: known.refused.map(|(_, first, _)| at(first)),
        refusals: known.refused.map_or(0, |(count, _, _)| count),
        probed: known.refused.map(|(_, _, last)| at(last)).or(known.tried.map(at)),
        tried: known.refused.map(|(_, _, last)| at(last)).or(known.tried.map(at)),
        unclear_since: known.unclear.filter(|_| known.refused.is_none()).map(at),
        alive_before_revocation: known.alive_before,
        acknowledged: known.acknowledged.map(at),
        revocations: known.revocations,
        revoke_after: known.revoke_after.map(at),
        ..KeyMemory::default()
    };
    look(&Facts {
        memory: &memory,
        value: known.value,
        way: known.way,
        worked: known.worked,
        list: known.list.clone(),
        listed: known.listed.map(at),
        witness: known.witness.clone(),
        resolved: known.resolved,
        pinged: known.pinged.map(at),
        ping_after: None,
        age: Duration::from_secs(known.now),
        now: at(known.now),
        timings: &Timings::default(),
    })
}

fn wait(seconds: u64) -> Next {
    Next::Wait(Some(Duration::from_secs(seconds)))
}

#[test]
fn a_key_is_revoked_by_the_operator_and_dies_within_seconds() {
    let ours = Known { alive_before: true, tried: Some(0), ..known(0) };
    let acknowledged = Known { acknowledged: Some(1), ..ours.clone() };
    let cases = [
        ("it is asked first whether it works", known(0), Next::Probe),
        ("then it is revoked", ours.clone(), Next::Revoke),
        ("also if the question was not answered", Known { tried: Some(0), ..known(0) }, Next::Revoke),
        (
            "a failed revocation is sent again after its pause",
            Known { now: 1, revocations: 1, revoke_after: Some(4), ..ours.clone() },
            wait(3),
        ),
        (
            "and then without asking again",
            Known { now: 4, revocations: 1, revoke_after: Some(4), ..ours },
            Next::Revoke,
        ),
        ("after the acknowledgement it is asked", Known { now: 1, ..acknowledged.clone() }, Next::Probe),
        ("one 401 is no proof", Known { now: 1, refused: Some((1, 1, 1)), ..acknowledged.clone() }, wait(1)),
        (
            "a second one is asked for a second later",
            Known { now: 2, refused: Some((1, 1, 1)), ..acknowledged.clone() },
            Next::Probe,
        ),
        (
            "two 401 a second apart are the proof, whatever lists say",
            Known {
                now: 2,
                refused: Some((2, 1, 2)),
                list: Evidence::Shown { key_id: None },
                ..acknowledged.clone()
            },
            Next::Dead,
        ),
        (
            "401 from before the acknowledgement count for nothing",
            Known { now: 5, acknowledged: Some(4), refused: Some((3, 1, 3)), ..acknowledged.clone() },
            Next::Probe,
        ),
        (
            "an answer that shows neither life nor death is asked for again later",
            Known { now: 3, tried: Some(2), ..acknowledged },
            wait(29),
        ),
    ];
    for (name, case, expected) in cases {
        assert_eq!(with(&case, next), expected, "{name}");
    }
}

#[test]
fn a_key_that_died_by_others_needs_two_answers_a_witness_and_the_list() {
    let twice = Known { now: 40, acknowledged: Some(1), refused: Some((2, 2, 32)), ..known(40) };
    let nobody = Known { witness: Witness::Nobody, ..twice.clone() };
    let cases = [
        (
            "two 401 too close together wait for a third",
            Known {
                refused: Some((2, 2, 4)),
                now: 5,
                list: Evidence::None,
                witness: Witness::Good,
                ..twice.clone()
            },
            wait(27),
        ),
        ("then the list is asked", twice.clone(), Next::List),
        ("and another key", Known { list: Evidence::Absent, ..twice.clone() }, Next::Witness("other".into())),
        (
            "all three agree",
            Known { list: Evidence::Absent, witness: Witness::Good, ..twice.clone() },
            Next::Dead,
        ),
        (
            "where there is no list, the witness is enough",
            Known { list: Evidence::None, witness: Witness::Good, ..twice.clone() },
            Next::Dead,
        ),
        (
            "one that was let in only after the last refusal is none: the key is asked once more",
            Known { list: Evidence::None, witness: Witness::After, ..twice.clone() },
            Next::Probe,
        ),
        (
            "where there is no witness, the list is enough",
            Known { list: Evidence::Absent, ..nobody.clone() },
            Next::Dead,
        ),
        (
            "a list that shows it holds the slot",
            Known { list: Evidence::Shown { key_id: None }, witness: Witness::Good, ..twice.clone() },
            Next::Wait(None),
        ),
        (
            "witnesses that answer 401 too hold the slot: something else is wrong",
            Known {
                list: Evidence::None,
                witness: Witness::Later(Duration::from_secs(300)),
                ..twice.clone()
            },
            wait(300),
        ),
        (
            "with neither list nor witness the third answer comes after ten minutes",
            Known { now: 302, list: Evidence::None, refused: Some((2, 2, 302)), ..nobody.clone() },
            wait(300),
        ),
        (
            "and the service must be there",
            Known { now: 602, list: Evidence::None, refused: Some((3, 2, 602)), ..nobody.clone() },
            Next::Ping,
        ),
        (
            "a ping from before proves nothing",
            Known {
                now: 602,
                list: Evidence::None,
                refused: Some((3, 2, 602)),
                pinged: Some(601),
                ..nobody.clone()
            },
            Next::Ping,
        ),
        (
            "then it is proven",
            Known { now: 603, list: Evidence::None, refused: Some((3, 2, 602)), pinged: Some(603), ..nobody },
            Next::Dead,
        ),
    ];
    for (name, case, expected) in cases {
        assert_eq!(with(&case, next), expected, "{name}");
    }
}

#[test]
fn where_a_person_revokes_the_list_tells_or_the_key_is_asked_by_schedule() {
    let person = |now| Known { way: Way::Person(PersonReason::NoEndpoint), ..known(now) };
    let blind = |now, tried| Known { list: Evidence::None, witness: Witness::Nobody, tried, ..person(now) };
    let cases = [
        ("the ordinary lists are awaited", person(10), Next::Wait(None)),
        (
            "while they show it, it is not asked",
            Known { list: Evidence::Shown { key_id: None }, ..person(9000) },
            Next::Wait(None),
        ),
        (
            "the first that lacks it is followed by a second",
            Known { list: Evidence::Lacking(Duration::from_secs(30)), ..person(600) },
            wait(30),
        ),
        (
            "at once when it is time",
            Known { list: Evidence::Lacking(Duration::ZERO), ..person(630) },
            Next::List,
        ),
        (
            "absence is confirmed by the key itself",
            Known { list: Evidence::Absent, ..person(630) },
            Next::Probe,
        ),
        (
            "a key that works although it is not listed is asked again later",
            Known { list: Evidence::Absent, tried: Some(630), ..person(631) },
            wait(299),
        ),
        ("without a list it is asked after a minute", blind(10, None), wait(50)),
        ("then", blind(60, None), Next::Probe),
        ("then after five", blind(61, Some(60)), wait(239)),
        ("then after fifteen", blind(300, Some(300)), wait(600)),
        ("then after an hour", blind(900, Some(900)), wait(2700)),
        ("then every hour", blind(3600, Some(3600)), wait(3600)),
        ("for ever", blind(90_000, Some(86_400)), Next::Probe),
        (
            "a first 401 makes it quicker",
            Known { refused: Some((1, 900, 900)), ..blind(901, None) },
            wait(299),
        ),
    ];
    for (name, case, expected) in cases {
        assert_eq!(with(&case, next), expected, "{name}");
        assert_eq!(with(&case, needs_person), Some(PersonReason::NoEndpoint), "{name}");
    }
}

#[test]
fn a_key_that_was_never_accepted_is_not_dead_for_being_refused() {
    let person = |now, last| Known {
        worked: false,
        way: Way::Person(PersonReason::NoToken),
        list: Evidence::None,
        witness: Witness::Good,
        refused: Some((2, last - 30, last)),
        ..known(now)
    };
    let cases = [
        ("it is asked again later", person(91, 90), wait(209)),
        ("as long as nobody has said that it is gone", person(3600, 900), Next::Probe),
        ("its refusals prove it then", Known { resolved: true, ..person(91, 90) }, Next::Dead),
        ("one that worked is dead", Known { worked: true, ..person(91, 90) }, Next::Dead),
        ("so is one that lists lack", Known { list: Evidence::Absent, ..person(91, 90) }, Next::Dead),
        (
            "that nobody else can be asked makes it no more dead",
            Known {
                witness: Witness::Nobody,
                refused: Some((3, 60, 660)),
                pinged: Some(661),
                ..person(661, 660)
            },
            wait(239),
        ),
    ];
    for (name, case, expected) in cases {
        assert_eq!(with(&case, next), expected, "{name}");
    }
}

#[test]
fn a_person_is_asked_where_refusals_for_long_prove_nothing() {
    let refused = |now| Known { acknowledged: Some(1), refused: Some((2, 2, 32)), ..known(now) };
    let later = |now| Known { witness: Witness::Later(Duration::from_secs(300)), ..refused(now) };
    let listed =
        |now| Known { list: Evidence::Shown { key_id: None }, witness: Witness::Good, ..refused(now) };
    let cases = [
        ("no other key works just now", later(601), None),
        ("none has worked for ten minutes", later(602), Some(PersonReason::Unwitnessed)),
        ("a list may lag", listed(601), None),
        ("it goes on showing the key", listed(602), Some(PersonReason::Contradicted)),
    ];
    for (name, case, expected) in cases {
        assert_eq!(with(&case, needs_person), expected, "{name}");
        assert_ne!(with(&case, next), Next::Dead, "{name}");
    }
}

#[test]
fn a_key_whose_value_is_lost_dies_by_lists_or_by_a_persons_word() {
    let lost = |now| Known { value: false, ..known(now) };
    let acknowledged = |now| Known { acknowledged: Some(1), ..lost(now) };
    let shown = |now, listed| Known {
        list: Evidence::Shown { key_id: None },
        listed: Some(listed),
        ..acknowledged(now)
    };
    let cases = [
        ("it is revoked without asking it", lost(0), Next::Revoke),
        (
            "its absence from lists is no proof before a revocation was tried",
            Known { list: Evidence::Absent, ..lost(0) },
            Next::Revoke,
        ),
        ("then a list is asked for", acknowledged(1), Next::List),
        (
            "and a second one",
            Known { list: Evidence::Lacking(Duration::from_secs(30)), ..acknowledged(1) },
            wait(30),
        ),
        ("two that lack it are the proof", Known { list: Evidence::Absent, ..acknowledged(40) }, Next::Dead),
        ("one that still shows it may lag behind the revocation", shown(601, 240), Next::Wait(None)),
        (
            "one that does so after four minutes tells that nothing happened",
            shown(241, 241),
            Next::Ineffective,
        ),
        ("no list: a person", Known { list: Evidence::None, ..acknowledged(40) }, Next::Wait(None)),
        (
            "whose word is enough",
            Known { list: Evidence::None, resolved: true, ..acknowledged(40) },
            Next::Dead,
        ),
    ];
    for (name, case, expected) in cases {
        assert_eq!(with(&case, next), expected, "{name}");
    }
    let unprovable = Known { list: Evidence::None, ..acknowledged(40) };
    assert_eq!(with(&unprovable, needs_person), Some(PersonReason::NotProvable));
}

#[test]
fn a_persons_word_is_checked_once_where_the_value_is_known() {
    let resolved = |now| Known { resolved: true, list: Evidence::Shown { key_id: None }, ..known(now) };
    let cases = [
        ("the key is asked", resolved(10), Next::Probe),
        ("it still works", Known { tried: Some(10), ..resolved(11) }, wait(29)),
        ("it still works after a minute", Known { tried: Some(60), ..resolved(61) }, wait(59)),
        ("it still works after a day", Known { tried: Some(86_400), ..resolved(86_401) }, wait(299)),
        ("it does not", Known { refused: Some((1, 11, 11)), ..resolved(11) }, Next::Dead),
        (
            "where it works and can be revoked, it is",
            Known { tried: Some(10), alive_before: true, ..resolved(11) },
            Next::Revoke,
        ),
        (
            "where only a person can, it is asked again",
            Known {
                tried: Some(10),
                alive_before: true,
                way: Way::Person(PersonReason::NoEndpoint),
                ..resolved(11)
            },
            wait(29),
        ),
    ];
    for (name, case, expected) in cases {
        assert_eq!(with(&case, next), expected, "{name}");
    }
}

#[test]
fn a_key_that_answers_neither_life_nor_death_goes_by_a_persons_word_only() {
    let unclear = Known { tried: Some(30), unclear: Some(10), acknowledged: Some(5), ..known(31) };
    let person = Known {
        way: Way::Person(PersonReason::Mode),
        list: Evidence::Absent,
        acknowledged: None,
        ..unclear.clone()
    };
    let resolved = |known: &Known| Known { resolved: true, ..known.clone() };
    let before = Known { unclear: Some(0), tried: None, acknowledged: None, ..known(31) };
    let cases = [
        ("it is asked again", unclear.clone(), wait(29)),
        ("ever more rarely", Known { now: 91, tried: Some(90), ..unclear.clone() }, wait(79)),
        ("in the end every five minutes", Known { now: 611, tried: Some(610), ..unclear.clone() }, wait(299)),
        (
            "once it answers 401, the next one is asked for as soon as it counts",
            Known {
                now: 911,
                refused: Some((1, 910, 910)),
                list: Evidence::Absent,
                witness: Witness::Good,
                ..unclear.clone()
            },
            wait(29),
        ),
        ("also where no list has it", person.clone(), wait(29)),
        ("a person's word ends it", resolved(&person), Next::Dead),
        ("also where our revocation was acknowledged", resolved(&unclear), Next::Dead),
        ("what it answered before says nothing", resolved(&before), Next::Probe),
    ];
    for (name, case, expected) in cases {
        assert_eq!(with(&case, next), expected, "{name}");
    }
    assert_eq!(with(&unclear, needs_person), None, "it may pass");
    let lives = Known { alive_before: true, acknowledged: None, ..resolved(&unclear) };
    assert_ne!(with(&lives, next), Next::Dead, "it worked, and nobody has revoked it since");
    let lived = |last| Known { now: 700, tried: Some(last), alive_before: true, ..resolved(&person) };
    assert_ne!(with(&lived(609), next), Next::Dead, "one that worked may work again");
    assert_eq!(with(&lived(690), next), Next::Dead, "it has not for ten minutes");
    let long = Known { now: 611, tried: Some(610), ..unclear };
    assert_eq!(with(&long, needs_person), Some(PersonReason::Unclear));
}

#[test]
fn what_answers_in_the_services_stead_makes_the_time_between_refusals_no_longer() {
    let twice = Known {
        acknowledged: Some(1),
        refused: Some((2, 2, 62)),
        list: Evidence::Absent,
        witness: Witness::Good,
        ..known(63)
    };
    assert_eq!(with(&twice, next), Next::Dead);
    let last_was_unclear = |facts: &Facts<'_>| {
        let memory = KeyMemory { unclear_since: facts.memory.probed, ..facts.memory.clone() };
        next(&Facts { memory: &memory, ..facts.clone() })
    };
    assert_eq!(with(&twice, last_was_unclear), wait(29));
}

#[test]
fn an_unknown_id_is_looked_up_in_a_list_first() {
    let unidentified = Known { way: Way::Unidentified, ..known(0) };
    assert_eq!(with(&unidentified, next), Next::List);
    let failing = Known { list: Evidence::Later(Duration::from_secs(8)), ..unidentified };
    assert_eq!(with(&failing, next), wait(8));
}

#[test]
fn a_revocation_that_fails_again_and_again_is_told_and_sent_ever_more_rarely() {
    let failed = |revocations| Known { revocations, revoke_after: Some(9), ..known(8) };
    assert_eq!(with(&failed(9), needs_person), None);
    assert_eq!(with(&failed(10), needs_person), Some(PersonReason::Failing));
    let acknowledged = Known { acknowledged: Some(8), ..failed(10) };
    assert_eq!(with(&acknowledged, needs_person), None);
    let pauses = [1, 2, 5, 6, 10, 11, 12, 13, 14, u32::MAX].map(|count| revocation_pause(count).as_secs());
    assert_eq!(pauses, [1, 2, 16, 30, 30, 60, 120, 240, 300, 300]);
}

#[test]
fn pauses_double_up_to_their_bound() {
    let pauses = [0, 1, 2, 3, 5, 6, 60].map(|count| pause(count, Duration::from_secs(30)).as_secs());
    assert_eq!(pauses, [1, 1, 2, 4, 16, 30, 30]);
}
