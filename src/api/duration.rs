//! Durations as Go writes them: `720h`, `15m`, `1h30m`, `500ms`.

use std::{fmt, str::FromStr, time::Duration};

/// A duration in Go's notation, whole milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(pub Duration);

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a duration; write a number and a unit (ms, s, m, h), for example 90s, 15m, 1h30m")]
pub struct NotADuration(String);

impl FromStr for GoDuration {
    type Err = NotADuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || NotADuration(text.chars().take(40).collect());
        let mut rest = text;
        let mut total = Duration::ZERO;
        if rest.is_empty() {
            return Err(error());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
            let number: u64 = rest[..digits].parse().map_err(|_| error())?;
            let unit_end =
                rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| digits + n);
            let millis = match &rest[digits..unit_end] {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return Err(error()),
            };
            let part = Duration::from_millis(number.checked_mul(millis).ok_or_else(error)?);
            total = total.checked_add(part).ok_or_else(error)?;
            rest = &rest[unit_end..];
        }
        Ok(Self(total))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis == 0 {
            return write!(f, "0s");
        }
        for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            let count = match unit {
                "h" => millis / size,
                "m" => millis % 3_600_000 / size,
                "s" => millis % 60_000 / size,
                _ => millis % 1_000,
            };
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read_and_written() {
        for (text, millis) in [("720h", 2_592_000_000), ("1h30m", 5_400_000), ("500ms", 500), ("0s", 0)] {
            let duration: GoDuration = text.parse().unwrap();
            assert_eq!(duration.0.as_millis(), millis, "{text}");
            assert_eq!(duration.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_an_example() {
        for text in ["", "5", "h", "1d", "-1s", "1.5h", "1h 5m", "99999999999999999999h"] {
            let error = text.parse::<GoDuration>().unwrap_err().to_string();
            assert!(error.contains("for example"), "{text}: {error}");
        }
    }
}
