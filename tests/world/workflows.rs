//! The workflows whose every request is made to fail. `docs/testing.md` says how to add one.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{
    cluster::{Consumer, Kind, Reads},
    covering, crowded, holds, outages, rotations,
    scene::{OWN_USER, Scene, Ways},
    schedules,
    workflow::Workflow,
};

pub(crate) const WEB_IS_READY: &str = "Ready=True/Issued";
pub(crate) const NOTHING_IS_LEFT: &str = "keys at Bags: 0";

/// All of them; first those that have found the most.
pub(crate) fn all() -> Vec<Workflow> {
    let mut all = deletion();
    all.extend(trouble());
    all.extend(rotations::rotations());
    all.extend(rotations::in_the_middle());
    all.extend(holds::rotations());
    all.extend(schedules::by_schedule());
    all.extend(schedules::by_another_clock());
    all.extend(crowded::rotations());
    all.extend(outages::outages());
    all.extend(covering::rotations());
    all.extend(admission());
    all.extend(creation());
    all.extend(consumers());
    all
}

/// From nothing to a key, for every kind of account.
fn creation() -> Vec<Workflow> {
    vec![
        Workflow::new("creation by token", Ways::Token).key("web").ends(WEB_IS_READY),
        Workflow::new("creation by wallet and token", Ways::Both).key("web").ends(WEB_IS_READY),
        Workflow::new("creation by wallet", Ways::Wallet).key("web").ends(WEB_IS_READY),
        Workflow::new("creation by wallet and second factor", Ways::Wallet)
            .user(|user| (user.totp, user.totp_single_use) = (true, true))
            .key("web")
            .ends(WEB_IS_READY),
        Workflow::new("creation without ids", Ways::Both)
            .user(|user| user.key_id_in_answer = false)
            .key("web")
            .ends(WEB_IS_READY),
        Workflow::new("creation by token that cannot revoke", Ways::Token)
            .user(|user| user.capabilities.revoke = false)
            .key("web")
            .ends(WEB_IS_READY),
        Workflow::new("creation by token that cannot list", Ways::Token)
            .user(|user| user.capabilities.list = false)
            .key("web")
            .ends(WEB_IS_READY),
        Workflow::new("creation where the list lags", Ways::Token)
            .user(|user| user.list_lag = Duration::from_secs(20))
            .key("web")
            .ends(WEB_IS_READY),
        Workflow::new("another creation where the list lags by minutes", Ways::Token)
            .user(|user| user.list_lag = Duration::from_secs(215))
            .key("api")
            .meanwhile("nothing", |_| {})
            .then(Duration::from_mins(20), "apply another ApiKey", |scene| scene.apply("web"))
            .ends("keys at Bags: 2"),
        Workflow::new(
            "another creation where the list lags by minutes, and a leader comes whose clock is ahead",
            Ways::Token,
        )
        .user(|user| user.list_lag = Duration::from_secs(215))
        .with_successors_whose_clock_is_off_by(SignedDuration::from_mins(4))
        .key("api")
        .meanwhile("nothing", |_| {})
        .then(Duration::from_mins(20), "apply another ApiKey", |scene| scene.apply("web"))
        .ends("keys at Bags: 2"),
        Workflow::new("creation on an account that is full elsewhere", Ways::Token)
            .elsewhere(10)
            .key("web")
            .meanwhile("revoke a key on the page", Scene::revoke_key_elsewhere)
            .then(Duration::from_secs(1), "revoke another one", Scene::revoke_key_elsewhere)
            .ends(WEB_IS_READY),
        Workflow::new("creation on an account that is full, and cannot say so", Ways::Wallet)
            .elsewhere(10)
            .key("web")
            .meanwhile("revoke a key on the page", Scene::revoke_key_elsewhere)
            .then(Duration::from_secs(1), "revoke another one", Scene::revoke_key_elsewhere)
            .ends(WEB_IS_READY),
        Workflow::new("two ApiKeys at once", Ways::Token).key("api").key("web").ends("keys at Bags: 2"),
        Workflow::new("two ApiKeys for one place", Ways::Token)
            .account(json!({"limit": 2}))
            .key("api")
            .key("web")
            .ends("keys at Bags: 1"),
    ]
}

/// An account for whoever's namespace has a label.
fn of_the_team() -> Value {
    json!({"allowed": [{"selector": {"matchLabels": {"team": "shop"}}}]})
}

/// ApiKeys that are put before the webhook.
fn admission() -> Vec<Workflow> {
    const CROWD: &[&str] = &["alpha", "beta"];
    let crowd = |scene: &Scene| CROWD.iter().for_each(|name| scene.submit(name));
    vec![
        Workflow::new("admitted", Ways::Token)
            .with_a_follower()
            .meanwhile("apply an ApiKey", |scene| scene.submit("web"))
            .ends(WEB_IS_READY),
        Workflow::new("two come for the last place", Ways::Token)
            .with_a_follower()
            .account(json!({"limit": 2}))
            .alike(CROWD)
            .meanwhile("apply two ApiKeys", crowd)
            .ends("keys at Bags: 1"),
        Workflow::new("two come for the last place, to a process whose clock is behind as well", Ways::Token)
            .with_a_follower_whose_clock_is_off_by(SignedDuration::from_mins(-3))
            .account(json!({"limit": 2}))
            .alike(CROWD)
            .meanwhile("apply two ApiKeys", crowd)
            .ends("keys at Bags: 1"),
        Workflow::new("two come for the last place, to a process whose clock is ahead as well", Ways::Token)
            .with_a_follower_whose_clock_is_off_by(SignedDuration::from_mins(3))
            .account(json!({"limit": 2}))
            .alike(CROWD)
            .meanwhile("apply two ApiKeys", crowd)
            .ends("keys at Bags: 1"),
        Workflow::new("admitted by a label of the namespace, which is taken away for a while", Ways::Token)
            .with_a_follower()
            .account(of_the_team())
            .meanwhile("apply an ApiKey", |scene| scene.submit("web"))
            .then(Duration::from_secs(1), "take the label away", |scene| scene.label_namespace("team", None))
            .then(Duration::from_mins(20), "give it back", |scene| {
                scene.label_namespace("team", Some("shop"))
            })
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 1"),
        Workflow::new("the label of the namespace is taken away in the middle of a creation", Ways::Token)
            .account(of_the_team())
            .key("web")
            .meanwhile("take the label away", |scene| scene.label_namespace("team", None))
            .then(Duration::from_mins(20), "give it back", |scene| {
                scene.label_namespace("team", Some("shop"))
            })
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 1"),
        Workflow::new("one is tried out, and another comes", Ways::Token)
            .account(json!({"limit": 2}))
            .meanwhile("try an ApiKey out, and apply another one", |scene| {
                scene.try_out("api");
                scene.submit("web");
            })
            .ends(WEB_IS_READY),
        Workflow::new("who finds no place waits", Ways::Token)
            .with_a_follower()
            .account(json!({"limit": 2, "admission": "Queue"}))
            .alike(CROWD)
            .meanwhile("apply two ApiKeys", crowd)
            .then(Duration::from_mins(5), "delete one that has a key", Scene::delete_a_ready_one)
            .once(Scene::one_is_ready)
            .ends("keys at Bags: 1"),
        Workflow::new("one waits for the name of its Secret, and another one comes", Ways::Token)
            .account(json!({"limit": 3}))
            .key("api")
            .meanwhile("apply one for its Secret, and another one", |scene| {
                scene.apply_for_secret("billing", "api");
                scene.apply("web");
            })
            .once(|scene| scene.is_ready("api"))
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 2"),
        Workflow::new("two come to a namespace with one place left", Ways::Token)
            .with_a_follower()
            .account(json!({"allowed": [{"namespaces": ["shop"], "max": 1}]}))
            .alike(CROWD)
            .meanwhile("apply two ApiKeys", crowd)
            .ends("keys at Bags: 1"),
        Workflow::new("who comes to a namespace that has its share waits", Ways::Token)
            .with_a_follower()
            .account(json!({"allowed": [{"namespaces": ["shop"], "max": 1}], "admission": "Queue"}))
            .alike(CROWD)
            .meanwhile("apply two ApiKeys", crowd)
            .then(Duration::from_mins(5), "delete one that has a key", Scene::delete_a_ready_one)
            .once(Scene::one_is_ready)
            .ends("keys at Bags: 1"),
        Workflow::new("two come for one use", Ways::Token)
            .with_a_follower()
            .alike(CROWD)
            .meanwhile("apply two ApiKeys for the same application", |scene| {
                CROWD.iter().for_each(|name| scene.submit_for(name, "web"));
            })
            .ends("keys at Bags: 1"),
        // Of the second one the process is asked that let the first one in.
        Workflow::new("two come for one use, the second one when the first has its key", Ways::Token)
            .with_a_follower()
            .meanwhile("apply an ApiKey", |scene| scene.submit("api"))
            .then(Duration::ZERO, "try one out, and apply another one for the same application", |scene| {
                scene.try_out("orders");
                scene.submit_for("web", "api");
            })
            .once(|scene| scene.is_ready("api"))
            .ends("keys at Bags: 1"),
        Workflow::new("deleted and let in again", Ways::Token)
            .account(json!({"limit": 2}))
            .meanwhile("apply an ApiKey", |scene| scene.submit("web"))
            .then(Duration::from_mins(1), "delete it and apply it again", |scene| {
                scene.delete_now("web");
                scene.submit("web");
            })
            .once(|scene| scene.is_ready("web"))
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 1"),
        Workflow::new("renamed on a full account", Ways::Token)
            .account(json!({"limit": 2}))
            .meanwhile("apply an ApiKey", |scene| scene.submit("api"))
            .then(Duration::from_mins(1), "apply another one for the same application", |scene| {
                scene.submit_for("web", "api");
            })
            .once(|scene| scene.is_ready("api"))
            .then(Duration::from_mins(1), "delete the first one", |scene| scene.delete_now("api"))
            .once(|scene| scene.is_there("web"))
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 1"),
    ]
}

/// An ApiKey that goes, at any moment.
fn deletion() -> Vec<Workflow> {
    vec![
        Workflow::new("deleted in the middle", Ways::Both)
            .key("web")
            .meanwhile("delete the ApiKey", |scene| scene.delete_now("web"))
            .ends(NOTHING_IS_LEFT),
        Workflow::new("deleted in the middle, wallet only", Ways::Wallet)
            .key("web")
            .meanwhile("delete the ApiKey", |scene| scene.delete_now("web"))
            .ends(NOTHING_IS_LEFT),
        Workflow::new("deleted where a person revokes, and Bags refuses every key for minutes", Ways::Wallet)
            .key("api")
            .key("web")
            .meanwhile("delete the ApiKey", |scene| scene.delete_now("web"))
            .once(|scene| scene.is_ready("api") && scene.is_ready("web"))
            .then(Duration::from_secs(45), "Bags knows no key", |scene| scene.refuse_keys(true))
            .then(Duration::from_mins(3), "Bags knows them again", |scene| scene.refuse_keys(false))
            .ends("keys at Bags: 1"),
        Workflow::new("deleted and applied again", Ways::Token)
            .key("web")
            .meanwhile("delete the ApiKey", |scene| scene.delete_now("web"))
            .then(Duration::from_mins(1), "apply it again", |scene| scene.apply("web"))
            .once(|scene| scene.is_gone("web"))
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 1"),
        Workflow::new("deleted where somebody else's Secret has its name", Ways::Token)
            .meanwhile("write a key into a Secret, and apply an ApiKey of its name", |scene| {
                scene.write_key_by_hand("web");
                scene.apply("web");
            })
            .then(Duration::from_mins(5), "delete the ApiKey", |scene| scene.delete("web"))
            .ends(NOTHING_IS_LEFT)
            .ends("Secret \"web\": BAGS_API_KEY"),
        Workflow::new("finalizer stripped in the middle", Ways::Token)
            .key("web")
            .meanwhile("take the finalizer off and delete the ApiKey", |scene| scene.strip_and_delete("web"))
            .once(|scene| scene.is_ready("web"))
            .then(Duration::from_mins(40), "take its Secret away, and have its key revoked", |scene| {
                scene.delete_consumer_secret("web");
                scene.let_all_go();
            })
            .ends(NOTHING_IS_LEFT),
        Workflow::new("replaced by its manifest, and deleted later", Ways::Token)
            .elsewhere(2)
            .key("web")
            .meanwhile("replace the ApiKey by its manifest", |scene| scene.replace_by_manifest("web"))
            .once(|scene| scene.is_ready("web"))
            .then(Duration::from_mins(60), "delete the ApiKey", |scene| scene.delete("web"))
            .ends(NOTHING_IS_LEFT),
        Workflow::new(
            "finalizer stripped, and its user suspended at Bags while its key is let go",
            Ways::Token,
        )
        .key("web")
        .meanwhile("take the finalizer off and delete the ApiKey", |scene| scene.strip_and_delete("web"))
        .once(|scene| scene.is_ready("web"))
        .then(Duration::from_mins(40), "suspend the user at Bags, and have the key revoked", |scene| {
            scene.suspend_user(true);
            scene.delete_consumer_secret("web");
            scene.let_all_go();
        })
        .then(Duration::from_mins(30), "let the user go on", |scene| scene.suspend_user(false))
        .ends(NOTHING_IS_LEFT),
        Workflow::new("namespace terminating", Ways::Token)
            .key("web")
            .meanwhile("delete the namespace", Scene::delete_namespace)
            .ends(NOTHING_IS_LEFT),
        Workflow::new("deleted where no right is left, and given back", Ways::Token)
            .key("web")
            .meanwhile("take the rights in the namespace away, and delete the ApiKey", |scene| {
                scene.withhold_rights(true);
                scene.delete_now("web");
            })
            .then(Duration::from_mins(30), "give them back", |scene| scene.withhold_rights(false))
            .ends(NOTHING_IS_LEFT),
        Workflow::new("applied and deleted where no right ever was", Ways::Token)
            .long()
            .meanwhile("apply one where no right is", |scene| {
                scene.withhold_rights(true);
                scene.apply("web");
            })
            .then(Duration::from_mins(5), "delete it", |scene| scene.delete("web"))
            .ends(NOTHING_IS_LEFT),
        Workflow::new("namespace terminating while pods read the Secret", Ways::Token)
            .key("web")
            .consumed_by(Kind::Deployment, Reads::Env)
            .meanwhile("delete the namespace", Scene::delete_namespace)
            .ends(NOTHING_IS_LEFT),
        Workflow::new("account deleted in the middle, and its ApiKey later", Ways::Token)
            .key("web")
            .meanwhile("delete the account", Scene::delete_account)
            .then(Duration::from_mins(20), "delete the ApiKey", |scene| scene.delete_now("web"))
            .ends(NOTHING_IS_LEFT),
        Workflow::new("finalizer stripped, and the namespace goes", Ways::Token)
            .long()
            .key("web")
            .meanwhile("take the finalizer off and delete the ApiKey", |scene| scene.strip_and_delete("web"))
            .once(|scene| scene.is_ready("web"))
            .then(Duration::from_mins(10), "delete the namespace", Scene::delete_namespace)
            .ends(NOTHING_IS_LEFT),
        Workflow::new("deleted in the middle, and revoked by people only", Ways::Token)
            .account(json!({"revocation": {"mode": "Person"}}))
            .key("web")
            .meanwhile("delete the ApiKey", |scene| scene.delete_now("web"))
            .ends(NOTHING_IS_LEFT),
        Workflow::new("deleted where one id is told of two keys", Ways::Token)
            .key("api")
            .key("web")
            .meanwhile("tell one id of both keys", |scene| scene.give_one_id_to_both("api", "web"))
            .once(|scene| scene.is_ready("api") && scene.is_ready("web"))
            .then(Duration::from_mins(1), "delete one of them", |scene| scene.delete_now("web"))
            .ends("slot of api for production/api: Live")
            .ends("keys at Bags: 1"),
        Workflow::new("rights withheld in the middle", Ways::Token)
            .key("web")
            .meanwhile("take the rights in the namespace away", |scene| scene.withhold_rights(true))
            .then(Duration::from_mins(20), "give them back", |scene| scene.withhold_rights(false))
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 1"),
    ]
}

/// People and versions that come in between.
fn trouble() -> Vec<Workflow> {
    vec![
        Workflow::new("credentials written anew in the middle", Ways::Both)
            .key("web")
            .meanwhile("write the credentials anew", Scene::rewrite_credentials)
            .ends(WEB_IS_READY),
        Workflow::new("token renewed in the middle", Ways::Token)
            .key("web")
            .meanwhile("renew the token, and put it there", Scene::renew_token)
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 1"),
        Workflow::new("token renewed in the middle, and put there later", Ways::Both)
            .key("web")
            .meanwhile("renew the token at Bags", Scene::renew_token_at_bags)
            .then(Duration::from_mins(20), "put it there", Scene::put_renewed_token)
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 1"),
        Workflow::new("credentials spoilt in the middle", Ways::Both)
            .key("web")
            .meanwhile("spoil the credentials", Scene::spoil_credentials)
            .then(Duration::from_mins(20), "mend them", Scene::mend_credentials)
            .ends(WEB_IS_READY),
        Workflow::new("credentials of another user in the middle", Ways::Both)
            .account(json!({"expectedUser": OWN_USER}))
            .key("web")
            .meanwhile("put another user's credentials there", Scene::confuse_credentials)
            .then(Duration::from_mins(20), "put the right ones back", Scene::mend_credentials)
            .ends(WEB_IS_READY),
        Workflow::new("moved to another user of Bags", Ways::Token)
            .key("web")
            .meanwhile(
                "put another user's credentials there, and name that user",
                Scene::move_to_another_user,
            )
            .once(|scene| scene.is_ready("web"))
            .then(Duration::from_mins(5), "ask for another ApiKey", |scene| scene.apply("api"))
            .then(Duration::from_mins(20), "look on the former user's page for what was made late", |scene| {
                scene.revoke_what_has_no_slot();
            })
            .ends("slot of api for production/api: Live"),
        Workflow::new("credentials of another user are put right before their key is verified", Ways::Both)
            .account(json!({"expectedUser": OWN_USER}))
            .key("web")
            .meanwhile("put another user's credentials there", Scene::confuse_credentials)
            .then(Duration::ZERO, "put the right ones back", Scene::mend_credentials)
            .once(Scene::has_a_saved_value)
            .ends(WEB_IS_READY),
        Workflow::new("consumer Secret deleted in the middle", Ways::Token)
            .key("web")
            .meanwhile("delete the Secret", |scene| scene.delete_consumer_secret("web"))
            .once(|scene| scene.has_consumer_secret("web"))
            .ends(WEB_IS_READY),
        Workflow::new("consumer Secret edited in the middle", Ways::Token)
            .key("web")
            .meanwhile("edit the Secret", |scene| scene.edit_consumer_secret("web"))
            .once(|scene| scene.has_consumer_secret("web"))
            .ends(WEB_IS_READY),
        Workflow::new("suspended in the middle", Ways::Token)
            .key("web")
            .meanwhile("suspend the ApiKey", |scene| scene.suspend("web", true))
            .then(Duration::from_mins(20), "let it go on", |scene| scene.suspend("web", false))
            .ends(WEB_IS_READY),
        Workflow::new(
            "one is suspended before it has a place, and another one comes for the last",
            Ways::Token,
        )
        .account(json!({"limit": 2}))
        .meanwhile("apply an ApiKey, and suspend it", |scene| {
            scene.apply("api");
            scene.suspend("api", true);
        })
        .then(Duration::from_mins(1), "apply another one", |scene| scene.apply("web"))
        .ends("slot of web for production/web: Live")
        .ends("keys at Bags: 1"),
        Workflow::new("Bags knows no new key for a while", Ways::Token)
            .key("web")
            .meanwhile("Bags knows no key", |scene| scene.refuse_keys(true))
            .then(Duration::from_mins(5), "Bags knows them again", |scene| scene.refuse_keys(false))
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 1"),
        Workflow::new("forbidden in the middle", Ways::Token)
            .key("web")
            .meanwhile("allow nobody", |scene| scene.edit_account(|spec| spec["allowed"] = json!([])))
            .then(Duration::from_mins(30), "allow it again", |scene| {
                scene.edit_account(|spec| spec["allowed"] = json!([{"namespaces": ["shop"]}]));
            })
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 1"),
        Workflow::new("the ledger is another installation's for a while, and is taken over", Ways::Token)
            .key("web")
            .meanwhile("another installation has the ledger", Scene::hand_ledger_to_others)
            .then(Duration::from_mins(30), "take it over", Scene::take_ledger_over)
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 1"),
        Workflow::new("limit lowered in the middle", Ways::Token)
            .key("api")
            .key("web")
            .meanwhile("lower the limit", |scene| scene.edit_account(|spec| spec["limit"] = json!(1)))
            .then(Duration::from_mins(30), "raise it", |scene| {
                scene.edit_account(|spec| spec["limit"] = json!(10));
            })
            .ends("keys at Bags: 2"),
        Workflow::new("user suspended at Bags in the middle", Ways::Both)
            .key("web")
            .meanwhile("Bags suspends the account's user", |scene| scene.suspend_user(true))
            .then(Duration::from_mins(20), "Bags lets the user go on", |scene| scene.suspend_user(false))
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 1"),
        Workflow::new("upgraded in the middle and back", Ways::Token)
            .key("api")
            .key("web")
            .meanwhile("a newer version writes a state of its own", Scene::newer_version_writes)
            .then(Duration::from_mins(20), "it undoes that", Scene::newer_version_undoes)
            .ends(WEB_IS_READY),
        Workflow::new("ledger lost in the middle", Ways::Token)
            .key("web")
            .meanwhile("the account's status is lost", Scene::lose_ledger)
            .which_loses_the_ledger()
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 1"),
        Workflow::new("ledger lost some minutes later", Ways::Token)
            .key("web")
            .meanwhile("they look on", |_| {})
            .then(Duration::from_secs(400), "the account's status is lost", Scene::lose_ledger)
            .which_loses_the_ledger()
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 1"),
        Workflow::new("a key is left to people, the ledger is lost, and the namespace goes", Ways::Token)
            .long()
            .key("web")
            .meanwhile("delete the ApiKey, and leave its key", |scene| {
                scene.edit_key("web", |spec| spec["deletionPolicy"] = json!("Orphan"));
                scene.delete("web");
            })
            .once(|scene| scene.is_ready("web"))
            .then(Duration::from_mins(1), "the account's status is lost", Scene::lose_ledger)
            .which_loses_the_ledger()
            .once(|scene| scene.is_gone("web"))
            .then(Duration::from_mins(20), "delete the namespace", Scene::delete_namespace)
            .then(Duration::from_mins(150), "they look on", |_| {})
            .ends("slot of web for production/web: Released")
            .ends("keys at Bags: 1"),
        Workflow::new("ledger lost while Bags refuses every key", Ways::Token)
            .key("api")
            .key("web")
            .meanwhile("the account's status is lost, and Bags knows no key", |scene| {
                scene.refuse_keys(true);
                scene.lose_ledger();
            })
            .which_loses_the_ledger()
            .once(|scene| scene.is_ready("api") && scene.is_ready("web"))
            .then(Duration::from_mins(30), "Bags knows them again", |scene| scene.refuse_keys(false))
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 2"),
    ]
}

/// Applications that use the keys.
fn consumers() -> Vec<Workflow> {
    vec![
        Workflow::new("read by two pods", Ways::Token)
            .key("web")
            .consumed_by(Kind::Deployment, Reads::Env)
            .meanwhile("end the containers", |scene| scene.cluster.kill_containers("web"))
            .ends(WEB_IS_READY)
            .ends("Deployment web: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds"),
        Workflow::new("read in every way", Ways::Both)
            .key("web")
            .consumer(named("mounted", Kind::Deployment, Reads::File))
            .consumer(named("ordered", Kind::StatefulSet, Reads::ReloadedFile))
            .consumer(named("nodes", Kind::DaemonSet, Reads::Env).replicas(3))
            .consumer(named("alone", Kind::Pod, Reads::Env).clocks_off_by(SignedDuration::from_mins(-5)))
            .consumer(named("once", Kind::Job, Reads::Env).grace(Duration::from_mins(1)))
            .meanwhile("restart a Deployment, and pause it", |scene| {
                scene.restart_workload("mounted");
                scene.pause_workload("mounted", true);
            })
            .then(Duration::from_mins(20), "let it go on", |scene| scene.pause_workload("mounted", false))
            .ends(WEB_IS_READY)
            .ends("Deployment mounted: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds")
            .ends("StatefulSet ordered: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds")
            .ends("DaemonSet nodes: 3 pods, 3 ready, 0 ended, 3 hold what the Secret holds")
            .ends("Pod alone: 1 pods, 1 ready, 0 ended, 1 hold what the Secret holds")
            .ends("Job once: 1 pods, 0 ready, 1 ended, 0 hold what the Secret holds"),
        Workflow::new("a key written by hand, and another one, and its pods restarted", Ways::Token)
            .consumer(Consumer::of("hand", Kind::Deployment, Reads::Env))
            .meanwhile("write a key into a Secret", |scene| scene.write_key_by_hand("hand"))
            .then(Duration::from_mins(5), "write another one, and restart what reads it", |scene| {
                scene.write_key_by_hand("hand");
                scene.restart_workload("hand");
            })
            .once(|scene| scene.hold_the_newest("hand", 2))
            .ends("Deployment hand: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds"),
        Workflow::new("deleted while pods read it", Ways::Token)
            .long()
            .key("web")
            .in_secret("shop-key", "apiKey")
            .consumed_by(Kind::Deployment, Reads::Env)
            .meanwhile("delete the ApiKey", |scene| scene.delete("web"))
            .then(Duration::from_mins(10), "delete what reads it", |scene| scene.delete_workload("web"))
            .ends(NOTHING_IS_LEFT)
            .ends("Deployment web: 0 pods"),
        Workflow::new("deleted while pods read it, and the namespace goes later", Ways::Token)
            .long()
            .key("web")
            .consumer(Consumer::of("web", Kind::Deployment, Reads::Env).grace(Duration::from_mins(5)))
            .meanwhile("delete the ApiKey", |scene| scene.delete("web"))
            .once(|scene| scene.hold_the_newest("web", 2))
            .then(Duration::from_mins(20), "delete the namespace", Scene::delete_namespace)
            .ends(NOTHING_IS_LEFT),
        Workflow::new("deleted, and what reads it is applied anew", Ways::Token)
            .long()
            .key("web")
            .consumer(late())
            .meanwhile("delete the ApiKey, and what reads it", |scene| {
                scene.delete("web");
                scene.delete_workload("web");
            })
            .once(Scene::is_in_use)
            .then(Duration::from_mins(5), "apply what reads it anew", |scene| scene.cluster.declare(late()))
            .once(|scene| scene.holds_no_dead_key("web"))
            .then(Duration::from_mins(30), "delete it again", |scene| scene.delete_workload("web"))
            .ends(NOTHING_IS_LEFT)
            .ends("Deployment web: 0 pods"),
        Workflow::new("the oracle sees that a pod holds a revoked key", Ways::Token)
            .key("web")
            .consumed_by(Kind::Deployment, Reads::Env)
            .meanwhile("revoke the key", |scene| scene.revoke_key_in("web"))
            .once(|scene| scene.hold_the_newest("web", 2))
            .for_which_the_operator_is_blamed()
            .violates("a consumer saw 401: pod web-1-"),
        Workflow::new("the oracle sees that a value stands in a Secret of nobody", Ways::Token)
            .key("web")
            .meanwhile("copy the Secret", |scene| scene.copy_secret("web", "copy"))
            .once(|scene| scene.has_consumer_secret("web"))
            .for_which_the_operator_is_blamed()
            .violates("I7: a secret stands in secrets \"copy\""),
    ]
}

/// Two pods that take so long to start that nobody sees them come before they are seen.
fn late() -> Consumer {
    Consumer::of("web", Kind::Deployment, Reads::Env).starts_after(Duration::from_secs(30))
}

/// A consumer of the ApiKey `web` by a name of its own.
pub(crate) fn named(name: &str, kind: Kind, reads: Reads) -> Consumer {
    Consumer::of("web", kind, reads).called(name)
}
