//! Times as the service writes them: RFC 3339 in UTC with milliseconds.

use jiff::Timestamp;
use serde::Serializer;

/// `2026-11-23T18:06:15.123Z`.
pub(super) fn text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// For `serialize_with`.
pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*time))
}

/// For `serialize_with`, of a time that may not have come.
pub(super) fn serialize_option<S: Serializer>(
    time: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serialize(time, serializer),
        None => serializer.serialize_none(),
    }
}

/// Durations as whole milliseconds, for `with`.
pub(super) mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::sandbox) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(in crate::sandbox) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_exactly_three_digits_of_a_second() {
        let whole: Timestamp = "2026-11-23T18:06:15Z".parse().unwrap();
        let fine: Timestamp = "2026-11-23T18:06:15.123987Z".parse().unwrap();
        assert_eq!(text(whole), "2026-11-23T18:06:15.000Z");
        assert_eq!(text(fine), "2026-11-23T18:06:15.123Z");
    }
}
