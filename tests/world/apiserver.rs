//! A Kubernetes API server in memory, for tests: deterministic, synchronous, and without a clock or chance of its own.
//!
//! It serves what the operator uses: ApiKeys, BagsAccounts, Secrets, Namespaces, Events, and pods with the workloads that
//! they belong to. `tests/conformance.rs` runs one list of cases against it and against the real server: where the two
//! differ, this one is wrong.
//!
//! What it leaves out: the schema and the rules of the custom kinds (`tests/crds.rs` has them), the defaults and the rules
//! of pods and workloads, server-side apply and the other kinds of patch, field ownership of all but Secrets (where
//! nobody writes `managedFields` by hand), authentication, rights but for a namespace's as a whole, the garbage collector, and the conditions that the
//! namespace controller writes.
#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "apiserver/create.rs"]
mod create;
#[path = "apiserver/delete.rs"]
mod delete;
#[path = "apiserver/fields.rs"]
mod fields;
#[path = "apiserver/http.rs"]
mod http;
#[path = "apiserver/kinds.rs"]
mod kinds;
#[path = "apiserver/list.rs"]
mod list;
#[path = "apiserver/object.rs"]
mod object;
#[path = "apiserver/params.rs"]
mod params;
#[path = "apiserver/payload.rs"]
mod payload;
#[path = "apiserver/select.rs"]
mod select;
#[path = "apiserver/service.rs"]
mod service;
#[path = "apiserver/status.rs"]
mod status;
#[path = "apiserver/store.rs"]
mod store;
#[path = "apiserver/update.rs"]
mod update;
#[path = "apiserver/validate.rs"]
mod validate;
#[path = "apiserver/view.rs"]
mod view;
#[path = "apiserver/watch.rs"]
mod watch;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use ::http::{Method, Request, Response};
use bags_operator::clock::Clock;
use bytes::Bytes;
use serde_json::{Value, json};

use create::Hook;
use fields::Author;
use kinds::{Kind, Part, Route};
use store::Store;
use update::Target;

#[allow(unused_imports, reason = "each test binary uses its part")]
pub(crate) use {
    create::{AdmissionRequest, AdmissionVerdict},
    delete::Deletion,
    payload::Payload,
    status::StatusError,
    store::{Change, ChangeKind},
    watch::Watch,
};

/// The field manager of what tests write as people.
const BY_HAND: &str = "kubectl";

/// A cheap handle; clones share one state.
#[derive(Clone)]
pub(crate) struct ApiServer(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    store: Mutex<Store>,
    admission: Mutex<Option<Arc<Hook>>>,
    /// Namespaces in which whoever asks by HTTP has no right to Secrets, pods and workloads; and what they may not change, as
    /// `namespace/resource/name`.
    withheld: Mutex<BTreeSet<String>>,
    /// Tells the version of the last change to those who stream.
    moved: tokio::sync::watch::Sender<u64>,
}

impl ApiServer {
    /// A server with the namespaces that every cluster has. The clock gives the timestamps of creations and deletions.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let store = Store::new();
        let (moved, _) = tokio::sync::watch::channel(store.version());
        let shared = Shared {
            clock,
            store: Mutex::new(store),
            admission: Mutex::default(),
            withheld: Mutex::default(),
            moved,
        };
        let server = Self(Arc::new(shared));
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            server.create(namespace).expect("a new server has no namespaces");
        }
        server
    }

    /// Answers a request, at once and atomically. A watch is answered with what it has to tell now, and ends: for one
    /// that goes on there is [`ApiServer::watch`].
    pub(crate) fn answer(&self, request: &Request<Payload>) -> Response<Bytes> {
        http::answer(self, request)
    }

    /// Whether a request asks for a watch.
    pub(crate) fn is_watch<B>(request: &Request<B>) -> bool {
        http::is_watch(request)
    }

    /// Begins the watch that a request asks for; the caller moves it on.
    ///
    /// # Errors
    /// The refusal, to be sent as it is.
    pub(crate) fn watch<B>(&self, request: &Request<B>) -> Result<Watch, Box<Response<Bytes>>> {
        self.read(|store| http::watch(store, request)).map_err(|status| Box::new(http::refuse(&status)))
    }

    /// Every change since a version, that one excluded, oldest first; of those that were not compacted.
    pub(crate) fn changes_since(&self, version: u64) -> Vec<Change> {
        self.read(|store| store.changes_since(version).to_vec())
    }

    /// The newest version.
    pub(crate) fn version(&self) -> u64 {
        self.read(Store::version)
    }

    /// Forgets the log: watches and lists of earlier versions are refused as expired.
    pub(crate) fn compact(&self) {
        self.write(Store::compact);
    }

    /// An object as it is stored. `resource` is the plural; the namespace of what is cluster-scoped is empty.
    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let kind = Kind::of_resource(resource)?;
        self.read(|store| store.get(kind, namespace, name).cloned())
    }

    /// All objects of a resource, of all namespaces, in key order.
    pub(crate) fn list(&self, resource: &str) -> Vec<Arc<Value>> {
        let Some(kind) = Kind::of_resource(resource) else { return Vec::new() };
        self.read(|store| store.all(kind, None).map(|(_, object)| object.clone()).collect())
    }

    /// Creates an object as an administrator would; its kind and namespace stand in it.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) fn create(&self, mut object: Value) -> Result<Arc<Value>, StatusError> {
        let kind = kind_of(&object)?;
        object::read(kind, &mut object).map_err(|why| status::unreadable(kind, why))?;
        let namespace = object::text(&object, "namespace").to_owned();
        let now = self.now();
        self.create_in(kind, &namespace, object, false, Author { manager: BY_HAND, now: &now })
    }

    /// Reads an object, changes it and writes it back.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) fn edit(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<Arc<Value>, StatusError> {
        self.edit_part(Part::Main, resource, namespace, name, change)
    }

    /// Reads an object, changes it and writes its status back.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) fn edit_status(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<Arc<Value>, StatusError> {
        self.edit_part(Part::Status, resource, namespace, name, change)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) fn delete(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Deletion, StatusError> {
        let kind = Kind::of_resource(resource).ok_or_else(status::no_such_path)?;
        let target = Target { kind, namespace, name, part: Part::Main };
        let now = self.now();
        self.write(|store| delete::delete(store, target, &delete::Options::default(), &now))
    }

    /// Takes a pod away that has ended, as its kubelet does.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) fn remove_pod(&self, namespace: &str, name: &str) -> Result<Deletion, StatusError> {
        let kind = Kind::of_resource("pods").ok_or_else(status::no_such_path)?;
        let target = Target { kind, namespace, name, part: Part::Main };
        let options = delete::Options { grace: Some(0), ..delete::Options::default() };
        let now = self.now();
        self.write(|store| delete::delete(store, target, &options, &now))
    }

    /// Plays the namespace controller for a terminating namespace: deletes what is in it, and then the namespace itself,
    /// if no finalizer holds anything. Says whether it is gone; one that is not terminating is left alone.
    pub(crate) fn finish_namespace(&self, name: &str) -> bool {
        let now = self.now();
        self.write(|store| delete::finish_namespace(store, name, &now))
    }

    /// Sets what is asked before an object is created, also by a dry-run: where the real server calls a webhook. It
    /// may ask the server in turn.
    pub(crate) fn set_admission(
        &self,
        hook: impl Fn(&AdmissionRequest<'_>) -> AdmissionVerdict + Send + Sync + 'static,
    ) {
        *self.admission() = Some(Arc::new(hook));
    }

    /// Takes the rights to a namespace's Secrets, pods and workloads from whoever asks by HTTP, or gives them back: where the
    /// real server has a RoleBinding.
    pub(crate) fn withhold(&self, namespace: &str, withheld: bool) {
        self.refuse(namespace.to_owned(), withheld);
    }

    /// Whether it does.
    pub(crate) fn withholds(&self, namespace: &str) -> bool {
        self.0.withheld.lock().unwrap_or_else(PoisonError::into_inner).contains(namespace)
    }

    /// Lets nobody who asks by HTTP change an object, or again: where the real server has an admission policy.
    pub(crate) fn protect(&self, resource: &str, namespace: &str, name: &str, protected: bool) {
        self.refuse(format!("{namespace}/{resource}/{name}"), protected);
    }

    fn refuse(&self, what: String, refused: bool) {
        let mut all = self.0.withheld.lock().unwrap_or_else(PoisonError::into_inner);
        if refused {
            all.insert(what);
        } else {
            all.remove(&what);
        }
    }

    fn may_use(&self, method: &Method, route: &Route<'_>) -> bool {
        if route.kind.custom || ["events", "namespaces"].contains(&route.kind.resource) {
            return true;
        }
        let withheld = self.0.withheld.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(namespace) = route.namespace else { return true };
        let object = format!("{namespace}/{}/{}", route.kind.resource, route.name.unwrap_or_default());
        !withheld.contains(namespace) && (method == Method::GET || !withheld.contains(&object))
    }

    /// A client without any gate between: every request is answered at once, and watches stream. It wants a runtime.
    pub(crate) fn client(&self) -> kube::Client {
        service::client(self.clone())
    }

    fn edit_part(
        &self,
        part: Part,
        resource: &str,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<Arc<Value>, StatusError> {
        let kind = Kind::of_resource(resource).ok_or_else(status::no_such_path)?;
        if part == Part::Status && !kind.has_status {
            return Err(status::no_such_path());
        }
        let target = Target { kind, namespace, name, part };
        // Not under the lock, as the change may ask the server; whoever writes meanwhile makes it a conflict.
        let mut object = Value::clone(&*self.read(|store| update::current(store, target))?);
        change(&mut object);
        object::read(kind, &mut object).map_err(|why| status::unreadable(kind, why))?;
        let now = self.now();
        let author = Author { manager: BY_HAND, now: &now };
        self.write(|store| update::replace(store, target, object, false, author))
    }

    /// The first step of a creation: the object as it is put before admission. Nothing is stored yet.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) fn begin_creation(&self, mut object: Value) -> Result<Value, StatusError> {
        let kind = kind_of(&object)?;
        object::read(kind, &mut object).map_err(|why| status::unreadable(kind, why))?;
        let (now, namespace) = (self.now(), object::text(&object, "namespace").to_owned());
        self.write(|store| create::prepare(store, kind, &namespace, object, &now))
    }

    /// The last step, once admission has let it in.
    ///
    /// # Errors
    /// What the server says: meanwhile another object may have taken the name.
    pub(crate) fn finish_creation(&self, object: Value) -> Result<Arc<Value>, StatusError> {
        let kind = kind_of(&object)?;
        let now = self.now();
        let author = Author { manager: BY_HAND, now: &now };
        self.write(|store| create::store(store, kind, object, false, author))
    }

    fn create_in(
        &self,
        kind: &'static Kind,
        namespace: &str,
        object: Value,
        dry_run: bool,
        author: Author<'_>,
    ) -> Result<Arc<Value>, StatusError> {
        let mut object = self.write(|store| create::prepare(store, kind, namespace, object, author.now))?;
        let hook = self.admission().clone();
        if let Some(hook) = hook {
            object = create::admit(&*hook, kind, object, dry_run)?;
        }
        self.write(|store| create::store(store, kind, object, dry_run, author))
    }

    /// The time as the server writes it: whole seconds.
    pub(crate) fn now(&self) -> String {
        let wall = self.0.clock.wall();
        jiff::Timestamp::from_second(wall.as_second()).unwrap_or(wall).to_string()
    }

    fn admission(&self) -> std::sync::MutexGuard<'_, Option<Arc<Hook>>> {
        self.0.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, work: impl FnOnce(&Store) -> T) -> T {
        work(&self.0.store.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, work: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.0.store.lock().unwrap_or_else(PoisonError::into_inner);
        let before = store.version();
        let outcome = work(&mut store);
        let after = store.version();
        drop(store);
        if after != before {
            self.0.moved.send_replace(after);
        }
        outcome
    }
}

/// The kind that an object says it is of.
fn kind_of(object: &Value) -> Result<&'static Kind, StatusError> {
    let types = |field| object.get(field).and_then(Value::as_str).unwrap_or_default();
    Kind::of_types(types("apiVersion"), types("kind")).ok_or_else(status::no_such_path)
}
