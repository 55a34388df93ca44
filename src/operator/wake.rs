//! Which objects a change of another object concerns.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    ResourceExt,
    runtime::{
        reflector::{ObjectRef, Store},
        watcher::Event,
    },
};

use crate::{
    api::{
        ApiKey, BagsAccount,
        account::{Slot, SlotState},
        mark,
    },
    context::Context,
    keystore::Entry,
    ledger::Ledger,
};

/// Wakes objects that a change of another one concerns.
#[derive(Clone)]
pub struct Wake {
    keys: Store<ApiKey>,
    accounts: Store<BagsAccount>,
    context: Arc<Context>,
    to_keys: UnboundedSender<ObjectRef<ApiKey>>,
    to_accounts: UnboundedSender<ObjectRef<BagsAccount>>,
    specs: Arc<Mutex<HashMap<String, Option<i64>>>>,
    listed_keys: Arc<Listed<ApiKey>>,
    listed_accounts: Arc<Listed<BagsAccount>>,
}

/// What a cache held before a new list began: of what went while nobody watched, only its absence tells.
struct Listed<K>(Mutex<Vec<Arc<K>>>);

impl<K> Default for Listed<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K> Listed<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    /// What a new list no longer shows, at its end; the cache has seen the event already.
    fn gone(&self, cache: &Store<K>, event: &Event<K>) -> Vec<Arc<K>> {
        let mut before = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => *before = cache.state(),
            Event::InitDone => {
                let there: HashSet<Option<String>> =
                    cache.state().iter().map(|object| object.uid()).collect();
                let mut gone = std::mem::take(&mut *before);
                gone.retain(|object| !there.contains(&object.uid()));
                return gone;
            }
            Event::InitApply(_) | Event::Apply(_) | Event::Delete(_) => {}
        }
        Vec::new()
    }
}

impl Wake {
    /// Wakes objects of these caches; the receivers tell which.
    #[must_use]
    pub fn new(
        keys: Store<ApiKey>,
        accounts: Store<BagsAccount>,
        context: Arc<Context>,
    ) -> (Self, UnboundedReceiver<ObjectRef<ApiKey>>, UnboundedReceiver<ObjectRef<BagsAccount>>) {
        let (to_keys, woken_keys) = unbounded();
        let (to_accounts, woken_accounts) = unbounded();
        (
            Self {
                keys,
                accounts,
                context,
                to_keys,
                to_accounts,
                specs: Arc::default(),
                listed_keys: Arc::default(),
                listed_accounts: Arc::default(),
            },
            woken_keys,
            woken_accounts,
        )
    }

    /// An ApiKey that goes, or rests, makes room: for its use, its Secret's name, its slot, those who wait behind it.
    pub fn by_key(&self, event: &Event<ApiKey>) {
        self.listed_keys.gone(&self.keys, event).iter().for_each(|gone| self.key_gone(gone));
        match event {
            Event::Delete(gone) => self.key_gone(gone),
            Event::Apply(leaving) if leaving.metadata.deletion_timestamp.is_some() => self.room_of(leaving),
            Event::Apply(resting) if resting.suspended() => self.behind(resting),
            Event::Apply(_) | Event::Init | Event::InitApply(_) | Event::InitDone => {}
        }
    }

    fn key_gone(&self, gone: &ApiKey) {
        self.context.forget_key(&gone.uid().unwrap_or_default());
        self.room_of(gone);
    }

    fn room_of(&self, gone: &ApiKey) {
        self.account(&gone.spec.account_ref.name);
        let waiting = self.keys.state_filter(|key| {
            let same_use = key.spec.account_ref == gone.spec.account_ref && key.key_use() == gone.key_use();
            let same_secret = key.namespace() == gone.namespace() && key.secret_name() == gone.secret_name();
            (same_use || same_secret) && key.metadata.uid != gone.metadata.uid
        });
        waiting.iter().for_each(|key| self.key(key));
        self.behind(gone);
    }

    /// Whoever has no slot leaves none whose end would wake those who wait behind it.
    fn behind(&self, leaving: &ApiKey) {
        let Some(account) = self.accounts.get(&ObjectRef::new(&leaving.spec.account_ref.name)) else {
            return;
        };
        let waits =
            |key: &ApiKey, ledger: &Ledger| ledger.owned_by(&key.uid().unwrap_or_default()).next().is_none();
        if waits(leaving, &Ledger::of(account.status.as_ref())) {
            self.keys_of(&account, |key, ledger| {
                key.metadata.uid != leaving.metadata.uid && waits(key, ledger)
            });
        }
    }

    /// An account's change concerns the ApiKeys that wait for something of it; those whose key is live and stays so
    /// are left in peace, or each write of the ledger would cost a request for each of them.
    pub fn by_account(&self, event: &Event<BagsAccount>) {
        self.listed_accounts.gone(&self.accounts, event).iter().for_each(|gone| self.account_gone(gone));
        match event {
            Event::Apply(account) | Event::InitApply(account) => {
                let status = account.status.clone().unwrap_or_default();
                self.context.metrics.account(
                    &account.name_any(),
                    &status.slots,
                    &status.capacity.unwrap_or_default(),
                );
                let edited = self.edited(account);
                self.keys_of(account, |key, ledger| edited || unsettled(key, ledger));
            }
            Event::Delete(account) => self.account_gone(account),
            Event::Init | Event::InitDone => {}
        }
    }

    fn account_gone(&self, gone: &BagsAccount) {
        let name = gone.name_any();
        if self.accounts.get(&ObjectRef::from_obj(gone)).is_some() {
            // Another one took its place while nobody watched, and shows itself already.
            self.context.memory.forget(&name);
        } else {
            self.specs.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            self.context.forget_account(&name);
        }
        self.keys_of(gone, |_, _| true);
    }

    /// A keystore Secret with a value concerns its ApiKey; one that goes, its account; any other one concerns the accounts
    /// whose credentials it holds.
    pub fn by_secret(&self, event: &Event<Secret>) {
        let (Event::Apply(secret) | Event::Delete(secret)) = event else { return };
        if let Some((namespace, name)) = Entry::owner(secret) {
            // One without a value was made or removed by a preparation, which goes on by itself: to wake it for that
            // would begin it anew, at once and without end where something keeps it from succeeding.
            if secret.data.is_some() {
                let _ = self.to_keys.unbounded_send(ObjectRef::new(name).within(namespace));
            }
            // A value that has nowhere to go any more is the account's to clear away.
            if let (Event::Delete(_), Some(account)) = (event, secret.labels().get(mark::ACCOUNT)) {
                self.account(account);
            }
            return;
        }
        let name = secret.name_any();
        for account in self.accounts.state() {
            let credentials = &account.spec.credentials;
            let wallet = credentials.wallet.as_ref().is_some_and(|wallet| wallet.secret_name == name);
            let token = credentials.agent_token.as_ref().is_some_and(|token| token.secret_name == name);
            if wallet || token {
                self.account(&account.name_any());
                self.keys_of(&account, unsettled);
            }
        }
    }

    /// Something that every account shows has changed.
    pub fn every_account(&self) {
        self.accounts.state().iter().for_each(|account| self.account(&account.name_any()));
    }

    /// Whether an account's spec changed since it was last seen.
    fn edited(&self, account: &BagsAccount) -> bool {
        let mut specs = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = account.metadata.generation;
        specs.insert(account.name_any(), generation).is_some_and(|before| before != generation)
    }

    fn keys_of(&self, account: &BagsAccount, concerned: impl Fn(&ApiKey, &Ledger) -> bool) {
        let ledger = Ledger::of(account.status.as_ref());
        let name = account.name_any();
        let keys = self.keys.state_filter(|key| key.spec.account_ref.name == name);
        keys.iter().filter(|key| concerned(key, &ledger)).for_each(|key| self.key(key));
    }

    fn key(&self, key: &ApiKey) {
        // The other end goes only when the controllers end.
        let _ = self.to_keys.unbounded_send(ObjectRef::from_obj(key));
    }

    fn account(&self, name: &str) {
        let _ = self.to_accounts.unbounded_send(ObjectRef::new(name));
    }
}

/// Whether an ApiKey waits for something of its account.
fn unsettled(key: &ApiKey, ledger: &Ledger) -> bool {
    let uid = key.uid().unwrap_or_default();
    let slots: Vec<&Slot> = ledger.owned_by(&uid).collect();
    key.metadata.deletion_timestamp.is_some()
        || slots.is_empty()
        || slots.iter().any(|slot| slot.state != SlotState::Live)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::slots::tests::{owner, slot};
    use kube::runtime::reflector;

    fn key(uid: &str) -> ApiKey {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "keys.bags.fm/v1alpha1", "kind": "ApiKey",
            "metadata": {"name": format!("app-{uid}"), "namespace": "shop", "uid": uid},
            "spec": {"accountRef": {"name": "main"}, "environment": "production"},
        }))
        .unwrap()
    }

    #[test]
    fn what_a_new_list_no_longer_shows_is_gone() {
        let (cache, mut writer) = reflector::store();
        let listed = Listed::default();
        let mut told = |event: Event<ApiKey>| {
            writer.apply_watcher_event(&event);
            let gone = listed.gone(&cache, &event);
            gone.iter().filter_map(|key| key.uid()).collect::<Vec<_>>()
        };
        for event in [Event::Init, Event::InitApply(key("a")), Event::InitApply(key("b")), Event::InitDone] {
            assert!(told(event).is_empty(), "the first list");
        }
        assert!(told(Event::Apply(key("c"))).is_empty());
        assert!(told(Event::Init).is_empty());
        // One of the same name, and one that is new.
        let mut again = key("b");
        again.metadata.uid = Some("b2".into());
        for event in [Event::InitApply(key("a")), Event::InitApply(again), Event::InitApply(key("d"))] {
            assert!(told(event).is_empty());
        }
        let mut gone = told(Event::InitDone);
        gone.sort();
        assert_eq!(gone, ["b", "c"]);
        assert!(told(Event::Init).is_empty());
        assert_eq!(told(Event::InitDone).len(), 3, "all of them");
    }

    #[test]
    fn a_published_key_is_left_in_peace_and_everything_else_is_woken() {
        let mut key = key("uid-0");
        let ledger = |states: &[SlotState]| Ledger {
            slots: states.iter().map(|state| slot(&owner(0), state.clone())).collect(),
            departed: vec![],
        };
        assert!(unsettled(&key, &ledger(&[])));
        assert!(unsettled(&key, &ledger(&[SlotState::Reserved])));
        assert!(unsettled(&key, &ledger(&[SlotState::Live, SlotState::Revoking])));
        assert!(!unsettled(&key, &ledger(&[SlotState::Live])));
        key.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
        ));
        assert!(unsettled(&key, &ledger(&[SlotState::Live])));
    }
}
