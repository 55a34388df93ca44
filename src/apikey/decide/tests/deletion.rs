//! Rule 1.

use super::*;
use crate::{
    api::{
        account::{Capability, Revocation, RevocationMode, SlotState},
        annotation::DELETE_NOW,
        apikey::DeletionPolicy,
    },
    apikey::fixtures::{SECOND, named},
};

fn deleted(state: SlotState) -> Observation {
    seen().with_slot(mine(state)).deleted(MINUTE)
}

/// Two keys that were published, the first of them more recently.
fn two_live() -> Observation {
    seen()
        .with_slot(Slot { published: Some(2), ..named("new", mine(SlotState::Live)) })
        .with_slot(Slot { published: Some(1), ..named("old", mine(SlotState::Live)) })
        .deleted(MINUTE)
}

fn terminating(observation: Observation) -> Observation {
    let deleted = observation.key.metadata.deletion_timestamp.as_ref().map(|at| at.0);
    Observation { namespace_deleted: deleted, ..observation }
}

fn orphaned(observation: Observation) -> Observation {
    observation.key(|key| key.spec.deletion_policy = Some(DeletionPolicy::Orphan))
}

fn by_person(observation: Observation) -> Observation {
    observation.account(|account| {
        account.spec.revocation = Some(Revocation { mode: Some(RevocationMode::Person), path: None });
    })
}

fn neighbours(view: &mut AccountView) {
    (view.ours, view.neighbours) = (Some(false), true);
}

fn newer(observation: Observation) -> Observation {
    observation.with_slot(theirs(1, SlotState::Unknown("Quarantined".into())))
}

#[test]
fn a_deleted_api_key_gives_places_back_and_leaves() {
    check(vec![
        ("with nothing in the ledger it leaves", seen().deleted(MINUTE), "Finish with the Secret"),
        (
            "without our finalizer others are waited for",
            without_finalizer(deleted(SlotState::Live)),
            "Deleting",
        ),
        (
            "without our finalizer a place is given back",
            without_finalizer(deleted(SlotState::Reserved)),
            "GiveBack uid-0",
        ),
        (
            "without an account there is nothing to revoke with",
            seen().without_account().deleted(MINUTE),
            "Finish",
        ),
        ("a place is given back", deleted(SlotState::Reserved), "GiveBack uid-0"),
        (
            "a place is given back before anything else",
            deleted(SlotState::Live).with_slot(mine(SlotState::Reserved)).annotated(DELETE_NOW, "true"),
            "GiveBack uid-0",
        ),
        ("a creation that runs is waited for", deleted(SlotState::Creating).running(), "Deleting, 30s"),
        (
            "a creation that runs is waited for although a value came",
            deleted(SlotState::Creating).running().saved(),
            "Deleting, 30s",
        ),
        ("a creation of unknown outcome is judged first", deleted(SlotState::Creating), "Deleting, 30s"),
        (
            "a key that was never published goes without asking",
            deleted(SlotState::Creating).saved(),
            "Abandon attempt-uid-0-Creating",
        ),
        (
            "a suspended ApiKey is deleted all the same",
            deleted(SlotState::Reserved).suspended(),
            "GiveBack uid-0",
        ),
        (
            "an ApiKey that lost its permission is deleted all the same",
            deleted(SlotState::Reserved).view(|view| view.permission = Permission::Namespace),
            "GiveBack uid-0",
        ),
    ]);
}

fn without_finalizer(observation: Observation) -> Observation {
    observation.key(|key| key.metadata.finalizers = Some(vec!["example.com/theirs".into()]))
}

#[test]
fn a_published_key_is_revoked_by_a_persons_word_or_with_its_namespace() {
    check(vec![
        ("it waits, and says more after 10m", deleted(SlotState::Live), "DeletionWaits, 15s"),
        ("it still waits, until it may be handed over", seen_deleted(MINUTE * 11), "DeletionWaits, 15s"),
        ("it waits without end", seen_deleted(HOUR * 24), "DeletionWaits, 15s"),
        (
            "delete-now revokes it",
            deleted(SlotState::Live).annotated(DELETE_NOW, "true"),
            "Condemn attempt-uid-0-Live",
        ),
        (
            "delete-now means any word",
            deleted(SlotState::Live).annotated(DELETE_NOW, ""),
            "Condemn attempt-uid-0-Live",
        ),
        (
            "delete-now: false is no word",
            deleted(SlotState::Live).annotated(DELETE_NOW, "false"),
            "DeletionWaits, 15s",
        ),
        ("a namespace that goes away waits too", terminating(deleted(SlotState::Live)), "DeletionWaits, 15s"),
        (
            "a namespace that goes away waits 15m at most",
            terminating(seen_deleted(MINUTE * 15)),
            "Condemn attempt-uid-0-Live",
        ),
        (
            "so it is where the operator has no right in it any more",
            terminating(seen_deleted(MINUTE * 15)).with_consumer(Found::Foreign(Foreign::Forbidden)),
            "Condemn attempt-uid-0-Live",
        ),
        (
            "a second before that it waits",
            terminating(seen_deleted(MINUTE * 15 - SECOND)),
            "DeletionWaits, 1s",
        ),
        (
            "a namespace that goes hours after the ApiKey waits as well",
            Observation { namespace_deleted: Some(ago(SECOND)), ..seen_deleted(HOUR * 2) },
            "DeletionWaits, 15s",
        ),
        (
            "until 15m after its own deletion",
            Observation { namespace_deleted: Some(ago(MINUTE * 15)), ..seen_deleted(HOUR * 2) },
            "Condemn attempt-uid-0-Live",
        ),
        (
            "an ApiKey that is deleted in a namespace that has long been going waits for 15m of its own",
            Observation { namespace_deleted: Some(ago(HOUR)), ..deleted(SlotState::Live) },
            "DeletionWaits, 15s",
        ),
        ("the current key goes last", two_live().annotated(DELETE_NOW, "true"), "Condemn old, Condemn new"),
        ("Orphan leaves the key to people", orphaned(deleted(SlotState::Live)), "Release attempt-uid-0-Live"),
        ("Orphan leaves every key to people", orphaned(two_live()), "Release old, Release new"),
        (
            "Orphan speaks louder than delete-now",
            orphaned(deleted(SlotState::Live)).annotated(DELETE_NOW, "true"),
            "Release attempt-uid-0-Live",
        ),
        (
            "Orphan does not keep a key that was never published",
            orphaned(deleted(SlotState::Creating)).saved(),
            "Abandon attempt-uid-0-Creating",
        ),
        ("a released key is left, and its Secret", orphaned(deleted(SlotState::Released)), "Finish"),
        ("and so it is where the policy was changed since", deleted(SlotState::Released), "Finish"),
    ]);
}

#[test]
fn a_deletion_says_when_the_end_of_the_namespace_revokes_the_key() {
    let gone = Observation { namespace_deleted: Some(ago(MINUTE * 5)), ..seen_deleted(HOUR * 2) };
    let said = hold(&gone).message;
    assert!(said.contains(&format!("revoked at {} at the latest", in_future(MINUTE * 10))), "{said}");
}

#[test]
fn a_deletion_waits_where_its_policy_is_a_word_of_a_newer_version() {
    let unknown = |o: Observation| o.key(|key| key.spec.deletion_policy = Some(DeletionPolicy::Unknown));
    check(vec![
        ("the key is neither revoked nor left", unknown(deleted(SlotState::Live)), "DeletionWaits"),
        ("none of two is", unknown(two_live()), "DeletionWaits"),
        (
            "nor by delete-now: it says when, and not what",
            unknown(deleted(SlotState::Live)).annotated(DELETE_NOW, "true"),
            "DeletionWaits",
        ),
        ("nor with its namespace", unknown(terminating(seen_deleted(MINUTE * 15))), "DeletionWaits"),
        (
            "a key that was never published goes as ever",
            unknown(deleted(SlotState::Creating)).saved(),
            "Abandon attempt-uid-0-Creating",
        ),
        (
            "a Secret is not removed for such a word",
            unknown(seen().with_slot(mine(SlotState::Revoking)).deleted(MINUTE * 15)),
            "Finish",
        ),
    ]);
    let waits = hold(&unknown(deleted(SlotState::Live)));
    assert!(waits.message.contains("spec.deletionPolicy"), "{}", waits.message);
}

fn seen_deleted(age: Duration) -> Observation {
    seen().with_slot(mine(SlotState::Live)).deleted(age)
}

#[test]
fn a_condemned_key_is_waited_for_until_somebody_else_finishes() {
    let revoking = || deleted(SlotState::Revoking);
    check(vec![
        ("the account revokes it", revoking(), "Deleting, 30s"),
        ("the account condemns a lost one", deleted(SlotState::Lost), "Deleting, 30s"),
        ("the account looks for an unresolved one", deleted(SlotState::Unresolved), "Deleting, 30s"),
        (
            "the wait ends with the handover",
            seen().with_slot(mine(SlotState::Revoking)).deleted(MINUTE * 15 - SECOND),
            "Deleting, 1s",
        ),
        (
            "after 15m the account finishes alone",
            seen().with_slot(mine(SlotState::Revoking)).deleted(MINUTE * 15),
            "Finish with the Secret",
        ),
        (
            "after 15m the account judges an attempt alone",
            seen().with_slot(mine(SlotState::Creating)).deleted(MINUTE * 15),
            "Finish with the Secret",
        ),
        ("a namespace that goes away takes the Secret along", terminating(by_person(revoking())), "Finish"),
        ("a person was asked, by choice", by_person(revoking()), "Finish with the Secret"),
        (
            "a person was asked, who settles what is unresolved",
            by_person(deleted(SlotState::Unresolved)),
            "Finish with the Secret",
        ),
        (
            "a person was asked, as there is no token to revoke with",
            revoking().account(|account| account.spec.credentials.agent_token = None),
            "Finish with the Secret",
        ),
        (
            "a person was asked, as the account cannot revoke",
            revoking().account(|a| a.status.get_or_insert_default().capabilities.revoke = Capability::No),
            "Finish with the Secret",
        ),
        (
            "a person was asked, as the key's id is not known",
            seen().with_slot(Slot { key_id: None, ..mine(SlotState::Revoking) }).deleted(MINUTE),
            "Finish with the Secret",
        ),
        (
            "a lost key without an id may still be found in the list",
            seen().with_slot(Slot { key_id: None, ..mine(SlotState::Lost) }).deleted(MINUTE),
            "Deleting, 30s",
        ),
        ("a person is not asked about an attempt", by_person(deleted(SlotState::Creating)), "Deleting, 30s"),
    ]);
}

#[test]
fn a_ledger_that_is_not_ours_to_write_is_left_alone() {
    let now = || seen().with_slot(mine(SlotState::Live)).annotated(DELETE_NOW, "true");
    check(vec![
        (
            "another installation's ledger is not changed",
            now().deleted(MINUTE).view(|view| view.ours = Some(false)),
            "DeletionWaits, 14m",
        ),
        (
            "another installation's key and Secret stay",
            now().deleted(MINUTE * 15).view(|view| view.ours = Some(false)),
            "Finish",
        ),
        (
            "that of another installation in this cluster is that one's to change, however long it takes",
            now().deleted(HOUR).view(neighbours),
            "ForeignInstallation",
        ),
        (
            "a ledger that may be a lost one is waited for",
            seen().deleted(MINUTE).view(|view| view.ours = None),
            "Deleting, 14m",
        ),
        (
            "for a while, and the Secret of a key that may be in use stays",
            seen().deleted(MINUTE * 15).view(|view| view.ours = None),
            "Finish",
        ),
        ("a newer version's ledger is not changed", newer(now().deleted(MINUTE)), "DeletionWaits, 14m"),
        ("a newer version's key and Secret stay", newer(now().deleted(MINUTE * 15)), "Finish"),
    ]);
}
