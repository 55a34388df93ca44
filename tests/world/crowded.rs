//! Rotations on accounts that have a place for one second key, or none.

use std::time::Duration;

use serde_json::json;

use super::{
    cluster::{Kind, Reads},
    scene::{Scene, Ways},
    workflow::Workflow,
};

const BOTH_WERE_REPLACED: [&str; 2] = [
    "ApiKey \"api\": OldKeyRevoked=True/Revoked QuotaAvailable=True/SlotAvailable Ready=True/Issued SecretSynced=True/Synced",
    "ApiKey \"web\": OldKeyRevoked=True/Revoked QuotaAvailable=True/SlotAvailable Ready=True/Issued SecretSynced=True/Synced",
];

/// Two ApiKeys that pods read, on an account with a place for one more key.
fn two(name: &str) -> Workflow {
    Workflow::new(name, Ways::Token)
        .account(json!({"limit": 3}))
        .user(|user| user.limit = 3)
        .key("api")
        .consumed_by(Kind::Deployment, Reads::Env)
        .key("web")
        .consumed_by(Kind::Deployment, Reads::Env)
}

fn ask(scene: &Scene, name: &str) {
    scene.set_overlaps(name, "5m", "15m");
    scene.ask_for_rotation(name, "first");
}

fn in_use(scene: &Scene) -> bool {
    scene.is_ready("api") && scene.is_in_use()
}

/// More want a second key than there are places.
pub(crate) fn rotations() -> Vec<Workflow> {
    let replaced = |workflow: Workflow| BOTH_WERE_REPLACED.into_iter().fold(workflow, Workflow::ends);
    let workflows = [
        replaced(
            two("both are rotated, and there is a place for one second key")
                .meanwhile("ask for two other keys", |scene| {
                    ["api", "web"].iter().for_each(|name| ask(scene, name))
                })
                .once(in_use),
        ),
        replaced(
            two("the limit is lowered in the middle of a rotation")
                .meanwhile("ask for another key", |scene| ask(scene, "web"))
                .once(in_use)
                .then(Duration::from_mins(1), "lower the limit", |scene| {
                    scene.edit_account(|spec| spec["limit"] = json!(1));
                })
                .once(|scene| scene.has_switched("web"))
                .then(Duration::from_mins(1), "ask for another one", |scene| ask(scene, "api"))
                .then(Duration::from_mins(90), "raise it again", |scene| {
                    scene.edit_account(|spec| spec["limit"] = json!(3));
                }),
        ),
        replaced(
            two("somebody takes the place of the second key on Bags' page")
                .meanwhile("ask for another key, and make one on the page", |scene| {
                    ask(scene, "web");
                    scene.make_key_elsewhere();
                })
                .once(in_use)
                .then(Duration::from_mins(90), "revoke it on the page, and ask for another one", |scene| {
                    scene.revoke_key_elsewhere();
                    ask(scene, "api");
                }),
        ),
        replaced(
            two("a policy lets nobody change the Secret of one, and the other is rotated")
                .meanwhile("protect the Secret, and ask for another key", |scene| {
                    scene.protect_secret("api", true);
                    ask(scene, "api");
                })
                .once(in_use)
                .then(Duration::from_mins(20), "ask for another one", |scene| ask(scene, "web"))
                .then(Duration::from_mins(1), "let the Secret be changed", |scene| {
                    scene.protect_secret("api", false);
                })
                .once(|scene| scene.has_switched("web")),
        ),
        // The place that was taken for the second key serves whoever asks next.
        two("a rotation that nobody wants any more gives its place back")
            .meanwhile("spoil the credentials", Scene::spoil_credentials)
            .once(in_use)
            .then(Duration::ZERO, "ask for another key", |scene| ask(scene, "web"))
            .then(Duration::from_mins(20), "want none", |scene| scene.withdraw_rotation("web"))
            .once(|scene| scene.keeps_a_place("web"))
            // Later than a process that stands still wakes up: one that has not heard of it could make the key after all.
            .then(Duration::from_mins(15), "mend the credentials, and ask for another one", |scene| {
                scene.mend_credentials();
                ask(scene, "api");
            })
            .ends(BOTH_WERE_REPLACED[0]),
    ];
    workflows.into_iter().map(Workflow::one_of_many).collect()
}
