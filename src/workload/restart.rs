//! Restarts: which workloads have to be restarted, which of them may be now (pure), and the mark that restarts one (io).
//!
//! A mark is an annotation of the pod template, so the workload's own controller replaces the pods, by its own rules. It
//! names the switch and holds no time: two rotations within one second are two different marks, and a restarted operator
//! does not set a mark again that is there already.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    marks::Rest,
    owner::{self, Controller, Owner, OwnerCache, WorkloadKind, WorkloadRef},
    pod_scan::Scan,
    restarted::{Gap, Obstacle, Progress, Workload},
};
use crate::{
    api::mark,
    env::{CallError, call},
};

/// The field manager of marks: not the operator's usual one, so that audits and policies can tell restarts from its other
/// writes.
const FIELD_MANAGER: &str = "bags-operator-restart";
/// How many characters of an ApiKey's uid stand in a mark.
const UID_PART: usize = 8;
/// How many rollouts may be under way until one has shown that workloads come up with the new value.
const CANARIES: usize = 1;

/// One owner of pods that refer to the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Who it is; all pods without an owner are one consumer.
    pub owner: Owner,
    /// The workload as it is now; `None`: it is no workload, or is gone.
    pub workload: Option<Workload>,
    /// Its pods that refer to the Secret, by name.
    pub pods: Vec<String>,
    /// Those of them that only a restart will move ([`Holder::needs_restart`](super::Holder::needs_restart)). Stale pods that
    /// are merely waited for are not among them.
    pub stale: Vec<String>,
}

impl Consumer {
    /// Whether it is this workload.
    #[must_use]
    pub fn is(&self, reference: &WorkloadRef) -> bool {
        matches!(&self.owner, Owner::Workload(own) if own == reference)
    }
}

/// Why no restart by the operator will move the stale pods of an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The owner is nothing that is restarted: a Job, pods without an owner, an owner of an unknown kind.
    NotRestartable,
    /// The workload is gone, or is another one of the same name.
    Gone,
    /// Its own settings are in the way.
    Obstacle(Obstacle),
    /// A restart would interrupt it for a while, and the ApiKey does not allow that (`allowGap`).
    Gap(Gap),
    /// Its mark was set twice and did not stay: something else writes its pod template.
    MarkTaken,
    /// The API server refuses the mark (RBAC, a policy), or fails to set it each time. What it says.
    Refused(String),
    /// It was restarted for this switch, yet has pods that may hold the old value, for example because the Secret was written
    /// again after they had started.
    RestartedBefore,
    /// Its last rollout had failed already, and one on top of it would fail as well. What its controller says.
    RolloutFailed(String),
}

/// What a restart may do.
pub struct Terms<'a> {
    /// How many rollouts may be under way at once, after one has shown that workloads come up with the new value.
    pub max_concurrent: usize,
    /// A restart may interrupt a workload for a while.
    pub allow_gap: bool,
    /// The Secret was switched back to the older key: a restart repairs a rollout that failed with the newer key.
    pub back: bool,
    /// Workloads that this process marked for this switch, or tried to: whether each may be marked once more.
    pub resting: &'a BTreeMap<WorkloadRef, Rest>,
}

/// A marked workload whose rollout failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The workload.
    pub workload: WorkloadRef,
    /// The words of its controller.
    pub words: String,
    /// Whether the workload may never have come up after it was marked: it still has stale pods, or its old pods end before new
    /// ones are ready. Otherwise it had come up with the new value, and fails since.
    pub of_mark: bool,
    /// Since when its controller has reported the failure, where it says so.
    pub at: Option<Timestamp>,
}

/// What is to be done about the consumers of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To mark now.
    pub mark: Vec<WorkloadRef>,
    /// To mark once their turn has come.
    pub waiting: Vec<WorkloadRef>,
    /// Marked and not done; or marked by this process a moment ago, and the mark, or every pod, is gone since.
    pub underway: Vec<WorkloadRef>,
    /// Those of them whose old pods end before new ones are ready: if such a workload does not come up, nothing shows it but
    /// that it is not up yet.
    pub down: Vec<WorkloadRef>,
    /// Marked, and their controllers gave up waiting for the rollout. Also where the mark and all stale pods are gone since.
    pub failed: Vec<Failure>,
    /// Owners of stale pods that no restart of ours will move. A marked workload whose rollout stands still, for example
    /// because it was paused meanwhile, is also in `underway`.
    pub obstructed: Vec<(Owner, Reason)>,
    /// Marked, and the rollout is complete. Also where the mark and all stale pods are gone since.
    pub done: Vec<WorkloadRef>,
}

/// The owners of the pods of a scan, each workload read live; sorted by kind and name.
///
/// # Errors
/// When the API server does not answer.
pub async fn consumers(
    client: Client,
    namespace: &str,
    scan: &Scan,
    cache: &OwnerCache,
) -> Result<Vec<Consumer>, CallError> {
    let mut groups: BTreeMap<Owner, (Vec<String>, Vec<String>)> = BTreeMap::new();
    // Each controller is looked up once for all its pods. `cache` alone does not ensure that: it does not keep that a ReplicaSet
    // has no owner, as the ReplicaSet may get one.
    let mut asked: BTreeMap<Option<&Controller>, Owner> = BTreeMap::new();
    for holder in &scan.holders {
        let controller = holder.controller.as_ref();
        let owner = match asked.get(&controller) {
            Some(owner) => owner.clone(),
            None => {
                let owner = owner::owner(client.clone(), namespace, controller, cache).await?;
                asked.insert(controller, owner.clone());
                owner
            }
        };
        let (pods, stale) = groups.entry(owner).or_default();
        pods.push(holder.pod.clone());
        if holder.needs_restart() {
            stale.push(holder.pod.clone());
        }
    }
    let mut consumers = Vec::with_capacity(groups.len());
    for (owner, (pods, stale)) in groups {
        let workload = match &owner {
            Owner::Workload(reference) => {
                let workload = owner::read(client.clone(), namespace, reference).await?;
                if workload.is_none() {
                    cache.forget(reference);
                }
                workload
            }
            Owner::Job { .. } | Owner::Bare | Owner::Unknown { .. } => None,
        };
        consumers.push(Consumer { owner, workload, pods, stale });
    }
    Ok(consumers)
}

/// The mark of a switch of an ApiKey.
#[must_use]
pub fn mark_value(api_key_uid: &str, switch: i64) -> String {
    let part: String = api_key_uid.chars().take(UID_PART).collect();
    format!("{part}-{switch}")
}

/// The part of a mark that names its ApiKey.
fn uid_part(mark: &str) -> &str {
    mark.rsplit_once('-').map_or(mark, |(uid, _)| uid)
}

/// Which workloads to mark now, and how far the others are.
///
/// # Guarantees
/// - A workload is marked only if it owns stale pods, does not carry this mark, and may be restarted; without a gap, unless
///   the terms allow one.
/// - Until a workload with this mark that wants pods is complete, at most one is under way or marked; from then on, at most
///   `max_concurrent`.
/// - Once a marked workload has failed, nothing more is marked.
#[must_use]
pub fn plan(consumers: &[Consumer], api_key: &str, mark: &str, terms: &Terms<'_>) -> Plan {
    let max_concurrent = terms.max_concurrent;
    let mut plan = Plan::default();
    let mut candidates: Vec<_> =
        consumers.iter().filter_map(|consumer| plan.sort(consumer, api_key, mark, terms)).collect();
    // A workload that was marked a moment ago and has no pod any more may not be coming up. It counts as under way, as the next
    // one would go the same way.
    let gone = |reference: &&WorkloadRef| !consumers.iter().any(|consumer| consumer.is(reference));
    let paused =
        terms.resting.iter().filter(|(_, rest)| **rest == Rest::Pause).map(|(reference, _)| reference);
    plan.underway.extend(paused.filter(gone).cloned());
    // Healthy workloads go first: one that is not healthy now would not come up with the new key either, and would prove nothing
    // about that key. On a switch-back the unhealthy ones go first, as they need the old key and the others do not.
    candidates.sort_by_key(|workload| workload.is_whole() == terms.back);
    let mut candidates: Vec<_> = candidates.into_iter().map(|workload| workload.reference.clone()).collect();
    let came_up = |workload: &Workload| workload.wants_pods() && plan.done.contains(&workload.reference);
    let has_shown = consumers.iter().filter_map(|consumer| consumer.workload.as_ref()).any(came_up);
    let free = if !plan.failed.is_empty() {
        0
    } else if !has_shown {
        CANARIES.min(max_concurrent).saturating_sub(plan.underway.len())
    } else {
        max_concurrent.saturating_sub(plan.underway.len())
    };
    plan.waiting = candidates.split_off(free.min(candidates.len()));
    plan.mark = candidates;
    plan
}

impl Plan {
    /// Adds a consumer to the list of the plan that it belongs in; returns its workload where that could be marked now.
    fn sort<'a>(
        &mut self,
        consumer: &'a Consumer,
        api_key: &str,
        mark: &str,
        terms: &Terms<'_>,
    ) -> Option<&'a Workload> {
        let Consumer { owner, workload, pods: _, stale } = consumer;
        let is_stale = !stale.is_empty();
        let Some(workload) = workload else {
            if is_stale {
                self.obstructed.push((owner.clone(), without_workload(owner)));
            }
            return None;
        };
        let reference = &workload.reference;
        let obstacle = workload.may_restart().err().filter(|_| is_stale).map(Reason::Obstacle);
        // A mark that somebody took away still counts while no pod is stale. All pods then read the new value: if they do not
        // come up, no other pod shows it, so the workload must not be left out.
        let set = terms.resting.get(reference).is_some_and(Rest::was_marked);
        if workload.mark(api_key) == Some(mark) || (set && !is_stale) {
            self.sort_marked(owner, workload, is_stale, obstacle);
            return None;
        }
        if !is_stale {
            return None;
        }
        let gap = workload.gap().filter(|_| !terms.allow_gap).map(Reason::Gap);
        if let Some(reason) = obstacle.or(gap) {
            self.obstructed.push((owner.clone(), reason));
            return None;
        }
        let ours = workload.mark(api_key).is_some_and(|before| uid_part(before) == uid_part(mark));
        if let Progress::Failed(words) = workload.progress()
            && !(terms.back && ours)
        {
            self.obstructed.push((owner.clone(), Reason::RolloutFailed(words)));
            return None;
        }
        match terms.resting.get(reference).cloned() {
            None | Some(Rest::Over) => return Some(workload),
            Some(Rest::Pause) => self.underway.push(reference.clone()),
            // The other workloads do not wait for this one.
            Some(Rest::Spent) => self.obstructed.push((owner.clone(), Reason::MarkTaken)),
            Some(Rest::Refused { words, marked: _ }) => {
                self.obstructed.push((owner.clone(), Reason::Refused(words)))
            }
        }
        None
    }

    /// The same for a consumer whose workload was marked.
    fn sort_marked(&mut self, owner: &Owner, workload: &Workload, is_stale: bool, obstacle: Option<Reason>) {
        let reference = &workload.reference;
        let ends_first = workload.ends_first();
        match workload.progress() {
            Progress::Complete => {
                self.done.push(reference.clone());
                let before = is_stale.then_some((owner.clone(), Reason::RestartedBefore));
                self.obstructed.extend(before);
            }
            Progress::Failed(words) => {
                let of_mark = is_stale || ends_first;
                let at = workload.failed_at();
                self.failed.push(Failure { workload: reference.clone(), words, of_mark, at });
            }
            Progress::Underway => {
                self.underway.push(reference.clone());
                self.down.extend(ends_first.then(|| reference.clone()));
                self.obstructed.extend(obstacle.map(|reason| (owner.clone(), reason)));
            }
        }
    }
}

fn without_workload(owner: &Owner) -> Reason {
    match owner {
        Owner::Workload(_) => Reason::Gone,
        Owner::Job { .. } | Owner::Bare | Owner::Unknown { .. } => Reason::NotRestartable,
    }
}

/// Restarts a workload: marks its pod template, if the workload still has this resourceVersion. Nothing else of it is touched.
///
/// # Errors
/// What the API server says; `409` means observe again. After [`CallError::Timeout`] it may have been marked.
pub async fn mark(
    client: Client,
    namespace: &str,
    workload: &Workload,
    api_key: &str,
    mark: &str,
) -> Result<(), CallError> {
    let WorkloadRef { kind, name, uid: _ } = &workload.reference;
    let patch = Patch::Merge(mark_patch(workload, api_key, mark));
    let options = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match kind {
        WorkloadKind::Deployment => {
            call(Api::<Deployment>::namespaced(client, namespace).patch(name, &options, &patch))
                .await
                .map(drop)
        }
        WorkloadKind::StatefulSet => {
            call(Api::<StatefulSet>::namespaced(client, namespace).patch(name, &options, &patch))
                .await
                .map(drop)
        }
        WorkloadKind::DaemonSet => {
            call(Api::<DaemonSet>::namespaced(client, namespace).patch(name, &options, &patch))
                .await
                .map(drop)
        }
    }
}

fn mark_patch(workload: &Workload, api_key: &str, mark: &str) -> Value {
    let annotation = format!("{}{api_key}", mark::RESTART_MARK_PREFIX);
    json!({
        "metadata": {"resourceVersion": workload.resource_version, "uid": workload.reference.uid},
        "spec": {"template": {"metadata": {"annotations": {annotation: mark}}}},
    })
}

#[cfg(test)]
mod tests;
