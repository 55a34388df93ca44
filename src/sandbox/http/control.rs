//! `/sandbox/…`: what the real service does not have. No answer here carries a value, a wallet, a token, a secret.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Json;
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

pub(super) async fn requests(State(sandbox): State<Sandbox>, Query(page): Query<Page>) -> Response {
    let Page { after, limit } = page;
    Json(sandbox.requests(after, limit)).into_response()
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
    #[error("the sandbox was started without a directory for credentials")]
    NoDirectory,
    #[error("credentialsDir must be one name of letters, digits, '-' and '_'")]
    DirectoryName,
    #[error("credentialsDir {0} is there already")]
    DirectoryTaken(String),
    #[error("failed to read the user's options: {0}")]
    Options(serde_json::Error),
    #[error(transparent)]
    NoSuch(#[from] NoSuch),
    #[error("failed to write the credentials")]
    Write(#[source] CredentialsError),
    #[error("failed to write the credentials: the writer stopped")]
    WriterStopped,
}

impl UserError {
    fn answer(&self) -> Response {
        let status = match self {
            Self::NoDirectory | Self::DirectoryTaken(_) => StatusCode::CONFLICT,
            Self::DirectoryName | Self::Options(_) => StatusCode::BAD_REQUEST,
            Self::NoSuch(_) => StatusCode::NOT_FOUND,
            Self::Write(_) | Self::WriterStopped => StatusCode::INTERNAL_SERVER_ERROR,
        };
        failure(status, self)
    }
}

pub(super) async fn add_user(State(sandbox): State<Sandbox>, Order(order): Order<AddUser>) -> Response {
    match make_user(&sandbox, order).await {
        Ok((user, directory)) => {
            let mut shown = json!(user);
            shown["credentialsDir"] = Value::String(directory);
            (StatusCode::CREATED, Json(shown)).into_response()
        }
        Err(error) => error.answer(),
    }
}

async fn make_user(sandbox: &Sandbox, order: AddUser) -> Result<(UserView, String), UserError> {
    let AddUser { credentials_dir: name, options } = order;
    let below = sandbox.settings().credentials.as_deref().ok_or(UserError::NoDirectory)?;
    let directory = directory(below, &name)?;
    let options = merged(&sandbox.settings().user, options)?;
    let user = sandbox.add_user(options);
    let credentials = user.credentials;
    // Writing a few small files is quick, but it is the disk's time, not the server's.
    let written = tokio::task::spawn_blocking(move || credentials.write_to(&directory)).await;
    written.map_err(|_| UserError::WriterStopped)?.map_err(UserError::Write)?;
    Ok((sandbox.with(|state, _| state.user(&user.id))?, name))
}

/// A directory of its own below that of the sandbox's credentials.
fn directory(below: &Path, name: &str) -> Result<PathBuf, UserError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !(1..=64).contains(&name.len()) || !name.chars().all(plain) {
        return Err(UserError::DirectoryName);
    }
    let directory = below.join(name);
    if directory.exists() { Err(UserError::DirectoryTaken(name.to_owned())) } else { Ok(directory) }
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
