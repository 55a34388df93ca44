//! The sandbox's outside: routes, envelopes, headers, and the way of a request past journal and faults.

mod answer;
mod control;
mod page;
mod public;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, patch, post};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use super::faults::{Action, When, canned};
use super::limits::RateStatus;
use super::server::Peer;
use super::{Call, Sandbox, Settings};

/// Where the public API lies.
const API: &str = "/api/v1";

/// The connection was broken without an answer. [`Sandbox::router`] shows it as an extension of the answer,
/// [`Sandbox::service`] as an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connection closed before an answer came")]
pub struct CutConnection;

/// The public routes, as faults and the journal name them.
pub(super) fn routes(settings: &Settings) -> Vec<Arc<str>> {
    let below = ["/auth/me", "/agent/v2/auth/init", "/agent/v2/auth/callback", "/agent/dev/keys/create"];
    let below = below.into_iter().chain(["/agent/dev/keys", settings.revoke_path.as_str()]);
    std::iter::once("/ping".into()).chain(below.map(|path| format!("{API}{path}").into())).collect()
}

/// The whole service.
pub(super) fn router(sandbox: &Sandbox) -> Router {
    let api = |path: &str| format!("{API}{path}");
    let public = Router::new()
        .route("/ping", get(public::ping))
        .route(&api("/auth/me"), get(public::me))
        .route(&api("/agent/v2/auth/init"), post(public::init))
        .route(&api("/agent/v2/auth/callback"), post(public::callback))
        .route(&api("/agent/dev/keys/create"), post(public::create))
        .route(&api("/agent/dev/keys"), post(public::list))
        .route(&api(&sandbox.settings().revoke_path), post(public::revoke))
        .fallback(public::not_found)
        .method_not_allowed_fallback(public::method_not_allowed)
        .layer(from_fn_with_state(sandbox.clone(), observed));
    let control = Router::new()
        .route("/", get(page::page))
        .route("/keys/{id}/revoke", post(page::revoke))
        .route("/sandbox/keys", get(control::keys).post(control::make_key))
        .route("/sandbox/keys/{id}/revoke", post(control::revoke_key))
        .route("/sandbox/requests", get(control::requests))
        .route("/sandbox/faults", get(control::faults).post(control::add_fault))
        .route("/sandbox/faults", delete(control::clear_faults))
        .route("/sandbox/users", get(control::users).post(control::add_user))
        .route("/sandbox/users/{id}", patch(control::change_user).delete(control::remove_user))
        .route("/sandbox/clock", get(control::clock).post(control::advance))
        .route("/sandbox/{*path}", any(control::no_route));
    control
        .merge(public)
        .layer(from_fn_with_state(sandbox.clone(), dated))
        .layer(from_fn(breaking))
        .with_state(sandbox.clone())
}

/// Breaks the connection where the answer says so. A caller in this process has no connection, and gets the answer
/// with its mark.
async fn breaking(
    peer: Option<axum::Extension<ConnectInfo<Peer>>>,
    request: Request,
    next: Next,
) -> Response {
    let answer = next.run(request).await;
    if let Some(axum::Extension(ConnectInfo(peer))) = peer
        && answer.extensions().get::<CutConnection>().is_some()
    {
        peer.cut();
    }
    answer
}

/// Every answer carries the sandbox's own time, which callers take for the service's clock.
async fn dated(State(sandbox): State<Sandbox>, request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    if let Some(date) = http_date(sandbox.now()) {
        answer.headers_mut().insert(DATE, date);
    }
    answer
}

fn http_date(time: Timestamp) -> Option<HeaderValue> {
    let text = DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()?;
    HeaderValue::try_from(text).ok()
}

/// The way of a public request: journal, fault, effect, headers, fault.
async fn observed(
    State(sandbox): State<Sandbox>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method().clone();
    let route = path.as_ref().map(MatchedPath::as_str);
    let (number, action) = sandbox.with(|state, now| state.begin(&method, route, now));
    if let Some(instead) = before_effect(action.as_ref()).await {
        let status = answered_status(&instead);
        let rate = sandbox.with(|state, now| state.finish(number, status, Call::default(), now));
        return with_rate_headers(instead, rate);
    }
    let mut answer = next.run(request).await;
    let call = answer.extensions_mut().remove::<Call>().unwrap_or_default();
    // Noted before any delay: a caller that gives up takes this future with it.
    let noted = after_effect_status(action.as_ref(), answer.status());
    let rate = sandbox.with(|state, now| state.finish(number, noted, call, now));
    after_effect(action, with_rate_headers(answer, rate)).await
}

/// What comes instead of the effect, if anything does.
async fn before_effect(action: Option<&Action>) -> Option<Response> {
    match action? {
        Action::Answer { status, headers, body, when: When::Before } => {
            Some(canned_answer(*status, headers, body))
        }
        Action::Cut(When::Before) => Some(cut_connection()),
        Action::Delay { by, when: When::Before } => {
            wait(*by).await;
            None
        }
        Action::Answer { when: When::After, .. }
        | Action::Cut(When::After)
        | Action::Delay { when: When::After, .. }
        | Action::Malformed
        | Action::Truncated => None,
    }
}

/// The status that the caller will get to see.
fn after_effect_status(action: Option<&Action>, status: StatusCode) -> Option<StatusCode> {
    match action {
        Some(Action::Cut(When::After)) => None,
        Some(Action::Answer { status, when: When::After, .. }) => StatusCode::from_u16(*status).ok(),
        _ => Some(status),
    }
}

/// What becomes of the answer on its way out.
async fn after_effect(action: Option<Action>, answer: Response) -> Response {
    match action {
        Some(Action::Answer { status, headers, body, when: When::After }) => {
            let mut canned = canned_answer(status, &headers, &body);
            for (name, value) in answer.headers() {
                if name.as_str().starts_with("x-ratelimit-") && !canned.headers().contains_key(name) {
                    canned.headers_mut().insert(name, value.clone());
                }
            }
            canned
        }
        Some(Action::Cut(When::After)) => cut_connection(),
        Some(Action::Delay { by, when: When::After }) => {
            wait(by).await;
            answer
        }
        Some(Action::Malformed) => half(answer, false).await,
        Some(Action::Truncated) => half(answer, true).await,
        Some(
            Action::Answer { when: When::Before, .. }
            | Action::Cut(When::Before)
            | Action::Delay { when: When::Before, .. },
        )
        | None => answer,
    }
}

#[expect(clippy::disallowed_methods, reason = "being slow is what the fault asks for")]
async fn wait(by: Duration) {
    tokio::time::sleep(by).await;
}

fn canned_answer(
    status: u16,
    headers: &std::collections::BTreeMap<String, String>,
    body: &serde_json::Value,
) -> Response {
    match canned(status, headers, body) {
        Some(parts) => parts.into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The answer that stands for a broken connection.
fn cut_connection() -> Response {
    let mut answer = StatusCode::INTERNAL_SERVER_ERROR.into_response();
    answer.extensions_mut().insert(CutConnection);
    answer
}

fn answered_status(answer: &Response) -> Option<StatusCode> {
    let cut = answer.extensions().get::<CutConnection>().is_some();
    (!cut).then(|| answer.status())
}

/// The first half of an answer's body: as if that were all of it, or with an end that breaks off.
async fn half(answer: Response, broken_off: bool) -> Response {
    let (mut parts, body) = answer.into_parts();
    // The service's own answers are in memory already, so that reading one cannot fail.
    let whole = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let first = whole.slice(..whole.len() / 2);
    parts.headers.remove(CONTENT_LENGTH);
    if !broken_off {
        return Response::from_parts(parts, Body::from(first));
    }
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(whole.len()));
    // The server writes what it has when the body makes it wait, and would drop it if the error came at once.
    let end = stream::once(async {
        tokio::task::yield_now().await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    });
    let body = stream::iter([Ok::<Bytes, _>(first)]).chain(end);
    Response::from_parts(parts, Body::from_stream(body))
}

fn with_rate_headers(mut answer: Response, rate: RateStatus) -> Response {
    let RateStatus { limit, remaining, reset } = rate;
    let headers = answer.headers_mut();
    set_if_absent(headers, "x-ratelimit-limit", limit.into());
    set_if_absent(headers, "x-ratelimit-remaining", remaining.into());
    set_if_absent(headers, "x-ratelimit-reset", reset.into());
    answer
}

fn set_if_absent(headers: &mut HeaderMap, name: &'static str, value: HeaderValue) {
    headers.entry(HeaderName::from_static(name)).or_insert(value);
}
