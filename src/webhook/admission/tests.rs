//! Admission against an API server that answers as it is told.

use std::sync::Mutex;

use http::{Method, Request};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::*;
use crate::{
    apikey::fixtures::theirs,
    fixtures::{Came, failure, process, slow_server},
    metrics::Metrics,
    operator::parts::Watches,
    webhook::{
        service,
        verdict::tests::{new_key, with},
    },
};

/// What the API server has, and how it is.
#[derive(Default)]
struct Server {
    account: Option<BagsAccount>,
    key: Option<ApiKey>,
    /// Somebody else is always faster.
    conflicts: bool,
    /// It answers nobody.
    silent: bool,
    /// It fails where a path has this in it.
    fails: Option<&'static str>,
    /// It answers writes with this code, in words that quote the ledger.
    refuses: Option<u16>,
    /// Accounts as they were written.
    written: Vec<BagsAccount>,
}

impl Server {
    fn answer(&mut self, request: &Came) -> (u16, Value) {
        let (method, path) = (&request.method, request.path());
        if self.fails.is_some_and(|part| path.contains(part)) {
            return failure(500, "InternalError");
        }
        if let (Some(code), false) = (self.refuses, *method == Method::GET) {
            let (code, mut refusal) = failure(code, "Invalid");
            refusal["message"] = json!("policy names: status.slots[0] is of shop-of-others/billing");
            return (code, refusal);
        }
        let found = match (method, path.contains("/bagsaccounts/")) {
            (&Method::GET, true) => self.account.as_ref().map(|account| json!(account)),
            (&Method::GET, false) => self.key.as_ref().map(|key| json!(key)),
            (_, true) if self.conflicts => return failure(409, "Conflict"),
            (_, true) => {
                let account: BagsAccount = serde_json::from_value(request.body.clone()).unwrap();
                self.written.push(account.clone());
                self.account = Some(account.clone());
                Some(json!(account))
            }
            (_, false) => panic!("{method} {path}"),
        };
        found.map_or_else(|| failure(404, "NotFound"), |found| (200, found))
    }
}

/// Admission by a process whose cache shows this ApiKey.
fn admission(server: &Arc<Mutex<Server>>, seen: Option<&ApiKey>) -> Admission {
    admission_that_knows(server, seen, None)
}

/// By a process whose cache shows this account as well.
fn admission_that_knows(
    server: &Arc<Mutex<Server>>,
    seen: Option<&ApiKey>,
    account: Option<&BagsAccount>,
) -> Admission {
    let kube = slow_server({
        let server = server.clone();
        move |request| {
            let server = server.clone();
            async move {
                if server.lock().unwrap().silent {
                    std::future::pending::<()>().await;
                }
                server.lock().unwrap().answer(&request)
            }
        }
    });
    let mut watches = Watches::new();
    if let Some(key) = seen {
        watches.keys.1.apply_watcher_event(&Event::Apply(key.clone()));
    }
    if let Some(account) = account {
        watches.accounts.1.apply_watcher_event(&Event::Apply(account.clone()));
    }
    Admission::new(process(&watches, kube))
}

fn server(account: &BagsAccount) -> Arc<Mutex<Server>> {
    Arc::new(Mutex::new(Server { account: Some(account.clone()), ..Server::default() }))
}

/// Another ApiKey of the same name as the new one.
fn namesake() -> ApiKey {
    let mut key = new_key();
    key.metadata.uid = Some("uid-of-the-first".into());
    key
}

#[tokio::test(start_paused = true)]
async fn a_place_is_kept_for_nobody_whose_name_is_taken() {
    let going = || {
        let mut key = namesake();
        key.metadata.deletion_timestamp = key.metadata.creation_timestamp.clone();
        key
    };
    for (what, seen, live, keeps) in [
        ("nobody has the name", None, None, true),
        ("somebody has it", Some(namesake()), Some(namesake()), false),
        ("who had it is gone", Some(namesake()), None, true),
        ("who has it is going", Some(namesake()), Some(going()), true),
        ("it is the same one, asked about again", Some(new_key()), Some(new_key()), true),
    ] {
        let server = server(&with(&json!({}), &json!({})));
        server.lock().unwrap().key = live;
        let said = admission(&server, seen.as_ref()).decide(new_key(), false).await.unwrap();
        assert_eq!(server.lock().unwrap().written.len(), usize::from(keeps), "{what}");
        let warned =
            said.iter().any(|said| said.contains("there is an ApiKey \"app-0\" in namespace \"shop\""));
        assert_eq!(warned, !keeps, "{what}: {said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_use_is_held_by_a_key_whose_apikey_only_the_api_server_knows() {
    let mut slot = theirs(1, SlotState::Live);
    slot.key_use = new_key().key_use();
    let holder = |uid: &str| {
        let mut key = new_key();
        (key.metadata.name, key.metadata.uid) = (Some(slot.owner.name.clone()), Some(uid.to_owned()));
        key.spec.application = Some("app-0".into());
        key
    };
    let going = |mut key: ApiKey| {
        key.metadata.deletion_timestamp = key.metadata.creation_timestamp.clone();
        key
    };
    let uid = slot.owner.uid.as_str();
    for (what, live, keeps) in [
        ("it is there", Some(holder(uid)), false),
        ("it is being deleted", Some(going(holder(uid))), true),
        ("another one has its name", Some(holder("uid-of-another")), true),
        ("it vanished", None, true),
    ] {
        let server = server(&with(&json!({}), &json!({"slots": [slot]})));
        server.lock().unwrap().key = live;
        let said = admission(&server, None).decide(new_key(), false).await.unwrap();
        assert_eq!(server.lock().unwrap().written.len(), usize::from(keeps), "{what}");
        let warned = said.iter().any(|said| said.contains(&slot.owner.name) && said.contains("waits until"));
        assert_eq!(warned, !keeps, "{what}: {said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_comes_to_what_a_creation_would_also_where_the_watch_of_accounts_is_behind() {
    let full: Vec<Slot> = (1..=9).map(|n| theirs(n, SlotState::Live)).collect();
    for (what, slots, denied) in [("full by now", full, true), ("as it was", vec![], false)] {
        let server = server(&with(&json!({}), &json!({"slots": slots})));
        let shown = with(&json!({}), &json!({}));
        let admission = admission_that_knows(&server, None, Some(&shown));
        let tried = admission.decide(new_key(), true).await;
        assert!(server.lock().unwrap().written.is_empty(), "{what}: a place is kept for a dry run");
        assert_eq!(tried.is_err_and(|denial| denial.reason == "QuotaExceeded"), denied, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn however_often_a_creation_fails_its_tries_take_one_place() {
    let slots = json!({"slots": [theirs(1, SlotState::Live)]});
    let server = server(&with(&json!({"limit": 2, "rotationReserve": 0}), &slots));
    let admission = admission(&server, None);
    for n in 0..5 {
        let mut key = new_key();
        key.metadata.uid = Some(format!("uid-of-try-{n}"));
        assert!(admission.decide(key, false).await.is_ok(), "try {n}");
        let slots = server.lock().unwrap().account.clone().unwrap().status.unwrap().slots;
        let of_this_try = slots.iter().filter(|slot| slot.owner.uid == format!("uid-of-try-{n}"));
        assert_eq!((slots.len(), of_this_try.count()), (2, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_not_answered_in_time_is_told_whether_others_or_the_api_server_kept_it_waiting() {
    for (conflicts, reason, words) in [
        (true, "Contended", "others keep taking slots of account \"main\""),
        (false, "ApiServerUnavailable", "the API server did not answer in time"),
    ] {
        let server = server(&with(&json!({}), &json!({})));
        (server.lock().unwrap().conflicts, server.lock().unwrap().silent) = (conflicts, !conflicts);
        let denial = admission(&server, None).decide(new_key(), false).await.unwrap_err();
        assert_eq!((denial.reason, denial.passing), (reason, true));
        assert!(denial.message.contains(words), "{}", denial.message);
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_read_is_told_as_what_it_may_have_been() {
    let mut slot = theirs(1, SlotState::Live);
    slot.key_use = new_key().key_use();
    let by_label = json!({"allowed": [{"selector": {"matchLabels": {"team": "shop"}}}]});
    for (what, account, part) in [
        ("the account", with(&json!({}), &json!({})), "/bagsaccounts/"),
        ("the namespace", with(&by_label, &json!({})), "/api/v1/namespaces/"),
        ("an ApiKey of the same use", with(&json!({}), &json!({"slots": [slot]})), "/apikeys/"),
    ] {
        let server = server(&account);
        server.lock().unwrap().fails = Some(part);
        let denial = admission(&server, None).decide(new_key(), false).await.unwrap_err();
        assert_eq!((denial.reason, denial.passing), ("ApiServerUnavailable", true), "{what}");
        let words = denial.message.strip_suffix(": 500 InternalError; apply the ApiKey again in a moment");
        let words = words.and_then(|words| words.strip_suffix(" could not be read"));
        assert!(words.is_some_and(|words| words.contains(what)), "{what}: {}", denial.message);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_policy_says_of_the_ledger_is_not_the_tenants_to_read() {
    for (code, passing, way_out) in [
        (422, false, "ask the platform team to look at the operator's log"),
        (403, false, "ask the platform team to look at the operator's log"),
        (500, true, "apply the ApiKey again in a moment"),
    ] {
        let server = server(&with(&json!({}), &json!({})));
        server.lock().unwrap().refuses = Some(code);
        let denial = admission(&server, None).decide(new_key(), false).await.unwrap_err();
        assert_eq!((denial.reason, denial.passing), ("ApiServerUnavailable", passing), "{code}");
        assert_eq!(denial.message, format!("a slot could not be kept: {code} Invalid; {way_out}"));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_finds_no_turn_within_a_second_is_told_to_come_again() {
    let server = server(&with(&json!({}), &json!({})));
    // Whoever is judged takes as long as may be.
    server.lock().unwrap().silent = true;
    let (metrics, stop) = (Metrics::new(), CancellationToken::new());
    let router = service::router(admission(&server, None), metrics, stop);
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "0c9a8d74", "kind": {"group": "keys.bags.fm", "version": "v1alpha1", "kind": "ApiKey"},
            "resource": {"group": "keys.bags.fm", "version": "v1alpha1", "resource": "apikeys"},
            "name": "app-0", "namespace": "shop", "operation": "CREATE", "object": new_key(),
        },
    });
    let review = serde_json::to_vec(&review).unwrap();
    let ask = |_| {
        let request = Request::post("/admit").header("content-type", "application/json");
        router.clone().oneshot(request.body(axum::body::Body::from(review.clone())).unwrap())
    };
    let answers = futures::future::join_all((0..130).map(ask)).await;
    let codes: Vec<u16> = answers.into_iter().map(|answer| answer.unwrap().status().as_u16()).collect();
    let count = |code| codes.iter().filter(|found| **found == code).count();
    assert_eq!((count(200), count(503)), (128, 2), "{codes:?}");
}
