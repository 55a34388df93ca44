//! What the operator asks of Bags: `docs/requests.md`, counted in runs that nothing disturbs.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    sync::Arc,
    time::Duration,
};

use bags_operator::config::Config;

use super::{
    cluster::{Kind, Reads},
    explore::undisturbed,
    fault::Seam,
    run::{Report, run},
    scene::{Scene, Ways},
    workflow::Workflow,
};

/// An account that nothing happens to asks for no more than this in any hour.
const MOST_WHEN_IDLE: usize = 12;
const HOUR: Duration = Duration::from_hours(1);
/// For so long nothing happens.
const IDLE_HOURS: u64 = 24;

/// Columns: title, and how labels name the operation.
const OPERATIONS: [(&str, &[&str]); 6] = [
    ("challenge", &["challenge"]),
    ("sign", &["sign", "second-factor"]),
    ("create", &["create"]),
    ("list", &["list"]),
    ("me", &["me"]),
    ("revoke", &["revoke"]),
];

/// Requests by column, and in how much time.
struct Counted {
    by_operation: [usize; OPERATIONS.len()],
    /// What no column has.
    others: usize,
    hours: f64,
}

impl Counted {
    fn of(report: &Report) -> Self {
        let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
        for seen in report.seen.iter().filter(|seen| seen.seam == Seam::Bags) {
            let operation = seen.label.what.split(' ').nth(1).unwrap_or_default();
            *by_name.entry(operation).or_default() += 1;
        }
        let by_operation =
            OPERATIONS.map(|(_, names)| names.iter().filter_map(|name| by_name.remove(name)).sum());
        Self {
            by_operation,
            others: by_name.into_values().sum(),
            hours: report.lasted.as_secs_f64() / 3600.0,
        }
    }

    fn all(&self) -> usize {
        self.by_operation.iter().sum::<usize>() + self.others
    }

    /// What came after the other one, which is how it began.
    fn since(&self, begin: &Self) -> Self {
        Self {
            by_operation: std::array::from_fn(|n| self.by_operation[n].saturating_sub(begin.by_operation[n])),
            others: self.others.saturating_sub(begin.others),
            hours: self.hours - begin.hours,
        }
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for count in self.by_operation {
            match count {
                0 => formatter.write_str(" |")?,
                count => write!(formatter, " {count} |")?,
            }
        }
        write!(formatter, " {} | {:.1} |", self.all(), self.hours)
    }
}

fn creation(name: &str, ways: Ways) -> Workflow {
    Workflow::new(name, ways).key("web")
}

fn rotation(name: &str, ways: Ways) -> Workflow {
    creation(name, ways)
        .consumed_by(Kind::Deployment, Reads::Env)
        .meanwhile("ask for another key", |scene| scene.ask_for_rotation("web", "first"))
}

fn deletion(name: &str, ways: Ways) -> Workflow {
    creation(name, ways).meanwhile("delete", |scene| scene.delete_now("web"))
}

fn idle(name: &str, ways: Ways, keys: &[&str]) -> Workflow {
    let workflow = keys.iter().fold(Workflow::new(name, ways), |workflow, key| workflow.key(*key));
    let nothing = |_: &Scene| {};
    workflow.meanwhile("nothing", nothing).then(Duration::from_hours(IDLE_HOURS), "nothing", nothing)
}

/// What is counted. Of workflows in which people do something: from then on.
fn cases() -> Vec<Workflow> {
    vec![
        creation("creation, agent token", Ways::Token),
        creation("creation, wallet", Ways::Wallet),
        creation("creation, wallet with a second factor", Ways::Wallet)
            .user(|user| (user.totp, user.totp_single_use) = (true, true)),
        creation("creation, wallet and agent token", Ways::Both),
        rotation("rotation, agent token", Ways::Token),
        rotation("rotation, agent token without a revoke endpoint: a person revokes", Ways::Token)
            .user(|user| user.capabilities.revoke = false),
        rotation("rotation, wallet and agent token", Ways::Both),
        rotation("rotation, wallet: a person revokes", Ways::Wallet),
        deletion("deletion, agent token", Ways::Token),
        idle("a day in which nothing happens, agent token, one key", Ways::Token, &["web"]),
        idle("a day in which nothing happens, agent token, three keys", Ways::Token, &["web", "api", "jobs"]),
        idle("a day in which nothing happens, wallet, one key", Ways::Wallet, &["web"]),
    ]
}

/// The page, and what is wrong with what it says.
pub(crate) fn page(config: &Config) -> (String, Vec<String>) {
    let (mut rows, mut wrong) = (String::new(), Vec::new());
    for workflow in cases() {
        let workflow = Arc::new(workflow);
        let begin = run(&undisturbed(&workflow, usize::MAX), config);
        let counted = match workflow.deeds().is_empty() {
            true => Counted::of(&begin),
            false => {
                let whole = run(&undisturbed(&workflow, begin.seen.len()), config);
                wrong.extend(whole.violations.iter().map(|words| format!("{}: {words}", workflow.name)));
                let most = most_in_an_hour(&whole, begin.lasted);
                if workflow.name.starts_with("a day") && most > MOST_WHEN_IDLE {
                    wrong.push(format!("{}: {most} requests in one hour", workflow.name));
                }
                Counted::of(&whole).since(&Counted::of(&begin))
            }
        };
        let _ = writeln!(rows, "| {} |{counted}", workflow.name);
    }
    (text(&rows), wrong)
}

/// The most requests in any hour that begins after this: a burst is a burst, however quiet the rest of the day is.
fn most_in_an_hour(report: &Report, after: Duration) -> usize {
    let times: Vec<Duration> = report.bags_asked.iter().copied().filter(|at| *at > after).collect();
    let within = |from: &Duration| times.iter().filter(|at| (*from..*from + HOUR).contains(*at)).count();
    times.iter().map(within).max().unwrap_or_default()
}

fn text(rows: &str) -> String {
    let titles: Vec<&str> = OPERATIONS.iter().map(|(title, _)| *title).collect();
    format!(
        "# Requests to Bags

Written by `make requests`, and compared with what the operator does by `make test`: counted in the world
([testing.md](testing.md)), in runs that nothing disturbs, with the default durations of an ApiKey (`minOverlap: 1h`, `quietFor: 24h`).

| What | {} | all | hours |
|---|{}
{rows}
- *challenge*, *sign*: the wallet's way to a new key, which the second step makes. *create*: the agent token's.
- *me*: whether a key works, and whose it is. A new key is asked for before it is published; an old one never before it is condemned, as
  that would count as a use of it; a revoked one until it is proven dead.
- *list*: the account's keys with their last use. One at each resync (10 minutes, spread by a fifth), which serves every ApiKey of the account, and one
  before a step that cannot be taken back. A rotation's lists are mostly those that the account asks for anyway while a day passes.
- An idle account asks for at most {MOST_WHEN_IDLE} in an hour. Every account has a budget of its own (`requestsPerHour`, 250 by default), from which
  revocations may take the last tenth as well.
",
        titles.join(" | "),
        "---|".repeat(OPERATIONS.len() + 2)
    )
}
