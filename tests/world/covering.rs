//! Rotations of every kind of consumer, on every kind of service, in as few workflows as have each pair of values of two
//! axes in one of them.

use std::time::Duration;

use jiff::SignedDuration;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::json;

use super::{
    cluster::{Consumer, Kind, Reads},
    scene::{Scene, Ways},
    workflow::Workflow,
};

/// Who reads the key; how; what lists show of its use, where there are lists; what the service can do; how far the nodes'
/// clocks are off; how quick the kubelets are.
const AXES: [usize; 6] = [KINDS.len(), READS.len(), USES.len(), SERVICES.len(), CLOCKS.len(), 2];

const KINDS: [Kind; 6] =
    [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::Job, Kind::Pod, Kind::Outside];
const READS: [Reads; 3] = [Reads::Env, Reads::File, Reads::ReloadedFile];
const USES: [&str; 4] = ["exact", "lagging", "frozen", "null"];
/// The first ones list.
const SERVICES: [&str; 4] = ["lists and revokes", "lists", "neither", "wallet"];
const LISTING: usize = 2;
const CLOCKS: [i64; 3] = [0, -5, 5];

/// Places of axes.
const KIND: usize = 0;
const USE: usize = 2;
const SERVICE: usize = 3;
/// So many chances; one in some dozens is enough.
const TRIES: u64 = 10_000;

/// One value of each axis.
type Row = [usize; AXES.len()];
/// A value of one axis, and one of a later axis.
type Pair = [(usize, usize); 2];

/// Those that a row can have and must. There is no place for each kind with each use: a kind has four rows, and two of them
/// are of services without a list.
fn pairs() -> impl Iterator<Item = Pair> {
    let axes = (0..AXES.len()).flat_map(|a| (a + 1..AXES.len()).map(move |b| (a, b)));
    let all =
        axes.flat_map(|(a, b)| (0..AXES[a]).flat_map(move |x| (0..AXES[b]).map(move |y| [(a, x), (b, y)])));
    all.filter(|[(first, _), (second, service)]| match (*first, *second) {
        (KIND, USE) => false,
        (USE, SERVICE) => *service < LISTING,
        _ => true,
    })
}

fn has(row: &Row, pair: &Pair) -> bool {
    pair.iter().all(|(axis, value)| row[*axis] == *value && (*axis != USE || row[SERVICE] < LISTING))
}

/// Rows that have every pair. Each kind on each service, and each use as often as any other where there are lists; of the
/// other axes the values that have the most of the pairs that are left. Which of two that have as many is left to chance,
/// and not every chance has all pairs in so few rows.
fn rows() -> Vec<Row> {
    let found = (0..TRIES).find_map(|seed| by_chance(&mut StdRng::seed_from_u64(seed)));
    found.unwrap_or_else(|| panic!("no rows have every pair of values"))
}

fn by_chance(rng: &mut StdRng) -> Option<Vec<Row>> {
    let mut left: Vec<Pair> = pairs().collect();
    let mut rows = Vec::new();
    for (kind, service) in (0..AXES[KIND]).flat_map(|kind| (0..AXES[SERVICE]).map(move |it| (kind, it))) {
        let uses = (kind + 2 * service) % AXES[USE];
        let others = (0..AXES[1]).flat_map(|reads| {
            (0..AXES[4]).flat_map(move |clock| (0..AXES[5]).map(move |slow| (reads, clock, slow)))
        });
        let mut all: Vec<Row> =
            others.map(|(reads, clock, slow)| [kind, reads, uses, service, clock, slow]).collect();
        all.shuffle(rng);
        let best = all.into_iter().max_by_key(|row| left.iter().filter(|pair| has(row, pair)).count())?;
        left.retain(|pair| !has(&best, pair));
        rows.push(best);
    }
    left.is_empty().then_some(rows)
}

/// One workflow for each row.
pub(crate) fn rotations() -> Vec<Workflow> {
    rows().into_iter().map(rotation).collect()
}

fn rotation(row: Row) -> Workflow {
    let [kind, reads, uses, service, clock, slow] = row;
    let (kind, reads, minutes) = (KINDS[kind], READS[reads], CLOCKS[clock]);
    let kubelets = if slow == 0 { "quick" } else { "slow" };
    let name = format!(
        "rotation: {kind:?}, {reads:?}, {}service {}, clocks {minutes:+} min, {kubelets} kubelets",
        if service < LISTING { format!("use {}, ", USES[uses]) } else { String::new() },
        SERVICES[service]
    );
    let ways = if SERVICES[service] == "wallet" { Ways::Wallet } else { Ways::Token };
    let mut consumer = Consumer::of("web", kind, reads)
        .called("reader")
        .clocks_off_by(SignedDuration::from_mins(minutes))
        .runs_for(Duration::from_mins(70));
    if slow == 1 {
        consumer = consumer
            .served_from_a_cache(Duration::from_secs(45))
            .starts_after(Duration::from_secs(30))
            .grace(Duration::from_mins(10));
    }
    let workflow = Workflow::new(name, ways)
        .user(|user| {
            user.capabilities.list = service < LISTING;
            user.capabilities.revoke = SERVICES[service] == "lists and revokes";
            user.capabilities.last_use = USES[uses] != "null";
            user.last_use_lag = match USES[uses] {
                "lagging" => Duration::from_mins(20),
                "frozen" => Duration::from_hours(24 * 365),
                _ => Duration::ZERO,
            };
        })
        .key("web")
        .consumer(consumer)
        .meanwhile("ask for another key", |scene| {
            scene.edit_key("web", |spec| {
                spec["rotation"] = json!({"minOverlap": "5m", "quietFor": "15m"});
                spec["rollout"]["allowGap"] = json!(true);
            });
            scene.ask_for_rotation("web", "first");
        })
        .once(Scene::is_in_use);
    // Whoever nobody can restart gets the new value from a person: not so soon that it could be the old one, and before an
    // hour without evidence is over.
    let workflow = match kind {
        Kind::Pod | Kind::Custom => workflow
            .then(Duration::from_mins(10), "replace the pod", |scene| {
                scene.cluster.replace_bare_pod("reader")
            })
            .once(|scene| scene.has_settled("web")),
        Kind::Outside => workflow
            .then(Duration::from_mins(10), "give them the new value", |scene| {
                scene.cluster.kill_containers("reader");
            })
            .once(|scene| scene.has_settled("web")),
        Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::Job => workflow,
    };
    workflow.one_of_many().ends("Ready=True/Issued").ends("OldKeyRevoked=True/Revoked")
}
