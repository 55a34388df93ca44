//! What needs an operator, or a service, of one's own: faults, restarts, other durations.

use std::{collections::BTreeMap, path::Path, time::Duration};

use bags_operator::{
    api::{ApiKey, BagsAccount, account::SlotState},
    sandbox::{Action, FaultRule, UserOptions, When},
};
use k8s_openapi::{
    ByteString,
    api::{core::v1::Namespace, events::v1::Event},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    support::{
        operator::USER,
        scene::{Scene, Way, all, condition, holds, says, slots, slots_in},
        world::World,
    },
    trouble::Trouble,
};

const NAME: &str = "web-dashboard";

fn fault(route: &str, count: u32, action: Action) -> FaultRule {
    FaultRule { count, ..FaultRule::once(route, action) }
}

fn answer(status: u16, body: Value) -> Action {
    Action::Answer { status, headers: BTreeMap::new(), body, when: When::Before }
}

// ---- restarts and drift

#[tokio::test]
async fn a_restart_writes_nothing_and_makes_nothing() {
    let mut alone = World::alone(&["--resync=2s"]).await;
    let world = &alone.world;
    let scenes = [
        Scene::new(world, Way::Token, UserOptions::default()).await,
        Scene::new(world, Way::WalletAndToken, UserOptions::default()).await,
        Scene::new(world, Way::Wallet, UserOptions::default()).await,
    ];
    for scene in &scenes {
        all(["web-dashboard", "mobile-backend"].map(|name| scene.apply(name, json!({})))).await;
        all(["web-dashboard", "mobile-backend"].map(|name| scene.ready(name))).await;
        scene.account_where("Ready", |account| holds(account, "Ready", "True")).await;
        // All that there is to know is known once the resync has shown it.
        if scene.way != Way::Wallet {
            scene.account_where("covered by its list", |account| holds(account, "ListCovers", "True")).await;
            let used = |key: &ApiKey| {
                let current = key.status.as_ref().and_then(|status| status.current.as_ref());
                current.is_some_and(|current| current.last_used_at.is_some())
            };
            for name in ["web-dashboard", "mobile-backend"] {
                scene.key(name, "known to be used", used).await;
            }
        }
    }
    let names: Vec<String> = scenes.iter().map(|scene| scene.name.clone()).collect();
    drop(scenes);
    let before = versions(world).await;
    let made = world.sandbox.sandbox.keys().len();

    let operator = alone.world.operator.take().unwrap();
    operator.stop().await;
    assert_eq!(versions(&alone.world).await, before, "the orderly end wrote something");
    let audited = audit_lines(&alone.world);
    let asked = alone.world.sandbox.sandbox.requests(0, 0).total;
    let operator = alone.world.launch.start().await;
    // Each of six ApiKeys was looked at, and each account that can list its keys did so.
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    let looked = async {
        loop {
            pause.tick().await;
            let metrics = operator.metrics().await;
            let page = alone.world.sandbox.sandbox.requests(asked, usize::MAX);
            let lists = page
                .requests
                .iter()
                .filter(|request| request.route.as_ref().is_some_and(|route| route.ends_with("/dev/keys")));
            if reconciles(&metrics) >= 6 && lists.count() >= 2 {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looked).await.expect("everything is looked at");
    // The orderly end lets what was begun come to its end.
    operator.stop().await;
    let writes = writes_since(&alone.world, audited);
    assert!(writes.is_empty(), "a restart wrote: {writes:#?}");
    assert_eq!(versions(&alone.world).await, before);
    assert_eq!(alone.world.sandbox.sandbox.keys().len(), made);
    for name in names {
        alone.world.ledgers.hold(&name);
    }
}

/// Resource versions of every object that the operator may write.
async fn versions(world: &World) -> Vec<(String, String)> {
    let client = world.cluster.client().await;
    let mut all = Vec::new();
    let parameters = ListParams::default();
    for key in Api::<ApiKey>::all(client.clone()).list(&parameters).await.unwrap() {
        all.push((key.name_any(), key.resource_version().unwrap()));
    }
    for account in Api::<BagsAccount>::all(client.clone()).list(&parameters).await.unwrap() {
        all.push((account.name_any(), account.resource_version().unwrap()));
    }
    let secrets = Api::<k8s_openapi::api::core::v1::Secret>::all(client.clone());
    for secret in secrets.list(&parameters).await.unwrap() {
        all.push((secret.name_any(), secret.resource_version().unwrap()));
    }
    // Accounts that other tests left are another installation's: each process says once that it leaves them alone.
    let ours = |event: &Event| event.reason.as_deref() != Some("ForeignInstallation");
    for event in Api::<Event>::all(client).list(&parameters).await.unwrap().into_iter().filter(ours) {
        all.push((event.name_any(), event.resource_version().unwrap()));
    }
    all
}

/// How often ApiKeys were reconciled.
fn reconciles(metrics: &str) -> u64 {
    let series = "bags_operator_reconciles_total{kind=\"ApiKey\"";
    let counts = metrics.lines().filter(|line| line.starts_with(series));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn audit(world: &World) -> String {
    let log = world.cluster.audit_log.as_deref().unwrap_or(Path::new("/dev/null"));
    std::fs::read_to_string(log).unwrap()
}

fn audit_lines(world: &World) -> usize {
    audit(world).lines().count()
}

/// What the operator asked the API server to change, by the audit log; but for its Lease, which it renews all the time, and
/// events, of which the log does not say what they tell: see [`versions`].
fn writes_since(world: &World, lines: usize) -> Vec<String> {
    let log = audit(world);
    let entries = log.lines().skip(lines).filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let writes = entries.filter(|entry| {
        let verb = entry["verb"].as_str().unwrap_or_default();
        entry["impersonatedUser"]["username"] == USER
            && !matches!(verb, "get" | "list" | "watch")
            && !["leases", "events"].iter().any(|resource| entry["objectRef"]["resource"] == **resource)
    });
    writes.map(|entry| format!("{} {}", entry["verb"], entry["requestURI"])).collect()
}

#[tokio::test]
async fn a_secret_that_is_deleted_or_edited_is_written_again_with_the_same_key() {
    let alone = World::alone(&["--resync=2s"]).await;
    let scene = Scene::new(&alone.world, Way::Token, UserOptions::default()).await;
    scene.apply(NAME, json!({"secret": {"labels": {"team": "web"}}})).await;
    scene.ready(NAME).await;
    let value = scene.working_value(NAME).await;
    let first = scene.secrets().get(NAME).await.unwrap();
    scene.secrets().delete(NAME, &DeleteParams::default()).await.unwrap();
    let anew = |secret: &k8s_openapi::api::core::v1::Secret| secret.uid() != first.uid();
    let second = scene.secret(NAME, "there again", anew).await;
    assert_eq!(scene.value(NAME).await, value);
    assert_eq!(second.labels().get("team").map(String::as_str), Some("web"));
    assert_eq!(second.annotations(), first.annotations(), "no new switch is counted");
    let mut edited = second;
    let data = edited.data.as_mut().unwrap();
    data.insert("BAGS_API_KEY".into(), ByteString(b"edited".to_vec()));
    data.insert("THEIRS".into(), ByteString(b"kept".to_vec()));
    scene.secrets().replace(NAME, &PostParams::default(), &edited).await.unwrap();
    let restored = |secret: &k8s_openapi::api::core::v1::Secret| {
        secret.data.as_ref().is_some_and(|data| data["BAGS_API_KEY"].0 == value.as_bytes())
    };
    let third = scene.secret(NAME, "as it should be", restored).await;
    assert_eq!(third.data.unwrap()["THEIRS"].0, b"kept", "only our fields are ours");
    assert!(!scene.events(NAME, "SecretRestored").await.is_empty());
    assert_eq!(scene.made().len(), 1, "no new key");
    scene.working_value(NAME).await;
    scene.end().await;
}

/// As after a restore from manifests (docs/operations.md): the same names, other uids, and the Secrets of before.
#[tokio::test]
async fn an_apikey_that_is_created_anew_gets_another_key_and_the_old_one_works_until_a_person_says_so() {
    let mut alone = World::alone(&["--resync=2s"]).await;
    let scene = Scene::new(&alone.world, Way::Token, UserOptions::default()).await;
    scene.apply(NAME, json!({})).await;
    let first = scene.ready(NAME).await;
    let attempt = first.status.unwrap().current.unwrap().attempt;
    let (old, name, user) = (scene.working_value(NAME).await, scene.name.clone(), scene.user.clone());
    drop(scene);
    alone.world.operator.take().unwrap().stop().await;
    let scene = Scene::again(&alone.world, name, user, Way::Token).await;
    scene.patch(NAME, json!({"metadata": {"finalizers": null}})).await;
    scene.delete(NAME).await;
    scene.gone(NAME).await;
    scene.apply(NAME, json!({})).await;
    let (name, user) = (scene.name.clone(), scene.user.clone());
    drop(scene);
    alone.world.operator = Some(alone.world.launch.start().await);
    let scene = Scene::again(&alone.world, name, user, Way::Token).await;

    says(&scene.not_ready(NAME, "SecretConflict").await, &[NAME]);
    let orphaned = |account: &BagsAccount| {
        condition(account, "OrphanedKeys")
            .is_some_and(|it| it.status == "True" && it.message.contains(&attempt))
    };
    scene.account_where("told of the old key", orphaned).await;
    scene.secrets().delete(NAME, &DeleteParams::default()).await.unwrap();
    scene.ready(NAME).await;
    let works = |value: &str| alone.world.sandbox.sandbox.works(value);
    let new = scene.working_value(NAME).await;
    assert!(new != old && works(&old), "pods that were not restarted go on");
    scene.patch_account(json!({"metadata": {"annotations": {"keys.bags.fm/revoke": attempt}}})).await;
    scene.account_where("with one slot", |account| slots(account) == 1).await;
    assert!(!works(&old) && works(&new));
    scene.end().await;
}

// ---- the service fails

#[tokio::test]
async fn while_bags_is_down_nothing_is_lost_and_when_it_is_back_the_key_comes() {
    let mut alone = World::alone(&[]).await;
    alone.world.sandbox.down();
    let scene = Scene::new(&alone.world, Way::Token, UserOptions::default()).await;
    let wallet = Scene::new(&alone.world, Way::Wallet, UserOptions::default()).await;
    for scene in [&scene, &wallet] {
        scene.apply(NAME, json!({})).await;
    }
    for scene in [&scene, &wallet] {
        let event = Some("BagsUnavailable");
        let trouble = Trouble { reason: "BagsUnavailable", event, words: &[] };
        trouble.shows(scene, NAME).await;
        assert!(
            slots_in(&scene.account().await, &SlotState::Unresolved) == 0,
            "nothing was sent: nothing is in doubt"
        );
    }
    let names = [scene.name.clone(), wallet.name.clone()];
    let users = [scene.user.clone(), wallet.user.clone()];
    drop((scene, wallet));
    alone.world.sandbox.up();
    for ((name, user), way) in names.into_iter().zip(users).zip([Way::Token, Way::Wallet]) {
        let scene = Scene::again(&alone.world, name, user, way).await;
        scene.ready(NAME).await;
        scene.working_value(NAME).await;
        assert_eq!(scene.made().len(), 1, "one key was enough");
        scene.end().await;
    }
}

#[tokio::test]
async fn a_rate_limit_is_waited_out_and_nothing_is_asked_meanwhile() {
    let alone = World::alone(&[]).await;
    let sandbox = &alone.world.sandbox.sandbox;
    let scene = Scene::without_account(&alone.world, Way::Wallet, UserOptions::default()).await;
    let reset = sandbox.now().as_second() + 20;
    let body = json!({"success": false, "error": "Rate limit exceeded", "limit": 10, "remaining": 0, "resetTime": reset});
    sandbox.add_fault(fault("*", 1, answer(429, body))).unwrap();
    scene.put_credentials(&scene.credentials()).await;
    scene.make_account(json!({})).await;
    scene.apply(NAME, json!({})).await;
    let words = ["rate limit", scene.name.as_str()];
    let trouble = Trouble { reason: "RateLimited", event: Some("RateLimited"), words: &words };
    trouble.shows(&scene, NAME).await;
    scene.ready(NAME).await;
    let page = sandbox.requests(0, usize::MAX);
    let limited = page.requests.iter().position(|request| request.status == Some(429)).unwrap();
    let early: Vec<_> =
        page.requests.iter().skip(limited + 1).filter(|next| next.time.as_second() < reset).collect();
    assert!(early.is_empty(), "asked although the limit was used up: {early:?}");
    assert_eq!(scene.made().len(), 1, "one key was enough");
    scene.end().await;
}

/// A creation whose answer is useless: judged, found, revoked, and another key is made.
async fn an_answer_is_useless(way: Way, route: &str, action: Action, made: usize) {
    let alone = World::alone(&[]).await;
    let scene = Scene::new(&alone.world, way, UserOptions::default()).await;
    // A key that works, by which the list shows that it speaks of this account.
    scene.apply("first-come", json!({})).await;
    scene.ready("first-come").await;
    alone.world.sandbox.sandbox.add_fault(fault(route, 1, action)).unwrap();
    scene.apply(NAME, json!({})).await;
    let message = scene.not_ready(NAME, "OutcomeUnknown").await;
    says(&message, &["Production-Web-Dashboard-", "not known", "nothing is lost"]);
    scene.ready(NAME).await;
    scene.working_value(NAME).await;
    scene.account_where("with two slots", |account| slots(account) == 2).await;
    assert_eq!((scene.working().len(), scene.made().len()), (2, made), "{:?}", scene.made());
    scene.end().await;
}

const CREATE: &str = "/agent/dev/keys/create";

#[tokio::test]
async fn a_key_whose_answer_was_cut_in_half_is_found_revoked_and_made_again() {
    an_answer_is_useless(Way::Token, CREATE, Action::Malformed, 3).await;
}

#[tokio::test]
async fn a_key_whose_answer_broke_off_is_found_revoked_and_made_again() {
    an_answer_is_useless(Way::Token, CREATE, Action::Truncated, 3).await;
}

#[tokio::test]
async fn a_page_of_html_instead_of_an_answer_is_not_taken_for_a_key() {
    let page = json!("<html><body>502 Bad Gateway</body></html>");
    an_answer_is_useless(Way::Token, CREATE, answer(200, page), 2).await;
}

#[tokio::test]
async fn an_error_of_the_service_after_it_made_the_key_leaves_no_key_behind() {
    let body = json!({"success": false, "error": "Internal error"});
    let action = Action::Answer { status: 500, headers: BTreeMap::new(), body, when: When::After };
    an_answer_is_useless(Way::WalletAndToken, "/agent/v2/auth/callback", action, 3).await;
}

#[tokio::test]
async fn the_very_first_key_of_an_account_can_be_lost_as_well() {
    let alone = World::alone(&[]).await;
    let scene = Scene::without_account(&alone.world, Way::Token, UserOptions::default()).await;
    alone.world.sandbox.sandbox.add_fault(fault(CREATE, 1, Action::Cut(When::After))).unwrap();
    scene.put_credentials(&scene.credentials()).await;
    scene.make_account(json!({})).await;
    scene.apply(NAME, json!({})).await;
    scene.ready(NAME).await;
    scene.working_value(NAME).await;
    scene.account_where("with one slot", |account| slots(account) == 1).await;
    assert_eq!((scene.working().len(), scene.made().len()), (1, 2), "the lost key was revoked");
    scene.end().await;
}

// ---- revocation

#[tokio::test]
async fn where_a_person_revokes_the_list_shows_it_and_the_slot_is_freed() {
    let alone = World::alone(&["--resync=2s"]).await;
    let mut options = UserOptions::default();
    options.capabilities.revoke = false;
    let scene = Scene::new(&alone.world, Way::Token, options).await;
    scene.apply("stays-there", json!({})).await;
    scene.apply(NAME, json!({})).await;
    scene.ready("stays-there").await;
    let current = scene.ready(NAME).await.status.unwrap().current.unwrap();
    let key_id = current.key_id.unwrap();
    scene.delete_now(NAME).await;
    let asked = |account: &BagsAccount| holds(account, "RevocationNeedsPerson", "True");
    let account = scene.account_where("asking a person", asked).await;
    let asks = condition(&account, "RevocationNeedsPerson").unwrap();
    assert_eq!(asks.reason, "NoRevokeEndpoint");
    says(&asks.message, &[&current.key_name, &key_id, "https://dev.bags.fm"]);
    assert_eq!(scene.working().len(), 2);
    alone.world.sandbox.sandbox.revoke_key(&key_id).unwrap();
    let account = scene.account_where("with one slot", |account| slots(account) == 1).await;
    assert_eq!(slots_in(&account, &SlotState::Live), 1);
    scene.account_where("asking nobody", |account| !asked(account)).await;
    scene.end().await;
}

#[tokio::test]
async fn a_revocation_that_is_acknowledged_and_has_no_effect_is_not_believed() {
    let alone = World::alone(&[]).await;
    let scene = Scene::new(&alone.world, Way::Token, UserOptions::default()).await;
    scene.apply(NAME, json!({})).await;
    scene.ready(NAME).await;
    let value = scene.working_value(NAME).await;
    let body = json!({"success": true, "response": {}});
    let lie = fault("/agent/dev/keys/revoke", 1, answer(200, body));
    alone.world.sandbox.sandbox.add_fault(lie).unwrap();
    scene.delete_now(NAME).await;
    scene.account_where("without slots", |account| slots(account) == 0).await;
    assert!(!alone.world.sandbox.sandbox.works(&value), "the slot was freed and the key works");
    scene.end().await;
}

#[tokio::test]
async fn a_namespace_that_goes_away_takes_its_keys_with_it() {
    let alone = World::alone(&["--handover=3s"]).await;
    let scene = Scene::new(&alone.world, Way::Token, UserOptions::default()).await;
    scene.apply(NAME, json!({})).await;
    scene.ready(NAME).await;
    let value = scene.working_value(NAME).await;
    let namespaces: Api<Namespace> = Api::all(scene.client.clone());
    namespaces.delete(&scene.name, &DeleteParams::default()).await.unwrap();
    let gone = |namespace: Option<&Namespace>| namespace.is_none();
    scene.until(namespaces, &scene.name, "gone", gone).await;
    scene.account_where("without slots", |account| slots(account) == 0).await;
    assert!(!alone.world.sandbox.sandbox.works(&value));
    scene.end().await;
}
