//! One method per operation of the service. Each sends at most one request, apart from the second step of the wallet way.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use jiff::Timestamp;
use serde::Serialize;
use tower::ServiceExt;
use zeroize::Zeroizing;

use super::answer::Answer;
use super::budget::{Budget, Priority, Throttled};
use super::error::{Class, Error, Observer, Operation, Outcome, Reason};
use super::token::AgentToken;
use super::totp::TotpSecret;
use super::transport::base_url::BaseUrl;
use super::transport::{BagsService, Body, RESPONSE_LIMIT, TransportError};
use super::types::{Challenge, CreatedKey, KeyList, KeyValue, Probe, Revocation, UserId};
use super::wallet::Wallet;
use super::wire::{self, Text};
use crate::clock::Clock;

const USER_AGENT: &str = concat!("bags-operator/", env!("CARGO_PKG_VERSION"));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Base58 decoding is quadratic, and a challenge is a short text.
const LONGEST_CHALLENGE: usize = 4096;

/// The client of the service. Cheap to clone; a clone shares budgets and connections.
///
/// If the future of a creation is dropped, a key may be lost: the caller must make sure that nothing drops it.
#[derive(Clone)]
pub struct BagsClient {
    service: BagsService,
    base: BaseUrl,
    request_deadline: Duration,
    clock: Arc<dyn Clock>,
    budgets: Option<Budgets>,
    observer: Option<Arc<dyn Observer>>,
    priority: Priority,
}

#[derive(Clone)]
struct Budgets {
    account: Arc<Budget>,
    operator: Arc<Budget>,
}

/// One request before it is sent.
struct Call<'a> {
    operation: Operation,
    method: Method,
    uri: Option<Uri>,
    key: Option<&'a KeyValue>,
    body: Option<Body>,
}

impl BagsClient {
    /// A client without budgets and observer. `request_deadline` bounds each request from its start to the
    /// last byte of its answer; `clock` gives the one-time codes and turns the service's times into local ones.
    #[must_use]
    pub fn new(
        service: BagsService,
        base: BaseUrl,
        request_deadline: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let priority = Priority::Normal;
        Self { service, base, request_deadline, clock, budgets: None, observer: None, priority }
    }

    /// Every request takes from both budgets: the account's, and the operator's, as the service counts per
    /// user and per address.
    #[must_use]
    pub fn with_budgets(self, account: Arc<Budget>, operator: Arc<Budget>) -> Self {
        Self { budgets: Some(Budgets { account, operator }), ..self }
    }

    /// Every request is counted there.
    #[must_use]
    pub fn with_observer(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// The same client for revocations and their probes: it may use what the budgets keep for them.
    #[must_use]
    pub fn urgent(&self) -> Self {
        Self { priority: Priority::Revocation, ..self.clone() }
    }

    /// Asks for something to sign: the first step of the wallet way. Makes nothing and may be repeated.
    ///
    /// # Errors
    /// Any [`Error`]; never one after which a key may exist.
    pub async fn challenge(&self, wallet: &Wallet) -> Result<Challenge, Error> {
        let operation = Operation::Challenge;
        let call = self.post(
            operation,
            "/agent/v2/auth/init",
            &wire::ChallengeRequest { address: wallet.address() },
        );
        self.exchange(call, |answer| {
            let wire::Object(wire::ChallengePayload { message: Text(message), nonce }) =
                answer.payload(&[])?;
            let message = message
                .filter(|message| message.len() <= LONGEST_CHALLENGE)
                .and_then(|message| bs58::decode(message.as_bytes()).into_vec().ok())
                .filter(|message| !message.is_empty());
            match (message, nonce.id()) {
                (Some(message), Some(nonce)) => {
                    Ok(Challenge { message: Zeroizing::new(message), nonce: Zeroizing::new(nonce) })
                }
                _ => Err(answer.unreadable()),
            }
        })
        .await
    }

    /// Makes a key with a signed challenge, and a one-time code where the account asks for one. Only the last
    /// request makes the key; none is sent twice. `may_send` is called before a one-time code is sent, with the time that the
    /// code is for: if it says no, nothing more is sent, and no key was made.
    ///
    /// # Errors
    /// [`Class::Unknown`] means that a key may exist, every other class that none was made.
    pub async fn create_with_wallet(
        &self,
        wallet: &Wallet,
        challenge: Challenge,
        totp: Option<&TotpSecret>,
        name: &str,
        may_send: impl FnOnce(Timestamp) -> bool + Send,
    ) -> Result<CreatedKey, Error> {
        let operation = Operation::CreateWithWallet;
        if challenge.could_be_a_transaction_of(wallet) {
            return Err(Error::new(operation, Class::Refused, Reason::UnsafeChallenge));
        }
        let signature = wallet.sign(&challenge.message);
        let request = wire::SignatureRequest {
            signature: &signature,
            address: wallet.address(),
            nonce: &challenge.nonce,
            key_name: name,
        };
        let step = self
            .exchange(self.post(operation, "/agent/v2/auth/callback", &request), |answer| {
                wallet_step(answer, &[&signature, &challenge.nonce])
            })
            .await?;
        let auth_code = match step {
            WalletStep::Created(key) => return Ok(key),
            WalletStep::CodeWanted { auth_code } => auth_code,
        };
        let totp = totp.ok_or_else(|| Error::new(operation, Class::Refused, Reason::MfaRequired))?;
        let at = self.clock.wall();
        if !may_send(at) {
            return Err(Error::new(operation, Class::NotDone, Reason::OutOfTime));
        }
        let mfa_code = totp.code(at);
        let request = wire::CodeRequest { auth_code: &auth_code, mfa_code: &mfa_code, key_name: name };
        self.exchange(self.post(operation, "/agent/v2/auth/callback", &request), |answer| {
            match wallet_step(answer, &[&auth_code, &mfa_code, &signature, &challenge.nonce])? {
                WalletStep::Created(key) => Ok(key),
                // Asked for a code again: the one sent was not accepted, and nothing was made.
                WalletStep::CodeWanted { .. } => Err(answer.error(Class::Refused, Reason::InvalidMfa)),
            }
        })
        .await
    }

    /// Makes a key with an agent token.
    ///
    /// # Errors
    /// [`Class::Unknown`] means that a key may exist, every other class that none was made.
    pub async fn create_with_token(&self, token: &AgentToken, name: &str) -> Result<CreatedKey, Error> {
        let operation = Operation::CreateWithToken;
        let request = wire::CreateRequest { token: token.expose(), name };
        self.exchange(self.post(operation, "/agent/dev/keys/create", &request), |answer| {
            let wire::Object(wire::TokenPayload { api_key: wire::Object(api_key) }) =
                answer.payload(&[token.expose()])?;
            let wire::Value::Usable(value) = api_key.key else { return Err(answer.unreadable()) };
            Ok(CreatedKey { key_id: id_beside(&value, &api_key.key_id), signed_up: false, value })
        })
        .await
    }

    /// The account's keys, without their values.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn list(&self, token: &AgentToken) -> Result<KeyList, Error> {
        let request = wire::ListRequest { token: token.expose() };
        self.exchange(self.post(Operation::List, "/agent/dev/keys", &request), |answer| {
            let wire::ListPayload(keys) = answer.payload(&[token.expose()])?;
            Ok(KeyList { keys, server_time: answer.server_time() })
        })
        .await
    }

    /// Whether the key works, and whose it is. Counts as a use of the key.
    ///
    /// # Errors
    /// Any [`Error`]: then nothing is known of the key.
    pub async fn me(&self, value: &KeyValue) -> Result<Probe, Error> {
        let operation = Operation::Me;
        let uri = self.base.join("/auth/me");
        let call =
            Call { operation, method: Method::GET, uri, key: Some(value), body: Some(Body::default()) };
        self.exchange(call, |answer| match answer.status() {
            StatusCode::UNAUTHORIZED if answer.is_refusal() => Ok(Probe::Dead),
            StatusCode::FORBIDDEN if answer.is_refusal() => Ok(Probe::Forbidden),
            StatusCode::NOT_FOUND if answer.is_refusal() => Ok(Probe::UserGone),
            _ => {
                let wire::Object(wire::MePayload { user: wire::Object(user) }) =
                    answer.payload(&[value.expose()])?;
                let user = user_beside(value, &user.uuid).ok_or_else(|| answer.unreadable())?;
                Ok(Probe::Alive { user })
            }
        })
        .await
    }

    /// Asks for a key's revocation at the account's endpoint. May be repeated; only the key's own 401 proves
    /// that it worked.
    ///
    /// # Errors
    /// Any [`Error`]; a path that is not a plain one gives [`Reason::InvalidPath`], and nothing is sent.
    pub async fn revoke(&self, token: &AgentToken, path: &str, key_id: &str) -> Result<Revocation, Error> {
        let operation = Operation::Revoke;
        if self.base.join(path).is_none() {
            return Err(Error::new(operation, Class::Refused, Reason::InvalidPath));
        }
        let request = wire::RevokeRequest { token: token.expose(), key_id };
        self.exchange(self.post(operation, path, &request), |answer| match answer.status() {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(Revocation::NoEndpoint),
            StatusCode::NO_CONTENT => Ok(Revocation::Acknowledged),
            status if status.is_success() && wire::succeeded(answer.bytes()) => Ok(Revocation::Acknowledged),
            status if status.is_success() => Err(answer.unreadable()),
            _ => Err(answer.failure(&[token.expose()])),
        })
        .await
    }

    /// Whether the service is there at all.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn ping(&self) -> Result<(), Error> {
        let operation = Operation::Ping;
        let uri = self.base.ping();
        let call = Call { operation, method: Method::GET, uri, key: None, body: Some(Body::default()) };
        self.exchange(call, |answer| {
            let wire::Object(wire::PingPayload { message }) = answer.payload(&[])?;
            let pong = message.0.is_some_and(|message| message.as_str() == "pong");
            if pong { Ok(()) } else { Err(answer.unreadable()) }
        })
        .await
    }

    fn post(&self, operation: Operation, path: &str, request: &impl Serialize) -> Call<'static> {
        let uri = self.base.join(path);
        Call { operation, method: Method::POST, uri, key: None, body: wire::encode(request) }
    }

    /// Takes from the budgets, sends once, notes what the answer says of rate limits, and tells the observer.
    async fn exchange<T>(
        &self,
        call: Call<'_>,
        read: impl FnOnce(&Answer) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let operation = call.operation;
        let mut sent = None;
        let result = async {
            let request = call.into_request()?;
            self.take(operation)?;
            sent = Some(self.clock.monotonic());
            read(&self.send(operation, request).await?)
        }
        .await;
        if let Some(observer) = &self.observer {
            let outcome = result.as_ref().err().map_or(Outcome::Done, |error| Outcome::Failed(error.reason));
            let took = sent.map(|sent| self.clock.monotonic().saturating_duration_since(sent));
            observer.request(operation, outcome, took);
        }
        result
    }

    fn take(&self, operation: Operation) -> Result<(), Error> {
        let Some(Budgets { account, operator }) = &self.budgets else { return Ok(()) };
        let throttled = |Throttled { until, by_service }| {
            let reason = if by_service { Reason::RateLimited } else { Reason::BudgetSpent };
            Error::new(operation, Class::RateLimited { until }, reason)
        };
        account.try_take(self.priority).map_err(throttled)?;
        operator.try_take(self.priority).map_err(|refusal| {
            account.give_back();
            throttled(refusal)
        })
    }

    async fn send(&self, operation: Operation, request: Request<Body>) -> Result<Answer, Error> {
        let answered =
            tokio::time::timeout(self.request_deadline, self.service.clone().oneshot(request)).await;
        let response = answered.unwrap_or(Err(TransportError::Timeout)).and_then(|response| {
            let fits = response.body().len() <= RESPONSE_LIMIT;
            if fits { Ok(response) } else { Err(TransportError::TooLarge) }
        });
        let response = response.map_err(|error| unanswered(operation, error))?;
        let answer = Answer::new(operation, response, self.clock.wall());
        self.note(&answer);
        Ok(answer)
    }

    fn note(&self, answer: &Answer) {
        let Some(Budgets { account, operator }) = &self.budgets else { return };
        if let Some(until) = answer.rate_limited_until() {
            account.limited_until(until, operator);
        }
    }
}

impl Call<'_> {
    fn into_request(self) -> Result<Request<Body>, Error> {
        let Self { operation, method, uri, key, body } = self;
        let refused = |reason| Error::new(operation, Class::Refused, reason);
        let uri = uri.ok_or_else(|| refused(Reason::InvalidPath))?;
        let body = body.ok_or_else(|| refused(Reason::TooLarge))?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::ACCEPT, JSON);
        if let Some(key) = key {
            // A value is visible ASCII, which every header may hold.
            let mut key = HeaderValue::from_str(key.expose()).map_err(|_| refused(Reason::OtherRefusal))?;
            key.set_sensitive(true);
            headers.insert("x-api-key", key);
        } else {
            headers.insert(header::CONTENT_TYPE, JSON);
        }
        Ok(request)
    }
}

/// What the wallet way's answers can say.
enum WalletStep {
    Created(CreatedKey),
    CodeWanted { auth_code: Zeroizing<String> },
}

fn wallet_step(answer: &Answer, secrets: &[&str]) -> Result<WalletStep, Error> {
    let wire::Object(payload): wire::Object<wire::WalletPayload> = answer.payload(secrets)?;
    match payload.api_key {
        wire::Value::Usable(value) => {
            let key_id = id_beside(&value, &payload.key_id);
            let signed_up = payload.is_signup.0;
            return Ok(WalletStep::Created(CreatedKey { value, key_id, signed_up }));
        }
        // Whatever else the answer says, a key seems to have been made.
        wire::Value::Unusable => return Err(answer.unreadable()),
        wire::Value::Absent if !payload.mfa_required.0 => return Err(answer.unreadable()),
        wire::Value::Absent => {}
    }
    // From here on the service has said that it made nothing yet.
    if payload.mfa_method.0.is_some_and(|method| !method.eq_ignore_ascii_case("totp")) {
        return Err(answer.error(Class::Refused, Reason::MfaUnsupported));
    }
    let auth_code = payload.auth_code.0.ok_or_else(|| answer.error(Class::Refused, Reason::Unreadable))?;
    Ok(WalletStep::CodeWanted { auth_code })
}

/// The key's id, unless it gives the value away: ids are written where many people can read them.
fn id_beside(value: &KeyValue, id: &Text) -> Option<String> {
    id.id().filter(|id| !value.is_told_by(id))
}

/// The key's user, with the same care.
fn user_beside(value: &KeyValue, id: &Text) -> Option<UserId> {
    id.user().filter(|user| !user.as_str().contains(value.expose()))
}

fn unanswered(operation: Operation, error: TransportError) -> Error {
    use super::transport::Stage;
    let (class, reason) = match error {
        TransportError::NotSent(Stage::Dns) => (Class::NotDone, Reason::Dns),
        TransportError::NotSent(Stage::Connect) => (Class::NotDone, Reason::Connect),
        TransportError::NotSent(Stage::Tls) => (Class::NotDone, Reason::Tls),
        TransportError::Timeout => (Class::Unknown, Reason::Timeout),
        TransportError::Broken => (Class::Unknown, Reason::Broken),
        TransportError::TooLarge => (Class::Unknown, Reason::TooLarge),
    };
    Error::new(operation, class, reason)
}
