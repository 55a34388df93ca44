//! The wallet way: a challenge, its signature, and where the user wants it a one-time password.

use std::collections::HashMap;
use std::time::Duration;

use ed25519_dalek::{Signature, VerifyingKey};
use jiff::Timestamp;

use super::super::users::{User, Wallet};
use super::super::{Call, random, times};
use super::{Refused, State, check_name, forget_idle};
use crate::time::later;

/// How long a challenge waits for its signature. The real time is not known; it is said to be short.
const CHALLENGE_LIFE: Duration = Duration::from_secs(60);
/// How long the second step may take.
const SECOND_STEP_LIFE: Duration = Duration::from_secs(60);
/// Above this many open challenges or second steps, the expired ones are forgotten.
const MANY: usize = 1_000;

/// What a wallet has to sign.
pub(in crate::sandbox) struct Challenge {
    address: [u8; 32],
    message: Vec<u8>,
    expires: Timestamp,
}

impl Challenge {
    /// Whether the wallet signed it. Costs more than a look-up, so it is done outside the lock.
    pub(in crate::sandbox) fn is_signed_by(&self, signature: &str) -> Result<[u8; 32], Refused> {
        let bytes = bs58::decode(signature).into_vec().map_err(|_| Refused::Signature)?;
        let signature = Signature::from_slice(&bytes).map_err(|_| Refused::Signature)?;
        let wallet = VerifyingKey::from_bytes(&self.address).map_err(|_| Refused::Address)?;
        wallet.verify_strict(&self.message, &signature).map_err(|_| Refused::Signature)?;
        Ok(self.address)
    }
}

/// A wallet that signed its challenge, while the one-time password is waited for.
pub(super) struct SecondStep {
    user: usize,
    expires: Timestamp,
}

/// What a signature leads to. Has no `Debug`: it may hold a value.
pub(in crate::sandbox) enum Signed {
    /// A key, the one time its value is shown.
    Key { value: String, id: Option<String>, is_signup: bool },
    /// A second step, with this code.
    SecondStep { auth_code: String },
}

impl State {
    /// `POST /agent/v2/auth/init`: the challenge in base58, and its nonce.
    pub(in crate::sandbox) fn challenge(
        &mut self,
        call: &mut Call,
        address: &str,
        now: Timestamp,
    ) -> Result<(String, String), Refused> {
        let Ok(wallet) = public_key(address) else {
            self.charge(call, None, now)?;
            return Err(Refused::Address);
        };
        self.charge_auth(call, wallet, now)?;
        let nonce = random::uuid(&self.randomness);
        let message = format!(
            "Sign in to the Bags sandbox\nAddress: {address}\nNonce: {nonce}\nIssued: {}",
            times::text(now)
        );
        let encoded = bs58::encode(&message).into_string();
        forget_expired(&mut self.challenges, now, |challenge| challenge.expires);
        let expires = later(now, CHALLENGE_LIFE);
        let challenge = Challenge { address: wallet, message: message.into_bytes(), expires };
        self.challenges.insert(nonce.clone(), challenge);
        Ok((encoded, nonce))
    }

    /// The first half of `POST /agent/v2/auth/callback`: the challenge of this nonce, which is spent from now on.
    pub(in crate::sandbox) fn take_challenge(
        &mut self,
        call: &mut Call,
        address: &str,
        nonce: &str,
        key_name: &str,
        now: Timestamp,
    ) -> Result<Challenge, Refused> {
        let Ok(wallet) = public_key(address) else {
            self.charge(call, None, now)?;
            return Err(Refused::Address);
        };
        self.charge_auth(call, wallet, now)?;
        check_name(key_name)?;
        let challenge = self.challenges.remove(nonce).ok_or(Refused::Nonce)?;
        if challenge.expires <= now || challenge.address != wallet {
            return Err(Refused::Nonce);
        }
        Ok(challenge)
    }

    /// The second half: the wallet has proven itself, and signs up if nobody knows it.
    pub(in crate::sandbox) fn signed_in(
        &mut self,
        call: &mut Call,
        wallet: [u8; 32],
        key_name: &str,
        now: Timestamp,
    ) -> Result<Signed, Refused> {
        let known = self.user_by_address.get(&wallet).copied();
        let user = known.unwrap_or_else(|| self.sign_up(wallet, now));
        call.user = Some(user);
        self.must_be_served(user)?;
        if self.users[user].options.totp {
            let auth_code = random::uuid(&self.randomness);
            forget_expired(&mut self.auth_codes, now, |step| step.expires);
            let step = SecondStep { user, expires: later(now, SECOND_STEP_LIFE) };
            self.auth_codes.insert(auth_code.clone(), step);
            return Ok(Signed::SecondStep { auth_code });
        }
        self.make_key_for_wallet(call, user, key_name, known.is_none(), now)
    }

    /// `POST /agent/v2/auth/callback` with a one-time password. Once the rate limit and the key's name have been checked, the
    /// auth code is spent, whatever comes of it.
    pub(in crate::sandbox) fn second_step(
        &mut self,
        call: &mut Call,
        auth_code: &str,
        mfa_code: &str,
        key_name: &str,
        now: Timestamp,
    ) -> Result<Signed, Refused> {
        let Some(user) = self.auth_codes.get(auth_code).map(|step| step.user) else {
            self.charge(call, None, now)?;
            return Err(Refused::AuthCode);
        };
        self.charge_auth(call, self.users[user].address, now)?;
        check_name(key_name)?;
        let step = self.auth_codes.remove(auth_code).ok_or(Refused::AuthCode)?;
        if step.expires <= now || !self.users[user].takes_code(mfa_code, now) {
            return Err(Refused::AuthCode);
        }
        self.must_be_served(user)?;
        self.make_key_for_wallet(call, user, key_name, false, now)
    }

    fn make_key_for_wallet(
        &mut self,
        call: &mut Call,
        user: usize,
        name: &str,
        is_signup: bool,
        now: Timestamp,
    ) -> Result<Signed, Refused> {
        let index = self.make_key(user, name, now)?;
        call.key = Some(index);
        let key = &self.keys[index];
        let id = self.users[user].options.key_id_in_answer.then(|| key.id.clone());
        Ok(Signed::Key { value: key.value.clone(), id, is_signup })
    }

    /// An account for a wallet that had none. Nobody holds a one-time password's secret for it.
    fn sign_up(&mut self, wallet: [u8; 32], now: Timestamp) -> usize {
        let options = super::UserOptions { totp: false, ..self.sign_up.clone() };
        let number = self.users.len() + 1;
        let (user, _) = User::new(&self.randomness, number, options, Wallet::Known(wallet), now);
        self.enlist(user)
    }

    /// Takes one request out of the wallet's own budget and out of the general ones.
    fn charge_auth(&mut self, call: &mut Call, wallet: [u8; 32], now: Timestamp) -> Result<(), Refused> {
        let user = self.user_by_address.get(&wallet).copied();
        let options = user.map_or(&self.sign_up, |user| &self.users[user].options);
        let limit = options.auth_rate_limit;
        forget_idle(&mut self.auth_windows, now);
        let room = self.auth_windows.entry(wallet).or_default().room(limit, now);
        if room.remaining == 0 {
            call.user = user;
            call.rate = Some(room);
            return Err(Refused::TooManyAuth);
        }
        self.charge(call, user, now)?;
        self.auth_windows.entry(wallet).or_default().take(now);
        Ok(())
    }
}

/// The public key that an address is the base58 of.
fn public_key(address: &str) -> Result<[u8; 32], Refused> {
    let bytes = bs58::decode(address).into_vec().map_err(|_| Refused::Address)?;
    let bytes = bytes.try_into().map_err(|_| Refused::Address)?;
    VerifyingKey::from_bytes(&bytes).map_err(|_| Refused::Address)?;
    Ok(bytes)
}

fn forget_expired<T>(open: &mut HashMap<String, T>, now: Timestamp, expires: impl Fn(&T) -> Timestamp) {
    if open.len() > MANY {
        open.retain(|_, one| expires(one) > now);
    }
}
