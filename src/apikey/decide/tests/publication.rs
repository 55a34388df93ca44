//! Rules 2 to 4: an attempt under way, the Secret, and what stops both.

use super::*;
use crate::{
    api::account::SlotState,
    apikey::fixtures::{SECOND, no_credentials},
};

/// A saved key is asked whether it works.
const PROBE: &str = "Probe attempt-uid-0-Creating";

#[test]
fn an_attempt_is_verified_published_or_given_up() {
    let begun = |age| seen().with_slot(aged(age, mine(SlotState::Creating)));
    let refused = |refused_for, probed_ago| made().refused(refused_for, probed_ago);
    let mut at_once = refused(Duration::ZERO, Duration::ZERO).probed(Probe::Dead);
    at_once.timings.propagation = Duration::ZERO;
    check(vec![
        ("while it runs it is left alone", begun(SECOND).running(), "Creating, 1m"),
        ("a value that is there is verified, though its save has not quite ended", made().running(), PROBE),
        ("while it runs it is left alone, however long", begun(HOUR).running(), "Creating, 1m"),
        ("without a value it is judged after 4m, by the account", begun(MINUTE), "OutcomeUnknown, 3m"),
        ("without a value and overdue it is looked at soon", begun(MINUTE * 4), "OutcomeUnknown, 5s"),
        ("and ever more rarely", begun(MINUTE * 6), "OutcomeUnknown, 30s"),
        ("but once a minute at least", begun(HOUR), "OutcomeUnknown, 1m"),
        ("a saved key is probed", made(), PROBE),
        ("a moment after it began it is not worth a word", begun(Duration::ZERO).running(), "Creating, 1s"),
        (
            "a key that works is published, with the id that came with it",
            made().probed(alive("user-1")),
            "Publish attempt-uid-0-Creating for user-1, learnt key-id-1",
        ),
        (
            "an id that the ledger knows is not learnt again",
            seen().with_slot(aged(MINUTE, mine(SlotState::Creating))).saved().probed(alive("user-1")),
            "Publish attempt-uid-0-Creating for user-1",
        ),
        (
            "a key is refused at first",
            refused(Duration::ZERO, Duration::ZERO).probed(Probe::Dead),
            "KeyNotAccepted, 1s",
        ),
        (
            "the pause grows with the refusal",
            refused(SECOND * 4, Duration::ZERO).probed(Probe::Dead),
            "KeyNotAccepted, 4s",
        ),
        (
            "the pause is 10s at most",
            refused(SECOND * 59, Duration::ZERO).probed(Probe::Dead),
            "KeyNotAccepted, 10s",
        ),
        ("within the pause it is not probed", refused(SECOND * 8, SECOND * 3), "KeyNotAccepted, 5s"),
        (
            "after the pause it is probed again",
            refused(SECOND * 8, SECOND * 8),
            "Probe attempt-uid-0-Creating",
        ),
        (
            "a key that answers after a refusal is published",
            refused(SECOND * 8, Duration::ZERO).probed(alive("user-1")),
            "Publish attempt-uid-0-Creating for user-1, learnt key-id-1",
        ),
        (
            "a key refused for 60s is given up",
            refused(MINUTE, Duration::ZERO).probed(Probe::Dead),
            "Abandon attempt-uid-0-Creating",
        ),
        (
            "an old refusal alone gives nothing up: it is asked once more",
            refused(HOUR, HOUR),
            "Probe attempt-uid-0-Creating",
        ),
        ("where propagation takes no time it is given up at once", at_once, "Abandon attempt-uid-0-Creating"),
        ("a key that may not ask is kept", made().probed(Probe::Forbidden), "KeyForbidden, 1m"),
        ("a key whose user is gone is kept", made().probed(Probe::UserGone), "KeyForbidden, 1m"),
    ]);
}

#[test]
fn a_key_of_another_user_is_never_published() {
    let expecting = |user: &str| {
        let user = user.to_owned();
        made().account(|account| account.spec.expected_user = Some(user)).probed(alive("user-1"))
    };
    let pinned = |observation: Observation, user: &str| {
        observation.account(|account| account.status.get_or_insert_default().user = Some(user.into()))
    };
    let published = "Publish attempt-uid-0-Creating for user-1, learnt key-id-1";
    let distrusted = "Distrust attempt-uid-0-Creating";
    check(vec![
        ("the expected user", expecting("user-1"), published),
        ("another one than expected", expecting("user-2"), distrusted),
        ("the pinned user", pinned(made().probed(alive("user-1")), "user-1"), published),
        ("another one than the pinned", pinned(made().probed(alive("user-1")), "user-2"), distrusted),
        (
            "an expected user counts for more than the pinned",
            pinned(expecting("user-1"), "user-2"),
            published,
        ),
        ("an empty expected user expects nobody", expecting(""), published),
        ("an empty expected user leaves the pinned one", pinned(expecting(""), "user-2"), distrusted),
        (
            "credentials that are gone by now cannot be distrusted, and the key is doubted all the same",
            expecting("user-2").view(|view| view.credentials = Err(no_credentials())),
            "Doubt attempt-uid-0-Creating WrongUser",
        ),
    ]);
}

#[test]
fn a_key_that_may_not_be_published_any_more_waits_unpublished() {
    let verified = || made().probed(alive("user-1"));
    check(vec![
        ("suspended", verified().suspended(), "Suspended"),
        (
            "the namespace is no longer allowed",
            verified().view(|view| view.permission = Permission::Namespace),
            "NamespaceNotAllowed",
        ),
        ("not even probed", made().suspended(), "Suspended"),
        ("another installation", verified().view(|view| view.ours = Some(false)), "ForeignInstallation"),
        (
            "suspended, beside a current key",
            verified().with_slot(mine(SlotState::Live)).suspended(),
            "RotationBlocked",
        ),
        (
            "another installation, beside a current key",
            verified().with_slot(mine(SlotState::Live)).view(|view| view.ours = Some(false)),
            "RotationBlocked",
        ),
    ]);
}

#[test]
fn the_secret_is_kept_in_step_with_the_current_key() {
    let live = || seen().with_slot(mine(SlotState::Live));
    let foreign = |foreign| live().with_consumer(Found::Foreign(foreign));
    let taken = "SecretConflict, 1m";
    let relabelled = live().key(|key| {
        let secret = key.spec.secret.get_or_insert_default();
        secret.labels.insert("team".into(), "web".into());
    });
    check(vec![
        ("in step", live(), "Issued"),
        ("missing", live().with_consumer(Found::Missing), "Project"),
        ("edited", live().edited(), "Project"),
        ("of a former switch", former_switch(), "Project"),
        ("without a label that the spec asks for", relabelled, "Project"),
        ("with another base URL", Observation { base_url: "https://other.test".into(), ..live() }, "Project"),
        ("not read in this run", Observation { consumer: None, ..live() }, "Issued"),
        ("somebody else's", foreign(Foreign::Unmarked), taken),
        ("immutable", foreign(Foreign::Immutable), taken),
        ("of another type", foreign(Foreign::Type), taken),
        ("written by a later switch", foreign(Foreign::LaterSwitch), taken),
        ("not to be read by the operator", foreign(Foreign::Forbidden), "SecretRefused, 1m"),
        ("its value is lost", Observation { current_value: None, ..live() }, "ValueMissing"),
        (
            "its value is in another installation's keystore",
            Observation { current_value: None, ..live() }.view(|view| view.ours = Some(false)),
            "ForeignInstallation",
        ),
        ("suspended and in step", live().suspended(), "Issued"),
        ("suspended and missing", live().with_consumer(Found::Missing).suspended(), "Suspended"),
        ("suspended and edited", live().edited().suspended(), "Suspended"),
        ("suspended and somebody else's", foreign(Foreign::Unmarked).suspended(), taken),
        (
            "without permission it is still kept",
            live().edited().view(|view| view.permission = Permission::Namespace),
            "Project",
        ),
        (
            "in another installation it is still kept",
            live().edited().view(|view| view.ours = Some(false)),
            "Project",
        ),
        (
            "beside another installation in this cluster that one keeps it",
            live().edited().view(|view| (view.ours, view.neighbours) = (Some(false), true)),
            "ForeignInstallation",
        ),
    ]);
}

/// The Secret holds what switch 1 put there, the ledger is at switch 2.
fn former_switch() -> Observation {
    let mut observation = seen().with_slot(mine(SlotState::Live));
    let view = observation.account.as_mut().unwrap();
    view.ledger.slots[0].published = Some(2);
    observation
}

#[test]
fn nothing_is_made_while_something_speaks_against_it() {
    let live = |observation: Observation| observation.with_slot(mine(SlotState::Live));
    let dying = |observation: Observation| {
        observation.account(|account| {
            account.metadata.deletion_timestamp =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(ago(MINUTE)));
        })
    };
    let with = |permission: Permission| seen().view(|view| view.permission = permission);
    let newer = |o: Observation| o.with_slot(theirs(1, SlotState::Unknown("Quarantined".into())));
    check(vec![
        ("there is no such account", seen().without_account(), "AccountNotFound"),
        ("the account is being deleted", dying(seen()), "AccountDeleting"),
        (
            "the ledger is another installation's",
            seen().view(|v| v.ours = Some(false)),
            "ForeignInstallation",
        ),
        ("nobody looked at the account yet", seen().view(|view| view.ours = None), "WaitingForAccount"),
        ("the ledger is a newer version's", newer(seen()), "NewerLedger"),
        ("the namespace is not allowed", with(Permission::Namespace), "NamespaceNotAllowed"),
        (
            "the environment is not allowed",
            with(Permission::Environment(vec!["staging".into()])),
            "EnvironmentNotAllowed",
        ),
        ("the namespace has its share", with(Permission::Max(3)), "NamespaceQuotaExceeded"),
        ("it is suspended", seen().suspended(), "Suspended"),
        ("and its namespace has its share", with(Permission::Max(3)).suspended(), "Suspended"),
        (
            "another one has its use, and its namespace has its share",
            with(Permission::Max(3)).view(|view| view.use_rival = Some("shop/app-9".into())),
            "DuplicateUse",
        ),
        (
            "another one has its Secret, and its namespace has its share",
            Observation { secret_rival: Some(rival()), ..with(Permission::Max(3)) },
            "SecretConflict",
        ),
        (
            "a place that is kept does not change that: it is given back",
            seen().with_slot(mine(SlotState::Reserved)).suspended(),
            "GiveBack uid-0",
        ),
        ("a published key stays in a dying account", dying(live(seen())), "Issued"),
        ("a published key stays without permission", live(with(Permission::Namespace)), "Issued"),
        ("a published key stays beside a newer version's slots", newer(live(seen())), "Issued"),
    ]);
}

#[test]
fn beside_another_installation_of_the_cluster_nothing_is_said_either() {
    let beside = |o: Observation| o.view(|view| (view.ours, view.neighbours) = (Some(false), true));
    for o in [seen(), seen().with_slot(mine(SlotState::Live)), seen().deleted(MINUTE)] {
        let Decision::Wait(hold) = decide(&beside(o)) else { panic!("something is done") };
        assert!(hold.quiet, "{hold:?}");
    }
}

#[test]
fn the_account_is_asked_in_order() {
    let all = seen()
        .with_slot(theirs(1, SlotState::Unknown("Quarantined".into())))
        .suspended()
        .view(|view| (view.ours, view.permission) = (Some(false), Permission::Namespace));
    assert_eq!(told(&decide(&all)), "ForeignInstallation");
    let all = all.view(|view| view.ours = Some(true));
    assert_eq!(told(&decide(&all)), "NewerLedger");
    let all = all.view(|view| view.ledger.slots.clear());
    assert_eq!(told(&decide(&all)), "NamespaceNotAllowed");
    let all = all.view(|view| view.permission = Permission::Granted);
    assert_eq!(told(&decide(&all)), "Suspended");
}

#[test]
fn a_finalizer_that_somebody_took_off_is_put_on_again_while_there_is_a_key() {
    let bare = |o: Observation| o.key(|key| key.metadata.finalizers = None);
    check(vec![
        (
            "the manifest was applied by replacing",
            bare(seen().with_slot(mine(SlotState::Live))),
            "EnsureFinalizer",
        ),
        ("a key that is being revoked", bare(seen().with_slot(mine(SlotState::Revoking))), "EnsureFinalizer"),
        ("nothing is at Bags", bare(seen()), "Reserve uid-0 production/app-0 behind 0"),
        ("it is there", seen().with_slot(mine(SlotState::Live)), "Issued"),
        (
            "another installation sees to it",
            bare(seen().with_slot(mine(SlotState::Live))).view(|view| view.ours = Some(false)),
            "Issued",
        ),
    ]);
}
