//! What Secrets held, and when: kubelets serve them from caches that lag.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use tokio::time::Instant;

/// The field that holds the key, unless an ApiKey says otherwise.
pub(crate) const FIELD: &str = "BAGS_API_KEY";

/// Every state of a field, oldest first; none: it was not there.
type States = Vec<(Instant, Option<String>)>;

/// The states of every field of every Secret.
#[derive(Default)]
pub(super) struct History(BTreeMap<String, BTreeMap<String, States>>);

impl History {
    /// A Secret was written, or deleted.
    pub(super) fn note(&mut self, name: &str, now: Instant, secret: Option<&Value>) {
        let data = secret.and_then(|secret| secret["data"].as_object());
        let fields = self.0.entry(name.to_owned()).or_default();
        for field in data.into_iter().flat_map(serde_json::Map::keys) {
            fields.entry(field.clone()).or_default();
        }
        for (field, states) in fields {
            let value = secret.and_then(|secret| value_in(secret, field));
            if states.last().is_none_or(|(_, last)| *last != value) {
                states.push((now, value));
            }
        }
    }

    /// What a field of it holds now.
    pub(super) fn newest(&self, (name, field): (&str, &str)) -> Option<String> {
        self.states((name, field))?.last()?.1.clone()
    }

    /// What it held at a time.
    pub(super) fn at(&self, (name, field): (&str, &str), time: Instant) -> Option<String> {
        self.states((name, field))?.iter().rev().find(|(since, _)| *since <= time)?.1.clone()
    }

    /// The first time after this one at which it held something else.
    pub(super) fn changed_after(&self, (name, field): (&str, &str), time: Instant) -> Option<Instant> {
        self.states((name, field))?.iter().map(|(since, _)| *since).find(|since| *since > time)
    }

    fn states(&self, (name, field): (&str, &str)) -> Option<&States> {
        self.0.get(name)?.get(field)
    }
}

/// What a field of a Secret holds; none: it is not there, or no text.
pub(crate) fn value_in(secret: &Value, field: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(secret["data"][field].as_str()?).ok()?).ok()
}

/// A time so long before another one, or the other one where the clock does not reach back as far.
pub(super) fn before(time: Instant, lag: Duration) -> Instant {
    time.checked_sub(lag).unwrap_or(time)
}
