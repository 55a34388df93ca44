//! One run for one account: observe (caches) → decide (pure) → look or act (one request or write) → observe again,
//! until there is nothing to do now; then the status (pure), in one write and only if it says something new.
//!
//! Nothing here waits: what is to happen later comes back as a duration. Nothing here fails: a failure is logged at
//! this boundary, told by event where a person has to act, and comes back as the wait that its class asks for.

use std::{sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use tracing::{error, warn};

use super::{
    act::{ActError, Actor, reference},
    decide::{Decision, Standing, decide, neighbours, standing},
    observe::{Found, Observation, observe},
    status,
};
use crate::{
    api::BagsAccount,
    backoff::FailureClass,
    context::Context,
    env::chain,
    events::EventReason,
    ledger::{Refusal, StoreError},
    metrics::{Kind, ReconcileOutcome},
    outcome::Outcome,
};

/// At most this many steps in one run, so that rules that go round in circles do so slowly.
const STEPS: usize = 64;
/// After this long a run begins no further step, so that its status is written.
const LONGEST_RUN: Duration = Duration::from_secs(20);
/// The wait before the next run after one that was cut short.
const GO_ON: Duration = Duration::from_secs(1);

/// How the steps of a run ended.
enum End {
    /// Nothing to do before this long from now; `None`: nothing until something changes.
    Rest(Option<Duration>),
    /// Like `Rest`, but a step failed on which nothing else depends.
    PassedOver(Option<Duration>, ActError),
    /// The run reached its limit, and there is more to do.
    CutShort,
    /// The account is gone, or this run took the finalizer off it.
    Gone,
    /// A step failed.
    Failed(ActError),
}

/// Runs once for the account of this name.
///
/// # Guarantees
/// A run with nothing to do sends no request, neither to the API server nor to Bags. A future that is dropped at any
/// point leaves a state that the next run goes on from.
pub async fn reconcile(context: &Arc<Context>, name: &str) -> Outcome {
    let Some(account) = context.ledger.read(name).await else {
        context.forget_account(name);
        return Outcome::Gone;
    };
    let begun = context.env.clock.monotonic();
    let uid = account.uid().unwrap_or_default();
    let before = account.status.clone().unwrap_or_default().conditions;
    let (seen, end) = steps(context, account).await;
    // The metrics go before the status: a person who reads in the status that something is wrong finds it in the metrics as well.
    if !matches!(end, End::Gone) {
        let budget = context.memory_of(name, &seen.account).budget.remaining();
        context.metrics.budget(name, i64::from(budget));
        context.metrics.awaited(name, status::awaited(&seen));
    }
    let written = match &end {
        End::Rest(_) | End::PassedOver(..) | End::CutShort => write_status(context, &seen, &before).await,
        // The status must tell what a person has to do, even while something else fails in every run. The outcome of the run is
        // that failure, not one of the status write.
        End::Failed(failure) if failure.leaves_status() => {
            if let Err(error) = write_status(context, &seen, &before).await {
                warn!(error = %chain(&error), "Status was not written");
            }
            Ok(())
        }
        End::Gone | End::Failed(_) => Ok(()),
    };
    let (outcome, how) = match (end, written) {
        (End::Gone, _) => {
            context.backoff.forget(&uid);
            (Outcome::Gone, ReconcileOutcome::Done)
        }
        (End::Failed(failure), _) | (_, Err(failure)) => {
            (Outcome::Wait(failed(context, &seen, failure).await), ReconcileOutcome::Failed)
        }
        (End::Rest(wait), Ok(())) => {
            (Outcome::Wait(rest(context, &seen, &uid, wait)), ReconcileOutcome::Done)
        }
        (End::PassedOver(wait, failure), Ok(())) => {
            let again = failed(context, &seen, failure).await;
            let wait = next_deadline(&seen, wait).map_or(again, |wait| wait.min(again));
            (Outcome::Wait(wait), ReconcileOutcome::Failed)
        }
        (End::CutShort, Ok(())) => (Outcome::Wait(GO_ON), ReconcileOutcome::Waiting),
    };
    let took = context.env.clock.monotonic().saturating_duration_since(begun);
    context.metrics.reconciled(Kind::BagsAccount, how, took);
    // If the account was deleted during this run, the run may have recorded memory and metrics for it again after the watch's
    // delete event had cleared them.
    if context.ledger.read(name).await.is_none() {
        context.forget_account(name);
    }
    outcome
}

async fn steps(context: &Arc<Context>, account: Arc<BagsAccount>) -> (Observation, End) {
    let name = account.name_any();
    let memory = context.memory_of(&name, &account);
    let begun = context.env.clock.monotonic();
    let mut found = Found::default();
    let mut seen = observe(context, account, &found).await; // (io: caches)
    for _ in 0..STEPS {
        let decision = decide(&seen); // (pure)
        let mut actor = Actor { context, seen: &seen, memory: &memory, found: &mut found };
        let done = match decision {
            Decision::Rest(wait) => {
                let failure = found.failure.take();
                return (seen, failure.map_or(End::Rest(wait), |failure| End::PassedOver(wait, failure)));
            }
            Decision::Look(look) => actor.look(look).await, // (io)
            Decision::Act(effect) => actor.act(effect).await, // (io)
        };
        if let Err(failure) = done {
            return (seen, End::Failed(failure));
        }
        if found.let_go {
            return (seen, End::Gone);
        }
        let Some(account) = context.ledger.read(&name).await else { return (seen, End::Gone) };
        seen = observe(context, account, &found).await; // (io: caches)
        if seen.now.saturating_duration_since(begun) > LONGEST_RUN {
            break;
        }
    }
    (seen, found.failure.take().map_or(End::CutShort, |failure| End::PassedOver(Some(GO_ON), failure)))
}

/// The next deadline, or the end of the pause in requests to Bags if that is earlier: the status has to show that it is over.
fn next_deadline(seen: &Observation, wait: Option<Duration>) -> Option<Duration> {
    let pause = seen.paused_until.map(|until| until.duration_since(seen.wall));
    let pause = pause.and_then(|pause| Duration::try_from(pause).ok());
    [wait, pause].into_iter().flatten().min()
}

/// The wait until the next deadline. While the list fails, the account's count of failures is not reset: only a list that is
/// answered makes the next wait short again.
fn rest(context: &Context, seen: &Observation, uid: &str, wait: Option<Duration>) -> Duration {
    match (&seen.facts.list_failure, next_deadline(seen, wait)) {
        (Some(_), Some(wait)) => wait.min(seen.timings.resync),
        (Some(_), None) => seen.timings.resync,
        (None, wait) => context.backoff.after_success(uid, wait),
    }
}

/// Writes the status, if it says something new, and publishes what changed in it as events.
async fn write_status(context: &Context, seen: &Observation, before: &[Condition]) -> Result<(), ActError> {
    let name = seen.account.name_any();
    if tell_of_neighbour(context, seen).await {
        return Ok(());
    }
    let foreign = standing(seen) == Standing::Foreign;
    let written = context.ledger.update(&name, |draft| {
        let now = draft.now();
        let held = draft.is_held();
        let show = match (foreign, held) {
            (true, _) => status::show_foreign,
            (false, true) => status::show_held,
            (false, false) => status::show,
        };
        show(&mut draft.status, draft.account, seen, now);
        Ok(())
    });
    let account = match written.await {
        Ok(account) => account,
        Err(StoreError::NoAccount(_)) => return Ok(()),
        Err(error) => return Err(ActError::Ledger(error)),
    };
    let after = account.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    for (reason, note) in status::transitions(before, after) {
        context.events.publish(&reference(&account), reason, &note).await;
    }
    Ok(())
}

/// Two installations of one cluster that both wrote the status of an account would overwrite each other without end. So the one
/// that does not own the ledger leaves the status alone, and says why once, by an event. Returns whether this process is that
/// one.
async fn tell_of_neighbour(context: &Context, seen: &Observation) -> bool {
    let beside = neighbours(seen);
    let memory = context.memory_of(&seen.account.name_any(), &seen.account);
    let told = memory.note(|facts| std::mem::replace(&mut facts.told_of_neighbour, beside));
    if beside && !told {
        let note = status::foreign(seen);
        warn!(account = seen.account.name_any(), why = note, "Account is left alone");
        context.events.publish(&reference(&seen.account), EventReason::ForeignInstallation, &note).await;
    }
    beside
}

/// The wait after a failed run.
async fn failed(context: &Context, seen: &Observation, failure: ActError) -> Duration {
    let class = failure.class();
    context.metrics.failed(Kind::BagsAccount, class, "ReconcileFailed");
    match (&failure, class) {
        // Another writer changed the ledger first: everything is decided again.
        (ActError::Ledger(StoreError::Refused(Refusal::NotInState | Refusal::Anothers)), _) => {}
        (_, FailureClass::Terminal) => {
            error!(error = %chain(&failure), "Reconcile failed");
            let regarding = reference(&seen.account);
            context.events.publish(&regarding, EventReason::ReconcileFailed, &chain(&failure)).await;
        }
        (_, FailureClass::Transient | FailureClass::RateLimited(_)) => {
            warn!(error = %chain(&failure), "Reconcile failed");
        }
    }
    let uid = seen.account.uid().unwrap_or_default();
    context.backoff.after_failure(&uid, class, context.env.clock.wall())
}

#[cfg(test)]
mod tests;
