//! Controllers: what becomes of a workload whose template, size or pods have changed. Deployments here, those that go pod
//! by pod in `ordered.rs`.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    State,
    consumer::{Breaks, Consumer, Kind, Reads},
    kubelet::Pod,
    objects, seconds,
};

/// A controller sees to a change after so long.
const LAG: Duration = Duration::from_secs(1);
/// A Deployment that does not move for so long says so (`progressDeadlineSeconds`).
const PROGRESS: Duration = Duration::from_mins(10);

/// A workload that was declared.
pub(super) struct Workload {
    pub(super) consumer: Consumer,
    /// When its controller looks at it next.
    pub(super) due: Option<Instant>,
    pub(super) seen_generation: i64,
    /// Every template that it had, in the order of their first sight.
    templates: Vec<Value>,
    /// Number of the template that is rolled out, from 1 on.
    rolled: usize,
    /// How many pods were wanted when its controller last looked.
    wanted: usize,
    /// How many pods were made.
    pub(super) made: usize,
    /// What its containers do not run with.
    pub(super) fault: Option<Breaks>,
    /// The first value that one of them ran with.
    pub(super) first_value: Option<String>,
    /// A bare pod that is to be made again.
    pub(super) wanted_again: bool,
    /// How far a roll-out was when it last moved, and when it has taken too long.
    progress: (Progress, Option<Instant>),
    /// Whether its roll-out is told to go on, and since when that is told.
    progressing: Option<(bool, String)>,
}

/// New pods, ready ones among them, and all pods.
type Progress = (usize, usize, usize);

/// What a workload's object asks for.
pub(super) struct Asked {
    pub(super) object: Arc<Value>,
    /// Number of the template.
    pub(super) revision: usize,
    pub(super) replicas: usize,
}

impl Asked {
    /// The generation that was looked at.
    pub(super) fn generation(&self) -> &Value {
        &self.object["metadata"]["generation"]
    }

    fn paused(&self) -> bool {
        self.object["spec"]["paused"] == true
    }
}

impl Workload {
    pub(super) fn new(consumer: Consumer, template: Value, now: Instant) -> Self {
        Self {
            due: Some(now),
            seen_generation: 0,
            templates: vec![template],
            rolled: 1,
            wanted: 0,
            made: 0,
            fault: consumer.fault,
            first_value: None,
            wanted_again: false,
            progress: ((0, 0, 0), None),
            progressing: None,
            consumer,
        }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.into_iter().chain(self.progress.1).min()
    }

    /// Something changed that its controller sees to.
    pub(super) fn wake(&mut self, now: Instant) {
        let due = now + LAG;
        self.due = Some(self.due.map_or(due, |known| known.min(due)));
    }

    /// The template of a number.
    pub(super) fn template(&self, revision: usize) -> &Value {
        &self.templates[revision - 1]
    }

    fn revision_of(&mut self, template: &Value) -> usize {
        let known = self.templates.iter().position(|known| known == template);
        let index = known.unwrap_or_else(|| {
            self.templates.push(template.clone());
            self.templates.len() - 1
        });
        index + 1
    }

    /// Whether a roll-out has not moved for too long.
    fn has_stalled(&mut self, progress: Progress, (complete, paused): (bool, bool), now: Instant) -> bool {
        if complete || paused {
            self.progress = (progress, None);
            return false;
        }
        if self.progress.0 != progress {
            self.progress = (progress, Some(now + PROGRESS));
        }
        match self.progress.1 {
            Some(deadline) if deadline > now => false,
            Some(_) | None => {
                self.progress.1 = None;
                true
            }
        }
    }
}

impl State {
    /// The controller of a workload looks at it.
    pub(super) fn control(&mut self, index: usize, now: Instant) {
        match self.workloads[index].consumer.kind {
            Kind::Pod | Kind::Custom => self.bare_pod(index, now),
            Kind::Job => self.job(index, now),
            Kind::Outside => self.outside(index, now),
            kind @ (Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet) => {
                match self.asked(index, kind) {
                    None => self.collect_garbage(index),
                    Some(asked) => match kind {
                        Kind::Deployment => self.roll(index, &asked, now),
                        Kind::StatefulSet => self.in_order(index, &asked, now),
                        Kind::DaemonSet => self.on_nodes(index, &asked, now),
                        Kind::Pod | Kind::Custom | Kind::Job | Kind::Outside => {}
                    },
                }
            }
        }
    }

    fn asked(&mut self, index: usize, kind: Kind) -> Option<Asked> {
        let workload = &mut self.workloads[index];
        let object = self.api.get(kind.resource()?, self.namespace, &workload.consumer.name)?;
        let (spec, metadata) = (&object["spec"], &object["metadata"]);
        if !metadata["deletionTimestamp"].is_null() {
            return None;
        }
        workload.seen_generation = metadata["generation"].as_i64().unwrap_or_default();
        if spec["paused"] != true {
            workload.rolled = workload.revision_of(&spec["template"]);
        }
        let replicas = spec["replicas"].as_u64().and_then(|replicas| usize::try_from(replicas).ok());
        let (revision, replicas) = (workload.rolled, replicas.unwrap_or(workload.consumer.replicas));
        Some(Asked { revision, replicas, object })
    }

    /// The workload is gone: so is what it owned.
    pub(super) fn collect_garbage(&mut self, index: usize) {
        self.workloads[index].progress.1 = None;
        for pod in self.living(index) {
            self.delete_pod(&pod.name);
        }
        for revision in 1..=self.workloads[index].templates.len() {
            let name = format!("{}-{revision}", self.workloads[index].consumer.name);
            let _ = self.api.delete("replicasets", self.namespace, &name);
        }
    }

    /// Its pods that are neither ending nor at their end.
    pub(super) fn living(&self, index: usize) -> Vec<Pod> {
        let its = self.pods.values().filter(|pod| pod.workload == index);
        its.filter(|pod| !pod.is_ending() && !pod.has_ended()).cloned().collect()
    }

    /// Makes a pod. `place`: its ordinal, or its node.
    pub(super) fn make_pod(
        &mut self,
        index: usize,
        (name, revision, place): (String, usize, usize),
        owner: Option<Value>,
        now: Instant,
    ) {
        let workload = &mut self.workloads[index];
        if workload.fault == Some(Breaks::PodsOfAnotherTemplate) && revision > 1 {
            return;
        }
        workload.made += 1;
        let mut object = objects::pod(&name, self.namespace, place, workload.template(revision), owner);
        if workload.consumer.reads == Reads::Debugger {
            objects::debug(&mut object, &workload.consumer);
        }
        // A namespace that is going takes none.
        if self.api.create(object).is_err() {
            return;
        }
        let pod = Pod::new(name.clone(), index, revision, place, &workload.consumer, now);
        self.pods.insert(name.clone(), pod);
        self.note(format!("pod {name} is made"));
        self.report_pod(&name);
        self.look();
    }

    /// Deletes a pod; it has its grace to end.
    pub(super) fn delete_pod(&mut self, name: &str) {
        let _ = self.api.delete("pods", self.namespace, name);
        self.look();
    }

    fn bare_pod(&mut self, index: usize, now: Instant) {
        let workload = &self.workloads[index];
        let name = workload.consumer.name.clone();
        let owner = (workload.consumer.kind == Kind::Custom).then(|| objects::custom_owner(&name));
        let wanted = workload.made == 0 || workload.wanted_again;
        match (wanted, self.pods.get(&name).map(Pod::is_ending)) {
            (true, None) => {
                self.workloads[index].wanted_again = false;
                self.make_pod(index, (name, 1, 0), owner, now);
            }
            (true, Some(false)) => self.delete_pod(&name),
            // It is made again once it is gone.
            (true, Some(true)) | (false, _) => {}
        }
    }

    fn job(&mut self, index: usize, now: Instant) {
        let Workload { consumer, made, .. } = &self.workloads[index];
        if *made == 0 {
            let (name, owner) = (format!("{}-1", consumer.name), objects::job_owner(&consumer.name));
            self.make_pod(index, (name, 1, 0), Some(owner), now);
        }
    }

    /// Whoever is outside is no pod, and does what the application in one does.
    fn outside(&mut self, index: usize, now: Instant) {
        let workload = &mut self.workloads[index];
        if workload.made == 0 {
            workload.made = 1;
            let name = format!("{}-outside", workload.consumer.name);
            let pod = Pod::new(name.clone(), index, 1, 0, &workload.consumer, now);
            self.pods.insert(name, pod);
        }
    }

    /// A Deployment: new pods are made, and old ones go, as far as its strategy allows.
    fn roll(&mut self, index: usize, asked: &Asked, now: Instant) {
        let owner = self.replica_set(index, asked);
        self.grow_in_the_middle(index, asked, now);
        let pods = self.living(index);
        let (new, old): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| pod.revision == asked.revision);
        // A roll-out that was paused in its middle stays as it is.
        if !asked.paused() || old.is_empty() {
            let (make, delete) = if asked.object["spec"]["strategy"]["type"] == "Recreate" {
                let of_old = |pod: &Pod| pod.workload == index && pod.revision != asked.revision;
                anew(asked.replicas, new, old, self.pods.values().any(of_old))
            } else {
                let rolling = &asked.object["spec"]["strategy"]["rollingUpdate"];
                side_by_side(asked.replicas, new, old, (&rolling["maxSurge"], &rolling["maxUnavailable"]))
            };
            for _ in 0..make {
                let number = self.workloads[index].made + 1;
                let name = format!("{}-{}-{number}", self.workloads[index].consumer.name, asked.revision);
                self.make_pod(index, (name, asked.revision, number % 2), Some(owner.clone()), now);
            }
            for pod in delete {
                self.delete_pod(&pod.name);
            }
        }
        self.report_deployment(index, asked, now);
    }

    /// A Deployment that is scaled up in the middle of a roll-out gets pods of the old template as well, in proportion; here
    /// half of them.
    fn grow_in_the_middle(&mut self, index: usize, asked: &Asked, now: Instant) {
        let before = std::mem::replace(&mut self.workloads[index].wanted, asked.replicas);
        let old = self.living(index).into_iter().map(|pod| pod.revision).find(|it| *it != asked.revision);
        let Some(old) = old.filter(|_| asked.object["spec"]["strategy"]["type"] != "Recreate") else {
            return;
        };
        let name = self.workloads[index].consumer.name.clone();
        let owner = self.get("replicasets", &format!("{name}-{old}"));
        let owner = owner.map(|object| objects::owner("apps/v1", "ReplicaSet", &object));
        for _ in 0..asked.replicas.saturating_sub(before).div_ceil(2) {
            let number = self.workloads[index].made + 1;
            let pod = format!("{name}-{old}-{number}");
            self.make_pod(index, (pod, old, number % 2), owner.clone(), now);
        }
    }

    /// The ReplicaSet of the template; an owner for its pods.
    fn replica_set(&mut self, index: usize, asked: &Asked) -> Value {
        let workload = &self.workloads[index];
        let name = format!("{}-{}", workload.consumer.name, asked.revision);
        let there = self.get("replicasets", &name).or_else(|| {
            let template = workload.template(asked.revision);
            self.api.create(objects::replica_set(&name, asked.revision, &asked.object, template)).ok()
        });
        there.map_or(Value::Null, |object| objects::owner("apps/v1", "ReplicaSet", &object))
    }

    fn report_deployment(&mut self, index: usize, asked: &Asked, now: Instant) {
        let pods = self.living(index);
        let count = |wanted: &dyn Fn(&Pod) -> bool| pods.iter().filter(|pod| wanted(pod)).count();
        let new = count(&|pod| pod.revision == asked.revision);
        let ready = count(&Pod::is_ready);
        let ready_of = |revision| count(&|pod| pod.is_ready() && pod.revision == revision);
        for revision in 1..=self.workloads[index].templates.len() {
            let of = count(&|pod| pod.revision == revision);
            self.report_replica_set(index, revision, of, ready_of(revision));
        }
        let wanted = asked.replicas;
        let complete = new == wanted && pods.len() == wanted && ready == wanted;
        let progress = (new, ready_of(asked.revision), pods.len());
        let stamp = self.stamp();
        let workload = &mut self.workloads[index];
        let stalled = workload.has_stalled(progress, (complete, asked.paused()), now);
        let progressing = match (complete, stalled) {
            (true, _) => (true, "NewReplicaSetAvailable"),
            (false, true) => (false, "ProgressDeadlineExceeded"),
            (false, false) => (true, "ReplicaSetUpdated"),
        };
        // As the real one has it: another reason of the same word keeps the time.
        let known = workload.progressing.take().filter(|(goes_on, _)| *goes_on == progressing.0);
        let since = known.map_or(stamp, |(_, since)| since);
        workload.progressing = Some((progressing.0, since.clone()));
        let name = workload.consumer.name.clone();
        let available =
            if ready >= wanted { "MinimumReplicasAvailable" } else { "MinimumReplicasUnavailable" };
        let status = json!({
            "observedGeneration": asked.generation(), "replicas": pods.len(), "updatedReplicas": new,
            "readyReplicas": ready, "availableReplicas": ready, "unavailableReplicas": pods.len() - ready,
            "conditions": [
                {"type": "Available", "status": word(ready >= wanted), "reason": available},
                {
                    "type": "Progressing", "status": word(progressing.0), "reason": progressing.1,
                    "lastTransitionTime": since,
                },
            ],
        });
        self.write_status("deployments", &name, status);
    }

    fn report_replica_set(&mut self, index: usize, revision: usize, replicas: usize, ready: usize) {
        let name = format!("{}-{revision}", self.workloads[index].consumer.name);
        let resized = self.api.edit("replicasets", self.namespace, &name, |object| {
            object["spec"]["replicas"] = json!(replicas);
        });
        let Ok(object) = resized else { return };
        let status = json!({
            "observedGeneration": object["metadata"]["generation"], "replicas": replicas,
            "fullyLabeledReplicas": replicas, "readyReplicas": ready, "availableReplicas": ready,
        });
        self.write_status("replicasets", &name, status);
    }

    /// Now, as it stands in objects.
    pub(super) fn stamp(&self) -> String {
        seconds(self.clock.wall())
    }
}

/// How many pods are made, and which go, where all old ones go before the first new one is made.
fn anew(replicas: usize, new: Vec<Pod>, old: Vec<Pod>, old_are_there: bool) -> (usize, Vec<Pod>) {
    if old_are_there {
        return (0, old);
    }
    let make = replicas.saturating_sub(new.len());
    (make, new.into_iter().skip(replicas).collect())
}

/// The same where new ones are made while old ones are there: at most so many above the wanted number, at least so many
/// ready ones below it.
fn side_by_side(
    replicas: usize,
    new: Vec<Pod>,
    mut old: Vec<Pod>,
    (surge, unavailable): (&Value, &Value),
) -> (usize, Vec<Pod>) {
    let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
    let all = new.len() + old.len();
    let ready = new.iter().chain(&old).filter(|pod| pod.is_ready()).count();
    let unready = new.iter().filter(|pod| !pod.is_ready()).count();
    let most = if old.is_empty() { replicas } else { replicas + number(surge) };
    let make = replicas.saturating_sub(new.len()).min(most.saturating_sub(all));
    let fewest = replicas.saturating_sub(number(unavailable));
    let (mut go, candidates) = if old.is_empty() {
        (all.saturating_sub(replicas), new)
    } else {
        // What does not work goes first.
        old.sort_by_key(Pod::is_ready);
        (all.saturating_sub(fewest + unready), old)
    };
    let mut spare = ready.saturating_sub(fewest);
    let mut delete = Vec::new();
    for pod in candidates {
        if go == 0 || pod.is_ready() && spare == 0 {
            break;
        }
        go -= 1;
        spare -= usize::from(pod.is_ready());
        delete.push(pod);
    }
    (make, delete)
}

fn word(status: bool) -> &'static str {
    if status { "True" } else { "False" }
}
