//! One run of the reconciler: rounds of observe → decide → act until there is nothing to do now, then the status.

use std::sync::Arc;

use kube::{ResourceExt, api::PostParams, runtime::reflector::ObjectRef};
use tracing::{debug, info, warn};

use super::{
    act::{act, api, catch_up, reference, refresh},
    decide::{Decision, decide, words},
    hold::{self, Hold, Reason},
    observe::{Observation, observe},
    problem::Problem,
    run::Run,
    status::{Word, status},
};
use crate::{
    api::{ApiKey, ApiKeyStatus, account::SlotState, apikey::KeySummary, condition},
    context::Context,
    env::call,
    events::EventReason,
    metrics::{Kind, ReconcileOutcome},
    outcome::Outcome,
    timings::Timings,
};

/// Rounds of one run: more than any workflow takes without waiting.
const ROUNDS: usize = 16;

const STATUS_CHANGED: &str = "the status was written by somebody else; looking again soon";
const STATUS_NOT_WRITTEN: &str =
    "the ApiKey was changed each time when its status was to be written; looking again soon";

/// Reconciles one ApiKey. Never sleeps: waiting is the returned [`Outcome`].
pub async fn reconcile(context: &Arc<Context>, reference: &ObjectRef<ApiKey>) -> Outcome {
    let Some(key) = context.keys.get(reference) else {
        // If another process or a person took the last finalizer off, no run here ended with the ApiKey gone, so the
        // namespace's list of pods is dropped here.
        context.pods.forget(reference.namespace.as_deref().unwrap_or_default());
        return Outcome::Gone;
    };
    let key = context.written.newest(key);
    let uid = key.uid().unwrap_or_default();
    let begun = context.env.clock.monotonic();
    let (outcome, how) = run_once(context, key).await;
    // If the ApiKey was deleted during this run, the watch has made this process forget it already, and the run has remembered
    // it again.
    if context.keys.get(reference).is_none_or(|now| now.metadata.uid.as_ref() != Some(&uid)) {
        context.forget_key(&uid);
    }
    let took = context.env.clock.monotonic().saturating_duration_since(begun);
    context.metrics.reconciled(Kind::ApiKey, how, took);
    outcome
}

async fn run_once(context: &Arc<Context>, key: Arc<ApiKey>) -> (Outcome, ReconcileOutcome) {
    let uid = key.uid().unwrap_or_default();
    let mut run = Run::of(key);
    match rounds(context, &mut run).await {
        Ok(None) => {
            context.backoff.forget(&uid);
            context.pods.forget(&run.key.namespace().unwrap_or_default());
            context.metrics.apikey_gone(&uid);
            (Outcome::Gone, ReconcileOutcome::Done)
        }
        Ok(Some((observation, hold))) => {
            let word =
                Word { reason: hold.reason, message: &hold.message, starving: hold.starving, failed: false };
            if hold.quiet {
                // The installation that looks after the ApiKey counts it; this one may have, before it knew whose it is.
                if hold.reason == Reason::ForeignInstallation {
                    context.metrics.apikey_gone(&uid);
                }
                return (
                    Outcome::Wait(context.backoff.after_success(&uid, hold.wait)),
                    ReconcileOutcome::Waiting,
                );
            }
            if let Err(problem) = write_status(context, &mut run, &observation, &word).await {
                return after_problem(context, &uid, &problem);
            }
            debug!(reason = hold.reason.as_str(), "Nothing to do now");
            if observation.pods.is_none() {
                let Timings { scan_every, clean_scan_every, .. } = observation.timings;
                let oldest_of_use = scan_every.max(clean_scan_every) / 2;
                let now = context.env.clock.monotonic();
                context.pods.forget_old(&observation.owner.namespace, now, oldest_of_use);
            }
            let settled = hold.reason.kind() == hold::Kind::Settled;
            context.metrics.problem(Kind::ApiKey, &uid, counted(hold.reason));
            let outcome = if settled { ReconcileOutcome::Done } else { ReconcileOutcome::Waiting };
            (Outcome::Wait(context.backoff.after_success(&uid, hold.wait)), outcome)
        }
        Err((observation, problem)) => {
            // After a conflict without a successful live read, the run knows no version at which a status could be written.
            if let Some(observation) = observation.filter(|_| !context.written.is_beaten(&run.key)) {
                let word =
                    Word { reason: problem.reason, message: &problem.message, starving: false, failed: true };
                if let Err(error) = write_status(context, &mut run, &observation, &word).await {
                    info!(problem = %error.message, "Failed to write the status");
                }
            }
            after_problem(context, &uid, &problem)
        }
    }
}

fn after_problem(context: &Context, uid: &str, problem: &Problem) -> (Outcome, ReconcileOutcome) {
    warn!(reason = problem.reason.as_str(), problem = %problem.message, "Could not go on");
    context.metrics.failed(Kind::ApiKey, problem.class, problem.reason.as_str());
    context.metrics.problem(Kind::ApiKey, uid, counted(problem.reason));
    let wait = context.backoff.after_failure(uid, problem.class, context.env.clock.wall());
    (Outcome::Wait(wait), ReconcileOutcome::Failed)
}

/// What counts as standing in the way of an ApiKey. What stands in the way of its next key alone leaves it ready; `rotations_held`
/// counts what of that does not go by itself.
fn counted(reason: Reason) -> Option<&'static str> {
    (reason.kind() != hold::Kind::Settled).then_some(reason.as_str())
}

type Failed = (Option<Box<Observation>>, Problem);

/// Rounds until there is nothing to do now; `None`: the ApiKey is gone.
async fn rounds(context: &Arc<Context>, run: &mut Run) -> Result<Option<(Observation, Hold)>, Failed> {
    catch_up(context, run).await.map_err(|problem| (None, problem))?;
    let mut last = None;
    for _ in 0..ROUNDS {
        if run.gone {
            return Ok(None);
        }
        let observation =
            observe(context, run).await.map_err(|error| undecided(last.take(), error.into()))?; // (io)
        let decision = decide(&observation); // (pure)
        if let Decision::Wait(hold) = decision {
            let let_go =
                observation.key.metadata.deletion_timestamp.is_some() && !observation.has_finalizer();
            return Ok((!let_go).then_some((observation, hold)));
        }
        debug!(?decision, "Decided");
        let next_key = decision.is_of_next_key(&observation);
        if let Err(problem) = act(context, &observation, decision, run).await {
            let problem = if next_key { problem.of_next_key(&observation) } else { problem };
            return Err((Some(Box::new(observation)), problem)); // (io)
        }
        last = Some(Box::new(observation));
    }
    let problem =
        Problem::transient(Reason::ApiServerUnavailable, "the world kept changing; looking again soon");
    Err(undecided(last, problem))
}

/// The problem of a run that ended before its next decision. While a key is being replaced, the current one works whatever
/// could not be observed, so the problem is only the next key's.
fn undecided(last: Option<Box<Observation>>, problem: Problem) -> Failed {
    let problem = match &last {
        Some(o) if is_rotating(o) => problem.of_next_key(o),
        Some(_) | None => problem,
    };
    (last, problem)
}

/// Whether its key is being replaced, or waits to be, while the current one is in the Secret.
fn is_rotating(o: &Observation) -> bool {
    let told = o.key.status.as_ref().is_some_and(told_of_rotation);
    let rotates = told || !o.superseded().is_empty();
    rotates && o.published() && o.key.metadata.deletion_timestamp.is_none()
}

/// One write, if anything but times changed; and the event of a transition.
async fn write_status(
    context: &Context,
    run: &mut Run,
    observation: &Observation,
    word: &Word<'_>,
) -> Result<(), Problem> {
    let next = status(observation, word); // (pure)
    let held =
        next.hold.as_ref().and_then(|hold| Reason::ALL.iter().find(|known| known.as_str() == hold.reason));
    context.metrics.apikey(&observation.owner.uid, next.phase.as_deref(), held.copied());
    let before = run.key.status.clone().unwrap_or_default();
    if next == before {
        return Ok(());
    }
    let begins = has_second_key(&next) && !has_second_key(&before);
    let switched = has_ended(&before, &next) || has_published(&before, &next);
    let changed = begins || switched || told(&next) != told(&before);
    let mut is_written = false;
    for _ in 0..2 {
        let key = ApiKey { status: Some(next.clone()), ..(*run.key).clone() };
        let options = PostParams::default();
        match call(api(context, &key).replace_status(&key.name_any(), &options, &key)).await {
            Ok(written) => {
                run.key = Arc::new(written);
                context.written.note(&run.key);
                is_written = true;
                break;
            }
            Err(error) if error.is_not_found() => return Ok(()),
            // The spec or somebody's annotation changed: the status still speaks of what was observed.
            Err(error) if error.is_conflict() => {
                refresh(context, run).await?;
                if run.gone {
                    return Ok(());
                }
                // The status itself was written meanwhile: by another process, or by this one in a write that was not answered.
                if run.key.status.clone().unwrap_or_default() != before {
                    return Err(Problem::transient(Reason::ApiServerUnavailable, STATUS_CHANGED));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    if !is_written {
        return Err(Problem::transient(Reason::ApiServerUnavailable, STATUS_NOT_WRITTEN));
    }
    let events = if changed { events(word.reason, &before, &next) } else { Vec::new() };
    tell(context, run, observation, word, events).await;
    Ok(())
}

/// Writes events.
async fn tell(
    context: &Context,
    run: &Run,
    observation: &Observation,
    word: &Word<'_>,
    events: Vec<EventReason>,
) {
    let issued = observation.current().map(|current| words::issued(&observation.key, current));
    for event in events {
        let note = match (event, &issued) {
            (EventReason::KeyPublished | EventReason::RotationFinished, Some(issued)) => issued.as_str(),
            (_, Some(_) | None) => word.message,
        };
        context.events.publish(&reference(&run.key), event, note).await;
    }
}

/// The events of a transition. Those of a rotation follow from the keys that exist: a rotation without a slot for the next key
/// has not begun, and one that was switched back or is no longer wanted has not finished. One may end and the next begin at
/// once.
fn events(reason: Reason, before: &ApiKeyStatus, next: &ApiKeyStatus) -> Vec<EventReason> {
    let ready = before.conditions.iter().find(|condition| condition.type_ == condition::kind::READY);
    let was = |reason: Reason| ready.is_some_and(|ready| ready.reason == reason.as_str());
    let ended = has_ended(before, next);
    let ends = reason == Reason::Issued || reason.is_of_rotation();
    let finished = (ends && ended && told_of_rotation(before)).then_some(EventReason::RotationFinished);
    let published = has_published(before, next).then_some(EventReason::KeyPublished);
    let of_now = match reason {
        Reason::Rotating => {
            // A rotation that had only a place for its key may have been blocked before anybody was told that it began.
            let made = has_two(before, &[SlotState::Creating, SlotState::Live]);
            // Whatever was said since: of two live keys the newer one was told of when it was made.
            let switched = has_two(before, &[SlotState::Live]);
            let begun = switched
                || was(Reason::Rotating)
                || was(Reason::RotationHeld)
                || was(Reason::RotationBlocked) && made;
            let goes_on = has_second_key(before) && !ended && begun;
            (has_second_key(next) && !goes_on).then_some(EventReason::RotationStarted)
        }
        reason => reason.event(),
    };
    finished.into_iter().chain(published).chain(of_now).collect()
}

/// Whether the Secret holds another key than the last one that the status told of. The write of the Secret cannot give the
/// event: if its answer is lost, the Secret is not written again.
fn has_published(before: &ApiKeyStatus, next: &ApiKeyStatus) -> bool {
    let known = before.switch.as_ref();
    next.switch.as_ref().is_some_and(|switch| known.is_none_or(|known| known.attempt != switch.attempt))
}

/// Whether a live key that is older than the current one is no longer live. A key of an earlier rotation that waits for its
/// revocation was not live before, and does not count.
fn has_ended(before: &ApiKeyStatus, next: &ApiKeyStatus) -> bool {
    let Some(current) = &next.current else { return false };
    let lives = |key: &&KeySummary| key.state == SlotState::Live.as_str();
    let older = before.keys.iter().filter(lives).filter(|key| key.revision < current.revision);
    let mut gone =
        older.filter(|key| !next.keys.iter().filter(lives).any(|other| other.revision == key.revision));
    gone.next().is_some()
}

/// Whether people were last told of a rotation.
fn told_of_rotation(status: &ApiKeyStatus) -> bool {
    let ready = status.conditions.iter().find(|condition| condition.type_ == condition::kind::READY);
    let of_rotation = Reason::ALL.iter().filter(|reason| reason.is_of_rotation());
    ready.is_some_and(|ready| of_rotation.map(|reason| reason.as_str()).any(|said| said == ready.reason))
}

/// Whether there is a second key beside the current one, or a place for one. Keys that have served and are being revoked do not
/// count.
fn has_second_key(status: &ApiKeyStatus) -> bool {
    has_two(status, &[SlotState::Reserved, SlotState::Creating, SlotState::Live])
}

/// Whether more than one of the keys is in these states.
fn has_two(status: &ApiKeyStatus, states: &[SlotState]) -> bool {
    status.keys.iter().filter(|key| states.iter().any(|state| key.state == state.as_str())).count() > 1
}

/// What a person was last told: an event is written when it changes.
fn told(status: &ApiKeyStatus) -> Vec<(&str, &str, &str)> {
    let spoken = [condition::kind::READY, condition::kind::STALLED, condition::kind::RECONCILING];
    let conditions = status.conditions.iter().filter(|c| spoken.contains(&c.type_.as_str()));
    conditions.map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str())).collect()
}

#[cfg(test)]
mod tests;
