//! Restarts: who has to be restarted, who may be now (pure), and the mark that does it (io).
//!
//! A mark is an annotation of the pod template, so the workload's own controller replaces the pods, by its own rules. It
//! names the switch and no time: two rotations in one second are two marks, and an operator that starts anew sets none
//! that is there already.

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

/// Who sets marks, in `managedFields`: not the operator's usual name, so that an audit and a policy can tell them.
const FIELD_MANAGER: &str = "bags-operator-restart";
/// So much of an ApiKey's uid stands in a mark.
const UID_PART: usize = 8;
/// A rollout under way at most, until one has shown that workloads come up with the new value.
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
    /// Those of them that only a restart will move ([`Holder::needs_restart`](super::Holder::needs_restart)). Of what a scan
    /// calls stale, those are left out that are waited for.
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
    /// A restart would stop it for a while, and nobody allows that.
    Gap(Gap),
    /// Its mark was set, and again, and did not stay: something writes its pod template.
    MarkTaken,
    /// The API server refuses the mark, by its rights or by a policy. Its words.
    Refused(String),
    /// It was restarted for this switch, and has pods that may hold the old value all the same: the Secret was written again
    /// after they had started, say.
    RestartedBefore,
    /// Its rollout had failed before; one more on top of it would fail as well. The words of its controller.
    RolloutFailed(String),
}

/// What a restart may do.
pub struct Terms<'a> {
    /// So many rollouts may be under way at once, once one has shown that workloads come up with the new value.
    pub max_concurrent: usize,
    /// It may stop a workload for a while.
    pub allow_gap: bool,
    /// The Secret went back to the older key: a rollout that failed with the newer one is mended by a restart.
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
    /// It need not have come up with what the mark stands for: pods from before are still there, or would have gone first. Else
    /// it had, and fails since.
    pub of_mark: bool,
    /// Since when its controller says so, where that is told.
    pub at: Option<Timestamp>,
}

/// What is to be done about the consumers of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To mark now.
    pub mark: Vec<WorkloadRef>,
    /// To mark once their turn has come.
    pub waiting: Vec<WorkloadRef>,
    /// Marked and not done; or marked by this process, and the mark is gone.
    pub underway: Vec<WorkloadRef>,
    /// Those of them that end their old pods first: nobody sees that they do not come up, but that they are not up yet.
    pub down: Vec<WorkloadRef>,
    /// Marked, also where the mark is gone together with all stale pods, and their controllers gave up.
    pub failed: Vec<Failure>,
    /// Owners of stale pods that no restart of ours will move. One whose restart stands still, as it was paused
    /// meanwhile, is also among those under way.
    pub obstructed: Vec<(Owner, Reason)>,
    /// Marked and done; the same.
    pub done: Vec<WorkloadRef>,
}

/// Who owns the pods of a scan, each as it is now; by kind and name.
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
    // One question for all pods of a controller, also where its answer is not kept: a ReplicaSet without an owner may get one.
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

/// Whose a mark is.
fn uid_part(mark: &str) -> &str {
    mark.rsplit_once('-').map_or(mark, |(uid, _)| uid)
}

/// Which workloads to mark now, and how far the others are.
///
/// # Guarantees
/// - Nothing is marked but what owns stale pods, has not this mark, and may be restarted; without a gap, unless the terms
///   allow one.
/// - While no workload with this mark that wants pods is complete, one at most is under way or marked; then `max_concurrent`
///   at most.
/// - Once a marked one failed, nothing more is marked.
#[must_use]
pub fn plan(consumers: &[Consumer], api_key: &str, mark: &str, terms: &Terms<'_>) -> Plan {
    let max_concurrent = terms.max_concurrent;
    let mut plan = Plan::default();
    let mut candidates: Vec<_> =
        consumers.iter().filter_map(|consumer| plan.sort(consumer, api_key, mark, terms)).collect();
    // One that was marked a moment ago and has no pod any more need not come up: the next one would go the same way.
    let gone = |reference: &&WorkloadRef| !consumers.iter().any(|consumer| consumer.is(reference));
    let paused =
        terms.resting.iter().filter(|(_, rest)| **rest == Rest::Pause).map(|(reference, _)| reference);
    plan.underway.extend(paused.filter(gone).cloned());
    // What is not well now would not come up with the new key either, and would say nothing of it. On the way back it waits for the
    // old one, and the others do not.
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
    /// Puts a consumer where it belongs; returns it where it could be marked.
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
        // Whoever took the mark away left pods that read the new value as well: they need not come up, and no other pod tells so.
        let set = matches!(terms.resting.get(reference), Some(Rest::Pause | Rest::Spent | Rest::Over));
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
            // The others do not wait for it.
            Some(Rest::Spent) => self.obstructed.push((owner.clone(), Reason::MarkTaken)),
            Some(Rest::Refused(words)) => self.obstructed.push((owner.clone(), Reason::Refused(words))),
        }
        None
    }

    /// The same of one that was marked.
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

/// Restarts a workload: marks its pod template, if it still is in this version. Nothing else of it is touched.
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
