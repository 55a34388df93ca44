//! What becomes of a request that is let through: its effect, its answer, or the fault in place of either.

use bags_operator::{
    bags::{self, TransportError},
    clock::Clock,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::ServiceExt;

use super::{Held, Run, Timer};
use crate::{
    apiserver::Payload,
    fault::{self, Fault, Label},
    gate::{BagsAnswer, KubeAnswer, Parked, Sent, is_dry_run},
    scene::attempt_in,
};

impl Run<'_> {
    pub(super) fn kube(
        &mut self,
        label: &Label,
        request: Request<Payload>,
        answer: oneshot::Sender<KubeAnswer>,
        fault: Option<Fault>,
    ) -> String {
        match fault {
            Some(Fault::CrashBefore) => return self.crash(label.incarnation, fault::RESTART),
            Some(Fault::Lost) => {
                let _ = answer.send(Err(std::io::ErrorKind::ConnectionReset.into()));
                return "lost".to_owned();
            }
            Some(Fault::Conflict) => return refuse(answer, StatusCode::CONFLICT, "Conflict"),
            Some(Fault::ServerError) => {
                return refuse(answer, StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
            }
            Some(Fault::FreezeBefore) => {
                let parked = Parked { label: label.clone(), sent: Sent::Kube(request, answer) };
                self.held.push((label.incarnation, Held::Unsent(Box::new(parked))));
                return self.freeze(label.incarnation);
            }
            Some(Fault::Late) => {
                let parked = Parked { label: label.clone(), sent: Sent::Kube(request, answer) };
                self.timers.push((self.now() + fault::SLOW, Timer::Effect(Box::new(parked))));
                return "late".to_owned();
            }
            _ => self.blur(label.incarnation, fault),
        }
        let (status, response) = self.kube_effect(label, request, fault != Some(Fault::DoneNoAnswer));
        let word = status.as_u16().to_string();
        match fault {
            Some(Fault::CrashAfter) => self.crash(label.incarnation, fault::RESTART),
            Some(Fault::CrashLong) => self.crash(label.incarnation, fault::LONG_RESTART),
            Some(Fault::DoneNoAnswer) => {
                self.held.push((label.incarnation, Held::Never(Sent::Kube(Request::default(), answer))));
                format!("{word}, never answered")
            }
            Some(Fault::FreezeAfter) => {
                self.held.push((label.incarnation, Held::Kube(answer, response)));
                self.freeze(label.incarnation)
            }
            Some(Fault::FreezeAlone) => {
                self.held.push((label.incarnation, Held::Kube(answer, response)));
                self.freeze_alone(label.incarnation)
            }
            _ => {
                let _ = answer.send(response);
                word
            }
        }
    }

    /// `heard`: its sender hears of it, if it lives.
    pub(super) fn kube_effect(
        &mut self,
        label: &Label,
        request: Request<Payload>,
        heard: bool,
    ) -> (StatusCode, KubeAnswer) {
        // Seeds keep the runs that they had.
        let request = if self.plan.chaos { request } else { in_small_pages(request) };
        self.oracle.kube_sent(label.incarnation, &request);
        let response = self.scene.api.answer(&request);
        let status = response.status();
        // A write that changes nothing counts as well: whoever has nothing to do sends none.
        let writes = *request.method() != Method::GET && !is_dry_run(&request);
        if writes && !label.what.starts_with("create events") {
            self.quiet_since = self.now();
        }
        let (incarnation, now) = (label.incarnation, self.clock.wall());
        self.oracle.kube_done(incarnation, &request, (status, heard), &self.scene, now);
        (status, Ok(response.map(Body::from)))
    }

    pub(super) async fn bags(
        &mut self,
        label: &Label,
        request: Request<bags::Body>,
        answer: oneshot::Sender<BagsAnswer>,
        fault: Option<Fault>,
    ) -> String {
        let away = self.scene.bags_is_away();
        // Whatever becomes of it: a request that had no effect was sent all the same, and its sender cannot know. One that is stopped
        // before comes here again, unless its process stands still while nothing arrives.
        let unsent = match fault {
            Some(Fault::CrashBefore) => true,
            Some(Fault::FreezeBefore) => !away,
            _ => false,
        };
        if !unsent {
            self.oracle.bags_sent(&request, &self.scene, self.clock.wall());
        }
        if away {
            return self.bags_is_away(label, answer, fault);
        }
        let refused = self.scene.keys_are_refused() && request.uri().path().ends_with("/auth/me");
        match fault.or(refused.then_some(Fault::Unauthorized)) {
            Some(Fault::CrashBefore) => return self.crash(label.incarnation, fault::RESTART),
            Some(Fault::Lost) => {
                let _ = answer.send(Err(TransportError::Broken));
                return "lost".to_owned();
            }
            Some(Fault::FreezeBefore) => {
                self.oracle.may_come_late(&request);
                let parked = Parked { label: label.clone(), sent: Sent::Bags(request, answer) };
                self.held.push((label.incarnation, Held::Unsent(Box::new(parked))));
                return self.freeze(label.incarnation);
            }
            Some(fault) => {
                if let Some((status, body)) = instead(fault, self.clock.wall()) {
                    let _ = answer.send(Ok(enveloped(status, body)));
                    return status.to_string();
                }
            }
            None => {}
        }
        if fault == Some(Fault::Slow) {
            let parked = Parked { label: label.clone(), sent: Sent::Bags(request, answer) };
            self.timers.push((self.now() + fault::SLOW, Timer::Effect(Box::new(parked))));
            return "slow".to_owned();
        }
        let (status, headers, body) = self.bags_effect(label, request).await;
        let whole = || {
            let mut response = Response::new(bags::Body::from(body.to_vec()));
            *response.status_mut() = status;
            *response.headers_mut() = headers.clone();
            response
        };
        let word = status.as_u16().to_string();
        match fault {
            Some(Fault::CrashAfter) => self.crash(label.incarnation, fault::RESTART),
            Some(Fault::CrashLong) => self.crash(label.incarnation, fault::LONG_RESTART),
            Some(Fault::DoneNoAnswer) => {
                let unsent = Request::new(bags::Body::default());
                self.held.push((label.incarnation, Held::Never(Sent::Bags(unsent, answer))));
                format!("{word}, never answered")
            }
            Some(Fault::FreezeAfter) => {
                self.held.push((label.incarnation, Held::Bags(answer, Ok(whole()))));
                self.freeze(label.incarnation)
            }
            Some(Fault::FreezeAlone) => {
                self.held.push((label.incarnation, Held::Bags(answer, Ok(whole()))));
                self.freeze_alone(label.incarnation)
            }
            Some(Fault::DoneServerError) => {
                let _ = answer
                    .send(Ok(enveloped(500, json!({"success": false, "error": "Internal server error"}))));
                format!("{word}, answered 500")
            }
            Some(Fault::Malformed) => {
                let mut response = whole();
                *response.body_mut() = bags::Body::from(body[..body.len() / 2].to_vec());
                let _ = answer.send(Ok(response));
                format!("{word}, half of it")
            }
            Some(Fault::Truncated) => {
                let _ = answer.send(Err(TransportError::Broken));
                format!("{word}, broken off")
            }
            _ => {
                let _ = answer.send(Ok(whole()));
                word
            }
        }
    }

    /// Nothing arrives at Bags: the connection breaks, or something in between says so. What happens to processes and
    /// clocks happens all the same.
    fn bags_is_away(
        &mut self,
        label: &Label,
        answer: oneshot::Sender<BagsAnswer>,
        fault: Option<Fault>,
    ) -> String {
        let refusal = || match label.occurrence % 2 {
            0 => Ok(enveloped(503, Value::Null)),
            _ => Err(TransportError::Broken),
        };
        match fault {
            Some(Fault::CrashBefore | Fault::CrashAfter) => self.crash(label.incarnation, fault::RESTART),
            Some(Fault::CrashLong) => self.crash(label.incarnation, fault::LONG_RESTART),
            Some(Fault::FreezeBefore | Fault::FreezeAfter) => {
                self.held.push((label.incarnation, Held::Bags(answer, refusal())));
                self.freeze(label.incarnation)
            }
            Some(Fault::FreezeAlone) => {
                self.held.push((label.incarnation, Held::Bags(answer, refusal())));
                self.freeze_alone(label.incarnation)
            }
            Some(Fault::DoneNoAnswer | Fault::Slow) => {
                let unsent = Request::new(bags::Body::default());
                self.held.push((label.incarnation, Held::Never(Sent::Bags(unsent, answer))));
                "away, never answered".to_owned()
            }
            _ => {
                let _ = answer.send(refusal());
                "away".to_owned()
            }
        }
    }

    pub(super) async fn bags_effect(
        &mut self,
        label: &Label,
        request: Request<bags::Body>,
    ) -> (StatusCode, http::HeaderMap, Bytes) {
        let path = request.uri().path().to_owned();
        let (parts, body) = request.into_parts();
        let attempt = {
            let sent: Value = serde_json::from_slice(body.as_bytes()).unwrap_or_default();
            let name = sent["keyName"].as_str().or(sent["name"].as_str()).unwrap_or_default();
            (!name.is_empty()).then(|| attempt_in(name).to_owned())
        };
        let asked = parts.headers.get("x-api-key").and_then(|value| value.to_str().ok()).map(str::to_owned);
        if path == "/api/v1/agent/dev/keys" {
            self.all_consumers_call().await;
        }
        let request = Request::from_parts(parts, axum::body::Body::from(body.into_bytes()));
        let Ok(response) = self.bags.clone().oneshot(request).await else {
            panic!("the sandbox has no faults of its own here, yet it broke {label}");
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        // Nobody says in which order a list comes.
        let turned = path == "/api/v1/agent/dev/keys" && label.occurrence.is_multiple_of(2);
        let body = if turned { the_other_way_round(body) } else { body };
        if let Some(value) = asked.filter(|_| parts.status == StatusCode::OK) {
            self.oracle.answered(&value);
        }
        self.learn(label.incarnation, attempt.as_deref(), &body);
        self.oracle.bags_done(label.incarnation, &path, &body, &self.scene);
        (parts.status, parts.headers, body)
    }

    /// Which value and which id belong to which attempt: for labels, and for the oracles.
    fn learn(&mut self, incarnation: u32, attempt: Option<&str>, body: &[u8]) {
        let Some(attempt) = attempt else { return };
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let payload = &answer["response"];
        let made = &payload["apiKey"];
        let value = made.as_str().or(made["key"].as_str());
        let Some(value) = value else { return };
        self.oracle.made(incarnation, value, attempt);
        self.gate.learn(value, attempt);
        for key in self.scene.sandbox.keys() {
            if key.name.ends_with(&format!("-{attempt}")) {
                self.gate.learn(&key.id, attempt);
            }
        }
    }
}

/// A list of keys, the last one first; whatever else it is, as it is.
fn the_other_way_round(body: Bytes) -> Bytes {
    let Ok(mut answer) = serde_json::from_slice::<Value>(&body) else { return body };
    let Some(keys) = answer["response"].as_array_mut() else { return body };
    keys.reverse();
    answer.to_string().into_bytes().into()
}

/// So many pods come in one answer: no namespace here has as many as the operator asks for.
const PAGE: &str = "limit=2";

/// The request with a smaller limit, where it lists pods page by page.
fn in_small_pages(mut request: Request<Payload>) -> Request<Payload> {
    let (uri, lists) = (request.uri(), *request.method() == Method::GET);
    let query = uri.query().filter(|_| lists && uri.path().ends_with("/pods")).unwrap_or_default();
    let smaller: Vec<&str> =
        query.split('&').map(|part| if part.starts_with("limit=") { PAGE } else { part }).collect();
    let smaller = format!("{}?{}", uri.path(), smaller.join("&")).parse::<Uri>();
    if let (false, Ok(smaller)) = (query.is_empty(), smaller) {
        *request.uri_mut() = smaller;
    }
    request
}

fn refuse(answer: oneshot::Sender<KubeAnswer>, code: StatusCode, reason: &str) -> String {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "a fault of the test", "reason": reason, "code": code.as_u16(),
    });
    let mut response = Response::new(Body::from(status.to_string().into_bytes()));
    *response.status_mut() = code;
    let _ = answer.send(Ok(response));
    code.as_u16().to_string()
}

/// What Bags answers instead of doing anything.
fn instead(fault: Fault, now: jiff::Timestamp) -> Option<(u16, Value)> {
    let refusal = |text: &str| json!({"success": false, "error": text});
    match fault {
        Fault::Conflict => Some((409, refusal("Conflict"))),
        Fault::ServerError => Some((500, refusal("Internal server error"))),
        Fault::BadRequest => Some((400, refusal("Something that nobody has seen before"))),
        Fault::Unauthorized => Some((401, refusal("Invalid API key. Please check your x-api-key header."))),
        Fault::RateLimited => {
            let reset = now.as_second() + 120;
            let mut body = refusal("Rate limit exceeded");
            body["resetTime"] = json!(reset);
            Some((429, body))
        }
        Fault::Unavailable => Some((503, Value::Null)),
        Fault::Pretended => Some((200, json!({"success": true, "response": {"status": "revoked"}}))),
        _ => None,
    }
}

fn enveloped(status: u16, body: Value) -> Response<bags::Body> {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let mut response = Response::new(bags::Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
