//! What a person has to do at Bags, in words. Pure.

use super::{Word, some_of, word};
use crate::{
    account::{
        act::{PAGE, named},
        death::{self, PersonReason},
        decide::{Standing, held_by_unknown_state, of_another_user, standing},
        observe::{Observation, SlotSeen},
    },
    api::{account::SlotState, annotation, duration::GoDuration},
};

/// Keys that only a person can revoke, and why.
pub(super) fn waiting(seen: &Observation) -> Vec<(PersonReason, &SlotSeen)> {
    if standing(seen) == Standing::Foreign || held_by_unknown_state(seen) {
        return Vec::new();
    }
    let revoking = seen.slots.iter().filter(|slot| slot.slot.state == SlotState::Revoking);
    // The daily look whether there is an endpoint by now takes the question from nobody, whatever comes of it.
    let missing = |slot: &SlotSeen| seen.way(slot) == death::Way::Operator && seen.endpoint_was_missing();
    let asked = |slot: &SlotSeen| match missing(slot) {
        true => Some(PersonReason::NoEndpoint),
        false => death::needs_person(&seen.death(slot)),
    };
    revoking.filter_map(|slot| Some((asked(slot)?, slot))).collect()
}

pub(super) fn needs_person(seen: &Observation) -> Option<Word> {
    let waiting = waiting(seen);
    let (first, _) = waiting.first()?;
    let reason = first.reason();
    let told = waiting.iter().map(|(reason, slot)| format!("{}: {}", named(slot), why(*reason, slot, seen)));
    let keys = some_of(told.collect());
    word(
        true,
        reason,
        format!(
            "revoke at {PAGE}: {keys}. The slot is free once the key is proven dead, for which the operator calls Bags with it \
             now and then: a last use that comes of that is its own. To end the wait, annotate this account {}: <attempts>",
            annotation::RESOLVED
        ),
    )
}

impl PersonReason {
    fn reason(self) -> &'static str {
        match self {
            Self::Mode => "RevocationByPerson",
            Self::CredentialsUnusable => "CredentialsUnusable",
            Self::NoToken => "NoAgentToken",
            Self::TokenRefused => "TokenRefused",
            Self::NoEndpoint => "NoRevokeEndpoint",
            Self::Refused => "RevocationRefused",
            Self::Failing => "RevocationFails",
            Self::Unclear => "DeathUnclear",
            Self::NoKeyId => "KeyIdUnknown",
            Self::SharedKeyId => "KeyIdShared",
            Self::OtherUser => "KeyOfAnotherUser",
            Self::NotProvable => "ValueLost",
            Self::Unwitnessed => "NoKeyAccepted",
            Self::Contradicted => "StillListed",
        }
    }
}

fn why(reason: PersonReason, slot: &SlotSeen, seen: &Observation) -> String {
    let attempt = slot.attempt().unwrap_or_default();
    let text = match reason {
        PersonReason::Mode => "spec.revocation.mode is Person".to_owned(),
        PersonReason::CredentialsUnusable => "the credentials cannot be used".to_owned(),
        PersonReason::NoToken => "a wallet cannot revoke and there is no agent token".to_owned(),
        PersonReason::TokenRefused => "the service refuses the agent token".to_owned(),
        PersonReason::NoEndpoint => {
            format!("the service has no endpoint {}", seen.account.revocation_path())
        }
        PersonReason::Refused => {
            let error = seen.revocation_refused(slot).map_or_else(String::new, |error| format!(" ({error})"));
            let again = GoDuration(seen.timings.capability_retry);
            format!("the service refuses to revoke it{error}, and is asked again after {again}")
        }
        PersonReason::Failing => {
            "its revocation fails or has no effect, and is sent again every few minutes".to_owned()
        }
        PersonReason::Unclear => {
            "the service says neither that it works nor that it does not, as where its user is gone or suspended, or \
             something else answers in its stead"
                .to_owned()
        }
        PersonReason::NoKeyId => {
            "the service told no id of it, or has more than one key of its name".to_owned()
        }
        PersonReason::SharedKeyId => {
            "another key of the account goes by the same id, so look for its name".to_owned()
        }
        PersonReason::OtherUser => {
            let user = slot.user().map_or_else(String::new, |user| format!(" {user}"));
            format!("it belongs to user{user} of Bags, whose token the account has not")
        }
        PersonReason::NotProvable => {
            "its value is lost and no list can show that it is gone, so only \"resolved\" ends this"
                .to_owned()
        }
        PersonReason::Unwitnessed => {
            "the service does not accept it any more, and no other key of the account either, so that this proves nothing".to_owned()
        }
        PersonReason::Contradicted => {
            "the service does not accept it any more, and lists it all the same".to_owned()
        }
    };
    format!("{text} (attempt {attempt})")
}

pub(super) fn key_unresolved(seen: &Observation) -> Option<Word> {
    let unresolved = seen.slots.iter().filter(|slot| slot.slot.state == SlotState::Unresolved);
    let keys: Vec<String> = unresolved
        .map(|slot| {
            let attempt = slot.attempt().unwrap_or_default();
            let doubt = if of_another_user(slot) {
                "belongs to another user of Bags than this account's, and is on that user's page"
            } else {
                "may or may not exist, as its creation was never answered"
            };
            format!("{} {doubt} (attempt {attempt})", named(slot))
        })
        .collect();
    if keys.is_empty() {
        return None;
    }
    word(
        true,
        "PersonNeeded",
        format!(
            "{}. Look for it by its name at {PAGE}, revoke it there if it exists, then annotate this account {}: <attempts>",
            some_of(keys),
            annotation::RESOLVED
        ),
    )
}
