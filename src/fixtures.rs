//! Fixtures that the unit tests of several modules share: a scripted API server, an operator process that talks to it, and small
//! objects.

use std::{
    future::{Future, ready},
    sync::{Arc, Mutex},
};

use clap::Parser;
use http::{Method, Request, Response};
use kube::{Client, client::Body};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    api::{ApiKey, BagsAccount, account::Installation},
    bags::{BagsService, TransportError},
    clock::{Randomness, SystemClock},
    config::{Cli, Command, Config},
    context::Context,
    env::Env,
    operator::parts::{self, Watches},
    saves::Saves,
    webhook::registration::Registration,
};

/// A request that the API server received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) uri: String,
    pub(crate) accept: String,
    pub(crate) content: String,
    /// `null` where nothing was sent.
    pub(crate) body: Value,
}

impl Came {
    /// The path, without the query.
    pub(crate) fn path(&self) -> &str {
        self.uri.split('?').next().unwrap_or_default()
    }
}

/// Requests, in the order in which they came.
pub(crate) type Requests = Arc<Mutex<Vec<Came>>>;

/// The methods of the requests, in one line.
pub(crate) fn methods(came: &Requests) -> String {
    came.lock().unwrap().iter().map(|request| request.method.as_str()).collect::<Vec<_>>().join(" ")
}

/// A client of an API server that answers each request at once; `answer` gets the request and the number of requests before it.
pub(crate) fn server(
    mut answer: impl FnMut(&Came, usize) -> (u16, Value) + Send + 'static,
) -> (Client, Requests) {
    let came = Requests::default();
    let seen = came.clone();
    let client = slow_server(move |request| {
        let mut seen = seen.lock().unwrap();
        let answer = answer(&request, seen.len());
        seen.push(request);
        ready(answer)
    });
    (client, came)
}

/// A client of an API server whose answers are futures, so that they can be slow.
pub(crate) fn slow_server<F: Future<Output = (u16, Value)> + Send + 'static>(
    answer: impl FnMut(Came) -> F + Send + 'static,
) -> Client {
    let answer = Arc::new(Mutex::new(answer));
    // All of it happens inside the future: a panic there ends the test, while the client turns a panic in the call itself into an
    // error.
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let header = |name: &str| {
                head.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
            };
            let request = Came {
                accept: header("accept"),
                content: header("content-type"),
                uri: head.uri.to_string(),
                method: head.method.clone(),
                body: if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() },
            };
            let answer = (answer.lock().unwrap())(request);
            let (code, body) = answer.await;
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            Ok::<_, kube::Error>(Response::builder().status(code).body(body).unwrap())
        }
    });
    Client::new(service, "unused")
}

/// The answer of an API server that refuses or fails.
pub(crate) fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                        "reason": reason, "message": "no"});
    (code, status)
}

/// The installation that the process of [`process`] belongs to.
pub(crate) fn installation() -> Installation {
    Installation { cluster: "cluster-0".into(), namespace: "bags-system".into() }
}

/// A process with these caches that talks to this API server; every request to Bags fails.
pub(crate) fn process(watches: &Watches, kube: Client) -> Arc<Context> {
    let env = Env {
        kube,
        bags: BagsService::new(tower::service_fn(|_| async { Err(TransportError::Broken) })),
        clock: Arc::new(SystemClock),
        randomness: Randomness::from_seed(1),
        saves: Saves::default(),
    };
    let Command::Run(flags) = Cli::parse_from(["bags-operator", "run", "--namespace=bags-system"]).command;
    let config = Config::try_from(*flags).unwrap();
    let registration = tokio::sync::watch::channel(Registration::Unwatched).1;
    Arc::new(parts::context(&config, env, installation(), watches, registration))
}

/// A small ApiKey whose metadata, spec and status are overwritten with the fields given here.
pub(crate) fn api_key(over: &Value) -> ApiKey {
    let usual = json!({
        "apiVersion": "keys.bags.fm/v1alpha1", "kind": "ApiKey",
        "metadata": {"name": "web", "namespace": "shop", "uid": "uid-0"},
        "spec": {"accountRef": {"name": "main"}, "environment": "production"},
    });
    object(usual, over)
}

/// A small account whose metadata, spec and status are overwritten with the fields given here.
pub(crate) fn bags_account(over: &Value) -> BagsAccount {
    let usual = json!({
        "apiVersion": "keys.bags.fm/v1alpha1", "kind": "BagsAccount",
        "metadata": {"name": "main"}, "spec": {"credentials": {}},
    });
    object(usual, over)
}

fn object<K: DeserializeOwned>(mut usual: Value, over: &Value) -> K {
    for (part, fields) in over.as_object().unwrap() {
        match &mut usual[part] {
            missing @ Value::Null => *missing = fields.clone(),
            known => lay_over(known, fields),
        }
    }
    serde_json::from_value(usual).unwrap()
}

/// Overwrites the fields of an object with these.
pub(crate) fn lay_over(object: &mut Value, over: &Value) {
    for (field, value) in over.as_object().unwrap() {
        object[field] = value.clone();
    }
}
