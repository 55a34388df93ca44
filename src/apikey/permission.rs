//! Whether an account allows an ApiKey. Pure; asked at each use, not only at admission.

use std::collections::BTreeMap;

use kube::ResourceExt;

use crate::{
    api::{ApiKey, BagsAccount, account::Allowed},
    ledger::Ledger,
};

/// What an account says to an ApiKey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    /// It may have a key.
    Granted,
    /// The namespace is not allowed.
    Namespace,
    /// The namespace is allowed, but not the environment; lists the environments that are.
    Environment(Vec<String>),
    /// The namespace has as many keys as it may have, or will have once those of it are served that came first.
    Max(i64),
}

/// Asks an account; `labels` are the namespace's. An ApiKey with a slot is not refused for `max`, and counts once however many
/// slots it has.
#[must_use]
pub fn permission(
    account: &BagsAccount,
    ledger: &Ledger,
    key: &ApiKey,
    labels: &BTreeMap<String, String>,
) -> Permission {
    let namespace = key.namespace().unwrap_or_default();
    let uid = key.uid().unwrap_or_default();
    let entries = matching(account, &namespace, labels);
    if entries.is_empty() {
        return Permission::Namespace;
    }
    if account.allowing(&namespace, labels, &key.spec.environment).next().is_none() {
        let mut environments: Vec<_> = entries.iter().flat_map(|entry| entry.environments.clone()).collect();
        environments.sort();
        environments.dedup();
        return Permission::Environment(environments);
    }
    match most(&entries).filter(|max| ledger.owners_in(&namespace) >= *max) {
        Some(max) if ledger.owned_by(&uid).next().is_none() => Permission::Max(max),
        Some(_) | None => Permission::Granted,
    }
}

/// How many ApiKeys of a namespace may have keys: the sum over the entries that match it; an entry without `max` sets no bound.
#[must_use]
pub fn max_of(account: &BagsAccount, namespace: &str, labels: &BTreeMap<String, String>) -> Option<i64> {
    most(&matching(account, namespace, labels))
}

fn matching<'a>(
    account: &'a BagsAccount,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Vec<&'a Allowed> {
    account.spec.allowed.iter().filter(|entry| entry.matches_namespace(namespace, labels)).collect()
}

fn most(entries: &[&Allowed]) -> Option<i64> {
    entries.iter().try_fold(0_i64, |sum, entry| Some(sum.saturating_add(entry.max?)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api::account::{Slot, SlotState},
        fixtures::{api_key, bags_account},
        ledger::slots::tests::{owner, slot},
    };

    fn ask(allowed: &str, slots: usize) -> Permission {
        ask_beside(allowed, (0..slots).map(|n| slot(&owner(n), SlotState::Live)).collect())
    }

    fn ask_beside(allowed: &str, slots: Vec<Slot>) -> Permission {
        let allowed: serde_json::Value = serde_json::from_str(allowed).unwrap();
        let account = bags_account(&json!({"spec": {"allowed": allowed}}));
        let key = api_key(&json!({"metadata": {"uid": "uid-9"}, "spec": {"environment": "staging"}}));
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
    fn the_second_key_of_a_rotation_does_not_count() {
        let rotating = [SlotState::Live, SlotState::Creating].map(|state| slot(&owner(0), state));
        let allowed = |max: i64| format!(r#"[{{"namespaces": ["shop"], "max": {max}}}]"#);
        assert_eq!(ask_beside(&allowed(2), rotating.to_vec()), Permission::Granted);
        assert_eq!(ask_beside(&allowed(1), rotating.to_vec()), Permission::Max(1));
    }

    #[test]
    fn a_sum_of_max_beyond_all_numbers_is_no_small_one() {
        let edge = i64::MAX;
        let allowed =
            format!(r#"[{{"namespaces": ["shop"], "max": {edge}}}, {{"namespaces": ["shop"], "max": 1}}]"#);
        assert_eq!(ask(&allowed, 5), Permission::Granted);
    }
}
