//! AdmissionReview v1, read and answered. Whatever is sent, the answer is a review: a request that cannot be read is
//! refused with its reason, as the API server shows people only that.

use kube::{
    ResourceExt,
    core::{
        DynamicObject, Status,
        admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation},
        response::StatusDetails,
    },
};
use serde_json::Value;

use super::verdict::Denial;
use crate::api::{
    ApiKey, GROUP,
    name::{is_label, is_subdomain},
};

/// A uid is a uuid of 36 characters.
const LONGEST_UID: usize = 64;
/// Names of ApiKeys, applications and accounts, as their schema bounds them.
const LONGEST_NAME: usize = 52;
/// A retryable refusal asks for this pause, in seconds.
const RETRY_AFTER: u32 = 1;

/// A request, as far as it concerns admission.
pub(super) struct Question {
    request: AdmissionRequest<DynamicObject>,
    /// What is asked.
    pub(super) asked: Asked,
}

/// What a request asks.
pub(super) enum Asked {
    /// Whether this ApiKey may be made.
    Create {
        /// With namespace and uid.
        key: Box<ApiKey>,
        /// Nothing may be written.
        dry_run: bool,
    },
    /// Nothing that is judged here.
    Other,
}

/// A request that cannot be read.
pub(super) struct Unreadable {
    uid: String,
    message: String,
}

/// Reads a review.
///
/// # Errors
/// When it is none, or its ApiKey cannot be read.
pub(super) fn read(body: &[u8]) -> Result<Question, Unreadable> {
    let unreadable = |message: String| Unreadable { uid: uid(body), message };
    let review: AdmissionReview<DynamicObject> = serde_json::from_slice(body).map_err(|error| {
        unreadable(format!("the body is no AdmissionReview of admission.k8s.io/v1: {error}"))
    })?;
    if review.types.api_version != "admission.k8s.io/v1" {
        return Err(unreadable(format!(
            "this webhook speaks admission.k8s.io/v1, not \"{}\"; correct admissionReviewVersions",
            review.types.api_version
        )));
    }
    let request: AdmissionRequest<DynamicObject> =
        review.try_into().map_err(|_| unreadable("the AdmissionReview has no request".to_owned()))?;
    let ours = request.kind.group == GROUP
        && request.kind.kind == "ApiKey"
        && request.operation == Operation::Create
        && request.sub_resource.as_deref().unwrap_or_default().is_empty();
    let asked = match (&request.object, ours) {
        (_, false) => Asked::Other,
        (None, true) => return Err(unreadable("the request to create an ApiKey has no object".to_owned())),
        (Some(object), true) => Asked::Create {
            key: Box::new(key(object, &request).map_err(unreadable)?),
            dry_run: request.dry_run,
        },
    };
    Ok(Question { request, asked })
}

/// The request's uid, which the API server expects back, as far as anything can be read.
fn uid(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    value.pointer("/request/uid").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn key(object: &DynamicObject, request: &AdmissionRequest<DynamicObject>) -> Result<ApiKey, String> {
    let value = serde_json::to_value(object).map_err(|error| error.to_string())?;
    let mut key: ApiKey = serde_json::from_value(value)
        .map_err(|error| format!("the ApiKey cannot be read as {GROUP}/v1alpha1: {error}"))?;
    key.metadata.namespace = key.metadata.namespace.or_else(|| request.namespace.clone());
    if key.metadata.name.is_none() && !request.name.is_empty() {
        key.metadata.name = Some(request.name.clone());
    }
    match impossible(&key) {
        Some(what) => Err(format!("the ApiKey has no {what}; only an API server may ask")),
        None => Ok(key),
    }
}

/// What no ApiKey that an API server asks about can be like: it has judged the object by the schema before. Anybody else
/// who asks must not bring names into the ledger that nobody can look for.
fn impossible(key: &ApiKey) -> Option<&'static str> {
    let uid = key.uid().unwrap_or_default();
    let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if uid.is_empty() || uid.len() > LONGEST_UID || !uid.bytes().all(named) {
        return Some("usable uid");
    }
    if !is_subdomain(&key.name_any(), LONGEST_NAME) {
        return Some("usable name");
    }
    if !is_label(&key.namespace().unwrap_or_default()) {
        return Some("usable namespace");
    }
    if !is_subdomain(&key.spec.account_ref.name, LONGEST_NAME) {
        return Some("usable account");
    }
    if !is_subdomain(&key.application(), LONGEST_NAME) || !is_label(&key.spec.environment) {
        return Some("usable application and environment");
    }
    None
}

impl Question {
    /// Admits, with warnings.
    pub(super) fn admit(&self, warnings: Vec<String>) -> AdmissionReview<DynamicObject> {
        let mut response = AdmissionResponse::from(&self.request);
        response.warnings = (!warnings.is_empty()).then_some(warnings);
        response.into_review()
    }

    /// Refuses; one that goes by itself as `429` with a pause, which the API server passes on.
    pub(super) fn deny(&self, denial: &Denial) -> AdmissionReview<DynamicObject> {
        let mut response = AdmissionResponse::from(&self.request);
        response.allowed = false;
        response.result = match denial.passing {
            true => Status {
                details: Some(StatusDetails {
                    name: String::new(),
                    group: String::new(),
                    kind: String::new(),
                    uid: String::new(),
                    causes: Vec::new(),
                    retry_after_seconds: RETRY_AFTER,
                }),
                ..failure(429, "TooManyRequests", &denial.message)
            },
            false => failure(403, "Forbidden", &denial.message),
        };
        response.audit_annotations.insert("reason".to_owned(), denial.reason.to_owned());
        response.into_review()
    }
}

impl Unreadable {
    /// Refuses, with what is wrong with the request.
    pub(super) fn deny(self) -> AdmissionReview<DynamicObject> {
        let mut response = AdmissionResponse::invalid("");
        response.uid = self.uid;
        response.result = failure(400, "BadRequest", &self.message);
        response.into_review()
    }
}

fn failure(code: u16, reason: &str, message: &str) -> Status {
    Status { code, ..Status::failure(message, reason) }
}

#[cfg(test)]
mod tests;
