use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::{
    clock::SystemClock,
    fixtures::{failure, server, slow_server},
};

/// A Secret that loses its content with each write, as some policy has it, and how often it was written.
#[derive(Clone, Default)]
struct Stripped {
    secret: Arc<Mutex<Value>>,
    writes: Arc<AtomicUsize>,
}

impl Stripped {
    fn client(&self) -> Client {
        let this = self.clone();
        server(move |request, _| {
            let mut secret = this.secret.lock().unwrap();
            if request.method != Method::GET {
                this.writes.fetch_add(1, Ordering::Relaxed);
                *secret = request.body.clone();
                secret["data"] = json!(null);
            }
            match secret.is_null() {
                true => failure(404, "NotFound"),
                false => (200, secret.clone()),
            }
        })
        .0
    }
}

/// An API server that never answers.
fn silent() -> Client {
    slow_server(|_| std::future::pending())
}

fn keeper(client: Client, watching: Client, configuration: Option<&str>) -> Keeper {
    Keeper {
        client,
        watching,
        clock: Arc::new(SystemClock),
        metrics: Metrics::new(),
        namespace: "bags-system".to_owned(),
        hosts: vec!["bags-operator-webhook.bags-system.svc".to_owned()],
        lives: LIVES,
        configuration: configuration.map(str::to_owned),
        serving: Serving::default(),
        registration: watch::channel(Registration::Unknown).0,
        readiness: Readiness::awaiting([CERTIFICATE]),
    }
}

const LIVES: Lives = Lives {
    authority: Duration::from_hours(8760),
    leaf: Duration::from_hours(168),
    settle: Duration::from_mins(10),
};

#[tokio::test(start_paused = true)]
#[expect(clippy::disallowed_methods, reason = "a virtual clock")]
async fn an_api_server_that_does_not_answer_does_not_hold_the_end_up() {
    let stop = CancellationToken::new();
    let begun = tokio::time::Instant::now();
    let cancel = async {
        pass(Duration::from_secs(1)).await;
        stop.cancel();
    };
    tokio::join!(keeper(silent(), silent(), Some("bags-operator")).run(stop.clone()), cancel);
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_does_not_stay_as_it_was_written_is_written_once_a_second() {
    let server = Stripped::default();
    let keeper = keeper(server.client(), server.client(), None);
    let mut memory = Memory::default();
    for _ in 0..60 {
        // Each write wakes the keeper, as the watch shows it.
        let wait = keeper.turn(&mut memory).await.unwrap();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        let _ = tokio::time::timeout(Duration::from_millis(100), std::future::pending::<()>()).await;
    }
    assert_eq!(server.writes.load(Ordering::Relaxed), 6, "within six seconds");
}

/// An API server with nothing but a Secret, which is as it was last written, and how often it was read.
#[derive(Clone, Default)]
struct Stored(Arc<Mutex<Value>>, Arc<AtomicUsize>);

impl Stored {
    fn client(&self) -> Client {
        let this = self.clone();
        server(move |request, _| {
            let mut secret = this.0.lock().unwrap();
            match request.method == Method::GET {
                true => _ = this.1.fetch_add(1, Ordering::Relaxed),
                false => *secret = request.body.clone(),
            }
            match secret.is_null() {
                true => failure(404, "NotFound"),
                false => (200, secret.clone()),
            }
        })
        .0
    }

    fn authorities(&self) -> Authorities {
        let secret: Secret = serde_json::from_value(self.0.lock().unwrap().clone()).unwrap();
        Authorities::of(&secret).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn authorities_whose_secret_is_lost_stay_trusted_until_another_one_has_taken_over() {
    for lost in [json!(null), json!({"metadata": {"name": SECRET}, "data": {}})] {
        let server = Stored::default();
        let keeper = keeper(server.client(), server.client(), None);
        let mut memory = Memory::default();
        for _ in 0..2 {
            keeper.turn(&mut memory).await.unwrap();
        }
        let served = || keeper.serving.0.read().unwrap().clone().unwrap();
        let (leaf, bundle) = (served(), server.authorities().bundle());
        pass(Duration::from_secs(2)).await;
        *server.0.lock().unwrap() = lost;
        for _ in 0..2 {
            keeper.turn(&mut memory).await.unwrap();
        }
        let after = server.authorities().bundle();
        assert!(after.starts_with(&bundle) && after.len() > bundle.len(), "{after}");
        assert!(Arc::ptr_eq(&leaf, &served()), "one that is known is served on");
        // A process that never saw it has nothing to put back.
        *server.0.lock().unwrap() = json!(null);
        keeper.turn(&mut Memory::default()).await.unwrap();
        assert!(!server.authorities().bundle().contains(&bundle));
    }
}

#[tokio::test(start_paused = true)]
async fn who_hears_of_nothing_looks_twice_within_a_settling_time() {
    for (settle, within, expected) in [
        (Duration::from_mins(1), Duration::from_secs(125), 4_usize),
        (Duration::from_mins(10), Duration::from_secs(610), 2),
        (Duration::from_hours(1), Duration::from_secs(610), 2),
        // Not without a pause.
        (Duration::ZERO, Duration::from_millis(10_500), 10),
    ] {
        let server = Stored::default();
        let lives = Lives { settle, ..LIVES };
        let keeper = Keeper { lives, ..keeper(server.client(), silent(), None) };
        let stop = CancellationToken::new();
        let cancel = async {
            pass(within).await;
            stop.cancel();
        };
        tokio::join!(keeper.run(stop.clone()), cancel);
        // The first look finds nothing, the second one what was made of that, and a step of its own is looked at once more.
        let looks = server.1.load(Ordering::Relaxed);
        assert!((2 + expected..=4 + expected).contains(&looks), "{settle:?}: {looks}");
    }
}

/// An API server with a Secret and a configuration, both as they were last written.
#[derive(Clone)]
struct Both {
    secret: Stored,
    configuration: Arc<Mutex<Value>>,
}

impl Both {
    fn new() -> Self {
        Self { secret: Stored::default(), configuration: Overtaken::new().configuration }
    }

    fn client(&self) -> Client {
        let this = self.clone();
        server(move |request, _| {
            let mut stored = match request.path().contains("/secrets") {
                true => this.secret.0.lock().unwrap(),
                false => this.configuration.lock().unwrap(),
            };
            if request.method != Method::GET {
                *stored = request.body.clone();
            }
            match stored.is_null() {
                true => failure(404, "NotFound"),
                false => (200, stored.clone()),
            }
        })
        .0
    }

    /// What the API server is told to trust.
    fn trusted(&self) -> String {
        let configuration = self.configuration.lock().unwrap().clone();
        let configuration: ValidatingWebhookConfiguration = serde_json::from_value(configuration).unwrap();
        let bundle = configuration.webhooks.unwrap().remove(0).client_config.ca_bundle.unwrap();
        String::from_utf8(bundle.0).unwrap()
    }
}

/// Takes turns until there is nothing to do for a second.
async fn settle(keeper: &Keeper, memory: &mut Memory) {
    for _ in 0..5 {
        pass(Duration::from_secs(2)).await;
        keeper.turn(memory).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_a_new_replica_makes_while_others_run_succeeds_theirs_in_three_steps() {
    let server = Both::new();
    let [old, new] = [(); 2].map(|()| keeper(server.client(), server.client(), Some("bags-operator")));
    let (mut its, mut memory) = (Memory::default(), Memory::default());
    settle(&old, &mut its).await;
    let served = || old.serving.0.read().unwrap().clone().unwrap();
    let (leaf, first) = (served(), server.trusted());
    // The Secret goes, and a replica that starts is the first one to see that.
    *server.secret.0.lock().unwrap() = json!(null);
    for _ in 0..2 {
        new.turn(&mut memory).await.unwrap();
        assert!(server.trusted().contains(&first), "others hold leaves of theirs");
    }
    let made = server.secret.authorities();
    assert!(!made.is_trusted_by(&first));
    settle(&old, &mut its).await;
    settle(&new, &mut memory).await;
    assert!(Arc::ptr_eq(&leaf, &served()), "one that is trusted is served on");
    let back = server.secret.authorities();
    assert!(
        back.is_trusted_by(&first) && made.is_trusted_by(&back.bundle()),
        "its successor is the one that was made"
    );
    assert_eq!(memory.known, its.known);
    assert_eq!(server.trusted(), back.bundle());
    let later = SystemClock.wall() + LIVES.settle;
    let Ok(Step::Write(next)) = back.step(later, &LIVES, LIVES.settle) else { panic!("it is due") };
    assert_eq!(next.signing(), made.signing());
}

#[tokio::test(start_paused = true)]
async fn an_earlier_authority_that_somebody_restores_does_not_come_back() {
    let server = Both::new();
    let keeper = keeper(server.client(), server.client(), Some("bags-operator"));
    let mut memory = Memory::default();
    let mut earlier = Secret {
        metadata: ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() },
        ..Secret::default()
    };
    let long_ago = SystemClock.wall() - jiff::SignedDuration::from_hours(24);
    Authorities::new(long_ago, &LIVES).unwrap().put_into(&mut earlier);
    settle(&keeper, &mut memory).await;
    let first = server.trusted();
    *server.secret.0.lock().unwrap() = json!(earlier);
    settle(&keeper, &mut memory).await;
    assert_eq!(server.secret.authorities().bundle(), first);
    assert_eq!(server.trusted(), first);
}

#[tokio::test(start_paused = true)]
async fn an_authority_is_taken_as_it_is_where_ours_is_trusted_no_more() {
    let server = Both::new();
    let keeper = keeper(server.client(), server.client(), Some("bags-operator"));
    let mut memory = Memory::default();
    settle(&keeper, &mut memory).await;
    // This process stood still, and others have long gone on.
    let other = Both::new();
    settle(
        &super::tests::keeper(other.client(), other.client(), Some("bags-operator")),
        &mut Memory::default(),
    )
    .await;
    for (ours, theirs) in [(&server.secret.0, &other.secret.0), (&server.configuration, &other.configuration)]
    {
        *ours.lock().unwrap() = theirs.lock().unwrap().clone();
    }
    settle(&keeper, &mut memory).await;
    assert_eq!(server.secret.authorities(), other.secret.authorities());
    assert_eq!(memory.known, Some(other.secret.authorities()));
}

/// An API server on which another replica goes a step on as soon as this one has read the Secret.
#[derive(Clone)]
struct Overtaken {
    secret: Value,
    configuration: Arc<Mutex<Value>>,
}

/// Base64 of `newer`: the bundle of the other replica.
const NEWER: &str = "bmV3ZXI=";

impl Overtaken {
    fn new() -> Self {
        let mut secret = Secret::default();
        secret.metadata.name = Some(SECRET.to_owned());
        Authorities::new(SystemClock.wall(), &LIVES).unwrap().put_into(&mut secret);
        let configuration = json!({
            "metadata": {"name": "bags-operator", "resourceVersion": "1"},
            "webhooks": [{"name": "apikeys.keys.bags.fm", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                          "clientConfig": {"url": "https://bags-operator-webhook.bags-system.svc/admit"}}],
        });
        Self { secret: json!(secret), configuration: Arc::new(Mutex::new(configuration)) }
    }

    fn bundle(configuration: &mut Value) -> &mut Value {
        &mut configuration["webhooks"][0]["clientConfig"]["caBundle"]
    }

    fn client(&self) -> Client {
        let this = self.clone();
        server(move |request, _| {
            let mut configuration = this.configuration.lock().unwrap();
            let is_secret = request.path().contains("/secrets/");
            match (request.method == Method::GET, is_secret) {
                (true, true) => {
                    *Self::bundle(&mut configuration) = json!(NEWER);
                    configuration["metadata"]["resourceVersion"] = json!("2");
                    (200, this.secret.clone())
                }
                (true, false) => (200, configuration.clone()),
                (false, _) => {
                    let written = &request.body;
                    if written["metadata"]["resourceVersion"] == configuration["metadata"]["resourceVersion"]
                    {
                        *configuration = written.clone();
                        (200, configuration.clone())
                    } else {
                        failure(409, "Conflict")
                    }
                }
            }
        })
        .0
    }
}

#[tokio::test(start_paused = true)]
async fn a_bundle_is_not_written_over_the_one_of_a_replica_that_was_faster_since_the_secret_was_read() {
    let server = Overtaken::new();
    let keeper = keeper(server.client(), server.client(), Some("bags-operator"));
    let outcome = keeper.turn(&mut Memory::default()).await;
    assert!(
        matches!(outcome, Err(TurnError::Configuration(ref error)) if error.is_conflict()),
        "{outcome:?}"
    );
    assert_eq!(*Overtaken::bundle(&mut server.configuration.lock().unwrap()), json!(NEWER));
    assert!(keeper.serving.0.read().unwrap().is_some(), "a leaf is served all the same");
}

/// An API server whose configuration has a generation, and belongs to whoever writes it.
#[derive(Clone)]
struct Shared {
    secret: Value,
    configuration: Arc<Mutex<Value>>,
}

impl Shared {
    fn new() -> Self {
        let Overtaken { secret, configuration } = Overtaken::new();
        configuration.lock().unwrap()["metadata"]["generation"] = json!(1);
        Self { secret, configuration }
    }

    fn write(&self, bundle: Value) {
        let mut configuration = self.configuration.lock().unwrap();
        *Overtaken::bundle(&mut configuration) = bundle;
        let generation = configuration["metadata"]["generation"].as_i64().unwrap();
        configuration["metadata"]["generation"] = json!(generation + 1);
    }

    fn client(&self) -> Client {
        let this = self.clone();
        server(move |request, _| {
            if request.method == Method::PUT {
                let mut written = request.body.clone();
                this.write(Overtaken::bundle(&mut written).take());
            }
            let answer = match request.path().contains("/secrets/") {
                true => this.secret.clone(),
                false => this.configuration.lock().unwrap().clone(),
            };
            (200, answer)
        })
        .0
    }
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_somebody_takes_away_again_and_again_is_not_one_that_was_trusted_for_long() {
    for earlier in [json!(NEWER), json!(null)] {
        let server = Shared::new();
        let keeper = keeper(server.client(), server.client(), Some("bags-operator"));
        let mut memory = Memory::default();
        let trusted = |memory: &Memory| SystemClock.monotonic() - memory.trusted.as_ref().unwrap().2;
        keeper.turn(&mut memory).await.unwrap();
        pass(Duration::from_mins(3)).await;
        keeper.turn(&mut memory).await.unwrap();
        assert_eq!(trusted(&memory), Duration::from_mins(3), "nobody touched it");
        for _ in 0..4 {
            // Also where another replica has put it back before this one looked.
            let ours = Overtaken::bundle(&mut server.configuration.lock().unwrap()).clone();
            server.write(earlier.clone());
            server.write(ours);
            keeper.turn(&mut memory).await.unwrap();
            assert_eq!(trusted(&memory), Duration::ZERO);
            server.write(earlier.clone());
            keeper.turn(&mut memory).await.unwrap();
            assert_eq!(trusted(&memory), Duration::ZERO);
            pass(Duration::from_mins(3)).await;
        }
        let registration = keeper.registration.borrow().clone();
        assert!(matches!(registration, Registration::Contended(..)), "{registration:?}");
    }
}

async fn pass(duration: Duration) {
    let _ = tokio::time::timeout(duration, std::future::pending::<()>()).await;
}

/// Counts requests, and answers that there is nothing.
fn counting(count: &Arc<AtomicUsize>) -> Client {
    let count = count.clone();
    server(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        failure(404, "NotFound")
    })
    .0
}

#[tokio::test(start_paused = true)]
async fn watches_use_the_client_that_waits_for_as_long_as_nothing_happens() {
    let (calls, watches) = (Arc::default(), Arc::default());
    let keeper = keeper(counting(&calls), counting(&watches), Some("bags-operator"));
    let mut touched = Box::pin(keeper.touched());
    for _ in 0..2 {
        assert!(touched.next().await.is_some());
    }
    assert!(watches.load(Ordering::Relaxed) >= 2);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}
