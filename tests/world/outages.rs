//! Bags is away for hours: whatever was begun ends as if it had been there.

use std::time::Duration;

use super::{
    cluster::{Kind, Reads},
    rotations::{TWO_HOLD, asked, ends, web},
    scene::{Scene, Ways},
    workflow::Workflow,
    workflows::{NOTHING_IS_LEFT, WEB_IS_READY},
};

fn away(scene: &Scene) {
    scene.take_bags_away(true);
}

fn back_after(workflow: Workflow, time: Duration) -> Workflow {
    workflow.then(time, "Bags is there again", |scene| scene.take_bags_away(false)).one_of_many()
}

/// Outages, at any moment of what is done most.
pub(crate) fn outages() -> Vec<Workflow> {
    let (minutes, hours) = (Duration::from_mins, Duration::from_hours);
    let created = |name, ways, time| {
        back_after(Workflow::new(name, ways).key("web").meanwhile("Bags goes away", away), time)
            .ends(WEB_IS_READY)
            .ends("keys at Bags: 1")
    };
    let rotated = |name, ways| {
        let asked = asked(web(name, ways));
        let away = asked.then(Duration::ZERO, "Bags goes away", away).once(|scene| scene.has_switched("web"));
        ends(back_after(away, hours(3))).ends(TWO_HOLD)
    };
    vec![
        created(
            "Bags is away for half an hour in the middle of a creation by token",
            Ways::Token,
            minutes(30),
        ),
        created("Bags is away for two hours in the middle of a creation by token", Ways::Token, hours(2)),
        created("Bags is away for two hours in the middle of a creation by wallet", Ways::Wallet, hours(2)),
        rotated("rotated, and Bags is away for three hours after the switch", Ways::Token),
        rotated("rotated by wallet, and Bags is away for three hours after the switch", Ways::Wallet),
        ends(back_after(
            asked(web("rotated, and Bags is away for three hours before the second key", Ways::Token)).then(
                Duration::ZERO,
                "Bags goes away",
                away,
            ),
            hours(3),
        ))
        .ends(TWO_HOLD),
        back_after(
            Workflow::new("deleted while Bags is away", Ways::Both).key("web").meanwhile(
                "Bags goes away, and the ApiKey is deleted",
                |scene| {
                    away(scene);
                    scene.delete_now("web");
                },
            ),
            hours(2),
        )
        .ends(NOTHING_IS_LEFT),
        back_after(
            Workflow::new("namespace terminating while Bags is away", Ways::Token)
                .key("web")
                .consumed_by(Kind::Deployment, Reads::Env)
                .meanwhile("Bags goes away, and the namespace is deleted", |scene| {
                    away(scene);
                    scene.delete_namespace();
                }),
            hours(2),
        )
        .ends(NOTHING_IS_LEFT),
    ]
}
