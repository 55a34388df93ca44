//! PUT and PATCH, of an object and of its status.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    create::{in_namespace, label_namespace},
    fields::{self, Author},
    kinds::{Counted, Kind, Part},
    object::{self, Unreadable, fields_mut, finalizers, is_deleting, part, set, text},
    status::{self, StatusError},
    store::Store,
    validate,
};

/// Which object, and which part of it.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) kind: &'static Kind,
    /// Empty: cluster-scoped.
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) part: Part,
}

impl Target<'_> {
    fn key(&self) -> String {
        self.kind.key(self.namespace, self.name)
    }
}

/// PUT of an object as it was read.
///
/// # Errors
/// What the server says.
pub(super) fn replace(
    store: &mut Store,
    target: Target<'_>,
    mut new: Value,
    dry_run: bool,
    author: Author<'_>,
) -> Result<Arc<Value>, StatusError> {
    in_namespace(target.kind, target.namespace, &mut new)?;
    same_name(target, &new)?;
    let old = current(store, target)?;
    let (sent, uid) = (text(&new, "uid"), text(&old, "uid"));
    if !sent.is_empty() && sent != uid {
        let why = format!("Precondition failed: UID in precondition: {sent}, UID in object meta: {uid}");
        return Err(status::conflict(target.kind, target.name, &why));
    }
    write(store, target, &old, new, dry_run, author)
}

/// A merge patch.
///
/// # Errors
/// What the server says.
pub(super) fn patch(
    store: &mut Store,
    target: Target<'_>,
    patch: Value,
    dry_run: bool,
    author: Author<'_>,
) -> Result<Arc<Value>, StatusError> {
    let old = current(store, target)?;
    let mut new = Value::clone(&old);
    object::merge(&mut new, patch);
    object::read(target.kind, &mut new).map_err(|why| {
        let (Unreadable::Shape(why) | Unreadable::Kind(why)) = why;
        status::invalid(target.kind, target.name, vec![("patch".to_owned(), why)])
    })?;
    in_namespace(target.kind, target.namespace, &mut new)?;
    same_name(target, &new)?;
    write(store, target, &old, new, dry_run, author)
}

pub(super) fn current(store: &Store, target: Target<'_>) -> Result<Arc<Value>, StatusError> {
    let Target { kind, namespace, name, part: _ } = target;
    store.get(kind, namespace, name).cloned().ok_or_else(|| status::not_found(kind, name))
}

fn same_name(target: Target<'_>, new: &Value) -> Result<(), StatusError> {
    let sent = text(new, "name");
    if sent == target.name {
        return Ok(());
    }
    let message =
        format!("the name of the object ({sent}) does not match the name on the URL ({})", target.name);
    Err(status::bad_request(message))
}

fn write(
    store: &mut Store,
    target: Target<'_>,
    old: &Value,
    mut new: Value,
    dry_run: bool,
    author: Author<'_>,
) -> Result<Arc<Value>, StatusError> {
    let Target { kind, name, .. } = target;
    let there = text(old, "resourceVersion");
    match text(&new, "resourceVersion") {
        "" | "0" if kind.custom => {
            let cause = "Invalid value: 0x0: must be specified for an update";
            let causes = vec![("metadata.resourceVersion".to_owned(), cause.to_owned())];
            return Err(status::invalid(kind, name, causes));
        }
        "" | "0" => set(&mut new, "resourceVersion", Some(there.into())),
        sent if sent == there => {}
        sent if sent.parse::<u64>().is_err() => {
            return Err(status::raw(format!("invalid resource version \"{sent}\"")));
        }
        _ => {
            let why =
                "the object has been modified; please apply your changes to the latest version and try again";
            return Err(status::conflict(kind, name, why));
        }
    }
    let mut new = match target.part {
        Part::Main => whole(kind, old, new),
        Part::Status => status_only(kind, old, new),
    };
    fields::note(kind, Some(old), &mut new, author);
    let causes = validate::change(kind, old, &new);
    if !causes.is_empty() {
        return Err(status::invalid(kind, name, causes));
    }
    if is_deleting(old) && grace_left(old) == 0 && is_released(&new) {
        // The answer shows the object as it would be; what is stored, and told to watches, is the one before.
        if !dry_run {
            store.remove(kind, &target.key());
        }
        return Ok(Arc::new(new));
    }
    if dry_run || new == *old {
        return Ok(Arc::new(new));
    }
    Ok(store.put(kind, &target.key(), new))
}

/// The seconds that a pod has to end by itself; 0 for all else.
pub(super) fn grace_left(object: &Value) -> i64 {
    part(object, "deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or_default()
}

/// Whether nothing holds an object any more that is being deleted.
pub(super) fn is_released(object: &Value) -> bool {
    let held = object.pointer("/spec/finalizers").and_then(Value::as_array);
    let held = text_of_kind(object) == "Namespace" && held.is_some_and(|held| !held.is_empty());
    !held && finalizers(object).next().is_none()
}

fn text_of_kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

/// The next version of an object, of a write to the object itself.
fn whole(kind: &Kind, old: &Value, mut new: Value) -> Value {
    if kind.has_status {
        keep(&mut new, old, "status");
    }
    let moved = match kind.counted {
        Counted::Nothing => false,
        Counted::Spec => new.get("spec") != old.get("spec"),
        Counted::SpecAndAnnotations => {
            new.get("spec") != old.get("spec") || part(&new, "annotations") != part(old, "annotations")
        }
    };
    let generation = part(old, "generation").and_then(Value::as_i64);
    let generation = generation.map(|generation| (generation + i64::from(moved)).into());
    set(&mut new, "generation", generation);
    if kind.is_namespaces() {
        keep(&mut new, old, "spec");
        label_namespace(&mut new);
    }
    system(old, &mut new);
    new
}

/// The next version of an object, of a write to its status.
fn status_only(kind: &Kind, old: &Value, mut new: Value) -> Value {
    if !kind.custom {
        // Built-in kinds take metadata here too.
        keep(&mut new, old, "spec");
        set(&mut new, "generation", part(old, "generation").cloned());
        if kind.is_namespaces() {
            label_namespace(&mut new);
        }
        system(old, &mut new);
        return new;
    }
    let mut next: Map<String, Value> = Map::new();
    for (name, value) in old.as_object().into_iter().flatten() {
        if name != "status" {
            next.insert(name.clone(), value.clone());
        }
    }
    if let Some(status) = fields_mut(&mut new).remove("status") {
        next.insert("status".to_owned(), status);
    }
    Value::Object(next)
}

/// What no client sets.
fn system(old: &Value, new: &mut Value) {
    if text(new, "uid").is_empty() {
        set(new, "uid", part(old, "uid").cloned());
    }
    set(new, "creationTimestamp", part(old, "creationTimestamp").cloned());
    if is_deleting(old) {
        set(new, "deletionTimestamp", part(old, "deletionTimestamp").cloned());
    }
    if part(new, "deletionGracePeriodSeconds").is_none() {
        set(new, "deletionGracePeriodSeconds", part(old, "deletionGracePeriodSeconds").cloned());
    }
}

fn keep(new: &mut Value, old: &Value, field: &str) {
    // A patch begins with a copy of the old object: most often it is there.
    if new.get(field) == old.get(field) {
        return;
    }
    let fields = fields_mut(new);
    match old.get(field) {
        Some(value) => drop(fields.insert(field.to_owned(), value.clone())),
        None => drop(fields.remove(field)),
    }
}
