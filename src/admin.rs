//! The admin port: `/livez`, `/readyz`, `/metrics`. Read-only; the only names that it shows are those of accounts and
//! watches.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    metrics::{self, Metrics},
    server::{Limits, Server},
};

/// A slow or idle client loses its connection, and beyond the limit a new connection takes the place of a silent one, so that
/// the kubelet still gets in.
const LIMITS: Limits = Limits {
    connections: 64,
    first_request: Duration::from_secs(5),
    idle: Duration::from_secs(5),
    lifetime: Duration::from_mins(1),
};

/// What has to be there before the process is ready: watches that are synced, a certificate. Clones share it.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<Readying>>);

#[derive(Debug)]
struct Readying {
    awaited: BTreeSet<&'static str>,
    shutting_down: bool,
}

impl Readiness {
    /// Ready once each of these is [there](Self::synced).
    #[must_use]
    pub fn awaiting(what: impl IntoIterator<Item = &'static str>) -> Self {
        let awaited = what.into_iter().collect();
        Self(Arc::new(Mutex::new(Readying { awaited, shutting_down: false })))
    }

    /// This is there now: readiness no longer waits for it.
    pub fn synced(&self, what: &str) {
        self.lock().awaited.remove(what);
    }

    /// Readiness waits for this as well.
    pub fn awaits(&self, what: &'static str) {
        self.lock().awaited.insert(what);
    }

    /// Not ready from now on.
    pub fn shut_down(&self) {
        self.lock().shutting_down = true;
    }

    /// Whether the process is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.obstacle().is_none()
    }

    /// What is in the way.
    fn obstacle(&self) -> Option<String> {
        let readying = self.lock();
        if readying.shutting_down {
            return Some("shutting down".to_owned());
        }
        let awaited: Vec<_> = readying.awaited.iter().copied().collect();
        (!awaited.is_empty()).then(|| format!("waiting for: {}", awaited.join(", ")))
    }

    fn lock(&self) -> MutexGuard<'_, Readying> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sign of life of the task that drives the work. Clones share it.
#[derive(Clone)]
pub struct Heartbeat {
    clock: Arc<dyn Clock>,
    last: Arc<Mutex<Instant>>,
}

impl Heartbeat {
    /// Pause between two beats of [`run`](Self::run).
    const INTERVAL: Duration = Duration::from_secs(5);
    /// Silence that counts as death.
    const LONGEST_SILENCE: Duration = Duration::from_secs(30);

    /// Beats once.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let last = Arc::new(Mutex::new(clock.monotonic()));
        Self { clock, last }
    }

    /// A sign of life.
    pub fn beat(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = self.clock.monotonic();
    }

    /// Whether the last sign is younger than 30 s.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.clock.monotonic().duration_since(last) < Self::LONGEST_SILENCE
    }

    /// Beats until the token is cancelled. Join it with the work in one task: a beat then shows that this task, and
    /// not only the runtime, still moves.
    pub async fn run(&self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(Self::INTERVAL);
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            self.beat();
        }
    }
}

/// What the admin server shows.
#[derive(Clone)]
pub struct AdminState {
    /// For `/readyz`.
    pub readiness: Readiness,
    /// For `/livez`.
    pub heartbeat: Heartbeat,
    /// For `/metrics`.
    pub metrics: Metrics,
}

/// A failure of the admin server.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is taken or not ours.
    #[error("failed to listen on {address}; write another address to --admin-listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A bound admin server.
#[derive(Debug)]
pub struct AdminServer(Server);

impl AdminServer {
    /// Listens; connections queue until [`serve`](Self::serve).
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(address: SocketAddr) -> Result<Self, AdminError> {
        let server = Server::bind(address).await;
        server.map(Self).map_err(|source| AdminError::Listen { address, source })
    }

    /// The address that was bound, with its port where any was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// Serves until the token is cancelled; then answers under way get five seconds.
    pub async fn serve(self, state: AdminState, stop: CancellationToken) {
        self.0.serve(router(state), LIMITS, None, stop).await;
    }
}

fn router(state: AdminState) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .with_state(state)
}

async fn livez(State(state): State<AdminState>) -> impl IntoResponse {
    if state.heartbeat.is_alive() {
        (StatusCode::OK, "alive\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no sign of life for 30 s\n")
    }
}

async fn readyz(State(state): State<AdminState>) -> impl IntoResponse {
    match state.readiness.obstacle() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(obstacle) => (StatusCode::SERVICE_UNAVAILABLE, format!("{obstacle}\n")),
    }
}

async fn metrics_page(State(state): State<AdminState>) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], state.metrics.encode())
}

#[cfg(test)]
mod tests;
