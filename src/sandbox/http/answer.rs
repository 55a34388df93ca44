//! Reading bodies and writing envelopes.

use std::convert::Infallible;
use std::error::Error;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::server::Peer;
use super::super::{Call, Refused};

/// Longer bodies are refused: the longest real one is a token and a name.
const LONGEST_BODY: usize = 64 * 1024;

/// Which field of a failure's envelope carries the message.
#[derive(Clone, Copy)]
pub(super) enum Envelope {
    /// `error`, as the current documentation has it.
    Error,
    /// `response`, as the older agent endpoints have it.
    Response,
}

impl FromRequestParts<super::Sandbox> for Call {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &super::Sandbox) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>();
        let ip = peer.map(|ConnectInfo(peer)| peer.address.ip());
        Ok(Self { ip, ..Self::default() })
    }
}

impl Call {
    /// The answer of the service, in its envelope, with what became known about the request.
    pub(super) fn answer(self, envelope: Envelope, outcome: Result<Value, Refused>) -> Response {
        let mut answer = match outcome {
            Ok(value) => Json(json!({"success": true, "response": value})).into_response(),
            Err(refused) => refusal(envelope, refused),
        };
        answer.extensions_mut().insert(self);
        answer
    }
}

/// A failure, in its envelope.
pub(super) fn refusal(envelope: Envelope, refused: Refused) -> Response {
    let text = refused.to_string();
    let body = match (refused, envelope) {
        (Refused::RateLimited(rate), _) => json!({
            "success": false, "error": text, "limit": rate.limit, "remaining": 0, "resetTime": rate.reset,
        }),
        // An endpoint that a user lacks answers like one that nobody has.
        (Refused::NotFound, _) => json!({"success": false, "error": text}),
        (Refused::TooManyAuth, _) | (_, Envelope::Response) => json!({"success": false, "response": text}),
        (_, Envelope::Error) => json!({"success": false, "error": text}),
    };
    (refused.status(), Json(body)).into_response()
}

/// The JSON body of a request to the public API.
pub(super) struct Input<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<super::Sandbox> for Input<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &super::Sandbox) -> Result<Self, Response> {
        let bytes = read(request).await.map_err(|refused| refusal(Envelope::Error, refused))?;
        let input = serde_json::from_slice(&bytes);
        input.map(Self).map_err(|_| refusal(Envelope::Error, Refused::Body))
    }
}

/// The JSON body of a request to `/sandbox/…`, where a failure says what is wrong. An empty body is `{}`.
pub(super) struct Order<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<super::Sandbox> for Order<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &super::Sandbox) -> Result<Self, Response> {
        let bytes = read(request).await.map_err(|refused| failure(refused.status(), &refused))?;
        let bytes = if bytes.is_empty() { b"{}".as_slice() } else { &bytes };
        serde_json::from_slice(bytes).map(Self).map_err(|error| failure(StatusCode::BAD_REQUEST, &error))
    }
}

/// A failure of `/sandbox/…`.
pub(super) fn failure(status: StatusCode, error: &dyn Error) -> Response {
    (status, Json(json!({"error": error.to_string()}))).into_response()
}

async fn read(request: Request) -> Result<bytes::Bytes, Refused> {
    to_bytes(request.into_body(), LONGEST_BODY).await.map_err(|error| {
        let too_long = error.source().is_some_and(|source| source.is::<LengthLimitError>());
        if too_long { Refused::TooLarge } else { Refused::Body }
    })
}
