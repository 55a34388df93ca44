//! Which runs there are: every single fault at every request of every workflow, pairs over what changes something, and
//! seeded random ones.

mod totals;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bags_operator::config::Config;
use rand::{SeedableRng, rngs::StdRng, seq::index};
use serde::{Deserialize, Serialize};

use super::{
    fault::{Fault, Strike},
    kept::Kept,
    process::words_of,
    regressions,
    run::{Plan, Report, Seen, run},
    trace::Trace,
    workflow::Workflow,
    workflows,
};

/// So much at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// Singles, whenever people act.
    pub(crate) singles: usize,
    /// Besides, singles where people act in the middle.
    pub(crate) in_the_middle: usize,
    /// Of the singles where people act in the middle, those that a second fault may follow.
    pub(crate) first_of_pairs: usize,
    /// Pairs.
    pub(crate) pairs: usize,
}

pub(crate) use totals::Totals;

/// How much is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Of the moments at which people may act and that make a difference, so many for singles.
    pub(crate) moments: usize,
    /// Of those, so many for pairs.
    pub(crate) pair_moments: usize,
    /// Whether pairs are made of all faults, or of one of each kind.
    pub(crate) all_faults_in_pairs: bool,
    /// One of so many pairs.
    pub(crate) every_pair: usize,
    /// Where a workflow has more pairs than this, so many of them.
    pub(crate) most_pairs: usize,
    /// Where a workflow that takes hours has more than these, so many of them.
    pub(crate) most_of_long: Most,
    /// Random runs.
    pub(crate) seeds: u64,
    /// The first seed.
    pub(crate) first_seed: u64,
    /// One violation is enough.
    pub(crate) stop_at_first: bool,
}

impl Most {
    pub(crate) const ALL: Self =
        Self { singles: usize::MAX, in_the_middle: 0, first_of_pairs: usize::MAX, pairs: usize::MAX };
}

impl Share {
    /// How much of a workflow is run.
    fn most(&self, workflow: &Workflow) -> Most {
        let long = Most { pairs: self.most_of_long.pairs.min(self.most_pairs), ..self.most_of_long };
        match (workflow.is_long(), workflow.is_one_of_many()) {
            (false, _) => Most { pairs: self.most_pairs, ..Most::ALL },
            (true, false) => long,
            (true, true) => {
                Most { singles: long.singles.div_ceil(MANY), pairs: long.pairs.div_ceil(MANY), ..long }
            }
        }
    }
}

/// Of workflows of which there are many, a share so small.
const MANY: usize = 12;
/// Random runs that are run twice.
const TWICE: usize = 100;
/// Runs whose reports are in memory at the same time, where there are many.
const AT_ONCE: usize = 5000;

/// What was run for one workflow.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) requests: usize,
    pub(crate) moments: usize,
    pub(crate) singles: usize,
    pub(crate) pairs: usize,
}

impl fmt::Display for Count {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, moments, singles, pairs } = self;
        write!(formatter, "{requests} requests, {moments} moments, {singles} singles, {pairs} pairs")
    }
}

/// The command that runs a plan again and prints its story.
pub(crate) fn replay(plan: &Plan) -> String {
    let mut command = "make replay RUN='".to_owned();
    if plan.chaos {
        let _ = write!(command, "--seed {}", plan.seed);
    } else {
        let _ = write!(command, "--workflow \"{}\" --act-after {}", plan.workflow.name, plan.act_after);
        for strike in &plan.strikes {
            let _ = write!(command, " --strike \"{strike}\"");
        }
    }
    command.push('\'');
    command
}

/// Runs a plan; a panic is a violation.
fn judged(plan: &Plan, config: &Config) -> Report {
    catch_unwind(AssertUnwindSafe(|| run(plan, config))).unwrap_or_else(|panic| Report {
        violations: vec![format!("panic: {}", words_of(&*panic))],
        seen: Vec::new(),
        unreached: Vec::new(),
        struck: 0,
        struck_in_rotations: 0,
        bags_asked: Vec::new(),
        end: String::new(),
        lasted: Duration::ZERO,
        trace: Trace::default(),
    })
}

/// Runs all plans on all processors; what was run, in the order of the plans. Where one violation is enough, the rest is
/// not run.
fn judge_all(plans: Vec<Plan>, stop_at_first: bool, config: &Config) -> Vec<(Plan, Report)> {
    let (next, found) = (AtomicUsize::new(0), AtomicBool::new(false));
    let reports = Mutex::new(BTreeMap::new());
    let threads = thread::available_parallelism().map_or(2, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !(stop_at_first && found.load(Ordering::Relaxed)) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(plan) = plans.get(index) else { break };
                    let report = judged(plan, config);
                    found.fetch_or(!report.violations.is_empty(), Ordering::Relaxed);
                    reports.lock().unwrap_or_else(PoisonError::into_inner).insert(index, report);
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    let done =
        plans.into_iter().enumerate().filter_map(|(index, plan)| Some((plan, reports.remove(&index)?)));
    done.collect()
}

/// A plan without faults.
pub(crate) fn undisturbed(workflow: &Arc<Workflow>, act_after: usize) -> Plan {
    Plan {
        workflow: workflow.clone(),
        act_after,
        strikes: Vec::new(),
        seed: 1,
        chaos: false,
        reference: None,
        traced: false,
    }
}

/// The plan of a seed.
pub(crate) fn seeded(seed: u64) -> Plan {
    Plan { chaos: true, seed, ..undisturbed(&Arc::new(Workflow::random(seed)), 0) }
}

/// What was found once must not come back.
fn regressions(workflows: &[Arc<Workflow>], share: Share, config: &Config) -> Totals {
    let known = regressions::ALL.iter().filter_map(|regression| {
        let plan = match regression.run {
            regressions::Run::Seed(seed) => seeded(seed),
            regressions::Run::Struck { workflow, act_after, strikes } => {
                let known = workflows::all().iter().any(|it| it.name == workflow);
                assert!(known, "{}: there is no workflow \"{workflow}\"", regression.name);
                // Only some of them may be run.
                let workflow = workflows.iter().find(|it| it.name == workflow)?;
                let base = undisturbed(workflow, act_after);
                let strikes = strikes
                    .iter()
                    .map(|text| text.parse().unwrap_or_else(|error| panic!("{}: {error}", regression.name)));
                let reference = Some(judged(&base, config).end.into());
                Plan { strikes: strikes.collect(), reference, ..base }
            }
        };
        Some((regression.name, plan))
    });
    let (names, plans): (Vec<_>, Vec<_>) = known.unzip();
    let mut totals = Totals::default();
    // Their labels were written down once: a deliberate bug that only changes how many requests there are was not found by
    // any oracle where one of them names nothing any more.
    let exact = !share.stop_at_first;
    for (name, (plan, report)) in names.into_iter().zip(judge_all(plans, share.stop_at_first, config)) {
        let before = totals.violations.len();
        totals.add(&plan, &report, exact);
        for violation in &mut totals.violations[before..] {
            *violation = format!("{name}: {violation}");
        }
    }
    totals
}

/// A part of what is run, by name.
type Part<'a> = (String, Box<dyn Fn() -> Totals + 'a>);

/// All that the share asks for, in parts that can be kept.
fn parts<'a>(workflows: &'a [Arc<Workflow>], share: Share, config: &'a Config) -> Vec<Part<'a>> {
    let mut parts: Vec<Part<'a>> =
        vec![("regressions".to_owned(), Box::new(move || regressions(workflows, share, config)))];
    for workflow in workflows {
        parts.push((workflow.name.clone(), Box::new(move || one(workflow, share, config))));
    }
    let end = share.first_seed + share.seeds;
    for begin in (share.first_seed..end).step_by(AT_ONCE) {
        let some = begin..end.min(begin + AT_ONCE as u64);
        parts.push((format!("seeds {some:?}"), Box::new(move || random(some.clone(), share, config))));
    }
    parts.push(("the first seeds twice".to_owned(), Box::new(move || twice(share, config))));
    parts
}

/// Runs all that the share asks for and that is not kept.
pub(crate) fn explore(workflows: Vec<Workflow>, share: Share, config: &Config, kept: &mut Kept) -> Totals {
    let mut totals = Totals::default();
    let workflows: Vec<Arc<Workflow>> = workflows.into_iter().map(Arc::new).collect();
    for (name, run) in parts(&workflows, share, config) {
        totals.merge(kept.or_run(&name, || timed(&run)));
        totals.tell();
        if let Some((_, count)) = totals.by_workflow.last().filter(|(last, _)| *last == name) {
            println!("{name}: {count}, {} violations so far", totals.violations.len());
        }
        if share.stop_at_first && !totals.violations.is_empty() {
            break;
        }
    }
    totals
}

#[expect(clippy::disallowed_methods, reason = "how long it took is for people; no run knows of it")]
fn timed(run: &dyn Fn() -> Totals) -> Totals {
    let begun = std::time::Instant::now();
    let mut totals = run();
    totals.took = begun.elapsed();
    totals
}

/// All that the share asks for of one workflow.
fn one(workflow: &Arc<Workflow>, share: Share, config: &Config) -> Totals {
    let (mut totals, mut count) = (Totals::default(), Count::default());
    let bases = bases(workflow, share, config, &mut totals, &mut count);
    let singles = singles(&bases, share, config, &mut totals, &mut count);
    let moments: Vec<usize> = bases.iter().map(|(plan, _)| plan.act_after).collect();
    pairs(&moments, &singles, share, config, &mut totals, &mut count);
    totals.by_workflow.push((workflow.name.clone(), count));
    totals
}

/// The undisturbed runs of a workflow, one for each moment at which its people may act.
fn bases(
    workflow: &Arc<Workflow>,
    share: Share,
    config: &Config,
    totals: &mut Totals,
    count: &mut Count,
) -> Vec<(Plan, Vec<Seen>)> {
    let quiet = judged(&undisturbed(workflow, usize::MAX), config);
    let moments = if workflow.deeds().is_empty() { 0 } else { quiet.seen.len() };
    let plans: Vec<Plan> = (0..=moments).map(|moment| undisturbed(workflow, moment)).collect();
    if let Some(words) = workflow.expected_violation() {
        bites(words, judge_all(plans, false, config), totals);
        return Vec::new();
    }
    let mut bases = Vec::new();
    for (plan, report) in judge_all(plans, share.stop_at_first, config) {
        totals.add(&plan, &report, true);
        let missing: Vec<&str> = workflow.missing(&report.end).collect();
        if !missing.is_empty() && report.violations.is_empty() {
            let words = format!("the undisturbed run ends without [{}]:\n{}", missing.join("; "), report.end);
            totals.violations.push(format!("{words}    {}", replay(&plan)));
        }
        count.requests = count.requests.max(report.seen.len());
        // Without a right end there is nothing to compare with. People who wait until they can act make one run of many moments.
        let known = |(_, seen, lasted): &(Plan, Vec<Seen>, Duration)| {
            *lasted == report.lasted && *seen == report.seen
        };
        if report.violations.is_empty() && !bases.last().is_some_and(known) {
            let plan = Plan { reference: Some(report.end.into()), ..plan };
            bases.push((plan, report.seen, report.lasted));
        }
    }
    count.moments = bases.len();
    bases.into_iter().map(|(plan, seen, _)| (plan, seen)).collect()
}

/// Every run must end with a violation that has these words.
fn bites(words: &str, runs: Vec<(Plan, Report)>, totals: &mut Totals) {
    for (plan, report) in runs {
        totals.runs += 1;
        if !report.violations.iter().any(|violation| violation.contains(words)) {
            let end = report.violations.join("; ");
            totals
                .violations
                .push(format!("an oracle does not bite: [{words}] is not in [{end}]\n    {}", replay(&plan)));
        }
    }
}

/// `count` of these, evenly spread, the first and the last among them.
fn spread<T>(all: &[T], count: usize) -> Vec<&T> {
    if all.len() <= count {
        return all.iter().collect();
    }
    (0..count).map(|n| &all[n * (all.len() - 1) / (count - 1).max(1)]).collect()
}

/// `count` of the moments that singles are made for, from the middle on.
fn middle(moments: &[usize], count: usize) -> Vec<usize> {
    moments.iter().copied().skip(moments.len() / 2).take(count).collect()
}

/// Every fault at every request.
fn singles(
    bases: &[(Plan, Vec<Seen>)],
    share: Share,
    config: &Config,
    totals: &mut Totals,
    count: &mut Count,
) -> Vec<(Plan, Vec<Seen>)> {
    let mut plans = Vec::new();
    let moments: Vec<usize> = bases.iter().map(|(plan, _)| plan.act_after).collect();
    let mut wanted: Vec<usize> = spread(&moments, share.moments).into_iter().copied().collect();
    let middle = middle(&moments, share.pair_moments);
    wanted.extend(&middle);
    for (base, seen) in bases.iter().filter(|(plan, _)| wanted.contains(&plan.act_after)) {
        for request in seen {
            plans.extend(with_each_fault(base, request, |_| true));
        }
    }
    let is_in_the_middle = |plan: &Plan| middle.contains(&plan.act_after);
    let most = bases.first().map_or(Most::ALL, |(base, _)| share.most(&base.workflow));
    let plans = thinned(plans, most, is_in_the_middle);
    count.singles = plans.len();
    let firsts: BTreeSet<usize> = some_of(&plans, most.first_of_pairs, is_in_the_middle).collect();
    let (firsts, others): (Vec<_>, Vec<_>) =
        plans.into_iter().enumerate().partition(|(index, _)| firsts.contains(index));
    let plans_of = |some: Vec<(usize, Plan)>| some.into_iter().map(|(_, plan)| plan).collect::<Vec<_>>();
    let mut after = Vec::new();
    for (plan, report) in judge_all(plans_of(firsts), share.stop_at_first, config) {
        totals.add(&plan, &report, true);
        if report.violations.is_empty() {
            after.push((plan, report.seen));
        }
    }
    for some in plans_of(others).chunks(AT_ONCE) {
        for (plan, report) in judge_all(some.to_vec(), share.stop_at_first, config) {
            totals.add(&plan, &report, true);
        }
    }
    after
}

/// A share of all singles, and one of those that are in the middle.
fn thinned(plans: Vec<Plan>, most: Most, is_in_the_middle: impl Fn(&Plan) -> bool) -> Vec<Plan> {
    let mut kept: BTreeSet<usize> = chosen(plans.len(), most.singles).collect();
    kept.extend(some_of(&plans, most.in_the_middle, is_in_the_middle));
    plans.into_iter().enumerate().filter_map(|(index, plan)| kept.contains(&index).then_some(plan)).collect()
}

/// So many of those plans, by index.
fn some_of(plans: &[Plan], most: usize, those: impl Fn(&Plan) -> bool) -> impl Iterator<Item = usize> {
    let those: Vec<usize> = (0..plans.len()).filter(|index| those(&plans[*index])).collect();
    chosen(those.len(), most).map(move |index| those[index])
}

/// So many of these by chance, the same ones each time: every second or sixteenth of them might have one fault only.
fn chosen(all: usize, most: usize) -> impl Iterator<Item = usize> {
    let mut indexes = index::sample(&mut StdRng::seed_from_u64(1), all, most.min(all)).into_vec();
    indexes.sort_unstable();
    indexes.into_iter()
}

/// The plan with one more fault, each that can happen to this request.
fn with_each_fault(base: &Plan, request: &Seen, wanted: impl Fn(Fault) -> bool) -> Vec<Plan> {
    let happens = |fault: &Fault| fault.happens_to(request.seam, &request.label.what);
    let faults = Fault::ALL.iter().copied().filter(|fault| happens(fault) && wanted(*fault));
    faults
        .map(|fault| {
            let mut plan = base.clone();
            plan.strikes.push(Strike { label: request.label.clone(), fault });
            plan
        })
        .collect()
}

/// Every fault at every later request that changes something, after every single fault at one that does.
fn pairs(
    moments: &[usize],
    singles: &[(Plan, Vec<Seen>)],
    share: Share,
    config: &Config,
    totals: &mut Totals,
    count: &mut Count,
) {
    let mut plans = Vec::new();
    let moments = middle(moments, share.pair_moments);
    let wanted = |fault: Fault, seam| share.all_faults_in_pairs || fault.is_one_of_its_kind(seam);
    for (plan, seen) in singles.iter().filter(|(plan, _)| moments.contains(&plan.act_after)) {
        let Some(first) = plan.strikes.last() else { continue };
        let at = seen.iter().position(|request| request.label == first.label);
        let at = at.filter(|at| counts(&seen[*at]) && wanted(first.fault, seen[*at].seam));
        let Some(at) = at else { continue };
        for request in seen[at + 1..].iter().filter(|request| counts(request)) {
            plans.extend(with_each_fault(plan, request, |fault| wanted(fault, request.seam)));
        }
    }
    let most = singles.first().map_or(usize::MAX, |(plan, _)| share.most(&plan.workflow).pairs);
    let most = most.min(plans.len().div_ceil(share.every_pair));
    let plans: Vec<Plan> = chosen(plans.len(), most).map(|index| plans[index].clone()).collect();
    count.pairs = plans.len();
    for (plan, report) in judge_all(plans, share.stop_at_first, config) {
        totals.add(&plan, &report, true);
    }
}

/// Events change nothing that anybody reads.
fn counts(request: &Seen) -> bool {
    request.mutates && !request.label.what.starts_with("create events")
}

/// Random runs.
fn random(seeds: Range<u64>, share: Share, config: &Config) -> Totals {
    let mut totals = Totals::default();
    for (plan, report) in judge_all(seeds.map(seeded).collect(), share.stop_at_first, config) {
        totals.add(&plan, &report, true);
        totals.in_rotations += report.struck_in_rotations;
        totals.seeds += 1;
    }
    totals
}

/// The first hundred random runs twice more, to compare their stories.
fn twice(share: Share, config: &Config) -> Totals {
    let mut totals = Totals::default();
    let traced = |seed| Plan { traced: true, ..seeded(seed) };
    let all = share.first_seed..share.first_seed + share.seeds;
    let plans: Vec<Plan> = all.take(TWICE).flat_map(|seed| [traced(seed), traced(seed)]).collect();
    totals.runs += plans.len();
    for pair in judge_all(plans, false, config).chunks(2) {
        let [(plan, first), (_, second)] = pair else { continue };
        if first.trace.lines() != second.trace.lines() {
            totals.violations.push(format!("a replay differs from its run\n    {}", replay(plan)));
        }
    }
    totals
}
