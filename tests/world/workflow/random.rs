//! A workflow of its own for each seed.

use std::time::Duration;

use jiff::SignedDuration;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;

use super::Workflow;
use crate::{
    cluster::{Consumer, Kind, Reads},
    scene::{Scene, Ways},
};

impl Workflow {
    /// A workflow of its own for each seed: any service, any keys, any deeds, each of which is made good in the end.
    pub(crate) fn random(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let ways = [Ways::Token, Ways::Wallet, Ways::Both][rng.random_range(0..3)];
        let mut workflow = Self::new(format!("seed {seed}"), ways).user(|user| {
            user.totp = rng.random_bool(0.3);
            user.totp_single_use = user.totp;
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
        // The others of those above keep the runs that they had.
        let mut more = StdRng::seed_from_u64(seed ^ 0x0dd5);
        if seed % 16 == 10 {
            workflow =
                workflow.with_more_trouble(&mut more).with_somebody_outside(&NAMES[..count], &mut more);
        }
        if seed % 8 == 6 {
            workflow = workflow.with_schedules(&mut StdRng::seed_from_u64(seed ^ 0x5c4e), &mut more);
            workflow = workflow.with_somebody_outside(&NAMES[..count], &mut more);
        }
        workflow
    }

    /// Some of the keys are used by somebody outside, too, whom a person gives the new value. They call all the time: of one
    /// who seldom does nothing tells.
    fn with_somebody_outside(mut self, names: &[&str], rng: &mut StdRng) -> Self {
        for name in names.iter().filter(|_| rng.random_bool(0.4)) {
            let name_of_theirs = format!("{name}-elsewhere");
            self.consumers.push(Consumer::of(name, Kind::Outside, Reads::Env).called(&name_of_theirs));
        }
        self
    }

    /// What goes wrong around a rotation for a while, and faults of its own.
    fn with_more_trouble(mut self, rng: &mut StdRng) -> Self {
        self.faults_for_rotations = true;
        for _ in 0..rng.random_range(0..3) {
            self = self.trouble(rng);
        }
        self
    }

    fn trouble(self, rng: &mut StdRng) -> Self {
        let wait = Duration::from_secs(rng.random_range(1..7200));
        let minutes = Duration::from_mins(rng.random_range(5..60));
        match rng.random_range(0..4) {
            0 => self
                .then(wait, "take the rights in the namespace away", |scene| scene.withhold_rights(true))
                .then(Duration::from_mins(20), "give them back", |scene| scene.withhold_rights(false)),
            1 => self.then(wait, "Bags suspends the account's user", |scene| scene.suspend_user(true)).then(
                minutes,
                "Bags lets the user go on",
                |scene| scene.suspend_user(false),
            ),
            2 => self.then(wait, "Bags goes away", |scene| scene.take_bags_away(true)).then(
                minutes,
                "Bags is there again",
                |scene| scene.take_bags_away(false),
            ),
            _ => self.then(wait, "the account's status is lost", Scene::lose_ledger).which_loses_the_ledger(),
        }
    }

    /// Keys are replaced every few hours, and some of what reads them comes up with no other key until a person mends it.
    fn with_schedules(mut self, rng: &mut StdRng, more: &mut StdRng) -> Self {
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
        let scheduled = scheduled.with_more_trouble(more);
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
