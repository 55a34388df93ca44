//! Whether an account allows an ApiKey. Pure; asked at each use, not only at admission.

use std::collections::BTreeMap;

use kube::ResourceExt;

use crate::{
    api::{ApiKey, BagsAccount},
    ledger::Ledger,
};

/// What an account says to an ApiKey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    /// It may have a key.
    Granted,
    /// The namespace is not allowed.
    Namespace,
    /// The namespace is allowed, the environment is not; those that are.
    Environment(Vec<String>),
    /// The namespace has as many keys as it may have.
    Max(i64),
}

/// Asks an account; `labels` are the namespace's. An ApiKey with a slot is not refused for `max`.
///
/// The `max` of a namespace is the sum over the entries that match it; an entry without one sets no bound.
#[must_use]
pub fn permission(
    account: &BagsAccount,
    ledger: &Ledger,
    key: &ApiKey,
    labels: &BTreeMap<String, String>,
) -> Permission {
    let namespace = key.namespace().unwrap_or_default();
    let uid = key.uid().unwrap_or_default();
    let entries: Vec<_> =
        account.spec.allowed.iter().filter(|entry| entry.matches_namespace(&namespace, labels)).collect();
    if entries.is_empty() {
        return Permission::Namespace;
    }
    if account.allowing(&namespace, labels, &key.spec.environment).next().is_none() {
        let mut environments: Vec<_> = entries.iter().flat_map(|entry| entry.environments.clone()).collect();
        environments.sort();
        environments.dedup();
        return Permission::Environment(environments);
    }
    let max = entries.iter().try_fold(0_i64, |sum, entry| Some(sum.saturating_add(entry.max?)));
    let taken = ledger.slots.iter().filter(|slot| slot.owner.namespace == namespace).count();
    let full = max.filter(|max| i64::try_from(taken).unwrap_or(i64::MAX) >= *max);
    match full {
        Some(max) if ledger.owned_by(&uid).next().is_none() => Permission::Max(max),
        Some(_) | None => Permission::Granted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::account::SlotState,
        ledger::slots::tests::{owner, slot},
    };

    fn ask(allowed: &str, slots: usize) -> Permission {
        let allowed: serde_json::Value = serde_json::from_str(allowed).unwrap();
        let account: BagsAccount = serde_json::from_value(serde_json::json!({
            "apiVersion": "keys.bags.fm/v1alpha1", "kind": "BagsAccount", "metadata": {"name": "main"},
            "spec": {"credentials": {}, "allowed": allowed},
        }))
        .unwrap();
        let key: ApiKey = serde_json::from_value(serde_json::json!({
            "apiVersion": "keys.bags.fm/v1alpha1", "kind": "ApiKey",
            "metadata": {"name": "web", "namespace": "shop", "uid": "uid-9"},
            "spec": {"accountRef": {"name": "main"}, "environment": "staging"},
        }))
        .unwrap();
        let slots = (0..slots).map(|n| slot(&owner(n), SlotState::Live)).collect();
        let labels = BTreeMap::from([("team".to_owned(), "web".to_owned())]);
        permission(&account, &Ledger { slots, departed: vec![] }, &key, &labels)
    }

    #[test]
    fn an_account_says_why_not() {
        let production = Permission::Environment(vec!["production".into()]);
        let cases = [
            ("nobody by default", "[]", 0, Permission::Namespace),
            ("by name", r#"[{"namespaces": ["shop"]}]"#, 0, Permission::Granted),
            ("by label", r#"[{"selector": {"matchLabels": {"team": "web"}}}]"#, 0, Permission::Granted),
            (
                "by another label",
                r#"[{"selector": {"matchLabels": {"team": "x"}}}]"#,
                0,
                Permission::Namespace,
            ),
            ("an empty selector opens nothing", r#"[{"selector": {}}]"#, 0, Permission::Namespace),
            (
                "another environment",
                r#"[{"namespaces": ["shop"], "environments": ["production"]}]"#,
                0,
                production,
            ),
            ("below max", r#"[{"namespaces": ["shop"], "max": 2}]"#, 1, Permission::Granted),
            ("at max", r#"[{"namespaces": ["shop"], "max": 2}]"#, 2, Permission::Max(2)),
            (
                "max is a sum",
                r#"[{"namespaces": ["shop"], "max": 2}, {"namespaces": ["shop"], "max": 1}]"#,
                2,
                Permission::Granted,
            ),
            (
                "one entry without max",
                r#"[{"namespaces": ["shop"], "max": 0}, {"namespaces": ["shop"]}]"#,
                5,
                Permission::Granted,
            ),
        ];
        for (name, allowed, slots, expected) in cases {
            assert_eq!(ask(allowed, slots), expected, "{name}");
        }
    }

    #[test]
    fn a_sum_of_max_beyond_all_numbers_is_no_small_one() {
        let edge = i64::MAX;
        let allowed =
            format!(r#"[{{"namespaces": ["shop"], "max": {edge}}}, {{"namespaces": ["shop"], "max": 1}}]"#);
        assert_eq!(ask(&allowed, 5), Permission::Granted);
    }
}
