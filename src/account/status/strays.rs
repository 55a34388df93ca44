//! Keys and values that nobody looks after, in words. Pure.

use super::{Word, some_of, word};
use crate::{
    account::{
        act::{PAGE, named},
        decide::nobodys,
        observe::{Observation, Stored},
        orphans,
    },
    api::{annotation, duration::GoDuration},
};

/// Keys that work, that pods may use, and that nobody looks after.
pub(super) fn orphaned_keys(seen: &Observation) -> Option<Word> {
    let keys = orphans::kept(seen).map(|slot| {
        let attempt = slot.attempt().unwrap_or_default();
        let first = match slot.stored {
            Stored::Value => "",
            Stored::Absent | Stored::Empty | Stored::SurelyEmpty => {
                "; its value is lost: revoke it there first"
            }
        };
        format!("{} (attempt {attempt}{first})", named(slot))
    });
    let keys: Vec<String> = keys.collect();
    if keys.is_empty() {
        return None;
    }
    word(
        true,
        "ApiKeyVanished",
        format!(
            "their ApiKeys are gone without a deletion of the keys, and pods may still use them: {}. They go when their \
             namespace is gone for {}; once nothing uses them, annotate this account {}: <attempts> to have them revoked. \
             Keys are seen at {PAGE}",
            some_of(keys),
            GoDuration(seen.timings.orphan_after),
            annotation::REVOKE
        ),
    )
}

pub(super) fn stray_keys(seen: &Observation) -> Option<Word> {
    // Until a lost ledger is rebuilt, its own keys are without a slot, too.
    if nobodys(seen) {
        return None;
    }
    let stray = seen.list.as_ref().map(|list| list.stray.clone()).filter(|stray| !stray.is_empty())?;
    word(
        true,
        "MarkedKeysWithoutSlot",
        format!(
            "keys at Bags carry this cluster's mark and are in no slot: {}. They count as made elsewhere and are never revoked \
             by name; look whether another BagsAccount of the same user, another cluster or a restored one made them, and revoke what is \
             unused at {PAGE}",
            some_of(stray)
        ),
    )
}

pub(super) fn stray_values(seen: &Observation) -> Option<Word> {
    // Until a lost ledger is rebuilt, every one of its keys is without a slot.
    if nobodys(seen) {
        return None;
    }
    let stray = seen.loose.iter().filter(|entry| entry.value && !seen.departed.contains(&entry.attempt));
    let names: Vec<String> = stray.map(|entry| format!("bags-key-{}", entry.attempt)).collect();
    if names.is_empty() {
        return None;
    }
    word(
        true,
        "ValuesWithoutSlot",
        format!(
            "Secrets in namespace \"{}\" hold values of keys that are in no slot: {}. They are never deleted; look for the keys \
             at {PAGE}, revoke what is unused, then delete the Secrets",
            seen.installation.namespace,
            some_of(names)
        ),
    )
}
