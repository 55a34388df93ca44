//! Pods with only the fields that are judged, and how those of a namespace are listed (io).
//!
//! There is no watch of pods: to keep every pod of every namespace in memory all the time is a high price for a question
//! that only a rotation or a deletion asks. While one is open, the namespace's pods are listed, page by page, and of each
//! pod only what a scan needs is kept.

mod served;

use http::Request;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod as KubernetesPod;
use kube::{Client, Resource, api::ListParams, core::Request as Requests};
use serde::Deserialize;

use super::owner::Controller;
use crate::env::{CallError, call};
use served::Served;

/// Pods in one answer.
const PAGE: u32 = 500;
/// How often a list is tried in all, where its snapshot expires before the last page.
const TRIES: usize = 3;
/// A finished pod holds nothing, and there may be thousands of them.
const UNFINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";
/// Status code: the snapshot behind a list's continue token has expired.
const GONE: u16 = 410;

/// An unfinished pod, with only the fields that are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// When it was created, by the API server's clock.
    pub created: Option<Timestamp>,
    /// When it was, or is to be, deleted.
    pub deleted: Option<Timestamp>,
    /// What it belongs to.
    pub controller: Option<Controller>,
    /// The node that it runs on.
    pub node: Option<String>,
    /// It is surely on no node yet: none of its containers has begun.
    pub(super) unscheduled: bool,
    /// It says that it re-reads mounted files.
    pub(super) reloads: bool,
    /// It is Ready.
    pub(super) ready: bool,
    /// How it refers to Secrets.
    pub(super) uses: Vec<Use>,
}

/// One way in which a pod refers to a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) secret: SecretName,
    pub(super) by: By,
}

/// The Secret that is referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SecretName {
    Known(String),
    /// The reference cannot be read: it may be to any.
    Any,
}

/// Who in the pod has the Secret's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// A container: init, main, sidecar, ephemeral, all alike.
    Container(Way, ContainerState),
    /// The pod as a whole, from its start: a volume's driver was handed the value.
    Pod,
    /// Nobody: a volume that no container mounts.
    Nobody,
    /// Somebody: that part of the pod cannot be read.
    Unclear,
}

/// How a container has the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Read once, at its start: `env`, `envFrom`.
    Started,
    /// Read once, at its start, from a file that changes with the Secret, and as late: a mount with `subPath`.
    Part,
    /// As a file that changes with the Secret.
    Mounted,
}

/// What the kubelet says of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContainerState {
    /// Nothing yet.
    NoStatus,
    /// It has not started; it will with what the Secret holds then.
    Waiting,
    /// It had started at this time of the node's clock, and has ended.
    Terminated(Option<Timestamp>),
    /// The same of an init container: it may have handed what it read to the other containers, by a shared volume, and they
    /// may hold it for as long as the pod exists.
    HandedOn(Option<Timestamp>),
    /// It runs, since this time of the node's clock.
    Running(Option<Timestamp>),
    /// Something that cannot be read.
    Unclear,
}

impl Pod {
    /// A pod as a list would show it; `None`: it is finished.
    #[cfg(test)]
    pub(super) fn of_tests(served: &serde_json::Value) -> Option<Self> {
        serde_json::from_str::<Served>(&served.to_string()).expect("it is an object").unfinished()
    }

    /// It is being deleted; until it is gone it may still use what it holds.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.deleted.is_some()
    }

    /// Whether it refers to a Secret, in whatever way.
    #[must_use]
    pub fn refers_to(&self, secret: &str) -> bool {
        self.uses_of(secret).next().is_some()
    }

    pub(super) fn uses_of(&self, secret: &str) -> impl Iterator<Item = &Use> {
        self.uses.iter().filter(move |one| match &one.secret {
            SecretName::Known(name) => name == secret,
            SecretName::Any => true,
        })
    }
}

/// A page as it is served. An answer without `items` is an error: it must not pass for a namespace without pods.
#[derive(Deserialize)]
struct Page {
    metadata: PageMetadata,
    items: Vec<Served>,
}

#[derive(Deserialize)]
struct PageMetadata {
    #[serde(rename = "continue")]
    continued: Option<String>,
}

/// The unfinished pods of a namespace, as they are at one moment after this was called: all of them, or an error.
///
/// # Errors
/// When the API server does not answer each page in time, refuses, or answers with something else than pods.
pub async fn list(client: Client, namespace: &str) -> Result<Vec<Pod>, CallError> {
    let mut tries = 1;
    loop {
        match list_once(&client, namespace).await {
            Err(error) if error.code() == Some(GONE) && tries < TRIES => tries += 1,
            outcome => return outcome,
        }
    }
}

/// All pages of one snapshot.
async fn list_once(client: &Client, namespace: &str) -> Result<Vec<Pod>, CallError> {
    // Without a resource version: the newest state, not what a cache of the API server holds.
    let mut params = ListParams::default().fields(UNFINISHED).limit(PAGE);
    let mut pods = Vec::new();
    loop {
        let Page { metadata, items } = call(page(client, namespace, &params)).await?;
        pods.extend(items.into_iter().filter_map(Served::unfinished));
        match metadata.continued {
            Some(token) if !token.is_empty() => params.continue_token = Some(token),
            Some(_) | None => return Ok(pods),
        }
    }
}

async fn page(client: &Client, namespace: &str, params: &ListParams) -> kube::Result<Page> {
    let requests = Requests::new(KubernetesPod::url_path(&(), Some(namespace)));
    let request: Request<Vec<u8>> = requests.list(params).map_err(kube::Error::BuildRequest)?;
    // Not `Client::request`: that logs a whole answer that it cannot read, and pods have values in their `env`.
    let text = client.request_text(request).await?;
    serde_json::from_str(&text).map_err(kube::Error::SerdeError)
}

#[cfg(test)]
mod tests;
