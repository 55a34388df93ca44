//! Watches every BagsAccount and judges every version of its ledger, and every step from one to the next, by the
//! invariants.
#![allow(dead_code, reason = "each test binary uses its part")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bags_operator::{
    api::BagsAccount,
    ledger::{
        Ledger, Room,
        invariants::{Waiver, violations},
        slots::Terms,
    },
    timings::Timings,
};
use futures::{StreamExt, pin_mut};
use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    runtime::watcher::{self, Event, watcher},
};
use tokio::{runtime::Runtime, sync::watch};

use super::Cluster;

/// The watch must have caught up with what a test saw within this.
const LIMIT: Duration = Duration::from_secs(30);

/// The watch, until it is dropped.
pub(crate) struct LedgerWatch {
    seen: Arc<Mutex<Seen>>,
    moved: watch::Receiver<u64>,
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Seen {
    /// The last version of each account, by uid.
    ledgers: HashMap<String, Version>,
    /// What was wrong, with the account's name before it.
    violations: Vec<(String, String)>,
    /// Steps that were judged.
    steps: u64,
}

struct Version {
    resource_version: u64,
    ledger: Ledger,
}

impl LedgerWatch {
    /// Begins to watch; `timings` are those of the operator that writes.
    pub(crate) fn start(cluster: &Cluster, timings: Timings) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let (tell, moved) = watch::channel(0);
        let (cluster, state) = (cluster.clone(), Arc::clone(&seen));
        runtime.spawn(async move {
            let api: Api<BagsAccount> = Api::all(cluster.client().await);
            let events = watcher(api, watcher::Config::default());
            pin_mut!(events);
            while let Some(event) = events.next().await {
                // A watch that fails begins anew; the list that follows is judged by itself.
                let Ok(event) = event else { continue };
                lock(&state).take(event, &timings);
                tell.send_modify(|count| *count += 1);
            }
        });
        Self { seen, moved, runtime: Some(runtime) }
    }

    /// Waits until this version of an account was judged, then fails for everything that was wrong with it so far.
    pub(crate) async fn hold_for(&self, account: &BagsAccount) {
        let uid = account.uid().unwrap();
        let wanted = version(account);
        let mut moved = self.moved.clone();
        let caught_up = moved.wait_for(|_| {
            lock(&self.seen).ledgers.get(&uid).is_some_and(|version| version.resource_version >= wanted)
        });
        let timeout = tokio::time::timeout(LIMIT, caught_up);
        timeout.await.expect("the watch on ledgers catches up in time").unwrap();
        self.hold(&account.name_any());
    }

    /// Fails for everything that was wrong with an account so far.
    pub(crate) fn hold(&self, account: &str) {
        let seen = lock(&self.seen);
        let wrong: Vec<_> = seen.violations.iter().filter(|(name, _)| name == account).collect();
        assert!(wrong.is_empty(), "invariants were broken: {wrong:#?}");
    }

    /// How many steps from one version to the next were judged.
    pub(crate) fn steps(&self) -> u64 {
        lock(&self.seen).steps
    }
}

impl Drop for LedgerWatch {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Seen {
    fn take(&mut self, event: Event<BagsAccount>, timings: &Timings) {
        match event {
            Event::Init | Event::InitDone => {}
            // Steps may have gone by unseen: this version is judged as a beginning.
            Event::InitApply(account) => self.judge(&account, timings, false),
            Event::Apply(account) => self.judge(&account, timings, true),
            Event::Delete(_) => {}
        }
    }

    fn judge(&mut self, account: &BagsAccount, timings: &Timings, follows: bool) {
        let uid = account.uid().unwrap();
        let after = Ledger::of(account.status.as_ref());
        let before = self.ledgers.get(&uid).map(|version| version.ledger.clone());
        let before = match (before, follows) {
            (Some(before), true) => before,
            (None, true) => Ledger::default(),
            (_, false) => after.clone(),
        };
        // The moment of the write: that of the licence, where the step is one.
        let now = after.slots.iter().map(|slot| slot.since).max().unwrap_or(Timestamp::UNIX_EPOCH);
        let terms = Terms { room: Room::of(account, now, timings), now, licence_term: timings.licence_term };
        let wrong = violations(&before, &after, &terms, Waiver::None);
        self.violations.extend(wrong.into_iter().map(|text| (account.name_any(), text)));
        self.steps += u64::from(before != after);
        self.ledgers.insert(uid, Version { resource_version: version(account), ledger: after });
    }
}

fn version(account: &BagsAccount) -> u64 {
    account.resource_version().unwrap().parse().unwrap()
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
