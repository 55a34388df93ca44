//! Why an ApiKey rests without a key: whether what it says of that is still so.
//!
//! Asked of what stands in the cluster, and not of any cache; and only as far as it can be told for certain, by a rule of a few
//! words or by the sums that the ledger's invariants are judged by. What cannot is believed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bags_operator::{
    api::{
        BagsAccount,
        account::{Allowed, Slot, SlotState},
        annotation,
    },
    ledger::{Ledger, Room},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::condition;
use crate::{
    creation::uid,
    oracle::Oracle,
    process::OPERATOR_NAMESPACE,
    scene::{ACCOUNT, Scene, TENANT, secret_of},
};

/// Reasons of those who wait for something else than a place: they are ahead of nobody.
const NOT_FOR_A_PLACE: [&str; 6] = [
    "Suspended",
    "DuplicateUse",
    "SecretConflict",
    "NamespaceNotAllowed",
    "EnvironmentNotAllowed",
    "NamespaceQuotaExceeded",
];

/// What ApiKeys may wait for.
pub(super) struct Waiting<'a> {
    scene: &'a Scene,
    ledger: &'a Ledger,
    account: Option<BagsAccount>,
    room: Option<Room>,
    keys: Vec<Arc<Value>>,
    /// Of the tenant's namespace.
    labels: BTreeMap<String, String>,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(scene: &'a Scene, oracle: &Oracle, ledger: &'a Ledger) -> Self {
        let account = scene.api.get("bagsaccounts", "", ACCOUNT);
        let account = account.and_then(|account| BagsAccount::deserialize(&*account).ok());
        let now: Timestamp = scene.api.now().parse().unwrap_or_default();
        let namespace = scene.api.get("namespaces", "", TENANT);
        let labels = namespace.and_then(|it| BTreeMap::deserialize(&it["metadata"]["labels"]).ok());
        Self {
            scene,
            ledger,
            room: account.as_ref().map(|account| oracle.room_of(account, now)),
            account,
            keys: scene.api.list("apikeys"),
            labels: labels.unwrap_or_default(),
        }
    }

    /// Whether it is so, what an ApiKey that has no key says of that.
    pub(super) fn is_so(&self, reason: &str, key: &Value) -> bool {
        match reason {
            "Suspended" => key["spec"]["suspend"] == true,
            "AccountNotFound" => self.account.is_none(),
            "AccountDeleting" => self.account_is_deleted(),
            "NewerLedger" => self.ledger.unknown_state(),
            "NamespaceNotAllowed" => self.entries().next().is_none(),
            "EnvironmentNotAllowed" => !self.allows(key),
            "NamespaceQuotaExceeded" => self.namespace_is_full_for(key),
            "QuotaExceeded" => self.is_full_for(key),
            "DuplicateUse" => self.use_is_taken(key),
            "SecretConflict" => self.secret_is_taken(key),
            "CredentialsMissing" => self.credentials_are_missing(key),
            "CredentialsUnreadable" | "CredentialsRefused" => self.scene.credentials_are_kept_away(),
            _ => true,
        }
    }

    /// Whether an ApiKey that is being deleted stays for a reason: pods refer to its Secret, and nobody says that none uses its key; or the
    /// operator may neither look at them nor remove the Secret. A key that is left to people waits for neither, nor does one of a namespace
    /// that goes, or of no account.
    pub(super) fn holds_up(&self, key: &Value) -> bool {
        let namespace = self.scene.api.get("namespaces", "", TENANT);
        let going = namespace.is_none_or(|it| !it["metadata"]["deletionTimestamp"].is_null());
        if going || self.account.is_none() || key["spec"]["deletionPolicy"] == "Orphan" {
            return false;
        }
        let word = &key["metadata"]["annotations"][annotation::DELETE_NOW];
        let word = word.as_str().is_some_and(|word| word != "false");
        let secret = format!("\"{}\"", secret_of(key));
        let reads = |pod: &Arc<Value>| {
            !["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == **phase)
                && pod["spec"].to_string().contains(&secret)
        };
        let has_key = self.ledger.current(uid(key)).is_some();
        self.scene.api.withholds(TENANT) || has_key && !word && self.scene.api.list("pods").iter().any(reads)
    }

    /// Whether an account that is being deleted stays for a reason: it has slots, or an ApiKey that is being deleted as well.
    pub(super) fn holds_account_up(&self) -> bool {
        let deleting = |key: &Arc<Value>| !key["metadata"]["deletionTimestamp"].is_null();
        !self.ledger.slots.is_empty() || self.keys.iter().any(deleting)
    }

    /// Whether the account is being deleted.
    pub(super) fn account_is_deleted(&self) -> bool {
        self.account.as_ref().is_some_and(|account| account.metadata.deletion_timestamp.is_some())
    }

    /// Whether a rotation that says that it waits for a second slot could have one.
    pub(super) fn has_second_slot(&self) -> bool {
        self.room.as_ref().is_some_and(|room| room.fits_extra(&self.ledger.slots))
    }

    /// What the account says of the tenant's namespace.
    fn entries(&self) -> impl Iterator<Item = &Allowed> {
        let all = self.account.iter().flat_map(|account| &account.spec.allowed);
        all.filter(move |entry| entry.matches_namespace(TENANT, &self.labels))
    }

    fn allows(&self, key: &Value) -> bool {
        let environment = key["spec"]["environment"].as_str().unwrap_or_default();
        let account = self.account.as_ref();
        account.is_some_and(|it| it.allowing(TENANT, &self.labels, environment).next().is_some())
    }

    /// Whether as many ApiKeys have slots as the entries allow together, or will once older ones have theirs; one without a bound
    /// sets none.
    fn namespace_is_full_for(&self, key: &Value) -> bool {
        let most = self.entries().try_fold(0_i64, |sum, entry| Some(sum.saturating_add(entry.max?)));
        let owners: BTreeSet<&str> = self.ledger.slots.iter().map(|slot| slot.owner.uid.as_str()).collect();
        let count = owners.len() + self.ahead_of(key);
        most.is_some_and(|most| i64::try_from(count).is_ok_and(|count| count >= most))
    }

    /// Whether there is no slot for its first key, or none yet for that in the place that it has.
    fn is_full_for(&self, key: &Value) -> bool {
        let Some(room) = &self.room else { return true };
        let own: Vec<&Slot> = self.ledger.owned_by(uid(key)).collect();
        match own.as_slice() {
            [] => !room.fits_new(&self.ledger.slots, self.ahead_of(key)),
            [place] if place.state == SlotState::Reserved => !room.fits_creation(&self.ledger.slots, place),
            [..] => true,
        }
    }

    /// How many older ones wait for a place, or for nobody knows what.
    fn ahead_of(&self, key: &Value) -> usize {
        let waits = |other: &Value| {
            other["metadata"]["deletionTimestamp"].is_null()
                && self.ledger.owned_by(uid(other)).next().is_none()
                && !NOT_FOR_A_PLACE.contains(&condition(other, "Ready").1)
        };
        self.keys.iter().filter(|other| age(other) < age(key) && waits(other)).count()
    }

    /// Whether another ApiKey has its use, or a key or a place for it. Of several none of which has one, not all can wait
    /// for the others.
    fn use_is_taken(&self, key: &Value) -> bool {
        let wanted = use_of(key);
        let waits = |other: &Value| condition(other, "Ready").1 == "DuplicateUse";
        let of_slots =
            self.ledger.slots.iter().any(|slot| slot.key_use == wanted && slot.owner.uid != uid(key));
        of_slots || self.others(key).any(|other| use_of(other) == wanted && !waits(other))
    }

    /// Whether there is a Secret of its Secret's name, or another ApiKey that has it.
    fn secret_is_taken(&self, key: &Value) -> bool {
        let name = secret_of(key);
        self.scene.api.get("secrets", TENANT, name).is_some()
            || self.others(key).any(|other| secret_of(other) == name)
    }

    /// Whether the account names credentials that are not there. Of one that names none a creation tells, and is tried again
    /// after long.
    fn credentials_are_missing(&self, key: &Value) -> bool {
        let Some(account) = &self.account else { return true };
        let missing = |secret: &str, field: &str| {
            let secret = self.scene.api.get("secrets", OPERATOR_NAMESPACE, secret);
            secret.is_none_or(|secret| secret["data"][field].is_null())
        };
        let credentials = &account.spec.credentials;
        let wallet = credentials.wallet.as_ref().is_some_and(|wallet| {
            let field = wallet.field.as_deref().unwrap_or("wallet.json");
            let totp = wallet.totp_field.as_deref();
            missing(&wallet.secret_name, field) || totp.is_some_and(|totp| missing(&wallet.secret_name, totp))
        });
        let token = credentials.agent_token.as_ref();
        let token =
            token.is_some_and(|token| missing(&token.secret_name, token.field.as_deref().unwrap_or("token")));
        wallet || token || self.ledger.owned_by(uid(key)).any(|slot| slot.failures.is_some())
    }

    fn others(&self, key: &Value) -> impl Iterator<Item = &Value> {
        let its = uid(key).to_owned();
        self.keys.iter().map(|other| &**other).filter(move |other| uid(other) != its)
    }
}

/// By what it is older than others: when it was made, and its uid where both were made in one second.
fn age(key: &Value) -> (Option<&str>, &str) {
    (key["metadata"]["creationTimestamp"].as_str(), uid(key))
}

/// What a key is for.
fn use_of(key: &Value) -> String {
    let spec = &key["spec"];
    let application = spec["application"].as_str().or_else(|| key["metadata"]["name"].as_str());
    format!("{}/{}", spec["environment"].as_str().unwrap_or_default(), application.unwrap_or_default())
}
