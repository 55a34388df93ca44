//! Puts the parts together: watches, controllers, election, admin server, shutdown.
//!
//! Every process keeps its caches filled for as long as it answers from them; only the leader reconciles. Three watches
//! feed two controllers. Which other objects a change concerns is decided in [`wake`] and nowhere else: a change of an
//! account wakes the ApiKeys that wait for something from it, a keystore Secret wakes its ApiKey, credentials wake their
//! account.

mod caches;
mod end;
mod gate;
pub mod parts;
mod synced;
pub mod wake;

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, channel::mpsc::UnboundedReceiver};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{
        Config as ControllerConfig, Controller,
        controller::Action,
        reflector::{ObjectRef, Store},
    },
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span};

use self::{
    caches::{Changes, Told},
    end::End,
    gate::Gate,
    parts::Watches,
    synced::Synced,
};
use crate::{
    account,
    admin::{AdminError, AdminServer, AdminState, Heartbeat, Readiness},
    api::{ApiKey, BagsAccount, account::Installation},
    apikey,
    bags::{self, HttpsError},
    clock::{Clock, Randomness, SystemClock},
    config::{Config, KubernetesAccessError},
    context::Context,
    env::{CallError, Env, call},
    leader::{Elector, Leadership, Loss, elector::Participant},
    saves::Saves,
    shutdown::Signals,
    webhook::{self, Keeping, Webhook, WebhookError, registration::Registration},
};

/// A connection to Bags is given up after this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The API server must send something within this while it answers a request.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for watches: each asks the API server to end it after 290 s (kube's default), so a longer silence means that
/// the connection is dead. Without a limit, a list that is never answered would blind a leader that goes on renewing its
/// Lease.
const WATCH_READ_TIMEOUT: Duration = Duration::from_secs(300);
/// The namespace whose uid stands for the cluster.
const CLUSTER_NAMESPACE: &str = "kube-system";

/// Why the operator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The API server cannot be reached as configured.
    #[error("failed to find out how to reach the API server")]
    Access(#[source] KubernetesAccessError),
    /// The client for the API server cannot be made.
    #[error("failed to make a client for the API server")]
    Client(#[source] Box<kube::Error>),
    /// The client for Bags cannot be made.
    #[error("failed to make a client for Bags")]
    Bags(#[source] HttpsError),
    /// The file of certificate authorities cannot be read.
    #[error("failed to read the certificate authorities in {path}")]
    Authorities {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The operating system has no randomness.
    #[error("failed to get randomness from the operating system")]
    Randomness,
    /// Signals cannot be caught.
    #[error("failed to catch signals")]
    Signals(#[source] std::io::Error),
    /// The admin server cannot listen.
    #[error("failed to start the admin server")]
    Admin(#[source] AdminError),
    /// The admission webhook cannot be served.
    #[error("failed to start the admission webhook")]
    Webhook(#[source] WebhookError),
    /// The cluster cannot be told apart from others.
    #[error(
        "failed to read namespace \"{CLUSTER_NAMESPACE}\", whose uid stands for the cluster (the operator needs the right to get it)"
    )]
    Cluster(#[source] CallError),
    /// The cluster has no uid: it could not be told from others without one, and their ledgers and keys would be taken for
    /// its own.
    #[error(
        "namespace \"{CLUSTER_NAMESPACE}\" has no uid, which stands for the cluster: the API server does not give any"
    )]
    NoClusterUid,
    /// The custom resources are not there, or may not be listed.
    #[error(
        "failed to list {kind}; install the CRDs with: kubectl apply -f crds/, and see that the operator may list them"
    )]
    Resources {
        /// Which kind.
        kind: &'static str,
        /// What the API server said.
        #[source]
        source: CallError,
    },
    /// The Lease was lost. Since then saves under way have come to their end, and nothing new was begun.
    #[error("failed to keep leading; another process may lead now, and this one has to begin anew")]
    Leadership(#[source] Loss),
}

/// Runs the operator until it is told to end.
///
/// # Errors
/// See [`RunError`]. Once the operator runs, the only error is the loss of the Lease: it goes on through every other
/// failure.
pub async fn run(config: Config) -> Result<(), RunError> {
    let (stop, over) = (CancellationToken::new(), CancellationToken::new());
    let signals = Signals::catch().map_err(RunError::Signals)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let access = config.kubernetes.read().await.map_err(RunError::Access)?;
    let watching = client(access.clone(), Some(WATCH_READ_TIMEOUT))?;
    let calling = client(access, Some(READ_TIMEOUT))?;
    let admin = AdminServer::bind(config.admin_listen).await.map_err(RunError::Admin)?;
    info!(address = %admin.address(), "Serving /livez, /readyz and /metrics");

    let env = Env {
        kube: calling,
        bags: bags_service(&config).await?,
        clock: clock.clone(),
        randomness: Randomness::from_system().map_err(|_| RunError::Randomness)?,
        saves: Saves::default(),
    };
    check_resources(&env.kube).await?;
    let installation =
        Installation { cluster: cluster_uid(&env.kube).await?, namespace: config.namespace.clone() };
    info!(cluster = %installation.cluster, namespace = %installation.namespace, bags = %config.bags_url, "Started");

    let watches = Watches::new();
    let readiness = Readiness::awaiting(["ApiKey", "BagsAccount", "Secret"]);
    let heartbeat = Heartbeat::new(clock);
    let (registered, registration) = watch::channel(Registration::Unknown);
    let context = Arc::new(parts::context(&config, env, installation, &watches, registration));
    let webhook = webhook(&config, &readiness, &registered).await?;
    let state = AdminState {
        readiness: readiness.clone(),
        heartbeat: heartbeat.clone(),
        metrics: context.metrics.clone(),
    };
    let (leadership, elector) = election(&config, &context);
    let synced = Synced::new(readiness.clone());
    let filled = synced.clone();
    let gate = Gate { context: context.clone(), synced, leadership: leadership.clone(), stop: stop.clone() };
    let keeping =
        Keeping { watching: watching.clone(), registration: registered, readiness: readiness.clone() };
    let (filling, told) = caches::caches(watching, watches, &gate);
    let controllers = controllers(gate, told, usize::from(config.concurrency));
    let saves = &context.env.saves;
    let end = End { saves, readiness: &readiness, leadership: &leadership, stop: &stop, over: &over };
    // In one task, and in turns, so that a process that is stuck in one of these does not renew its Lease either.
    let (elected, ..) = tokio::join!(
        async {
            match elector {
                Some(elector) => {
                    // Who cannot see anything yet leaves the Lease to one that can.
                    let _ = stop.run_until_cancelled(filled.wait()).await;
                    elector.run(&stop, &over).await
                }
                None => Ok(()),
            }
        },
        signals.cancel(stop.clone()),
        admin.serve(state, over.clone()),
        heartbeat.run(over.clone()),
        caches::kept(filling, serve(webhook, &context, keeping, &stop, &over), &over),
        end.after(controllers),
    );
    info!("Ended");
    elected.map_err(RunError::Leadership)
}

/// Whether this process leads, and its part in the election, unless it runs alone.
fn election(config: &Config, context: &Context) -> (Leadership, Option<Elector>) {
    let Env { kube, clock, randomness, bags: _, saves: _ } = &context.env;
    let Some(timings) = config.leader else {
        return (Leadership::alone(clock.clone(), context.metrics.clone()), None);
    };
    let leadership = Leadership::awaited(clock.clone(), context.metrics.clone());
    let participant = Participant {
        client: kube.clone(),
        namespace: config.namespace.clone(),
        instance: config.instance.clone(),
        timings,
        clock: clock.clone(),
        randomness: randomness.clone(),
        metrics: context.metrics.clone(),
    };
    (leadership.clone(), Some(Elector::new(participant, leadership)))
}

fn client(mut access: kube::Config, read_timeout: Option<Duration>) -> Result<Client, RunError> {
    access.read_timeout = read_timeout;
    // The time is counted from the request: otherwise a request on a connection that was idle for 29.9 s would fail after
    // 0.1 s, and might be applied all the same.
    access.reset_reader_on_write = true;
    // A write that kube repeats by itself could land long after its reason is gone.
    access.default_retry = false;
    Client::try_from(access).map_err(|error| RunError::Client(Box::new(error)))
}

/// The admission webhook, listening, if one is configured.
async fn webhook(
    config: &Config,
    readiness: &Readiness,
    registered: &watch::Sender<Registration>,
) -> Result<Option<Webhook>, RunError> {
    let Some(config) = config.webhook.clone() else {
        registered.send_replace(Registration::Unwatched);
        return Ok(None);
    };
    readiness.awaits(webhook::keeper::CERTIFICATE);
    let webhook = Webhook::bind(config).await.map_err(RunError::Webhook)?;
    info!(webhook = %webhook.address(), "Serving admission");
    Ok(Some(webhook))
}

/// Admission, on every replica.
async fn serve(
    webhook: Option<Webhook>,
    context: &Arc<Context>,
    keeping: Keeping,
    stop: &CancellationToken,
    over: &CancellationToken,
) {
    if let Some(webhook) = webhook {
        webhook.run(context.clone(), keeping, stop.clone(), over.clone()).await;
    }
}

async fn bags_service(config: &Config) -> Result<bags::BagsService, RunError> {
    let authorities = match &config.bags_ca_file {
        None => None,
        Some(path) => {
            let failed = |source| RunError::Authorities { path: path.clone(), source };
            Some(tokio::fs::read(path).await.map_err(failed)?)
        }
    };
    // Shorter than the request's deadline: otherwise a connection that never came up would leave the outcome of a creation
    // in doubt.
    let connect_timeout = CONNECT_TIMEOUT.min(config.request_deadline / 2);
    bags::https(&config.bags_url, connect_timeout, authorities.as_deref()).map_err(RunError::Bags)
}

async fn check_resources(client: &Client) -> Result<(), RunError> {
    let one = ListParams::default().limit(1);
    let failed = |kind| move |source| RunError::Resources { kind, source };
    call(Api::<BagsAccount>::all(client.clone()).list(&one))
        .await
        .map_err(failed("bagsaccounts.keys.bags.fm"))?;
    call(Api::<ApiKey>::all(client.clone()).list(&one)).await.map_err(failed("apikeys.keys.bags.fm"))?;
    Ok(())
}

async fn cluster_uid(client: &Client) -> Result<String, RunError> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let namespace = call(namespaces.get(CLUSTER_NAMESPACE)).await.map_err(RunError::Cluster)?;
    uid_of(&namespace)
}

fn uid_of(namespace: &Namespace) -> Result<String, RunError> {
    namespace.uid().filter(|uid| !uid.is_empty()).ok_or(RunError::NoClusterUid)
}

/// Runs both controllers on the changes that the caches report. Reconciles begin only when the gate opens.
async fn controllers(gate: Gate, told: Told, concurrency: usize) {
    let gate = Arc::new(gate);
    let Gate { context, synced: _, leadership: _, stop } = &*gate;
    let Told { keys, accounts, woken_keys, woken_accounts, wake } = told;
    let run_keys = controller(keys, woken_keys, concurrency, stop).run(
        reconcile_key,
        |_, error, _| match *error {},
        gate.clone(),
    );
    let run_accounts = controller(accounts, woken_accounts, concurrency, stop).run(
        reconcile_account,
        |_, error, _| match *error {},
        gate.clone(),
    );
    let registration = async {
        let mut registration = context.registration.clone();
        while let Some(Ok(())) = stop.run_until_cancelled(registration.changed()).await {
            wake.every_account();
        }
    };
    tokio::join!(drain(run_keys), drain(run_accounts), registration);
}

fn controller<K>(
    (changes, store): (Changes<K>, Store<K>),
    woken: UnboundedReceiver<ObjectRef<K>>,
    concurrency: usize,
    stop: &CancellationToken,
) -> Controller<K>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let concurrency = u16::try_from(concurrency).unwrap_or(u16::MAX);
    Controller::for_stream(changes.map(Ok), store)
        .reconcile_on(woken)
        .with_config(ControllerConfig::default().concurrency(concurrency))
        .graceful_shutdown_on(stop.clone().cancelled_owned())
}

async fn reconcile_key(key: Arc<ApiKey>, gate: Arc<Gate>) -> Result<Action, Infallible> {
    let reference = ObjectRef::from_obj(&*key);
    let span = info_span!(
        "reconcile",
        kind = "ApiKey",
        api_key.namespace = key.namespace().unwrap_or_default(),
        api_key.name = key.name_any(),
    );
    Ok(gate.pass(apikey::reconcile(&gate.context, &reference)).instrument(span).await)
}

async fn reconcile_account(account: Arc<BagsAccount>, gate: Arc<Gate>) -> Result<Action, Infallible> {
    let name = account.name_any();
    let span = info_span!("reconcile", kind = "BagsAccount", account.name = name);
    Ok(gate.pass(account::reconcile(&gate.context, &name)).instrument(span).await)
}

/// Polls a controller to its end. Its items need no look: reconcilers return no errors, so an error only says that an
/// object was gone before it could be reconciled.
async fn drain<T, E>(run: impl Stream<Item = Result<T, E>>) {
    run.for_each(|_| async {}).await;
}

#[cfg(test)]
mod tests {
    use kube::api::{ListParams, PostParams};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn a_cluster_without_a_uid_is_not_taken_for_another_one_without() {
        let mut namespace = Namespace::default();
        assert!(matches!(uid_of(&namespace), Err(RunError::NoClusterUid)));
        namespace.metadata.uid = Some(String::new());
        assert!(matches!(uid_of(&namespace), Err(RunError::NoClusterUid)));
        namespace.metadata.uid = Some("a".to_owned());
        assert_eq!(uid_of(&namespace).unwrap(), "a");
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_never_answered_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let silent = async {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut asked = [0; 4096];
            assert_ne!(connection.read(&mut asked).await.unwrap(), 0);
            // The server took the request, and never answers.
            std::future::pending::<()>().await;
        };
        let mut access = kube::Config::new(url.parse().unwrap());
        // A paused clock jumps to the next deadline whenever nothing is ready: the read timeout has to be the only one.
        access.connect_timeout = None;
        let watching = client(access, Some(WATCH_READ_TIMEOUT)).unwrap();
        let keys = Api::<ApiKey>::all(watching);
        let (begun, all) = (SystemClock.monotonic(), ListParams::default());
        tokio::select! {
            listed = keys.list(&all) => { listed.unwrap_err(); }
            () = silent => {}
        }
        let waited = SystemClock.monotonic().duration_since(begun);
        assert!(waited >= WATCH_READ_TIMEOUT, "{waited:?}");
    }

    #[tokio::test]
    async fn a_write_that_failed_is_not_sent_again_by_the_client() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // Longer than kube waits before it repeats a request.
        let quiet = Duration::from_secs(3);
        let busy = async {
            let mut asked = 0;
            while let Ok(Ok((mut connection, _))) = tokio::time::timeout(quiet, listener.accept()).await {
                assert_ne!(connection.read(&mut [0; 4096]).await.unwrap(), 0);
                asked += 1;
                let answer =
                    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                connection.write_all(answer).await.unwrap();
            }
            asked
        };
        let client = client(kube::Config::new(url.parse().unwrap()), None).unwrap();
        let namespaces = Api::<Namespace>::all(client);
        let (options, namespace) = (PostParams::default(), Namespace::default());
        let made = tokio::time::timeout(quiet, namespaces.create(&options, &namespace));
        let (asked, made) = tokio::join!(busy, made);
        assert!(matches!(made, Ok(Err(_))), "{made:?}");
        assert_eq!(asked, 1);
    }
}
