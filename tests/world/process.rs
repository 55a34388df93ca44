//! One process of the operator: its context, its caches, its tasks. A crash takes all of it; a frozen one stands still.

mod tasks;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use axum::Router;
use bags_operator::{
    account,
    api::{ApiKey, BagsAccount, account::Installation},
    apikey,
    clock::{Clock, Randomness},
    config::Config,
    context::Context,
    env::Env,
    operator::{
        parts::{self, Watches},
        wake::Wake,
    },
    outcome::Outcome,
    saves::Saves,
    webhook::{self, registration::Registration},
};
use futures::{FutureExt, channel::mpsc::UnboundedReceiver, future::BoxFuture};
use http_body_util::{BodyExt, Collected};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    ResourceExt,
    runtime::{
        Predicate,
        reflector::{ObjectRef, Store, store::Writer},
        watcher::Event,
    },
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use self::tasks::Tasks;
pub(crate) use self::tasks::{Panics, words_of};
use super::{
    apiserver::{ApiServer, Change, ChangeKind},
    creation::Verdict,
    gate::{Gate, Sent},
};

/// The operator's own namespace.
pub(crate) const OPERATOR_NAMESPACE: &str = "bags-system";

/// What a controller runs a reconciler for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    Account(String),
    Key { namespace: String, name: String },
}

/// A run that ended, and what it left behind.
type Finished = (Object, Outcome);

/// What a controller knows of one object.
#[derive(Default)]
struct Scheduled {
    /// When to run it next.
    due: Option<Instant>,
    running: bool,
}

/// The cache of one watch, and the end that fills it.
struct Cache<K: kube::Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    writer: Writer<K>,
}

/// How far the watches of a process lag behind the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Not at all.
    Clear,
    /// They show nothing more until this version is there, or this time.
    Stale { version: u64, until: Instant },
    /// They show nothing until then, and begin anew with a list.
    Blind { until: Instant },
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It reconciles, and answers reviews.
    Leader,
    /// It answers reviews.
    Follower,
}

/// One process.
pub(crate) struct Process {
    pub(crate) incarnation: u32,
    pub(crate) role: Role,
    pub(crate) sight: Sight,
    context: Arc<Context>,
    webhook: OnceLock<Router>,
    wake: Wake,
    woken_keys: UnboundedReceiver<ObjectRef<ApiKey>>,
    woken_accounts: UnboundedReceiver<ObjectRef<BagsAccount>>,
    keys: Cache<ApiKey>,
    accounts: Cache<BagsAccount>,
    secrets: Cache<Secret>,
    triggers: Box<dyn Predicate<ApiKey> + Send>,
    /// What the triggers last saw of each ApiKey, by uid.
    triggered: BTreeMap<String, Option<u64>>,
    /// The version up to which the caches have seen.
    position: u64,
    schedule: BTreeMap<Object, Scheduled>,
    tasks: Tasks,
    finished: (mpsc::UnboundedSender<Finished>, mpsc::UnboundedReceiver<Finished>),
    /// No further run begins: another process has taken over.
    pub(crate) retired: bool,
}

/// What every process of a run is started with.
pub(crate) struct Machine<'a> {
    pub(crate) config: &'a Config,
    pub(crate) gate: &'a Gate,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) seed: u64,
    pub(crate) cluster: &'a str,
    pub(crate) panics: &'a Panics,
}

impl Process {
    /// Starts a process; its caches are filled by [`Process::relist`].
    pub(crate) fn start(machine: &Machine<'_>, incarnation: u32, role: Role) -> Self {
        let Machine { config, gate, clock, seed, cluster, panics } = machine;
        let tasks = Tasks::new(panics);
        let env = Env {
            kube: gate.kube(incarnation),
            bags: gate.bags(incarnation),
            clock: clock.clone(),
            randomness: Randomness::from_seed(seed.wrapping_mul(1000).wrapping_add(u64::from(incarnation))),
            saves: saves(&tasks),
        };
        let watches = Watches::new();
        let installation =
            Installation { cluster: (*cluster).to_owned(), namespace: OPERATOR_NAMESPACE.to_owned() };
        let registration = watch::channel(Registration::Unwatched).1;
        let context = Arc::new(parts::context(config, env, installation, &watches, registration));
        let Watches { keys, accounts, secrets } = watches;
        let (wake, woken_keys, woken_accounts) =
            Wake::new(keys.0.clone(), accounts.0.clone(), secrets.0.clone(), context.clone());
        Self {
            incarnation,
            role,
            sight: Sight::Clear,
            context,
            webhook: OnceLock::new(),
            wake,
            woken_keys,
            woken_accounts,
            keys: Cache { store: keys.0, writer: keys.1 },
            accounts: Cache { store: accounts.0, writer: accounts.1 },
            secrets: Cache { store: secrets.0, writer: secrets.1 },
            triggers: Box::new(parts::key_triggers()),
            triggered: BTreeMap::new(),
            position: 0,
            schedule: BTreeMap::new(),
            tasks,
            finished: mpsc::unbounded_channel(),
            retired: false,
        }
    }

    /// Fills the caches from a list, as a watch does when it begins.
    pub(crate) fn relist(&mut self, api: &ApiServer, now: Instant) {
        // The first list is waited for. Of a later one controllers are told page by page, and look at once: at what the caches showed
        // before, as those show a new list when it has ended. Who is told of it then is the operator's own to say.
        let first = std::mem::replace(&mut self.position, api.version()) == 0;
        let ours = |secret: &Secret| secret.namespace().as_deref() == Some(OPERATOR_NAMESPACE);
        for event in listed::<Secret>(api, "secrets", ours) {
            self.secrets.writer.apply_watcher_event(&event);
            self.wake.by_secret(&event);
        }
        for event in listed::<BagsAccount>(api, "bagsaccounts", |_| true) {
            self.accounts.writer.apply_watcher_event(&event);
            self.wake.by_account(&event);
            if let Event::InitApply(account) = &event
                && first
            {
                self.trigger(Object::Account(account.name_any()), now);
            }
        }
        for event in listed::<ApiKey>(api, "apikeys", |_| true) {
            self.keys.writer.apply_watcher_event(&event);
            self.wake.by_key(&event);
            match &event {
                Event::InitApply(key) if first => self.trigger_key(key, now),
                Event::InitApply(key) => {
                    let hash = self.triggers.hash_property(key);
                    self.triggered.insert(key.uid().unwrap_or_default(), hash);
                }
                Event::Init | Event::InitDone | Event::Apply(_) | Event::Delete(_) => {}
            }
        }
        self.take_woken(now);
    }

    /// Shows the caches what happened since, as far as the watches see; tells what that wakes.
    pub(crate) fn watch(&mut self, api: &ApiServer, now: Instant) {
        match self.sight {
            Sight::Clear => {}
            Sight::Stale { version, until } if api.version() < version && now < until => return,
            Sight::Stale { .. } => self.sight = Sight::Clear,
            Sight::Blind { until } if now < until => return,
            Sight::Blind { .. } => {
                self.sight = Sight::Clear;
                return self.relist(api, now);
            }
        }
        for change in api.changes_since(self.position) {
            self.position = change.version;
            self.see(&change, now);
        }
        self.take_woken(now);
    }

    fn see(&mut self, change: &Change, now: Instant) {
        match change.resource {
            "apikeys" => {
                let event = event::<ApiKey>(change);
                self.keys.writer.apply_watcher_event(&event);
                self.wake.by_key(&event);
                match &event {
                    Event::Apply(key) => self.trigger_key(key, now),
                    Event::Delete(key) => drop(self.triggered.remove(&key.uid().unwrap_or_default())),
                    Event::Init | Event::InitApply(_) | Event::InitDone => {}
                }
            }
            "bagsaccounts" => {
                let event = event::<BagsAccount>(change);
                self.accounts.writer.apply_watcher_event(&event);
                self.wake.by_account(&event);
                if let Event::Apply(account) = &event {
                    self.trigger(Object::Account(account.name_any()), now);
                }
            }
            "secrets" if change.object.pointer("/metadata/namespace") == Some(&OPERATOR_NAMESPACE.into()) => {
                let event = event::<Secret>(change);
                self.secrets.writer.apply_watcher_event(&event);
                self.wake.by_secret(&event);
            }
            _ => {}
        }
    }

    /// An ApiKey runs when something that counts has changed, as the controller's predicate says.
    fn trigger_key(&mut self, key: &ApiKey, now: Instant) {
        let hash = self.triggers.hash_property(key);
        let before = self.triggered.insert(key.uid().unwrap_or_default(), hash);
        if before != Some(hash) {
            let (namespace, name) = (key.namespace().unwrap_or_default(), key.name_any());
            self.trigger(Object::Key { namespace, name }, now);
        }
    }

    fn trigger(&mut self, object: Object, now: Instant) {
        let scheduled = self.schedule.entry(object).or_default();
        scheduled.due = Some(scheduled.due.map_or(now, |due| due.min(now)));
    }

    fn take_woken(&mut self, now: Instant) {
        while let Some(Some(key)) = self.woken_keys.recv().now_or_never().map(Result::ok) {
            let namespace = key.namespace.clone().unwrap_or_default();
            self.trigger(Object::Key { namespace, name: key.name }, now);
        }
        while let Some(Some(account)) = self.woken_accounts.recv().now_or_never().map(Result::ok) {
            self.trigger(Object::Account(account.name), now);
        }
    }

    /// Takes note of runs that ended.
    pub(crate) fn collect(&mut self, now: Instant) {
        while let Ok((object, outcome)) = self.finished.1.try_recv() {
            let scheduled = self.schedule.entry(object).or_default();
            scheduled.running = false;
            if let Outcome::Wait(wait) = outcome {
                let due = now + wait;
                scheduled.due = Some(scheduled.due.map_or(due, |known| known.min(due)));
            }
        }
    }

    /// Objects that are due, in order.
    pub(crate) fn ready(&self, now: Instant) -> Vec<Object> {
        if self.retired || self.frozen() || self.role == Role::Follower {
            return Vec::new();
        }
        let due = |scheduled: &Scheduled| !scheduled.running && scheduled.due.is_some_and(|due| due <= now);
        self.schedule
            .iter()
            .filter(|(_, scheduled)| due(scheduled))
            .map(|(object, _)| object.clone())
            .collect()
    }

    /// When the next object is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        if self.retired || self.frozen() {
            return None;
        }
        let runs = self.role == Role::Leader;
        let blind = match self.sight {
            Sight::Blind { until } | Sight::Stale { until, .. } => Some(until),
            Sight::Clear => None,
        };
        let idle = self.schedule.values().filter(|scheduled| runs && !scheduled.running);
        idle.filter_map(|scheduled| scheduled.due).chain(blind).min()
    }

    /// Begins a run of a reconciler. An object that the cache does not know is not looked at, as by a controller.
    pub(crate) fn begin(&mut self, object: &Object) {
        let Some(scheduled) = self.schedule.get_mut(object) else { return };
        scheduled.due = None;
        let context = self.context.clone();
        let run: BoxFuture<'static, Outcome> = match object.clone() {
            Object::Key { namespace, name } => {
                let reference = ObjectRef::new(&name).within(&namespace);
                if self.keys.store.get(&reference).is_none() {
                    return;
                }
                Box::pin(async move { apikey::reconcile(&context, &reference).await })
            }
            Object::Account(name) => {
                if self.accounts.store.get(&ObjectRef::new(&name)).is_none() {
                    return;
                }
                Box::pin(async move { account::reconcile(&context, &name).await })
            }
        };
        scheduled.running = true;
        let (finished, object) = (self.finished.0.clone(), object.clone());
        let task = async move {
            let outcome = run.await;
            let _ = finished.send((object, outcome));
        };
        self.tasks.launch(Box::pin(task));
    }

    /// Puts an AdmissionReview before its webhook; the answer parks at the gate.
    pub(crate) fn review(&self, gate: &Gate, name: String, review: Vec<u8>) -> AbortHandle {
        let router = self.webhook.get_or_init(|| webhook::router(&self.context, CancellationToken::new()));
        let (router, gate, incarnation) = (router.clone(), gate.clone(), self.incarnation);
        let task = async move {
            let request = http::Request::post("/admit").body(axum::body::Body::from(review));
            let request = request.unwrap_or_else(|error| panic!("no request: {error}"));
            let Ok(response) = router.oneshot(request).await;
            let answer = response.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
            gate.park(incarnation, Sent::Review(Verdict::read(&name, &answer)));
        };
        self.tasks.launch(Box::pin(task))
    }

    /// Whether a run or a save has not ended.
    pub(crate) fn busy(&self) -> bool {
        self.tasks.busy()
    }

    /// It stands still.
    pub(crate) fn freeze(&self) {
        self.tasks.freeze();
    }

    /// It goes on.
    pub(crate) fn thaw(&self) {
        self.tasks.thaw();
    }

    pub(crate) fn frozen(&self) -> bool {
        self.tasks.frozen()
    }

    /// Waits until a run ends.
    pub(crate) async fn run_end(&mut self) {
        if let Some((object, outcome)) = self.finished.1.recv().await {
            // Put back for `collect`, which does the rest.
            let _ = self.finished.0.send((object, outcome));
        }
    }
}

impl Drop for Process {
    /// A crash: everything in memory goes, saves included.
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

fn saves(tasks: &Tasks) -> Saves {
    let tasks = tasks.clone();
    Saves::spawned_by(Arc::new(move |save| drop(tasks.launch(save))))
}

fn listed<K: DeserializeOwned>(api: &ApiServer, resource: &str, keep: impl Fn(&K) -> bool) -> Vec<Event<K>> {
    let objects =
        api.list(resource).into_iter().map(|object| parse::<K>(&object)).filter(|object| keep(object));
    std::iter::once(Event::Init)
        .chain(objects.map(Event::InitApply))
        .chain(std::iter::once(Event::InitDone))
        .collect()
}

fn event<K: DeserializeOwned>(change: &Change) -> Event<K> {
    match change.kind {
        ChangeKind::Added | ChangeKind::Modified => Event::Apply(parse(&change.object)),
        ChangeKind::Deleted => Event::Delete(parse(&change.object)),
    }
}

fn parse<K: DeserializeOwned>(object: &Value) -> K {
    K::deserialize(object)
        .unwrap_or_else(|error| panic!("the API server holds what nobody can read: {error}"))
}
