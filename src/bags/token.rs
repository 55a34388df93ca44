//! The agent token: the account's own JWT, which makes, lists and revokes keys.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

/// Far above any JWT seen; it must leave room for the rest of a request.
const LONGEST: usize = 16 * 1024;

/// What a token field should hold; the end of every message.
macro_rules! expected {
    () => {
        "the field must hold the account's agent token and nothing else"
    };
}

/// An account's agent token. Wiped when dropped, in no output.
pub struct AgentToken(Zeroizing<String>);

/// Why a text is not an agent token. No variant repeats anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AgentTokenError {
    /// Nothing but white space.
    #[error("failed to read the agent token: it is empty; {}", expected!())]
    Empty,
    /// `Bearer eyJ…`
    #[error("failed to read the agent token: it begins with `Bearer`; {}", expected!())]
    Bearer,
    /// White space or other characters that no token has.
    #[error("failed to read the agent token: it is not one word of visible ASCII characters; {}", expected!())]
    NotOneWord,
    /// Another file.
    #[error("failed to read the agent token: it is longer than {LONGEST} bytes; {}", expected!())]
    TooLong,
}

impl AgentToken {
    /// Reads a token; white space around it is ignored.
    ///
    /// # Errors
    /// An [`AgentTokenError`] that says what is wrong and what the field must hold.
    pub fn parse(bytes: &[u8]) -> Result<Self, AgentTokenError> {
        let text = bytes.trim_ascii();
        if text.is_empty() {
            return Err(AgentTokenError::Empty);
        }
        if text.len() > LONGEST {
            return Err(AgentTokenError::TooLong);
        }
        if text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"bearer ")) {
            return Err(AgentTokenError::Bearer);
        }
        let text = std::str::from_utf8(text).map_err(|_| AgentTokenError::NotOneWord)?;
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(AgentTokenError::NotOneWord);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// When the token expires, by its own claim and unverified; `None` where it is no JWT or does not say.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        #[derive(Deserialize)]
        struct Claims {
            exp: f64,
        }
        let mut parts = self.0.split('.');
        let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let claims = Zeroizing::new(URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?);
        let Claims { exp } = serde_json::from_slice(&claims).ok()?;
        // A float by the RFC's grammar ("NumericDate"); the cast saturates, and the range check is jiff's.
        Timestamp::from_second(exp as i64).ok()
    }

    /// The token, for a request's body.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AgentToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AgentToken([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part("{\"alg\":\"HS256\"}"), part(claims), part("signature"))
    }

    fn expiry(token: &str) -> Option<i64> {
        AgentToken::parse(token.as_bytes()).unwrap().expires_at().map(Timestamp::as_second)
    }

    #[test]
    fn white_space_around_a_token_is_ignored() {
        assert_eq!(AgentToken::parse(b" token-for-tests\r\n").unwrap().expose(), "token-for-tests");
    }

    #[test]
    fn what_is_no_token_is_refused_with_its_own_reason() {
        let cases: [(&[u8], AgentTokenError); 7] = [
            (b"", AgentTokenError::Empty),
            (b" \n", AgentTokenError::Empty),
            (b"Bearer token", AgentTokenError::Bearer),
            (b"two words", AgentTokenError::NotOneWord),
            (b"to\xffken", AgentTokenError::NotOneWord),
            ("tokén".as_bytes(), AgentTokenError::NotOneWord),
            (&[b'a'; LONGEST + 1], AgentTokenError::TooLong),
        ];
        for (bytes, expected) in cases {
            assert_eq!(AgentToken::parse(bytes).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_jwt_says_when_it_expires() {
        assert_eq!(expiry(&jwt("{\"sub\":\"x\",\"exp\":1798761600}")), Some(1_798_761_600));
        assert_eq!(expiry(&jwt("{\"exp\":1798761600.9}")), Some(1_798_761_600));
    }

    #[test]
    fn what_does_not_say_has_no_expiry() {
        let none = [
            "token-for-tests",
            "a.b.c",
            "..",
            &jwt("{}"),
            &jwt("{\"exp\":\"soon\"}"),
            &jwt("{\"exp\":1e300}"),
        ];
        for token in none {
            assert_eq!(expiry(token), None, "{token}");
        }
        assert_eq!(expiry(&format!("{}.more", jwt("{\"exp\":1798761600}"))), None);
    }

    #[test]
    fn debug_shows_nothing() {
        let token = AgentToken::parse(b"token-for-tests").unwrap();
        assert_eq!(format!("{token:?}"), "AgentToken([redacted])");
    }
}
