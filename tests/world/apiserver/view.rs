//! What of an object goes over the wire: all of it, or its metadata only.

use http::{HeaderMap, header};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::kinds::Kind;

/// What a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Whole,
    Metadata,
}

impl View {
    /// None: nothing that is served here.
    pub(super) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let Some(accept) = headers.get(header::ACCEPT) else { return Some(Self::Whole) };
        accept.to_str().ok()?.split(',').find_map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let known = matches!(parts.next()?, "application/json" | "application/*" | "*/*");
            let wanted = parts.find_map(|part| part.strip_prefix("as="));
            match wanted {
                _ if !known => None,
                None => Some(Self::Whole),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Some(Self::Metadata),
                Some(_) => None,
            }
        })
    }

    pub(super) fn of(self, object: &Value) -> Shown<'_> {
        match self {
            Self::Whole => Shown::Whole(object),
            Self::Metadata => Shown::Metadata(object.get("metadata")),
        }
    }

    /// As an item of a list: those of built-in kinds do not say what they are.
    pub(super) fn item_of<'a>(self, kind: &Kind, object: &'a Value) -> Shown<'a> {
        match (self, object) {
            (Self::Whole, Value::Object(fields)) if !kind.custom => Shown::Untyped(fields),
            _ => self.of(object),
        }
    }

    /// The types of a list.
    pub(super) fn list_types(self, kind: &Kind) -> (&'static str, &'static str) {
        match self {
            Self::Whole => (kind.list_kind, kind.api_version),
            Self::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1"),
        }
    }

    /// The types of an object.
    pub(super) fn types(self, kind: &Kind) -> (&'static str, &'static str) {
        match self {
            Self::Whole => (kind.kind, kind.api_version),
            Self::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1"),
        }
    }
}

/// An object, written without a copy of it.
pub(super) enum Shown<'a> {
    Whole(&'a Value),
    Untyped(&'a serde_json::Map<String, Value>),
    Metadata(Option<&'a Value>),
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Whole(object) => object.serialize(serializer),
            Self::Untyped(fields) => serializer
                .collect_map(fields.iter().filter(|(name, _)| !matches!(&***name, "apiVersion" | "kind"))),
            Self::Metadata(metadata) => {
                let mut map = serializer.serialize_map(Some(3))?;
                map.serialize_entry("kind", "PartialObjectMetadata")?;
                map.serialize_entry("apiVersion", "meta.k8s.io/v1")?;
                map.serialize_entry("metadata", metadata)?;
                map.end()
            }
        }
    }
}
