//! Every duration of the workflows in one value; each is a flag, so that tests and demos can be quick.

use std::time::Duration;

use clap::Args;

use crate::api::duration::GoDuration;

/// Upper case, for the name of an environment variable; `N` is the length of the name.
const fn upper<const N: usize>(name: &str) -> [u8; N] {
    let mut letters = [0; N];
    letters.copy_from_slice(name.as_bytes());
    letters.make_ascii_uppercase();
    letters
}

/// The environment variable of a duration: `begin_deadline` → `BAGS_TIMING_BEGIN_DEADLINE`.
macro_rules! variable {
    ($name:ident) => {{
        const LOWER: &str = concat!("bags_timing_", stringify!($name));
        const UPPER: [u8; LOWER.len()] = upper(LOWER);
        const NAME: &str = match std::str::from_utf8(&UPPER) {
            Ok(name) => name,
            Err(_) => panic!("a field's name is ASCII"),
        };
        NAME
    }};
}

macro_rules! timings {
    ($($(#[doc = $doc:literal])+ $name:ident = $default:literal;)+) => {
        /// Durations of the workflows, as flags. The defaults are the ones that the documentation speaks of.
        #[derive(Args, Clone, Debug)]
        #[command(next_help_heading = "Durations of the workflows")]
        pub struct TimingArgs {
            $($(#[doc = $doc])+
            #[arg(long, default_value = $default, value_name = "DURATION", env = variable!($name))]
            $name: GoDuration,)+
        }

        /// Durations of the workflows, as the code uses them.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Timings {
            $($(#[doc = $doc])+ pub $name: Duration,)+
        }

        impl From<TimingArgs> for Timings {
            fn from(args: TimingArgs) -> Self {
                Self { $($name: args.$name.0,)+ }
            }
        }

        impl Default for Timings {
            fn default() -> Self {
                Self { $($name: $default.parse::<GoDuration>().expect("the default is a duration").0,)+ }
            }
        }

        impl Timings {
            /// Every duration with its field's name.
            fn each(&self) -> impl Iterator<Item = (&'static str, Duration)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

timings! {
    /// A creation may begin so long after its licence was acknowledged.
    begin_deadline = "30s";
    /// A creation must be answered so long after its licence.
    answer_deadline = "60s";
    /// The value of a made key is saved for so long after its licence, then given up.
    save_deadline = "180s";
    /// A creation of unknown outcome is judged so long after its licence, at the earliest.
    judge_after = "240s";
    /// A licence keeps the account's other creations waiting for so long.
    licence_term = "2m";
    /// The empty keystore Secret of an attempt must be younger than this when the licence is taken.
    placeholder_fresh = "60s";
    /// A new key may answer 401 for so long before it is given up.
    propagation = "60s";
    /// A kept place whose owner does not exist is dropped after this.
    reserved_reap_after = "120s";
    /// A live key whose owner vanished is revoked once its namespace has been gone for so long.
    orphan_after = "1h";
    /// An empty keystore Secret without a slot is deleted after this.
    placeholder_reap_after = "10m";
    /// A list of the account's keys may be so old when a key is made.
    list_fresh = "60s";
    /// Two lists count as two only so far apart.
    lists_apart = "30s";
    /// A list covers the account if it shows a key that answered 200 within this.
    cover_window = "1h";
    /// Where no key is known to live, lists of a token that covered before count after so long.
    cover_without_key = "10m";
    /// Two 401 of a key that we revoked count as two only so far apart.
    death_apart_ours = "1s";
    /// Two 401 of a key that others revoked count as two only so far apart.
    death_apart = "30s";
    /// Three 401 without another live key as control must span this.
    death_without_control = "10m";
    /// Pause after the first refused attempt; doubles up to an hour.
    refusal_backoff = "1m";
    /// A limit learnt from a refusal is believed for so long at first; doubles up to a day.
    limit_recheck = "1h";
    /// A revoke endpoint that was missing, or that refused to revoke a key, is tried again after this.
    capability_retry = "24h";
    /// A deletion that waits for workloads says more after this.
    deletion_advice = "10m";
    /// A deletion in a terminating namespace, or one that waits for a revocation, is handed over to the account after this.
    handover = "15m";
    /// A pod counts as started with the new value only if it was created so long after the switch: a kubelet may serve a
    /// Secret from its cache for so long.
    settle_delay = "60s";
    /// Workloads are restarted so long after a switch.
    mark_delay = "90s";
    /// A container that started again in an older pod has the new value only so long after the switch: the start is told
    /// by the node's clock.
    container_margin = "10m";
    /// A file of a mounted Secret has the new value so long after the switch, where the application re-reads it.
    reload_delay = "180s";
    /// Pods are listed so often until none holds the old value.
    scan_every = "15s";
    /// Pods are listed so often once none holds the old value, until the old key is revoked.
    clean_scan_every = "10m";
    /// A mark that somebody removed from a workload is set once more after this.
    remark_after = "10m";
    /// Both keys are valid for so long at least where Bags cannot show that the old one is out of use.
    unproven_overlap = "24h";
    /// A rotation that has found no second slot for so long is shown at the account, with who holds the slots.
    starved_after = "24h";
    /// Everything is looked at again so often, spread by a fifth.
    resync = "10m";
}

/// Durations that may be zero: there it means "at once". Anywhere else zero would make a busy loop, or take away the
/// distance that a proof rests on.
const MAY_BE_ZERO: [&str; 3] = ["propagation", "deletion_advice", "handover"];

/// Durations that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimingsError {
    /// A duration is zero that may not be.
    #[error("--{flag} must not be zero; write a duration, for example --{flag}=30s")]
    Zero {
        /// The flag without its dashes.
        flag: String,
    },
    /// Two durations are in the wrong order.
    #[error(
        "--{longer} ({longer_value}) must be {relation} --{shorter} ({shorter_value}); lengthen the first or shorten \
         the second"
    )]
    Order {
        /// The flag that must be longer.
        longer: &'static str,
        /// Its value.
        longer_value: GoDuration,
        /// The flag that must be shorter.
        shorter: &'static str,
        /// Its value.
        shorter_value: GoDuration,
        /// `longer than` or `at least as long as`.
        relation: &'static str,
    },
}

impl Timings {
    /// Whether the durations fit together.
    ///
    /// # Errors
    /// The first contradiction, with the flags to change. A creation must end before it is judged, or a key that is
    /// just being saved could be taken for lost; it must be answered before the next creation of its account may
    /// begin; an empty keystore Secret must be too old for a licence before it is deleted; a pod that a restart makes must
    /// be late enough to count as started with the new value.
    pub fn check(&self) -> Result<(), TimingsError> {
        if let Some((name, _)) = self.each().find(|(name, d)| d.is_zero() && !MAY_BE_ZERO.contains(name)) {
            return Err(TimingsError::Zero { flag: name.replace('_', "-") });
        }
        let begin = ("begin-deadline", self.begin_deadline);
        let answer = ("answer-deadline", self.answer_deadline);
        let save = ("save-deadline", self.save_deadline);
        let fresh = ("placeholder-fresh", self.placeholder_fresh);
        at_least(answer, begin)?;
        at_least(save, answer)?;
        longer(("judge-after", self.judge_after), save)?;
        longer(("licence-term", self.licence_term), answer)?;
        longer(("mark-delay", self.mark_delay), ("settle-delay", self.settle_delay))?;
        longer(("placeholder-reap-after", self.placeholder_reap_after), fresh)
    }
}

/// A flag's name and value.
type Flag = (&'static str, Duration);

fn at_least(longer: Flag, shorter: Flag) -> Result<(), TimingsError> {
    if longer.1 >= shorter.1 { Ok(()) } else { Err(order(longer, shorter, "at least as long as")) }
}

fn longer(longer: Flag, shorter: Flag) -> Result<(), TimingsError> {
    if longer.1 > shorter.1 { Ok(()) } else { Err(order(longer, shorter, "longer than")) }
}

fn order(longer: Flag, shorter: Flag, relation: &'static str) -> TimingsError {
    TimingsError::Order {
        longer: longer.0,
        longer_value: GoDuration(longer.1),
        shorter: shorter.0,
        shorter_value: GoDuration(shorter.1),
        relation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_defaults_fit_together() {
        assert_eq!(Timings::default().check(), Ok(()));
    }

    #[test]
    fn durations_out_of_order_are_refused_with_both_flags() {
        let ok = Timings::default();
        let cases: [(&str, Timings, [&str; 2]); 6] = [
            (
                "answered before it began",
                Timings { begin_deadline: ok.answer_deadline + SECOND, ..ok.clone() },
                ["--answer-deadline (1m)", "--begin-deadline (1m1s)"],
            ),
            (
                "saved before it was answered",
                Timings { save_deadline: ok.answer_deadline - SECOND, ..ok.clone() },
                ["--save-deadline (59s)", "--answer-deadline (1m)"],
            ),
            (
                "judged while it may still be saved",
                Timings { judge_after: ok.save_deadline, ..ok.clone() },
                ["--judge-after (3m)", "longer than --save-deadline (3m)"],
            ),
            (
                "a second licence while the first may be answered",
                Timings { licence_term: ok.answer_deadline, ..ok.clone() },
                ["--licence-term (1m)", "longer than --answer-deadline (1m)"],
            ),
            (
                "a restart whose pods would not count",
                Timings { mark_delay: ok.settle_delay, ..ok.clone() },
                ["--mark-delay (1m)", "longer than --settle-delay (1m)"],
            ),
            (
                "a placeholder deleted that a licence may still be taken for",
                Timings { placeholder_reap_after: ok.placeholder_fresh, ..ok.clone() },
                ["--placeholder-reap-after (1m)", "longer than --placeholder-fresh (1m)"],
            ),
        ];
        for (case, timings, expected) in cases {
            let message = timings.check().unwrap_err().to_string();
            assert!(expected.iter().all(|part| message.contains(part)), "{case}: {message}");
        }
    }

    #[test]
    fn equal_deadlines_of_one_creation_are_fine() {
        let ok = Timings::default();
        let equal = Timings { begin_deadline: ok.answer_deadline, save_deadline: ok.answer_deadline, ..ok };
        assert_eq!(equal.check(), Ok(()));
    }

    #[test]
    fn zero_is_refused_where_it_would_take_a_distance_away() {
        let zero = Timings { resync: Duration::ZERO, ..Timings::default() };
        assert_eq!(zero.check(), Err(TimingsError::Zero { flag: "resync".into() }));
        let zero = Timings { death_apart_ours: Duration::ZERO, ..Timings::default() };
        assert_eq!(zero.check(), Err(TimingsError::Zero { flag: "death-apart-ours".into() }));
        let at_once = Timings { handover: Duration::ZERO, ..Timings::default() };
        assert_eq!(at_once.check(), Ok(()));
    }

    #[test]
    fn only_fields_may_be_zero_that_exist() {
        let timings = Timings::default();
        assert!(MAY_BE_ZERO.iter().all(|name| timings.each().any(|(field, _)| field == *name)));
    }
}
