//! How processes die, stand still, go on, and are replaced.

use std::time::Duration;

use bags_operator::clock::Clock;

use super::{Held, Run, Timer};
use crate::{
    fault::{self, Fault},
    process::{Role, Sight},
};

impl Run<'_> {
    /// What a fault does to the caches of a process: they stay as they are for some writes, or see nothing for a while.
    pub(super) fn blur(&mut self, incarnation: u32, fault: Option<Fault>) {
        let until = self.now() + fault::BLIND;
        let sight = match fault {
            Some(Fault::StaleReads) => {
                Sight::Stale { version: self.scene.api.version() + fault::STALE_WRITES, until }
            }
            Some(Fault::DroppedWatch) => Sight::Blind { until },
            _ => return,
        };
        for process in self.processes.iter_mut().filter(|process| process.incarnation == incarnation) {
            process.sight = sight;
        }
    }

    pub(super) fn crash(&mut self, incarnation: u32, away: Duration) -> String {
        let role = self.role_of(incarnation);
        self.processes.retain(|process| process.incarnation != incarnation);
        self.held.retain(|(of, _)| *of != incarnation);
        drop(self.gate.take_all_of(incarnation));
        self.no_answer_from(incarnation);
        self.replace(role, away);
        format!("process {incarnation} dies")
    }

    /// A process stands still: another one takes over.
    pub(super) fn freeze(&mut self, incarnation: u32) -> String {
        self.freeze_for(incarnation, fault::RESTART)
    }

    /// A process stands still, and nobody takes over before it goes on.
    pub(super) fn freeze_alone(&mut self, incarnation: u32) -> String {
        self.freeze_for(incarnation, fault::FREEZE + fault::RESTART)
    }

    fn freeze_for(&mut self, incarnation: u32, away: Duration) -> String {
        self.oracle.stands_still(self.clock.wall());
        for process in self.processes.iter_mut().filter(|process| process.incarnation == incarnation) {
            process.freeze();
            process.retired = true;
        }
        self.timers.push((self.now() + fault::FREEZE, Timer::Thaw(incarnation)));
        self.replace(self.role_of(incarnation), away);
        format!("process {incarnation} stands still")
    }

    fn role_of(&self, incarnation: u32) -> Role {
        let its = self.processes.iter().find(|process| process.incarnation == incarnation);
        its.map_or(Role::Leader, |process| process.role)
    }

    /// Another process of its role starts after a while, unless one is there or on its way.
    fn replace(&mut self, role: Role, after: Duration) {
        let one = self.processes.iter().any(|process| !process.retired && process.role == role)
            || self.timers.iter().any(|(_, timer)| matches!(timer, Timer::Start(next) if *next == role));
        if !one {
            self.timers.push((self.now() + after, Timer::Start(role)));
        }
    }

    /// A process goes on where it was: what was on its tongue is sent, and what was answered meanwhile is read.
    pub(super) async fn thaw(&mut self, incarnation: u32) {
        self.trace.note(|| format!("process {incarnation} goes on"));
        let (its, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(of, held)| *of == incarnation && !matches!(held, Held::Never(_)));
        self.held = others;
        for (_, held) in its {
            match held {
                Held::Unsent(parked) => self.carry_out(*parked, None).await,
                Held::Kube(answer, response) => drop(answer.send(response)),
                Held::Bags(answer, response) => drop(answer.send(response)),
                Held::Never(_) => {}
            }
        }
        for process in self.processes.iter().filter(|process| process.incarnation == incarnation) {
            process.thaw();
        }
    }
}
