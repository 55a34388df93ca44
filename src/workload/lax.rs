//! Reads JSON that may not be what it should be, and says so instead of failing.
//!
//! A list of pods is parsed as a whole: if one odd field of one pod were an error, that pod would hold up every rotation of
//! its namespace, and nobody would know which pod it is. If the field were taken for a missing one, a pod that holds the old
//! value could pass for one that does not. So a field is one of three: missing, unreadable, known. It is read in one pass,
//! without an intermediate copy.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

/// A scalar or an object. Where `T` is a record, each of its fields must be lax itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lax<T> {
    /// There is none, or `null`.
    #[default]
    Missing,
    /// There is something else.
    Unreadable,
    /// It is there.
    Known(T),
}

impl<T> Lax<T> {
    /// The value, where there is one that can be read.
    pub(crate) fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Missing | Self::Unreadable => None,
        }
    }

    pub(crate) fn as_ref(&self) -> Lax<&T> {
        match self {
            Self::Known(value) => Lax::Known(value),
            Self::Missing => Lax::Missing,
            Self::Unreadable => Lax::Unreadable,
        }
    }

    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable)
    }

    /// A field of a record. If the record cannot be read, neither can the field.
    pub(crate) fn and_then<U>(self, field: impl FnOnce(T) -> Lax<U>) -> Lax<U> {
        match self {
            Self::Known(value) => field(value),
            Self::Missing => Lax::Missing,
            Self::Unreadable => Lax::Unreadable,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lax<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LaxVisitor(PhantomData))
    }
}

/// A list. One that cannot be read is a list of one item that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Items<T>(pub(crate) Vec<Lax<T>>);

impl<T> Default for Items<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemsVisitor(PhantomData))
    }
}

struct LaxVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> LaxVisitor<T> {
    fn scalar<E: Error>(value: impl IntoDeserializer<'de, E>) -> Result<Lax<T>, E> {
        Ok(T::deserialize(value.into_deserializer()).map_or(Lax::Unreadable, Lax::Known))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for LaxVisitor<T> {
    type Value = Lax<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("anything")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Lax::Missing)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Self::scalar(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Self::scalar(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Self::scalar(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Self::scalar(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Self::scalar(value)
    }

    // Never handed to `T`: serde reads a struct from an array too, field by field in their order.
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Lax::Unreadable)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let read = T::deserialize(MapAccessDeserializer::new(&mut map));
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(read.map_or(Lax::Unreadable, Lax::Known))
    }
}

struct ItemsVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> ItemsVisitor<T> {
    fn unreadable<E>() -> Result<Items<T>, E> {
        Ok(Items(vec![Lax::Unreadable]))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ItemsVisitor<T> {
    type Value = Items<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("anything")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Items::default())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Self::unreadable()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Self::unreadable()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Self::unreadable()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Self::unreadable()
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Self::unreadable()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Items(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Self::unreadable()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq, Eq)]
    #[serde(default)]
    struct Record {
        text: Lax<String>,
        time: Lax<Timestamp>,
        flag: Lax<bool>,
        inner: Lax<Box<Record>>,
        items: Items<Record>,
    }

    fn read(text: &str) -> Record {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_missing_is_told_from_what_cannot_be_read() {
        assert_eq!(read("{}"), Record::default());
        assert_eq!(read(r#"{"text": null, "items": null, "other": [1, {"a": []}]}"#), Record::default());
        assert_eq!(read(r#"{"text": "a"}"#).text, Lax::Known("a".to_owned()));
        assert_eq!(read(r#"{"flag": true}"#).flag, Lax::Known(true));
        for wrong in ["1", "-1", "1.5", "true", r#"["a"]"#, r#"{"text": "a"}"#] {
            let record = read(&format!(r#"{{"text": {wrong}, "flag": true}}"#));
            assert_eq!((record.text, record.flag), (Lax::Unreadable, Lax::Known(true)), "{wrong}");
        }
        assert_eq!(read(r#"{"time": "soon"}"#).time, Lax::Unreadable);
        assert_eq!(read(r#"{"time": "1970-01-01T00:00:00Z"}"#).time, Lax::Known(Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn a_record_is_not_read_from_a_list_of_its_values() {
        assert_eq!(read(r#"{"inner": ["a"], "text": "b"}"#).inner, Lax::Unreadable);
        let inner = read(r#"{"inner": {"text": 5, "flag": true}}"#).inner.known().unwrap();
        assert_eq!((inner.text, inner.flag), (Lax::Unreadable, Lax::Known(true)));
    }

    #[test]
    fn an_item_that_cannot_be_read_leaves_the_others() {
        let items = read(r#"{"items": [{"text": "a"}, 5, null, [], {"text": "b"}]}"#).items.0;
        let texts: Vec<_> = items.into_iter().map(|item| item.and_then(|item| item.text)).collect();
        let known = |text: &str| Lax::Known(text.to_owned());
        assert_eq!(texts, [known("a"), Lax::Unreadable, Lax::Missing, Lax::Unreadable, known("b")]);
    }

    #[test]
    fn a_list_that_cannot_be_read_is_not_an_empty_one() {
        for wrong in ["5", "-5", "0.5", "false", r#""a""#, "{}", r#"{"text": "a"}"#] {
            let record = read(&format!(r#"{{"items": {wrong}, "text": "after"}}"#));
            assert_eq!(record.items, Items(vec![Lax::Unreadable]), "{wrong}");
            assert_eq!(record.text, Lax::Known("after".to_owned()));
        }
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for wrong in [r#"{"text": "#, r#"{"items": [1,"#, r#"{"inner": {"text": 1}"#, r#"{"text": [}"#] {
            assert!(serde_json::from_str::<Record>(wrong).is_err(), "{wrong}");
        }
    }
}
