//! Rotations that find no second slot. Pure.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    api::{ApiKey, BagsAccount},
    ledger::Room,
    timings::Timings,
};

/// ApiKeys, as `namespace/name`, whose rotation has waited for a second slot of this account for `starved_after`, while it has
/// none to spare. What the ApiKeys' statuses say is used only to show this, never to decide.
pub(super) fn starved(
    keys: impl FnOnce() -> Vec<Arc<ApiKey>>,
    account: &BagsAccount,
    timings: &Timings,
    now: Timestamp,
) -> Vec<String> {
    let slots = account.status.as_ref().map(|status| status.slots.as_slice()).unwrap_or_default();
    if Room::of(account, now, timings).fits_extra(slots) {
        return Vec::new();
    }
    let name = account.name_any();
    let waits = |key: &&Arc<ApiKey>| {
        let hold = key.status.as_ref().and_then(|status| status.hold.as_ref());
        let starving = hold.filter(|hold| hold.waits_for_slot);
        let waited = starving.and_then(|hold| Duration::try_from(now.duration_since(hold.since)).ok());
        key.spec.account_ref.name == name
            && key.metadata.deletion_timestamp.is_none()
            && waited.is_some_and(|waited| waited >= timings.starved_after)
    };
    let named = |key: &Arc<ApiKey>| format!("{}/{}", key.namespace().unwrap_or_default(), key.name_any());
    let mut names: Vec<String> = keys().iter().filter(waits).map(named).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::account::SlotState,
        fixtures::{api_key, bags_account},
        ledger::slots::tests::{owner, slot},
    };

    const NOW: i64 = 1_800_000_000;
    const DAY: i64 = 86_400;

    fn account(limit: i64, slots: usize) -> BagsAccount {
        let credentials = json!({"agentToken": {"secretName": "bags-main"}});
        let mut account = bags_account(&json!({"spec": {"credentials": credentials, "limit": limit}}));
        account.status.get_or_insert_default().slots =
            (0..slots).map(|n| slot(&owner(n), SlotState::Live)).collect();
        account
    }

    fn key(name: &str, account: &str, deleted: Option<&str>, hold: Value) -> Arc<ApiKey> {
        Arc::new(api_key(&json!({
            "metadata": {"name": name, "deletionTimestamp": deleted},
            "spec": {"accountRef": {"name": account}},
            "status": {"hold": hold},
        })))
    }

    /// A hold that began so many seconds ago.
    fn hold(waits_for_slot: bool, ago: i64) -> Value {
        let since = Timestamp::from_second(NOW - ago).unwrap();
        json!({"reason": "RotationBlocked", "waitsForSlot": waits_for_slot, "since": since})
    }

    #[test]
    fn only_rotations_that_wait_for_long_on_a_full_account_are_starved() {
        let blocked = |ago| hold(true, ago);
        let keys = [
            key("web", "main", None, blocked(DAY)),
            key("api", "main", None, blocked(9 * DAY)),
            key("new", "main", None, blocked(DAY - 1)),
            key("held", "main", None, hold(false, DAY)),
            key("elsewhere", "other", None, blocked(DAY)),
            key("fine", "main", None, Value::Null),
            key("leaving", "main", Some("2027-01-01T00:00:00Z"), blocked(DAY)),
        ];
        let now = Timestamp::from_second(NOW).unwrap();
        let names = |account: &BagsAccount| starved(|| keys.to_vec(), account, &Timings::default(), now);
        assert_eq!(names(&account(3, 3)), ["shop/api", "shop/web"]);
        assert!(names(&account(4, 3)).is_empty(), "a slot is free: they wait for something else");
    }
}
