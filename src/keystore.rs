//! The keystore: one Secret per key in the operator's namespace, from before its birth to its proven death.
//!
//! It is the only source of values. A placeholder without a value is made before the licence; the value arrives
//! by a write on that very version, so whoever deletes the placeholder first decides that it can no longer arrive.

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
    /// The placeholder was deleted: the attempt has been judged.
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

    /// The attempt that it belongs to. A copy under another name belongs to none: it is not what is read, written and deleted
    /// for the attempt, and must not stand in for it.
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

    /// Whether its key was left to people, or was about to be: where there is a ledger, that one says which.
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

    /// Saves a value in its placeholder. After an error that is not [`SaveError::Judged`] it may be called again: what
    /// is there is then read before anything is written, as the last write may have been applied without an answer, or
    /// have lost a conflict that it would lose again.
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

    /// Whether an earlier write arrived; where it did not, the next one starts from what is there.
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

    /// Marks an attempt's entry as one whose key is left to people. Where there is none, nothing of it can be mistaken later.
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
mod tests {
    use std::{
        convert::Infallible,
        sync::{Mutex, PoisonError},
    };

    use http::{Method, Request, Response};
    use kube::{
        client::Body,
        runtime::{reflector, watcher},
    };
    use serde_json::{Value, json};

    use super::*;

    /// Requests: the method, of a write the version it is based on, of a read what it asks for.
    type Came = Arc<Mutex<Vec<(Method, Value)>>>;

    fn placeholder(version: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Secret",
               "metadata": {"name": "bags-key-a", "uid": "uid-a", "resourceVersion": version}})
    }

    /// Answers one request after the other, and tells which came.
    fn keystore(answers: Vec<(u16, Value)>) -> (Keystore, Came) {
        let came = Came::default();
        let (seen, answers) = (came.clone(), Arc::new(Mutex::new(answers.into_iter())));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (seen, answers) = (seen.clone(), answers.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
                let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
                let version = sent["metadata"]["resourceVersion"].clone();
                let query = head.uri.query().filter(|query| !query.is_empty()).map(Value::from);
                let told = query.filter(|_| head.method == Method::GET).unwrap_or(version);
                seen.lock().unwrap_or_else(PoisonError::into_inner).push((head.method, told));
                let (code, answer) = answers.lock().unwrap().next().expect("no more requests than answers");
                let body = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        (Keystore::new(Client::new(service, "bags-system"), "bags-system", reflector::store().0), came)
    }

    fn failure(code: u16) -> (u16, Value) {
        let reason = if code == 404 { "NotFound" } else { "" };
        (
            code,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "", "reason": reason}),
        )
    }

    #[tokio::test]
    async fn an_account_is_put_together_again_from_its_own_entries_alone() {
        let none = json!({"apiVersion": "v1", "kind": "SecretList", "metadata": {}, "items": []});
        let (keystore, came) = keystore(vec![(200, none)]);
        assert!(keystore.live_of("main").await.unwrap().is_empty());
        let of_main = "&labelSelector=keys.bags.fm%2Faccount%3Dmain";
        assert_eq!(*came.lock().unwrap(), [(Method::GET, json!(of_main))]);
    }

    #[tokio::test]
    async fn a_copy_under_another_name_is_no_entry() {
        let secret = |name: &str| {
            let labels = json!({mark::ACCOUNT: "main", mark::ATTEMPT: "a"});
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}})
        };
        let items = [secret("backup-of-a"), secret("bags-key-a"), secret("bags-key-b")];
        let all = json!({"apiVersion": "v1", "kind": "SecretList", "metadata": {}, "items": items});
        let (keystore, _) = keystore(vec![(200, all)]);
        let found = keystore.live_of("main").await.unwrap();
        let names: Vec<String> = found.iter().map(|entry| entry.secret.name_any()).collect();
        assert_eq!(names, ["bags-key-a"]);
        assert_eq!(found[0].attempt(), Some("a"));
        let (seen, mut writer) = reflector::store::<Secret>();
        for item in items {
            let secret = serde_json::from_value(item).unwrap();
            writer.apply_watcher_event(&watcher::Event::Apply(secret));
        }
        let watching = Keystore::new(keystore.api.into_client(), "bags-system", seen);
        assert_eq!(watching.all_cached().len(), 1);
    }

    #[tokio::test]
    async fn a_save_that_lost_a_conflict_reads_before_it_writes_again_also_where_the_read_failed_once() {
        let answers = vec![failure(409), failure(500), (200, placeholder("2")), (200, placeholder("3"))];
        let (keystore, came) = keystore(answers);
        let entry = Entry { secret: Arc::new(serde_json::from_value(placeholder("1")).unwrap()) };
        let value = KeyValue::parse(b"value-one-for-tests").unwrap();
        let mut unsaved = Unsaved::new(entry, &value, None);
        assert!(matches!(keystore.save(&mut unsaved).await, Err(SaveError::Call(_))));
        assert!(keystore.save(&mut unsaved).await.is_ok());
        let expected = [
            (Method::PUT, json!("1")),
            (Method::GET, Value::Null),
            (Method::GET, Value::Null),
            (Method::PUT, json!("2")),
        ];
        assert_eq!(*came.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn a_key_that_is_left_to_people_is_marked_once_and_only_where_it_has_a_secret() {
        let marked = |version| {
            let mut secret = placeholder(version);
            secret["metadata"]["annotations"] = json!({mark::RELEASED: "true"});
            secret
        };
        let read = || (Method::GET, Value::Null);
        let write = || (Method::PUT, json!("1"));
        let cases = [
            ("not yet", vec![(200, placeholder("1")), (200, marked("2"))], vec![read(), write()], true),
            ("marked before", vec![(200, marked("2"))], vec![read()], true),
            ("no Secret", vec![failure(404)], vec![read()], true),
            ("no Secret any more", vec![(200, placeholder("1")), failure(404)], vec![read(), write()], true),
            (
                "somebody was faster",
                vec![(200, placeholder("1")), failure(409)],
                vec![read(), write()],
                false,
            ),
        ];
        for (name, answers, expected, done) in cases {
            let (keystore, came) = keystore(answers);
            assert_eq!(keystore.mark_released("a").await.is_ok(), done, "{name}");
            assert_eq!(*came.lock().unwrap(), expected, "{name}");
        }
    }
}
