//! `ApiKey`: what a tenant asks for. It can name no endpoint, no other namespace, no template.
#![expect(unreachable_pub, reason = "KubeSchema copies each struct into a function, with its visibility")]

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::rotation::{
    Day, EffectiveRollout, EffectiveRotation, OnRolloutFailure, Restart, Rollout, RolloutSpec, Rotation,
    RotationSpec, RotationWindow, WindowSpec,
};
use super::{account::Owner, rules, schema};

/// One key for one application in one environment.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "keys.bags.fm",
    version = "v1alpha1",
    kind = "ApiKey",
    namespaced,
    status = "ApiKeyStatus",
    derive = "PartialEq",
    shortname = "bkey",
    category = "bags",
    doc = "An ApiKey asks for one key at Bags, for one application in one environment, delivered in a Secret.",
    selectable = ".spec.accountRef.name",
    selectable = ".spec.environment",
    printcolumn(name = "Account", type_ = "string", json_path = ".spec.accountRef.name"),
    printcolumn(name = "Environment", type_ = "string", json_path = ".spec.environment"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.binding.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Last used", type_ = "date", json_path = ".status.current.lastUsedAt"),
    // A string: a `date` is shown as the time since, and one that is to come as `<invalid>`.
    printcolumn(name = "Next rotation", type_ = "string", json_path = ".status.nextRotation"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Key id", type_ = "string", json_path = ".status.current.keyId", priority = 1),
    printcolumn(name = "Key name", type_ = "string", json_path = ".status.current.keyName", priority = 1),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.current.revision", priority = 1),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", priority = 1),
    validation = rules::object_name(),
    validation = rules::application_stays(),
    validation = rules::secret_name_stays(),
    validation = rules::default_key_name_says_something()
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::absent_is_absent)]
#[x_kube(validation = rules::api_key_field_stays(), validation = rules::base_url_field_stays())]
pub struct ApiKeySpec {
    /// The BagsAccount in which the key is made. Cannot change.
    pub account_ref: AccountRef,
    /// What the key is used in: production, staging, development, testing, or another word. Cannot change.
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::environment(), validation = rules::environment_stays())]
    pub environment: String,
    /// The application the key is for. Default: `metadata.name`. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::application())]
    pub application: Option<String>,
    /// The key's name at Bags, which says what it is for: two or more words joined by `-`, for example
    /// `Production-Web-Dashboard`. Default: `<Environment>-<Application>`. An edit takes effect with the next key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::key_name_words(), validation = rules::key_name_says_something())]
    pub key_name: Option<String>,
    /// For people; the operator does not use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub purpose: Option<String>,
    /// The Secret that applications read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretTemplate>,
    /// When the key is replaced by a new one, and for how long both are valid. Absent: only on demand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationSpec>,
    /// Who is restarted so that all pods have the new key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutSpec>,
    /// What happens when the ApiKey is deleted. `Revoke`: the key is revoked once no pod reads the Secret, and the Secret goes;
    /// `Orphan`: both stay. Default: Revoke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// `true`: no key is made, the Secret is not written, and a rotation waits with both keys valid; a deletion goes on. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// Reference to a BagsAccount by name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct AccountRef {
    /// Name of the BagsAccount.
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::account_name(), validation = rules::account_stays())]
    pub name: String,
}

/// The consumer Secret: where it is and what else it carries.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::fields_differ())]
pub struct SecretTemplate {
    /// Name of the Secret in the ApiKey's namespace. Default: `metadata.name`. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::secret_name())]
    pub name: Option<String>,
    /// Data field of the key's value. Default: `BAGS_API_KEY`. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::data_field())]
    pub api_key_field: Option<String>,
    /// Data field of the service's base URL; `""` leaves it out. Default: `BAGS_BASE_URL`. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::data_field_or_none())]
    pub base_url_field: Option<String>,
    /// Labels to put on the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    #[x_kube(
        validation = rules::metadata_keys(),
        validation = rules::metadata_keys_are_free(),
        validation = rules::label_values()
    )]
    pub labels: BTreeMap<String, String>,
    /// Annotations to put on the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    #[x_kube(validation = rules::metadata_keys(), validation = rules::metadata_keys_are_free())]
    pub annotations: BTreeMap<String, String>,
}

/// What deletion of an ApiKey does to its key at Bags.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// The key is revoked and the Secret removed.
    #[default]
    Revoke,
    /// Key and Secret stay; the key still counts as one of the account's.
    Orphan,
    /// A word of a newer version: a deletion waits.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// What is known of an ApiKey, for people and tools. The operator decides by the ledger in the status of the BagsAccount; of this
/// status it uses `switch` alone, which a new process can learn nowhere else.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::absent_is_absent)]
pub struct ApiKeyStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, QuotaAvailable, SecretSynced, Rotating, OldKeyRevoked, ZeroDowntime.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Where the key is in its life, computed from its slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The key whose value the Secret holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<CurrentKey>,
    /// The slots of this ApiKey.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub keys: Vec<KeySummary>,
    /// A copy of the last switch; the consumer Secret and the ledger are the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<Switch>,
    /// Why a rotation does not begin (`RotationBlocked`), or does not end (`RotationHeld`: both keys stay valid meanwhile), and since
    /// when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldStatus>,
    /// When the next scheduled rotation begins. Absent: on demand only; or not known yet; or none will, as the last three were turned
    /// back, or as a window names a time zone that does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>")]
    pub next_rotation: Option<Timestamp>,
    /// The text of the annotation `keys.bags.fm/rotate` that was last acted upon. `hash:…` stands for one of more than 40 characters, or
    /// with others than letters, digits and `._:-`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_rotate: Option<String>,
    /// Effective values of the optional fields of the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<EffectiveValues>,
    /// The Secret to bind to (servicebinding.io).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
}

/// The key whose value the consumer Secret holds.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CurrentKey {
    /// 1, 2, 3…: keys made for this ApiKey.
    pub revision: i64,
    /// The attempt that made it.
    pub attempt: String,
    /// Its id at Bags, where the service told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Its full name at Bags.
    pub key_name: String,
    /// When it went into the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>")]
    pub published_at: Option<Timestamp>,
    /// When Bags last saw a request with it, where the account can show that. The operator's own requests count as well. Updated once
    /// an hour at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>")]
    pub last_used_at: Option<Timestamp>,
}

/// One slot of this ApiKey, for display.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KeySummary {
    /// State of the slot in the ledger.
    pub state: String,
    /// 1, 2, 3…
    pub revision: i64,
    /// The attempt, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,
    /// The key's id at Bags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The key's full name at Bags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_name: Option<String>,
    /// Since when the slot is in this state.
    #[schemars(with = "k8s_openapi::apimachinery::pkg::apis::meta::v1::Time")]
    pub since: Timestamp,
}

/// One publication of a key in the consumer Secret.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Switch {
    /// 1, 2, 3…: publications for this ApiKey.
    pub count: i64,
    /// The attempt whose value was published.
    pub attempt: String,
    /// When.
    #[schemars(with = "k8s_openapi::apimachinery::pkg::apis::meta::v1::Time")]
    pub at: Timestamp,
    /// Since when no pod has been seen that holds another value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>")]
    pub clean_since: Option<Timestamp>,
    /// When the old key was last used after `cleanSince`, as far as lists have shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>")]
    pub old_key_used_at: Option<Timestamp>,
    /// Workloads that were restarted for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub marked: Vec<String>,
}

/// A rotation that does not go on by itself.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HoldStatus {
    /// As one word.
    pub reason: String,
    /// Whether it waits for a second slot of the account, and for nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits_for_slot: bool,
    /// Since when.
    #[schemars(with = "k8s_openapi::apimachinery::pkg::apis::meta::v1::Time")]
    pub since: Timestamp,
}

/// What the optional fields of the spec come to.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveValues {
    /// The application.
    pub application: String,
    /// The key's name at Bags, without cluster and attempt.
    pub key_name: String,
    /// The Secret's name.
    pub secret_name: String,
    /// How it is rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<EffectiveRotation>,
    /// How its workloads are restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<EffectiveRollout>,
}

/// Service Binding: the Secret's name.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Name of the Secret.
    pub name: String,
}

impl ApiKey {
    /// The effective application: `spec.application`, or the object's name.
    #[must_use]
    pub fn application(&self) -> String {
        self.use_parts().1.to_owned()
    }

    /// The object's name, or the beginning of the one that it will get.
    fn name(&self) -> &str {
        let metadata = &self.metadata;
        metadata.name.as_deref().or(metadata.generate_name.as_deref()).unwrap_or_default()
    }

    /// Its name in the ledger.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner {
            namespace: self.namespace().unwrap_or_default(),
            name: self.name_any(),
            uid: self.uid().unwrap_or_default(),
        }
    }

    /// The effective name at Bags, before cluster and attempt are added.
    #[must_use]
    pub fn key_name(&self) -> String {
        self.spec
            .key_name
            .clone()
            .unwrap_or_else(|| super::name::default_key_name(&self.spec.environment, &self.application()))
    }

    /// What the key is for: `<environment>/<application>`. One key per use and account.
    #[must_use]
    pub fn key_use(&self) -> String {
        let (environment, application) = self.use_parts();
        format!("{environment}/{application}")
    }

    /// Environment and effective application, for comparisons without a copy.
    pub(crate) fn use_parts(&self) -> (&str, &str) {
        (&self.spec.environment, self.spec.application.as_deref().unwrap_or_else(|| self.name()))
    }

    /// The effective name of the consumer Secret.
    #[must_use]
    pub fn secret_name(&self) -> String {
        self.secret_parts().1.to_owned()
    }

    /// Namespace and effective name of the consumer Secret, for comparisons without a copy.
    pub(crate) fn secret_parts(&self) -> (Option<&str>, &str) {
        let named = self.spec.secret.as_ref().and_then(|secret| secret.name.as_deref());
        (self.metadata.namespace.as_deref(), named.unwrap_or_else(|| self.name()))
    }

    /// The effective data field of the value.
    #[must_use]
    pub fn api_key_field(&self) -> &str {
        let template = self.spec.secret.as_ref();
        template.and_then(|secret| secret.api_key_field.as_deref()).unwrap_or("BAGS_API_KEY")
    }

    /// The effective data field of the base URL; `None` where it is left out.
    #[must_use]
    pub fn base_url_field(&self) -> Option<&str> {
        let template = self.spec.secret.as_ref();
        let field = template.and_then(|secret| secret.base_url_field.as_deref()).unwrap_or("BAGS_BASE_URL");
        (!field.is_empty()).then_some(field)
    }

    /// The effective deletion policy.
    #[must_use]
    pub fn deletion_policy(&self) -> DeletionPolicy {
        self.spec.deletion_policy.unwrap_or_default()
    }

    /// Whether it is suspended.
    #[must_use]
    pub fn suspended(&self) -> bool {
        self.spec.suspend.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api_key(spec: &str) -> ApiKey {
        ApiKey::new("web-dashboard", serde_saphyr::from_str(spec).unwrap())
    }

    #[test]
    fn defaults_stand_in_for_what_is_not_written() {
        let key = api_key("{accountRef: {name: main}, environment: production}");
        assert_eq!(
            (key.application().as_str(), key.key_use().as_str()),
            ("web-dashboard", "production/web-dashboard")
        );
        assert_eq!(
            (key.key_name().as_str(), key.secret_name().as_str()),
            ("Production-Web-Dashboard", "web-dashboard")
        );
        assert_eq!((key.api_key_field(), key.base_url_field()), ("BAGS_API_KEY", Some("BAGS_BASE_URL")));
        assert_eq!((key.deletion_policy(), key.suspended()), (DeletionPolicy::Revoke, false));
    }

    #[test]
    fn what_is_written_stands() {
        let key = api_key(
            "{accountRef: {name: main}, environment: staging, application: orders, keyName: Staging-Shop-Orders, \
              secret: {name: bags, apiKeyField: key, baseUrlField: ''}, deletionPolicy: Orphan, suspend: true}",
        );
        assert_eq!(
            (key.key_use().as_str(), key.key_name().as_str()),
            ("staging/orders", "Staging-Shop-Orders")
        );
        assert_eq!((key.secret_name().as_str(), key.api_key_field()), ("bags", "key"));
        assert_eq!(key.base_url_field(), None, "an empty field leaves the URL out");
        assert_eq!((key.deletion_policy(), key.suspended()), (DeletionPolicy::Orphan, true));
    }

    #[test]
    fn a_word_of_a_newer_version_does_not_hide_the_object() {
        let key = api_key("{accountRef: {name: main}, environment: staging, deletionPolicy: Archive}");
        assert_eq!(key.deletion_policy(), DeletionPolicy::Unknown, "neither revoked nor left");
    }
}
