//! What becomes of a lost ledger, as tables.

use std::sync::Arc;

use tokio::time::Instant;

use super::*;
use crate::{
    account::{
        decide::{
            decide,
            tests::{account, annotated, deleting},
        },
        observe::LooseEntry,
    },
    api::BagsAccountStatus,
    api::annotation,
};

const SPAN: Duration = Duration::from_mins(10);

/// Nobody's ledger, with these keystore Secrets.
fn lost(remnants: Vec<Remnant>) -> Observation {
    let mut seen = Observation { remnants: Some(remnants), ..account() };
    Arc::make_mut(&mut seen.account).status = None;
    seen
}

/// A keystore Secret of the owner `n`, whose value answered 200 for user `one`.
fn remnant(n: usize, attempt: &str, revision: i64) -> Remnant {
    let now = account().now;
    Remnant {
        owner: Owner { namespace: "shop".into(), name: format!("app-{n}"), uid: format!("uid-{n}") },
        key_use: format!("production/app-{n}"),
        trigger: None,
        key_name: Some(format!("Production-App-01234567-{attempt}")),
        key_id: Some(format!("id-{attempt}")),
        revision,
        attempt: attempt.into(),
        value: true,
        released: false,
        created: None,
        installation: Some(account().installation),
        published: None,
        memory: KeyMemory {
            good: Some(now),
            probed: Some(now),
            user: Some("one".into()),
            ..KeyMemory::default()
        },
    }
}

fn published(remnant: Remnant, number: i64, attempt: &str) -> Remnant {
    Remnant { published: Some(Written { number, attempt: attempt.into(), at: None }), ..remnant }
}

/// Its keystore Secret is this many minutes old, and the consumer Secret says that it was switched to this many minutes ago.
fn aged(remnant: Remnant, created: i64, switched: i64) -> Remnant {
    let ago = |minutes| account().wall - jiff::SignedDuration::from_mins(minutes);
    let published = remnant.published.map(|switch| Written { at: Some(ago(switched)), ..switch });
    Remnant { created: Some(ago(created)), published, ..remnant }
}

fn theirs() -> Installation {
    Installation { cluster: "89abcdef-0123".into(), namespace: "bags".into() }
}

/// It has answered 401 for long enough.
fn refused(remnant: Remnant) -> Remnant {
    let now = account().now;
    let memory =
        KeyMemory { refused_since: Some(now - SPAN), probed: Some(now), refusals: 3, ..KeyMemory::default() };
    Remnant { memory, ..remnant }
}

/// It answered 401 a moment ago, for the first time.
fn refused_once(remnant: Remnant) -> Remnant {
    let now = account().now;
    let memory =
        KeyMemory { refused_since: Some(now), probed: Some(now), refusals: 1, ..KeyMemory::default() };
    Remnant { memory, ..remnant }
}

fn left_to_people(remnant: Remnant) -> Remnant {
    Remnant { released: true, ..remnant }
}

fn empty(n: usize, attempt: &str) -> Remnant {
    Remnant { value: false, memory: KeyMemory::default(), ..remnant(n, attempt, 1) }
}

/// Attempt, state and number of the slots that are put back.
fn put_back(remnants: Vec<Remnant>) -> Vec<(String, SlotState, Option<i64>)> {
    let Decision::Act(Effect::Pin { slots, .. }) = decide(&lost(remnants)) else { panic!("no pin") };
    slots.into_iter().map(|slot| (slot.attempt.unwrap_or_default(), slot.state, slot.published)).collect()
}

#[test]
fn every_keystore_secret_gets_its_slot_back() {
    use SlotState::{Creating, Live, Released, Unresolved};
    let of = |remnant: Remnant, user: Option<&str>| {
        let memory = KeyMemory { user: user.map(str::to_owned), ..remnant.memory };
        Remnant { memory, ..remnant }
    };
    let other = |attempt, revision| of(remnant(0, attempt, revision), Some("two"));
    let unclear = |remnant: Remnant| {
        let now = account().now;
        let memory = KeyMemory { unclear_since: Some(now - SPAN), probed: Some(now), ..KeyMemory::default() };
        Remnant { memory, ..remnant }
    };
    type PutBack<'a> = Vec<(&'a str, SlotState, Option<i64>)>;
    let cases: Vec<(&str, Vec<Remnant>, PutBack<'_>)> = vec![
        ("a new account has none", vec![], vec![]),
        ("a key that works", vec![remnant(0, "a", 1)], vec![("a", Live, Some(1))]),
        (
            "its number is the consumer Secret's",
            vec![published(remnant(0, "a", 1), 4, "a")],
            vec![("a", Live, Some(4))],
        ),
        (
            "the newer one of two was never shown",
            vec![published(remnant(0, "a", 1), 1, "a"), published(remnant(0, "b", 2), 1, "a")],
            vec![("b", Creating, None), ("a", Live, Some(1))],
        ),
        (
            "the newer one of two was shown before the way back",
            vec![published(remnant(0, "a", 1), 3, "a"), published(remnant(0, "b", 2), 3, "a")],
            vec![("b", Live, Some(2)), ("a", Live, Some(3))],
        ),
        (
            "the newer one of two was shown before the way back, after failed attempts that took revisions",
            vec![
                aged(published(remnant(0, "a", 3), 3, "a"), 60, 5),
                aged(published(remnant(0, "b", 4), 3, "a"), 10, 5),
            ],
            vec![("b", Live, Some(2)), ("a", Live, Some(3))],
        ),
        (
            "the newer one of two was never shown, after failed attempts that took revisions",
            vec![
                aged(published(remnant(0, "a", 3), 1, "a"), 60, 59),
                aged(published(remnant(0, "b", 4), 1, "a"), 10, 59),
            ],
            vec![("b", Creating, None), ("a", Live, Some(1))],
        ),
        (
            "the older one of two may still be in use",
            vec![published(remnant(0, "a", 1), 1, "b"), published(remnant(0, "b", 2), 1, "b")],
            vec![("a", Live, Some(1)), ("b", Live, Some(2))],
        ),
        (
            "without a consumer Secret the newest is current",
            vec![remnant(0, "b", 2), remnant(0, "a", 1)],
            vec![("a", Live, Some(1)), ("b", Live, Some(2))],
        ),
        (
            "of another user",
            vec![published(remnant(0, "a", 1), 1, "a"), published(other("b", 2), 1, "a")],
            vec![("b", Unresolved, None), ("a", Live, Some(1))],
        ),
        (
            "of another user, which comes first",
            vec![published(other("a", 1), 2, "b"), published(remnant(0, "b", 2), 2, "b")],
            vec![("a", Unresolved, None), ("b", Live, Some(2))],
        ),
        (
            "of another user, in no consumer Secret: the one of most keys is right",
            vec![other("a", 1), remnant(1, "b", 1), remnant(2, "c", 1)],
            vec![("a", Unresolved, None), ("b", Live, Some(1)), ("c", Live, Some(1))],
        ),
        (
            "of a user who is gone",
            vec![unclear(remnant(0, "a", 1)), remnant(1, "b", 1)],
            vec![("a", Live, Some(1)), ("b", Live, Some(1))],
        ),
        (
            "of a user who is gone, and never shown",
            vec![published(unclear(remnant(0, "b", 2)), 1, "a"), published(remnant(0, "a", 1), 1, "a")],
            vec![("b", Creating, None), ("a", Live, Some(1))],
        ),
        (
            "that Bags refuses, with every other one",
            vec![refused(remnant(0, "a", 1)), refused(remnant(1, "b", 1))],
            vec![("a", Live, Some(1)), ("b", Live, Some(1))],
        ),
        (
            "that Bags refuses, as does another installation's",
            vec![
                Remnant { installation: Some(theirs()), ..refused(remnant(0, "a", 1)) },
                Remnant { installation: Some(theirs()), ..remnant(1, "b", 1) },
            ],
            vec![("a", Live, Some(1)), ("b", Live, Some(1))],
        ),
        ("a creation of unknown outcome", vec![empty(0, "a")], vec![("a", Creating, None)]),
        ("in the Secret, its value lost", vec![published(empty(0, "a"), 1, "a")], vec![("a", Live, Some(1))]),
        ("left to people", vec![left_to_people(remnant(0, "a", 1))], vec![("a", Released, Some(1))]),
        (
            "left to people beside another ApiKey's",
            vec![left_to_people(remnant(0, "a", 1)), remnant(1, "b", 1)],
            vec![("a", Released, Some(1)), ("b", Live, Some(1))],
        ),
        (
            "both keys of a rotation left to people",
            vec![left_to_people(remnant(0, "b", 2)), left_to_people(remnant(0, "a", 1))],
            vec![("a", Released, Some(1)), ("b", Released, Some(2))],
        ),
        (
            "one of two marked when the ledger was lost",
            vec![
                published(left_to_people(remnant(0, "a", 1)), 2, "b"),
                published(remnant(0, "b", 2), 2, "b"),
            ],
            vec![("a", Released, Some(1)), ("b", Live, Some(2))],
        ),
        (
            "left to people, of another user",
            vec![left_to_people(other("a", 1)), remnant(1, "b", 1), remnant(2, "c", 1)],
            vec![("a", Released, Some(1)), ("b", Live, Some(1)), ("c", Live, Some(1))],
        ),
        (
            "left to people, its value lost",
            vec![left_to_people(empty(0, "a"))],
            vec![("a", Released, Some(1))],
        ),
        (
            "of two owners",
            vec![remnant(1, "b", 1), remnant(0, "a", 1)],
            vec![("a", Live, Some(1)), ("b", Live, Some(1))],
        ),
    ];
    for (name, remnants, expected) in cases {
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(attempt, state, number)| (attempt.to_owned(), state, number))
            .collect();
        assert_eq!(put_back(remnants), expected, "{name}");
    }
}

#[test]
fn an_only_key_is_as_old_as_its_secret_says_and_two_count_from_now_on() {
    let only = |number, attempt| published(remnant(0, "a", 1), number, attempt);
    let two = |attempt, revision, created| aged(published(remnant(0, attempt, revision), 2, "b"), created, 5);
    // Minutes before now, in the ledger's order.
    let undated = || published(aged(remnant(0, "a", 1), 60, 59), 1, "a");
    let cases: Vec<(&str, Vec<Remnant>, Vec<i64>)> = vec![
        ("as its Secret says", vec![aged(only(1, "a"), 60, 59)], vec![59]),
        ("no older than its value", vec![aged(only(1, "a"), 60, 90)], vec![60]),
        ("and no younger than now", vec![aged(only(1, "a"), 60, -5)], vec![0]),
        ("the Secret holds another one", vec![aged(only(2, "z"), 60, 59)], vec![0]),
        ("the Secret does not say when", vec![undated()], vec![0]),
        ("there is no Secret", vec![aged(remnant(0, "a", 1), 60, 59)], vec![0]),
        ("two that live", vec![two("a", 1, 60), two("b", 2, 10)], vec![0, 0]),
        ("beside one that is being made", vec![aged(only(1, "a"), 60, 59), empty(0, "b")], vec![0, 59]),
    ];
    for (name, remnants, expected) in cases {
        let seen = lost(remnants);
        let Decision::Act(Effect::Pin { slots, .. }) = decide(&seen) else { panic!("no pin: {name}") };
        let ages: Vec<i64> =
            slots.iter().map(|slot| seen.wall.duration_since(slot.since).as_mins()).collect();
        assert_eq!(ages, expected, "{name}");
    }
}

#[test]
fn a_rotation_that_was_asked_for_is_not_asked_for_again() {
    let asked = |attempt, revision, token: Option<&str>| Remnant {
        trigger: token.map(str::to_owned),
        ..remnant(0, attempt, revision)
    };
    let triggers = |remnants: Vec<Remnant>| {
        let Turn::Now(Decision::Act(Effect::Pin { slots, .. })) = pin(&lost(remnants)) else {
            panic!("no pin")
        };
        slots.into_iter().map(|slot| slot.trigger).collect::<Vec<_>>()
    };
    let first = Some("first".to_owned());
    assert_eq!(triggers(vec![asked("a", 2, Some("first"))]), std::slice::from_ref(&first));
    let turned_back = vec![published(asked("a", 1, None), 3, "a"), asked("b", 2, Some("first"))];
    assert_eq!(triggers(turned_back), [first.clone(), first]);
    let lost = vec![published(Remnant { trigger: Some("first".into()), ..empty(0, "a") }, 1, "a")];
    assert_eq!(triggers(lost), [Some("first".to_owned())], "nor where the key's value is lost");
    let making = vec![asked("a", 1, None), Remnant { trigger: Some("first".into()), ..empty(0, "b") }];
    let first = Some("first".to_owned());
    assert_eq!(triggers(making), [None, first], "the key that is being made answers it");
}

#[test]
fn where_two_users_are_as_likely_a_person_says_which_is_the_accounts() {
    let mut other = remnant(0, "a", 1);
    other.memory.user = Some("two".into());
    let mut seen = lost(vec![other, remnant(1, "b", 1)]);
    assert_eq!(decide(&seen), Decision::Rest(None));
    let (reason, said) = waits_for(&seen).unwrap();
    assert_eq!(reason, "UserAmbiguous");
    assert!(said.contains("(one, two)") && said.contains("spec.expectedUser"), "{said}");
    Arc::make_mut(&mut seen.account).spec.expected_user = Some("one".into());
    let Decision::Act(Effect::Pin { user, slots, .. }) = decide(&seen) else { panic!("no pin") };
    assert_eq!(user.as_deref(), Some("one"));
    let states: Vec<_> = slots.into_iter().map(|slot| slot.state).collect();
    assert_eq!(states, [SlotState::Unresolved, SlotState::Live]);
}

#[test]
fn of_several_empty_ones_one_may_still_be_under_way() {
    let young = Remnant { created: Some(Timestamp::UNIX_EPOCH + Duration::from_secs(9)), ..empty(0, "b") };
    let old = Remnant { created: Some(Timestamp::UNIX_EPOCH), ..empty(1, "a") };
    let shown = Remnant { created: Some(Timestamp::UNIX_EPOCH + Duration::from_secs(99)), ..empty(2, "c") };
    let seen = lost(vec![young, old, published(shown, 1, "c")]);
    let Decision::Act(Effect::Pin { slots, .. }) = decide(&seen) else { panic!("no pin") };
    let open = slots
        .iter()
        .filter(|slot| crate::ledger::slots::licence_open(slot, seen.wall, seen.timings.licence_term));
    assert_eq!(open.map(|slot| slot.attempt.as_deref()).collect::<Vec<_>>(), [Some("b")]);
}

#[test]
fn a_value_is_asked_before_its_slot_is_put_back() {
    let base = account();
    let now = base.now;
    let lost = |remnants| Observation { now, ..lost(remnants) };
    let ago = |time: Duration| now - time;
    let refused = |refusals, since: Instant, probed| KeyMemory {
        refusals,
        refused_since: Some(since),
        probed: Some(probed),
        tried: Some(probed),
        ..KeyMemory::default()
    };
    let with = |memory| Remnant { memory, ..remnant(0, "a", 1) };
    let probe = Decision::Look(Look::Probe("a".into()));
    let rest = |wait| Decision::Rest(Some(wait));
    let other = |good: Instant| {
        let memory = KeyMemory { good: Some(good), ..remnant(1, "b", 1).memory };
        Remnant { memory, ..remnant(1, "b", 1) }
    };
    let long = || with(refused(3, ago(SPAN), now));
    let unanswered = KeyMemory { probe_after: Some(now + Duration::from_secs(8)), ..KeyMemory::default() };
    let cases = [
        ("never asked", lost(vec![with(KeyMemory::default())]), probe.clone()),
        ("no answer", lost(vec![with(unanswered)]), rest(Duration::from_secs(8))),
        ("refused just now", lost(vec![with(refused(1, now, now))]), rest(SPAN / 2)),
        ("refused for a while", lost(vec![with(refused(1, ago(SPAN / 2), ago(SPAN / 2)))]), probe),
        (
            "refused for long: is another one accepted?",
            lost(vec![long(), other(ago(SPAN))]),
            Decision::Look(Look::Probe("b".into())),
        ),
        (
            "it is, since the last refusal: is the key refused now as well?",
            lost(vec![with(refused(3, ago(SPAN * 2), ago(SPAN))), other(now)]),
            Decision::Look(Look::Probe("a".into())),
        ),
        ("it is: the key is dead", lost(vec![long(), other(now)]), Decision::Act(Effect::Clear("a".into()))),
        (
            "neither life nor death just now",
            lost(vec![with(KeyMemory {
                unclear_since: Some(now),
                probed: Some(now),
                ..KeyMemory::default()
            })]),
            rest(SPAN / 2),
        ),
    ];
    for (name, seen, expected) in cases {
        assert_eq!(decide(&seen), expected, "{name}");
    }
}

#[test]
fn until_the_slots_are_put_back_nothing_is_decided_on_their_absence() {
    let (base, waiting) = (account(), Duration::from_secs(8));
    let memory = KeyMemory { probe_after: Some(base.now + waiting), ..KeyMemory::default() };
    let mut seen = lost(vec![Remnant { memory, ..remnant(0, "a", 1) }, empty(1, "b")]);
    seen.now = base.now;
    seen.list = None;
    seen.loose.push(LooseEntry {
        attempt: "b".into(),
        value: false,
        created: Some(Timestamp::UNIX_EPOCH),
        watched: Duration::ZERO,
        running: false,
    });
    let rest = Decision::Rest(Some(waiting));
    assert_eq!(decide(&seen), rest, "neither a list nor the Secret of a creation under way");
    let mut going = deleting(seen);
    assert_eq!(decide(&going), rest, "a deleted account stays: it has keys");
    let (reason, said) = waits_for(&going).unwrap();
    assert_eq!(reason, "LedgerLost");
    assert!(said.contains("bags-key-a") && !said.contains("bags-key-b"), "{said}");
    going = annotated(going, annotation::FORGET, "true");
    assert_eq!(decide(&going), Decision::Act(Effect::RemoveFinalizer), "unless a person lets it go");
}

#[test]
fn a_lost_ledger_that_another_installation_was_first_to_take_is_put_together_when_it_is_taken_over() {
    let taken = |remnants| {
        let mut seen = annotated(lost(remnants), annotation::TAKE_OVER, "01234567-89ab");
        let status = BagsAccountStatus { installation: Some(theirs()), ..BagsAccountStatus::default() };
        Arc::make_mut(&mut seen.account).status = Some(status);
        seen
    };
    let ours = account().installation;
    for made_by in [ours.clone(), theirs()] {
        let kept = Remnant { installation: Some(made_by), ..remnant(0, "a", 1) };
        let Decision::Act(Effect::Pin { installation, slots, .. }) = decide(&taken(vec![kept])) else {
            panic!("no pin")
        };
        assert_eq!((installation, slots.len()), (ours.clone(), 1));
    }
    let unasked = Remnant { memory: KeyMemory::default(), ..remnant(0, "a", 1) };
    let waits = taken(vec![unasked]);
    assert_eq!(decide(&waits), Decision::Look(Look::Probe("a".into())));
    assert_eq!(waits_for(&waits).unwrap().0, "LedgerLost");
    let unread = Observation { remnants: None, ..taken(vec![]) };
    assert_eq!(decide(&unread), Decision::Look(Look::Remnants));
    // Until then nothing is decided on what it lacks.
    let old = LooseEntry {
        attempt: "old".into(),
        value: false,
        created: Some(account().wall - jiff::SignedDuration::from_hours(1)),
        watched: SPAN * 2,
        running: false,
    };
    let unsettled = Observation { loose: vec![old], ..taken(vec![refused_once(remnant(0, "a", 1))]) };
    assert!(matches!(decide(&unsettled), Decision::Rest(Some(_))), "{:?}", decide(&unsettled));
    let going = deleting(unsettled);
    assert!(matches!(decide(&going), Decision::Rest(Some(_))), "{:?}", decide(&going));
    // What an emptied ledger knows to have left is no remnant of it.
    let buried = Observation { departed: vec!["a".into()], ..taken(vec![remnant(0, "a", 1)]) };
    let Decision::Act(Effect::Pin { slots, .. }) = decide(&buried) else { panic!("no pin") };
    assert!(slots.is_empty(), "{slots:?}");
}

#[test]
fn a_ledger_is_not_put_together_before_it_is_known_what_was_published() {
    let why = "failed to read Secret \"web\" in namespace \"shop\": 403 Forbidden";
    let seen = Observation { remnants: None, unread: Some(why.into()), ..lost(vec![]) };
    assert_eq!(decide(&seen), Decision::Rest(None));
    let (reason, said) = waits_for(&seen).unwrap();
    assert_eq!(reason, "LedgerLost");
    assert!(said.ends_with(why), "{said}");
}

#[test]
fn a_dead_keys_secret_that_may_not_be_deleted_is_not_asked_for_again_in_the_same_run() {
    let dead = || {
        let (mut dead, other) = (refused(remnant(0, "a", 1)), remnant(1, "b", 1));
        dead.memory.probed = other.memory.good;
        vec![dead, other]
    };
    assert_eq!(decide(&lost(dead())), Decision::Act(Effect::Clear("a".into())));
    let kept = Observation { uncleared: ["a".to_owned()].into(), ..lost(dead()) };
    assert!(matches!(decide(&kept), Decision::Rest(Some(_))));
}

#[test]
fn a_keystore_of_another_installation_is_not_taken_over() {
    let remnant = Remnant { installation: Some(theirs()), ..remnant(0, "a", 1) };
    let Decision::Act(Effect::Pin { installation, .. }) = decide(&lost(vec![remnant])) else {
        panic!("no pin")
    };
    assert_eq!(installation, theirs());
}
