//! One run of a workflow: drives the reconcilers, lets one request through at a time, and watches the oracles.
//!
//! Flow: wait until every task waits; show the caches what happened; let the first parked request through, with the
//! fault that the plan has for it; where none is parked, begin the first reconciler that is due; where none is due, let
//! people act; else the clock jumps to the next deadline. Nothing sleeps, nothing depends on the machine's time.

mod consumers;
mod creations;
mod effects;
mod lives;
mod people;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bags_operator::{clock::Clock, config::Config};
use futures::future::{FutureExt, select_all};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use super::{
    clock::{Idle, OffClock, VirtualClock},
    creation::Creation,
    end,
    fault::{Fault, Label, Seam, Strike},
    gate::{Gate, Parked, Sent},
    oracle::Oracle,
    process::{Machine, Panics, Process, Role},
    scene::{CLUSTER, Scene},
    trace::{Step, Trace},
    workflow::Workflow,
};

/// A run that takes more requests than this does not come to rest.
const MOST_REQUESTS: usize = 4000;
/// Nor does one that takes longer, by the virtual clock: the longest pause of the operator is a day.
const LONGEST: Duration = Duration::from_hours(40);
/// A run in which all is left to chance has so many faults, and where rotations have their own, so many in those.
const MOST_FAULTS: usize = 6;
/// The end must stay as it is for so long: longer than a resync with its spread.
const REST: Duration = Duration::from_mins(13);
/// What is to happen in a run.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) workflow: Arc<Workflow>,
    /// After how many requests the workflow's people act.
    pub(crate) act_after: usize,
    pub(crate) strikes: Vec<Strike>,
    pub(crate) seed: u64,
    /// Random order of requests, random faults, random deeds of people.
    pub(crate) chaos: bool,
    /// The end that this run must come to, in words; none: any that obeys the law.
    pub(crate) reference: Option<Arc<str>>,
    /// Whether the trace is kept.
    pub(crate) traced: bool,
}

impl Plan {
    /// Whether a process that wakes up late dies before it has looked after what it did: what it made then stays. No
    /// creation has a version that could conflict (`docs/residual-risks.md`).
    fn kills_a_late_riser(&self) -> bool {
        let [first, second] = self.strikes.as_slice() else { return false };
        let late = matches!(first.fault, Fault::FreezeBefore | Fault::FreezeAfter | Fault::FreezeAlone);
        let dies = matches!(second.fault, Fault::CrashBefore | Fault::CrashAfter | Fault::CrashLong);
        // The creation itself, or a look after it: whatever else it dies of leaves no Secret.
        let looks = ["create secrets ", "get apikeys ", "get secrets ", "delete secrets "];
        let then = looks.iter().any(|what| second.label.what.starts_with(what));
        late && dies && then && first.label.incarnation == second.label.incarnation
    }
}

/// A request as a run saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) label: Label,
    pub(crate) seam: Seam,
    pub(crate) mutates: bool,
}

/// What a run came to.
pub(crate) struct Report {
    pub(crate) violations: Vec<String>,
    /// Every request, in order.
    pub(crate) seen: Vec<Seen>,
    /// Of the faults that were planned, those whose request never came.
    pub(crate) unreached: Vec<Strike>,
    /// Faults that happened.
    pub(crate) struck: usize,
    /// Of those, faults in the middle of a rotation.
    pub(crate) struck_in_rotations: usize,
    /// When Bags was asked, by virtual time.
    pub(crate) bags_asked: Vec<Duration>,
    /// The end in words.
    pub(crate) end: String,
    /// Virtual time until rest.
    pub(crate) lasted: Duration,
    pub(crate) trace: Trace,
}

/// Something that will happen at its time.
enum Timer {
    /// A process starts.
    Start(Role),
    /// A frozen process goes on.
    Thaw(u32),
    /// The effect of a slow request.
    Effect(Box<Parked>),
}

/// One run.
struct Run<'a> {
    plan: &'a Plan,
    config: &'a Config,
    idle: Idle,
    clock: Arc<VirtualClock>,
    gate: Gate,
    scene: Scene,
    oracle: Oracle,
    bags: bags_operator::sandbox::InProcess,
    processes: Vec<Process>,
    panics: Panics,
    incarnations: u32,
    timers: Vec<(Instant, Timer)>,
    /// Answers that never come, or come when their process goes on.
    held: Vec<(u32, Held)>,
    /// ApiKeys that people want, and how many reviews were sent.
    creations: Vec<Creation>,
    asked: usize,
    /// Which of the planned faults have not happened yet.
    strikes: BTreeSet<usize>,
    rng: StdRng,
    /// How many of the workflow's deeds are done, and when the last one was.
    acted: usize,
    acted_at: Instant,
    seen: Vec<Seen>,
    bags_asked: Vec<Duration>,
    struck: usize,
    struck_in_rotations: usize,
    /// Since when nothing has been written.
    quiet_since: Instant,
    last_person: Instant,
    trace: Trace,
}

/// An answer on hold.
#[expect(dead_code, reason = "a sender that is kept alive keeps its receiver waiting")]
enum Held {
    /// For ever: the caller's deadline ends it.
    Never(Sent),
    Kube(tokio::sync::oneshot::Sender<super::gate::KubeAnswer>, super::gate::KubeAnswer),
    Bags(tokio::sync::oneshot::Sender<super::gate::BagsAnswer>, super::gate::BagsAnswer),
    /// A request that has not been sent yet.
    Unsent(Box<Parked>),
}

/// Runs a plan, on a runtime of its own.
pub(crate) fn run(plan: &Plan, config: &Config) -> Report {
    let idle = Idle::default();
    let parking = idle.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .on_thread_park(move || parking.about_to_park())
        .build()
        .unwrap_or_else(|error| panic!("no runtime: {error}"));
    runtime.block_on(async {
        let mut run = Run::new(plan, config, idle);
        run.start_process(Role::Leader);
        if plan.workflow.has_followers() {
            run.start_process(Role::Follower);
        }
        let violations = run.go().await;
        let unreached = run.strikes.iter().map(|index| plan.strikes[*index].clone()).collect();
        let Run { seen, bags_asked, struck, struck_in_rotations, trace, scene, processes, clock, .. } = run;
        drop(processes);
        let (end, lasted) = (plan.workflow.words(&scene), clock.passed());
        Report { violations, seen, unreached, struck, struck_in_rotations, bags_asked, end, lasted, trace }
    })
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, config: &'a Config, idle: Idle) -> Self {
        let clock = Arc::new(VirtualClock::new());
        let now = clock.monotonic();
        let scene = plan.workflow.scene(&clock, plan.seed);
        let oracle = Oracle::new(config.timings.clone(), &scene);
        let mut trace = Trace::new(plan.traced);
        trace.note(|| format!("workflow \"{}\", seed {}", plan.workflow.name, plan.seed));
        Self {
            plan,
            config,
            idle,
            gate: Gate::default(),
            bags: scene.sandbox.service(),
            scene,
            oracle,
            processes: Vec::new(),
            panics: Panics::default(),
            incarnations: 0,
            timers: Vec::new(),
            held: Vec::new(),
            creations: Vec::new(),
            asked: 0,
            strikes: (0..plan.strikes.len()).collect(),
            rng: StdRng::seed_from_u64(plan.seed),
            acted: 0,
            acted_at: now,
            seen: Vec::new(),
            bags_asked: Vec::new(),
            struck: 0,
            struck_in_rotations: 0,
            quiet_since: now,
            last_person: now,
            clock,
            trace,
        }
    }

    fn now(&self) -> Instant {
        self.clock.monotonic()
    }

    fn start_process(&mut self, role: Role) {
        self.incarnations += 1;
        let machine = Machine {
            config: self.config,
            gate: &self.gate,
            clock: self.clock_of(role),
            seed: self.plan.seed,
            cluster: CLUSTER,
            panics: &self.panics,
        };
        let mut process = Process::start(&machine, self.incarnations, role);
        process.relist(&self.scene.api, self.clock.monotonic());
        self.trace.note(|| format!("process {} starts", process.incarnation));
        self.processes.push(process);
    }

    /// The leader's is right: the times of its licences are what others are judged by.
    fn clock_of(&self, role: Role) -> Arc<dyn Clock> {
        match role {
            Role::Leader if self.incarnations > 1 => {
                Arc::new(OffClock { clock: self.clock.clone(), by: self.plan.workflow.successors_clock() })
            }
            Role::Leader => self.clock.clone(),
            Role::Follower => {
                Arc::new(OffClock { clock: self.clock.clone(), by: self.plan.workflow.followers_clock() })
            }
        }
    }

    /// Until rest, or until something is wrong.
    async fn go(&mut self) -> Vec<String> {
        loop {
            self.idle.reached().await;
            let now = self.now();
            for process in self.processes.iter_mut().filter(|process| !process.frozen()) {
                process.collect(now);
                process.watch(&self.scene.api, now);
            }
            // Whoever was relieved ends once it has nothing left to do.
            self.processes.retain(|process| !process.retired || process.frozen() || process.busy());
            for words in self.panics.take() {
                self.oracle.blame(format!("panic in the operator: {words}"));
            }
            if !self.oracle.found().is_empty() {
                return self.oracle.found().to_vec();
            }
            if self.seen.len() > MOST_REQUESTS || self.clock.passed() > LONGEST {
                return self.no_rest();
            }
            if self.people_act()
                || self.cluster_goes_on().await
                || self.create()
                || self.let_one_through().await
                || self.begin_one()
                || self.fire_timers().await
            {
                continue;
            }
            if self.at_rest() {
                return Vec::new();
            }
            self.wait().await;
        }
    }

    fn no_rest(&self) -> Vec<String> {
        let mut left = end::unfinished(&self.scene, &self.oracle);
        left.extend(self.open_wishes());
        if let Some(difference) = self.difference() {
            left.push(difference);
        }
        if self.acted >= self.plan.workflow.deeds().len() {
            let words = self.plan.workflow.words(&self.scene);
            left.extend(self.plan.workflow.missing(&words).map(|words| format!("the end lacks [{words}]")));
        }
        if left.is_empty() {
            left.push("it is as it should be and goes on writing".to_owned());
        }
        let when =
            format!("no rest after {} requests and {} s", self.seen.len(), self.clock.passed().as_secs());
        vec![format!("liveness: {when}: {}", left.join("; "))]
    }

    /// Where the end is another one than it should be: what differs.
    fn difference(&self) -> Option<String> {
        let reference = self.plan.reference.as_deref()?;
        let words = self.plan.workflow.words(&self.scene);
        if words == reference {
            return None;
        }
        let (ours, theirs): (BTreeSet<&str>, BTreeSet<&str>) =
            (words.lines().collect(), reference.lines().collect());
        let mut more: Vec<&str> = ours.difference(&theirs).copied().collect();
        let less: Vec<&str> = theirs.difference(&ours).copied().collect();
        if self.plan.kills_a_late_riser() {
            more.retain(|line| !line.starts_with("Secret "));
        }
        if more.is_empty() && less.is_empty() {
            return None;
        }
        Some(format!(
            "the undisturbed run ends with [{}], this one with [{}]",
            less.join(" | "),
            more.join(" | ")
        ))
    }

    /// Nothing was written for a while, nothing is left to do, and the end is the right one.
    fn at_rest(&mut self) -> bool {
        // A deed after more requests than the run has is never done.
        let all_acted = self.acted >= self.plan.workflow.deeds().len()
            || (self.acted == 0 && !self.plan.chaos && self.seen.len() < self.plan.act_after);
        let waited = self.now().saturating_duration_since(self.quiet_since) >= REST;
        waited
            && all_acted
            && self.timers.is_empty()
            && self.scene.cluster.next_event().is_none()
            && self.open_wishes().next().is_none()
            && end::unfinished(&self.scene, &self.oracle).is_empty()
            && self.difference().is_none()
            && !self.is_expected_to_go_on()
    }

    /// What the workflow says of its end is not so yet: the operator's next try may be an hour away.
    fn is_expected_to_go_on(&self) -> bool {
        let workflow = &self.plan.workflow;
        self.acted >= workflow.deeds().len()
            && workflow.missing(&workflow.words(&self.scene)).next().is_some()
    }

    /// Lets the next request through.
    async fn let_one_through(&mut self) -> bool {
        let frozen: Vec<u32> = self
            .processes
            .iter()
            .filter(|process| process.frozen())
            .map(|process| process.incarnation)
            .collect();
        let living: Vec<u32> = self.processes.iter().map(|process| process.incarnation).collect();
        let may_pass =
            |label: &Label| living.contains(&label.incarnation) && !frozen.contains(&label.incarnation);
        let (chaos, rng) = (self.plan.chaos, &mut self.rng);
        let next = self.gate.take(may_pass, |count| if chaos { rng.random_range(0..count) } else { 0 });
        let Some(parked) = next else { return false };
        let in_a_rotation = self.oracle.rotation_is_under_way();
        let fault = self.fault_for(&parked, in_a_rotation);
        self.seen.push(Seen { label: parked.label.clone(), seam: parked.seam(), mutates: parked.mutates() });
        if parked.seam() == Seam::Bags {
            self.bags_asked.push(self.clock.passed());
        }
        self.struck += usize::from(fault.is_some());
        self.struck_in_rotations += usize::from(fault.is_some() && in_a_rotation);
        self.carry_out(parked, fault).await;
        true
    }

    fn fault_for(&mut self, parked: &Parked, in_a_rotation: bool) -> Option<Fault> {
        let planned = self.plan.strikes.iter().position(|strike| strike.label == parked.label);
        if let Some(index) = planned.filter(|index| self.strikes.remove(index)) {
            return Some(self.plan.strikes[index].fault);
        }
        // Creations would use up all of them before a rotation begins.
        let struck = match (self.plan.workflow.has_faults_for_rotations(), in_a_rotation) {
            (false, _) => self.struck,
            (true, false) => self.struck - self.struck_in_rotations,
            (true, true) => self.struck_in_rotations,
        };
        if !self.plan.chaos || struck >= MOST_FAULTS || !self.rng.random_bool(0.06) {
            return None;
        }
        let seam = parked.seam();
        let possible: Vec<Fault> =
            Fault::ALL.iter().copied().filter(|it| it.happens_on(seam) && it.is_by_chance()).collect();
        Some(possible[self.rng.random_range(0..possible.len())])
    }

    async fn carry_out(&mut self, parked: Parked, fault: Option<Fault>) {
        let label = parked.label.clone();
        let before = self.trace.is_kept().then(|| self.ledger_in_words());
        let passed = self.clock.passed();
        if fault.is_some() {
            self.oracle.disturbed(self.clock.wall());
        }
        let answer = match parked.sent {
            Sent::Kube(request, answer) => self.kube(&label, request, answer, fault),
            Sent::Bags(request, answer) => self.bags(&label, request, answer, fault).await,
            Sent::Review(verdict) => self.answer_review(&label, verdict, fault),
        };
        let after = self.trace.is_kept().then(|| self.ledger_in_words());
        let (number, ledger) = (self.seen.len(), (before, after));
        self.trace.step(&Step { number, passed, label: &label, fault, answer: &answer, ledger });
    }

    fn ledger_in_words(&self) -> String {
        let slots = super::oracle::ledger(&self.scene).unwrap_or_default().slots;
        let one = |slot: &bags_operator::api::account::Slot| {
            let attempt = slot.attempt.as_deref().map_or_else(String::new, |attempt| format!(" {attempt}"));
            let published = slot.published.map_or_else(String::new, |number| format!(" switch {number}"));
            format!("{}:{}{attempt}{published}", slot.owner.name, slot.state.as_str())
        };
        slots.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// Begins the first reconciler that is due.
    fn begin_one(&mut self) -> bool {
        let now = self.now();
        for process in &mut self.processes {
            if let Some(object) = process.ready(now).first() {
                let incarnation = process.incarnation;
                self.trace.note(|| format!("process {incarnation} looks at {object:?}"));
                process.begin(object);
                return true;
            }
        }
        false
    }

    async fn fire_timers(&mut self) -> bool {
        let now = self.now();
        let due =
            self.timers.iter().enumerate().filter(|(_, (at, _))| *at <= now).min_by_key(|(_, (at, _))| *at);
        let Some(index) = due.map(|(index, _)| index) else { return false };
        match self.timers.remove(index).1 {
            Timer::Start(role) => self.start_process(role),
            Timer::Thaw(incarnation) => self.thaw(incarnation).await,
            Timer::Effect(parked) => {
                let Parked { label, sent } = *parked;
                match sent {
                    Sent::Bags(request, _) => drop(self.bags_effect(&label, request).await),
                    Sent::Kube(request, _) => drop(self.kube_effect(&label, request, false)),
                    Sent::Review(_) => {}
                }
                self.trace.note(|| format!("the effect of {label} comes late"));
            }
        }
        true
    }

    /// The clock jumps to whatever happens next.
    async fn wait(&mut self) {
        let rest = Some(self.quiet_since + REST).filter(|at| *at > self.now());
        let deed = self.plan.workflow.deeds().get(self.acted).map(|deed| self.acted_at + deed.after);
        let deed = deed.filter(|at| *at > self.now());
        let next = self
            .processes
            .iter()
            .filter_map(Process::next_due)
            .chain(self.timers.iter().map(|(at, _)| *at))
            .chain(self.next_creation())
            .chain(self.scene.cluster.next_event())
            .chain([self.last_person + people::PERSON])
            .chain(rest)
            .chain(deed)
            .min()
            .unwrap_or(self.now() + REST);
        let ends = self.processes.iter_mut().map(|process| process.run_end().boxed_local());
        let ends = async {
            let ends: Vec<_> = ends.collect();
            if ends.is_empty() { std::future::pending().await } else { select_all(ends).await.0 }
        };
        // In this order, not in a random one: each turn of the driver may draw from the seed.
        tokio::select! {
            biased;
            () = self.gate.arrival() => {}
            () = ends => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }
}
