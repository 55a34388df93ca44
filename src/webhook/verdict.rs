//! What admission says to a new ApiKey. Pure: the same functions and the same words as the controllers use.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use crate::{
    api::{
        ApiKey, BagsAccount,
        account::{Admission, Installation},
        condition,
    },
    apikey::{claim::Claim, decide::words, permission::Permission},
    ledger::{Change, Ledger},
};

/// The account cannot be used now, and may be later.
const NOT_READY: &str = "AccountNotReady";
/// An ApiKey that leaves no more slots than this is admitted with a warning.
const FEW: i64 = 1;

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The new ApiKey, with uid and namespace.
    pub key: &'a ApiKey,
    /// Its account, as this process knows it or as a live read showed it; `None`: there is none of that name.
    pub account: Option<&'a BagsAccount>,
    /// The ApiKey's claim on the account; `None` if there is no account.
    pub claim: Option<&'a Claim>,
    /// This installation.
    pub installation: &'a Installation,
}

/// What is to be done with the ApiKey.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is admitted, after this change of the ledger if there is one.
    Admit {
        /// Keeps its place.
        reserve: Option<Change>,
        /// What the person should know.
        warnings: Vec<String>,
    },
    /// It is refused.
    Deny(Denial),
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// As one word, for metrics.
    pub reason: &'static str,
    /// For the person: what stands in the way, and the way out.
    pub message: String,
    /// Whether the same request may be admitted in some seconds.
    pub passing: bool,
}

impl Denial {
    fn lasting(reason: &'static str, message: impl Into<String>) -> Verdict {
        Verdict::Deny(Self { reason, message: message.into(), passing: false })
    }

    /// A refusal that goes by itself: the request may be sent again.
    pub(super) fn passing(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), passing: true }
    }
}

fn admit_without_place(warning: String) -> Verdict {
    Verdict::Admit { reserve: None, warnings: vec![warning] }
}

/// Judges (pure). The order is the controllers' own: what stops a new key, permission, use, room.
#[must_use]
pub fn judge(case: &Case<'_>) -> Verdict {
    let Case { key, account, claim, installation } = *case;
    let (Some(account), Some(claim)) = (account, claim) else {
        return Denial::lasting("AccountNotFound", words::account_not_found(key));
    };
    if of_a_neighbour(account, installation) {
        // That installation's own webhook judges the ApiKey and keeps its place. This webhook is sent the same ApiKeys, and
        // leaves them alone.
        return Verdict::Admit { reserve: None, warnings: Vec::new() };
    }
    let name = account.name_any();
    let ledger = Ledger::of(account.status.as_ref());
    if ledger.owned_by(&key.uid().unwrap_or_default()).next().is_some() {
        // The API server asks again where a request is retried.
        return Verdict::Admit { reserve: None, warnings: Vec::new() };
    }
    // A place that an earlier try of this name left unused is no reason to refuse this one.
    let ledger = ledger.without_earlier_try(&key.owner());
    let queue = account.admission() == Admission::Queue;
    // A tenant who may not use the account is told so, and nothing about its state.
    if let Some(denial) = not_permitted(key, &name, &claim.permission) {
        return denial;
    }
    match standing(account, &ledger, installation) {
        Some(obstacle) if queue && obstacle.reason == NOT_READY => {
            return admit_without_place(words::waits_for_account(&name, ready(account)));
        }
        Some(obstacle) => return Verdict::Deny(obstacle),
        None => {}
    }
    // Who waits for something else keeps no place, and may come to a full namespace as to a full account: a rename has to.
    if let Some(warning) = waits_for_else(key, claim) {
        return admit_without_place(warning);
    }
    if let Permission::Max(max) = claim.permission {
        let full = words::namespace_full(&name, &key.namespace().unwrap_or_default(), max, &ledger.slots);
        return match queue {
            true => admit_without_place(format!("{full}; {}", words::WAITS)),
            false => Denial::lasting(
                "NamespaceQuotaExceeded",
                format!("{full}; {}", words::MAKE_ROOM_IN_NAMESPACE),
            ),
        };
    }
    if !claim.fits(&ledger) {
        let sums = words::room(&name, &claim.room, &ledger.slots, claim.ahead);
        return match queue {
            true => admit_without_place(format!("{sums}; {}", words::WAITS)),
            false => Denial::lasting("QuotaExceeded", format!("{sums}; {}", words::MAKE_ROOM_OR_QUEUE)),
        };
    }
    let (owner, key_use) = (key.owner(), key.key_use());
    let reserve = Change::Reserve { owner, key_use, ahead: claim.ahead, max: claim.max };
    Verdict::Admit { reserve: Some(reserve), warnings: warnings(&name, claim, &ledger) }
}

fn not_permitted(key: &ApiKey, account: &str, permission: &Permission) -> Option<Verdict> {
    match permission {
        Permission::Granted | Permission::Max(_) => None,
        Permission::Namespace => {
            let message = words::namespace_not_allowed(account, &key.namespace().unwrap_or_default());
            Some(Denial::lasting("NamespaceNotAllowed", message))
        }
        Permission::Environment(allowed) => {
            let message = words::environment_not_allowed(account, &key.spec.environment, allowed);
            Some(Denial::lasting("EnvironmentNotAllowed", message))
        }
    }
}

/// What the ApiKey waits for besides a slot: one that it held meanwhile would be kept from others.
fn waits_for_else(key: &ApiKey, claim: &Claim) -> Option<String> {
    if let Some(rival) = &claim.use_rival {
        return Some(words::duplicate_use(key, rival));
    }
    if let Some(rival) = &claim.secret_rival {
        return Some(format!("{}; {}", words::has_secret(key, rival), words::WAITS_FOR_SECRET));
    }
    let suspended =
        "spec.suspend is true: no slot is kept for this ApiKey; one has to be free when it is set to false";
    key.suspended().then(|| suspended.to_owned())
}

/// Whether another installation of this very cluster holds the account.
fn of_a_neighbour(account: &BagsAccount, installation: &Installation) -> bool {
    let theirs = account.status.as_ref().and_then(|status| status.installation.as_ref());
    theirs.is_some_and(|theirs| theirs != installation && theirs.cluster == installation.cluster)
}

/// What stops every new key of an account.
fn standing(account: &BagsAccount, ledger: &Ledger, installation: &Installation) -> Option<Denial> {
    let name = account.name_any();
    let lasting = |reason, message| Some(Denial { reason, message, passing: false });
    if account.metadata.deletion_timestamp.is_some() {
        return lasting("AccountDeleting", words::account_deleting(&name));
    }
    let status = account.status.as_ref();
    match status.and_then(|status| status.installation.as_ref()) {
        Some(theirs) if theirs != installation => {
            return lasting("ForeignInstallation", words::foreign_installation(&name));
        }
        Some(_) => {}
        // A ledger that was lost is nobody's as well, and the account says so.
        None => {
            return match ready(account).filter(|ready| ready.status == "False") {
                Some(ready) => lasting(NOT_READY, words::account_not_ready(&name, &ready.reason)),
                None => Some(Denial::passing(NOT_READY, words::account_unseen(&name))),
            };
        }
    }
    if ledger.unknown_state() {
        return lasting("NewerLedger", words::newer_ledger(&name));
    }
    match ready(account) {
        // It belongs to this installation, but has no `Ready` condition yet: keys that were made elsewhere are not known.
        None => Some(Denial::passing(NOT_READY, words::account_unseen(&name))),
        Some(ready) if ready.status == "False" => {
            lasting(NOT_READY, words::account_not_ready(&name, &ready.reason))
        }
        Some(_) => None,
    }
}

fn ready(account: &BagsAccount) -> Option<&Condition> {
    let conditions = account.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions.iter().find(|condition| condition.type_ == condition::kind::READY)
}

/// What to warn of although the ApiKey is admitted.
fn warnings(account: &str, claim: &Claim, ledger: &Ledger) -> Vec<String> {
    let mut warnings = Vec::new();
    let capacity = claim.room.capacity(&ledger.slots);
    let left = capacity.available.saturating_sub(1);
    if left <= FEW {
        let slots = if left == 1 { "1 slot is" } else { "no slot is" };
        warnings.push(format!(
            "{slots} left for further ApiKeys of account \"{account}\" ({} of {} in use, {} kept for rotations)",
            capacity.used.saturating_add(1),
            capacity.limit,
            capacity.reserved
        ));
    }
    if claim.room.rotation_reserve <= 0 {
        warnings.push(format!(
            "account \"{account}\" keeps no slot for rotations (rotationReserve: 0): on a full account no key can be \
             replaced before it is revoked"
        ));
    }
    warnings
}

#[cfg(test)]
pub(super) mod tests;
