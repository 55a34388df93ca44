//! What to do next for an account: one lookup or one effect, or how long to rest. Pure and total.
//!
//! The rules are asked in order and the first one that has something to do now is followed; then all is observed
//! again. A rule that only waits yields to the later ones and contributes its deadline:
//!
//! 1. the ledger gets its installation, or is taken over on a person's word;
//! 2. an account that is being deleted loses its finalizer once it has no slot, no Secret of a dead key and no ApiKey that is
//!    being deleted as well, or on a person's word;
//! 3. the finalizer;
//! 4. a key id that became known later is written into the key's slot;
//! 5. a lost key is condemned;
//! 6. a key in `Revoking` is revoked and proven dead (`death`);
//! 7. a creation of unknown outcome is judged;
//! 8. an unresolved key is resolved by lists or by a person;
//! 9. a released key that is gone leaves its slot;
//! 10. slots whose ApiKey vanished are given back, abandoned or condemned (`orphans`);
//! 11. keystore Secrets without a slot are cleared away;
//! 12. the list is asked for at the resync.
//!
//! If the ledger belongs to another installation, only rule 2 applies. If a slot is in a state that only a newer version knows,
//! rules 2, 3 and 12 apply; even a take-over waits for a version that knows every state. A ledger that is nobody's may have been
//! lost, so what is missing in it says nothing: then only rules 1 and 3 apply, and rule 2 on a person's word alone.

use std::time::Duration;

use kube::ResourceExt;

use super::{
    death::{self, Evidence, Next, Witness},
    judge::ListWay,
    observe::{LooseEntry, Observation, OwnerSeen, SlotSeen, Stored},
    orphans::orphans,
    rebuild,
};
use crate::{
    api::{
        FINALIZER,
        account::{Installation, Owner, Slot, SlotState},
        annotation,
        name::cluster_mark,
    },
    ledger::{Change, WRONG_USER},
};

/// Failure reason of a creation whose outcome nobody can tell.
pub(super) const OUTCOME_UNKNOWN: &str = "OutcomeUnknown";

/// A creation that still runs although it should be judged is looked at again after this.
const AFTER_SAVE: Duration = Duration::from_secs(1);

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// Read something.
    Look(Look),
    /// Change something.
    Act(Effect),
    /// Nothing before this long from now; `None`: nothing until something changes.
    Rest(Option<Duration>),
}

/// A lookup that costs a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Look {
    /// The ApiKey of a slot, live.
    Owner(Owner),
    /// Whether a namespace is there, live.
    Namespace(String),
    /// An attempt's keystore Secret, live.
    Entry(String),
    /// Every keystore Secret of the account and the consumer Secrets of their owners, live.
    Remnants,
    /// The account's list.
    List,
    /// Whether an attempt's key works.
    Probe(String),
    /// Whether the service is there.
    Ping,
}

/// A change of the world.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    /// Writes into the ledger which installation it belongs to.
    Pin {
        /// Which.
        installation: Installation,
        /// The user that the account's keys belong to, where one is known.
        user: Option<String>,
        /// The slots to put back, as the keystore tells them.
        slots: Vec<Slot>,
    },
    /// Puts the finalizer on.
    AddFinalizer,
    /// Takes the finalizer off: the account goes.
    RemoveFinalizer,
    /// Changes a slot.
    Change(Change),
    /// Deletes an attempt's empty keystore Secret, after which its value cannot arrive any more.
    Close(String),
    /// Deletes a keystore Secret that belongs to no slot.
    Clear(String),
    /// Asks Bags to revoke.
    Revoke {
        /// The attempt.
        attempt: String,
        /// The key's id.
        key_id: String,
    },
    /// A revocation had no effect: it is sent again.
    Ineffective(String),
}

/// Whose ledger it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody's yet, or a person gave it to this installation.
    Takeable,
    /// This installation's.
    Ours,
    /// Another's.
    Foreign,
}

/// The result of a rule.
pub(super) enum Turn {
    /// This, at once.
    Now(Decision),
    /// Something, after this long.
    In(Duration),
    /// Nothing until something changes.
    Nothing,
}

type Rule = fn(&Observation) -> Turn;

/// Decides.
pub(super) fn decide(seen: &Observation) -> Decision {
    let all: [Rule; 12] = [
        pin, let_go, finalizer, identified, lost, revoking, judge, unresolved, released, orphans, loose,
        list_due,
    ];
    let rules: &[Rule] = match (standing(seen), held_by_unknown_state(seen)) {
        (Standing::Foreign, _) => &[let_go],
        (Standing::Takeable | Standing::Ours, true) => &[let_go, finalizer, list_due],
        (Standing::Takeable | Standing::Ours, false) if pending(seen) => &[pin, let_go, finalizer],
        (Standing::Takeable | Standing::Ours, false) => &all,
    };
    match first(rules.iter().map(|rule| rule(seen))) {
        Turn::Now(decision) => decision,
        Turn::In(wait) => Decision::Rest(Some(wait)),
        Turn::Nothing => Decision::Rest(None),
    }
}

/// The first that has something to do now, else the earliest deadline.
pub(super) fn first(turns: impl Iterator<Item = Turn>) -> Turn {
    let mut earliest: Option<Duration> = None;
    for turn in turns {
        match turn {
            Turn::Now(decision) => return Turn::Now(decision),
            Turn::In(wait) => earliest = Some(earliest.map_or(wait, |known| known.min(wait))),
            Turn::Nothing => {}
        }
    }
    earliest.map_or(Turn::Nothing, Turn::In)
}

fn act(effect: Effect) -> Turn {
    Turn::Now(Decision::Act(effect))
}

pub(super) fn change(change: Change) -> Turn {
    act(Effect::Change(change))
}

pub(super) fn look(look: Look) -> Turn {
    Turn::Now(Decision::Look(look))
}

/// Asks every slot in one state.
fn each(seen: &Observation, state: &SlotState, rule: impl Fn(&SlotSeen, String) -> Turn) -> Turn {
    let slots = seen.slots.iter().filter(|slot| slot.slot.state == *state);
    first(slots.filter_map(|slot| Some(rule(slot, slot.attempt()?.to_owned()))))
}

/// Whose ledger it is. The annotation `take-over` names the cluster that takes it over; if only the namespace differs, it has to
/// say `<cluster>/<namespace>`, or the two installations of one cluster would take it from each other in turn.
pub(super) fn standing(seen: &Observation) -> Standing {
    let Installation { cluster, namespace } = &seen.installation;
    let pinned = seen.account.status.as_ref().and_then(|status| status.installation.as_ref());
    let Some(pinned) = pinned else { return Standing::Takeable };
    if *pinned == seen.installation {
        return Standing::Ours;
    }
    let wanted = seen.annotation(annotation::TAKE_OVER).unwrap_or_default().trim();
    let (wanted_cluster, wanted_namespace) = match wanted.split_once('/') {
        Some((cluster, namespace)) => (cluster, Some(namespace)),
        None => (wanted, None),
    };
    let this_cluster = wanted_cluster == cluster || wanted_cluster == cluster_mark(cluster);
    let this_namespace = wanted_namespace.map_or(pinned.cluster != *cluster, |wanted| wanted == namespace);
    if this_cluster && this_namespace { Standing::Takeable } else { Standing::Foreign }
}

/// Whether the ledger belongs to another installation of this very cluster: then both see the same account.
pub(super) fn neighbours(seen: &Observation) -> bool {
    let pinned = seen.account.status.as_ref().and_then(|status| status.installation.as_ref());
    standing(seen) == Standing::Foreign
        && pinned.is_some_and(|pinned| pinned.cluster == seen.installation.cluster)
}

/// Whether the ledger belongs to no installation yet: then the account is new, or the ledger was lost with its status.
pub(super) fn nobodys(seen: &Observation) -> bool {
    seen.account.status.as_ref().is_none_or(|status| status.installation.is_none())
}

/// Whether the ledger may have to be rebuilt from the keystore first: until then nothing may be decided on what is missing in it.
/// That is a ledger which is nobody's, or an empty one that is being taken over from another installation.
pub(super) fn pending(seen: &Observation) -> bool {
    nobodys(seen) || standing(seen) == Standing::Takeable && seen.slots.is_empty()
}

/// Whether a slot is in a state that only a newer version knows.
pub(super) fn held_by_unknown_state(seen: &Observation) -> bool {
    seen.slots.iter().any(|slot| matches!(slot.slot.state, SlotState::Unknown(_)))
}

/// Whether a person lets the account go although slots are left.
pub(super) fn forgotten(seen: &Observation) -> bool {
    seen.annotation(annotation::FORGET).is_some_and(|value| value != "false")
}

/// Whether the keystore still has Secrets of attempts that left the ledger: nobody would clear them away once the account is
/// gone. If the ledger is another installation's, this one clears nothing away, so the answer is no.
pub(super) fn holds_dead_values(seen: &Observation) -> bool {
    standing(seen) == Standing::Ours && seen.loose.iter().any(|entry| seen.departed.contains(&entry.attempt))
}

fn pin(seen: &Observation) -> Turn {
    match standing(seen) {
        // Another installation may have taken a ledger that was lost, and found nothing of it in its own keystore.
        Standing::Takeable if seen.slots.is_empty() => rebuild::pin(seen),
        Standing::Takeable => {
            act(Effect::Pin { installation: seen.installation.clone(), user: None, slots: Vec::new() })
        }
        Standing::Ours | Standing::Foreign => Turn::Nothing,
    }
}

fn let_go(seen: &Observation) -> Turn {
    let deleting = seen.account.metadata.deletion_timestamp.is_some();
    let finalized = seen.account.finalizers().iter().any(|name| name == FINALIZER);
    let empty = seen.slots.is_empty() && !pending(seen) && !holds_dead_values(seen);
    let free = empty && !seen.leaving || forgotten(seen);
    if deleting && finalized && free && !seen.finalizer_done {
        return act(Effect::RemoveFinalizer);
    }
    Turn::Nothing
}

fn finalizer(seen: &Observation) -> Turn {
    let deleting = seen.account.metadata.deletion_timestamp.is_some();
    let finalized = seen.account.finalizers().iter().any(|name| name == FINALIZER);
    if deleting || finalized || seen.finalizer_done { Turn::Nothing } else { act(Effect::AddFinalizer) }
}

/// The answer to a creation may lack the key's id, which a list tells later. A slot in `Creating` gets its id when its key is
/// published.
fn identified(seen: &Observation) -> Turn {
    let nameless = seen.slots.iter().filter(|slot| slot.slot.key_id.is_none());
    let settled = nameless.filter(|slot| slot.slot.state != SlotState::Creating);
    first(settled.filter_map(|slot| {
        let (attempt, key_id) = (slot.attempt()?.to_owned(), slot.key_id.clone()?);
        Some(change(Change::Identify { attempt, key_id }))
    }))
}

fn lost(seen: &Observation) -> Turn {
    each(seen, &SlotState::Lost, |_, attempt| {
        change(Change::Condemn { attempt, emergency: false, looked_at: None })
    })
}

fn revoking(seen: &Observation) -> Turn {
    each(seen, &SlotState::Revoking, |slot, attempt| match death::next(&seen.death(slot)) {
        Next::Dead => bury(seen, slot, attempt),
        Next::Probe => look(Look::Probe(attempt)),
        Next::Revoke => match &slot.key_id {
            Some(key_id) => act(Effect::Revoke { attempt, key_id: key_id.clone() }),
            None => Turn::Nothing,
        },
        Next::Ineffective => act(Effect::Ineffective(attempt)),
        Next::List => ask_list(seen),
        Next::Witness(other) => look(Look::Probe(other)),
        Next::Ping => look(Look::Ping),
        Next::Wait(wait) => wait.map_or(Turn::Nothing, Turn::In),
    })
}

/// An owner that still exists keeps a place when its last slot goes; only then is it read live whether the owner exists.
fn bury(seen: &Observation, slot: &SlotSeen, attempt: String) -> Turn {
    let last = seen.slots.iter().filter(|other| other.slot.owner.uid == slot.slot.owner.uid).count() == 1;
    let owner_lives = match slot.owner {
        _ if !last => false,
        OwnerSeen::Lives => true,
        OwnerSeen::Deleting | OwnerSeen::Gone => false,
        OwnerSeen::Cached | OwnerSeen::Missing(_) => return look(Look::Owner(slot.slot.owner.clone())),
    };
    change(Change::Bury { attempt, owner_lives })
}

/// Judges a creation of unknown outcome: first its value is made unable to arrive, then lists are asked.
fn judge(seen: &Observation) -> Turn {
    each(seen, &SlotState::Creating, |slot, attempt| {
        let age = seen.age_of(slot);
        match slot.stored {
            // Its value is there: the ApiKey's reconciler goes on with it.
            Stored::Value => return Turn::Nothing,
            // Its save is running. Where that ends without an answer it writes nothing: nothing else would wake us.
            _ if slot.running => {
                return Turn::In(seen.timings.judge_after.saturating_sub(age).max(AFTER_SAVE));
            }
            _ if age < seen.timings.judge_after => return Turn::In(seen.timings.judge_after - age),
            _ if seen.uncleared.contains(&attempt) => return Turn::Nothing,
            _ if slot.memory.closed => {}
            Stored::SurelyEmpty => return act(Effect::Close(attempt)),
            Stored::Absent | Stored::Empty => return look(Look::Entry(attempt)),
        }
        match seen.evidence(slot) {
            Evidence::Shown { key_id } => change(Change::Lose { attempt, key_id }),
            Evidence::Absent => change(Change::NotMade { attempt, reason: OUTCOME_UNKNOWN }),
            Evidence::None => change(Change::Doubt { attempt, reason: OUTCOME_UNKNOWN }),
            Evidence::Ask => ask_list(seen),
            Evidence::Lacking(wait) => ask_list_in(seen, wait),
            Evidence::Later(wait) => Turn::In(wait),
        }
    })
}

fn unresolved(seen: &Observation) -> Turn {
    each(seen, &SlotState::Unresolved, |slot, attempt| {
        if seen.resolved(slot) {
            return change(Change::Dismiss { attempt });
        }
        if of_another_user(slot) {
            return Turn::Nothing;
        }
        match seen.evidence(slot) {
            Evidence::Shown { key_id } => change(Change::Lose { attempt, key_id }),
            Evidence::Absent => change(Change::Dismiss { attempt }),
            Evidence::Ask => ask_list(seen),
            Evidence::Lacking(wait) => ask_list_in(seen, wait),
            Evidence::Later(wait) => Turn::In(wait),
            Evidence::None => Turn::Nothing,
        }
    })
}

/// A released key is judged only by lists that are asked for anyway: nothing needs its slot so urgently.
fn released(seen: &Observation) -> Turn {
    each(seen, &SlotState::Released, |slot, attempt| {
        let gone = seen.resolved(slot) || seen.evidence(slot) == Evidence::Absent;
        if gone { change(Change::Dismiss { attempt }) } else { Turn::Nothing }
    })
}

/// A keystore Secret whose attempt left the ledger is deleted; so is an empty one for which no licence can be taken any more. One
/// that holds a value, and of which the ledger has no trace, is left to a person.
fn loose(seen: &Observation) -> Turn {
    first(seen.loose.iter().map(|entry| {
        let LooseEntry { attempt, value, created, watched, running } = entry;
        let clear = || act(Effect::Clear(attempt.clone()));
        match (seen.departed.contains(attempt), *value, created) {
            _ if *running || seen.uncleared.contains(attempt) => Turn::Nothing,
            (true, _, _) => clear(),
            (false, true, _) | (false, false, None) => Turn::Nothing,
            (false, false, Some(created)) => {
                let age = seen.surely(*created, *watched);
                let rest = seen.timings.placeholder_reap_after.saturating_sub(age);
                if rest.is_zero() { clear() } else { Turn::In(rest) }
            }
        }
    }))
}

fn list_due(seen: &Observation) -> Turn {
    let failed = seen.facts.list_failure.as_ref().map(|failure| failure.retry_at);
    let listed = seen.list.as_ref().map(|list| list.at + seen.timings.resync);
    let rest = match seen.list_way() {
        ListWay::NoToken => return Turn::Nothing,
        ListWay::Refused | ListWay::Missing | ListWay::Failing(_) => failed,
        ListWay::Open => listed,
    };
    let rest = rest.map_or(Duration::ZERO, |at| at.saturating_duration_since(seen.now));
    match (rest.is_zero(), ordinary_lists_decide(seen), seen.cover()) {
        (false, _, _) => Turn::In(rest),
        (true, true, Witness::Ask(attempt)) => look(Look::Probe(attempt)),
        (true, _, _) => look(Look::List),
    }
}

/// Whether a slot waits for what the regular lists say. A released key counts only while the account is full: for its sake
/// another key would be probed every hour, and the probes would hide when that key was really used last.
fn ordinary_lists_decide(seen: &Observation) -> bool {
    let capacity = seen.account.status.as_ref().and_then(|status| status.capacity.as_ref());
    let full = capacity.is_some_and(|capacity| capacity.available <= 0);
    seen.slots.iter().any(|slot| match slot.slot.state {
        SlotState::Revoking => true,
        SlotState::Unresolved => !of_another_user(slot),
        SlotState::Released => full,
        SlotState::Reserved
        | SlotState::Creating
        | SlotState::Live
        | SlotState::Lost
        | SlotState::Unknown(_) => false,
    })
}

/// Whether an unresolved key belongs to another user of Bags, of which lists of this account say nothing. Only such a key is
/// `Unresolved` although its value is known: for any other one, `judge` first makes sure that its value cannot arrive any more.
pub(super) fn of_another_user(slot: &SlotSeen) -> bool {
    let said = slot.slot.failures.as_ref().is_some_and(|failures| failures.reason == WRONG_USER);
    slot.slot.state == SlotState::Unresolved && (said || slot.stored == Stored::Value)
}

/// A list that is to decide something must show a key that answered 200 lately: if no key has, one is probed first.
fn ask_list(seen: &Observation) -> Turn {
    match seen.cover() {
        Witness::Ask(attempt) => look(Look::Probe(attempt)),
        Witness::Later(wait) => Turn::In(wait),
        Witness::Good | Witness::After | Witness::Nobody => look(Look::List),
    }
}

fn ask_list_in(seen: &Observation, wait: Duration) -> Turn {
    if wait.is_zero() { ask_list(seen) } else { Turn::In(wait) }
}

#[cfg(test)]
pub(super) mod tests;
