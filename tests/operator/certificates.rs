//! Certificates and authorities of the webhook that follow each other while calls go on, on a real API server. It keeps its
//! connections, so that it may never meet a new certificate: others come anew all the time, and trust what it is told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bags_operator::{
    api::ApiKey,
    clock::{Clock, SystemClock},
};
use k8s_openapi::api::{admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
    runtime::wait::await_condition,
};
use serde_json::json;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use crate::{
    admission::NO_SLOT,
    gate::{Gate, webhook_of},
    support::{
        operator::Operator,
        scene::{LIMIT, Scene, all, holds},
    },
};

/// Lives of certificates that let a test see fifty of them. An authority is replaced when it is sixteen seconds old; with each new one
/// every process signs, and again ten seconds later, long before the next. A third of a life is what a process has to renew in: on
/// a machine that has no processor for it for longer than these four seconds, calls would fail.
const SHORT_LIVES: [&str; 3] =
    ["--webhook-ca-life=24s", "--webhook-ca-settle=2s", "--webhook-certificate-life=15s"];
/// So many processes have certificates of their own.
const PROCESSES: usize = 4;
/// Twenty calls a second.
const APART: Duration = Duration::from_millis(50);
/// A bundle is the current one for so long after it was read: half of what everybody has to learn of the next.
const FRESH: Duration = Duration::from_secs(1);
/// So many ApiKeys are there at the same time that are made and deleted again.
const STORED_AT_ONCE: usize = 2;

/// How many certificates take the place of another one while calls go on. `make soak` sees more of them.
#[expect(clippy::disallowed_methods, reason = "the edge of a test")]
fn rotations_to_see() -> usize {
    match std::env::var("SOAK_ROTATIONS") {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("SOAK_ROTATIONS={text}: {error}")),
        Err(_) => 50,
    }
}

/// When the certificate of a process ends, as its metrics tell, in seconds since 1970.
async fn certificate_end(operator: &Operator) -> f64 {
    let end = operator.measures("bags_operator_webhook_certificate_end_timestamp_seconds").await;
    end.expect("the metrics tell when the certificate ends")
}

/// What a process showed to one who came anew.
#[derive(Debug)]
struct Leaf {
    serial: Vec<u8>,
    /// Of the key that signed it.
    authority: Vec<u8>,
}

/// Shakes hands with a process, trusting this bundle and nothing else.
pub(crate) async fn connect(address: SocketAddr, bundle: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(bundle) {
        roots.add(authority.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::from(address.ip()), stream).await
}

/// The certificate that a process shows to whoever trusts this bundle.
async fn handshake(address: SocketAddr, bundle: &[u8]) -> Result<Leaf, String> {
    let stream = connect(address, bundle).await.map_err(|error| format!("{address}: {error}"))?;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let (_, leaf) = X509Certificate::from_der(&shown).unwrap();
    let authority = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(of) => Some(of.key_identifier.as_ref().unwrap().0.to_vec()),
        _ => None,
    });
    Ok(Leaf { serial: leaf.raw_serial().to_vec(), authority: authority.unwrap() })
}

/// Shakes hands with every process, as one who has just read whom to trust. Where that took so long that others may be trusted by
/// now, a failure tells nothing, and all is done again.
async fn handshakes(
    processes: Vec<SocketAddr>,
    configurations: Api<ValidatingWebhookConfiguration>,
) -> Result<Vec<Leaf>, String> {
    loop {
        let read = SystemClock.monotonic();
        let configuration = configurations.get("bags-operator").await.map_err(|error| error.to_string())?;
        let bundle = configuration.webhooks.unwrap().remove(0).client_config.ca_bundle.unwrap();
        let shown = all(processes.iter().map(|process| handshake(*process, &bundle.0))).await;
        let shown: Result<Vec<Leaf>, String> = shown.into_iter().collect();
        if shown.is_ok() || SystemClock.monotonic().saturating_duration_since(read) < FRESH {
            return shown;
        }
    }
}

/// All that processes showed: of each its certificates by serial number, each with the authority that signed it.
struct Shown(Vec<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Shown {
    fn add(&mut self, leaves: Vec<Leaf>) {
        for (process, Leaf { serial, authority }) in self.0.iter_mut().zip(leaves) {
            process.insert(serial, authority);
        }
    }

    /// Of how many authorities each process had a certificate.
    fn authorities_of_each(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|process| process.values().collect::<BTreeSet<_>>().len())
    }

    /// How many authorities took the place of another one.
    fn authorities(&self) -> usize {
        self.0.iter().flat_map(BTreeMap::values).collect::<BTreeSet<_>>().len().saturating_sub(1)
    }

    /// How many certificates took the place of another one: what a process signs first is none.
    fn renewals(&self) -> usize {
        self.0.iter().map(|process| process.len().saturating_sub(1)).sum()
    }

    /// How many of them were signed by the authority of the one before: for nothing but its age.
    fn by_age(&self) -> usize {
        self.0.iter().zip(self.authorities_of_each()).map(|(process, signers)| process.len() - signers).sum()
    }
}

/// What is asked of the API server.
enum Call {
    /// Let in, and not stored.
    DryRun,
    /// Refused by a reading of the ledger.
    Refused,
    /// Let in, stored, and deleted again; how many that became of, and what keeps them from being too many at a time.
    Stored(Arc<AtomicUsize>, OwnedSemaphorePermit),
}

impl Call {
    async fn make(self, api: Api<ApiKey>, mut key: ApiKey) -> Result<(), String> {
        key.annotations_mut().insert("keys.bags.fm/delete-now".to_owned(), "true".to_owned());
        let params = PostParams { dry_run: matches!(self, Self::DryRun), ..PostParams::default() };
        let said = api.create(&params, &key).await.map_err(|error| error.to_string());
        match (self, said) {
            (Self::DryRun, Ok(_)) => Ok(()),
            (Self::Refused, Err(said)) if said.contains(NO_SLOT) => Ok(()),
            (Self::Stored(stored, _permit), Ok(key)) => {
                let name = key.name_any();
                let until = async |what, so: fn(Option<&ApiKey>) -> bool| {
                    let so = tokio::time::timeout(LIMIT, await_condition(api.clone(), &name, so)).await;
                    so.map_err(|_| format!("{name} is not {what} in time"))?
                        .map_err(|error| error.to_string())
                };
                // What is deleted earlier leaves its place behind for a while.
                until("Ready", |key| key.is_some_and(|key| holds(key, "Ready", "True"))).await?;
                api.delete(&name, &DeleteParams::default()).await.map_err(|error| error.to_string())?;
                until("gone", |key| key.is_none()).await?;
                stored.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            (_, other) => Err(format!("{}: {other:?}", key.name_any())),
        }
    }
}

/// How many certificates each process has signed so far, as it says itself.
fn signed(gate: &Gate) -> Vec<usize> {
    let logs = gate.replicas().map(|process| process.launch.log());
    logs.map(|log| log.matches("Signed a certificate").count()).collect()
}

/// What came of a time of calls.
struct Stretch<'g> {
    gate: &'g Gate,
    open: Scene<'g>,
    full: Scene<'g>,
    stored: Scene<'g>,
    calls: JoinSet<Result<(), String>>,
    handshakes: JoinSet<Result<Vec<Leaf>, String>>,
    processes: Vec<SocketAddr>,
    /// How many certificates each process had signed before.
    signed_before: Vec<usize>,
    shown: Shown,
    failed: Vec<String>,
    made: usize,
    deleted: Arc<AtomicUsize>,
    room: Arc<Semaphore>,
    /// How many authorities each process had signed with when somebody deleted the Secret.
    wanted_another: Option<usize>,
}

impl<'g> Stretch<'g> {
    async fn begin(gate: &'g Gate) -> Self {
        let full = gate.scene(json!({"limit": 1})).await;
        full.apply("app", json!({})).await;
        full.ready("app").await;
        Self {
            gate,
            open: gate.scene(json!({})).await,
            full,
            stored: gate.scene(json!({})).await,
            calls: JoinSet::new(),
            handshakes: JoinSet::new(),
            processes: gate.replicas().map(webhook_of).collect(),
            signed_before: signed(gate),
            shown: Shown((0..PROCESSES).map(|_| BTreeMap::new()).collect()),
            failed: Vec::new(),
            made: 0,
            deleted: Arc::default(),
            room: Arc::new(Semaphore::new(STORED_AT_ONCE)),
            wanted_another: None,
        }
    }

    /// Whether so many certificates followed each other, enough of them and of authorities for their age alone.
    fn seen(&self, wanted: usize) -> bool {
        self.shown.renewals() >= wanted
            && self.shown.by_age() >= wanted / 4
            && self.authorities_by_age() >= wanted / PROCESSES / 4
            && self.wanted_another.is_some_and(|before| self.shown.authorities() > before)
            && self.deleted.load(Ordering::Relaxed) >= wanted / 5
    }

    /// A Secret that is deleted has one successor.
    fn authorities_by_age(&self) -> usize {
        self.shown.authorities().saturating_sub(usize::from(self.wanted_another.is_some()))
    }

    /// One call to the API server, and one handshake with each process; neither is waited for.
    fn tick(&mut self) {
        self.made += 1;
        let (call, place) = match self.room.clone().try_acquire_owned() {
            _ if self.made.is_multiple_of(2) => (Call::Refused, &self.full),
            Ok(permit) => (Call::Stored(self.deleted.clone(), permit), &self.stored),
            Err(_) => (Call::DryRun, &self.open),
        };
        self.calls.spawn(call.make(place.keys(), place.new_key(&format!("app-{}", self.made), json!({}))));
        self.handshakes
            .spawn(handshakes(self.processes.clone(), self.gate.configurations(self.open.client.clone())));
        while let Some(answered) = self.calls.try_join_next() {
            self.failed.extend(answered.unwrap().err());
        }
        while let Some(shaken) = self.handshakes.try_join_next() {
            self.shook(shaken.unwrap());
        }
    }

    fn shook(&mut self, hands: Result<Vec<Leaf>, String>) {
        match hands {
            Ok(leaves) => self.shown.add(leaves),
            Err(said) => self.failed.push(said),
        }
    }

    /// Whoever wants another authority deletes the Secret: no call fails for that either. Once, half way, when every process has
    /// just signed with a new one: the others are replaced for their age.
    async fn want_another(&mut self, wanted: usize) {
        let most = self.shown.authorities() + 1;
        if self.wanted_another.is_some()
            || self.shown.renewals() < wanted / 2
            || self.shown.authorities_of_each().any(|signers| signers < most)
        {
            return;
        }
        self.wanted_another = Some(self.shown.authorities());
        let namespace = &self.gate.alone.world.launch.namespace;
        let secrets: Api<Secret> = Api::namespaced(self.open.client.clone(), namespace);
        secrets.delete("bags-operator-webhook-ca", &DeleteParams::default()).await.unwrap();
    }

    /// Until enough was seen, or anything has failed.
    async fn go(&mut self, wanted: usize) {
        let mut pause = tokio::time::interval(APART);
        while self.failed.is_empty() && !self.seen(wanted) {
            // However long a tick takes, the next ones are made up for: twenty a second in the long run.
            pause.tick().await;
            self.tick();
            self.want_another(wanted).await;
        }
    }

    /// What is still under way comes to its end.
    async fn rest(&mut self) {
        while let Some(answered) = self.calls.join_next().await {
            self.failed.extend(answered.unwrap().err());
        }
        while let Some(shaken) = self.handshakes.join_next().await {
            self.shook(shaken.unwrap());
        }
    }
}

#[tokio::test]
async fn certificates_and_authorities_follow_each_other_without_a_failed_call() {
    let mut gate = Gate::new(&SHORT_LIVES).await;
    for _ in 1..PROCESSES {
        gate.further.push(gate.alone.world.launch.another().start().await);
    }
    gate.lead();
    let wanted = rotations_to_see();
    let mut stretch = Stretch::begin(&gate).await;
    let first_end = certificate_end(gate.alone.world.operator()).await;
    // Eight certificates in sixteen seconds.
    let limit = LIMIT + Duration::from_secs(10) * u32::try_from(wanted).unwrap();
    let begun = SystemClock.monotonic();
    let in_time = tokio::time::timeout(limit, stretch.go(wanted)).await;
    let (made, took) = (stretch.made, begun.elapsed());
    // Each of what is signed by now was seen, if the one of the moment is.
    let signed = signed(&gate);
    stretch.tick();
    stretch.rest().await;
    assert_eq!(
        stretch.failed,
        Vec::<String>::new(),
        "of {made} calls, and as many handshakes with each process"
    );
    let (renewals, by_age) = (stretch.shown.renewals(), stretch.shown.by_age());
    let (authorities, of_age) = (stretch.shown.authorities(), stretch.authorities_by_age());
    let stored = stretch.deleted.load(Ordering::Relaxed);
    let told = format!(
        "{made} calls in {} s, {stored} stored, 0 failed, {renewals} certificates, {by_age} by age, {authorities} authorities, {of_age} by age",
        took.as_secs()
    );
    assert!(in_time.is_ok(), "of {wanted} rotations within {limit:?}: {told}");
    for ((process, before), signed) in stretch.shown.0.iter().zip(&stretch.signed_before).zip(signed) {
        let (seen, signed) = (process.len(), signed - before);
        assert!(seen >= signed, "of {signed} certificates of a process {seen} were shown to anybody");
    }
    let (last_end, now) = (certificate_end(gate.alone.world.operator()).await, SystemClock.wall());
    assert!(
        last_end > first_end,
        "the metric tells of the certificate that is served: {first_end}, {last_end}"
    );
    assert!(last_end > now.as_duration().as_secs_f64(), "{last_end} has passed at {now}");
    println!("soak: {told}");
    let Stretch { open, full, stored, .. } = stretch;
    for scene in [open, full, stored] {
        scene.end().await;
    }
    gate.end().await;
}
