//! The marks that this process has set, so that one that somebody takes away is not set again and again.
//!
//! It may be lost: then a mark that is gone is set once more by the process that comes next.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::owner::WorkloadRef;

/// A mark is set so often at most: once, and once more where somebody took it away.
const TIMES: u32 = 2;
/// What was marked so long ago is forgotten.
const KEPT: Duration = Duration::from_hours(24 * 14);

struct Set {
    mark: String,
    at: Instant,
    times: u32,
}

/// Marks of this process: by workload and ApiKey.
#[derive(Default)]
pub struct Marks(Mutex<HashMap<(String, String), Set>>);

impl Marks {
    /// A mark was set.
    pub fn note(&self, workload: &WorkloadRef, api_key_uid: &str, mark: &str, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, set| now.saturating_duration_since(set.at) < KEPT);
        let place = (workload.uid.clone(), api_key_uid.to_owned());
        let times = all.get(&place).filter(|set| set.mark == mark).map_or(0, |set| set.times);
        all.insert(place, Set { mark: mark.to_owned(), at: now, times: times.saturating_add(1) });
    }

    /// Uids of the workloads that this process has marked so and will not mark again now.
    #[must_use]
    pub fn resting(&self, api_key_uid: &str, mark: &str, now: Instant, pause: Duration) -> BTreeSet<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rests = |set: &Set| {
            set.mark == mark && (set.times >= TIMES || now.saturating_duration_since(set.at) < pause)
        };
        let resting = all.iter().filter(|((_, owner), set)| owner == api_key_uid && rests(set));
        resting.map(|((workload, _), _)| workload.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::WorkloadKind;

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "the start of a virtual clock")]
    async fn a_mark_that_was_taken_away_is_set_once_more_after_a_pause_and_never_again() {
        let (marks, pause) = (Marks::default(), Duration::from_mins(10));
        let web = WorkloadRef { kind: WorkloadKind::Deployment, name: "web".into(), uid: "uid-web".into() };
        let begun = Instant::now();
        let rests = |mark: &str, after: Duration| {
            marks.resting("uid-0", mark, begun + after, pause).contains("uid-web")
        };
        assert!(!rests("uid-0-2", Duration::ZERO), "nothing was marked yet");
        marks.note(&web, "uid-0", "uid-0-2", begun);
        assert!(rests("uid-0-2", pause / 2), "too soon");
        assert!(!rests("uid-0-3", pause / 2), "the next switch is another mark");
        assert!(!rests("uid-0-2", pause), "once more");
        marks.note(&web, "uid-0", "uid-0-2", begun + pause);
        assert!(rests("uid-0-2", pause * 100), "never a third time");
        marks.note(&web, "uid-0", "uid-0-3", begun + pause * 100);
        assert!(!rests("uid-0-3", pause * 102), "a later switch begins anew");
    }
}
