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
        account::{Installation, Slot, SlotState},
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
    secrets: Store<Secret>,
    context: Arc<Context>,
    to_keys: UnboundedSender<ObjectRef<ApiKey>>,
    to_accounts: UnboundedSender<ObjectRef<BagsAccount>>,
    concerns: Arc<Mutex<HashMap<String, Concern>>>,
    listed_keys: Arc<Listed<ApiKey>>,
    listed_accounts: Arc<Listed<BagsAccount>>,
    listed_secrets: Arc<Listed<Secret>>,
}

/// The part of an account whose change wakes all of its ApiKeys, also those whose key is live.
#[derive(Clone, PartialEq, Eq)]
struct Concern {
    /// Changes with the spec.
    generation: Option<i64>,
    /// Which installation the ledger belongs to: none after the status was lost, until the ledger is rebuilt.
    installation: Option<Installation>,
    /// Whether a newer version of the operator has written states that this one does not know.
    unreadable: bool,
}

/// The objects that a cache held before a new list began. An object that was deleted while the watch was down shows only by
/// its absence from the list. One that was made or changed meanwhile is reported page by page, before the cache shows any
/// of the list: a reconcile that is woken then finds nothing, or the old version. So both kinds are found at the list's
/// end.
///
/// Secrets are among these objects. They are held only while the list runs, and for that long the cache holds them as well.
struct Listed<K>(Mutex<Vec<Arc<K>>>);

/// How a new list differs from what the cache held before.
struct News<K> {
    /// Objects that are not in the list.
    gone: Vec<Arc<K>>,
    /// Objects that were not there before, or in another version.
    fresh: Vec<Arc<K>>,
}

impl<K> Default for Listed<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K> Listed<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    /// At the end of a new list, how it differs; nothing for any other event. The cache must have taken in the event
    /// already.
    fn news(&self, cache: &Store<K>, event: &Event<K>) -> News<K> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut gone, mut fresh) = (Vec::new(), Vec::new());
        match event {
            Event::Init => *held = cache.state(),
            Event::InitDone => {
                (gone, fresh) = (std::mem::take(&mut *held), cache.state());
                let there: HashSet<_> = fresh.iter().map(|object| object.uid()).collect();
                let known: HashSet<_> =
                    gone.iter().map(|object| (object.uid(), object.resource_version())).collect();
                gone.retain(|object| !there.contains(&object.uid()));
                fresh.retain(|object| !known.contains(&(object.uid(), object.resource_version())));
            }
            Event::InitApply(_) | Event::Apply(_) | Event::Delete(_) => {}
        }
        News { gone, fresh }
    }
}

impl Wake {
    /// Wakes objects of these caches; the receivers tell which.
    #[must_use]
    pub fn new(
        keys: Store<ApiKey>,
        accounts: Store<BagsAccount>,
        secrets: Store<Secret>,
        context: Arc<Context>,
    ) -> (Self, UnboundedReceiver<ObjectRef<ApiKey>>, UnboundedReceiver<ObjectRef<BagsAccount>>) {
        let (to_keys, woken_keys) = unbounded();
        let (to_accounts, woken_accounts) = unbounded();
        (
            Self {
                keys,
                accounts,
                secrets,
                context,
                to_keys,
                to_accounts,
                concerns: Arc::default(),
                listed_keys: Arc::default(),
                listed_accounts: Arc::default(),
                listed_secrets: Arc::default(),
            },
            woken_keys,
            woken_accounts,
        )
    }

    /// An ApiKey that is deleted wakes its account and those that want its use or its Secret's name. One that is deleted or
    /// suspended also wakes those that wait for a slot behind it.
    pub fn by_key(&self, event: &Event<ApiKey>) {
        let News { gone, fresh } = self.listed_keys.news(&self.keys, event);
        let mut told = HashSet::new();
        gone.iter().for_each(|gone| self.key_gone(gone, &mut told));
        for fresh in &fresh {
            self.key(fresh);
            self.key_shown(fresh, &mut told);
        }
        match event {
            Event::Apply(key) => self.key_shown(key, &mut told),
            Event::Delete(gone) => self.key_gone(gone, &mut told),
            Event::Init | Event::InitApply(_) | Event::InitDone => {}
        }
    }

    fn key_shown(&self, key: &ApiKey, told: &mut HashSet<String>) {
        if key.metadata.deletion_timestamp.is_some() {
            self.room_of(key, told);
        } else if key.suspended() {
            self.behind(key, told);
        }
    }

    fn key_gone(&self, gone: &ApiKey, told: &mut HashSet<String>) {
        self.context.forget_key(&gone.uid().unwrap_or_default());
        self.room_of(gone, told);
    }

    fn room_of(&self, gone: &ApiKey, told: &mut HashSet<String>) {
        self.account(&gone.spec.account_ref.name);
        let waiting = self.keys.state_filter(|key| {
            let same_use = key.spec.account_ref == gone.spec.account_ref && key.key_use() == gone.key_use();
            let same_secret = key.namespace() == gone.namespace() && key.secret_name() == gone.secret_name();
            (same_use || same_secret) && key.metadata.uid != gone.metadata.uid
        });
        waiting.iter().for_each(|key| self.key(key));
        self.behind(gone, told);
    }

    /// Wakes the ApiKeys without a slot when one of them stops waiting. (If `leaving` has a slot, the end of that slot
    /// changes the account, and that wakes them.) `told` holds the accounts whose waiting ApiKeys the same list has woken
    /// already: otherwise a thousand suspended ApiKeys of one account would each wake a thousand others.
    fn behind(&self, leaving: &ApiKey, told: &mut HashSet<String>) {
        let name = &leaving.spec.account_ref.name;
        if told.contains(name) {
            return;
        }
        let Some(account) = self.accounts.get(&ObjectRef::new(name)) else { return };
        let waits =
            |key: &ApiKey, ledger: &Ledger| ledger.owned_by(&key.uid().unwrap_or_default()).next().is_none();
        if waits(leaving, &Ledger::of(account.status.as_ref())) {
            told.insert(name.clone());
            self.keys_of(&account, |key, ledger| {
                key.metadata.uid != leaving.metadata.uid && waits(key, ledger)
            });
        }
    }

    /// A change of an account wakes the ApiKeys that wait for something from it. Those whose key is live and stays so are
    /// left alone: otherwise each write of the ledger would cost a request for each of them.
    pub fn by_account(&self, event: &Event<BagsAccount>) {
        let News { gone, fresh } = self.listed_accounts.news(&self.accounts, event);
        gone.iter().for_each(|gone| self.account_gone(gone));
        fresh.iter().for_each(|fresh| self.account(&fresh.name_any()));
        match event {
            Event::Apply(account) => self.account_shown(account),
            // Not page by page: ApiKeys that are woken read the cache, which shows the list at its end only.
            Event::InitDone => self.accounts.state().iter().for_each(|account| self.account_shown(account)),
            Event::Delete(account) => self.account_gone(account),
            Event::Init | Event::InitApply(_) => {}
        }
    }

    fn account_shown(&self, account: &BagsAccount) {
        let status = account.status.clone().unwrap_or_default();
        let capacity = status.capacity.unwrap_or_default();
        self.context.metrics.account(&account.name_any(), &status.slots, &capacity);
        let edited = self.edited(account);
        self.keys_of(account, |key, ledger| edited || unsettled(key, ledger));
    }

    fn account_gone(&self, gone: &BagsAccount) {
        let name = gone.name_any();
        if self.accounts.get(&ObjectRef::from_obj(gone)).is_some() {
            // While the watch was down another account took its name, and the cache shows that one already.
            self.context.memory.forget(&name);
        } else {
            self.concerns.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            self.context.forget_account(&name);
        }
        self.keys_of(gone, |_, _| true);
    }

    /// A keystore Secret with a value wakes its ApiKey; one that is deleted, or whose attempt has left the ledger, wakes
    /// its account; any other Secret wakes the accounts whose credentials it holds.
    pub fn by_secret(&self, event: &Event<Secret>) {
        let News { gone, fresh } = self.listed_secrets.news(&self.secrets, event);
        gone.iter().for_each(|gone| self.secret(gone, true));
        fresh.iter().for_each(|fresh| self.secret(fresh, false));
        match event {
            Event::Apply(secret) => self.secret(secret, false),
            Event::Delete(gone) => self.secret(gone, true),
            Event::Init | Event::InitApply(_) | Event::InitDone => {}
        }
    }

    fn secret(&self, secret: &Secret, gone: bool) {
        if let Some((namespace, name)) = Entry::owner(secret) {
            // A keystore Secret without a value was made or removed by the preparation of an attempt, which goes on by
            // itself: waking the ApiKey would begin the preparation anew, at once, and endlessly if something keeps it from
            // succeeding.
            if secret.data.is_some() {
                let _ = self.to_keys.unbounded_send(ObjectRef::new(name).within(namespace));
            }
            // Clearing away a keystore Secret that belongs to no key any more is the account's task.
            let account = secret.labels().get(mark::ACCOUNT);
            for account in account.into_iter().filter(|account| gone || self.has_left(account, secret)) {
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
                // A rotation may wait for a list of the account's keys, which needs the credentials.
                self.keys_of(&account, |key, ledger| unsettled(key, ledger) || is_rotating(key, ledger));
            }
        }
    }

    /// Whether a keystore Secret belongs to an attempt that has left the account's ledger.
    fn has_left(&self, account: &str, secret: &Secret) -> bool {
        let Some(attempt) = secret.labels().get(mark::ATTEMPT) else { return false };
        let account = self.accounts.get(&ObjectRef::new(account));
        let status = account.as_ref().and_then(|account| account.status.as_ref());
        status.is_some_and(|status| status.departed.contains(attempt))
    }

    /// Wakes every account, as something has changed that all of them show.
    pub fn every_account(&self) {
        self.accounts.state().iter().for_each(|account| self.account(&account.name_any()));
    }

    /// Whether something of an account that concerns all its ApiKeys changed since it was last seen.
    fn edited(&self, account: &BagsAccount) -> bool {
        let status = account.status.as_ref();
        let concern = Concern {
            generation: account.metadata.generation,
            installation: status.and_then(|status| status.installation.clone()),
            unreadable: Ledger::of(status).unknown_state(),
        };
        let mut concerns = self.concerns.lock().unwrap_or_else(PoisonError::into_inner);
        concerns.insert(account.name_any(), concern.clone()).is_some_and(|before| before != concern)
    }

    fn keys_of(&self, account: &BagsAccount, concerned: impl Fn(&ApiKey, &Ledger) -> bool) {
        let ledger = Ledger::of(account.status.as_ref());
        let name = account.name_any();
        let keys = self.keys.state_filter(|key| key.spec.account_ref.name == name);
        keys.iter().filter(|key| concerned(key, &ledger)).for_each(|key| self.key(key));
    }

    fn key(&self, key: &ApiKey) {
        // This fails only when the controllers have ended.
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

/// Whether an ApiKey has another key beside its current one.
fn is_rotating(key: &ApiKey, ledger: &Ledger) -> bool {
    ledger.owned_by(&key.uid().unwrap_or_default()).count() > 1
}

#[cfg(test)]
mod tests;
