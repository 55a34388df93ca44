//! Kubernetes events: what `kubectl describe` tells besides the conditions. Written on transitions only.
//!
//! kube's own recorder is not used: it merges events of one reason and keeps the first note, so that a second failure with
//! another message would be lost; and it reads the system clock itself. This one needs the right to create events, and no
//! other.
//!
//! A note must never hold a secret; it may name objects, fields and keys by name and id.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::time::Instant;
use tracing::warn;

use crate::clock::Clock;

/// Who reports, as the API server wants it: a qualified name.
const CONTROLLER: &str = "keys.bags.fm/bags-operator";
/// The API server's bound on a note, in bytes.
const NOTE_BYTES: usize = 1024;
/// An event with the same reason and note about the same object is not repeated within this.
const REPEAT_AFTER: Duration = Duration::from_mins(10);
/// How many recent events are remembered; beyond that, a repetition may be written.
const REMEMBERED: usize = 8192;
/// An event is not worth waiting longer for.
const DEADLINE: Duration = Duration::from_secs(5);
/// Namespace of events about cluster-scoped objects, as `kubectl describe` looks for them.
const CLUSTER_SCOPED: &str = "default";

/// How an event is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Normal,
    Warning,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident: $severity:ident, $action:literal;)+) => {
        /// Why an event is written: a closed set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EventReason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl EventReason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The word in the event.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            const fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)+
                }
            }

            /// What the operator was doing, as one word.
            const fn action(self) -> &'static str {
                match self {
                    $(Self::$name => $action,)+
                }
            }
        }
    };
}

reasons! {
    /// A key's value was put into the consumer Secret.
    KeyPublished: Normal, "Publish";
    /// A second key is made, to replace the current one.
    RotationStarted: Normal, "Rotate";
    /// The new key has replaced the old one everywhere: the old one is out of use, and is revoked next.
    RotationFinished: Normal, "Rotate";
    /// A rotation does not go on by itself.
    RotationHeld: Warning, "Rotate";
    /// A rotation is due and cannot begin.
    RotationBlocked: Warning, "Rotate";
    /// Rotations have found no second slot for a long time.
    RotationsStarved: Warning, "Rotate";
    /// The Secret went back to the old key, as a workload did not come up with the new one.
    SwitchedBack: Warning, "Rotate";
    /// A workload is restarted, so that it reads the key that the Secret holds now.
    Restarted: Normal, "Restart";
    /// A key was revoked and proven dead.
    KeyRevoked: Normal, "Revoke";
    /// The ApiKey is deleted and its key left in place, by `deletionPolicy: Orphan`.
    KeyReleased: Normal, "Release";
    /// The consumer Secret was missing, or its value was changed, and was written again.
    SecretRestored: Normal, "Publish";
    /// A key waits for a free slot of the account.
    QuotaExceeded: Warning, "Reserve";
    /// Another ApiKey has the same use of the account.
    DuplicateUse: Warning, "Reserve";
    /// The account does not exist.
    AccountNotFound: Warning, "Check";
    /// The account exists and cannot be used at present.
    AccountNotReady: Warning, "Check";
    /// The account does not allow the namespace or the environment.
    NotAllowed: Warning, "Check";
    /// The consumer Secret's name is taken.
    SecretConflict: Warning, "Check";
    /// The API server refused to write or remove the consumer Secret, or to write the one for the key's value: quota, policy, rights.
    SecretRefused: Warning, "Check";
    /// A Secret with credentials is missing, or its field is, or it cannot be read as what it should be.
    CredentialsUnusable: Warning, "Authenticate";
    /// Bags refused the credentials.
    CredentialsRefused: Warning, "Authenticate";
    /// The credentials are accepted again.
    CredentialsAccepted: Normal, "Authenticate";
    /// The credentials lead to another user of Bags than before.
    WrongUser: Warning, "Authenticate";
    /// The wallet had no account at Bags, and one was just made.
    AccountSignedUp: Warning, "Authenticate";
    /// Bags refused a request because of its content.
    BagsRefused: Warning, "Create";
    /// Bags' limit is reached although the ledger had room.
    LimitReached: Warning, "Create";
    /// Bags counts too many requests.
    RateLimited: Warning, "Request";
    /// Bags does not answer, or its answer makes no sense.
    BagsUnavailable: Warning, "Request";
    /// A new key was not accepted in time and is given up.
    KeyNotAccepted: Warning, "Verify";
    /// Bags returned no id for a key: only a person can revoke it.
    KeyIdUnknown: Warning, "Create";
    /// A key exists whose value is lost; it is revoked.
    KeyLost: Warning, "Judge";
    /// Whether a key exists is not known; a person has to look.
    KeyUnresolved: Warning, "Judge";
    /// A published key's ApiKey vanished; a person says when the key may go.
    KeyOrphaned: Warning, "Judge";
    /// A person has to revoke a key on Bags' page.
    RevocationNeedsPerson: Warning, "Revoke";
    /// A revoked key still works.
    RevocationHasNoEffect: Warning, "Revoke";
    /// A deletion waits.
    DeletionWaits: Warning, "Delete";
    /// The account finishes a deletion; the finalizer of the ApiKey is removed.
    DeletionHandedOver: Normal, "Delete";
    /// The list of the account's keys shows none of ours: it resolves nothing.
    ListDoesNotCover: Warning, "List";
    /// The list of the account's keys can be relied on again.
    ListCovers: Normal, "List";
    /// The account's status was lost; its slots were put back from the keystore.
    LedgerRebuilt: Warning, "Rebuild";
    /// More keys than the limit allows.
    OverQuota: Warning, "Count";
    /// The ledger belongs to another installation: nothing is made or revoked.
    ForeignInstallation: Warning, "Check";
    /// A failure that has no reason of its own here.
    ReconcileFailed: Warning, "Reconcile";
}

/// Writes events. Clones share what was recently said.
#[derive(Clone)]
pub struct Events {
    client: Client,
    clock: Arc<dyn Clock>,
    instance: String,
    memory: Arc<Mutex<Memory>>,
}

/// What was recently said: of which object, for what reason, with which note (hashed); and when.
#[derive(Default)]
struct Memory {
    said: HashMap<u64, Instant>,
    last_name: i128,
}

impl Events {
    /// `instance`: the name of this replica.
    #[must_use]
    pub fn new(client: Client, clock: Arc<dyn Clock>, instance: String) -> Self {
        Self { client, clock, instance: cut(&instance, 128).to_owned(), memory: Arc::default() }
    }

    /// Writes an event about an object, unless the same was said of it in the last 10 minutes. A failure is logged and not
    /// returned: no effect may depend on an event.
    pub async fn publish(&self, regarding: &ObjectReference, reason: EventReason, note: &str) {
        let Some(stamp) = self.admit(regarding, reason, note) else { return };
        let event = self.event(regarding, reason, note, stamp);
        let namespace = regarding.namespace.as_deref().unwrap_or(CLUSTER_SCOPED);
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let name = regarding.name.as_deref().unwrap_or_default();
        match tokio::time::timeout(DEADLINE, api.create(&PostParams::default(), &event)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                warn!(%error, reason = reason.as_str(), %namespace, %name, "Event was not written");
            }
            Err(_) => warn!(reason = reason.as_str(), %namespace, %name, "Event was not written in time"),
        }
    }

    /// Remembers the event as written; `None` if the same one was written lately. Returns a number that no other event of
    /// this process has.
    fn admit(&self, regarding: &ObjectReference, reason: EventReason, note: &str) -> Option<i128> {
        let mut hasher = DefaultHasher::new();
        (&regarding.uid, &regarding.namespace, &regarding.name, reason, note).hash(&mut hasher);
        let key = hasher.finish();
        let now = self.clock.monotonic();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.said.get(&key).is_some_and(|said| now.duration_since(*said) < REPEAT_AFTER) {
            return None;
        }
        if memory.said.len() >= REMEMBERED {
            memory.said.retain(|_, said| now.duration_since(*said) < REPEAT_AFTER);
            if memory.said.len() >= REMEMBERED {
                memory.said.clear();
            }
        }
        memory.said.insert(key, now);
        let stamp = self.clock.wall().as_nanosecond().max(memory.last_name + 1);
        memory.last_name = stamp;
        Some(stamp)
    }

    fn event(&self, regarding: &ObjectReference, reason: EventReason, note: &str, stamp: i128) -> Event {
        let about = cut(regarding.name.as_deref().unwrap_or("object"), 200).trim_end_matches(['.', '-']);
        let type_ = match reason.severity() {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        };
        let time: Timestamp = self.clock.wall();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{about}.{stamp:x}")),
                namespace: Some(regarding.namespace.clone().unwrap_or_else(|| CLUSTER_SCOPED.to_owned())),
                ..ObjectMeta::default()
            },
            regarding: Some(regarding.clone()),
            reason: Some(reason.as_str().to_owned()),
            action: Some(reason.action().to_owned()),
            type_: Some(type_.to_owned()),
            note: Some(cut(note, NOTE_BYTES).to_owned()),
            event_time: Some(MicroTime(time)),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}

/// The beginning of a text, at most so many bytes, whole characters.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests;
