//! Observations for tests: an ApiKey, its account, and what was seen of them, put together step by step.

use std::{fmt, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Time};
use serde_json::json;

use super::{
    observe::{AccountView, CreatingView, Observation, PodsSeen, Rival},
    permission::Permission,
};
use crate::{
    account::credentials::{CredentialProblem, CredentialSet},
    api::{
        ApiKey, BagsAccount, FINALIZER,
        account::{Failures, Slot, SlotState},
    },
    bags::{self, KeyValue, Probe, UserId},
    consumer_secret::{Desired, Found},
    fixtures::{api_key, bags_account},
    keystore::Entry,
    ledger::{
        Ledger, Room,
        slots::tests::{owner, slot},
    },
    timings::Timings,
    workload::{Consumer, Holder, Owner, Scan, Verdict, Why, Workload},
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_mins(1);
pub(crate) const HOUR: Duration = Duration::from_hours(1);
/// Version of the credentials.
pub(crate) const CREDENTIALS: &str = "bags-main@1";

/// An older ApiKey that wants the same Secret.
pub(crate) fn rival() -> Rival {
    Rival { name: "app-9".to_owned(), going: false }
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

pub(crate) fn ago(age: Duration) -> Timestamp {
    now().checked_sub(SignedDuration::try_from(age).unwrap()).unwrap()
}

pub(crate) fn in_future(left: Duration) -> Timestamp {
    now().checked_add(SignedDuration::try_from(left).unwrap()).unwrap()
}

pub(crate) fn value() -> KeyValue {
    KeyValue::parse(b"value-one-for-tests").unwrap()
}

pub(crate) fn alive(user: &str) -> Probe {
    Probe::Alive { user: UserId::parse(user).unwrap() }
}

pub(crate) fn credentials() -> CredentialSet {
    CredentialSet { wallet: None, token: None, version: CREDENTIALS.into(), token_version: None }
}

/// A list was not answered.
pub(crate) fn unanswered() -> bags::Error {
    bags::Error::new(bags::Operation::List, bags::Class::Unknown, bags::Reason::Timeout)
}

/// The credentials of this version led to another user of Bags than the account's.
pub(crate) fn distrusting(observation: Observation, version: &str) -> Observation {
    observation.account(|account| {
        account.status.get_or_insert_default().distrusted_credentials = Some(version.into());
    })
}

pub(crate) fn no_credentials() -> CredentialProblem {
    CredentialProblem::SecretMissing {
        secret: "bags-main".into(),
        namespace: "bags-system".into(),
        field: "token".into(),
    }
}

pub(crate) fn account() -> BagsAccount {
    bags_account(&json!({
        "metadata": {"uid": "uid-account", "generation": 1, "finalizers": [FINALIZER]},
        "spec": {"credentials": {"agentToken": {"secretName": "bags-main"}}, "allowed": [{"namespaces": ["shop"]}]},
        "status": {},
    }))
}

pub(crate) fn key() -> ApiKey {
    api_key(&json!({
        "metadata": {"name": "app-0", "generation": 3, "finalizers": [FINALIZER]},
        "spec": {"secret": {"name": "app-0-bags"}},
    }))
}

/// A pod that reads the Secret.
pub(crate) fn reader(name: &str, why: Option<Why>) -> Holder {
    Holder {
        pod: name.into(),
        uid: format!("uid-{name}"),
        controller: None,
        terminating: false,
        node: Some("node-1".into()),
        verdict: why.map_or(Verdict::Moved, Verdict::Stale),
    }
}

/// A Deployment that reads the Secret: `how` is a strategy, `paused`, `failed`, `failed an hour ago`, `failed when recreated` (with
/// `Recreate`, ten minutes less than two hours ago), `underway`, `not up` (with `Recreate`), or nothing; with a mark, or `""`;
/// rolled out, but with pods that only a restart will move, if `stale`.
pub(crate) fn consumer(name: &str, how: &str, mark: &str, stale: bool) -> Consumer {
    let recreated = ["Recreate", "left alone", "not up", "failed when recreated"];
    let strategy = if recreated.contains(&how) { "Recreate" } else { "RollingUpdate" };
    let own = if how == "left alone" { json!({"keys.bags.fm/restart": "false"}) } else { json!({}) };
    let annotations = match mark {
        "" => json!({}),
        mark => json!({"restart.keys.bags.fm/app-0": mark}),
    };
    let (updated, condition) = match how {
        "failed" | "failed an hour ago" | "failed when recreated" => {
            let message = "ReplicaSet \"api-7\" has timed out progressing.";
            let reason = "ProgressDeadlineExceeded";
            let since = match how {
                "failed an hour ago" => Some(ago(HOUR)),
                "failed when recreated" => Some(ago(MINUTE * 110)),
                _ => None,
            };
            let condition = json!({"type": "Progressing", "status": "False", "reason": reason, "message": message,
                                   "lastTransitionTime": since});
            (1, condition)
        }
        "underway" | "not up" => {
            (1, json!({"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}))
        }
        _ => (3, json!({"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"})),
    };
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "7", "generation": 3,
                     "annotations": own},
        "spec": {"replicas": 3, "selector": {}, "strategy": {"type": strategy}, "paused": how == "paused",
                 "template": {"metadata": {"annotations": annotations}}},
        "status": {"observedGeneration": 3, "replicas": 3, "updatedReplicas": updated, "readyReplicas": updated,
                   "availableReplicas": updated, "conditions": [condition]},
    }))
    .unwrap();
    let workload = Workload::from(deployment);
    let pods = vec![format!("{name}-1")];
    Consumer {
        owner: Owner::Workload(workload.reference.clone()),
        workload: Some(workload),
        stale: if stale { pods.clone() } else { vec![] },
        pods,
    }
}

/// A slot of the ApiKey, an hour in its state.
pub(crate) fn mine(state: SlotState) -> Slot {
    theirs(0, state)
}

/// A slot of another ApiKey.
pub(crate) fn theirs(n: usize, state: SlotState) -> Slot {
    aged(HOUR, Slot { key_use: format!("production/app-{n}"), ..slot(&owner(n), state) })
}

pub(crate) fn aged(age: Duration, slot: Slot) -> Slot {
    Slot { since: ago(age), ..slot }
}

/// The slot under another attempt's name.
pub(crate) fn named(attempt: &str, slot: Slot) -> Slot {
    Slot { attempt: Some(attempt.into()), key_name: Some(format!("Production-App-0-{attempt}")), ..slot }
}

pub(crate) fn failing(count: i64, age: Duration, reason: &str, slot: Slot) -> Slot {
    Slot { failures: Some(Failures { count, at: ago(age), reason: reason.into() }), ..slot }
}

/// The new key was published so long ago; these pods read the Secret.
pub(crate) fn switched(age: Duration, holders: &[Holder]) -> Observation {
    seen()
        .with_slot(named("old", Slot { published: Some(1), ..mine(SlotState::Live) }))
        .with_slot(named("new", Slot { published: Some(2), revision: 2, ..aged(age, mine(SlotState::Live)) }))
        .with_pods(holders, false)
}

/// An ApiKey that may use its account, and has nothing yet.
pub(crate) fn seen() -> Observation {
    Observation {
        key: Arc::new(key()),
        owner: owner(0),
        now: now(),
        timings: Timings::default(),
        account: Some(AccountView {
            account: Arc::new(account()),
            ledger: Ledger::default(),
            room: Room { limit: 10, rotation_reserve: 1, unmanaged: 0 },
            permission: Permission::Granted,
            max: None,
            ahead: 0,
            use_rival: None,
            paused_until: None,
            next_code: None,
            unlisted: None,
            credentials: Ok(credentials()),
            refused_credentials: Some(CREDENTIALS.into()),
            preparing: false,
            ours: Some(true),
            neighbours: false,
        }),
        creating: None,
        current_value: None,
        last_used: None,
        consumer: None,
        pods: None,
        current_probe: None,
        current_asked: Some(Duration::from_mins(1)),
        current_failure: None,
        previous_probe: None,
        uses: None,
        listed: false,
        base_url: "https://bags.test/api/v1".into(),
        secret_rival: None,
        next_refused: None,
        namespace_deleted: None,
    }
}

/// What a failed property shows; no value.
impl fmt::Debug for Observation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.account.as_ref();
        let creating = self.creating.as_ref();
        formatter
            .debug_struct("Observation")
            .field("key", &(&self.key.metadata, &self.key.spec))
            .field("now", &self.now)
            .field("slots", &view.map(|view| &view.ledger.slots))
            .field("room", &view.map(|view| (view.room, view.ahead, view.ours, &view.permission)))
            .field("paused", &view.map(|view| (view.paused_until, view.credentials.is_ok())))
            .field("account", &view.map(|view| (&view.account.spec, &view.account.status)))
            .field("creating", &creating.map(|c| (c.running, c.saved.is_some(), &c.probe, c.refused_for)))
            .field("value", &self.current_value.is_some())
            .field("rivals", &(&self.secret_rival, view.and_then(|view| view.use_rival.as_ref())))
            .field("namespace", &self.namespace_deleted)
            .finish_non_exhaustive()
    }
}

impl Observation {
    /// A slot in the ledger; of this ApiKey's, what follows from it: a current key is in the keystore and in the
    /// Secret, an attempt has neither answered nor been saved.
    pub(crate) fn with_slot(mut self, slot: Slot) -> Self {
        let view = self.account.as_mut().expect("slots are an account's");
        view.ledger.slots.push(slot.clone());
        if slot.owner.uid != self.owner.uid {
            return self;
        }
        match slot.state {
            SlotState::Creating => {
                self.creating = Some(CreatingView {
                    slot,
                    running: false,
                    saved: None,
                    probe: None,
                    refused_for: None,
                    probed_ago: None,
                });
                self
            }
            SlotState::Live => {
                self.current_value = Some(value());
                self.synced()
            }
            _ => self,
        }
    }

    /// The Secret as it should be.
    pub(crate) fn synced(self) -> Self {
        let slot = self.current().expect("a current key").clone();
        let value = self.current_value.clone().expect("its value");
        let desired = Desired { key: &self.key, slot: &slot, value: &value, base_url: &self.base_url };
        let found = Found::synced(&desired);
        self.with_consumer(found)
    }

    pub(crate) fn with_consumer(self, found: Found) -> Self {
        Self { consumer: Some(found), ..self }
    }

    /// The Secret with something else in the field of the value.
    pub(crate) fn edited(mut self) -> Self {
        let Some(Found::Ours(secret)) = &mut self.consumer else { panic!("no Secret to edit") };
        let data = secret.data.as_mut().unwrap();
        data.insert("BAGS_API_KEY".into(), k8s_openapi::ByteString(b"edited".to_vec()));
        self
    }

    pub(crate) fn without_account(self) -> Self {
        Self { account: None, ..self }
    }

    pub(crate) fn view(mut self, change: impl FnOnce(&mut AccountView)) -> Self {
        change(self.account.as_mut().expect("an account"));
        self
    }

    pub(crate) fn account(self, change: impl FnOnce(&mut BagsAccount)) -> Self {
        self.view(|view| change(Arc::make_mut(&mut view.account)))
    }

    pub(crate) fn key(mut self, change: impl FnOnce(&mut ApiKey)) -> Self {
        change(Arc::make_mut(&mut self.key));
        self
    }

    pub(crate) fn suspended(self) -> Self {
        self.key(|key| key.spec.suspend = Some(true))
    }

    /// Deleted so long ago; a pod reads the Secret.
    pub(crate) fn deleted(self, age: Duration) -> Self {
        self.key(|key| key.metadata.deletion_timestamp = Some(Time(ago(age))))
            .with_pods(&[reader("web-1", None)], false)
    }

    /// The pods were looked at, and these read the Secret.
    pub(crate) fn with_pods(self, holders: &[Holder], confirmed: bool) -> Self {
        let scan = Scan { holders: holders.to_vec() };
        let pods = PodsSeen { scan, confirmed: confirmed.then(now), ..self.pods.unwrap_or_default() };
        Self { pods: Some(pods), ..self }
    }

    /// The pods were not looked at.
    pub(crate) fn without_pods(self) -> Self {
        Self { pods: None, ..self }
    }

    pub(crate) fn annotated(self, name: &str, text: &str) -> Self {
        self.key(|key| {
            key.metadata.annotations.get_or_insert_default().insert(name.into(), text.into());
        })
    }

    pub(crate) fn creating(mut self, change: impl FnOnce(&mut CreatingView)) -> Self {
        change(self.creating.as_mut().expect("an attempt under way"));
        self
    }

    pub(crate) fn running(self) -> Self {
        self.creating(|view| view.running = true)
    }

    /// The value arrived, with its id.
    pub(crate) fn saved(self) -> Self {
        self.creating(|view| view.saved = Some(Entry::of_tests(Some(&value()), Some("key-id-1"))))
    }

    /// The key answered in this run.
    pub(crate) fn probed(self, probe: Probe) -> Self {
        self.creating(|view| view.probe = Some(probe))
    }

    /// The key has answered 401 for so long, the last time so long ago.
    pub(crate) fn refused(self, refused_for: Duration, probed_ago: Duration) -> Self {
        self.creating(|view| (view.refused_for, view.probed_ago) = (Some(refused_for), Some(probed_ago)))
    }
}
