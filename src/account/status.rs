//! What an account's status says: conditions, capabilities, capacity, and which events their changes are. Pure.
//!
//! Only what a person reads or another rule needs; the slots are never touched here. A message has numbers only where they help,
//! as each change of them is a write.

mod deletion;
mod person;
mod strays;

use std::collections::BTreeMap;

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    credentials::trust_of,
    decide::{Standing, held_by_unknown_state, standing},
    judge::ListWay,
    observe::Observation,
    rebuild,
};
use crate::{
    api::{
        BagsAccount, BagsAccountStatus,
        account::{Capabilities, Capability, Capacity, SlotState},
        annotation,
        condition::{self, kind},
        duration::GoDuration,
    },
    events::EventReason,
    ledger::Room,
    metrics::Awaited,
    webhook::registration::Registration,
};

/// The credentials were changed, or could not be used, and Bags was not asked with them since.
const NOT_TRIED: &str = "NotTried";
/// How many things one message names; the rest is counted.
const NAMED: usize = 10;
/// From this many failed lists in a row on the failure is shown: a single one may be a hiccup.
const FAILURES_SHOWN: u32 = 2;

/// Bags refused the wallet when a key was to be made.
const WALLET_REFUSED: &str = "WalletRefused";

/// One condition's words; `None` in a list of them: the condition is absent.
struct Word {
    status: bool,
    reason: &'static str,
    message: String,
}

fn word(status: bool, reason: &'static str, message: impl Into<String>) -> Option<Word> {
    Some(Word { status, reason, message: message.into() })
}

/// What people wait for at an account, in numbers.
pub(super) fn awaited(seen: &Observation) -> Awaited {
    Awaited { revocations: person::waiting(seen).len(), rotations: seen.starved.len() }
}

/// Writes into the status of our own account all that is known now.
pub(super) fn show(
    status: &mut BagsAccountStatus,
    account: &BagsAccount,
    seen: &Observation,
    now: Timestamp,
) {
    if let Some(list) = &seen.list {
        status.capabilities.list = Capability::Yes;
        status.capacity.get_or_insert_default().unmanaged = list.unmanaged;
    }
    capabilities(&mut status.capabilities, seen);
    // Of the user that is pinned by now, perhaps by a key that was published since all this was seen.
    status.covering_token = seen.facts.covering(Some(&*status)).map(str::to_owned);
    let trust = seen.credentials.version.as_deref().map(|version| trust_of(account, version));
    if trust.is_some() && status.distrusted_credentials != trust {
        status.distrusted_credentials = None;
    }
    status.paused_until = paused_until(seen, status.paused_until);
    let credentials = credentials(status, seen);
    let ready = ready(account, seen, credentials.as_ref());
    let capacity = capacity(status, account, seen);
    let words = [
        (kind::READY, ready),
        (kind::CREDENTIALS_VALID, credentials),
        (kind::LIST_COVERS, list(status, seen)),
        (kind::QUOTA_AVAILABLE, quota_available(&capacity)),
        (kind::OVER_QUOTA, over_quota(&capacity)),
        (kind::REVOCATION_NEEDS_PERSON, person::needs_person(seen)),
        (kind::KEY_UNRESOLVED, person::key_unresolved(seen)),
        (kind::ROTATIONS_STARVED, rotations_starved(seen)),
        (kind::ORPHANED_KEYS, strays::orphaned_keys(seen)),
        (kind::STRAY_KEYS, strays::stray_keys(seen)),
        (kind::STRAY_VALUES, strays::stray_values(seen)),
    ];
    write(status, account, words, now);
    // What the status said before a restart stands until this process has looked at the webhook's registration.
    if seen.registration != Registration::Unknown {
        write(status, account, [(kind::ADMISSION_ENFORCED, admission(&seen.registration))], now);
    }
}

/// Writes into the status of another installation's account only that it is one.
pub(super) fn show_foreign(
    status: &mut BagsAccountStatus,
    account: &BagsAccount,
    seen: &Observation,
    now: Timestamp,
) {
    let ready = ready(account, seen, None);
    write(status, account, [(kind::READY, ready)], now);
}

/// Writes into the status of an account whose ledger a newer version holds the conditions alone.
pub(super) fn show_held(
    status: &mut BagsAccountStatus,
    account: &BagsAccount,
    seen: &Observation,
    now: Timestamp,
) {
    let mut shown = status.clone();
    show(&mut shown, account, seen, now);
    status.conditions = shown.conditions;
    status.observed_generation = shown.observed_generation;
}

fn write<const N: usize>(
    status: &mut BagsAccountStatus,
    account: &BagsAccount,
    words: [(&str, Option<Word>); N],
    now: Timestamp,
) {
    let generation = account.metadata.generation;
    status.observed_generation = generation;
    for (type_, word) in words {
        match word {
            Some(Word { status: state, reason, message }) => {
                condition::set(&mut status.conditions, type_, state, reason, message, generation, now);
            }
            None => condition::remove(&mut status.conditions, type_),
        }
    }
}

/// What was tried. A wallet alone can neither list nor revoke.
fn capabilities(known: &mut Capabilities, seen: &Observation) {
    let live = seen.slots.iter().any(|slot| slot.slot.state == SlotState::Live);
    let any_credential = seen.credentials.wallet || seen.credentials.token;
    if live && any_credential {
        known.create = Capability::Yes;
    }
    // Whether there is a token is not known where none can be read.
    if seen.credentials.problem.is_some() && !seen.credentials.token {
        return;
    }
    if !seen.credentials.token {
        known.list = Capability::No;
        known.last_used = Capability::No;
        known.revoke = Capability::No;
        (known.revoke_tried_at, known.revoke_tried_with) = (None, None);
        return;
    }
    let untried = |capability: &mut Capability| {
        if *capability == Capability::No {
            *capability = Capability::Unknown;
        }
    };
    untried(&mut known.list);
    if seen.list_missing() {
        known.list = Capability::No;
    }
    untried(&mut known.last_used);
    if seen.facts.shows_last_use {
        known.last_used = Capability::Yes;
    }
    let with = Some(seen.endpoint());
    match seen.facts.endpoint.as_ref().filter(|endpoint| Some(&endpoint.with) == with.as_ref()) {
        Some(endpoint) if endpoint.found => {
            known.revoke = Capability::Yes;
            (known.revoke_tried_at, known.revoke_tried_with) = (None, with);
        }
        Some(endpoint) => {
            known.revoke = Capability::No;
            (known.revoke_tried_at, known.revoke_tried_with) = (Some(seconds(endpoint.at)), with);
        }
        None if known.revoke_tried_with != with => {
            untried(&mut known.revoke);
            (known.revoke_tried_at, known.revoke_tried_with) = (None, None);
        }
        None => {}
    }
}

/// The end of the pause, in whole seconds. The time that is shown already stays if it is near, or the difference of two clocks
/// would cause a write in each run.
fn paused_until(seen: &Observation, shown: Option<Timestamp>) -> Option<Timestamp> {
    let until = seconds(seen.paused_until?);
    let near = shown.filter(|shown| (until.as_second() - shown.as_second()).abs() <= 2);
    Some(near.unwrap_or(until))
}

fn seconds(time: Timestamp) -> Timestamp {
    let whole = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Trunc);
    time.round(whole).unwrap_or(time)
}

fn ready(account: &BagsAccount, seen: &Observation, credentials: Option<&Word>) -> Option<Word> {
    // An account that is being deleted waits for the ledger to be rebuilt as well: before that nobody knows which slots hold it.
    if let Some((reason, why)) = rebuild::waits_for(seen) {
        return word(false, reason, why);
    }
    if account.metadata.deletion_timestamp.is_some() {
        return word(false, "Deleting", deletion::waits_for(seen));
    }
    if standing(seen) == Standing::Foreign {
        return word(false, "ForeignInstallation", foreign(seen));
    }
    if held_by_unknown_state(seen) {
        return word(
            false,
            "UnknownSlotState",
            "a slot is in a state that this version of the operator does not know; nothing is changed until a version \
             runs that does",
        );
    }
    // A refused wallet leaves the account ready: only another creation tries the wallet again, and admission, which goes by this
    // condition, has to let its ApiKey in.
    let lasts = |credentials: &&Word| !credentials.status && credentials.reason != WALLET_REFUSED;
    if let Some(problem) = credentials.filter(lasts) {
        return word(false, problem.reason, problem.message.clone());
    }
    word(true, "Usable", "ApiKeys can be served")
}

/// Whose ledger it is, and how to take it over.
pub(super) fn foreign(seen: &Observation) -> String {
    let ours = &seen.installation;
    let pinned = seen.account.status.as_ref().and_then(|status| status.installation.as_ref());
    let theirs = pinned.map_or_else(
        || "another installation".to_owned(),
        |theirs| format!("cluster {}, namespace {}", theirs.cluster, theirs.namespace),
    );
    format!(
        "the ledger belongs to {theirs}; this is cluster {}, namespace {}: nothing is made or revoked. If that installation \
         is gone for good, annotate this account {}: \"{}/{}\"",
        ours.cluster,
        ours.namespace,
        annotation::TAKE_OVER,
        ours.cluster,
        ours.namespace
    )
}

fn credentials(status: &BagsAccountStatus, seen: &Observation) -> Option<Word> {
    if let Some(problem) = &seen.credentials.problem {
        return word(false, problem.reason(), problem.to_string());
    }
    if status.distrusted_credentials.is_some() {
        // The user that was compared: the one of the spec goes before the one that was pinned.
        let named = seen.account.spec.expected_user.as_deref().filter(|user| !user.is_empty());
        let expected = named.or(status.user.as_deref()).map_or_else(String::new, |user| format!(" ({user})"));
        return word(
            false,
            "WrongUser",
            format!(
                "the credentials are of another user of Bags than this account's{expected}; nothing more is made with them. Put the right wallet or token into the Secret that spec.credentials names, or correct spec.expectedUser"
            ),
        );
    }
    if let Some(refusal) = seen.facts.refused_token.as_ref().filter(|_| seen.token_refused()) {
        return word(false, "TokenRefused", refusal.to_string());
    }
    let refused = seen.facts.refused_credentials.as_ref();
    if seen.credentials.wallet && refused.is_some() && refused == seen.credentials.version.as_ref() {
        return word(
            false,
            WALLET_REFUSED,
            "Bags refused the wallet, or its one-time password, when a key was to be made; the ApiKey that waits says why. \
             Correct the Secret that spec.credentials.wallet names",
        );
    }
    let told = status.conditions.iter().find(|told| told.type_ == kind::CREDENTIALS_VALID);
    let untried = match seen.facts.tried {
        Some(tried) => !tried,
        // What was wrong before may be wrong still.
        None => told.is_some_and(|told| told.status == "False" || told.reason == NOT_TRIED),
    };
    let made = status.capabilities.create == Capability::Yes;
    if seen.facts.token_accepted || made && !untried {
        return word(true, "Accepted", "Bags accepts the credentials");
    }
    if made {
        return word(
            true,
            NOT_TRIED,
            "the credentials were changed, or could not be used before; the next key, or the next list, shows whether Bags accepts them",
        );
    }
    word(true, "Readable", "the credentials can be read; Bags has not been asked with them yet")
}

/// Only where there is a token, and once something is known.
fn list(status: &BagsAccountStatus, seen: &Observation) -> Option<Word> {
    let failure = seen.facts.list_failure.as_ref();
    match (seen.list_way(), failure) {
        (ListWay::NoToken, _) => return None,
        (ListWay::Refused, _) => {
            return word(false, "TokenRefused", "the service does not accept the agent token");
        }
        (ListWay::Missing, _) => {
            return word(
                false,
                "NoListEndpoint",
                "the service has no list of keys: set spec.unmanagedKeys, and look for keys of unknown outcome at its page",
            );
        }
        (ListWay::Failing(_) | ListWay::Open, Some(failure)) if failure.count >= FAILURES_SHOWN => {
            return word(false, failure.error.reason().name(), failure.error.to_string());
        }
        (ListWay::Failing(_) | ListWay::Open, _) => {}
    }
    // Without a living key there is nothing that a list could show.
    if !status.slots.iter().any(|slot| slot.state == SlotState::Live) {
        return None;
    }
    match seen.covers() {
        Some(true) => word(true, "Covers", "the list of the agent token shows this account's keys"),
        Some(false) => word(
            false,
            "ListDoesNotCover",
            "the list of the agent token shows none of this account's keys, so it proves nothing: is the token of the same \
             user as the wallet?",
        ),
        None => None,
    }
}

/// The account's capacity, computed from the status, in which `show` has already updated the number of unmanaged keys.
fn capacity(status: &BagsAccountStatus, account: &BagsAccount, seen: &Observation) -> Capacity {
    Room::with(account, Some(status), seen.wall, &seen.timings).capacity(&status.slots)
}

fn sums(capacity: &Capacity) -> String {
    let Capacity { limit, used, reserved, unmanaged, .. } = capacity;
    format!("{used} of {limit} in use ({unmanaged} made elsewhere), {reserved} kept for rotations")
}

fn quota_available(capacity: &Capacity) -> Option<Word> {
    if capacity.available > 0 {
        let limit = capacity.limit;
        return word(true, "SlotsAvailable", format!("another ApiKey fits into the limit of {limit}"));
    }
    let sums = sums(capacity);
    word(false, "Full", format!("{sums}; delete an ApiKey, or raise spec.limit if Bags allows more"))
}

/// More keys than the limit, as after it was lowered, or where keys are made elsewhere.
fn over_quota(capacity: &Capacity) -> Option<Word> {
    if capacity.used <= capacity.limit {
        return None;
    }
    let advice = "nothing is revoked for it, nothing more is made; delete ApiKeys or raise spec.limit if Bags allows more";
    word(true, "LimitExceeded", format!("{}: {advice}", sums(capacity)))
}

/// Whether new ApiKeys are refused at once where they do not fit. Nothing else depends on it.
fn admission(registration: &Registration) -> Option<Word> {
    let (good, reason, message) = registration.told()?;
    word(good, reason, message)
}

/// Rotations that find no second slot, and who has more than one.
fn rotations_starved(seen: &Observation) -> Option<Word> {
    if seen.starved.is_empty() {
        return None;
    }
    let slots = seen.slots.iter().map(|slot| &slot.slot);
    let mut holders: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for slot in slots {
        let owner = (slot.owner.namespace.as_str(), slot.owner.name.as_str());
        holders.entry(owner).or_default().push(slot.state.as_str());
    }
    let several = holders.into_iter().filter(|(_, states)| states.len() > 1);
    let several: Vec<String> = several
        .map(|((namespace, name), states)| format!("{namespace}/{name} ({})", states.join(", ")))
        .collect();
    let way_out = match several.is_empty() {
        true => {
            "every slot is held by an ApiKey's only key, or by a key made elsewhere: remove one that is not needed, or raise \
             spec.limit if Bags allows more"
                .to_owned()
        }
        false => format!(
            "more than one slot is held by {}: see why at each of them, or remove an ApiKey that is not needed",
            some_of(several)
        ),
    };
    word(
        true,
        "NoSecondSlot",
        format!(
            "rotations wait for a second slot for {} and longer: {}; their keys grow older; {way_out}",
            GoDuration(seen.timings.starved_after),
            some_of(seen.starved.clone())
        ),
    )
}

/// The first few of them, and how many more there are.
pub(super) fn some_of(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let text = names.join("; ");
    if more == 0 { text } else { format!("{text}; and {more} more") }
}

/// The events for the change from one set of conditions to the next.
pub(super) fn transitions(before: &[Condition], after: &[Condition]) -> Vec<(EventReason, String)> {
    let changed = |condition: &&Condition| {
        let old = before.iter().find(|old| old.type_ == condition.type_);
        // The messages of these conditions name keys: another message means another key.
        let by_message = [kind::REVOCATION_NEEDS_PERSON, kind::KEY_UNRESOLVED, kind::ORPHANED_KEYS]
            .contains(&condition.type_.as_str());
        old.is_none_or(|old| {
            (&old.status, &old.reason) != (&condition.status, &condition.reason)
                || by_message && old.message != condition.message
        })
    };
    let event = |condition: &Condition| {
        // A replaced wallet is only known to be good once a key was made with it.
        let recovered = before
            .iter()
            .any(|old| old.type_ == condition.type_ && (old.status == "False" || old.reason == NOT_TRIED));
        let reason = event_of(&condition.type_, condition.status == "True", &condition.reason, recovered)?;
        Some((reason, condition.message.clone()))
    };
    after.iter().filter(changed).filter_map(event).collect()
}

fn event_of(type_: &str, status: bool, reason: &str, recovered: bool) -> Option<EventReason> {
    match (type_, status, reason) {
        (kind::READY, false, "UserAmbiguous") => Some(EventReason::AccountNotReady),
        (kind::READY, false, "Deleting") => Some(EventReason::DeletionWaits),
        (kind::READY, false, "ForeignInstallation") => Some(EventReason::ForeignInstallation),
        (kind::CREDENTIALS_VALID, false, "TokenRefused" | WALLET_REFUSED) => {
            Some(EventReason::CredentialsRefused)
        }
        (kind::CREDENTIALS_VALID, false, "WrongUser") => Some(EventReason::WrongUser),
        (kind::CREDENTIALS_VALID, false, _) => Some(EventReason::CredentialsUnusable),
        (kind::CREDENTIALS_VALID, true, "Accepted") => recovered.then_some(EventReason::CredentialsAccepted),
        (kind::LIST_COVERS, false, "TokenRefused") => None,
        (kind::LIST_COVERS, false, "ListDoesNotCover") => Some(EventReason::ListDoesNotCover),
        (kind::LIST_COVERS, false, "RateLimited" | "BudgetSpent") => Some(EventReason::RateLimited),
        (kind::LIST_COVERS, false, _) => Some(EventReason::BagsUnavailable),
        (kind::LIST_COVERS, true, _) => recovered.then_some(EventReason::ListCovers),
        (kind::OVER_QUOTA, true, _) => Some(EventReason::OverQuota),
        (kind::REVOCATION_NEEDS_PERSON, true, _) => Some(EventReason::RevocationNeedsPerson),
        (kind::ROTATIONS_STARVED, true, _) => Some(EventReason::RotationsStarved),
        (kind::KEY_UNRESOLVED, true, _) => Some(EventReason::KeyUnresolved),
        (kind::ORPHANED_KEYS, true, _) => Some(EventReason::KeyOrphaned),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
