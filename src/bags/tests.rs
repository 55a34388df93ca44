//! The client against a service that answers what a test says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::clock::Clock;

mod answers;
mod arbitrary;
mod creation;
mod network;
mod secrets;

/// A clock that moves when a test says so.
pub(super) struct TestClock {
    start: Instant,
    wall: Timestamp,
    offsets: Mutex<(Duration, Duration)>,
}

impl TestClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "an instant cannot be made from a number; only differences count"
    )]
    pub(super) fn new() -> Self {
        let wall = "2026-11-23T12:00:00Z".parse().unwrap();
        Self { start: Instant::now(), wall, offsets: Mutex::default() }
    }

    /// Both clocks go on.
    pub(super) fn advance(&self, by: Duration) {
        let mut offsets = self.offsets.lock().unwrap();
        *offsets = (offsets.0 + by, offsets.1 + by);
    }

    /// The wall clock alone is set forward.
    pub(super) fn jump(&self, by: Duration) {
        self.offsets.lock().unwrap().0 += by;
    }
}

impl Clock for TestClock {
    fn wall(&self) -> Timestamp {
        self.wall + self.offsets.lock().unwrap().0
    }

    fn monotonic(&self) -> Instant {
        self.start + self.offsets.lock().unwrap().1
    }
}

/// What the scripted service does with one request.
pub(super) enum Act {
    Answer(Response<Body>),
    Fail(TransportError),
    Hang,
}

/// A request as the service got it.
pub(super) struct Seen {
    line: String,
    headers: HeaderMap,
    body: Value,
}

/// A service that acts as scripted, request by request, and keeps what it saw.
#[derive(Clone, Default)]
pub(super) struct Script {
    acts: Arc<Mutex<VecDeque<Act>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Script {
    pub(super) fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        Self { acts: Arc::new(Mutex::new(acts.into_iter().collect())), seen: Arc::default() }
    }

    fn service(&self) -> BagsService {
        let script = self.clone();
        BagsService::new(tower::service_fn(move |request| script.clone().act(request)))
    }

    async fn act(self, request: Request<Body>) -> Result<Response<Body>, TransportError> {
        let line = format!("{} {}", request.method(), request.uri());
        let body = serde_json::from_slice(request.body().as_bytes()).unwrap_or_default();
        self.seen.lock().unwrap().push(Seen { line, headers: request.headers().clone(), body });
        let act = self.acts.lock().unwrap().pop_front().expect("a request that the script does not know");
        match act {
            Act::Answer(response) => Ok(response),
            Act::Fail(error) => Err(error),
            Act::Hang => std::future::pending().await,
        }
    }

    pub(super) fn client(&self) -> BagsClient {
        self.client_with(Arc::new(TestClock::new()))
    }

    pub(super) fn client_with(&self, clock: Arc<TestClock>) -> BagsClient {
        let base = BaseUrl::parse("https://bags.example/api/v1", false).unwrap();
        BagsClient::new(self.service(), base, Duration::from_secs(10), clock)
    }

    /// Method and address of each request.
    pub(super) fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|seen| seen.line.clone()).collect()
    }

    /// The JSON of each request.
    pub(super) fn bodies(&self) -> Vec<Value> {
        self.seen.lock().unwrap().iter().map(|seen| seen.body.clone()).collect()
    }
}

/// An answer in JSON.
pub(super) fn json_answer(status: u16, body: &Value) -> Act {
    typed_answer(status, "application/json; charset=utf-8", &body.to_string())
}

/// An answer of any kind.
pub(super) fn typed_answer(status: u16, content_type: &str, body: &str) -> Act {
    let response = Response::builder().status(status).header("content-type", content_type);
    Act::Answer(response.body(Body::from(body.as_bytes().to_vec())).unwrap())
}

/// A success in the service's envelope.
pub(super) fn success(response: &Value) -> Act {
    json_answer(200, &json!({"success": true, "response": response}))
}

pub(super) fn wallet() -> Wallet {
    Wallet::parse(bs58::encode(super::wallet::tests::pair()).into_string().as_bytes()).unwrap()
}

pub(super) fn token() -> AgentToken {
    AgentToken::parse(b"token-for-tests").unwrap()
}

pub(super) fn key_value() -> KeyValue {
    KeyValue::parse(b"value-one-for-tests").unwrap()
}

/// The secret of RFC 6238's test vectors.
pub(super) fn totp() -> TotpSecret {
    TotpSecret::parse(b"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").unwrap()
}

pub(super) fn challenge() -> Challenge {
    Challenge { message: b"sign me".to_vec().into(), nonce: "nonce-for-tests".to_owned().into() }
}

/// Does the operation once, with the wallet way's code at hand; tells nothing of a success.
pub(super) async fn perform(client: &BagsClient, operation: Operation) -> Result<(), Error> {
    match operation {
        Operation::Challenge => client.challenge(&wallet()).await.map(drop),
        Operation::CreateWithWallet => client
            .create_with_wallet(&wallet(), challenge(), Some(&totp()), "Web-Shop-x-y", |_| true)
            .await
            .map(drop),
        Operation::CreateWithToken => client.create_with_token(&token(), "Web-Shop-x-y").await.map(drop),
        Operation::List => client.list(&token()).await.map(drop),
        Operation::Me => client.me(&key_value()).await.map(drop),
        Operation::Revoke => client.revoke(&token(), "/agent/dev/keys/revoke", "key-1").await.map(drop),
        Operation::Ping => client.ping().await,
    }
}
