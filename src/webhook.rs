//! The admission webhook: refuses at once what does not fit, with numbers and a way out.
//!
//! It runs on every replica, leading or not. Its word is a convenience of people, never a guarantee: the controllers ask
//! the same functions again before anything is made, so an outage of the webhook stops new ApiKeys only, and a webhook
//! that is passed by changes nothing about what Bags is asked for.

pub mod admission;
mod body;
pub mod certificates;
pub mod keeper;
mod reads;
pub mod registration;
mod review;
mod service;
pub mod verdict;

use std::{io, net::SocketAddr, sync::Arc};

use axum::Router;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::{
    admission::Admission,
    certificates::Lives,
    keeper::{Keeper, Serving},
    registration::Registration,
};
use crate::{admin::Readiness, context::Context, server::Server};

/// How the webhook is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Where it listens; port 0: a free one.
    pub listen: SocketAddr,
    /// Names and addresses under which the API server calls it.
    pub hosts: Vec<String>,
    /// The ValidatingWebhookConfiguration whose `caBundle` is kept; `None`: somebody else does.
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

    /// Serves until the token is cancelled, and keeps its certificates.
    pub async fn run(
        self,
        context: Arc<Context>,
        registration: watch::Sender<Registration>,
        readiness: Readiness,
        stop: CancellationToken,
    ) {
        let Self { server, config, serving, acceptor } = self;
        let keeper = Keeper {
            client: context.env.kube.clone(),
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
        tokio::join!(server.serve(router, service::LIMITS, Some(acceptor), stop.clone()), keeper.run(stop));
    }
}

/// What the webhook answers, without a listener: reviews are sent to `/admit`. Once `stop` is cancelled, clients are asked
/// to close their connections.
pub fn router(context: &Arc<Context>, stop: CancellationToken) -> Router {
    service::router(Admission::new(context.clone()), context.metrics.clone(), stop)
}
