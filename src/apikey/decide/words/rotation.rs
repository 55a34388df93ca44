//! What a person reads of a rotation.

use std::time::Duration;

use jiff::Timestamp;

use super::{account_name, key_name, moment};
use crate::{
    api::{ApiKey, account::Slot},
    apikey::{decide::rotation::ends_schedule, observe::AccountView, quiet::Quiet},
    bags::Probe,
    workload::{Consumer, Gap, Holder, Obstacle, Owner, Plan, Scan, Why, WorkloadRef, restart},
};

/// At most this many pods and workloads are named, and the others counted: a message has room for no more.
const NAMED: usize = 20;

pub(in crate::apikey::decide) fn unknown_zone(zone: &str) -> String {
    format!(
        "spec.rotation.windows names the time zone \"{zone}\", which does not exist; write an IANA name, for example \
         Europe/Berlin; until then only the annotation keys.bags.fm/rotate starts a rotation"
    )
}

pub(in crate::apikey::decide) fn turned_back(current: &Slot, times: i64) -> String {
    format!(
        "a rotation of key {} is due, and the last {times} were turned back, as a workload did not come up with the new key: none \
         begins on schedule any more; see what its new pods say (kubectl describe pod), then ask for one with another \
         keys.bags.fm/rotate",
        key_name(current)
    )
}

/// The Secret goes back to an older key; `before` is that key's slot before the switch back.
pub(in crate::apikey) fn switched_back(key: &ApiKey, before: Option<&Slot>) -> String {
    let times = before.and_then(|slot| slot.switched_back).unwrap_or(0).saturating_add(1);
    let next = match key.rotation().every {
        None => "the next rotation begins with another keys.bags.fm/rotate".to_owned(),
        Some(_) if ends_schedule(Some(times)) => format!(
            "the last {times} rotations were turned back, and none begins on schedule any more; see what its new pods say (kubectl \
             describe pod), then ask for one with another keys.bags.fm/rotate"
        ),
        Some(_) => "the next rotation begins on schedule, or with another keys.bags.fm/rotate".to_owned(),
    };
    format!(
        "Secret \"{}\" goes back to the old key, as a workload did not come up with the new one; the new one is revoked once \
         nothing can hold it; {next}",
        key.secret_name()
    )
}

pub(in crate::apikey::decide) fn switch_undated(key: &ApiKey) -> String {
    format!(
        "the API server does not tell when Secret \"{0}\" was written (metadata.managedFields): which pods hold the old key \
         cannot be told, and both keys stay valid; see what takes managedFields away, then delete Secret \"{0}\": it is written \
         again, and the time is kept",
        key.secret_name()
    )
}

pub(in crate::apikey::decide) fn no_second_slot(view: &AccountView) -> String {
    let capacity = view.room.capacity(&view.ledger.slots);
    format!(
        "a rotation is due, and account \"{}\" has no slot for a second key: {} of {} in use; it begins when one comes free: \
         delete an ApiKey, let other rotations end, or ask the platform team for a higher limit",
        account_name(view),
        capacity.used,
        capacity.limit
    )
}

pub(in crate::apikey::decide) fn gaps(gaps: &[(&Consumer, Gap)]) -> String {
    let named = list(gaps.iter().map(|(consumer, gap)| format!("{} ({})", consumer.owner, why_gap(*gap))));
    format!(
        "a rotation is due, and begins when all that reads the key can be restarted without a gap: {named}; let it roll over, \
         or allow the gap with spec.rollout.allowGap: true"
    )
}

fn why_gap(gap: Gap) -> String {
    let why = match gap {
        Gap::Recreate => "strategy Recreate ends all pods before new ones start",
        Gap::NoSurge => {
            "all its pods may end before a new one is ready: give it a second replica, room to surge, a lower maxUnavailable, or \
             wait until all its pods are ready"
        }
        Gap::OnDelete => "strategy OnDelete replaces a pod only when somebody deletes it",
        Gap::Partition(partition) => {
            return format!("its partition {partition} leaves the pods below that number as they are");
        }
        Gap::Paused => "it is paused",
        Gap::Failed => "its last rollout has failed, and has to be mended first",
    };
    why.to_owned()
}

pub(in crate::apikey::decide) fn restarting(
    previous: &Slot,
    scan: &Scan,
    plan: &Plan,
    restarts: bool,
    settles_at: Option<Timestamp>,
) -> String {
    let pods = list(scan.stale().map(|holder| {
        let going = if holder.terminating { ", terminating" } else { "" };
        let node = holder.node.as_deref().unwrap_or("no node");
        format!("{} (on {node}{going}{})", holder.pod, waited_for(holder))
    }));
    let mut said = format!("key {} stays valid: these pods may still use it: {pods}", key_name(previous));
    if !restarts {
        said.push_str("; by spec.rollout.restart they are not restarted: restart them yourself");
    }
    let later = plan.mark.iter().chain(&plan.waiting).filter(|_| restarts).collect();
    let steps: [(&str, Vec<&WorkloadRef>); 3] = [
        ("restarting", plan.underway.iter().collect()),
        ("restarted", plan.done.iter().collect()),
        ("to be restarted", later),
    ];
    for (step, workloads) in steps.into_iter().filter(|(_, workloads)| !workloads.is_empty()) {
        said.push_str(&format!("; {step}: {}", list(workloads.into_iter().map(ToString::to_string))));
    }
    if !plan.obstructed.is_empty() {
        let named = plan.obstructed.iter().map(|(who, why)| format!("{} ({})", who, why_not(who, why)));
        said.push_str(&format!("; not restarted by the operator: {}", list(named)));
    }
    // Whoever is quick to do what is asked for would have to do it again.
    if let Some(at) = settles_at.filter(|_| !restarts || !plan.obstructed.is_empty()) {
        let at = moment(at, Duration::ZERO);
        said.push_str(&format!(
            "; a pod that is made before {at} may get the old value, and counts as one that has it"
        ));
    }
    said
}

/// What has to happen to a pod that needs no restart; nothing for other pods.
fn waited_for(holder: &Holder) -> String {
    match holder.why() {
        Some(Why::Started | Why::Mounted) | None => String::new(),
        Some(Why::NotReady) => {
            ", which reads its file again and is not Ready: let it become Ready, or delete it".to_owned()
        }
        // The time that is left is not told: it would make another message at each look.
        Some(Why::Settling(_)) => ", which is soon to have read its file again".to_owned(),
        Some(Why::Unknown) => ", whose node tells nothing of its containers: see the node".to_owned(),
    }
}

fn why_not(owner: &Owner, reason: &restart::Reason) -> String {
    match reason {
        restart::Reason::NotRestartable => match owner {
            Owner::Job { .. } => "it is waited for: let it end, or delete it",
            Owner::Bare => "they are waited for: let them end, or replace them",
            Owner::Workload(_) | Owner::Unknown { .. } => {
                "restart it yourself, so that its pods are replaced"
            }
        }
        .to_owned(),
        restart::Reason::Gone => "its workload is gone: delete its pods, or let them end".to_owned(),
        restart::Reason::Obstacle(Obstacle::OptedOut) => {
            "keys.bags.fm/restart is false: restart it yourself".to_owned()
        }
        restart::Reason::Obstacle(Obstacle::Paused) => "it is paused: resume it".to_owned(),
        restart::Reason::Obstacle(Obstacle::OnDelete) => "strategy OnDelete: delete its pods".to_owned(),
        restart::Reason::Obstacle(Obstacle::Partition(partition)) => {
            format!("its partition is {partition}: lower it to 0")
        }
        restart::Reason::Gap(gap) => {
            format!(
                "{}: restart it yourself, or allow the gap with spec.rollout.allowGap: true",
                why_gap(*gap)
            )
        }
        restart::Reason::MarkTaken => {
            "something took the annotation restart.keys.bags.fm/... from its pod template twice: restart it yourself now, and have \
             that leave the annotation alone for the next rotation"
                .to_owned()
        }
        restart::Reason::Refused(said) => format!(
            "the API server does not let it be restarted: {}; allow it (docs/rbac.yaml, or the policy that it names), or restart it \
             yourself",
            cut(said)
        ),
        restart::Reason::RestartedBefore => {
            "it was restarted for this switch already: if those pods stay, restart it yourself".to_owned()
        }
        restart::Reason::RolloutFailed(said) => format!("its last rollout failed: {}", cut(said)),
    }
}

pub(in crate::apikey::decide) fn rollout_failed(
    previous: &Slot,
    reference: &WorkloadRef,
    said: &str,
) -> String {
    format!(
        "{} does not come up with the key that the Secret holds: {}; key {} stays valid as well, and nothing more is restarted; \
         see what its new pods say (kubectl describe pod); it goes on by itself once the rollout is complete",
        reference,
        cut(said),
        key_name(previous)
    )
}

pub(in crate::apikey::decide) fn rollout_fails_since(
    previous: &Slot,
    reference: &WorkloadRef,
    said: &str,
) -> String {
    format!(
        "{} came up with the key that the Secret holds, and its rollout fails since: {}; key {} stays valid as well, and nothing \
         more is restarted; see what its new pods say (kubectl describe pod); it goes on by itself once the rollout is complete",
        reference,
        cut(said),
        key_name(previous)
    )
}

pub(in crate::apikey::decide) fn rollout_had_failed(
    previous: &Slot,
    reference: &WorkloadRef,
    said: &str,
) -> String {
    format!(
        "the rollout of {} had failed before the last pod with the old key went: {}; key {} stays valid as well, and nothing more is \
         restarted; see what its new pods say (kubectl describe pod); it goes on by itself once the rollout is complete",
        reference,
        cut(said),
        key_name(previous)
    )
}

pub(in crate::apikey::decide) fn no_way_back(previous: &Slot, reference: &WorkloadRef, said: &str) -> String {
    format!(
        "{} does not come up with the new key: {}; there is no way back, as Bags does not accept key {} any more, and nothing more \
         is restarted; see what its new pods say (kubectl describe pod); it goes on by itself once the rollout is complete",
        reference,
        cut(said),
        key_name(previous)
    )
}

pub(in crate::apikey::decide) fn settling(previous: &Slot) -> String {
    format!(
        "key {} stays valid: no pod is seen with it, and one that starts now may still be given it by its kubelet",
        key_name(previous)
    )
}

pub(in crate::apikey::decide) fn coming_up(previous: &Slot, down: &[WorkloadRef]) -> String {
    format!(
        "key {} stays valid: no pod is seen with it, and these are not up with the newer one yet: {}",
        key_name(previous),
        list(down.iter().map(ToString::to_string))
    )
}

pub(in crate::apikey::decide) fn overlapping(
    previous: &Slot,
    clean_since: Timestamp,
    end: (Timestamp, Duration),
    quiet: &Quiet,
) -> String {
    let (now, left) = end;
    let old = key_name(previous);
    let moved = format!("no pod can hold key {old} since {}", moment(clean_since, Duration::ZERO));
    let unknown_caller = |used: Timestamp| {
        let used = moment(used, Duration::ZERO);
        format!("; an unknown caller uses it: last at {used}; give it the new value from the Secret")
    };
    let (said, dated) = match quiet {
        Quiet::Proven => ("; it has been out of use for spec.rotation.quietFor".to_owned(), true),
        Quiet::For { since, .. } if *since > clean_since => (unknown_caller(*since), true),
        Quiet::For { since, .. } => {
            let since = moment(*since, Duration::ZERO);
            (
                format!(
                    "; no use of it is known since {since}, and it has to be quiet for spec.rotation.quietFor"
                ),
                true,
            )
        }
        Quiet::Ask | Quiet::Lagging { .. } => {
            ("; a newer list has to show that it is out of use".to_owned(), false)
        }
        Quiet::Unproven { used: Some(used), .. } => (unknown_caller(*used), true),
        Quiet::Unproven { used: None, .. } => {
            ("; the account cannot show that it is out of use".to_owned(), true)
        }
    };
    match dated && !left.is_zero() {
        true => format!("{moved}{said}; it is revoked after {} at the earliest", moment(now, left)),
        false => format!("{moved}{said}; it is revoked soon"),
    }
}

pub(in crate::apikey::decide) fn published_key_fails(
    current: &Slot,
    previous: &Slot,
    probe: &Probe,
    expected: Option<&str>,
) -> String {
    let (fails, advice) = match probe {
        Probe::Dead => {
            let advice = "see who revoked the other one. A key that is revoked does not come back: annotate this ApiKey with \
                          keys.bags.fm/delete-now=true, delete it (with spec.deletionPolicy: Revoke, or both keys stay), apply it again \
                          once the account has let both keys go, then restart what reads the Secret";
            ("Bags does not accept it any more".to_owned(), advice)
        }
        Probe::Forbidden => (
            "Bags does not let it use the service, and perhaps no key of its user".to_owned(),
            "see whether the user is suspended at Bags",
        ),
        Probe::UserGone => (
            "Bags does not know its user any more".to_owned(),
            "see what became of the user at Bags: no key of a user that is gone works",
        ),
        Probe::Alive { user } => (
            format!(
                "it is of user {}, and spec.expectedUser of the account is {}",
                user.as_str(),
                expected.unwrap_or_default()
            ),
            "correct spec.expectedUser, or the account's credentials",
        ),
    };
    format!(
        "key {} is in the Secret, and {fails}; key {} is not revoked: {advice}",
        key_name(current),
        key_name(previous)
    )
}

pub(in crate::apikey::decide) fn next_window(missed: Timestamp, opens: Timestamp) -> String {
    format!(
        "; a rotation has been due since {} and waits for the next window, at {}",
        moment(missed, Duration::ZERO),
        moment(opens, Duration::ZERO)
    )
}

/// The first ones by name, and how many more there are.
pub(in crate::apikey::decide) fn list(all: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = all.collect();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}

/// Cuts another program's words to what a message has room for, and takes their final dots off, as the message goes on after
/// them.
fn cut(said: &str) -> String {
    said.trim_end_matches('.').chars().take(200).collect()
}
