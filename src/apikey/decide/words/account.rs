//! What an account says to an ApiKey: who may use it, and what room it has.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::account_name;
use crate::{
    api::{
        ApiKey,
        account::{Slot, SlotState},
    },
    apikey::{decide::is_in, observe::AccountView},
    ledger::{Ledger, Room},
};

pub(crate) fn account_not_found(key: &ApiKey) -> String {
    format!(
        "there is no BagsAccount \"{}\"; correct spec.accountRef.name, or ask the platform team to create it",
        key.spec.account_ref.name
    )
}

pub(crate) fn foreign_installation(account: &str) -> String {
    format!(
        "the ledger of BagsAccount \"{account}\" belongs to another installation of the operator; a platform person takes \
         it over with the annotation keys.bags.fm/take-over on the account"
    )
}

pub(crate) fn newer_ledger(account: &str) -> String {
    format!(
        "the ledger of BagsAccount \"{account}\" was written by a newer version of the operator; nothing is changed until \
         that version runs again"
    )
}

pub(crate) fn namespace_not_allowed(account: &str, namespace: &str) -> String {
    format!(
        "BagsAccount \"{account}\" does not allow namespace \"{namespace}\"; ask the platform team to add it to spec.allowed"
    )
}

pub(crate) fn environment_not_allowed(account: &str, environment: &str, allowed: &[String]) -> String {
    format!(
        "BagsAccount \"{account}\" does not allow environment \"{environment}\" in this namespace (it allows: {}); use \
         another account, or ask the platform team to add it to spec.allowed",
        allowed.join(", ")
    )
}

pub(crate) fn namespace_full(account: &str, namespace: &str, max: i64, slots: &[Slot]) -> String {
    let ledger = Ledger { slots: slots.to_vec(), departed: vec![] };
    let wait = if ledger.owners_in(namespace) < max { ", with those of older ApiKeys that wait" } else { "" };
    let own: Vec<Slot> = ledger.slots.into_iter().filter(|slot| slot.owner.namespace == namespace).collect();
    format!(
        "namespace \"{namespace}\" has as many keys of BagsAccount \"{account}\" as it may have ({max}){wait}{}",
        those_that_leave(&own)
    )
}

/// The way out of a namespace that has all it may have.
pub(crate) const MAKE_ROOM_IN_NAMESPACE: &str =
    "delete an ApiKey there, or ask the platform team for a higher spec.allowed[].max";

/// What becomes of an ApiKey that is admitted without a place.
pub(crate) const WAITS: &str = "the ApiKey is admitted, and waits until one is free";

/// Why an ApiKey waits that is admitted although its account is not ready.
pub(crate) fn waits_for_account(account: &str, ready: Option<&Condition>) -> String {
    let why = ready.map_or("it has not been looked at yet", |ready| ready.reason.as_str());
    format!("BagsAccount \"{account}\" is not ready ({why}); the ApiKey is admitted, and waits until it is")
}

pub(crate) fn duplicate_use(key: &ApiKey, rival: &str) -> String {
    format!(
        "ApiKey {rival} has application \"{}\" in environment \"{}\" of the same account; this one waits until that one is \
         gone",
        key.application(),
        key.spec.environment
    )
}

/// The way out of a full account that refuses ApiKeys for which it has no room.
pub(crate) const MAKE_ROOM_OR_QUEUE: &str =
    "delete an ApiKey, or ask the platform team for admission: Queue or a higher limit";

pub(in crate::apikey::decide) fn no_room(view: &AccountView) -> String {
    let sums = room(&account_name(view), &view.room, &view.ledger.slots, view.ahead);
    format!("{sums}; delete an ApiKey, or ask the platform team for a higher limit")
}

/// How many ApiKeys, by their slots, leave room without anybody deleting a further one: those of which nothing is left but keys
/// that go. The old key of a rotation leaves none, as its ApiKey stays.
fn leaving(slots: &[Slot]) -> usize {
    let leaves = [SlotState::Lost, SlotState::Unresolved, SlotState::Revoking];
    let (going, staying): (Vec<&Slot>, Vec<&Slot>) =
        slots.iter().partition(|slot| is_in(&slot.state, &leaves));
    let owners =
        |slots: Vec<&Slot>| slots.into_iter().map(|slot| slot.owner.uid.clone()).collect::<BTreeSet<_>>();
    owners(going).difference(&owners(staying)).count()
}

/// What is said of keys that count although no ApiKey needs them, after what is full.
fn those_that_leave(slots: &[Slot]) -> String {
    let released = slots.iter().filter(|slot| slot.state == SlotState::Released).count();
    let mut said = String::new();
    match leaving(slots) {
        0 => {}
        some => said.push_str(&format!(
            "; {some} of them are on their way out, and make room then: the BagsAccount says whether a person has to act \
             (RevocationNeedsPerson, KeyUnresolved)"
        )),
    }
    if released > 0 {
        said.push_str(&format!(
            "; {released} were left to people (Orphan), and count until they are removed at Bags"
        ));
    }
    said
}

/// A full account in numbers; `ahead` older ApiKeys are served first.
pub(crate) fn room(account: &str, room: &Room, slots: &[Slot], ahead: usize) -> String {
    let capacity = room.capacity(slots);
    let wait = if ahead > 0 { format!(", {ahead} wait") } else { String::new() };
    format!(
        "account \"{account}\" has no slot for another key: {} of {} in use ({} by ApiKeys, {} made elsewhere), {} kept for \
         rotations{wait}{}",
        capacity.used,
        capacity.limit,
        slots.len(),
        capacity.unmanaged,
        capacity.reserved,
        those_that_leave(slots)
    )
}

pub(crate) fn account_deleting(account: &str) -> String {
    format!("BagsAccount \"{account}\" is being deleted; name another one")
}

/// What is said to an ApiKey that is there: it cannot be moved to another account.
pub(in crate::apikey::decide) fn account_going(account: &str) -> String {
    format!(
        "BagsAccount \"{account}\" is being deleted, and stays until its ApiKeys are gone: delete this one, or have it made anew \
         with another account"
    )
}

pub(crate) fn account_unseen(account: &str) -> String {
    format!("BagsAccount \"{account}\" has not been looked at yet; apply the ApiKey again in a moment")
}

pub(crate) fn account_not_ready(account: &str, reason: &str) -> String {
    format!(
        "BagsAccount \"{account}\" is not ready ({reason}); ask the platform team to see to it, or for admission: Queue"
    )
}
