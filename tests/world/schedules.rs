//! Rotations that begin by themselves, and clocks that are not ours.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;

use super::{
    cluster::{Kind, Reads},
    rotations::{TWO_HOLD, ends, web},
    scene::{Scene, Ways},
    workflow::Workflow,
    workflows::named,
};

/// An ApiKey whose key is replaced every hour, and soon revoked.
fn every_hour(name: &str) -> Workflow {
    web(name, Ways::Token)
        .meanwhile("ask for a key every hour", |scene| {
            scene.set_overlaps("web", "5m", "15m");
            scene.edit_key("web", |spec| spec["rotation"]["every"] = json!("1h"));
        })
        .once(Scene::is_in_use)
}

/// Nobody asks but the schedule.
pub(crate) fn by_schedule() -> Vec<Workflow> {
    let minutes = Duration::from_mins;
    let workflows = [
        ends(every_hour("rotated by schedule")).ends(TWO_HOLD),
        // A run begins at 08:00; the key is due at about 09:00.
        ends(every_hour("rotated by schedule, in a window").then(
            Duration::from_secs(1),
            "and only in the evening",
            |scene| {
                scene.edit_key("web", |spec| {
                    spec["rotation"]["windows"] = json!([{"from": "18:00", "duration": "30m"}]);
                });
            },
        ))
        .ends(TWO_HOLD),
        ends(
            every_hour("rotated by schedule, in the next window, as there was no place in the first")
                .account(json!({"limit": 2}))
                .user(|user| user.limit = 2)
                .then(Duration::from_secs(1), "only in the evening, and make a key on the page", |scene| {
                    scene.make_key_elsewhere();
                    scene.edit_key("web", |spec| {
                        spec["rotation"]["windows"] =
                            json!([{"from": "18:00", "duration": "30m"}, {"from": "22:00", "duration": "30m"}]);
                    });
                })
                .then(Duration::from_hours(11), "revoke it on the page", Scene::revoke_key_elsewhere),
        )
        .ends(TWO_HOLD),
        ends(every_hour("the schedule is taken away in the middle of a rotation"))
            .then(minutes(1), "take the schedule away", |scene| {
                scene.edit_key("web", |spec| spec["rotation"]["every"] = json!(null));
            })
            .once(|scene| scene.has_switched("web"))
            .ends(TWO_HOLD),
    ];
    workflows.into_iter().map(Workflow::one_of_many).collect()
}

/// Lists tell times by a clock that is minutes before the operator's or behind it. Somebody outside gets the new value long
/// after the pods have moved.
pub(crate) fn by_another_clock() -> Vec<Workflow> {
    let minutes = Duration::from_mins;
    let given_later = |workflow: Workflow, ahead: i64, after: Duration| {
        // What was used last before the rotation lies so long back that no clock takes it for a use since.
        let workflow = workflow
            .service_clock_off_by(SignedDuration::from_mins(ahead))
            .meanwhile("nothing", |_| {})
            .once(|scene| scene.is_ready("web"))
            .then(minutes(10), "ask for another key", |scene| {
                scene.set_overlaps("web", "5m", "15m");
                scene.ask_for_rotation("web", "first");
            });
        ends(workflow)
            .then(Duration::ZERO, "scale what reads it up", |scene| scene.scale_workload("web", 2))
            .once(|scene| scene.is_clean("web"))
            .then(after, "give them the new value", |scene| scene.cluster.kill_containers("elsewhere"))
            .one_of_many()
    };
    let elsewhere = || named("elsewhere", Kind::Outside, Reads::Env);
    let both = |name: &str| web(name, Ways::Token).consumer(elsewhere());
    vec![
        given_later(
            both("rotated where Bags' clock is a day behind, and somebody outside calls on for a while"),
            -24 * 60,
            minutes(3),
        )
        .ends(TWO_HOLD),
        given_later(
            both("rotated where Bags' clock is ahead, and somebody outside calls on for a while"),
            5,
            minutes(3),
        )
        .ends(TWO_HOLD),
        // No list can show that before the quarter of an hour is over; that others use the new key, each can.
        given_later(
            Workflow::new(
                "rotated where Bags' clock is ahead and last use lags, for one who seldom calls",
                Ways::Token,
            )
            .user(|user| user.last_use_lag = minutes(3))
            .key("web")
            .consumer(named("web", Kind::Deployment, Reads::Env).replicas(0))
            .consumer(elsewhere().calls_seldom()),
            5,
            minutes(14),
        )
        .ends(TWO_HOLD),
    ]
}
