//! ApiKeys that are put before the webhook: what people want, the review that the API server sends, and what is answered.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{task::AbortHandle, time::Instant};

/// The API server waits so long for an answer (`timeoutSeconds` of the webhook's configuration).
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// So long other webhooks and a quota may take before the object is stored.
pub(crate) const OTHERS: Duration = Duration::from_secs(3);
/// Who was told to come again does so after this.
pub(crate) const SOON: Duration = Duration::from_secs(2);
/// So does whoever got no answer, or found no place: as a GitOps tool does.
pub(crate) const AGAIN: Duration = Duration::from_secs(30);
/// Who was refused applies it again after this.
pub(crate) const LATER: Duration = Duration::from_mins(5);

/// What a person wants.
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) name: String,
    pub(crate) object: Value,
    /// Only to see what would happen.
    pub(crate) dry_run: bool,
}

/// A wish on its way.
pub(crate) struct Creation {
    pub(crate) wish: Wish,
    pub(crate) state: State,
}

/// How far a creation is.
pub(crate) enum State {
    /// It is applied, again, at this moment.
    Due(Instant),
    /// A process was asked.
    Asked {
        /// As it will be stored.
        object: Value,
        incarnation: u32,
        /// The API server gives up then.
        until: Instant,
        /// The review, which ends when nobody waits for it any more.
        task: AbortHandle,
    },
    /// It was let in, and is stored then.
    LetIn {
        object: Value,
        at: Instant,
        /// Whether the person hears of it.
        told: bool,
        /// Whether it may have no place: it was told to wait.
        waits: bool,
    },
    /// It was refused, and is applied again later.
    Refused { at: Instant },
}

impl Creation {
    /// When something is to be done about it next.
    pub(crate) fn next(&self) -> Instant {
        match &self.state {
            State::Due(at) => *at,
            State::Asked { until, .. } => *until,
            State::LetIn { at, .. } => *at,
            State::Refused { at } => *at + LATER,
        }
    }

    /// Whether somebody waits for the answer about this uid.
    pub(crate) fn waits_for(&self, about: &str) -> bool {
        matches!(&self.state, State::Asked { object, .. } if uid(object) == about)
    }

    /// Whether somebody waits for an answer of this process.
    pub(crate) fn asks(&self, process: u32) -> bool {
        matches!(&self.state, State::Asked { incarnation, .. } if *incarnation == process)
    }
}

/// What a process says to a review.
pub(crate) struct Verdict {
    /// Of the ApiKey.
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) allowed: bool,
    /// Of a refusal.
    pub(crate) code: u64,
    pub(crate) warnings: Vec<String>,
}

impl Verdict {
    /// Whether who is let in was told that there is no place yet.
    pub(crate) fn waits(&self) -> bool {
        self.warnings.iter().any(|warning| warning.contains("waits") || warning.contains("no slot is kept"))
    }

    /// Reads an answer; one that is no review refuses, as the API server has it.
    pub(crate) fn read(name: &str, answer: &[u8]) -> Self {
        let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
        let response = &answer["response"];
        let warnings = response["warnings"].as_array().into_iter().flatten();
        Self {
            uid: response["uid"].as_str().unwrap_or_default().to_owned(),
            name: name.to_owned(),
            allowed: response["allowed"] == true,
            code: response["status"]["code"].as_u64().unwrap_or(500),
            warnings: warnings.filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }
}

pub(crate) fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// The AdmissionReview about an object. Its own uid, which comes back with the answer, is the object's.
pub(crate) fn review(object: &Value, dry_run: bool) -> Vec<u8> {
    let types = json!({"group": "keys.bags.fm", "version": "v1alpha1", "kind": "ApiKey"});
    let resource = json!({"group": "keys.bags.fm", "version": "v1alpha1", "resource": "apikeys"});
    let metadata = &object["metadata"];
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": uid(object), "kind": types, "resource": resource, "requestKind": types, "requestResource": resource,
            "name": metadata["name"], "namespace": metadata["namespace"], "operation": "CREATE",
            "userInfo": {"username": "somebody"}, "object": object, "oldObject": null, "dryRun": dry_run, "options": null,
        },
    });
    review.to_string().into_bytes()
}
