//! What Secrets held, and when: kubelets serve them from caches that lag.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use tokio::time::Instant;

/// The field that holds the key.
pub(super) const FIELD: &str = "BAGS_API_KEY";

/// Every state of every Secret, oldest first; none: it was not there, or held no key.
#[derive(Default)]
pub(super) struct History(BTreeMap<String, Vec<(Instant, Option<String>)>>);

impl History {
    /// A Secret was written, or deleted.
    pub(super) fn note(&mut self, name: &str, now: Instant, secret: Option<&Value>) {
        let value = secret.and_then(|secret| STANDARD.decode(secret["data"][FIELD].as_str()?).ok());
        let value = value.and_then(|value| String::from_utf8(value).ok());
        let states = self.0.entry(name.to_owned()).or_default();
        if states.last().is_none_or(|(_, last)| *last != value) {
            states.push((now, value));
        }
    }

    /// What it holds now.
    pub(super) fn newest(&self, name: &str) -> Option<String> {
        self.0.get(name)?.last()?.1.clone()
    }

    /// What it held at a time.
    pub(super) fn at(&self, name: &str, time: Instant) -> Option<String> {
        self.0.get(name)?.iter().rev().find(|(since, _)| *since <= time)?.1.clone()
    }

    /// The first time after this one at which it held something else.
    pub(super) fn changed_after(&self, name: &str, time: Instant) -> Option<Instant> {
        self.0.get(name)?.iter().map(|(since, _)| *since).find(|since| *since > time)
    }
}

/// A time so long before another one, or the other one where the clock does not reach back as far.
pub(super) fn before(time: Instant, lag: Duration) -> Instant {
    time.checked_sub(lag).unwrap_or(time)
}
