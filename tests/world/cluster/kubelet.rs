//! Kubelets, and the applications in their containers: when one starts, with which value, and when it ends.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    Held, State,
    consumer::{Breaks, Consumer, Kind},
    history::{History, before},
    objects::{self, Container},
    seconds,
};

/// A container is ready so long after it started.
const READY: Duration = Duration::from_secs(1);
/// A pod that runs nothing needs so long to end.
const NOTHING_RUNS: Duration = Duration::from_secs(1);

/// A pod.
#[derive(Clone)]
pub(super) struct Pod {
    pub(super) name: String,
    /// Its place in the list of workloads.
    pub(super) workload: usize,
    /// Number of the template that it was made of.
    pub(super) revision: usize,
    /// Its ordinal, or its node.
    pub(super) place: usize,
    /// It is no pod, but somebody outside.
    outside: bool,
    /// Its Secret, and the field that holds the key.
    source: (String, String),
    /// A changed file is read again so long after its Secret was written; none: never.
    rereads: Option<Duration>,
    life: Life,
    restarts: u32,
    /// It was deleted, and ends then.
    ends: Option<Instant>,
}

/// What its container does.
#[derive(Clone)]
enum Life {
    /// It is started then.
    Starting(Instant),
    /// It cannot be started, and why; it is tried again when something changes.
    Waiting(&'static str),
    Running(Running),
    /// It came to its end, and is not started again.
    Ended(Timestamp),
}

#[derive(Clone)]
struct Running {
    value: String,
    /// What its second Secret held when it started, and since when it has that.
    second: Option<(String, Timestamp)>,
    /// When it began to hold the value, by the API server's clock.
    since: Timestamp,
    /// Its files are the Secret as it was then.
    as_of: Instant,
    /// When it started, by its node's clock.
    started: Timestamp,
    /// None: it is ready, or never will be.
    ready_at: Option<Instant>,
    /// It will never be ready.
    unready: bool,
    /// It comes to its end then.
    done_at: Option<Instant>,
}

impl Pod {
    pub(super) fn new(
        name: String,
        workload: usize,
        revision: usize,
        place: usize,
        consumer: &Consumer,
        now: Instant,
    ) -> Self {
        Self {
            name,
            workload,
            revision,
            place,
            outside: consumer.kind == Kind::Outside,
            source: (consumer.secret.clone(), consumer.field.clone()),
            rereads: consumer.reads.again().then_some(consumer.refresh_lag),
            life: Life::Starting(now + consumer.start_lag),
            restarts: 0,
            ends: None,
        }
    }

    /// When something happens to it next.
    pub(super) fn next(&self, secrets: &History) -> Option<Instant> {
        let next = match &self.life {
            Life::Starting(at) if self.ends.is_none() => Some(*at),
            Life::Running(running) => {
                let reread = self.next_reread(running, secrets);
                running.ready_at.into_iter().chain(running.done_at).chain(reread).min()
            }
            Life::Starting(_) | Life::Waiting(_) | Life::Ended(_) => None,
        };
        next.into_iter().chain(self.ends).min()
    }

    /// Files of a pod that ends are refreshed no more.
    fn next_reread(&self, running: &Running, secrets: &History) -> Option<Instant> {
        if self.ends.is_some() {
            return None;
        }
        let changed = secrets.changed_after(self.source(), running.as_of)?;
        self.rereads.map(|lag| changed + lag)
    }

    fn source(&self) -> (&str, &str) {
        (&self.source.0, &self.source.1)
    }

    /// What its application calls Bags with, from its first Secret.
    pub(super) fn held(&self) -> Option<Held> {
        self.all_held().next()
    }

    /// The same from both, where it reads two.
    pub(super) fn all_held(&self) -> impl Iterator<Item = Held> {
        let running = match &self.life {
            Life::Running(running) => Some(running),
            Life::Starting(_) | Life::Waiting(_) | Life::Ended(_) => None,
        };
        let both = running.into_iter().flat_map(|Running { value, since, second, .. }| {
            let second = second.iter().map(|(value, since)| (value, since));
            [(value, since)].into_iter().chain(second)
        });
        both.map(|(value, since)| Held {
            pod: self.name.clone(),
            outside: self.outside,
            value: value.clone(),
            since: *since,
        })
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(&self.life, Life::Running(running) if running.ready_at.is_none() && !running.unready)
    }

    /// It was deleted.
    pub(super) fn is_ending(&self) -> bool {
        self.ends.is_some()
    }

    /// It came to its end by itself.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.life, Life::Ended(_))
    }

    fn container(&self) -> Container {
        match &self.life {
            Life::Starting(_) => Container::Waiting("ContainerCreating"),
            Life::Waiting(reason) => Container::Waiting(reason),
            Life::Running(running) => {
                Container::Running { started: seconds(running.started), ready: self.is_ready() }
            }
            Life::Ended(at) => Container::Ended { at: seconds(*at) },
        }
    }
}

impl State {
    /// Whatever is due for a pod.
    pub(super) fn go_on(&mut self, name: &str, now: Instant) {
        let Some(pod) = self.pods.get(name) else { return };
        if pod.ends.is_some_and(|ends| ends <= now) {
            let _ = self.api.remove_pod(self.namespace, name);
            self.look();
            // Whatever the server says, the node is rid of it.
            return self.is_gone(name, now);
        }
        match pod.life.clone() {
            Life::Starting(_) => self.start(name, now),
            Life::Running(running) => self.run_on(name, running, now),
            Life::Waiting(_) | Life::Ended(_) => {}
        }
    }

    fn start(&mut self, name: &str, now: Instant) {
        let Some(pod) = self.pods.get(name) else { return };
        let workload = &self.workloads[pod.workload];
        let Consumer { cache_lag, skew, runs_for, kind, .. } = &workload.consumer;
        // What is written at this very moment comes after it; what a cache does not have is fetched.
        let just_before = before(now, Duration::from_nanos(1));
        let as_of = before(just_before, *cache_lag);
        let (as_of, value) = match self.secrets.at(pod.source(), as_of) {
            Some(value) => (as_of, Some(value)),
            None => (just_before, self.secrets.newest(pod.source())),
        };
        let second = workload.consumer.second_source();
        let second = second.map(|it| self.secrets.at(it, as_of).or_else(|| self.secrets.newest(it)));
        let wall = self.clock.wall();
        let first = workload.first_value.clone().or_else(|| value.clone());
        let breaks = match workload.fault {
            None | Some(Breaks::PodsOfAnotherTemplate) => false,
            Some(Breaks::AnotherTemplate) => pod.revision > 1,
            Some(Breaks::AnotherValue) => value != first,
            Some(Breaks::ReadyWithAnotherValue) => false,
        };
        let unready = workload.fault == Some(Breaks::ReadyWithAnotherValue) && value != first;
        let life = match value {
            _ if breaks => Life::Waiting("CrashLoopBackOff"),
            None => Life::Waiting("CreateContainerConfigError"),
            Some(_) if second == Some(None) => Life::Waiting("CreateContainerConfigError"),
            Some(value) => Life::Running(Running {
                value,
                second: second.flatten().map(|value| (value, wall)),
                since: wall,
                as_of,
                started: wall.checked_add(*skew).unwrap_or(wall),
                ready_at: (!unready).then_some(now + READY),
                unready,
                done_at: kind.ends_by_itself().then(|| now + *runs_for),
            }),
        };
        let index = pod.workload;
        self.workloads[index].first_value = first;
        self.note(match &life {
            Life::Waiting(reason) => format!("pod {name} waits: {reason}"),
            Life::Starting(_) | Life::Running(_) | Life::Ended(_) => format!("pod {name} starts"),
        });
        self.live(name, life);
    }

    fn run_on(&mut self, name: &str, mut running: Running, now: Instant) {
        let Some(pod) = self.pods.get(name) else { return };
        if running.done_at.is_some_and(|at| at <= now) {
            self.call(name);
            self.note(format!("pod {name} has done its work"));
            return self.live(name, Life::Ended(self.clock.wall()));
        }
        if running.ready_at.is_some_and(|at| at <= now) {
            running.ready_at = None;
            let index = pod.workload;
            self.workloads[index].wake(now);
            self.pod_is(name, Life::Running(running));
            self.note(format!("pod {name} is ready"));
            return self.report_pod(name);
        }
        if pod.ends.is_some() {
            return;
        }
        let Some(changed) = self.secrets.changed_after(pod.source(), running.as_of) else { return };
        running.as_of = changed;
        // A Secret that is gone leaves the files as they are.
        let Some(value) = self.secrets.at(pod.source(), changed) else {
            return self.pod_is(name, Life::Running(running));
        };
        self.call(name);
        running.value = value;
        running.since = self.clock.wall();
        self.note(format!("pod {name} reads its file again"));
        self.pod_is(name, Life::Running(running));
        self.call(name);
    }

    /// Its container does something else from now on.
    fn live(&mut self, name: &str, life: Life) {
        self.pod_is(name, life);
        self.call(name);
        self.report_pod(name);
    }

    fn pod_is(&mut self, name: &str, life: Life) {
        if let Some(pod) = self.pods.get_mut(name) {
            pod.life = life;
        }
    }

    /// Its application calls Bags, if it runs.
    fn call(&mut self, name: &str) {
        self.happened.calls.extend(self.pods.get(name).into_iter().flat_map(Pod::all_held));
    }

    /// Writes a pod's status.
    pub(super) fn report_pod(&mut self, name: &str) {
        let Some(pod) = self.pods.get(name) else { return };
        let status = objects::pod_status(
            self.workloads[pod.workload].consumer.reads,
            &pod.container(),
            pod.restarts,
            &self.stamp(),
        );
        self.write_status("pods", name, status);
    }

    /// Somebody deleted a pod: it has its grace to end, and works on until then.
    pub(super) fn is_deleted(&mut self, name: &str, object: &Value, now: Instant) {
        let grace = object["metadata"]["deletionGracePeriodSeconds"].as_u64();
        let (Some(grace), Some(pod)) = (grace, self.pods.get_mut(name)) else { return };
        let grace = Duration::from_secs(grace);
        let runs = matches!(pod.life, Life::Running(_));
        let ends = now + if runs { grace } else { grace.min(NOTHING_RUNS) };
        let (index, first) = (pod.workload, pod.ends.is_none());
        pod.ends = Some(pod.ends.map_or(ends, |known| known.min(ends)));
        if first {
            self.workloads[index].wake(now);
            self.note(format!("pod {name} is deleted"));
        }
    }

    /// A pod is there no more.
    pub(super) fn is_gone(&mut self, name: &str, now: Instant) {
        self.call(name);
        if let Some(pod) = self.pods.remove(name) {
            self.workloads[pod.workload].wake(now);
            self.note(format!("pod {name} is gone"));
        }
    }

    /// Containers that wait are tried again: what they waited for may be there.
    pub(super) fn wake_waiting(&mut self, index: usize, now: Instant) {
        let Consumer { start_lag, cache_lag, .. } = self.workloads[index].consumer;
        for pod in self.pods.values_mut().filter(|pod| pod.workload == index) {
            if matches!(pod.life, Life::Waiting(_)) {
                pod.life = Life::Starting(now + start_lag + cache_lag);
            }
        }
    }

    /// Containers end, and are started again in their pods.
    pub(super) fn kill_containers(&mut self, index: usize, now: Instant) {
        let start_lag = self.workloads[index].consumer.start_lag;
        let running = |pod: &&Pod| matches!(pod.life, Life::Running(_)) && pod.workload == index;
        let names: Vec<String> = self.pods.values().filter(running).map(|pod| pod.name.clone()).collect();
        for name in names {
            self.note(format!("the container of pod {name} ends"));
            self.call(&name);
            if let Some(pod) = self.pods.get_mut(&name) {
                pod.restarts += 1;
            }
            self.pod_is(&name, Life::Starting(now + start_lag));
            self.report_pod(&name);
        }
        self.workloads[index].wake(now);
    }
}
