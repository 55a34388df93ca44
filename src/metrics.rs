//! What Prometheus reads. Label sets are closed: kinds, outcomes, reasons as constants, and the names of accounts,
//! which are few and the platform team's own. Never the name of a key, an ApiKey or a namespace.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
        info::Info,
    },
    registry::Registry,
};

use crate::{
    api::account::{Capacity, Slot, SlotState},
    backoff::FailureClass,
    bags::{Observer, Operation, Outcome, Reason},
};

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A kind of object that is reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Kind {
    /// ApiKey.
    ApiKey,
    /// BagsAccount.
    BagsAccount,
}

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ReconcileOutcome {
    /// Nothing is left to do.
    Done,
    /// Something is awaited; nothing failed.
    Waiting,
    /// Failed; see the failures.
    Failed,
}

/// A step in a key's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum KeyStep {
    /// Made at Bags, value saved.
    Made,
    /// Accepted by Bags.
    Verified,
    /// Put into its Secret.
    Published,
    /// Revoked and proven dead.
    Revoked,
    /// Made, and the value lost.
    Lost,
    /// Not known whether it was made.
    Unresolved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Class {
    Transient,
    Terminal,
    RateLimited,
}

impl From<FailureClass> for Class {
    fn from(class: FailureClass) -> Self {
        match class {
            FailureClass::Transient => Self::Transient,
            FailureClass::Terminal => Self::Terminal,
            FailureClass::RateLimited(_) => Self::RateLimited,
        }
    }
}

/// What became of an admission review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewOutcome {
    /// Admitted.
    Admitted,
    /// Refused, for one of a closed set of reasons.
    Denied(&'static str),
    /// Not about a new ApiKey: admitted unseen.
    NotJudged,
    /// Not to be read.
    Unreadable,
    /// Not looked at, as too many came at once.
    Overloaded,
}

impl ReviewOutcome {
    fn label(self) -> &'static str {
        match self {
            Self::Admitted => "Admitted",
            Self::Denied(reason) => reason,
            Self::NotJudged => "NotJudged",
            Self::Unreadable => "Unreadable",
            Self::Overloaded => "Overloaded",
        }
    }
}

macro_rules! labels {
    ($($name:ident { $($label:ident: $type:ty),+ })+) => {
        $(#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($label: $type),+ })+
    };
}

labels! {
    ByKind { kind: Kind }
    ByOutcome { kind: Kind, outcome: ReconcileOutcome }
    ByFailure { kind: Kind, class: Class, reason: &'static str }
    ByReason { kind: Kind, reason: &'static str }
    ByOperation { operation: &'static str }
    ByRequest { operation: &'static str, outcome: &'static str }
    ByAccount { account: String }
    BySlotState { account: String, state: &'static str }
    ByStep { step: KeyStep }
    ByReview { outcome: &'static str }
}

/// Bounds of the buckets of every histogram, in seconds.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Makes the histograms of a family.
#[derive(Clone, Copy, Debug)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
}

type Histograms<Labels> = Family<Labels, Histogram, Seconds>;

/// Labels of the states of a slot.
const SLOT_STATES: [&str; 8] =
    ["Reserved", "Creating", "Live", "Lost", "Unresolved", "Revoking", "Released", "Unknown"];

/// Every metric of the process. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    reconciles: Family<ByOutcome, Counter>,
    reconcile_seconds: Histograms<ByKind>,
    failures: Family<ByFailure, Counter>,
    not_ready: Family<ByReason, Gauge>,
    problems: Arc<Mutex<HashMap<(Kind, String), &'static str>>>,
    bags_requests: Family<ByRequest, Counter>,
    bags_seconds: Histograms<ByOperation>,
    keys: Family<ByStep, Counter>,
    save_retries: Counter,
    leader: Gauge,
    drained: Gauge,
    slots: Family<BySlotState, Gauge>,
    limit: Family<ByAccount, Gauge>,
    used: Family<ByAccount, Gauge>,
    reserved: Family<ByAccount, Gauge>,
    unmanaged: Family<ByAccount, Gauge>,
    available: Family<ByAccount, Gauge>,
    budget: Family<ByAccount, Gauge>,
    reviews: Family<ByReview, Counter>,
    review_seconds: Histogram,
    webhook_certificate: Gauge,
    webhook_registered: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All of them, registered.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(Seconds),
            failures: Family::default(),
            not_ready: Family::default(),
            problems: Arc::default(),
            bags_requests: Family::default(),
            bags_seconds: Family::new_with_constructor(Seconds),
            keys: Family::default(),
            save_retries: Counter::default(),
            leader: Gauge::default(),
            drained: Gauge::default(),
            slots: Family::default(),
            limit: Family::default(),
            used: Family::default(),
            reserved: Family::default(),
            unmanaged: Family::default(),
            available: Family::default(),
            budget: Family::default(),
            reviews: Family::default(),
            review_seconds: Histogram::new(SECONDS),
            webhook_certificate: Gauge::default(),
            webhook_registered: Gauge::default(),
        };
        metrics.registry = Arc::new(metrics.register());
        metrics.start_requests_at_zero();
        metrics
    }

    /// A series that appears with its first failure shows no increase: rules of alerts would miss it.
    fn start_requests_at_zero(&self) {
        let outcomes: Vec<_> = std::iter::once(Outcome::Done)
            .chain(Reason::ALL.map(Outcome::Failed))
            .map(Outcome::label)
            .collect();
        for operation in Operation::ALL.map(Operation::label) {
            for outcome in &outcomes {
                let _ = self.bags_requests.get_or_create(&ByRequest { operation, outcome });
            }
        }
    }

    /// A registry with every metric but the registry itself, under the names that people see.
    fn register(&self) -> Registry {
        let mut registry = Registry::with_prefix("bags_operator");
        let r = &mut registry;
        r.register("build", "The running version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        r.register("reconciles", "Reconciles by how they ended", self.reconciles.clone());
        r.register("reconcile_seconds", "Duration of reconciles", self.reconcile_seconds.clone());
        r.register("failures", "Failed reconciles by class and reason", self.failures.clone());
        r.register(
            "not_ready",
            "Objects whose condition Ready is False, by its reason",
            self.not_ready.clone(),
        );
        r.register("bags_requests", "Requests to Bags by how they ended", self.bags_requests.clone());
        r.register("bags_request_seconds", "Duration of requests to Bags", self.bags_seconds.clone());
        r.register("keys", "Steps in the lives of keys", self.keys.clone());
        r.register("save_retries", "Repeated attempts to save a new key's value", self.save_retries.clone());
        r.register("leader", "1: this process leads; 0: it waits for its turn", self.leader.clone());
        r.register(
            "drained",
            "1: the Lease is held by \"drained\", and nobody leads until it is cleared",
            self.drained.clone(),
        );
        r.register("ledger_slots", "Slots of an account's ledger by state", self.slots.clone());
        r.register("account_limit", "Keys that Bags allows the account", self.limit.clone());
        r.register("account_used", "Slots and keys made elsewhere", self.used.clone());
        r.register("account_reserved", "Slots kept for rotations", self.reserved.clone());
        r.register("account_unmanaged", "Keys made elsewhere", self.unmanaged.clone());
        r.register("account_available", "ApiKeys that still fit", self.available.clone());
        r.register(
            "account_requests_remaining",
            "Requests to Bags left to the operator in this hour",
            self.budget.clone(),
        );
        r.register("admission_reviews", "Admission reviews by what became of them", self.reviews.clone());
        r.register("admission_review_seconds", "Duration of admission reviews", self.review_seconds.clone());
        r.register(
            "webhook_certificate_end_timestamp_seconds",
            "When the webhook's serving certificate ends; 0: there is none",
            self.webhook_certificate.clone(),
        );
        r.register(
            "webhook_registered",
            "Whether the webhook's configuration is there and trusts its certificate",
            self.webhook_registered.clone(),
        );
        registry
    }

    /// An admission review was answered; `took` where it was looked at.
    pub fn review(&self, outcome: ReviewOutcome, took: Option<Duration>) {
        self.reviews.get_or_create(&ByReview { outcome: outcome.label() }).inc();
        if let Some(took) = took {
            self.review_seconds.observe(took.as_secs_f64());
        }
    }

    /// When the serving certificate of the webhook ends.
    pub fn webhook_certificate(&self, ends: jiff::Timestamp) {
        self.webhook_certificate.set(ends.as_second());
    }

    /// Whether new ApiKeys are put before the webhook.
    pub fn webhook_registered(&self, registered: bool) {
        self.webhook_registered.set(registered.into());
    }

    /// A reconcile ended.
    pub fn reconciled(&self, kind: Kind, outcome: ReconcileOutcome, took: Duration) {
        self.reconciles.get_or_create(&ByOutcome { kind, outcome }).inc();
        self.reconcile_seconds.get_or_create(&ByKind { kind }).observe(took.as_secs_f64());
    }

    /// A reconcile failed; `reason` is one of a closed set.
    pub fn failed(&self, kind: Kind, class: FailureClass, reason: &'static str) {
        self.failures.get_or_create(&ByFailure { kind, class: class.into(), reason }).inc();
    }

    /// What stands in the way of the object with this uid: the reason of `Ready=False`, or `None` where there is
    /// nothing, or the object is gone.
    pub fn problem(&self, kind: Kind, uid: &str, reason: Option<&'static str>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match reason {
            Some(reason) => problems.insert((kind, uid.to_owned()), reason),
            None => problems.remove(&(kind, uid.to_owned())),
        };
        if before == reason {
            return;
        }
        if let Some(reason) = before {
            self.not_ready.get_or_create(&ByReason { kind, reason }).dec();
        }
        if let Some(reason) = reason {
            self.not_ready.get_or_create(&ByReason { kind, reason }).inc();
        }
    }

    /// A key took a step.
    pub fn key(&self, step: KeyStep) {
        self.keys.get_or_create(&ByStep { step }).inc();
    }

    /// The saving of a value failed and is repeated.
    pub fn save_retried(&self) {
        self.save_retries.inc();
    }

    /// Whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Whether this process waits because the installation was drained.
    pub fn drained(&self, drained: bool) {
        self.drained.set(i64::from(drained));
    }

    /// An account as its ledger shows it.
    pub fn account(&self, account: &str, slots: &[Slot], capacity: &Capacity) {
        for state in SLOT_STATES {
            let count = slots.iter().filter(|slot| state_label(&slot.state) == state).count();
            let labels = BySlotState { account: account.to_owned(), state };
            self.slots.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let labels = ByAccount { account: account.to_owned() };
        let Capacity { limit, used, reserved, unmanaged, available } = capacity;
        self.limit.get_or_create(&labels).set(*limit);
        self.used.get_or_create(&labels).set(*used);
        self.reserved.get_or_create(&labels).set(*reserved);
        self.unmanaged.get_or_create(&labels).set(*unmanaged);
        self.available.get_or_create(&labels).set(*available);
    }

    /// Requests to Bags left to the operator for an account in this hour.
    pub fn budget(&self, account: &str, remaining: i64) {
        self.budget.get_or_create(&ByAccount { account: account.to_owned() }).set(remaining);
    }

    /// An account is gone, and its series with it.
    pub fn account_gone(&self, account: &str) {
        for state in SLOT_STATES {
            self.slots.remove(&BySlotState { account: account.to_owned(), state });
        }
        let labels = ByAccount { account: account.to_owned() };
        for family in
            [&self.limit, &self.used, &self.reserved, &self.unmanaged, &self.available, &self.budget]
        {
            family.remove(&labels);
        }
    }

    /// Everything as OpenMetrics text, of [`CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut page = String::new();
        text::encode(&mut page, &self.registry).expect("a String takes every write");
        page
    }
}

impl Observer for Metrics {
    fn request(&self, operation: Operation, outcome: Outcome, elapsed: Duration) {
        let labels = ByRequest { operation: operation.label(), outcome: outcome.label() };
        self.bags_requests.get_or_create(&labels).inc();
        if !elapsed.is_zero() {
            let labels = ByOperation { operation: operation.label() };
            self.bags_seconds.get_or_create(&labels).observe(elapsed.as_secs_f64());
        }
    }
}

fn state_label(state: &SlotState) -> &'static str {
    match state {
        SlotState::Reserved => "Reserved",
        SlotState::Creating => "Creating",
        SlotState::Live => "Live",
        SlotState::Lost => "Lost",
        SlotState::Unresolved => "Unresolved",
        SlotState::Revoking => "Revoking",
        SlotState::Released => "Released",
        SlotState::Unknown(_) => "Unknown",
    }
}

#[cfg(test)]
mod tests;
