//! The gate: every request of both seams parks here until the driver lets it through, one at a time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bags_operator::bags::{self, BagsService, TransportError};
use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::Value;
use tokio::sync::{Notify, oneshot};

use super::{
    apiserver::Payload,
    creation::Verdict,
    fault::{Label, Seam},
    scene::attempt_in,
};

/// What the API server's side of a connection gives.
pub(crate) type KubeAnswer = Result<Response<Body>, std::io::Error>;
/// What Bags' side of a connection gives.
pub(crate) type BagsAnswer = Result<Response<bags::Body>, TransportError>;

/// A request at the gate, and the way back for its answer.
pub(crate) enum Sent {
    Kube(Request<Payload>, oneshot::Sender<KubeAnswer>),
    Bags(Request<bags::Body>, oneshot::Sender<BagsAnswer>),
    /// A process' answer to a review of the API server.
    Review(Verdict),
}

/// A request that waits to be let through.
pub(crate) struct Parked {
    pub(crate) label: Label,
    pub(crate) sent: Sent,
}

impl Parked {
    pub(crate) fn seam(&self) -> Seam {
        match self.sent {
            Sent::Kube(..) => Seam::Kube,
            Sent::Bags(..) => Seam::Bags,
            Sent::Review(_) => Seam::Review,
        }
    }

    /// Whether the request may change something.
    pub(crate) fn mutates(&self) -> bool {
        match &self.sent {
            Sent::Kube(request, _) => request.method() != Method::GET && !is_dry_run(request),
            Sent::Bags(request, _) => {
                let path = request.uri().path();
                path.ends_with("/callback") || path.ends_with("/create") || path.ends_with("/revoke")
            }
            // An ApiKey is made on it.
            Sent::Review(_) => true,
        }
    }

    /// Whether nobody waits for the answer any more.
    fn abandoned(&self) -> bool {
        match &self.sent {
            Sent::Kube(_, answer) => answer.is_closed(),
            Sent::Bags(_, answer) => answer.is_closed(),
            Sent::Review(_) => false,
        }
    }
}

/// The gate of one run; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    /// By label, so that the first one is always the same.
    parked: BTreeMap<Label, Parked>,
    occurrences: BTreeMap<(u32, String), u32>,
    names: Names,
}

impl Gate {
    /// The client of an incarnation for the API server.
    pub(crate) fn kube(&self, incarnation: u32) -> kube::Client {
        let gate = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let gate = gate.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.map_err(std::io::Error::other)?;
                let (answer, answered) = oneshot::channel();
                gate.park(incarnation, Sent::Kube(Request::from_parts(parts, body.into()), answer));
                answered.await.unwrap_or_else(|_| Err(std::io::ErrorKind::ConnectionReset.into()))
            }
        });
        kube::Client::new(service, "default")
    }

    /// The way of an incarnation to Bags.
    pub(crate) fn bags(&self, incarnation: u32) -> BagsService {
        let gate = self.clone();
        BagsService::new(tower::service_fn(move |request: Request<bags::Body>| {
            let gate = gate.clone();
            async move {
                let (answer, answered) = oneshot::channel();
                gate.park(incarnation, Sent::Bags(request, answer));
                answered.await.unwrap_or(Err(TransportError::Broken))
            }
        }))
    }

    /// Parks a request, or an answer to one.
    pub(crate) fn park(&self, incarnation: u32, sent: Sent) {
        let mut state = self.lock();
        let what = match &sent {
            Sent::Kube(request, _) => of_kube(request, &mut state.names),
            Sent::Bags(request, _) => of_bags(request, &mut state.names),
            Sent::Review(verdict) => format!("admit apikeys {}", verdict.name),
        };
        let count = state.occurrences.entry((incarnation, what.clone())).or_default();
        *count += 1;
        let label = Label { incarnation, what, occurrence: *count };
        state.parked.insert(label.clone(), Parked { label, sent });
        drop(state);
        self.0.arrived.notify_one();
    }

    /// Takes the request that is let through next: the `nth` in the order of labels, of those that `may_pass`. One that
    /// nobody waits for any more is dropped: it was never sent.
    pub(crate) fn take(
        &self,
        may_pass: impl Fn(&Label) -> bool,
        nth: impl FnOnce(usize) -> usize,
    ) -> Option<Parked> {
        let mut state = self.lock();
        state.parked.retain(|label, parked| !may_pass(label) || !parked.abandoned());
        let candidates: Vec<Label> = state.parked.keys().filter(|label| may_pass(label)).cloned().collect();
        let label = candidates.get(if candidates.len() > 1 { nth(candidates.len()) } else { 0 })?;
        state.parked.remove(label)
    }

    /// Takes what an incarnation has parked.
    pub(crate) fn take_all_of(&self, incarnation: u32) -> Vec<Parked> {
        let mut state = self.lock();
        let labels: Vec<Label> =
            state.parked.keys().filter(|label| label.incarnation == incarnation).cloned().collect();
        labels.iter().filter_map(|label| state.parked.remove(label)).collect()
    }

    /// Waits until a request arrives.
    pub(crate) async fn arrival(&self) {
        self.0.arrived.notified().await;
    }

    /// Learns which attempt a key belongs to, so that requests about it have the same label in every run.
    pub(crate) fn learn(&self, secret: &str, attempt: &str) {
        self.lock().names.learn(secret, attempt);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Attempts are random; in labels they are numbered in the order of their first sight.
#[derive(Default)]
struct Names {
    attempts: BTreeMap<String, usize>,
    /// Attempts by value, and by id, of their key.
    known: BTreeMap<String, String>,
}

impl Names {
    fn attempt(&mut self, attempt: &str) -> String {
        let next = self.attempts.len() + 1;
        format!("attempt-{}", self.attempts.entry(attempt.to_owned()).or_insert(next))
    }

    fn learn(&mut self, secret: &str, attempt: &str) {
        self.known.insert(secret.to_owned(), attempt.to_owned());
    }

    fn of_secret(&mut self, secret: &str) -> String {
        match self.known.get(secret).cloned() {
            Some(attempt) => self.attempt(&attempt),
            None => "unknown".to_owned(),
        }
    }
}

/// Whether the API server is asked to compute and to store nothing.
pub(crate) fn is_dry_run(request: &Request<Payload>) -> bool {
    request.uri().query().is_some_and(|query| query.contains("dryRun=All"))
}

/// Verb, kind and owner of a request to the API server.
fn of_kube(request: &Request<Payload>, names: &mut Names) -> String {
    let path = request.uri().path();
    let mut parts = path.trim_start_matches('/').split('/').peekable();
    // /api/v1/… or /apis/GROUP/VERSION/…
    let skip = if parts.next() == Some("api") { 1 } else { 2 };
    let mut parts: Vec<&str> = parts.skip(skip).collect();
    let namespace = match parts.as_slice() {
        ["namespaces", namespace, _, ..] => Some(*namespace),
        _ => None,
    };
    if namespace.is_some() {
        parts.drain(..2);
    }
    let (resource, name, subresource) = match parts.as_slice() {
        [resource, name, subresource, ..] => (*resource, Some(*name), Some(*subresource)),
        [resource, name] => (*resource, Some(*name), None),
        [resource] => (*resource, None, None),
        [] => ("?", None, None),
    };
    let verb = match *request.method() {
        Method::GET if name.is_none() => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "?",
    };
    let created = (name.is_none() && *request.method() == Method::POST).then(|| request.body().value());
    let text = |pointer: &str| created?.pointer(pointer)?.as_str().map(str::to_owned);
    let name = match resource {
        // Their own names are made from the time.
        "events" => Some(format!(
            "{} of {}",
            text("/reason").unwrap_or_default(),
            text("/regarding/name").unwrap_or_default()
        )),
        _ => name.map(str::to_owned).or_else(|| text("/metadata/name")),
    };
    let name = name.map(|name| match name.strip_prefix("bags-key-") {
        Some(attempt) => names.attempt(attempt),
        None => name,
    });
    let mut what = format!("{verb} {resource}");
    if let Some(subresource) = subresource {
        what.push('/');
        what.push_str(subresource);
    }
    if is_dry_run(request) {
        what.push_str(" (dry run)");
    }
    if let Some(name) = name {
        what.push(' ');
        what.push_str(&name);
    }
    what
}

/// Operation and owner of a request to Bags.
fn of_bags(request: &Request<bags::Body>, names: &mut Names) -> String {
    let path = request.uri().path().trim_start_matches("/api/v1");
    let body: Value = serde_json::from_slice(request.body().as_bytes()).unwrap_or_default();
    let attempt = |field: &str| attempt_in(body[field].as_str().unwrap_or_default());
    match path {
        "/ping" => "bags ping".to_owned(),
        "/auth/me" => {
            let value = request.headers().get("x-api-key").and_then(|value| value.to_str().ok());
            format!("bags me {}", names.of_secret(value.unwrap_or_default()))
        }
        "/agent/v2/auth/init" => "bags challenge".to_owned(),
        "/agent/v2/auth/callback" => {
            let step = if body["authCode"].is_null() { "sign" } else { "second-factor" };
            format!("bags {step} {}", names.attempt(attempt("keyName")))
        }
        "/agent/dev/keys/create" => {
            format!("bags create {}", names.attempt(attempt("name")))
        }
        "/agent/dev/keys" => "bags list".to_owned(),
        _ => format!("bags revoke {}", names.of_secret(body["keyId"].as_str().unwrap_or_default())),
    }
}
