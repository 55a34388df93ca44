//! The agent token: the account's own JWT, which makes, lists and revokes keys.

use std::fmt;

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
    fn debug_shows_nothing() {
        let token = AgentToken::parse(b"token-for-tests").unwrap();
        assert_eq!(format!("{token:?}"), "AgentToken([redacted])");
    }
}
