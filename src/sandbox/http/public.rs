//! The documented API.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::state::{KeyRecord, Profile, Signed};
use super::super::{Call, Refused, Sandbox, times};
use super::answer::{Envelope, Input, refusal};

pub(super) async fn not_found() -> Response {
    refusal(Envelope::Error, Refused::NotFound)
}

pub(super) async fn method_not_allowed() -> Response {
    refusal(Envelope::Error, Refused::Method)
}

pub(super) async fn ping(State(sandbox): State<Sandbox>, mut call: Call, headers: HeaderMap) -> Response {
    match sandbox.with(|state, now| state.ping(&mut call, api_key(&headers), now)) {
        Ok(()) => {
            let mut answer = Json(json!({"message": "pong"})).into_response();
            answer.extensions_mut().insert(call);
            answer
        }
        Err(refused) => call.answer(Envelope::Error, Err(refused)),
    }
}

pub(super) async fn me(State(sandbox): State<Sandbox>, mut call: Call, headers: HeaderMap) -> Response {
    let outcome = sandbox.with(|state, now| state.profile(&mut call, api_key(&headers), now));
    let outcome = outcome.map(|Profile { id, username, created }| {
        let created = times::text(created);
        json!({"user": {
            "uuid": id, "username": username, "status": "active", "createdAt": created, "updatedAt": created,
        }})
    });
    call.answer(Envelope::Error, outcome)
}

fn api_key(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-api-key")?.to_str().ok()
}

#[derive(Deserialize)]
pub(super) struct Init {
    address: String,
}

pub(super) async fn init(
    State(sandbox): State<Sandbox>,
    mut call: Call,
    Input(Init { address }): Input<Init>,
) -> Response {
    let outcome = sandbox.with(|state, now| state.challenge(&mut call, &address, now));
    call.answer(Envelope::Error, outcome.map(|(message, nonce)| json!({"message": message, "nonce": nonce})))
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Callback {
    #[serde(rename_all = "camelCase")]
    SecondStep { auth_code: String, mfa_code: String, key_name: String },
    #[serde(rename_all = "camelCase")]
    Signature { signature: String, address: String, nonce: String, key_name: String },
}

pub(super) async fn callback(
    State(sandbox): State<Sandbox>,
    mut call: Call,
    Input(body): Input<Callback>,
) -> Response {
    let outcome = match body {
        Callback::SecondStep { auth_code, mfa_code, key_name } => {
            sandbox.with(|state, now| state.second_step(&mut call, &auth_code, &mfa_code, &key_name, now))
        }
        Callback::Signature { signature, address, nonce, key_name } => {
            sign_in(&sandbox, &mut call, &signature, &address, &nonce, &key_name)
        }
    };
    call.answer(Envelope::Error, outcome.map(signed))
}

fn sign_in(
    sandbox: &Sandbox,
    call: &mut Call,
    signature: &str,
    address: &str,
    nonce: &str,
    key_name: &str,
) -> Result<Signed, Refused> {
    let challenge = sandbox.with(|state, now| state.take_challenge(call, address, nonce, key_name, now))?;
    let wallet = challenge.is_signed_by(signature)?;
    sandbox.with(|state, now| state.signed_in(call, wallet, key_name, now))
}

fn signed(signed: Signed) -> Value {
    match signed {
        Signed::Key { value, id, is_signup } => with_id(json!({"apiKey": value, "isSignup": is_signup}), id),
        Signed::SecondStep { auth_code } => {
            json!({"mfaRequired": true, "mfaMethod": "totp", "authCode": auth_code})
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Create {
    token: String,
    name: String,
}

pub(super) async fn create(
    State(sandbox): State<Sandbox>,
    mut call: Call,
    Input(Create { token, name }): Input<Create>,
) -> Response {
    let outcome = sandbox.with(|state, now| state.create_with_token(&mut call, &token, &name, now));
    call.answer(Envelope::Response, outcome.map(|made| json!({"apiKey": record(made)})))
}

#[derive(Deserialize)]
pub(super) struct List {
    token: String,
}

pub(super) async fn list(
    State(sandbox): State<Sandbox>,
    mut call: Call,
    Input(List { token }): Input<List>,
) -> Response {
    let outcome = sandbox.with(|state, now| state.list_with_token(&mut call, &token, now));
    let outcome = outcome.map(|keys| Value::Array(keys.into_iter().map(record).collect()));
    call.answer(Envelope::Response, outcome)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Revoke {
    token: String,
    key_id: String,
}

pub(super) async fn revoke(
    State(sandbox): State<Sandbox>,
    mut call: Call,
    Input(Revoke { token, key_id }): Input<Revoke>,
) -> Response {
    let outcome = sandbox.with(|state, now| state.revoke_with_token(&mut call, &token, &key_id, now));
    call.answer(Envelope::Response, outcome.map(|()| json!({"keyId": key_id, "status": "revoked"})))
}

/// A key as the older endpoints show it: with its value, also in the list. Callers must not depend on that.
fn record(record: KeyRecord) -> Value {
    let KeyRecord { user_id, name, key_id, value, created_at, last_used_at } = record;
    let created = times::text(created_at);
    let shown = json!({
        "status": "active", "userId": user_id, "name": name, "key": value, "createdAt": created,
        "updatedAt": created, "lastUsedAt": last_used_at.map(times::text),
    });
    with_id(shown, key_id)
}

fn with_id(mut shown: Value, id: Option<String>) -> Value {
    if let Some(id) = id {
        shown["keyId"] = Value::String(id);
    }
    shown
}
