//! Keeps the webhook trusted: the authorities in their Secret, this replica's leaf, the `caBundle` of the configuration.
//!
//! Every replica does the same; when two write at once, one of them gets a conflict and looks again. A turn ends with how
//! long to wait for the next one, which begins earlier if somebody touches the Secret or the configuration.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::{
    api::{admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::PostParams,
    runtime::{WatchStreamExt, watcher},
};
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    certificates::{Authorities, CertificateError, Leaf, Lives, Step},
    registration::{Configuration, Dealings, Look, Pace, Registration, Seen},
};
use crate::{
    admin::Readiness,
    api::mark,
    clock::Clock,
    env::{CallError, call, chain},
    metrics::Metrics,
};

/// What `/readyz` waits for.
pub const CERTIFICATE: &str = "the webhook's certificate, and a configuration that trusts it";
/// The Secret of the authorities.
const SECRET: &str = "bags-operator-webhook-ca";
/// The wait after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// The longest wait between two turns, as a watch may be down for long. Half a settling time is the longest wait as well: a
/// replica that hears of nothing must have followed a step before the next one is taken.
const LONGEST_WAIT: Duration = Duration::from_mins(5);
/// However short a settling time is, it makes no turn follow the last one sooner than this.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// Why a turn failed.
#[derive(Debug, thiserror::Error)]
enum TurnError {
    #[error("the Secret of the webhook's authorities could not be read or written: {}", .0.kind())]
    Secret(CallError),
    #[error("the webhook's configuration could not be read or written: {}", .0.kind())]
    Configuration(CallError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// The certificate that is served at the moment. Clones share it.
#[derive(Clone, Default, Debug)]
pub(super) struct Serving(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl Serving {
    fn serve(&self, certified: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(certified);
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a keeper is given.
pub(super) struct Keeper {
    /// For calls.
    pub(super) client: Client,
    /// For watches: a connection on which nothing happens for some minutes is ended, and the watch begun again.
    pub(super) watching: Client,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    pub(super) namespace: String,
    /// Names and addresses under which the webhook is called.
    pub(super) hosts: Vec<String>,
    pub(super) lives: Lives,
    /// Name of the configuration; `None`: somebody else keeps its `caBundle`.
    pub(super) configuration: Option<String>,
    pub(super) serving: Serving,
    pub(super) registration: watch::Sender<Registration>,
    pub(super) readiness: Readiness,
}

/// What a keeper remembers from one turn to the next.
#[derive(Default)]
struct Memory {
    leaf: Option<Leaf>,
    /// The authorities that the Secret last held: a leaf of theirs is served, whether or not the Secret still holds them.
    known: Option<Authorities>,
    /// The bundle that the configuration has had without a break, in which generation of the configuration, and since when.
    trusted: Option<(String, Option<i64>, Instant)>,
    /// When the Secret was last written.
    secret: Pace,
    configuration: Dealings,
}

/// Whether to go on with a turn.
enum Go {
    On,
    /// Not before so much time has passed.
    After(Duration),
}

impl Keeper {
    /// Takes turns until the token is cancelled. That ends a turn in the middle, as an API server that does not answer
    /// would otherwise delay the end of the process; another replica, or the next process, reads again what was written by
    /// then.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut memory = Memory::default();
        let mut touched = Box::pin(self.touched());
        loop {
            let Some(turn) = stop.run_until_cancelled(self.turn(&mut memory)).await else { return };
            let wait = match turn {
                Ok(wait) => wait.min((self.lives.settle / 2).clamp(SHORTEST_WAIT, LONGEST_WAIT)),
                Err(error) => {
                    warn!(error = %chain(&error), "The webhook's certificates are looked at again");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = touched.next() => {}
                _ = tokio::time::timeout(wait, std::future::pending::<()>()) => {}
            }
        }
    }

    /// An item each time that somebody touches the Secret or the configuration.
    fn touched(&self) -> impl Stream<Item = ()> + Send + use<> {
        let secrets: Api<Secret> = Api::namespaced(self.watching.clone(), &self.namespace);
        let secret = watcher::watch_object(secrets, SECRET).default_backoff().map(drop).boxed();
        let configuration = self.configuration.as_ref().map(|name| {
            let all: Api<ValidatingWebhookConfiguration> = Api::all(self.watching.clone());
            watcher::watch_object(all, name).default_backoff().map(drop).boxed()
        });
        stream::select_all([Some(secret), configuration].into_iter().flatten())
    }

    /// One look at everything; after how long the next one is due.
    async fn turn(&self, memory: &mut Memory) -> Result<Duration, TurnError> {
        let now = self.clock.wall();
        // Read before the Secret, but a failure of this read is looked at only afterwards: a leaf is served whether or not
        // there is an answer.
        let seen = self.seen().await;
        let (secret, authorities) = match self.authorities(memory, &seen).await? {
            Ok(found) => found,
            Err(wait) => return Ok(wait),
        };
        memory.known = Some(authorities.clone());
        let leaf = match memory.leaf.take().filter(|leaf| !leaf.due(authorities.signing(), now).is_zero()) {
            Some(leaf) => leaf,
            None => self.issue(&authorities)?,
        };
        let renewal = leaf.due(authorities.signing(), now);
        self.metrics.webhook_certificate(leaf.ends());
        memory.leaf = Some(leaf);
        if let Go::After(wait) = self.trusted(seen?, &authorities.bundle(), memory).await? {
            return Ok(wait);
        }
        self.readiness.synced(CERTIFICATE);
        let since = memory.trusted.as_ref().map(|(_, _, since)| *since);
        let trusted = since.map(|since| self.clock.monotonic().saturating_duration_since(since));
        match authorities.step(now, &self.lives, trusted.unwrap_or_default())? {
            Step::Wait(wait) => Ok(wait.min(renewal).max(Duration::from_millis(50))),
            Step::Write(next) => self.write(secret, &next, &mut memory.secret).await,
        }
    }

    /// The authorities, read live; or else after how long they are to be read again, because they were just written, by
    /// this replica or another one, or have to be.
    async fn authorities(
        &self,
        memory: &mut Memory,
        seen: &Result<Option<Seen>, TurnError>,
    ) -> Result<Result<(Secret, Authorities), Duration>, TurnError> {
        let now = self.clock.wall();
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = call(secrets.get_opt(SECRET)).await.map_err(TurnError::Secret)?;
        let bundle = bundle_of(seen);
        let fresh = |known: &Option<Authorities>| match known {
            Some(known) => known.succeeded(now, &self.lives),
            None => Authorities::beside(bundle.unwrap_or_default().as_bytes(), now, &self.lives),
        };
        let displaced = |found: &Authorities| {
            memory.known.as_ref().filter(|known| self.displaced(known, found, bundle, memory))
        };
        match found {
            Some(secret) => match Authorities::of(&secret) {
                Some(found) => match displaced(&found) {
                    None => Ok(Ok((secret, found))),
                    Some(known) => {
                        warn!(
                            secret = SECRET,
                            "Another authority took the place of ours, which is trusted and is put back"
                        );
                        let next = known.put_back(&found, now, &self.lives);
                        self.write(secret, &next, &mut memory.secret).await.map(Err)
                    }
                },
                None => {
                    warn!(secret = SECRET, "The Secret holds no usable authority, and is written anew");
                    self.write(secret, &fresh(&memory.known)?, &mut memory.secret).await.map(Err)
                }
            },
            None => {
                let Memory { known, secret: pace, .. } = memory;
                if let Some(left) = pace.pause(self.clock.monotonic()) {
                    return Ok(Err(left));
                }
                let labels = [(mark::MANAGED_BY.0.to_owned(), mark::MANAGED_BY.1.to_owned())].into();
                let metadata = ObjectMeta {
                    name: Some(SECRET.to_owned()),
                    labels: Some(labels),
                    ..ObjectMeta::default()
                };
                let mut secret = Secret { metadata, ..Secret::default() };
                fresh(known)?.put_into(&mut secret);
                match call(secrets.create(&PostParams::default(), &secret)).await {
                    Ok(_) => info!(secret = SECRET, "Made the Secret of the webhook's authorities"),
                    Err(error) if error.is_conflict() => {}
                    Err(error) => return Err(TurnError::Secret(error)),
                }
                Ok(Err(Duration::ZERO))
            }
        }
    }

    /// Whether the authorities that were `found` have displaced the `known` and trusted ones without being a step of their
    /// replacement, as when a replica that had never seen the known ones found no Secret. Leaves of the found ones are
    /// trusted by nobody yet, unless the configuration has held a bundle with them for a settling time.
    fn displaced(
        &self,
        known: &Authorities,
        found: &Authorities,
        bundle: Option<&str>,
        memory: &Memory,
    ) -> bool {
        let settled = memory.trusted.as_ref().is_some_and(|(bundle, _, since)| {
            let passed = self.clock.monotonic().saturating_duration_since(*since);
            found.is_trusted_by(bundle) && passed >= self.lives.settle
        });
        !found.is_step_of(known)
            && known.ends() > self.clock.wall()
            && bundle.is_none_or(|bundle| known.is_trusted_by(bundle))
            && !settled
    }

    /// Writes authorities over the version of the Secret that was read; after a conflict, the faster writer's version is
    /// read next. Returns after how long the next turn is due: if something keeps removing the authorities from the Secret,
    /// they are not written again without a pause.
    async fn write(
        &self,
        mut secret: Secret,
        next: &Authorities,
        pace: &mut Pace,
    ) -> Result<Duration, TurnError> {
        if let Some(left) = pace.pause(self.clock.monotonic()) {
            return Ok(left);
        }
        next.put_into(&mut secret);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        match call(secrets.replace(SECRET, &PostParams::default(), &secret)).await {
            Ok(_) => {
                info!(secret = SECRET, "The webhook's authorities went a step on");
                Ok(Duration::ZERO)
            }
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(Duration::ZERO),
            Err(error) => Err(TurnError::Secret(error)),
        }
    }

    /// Signs a leaf and serves it from now on.
    fn issue(&self, authorities: &Authorities) -> Result<Leaf, CertificateError> {
        let leaf = authorities.signing().issue(&self.hosts, self.clock.wall(), self.lives.leaf)?;
        self.serving.serve(leaf.certified.clone());
        info!(until = %leaf.ends(), "Signed a certificate for the webhook");
        Ok(leaf)
    }

    /// The configuration whose `caBundle` is kept.
    fn kept(&self) -> Option<Configuration<'_>> {
        let name = self.configuration.as_ref()?;
        Some(Configuration::new(self.client.clone(), name, &self.hosts))
    }

    /// The configuration as it is now; `None`: somebody else keeps it.
    async fn seen(&self) -> Result<Option<Seen>, TurnError> {
        match self.kept() {
            Some(configuration) => configuration.read().await.map(Some).map_err(TurnError::Configuration),
            None => Ok(None),
        }
    }

    /// Sees that the API server is told to trust this bundle.
    async fn trusted(&self, seen: Option<Seen>, bundle: &str, memory: &mut Memory) -> Result<Go, TurnError> {
        let looked = match (self.kept(), seen) {
            (Some(configuration), Some(seen)) => {
                let now = self.clock.monotonic();
                configuration
                    .ensure(seen, bundle, &mut memory.configuration, now)
                    .await
                    .map_err(TurnError::Configuration)?
            }
            (None, _) | (_, None) => Look::Settled(Registration::Unwatched),
        };
        let registration = match looked {
            Look::Settled(registration) => registration,
            Look::Paused(left) => {
                memory.trusted = None;
                return Ok(Go::After(left));
            }
        };
        self.metrics.webhook_registered(registration == Registration::Registered);
        self.registration.send_if_modified(|last| {
            let changed = *last != registration;
            if changed {
                // The log says so as well: there may be no account yet whose condition would.
                if let Some((false, reason, told)) = registration.told() {
                    warn!(reason, "{told}");
                }
                *last = registration.clone();
            }
            changed
        });
        let trusted = registration.trusts();
        let generation = memory.configuration.generation();
        match &memory.trusted {
            Some((known, of, _)) if trusted && known == bundle && *of == generation => {}
            _ if trusted => memory.trusted = Some((bundle.to_owned(), generation, self.clock.monotonic())),
            _ => memory.trusted = None,
        }
        // A configuration that is missing is no reason not to serve: it may be made at any moment.
        Ok(match trusted || matches!(registration, Registration::Missing(_)) {
            true => Go::On,
            false => Go::After(RETRY),
        })
    }
}

/// The bundle that the API server trusts when it calls the webhook; `None`: it is not known.
fn bundle_of(seen: &Result<Option<Seen>, TurnError>) -> Option<&str> {
    let Ok(Some(Ok(configuration))) = seen else { return None };
    let webhook = configuration.webhooks.iter().flatten().next()?;
    let bundle = webhook.client_config.ca_bundle.as_ref();
    Some(bundle.and_then(|bundle| std::str::from_utf8(&bundle.0).ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
