//! The client of the Bags service, over one HTTP seam.
//!
//! - `transport`: the seam (a `tower` service over HTTP requests), its production leaf, the base URL.
//! - `wallet`, `totp`, `token`: the credentials an account can have.
//! - `types`: what the service's answers mean; `wire` and `answer` (private): how they are read.
//! - `error`: what went wrong, and whether a key may exist nevertheless.
//! - `budget`: how many requests may be sent.
//! - `client`: one method per operation.
//!
//! Nothing in here retries, sleeps, logs, or keeps state beyond a budget: when to ask again is the caller's
//! decision. Whatever holds a secret is wiped when dropped and has no `Display`, no `Serialize`, and a `Debug`
//! that shows nothing. How the service behaves is documented at <https://docs.bags.fm>; where the
//! documentation is silent, the client takes an answer for unreadable rather than for a refusal.

mod answer;
mod budget;
mod client;
mod error;
mod token;
mod totp;
mod transport;
mod types;
mod wallet;
mod wire;

#[cfg(test)]
mod tests;

pub use budget::{Budget, Priority, Throttled};
pub use client::BagsClient;
pub use error::{Class, Error, Observer, Operation, Outcome, Reason};
pub use token::{AgentToken, AgentTokenError};
pub use totp::{TotpSecret, TotpSecretError, next_code};
pub use transport::base_url::{BaseUrl, BaseUrlError, DEFAULT_BASE_URL};
pub use transport::https::{HttpsError, https};
pub use transport::{BagsService, Body, REQUEST_LIMIT, RESPONSE_LIMIT, Stage, TransportError};
pub use types::{
    Challenge, CreatedKey, KeyList, KeyValue, KeyValueError, ListedKey, Probe, Revocation, UserId,
};
pub use wallet::{Wallet, WalletError};
