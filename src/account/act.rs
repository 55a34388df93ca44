//! Carries out what was decided: one lookup or one effect at a time. Makes no choice of its own.
//!
//! What Bags answers goes into this process's memory, what the API server answers into [`Found`]; the next decision reads both. A
//! failed request to Bags counts as an answer, too. A failed request to the API server ends the run, unless nothing else depends
//! on it.

mod bags;

use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::reflector::ObjectRef,
};
use serde_json::json;
use tracing::{info, warn};

use super::{
    decide::{Effect, Look},
    memory::{AccountMemory, NamespaceSeen},
    observe::{Found, Observation, OwnerSeen, SlotSeen, owns},
    remnants,
};
use crate::{
    api::{
        ApiKey, BagsAccount, FINALIZER,
        account::{Installation, Owner, Slot},
    },
    backoff::FailureClass,
    context::Context,
    env::{CallError, call},
    events::EventReason,
    keystore::{Entry, Removal},
    ledger::{Change, Refusal, StoreError},
    metrics::KeyStep,
};

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActError {
    /// An ApiKey could not be read.
    #[error("failed to read ApiKey \"{namespace}/{name}\"")]
    ReadOwner {
        namespace: String,
        name: String,
        #[source]
        source: CallError,
    },
    /// A keystore Secret could not be read or deleted.
    #[error("failed to read or delete the keystore Secret of attempt \"{attempt}\"")]
    Keystore {
        attempt: String,
        #[source]
        source: CallError,
    },
    /// The keystore Secrets from which a lost ledger is rebuilt could not be read.
    #[error("failed to read what the keystore has of the account")]
    Remnants(#[source] CallError),
    /// A consumer Secret could not be read, which tells what was published when the ledger was lost.
    #[error("failed to read Secret \"{name}\" in namespace \"{namespace}\"")]
    ReadSecret {
        namespace: String,
        name: String,
        #[source]
        source: CallError,
    },
    /// The finalizer could not be changed.
    #[error("failed to change the finalizer")]
    Finalizer(#[source] CallError),
    /// The ledger could not be written.
    #[error("failed to write the ledger")]
    Ledger(#[source] StoreError),
}

impl ActError {
    /// Whether the account's status can be written after this failure: not if the ledger, which is part of it, cannot be written,
    /// nor if it is not known yet what the ledger must hold.
    pub(super) fn leaves_status(&self) -> bool {
        match self {
            Self::ReadOwner { .. } | Self::Keystore { .. } | Self::ReadSecret { .. } | Self::Finalizer(_) => {
                true
            }
            Self::Remnants(_) | Self::Ledger(_) => false,
        }
    }

    /// What it means for the next run.
    pub(super) fn class(&self) -> FailureClass {
        match self {
            Self::ReadOwner { source, .. }
            | Self::Keystore { source, .. }
            | Self::ReadSecret { source, .. }
            | Self::Remnants(source)
            | Self::Finalizer(source) => {
                if source.is_refusal() {
                    FailureClass::Terminal
                } else {
                    FailureClass::Transient
                }
            }
            Self::Ledger(StoreError::Violation(_)) => FailureClass::Terminal,
            Self::Ledger(
                StoreError::NoAccount(_)
                | StoreError::Refused(_)
                | StoreError::Contended
                | StoreError::Timeout
                | StoreError::Kube(_),
            ) => FailureClass::Transient,
        }
    }
}

/// One run's hands.
pub(super) struct Actor<'a> {
    pub(super) context: &'a Context,
    pub(super) seen: &'a Observation,
    pub(super) memory: &'a AccountMemory,
    pub(super) found: &'a mut Found,
}

impl Actor<'_> {
    pub(super) async fn look(&mut self, look: Look) -> Result<(), ActError> {
        match look {
            Look::Owner(owner) => self.read_owner(owner).await,
            Look::Namespace(name) => {
                self.read_namespace(name).await;
                Ok(())
            }
            Look::Entry(attempt) => self.read_entry(attempt).await,
            Look::Remnants => remnants::read(self.context, &self.seen.account, self.found).await,
            Look::List => {
                self.list().await;
                Ok(())
            }
            Look::Probe(attempt) => {
                self.probe(&attempt).await;
                Ok(())
            }
            Look::Ping => {
                self.ping().await;
                Ok(())
            }
        }
    }

    pub(super) async fn act(&mut self, effect: Effect) -> Result<(), ActError> {
        match effect {
            Effect::Pin { installation, user, slots } => self.pin(installation, user, slots).await,
            Effect::AddFinalizer => self.set_finalizer(true).await,
            Effect::RemoveFinalizer => self.set_finalizer(false).await,
            Effect::Change(change) => self.change(change).await,
            Effect::Close(attempt) => {
                self.close(attempt).await;
                Ok(())
            }
            Effect::Clear(attempt) => {
                self.clear(attempt).await;
                Ok(())
            }
            Effect::Revoke { attempt, key_id } => {
                self.revoke(&attempt, &key_id).await;
                Ok(())
            }
            Effect::Ineffective(attempt) => {
                self.ineffective(&attempt).await;
                Ok(())
            }
        }
    }

    async fn read_owner(&mut self, owner: Owner) -> Result<(), ActError> {
        let Owner { namespace, name, uid: _ } = owner.clone();
        let api: Api<ApiKey> = Api::namespaced(self.context.env.kube.clone(), &namespace);
        let read = call(api.get_opt(&name)).await;
        let key = read.map_err(|source| ActError::ReadOwner { namespace, name, source })?;
        let slots = self.seen.slots.iter().map(|seen| &seen.slot).filter(|slot| slot.owner == owner);
        let account = self.seen.account.name_any();
        let live = match key.filter(|key| owns(key, &owner, &account, slots)) {
            None => OwnerSeen::Gone,
            Some(key) if key.metadata.deletion_timestamp.is_some() => OwnerSeen::Deleting,
            Some(_) => OwnerSeen::Lives,
        };
        self.found.owners.insert(owner.uid, live);
        Ok(())
    }

    /// A namespace that cannot be read counts as existing: no key is revoked because an answer is missing.
    async fn read_namespace(&self, name: String) {
        let api: Api<Namespace> = Api::all(self.context.env.kube.clone());
        let there = match call(api.get_metadata_opt(&name)).await {
            Ok(namespace) => namespace.is_some(),
            Err(error) => {
                warn!(%error, namespace = name, "Namespace could not be read");
                true
            }
        };
        let asked = self.context.env.clock.monotonic();
        self.memory.note(|facts| {
            let before = facts.namespaces.get(&name).and_then(|known| known.gone_since);
            let gone_since = if there { None } else { before.or(Some(asked)) };
            facts.namespaces.insert(name, NamespaceSeen { asked, gone_since });
        });
    }

    async fn read_entry(&mut self, attempt: String) -> Result<(), ActError> {
        match self.context.keystore.live(&attempt).await {
            Ok(Some(entry)) => {
                self.found.entries.insert(attempt, entry);
            }
            // A placeholder is only made before its licence: one that is not there now cannot appear later.
            Ok(None) => self.memory.remember(&attempt, |key| key.closed = true),
            Err(source) => return Err(ActError::Keystore { attempt, source }),
        }
        Ok(())
    }

    /// If somebody else pinned the ledger meanwhile, nothing is written, and the account is observed again.
    async fn pin(
        &mut self,
        installation: Installation,
        user: Option<String>,
        slots: Vec<Slot>,
    ) -> Result<(), ActError> {
        let name = self.seen.account.name_any();
        let before = self.seen.account.status.as_ref().and_then(|status| status.installation.clone());
        let pinned = self.context.ledger.update(&name, |draft| {
            // What was put together again is of the version that was observed: in another one more may have been lost.
            let newer =
                draft.account.metadata.resource_version != self.seen.account.metadata.resource_version;
            if newer || draft.status.installation != before {
                return Err(Refusal::NotInState);
            }
            draft.status.installation = Some(installation.clone());
            let (told, found) = (draft.status.user.clone(), user.clone());
            // The user that another installation recorded need not be the one whose keys are put back here.
            let taken_over = before.is_some() && !slots.is_empty();
            draft.status.pin_user(if taken_over { found.or(told) } else { told.or(found) });
            if slots.is_empty() { Ok(()) } else { draft.rebuild(slots.clone()) }
        });
        let pinned = pinned.await;
        // If the ledger is lost again during this run, the remnants have to be read anew: there may be more to put back.
        self.found.remnants = None;
        pinned.map_err(ActError::Ledger)?;
        if !slots.is_empty() {
            warn!(slots = slots.len(), "The ledger was lost; it is put together again from the keystore");
            let note = format!(
                "the account's status was lost: {} keys are put back into it from the Secrets in namespace \"{}\"",
                slots.len(),
                self.seen.installation.namespace
            );
            let regarding = reference(&self.seen.account);
            self.context.events.publish(&regarding, EventReason::LedgerRebuilt, &note).await;
        }
        Ok(())
    }

    /// A conflict is no failure: the newer version of the account wakes it again. Nothing else depends on adding the finalizer:
    /// if that fails, the run goes on, and reports the failure at its end.
    async fn set_finalizer(&mut self, present: bool) -> Result<(), ActError> {
        let account = &self.seen.account;
        let mut finalizers = account.finalizers().to_vec();
        finalizers.retain(|name| name != FINALIZER);
        if present {
            finalizers.push(FINALIZER.to_owned());
        }
        let resource_version = account.resource_version();
        let patch = json!({"metadata": {"resourceVersion": resource_version, "finalizers": finalizers}});
        let api: Api<BagsAccount> = Api::all(self.context.env.kube.clone());
        let name = account.name_any();
        match call(api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))).await {
            Ok(_) => self.found.let_go = !present,
            Err(error) if error.is_not_found() => self.found.let_go = !present,
            Err(error) if error.is_conflict() => {}
            Err(error) if present => {
                warn!(%error, "Finalizer could not be put on");
                self.found.failure.get_or_insert(ActError::Finalizer(error));
            }
            Err(error) => return Err(ActError::Finalizer(error)),
        }
        self.found.finalizer_done = true;
        Ok(())
    }

    async fn change(&self, change: Change) -> Result<(), ActError> {
        let name = self.seen.account.name_any();
        let written = self.context.ledger.change(&name, std::slice::from_ref(&change)).await;
        written.map_err(ActError::Ledger)?;
        info!(?change, "Ledger changed");
        self.tell(&change).await;
        Ok(())
    }

    /// Reports what a change means in events and metrics, and forgets keys that left the ledger.
    async fn tell(&self, change: &Change) {
        match change {
            Change::Bury { attempt, .. } => {
                self.context.metrics.key(KeyStep::Revoked);
                self.memory.retain(|kept| kept != attempt);
                if let Some(seen) = self.slot(attempt) {
                    let note = format!("{} is revoked and proven dead", named(seen));
                    self.publish(seen, EventReason::KeyRevoked, &note).await;
                }
            }
            Change::Dismiss { attempt } | Change::NotMade { attempt, .. } => {
                self.memory.retain(|kept| kept != attempt);
            }
            Change::Doubt { .. } => self.context.metrics.key(KeyStep::Unresolved),
            Change::Lose { attempt, .. } => {
                self.context.metrics.key(KeyStep::Lost);
                if let Some(seen) = self.slot(attempt) {
                    let note = format!("{} was made, but its value is lost; it is revoked", named(seen));
                    self.publish(seen, EventReason::KeyLost, &note).await;
                }
            }
            Change::Reserve { .. }
            | Change::ReserveFurther { .. }
            | Change::ReserveNext { .. }
            | Change::GiveBack { .. }
            | Change::License { .. }
            | Change::Identify { .. }
            | Change::Publish { .. }
            | Change::SwitchBack { .. }
            | Change::Retire { .. }
            | Change::Abandon { .. }
            | Change::Condemn { .. }
            | Change::Release { .. } => {}
        }
    }

    async fn close(&mut self, attempt: String) {
        let Some(entry) = self.found.entries.remove(&attempt) else { return };
        match self.context.keystore.remove(&entry).await {
            Ok(Removal::Gone) => {
                self.memory.remember(&attempt, |key| key.closed = true);
                self.found.removed.insert(attempt);
            }
            // The value arrived: the next look shows it.
            Ok(Removal::Changed) => {}
            Err(source) => self.not_deleted(attempt, entry, source),
        }
    }

    /// At most the slot of this attempt depends on the deletion, so the run goes on, and reports the failure at its end.
    fn not_deleted(&mut self, attempt: String, entry: Entry, source: CallError) {
        warn!(error = %source, attempt, "Keystore Secret could not be deleted");
        self.found.entries.insert(attempt.clone(), entry);
        self.found.uncleared.insert(attempt.clone());
        self.found.failure.get_or_insert(ActError::Keystore { attempt, source });
    }

    async fn clear(&mut self, attempt: String) {
        let live = self.found.entries.remove(&attempt);
        if let Some(entry) = live.or_else(|| self.context.keystore.cached(&attempt)) {
            match self.context.keystore.remove(&entry).await {
                Err(source) => return self.not_deleted(attempt, entry, source),
                // The Secret is still there, and an account that is being deleted waits for it to go. When the watch shows the
                // Secret's new version, that wakes the account to look at it again.
                Ok(Removal::Changed) if self.seen.remnants.is_none() => {
                    self.found.uncleared.insert(attempt);
                    return;
                }
                Ok(Removal::Gone | Removal::Changed) => {}
            }
        }
        // Whatever became of the Secret, this run does not look at it again.
        self.found.removed.insert(attempt);
    }

    fn slot(&self, attempt: &str) -> Option<&SlotSeen> {
        self.seen.slots.iter().find(|seen| seen.attempt() == Some(attempt))
    }

    /// An event on the ApiKey where the cache has it, else on the account.
    async fn publish(&self, seen: &SlotSeen, reason: EventReason, note: &str) {
        let Owner { namespace, name, uid } = &seen.slot.owner;
        let key = self.context.keys.get(&ObjectRef::<ApiKey>::new(name).within(namespace));
        let key = key.filter(|key| key.metadata.uid.as_deref() == Some(uid.as_str()));
        let regarding = key.map_or_else(|| reference(&self.seen.account), |key| key.object_ref(&()));
        self.context.events.publish(&regarding, reason, note).await;
    }
}

/// Where people see and revoke keys.
pub(super) const PAGE: &str = "https://dev.bags.fm";

/// What events about an account refer to.
pub(super) fn reference(account: &BagsAccount) -> ObjectReference {
    account.object_ref(&())
}

/// A key by everything that a person can know it by.
pub(super) fn named(seen: &SlotSeen) -> String {
    let SlotSeen { slot, key_id, .. } = seen;
    let name = slot.key_name.as_deref().unwrap_or("(no name yet)");
    let id = key_id.as_deref().map_or_else(String::new, |id| format!(" (id {id})"));
    format!("key \"{name}\"{id} of ApiKey {}/{}", slot.owner.namespace, slot.owner.name)
}
