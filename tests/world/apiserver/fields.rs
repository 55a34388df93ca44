//! Field ownership: who set which field last, and when (`metadata.managedFields`). Of Secrets only.
//!
//! A write takes every field that it adds or changes from whoever had it; only then does the writer's time move. A field
//! that it takes away belongs to nobody, and moves nobody's time. Whoever has no field left has no entry.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    kinds::Kind,
    object::{finalizers, part, set},
};

/// Who writes, and when.
#[derive(Clone, Copy)]
pub(super) struct Author<'a> {
    pub(super) manager: &'a str,
    pub(super) now: &'a str,
}

/// The place of a field, as in `fieldsV1`: `["f:data", "f:value"]`.
type Place = Vec<String>;

/// What one manager has.
struct Entry {
    manager: String,
    time: String,
    places: BTreeSet<Place>,
}

/// Writes into an object who has its fields, from what was there before.
pub(super) fn note(kind: &Kind, old: Option<&Value>, new: &mut Value, author: Author<'_>) {
    if !kind.is_secrets() {
        return;
    }
    let before = old.map(fields).unwrap_or_default();
    let after = fields(new);
    let taken = |place: &Place| before.get(place) != after.get(place);
    let mut entries = old.map(read).unwrap_or_default();
    for entry in &mut entries {
        entry.places.retain(|place| after.contains_key(place) && !taken(place));
    }
    let places: BTreeSet<Place> = after.keys().filter(|place| taken(place)).cloned().collect();
    if !places.is_empty() {
        let kept = entries.iter().position(|entry| entry.manager == author.manager);
        let kept = kept.map(|index| entries.remove(index).places).unwrap_or_default();
        let (manager, time) = (author.manager.to_owned(), author.now.to_owned());
        entries.push(Entry { manager, time, places: &kept | &places });
    }
    entries.retain(|entry| !entry.places.is_empty());
    entries.sort_by(|one, two| (&one.time, &one.manager).cmp(&(&two.time, &two.manager)));
    let written: Vec<Value> = entries.iter().map(write).collect();
    set(new, "managedFields", (!written.is_empty()).then(|| written.into()));
}

/// Every field that can belong to somebody, with its value. Of a map or a list that is there, the place itself is one.
fn fields(object: &Value) -> BTreeMap<Place, Value> {
    let mut found = BTreeMap::new();
    let mut add = |place: &[&str], value: &Value| {
        found.insert(place.iter().map(|part| (*part).to_owned()).collect(), value.clone());
    };
    for (field, map) in [
        ("data", object.get("data")),
        ("labels", part(object, "labels")),
        ("annotations", part(object, "annotations")),
    ] {
        let Some(map) = map.and_then(Value::as_object) else { continue };
        let name = format!("f:{field}");
        let above: &[&str] = if field == "data" { &[&name] } else { &["f:metadata", &name] };
        add(above, &Value::Null);
        for (key, value) in map {
            add(&[above, &[&format!("f:{key}")]].concat(), value);
        }
    }
    for field in ["type", "immutable"] {
        if let Some(value) = object.get(field) {
            add(&[&format!("f:{field}")], value);
        }
    }
    if part(object, "finalizers").is_some() {
        add(&["f:metadata", "f:finalizers"], &Value::Null);
    }
    for name in finalizers(object) {
        add(&["f:metadata", "f:finalizers", &format!("v:{}", json!(name))], &Value::Null);
    }
    let owners = part(object, "ownerReferences").and_then(Value::as_array);
    if owners.is_some() {
        add(&["f:metadata", "f:ownerReferences"], &Value::Null);
    }
    for owner in owners.into_iter().flatten() {
        let key = format!("k:{}", json!({"uid": owner["uid"]}));
        add(&["f:metadata", "f:ownerReferences", &key], owner);
    }
    found
}

/// What an object says.
fn read(object: &Value) -> Vec<Entry> {
    let entries = part(object, "managedFields").and_then(Value::as_array).into_iter().flatten();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    entries
        .map(|entry| {
            let mut places = BTreeSet::new();
            unfold(&entry["fieldsV1"], &Place::new(), &mut places);
            Entry { manager: text(entry, "manager"), time: text(entry, "time"), places }
        })
        .collect()
}

/// The places of a `fieldsV1`: a dot stands for the place itself, and so does what has nothing below it.
fn unfold(value: &Value, above: &Place, places: &mut BTreeSet<Place>) {
    for (name, below) in value.as_object().into_iter().flatten() {
        if name == "." {
            places.insert(above.clone());
            continue;
        }
        let mut place = above.clone();
        place.push(name.clone());
        if below.as_object().is_none_or(Map::is_empty) {
            places.insert(place);
        } else {
            unfold(below, &place, places);
        }
    }
}

fn write(entry: &Entry) -> Value {
    let mut fields = json!({});
    for place in &entry.places {
        let mut at = &mut fields;
        for name in place {
            at = &mut at[name];
        }
        let others = entry.places.iter().any(|other| other.len() > place.len() && other.starts_with(place));
        *at = if others { json!({".": {}}) } else { json!({}) };
    }
    json!({
        "manager": entry.manager, "operation": "Update", "apiVersion": "v1", "time": entry.time,
        "fieldsType": "FieldsV1", "fieldsV1": fields,
    })
}
