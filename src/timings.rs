//! Every duration of the workflows in one value; each is a flag, so that tests and demos can be quick.

use std::time::Duration;

use clap::Args;

use crate::api::duration::GoDuration;

macro_rules! timings {
    ($($(#[doc = $doc:literal])+ $name:ident = $default:literal;)+) => {
        /// Durations of the workflows. The defaults are the ones that the documentation speaks of.
        #[derive(Args, Clone, Debug)]
        #[command(next_help_heading = "Durations of the workflows")]
        pub struct TimingArgs {
            $($(#[doc = $doc])+
            #[arg(long, default_value = $default, value_name = "DURATION", env = concat!("BAGS_TIMING_", stringify!($name)))]
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
    /// A live key whose owner vanished is revoked after this.
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
    /// A missing revoke endpoint is tried again after this.
    capability_retry = "24h";
    /// A deletion that waits for workloads says more after this.
    deletion_advice = "10m";
    /// A deletion in a terminating namespace, or one that waits for a revocation, is handed over to the account after this.
    handover = "15m";
    /// Everything is looked at again so often, spread by a fifth.
    resync = "10m";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_of_a_creation_end_before_it_is_judged() {
        let t = Timings::default();
        let steps = [t.begin_deadline, t.answer_deadline, t.save_deadline, t.judge_after];
        assert!(steps.is_sorted() && t.answer_deadline < t.licence_term);
    }
}
