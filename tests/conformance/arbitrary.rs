//! Whatever is sent, the server in memory answers, and the same requests have the same answers.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    alone::{key, secret, server},
    apiserver::{ApiServer, ChangeKind, Payload},
};

/// Requests of every kind, with parts that fit together often enough.
fn request() -> impl Strategy<Value = Request<Payload>> {
    let methods = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD];
    let parts = [
        "/api/v1",
        "/apis/keys.bags.fm/v1alpha1",
        "/apis",
        "/namespaces",
        "/default",
        "/missing",
        "/secrets",
        "/apikeys",
        "/bagsaccounts",
        "/events",
        "/pods",
        "/deployments",
        "/a",
        "/b",
        "/status",
        "/",
        "//",
        "/%2F",
    ];
    let good = [
        "/api/v1/namespaces/default/secrets",
        "/api/v1/namespaces/default/secrets/a",
        "/apis/keys.bags.fm/v1alpha1/namespaces/default/apikeys",
        "/apis/keys.bags.fm/v1alpha1/namespaces/default/apikeys/a",
        "/apis/keys.bags.fm/v1alpha1/namespaces/default/apikeys/a/status",
        "/api/v1/namespaces/default/pods/a",
        "/apis/apps/v1/namespaces/default/deployments",
        "/apis/apps/v1/namespaces/default/deployments/a/status",
        "/api/v1/namespaces/default",
        "/api/v1/namespaces",
    ];
    let path = prop_oneof![
        4 => prop::sample::select(good.to_vec()).prop_map(str::to_owned),
        1 => prop::collection::vec(prop::sample::select(parts.to_vec()), 1..6).prop_map(|parts| parts.concat()),
    ];
    let terms = [
        "watch=true",
        "limit=1",
        "limit=x",
        "fieldManager=one",
        "continue=e30",
        "continue=",
        "resourceVersion=0",
        "resourceVersion=1",
        "resourceVersion=99999999999999999999",
        "resourceVersion=1003",
        "resourceVersionMatch=Exact",
        "dryRun=All",
        "dryRun=No",
        "labelSelector=a%20in%20(b",
        "labelSelector=!a",
        "labelSelector=a%3D%3Db,c!%3Dd",
        "labelSelector=(",
        "fieldSelector=metadata.name%3Da",
        "fieldSelector==",
        "sendInitialEvents=true",
        "allowWatchBookmarks=1",
        "%%%",
    ];
    let query =
        prop::collection::vec(prop::sample::select(terms.to_vec()), 0..4).prop_map(|terms| terms.join("&"));
    let types = ["application/json", "application/merge-patch+json", "", "text/plain", "\u{7f}"];
    let headers = (
        prop::sample::select(types.to_vec()),
        prop::option::of(prop::sample::select(vec![
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            "*/*",
            "text/html",
            ";;,",
        ])),
    );
    (prop::sample::select(methods.to_vec()), path, query, headers, body()).prop_map(
        |(method, path, query, (content_type, accept), body)| {
            let mut request = Request::new(Bytes::from(body).into());
            *request.method_mut() = method;
            if let Ok(uri) = format!("{path}?{query}").parse() {
                *request.uri_mut() = uri;
            }
            if let Ok(value) = content_type.parse() {
                request.headers_mut().insert(header::CONTENT_TYPE, value);
            }
            if let Some(accept) = accept {
                request.headers_mut().insert(header::ACCEPT, accept.parse().unwrap());
            }
            request
        },
    )
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        Just(json!(1)),
        Just(json!(-1.5)),
        Just(json!(true)),
        prop::sample::select(vec![
            "a",
            "b",
            "default",
            "v1",
            "Secret",
            "ApiKey",
            "Namespace",
            "keys.bags.fm/v1alpha1",
            "",
            "\u{1F511}",
            "5",
            "1005",
            "example.com/held",
            "foregroundDeletion",
            "Foreground",
            "b25l",
        ])
        .prop_map(|text| json!(text)),
    ];
    let names = [
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "generateName",
        "namespace",
        "uid",
        "resourceVersion",
        "finalizers",
        "labels",
        "annotations",
        "deletionTimestamp",
        "generation",
        "spec",
        "status",
        "data",
        "stringData",
        "type",
        "immutable",
        "preconditions",
        "propagationPolicy",
        "dryRun",
        "gracePeriodSeconds",
        "managedFields",
        "nodeName",
        "",
    ];
    let value = leaf.prop_recursive(4, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(names.to_vec()), inner, 0..6)
                .prop_map(|fields| json!(fields)),
        ]
    });
    // A good object with some other parts.
    let mixed = (prop::sample::select(vec![secret("a"), key("a"), secret("b")]), value.clone()).prop_map(
        |(mut object, other)| {
            for (name, value) in other.as_object().into_iter().flatten() {
                match (object.get_mut(name), value) {
                    (Some(Value::Object(fields)), Value::Object(more)) => fields.extend(more.clone()),
                    _ => object[name] = value.clone(),
                }
            }
            object
        },
    );
    prop_oneof![
        4 => mixed.prop_map(|value| value.to_string().into_bytes()),
        2 => value.prop_map(|value| value.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ]
}

fn checked(answer: &Response<Bytes>) {
    let code = answer.status().as_u16();
    if code >= 400 {
        let status: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(
            (&status["kind"], &status["status"], &status["code"]),
            (&json!("Status"), &json!("Failure"), &json!(code))
        );
    }
}

proptest! {
    #[test]
    fn no_request_makes_it_panic_and_the_same_requests_have_the_same_answers(
        requests in prop::collection::vec(request(), 1..40)
    ) {
        let (one, two) = (server(), server());
        for request in &requests {
            let answer = one.answer(request);
            checked(&answer);
            let again = two.answer(request);
            prop_assert_eq!((answer.status(), answer.body()), (again.status(), again.body()));
        }
        prop_assert_eq!(one.version(), two.version());
        prop_assert_eq!(replayed(&one), stored(&one));
    }
}

/// What there is by the log.
fn replayed(server: &ApiServer) -> Vec<Arc<Value>> {
    let mut objects = BTreeMap::new();
    for change in server.changes_since(0) {
        let metadata = &change.object["metadata"];
        let key = (change.resource, metadata["namespace"].to_string(), metadata["name"].to_string());
        let before = match change.kind {
            ChangeKind::Deleted => objects.remove(&key),
            ChangeKind::Added | ChangeKind::Modified => objects.insert(key, change.object),
        };
        assert_eq!(before, change.before);
    }
    let mut objects: Vec<_> = objects.into_values().collect();
    objects.sort_by_key(version);
    objects
}

/// What there is.
fn stored(server: &ApiServer) -> Vec<Arc<Value>> {
    let resources = [
        "apikeys",
        "bagsaccounts",
        "daemonsets",
        "deployments",
        "events",
        "namespaces",
        "pods",
        "replicasets",
        "secrets",
        "statefulsets",
    ];
    let mut objects: Vec<_> = resources.into_iter().flat_map(|resource| server.list(resource)).collect();
    objects.sort_by_key(version);
    objects
}

fn version(object: &Arc<Value>) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}
