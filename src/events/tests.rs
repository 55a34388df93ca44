use std::collections::{BTreeSet, HashSet};

use http::StatusCode;
use serde_json::Value;
use tokio::sync::mpsc;

use super::*;
use crate::{
    apikey::hold::{self, Kind},
    fixtures::{failure, server},
};

/// A clock that moves when told to.
struct HandClock {
    start: Instant,
    passed: Mutex<Duration>,
}

impl HandClock {
    #[expect(clippy::disallowed_methods, reason = "an arbitrary beginning: an Instant has no other")]
    fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), passed: Mutex::default() })
    }

    fn advance(&self, by: Duration) {
        *self.passed.lock().unwrap() += by;
    }
}

impl Clock for HandClock {
    fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + *self.passed.lock().unwrap()
    }

    fn monotonic(&self) -> Instant {
        self.start + *self.passed.lock().unwrap()
    }
}

/// Events that go to a server which answers every creation with `status` and keeps what was sent.
fn events(status: StatusCode) -> (Events, Arc<HandClock>, mpsc::UnboundedReceiver<Value>) {
    let (sent, seen) = mpsc::unbounded_channel();
    let (client, _) = server(move |request, _| {
        let mut event = request.body.clone();
        event["path"] = request.path().into();
        sent.send(event.clone()).unwrap();
        if status.is_success() { (status.as_u16(), event) } else { failure(status.as_u16(), "Forbidden") }
    });
    let clock = HandClock::new();
    (Events::new(client, clock.clone(), "replica-one".into()), clock, seen)
}

fn web() -> ObjectReference {
    ObjectReference {
        api_version: Some("keys.bags.fm/v1alpha1".into()),
        kind: Some("ApiKey".into()),
        namespace: Some("shop".into()),
        name: Some("web".into()),
        uid: Some("0123".into()),
        ..ObjectReference::default()
    }
}

fn drain(seen: &mut mpsc::UnboundedReceiver<Value>) -> Vec<Value> {
    std::iter::from_fn(|| seen.try_recv().ok()).collect()
}

#[tokio::test]
async fn an_event_has_everything_the_api_server_asks_for() {
    let (events, _, mut seen) = events(StatusCode::CREATED);
    events.publish(&web(), EventReason::QuotaExceeded, "no slot is free").await;
    let event = seen.try_recv().unwrap();
    assert_eq!(event["path"], "/apis/events.k8s.io/v1/namespaces/shop/events");
    assert_eq!(event["metadata"]["namespace"], "shop");
    assert!(event["metadata"]["name"].as_str().unwrap().starts_with("web."));
    assert_eq!(event["regarding"]["uid"], "0123");
    assert_eq!(event["reason"], "QuotaExceeded");
    assert_eq!(event["action"], "Reserve");
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["note"], "no slot is free");
    assert_eq!(event["reportingController"], "keys.bags.fm/bags-operator");
    assert_eq!(event["reportingInstance"], "replica-one");
    assert_eq!(event["eventTime"], "1970-01-01T00:00:00.000000Z");
}

#[tokio::test]
async fn an_event_about_a_cluster_scoped_object_goes_where_describe_looks() {
    let (events, _, mut seen) = events(StatusCode::CREATED);
    let account = ObjectReference { namespace: None, ..web() };
    events.publish(&account, EventReason::CredentialsAccepted, "").await;
    let event = seen.try_recv().unwrap();
    assert_eq!(event["metadata"]["namespace"], "default");
    assert_eq!(event["type"], "Normal");
}

#[tokio::test]
async fn the_same_is_said_again_only_after_ten_minutes() {
    let (events, clock, mut seen) = events(StatusCode::CREATED);
    for _ in 0..3 {
        events.publish(&web(), EventReason::BagsUnavailable, "no answer").await;
    }
    assert_eq!(drain(&mut seen).len(), 1);
    clock.advance(REPEAT_AFTER - Duration::from_millis(1));
    events.publish(&web(), EventReason::BagsUnavailable, "no answer").await;
    assert_eq!(drain(&mut seen).len(), 0);
    clock.advance(Duration::from_millis(1));
    events.publish(&web(), EventReason::BagsUnavailable, "no answer").await;
    assert_eq!(drain(&mut seen).len(), 1);
}

#[tokio::test]
async fn another_note_reason_or_object_is_said_at_once_under_a_name_of_its_own() {
    let (events, _, mut seen) = events(StatusCode::CREATED);
    events.publish(&web(), EventReason::KeyPublished, "revision 1").await;
    events.publish(&web(), EventReason::KeyPublished, "revision 2").await;
    events.publish(&web(), EventReason::KeyRevoked, "revision 2").await;
    let reborn = ObjectReference { uid: Some("4567".into()), ..web() };
    events.publish(&reborn, EventReason::KeyPublished, "revision 1").await;
    let names: HashSet<_> = drain(&mut seen).iter().map(|e| e["metadata"]["name"].to_string()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
}

#[tokio::test]
async fn a_long_note_is_cut_between_characters() {
    let (events, _, mut seen) = events(StatusCode::CREATED);
    events.publish(&web(), EventReason::ReconcileFailed, &format!("x{}", "é".repeat(1000))).await;
    let note = seen.try_recv().unwrap()["note"].as_str().unwrap().to_owned();
    assert_eq!(note.len(), 1023);
}

#[tokio::test]
async fn a_refused_event_does_not_trouble_the_caller() {
    let (events, _, mut seen) = events(StatusCode::FORBIDDEN);
    events.publish(&web(), EventReason::KeyPublished, "revision 1").await;
    assert_eq!(drain(&mut seen).len(), 1);
}

#[tokio::test]
async fn what_was_said_is_remembered_within_bounds() {
    let (events, clock, _seen) = events(StatusCode::CREATED);
    for number in 0..=REMEMBERED {
        assert!(events.admit(&web(), EventReason::KeyPublished, &number.to_string()).is_some());
        clock.advance(Duration::from_millis(1));
    }
    assert!(events.memory.lock().unwrap().said.len() <= REMEMBERED);
}

#[test]
fn reasons_are_words_that_the_api_server_takes() {
    for reason in EventReason::ALL {
        let word = reason.as_str();
        assert!(word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
        assert!(word.len() <= 128 && word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
    }
}

/// `docs/events.md` has a row for each of them, and for nothing else.
#[test]
fn the_documentation_names_every_event() {
    let (table, _) = include_str!("../../docs/events.md").split_once("\n## ").unwrap();
    let rows = table.lines().filter_map(|row| row.strip_prefix("| `"));
    let documented: Vec<&str> = rows.map(|row| row.split('`').next().unwrap()).collect();
    let written: Vec<&str> = EventReason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(BTreeSet::from_iter(&documented), BTreeSet::from_iter(&written));
    assert_eq!(documented.len(), written.len(), "one row each");
}

/// `docs/troubleshooting.md` names each of them in one row, with the condition that it also shows in, and nothing else.
#[test]
fn the_documentation_names_every_reason_of_an_apikey() {
    let page = include_str!("../../docs/troubleshooting.md");
    let section = page.split("\n## Reasons of an ApiKey\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|row| row.strip_prefix("| `"));
    let documented: Vec<(&str, &str)> = rows
        .flat_map(|row| {
            let mut cells = row.split(" |");
            let (names, shown) = (cells.next().unwrap(), cells.next().unwrap());
            names.split("`, `").map(move |name| (name.trim_end_matches('`'), shown.trim()))
        })
        .collect();
    let known = hold::Reason::ALL.iter().map(|reason| {
        let shown = match reason.kind() {
            Kind::Settled => "",
            Kind::Stalled => "S",
            Kind::Progressing => "R",
        };
        (reason.as_str(), shown)
    });
    let known: Vec<(&str, &str)> = known.collect();
    assert_eq!(BTreeSet::from_iter(&documented), BTreeSet::from_iter(&known));
    assert_eq!(documented.len(), known.len(), "one row each");
}
