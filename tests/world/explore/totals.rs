//! What all that was run came to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Count, replay};
use crate::run::{Plan, Report};

/// Violations that are printed; the rest is counted.
const PRINTED: usize = 30;

/// What all of it came to.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) took: Duration,
    pub(crate) runs: usize,
    pub(crate) faults: usize,
    pub(crate) seeds: u64,
    /// Faults of seeds that fell into a rotation.
    #[serde(default)]
    pub(crate) in_rotations: usize,
    pub(crate) by_workflow: Vec<(String, Count)>,
    /// In words, with the command that shows it again.
    pub(crate) violations: Vec<String>,
    /// How many of them were told.
    #[serde(skip)]
    told: usize,
}

impl Totals {
    /// The closing line.
    pub(crate) fn line(&self) -> String {
        format!(
            "world: {} runs, {} faults, {} seeds, {} violations",
            self.runs,
            self.faults,
            self.seeds,
            self.violations.len()
        )
    }

    /// What the closing line does not say.
    pub(crate) fn of_seeds(&self) -> String {
        format!("{} faults of the seeds fell into a rotation", self.in_rotations)
    }

    pub(super) fn merge(&mut self, part: Self) {
        self.took += part.took;
        self.runs += part.runs;
        self.faults += part.faults;
        self.seeds += part.seeds;
        self.in_rotations += part.in_rotations;
        self.by_workflow.extend(part.by_workflow);
        self.violations.extend(part.violations);
    }

    /// Prints the violations that came since the last time.
    pub(super) fn tell(&mut self) {
        for violation in self.violations.iter().take(PRINTED).skip(self.told) {
            println!("VIOLATION: {violation}");
        }
        if self.told < PRINTED && self.violations.len() > PRINTED {
            println!("… and more, which are only counted");
        }
        self.told = self.violations.len();
    }

    /// `exact`: every fault of the plan is to have happened.
    pub(super) fn add(&mut self, plan: &Plan, report: &Report, exact: bool) {
        self.runs += 1;
        self.faults += report.struck;
        if exact && report.violations.is_empty() {
            let unreached = report.unreached.iter();
            self.violations
                .extend(unreached.map(|strike| format!("{strike} was not reached\n    {}", replay(plan))));
        }
        for violation in &report.violations {
            self.violations.push(format!("{violation}\n    {}", replay(plan)));
        }
    }
}
