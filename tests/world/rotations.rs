//! Rotations: of every way that pods come to hold a key, and what people do in the middle of one.

mod middle;

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;

use super::{
    cluster::{Consumer, Kind, Reads},
    scene::{CREDENTIALS, Scene, Ways},
    workflow::Workflow,
    workflows::{NOTHING_IS_LEFT, WEB_IS_READY, named},
};

pub(crate) use middle::in_the_middle;

pub(crate) const TWO_HOLD: &str = "Deployment web: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds";

pub(crate) fn ends(workflow: Workflow) -> Workflow {
    workflow.ends(WEB_IS_READY).ends("OldKeyRevoked=True/Revoked")
}

/// An ApiKey that two pods read.
pub(crate) fn web(name: &str, ways: Ways) -> Workflow {
    Workflow::new(name, ways).key("web").consumed_by(Kind::Deployment, Reads::Env)
}

pub(crate) fn asked(workflow: Workflow) -> Workflow {
    workflow
        .meanwhile("ask for another key", |scene| {
            scene.set_overlaps("web", "5m", "15m");
            scene.ask_for_rotation("web", "first");
        })
        .once(Scene::is_in_use)
}

/// A person asks for another key while applications use the one that they have.
pub(crate) fn rotations() -> Vec<Workflow> {
    let ends = |workflow: Workflow| ends(workflow).long();
    vec![
        ends(asked(
            Workflow::new("rotated while two pods read it", Ways::Token)
                .key("web")
                .in_secret("shop-key", "apiKey")
                .consumed_by(Kind::Deployment, Reads::Env),
        ))
        .ends(TWO_HOLD),
        ends(asked(web("rotated by wallet, and a person revokes", Ways::Wallet))).ends(TWO_HOLD),
        ends(asked(
            web("rotated where no use is shown, and somebody outside calls on", Ways::Both)
                .user(|user| user.capabilities.last_use = false)
                .consumer(named("elsewhere", Kind::Outside, Reads::Env)),
        ))
        .then(Duration::from_mins(40), "give them the new value", |scene| {
            scene.cluster.kill_containers("elsewhere");
        })
        .ends(TWO_HOLD),
        ends(asked(
            web("rotated where last use freezes, and somebody outside calls on", Ways::Token)
                .consumer(named("elsewhere", Kind::Outside, Reads::Env)),
        ))
        .then(Duration::from_mins(3), "last uses stay as they are", Scene::freeze_last_use)
        .then(Duration::from_mins(37), "give them the new value", |scene| {
            scene.cluster.kill_containers("elsewhere");
        })
        .ends(TWO_HOLD),
        ends(asked(web("rotated where last use lags", Ways::Token).user(|user| {
            user.last_use_lag = Duration::from_mins(20);
        })))
        .ends(TWO_HOLD),
        ends(asked(
            Workflow::new("rotated while it is read in every way", Ways::Token)
                .key("web")
                .consumer(
                    named("mounted", Kind::Deployment, Reads::File)
                        .clocks_off_by(SignedDuration::from_mins(5)),
                )
                .consumer(
                    named("ordered", Kind::StatefulSet, Reads::ReloadedFile)
                        .served_from_a_cache(Duration::from_secs(45)),
                )
                .consumer(
                    named("nodes", Kind::DaemonSet, Reads::Env).replicas(3).grace(Duration::from_mins(1)),
                )
                .consumer(named("once", Kind::Job, Reads::Env).runs_for(Duration::from_mins(5))),
        ))
        .ends("Deployment mounted: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds")
        .ends("StatefulSet ordered: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds")
        .ends("DaemonSet nodes: 3 pods, 3 ready, 0 ended, 3 hold what the Secret holds"),
        ends(asked(
            Workflow::new("rotated while somebody outside calls on", Ways::Token).key("web").consumer(named(
                "elsewhere",
                Kind::Outside,
                Reads::Env,
            )),
        ))
        .then(Duration::from_hours(3), "give them the new value", |scene| {
            scene.cluster.kill_containers("elsewhere");
        }),
        ends(asked(
            web("rotated while somebody outside calls on, and the list goes", Ways::Both).consumer(named(
                "elsewhere",
                Kind::Outside,
                Reads::Env,
            )),
        ))
        .then(
            Duration::from_hours(2),
            "take the token out of the account, and write the credentials anew",
            |scene| {
                scene.edit_account(|spec| spec["credentials"]["agentToken"] = json!(null));
                scene.rewrite_credentials();
            },
        )
        .then(Duration::from_mins(10), "put the token back", |scene| {
            scene.edit_account(|spec| spec["credentials"]["agentToken"] = json!({"secretName": CREDENTIALS}));
        })
        .then(Duration::from_mins(30), "give them the new value", |scene| {
            scene.cluster.kill_containers("elsewhere");
        })
        .ends(TWO_HOLD),
        ends(asked(
            web("rotated while somebody outside calls on, and the credentials are spoilt", Ways::Both)
                .consumer(named("elsewhere", Kind::Outside, Reads::Env)),
        ))
        .then(Duration::from_hours(2), "spoil the credentials", Scene::spoil_credentials)
        .then(Duration::from_mins(90), "mend them", Scene::mend_credentials)
        .then(Duration::from_mins(30), "give them the new value", |scene| {
            scene.cluster.kill_containers("elsewhere");
        })
        .ends(TWO_HOLD),
        ends(asked(web("rotated, and later the ledger is lost where no Secret may be read", Ways::Token)))
            .then(Duration::from_hours(2), "take the rights away, and lose the account's status", |scene| {
                scene.withhold_rights(true);
                scene.lose_ledger();
            })
            .which_loses_the_ledger()
            .then(Duration::from_mins(20), "give the rights back", |scene| scene.withhold_rights(false))
            .ends(TWO_HOLD),
        ends(asked(
            Workflow::new("rotated, and a pod without an owner holds on", Ways::Token)
                .key("web")
                .consumer(named("alone", Kind::Pod, Reads::Env).clocks_off_by(SignedDuration::from_mins(-5))),
        ))
        .then(Duration::from_mins(40), "replace the pod", |scene| scene.cluster.replace_bare_pod("alone"))
        .ends("Pod alone: 1 pods, 1 ready, 0 ended, 1 hold what the Secret holds"),
        ends(
            Workflow::new("rotated, and a Job that seldom calls outlasts the overlap", Ways::Token)
                .key("web")
                .consumer(
                    named("cached", Kind::Deployment, Reads::Env)
                        .served_from_a_cache(Duration::from_secs(45))
                        .calls_seldom(),
                )
                .consumer(
                    named("ahead", Kind::DaemonSet, Reads::File)
                        .clocks_off_by(SignedDuration::from_mins(5))
                        .calls_seldom(),
                )
                .consumer(
                    named("batch", Kind::Job, Reads::Env).runs_for(Duration::from_mins(15)).calls_seldom(),
                )
                .meanwhile("ask for another key, and say after how long it is too long", |scene| {
                    scene.set_overlaps("web", "5m", "2m");
                    scene.edit_key("web", |spec| spec["rotation"]["maxOverlap"] = json!("6m"));
                    scene.ask_for_rotation("web", "first");
                })
                // Of five pods the Job's has ended, if it is late.
                .once(|scene| [4, 5].into_iter().any(|pods| scene.hold_the_newest("web", pods))),
        )
        .then(Duration::from_secs(20), "restart what may read an old Secret", |scene| {
            scene.restart_workload("cached");
        })
        .ends("Deployment cached: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds")
        .ends("DaemonSet ahead: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds")
        .ends("Job batch: 1 pods, 0 ready, 1 ended, 0 hold what the Secret holds"),
        ends(
            Workflow::new("rotated, and pods that seldom call end long after", Ways::Token)
                .key("web")
                .consumer(
                    named("web", Kind::Deployment, Reads::Env).grace(Duration::from_mins(15)).calls_seldom(),
                )
                .meanwhile("ask for another key", |scene| {
                    scene.set_overlaps("web", "2m", "5m");
                    scene.ask_for_rotation("web", "first");
                })
                .once(|scene| scene.hold_the_newest("web", 2)),
        )
        .ends(TWO_HOLD),
        ends(
            Workflow::new("rotated, and pods that seldom call read their files again", Ways::Token)
                .key("web")
                .consumer(
                    named("web", Kind::Deployment, Reads::ReloadedFile)
                        .refreshed_after(Duration::from_secs(150))
                        .calls_seldom(),
                )
                .meanwhile("ask for another key, and for a short overlap", |scene| {
                    scene.set_overlaps("web", "1m", "1m");
                    scene.ask_for_rotation("web", "first");
                })
                .once(|scene| scene.is_ready("web")),
        )
        .ends(TWO_HOLD),
        ends(
            Workflow::new("both keys that one workload reads are rotated at once", Ways::Token)
                .key("api")
                .key("web")
                .consumer(Consumer::of("web", Kind::Deployment, Reads::Env).and_reads("api"))
                .meanwhile("ask for another key of both", |scene| {
                    for name in ["api", "web"] {
                        scene.set_overlaps(name, "5m", "15m");
                        scene.ask_for_rotation(name, "first");
                    }
                })
                .once(|scene| scene.is_in_use() && scene.is_ready("api")),
        )
        .ends("keys at Bags: 2")
        .ends(TWO_HOLD),
        ends(asked(web("rotated, and the mark is taken away in the middle", Ways::Token)))
            .then(Duration::from_secs(2), "write the template back", |scene| {
                scene.write_template_back("web");
            })
            .once(|scene| scene.is_marked("web"))
            .ends(TWO_HOLD),
        // It is set once more, and then people are told whose restart is theirs.
        ends(asked(web("rotated, and the mark is taken away twice", Ways::Token)))
            .then(Duration::from_secs(2), "write the template back", |scene| {
                scene.write_template_back("web");
            })
            .once(|scene| scene.is_marked("web"))
            .then(Duration::from_secs(2), "write it back again", |scene| scene.write_template_back("web"))
            .once(|scene| scene.is_marked("web"))
            .then(Duration::from_mins(30), "restart what reads it", |scene| scene.restart_workload("web"))
            .ends(TWO_HOLD),
        ends(asked(web("rotated twice, the second time in the middle", Ways::Token)))
            .then(Duration::from_mins(3), "ask once more", |scene| scene.ask_for_rotation("web", "second"))
            .ends(TWO_HOLD),
        ends(asked(
            Workflow::new("rotated, and a workload does not come up until it is mended", Ways::Token)
                .key("web")
                .consumer(Consumer::of("web", Kind::Deployment, Reads::Env).which_breaks()),
        ))
        .then(Duration::from_mins(30), "mend it", |scene| scene.cluster.mend("web"))
        .ends(TWO_HOLD),
        ends(asked(
            Workflow::new("rotated and turned back, as a workload does not come up", Ways::Token)
                .key("web")
                .consumer(Consumer::of("web", Kind::Deployment, Reads::Env).which_breaks())
                .meanwhile("ask for the way back", |scene| {
                    scene.edit_key("web", |spec| spec["rotation"]["onRolloutFailure"] = json!("SwitchBack"));
                }),
        ))
        .then(Duration::from_mins(30), "mend it", |scene| scene.cluster.mend("web"))
        .ends(TWO_HOLD),
        asked(web("deleted in the middle of a rotation", Ways::Token))
            .then(Duration::from_mins(3), "delete the ApiKey, and what reads it", |scene| {
                scene.delete("web");
                scene.delete_workload("web");
            })
            .long()
            .ends(NOTHING_IS_LEFT),
        ends(asked(web("suspended in the middle of a rotation", Ways::Token)))
            .then(Duration::from_mins(3), "suspend it", |scene| scene.suspend("web", true))
            .then(Duration::from_mins(40), "let it go on", |scene| scene.suspend("web", false))
            .ends(TWO_HOLD),
    ]
}
