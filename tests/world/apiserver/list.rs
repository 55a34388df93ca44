//! Lists: of a namespace or of all, selected, in pages of one version.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    kinds::Route,
    params::Params,
    status::{self, StatusError},
    store::Store,
    view::{Shown, View},
};

#[derive(Serialize)]
struct List<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    metadata: ListMetadata,
    items: Vec<Shown<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    continued: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining_item_count: Option<usize>,
}

/// Where the next page begins, and of which version it is.
#[derive(Serialize, Deserialize)]
struct Continue {
    rv: u64,
    /// The last key of the page before.
    after: String,
}

/// # Errors
/// What the server says.
pub(super) fn list(
    store: &Store,
    route: Route<'_>,
    params: &Params<'_>,
    view: View,
) -> Result<Bytes, StatusError> {
    let kind = route.kind;
    let selector = params.selector(kind)?;
    let limit = params.limit()?;
    let from = params.continued.as_deref().map(read_continue).transpose()?;
    let version = match &from {
        Some(from) => from.rv,
        None => version_of(store, params)?,
    };
    let undone = store.undone(kind, version).map_err(|_| {
        let said = "The provided continue parameter is too old to display a consistent list result.";
        status::expired(said.to_owned())
    })?;
    let after = from.map_or_else(String::new, |from| from.after);
    let all = states(store, route, undone);
    let rest = all.iter().filter(|(key, object)| **key > *after && selector.matches(object));
    let mut rest: Vec<&(Arc<str>, Arc<Value>)> = rest.collect();
    let mut metadata =
        ListMetadata { resource_version: version.to_string(), continued: None, remaining_item_count: None };
    if let Some(limit) = limit.filter(|limit| *limit < rest.len()) {
        metadata.remaining_item_count = selector.is_everything().then(|| rest.len() - limit);
        rest.truncate(limit);
        metadata.continued = rest.last().map(|(key, _)| write_continue(version, key));
    }
    let items = rest.iter().map(|(_, object)| view.item_of(kind, object)).collect();
    let (kind, api_version) = view.list_types(kind);
    Ok(super::http::json(&List { kind, api_version, metadata, items }))
}

/// Which version a list shows.
fn version_of(store: &Store, params: &Params<'_>) -> Result<u64, StatusError> {
    let newest = store.version();
    match params.version().map_err(status::bad_request)? {
        Some(wanted) if wanted > newest => Err(status::too_new(wanted, newest)),
        Some(wanted) if params.version_match.as_deref() == Some("Exact") => {
            if wanted < store.compacted() {
                return Err(status::expired(format!(
                    "The resourceVersion for the provided list is too old: {wanted}"
                )));
            }
            Ok(wanted)
        }
        _ => Ok(newest),
    }
}

/// The objects as they were, in key order.
fn states(
    store: &Store,
    route: Route<'_>,
    undone: BTreeMap<Arc<str>, Option<Arc<Value>>>,
) -> Vec<(Arc<str>, Arc<Value>)> {
    let now = store.all(route.kind, route.namespace);
    if undone.is_empty() {
        return now.map(|(key, object)| (key.clone(), object.clone())).collect();
    }
    let mut states: BTreeMap<Arc<str>, Arc<Value>> =
        now.map(|(key, object)| (key.clone(), object.clone())).collect();
    let prefix = route.namespace.map_or_else(String::new, |namespace| format!("{namespace}/"));
    for (key, before) in undone.into_iter().filter(|(key, _)| key.starts_with(&prefix)) {
        match before {
            Some(before) => drop(states.insert(key, before)),
            None => drop(states.remove(&key)),
        }
    }
    states.into_iter().collect()
}

fn read_continue(token: &str) -> Result<Continue, StatusError> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
    let read = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    read.ok_or_else(|| status::bad_request("continue key is not valid"))
}

fn write_continue(rv: u64, after: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(super::http::json(&Continue { rv, after: after.to_owned() }))
}
