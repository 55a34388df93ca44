//! What a person, or a GitOps tool, reads of each situation.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    api::apikey::{HoldStatus, RotationSpec, Switch, WindowSpec},
    apikey::{
        fixtures::{HOUR, MINUTE, SECOND, aged, ago, alive, mine, named, now, reader, seen, switched},
        quiet::Uses,
    },
    bags::Probe,
    consumer_secret::{Foreign, Found},
    workload::Why,
};

fn live() -> Observation {
    seen().with_slot(mine(SlotState::Live))
}

fn after(o: &Observation, reason: Reason) -> ApiKeyStatus {
    status(o, &Word { reason, message: "message of the word", starving: false, failed: false })
}

/// The same observation, of an ApiKey that has this status.
fn with(o: Observation, status: ApiKeyStatus) -> Observation {
    o.key(|key| key.status = Some(status))
}

fn condition<'a>(status: &'a ApiKeyStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

/// Ready, Reconciling, Stalled, QuotaAvailable, SecretSynced as `T`, `F` or `-`; then the phase.
fn told(status: &ApiKeyStatus) -> String {
    let types = [kind::READY, kind::RECONCILING, kind::STALLED, kind::QUOTA_AVAILABLE, kind::SECRET_SYNCED];
    let letters = types.map(|type_| condition(status, type_).map_or("-", |c| &c.status[..1]));
    format!("{} {}", letters.concat(), status.phase.as_deref().unwrap_or("none"))
}

#[test]
fn each_situation_reads_as_it_is() {
    let creating = || seen().with_slot(mine(SlotState::Creating));
    let with_state = |state| seen().with_slot(mine(state));
    let foreign = |foreign| live().with_consumer(Found::Foreign(foreign));
    let missing = || live().with_consumer(Found::Missing);
    let lost = |o: Observation| Observation { current_value: None, ..o };
    let other_key =
        |o: Observation| o.view(|view| view.ledger.slots[0] = named("another", view.ledger.slots[0].clone()));
    let cases: Vec<(&str, Observation, Reason, &str)> = vec![
        ("nothing yet", seen(), Reason::WaitingForAccount, "FT-TF Pending"),
        ("there is no account", seen().without_account(), Reason::AccountNotFound, "F-TTF Pending"),
        ("no slot is free", seen(), Reason::QuotaExceeded, "F-TFF Pending"),
        ("the namespace has its share", seen(), Reason::NamespaceQuotaExceeded, "F-TFF Pending"),
        ("Bags has no room", with_state(SlotState::Reserved), Reason::LimitReached, "F-TFF Pending"),
        ("the rate limit is used up", with_state(SlotState::Reserved), Reason::RateLimited, "FT-TF Pending"),
        ("being made", creating().running(), Reason::Creating, "FT-TF Creating"),
        ("of unknown outcome", creating(), Reason::OutcomeUnknown, "FT-TF Creating"),
        ("being verified", creating().saved(), Reason::KeyNotAccepted, "FT-TF Verifying"),
        ("refused for good", creating().saved(), Reason::KeyForbidden, "F-TTF Verifying"),
        ("unresolved", with_state(SlotState::Unresolved), Reason::Unresolved, "F-TTF Unresolved"),
        ("lost", with_state(SlotState::Lost), Reason::Revoking, "FT-TF Revoking"),
        ("being revoked", with_state(SlotState::Revoking), Reason::Revoking, "FT-TF Revoking"),
        ("issued", live(), Reason::Issued, "T--TT Ready"),
        ("issued, and suspended since", live().suspended(), Reason::Issued, "T--TT Ready"),
        ("issued, and the API server is away", live(), Reason::ApiServerUnavailable, "TT-TT Ready"),
        ("published, and not in the Secret yet", missing(), Reason::ApiServerUnavailable, "FT-TF Publishing"),
        ("the API server does not take the Secret", missing(), Reason::SecretRefused, "F-TTF Publishing"),
        (
            "the Secret was edited and cannot be written",
            live().edited(),
            Reason::SecretRefused,
            "F-TTF Publishing",
        ),
        (
            "the Secret was edited while suspended",
            live().edited().suspended(),
            Reason::Suspended,
            "F-TTF Publishing",
        ),
        (
            "the Secret was removed while suspended",
            missing().suspended(),
            Reason::Suspended,
            "F-TTF Publishing",
        ),
        (
            "the Secret's name is taken",
            foreign(Foreign::Unmarked),
            Reason::SecretConflict,
            "F-TTF Publishing",
        ),
        ("the Secret is immutable", foreign(Foreign::Immutable), Reason::SecretConflict, "F-TTF Publishing"),
        (
            "the value is lost and the Secret says that it holds the key",
            lost(live()),
            Reason::ValueMissing,
            "T-TTT Ready",
        ),
        (
            "the value is lost and the Secret says that it holds another key",
            lost(other_key(live())),
            Reason::ValueMissing,
            "F-TTF Publishing",
        ),
        ("the value is lost and so is the Secret", lost(missing()), Reason::ValueMissing, "F-TTF Publishing"),
        ("deleted, and the key works", live().deleted(MINUTE), Reason::DeletionWaits, "T-TTT Deleting"),
        (
            "deleted, and the key is revoked",
            with_state(SlotState::Revoking).deleted(MINUTE),
            Reason::Deleting,
            "FT-TF Deleting",
        ),
    ];
    for (name, observation, reason, expected) in cases {
        assert_eq!(told(&after(&observation, reason)), expected, "{name}");
    }
}

#[test]
fn every_reason_is_settled_under_way_or_stalled_and_never_two_of_them() {
    for reason in Reason::ALL {
        for observation in [seen(), live(), live().edited()] {
            let status = after(&observation, *reason);
            let ready = condition(&status, kind::READY).unwrap();
            let holds = |type_| condition(&status, type_).is_some();
            let kinds = (holds(kind::RECONCILING), holds(kind::STALLED));
            let expected = match reason.kind() {
                Kind::Settled => (false, false),
                Kind::Progressing => (true, false),
                Kind::Stalled => (false, true),
            };
            assert_eq!(kinds, expected, "{reason:?}");
            let good = ready.reason == "Issued" || reason.is_of_rotation();
            assert!(ready.status == "False" || good, "{reason:?}: {ready:?}");
            assert!(ready.message.ends_with("message of the word"), "{reason:?}: {ready:?}");
        }
    }
}

#[test]
fn every_condition_speaks_of_the_observed_generation() {
    for (reason, observation) in [(Reason::Issued, live()), (Reason::QuotaExceeded, seen())] {
        let old = after(&observation, reason);
        let next = after(&with(observation.key(|key| key.metadata.generation = Some(4)), old), reason);
        assert_eq!(next.observed_generation, Some(4));
        assert!(next.conditions.iter().all(|c| c.observed_generation == Some(4)), "{:#?}", next.conditions);
    }
}

#[test]
fn a_transition_time_moves_only_with_the_status() {
    let later = |o: Observation| Observation { now: now() + SignedDuration::from_mins(5), ..o };
    let first = after(&seen(), Reason::QuotaExceeded);
    let since = |status: &ApiKeyStatus, type_| condition(status, type_).unwrap().last_transition_time.0;
    let second = after(&later(with(seen(), first.clone())), Reason::NamespaceNotAllowed);
    let moved = now() + SignedDuration::from_mins(5);
    assert_eq!(since(&second, kind::READY), now(), "still False, for another reason");
    assert_eq!(condition(&second, kind::READY).unwrap().reason, "NamespaceNotAllowed");
    assert_eq!(since(&second, kind::STALLED), now());
    assert_eq!(since(&second, kind::QUOTA_AVAILABLE), moved, "from False to True");
    let third = after(&later(with(live(), first)), Reason::Issued);
    assert_eq!(since(&third, kind::READY), moved);
    assert_eq!(since(&third, kind::SECRET_SYNCED), moved);
}

#[test]
fn the_current_key_is_shown_and_each_slot() {
    let o = live().with_slot(named("lost", aged(MINUTE, mine(SlotState::Lost))));
    let status = after(&Observation { last_used: Some(ago(MINUTE)), ..o }, Reason::Issued);
    let current = status.current.unwrap();
    assert_eq!((current.revision, current.attempt.as_str()), (1, "attempt-uid-0-Live"));
    assert_eq!(current.key_id.as_deref(), Some("id-attempt-uid-0-Live"));
    assert_eq!((current.published_at, current.last_used_at), (Some(ago(HOUR)), Some(ago(MINUTE))));
    let states: Vec<&str> = status.keys.iter().map(|key| key.state.as_str()).collect();
    assert_eq!(states, ["Live", "Lost"]);
    assert_eq!(status.switch.unwrap().count, 1);
    assert_eq!(status.binding.unwrap().name, "app-0-bags");
    let effective = status.effective.unwrap();
    assert_eq!((effective.application.as_str(), effective.key_name.as_str()), ("app-0", "Production-App-0"));
    let told = serde_json::to_value(&effective).unwrap();
    let rotation =
        json!({"minOverlap": "1h", "quietFor": "24h", "maxOverlap": "168h", "onRolloutFailure": "Hold"});
    assert_eq!(told["rotation"], rotation, "the defaults, which stand in no schema");
    assert_eq!(told["rollout"], json!({"restart": "Stale", "allowGap": false, "maxConcurrent": 2}));
}

#[test]
fn binding_and_switch_outlive_a_missing_secret() {
    let issued = after(&live(), Reason::Issued);
    let gone = after(&with(live().with_consumer(Found::Missing), issued.clone()), Reason::SecretRefused);
    assert_eq!((gone.binding, gone.switch), (issued.binding, issued.switch));
    let never = after(&live().with_consumer(Found::Missing), Reason::SecretRefused);
    assert_eq!((never.binding, never.switch), (None, None));
}

#[test]
fn no_pod_can_hold_the_old_key_only_once_none_that_starts_can_be_given_it() {
    let clean_since = |age| after(&switched(age, &[]), Reason::Rotating).switch.unwrap().clean_since;
    assert_eq!(clean_since(SECOND * 59), None);
    let next = Some(ago(SECOND).saturating_add(SECOND * 2).unwrap());
    assert_eq!(clean_since(SECOND * 60), next);
    // It was clean before the Secret was written again, or before the ledger was put together again.
    let before = ApiKeyStatus {
        switch: moved().switch.map(|switch| Switch { clean_since: Some(ago(HOUR * 2)), ..switch }),
        ..moved()
    };
    let o = with(switched(HOUR, &[]), before);
    assert_eq!(o.clean_since(), None);
    assert_eq!(after(&o, Reason::Rotating).switch.unwrap().clean_since, next, "it begins anew");
    let kept = with(switched(HOUR, &[]), moved());
    assert_eq!(after(&kept, Reason::Rotating).switch.unwrap().clean_since, Some(ago(MINUTE * 30)));
    let found = with(switched(HOUR, &[reader("web-1", Some(Why::Started))]), moved());
    assert_eq!(
        after(&found, Reason::Rotating).switch.unwrap().clean_since,
        None,
        "a pod came that may hold it"
    );
    for (probe, stays) in
        [(alive("user-1"), true), (Probe::Forbidden, false), (Probe::UserGone, false), (Probe::Dead, false)]
    {
        let mut asked = with(switched(HOUR, &[]), moved());
        asked.current_probe = Some(probe);
        let clean_since = after(&asked, Reason::Rotating).switch.unwrap().clean_since;
        assert_eq!(clean_since.is_some(), stays, "while the user is suspended no time passes");
        let failure = asked.current_probe.take().filter(|_| !stays).map(|probe| (probe, MINUTE));
        asked.current_failure = failure;
        let clean_since = after(&asked, Reason::Rotating).switch.unwrap().clean_since;
        assert_eq!(clean_since.is_some(), stays, "nor until it is asked again");
    }
}

#[test]
fn what_a_rotation_waited_for_in_a_window_goes_on_until_the_next_one() {
    let word = |reason, starving| Word { reason, message: "message of the word", starving, failed: false };
    let due = |from: &str| {
        let window = WindowSpec { days: vec![], from: from.into(), duration: "30m".into(), time_zone: None };
        let spec =
            RotationSpec { every: Some("1m".into()), windows: vec![window], ..RotationSpec::default() };
        live().key(|key| key.spec.rotation = Some(spec)).view(|view| view.room.limit = 1)
    };
    // It is 08:00 UTC.
    let (open, shut) = (|| due("07:45"), || due("07:00"));
    let blocked = status(&open(), &word(Reason::RotationBlocked, true));
    let hold =
        HoldStatus { reason: "RotationBlocked".into(), since: to_seconds(now()), waits_for_slot: true };
    assert_eq!(blocked.hold, Some(hold.clone()));
    let day = HoldStatus { since: to_seconds(ago(HOUR * 25)), ..hold.clone() };
    let before = ApiKeyStatus { hold: Some(day.clone()), ..blocked };
    let next = |o: Observation, word: &Word<'_>| status(&with(o, before.clone()), word).hold;
    assert_eq!(next(shut(), &word(Reason::Issued, false)), Some(day.clone()), "between two windows");
    assert_eq!(next(open(), &word(Reason::RotationBlocked, true)), Some(day.clone()), "in the next one");
    assert_eq!(
        next(open(), &word(Reason::RotationBlocked, false)),
        Some(HoldStatus { waits_for_slot: false, ..hold }),
        "it waits for something else"
    );
    assert_eq!(next(shut().suspended(), &word(Reason::Issued, false)), None, "somebody suspended it");
    let failed = Word { failed: true, ..word(Reason::Rotating, false) };
    assert_eq!(next(open(), &failed), Some(day.clone()), "a look that failed ends no wait");
    let turned_back =
        shut().view(|view| view.ledger.slots.iter_mut().for_each(|slot| slot.switched_back = Some(3)));
    assert_eq!(next(turned_back, &word(Reason::Issued, false)), None, "the schedule begins none");
    let fed = shut().view(|view| view.room.limit = 10);
    assert_eq!(next(fed, &word(Reason::Issued, false)), None, "a slot came free");
    let held = HoldStatus { reason: "RotationHeld".into(), ..day };
    let before = ApiKeyStatus { hold: Some(held), ..before };
    assert_eq!(
        status(&with(shut(), before.clone()), &word(Reason::Issued, false)).hold,
        None,
        "a rotation ended"
    );
    assert_eq!(status(&with(live(), before), &word(Reason::Issued, false)).hold, None, "none is due");
}

#[test]
fn whose_slots_cannot_be_seen_is_not_said_to_have_no_key() {
    let synced = |o: &Observation, reason| {
        condition(&after(o, reason), kind::SECRET_SYNCED).map(|condition| condition.reason.clone()).unwrap()
    };
    assert_eq!(synced(&seen().without_account(), Reason::AccountNotFound), "AccountNotFound");
    let lost = seen().view(|view| view.ours = None);
    assert_eq!(synced(&lost, Reason::WaitingForAccount), "WaitingForAccount");
    assert_eq!(synced(&seen(), Reason::WaitingForAccount), "NotPublished");
}

#[test]
fn an_old_key_is_said_to_be_revoked_only_where_the_slots_can_be_seen() {
    let told = |status: &ApiKeyStatus| {
        let said = condition(status, kind::OLD_KEY_REVOKED).expect("OldKeyRevoked");
        format!("{} {}", said.status, said.reason)
    };
    let before = after(&switched(HOUR, &[]), Reason::Rotating);
    assert_eq!(told(&before), "False Rotating");
    let lost = seen().view(|view| view.ours = None);
    for (o, reason) in
        [(lost, Reason::WaitingForAccount), (seen().without_account(), Reason::AccountNotFound)]
    {
        let next = after(&with(o, before.clone()), reason);
        assert_eq!(told(&next), told(&before), "both keys may live");
    }
    let going = || seen().with_slot(Slot { published: Some(1), ..mine(SlotState::Revoking) });
    let next = after(&with(going().deleted(MINUTE), before.clone()), Reason::Deleting);
    assert_eq!(told(&next), "False Revoking", "the current one goes with it");
    let first = after(&with(going().deleted(MINUTE), after(&live(), Reason::Issued)), Reason::Deleting);
    assert_eq!(condition(&first, kind::OLD_KEY_REVOKED), None, "there was no rotation");
    assert_eq!(told(&after(&with(live(), before), Reason::Issued)), "True Revoked");
}

#[test]
fn pods_that_nobody_looked_at_hold_no_old_key_only_if_none_did_before() {
    let phase = |o: Observation| after(&o, Reason::RotationHeld).phase.unwrap();
    assert_eq!(phase(switched(HOUR, &[])), "Overlapping");
    assert_eq!(phase(switched(HOUR, &[reader("web-1", Some(Why::Started))])), "Restarting");
    assert_eq!(phase(switched(HOUR, &[]).without_pods()), "Restarting", "nobody has looked yet");
    assert_eq!(phase(with(switched(HOUR, &[]).without_pods(), moved())), "Overlapping", "none did before");
    let beside = |published| live().with_slot(Slot { published, ..named("next", mine(SlotState::Revoking)) });
    assert_eq!(after(&beside(Some(1)), Reason::Issued).phase.unwrap(), "RevokingOld");
    assert_eq!(after(&beside(None), Reason::Issued).phase.unwrap(), "Ready", "it was never in use");
}

#[test]
fn a_run_that_fails_ends_no_wait() {
    let blocked = |since, waits_for_slot| {
        Some(HoldStatus { reason: "RotationBlocked".into(), since: to_seconds(since), waits_for_slot })
    };
    let day = |waits| blocked(ago(HOUR * 25), waits);
    let full = || live().view(|view| view.room.limit = 1);
    let hold = |o: Observation, reason, before: &Option<HoldStatus>| {
        let before = ApiKeyStatus { hold: before.clone(), ..after(&live(), Reason::RotationBlocked) };
        let word = Word { reason, message: "message of the word", starving: false, failed: true };
        status(&with(o, before), &word).hold
    };
    for reason in [Reason::Rotating, Reason::RotationBlocked, Reason::ApiServerUnavailable] {
        assert_eq!(hold(full(), reason, &day(true)), day(true), "{reason:?}: it waits for a slot");
        assert_eq!(hold(full(), reason, &day(false)), day(false), "{reason:?}: it waits for something else");
        assert_eq!(hold(full(), reason, &None).is_some(), reason == Reason::RotationBlocked, "{reason:?}");
    }
    let placed = || full().with_slot(mine(SlotState::Reserved));
    let passing = hold(placed(), Reason::Rotating, &day(true));
    assert_eq!(passing, None, "it has the slot, and its key could not be made in passing");
    let other = blocked(now(), false);
    assert_eq!(hold(placed(), Reason::RotationBlocked, &day(true)), other, "it has the slot, and no key yet");
    let held = hold(full(), Reason::RotationHeld, &day(true)).unwrap();
    assert_eq!((held.reason.as_str(), held.since), ("RotationHeld", to_seconds(now())), "it has begun since");
}

#[test]
fn a_use_of_the_old_key_after_the_pods_moved_is_kept_for_whoever_cannot_list_any_more() {
    let seen = |used: Option<Duration>, before: Option<ApiKeyStatus>| {
        let uses = Uses { may_list: used.is_some(), previous: used.map(ago), ..Uses::default() };
        let o = Observation { uses: Some(uses), ..switched(HOUR, &[]) };
        after(&with(o, before.unwrap_or_else(moved)), Reason::Rotating)
    };
    let kept = |status: &ApiKeyStatus| status.switch.as_ref().unwrap().old_key_used_at;
    let used = seen(Some(MINUTE), None);
    assert_eq!(kept(&used), Some(to_seconds(ago(MINUTE))));
    assert_eq!(kept(&seen(None, Some(used.clone()))), kept(&used), "there is no list any more");
    assert_eq!(kept(&seen(Some(MINUTE * 5), Some(used.clone()))), kept(&used), "a list lags");
    assert_eq!(kept(&seen(Some(HOUR * 2), None)), None, "pods held it then");
}

/// The status of a switch whose pods moved half an hour ago.
fn moved() -> ApiKeyStatus {
    let status = after(&switched(HOUR, &[]), Reason::Rotating);
    let switch = status.switch.clone().map(|switch| Switch { clean_since: Some(ago(MINUTE * 30)), ..switch });
    ApiKeyStatus { switch, ..status }
}

#[test]
fn the_last_use_of_another_key_is_not_taken_over() {
    let used = Observation { last_used: Some(ago(MINUTE)), ..live() };
    let before = after(&used, Reason::Issued);
    let next = live().view(|view| view.ledger.slots[0] = named("next", view.ledger.slots[0].clone()));
    let status = after(&with(next, before), Reason::Issued);
    assert_eq!(status.current.unwrap().last_used_at, None);
}

#[test]
fn times_are_in_whole_seconds_as_the_api_server_gives_them_back() {
    let precise = Timestamp::new(1_799_999_000, 123_456_000).unwrap();
    let slot = Slot { since: precise, ..mine(SlotState::Live) };
    let o = Observation { last_used: Some(precise), ..seen().with_slot(slot) };
    let status = after(&o, Reason::Issued);
    let stored: ApiKeyStatus =
        serde_json::from_value(serde_json::to_value(&status).expect("a status")).expect("the same");
    assert_eq!(stored, status);
}

#[test]
fn last_use_moves_at_most_once_an_hour_and_never_back() {
    let at = |minutes: i64| Some(Timestamp::from_second(minutes * 60).unwrap());
    assert_eq!(last_used(None, None), None);
    assert_eq!(last_used(None, at(1)), at(1));
    assert_eq!(last_used(at(1), None), at(1));
    assert_eq!(last_used(at(1), at(60)), at(1));
    assert_eq!(last_used(at(1), at(61)), at(61));
    assert_eq!(last_used(at(61), at(1)), at(61));
}

fn every(o: Observation, every: &str) -> Observation {
    let spec = RotationSpec { every: Some(every.into()), ..RotationSpec::default() };
    o.key(|key| key.spec.rotation = Some(spec))
}

#[test]
fn the_next_rotation_is_when_it_is_due_and_stays_while_it_is() {
    let next = |o: &Observation| after(o, Reason::Issued).next_rotation;
    assert_eq!(next(&live()), None, "on demand");
    let at = next(&every(live(), "10h")).unwrap();
    assert!(
        at > now() + SignedDuration::from_hours(8) && at < now() + SignedDuration::from_hours(10),
        "{at}"
    );
    let told = || with(every(live(), "10h"), after(&every(live(), "10h"), Reason::Issued));
    let seen_at = |at: Timestamp| Observation { now: at, ..told() };
    assert_eq!(next(&seen_at(at - SignedDuration::from_secs(1))), Some(at), "it is not due yet");
    assert_eq!(next(&seen_at(at + SignedDuration::from_mins(5))), Some(at), "it was due five minutes ago");
    assert_eq!(next(&every(told(), "20h")), next(&every(live(), "20h")), "somebody moved it");
    assert_eq!(next(&every(seen(), "10h")), None, "there is no key yet");
    let turned_back = |times| {
        let slot = Slot { switched_back: Some(times), ..mine(SlotState::Live) };
        next(&every(seen().with_slot(slot), "10h"))
    };
    assert_eq!(turned_back(2), Some(at));
    assert_eq!(turned_back(3), None, "the schedule begins none any more");
}

fn any_observation() -> impl Strategy<Value = Observation> {
    use SlotState::{Creating, Live, Lost, Reserved, Revoking, Unresolved};
    let states = prop::sample::subsequence(vec![Reserved, Creating, Live, Lost, Unresolved, Revoking], 0..4);
    let often = prop::option::of(prop::sample::select(vec!["10m", "31m", "1h", "10h"]));
    (states, 0..5_usize, any::<[bool; 4]>(), prop::option::of(0..7200_u64), often).prop_map(
        |(states, found, [saved, lost, deleted, suspended], used, often)| {
            let mut o = states.into_iter().fold(seen(), |o, state| o.with_slot(mine(state)));
            if let Some(often) = often {
                o = every(o, often);
            }
            if o.current().is_some() {
                o = match found {
                    0 => o.with_consumer(Found::Missing),
                    1 => o.edited(),
                    2 => o.with_consumer(Found::Foreign(Foreign::Unmarked)),
                    _ => o,
                };
            }
            if saved && o.creating.is_some() {
                o = o.saved();
            }
            if lost {
                o.current_value = None;
            }
            if deleted {
                o = o.deleted(MINUTE);
            }
            o.last_used = used.map(|age| ago(std::time::Duration::from_secs(age)));
            if suspended { o.suspended() } else { o }
        },
    )
}

proptest! {
    #[test]
    fn a_status_that_stands_is_not_written_again(
        o in any_observation(),
        before in prop::sample::select(Reason::ALL),
        reason in prop::sample::select(Reason::ALL),
        later in 0..3000_i64,
    ) {
        let first = after(&o, before);
        let o = with(o, first);
        let second = after(&o, reason);
        let o = with(o, second.clone());
        let o = Observation { now: o.now + SignedDuration::from_secs(later), ..o };
        prop_assert_eq!(after(&o, reason), second);
    }

    #[test]
    fn ready_means_that_the_secret_holds_the_current_key(
        o in any_observation(),
        reason in prop::sample::select(Reason::ALL),
    ) {
        let status = after(&o, reason);
        if condition(&status, kind::READY).unwrap().status == "True" {
            prop_assert!(o.current().is_some());
            prop_assert!(matches!(o.consumer, Some(Found::Ours(_))));
            prop_assert_eq!(&condition(&status, kind::SECRET_SYNCED).unwrap().status, "True");
            prop_assert!(status.binding.is_some() && status.switch.is_some());
        }
        let types: std::collections::BTreeSet<&str> =
            status.conditions.iter().map(|condition| condition.type_.as_str()).collect();
        prop_assert_eq!(types.len(), status.conditions.len());
    }
}
