//! Where an ApiKey's key is delivered, as the object says: not by the operator's own code, which may be wrong about it.

use serde_json::Value;

use crate::cluster::FIELD;

/// The name of an ApiKey's Secret.
pub(crate) fn secret_of(key: &Value) -> &str {
    let named = key["spec"]["secret"]["name"].as_str();
    named.or_else(|| key["metadata"]["name"].as_str()).unwrap_or_default()
}

/// The field of its Secret that holds the key.
pub(crate) fn field_of(key: &Value) -> &str {
    key["spec"]["secret"]["apiKeyField"].as_str().unwrap_or(FIELD)
}
