//! One slot of the ledger: which ApiKey it belongs to, which key it speaks of, and where that key is in its life.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The record of one key that exists or may exist, or of one place kept for it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Slot {
    /// The ApiKey it belongs to.
    pub owner: Owner,
    /// `<environment>/<application>`.
    #[serde(rename = "use")]
    pub key_use: String,
    /// 1, 2, 3…: keys made for the owner.
    pub revision: i64,
    /// Where the key is in its life.
    pub state: SlotState,
    /// The one try that may have made the key; absent while only a place is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,
    /// The key's full name at Bags; absent while only a place is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_name: Option<String>,
    /// The key's id at Bags, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The user of Bags for whom the key was to be made. Lists of another user prove nothing about it. Absent: that was not known
    /// yet, or only a place is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Number of the switch that last put the key into the consumer Secret; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<i64>,
    /// The owner's highest switch number when the slot last held a place only, so that numbers never repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_switch: Option<i64>,
    /// The text of the annotation `keys.bags.fm/rotate` for which this key, or one before it, was made. The same text again asks for
    /// nothing. Absent: nobody has asked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// How many rotations in a row ended with a switch back to this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switched_back: Option<i64>,
    /// Since when it is in this state; of `Creating`: the time of the licence.
    #[schemars(with = "k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime")]
    pub since: Timestamp,
    /// Attempts in a row that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<Failures>,
}

/// The ApiKey that a slot belongs to.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Namespace of the ApiKey.
    pub namespace: String,
    /// Name of the ApiKey.
    pub name: String,
    /// Uid of the ApiKey.
    pub uid: String,
}

/// Failed attempts in a row.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    /// How many.
    pub count: i64,
    /// When the last one failed.
    #[schemars(with = "k8s_openapi::apimachinery::pkg::apis::meta::v1::Time")]
    pub at: Timestamp,
    /// Why, as one word.
    pub reason: String,
}

/// State of a slot; the transitions are in `ledger::slots`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(from = "String", into = "String")]
pub enum SlotState {
    /// A place is kept; no key exists.
    Reserved,
    /// A licence was given: a creation may be under way, or its value is being verified.
    Creating,
    /// The key works and is, or was, in the consumer Secret.
    Live,
    /// The key exists, its value is lost; it is revoked next.
    Lost,
    /// Whether the key exists is not known.
    Unresolved,
    /// To be revoked, or revoked and not yet proven dead. One-way.
    Revoking,
    /// Left to people on purpose; still counted.
    Released,
    /// Written by a newer version: this version changes nothing.
    Unknown(String),
}

impl From<String> for SlotState {
    fn from(text: String) -> Self {
        match text.as_str() {
            "Reserved" => Self::Reserved,
            "Creating" => Self::Creating,
            "Live" => Self::Live,
            "Lost" => Self::Lost,
            "Unresolved" => Self::Unresolved,
            "Revoking" => Self::Revoking,
            "Released" => Self::Released,
            _ => Self::Unknown(text),
        }
    }
}

impl SlotState {
    /// The state's name as it stands in the ledger.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Reserved => "Reserved",
            Self::Creating => "Creating",
            Self::Live => "Live",
            Self::Lost => "Lost",
            Self::Unresolved => "Unresolved",
            Self::Revoking => "Revoking",
            Self::Released => "Released",
            Self::Unknown(text) => text,
        }
    }
}

impl From<SlotState> for String {
    fn from(state: SlotState) -> Self {
        state.as_str().to_owned()
    }
}

/// A plain string in the schema: a newer version's state must stay readable, and means hold.
impl JsonSchema for SlotState {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SlotState".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}
