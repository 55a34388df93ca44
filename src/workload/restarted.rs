//! A workload by the rules of its kind: whether it may be restarted, whether a restart would leave a gap, how far its rollout
//! is. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{
        DaemonSet, DaemonSetStatus, DaemonSetUpdateStrategy, Deployment, DeploymentCondition,
        DeploymentStatus, DeploymentStrategy, StatefulSet, StatefulSetStatus, StatefulSetUpdateStrategy,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::owner::{WorkloadKind, WorkloadRef};
use crate::api::{annotation, mark};

/// The API server's default for a Deployment's `maxSurge` and `maxUnavailable`.
const QUARTER: &str = "25%";
/// Reason of a Deployment's `Progressing`: its replicas did not become ready in time.
const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
/// Reason of a Deployment's `Progressing`: all replicas of the newest template have been up at some time.
const CAME_UP: &str = "NewReplicaSetAvailable";

/// A workload, with only what is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Which one.
    pub reference: WorkloadRef,
    /// The resourceVersion that was read.
    pub resource_version: String,
    /// Marks of its pod template, by ApiKey.
    marks: BTreeMap<String, String>,
    opted_out: bool,
    paused: bool,
    strategy: Strategy,
    observed: bool,
    replicas: Replicas,
    /// Its controller says that all pods of the newest template were up at some time.
    came_up: bool,
    /// Why its rollout failed, and since when.
    failure: Option<GivenUp>,
}

/// What a controller says of a rollout that it has given up waiting for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct GivenUp {
    words: String,
    at: Option<Timestamp>,
}

/// How a change of the pod template reaches the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    /// A Deployment's rolling update: up to `missing` of its replicas may be missing meanwhile.
    Rolling { missing: i64 },
    /// A Deployment's other way: all old pods go first.
    Recreate,
    /// A StatefulSet's rolling update: up to `missing` pods at a time, down to the ordinal `partition`.
    Ordered { partition: i32, missing: i64 },
    /// A DaemonSet's rolling update: the pods of up to `missing` nodes may be missing at a time.
    EachNode { missing: i64 },
    /// Only when somebody deletes the pods.
    OnDelete,
}

/// How many replicas there should be, and are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Replicas {
    wanted: i64,
    /// Old and new ones.
    all: i64,
    /// Of the newest template.
    updated: i64,
    ready: i64,
    available: i64,
}

/// Why a workload is not restarted by the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It says so itself.
    OptedOut,
    /// It is paused: nothing would happen.
    Paused,
    /// It replaces a pod only after somebody has deleted it.
    OnDelete,
    /// It is a StatefulSet that leaves pods below this ordinal as they are.
    Partition(i32),
}

/// Why a restart would not be without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// All old pods end before the first new one starts.
    Recreate,
    /// The last old pod may end before a new one is ready: one replica that cannot be doubled, an update strategy that
    /// lets all replicas, or the pods of all nodes, be missing, or a StatefulSet (`Parallel`) whose last ready pods may be
    /// replaced while the others are not ready.
    NoSurge,
    /// Somebody has to delete the pods.
    OnDelete,
    /// Somebody has to let the pods below this ordinal be replaced.
    Partition(i32),
    /// Somebody has to resume it.
    Paused,
    /// Its last rollout failed, and one on top of it would fail as well.
    Failed,
}

/// How far the rollout of the newest template is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Every replica is of it, ready and available, and no older one is left.
    Complete,
    /// Not yet.
    Underway,
    /// The workload's controller has given up waiting; its words.
    Failed(String),
}

impl Workload {
    /// The mark that the pod template has for an ApiKey.
    #[must_use]
    pub fn mark(&self, api_key: &str) -> Option<&str> {
        self.marks.get(api_key).map(String::as_str)
    }

    /// Whether the operator may restart it, and the restart would take place.
    ///
    /// # Errors
    /// Why not.
    pub fn may_restart(&self) -> Result<(), Obstacle> {
        if self.opted_out {
            return Err(Obstacle::OptedOut);
        }
        if self.paused {
            return Err(Obstacle::Paused);
        }
        match self.strategy {
            Strategy::OnDelete => Err(Obstacle::OnDelete),
            Strategy::Ordered { partition, .. } if partition > 0 => Err(Obstacle::Partition(partition)),
            Strategy::Ordered { .. }
            | Strategy::Rolling { .. }
            | Strategy::Recreate
            | Strategy::EachNode { .. } => Ok(()),
        }
    }

    /// Why a restart would leave a gap; `None`: it would not. A DaemonSet is always updated by leaving each node without its pod
    /// for a moment, so that is no gap; but it is one if all of several nodes may be without their pods at the same time.
    #[must_use]
    pub fn gap(&self) -> Option<Gap> {
        if self.paused { Some(Gap::Paused) } else { self.gap_of_strategy() }
    }

    /// The same, whether or not the workload is paused now.
    fn gap_of_strategy(&self) -> Option<Gap> {
        let wanted = self.replicas.wanted;
        match self.strategy {
            Strategy::OnDelete => Some(Gap::OnDelete),
            Strategy::Recreate => (wanted > 0).then_some(Gap::Recreate),
            Strategy::Ordered { partition, .. } if partition > 0 => Some(Gap::Partition(partition)),
            Strategy::Rolling { missing } | Strategy::Ordered { partition: _, missing } => {
                (wanted > 0 && missing >= wanted).then_some(Gap::NoSurge)
            }
            Strategy::EachNode { missing } => (wanted > 1 && missing >= wanted).then_some(Gap::NoSurge),
        }
    }

    /// Whether its last old pod may end before a new one is ready: if the new pod then does not come up, no pod with the old
    /// value is left to show it. A DaemonSet on a single node counts too, although [`gap`](Self::gap) reports none for it, as
    /// it is always updated so.
    #[must_use]
    pub fn ends_first(&self) -> bool {
        let on_one_node =
            matches!(self.strategy, Strategy::EachNode { missing: 1.. }) && self.replicas.wanted == 1;
        on_one_node || matches!(self.gap_of_strategy(), Some(Gap::Recreate | Gap::NoSurge))
    }

    /// Whether it wants pods at all: one without any has shown nothing.
    #[must_use]
    pub fn wants_pods(&self) -> bool {
        self.replicas.wanted > 0
    }

    /// Since when its controller has reported that the rollout failed, where it says so.
    #[must_use]
    pub fn failed_at(&self) -> Option<Timestamp> {
        self.failure.as_ref()?.at
    }

    /// Whether all its pods are there, of the newest template, and work.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let Replicas { wanted, all, updated, ready, available } = self.replicas;
        [all, updated, ready, available] == [wanted; 4]
    }

    /// How far the rollout of the newest template is, by the workload's own status.
    #[must_use]
    pub fn progress(&self) -> Progress {
        if !self.observed {
            return Progress::Underway;
        }
        // A rollout that came up is complete, whatever has become of its pods since. While no pod is of the newest template, the
        // condition is still about the rollout before: a Deployment with `Recreate` reports nothing new until its old pods are
        // gone.
        let Replicas { all, updated, .. } = self.replicas;
        let came_up = self.came_up && all == updated && updated > 0;
        if came_up || self.is_whole() {
            return Progress::Complete;
        }
        self.failure.as_ref().map_or(Progress::Underway, |failure| Progress::Failed(failure.words.clone()))
    }

    /// The fields that all kinds have in common; the others as for a workload of which nothing is known.
    fn of(
        kind: WorkloadKind,
        metadata: ObjectMeta,
        template: Option<ObjectMeta>,
        observed: Option<i64>,
    ) -> Self {
        let own = metadata.annotations.unwrap_or_default();
        let template = template.and_then(|template| template.annotations).unwrap_or_default();
        let out = |annotations: &BTreeMap<String, String>| {
            annotations.get(annotation::RESTART).is_some_and(|restart| restart == "false")
        };
        Self {
            reference: WorkloadRef {
                kind,
                name: metadata.name.unwrap_or_default(),
                uid: metadata.uid.unwrap_or_default(),
            },
            resource_version: metadata.resource_version.unwrap_or_default(),
            opted_out: out(&own) || out(&template),
            marks: marks(template),
            paused: false,
            strategy: Strategy::OnDelete,
            observed: matches!((observed, metadata.generation), (Some(seen), Some(newest)) if seen >= newest),
            replicas: Replicas::default(),
            came_up: false,
            failure: None,
        }
    }
}

fn marks(template: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let named = |(name, value): (String, String)| {
        name.strip_prefix(mark::RESTART_MARK_PREFIX).map(|api_key| (api_key.to_owned(), value))
    };
    template.into_iter().filter_map(named).collect()
}

impl From<Deployment> for Workload {
    fn from(deployment: Deployment) -> Self {
        let Deployment { metadata, spec, status } = deployment;
        let spec = spec.unwrap_or_default();
        let status = status.unwrap_or_default();
        let wanted = spec.replicas.unwrap_or(1);
        let common =
            Self::of(WorkloadKind::Deployment, metadata, spec.template.metadata, status.observed_generation);
        Self {
            paused: spec.paused == Some(true),
            strategy: deployment_strategy(spec.strategy.unwrap_or_default(), wanted),
            replicas: Replicas {
                wanted: wanted.into(),
                all: count(status.replicas),
                updated: count(status.updated_replicas),
                ready: count(status.ready_replicas),
                available: count(status.available_replicas),
            },
            came_up: progressing(&status, CAME_UP).is_some(),
            failure: failure(&status),
            ..common
        }
    }
}

impl From<StatefulSet> for Workload {
    fn from(set: StatefulSet) -> Self {
        let StatefulSet { metadata, spec, status } = set;
        let spec = spec.unwrap_or_default();
        let status: StatefulSetStatus = status.unwrap_or_default();
        let wanted = spec.replicas.unwrap_or(1);
        let ready = count(status.ready_replicas);
        let mut strategy = ordered_strategy(spec.update_strategy.unwrap_or_default(), wanted);
        // With `OrderedReady` nothing is replaced while a pod is not ready. With `Parallel` a ready pod may be replaced while
        // another is not ready.
        if let Strategy::Ordered { missing, .. } = &mut strategy
            && spec.pod_management_policy.as_deref() == Some("Parallel")
            && ready > 0
        {
            *missing += (i64::from(wanted) - ready).max(0);
        }
        let common =
            Self::of(WorkloadKind::StatefulSet, metadata, spec.template.metadata, status.observed_generation);
        Self {
            strategy,
            replicas: Replicas {
                wanted: wanted.into(),
                all: status.replicas.into(),
                updated: count(status.updated_replicas),
                ready,
                available: count(status.available_replicas),
            },
            ..common
        }
    }
}

impl From<DaemonSet> for Workload {
    fn from(set: DaemonSet) -> Self {
        let DaemonSet { metadata, spec, status } = set;
        let spec = spec.unwrap_or_default();
        let status: DaemonSetStatus = status.unwrap_or_default();
        let common =
            Self::of(WorkloadKind::DaemonSet, metadata, spec.template.metadata, status.observed_generation);
        let wanted = status.desired_number_scheduled;
        Self {
            strategy: node_strategy(spec.update_strategy.unwrap_or_default(), wanted),
            replicas: Replicas {
                wanted: wanted.into(),
                all: status.current_number_scheduled.into(),
                updated: count(status.updated_number_scheduled),
                ready: status.number_ready.into(),
                available: count(status.number_available),
            },
            ..common
        }
    }
}

fn count(number: Option<i32>) -> i64 {
    number.unwrap_or_default().into()
}

/// A strategy that this version does not know is taken for the one that promises least.
fn deployment_strategy(strategy: DeploymentStrategy, replicas: i32) -> Strategy {
    match strategy.type_.as_deref() {
        None | Some("RollingUpdate") => {}
        Some(_) => return Strategy::Recreate,
    }
    let rolling = strategy.rolling_update.unwrap_or_default();
    let quarter = || IntOrString::String(QUARTER.to_owned());
    let surge = scaled(&rolling.max_surge.unwrap_or_else(quarter), replicas, Round::Up);
    let missing = scaled(&rolling.max_unavailable.unwrap_or_else(quarter), replicas, Round::Down);
    // As Kubernetes does: if both were zero, no pod could ever be replaced.
    let missing = match (surge, missing) {
        (Some(0) | None, Some(0)) => 1,
        (Some(_) | None, Some(missing)) => missing,
        (Some(_) | None, None) => replicas.into(),
    };
    Strategy::Rolling { missing }
}

fn ordered_strategy(strategy: StatefulSetUpdateStrategy, replicas: i32) -> Strategy {
    match strategy.type_.as_deref() {
        None | Some("RollingUpdate") => {}
        Some(_) => return Strategy::OnDelete,
    }
    let rolling = strategy.rolling_update.unwrap_or_default();
    let missing = one_at_least(rolling.max_unavailable, replicas, Round::Down);
    Strategy::Ordered { partition: rolling.partition.unwrap_or_default(), missing }
}

fn node_strategy(strategy: DaemonSetUpdateStrategy, nodes: i32) -> Strategy {
    match strategy.type_.as_deref() {
        None | Some("RollingUpdate") => {}
        Some(_) => return Strategy::OnDelete,
    }
    let rolling = strategy.rolling_update.unwrap_or_default();
    let surge = rolling.max_surge.and_then(|surge| scaled(&surge, nodes, Round::Up)).unwrap_or_default();
    // With a surge no pod may be missing: the API server accepts only one of `maxSurge` and `maxUnavailable`.
    let missing = if surge > 0 { 0 } else { one_at_least(rolling.max_unavailable, nodes, Round::Up) };
    Strategy::EachNode { missing }
}

/// How many may be missing at a time: one, where nothing else is said; all, where it cannot be read.
fn one_at_least(missing: Option<IntOrString>, replicas: i32, round: Round) -> i64 {
    match missing {
        None => 1,
        Some(missing) => scaled(&missing, replicas, round).unwrap_or(replicas.into()).max(1),
    }
}

#[derive(Clone, Copy)]
enum Round {
    Up,
    Down,
}

/// A number, or a percentage of the replicas; `None`: it is neither.
fn scaled(value: &IntOrString, replicas: i32, round: Round) -> Option<i64> {
    match value {
        IntOrString::Int(number) => Some((*number).into()),
        IntOrString::String(text) => {
            let percent: i32 = text.strip_suffix('%')?.parse().ok()?;
            let hundredfold = i64::from(percent) * i64::from(replicas);
            Some(match round {
                Round::Up => hundredfold.div_euclid(100) + i64::from(hundredfold.rem_euclid(100) > 0),
                Round::Down => hundredfold.div_euclid(100),
            })
        }
    }
}

fn failure(status: &DeploymentStatus) -> Option<GivenUp> {
    let failed = progressing(status, DEADLINE_EXCEEDED)?;
    let words = failed.message.clone().unwrap_or_else(|| DEADLINE_EXCEEDED.to_owned());
    Some(GivenUp { words, at: failed.last_transition_time.as_ref().map(|time| time.0) })
}

/// The condition `Progressing`, if it has this reason.
fn progressing<'a>(status: &'a DeploymentStatus, reason: &str) -> Option<&'a DeploymentCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions
        .find(|condition| condition.type_ == "Progressing" && condition.reason.as_deref() == Some(reason))
}

#[cfg(test)]
mod tests;
