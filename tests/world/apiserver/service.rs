//! The server as a client's service: answers at once, and streams watches.

use std::convert::Infallible;

use ::http::{Request, Response};
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::client::Body;

use super::{ApiServer, Payload, http as requests, watch::Watch};

type Streamed = UnsyncBoxBody<Bytes, Infallible>;

pub(super) fn client(server: ApiServer) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = server.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(tower::BoxError::from)?.to_bytes();
            Ok::<_, tower::BoxError>(respond(&server, &Request::from_parts(head, body.into())))
        }
    });
    kube::Client::new(service, "default")
}

fn respond(server: &ApiServer, request: &Request<Payload>) -> Response<Streamed> {
    let whole = |response: Response<Bytes>| response.map(|body| Full::new(body).boxed_unsync());
    if !requests::is_watch(request) {
        return whole(server.answer(request));
    }
    match server.watch(request) {
        Ok(watch) => {
            requests::respond(::http::StatusCode::OK, Bytes::new()).map(|_| stream(server.clone(), watch))
        }
        Err(refusal) => whole(*refusal),
    }
}

/// The lines of a watch, until it ends or the client lets go of it. Its `timeoutSeconds` are not kept: a timer would
/// move a paused clock.
fn stream(server: ApiServer, watch: Watch) -> Streamed {
    let moved = server.0.moved.subscribe();
    let lines = stream::unfold((server, watch, moved), |(server, mut watch, mut moved)| async move {
        loop {
            let ended = watch.has_ended();
            moved.borrow_and_update();
            let lines = watch.next(&server);
            if !lines.is_empty() {
                let frame: Result<_, Infallible> = Ok(Frame::data(lines.concat().into()));
                return Some((frame, (server, watch, moved)));
            }
            if ended || moved.changed().await.is_err() {
                return None;
            }
        }
    });
    StreamBody::new(lines).boxed_unsync()
}
