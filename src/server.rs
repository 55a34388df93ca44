//! Serves HTTP/1.1, with a bound on everything that a client may hold: connections, time, bytes of a request's head.
//!
//! The connections are driven by hyper directly, as `axum::serve` sets no bound on how long a client may take.

mod peers;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

use self::peers::{Peers, Sign};

/// How long the head of a request may be, in bytes.
const HEADER_BYTES: usize = 16 * 1024;
/// Pause after a failure to accept, for example when file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long an answer under way may still take once its connection is to be closed: the API server waits no longer for a
/// review, and no review takes longer.
const GRACE: Duration = Duration::from_secs(5);

/// What clients may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at the same time. Beyond that, a new connection takes the place of a silent one, so that nobody can
    /// block the server by opening connections.
    pub connections: usize,
    /// From the connection to the end of the handshake of TLS; without TLS, to the head of its first request.
    pub first_request: Duration,
    /// From one request to the head of the next; with TLS, also from the handshake to the head of the first.
    pub idle: Duration,
    /// A connection is closed after this, at the end of the answer under way.
    pub lifetime: Duration,
}

/// A bound server.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens; connections queue until [`serve`](Self::serve).
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address that was bound, with the actual port if port 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the token is cancelled; then answers under way get five seconds.
    pub async fn serve(
        self,
        router: Router,
        limits: Limits,
        tls: Option<TlsAcceptor>,
        stop: CancellationToken,
    ) {
        let (mut connections, mut peers) = (JoinSet::new(), Peers::default());
        let over = CancellationToken::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next_with_id() => {
                    peers.left(ended.map_or_else(|error| error.id(), |(id, ())| id));
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        peers.make_way(address.ip(), limits.connections);
                        let sign = peers.sign();
                        let task = connection(
                            stream, router.clone(), limits, tls.clone(), sign.clone(), over.clone(),
                        );
                        peers.joined(address.ip(), sign, connections.spawn(task));
                    }
                    Err(error) => {
                        warn!(%error, "A connection was not accepted");
                        let _ = timeout(ACCEPT_PAUSE, stop.cancelled()).await;
                    }
                },
            }
        }
        over.cancel();
        while connections.join_next().await.is_some() {}
    }
}

/// Drives one connection to its end, which the limits make certain.
///
/// A client with a connection pool, such as the API server, may open one connection more than it needs and keep it for
/// later. So a connection may stay idle after the handshake for as long as between two requests; otherwise its first
/// request would meet a closed connection.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    limits: Limits,
    tls: Option<TlsAcceptor>,
    sign: Arc<Sign>,
    over: CancellationToken,
) {
    let Some(tls) = tls else { return requests(stream, router, limits, sign, over).await };
    let rested = Limits { first_request: limits.idle, ..limits };
    match timeout(limits.first_request, tls.accept(stream)).await {
        Ok(Ok(stream)) => requests(stream, router, rested, sign, over).await,
        Ok(Err(error)) => debug!(%error, "A TLS handshake failed"),
        Err(_) => debug!("A TLS handshake took too long"),
    }
}

async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    limits: Limits,
    sign: Arc<Sign>,
    over: CancellationToken,
) {
    let service = hyper::service::service_fn(|request: hyper::Request<Incoming>| {
        sign.request();
        let answer = router.clone().oneshot(request);
        let sign = sign.clone();
        async move {
            let answer = answer.await;
            sign.answer();
            answer
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let silent = async {
        let _ = timeout(limits.first_request, std::future::pending::<()>()).await;
        if sign.asked() {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = silent => return debug!("A connection brought no request in time"),
        _ = timeout(limits.lifetime, over.cancelled()) => {
            served.as_mut().graceful_shutdown();
            timeout(GRACE, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "A connection ended early");
    }
}

#[cfg(test)]
mod tests;
