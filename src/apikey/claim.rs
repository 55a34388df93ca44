//! What an account has for one ApiKey that asks for a first slot. Pure; admission and the controllers ask the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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
    /// How many ApiKeys of its namespace may have keys; `None`: any number.
    pub max: Option<i64>,
    /// Older ApiKeys that wait for a first slot, and for nothing else.
    pub ahead: usize,
    /// Another living ApiKey that has the same use and goes before, as `namespace/name`.
    pub use_rival: Option<String>,
    /// Another ApiKey that came first to the name of its Secret and stays, by its name.
    pub secret_rival: Option<String>,
}

/// The ApiKeys that a claim is judged beside.
#[derive(Clone, Debug, Default)]
pub struct Others {
    /// The ApiKeys of the same account, and those of other accounts that may have come first to the Secret's name of one of
    /// them, from the cache or a live read.
    pub keys: Vec<Arc<ApiKey>>,
    /// Uids of owners that were looked for, by a live read where the cache lacks them: an owner that `keys` lacks is gone.
    pub looked_for: BTreeSet<String>,
}

/// How much an ApiKey has of its use, by the ledger. Of two ApiKeys of one use, the one that has more goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stake {
    Nothing,
    /// A place for its first key.
    Place,
    /// A key, or what was one, or may become one.
    Key,
}

impl Stake {
    fn of(ledger: &Ledger, uid: &str) -> Self {
        let stakes = ledger.owned_by(uid).map(|slot| match slot.state {
            SlotState::Reserved if slot.last_switch.is_none() => Self::Place,
            _ => Self::Key,
        });
        stakes.max().unwrap_or(Self::Nothing)
    }
}

impl Claim {
    /// The claim of `key`; `labels` are those of its namespace.
    #[must_use]
    pub fn of(
        account: &BagsAccount,
        ledger: &Ledger,
        key: &ApiKey,
        others: &Others,
        labels: &BTreeMap<String, String>,
        now: Timestamp,
        timings: &Timings,
    ) -> Self {
        let ledger = &ledger.clone().without_earlier_try(&key.owner());
        // A slot whose ApiKey is not seen may belong to one that was admitted and is not stored yet, so it holds the use. If
        // the ApiKey never appears, the account gives the place back.
        let kept_for = same_use(ledger, key)
            .filter(|slot| keeps_use(slot) || !others.looked_for.contains(&slot.owner.uid))
            .find(|slot| {
                !others.keys.iter().any(|other| other.metadata.uid.as_ref() == Some(&slot.owner.uid))
            });
        let everyone = &others.keys;
        let others: Vec<&ApiKey> =
            everyone.iter().map(|other| &**other).filter(|other| competes(other, key)).collect();
        let may = |other: &ApiKey| may(account, ledger, other, key, labels);
        let ahead = others
            .iter()
            .filter(|other| may(other) && waits_before(ledger, other, key))
            .filter(|other| !everyone.iter().any(|third| has_secret_before(third, other)))
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
            secret_rival: everyone
                .iter()
                .find(|other| other.metadata.deletion_timestamp.is_none() && has_secret_before(other, key))
                .map(|other| other.name_any()),
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

/// Whether another ApiKey may use the account, as far as is known: the labels of other namespaces are not at hand. An ApiKey
/// that is allowed only by the labels of its namespace is served as well, but has no place in the order across namespaces, and
/// stops no ApiKey of another namespace before it has a slot.
fn may(
    account: &BagsAccount,
    ledger: &Ledger,
    other: &ApiKey,
    key: &ApiKey,
    labels: &BTreeMap<String, String>,
) -> bool {
    let none = BTreeMap::new();
    let labels = if other.namespace() == key.namespace() { labels } else { &none };
    permission(account, ledger, other, labels) == Permission::Granted
}

/// The owners, by the ledger, of keys of the same use: the use is free only if none of them exists. If the watch is behind, the
/// ledger knows owners that the cache does not show yet.
pub fn holders<'a>(ledger: &'a Ledger, key: &'a ApiKey) -> impl Iterator<Item = &'a Owner> {
    same_use(ledger, key).filter(|slot| !keeps_use(slot)).map(|slot| &slot.owner)
}

/// Slots that, if their owners exist, keep this use from an ApiKey that has no key. A slot of the same namespace and name does
/// not count: an earlier try to create this ApiKey left it.
fn same_use<'a>(ledger: &'a Ledger, key: &'a ApiKey) -> impl Iterator<Item = &'a Slot> {
    let (own, key_use) = (key.owner(), key.key_use());
    let has_key = Stake::of(ledger, &own.uid) == Stake::Key;
    ledger.slots.iter().filter(move |slot| {
        let Owner { namespace, name, uid } = &slot.owner;
        !has_key
            && slot.key_use == key_use
            && own.uid != *uid
            && (own.namespace != *namespace || own.name != *name)
    })
}

/// Whether a slot holds its use even before any cache shows its ApiKey: it is a place, or its key is being made.
fn keeps_use(slot: &Slot) -> bool {
    matches!(slot.state, SlotState::Reserved | SlotState::Creating)
}

/// Whether another ApiKey waits for a first slot and is older.
fn waits_before(ledger: &Ledger, other: &ApiKey, key: &ApiKey) -> bool {
    let uid = other.uid().unwrap_or_default();
    older(other, key)
        && !other.suspended()
        && other.key_use() != key.key_use()
        && ledger.owned_by(&uid).next().is_none()
}

/// Whether another living ApiKey has the same use and goes before this one: it has more of the use, or as much and is older. So
/// if lagging caches let two ApiKeys in and both have a place, exactly one gets a key. If both have a key already, neither is
/// kept from replacing its own.
fn holds_use_before(ledger: &Ledger, other: &ApiKey, key: &ApiKey, may: &impl Fn(&ApiKey) -> bool) -> bool {
    let stake = |key: &ApiKey| Stake::of(ledger, &key.uid().unwrap_or_default());
    other.key_use() == key.key_use()
        && match (stake(other), stake(key)) {
            (Stake::Nothing, Stake::Nothing) => older(other, key) && may(other),
            (Stake::Place, Stake::Place) => older(other, key),
            (theirs, ours) => theirs > ours,
        }
}

/// Whether another ApiKey of the namespace names the same Secret and is older: it goes before this one for as long as it
/// exists.
pub(super) fn has_secret_before(other: &ApiKey, key: &ApiKey) -> bool {
    other.namespace() == key.namespace()
        && other.metadata.uid != key.metadata.uid
        && other.secret_name() == key.secret_name()
        && older(other, key)
}

/// Whether another ApiKey came first: by creation, then by uid.
fn older(other: &ApiKey, key: &ApiKey) -> bool {
    let age = |key: &ApiKey| (key.metadata.creation_timestamp.as_ref().map(|time| time.0), key.uid());
    age(other) < age(key)
}

fn path(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        apikey::fixtures::{account, key, now},
        ledger::slots::tests::slot,
    };

    /// ApiKeys of one use, the older one first.
    fn two() -> [ApiKey; 2] {
        ["first", "second"].map(|name| {
            let mut key = key();
            (key.metadata.name, key.metadata.uid) = (Some(name.to_owned()), Some(name.to_owned()));
            key.spec.application = Some("web".to_owned());
            key
        })
    }

    /// Whether the first one, and the second one, has to wait for the other, with slots in these states.
    fn waits(first: &[SlotState], second: &[SlotState]) -> (bool, bool) {
        let [older, younger] = two();
        let slots = [(&older, first), (&younger, second)].into_iter().flat_map(|(key, states)| {
            let of_use =
                |state: &SlotState| Slot { key_use: key.key_use(), ..slot(&key.owner(), state.clone()) };
            states.iter().map(of_use).collect::<Vec<_>>()
        });
        let ledger = Ledger { slots: slots.collect(), departed: vec![] };
        let others = Others { keys: two().map(Arc::new).to_vec(), ..Others::default() };
        let waits = |key: &ApiKey| {
            let (labels, timings) = (BTreeMap::new(), Timings::default());
            Claim::of(&account(), &ledger, key, &others, &labels, now(), &timings).use_rival.is_some()
        };
        (waits(&older), waits(&younger))
    }

    #[test]
    fn of_two_that_want_one_use_whoever_has_more_of_it_goes_first() {
        use SlotState::{Creating, Live, Lost, Reserved};
        let (first_waits, second_waits, nobody_waits) = ((true, false), (false, true), (false, false));
        let cases: [(&str, &[SlotState], &[SlotState], _); 9] = [
            ("neither has anything", &[], &[], second_waits),
            ("the younger one has a place", &[], &[Reserved], first_waits),
            ("both have a place", &[Reserved], &[Reserved], second_waits),
            ("the older one is on its way", &[Creating], &[Reserved], second_waits),
            ("the younger one is on its way", &[Reserved], &[Creating], first_waits),
            ("the younger one has a key", &[Reserved], &[Live], first_waits),
            ("both have a key", &[Live], &[Live], nobody_waits),
            ("the younger one of two is rotated", &[Live], &[Live, Reserved], nobody_waits),
            ("the younger one of two lost its key", &[Live], &[Lost, Reserved], nobody_waits),
        ];
        for (what, first, second, expected) in cases {
            assert_eq!(waits(first, second), expected, "{what}");
        }
    }

    #[test]
    fn who_may_use_the_account_by_labels_that_are_not_known_stops_nobody_by_being_there() {
        let [mut older, younger] = two();
        older.metadata.namespace = Some("elsewhere".to_owned());
        let mut account = account();
        account.spec.allowed = serde_json::from_value(serde_json::json!([
            {"selector": {"matchLabels": {"team": "shop"}}},
        ]))
        .unwrap();
        let labels = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
        let waits = |slots: Vec<Slot>| {
            let ledger = Ledger { slots, departed: vec![] };
            let others = Others { keys: vec![Arc::new(older.clone())], ..Others::default() };
            let claim = Claim::of(&account, &ledger, &younger, &others, &labels, now(), &Timings::default());
            claim.use_rival.is_some()
        };
        assert!(!waits(vec![]), "nobody knows whether it may");
        let place = Slot { key_use: older.key_use(), ..slot(&older.owner(), SlotState::Reserved) };
        assert!(waits(vec![place]), "it was let in");
    }
}
