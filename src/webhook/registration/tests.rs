use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::clock::{Clock, SystemClock};

/// The bundle of somebody else, in base64.
const STRANGER: &str = "c29tZWJvZHkgZWxzZQ==";

/// The configuration as the chart renders it, with these members of its one webhook over it.
fn configuration(over: &Value) -> Value {
    let mut configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "bags-operator"},
        "webhooks": [{
            "name": "apikeys.keys.bags.fm", "admissionReviewVersions": ["v1"], "sideEffects": "NoneOnDryRun",
            "clientConfig": {"service": {"name": "bags-operator-webhook", "namespace": "bags-system", "path": "/admit"}},
            "rules": [{"apiGroups": ["keys.bags.fm"], "apiVersions": ["v1alpha1"], "resources": ["apikeys"],
                       "operations": ["CREATE"], "scope": "Namespaced"}],
            "failurePolicy": "Fail", "matchPolicy": "Equivalent", "timeoutSeconds": 5,
            "namespaceSelector": {}, "objectSelector": {},
        }],
    });
    for (member, value) in over.as_object().unwrap() {
        configuration["webhooks"][0][member] = value.clone();
    }
    configuration
}

/// An API server with this configuration, and how often it was written.
fn served(code: u16, stored: &Arc<Mutex<(Value, usize)>>) -> Configuration {
    let stored = stored.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let stored = stored.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let mut stored = stored.lock().unwrap();
            if parts.method == Method::PUT {
                *stored = (serde_json::from_slice(&body).unwrap(), stored.1 + 1);
            }
            let refused = json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "Forbidden", "code": code});
            let answer = if code == 200 { &stored.0 } else { &refused };
            let body = Body::from(serde_json::to_vec(answer).unwrap());
            Ok::<_, kube::Error>(Response::builder().status(code).body(body).unwrap())
        }
    });
    Configuration::new(Client::new(service, "bags-system"), "bags-operator")
}

fn stored(configuration: &Value) -> Arc<Mutex<(Value, usize)>> {
    Arc::new(Mutex::new((configuration.clone(), 0)))
}

fn now() -> Instant {
    SystemClock.monotonic()
}

async fn pass(duration: Duration) {
    let _ = tokio::time::timeout(duration, std::future::pending::<()>()).await;
}

#[tokio::test]
async fn a_configuration_without_a_webhook_is_none() {
    for webhooks in [json!([]), json!(null)] {
        let mut empty = configuration(&json!({}));
        empty["webhooks"] = webhooks;
        let looked = served(200, &stored(&empty)).ensure("a bundle", &mut Dealings::default(), now()).await;
        assert_eq!(looked.unwrap(), Look::Settled(Registration::Missing("bags-operator".to_owned())));
    }
}

#[tokio::test(start_paused = true)]
async fn who_keeps_writing_another_bundle_is_answered_once_a_second_and_named() {
    let mut foreign = configuration(&json!({}));
    foreign["webhooks"][0]["clientConfig"]["caBundle"] = json!(STRANGER);
    let bundle = json!({"f:webhooks": {"k:{\"name\":\"apikeys.keys.bags.fm\"}": {"f:clientConfig": {"f:caBundle": {}}}}});
    foreign["metadata"]["managedFields"] = json!([
        {"manager": "helm", "operation": "Apply", "fieldsV1": {"f:webhooks": {}}},
        {"manager": "injector", "operation": "Update", "fieldsV1": bundle},
    ]);
    let stored = stored(&foreign);
    let (configuration, mut dealings) = (served(200, &stored), Dealings::default());
    let mut said = Vec::new();
    for _ in 0..60 {
        stored.lock().unwrap().0 = foreign.clone();
        match configuration.ensure("a bundle", &mut dealings, now()).await.unwrap() {
            Look::Settled(registration) => said.push(registration),
            Look::Paused(left) => assert!(left <= PAUSE),
        }
        pass(PAUSE / 10).await;
    }
    assert_eq!((said.len(), stored.lock().unwrap().1), (6, 6), "writes within six seconds");
    let contended = Registration::Contended("bags-operator".to_owned(), "\"injector\"".to_owned());
    assert_eq!(
        said[..4],
        [const { Registration::Registered }; 3].into_iter().chain([contended.clone()]).collect::<Vec<_>>()
    );
    assert!(contended.trusts(), "the bundle is ours at the moment");
    assert!(
        contended
            .told()
            .is_some_and(|(good, _, message)| !good && message.contains("\"injector\" keeps writing"))
    );
    // It is remembered for an hour, and then it is forgiven.
    for (later, expected) in [(PAUSE, contended), (MEMORY, Registration::Registered)] {
        pass(later).await;
        let looked = configuration.ensure("a bundle", &mut dealings, now()).await.unwrap();
        assert_eq!(looked, Look::Settled(expected));
    }
}
