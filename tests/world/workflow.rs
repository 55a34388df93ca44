//! A workflow: what Bags is like, what people apply, what they do in the middle, and what it must come to.
//!
//! `workflows.rs` has the list. `docs/testing.md` says how to add one.

mod random;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bags_operator::sandbox::UserOptions;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{
    clock::VirtualClock,
    cluster::{Consumer, Kind, Reads},
    end,
    scene::{Scene, Service, Ways},
};

/// Something that people do.
#[derive(Clone)]
pub(crate) struct Deed {
    pub(crate) name: &'static str,
    /// How long after the deed before it, by the virtual clock. The first one is done after any number of requests.
    pub(crate) after: Duration,
    pub(crate) act: Arc<dyn Fn(&Scene) + Send + Sync>,
    /// It waits until it can be done.
    pub(crate) possible: fn(&Scene) -> bool,
    /// The ledger is gone after it: a value in the keystore stands for its slot until the ledger is whole again.
    pub(crate) loses_ledger: bool,
    /// What it does at Bags counts as done by the operator: for tests of the oracles.
    pub(crate) blamed: bool,
}

/// A workflow.
pub(crate) struct Workflow {
    pub(crate) name: String,
    ways: Ways,
    service: Service,
    account: Value,
    elsewhere: usize,
    keys: Vec<String>,
    /// Secrets that these name otherwise, and the field of each that is to hold the key.
    secrets: BTreeMap<String, (&'static str, &'static str)>,
    consumers: Vec<Consumer>,
    deeds: Vec<Deed>,
    ends: Vec<&'static str>,
    followers: bool,
    followers_clock: SignedDuration,
    successors_clock: SignedDuration,
    alike: &'static [&'static str],
    violates: Option<&'static str>,
    long: bool,
    many: bool,
    caretaker: bool,
    faults_for_rotations: bool,
}

impl Workflow {
    /// An account with these credentials at a service that can all that is documented, and nothing applied.
    pub(crate) fn new(name: impl Into<String>, ways: Ways) -> Self {
        Self {
            name: name.into(),
            ways,
            service: Service::default(),
            account: json!({}),
            elsewhere: 0,
            keys: Vec::new(),
            secrets: BTreeMap::new(),
            consumers: Vec::new(),
            deeds: Vec::new(),
            ends: Vec::new(),
            followers: false,
            followers_clock: SignedDuration::ZERO,
            successors_clock: SignedDuration::ZERO,
            alike: &[],
            violates: None,
            long: false,
            many: false,
            caretaker: false,
            faults_for_rotations: false,
        }
    }

    /// It takes hours: `make test` runs a share of its singles.
    pub(crate) fn long(mut self) -> Self {
        self.long = true;
        self
    }

    /// It takes hours, and there are many of its kind: a twelfth of that share is run.
    pub(crate) fn one_of_many(mut self) -> Self {
        self.many = true;
        self.long()
    }

    /// Whether it takes hours.
    pub(crate) fn is_long(&self) -> bool {
        self.long
    }

    /// Whether there are many of its kind.
    pub(crate) fn is_one_of_many(&self) -> bool {
        self.many
    }

    /// Bags treats the account's user otherwise.
    pub(crate) fn user(mut self, change: impl FnOnce(&mut UserOptions)) -> Self {
        change(&mut self.service.user);
        self
    }

    /// Bags' clock is so far ahead.
    pub(crate) fn service_clock_off_by(mut self, by: SignedDuration) -> Self {
        self.service.clock_off_by = by;
        self
    }

    /// Fields of the BagsAccount's spec.
    pub(crate) fn account(mut self, spec: Value) -> Self {
        self.account = spec;
        self
    }

    /// So many keys were made on Bags' page before.
    pub(crate) fn elsewhere(mut self, keys: usize) -> Self {
        self.elsewhere = keys;
        self
    }

    /// An ApiKey that is applied before the operator starts.
    pub(crate) fn key(mut self, name: impl Into<String>) -> Self {
        self.keys.push(name.into());
        self
    }

    /// The ApiKey before this gives its Secret another name than its own, and its key another field.
    pub(crate) fn in_secret(mut self, secret: &'static str, field: &'static str) -> Self {
        let name = self.keys.last().cloned().unwrap_or_default();
        self.secrets.insert(name, (secret, field));
        self
    }

    /// Two pods that read the Secret of the ApiKey before this, by whose name they go; one, of what has one only.
    pub(crate) fn consumed_by(self, kind: Kind, reads: Reads) -> Self {
        let name = self.keys.last().cloned().unwrap_or_default();
        let consumer = match self.secrets.get(&name) {
            Some((secret, field)) => Consumer::of(secret, kind, reads).called(&name).in_field(field),
            None => Consumer::of(&name, kind, reads),
        };
        self.consumer(consumer)
    }

    /// A workload that is applied before the operator starts.
    pub(crate) fn consumer(mut self, consumer: Consumer) -> Self {
        self.consumers.push(consumer);
        self
    }

    /// What people do in the middle: the enumeration puts it after every number of requests.
    pub(crate) fn meanwhile(self, name: &'static str, act: impl Fn(&Scene) + Send + Sync + 'static) -> Self {
        self.then(Duration::ZERO, name, act)
    }

    /// What they do so long after that.
    pub(crate) fn then(
        mut self,
        after: Duration,
        name: &'static str,
        act: impl Fn(&Scene) + Send + Sync + 'static,
    ) -> Self {
        let act = Arc::new(act);
        self.deeds.push(Deed { name, after, act, possible: |_| true, loses_ledger: false, blamed: false });
        self
    }

    /// The deed before this waits until it can be done.
    pub(crate) fn once(mut self, possible: fn(&Scene) -> bool) -> Self {
        if let Some(deed) = self.deeds.last_mut() {
            deed.possible = possible;
        }
        self
    }

    /// The deed before this takes the ledger away.
    pub(crate) fn which_loses_the_ledger(mut self) -> Self {
        if let Some(deed) = self.deeds.last_mut() {
            deed.loses_ledger = true;
        }
        self
    }

    /// The operator is blamed for the deed before this: to see that an oracle bites.
    pub(crate) fn for_which_the_operator_is_blamed(mut self) -> Self {
        if let Some(deed) = self.deeds.last_mut() {
            deed.blamed = true;
        }
        self
    }

    /// Every undisturbed run must end with a violation that has these words, and nothing else is run.
    pub(crate) fn violates(mut self, words: &'static str) -> Self {
        self.violates = Some(words);
        self
    }

    /// What must be found wrong with it.
    pub(crate) fn expected_violation(&self) -> Option<&'static str> {
        self.violates
    }

    /// Words that must stand in the end of the undisturbed run.
    pub(crate) fn ends(mut self, words: &'static str) -> Self {
        self.ends.push(words);
        self
    }

    /// Another process answers reviews beside the one that reconciles.
    pub(crate) fn with_a_follower(mut self) -> Self {
        self.followers = true;
        self
    }

    pub(crate) fn has_followers(&self) -> bool {
        self.followers
    }

    /// The same, and the wall clock of that process is so far ahead.
    pub(crate) fn with_a_follower_whose_clock_is_off_by(mut self, by: SignedDuration) -> Self {
        self.followers_clock = by;
        self.with_a_follower()
    }

    /// The wall clock of every leader but the first one is so far ahead.
    pub(crate) fn with_successors_whose_clock_is_off_by(mut self, by: SignedDuration) -> Self {
        self.successors_clock = by;
        self
    }

    pub(crate) fn successors_clock(&self) -> SignedDuration {
        self.successors_clock
    }

    pub(crate) fn followers_clock(&self) -> SignedDuration {
        self.followers_clock
    }

    /// A person restarts what holds an earlier key for long.
    fn with_a_caretaker(mut self) -> Self {
        self.caretaker = true;
        self
    }

    pub(crate) fn has_a_caretaker(&self) -> bool {
        self.caretaker
    }

    /// Whether requests in the middle of a rotation have faults of their own, besides those of all others.
    pub(crate) fn has_faults_for_rotations(&self) -> bool {
        self.faults_for_rotations
    }

    /// Which of these gets what is left to chance.
    pub(crate) fn alike(mut self, names: &'static [&'static str]) -> Self {
        self.alike = names;
        self
    }

    /// The end in words that two runs can be compared by.
    pub(crate) fn words(&self, scene: &Scene) -> String {
        let words = end::words(scene);
        if self.alike.is_empty() {
            return words;
        }
        let words = self.alike.iter().fold(words, |words, name| words.replace(name, "one of them"));
        let mut lines: Vec<&str> = words.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    /// The world before the operator starts.
    pub(crate) fn scene(&self, clock: &Arc<VirtualClock>, seed: u64) -> Scene {
        let scene = Scene::new(clock, seed, self.ways, self.service.clone(), &self.account);
        (0..self.elsewhere).for_each(|_| scene.make_key_elsewhere());
        for name in &self.keys {
            match self.secrets.get(name) {
                Some((secret, field)) => {
                    scene.apply_with(name, json!({"name": secret, "apiKeyField": field}));
                }
                None => scene.apply(name),
            }
        }
        self.consumers.iter().for_each(|consumer| scene.cluster.declare(consumer.clone()));
        scene
    }

    /// What people do, in order.
    pub(crate) fn deeds(&self) -> &[Deed] {
        &self.deeds
    }

    /// What of the expected end is missing.
    pub(crate) fn missing<'a>(&'a self, end: &'a str) -> impl Iterator<Item = &'static str> + 'a {
        self.ends.iter().copied().filter(|words| !end.contains(words))
    }
}
