//! The watches that fill the caches and report changes to the controllers.
//!
//! They go on after the controllers have ended: admission answers from the same caches for as long as it is called, and an
//! object that is missing in them, above all an ApiKey that another replica admitted meanwhile, would count as nonexistent.

use std::future::{Future, pending, ready};

use futures::{
    Stream, StreamExt,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
};
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, Store, store::Writer},
        utils::PredicateConfig,
        watcher,
    },
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    gate::Gate,
    parts::{self, Watches},
    synced::Synced,
    wake::Wake,
};
use crate::{
    api::{ApiKey, BagsAccount},
    env::kind_of_watch,
};

/// Changed objects, for a controller. Failures of the watch are left out: after one, a controller would back off from all
/// that triggers it, woken objects included, although the watch has backed off by itself.
pub(super) type Changes<K> = UnboundedReceiver<K>;

/// What triggers the controllers.
pub(super) struct Told {
    pub(super) keys: (Changes<ApiKey>, Store<ApiKey>),
    pub(super) accounts: (Changes<BagsAccount>, Store<BagsAccount>),
    pub(super) woken_keys: UnboundedReceiver<ObjectRef<ApiKey>>,
    pub(super) woken_accounts: UnboundedReceiver<ObjectRef<BagsAccount>>,
    pub(super) wake: Wake,
}

/// A future that fills all caches for as long as it is polled, and what it reports to the controllers.
pub(super) fn caches(
    client: Client,
    watches: Watches,
    gate: &Gate,
) -> (impl Future<Output = ()> + use<>, Told) {
    let Gate { context, synced, leadership: _, stop: _ } = gate;
    let Watches {
        keys: (keys, key_writer),
        accounts: (accounts, account_writer),
        secrets: (secrets, secret_writer),
    } = watches;
    let (wake, woken_keys, woken_accounts) =
        Wake::new(keys.clone(), accounts.clone(), secrets, context.clone());
    let namespace = &context.settings.installation.namespace;

    let (to_keys, changed_keys) = unbounded();
    let key_events = watcher(Api::all(client.clone()), watcher::Config::default()).default_backoff();
    let key_changes = reflected(key_events, key_writer, "ApiKey", synced, {
        let wake = wake.clone();
        move |event| wake.by_key(event)
    })
    .applied_objects()
    .predicate_filter(parts::key_triggers(), PredicateConfig::default());

    let (to_accounts, changed_accounts) = unbounded();
    let account_events = watcher(Api::all(client.clone()), watcher::Config::default()).default_backoff();
    let account_changes = reflected(account_events, account_writer, "BagsAccount", synced, {
        let wake = wake.clone();
        move |event| wake.by_account(event)
    })
    .applied_objects();

    let secret_events =
        watcher(Api::namespaced(client, namespace), watcher::Config::default()).default_backoff();
    let secrets = reflected(secret_events, secret_writer, "Secret", synced, {
        let wake = wake.clone();
        move |event| wake.by_secret(event)
    });

    let filling = async move {
        let secrets = secrets.for_each(|_| ready(()));
        tokio::join!(tell(key_changes, to_keys), tell(account_changes, to_accounts), secrets);
    };
    let keys = (changed_keys, keys);
    let accounts = (changed_accounts, accounts);
    (filling, Told { keys, accounts, woken_keys, woken_accounts, wake })
}

/// Fills the caches for as long as anything is answered from them: until the process is `over` and `serving` has ended.
pub(super) async fn kept(
    filling: impl Future<Output = ()>,
    serving: impl Future<Output = ()>,
    over: &CancellationToken,
) {
    let needed = async {
        serving.await;
        over.cancelled().await;
    };
    let filling = async {
        filling.await;
        pending().await
    };
    tokio::select! {
        () = needed => {}
        () = filling => {}
    }
}

/// The events of a watch, each put into the cache first and given to `tell` afterwards.
fn reflected<K, S, F>(
    events: S,
    writer: Writer<K>,
    kind: &'static str,
    synced: &Synced,
    tell: F,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + use<K, S, F>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
    S: Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send,
    F: Fn(&watcher::Event<K>) + Send,
{
    let synced = synced.clone();
    events.modify(|object| object.managed_fields_mut().clear()).reflect(writer).inspect(move |event| {
        match event {
            Ok(event) => {
                tell(event);
                if matches!(event, watcher::Event::InitDone) {
                    synced.done(kind);
                }
            }
            Err(error) => warn!(kind, failure = kind_of_watch(error), "A watch failed; it is begun again"),
        }
    })
}

/// Passes changes to a controller. Goes on when the controller has ended, as polling the changes is what fills the cache.
async fn tell<K>(changes: impl Stream<Item = Result<K, watcher::Error>>, to: UnboundedSender<K>) {
    changes
        .for_each(|change| {
            if let Ok(object) = change {
                let _ = to.unbounded_send(object);
            }
            ready(())
        })
        .await;
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::{FutureExt, stream};
    use kube::runtime::{reflector, watcher::Event};

    use super::*;
    use crate::{admin::Readiness, apikey::fixtures::key};

    #[tokio::test]
    async fn a_cache_is_filled_on_when_the_controller_has_gone() {
        let (events, watched) = unbounded();
        let (cache, writer) = reflector::store();
        let (to_controller, mut changed) = unbounded();
        let (stop, over) = (CancellationToken::new(), CancellationToken::new());
        let synced = Synced::new(Readiness::awaiting([]));
        let changes = reflected(watched, writer, "ApiKey", &synced, |_| {}).applied_objects();
        let mut kept = Box::pin(kept(tell(changes, to_controller), stop.cancelled(), &over));
        let mut shows = |name: &str| {
            let mut key = key();
            key.metadata.name = Some(name.to_owned());
            events.unbounded_send(Ok(Event::Apply(key))).unwrap();
            assert!(kept.as_mut().now_or_never().is_none());
            cache.state().len()
        };
        assert_eq!(shows("first"), 1);
        assert_eq!(changed.next().await.unwrap().name_any(), "first");
        drop(changed);
        assert_eq!(shows("second"), 2);
        // The process is over, but admission still serves.
        over.cancel();
        assert_eq!(shows("third"), 3);
        stop.cancel();
        assert!(kept.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_failure_of_a_watch_is_kept_from_the_controller() {
        let (to_controller, changed) = unbounded();
        tell(stream::iter([Err(watcher::Error::NoResourceVersion), Ok(key())]), to_controller).await;
        let told: Vec<String> = changed.map(|key| key.name_any()).collect().await;
        assert_eq!(told, [key().name_any()]);
    }

    #[tokio::test]
    async fn a_list_shows_in_the_cache_when_its_end_is_told_and_not_before() {
        let (cache, writer) = reflector::store::<ApiKey>();
        let synced = Synced::new(Readiness::awaiting([]));
        let shown = Mutex::new(Vec::new());
        let list = [Event::Init, Event::InitApply(key()), Event::InitDone];
        let events = stream::iter(list.map(Ok));
        let told = |_: &Event<_>| shown.lock().unwrap().push(cache.state().len());
        reflected(events, writer, "ApiKey", &synced, told).for_each(|_| ready(())).await;
        assert_eq!(*shown.lock().unwrap(), [0, 0, 1]);
    }
}
