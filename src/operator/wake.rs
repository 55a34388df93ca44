//! Which objects a change of another object concerns.

use std::{
    collections::HashMap,
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
            Self { keys, accounts, context, to_keys, to_accounts, specs: Arc::default() },
            woken_keys,
            woken_accounts,
        )
    }

    /// An ApiKey that goes makes room: for its use, its Secret's name, its slot.
    pub fn by_key(&self, event: &Event<ApiKey>) {
        let (Event::Delete(gone) | Event::Apply(gone)) = event else { return };
        let leaving = matches!(event, Event::Delete(_)) || gone.metadata.deletion_timestamp.is_some();
        if !leaving {
            return;
        }
        if matches!(event, Event::Delete(_)) {
            let uid = gone.uid().unwrap_or_default();
            self.context.written.forget(&uid);
            self.context.backoff.forget(&uid);
            self.context.metrics.apikey_gone(&uid);
        }
        self.account(&gone.spec.account_ref.name);
        let waiting = self.keys.state_filter(|key| {
            let same_use = key.spec.account_ref == gone.spec.account_ref && key.key_use() == gone.key_use();
            let same_secret = key.namespace() == gone.namespace() && key.secret_name() == gone.secret_name();
            (same_use || same_secret) && key.metadata.uid != gone.metadata.uid
        });
        waiting.iter().for_each(|key| self.key(key));
    }

    /// An account's change concerns the ApiKeys that wait for something of it; those whose key is live and stays so
    /// are left in peace, or each write of the ledger would cost a request for each of them.
    pub fn by_account(&self, event: &Event<BagsAccount>) {
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
            Event::Delete(account) => {
                let name = account.name_any();
                self.context.metrics.account_gone(&name);
                self.context.memory.forget(&name);
                self.keys_of(account, |_, _| true);
            }
            Event::Init | Event::InitDone => {}
        }
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

    #[test]
    fn a_published_key_is_left_in_peace_and_everything_else_is_woken() {
        let mut key: ApiKey = serde_json::from_value(serde_json::json!({
            "apiVersion": "keys.bags.fm/v1alpha1", "kind": "ApiKey",
            "metadata": {"name": "app-0", "namespace": "shop", "uid": "uid-0"},
            "spec": {"accountRef": {"name": "main"}, "environment": "production"},
        }))
        .unwrap();
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
