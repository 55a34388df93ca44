//! I7: values, wallets and tokens stand in the Secrets that are theirs, and nowhere else.

use std::collections::BTreeMap;

use bags_operator::api::mark;
use base64::{Engine, engine::general_purpose::STANDARD};
use memchr::memmem::Finder;
use serde_json::Value;

use super::Oracle;
use crate::{
    apiserver::Change,
    process::OPERATOR_NAMESPACE,
    scene::{CREDENTIALS, Scene, TENANT},
};

/// Values, wallets and tokens, plain and in base64.
#[derive(Default)]
pub(super) struct Unspeakable {
    /// How many there were when the searches were made ready.
    known: usize,
    searches: Vec<Finder<'static>>,
}

impl Unspeakable {
    fn stand_in(&mut self, text: &str, values: &BTreeMap<String, String>, scene: &Scene) -> bool {
        let known = values.len() + scene.secret_count();
        if known != self.known {
            let plain = values.keys().cloned().chain(scene.secrets());
            let all = plain.flat_map(|secret| [STANDARD.encode(&secret), secret]);
            *self = Self { known, searches: all.map(|secret| Finder::new(&secret).into_owned()).collect() };
        }
        self.searches.iter().any(|search| search.find(text.as_bytes()).is_some())
    }
}

impl Oracle {
    /// I7. What people write is not looked at.
    pub(super) fn nothing_is_told(&mut self, change: &Change, scene: &Scene) {
        let (resource, metadata) = (change.resource, &change.object["metadata"]);
        let told = if resource == "secrets" {
            let mut secret = (*change.object).clone();
            let data = secret.as_object_mut().and_then(|secret| secret.remove("data"));
            self.stands_elsewhere(metadata, data.as_ref(), scene)
                || self.spoken.stand_in(&secret.to_string(), &self.values, scene)
        } else {
            self.spoken.stand_in(&change.object.to_string(), &self.values, scene)
        };
        if told {
            self.blame(format!("I7: a secret stands in {resource} {}", metadata["name"]));
        }
    }

    /// Whether the data of a Secret has a key's value that is not this Secret's to hold, or credentials.
    fn stands_elsewhere(&self, metadata: &Value, data: Option<&Value>, scene: &Scene) -> bool {
        let is_in = |namespace: &str| metadata["namespace"] == *namespace;
        if is_in(OPERATOR_NAMESPACE) && metadata["name"] == *CREDENTIALS {
            return false;
        }
        let of_an_apikey = is_in(TENANT) && metadata["labels"][mark::OWNER_UID].is_string();
        let may_hold = |attempt: &str| {
            of_an_apikey || is_in(OPERATOR_NAMESPACE) && metadata["name"] == *format!("bags-key-{attempt}")
        };
        let credentials = scene.secrets();
        let fields = data.and_then(Value::as_object).into_iter().flat_map(serde_json::Map::values);
        let mut plain = fields.filter_map(|field| STANDARD.decode(field.as_str()?).ok());
        plain.any(|field| {
            let has = |secret: &str| Finder::new(secret).find(&field).is_some();
            credentials.iter().any(|secret| has(secret))
                || self.values.iter().any(|(value, attempt)| !may_hold(attempt) && has(value))
        })
    }
}
