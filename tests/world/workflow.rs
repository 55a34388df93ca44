//! A workflow: what Bags is like, what people apply, what they do in the middle, and what it must come to.
//!
//! `workflows.rs` has the list. `docs/testing.md` says how to add one.

use std::{sync::Arc, time::Duration};

use bags_operator::sandbox::UserOptions;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    clock::VirtualClock,
    end,
    scene::{Scene, Ways},
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
}

/// A workflow.
pub(crate) struct Workflow {
    pub(crate) name: String,
    ways: Ways,
    user: UserOptions,
    account: Value,
    elsewhere: usize,
    keys: Vec<String>,
    deeds: Vec<Deed>,
    ends: Vec<&'static str>,
    followers: bool,
    alike: &'static [&'static str],
}

impl Workflow {
    /// An account with these credentials at a service that can all that is documented, and nothing applied.
    pub(crate) fn new(name: impl Into<String>, ways: Ways) -> Self {
        Self {
            name: name.into(),
            ways,
            user: UserOptions::default(),
            account: json!({}),
            elsewhere: 0,
            keys: Vec::new(),
            deeds: Vec::new(),
            ends: Vec::new(),
            followers: false,
            alike: &[],
        }
    }

    /// Bags treats the account's user otherwise.
    pub(crate) fn user(mut self, change: impl FnOnce(&mut UserOptions)) -> Self {
        change(&mut self.user);
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
        self.deeds.push(Deed { name, after, act: Arc::new(act), possible: |_| true, loses_ledger: false });
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
        let scene = Scene::new(clock, seed, self.ways, self.user.clone(), &self.account);
        (0..self.elsewhere).for_each(|_| scene.make_key_elsewhere());
        self.keys.iter().for_each(|name| scene.apply(name));
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
        workflow.account = json!({"limit": workflow.user.limit});
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
        workflow
    }

    fn mischief(self, rng: &mut StdRng) -> Self {
        let name = NAMES[rng.random_range(0..NAMES.len())];
        let wait = Duration::from_secs(rng.random_range(1..1200));
        let limit = self.user.limit;
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

/// ApiKeys of random workflows.
const NAMES: [&str; 3] = ["api", "jobs", "web"];
