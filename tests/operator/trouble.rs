//! Bad input and bad luck: each has a reason of its own and words that name the object, the field and the way out;
//! nothing is made, nothing is lost, and when the cause is gone it goes on by itself.

use std::collections::BTreeMap;

use bags_operator::{
    api::account::SlotState,
    sandbox::{NewUser, UserOptions},
};
use k8s_openapi::api::core::v1::{ResourceQuota, Secret};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use crate::support::{
    scene::{BY_HAND, Scene, Way, all, condition, holds, says, slots, slots_in},
    world::World,
};

/// The ApiKey that has the trouble.
const NAME: &str = "web-dashboard";

/// What a person sees of a trouble.
pub(crate) struct Trouble<'a> {
    pub(crate) reason: &'a str,
    pub(crate) event: Option<&'a str>,
    pub(crate) words: &'a [&'a str],
}

impl Trouble<'_> {
    /// Waits until the ApiKey shows it; then nothing was made, one event tells of it, and a metric counts it.
    pub(crate) async fn shows(&self, scene: &Scene<'_>, name: &str) {
        let made = scene.made().len();
        let message = scene.not_ready(name, self.reason).await;
        says(&message, self.words);
        assert!(message.len() < 700, "too long to be read: {message}");
        let key = scene.keys().get(name).await.unwrap();
        let states = ["Stalled", "Reconciling"].map(|kind| holds(&key, kind, "True"));
        assert!(states[0] != states[1], "exactly one of Stalled and Reconciling: {:?}", key.status);
        if let Some(event) = self.event {
            let notes = scene.events(name, event).await;
            assert_eq!(notes.len(), 1, "{notes:?}");
            says(&notes[0], self.words);
        }
        let series = format!("bags_operator_not_ready{{kind=\"ApiKey\",reason=\"{}\"}}", self.reason);
        let count = scene.world.operator().measures(&series).await;
        assert!(count.is_some_and(|count| count > 0.0), "{series} is not counted");
        assert_eq!(scene.made().len(), made, "a key was made meanwhile");
    }
}

async fn recovers(scene: Scene<'_>) {
    scene.ready(NAME).await;
    scene.working_value(NAME).await;
    assert_eq!(scene.made().len(), 1, "one key was enough");
    scene.end().await;
}

// ---- the account and who may use it

#[tokio::test]
async fn an_account_that_does_not_exist_is_named_and_waited_for() {
    let world = World::shared().await;
    let scene = Scene::without_account(world, Way::Token, UserOptions::default()).await;
    scene.put_credentials(&scene.credentials()).await;
    scene.apply(NAME, json!({})).await;
    let words = [scene.name.as_str(), "spec.accountRef.name", "platform team"];
    let trouble = Trouble { reason: "AccountNotFound", event: Some("AccountNotFound"), words: &words };
    trouble.shows(&scene, NAME).await;
    scene.make_account(json!({})).await;
    recovers(scene).await;
}

#[tokio::test]
async fn a_namespace_that_the_account_does_not_allow_gets_nothing_until_it_is_allowed() {
    let world = World::shared().await;
    let scene = Scene::without_account(world, Way::Token, UserOptions::default()).await;
    scene.put_credentials(&scene.credentials()).await;
    scene.make_account(json!({"allowed": [{"namespaces": ["somebody-else"]}]})).await;
    scene.apply(NAME, json!({})).await;
    let words = [scene.name.as_str(), "namespace", "spec.allowed"];
    let trouble = Trouble { reason: "NamespaceNotAllowed", event: Some("NotAllowed"), words: &words };
    trouble.shows(&scene, NAME).await;
    scene.patch_account(json!({"spec": {"allowed": [{"namespaces": [scene.name]}]}})).await;
    recovers(scene).await;
}

#[tokio::test]
async fn an_environment_that_the_account_does_not_allow_is_told_with_those_it_does() {
    let world = World::shared().await;
    let scene = Scene::without_account(world, Way::Token, UserOptions::default()).await;
    scene.put_credentials(&scene.credentials()).await;
    let allowed = |environments: &[&str]| json!([{"namespaces": [scene.name], "environments": environments}]);
    scene.make_account(json!({"allowed": allowed(&["staging", "testing"])})).await;
    scene.apply(NAME, json!({})).await;
    let words = ["\"production\"", "staging, testing", "spec.allowed"];
    let trouble = Trouble { reason: "EnvironmentNotAllowed", event: Some("NotAllowed"), words: &words };
    trouble.shows(&scene, NAME).await;
    scene.patch_account(json!({"spec": {"allowed": allowed(&["production"])}})).await;
    recovers(scene).await;
}

#[tokio::test]
async fn a_namespace_gets_as_many_keys_as_it_may_have() {
    let world = World::shared().await;
    let scene = Scene::without_account(world, Way::Token, UserOptions::default()).await;
    scene.put_credentials(&scene.credentials()).await;
    scene.make_account(json!({"allowed": [{"namespaces": [scene.name], "max": 1}]})).await;
    scene.apply("first-come", json!({})).await;
    scene.ready("first-come").await;
    scene.apply(NAME, json!({})).await;
    let words = [scene.name.as_str(), "(1)", "spec.allowed[].max"];
    let trouble = Trouble { reason: "NamespaceQuotaExceeded", event: Some("QuotaExceeded"), words: &words };
    trouble.shows(&scene, NAME).await;
    let key = scene.keys().get(NAME).await.unwrap();
    assert!(holds(&key, "QuotaAvailable", "False"));
    scene.delete_now("first-come").await;
    scene.ready(NAME).await;
    scene.working_value(NAME).await;
    // Three more come, and then the namespace may have three keys: all who wait hear of it at the same time.
    let others = ["second", "third", "fourth"];
    for name in others {
        scene.apply(name, json!({})).await;
        trouble.shows(&scene, name).await;
    }
    let allowed = json!([{"namespaces": [scene.name], "max": 3}]);
    scene.patch_account(json!({"spec": {"allowed": allowed}})).await;
    scene.account_where("giving three keys", |account| slots_in(account, &SlotState::Live) == 3).await;
    assert_eq!(slots(&scene.account().await), 3, "no place is kept beyond the three");
    scene.end().await;
}

// ---- credentials

#[tokio::test]
async fn a_missing_secret_of_credentials_is_named_with_its_namespace_and_field() {
    let world = World::shared().await;
    let scene = Scene::without_account(world, Way::Token, UserOptions::default()).await;
    scene.make_account(json!({})).await;
    scene.apply(NAME, json!({})).await;
    let words = [scene.name.as_str(), world.launch.namespace.as_str(), "\"token\"", "spec.credentials"];
    let trouble = Trouble { reason: "CredentialsMissing", event: Some("CredentialsUnusable"), words: &words };
    trouble.shows(&scene, NAME).await;
    let account = scene
        .account_where("without valid credentials", |account| holds(account, "CredentialsValid", "False"))
        .await;
    let condition = condition(&account, "CredentialsValid").unwrap();
    assert_eq!(condition.reason, "CredentialsSecretMissing");
    says(&condition.message, &words);
    assert!(holds(&account, "Ready", "False"));
    scene.put_credentials(&scene.credentials()).await;
    scene.account_where("Ready", |account| holds(account, "Ready", "True")).await;
    recovers(scene).await;
}

#[tokio::test]
async fn a_missing_field_of_credentials_is_named_beside_those_that_are_there() {
    let world = World::shared().await;
    let scene = Scene::without_account(world, Way::Token, UserOptions::default()).await;
    let token = scene.user.credentials.token().to_owned();
    scene.put_credentials(&BTreeMap::from([("jwt".to_owned(), token)])).await;
    scene.make_account(json!({})).await;
    scene.apply(NAME, json!({})).await;
    let words = [scene.name.as_str(), "no field \"token\"", "it has: jwt", "spec.credentials"];
    let trouble = Trouble { reason: "CredentialsMissing", event: Some("CredentialsUnusable"), words: &words };
    trouble.shows(&scene, NAME).await;
    let token = json!({"secretName": scene.name, "field": "jwt"});
    scene.patch_account(json!({"spec": {"credentials": {"agentToken": token}}})).await;
    recovers(scene).await;
}

#[tokio::test]
async fn a_wallet_that_is_none_is_told_without_its_content() {
    let world = World::shared().await;
    let scene = Scene::without_account(world, Way::Wallet, UserOptions::default()).await;
    let content = "[1,2,3,\"not a wallet at all\"]";
    scene.put_credentials(&BTreeMap::from([("wallet.json".to_owned(), content.to_owned())])).await;
    scene.make_account(json!({})).await;
    scene.apply(NAME, json!({})).await;
    let words = [scene.name.as_str(), "\"wallet.json\"", world.launch.namespace.as_str()];
    let trouble =
        Trouble { reason: "CredentialsUnreadable", event: Some("CredentialsUnusable"), words: &words };
    trouble.shows(&scene, NAME).await;
    let message = scene.not_ready(NAME, "CredentialsUnreadable").await;
    assert!(!message.contains("not a wallet"), "{message}");
    scene.put_credentials(&scene.credentials()).await;
    recovers(scene).await;
}

#[tokio::test]
async fn a_token_that_bags_refuses_is_replaced_in_its_secret_and_nothing_else_is_needed() {
    let world = World::shared().await;
    let scene = Scene::without_account(world, Way::Token, UserOptions::default()).await;
    let mut token = scene.user.credentials.token().to_owned();
    token.replace_range(token.len() - 6.., "AAAAAA");
    scene.put_credentials(&BTreeMap::from([("token".to_owned(), token)])).await;
    scene.make_account(json!({})).await;
    scene.apply(NAME, json!({})).await;
    let words = ["agent token", "spec.credentials"];
    let trouble = Trouble { reason: "CredentialsRefused", event: Some("CredentialsRefused"), words: &words };
    trouble.shows(&scene, NAME).await;
    let refused = scene
        .account_where("without valid credentials", |account| holds(account, "CredentialsValid", "False"))
        .await;
    assert_eq!(condition(&refused, "CredentialsValid").unwrap().reason, "TokenRefused");
    scene.put_credentials(&scene.credentials()).await;
    scene.account_where("Ready", |account| holds(account, "Ready", "True")).await;
    recovers(scene).await;
}

#[tokio::test]
async fn credentials_of_another_user_publish_nothing_and_make_one_key_only() {
    let world = World::shared().await;
    let scene = Scene::without_account(world, Way::Token, UserOptions::default()).await;
    let stranger: NewUser = world.sandbox.sandbox.add_user(UserOptions::default());
    let token = stranger.credentials.token().to_owned();
    scene.put_credentials(&BTreeMap::from([("token".to_owned(), token)])).await;
    scene.make_account(json!({"expectedUser": scene.user.id})).await;
    scene.apply(NAME, json!({})).await;
    let words = [scene.name.as_str(), "another user", "spec.expectedUser"];
    let trouble = Trouble { reason: "WrongUser", event: Some("WrongUser"), words: &words };
    trouble.shows(&scene, NAME).await;
    assert!(scene.secrets().get_opt(NAME).await.unwrap().is_none(), "a stranger's key was published");
    let theirs = world.sandbox.keys_of(&stranger.id);
    assert_eq!(theirs.len(), 1, "one key tells; a second one must not be made: {theirs:?}");
    let account =
        scene.account_where("saying which key", |account| holds(account, "KeyUnresolved", "True")).await;
    says(&condition(&account, "KeyUnresolved").unwrap().message, &[&theirs[0].name, "keys.bags.fm/resolved"]);
    assert!(holds(&account, "CredentialsValid", "False"));
    scene.put_credentials(&scene.credentials()).await;
    scene.ready(NAME).await;
    scene.working_value(NAME).await;
    // The stranger's key is a person's to remove; that is said, and kept in a slot until it is done.
    let attempt = theirs[0].name.rsplit('-').next().unwrap().to_owned();
    world.sandbox.sandbox.revoke_key(&theirs[0].id).unwrap();
    scene.patch_account(json!({"metadata": {"annotations": {"keys.bags.fm/resolved": attempt}}})).await;
    scene.account_where("with one slot", |account| slots(account) == 1).await;
    scene.end().await;
}

#[tokio::test]
async fn credentials_of_another_user_whose_keys_are_listed_make_none() {
    let world = World::shared().await;
    let scene = Scene::without_account(world, Way::Token, UserOptions::default()).await;
    let stranger: NewUser = world.sandbox.sandbox.add_user(UserOptions::default());
    world.sandbox.sandbox.make_key(&stranger.id, BY_HAND).unwrap();
    let token = stranger.credentials.token().to_owned();
    scene.put_credentials(&BTreeMap::from([("token".to_owned(), token)])).await;
    scene.make_account(json!({"expectedUser": scene.user.id})).await;
    scene.apply(NAME, json!({})).await;
    let words = [scene.name.as_str(), "another user", "spec.expectedUser"];
    let trouble = Trouble { reason: "WrongUser", event: Some("WrongUser"), words: &words };
    trouble.shows(&scene, NAME).await;
    let keys = world.sandbox.keys_of(&stranger.id);
    assert_eq!(keys.len(), 1, "a key was made in a stranger's account: {keys:?}");
    let told = scene.account_where("told", |account| holds(account, "CredentialsValid", "False")).await;
    assert_eq!(condition(&told, "CredentialsValid").unwrap().reason, "WrongUser");
    scene.put_credentials(&scene.credentials()).await;
    recovers(scene).await;
}

#[tokio::test]
async fn a_second_factor_that_is_not_configured_is_asked_for_by_field() {
    let world = World::shared().await;
    let options = UserOptions { totp: true, ..UserOptions::default() };
    let scene = Scene::without_account(world, Way::Wallet, options).await;
    scene.put_credentials(&scene.credentials()).await;
    let wallet = |totp: Value| json!({"wallet": {"secretName": scene.name, "totpField": totp}});
    scene.make_account(json!({"credentials": wallet(Value::Null)})).await;
    scene.apply(NAME, json!({})).await;
    let words = ["second factor", "spec.credentials.wallet.totpField"];
    let trouble = Trouble { reason: "CredentialsRefused", event: Some("CredentialsRefused"), words: &words };
    trouble.shows(&scene, NAME).await;
    scene.patch_account(json!({"spec": {"credentials": wallet(json!("totp"))}})).await;
    recovers(scene).await;
}

#[tokio::test]
async fn a_wrong_second_factor_is_replaced_in_its_secret_and_nothing_else_is_needed() {
    let world = World::shared().await;
    let options = UserOptions { totp: true, ..UserOptions::default() };
    let scene = Scene::without_account(world, Way::Wallet, options).await;
    let mut credentials = scene.credentials();
    credentials.insert("totp".to_owned(), "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP".to_owned());
    scene.put_credentials(&credentials).await;
    scene.make_account(json!({})).await;
    scene.apply(NAME, json!({})).await;
    let words = ["second factor", "TOTP"];
    let trouble = Trouble { reason: "CredentialsRefused", event: Some("CredentialsRefused"), words: &words };
    trouble.shows(&scene, NAME).await;
    scene.put_credentials(&scene.credentials()).await;
    recovers(scene).await;
}

// ---- the service says no

#[tokio::test]
async fn keys_made_by_hand_are_counted_where_the_account_can_list_them() {
    let world = World::shared().await;
    let scene =
        Scene::without_account(world, Way::Token, UserOptions { limit: 2, ..UserOptions::default() }).await;
    let by_hand = by_hand(&scene, 2);
    scene.put_credentials(&scene.credentials()).await;
    scene.make_account(json!({"limit": 2})).await;
    scene.apply(NAME, json!({})).await;
    let words = [scene.name.as_str(), "2 made elsewhere", "delete an ApiKey", "platform team"];
    let trouble = Trouble { reason: "QuotaExceeded", event: Some("QuotaExceeded"), words: &words };
    trouble.shows(&scene, NAME).await;
    let key = scene.keys().get(NAME).await.unwrap();
    assert!(holds(&key, "QuotaAvailable", "False"));
    assert_eq!(scene.requests_to("/keys/create"), 0, "Bags was asked although the account is full");
    let capacity = scene.account().await.status.unwrap().capacity.unwrap();
    assert_eq!((capacity.unmanaged, capacity.available), (2, 0));
    world.sandbox.sandbox.revoke_key(&by_hand[0]).unwrap();
    // A list is looked at again at the resync at the latest; an edit of the account asks for none.
    scene.patch_account(json!({"spec": {"limit": 3}})).await;
    scene.ready(NAME).await;
    scene.working_value(NAME).await;
    scene.end().await;
}

#[tokio::test]
async fn a_limit_that_bags_alone_knows_of_is_believed_and_tried_again() {
    let world = World::shared().await;
    let options = UserOptions { limit: 2, ..UserOptions::default() };
    let scene = Scene::without_account(world, Way::Wallet, options).await;
    let by_hand = by_hand(&scene, 2);
    scene.put_credentials(&scene.credentials()).await;
    scene.make_account(json!({"limit": 2})).await;
    scene.apply(NAME, json!({})).await;
    let words = [scene.name.as_str(), "maximum", "spec.unmanagedKeys"];
    let trouble = Trouble { reason: "LimitReached", event: Some("LimitReached"), words: &words };
    trouble.shows(&scene, NAME).await;
    let key = scene.keys().get(NAME).await.unwrap();
    assert!(holds(&key, "QuotaAvailable", "False"));
    world.sandbox.sandbox.revoke_key(&by_hand[0]).unwrap();
    scene.ready(NAME).await;
    scene.working_value(NAME).await;
    scene.end().await;
}

fn by_hand(scene: &Scene<'_>, count: usize) -> Vec<String> {
    let make = |n| {
        let made = scene.world.sandbox.sandbox.make_key(&scene.user.id, &format!("{BY_HAND}-{n}"));
        made.unwrap().id
    };
    (0..count).map(make).collect()
}

#[tokio::test]
async fn a_user_who_is_suspended_at_bags_gets_nothing_until_the_suspension_ends() {
    let world = World::shared().await;
    let options = UserOptions { suspended: true, ..UserOptions::default() };
    let scene = Scene::new(world, Way::Token, options).await;
    scene.apply(NAME, json!({})).await;
    let trouble = Trouble { reason: "BagsRefused", event: Some("BagsRefused"), words: &["does not allow"] };
    trouble.shows(&scene, NAME).await;
    world.sandbox.sandbox.change_user(&scene.user.id, |options| options.suspended = false).unwrap();
    recovers(scene).await;
}

#[tokio::test]
async fn a_key_whose_id_bags_does_not_tell_is_found_in_the_list() {
    let world = World::shared().await;
    let options = UserOptions { key_id_in_answer: false, ..UserOptions::default() };
    let scene = Scene::new(world, Way::Token, options).await;
    scene.apply(NAME, json!({})).await;
    scene.ready(NAME).await;
    let made = scene.made();
    assert_eq!(made.len(), 1, "{made:?}");
    scene.delete_now(NAME).await;
    scene.account_where("without slots", |account| slots(account) == 0).await;
    assert!(scene.working().is_empty(), "the key was revoked by the id that the list told");
    scene.end().await;
}

#[tokio::test]
async fn a_key_whose_id_nobody_can_tell_works_and_is_said_to_be_a_persons_to_revoke() {
    let world = World::shared().await;
    let options = UserOptions { key_id_in_answer: false, ..UserOptions::default() };
    let scene = Scene::new(world, Way::Wallet, options).await;
    scene.apply(NAME, json!({})).await;
    let key = scene.ready(NAME).await;
    let key_name = key.status.unwrap().current.unwrap().key_name;
    let notes = scene.events(&scene.name, "KeyIdUnknown").await;
    says(&notes[0], &[&key_name, "only a person can revoke it"]);
    recovers(scene).await;
}

// ---- the tenant's namespace

#[tokio::test]
async fn a_secret_of_somebody_else_is_left_alone_and_no_key_is_made_before_it_goes() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    let theirs = serde_json::from_value::<Secret>(json!({
        "metadata": {"name": NAME}, "stringData": {"password": "theirs-alone"},
    }));
    let theirs = scene.secrets().create(&PostParams::default(), &theirs.unwrap()).await.unwrap();
    scene.apply(NAME, json!({})).await;
    let words = [NAME, "delete it", "spec.secret.name"];
    let trouble = Trouble { reason: "SecretConflict", event: Some("SecretConflict"), words: &words };
    trouble.shows(&scene, NAME).await;
    assert!(scene.made().is_empty(), "a key was made that has nowhere to go");
    let now = scene.secrets().get(NAME).await.unwrap();
    assert_eq!(now, theirs, "somebody else's Secret was touched");
    scene.delete_now(NAME).await;
    let now = scene.secrets().get(NAME).await.unwrap();
    assert_eq!(now, theirs, "somebody else's Secret went with the ApiKey that wanted its name");
    scene.apply(NAME, json!({})).await;
    scene.not_ready(NAME, "SecretConflict").await;
    scene.secrets().delete(NAME, &DeleteParams::default()).await.unwrap();
    recovers(scene).await;
}

#[tokio::test]
async fn of_two_apikeys_with_one_secret_name_the_first_has_it() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    let fields = |application: &str| json!({"application": application, "secret": {"name": "shared"}});
    scene.apply("first-come", fields("orders")).await;
    scene.ready("first-come").await;
    scene.apply_after("first-come", NAME, fields("returns")).await;
    let words = ["\"first-come\"", "\"shared\"", "spec.secret.name"];
    let trouble = Trouble { reason: "SecretConflict", event: Some("SecretConflict"), words: &words };
    trouble.shows(&scene, NAME).await;
    assert_eq!(scene.made().len(), 1, "a key was made that has nowhere to go");
    scene.delete_now(NAME).await;
    scene.working_value("shared").await;
    scene.apply_after("first-come", NAME, fields("returns")).await;
    scene.not_ready(NAME, "SecretConflict").await;
    scene.delete_now("first-come").await;
    scene.ready(NAME).await;
    scene.working_value("shared").await;
    scene.end().await;
}

#[tokio::test]
async fn a_use_has_one_key_and_the_next_apikey_waits_for_it() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    scene.apply("first-come", json!({"application": "orders"})).await;
    scene.ready("first-come").await;
    scene.apply(NAME, json!({"application": "orders"})).await;
    let words = ["/first-come", "\"orders\"", "\"production\""];
    let trouble = Trouble { reason: "DuplicateUse", event: Some("DuplicateUse"), words: &words };
    trouble.shows(&scene, NAME).await;
    assert_eq!(slots(&scene.account().await), 1, "it waits without a slot");
    scene.delete_now("first-come").await;
    scene.ready(NAME).await;
    scene.working_value(NAME).await;
    scene.end().await;
}

#[tokio::test]
async fn a_namespace_without_room_for_a_secret_is_found_out_before_a_key_is_made() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    let quotas: Api<ResourceQuota> = Api::namespaced(scene.client.clone(), &scene.name);
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"secrets": "0"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    let counted = |quota: Option<&ResourceQuota>| {
        quota.and_then(|quota| quota.status.as_ref()).is_some_and(|status| status.used.is_some())
    };
    scene.until(quotas.clone(), "none", "counted", counted).await;
    scene.apply(NAME, json!({})).await;
    let words = [NAME, scene.name.as_str(), "exceeded quota"];
    let trouble = Trouble { reason: "SecretRefused", event: Some("SecretRefused"), words: &words };
    trouble.shows(&scene, NAME).await;
    assert!(scene.made().is_empty(), "a key was made that has nowhere to go");
    quotas.delete("none", &DeleteParams::default()).await.unwrap();
    recovers(scene).await;
}

#[tokio::test]
async fn nothing_is_made_while_an_apikey_is_suspended_and_a_published_key_stays() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    scene.apply(NAME, json!({"suspend": true})).await;
    let trouble = Trouble { reason: "Suspended", event: None, words: &["spec.suspend"] };
    trouble.shows(&scene, NAME).await;
    assert!(scene.made().is_empty());
    scene.patch(NAME, json!({"spec": {"suspend": false}})).await;
    scene.ready(NAME).await;
    let suspended = scene.patch(NAME, json!({"spec": {"suspend": true}})).await;
    let seen = |key: &bags_operator::api::ApiKey| {
        key.status.as_ref().and_then(|status| status.observed_generation) == suspended.metadata.generation
    };
    let key = scene.key(NAME, "seen as suspended", seen).await;
    assert!(holds(&key, "Ready", "True"), "its key works, whatever is suspended");
    recovers(scene).await;
}

#[tokio::test]
async fn an_attempt_that_failed_is_counted_and_its_place_is_kept() {
    let world = World::shared().await;
    let options = UserOptions { totp: true, ..UserOptions::default() };
    let scene = Scene::without_account(world, Way::Wallet, options).await;
    scene.put_credentials(&scene.credentials()).await;
    let wallet = json!({"wallet": {"secretName": scene.name}});
    scene.make_account(json!({"credentials": wallet})).await;
    all(["web-dashboard", "mobile-backend"].map(|name| scene.apply(name, json!({})))).await;
    let failed = |account: &bags_operator::api::BagsAccount| {
        let status = account.status.as_ref();
        let failures = status.map(|status| status.slots.iter().filter_map(|slot| slot.failures.as_ref()));
        failures.is_some_and(|mut failures| failures.any(|failures| failures.count >= 2))
    };
    let account = scene.account_where("tried twice", failed).await;
    assert_eq!(slots(&account), 2, "places are kept");
    assert!(slots_in(&account, &SlotState::Reserved) >= 1);
    assert!(scene.made().is_empty());
    assert!(scene.requests_to("/auth/callback") < 60, "it is asked again with pauses");
    scene.end().await;
}
