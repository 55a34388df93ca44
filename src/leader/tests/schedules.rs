//! Random schedules: three processes of one installation, a network that loses and delays, processes that stand still,
//! are told to end or die. However it goes, there are never two that believe to lead at the same moment, and when the
//! trouble is over, one leads.
//!
//! What a process believes is what [`Leadership::holds`] says at that moment, also of one that stands still: it is the
//! first thing that it would ask when it goes on.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::SignedDuration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    SECOND, elector,
    ice::Ice,
    pass,
    server::{Fate, Server, Way, Ways},
};
use crate::{
    clock::Randomness,
    leader::{Leadership, Loss},
};

/// How many schedules there are.
const SEEDS: u64 = 300;
/// So long there is trouble.
const TROUBLE: Duration = Duration::from_secs(180);
/// After it, one leads before this has passed: what is still on its way arrives, a save ends, an old Lease expires.
const CALM: Duration = Duration::from_secs(60);
/// Processes at the same time.
const MACHINES: [&str; 3] = ["a", "b", "c"];

/// Randomness with a few words of its own.
#[derive(Clone)]
struct Chance(Randomness);

impl Chance {
    fn one_in(&self, count: f64) -> bool {
        self.0.fraction() < 1.0 / count
    }

    fn below(&self, limit: Duration) -> Duration {
        limit.mul_f64(self.0.fraction())
    }
}

/// A place where one process runs after another.
#[derive(Clone, Default)]
struct Machine {
    ice: Ice,
    cut_off: Arc<AtomicBool>,
    /// Of the process that runs.
    now: Arc<Mutex<Option<(Leadership, CancellationToken)>>>,
}

impl Machine {
    fn leads(&self) -> bool {
        self.now.lock().unwrap().as_ref().is_some_and(|(leadership, _)| leadership.holds())
    }
}

/// What happened in all schedules: trouble that never came proves nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    takings: usize,
    losses: usize,
    ends: usize,
    deaths: usize,
    late: usize,
}

impl Tally {
    /// `None`: killed.
    fn count(&mut self, ended: Option<Result<(), Loss>>) {
        match ended {
            Some(Ok(())) => self.ends += 1,
            Some(Err(_)) => self.losses += 1,
            None => self.deaths += 1,
        }
    }
}

struct Run {
    server: Server,
    chance: Chance,
    machines: [Machine; 3],
    calm: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    /// The first moment with two leaders.
    violation: Arc<Mutex<Option<String>>>,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            server: Server::default(),
            chance: Chance(Randomness::from_seed(seed)),
            machines: Default::default(),
            calm: Arc::default(),
            tally: Arc::default(),
            violation: Arc::default(),
        }
    }

    /// How requests of a machine travel.
    fn ways(&self, machine: usize) -> Ways {
        let (chance, calm) = (self.chance.clone(), self.calm.clone());
        let (cut_off, tally) = (self.machines[machine].cut_off.clone(), self.tally.clone());
        Arc::new(move || {
            if calm.load(Ordering::Relaxed) {
                return Way::default();
            }
            let slow = if chance.one_in(8.0) { 12 * SECOND } else { SECOND };
            let (there, back) = (chance.below(slow), chance.below(slow));
            tally.lock().unwrap().late += usize::from(there + back > 5 * SECOND);
            let fate = match (cut_off.load(Ordering::Relaxed), chance.0.fraction()) {
                (true, _) | (_, ..0.1) => Fate::Lost,
                (_, ..0.2) => Fate::Unanswered,
                (_, ..0.25) => Fate::Refused,
                _ => Fate::Answered,
            };
            Way { there, back, fate }
        })
    }

    /// One process after another on a machine, as a kubelet would have it.
    async fn live(&self, number: usize, seed: u64) {
        let machine = &self.machines[number];
        for life in 0.. {
            // Wall clocks are hours apart.
            let skew = SignedDuration::from_secs((self.chance.0.fraction() * 20_000.0) as i64 - 10_000);
            let ways = self.ways(number);
            let own = seed * 1_000 + life * 10 + number as u64;
            let (elector, leadership, _) = elector(&self.server, MACHINES[number], ways, skew, own);
            let (stop, over) = (CancellationToken::new(), CancellationToken::new());
            *machine.now.lock().unwrap() = Some((leadership.clone(), stop.clone()));
            let saves = async {
                stop.cancelled().await;
                if !self.calm.load(Ordering::Relaxed) && !self.chance.one_in(2.0) {
                    pass(self.chance.below(20 * SECOND)).await;
                }
                over.cancel();
            };
            let process = async { tokio::join!(elector.run(&stop, &over), saves).0 };
            let process = machine.ice.around(process);
            let ended = tokio::select! {
                ended = process => Some(ended),
                () = self.sigkill() => None,
            };
            *machine.now.lock().unwrap() = None;
            self.tally.lock().unwrap().count(ended);
            pass(self.chance.below(3 * SECOND)).await;
        }
    }

    /// Comes sooner or later, or not at all.
    async fn sigkill(&self) {
        if self.chance.one_in(3.0) {
            pass(self.chance.below(60 * SECOND)).await;
            if !self.calm.load(Ordering::Relaxed) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Freezes, cuts off and ends processes; then lets everything be well.
    async fn trouble(&self) {
        let mut passed = Duration::ZERO;
        while passed < TROUBLE {
            let pause = self.chance.below(6 * SECOND);
            pass(pause).await;
            passed += pause;
            let machine = &self.machines[(self.chance.0.fraction() * 3.0) as usize];
            match self.chance.0.fraction() {
                ..0.2 => machine.ice.freeze(true),
                ..0.5 => machine.ice.freeze(false),
                ..0.65 => machine.cut_off.store(true, Ordering::Relaxed),
                ..0.9 => machine.cut_off.store(false, Ordering::Relaxed),
                _ => {
                    if let Some((_, stop)) = &*machine.now.lock().unwrap() {
                        stop.cancel();
                    }
                }
            }
        }
        self.calm.store(true, Ordering::Relaxed);
        for machine in &self.machines {
            machine.ice.freeze(false);
            machine.cut_off.store(false, Ordering::Relaxed);
        }
        pass(CALM).await;
    }

    /// Looks at every change of the Lease and ten times a second.
    async fn judge(&self) {
        let (machines, tally) = (self.machines.clone(), self.tally.clone());
        let violation = self.violation.clone();
        let look = move |when: &str| {
            let leaders: Vec<_> =
                MACHINES.iter().zip(&machines).filter(|(_, machine)| machine.leads()).collect();
            if leaders.len() > 1 {
                let names: Vec<_> = leaders.iter().map(|(name, _)| **name).collect();
                let mut first = violation.lock().unwrap();
                first.get_or_insert_with(|| format!("{} lead at the same time, {when}", names.join(" and ")));
            }
        };
        let mut before = String::new();
        let look_too = look.clone();
        self.server.state().witness = Some(Box::new(move |who, lease| {
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
            tally.lock().unwrap().takings += usize::from(!holder.is_empty() && holder != before);
            before = holder.to_owned();
            look_too(&format!("as {who} writes"));
        }));
        loop {
            look("meanwhile");
            pass(SECOND / 10).await;
        }
    }
}

/// One schedule, from its seed.
fn run(seed: u64) -> Tally {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let run = Arc::new(Run::new(seed));
        let mut tasks = JoinSet::new();
        for number in 0..MACHINES.len() {
            let run = run.clone();
            tasks.spawn(async move { run.live(number, seed).await });
        }
        tasks.spawn({
            let run = run.clone();
            async move { run.judge().await }
        });
        run.trouble().await;
        assert_eq!(*run.violation.lock().unwrap(), None, "seed {seed}");
        let leaders = run.machines.iter().filter(|machine| machine.leads()).count();
        assert_eq!(leaders, 1, "seed {seed}: when all is well, one leads");
        *run.tally.lock().unwrap()
    })
}

#[test]
fn however_it_goes_two_never_believe_to_lead_at_the_same_moment() {
    let all = (0..SEEDS).map(run).fold(Tally::default(), |all, one| Tally {
        takings: all.takings + one.takings,
        losses: all.losses + one.losses,
        ends: all.ends + one.ends,
        deaths: all.deaths + one.deaths,
        late: all.late + one.late,
    });
    let Tally { takings, losses, ends, deaths, late } = all;
    let least = SEEDS as usize;
    assert!(takings > 2 * least && losses > least / 2 && ends > least && deaths > least / 2, "{all:?}");
    assert!(late > least, "{all:?}");
}
