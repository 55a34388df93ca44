//! What an agent token and a key can ask for.

use jiff::Timestamp;

use super::super::Call;
use super::super::keys::Key;
use super::super::users::{User, UserStatus};
use super::{Refused, State, check_name};
use crate::time::earlier;

/// A key as the older endpoints show it: with its value, in the list too. Has no `Debug`.
pub(in crate::sandbox) struct KeyRecord {
    pub(in crate::sandbox) user_id: String,
    pub(in crate::sandbox) name: String,
    /// Absent where the user's answers to creations lack it.
    pub(in crate::sandbox) key_id: Option<String>,
    pub(in crate::sandbox) value: String,
    pub(in crate::sandbox) created_at: Timestamp,
    pub(in crate::sandbox) last_used_at: Option<Timestamp>,
}

/// The user whom a key belongs to.
pub(in crate::sandbox) struct Profile {
    pub(in crate::sandbox) id: String,
    pub(in crate::sandbox) username: String,
    pub(in crate::sandbox) created: Timestamp,
}

impl State {
    /// The user of a token, once the request is paid for.
    fn user_of_token(&mut self, call: &mut Call, token: &str, now: Timestamp) -> Result<usize, Refused> {
        let known = self.user_by_token.get(token).copied();
        let user = known.filter(|user| self.users[*user].token_expires > now);
        self.charge(call, user, now)?;
        let user = user.ok_or(Refused::InvalidToken)?;
        self.must_be_served(user)?;
        Ok(user)
    }

    pub(super) fn must_be_served(&self, user: usize) -> Result<(), Refused> {
        match self.users[user].status() {
            UserStatus::Active => Ok(()),
            UserStatus::Suspended => Err(Refused::Forbidden),
            UserStatus::Gone => Err(Refused::UserGone),
        }
    }

    /// `POST /agent/dev/keys/create`.
    pub(in crate::sandbox) fn create_with_token(
        &mut self,
        call: &mut Call,
        token: &str,
        name: &str,
        now: Timestamp,
    ) -> Result<KeyRecord, Refused> {
        let user = self.user_of_token(call, token, now)?;
        check_name(name)?;
        let index = self.make_key(user, name, now)?;
        call.key = Some(index);
        let with_id = self.users[user].options.key_id_in_answer;
        let key = &self.keys[index];
        Ok(record(&self.users[user], key, with_id, None))
    }

    /// `POST /agent/dev/keys`: the user's active keys, as old as the user's lags make them.
    pub(in crate::sandbox) fn list_with_token(
        &mut self,
        call: &mut Call,
        token: &str,
        now: Timestamp,
    ) -> Result<Vec<KeyRecord>, Refused> {
        let user = self.user_of_token(call, token, now)?;
        let user = &self.users[user];
        if !user.options.capabilities.list {
            return Err(Refused::NotFound);
        }
        let then = earlier(now, user.options.list_lag);
        let used_until = earlier(now, user.options.last_use_lag);
        let mut records = Vec::new();
        for index in &user.keys {
            let key = &mut self.keys[*index];
            if key.listed_at(then) {
                let seen = key.uses.seen_at(used_until);
                let last_use = seen.filter(|_| user.options.capabilities.last_use);
                records.push(record(user, key, true, last_use));
            }
        }
        Ok(records)
    }

    /// `POST /agent/dev/keys/revoke`.
    pub(in crate::sandbox) fn revoke_with_token(
        &mut self,
        call: &mut Call,
        token: &str,
        key_id: &str,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let user = self.user_of_token(call, token, now)?;
        if !self.users[user].options.capabilities.revoke {
            return Err(Refused::NotFound);
        }
        let key = self.key_by_id.get(key_id).copied().filter(|key| self.keys[*key].user == user);
        let key = key.ok_or(Refused::NoKey)?;
        call.key = Some(key);
        self.revoke(key, now);
        Ok(())
    }

    /// `GET /auth/me`: counts as a use of the key.
    pub(in crate::sandbox) fn profile(
        &mut self,
        call: &mut Call,
        value: Option<&str>,
        now: Timestamp,
    ) -> Result<Profile, Refused> {
        let user = self.use_key(call, value, now)?;
        let User { id, username, created, .. } = &self.users[user];
        Ok(Profile { id: id.clone(), username: username.clone(), created: *created })
    }

    /// `GET /ping`: needs no key, but one that is sent is used.
    pub(in crate::sandbox) fn ping(
        &mut self,
        call: &mut Call,
        value: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        match self.use_key(call, value, now) {
            Err(limited @ Refused::RateLimited(_)) => Err(limited),
            _ => Ok(()),
        }
    }

    /// Lets a key in: charges the request, notes the use, and returns the key's user. A revoked key costs its user
    /// nothing.
    fn use_key(&mut self, call: &mut Call, value: Option<&str>, now: Timestamp) -> Result<usize, Refused> {
        let known = value.and_then(|value| self.key_by_value.get(value).copied());
        call.key = known;
        call.user = known.map(|key| self.keys[key].user);
        let live = known.filter(|key| self.keys[*key].revoked.is_none());
        self.charge(call, live.map(|key| self.keys[key].user), now)?;
        let index = live.ok_or(Refused::InvalidKey)?;
        let user = self.keys[index].user;
        self.must_be_served(user)?;
        let visible_until = earlier(now, self.users[user].options.last_use_lag);
        self.keys[index].uses.note(now, visible_until);
        Ok(user)
    }
}

fn record(user: &User, key: &Key, with_id: bool, last_used_at: Option<Timestamp>) -> KeyRecord {
    KeyRecord {
        user_id: user.id.clone(),
        name: key.name.clone(),
        key_id: with_id.then(|| key.id.clone()),
        value: key.value.clone(),
        created_at: key.created,
        last_used_at,
    }
}
