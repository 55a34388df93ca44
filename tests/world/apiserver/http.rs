//! Requests and answers: which function a request means, and what its outcome looks like on the wire.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    ApiServer,
    delete::{self, Deletion},
    fields::Author,
    kinds::{Kind, Part, Route},
    list, object,
    params::{self, Params},
    payload::Payload,
    status::{self, StatusError, Wire},
    store::Store,
    update::{self, Target},
    view::View,
    watch::Watch,
};

/// A request may be so long.
const BODY_BYTES: usize = 3 * 1024 * 1024;

type Answer = Result<Response<Bytes>, StatusError>;

pub(super) fn is_watch<B>(request: &Request<B>) -> bool {
    let watch = |query| Params::of(Some(query)).watch;
    *request.method() == Method::GET
        && request.uri().query().is_some_and(watch)
        && Route::of(request.uri().path()).is_some_and(|route| route.name.is_none())
}

/// Begins a watch.
pub(super) fn watch<B>(store: &Store, request: &Request<B>) -> Result<Watch, StatusError> {
    let route = Route::of(request.uri().path()).ok_or_else(status::no_such_path)?;
    let view = View::accepted(request.headers()).ok_or_else(status::not_acceptable)?;
    Watch::open(store, route, &Params::of(request.uri().query()), view)
}

/// Answers a request. A watch is answered with what is there now, and ends.
pub(super) fn answer(server: &ApiServer, request: &Request<Payload>) -> Response<Bytes> {
    decide(server, request).unwrap_or_else(|status| refuse(&status))
}

fn decide(server: &ApiServer, request: &Request<Payload>) -> Answer {
    let route = Route::of(request.uri().path()).ok_or_else(status::no_such_path)?;
    let params = Params::of(request.uri().query());
    let view = View::accepted(request.headers()).ok_or_else(status::not_acceptable)?;
    if request.body().bytes().len() > BODY_BYTES {
        return Err(status::too_large());
    }
    if !server.may_use(request.method(), &route) {
        return Err(status::forbidden(route.kind, route.name.unwrap_or_default(), "no role allows it"));
    }
    let homeless = route.kind.namespaced && route.namespace.is_none();
    match (request.method(), route.name) {
        (&Method::GET, Some(name)) => get(server, route, name, view),
        (&Method::GET, None) if params.watch => {
            let mut watch = server.read(|store| Watch::open(store, route, &params, view))?;
            Ok(respond(StatusCode::OK, watch.next(server).concat().into()))
        }
        (&Method::GET, None) => {
            let body = server.read(|store| list::list(store, route, &params, view))?;
            Ok(respond(StatusCode::OK, body))
        }
        // Across all namespaces there are lists and watches only.
        _ if homeless && route.kind.custom => Err(status::no_such_path()),
        _ if homeless => Err(status::method_not_allowed()),
        (&Method::POST, None) => create(server, request, route, &params, view),
        // The name in the path of a custom kind says nothing here.
        (&Method::POST, Some(_)) if route.kind.custom && route.part == Part::Main => {
            create(server, request, route, &params, view)
        }
        (&Method::PUT | &Method::PATCH, None) if route.kind.custom => {
            Err(status::bad_request("name must be provided"))
        }
        (&Method::PUT, Some(name)) => replace(server, request, target(route, name), &params, view),
        (&Method::PATCH, Some(name)) => patch(server, request, target(route, name), &params, view),
        (&Method::DELETE, Some(name)) if route.part == Part::Main => {
            delete_one(server, request, target(route, name), &params, view)
        }
        (&Method::DELETE, None) => delete_all(server, request, route, &params, view),
        _ => Err(status::method_not_allowed()),
    }
}

fn target<'a>(route: Route<'a>, name: &'a str) -> Target<'a> {
    let Route { kind, namespace, name: _, part } = route;
    Target { kind, namespace: namespace.unwrap_or_default(), name, part }
}

fn get(server: &ApiServer, route: Route<'_>, name: &str, view: View) -> Answer {
    let object = server.read(|store| update::current(store, target(route, name)))?;
    Ok(show(StatusCode::OK, view, &object))
}

fn create(
    server: &ApiServer,
    request: &Request<Payload>,
    route: Route<'_>,
    params: &Params<'_>,
    view: View,
) -> Answer {
    let kind = route.kind;
    let object = read_object(kind, request)?;
    let dry_run = params.dry_run(kind)?;
    let now = server.now();
    let author = author(request, params, &now);
    let made = server.create_in(kind, route.namespace.unwrap_or_default(), object, dry_run, author)?;
    Ok(show(StatusCode::CREATED, view, &made))
}

fn replace(
    server: &ApiServer,
    request: &Request<Payload>,
    target: Target<'_>,
    params: &Params<'_>,
    view: View,
) -> Answer {
    let object = read_object(target.kind, request)?;
    let dry_run = params.dry_run(target.kind)?;
    let now = server.now();
    let author = author(request, params, &now);
    let written = server.write(|store| update::replace(store, target, object, dry_run, author))?;
    Ok(show(StatusCode::OK, view, &written))
}

fn patch(
    server: &ApiServer,
    request: &Request<Payload>,
    target: Target<'_>,
    params: &Params<'_>,
    view: View,
) -> Answer {
    if media_type(request) != Some("application/merge-patch+json") {
        return Err(status::unsupported_media_type());
    }
    let dry_run = params.dry_run(target.kind)?;
    let patch = read_json(request)?;
    if !patch.is_object() {
        return Err(status::bad_request("a merge patch is an object"));
    }
    let now = server.now();
    let author = author(request, params, &now);
    let written = server.write(|store| update::patch(store, target, patch, dry_run, author))?;
    Ok(show(StatusCode::OK, view, &written))
}

/// Who writes: as the query says, else the program that the client says it is.
fn author<'a>(request: &'a Request<Payload>, params: &'a Params<'_>, now: &'a str) -> Author<'a> {
    let agent = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let program = agent.and_then(|agent| agent.split('/').next()).filter(|program| !program.is_empty());
    let program = program.unwrap_or("unknown");
    Author { manager: params.field_manager.as_deref().unwrap_or(program), now }
}

fn options(
    kind: &Kind,
    request: &Request<Payload>,
    params: &Params<'_>,
) -> Result<delete::Options, StatusError> {
    if request.body().bytes().is_empty() {
        let propagation = params.propagation.as_deref().map(str::to_owned);
        let dry_run = params.dry_run(kind)?;
        return Ok(delete::Options { propagation, dry_run, ..delete::Options::default() });
    }
    if !accepts_json(request) {
        return Err(status::unsupported_media_type());
    }
    let body = request.body().json().map_err(|error| status::raw(error.to_string()))?;
    if !body.is_object() || body.get("kind").is_some_and(|kind| kind != "DeleteOptions") {
        return Err(status::raw("the body of a deletion is DeleteOptions"));
    }
    params::dry_run(kind, body.pointer("/dryRun/0").and_then(Value::as_str))?;
    Ok(delete::Options::read(body))
}

fn delete_one(
    server: &ApiServer,
    request: &Request<Payload>,
    target: Target<'_>,
    params: &Params<'_>,
    view: View,
) -> Answer {
    let options = options(target.kind, request, params)?;
    let now = server.now();
    let deletion = server.write(|store| delete::delete(store, target, &options, &now))?;
    Ok(match &deletion {
        Deletion::Gone(object) if !target.kind.is_namespaces() && !target.kind.is_pods() => {
            let status = status::deleted(target.kind, target.name, object::text(object, "uid"));
            respond(StatusCode::OK, json(&Wire::new(&status)))
        }
        Deletion::Gone(object) | Deletion::Pending(object) => show(StatusCode::OK, view, object),
    })
}

/// Deletes a collection and answers with what was in it.
fn delete_all(
    server: &ApiServer,
    request: &Request<Payload>,
    route: Route<'_>,
    params: &Params<'_>,
    view: View,
) -> Answer {
    let Route { kind, namespace, part, .. } = route;
    let selector = params.selector(kind)?;
    let options = options(kind, request, params)?;
    let now = server.now();
    let body = server.write(|store| -> Result<Bytes, StatusError> {
        let body = list::list(store, route, params, view)?;
        let wanted = store.all(kind, namespace).filter(|(_, object)| selector.matches(object));
        let wanted: Vec<Arc<Value>> = wanted.map(|(_, object)| object.clone()).collect();
        for object in wanted {
            let (namespace, name) = (object::text(&object, "namespace"), object::text(&object, "name"));
            delete::delete(store, Target { kind, namespace, name, part }, &options, &now)?;
        }
        Ok(body)
    })?;
    Ok(respond(StatusCode::OK, body))
}

fn media_type(request: &Request<Payload>) -> Option<&str> {
    let value = request.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    value.split(';').next().map(str::trim)
}

/// A body that does not say what it is counts as JSON.
fn accepts_json(request: &Request<Payload>) -> bool {
    !request.headers().contains_key(header::CONTENT_TYPE)
        || matches!(media_type(request), Some("application/json" | ""))
}

fn read_object(kind: &Kind, request: &Request<Payload>) -> Result<Value, StatusError> {
    if !accepts_json(request) {
        return Err(status::unsupported_media_type());
    }
    let mut object = read_json(request)?;
    if object == Value::Null && !kind.custom {
        object = Value::Object(Map::new());
    }
    object::read(kind, &mut object).map_err(|why| status::unreadable(kind, why))?;
    Ok(object)
}

fn read_json(request: &Request<Payload>) -> Result<Value, StatusError> {
    let read = request.body().json();
    read.cloned().map_err(|error| status::bad_request(format!("the body cannot be read: {error}")))
}

fn show(code: StatusCode, view: View, object: &Value) -> Response<Bytes> {
    respond(code, json(&view.of(object)))
}

pub(super) fn refuse(status: &StatusError) -> Response<Bytes> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    respond(code, json(&Wire::new(status)))
}

pub(super) fn respond(code: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn json<T: Serialize>(value: &T) -> Bytes {
    // Most objects fit, and none of them is copied while it grows.
    let mut bytes = Vec::with_capacity(4096);
    serde_json::to_writer(&mut bytes, value).expect("what is sent has texts as keys");
    bytes.into()
}
