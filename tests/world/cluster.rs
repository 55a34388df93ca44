//! Workloads whose pods read a key from a Secret and call Bags with it: their controllers, their kubelets, their clock.
//!
//! A model, as small as the operator can tell from the real ones: what a person declares (`consumer.rs`) becomes objects
//! in the API server (`objects.rs`), controllers replace pods when a template changes (`controller.rs`), and kubelets start
//! containers with the value that they have at hand (`kubelet.rs`). All of it is done at once, by the virtual clock, and
//! never fails: only the operator's own requests do. Where nothing is declared, nothing is done.
//!
//! Whoever drives it calls [`Cluster::step`] whenever time has moved or something was written, and lets the clock go no
//! further than [`Cluster::next_event`].
#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "cluster/consumer.rs"]
mod consumer;
#[path = "cluster/controller.rs"]
mod controller;
#[path = "cluster/history.rs"]
mod history;
#[path = "cluster/kubelet.rs"]
mod kubelet;
#[path = "cluster/objects.rs"]
mod objects;
#[path = "cluster/ordered.rs"]
mod ordered;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bags_operator::clock::Clock;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::apiserver::{ApiServer, Change, ChangeKind};

#[allow(unused_imports, reason = "each test binary uses its part")]
pub(crate) use {
    consumer::{Consumer, Kind, Reads},
    history::{FIELD, value_in},
};

use consumer::Breaks;
use controller::Workload;
use history::History;
use kubelet::Pod;

/// A running pod that holds a value, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) pod: String,
    /// Somebody outside of the cluster, of whom no pod tells.
    pub(crate) outside: bool,
    pub(crate) value: String,
    pub(crate) since: Timestamp,
}

/// What happened in a step.
#[derive(Default)]
pub(crate) struct Happened {
    /// In words.
    pub(crate) notes: Vec<String>,
    /// Calls to Bags: each pod calls with a value when it begins to hold it, and when it lets go of it.
    pub(crate) calls: Vec<Held>,
}

/// The workloads of one namespace; clones share them.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Mutex<State>>);

struct State {
    api: ApiServer,
    clock: Arc<dyn Clock>,
    namespace: &'static str,
    workloads: Vec<Workload>,
    /// By name.
    pods: BTreeMap<String, Pod>,
    secrets: History,
    /// The version up to which the API server's changes were seen.
    position: u64,
    happened: Happened,
}

impl Cluster {
    /// Without any workload. Secrets that are there already are not seen.
    pub(crate) fn new(api: ApiServer, clock: Arc<dyn Clock>, namespace: &'static str) -> Self {
        let position = api.version();
        Self(Arc::new(Mutex::new(State {
            api,
            clock,
            namespace,
            workloads: Vec::new(),
            pods: BTreeMap::new(),
            secrets: History::default(),
            position,
            happened: Happened::default(),
        })))
    }

    /// A person applies a workload, or applies it again once it was deleted; nothing happens where it cannot be. To the
    /// first one, Secrets that are there already are as if they were written now.
    pub(crate) fn declare(&self, consumer: Consumer) {
        let mut state = self.lock();
        let now = state.clock.monotonic();
        let template = objects::template(&consumer);
        if let Some(object) = objects::workload(&consumer, state.namespace, &template)
            && state.api.create(object).is_err()
        {
            return;
        }
        let before = state.workload(&consumer.name);
        let mut workload = Workload::new(consumer, template, now);
        match before {
            Some(index) => {
                state.collect_garbage(index);
                workload.made = state.workloads[index].made;
                state.workloads[index] = workload;
            }
            None => state.workloads.push(workload),
        }
    }

    /// Does all that is due. What happened.
    pub(crate) fn step(&self) -> Happened {
        let mut state = self.lock();
        if state.workloads.is_empty() {
            return Happened::default();
        }
        state.look();
        let now = state.clock.monotonic();
        while state.act(now) {}
        state.look();
        std::mem::take(&mut state.happened)
    }

    /// When something is due next; none: nothing moves until somebody writes something.
    pub(crate) fn next_event(&self) -> Option<Instant> {
        let state = self.lock();
        let pods = state.pods.values().filter_map(|pod| pod.next(&state.secrets));
        state.workloads.iter().filter_map(Workload::next).chain(pods).min()
    }

    /// Every value that a running pod holds.
    pub(crate) fn held(&self) -> Vec<Held> {
        let state = self.lock();
        state.pods.values().flat_map(Pod::all_held).collect()
    }

    /// What applications that call all the time call with.
    pub(crate) fn callers(&self) -> Vec<Held> {
        let state = self.lock();
        let often = |pod: &&Pod| !state.workloads[pod.workload].consumer.calls_seldom;
        state.pods.values().filter(often).flat_map(Pod::all_held).collect()
    }

    /// The running pods that hold a value.
    pub(crate) fn holders(&self, value: &str) -> Vec<Held> {
        self.held().into_iter().filter(|held| held.value == value).collect()
    }

    /// Everything that was declared runs, or has run.
    pub(crate) fn is_up(&self) -> bool {
        let state = self.lock();
        let made = state.workloads.iter().all(|workload| workload.made > 0);
        made && state.pods.values().all(|pod| pod.held().is_some() || pod.has_ended())
    }

    /// Each workload in words, for the end of a run.
    pub(crate) fn words(&self) -> Vec<String> {
        let state = self.lock();
        state.workloads.iter().enumerate().map(|(index, workload)| state.words_of(index, workload)).collect()
    }

    /// The resource and the name of a workload that was declared, where it is an object of its own.
    pub(crate) fn object_of(&self, name: &str) -> Option<&'static str> {
        let state = self.lock();
        state.workload(name).and_then(|index| state.workloads[index].consumer.kind.resource())
    }

    /// A person mends what keeps a workload's new containers from running.
    pub(crate) fn mend(&self, name: &str) {
        let mut state = self.lock();
        let now = state.clock.monotonic();
        if let Some(index) = state.workload(name) {
            state.workloads[index].fault = None;
            state.workloads[index].wake(now);
            state.wake_waiting(index, now);
        }
    }

    /// From now on a workload's containers are ready only with the first value that one of them ran with, as where its key was revoked.
    pub(crate) fn spoil(&self, name: &str) {
        let mut state = self.lock();
        if let Some(index) = state.workload(name) {
            state.workloads[index].fault = Some(Breaks::ReadyWithAnotherValue);
        }
    }

    /// The containers of a workload's running pods end, and are started again in their pods; whoever is outside copies
    /// the value again.
    pub(crate) fn kill_containers(&self, name: &str) {
        let mut state = self.lock();
        let now = state.clock.monotonic();
        if let Some(index) = state.workload(name) {
            state.kill_containers(index, now);
        }
    }

    /// Whoever outside of the cluster holds another value than this Secret does.
    pub(crate) fn who_outside_holds_another(&self, secret: &str) -> Vec<String> {
        let state = self.lock();
        let late = |pod: &&Pod| {
            let newest = state.secrets.newest(state.workloads[pod.workload].consumer.source());
            pod.held().is_some_and(|held| held.outside && Some(held.value) != newest)
        };
        let workloads = state.pods.values().filter(late).map(|pod| &state.workloads[pod.workload].consumer);
        workloads.filter(|consumer| consumer.secret == secret).map(|consumer| consumer.name.clone()).collect()
    }

    /// Whoever is outside stops calling.
    pub(crate) fn stop_outside(&self, name: &str) {
        let mut state = self.lock();
        let now = state.clock.monotonic();
        state.is_gone(&format!("{name}-outside"), now);
    }

    /// A person, or its controller where nobody knows that, deletes a bare pod, if it is there, and makes it again once it is gone.
    pub(crate) fn replace_bare_pod(&self, name: &str) {
        let mut state = self.lock();
        let now = state.clock.monotonic();
        if let Some(index) = state.workload(name) {
            state.workloads[index].wanted_again = true;
            state.workloads[index].wake(now);
        }
    }

    /// A person deletes all pods of a workload.
    pub(crate) fn delete_pods(&self, name: &str) {
        let mut state = self.lock();
        let Some(index) = state.workload(name) else { return };
        for pod in state.living(index) {
            state.delete_pod(&pod.name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn workload(&self, name: &str) -> Option<usize> {
        self.workloads.iter().position(|workload| workload.consumer.name == name)
    }

    /// The first thing that is due. Whether there was one.
    fn act(&mut self, now: Instant) -> bool {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if let Some(index) = self.workloads.iter().position(|workload| due(workload.next())) {
            self.workloads[index].due = None;
            self.control(index, now);
            return true;
        }
        let pod = self.pods.values().find(|pod| due(pod.next(&self.secrets)));
        let Some(name) = pod.map(|pod| pod.name.clone()) else { return false };
        self.go_on(&name, now);
        true
    }

    /// Takes note of what was written since.
    fn look(&mut self) {
        let now = self.clock.monotonic();
        for change in self.api.changes_since(self.position) {
            self.position = change.version;
            if change.object.pointer("/metadata/namespace").and_then(Value::as_str) == Some(self.namespace) {
                self.see(&change, now);
            }
        }
    }

    fn see(&mut self, change: &Change, now: Instant) {
        let name = change.object["metadata"]["name"].as_str().unwrap_or_default();
        let gone = change.kind == ChangeKind::Deleted;
        match change.resource {
            "secrets" => {
                self.secrets.note(name, now, if gone { None } else { Some(&change.object) });
                for index in 0..self.workloads.len() {
                    if self.workloads[index].consumer.reads_from(name) {
                        self.wake_waiting(index, now);
                    }
                }
            }
            "pods" if gone => self.is_gone(name, now),
            "pods" => self.is_deleted(name, &change.object, now),
            "deployments" | "statefulsets" | "daemonsets" => {
                let of = |workload: &Workload| {
                    workload.consumer.name == name
                        && workload.consumer.kind.resource() == Some(change.resource)
                };
                let generation = change.object["metadata"]["generation"].as_i64().unwrap_or_default();
                if let Some(workload) = self.workloads.iter_mut().find(|workload| of(workload))
                    && (gone || workload.seen_generation != generation)
                {
                    workload.wake(now);
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, words: String) {
        self.happened.notes.push(words);
    }

    fn words_of(&self, index: usize, workload: &Workload) -> String {
        let Workload { consumer, .. } = workload;
        let sources = [consumer.source()].into_iter().chain(consumer.second_source());
        let newest: Vec<Option<String>> = sources.map(|source| self.secrets.newest(source)).collect();
        let pods: Vec<&Pod> = self.pods.values().filter(|pod| pod.workload == index).collect();
        let ready = pods.iter().filter(|pod| pod.is_ready()).count();
        let is_fresh = |pod: &&&Pod| pod.all_held().map(|held| Some(held.value)).eq(newest.iter().cloned());
        let fresh = pods.iter().filter(is_fresh).count();
        let ended = pods.iter().filter(|pod| pod.has_ended()).count();
        let (kind, name, all) = (consumer.kind, &consumer.name, pods.len());
        format!(
            "{kind:?} {name}: {all} pods, {ready} ready, {ended} ended, {fresh} hold what the Secret holds"
        )
    }

    /// Writes an object's status; one that is gone has none.
    fn write_status(&self, resource: &str, name: &str, status: Value) {
        let _ = self.api.edit_status(resource, self.namespace, name, |object| object["status"] = status);
    }

    fn get(&self, resource: &str, name: &str) -> Option<Arc<Value>> {
        self.api.get(resource, self.namespace, name)
    }
}

/// A time as it stands in objects.
fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
