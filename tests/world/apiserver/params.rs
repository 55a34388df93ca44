//! What a request asks for in its query.

use std::borrow::Cow;

use url::form_urlencoded;

use super::{
    kinds::Kind,
    select::Selector,
    status::{self, StatusError},
};

/// The query of a request, as far as it is understood here.
#[derive(Debug, Default)]
pub(super) struct Params<'a> {
    dry_run: Option<Cow<'a, str>>,
    pub(super) propagation: Option<Cow<'a, str>>,
    pub(super) field_manager: Option<Cow<'a, str>>,
    label_selector: Cow<'a, str>,
    field_selector: Cow<'a, str>,
    limit: Option<Cow<'a, str>>,
    pub(super) continued: Option<Cow<'a, str>>,
    resource_version: Cow<'a, str>,
    pub(super) version_match: Option<Cow<'a, str>>,
    pub(super) watch: bool,
    pub(super) bookmarks: bool,
    pub(super) initial_events: bool,
}

impl<'a> Params<'a> {
    pub(super) fn of(query: Option<&'a str>) -> Self {
        let mut params = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "dryRun" => params.dry_run = Some(value),
                "propagationPolicy" => params.propagation = Some(value),
                "fieldManager" if !value.is_empty() => params.field_manager = Some(value),
                "labelSelector" => params.label_selector = value,
                "fieldSelector" => params.field_selector = value,
                "limit" => params.limit = Some(value),
                "continue" if !value.is_empty() => params.continued = Some(value),
                "resourceVersion" => params.resource_version = value,
                "resourceVersionMatch" => params.version_match = Some(value),
                "watch" => params.watch = is_true(&value),
                "allowWatchBookmarks" => params.bookmarks = is_true(&value),
                "sendInitialEvents" => params.initial_events = is_true(&value),
                _ => {}
            }
        }
        params
    }

    /// # Errors
    /// For any word but `All`.
    pub(super) fn dry_run(&self, kind: &Kind) -> Result<bool, StatusError> {
        dry_run(kind, self.dry_run.as_deref())
    }

    /// # Errors
    /// When it cannot be read.
    pub(super) fn selector(&self, kind: &Kind) -> Result<Selector, StatusError> {
        let selector = Selector::read(kind, &self.label_selector, &self.field_selector);
        selector.map_err(status::bad_request)
    }

    /// # Errors
    /// When it is no number.
    pub(super) fn limit(&self) -> Result<Option<usize>, StatusError> {
        let Some(limit) = self.limit.as_deref().filter(|limit| !limit.is_empty()) else { return Ok(None) };
        let limit: i64 = limit.parse().map_err(|_| status::bad_request("limit is not a number"))?;
        Ok(usize::try_from(limit).ok().filter(|limit| *limit > 0))
    }

    /// None: the newest; 0: any.
    ///
    /// # Errors
    /// When it is no number.
    pub(super) fn version(&self) -> Result<Option<u64>, String> {
        match &*self.resource_version {
            "" => Ok(None),
            version => {
                version.parse().map(Some).map_err(|_| format!("invalid resource version \"{version}\""))
            }
        }
    }
}

/// # Errors
/// For any word but `All`.
pub(super) fn dry_run(kind: &Kind, word: Option<&str>) -> Result<bool, StatusError> {
    match word {
        None | Some("") => Ok(false),
        Some("All") => Ok(true),
        Some(other) => {
            let cause =
                ("dryRun".to_owned(), format!("Unsupported value: \"{other}\": supported values: \"All\""));
            Err(status::invalid(kind, "", vec![cause]))
        }
    }
}

/// As the server reads it: a parameter that is there is true, unless it says otherwise.
fn is_true(value: &str) -> bool {
    !matches!(value, "false" | "False" | "FALSE" | "0")
}
