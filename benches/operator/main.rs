//! What the operator costs: one key on an idle cluster, a thousand at once, a thousand at rest, a restart; what
//! the webhook costs; what a rotation beside thousands of pods does, and an account for which a thousand wait.
//!
//! The operator and the sandbox run as programs of their own beside a real control plane; requests to the API server
//! are counted in its audit log, those to Bags in the sandbox's journal. A baseline of plain Secrets runs beside, so
//! that figures can be read as ratios. Everything is printed and nothing is asserted: a slow machine fails no bench.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "the edge of a bench: what fails here ends it, and what it finds is printed"
)]

mod admission;
mod audit;
mod burst;
mod one_key;
mod pods;
mod process;
mod secrets;
mod table;
mod waiting;
mod world;

#[path = "../../tests/support/mod.rs"]
mod support;

use std::{
    env,
    fmt::Display,
    process::{Command, ExitCode},
    str::FromStr,
    time::Duration,
};

/// How much is measured.
struct Sizes {
    /// Keys made one after another.
    keys: usize,
    /// Accounts of the burst.
    accounts: usize,
    /// ApiKeys for each of them.
    keys_per_account: usize,
    /// How long the idle operator is watched.
    idle: Duration,
    /// Pods beside a rotation.
    pods: usize,
    /// ApiKeys that wait for a full account.
    waiting: usize,
}

impl Sizes {
    fn from_environment() -> Self {
        Self {
            keys: number("BENCH_KEYS", 50),
            accounts: number("BENCH_ACCOUNTS", 100),
            keys_per_account: number("BENCH_KEYS_PER_ACCOUNT", 10),
            idle: Duration::from_secs(number("BENCH_IDLE_SECONDS", 120)),
            pods: number("BENCH_PODS", 5_000),
            waiting: number("BENCH_WAITING", 1_000),
        }
    }
}

fn number<N: FromStr<Err: Display>>(variable: &str, default: N) -> N {
    match env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")),
        Err(_) => default,
    }
}

const PARTS: [&str; 5] = ["one-key", "burst", "admission", "pods", "waiting"];

fn main() -> ExitCode {
    // Cargo adds --bench.
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match wanted.as_slice() {
        [] => every_part(),
        [part] if part == "one-key" => one_key::measure(&Sizes::from_environment()),
        [part] if part == "burst" => burst::measure(&Sizes::from_environment()),
        [part] if part == "admission" => admission::measure(),
        [part] if part == "pods" => pods::measure(&Sizes::from_environment()),
        [part] if part == "waiting" => waiting::measure(&Sizes::from_environment()),
        [part] if part == "nothing" => admission::nothing(),
        _ => {
            eprintln!("name one of {PARTS:?}, or nothing for all of them");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Each part in a process of its own: its cluster ends with it, and no part measures what another left behind.
fn every_part() {
    println!("{}", process::machine());
    for part in PARTS {
        let status = Command::new(env::current_exe().unwrap()).arg(part).status().unwrap();
        assert!(status.success(), "part {part}: {status}");
    }
}
