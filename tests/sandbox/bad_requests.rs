//! Bad requests: malformed, incomplete, too long, or to nowhere.

use reqwest::Method;
use serde_json::json;

use crate::{CALLBACK, CREATE, World, answer};

#[tokio::test]
async fn what_is_no_request_is_refused_in_the_envelope() {
    let world = World::new().await;
    let malformed = answer(world.request(Method::POST, CREATE).body("{")).await;
    assert_eq!(malformed.refusal(), (400, "error", "Invalid request body"));
    let incomplete = world.post(CALLBACK, json!({"address": "x"})).await;
    assert_eq!(incomplete.refusal(), (400, "error", "Invalid request body"));
    let long = answer(world.request(Method::POST, CREATE).body("x".repeat(64 * 1024 + 1))).await;
    assert_eq!(long.refusal(), (413, "error", "Request body too large"));
    assert_eq!(world.get(CREATE).await.refusal(), (405, "error", "Method not allowed"));
    assert_eq!(world.get("/nowhere").await.refusal(), (404, "error", "Not found"));
}
