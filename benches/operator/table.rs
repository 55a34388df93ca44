//! Figures as people read them.

use std::time::Duration;

/// Rows of name, figures and the mark to hold them against.
pub(crate) struct Table {
    title: String,
    rows: Vec<[String; 3]>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, name: impl Into<String>, figure: impl Into<String>, mark: &str) {
        self.rows.push([name.into(), figure.into(), mark.to_owned()]);
    }

    pub(crate) fn print(&self) {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let (names, figures) = (width(0), width(1));
        println!("\n## {}\n", self.title);
        for [name, figure, mark] in &self.rows {
            let mark = if mark.is_empty() { String::new() } else { format!("   mark: {mark}") };
            println!("{}", format!("{name:<names$}   {figure:>figures$}{mark}").trim_end());
        }
    }
}

/// Durations of the same thing.
#[derive(Default)]
pub(crate) struct Durations(Vec<Duration>);

impl Durations {
    pub(crate) fn push(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// The duration that this share of all do not exceed (nearest rank).
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    pub(crate) fn p50(&self) -> Duration {
        self.quantile(0.5)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.quantile(0.99)
    }

    /// Where in the order of measurement the duration is that this share of all do not exceed.
    pub(crate) fn place_of(&self, share: f64) -> usize {
        let wanted = self.quantile(share);
        self.0.iter().position(|duration| *duration == wanted).unwrap_or_default()
    }

    /// Median and 99th percentile, as a figure of a table.
    pub(crate) fn show(&self) -> String {
        show_both(self.p50(), self.p99())
    }
}

/// Median and 99th percentile, as a figure of a table.
pub(crate) fn show_both(p50: Duration, p99: Duration) -> String {
    format!("{} / {} ms", milliseconds(p50), milliseconds(p99))
}

pub(crate) fn milliseconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1000.0)
}

pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// How many times `base` fits into `measured`.
pub(crate) fn ratio(measured: Duration, base: Duration) -> String {
    format!("{:.1} ×", measured.as_secs_f64() / base.as_secs_f64())
}

pub(crate) fn each(total: usize, objects: usize) -> String {
    format!("{:.2}", total as f64 / objects as f64)
}
