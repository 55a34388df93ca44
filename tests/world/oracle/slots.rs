//! Each write of the ledger: the table of slots, and what it must be true of beside itself.

use std::collections::BTreeMap;

use bags_operator::{
    api::{
        BagsAccount,
        account::{Slot, SlotState},
        annotation,
    },
    ledger::{
        Ledger, Room,
        invariants::{Waiver, violations},
        slots::Terms,
    },
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{Oracle, elapsed};
use crate::{
    apiserver::{Change, ChangeKind},
    process::OPERATOR_NAMESPACE,
    scene::{ACCOUNT, CLUSTER, Scene},
};

impl Oracle {
    /// The ledger changed, or something beside it.
    pub(super) fn account_written(&mut self, change: &Change, scene: &Scene, now: Timestamp) {
        if change.kind == ChangeKind::Deleted {
            self.ledger = Ledger::default();
            return;
        }
        self.is_left_to_a_newer_version(change);
        // Most writes are about other things, and reading all of an account is dear.
        let same = |field| {
            change
                .before
                .as_deref()
                .is_some_and(|before| before.pointer(field) == change.object.pointer(field))
        };
        if same("/status/slots") && same("/status/departed") {
            return;
        }
        let Ok(account) = BagsAccount::deserialize(&*change.object) else {
            return self.blame("the account cannot be read any more".to_owned());
        };
        let after = Ledger::of(account.status.as_ref());
        if after == self.ledger {
            return;
        }
        let born = |slot: &&Slot| {
            slot.state == SlotState::Creating
                && slot.attempt.as_deref().is_some_and(|attempt| self.ledger.by_attempt(attempt).is_none())
        };
        // A write may take its time; a licence counts from the moment that it names.
        let moment = after.slots.iter().find(born).map_or(now, |slot| slot.since);
        let before = std::mem::replace(&mut self.ledger, after.clone());
        let lost = std::mem::take(&mut self.ledger_lost) && before.slots.is_empty();
        let (waiver, moment) = if lost { (Waiver::Rebuild, now) } else { (Waiver::None, moment) };
        let terms = Terms {
            room: Room::of(&account, now, &self.timings),
            now: moment,
            licence_term: self.timings.licence_term,
        };
        self.found.extend(violations(&before, &after, &terms, waiver));
        self.beside_the_operators_own_judgement(&before, &after, &terms);
        self.no_value_can_arrive(&before, &after, scene);
        if waiver != Waiver::Rebuild {
            self.places_are_kept_rightly(&before, &after, &terms.room, scene);
            self.all_have_room(&before, &after, &account);
            self.licences_are_allowed(&before, &after, &account);
            self.begins_in_a_window(&before, &after, scene, now);
        }
        for slot in after.slots.iter().filter(|slot| slot.state == SlotState::Creating) {
            if let Some(name) = &slot.key_name {
                self.licences.entry(name.clone()).or_insert(slot.since);
            }
        }
        for slot in &after.slots {
            let current = after.current(&slot.owner.uid).and_then(|current| current.attempt.as_ref());
            let known = self.currents.entry(slot.owner.uid.clone()).or_default();
            known.extend(current.filter(|current| known.last() != Some(*current)).cloned());
        }
        let revoking = after.slots.iter().filter(|slot| slot.state == SlotState::Revoking);
        self.condemned.extend(revoking.filter_map(|slot| slot.attempt.clone()));
        for slot in &after.slots {
            if let (Some(number), Some(attempt)) = (slot.published, slot.attempt.clone()) {
                let known = self.switches.insert((slot.owner.uid.clone(), number), attempt.clone());
                if known.is_some_and(|known| known != attempt) {
                    self.blame(format!("I2: switch {number} of {} was of two keys", slot.owner.name));
                }
            }
            let was = slot.attempt.as_deref().and_then(|attempt| before.by_attempt(attempt));
            if slot.state == SlotState::Revoking && was.is_some_and(|was| was.state == SlotState::Live) {
                self.gate_passed(slot, scene);
            }
        }
    }

    /// Of an account that a newer version holds nothing is written but what is told of it, also of what this version cannot read.
    fn is_left_to_a_newer_version(&mut self, change: &Change) {
        let Some(before) = change.before.as_deref().filter(|before| is_held(before)) else { return };
        if ledger_as_written(before) != ledger_as_written(&change.object) {
            self.blame("a ledger with a state of a newer version was changed".to_owned());
        }
    }

    /// What the operator's own function might be wrong about itself, and what is no invariant of a ledger.
    fn beside_the_operators_own_judgement(&mut self, before: &Ledger, after: &Ledger, terms: &Terms) {
        let open = |slot: &&Slot| {
            slot.state == SlotState::Creating && elapsed(slot.since, terms.now) < self.timings.licence_term
        };
        // Two may be open where a clock was set back; none is taken then.
        let born = |slot: &&Slot| {
            slot.attempt.as_deref().is_some_and(|attempt| before.by_attempt(attempt).is_none())
        };
        if after.slots.iter().filter(open).count() > 1
            && after.slots.iter().filter(open).any(|slot| born(&slot))
        {
            self.blame("I5: a licence was taken while another one was open".to_owned());
        }
        for slot in after.slots.iter().filter(|slot| slot.state == SlotState::Live) {
            let attempt = slot.attempt.clone().unwrap_or_default();
            let was = before.by_attempt(&attempt).map(|was| was.state.clone());
            if was == Some(SlotState::Creating) && !self.verified.contains(&attempt) {
                self.blame(format!("{attempt} was published before it answered 200"));
            }
        }
    }

    /// A place more is kept only within the limit. These sums are not the operator's own: `used` is every slot and every key
    /// made elsewhere, and of those who have slots beside a free one for a rotation nobody else gets one.
    fn all_have_room(&mut self, before: &Ledger, after: &Ledger, account: &BagsAccount) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let elsewhere = account.status.as_ref().and_then(|status| status.capacity.as_ref());
        let elsewhere = elsewhere.map_or(0, |capacity| capacity.unmanaged);
        let (then, now) = (count(before.slots.len()), count(after.slots.len()));
        let limit = account.spec.limit.unwrap_or(10);
        if now > then && now + elsewhere > limit {
            self.blame(format!(
                "I4: a place is kept beyond the limit of {limit}: {now} slots, {elsewhere} elsewhere"
            ));
        }
        let owners = |ledger: &Ledger| {
            let uids = ledger.slots.iter().map(|slot| slot.owner.uid.clone());
            count(uids.collect::<std::collections::BTreeSet<_>>().len())
        };
        let reserve = account.spec.rotation_reserve.unwrap_or(1);
        let further = now - owners(after);
        if owners(after) > owners(before) && owners(after) + elsewhere + reserve.max(further) > limit {
            self.blame("admission: a first place is kept, and none is left for rotations".to_owned());
        }
    }

    /// A licence is given in this installation's ledger, and by an account that allows the ApiKey's namespace and environment,
    /// as both stand there in that very write. What allows by labels is not judged: those are another object's, and may
    /// change at the same moment.
    fn licences_are_allowed(&mut self, before: &Ledger, after: &Ledger, account: &BagsAccount) {
        let installation = account.status.as_ref().and_then(|status| status.installation.as_ref());
        let ours = installation.is_some_and(|it| it.cluster == CLUSTER && it.namespace == OPERATOR_NAMESPACE);
        let born = |slot: &&Slot| {
            slot.state == SlotState::Creating
                && slot.attempt.as_deref().is_some_and(|attempt| before.by_attempt(attempt).is_none())
        };
        let none = BTreeMap::new();
        for slot in after.slots.iter().filter(born) {
            let environment = slot.key_use.split_once('/').map(|(environment, _)| environment);
            let environment = environment.unwrap_or_default();
            if !ours {
                let name = &slot.owner.name;
                self.blame(format!("{name} was given a licence in a ledger of another installation"));
            }
            let allowed = account.allowing(&slot.owner.namespace, &none, environment).next().is_some();
            if !allowed && !account.allows_by_label() {
                self.blame(format!(
                    "{} was given a licence by an account that does not allow it",
                    slot.owner.name
                ));
            }
        }
    }

    /// Whoever judges that nobody can tell whether a key exists has made sure that its value cannot arrive any more.
    fn no_value_can_arrive(&mut self, before: &Ledger, after: &Ledger, scene: &Scene) {
        for slot in after.slots.iter().filter(|slot| slot.state == SlotState::Unresolved) {
            let attempt = slot.attempt.clone().unwrap_or_default();
            let was = before.by_attempt(&attempt).map(|was| was.state.clone());
            let kept = scene.api.get("secrets", OPERATOR_NAMESPACE, &format!("bags-key-{attempt}"));
            if was == Some(SlotState::Creating) && kept.is_some_and(|kept| kept["data"]["value"].is_null()) {
                self.blame(format!("{attempt} was judged while its value could still arrive"));
            }
        }
    }

    /// I3: a published key is condemned only once a person lets it go, its namespace does, or it is dead already.
    fn gate_passed(&mut self, slot: &Slot, scene: &Scene) {
        let attempt = slot.attempt.clone().unwrap_or_default();
        let dead = !self.alive.values().any(|name| name.ends_with(&format!("-{attempt}")));
        let owner = scene.api.get("apikeys", &slot.owner.namespace, &slot.owner.name);
        let owner = owner.filter(|owner| owner["metadata"]["uid"].as_str() == Some(slot.owner.uid.as_str()));
        let namespace = scene.api.get("namespaces", "", &slot.owner.namespace);
        let gone = namespace.is_none();
        let deleted_at = |object: Option<&Value>| {
            object?["metadata"]["deletionTimestamp"].as_str()?.parse::<Timestamp>().ok()
        };
        // Whichever of the two was deleted last: what runs there has to end as anywhere else before that.
        let both = deleted_at(owner.as_deref()).zip(deleted_at(namespace.as_deref()));
        let handed_over =
            both.is_some_and(|(key, of)| elapsed(key.max(of), slot.since) >= self.timings.handover);
        let account = scene.api.get("bagsaccounts", "", ACCOUNT);
        let let_go = account.is_some_and(|account| {
            let said = account["metadata"]["annotations"][annotation::REVOKE].as_str().unwrap_or_default();
            said.split(',').any(|word| word == attempt)
        });
        let allowed = match owner {
            Some(owner) => {
                let deleting = !owner["metadata"]["deletionTimestamp"].is_null();
                let word = !owner["metadata"]["annotations"][annotation::DELETE_NOW].is_null();
                let heard = self.was_heard(&owner, slot.since) || self.was_read(&owner);
                if deleting && heard && owner["spec"]["deletionPolicy"] == "Orphan" {
                    self.blame(format!("I3: {attempt} was condemned, which is left to people"));
                }
                // Nobody lets it go: then nobody may hold it.
                match deleting {
                    true if word || handed_over => true,
                    true => {
                        self.deleted.insert(attempt);
                        return self.unread(slot, &owner, scene);
                    }
                    false => return self.replaced(slot, &owner, scene),
                }
            }
            // Whose gate was passed before stays so, also where the ledger was lost since and has it as alive again.
            None => gone || let_go || self.excused.contains(&attempt) || self.deleted.contains(&attempt),
        };
        if allowed {
            self.excused.insert(attempt.clone());
        }
        if !allowed && !dead {
            self.blame(format!("I3: {attempt} of {} was condemned without a gate", slot.owner.name));
        }
    }
}

/// Whether a slot is in a state that this version does not know.
fn is_held(account: &Value) -> bool {
    let slots = account["status"]["slots"].as_array().into_iter().flatten();
    slots
        .map(|slot| SlotState::from(slot["state"].as_str().unwrap_or_default().to_owned()))
        .any(|state| matches!(state, SlotState::Unknown(_)))
}

/// An account's status as it stands there, without what is told of it.
fn ledger_as_written(account: &Value) -> Value {
    let mut status = account["status"].clone();
    if let Some(status) = status.as_object_mut() {
        status.retain(|field, _| !matches!(field.as_str(), "conditions" | "observedGeneration"));
    }
    status
}
