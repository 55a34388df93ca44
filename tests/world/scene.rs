//! What stands around the operator: a cluster, a service, and the people who use both.
//!
//! What people do here is done at once and never fails; only the operator's own requests go through the gate.

mod credentials;
mod delivery;
mod outside;
mod workloads;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};

use bags_operator::{
    api::{annotation, mark},
    clock::Randomness,
    sandbox::{Credentials, Sandbox, UserOptions},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    apiserver::ApiServer,
    clock::{OffClock, VirtualClock},
    cluster::Cluster,
    creation::Wish,
    end::condition,
    process::OPERATOR_NAMESPACE,
};

pub(crate) use delivery::{field_of, secret_of};

/// The namespace of all ApiKeys.
pub(crate) const TENANT: &str = "shop";
/// The one account.
pub(crate) const ACCOUNT: &str = "main";
/// In `expectedUser` of an account: the user whose credentials it has.
pub(crate) const OWN_USER: &str = "its own";
/// The Secret with the account's credentials.
pub(crate) const CREDENTIALS: &str = "bags-main";
/// The uid of `kube-system`.
pub(crate) const CLUSTER: &str = "01234567-89ab-4cde-8f01-23456789abcd";
/// That of another cluster.
const ANOTHER_CLUSTER: &str = "89abcdef-0123-4567-89ab-cdef01234567";
/// What stands for this cluster in names of keys.
pub(crate) const MARK: &str = "-01234567-";

/// The attempt that a key was made in, by its name.
pub(crate) fn attempt_in(name: &str) -> &str {
    name.rsplit_once('-').map(|(_, attempt)| attempt).unwrap_or_default()
}

/// Which credentials the account has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ways {
    /// Makes keys with the token, lists and revokes with it.
    Token,
    /// Makes keys with the wallet; nothing lists, nothing revokes.
    Wallet,
    /// Makes keys with the wallet, lists and revokes with the token.
    Both,
}

/// The world around the operator.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) api: ApiServer,
    pub(crate) sandbox: Sandbox,
    /// What reads the keys.
    pub(crate) cluster: Cluster,
    user: String,
    /// The account has credentials that list its keys.
    lists: bool,
    /// Whatever must appear nowhere.
    secrets: Arc<Mutex<Vec<String>>>,
    /// What a person took away and will put back.
    kept: Arc<Mutex<Option<Value>>>,
    /// ApiKeys that people want, which are put before the webhook.
    wishes: Arc<Mutex<Vec<Wish>>>,
    /// Nothing that the operator asks Bags for arrives there.
    bags_is_away: Arc<AtomicBool>,
    keys_are_refused: Arc<AtomicBool>,
    /// Ids of keys that people made on the page.
    by_hand: Arc<Mutex<Vec<String>>>,
}

/// What Bags is like.
#[derive(Clone, Default)]
pub(crate) struct Service {
    /// How it treats the account's user.
    pub(crate) user: UserOptions,
    /// How far its clock is ahead.
    pub(crate) clock_off_by: SignedDuration,
}

impl Scene {
    /// A cluster with one account and nothing in it.
    pub(crate) fn new(clock: &Arc<VirtualClock>, seed: u64, ways: Ways, bags: Service, spec: &Value) -> Self {
        let Service { user, clock_off_by } = bags;
        let service_clock = OffClock { clock: clock.clone(), by: clock_off_by };
        let sandbox = Sandbox::new(Arc::new(service_clock), Randomness::from_seed(seed ^ 0x5eed));
        let new = sandbox.add_user(user);
        let api = ApiServer::new(clock.clone());
        let scene = Self {
            cluster: Cluster::new(api.clone(), clock.clone(), TENANT),
            api,
            sandbox,
            user: new.id,
            lists: ways != Ways::Wallet,
            secrets: Arc::default(),
            kept: Arc::default(),
            wishes: Arc::default(),
            bags_is_away: Arc::default(),
            keys_are_refused: Arc::default(),
            by_hand: Arc::default(),
        };
        for name in [OPERATOR_NAMESPACE, TENANT] {
            let metadata = json!({"name": name, "labels": {"team": name}});
            scene.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}));
        }
        scene.put(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": CREDENTIALS, "namespace": OPERATOR_NAMESPACE},
            "data": scene.fields(&new.credentials),
        }));
        let mut credentials = json!({});
        if ways != Ways::Wallet {
            credentials["agentToken"] = json!({"secretName": CREDENTIALS});
        }
        if ways != Ways::Token {
            credentials["wallet"] = json!({"secretName": CREDENTIALS});
            if new.credentials.totp().is_some() {
                credentials["wallet"]["totpField"] = json!("totp");
            }
        }
        let mut whole = json!({
            "credentials": credentials,
            "allowed": [{"namespaces": [TENANT]}],
            "rotationReserve": 1,
        });
        if let (Some(whole), Some(more)) = (whole.as_object_mut(), spec.as_object()) {
            whole.extend(more.clone());
        }
        if whole["expectedUser"] == *OWN_USER {
            whole["expectedUser"] = json!(scene.user);
        }
        scene.put(json!({
            "apiVersion": "keys.bags.fm/v1alpha1", "kind": "BagsAccount",
            "metadata": {"name": ACCOUNT}, "spec": whole,
        }));
        scene
    }

    fn fields(&self, credentials: &Credentials) -> Value {
        let mut plain = vec![("token", credentials.token()), ("wallet.json", credentials.wallet_json())];
        plain.extend(credentials.totp().map(|totp| ("totp", totp)));
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.extend(plain.iter().map(|(_, text)| (*text).to_owned()));
        plain.into_iter().map(|(name, text)| (name.to_owned(), json!(STANDARD.encode(text)))).collect()
    }

    /// Credentials that must appear nowhere.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many of them there are.
    pub(crate) fn secret_count(&self) -> usize {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn put(&self, object: Value) {
        let what = object.pointer("/metadata/name").cloned();
        if let Err(error) = self.api.create(object) {
            panic!("a person cannot create {what:?}: {error:?}");
        }
    }

    /// A person applies an ApiKey for an application of this name.
    pub(crate) fn apply(&self, name: &str) {
        self.put(key(name));
    }

    /// A person applies an ApiKey for a Secret of another name.
    pub(crate) fn apply_for_secret(&self, name: &str, secret: &str) {
        self.apply_with(name, json!({"name": secret}));
    }

    /// A person applies an ApiKey that says this of its Secret.
    pub(crate) fn apply_with(&self, name: &str, secret: Value) {
        let mut object = key(name);
        object["spec"]["secret"] = secret;
        self.put(object);
    }

    /// A person wants an ApiKey for an application of this name: it is put before the webhook, and applied again
    /// until it is there.
    pub(crate) fn submit(&self, name: &str) {
        self.wish(name, key(name), false);
    }

    /// The same for an application of another name.
    pub(crate) fn submit_for(&self, name: &str, application: &str) {
        let mut object = key(name);
        object["spec"]["application"] = json!(application);
        self.wish(name, object, false);
    }

    /// A person asks what would become of an ApiKey.
    pub(crate) fn try_out(&self, name: &str) {
        self.wish(name, key(name), true);
    }

    fn wish(&self, name: &str, object: Value, dry_run: bool) {
        let wish = Wish { name: name.to_owned(), object, dry_run };
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner).push(wish);
    }

    /// What people want since the last time.
    pub(crate) fn take_wishes(&self) -> Vec<Wish> {
        std::mem::take(&mut *self.wishes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A person deletes the first ApiKey that is ready, and says that nothing uses its key any more.
    pub(crate) fn delete_a_ready_one(&self) {
        let ready = self.api.list("apikeys").into_iter().find(|key| condition(key, "Ready").0 == "True");
        if let Some(name) = ready.and_then(|key| key["metadata"]["name"].as_str().map(str::to_owned)) {
            self.delete_now(&name);
        }
    }

    /// Whether an ApiKey is ready.
    pub(crate) fn one_is_ready(&self) -> bool {
        self.api.list("apikeys").iter().any(|key| condition(key, "Ready").0 == "True")
    }

    /// A person deletes an ApiKey and says that nothing uses its key any more.
    pub(crate) fn delete_now(&self, name: &str) {
        self.annotate("apikeys", TENANT, name, annotation::DELETE_NOW, "true");
        let _ = self.api.delete("apikeys", TENANT, name);
    }

    /// A person deletes an ApiKey, and says nothing of what uses its key.
    pub(crate) fn delete(&self, name: &str) {
        let _ = self.api.delete("apikeys", TENANT, name);
    }

    /// Whether an application has its Secret.
    pub(crate) fn has_consumer_secret(&self, name: &str) -> bool {
        self.api.get("secrets", TENANT, name).is_some()
    }

    /// Whether an ApiKey says that it is ready.
    pub(crate) fn is_ready(&self, name: &str) -> bool {
        self.api.get("apikeys", TENANT, name).is_some_and(|key| condition(&key, "Ready").0 == "True")
    }

    /// Whether an ApiKey's Secret has its second key.
    pub(crate) fn has_switched(&self, name: &str) -> bool {
        let key = self.api.get("apikeys", TENANT, name);
        key.is_some_and(|key| key["status"]["switch"]["count"].as_i64().is_some_and(|count| count > 1))
    }

    /// Whether an ApiKey's Secret has its first key once more.
    pub(crate) fn has_turned_back(&self, name: &str) -> bool {
        let key = self.api.get("apikeys", TENANT, name);
        key.is_some_and(|key| key["status"]["switch"]["count"].as_i64().is_some_and(|count| count > 2))
    }

    /// Whether its Secret has its second key, for so long that no kubelet can serve what it held before.
    pub(crate) fn has_settled(&self, name: &str) -> bool {
        let key = self.api.get("apikeys", TENANT, name);
        let at =
            key.as_ref().and_then(|key| key["status"]["switch"]["at"].as_str()?.parse::<Timestamp>().ok());
        let now = self.api.now().parse::<Timestamp>().ok();
        let passed = at.zip(now).map(|(at, now)| now.duration_since(at).as_secs());
        self.has_switched(name) && passed.is_some_and(|seconds| seconds >= 120)
    }

    /// Whether an ApiKey says that no pod holds its old key.
    pub(crate) fn is_clean(&self, name: &str) -> bool {
        let key = self.api.get("apikeys", TENANT, name);
        key.is_some_and(|key| key["status"]["switch"]["cleanSince"].is_string())
    }

    /// Whether the value of a key has arrived in the keystore.
    pub(crate) fn has_a_saved_value(&self) -> bool {
        let entry = |secret: &Value| !secret["metadata"]["labels"][mark::ATTEMPT].is_null();
        self.api.list("secrets").iter().any(|secret| entry(secret) && !secret["data"]["value"].is_null())
    }

    /// Whether the ledger keeps a place for an ApiKey.
    pub(crate) fn keeps_a_place(&self, name: &str) -> bool {
        let account = self.api.get("bagsaccounts", "", ACCOUNT);
        let slots = account.as_ref().and_then(|account| account["status"]["slots"].as_array());
        let kept = |slot: &Value| slot["state"] == "Reserved" && slot["owner"]["name"] == *name;
        slots.is_some_and(|slots| slots.iter().any(kept))
    }

    /// Whether there is no ApiKey of this name.
    pub(crate) fn is_gone(&self, name: &str) -> bool {
        self.api.get("apikeys", TENANT, name).is_none()
    }

    /// Whether there is an ApiKey of this name.
    pub(crate) fn is_there(&self, name: &str) -> bool {
        !self.is_gone(name)
    }

    /// Somebody puts the ApiKey's manifest, which names no finalizer, in its place.
    pub(crate) fn replace_by_manifest(&self, name: &str) {
        let _ = self.api.edit("apikeys", TENANT, name, |key| key["metadata"]["finalizers"] = json!([]));
    }

    /// Somebody takes the finalizers off and deletes the ApiKey.
    pub(crate) fn strip_and_delete(&self, name: &str) {
        let _ = self.api.edit("apikeys", TENANT, name, |key| key["metadata"]["finalizers"] = json!([]));
        let _ = self.api.delete("apikeys", TENANT, name);
    }

    /// The platform team says that no key of the account is used any more, and is to be revoked.
    pub(crate) fn let_all_go(&self) {
        let Some(account) = self.api.get("bagsaccounts", "", ACCOUNT) else { return };
        let slots = account.pointer("/status/slots").and_then(Value::as_array).cloned().unwrap_or_default();
        let attempts: Vec<&str> = slots.iter().filter_map(|slot| slot["attempt"].as_str()).collect();
        self.annotate("bagsaccounts", "", ACCOUNT, annotation::REVOKE, &attempts.join(","));
    }

    /// The word that nothing uses the key any more.
    pub(crate) fn say_delete_now(&self, name: &str) {
        self.annotate("apikeys", TENANT, name, annotation::DELETE_NOW, "true");
    }

    /// A person suspends an ApiKey, or lets it go on.
    pub(crate) fn suspend(&self, name: &str, suspended: bool) {
        self.edit_key(name, |spec| spec["suspend"] = json!(suspended));
    }

    /// A person applies an ApiKey; nothing happens where it is there or cannot be.
    pub(crate) fn try_apply(&self, name: &str) {
        let _ = self.api.create(key(name));
    }

    /// A person sets an annotation; nothing happens where there is no such object.
    pub(crate) fn annotate(&self, resource: &str, namespace: &str, name: &str, key: &str, value: &str) {
        let _ = self.api.edit(resource, namespace, name, |object| {
            object["metadata"]["annotations"][key] = json!(value);
        });
    }

    /// A person asks for another key; the same token asks once.
    pub(crate) fn ask_for_rotation(&self, name: &str, token: &str) {
        self.annotate("apikeys", TENANT, name, annotation::ROTATE, token);
    }

    /// A person wants no other key any more.
    pub(crate) fn withdraw_rotation(&self, name: &str) {
        let _ = self.api.edit("apikeys", TENANT, name, |key| {
            key["metadata"]["annotations"].as_object_mut().map(|all| all.remove(annotation::ROTATE));
        });
    }

    /// A person says for how long both keys are valid, and for how long the old one has to be quiet.
    pub(crate) fn set_overlaps(&self, name: &str, overlap: &str, quiet: &str) {
        self.edit_key(name, |spec| {
            spec["rotation"]["minOverlap"] = json!(overlap);
            spec["rotation"]["quietFor"] = json!(quiet);
        });
    }

    /// A person edits an ApiKey's spec.
    pub(crate) fn edit_key(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let _ = self.api.edit("apikeys", TENANT, name, |object| change(&mut object["spec"]));
    }

    /// The platform team edits the account's spec.
    pub(crate) fn edit_account(&self, change: impl FnOnce(&mut Value)) {
        let _ = self.api.edit("bagsaccounts", "", ACCOUNT, |object| change(&mut object["spec"]));
    }

    /// Somebody deletes the Secret that an application reads.
    pub(crate) fn delete_consumer_secret(&self, name: &str) {
        let _ = self.api.delete("secrets", TENANT, name);
    }

    /// Somebody edits the Secret that an application reads.
    pub(crate) fn edit_consumer_secret(&self, name: &str) {
        let _ = self.api.edit("secrets", TENANT, name, |secret| {
            secret["data"]["BAGS_API_KEY"] = json!(STANDARD.encode("edited-by-hand"));
            secret["data"]["THEIRS"] = json!(STANDARD.encode("kept"));
        });
    }

    /// Somebody sets a label of the tenant's namespace, or takes it away.
    pub(crate) fn label_namespace(&self, label: &str, value: Option<&str>) {
        let _ = self.api.edit("namespaces", "", TENANT, |namespace| match value {
            Some(value) => namespace["metadata"]["labels"][label] = json!(value),
            None => {
                namespace["metadata"]["labels"].as_object_mut().and_then(|labels| labels.remove(label));
            }
        });
    }

    /// The platform team takes the RoleBinding out of the tenant's namespace, or puts it back.
    pub(crate) fn withhold_rights(&self, withheld: bool) {
        self.api.withhold(TENANT, withheld);
    }

    /// A policy comes that lets nobody change a Deployment, or goes.
    pub(crate) fn protect_deployment(&self, name: &str, protected: bool) {
        self.api.protect("deployments", TENANT, name, protected);
    }

    /// A policy comes that lets nobody change a Secret, or goes.
    pub(crate) fn protect_secret(&self, name: &str, protected: bool) {
        self.api.protect("secrets", TENANT, name, protected);
    }

    /// Somebody deletes the tenant's namespace.
    pub(crate) fn delete_namespace(&self) {
        let _ = self.api.delete("namespaces", "", TENANT);
        // The namespace controller deletes RoleBindings with the first.
        self.withhold_rights(true);
    }

    /// The namespace controller's part: whether there was something to do.
    pub(crate) fn namespace_controller(&self) -> bool {
        let namespace = self.api.get("namespaces", "", TENANT);
        let terminating = namespace.is_some_and(|it| !it["metadata"]["deletionTimestamp"].is_null());
        terminating && self.api.finish_namespace(TENANT)
    }

    /// A newer version of the operator, with kinds of its own, ran for a moment. It left a slot in a state that this one does
    /// not know, and fields that this one cannot read.
    pub(crate) fn newer_version_writes(&self) {
        self.edit_ledger(|status| {
            let Some(slot) = status.pointer_mut("/slots/0") else { return };
            self.keep(slot["state"].clone());
            slot["state"] = json!("Hibernating");
            slot["warmth"] = json!({"degrees": 3});
            status["hibernation"] = json!("deep");
        });
    }

    /// The newer version is gone, and undid what it did.
    pub(crate) fn newer_version_undoes(&self) {
        let Some(state) = self.take_kept() else { return };
        self.edit_ledger(|status| {
            let mut slots = status["slots"].as_array_mut().into_iter().flatten();
            if let Some(slot) = slots.find(|slot| slot["state"] == json!("Hibernating")) {
                slot["state"] = state;
                slot["warmth"] = Value::Null;
            }
            status["hibernation"] = Value::Null;
        });
    }

    fn edit_ledger(&self, change: impl FnOnce(&mut Value)) {
        let _ = self.api.edit_status("bagsaccounts", "", ACCOUNT, |account| {
            if let Some(status) = account.get_mut("status") {
                change(status);
            }
        });
    }

    /// The ledger comes to tell the id of one ApiKey's key of another one's as well, as by a person who copied a line.
    pub(crate) fn give_one_id_to_both(&self, from: &str, to: &str) {
        self.edit_ledger(|status| {
            let Some(slots) = status["slots"].as_array_mut() else { return };
            let of = |slot: &Value, name: &str| slot["owner"]["name"] == *name;
            let id = slots.iter().find(|slot| of(slot, from)).map(|slot| slot["keyId"].clone());
            let its = slots.iter_mut().find(|slot| of(slot, to));
            if let (Some(id), Some(slot)) = (id, its) {
                slot["keyId"] = id;
            }
        });
    }

    /// Whether whatever begins to read the Secret of this name has a key that lives, or none.
    pub(crate) fn holds_no_dead_key(&self, name: &str) -> bool {
        let account = self.api.get("bagsaccounts", "", ACCOUNT);
        let slots = account.as_ref().and_then(|account| account["status"]["slots"].as_array());
        let lives = slots.is_some_and(|slots| {
            slots.iter().all(|slot| slot["state"] == "Live")
                && slots.iter().any(|slot| slot["owner"]["name"] == name)
        });
        lives || !self.has_consumer_secret(name)
    }

    /// The platform team deletes the account.
    pub(crate) fn delete_account(&self) {
        let _ = self.api.delete("bagsaccounts", "", ACCOUNT);
    }

    /// The account's ledger comes to be another installation's, as by a restore of its status from another cluster.
    pub(crate) fn hand_ledger_to_others(&self) {
        let _ = self.api.edit_status("bagsaccounts", "", ACCOUNT, |account| {
            account["status"]["installation"] =
                json!({"cluster": ANOTHER_CLUSTER, "namespace": OPERATOR_NAMESPACE});
        });
    }

    /// A platform person gives it to this one.
    pub(crate) fn take_ledger_over(&self) {
        let ours = format!("{CLUSTER}/{OPERATOR_NAMESPACE}");
        self.annotate("bagsaccounts", "", ACCOUNT, annotation::TAKE_OVER, &ours);
    }

    /// The account's status is lost, as by a restore that leaves it out.
    pub(crate) fn lose_ledger(&self) {
        let _ = self.api.edit_status("bagsaccounts", "", ACCOUNT, |account| {
            if let Some(account) = account.as_object_mut() {
                account.remove("status");
            }
        });
    }

    /// A platform person looks at what nobody else can settle: keys whose existence or death only Bags' page can show.
    /// Removes them there and says so. Whether there was something to do.
    pub(crate) fn platform_person(&self, waits: impl Fn(&Value) -> bool) -> bool {
        let Some(account) = self.api.get("bagsaccounts", "", ACCOUNT) else { return false };
        let slots = account.pointer("/status/slots").and_then(Value::as_array).cloned().unwrap_or_default();
        let said = account["metadata"]["annotations"][annotation::RESOLVED].as_str().unwrap_or_default();
        let mut resolved: Vec<String> =
            said.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let before = resolved.len();
        for slot in slots.iter().filter(|slot| waits(slot)) {
            let Some(attempt) = slot["attempt"].as_str() else { continue };
            if resolved.iter().any(|known| known == attempt) {
                continue;
            }
            for key in self.sandbox.keys() {
                if key.name.ends_with(&format!("-{attempt}")) && key.revoked_at.is_none() {
                    let _ = self.sandbox.revoke_key(&key.id);
                }
            }
            resolved.push(attempt.to_owned());
        }
        let stray = condition(&account, "StrayKeys").0 == "True";
        let revoked = if stray { self.revoke_what_has_no_slot() } else { 0 };
        let more = resolved.len() > before;
        if more {
            self.annotate("bagsaccounts", "", ACCOUNT, annotation::RESOLVED, &resolved.join(","));
        }
        more || revoked > 0
    }

    /// A platform person revokes keys of this cluster that no slot knows, on the pages of all users that the account has had: so many.
    pub(crate) fn revoke_what_has_no_slot(&self) -> usize {
        let Some(account) = self.api.get("bagsaccounts", "", ACCOUNT) else { return 0 };
        let slots = account.pointer("/status/slots").and_then(Value::as_array).cloned().unwrap_or_default();
        let slotless = |name: &str| {
            let attempt = attempt_in(name);
            !slots.iter().any(|slot| slot["attempt"] == *attempt)
        };
        let strays = self.living_keys().into_iter().filter(|(name, _)| slotless(name));
        strays.filter(|(_, id)| self.sandbox.revoke_key(id).is_ok()).count()
    }

    /// Keys of this cluster that are let in at Bags now, by name.
    pub(crate) fn living_keys(&self) -> BTreeMap<String, String> {
        let all = self.all_living_keys().into_iter();
        all.filter(|(_, name)| name.contains(MARK)).map(|(id, name)| (name, id)).collect()
    }

    /// All keys that are let in at Bags now, by id: those of people, and of other users, as well.
    pub(crate) fn all_living_keys(&self) -> BTreeMap<String, String> {
        let keys = self.sandbox.keys().into_iter();
        keys.filter(|key| key.revoked_at.is_none()).map(|key| (key.id, key.name)).collect()
    }

    fn keep(&self, value: Value) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    }

    fn take_kept(&self) -> Option<Value> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// An ApiKey for an application of this name.
fn key(name: &str) -> Value {
    json!({
        "apiVersion": "keys.bags.fm/v1alpha1", "kind": "ApiKey",
        "metadata": {"name": name, "namespace": TENANT},
        "spec": {"accountRef": {"name": ACCOUNT}, "environment": "production"},
    })
}
