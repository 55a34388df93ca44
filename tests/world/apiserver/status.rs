//! What the server says when it says no: a `Status` with the code and the reason of the real one.

use kube::core::response::{Status, StatusCause, StatusDetails, StatusSummary};
use serde::Serialize;

use super::{kinds::Kind, object::Unreadable};

/// A refusal.
pub(crate) type StatusError = Box<Status>;

/// What is wrong with a field, for `Invalid`.
pub(super) type Causes = Vec<(String, String)>;

/// A `Status` as it goes over the wire: kube's type leaves out its own kind.
#[derive(Serialize)]
pub(super) struct Wire<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    #[serde(flatten)]
    status: &'a Status,
}

impl<'a> Wire<'a> {
    pub(super) fn new(status: &'a Status) -> Self {
        Self { kind: "Status", api_version: "v1", status }
    }
}

fn failure(code: u16, reason: &str, message: String) -> StatusError {
    Box::new(
        Status { status: Some(StatusSummary::Failure), ..Status::failure(&message, reason) }.with_code(code),
    )
}

/// What an object is called in a refusal's details.
fn details(group: &str, kind: &str, name: &str) -> StatusDetails {
    StatusDetails {
        name: name.to_owned(),
        group: group.to_owned(),
        kind: kind.to_owned(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    }
}

fn about(kind: &Kind, name: &str, code: u16, reason: &str, message: String) -> StatusError {
    let mut status = failure(code, reason, message);
    status.details = Some(details(kind.group, kind.resource, name));
    status
}

/// Of an object that cannot be taken.
pub(super) fn unreadable(kind: &Kind, why: Unreadable) -> StatusError {
    match why {
        Unreadable::Shape(why) => {
            bad_request(format!("{} in version \"{}\" cannot be handled: {why}", kind.kind, kind.api_version))
        }
        Unreadable::Kind(why) => invalid(kind, "", vec![("kind".to_owned(), why)]),
    }
}

pub(super) fn bad_request(message: impl Into<String>) -> StatusError {
    failure(400, "BadRequest", message.into())
}

pub(super) fn no_such_path() -> StatusError {
    failure(404, "NotFound", "the server could not find the requested resource".to_owned())
}

pub(super) fn method_not_allowed() -> StatusError {
    let message = "the server does not allow this method on the requested resource";
    failure(405, "MethodNotAllowed", message.to_owned())
}

pub(super) fn not_acceptable() -> StatusError {
    let message = "only application/json, as the object or as its metadata, is served here";
    failure(406, "NotAcceptable", message.to_owned())
}

pub(super) fn too_large() -> StatusError {
    failure(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728".to_owned())
}

pub(super) fn unsupported_media_type() -> StatusError {
    let message = "the body of the request was in an unknown format";
    failure(415, "UnsupportedMediaType", message.to_owned())
}

/// Of an error that the server passes on as it is: it gives no reason for these.
pub(super) fn raw(message: impl Into<String>) -> StatusError {
    failure(500, "", message.into())
}

/// Of a watch or a list that starts from a version that was compacted.
pub(super) fn expired(message: String) -> StatusError {
    failure(410, "Expired", message)
}

/// Of a list that must not be older than a version that does not exist yet.
pub(super) fn too_new(wanted: u64, newest: u64) -> StatusError {
    let message = format!("Too large resource version: {wanted}, current: {newest}");
    let mut status = failure(504, "Timeout", message);
    let mut details = details("", "", "");
    details.retry_after_seconds = 1;
    details.causes.push(StatusCause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: String::new(),
    });
    status.details = Some(details);
    status
}

pub(super) fn not_found(kind: &Kind, name: &str) -> StatusError {
    about(kind, name, 404, "NotFound", format!("{} \"{name}\" not found", kind.qualified()))
}

pub(super) fn already_exists(kind: &Kind, name: &str) -> StatusError {
    about(kind, name, 409, "AlreadyExists", format!("{} \"{name}\" already exists", kind.qualified()))
}

pub(super) fn conflict(kind: &Kind, name: &str, why: &str) -> StatusError {
    let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified());
    about(kind, name, 409, "Conflict", message)
}

pub(super) fn forbidden(kind: &Kind, name: &str, why: &str) -> StatusError {
    about(kind, name, 403, "Forbidden", format!("{} \"{name}\" is forbidden: {why}", kind.qualified()))
}

/// Of a creation in a namespace that is being deleted.
pub(super) fn terminating(kind: &Kind, name: &str, namespace: &str) -> StatusError {
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut status = forbidden(kind, name, &why);
    if let Some(details) = &mut status.details {
        details.causes.push(StatusCause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        });
    }
    status
}

pub(super) fn invalid(kind: &Kind, name: &str, causes: Causes) -> StatusError {
    let said: Vec<String> = causes.iter().map(|(field, message)| format!("{field}: {message}")).collect();
    let message = format!("{} \"{name}\" is invalid: {}", kind.kind, said.join(", "));
    let mut status = failure(422, "Invalid", message);
    let mut details = details(kind.group, kind.kind, name);
    details.causes = causes
        .into_iter()
        .map(|(field, message)| StatusCause { reason: "FieldValueInvalid".to_owned(), message, field })
        .collect();
    status.details = Some(details);
    status
}

/// Of a webhook that says no.
pub(super) fn denied(code: u16, message: &str) -> StatusError {
    let reason = match code {
        400 => "BadRequest",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        500.. => "InternalError",
        _ => "",
    };
    failure(code, reason, format!("admission webhook \"test.keys.bags.fm\" denied the request: {message}"))
}

/// Of a deletion that is done.
pub(super) fn deleted(kind: &Kind, name: &str, uid: &str) -> Status {
    let mut details = details(kind.group, kind.resource, name);
    uid.clone_into(&mut details.uid);
    Status::success().with_details(details)
}
