//! The Bags service as far as anything public describes it, over HTTP, with its state in memory.
//!
//! It stands in for the real service, which development and tests cannot reach: for the demo, for the tests of the
//! operator (in-process, without sockets, on a clock and a randomness of their own, so that a run replays), and
//! for anyone who wants to try things on. Both ways of making keys, one-time passwords, the list and its lag, last
//! use and its lag, rate limits and revocation behave as documented; where nothing is documented, an option says
//! which of the possible services this is. What has no counterpart at Bags lives under `/sandbox/`: every key and
//! request, faults, users, the clock. No answer there carries a key's value, a wallet, a token or a secret.
//!
//! The rooms: `users` and `keys` are the data, `state` is what happens to them (no I/O, no HTTP), `faults`,
//! `journal` and `limits` are its parts, `http` is the service's outside, `server` the listener whose connections
//! can be cut. Nothing here may use the operator's own client of the service, which is tested against it.

mod credentials;
mod faults;
mod http;
mod journal;
mod keys;
mod limits;
mod random;
mod server;
mod state;
mod times;
mod users;

use std::convert::Infallible;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tower::{Service, ServiceExt};

use crate::clock::{Clock, Randomness};

pub use credentials::CredentialsError;
pub use faults::{Action, FaultError, FaultRule, FaultView, When};
pub use http::CutConnection;
pub use journal::{RequestPage, RequestView};
pub use keys::{KeyState, KeyView, MadeKey};
pub use limits::RateStatus;
pub use server::serve;
pub use state::{NoSuch, Refused};
pub use users::{Capabilities, Credentials, NewUser, UserOptions, UserStatus, UserView};

use state::State;

/// What one sandbox as a whole is like, beside its users.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where credentials of users made over HTTP are written; `None` means that none can be made that way.
    pub credentials: Option<PathBuf>,
    /// Requests an hour of one IP address, over all users; `None` counts per user only. A request that arrives
    /// without a socket has no address.
    pub ip_rate_limit: Option<u32>,
    /// The revoke endpoint's path below `/api/v1`.
    pub revoke_path: String,
    /// What a user is like who signs up with an unknown wallet, or is made over HTTP without options.
    pub user: UserOptions,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            credentials: None,
            ip_rate_limit: None,
            revoke_path: "/agent/dev/keys/revoke".to_owned(),
            user: UserOptions::default(),
        }
    }
}

/// One sandbox: a cheap handle, whose clones share one state.
#[derive(Clone)]
pub struct Sandbox(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    settings: Settings,
    /// Held for the length of a look-up or a change in memory, never across an await.
    state: Mutex<State>,
}

impl Sandbox {
    /// An empty sandbox with default settings.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, randomness: Randomness) -> Self {
        Self::with_settings(clock, randomness, Settings::default())
    }

    /// An empty sandbox.
    #[must_use]
    pub fn with_settings(clock: Arc<dyn Clock>, randomness: Randomness, settings: Settings) -> Self {
        let state = State::new(randomness, &settings, http::routes(&settings));
        Self(Arc::new(Inner { clock, settings, state: Mutex::new(state) }))
    }

    /// The whole service: the public API, `/sandbox/…` and the page.
    ///
    /// A connection that a fault cuts is an answer with the extension [`CutConnection`]: [`serve`] breaks the
    /// connection then, and [`Sandbox::service`] makes an error of it.
    ///
    /// # Panics
    /// When the settings' revoke path is no path, or that of another endpoint.
    pub fn router(&self) -> Router {
        http::router(self)
    }

    /// The service for callers in this process, without sockets.
    #[must_use]
    pub fn service(&self) -> InProcess {
        InProcess(self.router())
    }

    /// The sandbox's time: the injected wall clock and what [`Sandbox::advance`] added to it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.with(|_, now| now)
    }

    /// Moves the sandbox's time forward.
    pub fn advance(&self, by: Duration) {
        self.with(|state, _| state.advance(by));
    }

    /// Makes a user with a wallet, an agent token and a TOTP secret of their own.
    pub fn add_user(&self, options: UserOptions) -> NewUser {
        self.with(|state, now| state.add_user(options, now))
    }

    /// Every user, in the order of their making.
    #[must_use]
    pub fn users(&self) -> Vec<UserView> {
        self.with(|state, _| state.users())
    }

    /// Changes what a user is like, from the next request on.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn change_user(&self, id: &str, change: impl FnOnce(&mut UserOptions)) -> Result<UserView, NoSuch> {
        self.with(|state, _| state.change_user(id, change))
    }

    /// Makes a new agent token for a user, as a person would at Bags; the old one is invalid from now on. Returns the new one.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn renew_token(&self, id: &str) -> Result<String, NoSuch> {
        self.with(|state, now| state.renew_token(id, now))
    }

    /// Removes the account of a user: its token and wallet are unknown from now on, its keys answer 404.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn remove_user(&self, id: &str) -> Result<UserView, NoSuch> {
        self.with(|state, _| state.remove_user(id))
    }

    /// Every key ever made, oldest first.
    #[must_use]
    pub fn keys(&self) -> Vec<KeyView> {
        self.with(|state, _| state.keys())
    }

    /// Whether a request with this value would be let in now. Looking does not count as a use.
    #[must_use]
    pub fn works(&self, value: &str) -> bool {
        self.with(|state, _| state.works(value))
    }

    /// A person makes a key on the page.
    ///
    /// # Errors
    /// When there is no such user, the name is too long or empty, or the limit is reached.
    pub fn make_key(&self, user: &str, name: &str) -> Result<MadeKey, Refused> {
        self.with(|state, now| state.make_key_by_hand(user, name, now))
    }

    /// A person revokes a key on the page; one that is revoked already stays as it is.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn revoke_key(&self, id: &str) -> Result<KeyView, NoSuch> {
        self.with(|state, now| state.revoke_by_hand(id, now))
    }

    /// The requests numbered above `after` (the first one is 1), oldest first, at most `limit` of them. The last
    /// 100,000 are kept.
    #[must_use]
    pub fn requests(&self, after: u64, limit: usize) -> RequestPage {
        self.with(|state, _| state.requests(after, limit))
    }

    /// Adds a fault after those that are there, and returns its number.
    ///
    /// # Errors
    /// When it names a route that does not exist, or an answer that cannot be sent.
    pub fn add_fault(&self, rule: FaultRule) -> Result<u64, FaultError> {
        self.with(|state, _| state.faults_mut().add(rule))
    }

    /// Every fault, also those that are used up.
    #[must_use]
    pub fn faults(&self) -> Vec<FaultView> {
        self.with(|state, _| state.faults_mut().views())
    }

    /// Takes all faults away.
    pub fn clear_faults(&self) {
        self.with(|state, _| state.faults_mut().clear());
    }

    fn settings(&self) -> &Settings {
        &self.0.settings
    }

    fn with<T>(&self, body: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = state.time(self.0.clock.wall());
        body(&mut state, now)
    }
}

/// Who sent a request and what became known about it on the way. It travels with the answer, for the journal and the headers.
#[derive(Debug, Clone, Copy, Default)]
struct Call {
    ip: Option<IpAddr>,
    user: Option<usize>,
    key: Option<usize>,
    rate: Option<RateStatus>,
}

/// The sandbox as a `tower` service: a cut connection is an error, as it is for a client on a socket.
#[derive(Clone)]
pub struct InProcess(Router);

impl Service<::http::Request<Body>> for InProcess {
    type Response = ::http::Response<Body>;
    type Error = CutConnection;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(())) // a router is always ready, and a fresh clone serves each request
    }

    fn call(&mut self, request: ::http::Request<Body>) -> Self::Future {
        let router = self.0.clone();
        Box::pin(async move {
            let answer: Result<_, Infallible> = router.oneshot(request).await;
            let Ok(answer) = answer;
            match answer.extensions().get::<CutConnection>() {
                Some(cut) => Err(*cut),
                None => Ok(answer),
            }
        })
    }
}
