//! The parts of the operator, apart from sockets, signals and the controllers. Tests that call the reconcilers directly are
//! built from the same parts.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::runtime::{
    Predicate, predicates,
    reflector::{self, Store, store::Writer},
};
use tokio::sync::watch;

use crate::{
    account::memory::Memory,
    api::{ApiKey, BagsAccount, account::Installation},
    apikey::{refusals::Refusals, written::Written},
    backoff::Backoff,
    bags::Budget,
    config::Config,
    context::{Context, Settings},
    env::Env,
    events::Events,
    keystore::Keystore,
    ledger::LedgerStore,
    metrics::Metrics,
    webhook::registration::Registration,
    workload::{Marks, OwnerCache, PodLists},
};

/// The caches, and the writers that fill them.
pub struct Watches {
    /// ApiKeys of all namespaces.
    pub keys: (Store<ApiKey>, Writer<ApiKey>),
    /// BagsAccounts.
    pub accounts: (Store<BagsAccount>, Writer<BagsAccount>),
    /// Secrets of the operator's namespace: keystore and credentials.
    pub secrets: (Store<Secret>, Writer<Secret>),
}

impl Watches {
    /// Empty ones.
    #[must_use]
    pub fn new() -> Self {
        Self { keys: reflector::store(), accounts: reflector::store(), secrets: reflector::store() }
    }
}

impl Default for Watches {
    fn default() -> Self {
        Self::new()
    }
}

/// What reconcilers are given.
#[must_use]
pub fn context(
    config: &Config,
    env: Env,
    installation: Installation,
    watches: &Watches,
    registration: watch::Receiver<Registration>,
) -> Context {
    let timings = config.timings.clone();
    let (kube, clock) = (env.kube.clone(), env.clock.clone());
    Context {
        keys: watches.keys.0.clone(),
        written: Written::default(),
        ledger: LedgerStore::new(
            kube.clone(),
            clock.clone(),
            timings.clone(),
            installation.clone(),
            watches.accounts.0.clone(),
        ),
        keystore: Keystore::new(kube.clone(), &installation.namespace, watches.secrets.0.clone()),
        memory: Memory::default(),
        operator_budget: Arc::new(Budget::per_hour(config.requests_per_hour, clock.clone())),
        pods: PodLists::default(),
        owners: OwnerCache::default(),
        marks: Marks::default(),
        refusals: Refusals::default(),
        metrics: Metrics::new(),
        events: Events::new(kube, clock, config.instance.clone()),
        backoff: Backoff::new(env.randomness.clone(), timings.resync),
        settings: Settings {
            installation,
            bags_url: config.bags_url.clone(),
            consumer_bags_url: config.consumer_bags_url.clone(),
            request_deadline: config.request_deadline,
            timings,
        },
        registration,
        env,
    }
}

/// Which changes of an ApiKey trigger its reconcile: not those of its status, which the operator itself writes.
#[must_use]
pub fn key_triggers() -> impl Predicate<ApiKey> + 'static {
    predicates::generation.combine(predicates::finalizers).combine(predicates::annotations)
}
