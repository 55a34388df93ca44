//! The body of a request, which is parsed once, whoever looks into it.

use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::Value;

/// What a request carries.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    bytes: Bytes,
    json: OnceLock<Result<Value, serde_json::Error>>,
}

impl Payload {
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// The parser's.
    pub(crate) fn json(&self) -> Result<&Value, &serde_json::Error> {
        self.json.get_or_init(|| serde_json::from_slice(&self.bytes)).as_ref()
    }

    /// The body as JSON; `null` where it is none.
    pub(crate) fn value(&self) -> &Value {
        self.json().unwrap_or(&Value::Null)
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, json: OnceLock::new() }
    }
}
