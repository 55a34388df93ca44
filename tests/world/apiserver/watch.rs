//! Watches: which changes one shows, and how they look on the wire.
//!
//! A watch here is a position in the log. Whoever holds it decides when it moves on: the plain client at once, a test
//! machine when it likes.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    ApiServer,
    http::json as to_json,
    kinds::{Kind, Route},
    object::set,
    params::Params,
    select::Selector,
    status::{self, StatusError, Wire},
    store::{Change, ChangeKind, Store},
    view::{Shown, View},
};

/// A watch that was asked for.
#[derive(Debug)]
pub(crate) struct Watch {
    kind: &'static Kind,
    /// Beginning of the keys that are watched.
    prefix: String,
    selector: Selector,
    view: View,
    bookmarks: bool,
    position: u64,
    /// What is sent before any change.
    opening: Vec<Bytes>,
    ended: bool,
}

#[derive(Serialize)]
struct Line<T> {
    #[serde(rename = "type")]
    kind: &'static str,
    object: T,
}

impl Watch {
    pub(super) fn open(
        store: &Store,
        route: Route<'_>,
        params: &Params<'_>,
        view: View,
    ) -> Result<Self, StatusError> {
        let Route { kind, namespace, .. } = route;
        let asked = params.version().map_err(status::raw)?;
        if params.initial_events != (params.version_match.as_deref() == Some("NotOlderThan"))
            || params.initial_events && !params.bookmarks
        {
            let why =
                "Forbidden: sendInitialEvents goes with resourceVersionMatch NotOlderThan and with bookmarks";
            return Err(status::invalid(kind, "", vec![("sendInitialEvents".to_owned(), why.to_owned())]));
        }
        let mut watch = Self {
            kind,
            prefix: namespace.map_or_else(String::new, |namespace| format!("{namespace}/")),
            selector: params.selector(kind)?,
            view,
            bookmarks: params.bookmarks,
            position: asked.unwrap_or_default(),
            opening: Vec::new(),
            ended: false,
        };
        // Without a version, or with 0, a watch begins with all that is there.
        if params.initial_events || matches!(asked, None | Some(0)) {
            watch.position = store.version();
            watch.opening.extend(
                store
                    .all(kind, namespace)
                    .filter(|(_, object)| watch.selector.matches(object))
                    .map(|(_, object)| line(ChangeKind::Added.as_str(), &view.of(object))),
            );
            if params.initial_events {
                let ended = json!({"k8s.io/initial-events-end": "true"});
                watch.opening.push(watch.bookmark_with(Some(&ended)));
            }
        }
        Ok(watch)
    }

    /// The version up to which it has shown every change.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The plural of what is watched.
    pub(crate) fn resource(&self) -> &'static str {
        self.kind.resource
    }

    /// Whether the client takes bookmarks.
    pub(crate) fn takes_bookmarks(&self) -> bool {
        self.bookmarks
    }

    /// Whether it has told an error, after which the server closes it.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// All that is new since it was last asked, one line of JSON each.
    pub(crate) fn next(&mut self, server: &ApiServer) -> Vec<Bytes> {
        server.read(|store| self.advance(store, u64::MAX))
    }

    /// The same, up to a version at most: what a server that lags behind would tell.
    pub(crate) fn next_until(&mut self, server: &ApiServer, version: u64) -> Vec<Bytes> {
        server.read(|store| self.advance(store, version))
    }

    fn advance(&mut self, store: &Store, until: u64) -> Vec<Bytes> {
        let mut lines = std::mem::take(&mut self.opening);
        if self.ended {
            return lines;
        }
        if self.position < store.compacted() {
            self.ended = true;
            let said = format!("too old resource version: {} ({})", self.position, store.compacted());
            lines.push(line("ERROR", &Wire::new(&status::expired(said))));
            return lines;
        }
        for change in store.changes_since(self.position) {
            if change.version > until {
                break;
            }
            self.position = change.version;
            lines.extend(self.line(change));
        }
        lines
    }

    /// A change as this watch shows it, if it does.
    pub(crate) fn line(&self, change: &Change) -> Option<Bytes> {
        if change.resource != self.kind.resource || !change.key.starts_with(&self.prefix) {
            return None;
        }
        let object = &change.object;
        if self.selector.is_everything() {
            return Some(line(change.kind.as_str(), &self.view.of(object)));
        }
        let was = change.before.as_ref().filter(|before| self.selector.matches(before));
        let is = change.kind != ChangeKind::Deleted && self.selector.matches(object);
        match (was, is) {
            (None, true) => Some(line(ChangeKind::Added.as_str(), &self.view.of(object))),
            (Some(_), true) => Some(line(ChangeKind::Modified.as_str(), &self.view.of(object))),
            (Some(before), false) => {
                // As it was when it was last wanted.
                let mut last = Value::clone(before);
                set(&mut last, "resourceVersion", Some(change.version.to_string().into()));
                Some(line(ChangeKind::Deleted.as_str(), &self.view.of(&last)))
            }
            (None, false) => None,
        }
    }

    /// A line that tells up to which version all was shown.
    pub(crate) fn bookmark(&self) -> Bytes {
        self.bookmark_with(None)
    }

    fn bookmark_with(&self, annotations: Option<&Value>) -> Bytes {
        let (kind, api_version) = self.view.types(self.kind);
        let mut metadata = json!({"resourceVersion": self.position.to_string(), "creationTimestamp": null});
        if let Some(annotations) = annotations {
            metadata["annotations"] = annotations.clone();
        }
        let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        line("BOOKMARK", &Shown::Whole(&object))
    }
}

fn line<T: Serialize>(kind: &'static str, object: &T) -> Bytes {
    let mut line = Vec::from(to_json(&Line { kind, object }));
    line.push(b'\n');
    line.into()
}
