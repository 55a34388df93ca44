//! The consumer Secret: a projection of the keystore that applications read.
//!
//! Written by GET and PUT with resourceVersion, in place, only our fields; never owned by an ownerReference, which
//! foreground deletion and prune would follow; never written over a higher switch number.

use std::collections::BTreeMap;

use jiff::Timestamp;
#[cfg(test)]
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, Time};
use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta},
};
use kube::{Api, Client, ResourceExt, api::PostParams};

use crate::{
    api::{ApiKey, account::Slot, apikey::SecretTemplate, mark},
    bags::KeyValue,
    env::{CallError, call, call_with_values, only},
};

/// The field manager of writes that change the value: the time of its entry in `managedFields` is the time of the switch.
const FIELD_MANAGER: &str = "bags-operator";
/// The field manager of writes that leave the value as it is, so that the switch keeps its time.
const METADATA_MANAGER: &str = "bags-operator-metadata";
/// What a dry run writes in place of a value, repeated until it is as long as the value.
const STAND_IN: &[u8] = b"dry-run-";

/// What stands under the Secret's name.
#[derive(Clone)]
pub enum Found {
    /// Nothing.
    Missing,
    /// This ApiKey's Secret.
    Ours(Box<Secret>),
    /// Somebody else's Secret, and why it is not ours to write.
    Foreign(Foreign),
}

/// Why a Secret is not ours to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// It does not carry this ApiKey's mark.
    Unmarked,
    /// It is immutable.
    Immutable,
    /// Its type is not `Opaque`.
    Type,
    /// It was written by a later switch than the ledger knows of.
    LaterSwitch,
    /// The operator may not read it: nobody knows what stands there.
    Forbidden,
}

#[cfg(test)]
impl Foreign {
    /// All of them.
    pub(crate) const ALL: [Self; 5] =
        [Self::Unmarked, Self::Immutable, Self::Type, Self::LaterSwitch, Self::Forbidden];
}

/// What the Secret should hold.
pub struct Desired<'a> {
    /// The ApiKey.
    pub key: &'a ApiKey,
    /// Its current slot.
    pub slot: &'a Slot,
    /// The slot's value.
    pub value: &'a KeyValue,
    /// The base URL that applications use.
    pub base_url: &'a str,
}

#[cfg(test)]
impl Found {
    /// The Secret as it should be, for tests of what looks at it.
    pub(crate) fn synced(desired: &Desired<'_>) -> Self {
        let mut secret = project(&blank(desired.key), desired);
        let field = format!("f:{}", desired.key.api_key_field());
        secret.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
            manager: Some(FIELD_MANAGER.to_owned()),
            operation: Some("Update".to_owned()),
            time: Some(Time(desired.slot.since)),
            fields_v1: Some(FieldsV1(serde_json::json!({"f:data": {field: {}}}))),
            ..ManagedFieldsEntry::default()
        }]);
        Self::Ours(Box::new(secret))
    }
}

/// The Secrets of one ApiKey's namespace.
pub struct ConsumerSecret {
    api: Api<Secret>,
    name: String,
    uid: String,
}

impl ConsumerSecret {
    /// The Secret of an ApiKey.
    #[must_use]
    pub fn of(client: Client, key: &ApiKey) -> Self {
        Self {
            api: Api::namespaced(client, &key.namespace().unwrap_or_default()),
            name: key.secret_name(),
            uid: key.uid().unwrap_or_default(),
        }
    }

    /// What stands under the Secret's name; `known` is the ledger's number of the last switch. A 403 is no failure: the rest of
    /// the ApiKey's work goes on, above all its deletion, because in a namespace that is being deleted the RoleBinding may go
    /// before the ApiKey.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn find(&self, known: i64) -> Result<Found, CallError> {
        match self.read(known).await {
            Err(error) if error.is_forbidden() => Ok(Found::Foreign(Foreign::Forbidden)),
            found => found,
        }
    }

    /// The same for callers that need to know what the Secret holds: here a 403 is an error.
    ///
    /// # Errors
    /// When the API server does not answer, or the Secret may not be read.
    pub async fn read(&self, known: i64) -> Result<Found, CallError> {
        let secret = call_with_values(self.api.get_opt(&self.name)).await?;
        Ok(secret.map_or(Found::Missing, |secret| judge(secret, &self.uid, known)))
    }

    /// Asks the API server whether the Secret could be written: permissions, quota, policies. One that is there is changed as a switch
    /// will change it, as a policy may refuse changes alone; a quota that is used up stops creations only.
    ///
    /// # Errors
    /// What it says against it. `409`: it exists, or is another one by now.
    pub async fn dry_run(&self, key: &ApiKey, found: Option<&Found>) -> Result<(), CallError> {
        if let Some(Found::Ours(secret)) = found {
            let options = PostParams { dry_run: true, ..by(FIELD_MANAGER) };
            let changed = rehearse(secret, key.api_key_field());
            match call_with_values(self.api.replace(&self.name, &options, &changed)).await {
                // It has gone: it has to be made.
                Err(error) if error.is_not_found() => {}
                outcome => return outcome.map(drop),
            }
        }
        let mut secret = blank(key);
        let field = key.api_key_field().to_owned();
        secret.data = Some(BTreeMap::from([(field, ByteString(Vec::new()))]));
        let options = PostParams { dry_run: true, ..PostParams::default() };
        // No value is sent, and none is there: what stands against it may be said in full.
        call(self.api.create(&options, &secret)).await.map(drop)
    }

    /// Brings the Secret to what it should be, from the version in `found`. Returns what it wrote; `None`: nothing.
    ///
    /// # Errors
    /// What the API server says; `409` means observe again.
    pub async fn write(&self, found: &Found, desired: &Desired<'_>) -> Result<Option<Secret>, CallError> {
        match found {
            Found::Missing => {
                let secret = project(&blank(desired.key), desired);
                call_with_values(self.api.create(&by(FIELD_MANAGER), &secret)).await.map(Some)
            }
            Found::Ours(secret) => {
                let next = project(secret, desired);
                if next == **secret {
                    return Ok(None);
                }
                let manager = manager_of(secret, &next, desired.key.api_key_field());
                call_with_values(self.api.replace(&self.name, &by(manager), &next)).await.map(Some)
            }
            Found::Foreign(_) => Ok(None),
        }
    }

    /// Removes the Secret, if it is this ApiKey's.
    ///
    /// # Errors
    /// What the API server says; `409` means observe again.
    pub async fn remove(&self) -> Result<(), CallError> {
        let Some(secret) = call_with_values(self.api.get_opt(&self.name)).await? else { return Ok(()) };
        if !marked(&secret, &self.uid) {
            return Ok(());
        }
        match call_with_values(self.api.delete(&self.name, &only(&secret.metadata))).await {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}

/// Without a field manager of its own, a write would share its entry in `managedFields`, and so the time of the switch, with
/// other writes.
fn by(manager: &str) -> PostParams {
    PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() }
}

/// The field manager that makes this change.
fn manager_of(before: &Secret, after: &Secret, field: &str) -> &'static str {
    let held = |secret: &Secret| {
        let value = secret.data.as_ref().and_then(|data| data.get(field)).cloned();
        (value, secret.annotations().get(mark::SWITCH).cloned())
    };
    if held(before) == held(after) { METADATA_MANAGER } else { FIELD_MANAGER }
}

/// Whether the Secret in `found` already is what it should be.
#[must_use]
pub fn in_sync(found: &Found, desired: &Desired<'_>) -> bool {
    match found {
        Found::Ours(secret) => project(secret, desired) == **secret,
        Found::Missing | Found::Foreign(_) => false,
    }
}

/// When the field manager that owns the value now last wrote it, by the API server's clock. The Secret's own annotation with
/// the time of its switch will not do: that is the time of the ledger's write, and the Secret may have been written much later.
#[must_use]
pub fn written_at(found: &Found, field: &str) -> Option<Timestamp> {
    let Found::Ours(secret) = found else { return None };
    let entries = secret.metadata.managed_fields.as_deref().unwrap_or_default();
    let owns = |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        fields.is_some_and(|fields| !fields["f:data"][format!("f:{field}")].is_null())
    };
    entries.iter().filter(owns).filter_map(|entry| entry.time.as_ref().map(|time| time.0)).max()
}

/// The switch that wrote a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its number.
    pub number: i64,
    /// The attempt whose value it wrote.
    pub attempt: String,
    /// When that key became its ApiKey's current one; `None`: somebody took the annotation away.
    pub at: Option<jiff::Timestamp>,
}

/// What a Secret says of the switch that wrote it.
#[must_use]
pub fn switch_of(found: &Found) -> Option<Written> {
    let Found::Ours(secret) = found else { return None };
    let annotations = secret.annotations();
    Some(Written {
        number: annotations.get(mark::SWITCH)?.parse().ok()?,
        attempt: annotations.get(mark::SWITCH_ATTEMPT)?.clone(),
        at: annotations.get(mark::SWITCH_TIME).and_then(|time| time.parse().ok()),
    })
}

fn judge(secret: Secret, uid: &str, known: i64) -> Found {
    let written = switch_number(&secret);
    if !marked(&secret, uid) {
        Found::Foreign(Foreign::Unmarked)
    } else if secret.immutable == Some(true) {
        Found::Foreign(Foreign::Immutable)
    } else if secret.type_.as_deref().is_some_and(|type_| type_ != "Opaque") {
        Found::Foreign(Foreign::Type)
    } else if written.is_some_and(|written| written > known) {
        Found::Foreign(Foreign::LaterSwitch)
    } else {
        Found::Ours(Box::new(secret))
    }
}

fn marked(secret: &Secret, uid: &str) -> bool {
    secret.labels().get(mark::OWNER_UID).is_some_and(|owner| owner == uid)
}

/// A new Secret of an ApiKey, without data.
fn blank(key: &ApiKey) -> Secret {
    let template = key.spec.secret.clone().unwrap_or_default();
    let SecretTemplate { name: _, api_key_field: _, base_url_field: _, mut labels, mut annotations } =
        template;
    labels.insert(mark::MANAGED_BY.0.to_owned(), mark::MANAGED_BY.1.to_owned());
    labels.insert(mark::OWNER_UID.to_owned(), key.uid().unwrap_or_default());
    annotations.insert(mark::OWNER_NAME.to_owned(), key.name_any());
    Secret {
        metadata: ObjectMeta {
            name: Some(key.secret_name()),
            namespace: key.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

/// The Secret with our fields as they should be, everything else as it is.
fn project(secret: &Secret, desired: &Desired<'_>) -> Secret {
    let Desired { key, slot, value, base_url } = desired;
    let mut next = secret.clone();
    let fresh = blank(key);
    next.labels_mut().extend(fresh.metadata.labels.unwrap_or_default());
    next.annotations_mut().extend(fresh.metadata.annotations.unwrap_or_default());
    next.annotations_mut().extend([
        (mark::SWITCH.to_owned(), slot.published.unwrap_or_default().to_string()),
        (mark::SWITCH_ATTEMPT.to_owned(), slot.attempt.clone().unwrap_or_default()),
        (mark::SWITCH_TIME.to_owned(), slot.since.to_string()),
    ]);
    let data = next.data.get_or_insert_default();
    data.insert(key.api_key_field().to_owned(), ByteString(value.expose().as_bytes().to_vec()));
    if let Some(field) = key.base_url_field() {
        data.insert(field.to_owned(), ByteString(base_url.as_bytes().to_vec()));
    }
    next
}

/// The Secret with everything changed that a switch changes, for a dry run. In place of the value stands a text that is no key,
/// and is as long as the value that was there.
fn rehearse(secret: &Secret, field: &str) -> Secret {
    let mut next = secret.clone();
    let number = switch_number(secret).unwrap_or_default().saturating_add(1);
    next.annotations_mut().extend([
        (mark::SWITCH.to_owned(), number.to_string()),
        (mark::SWITCH_ATTEMPT.to_owned(), "dry-run".to_owned()),
        (mark::SWITCH_TIME.to_owned(), Timestamp::UNIX_EPOCH.to_string()),
    ]);
    let data = next.data.get_or_insert_default();
    let length = data.get(field).map_or(0, |value| value.0.len()).max(STAND_IN.len());
    let stand_in = STAND_IN.iter().copied().cycle().take(length).collect();
    data.insert(field.to_owned(), ByteString(stand_in));
    next
}

fn switch_number(secret: &Secret) -> Option<i64> {
    secret.annotations().get(mark::SWITCH)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::account::SlotState,
        fixtures::{api_key, server},
        ledger::slots::tests::{owner, slot},
    };

    fn key() -> ApiKey {
        api_key(&serde_json::json!({"spec": {"secret": {"labels": {"team": "web"}}}}))
    }

    fn project_onto(secret: &Secret) -> Secret {
        switch(secret, &slot(&owner(0), SlotState::Live), b"value-one-for-tests")
    }

    fn switch(secret: &Secret, slot: &Slot, value: &[u8]) -> Secret {
        let value = KeyValue::parse(value).unwrap();
        project(secret, &Desired { key: &key(), slot, value: &value, base_url: "https://bags.test/api/v1" })
    }

    #[tokio::test]
    async fn a_dry_run_changes_all_that_a_switch_changes_and_sends_no_value() {
        let live = slot(&owner(0), SlotState::Live);
        let first = Slot { since: Timestamp::MAX, ..live.clone() };
        let mut before = switch(&blank(&key()), &first, b"value-one-for-tests");
        let theirs = ByteString(b"kept".to_vec());
        before.data.get_or_insert_default().insert("THEIRS".into(), theirs);
        let (kube, asked) = server(|request, _| (200, request.body.clone()));
        let found = Found::Ours(Box::new(before.clone()));
        ConsumerSecret::of(kube, &key()).dry_run(&key(), Some(&found)).await.unwrap();
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 1);
        let asks = |word| asked[0].uri.split(['?', '&']).any(|part| part == word);
        assert!(asks("dryRun=All") && asks("fieldManager=bags-operator"), "{}", asked[0].uri);
        let sent: Secret = serde_json::from_value(asked[0].body.clone()).unwrap();
        let second = Slot { published: Some(2), attempt: Some("second".to_owned()), ..live };
        let next = switch(&before, &second, b"value-two-for-tests");
        let changed = |after: &Secret| {
            let (data, metadata) = (after.data.clone().unwrap(), after.metadata.clone());
            let fields = data.into_iter().filter(|(field, now)| before.data.as_ref().unwrap()[field] != *now);
            let annotations = metadata.annotations.unwrap().into_iter();
            let annotations = annotations.filter(|(name, now)| before.annotations()[name] != *now);
            let names: Vec<_> =
                fields.map(|(field, _)| field).chain(annotations.map(|(name, _)| name)).collect();
            names
        };
        assert_eq!(changed(&sent), changed(&next));
        assert_eq!(changed(&sent).len(), 4, "the value, and what tells of the switch");
        let (data, labels) = (sent.data.as_ref().unwrap(), sent.labels());
        assert_eq!(data["BAGS_API_KEY"].0, b"dry-run-dry-run-dry", "as long as the value that is there");
        assert_eq!(labels, before.labels());
    }

    #[test]
    fn a_projection_is_stable_and_repairs_our_fields_only() {
        let first = project_onto(&blank(&key()));
        assert_eq!(project_onto(&first), first);
        let mut edited = first.clone();
        let data = edited.data.as_mut().unwrap();
        data.insert("BAGS_API_KEY".into(), ByteString(b"edited".to_vec()));
        data.insert("THEIRS".into(), ByteString(b"kept".to_vec()));
        edited.labels_mut().insert("theirs".into(), "kept".into());
        let repaired = project_onto(&edited);
        let data = repaired.data.as_ref().unwrap();
        assert_eq!(data["BAGS_API_KEY"].0, b"value-one-for-tests");
        assert_eq!(data["BAGS_BASE_URL"].0, b"https://bags.test/api/v1");
        assert_eq!(data["THEIRS"].0, b"kept");
        assert_eq!(repaired.labels()["theirs"], "kept");
        assert_eq!(repaired.labels()["team"], "web");
        assert!(repaired.metadata.owner_references.is_none());
    }

    #[test]
    fn a_write_that_leaves_the_value_leaves_the_time_of_the_switch() {
        let before = project_onto(&blank(&key()));
        let set = |it: &mut Secret, field: &str, value| {
            drop(it.data.get_or_insert_default().insert(field.into(), value))
        };
        let manager = |change: &dyn Fn(&mut Secret)| {
            let mut after = before.clone();
            change(&mut after);
            manager_of(&before, &after, "BAGS_API_KEY")
        };
        assert_eq!(
            manager(&|it| drop(it.labels_mut().insert("team".into(), "web".into()))),
            METADATA_MANAGER
        );
        assert_eq!(manager(&|it| drop(it.annotations_mut().remove("team"))), METADATA_MANAGER);
        let other = || ByteString(b"other".to_vec());
        assert_eq!(manager(&|it| set(it, "BAGS_BASE_URL", other())), METADATA_MANAGER);
        assert_eq!(manager(&|it| set(it, "BAGS_API_KEY", other())), FIELD_MANAGER);
        assert_eq!(manager(&|it| it.data = None), FIELD_MANAGER, "it was taken away");
        assert_eq!(
            manager(&|it| drop(it.annotations_mut().insert(mark::SWITCH.into(), "9".into()))),
            FIELD_MANAGER,
            "another switch, though it be to the same value"
        );
    }

    #[test]
    fn what_is_not_ours_to_write_is_told_apart() {
        let ours = project_onto(&blank(&key()));
        let verdict = |secret: &Secret, known| match judge(secret.clone(), "uid-0", known) {
            Found::Foreign(foreign) => Some(foreign),
            Found::Missing | Found::Ours(_) => None,
        };
        assert_eq!(verdict(&ours, 1), None);
        assert_eq!(verdict(&ours, 0), Some(Foreign::LaterSwitch));
        assert_eq!(verdict(&Secret { immutable: Some(true), ..ours.clone() }, 1), Some(Foreign::Immutable));
        assert_eq!(
            verdict(&Secret { type_: Some("kubernetes.io/tls".into()), ..ours.clone() }, 1),
            Some(Foreign::Type)
        );
        let mut stripped = ours;
        stripped.labels_mut().clear();
        assert_eq!(verdict(&stripped, 1), Some(Foreign::Unmarked));
    }
}
