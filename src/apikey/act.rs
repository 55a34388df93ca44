//! Carries a decision out. Makes no choices; what goes wrong becomes a [`Problem`] with the words for it.

use std::sync::Arc;

use kube::{Api, ResourceExt};
use tokio::time::Instant;

mod finish;
mod pods;
mod release;
mod secret;

pub(super) use finish::{ensure_finalizer, finalizer_refused};
pub(super) use secret::secret_refused;

use super::{
    decide::{Decision, words},
    hold::Reason,
    make,
    observe::Observation,
    problem::Problem,
    run::{Asked, Run},
};
use crate::{
    account::credentials::trust_of,
    api::{ApiKey, BagsAccount, account::Capability},
    bags::Probe,
    consumer_secret::Found,
    context::Context,
    env::call,
    events::EventReason,
    ledger::{Change, Ledger, Refusal, StoreError},
    metrics::{KeyStep, RotationOutcome},
    time::since,
    workload,
};

/// Carries a decision out (io), and leaves in `run` what the next observation should know.
///
/// # Errors
/// What stood in the way.
pub async fn act(
    context: &Arc<Context>,
    o: &Observation,
    decision: Decision,
    run: &mut Run,
) -> Result<(), Problem> {
    let account = &o.key.spec.account_ref.name;
    if let Decision::Change(changes) = &decision {
        release::mark(context, changes).await?;
    }
    let begun = context.env.clock.monotonic();
    match decision {
        Decision::Change(changes) => match context.ledger.change(account, &changes).await {
            Ok(written) => {
                // After a switch back, the pods that were seen were judged by the switch before it.
                run.pods = None;
                for change in &changes {
                    if let Change::SwitchBack { attempt, .. } = change {
                        switched(context, &written, attempt, begun);
                    }
                }
                count_rotations(context, o, &changes);
                tell_switch_back(context, o, &changes).await;
                Ok(())
            }
            refused => lost_race(refused.map(drop)),
        },
        Decision::EnsureFinalizer => finish::put_finalizer_back(context, o, run).await,
        Decision::Make => make::make(context, o, run).await,
        Decision::Probe { attempt } => probe(context, o, attempt, run).await,
        Decision::Publish { attempt, key_id, user } => {
            publish(context, account, attempt, key_id, user).await?;
            // Pods created since the last look may hold the old value, and the pods that were seen were judged by no switch, or
            // by the previous one.
            run.pods = None;
            // At the first publication the Secret does not exist yet, as the dry-run saw. If it does by now, its creation fails
            // with 409.
            let first = o.slots().iter().all(|slot| slot.published.is_none() && slot.last_switch.is_none());
            run.consumer = first.then_some(Found::Missing);
            Ok(())
        }
        Decision::Distrust { attempt } => distrust(context, o, account, attempt).await,
        Decision::Project => secret::project(context, o, run).await,
        Decision::LookAtPods { confirm } => pods::look(context, o, confirm, run).await,
        Decision::LookAtLists => pods::list_keys(context, o, run).await,
        Decision::Restart(workloads) => pods::restart(context, o, &workloads, run).await,
        Decision::Finish { remove_secret } => finish::finish(context, o, remove_secret, run).await,
        Decision::Wait(_) => Ok(()),
    }
}

/// Counts rotations. All old keys of one switch are retired together, and end one rotation; a newer key that is retired after a
/// switch back ends none.
fn count_rotations(context: &Context, o: &Observation, changes: &[Change]) {
    let Some(current) = o.current() else { return };
    let is_older = |attempt: &String| {
        let slots = o.slots();
        slots.iter().any(|slot| slot.attempt.as_ref() == Some(attempt) && slot.revision < current.revision)
    };
    let is_known = context.refusals.is_known(&o.owner.uid, context.env.clock.monotonic());
    let outcome = changes.iter().find_map(|change| match change {
        // A place that was given back after a refusal is taken for the same rotation.
        Change::ReserveNext { .. } if !is_known => Some((RotationOutcome::Begun, None)),
        Change::Retire { attempt, .. } if is_older(attempt) => {
            Some((RotationOutcome::Finished, Some(since(o.now, current.since))))
        }
        Change::SwitchBack { .. } => Some((RotationOutcome::SwitchedBack, None)),
        Change::Reserve { .. }
        | Change::ReserveFurther { .. }
        | Change::ReserveNext { .. }
        | Change::GiveBack { .. }
        | Change::License { .. }
        | Change::Identify { .. }
        | Change::Publish { .. }
        | Change::Retire { .. }
        | Change::NotMade { .. }
        | Change::Abandon { .. }
        | Change::Lose { .. }
        | Change::Doubt { .. }
        | Change::Condemn { .. }
        | Change::Release { .. }
        | Change::Bury { .. }
        | Change::Dismiss { .. } => None,
    });
    if let Some((outcome, overlap)) = outcome {
        context.metrics.rotation(outcome, overlap);
    }
}

/// A way back is worth an event: the rotation was asked for, and did not come about.
async fn tell_switch_back(context: &Context, o: &Observation, changes: &[Change]) {
    let back_to = changes.iter().find_map(|change| {
        if let Change::SwitchBack { attempt, switch: _ } = change { Some(attempt) } else { None }
    });
    let Some(attempt) = back_to else { return };
    let before = o.slots().into_iter().find(|slot| slot.attempt.as_ref() == Some(attempt));
    let note = words::switched_back(&o.key, before);
    context.events.publish(&reference(&o.key), EventReason::SwitchedBack, &note).await;
}

/// The ledger moved on between observation and write: observe again.
pub(super) fn lost_race(outcome: Result<(), StoreError>) -> Result<(), Problem> {
    match outcome {
        Err(StoreError::Refused(_)) => Ok(()),
        other => other.map_err(Problem::from),
    }
}

async fn probe(context: &Context, o: &Observation, attempt: String, run: &mut Run) -> Result<(), Problem> {
    let Some(view) = &o.account else { return Ok(()) };
    let creating = o.creating.as_ref().filter(|creating| creating.slot.attempt.as_ref() == Some(&attempt));
    let saved = match creating {
        Some(creating) => creating.saved.as_ref().and_then(|entry| entry.value()),
        // The watch may not have shown the value yet.
        None => match context.keystore.cached(&attempt).and_then(|entry| entry.value()) {
            None => context.keystore.live(&attempt).await?.and_then(|entry| entry.value()),
            known => known,
        },
    };
    let Some(value) = saved else {
        let message = format!(
            "the keystore has no value for attempt {attempt}, and the key has to be asked whether it works: restore Secret \
             \"bags-key-{attempt}\" of the operator's namespace from a backup; until then nothing is revoked"
        );
        return Err(Problem::terminal(Reason::ValueMissing, message));
    };
    let memory = context.memory_of(&view.account.name_any(), &view.account);
    let clock = &context.env.clock;
    let (asked, at) = (clock.monotonic(), clock.wall());
    let answer = context.client(&memory).me(&value).await;
    let answer = answer.map_err(|error| Problem::of_bags(&view.account.name_any(), &error))?;
    let now = clock.monotonic();
    memory.remember(&attempt, |known| match &answer {
        Probe::Alive { user } => drop(known.answered_alive(asked, now, user, false)),
        Probe::Dead => known.answered_dead(now, None),
        Probe::Forbidden | Probe::UserGone => known.answered_unclear(now, answer.clone()),
    });
    if creating.is_some() && matches!(answer, Probe::Alive { .. }) {
        context.metrics.key(KeyStep::Verified);
    }
    run.asked = Some(Asked { attempt, answer, at });
    // A list that was asked for before this probe does not show the use that the probe makes of the key.
    run.listed = None;
    Ok(())
}

async fn publish(
    context: &Context,
    account: &str,
    attempt: String,
    key_id: Option<String>,
    user: String,
) -> Result<(), Problem> {
    let begun = context.env.clock.monotonic();
    let outcome = context
        .ledger
        .update(account, |draft| {
            if let Some(key_id) = &key_id {
                draft.apply(&Change::Identify { attempt: attempt.clone(), key_id: key_id.clone() })?;
            }
            draft.apply(&Change::Publish { attempt: attempt.clone() })?;
            // Another key may have pinned another user since this one was probed. A user that the spec names counts for more
            // than the pinned one.
            if draft.account.expected_user().is_some_and(|expected| expected != user) {
                return Err(Refusal::NotInState);
            }
            // Every other key without a recorded user belongs to the user that was pinned until now.
            let before = draft.status.pin_user(Some(user.clone()));
            let before = before.unwrap_or_else(|| user.clone());
            for slot in draft.status.slots.iter_mut().filter(|slot| slot.attempt.is_some()) {
                match slot.attempt.as_ref() == Some(&attempt) {
                    true => slot.user = Some(user.clone()),
                    false => drop(slot.user.get_or_insert_with(|| before.clone())),
                }
            }
            draft.status.capabilities.create = Capability::Yes;
            draft.status.refusal = None;
            Ok(())
        })
        .await;
    if let Ok(account) = &outcome {
        switched(context, account, &attempt, begun);
    }
    lost_race(outcome.map(drop))
}

/// Notes that this process made the ApiKey's last switch, to the key of `attempt`, by a write that began at `begun`: at that
/// time no workload carried the mark of that switch.
fn switched(context: &Context, account: &BagsAccount, attempt: &str, begun: Instant) {
    let ledger = Ledger::of(account.status.as_ref());
    let slot = ledger.slots.iter().find(|slot| slot.attempt.as_deref() == Some(attempt));
    if let Some((number, owner)) = slot.and_then(|slot| Some((slot.published?, &slot.owner))) {
        let mark = workload::mark_value(&owner.uid, number);
        context.marks.know(&owner.uid, &mark, begun);
    }
}

async fn distrust(context: &Context, o: &Observation, account: &str, attempt: String) -> Result<(), Problem> {
    let Some(view) = &o.account else { return Ok(()) };
    let Ok(credentials) = &view.credentials else { return Ok(()) };
    // The credentials that the key was made with; what has replaced them since is not distrusted.
    let made = o.creating.as_ref().and_then(|creating| creating.saved.as_ref()?.credentials());
    let distrusted = trust_of(&view.account, made.unwrap_or(&credentials.version));
    let outcome = context
        .ledger
        .update(account, |draft| {
            draft.apply(&Change::Doubt { attempt: attempt.clone(), reason: "WrongUser" })?;
            draft.status.distrusted_credentials = Some(distrusted.clone());
            Ok(())
        })
        .await;
    lost_race(outcome.map(drop))
}

/// Reads the ApiKey live, after a conflict. The next run starts from this version even if the watch is still behind; otherwise
/// it would send the refused write once more. If the read fails, the next run begins with it.
pub(super) async fn refresh(context: &Context, run: &mut Run) -> Result<(), Problem> {
    context.written.beaten(&run.key);
    let live = call(api(context, &run.key).get_opt(&run.key.name_any())).await?;
    match live.filter(|live| live.metadata.uid == run.key.metadata.uid) {
        Some(live) => {
            run.key = Arc::new(live);
            context.written.note(&run.key);
        }
        None => run.gone = true,
    }
    Ok(())
}

/// Reads the ApiKey live, if the read after its last conflict failed.
pub(super) async fn catch_up(context: &Context, run: &mut Run) -> Result<(), Problem> {
    if context.written.is_beaten(&run.key) { refresh(context, run).await } else { Ok(()) }
}

pub(super) fn api(context: &Context, key: &ApiKey) -> Api<ApiKey> {
    Api::namespaced(context.env.kube.clone(), &key.namespace().unwrap_or_default())
}

pub(super) fn reference(key: &ApiKey) -> k8s_openapi::api::core::v1::ObjectReference {
    use kube::Resource;
    key.object_ref(&())
}

/// A change that the ledger refused because it moved on.
pub(super) fn is_race(refusal: Refusal) -> bool {
    use Refusal::{Anothers, HasPlace, LicenceOpen, NamespaceFull, NoRoom, Nobodys, NotInState};
    matches!(refusal, LicenceOpen | NoRoom | NamespaceFull | NotInState | HasPlace | Nobodys | Anothers)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::{
        api::account::{LimitRefusal, Slot, SlotState},
        apikey::fixtures::{account, mine, seen},
        fixtures::{installation, process, server},
        operator::parts::Watches,
    };

    /// What is written when a new key is published: the account expects this user by its spec, and that one by its status; the
    /// key is of a third one. `None`: nothing.
    async fn published(named: Option<&str>, pinned: Option<&str>, user: &str) -> Option<serde_json::Value> {
        let made = Slot { since: Timestamp::UNIX_EPOCH, ..mine(SlotState::Creating) };
        let mut account = account();
        account.metadata.resource_version = Some("1".to_owned());
        account.spec.expected_user = named.map(str::to_owned);
        let status = account.status.get_or_insert_default();
        (status.installation, status.slots) = (Some(installation()), vec![made.clone()]);
        status.user = pinned.map(str::to_owned);
        status.covering_token = Some("bags-main/token@1".to_owned());
        status.refusal =
            Some(LimitRefusal { unmanaged: 6, count: 3, generation: None, at: Timestamp::UNIX_EPOCH });
        let mut watches = Watches::new();
        watches.accounts.1.apply_watcher_event(&Event::Apply(account));
        let (kube, asked) = server(|request, _| (200, request.body.clone()));
        let context = process(&watches, kube);
        publish(&context, "main", made.attempt.unwrap(), None, user.to_owned()).await.unwrap();
        let asked = asked.lock().unwrap();
        asked.first().map(|request| request.body["status"].clone())
    }

    #[tokio::test]
    async fn the_first_key_of_another_user_ends_what_lists_of_the_former_ones_token_proved() {
        for (named, user, covering) in [(Some("two"), "two", None), (None, "one", Some("bags-main/token@1"))]
        {
            let status = published(named, Some("one"), user).await.unwrap();
            assert_eq!((&status["user"], &status["coveringToken"]), (&json!(user), &json!(covering)));
        }
    }

    #[tokio::test]
    async fn a_key_of_a_user_that_the_account_does_not_expect_by_now_is_not_published() {
        for (named, pinned, user) in [(Some("two"), Some("one"), "one"), (None, Some("one"), "two")] {
            assert_eq!(published(named, pinned, user).await, None, "{named:?}, {pinned:?}: {user}");
        }
    }

    #[tokio::test]
    async fn a_key_that_was_made_ends_the_refusals_in_a_row() {
        let status = published(None, None, "one").await.unwrap();
        assert_eq!(status["refusal"], json!(null));
        assert_eq!(status["capabilities"]["create"], json!("Yes"));
    }

    #[tokio::test]
    async fn a_rotation_that_is_tried_again_after_a_refusal_has_begun_once() {
        let (kube, _) = server(|request, _| (200, request.body.clone()));
        let context = process(&Watches::new(), kube);
        let o = seen().with_slot(mine(SlotState::Live));
        let begins = [Change::ReserveNext { owner: o.owner.clone(), key_use: o.key.key_use() }];
        let counts = |times: u32| {
            let line = format!("bags_operator_rotations_total{{outcome=\"Begun\"}} {times}");
            let page = context.metrics.encode();
            assert!(page.lines().any(|told| told == line), "{page}");
        };
        count_rotations(&context, &o, &begins);
        let refused = Problem::transient(Reason::SecretRefused, "a policy");
        context.refusals.note(&o.owner.uid, &refused, context.env.clock.monotonic());
        count_rotations(&context, &o, &begins);
        counts(1);
        context.refusals.forget(&o.owner.uid);
        count_rotations(&context, &o, &begins);
        counts(2);
    }
}
