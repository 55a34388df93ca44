//! Which pods may still hold the old value of a Secret. Pure.
//!
//! Four clocks meet here: the Secret's and the pod's times are the API server's, a container's start is its node's, and
//! `now` is ours. Each comparison has its own margin for that ([`Timings`]), and a missing time never counts as late enough.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    owner::Controller,
    pod::{By, ContainerState, Pod, Use, Way},
};
use crate::{time::signed, timings::Timings};

/// A pod that still exists this long after its `deletionTimestamp`, which includes the grace period, is taken to be on a
/// node that no longer reports.
const OVERDUE: Duration = Duration::from_mins(2);

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Every unfinished pod that refers to the Secret, by name.
    pub holders: Vec<Holder>,
}

/// A pod that refers to the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// What it belongs to.
    pub controller: Option<Controller>,
    /// It is being deleted.
    pub terminating: bool,
    /// The node that it runs on.
    pub node: Option<String>,
    /// Whether it may hold the old value.
    pub verdict: Verdict,
}

/// Whether a pod may hold the old value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It cannot.
    Moved,
    /// It may.
    Stale(Why),
}

/// Why a pod may hold the old value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It read the Secret when it started, and started too early.
    Started,
    /// It has the Secret as a file, and does not say that it re-reads it.
    Mounted,
    /// It says that it re-reads the file, and is not Ready.
    NotReady,
    /// It re-reads the file, and will have done so after this long.
    Settling(Duration),
    /// Its state is not known: a field cannot be read, a container has no status yet, or its node no longer reports.
    Unknown,
}

impl Scan {
    /// No pod can hold the old value.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.stale().next().is_none()
    }

    /// The pods that may hold the old value.
    pub fn stale(&self) -> impl Iterator<Item = &Holder> {
        self.holders.iter().filter(|holder| holder.why().is_some())
    }

    /// How long until the next pod counts as moved merely because time has passed.
    #[must_use]
    pub fn next_look(&self) -> Option<Duration> {
        let waits = self.holders.iter().filter_map(|holder| match holder.why()? {
            Why::Settling(wait) => Some(wait),
            Why::Started | Why::Mounted | Why::NotReady | Why::Unknown => None,
        });
        waits.min()
    }
}

impl Holder {
    /// Why it may hold the old value; `None`: it cannot.
    #[must_use]
    pub fn why(&self) -> Option<Why> {
        match self.verdict {
            Verdict::Moved => None,
            Verdict::Stale(why) => Some(why),
        }
    }

    /// Whether only a restart of its owner will move it. A pod that is terminating, that re-reads its file, or whose state
    /// is not known is waited for instead.
    #[must_use]
    pub fn needs_restart(&self) -> bool {
        match self.why() {
            Some(Why::Started | Why::Mounted) => !self.terminating,
            Some(Why::NotReady | Why::Settling(_) | Why::Unknown) | None => false,
        }
    }
}

impl Why {
    /// Which of several reasons is reported (the lowest rank): first those that only a restart resolves, last the one that
    /// time resolves.
    fn rank(self) -> u8 {
        match self {
            Self::Started => 0,
            Self::Mounted => 1,
            Self::Unknown => 2,
            Self::NotReady => 3,
            Self::Settling(_) => 4,
        }
    }
}

/// What is known of the switch that pods are judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switched {
    /// When the Secret was written, by the API server's clock.
    pub at: Timestamp,
    /// How long ago that was at least, even if one of the clocks is off.
    pub passed: Duration,
    /// An earlier scan has shown that no pod held the Secret's previous value.
    pub was_clean: bool,
}

/// Which pods refer to the Secret, and whether each may still hold the value from before the switch.
#[must_use]
pub fn scan(pods: &[Pod], secret: &str, switched: Switched, now: Timestamp, timings: &Timings) -> Scan {
    let judge = Judge { switched, now, timings };
    let mut holders: Vec<Holder> =
        readers(pods, secret).into_iter().map(|pod| judge.holder(pod, secret)).collect();
    holders.sort_by(|one, other| (&one.pod, &one.uid).cmp(&(&other.pod, &other.uid)));
    Scan { holders }
}

/// Every unfinished pod that refers to the Secret at all, whatever it holds: a deletion waits for all of them.
#[must_use]
fn readers<'a>(pods: &'a [Pod], secret: &str) -> Vec<&'a Pod> {
    pods.iter().filter(|pod| pod.refers_to(secret)).collect()
}

struct Judge<'a> {
    switched: Switched,
    now: Timestamp,
    timings: &'a Timings,
}

impl Judge<'_> {
    fn holder(&self, pod: &Pod, secret: &str) -> Holder {
        Holder {
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            controller: pod.controller.clone(),
            terminating: pod.is_terminating(),
            node: pod.node.clone(),
            verdict: self.verdict(pod, secret),
        }
    }

    fn verdict(&self, pod: &Pod, secret: &str) -> Verdict {
        if self.is_after_switch(pod.created, self.timings.settle_delay) {
            return Verdict::Moved;
        }
        let reasons = pod.uses_of(secret).filter_map(|one| self.reason(pod, one));
        reasons.min_by_key(|why| why.rank()).map_or(Verdict::Moved, Verdict::Stale)
    }

    /// Why the pod may hold the old value by this one use of the Secret.
    fn reason(&self, pod: &Pod, one: &Use) -> Option<Why> {
        match one.by {
            By::Nobody => None,
            By::Unclear => Some(Why::Unknown),
            By::Pod => (!pod.unscheduled).then_some(Why::Started),
            By::Container(way, state) => match state {
                ContainerState::Waiting | ContainerState::Terminated(_) if self.is_overdue(pod) => {
                    Some(Why::Unknown)
                }
                // It will read the Secret when it starts, and is judged then. Its mounted file is refreshed as late as any other.
                ContainerState::Waiting | ContainerState::Terminated(_) => match way {
                    Way::Mounted | Way::Part => self.settling(),
                    Way::Started => None,
                },
                ContainerState::NoStatus => (!pod.unscheduled).then_some(Why::Unknown),
                ContainerState::Unclear => Some(Why::Unknown),
                ContainerState::Running(started) | ContainerState::HandedOn(started) => {
                    if self.is_after_switch(started, self.timings.container_margin)
                        && !self.is_to_come(started)
                    {
                        return None;
                    }
                    match (way, state) {
                        (Way::Started | Way::Part, _) => Some(Why::Started),
                        // A container that has ended reads nothing again, and those that it handed the value to need not either.
                        (Way::Mounted, ContainerState::HandedOn(_)) => Some(Why::Mounted),
                        (Way::Mounted, _) => self.file(pod),
                    }
                }
            },
        }
    }

    /// The pod should have been gone for a while: its node no longer reports, so the last reported state may not hold any more.
    fn is_overdue(&self, pod: &Pod) -> bool {
        let overdue =
            pod.deleted.filter(|_| !pod.unscheduled).map(|deleted| self.now.duration_since(deleted));
        overdue.is_some_and(|time| Duration::try_from(time).is_ok_and(|time| time >= OVERDUE))
    }

    /// Why the application may have last read the file of an older container while it held the old value.
    fn file(&self, pod: &Pod) -> Option<Why> {
        if !pod.reloads {
            return Some(Why::Mounted);
        }
        // A kubelet does not refresh the files of a terminating pod.
        if pod.is_terminating() && !self.switched.was_clean {
            return Some(Why::Mounted);
        }
        // A pod that an earlier scan found to have the new file keeps it when it stops being Ready.
        if !pod.ready && !self.switched.was_clean {
            return Some(Why::NotReady);
        }
        self.settling()
    }

    /// A file that the application re-reads counts as new once `reload_delay` has passed since the switch.
    fn settling(&self) -> Option<Why> {
        let wait = self.timings.reload_delay.saturating_sub(self.switched.passed);
        (!wait.is_zero()).then_some(Why::Settling(wait))
    }

    /// Whether a node dates a start so far in the future that its clock must be ahead by more than the margin is for.
    fn is_to_come(&self, started: Option<Timestamp>) -> bool {
        let ahead = signed(self.timings.container_margin / 2);
        started.is_some_and(|started| started.duration_since(self.now) > ahead)
    }

    /// Whether a time is at least `margin` after the switch. A missing time is not.
    fn is_after_switch(&self, time: Option<Timestamp>, margin: Duration) -> bool {
        time.is_some_and(|time| time.duration_since(self.switched.at) >= signed(margin))
    }
}

#[cfg(test)]
mod tests;
