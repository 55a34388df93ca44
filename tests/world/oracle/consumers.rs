//! No consumer sees 401: no running pod holds a key that is not let in, at any moment.
//!
//! It is asked whenever a key dies, by the sandbox's own state, and at each call of an application. Excused are keys that
//! people revoke on the page, and those that they have the operator revoke without a look at who holds them.

use std::collections::BTreeMap;

use super::Oracle;
use crate::{cluster::Held, scene::Scene};

impl Oracle {
    /// Names of the keys that are let in no more since this was last asked.
    pub(super) fn newly_dead(&mut self, scene: &Scene) -> Vec<String> {
        let alive: BTreeMap<String, String> =
            scene.living_keys().into_iter().map(|(name, id)| (id, name)).collect();
        let before = std::mem::replace(&mut self.alive, alive);
        before.into_iter().filter(|(id, _)| !self.alive.contains_key(id)).map(|(_, name)| name).collect()
    }

    /// Keys may have died, and not by people.
    pub(crate) fn keys_died(&mut self, scene: &Scene) {
        for name in self.newly_dead(scene) {
            self.nobody_holds(&name, scene);
        }
    }

    /// People may have revoked keys.
    pub(super) fn keys_died_by_people(&mut self, scene: &Scene) {
        for name in self.newly_dead(scene) {
            // A person who revokes what the operator asks to have revoked only does as told.
            let attempt = attempt_in(&name);
            if !self.condemned.contains(attempt) {
                self.excused.insert(attempt.to_owned());
            }
            self.nobody_holds(&name, scene);
        }
    }

    /// Whoever runs with a key when it dies would see 401.
    pub(super) fn nobody_holds(&mut self, name: &str, scene: &Scene) {
        for held in scene.cluster.held() {
            if self.attempt_of(&held.value) == Some(attempt_in(name)) {
                self.consumer_refused(&held);
            }
        }
    }

    /// A pod has seen 401, or is about to.
    pub(crate) fn consumer_refused(&mut self, held: &Held) {
        let Held { pod, value, since } = held;
        // Values that are no key of the operator's are people's own doing.
        let Some(attempt) = self.attempt_of(value).map(str::to_owned) else { return };
        if !self.excused.contains(&attempt) {
            self.blame(format!("a consumer saw 401: pod {pod} has held {attempt} since {since}"));
        }
    }
}

/// The attempt that a key was made in.
fn attempt_in(name: &str) -> &str {
    name.rsplit_once('-').map(|(_, attempt)| attempt).unwrap_or_default()
}
