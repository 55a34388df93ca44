//! Every rule as a table of sentences, the order of the rules, and the words. Properties are in `properties`.

mod arbitrary;
mod creation;
mod deletion;
mod properties;
mod publication;
mod rotation;

use super::*;
use crate::{
    api::{account::Slot, duration::GoDuration},
    apikey::fixtures::{
        HOUR, MINUTE, aged, ago, alive, failing, in_future, mine, named, rival, seen, theirs,
    },
    apikey::{observe::Rival, problem::Problem},
    consumer_secret::Foreign,
};

/// A case: a sentence, what was seen, and what is done about it as [`told`] says it.
type Case = (&'static str, Observation, &'static str);

/// The account as messages name it.
const ACCOUNT: &str = "\"main\"";

/// A decision in one line: `Reserve`, `Condemn a, Condemn b`, `Publish a for user-1`, `QuotaExceeded`,
/// `RateLimited, 30s`.
fn told(decision: &Decision) -> String {
    match decision {
        Decision::Change(changes) => changes.iter().map(told_change).collect::<Vec<_>>().join(", "),
        Decision::Make => "Make".into(),
        Decision::Probe { attempt } => format!("Probe {attempt}"),
        Decision::Publish { attempt, key_id, user } => match key_id {
            Some(key_id) => format!("Publish {attempt} for {user}, learnt {key_id}"),
            None => format!("Publish {attempt} for {user}"),
        },
        Decision::Distrust { attempt } => format!("Distrust {attempt}"),
        Decision::EnsureFinalizer => "EnsureFinalizer".into(),
        Decision::Project => "Project".into(),
        Decision::LookAtPods { confirm: false } => "LookAtPods".into(),
        Decision::LookAtPods { confirm: true } => "LookAtPods again".into(),
        Decision::LookAtLists => "LookAtLists".into(),
        Decision::Restart(workloads) => {
            let names: Vec<&str> = workloads.iter().map(|workload| workload.name.as_str()).collect();
            format!("Restart {}", names.join(" "))
        }
        Decision::Finish { remove_secret: true } => "Finish with the Secret".into(),
        Decision::Finish { remove_secret: false } => "Finish".into(),
        Decision::Wait(Hold { reason, message: _, wait: None, quiet: _, starving: _ }) => {
            reason.as_str().into()
        }
        Decision::Wait(Hold { reason, message: _, wait: Some(wait), quiet: _, starving: _ }) => {
            format!("{}, {}", reason.as_str(), GoDuration(*wait))
        }
    }
}

fn told_change(change: &Change) -> String {
    match change {
        Change::Reserve { owner, key_use, ahead, max } => {
            let most = max.map(|max| format!(" of {max}")).unwrap_or_default();
            format!("Reserve {} {key_use} behind {ahead}{most}", owner.uid)
        }
        Change::ReserveFurther { owner, key_use } => format!("ReserveFurther {} {key_use}", owner.uid),
        Change::ReserveNext { owner, key_use } => format!("ReserveNext {} {key_use}", owner.uid),
        Change::SwitchBack { attempt, switch } => format!("SwitchBack {attempt} from {switch}"),
        Change::Retire { attempt, switch, .. } => format!("Retire {attempt} after {switch}"),
        Change::GiveBack { owner_uid } => format!("GiveBack {owner_uid}"),
        Change::Abandon { attempt } => format!("Abandon {attempt}"),
        Change::Doubt { attempt, reason } => format!("Doubt {attempt} {reason}"),
        Change::Release { attempt } => format!("Release {attempt}"),
        Change::Condemn { attempt, emergency: false, looked_at } => {
            let look = looked_at.map(|_| " by a look").unwrap_or_default();
            format!("Condemn {attempt}{look}")
        }
        other => panic!("not an ApiKey's to propose: {other:?}"),
    }
}

/// Judges every case; the words of those that wait must be fit for a person.
fn check(cases: Vec<Case>) {
    for (name, observation, expected) in cases {
        let decision = decide(&observation);
        assert_eq!(told(&decision), expected, "{name}");
        if let Decision::Wait(hold) = decision {
            fit_for_a_person(name, &hold);
        }
    }
}

fn fit_for_a_person(case: &str, Hold { reason, message, wait, quiet: _, starving: _ }: &Hold) {
    assert_ne!(*wait, Some(Duration::ZERO), "{case}: would be looked at without end");
    assert!(message.len() <= 1024, "{case}: too long for an event: {message}");
    assert!(message.contains(' ') && !message.ends_with('.'), "{case}: {message}");
    for sign in ["  ", "{", "}", "<", ">", "\"\"", "()", "None", "Some(", "\n"] {
        assert!(!message.contains(sign), "{case}: {sign:?} in {message:?}");
    }
    let objects = ["main", "app-0", "app-9", "Production-App", "spec.", "finalizers"];
    assert!(objects.iter().any(|object| message.contains(object)), "{case}: names nothing: {message}");
    assert!(!message.contains("value-one-for-tests"), "{case}: {reason:?} tells a value");
}

/// What a policy says against the Secret of the next key.
fn secret_refused() -> Problem {
    Problem::transient(Reason::SecretRefused, "the API server would not take Secret \"app-0-bags\"")
}

/// The hold of an observation that is waited for.
fn hold(observation: &Observation) -> Hold {
    match decide(observation) {
        Decision::Wait(hold) => hold,
        acts => panic!("does not wait: {acts:?}"),
    }
}

/// Made, saved, not verified yet.
fn made() -> Observation {
    seen().with_slot(Slot { key_id: None, ..aged(MINUTE, mine(SlotState::Creating)) }).saved()
}

#[test]
fn the_rules_are_asked_in_the_documented_order() {
    // Each step lacks the reason of the one before and would be answered by all the later ones as well.
    let other_rules = |o: Observation| {
        let slot = Slot { published: Some(1), ..mine(SlotState::Live) };
        o.with_slot(slot).edited().view(|view| view.permission = Permission::Namespace)
    };
    let published = || other_rules(seen());
    let saved = || other_rules(made()).probed(alive("user-1"));
    let steps: Vec<Case> = vec![
        (
            "deletion comes before a saved key, drift and a lost permission",
            saved().deleted(MINUTE),
            "Abandon attempt-uid-0-Creating",
        ),
        (
            "a saved key comes before drift",
            saved().view(|view| view.permission = Permission::Granted),
            "Publish attempt-uid-0-Creating for user-1, learnt key-id-1",
        ),
        ("a saved key that may not be published yields to drift", saved(), "Project"),
        ("drift comes before a lost permission", published(), "Project"),
        (
            "a lost permission comes before creation",
            seen().view(|view| (view.permission, view.ahead) = (Permission::Namespace, 99)),
            "NamespaceNotAllowed",
        ),
        ("creation comes last", seen().view(|view| view.ahead = 99), "QuotaExceeded"),
    ];
    check(steps);
}

#[test]
fn of_rules_that_wait_the_first_has_the_word_and_every_deadline_counts() {
    let running = || seen().with_slot(aged(MINUTE, mine(SlotState::Creating))).running();
    let foreign = || running().with_slot(mine(SlotState::Live)).with_consumer(Found::Foreign(Foreign::Type));
    assert_eq!(told(&decide(&foreign())), "Rotating, 1m");
    let mut impatient = foreign();
    impatient.timings.answer_deadline = HOUR;
    assert_eq!(told(&decide(&impatient)), "Rotating, 1m", "the deadline of the taken Secret");
}

#[test]
fn who_waits_reads_what_for_and_what_to_do() {
    let live = || seen().with_slot(mine(SlotState::Live));
    let foreign = |foreign| hold(&live().with_consumer(Found::Foreign(foreign)));
    let unsaved = |age| seen().with_slot(aged(age, mine(SlotState::Creating)));
    let full = seen().with_slot(theirs(1, SlotState::Live)).view(|view| {
        (view.room.limit, view.room.unmanaged, view.room.rotation_reserve) = (3, 1, 1);
    });
    let unresolved =
        seen().with_slot(mine(SlotState::Unresolved)).with_slot(named("b", mine(SlotState::Unresolved)));
    // The account's credentials have been corrected since, and it is full.
    let anothers = seen()
        .with_slot(failing(1, MINUTE, "WrongUser", mine(SlotState::Unresolved)))
        .view(|view| view.room.limit = 1);
    assert!(!hold(&anothers).message.contains("is not known"), "{}", hold(&anothers).message);
    let cases: Vec<(Hold, &[&str])> = vec![
        (
            hold(&live().deleted(MINUTE)),
            &[
                ACCOUNT,
                "Production-App-attempt-uid-0-Live",
                "Secret \"app-0-bags\"",
                "kubectl annotate apikey app-0 -n shop keys.bags.fm/delete-now=true",
                "spec.deletionPolicy: Orphan",
            ],
        ),
        (hold(&live().deleted(HOUR)), &["later GitOps wave?"]),
        (
            hold(&Observation { namespace_deleted: Some(ago(MINUTE * 5)), ..live().deleted(MINUTE * 5) }),
            &["terminating", " at the latest"],
        ),
        (
            hold(&live().deleted(MINUTE).view(|view| view.ours = Some(false))),
            &[ACCOUNT, "keys are not revoked"],
        ),
        (
            hold(&unresolved),
            &[
                "Production-App-attempt-uid-0-Unresolved, Production-App-0-b",
                "https://dev.bags.fm",
                "kubectl annotate bagsaccount main keys.bags.fm/resolved=attempt-uid-0-Unresolved,b --overwrite",
            ],
        ),
        (
            hold(&anothers),
            &[
                "Production-App-attempt-uid-0-Unresolved works for another user of Bags",
                "https://dev.bags.fm as that user; then this is said",
                "keys.bags.fm/resolved=attempt-uid-0-Unresolved --overwrite",
            ],
        ),
        (
            hold(&unsaved(MINUTE)),
            &["Production-App-attempt-uid-0-Creating", " after 2027-01-15T08:03:00Z", "nothing is lost"],
        ),
        (hold(&unsaved(HOUR)), &["it is looked for after "]),
        (hold(&made().refused(MINUTE / 2, Duration::ZERO)), &["401", "after 1m", "another one is made"]),
        (hold(&made().probed(Probe::Forbidden)), &[ACCOUNT, "suspended", "https://dev.bags.fm"]),
        (foreign(Foreign::Unmarked), &["Secret \"app-0-bags\"", "spec.secret.name"]),
        (foreign(Foreign::Immutable), &["Secret \"app-0-bags\"", "immutable", "delete it", "end all pods"]),
        (
            foreign(Foreign::Forbidden),
            &["Secret \"app-0-bags\"", "\"shop\"", "may not read", "consumerNamespaces"],
        ),
        (foreign(Foreign::Type), &["Secret \"app-0-bags\"", "Opaque", "delete it"]),
        (foreign(Foreign::LaterSwitch), &["Secret \"app-0-bags\"", "restore from a backup", "delete it"]),
        (
            hold(&Observation { current_value: None, ..live() }),
            &["keystore", "restore it", "keys.bags.fm/delete-now"],
        ),
        (hold(&live().edited().suspended()), &["Secret \"app-0-bags\"", "spec.suspend", "\"app-0\""]),
        (hold(&live()), &["Production-App-attempt-uid-0-Live works", "Secret \"app-0-bags\""]),
        (hold(&live().suspended()), &["works", "spec.suspend is true"]),
        (hold(&seen().without_account()), &[ACCOUNT, "spec.accountRef.name", "platform team"]),
        (
            hold(&seen().account(|a| {
                a.metadata.deletion_timestamp =
                    Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(ago(MINUTE)));
            })),
            &[ACCOUNT, "deleted", "another"],
        ),
        (hold(&seen().view(|view| view.ours = Some(false))), &[ACCOUNT, "keys.bags.fm/take-over"]),
        (
            hold(&seen().view(|view| view.permission = Permission::Namespace)),
            &[ACCOUNT, "\"shop\"", "spec.allowed"],
        ),
        (
            hold(&seen().view(|view| view.permission = Permission::Environment(vec!["staging".into()]))),
            &[ACCOUNT, "\"production\"", "staging", "spec.allowed"],
        ),
        (
            hold(&seen().view(|view| view.permission = Permission::Max(2))),
            &[ACCOUNT, "\"shop\"", "(2)", "spec.allowed[].max", "delete an ApiKey"],
        ),
        (hold(&seen().suspended()), &["spec.suspend"]),
        (
            hold(&seen().view(|view| view.use_rival = Some("shop/app-9".into()))),
            &["shop/app-9", "application \"app-0\"", "environment \"production\""],
        ),
        (
            hold(&full),
            &[
                ACCOUNT,
                "2 of 3 in use (1 by ApiKeys, 1 made elsewhere), 1 kept for rotations",
                "delete an ApiKey",
            ],
        ),
        (
            hold(
                &seen()
                    .with_slot(mine(SlotState::Reserved))
                    .view(|v| v.paused_until = Some(in_future(MINUTE))),
            ),
            &[ACCOUNT, "rate limit", "2027-01-15T08:01:00Z"],
        ),
        (
            hold(&Observation { secret_rival: Some(rival()), ..seen() }),
            &["\"app-9\"", "Secret \"app-0-bags\"", "spec.secret.name"],
        ),
        (
            hold(&Observation { secret_rival: Some(Rival { going: true, ..rival() }), ..seen() }),
            &["\"app-9\", which is being deleted", "spec.deletionPolicy: Orphan", "delete the Secret"],
        ),
    ];
    for (hold, parts) in &cases {
        fit_for_a_person("words", hold);
        for part in *parts {
            assert!(hold.message.contains(part), "{part:?} is not in {:?}", hold.message);
        }
    }
}
