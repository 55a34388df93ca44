//! Requests to the API server, from its audit log.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::Deserialize;

/// The audit log of a cluster, as far as one user is concerned.
pub(crate) struct Audit {
    path: PathBuf,
    user: String,
}

/// A place in the log.
#[derive(Clone, Copy)]
pub(crate) struct Mark(u64);

/// One request.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    stage: String,
    #[serde(rename = "requestURI")]
    uri: String,
    pub(crate) verb: String,
    user: User,
    object_ref: Option<Object>,
    response_status: Option<Status>,
    /// When it came in.
    #[serde(rename = "requestReceivedTimestamp")]
    pub(crate) received: Timestamp,
    /// When it was answered; a watch: when it began.
    #[serde(rename = "stageTimestamp")]
    pub(crate) answered: Timestamp,
}

#[derive(Clone, Deserialize)]
struct User {
    username: String,
}

#[derive(Clone, Default, Deserialize)]
struct Object {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

#[derive(Clone, Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

impl Request {
    fn object(&self) -> Object {
        self.object_ref.clone().unwrap_or_default()
    }

    /// Whether it was meant to change anything.
    pub(crate) fn writes(&self) -> bool {
        !self.dry_run()
            && matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// Whether it lists objects of this resource.
    pub(crate) fn lists(&self, resource: &str) -> bool {
        self.verb == "list" && self.object().resource == resource
    }

    /// Whether it is about the Lease: one every two seconds, whatever else there is.
    pub(crate) fn of_lease(&self) -> bool {
        self.object().resource == "leases"
    }

    fn dry_run(&self) -> bool {
        self.uri.contains("dryRun=All")
    }

    /// What is counted together: `create secrets in bags-system`, `update bagsaccounts/status → 409`.
    pub(crate) fn kind(&self, operator_namespace: &str) -> String {
        let object = self.object();
        let mut kind = format!("{} {}", self.verb, object.resource);
        if !object.subresource.is_empty() {
            kind = format!("{kind}/{}", object.subresource);
        }
        if object.resource == "secrets" {
            kind += if object.namespace == operator_namespace { " (keystore)" } else { " (consumer)" };
        }
        if self.dry_run() {
            kind += ", dry run";
        }
        match &self.response_status {
            Some(Status { code }) if *code >= 400 => format!("{kind} → {code}"),
            _ => kind,
        }
    }

    /// Whether it reads a consumer Secret, and which.
    pub(crate) fn consumer_read(&self, operator_namespace: &str) -> Option<String> {
        let object = self.object();
        let reads =
            self.verb == "get" && object.resource == "secrets" && object.namespace != operator_namespace;
        reads.then(|| format!("{}/{}", object.namespace, object.name))
    }
}

impl Audit {
    pub(crate) fn new(path: PathBuf, user: String) -> Self {
        Self { path, user }
    }

    /// The end of the log as it is now.
    pub(crate) fn mark(&self) -> Mark {
        Mark(std::fs::metadata(&self.path).unwrap().len())
    }

    /// The user's requests since then, in the order of their answers. A watch counts once, when it begins.
    pub(crate) fn since(&self, mark: Mark) -> Vec<Request> {
        let mut file = File::open(&self.path).unwrap();
        file.seek(SeekFrom::Start(mark.0)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        // The API server may be in the middle of its last line.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        bytes[..whole]
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice::<Request>(line).unwrap())
            .filter(|request| request.user.username == self.user)
            .filter(|request| {
                request.stage == if request.verb == "watch" { "ResponseStarted" } else { "ResponseComplete" }
            })
            .collect()
    }

    /// Waits until the user has asked for nothing but its Lease for so long; returns the requests since `mark`, without
    /// those.
    pub(crate) async fn quiet(&self, mark: Mark, pause: Duration, limit: Duration) -> Vec<Request> {
        let end = Instant::now() + limit;
        let (mut known, mut changed) = (0, Instant::now());
        loop {
            let mut requests = self.since(mark);
            requests.retain(|request| !request.of_lease());
            if requests.len() != known {
                (known, changed) = (requests.len(), Instant::now());
            }
            if changed.elapsed() >= pause {
                return requests;
            }
            if Instant::now() >= end {
                println!("(the operator was not quiet after {} s)", limit.as_secs());
                return requests;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// How many there were of each kind, most first.
pub(crate) fn counts(kinds: impl IntoIterator<Item = String>) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::new();
    for kind in kinds {
        *counts.entry(kind).or_insert(0) += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}
