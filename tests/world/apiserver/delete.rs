//! Deletion, of objects and of namespaces, and the part of the namespace controller.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    kinds::{KINDS, Kind, NAMESPACES, Part},
    object::{self, finalizers, is_deleting, part, set, text},
    status::{self, StatusError},
    store::Store,
    update::{Target, current, grace_left, is_released},
};

/// Namespaces that cannot be deleted.
pub(super) const IMMORTAL: [&str; 3] = ["default", "kube-public", "kube-system"];
/// Finalizers by which a deletion is told to wait for dependents, or to leave them.
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// What became of an object that was deleted.
#[derive(Clone, Debug)]
pub(crate) enum Deletion {
    /// It is gone; as it was last.
    Gone(Arc<Value>),
    /// It is there, and waits for its finalizers.
    Pending(Arc<Value>),
}

/// What a deletion is asked with.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub(super) uid: Option<String>,
    pub(super) resource_version: Option<String>,
    pub(super) propagation: Option<String>,
    /// Seconds that a pod is given to end; none: those that its spec says.
    pub(super) grace: Option<i64>,
    pub(super) dry_run: bool,
}

impl Options {
    /// Of the body of a request.
    pub(super) fn read(body: &Value) -> Self {
        let text = |place: &str| body.pointer(place).and_then(Value::as_str).map(str::to_owned);
        Self {
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            propagation: text("/propagationPolicy"),
            grace: body.get("gracePeriodSeconds").and_then(Value::as_i64),
            dry_run: body.pointer("/dryRun/0").is_some(),
        }
    }
}

/// # Errors
/// What the server says.
pub(super) fn delete(
    store: &mut Store,
    target: Target<'_>,
    options: &Options,
    now: &str,
) -> Result<Deletion, StatusError> {
    let Target { kind, name, .. } = target;
    let old = current(store, target)?;
    preconditions(kind, name, &old, options)?;
    if kind.is_namespaces() {
        if IMMORTAL.contains(&name) {
            return Err(status::forbidden(kind, name, "this namespace may not be deleted"));
        }
        if let Some(pending) = terminate(store, target, &old, options, now) {
            return Ok(Deletion::Pending(pending));
        }
    }
    let grace = if kind.is_pods() { grace(&old, options) } else { 0 };
    if grace > 0 {
        return Ok(Deletion::Pending(put(store, target, &old, ending(&old, grace, now), options)));
    }
    let left = left_finalizers(&old, options.propagation.as_deref());
    if left.is_empty() {
        if options.dry_run {
            return Ok(Deletion::Gone(old));
        }
        let gone = store.remove(kind, &kind.key(target.namespace, name));
        return Ok(Deletion::Gone(gone.unwrap_or(old)));
    }
    let mut new = Value::clone(&old);
    set(&mut new, "finalizers", Some(left.into()));
    if !is_deleting(&old) {
        set(&mut new, "deletionTimestamp", Some(now.into()));
        if let Some(generation) = part(&old, "generation").and_then(Value::as_i64) {
            set(&mut new, "generation", Some((generation + 1).into()));
        }
    }
    set(&mut new, "deletionGracePeriodSeconds", Some(0.into()));
    Ok(Deletion::Pending(put(store, target, &old, new, options)))
}

/// The seconds that a pod is given to end, from the first deletion on: whoever deletes it again can only shorten them. One
/// that is on no node, or has ended, goes at once.
fn grace(old: &Value, options: &Options) -> i64 {
    let text = |place: &str| old.pointer(place).and_then(Value::as_str).unwrap_or_default();
    if text("/spec/nodeName").is_empty() || matches!(text("/status/phase"), "Succeeded" | "Failed") {
        return 0;
    }
    if is_deleting(old) {
        return options.grace.unwrap_or(i64::MAX).min(grace_left(old));
    }
    let usual = old.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    options.grace.or(usual).unwrap_or(30)
}

/// A pod that ends so many seconds after it was deleted first.
fn ending(old: &Value, grace: i64, now: &str) -> Value {
    let deleted = match text(old, "deletionTimestamp") {
        "" => seconds(now),
        end => seconds(end) - grace_left(old),
    };
    let mut new = Value::clone(old);
    let end = jiff::Timestamp::from_second(deleted + grace).unwrap_or_default();
    set(&mut new, "deletionTimestamp", Some(end.to_string().into()));
    set(&mut new, "deletionGracePeriodSeconds", Some(grace.into()));
    new
}

fn seconds(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_second).unwrap_or_default()
}

fn put(store: &mut Store, target: Target<'_>, old: &Arc<Value>, new: Value, options: &Options) -> Arc<Value> {
    if new == **old {
        old.clone()
    } else if options.dry_run {
        Arc::new(new)
    } else {
        store.put(target.kind, &target.kind.key(target.namespace, target.name), new)
    }
}

fn preconditions(kind: &Kind, name: &str, old: &Value, options: &Options) -> Result<(), StatusError> {
    let wanted =
        [("UID", "uid", &options.uid), ("ResourceVersion", "resourceVersion", &options.resource_version)];
    for (word, field, wanted) in wanted {
        let there = text(old, field);
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != there) {
            let why = format!(
                "the {word} in the precondition ({wanted}) does not match the {word} in record ({there})"
            );
            return Err(status::conflict(kind, name, &why));
        }
    }
    Ok(())
}

/// The finalizers that a deletion leaves, with those that it adds.
fn left_finalizers(old: &Value, propagation: Option<&str>) -> Vec<String> {
    let known: Vec<&str> = finalizers(old).collect();
    let (foreground, orphan) = match propagation {
        Some("Foreground") => (true, false),
        Some("Orphan") => (false, true),
        Some(_) => (false, false),
        None => (known.contains(&FOREGROUND), known.contains(&ORPHAN)),
    };
    let mut left: Vec<String> = known
        .iter()
        .filter(|name| ![FOREGROUND, ORPHAN].contains(name))
        .map(|name| (*name).to_owned())
        .collect();
    if orphan {
        left.push(ORPHAN.to_owned());
    }
    if foreground {
        left.push(FOREGROUND.to_owned());
    }
    left
}

/// Marks a namespace as terminating; none: nothing holds it any more.
fn terminate(
    store: &mut Store,
    target: Target<'_>,
    old: &Arc<Value>,
    options: &Options,
    now: &str,
) -> Option<Arc<Value>> {
    if is_deleting(old) {
        let held =
            old.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|held| !held.is_empty());
        return held.then(|| old.clone());
    }
    let mut new = Value::clone(old);
    set(&mut new, "deletionTimestamp", Some(now.into()));
    object::merge(&mut new, json!({"status": {"phase": "Terminating"}}));
    Some(put(store, target, old, new, options))
}

/// Plays the namespace controller for a terminating namespace: deletes what is in it, and then the namespace itself,
/// if nothing is held by a finalizer. Says whether it is gone.
pub(super) fn finish_namespace(store: &mut Store, name: &str, now: &str) -> bool {
    let Some(namespace) = store.namespace(name).cloned() else { return true };
    if !is_deleting(&namespace) {
        return false;
    }
    let mut left = false;
    for kind in KINDS.iter().filter(|kind| kind.namespaced) {
        let inside: Vec<Arc<Value>> = store.all(kind, Some(name)).map(|(_, object)| object.clone()).collect();
        for object in inside {
            let target = Target { kind, namespace: name, name: text(&object, "name"), part: Part::Main };
            left |= !matches!(delete(store, target, &Options::default(), now), Ok(Deletion::Gone(_)));
        }
    }
    if left {
        return false;
    }
    let mut finished = Value::clone(&namespace);
    object::merge(&mut finished, json!({"spec": {"finalizers": null}}));
    if is_released(&finished) {
        store.remove(NAMESPACES, name);
        return true;
    }
    if finished != *namespace {
        store.put(NAMESPACES, name, finished);
    }
    false
}
