use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::clock::SystemClock;

/// A Secret that loses its annotations with each write, as some policy has it, and how often it was written.
#[derive(Clone, Default)]
struct Stripped {
    secret: Arc<Mutex<Value>>,
    writes: Arc<AtomicUsize>,
}

impl Stripped {
    fn client(&self) -> Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let this = this.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let mut secret = this.secret.lock().unwrap();
                if parts.method != Method::GET {
                    this.writes.fetch_add(1, Ordering::Relaxed);
                    *secret = serde_json::from_slice(&body).unwrap();
                    secret["metadata"]["annotations"] = json!(null);
                }
                let (code, answer) = match secret.is_null() {
                    true => (
                        404,
                        json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}),
                    ),
                    false => (200, secret.clone()),
                };
                let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, kube::Error>(Response::builder().status(code).body(answer).unwrap())
            }
        });
        Client::new(service, "bags-system")
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_does_not_stay_as_it_was_written_is_written_once_a_second() {
    let server = Stripped::default();
    let keeper = Keeper {
        client: server.client(),
        clock: Arc::new(SystemClock),
        metrics: Metrics::new(),
        namespace: "bags-system".to_owned(),
        hosts: vec!["bags-operator-webhook.bags-system.svc".to_owned()],
        lives: Lives {
            authority: Duration::from_hours(8760),
            leaf: Duration::from_hours(168),
            settle: Duration::from_mins(10),
        },
        configuration: None,
        serving: Serving::default(),
        registration: watch::channel(Registration::Unknown).0,
        readiness: Readiness::awaiting([CERTIFICATE]),
    };
    let mut memory = Memory::default();
    for _ in 0..60 {
        // Each write wakes the keeper, as the watch shows it.
        let wait = keeper.turn(&mut memory).await.unwrap();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        let _ = tokio::time::timeout(Duration::from_millis(100), std::future::pending::<()>()).await;
    }
    assert_eq!(server.writes.load(Ordering::Relaxed), 6, "within six seconds");
}
