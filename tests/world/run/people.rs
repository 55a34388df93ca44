//! When people act.

use std::time::Duration;

use bags_operator::clock::Clock;
use rand::RngExt;

use super::Run;
use crate::{end, workflow::Deed};

/// A platform person looks so often at what waits for a person.
pub(super) const PERSON: Duration = Duration::from_mins(30);

impl Run<'_> {
    /// People do what the workflow says, when it says so; a platform person sees to what needs one.
    pub(super) fn people_act(&mut self) -> bool {
        if self.scene.namespace_controller() {
            self.oracle.people_acted(&self.scene, self.clock.wall());
            self.trace.note(|| "the namespace controller goes on".to_owned());
            return true;
        }
        if let Some(deed) = self.plan.workflow.deeds().get(self.acted)
            && self.is_time_for(deed)
        {
            return self.done(deed);
        }
        if self.now().saturating_duration_since(self.last_person) < PERSON {
            return false;
        }
        self.last_person = self.now();
        let scene = self.scene.clone();
        let acted = scene.platform_person(|slot| end::waits_for_person(&scene, slot));
        if acted {
            self.trace.note(|| "a platform person says which keys are gone".to_owned());
        }
        let restarted = self.plan.workflow.has_a_caretaker() && {
            let told = self.scene.tell_who_is_outside();
            self.scene.restart_what_holds_on(self.clock.wall(), PERSON) || told
        };
        if restarted {
            self.trace.note(|| "a person restarts what holds an earlier key".to_owned());
        }
        if acted || restarted {
            self.oracle.people_acted(&self.scene, self.clock.wall());
        }
        acted || restarted
    }

    /// The first deed comes after as many requests as the plan says, the others so long after the one before; where
    /// all is left to chance, at any moment until then.
    fn is_time_for(&mut self, deed: &Deed) -> bool {
        if self.acted == 0 && !self.plan.chaos {
            return self.seen.len() >= self.plan.act_after && (deed.possible)(&self.scene);
        }
        let waited = self.now().saturating_duration_since(self.acted_at) >= deed.after;
        waited && (deed.possible)(&self.scene) || self.plan.chaos && self.rng.random_bool(0.02)
    }

    fn done(&mut self, deed: &Deed) -> bool {
        self.acted += 1;
        self.acted_at = self.now();
        self.trace.note(|| format!("people: {}", deed.name));
        if deed.loses_ledger {
            self.oracle.ledger_goes(&self.scene, self.clock.wall());
        }
        (deed.act)(&self.scene);
        if deed.blamed {
            self.oracle.keys_died(&self.scene);
            self.oracle.look(&self.scene, self.clock.wall());
        }
        self.oracle.people_acted(&self.scene, self.clock.wall());
        self.quiet_since = self.now();
        true
    }
}
