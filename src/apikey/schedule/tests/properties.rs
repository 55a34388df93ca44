//! What must hold of every window, judged by counting minutes: slow, and without a word about clocks that change.

use std::collections::BTreeMap;

use jiff::civil::Date;
use proptest::{prelude::*, sample::select};

use super::*;
use crate::api::{
    ApiKey,
    arbitrary::{any_api_key, for_all_read},
};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Zones that change by an hour at night, by half an hour, at midnight in both directions; and some that do not.
const ZONES: [&str; 9] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "Africa/Cairo",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Pacific/Kiritimati",
];

fn any_window() -> impl Strategy<Value = RotationWindow> {
    let days = prop::collection::btree_set(0..7_usize, 1..4);
    let minutes = prop_oneof![1..=240_u64, Just(24 * 60), 1..=1440_u64];
    // Most of them at night, when clocks change.
    let time = prop_oneof![(0..4_i8, 0..60_i8), (22..24_i8, 0..60_i8), (0..24_i8, 0..60_i8)];
    (days, time, minutes, select(&ZONES[..])).prop_map(|(days, (hour, minute), minutes, zone)| {
        let days: Vec<_> = days.into_iter().map(|day| EVERY_DAY[day]).collect();
        window(&days, &format!("{hour:02}:{minute:02}"), minutes, zone)
    })
}

/// When clocks change in some of the zones.
const CHANGES: [(&str, &str); 12] = [
    ("America/New_York", "2026-03-08T07:00:00Z"),
    ("America/New_York", "2026-11-01T06:00:00Z"),
    ("Europe/Berlin", "2026-03-29T01:00:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00:00Z"),
    ("America/St_Johns", "2026-03-08T05:30:00Z"),
    ("America/St_Johns", "2026-11-01T04:30:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("America/Santiago", "2026-04-05T03:00:00Z"),
    ("America/Santiago", "2026-09-06T04:00:00Z"),
    ("Africa/Cairo", "2026-04-23T22:00:00Z"),
    ("Africa/Cairo", "2026-10-29T21:00:00Z"),
];

/// At any time of some years.
fn any_time() -> impl Strategy<Value = Timestamp> {
    (at("2024-01-01T00:00:00Z").as_second()..at("2045-01-01T00:00:00Z").as_second())
        .prop_map(|second| Timestamp::from_second(second).unwrap())
}

/// A time and windows; mostly close to a change of clocks, which one of the windows is made for: it opens up to an hour
/// before or after it.
fn any_case() -> impl Strategy<Value = (Timestamp, Vec<RotationWindow>)> {
    let others = || prop::collection::vec(any_window(), 0..3);
    let times = (-60..=60_i64, 1..=200_u64);
    let near = (select(&CHANGES[..]), -50 * 3600..3 * 3600_i64, times, others()).prop_map(
        |((name, change), by, (offset, minutes), mut windows)| {
            let change = at(change);
            let local = zone(name).unwrap().to_datetime(change).time();
            let from = local.wrapping_add(MINUTE * i32::try_from(offset).unwrap());
            windows.push(RotationWindow { from, ..window(EVERY_DAY, "00:00", minutes, name) });
            (change + SignedDuration::from_secs(by), windows)
        },
    );
    prop_oneof![3 => near, 1 => (any_time(), prop::collection::vec(any_window(), 1..4))]
}

#[test]
fn clocks_do_change_at_these_times() {
    for (name, change) in CHANGES {
        let (zone, change) = (zone(name).unwrap(), at(change));
        let before = change - SignedDuration::from_secs(1);
        assert_ne!(zone.to_offset(change), zone.to_offset(before), "{name} at {change}");
    }
}

fn whole_minute(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second().div_euclid(60) * 60).unwrap()
}

/// When windows are open, from some days before a time to two weeks after it.
struct Counted(Vec<(Timestamp, Timestamp)>);

impl Counted {
    fn new(from: Timestamp, windows: &[RotationWindow]) -> Self {
        let begin = whole_minute(from) - DAY * 4;
        let mut open = Vec::new();
        for window in windows {
            let (zone, duration) = (zone(&window.time_zone).unwrap(), signed(window.duration));
            // On each of its days it opens at the first minute whose local time is not before its own.
            let mut openings: BTreeMap<Date, Timestamp> = BTreeMap::new();
            for minute in (0..19 * 24 * 60).map(|n| begin + MINUTE * n) {
                let local = zone.to_datetime(minute);
                if window.days.contains(&local.weekday()) && local.time() >= window.from {
                    openings.entry(local.date()).or_insert(minute);
                }
            }
            // Of the first day only a part was counted.
            openings.remove(&zone.to_datetime(begin).date());
            open.extend(openings.into_values().map(|opens| (opens, opens + duration)));
        }
        Self(open)
    }

    fn inside(&self, time: Timestamp) -> bool {
        self.0.iter().any(|(opens, closes)| (*opens..*closes).contains(&time))
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_first_open_instant_is_inside_a_window_and_none_before_it_is((from, windows) in any_case()) {
        let opens = opens_at(from, &windows).unwrap();
        prop_assert!(opens >= from);
        prop_assert_eq!(opens_at(opens, &windows), Ok(opens), "whoever asks again is told the same");
        let counted = Counted::new(from, &windows);
        prop_assert!(counted.inside(opens), "{} is inside no window", opens);
        if opens > from {
            prop_assert!(!counted.inside(from), "it is open at once");
            let next = whole_minute(from) + MINUTE;
            for minute in (0..).map(|n| next + MINUTE * n).take_while(|minute| *minute < opens) {
                prop_assert!(!counted.inside(minute), "{} is earlier, and inside", minute);
            }
        }
    }
}

proptest! {
    #[test]
    fn a_later_question_never_has_an_earlier_answer((from, windows) in any_case(), by in 1..1_000_000_i64) {
        let late = from + SignedDuration::from_secs(by);
        let (first, second) = (opens_at(from, &windows).unwrap(), opens_at(late, &windows).unwrap());
        prop_assert!(first <= second);
        prop_assert!(late > first || first == second, "nothing opened in between");
    }

    #[test]
    fn the_next_rotation_is_an_interval_away_or_at_the_opening_after_it(
        published in any_time(), uid in "[0-9a-f-]{36}", hours in 1..9_000_u64,
        windows in prop::collection::vec(any_window(), 0..3),
    ) {
        let every = Duration::from_hours(hours);
        let scheduled = next_rotation(published, &uid, &rotation(Some(every), windows.clone()));
        let Schedule::At(at) = scheduled else { panic!("{scheduled:?}") };
        let opens_after = |percent: u32| opens_at(published + signed(every * percent / 100), &windows).unwrap();
        prop_assert!((opens_after(95)..=opens_after(105)).contains(&at));
    }
}

#[test]
fn whatever_an_api_key_says_its_rotation_is_bounded_and_planned() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let read = |object: &serde_json::Value| serde_json::from_value::<ApiKey>(object.clone()).ok();
    for_all_read(file!(), &any_api_key(now.as_second()), read, |key| {
        let (rotation, rollout) = (key.rotation(), key.rollout());
        let Rotation { every, windows, min_overlap, quiet_for, max_overlap, on_rollout_failure: _ } =
            &rotation;
        let ten_years = Duration::from_hours(87_600);
        prop_assert!(every.is_none_or(|every| (Duration::from_mins(1)..=ten_years).contains(&every)));
        prop_assert!([min_overlap, quiet_for, max_overlap].into_iter().all(|overlap| *overlap <= ten_years));
        prop_assert!(windows.iter().all(|window| window.duration <= Duration::from_hours(24)));
        prop_assert!((1..=100).contains(&rollout.max_concurrent));
        prop_assert!(key.rotate_token().is_none_or(|token| (1..=40).contains(&token.len())));
        match next_rotation(now, "uid-0", &rotation) {
            Schedule::OnDemand => prop_assert_eq!(*every, None),
            Schedule::At(at) => prop_assert!(at > now),
            Schedule::UnknownZone(zone) => prop_assert!(zone.chars().count() <= 64),
        }
        Ok(())
    });
}
