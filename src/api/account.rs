//! `BagsAccount`: the platform team's account at Bags, and in its status the ledger of the account's keys.
#![expect(unreachable_pub, reason = "KubeSchema copies each struct into a function, with its visibility")]

mod slot;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::slot::{Failures, Owner, Slot, SlotState};
use super::{rules, schema};

/// An account at Bags: its credentials, its limits, and who may use it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "keys.bags.fm",
    version = "v1alpha1",
    kind = "BagsAccount",
    status = "BagsAccountStatus",
    derive = "PartialEq",
    shortname = "bacct",
    category = "bags",
    doc = "A BagsAccount is the platform team's account at Bags: its credentials, who may use it, and in its status \
           the ledger of its keys.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.capacity.used"),
    printcolumn(name = "Limit", type_ = "integer", json_path = ".status.capacity.limit"),
    printcolumn(name = "Reserved", type_ = "integer", json_path = ".status.capacity.reserved"),
    printcolumn(name = "Unmanaged", type_ = "integer", json_path = ".status.capacity.unmanaged"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.capacity.available"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "User", type_ = "string", json_path = ".status.user", priority = 1),
    printcolumn(name = "Revoke", type_ = "string", json_path = ".status.capabilities.revoke", priority = 1),
    validation = rules::object_name()
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::absent_is_absent)]
#[x_kube(validation = rules::reserve_within_limit())]
pub struct BagsAccountSpec {
    /// How the operator proves to Bags who it is. At least one of the two.
    pub credentials: Credentials,
    /// The account's uuid at Bags. Default: the first one seen, then pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::user())]
    pub expected_user: Option<String>,
    /// Keys that Bags allows this account. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub limit: Option<i64>,
    /// Slots left free for rotations. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub rotation_reserve: Option<i64>,
    /// Keys made elsewhere, where the account cannot list them. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub unmanaged_keys: Option<i64>,
    /// What happens to a new ApiKey for which no slot is free. `Deny`: it is refused at once; `Queue`: it is admitted with a warning, and
    /// waits. Default: Deny.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Admission>,
    /// How keys are revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
    /// Which namespaces may use the account for which environments. Default: nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allowed: Vec<Allowed>,
    /// Requests an hour that the operator may spend on this account; half of them at once. Default: 250.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // With fewer, no half holds what one key takes: lists, challenge, code, creation, proof.
    #[schemars(range(min = 30, max = 5000))]
    pub requests_per_hour: Option<i64>,
}

/// Where the account's credentials are: Secrets in the operator's own namespace only.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::some_credential())]
pub struct Credentials {
    /// The wallet, the documented way to make keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wallet: Option<WalletRef>,
    /// The agent token, which lists keys and their last use, revokes them, and makes them where there is no wallet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_token: Option<TokenRef>,
}

/// A wallet in a Secret of the operator's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WalletRef {
    /// Name of the Secret.
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::secret_name())]
    pub secret_name: String,
    /// Data field of the wallet file. Default: `wallet.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::data_field())]
    pub field: Option<String>,
    /// Data field of the TOTP secret, where the account has a second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::data_field())]
    pub totp_field: Option<String>,
}

/// An agent token in a Secret of the operator's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TokenRef {
    /// Name of the Secret.
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::secret_name())]
    pub secret_name: String,
    /// Data field of the token. Default: `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::data_field())]
    pub field: Option<String>,
}

/// What happens to an ApiKey for which no slot is free.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// It is refused at once.
    #[default]
    Deny,
    /// It is admitted with a warning, and waits: for waves of GitOps, restores, renames on a full account.
    Queue,
    /// A word of a newer version: it is refused.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// How keys of the account are revoked.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocation {
    /// Who revokes. `Auto`: the operator, where it can; `Person`: it always asks a person to. Default: Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RevocationMode>,
    /// Path of the revoke endpoint below the base URL. Default: `/agent/dev/keys/revoke`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::path())]
    pub path: Option<String>,
}

/// Who revokes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RevocationMode {
    /// The operator, where the account's endpoint answers; a person otherwise.
    #[default]
    Auto,
    /// Always a person. A word of a newer version means this too.
    #[serde(other)]
    Person,
}

/// Namespaces that may use the account.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(validation = rules::names_namespaces())]
pub struct Allowed {
    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    #[x_kube(validation = rules::namespaces())]
    pub namespaces: Vec<String>,
    /// Namespaces by label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub selector: Option<LabelSelector>,
    /// Environments; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63)))]
    #[x_kube(validation = rules::environments())]
    pub environments: Vec<String>,
    /// How many ApiKeys of one namespace may have keys, over all entries that match it; absent: no bound but the account's. The
    /// second key of a rotation does not count: it takes a place of `rotationReserve`, or a free one of the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max: Option<i64>,
}

/// What is known of an account. The slots are the record that decides; the rest is shown to people.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::absent_is_absent)]
pub struct BagsAccountStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, CredentialsValid, ListCovers, RevocationNeedsPerson, RotationsStarved, QuotaAvailable, OverQuota,
    /// AdmissionEnforced, KeyUnresolved, OrphanedKeys, StrayKeys, StrayValues.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The ledger: every key that exists or may exist, and every place kept for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub slots: Vec<Slot>,
    /// The last 20 attempts whose slots are gone. A list that lags may still show their keys: they are not taken for another cluster's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub departed: Vec<String>,
    /// The sums over the slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// What the account can do, as far as tried.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// The account's uuid at Bags, pinned at the first key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The installation that owns this ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installation: Option<Installation>,
    /// Bags said that a rate limit is reached: until this time nothing is asked of it but revocations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>")]
    pub paused_until: Option<Timestamp>,
    /// What a refusal of Bags taught about keys made elsewhere, whether or not the account lists them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<LimitRefusal>,
    /// Credentials that led to another user of Bags, as `<Secret>/<field>@<resourceVersion>`, separated by commas, with
    /// `|<expectedUser>` where one was set. No key is made until one of these changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distrusted_credentials: Option<String>,
    /// Version of the token Secret whose list was last seen to cover the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covering_token: Option<String>,
}

impl BagsAccountStatus {
    /// Pins the user that the account's keys belong to, and gives the former one. A list that covered the account was that one's.
    pub fn pin_user(&mut self, user: Option<String>) -> Option<String> {
        let before = std::mem::replace(&mut self.user, user);
        if before.is_some() && before != self.user {
            self.covering_token = None;
        }
        before
    }
}

/// Sums over the slots of an account.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Keys that Bags allows.
    pub limit: i64,
    /// Slots and unmanaged keys.
    pub used: i64,
    /// Slots kept for rotations.
    pub reserved: i64,
    /// Keys made elsewhere.
    pub unmanaged: i64,
    /// ApiKeys that still fit.
    pub available: i64,
}

/// What an account can do.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// Make keys.
    #[serde(default)]
    pub create: Capability,
    /// List keys.
    #[serde(default)]
    pub list: Capability,
    /// Show last use.
    #[serde(default)]
    pub last_used: Capability,
    /// Revoke keys.
    #[serde(default)]
    pub revoke: Capability,
    /// When the revoke endpoint was last found missing; it is tried again a day later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>")]
    pub revoke_tried_at: Option<Timestamp>,
    /// Path and version of the token Secret with which it was last tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_tried_with: Option<String>,
}

/// Whether an account can do something.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capability {
    /// It was seen to work.
    Yes,
    /// It was seen not to be there.
    No,
    /// Not tried yet. A word of a newer version means this too.
    #[default]
    #[serde(other)]
    Unknown,
}

/// One installation of the operator.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Uid of the namespace `kube-system`.
    pub cluster: String,
    /// The operator's namespace.
    pub namespace: String,
}

/// Bags refused a creation for its limit although the ledger had room.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct LimitRefusal {
    /// Keys made elsewhere, at least, as far as the refusal shows.
    pub unmanaged: i64,
    /// Refusals in a row.
    pub count: i64,
    /// `metadata.generation` of the account then: whoever edits it since is believed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When the last one came; believed for 1, 2, 4 … 24 h.
    #[schemars(with = "k8s_openapi::apimachinery::pkg::apis::meta::v1::Time")]
    pub at: Timestamp,
}

impl BagsAccount {
    /// Keys that Bags allows.
    #[must_use]
    pub fn limit(&self) -> i64 {
        self.spec.limit.unwrap_or(10)
    }

    /// What happens to an ApiKey that does not fit.
    #[must_use]
    pub fn admission(&self) -> Admission {
        match self.spec.admission.unwrap_or_default() {
            Admission::Queue => Admission::Queue,
            Admission::Deny | Admission::Unknown => Admission::Deny,
        }
    }

    /// Whether the labels of namespaces decide who may use the account.
    #[must_use]
    pub fn allows_by_label(&self) -> bool {
        self.spec.allowed.iter().any(|entry| entry.selector.is_some())
    }

    /// Slots left free for rotations.
    #[must_use]
    pub fn rotation_reserve(&self) -> i64 {
        self.spec.rotation_reserve.unwrap_or(1)
    }

    /// Requests an hour for this account.
    #[must_use]
    pub fn requests_per_hour(&self) -> i64 {
        self.spec.requests_per_hour.unwrap_or(250)
    }

    /// The user that the account's keys must belong to, where one is set or known.
    #[must_use]
    pub fn expected_user(&self) -> Option<&str> {
        let pinned = self.status.as_ref().and_then(|status| status.user.as_deref());
        self.spec.expected_user.as_deref().filter(|user| !user.is_empty()).or(pinned)
    }

    /// Whether a list of this token has covered the account of the user that its keys must belong to. `covering`: the token whose
    /// list did. A person may have named another user in the spec since.
    #[must_use]
    pub fn is_covered_by(&self, token: Option<&str>, covering: Option<&str>) -> bool {
        let pinned = self.status.as_ref().and_then(|status| status.user.as_deref());
        covering.is_some() && covering == token && pinned == self.expected_user()
    }

    /// Path of the revoke endpoint below the base URL.
    #[must_use]
    pub fn revocation_path(&self) -> &str {
        let revocation = self.spec.revocation.as_ref();
        revocation.and_then(|r| r.path.as_deref()).unwrap_or("/agent/dev/keys/revoke")
    }

    /// Who revokes.
    #[must_use]
    pub fn revocation_mode(&self) -> RevocationMode {
        self.spec.revocation.as_ref().and_then(|r| r.mode).unwrap_or_default()
    }

    /// The `allowed` entries that match a namespace (by name or labels) for an environment.
    pub fn allowing<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a BTreeMap<String, String>,
        environment: &'a str,
    ) -> impl Iterator<Item = &'a Allowed> {
        self.spec.allowed.iter().filter(move |allowed| {
            allowed.matches_namespace(namespace, labels)
                && (allowed.environments.is_empty() || allowed.environments.iter().any(|e| e == environment))
        })
    }
}

impl Allowed {
    /// Whether the entry speaks of a namespace.
    #[must_use]
    pub fn matches_namespace(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self.namespaces.iter().any(|name| name == namespace)
            || self.selector.as_ref().is_some_and(|selector| selects(selector, labels))
    }
}

/// Whether a label selector with at least one term selects these labels. An empty selector selects nothing:
/// `selector: {}` next to a list of namespaces must not open the account to everybody.
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let terms = selector.match_labels.as_ref().map_or(0, BTreeMap::len)
        + selector.match_expressions.as_ref().map_or(0, Vec::len);
    if terms == 0 {
        return false;
    }
    kube::core::Selector::try_from(selector.clone()).is_ok_and(|selector| {
        use kube::core::SelectorExt;
        selector.matches(labels)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::bags_account;

    fn account(allowed: &str) -> BagsAccount {
        let spec = format!("{{credentials: {{agentToken: {{secretName: bags}}}}, allowed: {allowed}}}");
        BagsAccount::new("main", serde_saphyr::from_str(&spec).unwrap())
    }

    fn allows(allowed: &str, namespace: &str, label: (&str, &str), environment: &str) -> bool {
        let labels = BTreeMap::from([(label.0.to_owned(), label.1.to_owned())]);
        account(allowed).allowing(namespace, &labels, environment).next().is_some()
    }

    #[test]
    fn a_namespace_is_allowed_by_name_or_label_for_the_environments_of_that_entry() {
        let team = ("team", "shop");
        for (says, allowed, expected) in [
            ("nobody by default", "[]", false),
            ("by name", "[{namespaces: [shop]}]", true),
            ("another name", "[{namespaces: [shop-2]}]", false),
            ("by label", "[{selector: {matchLabels: {team: shop}}}]", true),
            ("another label", "[{selector: {matchLabels: {team: web}}}]", false),
            ("by expression", "[{selector: {matchExpressions: [{key: team, operator: Exists}]}}]", true),
            ("an empty selector is not everybody", "[{selector: {}}]", false),
            ("an empty selector beside another name", "[{namespaces: [web], selector: {}}]", false),
            (
                "an operator of a newer version",
                "[{selector: {matchExpressions: [{key: team, operator: Gt}]}}]",
                false,
            ),
            ("the environment", "[{namespaces: [shop], environments: [production]}]", true),
            ("another environment", "[{namespaces: [shop], environments: [staging]}]", false),
            (
                "environments of an entry for others",
                "[{namespaces: [web], environments: [production]}, {namespaces: [shop], environments: [staging]}]",
                false,
            ),
        ] {
            assert_eq!(allows(allowed, "shop", team, "production"), expected, "{says}");
        }
    }

    #[test]
    fn defaults_stand_in_for_what_is_not_written() {
        let account = account("[]");
        assert_eq!((account.limit(), account.rotation_reserve(), account.requests_per_hour()), (10, 1, 250));
        assert_eq!(account.revocation_path(), "/agent/dev/keys/revoke");
        assert_eq!(account.revocation_mode(), RevocationMode::Auto);
    }

    #[test]
    fn a_word_of_a_newer_version_means_hold_and_does_not_hide_the_object() {
        let account = bags_account(&serde_json::json!({
            "spec": {"admission": "Auction", "revocation": {"mode": "Delayed"}},
            "status": {"capabilities": {"create": "Yes", "list": "Partly", "lastUsed": "No", "revoke": "Later"}},
        }));
        assert_eq!(
            account.admission(),
            Admission::Deny,
            "nobody is let in for a word that nobody understands"
        );
        assert_eq!(account.revocation_mode(), RevocationMode::Person);
        let known = account.status.unwrap().capabilities;
        assert_eq!((known.create, known.last_used), (Capability::Yes, Capability::No));
        assert_eq!((known.list, known.revoke), (Capability::Unknown, Capability::Unknown));
    }

    #[test]
    fn a_state_of_a_newer_version_survives_a_read_and_a_write() {
        let state: SlotState = serde_json::from_str("\"Quarantined\"").unwrap();
        assert_eq!(state, SlotState::Unknown("Quarantined".to_owned()));
        assert_eq!(serde_json::to_string(&state).unwrap(), "\"Quarantined\"");
    }
}
