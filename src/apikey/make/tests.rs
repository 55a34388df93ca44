//! What is checked before a key is made, and what becomes of its place.

use std::time::Duration;

use http::Method;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;
use crate::{
    account::lists::Coverage,
    api::{
        account::{Slot, WalletRef},
        annotation,
    },
    apikey::{
        decide::rotation::{Due, due},
        fixtures::{account, key, mine, seen},
    },
    fixtures::{Came, Requests, failure, installation, methods, process, server},
    operator::parts::Watches,
};

/// An account with a place for the ApiKey, and without credentials, so that nothing is asked of Bags.
fn with_place() -> BagsAccount {
    let mut account = account();
    account.metadata.resource_version = Some("1".to_owned());
    account.spec.credentials.agent_token = None;
    let place = Slot { since: Timestamp::UNIX_EPOCH, ..mine(SlotState::Reserved) };
    let status = account.status.get_or_insert_default();
    (status.installation, status.slots) = (Some(installation()), vec![place]);
    account
}

/// A key is made, before an API server that takes what nothing is said against.
async fn made(
    o: Observation,
    against: impl FnMut(&Came) -> Option<(u16, Value)> + Send + 'static,
) -> (Result<(), Problem>, Requests) {
    let mut account = with_place();
    account.status.get_or_insert_default().slots.extend(o.slots().into_iter().cloned());
    made_in(account, o, against).await
}

async fn made_in(
    account: BagsAccount,
    o: Observation,
    mut against: impl FnMut(&Came) -> Option<(u16, Value)> + Send + 'static,
) -> (Result<(), Problem>, Requests) {
    let mut watches = Watches::new();
    watches.accounts.1.apply_watcher_event(&Event::Apply(account.clone()));
    let (kube, asked) = server(move |request, _| {
        let taken = || match request.method {
            Method::DELETE => json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}),
            Method::PATCH => json!(key()),
            _ => request.body.clone(),
        };
        against(request).unwrap_or_else(|| (200, taken()))
    });
    let o = o.with_slot(mine(SlotState::Reserved)).view(|view| view.account = Arc::new(account));
    let outcome = make(&process(&watches, kube), &o, &mut Run::of(o.key.clone())).await;
    (outcome, asked)
}

#[tokio::test]
async fn no_licence_is_taken_on_an_account_whose_finalizer_was_taken_off_meanwhile() {
    for (stays, expected) in [(false, "POST POST PUT GET DELETE"), (true, "POST POST PUT GET PUT")] {
        let mut live = with_place();
        live.metadata.resource_version = Some("2".to_owned());
        if !stays {
            live.metadata.finalizers = None;
        }
        let mut beaten = false;
        let (outcome, asked) = made(seen(), move |request| match request.method {
            Method::PUT if !beaten => {
                beaten = true;
                Some(failure(409, "Conflict"))
            }
            Method::GET => Some((200, json!(live))),
            _ => None,
        })
        .await;
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(methods(&asked), expected, "the finalizer stays: {stays}");
    }
}

#[tokio::test]
async fn a_place_for_the_value_that_is_refused_is_the_platform_teams_and_quotes_nothing() {
    for (code, word, expected) in [
        (403, "Forbidden", Reason::SecretRefused),
        (422, "Invalid", Reason::SecretRefused),
        (500, "InternalError", Reason::ApiServerUnavailable),
    ] {
        let (outcome, asked) = made(seen(), move |request| {
            let (_, mut said) = failure(code, word);
            said["message"] = json!("exceeded quota, as is shop-of-others/billing");
            request.path().contains("/bags-system/").then_some((code, said))
        })
        .await;
        let problem = outcome.unwrap_err();
        assert_eq!(problem.reason, expected);
        let said = format!("namespace \"bags-system\", could not be made: {code} {word};");
        assert!(problem.message.contains(&said), "{}", problem.message);
        assert!(!problem.message.contains("billing"), "{}", problem.message);
        assert!(!methods(&asked).contains("PUT"), "a licence was taken");
        if expected == Reason::SecretRefused {
            let rotates = seen().with_slot(mine(SlotState::Live));
            assert_eq!(problem.of_next_key(&rotates).reason, Reason::RotationBlocked);
        }
    }
}

#[tokio::test]
async fn a_finalizer_that_is_refused_stops_a_creation_before_its_licence() {
    let o = seen().key(|key| key.metadata.finalizers = None);
    let refused = |request: &Came| (request.method == Method::PATCH).then(|| failure(422, "Invalid"));
    let (outcome, asked) = made(o, refused).await;
    assert_eq!(outcome.unwrap_err().reason, Reason::NotPermitted);
    let asked = methods(&asked);
    assert!(!asked.contains("PUT") && asked.ends_with("DELETE"), "{asked}");
}

/// The slots that the ledger has after the first write of it, by state; `None`: it was not written.
fn left(asked: &Requests) -> Option<Vec<String>> {
    let asked = asked.lock().unwrap();
    let written = asked.iter().find(|came| came.path().ends_with("/bagsaccounts/main/status"))?;
    let slots = written.body["status"]["slots"].as_array().cloned().unwrap_or_default();
    Some(slots.iter().map(|slot| slot["state"].as_str().unwrap().to_owned()).collect())
}

#[tokio::test]
async fn a_further_place_is_given_back_where_a_secret_is_refused() {
    for (code, rotates, expected) in [(422, true, true), (422, false, false), (500, true, false)] {
        for refused in ["dryRun", "/bags-system/"] {
            let o = if rotates { seen().with_slot(mine(SlotState::Live)) } else { seen() };
            let against = move |request: &Came| {
                let is_refused = request.method != Method::DELETE && request.uri.contains(refused);
                is_refused.then(|| failure(code, "Invalid"))
            };
            let (outcome, asked) = made(o, against).await;
            assert_eq!(outcome.is_err(), !expected, "{refused}: {code}: the next round tells of it");
            assert!(!methods(&asked).contains("POST POST POST"), "nothing is made");
            let left = left(&asked);
            assert_eq!(
                left,
                expected.then(|| vec!["Live".to_owned()]),
                "{refused}: {code}, a rotation: {rotates}"
            );
        }
    }
}

#[tokio::test]
async fn a_place_that_is_the_only_one_by_now_is_not_given_back() {
    let o = || seen().with_slot(mine(SlotState::Unresolved));
    let against = |request: &Came| request.uri.contains("dryRun").then(|| failure(422, "Invalid"));
    let (_, asked) = made(o(), against).await;
    assert_eq!(left(&asked), Some(vec!["Unresolved".to_owned()]));
    // The attempt was found to have made nothing meanwhile.
    let (_, asked) = made_in(with_place(), o(), against).await;
    assert_eq!(left(&asked), None);
}

#[tokio::test]
async fn a_conflict_hides_no_refusal_of_the_secret() {
    let o = || seen().with_slot(Slot { last_switch: Some(1), ..mine(SlotState::Live) });
    for (then, expected) in [(Some(422), true), (None, false)] {
        let Some(Found::Ours(secret)) = o().consumer else { panic!("no Secret") };
        let mut rehearsals = 0;
        let (_, asked) = made(o(), move |request| match (&request.method, request.uri.contains("dryRun")) {
            (&Method::GET, _) if request.path().contains("/secrets/") => Some((200, json!(secret))),
            (&Method::GET, _) => None,
            (_, true) => {
                rehearsals += 1;
                let code = if rehearsals == 1 { Some(409) } else { then };
                code.map(|code| failure(code, if code == 409 { "Conflict" } else { "Invalid" }))
            }
            (_, false) => None,
        })
        .await;
        // The place for the second key is given back.
        let refused = left(&asked) == Some(vec!["Live".to_owned()]);
        assert_eq!(refused, expected, "{then:?}");
    }
}

#[test]
fn a_list_that_shows_another_users_keys_stops_a_creation_before_its_licence() {
    let mut account = account();
    let listed = |shows_stranger, may_miss_ours| Listed {
        unmanaged: 1,
        stray: vec![],
        coverage: Coverage::No,
        shows_last_use: false,
        shows_stranger,
        may_miss_ours,
    };
    assert!(objection(&account, &listed(false, true)).is_none());
    assert!(matches!(objection(&account, &listed(true, false)), Some(Check::AnotherUser)));
    let too_old = objection(&account, &listed(true, true));
    assert!(matches!(too_old, Some(Check::Problem(_))), "it is asked again before anybody is distrusted");
    account.spec.credentials.wallet =
        Some(WalletRef { secret_name: "bags-main".into(), field: None, totp_field: None });
    assert!(objection(&account, &listed(true, false)).is_none(), "the wallet makes it");
}

#[test]
fn a_token_that_is_there_at_birth_or_stays_asks_for_no_rotation() {
    let born = || seen().annotated(annotation::ROTATE, "first");
    let slot = |trigger| Slot { trigger, ..mine(SlotState::Live) };
    let made = born().with_slot(slot(trigger(&born())));
    assert_eq!(due(&made, made.current().unwrap()), Due::OnDemand);
    let asked = made.annotated(annotation::ROTATE, "second");
    assert_eq!(due(&asked, asked.current().unwrap()), Due::Now);
    let rotated = |o: Observation| o.with_slot(slot(Some("second".to_owned())));
    let again = rotated(seen().annotated(annotation::ROTATE, "second"));
    assert_eq!(trigger(&asked).as_deref(), Some("second"));
    assert_eq!(due(&again, again.current().unwrap()), Due::OnDemand, "it is applied again");
    let taken_off = rotated(seen());
    assert_eq!(trigger(&taken_off).as_deref(), Some("second"), "whoever takes it off asks for nothing");
    assert_eq!(due(&taken_off, taken_off.current().unwrap()), Due::OnDemand);
}

/// What comes of asking for the licence, and what the ledger says then; the account has one slot.
async fn asked_for_licence(listed: Option<&Listed>, age: Duration) -> (Licence, Option<Value>) {
    let mut account = with_place();
    account.spec.limit = Some(1);
    let mut watches = Watches::new();
    watches.accounts.1.apply_watcher_event(&Event::Apply(account.clone()));
    let (kube, asked) = server(|request, _| (200, request.body.clone()));
    let context = process(&watches, kube);
    let o = seen().with_slot(mine(SlotState::Reserved)).view(|view| view.account = Arc::new(account));
    let placed_at = context.env.clock.monotonic();
    tokio::time::advance(age).await;
    let view = o.account.as_ref().unwrap();
    let licence = license(&context, &o, view, "attempt", "Key-attempt", listed, placed_at).await.unwrap();
    let written = asked.lock().unwrap().first().map(|request| request.body["status"].clone());
    (licence, written)
}

#[tokio::test(start_paused = true)]
async fn the_licence_is_judged_by_what_a_fresh_list_shows() {
    for (unmanaged, state) in [(0, "Creating"), (1, "Reserved")] {
        let listed = Listed {
            unmanaged,
            stray: vec![],
            coverage: Coverage::Covers,
            shows_last_use: false,
            shows_stranger: false,
            may_miss_ours: false,
        };
        let (licence, written) = asked_for_licence(Some(&listed), Duration::ZERO).await;
        let status = written.unwrap();
        assert_eq!(matches!(licence, Licence::Taken(_)), unmanaged == 0, "{unmanaged} made elsewhere");
        assert_eq!(status["slots"][0]["state"], state, "{unmanaged} made elsewhere");
        assert_eq!(
            status["capacity"]["unmanaged"], unmanaged,
            "or the next round would ask again, without end"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn no_licence_is_taken_for_a_placeholder_that_is_old() {
    for (age, taken) in [(60, true), (61, false)] {
        let (licence, written) = asked_for_licence(None, Duration::from_secs(age)).await;
        assert_eq!((matches!(licence, Licence::Taken(_)), written.is_some()), (taken, taken), "{age} s");
    }
}
