//! Whether an old key is out of use, by what the account's lists tell of it. Pure.
//!
//! That a list shows no use proves nothing by itself: lists may lag, stand still, or tell nothing at all. A list is evidence
//! only up to a known use that it does show: that of the current key, which is probed for this purpose once the old key should
//! have been quiet for long enough.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::time::{later, until};

/// How long lists that ever told of a use have to show the known one. Without this extra time they could never prove anything
/// where `quietFor` is as long as both keys stay valid without evidence.
const SHOWN_WITHIN: Duration = Duration::from_hours(1);

/// A known use of a key that a list has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// When the key was asked: its use is no earlier.
    pub answered: Timestamp,
    /// How much later the first list that shows this use was asked for: lists lag by no more than this.
    pub lag: SignedDuration,
}

/// What is known of the use of the two keys of a switch; times by the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Whether the account can list its keys at all.
    pub may_list: bool,
    /// When the last list was asked for, if it covers the account.
    pub listed_at: Option<Timestamp>,
    /// Whether the last list tells a use of the previous key at all.
    pub tells: bool,
    /// The last use of the previous key that any list ever told of. It counts even if that list does not cover the account, and
    /// even if the account can no longer list its keys.
    pub previous: Option<Timestamp>,
    /// When the current key was sent the probe that it last answered with 200: a known use, no earlier than this.
    pub answered: Option<Timestamp>,
    /// The last known use of the current key that a list has shown.
    pub shown: Option<Shown>,
}

/// What is known of the old key's use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// It was not used for long enough.
    Proven,
    /// It was not used after `since`, as far as lists tell, and will have been quiet for long enough after `left`.
    For {
        /// Since when.
        since: Timestamp,
        /// How much longer it takes.
        left: Duration,
    },
    /// It should have been quiet for long enough; a probe of the current key has to show whether lists can tell.
    Ask,
    /// Lists tell, but lag: a list that is asked for after `left` counts.
    Lagging {
        /// How much longer it takes.
        left: Duration,
    },
    /// The lists are no evidence: both keys stay valid for longer instead.
    Unproven {
        /// The last use that a list showed after the pods had moved.
        used: Option<Timestamp>,
        /// How much longer it takes.
        left: Duration,
    },
}

impl Uses {
    /// Judges whether the old key was quiet since the pods moved. `unproven`: for how long both keys stay valid where nobody
    /// can tell.
    #[must_use]
    pub fn quiet(
        &self,
        clean_since: Timestamp,
        quiet_for: Duration,
        unproven: Duration,
        now: Timestamp,
    ) -> Quiet {
        let used = self.previous.filter(|used| *used > clean_since);
        let since = used.unwrap_or(clean_since);
        // One list that tells no use does not undo the earlier ones that did.
        let told = self.may_list && self.previous.is_some();
        let to_show = if told { SHOWN_WITHIN.min(unproven) } else { Duration::ZERO };
        let longest = until(now, later(since, unproven.max(quiet_for.saturating_add(to_show))));
        if !self.may_list {
            return Quiet::Unproven { used, left: longest };
        }
        let end = later(since, quiet_for);
        if now < end {
            return Quiet::For { since, left: until(now, end) };
        }
        match (self.shown.filter(|shown| shown.answered >= end), self.answered) {
            // Lists that never showed a use of the old key would not show one now.
            (Some(_), _) if !self.tells => Quiet::Unproven { used, left: longest },
            (Some(Shown { answered: _, lag }), _) => {
                let counts = later(later(end, lag), lag);
                match self.listed_at.is_some_and(|listed_at| listed_at >= counts) {
                    true => Quiet::Proven,
                    false => Quiet::Lagging { left: until(now, counts) },
                }
            }
            (None, Some(answered)) if answered >= end => Quiet::Unproven { used, left: longest },
            (None, _) => Quiet::Ask,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const MINUTE: Duration = Duration::from_mins(1);

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
    }

    fn shown(answered: i64, lag: i64) -> Option<Shown> {
        Some(Shown { answered: at(answered), lag: SignedDuration::from_mins(lag) })
    }

    #[test]
    fn an_old_key_is_quiet_only_by_lists_that_can_tell() {
        // The pods moved at minute 0; an hour of quiet is wanted, or a day without evidence; it is minute 75.
        let good = Uses {
            may_list: true,
            listed_at: Some(at(72)),
            tells: true,
            previous: Some(at(-5)),
            answered: Some(at(65)),
            shown: shown(65, 3),
        };
        let unproven = |used, hours, minutes| Quiet::Unproven { used, left: hours * HOUR + minutes * MINUTE };
        let cases = [
            ("a use after the quiet hour is shown, and twice the lag has passed", good, Quiet::Proven),
            (
                "the lag was longer",
                Uses { shown: shown(65, 7), ..good },
                Quiet::Lagging { left: Duration::ZERO },
            ),
            (
                "the lag is not over",
                Uses { shown: shown(65, 9), ..good },
                Quiet::Lagging { left: 3 * MINUTE },
            ),
            (
                "what was shown lies within the quiet hour",
                Uses { shown: shown(59, 3), ..good },
                unproven(None, 22, 45),
            ),
            (
                "nothing was asked after the quiet hour",
                Uses { answered: Some(at(59)), shown: None, ..good },
                Quiet::Ask,
            ),
            ("nothing was ever asked", Uses { answered: None, shown: None, ..good }, Quiet::Ask),
            ("what was asked is not shown", Uses { shown: None, ..good }, unproven(None, 22, 45)),
            (
                "it was used since",
                Uses { previous: Some(at(30)), ..good },
                Quiet::For { since: at(30), left: 15 * MINUTE },
            ),
            (
                "no use of the old key was ever shown",
                Uses { tells: false, previous: None, ..good },
                unproven(None, 22, 45),
            ),
            ("lists tell of it no more", Uses { tells: false, ..good }, unproven(None, 22, 45)),
            ("there is no list", Uses::default(), unproven(None, 22, 45)),
            (
                "it was used since, and there is no list any more",
                Uses { may_list: false, tells: false, previous: Some(at(30)), listed_at: None, ..good },
                unproven(Some(at(30)), 23, 15),
            ),
        ];
        for (name, uses, expected) in cases {
            assert_eq!(uses.quiet(at(0), HOUR, 24 * HOUR, at(75)), expected, "{name}");
        }
    }

    #[test]
    fn lists_that_lag_have_an_hour_to_show_what_is_asked_at_the_end_of_the_overlap() {
        let day = 24 * HOUR;
        let asked = Uses {
            may_list: true,
            listed_at: Some(at(24 * 60)),
            tells: true,
            previous: Some(at(-5)),
            answered: Some(at(24 * 60)),
            shown: None,
        };
        let unproven = |left| Quiet::Unproven { used: None, left };
        let after = |uses: &Uses, minutes: i64| uses.quiet(at(0), day, day, at(24 * 60 + minutes));
        assert_eq!(after(&asked, 0), unproven(HOUR), "the list was asked for in the same moment");
        let shown = Uses { shown: shown(24 * 60, 5), ..asked };
        assert_eq!(after(&shown, 6), Quiet::Lagging { left: 4 * MINUTE }, "it lags five minutes");
        assert_eq!(after(&asked, 60), unproven(Duration::ZERO), "it stands still");
        let used = Uses { previous: Some(at(23 * 60 + 58)), ..shown };
        assert!(matches!(after(&used, 6), Quiet::For { .. }), "and showed another use meanwhile");
        assert_eq!(
            after(&Uses { tells: false, ..asked }, 0),
            unproven(HOUR),
            "one does not tell, and the next may"
        );
        let never = Uses { tells: false, previous: None, ..asked };
        assert_eq!(after(&never, 0), unproven(Duration::ZERO), "it never tells");
    }

    #[test]
    fn without_evidence_the_longer_overlap_ends_all_the_same() {
        let uses = Uses::default();
        let ended = Quiet::Unproven { used: None, left: Duration::ZERO };
        assert_eq!(uses.quiet(at(0), HOUR, 24 * HOUR, at(24 * 60)), ended);
        let wanted = uses.quiet(at(0), 48 * HOUR, 24 * HOUR, at(24 * 60));
        assert_eq!(
            wanted,
            Quiet::Unproven { used: None, left: 24 * HOUR },
            "nobody asked for less than two days"
        );
    }
}
