//! Whole runs against a small API server and a small Bags, on a clock that jumps to the next deadline.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};

use http::{Method, Request, Response};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::{
    reflector::{self, store::Writer},
    watcher,
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;

use super::*;
use crate::{
    account::memory::Memory,
    api::{
        ApiKey, FINALIZER,
        account::{Installation, Slot, SlotState},
        mark,
    },
    apikey::refusals::Refusals,
    backoff::Backoff,
    bags::{self, BaseUrl, Budget},
    clock::{Clock, Randomness},
    context::Settings,
    env::Env,
    events::Events,
    fixtures::{Came, api_key, bags_account, failure, server},
    keystore::Keystore,
    ledger::{
        LedgerStore,
        slots::tests::{owner, slot},
    },
    saves::Saves,
    timings::Timings,
    workload::{Marks, OwnerCache, PodLists},
};

mod changes;
mod creation;
mod endpoint;
mod orphans;
mod requests;
mod revocation;

const CLUSTER: &str = "01234567-89ab";

/// Both clocks move when told to.
struct HandClock {
    start: Instant,
    passed: Mutex<Duration>,
    /// The wall clock was set back by so much.
    back: Mutex<Duration>,
}

impl Clock for HandClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + *self.passed.lock().unwrap()
            - *self.back.lock().unwrap()
    }

    fn monotonic(&self) -> Instant {
        self.start + Duration::from_secs(100_000) + *self.passed.lock().unwrap()
    }
}

/// A key at Bags.
struct Key {
    id: String,
    name: String,
    value: String,
    alive: bool,
    /// It is of another user than the token, `former`: let in, not listed, and not found where it is to be revoked.
    theirs: bool,
}

/// What there is outside of the operator.
struct World {
    account: BagsAccount,
    accounts: Writer<BagsAccount>,
    /// The ApiKeys.
    owners: Vec<Value>,
    /// The namespace of all ApiKeys is there.
    namespace: bool,
    secrets: Vec<Secret>,
    stored: Writer<Secret>,
    keys: Vec<Key>,
    can_revoke: bool,
    /// Revocations are acknowledged and have no effect.
    deaf: bool,
    /// Revocations are refused.
    forbids: bool,
    /// So many more revocations are answered with a rate limit that ends an hour after the beginning.
    limited: usize,
    /// No Secret may be deleted.
    keeps_secrets: bool,
    /// No Secret of the ApiKeys' namespace may be read.
    hides_secrets: bool,
    /// Nor the namespace itself.
    hides_namespace: bool,
    /// The account itself may not be written, its status apart.
    keeps_finalizers: bool,
    /// A key that is not let in is refused by something in Bags' stead.
    strange: bool,
    /// So long Bags takes for an answer.
    takes: Duration,
    /// Bags lets no key of the user in, and says so.
    suspended: bool,
    refuses_token: bool,
    /// Nothing answers for lists.
    no_list: bool,
    /// So many more lists fail.
    failing_lists: usize,
    /// So many more lists show keys that are revoked.
    late_lists: usize,
    /// The next revocations are answered so by something in Bags' stead.
    misrouted: VecDeque<u16>,
    /// Lists call the user of each key so.
    calls_user: Option<&'static str>,
    down: bool,
    /// The account goes as soon as it is written.
    goes: bool,
    /// Method and path of every request but events.
    requests: Vec<String>,
    events: Vec<String>,
}

impl World {
    fn changed(&mut self) {
        let version = self.account.resource_version().unwrap().parse::<u64>().unwrap() + 1;
        self.account.metadata.resource_version = Some(version.to_string());
        self.accounts.apply_watcher_event(&watcher::Event::Apply(self.account.clone()));
    }

    fn kube(&mut self, request: &Came) -> (u16, Value) {
        let (method, path, sent) = (&request.method, request.path(), &request.body);
        let name = path.rsplit('/').next().unwrap().to_owned();
        if path.ends_with("/events") {
            self.events.push(sent["reason"].as_str().unwrap().to_owned());
            return (201, sent.clone());
        }
        self.requests.push(format!("{method} {path}"));
        if self.keeps_finalizers && method == Method::PATCH && path.ends_with("/bagsaccounts/main") {
            return failure(403, "Forbidden");
        }
        let version = sent["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        if path.contains("/bagsaccounts/") && method != Method::GET {
            if version != self.account.resource_version() {
                return failure(409, "Conflict");
            }
            if path.ends_with("/status") {
                let mut status = sent["status"].clone();
                if method == Method::PATCH {
                    let mut patched = serde_json::to_value(&self.account.status).unwrap();
                    patched.as_object_mut().unwrap().append(status.as_object_mut().unwrap());
                    status = patched;
                }
                self.account.status = serde_json::from_value(status).unwrap();
            } else {
                self.account.metadata.finalizers =
                    serde_json::from_value(sent["metadata"]["finalizers"].clone()).unwrap();
            }
            self.changed();
            if self.goes {
                self.accounts.apply_watcher_event(&watcher::Event::Delete(self.account.clone()));
            }
        }
        if path.contains("/bagsaccounts/") {
            return (200, serde_json::to_value(&self.account).unwrap());
        }
        if path.contains("/apikeys/") {
            let found = self.owners.iter().find(|key| key["metadata"]["name"] == name.as_str());
            return found.map_or_else(|| failure(404, "NotFound"), |key| (200, key.clone()));
        }
        if path == "/api/v1/namespaces/shop" && self.hides_namespace {
            return failure(403, "Forbidden");
        }
        if path == "/api/v1/namespaces/shop" {
            let metadata = json!({"kind": "PartialObjectMetadata", "metadata": {"name": "shop"}});
            return if self.namespace { (200, metadata) } else { failure(404, "NotFound") };
        }
        if method == Method::DELETE && self.keeps_secrets
            || path.contains("/namespaces/shop/secrets/") && self.hides_secrets
        {
            return failure(403, "Forbidden");
        }
        if path == "/api/v1/namespaces/bags/secrets" {
            let all =
                json!({"apiVersion": "v1", "kind": "SecretList", "metadata": {}, "items": self.secrets});
            return (200, all);
        }
        let Some(index) = self.secrets.iter().position(|secret| secret.name_any() == name) else {
            return failure(404, "NotFound");
        };
        let secret = self.secrets[index].clone();
        if method == Method::DELETE {
            let preconditions = &sent["preconditions"];
            let of = |field: &str| preconditions[field].as_str().map(str::to_owned);
            if of("uid") != secret.uid() || of("resourceVersion") != secret.resource_version() {
                return failure(409, "Conflict");
            }
            self.secrets.remove(index);
            self.stored.apply_watcher_event(&watcher::Event::Delete(secret.clone()));
        }
        (200, serde_json::to_value(&secret).unwrap())
    }

    fn bags(&mut self, path: &str, key: Option<&str>, body: &[u8]) -> (u16, Value) {
        self.requests.push(format!("BAGS {path}"));
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        if self.down {
            return (503, json!({"success": false, "error": "down"}));
        }
        if self.refuses_token && sent["token"] == "token-for-tests" {
            return (400, json!({"success": false, "response": "Invalid token"}));
        }
        let theirs = self.keys.iter().any(|key| key.theirs && sent["keyId"] == key.id.as_str());
        match path {
            "/api/v1/auth/me" if self.suspended => (403, json!({"success": false, "error": "suspended"})),
            "/api/v1/auth/me" => {
                match self.keys.iter().find(|known| known.alive && Some(&*known.value) == key) {
                    Some(known) => {
                        let user = if known.theirs { "former" } else { "user-1" };
                        (200, json!({"success": true, "response": {"user": {"uuid": user}}}))
                    }
                    None if self.strange => (401, json!({"statusCode": 401, "message": "Unauthorized"})),
                    None => (401, json!({"success": false, "error": "Invalid API key."})),
                }
            }
            "/api/v1/agent/dev/keys" if self.no_list => (404, json!("Cannot POST")),
            "/api/v1/agent/dev/keys" if self.failing_lists > 0 => {
                self.failing_lists -= 1;
                (503, json!({"success": false, "error": "down"}))
            }
            "/api/v1/agent/dev/keys" => {
                let shows_dead = self.late_lists > 0;
                self.late_lists = self.late_lists.saturating_sub(1);
                let alive = self.keys.iter().filter(|key| (key.alive || shows_dead) && !key.theirs);
                let user = self.calls_user;
                let listed = alive.map(
                    |key| json!({"keyId": key.id, "name": key.name, "status": "active", "userId": user}),
                );
                (200, json!({"success": true, "response": listed.collect::<Vec<_>>()}))
            }
            "/api/v1/agent/dev/keys/revoke" if !self.misrouted.is_empty() => {
                (self.misrouted.pop_front().unwrap(), json!("no such backend"))
            }
            "/api/v1/agent/dev/keys/revoke" if self.limited > 0 => {
                self.limited -= 1;
                (
                    429,
                    json!({"success": false, "error": "Rate limit exceeded", "resetTime": "2027-01-15T09:00:00Z"}),
                )
            }
            "/api/v1/agent/dev/keys/revoke" if self.forbids => {
                (403, json!({"success": false, "error": "not with this token"}))
            }
            "/api/v1/agent/dev/keys/revoke" if self.can_revoke && !theirs => {
                for key in self.keys.iter_mut().filter(|key| sent["keyId"] == key.id.as_str()) {
                    key.alive = self.deaf;
                }
                (200, json!({"success": true, "response": {}}))
            }
            _ => (404, json!({"success": false, "error": "Not found"})),
        }
    }
}

/// The operator and its world.
struct Stage {
    context: Arc<Context>,
    clock: Arc<HandClock>,
    world: Arc<Mutex<World>>,
    keys: Writer<ApiKey>,
}

/// The Secret with the account's token.
fn token() -> Secret {
    let token = json!({
        "metadata": {"name": "bags-main", "namespace": "bags", "resourceVersion": "1"},
        "data": {"token": k8s_openapi::ByteString(b"token-for-tests".to_vec())},
    });
    serde_json::from_value(token).unwrap()
}

/// An account with a token, or else a wallet that nobody asks for, and these slots.
#[expect(clippy::disallowed_methods, reason = "an arbitrary beginning: an Instant has no other")]
fn stage(with_token: bool, slots: Vec<Slot>) -> Stage {
    let clock =
        Arc::new(HandClock { start: Instant::now(), passed: Mutex::default(), back: Mutex::default() });
    let installation = Installation { cluster: CLUSTER.into(), namespace: "bags".into() };
    let credentials = if with_token { json!({"agentToken": {"secretName": "bags-main"}}) } else { json!({}) };
    let account = bags_account(&json!({
        "metadata": {"uid": "uid-main", "resourceVersion": "1", "finalizers": [FINALIZER]},
        "spec": {"credentials": credentials},
        "status": {"installation": installation, "slots": slots},
    }));
    let (_, mut accounts) = reflector::store();
    let (_, mut stored) = reflector::store();
    let (_, keys) = reflector::store();
    accounts.apply_watcher_event(&watcher::Event::Apply(account.clone()));
    stored.apply_watcher_event(&watcher::Event::Apply(token()));
    let world = World {
        account,
        accounts,
        owners: vec![],
        namespace: true,
        secrets: vec![],
        stored,
        keys: vec![],
        can_revoke: true,
        deaf: false,
        forbids: false,
        limited: 0,
        keeps_secrets: false,
        hides_secrets: false,
        hides_namespace: false,
        keeps_finalizers: false,
        strange: false,
        takes: Duration::ZERO,
        suspended: false,
        refuses_token: false,
        no_list: false,
        failing_lists: 0,
        late_lists: 0,
        misrouted: VecDeque::new(),
        calls_user: None,
        down: false,
        goes: false,
        requests: vec![],
        events: vec![],
    };
    let world = Arc::new(Mutex::new(world));
    let context = operator(&world, &clock, &keys, installation);
    Stage { context: Arc::new(context), clock, world, keys }
}

/// One operator in the world.
fn operator(
    world: &Arc<Mutex<World>>,
    clock: &Arc<HandClock>,
    keys: &Writer<ApiKey>,
    installation: Installation,
) -> Context {
    let (accounts, secrets) = {
        let world = world.lock().unwrap();
        (world.accounts.as_reader(), world.stored.as_reader())
    };
    let answering = world.clone();
    let (client, _) = server(move |request, _| answering.lock().unwrap().kube(request));
    let timings = Timings::default();
    let budget = |clock: Arc<HandClock>| Arc::new(Budget::per_hour(2500, clock));
    Context {
        pods: PodLists::default(),
        owners: OwnerCache::default(),
        marks: Marks::default(),
        refusals: Refusals::default(),
        env: Env {
            kube: client.clone(),
            bags: bags_service(world.clone(), clock.clone()),
            clock: clock.clone(),
            randomness: Randomness::from_seed(1),
            saves: Saves::default(),
        },
        settings: Settings {
            installation: installation.clone(),
            bags_url: BaseUrl::parse("https://bags.test/api/v1", false).unwrap(),
            consumer_bags_url: "https://bags.test/api/v1".into(),
            request_deadline: Duration::from_secs(30),
            timings: timings.clone(),
        },
        keys: keys.as_reader(),
        ledger: LedgerStore::new(client.clone(), clock.clone(), timings.clone(), installation, accounts),
        keystore: Keystore::new(client.clone(), "bags", secrets),
        registration: tokio::sync::watch::channel(crate::webhook::registration::Registration::Unwatched).1,
        memory: Memory::default(),
        operator_budget: budget(clock.clone()),
        metrics: crate::metrics::Metrics::new(),
        written: crate::apikey::written::Written::default(),
        events: Events::new(client, clock.clone(), "replica".into()),
        backoff: Backoff::new(Randomness::from_seed(2), timings.resync),
    }
}

fn bags_service(world: Arc<Mutex<World>>, clock: Arc<HandClock>) -> bags::BagsService {
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<bags::Body>| {
        let (world, clock) = (world.clone(), clock.clone());
        async move {
            let key = request.headers().get("x-api-key").map(|key| key.to_str().unwrap().to_owned());
            let path = request.uri().path().to_owned();
            let (code, answer) = world.lock().unwrap().bags(&path, key.as_deref(), request.body().as_bytes());
            *clock.passed.lock().unwrap() += world.lock().unwrap().takes;
            let body = bags::Body::from(serde_json::to_vec(&answer).unwrap());
            let answer = Response::builder().status(code).header("content-type", "application/json");
            Ok(answer.body(body).unwrap())
        }
    }))
}

impl Stage {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// An ApiKey that exists, and that the cache knows.
    fn owner(&mut self, n: usize) {
        self.owner_of(n, "main");
    }

    /// One of that account.
    fn owner_of(&mut self, n: usize, account: &str) {
        let owner = owner(n);
        let key = api_key(&json!({
            "metadata": {"name": owner.name, "uid": owner.name.replace("app", "uid")},
            "spec": {"accountRef": {"name": account}},
        }));
        self.world().owners.push(json!(key));
        self.keys.apply_watcher_event(&watcher::Event::Apply(key));
    }

    /// A slot's key exists at Bags; with its keystore Secret, and the value in it, or not.
    fn key(&self, slot: &Slot, value: Option<bool>) {
        let attempt = slot.attempt.clone().unwrap();
        let mut world = self.world();
        world.keys.push(Key {
            id: slot.key_id.clone().unwrap(),
            name: slot.key_name.clone().unwrap(),
            value: format!("value-of-{attempt}"),
            alive: true,
            theirs: false,
        });
        let Some(value) = value else { return };
        let data = value
            .then(|| json!({"value": k8s_openapi::ByteString(format!("value-of-{attempt}").into_bytes())}));
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {
                "name": format!("bags-key-{attempt}"), "namespace": "bags", "uid": attempt, "resourceVersion": "1",
                "labels": {mark::ATTEMPT: attempt, mark::ACCOUNT: "main", mark::OWNER_UID: slot.owner.uid},
                "annotations": {mark::OWNER_NAMESPACE: slot.owner.namespace, mark::OWNER_NAME: slot.owner.name},
            },
            "data": data,
        }))
        .unwrap();
        world.stored.apply_watcher_event(&watcher::Event::Apply(secret.clone()));
        world.secrets.push(secret);
    }

    fn annotate(&self, key: &str, value: &str) {
        let mut world = self.world();
        world.account.annotations_mut().insert(key.to_owned(), value.to_owned());
        world.changed();
    }

    /// Runs, and jumps from deadline to deadline, for so long.
    async fn pass(&self, time: Duration) {
        let begun = *self.clock.passed.lock().unwrap();
        while *self.clock.passed.lock().unwrap() - begun < time {
            let Outcome::Wait(wait) = reconcile(&self.context, "main").await else { panic!("gone") };
            *self.clock.passed.lock().unwrap() += wait;
        }
    }

    /// Runs, and jumps to the next deadline, until it is so; gives the time that passed.
    async fn until(&self, longest: Duration, so: impl Fn(&World) -> bool) -> Duration {
        let begun = *self.clock.passed.lock().unwrap();
        loop {
            let outcome = reconcile(&self.context, "main").await;
            let passed = *self.clock.passed.lock().unwrap() - begun;
            if so(&self.world()) {
                return passed;
            }
            let Outcome::Wait(wait) = outcome else { panic!("the account is gone") };
            assert!(passed < longest, "not so after {passed:?}: {:?}", self.world().account.status);
            assert!(!wait.is_zero(), "a hot loop");
            *self.clock.passed.lock().unwrap() += wait;
        }
    }
}

fn states(world: &World) -> Vec<SlotState> {
    world.account.status.iter().flat_map(|status| &status.slots).map(|slot| slot.state.clone()).collect()
}

fn condition<'a>(world: &'a World, type_: &str) -> Option<&'a Condition> {
    world.account.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
}

const MINUTES: Duration = Duration::from_mins(30);

fn aged(n: usize, state: SlotState) -> Slot {
    Slot { since: Timestamp::from_second(1_800_000_000 - 3600).unwrap(), ..slot(&owner(n), state) }
}

/// Bags cannot revoke the first of two keys, and a person is asked to.
async fn a_person_is_asked() -> Stage {
    let (dying, live) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![dying.clone(), live.clone()]);
    stage.key(&dying, Some(true));
    stage.key(&live, Some(true));
    stage.owner(1);
    stage.world().can_revoke = false;
    stage.until(MINUTES, |world| condition(world, "RevocationNeedsPerson").is_some()).await;
    stage
}
