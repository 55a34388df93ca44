//! The objects, the one counter of versions, and the log of changes.
//!
//! Every change takes the next version, and there is one change for each version: the log is found by arithmetic.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{
    kinds::{COUNT, Kind, NAMESPACES},
    object::set,
};

/// The first version: well above 0, which means "any" in requests.
const FIRST_VERSION: u64 = 1000;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

impl ChangeKind {
    /// As in a watch.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// A change of one object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) kind: ChangeKind,
    /// The plural.
    pub(crate) resource: &'static str,
    /// The object as it is since; of a deleted one as it was last stored, with the version of the deletion.
    pub(crate) object: Arc<Value>,
    /// The object as it was; none: it was added.
    pub(crate) before: Option<Arc<Value>>,
    /// Its place in its table.
    pub(super) key: Arc<str>,
}

/// The versions that are asked for were compacted.
#[derive(Debug)]
pub(super) struct Compacted;

type Table = BTreeMap<Arc<str>, Arc<Value>>;

/// All that the server knows.
#[derive(Debug)]
pub(super) struct Store {
    version: u64,
    /// Changes after this version are in the log.
    compacted: u64,
    /// How many uids and generated names were given out.
    given: u64,
    tables: [Table; COUNT],
    log: Vec<Change>,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            version: FIRST_VERSION,
            compacted: FIRST_VERSION,
            given: 0,
            tables: std::array::from_fn(|_| Table::new()),
            log: Vec::new(),
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Versions below this one cannot be watched from.
    pub(super) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(super) fn compact(&mut self) {
        self.compacted = self.version;
        self.log.clear();
    }

    pub(super) fn changes_since(&self, version: u64) -> &[Change] {
        let skipped = usize::try_from(version.saturating_sub(self.compacted)).unwrap_or(usize::MAX);
        self.log.get(skipped..).unwrap_or_default()
    }

    pub(super) fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.at(kind, &kind.key(namespace, name))
    }

    pub(super) fn at(&self, kind: &Kind, key: &str) -> Option<&Arc<Value>> {
        self.tables[kind.index].get(key)
    }

    pub(super) fn namespace(&self, name: &str) -> Option<&Arc<Value>> {
        self.get(NAMESPACES, "", name)
    }

    /// All objects, of one namespace or of all, in key order.
    pub(super) fn all<'a>(
        &'a self,
        kind: &Kind,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Value>)> + use<'a> {
        let prefix: Arc<str> = namespace.map_or_else(String::new, |namespace| format!("{namespace}/")).into();
        self.tables[kind.index].range(prefix.clone()..).take_while(move |(key, _)| key.starts_with(&*prefix))
    }

    /// The objects that had another state at an earlier version, as they were then.
    ///
    /// # Errors
    /// When that version was compacted.
    pub(super) fn undone(
        &self,
        kind: &Kind,
        version: u64,
    ) -> Result<BTreeMap<Arc<str>, Option<Arc<Value>>>, Compacted> {
        if version < self.compacted {
            return Err(Compacted);
        }
        let mut undone = BTreeMap::new();
        for change in self.changes_since(version) {
            if change.resource == kind.resource {
                undone.entry(change.key.clone()).or_insert_with(|| change.before.clone());
            }
        }
        Ok(undone)
    }

    /// Stores an object under the next version, which it is given.
    pub(super) fn put(&mut self, kind: &'static Kind, key: &str, mut object: Value) -> Arc<Value> {
        let version = self.stamp(&mut object);
        let object = Arc::new(object);
        let table = &mut self.tables[kind.index];
        let (key, before) = match table.get_key_value(key) {
            Some((key, before)) => (key.clone(), Some(before.clone())),
            None => (Arc::from(key), None),
        };
        table.insert(key.clone(), object.clone());
        let happened = if before.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        let change =
            Change { version, kind: happened, resource: kind.resource, object: object.clone(), before, key };
        self.log.push(change);
        object
    }

    /// Takes an object away; gives it as it was, with the version of the deletion.
    pub(super) fn remove(&mut self, kind: &'static Kind, key: &str) -> Option<Arc<Value>> {
        let (key, before) = self.tables[kind.index].remove_entry(key)?;
        let mut last = Value::clone(&before);
        let version = self.stamp(&mut last);
        let object = Arc::new(last);
        self.log.push(Change {
            version,
            kind: ChangeKind::Deleted,
            resource: kind.resource,
            object: object.clone(),
            before: Some(before),
            key,
        });
        Some(object)
    }

    fn stamp(&mut self, object: &mut Value) -> u64 {
        self.version += 1;
        set(object, "resourceVersion", Some(self.version.to_string().into()));
        self.version
    }

    /// A uid: unlike any other in its first characters too, and the same in every run.
    pub(super) fn uid(&mut self) -> String {
        self.given += 1;
        let mixed = mix(self.given);
        format!("{:08x}-{:04x}-4000-8000-{:012x}", mixed >> 32, mixed & 0xffff, self.given)
    }

    /// The end of a generated name.
    pub(super) fn suffix(&mut self) -> String {
        /// Without vowels, as the server has it, so that no word comes out.
        const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        self.given += 1;
        let mut mixed = mix(self.given);
        let mut letter = || {
            let letter = LETTERS[usize::try_from(mixed % 27).unwrap_or_default()];
            mixed /= 27;
            char::from(letter)
        };
        std::iter::repeat_with(&mut letter).take(5).collect()
    }
}

/// Numbers far apart for numbers in a row (the finalizer of splitmix64).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
