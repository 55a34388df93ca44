//! Admission on a real API server: who is let in, and what is said to the others.

use std::time::Duration;

use bags_operator::{
    api::{BagsAccount, account::SlotState},
    leader::{DRAINED, LEASE_NAME},
    sandbox::UserOptions,
};
use k8s_openapi::api::{admissionregistration::v1::ValidatingWebhookConfiguration, coordination::v1::Lease};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::Status,
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    gate::{Gate, answered},
    support::scene::{LIMIT, Scene, Way, condition, holds, says, slots, slots_in},
};

fn refusal(error: kube::Error) -> Box<Status> {
    match error {
        kube::Error::Api(status) => status,
        other => panic!("not an answer of the API server: {other}"),
    }
}

/// What those are told who do not fit.
pub(crate) const NO_SLOT: &str = "has no slot for another key";

/// What came of a crowd's applies.
#[derive(Debug, Default)]
struct Crowd {
    admitted: Vec<String>,
    denied: usize,
    /// Neither admitted nor refused for want of a slot.
    unclear: Vec<String>,
}

/// So many people apply one ApiKey each at the same time; who is told to come again does. Those who are refused are told
/// these words.
#[expect(clippy::disallowed_methods, reason = "all of them are waited for")]
async fn crowd(scene: &Scene<'_>, round: usize, people: usize, words: &str) -> Crowd {
    let mut tasks = JoinSet::new();
    for person in 0..people {
        let (api, key) = (scene.keys(), scene.new_key(&format!("app-{round}-{person}"), json!({})));
        tasks.spawn(async move {
            loop {
                match api.create(&PostParams::default(), &key).await {
                    Ok(key) => return Ok(key.name_any()),
                    Err(kube::Error::Api(status)) if status.code == 429 => {
                        let pause = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                        tokio::time::sleep(Duration::from_secs(pause.into())).await;
                    }
                    Err(error) => return Err(error.to_string()),
                }
            }
        });
    }
    let mut crowd = Crowd::default();
    while let Some(came) = tasks.join_next().await {
        match came.unwrap() {
            Ok(name) => crowd.admitted.push(name),
            Err(said) if said.contains(words) => crowd.denied += 1,
            Err(said) => crowd.unclear.push(said),
        }
    }
    crowd
}

/// So many kept places belong to nobody.
async fn lost(scene: &Scene<'_>) -> usize {
    let living: Vec<String> = scene
        .keys()
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .filter_map(ResourceExt::uid)
        .collect();
    let status = scene.account().await.status.unwrap_or_default();
    status.slots.iter().filter(|slot| !living.contains(&slot.owner.uid)).count()
}

#[tokio::test]
async fn of_fifty_who_come_at_once_for_four_slots_four_are_admitted_whichever_replica_they_meet() {
    let gate = Gate::with_replicas(3).await;
    for round in 0..5 {
        let scene = gate.scene(json!({"limit": 4})).await;
        let Crowd { admitted, denied, unclear } = crowd(&scene, round, 50, NO_SLOT).await;
        assert_eq!(unclear, Vec::<String>::new());
        assert_eq!((admitted.len(), denied), (4, 46), "round {round}");
        for name in &admitted {
            scene.ready(name).await;
        }
        let account = scene.account().await;
        assert_eq!((slots(&account), lost(&scene).await), (4, 0), "round {round}");
        scene.end().await;
    }
    gate.end().await;
}

#[tokio::test]
async fn replicas_that_die_in_the_middle_cost_nobody_a_slot_and_let_nobody_in_too_many() {
    let mut gate = Gate::with_replicas(3).await;
    for round in 0.. {
        // Enough, if any call was on its way to one that died.
        if round >= 3 && gate.robin.unanswered() > 0 {
            break;
        }
        assert!(round < 12, "no call was cut off by the death of a replica");
        // Once the one that leads, in the middle of making keys.
        let leads = round == 2;
        let victim = match leads {
            true => gate.alone.world.operator.take().unwrap(),
            false => gate.further.remove(0),
        };
        if leads {
            victim.shows("bags_operator_leader 1").await;
        }
        gate.robin.lead_to(gate.replicas().chain([&victim]));
        let scene = gate.scene(json!({"limit": 4})).await;
        let people = crowd(&scene, round, 50, NO_SLOT);
        let kill = async {
            // As soon as somebody is in: the others are on their way.
            scene.account_where("in use", |account| slots(account) > 0).await;
            victim.kill();
            // Another one takes its place while the crowd still runs.
            let replacement = gate.alone.world.launch.another().start().await;
            gate.robin.lead_to(gate.replicas().chain([&replacement]));
            replacement
        };
        let (crowd, replacement) = tokio::join!(people, kill);
        // Whoever lost the connection was refused by the API server; their place, if any, comes free again.
        assert!(crowd.unclear.iter().all(|said| said.contains("failed calling webhook")), "{crowd:?}");
        assert!(crowd.admitted.len() <= 4, "{crowd:?}");
        let again = self::crowd(&scene, round + 100, 8, NO_SLOT).await;
        let reaped = |account: &BagsAccount| {
            slots_in(account, &SlotState::Reserved) == 0
                && slots(account) == slots_in(account, &SlotState::Live)
        };
        scene.account_where("without places that belong to nobody", reaped).await;
        let more = self::crowd(&scene, round + 200, 8, NO_SLOT).await;
        let admitted = crowd.admitted.len() + again.admitted.len() + more.admitted.len();
        assert_eq!(admitted, 4, "{crowd:?} {again:?} {more:?}");
        for name in crowd.admitted.iter().chain(&again.admitted).chain(&more.admitted) {
            scene.ready(name).await;
        }
        assert_eq!(lost(&scene).await, 0);
        scene.end().await;
        gate.further.push(replacement);
    }
    gate.end().await;
}

#[tokio::test]
async fn of_thirty_who_come_at_once_a_namespace_is_given_no_more_than_its_max() {
    let gate = Gate::with_replicas(3).await;
    for round in 0..3 {
        let scene = gate.scene(json!({})).await;
        let allowed = json!([{"namespaces": [scene.name], "max": 3}]);
        scene.patch_account(json!({"spec": {"allowed": allowed}})).await;
        let crowd = crowd(&scene, round, 30, "has as many keys of BagsAccount").await;
        assert_eq!(crowd.unclear, Vec::<String>::new());
        assert_eq!((crowd.admitted.len(), crowd.denied), (3, 27), "round {round}");
        for name in &crowd.admitted {
            scene.ready(name).await;
        }
        assert_eq!((slots(&scene.account().await), lost(&scene).await), (3, 0), "round {round}");
        scene.end().await;
    }
    gate.end().await;
}

/// Has ApiKeys of this name refused after they were let in, as a quota does: by a webhook that nobody serves.
async fn refuse(scene: &Scene<'_>, name: &str) -> Api<ValidatingWebhookConfiguration> {
    let configuration = serde_json::from_value(json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": scene.name},
        "webhooks": [{
            "name": "refuses.example.com", "clientConfig": {"url": "https://127.0.0.1:1/"},
            "rules": [{"apiGroups": ["keys.bags.fm"], "apiVersions": ["v1alpha1"], "resources": ["apikeys"],
                       "operations": ["CREATE"]}],
            "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scene.name}},
            "matchConditions": [{"name": "by-name", "expression": format!("object.metadata.name == '{name}'")}],
        }],
    }));
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(scene.client.clone());
    configurations.create(&PostParams::default(), &configuration.unwrap()).await.unwrap();
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    create_until(scene, name, &dry_run, |made| !made).await;
    configurations
}

/// Tries to make an ApiKey until that comes to what is expected, as the API server learns of a configuration after a moment.
async fn create_until(
    scene: &Scene<'_>,
    name: &str,
    parameters: &PostParams,
    expected: impl Fn(bool) -> bool,
) {
    let key = scene.new_key(name, json!({}));
    let tries = async {
        let mut pause = tokio::time::interval(Duration::from_millis(50));
        while !expected(scene.keys().create(parameters, &key).await.is_ok()) {
            pause.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, tries).await.expect("the API server knows of the configuration");
}

/// Long enough to look at a place that nobody uses, on a busy machine too.
const KEPT_FOR: &str = "--reserved-reap-after=20s";

#[tokio::test]
async fn a_creation_that_fails_after_it_was_let_in_gives_its_place_back() {
    let gate = Gate::new(&[KEPT_FOR]).await;
    let scene = gate.scene(json!({"limit": 2})).await;
    scene.apply("web-dashboard", json!({})).await;
    scene.ready("web-dashboard").await;
    let refusing = refuse(&scene, "refused").await;
    let said = scene.keys().create(&PostParams::default(), &scene.new_key("refused", json!({}))).await;
    says(&refusal(said.unwrap_err()).message, &["refuses.example.com"]);
    let nobodys = |account: &BagsAccount| slots_in(account, &SlotState::Reserved) == 1;
    scene.account_where("keeping a place for nobody", nobodys).await;
    assert_eq!(lost(&scene).await, 1);
    let said = scene.keys().create(&PostParams::default(), &scene.new_key("too-early", json!({}))).await;
    says(&refusal(said.unwrap_err()).message, &["2 of 2 in use"]);
    scene.account_where("without that place", |account| slots(account) == 1).await;
    scene.apply("in-time", json!({})).await;
    scene.ready("in-time").await;
    refusing.delete(&scene.name, &DeleteParams::default()).await.unwrap();
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn who_tries_again_after_a_creation_that_failed_finds_the_place_of_the_first_try() {
    let gate = Gate::new(&[KEPT_FOR]).await;
    let scene = gate.scene(json!({"limit": 1})).await;
    let refusing = refuse(&scene, "web-dashboard").await;
    for _ in 0..5 {
        let key = scene.new_key("web-dashboard", json!({}));
        let said = scene.keys().create(&PostParams::default(), &key).await;
        let said = refusal(said.unwrap_err()).message.clone();
        assert!(said.contains("refuses.example.com") && !said.contains(NO_SLOT), "{said}");
        assert_eq!(slots(&scene.account().await), 1);
    }
    refusing.delete(&scene.name, &DeleteParams::default()).await.unwrap();
    create_until(&scene, "web-dashboard", &PostParams::default(), |made| made).await;
    scene.ready("web-dashboard").await;
    assert_eq!((slots(&scene.account().await), lost(&scene).await), (1, 0));
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn a_creation_whose_name_is_taken_keeps_no_place() {
    let gate = Gate::new(&[]).await;
    let scene = gate.scene(json!({"limit": 1})).await;
    scene.apply("web-dashboard", json!({})).await;
    scene.ready("web-dashboard").await;
    for n in 0..5 {
        let again = scene.new_key("web-dashboard", json!({"application": format!("another-{n}")}));
        let said = refusal(scene.keys().create(&PostParams::default(), &again).await.unwrap_err());
        assert_eq!((said.code, said.reason.as_str()), (409, "AlreadyExists"));
    }
    assert_eq!((slots(&scene.account().await), lost(&scene).await), (1, 0));
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn a_dry_run_keeps_no_place_and_a_generated_name_does() {
    let gate = Gate::with_replicas(3).await;
    let scene = gate.scene(json!({"limit": 2})).await;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    // Each call meets another replica.
    for _ in 0..3 {
        gate.robin.cut().await;
        scene.keys().create(&dry_run, &scene.new_key("web-dashboard", json!({}))).await.unwrap();
    }
    assert_eq!(slots(&scene.account().await), 0);
    let mut generated = scene.new_key("", json!({}));
    generated.metadata.name = None;
    generated.metadata.generate_name = Some("web-".to_owned());
    for _ in 0..2 {
        gate.robin.cut().await;
        let made = scene.keys().create(&PostParams::default(), &generated).await.unwrap();
        scene.ready(&made.name_any()).await;
    }
    for parameters in [dry_run, PostParams::default()] {
        for _ in 0..3 {
            gate.robin.cut().await;
            let said = refusal(scene.keys().create(&parameters, &generated).await.unwrap_err());
            assert_eq!((said.code, said.reason.as_str()), (403, "Forbidden"));
            says(&said.message, &["2 of 2 in use (2 by ApiKeys, 0 made elsewhere)", "admission: Queue"]);
        }
    }
    for replica in gate.replicas() {
        assert!(answered(replica, "Admitted").await >= 1.0, "every replica let somebody in");
        assert!(answered(replica, "QuotaExceeded").await >= 2.0, "every replica refused both");
    }
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn an_account_that_queues_admits_with_a_warning_and_serves_the_oldest_first() {
    let gate = Gate::new(&[]).await;
    let scene = gate.scene(json!({"limit": 1, "admission": "Queue"})).await;
    scene.apply("first-come", json!({})).await;
    scene.ready("first-come").await;
    scene.apply("second-come", json!({})).await;
    scene.not_ready("second-come", "QuotaExceeded").await;
    scene.apply_after("second-come", "third-come", json!({})).await;
    scene.not_ready("third-come", "QuotaExceeded").await;
    scene.delete_now("first-come").await;
    scene.ready("second-come").await;
    scene.not_ready("third-come", "QuotaExceeded").await;
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn who_comes_before_the_account_was_looked_at_is_told_when_to_come_again() {
    let mut gate = Gate::new(&[]).await;
    // Nobody leads, so that nobody looks at accounts; reviews are answered all the same.
    let leases: Api<Lease> =
        Api::namespaced(gate.alone.world.cluster.client().await, &gate.alone.world.launch.namespace);
    let hand_over = async |holder: &str| {
        let patch = Patch::Merge(json!({"spec": {"holderIdentity": holder}}));
        leases.patch(LEASE_NAME, &PatchParams::default(), &patch).await.unwrap();
    };
    gate.alone.world.operator().shows("bags_operator_leader 1").await;
    hand_over(DRAINED).await;
    assert_eq!(gate.alone.world.operator.take().unwrap().ends().await, Some(1));
    gate.alone.world.operator = Some(gate.alone.world.launch.another().start().await);
    gate.lead();
    let scene = Scene::without_account(&gate.alone.world, Way::Token, UserOptions::default()).await;
    scene.put_credentials(&scene.credentials()).await;
    scene.make_account(json!({})).await;
    let said = scene.keys().create(&PostParams::default(), &scene.new_key("too-early", json!({}))).await;
    let said = refusal(said.unwrap_err());
    assert_eq!((said.code, said.reason.as_str()), (429, "TooManyRequests"), "{said:?}");
    assert_eq!(said.details.as_ref().map(|details| details.retry_after_seconds), Some(1), "{said:?}");
    says(&said.message, &[&scene.name, "in a moment"]);
    hand_over("").await;
    scene.account_where("Ready", |account| holds(account, "Ready", "True")).await;
    scene.apply("in-time", json!({})).await;
    scene.ready("in-time").await;
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn without_a_webhook_only_new_apikeys_stop() {
    let gate = Gate::new(&["--resync=2s"]).await;
    let scene = gate.scene(json!({})).await;
    scene.apply("web-dashboard", json!({})).await;
    scene.ready("web-dashboard").await;
    gate.robin.close();
    let said = scene.keys().create(&PostParams::default(), &scene.new_key("too-early", json!({}))).await;
    let said = refusal(said.unwrap_err());
    assert_eq!(said.code, 500);
    says(&said.message, &["failed calling webhook", "apikeys.keys.bags.fm"]);
    // All else goes on.
    scene.patch("web-dashboard", json!({"spec": {"purpose": "Edited without a webhook"}})).await;
    let deleted = scene.secrets().delete("web-dashboard", &DeleteParams::default()).await.unwrap();
    let old = deleted.left().and_then(|secret| secret.uid());
    scene.secret("web-dashboard", "written again", |secret| secret.uid() != old).await;
    let first = scene.working_value("web-dashboard").await;
    let spec = json!({"rotation": {"minOverlap": "1s", "quietFor": "1s"}});
    let asked = json!({"metadata": {"annotations": {"keys.bags.fm/rotate": "first"}}, "spec": spec});
    scene.patch("web-dashboard", asked).await;
    scene.key("web-dashboard", "rotated", |key| holds(key, "OldKeyRevoked", "True")).await;
    assert_ne!(scene.working_value("web-dashboard").await, first);
    scene.delete_now("web-dashboard").await;
    gate.lead();
    scene.apply("in-time", json!({})).await;
    scene.ready("in-time").await;
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn a_limit_that_is_lowered_below_what_is_used_revokes_nothing_and_lets_nobody_in() {
    let gate = Gate::new(&[]).await;
    let scene = gate.scene(json!({"limit": 3})).await;
    let names = ["first-come", "second-come"];
    for name in names {
        scene.apply(name, json!({})).await;
        scene.ready(name).await;
    }
    scene.patch_account(json!({"spec": {"limit": 1}})).await;
    let account = scene.account_where("over its limit", |a| holds(a, "OverQuota", "True")).await;
    says(&condition(&account, "OverQuota").unwrap().message, &["2 of 1 in use", "nothing is revoked"]);
    assert!(holds(&account, "QuotaAvailable", "False"));
    let said = scene.keys().create(&PostParams::default(), &scene.new_key("third-come", json!({}))).await;
    says(&refusal(said.unwrap_err()).message, &[NO_SLOT, "2 of 1 in use"]);
    for name in names {
        scene.working_value(name).await;
        assert!(holds(&scene.ready(name).await, "Ready", "True"));
    }
    scene.patch_account(json!({"spec": {"limit": 3}})).await;
    let account = scene.account_where("within its limit", |a| holds(a, "QuotaAvailable", "True")).await;
    assert_eq!(condition(&account, "OverQuota"), None, "it goes with its cause");
    scene.apply("third-come", json!({})).await;
    scene.ready("third-come").await;
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn a_rotation_that_finds_no_second_slot_for_long_is_named_on_the_account_and_one_that_is_suspended_is_not()
 {
    let gate = Gate::new(&["--starved-after=2s", "--resync=2s"]).await;
    let scene = gate.scene(json!({"limit": 2})).await;
    let asked = json!({"metadata": {"annotations": {"keys.bags.fm/rotate": "first"}}});
    for name in ["starving", "suspended"] {
        scene.apply(name, json!({"rotation": {"minOverlap": "1s", "quietFor": "1s"}})).await;
        scene.ready(name).await;
    }
    for (name, suspend) in [("starving", false), ("suspended", true)] {
        scene.patch(name, json!({"spec": {"suspend": suspend}})).await;
        scene.patch(name, asked.clone()).await;
        scene.key(name, "told what it waits for", |key| holds(key, "Rotating", "True")).await;
    }
    let starved =
        |status: &'static str| move |account: &BagsAccount| holds(account, "RotationsStarved", status);
    let account = scene.account_where("starved", starved("True")).await;
    let message = &condition(&account, "RotationsStarved").unwrap().message;
    says(message, &["/starving"]);
    assert!(!message.contains("/suspended"), "{message}");
    let metric = format!("bags_operator_account_rotations_starved{{account=\"{}\"}} 1\n", scene.name);
    let metrics = gate.alone.world.operator().metrics().await;
    assert!(metrics.contains(&metric), "{metrics}");
    scene.patch_account(json!({"spec": {"limit": 3}})).await;
    scene.key("starving", "rotated", |key| holds(key, "OldKeyRevoked", "True")).await;
    scene.account_where("fed", |account| !holds(account, "RotationsStarved", "True")).await;
    scene.end().await;
    gate.end().await;
}

#[tokio::test]
async fn past_a_webhook_that_is_not_configured_nobody_gets_a_key_too_many() {
    let gate = Gate::new(&[]).await;
    let scene = gate.scene(json!({"limit": 1})).await;
    scene.apply("first-come", json!({})).await;
    scene.ready("first-come").await;
    let configurations = gate.configurations(scene.client.clone());
    configurations.delete("bags-operator", &DeleteParams::default()).await.unwrap();
    let missing = |account: &BagsAccount| {
        condition(account, "AdmissionEnforced")
            .is_some_and(|c| c.status == "False" && c.reason == "WebhookMissing")
    };
    let account = scene.account_where("told that the webhook is missing", missing).await;
    says(&condition(&account, "AdmissionEnforced").unwrap().message, &["bags-operator", "install"]);
    let metrics = gate.alone.world.operator().metrics().await;
    assert!(metrics.contains("bags_operator_webhook_registered 0\n"), "{metrics}");

    scene.apply("second-come", json!({})).await;
    for (earlier, name) in [("second-come", "third-come"), ("third-come", "fourth-come")] {
        scene.apply_after(earlier, name, json!({})).await;
    }
    let waiting = ["second-come", "third-come", "fourth-come"];
    waits_unasked(&scene, &waiting, 1).await;
    // A slot comes free, then another one is added, and another one.
    scene.delete_now("first-come").await;
    scene.ready("second-come").await;
    waits_unasked(&scene, &waiting[1..], 2).await;
    scene.patch_account(json!({"spec": {"limit": 2}})).await;
    scene.ready("third-come").await;
    waits_unasked(&scene, &waiting[2..], 3).await;
    scene.patch_account(json!({"spec": {"limit": 3}})).await;
    scene.ready("fourth-come").await;
    waits_unasked(&scene, &[], 4).await;
    scene.end().await;
    gate.end().await;
}

/// All of these are told that there is no slot; of Bags no more keys were asked for than were served.
async fn waits_unasked(scene: &Scene<'_>, waiting: &[&str], served: usize) {
    for name in waiting {
        scene.not_ready(name, "QuotaExceeded").await;
        scene.key(name, "told that there is no slot", |key| holds(key, "QuotaAvailable", "False")).await;
    }
    assert_eq!(scene.requests_to("/keys/create"), served, "Bags was asked for more than fits");
}
