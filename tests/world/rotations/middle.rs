//! What people do in the middle of a rotation.

use std::time::Duration;

use serde_json::json;

use super::{TWO_HOLD, asked, ends, web};
use crate::{
    cluster::{Consumer, Kind, Reads},
    scene::{Scene, TENANT, Ways},
    workflow::Workflow,
    workflows::{NOTHING_IS_LEFT, WEB_IS_READY, named},
};

fn once_switched(name: &str, after: Duration, what: &'static str, act: fn(&Scene)) -> Workflow {
    asked(web(name, Ways::Token)).then(after, what, act).once(|scene| scene.has_switched("web"))
}

/// What is deleted and applied anew: its nodes serve a Secret as it was, and it seldom calls.
fn replaced() -> Consumer {
    named("web", Kind::Deployment, Reads::Env).served_from_a_cache(Duration::from_secs(45)).calls_seldom()
}

/// What people do once the Secret holds the second key, before the first one is revoked.
pub(crate) fn in_the_middle() -> Vec<Workflow> {
    let minutes = Duration::from_mins;
    vec![
        ends(once_switched(
            "scaled to nothing in the middle of a rotation",
            minutes(2),
            "scale it to nothing",
            |scene| scene.scale_workload("web", 0),
        ))
        .then(minutes(15), "scale it up", |scene| scene.scale_workload("web", 2))
        .ends(TWO_HOLD),
        ends(
            asked(
                Workflow::new("scaled up in the middle of the roll-out of a rotation", Ways::Token)
                    .key("web")
                    .consumer(
                        Consumer::of("web", Kind::Deployment, Reads::Env)
                            .starts_after(Duration::from_secs(30))
                            .served_from_a_cache(Duration::from_secs(45)),
                    ),
            )
            .then(Duration::from_secs(10), "scale it up", |scene| scene.scale_workload("web", 6))
            .once(|scene| scene.is_marked("web")),
        )
        .ends("Deployment web: 6 pods, 6 ready, 0 ended, 6 hold what the Secret holds"),
        ends(once_switched(
            "what reads it is deleted in the middle of a rotation",
            minutes(2),
            "delete what reads it",
            |scene| scene.delete_workload("web"),
        ))
        .ends("Deployment web: 0 pods"),
        ends(
            Workflow::new(
                "what reads it is deleted in the middle of a rotation and applied anew",
                Ways::Token,
            )
            .key("web")
            .consumer(replaced())
            .meanwhile("ask for another key", |scene| {
                scene.set_overlaps("web", "5m", "1m");
                scene.ask_for_rotation("web", "first");
            })
            .once(Scene::is_in_use),
        )
        .then(Duration::from_secs(1), "delete what reads it", |scene| scene.delete_workload("web"))
        .once(|scene| scene.has_switched("web"))
        .then(Duration::from_secs(20), "apply it anew, on a node that is late", |scene| {
            scene.cluster.declare(replaced());
        })
        .ends(TWO_HOLD),
        ends(once_switched(
            "what reads it is edited in the middle of a rotation",
            Duration::from_secs(20),
            "edit its template",
            |scene| scene.restart_workload("web"),
        ))
        .then(minutes(2), "edit it once more", |scene| scene.restart_workload("web"))
        .ends(TWO_HOLD),
        ends(once_switched(
            "rights withheld in the middle of a rotation",
            minutes(2),
            "take the rights in the namespace away",
            |scene| scene.withhold_rights(true),
        ))
        .then(minutes(20), "give them back", |scene| scene.withhold_rights(false))
        .ends(TWO_HOLD),
        ends(once_switched(
            "another label asked for in the middle of a rotation",
            minutes(8),
            "ask for a label on the Secret",
            |scene| {
                scene.edit_key("web", |spec| spec["secret"]["labels"] = json!({"team": "web"}));
            },
        ))
        .ends(TWO_HOLD),
        ends(once_switched(
            "consumer Secret edited in the middle of a rotation",
            minutes(4),
            "edit the Secret",
            |scene| scene.edit_consumer_secret("web"),
        ))
        .then(minutes(20), "restart what reads it", |scene| scene.restart_workload("web"))
        .ends(TWO_HOLD),
        ends(once_switched(
            "consumer Secret deleted in the middle of a rotation",
            minutes(4),
            "delete the Secret",
            |scene| scene.delete_consumer_secret("web"),
        ))
        .then(minutes(20), "restart what reads it", |scene| scene.restart_workload("web"))
        .ends(TWO_HOLD),
        ends(once_switched(
            "credentials written anew in the middle of a rotation",
            minutes(1),
            "write the credentials anew",
            Scene::rewrite_credentials,
        ))
        .ends(TWO_HOLD),
        ends(once_switched(
            "token renewed in the middle of a rotation, and put there later",
            minutes(1),
            "renew the token at Bags",
            Scene::renew_token_at_bags,
        ))
        .then(minutes(40), "put it there", Scene::put_renewed_token)
        .ends(TWO_HOLD),
        ends(once_switched(
            "credentials spoilt in the middle of a rotation",
            minutes(1),
            "spoil the credentials",
            Scene::spoil_credentials,
        ))
        .then(minutes(40), "mend them", Scene::mend_credentials)
        .ends(TWO_HOLD),
        ends(once_switched(
            "credentials of another user in the middle of a rotation",
            minutes(1),
            "put another user's credentials there",
            Scene::confuse_credentials,
        ))
        .then(minutes(40), "put the right ones back", Scene::mend_credentials)
        .ends(TWO_HOLD),
        ends(once_switched(
            "upgraded in the middle of a rotation and back",
            minutes(1),
            "a newer version writes a state of its own",
            Scene::newer_version_writes,
        ))
        .then(minutes(40), "it undoes that", Scene::newer_version_undoes)
        .ends(TWO_HOLD),
        ends(
            Workflow::new("pods that seldom call come right after the switch of a rotation", Ways::Token)
                .key("web")
                .consumer(
                    named("web", Kind::Deployment, Reads::ReloadedFile)
                        .replicas(0)
                        .served_from_a_cache(Duration::from_secs(45))
                        .calls_seldom(),
                )
                .meanwhile("ask for another key", |scene| {
                    scene.set_overlaps("web", "5m", "1m");
                    scene.ask_for_rotation("web", "first");
                })
                .once(|scene| scene.is_ready("web")),
        )
        .then(Duration::from_secs(1), "scale it up", |scene| scene.scale_workload("web", 2))
        .once(|scene| scene.has_switched("web"))
        .ends(TWO_HOLD),
        ends(
            web("the ledger is lost while both keys of a rotation are valid", Ways::Token)
                .meanwhile("ask for another key", |scene| {
                    scene.set_overlaps("web", "30m", "30m");
                    scene.ask_for_rotation("web", "first");
                })
                .once(Scene::is_in_use),
        )
        .then(minutes(20), "the account's status is lost", Scene::lose_ledger)
        .which_loses_the_ledger()
        .once(|scene| scene.has_switched("web"))
        .ends(TWO_HOLD),
        once_switched(
            "the new key is revoked in the middle of a rotation",
            minutes(3),
            "revoke the new key on the page",
            |scene| scene.revoke_key_in("web"),
        )
        .then(minutes(60), "give both up", |scene| scene.delete_now("web"))
        .ends(NOTHING_IS_LEFT),
        asked(web("the new key is revoked in the middle of a rotation by wallet", Ways::Wallet))
            .then(minutes(3), "revoke the new key on the page", |scene| scene.revoke_key_in("web"))
            .once(|scene| scene.has_switched("web"))
            .then(minutes(120), "give both up", |scene| scene.delete_now("web"))
            .ends(NOTHING_IS_LEFT),
        ends(
            asked(Workflow::new("rotated once all pods may be missing", Ways::Token).key("web").consumer(
                Consumer::of("web", Kind::Deployment, Reads::Env).strategy(
                    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 2}}),
                ),
            ))
            .then(minutes(20), "allow the gap", |scene| {
                scene.edit_key("web", |spec| spec["rollout"]["allowGap"] = json!(true));
            }),
        )
        .ends(TWO_HOLD),
        ends(
            asked(Workflow::new("rotated once a gap is allowed", Ways::Token).key("web").consumer(
                Consumer::of("web", Kind::Deployment, Reads::Env).strategy(json!({"type": "Recreate"})),
            ))
            .then(minutes(20), "allow the gap", |scene| {
                scene.edit_key("web", |spec| spec["rollout"]["allowGap"] = json!(true));
            }),
        )
        .ends(TWO_HOLD),
    ]
    .into_iter()
    .chain(edits())
    .map(Workflow::one_of_many)
    .collect()
}

/// What people say of a rotation once the Secret holds the second key: it ends by what is said last, and nobody is worse off.
fn edits() -> Vec<Workflow> {
    let minutes = Duration::from_mins;
    let overlaps = |name: &str, (overlap, quiet): (&'static str, &'static str)| {
        ends(
            asked(web(name, Ways::Token))
                .then(minutes(4), "say another time for both keys", move |scene| {
                    scene.set_overlaps("web", overlap, quiet);
                })
                .once(|scene| scene.has_switched("web")),
        )
        .ends(TWO_HOLD)
    };
    let three = ["one", "two", "three"].into_iter().fold(
        web("more restarts at once asked for in the middle of a rotation", Ways::Token),
        |workflow, name| workflow.consumer(named(name, Kind::Deployment, Reads::Env)),
    );
    vec![
        ends(once_switched(
            "restarts are taken back in the middle of a rotation",
            Duration::from_secs(1),
            "have nothing restarted",
            |scene| scene.edit_key("web", |spec| spec["rollout"]["restart"] = json!("None")),
        ))
        .then(minutes(30), "restart what reads it", |scene| scene.restart_workload("web"))
        .ends(TWO_HOLD),
        ends(once_switched(
            "restarts are taken back for a while in the middle of a rotation",
            Duration::from_secs(150),
            "have nothing restarted",
            |scene| scene.edit_key("web", |spec| spec["rollout"]["restart"] = json!("None")),
        ))
        .then(minutes(30), "have it restarted", |scene| {
            scene.edit_key("web", |spec| spec["rollout"]["restart"] = json!("Stale"));
        })
        .ends(TWO_HOLD),
        ends(once_switched(
            "a restart would stop the workload from the middle of a rotation on",
            Duration::from_secs(1),
            "have its pods ended before new ones start",
            |scene| {
                scene.edit_workload("web", |web| web["spec"]["strategy"] = json!({"type": "Recreate"}));
            },
        ))
        .then(minutes(20), "allow the gap", |scene| {
            scene.edit_key("web", |spec| spec["rollout"]["allowGap"] = json!(true));
        })
        .ends(TWO_HOLD),
        overlaps("longer overlaps asked for in the middle of a rotation", ("40m", "60m")),
        overlaps("shorter overlaps asked for in the middle of a rotation", ("1m", "1m")),
        ends(asked(three))
            .then(minutes(2), "have three restarted at once", |scene| {
                scene.edit_key("web", |spec| spec["rollout"]["maxConcurrent"] = json!(3));
            })
            .once(|scene| scene.has_switched("web"))
            .then(Duration::from_secs(20), "have one restarted at once", |scene| {
                scene.edit_key("web", |spec| spec["rollout"]["maxConcurrent"] = json!(1));
            })
            .ends(TWO_HOLD)
            .ends("Deployment two: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds"),
        asked(
            Workflow::new("the way back asked for in the middle of a rotation that fails", Ways::Token)
                .key("web")
                .consumer(
                    Consumer::of("web", Kind::Deployment, Reads::Env).which_breaks_with_another_value(),
                ),
        )
        .then(minutes(20), "ask for the way back", |scene| {
            scene.edit_key("web", |spec| spec["rotation"]["onRolloutFailure"] = json!("SwitchBack"));
        })
        .once(|scene| scene.has_switched("web"))
        .ends(WEB_IS_READY)
        .ends("keys at Bags: 1")
        .ends(TWO_HOLD),
        ends(once_switched("forbidden in the middle of a rotation", minutes(1), "allow nobody", |scene| {
            scene.edit_account(|spec| spec["allowed"] = json!([]))
        }))
        .then(minutes(40), "allow it again", |scene| {
            scene.edit_account(|spec| spec["allowed"] = json!([{"namespaces": [TENANT]}]));
        })
        .ends(TWO_HOLD),
    ]
}
