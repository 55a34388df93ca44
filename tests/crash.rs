//! SIGKILL at any moment: no key is forgotten, and none is made that nobody holds.
//!
//! The operator is killed again and again while 56 keys are being made in seven accounts: at random moments, and at
//! the worst one, when Bags has made a key and its answer is on the way. When all is at rest, the sandbox's list of
//! every key ever made is held against the ledgers and the Secrets. What is killed when is a matter of chance; what
//! comes of it is not.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    collections::BTreeSet,
    io::Write,
    time::{Duration, Instant},
};

use bags_operator::{
    api::{
        BagsAccount,
        account::{Slot, SlotState},
    },
    clock::Randomness,
    sandbox::{Action, FaultRule, KeyState, NewUser, UserOptions, When},
};
use kube::ResourceExt;
use serde_json::json;
use support::{
    scene::{Scene, Way, all, condition, holds, says, slots_in},
    world::World,
};

/// Moments of death are drawn from it.
const SEED: u64 = 20_261_123;
/// How often the operator is killed.
const KILLS: usize = 24;
/// Bags needs so long for its answer after it made a key: time to be killed in.
const ANSWER_DELAY: Duration = Duration::from_millis(120);

/// Short enough for a crash to be judged while one watches. Nobody is elected: whoever was killed still holds the Lease,
/// and the next one would be killed while it waits.
const FLAGS: [&str; 10] = [
    "--leader-elect=false",
    "--request-deadline=2s",
    "--begin-deadline=2s",
    "--answer-deadline=2s",
    "--save-deadline=3s",
    "--judge-after=4s",
    "--licence-term=3s",
    "--placeholder-fresh=5s",
    "--placeholder-reap-after=6s",
    "--resync=5s",
];

/// What a scene is made of again, as it borrows the world.
struct Team {
    name: String,
    user: NewUser,
    way: Way,
    keys: usize,
}

impl Team {
    async fn scene<'w>(&self, world: &'w World) -> Scene<'w> {
        Scene::again(world, self.name.clone(), self.user.clone(), self.way).await
    }

    fn key_names(&self) -> Vec<String> {
        (0..self.keys).map(|n| format!("application-{n}")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_moment_of_death_loses_a_key_or_makes_one_too_many() {
    let mut alone = World::alone(&FLAGS).await;
    for route in ["/agent/dev/keys/create", "/agent/v2/auth/callback"] {
        let action = Action::Delay { by: ANSWER_DELAY, when: When::After };
        let slow = FaultRule { count: u32::MAX, ..FaultRule::once(route, action) };
        alone.world.sandbox.sandbox.add_fault(slow).unwrap();
    }
    let listing = [Way::Token, Way::Token, Way::Token, Way::WalletAndToken, Way::WalletAndToken];
    let mut teams = Vec::new();
    for (way, keys) in listing.map(|way| (way, 10)).into_iter().chain([(Way::Wallet, 3), (Way::Wallet, 3)]) {
        let scene = Scene::new(&alone.world, way, UserOptions::default()).await;
        teams.push(Team { name: scene.name, user: scene.user, way, keys });
    }
    let kills = kill_while_keys_are_made(&mut alone.world, &teams).await;

    let world = &alone.world;
    let mut counts = Counts { kills, ..Counts::default() };
    let (wallets, listing): (Vec<_>, Vec<_>) = teams.iter().partition(|team| team.way == Way::Wallet);
    for team in &listing {
        all_is_right(&team.scene(world).await, team, &mut counts).await;
    }
    assert_eq!(counts.working, 50);
    for team in &wallets {
        let scene = team.scene(world).await;
        a_person_resolves(&scene, team, &mut counts).await;
        all_is_right(&scene, team, &mut counts).await;
    }
    assert!(counts.made > counts.working, "no crash lost a key: the test tests nothing");
    let Counts { kills, made, working, resolved } = counts;
    let line = format!(
        "crash: {kills} kills; {made} keys made: {working} work and are in their Secrets, {} are revoked, none is \
         without a slot; {resolved} attempts were resolved by a person; {} steps of ledgers judged\n",
        made - working,
        world.ledgers.steps()
    );
    // Past the capture of the test harness: a person wants to see what the run went through.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

#[derive(Default)]
struct Counts {
    kills: usize,
    made: usize,
    working: usize,
    resolved: usize,
}

/// Applies all ApiKeys bit by bit and kills the operator in between. It runs when this returns.
async fn kill_while_keys_are_made(world: &mut World, teams: &[Team]) -> usize {
    let randomness = Randomness::from_seed(SEED);
    let mut waiting: Vec<(usize, String)> = teams
        .iter()
        .enumerate()
        .flat_map(|(n, team)| team.key_names().into_iter().map(move |key| (n, key)))
        .collect();
    let pick = |len: usize| ((randomness.fraction() * len as f64) as usize).min(len - 1);
    let per_kill = waiting.len().div_ceil(KILLS);
    for kill in 0..KILLS {
        for _ in 0..per_kill.min(waiting.len()) {
            let (team, key) = waiting.swap_remove(pick(waiting.len()));
            teams[team].scene(world).await.apply(&key, json!({})).await;
        }
        if kill % 2 == 0 {
            let moment = Duration::from_secs_f64(0.2 + 1.2 * randomness.fraction());
            moment_passes(moment).await;
        } else {
            let into_the_answer = ANSWER_DELAY.mul_f64(0.8 * randomness.fraction());
            a_key_is_made(world, teams).await;
            moment_passes(into_the_answer).await;
        }
        world.operator.take().unwrap().kill();
        world.operator = Some(world.launch.spawn());
    }
    assert!(waiting.is_empty(), "every ApiKey was applied");
    world.operator().ready().await;
    KILLS
}

/// The moments of a test that chooses them at random.
#[expect(clippy::disallowed_methods, reason = "it is the time itself that is waited for, not a condition")]
async fn moment_passes(moment: Duration) {
    tokio::time::sleep(moment).await;
}

/// Waits until Bags has made a key; an account that only a wallet speaks for is worth waiting for, as a key that is
/// lost there is a person's business. Gives up after a while, as there may be nothing left to make.
#[expect(clippy::disallowed_methods, reason = "the edge of a test")]
async fn a_key_is_made(world: &World, teams: &[Team]) {
    let made = |way: Option<Way>| {
        let teams = teams.iter().filter(|team| way.is_none_or(|way| team.way == way));
        teams.map(|team| world.sandbox.keys_of(&team.user.id).len()).sum::<usize>()
    };
    let wallets = Some(Way::Wallet);
    let (before, before_by_wallet) = (made(None), made(wallets));
    let mut pause = tokio::time::interval(Duration::from_millis(2));
    let begun = Instant::now();
    while made(wallets) == before_by_wallet && begun.elapsed() < Duration::from_secs(2) {
        pause.tick().await;
        if made(None) > before && begun.elapsed() > Duration::from_millis(1200) {
            return;
        }
    }
}

/// At rest: each ApiKey has one key that works and is in its Secret, each working key is in a slot, and every other
/// key ever made is revoked.
async fn all_is_right(scene: &Scene<'_>, team: &Team, counts: &mut Counts) {
    let names = team.key_names();
    all(names.iter().map(|name| scene.ready(name))).await;
    let at_rest = |account: &BagsAccount| {
        slots_in(account, &SlotState::Live) == team.keys && support::scene::slots(account) == team.keys
    };
    let account = scene.account_where("at rest", at_rest).await;
    scene.world.ledgers.hold_for(&account).await;
    let values = all(names.iter().map(|name| scene.working_value(name))).await;
    assert_eq!(values.iter().collect::<BTreeSet<_>>().len(), team.keys, "each has a key of its own");

    let made = scene.made();
    let (working, others): (Vec<_>, Vec<_>) = made.iter().partition(|key| key.state == KeyState::Active);
    assert_eq!(working.len(), team.keys, "{working:#?}");
    assert!(others.iter().all(|key| key.state == KeyState::Revoked));
    let slots = account.status.unwrap().slots;
    let named =
        |slots: &[Slot]| slots.iter().filter_map(|slot| slot.key_name.clone()).collect::<BTreeSet<_>>();
    let working_names: BTreeSet<_> = working.iter().map(|key| key.name.clone()).collect();
    assert_eq!(named(&slots), working_names, "the ledger and Bags know the same keys");
    let stored = |count: usize| async move {
        let mut pause = tokio::time::interval(Duration::from_millis(200));
        while scene.stored().await.len() != count {
            pause.tick().await;
        }
    };
    let tidy = tokio::time::timeout(support::scene::LIMIT, stored(team.keys)).await;
    let left: Vec<_> = scene.stored().await.iter().map(ResourceExt::name_any).collect();
    assert!(tidy.is_ok(), "the keystore holds one Secret for each key: {left:?}");
    counts.made += made.len();
    counts.working += working.len();
}

/// Where nothing can list: each key of which nobody knows whether it was made is an unresolved slot, and the condition
/// says what to do. A person does it.
async fn a_person_resolves(scene: &Scene<'_>, team: &Team, counts: &mut Counts) {
    let names = team.key_names();
    let decided = |account: &BagsAccount| {
        let slots = account.status.as_ref().map(|status| status.slots.as_slice()).unwrap_or_default();
        let owners: BTreeSet<_> = slots.iter().map(|slot| slot.owner.uid.as_str()).collect();
        let settled = |slot: &Slot| matches!(slot.state, SlotState::Live | SlotState::Unresolved);
        owners.len() == team.keys && slots.iter().all(settled) && told(account)
    };
    let account = scene.account_where("settled or unresolved", decided).await;
    let slots = account.status.as_ref().unwrap().slots.clone();
    let unresolved: Vec<&Slot> = slots.iter().filter(|slot| slot.state == SlotState::Unresolved).collect();
    let in_doubt: BTreeSet<_> = unresolved.iter().filter_map(|slot| slot.key_name.clone()).collect();
    let live: BTreeSet<_> = slots.iter().filter_map(|slot| slot.key_name.clone()).collect();
    for key in scene.working() {
        assert!(live.contains(&key.name), "{} is in no slot", key.name);
    }
    if unresolved.is_empty() {
        return;
    }
    let attempts: Vec<&str> = unresolved.iter().filter_map(|slot| slot.attempt.as_deref()).collect();
    let message = &condition(&account, "KeyUnresolved").unwrap().message;
    says(message, &["https://dev.bags.fm", "keys.bags.fm/resolved"]);
    says(message, &attempts);
    for key in scene.working().into_iter().filter(|key| in_doubt.contains(&key.name)) {
        scene.world.sandbox.sandbox.revoke_key(&key.id).unwrap();
    }
    let annotation = json!({"keys.bags.fm/resolved": attempts.join(",")});
    scene.patch_account(json!({"metadata": {"annotations": annotation}})).await;
    all(names.iter().map(|name| scene.ready(name))).await;
    scene.account_where("asking nobody", |account| !holds(account, "KeyUnresolved", "True")).await;
    counts.resolved += attempts.len();
}

/// Whether the condition says what the slots are.
fn told(account: &BagsAccount) -> bool {
    let slots = account.status.as_ref().map(|status| status.slots.as_slice()).unwrap_or_default();
    let unresolved = slots.iter().filter(|slot| slot.state == SlotState::Unresolved);
    let message =
        condition(account, "KeyUnresolved").map(|condition| condition.message.clone()).unwrap_or_default();
    unresolved.filter_map(|slot| slot.attempt.as_deref()).all(|attempt| message.contains(attempt))
}
