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

/// What a cache held before a new list began. Of what went while nobody watched only its absence tells; and what came or changed
/// meanwhile is told of page by page, before the cache shows any of it: who looks then finds nothing, or what was there before.
struct Listed<K>(Mutex<Vec<Arc<K>>>);

/// What a new list came to.
struct News<K> {
    /// What it no longer shows.
    gone: Vec<Arc<K>>,
    /// What was not there before, or as another version.
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
    /// What a new list came to, at its end; the cache has seen the event already.
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
        let News { gone, fresh } = self.listed_keys.news(&self.keys, event);
        gone.iter().for_each(|gone| self.key_gone(gone));
        fresh.iter().for_each(|fresh| self.key(fresh));
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
        let News { gone, fresh } = self.listed_accounts.news(&self.accounts, event);
        gone.iter().for_each(|gone| self.account_gone(gone));
        fresh.iter().for_each(|fresh| self.account(&fresh.name_any()));
        match event {
            Event::Apply(account) => self.account_shown(account),
            // Not page by page: who is woken looks at the cache.
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
                // A rotation may wait for a list.
                self.keys_of(&account, |key, ledger| unsettled(key, ledger) || is_rotating(key, ledger));
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

/// Whether an ApiKey has another key beside its current one.
fn is_rotating(key: &ApiKey, ledger: &Ledger) -> bool {
    ledger.owned_by(&key.uid().unwrap_or_default()).count() > 1
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use futures::{FutureExt, StreamExt};
    use http::{Request, Response};
    use kube::{Client, client::Body, runtime::reflector};

    use super::*;
    use crate::{
        api::account::Installation,
        apikey::fixtures::account,
        bags::{BagsService, TransportError},
        clock::{Randomness, SystemClock},
        config::{Cli, Command, Config},
        env::Env,
        ledger::slots::tests::{owner, slot},
        operator::parts::{self, Watches},
        saves::Saves,
        webhook::registration::Registration,
    };

    fn key(uid: &str) -> ApiKey {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "keys.bags.fm/v1alpha1", "kind": "ApiKey",
            "metadata": {"name": format!("app-{uid}"), "namespace": "shop", "uid": uid},
            "spec": {"accountRef": {"name": "main"}, "environment": "production"},
        }))
        .unwrap()
    }

    #[test]
    fn what_a_new_list_no_longer_shows_is_gone_and_what_it_shows_anew_is_fresh() {
        let (cache, mut writer) = reflector::store();
        let listed = Listed::default();
        let mut told = |event: Event<ApiKey>| {
            writer.apply_watcher_event(&event);
            let News { gone, fresh } = listed.news(&cache, &event);
            [gone, fresh].map(|keys| {
                let mut uids: Vec<String> = keys.iter().filter_map(|key| key.uid()).collect();
                uids.sort();
                uids
            })
        };
        let nothing = [const { Vec::<String>::new() }; 2];
        for event in [Event::Init, Event::InitApply(key("a")), Event::InitApply(key("b"))] {
            assert_eq!(told(event), nothing);
        }
        assert_eq!(told(Event::InitDone), [vec![], vec!["a", "b"]], "the first list");
        assert_eq!(told(Event::Apply(key("c"))), nothing);
        assert_eq!(told(Event::Init), nothing);
        // One of the same name, one that is new, and one that was edited.
        let (mut again, mut edited) = (key("b"), key("c"));
        again.metadata.uid = Some("b2".into());
        edited.metadata.resource_version = Some("2".into());
        for object in [key("a"), again, key("d"), edited] {
            assert_eq!(told(Event::InitApply(object)), nothing, "the cache shows it at the end of the list");
        }
        assert_eq!(told(Event::InitDone), [vec!["b"], vec!["b2", "c", "d"]]);
        assert_eq!(told(Event::Init), nothing);
        // It is begun again, as where a page of it failed.
        assert_eq!(told(Event::InitApply(key("e"))), nothing);
        assert_eq!(told(Event::Init), nothing);
        assert_eq!(told(Event::InitDone), [vec!["a", "b2", "c", "d"], vec![]]);
    }

    /// A process that has asked nobody yet.
    fn context(watches: &Watches) -> Arc<Context> {
        let kube = tower::service_fn(|_: Request<Body>| async {
            Err::<Response<Body>, _>(std::io::Error::other("nobody answers"))
        });
        let env = Env {
            kube: Client::new(kube, "unused"),
            bags: BagsService::new(tower::service_fn(|_| async { Err(TransportError::Broken) })),
            clock: Arc::new(SystemClock),
            randomness: Randomness::from_seed(1),
            saves: Saves::default(),
        };
        let Command::Run(flags) =
            Cli::parse_from(["bags-operator", "run", "--namespace=bags-system"]).command;
        let config = Config::try_from(*flags).unwrap();
        let installation = Installation { cluster: "cluster-0".into(), namespace: "bags-system".into() };
        let registration = tokio::sync::watch::channel(Registration::Unwatched).1;
        Arc::new(parts::context(&config, env, installation, watches, registration))
    }

    /// Names of what was woken since.
    fn names<K: kube::Resource<DynamicType = ()>>(
        woken: &mut UnboundedReceiver<ObjectRef<K>>,
    ) -> Vec<String> {
        let mut names: Vec<String> =
            std::iter::from_fn(|| woken.next().now_or_never().flatten().map(|object| object.name)).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn what_a_list_shows_anew_is_woken_when_the_cache_shows_it_and_not_before() {
        let mut watches = Watches::new();
        let (wake, mut woken_keys, mut woken_accounts) =
            Wake::new(watches.keys.0.clone(), watches.accounts.0.clone(), context(&watches));
        let mut told = |event: Event<ApiKey>| {
            watches.keys.1.apply_watcher_event(&event);
            wake.by_key(&event);
            names(&mut woken_keys)
        };
        for (shown, fresh) in [(vec!["a"], vec!["app-a"]), (vec!["a", "b"], vec!["app-b"])] {
            assert!(told(Event::Init).is_empty());
            for uid in shown {
                assert!(told(Event::InitApply(key(uid))).is_empty());
            }
            assert_eq!(told(Event::InitDone), fresh);
        }
        let mut told = |event: Event<BagsAccount>| {
            watches.accounts.1.apply_watcher_event(&event);
            wake.by_account(&event);
            (names(&mut woken_accounts), names(&mut woken_keys))
        };
        // Those who wait for something of an account are woken by each list, as by each of its changes.
        let waiting = vec!["app-a".to_owned(), "app-b".to_owned()];
        for fresh in [vec!["main".to_owned()], vec![]] {
            assert_eq!(told(Event::Init), (vec![], vec![]));
            assert_eq!(told(Event::InitApply(account())), (vec![], vec![]));
            assert_eq!(told(Event::InitDone), (fresh, waiting.clone()));
        }
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
        assert!(!is_rotating(&key, &ledger(&[SlotState::Live])));
        assert!(is_rotating(&key, &ledger(&[SlotState::Live, SlotState::Live])), "it may wait for a list");
        key.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
        ));
        assert!(unsettled(&key, &ledger(&[SlotState::Live])));
    }
}
