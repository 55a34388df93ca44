//! How an HTTP answer is judged: done, refused for certain, or unknown.
//!
//! A refusal counts only in the service's own envelope and as JSON: a proxy in between may answer 403 or 404 in
//! the service's place although the request went through.

use std::time::Duration;

use http::{HeaderMap, Response, StatusCode, header};
use jiff::{Timestamp, fmt::rfc2822};
use serde::de::DeserializeOwned;

use super::budget::LONGEST_PAUSE;
use super::error::{Class, Error, Operation, Reason};
use super::transport::Body;
use super::wire::{self, Refusal, unix_time};
use crate::time::later;

/// How long a rate limit lasts for us if the answer does not say when it ends.
const UNTOLD_PAUSE: Duration = Duration::from_secs(60);
/// Longer texts of the service are cut, and longer words in them make the whole text disappear: they may be
/// a credential.
const LONGEST_TEXT: usize = 200;
const LONGEST_WORD: usize = 16;

/// An answer of the service, or of something else in its place.
pub(super) struct Answer {
    operation: Operation,
    response: Response<Body>,
    /// This machine's wall clock when the answer came.
    at: Timestamp,
}

impl Answer {
    pub(super) fn new(operation: Operation, response: Response<Body>, at: Timestamp) -> Self {
        Self { operation, response, at }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.response.body().as_bytes()
    }

    /// The service's clock, from the `Date` header.
    pub(super) fn server_time(&self) -> Option<Timestamp> {
        http_date(text(self.response.headers(), header::DATE.as_str())?)
    }

    /// The end of a rate limit by this machine's clock, where the answer is one (429): bounded, and corrected
    /// by the difference between the two clocks.
    pub(super) fn rate_limited_until(&self) -> Option<Timestamp> {
        (self.status() == StatusCode::TOO_MANY_REQUESTS)
            .then(|| self.pause_end(self.refusal().and_then(|refusal| refusal.reset_time)))
    }

    fn pause_end(&self, reset_time: Option<Timestamp>) -> Timestamp {
        let headers = self.response.headers();
        let now = self.server_time().unwrap_or(self.at);
        let retry_after = || {
            let told = text(headers, header::RETRY_AFTER.as_str())?;
            told.parse()
                .ok()
                .map(|seconds| later(now, Duration::from_secs(seconds)))
                .or_else(|| http_date(told))
        };
        let ahead = |end: &Timestamp| *end > now;
        let end = reset_time
            .filter(ahead)
            .or_else(|| rate_reset(headers).filter(ahead))
            .or_else(|| retry_after().filter(ahead));
        let pause =
            end.and_then(|end| Duration::try_from(end.duration_since(now)).ok()).unwrap_or(UNTOLD_PAUSE);
        later(self.at, pause.clamp(Duration::from_secs(1), LONGEST_PAUSE))
    }

    /// The payload of a successful answer; else why there is none.
    pub(super) fn payload<T: DeserializeOwned>(&self, secrets: &[&str]) -> Result<T, Error> {
        if !self.status().is_success() {
            return Err(self.failure(secrets));
        }
        wire::payload(self.bytes()).ok_or_else(|| self.unreadable())
    }

    /// The answer says nothing that can be relied on.
    pub(super) fn unreadable(&self) -> Error {
        self.error(Class::Unknown, Reason::Unreadable)
    }

    /// An error with this answer's status.
    pub(super) fn error(&self, class: Class, reason: Reason) -> Error {
        Error { status: Some(self.status().as_u16()), ..Error::new(self.operation, class, reason) }
    }

    /// Whether this is the service's own refusal.
    pub(super) fn is_refusal(&self) -> bool {
        self.refusal().is_some()
    }

    fn refusal(&self) -> Option<Refusal> {
        if self.status().is_success() || !is_json(self.response.headers()) {
            return None;
        }
        wire::refusal(self.bytes())
    }

    /// What an answer that is not a success means. `secrets` are those that the request carried: a text of the
    /// service that repeats a piece of one is not kept.
    pub(super) fn failure(&self, secrets: &[&str]) -> Error {
        let status = self.status();
        let refusal = self.refusal();
        let (class, reason) = match status.as_u16() {
            429 => {
                let until = self.pause_end(refusal.as_ref().and_then(|refusal| refusal.reset_time));
                let certain = refusal.is_some() || !self.operation.creates();
                (if certain { Class::RateLimited { until } } else { Class::Unknown }, Reason::RateLimited)
            }
            400 | 401 | 403 | 404 | 413 => match &refusal {
                Some(refusal) => (Class::Refused, self.reason(&refusal.text)),
                None => (Class::Unknown, Reason::Unreadable),
            },
            300..=399 => (Class::Unknown, Reason::Redirected),
            500..=599 => (Class::Unknown, Reason::ServerError),
            _ => (Class::Unknown, Reason::Unreadable),
        };
        let said = refusal.and_then(|refusal| harmless(&refusal.text, secrets));
        Error { said, ..self.error(class, reason) }
    }

    /// The reason behind a refusal: the service's known texts first, then its status.
    fn reason(&self, text: &str) -> Reason {
        const TEXTS: [(&str, Reason); 6] = [
            ("maximum number of api keys", Reason::LimitReached),
            ("nonce not found or expired", Reason::NonceExpired),
            ("invalid signature", Reason::InvalidSignature),
            ("invalid or expired auth code", Reason::InvalidMfa),
            ("invalid token", Reason::InvalidToken),
            ("token expired", Reason::InvalidToken),
        ];
        let text = text.to_ascii_lowercase();
        let known = TEXTS.into_iter().find(|(known, _)| text.contains(known)).map(|(_, reason)| reason);
        known.unwrap_or(match self.status().as_u16() {
            403 => Reason::Forbidden,
            404 => Reason::NotFound,
            413 => Reason::TooLarge,
            _ => Reason::OtherRefusal,
        })
    }
}

/// The service's text, where nothing in it can be a secret: visible ASCII, no long word, no piece of what
/// was sent.
fn harmless(text: &str, secrets: &[&str]) -> Option<String> {
    /// This many characters of a secret in a row give it away.
    const PIECE: usize = 8;
    let text = text.trim();
    let plain = !text.is_empty()
        && text.len() <= 4 * LONGEST_TEXT
        && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        && text.split(' ').all(|word| word.len() <= LONGEST_WORD);
    let repeats = |secret: &&str| {
        let secret = secret.as_bytes();
        let size = secret.len().min(PIECE);
        size > 0
            && secret.windows(size).any(|piece| text.as_bytes().windows(size).any(|window| window == piece))
    };
    let shown = plain && !secrets.iter().any(repeats);
    shown.then(|| text.chars().take(LONGEST_TEXT).collect())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

fn rate_reset(headers: &HeaderMap) -> Option<Timestamp> {
    unix_time(text(headers, "x-ratelimit-reset")?.parse().ok()?)
}

fn is_json(headers: &HeaderMap) -> bool {
    text(headers, header::CONTENT_TYPE.as_str())
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// RFC 9110, section 5.6.7: the preferred form, which is RFC 5322's with the zone GMT.
fn http_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}
