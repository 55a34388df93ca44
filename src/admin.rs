//! The admin port: `/livez`, `/readyz`, `/metrics`. Read-only, and names nothing but accounts and watches.
//!
//! The connections are driven by hyper directly, as `axum::serve` sets no bound on how long a client may take: here
//! a slow or idle client loses its connection, and there are never more than a few.

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
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    clock::Clock,
    metrics::{self, Metrics},
};

/// A client may take so long for the head of a request; and may be idle so long between two.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// A connection is closed after this, at the end of the answer under way.
const CONNECTION_LIFETIME: Duration = Duration::from_mins(1);
/// An answer under way may take so long when a connection is closed.
const GRACE: Duration = Duration::from_secs(1);
/// The head of a request may be so long, in bytes.
const HEADER_BYTES: usize = 16 * 1024;
/// Connections at the same time; more wait in the system's queue.
const CONNECTIONS: usize = 64;
/// Pause after a failure to accept, for example when file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The watches that have to be synced before the process is ready. Clones share it.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<Readying>>);

#[derive(Debug)]
struct Readying {
    awaited: BTreeSet<&'static str>,
    shutting_down: bool,
}

impl Readiness {
    /// Ready once each of these watches is [`synced`](Self::synced).
    #[must_use]
    pub fn awaiting(watches: impl IntoIterator<Item = &'static str>) -> Self {
        let awaited = watches.into_iter().collect();
        Self(Arc::new(Mutex::new(Readying { awaited, shutting_down: false })))
    }

    /// A watch has seen everything once.
    pub fn synced(&self, watch: &str) {
        self.lock().awaited.remove(watch);
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
        (!awaited.is_empty()).then(|| format!("waiting for the watch of {}", awaited.join(", ")))
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

/// What the admin server tells.
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
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl AdminServer {
    /// Listens; connections queue until [`serve`](Self::serve).
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(address: SocketAddr) -> Result<Self, AdminError> {
        let failed = |source| AdminError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address that was bound, with its port where any was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the token is cancelled; then answers under way get a second.
    pub async fn serve(self, state: AdminState, stop: CancellationToken) {
        let router = router(state);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(connection(stream, router.clone(), stop.clone()));
                    }
                    Err(error) => {
                        warn!(%error, "Admin connection was not accepted");
                        let _ = timeout(ACCEPT_PAUSE, stop.cancelled()).await;
                    }
                },
            }
        }
        while connections.join_next().await.is_some() {}
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

/// Drives one connection to its end, which comes soon in any case.
async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        _ = timeout(CONNECTION_LIFETIME, stop.cancelled()) => {
            served.as_mut().graceful_shutdown();
            timeout(GRACE, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "Admin connection ended early");
    }
}

#[cfg(test)]
mod tests;
