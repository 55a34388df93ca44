//! The sandbox from outside: every route and rule over real HTTP, on a clock that the tests move.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "sandbox/bad_requests.rs"]
mod bad_requests;
#[path = "sandbox/capabilities.rs"]
mod capabilities;
#[path = "sandbox/checking_a_key.rs"]
mod checking_a_key;
#[path = "sandbox/control.rs"]
mod control;
#[path = "sandbox/faults.rs"]
mod faults;
#[path = "sandbox/program.rs"]
mod program;
#[path = "sandbox/rate_limits.rs"]
mod rate_limits;
#[path = "sandbox/replay.rs"]
mod replay;
#[path = "sandbox/token_way.rs"]
mod token_way;
#[path = "sandbox/wallet_way.rs"]
mod wallet_way;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bags_operator::clock::{Clock, Randomness, SystemClock};
use bags_operator::sandbox::{Capabilities, NewUser, Sandbox, Settings, UserOptions, serve};
use ed25519_dalek::{Signer, SigningKey};
use jiff::Timestamp;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

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
