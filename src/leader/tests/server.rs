//! An API server that knows one Lease, and the way to it, which may lose and delay what it carries.
//!
//! It does what the real one does (`tests/operator/election.rs` meets that): a version that is not the newest is a
//! conflict, and so is a uid that is not the object's; a write without a version is let through, and creates what is
//! not there. What was sent arrives, though its sender gave up waiting.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use http::Method;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    clock::{Clock, SystemClock},
    fixtures::{Came, failure, slow_server},
};

/// What happens to one request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Way {
    /// It takes so long to arrive.
    pub(super) there: Duration,
    /// And its answer so long to come back.
    pub(super) back: Duration,
    pub(super) fate: Fate,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Fate {
    /// It is answered.
    #[default]
    Answered,
    /// It never arrives.
    Lost,
    /// It arrives, and the answer is lost.
    Unanswered,
    /// The server has a bad moment.
    Refused,
}

/// Chooses the way of each request.
pub(super) type Ways = Arc<dyn Fn() -> Way + Send + Sync>;

/// A request that arrived.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) who: &'static str,
    pub(super) method: Method,
    pub(super) code: u16,
    pub(super) at: Instant,
}

/// Looks at changes of the Lease.
pub(super) type Witness = Box<dyn FnMut(&'static str, &Value) + Send>;

#[derive(Default)]
pub(super) struct State {
    pub(super) lease: Option<Value>,
    /// Versions and uids are numbered through.
    number: u64,
    pub(super) arrived: Vec<Arrived>,
    /// Looks at each change, with who made it.
    pub(super) witness: Option<Witness>,
}

/// Clones share one state.
#[derive(Clone, Default)]
pub(super) struct Server(Arc<Mutex<State>>);

impl Server {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The Lease as it is stored.
    pub(super) fn lease(&self) -> Option<Lease> {
        self.state().lease.clone().map(|lease| serde_json::from_value(lease).unwrap())
    }

    /// Somebody changes the Lease by hand.
    pub(super) fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        state.number += 1;
        let version = state.number.to_string();
        let lease = state.lease.as_mut().unwrap();
        change(lease);
        lease["metadata"]["resourceVersion"] = json!(version);
    }

    /// Requests that arrived from somebody, by method and answer.
    pub(super) fn from(&self, who: &str) -> Vec<(Method, u16)> {
        let state = self.state();
        let ours = state.arrived.iter().filter(|arrived| arrived.who == who);
        ours.map(|arrived| (arrived.method.clone(), arrived.code)).collect()
    }

    /// A client whose requests take these ways.
    pub(super) fn client(&self, who: &'static str, ways: Ways) -> Client {
        let server = self.clone();
        slow_server(move |Came { method, body, .. }| {
            // A task: whoever gives up waiting does not call back what is on its way.
            let answer = arrive(server.clone(), who, ways(), method, body);
            async { answer.await.unwrap_or_else(|_| unreachable!("it does not panic")) }
        })
    }

    fn answer(&self, who: &'static str, method: &Method, sent: Value) -> (u16, Value) {
        let mut state = self.state();
        let (code, answer) = state.answer(method, sent);
        let at = SystemClock.monotonic();
        state.arrived.push(Arrived { who, method: method.clone(), code, at });
        if method != Method::GET && code < 300 {
            let mut witness = state.witness.take();
            drop(state);
            if let Some(witness) = &mut witness {
                witness(who, &answer);
            }
            self.state().witness = witness;
        }
        (code, answer)
    }
}

impl State {
    fn answer(&mut self, method: &Method, sent: Value) -> (u16, Value) {
        let text = |object: &Value, field: &str| object["metadata"][field].as_str().map(str::to_owned);
        match (method, &self.lease) {
            (&Method::GET, Some(lease)) => (200, lease.clone()),
            (&Method::GET, None) => failure(404, "NotFound"),
            (&Method::POST, Some(_)) => failure(409, "AlreadyExists"),
            (&Method::POST, None) => self.store(sent, 201),
            (&Method::PUT, stored) => {
                let of_stored = |field| stored.as_ref().and_then(|lease| text(lease, field));
                let differs = |field| text(&sent, field).is_some_and(|sent| Some(sent) != of_stored(field));
                if differs("uid") || (stored.is_some() && differs("resourceVersion")) {
                    return failure(409, "Conflict");
                }
                self.store(sent, 200)
            }
            (other, _) => panic!("{other} is not expected"),
        }
    }

    fn store(&mut self, mut lease: Value, code: u16) -> (u16, Value) {
        self.number += 1;
        let uid = self
            .lease
            .as_ref()
            .map_or(json!(format!("uid-{}", self.number)), |stored| stored["metadata"]["uid"].clone());
        lease["metadata"]["uid"] = uid;
        lease["metadata"]["resourceVersion"] = json!(self.number.to_string());
        self.lease = Some(lease.clone());
        (code, lease)
    }
}

#[expect(clippy::disallowed_methods, reason = "the network of a test: it has nobody to wait for it")]
fn arrive(
    server: Server,
    who: &'static str,
    way: Way,
    method: Method,
    body: Value,
) -> tokio::task::JoinHandle<(u16, Value)> {
    tokio::spawn(async move {
        let Way { there, back, fate } = way;
        tokio::time::sleep(there).await;
        let answer = match fate {
            Fate::Lost => std::future::pending().await,
            Fate::Refused => failure(500, "InternalError"),
            Fate::Answered | Fate::Unanswered => server.answer(who, &method, body),
        };
        if matches!(fate, Fate::Unanswered) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(back).await;
        answer
    })
}
