//! What an account has for one ApiKey that asks for a first slot. Pure; admission and the controllers ask the same.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt;

use super::permission::{Permission, permission};
use crate::{
    api::{ApiKey, BagsAccount},
    ledger::{Ledger, Room},
    timings::Timings,
};

/// An ApiKey's claim on a slot, as the account and the other ApiKeys leave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What the account offers.
    pub room: Room,
    /// Whether the ApiKey may use it.
    pub permission: Permission,
    /// Older ApiKeys that wait for a first slot.
    pub ahead: usize,
    /// Another living ApiKey that holds the same use, as `namespace/name`.
    pub use_rival: Option<String>,
}

impl Claim {
    /// The claim of `key`; `others` are ApiKeys that may be of the same account, `labels` those of the key's namespace.
    #[must_use]
    pub fn of(
        account: &BagsAccount,
        ledger: &Ledger,
        key: &ApiKey,
        others: &[Arc<ApiKey>],
        labels: &BTreeMap<String, String>,
        now: Timestamp,
        timings: &Timings,
    ) -> Self {
        let others: Vec<&ApiKey> =
            others.iter().map(|other| &**other).filter(|other| competes(other, key)).collect();
        let ahead = others.iter().filter(|other| waits_before(account, ledger, other, key)).filter(|other| {
            !others.iter().any(|third| third != *other && holds_use_before(ledger, third, other))
        });
        Self {
            room: Room::of(account, now, timings),
            permission: permission(account, ledger, key, labels),
            ahead: ahead.count(),
            use_rival: others
                .iter()
                .find(|other| holds_use_before(ledger, other, key))
                .map(|other| path(other)),
        }
    }

    /// Whether a first slot is free for it.
    #[must_use]
    pub fn fits(&self, ledger: &Ledger) -> bool {
        self.room.fits_new(&ledger.slots, self.ahead)
    }
}

/// Another living ApiKey of the same account.
fn competes(other: &ApiKey, key: &ApiKey) -> bool {
    other.spec.account_ref == key.spec.account_ref
        && other.metadata.uid != key.metadata.uid
        && other.metadata.deletion_timestamp.is_none()
}

/// Whether another ApiKey waits for a first slot and is older.
fn waits_before(account: &BagsAccount, ledger: &Ledger, other: &ApiKey, key: &ApiKey) -> bool {
    let uid = other.uid().unwrap_or_default();
    older(other, key)
        && !other.suspended()
        && other.key_use() != key.key_use()
        && ledger.owned_by(&uid).next().is_none()
        && permission(account, ledger, other, &BTreeMap::new()) == Permission::Granted
}

/// Whether another living ApiKey has the same use: with a slot, or before us.
fn holds_use_before(ledger: &Ledger, other: &ApiKey, key: &ApiKey) -> bool {
    let uid = other.uid().unwrap_or_default();
    other.key_use() == key.key_use() && (ledger.owned_by(&uid).next().is_some() || older(other, key))
}

/// Whether another ApiKey came first: by creation, then by uid.
pub(super) fn older(other: &ApiKey, key: &ApiKey) -> bool {
    let age = |key: &ApiKey| (key.metadata.creation_timestamp.as_ref().map(|time| time.0), key.uid());
    age(other) < age(key)
}

fn path(key: &ApiKey) -> String {
    format!("{}/{}", key.namespace().unwrap_or_default(), key.name_any())
}
