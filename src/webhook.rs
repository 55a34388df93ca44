//! The admission webhook: refuses at once what does not fit, with numbers and a way out.
//!
//! It runs on every replica, leading or not. Its verdict is a convenience for people, never a guarantee: the controllers
//! ask the same functions again before anything is made. So an outage of the webhook stops new ApiKeys only, and an ApiKey
//! that bypasses it changes nothing about what Bags is asked for.

pub mod admission;
mod body;
pub mod certificates;
pub mod keeper;
mod reads;
pub mod registration;
mod review;
mod service;
pub mod verdict;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use kube::Client;
use tokio::{sync::watch, time::timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::{
    admission::Admission,
    certificates::Lives,
    keeper::{Keeper, Serving},
    registration::Registration,
};
use crate::{admin::Readiness, context::Context, server::Server};

/// How long reviews are answered after the stop: this replica is called like the others until every node has heard that it
/// ends, which takes some seconds.
const LINGER: Duration = Duration::from_secs(10);

/// How the webhook is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Where it listens; port 0: a free one.
    pub listen: SocketAddr,
    /// Names and addresses under which the API server calls it.
    pub hosts: Vec<String>,
    /// The ValidatingWebhookConfiguration whose `caBundle` this process maintains; `None`: somebody else does.
    pub configuration: Option<String>,
    /// How long certificates live.
    pub lives: Lives,
}

/// A failure to start the webhook.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The address is taken or not ours.
    #[error("failed to listen on {address}; write another address to --webhook-listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The TLS library refused its own defaults.
    #[error("failed to set TLS up")]
    Tls(#[source] rustls::Error),
}

/// What the keeper of the webhook's certificates is given.
pub struct Keeping {
    /// A client for watches: it gives up a silent connection only after some minutes.
    pub watching: Client,
    /// Where the keeper reports whether the API server sends new ApiKeys to the webhook.
    pub registration: watch::Sender<Registration>,
    /// Where the keeper reports that there is a certificate, and a configuration that trusts it.
    pub readiness: Readiness,
}

/// A webhook that listens.
pub struct Webhook {
    server: Server,
    config: WebhookConfig,
    serving: Serving,
    acceptor: TlsAcceptor,
}

impl Webhook {
    /// Listens; connections queue until [`run`](Self::run).
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub async fn bind(config: WebhookConfig) -> Result<Self, WebhookError> {
        let address = config.listen;
        let failed = |source| WebhookError::Listen { address, source };
        let server = Server::bind(address).await.map_err(failed)?;
        let serving = Serving::default();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(WebhookError::Tls)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(serving.clone()));
        Ok(Self { server, config, serving, acceptor: TlsAcceptor::from(Arc::new(tls)) })
    }

    /// The address that was bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Answers reviews and maintains the certificates until ten seconds after `stop`, or until `over` if that comes later:
    /// a process that has lost its Lease may have saves running for minutes, and answering reviews needs no Lease.
    pub async fn run(
        self,
        context: Arc<Context>,
        keeping: Keeping,
        stop: CancellationToken,
        over: CancellationToken,
    ) {
        let Self { server, config, serving, acceptor } = self;
        let Keeping { watching, registration, readiness } = keeping;
        let keeper = Keeper {
            client: context.env.kube.clone(),
            watching,
            clock: context.env.clock.clone(),
            metrics: context.metrics.clone(),
            namespace: context.settings.installation.namespace.clone(),
            hosts: config.hosts,
            lives: config.lives,
            configuration: config.configuration,
            serving,
            registration,
            readiness,
        };
        let router = router(&context, stop.clone());
        let ended = CancellationToken::new();
        let end = async {
            end(&stop, &over).await;
            ended.cancel();
        };
        let serve = server.serve(router, service::LIMITS, Some(acceptor), ended.clone());
        tokio::join!(serve, keeper.run(ended.clone()), end);
    }
}

/// Waits until the webhook is to end.
async fn end(stop: &CancellationToken, over: &CancellationToken) {
    stop.cancelled().await;
    let _ = timeout(LINGER, std::future::pending::<()>()).await;
    over.cancelled().await;
}

/// What the webhook answers, without a listener: reviews are sent to `/admit`. Once `stop` is cancelled, clients are asked
/// to close their connections.
pub fn router(context: &Arc<Context>, stop: CancellationToken) -> Router {
    service::router(Admission::new(context.clone()), context.metrics.clone(), stop)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_ten_seconds_after_the_stop_and_not_before_the_process() {
        let (stop, over) = (CancellationToken::new(), CancellationToken::new());
        let mut ends = Box::pin(end(&stop, &over));
        over.cancel();
        assert!(timeout(LINGER * 2, ends.as_mut()).await.is_err(), "nobody was told to end");
        stop.cancel();
        assert!(
            timeout(LINGER - Duration::from_millis(1), ends.as_mut()).await.is_err(),
            "it is still called"
        );
        assert!(timeout(Duration::from_millis(2), ends.as_mut()).await.is_ok());

        let over = CancellationToken::new();
        let mut ends = Box::pin(end(&stop, &over));
        assert!(timeout(LINGER * 10, ends.as_mut()).await.is_err(), "a save runs");
        over.cancel();
        assert!(ends.now_or_never().is_some());
    }
}
