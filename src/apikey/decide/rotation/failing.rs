//! In the middle of a switch: a workload does not come up, or Bags refuses the key that the Secret holds.

use std::time::Duration;

use super::{LOOK_AGAIN, Switch};
use crate::{
    api::apikey::OnRolloutFailure,
    apikey::{
        decide::{Decision, Rule, words},
        hold::{Hold, Reason},
    },
    bags::Probe,
    ledger::Change,
    time::since,
    workload::Failure,
};

/// A rollout that the new key breaks fails within this time after the last pods with the old key ended. If the controller
/// reports a later failure, it has another reason.
const FAILS_WITHIN: Duration = Duration::from_hours(1);

impl Switch<'_> {
    /// A workload does not come up with the new key.
    pub(super) fn failed(&self) -> Option<Rule> {
        let o = self.o;
        let plan = self.plan(o.key.rollout().max_concurrent);
        // The first workload that may never have come up with the key that the Secret holds, else the first of all.
        let failure = plan.failed.iter().find(|failure| failure.of_mark).or(plan.failed.first())?;
        let Failure { workload, words: said, of_mark, at } = failure;
        let clean = self.pods.scan.is_clean();
        // Where Bags refuses the key that the Secret holds, a workload fails for that key, whenever it does. The status keeps no
        // `clean_since` meanwhile.
        let refused = clean.then(|| self.refusal()).flatten();
        if matches!(refused, Some(Rule::Act(_))) {
            return refused;
        }
        // Once no pod holds the old key, a failure counts as the new key's too, unless it began while other pods still held the
        // old key (`before`), or long after that (`late`).
        let clean_since = o.clean_since().unwrap_or(o.now);
        let before = at.is_some_and(|at| since(clean_since, at) > 2 * o.timings.scan_every);
        let of_mark = *of_mark || (clean && (refused.is_some() || !before));
        let rotation = o.key.rotation();
        // What counts is when the rollout failed, not when that was seen: people may ask for the switch back only after they
        // read of the failure.
        let failed_at = at.unwrap_or(o.now);
        let late = o.clean_since().is_some_and(|clean| since(failed_at, clean) >= FAILS_WITHIN);
        let newer = self.current.revision > self.previous.revision && (refused.is_some() || !late);
        let back = rotation.on_rollout_failure == OnRolloutFailure::SwitchBack && newer && of_mark;
        let attempt = self.previous.attempt.clone().unwrap_or_default();
        // A refusal that is minutes old may have been one of every key of the user: the new key is asked in the run that asks the
        // old one.
        if back && refused.is_some() && o.current_probe.is_none() && o.previous_probe.is_none() {
            return Some(self.ask_current());
        }
        if back {
            match &o.previous_probe {
                None => return Some(Rule::Act(Decision::Probe { attempt })),
                Some(Probe::Alive { .. }) => {
                    let switch = self.current.published.unwrap_or_default();
                    return Some(Rule::change(Change::SwitchBack { attempt, switch }));
                }
                // The old key was probed just now, and each probe costs a request.
                Some(Probe::Dead | Probe::Forbidden | Probe::UserGone) => {
                    let message = words::no_way_back(self.previous, workload, said);
                    return Some(Rule::Wait(Hold::new(Reason::RotationHeld, message).after(LOOK_AGAIN)));
                }
            }
        }
        if refused.is_some() {
            return refused;
        }
        let message = match (of_mark, clean) {
            (true, _) => words::rollout_failed(self.previous, workload, said),
            (false, false) => words::rollout_fails_since(self.previous, workload, said),
            (false, true) => words::rollout_had_failed(self.previous, workload, said),
        };
        Some(Rule::Wait(Hold::new(Reason::RotationHeld, message).after(o.timings.scan_every)))
    }

    /// That Bags refuses the key that the Secret holds, or the probe that has to tell.
    fn refusal(&self) -> Option<Rule> {
        let o = self.o;
        if o.current_value.is_none() || matches!(o.current_probe, Some(Probe::Alive { .. })) {
            return None;
        }
        // What it answered long before does not tell why a rollout fails now.
        let outdated = o.current_failure.is_none() && o.current_asked.is_some_and(|ago| ago >= LOOK_AGAIN);
        if outdated { Some(self.ask_current()) } else { self.published_key_fails() }
    }

    /// The published key was probed, and Bags does not accept it: its use can prove nothing, and the old key stays valid. This
    /// is shown until the key answers well. The key is probed again after `LOOK_AGAIN`; a process that never probed it does so
    /// at once, as its predecessor's result is not stored anywhere.
    pub(super) fn published_key_fails(&self) -> Option<Rule> {
        let o = self.o;
        let expected = o.account.as_ref().and_then(|view| view.account.expected_user());
        let (probe, ago) = match (&o.current_probe, &o.current_failure) {
            (Some(probe), _) => (probe, Duration::ZERO),
            (None, Some((failure, ago))) if *ago < LOOK_AGAIN => (failure, *ago),
            (None, None) if o.current_asked.is_some() => return None,
            (None, _) => return Some(self.ask_current()),
        };
        match probe {
            Probe::Alive { user } if expected.is_none_or(|expected| expected == user.as_str()) => None,
            Probe::Alive { .. } | Probe::Dead | Probe::Forbidden | Probe::UserGone => {
                let message = words::published_key_fails(self.current, self.previous, probe, expected);
                let hold = Hold::new(Reason::RotationHeld, message);
                Some(Rule::Wait(hold.after(LOOK_AGAIN.saturating_sub(ago).max(Duration::from_secs(1)))))
            }
        }
    }

    fn ask_current(&self) -> Rule {
        Rule::Act(Decision::Probe { attempt: self.current.attempt.clone().unwrap_or_default() })
    }
}
