//! What a process does next about the Lease: a list of rules, the first that applies. Pure.
//!
//! 1. A leader whose last acknowledged renewal is older than the renew deadline has lost the Lease.
//! 2. What the Lease says is not known: look.
//! 3. A leader renews a Lease that is its own, and has lost any other: somebody took it, cleared it or deleted it.
//! 4. A Lease that is not there is created.
//! 5. One that is held by [`DRAINED`] is waited for, however old it is.
//! 6. One that is ours although we do not lead is renewed: a write of ours arrived, its answer did not.
//! 7. One that nobody holds, or that has expired, is taken.
//! 8. Any other is waited for, until it would expire.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use tokio::time::Instant;

use super::{
    DRAINED,
    record::{Candidate, holder},
};

/// What is known of the Lease.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// The Lease as last seen, with the moment at which its present spec was first seen.
    last: Option<(Lease, Instant)>,
    /// Whether `last` still counts: nothing has happened since that calls for reading the Lease again.
    current: bool,
}

impl Sight {
    /// Takes in the Lease as the API server answered; `None`: there is none.
    pub fn observe(&mut self, lease: Option<Lease>, now: Instant) {
        self.current = true;
        self.last = lease.map(|lease| match self.last.take() {
            // A label that somebody puts on the Lease is no sign of life of its holder. A renewal is: its time moves.
            Some((before, since)) if before.spec == lease.spec => (lease, since),
            _ => (lease, now),
        });
    }

    /// The Lease has to be read before anything else is done.
    pub fn doubt(&mut self) {
        self.current = false;
    }

    /// The Lease; `None`: there is none, or it has to be read again first.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        self.last.as_ref().filter(|_| self.current).map(|(lease, _)| lease)
    }
}

/// Why a process leads no longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// The API server could not be reached, or refused, for too long.
    #[error("the Lease was not renewed for {} s, so another process may take it soon", .0.as_secs_f32())]
    NotRenewed(Duration),
    /// Another process holds it.
    #[error("the Lease is held by \"{0}\"")]
    TakenBy(String),
    /// The installation was drained.
    #[error("the installation was drained: the Lease is held by \"{DRAINED}\"")]
    Drained,
    /// It was deleted, or its holder was cleared.
    #[error("the Lease was deleted, or its holder was cleared")]
    Vanished,
}

/// Whom a process waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The installation was drained: somebody has to clear the Lease.
    Drained,
    /// Its holder, until that moment at least.
    Holder {
        /// Who.
        holder: String,
        /// When the Lease expires if it is not seen to change.
        until: Instant,
    },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read the Lease.
    Look,
    /// Create it.
    Create,
    /// Replace it: it was not ours.
    Take,
    /// Replace it: it is ours.
    Renew,
    /// Do nothing.
    Wait(Awaited),
    /// Lead no longer.
    Lose(Loss),
}

/// What to do next. `held` is, for a leader, when it sent its last acknowledged write of the Lease.
#[must_use]
pub fn decide(candidate: &Candidate, sight: &Sight, held: Option<Instant>, now: Instant) -> Next {
    let renew_deadline = candidate.timings.renew_deadline;
    if held.is_some_and(|held| now >= held + renew_deadline) {
        return Next::Lose(Loss::NotRenewed(renew_deadline));
    }
    if !sight.current {
        return Next::Look;
    }
    match (&sight.last, held) {
        (Some((lease, _)), Some(_)) => keep(candidate, lease),
        (None, Some(_)) => Next::Lose(Loss::Vanished),
        (Some((lease, since)), None) => campaign(candidate, lease, *since, now),
        (None, None) => Next::Create,
    }
}

fn keep(candidate: &Candidate, lease: &Lease) -> Next {
    match holder(lease) {
        Some(holder) if holder == candidate.identity => Next::Renew,
        Some(DRAINED) => Next::Lose(Loss::Drained),
        Some(other) => Next::Lose(Loss::TakenBy(other.to_owned())),
        None => Next::Lose(Loss::Vanished),
    }
}

fn campaign(candidate: &Candidate, lease: &Lease, since: Instant, now: Instant) -> Next {
    let Some(holder) = holder(lease) else { return Next::Take };
    if holder == DRAINED {
        return Next::Wait(Awaited::Drained);
    }
    if holder == candidate.identity {
        return Next::Renew;
    }
    let until = since + candidate.term(lease);
    if now >= until { Next::Take } else { Next::Wait(Awaited::Holder { holder: holder.to_owned(), until }) }
}

#[cfg(test)]
mod tests;
