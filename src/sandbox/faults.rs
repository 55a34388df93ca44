//! Faults: what goes wrong with the next requests of a route, and how often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A fault: which requests meet it, and what happens to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultRule {
    /// A public route, with or without `/api/v1`, or `*` for all of them.
    pub route: String,
    /// Only requests with this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// How many requests meet it.
    #[serde(default = "once")]
    pub count: u32,
    /// How many requests pass unharmed before that.
    #[serde(default)]
    pub skip: u32,
    /// What happens to them.
    pub action: Action,
}

fn once() -> u32 {
    1
}

impl FaultRule {
    /// A fault that the next request of a route meets.
    #[must_use]
    pub fn once(route: impl Into<String>, action: Action) -> Self {
        Self { route: route.into(), method: None, count: 1, skip: 0, action }
    }
}

/// Whether something goes wrong before or after the request has had its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// The request has no effect.
    Before,
    /// The effect has happened, and the caller does not learn of it (in time).
    After,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub enum Action {
    /// Another answer takes the place of the service's own.
    Answer {
        /// The answer's status.
        status: u16,
        /// Further headers.
        headers: BTreeMap<String, String>,
        /// The body: a string is sent as it is, anything else as JSON; null is an empty body.
        body: Value,
        /// Whether the request has its effect all the same.
        when: When,
    },
    /// The answer comes late. A caller that gives up `Before` the effect prevents it.
    Delay {
        /// How late.
        by: Duration,
        /// Whether the request waits before or after its effect.
        when: When,
    },
    /// The connection breaks without an answer.
    Cut(When),
    /// The answer's body is only its first half, with a `Content-Length` that fits.
    Malformed,
    /// The connection breaks in the middle of the answer's body.
    Truncated,
}

/// An action as it is written in JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Value::is_null")]
    body: Value,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<When>,
    #[serde(skip_serializing_if = "is_false")]
    malformed: bool,
    #[serde(skip_serializing_if = "is_false")]
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    when: Option<When>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Why a fault cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// The action names none or more than one thing to happen.
    #[error("an action has exactly one of: status, delayMs, cut, malformed, truncated")]
    NotOneAction,
    /// A field that the action has no use for.
    #[error("{0} does not belong to this action")]
    Misplaced(&'static str),
    /// Nothing would ever meet the fault.
    #[error("no public route is called {route}; there are: {known}")]
    UnknownRoute {
        /// What the rule names.
        route: String,
        /// The routes that exist.
        known: String,
    },
    /// The method is none.
    #[error("{0} is no HTTP method")]
    Method(String),
    /// The status code is none that ends a request.
    #[error("{0} is no status code of an answer: 200 to 599")]
    Status(u16),
    /// A header cannot be sent.
    #[error("header {0} cannot be sent")]
    Header(String),
}

impl TryFrom<Fields> for Action {
    type Error = FaultError;

    fn try_from(fields: Fields) -> Result<Self, FaultError> {
        let Fields { status, body, headers, delay_ms, cut, malformed, truncated, when } = fields;
        if status.is_none() && !body.is_null() {
            return Err(FaultError::Misplaced("body"));
        }
        if status.is_none() && !headers.is_empty() {
            return Err(FaultError::Misplaced("headers"));
        }
        if status.is_none() && delay_ms.is_none() && when.is_some() {
            return Err(FaultError::Misplaced("when"));
        }
        match (status, delay_ms, cut, malformed, truncated) {
            (Some(status), None, None, false, false) => {
                Ok(Self::Answer { status, headers, body, when: when.unwrap_or(When::Before) })
            }
            (None, Some(by), None, false, false) => {
                Ok(Self::Delay { by: Duration::from_millis(by), when: when.unwrap_or(When::After) })
            }
            (None, None, Some(when), false, false) => Ok(Self::Cut(when)),
            (None, None, None, true, false) => Ok(Self::Malformed),
            (None, None, None, false, true) => Ok(Self::Truncated),
            _ => Err(FaultError::NotOneAction),
        }
    }
}

impl From<Action> for Fields {
    fn from(action: Action) -> Self {
        let none = Self::default();
        match action {
            Action::Answer { status, headers, body, when } => {
                Self { status: Some(status), headers, body, when: Some(when), ..none }
            }
            Action::Delay { by, when } => Self {
                delay_ms: Some(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)),
                when: Some(when),
                ..none
            },
            Action::Cut(when) => Self { cut: Some(when), ..none },
            Action::Malformed => Self { malformed: true, ..none },
            Action::Truncated => Self { truncated: true, ..none },
        }
    }
}

/// A fault and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultView {
    /// Its number, as it stands beside requests that met it.
    pub number: u64,
    /// How many requests have met it.
    pub met: u32,
    /// The rule as it was given.
    #[serde(flatten)]
    pub rule: FaultRule,
}

struct Fault {
    number: u64,
    rule: FaultRule,
    method: Option<Method>,
    passed: u32,
    met: u32,
}

/// The faults that are set, in the order in which they were added.
pub(super) struct Faults {
    routes: Vec<Arc<str>>,
    faults: Vec<Fault>,
    last_number: u64,
}

impl Faults {
    pub(super) fn new(routes: Vec<Arc<str>>) -> Self {
        Self { routes, faults: Vec::new(), last_number: 0 }
    }

    /// The public route of this path.
    pub(super) fn known_route(&self, route: Option<&str>) -> Option<Arc<str>> {
        self.routes.iter().find(|known| Some(known.as_ref()) == route).cloned()
    }

    pub(super) fn add(&mut self, mut rule: FaultRule) -> Result<u64, FaultError> {
        rule.route = self.full_route(&rule.route)?;
        let method = match &rule.method {
            Some(name) => Some(standard_method(name)?),
            None => None,
        };
        check(&rule.action)?;
        self.last_number += 1;
        self.faults.push(Fault { number: self.last_number, rule, method, passed: 0, met: 0 });
        Ok(self.last_number)
    }

    fn full_route(&self, name: &str) -> Result<String, FaultError> {
        if name == "*" {
            return Ok(name.to_owned());
        }
        let found = self
            .routes
            .iter()
            .find(|route| route.as_ref() == name || route.strip_prefix("/api/v1") == Some(name));
        found
            .map(ToString::to_string)
            .ok_or_else(|| FaultError::UnknownRoute { route: name.to_owned(), known: self.routes.join(" ") })
    }

    /// The fault that this request meets, its number first. One request meets one fault at most. Each earlier fault that fits
    /// and has requests left to let pass counts it as one of them; the faults after the one that is met do not see it.
    pub(super) fn meet(&mut self, method: &Method, route: Option<&str>) -> Option<(u64, Action)> {
        for fault in &mut self.faults {
            let meant = fault.rule.route == "*" || Some(fault.rule.route.as_str()) == route;
            let meant = meant && fault.method.as_ref().is_none_or(|wanted| wanted == method);
            if !meant || fault.met == fault.rule.count {
                continue;
            }
            if fault.passed < fault.rule.skip {
                fault.passed += 1;
                continue;
            }
            fault.met += 1;
            return Some((fault.number, fault.rule.action.clone()));
        }
        None
    }

    pub(super) fn views(&self) -> Vec<FaultView> {
        let view =
            |fault: &Fault| FaultView { number: fault.number, met: fault.met, rule: fault.rule.clone() };
        self.faults.iter().map(view).collect()
    }

    pub(super) fn clear(&mut self) {
        self.faults.clear();
    }
}

fn standard_method(name: &str) -> Result<Method, FaultError> {
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD]
        .into_iter()
        .find(|method| method.as_str().eq_ignore_ascii_case(name))
        .ok_or_else(|| FaultError::Method(name.to_owned()))
}

/// Whether a canned answer can be sent at all.
fn check(action: &Action) -> Result<(), FaultError> {
    let Action::Answer { status, headers, body: _, when: _ } = action else { return Ok(()) };
    if !(200..=599).contains(status) {
        return Err(FaultError::Status(*status));
    }
    for (name, value) in headers {
        let sendable = HeaderName::try_from(name).is_ok() && HeaderValue::try_from(value).is_ok();
        if !sendable {
            return Err(FaultError::Header(name.clone()));
        }
    }
    Ok(())
}

/// The parts of a canned answer, once [`Faults::add`] has let it in.
pub(super) fn canned(
    status: u16,
    headers: &BTreeMap<String, String>,
    body: &Value,
) -> Option<(StatusCode, http::HeaderMap, Vec<u8>)> {
    let mut map = http::HeaderMap::new();
    map.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in headers {
        map.insert(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
    }
    let body = match body {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        json => json.to_string().into_bytes(),
    };
    Some((StatusCode::from_u16(status).ok()?, map, body))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults() -> Faults {
        Faults::new(vec!["/ping".into(), "/api/v1/auth/me".into()])
    }

    fn rule(value: Value) -> FaultRule {
        serde_json::from_value(value).unwrap()
    }

    fn meets(faults: &mut Faults, route: &str) -> Option<u64> {
        faults.meet(&Method::GET, Some(route)).map(|(number, _)| number)
    }

    #[test]
    fn a_fault_lets_some_pass_then_meets_its_count_and_no_more() {
        let mut faults = faults();
        let rule = rule(json!({"route": "/auth/me", "skip": 1, "count": 2, "action": {"cut": "after"}}));
        assert_eq!(faults.add(rule), Ok(1));
        assert_eq!(meets(&mut faults, "/ping"), None);
        let met: Vec<_> = (0..4).map(|_| meets(&mut faults, "/api/v1/auth/me")).collect();
        assert_eq!(met, [None, Some(1), Some(1), None]);
    }

    #[test]
    fn the_first_fault_that_has_anything_left_is_met() {
        let mut faults = faults();
        faults.add(rule(json!({"route": "/ping", "action": {"status": 500}}))).unwrap();
        faults.add(rule(json!({"route": "*", "method": "post", "action": {"status": 501}}))).unwrap();
        faults.add(rule(json!({"route": "*", "action": {"status": 502}}))).unwrap();
        assert_eq!([(); 3].map(|()| meets(&mut faults, "/ping")), [Some(1), Some(3), None]);
        assert_eq!(faults.views()[0].met, 1);
        faults.clear();
        assert!(faults.views().is_empty());
    }

    #[test]
    fn actions_read_and_write_the_same_json() {
        for action in [
            json!({"status": 503, "body": {"success": false}, "headers": {"retry-after": "5"}, "when": "after"}),
            json!({"delayMs": 250, "when": "before"}),
            json!({"cut": "before"}),
            json!({"malformed": true}),
            json!({"truncated": true}),
        ] {
            let read: Action = serde_json::from_value(action.clone()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), action);
        }
    }

    #[test]
    fn a_canned_answer_comes_instead_of_the_effect_and_a_delay_comes_after_it() {
        let status: Action = serde_json::from_value(json!({"status": 500})).unwrap();
        let delay: Action = serde_json::from_value(json!({"delayMs": 1})).unwrap();
        assert!(matches!(status, Action::Answer { when: When::Before, .. }));
        assert!(matches!(delay, Action::Delay { when: When::After, .. }));
    }

    #[test]
    fn what_could_never_happen_is_refused() {
        for (action, wanted) in [
            (json!({}), FaultError::NotOneAction),
            (json!({"status": 500, "cut": "after"}), FaultError::NotOneAction),
            (json!({"cut": "after", "when": "after"}), FaultError::Misplaced("when")),
            (json!({"delayMs": 1, "body": ""}), FaultError::Misplaced("body")),
            (json!({"malformed": true, "headers": {"a": "b"}}), FaultError::Misplaced("headers")),
        ] {
            let error = serde_json::from_value::<Action>(action).unwrap_err();
            assert_eq!(error.to_string(), wanted.to_string());
        }
        let mut faults = faults();
        for (given, wanted) in [
            (json!({"route": "/pong", "action": {"cut": "after"}}), "no public route is called /pong"),
            (json!({"route": "*", "method": "FETCH", "action": {"cut": "after"}}), "FETCH is no HTTP method"),
            (json!({"route": "*", "action": {"status": 101}}), "101 is no status code"),
            (json!({"route": "*", "action": {"status": 200, "headers": {"a b": ""}}}), "header a b"),
        ] {
            let error = faults.add(rule(given)).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{error}");
        }
    }
}
