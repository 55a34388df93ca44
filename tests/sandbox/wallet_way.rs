//! Keys by a wallet: the challenge, its signature, the one-time password, and a limit of its own.

use std::time::Duration;

use bags_operator::sandbox::UserOptions;
use ed25519_dalek::SigningKey;
use serde_json::json;

use crate::{CALLBACK, HOUR, INIT, Wallet, World, code};

#[tokio::test]
async fn a_signature_makes_a_key() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions::default());
    let made = world.sign_in(&Wallet::of(&user), "Wallet-Key").await;
    let response = &made.body["response"];
    assert_eq!((made.status, &response["isSignup"]), (200, &json!(false)));
    assert_eq!(response["keyId"], json!(world.sandbox.keys()[0].id));
    let me = world.me(response["apiKey"].as_str().unwrap()).await;
    assert_eq!(me.body["response"]["user"]["uuid"], json!(user.id));
}

#[tokio::test]
async fn an_unknown_wallet_signs_up_once() {
    let world = World::new().await;
    let wallet = Wallet(SigningKey::from_bytes(&[7; 32]));
    let first = world.sign_in(&wallet, "First-Key").await;
    let second = world.sign_in(&wallet, "Second-Key").await;
    assert_eq!(first.body["response"]["isSignup"], true);
    assert_eq!(second.body["response"]["isSignup"], false);
    assert_eq!(world.sandbox.users().len(), 1);
    assert!(world.sandbox.works(first.body["response"]["apiKey"].as_str().unwrap()));
}

#[tokio::test]
async fn a_challenge_is_answered_once_soon_and_by_its_own_wallet() {
    let world = World::new().await;
    let [one, other] = [(); 2].map(|()| Wallet::of(&world.sandbox.add_user(UserOptions::default())));
    let wanted = (400, "error", "Nonce not found or expired");

    let signed = world.signed(&one, "Some-Key").await;
    assert_eq!(world.post(CALLBACK, signed.clone()).await.status, 200);
    assert_eq!(world.post(CALLBACK, signed).await.refusal(), wanted);

    let late = world.signed(&one, "Some-Key").await;
    world.sandbox.advance(Duration::from_secs(60));
    assert_eq!(world.post(CALLBACK, late).await.refusal(), wanted);

    let mut foreign = world.signed(&one, "Some-Key").await;
    foreign["address"] = json!(other.address());
    assert_eq!(world.post(CALLBACK, foreign).await.refusal(), wanted);
    assert_eq!(world.sandbox.keys().len(), 1);
}

#[tokio::test]
async fn a_wrong_signature_is_refused_and_spends_the_challenge() {
    let world = World::new().await;
    let [one, other] = [(); 2].map(|()| Wallet::of(&world.sandbox.add_user(UserOptions::default())));
    for signature in [other.sign("abc"), one.sign("abc"), "0OIl".to_owned(), "abc".to_owned()] {
        let mut signed = world.signed(&one, "Some-Key").await;
        let right = signed["signature"].take();
        signed["signature"] = json!(signature);
        assert_eq!(world.post(CALLBACK, signed.clone()).await.refusal(), (400, "error", "Invalid signature"));
        signed["signature"] = right;
        assert_eq!(world.post(CALLBACK, signed).await.refusal().2, "Nonce not found or expired");
    }
    assert!(world.sandbox.keys().is_empty());
}

#[tokio::test]
async fn an_address_is_the_base58_of_a_public_key() {
    let world = World::new().await;
    for address in ["", "0OIl", "abc", &bs58::encode([2; 33]).into_string()] {
        let answer = world.post(INIT, json!({"address": address})).await;
        assert_eq!(answer.refusal(), (400, "error", "Invalid address"));
    }
}

#[tokio::test]
async fn a_one_time_password_is_the_second_step() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions { totp: true, ..UserOptions::default() });
    let first = world.sign_in(&Wallet::of(&user), "Wallet-Key").await;
    let response = &first.body["response"];
    assert_eq!((&response["mfaRequired"], &response["mfaMethod"]), (&json!(true), &json!("totp")));
    assert!(world.sandbox.keys().is_empty());
    let step = json!({
        "authCode": response["authCode"], "mfaCode": code(&world, &user), "keyName": "Wallet-Key",
    });
    let made = world.post(CALLBACK, step.clone()).await;
    assert!(world.sandbox.works(made.body["response"]["apiKey"].as_str().unwrap()));
    assert_eq!(made.body["response"]["isSignup"], false);
    assert_eq!(world.sandbox.keys()[0].name, "Wallet-Key");
    let wanted = (400, "error", "Invalid or expired auth code");
    assert_eq!(world.post(CALLBACK, step).await.refusal(), wanted, "an auth code is good once");
}

#[tokio::test]
async fn a_wrong_or_late_second_step_is_refused_and_starts_again() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions { totp: true, ..UserOptions::default() });
    let wanted = (400, "error", "Invalid or expired auth code");
    let wallet = Wallet::of(&user);
    let step = async |mfa_code: String, wait: Duration| {
        let first = world.sign_in(&wallet, "Wallet-Key").await;
        let auth_code = &first.body["response"]["authCode"];
        world.sandbox.advance(wait);
        let step = json!({"authCode": auth_code, "mfaCode": mfa_code, "keyName": "Wallet-Key"});
        world.post(CALLBACK, step.clone()).await.refusal() == wanted
            && world
                .post(
                    CALLBACK,
                    json!({"authCode": auth_code, "mfaCode": code(&world, &user), "keyName": "A-B"}),
                )
                .await
                .refusal()
                == wanted
    };
    let right = code(&world, &user);
    let wrong = if right == "000000" { "000001" } else { "000000" };
    assert!(step(wrong.to_owned(), Duration::ZERO).await, "a wrong code spends the auth code");
    assert!(step("not-a-code".to_owned(), Duration::ZERO).await);
    assert!(step(right, Duration::from_secs(60)).await, "and so does time");
    assert!(world.sandbox.keys().is_empty());
}

#[tokio::test]
async fn a_one_time_password_is_taken_again_unless_the_user_forbids_it() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions { totp: true, ..UserOptions::default() });
    let wallet = Wallet::of(&user);
    let make = async || {
        let first = world.sign_in(&wallet, "Wallet-Key").await;
        let auth_code = &first.body["response"]["authCode"];
        let mfa_code = code(&world, &user);
        world
            .post(CALLBACK, json!({"authCode": auth_code, "mfaCode": mfa_code, "keyName": "A-B"}))
            .await
            .status
    };
    assert_eq!((make().await, make().await), (200, 200));
    world.sandbox.change_user(&user.id, |options| options.totp_single_use = true).unwrap();
    assert_eq!(make().await, 400);
    world.sandbox.advance(Duration::from_secs(30));
    assert_eq!((make().await, make().await), (200, 400));
}

#[tokio::test]
async fn the_wallet_way_has_a_tighter_limit_of_its_own() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions { auth_rate_limit: 3, ..UserOptions::default() });
    let wallet = Wallet::of(&user);
    assert_eq!(world.sign_in(&wallet, "Some-Key").await.status, 200);
    let third = world.post(INIT, json!({"address": wallet.address()})).await;
    assert_eq!(third.number("x-ratelimit-limit"), 5000, "the headers tell of the general budget");
    let fourth = world.post(INIT, json!({"address": wallet.address()})).await;
    let text = "Too many agent auth requests. Please try again later.";
    assert_eq!(fourth.refusal(), (429, "response", text));
    assert_eq!(fourth.number("x-ratelimit-remaining"), 0);
    assert_eq!(world.list(&user).await.status, 200, "nothing else is limited by it");
    world.sandbox.advance(HOUR);
    assert_eq!(world.sign_in(&wallet, "Some-Key").await.status, 200);
}
