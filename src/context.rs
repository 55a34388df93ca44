//! What every reconciler is given: the ways out of the process, the caches of the watches, and what this process
//! remembers.

use std::sync::Arc;

use jiff::Timestamp;
use kube::{ResourceExt, runtime::reflector::Store};
use tokio::sync::watch;

use crate::{
    account::{
        credentials::{self, CredentialProblem, CredentialSet},
        memory::{AccountMemory, Memory},
    },
    api::{ApiKey, BagsAccount, account::Installation},
    apikey::{refusals::Refusals, written::Written},
    backoff::Backoff,
    bags::{BagsClient, BaseUrl, Budget},
    env::Env,
    events::Events,
    keystore::Keystore,
    ledger::LedgerStore,
    metrics::Metrics,
    timings::Timings,
    webhook::registration::Registration,
    workload::{Marks, OwnerCache, PodLists},
};

/// What does not change while the process runs.
#[derive(Clone)]
pub struct Settings {
    /// This installation: cluster and namespace.
    pub installation: Installation,
    /// The service's base URL.
    pub bags_url: BaseUrl,
    /// The base URL written into consumer Secrets.
    pub consumer_bags_url: String,
    /// How long one request to Bags may take.
    pub request_deadline: std::time::Duration,
    /// Durations of the workflows.
    pub timings: Timings,
}

/// What every reconciler is given.
pub struct Context {
    /// Every way out of the process.
    pub env: Env,
    /// What does not change.
    pub settings: Settings,
    /// Cache of the watch on ApiKeys.
    pub keys: Store<ApiKey>,
    /// ApiKeys as this process last wrote or read them, until the watch has caught up.
    pub written: Written,
    /// What the API server last refused of further keys.
    pub refusals: Refusals,
    /// The ledgers, with the cache of the watch on BagsAccounts.
    pub ledger: LedgerStore,
    /// The keystore, with the cache of the watch on Secrets of the operator's namespace.
    pub keystore: Keystore,
    /// What this process remembers of accounts.
    pub memory: Memory,
    /// Requests to Bags that all accounts together may spend.
    pub operator_budget: Arc<Budget>,
    /// Pods, as they were last listed.
    pub pods: PodLists,
    /// Who owns ReplicaSets.
    pub owners: OwnerCache,
    /// Workloads that this process restarted.
    pub marks: Marks,
    /// Where requests, keys and failures are counted.
    pub metrics: Metrics,
    /// Where events are written.
    pub events: Events,
    /// How long an object waits before it is reconciled again.
    pub backoff: Backoff,
    /// Whether the API server sends new ApiKeys to the admission webhook.
    pub registration: watch::Receiver<Registration>,
}

impl Context {
    /// What this process remembers of an account.
    #[must_use]
    pub fn memory_of(&self, name: &str, account: &BagsAccount) -> Arc<AccountMemory> {
        let per_hour = u32::try_from(account.requests_per_hour()).unwrap_or(1).max(1);
        let paused_until = account.status.as_ref().and_then(|status| status.paused_until);
        self.memory.of(name, per_hour, paused_until, &self.env.clock)
    }

    /// A client that spends an account's budget.
    #[must_use]
    pub fn client(&self, memory: &AccountMemory) -> BagsClient {
        let Settings { bags_url, request_deadline, .. } = &self.settings;
        BagsClient::new(self.env.bags.clone(), bags_url.clone(), *request_deadline, self.env.clock.clone())
            .with_budgets(memory.budget.clone(), self.operator_budget.clone())
            .with_observer(Arc::new(self.metrics.clone()))
    }

    /// Forgets an account that is gone.
    pub fn forget_account(&self, name: &str) {
        self.metrics.account_gone(name);
        self.memory.forget(name);
    }

    /// Forgets an ApiKey that is gone.
    pub fn forget_key(&self, uid: &str) {
        self.written.forget(uid);
        self.refusals.forget(uid);
        self.backoff.forget(uid);
        self.metrics.apikey_gone(uid);
    }

    /// Until when an account waits for a rate limit: its own, or the one of all accounts together.
    #[must_use]
    pub fn paused_until(&self, memory: &AccountMemory) -> Option<Timestamp> {
        memory.budget.paused_until().max(self.operator_budget.paused_until())
    }

    /// The part of an account's credentials that lists and revocations need: all of them, or the token alone if the wallet
    /// cannot be read.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn token_of(&self, account: &BagsAccount) -> Result<CredentialSet, CredentialProblem> {
        let namespace = &self.settings.installation.namespace;
        let token = |problem| credentials::read_token(account, &self.keystore, namespace).ok_or(problem);
        self.credentials(account).or_else(token)
    }

    /// An account's credentials.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn credentials(&self, account: &BagsAccount) -> Result<CredentialSet, CredentialProblem> {
        let memory = self.memory_of(&account.name_any(), account);
        credentials::read(account, &self.keystore, &self.settings.installation.namespace, &memory.wallet)
    }
}
