//! What a user's service can, and what it lacks: the list, its lag, the last use, where revocation lies.

use std::time::Duration;

use bags_operator::sandbox::{Capabilities, Settings, UserOptions};
use serde_json::{Value, json};

use crate::{World, lacking, names};

#[tokio::test]
async fn an_endpoint_that_the_user_lacks_answers_like_one_that_nobody_has() {
    let world = World::new().await;
    let user = world.sandbox.add_user(lacking(Capabilities { list: false, last_use: true, revoke: false }));
    let (id, value) = world.create(&user, "Some-Key").await.made_key();
    let nowhere = world.post("/api/v1/agent/dev/nowhere", json!({})).await;
    assert_eq!(nowhere.refusal(), (404, "error", "Not found"));
    assert_eq!(world.list(&user).await.refusal(), nowhere.refusal());
    assert_eq!(world.revoke(&user, &id).await.refusal(), nowhere.refusal());
    assert!(world.sandbox.works(&value));
}

#[tokio::test]
async fn the_list_lags_for_new_and_for_revoked_keys() {
    let world = World::new().await;
    let lag = Duration::from_secs(30);
    let user = world.sandbox.add_user(UserOptions { list_lag: lag, ..UserOptions::default() });
    let (id, value) = world.create(&user, "Some-Key").await.made_key();
    world.sandbox.advance(lag - Duration::from_millis(1));
    assert!(names(&world.list(&user).await).is_empty());
    world.sandbox.advance(Duration::from_millis(1));
    assert_eq!(names(&world.list(&user).await), ["Some-Key"]);
    world.revoke(&user, &id).await;
    assert_eq!(world.me(&value).await.status, 401, "only the list lags");
    assert_eq!(names(&world.list(&user).await), ["Some-Key"]);
    world.sandbox.advance(lag);
    assert!(names(&world.list(&user).await).is_empty());
}

#[tokio::test]
async fn last_use_shows_after_its_lag_and_only_where_the_user_sees_it() {
    let world = World::new().await;
    let lag = Duration::from_secs(60);
    let user = world.sandbox.add_user(UserOptions { last_use_lag: lag, ..UserOptions::default() });
    let (_, value) = world.create(&user, "Some-Key").await.made_key();
    let shown = async || world.list(&user).await.body["response"][0]["lastUsedAt"].clone();
    world.me(&value).await;
    assert_eq!(shown().await, Value::Null);
    world.sandbox.advance(Duration::from_secs(40));
    world.me(&value).await;
    world.sandbox.advance(Duration::from_secs(20));
    assert_eq!(shown().await, "2026-11-23T12:00:00.500Z");
    world.sandbox.advance(Duration::from_secs(40));
    assert_eq!(shown().await, "2026-11-23T12:00:40.500Z");
    world.sandbox.change_user(&user.id, |options| options.capabilities.last_use = false).unwrap();
    assert_eq!(shown().await, Value::Null);
    let keys = world.get("/sandbox/keys").await;
    assert_eq!(keys.body["keys"][0]["lastUsedAt"], "2026-11-23T12:00:40.500Z", "told without lag");
}

#[tokio::test]
async fn the_revoke_endpoint_can_lie_elsewhere() {
    let settings = Settings { revoke_path: "/agent/v3/keys/delete".to_owned(), ..Settings::default() };
    let world = World::with(settings).await;
    let user = world.sandbox.add_user(UserOptions::default());
    let (id, value) = world.create(&user, "Some-Key").await.made_key();
    assert_eq!(world.revoke(&user, &id).await.status, 404);
    let body = json!({"token": user.credentials.token(), "keyId": id});
    assert_eq!(world.post("/api/v1/agent/v3/keys/delete", body).await.status, 200);
    assert!(!world.sandbox.works(&value));
}
