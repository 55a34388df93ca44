//! Users: what one is like, and the credentials that are theirs.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use totp_rs::Totp;

use super::limits::Window;
use super::{random, times};
use crate::{clock::Randomness, time::later};

/// How long an agent token is good for.
const TOKEN_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a user is like. Every field can be changed while the sandbox runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UserOptions {
    /// Active keys that the user may have at most.
    pub limit: u32,
    /// Whether the wallet way asks for a one-time password.
    pub totp: bool,
    /// Whether a one-time password is taken once only, and the next one must be waited for.
    pub totp_single_use: bool,
    /// What the agent token can do.
    pub capabilities: Capabilities,
    /// How old the state is that the list shows.
    #[serde(rename = "listLagMs", with = "times::milliseconds")]
    pub list_lag: Duration,
    /// How long a use stays out of the list's `lastUsedAt`.
    #[serde(rename = "lastUseLagMs", with = "times::milliseconds")]
    pub last_use_lag: Duration,
    /// Whether the answer to a creation has the key's id in it.
    pub key_id_in_answer: bool,
    /// Requests an hour, over all keys and credentials of the user.
    pub rate_limit: u32,
    /// Requests an hour to the wallet way's endpoints.
    pub auth_rate_limit: u32,
    /// Whether everything the user asks for is forbidden.
    pub suspended: bool,
}

impl Default for UserOptions {
    fn default() -> Self {
        Self {
            limit: 10,
            totp: false,
            totp_single_use: false,
            capabilities: Capabilities::default(),
            list_lag: Duration::ZERO,
            last_use_lag: Duration::ZERO,
            key_id_in_answer: true,
            rate_limit: 5000,
            auth_rate_limit: 300,
            suspended: false,
        }
    }
}

/// What the agent token can do beside making keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Capabilities {
    /// List the user's keys; without it, the endpoint does not exist.
    pub list: bool,
    /// See the last use of each key in the list; without it, `lastUsedAt` is null.
    pub last_use: bool,
    /// Revoke a key; without it, the endpoint does not exist.
    pub revoke: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { list: true, last_use: true, revoke: true }
    }
}

/// Whether a user is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UserStatus {
    /// Served.
    Active,
    /// Known, and forbidden everything.
    Suspended,
    /// Removed.
    Gone,
}

/// A user as anyone may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserView {
    /// The user's UUID.
    pub id: String,
    /// The name shown on the page.
    pub username: String,
    /// Whether the user is served.
    pub status: UserStatus,
    /// Keys that are active now.
    pub active_keys: u32,
    /// What the user is like.
    pub options: UserOptions,
}

/// A user at the moment of its making. Has no `Debug`.
#[derive(Clone)]
pub struct NewUser {
    /// The user's UUID.
    pub id: String,
    /// What the user identifies itself with.
    pub credentials: Credentials,
}

/// What a user identifies itself with. Has no `Debug`.
#[derive(Clone)]
pub struct Credentials {
    wallet_json: String,
    token: String,
    totp: Option<String>,
}

impl Credentials {
    /// The wallet as Solana's tools write it: a JSON array of 64 numbers, secret key first.
    #[must_use]
    pub fn wallet_json(&self) -> &str {
        &self.wallet_json
    }

    /// The agent token, a JWT.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The secret of the one-time passwords in base32, where the user was made with `totp`.
    #[must_use]
    pub fn totp(&self) -> Option<&str> {
        self.totp.as_deref()
    }
}

/// One user, as the service keeps it.
pub(super) struct User {
    pub(super) id: String,
    pub(super) username: String,
    pub(super) options: UserOptions,
    pub(super) created: Timestamp,
    pub(super) gone: bool,
    /// The wallet's public key.
    pub(super) address: [u8; 32],
    pub(super) token: String,
    pub(super) token_expires: Timestamp,
    pub(super) totp: Totp,
    /// The time step of the last one-time password that was taken.
    pub(super) totp_step: Option<u64>,
    pub(super) window: Window,
    /// Every key ever made for the user, oldest first.
    pub(super) keys: Vec<usize>,
    pub(super) active_keys: u32,
}

impl User {
    /// A new user, with a wallet of its own or the one that signed up.
    pub(super) fn new(
        randomness: &Randomness,
        number: usize,
        options: UserOptions,
        wallet: Wallet,
        now: Timestamp,
    ) -> (Self, Credentials) {
        let id = random::uuid(randomness);
        let (address, wallet_json) = match wallet {
            Wallet::Made => {
                let key = SigningKey::from_bytes(&random::bytes(randomness));
                (key.verifying_key().to_bytes(), json_numbers(&key.to_keypair_bytes()))
            }
            Wallet::Known(address) => (address, String::new()),
        };
        let token_expires = later(now, TOKEN_LIFE);
        let token = token(randomness, &id, now, token_expires);
        let secret = totp_rs::Secret::new_stack(random::bytes(randomness));
        let totp_secret = options.totp.then(|| secret.to_base32());
        let totp = totp_rs::Builder::new()
            .with_secret(secret)
            .build()
            .expect("160 bits are more than a one-time password's secret must have");
        let credentials = Credentials { wallet_json, token: token.clone(), totp: totp_secret };
        let user = Self {
            id,
            username: format!("sandbox-{number}"),
            options,
            created: now,
            gone: false,
            address,
            token,
            token_expires,
            totp,
            totp_step: None,
            window: Window::default(),
            keys: Vec::new(),
            active_keys: 0,
        };
        (user, credentials)
    }

    /// Puts another agent token in the place of the one that there is.
    pub(super) fn renew_token(&mut self, randomness: &Randomness, now: Timestamp) {
        self.token_expires = later(now, TOKEN_LIFE);
        self.token = token(randomness, &self.id, now, self.token_expires);
    }

    pub(super) fn status(&self) -> UserStatus {
        match (self.gone, self.options.suspended) {
            (true, _) => UserStatus::Gone,
            (false, true) => UserStatus::Suspended,
            (false, false) => UserStatus::Active,
        }
    }

    /// Whether a one-time password is valid now and, with `totp_single_use`, of a later step than the last one taken.
    pub(super) fn takes_code(&mut self, code: &str, now: Timestamp) -> bool {
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let Some(step) = self.totp.check(code, seconds) else { return false };
        if self.options.totp_single_use && self.totp_step.is_some_and(|last| step <= last) {
            return false;
        }
        self.totp_step = Some(step);
        true
    }

    pub(super) fn view(&self) -> UserView {
        UserView {
            id: self.id.clone(),
            username: self.username.clone(),
            status: self.status(),
            active_keys: self.active_keys,
            options: self.options.clone(),
        }
    }
}

/// Where a user's wallet comes from.
pub(super) enum Wallet {
    /// The sandbox makes it.
    Made,
    /// It signed up; only its public key is known.
    Known([u8; 32]),
}

/// A token in the form of a JWT whose expiry can be read. Nothing checks its signature: it is looked up whole.
fn token(randomness: &Randomness, user: &str, issued: Timestamp, expires: Timestamp) -> String {
    let header = serde_json::json!({"alg": "HS256", "typ": "JWT"});
    let claims = serde_json::json!({"sub": user, "iat": issued.as_second(), "exp": expires.as_second()});
    let encode = |part: serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}.{}", encode(header), encode(claims), random::opaque(randomness))
}

fn json_numbers(bytes: &[u8]) -> String {
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", numbers.join(","))
}
