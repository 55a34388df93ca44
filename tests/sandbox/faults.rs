//! Faults to order: connections that are cut, canned and broken answers, delays.

use std::sync::Arc;

use axum::body::Body;
use bags_operator::{
    clock::Randomness,
    sandbox::{Action, CutConnection, FaultRule, RequestView, Sandbox, UserOptions, When},
};
use http_body_util::BodyExt;
use reqwest::Method;
use serde_json::json;
use tower::ServiceExt;

use crate::{CREATE, LIST, StillClock, World};

#[tokio::test]
async fn a_connection_cut_before_the_effect_leaves_no_key_and_after_it_leaves_one() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions::default());
    for (when, keys) in [("before", 0), ("after", 1)] {
        world.fault(json!({"route": "/agent/dev/keys/create", "action": {"cut": when}})).await;
        let body = json!({"token": user.credentials.token(), "name": "Some-Key"});
        let error = world.request(Method::POST, CREATE).body(body.to_string()).send().await.unwrap_err();
        assert!(error.is_request(), "{error:?}");
        assert_eq!(world.sandbox.keys().len(), keys);
    }
    let requests = world.sandbox.requests(0, 10).requests;
    assert_eq!(requests.iter().map(|request| request.status).collect::<Vec<_>>(), [None, None]);
    assert_eq!(requests[1].key_id, Some(world.sandbox.keys()[0].id.clone()));
    world.create(&user, "Other-Key").await.made_key();
}

#[tokio::test]
async fn a_canned_answer_replaces_the_effect_or_only_hides_it() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions::default());
    let body = json!({"success": false, "error": "Service unavailable"});
    let action = json!({"status": 503, "body": body, "headers": {"retry-after": "7"}});
    world.fault(json!({"route": CREATE, "action": action})).await;
    let answer = world.create(&user, "Some-Key").await;
    assert_eq!(answer.refusal(), (503, "error", "Service unavailable"));
    assert_eq!(answer.number("retry-after"), 7);
    assert!(world.sandbox.keys().is_empty());

    let action =
        json!({"status": 500, "body": "<html>", "headers": {"content-type": "text/html"}, "when": "after"});
    world.fault(json!({"route": CREATE, "action": action})).await;
    let answer = world.create(&user, "Some-Key").await;
    assert_eq!((answer.status, &answer.body), (500, &json!("<html>")));
    assert_eq!(answer.headers["content-type"], "text/html");
    assert_eq!(answer.number("x-ratelimit-remaining"), 4999, "and the budget paid for it");
    assert_eq!(world.sandbox.keys().len(), 1);
    assert_eq!(world.sandbox.requests(1, 1).requests[0].status, Some(500));
}

#[tokio::test]
async fn half_an_answer_comes_whole_when_malformed_and_breaks_off_when_truncated() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions::default());
    world.fault(json!({"route": LIST, "action": {"malformed": true}})).await;
    let malformed = world.list(&user).await;
    assert_eq!(malformed.status, 200);
    assert_eq!(malformed.body, json!("{\"response\":[],"), "the first half, which is no JSON");

    world.fault(json!({"route": LIST, "action": {"truncated": true}})).await;
    let body = json!({"token": user.credentials.token()}).to_string();
    let truncated = world.request(Method::POST, LIST).body(body).send().await.unwrap();
    assert_eq!(truncated.status(), 200);
    assert!(truncated.text().await.is_err());
    assert_eq!(world.list(&user).await.body["response"], json!([]));
}

#[tokio::test]
async fn a_caller_that_does_not_wait_prevents_the_effect_only_before_it() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions::default());
    let body = json!({"token": user.credentials.token(), "name": "Some-Key"}).to_string();
    for (when, fault, keys) in [("before", 1, 0), ("after", 2, 1)] {
        world.fault(json!({"route": CREATE, "action": {"delayMs": 600_000, "when": when}})).await;
        let waiting = world.request(Method::POST, CREATE).body(body.clone()).send();
        // The caller gives up when the request has come as far as it gets without waiting.
        let came_this_far = async || {
            let noted = |request: &RequestView| {
                request.fault == Some(fault) && (when == "before" || request.status.is_some())
            };
            while !world.sandbox.requests(0, 10).requests.iter().any(noted) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = waiting => panic!("answered {answer:?}"),
            () = came_this_far() => {}
        }
        assert_eq!(world.sandbox.keys().len(), keys);
    }
    let requests = world.sandbox.requests(0, 10).requests;
    let noted: Vec<_> = requests.iter().map(|request| (request.status, request.fault)).collect();
    assert_eq!(noted, [(None, Some(1)), (Some(200), Some(2))]);
}

#[tokio::test]
async fn faults_are_listed_with_what_met_them_and_taken_away() {
    let world = World::new().await;
    let fault = json!({"route": "/ping", "method": "GET", "skip": 1, "count": 2, "action": {"status": 500}});
    world.fault(fault).await;
    let statuses = [world.get("/ping").await.status, world.get("/ping").await.status];
    assert_eq!(statuses, [200, 500]);
    let listed = world.get("/sandbox/faults").await;
    let wanted = json!({
        "number": 1, "met": 1, "route": "/ping", "method": "GET", "skip": 1, "count": 2,
        "action": {"status": 500, "when": "before"},
    });
    assert_eq!(listed.body, json!({"faults": [wanted]}));
    assert_eq!(world.send(Method::DELETE, "/sandbox/faults", json!({})).await.status, 204);
    assert_eq!(world.get("/ping").await.status, 200);
    assert_eq!(world.get("/sandbox/faults").await.body, json!({"faults": []}));
}

#[tokio::test]
async fn a_fault_that_nothing_can_meet_is_refused_with_the_routes_that_there_are() {
    let world = World::new().await;
    let answer = world.post("/sandbox/faults", json!({"route": "/pong", "action": {"cut": "after"}})).await;
    let error = answer.body["error"].as_str().unwrap();
    assert_eq!(answer.status, 400);
    assert!(error.contains("/pong") && error.contains("/api/v1/auth/me"), "{error}");
    let answer = world.post("/sandbox/faults", json!({"route": "/ping", "action": {}})).await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn in_this_process_a_cut_connection_is_an_error() {
    let sandbox = Sandbox::new(Arc::new(StillClock), Randomness::from_seed(1));
    sandbox.add_fault(FaultRule::once("/ping", Action::Cut(When::After))).unwrap();
    sandbox.add_fault(FaultRule::once("/ping", Action::Truncated)).unwrap();
    let ping = || http::Request::get("/ping").body(Body::empty()).unwrap();
    assert_eq!(sandbox.service().oneshot(ping()).await.err(), Some(CutConnection));
    let truncated = sandbox.service().oneshot(ping()).await.unwrap();
    assert!(truncated.into_body().collect().await.is_err());
    let whole = sandbox.service().oneshot(ping()).await.unwrap();
    assert_eq!(whole.into_body().collect().await.unwrap().to_bytes(), r#"{"message":"pong"}"#);
}
