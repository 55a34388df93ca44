//! What a test plays in: a namespace, a BagsAccount and a user at Bags of its own; and ways to wait for what should
//! come to be. Everything waits for a condition, with a limit that only a failure reaches.
#![allow(dead_code, reason = "each test binary uses its part")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{collections::BTreeMap, fmt::Debug, future::Future, time::Duration};

use bags_operator::{
    api::{ApiKey, BagsAccount, account::SlotState, mark},
    sandbox::{KeyView, NewUser, UserOptions},
};
use k8s_openapi::{
    ByteString,
    api::{core::v1::Secret, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    runtime::wait::{Condition as Awaited, await_condition},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::world::World;

/// What should come to be comes to be long before this. A schedule takes a minute before anything begins.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);

/// How the account proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Token,
    Wallet,
    WalletAndToken,
}

/// A namespace, an account and a user of one's own.
pub(crate) struct Scene<'w> {
    pub(crate) world: &'w World,
    pub(crate) client: Client,
    /// Also the name of the account and of its credentials' Secret.
    pub(crate) name: String,
    pub(crate) user: NewUser,
    pub(crate) way: Way,
}

impl<'w> Scene<'w> {
    /// With an account as most tests want it: this namespace, every environment, nothing reserved.
    pub(crate) async fn new(world: &'w World, way: Way, options: UserOptions) -> Self {
        let scene = Self::without_account(world, way, options).await;
        scene.put_credentials(&scene.credentials()).await;
        scene.make_account(json!({})).await;
        scene
    }

    /// A namespace and a user; no account, no credentials.
    pub(crate) async fn without_account(world: &'w World, way: Way, options: UserOptions) -> Self {
        let client = world.cluster.client().await;
        let name = world.cluster.namespace(&client, "shop").await;
        let user = world.sandbox.sandbox.add_user(options);
        Self { world, client, name, user, way }
    }

    /// One that was begun before, beside another operator.
    pub(crate) async fn again(world: &'w World, name: String, user: NewUser, way: Way) -> Self {
        Self { world, client: world.cluster.client().await, name, user, way }
    }

    // ---- the platform team's

    /// The fields of the credentials' Secret, as they should be.
    pub(crate) fn credentials(&self) -> BTreeMap<String, String> {
        let credentials = &self.user.credentials;
        let mut fields = BTreeMap::new();
        if self.way != Way::Wallet {
            fields.insert("token".to_owned(), credentials.token().to_owned());
        }
        if self.way != Way::Token {
            fields.insert("wallet.json".to_owned(), credentials.wallet_json().to_owned());
            fields.extend(credentials.totp().map(|totp| ("totp".to_owned(), totp.to_owned())));
        }
        fields
    }

    /// Puts these fields, and no others, into the credentials' Secret.
    pub(crate) async fn put_credentials(&self, fields: &BTreeMap<String, String>) {
        let data = fields.iter().map(|(name, text)| (name.clone(), ByteString(text.clone().into_bytes())));
        let secret = Secret {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            data: Some(data.collect()),
            ..Secret::default()
        };
        let api = self.keystore();
        match api.get_opt(&self.name).await.unwrap() {
            None => drop(api.create(&PostParams::default(), &secret).await.unwrap()),
            Some(present) => {
                let metadata =
                    ObjectMeta { resource_version: present.resource_version(), ..secret.metadata.clone() };
                let secret = Secret { metadata, ..secret };
                drop(api.replace(&self.name, &PostParams::default(), &secret).await.unwrap());
            }
        }
    }

    /// Creates the account with some fields of its spec replaced.
    pub(crate) async fn make_account(&self, fields: Value) {
        let secret = json!({"secretName": self.name});
        let mut wallet = secret.clone();
        if self.user.credentials.totp().is_some() {
            wallet["totpField"] = json!("totp");
        }
        let credentials = match self.way {
            Way::Token => json!({"agentToken": secret}),
            Way::Wallet => json!({"wallet": wallet}),
            Way::WalletAndToken => json!({"wallet": wallet, "agentToken": secret}),
        };
        let mut spec = json!({
            "credentials": credentials, "rotationReserve": 0, "requestsPerHour": 5000,
            "allowed": [{"namespaces": [self.name]}],
        });
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let account = typed(json!({
            "apiVersion": "keys.bags.fm/v1alpha1", "kind": "BagsAccount",
            "metadata": {"name": self.name}, "spec": spec,
        }));
        self.accounts().create(&PostParams::default(), &account).await.unwrap();
    }

    /// Merges into the account.
    pub(crate) async fn patch_account(&self, patch: Value) -> BagsAccount {
        self.accounts().patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap()
    }

    // ---- the tenant's

    /// Applies an ApiKey for production with further fields of its spec.
    pub(crate) async fn apply(&self, name: &str, fields: Value) -> ApiKey {
        let key = self.new_key(name, fields);
        self.keys().create(&PostParams::default(), &key).await.unwrap()
    }

    /// Applies an ApiKey that is younger than another one by the API server's clock, which counts whole seconds.
    pub(crate) async fn apply_after(&self, earlier: &str, name: &str, fields: Value) -> ApiKey {
        let earlier = self.keys().get(earlier).await.unwrap().creation_timestamp();
        let key = self.new_key(name, fields);
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        let mut pause = tokio::time::interval(Duration::from_millis(50));
        while self.keys().create(&dry_run, &key).await.unwrap().creation_timestamp() == earlier {
            pause.tick().await;
        }
        self.keys().create(&PostParams::default(), &key).await.unwrap()
    }

    /// An ApiKey for production with further fields of its spec, not applied.
    pub(crate) fn new_key(&self, name: &str, fields: Value) -> ApiKey {
        let mut spec = json!({"accountRef": {"name": self.name}, "environment": "production"});
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        typed(json!({
            "apiVersion": "keys.bags.fm/v1alpha1", "kind": "ApiKey",
            "metadata": {"name": name, "namespace": self.name}, "spec": spec,
        }))
    }

    /// Merges into an ApiKey.
    pub(crate) async fn patch(&self, name: &str, patch: Value) -> ApiKey {
        self.keys().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap()
    }

    /// Deletes an ApiKey and does not wait.
    pub(crate) async fn delete(&self, name: &str) {
        self.keys().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Deletes an ApiKey, revoking at once, and waits until it is gone.
    pub(crate) async fn delete_now(&self, name: &str) {
        self.patch(name, json!({"metadata": {"annotations": {"keys.bags.fm/delete-now": "true"}}})).await;
        self.delete(name).await;
        self.gone(name).await;
    }

    // ---- where things are

    pub(crate) fn keys(&self) -> Api<ApiKey> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub(crate) fn accounts(&self) -> Api<BagsAccount> {
        Api::all(self.client.clone())
    }

    /// Secrets of the tenant's namespace.
    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Secrets of the operator's namespace.
    pub(crate) fn keystore(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.world.launch.namespace)
    }

    /// Keystore Secrets of the account.
    pub(crate) async fn stored(&self) -> Vec<Secret> {
        let ours = ListParams::default().labels(&format!("{}={}", mark::ACCOUNT, self.name));
        self.keystore().list(&ours).await.unwrap().items
    }

    /// The account as it is now.
    pub(crate) async fn account(&self) -> BagsAccount {
        self.accounts().get(&self.name).await.unwrap()
    }

    /// Every key ever made for the user.
    pub(crate) fn made(&self) -> Vec<KeyView> {
        self.world.sandbox.keys_of(&self.user.id)
    }

    /// The keys of the user that work.
    pub(crate) fn working(&self) -> Vec<KeyView> {
        self.world.sandbox.working_keys_of(&self.user.id)
    }

    /// Requests of the user to a route so far.
    pub(crate) fn requests_to(&self, route: &str) -> usize {
        let page = self.world.sandbox.sandbox.requests(0, usize::MAX);
        let to_route = |request_route: &Option<String>| {
            request_route.as_ref().is_some_and(|request_route| request_route.ends_with(route))
        };
        let ours = page.requests.iter().filter(|request| request.user.as_deref() == Some(&self.user.id));
        ours.filter(|request| to_route(&request.route)).count()
    }

    // ---- waiting

    /// The ApiKey, once it is so.
    pub(crate) async fn key(&self, name: &str, what: &str, so: impl Fn(&ApiKey) -> bool) -> ApiKey {
        self.until(self.keys(), name, what, |key: Option<&ApiKey>| key.is_some_and(&so)).await.unwrap()
    }

    /// The account, once it is so.
    pub(crate) async fn account_where(&self, what: &str, so: impl Fn(&BagsAccount) -> bool) -> BagsAccount {
        let so = |account: Option<&BagsAccount>| account.is_some_and(&so);
        self.until(self.accounts(), &self.name, what, so).await.unwrap()
    }

    /// The ApiKey, once its key is in the Secret.
    pub(crate) async fn ready(&self, name: &str) -> ApiKey {
        self.key(name, "Ready", |key| holds(key, "Ready", "True")).await
    }

    /// The message of `Ready=False`, once its reason is this one.
    pub(crate) async fn not_ready(&self, name: &str, reason: &str) -> String {
        let so = |key: &ApiKey| {
            let current = key.status.as_ref().and_then(|status| status.observed_generation);
            current == key.metadata.generation
                && condition(key, "Ready").is_some_and(|c| c.status == "False" && c.reason == reason)
        };
        let key = self.key(name, &format!("Ready=False, {reason}"), so).await;
        condition(&key, "Ready").unwrap().message.clone()
    }

    /// Waits until an ApiKey is gone.
    pub(crate) async fn gone(&self, name: &str) {
        self.until(self.keys(), name, "gone", |key: Option<&ApiKey>| key.is_none()).await;
    }

    /// The Secret, once it is so.
    pub(crate) async fn secret(&self, name: &str, what: &str, so: impl Fn(&Secret) -> bool) -> Secret {
        let so = |secret: Option<&Secret>| secret.is_some_and(&so);
        self.until(self.secrets(), name, what, so).await.unwrap()
    }

    /// The value in an ApiKey's Secret (of the default name, in the default field).
    pub(crate) async fn value(&self, name: &str) -> String {
        text(&self.secrets().get(name).await.unwrap(), "BAGS_API_KEY")
    }

    /// The value in an ApiKey's Secret, which must work for the account's user.
    pub(crate) async fn working_value(&self, name: &str) -> String {
        let value = self.value(name).await;
        assert_eq!(self.world.sandbox.user_of(&value).await, Ok(self.user.id.clone()));
        value
    }

    /// The notes of an object's events of this reason, once there is one.
    pub(crate) async fn events(&self, about: &str, reason: &str) -> Vec<String> {
        let mut notes = Vec::new();
        let search = async {
            let mut pause = tokio::time::interval(Duration::from_millis(100));
            while notes.is_empty() {
                pause.tick().await;
                notes = self.notes(about, reason).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), search).await.is_err() {
            panic!("no event {reason} about {about}; there are: {:?}", self.all_events().await);
        }
        notes
    }

    /// The notes of an object's events of this reason so far.
    pub(crate) async fn notes(&self, about: &str, reason: &str) -> Vec<String> {
        let events = self.all_events().await.into_iter();
        let ours = events.filter(|(name, event, _)| name == about && event == reason);
        ours.map(|(_, _, note)| note).collect()
    }

    async fn all_events(&self) -> Vec<(String, String, String)> {
        let mut all = Vec::new();
        for namespace in [self.name.as_str(), "default"] {
            let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
            let events = api.list(&ListParams::default()).await.unwrap().items.into_iter();
            all.extend(events.map(|event| {
                let about = event.regarding.unwrap_or_default().name.unwrap_or_default();
                (about, event.reason.unwrap_or_default(), event.note.unwrap_or_default())
            }));
        }
        all
    }

    /// Waits for a condition on an object; fails with what there is and the operator's last words.
    pub(crate) async fn until<K>(&self, api: Api<K>, name: &str, what: &str, so: impl Awaited<K>) -> Option<K>
    where
        K: kube::Resource + Clone + Debug + DeserializeOwned + serde::Serialize + Send + 'static,
    {
        match tokio::time::timeout(LIMIT, await_condition(api.clone(), name, so)).await {
            Ok(found) => found.unwrap(),
            Err(_) => {
                let present = api.get_opt(name).await.unwrap();
                let shown = serde_json::to_value(present).unwrap();
                let (spec, status) = (&shown["spec"], &shown["status"]);
                let requests = self.last_requests();
                let tail = self.world.operator.as_ref().map(|operator| operator.tail_about(&self.name));
                let tail = tail.unwrap_or_default();
                panic!("{name} is not {what} in time; spec: {spec:#}, status: {status:#}{requests}{tail}")
            }
        }
    }

    /// The user's last requests, for messages of failed tests.
    fn last_requests(&self) -> String {
        let page = self.world.sandbox.sandbox.requests(0, usize::MAX).requests;
        let ours: Vec<_> = page
            .iter()
            .filter(|request| request.user.as_ref().is_none_or(|user| *user == self.user.id))
            .collect();
        let last = ours.iter().skip(ours.len().saturating_sub(30));
        last.fold(String::new(), |text, request| {
            let route = request.route.as_deref().unwrap_or("?");
            format!("{text}\n{} {route}: {:?}", request.time, request.status)
        })
    }

    // ---- the end

    /// What must hold after every test: no invariant was broken on the way, and every working key that carries our
    /// mark is in a slot.
    pub(crate) async fn end(self) {
        let account = self.account().await;
        self.world.ledgers.hold_for(&account).await;
        let slots = account.status.unwrap_or_default().slots;
        let known = |key: &KeyView| slots.iter().any(|slot| slot.key_name.as_deref() == Some(&*key.name));
        let unknown: Vec<_> = self.working().into_iter().filter(|key| !known(key)).collect();
        let by_hand = |key: &KeyView| key.name.starts_with(BY_HAND);
        assert!(unknown.iter().all(by_hand), "keys without a slot: {unknown:#?}; slots: {slots:#?}");
    }
}

/// How the names of keys begin that a test makes by hand.
pub(crate) const BY_HAND: &str = "Made-By-Hand";

/// How many slots of an account are in this state.
pub(crate) fn slots_in(account: &BagsAccount, state: &SlotState) -> usize {
    let status = account.status.as_ref();
    status.map_or(0, |status| status.slots.iter().filter(|slot| slot.state == *state).count())
}

/// How many slots an account has.
pub(crate) fn slots(account: &BagsAccount) -> usize {
    account.status.as_ref().map_or(0, |status| status.slots.len())
}

/// An object with conditions.
pub(crate) trait Conditions {
    fn conditions(&self) -> &[Condition];
}

impl Conditions for ApiKey {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
    }
}

impl Conditions for BagsAccount {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
    }
}

/// A condition by its type.
pub(crate) fn condition<'a>(object: &'a impl Conditions, type_: &str) -> Option<&'a Condition> {
    object.conditions().iter().find(|condition| condition.type_ == type_)
}

/// Whether a condition has this status.
pub(crate) fn holds(object: &impl Conditions, type_: &str, status: &str) -> bool {
    condition(object, type_).is_some_and(|condition| condition.status == status)
}

/// The text in a field of a Secret.
pub(crate) fn text(secret: &Secret, field: &str) -> String {
    let bytes = secret.data.as_ref().and_then(|data| data.get(field));
    bytes.map(|bytes| String::from_utf8(bytes.0.clone()).unwrap()).unwrap_or_default()
}

/// Fails unless the message has every one of these words.
pub(crate) fn says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "\"{word}\" is not in: {message}");
    }
}

fn typed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Several things that a test waits for at the same time.
pub(crate) async fn all<T>(waits: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    futures::future::join_all(waits).await
}
