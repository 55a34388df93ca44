//! Does what [`decide`](mod@super::decide) says: reads and writes the Lease, waits, gives it back (I/O).
//!
//! A request that is to prolong the leadership is given up before the leadership ends. A write that got no answer may have
//! been applied, so the Lease is read before the next write.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::PostParams};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    LEASE_NAME, Leadership, Loss,
    decide::{Awaited, Next, Sight, decide},
    record::{Candidate, transitions},
    timings::{JITTER, LeaderTimings},
};
use crate::{
    clock::{Clock, Randomness},
    env::{CallError, call_within},
    metrics::Metrics,
};

/// How long giving the Lease back may take; if it fails, others wait until the Lease expires.
const RELEASE_DEADLINE: Duration = Duration::from_millis(800);
/// Random characters behind the name of the replica, 50 bits: a process must not take the Lease of its predecessor in the
/// same pod for its own.
const SUFFIX_LENGTH: usize = 10;

/// What a process needs to take part.
pub struct Participant {
    /// The API server; without retries of its own.
    pub client: Client,
    /// The operator's namespace.
    pub namespace: String,
    /// Name of this replica.
    pub instance: String,
    /// Durations.
    pub timings: LeaderTimings,
    /// Wall time for what is shown, monotonic time for what is decided.
    pub clock: Arc<dyn Clock>,
    /// For the identity and for jitter.
    pub randomness: Randomness,
    /// Where a drained installation is reported.
    pub metrics: Metrics,
}

/// One process's part in the election.
pub struct Elector {
    leases: Api<Lease>,
    candidate: Candidate,
    clock: Arc<dyn Clock>,
    randomness: Randomness,
    metrics: Metrics,
    leadership: Leadership,
    sight: Sight,
    /// Of a leader: when it sent its last acknowledged write.
    held: Option<Instant>,
    /// A write of ours may have been applied, so there may be something to give back.
    wrote: bool,
    /// What the log last said this process waits for.
    named: Option<Awaited>,
}

/// How a try ended, unless it failed.
enum Tried {
    Written,
    Waits(Awaited),
    Loses(Loss),
}

impl Elector {
    /// Takes no part yet: that begins with [`run`](Self::run).
    #[must_use]
    pub fn new(participant: Participant, leadership: Leadership) -> Self {
        let Participant { client, namespace, instance, timings, clock, randomness, metrics } = participant;
        let identity = format!("{instance}_{}", randomness.base32(SUFFIX_LENGTH));
        Self {
            leases: Api::namespaced(client, &namespace),
            candidate: Candidate { identity, timings },
            clock,
            randomness,
            metrics,
            leadership,
            sight: Sight::default(),
            held: None,
            wrote: false,
            named: None,
        }
    }

    /// Waits for the Lease, then keeps it.
    ///
    /// - `stop` ends the waiting. It does not end the leading: a leader goes on renewing, as a save may still be running.
    /// - `over` says that nothing is left to be done: the Lease is given back, and this returns.
    /// - When the Lease is in doubt, `stop` is cancelled at that very moment.
    ///
    /// # Errors
    /// Why the Lease was lost. The process must end; a new one may take part again.
    pub async fn run(mut self, stop: &CancellationToken, over: &CancellationToken) -> Result<(), Loss> {
        let lost = match stop.run_until_cancelled(self.campaign()).await {
            None => None,
            Some(()) => over.run_until_cancelled(self.keep()).await,
        };
        if let Some(loss) = lost {
            self.leadership.lose();
            stop.cancel();
            error!(lease = LEASE_NAME, reason = %loss, "Lost the Lease: nothing new begins, and the process ends");
            return Err(loss);
        }
        // This process must have stopped leading before another one can begin.
        self.leadership.end();
        if self.wrote && timeout(RELEASE_DEADLINE, self.release()).await.is_err() {
            warn!(lease = LEASE_NAME, "The Lease was not released in time; others wait until it expires");
        }
        Ok(())
    }

    /// Tries until this process leads.
    async fn campaign(&mut self) {
        loop {
            self.sight.doubt();
            let awaited = match self.attempt().await {
                Ok(Tried::Written) => return,
                Ok(Tried::Waits(awaited)) => Some(awaited),
                // Never here: only a leader loses the Lease.
                Ok(Tried::Loses(_)) => None,
                Err(error) if error.is_conflict() => None,
                Err(error) => {
                    warn!(
                        lease = LEASE_NAME,
                        error = error.kind(),
                        "The Lease could not be taken; tried again"
                    );
                    None
                }
            };
            let next = self.next_try(awaited.as_ref());
            if let Some(awaited) = awaited {
                self.name(awaited);
            }
            sleep_until(next).await;
        }
    }

    /// Renews until the Lease is lost.
    async fn keep(&mut self) -> Loss {
        loop {
            let lost = match self.expiry() {
                Some(expiry) => timeout_at(expiry, self.renew()).await,
                None => Ok(self.renew().await),
            };
            match lost {
                Ok(None) => {}
                Ok(Some(loss)) => return loss,
                Err(_) => return Loss::NotRenewed(self.candidate.timings.renew_deadline),
            }
        }
    }

    /// Waits for the next renewal, then tries until it is acknowledged or the Lease is lost.
    async fn renew(&mut self) -> Option<Loss> {
        let mut again_at_once = true;
        // Counted from when the last renewal was sent, not from its answer: a slow API server must not make renewals rarer
        // as well.
        if let Some(held) = self.held {
            sleep_until(held + self.pause()).await;
        }
        loop {
            match self.attempt().await {
                Ok(Tried::Written) => return None,
                Ok(Tried::Loses(loss)) => return Some(loss),
                Ok(Tried::Waits(_)) => {}
                // The Lease has changed since it was read: reading it again tells whether it is still ours.
                Err(error) if error.is_conflict() && again_at_once => {
                    again_at_once = false;
                    continue;
                }
                Err(error) => {
                    warn!(lease = LEASE_NAME, error = error.kind(), "The Lease was not renewed; tried again");
                }
            }
            sleep_until(self.next_try(None)).await;
        }
    }

    /// One try: reads the Lease where that is needed, writes it at most once.
    async fn attempt(&mut self) -> Result<Tried, CallError> {
        loop {
            let now = self.clock.monotonic();
            match decide(&self.candidate, &self.sight, self.held, now) {
                Next::Look => self.look().await?,
                Next::Create => {
                    let lease = self.candidate.created(self.clock.wall());
                    return self.create(lease).await;
                }
                Next::Take => {
                    let lease = self.known(Candidate::taken);
                    return self.replace(lease).await;
                }
                Next::Renew => {
                    let lease = self.known(Candidate::renewed);
                    return self.replace(lease).await;
                }
                Next::Wait(awaited) => return Ok(Tried::Waits(awaited)),
                Next::Lose(loss) => return Ok(Tried::Loses(loss)),
            }
        }
    }

    async fn look(&mut self) -> Result<(), CallError> {
        let lease = call_within(self.deadline(), self.leases.get_opt(LEASE_NAME)).await?;
        self.sight.observe(lease, self.clock.monotonic());
        Ok(())
    }

    async fn create(&mut self, lease: Lease) -> Result<Tried, CallError> {
        let sent = self.sends();
        let created =
            call_within(self.deadline(), self.leases.create(&PostParams::default(), &lease)).await?;
        self.acknowledged(created, sent)
    }

    async fn replace(&mut self, lease: Lease) -> Result<Tried, CallError> {
        let (sent, parameters) = (self.sends(), PostParams::default());
        let replaced = self.leases.replace(LEASE_NAME, &parameters, &lease);
        let replaced = call_within(self.deadline(), replaced).await?;
        self.acknowledged(replaced, sent)
    }

    /// A write is about to be sent: until it is answered, nobody knows what the Lease says.
    fn sends(&mut self) -> Instant {
        self.sight.doubt();
        self.wrote = true;
        self.clock.monotonic()
    }

    /// The Lease is ours for the renew deadline, counted from when the write was sent: a process that waits for the Lease
    /// cannot have seen this change any earlier.
    fn acknowledged(&mut self, lease: Lease, sent: Instant) -> Result<Tried, CallError> {
        let now = self.clock.monotonic();
        let renew_deadline = self.candidate.timings.renew_deadline;
        // The process stood still between the answer and this line.
        if now >= sent + renew_deadline {
            return Err(CallError::Timeout(now - sent));
        }
        if self.held.is_none() {
            let (identity, transitions) = (&self.candidate.identity, transitions(&lease));
            info!(lease = LEASE_NAME, identity, transitions, "Took the Lease: this process leads");
            self.metrics.drained(false);
        }
        self.sight.observe(Some(lease), now);
        self.held = Some(sent);
        self.leadership.lead_until(sent + renew_deadline);
        Ok(Tried::Written)
    }

    /// The Lease to be written, made from the one that was last read.
    fn known(&self, change: fn(&Candidate, &Lease, jiff::Timestamp) -> Lease) -> Lease {
        let lease = self.sight.lease().expect("it was decided to replace what was seen");
        change(&self.candidate, lease, self.clock.wall())
    }

    /// Gives the Lease back, if it is ours. It may have changed since it was last seen, so after a first conflict it is
    /// read and tried once more.
    async fn release(&mut self) {
        self.held = None;
        for _ in 0..2 {
            match self.release_once().await {
                Ok(true) => info!(lease = LEASE_NAME, "Released the Lease"),
                Ok(false) => {}
                Err(error) if error.is_conflict() => {
                    self.sight.doubt();
                    continue;
                }
                Err(error) => {
                    let error = error.kind();
                    warn!(
                        lease = LEASE_NAME,
                        error, "The Lease was not released; others wait until it expires"
                    );
                }
            }
            return;
        }
    }

    /// Gives the Lease back; `false`: it was not ours.
    async fn release_once(&mut self) -> Result<bool, CallError> {
        if self.sight.lease().is_none() {
            self.look().await?;
        }
        if !self.sight.lease().is_some_and(|lease| self.candidate.holds(lease)) {
            return Ok(false);
        }
        let (released, parameters) = (self.known(Candidate::released), PostParams::default());
        let released = self.leases.replace(LEASE_NAME, &parameters, &released);
        call_within(RELEASE_DEADLINE, released).await?;
        Ok(true)
    }

    /// Until when this process leads without another renewal.
    fn expiry(&self) -> Option<Instant> {
        self.held.map(|held| held + self.candidate.timings.renew_deadline)
    }

    /// How much of the leadership is left; for a process that does not lead, as much as if it had just begun to.
    fn left(&self) -> Duration {
        let left = self.expiry().map(|expiry| expiry.saturating_duration_since(self.clock.monotonic()));
        left.unwrap_or(self.candidate.timings.renew_deadline)
    }

    /// How long a request may take: half of the renew deadline, so that there is time for another one, and less than what
    /// is left of the leadership.
    fn deadline(&self) -> Duration {
        (self.candidate.timings.renew_deadline / 2).min(self.left().mul_f64(0.9))
    }

    /// The pause between two tries, spread.
    fn pause(&self) -> Duration {
        self.candidate.timings.retry_period.mul_f64(1.0 + JITTER * self.randomness.fraction())
    }

    /// When to try again after a try that came to nothing: after the pause, or as soon as the awaited Lease expires; a
    /// leader may try sooner, as its time is running out.
    fn next_try(&self, awaited: Option<&Awaited>) -> Instant {
        let now = self.clock.monotonic();
        match awaited {
            Some(Awaited::Holder { until, .. }) if *until > now => (now + self.pause()).min(*until),
            Some(Awaited::Holder { .. } | Awaited::Drained) => now + self.pause(),
            None if self.held.is_none() => now + self.pause(),
            None => now + self.pause().min((self.left() / 2).max(self.candidate.timings.retry_period / 4)),
        }
    }

    /// Logs whom this process waits for, once for each holder.
    fn name(&mut self, awaited: Awaited) {
        let same = match (&self.named, &awaited) {
            (Some(Awaited::Drained), Awaited::Drained) => true,
            (Some(Awaited::Holder { holder: before, .. }), Awaited::Holder { holder, .. }) => {
                before == holder
            }
            (Some(_) | None, _) => false,
        };
        if same {
            return;
        }
        let identity = &self.candidate.identity;
        match &awaited {
            Awaited::Drained => warn!(
                lease = LEASE_NAME,
                identity,
                "The installation was drained: nothing is done until the holder of the Lease is cleared"
            ),
            Awaited::Holder { holder, .. } => {
                info!(lease = LEASE_NAME, identity, holder, "Waiting for the Lease: another process leads");
            }
        }
        self.metrics.drained(matches!(awaited, Awaited::Drained));
        self.named = Some(awaited);
    }
}
