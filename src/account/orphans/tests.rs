//! When slots without an ApiKey go, as a table.

use jiff::Timestamp;

use super::*;
use crate::{
    account::{
        decide::{
            Decision, decide,
            tests::{NOW, RESYNC, account, annotated, attempt, change_of, rest, seen, with},
        },
        memory::NamespaceSeen,
    },
    api::annotation,
    ledger::slots::tests::owner,
};

/// A slot of an owner that the cache misses, in its state for so long.
fn orphan(state: SlotState, age: i64, found: Option<OwnerSeen>) -> Observation {
    let missing = OwnerSeen::Missing(account().now);
    let mut slot = SlotSeen { owner: found.unwrap_or(missing), ..seen(0, state) };
    slot.slot.since = Timestamp::from_second(NOW - age).unwrap();
    with([slot])
}

/// The namespace was asked for so long ago, and has been gone for so long.
fn namespace(mut account: Observation, asked: u64, gone: Option<u64>) -> Observation {
    let ago = |seconds| account.now.checked_sub(Duration::from_secs(seconds)).unwrap();
    let known = NamespaceSeen { asked: ago(asked), gone_since: gone.map(ago) };
    account.facts.namespaces.insert(owner(0).namespace, known);
    account
}

#[test]
fn a_place_or_an_unpublished_key_without_an_owner_goes_after_its_time_and_a_live_read() {
    use SlotState::{Creating, Reserved};
    let ask = Decision::Look(Look::Owner(owner(0)));
    let place = |age, watched, found| {
        let mut place = orphan(Reserved, age, found);
        place.slots[0].watched = Duration::from_secs(watched);
        place
    };
    let cases = [
        ("a place waits", place(119, 119, None), rest(1)),
        ("also by the clock of a replica that is behind", place(5000, 119, None), rest(1)),
        ("then its owner is looked for", place(120, 120, None), ask.clone()),
        ("also by the clock of one that is ahead", place(-5000, 120, None), ask.clone()),
        (
            "and it is given back",
            place(120, 120, Some(OwnerSeen::Gone)),
            change_of(Change::GiveBack { owner_uid: owner(0).uid }),
        ),
        ("unless its owner is there", place(120, 120, Some(OwnerSeen::Lives)), rest(RESYNC)),
        (
            "one that is being deleted gives it back itself",
            place(120, 120, Some(OwnerSeen::Deleting)),
            rest(RESYNC),
        ),
        ("a made key waits for nothing", orphan(Creating, 20, None), ask),
        (
            "and is never published",
            orphan(Creating, 20, Some(OwnerSeen::Gone)),
            change_of(Change::Abandon { attempt: attempt(0, Creating) }),
        ),
    ];
    for (name, case, expected) in cases {
        assert_eq!(decide(&case), expected, "{name}");
    }
}

#[test]
fn a_published_key_without_an_owner_goes_with_its_namespace_or_on_a_persons_word_and_never_by_time() {
    let live = |found| orphan(SlotState::Live, 90_000, found);
    let gone = || live(Some(OwnerSeen::Gone));
    let condemn = |attempt: &str, looked_at| {
        change_of(Change::Condemn { attempt: attempt.to_owned(), emergency: false, looked_at })
    };
    // The namespace was looked for so long ago.
    let look_of = |seconds| Some(Timestamp::from_second(NOW - seconds).unwrap());
    let current = attempt(0, SlotState::Live);
    let (ask, look) = (Decision::Look(Look::Owner(owner(0))), Decision::Look(Look::Namespace("shop".into())));
    let may_go = |account| annotated(account, annotation::REVOKE, &attempt(0, SlotState::Live));
    let removed = |account| annotated(account, annotation::RESOLVED, &attempt(0, SlotState::Live));
    let mut two = namespace(gone(), 0, Some(3600));
    let mut older = two.slots[0].clone();
    older.slot.attempt = Some("older".into());
    older.current = false;
    two.slots.push(older);
    let cases = [
        ("its namespace is looked for", live(None), look.clone()),
        ("which is there", namespace(gone(), 0, None), rest(RESYNC)),
        ("and is looked for again", namespace(gone(), RESYNC - 5, None), rest(5)),
        ("at every resync", namespace(gone(), RESYNC, None), look.clone()),
        ("a namespace that is gone may come back", namespace(gone(), 0, Some(3599)), rest(1)),
        ("then it is looked for a last time", namespace(gone(), 61, Some(3600)), look),
        ("and so is the owner", namespace(live(None), 60, Some(3600)), ask.clone()),
        ("then the key goes", namespace(gone(), 0, Some(3600)), condemn(&current, look_of(0))),
        ("by that look", namespace(gone(), 60, Some(3600)), condemn(&current, look_of(60))),
        ("unless the owner is there", namespace(live(Some(OwnerSeen::Lives)), 0, Some(3600)), rest(RESYNC)),
        ("the older one goes first", two, condemn("older", look_of(0))),
        ("a person's word is followed", namespace(may_go(gone()), 0, None), condemn(&current, None)),
        ("after a live read", namespace(may_go(live(None)), 0, None), ask),
        ("that it was removed is another word", namespace(removed(gone()), 0, None), rest(RESYNC)),
        ("but not while its ApiKey is there", may_go(live(Some(OwnerSeen::Cached))), rest(RESYNC)),
    ];
    for (name, case, expected) in cases {
        assert_eq!(decide(&case), expected, "{name}");
    }
}
