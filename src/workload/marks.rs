//! The marks that this process has set, so that one that somebody takes away is not set again and again.
//!
//! It may be lost: then a mark that is gone is set once more by the process that comes next.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::owner::WorkloadRef;

/// A mark is set so often at most: once, and once more where somebody took it away.
const TIMES: u32 = 2;
/// What was marked so long ago is forgotten.
const KEPT: Duration = Duration::from_hours(24 * 14);

/// Why a workload that this process has marked is not marked again, where it does not carry the mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It was marked a moment ago.
    Pause,
    /// It was marked as often as is sensible, and the mark did not stay.
    Spent,
    /// The API server refused it a moment ago: its words.
    Refused(String),
}

struct Set {
    workload: WorkloadRef,
    mark: String,
    at: Instant,
    times: u32,
    refused: Option<String>,
}

/// Marks of this process: by workload and ApiKey.
#[derive(Default)]
pub struct Marks(Mutex<HashMap<(String, String), Set>>);

impl Marks {
    /// A mark was set.
    pub fn note(&self, workload: &WorkloadRef, api_key_uid: &str, mark: &str, now: Instant) {
        self.tried(workload, api_key_uid, mark, now, None);
    }

    /// A mark was refused. It is tried again after a pause, for as long as it is wanted: nothing was done.
    pub fn refused(
        &self,
        workload: &WorkloadRef,
        api_key_uid: &str,
        mark: &str,
        now: Instant,
        words: String,
    ) {
        self.tried(workload, api_key_uid, mark, now, Some(words));
    }

    fn tried(
        &self,
        workload: &WorkloadRef,
        api_key_uid: &str,
        mark: &str,
        now: Instant,
        refused: Option<String>,
    ) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, set| now.saturating_duration_since(set.at) < KEPT);
        let place = (workload.uid.clone(), api_key_uid.to_owned());
        let before = all.get(&place).filter(|set| set.mark == mark).map_or(0, |set| set.times);
        let times = before.saturating_add(u32::from(refused.is_none()));
        let (workload, mark) = (workload.clone(), mark.to_owned());
        all.insert(place, Set { workload, mark, at: now, times, refused });
    }

    /// The workloads that this process has marked so and will not mark again now.
    #[must_use]
    pub fn resting(
        &self,
        api_key_uid: &str,
        mark: &str,
        now: Instant,
        pause: Duration,
    ) -> BTreeMap<WorkloadRef, Rest> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = |set: &Set| match (now.saturating_duration_since(set.at) < pause, &set.refused) {
            (true, Some(words)) => Some(Rest::Refused(words.clone())),
            (true, None) => Some(Rest::Pause),
            (false, _) if set.times >= TIMES => Some(Rest::Spent),
            (false, _) => None,
        };
        let ours = all.iter().filter(|((_, owner), set)| owner == api_key_uid && set.mark == mark);
        ours.filter_map(|(_, set)| Some((set.workload.clone(), rest(set)?))).collect()
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
        let rests =
            |mark: &str, after: Duration| marks.resting("uid-0", mark, begun + after, pause).remove(&web);
        assert_eq!(rests("uid-0-2", Duration::ZERO), None, "nothing was marked yet");
        marks.note(&web, "uid-0", "uid-0-2", begun);
        assert_eq!(rests("uid-0-2", pause / 2), Some(Rest::Pause), "too soon");
        assert_eq!(rests("uid-0-3", pause / 2), None, "the next switch is another mark");
        assert_eq!(rests("uid-0-2", pause), None, "once more");
        marks.note(&web, "uid-0", "uid-0-2", begun + pause);
        assert_eq!(rests("uid-0-2", pause * 3 / 2), Some(Rest::Pause), "it may come up");
        assert_eq!(rests("uid-0-2", pause * 100), Some(Rest::Spent), "never a third time");
        marks.note(&web, "uid-0", "uid-0-3", begun + pause * 100);
        assert_eq!(rests("uid-0-3", pause * 102), None, "a later switch begins anew");
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "the start of a virtual clock")]
    async fn a_mark_that_was_refused_is_tried_again_after_each_pause_and_does_not_count_as_set() {
        let (marks, pause) = (Marks::default(), Duration::from_mins(10));
        let web = WorkloadRef { kind: WorkloadKind::Deployment, name: "web".into(), uid: "uid-web".into() };
        let begun = Instant::now();
        let rests = |after: Duration| marks.resting("uid-0", "uid-0-2", begun + after, pause).remove(&web);
        for turn in 0..9 {
            marks.refused(&web, "uid-0", "uid-0-2", begun + pause * turn, "denied".to_owned());
            assert_eq!(rests(pause * turn + pause / 2), Some(Rest::Refused("denied".to_owned())));
            assert_eq!(rests(pause * (turn + 1)), None, "it is tried again");
        }
        marks.note(&web, "uid-0", "uid-0-2", begun + pause * 9);
        assert_eq!(rests(pause * 9 + pause / 2), Some(Rest::Pause), "it was let in");
        assert_eq!(rests(pause * 10), None, "it was set once");
    }
}
