//! The service's JSON: what is sent, and the little of the answers that is read.
//!
//! Answers are read with tolerance (an optional field of an unexpected type counts as absent, an unknown field is
//! skipped, as the service documents few of its types) and without copies: a key's value goes from the answer's
//! wiped buffer straight into a [`KeyValue`], and the structs of a list have no field that could hold one. Parser
//! errors quote the text that they fail on, so none leaves this module. Every struct is read as an [`Object`].

use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::transport::{Body, Buffer, REQUEST_LIMIT};
use super::types::{KeyValue, ListedKey, UserId};

/// The longest id and nonce that is taken for one.
const LONGEST_ID: usize = 128;
/// The longest name that the service documents.
const LONGEST_NAME: usize = 255;
/// The most keys that are read from a list: more than fit into [`RESPONSE_LIMIT`](super::transport::RESPONSE_LIMIT) as the
/// service writes them.
const LONGEST_LIST: usize = 10_000;

#[derive(Serialize)]
pub(super) struct ChallengeRequest<'a> {
    pub(super) address: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SignatureRequest<'a> {
    pub(super) signature: &'a str,
    pub(super) address: &'a str,
    pub(super) nonce: &'a str,
    pub(super) key_name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CodeRequest<'a> {
    pub(super) auth_code: &'a str,
    pub(super) mfa_code: &'a str,
    pub(super) key_name: &'a str,
}

#[derive(Serialize)]
pub(super) struct CreateRequest<'a> {
    pub(super) token: &'a str,
    pub(super) name: &'a str,
}

#[derive(Serialize)]
pub(super) struct ListRequest<'a> {
    pub(super) token: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RevokeRequest<'a> {
    pub(super) token: &'a str,
    pub(super) key_id: &'a str,
}

/// The request's JSON in wiped memory; `None` above [`REQUEST_LIMIT`].
pub(super) fn encode(request: &impl Serialize) -> Option<Body> {
    let mut buffer = Buffer::new(REQUEST_LIMIT);
    serde_json::to_writer(&mut buffer, request).ok()?;
    Some(buffer.into_body())
}

/// An answer's payload: `response` in the envelope `{"success":true,"response":…}`, or the whole answer where
/// there is no envelope (the health check has none, and a value that is shown once is not lost over it).
pub(super) fn payload<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    // Whatever `response` holds is skipped here, not parsed: the second pass reads it into its type.
    let Object(Outline { success, response }) = serde_json::from_slice(bytes).ok()?;
    match (success, response) {
        (Presence::True, true) => serde_json::from_slice::<Object<Envelope<T>>>(bytes).ok()?.0.response,
        (Presence::Absent, _) => serde_json::from_slice(bytes).ok(),
        (Presence::True, false) | (Presence::Other, _) => None,
    }
}

/// Whether the answer says `"success":true`, with or without a `response`.
pub(super) fn succeeded(bytes: &[u8]) -> bool {
    let outline = serde_json::from_slice::<Object<Outline>>(bytes);
    outline.is_ok_and(|Object(outline)| outline.success == Presence::True)
}

/// A struct that is read only from a JSON object: by itself, serde reads a struct from an array as well, member by member.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members))
    }
}

#[derive(Deserialize)]
struct Envelope<T> {
    #[serde(default = "none")]
    response: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    success: Presence,
    #[serde(default, deserialize_with = "present")]
    response: bool,
}

#[derive(Default, PartialEq, Eq)]
enum Presence {
    #[default]
    Absent,
    True,
    Other,
}

impl<'de> Deserialize<'de> for Presence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(if Flag::deserialize(deserializer)?.0 { Self::True } else { Self::Other })
    }
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|IgnoredAny| true)
}

/// The service's envelope of a refusal.
pub(super) struct Refusal {
    /// The first of `error`, `response` and `message` that is a text.
    pub(super) text: Zeroizing<String>,
    /// When a rate limit ends, by the service's clock.
    pub(super) reset_time: Option<Timestamp>,
}

/// A refusal in the service's envelope: `success` is false, and there is a text. Anything else (a proxy's
/// page, plain text) is none.
pub(super) fn refusal(bytes: &[u8]) -> Option<Refusal> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        success: bool,
        #[serde(default)]
        error: Text,
        #[serde(default)]
        response: Text,
        #[serde(default)]
        message: Text,
        #[serde(default)]
        reset_time: Time,
    }
    let Object(wire) = serde_json::from_slice::<Object<Wire>>(bytes).ok()?;
    let text = wire.error.0.or(wire.response.0).or(wire.message.0)?;
    (!wire.success).then_some(Refusal { text, reset_time: wire.reset_time.0 })
}

#[derive(Deserialize)]
pub(super) struct ChallengePayload {
    pub(super) message: Text,
    pub(super) nonce: Text,
}

/// The answer to a signature or a code: a key, or the demand for a second factor.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WalletPayload {
    #[serde(default)]
    pub(super) api_key: Value,
    #[serde(default)]
    pub(super) key_id: Text,
    #[serde(default)]
    pub(super) is_signup: Flag,
    #[serde(default)]
    pub(super) mfa_required: Flag,
    #[serde(default)]
    pub(super) mfa_method: Text,
    #[serde(default)]
    pub(super) auth_code: Text,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenPayload {
    pub(super) api_key: Object<TokenKey>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenKey {
    pub(super) key: Value,
    #[serde(default)]
    pub(super) key_id: Text,
}

#[derive(Deserialize)]
pub(super) struct MePayload {
    pub(super) user: Object<MeUser>,
}

#[derive(Deserialize)]
pub(super) struct MeUser {
    pub(super) uuid: Text,
}

#[derive(Deserialize)]
pub(super) struct PingPayload {
    #[serde(default)]
    pub(super) message: Text,
}

/// The keys of a list. It is an error if one of them has neither id nor name, or if there are more than `LONGEST_LIST`: a
/// key takes many times the memory of the shortest text that stands for one.
pub(super) struct ListPayload(pub(super) Vec<ListedKey>);

impl<'de> Deserialize<'de> for ListPayload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Keys)
    }
}

struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = ListPayload;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of keys")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ListPayload, A::Error> {
        let mut keys = Vec::new();
        while let Some(Object(item)) = items.next_element::<Object<ListedWire>>()? {
            let key = item.key().filter(|_| keys.len() < LONGEST_LIST);
            keys.push(key.ok_or_else(|| de::Error::custom("not a list of keys"))?);
        }
        Ok(ListPayload(keys))
    }
}

/// One key of a list. Values that the service sends along are skipped by the parser.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListedWire {
    #[serde(default)]
    key_id: Text,
    #[serde(default)]
    name: Text,
    #[serde(default)]
    status: Text,
    #[serde(default)]
    created_at: Time,
    #[serde(default)]
    last_used_at: Time,
    #[serde(default)]
    user_id: Text,
}

impl ListedWire {
    /// The key; `None` where it has neither id nor name: such a list is not what it claims to be.
    fn key(self) -> Option<ListedKey> {
        let key_id = self.key_id.id();
        if key_id.is_none() && self.name.0.is_none() {
            return None;
        }
        let shown = |text: Text| {
            let text = text.0.unwrap_or_default();
            let printable = |character: char| if character.is_control() { '\u{fffd}' } else { character };
            text.chars().take(LONGEST_NAME).map(printable).collect::<String>()
        };
        Some(ListedKey {
            key_id,
            user_id: self.user_id.user(),
            name: shown(self.name),
            status: shown(self.status),
            created_at: self.created_at.0,
            last_used_at: self.last_used_at.0,
        })
    }
}

/// A text, or nothing where the service sends something else. Wiped when dropped, as some texts (a nonce, an auth code) are
/// as good as a key for a while.
#[derive(Default)]
pub(super) struct Text(pub(super) Option<Zeroizing<String>>);

impl Text {
    /// An id: short, of visible ASCII characters. Ids go into annotations, conditions and requests.
    pub(super) fn id(&self) -> Option<String> {
        let text = self.0.as_ref()?;
        let plain =
            (1..=LONGEST_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        plain.then(|| text.as_str().to_owned())
    }

    /// A user's id.
    pub(super) fn user(&self) -> Option<UserId> {
        UserId::parse(self.0.as_ref()?)
    }
}

/// True, or false where the service sends something else.
#[derive(Default)]
pub(super) struct Flag(pub(super) bool);

/// A time in RFC 3339 or as Unix seconds or milliseconds; nothing where the service sends something else, or a time before
/// 1970, as the API server accepts no status with a year below 0.
#[derive(Default)]
pub(super) struct Time(pub(super) Option<Timestamp>);

/// Seconds since 1970, or milliseconds where they would lie in the year 5138 or later.
pub(super) fn unix_time(number: i64) -> Option<Timestamp> {
    if number.unsigned_abs() < 100_000_000_000 {
        Timestamp::from_second(number).ok()
    } else {
        Timestamp::from_millisecond(number).ok()
    }
}

/// A key's value.
#[derive(Default)]
pub(super) enum Value {
    /// The service sends none: nothing, null, or an empty text.
    #[default]
    Absent,
    /// It sends something that cannot be one.
    Unusable,
    /// It sends one.
    Usable(KeyValue),
}

/// Accepts any JSON value, and lets a function make a `T` of it.
struct Lenient<T>(fn(Scalar<'_>) -> T);

/// The value that was read; arrays, objects and integers above the range of `i64` are `Other`.
enum Scalar<'a> {
    Text(&'a str),
    Number(i64),
    Flag(bool),
    Null,
    Other,
}

impl<'de, T> Visitor<'de> for Lenient<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        Ok((self.0)(Scalar::Text(text)))
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<T, E> {
        Ok((self.0)(Scalar::Flag(flag)))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        Ok((self.0)(Scalar::Number(number)))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        Ok((self.0)(i64::try_from(number).map_or(Scalar::Other, Scalar::Number)))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        // Saturates; a time that far away is refused later.
        Ok((self.0)(Scalar::Number(number as i64)))
    }

    fn visit_unit<E: de::Error>(self) -> Result<T, E> {
        Ok((self.0)(Scalar::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<T, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok((self.0)(Scalar::Other))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<T, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok((self.0)(Scalar::Other))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Lenient(|scalar| match scalar {
            Scalar::Text(text) => Self(Some(Zeroizing::new(text.to_owned()))),
            Scalar::Number(_) | Scalar::Flag(_) | Scalar::Null | Scalar::Other => Self(None),
        }))
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Lenient(|scalar| Self(matches!(scalar, Scalar::Flag(true)))))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Lenient(|scalar| {
            let time = match scalar {
                Scalar::Text(text) => text.parse().ok(),
                Scalar::Number(number) => unix_time(number),
                Scalar::Flag(_) | Scalar::Null | Scalar::Other => None,
            };
            Self(time.filter(|time| *time >= Timestamp::UNIX_EPOCH))
        }))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Lenient(|scalar| match scalar {
            Scalar::Null | Scalar::Text("") => Self::Absent,
            Scalar::Text(text) => KeyValue::parse(text.as_bytes()).map_or(Self::Unusable, Self::Usable),
            Scalar::Number(_) | Scalar::Flag(_) | Scalar::Other => Self::Unusable,
        }))
    }
}
