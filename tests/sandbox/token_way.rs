//! Keys by an agent token: made, listed, revoked; the limit and the names.

use std::{collections::BTreeSet, time::Duration};

use bags_operator::sandbox::{KeyState, UserOptions};
use serde_json::{Value, json};

use crate::{CALLBACK, CREATE, HOUR, LIST, REVOKE, Wallet, World, names};

#[tokio::test]
async fn a_key_works_from_its_creation_to_its_revocation() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions::default());
    let made = world.create(&user, "Production-Web").await;
    let (id, value) = made.made_key();
    let opaque = value.strip_prefix("bags_sandbox_").unwrap();
    assert_eq!(opaque.len(), 43);
    let key = &made.body["response"]["apiKey"];
    assert_eq!(made.body["success"], true);
    assert_eq!((&key["status"], &key["name"]), (&json!("active"), &json!("Production-Web")));
    assert_eq!(key["createdAt"], "2026-11-23T12:00:00.500Z");
    assert_eq!(key["lastUsedAt"], Value::Null);

    let me = world.me(&value).await;
    assert_eq!(me.status, 200);
    assert_eq!(me.body["response"]["user"]["uuid"], json!(user.id));
    assert!(world.sandbox.works(&value));

    let revoked = world.revoke(&user, &id).await;
    assert_eq!((revoked.status, &revoked.body["success"]), (200, &json!(true)));
    let wanted = (401, "error", "Invalid API key. Please check your x-api-key header.");
    assert_eq!(world.me(&value).await.refusal(), wanted);
    assert!(!world.sandbox.works(&value));
    assert_eq!(world.sandbox.keys()[0].state, KeyState::Revoked);
}

#[tokio::test]
async fn the_list_has_the_active_keys_of_one_user_and_repeats_their_values() {
    let world = World::new().await;
    let [one, other] = [(); 2].map(|()| world.sandbox.add_user(UserOptions::default()));
    let (_, value) = world.create(&one, "One-Key").await.made_key();
    let (gone, _) = world.create(&one, "Gone-Key").await.made_key();
    world.create(&other, "Other-Key").await.made_key();
    world.revoke(&one, &gone).await;
    let list = world.list(&one).await;
    assert_eq!(names(&list), ["One-Key"]);
    assert_eq!(list.body["response"][0]["key"], json!(value));
    assert_eq!(names(&world.list(&other).await), ["Other-Key"]);
}

#[tokio::test]
async fn revoking_twice_is_fine_and_another_users_key_is_not_found() {
    let world = World::new().await;
    let [one, other] = [(); 2].map(|()| world.sandbox.add_user(UserOptions::default()));
    let (id, value) = world.create(&one, "One-Key").await.made_key();
    let wanted = (404, "response", "API key not found");
    assert_eq!(world.revoke(&other, &id).await.refusal(), wanted);
    assert_eq!(world.revoke(&one, "no-such-id").await.refusal(), wanted);
    assert_eq!(world.me(&value).await.status, 200);
    assert_eq!(world.revoke(&one, &id).await.status, 200);
    let revoked_at = world.sandbox.keys()[0].revoked_at;
    world.sandbox.advance(HOUR);
    assert_eq!(world.revoke(&one, &id).await.status, 200);
    assert_eq!(world.sandbox.keys()[0].revoked_at, revoked_at);
}

#[tokio::test]
async fn an_unknown_or_expired_token_is_invalid() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions::default());
    let wanted = (400, "response", "Invalid token");
    for path in [CREATE, LIST, REVOKE] {
        let body = json!({"token": "other", "name": "Some-Key", "keyId": "some-id"});
        assert_eq!(world.post(path, body).await.refusal(), wanted);
    }
    world.sandbox.advance(HOUR * 24 * 365 - Duration::from_secs(1));
    assert_eq!(world.list(&user).await.status, 200);
    world.sandbox.advance(Duration::from_secs(1));
    assert_eq!(world.list(&user).await.refusal(), wanted);
}

#[tokio::test]
async fn a_token_says_when_it_expires() {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions::default());
    let claims = user.credentials.token().split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["exp"], json!(world.sandbox.now().as_second() + 365 * 24 * 3600));
}

#[tokio::test]
async fn the_limit_counts_active_keys_whoever_made_them() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions { limit: 3, ..UserOptions::default() });
    let (id, _) = world.create(&user, "Token-Key").await.made_key();
    assert_eq!(world.sign_in(&Wallet::of(&user), "Wallet-Key").await.status, 200);
    assert_eq!(world.post("/sandbox/keys", json!({"name": "Hand-Key"})).await.status, 201);
    let text = "You have reached the maximum number of API keys";
    assert_eq!(world.create(&user, "Fourth-Key").await.refusal(), (400, "response", text));
    let refused = world.sign_in(&Wallet::of(&user), "Fourth-Key").await;
    assert_eq!(refused.refusal(), (400, "error", text));
    assert_eq!(world.post("/sandbox/keys", json!({"name": "Fourth-Key"})).await.body["error"], text);
    world.revoke(&user, &id).await;
    world.create(&user, "Fourth-Key").await.made_key();
    assert_eq!(world.sandbox.keys().len(), 4);
}

#[tokio::test]
async fn creations_at_the_same_time_never_pass_the_limit() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions::default());
    let tries = (0..50).map(|n| {
        let name = format!("Key-{n}");
        let (world, user) = (&world, &user);
        async move { world.create(user, &name).await.status }
    });
    let made = futures::future::join_all(tries).await.into_iter().filter(|status| *status == 200);
    assert_eq!(made.count(), 10);
    assert_eq!(world.sandbox.users()[0].active_keys, 10);
}

#[tokio::test]
async fn names_have_1_to_255_characters_and_need_not_be_unique() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions::default());
    let text = "Key name must be between 1 and 255 characters";
    for name in [String::new(), "n".repeat(256)] {
        assert_eq!(world.create(&user, &name).await.refusal(), (400, "response", text));
        let signed = world.signed(&Wallet::of(&user), &name).await;
        assert_eq!(world.post(CALLBACK, signed).await.refusal(), (400, "error", text));
    }
    let longest = "ü".repeat(255);
    let ids =
        [world.create(&user, &longest).await.made_key(), world.create(&user, &longest).await.made_key()];
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn the_key_id_can_be_missing_from_creations_and_is_in_the_list() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions { key_id_in_answer: false, ..UserOptions::default() });
    let made = world.create(&user, "Token-Key").await;
    assert!(made.body["response"]["apiKey"].get("keyId").is_none());
    let made = world.sign_in(&Wallet::of(&user), "Wallet-Key").await;
    assert!(made.body["response"].get("keyId").is_none());
    let ids: BTreeSet<_> = world.sandbox.keys().into_iter().map(|key| json!(key.id).to_string()).collect();
    let list = world.list(&user).await;
    let listed = list.body["response"].as_array().unwrap().iter().map(|key| key["keyId"].to_string());
    assert_eq!(listed.collect::<BTreeSet<_>>(), ids);
}

#[tokio::test]
async fn a_token_that_was_renewed_is_invalid_from_then_on_and_the_new_one_is_the_same_users() {
    let world = World::new().await;
    let mut user = world.sandbox.add_user(UserOptions::default());
    let (_, value) = world.create(&user, "One-Key").await.made_key();
    let token = world.sandbox.renew_token(&user.id).unwrap();
    assert_eq!(world.list(&user).await.refusal(), (400, "response", "Invalid token"));
    assert_eq!(world.me(&value).await.status, 200, "its keys stay");
    let body = json!({"token": token});
    assert_eq!(names(&world.post(LIST, body).await), ["One-Key"]);
    world.sandbox.remove_user(&user.id).unwrap();
    user.id.push_str("-no-such");
    assert!(world.sandbox.renew_token(&user.id).is_err());
}
