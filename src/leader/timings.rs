//! The durations of the election, as flags, and how they must fit together.

use std::time::Duration;

use clap::{ArgAction, Args};

use crate::api::duration::GoDuration;

/// Share of itself by which a pause between two tries is lengthened at most: two processes that started together must not
/// stay in step.
pub(super) const JITTER: f64 = 0.2;
/// The longest pause as a multiple of `--leader-retry-period`: with all of its jitter.
const LONGEST_PAUSE: f64 = 1.0 + JITTER;
/// No Lease may be longer; nobody wants to wait so long for another process.
const LONGEST_LEASE: Duration = Duration::from_hours(1);

/// Flags of the election, as they were written.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Leader election")]
pub struct LeaderArgs {
    /// Elect a leader, so that several processes may run and one of them works; "false" for one that runs alone.
    #[arg(
        long,
        env = "BAGS_LEADER_ELECT",
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = ArgAction::Set
    )]
    leader_elect: bool,
    /// Another process takes over when the Lease was not renewed for so long; whole seconds.
    #[arg(long, env = "BAGS_LEADER_LEASE", value_name = "DURATION", default_value = "15s")]
    leader_lease: GoDuration,
    /// A leader that could not renew the Lease for so long stops working and ends; shorter than --leader-lease.
    #[arg(long, env = "BAGS_LEADER_RENEW_DEADLINE", value_name = "DURATION", default_value = "10s")]
    leader_renew_deadline: GoDuration,
    /// Pause between two tries to take or renew the Lease, and up to a fifth more.
    #[arg(long, env = "BAGS_LEADER_RETRY_PERIOD", value_name = "DURATION", default_value = "2s")]
    leader_retry_period: GoDuration,
}

/// Durations of the election; they fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderTimings {
    /// The Lease has expired when it was not seen to change for this long; whole seconds.
    pub lease: Duration,
    /// A leader stops leading when its last acknowledged renewal is this old.
    pub renew_deadline: Duration,
    /// Pause between two tries, without its jitter.
    pub retry_period: Duration,
}

impl Default for LeaderTimings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Durations of the election that do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaderTimingsError {
    /// Tries without a pause would never leave the API server in peace.
    #[error("--leader-retry-period must not be zero; write a duration, for example --leader-retry-period=2s")]
    NoPause,
    /// A Lease counts whole seconds.
    #[error(
        "--leader-lease ({0}) must be whole seconds, at most 1h; write a duration, for example --leader-lease=15s"
    )]
    NotSeconds(GoDuration),
    /// Another process could take over from a leader that still leads.
    #[error(
        "--leader-lease ({lease}) must be longer than --leader-renew-deadline ({renew}); lengthen the first or shorten \
         the second"
    )]
    LeaseTooShort {
        /// `--leader-lease`.
        lease: GoDuration,
        /// `--leader-renew-deadline`.
        renew: GoDuration,
    },
    /// A leader could give up before it tried once to renew.
    #[error(
        "--leader-renew-deadline ({renew}) must be longer than 1.2 times --leader-retry-period ({retry}); lengthen the \
         first or shorten the second"
    )]
    RenewTooShort {
        /// `--leader-renew-deadline`.
        renew: GoDuration,
        /// `--leader-retry-period`.
        retry: GoDuration,
    },
}

impl LeaderArgs {
    /// The durations, or `None` for a process that runs alone.
    ///
    /// # Errors
    /// The first contradiction, with the flags to change; also if there is no election.
    pub fn timings(&self) -> Result<Option<LeaderTimings>, LeaderTimingsError> {
        let Self { leader_elect, leader_lease, leader_renew_deadline, leader_retry_period } = self;
        let timings = LeaderTimings {
            lease: leader_lease.0,
            renew_deadline: leader_renew_deadline.0,
            retry_period: leader_retry_period.0,
        };
        timings.check()?;
        Ok(leader_elect.then_some(timings))
    }
}

impl LeaderTimings {
    /// Whether the durations fit together.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn check(&self) -> Result<(), LeaderTimingsError> {
        let Self { lease, renew_deadline, retry_period } = *self;
        if retry_period.is_zero() {
            return Err(LeaderTimingsError::NoPause);
        }
        if lease.subsec_nanos() != 0 || lease > LONGEST_LEASE {
            return Err(LeaderTimingsError::NotSeconds(GoDuration(lease)));
        }
        if lease <= renew_deadline {
            let (lease, renew) = (GoDuration(lease), GoDuration(renew_deadline));
            return Err(LeaderTimingsError::LeaseTooShort { lease, renew });
        }
        if renew_deadline <= retry_period.mul_f64(LONGEST_PAUSE) {
            let (renew, retry) = (GoDuration(renew_deadline), GoDuration(retry_period));
            return Err(LeaderTimingsError::RenewTooShort { renew, retry });
        }
        Ok(())
    }
}
