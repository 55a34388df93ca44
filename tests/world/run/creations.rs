//! What the API server does about an ApiKey that a person applies: makes it ready, asks a process, stores what is let in.

use bags_operator::clock::Clock;
use tokio::time::Instant;

use super::{Held, Run};
use crate::{
    creation::{AGAIN, Creation, OTHERS, PATIENCE, SOON, State, Verdict, review, uid},
    fault::{self, Fault, Label},
    gate::{Parked, Sent},
    scene::TENANT,
};

impl Run<'_> {
    /// Goes on with the first creation that something is to be done about. Whether there was one.
    pub(super) fn create(&mut self) -> bool {
        let now = self.now();
        let wishes = self.scene.take_wishes().into_iter();
        self.creations.extend(wishes.map(|wish| Creation { wish, state: State::Due(now) }));
        let Some(index) = self.creations.iter().position(|creation| creation.next() <= now) else {
            return false;
        };
        match &self.creations[index].state {
            State::Asked { task, .. } => {
                task.abort();
                self.give_up(index, "has no answer in time");
            }
            State::LetIn { .. } => self.store(index),
            State::Due(_) | State::Refused { .. } => self.ask(index),
        }
        true
    }

    /// When something is to be done about a creation next.
    pub(super) fn next_creation(&self) -> Option<Instant> {
        self.creations.iter().map(Creation::next).min()
    }

    /// Wishes that neither came true nor were refused as things are now.
    pub(super) fn open_wishes(&self) -> impl Iterator<Item = String> {
        let since = self.quiet_since;
        let open = self.creations.iter().filter(move |creation| match &creation.state {
            State::Refused { at } => *at < since || self.oracle.has_room(&self.scene, self.clock.wall()),
            State::Due(_) | State::Asked { .. } | State::LetIn { .. } => true,
        });
        open.map(|creation| format!("nobody knows whether {} is let in", creation.wish.name))
    }

    fn give_up(&mut self, index: usize, why: &str) {
        let again = self.now() + AGAIN;
        let creation = &mut self.creations[index];
        creation.state = State::Due(again);
        let name = creation.wish.name.clone();
        self.trace.note(|| format!("the creation of {name} {why}"));
    }

    fn ask(&mut self, index: usize) {
        let wish = self.creations[index].wish.clone();
        let there = self.scene.api.get("apikeys", TENANT, &wish.name);
        match there.map(|key| key["metadata"]["deletionTimestamp"].is_null()) {
            Some(true) => drop(self.creations.remove(index)),
            Some(false) => self.give_up(index, "waits until the one before is gone"),
            None => match self.scene.api.begin_creation(wish.object) {
                // Its namespace is going.
                Err(_) => drop(self.creations.remove(index)),
                Ok(object) => {
                    self.asked += 1;
                    // Whoever stands still is asked as well, until its pod is known to be ill.
                    let Some(process) = self.processes.get(self.asked % self.processes.len().max(1)) else {
                        return self.give_up(index, "finds nobody to ask");
                    };
                    let task = process.review(&self.gate, wish.name, review(&object, wish.dry_run));
                    let (incarnation, until) = (process.incarnation, self.now() + PATIENCE);
                    self.creations[index].state = State::Asked { object, incarnation, until, task };
                }
            },
        }
    }

    /// A process answers a review.
    pub(super) fn answer_review(&mut self, label: &Label, verdict: Verdict, fault: Option<Fault>) -> String {
        match fault {
            Some(Fault::CrashBefore) => return self.crash(label.incarnation, fault::RESTART),
            Some(Fault::FreezeBefore) => {
                let parked = Parked { label: label.clone(), sent: Sent::Review(verdict) };
                self.held.push((label.incarnation, Held::Unsent(Box::new(parked))));
                return self.freeze(label.incarnation);
            }
            _ => self.blur(label.incarnation, fault),
        }
        let Some(index) = self.creations.iter().position(|creation| creation.waits_for(&verdict.uid)) else {
            return "nobody listens any more".to_owned();
        };
        let word = match fault {
            Some(Fault::Lost) => {
                self.give_up(index, "has lost its answer");
                "lost".to_owned()
            }
            Some(Fault::ServerError) => {
                self.give_up(index, "is refused by somebody else");
                "refused by another webhook".to_owned()
            }
            _ => self.settle(index, &verdict, fault != Some(Fault::DoneNoAnswer)),
        };
        match fault {
            Some(Fault::CrashAfter) => self.crash(label.incarnation, fault::RESTART),
            Some(Fault::CrashLong) => self.crash(label.incarnation, fault::LONG_RESTART),
            Some(Fault::FreezeAfter) => self.freeze(label.incarnation),
            _ => word,
        }
    }

    /// Stores what was let in. `told`: whether the person hears of it.
    fn settle(&mut self, index: usize, verdict: &Verdict, told: bool) -> String {
        let now = self.now();
        let wish = self.creations[index].wish.clone();
        self.oracle.reviewed(verdict, wish.dry_run, &self.scene);
        let before = std::mem::replace(&mut self.creations[index].state, State::Due(now + AGAIN));
        let State::Asked { object, .. } = before else { return "nobody asked".to_owned() };
        match (verdict.allowed, verdict.code) {
            (true, _) if wish.dry_run => {
                self.creations.remove(index);
                "would be let in".to_owned()
            }
            (true, _) => {
                let (at, waits) = (now + OTHERS, verdict.waits());
                self.creations[index].state = State::LetIn { object, at, told, waits };
                "let in".to_owned()
            }
            (false, 403) => {
                self.creations[index].state = State::Refused { at: now };
                if wish.dry_run {
                    self.creations.remove(index);
                }
                "refused".to_owned()
            }
            (false, code) => {
                self.creations[index].state = State::Due(now + SOON);
                format!("refused for now, {code}")
            }
        }
    }

    /// Stores what was let in, once others have looked at it as well.
    fn store(&mut self, index: usize) {
        let again = State::Due(self.now() + AGAIN);
        let State::LetIn { object, told, waits, .. } =
            std::mem::replace(&mut self.creations[index].state, again)
        else {
            return;
        };
        let name = self.creations[index].wish.name.clone();
        self.oracle.is_stored(&name, uid(&object), waits, &self.scene);
        let stored = self.scene.api.finish_creation(object).is_ok();
        self.quiet_since = self.now();
        self.trace.note(|| format!("{name} is stored: {stored}"));
        if stored && told {
            self.creations.remove(index);
        }
    }

    /// A process is gone: whoever waited for its answer is told by the connection.
    pub(super) fn no_answer_from(&mut self, incarnation: u32) {
        let waiting: Vec<usize> =
            (0..self.creations.len()).filter(|index| self.creations[*index].asks(incarnation)).collect();
        for index in waiting {
            self.give_up(index, "has lost whom it asked");
        }
    }
}
