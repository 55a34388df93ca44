//! What Prometheus reads. Label sets are closed: kinds, outcomes, reasons as constants, and the names of accounts,
//! which are few and the platform team's own. Never the name of a key, an ApiKey or a namespace.

mod labels;
mod tally;

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
        info::Info,
    },
    registry::Registry,
};

pub use self::labels::{KeyStep, Kind, ReconcileOutcome, ReviewOutcome, RotationOutcome};
use self::{labels::Class, tally::Tally};
use crate::{
    api::account::{Capacity, Slot, SlotState},
    apikey::hold::Reason as Hold,
    backoff::FailureClass,
    bags::{Observer, Operation, Outcome, Reason},
};

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

macro_rules! labels {
    ($($name:ident { $($label:ident: $type:ty),+ })+) => {
        $(#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($label: $type),+ })+
    };
}

labels! {
    ByPhase { phase: String }
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
    ByRotation { outcome: RotationOutcome }
    ByWorkload { kind: &'static str }
}

/// What people wait for at an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Awaited {
    /// Keys that only a person can revoke.
    pub revocations: usize,
    /// ApiKeys that have found no second slot for too long.
    pub rotations: usize,
}

/// Bounds of the buckets of every histogram, in seconds.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The same for what takes minutes to a week.
const OVERLAP_SECONDS: [f64; 10] =
    [60.0, 300.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0, 86_400.0, 172_800.0, 604_800.0];

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
    not_ready: Tally<ByReason>,
    phases: Tally<ByPhase>,
    holds: Tally<ByReason>,
    rotations: Family<ByRotation, Counter>,
    overlap_seconds: Histogram,
    restarts: Family<ByWorkload, Counter>,
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
    oldest_key: Family<ByAccount, Gauge>,
    revocations_awaited: Family<ByAccount, Gauge>,
    rotations_starved: Family<ByAccount, Gauge>,
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
            not_ready: Tally::default(),
            phases: Tally::default(),
            holds: Tally::default(),
            rotations: Family::default(),
            overlap_seconds: Histogram::new(OVERLAP_SECONDS),
            restarts: Family::default(),
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
            oldest_key: Family::default(),
            revocations_awaited: Family::default(),
            rotations_starved: Family::default(),
            budget: Family::default(),
            reviews: Family::default(),
            review_seconds: Histogram::new(SECONDS),
            webhook_certificate: Gauge::default(),
            webhook_registered: Gauge::default(),
        };
        metrics.registry = Arc::new(metrics.register());
        metrics.start_at_zero();
        metrics
    }

    /// Creates these series at zero: one that first appears with its first failure shows no increase, and alert rules would
    /// miss it.
    fn start_at_zero(&self) {
        for outcome in RotationOutcome::ALL {
            let _ = self.rotations.get_or_create(&ByRotation { outcome });
        }
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

    /// A registry with every metric, under the names that people see.
    fn register(&self) -> Registry {
        let mut registry = Registry::with_prefix("bags_operator");
        let r = &mut registry;
        r.register("build", "The running version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        r.register("reconciles", "Reconciles by how they ended", self.reconciles.clone());
        r.register("reconcile_seconds", "Duration of reconciles", self.reconcile_seconds.clone());
        r.register("failures", "Failed reconciles by class and reason", self.failures.clone());
        r.register(
            "not_ready",
            "ApiKeys that something stands in the way of, by reason",
            self.not_ready.counts.clone(),
        );
        self.register_rotations(r);
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
            "Requests to Bags that may be sent at once now",
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
            "Whether the webhook's configuration is there, puts every new ApiKey before it, and trusts its certificate",
            self.webhook_registered.clone(),
        );
        registry
    }

    fn register_rotations(&self, r: &mut Registry) {
        r.register("apikeys", "ApiKeys by phase", self.phases.counts.clone());
        r.register(
            "rotations_held",
            "ApiKeys whose rotation does not begin, or not end, by itself, by the reason of the hold",
            self.holds.counts.clone(),
        );
        r.register("rotations", "Rotations by what they came to", self.rotations.clone());
        r.register(
            "rotation_overlap_seconds",
            "How long both keys of a rotation were valid: from the switch until the old one was condemned",
            self.overlap_seconds.clone(),
        );
        r.register(
            "workload_restarts",
            "Workloads restarted so that they read a new key, by kind",
            self.restarts.clone(),
        );
        r.register(
            "account_oldest_key_timestamp_seconds",
            "When the oldest key in use was published; 0: no key is in use",
            self.oldest_key.clone(),
        );
        r.register(
            "account_revocations_awaited",
            "Keys that only a person can revoke; RevocationNeedsPerson names them",
            self.revocations_awaited.clone(),
        );
        r.register(
            "account_rotations_starved",
            "ApiKeys that have found no second slot for too long; RotationsStarved names them",
            self.rotations_starved.clone(),
        );
    }

    /// An ApiKey is in this phase, and its rotation is held for this reason.
    pub fn apikey(&self, uid: &str, phase: Option<&str>, hold: Option<Hold>) {
        self.phases.put(Kind::ApiKey, uid, phase.map(|phase| ByPhase { phase: phase.to_owned() }));
        let by_reason = |hold: Hold| ByReason { kind: Kind::ApiKey, reason: hold.as_str() };
        self.holds.put(Kind::ApiKey, uid, hold.map(by_reason));
    }

    /// An ApiKey is gone, and counts nowhere.
    pub fn apikey_gone(&self, uid: &str) {
        self.problem(Kind::ApiKey, uid, None);
        self.apikey(uid, None, None);
    }

    /// A rotation came to this; `overlap`: how long both keys were valid.
    pub fn rotation(&self, outcome: RotationOutcome, overlap: Option<Duration>) {
        self.rotations.get_or_create(&ByRotation { outcome }).inc();
        if let Some(overlap) = overlap {
            self.overlap_seconds.observe(overlap.as_secs_f64());
        }
    }

    /// A workload of this kind was restarted.
    pub fn restarted(&self, kind: &'static str) {
        self.restarts.get_or_create(&ByWorkload { kind }).inc();
    }

    /// An admission review was answered; `took`: how long it took, where it was looked at.
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

    /// Whether the API server sends new ApiKeys to the webhook.
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
        self.not_ready.put(kind, uid, reason.map(|reason| ByReason { kind, reason }));
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
        let in_use = slots.iter().filter(|slot| slot.state == SlotState::Live && slot.published.is_some());
        let oldest = in_use.map(|slot| slot.since.as_second()).min();
        self.oldest_key.get_or_create(&labels).set(oldest.unwrap_or_default());
    }

    /// What people wait for at an account.
    pub fn awaited(&self, account: &str, awaited: Awaited) {
        let labels = ByAccount { account: account.to_owned() };
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.revocations_awaited.get_or_create(&labels).set(count(awaited.revocations));
        self.rotations_starved.get_or_create(&labels).set(count(awaited.rotations));
    }

    /// Requests to Bags that may be sent for an account at once now.
    pub fn budget(&self, account: &str, remaining: i64) {
        self.budget.get_or_create(&ByAccount { account: account.to_owned() }).set(remaining);
    }

    /// An account is gone, and its series with it.
    pub fn account_gone(&self, account: &str) {
        for state in SLOT_STATES {
            self.slots.remove(&BySlotState { account: account.to_owned(), state });
        }
        let labels = ByAccount { account: account.to_owned() };
        for family in [
            &self.limit,
            &self.used,
            &self.reserved,
            &self.unmanaged,
            &self.available,
            &self.oldest_key,
            &self.revocations_awaited,
            &self.rotations_starved,
            &self.budget,
        ] {
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
    fn request(&self, operation: Operation, outcome: Outcome, took: Option<Duration>) {
        let labels = ByRequest { operation: operation.label(), outcome: outcome.label() };
        self.bags_requests.get_or_create(&labels).inc();
        if let Some(took) = took {
            let labels = ByOperation { operation: operation.label() };
            self.bags_seconds.get_or_create(&labels).observe(took.as_secs_f64());
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
