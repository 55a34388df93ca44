//! Tables of days, zones and clocks that are put forward and back; then windows of all sorts against a count of
//! minutes, one after the other.

mod properties;

use jiff::civil::Weekday::{self, Friday, Monday, Sunday, Thursday, Tuesday};

use super::*;
use crate::api::apikey::OnRolloutFailure;

const EVERY_DAY: &[Weekday] =
    &[Monday, Tuesday, Weekday::Wednesday, Thursday, Friday, Weekday::Saturday, Sunday];

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

/// A window that opens at a time such as `02:30`.
fn window(days: &[Weekday], from: &str, minutes: u64, zone: &str) -> RotationWindow {
    let from = from.parse().unwrap();
    RotationWindow {
        days: days.to_vec(),
        from,
        duration: Duration::from_secs(60 * minutes),
        time_zone: zone.to_owned(),
    }
}

fn rotation(every: Option<Duration>, windows: Vec<RotationWindow>) -> Rotation {
    Rotation {
        every,
        windows,
        min_overlap: Duration::ZERO,
        quiet_for: Duration::ZERO,
        max_overlap: Duration::ZERO,
        on_rollout_failure: OnRolloutFailure::Hold,
    }
}

/// Cases of one window: a sentence, an instant, and the first one from there on that is inside.
fn check(window: &RotationWindow, cases: &[(&str, &str, &str)]) {
    for (says, from, expected) in cases {
        let opens = opens_at(at(from), std::slice::from_ref(window));
        assert_eq!(opens, Ok(at(expected)), "{says}: {from} in {window:?}");
    }
}

#[test]
fn without_windows_any_time_will_do() {
    assert_eq!(opens_at(at("2026-12-01T03:04:05.678Z"), &[]), Ok(at("2026-12-01T03:04:05.678Z")));
}

#[test]
fn a_window_is_open_on_its_days_from_its_time_in_its_zone_for_its_duration() {
    check(
        &window(&[Tuesday, Thursday], "02:00", 120, "Europe/Berlin"),
        &[
            ("the day before", "2026-11-30T12:00:00Z", "2026-12-01T01:00:00Z"),
            ("just before it opens", "2026-12-01T00:59:59.999999999Z", "2026-12-01T01:00:00Z"),
            ("when it opens", "2026-12-01T01:00:00Z", "2026-12-01T01:00:00Z"),
            ("inside", "2026-12-01T01:30:12.5Z", "2026-12-01T01:30:12.5Z"),
            ("just before it closes", "2026-12-01T02:59:59.999999999Z", "2026-12-01T02:59:59.999999999Z"),
            ("when it closes", "2026-12-01T03:00:00Z", "2026-12-03T01:00:00Z"),
            ("after the last day of the week", "2026-12-03T03:00:00Z", "2026-12-08T01:00:00Z"),
            ("in summer it opens an hour earlier", "2026-07-01T00:00:00Z", "2026-07-02T00:00:00Z"),
        ],
    );
}

#[test]
fn days_and_times_are_those_of_the_zone() {
    for (zone, from, expected) in [
        ("UTC", "2026-12-06T00:00:00Z", "2026-12-07T00:30:00Z"),
        ("Pacific/Auckland", "2026-12-06T00:00:00Z", "2026-12-06T11:30:00Z"),
        ("America/Los_Angeles", "2026-12-06T00:00:00Z", "2026-12-07T08:30:00Z"),
        ("Asia/Kathmandu", "2026-12-06T00:00:00Z", "2026-12-06T18:45:00Z"),
        ("Etc/GMT+12", "2026-12-06T00:00:00Z", "2026-12-07T12:30:00Z"),
        ("europe/berlin", "2026-12-06T00:00:00Z", "2026-12-06T23:30:00Z"),
        ("US/Eastern", "2026-12-06T00:00:00Z", "2026-12-07T05:30:00Z"),
    ] {
        check(&window(&[Monday], "00:30", 60, zone), &[("Monday", from, expected)]);
    }
}

#[test]
fn a_time_that_clocks_skip_is_the_moment_after() {
    // On 2026-03-29 clocks in Berlin go from 02:00 to 03:00, at 01:00 UTC.
    check(
        &window(EVERY_DAY, "02:30", 60, "Europe/Berlin"),
        &[
            ("the day before", "2026-03-28T01:00:00Z", "2026-03-28T01:30:00Z"),
            ("in the night itself", "2026-03-28T02:30:00Z", "2026-03-29T01:00:00Z"),
            ("a second before", "2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z"),
            ("it is open for its whole duration", "2026-03-29T01:59:59Z", "2026-03-29T01:59:59Z"),
            ("then the day after", "2026-03-29T02:00:00Z", "2026-03-30T00:30:00Z"),
        ],
    );
    let skipped = [("02:00", "the first time skipped"), ("02:59", "the last one"), ("03:00", "not skipped")];
    for (from, says) in skipped {
        let window = window(&[Sunday], from, 60, "Europe/Berlin");
        check(&window, &[(says, "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z")]);
    }
    // On 2026-03-08 clocks in New York go from 02:00 to 03:00, at 07:00 UTC.
    check(
        &window(&[Sunday], "02:15", 30, "America/New_York"),
        &[
            ("in the night itself", "2026-03-08T00:00:00Z", "2026-03-08T07:00:00Z"),
            ("then a week later", "2026-03-08T07:30:00Z", "2026-03-15T06:15:00Z"),
        ],
    );
}

#[test]
fn of_a_time_that_comes_twice_the_first_one_counts() {
    // On 2026-10-25 clocks in Berlin go from 03:00 to 02:00, at 01:00 UTC.
    check(
        &window(EVERY_DAY, "02:30", 60, "Europe/Berlin"),
        &[
            ("in the night itself", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
            ("it is open across the change", "2026-10-25T01:29:59Z", "2026-10-25T01:29:59Z"),
            ("the second time does not count", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"),
        ],
    );
    // On 2026-11-01 clocks in New York go from 02:00 to 01:00, at 06:00 UTC.
    check(
        &window(&[Sunday], "01:30", 60, "America/New_York"),
        &[
            ("in the night itself", "2026-11-01T00:00:00Z", "2026-11-01T05:30:00Z"),
            ("then a week later", "2026-11-01T06:30:00Z", "2026-11-08T06:30:00Z"),
        ],
    );
}

#[test]
fn the_duration_is_elapsed_time_whatever_clocks_do() {
    check(
        &window(&[Sunday], "01:30", 120, "Europe/Berlin"),
        &[
            ("put forward meanwhile", "2026-03-29T02:29:59Z", "2026-03-29T02:29:59Z"),
            ("and closed", "2026-03-29T02:30:00Z", "2026-04-04T23:30:00Z"),
            ("put back meanwhile", "2026-10-25T01:29:59Z", "2026-10-25T01:29:59Z"),
            ("and closed", "2026-10-25T01:30:00Z", "2026-11-01T00:30:00Z"),
        ],
    );
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_on_which_it_opens() {
    check(
        &window(&[Friday], "23:00", 240, "UTC"),
        &[
            ("before", "2026-12-04T22:00:00Z", "2026-12-04T23:00:00Z"),
            ("on the next day still open", "2026-12-05T02:59:59Z", "2026-12-05T02:59:59Z"),
            ("on the next day closed", "2026-12-05T03:00:00Z", "2026-12-11T23:00:00Z"),
            ("not in the evening of the next day", "2026-12-05T23:30:00Z", "2026-12-11T23:00:00Z"),
            ("not in the night before", "2026-12-04T01:00:00Z", "2026-12-04T23:00:00Z"),
        ],
    );
}

#[test]
fn a_whole_week_leaves_out_only_the_hour_by_which_a_day_is_longer() {
    let week = window(EVERY_DAY, "00:00", 24 * 60, "Europe/Berlin");
    check(
        &week,
        &[
            ("any time", "2026-12-02T12:34:56Z", "2026-12-02T12:34:56Z"),
            ("midnight", "2026-12-01T23:00:00Z", "2026-12-01T23:00:00Z"),
            ("a day of 23 hours", "2026-03-29T22:30:00Z", "2026-03-29T22:30:00Z"),
            ("the last hour of a day of 25", "2026-10-25T22:30:00Z", "2026-10-25T23:00:00Z"),
        ],
    );
}

#[test]
fn of_several_windows_the_first_to_open_counts() {
    let windows = [
        window(&[Thursday], "02:00", 60, "Europe/Berlin"),
        window(&[Tuesday], "22:00", 60, "UTC"),
        window(&[Tuesday], "18:00", 60, "America/New_York"),
    ];
    for (from, expected) in [
        ("2026-12-01T00:00:00Z", "2026-12-01T22:00:00Z"),
        ("2026-12-01T23:00:00Z", "2026-12-01T23:00:00Z"),
        ("2026-12-02T00:00:00Z", "2026-12-03T01:00:00Z"),
    ] {
        assert_eq!(opens_at(at(from), &windows), Ok(at(expected)), "{from}");
    }
}

#[test]
fn a_window_on_a_day_that_a_country_skipped_opens_when_that_day_is_over() {
    // Samoa had no 30 December 2011, a Friday.
    check(
        &window(&[Friday], "02:00", 120, "Pacific/Apia"),
        &[
            ("before", "2011-12-29T12:00:00Z", "2011-12-30T10:00:00Z"),
            ("after", "2011-12-30T12:00:00Z", "2012-01-05T12:00:00Z"),
        ],
    );
    check(
        &window(&[Thursday], "23:00", 24 * 60, "Pacific/Apia"),
        &[("one of the day before is still open", "2011-12-31T08:00:00Z", "2011-12-31T08:00:00Z")],
    );
}

#[test]
fn a_window_without_a_day_or_a_duration_never_opens() {
    let now = at("2026-12-01T00:00:00Z");
    let [no_day, no_time] = [window(&[], "00:00", 60, "UTC"), window(EVERY_DAY, "00:00", 0, "UTC")];
    assert_eq!(opens_at(now, std::slice::from_ref(&no_day)), Ok(Timestamp::MAX));
    assert_eq!(opens_at(now, std::slice::from_ref(&no_time)), Ok(Timestamp::MAX));
    let other = window(&[Tuesday], "01:00", 60, "UTC");
    assert_eq!(opens_at(now, &[no_day, no_time, other]), Ok(at("2026-12-01T01:00:00Z")));
}

#[test]
fn a_zone_that_does_not_exist_is_named_whatever_the_other_windows_say() {
    for zone in ["Europe/Atlantis", "", "Local", "../../etc/passwd", "CEST", "+02:00"] {
        let windows = [window(EVERY_DAY, "00:00", 60, "UTC"), window(EVERY_DAY, "02:00", 60, zone)];
        assert_eq!(opens_at(at("2026-12-01T00:00:00Z"), &windows), Err(UnknownZone(zone.into())), "{zone}");
    }
    let long = window(EVERY_DAY, "02:00", 60, &"x".repeat(5000));
    let UnknownZone(named) = opens_at(Timestamp::UNIX_EPOCH, &[long]).unwrap_err();
    assert_eq!(named.len(), 64);
    assert!(UnknownZone("CEST".into()).to_string().contains("for example Europe/Berlin"));
}

#[test]
fn the_ends_of_all_times_are_no_trouble() {
    let window = window(EVERY_DAY, "00:00", 60, "Europe/Berlin");
    assert_eq!(opens_at(Timestamp::MAX, std::slice::from_ref(&window)), Ok(Timestamp::MAX));
    assert!(opens_at(Timestamp::MIN, &[window]).is_ok_and(|opens| opens < Timestamp::UNIX_EPOCH));
    let longest = rotation(Some(Duration::MAX), vec![]);
    assert_eq!(next_rotation(Timestamp::MAX, "uid-0", &longest), Schedule::At(Timestamp::MAX));
    assert_eq!(next_rotation(Timestamp::UNIX_EPOCH, "uid-0", &longest), Schedule::At(Timestamp::MAX));
}

const MONTH: Duration = Duration::from_hours(720);

fn due(uid: &str) -> Timestamp {
    match next_rotation(at("2026-12-01T00:00:00Z"), uid, &rotation(Some(MONTH), vec![])) {
        Schedule::At(at) => at,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_an_interval_a_key_is_replaced_only_on_demand() {
    let never = rotation(None, vec![window(EVERY_DAY, "00:00", 60, "Europe/Atlantis")]);
    assert_eq!(next_rotation(Timestamp::UNIX_EPOCH, "uid-0", &never), Schedule::OnDemand);
}

#[test]
fn keys_that_were_made_together_are_due_a_twentieth_earlier_or_later() {
    let uids: Vec<_> = (0..2000_u64).map(|n| format!("6f0c1a52-3b7e-4d0a-9c1e-{n:012x}")).collect();
    let mut hours: Vec<_> = uids
        .iter()
        .map(|uid| due(uid).duration_since(at("2026-12-01T00:00:00Z")).as_secs_f64() / 3600.0)
        .collect();
    hours.sort_by(f64::total_cmp);
    let (first, last) = (hours[0], hours[hours.len() - 1]);
    assert!((684.0..684.5).contains(&first), "{first}");
    assert!((755.5..=756.0).contains(&last), "{last}");
    let most = hours.windows(100).all(|near| near[99] - near[0] > 1.0);
    assert!(most, "nowhere a twentieth of them in one of the 72 hours");
}

#[test]
fn the_same_key_is_due_at_the_same_time_in_every_process_and_version() {
    assert_eq!(due("6f0c1a52-3b7e-4d0a-9c1e-2f5b8a7d4e10"), at("2026-12-29T18:20:35.52Z"));
    assert_ne!(due("6f0c1a52-3b7e-4d0a-9c1e-2f5b8a7d4e10"), due("6f0c1a52-3b7e-4d0a-9c1e-2f5b8a7d4e11"));
}

#[test]
fn a_key_is_due_in_the_first_window_after_its_time() {
    let windows = vec![window(&[Tuesday], "02:00", 120, "Europe/Berlin")];
    let due = due("uid-0");
    let scheduled =
        next_rotation(at("2026-12-01T00:00:00Z"), "uid-0", &rotation(Some(MONTH), windows.clone()));
    assert_eq!(scheduled, Schedule::At(opens_at(due, &windows).unwrap()));
    assert!(scheduled != Schedule::At(due), "this uid's time is in no window");
    let unknown = vec![window(&[Tuesday], "02:00", 120, "Europe/Atlantis")];
    let scheduled = next_rotation(Timestamp::UNIX_EPOCH, "uid-0", &rotation(Some(MONTH), unknown));
    assert_eq!(scheduled, Schedule::UnknownZone("Europe/Atlantis".into()));
}
