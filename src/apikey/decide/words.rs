//! What a person reads: each message names the object and the field, and says the way out.

mod account;
mod rotation;

pub(crate) use account::{
    MAKE_ROOM_IN_NAMESPACE, MAKE_ROOM_OR_QUEUE, WAITS, account_deleting, account_not_found,
    account_not_ready, account_unseen, duplicate_use, environment_not_allowed, foreign_installation,
    namespace_full, namespace_not_allowed, newer_ledger, room, waits_for_account,
};
pub(super) use account::{account_going, no_room};
pub(in crate::apikey) use rotation::switched_back;
pub(super) use rotation::{
    coming_up, gaps, list, next_window, no_second_slot, no_way_back, overlapping, published_key_fails,
    restarting, rollout_failed, rollout_fails_since, rollout_had_failed, settling, switch_undated,
    turned_back, unknown_zone,
};

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    api::{
        ApiKey,
        account::{Capability, Failures, Slot, SlotState},
        duration::GoDuration,
    },
    apikey::{
        hold::Reason,
        observe::{AccountView, CreatingView, Observation, Rival},
    },
    consumer_secret::Foreign,
    ledger::{NEVER_ACCEPTED, VALUE_LOST},
    time::{later, nearest_second},
};

/// `failures.reason` of a slot whose key belongs to another user.
pub(super) const WRONG_USER: &str = "WrongUser";
/// `failures.reason` of a slot for which Bags had no room.
pub(crate) const LIMIT_REACHED: &str = "LimitReached";

/// Whether an attempt failed by doubt, not by a refusal.
pub(super) fn is_doubt(failures: &Failures) -> bool {
    [WRONG_USER, "OutcomeUnknown"].contains(&failures.reason.as_str())
}

/// Where a person sees the account's keys.
const PAGE: &str = "https://dev.bags.fm";

fn key_name(slot: &Slot) -> &str {
    slot.key_name.as_deref().unwrap_or("not named yet")
}

/// The moment at which a duration ends, to the second. The time that is left would change the text, and with it the status, at
/// every run.
fn moment(from: Timestamp, after: Duration) -> Timestamp {
    let then = later(from, after);
    Timestamp::from_second(then.as_second()).unwrap_or(then)
}

fn account_name(view: &AccountView) -> String {
    view.account.name_any()
}

pub(super) fn creating(slot: &Slot) -> String {
    format!("making key {}", key_name(slot))
}

pub(super) fn outcome_unknown(slot: &Slot, judge_after: Duration) -> String {
    let when = format!("it is looked for after {}", moment(slot.since, judge_after));
    format!(
        "whether Bags made key {} is not known: no usable answer came; {when}; nothing is lost",
        key_name(slot)
    )
}

pub(super) fn not_accepted(view: &CreatingView, o: &Observation) -> String {
    format!(
        "Bags answers 401 to the new key {}; after {} it is revoked and another one is made",
        key_name(&view.slot),
        GoDuration(o.timings.propagation)
    )
}

pub(super) fn forbidden(view: &AccountView) -> String {
    format!(
        "Bags accepts the new key but does not let it use the service; see whether the user of BagsAccount \"{}\" is \
         suspended at {PAGE}",
        account_name(view)
    )
}

pub(super) fn value_missing(slot: &Slot) -> String {
    format!(
        "the keystore has no value for key {}: its Secret was deleted from the operator's namespace; restore it, or \
         delete this ApiKey with keys.bags.fm/delete-now and apply it again",
        key_name(slot)
    )
}

pub(crate) fn foreign_secret(key: &ApiKey, foreign: Foreign) -> String {
    let name = key.secret_name();
    match foreign {
        Foreign::Unmarked => format!(
            "Secret \"{name}\" exists and is not this ApiKey's; delete it, or make an ApiKey with another spec.secret.name"
        ),
        // A kubelet that has seen an immutable Secret does not fetch it again while a pod on its node reads it.
        Foreign::Immutable => format!(
            "Secret \"{name}\" is immutable; delete it, and it is written again; then end all pods that read it, at the same \
             time: a kubelet keeps what it knows of an immutable Secret while one of them is on its node"
        ),
        Foreign::Forbidden => format!(
            "the operator may not read Secret \"{name}\" in namespace \"{}\"; let the namespace take part \
             (consumerNamespaces of the chart, or docs/rbac.yaml)",
            key.namespace().unwrap_or_default()
        ),
        Foreign::Type => {
            format!("Secret \"{name}\" is not of type Opaque; delete it, and it is written again")
        }
        Foreign::LaterSwitch => format!(
            "Secret \"{name}\" was written by a later switch than the ledger knows of, as after a restore from a backup; \
             it is left alone; delete it if the ledger is right"
        ),
    }
}

pub(super) fn suspended_drift(key: &ApiKey) -> String {
    format!(
        "Secret \"{}\" does not hold what it should; it is written again when spec.suspend of ApiKey \"{}\" is false",
        key.secret_name(),
        key.name_any()
    )
}

/// The way out where another ApiKey came first to the Secret's name.
pub(crate) fn has_secret(key: &ApiKey, rival: &str) -> String {
    format!(
        "ApiKey \"{rival}\" came first to Secret \"{}\"; make this ApiKey with another spec.secret.name",
        key.secret_name()
    )
}

/// What becomes of such an ApiKey if it is admitted all the same.
pub(crate) const WAITS_FOR_SECRET: &str =
    "as it is, it waits until that one is gone, and no slot is kept for it";

pub(super) fn secret_rival(key: &ApiKey, rival: &Rival) -> String {
    let (Rival { name, going }, secret) = (rival, key.secret_name());
    match going {
        false => has_secret(key, name),
        true => format!(
            "ApiKey \"{name}\", which is being deleted, came first to Secret \"{secret}\", and waits until no pod reads it; make \
             this ApiKey with another spec.secret.name and have the pods read that. To keep the name: set spec.deletionPolicy: Orphan \
             on \"{name}\", delete the Secret, which this one then writes, restart what reads it, and remove the other key at Bags"
        ),
    }
}

/// Does not name the other ApiKey: the name would change with each key that is made, and with it the status of every ApiKey
/// that waits.
pub(super) fn licence_open(view: &AccountView) -> String {
    format!("another key of account \"{}\" is being made; one is made at a time", account_name(view))
}

pub(super) fn paused(view: &AccountView, until: Timestamp) -> String {
    format!(
        "Bags says that a rate limit is reached; for BagsAccount \"{}\" nothing but revocations is asked of it before {}",
        account_name(view),
        nearest_second(until)
    )
}

pub(super) fn code_sent(view: &AccountView, next: Timestamp) -> String {
    format!(
        "the present one-time code of account \"{}\" was used for another key, and Bags need not take it twice; the next one is out \
         at {next}",
        account_name(view)
    )
}

pub(super) fn wrong_user(view: &AccountView) -> String {
    format!(
        "the credentials of BagsAccount \"{}\" lead to another user of Bags than the account's; a platform person has to \
         correct spec.expectedUser or the credentials' Secret; nothing is made before",
        account_name(view)
    )
}

/// Whether a list tells how many keys were made elsewhere.
fn lists(view: &AccountView) -> bool {
    view.account.status.as_ref().is_some_and(|status| status.capabilities.list == Capability::Yes)
}

/// Reason and message for an attempt that Bags refused, or that was never sent.
pub(super) fn refused(failures: &Failures, view: &AccountView, pause: Duration) -> (Reason, String) {
    let again = format!("attempt {} after {}", failures.count.saturating_add(1), moment(failures.at, pause));
    let account = account_name(view);
    let secret = "correct the Secret that spec.credentials of the account names";
    match failures.reason.as_str() {
        LIMIT_REACHED => (
            Reason::LimitReached,
            format!(
                "Bags says that account \"{account}\" has reached its maximum of keys although ApiKeys have {} of {}; \
                 remove keys made elsewhere at {PAGE}, or lower spec.limit of the account to what Bags allows{}; {again}",
                view.ledger.slots.iter().filter(|slot| slot.state != SlotState::Reserved).count(),
                view.room.limit,
                if lists(view) { "" } else { ", or set spec.unmanagedKeys" }
            ),
        ),
        "NoCredentials" => (
            Reason::CredentialsMissing,
            format!("account \"{account}\" has neither a wallet nor an agent token: {secret}; {again}"),
        ),
        "InvalidToken" => (
            Reason::CredentialsRefused,
            format!("Bags refused the agent token of \"{account}\": {secret}; {again}"),
        ),
        "InvalidSignature" => (
            Reason::CredentialsRefused,
            format!("Bags refused the wallet of \"{account}\": {secret}; {again}"),
        ),
        "InvalidMfa" | "MfaRequired" | "MfaUnsupported" => (
            Reason::CredentialsRefused,
            format!(
                "Bags wants a second factor of \"{account}\" and did not get a valid one: set \
                 spec.credentials.wallet.totpField and the TOTP secret in its Secret; {again}"
            ),
        ),
        "RateLimited" => (
            Reason::RateLimited,
            format!(
                "Bags' rate limit was reached when a key of account \"{account}\" was to be made; {again}"
            ),
        ),
        "BudgetSpent" => (
            Reason::RateLimited,
            format!(
                "the requests that the operator allows itself were spent before a key of account \"{account}\" was made: raise \
                 spec.requestsPerHour of the account, or the operator's --requests-per-hour (bags.requestsPerHour of the chart); {again}"
            ),
        ),
        NEVER_ACCEPTED => (
            Reason::KeyNotAccepted,
            format!(
                "Bags made a key in account \"{account}\" and did not accept it afterwards: it is revoked, and another one is made; \
                 {again}"
            ),
        ),
        VALUE_LOST => (
            Reason::ValueLost,
            format!(
                "a key was made in account \"{account}\" and its value was not kept: it is revoked, and another one is made; see that \
                 the operator can write Secrets in its own namespace; {again}"
            ),
        ),
        unasked if never_asked(unasked) => (
            Reason::BagsUnavailable,
            format!(
                "Bags could not be asked for a key of account \"{account}\" ({unasked}); nothing was made; {again}"
            ),
        ),
        other => (
            Reason::BagsRefused,
            format!("no key could be made in account \"{account}\" ({other}); nothing was made; {again}"),
        ),
    }
}

/// Whether an attempt that failed for this reason never reached Bags, got no answer to a request that makes nothing, or was too
/// slow for the challenge that it had to sign.
pub(super) fn never_asked(reason: &str) -> bool {
    matches!(
        reason,
        "Dns"
            | "Connect"
            | "Tls"
            | "Timeout"
            | "Broken"
            | "ServerError"
            | "Unreadable"
            | "OutcomeUnknown"
            | "BudgetSpent"
            | "LicenceExpired"
            | "NonceExpired"
            | "OutOfTime"
            | "ShuttingDown"
    )
}

pub(super) fn unresolved(view: &AccountView, slots: &[&&Slot]) -> String {
    // Another user's key is on that user's page: who looks at the account's own page finds nothing there, and would give it up.
    let is_theirs =
        |slot: &Slot| slot.failures.as_ref().is_some_and(|failures| failures.reason == WRONG_USER);
    let (theirs, doubtful): (Vec<&Slot>, Vec<&Slot>) =
        slots.iter().copied().copied().partition(|slot| is_theirs(slot));
    let names = |slots: &[&Slot]| slots.iter().map(|slot| key_name(slot)).collect::<Vec<_>>().join(", ");
    let attempts: Vec<&str> = slots.iter().filter_map(|slot| slot.attempt.as_deref()).collect();
    let doubt = (!doubtful.is_empty()).then(|| {
        format!(
            "whether Bags made {} is not known, and no list can tell; a person looks at {PAGE}, and removes what is there under \
             these names",
            names(&doubtful)
        )
    });
    let other = (!theirs.is_empty()).then(|| {
        format!(
            "{} works for another user of Bags, whose credentials the account had; a person removes it at {PAGE} as that user",
            names(&theirs)
        )
    });
    let said: Vec<String> = doubt.into_iter().chain(other).collect();
    format!(
        "{}; then this is said: kubectl annotate bagsaccount {} keys.bags.fm/resolved={} --overwrite",
        said.join("; "),
        account_name(view),
        attempts.join(",")
    )
}

pub(super) fn revoking(view: &AccountView, slots: &[&Slot]) -> String {
    let names: Vec<&str> = slots.iter().map(|slot| key_name(slot)).collect();
    format!(
        "waiting until {} is proven dead; then another key is made; BagsAccount \"{}\" says whether a person has to act",
        names.join(", "),
        account_name(view)
    )
}

pub(in crate::apikey) fn issued(key: &ApiKey, slot: &Slot) -> String {
    let suspended = if key.suspended() { "; spec.suspend is true: it is not kept in step" } else { "" };
    format!("key {} works and is in Secret \"{}\"{suspended}", key_name(slot), key.secret_name())
}

pub(super) fn slots_unknown(account: &str) -> String {
    format!(
        "the slots of BagsAccount \"{account}\" are not known: it has not been looked at yet, or its status was lost and is put \
         together again"
    )
}

pub(super) fn unprotected(view: &AccountView) -> String {
    format!(
        "BagsAccount \"{}\" has no finalizer yet, without which its ledger could go while keys live; see whether something keeps the \
         operator from setting it",
        account_name(view)
    )
}

pub(super) fn waiting(key: &ApiKey) -> String {
    format!("waiting for BagsAccount \"{}\"", key.spec.account_ref.name)
}

pub(super) fn deletion_open(slot: &Slot) -> String {
    format!("key {} is {}; the account finishes it", key_name(slot), slot.state.as_str().to_lowercase())
}

pub(super) fn foreign_ledger_deletion(view: &AccountView) -> String {
    format!(
        "the ledger of BagsAccount \"{}\" cannot be changed by this installation: keys are not revoked; the ApiKey goes \
         after a while, its slots stay in the ledger",
        account_name(view)
    )
}

pub(super) fn ledger_of_nobody(view: &AccountView) -> String {
    format!(
        "BagsAccount \"{}\" has not been looked at yet, or its ledger was lost and is being put together again: see its \
         condition Ready",
        account_name(view)
    )
}

pub(super) fn deletion_waits(
    key: &ApiKey,
    live: &[&Slot],
    view: &AccountView,
    readers: &[String],
    revoked_at: Option<(Timestamp, Duration)>,
    advise: bool,
) -> String {
    let names: Vec<&str> = live.iter().map(|slot| key_name(slot)).collect();
    let command = format!(
        "kubectl annotate apikey {} -n {} keys.bags.fm/delete-now=true",
        key.name_any(),
        key.namespace().unwrap_or_default()
    );
    let advice = match (revoked_at, advise) {
        (Some((from, after)), _) => {
            let latest = moment(from, after);
            format!("; the namespace is terminating: it is revoked at {latest} at the latest")
        }
        (None, true) => "; it has waited long: are its consumers in a later GitOps wave?".to_owned(),
        (None, false) => String::new(),
    };
    format!(
        "key {} of account \"{}\" is revoked when no pod reads Secret \"{}\" any more; these do: {}; to revoke it all the same: \
         {command} (or set spec.deletionPolicy: Orphan to keep it){advice}",
        names.join(", "),
        account_name(view),
        key.secret_name(),
        list(readers.iter().cloned())
    )
}

pub(super) fn deletion_policy_unknown(key: &ApiKey, live: &[&Slot]) -> String {
    let names: Vec<&str> = live.iter().map(|slot| key_name(slot)).collect();
    format!(
        "spec.deletionPolicy of ApiKey \"{}\" is a word that this version of the operator does not know, so key {} is neither revoked \
         nor left; set it to Revoke or Orphan, or run the version that knows it",
        key.name_any(),
        names.join(", ")
    )
}
