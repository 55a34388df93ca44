//! AdmissionReview v1, read and answered. Whatever is sent, the answer is a review: a request that cannot be read is
//! refused with its reason, as the API server shows people only that.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    ResourceExt,
    core::{
        DynamicObject, GroupVersionKind, Status,
        admission::{AdmissionResponse, AdmissionReview, Operation},
        response::StatusDetails,
    },
};
use serde::{Deserialize, de::IgnoredAny};

use super::verdict::Denial;
use crate::{
    api::{
        ApiKey, GROUP,
        apikey::{AccountRef, ApiKeySpec, SecretTemplate},
        name::{is_label, is_subdomain},
    },
    workload::lax::Lax,
};

/// A uid is a uuid of 36 characters.
const LONGEST_UID: usize = 64;
/// Names of ApiKeys, applications and accounts, as their schema bounds them.
const LONGEST_NAME: usize = 52;
/// How many characters an answer quotes of what cannot be read: a sender must not get a megabyte back, several times longer
/// by escaping.
const LONGEST_TOLD: usize = 256;
/// A retryable refusal asks for this pause, in seconds.
const RETRY_AFTER: u32 = 1;

/// A request, as far as it concerns admission. This is all that is kept of a review while it waits for its turn.
pub(super) struct Question {
    uid: String,
    /// What is asked.
    pub(super) asked: Asked,
}

/// What a request asks.
pub(super) enum Asked {
    /// Whether this ApiKey may be made.
    Create {
        /// It has a namespace, a uid, and those fields of the spec that are judged.
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

/// A review, with the object unread. Fields that are not named here are skipped while parsing: kept as JSON values, a
/// megabyte of them would take thirty.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    request: Option<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    kind: GroupVersionKind,
    sub_resource: Option<String>,
    #[serde(default)]
    name: String,
    namespace: Option<String>,
    operation: Operation,
    object: Option<IgnoredAny>,
    #[serde(default)]
    dry_run: bool,
}

/// One member of a review and of its request.
#[derive(Deserialize)]
struct Envelope<T> {
    request: T,
}

#[derive(Deserialize)]
struct OfUid {
    uid: String,
}

#[derive(Deserialize)]
struct OfObject {
    object: Object,
}

/// What is judged of a new ApiKey.
#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    creation_timestamp: Option<Time>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    account_ref: AccountRef,
    environment: String,
    application: Option<String>,
    suspend: Option<bool>,
    /// Read leniently: if the name of the Secret cannot be read, the ApiKey is judged as if that were its own name, the
    /// default.
    #[serde(default)]
    secret: Lax<OfSecret>,
}

#[derive(Deserialize)]
struct OfSecret {
    #[serde(default)]
    name: Lax<String>,
}

/// Reads a review.
///
/// # Errors
/// When it is none, or its ApiKey cannot be read.
pub(super) fn read(body: &[u8]) -> Result<Question, Unreadable> {
    let unreadable = |message: String| Unreadable { uid: uid(body), message };
    let review: Review = serde_json::from_slice(body).map_err(|error| {
        unreadable(format!("the body is no AdmissionReview of admission.k8s.io/v1: {}", told(&error)))
    })?;
    if review.api_version != "admission.k8s.io/v1" {
        return Err(unreadable(format!(
            "this webhook speaks admission.k8s.io/v1, not \"{}\"; correct admissionReviewVersions",
            short(&review.api_version)
        )));
    }
    let request =
        review.request.ok_or_else(|| unreadable("the AdmissionReview has no request".to_owned()))?;
    if request.uid.len() > LONGEST_UID {
        return Err(unreadable("the request has no usable uid; only an API server may ask".to_owned()));
    }
    let ours = request.kind.group == GROUP
        && request.kind.kind == "ApiKey"
        && request.operation == Operation::Create
        && request.sub_resource.as_deref().unwrap_or_default().is_empty();
    let asked = match (&request.object, ours) {
        (_, false) => Asked::Other,
        (None, true) => return Err(unreadable("the request to create an ApiKey has no object".to_owned())),
        (Some(IgnoredAny), true) => Asked::Create {
            key: Box::new(key(body, &request).map_err(unreadable)?),
            dry_run: request.dry_run,
        },
    };
    Ok(Question { uid: request.uid, asked })
}

/// The request's uid, which the API server expects back, as far as anything can be read.
fn uid(body: &[u8]) -> String {
    let uid = serde_json::from_slice(body).map(|Envelope { request: OfUid { uid } }| uid);
    uid.ok().filter(|uid| uid.len() <= LONGEST_UID).unwrap_or_default()
}

/// What is wrong with a text, and where; shortened, as a parse error quotes what it could not use.
fn told(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match short(&text) {
        whole if whole.len() == text.len() => text,
        part => format!("{part}... at line {} column {}", error.line(), error.column()),
    }
}

/// The beginning of a text that may be of any length.
fn short(text: &str) -> &str {
    let end = text.char_indices().nth(LONGEST_TOLD).map_or(text.len(), |(end, _)| end);
    &text[..end]
}

/// The ApiKey that is to be made. The body is parsed once more for it, so that objects of other kinds need not be readable.
fn key(body: &[u8], request: &Request) -> Result<ApiKey, String> {
    let Envelope { request: OfObject { object: Object { metadata, spec } } } =
        serde_json::from_slice(body)
            .map_err(|error| format!("the ApiKey cannot be read as {GROUP}/v1alpha1: {}", told(&error)))?;
    let mut key = ApiKey::new("", spec.into());
    let named = (!request.name.is_empty()).then(|| request.name.clone());
    key.metadata.name = metadata.name.or(named);
    key.metadata.namespace = metadata.namespace.or_else(|| request.namespace.clone());
    key.metadata.uid = metadata.uid;
    key.metadata.creation_timestamp = metadata.creation_timestamp;
    match impossible(&key) {
        Some(what) => Err(format!("the ApiKey has no {what}; only an API server may ask")),
        None => Ok(key),
    }
}

impl From<Spec> for ApiKeySpec {
    /// Fields left out are not judged here: the API server has validated them against the schema.
    fn from(Spec { account_ref, environment, application, suspend, secret }: Spec) -> Self {
        Self {
            account_ref,
            environment,
            application,
            suspend,
            key_name: None,
            purpose: None,
            secret: secret
                .and_then(|secret| secret.name)
                .known()
                .map(|name| SecretTemplate { name: Some(name), ..SecretTemplate::default() }),
            rotation: None,
            rollout: None,
            deletion_policy: None,
        }
    }
}

/// What is wrong with an ApiKey that no API server can have sent, as that validates the object against the schema first.
/// Any other sender must not bring names into the ledger that nobody can look for.
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
        let mut response = response(&self.uid);
        response.allowed = true;
        response.warnings = (!warnings.is_empty()).then_some(warnings);
        response.into_review()
    }

    /// Refuses; a passing denial as `429` with a pause to wait, which the API server passes on.
    pub(super) fn deny(&self, denial: &Denial) -> AdmissionReview<DynamicObject> {
        let mut response = response(&self.uid);
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
        let mut response = response(&self.uid);
        response.result = failure(400, "BadRequest", &self.message);
        response.into_review()
    }
}

/// A response to this request that says nothing yet, and does not admit.
fn response(uid: &str) -> AdmissionResponse {
    let mut response = AdmissionResponse::invalid("");
    response.uid = uid.to_owned();
    response.result = Status::default();
    response
}

fn failure(code: u16, reason: &str, message: &str) -> Status {
    Status { code, ..Status::failure(message, reason) }
}

#[cfg(test)]
mod tests;
