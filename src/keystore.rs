//! The keystore: one Secret per key in the operator's namespace, from before its birth to its proven death.
//!
//! It is the only source of values. A placeholder without a value is made before the licence; the value is saved by an
//! update of that Secret, with its resourceVersion, so once somebody has deleted the placeholder no value can arrive.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PostParams},
    runtime::reflector::{ObjectRef, Store},
};

use crate::{
    api::{
        account::{Installation, Owner},
        mark,
    },
    bags::KeyValue,
    env::{CallError, call, call_with_values, only},
};

const FIELD: &str = "value";

/// The keystore.
pub struct Keystore {
    api: Api<Secret>,
    namespace: String,
    seen: Store<Secret>,
}

/// One key's Secret.
#[derive(Clone)]
pub struct Entry {
    secret: Arc<Secret>,
}

/// What a new placeholder is for.
pub struct Placeholder<'a> {
    /// Account in which the key is made.
    pub account: &'a str,
    /// ApiKey that it is made for.
    pub owner: &'a Owner,
    /// What it is for.
    pub key_use: &'a str,
    /// The token that asks for it.
    pub trigger: Option<&'a str>,
    /// Revision of the key.
    pub revision: i64,
    /// The attempt.
    pub attempt: &'a str,
    /// Full name of the key at Bags.
    pub key_name: &'a str,
    /// Version of the credentials that it is made with.
    pub credentials: &'a str,
    /// This installation.
    pub installation: &'a Installation,
}

/// What became of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Gone,
    /// It changed in the meantime: observe again.
    Changed,
}

/// Why a value could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The placeholder was deleted, or is being deleted, which a finalizer may hold up: the attempt has been judged.
    #[error("the attempt was judged before its value arrived")]
    Judged,
    /// Somebody else put another Secret, or another value, into its place.
    #[error("the keystore Secret holds what somebody else put there")]
    Taken,
    /// The API server did not take it.
    #[error("failed to write the keystore Secret: {}", .0.kind())]
    Call(CallError),
}

/// A value on its way into its placeholder.
pub struct Unsaved<'a> {
    placeholder: Entry,
    value: &'a KeyValue,
    key_id: Option<&'a str>,
    tried: bool,
}

impl<'a> Unsaved<'a> {
    /// A value that was never written anywhere.
    #[must_use]
    pub fn new(placeholder: Entry, value: &'a KeyValue, key_id: Option<&'a str>) -> Self {
        Self { placeholder, value, key_id, tried: false }
    }
}

impl Entry {
    /// An entry as the watch would show it, for tests of what looks at entries.
    #[cfg(test)]
    pub(crate) fn of_tests(value: Option<&KeyValue>, key_id: Option<&str>) -> Self {
        let data = value.map(|value| {
            BTreeMap::from([(FIELD.to_owned(), ByteString(value.expose().as_bytes().to_vec()))])
        });
        let annotations = key_id.map(|id| BTreeMap::from([(mark::KEY_ID.to_owned(), id.to_owned())]));
        let metadata = ObjectMeta { annotations, ..ObjectMeta::default() };
        Self { secret: Arc::new(Secret { metadata, data, ..Secret::default() }) }
    }

    /// The attempt that it belongs to. A copy under another name belongs to none: an attempt's Secret is read, written and
    /// deleted by its name, and a copy must not stand in for it.
    #[must_use]
    pub fn attempt(&self) -> Option<&str> {
        let attempt = self.secret.labels().get(mark::ATTEMPT)?;
        (self.secret.name_any() == secret_name(attempt)).then_some(attempt.as_str())
    }

    /// The key's value, once it has arrived.
    #[must_use]
    pub fn value(&self) -> Option<KeyValue> {
        let bytes = self.secret.data.as_ref()?.get(FIELD)?;
        KeyValue::parse(&bytes.0).ok()
    }

    /// The key's id at Bags, where the service told it.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.secret.annotations().get(mark::KEY_ID).map(String::as_str)
    }

    /// Name of the account.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        self.secret.labels().get(mark::ACCOUNT).map(String::as_str)
    }

    /// The ApiKey that it was made for.
    #[must_use]
    pub fn made_for(&self) -> Option<Owner> {
        let (namespace, name) = Self::owner(&self.secret)?;
        let uid = self.secret.labels().get(mark::OWNER_UID)?;
        Some(Owner { namespace: namespace.to_owned(), name: name.to_owned(), uid: uid.clone() })
    }

    /// What its key is for.
    #[must_use]
    pub fn key_use(&self) -> Option<&str> {
        self.secret.annotations().get(mark::USE).map(String::as_str)
    }

    /// The token that asked for its key.
    #[must_use]
    pub fn trigger(&self) -> Option<&str> {
        self.secret.annotations().get(mark::TRIGGER).map(String::as_str)
    }

    /// Full name of its key at Bags.
    #[must_use]
    pub fn key_name(&self) -> Option<&str> {
        self.secret.annotations().get(mark::KEY_NAME).map(String::as_str)
    }

    /// Version of the credentials that its key was made with.
    #[must_use]
    pub fn credentials(&self) -> Option<&str> {
        self.secret.annotations().get(mark::CREDENTIALS).map(String::as_str)
    }

    /// Revision of its key.
    #[must_use]
    pub fn revision(&self) -> Option<i64> {
        self.secret.labels().get(mark::REVISION)?.parse().ok()
    }

    /// The installation that made it.
    #[must_use]
    pub fn installation(&self) -> Option<Installation> {
        let (cluster, namespace) = self.secret.annotations().get(mark::INSTALLATION)?.split_once('/')?;
        Some(Installation { cluster: cluster.to_owned(), namespace: namespace.to_owned() })
    }

    /// Whether its key was left to people, or was about to be: where there is a ledger, the ledger says which.
    #[must_use]
    pub fn released(&self) -> bool {
        self.secret.annotations().contains_key(mark::RELEASED)
    }

    /// When the placeholder was made, by the API server's clock.
    #[must_use]
    pub fn created(&self) -> Option<Timestamp> {
        self.secret.creation_timestamp().map(|time| time.0)
    }

    /// Namespace and name of the ApiKey.
    #[must_use]
    pub fn owner(secret: &Secret) -> Option<(&str, &str)> {
        let annotations = secret.annotations();
        Some((annotations.get(mark::OWNER_NAMESPACE)?, annotations.get(mark::OWNER_NAME)?))
    }
}

impl Keystore {
    /// `seen` is the cache of the watch on Secrets of the operator's namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str, seen: Store<Secret>) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned(), seen }
    }

    /// An attempt's entry as the watch saw it: may be behind.
    #[must_use]
    pub fn cached(&self, attempt: &str) -> Option<Entry> {
        let reference = ObjectRef::new(&secret_name(attempt)).within(&self.namespace);
        self.seen.get(&reference).map(|secret| Entry { secret })
    }

    /// Every entry as the watch saw it.
    #[must_use]
    pub fn all_cached(&self) -> Vec<Entry> {
        let all = self.seen.state().into_iter().map(|secret| Entry { secret });
        all.filter(|entry| entry.attempt().is_some()).collect()
    }

    /// Any Secret of the operator's namespace as the watch saw it, for credentials.
    #[must_use]
    pub fn credentials(&self, name: &str) -> Option<Arc<Secret>> {
        self.seen.get(&ObjectRef::new(name).within(&self.namespace))
    }

    /// An attempt's entry, read live.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn live(&self, attempt: &str) -> Result<Option<Entry>, CallError> {
        let secret = call_with_values(self.api.get_opt(&secret_name(attempt))).await?;
        Ok(secret.map(|secret| Entry { secret: Arc::new(secret) }))
    }

    /// Every entry of an account, read live.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn live_of(&self, account: &str) -> Result<Vec<Entry>, CallError> {
        let selector = ListParams::default().labels(&format!("{}={account}", mark::ACCOUNT));
        let secrets = call_with_values(self.api.list(&selector)).await?;
        let all = secrets.items.into_iter().map(|secret| Entry { secret: Arc::new(secret) });
        Ok(all.filter(|entry| entry.attempt().is_some()).collect())
    }

    /// Makes the empty Secret that a value will be saved in.
    ///
    /// # Errors
    /// When the API server does not take it.
    pub async fn place(&self, placeholder: &Placeholder<'_>) -> Result<Entry, CallError> {
        let secret = empty_secret(placeholder);
        let made = call(self.api.create(&PostParams::default(), &secret)).await?;
        Ok(Entry { secret: Arc::new(made) })
    }

    /// Saves a value in its placeholder. After an error that is not [`SaveError::Judged`] it may be called again: it then
    /// reads the Secret before it writes, as the last write may have been applied without an answer, or may have lost a
    /// conflict that it would lose again.
    ///
    /// # Errors
    /// See [`SaveError`].
    pub async fn save(&self, unsaved: &mut Unsaved<'_>) -> Result<(), SaveError> {
        if !unsaved.tried {
            unsaved.tried = true;
            if call_with_values(self.replace(unsaved)).await.is_ok() {
                return Ok(());
            }
        }
        if self.arrived(unsaved).await? {
            return Ok(());
        }
        call_with_values(self.replace(unsaved)).await.map(drop).map_err(SaveError::Call)
    }

    /// Whether an earlier write arrived; where it did not, the next write starts from the version that is there now.
    async fn arrived(&self, unsaved: &mut Unsaved<'_>) -> Result<bool, SaveError> {
        let before = &unsaved.placeholder;
        let secret =
            call_with_values(self.api.get_opt(&before.secret.name_any())).await.map_err(SaveError::Call)?;
        let now = Entry { secret: Arc::new(secret.ok_or(SaveError::Judged)?) };
        if now.value().as_ref() == Some(unsaved.value) {
            return Ok(true);
        }
        if now.secret.metadata.uid != before.secret.metadata.uid || now.value().is_some() {
            return Err(SaveError::Taken);
        }
        // A value that is written into a Secret that is being deleted is deleted with it.
        if now.secret.metadata.deletion_timestamp.is_some() {
            return Err(SaveError::Judged);
        }
        unsaved.placeholder = now;
        Ok(false)
    }

    /// Deletes an entry, if it still is in the version that `entry` shows: a placeholder that has received its
    /// value in the meantime is not deleted.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn remove(&self, entry: &Entry) -> Result<Removal, CallError> {
        let this_version = only(&entry.secret.metadata);
        match call_with_values(self.api.delete(&entry.secret.name_any(), &this_version)).await {
            Ok(_) => Ok(Removal::Gone),
            Err(error) if error.is_not_found() => Ok(Removal::Gone),
            Err(error) if error.is_conflict() => Ok(Removal::Changed),
            Err(error) => Err(error),
        }
    }

    /// Marks an attempt's entry as one whose key is left to people. Where there is no entry, none can be mistaken later.
    /// It may be called again.
    ///
    /// # Errors
    /// When the API server does not take it, also because somebody else wrote the entry meanwhile.
    pub async fn mark_released(&self, attempt: &str) -> Result<(), CallError> {
        let Some(entry) = self.live(attempt).await? else { return Ok(()) };
        if entry.released() {
            return Ok(());
        }
        let mut next = (*entry.secret).clone();
        next.annotations_mut().insert(mark::RELEASED.to_owned(), "true".to_owned());
        match call_with_values(self.api.replace(&next.name_any(), &PostParams::default(), &next)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn replace(&self, unsaved: &Unsaved<'_>) -> kube::Result<Secret> {
        let mut next = (*unsaved.placeholder.secret).clone();
        next.data = Some(BTreeMap::from([(
            FIELD.to_owned(),
            ByteString(unsaved.value.expose().as_bytes().to_vec()),
        )]));
        if let Some(key_id) = unsaved.key_id {
            next.annotations_mut().insert(mark::KEY_ID.to_owned(), key_id.to_owned());
        }
        self.api.replace(&next.name_any(), &PostParams::default(), &next).await
    }
}

fn secret_name(attempt: &str) -> String {
    format!("bags-key-{attempt}")
}

fn empty_secret(placeholder: &Placeholder<'_>) -> Secret {
    let Placeholder {
        account, owner, key_use, revision, attempt, key_name, credentials, installation, ..
    } = placeholder;
    let trigger = placeholder.trigger.map(|trigger| (mark::TRIGGER, trigger.to_owned()));
    let text = |(key, value): (&str, String)| (key.to_owned(), value);
    Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(attempt)),
            labels: Some(BTreeMap::from(
                [
                    (mark::MANAGED_BY.0, mark::MANAGED_BY.1.to_owned()),
                    (mark::ACCOUNT, (*account).to_owned()),
                    (mark::OWNER_UID, owner.uid.clone()),
                    (mark::REVISION, revision.to_string()),
                    (mark::ATTEMPT, (*attempt).to_owned()),
                ]
                .map(text),
            )),
            annotations: Some(
                [
                    (mark::OWNER_NAMESPACE, owner.namespace.clone()),
                    (mark::OWNER_NAME, owner.name.clone()),
                    (mark::USE, (*key_use).to_owned()),
                    (mark::KEY_NAME, (*key_name).to_owned()),
                    (mark::CREDENTIALS, (*credentials).to_owned()),
                    (mark::INSTALLATION, format!("{}/{}", installation.cluster, installation.namespace)),
                ]
                .into_iter()
                .chain(trigger)
                .map(text)
                .collect(),
            ),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests;
