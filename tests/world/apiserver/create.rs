//! Creation: in two steps, between which admission is asked as a webhook would be.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    fields::{self, Author},
    kinds::{Counted, Kind, NAMESPACES},
    object::{self, fields_mut, metadata_mut, part, set, text},
    status::{self, StatusError},
    store::Store,
    validate,
};

/// What admission is asked about.
pub(crate) struct AdmissionRequest<'a> {
    /// The plural.
    pub(crate) resource: &'static str,
    /// Empty: cluster-scoped.
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) dry_run: bool,
    /// The object as it would be stored, without a version.
    pub(crate) object: &'a Value,
}

/// What admission says.
pub(crate) enum AdmissionVerdict {
    Allow,
    Deny {
        code: u16,
        message: String,
    },
    /// Stored instead; what the server sets stays as it was.
    Mutate(Value),
}

pub(super) type Hook = dyn Fn(&AdmissionRequest<'_>) -> AdmissionVerdict + Send + Sync;

/// What the server sets, and no admission changes.
const SYSTEM: [&str; 9] = [
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// Makes an object ready to be stored: `object` as it was read, in the namespace of the path.
///
/// # Errors
/// What the server says.
pub(super) fn prepare(
    store: &mut Store,
    kind: &Kind,
    namespace: &str,
    mut object: Value,
    now: &str,
) -> Result<Value, StatusError> {
    in_namespace(kind, namespace, &mut object)?;
    if kind.namespaced {
        let name = text(&object, "name");
        let Some(home) = store.namespace(namespace) else {
            return Err(status::not_found(NAMESPACES, namespace));
        };
        if home.pointer("/status/phase").and_then(Value::as_str) == Some("Terminating") {
            return Err(status::terminating(kind, name, namespace));
        }
    }
    let (given, prefix) = (text(&object, "name"), text(&object, "generateName"));
    if given.is_empty() && !prefix.is_empty() {
        let name =
            prefix.get(..prefix.floor_char_boundary(58)).unwrap_or_default().to_owned() + &store.suffix();
        set(&mut object, "name", Some(name.into()));
    }
    set(&mut object, "uid", Some(store.uid().into()));
    set(&mut object, "creationTimestamp", Some(now.into()));
    set(&mut object, "deletionTimestamp", None);
    set(&mut object, "deletionGracePeriodSeconds", None);
    if kind.has_status {
        fields_mut(&mut object).remove("status");
    }
    if kind.counted != Counted::Nothing {
        set(&mut object, "generation", Some(1.into()));
    }
    if kind.is_namespaces() {
        prepare_namespace(&mut object);
    }
    if kind.is_pods() {
        fields_mut(&mut object).insert("status".to_owned(), json!({"phase": "Pending"}));
    }
    checked(kind, object)
}

/// # Errors
/// When the object names another namespace.
pub(super) fn in_namespace(kind: &Kind, namespace: &str, object: &mut Value) -> Result<(), StatusError> {
    if !kind.namespaced {
        set(object, "namespace", None);
        return Ok(());
    }
    match text(object, "namespace") {
        "" => set(object, "namespace", Some(namespace.into())),
        found if found == namespace => {}
        _ => {
            let message =
                "the namespace of the provided object does not match the namespace sent on the request";
            return Err(status::bad_request(message));
        }
    }
    Ok(())
}

fn checked(kind: &Kind, object: Value) -> Result<Value, StatusError> {
    let causes = validate::object(kind, &object);
    if causes.is_empty() { Ok(object) } else { Err(status::invalid(kind, text(&object, "name"), causes)) }
}

fn prepare_namespace(object: &mut Value) {
    let fields = fields_mut(object);
    fields.insert("status".to_owned(), json!({"phase": "Active"}));
    fields.insert("spec".to_owned(), json!({"finalizers": ["kubernetes"]}));
    label_namespace(object);
}

/// The label that the server puts on every namespace, whatever is sent.
pub(super) fn label_namespace(object: &mut Value) {
    let name = text(object, "name").to_owned();
    let labels = fields_mut(metadata_mut(object).entry("labels").or_insert(Value::Null));
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
}

/// Asks admission.
///
/// # Errors
/// What it says against the object.
pub(super) fn admit(hook: &Hook, kind: &Kind, object: Value, dry_run: bool) -> Result<Value, StatusError> {
    let verdict = hook(&AdmissionRequest {
        resource: kind.resource,
        namespace: text(&object, "namespace"),
        name: text(&object, "name"),
        dry_run,
        object: &object,
    });
    match verdict {
        AdmissionVerdict::Allow => Ok(object),
        AdmissionVerdict::Deny { code, message } => Err(status::denied(code, &message)),
        AdmissionVerdict::Mutate(mut changed) => {
            object::read(kind, &mut changed).map_err(|why| status::unreadable(kind, why))?;
            for field in SYSTEM {
                set(&mut changed, field, part(&object, field).cloned());
            }
            checked(kind, changed)
        }
    }
}

/// Stores what was made ready.
///
/// # Errors
/// When an object of that name is there.
pub(super) fn store(
    store: &mut Store,
    kind: &'static Kind,
    mut object: Value,
    dry_run: bool,
    author: Author<'_>,
) -> Result<Arc<Value>, StatusError> {
    let (namespace, name) = (text(&object, "namespace"), text(&object, "name"));
    let key = kind.key(namespace, name);
    if !dry_run && !text(&object, "resourceVersion").is_empty() {
        return Err(status::raw("resourceVersion should not be set on objects to be created"));
    }
    if store.at(kind, &key).is_some() {
        return Err(status::already_exists(kind, name));
    }
    fields::note(kind, None, &mut object, author);
    if dry_run {
        set(&mut object, "resourceVersion", None);
        return Ok(Arc::new(object));
    }
    Ok(store.put(kind, &key, object))
}
