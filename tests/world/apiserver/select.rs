//! Label and field selectors.

use serde_json::Value;

use super::{
    kinds::Kind,
    object::{part, text},
    validate,
};

/// Which objects are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    labels: Vec<Labels>,
    fields: Vec<Fields>,
}

#[derive(Clone, Debug)]
struct Labels {
    key: String,
    wants: Wants,
}

#[derive(Clone, Debug)]
enum Wants {
    Exists,
    Missing,
    In(Vec<String>),
    NotIn(Vec<String>),
}

#[derive(Clone, Debug)]
struct Fields {
    place: Place,
    equal: bool,
    value: String,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Metadata(&'static str),
    Pointer(&'static str),
}

impl Selector {
    /// Reads both selectors as they stand in a query.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn read(kind: &Kind, labels: &str, fields: &str) -> Result<Self, String> {
        Ok(Self { labels: read_labels(labels)?, fields: read_fields(kind, fields)? })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        self.labels.iter().all(|wanted| wanted.matches(object))
            && self.fields.iter().all(|wanted| wanted.matches(object))
    }
}

impl Labels {
    fn matches(&self, object: &Value) -> bool {
        let value = part(object, "labels").and_then(|labels| labels.get(&self.key)).and_then(Value::as_str);
        match (&self.wants, value) {
            (Wants::Exists, found) => found.is_some(),
            (Wants::Missing, found) => found.is_none(),
            (Wants::In(values), found) => {
                found.is_some_and(|found| values.iter().any(|value| value == found))
            }
            (Wants::NotIn(values), found) => {
                found.is_none_or(|found| values.iter().all(|value| value != found))
            }
        }
    }
}

impl Fields {
    fn matches(&self, object: &Value) -> bool {
        let found = match self.place {
            Place::Metadata(field) => text(object, field),
            Place::Pointer(place) => object.pointer(place).and_then(Value::as_str).unwrap_or_default(),
        };
        (found == self.value) == self.equal
    }
}

fn read_labels(selector: &str) -> Result<Vec<Labels>, String> {
    split(selector).map(|part| read_label(part.trim())).collect()
}

/// At commas that are not in parentheses.
fn split(selector: &str) -> impl Iterator<Item = &str> {
    let mut open = false;
    let parts = selector.split(move |character| {
        open = match character {
            '(' => true,
            ')' => false,
            _ => open,
        };
        character == ',' && !open
    });
    parts.filter(|part| !part.trim().is_empty())
}

fn read_label(part: &str) -> Result<Labels, String> {
    let wrong = || format!("unable to parse requirement: \"{part}\"");
    let (key, wants) = if let Some(key) = part.strip_prefix('!') {
        (key, Wants::Missing)
    } else if let Some((key, value)) = part.split_once("!=") {
        (key, Wants::NotIn(vec![value.trim().to_owned()]))
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (key, Wants::In(vec![value.trim().to_owned()]))
    } else if let Some((head, values)) = part.split_once('(') {
        let values = values.strip_suffix(')').ok_or_else(wrong)?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        match head.trim().rsplit_once(' ').ok_or_else(wrong)? {
            (key, "in") => (key, Wants::In(values)),
            (key, "notin") => (key, Wants::NotIn(values)),
            _ => return Err(wrong()),
        }
    } else {
        (part, Wants::Exists)
    };
    let key = key.trim();
    let values: &[String] = match &wants {
        Wants::In(values) | Wants::NotIn(values) => values,
        Wants::Exists | Wants::Missing => &[],
    };
    let good = validate::is_qualified(key)
        && values.iter().all(|value| value.is_empty() || validate::is_label_value(value));
    if good { Ok(Labels { key: key.to_owned(), wants }) } else { Err(wrong()) }
}

fn read_fields(kind: &Kind, selector: &str) -> Result<Vec<Fields>, String> {
    let read = |part: &str| {
        let (field, equal, value) = if let Some((field, value)) = part.split_once("!=") {
            (field, false, value)
        } else if let Some((field, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (field, true, value)
        } else {
            return Err(format!("invalid selector: \"{part}\"; can't understand it"));
        };
        let place = match field {
            "metadata.name" => Place::Metadata("name"),
            "metadata.namespace" if kind.namespaced => Place::Metadata("namespace"),
            other => match kind.selectable.iter().find(|(field, _)| *field == other) {
                Some((_, place)) => Place::Pointer(place),
                None => return Err(format!("field label not supported: {other}")),
            },
        };
        Ok(Fields { place, equal, value: value.to_owned() })
    };
    selector.split(',').filter(|part| !part.is_empty()).map(read).collect()
}
