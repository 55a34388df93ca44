//! The oracles: what must hold after every write and every request, whatever went wrong.
//!
//! I1–I6 and I10 are judged on the ledger by the operator's own pure function, which is written against the table of
//! slots and not against the code; here they are judged once more against both worlds: the keys that are let in at
//! Bags, the Secrets in the cluster, and what was sent.

mod admission;
mod consumers;
mod ready;
mod slots;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use bags_operator::{
    api::{BagsAccount, account::SlotState, annotation, mark},
    bags,
    ledger::Ledger,
    timings::Timings,
};
use http::{Method, Request, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{
    apiserver::{Change, ChangeKind, Payload},
    cluster::value_in,
    fault,
    gate::is_dry_run,
    process::OPERATOR_NAMESPACE,
    scene::{ACCOUNT, MARK, Scene, TENANT, attempt_in, field_of, secret_of},
};

/// Whoever runs has heard after so long of what was said.
const HEARD: Duration = Duration::from_mins(5);

/// What was seen so far, and what was wrong with it.
pub(crate) struct Oracle {
    /// Workloads, the marks that they carry, and for which switch they were set.
    marks: BTreeMap<(String, String), i64>,
    /// When a process has set a mark, and heard so: by process, the workload's uid and the mark.
    marked_at: BTreeMap<(u32, String, String), Vec<Timestamp>>,
    /// When a pod called last, by the attempt of the key that it called with: begins and ends of holding a key are calls.
    called: BTreeMap<String, Timestamp>,
    /// The same of whoever is outside of the cluster: only lists tell of them.
    called_from_outside: BTreeMap<String, Timestamp>,
    /// When each process last listed pods, and heard so.
    pods_listed: BTreeMap<u32, Timestamp>,
    /// The same of an ApiKey that it read by its name.
    keys_read: BTreeMap<(u32, String), Timestamp>,
    /// Which process wrote what is looked at; none: people.
    writer: Option<u32>,
    timings: Timings,
    /// The ledger as it was last seen.
    ledger: Ledger,
    /// Attempts whose key answered 200.
    verified: BTreeSet<String>,
    /// Attempts that were ever `Revoking`.
    condemned: BTreeSet<String>,
    /// Attempts by switch, of each owner.
    switches: BTreeMap<(String, i64), String>,
    /// Licences that were written, by the key's name, and when they began.
    licences: BTreeMap<String, Timestamp>,
    /// What was asked for with each key name, so that nothing is sent twice.
    sent: BTreeSet<String>,
    /// Writes that lost a conflict, by process, path and body.
    conflicted: BTreeSet<u64>,
    /// Attempts by the value of their key.
    values: BTreeMap<String, String>,
    /// Keys that were let in when last looked at, by id; also those that are not the operator's.
    alive: BTreeMap<String, String>,
    /// Which process made the key of an attempt.
    made_by: BTreeMap<String, u32>,
    /// Attempts whose value was saved.
    saved: BTreeSet<String>,
    /// When people revoked a key, by its attempt.
    died: BTreeMap<String, Timestamp>,
    /// Attempts whose key people revoked, or had the operator revoke, whatever still held it.
    excused: BTreeSet<String>,
    /// Attempts of ApiKeys that were deleted: pods are looked at, and for whoever is outside who deleted it answers.
    deleted: BTreeSet<String>,
    /// Which attempts were the current one of an ApiKey, by its uid, in order.
    currents: BTreeMap<String, Vec<String>>,
    /// A person wiped the ledger: until it is whole again, a value in the keystore stands for a slot.
    ledger_lost: bool,
    /// The same, for the rest of the run.
    ledger_was_lost: bool,
    /// Attempts that neither ledger nor keystore knew when the ledger was lost, or when their key was made late: people are
    /// told of their keys.
    forsaken: BTreeSet<String>,
    /// Names of keys whose process stood still with the creation on its tongue (`docs/residual-risks.md`).
    late: BTreeSet<String>,
    /// Generations of ApiKeys, by uid, and since when they have them: whoever acts long after that has heard of it.
    edited: BTreeMap<String, (i64, Timestamp)>,
    /// The same of what asks for another key, which is no part of a generation.
    asked: BTreeMap<String, (Option<String>, Timestamp)>,
    /// A process stood still: what it does when it goes on it may have decided long before. Until it has heard of what happened.
    stood_still_until: Option<Timestamp>,
    /// When people last did something, or something went wrong.
    disturbed_at: Option<Timestamp>,
    /// What must appear nowhere.
    spoken: told::Unspeakable,
    position: u64,
    found: Vec<String>,
}

impl Oracle {
    pub(crate) fn new(timings: Timings, scene: &Scene) -> Self {
        Self {
            marks: BTreeMap::new(),
            marked_at: BTreeMap::new(),
            called: BTreeMap::new(),
            called_from_outside: BTreeMap::new(),
            pods_listed: BTreeMap::new(),
            keys_read: BTreeMap::new(),
            writer: None,
            timings,
            ledger: Ledger::default(),
            verified: BTreeSet::new(),
            condemned: BTreeSet::new(),
            switches: BTreeMap::new(),
            licences: BTreeMap::new(),
            sent: BTreeSet::new(),
            conflicted: BTreeSet::new(),
            values: BTreeMap::new(),
            alive: scene.all_living_keys(),
            made_by: BTreeMap::new(),
            saved: BTreeSet::new(),
            died: BTreeMap::new(),
            excused: BTreeSet::new(),
            deleted: BTreeSet::new(),
            currents: BTreeMap::new(),
            ledger_lost: false,
            ledger_was_lost: false,
            forsaken: BTreeSet::new(),
            late: BTreeSet::new(),
            edited: BTreeMap::new(),
            asked: BTreeMap::new(),
            stood_still_until: None,
            disturbed_at: None,
            spoken: told::Unspeakable::default(),
            position: scene.api.version(),
            found: Vec::new(),
        }
    }

    /// What was wrong.
    pub(crate) fn found(&self) -> &[String] {
        &self.found
    }

    /// Something was wrong.
    pub(crate) fn blame(&mut self, what: String) {
        self.found.push(what);
    }

    /// Attempts by the value of their key, as far as Bags told.
    pub(crate) fn attempt_of(&self, value: &str) -> Option<&str> {
        self.values.get(value).map(String::as_str)
    }

    /// Whether an ApiKey has two slots.
    pub(crate) fn rotation_is_under_way(&self) -> bool {
        let slots = &self.ledger.slots;
        (1..slots.len()).any(|n| slots[..n].iter().any(|slot| slot.owner.uid == slots[n].owner.uid))
    }

    /// Whether a key's slot was lost with the ledger, and nothing else in the cluster knows of it.
    pub(crate) fn is_forsaken(&self, attempt: &str) -> bool {
        self.forsaken.contains(attempt)
    }

    /// Whether the ledger was lost once.
    pub(crate) fn ledger_was_lost(&self) -> bool {
        self.ledger_was_lost
    }

    /// People may do what they like; the operator goes on from there.
    pub(crate) fn people_acted(&mut self, scene: &Scene, now: Timestamp) {
        self.position = scene.api.version();
        self.ledger = ledger(scene).unwrap_or_default();
        self.keys_died_by_people(scene, now);
        self.marks_undone(scene);
        self.disturbed(now);
        for key in scene.api.list("apikeys") {
            let metadata = &key["metadata"];
            let generation = metadata["generation"].as_i64().unwrap_or_default();
            let token = metadata["annotations"][annotation::ROTATE].as_str().map(str::to_owned);
            let uid = metadata["uid"].as_str().unwrap_or_default().to_owned();
            note(&mut self.asked, &uid, token, now);
            note(&mut self.edited, &uid, generation, now);
        }
    }

    /// Something goes wrong, or may have.
    pub(crate) fn disturbed(&mut self, now: Timestamp) {
        self.disturbed_at = Some(now);
    }

    /// Whether an ApiKey's spec has said what it says for so long that no cache is behind it. Of whoever stood still nobody can tell
    /// for a while.
    fn was_heard(&self, key: &Value, now: Timestamp) -> bool {
        is_old(&self.edited, key, now) && !self.stood_still(now)
    }

    /// The same of whether it asks for another key.
    fn was_heard_asking(&self, key: &Value, now: Timestamp) -> bool {
        is_old(&self.asked, key, now) && self.was_heard(key, now)
    }

    /// Whether whoever writes has read an ApiKey live since it says what it says, whatever its cache shows.
    fn was_read(&self, key: &Value) -> bool {
        let text = |field: &str| key["metadata"][field].as_str().unwrap_or_default();
        let read = self.writer.and_then(|writer| self.keys_read.get(&(writer, text("name").to_owned())));
        let edited = self.edited.get(text("uid")).map(|(_, at)| at);
        read.zip(edited).is_some_and(|(read, edited)| edited < read)
    }

    /// Whether a process stood still, and may not have heard yet of what happened meanwhile.
    fn stood_still(&self, now: Timestamp) -> bool {
        self.stood_still_until.is_some_and(|until| now < until)
    }

    /// A person takes the ledger away. What only the ledger knew is lost with it.
    pub(crate) fn ledger_goes(&mut self, scene: &Scene, now: Timestamp) {
        self.ledger_lost = true;
        self.ledger_was_lost = true;
        for name in scene.living_keys().into_keys() {
            let attempt = attempt_in(&name);
            let kept = scene.api.get("secrets", OPERATOR_NAMESPACE, &format!("bags-key-{attempt}"));
            let empty = kept.as_ref().is_none_or(|kept| kept["data"]["value"].is_null());
            // Whoever judges it may have decided already that its empty Secret goes.
            let judged = self
                .ledger
                .by_attempt(attempt)
                .is_some_and(|slot| elapsed(slot.since, now) >= self.timings.judge_after);
            if kept.is_none() || (empty && judged) {
                self.forsaken.insert(attempt.to_owned());
            }
        }
    }

    /// A request to the API server is about to be carried out.
    pub(crate) fn kube_sent(&mut self, incarnation: u32, request: &Request<Payload>) {
        if *request.method() == Method::GET {
            return;
        }
        let body = request.body().value();
        let text =
            |pointer: &str| body.pointer(pointer).and_then(Value::as_str).is_some_and(|it| !it.is_empty());
        let versioned = match *request.method() {
            Method::PUT | Method::PATCH => text("/metadata/resourceVersion"),
            Method::DELETE => text("/preconditions/resourceVersion") && text("/preconditions/uid"),
            _ => true,
        };
        if !versioned {
            self.blame(format!("I8: {} {} carries no version", request.method(), request.uri().path()));
        }
        if !self.conflicted.is_empty() && self.conflicted.contains(&fingerprint(incarnation, request)) {
            self.blame(format!(
                "I8: {} {} was sent again after a conflict",
                request.method(),
                request.uri().path()
            ));
        }
    }

    /// A request to the API server was carried out, or refused. `heard`: its sender hears so, if it lives.
    pub(crate) fn kube_done(
        &mut self,
        incarnation: u32,
        request: &Request<Payload>,
        (status, heard): (StatusCode, bool),
        scene: &Scene,
        now: Timestamp,
    ) {
        let exists_already = *request.method() == Method::POST;
        if status == StatusCode::CONFLICT && !exists_already {
            self.conflicted.insert(fingerprint(incarnation, request));
        }
        if status.is_success() && *request.method() == Method::PATCH {
            self.restarted((incarnation, heard), request, scene, now);
        }
        if *request.method() == Method::GET && status.is_success() && heard {
            self.has_read(incarnation, request, now);
        }
        if *request.method() != Method::GET && !is_dry_run(request) {
            self.writer = Some(incarnation);
            self.look(scene, now);
            self.writer = None;
        }
    }

    /// What a process was answered says how things are: pods, or an ApiKey by its name.
    fn has_read(&mut self, incarnation: u32, request: &Request<Payload>, now: Timestamp) {
        let path = request.uri().path();
        // Further pages show what was there with the first one.
        let first = request.uri().query().is_none_or(|query| !query.contains("continue="));
        if path.ends_with("/pods") && first {
            self.pods_listed.insert(incarnation, now);
        }
        if let Some((_, name)) = path.rsplit_once("/apikeys/") {
            self.keys_read.insert((incarnation, name.to_owned()), now);
        }
    }

    /// A process stands still: what it decided is as old as that by the time it goes on.
    pub(crate) fn stands_still(&mut self, now: Timestamp) {
        self.stood_still_until = now.checked_add(fault::FREEZE + HEARD).ok();
    }

    /// A process stands still with a request to Bags on its tongue. No clock can be asked any more when it is sent: of a
    /// creation its age, and whether its slot is settled, are nobody's to keep.
    pub(crate) fn may_come_late(&mut self, request: &Request<bags::Body>) {
        self.late.extend(name_to_create(request, &body_of(request)).map(str::to_owned));
    }

    /// I4: a request to Bags was sent. Of each that may make a key there is one, whatever was answered: also a refusal, after
    /// which nothing was made for certain, ends its attempt, and the next one has a name of its own. The wallet way has two
    /// steps, of which each is sent once.
    pub(crate) fn bags_sent(&mut self, request: &Request<bags::Body>, scene: &Scene, now: Timestamp) {
        let body = body_of(request);
        let Some(name) = name_to_create(request, &body) else { return };
        let step = format!("{name} {}", !body["authCode"].is_null());
        if !self.sent.insert(step) {
            self.blame(format!("I4: the creation of {name} was sent twice"));
        }
        let slot = self.ledger.slots.iter().find(|slot| slot.key_name.as_deref() == Some(name));
        let owner = slot.and_then(|slot| scene.api.get("apikeys", &slot.owner.namespace, &slot.owner.name));
        if owner.is_some_and(|owner| owner["spec"]["suspend"] == true && self.was_heard(&owner, now)) {
            self.found.push(format!("the creation of {name} was sent, whose ApiKey is suspended"));
        }
        let settled =
            slot.is_some_and(|slot| !matches!(slot.state, SlotState::Creating | SlotState::Unknown(_)));
        match self.licences.get(name) {
            None => self.blame(format!("I4: the creation of {name} was sent without a licence")),
            Some(_) if self.late.contains(name) => {
                self.forsaken.insert(attempt_in(name).to_owned());
            }
            Some(since) if elapsed(*since, now) > self.timings.begin_deadline => {
                self.blame(format!("I4: the licence of {name} was over when its creation was sent"));
            }
            // Whether people took the slot away meanwhile cannot be known to who holds its licence.
            Some(_) if settled || (slot.is_none() && !self.ledger_lost) => {
                self.blame(format!("I4: the creation of {name} was sent after its slot had been settled"));
            }
            Some(_) => {}
        }
    }

    /// A request of a process to Bags had its effect. `body`: its answer, whether it arrived or not.
    pub(crate) fn bags_done(&mut self, incarnation: u32, path: &str, body: &[u8], scene: &Scene) {
        if path.ends_with("/create") || path.ends_with("/callback") || path == "/api/v1/agent/dev/keys" {
            self.learn_values(body);
        }
        let account = scene.api.get("bagsaccounts", "", ACCOUNT);
        let by_people = account.is_some_and(|it| it["spec"]["revocation"]["mode"] == "Person");
        for (id, name) in self.newly_dead(scene) {
            if by_people {
                self.blame(format!("{name} was revoked by the operator, where only people revoke"));
            }
            if scene.is_by_hand(&id) {
                self.blame(format!("I10: {name} was revoked, which people had made"));
            } else if name.contains(MARK) {
                self.revoked(incarnation, &name);
                self.nobody_holds(&name, scene);
            } else {
                self.blame(format!("I10: {name} was revoked, which is not the operator's"));
            }
        }
        self.every_key_has_a_slot(scene);
    }

    fn learn_values(&mut self, body: &[u8]) {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let payload = &answer["response"];
        let mut learn = |value: &Value, name: &Value| {
            let attempt = name.as_str().map(attempt_in).filter(|attempt| !attempt.is_empty());
            if let (Some(value), Some(attempt)) = (value.as_str(), attempt) {
                self.values.insert(value.to_owned(), attempt.to_owned());
            }
        };
        learn(&payload["apiKey"]["key"], &payload["apiKey"]["name"]);
        for key in payload.as_array().into_iter().flatten() {
            learn(&key["key"], &key["name"]);
        }
    }

    /// A process made a key. The wallet way's answer does not repeat the name.
    pub(crate) fn made(&mut self, incarnation: u32, value: &str, attempt: &str) {
        self.values.insert(value.to_owned(), attempt.to_owned());
        self.made_by.insert(attempt.to_owned(), incarnation);
    }

    /// I3, I10: what the operator revokes is in `Revoking`, or is the key of a save that came too late.
    fn revoked(&mut self, incarnation: u32, name: &str) {
        let attempt = attempt_in(name);
        match self.ledger.by_attempt(attempt).map(|slot| slot.state.clone()) {
            Some(SlotState::Revoking) => {}
            // A request that was on its way when another version came by.
            Some(SlotState::Unknown(_)) if self.condemned.contains(attempt) => {}
            // The same, where the ledger was lost meanwhile.
            None if self.ledger_lost && self.condemned.contains(attempt) => {}
            Some(state) => self.blame(format!("I3: {name} was revoked while {}", state.as_str())),
            // `lost()` in `src/apikey/make/attempt.rs`: its attempt was judged while its value was still to be saved. Nobody but
            // the process that made it knows of it, and nobody ever had its value.
            None if self.licences.contains_key(name)
                && !self.saved.contains(attempt)
                && self.made_by.get(attempt) == Some(&incarnation) => {}
            None => self.blame(format!("I10: {name} was revoked without a slot")),
        }
    }

    /// I1 over both worlds.
    fn every_key_has_a_slot(&mut self, scene: &Scene) {
        let ours = |(id, name): &(&String, &String)| name.contains(MARK) && !scene.is_by_hand(id);
        let ours: Vec<String> = self.alive.iter().filter(ours).map(|(_, name)| name.clone()).collect();
        for name in ours {
            let attempt = attempt_in(&name).to_owned();
            let slots = self
                .ledger
                .slots
                .iter()
                .filter(|slot| slot.attempt.as_deref() == Some(attempt.as_str()))
                .count();
            let kept = || {
                self.ledger_lost
                    && scene.api.get("secrets", OPERATOR_NAMESPACE, &format!("bags-key-{attempt}")).is_some()
            };
            if slots != 1 && !kept() && !self.forsaken.contains(&attempt) {
                self.blame(format!("I1: {name} is let in at Bags and is in {slots} slots"));
            }
        }
    }

    /// Looks at what was written since.
    pub(crate) fn look(&mut self, scene: &Scene, now: Timestamp) {
        for change in scene.api.changes_since(self.position) {
            self.position = change.version;
            match change.resource {
                "bagsaccounts" => self.account_written(&change, scene, now),
                "secrets" => self.secret_written(&change, scene),
                "apikeys" => self.stays_ready(&change, scene, now),
                _ => {}
            }
            self.nothing_is_told(&change, scene);
        }
        self.every_key_has_a_slot(scene);
    }

    /// A key was asked whether it works, and answered 200.
    pub(crate) fn answered(&mut self, value: &str) {
        if let Some(attempt) = self.values.get(value) {
            self.verified.insert(attempt.clone());
        }
    }

    fn secret_written(&mut self, change: &Change, scene: &Scene) {
        let secret = &*change.object;
        if change.kind == ChangeKind::Deleted {
            return self.secret_deleted(secret, scene);
        }
        let kept = secret["metadata"]["labels"][mark::ATTEMPT].as_str();
        if let Some(attempt) = kept.filter(|_| !secret["data"]["value"].is_null()) {
            self.saved.insert(attempt.to_owned());
        }
        if secret["metadata"]["namespace"].as_str() != Some(TENANT) {
            return;
        }
        let Some(uid) = secret["metadata"]["labels"][mark::OWNER_UID].as_str() else { return };
        let number_in = |secret: &Value| {
            secret["metadata"]["annotations"][mark::SWITCH]
                .as_str()
                .and_then(|number| number.parse::<i64>().ok())
        };
        let attempt = secret["metadata"]["annotations"][mark::SWITCH_ATTEMPT].as_str().unwrap_or_default();
        let Some(number) = number_in(secret) else { return };
        let name = secret["metadata"]["name"].as_str().unwrap_or_default();
        // What people wrote there is no switch of the ledger's.
        let before = change.before.as_deref().and_then(number_in);
        let before = before.filter(|before| self.switches.contains_key(&(uid.to_owned(), *before)));
        if let Some(before) = before.filter(|before| *before > number) {
            self.blame(format!(
                "I2: Secret {name} held switch {before}, and switch {number} was written over it"
            ));
        }
        if self.switches.get(&(uid.to_owned(), number)).is_none_or(|published| published != attempt) {
            self.blame(format!("I2: Secret {name} holds switch {number}, which the ledger does not know"));
        }
        let keys = scene.api.list("apikeys");
        let owner = keys.iter().find(|key| key["metadata"]["uid"].as_str() == Some(uid));
        if owner.is_some_and(|owner| secret_of(owner) != name) {
            self.blame(format!("I2: the key of {uid} was written into Secret {name}, which is not its own"));
        }
        let kept = scene.api.get("secrets", OPERATOR_NAMESPACE, &format!("bags-key-{attempt}"));
        let kept = kept.and_then(|kept| value_in(&kept, "value"));
        let holds = |kept: &String| {
            let mut fields = secret["data"].as_object().into_iter().flat_map(serde_json::Map::keys);
            match owner {
                Some(owner) => value_in(secret, field_of(owner)).as_ref() == Some(kept),
                // Of one that is gone nobody knows the field any more.
                None => fields.any(|field| value_in(secret, field).as_ref() == Some(kept)),
            }
        };
        if kept.is_some_and(|kept| !holds(&kept)) {
            self.blame(format!("I2: Secret {name} holds another value than the keystore"));
        }
    }

    /// Of the tenant's Secrets the operator deletes those of ApiKeys that go or are gone, and no other ones.
    fn secret_deleted(&mut self, secret: &Value, scene: &Scene) {
        let metadata = &secret["metadata"];
        if metadata["namespace"].as_str() != Some(TENANT) {
            return;
        }
        let name = metadata["name"].as_str().unwrap_or_default();
        let Some(uid) = metadata["labels"][mark::OWNER_UID].as_str() else {
            return self.blame(format!("Secret {name} was deleted, which is no ApiKey's"));
        };
        let stays = |key: &Value| {
            key["metadata"]["uid"].as_str() == Some(uid) && key["metadata"]["deletionTimestamp"].is_null()
        };
        let keys = scene.api.list("apikeys");
        if keys.iter().any(|key| stays(key)) {
            self.blame(format!("Secret {name} was deleted, whose ApiKey stays"));
        }
        let released = |key: &Value| {
            key["metadata"]["uid"].as_str() == Some(uid) && key["spec"]["deletionPolicy"] == "Orphan"
        };
        if keys.iter().any(|key| released(key)) {
            self.blame(format!("Secret {name} was deleted, whose key is left to people"));
        }
    }
}

fn body_of(request: &Request<bags::Body>) -> Value {
    serde_json::from_slice(request.body().as_bytes()).unwrap_or_default()
}

/// The name of the key that a request makes.
fn name_to_create<'a>(request: &Request<bags::Body>, body: &'a Value) -> Option<&'a str> {
    let path = request.uri().path();
    match (path.ends_with("/create"), path.ends_with("/callback")) {
        (true, _) => body["name"].as_str(),
        (_, true) => body["keyName"].as_str(),
        (false, false) => None,
    }
}

/// The ledger as it stands in the cluster.
pub(crate) fn ledger(scene: &Scene) -> Option<Ledger> {
    let account = scene.api.get("bagsaccounts", "", ACCOUNT)?;
    let account = BagsAccount::deserialize(&*account).ok()?;
    Some(Ledger::of(account.status.as_ref()))
}

fn fingerprint(incarnation: u32, request: &Request<Payload>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (incarnation, request.method().as_str(), request.uri().path(), request.body().bytes()).hash(&mut hasher);
    hasher.finish()
}

/// Keeps what an ApiKey says, and since when it does.
fn note<T: PartialEq>(all: &mut BTreeMap<String, (T, Timestamp)>, uid: &str, said: T, now: Timestamp) {
    if all.get(uid).is_none_or(|(known, _)| *known != said) {
        all.insert(uid.to_owned(), (said, now));
    }
}

/// Whether an ApiKey has said so for so long that whoever runs has heard of it.
fn is_old<T>(all: &BTreeMap<String, (T, Timestamp)>, key: &Value, now: Timestamp) -> bool {
    let uid = key["metadata"]["uid"].as_str().unwrap_or_default();
    all.get(uid).is_some_and(|(_, at)| elapsed(*at, now) >= HEARD)
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO)
}
