//! Rules 6 and 7: a key is replaced while its consumers run.
//!
//! Due → a second place → the second key (rules 2 and 5) → published → workloads restarted → until no pod can hold the old key
//! and nobody has used it for long enough → looked at once more → the old key is condemned. Every doubt keeps both keys valid.
//! Every obstacle is shown, and the rotation goes on by itself once the obstacle is gone.

mod failing;

use std::time::Duration;

use jiff::Timestamp;

use super::{Decision, Rule, creation, is_in, standing, words};
use crate::{
    api::{
        account::{Slot, SlotState},
        apikey::Restart,
    },
    apikey::{
        hold::{Hold, Reason},
        observe::{AccountView, Observation, PodsSeen},
        quiet::Quiet,
        schedule::{Schedule, UnknownZone, next_rotation, opens_at},
    },
    consumer_secret::Found,
    ledger::Change,
    time::{since, until},
    workload::{Consumer, Gap, Obstacle, Plan, Progress, Terms, mark_value, plan},
};

/// A rotation that cannot begin is looked at again after this.
const BLOCKED: Duration = Duration::from_mins(1);
/// The longest pause before the next look: a change that the operator does not watch is seen this late at worst.
const LOOK_AGAIN: Duration = Duration::from_mins(10);

/// After this many rotations in a row that ended with a switch back, the schedule begins no further one.
const MOST_SWITCHES_BACK: i64 = 3;

/// While this many keys of earlier rotations wait to be revoked, no further rotation begins.
const MOST_UNREVOKED: usize = 2;

/// Why a key is to be replaced, or when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Now.
    Now,
    /// At this time, unless somebody asks for it earlier.
    At(Timestamp),
    /// It is due by schedule, but so many rotations in a row ended with a switch back that it waits until somebody asks for it.
    TurnedBack(i64),
    /// When somebody asks for it.
    OnDemand,
    /// A window's time zone does not exist.
    UnknownZone(String),
}

/// When the current key is to be replaced.
pub(crate) fn due(o: &Observation, current: &Slot) -> Due {
    if o.key.rotate_token().is_some_and(|token| Some(&token) != current.trigger.as_ref()) {
        return Due::Now;
    }
    let rotation = o.key.rotation();
    let at = match next_rotation(current.since, &o.owner.uid, &rotation) {
        Schedule::OnDemand => return Due::OnDemand,
        Schedule::UnknownZone(zone) => return Due::UnknownZone(zone),
        Schedule::At(at) if at > o.now => return Due::At(at),
        Schedule::At(_) => opens_at(o.now, &rotation.windows),
    };
    match at {
        Ok(at) if at > o.now => Due::At(at),
        Ok(_) => match current.switched_back {
            Some(times) if times >= MOST_SWITCHES_BACK => Due::TurnedBack(times),
            Some(_) | None => Due::Now,
        },
        Err(UnknownZone(zone)) => Due::UnknownZone(zone),
    }
}

/// Whether the schedule begins no further rotation, as too many in a row ended with a switch back.
pub(crate) fn ends_schedule(switched_back: Option<i64>) -> bool {
    switched_back.is_some_and(|times| times >= MOST_SWITCHES_BACK)
}

/// Rule 7: a rotation begins.
pub(super) fn begins(o: &Observation) -> Rule {
    let (Some(view), Some(current)) = (&o.account, o.current()) else { return Rule::Pass };
    if o.creating.is_some() || !o.superseded().is_empty() {
        return Rule::Pass;
    }
    let slots = o.slots();
    let place = slots.iter().find(|slot| slot.state == SlotState::Reserved);
    // An ApiKey that is stopped on purpose, or has no Secret to put a key into, does not keep a place from the others.
    let foreign = matches!(o.consumer, Some(Found::Foreign(_))) && matches!(standing(o), Rule::Pass);
    if place.is_some() && (is_stopped(o) || foreign) {
        return Rule::change(Change::GiveBack { owner_uid: o.owner.uid.clone() });
    }
    // Beside a slot whose key was left to people (`Released`) the ledger would not take a further one.
    if !o.published() || slots.iter().any(|slot| slot.state == SlotState::Released) {
        return Rule::Pass;
    }
    match (due(o, current), place) {
        (Due::Now, place) => {
            let rule = match standing(o) {
                Rule::Pass => next_key(o, view, &slots, place.copied()),
                rule => rule,
            };
            blocked(rule)
        }
        // The rotation for which the place is kept is no longer due.
        (Due::At(_) | Due::OnDemand | Due::TurnedBack(_) | Due::UnknownZone(_), Some(_))
            if matches!(standing(o), Rule::Pass) =>
        {
            Rule::change(Change::GiveBack { owner_uid: o.owner.uid.clone() })
        }
        (Due::TurnedBack(times), _) => {
            Rule::wait(Reason::RotationBlocked, words::turned_back(current, times))
        }
        (Due::UnknownZone(zone), _) => Rule::wait(Reason::RotationBlocked, words::unknown_zone(&zone)),
        (Due::At(at), None) => {
            let mut message = words::issued(&o.key, current);
            if let Some(missed) = missed(o, current) {
                message.push_str(&words::next_window(missed, at));
            }
            let hold = Hold::new(Reason::Issued, message);
            Rule::Wait(hold.after(until(o.now, at).max(Duration::from_secs(1))))
        }
        (Due::At(_) | Due::OnDemand, _) => Rule::Pass,
    }
}

/// When the rotation should have begun by schedule, if it waits for the next window now and, as far as is known, for nothing
/// else.
pub(crate) fn missed(o: &Observation, current: &Slot) -> Option<Timestamp> {
    if ends_schedule(current.switched_back) || !matches!(standing(o), Rule::Pass) {
        return None;
    }
    let Due::At(opens) = due(o, current) else { return None };
    match next_rotation(current.since, &o.owner.uid, &o.key.rotation()) {
        Schedule::At(at) if at <= o.now && opens > o.now => Some(at),
        Schedule::At(_) | Schedule::OnDemand | Schedule::UnknownZone(_) => None,
    }
}

/// Whether people have stopped new keys of this ApiKey: by its own spec, or by the account's.
pub(super) fn is_stopped(o: &Observation) -> bool {
    let stops = [Reason::Suspended, Reason::NamespaceNotAllowed, Reason::EnvironmentNotAllowed];
    matches!(standing(o), Rule::Wait(hold) if stops.contains(&hold.reason))
}

fn next_key(o: &Observation, view: &AccountView, slots: &[&Slot], place: Option<&Slot>) -> Rule {
    match (place, creation::without_credentials(view)) {
        // No key can be made in the place now, and the others would have one place less.
        (Some(_), Some(_)) => return Rule::change(Change::GiveBack { owner_uid: o.owner.uid.clone() }),
        (None, Some(hold)) => return Rule::Wait(hold),
        (Some(place), None) => return licence(o, view, place),
        (None, None) => {}
    }
    let out_of_use = [SlotState::Lost, SlotState::Unresolved, SlotState::Revoking];
    let failed: Vec<&Slot> = slots
        .iter()
        .copied()
        .filter(|slot| is_in(&slot.state, &out_of_use) && slot.published.is_none())
        .collect();
    if failed.len() >= creation::ATTEMPTS_WITHOUT_SUCCESS {
        let unresolved: Vec<&&Slot> =
            failed.iter().filter(|slot| slot.state == SlotState::Unresolved).collect();
        let message = match unresolved.is_empty() {
            true => words::revoking(view, &failed),
            false => words::unresolved(view, &unresolved),
        };
        return Rule::wait(Reason::RotationBlocked, message);
    }
    // Old keys that nobody revokes would fill the account, one rotation after the other.
    let unrevoked: Vec<&Slot> = slots
        .iter()
        .copied()
        .filter(|slot| slot.state == SlotState::Revoking && slot.published.is_some())
        .collect();
    if unrevoked.len() >= MOST_UNREVOKED {
        return Rule::wait(Reason::RotationBlocked, words::revoking(view, &unrevoked));
    }
    if let Some(hold) = creation::refusals(o, view, slots) {
        return Rule::Wait(hold);
    }
    let Some(pods) = &o.pods else { return Rule::Act(Decision::LookAtPods { confirm: false }) };
    let gaps = gaps(o, pods);
    if !gaps.is_empty() {
        return Rule::Wait(Hold::new(Reason::RotationBlocked, words::gaps(&gaps)).after(BLOCKED));
    }
    if !o.has_second_slot() {
        let hold = Hold::new(Reason::RotationBlocked, words::no_second_slot(view));
        return Rule::Wait(Hold { starving: true, ..hold.after(LOOK_AGAIN) });
    }
    Rule::change(Change::ReserveNext { owner: o.owner.clone(), key_use: o.key.key_use() })
}

/// Makes the key in the place that is kept for it, unless a gap has turned up since the place was taken, perhaps long ago.
fn licence(o: &Observation, view: &AccountView, place: &Slot) -> Rule {
    let rule = creation::licence(o, view, place);
    match (&rule, &o.pods) {
        (Rule::Wait(_) | Rule::Pass, _) => rule,
        (Rule::Act(_), None) => Rule::Act(Decision::LookAtPods { confirm: false }),
        (Rule::Act(_), Some(_)) if o.gaps() => {
            Rule::change(Change::GiveBack { owner_uid: o.owner.uid.clone() })
        }
        (Rule::Act(_), Some(_)) => rule,
    }
}

/// The consumers that a rotation would stop for a while although nobody allows that.
fn gaps<'a>(o: &Observation, pods: &'a PodsSeen) -> Vec<(&'a Consumer, Gap)> {
    let rollout = o.key.rollout();
    let wanted = rollout.restart == Restart::Stale && !rollout.allow_gap;
    pods.consumers.iter().filter(|_| wanted).filter_map(with_gap).collect()
}

impl Observation {
    /// Whether the current key was published so long ago that no older key should still be valid beside it (`maxOverlap`).
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.current()
            .is_some_and(|current| since(self.now, current.since) >= self.key.rotation().max_overlap)
    }

    /// Whether the account has a slot for a second key.
    #[must_use]
    pub fn has_second_slot(&self) -> bool {
        self.account.as_ref().is_some_and(|view| view.room.fits_extra(&view.ledger.slots))
    }

    /// Whether a rotation would stop a workload for a while, and nobody allows that.
    #[must_use]
    pub fn gaps(&self) -> bool {
        self.pods.as_ref().is_some_and(|pods| !gaps(self, pods).is_empty())
    }
}

/// The consumer, if it would have to be restarted and cannot be restarted without a gap.
fn with_gap(consumer: &Consumer) -> Option<(&Consumer, Gap)> {
    let workload = consumer.workload.as_ref().filter(|_| !consumer.stale.is_empty())?;
    // A workload that opted out is restarted by its people, when it suits them.
    if workload.may_restart() == Err(Obstacle::OptedOut) {
        return None;
    }
    let failed = || matches!(workload.progress(), Progress::Failed(_)).then_some(Gap::Failed);
    workload.gap().or_else(failed).map(|gap| (consumer, gap))
}

/// Gives a wait that concerns only the next key a reason that says nothing against the current one.
pub(super) fn blocked(rule: Rule) -> Rule {
    match rule {
        Rule::Wait(hold) => Rule::Wait(Hold { reason: hold.reason.of_next_key(), quiet: false, ..hold }),
        rule @ (Rule::Act(_) | Rule::Pass) => rule,
    }
}

/// Rule 6: a switch in progress.
pub(super) fn switch(o: &Observation) -> Rule {
    let (Some(current), old) = (o.current(), o.superseded()) else { return Rule::Pass };
    let Some(previous) = old.last().copied() else { return Rule::Pass };
    if let Rule::Wait(hold) = standing(o) {
        let message = format!("{}; both keys stay valid meanwhile", hold.message);
        return Rule::Wait(Hold { reason: Reason::RotationHeld, message, ..hold });
    }
    // Until the Secret holds the current key, rule 3 (drift) has spoken.
    if !o.published() {
        return Rule::Pass;
    }
    let Some(switched_at) = o.switched_at() else {
        let hold = Hold::new(Reason::RotationHeld, words::switch_undated(&o.key));
        return Rule::Wait(hold.after(BLOCKED));
    };
    let Some(pods) = &o.pods else { return Rule::Act(Decision::LookAtPods { confirm: false }) };
    let switch = Switch { o, current, previous, pods, switched_at };
    // A failed rollout may have ended its old pods all the same, so this is asked before a clean scan counts.
    if let Some(rule) = switch.failed() {
        return rule;
    }
    match (pods.scan.is_clean(), o.settles_in(switched_at)) {
        (false, _) => switch.restarts(),
        (true, Duration::ZERO) => switch.gate(&old),
        (true, wait) => Rule::Wait(Hold::new(Reason::Rotating, words::settling(previous)).after(wait)),
    }
}

struct Switch<'a> {
    o: &'a Observation,
    current: &'a Slot,
    previous: &'a Slot,
    pods: &'a PodsSeen,
    switched_at: Timestamp,
}

impl Switch<'_> {
    /// Pods hold the old key: their owners are restarted, one after the other.
    fn restarts(&self) -> Rule {
        let Self { o, pods, .. } = self;
        let rollout = o.key.rollout();
        let pause = pods.scan.next_look().unwrap_or(o.timings.scan_every).min(o.timings.scan_every);
        let plan = self.plan(rollout.max_concurrent);
        let wait = match rollout.restart {
            Restart::Stale if !plan.mark.is_empty() => {
                let marked_in = self.markable_in();
                if marked_in.is_zero() {
                    return Rule::Act(Decision::Restart(plan.mark));
                }
                marked_in.min(pause)
            }
            Restart::Stale | Restart::None => pause,
        };
        let reason = if self.o.is_overdue() { Reason::RotationHeld } else { Reason::Rotating };
        let restarts = rollout.restart == Restart::Stale;
        let settles_at = o.settles_at(self.switched_at);
        let settles_at = (settles_at > o.now).then_some(settles_at);
        let message = words::restarting(self.previous, &pods.scan, &plan, restarts, settles_at);
        Rule::Wait(Hold::new(reason, message).after(wait.max(Duration::from_secs(1))))
    }

    fn plan(&self, max_concurrent: usize) -> Plan {
        let mark = mark_value(&self.o.owner.uid, self.current.published.unwrap_or_default());
        let allow_gap = self.o.key.rollout().allow_gap;
        let back = self.current.revision < self.previous.revision;
        let terms = Terms { max_concurrent, allow_gap, back, resting: &self.pods.resting };
        plan(&self.pods.consumers, &self.o.owner.name, &mark, &terms)
    }

    /// How long to wait before workloads are marked: the new pods must be created late enough to count as moved.
    fn markable_in(&self) -> Duration {
        self.o.timings.mark_delay.saturating_sub(self.o.passed_since(self.switched_at))
    }

    /// No pod holds the old key, but some workloads may have no pod with the new one yet either. The old key stays valid
    /// meanwhile, so that there is a way back.
    fn comes_up(&self) -> Option<Rule> {
        let Self { o, current, previous, .. } = self;
        let plan = self.plan(o.key.rollout().max_concurrent);
        if current.revision < previous.revision || plan.down.is_empty() {
            return None;
        }
        let reason = if o.is_overdue() { Reason::RotationHeld } else { Reason::Rotating };
        Some(Rule::Wait(
            Hold::new(reason, words::coming_up(previous, &plan.down)).after(o.timings.scan_every),
        ))
    }

    /// No pod holds the old key: it goes when both keys have been valid for long enough and nobody uses the old one any more.
    fn gate(&self, old: &[&Slot]) -> Rule {
        let o = self.o;
        if let Some(rule) = self.published_key_fails().or_else(|| self.comes_up()) {
            return rule;
        }
        let rotation = o.key.rotation();
        let next_look = |left: Duration| left.min(o.timings.clean_scan_every).max(Duration::from_secs(1));
        // If the status has no such time yet, it is written at the end of this run.
        let clean_since = o.clean_since().unwrap_or(o.now);
        let overlap = rotation.min_overlap.saturating_sub(since(o.now, clean_since));
        let unproven = o.timings.unproven_overlap.max(rotation.min_overlap);
        let quiet = o.uses.unwrap_or_default().quiet(clean_since, rotation.quiet_for, unproven, o.now);
        let attempt = || self.current.attempt.clone().unwrap_or_default();
        let (left, passed) = match quiet {
            Quiet::Proven => (overlap, overlap.is_zero()),
            Quiet::For { left, .. } => (left.max(overlap), false),
            // A probe is a known use of the current key: a list that shows it can tell of uses, and speaks of this account.
            Quiet::Ask | Quiet::Lagging { left: Duration::ZERO }
                if overlap.is_zero() && o.current_probe.is_none() =>
            {
                return Rule::Act(Decision::Probe { attempt: attempt() });
            }
            Quiet::Unproven { .. } | Quiet::Lagging { left: Duration::ZERO }
                if overlap.is_zero() && o.current_probe.is_some() && self.unasked() =>
            {
                return Rule::Act(Decision::LookAtLists);
            }
            // The list was asked for before the lag was over. By now it is over, and the next list counts.
            Quiet::Lagging { left: Duration::ZERO } if self.just_listed() => (overlap, false),
            Quiet::Ask | Quiet::Lagging { left: Duration::ZERO } => (overlap.max(BLOCKED), false),
            Quiet::Lagging { left } => (left.max(overlap), false),
            Quiet::Unproven { left, .. } => (left.max(overlap), left.max(overlap).is_zero()),
        };
        if passed && o.clean_since().is_some() {
            return self.point_of_no_return(old);
        }
        let reason = if self.o.is_overdue() { Reason::RotationHeld } else { Reason::Rotating };
        let message = words::overlapping(self.previous, clean_since, (o.now, left), &quiet);
        // The overlap is waited for first: when it is over, the lists are asked whether they can tell.
        let wait = if overlap.is_zero() { left } else { overlap };
        Rule::Wait(Hold::new(reason, message).after(next_look(wait)))
    }

    /// Whether there are lists, and none was asked for in this run.
    fn unasked(&self) -> bool {
        !self.o.listed && self.o.uses.is_some_and(|uses| uses.may_list)
    }

    /// Whether the list that was asked for in this run is the last one.
    fn just_listed(&self) -> bool {
        let listed_at = self.o.uses.and_then(|uses| uses.listed_at);
        self.o.listed && listed_at.is_some_and(|at| since(self.o.now, at) < BLOCKED)
    }

    /// Everything is looked at once more, live; then there is no way back.
    fn point_of_no_return(&self, old: &[&Slot]) -> Rule {
        let o = self.o;
        let Some(looked_at) = o.last_look() else {
            return Rule::Act(Decision::LookAtPods { confirm: true });
        };
        let attempt = self.current.attempt.clone().unwrap_or_default();
        match &o.current_probe {
            None => Rule::Act(Decision::Probe { attempt }),
            Some(_) if self.unasked() => Rule::Act(Decision::LookAtLists),
            // A probe that failed was dealt with before (`published_key_fails`).
            Some(_) => {
                let attempts = old.iter().filter_map(|slot| slot.attempt.clone());
                let switch = self.current.published.unwrap_or_default();
                let retire = |attempt| Change::Retire { attempt, switch, looked_at };
                Rule::Act(Decision::Change(attempts.map(retire).collect()))
            }
        }
    }
}
