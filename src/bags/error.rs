//! What went wrong with a request to Bags, and the one question that matters after a creation: may there be a
//! key nevertheless?
//!
//! Everything here may be shown in conditions, events, logs and metric labels: it holds no address, no body,
//! no parser's text, and of the service's own words only what `answer` has cleaned.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::time::nearest_second;

/// What was asked of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The first step of the wallet way; makes nothing.
    Challenge,
    /// The other steps of the wallet way.
    CreateWithWallet,
    /// The agent-token way.
    CreateWithToken,
    /// The account's keys.
    List,
    /// Whether a key works, and whose it is.
    Me,
    /// A revocation.
    Revoke,
    /// The service's health.
    Ping,
}

impl Operation {
    /// Every operation, for metrics that start at zero.
    pub const ALL: [Self; 7] = [
        Self::Challenge,
        Self::CreateWithWallet,
        Self::CreateWithToken,
        Self::List,
        Self::Me,
        Self::Revoke,
        Self::Ping,
    ];

    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Challenge => "challenge",
            Self::CreateWithWallet => "create_with_wallet",
            Self::CreateWithToken => "create_with_token",
            Self::List => "list",
            Self::Me => "me",
            Self::Revoke => "revoke",
            Self::Ping => "ping",
        }
    }

    /// Whether a request of this operation may make a key.
    #[must_use]
    pub fn creates(self) -> bool {
        matches!(self, Self::CreateWithWallet | Self::CreateWithToken)
    }

    fn text(self) -> &'static str {
        match self {
            Self::Challenge => "ask for a wallet challenge",
            Self::CreateWithWallet => "make a key with the wallet",
            Self::CreateWithToken => "make a key with the agent token",
            Self::List => "list the account's keys",
            Self::Me => "verify a key",
            Self::Revoke => "revoke a key",
            Self::Ping => "reach the service",
        }
    }
}

/// What a failure means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Definitely not done: refused in the service's own words, or by the client before anything was sent.
    /// The same request again would be refused again.
    Refused,
    /// Definitely not done, and not to be tried again before `until` (by this machine's wall clock).
    RateLimited {
        /// At most two hours ahead.
        until: Timestamp,
    },
    /// Certainly not sent: worth another try.
    NotDone,
    /// Unknown. After a creation there may be a key; a read or a revocation may simply be tried again.
    Unknown,
}

/// Why, as a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The agent token is invalid or expired.
    InvalidToken,
    /// The wallet's signature was not accepted.
    InvalidSignature,
    /// The challenge was too old, or used before.
    NonceExpired,
    /// The one-time code was not accepted.
    InvalidMfa,
    /// The account asks for a second factor that the credentials lack.
    MfaRequired,
    /// The account asks for a second factor of a kind that nobody here can give.
    MfaUnsupported,
    /// What was to be signed could be a transaction.
    UnsafeChallenge,
    /// The account has all the keys it may have.
    LimitReached,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// The request or the answer is too large.
    TooLarge,
    /// Refused in words that are not known here.
    OtherRefusal,
    /// `spec.revocation.path` is not a plain path.
    InvalidPath,
    /// The service's rate limit.
    RateLimited,
    /// The operator's own budget.
    BudgetSpent,
    /// 5xx.
    ServerError,
    /// 3xx.
    Redirected,
    /// Not an answer of the service: malformed, cut short, or somebody else's.
    Unreadable,
    /// No answer in time.
    Timeout,
    /// The connection broke.
    Broken,
    /// The host's name has no address.
    Dns,
    /// The host does not accept connections.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// Not sent: the caller's time for it was over.
    OutOfTime,
}

impl Reason {
    /// Every reason, for metrics that start at zero.
    pub const ALL: [Self; 24] = [
        Self::InvalidToken,
        Self::InvalidSignature,
        Self::NonceExpired,
        Self::InvalidMfa,
        Self::MfaRequired,
        Self::MfaUnsupported,
        Self::UnsafeChallenge,
        Self::LimitReached,
        Self::Forbidden,
        Self::NotFound,
        Self::TooLarge,
        Self::OtherRefusal,
        Self::InvalidPath,
        Self::RateLimited,
        Self::BudgetSpent,
        Self::ServerError,
        Self::Redirected,
        Self::Unreadable,
        Self::Timeout,
        Self::Broken,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::OutOfTime,
    ];

    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.texts().0
    }

    /// The name in PascalCase, for conditions and events.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.texts().1
    }

    /// What happened and, where a person can do something, what.
    fn text(self) -> &'static str {
        self.texts().2
    }

    fn texts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::InvalidToken => (
                "invalid_token",
                "InvalidToken",
                "the service does not accept the agent token; put a new one into the Secret that spec.credentials.agentToken names",
            ),
            Self::InvalidSignature => (
                "invalid_signature",
                "InvalidSignature",
                "the service does not accept the wallet's signature; check the wallet in the Secret that spec.credentials.wallet names",
            ),
            Self::NonceExpired => (
                "nonce_expired",
                "NonceExpired",
                "the challenge was too old; the next try asks for a new one",
            ),
            Self::InvalidMfa => (
                "invalid_mfa",
                "InvalidMfa",
                "the service does not accept the one-time code; check the TOTP secret that spec.credentials.wallet.totpField names, and this machine's clock",
            ),
            Self::MfaRequired => (
                "mfa_required",
                "MfaRequired",
                "the account asks for a one-time code; put its TOTP secret (base32 or otpauth:// URL) into the wallet's Secret and name the field in spec.credentials.wallet.totpField",
            ),
            Self::MfaUnsupported => (
                "mfa_unsupported",
                "MfaUnsupported",
                "the account asks for a second factor that is not TOTP; set it to an authenticator app, or use an agent token",
            ),
            Self::UnsafeChallenge => (
                "unsafe_challenge",
                "UnsafeChallenge",
                "the challenge could be a transaction of the wallet, so it was not signed; check that the operator talks to the real service",
            ),
            Self::LimitReached => {
                ("limit_reached", "LimitReached", "the account has reached its maximum number of API keys")
            }
            Self::Forbidden => ("forbidden", "Forbidden", "the service does not allow it"),
            Self::NotFound => ("not_found", "NotFound", "the service does not find it"),
            Self::TooLarge => ("too_large", "TooLarge", "the request or its answer is too large"),
            Self::OtherRefusal => ("other_refusal", "OtherRefusal", "the service refuses it"),
            Self::InvalidPath => (
                "invalid_path",
                "InvalidPath",
                "spec.revocation.path must be a plain path such as /agent/dev/keys/revoke",
            ),
            Self::RateLimited => ("rate_limited", "RateLimited", "the service's rate limit is reached"),
            Self::BudgetSpent => (
                "budget_spent",
                "BudgetSpent",
                "the request budget is spent (spec.requestsPerHour of the account, --requests-per-hour of the operator)",
            ),
            Self::ServerError => ("server_error", "ServerError", "the service has an error of its own"),
            Self::Redirected => (
                "redirected",
                "Redirected",
                "the answer is a redirect, which is never followed; check the operator's --bags-url",
            ),
            Self::Unreadable => (
                "unreadable",
                "Unreadable",
                "the answer is not one of the service's; check the operator's --bags-url and what lies between",
            ),
            Self::Timeout => ("timeout", "Timeout", "no answer in time"),
            Self::Broken => ("broken", "Broken", "the connection broke before the answer was complete"),
            Self::Dns => ("dns", "Dns", "the service's host name has no address"),
            Self::Connect => ("connect", "Connect", "the service's host does not accept connections"),
            Self::Tls => ("tls", "Tls", "the TLS handshake failed; is the certificate's CA trusted here?"),
            Self::OutOfTime => {
                ("out_of_time", "OutOfTime", "the time for it was over before it could be sent")
            }
        }
    }
}

/// A failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub(super) operation: Operation,
    pub(super) class: Class,
    pub(super) reason: Reason,
    pub(super) status: Option<u16>,
    pub(super) said: Option<String>,
}

impl Error {
    pub(crate) fn new(operation: Operation, class: Class, reason: Reason) -> Self {
        Self { operation, class, reason, status: None, said: None }
    }

    /// What was asked.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// What it means for the caller.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The HTTP status, where there was an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// The earliest time of another try, where the service or a budget names one.
    #[must_use]
    pub fn retry_at(&self) -> Option<Timestamp> {
        match self.class {
            Class::RateLimited { until } => Some(until),
            Class::Refused | Class::NotDone | Class::Unknown => None,
        }
    }

    /// Whether a key may have been made although no value arrived.
    #[must_use]
    pub fn may_have_created(&self) -> bool {
        self.operation.creates() && self.class == Class::Unknown
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "failed to {}: {}", self.operation.text(), self.reason.text())?;
        if let Some(status) = self.status {
            write!(formatter, " (HTTP {status})")?;
        }
        if let Class::RateLimited { until } = self.class {
            write!(formatter, "; next try after {}", nearest_second(until))?;
        }
        match &self.said {
            Some(said) => write!(formatter, "; it says: {said}"),
            None => Ok(()),
        }
    }
}

/// How a request ended, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered as asked, which includes a probe's 401 and a missing revoke endpoint.
    Done,
    /// Failed.
    Failed(Reason),
}

impl Outcome {
    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed(reason) => reason.label(),
        }
    }
}

/// Who counts requests.
pub trait Observer: Send + Sync {
    /// One request has ended. A request that a budget held back counts as well, with [`Reason::BudgetSpent`] or
    /// [`Reason::RateLimited`]. `took`: from when it was sent; `None`: it was not sent.
    fn request(&self, operation: Operation, outcome: Outcome, took: Option<Duration>);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn labels_and_names_are_distinct_and_of_their_form() {
        let labels: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        let operations: BTreeSet<_> = Operation::ALL.iter().map(|operation| operation.label()).collect();
        assert_eq!((labels.len(), names.len(), operations.len()), (24, 24, 7));
        assert!(
            labels
                .iter()
                .chain(&operations)
                .all(|label| label.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()))
        );
        for reason in Reason::ALL {
            assert_eq!(format!("{reason:?}"), reason.name());
        }
    }

    #[test]
    fn a_message_says_what_why_and_when() {
        let until = "2026-11-23T12:00:00.9Z".parse().unwrap();
        let mut error = Error::new(Operation::List, Class::RateLimited { until }, Reason::RateLimited);
        error.status = Some(429);
        assert_eq!(
            error.to_string(),
            "failed to list the account's keys: the service's rate limit is reached (HTTP 429); next try after 2026-11-23T12:00:01Z"
        );
    }
}
