//! The world: the whole operator, run through every crash and every lost answer, in seconds, repeatably.
//!
//! The reconcilers are the real ones, and so are the clients of both seams; the API server is one in memory that passes
//! the same conformance suite as a real one (`tests/conformance.rs`), Bags is the sandbox, time is virtual. See
//! `docs/testing.md`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program whose output people read")]

#[path = "apiserver.rs"]
mod apiserver;
mod clock;
#[path = "cluster.rs"]
mod cluster;
mod covering;
mod creation;
mod crowded;
mod end;
mod explore;
mod fault;
mod gate;
mod holds;
mod kept;
mod oracle;
mod outages;
mod process;
mod regressions;
mod requests;
mod rotations;
mod run;
mod scene;
mod schedules;
mod trace;
mod workflow;
mod workflows;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use bags_operator::config::{Cli, Command, Config};
use clap::Parser;

use self::{
    explore::{Most, Share, Totals, explore, seeded, undisturbed},
    fault::Strike,
    kept::Kept,
    run::{Plan, run},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the operator through every fault.
#[derive(Parser)]
#[command(name = "world", no_binary_name = true)]
struct Args {
    /// Only workflows whose name contains this.
    filter: Option<String>,
    /// Run everything: all moments, all pairs, and these many seeds unless --seeds says otherwise.
    #[arg(long)]
    all: bool,
    /// How many random runs.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Of the moments at which people may act, so many for single faults.
    #[arg(long)]
    moments: Option<usize>,
    /// Make pairs of all faults, not of one of each kind.
    #[arg(long)]
    every_fault: bool,
    /// One of so many pairs.
    #[arg(long)]
    every_pair: Option<usize>,
    /// The share that finds deliberate bugs: stops at the first violation.
    #[arg(long)]
    mutants: bool,
    /// Write the figures there, as Markdown.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Keep there what each part came to, and go on where an earlier run of this program was stopped.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Count the requests to Bags, and write them there, as Markdown.
    #[arg(long)]
    requests: Option<PathBuf>,
    /// Run one workflow and print its story.
    #[arg(long)]
    workflow: Option<String>,
    /// After how many requests its people act.
    #[arg(long, default_value_t = 0)]
    act_after: usize,
    /// A fault at a request, as a failure prints it.
    #[arg(long, requires = "workflow", conflicts_with = "seed")]
    strike: Vec<Strike>,
    /// Run one seed and print its story.
    #[arg(long, conflicts_with = "workflow")]
    seed: Option<u64>,
    /// What `cargo test` passes on to every test program means nothing here.
    #[arg(long, hide = true)]
    nocapture: bool,
}

/// Of each workflow, where not everything is run: ten minutes on two cores are for all of it, and a slow machine has them too.
const TEST_PAIRS: usize = 150;
/// The same of a workflow that takes hours.
const TEST_OF_LONG: Most = Most { singles: 100, pairs: 30, ..Most::ALL };
/// The same where everything is run: all of them would take a day, and this is to be run before each release.
const ALL_OF_LONG: Most =
    Most { singles: 2_000, in_the_middle: usize::MAX, first_of_pairs: 700, pairs: 1_200 };
const REQUESTS: &str = "docs/requests.md";
const TEST_SEEDS: u64 = 2_000;
const ALL_SEEDS: u64 = 100_000;
const MUTANT_SEEDS: u64 = 100;

fn main() -> ExitCode {
    let args = match Args::try_parse_from(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    let config = config();
    if args.workflow.is_some() || args.seed.is_some() {
        return tell(&args, &config);
    }
    if let Some(path) = &args.requests {
        return count(path, &config);
    }
    let filter = args.filter.clone().unwrap_or_default();
    let workflows: Vec<_> = workflows::all().into_iter().filter(|it| it.name.contains(&filter)).collect();
    if workflows.is_empty() {
        eprintln!("no workflow has \"{filter}\" in its name; there are:\n  {}", names().join("\n  "));
        return ExitCode::FAILURE;
    }
    let share = Share {
        moments: args.moments.unwrap_or(match (args.all, args.mutants) {
            (true, _) => usize::MAX,
            (false, true) => 1,
            (false, false) => 3,
        }),
        pair_moments: 1,
        all_faults_in_pairs: args.every_fault,
        every_pair: args.every_pair.unwrap_or(if args.mutants { 200 } else { 1 }),
        most_pairs: if args.all { usize::MAX } else { TEST_PAIRS },
        most_of_long: match (args.all, args.moments) {
            (true, _) => ALL_OF_LONG,
            (false, Some(_)) => Most::ALL,
            (false, None) => TEST_OF_LONG,
        },
        seeds: args.seeds.unwrap_or(match (args.all, filter.is_empty()) {
            (_, false) => 0,
            (true, true) => ALL_SEEDS,
            (false, true) if args.mutants => MUTANT_SEEDS,
            (false, true) => TEST_SEEDS,
        }),
        first_seed: args.first_seed,
        stop_at_first: args.mutants,
    };
    let mut kept = match args.keep.as_deref().map(Kept::open).transpose() {
        Ok(kept) => kept.unwrap_or_default(),
        Err(error) => {
            eprintln!("failed to keep what is run: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut totals = explore(workflows, share, &config, &mut kept);
    if filter.is_empty() && !args.all && !args.mutants {
        totals.violations.extend(outdated(&config));
    }
    report(&totals);
    if let Some(path) = &args.write
        && let Err(error) = std::fs::write(path, page(&totals, &by_hand(path)))
    {
        eprintln!("failed to write {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    if totals.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is wrong with the requests to Bags, or with what `docs/requests.md` says of them.
fn outdated(config: &Config) -> Vec<String> {
    let (page, mut wrong) = requests::page(config);
    if std::fs::read_to_string(REQUESTS).unwrap_or_default() != page {
        wrong.push(format!("{REQUESTS} says something else: make requests"));
    }
    wrong.iter().for_each(|words| println!("VIOLATION: {words}"));
    wrong
}

/// Writes `docs/requests.md`.
fn count(path: &Path, config: &Config) -> ExitCode {
    let (page, mut wrong) = requests::page(config);
    if let Err(error) = std::fs::write(path, page) {
        wrong.push(format!("failed to write {}: {error}", path.display()));
    }
    wrong.iter().for_each(|words| eprintln!("{words}"));
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The operator's configuration: all that is its default, but for the time that both keys stay valid without evidence. In a
/// day the pods would be looked at a hundred and fifty times; an hour says the same.
fn config() -> Config {
    let cli = Cli::try_parse_from([
        "bags-operator",
        "run",
        "--namespace",
        process::OPERATOR_NAMESPACE,
        "--bags-url",
        "https://bags.example/api/v1",
        "--unproven-overlap=1h",
    ]);
    let Command::Run(arguments) = cli.unwrap_or_else(|error| panic!("{error}")).command;
    Config::try_from(*arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// Names of all workflows.
fn names() -> Vec<String> {
    workflows::all().into_iter().map(|workflow| workflow.name).collect()
}

/// Prints the story of one run.
fn tell(args: &Args, config: &Config) -> ExitCode {
    let plan = match (&args.workflow, args.seed) {
        (Some(name), _) => {
            let Some(workflow) = workflows::all().into_iter().find(|it| it.name == *name) else {
                eprintln!("no workflow is called \"{name}\"; there are:\n  {}", names().join("\n  "));
                return ExitCode::FAILURE;
            };
            let base = undisturbed(&Arc::new(workflow), args.act_after);
            let reference = run(&base, config).end;
            Plan { strikes: args.strike.clone(), reference: Some(reference.into()), ..base }
        }
        (None, seed) => seeded(seed.unwrap_or_default()),
    };
    let report = run(&Plan { traced: true, ..plan }, config);
    let mut out = std::io::stdout().lock();
    for line in report.trace.lines() {
        let _ = writeln!(out, "{line}");
    }
    let _ = writeln!(out, "\nThe end:\n{}", report.end);
    for violation in &report.violations {
        let _ = writeln!(out, "VIOLATION: {violation}");
    }
    // Without its fault a run says nothing of what was asked.
    for strike in &report.unreached {
        let _ = writeln!(out, "NOT REACHED: {strike}");
    }
    let clean = report.violations.is_empty() && report.unreached.is_empty();
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(totals: &Totals) {
    let mut out = std::io::stdout().lock();
    let took = totals.took;
    let each = took.as_secs_f64() * 1000.0 / f64::from(u32::try_from(totals.runs.max(1)).unwrap_or(u32::MAX));
    let _ = writeln!(out, "{:.1} s, {each:.2} ms a run", took.as_secs_f64());
    let _ = writeln!(out, "{}", totals.of_seeds());
    let _ = writeln!(out, "{}", totals.line());
}

/// The heading under which people write.
const BY_HAND: &str = "\n## Deliberate bugs\n";

/// What people have written into the page.
fn by_hand(path: &Path) -> String {
    let page = std::fs::read_to_string(path).unwrap_or_default();
    page.find(BY_HAND).map_or_else(String::new, |begin| page[begin..].to_owned())
}

/// `docs/faults.md`, with what people have written into it.
fn page(totals: &Totals, by_hand: &str) -> String {
    let mut rows = String::new();
    for (name, count) in &totals.by_workflow {
        let explore::Count { requests, moments, singles, pairs } = count;
        rows.push_str(&format!("| {name} | {requests} | {moments} | {singles} | {pairs} |\n"));
    }
    let (line, in_rotations, commit) = (totals.line(), totals.of_seeds(), commit());
    let minutes = totals.took.as_secs().div_ceil(60);
    let Most { singles, pairs, .. } = ALL_OF_LONG;
    format!(
        "# What was made to fail

Written by `make world` up to the table; [testing.md](testing.md) says what the world is. On commit {commit}, in {minutes} minutes on two cores:

```
{line}
```

A single is one fault at one request. A pair is a second fault at a later request that changes something, after a first
one at such a request, both one of each kind (`Fault::is_one_of_its_kind`; `--every-fault` takes all, for a day). Moments: after how many requests people act, as far as
that makes a difference; singles are made at all of them, pairs at the one in the middle. Of a workflow that takes hours all singles are
run where people act in the middle, {singles} besides whenever they act, and {pairs} pairs, by chance; of one that has many like it,
a twelfth of the last two. A seed is a random service, random
ApiKeys, random deeds of people, a random order of requests, and up to six random faults. Three of sixteen, all of them with rotations, have up to
six more while an ApiKey has two slots, and more deeds: {in_rotations}.

| Workflow | Requests | Moments | Singles | Pairs |
|---|---|---|---|---|
{rows}{by_hand}"
    )
}

/// The commit that is being run.
fn commit() -> String {
    let output = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let text = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}
