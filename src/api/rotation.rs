//! `spec.rotation` and `spec.rollout`: when a key is replaced, how long both are valid, and what is restarted for it.
//!
//! The API server refuses what makes no sense. What gets here all the same, from a newer version or past the rules, must
//! never act more than what was meant: a time that cannot be read holds the old key, a window that cannot be read
//! never opens, and an unknown word holds.
#![expect(unreachable_pub, reason = "KubeSchema copies each struct into a function, with its visibility")]

use std::time::Duration;

use jiff::civil::{Time, Weekday};
use kube::{KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ApiKey, annotation, duration::GoDuration, fingerprint::fingerprint, rules};

const HOUR: Duration = Duration::from_hours(1);
/// Keys are replaced no more often than this.
const SHORTEST_EVERY: Duration = Duration::from_mins(1);
/// Ten years: longer is never meant, and sums of times stay far from the end of all times.
const LONGEST: Duration = Duration::from_hours(87_600);
/// A window opens every day at most.
const LONGEST_WINDOW: Duration = Duration::from_hours(24);
/// As many characters of a token are kept, if they are plain ones.
const LONGEST_TOKEN: usize = 40;

/// When a key is replaced by a new one, and for how long the old one stays valid beside it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::overlaps_fit())]
pub struct RotationSpec {
    /// A new key is made so long after the current one was published, for example `720h`, spread by 5 % either way.
    /// Absent: only on demand, by the annotation `keys.bags.fm/rotate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::every())]
    pub every: Option<String>,
    /// When a scheduled rotation may begin. Absent: at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub windows: Vec<WindowSpec>,
    /// Shortest time for which both keys stay valid once every pod has the new one. Default: 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::overlap())]
    pub min_overlap: Option<String>,
    /// The old key is revoked only after it was not used for so long, where the account can show its last use; where it cannot, both
    /// stay valid for a day at least. Default: 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::overlap())]
    pub quiet_for: Option<String>,
    /// After so long with both keys people are told why the old one is still there. It is never revoked for its age.
    /// Default: 168h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::overlap())]
    pub max_overlap: Option<String>,
    /// What happens when a Deployment does not come up with the new key. `Hold`: both keys stay valid until a person looks;
    /// `SwitchBack`: the old key goes back into the Secret. Default: Hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_rollout_failure: Option<OnRolloutFailure>,
}

/// A time of the week in which scheduled rotations may begin.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WindowSpec {
    /// Days on which it opens. Absent: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    #[x_kube(validation = rules::days_differ())]
    pub days: Vec<Day>,
    /// Local time at which it opens, for example `"02:00"`. Where clocks skip that time, it opens right after.
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::window_from())]
    pub from: String,
    /// How long it is open, for example `2h`. At most 24h; it may reach into the next day.
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::window_duration())]
    pub duration: String,
    /// Time zone of days and time, for example `Europe/Berlin`. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::time_zone())]
    pub time_zone: Option<String>,
}

/// A day of the week.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it themselves")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
    /// A word of a newer version: no day.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// What happens when a workload does not come up with the new key.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRolloutFailure {
    /// The Secret goes back to the old key.
    SwitchBack,
    /// Both keys stay valid, and a person looks. A word of a newer version means this too.
    #[default]
    #[serde(other)]
    Hold,
}

/// Who is restarted so that all pods have the new key.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Which workloads are restarted. `Stale`: those with pods that hold the old key; `None`: you restart them, and the old key stays
    /// valid until then. Default: Stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// Whether a key is replaced although a workload that reads it cannot be restarted without a gap. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_gap: Option<bool>,
    /// Workloads that are restarted at the same time, once the first one has come up. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_concurrent: Option<i64>,
}

/// Which workloads are restarted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Those with pods that still hold the old key.
    #[default]
    Stale,
    /// None: the old key stays until somebody else restarted them. A word of a newer version means this too.
    #[serde(other)]
    None,
}

/// What `spec.rotation` comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// From the publication of the current key to the next rotation; `None`: only on demand.
    pub every: Option<Duration>,
    /// When a scheduled rotation may begin; none: at any time.
    pub windows: Vec<RotationWindow>,
    /// Both keys are valid for so long after the last pod moved.
    pub min_overlap: Duration,
    /// And until the old one was not used for so long.
    pub quiet_for: Duration,
    /// After so long with both keys people are told.
    pub max_overlap: Duration,
    /// What happens when a workload does not come up with the new key.
    pub on_rollout_failure: OnRolloutFailure,
}

/// A time of the week in which scheduled rotations may begin. Without a day it never opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationWindow {
    /// Days on which it opens.
    pub days: Vec<Weekday>,
    /// Local time at which it opens.
    pub from: Time,
    /// How long it is open: 24 hours at most.
    pub duration: Duration,
    /// IANA name of the time zone, which may not exist.
    pub time_zone: String,
}

/// What `spec.rollout` comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Which workloads are restarted.
    pub restart: Restart,
    /// Whether a key is replaced although a workload cannot be restarted without a gap.
    pub allow_gap: bool,
    /// Workloads that are restarted at the same time: 1 to 100.
    pub max_concurrent: usize,
}

/// The same as status shows it; windows stand in the spec.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveRotation {
    /// From the publication of a key to the next rotation. Absent: only on demand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// Both keys are valid for at least so long after the last pod has the new one.
    pub min_overlap: String,
    /// The old key is revoked only after it was not used for so long, where the account can show its last use.
    pub quiet_for: String,
    /// After so long with both keys people are told.
    pub max_overlap: String,
    /// What happens when a workload does not come up with the new key.
    pub on_rollout_failure: OnRolloutFailure,
}

/// What `spec.rollout` comes to, as status shows it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveRollout {
    /// Which workloads are restarted.
    pub restart: Restart,
    /// Whether a key is replaced although a workload cannot be restarted without a gap.
    pub allow_gap: bool,
    /// Workloads that are restarted at the same time.
    pub max_concurrent: i64,
}

impl From<&Rotation> for EffectiveRotation {
    fn from(rotation: &Rotation) -> Self {
        let text = |duration: Duration| GoDuration(duration).to_string();
        Self {
            every: rotation.every.map(text),
            min_overlap: text(rotation.min_overlap),
            quiet_for: text(rotation.quiet_for),
            max_overlap: text(rotation.max_overlap),
            on_rollout_failure: rotation.on_rollout_failure,
        }
    }
}

impl From<Rollout> for EffectiveRollout {
    fn from(Rollout { restart, allow_gap, max_concurrent }: Rollout) -> Self {
        Self { restart, allow_gap, max_concurrent: i64::try_from(max_concurrent).unwrap_or(i64::MAX) }
    }
}

impl ApiKey {
    /// The effective rotation.
    #[must_use]
    pub fn rotation(&self) -> Rotation {
        let RotationSpec { every, windows, min_overlap, quiet_for, max_overlap, on_rollout_failure } =
            self.spec.rotation.clone().unwrap_or_default();
        let every = every.and_then(|text| read(&text)).map(|every| every.clamp(SHORTEST_EVERY, LONGEST));
        let time = |text: Option<String>, default: Duration, unreadable: Duration| {
            text.map_or(default, |text| read(&text).unwrap_or(unreadable).min(LONGEST))
        };
        Rotation {
            every,
            windows: windows.iter().map(WindowSpec::effective).collect(),
            min_overlap: time(min_overlap, HOUR, LONGEST),
            quiet_for: time(quiet_for, 24 * HOUR, LONGEST),
            max_overlap: time(max_overlap, 168 * HOUR, 168 * HOUR),
            on_rollout_failure: on_rollout_failure.unwrap_or_default(),
        }
    }

    /// The effective rollout.
    #[must_use]
    pub fn rollout(&self) -> Rollout {
        let RolloutSpec { restart, allow_gap, max_concurrent } =
            self.spec.rollout.clone().unwrap_or_default();
        let max_concurrent = usize::try_from(max_concurrent.unwrap_or(2).clamp(1, 100));
        Rollout {
            restart: restart.unwrap_or_default(),
            allow_gap: allow_gap.unwrap_or(false),
            max_concurrent: max_concurrent.unwrap_or(1),
        }
    }

    /// The token of the annotation that asks for a rotation, as it may be stored and shown: another one means another
    /// rotation. What is not short and plain is replaced by a number that stands for it.
    #[must_use]
    pub fn rotate_token(&self) -> Option<String> {
        let token = self.annotations().get(annotation::ROTATE).filter(|token| !token.is_empty())?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        if token.len() <= LONGEST_TOKEN && token.bytes().all(plain) {
            return Some(token.clone());
        }
        Some(format!("hash:{:016x}", fingerprint(token)))
    }
}

impl WindowSpec {
    fn effective(&self) -> RotationWindow {
        let Self { days, from, duration, time_zone } = self;
        let (from, duration) = (time_of_day(from), read(duration));
        // A day that is not known is none, and a list of such days is not "every day".
        let mut days = match days.is_empty() {
            true => Weekday::Monday.cycle_forward().take(7).collect(),
            false => days.iter().filter_map(|day| day.weekday()).collect::<Vec<_>>(),
        };
        if from.is_none() || duration.is_none() {
            days.clear();
        }
        RotationWindow {
            days,
            from: from.unwrap_or_default(),
            duration: duration.unwrap_or_default().min(LONGEST_WINDOW),
            time_zone: time_zone.clone().unwrap_or_else(|| "UTC".to_owned()),
        }
    }
}

impl Day {
    fn weekday(self) -> Option<Weekday> {
        match self {
            Self::Mon => Some(Weekday::Monday),
            Self::Tue => Some(Weekday::Tuesday),
            Self::Wed => Some(Weekday::Wednesday),
            Self::Thu => Some(Weekday::Thursday),
            Self::Fri => Some(Weekday::Friday),
            Self::Sat => Some(Weekday::Saturday),
            Self::Sun => Some(Weekday::Sunday),
            Self::Unknown => None,
        }
    }
}

fn read(text: &str) -> Option<Duration> {
    text.parse().ok().map(|GoDuration(duration)| duration)
}

/// `HH:MM`.
fn time_of_day(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let number = |digits: &str| match digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse().ok(),
        false => None,
    };
    Time::new(number(hour)?, number(minute)?, 0, 0).ok()
}

#[cfg(test)]
mod tests;
