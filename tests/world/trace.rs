//! The story of a run, for people: step, request, answer, ledger before and after.

use std::time::Duration;

use super::fault::{Fault, Label};

/// The story of a run; empty where nobody wants to read it.
#[derive(Default)]
pub(crate) struct Trace(Option<Vec<String>>);

/// A request that was let through.
pub(crate) struct Step<'a> {
    pub(crate) number: usize,
    pub(crate) passed: Duration,
    pub(crate) label: &'a Label,
    pub(crate) fault: Option<Fault>,
    pub(crate) answer: &'a str,
    /// Before and after.
    pub(crate) ledger: (Option<String>, Option<String>),
}

impl Trace {
    pub(crate) fn new(kept: bool) -> Self {
        Self(kept.then(Vec::new))
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Something that is no request.
    pub(crate) fn note(&mut self, words: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.0 {
            lines.push(format!("                 {}", words()));
        }
    }

    /// A request that was let through.
    pub(crate) fn step(&mut self, step: &Step<'_>) {
        let Some(lines) = &mut self.0 else { return };
        let Step { number, passed, label, fault, answer, ledger: (before, after) } = step;
        let fault = fault.map_or_else(String::new, |fault| format!("  !! {fault}"));
        lines.push(format!("{number:>5} {:>8.1} s  {label} -> {answer}{fault}", passed.as_secs_f64()));
        if before != after {
            let words = |ledger: &Option<String>| match ledger.as_deref() {
                None | Some("") => "empty".to_owned(),
                Some(ledger) => ledger.to_owned(),
            };
            lines.push(format!("                 ledger was [{}]", words(before)));
            lines.push(format!("                 ledger is  [{}]", words(after)));
        }
    }

    /// Its lines.
    pub(crate) fn lines(&self) -> &[String] {
        self.0.as_deref().unwrap_or_default()
    }
}
