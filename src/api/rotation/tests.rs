use proptest::prelude::*;

use super::*;

fn api_key(rotation: &str, rollout: &str) -> ApiKey {
    let spec = format!(
        "{{accountRef: {{name: main}}, environment: production, rotation: {rotation}, rollout: {rollout}}}"
    );
    ApiKey::new("web", serde_saphyr::from_str(&spec).unwrap())
}

fn rotation(text: &str) -> Rotation {
    api_key(text, "null").rotation()
}

/// The only window.
fn window(text: &str) -> RotationWindow {
    let [window] = <[_; 1]>::try_from(rotation(&format!("{{windows: [{text}]}}")).windows).unwrap();
    window
}

#[test]
fn defaults_stand_in_for_what_is_not_written() {
    let expected = Rotation {
        every: None,
        windows: vec![],
        min_overlap: HOUR,
        quiet_for: 24 * HOUR,
        max_overlap: 168 * HOUR,
        on_rollout_failure: OnRolloutFailure::Hold,
    };
    assert_eq!((rotation("null"), rotation("{}")), (expected.clone(), expected));
    let expected = Rollout { restart: Restart::Stale, allow_gap: false, max_concurrent: 2 };
    assert_eq!((api_key("null", "null").rollout(), api_key("null", "{}").rollout()), (expected, expected));
}

#[test]
fn what_is_written_stands() {
    let expected = Rotation {
        every: Some(720 * HOUR),
        windows: vec![],
        min_overlap: Duration::from_secs(90),
        quiet_for: Duration::ZERO,
        max_overlap: 2 * HOUR,
        on_rollout_failure: OnRolloutFailure::SwitchBack,
    };
    let text = "{every: 720h, minOverlap: 1m30s, quietFor: 0s, maxOverlap: 2h, onRolloutFailure: SwitchBack}";
    assert_eq!(rotation(text), expected);
    let key = api_key("null", "{restart: None, allowGap: true, maxConcurrent: 5}");
    assert_eq!(key.rollout(), Rollout { restart: Restart::None, allow_gap: true, max_concurrent: 5 });
}

#[test]
fn a_window_has_days_a_time_a_duration_and_a_zone() {
    let expected = RotationWindow {
        days: vec![Weekday::Tuesday, Weekday::Thursday],
        from: Time::constant(22, 30, 0, 0),
        duration: 2 * HOUR,
        time_zone: "Europe/Berlin".into(),
    };
    let text = "{days: [Tue, Thu], from: '22:30', duration: 2h, timeZone: Europe/Berlin}";
    assert_eq!(window(text), expected);
    let short = window("{from: '00:00', duration: 24h}");
    assert_eq!((short.days.len(), short.time_zone.as_str()), (7, "UTC"), "every day, by default in UTC");
    let names = window("{days: [Mon, Tue, Wed, Thu, Fri, Sat, Sun], from: '00:00', duration: 1h}");
    assert_eq!(names.days, short.days);
}

#[test]
fn a_word_of_a_newer_version_means_hold_and_does_not_hide_the_object() {
    assert_eq!(rotation("{onRolloutFailure: Rebuild}").on_rollout_failure, OnRolloutFailure::Hold);
    let rollout = api_key("null", "{restart: Everything}").rollout();
    assert_eq!(rollout.restart, Restart::None, "nothing is restarted for a word that nobody understands");
    let window = window("{days: [Tue, Weekend], from: '02:00', duration: 1h}");
    assert_eq!(window.days, [Weekday::Tuesday]);
}

#[test]
fn a_window_that_cannot_be_read_never_opens() {
    for (says, text) in [
        ("no day is known", "{days: [Weekend], from: '02:00', duration: 1h}"),
        ("no time", "{from: noon, duration: 1h}"),
        ("a time that is none", "{from: '24:00', duration: 1h}"),
        ("a time with seconds", "{from: '02:00:30', duration: 1h}"),
        ("a time of one digit", "{from: '2:00', duration: 1h}"),
        ("a time with a sign", "{from: '+2:00', duration: 1h}"),
        ("no duration", "{from: '02:00', duration: 1d}"),
    ] {
        assert_eq!(window(text).days, [], "{says}");
    }
}

#[test]
fn a_time_that_cannot_be_read_holds_the_old_key_and_makes_no_new_one() {
    let it = rotation("{every: 30d, minOverlap: 1d, quietFor: '', maxOverlap: -1h}");
    assert_eq!((it.every, it.min_overlap, it.quiet_for), (None, LONGEST, LONGEST));
    assert_eq!(it.max_overlap, 168 * HOUR, "people are told as usual");
}

#[test]
fn what_got_past_the_rules_is_bounded() {
    assert_eq!(rotation("{every: 0s}").every, Some(Duration::from_mins(1)), "no key a second");
    let long = rotation("{every: 999999h, minOverlap: 999999h, quietFor: 999999h, maxOverlap: 999999h}");
    assert_eq!((long.every, long.min_overlap), (Some(LONGEST), LONGEST));
    assert_eq!((long.quiet_for, long.max_overlap), (LONGEST, LONGEST));
    assert_eq!(window("{from: '02:00', duration: 48h}").duration, 24 * HOUR);
    for (written, expected) in [("0", 1), ("-5", 1), ("101", 100), ("9223372036854775807", 100)] {
        let rollout = api_key("null", &format!("{{maxConcurrent: {written}}}")).rollout();
        assert_eq!(rollout.max_concurrent, expected, "{written}");
    }
}

fn token(text: &str) -> Option<String> {
    let mut key = api_key("null", "null");
    key.annotations_mut().insert(annotation::ROTATE.into(), text.into());
    key.rotate_token()
}

#[test]
fn a_short_plain_token_is_kept_and_any_other_is_replaced_by_a_number() {
    let plain = ["1", "2026-11-25T10:00:00Z", "alice.2_b", &"a".repeat(40)];
    for text in plain {
        assert_eq!(token(text).as_deref(), Some(text));
    }
    for text in ["two words", "ü", "a/b", "a\n", "\u{202e}", " ", &"a".repeat(41), &"a".repeat(100_000)] {
        let kept = token(text).unwrap();
        assert!(kept.starts_with("hash:") && kept.len() == 21, "{text:.20}: {kept}");
    }
    assert_eq!(token("two words").unwrap(), "hash:ccb500272bebfeac", "the same in every version");
}

#[test]
fn no_annotation_and_an_empty_one_ask_for_nothing() {
    assert_eq!(api_key("null", "null").rotate_token(), None);
    assert_eq!(token(""), None);
}

proptest! {
    #[test]
    fn what_is_kept_of_a_token_is_short_plain_and_tells_tokens_apart(
        one in "\\PC{1,60}|[A-Za-z0-9._:-]{1,60}", other in "\\PC{1,60}|[A-Za-z0-9._:-]{1,60}",
    ) {
        let kept = token(&one).unwrap();
        prop_assert!(kept.len() <= LONGEST_TOKEN);
        prop_assert!(kept.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b)));
        prop_assert_eq!(token(&one).unwrap() == token(&other).unwrap(), one == other);
    }
}
