//! No consumer sees 401: no running pod holds a key that is not let in, at any moment.
//!
//! It is asked whenever a key dies, by the sandbox's own state, and at each call of an application. Excused are keys that
//! people revoke on the page, and those that they have the operator revoke without a look at who holds them.

use std::{sync::Arc, time::Duration};

use bags_operator::{
    api::{
        ApiKey,
        account::{Slot, SlotState},
        annotation,
        apikey::{Rotation, RotationWindow},
        mark,
    },
    ledger::Ledger,
};
use http::Request;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{Oracle, elapsed};
use crate::{
    apiserver::Payload,
    cluster::Held,
    scene::{MARK, Scene, TENANT, attempt_in, secret_of},
};

/// Whoever condemns a key has asked its successor no longer before.
const LAST_LOOK: Duration = Duration::from_mins(5);
/// The same of the pods, which take no request to Bags to look at.
const LAST_LOOK_AT_PODS: Duration = Duration::from_mins(2);

/// After so many rotations in a row that were turned back none begins by itself.
const GIVES_UP: usize = 3;

/// A process sets a mark so often at most: once, and once more where somebody took it away.
const MOST_MARKS: usize = 2;

/// Lists tell whole seconds, and so does the service's clock.
const WHOLE_SECONDS: Duration = Duration::from_secs(2);

impl Oracle {
    /// Ids and names of the keys that are let in no more since this was last asked.
    pub(super) fn newly_dead(&mut self, scene: &Scene) -> Vec<(String, String)> {
        let before = std::mem::replace(&mut self.alive, scene.all_living_keys());
        before.into_iter().filter(|(id, _)| !self.alive.contains_key(id)).collect()
    }

    /// Keys may have died, and not by people.
    pub(crate) fn keys_died(&mut self, scene: &Scene) {
        for (_, name) in self.newly_dead(scene).into_iter().filter(|(_, name)| name.contains(MARK)) {
            self.nobody_holds(&name, scene);
        }
    }

    /// People may have revoked keys.
    pub(super) fn keys_died_by_people(&mut self, scene: &Scene, now: Timestamp) {
        for (_, name) in self.newly_dead(scene).into_iter().filter(|(_, name)| name.contains(MARK)) {
            // A person who revokes what the operator asks to have revoked only does as told.
            let attempt = attempt_in(&name);
            self.died.insert(attempt.to_owned(), now);
            if !self.condemned.contains(attempt) {
                self.excused.insert(attempt.to_owned());
            }
            self.nobody_holds(&name, scene);
        }
    }

    /// Whoever runs with a key when it dies would see 401.
    pub(super) fn nobody_holds(&mut self, name: &str, scene: &Scene) {
        for held in scene.cluster.held() {
            if self.attempt_of(&held.value) == Some(attempt_in(name)) {
                self.consumer_refused(&held);
            }
        }
    }

    /// A pod has seen 401, or is about to.
    pub(crate) fn consumer_refused(&mut self, held: &Held) {
        let Held { pod, outside, value, since } = held;
        // Values that are no key of the operator's are people's own doing.
        let Some(attempt) = self.attempt_of(value).map(str::to_owned) else { return };
        let answered_for = *outside && self.deleted.contains(&attempt);
        if !self.excused.contains(&attempt) && !answered_for {
            self.blame(format!("a consumer saw 401: pod {pod} has held {attempt} since {since}"));
        }
    }

    /// An application calls.
    pub(crate) fn consumer_called(&mut self, held: &Held, now: Timestamp) {
        let Some(attempt) = self.attempt_of(&held.value).map(str::to_owned) else { return };
        let called = if held.outside { &mut self.called_from_outside } else { &mut self.called };
        called.insert(attempt, now);
    }
}

/// I9.
impl Oracle {
    /// A workload was patched: by a mark and nothing else, once for each switch. Where people took it away, once more, after a while:
    /// each process knows of its own marks alone, and of no one whose answer was lost.
    pub(super) fn restarted(
        &mut self,
        (incarnation, heard): (u32, bool),
        request: &Request<Payload>,
        scene: &Scene,
        now: Timestamp,
    ) {
        let path = request.uri().path();
        if !path.contains("/apis/apps/v1/") {
            return;
        }
        let body = request.body().value();
        let marks = body.pointer("/spec/template/metadata/annotations").and_then(Value::as_object);
        let only = body["spec"]["template"]["metadata"].as_object().map_or(0, serde_json::Map::len) == 1
            && body["spec"]["template"].as_object().map_or(0, serde_json::Map::len) == 1
            && body["spec"].as_object().map_or(0, serde_json::Map::len) == 1;
        let marks: Vec<(&String, &Value)> = marks.into_iter().flatten().collect();
        let [(name, mark)] = *marks.as_slice() else {
            return self.blame(format!("I9: {path} was patched with {} annotations", marks.len()));
        };
        if !only || !name.starts_with("restart.keys.bags.fm/") {
            self.blame(format!("I9: {path} was patched with more than a mark: {name}"));
        }
        let key = name.strip_prefix("restart.keys.bags.fm/").unwrap_or_default();
        let key = scene.api.get("apikeys", TENANT, key);
        let uid = key.as_ref().and_then(|key| key["metadata"]["uid"].as_str()).unwrap_or_default();
        self.is_allowed(path, key.as_deref(), scene, now);
        let switch = self.ledger.current(uid).and_then(|slot| slot.published).unwrap_or_default();
        if self.marks.insert((path.to_owned(), name.clone()), switch) == Some(switch) {
            self.blame(format!("I9: {path} was restarted twice for one switch"));
        }
        let of_workload =
            object_at(path, scene).map(|it| it["metadata"]["uid"].to_string()).unwrap_or_default();
        let marked = self.marked_at.entry((incarnation, of_workload, mark.to_string())).or_default();
        let before = marked.last().map(|before| elapsed(*before, now));
        marked.extend(heard.then_some(now));
        let times = marked.len();
        if let Some(before) = before.filter(|before| *before < self.timings.remark_after) {
            self.blame(format!(
                "I9: {path} was restarted again {before:?} after the same process had done so"
            ));
        }
        if times > MOST_MARKS {
            self.blame(format!("I9: {path} was restarted {times} times for one switch by one process"));
        }
        let others: Vec<&str> = self
            .marks
            .iter()
            .filter(|((other, of), number)| other != path && of == name && **number == switch)
            .map(|((other, _), _)| other.as_str())
            .collect();
        let is_up = |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array();
            pod["metadata"]["annotations"][name] == *mark
                && conditions
                    .is_some_and(|all| all.iter().any(|it| it["type"] == "Ready" && it["status"] == "True"))
        };
        let pods = scene.api.list("pods");
        let moves = |path: &&&str| {
            let workload = path.rsplit('/').next().unwrap_or_default();
            let its = pods.iter().filter(|pod| pod["metadata"]["labels"]["app"] == workload);
            its.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).any(|pod| !is_up(pod))
        };
        let underway = others.iter().filter(moves).count();
        let most = key.as_deref().and_then(|key| ApiKey::deserialize(key).ok());
        let most = most.map_or(1, |key| key.rollout().max_concurrent);
        if !others.is_empty() && !pods.iter().any(|pod| is_up(pod)) {
            self.blame(format!("{path} was restarted before the first one that was had come up"));
        }
        if underway >= most {
            self.blame(format!("{path} was restarted while {underway} others were under way"));
        }
    }

    /// A workload whose pods may all be missing before new ones are ready is restarted only where the ApiKey says so; one that is its
    /// owner's alone, or of an ApiKey that wants nothing restarted, not at all.
    fn is_allowed(&mut self, path: &str, key: Option<&Value>, scene: &Scene, now: Timestamp) {
        let mut parts = path.rsplit('/');
        let (Some(workload), Some(resource)) = (parts.next(), parts.next()) else { return };
        let Some(object) = scene.api.get(resource, TENANT, workload) else { return };
        let left_alone = |metadata: &Value| metadata["annotations"][annotation::RESTART] == "false";
        if left_alone(&object["metadata"]) || left_alone(&object["spec"]["template"]["metadata"]) {
            self.blame(format!("{path} was restarted, which is not the operator's to restart"));
        }
        let heard = key.filter(|key| self.was_heard(key, now)).map(|key| &key["spec"]);
        if heard.is_some_and(|spec| spec["rollout"]["restart"] == "None") {
            self.blame(format!("{path} was restarted, and its ApiKey wants nothing restarted"));
        }
        if heard.is_some_and(|spec| spec["suspend"] == true) {
            self.blame(format!("{path} was restarted, and its ApiKey is suspended"));
        }
        let strategy = &object["spec"]["strategy"];
        let missing = strategy["rollingUpdate"]["maxUnavailable"].as_u64().unwrap_or_default();
        let wanted = object["spec"]["replicas"].as_u64().unwrap_or(1);
        let all = resource == "deployments" && wanted > 0 && missing >= wanted;
        let stops = all || strategy["type"] == "Recreate";
        if stops && key.is_none_or(|key| key["spec"]["rollout"]["allowGap"] != true) {
            self.blame(format!("{path} was stopped by a restart, and nobody had allowed that"));
        }
    }

    /// People may have undone a restart: then it is done once more.
    pub(super) fn marks_undone(&mut self, scene: &Scene) {
        self.marks.retain(|(path, name), _| {
            let object = object_at(path, scene);
            object.is_some_and(|it| !it["spec"]["template"]["metadata"]["annotations"][name].is_null())
        });
    }
}

/// Gates that no person opens: what the applications hold at that very moment speaks for them, or against.
impl Oracle {
    /// A deleted ApiKey's key may go if no pod refers to its Secret.
    pub(super) fn unread(&mut self, slot: &Slot, owner: &Value, scene: &Scene) {
        let secret = format!("\"{}\"", secret_of(owner));
        for pod in scene.api.list("pods") {
            let finished = ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == **phase);
            if !finished && pod["spec"].to_string().contains(&secret) {
                self.blame(format!("I3: the key of {} was condemned while a pod reads it", slot.owner.name));
            }
        }
        self.looked_lately(slot);
    }

    /// Whoever condemns a key has looked at the pods itself, a moment ago. Also who stood still: it looks before it writes down
    /// what it decided, and when.
    fn looked_lately(&mut self, slot: &Slot) {
        let (Some(writer), Some(attempt)) = (self.writer, &slot.attempt) else { return };
        match self.pods_listed.get(&writer).map(|listed| elapsed(*listed, slot.since)) {
            Some(looked) if looked <= LAST_LOOK_AT_PODS => {}
            Some(looked) => {
                self.blame(format!("I3: {attempt} was condemned {looked:?} after the last look at the pods"));
            }
            None => self.blame(format!("I3: {attempt} was condemned, and nobody ever looked at the pods")),
        }
    }

    /// An earlier key may go if another one is in the Secret, and no pod has held the earlier one for as long as the ApiKey
    /// says.
    pub(super) fn replaced(&mut self, slot: &Slot, owner: &Value, scene: &Scene) {
        let attempt = slot.attempt.clone().unwrap_or_default();
        let secret = scene.api.get("secrets", TENANT, secret_of(owner));
        let current = self.ledger.current(&slot.owner.uid).cloned();
        let in_secret =
            secret.as_ref().and_then(|it| it["metadata"]["annotations"][mark::SWITCH_ATTEMPT].as_str());
        match current {
            Some(current)
                if in_secret == current.attempt.as_deref() && current.published > slot.published =>
            {
                let both = elapsed(current.since, slot.since);
                if both < self.timings.mark_delay {
                    self.blame(format!(
                        "I3: {attempt} was condemned {both:?} after its successor was published"
                    ));
                }
                let died = current.attempt.as_ref().and_then(|successor| self.died.get(successor));
                let dead = died.map_or(Duration::ZERO, |died| elapsed(*died, slot.since));
                if dead > LAST_LOOK {
                    self.blame(format!("I3: {attempt} was condemned {dead:?} after its successor had died"));
                }
            }
            Some(_) | None => {
                self.blame(format!("I3: {attempt} of {} was condemned without a gate", slot.owner.name));
            }
        }
        self.looked_lately(slot);
        for held in scene.cluster.held() {
            if self.attempt_of(&held.value) == Some(attempt.as_str()) {
                self.blame(format!("I3: {attempt} was condemned while {} holds it", held.pod));
            }
        }
        let heard = self.was_heard(owner, slot.since) || self.was_read(owner);
        if owner["spec"]["suspend"] == true && heard {
            self.blame(format!("I3: {attempt} was condemned, and its ApiKey is suspended"));
        }
        let Ok(key) = ApiKey::deserialize(owner) else { return };
        let rotation = key.rotation();
        if let Some(called) = self.called_from_outside.get(&attempt).filter(|_| scene.shows_last_use()) {
            let quiet = elapsed(*called, slot.since);
            if quiet + WHOLE_SECONDS < rotation.quiet_for {
                self.blame(format!("I3: {attempt} was condemned {quiet:?} after somebody outside used it"));
            }
        }
        let Some(called) = self.called.get(&attempt) else { return };
        let free = elapsed(*called, slot.since);
        let unproven = if scene.shows_last_use() { Duration::ZERO } else { self.timings.unproven_overlap };
        if free < rotation.min_overlap.max(rotation.quiet_for).max(unproven) {
            self.blame(format!("I3: {attempt} was condemned {free:?} after the last pod let go of it"));
        }
    }
}

/// When rotations begin.
impl Oracle {
    /// One that nobody asked for begins when the schedule says so, if there is one; and only in a window, where there are windows:
    /// every day here, and by UTC.
    pub(super) fn begins_in_a_window(
        &mut self,
        before: &Ledger,
        after: &Ledger,
        scene: &Scene,
        now: Timestamp,
    ) {
        const DAY: i64 = 86_400;
        let begun = |slot: &&Slot| {
            slot.state == SlotState::Reserved
                && before.current(&slot.owner.uid).is_some()
                && !before
                    .slots
                    .iter()
                    .any(|known| known.state == SlotState::Reserved && known.owner.uid == slot.owner.uid)
        };
        for slot in after.slots.iter().filter(begun) {
            let owner = scene.api.get("apikeys", &slot.owner.namespace, &slot.owner.name);
            let Some(owner) = owner.filter(|it| it["metadata"]["uid"] == *slot.owner.uid) else { continue };
            let Ok(key) = ApiKey::deserialize(&*owner) else { continue };
            let current = before.current(&slot.owner.uid);
            let handled = current.and_then(|current| current.trigger.clone());
            let Rotation { every, windows, .. } = key.rotation();
            let open = |window: &RotationWindow| {
                let from = i64::from(window.from.hour()) * 3600 + i64::from(window.from.minute()) * 60;
                let since = (now.as_second() - from).rem_euclid(DAY);
                u64::try_from(since).is_ok_and(|since| since < window.duration.as_secs())
            };
            let asked = key.rotate_token().is_some_and(|token| Some(token) != handled);
            let age = current.map_or(Duration::ZERO, |current| elapsed(current.since, now));
            // 5 % earlier at most.
            let due = every.is_some_and(|every| age >= every * 19 / 20);
            if !asked && !due && self.was_heard_asking(&owner, now) {
                self.blame(format!("a rotation of {} began, and nobody had asked for it", slot.owner.name));
            }
            let turned_back = self.turned_back(&slot.owner.uid);
            if !asked && turned_back >= GIVES_UP {
                self.blame(format!(
                    "a rotation of {} began by itself after {turned_back} that were turned back",
                    slot.owner.name
                ));
            }
            if !asked && !windows.is_empty() && !windows.iter().any(open) {
                self.blame(format!("a rotation of {} began at {now}, in no window", slot.owner.name));
            }
        }
    }
}

/// What a request of this path is about.
fn object_at(path: &str, scene: &Scene) -> Option<Arc<Value>> {
    let mut parts = path.rsplit('/');
    let (name, resource) = (parts.next()?, parts.next()?);
    scene.api.get(resource, TENANT, name)
}

impl Oracle {
    /// How many rotations of an ApiKey in a row ended with the key that they began with.
    fn turned_back(&self, uid: &str) -> usize {
        let Some(currents) = self.currents.get(uid) else { return 0 };
        let began_with = currents.iter().rev().step_by(2);
        began_with.take_while(|attempt| Some(*attempt) == currents.last()).count().saturating_sub(1)
    }
}
