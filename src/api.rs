//! The kinds of `keys.bags.fm/v1alpha1`: types, validation rules and constants. No I/O, no clock, no client.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub mod account;
pub mod apikey;
#[cfg(test)]
pub(crate) mod arbitrary;
pub mod condition;
pub mod duration;
pub mod fingerprint;
pub mod name;
pub mod rotation;
mod rules;
mod schema;

pub use account::{BagsAccount, BagsAccountSpec, BagsAccountStatus};
pub use apikey::{ApiKey, ApiKeySpec, ApiKeyStatus};

/// The definitions of both kinds, as they go to a cluster.
#[must_use]
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [ApiKey::crd(), BagsAccount::crd()]
}

/// The API group of every kind and the prefix of every annotation and label.
pub const GROUP: &str = "keys.bags.fm";
/// Finalizer on an ApiKey (until its keys are dead or handed over) and on a BagsAccount (until no slot is left).
pub const FINALIZER: &str = "keys.bags.fm/keys";

/// Annotations that people set.
pub mod annotation {
    /// On an ApiKey being deleted: revoke at once, although workloads may still read the Secret. Any value but `false`.
    pub const DELETE_NOW: &str = "keys.bags.fm/delete-now";
    /// On an ApiKey: any text; a new one asks for a rotation, the same one again asks for nothing.
    pub const ROTATE: &str = "keys.bags.fm/rotate";
    /// On a BagsAccount: comma-separated attempts whose keys a person has removed at Bags.
    pub const RESOLVED: &str = "keys.bags.fm/resolved";
    /// On a BagsAccount: comma-separated attempts of keys whose ApiKeys vanished (`OrphanedKeys`) and that nothing uses any
    /// more: they are revoked.
    pub const REVOKE: &str = "keys.bags.fm/revoke";
    /// On a BagsAccount: the cluster and the namespace of the operator that takes the account over: `<uid of kube-system>/<namespace>`.
    pub const TAKE_OVER: &str = "keys.bags.fm/take-over";
    /// On a BagsAccount being deleted: let it go although slots are left.
    pub const FORGET: &str = "keys.bags.fm/forget";
    /// On a workload or its pod template: `false`, and the operator never restarts it; its pods still hold a revocation
    /// up.
    pub const RESTART: &str = "keys.bags.fm/restart";
    /// On a pod template: `true`, and the application re-reads its mounted file of the Secret.
    pub const RELOADS: &str = "keys.bags.fm/reloads";
}

/// Marks that the operator puts on Secrets, and on the pod templates of workloads that it restarts.
pub mod mark {
    /// Label: the uid of the ApiKey that a consumer Secret or a keystore Secret belongs to.
    pub const OWNER_UID: &str = "keys.bags.fm/owner-uid";
    /// Label of a keystore Secret: the attempt whose key it holds or awaits.
    pub const ATTEMPT: &str = "keys.bags.fm/attempt";
    /// Label of a keystore Secret: the BagsAccount.
    pub const ACCOUNT: &str = "keys.bags.fm/account";
    /// Label of a keystore Secret: the revision of the key.
    pub const REVISION: &str = "keys.bags.fm/revision";
    /// Annotation of a keystore Secret: namespace of its ApiKey.
    pub const OWNER_NAMESPACE: &str = "keys.bags.fm/owner-namespace";
    /// Annotation of a keystore Secret and of a consumer Secret: name of its ApiKey.
    pub const OWNER_NAME: &str = "keys.bags.fm/owner-name";
    /// Annotation of a keystore Secret: what its key is for, as `<environment>/<application>`.
    pub const USE: &str = "keys.bags.fm/use";
    /// Annotation of a keystore Secret: the token of `keys.bags.fm/rotate` that its key was made for, or that its owner had had
    /// when it was made.
    pub const TRIGGER: &str = "keys.bags.fm/trigger";
    /// Annotation of a keystore Secret: the full name of its key at Bags.
    pub const KEY_NAME: &str = "keys.bags.fm/key-name";
    /// Annotation of a keystore Secret: the key's id at Bags, once known.
    pub const KEY_ID: &str = "keys.bags.fm/key-id";
    /// Annotation of a keystore Secret: version of the account's credentials that its key was made with.
    pub const CREDENTIALS: &str = "keys.bags.fm/credentials-version";
    /// Annotation of a keystore Secret: uid of `kube-system` and the operator's namespace, as `<uid>/<namespace>`.
    pub const INSTALLATION: &str = "keys.bags.fm/installation";
    /// Annotation of a keystore Secret: its key is left to people (`deletionPolicy: Orphan`), or was about to be. Read only where
    /// the ledger was lost.
    pub const RELEASED: &str = "keys.bags.fm/released";
    /// Annotation of a consumer Secret: the number of the switch that wrote it.
    pub const SWITCH: &str = "keys.bags.fm/switch";
    /// Annotation of a consumer Secret: the attempt whose value it holds.
    pub const SWITCH_ATTEMPT: &str = "keys.bags.fm/switch-attempt";
    /// Annotation of a consumer Secret: when that switch was made (RFC 3339).
    pub const SWITCH_TIME: &str = "keys.bags.fm/switch-time";
    /// Annotation of a pod template, with the name of the ApiKey behind it: the switch that the workload was restarted
    /// for.
    pub const RESTART_MARK_PREFIX: &str = "restart.keys.bags.fm/";
    /// `app.kubernetes.io/managed-by` and its value.
    pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "bags-operator");
}
