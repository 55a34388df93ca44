//! What the service's answers mean to the operator.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

use super::wallet::Wallet;
use crate::time::later;

/// The longest key value, in bytes, that is taken for one.
const LONGEST_VALUE: usize = 1024;

/// The value of an API key, what an application sends in `x-api-key`. Opaque: nothing depends on its prefix
/// or alphabet. Wiped when dropped, in no output.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyValue(Zeroizing<String>);

/// A text that cannot be a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to accept a key's value: it must be 1 to {LONGEST_VALUE} visible ASCII characters without spaces or line ends"
)]
pub struct KeyValueError;

impl KeyValue {
    /// Checks and copies a value. A line end or a space is refused: in a Secret it would reach applications'
    /// headers.
    ///
    /// # Errors
    /// [`KeyValueError`], which does not repeat the text.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyValueError> {
        let text = std::str::from_utf8(bytes).map_err(|_| KeyValueError)?;
        if text.is_empty() || text.len() > LONGEST_VALUE || !text.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(KeyValueError);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The value, for the two places it may go: a Secret's data and a request's header.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a text contains the value, or is a part of it: such a text must not be written into a status.
    #[must_use]
    pub fn is_told_by(&self, text: &str) -> bool {
        text.contains(self.expose()) || self.expose().contains(text)
    }
}

impl fmt::Debug for KeyValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyValue([redacted])")
    }
}

/// A user of Bags, by uuid. Not a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserId(String);

impl UserId {
    /// A user's id: at most 64 letters, digits, `-` and `_` (the service documents uuids).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        ((1..=64).contains(&text.len()) && text.bytes().all(plain)).then(|| Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What the service asks a wallet to sign. Good for one creation, and only for a short time.
pub struct Challenge {
    pub(super) message: Zeroizing<Vec<u8>>,
    pub(super) nonce: Zeroizing<String>,
}

impl Challenge {
    /// Whether signing this could move money.
    ///
    /// A Solana transaction lists the raw public keys of all its signers; a signature over bytes that do not
    /// contain the wallet's key authorises no transaction. The service's documentation says only that the message
    /// is bytes, so a broken or hostile service could send a transaction.
    pub(super) fn could_be_a_transaction_of(&self, wallet: &Wallet) -> bool {
        let key = wallet.public_key();
        self.message.windows(key.len()).any(|window| window == key)
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Challenge([redacted])")
    }
}

/// A key that was just made. Its value is not to be had again.
#[derive(Debug)]
pub struct CreatedKey {
    /// The value.
    pub value: KeyValue,
    /// The service's id of the key; its answers may lack it.
    pub key_id: Option<String>,
    /// Whether the wallet had no account and one was made for it: mostly a wrong wallet.
    pub signed_up: bool,
}

/// A key in the service's list. The service may send values along; there is no place for them here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// The service's id of the key.
    pub key_id: Option<String>,
    /// Its name; control characters replaced.
    pub name: String,
    /// `active`, as far as is known; empty where the service does not say. Its other words are not documented.
    pub status: String,
    /// When it was made, by the service's clock.
    pub created_at: Option<Timestamp>,
    /// When it was last used, by the service's clock. Not every account shows it.
    pub last_used_at: Option<Timestamp>,
    /// Whose key it is.
    pub user_id: Option<UserId>,
}

/// The words for a key that is gone. What other words mean is not documented, and to take one of them for gone could give up
/// a key that lives.
const GONE: [&str; 4] = ["revoked", "deleted", "expired", "inactive"];

impl ListedKey {
    /// Whether the key takes one of the account's places: unless the service says that it is gone, a listed key does.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !GONE.iter().any(|word| self.status.eq_ignore_ascii_case(word))
    }
}

/// The account's keys as one answer showed them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyList {
    /// The keys, in the service's order.
    pub keys: Vec<ListedKey>,
    /// The service's clock at the answer, in whole seconds.
    pub server_time: Option<Timestamp>,
}

impl KeyList {
    /// The keys, with their times by our clock, by which the list was asked for at `asked` and answered at `answered`. The times
    /// are shifted as far as the answer's date proves that the service's clock is off, but stay between 1970 and 9999. The error
    /// that remains is at most the time that the answer took, plus the second that the date leaves open.
    #[must_use]
    pub fn by_our_clock(self, asked: Timestamp, answered: Timestamp) -> Vec<ListedKey> {
        let Some(server) = self.server_time else { return self.keys };
        let ahead = server.duration_since(answered).max(SignedDuration::ZERO);
        let behind = (asked.duration_since(server) - SignedDuration::from_secs(1)).max(SignedDuration::ZERO);
        let by = behind - ahead;
        let ours = |time: Option<Timestamp>| time.map(|time| later(time, by).max(Timestamp::UNIX_EPOCH));
        let keys = self.keys.into_iter();
        keys.map(|key| ListedKey {
            created_at: ours(key.created_at),
            last_used_at: ours(key.last_used_at),
            ..key
        })
        .collect()
    }
}

/// What the service says of a key's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// It works.
    Alive {
        /// Whose key it is.
        user: UserId,
    },
    /// 401: invalid or revoked.
    Dead,
    /// 403: the key may not ask.
    Forbidden,
    /// 404: the key's user is gone.
    UserGone,
}

/// What the service says to a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// It says that the key is revoked; only the key's own 401 proves it.
    Acknowledged,
    /// 404 or 405: this account cannot revoke. Proves nothing about the key.
    NoEndpoint,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_visible_ascii_of_bounded_length() {
        for good in ["x", "value-one-for-tests", "!~", &"a".repeat(1024)] {
            assert_eq!(KeyValue::parse(good.as_bytes()).unwrap().expose(), good);
        }
        let bad: [&[u8]; 8] =
            [b"", b"a b", b"a\n", b"\ta", b"a\0b", "wért".as_bytes(), b"\xff", &[b'a'; 1025]];
        for bad in bad {
            assert_eq!(KeyValue::parse(bad), Err(KeyValueError), "{bad:?}");
        }
    }

    #[test]
    fn a_listed_key_takes_a_place_unless_a_known_word_says_that_it_is_gone() {
        let takes_place = |status: &str| {
            let (name, status) = ("Web".to_owned(), status.to_owned());
            let key =
                ListedKey { key_id: None, name, status, created_at: None, last_used_at: None, user_id: None };
            key.is_active()
        };
        for word in ["", "active", "Active", "pending", "suspended", "a word of a newer version"] {
            assert!(takes_place(word), "{word}");
        }
        for word in ["revoked", "REVOKED", "deleted", "expired", "inactive"] {
            assert!(!takes_place(word), "{word}");
        }
    }

    #[test]
    fn a_user_id_is_short_and_plain() {
        assert_eq!(UserId::parse("0b7c3f1e-0000-4000-8000-000000000001").unwrap().as_str().len(), 36);
        for bad in ["", "a b", "a\n", "a/b", &"a".repeat(65)] {
            assert_eq!(UserId::parse(bad), None, "{bad:?}");
        }
    }
}
