//! The rules that hold for every object: names, labels, finalizers, and a Secret's own.
//! The rules of the custom kinds are not here: `tests/crds.rs` has them.

use serde_json::Value;

use super::{
    kinds::Kind,
    object::{finalizers, is_deleting, part, text},
    status::Causes,
};

/// A Secret's values together.
const SECRET_BYTES: usize = 1024 * 1024;
/// An object's annotations together.
const ANNOTATION_BYTES: usize = 256 * 1024;
/// Finalizers of built-in kinds that need no prefix.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// What is wrong with an object, new or changed.
pub(super) fn object(kind: &Kind, object: &Value) -> Causes {
    let mut causes = Causes::new();
    let mut wrong = |field: &str, message: &str| causes.push((field.to_owned(), message.to_owned()));
    let name = text(object, "name");
    if name.is_empty() {
        wrong("metadata.name", "Required value: name or generateName is required");
    } else if !if kind.is_namespaces() { is_label(name, false) } else { is_subdomain(name) } {
        wrong("metadata.name", "Invalid value: a lowercase RFC 1123 name is wanted");
    }
    if kind.namespaced && !is_label(text(object, "namespace"), false) {
        wrong("metadata.namespace", "Invalid value: a lowercase RFC 1123 label is wanted");
    }
    for (key, value) in entries(object, "labels") {
        if !is_qualified(key) {
            wrong("metadata.labels", &format!("Invalid value: \"{key}\": a qualified name is wanted"));
        }
        if !value.is_empty() && !is_label_value(value) {
            wrong("metadata.labels", &format!("Invalid value: \"{value}\": a valid label is wanted"));
        }
    }
    let mut bytes = 0;
    for (key, value) in entries(object, "annotations") {
        bytes += key.len() + value.len();
        if !is_qualified(&key.to_ascii_lowercase()) {
            wrong("metadata.annotations", &format!("Invalid value: \"{key}\": a qualified name is wanted"));
        }
    }
    if bytes > ANNOTATION_BYTES {
        wrong("metadata.annotations", "Too long: may not be more than 262144 bytes");
    }
    for finalizer in finalizers(object) {
        let prefixed = kind.custom || finalizer.contains('/') || STANDARD_FINALIZERS.contains(&finalizer);
        if !is_qualified(finalizer) || !prefixed {
            wrong(
                "metadata.finalizers",
                &format!("Invalid value: \"{finalizer}\": a qualified name is wanted"),
            );
        }
    }
    if kind.is_secrets() {
        secret(object, &mut wrong);
    }
    causes
}

/// What is wrong with a change.
pub(super) fn change(kind: &Kind, old: &Value, new: &Value) -> Causes {
    let mut causes = object(kind, new);
    let mut wrong = |field: &str, message: &str| causes.push((field.to_owned(), message.to_owned()));
    if is_deleting(old) && finalizers(new).any(|added| finalizers(old).all(|known| known != added)) {
        let message = "Forbidden: no new finalizers can be added if the object is being deleted";
        wrong("metadata.finalizers", message);
    }
    for field in ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if part(old, field) != part(new, field) {
            wrong(&format!("metadata.{field}"), "Invalid value: field is immutable");
        }
    }
    if kind.is_secrets() {
        if old.get("type") != new.get("type") {
            wrong("type", "Invalid value: field is immutable");
        }
        if old.get("immutable") == Some(&Value::Bool(true)) {
            if new.get("immutable") != Some(&Value::Bool(true)) {
                wrong("immutable", "Forbidden: field is immutable when `immutable` is set");
            }
            if old.get("data") != new.get("data") {
                wrong("data", "Forbidden: field is immutable when `immutable` is set");
            }
        }
    }
    causes
}

fn secret(object: &Value, wrong: &mut impl FnMut(&str, &str)) {
    let mut bytes = 0;
    for (key, value) in object.get("data").and_then(Value::as_object).into_iter().flatten() {
        // Of base64.
        bytes += value.as_str().map_or(0, |value| value.trim_end_matches('=').len() * 3 / 4);
        let good = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if !good || key.is_empty() || key.len() > 253 || key == "." || key.starts_with("..") {
            wrong(&format!("data[{key}]"), "Invalid value: a valid config key is wanted");
        }
    }
    if bytes > SECRET_BYTES {
        wrong("data", "Too long: may not be more than 1048576 bytes");
    }
}

fn entries<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let all = part(object, field).and_then(Value::as_object).into_iter().flatten();
    all.map(|(key, value)| (&**key, value.as_str().unwrap_or_default()))
}

/// RFC 1123: lower case, digits and dashes; letters and digits at the ends.
pub(super) fn is_label(name: &str, upper: bool) -> bool {
    let end =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || upper && byte.is_ascii_uppercase();
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.first().is_some_and(end)
        && bytes.last().is_some_and(end)
        && bytes.iter().all(|byte| end(byte) || *byte == b'-')
}

/// Labels with dots between.
pub(super) fn is_subdomain(name: &str) -> bool {
    let part = |part: &str| {
        let end = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = part.as_bytes();
        bytes.first().is_some_and(end)
            && bytes.last().is_some_and(end)
            && bytes.iter().all(|byte| end(byte) || *byte == b'-')
    };
    (1..=253).contains(&name.len()) && name.split('.').all(part)
}

/// A name, with or without a domain before it.
pub(super) fn is_qualified(name: &str) -> bool {
    match name.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_label_value(name),
        None => is_label_value(name),
    }
}

pub(super) fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte))
}
