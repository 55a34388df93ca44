//! What stands in the Lease, and what a process writes into it. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

use super::{LEASE_NAME, timings::LeaderTimings};

/// The duration in a released Lease: next to nothing, for processes that look at the duration and not at the empty holder.
const RELEASED_SECONDS: i32 = 1;

/// A process that would lead.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Unique among all processes there are or were, also those of the same pod.
    pub identity: String,
    /// Its durations.
    pub timings: LeaderTimings,
}

/// Who holds a Lease; `None`: nobody.
#[must_use]
pub fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

/// How often the Lease went from one holder to another.
#[must_use]
pub fn transitions(lease: &Lease) -> i32 {
    lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0)
}

impl Candidate {
    /// How long a Lease is good for from the moment at which it was last seen to change: what its holder wrote into it, as
    /// the holder may have other settings than this process.
    #[must_use]
    pub fn term(&self, lease: &Lease) -> Duration {
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        match seconds.and_then(|seconds| u64::try_from(seconds).ok()) {
            Some(seconds) if seconds > 0 => Duration::from_secs(seconds),
            _ => self.timings.lease,
        }
    }

    /// Whether the Lease is ours.
    #[must_use]
    pub fn holds(&self, lease: &Lease) -> bool {
        holder(lease) == Some(&*self.identity)
    }

    /// The first Lease of an installation.
    #[must_use]
    pub fn created(&self, wall: Timestamp) -> Lease {
        let metadata = ObjectMeta { name: Some(LEASE_NAME.to_owned()), ..ObjectMeta::default() };
        let mut lease = Lease { metadata, spec: None };
        self.sign(&mut lease, wall, Some(wall));
        lease.spec.get_or_insert_default().lease_transitions = Some(0);
        lease
    }

    /// A Lease that was somebody else's, or nobody's.
    #[must_use]
    pub fn taken(&self, lease: &Lease, wall: Timestamp) -> Lease {
        let mut taken = lease.clone();
        self.sign(&mut taken, wall, Some(wall));
        taken.spec.get_or_insert_default().lease_transitions = Some(transitions(lease).saturating_add(1));
        taken
    }

    /// A Lease that is ours already.
    #[must_use]
    pub fn renewed(&self, lease: &Lease, wall: Timestamp) -> Lease {
        let mut renewed = lease.clone();
        self.sign(&mut renewed, wall, None);
        renewed
    }

    /// A Lease that is given back: anybody may take it at once.
    #[must_use]
    pub fn released(&self, lease: &Lease, wall: Timestamp) -> Lease {
        let mut released = lease.clone();
        let spec = released.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(RELEASED_SECONDS);
        spec.acquire_time = Some(MicroTime(wall));
        spec.renew_time = Some(MicroTime(wall));
        released
    }

    /// Writes the candidate into the Lease. Everything else stays as it was read: resourceVersion and uid, by which the API
    /// server detects a conflict, and whatever others put on the object.
    fn sign(&self, lease: &mut Lease, wall: Timestamp, acquired: Option<Timestamp>) {
        let spec: &mut LeaseSpec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(i32::try_from(self.timings.lease.as_secs()).unwrap_or(i32::MAX));
        spec.renew_time = Some(MicroTime(wall));
        if let Some(acquired) = acquired {
            spec.acquire_time = Some(MicroTime(acquired));
        }
    }
}
