//! `/sandbox/…`: what the real service does not have. No answer here carries a value, a wallet, a token, a secret.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{self, Query, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::faults::FaultRule;
use super::super::users::{UserOptions, UserView};
use super::super::{CredentialsError, NoSuch, Sandbox, times};
use super::answer::{Order, failure};

/// Requests on one page, where the caller does not say.
const PAGE: usize = 1_000;

pub(super) async fn keys(State(sandbox): State<Sandbox>) -> Json<Value> {
    Json(json!({"keys": sandbox.keys()}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MakeKey {
    user: Option<String>,
    name: String,
}

pub(super) async fn make_key(
    State(sandbox): State<Sandbox>,
    Order(MakeKey { user, name }): Order<MakeKey>,
) -> Response {
    let user = match user {
        Some(id) => sandbox.with(|state, _| state.user(&id)),
        None => sandbox.with(|state, _| state.first_user()),
    };
    let made = match user {
        Ok(user) => sandbox.make_key(&user.id, &name),
        Err(error) => return failure(StatusCode::NOT_FOUND, &error),
    };
    match made {
        Ok(made) => match sandbox.with(|state, _| state.key(&made.id)) {
            Ok(key) => (StatusCode::CREATED, Json(key)).into_response(),
            Err(error) => failure(StatusCode::NOT_FOUND, &error),
        },
        Err(refused) => failure(refused.status(), &refused),
    }
}

pub(super) async fn revoke_key(
    State(sandbox): State<Sandbox>,
    extract::Path(id): extract::Path<String>,
) -> Response {
    found(sandbox.revoke_key(&id))
}

fn found<T: serde::Serialize>(outcome: Result<T, NoSuch>) -> Response {
    match outcome {
        Ok(view) => Json(view).into_response(),
        Err(error) => failure(StatusCode::NOT_FOUND, &error),
    }
}

#[derive(Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    after: u64,
    #[serde(default = "page_length")]
    limit: usize,
}

fn page_length() -> usize {
    PAGE
}

pub(super) async fn requests(
    State(sandbox): State<Sandbox>,
    page: Result<Query<Page>, QueryRejection>,
) -> Response {
    match page {
        Ok(Query(Page { after, limit })) => Json(sandbox.requests(after, limit)).into_response(),
        Err(rejection) => failure(StatusCode::BAD_REQUEST, &rejection),
    }
}

/// A path below `/sandbox` that means nothing.
#[derive(Debug, thiserror::Error)]
#[error("no such route; docs/sandbox.md has those that there are")]
struct NoRoute;

pub(super) async fn no_route() -> Response {
    failure(StatusCode::NOT_FOUND, &NoRoute)
}

pub(super) async fn faults(State(sandbox): State<Sandbox>) -> Json<Value> {
    Json(json!({"faults": sandbox.faults()}))
}

pub(super) async fn add_fault(State(sandbox): State<Sandbox>, Order(rule): Order<FaultRule>) -> Response {
    match sandbox.add_fault(rule) {
        Ok(number) => (StatusCode::CREATED, Json(json!({"number": number}))).into_response(),
        Err(error) => failure(StatusCode::BAD_REQUEST, &error),
    }
}

pub(super) async fn clear_faults(State(sandbox): State<Sandbox>) -> StatusCode {
    sandbox.clear_faults();
    StatusCode::NO_CONTENT
}

pub(super) async fn users(State(sandbox): State<Sandbox>) -> Json<Value> {
    Json(json!({"users": sandbox.users()}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AddUser {
    credentials_dir: String,
    #[serde(default)]
    options: Value,
}

/// Why a user cannot be made or changed over HTTP.
#[derive(Debug, thiserror::Error)]
enum UserError {
    #[error("failed to read the user's options: {0}")]
    Options(serde_json::Error),
    #[error(transparent)]
    NoSuch(#[from] NoSuch),
    #[error(transparent)]
    Credentials(CredentialsError),
    #[error("failed to write the credentials: the writer stopped")]
    WriterStopped,
}

impl UserError {
    fn answer(&self) -> Response {
        let status = match self {
            Self::Credentials(CredentialsError::NoDirectory | CredentialsError::Taken(_)) => {
                StatusCode::CONFLICT
            }
            Self::Options(_) | Self::Credentials(CredentialsError::Name) => StatusCode::BAD_REQUEST,
            Self::NoSuch(_) => StatusCode::NOT_FOUND,
            Self::Credentials(CredentialsError::Directory { .. } | CredentialsError::File { .. })
            | Self::WriterStopped => StatusCode::INTERNAL_SERVER_ERROR,
        };
        failure(status, self)
    }
}

pub(super) async fn add_user(State(sandbox): State<Sandbox>, Order(order): Order<AddUser>) -> Response {
    let AddUser { credentials_dir, options } = order;
    match make_user(&sandbox, credentials_dir.clone(), options).await {
        Ok(user) => {
            let mut shown = json!(user);
            shown["credentialsDir"] = Value::String(credentials_dir);
            (StatusCode::CREATED, Json(shown)).into_response()
        }
        Err(error) => error.answer(),
    }
}

async fn make_user(sandbox: &Sandbox, directory: String, options: Value) -> Result<UserView, UserError> {
    let options = merged(&sandbox.settings().user, options)?;
    let maker = sandbox.clone();
    let made = tokio::task::spawn_blocking(move || maker.add_user_on_disk(Some(&directory), options)).await;
    let id = made.map_err(|_| UserError::WriterStopped)?.map_err(UserError::Credentials)?;
    Ok(sandbox.with(|state, _| state.user(&id))?)
}

pub(super) async fn change_user(
    State(sandbox): State<Sandbox>,
    extract::Path(id): extract::Path<String>,
    Order(change): Order<Value>,
) -> Response {
    let outcome = sandbox.with(|state, _| {
        let options = merged(&state.user(&id)?.options, change)?;
        state.change_user(&id, |current| *current = options).map_err(UserError::from)
    });
    match outcome {
        Ok(user) => Json(user).into_response(),
        Err(error) => error.answer(),
    }
}

pub(super) async fn remove_user(
    State(sandbox): State<Sandbox>,
    extract::Path(id): extract::Path<String>,
) -> Response {
    found(sandbox.remove_user(&id))
}

/// Options with some fields replaced; what is not named stays as it is.
fn merged(options: &UserOptions, change: Value) -> Result<UserOptions, UserError> {
    let mut whole = json!(options);
    merge(&mut whole, change);
    serde_json::from_value(whole).map_err(UserError::Options)
}

fn merge(whole: &mut Value, change: Value) {
    match (whole, change) {
        (Value::Object(whole), Value::Object(change)) => {
            for (name, value) in change {
                merge(whole.entry(name).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (whole, change) => *whole = change,
    }
}

pub(super) async fn clock(State(sandbox): State<Sandbox>) -> Json<Value> {
    let (now, advanced) = sandbox.with(|state, now| (now, state.advanced()));
    let advanced = u64::try_from(advanced.as_millis()).unwrap_or(u64::MAX);
    Json(json!({"now": times::text(now), "advancedMs": advanced}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Advance {
    advance_ms: u64,
}

pub(super) async fn advance(
    State(sandbox): State<Sandbox>,
    Order(Advance { advance_ms }): Order<Advance>,
) -> Json<Value> {
    sandbox.advance(Duration::from_millis(advance_ms));
    clock(State(sandbox)).await
}
