//! A workflow: what Bags is like, what people apply, what they do in the middle, and what it must come to.
//!
//! `workflows.rs` has the list. `docs/testing.md` says how to add one.

use std::{sync::Arc, time::Duration};

use bags_operator::sandbox::UserOptions;
use jiff::SignedDuration;
use rand::{RngExt, SeedableRng, rngs::StdRng};
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
    consumers: Vec<Consumer>,
    deeds: Vec<Deed>,
    ends: Vec<&'static str>,
    followers: bool,
    followers_clock: SignedDuration,
    alike: &'static [&'static str],
    violates: Option<&'static str>,
    long: bool,
    many: bool,
    caretaker: bool,
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
            consumers: Vec::new(),
            deeds: Vec::new(),
            ends: Vec::new(),
            followers: false,
            followers_clock: SignedDuration::ZERO,
            alike: &[],
            violates: None,
            long: false,
            many: false,
            caretaker: false,
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

    /// Two pods that read the Secret of the ApiKey before this; one, of what has one only.
    pub(crate) fn consumed_by(self, kind: Kind, reads: Reads) -> Self {
        let secret = self.keys.last().cloned().unwrap_or_default();
        self.consumer(Consumer::of(&secret, kind, reads))
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
        self.keys.iter().for_each(|name| scene.apply(name));
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

    /// A workflow of its own for each seed: any service, any keys, any deeds, each of which is made good in the end.
    pub(crate) fn random(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let ways = [Ways::Token, Ways::Wallet, Ways::Both][rng.random_range(0..3)];
        let mut workflow = Self::new(format!("seed {seed}"), ways).user(|user| {
            user.totp = rng.random_bool(0.3);
            user.key_id_in_answer = rng.random_bool(0.8);
            user.capabilities.list = rng.random_bool(0.85);
            user.capabilities.revoke = rng.random_bool(0.7);
            user.capabilities.last_use = rng.random_bool(0.7);
            if rng.random_bool(0.2) {
                user.list_lag = Duration::from_secs(10);
            }
            if rng.random_bool(0.2) {
                user.limit = 3;
            }
        });
        workflow.account = json!({"limit": workflow.service.user.limit});
        if rng.random_bool(0.2) {
            workflow.elsewhere = rng.random_range(1..3);
        }
        let count = rng.random_range(1..=3);
        let names = NAMES[..count].iter().map(|name| (*name).to_owned());
        // Every third seed has the webhook; the others keep the runs that they had without it.
        if seed % 3 == 1 {
            workflow.followers = rng.random_bool(0.5);
            for name in names {
                let wait = Duration::from_secs(rng.random_range(0..60));
                workflow = workflow.then(wait, "apply an ApiKey", move |scene| scene.submit(&name));
            }
        } else {
            workflow.keys = names.collect();
        }
        for _ in 0..rng.random_range(0..4) {
            workflow = workflow.mischief(&mut rng);
        }
        // Of chance of their own, for the same reason.
        if seed % 4 == 2 {
            workflow.consumers = consumers(&NAMES[..count], &mut StdRng::seed_from_u64(seed ^ 0xc0_ffee));
        }
        if seed % 8 == 2 {
            workflow = workflow.with_rotations(&mut StdRng::seed_from_u64(seed ^ 0x0707));
        }
        if seed % 8 == 6 {
            workflow = workflow.with_schedules(&mut StdRng::seed_from_u64(seed ^ 0x5c4e));
        }
        workflow
    }

    /// Keys are replaced every few hours, and some of what reads them comes up with no other key until a person mends it.
    fn with_schedules(mut self, rng: &mut StdRng) -> Self {
        self.consumers = std::mem::take(&mut self.consumers)
            .into_iter()
            .map(|it| if rng.random_bool(0.3) { it.which_breaks_with_another_value() } else { it })
            .collect();
        let (every, back, gap) = (rng.random_range(1..=4), rng.random_bool(0.5), rng.random_bool(0.5));
        let wait = Duration::from_secs(rng.random_range(1..1800));
        let scheduled = self.then(wait, "have keys replaced every few hours", move |scene| {
            for name in NAMES {
                scene.edit_key(name, |spec| {
                    spec["rotation"] =
                        json!({"every": format!("{every}h"), "minOverlap": "5m", "quietFor": "10m"});
                    if back {
                        spec["rotation"]["onRolloutFailure"] = json!("SwitchBack");
                    }
                    spec["rollout"] = json!({"allowGap": gap});
                });
            }
        });
        let wait = Duration::from_mins(rng.random_range(30..360));
        let mended = scheduled.then(wait, "mend what does not come up", |scene| {
            NAMES.iter().for_each(|name| scene.cluster.mend(name));
        });
        // Or there would be no rest.
        let wait = Duration::from_mins(rng.random_range(30..360));
        let ended = mended.then(wait, "take the schedules away", |scene| {
            NAMES
                .iter()
                .for_each(|name| scene.edit_key(name, |spec| spec["rotation"]["every"] = json!(null)));
        });
        ended.with_a_caretaker()
    }

    /// One or two keys are asked for anew, at any time. A person restarts what its own owner does not.
    fn with_rotations(self, rng: &mut StdRng) -> Self {
        const TOKENS: [&str; 2] = ["first", "second"];
        let asked = TOKENS[..rng.random_range(1..=2)].iter().fold(self, |workflow, token| {
            let name = NAMES[rng.random_range(0..NAMES.len())];
            let wait = Duration::from_secs(rng.random_range(1..1800));
            workflow.then(wait, "ask for another key", move |scene| {
                scene.edit_key(name, |spec| {
                    spec["rotation"] = json!({"minOverlap": "5m", "quietFor": "10m"});
                    spec["rollout"] = json!({"allowGap": true});
                });
                scene.ask_for_rotation(name, token);
            })
        });
        asked.with_a_caretaker()
    }

    fn mischief(self, rng: &mut StdRng) -> Self {
        let name = NAMES[rng.random_range(0..NAMES.len())];
        let wait = Duration::from_secs(rng.random_range(1..1200));
        let limit = self.service.user.limit;
        match rng.random_range(0..11) {
            0 => self.then(wait, "apply another ApiKey", |scene| scene.try_apply("late")),
            1 => self.then(wait, "delete an ApiKey that nothing uses", move |scene| scene.delete_now(name)),
            2 => self.then(wait, "delete an ApiKey", move |scene| scene.delete(name)).then(
                Duration::from_mins(30),
                "say that nothing uses it",
                move |scene| scene.say_delete_now(name),
            ),
            3 => {
                self.then(wait, "delete the consumer Secret", move |scene| scene.delete_consumer_secret(name))
            }
            4 => self.then(wait, "edit the consumer Secret", move |scene| scene.edit_consumer_secret(name)),
            5 => self.then(wait, "write the credentials anew", Scene::rewrite_credentials),
            6 => self.then(wait, "spoil the credentials", Scene::spoil_credentials).then(
                Duration::from_mins(20),
                "mend the credentials",
                Scene::mend_credentials,
            ),
            7 => self.then(wait, "suspend an ApiKey", move |scene| scene.suspend(name, true)).then(
                Duration::from_mins(15),
                "let it go on",
                move |scene| scene.suspend(name, false),
            ),
            8 => self.then(wait, "make a key on the page", Scene::make_key_elsewhere).then(
                Duration::from_mins(90),
                "revoke it on the page",
                Scene::revoke_key_elsewhere,
            ),
            9 => self
                .then(wait, "lower the limit", |scene| scene.edit_account(|spec| spec["limit"] = json!(1)))
                .then(Duration::from_mins(30), "raise it again", move |scene| {
                    scene.edit_account(|spec| spec["limit"] = json!(limit));
                }),
            _ => self.then(wait, "edit what an ApiKey is for", move |scene| {
                scene.edit_key(name, |spec| spec["purpose"] = json!("another one"));
            }),
        }
    }
}

/// A workload of any kind for each of these, on nodes of any kind.
fn consumers(names: &[&str], rng: &mut StdRng) -> Vec<Consumer> {
    let kinds = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::Pod, Kind::Job];
    let reads = [Reads::Env, Reads::File, Reads::ReloadedFile];
    let mut one = |name: &&str| {
        let (kind, reads) = (kinds[rng.random_range(0..5)], reads[rng.random_range(0..3)]);
        let mut seconds = |most| Duration::from_secs(rng.random_range(0..=most));
        let consumer = Consumer::of(name, kind, reads)
            .starts_after(seconds(10))
            .served_from_a_cache(seconds(45))
            .refreshed_after(seconds(90))
            .grace(seconds(60));
        consumer.clocks_off_by(SignedDuration::from_secs(rng.random_range(-300..=300)))
    };
    names.iter().map(&mut one).collect()
}

/// ApiKeys of random workflows.
const NAMES: [&str; 3] = ["api", "jobs", "web"];
