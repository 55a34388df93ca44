//! The shape of objects: what is dropped and defaulted when one is read from a request, and where its parts are.
//!
//! After [`read`] an object is a map with `apiVersion`, `kind` and a `metadata` map whose fields have the right types.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, map::Entry};

use super::kinds::Kind;

/// A text of the metadata; empty: not there.
pub(super) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    part(object, field).and_then(Value::as_str).unwrap_or_default()
}

/// A field of the metadata.
pub(super) fn part<'a>(object: &'a Value, field: &str) -> Option<&'a Value> {
    object.get("metadata")?.get(field)
}

pub(super) fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    part(object, "finalizers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

pub(super) fn is_deleting(object: &Value) -> bool {
    part(object, "deletionTimestamp").is_some()
}

/// The object as a map; what is none becomes one.
pub(super) fn fields_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    match object {
        Value::Object(fields) => fields,
        _ => unreachable!("it was made a map above"),
    }
}

pub(super) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    fields_mut(fields_mut(object).entry("metadata").or_insert(Value::Null))
}

/// Sets a field of the metadata, or takes it away.
pub(super) fn set(object: &mut Value, field: &str, value: Option<Value>) {
    let metadata = metadata_mut(object);
    match value {
        Some(value) => drop(metadata.insert(field.to_owned(), value)),
        None => drop(metadata.remove(field)),
    }
}

/// Why an object cannot be taken.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It has not the shape that it should have.
    Shape(String),
    /// It is another custom kind: what is wrong then counts as an invalid field.
    Kind(String),
}

impl From<String> for Unreadable {
    fn from(why: String) -> Self {
        Self::Shape(why)
    }
}

/// Takes an object as the server does when it decodes one: nulls and what nobody knows are dropped, defaults are
/// filled in.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn read(kind: &Kind, object: &mut Value) -> Result<(), Unreadable> {
    let Value::Object(fields) = object else { return Err("it is not an object".to_owned().into()) };
    for (field, expected) in [("apiVersion", kind.api_version), ("kind", kind.kind)] {
        match fields.get(field) {
            Some(Value::String(found)) if found == expected => {}
            // Types may be left out of what built-in kinds are sent as.
            None if !kind.custom => drop(fields.insert(field.to_owned(), expected.into())),
            None => return Err(format!("its {field} is missing").into()),
            Some(Value::String(found)) if found.is_empty() && !kind.custom => {
                fields.insert(field.to_owned(), expected.into());
            }
            Some(Value::String(found)) if kind.custom && field == "kind" && !found.is_empty() => {
                return Err(Unreadable::Kind(format!("Invalid value: \"{found}\": must be {expected}")));
            }
            Some(found) => return Err(format!("its {field} is {found}, and not \"{expected}\"").into()),
        }
    }
    fields.retain(|name, value| {
        let known = matches!(&**name, "apiVersion" | "kind" | "metadata") || kind.fields.contains(&&**name);
        known && !value.is_null()
    });
    match fields.entry("metadata") {
        Entry::Vacant(entry) => drop(entry.insert(Value::Object(Map::new()))),
        Entry::Occupied(mut entry) => read_metadata(entry.get_mut())?,
    }
    if kind.is_secrets() {
        read_secret(fields)?;
    } else {
        for field in kind.fields {
            if let Some(value) = fields.get_mut(*field) {
                drop_nulls(value);
            }
        }
    }
    if kind.custom {
        for field in kind.fields {
            if fields.get(*field).is_some_and(|value| !value.is_object()) {
                return Err(format!("its {field} is not an object").into());
            }
        }
    }
    Ok(())
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // Most have none, and rebuilding a map is dear.
            if fields.values().any(Value::is_null) {
                fields.retain(|_, value| !value.is_null());
            }
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn read_metadata(metadata: &mut Value) -> Result<(), String> {
    let Value::Object(metadata) = metadata else { return Err("its metadata is not an object".to_owned()) };
    let mut wrong = None;
    metadata.retain(|name, value| {
        let right = match &**name {
            "name" | "generateName" | "namespace" | "uid" | "resourceVersion" | "creationTimestamp"
            | "deletionTimestamp" => value.is_string() || value.is_null(),
            "generation" | "deletionGracePeriodSeconds" => value.is_i64() || value.is_null(),
            "labels" | "annotations" => texts(value),
            "finalizers" => {
                value.is_null() || value.as_array().is_some_and(|all| all.iter().all(Value::is_string))
            }
            "ownerReferences" => value.is_null() || value.is_array(),
            // managedFields are the server's own: what a client sends of them is what it read.
            _ => return false,
        };
        if !right {
            wrong = Some(name.clone());
        }
        !is_empty(value)
    });
    wrong.map_or(Ok(()), |name| Err(format!("its metadata.{name} has the wrong type")))
}

/// A map of texts, in which a null is an empty text.
fn texts(value: &mut Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(entries) => entries.values_mut().all(|value| {
            if value.is_null() {
                *value = Value::String(String::new());
            }
            value.is_string()
        }),
        _ => false,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn read_secret(fields: &mut Map<String, Value>) -> Result<(), String> {
    if let Some(plain) = fields.remove("stringData") {
        let Value::Object(plain) = plain else { return Err("its stringData is not an object".to_owned()) };
        let data = fields_mut(fields.entry("data").or_insert(Value::Null));
        for (name, value) in plain {
            let value = match value {
                Value::String(value) => value,
                Value::Null => String::new(),
                _ => return Err(format!("its stringData.{name} is not a text")),
            };
            data.insert(name, BASE64_STANDARD.encode(value).into());
        }
    }
    if let Some(data) = fields.get_mut("data") {
        let Value::Object(data) = data else { return Err("its data is not an object".to_owned()) };
        for (name, value) in &mut *data {
            if value.is_null() {
                *value = Value::String(String::new());
            }
            if value.as_str().is_none_or(|value| BASE64_STANDARD.decode(value).is_err()) {
                return Err(format!("its data.{name} is not base64"));
            }
        }
        if data.is_empty() {
            fields.remove("data");
        }
    }
    match fields.get("type") {
        None => drop(fields.insert("type".to_owned(), "Opaque".into())),
        Some(Value::String(type_)) if type_.is_empty() => {
            drop(fields.insert("type".to_owned(), "Opaque".into()))
        }
        Some(Value::String(_)) => {}
        Some(_) => return Err("its type is not a text".to_owned()),
    }
    match fields.get("immutable") {
        None | Some(Value::Bool(_)) => Ok(()),
        Some(_) => Err("its immutable is not true or false".to_owned()),
    }
}

/// RFC 7396.
pub(super) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    let fields = fields_mut(target);
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(&name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}
