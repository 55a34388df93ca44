//! The second factor of an account: time-based one-time passwords (RFC 6238), as authenticator apps make them.

use std::fmt;

use jiff::Timestamp;
use totp_rs::{Algorithm, Builder, Secret, Totp};
use zeroize::Zeroizing;

/// 80 bits, the shortest secret that services hand out (16 characters of base32).
const SHORTEST: usize = 10;
const LONGEST_TEXT: usize = 1024;
/// Also what an otpauth URL means where it does not say (the key URI format of Google Authenticator).
const DIGITS: u8 = 6;
const STEP_SECONDS: u64 = 30;

/// What a TOTP field should hold; the end of every message.
macro_rules! expected {
    () => {
        "the field must hold the secret in base32 (the text beside the QR code) or the otpauth://totp/ URL (the QR code's content)"
    };
}

/// The secret behind an account's one-time codes (SHA-1, 30 seconds, 6 digits). Wiped when dropped, in no
/// output.
pub struct TotpSecret(Box<Totp>);

/// Why a text is not a TOTP secret. No variant repeats anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TotpSecretError {
    /// Nothing but white space.
    #[error("failed to read the TOTP secret: it is empty; {}", expected!())]
    Empty,
    /// Not text, or far too much of it.
    #[error("failed to read the TOTP secret: it is not a short text; {}", expected!())]
    NotText,
    /// A six-digit code instead of what makes them.
    #[error("failed to read the TOTP secret: it looks like a one-time code, not like the secret that makes them; {}", expected!())]
    OneTimeCode,
    /// Characters outside A-Z and 2-7.
    #[error("failed to read the TOTP secret: it is not base32; {}", expected!())]
    NotBase32,
    /// Fewer than 80 bits.
    #[error("failed to read the TOTP secret: it is shorter than 16 characters; {}", expected!())]
    TooShort,
    /// Another kind of otpauth URL.
    #[error("failed to read the TOTP secret: its otpauth URL is not of type totp; {}", expected!())]
    NotTotp,
    /// No `secret=` in it.
    #[error("failed to read the TOTP secret: its otpauth URL has no secret; {}", expected!())]
    NoSecret,
    /// Bags uses the usual parameters only.
    #[error(
        "failed to read the TOTP secret: its otpauth URL sets {0} to something else than SHA1, 6 digits, 30 seconds"
    )]
    Unsupported(
        /// The parameter's name.
        &'static str,
    ),
}

impl TotpSecret {
    /// Reads base32 (spaces, dashes, padding and lower case are fine) or an otpauth URL.
    ///
    /// # Errors
    /// A [`TotpSecretError`] that says what is wrong and what the field must hold.
    pub fn parse(bytes: &[u8]) -> Result<Self, TotpSecretError> {
        let text = std::str::from_utf8(bytes).map_err(|_| TotpSecretError::NotText)?.trim();
        if text.is_empty() {
            return Err(TotpSecretError::Empty);
        }
        if text.len() > LONGEST_TEXT {
            return Err(TotpSecretError::NotText);
        }
        if text.len() == usize::from(DIGITS) && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(TotpSecretError::OneTimeCode);
        }
        let encoded = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("otpauth") => secret_of_url(rest)?,
            _ => text,
        };
        let mut base32 = Zeroizing::new(String::with_capacity(encoded.len()));
        let kept = |character: &char| !character.is_whitespace() && !matches!(character, '-' | '=');
        base32.extend(encoded.chars().filter(kept).map(|character| character.to_ascii_uppercase()));
        let secret = Secret::try_from_base32(base32.as_str()).map_err(|_| TotpSecretError::NotBase32)?;
        if secret.as_bytes().len() < SHORTEST {
            return Err(TotpSecretError::TooShort);
        }
        // The checked constructor refuses secrets below 128 bits, which services do hand out.
        let totp = Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_digits(DIGITS)
            .with_step_duration(STEP_SECONDS)
            .with_secret(secret)
            .build_noncompliant();
        Ok(Self(Box::new(totp)))
    }

    /// The code that is valid at that time.
    #[must_use]
    pub fn code(&self, at: Timestamp) -> Zeroizing<String> {
        let seconds = u64::try_from(at.as_second()).unwrap_or_default();
        Zeroizing::new(self.0.generate(seconds).to_string())
    }
}

/// When the code of that time is followed by the next one: a service need not accept a code twice (RFC 6238, 5.2).
#[must_use]
pub fn next_code(after: Timestamp) -> Timestamp {
    let step = i64::try_from(STEP_SECONDS).unwrap_or(i64::MAX);
    let next = after.as_second().div_euclid(step).saturating_add(1).saturating_mul(step);
    Timestamp::from_second(next).unwrap_or(Timestamp::MAX)
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TotpSecret([redacted])")
    }
}

/// The secret in what follows `otpauth://`. Read by hand: a URL parser leaves copies behind, and base32 needs
/// no unescaping but for its padding.
fn secret_of_url(rest: &str) -> Result<&str, TotpSecretError> {
    let (path, query) = rest.split_once('?').ok_or(TotpSecretError::NoSecret)?;
    if !path.split('/').next().is_some_and(|kind| kind.eq_ignore_ascii_case("totp")) {
        return Err(TotpSecretError::NotTotp);
    }
    let mut secret = None;
    for (name, value) in query.split('&').filter_map(|parameter| parameter.split_once('=')) {
        match name.to_ascii_lowercase().as_str() {
            "secret" => secret = Some(value.trim_end_matches("%3D").trim_end_matches("%3d")),
            "algorithm" if !value.eq_ignore_ascii_case("SHA1") => {
                return Err(TotpSecretError::Unsupported("algorithm"));
            }
            "digits" if value != "6" => return Err(TotpSecretError::Unsupported("digits")),
            "period" if value != "30" => return Err(TotpSecretError::Unsupported("period")),
            _ => {}
        }
    }
    secret.filter(|secret| !secret.is_empty()).ok_or(TotpSecretError::NoSecret)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret of RFC 6238's test vectors: "12345678901234567890".
    const RFC: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    fn code(text: &str, second: i64) -> String {
        TotpSecret::parse(text.as_bytes()).unwrap().code(Timestamp::from_second(second).unwrap()).to_string()
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        // RFC 6238, appendix B, SHA-1; the last six of its eight digits.
        for (second, expected) in [(59, "287082"), (1_111_111_109, "081804"), (2_000_000_000, "279037")] {
            assert_eq!(code(RFC, second), expected);
        }
    }

    #[test]
    fn every_usual_form_gives_the_same_codes() {
        let forms = [
            "gezdgnbvgy3tqojqgezdgnbvgy3tqojq",
            " GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ\n",
            "gezd-gnbv-gy3t-qojq-gezd-gnbv-gy3t-qojq",
            "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ====",
            "otpauth://totp/Bags:person?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Bags",
            "OTPAUTH://TOTP/Bags?algorithm=sha1&digits=6&period=30&secret=gezdgnbvgy3tqojqgezdgnbvgy3tqojq%3D%3D\n",
        ];
        for form in forms {
            assert_eq!(code(form, 59), "287082", "{form}");
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_with_its_own_reason() {
        let cases = [
            ("", TotpSecretError::Empty),
            ("123456", TotpSecretError::OneTimeCode),
            ("GEZDGNBVGY3TQ", TotpSecretError::TooShort),
            ("not base32 at all: 0189", TotpSecretError::NotBase32),
            ("https://bags.example", TotpSecretError::NotBase32),
            ("otpauth://hotp/Bags?secret=GEZDGNBVGY3TQOJQ", TotpSecretError::NotTotp),
            ("otpauth://totp/Bags", TotpSecretError::NoSecret),
            ("otpauth://totp/Bags?secret=", TotpSecretError::NoSecret),
            ("otpauth://totp/B?secret=GEZDGNBVGY3TQOJQ&digits=8", TotpSecretError::Unsupported("digits")),
            ("otpauth://totp/B?secret=GEZDGNBVGY3TQOJQ&period=60", TotpSecretError::Unsupported("period")),
            (
                "otpauth://totp/B?algorithm=SHA256&secret=GEZDGNBVGY3TQOJQ",
                TotpSecretError::Unsupported("algorithm"),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(TotpSecret::parse(text.as_bytes()).unwrap_err(), expected, "{text}");
        }
        assert_eq!(TotpSecret::parse(b"\xff").unwrap_err(), TotpSecretError::NotText);
        assert_eq!(TotpSecret::parse(&[b'A'; 1025]).unwrap_err(), TotpSecretError::NotText);
    }

    #[test]
    fn the_next_code_is_another_one() {
        for second in [0, 1, 29, 30, 59, 1_111_111_109] {
            let next = next_code(Timestamp::from_second(second).unwrap()).as_second();
            assert_ne!(code(RFC, next), code(RFC, second), "{second}");
            assert_eq!(code(RFC, next - 1), code(RFC, second), "{second}");
        }
        assert_eq!(next_code(Timestamp::MAX), Timestamp::MAX);
    }

    #[test]
    fn a_time_before_1970_has_a_code_too() {
        assert_eq!(code(RFC, -5).len(), 6);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", TotpSecret::parse(RFC.as_bytes()).unwrap()), "TotpSecret([redacted])");
    }
}
