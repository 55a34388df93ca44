//! What is said of a key that is sent, and what counts as its use.

use std::time::Duration;

use bags_operator::sandbox::UserOptions;
use reqwest::Method;
use serde_json::json;

use crate::{ME, Wallet, World, answer};

#[tokio::test]
async fn a_missing_or_unknown_key_is_invalid_a_suspended_user_is_forbidden_a_removed_one_not_found() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions::default());
    let (_, value) = world.create(&user, "Some-Key").await.made_key();
    let invalid = (401, "error", "Invalid API key. Please check your x-api-key header.");
    assert_eq!(world.get(ME).await.refusal(), invalid);
    assert_eq!(world.me("bags_sandbox_other").await.refusal(), invalid);

    world.sandbox.change_user(&user.id, |options| options.suspended = true).unwrap();
    let text = "API key does not have permission to access this resource";
    assert_eq!(world.me(&value).await.refusal(), (403, "error", text));
    assert_eq!(world.create(&user, "Other-Key").await.refusal(), (403, "response", text));
    assert_eq!(world.sign_in(&Wallet::of(&user), "Other-Key").await.refusal(), (403, "error", text));
    assert!(!world.sandbox.works(&value));

    world.sandbox.change_user(&user.id, |options| options.suspended = false).unwrap();
    assert_eq!(world.me(&value).await.status, 200);

    world.sandbox.remove_user(&user.id).unwrap();
    assert_eq!(world.me(&value).await.refusal(), (404, "error", "User not found"));
    assert_eq!(world.list(&user).await.refusal(), (400, "response", "Invalid token"));
    let again = world.sign_in(&Wallet::of(&user), "Other-Key").await;
    assert_eq!(again.body["response"]["isSignup"], true);
}

#[tokio::test]
async fn looking_does_not_count_as_a_use_and_a_refusal_does_not_either() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions { rate_limit: 2, ..UserOptions::default() });
    let (_, value) = world.create(&user, "Some-Key").await.made_key();
    assert!(world.sandbox.works(&value));
    assert_eq!(world.sandbox.keys()[0].last_used_at, None);
    assert_eq!(world.me(&value).await.status, 200);
    let used = world.sandbox.keys()[0].last_used_at;
    assert_eq!(used, Some(world.sandbox.now()));
    world.sandbox.advance(Duration::from_secs(1));
    assert_eq!(world.me(&value).await.status, 429);
    assert_eq!(world.sandbox.keys()[0].last_used_at, used);
}

#[tokio::test]
async fn ping_answers_outside_the_envelope_and_uses_a_key_that_is_sent() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions::default());
    let (_, value) = world.create(&user, "Some-Key").await.made_key();
    let bare = world.get("/ping").await;
    assert_eq!((bare.status, &bare.body), (200, &json!({"message": "pong"})));
    let with_key = answer(world.request(Method::GET, "/ping").header("x-api-key", &value)).await;
    assert_eq!(with_key.body, bare.body);
    assert_eq!(with_key.number("x-ratelimit-remaining"), 4998);
    assert!(world.sandbox.keys()[0].last_used_at.is_some());
}
