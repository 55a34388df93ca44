//! The production leaf of the seam: one connection pool to one host, which sends each request once.
//!
//! No redirect (a credential goes to one host), no proxy from the environment, no retry (a creation is sent at
//! most once), no skipping of certificate checks.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use http::{Request, Response};

use super::base_url::BaseUrl;
use super::{BagsService, Body, Buffer, Full, RESPONSE_LIMIT, Stage, TransportError};

/// Below the five seconds after which common servers (Node's default) close an idle connection: a request
/// that meets that moment is cut, and a cut creation has an unknown outcome.
const IDLE_CONNECTION: Duration = Duration::from_secs(4);

/// Why there is no HTTP client.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The extra CA bundle is not PEM.
    #[error(
        "failed to read the CA bundle: it must hold certificates in PEM form (-----BEGIN CERTIFICATE-----)"
    )]
    CaBundle,
    /// No TLS provider or no trusted certificates on this machine.
    #[error("failed to set up TLS")]
    Tls(#[source] reqwest::Error),
}

/// The service over the network. The whole process has one; rustls' provider must be installed before.
///
/// `connect_timeout` bounds name lookup, connection and TLS handshake and must be shorter than the client's
/// deadline for a request: only then is it certain that nothing was sent where no connection came about.
/// `extra_ca_pem` adds to the system's certificates.
///
/// # Errors
/// See [`HttpsError`].
pub fn https(
    base: &BaseUrl,
    connect_timeout: Duration,
    extra_ca_pem: Option<&[u8]>,
) -> Result<BagsService, HttpsError> {
    let extra = match extra_ca_pem {
        Some(pem) => reqwest::Certificate::from_pem_bundle(pem)
            .ok()
            .filter(|certificates| !certificates.is_empty())
            .ok_or(HttpsError::CaBundle)?,
        None => Vec::new(),
    };
    let client = reqwest::Client::builder()
        .https_only(base.is_https())
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(IDLE_CONNECTION)
        .tls_certs_merge(extra)
        .build()
        .map_err(HttpsError::Tls)?;
    Ok(BagsService::new(tower::service_fn(move |request| send(client.clone(), request))))
}

async fn send(client: reqwest::Client, request: Request<Body>) -> Result<Response<Body>, TransportError> {
    let request = reqwest::Request::try_from(request.map(Body::into_bytes))
        .map_err(|_| TransportError::NotSent(Stage::Connect))?;
    let mut answer = client.execute(request).await.map_err(|error| transport_error(&error))?;
    let mut response = Response::new(Body::default());
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    let mut buffer = Buffer::new(RESPONSE_LIMIT);
    while let Some(chunk) = answer.chunk().await.map_err(|error| transport_error(&error))? {
        buffer.push(&chunk).map_err(|Full| TransportError::TooLarge)?;
    }
    *response.body_mut() = buffer.into_body();
    Ok(response)
}

/// Whatever is not certainly a failure to connect counts as sent.
fn transport_error(error: &reqwest::Error) -> TransportError {
    if error.is_builder() {
        TransportError::NotSent(Stage::Connect)
    } else if error.is_connect() {
        TransportError::NotSent(if error.is_dns() {
            Stage::Dns
        } else if is_tls(error) {
            Stage::Tls
        } else {
            Stage::Connect
        })
    } else if error.is_timeout() {
        TransportError::Timeout
    } else {
        TransportError::Broken
    }
}

/// Whether a TLS error lies somewhere beneath. An `io::Error` hides what it wraps from `source`.
fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if error.is::<rustls::Error>() || wrapped.is_some_and(|wrapped| is_tls(wrapped)) {
            return true;
        }
        next = error.source();
    }
    false
}
