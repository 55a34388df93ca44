//! What a pod belongs to, and that workload as it is now (io).
//!
//! Owners are followed up only to the three kinds that a change of the pod template restarts; any other owner is named as it
//! is, and holds a revocation up until its pods are gone.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::{
    api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Api, Client, Resource, api::ListParams, core::NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::restarted::Workload;
use crate::env::{CallError, call};

/// How many ReplicaSets' owners are cached. A full cache is emptied, and owners are read again.
const REMEMBERED: usize = 4096;
/// Workloads of a page, when all of a namespace are listed.
const PAGE: u32 = 250;
/// API group of all three kinds. Other groups have kinds of the same names, with rules of their own.
const APPS: &str = "apps";
/// No object has a longer name.
const LONGEST_NAME: usize = 253;

/// The controller of a pod, as its ownerReference says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Controller {
    /// For example `apps/v1`.
    pub api_version: String,
    /// For example `ReplicaSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What a pod belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A workload that can be restarted.
    Workload(WorkloadRef),
    /// A Job, of a CronJob or not: it is never restarted, its end is waited for.
    Job {
        /// Its name.
        name: String,
    },
    /// Nothing: the pod has no controller, and whoever made it has to replace it.
    Bare,
    /// An owner of an unknown kind, or one that cannot be determined: it is named, and waited for.
    Unknown {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadRef {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// The kinds that a change of the pod template restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadKind {
    /// Deployment of `apps`.
    Deployment,
    /// StatefulSet of `apps`.
    StatefulSet,
    /// DaemonSet of `apps`.
    DaemonSet,
}

impl WorkloadKind {
    /// The kind's name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
        }
    }
}

impl fmt::Display for WorkloadRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} \"{}\"", self.kind.as_str(), self.name)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(workload) => workload.fmt(formatter),
            Self::Job { name } => write!(formatter, "Job \"{name}\""),
            Self::Bare => formatter.write_str("pods without an owner"),
            Self::Unknown { kind, name } => write!(formatter, "{kind} \"{name}\""),
        }
    }
}

impl Controller {
    fn is(&self, group: &str, kind: &str) -> bool {
        let of_group = self.api_version.split_once('/').is_some_and(|(of, _)| of == group);
        of_group && self.kind == kind
    }

    fn reference(&self, kind: WorkloadKind) -> Owner {
        Owner::Workload(WorkloadRef { kind, name: self.name.clone(), uid: self.uid.clone() })
    }

    fn unknown(&self) -> Owner {
        Owner::Unknown { kind: self.kind.clone(), name: self.name.clone() }
    }

    /// The owner of a pod whose controller this is, where no ReplicaSet is between.
    fn of_pod(&self) -> Owner {
        if self.is(APPS, "StatefulSet") {
            self.reference(WorkloadKind::StatefulSet)
        } else if self.is(APPS, "DaemonSet") {
            self.reference(WorkloadKind::DaemonSet)
        } else if self.is("batch", "Job") {
            Owner::Job { name: self.name.clone() }
        } else {
            self.unknown()
        }
    }

    /// The owner of a ReplicaSet whose controller this is.
    fn of_replica_set(&self) -> Owner {
        if self.is(APPS, "Deployment") { self.reference(WorkloadKind::Deployment) } else { self.unknown() }
    }
}

impl From<&OwnerReference> for Controller {
    fn from(reference: &OwnerReference) -> Self {
        let OwnerReference { api_version, kind, name, uid, controller: _, block_owner_deletion: _ } =
            reference;
        Self { api_version: api_version.clone(), kind: kind.clone(), name: name.clone(), uid: uid.clone() }
    }
}

/// Owners of ReplicaSets, by the uid of the ReplicaSet: they do not change while the workload lives.
#[derive(Debug, Default)]
pub struct OwnerCache(Mutex<HashMap<String, Owner>>);

impl OwnerCache {
    fn known(&self) -> MutexGuard<'_, HashMap<String, Owner>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, uid: &str) -> Option<Owner> {
        self.known().get(uid).cloned()
    }

    fn keep(&self, uid: &str, owner: &Owner) {
        let mut known = self.known();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(uid.to_owned(), owner.clone());
    }

    /// Drops a workload that is gone: another one may have adopted its ReplicaSets.
    pub(super) fn forget(&self, workload: &WorkloadRef) {
        self.known().retain(|_, owner| !matches!(owner, Owner::Workload(known) if known == workload));
    }
}

/// Whether an object can have this name. Whoever creates a pod can write any text into its ownerReferences, and in the path of
/// a request such a text could address something else, or nothing.
fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= LONGEST_NAME && name.split('.').all(is_part)
}

/// What a pod with this controller belongs to.
///
/// # Errors
/// When the API server does not answer.
pub async fn owner(
    client: Client,
    namespace: &str,
    controller: Option<&Controller>,
    cache: &OwnerCache,
) -> Result<Owner, CallError> {
    let Some(controller) = controller else { return Ok(Owner::Bare) };
    if !is_name(&controller.name) {
        return Ok(controller.unknown());
    }
    if !controller.is(APPS, "ReplicaSet") {
        return Ok(controller.of_pod());
    }
    if let Some(owner) = cache.find(&controller.uid) {
        return Ok(owner);
    }
    let sets: Api<ReplicaSet> = Api::namespaced(client, namespace);
    let set = call(sets.get_metadata_opt(&controller.name)).await?;
    let Some(owner) = set.and_then(|set| behind(&set.metadata, &controller.uid)) else {
        return Ok(controller.unknown());
    };
    cache.keep(&controller.uid, &owner);
    Ok(owner)
}

/// The owner of a ReplicaSet; `None`: it is another ReplicaSet of the same name, or has no owner.
fn behind(set: &ObjectMeta, uid: &str) -> Option<Owner> {
    if set.uid.as_deref() != Some(uid) {
        return None;
    }
    let owners = set.owner_references.as_ref()?;
    let controller = owners.iter().find(|owner| owner.controller == Some(true))?;
    Some(Controller::from(controller).of_replica_set())
}

/// A workload as it is now; `None`: it is gone, or is another one of the same name.
///
/// # Errors
/// When the API server does not answer.
pub async fn read(
    client: Client,
    namespace: &str,
    reference: &WorkloadRef,
) -> Result<Option<Workload>, CallError> {
    let WorkloadRef { kind, name, uid } = reference;
    if !is_name(name) {
        return Ok(None);
    }
    let found = match kind {
        WorkloadKind::Deployment => {
            call(Api::<Deployment>::namespaced(client, namespace).get_opt(name)).await?.map(Workload::from)
        }
        WorkloadKind::StatefulSet => {
            call(Api::<StatefulSet>::namespaced(client, namespace).get_opt(name)).await?.map(Workload::from)
        }
        WorkloadKind::DaemonSet => {
            call(Api::<DaemonSet>::namespaced(client, namespace).get_opt(name)).await?.map(Workload::from)
        }
    };
    // Without a resourceVersion a mark would not be bound to the version that was read here.
    let whole = |workload: &Workload| workload.reference.uid == *uid && !workload.resource_version.is_empty();
    Ok(found.filter(whole))
}

/// The workloads of a namespace that carry this mark of an ApiKey, whether they have pods or not.
///
/// # Errors
/// When the API server does not answer each page.
pub async fn marked(
    client: Client,
    namespace: &str,
    secret: &str,
    (api_key, mark): (&str, &str),
) -> Result<Vec<WorkloadRef>, CallError> {
    let mut all = every::<Deployment>(client.clone(), namespace, secret).await?;
    all.extend(every::<StatefulSet>(client.clone(), namespace, secret).await?);
    all.extend(every::<DaemonSet>(client, namespace, secret).await?);
    let of_mark = all.into_iter().filter(|workload| workload.mark(api_key) == Some(mark));
    Ok(of_mark.map(|workload| workload.reference).collect())
}

/// Those of a kind whose pod template names a Secret.
async fn every<K>(client: Client, namespace: &str, secret: &str) -> Result<Vec<Workload>, CallError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize,
    Workload: From<K>,
{
    let names = |workload: &K| {
        let object = serde_json::to_value(workload).unwrap_or_default();
        has_text(&object["spec"]["template"]["spec"], secret)
    };
    let api = Api::<K>::namespaced(client, namespace);
    let mut params = ListParams::default().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = call(api.list(&params)).await?;
        all.extend(page.items.into_iter().filter(names).map(Workload::from));
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params.continue_token = Some(token),
            Some(_) | None => return Ok(all),
        }
    }
}

/// Whether a text occurs anywhere in a value: one workload too many is better than one that is forgotten.
fn has_text(value: &Value, text: &str) -> bool {
    match value {
        Value::String(one) => one == text,
        Value::Array(all) => all.iter().any(|one| has_text(one, text)),
        Value::Object(all) => all.values().any(|one| has_text(one, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests;
