//! Looks at the pods that read the Secret, and restarts what owns them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt;
use tracing::{info, warn};

use super::{reference, refresh};
use crate::{
    account::listing,
    api::annotation::DELETE_NOW,
    apikey::{
        hold::Reason,
        observe::{Observation, PodsSeen},
        problem::Problem,
        run::Run,
    },
    context::Context,
    env::CallError,
    events::EventReason,
    workload::{self, Consumer, Owner, Switched, Workload, WorkloadRef, owner},
};

const TOOK_TOO_LONG: &str = "it took more than two minutes from the last look at the pods to the step that cannot be taken back; everything is \
                             looked at anew";

/// Lists the namespace's pods, and judges those that read the Secret: against the last switch where one is open, else as if
/// it were switched now. A list that is young enough serves all ApiKeys of the namespace, unless `confirm`.
pub(super) async fn look(
    context: &Arc<Context>,
    o: &Observation,
    confirm: bool,
    run: &mut Run,
) -> Result<(), Problem> {
    let timings = &o.timings;
    let deleting = o.key.metadata.deletion_timestamp.is_some();
    let switched_at = if deleting { None } else { o.switched_at().filter(|_| !o.superseded().is_empty()) };
    let max_age = if confirm { Duration::ZERO } else { max_age(o, switched_at) };
    let (kube, clock, namespace) = (context.env.kube.clone(), &*context.env.clock, &o.owner.namespace);
    if confirm && o.pods.as_ref().is_some_and(|pods| pods.confirmed.is_some()) {
        // This run's last live look has expired, and what it learnt from the probe and the list of keys is about as old.
        return Err(Problem::transient(Reason::ApiServerUnavailable, TOOK_TOO_LONG));
    }
    if confirm {
        // People may have changed the ApiKey meanwhile, and the watch may be behind, so it is read live. The Secret is read
        // again as well.
        refresh(context, run).await?;
        run.consumer = None;
    }
    let looked_at = clock.wall();
    let listed = context.pods.get(kube.clone(), clock, namespace, max_age).await;
    let pods = listed.map_err(|error| unseen("pods", o, &error))?;
    let secret = o.key.secret_name();
    let switched = Switched {
        at: switched_at.unwrap_or(o.now),
        passed: switched_at.map_or(Duration::ZERO, |at| o.passed_since(at)),
        was_clean: o.clean_since().is_some(),
    };
    let scan = workload::scan(&pods, &secret, switched, o.now, timings);
    let mut consumers = match deleting {
        true => Vec::new(),
        false => workload::consumers(kube, namespace, &scan, &context.owners)
            .await
            .map_err(|error| unseen("their owners", o, &error))?,
    };
    let resting = match o.current().and_then(|slot| slot.published) {
        Some(number) => {
            let mark = workload::mark_value(&o.owner.uid, number);
            if !deleting && !o.superseded().is_empty() {
                without_pods(context, o, &mark, &mut consumers)
                    .await
                    .map_err(|error| unseen("their owners", o, &error))?;
            }
            context.marks.resting(&o.owner.uid, &mark, clock.monotonic(), timings.remark_after)
        }
        None => BTreeMap::new(),
    };
    let switch = o.current().and_then(|slot| slot.published);
    run.pods = Some(PodsSeen { scan, consumers, resting, switch, confirmed: confirm.then_some(looked_at) });
    Ok(())
}

/// How old a list of pods may be that another ApiKey asked for: at most half of the pause between two looks, so that each look
/// sees something new. Until pods are known to be clean, it also must not date from before the switch nor, once the switch has
/// settled, from before that moment: pods created after such a list may have read the old value.
fn max_age(o: &Observation, switched_at: Option<Timestamp>) -> Duration {
    let timings = &o.timings;
    let most = timings.scan_every / 2;
    let Some(at) = switched_at else { return most };
    if o.clean_since().is_some() {
        return timings.clean_scan_every / 2;
    }
    let passed = o.passed_since(at);
    match passed.saturating_sub(timings.settle_delay) {
        Duration::ZERO => passed.min(most),
        settled => settled.min(most),
    }
}

fn unseen(what: &str, o: &Observation, error: &CallError) -> Problem {
    let namespace = &o.owner.namespace;
    let message = format!(
        "{what} in namespace \"{namespace}\" could not be read ({error}), so that nobody can tell what uses the key; nothing is \
         restarted or revoked before"
    );
    let deleting = o.key.metadata.deletion_timestamp.is_some();
    match (error.is_refusal(), deleting) {
        (false, _) => Problem::transient(Reason::ApiServerUnavailable, message),
        (true, false) => Problem::transient(
            Reason::NotPermitted,
            format!(
                "{message}; let the operator read them (consumerNamespaces of the chart, or docs/rbac.yaml)"
            ),
        ),
        (true, true) => Problem::transient(
            Reason::DeletionWaits,
            format!(
                "{message}; let the operator read them (consumerNamespaces of the chart, or docs/rbac.yaml), or see yourself that \
                 nothing uses the key and say so: kubectl annotate apikey {} --namespace {namespace} {DELETE_NOW}=true",
                o.owner.name
            ),
        ),
    }
}

/// Asks for a list of the account's keys, where it has one: now, as it is to show what was done just before.
pub(super) async fn list_keys(context: &Arc<Context>, o: &Observation, run: &mut Run) -> Result<(), Problem> {
    let Some(view) = &o.account else { return Ok(()) };
    let name = view.account.name_any();
    let memory = context.memory_of(&name, &view.account);
    let credentials = context.token_of(&view.account)?;
    let asked_at = context.env.clock.wall();
    let listed = listing::fresh(context, &view.account, &memory, &credentials, Duration::ZERO).await;
    listed.map_err(|error| Problem::of_bags(&name, &error))?;
    run.listed = Some(asked_at);
    Ok(())
}

/// Marks workloads, so that their controllers replace their pods. A workload whose mark lost a conflict is looked at again.
pub(super) async fn restart(
    context: &Arc<Context>,
    o: &Observation,
    workloads: &[WorkloadRef],
    run: &mut Run,
) -> Result<(), Problem> {
    let (Some(pods), Some(number)) = (&o.pods, o.current().and_then(|slot| slot.published)) else {
        return Ok(());
    };
    // The restarts put what was seen of the pods out of date.
    run.pods = None;
    let value = workload::mark_value(&o.owner.uid, number);
    let namespace = &o.owner.namespace;
    for consumer in &pods.consumers {
        let Some(workload) = consumer.workload.as_ref().filter(|known| workloads.contains(&known.reference))
        else {
            continue;
        };
        let WorkloadRef { kind, name, uid: _ } = &workload.reference;
        let marked =
            workload::mark(context.env.kube.clone(), namespace, workload, &o.owner.name, &value).await;
        if marked.is_err() {
            // The workload may carry the mark all the same, by this request or by another process, and may have no pod any more
            // that leads to it: workloads with this mark have to be looked for again.
            context.marks.doubt(&o.owner.uid);
        }
        match marked {
            Ok(()) => {
                context.metrics.restarted(kind.as_str());
                context.marks.note(&workload.reference, &o.owner.uid, &value, context.env.clock.monotonic());
                info!(kind = kind.as_str(), workload = %name, mark = %value, "Restarted a workload");
                tell_restart(context, o, workload).await;
            }
            Err(error) if error.is_conflict() || error.is_not_found() => {}
            // The other workloads do not wait for this one.
            Err(error) if error.is_refusal() => {
                warn!(kind = kind.as_str(), workload = %name, %error, "The restart of a workload was refused");
                let now = context.env.clock.monotonic();
                context.marks.refused(&workload.reference, &o.owner.uid, &value, now, error.to_string());
            }
            // An admission webhook of the tenants that does not answer makes this workload's mark fail each time.
            Err(error) if fails_for_it_alone(&error) && fails_again(context, o, workload, &value, &error) => {
                warn!(kind = kind.as_str(), workload = %name, %error, "The restart of a workload fails each time");
            }
            Err(error) => {
                warn!(kind = kind.as_str(), workload = %name, %error, "Failed to restart a workload");
                let message = format!(
                    "{} \"{name}\" could not be restarted ({error}); both keys stay valid; it is tried again",
                    kind.as_str()
                );
                return Err(Problem::transient(Reason::ApiServerUnavailable, message));
            }
        }
    }
    Ok(())
}

/// Writes an event for the workload, whose people may not know of the ApiKey, and one for the ApiKey.
async fn tell_restart(context: &Context, o: &Observation, workload: &Workload) {
    let WorkloadRef { kind, name, uid } = &workload.reference;
    let secret = o.key.secret_name();
    let what = ObjectReference {
        api_version: Some("apps/v1".to_owned()),
        kind: Some(kind.as_str().to_owned()),
        namespace: Some(o.owner.namespace.clone()),
        name: Some(name.clone()),
        uid: Some(uid.clone()),
        ..ObjectReference::default()
    };
    let note = format!(
        "ApiKey \"{}\" has another key: the pods are replaced, so that they read what Secret \"{secret}\" holds now",
        o.owner.name
    );
    context.events.publish(&what, EventReason::Restarted, &note).await;
    let told = format!(
        "{} {name} is restarted, so that it reads the key that Secret \"{secret}\" holds now",
        kind.as_str()
    );
    context.events.publish(&reference(&o.key), EventReason::Restarted, &told).await;
}

/// Whether a mark may have failed for this workload alone: an admission webhook that is asked about it is down, or slower than
/// the deadline of the request.
fn fails_for_it_alone(error: &CallError) -> bool {
    error.code() == Some(500) || matches!(error, CallError::Timeout(_))
}

fn fails_again(
    context: &Context,
    o: &Observation,
    workload: &Workload,
    mark: &str,
    error: &CallError,
) -> bool {
    let now = context.env.clock.monotonic();
    context.marks.failed(&workload.reference, &o.owner.uid, mark, now, error.to_string())
}

/// Adds to `consumers` the marked workloads that no pod leads to: they may not come up at all (io). A process that did not make
/// the switch looks for marked workloads first.
async fn without_pods(
    context: &Context,
    o: &Observation,
    mark: &str,
    consumers: &mut Vec<Consumer>,
) -> Result<(), CallError> {
    let (marks, uid) = (&context.marks, &o.owner.uid);
    let now = context.env.clock.monotonic();
    // A process that missed two looks may have stood still, while another one led and set marks.
    let term = 2 * if o.clean_since().is_some() { o.timings.clean_scan_every } else { o.timings.scan_every };
    if !marks.is_known(uid, mark, now, term) {
        let kube = context.env.kube.clone();
        let (secret, of) = (o.key.secret_name(), (o.owner.name.as_str(), mark));
        for reference in owner::marked(kube, &o.owner.namespace, &secret, of).await? {
            if !marks.set(uid, mark).contains(&reference) {
                marks.note(&reference, uid, mark, now);
            }
        }
    }
    marks.know(uid, mark, now);
    for reference in marks.set(uid, mark) {
        if consumers.iter().any(|consumer| consumer.is(&reference)) {
            continue;
        }
        let kube = context.env.kube.clone();
        if let Some(workload) = owner::read(kube, &o.owner.namespace, &reference).await? {
            let (owner, workload) = (Owner::Workload(reference), Some(workload));
            consumers.push(Consumer { owner, workload, pods: Vec::new(), stale: Vec::new() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use serde_json::json;

    use super::*;
    use crate::{
        api::account::SlotState,
        apikey::fixtures::{aged, ago, key, mine, seen},
        fixtures::{process, server},
        operator::parts::Watches,
    };

    #[tokio::test]
    async fn before_a_step_that_cannot_be_taken_back_the_apikey_is_read_live() {
        for (confirm, first) in [(true, "/apikeys/app-0"), (false, "/pods")] {
            let mut live = key();
            live.spec.suspend = Some(true);
            let (kube, asked) = server(move |request, _| match request.path().ends_with("/pods") {
                true => (200, json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": []})),
                false => (200, json!(live)),
            });
            let o = seen().with_slot(mine(SlotState::Live)).deleted(Duration::from_secs(1));
            let mut run = Run::of(o.key.clone());
            run.consumer.clone_from(&o.consumer);
            look(&process(&Watches::new(), kube), &o, confirm, &mut run).await.unwrap();
            assert!(asked.lock().unwrap()[0].path().ends_with(first), "confirm: {confirm}");
            assert_eq!(run.key.suspended(), confirm, "what people said meanwhile counts");
            assert_eq!(run.consumer.is_none(), confirm, "so does what they did to the Secret");
        }
    }

    #[test]
    fn who_may_not_look_at_pods_is_told_so_and_how_to_delete_without_a_look() {
        let refused = |code, reason: &str| {
            CallError::Kube(Box::new(kube::Error::Api(Status::failure("no", reason).with_code(code).boxed())))
        };
        let said = |o: &Observation, error: &CallError| {
            let problem = unseen("pods", o, error);
            (problem.reason, problem.message.contains("delete-now=true"))
        };
        let forbidden = refused(403, "Forbidden");
        let deleting = seen().deleted(Duration::from_secs(1));
        assert_eq!(said(&seen(), &forbidden), (Reason::NotPermitted, false));
        assert_eq!(said(&deleting, &forbidden), (Reason::DeletionWaits, true));
        let away = refused(503, "ServiceUnavailable");
        assert_eq!(said(&seen(), &away), (Reason::ApiServerUnavailable, false), "it goes by itself");
        assert_eq!(said(&deleting, &away), (Reason::ApiServerUnavailable, false));
    }

    #[test]
    fn a_mark_that_is_never_answered_may_be_its_workloads_own_affair_as_one_that_fails() {
        let answered = |code| {
            CallError::Kube(Box::new(kube::Error::Api(Status::failure("no", "no").with_code(code).boxed())))
        };
        assert!(fails_for_it_alone(&CallError::Timeout(Duration::from_secs(15))));
        assert!(fails_for_it_alone(&answered(500)));
        assert!(
            [409, 429, 503].map(answered).iter().all(|error| !fails_for_it_alone(error)),
            "the API server's"
        );
    }

    #[test]
    fn a_list_from_before_a_switch_does_not_serve_after_it() {
        const SECOND: Duration = Duration::from_secs(1);
        let switched = |age| seen().with_slot(aged(age, mine(SlotState::Live)));
        assert_eq!(max_age(&switched(SECOND * 100), None), SECOND * 15 / 2, "no switch is open");
        assert_eq!(max_age(&switched(SECOND * 100), Some(ago(SECOND * 100))), SECOND * 15 / 2);
        assert_eq!(max_age(&switched(SECOND * 2), Some(ago(SECOND * 3))), SECOND * 2);
        assert_eq!(max_age(&switched(SECOND * 4), Some(ago(SECOND * 3))), SECOND * 3);
        assert_eq!(max_age(&switched(SECOND * 60), Some(ago(SECOND * 61))), SECOND * 15 / 2, "not settled");
        assert_eq!(max_age(&switched(SECOND * 64), Some(ago(SECOND * 63))), SECOND * 3, "settled since");
        let ahead = ago(Duration::ZERO).saturating_add(SECOND).unwrap();
        assert_eq!(
            max_age(&switched(SECOND * 3), Some(ahead)),
            Duration::ZERO,
            "the API server's clock is ahead"
        );
    }
}
