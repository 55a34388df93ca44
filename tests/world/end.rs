//! What a run comes to: the law that every end obeys, and the end in words that two runs can be compared by.

mod waiting;

use std::{collections::BTreeSet, fmt::Write};

use bags_operator::{
    api::{
        account::{Owner, Slot, SlotState},
        annotation, mark,
    },
    ledger::slots,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use self::waiting::Waiting;
use super::{
    cluster::value_in,
    oracle::{Oracle, ledger},
    process::OPERATOR_NAMESPACE,
    scene::{ACCOUNT, Scene, TENANT, attempt_in, field_of, secret_of},
};

/// Reasons with which an ApiKey may rest without a key: something outside of the operator has to change first. Whether it
/// has changed since is asked in `waiting.rs`.
const RESTING: &[&str] = &[
    "Suspended",
    "AccountNotFound",
    "AccountDeleting",
    "NamespaceNotAllowed",
    "EnvironmentNotAllowed",
    "NamespaceQuotaExceeded",
    "DuplicateUse",
    "QuotaExceeded",
    "LimitReached",
    "SecretConflict",
    "CredentialsMissing",
    "CredentialsUnreadable",
    "CredentialsRefused",
    "DeletionWaits",
    "NewerLedger",
];

/// What still has to happen, or is wrong for good: empty at rest.
pub(crate) fn unfinished(scene: &Scene, oracle: &Oracle) -> Vec<String> {
    let mut found = Vec::new();
    let ledger = ledger(scene).unwrap_or_default();
    let mut in_slots = BTreeSet::new();
    for slot in &ledger.slots {
        in_slots.extend(slot.attempt.clone());
        let current = ledger.current(&slot.owner.uid).is_some_and(|current| current.attempt == slot.attempt);
        if slot.state == SlotState::Live && !current {
            found.push(format!("an earlier key of {} is still let in", slot.owner.name));
        }
        match slot.state {
            SlotState::Reserved if !exists(scene, &slot.owner) => {
                found.push(format!("a place is kept for {}, which does not exist", slot.owner.name));
            }
            SlotState::Reserved | SlotState::Live | SlotState::Released => {}
            SlotState::Creating
            | SlotState::Lost
            | SlotState::Unresolved
            | SlotState::Revoking
            | SlotState::Unknown(_) => {
                found.push(format!("a slot of {} is {}", slot.owner.name, slot.state.as_str()));
            }
        }
    }
    let keys = scene.living_keys();
    for name in keys.keys() {
        let attempt = attempt_in(name);
        // Of one that neither ledger nor keystore knows a list tells people, and where there is none, nobody can.
        let nobody_can_tell = oracle.is_forsaken(attempt) && !scene.lists_keys();
        if !in_slots.contains(attempt) && !nobody_can_tell {
            found.push(format!("key {name} is let in and has no slot"));
        }
    }
    for entry in scene.api.list("secrets") {
        let attempt = entry["metadata"]["labels"][mark::ATTEMPT].as_str();
        if let Some(attempt) = attempt.filter(|attempt| !in_slots.contains(*attempt)) {
            found.push(format!("the keystore has a Secret for {attempt}, which has no slot"));
        }
    }
    let waiting = Waiting::new(scene, oracle, &ledger);
    if waiting.account_is_deleted() && !waiting.holds_account_up() {
        found.push("the account is being deleted, and nothing stands against that".to_owned());
    }
    for key in scene.api.list("apikeys") {
        let uid = key["metadata"]["uid"].as_str().unwrap_or_default();
        let own: Vec<&Slot> = ledger.owned_by(uid).collect();
        one_key(scene, oracle, &waiting, &key, slots::current(own), &mut found);
    }
    found
}

fn exists(scene: &Scene, owner: &Owner) -> bool {
    let key = scene.api.get("apikeys", &owner.namespace, &owner.name);
    key.is_some_and(|key| key["metadata"]["uid"].as_str() == Some(owner.uid.as_str()))
}

fn one_key(
    scene: &Scene,
    oracle: &Oracle,
    waiting: &Waiting<'_>,
    key: &Value,
    current: Option<&Slot>,
    found: &mut Vec<String>,
) {
    let name = key["metadata"]["name"].as_str().unwrap_or_default();
    let ready = condition(key, "Ready");
    let (is_ready, reason) = (ready.0 == "True", ready.1);
    let deleting = !key["metadata"]["deletionTimestamp"].is_null();
    if deleting && !waiting.holds_up(key) {
        found.push(format!("{name} is being deleted, and nothing stands against that"));
    }
    let Some(slot) = current else {
        if !RESTING.contains(&reason) {
            found.push(format!("{name} has no key and says {reason}"));
        } else if !deleting && !waiting.is_so(reason, key) {
            found.push(format!("{name} has no key and says {reason}, which is not so"));
        }
        return;
    };
    let attempt = slot.attempt.as_deref().unwrap_or_default();
    let suspended = reason == "Suspended" && waiting.is_so(reason, key);
    if !is_ready && !deleting && !suspended {
        found.push(format!("{name} has a key and is not ready: {reason}"));
    }
    if let (Some(used), Some(published)) = (current_time(key, "lastUsedAt"), current_time(key, "publishedAt"))
        && published.duration_since(used) > LONGEST_PUBLICATION
        // What is put together again from the keystore is dated anew.
        && !oracle.ledger_was_lost()
    {
        found.push(format!("{name} says that its key was used at {used}, long before it was published"));
    }
    let wanted = key["metadata"]["annotations"][annotation::ROTATE].as_str();
    let hold = &key["status"]["hold"];
    let held =
        hold["reason"] == "RotationBlocked" && !(hold["waitsForSlot"] == true && waiting.has_second_slot());
    if is_ready && !deleting && !held && wanted.is_some_and(|token| slot.trigger.as_deref() != Some(token)) {
        found.push(format!("another key was asked for by {name}, and its rotation has not begun"));
    }
    let secret = scene.api.get("secrets", TENANT, secret_of(key));
    let value = secret.and_then(|secret| value_in(&secret, field_of(key)));
    match value {
        Some(value) if !scene.sandbox.works(&value) => {
            found.push(format!("the value in the Secret of {name} is not let in"));
        }
        Some(value) if oracle.attempt_of(&value).is_some_and(|held| held != attempt) => {
            found.push(format!("I2: the Secret of {name} holds another key than the current one"));
        }
        Some(_) => {}
        None if suspended => {}
        None => found.push(format!("the Secret of {name} holds no value")),
    }
}

/// From its verification, which is a use, to its publication a key takes no longer, whatever fails.
const LONGEST_PUBLICATION: SignedDuration = SignedDuration::from_mins(45);

/// A time of the current key, as the status tells it.
fn current_time(key: &Value, field: &str) -> Option<Timestamp> {
    key["status"]["current"][field].as_str()?.parse().ok()
}

/// Status and reason of a condition.
pub(crate) fn condition<'a>(object: &'a Value, type_: &str) -> (&'a str, &'a str) {
    let all = object["status"]["conditions"].as_array();
    let one = all.and_then(|all| all.iter().find(|one| one["type"] == *type_));
    one.map_or(("", ""), |one| {
        (one["status"].as_str().unwrap_or_default(), one["reason"].as_str().unwrap_or_default())
    })
}

/// The end in words, without what differs from run to run: times, versions, names of attempts, numbers of tries.
pub(crate) fn words(scene: &Scene) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{words}");
    };
    for key in scene.api.list("apikeys") {
        let deleting = if key["metadata"]["deletionTimestamp"].is_null() { "" } else { ", being deleted" };
        line(format_args!("ApiKey {}{deleting}:{}", key["metadata"]["name"], conditions(&key, true)));
    }
    for account in scene.api.list("bagsaccounts") {
        line(format_args!("BagsAccount:{}", conditions(&account, false)));
        let capacity = &account["status"]["capacity"];
        line(format_args!("capacity: {capacity}"));
    }
    for slot in ledger(scene).unwrap_or_default().slots {
        line(format_args!("slot of {} for {}: {}", slot.owner.name, slot.key_use, slot.state.as_str()));
    }
    for secret in scene.api.list("secrets") {
        let metadata = &secret["metadata"];
        if metadata["namespace"] == *OPERATOR_NAMESPACE {
            if !metadata["labels"][mark::ATTEMPT].is_null() {
                let value = if secret["data"]["value"].is_null() { "no value" } else { "a value" };
                line(format_args!("keystore: {value} for {}", metadata["annotations"][mark::OWNER_NAME]));
            }
            continue;
        }
        let fields: Vec<&str> = secret["data"]
            .as_object()
            .map(|data| data.keys().map(String::as_str).collect())
            .unwrap_or_default();
        line(format_args!("Secret {}: {}", metadata["name"], fields.join(", ")));
    }
    line(format_args!("keys at Bags: {}", scene.living_keys().len()));
    for workload in scene.cluster.words() {
        line(format_args!("{workload}"));
    }
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn conditions(object: &Value, with_all_reasons: bool) -> String {
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let mut words: Vec<String> = all
        .iter()
        .map(|one| {
            let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
            // Of what is as it should be, the reason tells how it became so.
            match (with_all_reasons, text("status").as_str()) {
                (false, "True") => format!(" {}", text("type")),
                (true, _) | (false, _) => format!(" {}={}/{}", text("type"), text("status"), text("reason")),
            }
        })
        .collect();
    words.sort();
    words.concat()
}

/// Whether a person has to look at a slot, as far as the account says.
pub(crate) fn waits_for_person(scene: &Scene, slot: &Value) -> bool {
    let Some(account) = scene.api.get("bagsaccounts", "", ACCOUNT) else { return false };
    let asked = condition(&account, "RevocationNeedsPerson").0 == "True";
    slot["state"] == "Unresolved" || (asked && slot["state"] == "Revoking")
}
