//! Rotations that wait for people, those that are turned back, and the rarer ways that a key is read.

use std::time::Duration;

use serde_json::json;

use super::{
    cluster::{Consumer, Kind, Reads},
    rotations::{TWO_HOLD, asked, ends},
    scene::{Scene, Ways},
    workflow::Workflow,
    workflows::named,
};

/// After so long people see to what waits for them.
const LATER: Duration = Duration::from_mins(10);

/// A rotation that the ApiKey wants although what reads its Secret cannot be rolled as it is.
fn wanted(name: &str, consumers: impl IntoIterator<Item = Consumer>) -> Workflow {
    let workflow =
        consumers.into_iter().fold(Workflow::new(name, Ways::Token).key("web"), Workflow::consumer);
    ends(workflow.meanwhile("ask for another key, whatever gap there is", |scene| {
        scene.set_overlaps("web", "5m", "15m");
        scene.edit_key("web", |spec| spec["rollout"]["allowGap"] = json!(true));
        scene.ask_for_rotation("web", "first");
    }))
    .once(Scene::is_in_use)
}

/// What a person does once no kubelet can serve the old Secret any more.
fn later(workflow: Workflow, what: &'static str, act: fn(&Scene)) -> Workflow {
    workflow.then(LATER, what, act).once(|scene| scene.has_settled("web"))
}

fn on_delete(consumer: Consumer) -> Consumer {
    consumer.strategy(json!({"type": "OnDelete"}))
}

/// Ways to read that no other workflow has.
fn read() -> Workflow {
    let all = [
        named("whole", Kind::Deployment, Reads::AllEnv),
        named("part", Kind::StatefulSet, Reads::Part),
        named("nodes", Kind::DaemonSet, Reads::Init),
        named("beside", Kind::Deployment, Reads::Sidecar),
        named("projected", Kind::Deployment, Reads::Projected),
    ];
    let workflow = Workflow::new("rotated while it is read in every other way", Ways::Token).key("web");
    ends(asked(all.into_iter().fold(workflow, Workflow::consumer)))
        .ends("Deployment whole: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds")
        .ends("StatefulSet part: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds")
        .ends("DaemonSet nodes: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds")
        .ends("Deployment beside: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds")
        .ends("Deployment projected: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds")
}

/// Pods whose files are refreshed, and are no more once they end.
fn ending() -> Workflow {
    let slow = Consumer::of("web", Kind::Deployment, Reads::ReloadedFile)
        .grace(Duration::from_mins(15))
        .calls_seldom();
    let workflow = Workflow::new("rotated while pods that read their files again are ending", Ways::Token)
        .key("web")
        .consumer(slow)
        .meanwhile("ask for another key and a short overlap, and delete the pods", |scene| {
            scene.set_overlaps("web", "1m", "1m");
            scene.ask_for_rotation("web", "first");
            scene.cluster.delete_pods("web");
        });
    ends(workflow.once(Scene::is_in_use)).ends(TWO_HOLD)
}

/// What ends all its old pods before a new one starts, and does not come up with any but its first value.
fn stopped_by_another_value() -> Consumer {
    Consumer::of("web", Kind::Deployment, Reads::Env)
        .strategy(json!({"type": "Recreate"}))
        .which_breaks_with_another_value()
}

/// Workloads that are restarted by nobody but people.
fn by_hand() -> [Workflow; 8] {
    let ordered = |strategy| Consumer::of("web", Kind::StatefulSet, Reads::Env).strategy(strategy);
    let two = "StatefulSet web: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds";
    [
        later(
            wanted(
                "rotated where pods are replaced by hand only",
                [
                    ordered(json!({"type": "OnDelete"})),
                    on_delete(named("nodes", Kind::DaemonSet, Reads::File)),
                ],
            ),
            "delete the pods",
            |scene| ["web", "nodes"].iter().for_each(|name| scene.cluster.delete_pods(name)),
        )
        .ends(two)
        .ends("DaemonSet nodes: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds"),
        later(
            wanted(
                "rotated, and a partition keeps a pod as it is",
                [ordered(json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}))],
            ),
            "take the partition away",
            |scene| {
                scene.edit_workload("web", |object| {
                    object["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = json!(0);
                });
            },
        )
        .ends(two),
        later(
            wanted(
                "rotated, and what reads it is paused",
                [Consumer::of("web", Kind::Deployment, Reads::Env).paused()],
            ),
            "let it go on",
            |scene| scene.edit_workload("web", |object| object["spec"]["paused"] = json!(false)),
        )
        .ends(TWO_HOLD),
        wanted(
            "rotated, and a policy lets one of two workloads not be restarted",
            [named("api", Kind::Deployment, Reads::Env), Consumer::of("web", Kind::Deployment, Reads::Env)],
        )
        .meanwhile("protect the one", |scene| scene.protect_deployment("api", true))
        .then(LATER, "let it be changed", |scene| scene.protect_deployment("api", false))
        .once(|scene| scene.is_marked("web"))
        .ends(TWO_HOLD)
        .ends("Deployment api: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds"),
        later(
            wanted(
                "rotated, and a controller that nobody knows and a debugger hold on",
                [
                    named("canary", Kind::Custom, Reads::Env),
                    named("debugged", Kind::Pod, Reads::Debugger).calls_seldom(),
                ],
            ),
            "its controller replaces the one",
            |scene| scene.cluster.replace_bare_pod("canary"),
        )
        .then(Duration::from_mins(30), "replace the debugged one", |scene| {
            scene.cluster.replace_bare_pod("debugged");
        })
        .ends("Custom canary: 1 pods, 1 ready, 0 ended, 1 hold what the Secret holds")
        .ends("Pod debugged: 1 pods, 1 ready, 0 ended, 1 hold what the Secret holds"),
        // After it is told to have failed: it is still not gone, and the other one stays as it is.
        wanted(
            "rotated, and a workload gets no more pods until it is mended",
            [
                named("api", Kind::Deployment, Reads::Env)
                    .strategy(json!({"type": "Recreate"}))
                    .which_gets_no_pods_when_changed(),
                Consumer::of("web", Kind::Deployment, Reads::Env),
            ],
        )
        .then(Duration::from_mins(13), "mend it", |scene| scene.cluster.mend("api"))
        .once(|scene| scene.is_marked("api"))
        .ends(TWO_HOLD)
        .ends("Deployment api: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds"),
        // What is made of its earlier template reads the new key as well: it is still not up, and the other one stays as it is. A process
        // that comes next does not know of it, so that it has to be mended.
        wanted(
            "rotated, and the template of a workload that does not come up is written back",
            [stopped_by_another_value(), named("worker", Kind::Deployment, Reads::Env)],
        )
        .then(Duration::from_mins(3), "write its template back", |scene| scene.write_template_back("web"))
        .once(|scene| scene.is_marked("web"))
        .then(Duration::from_mins(13), "mend it", |scene| scene.cluster.mend("web"))
        .ends(TWO_HOLD)
        .ends("Deployment worker: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds"),
        later(
            wanted(
                "rotated, and what reads it is not the operator's to restart",
                [Consumer::of("web", Kind::Deployment, Reads::Env).left_alone()],
            ),
            "restart it",
            |scene| scene.restart_workload("web"),
        )
        .ends(TWO_HOLD),
    ]
}

/// An ApiKey whose application does not come up with any but its first key, and that is turned back then.
fn stubborn(name: &str) -> Workflow {
    let consumer = Consumer::of("web", Kind::Deployment, Reads::Env).which_breaks_with_another_value();
    Workflow::new(name, Ways::Token).key("web").consumer(consumer)
}

/// The same, which runs on and is not ready.
fn unready(name: &str) -> Workflow {
    let consumer = Consumer::of("web", Kind::Deployment, Reads::Env).which_is_not_ready_with_another_value();
    Workflow::new(name, Ways::Token).key("web").consumer(consumer)
}

/// The same, whose old pods all end before a new one starts.
fn recreated(name: &str) -> Workflow {
    Workflow::new(name, Ways::Token).key("web").consumer(stopped_by_another_value())
}

fn turn_back(scene: &Scene) {
    scene.set_overlaps("web", "5m", "15m");
    scene.edit_key("web", |spec| spec["rotation"]["onRolloutFailure"] = json!("SwitchBack"));
}

fn turned_back(workflow: Workflow) -> Workflow {
    workflow
        .meanwhile("ask for another key, or the way back", |scene| {
            turn_back(scene);
            scene.ask_for_rotation("web", "first");
        })
        .once(Scene::is_in_use)
}

/// Rotations that end with the key that they began with, at least at first.
fn back() -> [Workflow; 9] {
    [
        turned_back(stubborn("turned back as nothing comes up with another key"))
            .ends("Ready=True/Issued")
            .ends("keys at Bags: 1")
            .ends(TWO_HOLD),
        turned_back(unready("turned back as what comes up with another key is not ready"))
            .ends("Ready=True/Issued")
            .ends("keys at Bags: 1")
            .ends(TWO_HOLD),
        turned_back(unready("turned back, and the ledger is lost while pods hold the newer key"))
            .then(Duration::ZERO, "the account's status is lost", Scene::lose_ledger)
            .which_loses_the_ledger()
            .once(|scene| scene.has_turned_back("web"))
            .ends("Ready=True/Issued")
            .ends("keys at Bags: 1")
            .ends(TWO_HOLD),
        turned_back(recreated("turned back when the old pods had all ended").meanwhile(
            "allow the gap",
            |scene| {
                scene.edit_key("web", |spec| spec["rollout"]["allowGap"] = json!(true));
            },
        ))
        .ends("Ready=True/Issued")
        .ends("keys at Bags: 1")
        .ends(TWO_HOLD),
        turned_back(recreated("turned back when the old pods had all ended, and the overlaps were over"))
            .then(Duration::ZERO, "allow the gap, and short overlaps", |scene| {
                scene.edit_key("web", |spec| spec["rollout"]["allowGap"] = json!(true));
                scene.set_overlaps("web", "1m", "1m");
            })
            .ends("Ready=True/Issued")
            .ends("keys at Bags: 1")
            .ends(TWO_HOLD),
        // The key worked when it was made, and is asked again although nothing else asks it.
        Workflow::new("turned back as the new key is revoked hours later, and a rollout fails", Ways::Token)
            .key("web")
            .consumer(named("web", Kind::Deployment, Reads::Env))
            .meanwhile("ask for another key, and the way back", |scene| {
                scene.set_overlaps("web", "12h", "15m");
                scene.edit_key("web", |spec| spec["rotation"]["onRolloutFailure"] = json!("SwitchBack"));
                scene.ask_for_rotation("web", "first");
            })
            .once(Scene::is_in_use)
            .then(
                Duration::from_hours(2),
                "revoke the new key on the page, and restart what reads it",
                |scene| {
                    scene.revoke_key_in("web");
                    scene.cluster.spoil("web");
                    scene.restart_workload("web");
                },
            )
            .once(|scene| scene.has_settled("web"))
            .ends("Ready=True/Issued")
            .ends("keys at Bags: 1")
            .ends(TWO_HOLD),
        // The second time the other one carries a mark from the first, and not that of the newer key.
        turned_back(stubborn("two workloads are turned back twice").consumer(named(
            "worker",
            Kind::Deployment,
            Reads::Env,
        )))
        .then(Duration::from_hours(2), "ask once more", |scene| scene.ask_for_rotation("web", "second"))
        .once(|scene| scene.has_turned_back("web"))
        .ends("Ready=True/Issued")
        .ends("keys at Bags: 1")
        .ends(TWO_HOLD)
        .ends("Deployment worker: 2 pods, 2 ready, 0 ended, 2 hold what the Secret holds"),
        ends(turned_back(
            stubborn("turned back while somebody outside has taken the new key").consumer(named(
                "elsewhere",
                Kind::Outside,
                Reads::Env,
            )),
        ))
        .then(Duration::from_mins(3), "give them the new value", |scene| {
            scene.cluster.kill_containers("elsewhere");
        })
        .once(|scene| scene.has_settled("web"))
        .then(Duration::from_hours(2), "give them the value that is there now", |scene| {
            scene.cluster.kill_containers("elsewhere");
        })
        .ends(TWO_HOLD),
        ends(
            stubborn("turned back again and again, until it is mended and somebody asks")
                .meanwhile("ask for a key every hour, or the way back", |scene| {
                    turn_back(scene);
                    scene.edit_key("web", |spec| spec["rotation"]["every"] = json!("1h"));
                })
                .once(Scene::is_in_use),
        )
        .then(Duration::from_hours(14), "mend it, take the schedule away, and ask", |scene| {
            scene.cluster.mend("web");
            scene.edit_key("web", |spec| spec["rotation"]["every"] = json!(null));
            scene.ask_for_rotation("web", "first");
        })
        .ends(TWO_HOLD),
    ]
}

/// Some take hours, and are like others: a smaller share of them is run.
pub(crate) fn rotations() -> Vec<Workflow> {
    let mut all = vec![read(), ending()];
    all.extend(by_hand());
    all.extend(back());
    all.into_iter().map(Workflow::one_of_many).collect()
}
