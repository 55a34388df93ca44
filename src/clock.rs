//! Time and randomness, the two inputs that tests must own.
//!
//! Nothing else in the library asks the machine for either: `clippy.toml` forbids it.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

/// Two readings of time: the wall clock, which other machines understand and which may jump, and the
/// monotonic one, which measures durations within this process.
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn wall(&self) -> Timestamp;
    /// The monotonic clock; comparable only within this process.
    fn monotonic(&self) -> Instant;
}

/// The machine's own clocks.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where wall time enters")]
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where monotonic time enters")]
    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// A source of randomness: the system's in production, a seed in tests, so that a run can be replayed.
#[derive(Clone)]
pub struct Randomness(Arc<Mutex<StdRng>>);

/// RFC 4648 base32 in lower case: what may stand in a Kubernetes name and reads well in a key's name.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

impl Randomness {
    /// Seeded by the operating system.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn from_system() -> Result<Self, rand::rngs::SysError> {
        StdRng::try_from_rng(&mut rand::rngs::SysRng).map(|rng| Self(Arc::new(Mutex::new(rng))))
    }

    /// Seeded by a number: the same seed gives the same run.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// `length` random characters of lower-case base32 (5 bits each).
    #[must_use]
    pub fn base32(&self, length: usize) -> String {
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (0..length).map(|_| char::from(BASE32[(rng.next_u32() % 32) as usize])).collect()
    }

    /// A number in `0.0..1.0`, for jitter.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f64::from(rng.next_u32()) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_and_another_seed_differs() {
        assert_eq!(Randomness::from_seed(7).base32(10), Randomness::from_seed(7).base32(10));
        assert_ne!(Randomness::from_seed(7).base32(10), Randomness::from_seed(8).base32(10));
    }

    #[test]
    fn fractions_stay_below_one() {
        let randomness = Randomness::from_seed(1);
        assert!((0..10_000).all(|_| (0.0..1.0).contains(&randomness.fraction())));
    }
}
