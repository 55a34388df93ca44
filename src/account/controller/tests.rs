//! Whole runs against a small API server and a small Bags, on a clock that jumps to the next deadline.

use std::sync::{Mutex, MutexGuard};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Client,
    runtime::{
        reflector::{self, store::Writer},
        watcher,
    },
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;

use super::*;
use crate::{
    account::memory::Memory,
    api::{
        ApiKey, FINALIZER,
        account::{Capability, Installation, Slot, SlotState},
        annotation, mark,
    },
    backoff::Backoff,
    bags::{self, BaseUrl, Budget},
    clock::{Clock, Randomness},
    context::Settings,
    env::Env,
    events::Events,
    keystore::Keystore,
    ledger::{
        LedgerStore,
        slots::tests::{owner, slot},
    },
    operator::wake::Wake,
    saves::Saves,
    timings::Timings,
    workload::{Marks, OwnerCache, PodLists},
};

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
    refuses_token: bool,
    /// Nothing answers for lists.
    no_list: bool,
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

    fn kube(&mut self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        let name = path.rsplit('/').next().unwrap().to_owned();
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        if path.ends_with("/events") {
            self.events.push(sent["reason"].as_str().unwrap().to_owned());
            return (201, sent);
        }
        self.requests.push(format!("{method} {path}"));
        let version = sent["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        if path.contains("/bagsaccounts/") && method != Method::GET {
            if version != self.account.resource_version() {
                return (409, Value::Null);
            }
            if path.ends_with("/status") {
                self.account.status = serde_json::from_value(sent["status"].clone()).unwrap();
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
            return found.map_or((404, Value::Null), |key| (200, key.clone()));
        }
        if path == "/api/v1/namespaces/shop" {
            let metadata = json!({"kind": "PartialObjectMetadata", "metadata": {"name": "shop"}});
            return if self.namespace { (200, metadata) } else { (404, Value::Null) };
        }
        let Some(index) = self.secrets.iter().position(|secret| secret.name_any() == name) else {
            return (404, Value::Null);
        };
        let secret = self.secrets[index].clone();
        if method == Method::DELETE {
            let preconditions = &sent["preconditions"];
            if preconditions["uid"].as_str().map(str::to_owned) != secret.uid() {
                return (409, Value::Null);
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
        match path {
            "/api/v1/auth/me" => {
                match self.keys.iter().any(|known| known.alive && Some(&*known.value) == key) {
                    true => (200, json!({"success": true, "response": {"user": {"uuid": "user-1"}}})),
                    false => (401, json!({"success": false, "error": "Invalid API key."})),
                }
            }
            "/api/v1/agent/dev/keys" if self.no_list => (404, json!("Cannot POST")),
            "/api/v1/agent/dev/keys" => {
                let alive = self.keys.iter().filter(|key| key.alive);
                let listed = alive.map(|key| json!({"keyId": key.id, "name": key.name, "status": "active"}));
                (200, json!({"success": true, "response": listed.collect::<Vec<_>>()}))
            }
            "/api/v1/agent/dev/keys/revoke" if self.forbids => {
                (403, json!({"success": false, "error": "not with this token"}))
            }
            "/api/v1/agent/dev/keys/revoke" if self.can_revoke => {
                for key in self.keys.iter_mut().filter(|key| sent["keyId"] == key.id.as_str()) {
                    key.alive = self.deaf;
                }
                (200, json!({"success": true, "response": {}}))
            }
            _ => (404, json!({"success": false, "error": "Not found"})),
        }
    }
}

fn api_key(name: &str, account: &str) -> Value {
    json!({
        "apiVersion": "keys.bags.fm/v1alpha1",
        "kind": "ApiKey",
        "metadata": {"name": name, "namespace": "shop", "uid": name.replace("app", "uid")},
        "spec": {"accountRef": {"name": account}, "environment": "production"},
    })
}

/// The operator and its world.
struct Stage {
    context: Arc<Context>,
    clock: Arc<HandClock>,
    world: Arc<Mutex<World>>,
    keys: Writer<ApiKey>,
}

/// An account with a token, or else a wallet that nobody asks for, and these slots.
#[expect(clippy::disallowed_methods, reason = "an arbitrary beginning: an Instant has no other")]
fn stage(with_token: bool, slots: Vec<Slot>) -> Stage {
    let clock =
        Arc::new(HandClock { start: Instant::now(), passed: Mutex::default(), back: Mutex::default() });
    let installation = Installation { cluster: CLUSTER.into(), namespace: "bags".into() };
    let credentials = if with_token { json!({"agentToken": {"secretName": "bags-main"}}) } else { json!({}) };
    let account: BagsAccount = serde_json::from_value(json!({
        "apiVersion": "keys.bags.fm/v1alpha1",
        "kind": "BagsAccount",
        "metadata": {"name": "main", "uid": "uid-main", "resourceVersion": "1", "finalizers": [FINALIZER]},
        "spec": {"credentials": credentials},
        "status": {"installation": installation, "slots": slots},
    }))
    .unwrap();
    let (_, mut accounts) = reflector::store();
    let (_, mut stored) = reflector::store();
    let (_, keys) = reflector::store();
    accounts.apply_watcher_event(&watcher::Event::Apply(account.clone()));
    let token = json!({
        "metadata": {"name": "bags-main", "namespace": "bags", "resourceVersion": "1"},
        "data": {"token": k8s_openapi::ByteString(b"token-for-tests".to_vec())},
    });
    stored.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(token).unwrap()));
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
        refuses_token: false,
        no_list: false,
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
    let client = Client::new(kube_service(world.clone()), "unused");
    let timings = Timings::default();
    let budget = |clock: Arc<HandClock>| Arc::new(Budget::per_hour(2500, clock));
    Context {
        pods: PodLists::default(),
        owners: OwnerCache::default(),
        marks: Marks::default(),
        env: Env {
            kube: client.clone(),
            bags: bags_service(world.clone()),
            clock: clock.clone(),
            randomness: Randomness::from_seed(1),
            saves: Saves::default(),
        },
        settings: Settings {
            installation,
            bags_url: BaseUrl::parse("https://bags.test/api/v1", false).unwrap(),
            consumer_bags_url: "https://bags.test/api/v1".into(),
            request_deadline: Duration::from_secs(30),
            timings: timings.clone(),
        },
        keys: keys.as_reader(),
        ledger: LedgerStore::new(client.clone(), clock.clone(), timings.clone(), accounts),
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

fn kube_service(
    world: Arc<Mutex<World>>,
) -> impl tower::Service<
    Request<kube::client::Body>,
    Response = Response<kube::client::Body>,
    Error = tower::BoxError,
    Future: Send,
> + Clone {
    tower::service_fn(move |request: Request<kube::client::Body>| {
        let world = world.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let (code, mut answer) = world.lock().unwrap().kube(&parts.method, parts.uri.path(), &body);
            if answer.is_null() {
                let reason = if code == 404 { "NotFound" } else { "Conflict" };
                answer = json!({"kind": "Status", "status": "Failure", "message": "no", "reason": reason, "code": code});
            }
            let body = kube::client::Body::from(serde_json::to_vec(&answer)?);
            Ok(Response::builder().status(code).body(body)?)
        }
    })
}

fn bags_service(world: Arc<Mutex<World>>) -> bags::BagsService {
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<bags::Body>| {
        let world = world.clone();
        async move {
            let key = request.headers().get("x-api-key").map(|key| key.to_str().unwrap().to_owned());
            let path = request.uri().path().to_owned();
            let (code, answer) = world.lock().unwrap().bags(&path, key.as_deref(), request.body().as_bytes());
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
        let key = api_key(&owner(n).name, account);
        self.keys.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(key.clone()).unwrap()));
        self.world().owners.push(key);
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
        });
        let Some(value) = value else { return };
        let data = value
            .then(|| json!({"value": k8s_openapi::ByteString(format!("value-of-{attempt}").into_bytes())}));
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {
                "name": format!("bags-key-{attempt}"), "namespace": "bags", "uid": attempt, "resourceVersion": "1",
                "labels": {mark::ATTEMPT: attempt, mark::ACCOUNT: "main"},
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

#[tokio::test]
async fn an_idle_account_lists_at_the_resync_and_asks_nobody_else_anything() {
    let live = aged(0, SlotState::Live);
    let mut stage = stage(true, vec![live.clone()]);
    stage.owner(0);
    stage.key(&live, Some(true));
    assert!(matches!(reconcile(&stage.context, "main").await, Outcome::Wait(_)));
    let first = std::mem::take(&mut stage.world().requests);
    assert_eq!(
        first,
        ["BAGS /api/v1/agent/dev/keys", "PUT /apis/keys.bags.fm/v1alpha1/bagsaccounts/main/status"]
    );
    for _ in 0..3 {
        reconcile(&stage.context, "main").await;
    }
    assert_eq!(stage.world().requests, [""; 0]);
    stage.until(Duration::from_hours(2), |world| world.requests.len() == 6).await;
    assert!(*stage.clock.passed.lock().unwrap() >= Duration::from_mins(60));
    assert!(stage.world().requests.iter().all(|request| request == "BAGS /api/v1/agent/dev/keys"));
    assert_eq!(stage.world().events, [""; 0]);
}

#[tokio::test]
async fn two_installations_of_one_cluster_do_not_answer_each_other() {
    let live = aged(0, SlotState::Live);
    let mut stage = stage(true, vec![live.clone()]);
    stage.owner(0);
    stage.key(&live, Some(true));
    let other = Installation { cluster: CLUSTER.into(), namespace: "other".into() };
    let neighbour = Arc::new(operator(&stage.world, &stage.clock, &stage.keys, other));
    let writes = |world: &World| world.requests.iter().filter(|request| request.starts_with("PUT")).count();
    reconcile(&stage.context, "main").await;
    let before = writes(&stage.world());
    for context in [&neighbour, &stage.context, &neighbour] {
        assert!(matches!(reconcile(context, "main").await, Outcome::Wait(wait) if !wait.is_zero()));
    }
    assert_eq!(writes(&stage.world()), before);
    assert_eq!(condition(&stage.world(), "Ready").unwrap().status, "True");
    assert_eq!(stage.world().events, ["ForeignInstallation"], "said once, where it wakes nobody");
}

#[tokio::test]
async fn an_edit_of_the_rate_in_the_middle_of_a_run_forgets_nothing_that_the_run_learns() {
    let stage = stage(true, vec![]);
    let memory = |per_hour| {
        stage.world().account.spec.requests_per_hour = Some(per_hour);
        let account = stage.world().account.clone();
        stage.context.memory_of("main", &account)
    };
    let held = memory(250);
    let edited = memory(20);
    held.remember("a", |key| key.closed = true);
    held.budget.pause_until(stage.clock.wall() + Duration::from_mins(5));
    assert!(edited.key("a").closed && edited.budget.paused_until().is_some());
    assert_eq!(edited.budget.remaining(), 10);
}

/// Whether any metric speaks of the account.
fn is_measured(stage: &Stage) -> bool {
    stage.context.metrics.encode().contains("account=\"main\"")
}

#[tokio::test]
async fn an_account_that_goes_while_it_is_looked_at_leaves_no_metric() {
    let stage = stage(true, vec![]);
    for _ in 0..2 {
        reconcile(&stage.context, "main").await;
    }
    assert!(is_measured(&stage));
    // All that is left to do is to show the pause.
    let account = stage.world().account.clone();
    let pause = stage.clock.wall() + Duration::from_mins(5);
    stage.context.memory_of("main", &account).budget.pause_until(pause);
    let before = stage.world().requests.len();
    stage.world().goes = true;
    reconcile(&stage.context, "main").await;
    assert_eq!(stage.world().requests.len(), before + 1);
    assert!(!is_measured(&stage));
}

#[tokio::test]
async fn an_account_that_went_while_nobody_watched_leaves_no_metric_and_one_that_took_its_place_keeps_its_own()
 {
    let stage = stage(true, vec![]);
    let accounts = stage.world().accounts.as_reader();
    let (wake, _keys, _accounts) = Wake::new(stage.keys.as_reader(), accounts, stage.context.clone());
    let watched = |event: &watcher::Event<BagsAccount>| {
        stage.world().accounts.apply_watcher_event(event);
        wake.by_account(event);
    };
    let mut next = stage.world().account.clone();
    next.metadata.uid = Some("uid-of-the-next".to_owned());
    for event in [watcher::Event::Init, watcher::Event::InitApply(next), watcher::Event::InitDone] {
        watched(&event);
    }
    assert!(is_measured(&stage), "it is the next one's");
    for event in [watcher::Event::Init, watcher::Event::InitDone] {
        watched(&event);
    }
    assert!(!is_measured(&stage));
}

#[tokio::test]
async fn an_account_waits_for_its_own_pause_and_for_that_of_all() {
    let stage = stage(true, vec![]);
    let account = stage.world().account.clone();
    let memory = stage.context.memory_of("main", &account);
    assert_eq!(stage.context.paused_until(&memory), None);
    let after = |seconds| stage.clock.wall() + Duration::from_secs(seconds);
    stage.context.operator_budget.pause_until(after(30));
    assert_eq!(stage.context.paused_until(&memory), Some(after(30)));
    memory.budget.pause_until(after(90));
    assert_eq!(stage.context.paused_until(&memory), Some(after(90)));
}

#[tokio::test]
async fn a_condemned_key_is_revoked_and_gone_within_seconds() {
    let mut dying = aged(0, SlotState::Revoking);
    dying.since = Timestamp::from_second(1_800_000_000).unwrap();
    let mut stage = stage(true, vec![dying.clone()]);
    stage.key(&dying, Some(true));
    stage.owner(0);
    let took = stage.until(MINUTES, |world| states(world) == [SlotState::Reserved]).await;
    assert_eq!(took, Duration::from_secs(1));
    let world = stage.world();
    let asked = |path: &str| world.requests.iter().filter(|request| request.ends_with(path)).count();
    assert_eq!((asked("/auth/me"), asked("/keys/revoke")), (3, 1));
    assert!(world.secrets.is_empty() && !world.keys[0].alive);
    assert_eq!(world.events, ["KeyRevoked"]);
    assert_eq!(world.account.status.as_ref().unwrap().capabilities.revoke, Capability::Yes);
}

#[tokio::test]
async fn a_lost_key_is_revoked_and_proven_gone_by_two_lists() {
    let (lost, live) = (aged(0, SlotState::Lost), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![lost.clone(), live.clone()]);
    stage.key(&lost, None);
    stage.key(&live, Some(true));
    stage.owner(1);
    let took = stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
    assert!((Duration::from_secs(30)..Duration::from_secs(40)).contains(&took), "{took:?}");
    let world = stage.world();
    assert_eq!(world.keys.iter().map(|key| key.alive).collect::<Vec<_>>(), [false, true]);
    assert_eq!(world.account.status.as_ref().unwrap().covering_token.as_deref(), Some("bags-main@1"));
}

#[tokio::test]
async fn a_creation_that_made_a_key_unseen_is_found_by_its_name_and_revoked() {
    let made = Slot { key_id: None, ..aged(0, SlotState::Creating) };
    let mut stage = stage(true, vec![made.clone()]);
    stage.key(&Slot { key_id: Some("id-7".into()), ..made }, Some(false));
    stage.owner(0);
    stage.until(MINUTES, |world| states(world) == [SlotState::Revoking]).await;
    assert!(stage.world().secrets.is_empty());
    assert!(stage.world().events.contains(&"KeyLost".to_owned()));
    stage.until(MINUTES, |world| !world.keys[0].alive).await;
}

#[tokio::test]
async fn a_key_that_comes_after_its_attempt_left_counts_once_no_list_can_lag_any_more() {
    let (late, live) = (aged(0, SlotState::Creating), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![live.clone()]);
    stage.owner(1);
    stage.key(&live, Some(true));
    stage.world().account.status.as_mut().unwrap().departed = vec![late.attempt.clone().unwrap()];
    stage.world().changed();
    stage.key(&late, None);
    let unmanaged = |world: &World| {
        world.account.status.as_ref().and_then(|status| status.capacity.as_ref()).map(|sums| sums.unmanaged)
    };
    stage.pass(Duration::from_mins(9)).await;
    assert_eq!(unmanaged(&stage.world()), Some(0));
    stage.until(MINUTES, |world| unmanaged(world) == Some(1)).await;
}

#[tokio::test]
async fn without_a_list_an_unanswered_creation_waits_for_a_person() {
    let unanswered = aged(0, SlotState::Creating);
    let mut stage = stage(false, vec![unanswered.clone()]);
    stage.owner(0);
    stage.until(MINUTES, |world| states(world) == [SlotState::Unresolved]).await;
    let attempt = unanswered.attempt.unwrap();
    assert!(condition(&stage.world(), "KeyUnresolved").unwrap().message.contains(&attempt));
    assert_eq!(stage.world().events, ["KeyUnresolved"]);
    stage.annotate(annotation::RESOLVED, &attempt);
    stage.until(MINUTES, |world| states(world).is_empty()).await;
    assert!(condition(&stage.world(), "KeyUnresolved").is_none());
}

#[tokio::test]
async fn where_bags_cannot_revoke_a_person_is_asked_and_their_deed_noticed() {
    let (dying, live) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![dying.clone(), live.clone()]);
    stage.key(&dying, Some(true));
    stage.key(&live, Some(true));
    stage.owner(1);
    stage.world().can_revoke = false;
    stage.until(MINUTES, |world| condition(world, "RevocationNeedsPerson").is_some()).await;
    assert!(stage.world().events.contains(&"RevocationNeedsPerson".to_owned()));
    // Its own last answer is not an hour old: no list shows it any more, and none of them lacks the other key.
    stage.pass(Duration::from_mins(15)).await;
    assert_eq!(states(&stage.world()), [SlotState::Revoking, SlotState::Live]);
    stage.world().keys[0].alive = false;
    let took = stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
    assert!(took < Duration::from_mins(15), "{took:?}");
    assert!(condition(&stage.world(), "RevocationNeedsPerson").is_none());
}

#[tokio::test]
async fn a_vanished_owners_place_is_given_back_and_its_key_revoked_an_hour_after_its_namespace_went() {
    let stage = stage(true, vec![aged(0, SlotState::Reserved), aged(1, SlotState::Live)]);
    stage.key(&aged(1, SlotState::Live), Some(true));
    let took = stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
    assert_eq!(took, Duration::from_mins(2), "as this process has seen it");
    stage.pass(Duration::from_hours(5)).await;
    assert_eq!(states(&stage.world()), [SlotState::Live]);
    assert!(condition(&stage.world(), "OrphanedKeys").unwrap().message.contains("shop/app-1"));
    assert_eq!(stage.world().events, ["KeyOrphaned"]);
    stage.world().namespace = false;
    let took = stage.until(Duration::from_hours(2), |world| states(world).is_empty()).await;
    assert!(took >= Duration::from_hours(1), "{took:?}");
    assert!(!stage.world().keys[0].alive);
    assert!(condition(&stage.world(), "OrphanedKeys").is_none());
}

#[tokio::test]
async fn a_place_of_an_apikey_of_another_account_is_given_back_and_its_key_is_not() {
    let (place, live) = (aged(0, SlotState::Reserved), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![place, live.clone()]);
    stage.owner_of(0, "other");
    stage.owner_of(1, "other");
    stage.key(&live, Some(true));
    let took = stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
    assert_eq!(took, Duration::from_mins(2), "as this process has seen it");
    stage.pass(Duration::from_hours(2)).await;
    assert_eq!(states(&stage.world()), [SlotState::Live]);
    assert!(condition(&stage.world(), "OrphanedKeys").is_none());
}

#[tokio::test]
async fn a_vanished_owners_key_is_revoked_on_a_persons_word() {
    let live = aged(0, SlotState::Live);
    let stage = stage(true, vec![live.clone()]);
    stage.key(&live, Some(true));
    stage.until(MINUTES, |world| condition(world, "OrphanedKeys").is_some()).await;
    let asked = |world: &World| world.requests.iter().filter(|of| of.contains("/apikeys/")).count();
    stage.pass(Duration::from_hours(1)).await;
    assert_eq!(asked(&stage.world()), 0, "who waits for a person asks for no owner");
    stage.annotate(annotation::REVOKE, &live.attempt.unwrap());
    let took = stage.until(MINUTES, |world| states(world).is_empty()).await;
    assert!(took < Duration::from_mins(1), "{took:?}");
    assert!(!stage.world().keys[0].alive);
    assert!(stage.world().requests.contains(&"BAGS /api/v1/agent/dev/keys/revoke".to_owned()));
}

#[tokio::test]
async fn a_key_that_bags_does_not_find_does_not_take_the_revocation_from_the_others() {
    let (first, second) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let stage = stage(true, vec![first.clone(), second.clone()]);
    stage.key(&first, Some(true));
    stage.key(&second, Some(true));
    stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
    stage.world().can_revoke = false;
    stage.annotate(annotation::REVOKE, &second.attempt.unwrap());
    stage.until(MINUTES, |world| condition(world, "RevocationNeedsPerson").is_some()).await;
    assert_eq!(condition(&stage.world(), "RevocationNeedsPerson").unwrap().reason, "RevocationRefused");
    let capabilities = stage.world().account.status.as_ref().map(|status| status.capabilities.clone());
    assert_eq!(capabilities.unwrap().revoke, Capability::Yes);
}

#[tokio::test]
async fn lists_that_nobody_answers_for_are_missing_and_looked_for_again_at_the_resync() {
    let live = aged(0, SlotState::Live);
    let mut stage = stage(true, vec![live.clone()]);
    stage.owner(0);
    stage.key(&live, Some(true));
    stage.world().no_list = true;
    let listed = |world: &World| world.account.status.as_ref().map(|status| status.capabilities.list);
    let lists = |world: &World| world.requests.iter().filter(|it| it.ends_with("/dev/keys")).count();
    stage.until(MINUTES, |world| listed(world) == Some(Capability::No)).await;
    assert_eq!(lists(&stage.world()), 2, "one such answer may be another's");
    stage.world().no_list = false;
    stage.until(MINUTES, |world| listed(world) == Some(Capability::Yes)).await;
}

#[tokio::test]
async fn an_id_that_gives_the_value_away_is_not_taken_from_a_list() {
    let live = aged(0, SlotState::Live);
    let mut stage = stage(true, vec![live.clone()]);
    stage.owner(0);
    stage.key(&live, Some(true));
    let list_as = |stage: &Stage, id: &str| {
        let mut world = stage.world();
        world.keys[0].id = id.to_owned();
        world.account.status.as_mut().unwrap().slots[0].key_id = None;
        world.changed();
    };
    let known = |world: &World| world.account.status.as_ref().unwrap().slots[0].key_id.clone();
    list_as(&stage, "value-of");
    stage.pass(Duration::from_mins(30)).await;
    assert_eq!(known(&stage.world()), None);
    list_as(&stage, "id-1");
    stage.until(MINUTES, |world| known(world) == Some("id-1".into())).await;
}

#[tokio::test]
async fn a_person_is_told_where_no_other_key_can_show_that_a_revoked_one_is_dead() {
    let (dying, live) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![dying.clone(), live.clone()]);
    stage.key(&dying, Some(true));
    stage.key(&live, Some(true));
    stage.owner(1);
    stage.world().keys.iter_mut().for_each(|key| key.alive = false);
    stage.until(MINUTES, |world| condition(world, "RevocationNeedsPerson").is_some()).await;
    let asked = condition(&stage.world(), "RevocationNeedsPerson").cloned().unwrap();
    assert_eq!(asked.reason, "NoKeyAccepted", "{}", asked.message);
    assert!(asked.message.contains("no other key of the account"), "{}", asked.message);
    stage.world().keys[1].alive = true;
    stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
}

#[tokio::test]
async fn a_creation_is_judged_also_when_the_wall_clock_was_set_back() {
    let made = Slot { since: Timestamp::from_second(1_800_000_000).unwrap(), ..aged(0, SlotState::Creating) };
    let live = aged(1, SlotState::Live);
    let mut stage = stage(true, vec![made.clone(), live.clone()]);
    stage.key(&made, Some(false));
    stage.key(&live, Some(true));
    stage.owner(0);
    stage.owner(1);
    stage.world().keys.remove(0);
    stage.pass(Duration::from_secs(10)).await;
    *stage.clock.back.lock().unwrap() = Duration::from_hours(5);
    let took = stage.until(MINUTES, |world| states(world)[0] == SlotState::Reserved).await;
    assert!(took < Duration::from_mins(20), "{took:?}");
}

#[tokio::test]
async fn a_revoke_endpoint_is_tried_again_once_its_path_is_corrected() {
    let (dying, live) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![dying.clone(), live.clone()]);
    stage.key(&dying, Some(true));
    stage.key(&live, Some(true));
    stage.owner(1);
    let path = |stage: &Stage, path: &str| {
        let mut world = stage.world();
        world.account.spec.revocation = serde_json::from_value(json!({"path": path})).unwrap();
        world.changed();
    };
    path(&stage, "/wrong");
    stage.until(MINUTES, |world| condition(world, "RevocationNeedsPerson").is_some()).await;
    path(&stage, "/agent/dev/keys/revoke");
    let took = stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
    assert!(took < Duration::from_mins(1), "{took:?}");
}

#[tokio::test]
async fn a_deleted_account_goes_when_its_last_slot_is_gone() {
    let dying = aged(0, SlotState::Revoking);
    let stage = stage(true, vec![dying.clone()]);
    stage.key(&dying, Some(true));
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH);
    stage.world().account.metadata.deletion_timestamp = Some(now);
    stage.world().changed();
    stage.until(MINUTES, |world| world.account.finalizers().is_empty()).await;
    assert!(states(&stage.world()).is_empty());
}

#[tokio::test]
async fn a_revocation_without_effect_is_told_and_sent_again_until_it_works() {
    let dying = aged(0, SlotState::Revoking);
    let stage = stage(true, vec![dying.clone()]);
    stage.key(&dying, Some(true));
    stage.world().deaf = true;
    let sent = |world: &World| world.requests.iter().filter(|request| request.ends_with("/revoke")).count();
    let took = stage.until(MINUTES, |world| sent(world) == 6).await;
    assert!(took >= Duration::from_secs(1 + 2 + 4 + 8 + 16), "{took:?}");
    assert_eq!(states(&stage.world()), [SlotState::Revoking]);
    assert!(stage.world().events.contains(&"RevocationHasNoEffect".to_owned()));
    stage.world().deaf = false;
    stage.until(MINUTES, |world| states(world).is_empty()).await;
}

#[tokio::test]
async fn a_revocation_that_waits_for_the_operator_s_own_budget_calls_for_nobody() {
    let (dying, live) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![dying.clone(), live.clone()]);
    stage.owner(1);
    stage.key(&dying, Some(true));
    stage.key(&live, Some(true));
    for _ in 0..100 {
        while stage.context.operator_budget.try_take(bags::Priority::Revocation).is_ok() {}
        reconcile(&stage.context, "main").await;
        assert!(condition(&stage.world(), "RevocationNeedsPerson").is_none_or(|told| told.status != "True"));
        *stage.clock.passed.lock().unwrap() += Duration::from_secs(30);
    }
    assert!(!stage.world().requests.iter().any(|request| request.starts_with("BAGS")));
    stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
}

#[tokio::test]
async fn a_revocation_that_is_refused_is_a_persons_and_tried_again_a_day_later() {
    let (dying, live) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![dying.clone(), live.clone()]);
    stage.owner(1);
    stage.key(&dying, Some(true));
    stage.key(&live, Some(true));
    stage.world().forbids = true;
    stage.pass(Duration::from_hours(3)).await;
    let sent = |world: &World| world.requests.iter().filter(|request| request.ends_with("/revoke")).count();
    assert_eq!(sent(&stage.world()), 1);
    let told = condition(&stage.world(), "RevocationNeedsPerson").unwrap().clone();
    assert_eq!(told.reason, "RevocationRefused");
    assert!(told.message.contains("not with this token") && told.message.contains("24h"), "{}", told.message);
    stage.world().forbids = false;
    let took = stage.until(Duration::from_hours(25), |world| states(world) == [SlotState::Live]).await;
    assert!(took > Duration::from_hours(20), "{took:?}");
}

#[tokio::test]
async fn a_refused_token_is_told_and_forgotten_when_its_secret_changes() {
    let live = aged(0, SlotState::Live);
    let mut stage = stage(true, vec![live.clone()]);
    stage.owner(0);
    stage.key(&live, Some(true));
    stage.world().refuses_token = true;
    reconcile(&stage.context, "main").await;
    let refused = condition(&stage.world(), "CredentialsValid").unwrap().clone();
    assert_eq!((refused.status.as_str(), refused.reason.as_str()), ("False", "TokenRefused"));
    assert_eq!(stage.world().events, ["CredentialsRefused"]);
    let requests = stage.world().requests.len();
    reconcile(&stage.context, "main").await;
    assert_eq!(stage.world().requests.len(), requests, "a refused token is not tried again at once");
    let token = json!({
        "metadata": {"name": "bags-main", "namespace": "bags", "resourceVersion": "2"},
        "data": {"token": k8s_openapi::ByteString(b"another-for-tests".to_vec())},
    });
    let token = watcher::Event::Apply(serde_json::from_value(token).unwrap());
    stage.world().stored.apply_watcher_event(&token);
    reconcile(&stage.context, "main").await;
    assert_eq!(condition(&stage.world(), "CredentialsValid").unwrap().status, "True");
    assert_eq!(condition(&stage.world(), "Ready").unwrap().status, "True");
    assert_eq!(stage.world().events, ["CredentialsRefused", "CredentialsAccepted", "ListCovers"]);
}

#[tokio::test]
async fn while_bags_is_down_an_account_asks_ever_more_rarely_and_says_so() {
    let (dying, live) = (aged(0, SlotState::Revoking), aged(1, SlotState::Live));
    let mut stage = stage(true, vec![dying.clone(), live.clone()]);
    stage.owner(1);
    stage.key(&dying, Some(true));
    stage.key(&live, Some(true));
    stage.world().down = true;
    let hour = Duration::from_hours(1);
    while *stage.clock.passed.lock().unwrap() < hour {
        let Outcome::Wait(wait) = reconcile(&stage.context, "main").await else { panic!("gone") };
        *stage.clock.passed.lock().unwrap() += wait;
    }
    let sent = stage.world().requests.iter().filter(|request| request.starts_with("BAGS")).count();
    assert!((40..100).contains(&sent), "{sent}: in the end everything every five minutes");
    assert_eq!(condition(&stage.world(), "RevocationNeedsPerson").unwrap().reason, "RevocationFails");
    let listed = condition(&stage.world(), "ListCovers").unwrap().clone();
    assert_eq!((listed.status.as_str(), listed.reason.as_str()), ("False", "ServerError"));
    stage.world().down = false;
    stage.until(MINUTES, |world| states(world) == [SlotState::Live]).await;
}
