//! The seam between the client and the network: a `tower` service that answers HTTP requests.
//!
//! Bodies live in wiped, bounded memory on this side of the seam. What a leaf beneath it copies (TLS and
//! socket buffers) is beyond our reach.

use std::fmt;
use std::io;

use axum::body::HttpBody;
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use tower::util::BoxCloneSyncService;
use zeroize::Zeroizing;

pub(super) mod base_url;
pub(super) mod https;

/// Every way to the Bags service: the network's in production, a router's in tests.
pub type BagsService = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, TransportError>;

/// The largest request that the client sends, in bytes.
pub const REQUEST_LIMIT: usize = 64 * 1024;
/// The largest answer that the client reads, in bytes: a list of a hundred keys takes a twentieth of it.
pub const RESPONSE_LIMIT: usize = 1024 * 1024;

/// Why there is no answer. It says what is known of the request's fate, and carries no text of any lower
/// layer: such text may quote addresses and contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Nothing of the request has reached the service.
    #[error("failed to connect ({0})")]
    NotSent(Stage),
    /// No complete answer in time; the service may have acted on the request.
    #[error("failed to get an answer in time")]
    Timeout,
    /// The connection broke after sending began; the service may have acted on the request.
    #[error("failed to read an answer: the connection broke")]
    Broken,
    /// The answer is larger than any that the service is known to give.
    #[error("failed to read an answer: it is too large")]
    TooLarge,
}

/// How far a connection got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The host's name has no address.
    Dns,
    /// The host does not accept connections.
    Connect,
    /// The TLS handshake failed, mostly because the certificate is not trusted.
    Tls,
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Dns => "name lookup",
            Self::Connect => "connection",
            Self::Tls => "TLS handshake",
        })
    }
}

/// A request's or an answer's body: wiped when dropped, its content in no output.
#[derive(Default)]
pub struct Body(Zeroizing<Vec<u8>>);

impl Body {
    /// The content.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no content.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The content as shared bytes that are wiped when the last of their holders is dropped.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self.0)
    }

    /// Reads a body of at most `limit` bytes.
    ///
    /// # Errors
    /// [`TransportError::TooLarge`] above the limit, [`TransportError::Broken`] where the body ends early.
    pub async fn collect<B>(body: B, limit: usize) -> Result<Self, TransportError>
    where
        B: HttpBody,
    {
        let mut buffer = Buffer::new(limit);
        let mut body = std::pin::pin!(body);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| TransportError::Broken)?;
            if let Ok(mut data) = frame.into_data() {
                while data.has_remaining() {
                    let length = data.chunk().len();
                    buffer.push(data.chunk()).map_err(|Full| TransportError::TooLarge)?;
                    data.advance(length);
                }
            }
        }
        Ok(buffer.into_body())
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Body({} bytes)", self.len())
    }
}

/// Bounded memory that grows without leaving copies of its content behind, as a growing `Vec` does.
pub(super) struct Buffer {
    bytes: Zeroizing<Vec<u8>>,
    limit: usize,
}

/// A [`Buffer`] has reached its limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Buffer {
    /// Empty, and never larger than `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Zeroizing::default(), limit }
    }

    /// Appends the chunk, or nothing where it does not fit.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), Full> {
        let needed =
            self.bytes.len().checked_add(chunk.len()).filter(|length| *length <= self.limit).ok_or(Full)?;
        if needed > self.bytes.capacity() {
            let capacity = needed.max(self.bytes.capacity() * 2).max(1024).min(self.limit);
            let mut grown = Zeroizing::new(Vec::with_capacity(capacity));
            grown.extend_from_slice(&self.bytes);
            self.bytes = grown;
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    /// The content as a body.
    pub(super) fn into_body(self) -> Body {
        Body(self.bytes)
    }
}

impl io::Write for Buffer {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        self.push(chunk).map_err(|Full| io::Error::from(io::ErrorKind::StorageFull))?;
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_takes_as_much_as_its_limit_and_no_byte_more() {
        let mut buffer = Buffer::new(3000);
        for chunk in [vec![1; 1000], vec![2; 1999]] {
            assert_eq!(buffer.push(&chunk), Ok(()));
        }
        assert_eq!(buffer.push(&[3, 3]), Err(Full));
        assert_eq!(buffer.push(&[3]), Ok(()));
        let body = buffer.into_body();
        assert_eq!(body.as_bytes()[..1000], [1; 1000]);
        assert_eq!(body.as_bytes()[1000..2999], [2; 1999]);
        assert_eq!(body.len(), 3000);
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_not_collected() {
        let collect = |length: usize| Body::collect(axum::body::Body::from(vec![7; length]), 10);
        assert_eq!(collect(10).await.unwrap().into_bytes(), Bytes::from(vec![7; 10]));
        assert_eq!(collect(11).await.unwrap_err(), TransportError::TooLarge);
    }

    #[test]
    fn debug_shows_no_content() {
        let shown = format!("{:?}", Body::from(b"value-one-for-tests".to_vec()));
        assert_eq!(shown, "Body(19 bytes)");
    }
}
