//! What an account has for one ApiKey that asks for a first slot. Pure; admission and the controllers ask the same.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
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
        let first = ahead(ledger, key, everyone, &others, &may);
        let max = max_of(account, &key.namespace().unwrap_or_default(), labels);
        let permission = match (permission(account, ledger, key, labels), max) {
            // What its namespace may still have is for those of it that came first.
            (Permission::Granted, Some(max)) if is_behind(ledger, key, &first, max) => Permission::Max(max),
            (told, _) => told,
        };
        Self {
            room: Room::of(account, now, timings),
            permission,
            max,
            ahead: first.len(),
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

/// Whether nothing is left for an ApiKey without a slot of what its namespace may have, once the older ones of it are served.
fn is_behind(ledger: &Ledger, key: &ApiKey, first: &[&ApiKey], max: i64) -> bool {
    let here = first.iter().filter(|other| other.metadata.namespace == key.metadata.namespace).count();
    let here = i64::try_from(here).unwrap_or(i64::MAX);
    let has_slot = ledger.owned_by(key.metadata.uid.as_deref().unwrap_or_default()).next().is_some();
    !has_slot && ledger.owners_in(&key.namespace().unwrap_or_default()).saturating_add(here) >= max
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

/// The ApiKeys of another use that are older, have no slot, and wait for nothing else: neither for the name of their Secret nor
/// for their use. Linear in their number: thousands may wait, and each of them asks at each change of the account.
fn ahead<'a>(
    ledger: &Ledger,
    key: &ApiKey,
    everyone: &[Arc<ApiKey>],
    others: &[&'a ApiKey],
    may: &impl Fn(&ApiKey) -> bool,
) -> Vec<&'a ApiKey> {
    let owners: HashSet<&str> = ledger.slots.iter().map(|slot| slot.owner.uid.as_str()).collect();
    let has_slot = |other: &ApiKey| owners.contains(other.metadata.uid.as_deref().unwrap_or_default());
    // Whoever has a slot goes before all of its use that have none; of those the oldest one goes first.
    let held: HashSet<(&str, &str)> =
        others.iter().filter(|other| has_slot(other)).map(|other| other.use_parts()).collect();
    // Without a slot, all of one namespace and environment may use the account, or none.
    let mut known = HashMap::new();
    let mut may = |other: &'a ApiKey| {
        let of = (other.metadata.namespace.as_deref(), other.spec.environment.as_str());
        *known.entry(of).or_insert_with(|| may(other))
    };
    let waiting = others.iter().copied().filter(|other| older(other, key) && !has_slot(other) && may(other));
    let of_use = oldest(waiting, ApiKey::use_parts);
    let everyone = everyone.iter().map(|other| &**other).filter(|other| older(other, key));
    let of_secret = oldest(everyone, ApiKey::secret_parts);
    let goes_on = |other: &ApiKey| {
        let first = of_secret.get(&other.secret_parts());
        !other.suspended() && first.is_some_and(|first| first.metadata.uid == other.metadata.uid)
    };
    let own = key.use_parts();
    of_use
        .into_iter()
        .filter(|(key_use, other)| *key_use != own && !held.contains(key_use) && goes_on(other))
        .map(|(_, other)| other)
        .collect()
}

/// The oldest ApiKey of each name.
fn oldest<'a, N: Eq + Hash>(
    keys: impl Iterator<Item = &'a ApiKey>,
    name: impl Fn(&'a ApiKey) -> N,
) -> HashMap<N, &'a ApiKey> {
    let mut oldest = HashMap::new();
    for key in keys {
        let known = oldest.entry(name(key)).or_insert(key);
        if older(key, known) {
            *known = key;
        }
    }
    oldest
}

/// Whether another living ApiKey has the same use and goes before this one: it has more of the use, or as much and is older. So
/// if lagging caches let two ApiKeys in and both have a place, exactly one gets a key. If both have a key already, neither is
/// kept from replacing its own.
fn holds_use_before(ledger: &Ledger, other: &ApiKey, key: &ApiKey, may: &impl Fn(&ApiKey) -> bool) -> bool {
    let stake = |key: &ApiKey| Stake::of(ledger, &key.uid().unwrap_or_default());
    other.use_parts() == key.use_parts()
        && match (stake(other), stake(key)) {
            (Stake::Nothing, Stake::Nothing) => older(other, key) && may(other),
            (Stake::Place, Stake::Place) => older(other, key),
            (theirs, ours) => theirs > ours,
        }
}

/// Whether another ApiKey of the namespace names the same Secret and is older: it goes before this one for as long as it
/// exists.
pub(super) fn has_secret_before(other: &ApiKey, key: &ApiKey) -> bool {
    other.metadata.uid != key.metadata.uid && other.secret_parts() == key.secret_parts() && older(other, key)
}

/// Whether another ApiKey came first: by creation, then by uid.
fn older(other: &ApiKey, key: &ApiKey) -> bool {
    age(other) < age(key)
}

fn age(key: &ApiKey) -> (Option<Timestamp>, Option<&str>) {
    (key.metadata.creation_timestamp.as_ref().map(|time| time.0), key.metadata.uid.as_deref())
}

fn path(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{
        apikey::fixtures::{account, ago, key, now},
        fixtures::api_key,
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
        account.spec.allowed =
            serde_json::from_value(json!([{"selector": {"matchLabels": {"team": "shop"}}}])).unwrap();
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

    /// An ApiKey with one of three uses and Secrets, of two namespaces and ages, and its slots.
    fn any_key() -> impl Strategy<Value = (ApiKey, Vec<SlotState>)> {
        use SlotState::{Creating, Live, Lost, Released, Reserved, Revoking, Unresolved};
        let names = (0..3_u8, 0..3_u8, prop::sample::select(vec!["shop", "shop", "shop", "elsewhere"]));
        let state =
            prop::sample::select(vec![Reserved, Creating, Live, Lost, Unresolved, Revoking, Released]);
        let slots = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(state, 1..3)];
        let flags = [prop::bool::weighted(0.2), prop::bool::weighted(0.1), prop::bool::weighted(0.1)];
        (names, 0..3_u64, flags, slots).prop_map(|((key_use, secret, namespace), hours, flags, slots)| {
            let [suspend, deleted, elsewhere] = flags;
            let created = ago(Duration::from_hours(hours));
            let key = api_key(&json!({
                "metadata": {"namespace": namespace, "creationTimestamp": Time(created),
                             "deletionTimestamp": deleted.then(|| Time(now()))},
                "spec": {"application": format!("app-{key_use}"), "suspend": suspend,
                         "accountRef": {"name": if elsewhere { "another" } else { "main" }},
                         "secret": {"name": format!("secret-{secret}")}},
            }));
            (key, slots)
        })
    }

    /// Who is ahead, by comparing everybody who waits with everybody.
    fn ahead_by_pairs(
        ledger: &Ledger,
        key: &ApiKey,
        everyone: &[Arc<ApiKey>],
        may: &impl Fn(&ApiKey) -> bool,
    ) -> usize {
        let others: Vec<&ApiKey> =
            everyone.iter().map(|other| &**other).filter(|other| competes(other, key)).collect();
        let waits_before = |other: &ApiKey| {
            older(other, key)
                && !other.suspended()
                && other.key_use() != key.key_use()
                && ledger.owned_by(&other.uid().unwrap_or_default()).next().is_none()
        };
        others
            .iter()
            .filter(|other| may(other) && waits_before(other))
            .filter(|other| !everyone.iter().any(|third| has_secret_before(third, other)))
            .filter(|other| {
                !others.iter().any(|third| third != *other && holds_use_before(ledger, third, other, may))
            })
            .count()
    }

    proptest! {
        #[test]
        fn those_who_are_ahead_are_the_ones_that_comparing_everybody_with_everybody_finds(
            all in prop::collection::vec(any_key(), 1..9),
            max in prop::option::of(1..6_i64),
        ) {
            let mut account = account();
            account.spec.allowed = serde_json::from_value(json!([{"namespaces": ["shop"], "max": max}])).unwrap();
            let (mut keys, mut ledger) = (Vec::new(), Ledger::default());
            for (number, (mut key, states)) in all.into_iter().enumerate() {
                let name = Some(format!("app-{number}"));
                (key.metadata.name, key.metadata.uid) = (name.clone(), name);
                let slots = states.into_iter().map(|state| slot(&key.owner(), state));
                ledger.slots.extend(slots.map(|slot| Slot { key_use: key.key_use(), ..slot }));
                keys.push(Arc::new(key));
            }
            let others = Others { keys, ..Others::default() };
            let (labels, timings) = (BTreeMap::new(), Timings::default());
            for key in &others.keys {
                let claim = Claim::of(&account, &ledger, key, &others, &labels, now(), &timings);
                let may = |other: &ApiKey| may(&account, &ledger, other, key, &labels);
                prop_assert_eq!(claim.ahead, ahead_by_pairs(&ledger, key, &others.keys, &may), "{}", key.name_any());
            }
        }
    }
}
