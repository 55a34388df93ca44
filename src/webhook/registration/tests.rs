use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::{
    clock::{Clock, SystemClock},
    fixtures::{failure, lay_over, server},
};

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
    lay_over(&mut configuration["webhooks"][0], over);
    configuration
}

/// An API server with this configuration, and how often it was written; it answers with this code.
fn served<'a>(code: u16, stored: &Arc<Mutex<(Value, usize)>>, hosts: &'a [String]) -> Configuration<'a> {
    answered(move |_| code, stored, hosts)
}

/// One that answers with a code by the method of the request.
fn answered<'a>(
    code: impl Fn(&Method) -> u16 + Send + 'static,
    stored: &Arc<Mutex<(Value, usize)>>,
    hosts: &'a [String],
) -> Configuration<'a> {
    let stored = stored.clone();
    let (client, _) = server(move |request, _| {
        let (code, mut stored) = (code(&request.method), stored.lock().unwrap());
        if code != 200 {
            return failure(code, "Forbidden");
        }
        if request.method == Method::PUT {
            *stored = (request.body.clone(), stored.1 + 1);
        }
        (200, stored.0.clone())
    });
    Configuration::new(client, "bags-operator", hosts)
}

fn hosts() -> Vec<String> {
    ["bags-operator-webhook.bags-system.svc", "127.0.0.1", "::1"].map(str::to_owned).to_vec()
}

fn stored(configuration: &Value) -> Arc<Mutex<(Value, usize)>> {
    Arc::new(Mutex::new((configuration.clone(), 0)))
}

fn now() -> Instant {
    SystemClock.monotonic()
}

/// What comes of a look: it is read, and made to trust a bundle.
async fn looked(
    configuration: &Configuration<'_>,
    dealings: &mut Dealings,
    now: Instant,
) -> Result<Look, CallError> {
    configuration.ensure(configuration.read().await?, "a bundle", dealings, now).await
}

async fn pass(duration: Duration) {
    let _ = tokio::time::timeout(duration, std::future::pending::<()>()).await;
}

#[tokio::test]
async fn a_configuration_without_a_webhook_is_none() {
    for webhooks in [json!([]), json!(null)] {
        let mut empty = configuration(&json!({}));
        empty["webhooks"] = webhooks;
        let hosts = hosts();
        let configuration = served(200, &stored(&empty), &hosts);
        let looked = looked(&configuration, &mut Dealings::default(), now()).await;
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
    let (hosts, mut dealings) = (hosts(), Dealings::default());
    let configuration = served(200, &stored, &hosts);
    let mut said = Vec::new();
    for _ in 0..60 {
        stored.lock().unwrap().0 = foreign.clone();
        match looked(&configuration, &mut dealings, now()).await.unwrap() {
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
        let looked = looked(&configuration, &mut dealings, now()).await.unwrap();
        assert_eq!(looked, Look::Settled(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_cannot_be_replaced_counts_once_and_one_that_another_replica_replaced_counts_as_well() {
    let mut foreign = configuration(&json!({}));
    foreign["webhooks"][0]["clientConfig"]["caBundle"] = json!(STRANGER);
    let contended = Registration::Contended("bags-operator".to_owned(), "somebody".to_owned());
    for (code, said) in [(403_u16, Registration::Registered), (409, contended)] {
        let (stored, hosts, mut dealings) = (stored(&foreign), hosts(), Dealings::default());
        let writable = Arc::new(AtomicBool::new(false));
        let may_write = writable.clone();
        let codes = move |method: &Method| {
            if *method == Method::PUT && !may_write.load(Ordering::SeqCst) { code } else { 200 }
        };
        let configuration = answered(codes, &stored, &hosts);
        for _ in 0..6 {
            let looked = looked(&configuration, &mut dealings, now()).await;
            match code {
                403 => assert!(matches!(looked, Ok(Look::Settled(Registration::Wrong(..)))), "{looked:?}"),
                _ => assert!(looked.as_ref().is_err_and(CallError::is_conflict), "{looked:?}"),
            }
            pass(PAUSE).await;
        }
        writable.store(true, Ordering::SeqCst);
        let looked = looked(&configuration, &mut dealings, now()).await.unwrap();
        assert_eq!((looked, stored.lock().unwrap().1), (Look::Settled(said), 1), "{code}");
    }
}

#[tokio::test]
async fn a_configuration_is_one_only_where_no_new_apikey_gets_past_the_webhook() {
    let rule = |over: Value| {
        let mut rule = configuration(&json!({}))["webhooks"][0]["rules"][0].clone();
        lay_over(&mut rule, &over);
        json!({"rules": [rule]})
    };
    let url = |url: &str| json!({"clientConfig": {"url": url}});
    let path = |path: Value| {
        let service = json!({"name": "bags-operator-webhook", "namespace": "bags-system", "path": path});
        json!({"clientConfig": {"service": service}})
    };
    let condition = json!([{"name": "not-gitops", "expression": "request.userInfo.username != 'gitops'"}]);
    for (what, over, gap) in [
        ("as the chart renders it", json!({}), None),
        (
            "without what the API server defaults",
            json!({"failurePolicy": null, "namespaceSelector": null}),
            None,
        ),
        ("by an address of ours", url("https://127.0.0.1:8443/admit"), None),
        ("by an address of ours that stands in brackets", url("https://[::1]:8443/admit"), None),
        ("with a slash at the end, which is not sent", url("https://127.0.0.1:8443/admit/"), None),
        (
            "everything that is created",
            rule(json!({"apiGroups": ["*"], "resources": ["*/*"], "operations": ["*"]})),
            None,
        ),
        (
            "somebody else's service",
            json!({"clientConfig": {"service": {"name": "a", "namespace": "b"}}}),
            Some("a.b.svc"),
        ),
        ("somebody else's address", url("https://10.0.0.1:8443/admit"), Some("10.0.0.1")),
        ("another path", path(json!("/validate")), Some("calls path \"/validate\"")),
        ("no path", path(json!(null)), Some("calls path \"/\"")),
        ("an address of ours without a path", url("https://127.0.0.1:8443"), Some("calls path \"/\"")),
        ("no rule", json!({"rules": []}), Some("no rule")),
        ("another group", rule(json!({"apiGroups": ["apps"]})), Some("no rule")),
        ("another version", rule(json!({"apiVersions": ["v1"]})), Some("no rule")),
        ("another kind", rule(json!({"resources": ["bagsaccounts"]})), Some("no rule")),
        ("its status", rule(json!({"resources": ["apikeys/status"]})), Some("no rule")),
        ("another operation", rule(json!({"operations": ["UPDATE"]})), Some("no rule")),
        ("kinds without a namespace", rule(json!({"scope": "Cluster"})), Some("no rule")),
        ("open while nobody answers", json!({"failurePolicy": "Ignore"}), Some("failurePolicy")),
        (
            "some namespaces",
            json!({"namespaceSelector": {"matchLabels": {"a": "b"}}}),
            Some("namespaceSelector"),
        ),
        ("some ApiKeys", json!({"objectSelector": {"matchLabels": {"a": "b"}}}), Some("objectSelector")),
        ("some people", json!({"matchConditions": condition}), Some("matchConditions")),
    ] {
        let (stored, hosts, mut dealings) = (stored(&configuration(&over)), hosts(), Dealings::default());
        let configuration = served(200, &stored, &hosts);
        // The bundle is written, whatever else is wrong; then it is found.
        for _ in 0..2 {
            let looked = looked(&configuration, &mut dealings, now()).await.unwrap();
            match (&looked, gap) {
                (Look::Settled(Registration::Registered), None) => {}
                (Look::Settled(Registration::Incomplete(name, words)), Some(gap)) => {
                    assert_eq!(name, "bags-operator", "{what}");
                    assert!(words.contains(gap), "{what}: {words}");
                    let none = gap.starts_with("calls path");
                    assert_eq!(words.contains("no ApiKey can be made; call /admit"), none, "{what}: {words}");
                    let past = !none && !words.contains("which is not the operator's");
                    assert_eq!(words.contains("it waits without a key"), past, "{what}: {words}");
                }
                _ => panic!("{what}: {looked:?}"),
            }
        }
        assert_eq!(stored.lock().unwrap().1, 1, "{what}");
    }
    let mut two = configuration(&json!({"failurePolicy": "Ignore"}));
    two["webhooks"].as_array_mut().unwrap().push(configuration(&json!({}))["webhooks"][0].clone());
    let hosts = hosts();
    let looked = looked(&served(200, &stored(&two), &hosts), &mut Dealings::default(), now()).await;
    assert_eq!(looked.unwrap(), Look::Settled(Registration::Registered), "one of two is enough");
}

#[tokio::test]
async fn a_configuration_that_may_not_be_read_is_told_and_not_trusted() {
    let hosts = hosts();
    let forbidden = served(403, &stored(&configuration(&json!({}))), &hosts);
    let looked = looked(&forbidden, &mut Dealings::default(), now()).await.unwrap();
    let Look::Settled(registration) = looked else { panic!("{looked:?}") };
    assert!(
        matches!(&registration, Registration::Wrong(_, why) if why == "403 Forbidden"),
        "{registration:?}"
    );
    assert!(!registration.trusts());
    assert!(
        registration.told().is_some_and(|(good, _, message)| !good && message.contains("get and update"))
    );
}
