//! Who is woken by what a watch or a list shows.

use futures::{FutureExt, StreamExt};
use kube::runtime::reflector;
use serde_json::json;

use super::*;
use crate::{
    apikey::fixtures::account,
    fixtures::{api_key, failure, process, server},
    ledger::slots::tests::{owner, slot},
    operator::parts::Watches,
};

fn key(uid: &str) -> ApiKey {
    api_key(&json!({"metadata": {"name": format!("app-{uid}"), "uid": uid}}))
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

type Woken<K> = UnboundedReceiver<ObjectRef<K>>;

/// What wakes objects of these caches.
fn waking(watches: &Watches) -> (Wake, Woken<ApiKey>, Woken<BagsAccount>) {
    let Watches { keys, accounts, secrets } = watches;
    let (nobody, _) = server(|_, _| failure(503, "ServiceUnavailable"));
    Wake::new(keys.0.clone(), accounts.0.clone(), secrets.0.clone(), process(watches, nobody))
}

/// Names of what was woken since.
fn names<K: kube::Resource<DynamicType = ()>>(woken: &mut Woken<K>) -> Vec<String> {
    let mut names: Vec<String> =
        std::iter::from_fn(|| woken.next().now_or_never().flatten().map(|object| object.name)).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_a_list_shows_anew_is_woken_when_the_cache_shows_it_and_not_before() {
    let mut watches = Watches::new();
    let (wake, mut woken_keys, mut woken_accounts) = waking(&watches);
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

#[tokio::test]
async fn credentials_and_values_that_changed_while_nobody_watched_wake_whom_they_concern() {
    let secret = |name: &str, version: &str| -> Secret {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "namespace": "bags-system", "uid": name, "resourceVersion": version},
            "data": {"value": "dmFsdWU="},
        }))
        .unwrap()
    };
    let credentials = |version| secret("bags-main", version);
    let value = |version| {
        let mut secret = secret("bags-key-0", version);
        for (annotation, of) in [(mark::OWNER_NAMESPACE, "shop"), (mark::OWNER_NAME, "app-b")] {
            secret.annotations_mut().insert(annotation.to_owned(), of.to_owned());
        }
        secret.labels_mut().insert(mark::ACCOUNT.to_owned(), "main".to_owned());
        secret
    };
    let mut placeholder = value("3");
    placeholder.data = None;
    let of_dead = |version| {
        let mut secret = value(version);
        secret.labels_mut().insert(mark::ATTEMPT.to_owned(), "departedxx".to_owned());
        secret
    };
    let mut account = account();
    account.status.get_or_insert_default().departed = vec!["departedxx".to_owned()];
    let mut watches = Watches::new();
    let (wake, mut woken_keys, mut woken_accounts) = waking(&watches);
    watches.keys.1.apply_watcher_event(&Event::Apply(key("a")));
    watches.accounts.1.apply_watcher_event(&Event::Apply(account));
    let mut told = |event: Event<Secret>| {
        watches.secrets.1.apply_watcher_event(&event);
        wake.by_secret(&event);
        [names(&mut woken_accounts), names(&mut woken_keys)]
    };
    let nobody = [const { Vec::<String>::new() }; 2];
    for (shown, woken) in [
        (vec![credentials("1"), value("1")], [vec!["main"], vec!["app-a", "app-b"]]),
        (vec![credentials("1"), value("1")], [vec![], vec![]]),
        (vec![credentials("2"), value("1")], [vec!["main"], vec!["app-a"]]),
        (vec![credentials("2"), value("2")], [vec![], vec!["app-b"]]),
        (vec![credentials("2"), placeholder], [vec![], vec![]]),
        (vec![credentials("2"), value("4")], [vec![], vec!["app-b"]]),
        (vec![credentials("2"), of_dead("5")], [vec!["main"], vec!["app-b"]]),
        (vec![credentials("2")], [vec!["main"], vec!["app-b"]]),
        (vec![], [vec!["main"], vec!["app-a"]]),
    ] {
        assert_eq!(told(Event::Init), nobody);
        for secret in shown {
            assert_eq!(told(Event::InitApply(secret)), nobody, "the cache shows it at the end of the list");
        }
        assert_eq!(told(Event::InitDone), woken);
        assert!(wake.listed_secrets.0.lock().unwrap().is_empty(), "a Secret outlasts the list");
    }
}

/// Shows a new list of ApiKeys.
fn list(watches: &mut Watches, wake: &Wake, keys: impl IntoIterator<Item = ApiKey>) {
    let keys = keys.into_iter().map(Event::InitApply);
    for event in std::iter::once(Event::Init).chain(keys).chain(std::iter::once(Event::InitDone)) {
        watches.keys.1.apply_watcher_event(&event);
        wake.by_key(&event);
    }
}

/// The ApiKey since it was suspended.
fn resting(uid: &str) -> ApiKey {
    let mut key = key(uid);
    key.metadata.resource_version = Some("2".into());
    key.spec.suspend = Some(true);
    key
}

#[tokio::test]
async fn who_rests_since_the_last_list_makes_room_for_those_behind() {
    let mut watches = Watches::new();
    let (wake, mut woken, _accounts) = waking(&watches);
    watches.accounts.1.apply_watcher_event(&Event::Apply(account()));
    let mut leaving = key("a");
    leaving.metadata.resource_version = Some("3".into());
    leaving.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
    list(&mut watches, &wake, [key("a"), key("b")]);
    assert_eq!(names(&mut woken), ["app-a", "app-b"], "the first list");
    list(&mut watches, &wake, [key("a"), key("b")]);
    assert!(names(&mut woken).is_empty());
    for makes_room in [resting("a"), leaving] {
        list(&mut watches, &wake, [makes_room, key("b")]);
        assert_eq!(names(&mut woken), ["app-a", "app-b"]);
    }
}

#[tokio::test]
async fn many_who_rest_since_the_last_list_wake_those_behind_them_once() {
    let mut watches = Watches::new();
    let (wake, mut woken, _accounts) = waking(&watches);
    watches.accounts.1.apply_watcher_event(&Event::Apply(account()));
    list(&mut watches, &wake, ["a", "b", "c", "d"].map(key));
    assert_eq!(names(&mut woken).len(), 4, "the first list");
    list(&mut watches, &wake, [resting("a"), resting("b"), resting("c"), key("d")]);
    let mut told = names(&mut woken);
    assert_eq!(told.iter().filter(|name| *name == "app-d").count(), 1);
    told.dedup();
    assert_eq!(told, ["app-a", "app-b", "app-c", "app-d"]);
}

#[tokio::test]
async fn whoever_has_a_key_is_woken_when_its_accounts_ledger_is_back_or_another_ones() {
    let mut watches = Watches::new();
    let (wake, mut woken, _accounts) = waking(&watches);
    list(&mut watches, &wake, [key("uid-0")]);
    names(&mut woken);
    let mut told = |installation: Option<&str>, slots: Vec<Slot>| {
        let mut account = account();
        let status = account.status.get_or_insert_default();
        status.installation = installation
            .map(|namespace| Installation { cluster: "cluster-0".into(), namespace: namespace.into() });
        status.slots = slots;
        watches.accounts.1.apply_watcher_event(&Event::Apply(account.clone()));
        wake.by_account(&Event::Apply(account));
        names(&mut woken)
    };
    let live = || vec![slot(&owner(0), SlotState::Live)];
    let unknown = vec![slot(&owner(1), SlotState::Unknown("Hibernating".into())), live().remove(0)];
    assert!(told(Some("bags-system"), live()).is_empty(), "its key is live");
    assert_eq!(told(None, vec![]), ["app-uid-0"], "the ledger is lost");
    assert_eq!(told(Some("bags-system"), live()), ["app-uid-0"], "it is put together");
    assert!(told(Some("bags-system"), live()).is_empty(), "nothing has changed");
    assert_eq!(told(Some("elsewhere"), live()), ["app-uid-0"], "it is taken over");
    assert_eq!(told(Some("elsewhere"), unknown), ["app-uid-0"], "a newer version has written it");
    assert_eq!(told(Some("elsewhere"), live()), ["app-uid-0"], "and undone what it wrote");
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
    key.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
    assert!(unsettled(&key, &ledger(&[SlotState::Live])));
}
