//! The marks that this process has set: so that a mark which somebody else removes is not set again and again, and so that a
//! workload that lost all of its pods by its restart is still known.
//!
//! This memory may be lost: the next process looks for workloads that carry marks, and sets a mark that is gone once more.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::owner::WorkloadRef;

/// How often a mark is set at most: once, and once more where somebody took it away.
const TIMES: u32 = 2;
/// How long a mark is remembered.
const KEPT: Duration = Duration::from_hours(24 * 14);

/// Whether a workload that this process has marked, or tried to mark, may be marked again if it does not carry the mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It was marked a moment ago.
    Pause,
    /// It was marked a while ago, and may be marked once more.
    Over,
    /// It was marked as often as is sensible, and the mark did not stay.
    Spent,
    /// The API server refused the mark a moment ago.
    Refused {
        /// Its words.
        words: String,
        /// The workload had been marked before that.
        marked: bool,
    },
}

impl Rest {
    /// Whether it was marked, by this process.
    #[must_use]
    pub fn was_marked(&self) -> bool {
        match self {
            Self::Pause | Self::Over | Self::Spent => true,
            Self::Refused { words: _, marked } => *marked,
        }
    }
}

/// What came of the last try.
#[derive(Clone)]
enum Last {
    Set,
    Refused(String),
    /// The request failed: the mark may be set or not.
    Failed,
}

struct Set {
    workload: WorkloadRef,
    mark: String,
    at: Instant,
    times: u32,
    last: Last,
}

/// Marks of this process.
#[derive(Default)]
pub struct Marks {
    /// By uid of the workload and uid of the ApiKey.
    set: Mutex<HashMap<(String, String), Set>>,
    /// By uid of the ApiKey: the mark for which all workloads that carry it are known, and when that was last ensured.
    known: Mutex<HashMap<String, (String, Instant)>>,
}

impl Marks {
    /// A mark was set.
    pub fn note(&self, workload: &WorkloadRef, api_key_uid: &str, mark: &str, now: Instant) {
        self.tried(workload, api_key_uid, mark, now, Last::Set);
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
        self.tried(workload, api_key_uid, mark, now, Last::Refused(words));
    }

    /// The API server failed to set a mark. A single failure may be the API server's own; a second one in a row counts as a
    /// refusal. Returns whether the try before failed as well.
    pub fn failed(
        &self,
        workload: &WorkloadRef,
        api_key_uid: &str,
        mark: &str,
        now: Instant,
        words: String,
    ) -> bool {
        let place = (workload.uid.clone(), api_key_uid.to_owned());
        let again = {
            let all = self.set.lock().unwrap_or_else(PoisonError::into_inner);
            let before = all.get(&place).filter(|set| set.mark == mark);
            before.is_some_and(|set| matches!(set.last, Last::Refused(_) | Last::Failed))
        };
        let last = if again { Last::Refused(words) } else { Last::Failed };
        self.tried(workload, api_key_uid, mark, now, last);
        again
    }

    /// Whether this process knows all workloads that carry this mark: it made the switch, or has looked for them, and has not
    /// stood still for `term` since, in which another replica may have led.
    #[must_use]
    pub fn is_known(&self, api_key_uid: &str, mark: &str, now: Instant, term: Duration) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = |at: &Instant| now.saturating_duration_since(*at) < term;
        known.get(api_key_uid).is_some_and(|(known, at)| known == mark && lately(at))
    }

    /// Notes that all workloads which carry this mark are known, as of `now`.
    pub fn know(&self, api_key_uid: &str, mark: &str, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, at)| now.saturating_duration_since(*at) < KEPT);
        known.insert(api_key_uid.to_owned(), (mark.to_owned(), now));
    }

    /// A try to mark a workload has failed. The workload may carry the mark all the same, set by this process or by another one,
    /// so the workloads with the ApiKey's mark have to be looked for again.
    pub fn doubt(&self, api_key_uid: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(api_key_uid);
    }

    /// The workloads that are noted to have been given this mark.
    #[must_use]
    pub fn set(&self, api_key_uid: &str, mark: &str) -> Vec<WorkloadRef> {
        let all = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let ours =
            all.iter().filter(|((_, owner), set)| owner == api_key_uid && set.mark == mark && set.times > 0);
        ours.map(|(_, set)| set.workload.clone()).collect()
    }

    fn tried(&self, workload: &WorkloadRef, api_key_uid: &str, mark: &str, now: Instant, last: Last) {
        let mut all = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, set| now.saturating_duration_since(set.at) < KEPT);
        let place = (workload.uid.clone(), api_key_uid.to_owned());
        let before = all.get(&place).filter(|set| set.mark == mark).map_or(0, |set| set.times);
        let times = before.saturating_add(u32::from(matches!(last, Last::Set)));
        let (workload, mark) = (workload.clone(), mark.to_owned());
        all.insert(place, Set { workload, mark, at: now, times, last });
    }

    /// The workloads that are noted to have been given this mark, and those whose mark was just refused: whether each may be
    /// marked again now.
    #[must_use]
    pub fn resting(
        &self,
        api_key_uid: &str,
        mark: &str,
        now: Instant,
        pause: Duration,
    ) -> BTreeMap<WorkloadRef, Rest> {
        let all = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = |set: &Set| match (now.saturating_duration_since(set.at) < pause, &set.last) {
            (true, Last::Refused(words)) => {
                Some(Rest::Refused { words: words.clone(), marked: set.times > 0 })
            }
            (true, Last::Set) => Some(Rest::Pause),
            (false, _) if set.times >= TIMES => Some(Rest::Spent),
            (true, Last::Failed) | (false, _) => (set.times > 0).then_some(Rest::Over),
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
        assert_eq!(rests("uid-0-2", pause), Some(Rest::Over), "once more");
        marks.note(&web, "uid-0", "uid-0-2", begun + pause);
        assert_eq!(rests("uid-0-2", pause * 3 / 2), Some(Rest::Pause), "it may come up");
        assert_eq!(rests("uid-0-2", pause * 100), Some(Rest::Spent), "never a third time");
        marks.note(&web, "uid-0", "uid-0-3", begun + pause * 100);
        assert_eq!(rests("uid-0-3", pause * 102), Some(Rest::Over), "a later switch begins anew");
    }

    fn refused(words: &str, marked: bool) -> Option<Rest> {
        Some(Rest::Refused { words: words.to_owned(), marked })
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "the start of a virtual clock")]
    async fn a_second_mark_that_is_refused_leaves_the_workload_a_marked_one() {
        let (marks, pause) = (Marks::default(), Duration::from_mins(10));
        let web = WorkloadRef { kind: WorkloadKind::Deployment, name: "web".into(), uid: "uid-web".into() };
        let begun = Instant::now();
        let rests = |after: Duration| marks.resting("uid-0", "uid-0-2", begun + after, pause).remove(&web);
        marks.note(&web, "uid-0", "uid-0-2", begun);
        marks.refused(&web, "uid-0", "uid-0-2", begun + pause, "denied".to_owned());
        assert_eq!(rests(pause * 3 / 2), refused("denied", true));
        assert_eq!(rests(pause * 2), Some(Rest::Over), "it is tried again");
        assert!(
            refused("denied", true).unwrap().was_marked() && !refused("denied", false).unwrap().was_marked()
        );
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
            assert_eq!(rests(pause * turn + pause / 2), refused("denied", false));
            assert_eq!(rests(pause * (turn + 1)), None, "it is tried again");
        }
        marks.note(&web, "uid-0", "uid-0-2", begun + pause * 9);
        assert_eq!(rests(pause * 9 + pause / 2), Some(Rest::Pause), "it was let in");
        assert_eq!(rests(pause * 10), Some(Rest::Over), "it was set once");
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "the start of a virtual clock")]
    async fn a_mark_that_fails_twice_in_a_row_rests_as_if_it_were_refused() {
        let (marks, pause) = (Marks::default(), Duration::from_mins(10));
        let web = WorkloadRef { kind: WorkloadKind::Deployment, name: "web".into(), uid: "uid-web".into() };
        let begun = Instant::now();
        let fails = |after| marks.failed(&web, "uid-0", "uid-0-2", begun + after, "no answer".to_owned());
        let rests = |after: Duration| marks.resting("uid-0", "uid-0-2", begun + after, pause).remove(&web);
        assert!(!fails(Duration::ZERO), "it may be done all the same");
        assert_eq!(rests(Duration::ZERO), None, "it is tried again at once");
        assert!(fails(Duration::from_secs(5)));
        assert_eq!(rests(pause / 2), refused("no answer", false));
        assert_eq!(rests(pause * 2), None, "it is tried again");
        assert!(fails(pause * 2), "and rests again where it fails");
        assert!(marks.set("uid-0", "uid-0-2").is_empty(), "it was never set");
        marks.note(&web, "uid-0", "uid-0-2", begun + pause * 3);
        assert_eq!(marks.set("uid-0", "uid-0-2"), std::slice::from_ref(&web));
        assert!(marks.set("uid-0", "uid-0-3").is_empty(), "by another switch");
        assert!(!fails(pause * 4), "once after it was set");
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "the start of a virtual clock")]
    async fn who_carries_a_mark_is_known_of_the_last_switch_of_each_apikey() {
        let (marks, now, term) = (Marks::default(), Instant::now(), Duration::from_mins(2));
        let known = |uid, mark| marks.is_known(uid, mark, now, term);
        assert!(!known("uid-0", "uid-0-2"), "another process may have set it");
        marks.know("uid-0", "uid-0-2", now);
        marks.know("uid-1", "uid-1-1", now);
        assert!(known("uid-0", "uid-0-2") && known("uid-1", "uid-1-1"));
        assert!(!marks.is_known("uid-0", "uid-0-2", now + term, term), "it has stood still for long");
        marks.know("uid-0", "uid-0-3", now);
        assert!(known("uid-0", "uid-0-3") && !known("uid-0", "uid-0-2"));
        marks.doubt("uid-0");
        assert!(!known("uid-0", "uid-0-3") && known("uid-1", "uid-1-1"));
    }
}
