//! The sandbox from outside: every route and rule over real HTTP, on a clock that the tests move.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bags_operator::clock::{Clock, Randomness, SystemClock};
use bags_operator::sandbox::{
    Action, Capabilities, CutConnection, FaultRule, KeyState, NewUser, RequestView, Sandbox, Settings,
    UserOptions, When, serve,
};
use ed25519_dalek::{Signer, SigningKey};
use http_body_util::BodyExt;
use jiff::Timestamp;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::ServiceExt;

const CREATE: &str = "/api/v1/agent/dev/keys/create";
const LIST: &str = "/api/v1/agent/dev/keys";
const REVOKE: &str = "/api/v1/agent/dev/keys/revoke";
const ME: &str = "/api/v1/auth/me";
const INIT: &str = "/api/v1/agent/v2/auth/init";
const CALLBACK: &str = "/api/v1/agent/v2/auth/callback";
const HOUR: Duration = Duration::from_secs(3600);

/// Time that stands still unless the sandbox is told to move it.
struct StillClock;

impl Clock for StillClock {
    fn wall(&self) -> Timestamp {
        "2026-11-23T12:00:00.5Z".parse().unwrap()
    }

    fn monotonic(&self) -> tokio::time::Instant {
        SystemClock.monotonic()
    }
}

/// A sandbox on a socket of its own.
struct World {
    sandbox: Sandbox,
    base: String,
    client: reqwest::Client,
    _server: JoinSet<std::io::Result<()>>,
}

struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Value,
}

impl Answer {
    fn number(&self, header: &str) -> i64 {
        self.headers[header].to_str().unwrap().parse().unwrap()
    }

    fn made_key(&self) -> (String, String) {
        assert_eq!(self.status, 200, "{}", self.body);
        let key = &self.body["response"]["apiKey"];
        (key["keyId"].as_str().unwrap_or_default().to_owned(), key["key"].as_str().unwrap().to_owned())
    }

    /// Status and message, with the field of the envelope that carries it.
    fn refusal(&self) -> (u16, &str, &str) {
        assert_eq!(self.body["success"], false, "{}", self.body);
        let field = if self.body["error"].is_string() { "error" } else { "response" };
        (self.status, field, self.body[field].as_str().unwrap())
    }
}

impl World {
    async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sandbox = Sandbox::with_settings(Arc::new(StillClock), Randomness::from_seed(1), settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(serve(listener, sandbox.clone()));
        let client = reqwest::Client::builder()
            .no_proxy()
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self { sandbox, base, client, _server: server }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> Answer {
        answer(self.request(method, path).body(body.to_string())).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, body).await
    }

    async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    async fn me(&self, value: &str) -> Answer {
        answer(self.request(Method::GET, ME).header("x-api-key", value)).await
    }

    async fn create(&self, user: &NewUser, name: &str) -> Answer {
        self.post(CREATE, json!({"token": user.credentials.token(), "name": name})).await
    }

    async fn list(&self, user: &NewUser) -> Answer {
        self.post(LIST, json!({"token": user.credentials.token()})).await
    }

    async fn revoke(&self, user: &NewUser, id: &str) -> Answer {
        self.post(REVOKE, json!({"token": user.credentials.token(), "keyId": id})).await
    }

    async fn fault(&self, fault: Value) {
        let answer = self.post("/sandbox/faults", fault).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
    }

    /// A signed challenge, ready for the callback.
    async fn signed(&self, wallet: &Wallet, key_name: &str) -> Value {
        let init = self.post(INIT, json!({"address": wallet.address()})).await;
        assert_eq!(init.status, 200, "{}", init.body);
        let message = init.body["response"]["message"].as_str().unwrap();
        json!({
            "signature": wallet.sign(message), "address": wallet.address(),
            "nonce": init.body["response"]["nonce"], "keyName": key_name,
        })
    }

    async fn sign_in(&self, wallet: &Wallet, key_name: &str) -> Answer {
        let signed = self.signed(wallet, key_name).await;
        self.post(CALLBACK, signed).await
    }
}

async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let text = response.text().await.unwrap();
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
}

struct Wallet(SigningKey);

impl Wallet {
    fn of(user: &NewUser) -> Self {
        let bytes: Vec<u8> = serde_json::from_str(user.credentials.wallet_json()).unwrap();
        Self(SigningKey::from_keypair_bytes(&bytes.try_into().unwrap()).unwrap())
    }

    fn address(&self) -> String {
        bs58::encode(self.0.verifying_key().as_bytes()).into_string()
    }

    fn sign(&self, message: &str) -> String {
        let bytes = bs58::decode(message).into_vec().unwrap();
        bs58::encode(self.0.sign(&bytes).to_bytes()).into_string()
    }
}

/// The one-time password of now.
fn code(world: &World, user: &NewUser) -> String {
    let secret = totp_rs::Secret::try_from_base32(user.credentials.totp().unwrap()).unwrap();
    let totp = totp_rs::Builder::new().with_secret(secret).build().unwrap();
    totp.generate(u64::try_from(world.sandbox.now().as_second()).unwrap()).to_string()
}

fn names(list: &Answer) -> Vec<&str> {
    assert_eq!(list.status, 200, "{}", list.body);
    list.body["response"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap()).collect()
}

fn lacking(capabilities: Capabilities) -> UserOptions {
    UserOptions { capabilities, ..UserOptions::default() }
}

mod token_way {
    use super::*;

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
        let ids: BTreeSet<_> =
            world.sandbox.keys().into_iter().map(|key| json!(key.id).to_string()).collect();
        let list = world.list(&user).await;
        let listed = list.body["response"].as_array().unwrap().iter().map(|key| key["keyId"].to_string());
        assert_eq!(listed.collect::<BTreeSet<_>>(), ids);
    }
}

mod capabilities {
    use super::*;

    #[tokio::test]
    async fn an_endpoint_that_the_user_lacks_answers_like_one_that_nobody_has() {
        let world = World::new().await;
        let user =
            world.sandbox.add_user(lacking(Capabilities { list: false, last_use: true, revoke: false }));
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
}

mod wallet_way {
    use super::*;

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
            assert_eq!(
                world.post(CALLBACK, signed.clone()).await.refusal(),
                (400, "error", "Invalid signature")
            );
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
}

mod checking_a_key {
    use super::*;

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
}

mod rate_limits {
    use super::*;

    #[tokio::test]
    async fn all_keys_and_credentials_of_a_user_share_one_sliding_hour() {
        let world = World::new().await;
        let user = world.sandbox.add_user(UserOptions { rate_limit: 3, ..UserOptions::default() });
        let made = world.create(&user, "Some-Key").await;
        let (_, value) = made.made_key();
        let reset = world.sandbox.now().as_second() + 3601;
        let told = |answer: &Answer| {
            ["limit", "remaining", "reset"].map(|name| answer.number(&format!("x-ratelimit-{name}")))
        };
        assert_eq!(told(&made), [3, 2, reset]);
        world.sandbox.advance(HOUR / 2);
        assert_eq!(told(&world.me(&value).await), [3, 1, reset]);
        assert_eq!(told(&world.list(&user).await), [3, 0, reset]);
        let over = world.me(&value).await;
        assert_eq!(over.refusal(), (429, "error", "Rate limit exceeded"));
        assert_eq!(told(&over), [3, 0, reset]);
        let numbers = [&over.body["limit"], &over.body["remaining"], &over.body["resetTime"]];
        assert_eq!(numbers, [&json!(3), &json!(0), &json!(reset)]);
        assert_eq!(world.list(&user).await.refusal().2, "Rate limit exceeded");
        world.sandbox.advance(HOUR / 2);
        assert_eq!(told(&world.me(&value).await), [3, 0, reset + 1800]);
    }

    #[tokio::test]
    async fn an_address_has_a_budget_over_all_users_where_it_is_counted() {
        let world = World::with(Settings { ip_rate_limit: Some(3), ..Settings::default() }).await;
        let users = [(); 4].map(|()| world.sandbox.add_user(UserOptions::default()));
        for user in &users[..3] {
            assert_eq!(world.list(user).await.status, 200);
        }
        assert_eq!(world.list(&users[3]).await.refusal().2, "Rate limit exceeded");
        assert_eq!(world.me("unknown").await.status, 429, "also for those whom nobody knows");
        world.sandbox.advance(HOUR);
        assert_eq!(world.list(&users[3]).await.status, 200);
    }

    #[tokio::test]
    async fn every_public_answer_carries_the_headers_and_the_services_time() {
        let world = World::new().await;
        world.sandbox.advance(HOUR);
        for path in ["/ping", ME, CREATE, "/api/v1/nowhere"] {
            let answer = world.get(path).await;
            assert_eq!(answer.number("x-ratelimit-limit"), 5000, "{path}");
            assert_eq!(answer.headers["date"], "Mon, 23 Nov 2026 13:00:00 GMT");
        }
    }
}

mod bad_requests {
    use super::*;

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
}

mod faults {
    use super::*;

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

        let action = json!({"status": 500, "body": "<html>", "headers": {"content-type": "text/html"}, "when": "after"});
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
        let fault =
            json!({"route": "/ping", "method": "GET", "skip": 1, "count": 2, "action": {"status": 500}});
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
        let answer =
            world.post("/sandbox/faults", json!({"route": "/pong", "action": {"cut": "after"}})).await;
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
}

mod control {
    use super::*;

    fn with_credentials(directory: &Path) -> Settings {
        Settings { credentials: Some(directory.to_owned()), ..Settings::default() }
    }

    #[tokio::test]
    async fn a_user_made_over_http_has_its_credentials_in_files_of_its_own() {
        let directory = Directory::new("users");
        let world = World::with(with_credentials(&directory.0)).await;
        let order = json!({"credentialsDir": "team-b", "options": {"limit": 2, "totp": true, "capabilities": {"list": false}}});
        let made = world.post("/sandbox/users", order.clone()).await;
        assert_eq!((made.status, &made.body["credentialsDir"]), (201, &json!("team-b")));
        assert_eq!(made.body["options"]["limit"], 2);
        assert_eq!(
            made.body["options"]["capabilities"],
            json!({"list": false, "lastUse": true, "revoke": true})
        );
        for name in ["wallet.json", "token", "totp"] {
            let file = directory.0.join("team-b").join(name);
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let token = std::fs::read_to_string(directory.0.join("team-b/token")).unwrap();
        world.post(CREATE, json!({"token": token, "name": "Some-Key"})).await.made_key();
        assert_eq!(world.post("/sandbox/users", order).await.status, 409, "it is another user's");
        for name in ["", "..", "a/b", "/tmp"] {
            assert_eq!(
                world.post("/sandbox/users", json!({"credentialsDir": name})).await.status,
                400,
                "{name}"
            );
        }
        let unknown = json!({"credentialsDir": "team-c", "options": {"limmit": 2}});
        assert_eq!(world.post("/sandbox/users", unknown).await.status, 400);
        assert_eq!(world.sandbox.users().len(), 1);
    }

    #[tokio::test]
    async fn files_of_an_earlier_run_are_replaced() {
        let directory = Directory::new("earlier");
        let with_totp = UserOptions { totp: true, ..UserOptions::default() };
        let mut tokens = BTreeSet::new();
        for options in [with_totp, UserOptions::default()] {
            let world = World::with(with_credentials(&directory.0)).await;
            world.sandbox.advance(HOUR * u32::try_from(tokens.len()).unwrap());
            world.sandbox.add_user_on_disk(None, options.clone()).unwrap();
            assert!(world.sandbox.add_user_on_disk(None, options.clone()).is_err());
            tokens.insert(std::fs::read_to_string(directory.0.join("token")).unwrap());
            assert_eq!(directory.0.join("totp").exists(), options.totp);
        }
        assert_eq!(tokens.len(), 2);
    }

    #[tokio::test]
    async fn what_is_no_order_is_refused() {
        let world = World::new().await;
        for (path, status) in [("/sandbox/requests?after=x", 400), ("/sandbox/nothing", 404)] {
            let answer = world.get(path).await;
            assert_eq!(answer.status, status);
            assert!(answer.body["error"].is_string());
        }
        assert_eq!(world.sandbox.requests(0, 1).total, 0, "and is no request to the service");
    }

    #[tokio::test]
    async fn without_a_directory_no_user_can_be_made_over_http() {
        let world = World::new().await;
        assert_eq!(world.post("/sandbox/users", json!({"credentialsDir": "team-b"})).await.status, 409);
    }

    #[tokio::test]
    async fn a_change_replaces_only_what_it_names() {
        let world = World::new().await;
        let user = world.sandbox.add_user(UserOptions { limit: 7, ..UserOptions::default() });
        let path = format!("/sandbox/users/{}", user.id);
        let change =
            json!({"capabilities": {"revoke": false}, "listLagMs": 1500, "suspended": true, "rateLimit": 9});
        let changed = world.send(Method::PATCH, &path, change).await;
        assert_eq!((changed.status, &changed.body["status"]), (200, &json!("suspended")));
        let wanted = UserOptions {
            limit: 7,
            list_lag: Duration::from_millis(1500),
            suspended: true,
            rate_limit: 9,
            ..lacking(Capabilities { revoke: false, ..Capabilities::default() })
        };
        assert_eq!(world.sandbox.users()[0].options, wanted);
        assert_eq!(world.send(Method::PATCH, &path, json!({"limit": "many"})).await.status, 400);
        assert_eq!(world.send(Method::PATCH, "/sandbox/users/none", json!({})).await.status, 404);
        let removed = world.send(Method::DELETE, &path, json!({})).await;
        assert_eq!((removed.status, &removed.body["status"]), (200, &json!("gone")));
        assert_eq!(world.get("/sandbox/users").await.body["users"][0]["status"], "gone");
    }

    #[tokio::test]
    async fn a_person_makes_and_revokes_keys() {
        let world = World::new().await;
        world.sandbox.add_user(UserOptions::default());
        let second = world.sandbox.add_user(UserOptions::default());
        let made = world.post("/sandbox/keys", json!({"name": "By-Hand", "user": second.id})).await;
        assert_eq!((made.status, &made.body["user"]), (201, &json!(second.id)));
        assert_eq!(names(&world.list(&second).await), ["By-Hand"]);
        let id = made.body["id"].as_str().unwrap();
        let revoked = world.post(&format!("/sandbox/keys/{id}/revoke"), json!({})).await;
        assert_eq!((revoked.status, &revoked.body["state"]), (200, &json!("revoked")));
        assert_eq!(world.post("/sandbox/keys/none/revoke", json!({})).await.status, 404);
        assert_eq!(world.post("/sandbox/keys", json!({"name": "By-Hand", "user": "none"})).await.status, 404);
    }

    #[tokio::test]
    async fn the_clock_is_read_and_advanced() {
        let world = World::new().await;
        let wanted = json!({"now": "2026-11-23T12:00:00.500Z", "advancedMs": 0});
        assert_eq!(world.get("/sandbox/clock").await.body, wanted);
        let moved = world.post("/sandbox/clock", json!({"advanceMs": 1500})).await;
        assert_eq!(moved.body, json!({"now": "2026-11-23T12:00:02.000Z", "advancedMs": 1500}));
        assert_eq!(world.get("/sandbox/clock").await.body, moved.body);
        world.post("/sandbox/clock", json!({"advanceMs": u64::MAX})).await;
        assert_eq!(world.get("/ping").await.status, 200, "even at the end of time");
    }

    #[tokio::test]
    async fn requests_are_paged_and_say_who_asked_for_what() {
        let world = World::new().await;
        let user = world.sandbox.add_user(UserOptions::default());
        let (id, value) = world.create(&user, "Some-Key").await.made_key();
        world.me(&value).await;
        world.get("/api/v1/nowhere").await;
        world.get("/sandbox/keys").await;
        let page = world.get("/sandbox/requests?after=1&limit=1").await;
        let wanted = json!({"total": 3, "requests": [{
            "number": 2, "time": "2026-11-23T12:00:00.500Z", "method": "GET", "route": ME, "keyId": id,
            "user": user.id, "status": 200, "fault": null,
        }]});
        assert_eq!(page.body, wanted);
        let all = world.get("/sandbox/requests").await;
        assert_eq!(all.body["requests"][2]["route"], Value::Null);
        assert_eq!(all.body["requests"][2]["status"], 404);
    }

    #[tokio::test]
    async fn the_page_shows_every_key_and_its_button_revokes() {
        let world = World::new().await;
        let user = world.sandbox.add_user(UserOptions::default());
        let (id, value) = world.create(&user, "<b>Some-Key</b>").await.made_key();
        let page = world.get("/").await.body;
        let page = page.as_str().unwrap();
        assert!(page.contains("&lt;b&gt;Some-Key&lt;/b&gt;") && page.contains("sandbox-1"));
        let path = format!("/keys/{id}/revoke");
        assert!(page.contains(&format!("<form method=\"post\" action=\"{path}\">")));
        let foreign = world.request(Method::POST, &path).header("sec-fetch-site", "cross-site");
        assert_eq!(answer(foreign).await.status, 403);
        assert!(world.sandbox.works(&value));
        let clicked =
            answer(world.request(Method::POST, &path).header("sec-fetch-site", "same-origin")).await;
        assert_eq!((clicked.status, clicked.headers["location"].to_str().unwrap()), (303, "/"));
        assert!(!world.sandbox.works(&value));
        assert!(!world.get("/").await.body.as_str().unwrap().contains(&path));
    }

    #[tokio::test]
    async fn nothing_under_sandbox_and_no_page_shows_a_secret() {
        let directory = Directory::new("secrets");
        let world = World::with(with_credentials(&directory.0)).await;
        let user = world.sandbox.add_user(UserOptions { totp: true, ..UserOptions::default() });
        let (id, value) = world.create(&user, "Some-Key").await.made_key();
        world.me(&value).await;
        let wallet: Vec<u8> = serde_json::from_str(user.credentials.wallet_json()).unwrap();
        let mut secrets = vec![
            value,
            user.credentials.token().to_owned(),
            user.credentials.totp().unwrap().to_owned(),
            user.credentials.wallet_json().to_owned(),
            bs58::encode(&wallet).into_string(),
            bs58::encode(&wallet[32..]).into_string(),
        ];
        let mut shown = Vec::new();
        for path in
            ["/", "/sandbox/keys", "/sandbox/requests", "/sandbox/users", "/sandbox/faults", "/sandbox/clock"]
        {
            shown.push(world.get(path).await.body.to_string());
        }
        let by_hand = world.sandbox.make_key(&user.id, "By-Hand").unwrap();
        secrets.push(by_hand.value);
        for (path, order) in [
            ("/sandbox/keys".to_owned(), json!({"name": "Other-Key"})),
            (format!("/sandbox/keys/{id}/revoke"), json!({})),
            ("/sandbox/users".to_owned(), json!({"credentialsDir": "second"})),
        ] {
            shown.push(world.post(&path, order).await.body.to_string());
        }
        let path = format!("/sandbox/users/{}", user.id);
        shown.push(world.send(Method::PATCH, &path, json!({"totp": false})).await.body.to_string());
        for name in ["wallet.json", "token"] {
            secrets.push(std::fs::read_to_string(directory.0.join("second").join(name)).unwrap());
        }
        for text in shown {
            assert!(!text.is_empty() && !text.contains("bags_sandbox_"));
            assert!(secrets.iter().all(|secret| !text.contains(secret)));
        }
    }
}

mod replay {
    use super::*;

    async fn run(seed: u64) -> Vec<String> {
        let sandbox = Sandbox::new(Arc::new(StillClock), Randomness::from_seed(seed));
        let user = sandbox.add_user(UserOptions::default());
        let mut seen = vec![user.credentials.wallet_json().to_owned(), user.credentials.token().to_owned()];
        for n in 0..3 {
            let body = json!({"token": user.credentials.token(), "name": format!("Key-{n}")}).to_string();
            let request = http::Request::post(CREATE).body(Body::from(body)).unwrap();
            let answer = sandbox.service().oneshot(request).await.unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            seen.push(String::from_utf8(body.to_vec()).unwrap());
        }
        seen
    }

    #[tokio::test]
    async fn a_seed_repeats_a_run_to_the_byte_and_another_seed_does_not() {
        let first = run(5).await;
        assert_eq!(first, run(5).await);
        assert!(first.iter().zip(run(6).await).all(|(one, other)| *one != other));
    }

    #[tokio::test]
    async fn a_thousand_keys_of_a_hundred_users_are_all_different_and_all_work() {
        let sandbox = Sandbox::new(Arc::new(StillClock), Randomness::from_seed(1));
        let mut values = BTreeSet::new();
        for _ in 0..100 {
            let user = sandbox.add_user(UserOptions::default());
            for _ in 0..10 {
                values.insert(sandbox.make_key(&user.id, "Some-Key").unwrap().value);
            }
        }
        assert_eq!(values.len(), 1000);
        assert!(values.iter().all(|value| sandbox.works(value)));
        let ids: BTreeSet<_> = sandbox.keys().into_iter().map(|key| key.id).collect();
        assert_eq!(ids.len(), 1000);
    }
}

mod program {
    use super::*;

    #[tokio::test]
    async fn the_program_writes_its_users_says_where_it_listens_and_ends_when_asked() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = Directory::new("program");
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_bags-sandbox"))
            .args(["--listen", "127.0.0.1:0", "--users", "2", "--totp", "--limit", "1", "--no-key-id"])
            .arg("--credentials")
            .arg(&directory.0)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        let base = line.strip_prefix("bags-sandbox listening on ").unwrap();
        for name in ["wallet.json", "token", "totp", "user-2/wallet.json", "user-2/token", "user-2/totp"] {
            let mode = directory.0.join(name).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let token = std::fs::read_to_string(directory.0.join("user-2/token")).unwrap();
        let body = json!({"token": token, "name": "Some-Key"}).to_string();
        let made = answer(client.post(format!("{base}{CREATE}")).body(body.clone())).await;
        made.made_key();
        assert!(made.body["response"]["apiKey"].get("keyId").is_none());
        assert_eq!(answer(client.post(format!("{base}{CREATE}")).body(body)).await.status, 400);

        let id = child.id().unwrap().to_string();
        let killed = tokio::process::Command::new("kill").args(["-TERM", &id]).status().await.unwrap();
        assert!(killed.success());
        let ended = tokio::time::timeout(Duration::from_secs(10), child.wait()).await.unwrap().unwrap();
        assert!(ended.success());
        assert_eq!(lines.next_line().await.unwrap(), None, "one line is all it says");
    }

    #[tokio::test]
    async fn a_taken_address_is_told_with_its_cause() {
        let directory = Directory::new("taken");
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_bags-sandbox"))
            .args(["--listen", &address, "--credentials"])
            .arg(&directory.0)
            .output()
            .await
            .unwrap();
        assert!(!output.status.success());
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.starts_with(&format!("bags-sandbox: failed to listen on {address}: ")), "{told}");
    }
}

/// A directory of one test, gone with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sandbox-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
