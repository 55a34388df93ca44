//! The cases, and what they are made of.

#[path = "creation.rs"]
mod creation;
#[path = "deletion.rs"]
mod deletion;
#[path = "ownership.rs"]
mod ownership;
#[path = "patch.rs"]
mod patch;
#[path = "read.rs"]
mod read;
#[path = "refusal.rs"]
mod refusal;
#[path = "update.rs"]
mod update;
#[path = "watch.rs"]
mod watch;
#[path = "webhook.rs"]
mod webhook;
#[path = "workloads.rs"]
mod workloads;

use std::fmt::Debug;

use bags_operator::api::{ApiKey, BagsAccount};
use futures::{Stream, StreamExt, future::LocalBoxFuture};
use http::{Method, Request, header};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota, Secret};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    client::Body,
    runtime::wait::await_condition,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::apiserver::{AdmissionVerdict, ApiServer};

/// What is done, and what is seen of it.
pub(crate) struct Case {
    /// The case as a sentence.
    pub(crate) says: &'static str,
    pub(crate) run: Box<dyn Fn(Subject) -> LocalBoxFuture<'static, Value>>,
    pub(crate) expected: Value,
}

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    let mut table = Table(Vec::new());
    creation::add(&mut table);
    refusal::add(&mut table);
    read::add(&mut table);
    update::add(&mut table);
    patch::add(&mut table);
    deletion::add(&mut table);
    watch::add(&mut table);
    workloads::add(&mut table);
    ownership::add(&mut table);
    webhook::add(&mut table);
    table.0
}

struct Table(Vec<Case>);

impl Table {
    fn case<F, Run>(&mut self, says: &'static str, run: F, expected: Value)
    where
        F: Fn(Subject) -> Run + 'static,
        Run: Future<Output = Value> + 'static,
    {
        let run = Box::new(move |subject| -> LocalBoxFuture<'static, Value> { Box::pin(run(subject)) });
        self.0.push(Case { says, run, expected });
    }
}

/// A server, and a namespace in it.
#[derive(Clone)]
pub(crate) struct Subject {
    client: Client,
    namespace: String,
    /// None: the real one.
    server: Option<ApiServer>,
}

/// An answer as it came.
struct Answer {
    code: u16,
    body: Value,
}

impl Answer {
    /// The code alone of what went well; of a refusal its reason too.
    fn said(&self) -> Value {
        match self.body["reason"].as_str().filter(|_| self.code >= 400) {
            Some(reason) => json!(format!("{} {reason}", self.code)),
            None => json!(self.code),
        }
    }

    fn metadata(&self) -> &Value {
        &self.body["metadata"]
    }

    fn version(&self) -> &str {
        self.metadata()["resourceVersion"].as_str().unwrap_or_default()
    }
}

impl Subject {
    pub(crate) fn in_memory(server: ApiServer, namespace: &str) -> Self {
        Self { client: server.client(), namespace: namespace.to_owned(), server: Some(server) }
    }

    pub(crate) fn real(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned(), server: None }
    }

    /// Takes away what a case left outside its namespace.
    pub(crate) async fn clean(&self) {
        for account in self.accounts().list(&ListParams::default()).await.unwrap() {
            let name = account.name_any();
            if name.starts_with(&self.namespace) {
                let free = json!({"metadata": {"finalizers": null}});
                drop(self.accounts().patch(&name, &PatchParams::default(), &Patch::Merge(&free)).await);
                drop(self.accounts().delete(&name, &DeleteParams::default()).await);
            }
        }
    }

    fn keys(&self) -> Api<ApiKey> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn accounts(&self) -> Api<BagsAccount> {
        Api::all(self.client.clone())
    }

    fn namespaces(&self) -> Api<Namespace> {
        Api::all(self.client.clone())
    }

    /// A name for what is cluster-scoped.
    fn unique(&self, name: &str) -> String {
        format!("{}-{name}", self.namespace)
    }

    async fn key(&self, name: &str) -> ApiKey {
        self.keys().create(&PostParams::default(), &from(key(name))).await.unwrap()
    }

    async fn secret(&self, name: &str) -> Secret {
        self.secrets().create(&PostParams::default(), &from(secret(name))).await.unwrap()
    }

    async fn account(&self, name: &str) -> BagsAccount {
        let account = json!({
            "apiVersion": "keys.bags.fm/v1alpha1", "kind": "BagsAccount",
            "metadata": {"name": self.unique(name)},
            "spec": {"credentials": {"agentToken": {"secretName": "credentials"}}},
        });
        self.accounts().create(&PostParams::default(), &from(account)).await.unwrap()
    }

    /// An ApiKey that is being deleted and held by a finalizer.
    async fn dying_key(&self, name: &str) -> ApiKey {
        let mut held = key(name);
        held["metadata"]["finalizers"] = json!(["example.com/held"]);
        let held: ApiKey = from(held);
        self.keys().create(&PostParams::default(), &held).await.unwrap();
        self.keys().delete(name, &DeleteParams::default()).await.unwrap();
        self.keys().get(name).await.unwrap()
    }

    fn keys_path(&self) -> String {
        format!("/apis/keys.bags.fm/v1alpha1/namespaces/{}/apikeys", self.namespace)
    }

    fn secrets_path(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets", self.namespace)
    }

    async fn send(&self, request: Request<Vec<u8>>) -> Answer {
        let response = self.client.send(request.map(Body::from)).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| json!({"text": String::from_utf8_lossy(&bytes).into_owned()}));
        Answer { code, body }
    }

    async fn call(&self, method: Method, path: &str, content_type: &str, body: Vec<u8>) -> Answer {
        let request = Request::builder().method(method).uri(path);
        self.send(request.header(header::CONTENT_TYPE, content_type).body(body).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Vec::new()).unwrap()).await
    }

    async fn post(&self, path: &str, object: &Value) -> Answer {
        self.call(Method::POST, path, "application/json", object.to_string().into()).await
    }

    async fn put(&self, path: &str, object: &Value) -> Answer {
        self.call(Method::PUT, path, "application/json", object.to_string().into()).await
    }

    async fn merge(&self, path: &str, patch: &Value) -> Answer {
        self.call(Method::PATCH, path, "application/merge-patch+json", patch.to_string().into()).await
    }

    async fn delete(&self, path: &str, options: &Value) -> Answer {
        self.call(Method::DELETE, path, "application/json", options.to_string().into()).await
    }

    /// Lets no Secret be created in the namespace any more.
    async fn refuse_secrets(&self) {
        if let Some(server) = &self.server {
            let namespace = self.namespace.clone();
            server.set_admission(move |asked| match asked.resource {
                "secrets" if asked.namespace == namespace => {
                    AdmissionVerdict::Deny { code: 403, message: "exceeded quota".to_owned() }
                }
                _ => AdmissionVerdict::Allow,
            });
            return;
        }
        let quotas: Api<ResourceQuota> = Api::namespaced(self.client.clone(), &self.namespace);
        let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"count/secrets": "0"}}});
        quotas.create(&PostParams::default(), &from(quota)).await.unwrap();
        let counted = |quota: Option<&ResourceQuota>| {
            quota.and_then(|quota| quota.status.as_ref()).is_some_and(|status| status.hard.is_some())
        };
        await_condition(quotas, "none", counted).await.unwrap();
        // Admission has a cache of its own.
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        while self.secrets().create(&dry_run, &from(secret("probe"))).await.is_ok() {}
    }

    /// Lets the namespace controller work on a terminating namespace until it cannot go on, or the namespace is gone.
    async fn finish(&self, namespace: &str, gone: bool) {
        if let Some(server) = &self.server {
            assert_eq!(server.finish_namespace(namespace), gone);
            return;
        }
        // When it cannot go on, it says so in a condition.
        let stuck = |namespace: Option<&Namespace>| {
            let status = namespace.and_then(|namespace| namespace.status.as_ref());
            let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
            conditions.iter().any(|condition| {
                condition.type_ == "NamespaceFinalizersRemaining" && condition.status == "True"
            })
        };
        let done = move |found: Option<&Namespace>| if gone { found.is_none() } else { stuck(found) };
        await_condition(self.namespaces(), namespace, done).await.unwrap();
    }

    /// Lets the namespace controller work on a terminating namespace until only the namespace's own finalizers are left.
    async fn empty(&self, namespace: &str) {
        if let Some(server) = &self.server {
            assert!(!server.finish_namespace(namespace));
            return;
        }
        let empty = |found: Option<&Namespace>| {
            let spec = found.and_then(|namespace| namespace.spec.as_ref());
            spec.is_some_and(|spec| spec.finalizers.is_none())
        };
        await_condition(self.namespaces(), namespace, empty).await.unwrap();
    }

    /// A version that cannot be watched from any more.
    fn old_version(&self) -> String {
        if let Some(server) = &self.server {
            server.compact();
        }
        "1".to_owned()
    }

    /// What a watch of ApiKeys shows from a version on, until one named `end` is added; this adds it.
    async fn shown(&self, params: &WatchParams, version: &str) -> Vec<WatchEvent<ApiKey>> {
        let mut end = key("end");
        end["metadata"]["labels"] = json!({"team": "red"});
        self.keys().create(&PostParams::default(), &from(end)).await.unwrap();
        let events = self.keys().watch(params, version).await.unwrap();
        until_end(&self.namespace, events).await
    }
}

/// Of a watch, until an object named `end` is added in a namespace.
async fn until_end<K: Resource + Debug>(
    namespace: &str,
    events: impl Stream<Item = kube::Result<WatchEvent<K>>>,
) -> Vec<WatchEvent<K>> {
    futures::pin_mut!(events);
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        match event.unwrap() {
            WatchEvent::Added(object)
                if object.meta().name.as_deref() == Some("end")
                    && object.meta().namespace.as_deref() == Some(namespace) =>
            {
                return seen;
            }
            WatchEvent::Bookmark(_) => {}
            event => seen.push(event),
        }
    }
    panic!("the watch ended early, after {seen:?}");
}

/// An event as a few words.
fn told<K: Resource>(event: &WatchEvent<K>) -> String {
    let (kind, object) = match event {
        WatchEvent::Added(object) => ("ADDED", object),
        WatchEvent::Modified(object) => ("MODIFIED", object),
        WatchEvent::Deleted(object) => ("DELETED", object),
        WatchEvent::Bookmark(_) => return "BOOKMARK".to_owned(),
        WatchEvent::Error(status) => return format!("ERROR {} {}", status.code, status.reason),
    };
    format!("{kind} {}", object.meta().name.as_deref().unwrap_or_default())
}

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn to<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap()
}

/// A good ApiKey.
fn key(name: &str) -> Value {
    json!({
        "apiVersion": "keys.bags.fm/v1alpha1", "kind": "ApiKey",
        "metadata": {"name": name},
        "spec": {"accountRef": {"name": "main"}, "environment": "production"},
    })
}

/// A good Secret.
fn secret(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque",
        "data": {"value": "b25l"},
    })
}

/// What an answer of the typed client comes to.
fn said<T>(result: &kube::Result<T>) -> Value {
    match result {
        Ok(_) => json!("done"),
        Err(kube::Error::Api(status)) => json!(format!("{} {}", status.code, status.reason)),
        Err(error) => json!(error.to_string()),
    }
}

fn version<K: ResourceExt>(object: &K) -> u64 {
    object.resource_version().unwrap().parse().unwrap()
}

fn names<K: ResourceExt>(objects: impl IntoIterator<Item = K>) -> Vec<String> {
    objects.into_iter().map(|object| object.name_any()).collect()
}
