//! What the service knows, and what happens to it. No HTTP and no I/O: every method is a look-up or a change in
//! memory, short enough to run under one lock, and takes the time from its caller.

mod token_way;
mod wallet_way;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;

use super::faults::{Action, Faults};
use super::journal::{Journal, RequestPage};
use super::keys::{Key, KeyState, KeyView, MadeKey, VALUE_PREFIX};
use super::limits::{RateStatus, Window};
use super::users::{NewUser, User, UserOptions, UserStatus, UserView, Wallet};
use super::{Call, Settings, random};
use crate::{clock::Randomness, time::later};

pub(super) use token_way::{KeyRecord, Profile};
pub(super) use wallet_way::{Challenge, Signed};

/// Above this many rate-limit windows, idle ones are forgotten.
const MANY_WINDOWS: usize = 10_000;

/// Why the service refuses a request; the text is the service's own where it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The agent token is unknown, expired, or its user is gone.
    #[error("Invalid token")]
    InvalidToken,
    /// The key is missing, unknown or revoked.
    #[error("Invalid API key. Please check your x-api-key header.")]
    InvalidKey,
    /// The user is suspended.
    #[error("API key does not have permission to access this resource")]
    Forbidden,
    /// The user is gone.
    #[error("User not found")]
    UserGone,
    /// The user has as many active keys as are allowed.
    #[error("You have reached the maximum number of API keys")]
    LimitReached,
    /// A key's name is empty or too long.
    #[error("Key name must be between 1 and 255 characters")]
    Name,
    /// A wallet's address is not the base58 of an Ed25519 public key.
    #[error("Invalid address")]
    Address,
    /// The challenge is unknown, was answered before, has expired, or is another wallet's.
    #[error("Nonce not found or expired")]
    Nonce,
    /// The challenge was not signed by the wallet.
    #[error("Invalid signature")]
    Signature,
    /// The second step's code is unknown, was used before or has expired, or the one-time password is wrong.
    #[error("Invalid or expired auth code")]
    AuthCode,
    /// There is no such key among the user's.
    #[error("API key not found")]
    NoKey,
    /// There is no such endpoint, or not for this user.
    #[error("Not found")]
    NotFound,
    /// The endpoint does not take this method.
    #[error("Method not allowed")]
    Method,
    /// The body is not the JSON that the endpoint takes.
    #[error("Invalid request body")]
    Body,
    /// The body is longer than any request needs.
    #[error("Request body too large")]
    TooLarge,
    /// The budget of the hour is used up.
    #[error("Rate limit exceeded")]
    RateLimited(RateStatus),
    /// The wallet way's own, tighter budget is used up.
    #[error("Too many agent auth requests. Please try again later.")]
    TooManyAuth,
}

impl Refused {
    /// The status code that the service answers with.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidKey => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::UserGone | Self::NoKey | Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimited(_) | Self::TooManyAuth => StatusCode::TOO_MANY_REQUESTS,
            Self::InvalidToken
            | Self::LimitReached
            | Self::Name
            | Self::Address
            | Self::Nonce
            | Self::Signature
            | Self::AuthCode
            | Self::Body => StatusCode::BAD_REQUEST,
        }
    }
}

/// Nothing in the sandbox has this id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSuch {
    /// No user has it.
    #[error("no such user")]
    User,
    /// No key has it.
    #[error("no such key")]
    Key,
}

/// Everything that the service knows. Users and keys are never forgotten, so their indices stay valid.
pub(super) struct State {
    randomness: Randomness,
    /// What a user who signs up is like.
    sign_up: UserOptions,
    ip_rate_limit: Option<u32>,
    advanced: Duration,
    users: Vec<User>,
    user_by_id: HashMap<String, usize>,
    user_by_token: HashMap<String, usize>,
    user_by_address: HashMap<[u8; 32], usize>,
    keys: Vec<Key>,
    key_by_id: HashMap<String, usize>,
    key_by_value: HashMap<String, usize>,
    challenges: HashMap<String, Challenge>,
    auth_codes: HashMap<String, wallet_way::SecondStep>,
    auth_windows: HashMap<[u8; 32], Window>,
    ip_windows: HashMap<IpAddr, Window>,
    directories: HashSet<PathBuf>,
    faults: Faults,
    journal: Journal,
}

impl State {
    pub(super) fn new(randomness: Randomness, settings: &Settings, routes: Vec<Arc<str>>) -> Self {
        Self {
            randomness,
            sign_up: settings.user.clone(),
            ip_rate_limit: settings.ip_rate_limit,
            advanced: Duration::ZERO,
            users: Vec::new(),
            user_by_id: HashMap::new(),
            user_by_token: HashMap::new(),
            user_by_address: HashMap::new(),
            keys: Vec::new(),
            key_by_id: HashMap::new(),
            key_by_value: HashMap::new(),
            challenges: HashMap::new(),
            auth_codes: HashMap::new(),
            auth_windows: HashMap::new(),
            ip_windows: HashMap::new(),
            directories: HashSet::new(),
            faults: Faults::new(routes),
            journal: Journal::default(),
        }
    }

    /// The sandbox's time when the wall clock says `wall`.
    pub(super) fn time(&self, wall: Timestamp) -> Timestamp {
        later(wall, self.advanced)
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.advanced = self.advanced.saturating_add(by);
    }

    /// How far the sandbox's time is ahead of the wall clock.
    pub(super) fn advanced(&self) -> Duration {
        self.advanced
    }

    pub(super) fn faults_mut(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// A request has come in: its number in the journal, and the fault that it meets.
    pub(super) fn begin(
        &mut self,
        method: &Method,
        route: Option<&str>,
        now: Timestamp,
    ) -> (u64, Option<Action>) {
        let (fault, action) = self.faults.meet(method, route).unzip();
        (self.journal.open(now, method.clone(), self.faults.known_route(route), fault), action)
    }

    /// A request was answered; `None` where the connection was cut instead. Returns what the answer's headers say.
    pub(super) fn finish(
        &mut self,
        number: u64,
        status: Option<StatusCode>,
        call: Call,
        now: Timestamp,
    ) -> RateStatus {
        self.journal.close(number, status, call.user, call.key);
        call.rate.unwrap_or_else(|| {
            RateStatus::untouched(self.ip_rate_limit.unwrap_or(self.sign_up.rate_limit), now)
        })
    }

    pub(super) fn requests(&self, after: u64, limit: usize) -> RequestPage {
        self.journal.page(after, limit, |user| &self.users[user].id, |key| &self.keys[key].id)
    }

    pub(super) fn add_user(&mut self, options: UserOptions, now: Timestamp) -> NewUser {
        let (user, credentials) =
            User::new(&self.randomness, self.users.len() + 1, options, Wallet::Made, now);
        let id = user.id.clone();
        self.enlist(user);
        NewUser { id, credentials }
    }

    /// Takes a directory for a user's credentials; false: it is taken by another user of this sandbox.
    pub(super) fn claim_directory(&mut self, directory: &Path) -> bool {
        self.directories.insert(directory.to_owned())
    }

    fn enlist(&mut self, user: User) -> usize {
        let index = self.users.len();
        self.user_by_id.insert(user.id.clone(), index);
        self.user_by_token.insert(user.token.clone(), index);
        self.user_by_address.insert(user.address, index);
        self.users.push(user);
        index
    }

    pub(super) fn users(&self) -> Vec<UserView> {
        self.users.iter().map(User::view).collect()
    }

    pub(super) fn user(&self, id: &str) -> Result<UserView, NoSuch> {
        let user = *self.user_by_id.get(id).ok_or(NoSuch::User)?;
        Ok(self.users[user].view())
    }

    /// The user who was made first.
    pub(super) fn first_user(&self) -> Result<UserView, NoSuch> {
        self.users.first().map(User::view).ok_or(NoSuch::User)
    }

    pub(super) fn change_user(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut UserOptions),
    ) -> Result<UserView, NoSuch> {
        let user = *self.user_by_id.get(id).ok_or(NoSuch::User)?;
        change(&mut self.users[user].options);
        Ok(self.users[user].view())
    }

    pub(super) fn renew_token(&mut self, id: &str, now: Timestamp) -> Result<String, NoSuch> {
        let index = *self.user_by_id.get(id).ok_or(NoSuch::User)?;
        let user = &mut self.users[index];
        if user.gone {
            return Err(NoSuch::User);
        }
        self.user_by_token.remove(&user.token);
        user.renew_token(&self.randomness, now);
        self.user_by_token.insert(user.token.clone(), index);
        Ok(user.token.clone())
    }

    pub(super) fn remove_user(&mut self, id: &str) -> Result<UserView, NoSuch> {
        let user = *self.user_by_id.get(id).ok_or(NoSuch::User)?;
        let gone = &mut self.users[user];
        gone.gone = true;
        self.user_by_token.remove(&gone.token);
        if self.user_by_address.get(&gone.address) == Some(&user) {
            self.user_by_address.remove(&gone.address);
        }
        Ok(gone.view())
    }

    pub(super) fn keys(&self) -> Vec<KeyView> {
        self.keys.iter().map(|key| self.view(key)).collect()
    }

    fn view(&self, key: &Key) -> KeyView {
        KeyView {
            id: key.id.clone(),
            name: key.name.clone(),
            user: self.users[key.user].id.clone(),
            state: if key.revoked.is_some() { KeyState::Revoked } else { KeyState::Active },
            created_at: key.created,
            revoked_at: key.revoked,
            last_used_at: key.uses.latest(),
        }
    }

    pub(super) fn works(&self, value: &str) -> bool {
        self.key_by_value.get(value).is_some_and(|key| {
            let key = &self.keys[*key];
            key.revoked.is_none() && self.users[key.user].status() == UserStatus::Active
        })
    }

    pub(super) fn make_key_by_hand(
        &mut self,
        user: &str,
        name: &str,
        now: Timestamp,
    ) -> Result<MadeKey, Refused> {
        let user = *self.user_by_id.get(user).ok_or(Refused::UserGone)?;
        if self.users[user].gone {
            return Err(Refused::UserGone);
        }
        check_name(name)?;
        let key = self.make_key(user, name, now)?;
        let key = &self.keys[key];
        Ok(MadeKey { id: key.id.clone(), value: key.value.clone() })
    }

    pub(super) fn revoke_by_hand(&mut self, id: &str, now: Timestamp) -> Result<KeyView, NoSuch> {
        let key = *self.key_by_id.get(id).ok_or(NoSuch::Key)?;
        self.revoke(key, now);
        Ok(self.view(&self.keys[key]))
    }

    pub(super) fn key(&self, id: &str) -> Result<KeyView, NoSuch> {
        let key = *self.key_by_id.get(id).ok_or(NoSuch::Key)?;
        Ok(self.view(&self.keys[key]))
    }

    /// Makes a key, if the user may have one more.
    fn make_key(&mut self, user: usize, name: &str, now: Timestamp) -> Result<usize, Refused> {
        let owner = &mut self.users[user];
        if owner.active_keys >= owner.options.limit {
            return Err(Refused::LimitReached);
        }
        let key = Key {
            id: random::uuid(&self.randomness),
            name: name.to_owned(),
            user,
            value: format!("{VALUE_PREFIX}{}", random::opaque(&self.randomness)),
            created: now,
            revoked: None,
            uses: super::keys::Uses::default(),
        };
        let index = self.keys.len();
        owner.keys.push(index);
        owner.active_keys += 1;
        self.key_by_id.insert(key.id.clone(), index);
        self.key_by_value.insert(key.value.clone(), index);
        self.keys.push(key);
        Ok(index)
    }

    /// Revokes a key at once; a revoked one stays as it is.
    fn revoke(&mut self, key: usize, now: Timestamp) {
        let key = &mut self.keys[key];
        if key.revoked.is_none() {
            key.revoked = Some(now);
            self.users[key.user].active_keys -= 1;
        }
    }

    /// Takes one request out of the budgets of its user and its address, whichever are known.
    fn charge(&mut self, call: &mut Call, user: Option<usize>, now: Timestamp) -> Result<(), Refused> {
        call.user = call.user.or(user);
        let of_user = user.map(|user| {
            let user = &mut self.users[user];
            (user.options.rate_limit, &mut user.window)
        });
        let of_ip = call.ip.zip(self.ip_rate_limit).map(|(ip, limit)| {
            forget_idle(&mut self.ip_windows, now);
            (limit, self.ip_windows.entry(ip).or_default())
        });
        let mut windows: Vec<(u32, &mut Window)> = of_user.into_iter().chain(of_ip).collect();
        let rooms = windows.iter_mut().map(|(limit, window)| window.room(*limit, now));
        let Some(tightest) = rooms.min_by_key(|room| room.remaining) else { return Ok(()) };
        if tightest.remaining == 0 {
            call.rate = Some(tightest);
            return Err(Refused::RateLimited(tightest));
        }
        windows.into_iter().for_each(|(_, window)| window.take(now));
        call.rate = Some(RateStatus { remaining: tightest.remaining - 1, ..tightest });
        Ok(())
    }
}

/// Names have 1 to 255 characters.
fn check_name(name: &str) -> Result<(), Refused> {
    if (1..=255).contains(&name.chars().count()) { Ok(()) } else { Err(Refused::Name) }
}

/// Keeps the rate-limit windows from growing without end.
fn forget_idle<K: Eq + std::hash::Hash>(windows: &mut HashMap<K, Window>, now: Timestamp) {
    if windows.len() > MANY_WINDOWS {
        windows.retain(|_, window| !window.is_idle(now));
    }
}
