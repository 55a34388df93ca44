//! Carries a decision out. Makes no choices; what goes wrong becomes a [`Problem`] with the words for it.

use std::sync::Arc;

use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};

mod pods;

use super::{
    decide::{Decision, since},
    hold::Reason,
    make,
    observe::{Observation, Run},
};
use crate::{
    account::credentials::{CredentialProblem, trust_of},
    api::{ApiKey, FINALIZER, account::Capability},
    backoff::FailureClass,
    bags::{self, Probe},
    consumer_secret::{ConsumerSecret, Desired, Found, in_sync},
    context::Context,
    env::{CallError, call},
    events::EventReason,
    ledger::{Change, Refusal, StoreError},
    metrics::{KeyStep, RotationOutcome},
};

/// What went wrong, in the words of the condition.
#[derive(Clone, Debug)]
pub struct Problem {
    /// As one word.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// When to try again.
    pub class: FailureClass,
}

impl Problem {
    /// A problem that may go by itself.
    #[must_use]
    pub fn transient(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), class: FailureClass::Transient }
    }

    /// A problem that somebody has to take away.
    #[must_use]
    pub fn terminal(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), class: FailureClass::Terminal }
    }

    /// What it means where it concerns only the key that is to replace a current one.
    #[must_use]
    pub fn of_next_key(self) -> Self {
        Self { reason: self.reason.of_next_key(), ..self }
    }

    /// What Bags answered, or did not, to a question about an account.
    #[must_use]
    pub fn of_bags(account: &str, error: &bags::Error) -> Self {
        let said = format!("Bags, asked about BagsAccount \"{account}\": {error}");
        match error.class() {
            bags::Class::RateLimited { until } => Self {
                reason: Reason::RateLimited,
                message: format!("{said}; it is asked again after {until}"),
                class: FailureClass::RateLimited(until),
            },
            // A change of the credentials wakes whoever waits for it; asking again with the same ones only
            // spends the account's requests.
            bags::Class::Refused if error.reason() == bags::Reason::InvalidToken => Self::terminal(
                Reason::CredentialsRefused,
                format!("{said}; the platform team has to put a valid token into the account's Secret"),
            ),
            bags::Class::Refused => Self::transient(Reason::BagsRefused, said),
            bags::Class::NotDone | bags::Class::Unknown => Self::transient(
                Reason::BagsUnavailable,
                format!("{said}; it is asked again until it answers"),
            ),
        }
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        Self::transient(
            Reason::ApiServerUnavailable,
            format!("the API server did not do what was asked: {error}"),
        )
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoAccount(name) => {
                Self::transient(Reason::AccountNotFound, format!("there is no BagsAccount \"{name}\""))
            }
            StoreError::Violation(_) => Self::terminal(Reason::NewerLedger, error.to_string()),
            StoreError::Refused(_) | StoreError::Contended | StoreError::Timeout | StoreError::Kube(_) => {
                Self::transient(Reason::ApiServerUnavailable, error.to_string())
            }
        }
    }
}

impl From<CredentialProblem> for Problem {
    fn from(problem: CredentialProblem) -> Self {
        let reason = match problem {
            CredentialProblem::SecretMissing { .. } | CredentialProblem::FieldMissing { .. } => {
                Reason::CredentialsMissing
            }
            CredentialProblem::Unreadable { .. } => Reason::CredentialsUnreadable,
        };
        Self::terminal(reason, format!("for the platform team: {problem}"))
    }
}

/// Carries out (io); `run` takes what the next observation should know.
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
    match decision {
        Decision::Change(changes) => match context.ledger.change(account, &changes).await {
            Ok(_) => {
                // What was seen was judged by the switch before a switch back.
                run.pods = None;
                count_rotations(context, o, &changes);
                tell_switch_back(context, o, &changes).await;
                Ok(())
            }
            refused => lost_race(refused.map(drop)),
        },
        Decision::Make => make::make(context, o, run).await,
        Decision::Probe { attempt } => probe(context, o, attempt, run).await,
        Decision::Publish { attempt, key_id, user } => {
            publish(context, account, attempt, key_id, user).await?;
            // Pods that came since the last look may hold the old value, and those that were seen were judged by no switch, or
            // by the one before.
            run.pods = None;
            // The first publication: the Secret is not there yet, as the dry-run saw. If it is, its creation says so.
            let first = o.slots().iter().all(|slot| slot.published.is_none() && slot.last_switch.is_none());
            run.consumer = first.then_some(Found::Missing);
            Ok(())
        }
        Decision::Distrust { attempt } => distrust(context, o, account, attempt).await,
        Decision::Project => project(context, o, run).await,
        Decision::LookAtPods { confirm } => pods::look(context, o, confirm, run).await,
        Decision::LookAtLists => pods::list_keys(context, o, run).await,
        Decision::Restart(workloads) => pods::restart(context, o, &workloads, run).await,
        Decision::Finish { remove_secret } => finish(context, o, remove_secret, run).await,
        Decision::Wait(_) => Ok(()),
    }
}

/// The old keys of one switch go together, and end one rotation. What goes after a way back ends none.
fn count_rotations(context: &Context, o: &Observation, changes: &[Change]) {
    let Some(current) = o.current() else { return };
    let is_older = |attempt: &String| {
        let slots = o.slots();
        slots.iter().any(|slot| slot.attempt.as_ref() == Some(attempt) && slot.revision < current.revision)
    };
    let outcome = changes.iter().find_map(|change| match change {
        Change::ReserveNext { .. } => Some((RotationOutcome::Begun, None)),
        Change::Retire { attempt, .. } if is_older(attempt) => {
            Some((RotationOutcome::Finished, Some(since(o.now, current.since))))
        }
        Change::SwitchBack { .. } => Some((RotationOutcome::SwitchedBack, None)),
        _ => None,
    });
    if let Some((outcome, overlap)) = outcome {
        context.metrics.rotation(outcome, overlap);
    }
}

/// A way back is worth an event: the rotation was asked for, and did not come about.
async fn tell_switch_back(context: &Context, o: &Observation, changes: &[Change]) {
    if !changes.iter().any(|change| matches!(change, Change::SwitchBack { .. })) {
        return;
    }
    let note = format!(
        "Secret \"{}\" goes back to the old key, as a workload did not come up with the new one; the new one is revoked once \
         nothing can hold it; the next rotation begins on schedule, or with another keys.bags.fm/rotate",
        o.key.secret_name()
    );
    context.events.publish(&reference(&o.key), EventReason::SwitchedBack, &note).await;
}

/// The ledger moved on between observation and write: observe again.
fn lost_race(outcome: Result<(), StoreError>) -> Result<(), Problem> {
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
        None => context.keystore.cached(&attempt).and_then(|entry| entry.value()),
    };
    let Some(value) = saved else {
        let message = format!(
            "the keystore has no value for attempt {attempt}, and the key has to be asked whether it works: restore Secret \
             \"bags-key-{attempt}\" of the operator's namespace from a backup; until then nothing is revoked"
        );
        return Err(Problem::terminal(Reason::ValueMissing, message));
    };
    let memory = context.memory_of(&view.account.name_any(), &view.account);
    let asked = context.client(&memory).me(&value).await;
    let answer = asked.map_err(|error| Problem::of_bags(&view.account.name_any(), &error))?;
    let now = context.env.clock.monotonic();
    memory.remember(&attempt, |known| match &answer {
        Probe::Alive { user } => drop(known.answered_alive(now, user, false)),
        Probe::Dead => known.answered_dead(now, None),
        Probe::Forbidden | Probe::UserGone => known.answered(now),
    });
    if creating.is_some() && matches!(answer, Probe::Alive { .. }) {
        context.metrics.key(KeyStep::Verified);
    }
    run.probe = Some((attempt, answer));
    // A list from before does not show this use.
    run.listed = false;
    Ok(())
}

async fn publish(
    context: &Context,
    account: &str,
    attempt: String,
    key_id: Option<String>,
    user: String,
) -> Result<(), Problem> {
    let outcome = context
        .ledger
        .update(account, |draft| {
            if let Some(key_id) = &key_id {
                draft.apply(&Change::Identify { attempt: attempt.clone(), key_id: key_id.clone() })?;
            }
            draft.apply(&Change::Publish { attempt: attempt.clone() })?;
            // Another key may have pinned another user since this one was asked whose it is.
            if *draft.status.user.get_or_insert_with(|| user.clone()) != user {
                return Err(Refusal::NotInState);
            }
            draft.status.capabilities.create = Capability::Yes;
            draft.status.refusal = None;
            Ok(())
        })
        .await;
    lost_race(outcome.map(drop))
}

async fn distrust(context: &Context, o: &Observation, account: &str, attempt: String) -> Result<(), Problem> {
    let Some(view) = &o.account else { return Ok(()) };
    let Ok(credentials) = &view.credentials else { return Ok(()) };
    // As they were when the key was made: what was corrected since is not distrusted.
    let distrusted = trust_of(&view.account, &credentials.version);
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

async fn project(context: &Context, o: &Observation, run: &mut Run) -> Result<(), Problem> {
    let (Some(slot), Some(value), Some(found)) = (o.current(), &o.current_value, &o.consumer) else {
        return Ok(());
    };
    let desired = Desired { key: &o.key, slot, value, base_url: &o.base_url };
    let restored = o.key.status.as_ref().is_some_and(|status| {
        status.switch.as_ref().is_some_and(|switch| Some(&switch.attempt) == slot.attempt.as_ref())
    });
    match ConsumerSecret::of(context.env.kube.clone(), &o.key).write(found, &desired).await {
        Ok(Some(secret)) => {
            let written = Found::Ours(Box::new(secret));
            if !in_sync(&written, &desired) {
                return Err(changed_on_the_way(&o.key));
            }
            if matches!(found, Found::Missing) && left_behind(context, &o.key).await? {
                return refresh(context, run).await;
            }
            run.consumer = Some(written);
            if !restored {
                context.metrics.key(KeyStep::Published);
            }
            if restored {
                let note = format!(
                    "Secret \"{}\" was missing or changed and was written again",
                    o.key.secret_name()
                );
                context.events.publish(&reference(&o.key), EventReason::SecretRestored, &note).await;
            }
            Ok(())
        }
        Ok(None) => Ok(()),
        // Somebody was faster: look again.
        Err(error) if error.is_conflict() => {
            run.consumer = None;
            Ok(())
        }
        Err(error) if error.is_refusal() => Err(secret_refused(&o.key, &error.kind())),
        Err(error) => {
            // It may be there all the same.
            if matches!(found, Found::Missing) && left_behind(context, &o.key).await? {
                return refresh(context, run).await;
            }
            Err(Problem::transient(
                Reason::ApiServerUnavailable,
                format!("Secret \"{}\" could not be written: {}", o.key.secret_name(), error.kind()),
            ))
        }
    }
}

/// How often a Secret that was left behind is looked after before that is given up.
const LOOKS: usize = 3;

/// Whether a Secret was just made for an ApiKey that is gone: a process that stood still while another one took over may
/// come so late, and a creation has no version that could conflict. Then the Secret is removed again. Nobody comes back
/// to it, as there is no ApiKey any more: where a look fails, another one follows at once, and reads everything anew.
async fn left_behind(context: &Context, key: &ApiKey) -> Result<bool, Problem> {
    let mut further = 1..LOOKS;
    loop {
        match remove_if_gone(context, key).await {
            Err(_) if further.next().is_some() => {}
            outcome => return Ok(outcome?),
        }
    }
}

async fn remove_if_gone(context: &Context, key: &ApiKey) -> Result<bool, CallError> {
    let live = call(api(context, key).get_opt(&key.name_any())).await?;
    if live.is_some_and(|live| live.metadata.uid == key.metadata.uid) {
        return Ok(false);
    }
    ConsumerSecret::of(context.env.kube.clone(), key).remove().await?;
    Ok(true)
}

/// Something in the cluster changes what is written: writing it again would go on for ever.
fn changed_on_the_way(key: &ApiKey) -> Problem {
    let message = format!(
        "something in the cluster changes what is written into Secret \"{}\", as a mutating webhook does; let it leave \
         the Secret alone, or take what it changes out of spec.secret",
        key.secret_name()
    );
    Problem::transient(Reason::SecretConflict, message)
}

/// The key is gone, and its Secret may not be removed.
fn secret_stays(key: &ApiKey) -> Problem {
    let message = format!(
        "the operator may not remove Secret \"{}\" from namespace \"{}\"; let the namespace take part again (consumerNamespaces of \
         the chart, or docs/rbac.yaml), or remove the Secret and the finalizer {FINALIZER} of the ApiKey by hand",
        key.secret_name(),
        key.namespace().unwrap_or_default()
    );
    Problem::transient(Reason::SecretRefused, message)
}

/// The API server does not take the consumer Secret: permissions, quota, a policy.
pub(super) fn secret_refused(key: &ApiKey, said: &str) -> Problem {
    let message = format!(
        "the API server would not take Secret \"{}\" in namespace \"{}\": {said}; lift what stands against it, and the key \
         is made",
        key.secret_name(),
        key.namespace().unwrap_or_default()
    );
    Problem::transient(Reason::SecretRefused, message)
}

async fn finish(
    context: &Context,
    o: &Observation,
    remove_secret: bool,
    run: &mut Run,
) -> Result<(), Problem> {
    if remove_secret {
        match ConsumerSecret::of(context.env.kube.clone(), &o.key).remove().await {
            Err(error) if error.is_conflict() => return Ok(()),
            Err(error) if error.is_forbidden() => return Err(secret_stays(&o.key)),
            outcome => outcome?,
        }
    }
    let left = o.slots();
    if !left.is_empty() || o.account.is_none() {
        context.events.publish(&reference(&o.key), EventReason::DeletionHandedOver, &handed_over(o)).await;
    }
    let finalizers: Vec<&String> =
        o.key.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
    match patch_finalizers(context, &o.key, &serde_json::json!(finalizers)).await {
        Ok(key) => {
            run.key = Arc::new(key);
            // One without finalizers is gone; the watch may have told so by now.
            if !run.key.finalizers().is_empty() {
                context.written.note(&run.key);
            }
        }
        Err(error) if error.is_not_found() => run.gone = true,
        Err(error) if error.is_conflict() => refresh(context, run).await?,
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn handed_over(o: &Observation) -> String {
    let mut keys: Vec<String> = o
        .slots()
        .iter()
        .filter_map(|slot| {
            Some(format!(
                "{} ({})",
                slot.key_name.as_deref()?,
                slot.key_id.as_deref().unwrap_or("id unknown")
            ))
        })
        .collect();
    if o.account.is_none() {
        let status = o.key.status.as_ref();
        keys = status
            .map(|status| status.keys.iter().filter_map(|key| key.key_id.clone()).collect())
            .unwrap_or_default();
        return format!(
            "BagsAccount \"{}\" does not exist: nothing was revoked; keys that may be left at Bags: {}",
            o.key.spec.account_ref.name,
            if keys.is_empty() { "none known".to_owned() } else { keys.join(", ") }
        );
    }
    format!("BagsAccount \"{}\" finishes: {}", o.key.spec.account_ref.name, keys.join(", "))
}

/// Puts our finalizer on; returns the ApiKey as it is then.
///
/// # Errors
/// What the API server says; `409` and `404` mean observe again.
pub(super) async fn ensure_finalizer(
    context: &Context,
    o: &Observation,
) -> Result<Option<ApiKey>, CallError> {
    if o.has_finalizer() {
        return Ok(None);
    }
    let mut finalizers = o.key.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    patch_finalizers(context, &o.key, &serde_json::json!(finalizers)).await.map(Some)
}

async fn patch_finalizers(
    context: &Context,
    key: &ApiKey,
    finalizers: &serde_json::Value,
) -> Result<ApiKey, CallError> {
    let patch = serde_json::json!({
        "metadata": {"finalizers": finalizers, "resourceVersion": key.metadata.resource_version, "uid": key.metadata.uid},
    });
    let options = PatchParams::default();
    call(api(context, key).patch(&key.name_any(), &options, &Patch::Merge(&patch))).await
}

/// Reads the ApiKey live, after a conflict. The next run starts from there, also where the watch is still behind: else it
/// would send once more what was just refused. Where the read fails, it is what the next run begins with.
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
    matches!(refusal, Refusal::LicenceOpen | Refusal::NoRoom | Refusal::NotInState | Refusal::HasPlace)
}
