//! What an account has for one ApiKey that asks for a first slot. Pure; admission and the controllers ask the same.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt;

use super::permission::{Permission, max_of, permission};
use crate::{
    api::{
        ApiKey, BagsAccount,
        account::{Owner, Slot, SlotState},
    },
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
    /// So many ApiKeys of its namespace may have keys; `None`: any number.
    pub max: Option<i64>,
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
        let ledger = &ledger.clone().without_earlier_try(&key.owner());
        let going = |uid: &str| {
            others.iter().any(|other| {
                other.metadata.deletion_timestamp.is_some() && other.metadata.uid.as_deref() == Some(uid)
            })
        };
        let kept_for = ledger.slots.iter().find(|slot| keeps_use(slot, key) && !going(&slot.owner.uid));
        let others: Vec<&ApiKey> =
            others.iter().map(|other| &**other).filter(|other| competes(other, key)).collect();
        let may = |other: &ApiKey| may(account, ledger, other, key, labels);
        let ahead = others
            .iter()
            .filter(|other| may(other) == May::Yes && waits_before(ledger, other, key))
            .filter(|other| {
                !others.iter().any(|third| third != *other && holds_use_before(ledger, third, other, &may))
            });
        Self {
            room: Room::of(account, now, timings),
            permission: permission(account, ledger, key, labels),
            max: max_of(account, &key.namespace().unwrap_or_default(), labels),
            ahead: ahead.count(),
            use_rival: others
                .iter()
                .find(|other| holds_use_before(ledger, other, key, &may))
                .map(|other| path(&other.namespace().unwrap_or_default(), &other.name_any()))
                .or_else(|| kept_for.map(|slot| path(&slot.owner.namespace, &slot.owner.name))),
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

/// Whether another ApiKey may use the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    Yes,
    No,
    /// That depends on the labels of its namespace, which are not at hand.
    Perhaps,
}

fn may(
    account: &BagsAccount,
    ledger: &Ledger,
    other: &ApiKey,
    key: &ApiKey,
    labels: &BTreeMap<String, String>,
) -> May {
    let neighbour = other.namespace() == key.namespace();
    let none = BTreeMap::new();
    match permission(account, ledger, other, if neighbour { labels } else { &none }) {
        Permission::Granted => May::Yes,
        Permission::Namespace | Permission::Environment(_) if !neighbour && account.allows_by_label() => {
            May::Perhaps
        }
        Permission::Namespace | Permission::Environment(_) | Permission::Max(_) => May::No,
    }
}

/// Whether a place or a key on its way has the same use. The ledger knows of it before any cache shows its ApiKey; that of
/// the same name is what became of an earlier try.
fn keeps_use(slot: &Slot, key: &ApiKey) -> bool {
    let Owner { namespace, name, uid } = &slot.owner;
    matches!(slot.state, SlotState::Reserved | SlotState::Creating)
        && slot.key_use == key.key_use()
        && key.metadata.uid.as_ref() != Some(uid)
        && (key.metadata.namespace.as_ref() != Some(namespace) || key.metadata.name.as_ref() != Some(name))
}

/// Whether another ApiKey waits for a first slot and is older.
fn waits_before(ledger: &Ledger, other: &ApiKey, key: &ApiKey) -> bool {
    let uid = other.uid().unwrap_or_default();
    older(other, key)
        && !other.suspended()
        && other.key_use() != key.key_use()
        && ledger.owned_by(&uid).next().is_none()
}

/// Whether another living ApiKey has the same use: with a slot, or before us and not refused the account.
fn holds_use_before(ledger: &Ledger, other: &ApiKey, key: &ApiKey, may: &impl Fn(&ApiKey) -> May) -> bool {
    let uid = other.uid().unwrap_or_default();
    other.key_use() == key.key_use()
        && (ledger.owned_by(&uid).next().is_some() || (older(other, key) && may(other) != May::No))
}

/// Whether another ApiKey came first: by creation, then by uid.
pub(super) fn older(other: &ApiKey, key: &ApiKey) -> bool {
    let age = |key: &ApiKey| (key.metadata.creation_timestamp.as_ref().map(|time| time.0), key.uid());
    age(other) < age(key)
}

fn path(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}
