//! Makes a key: everything that can fail first, then the licence, then one request in a task that nothing cancels.
//!
//! # Guarantees
//! The request that creates is sent at most once, under a licence acknowledged at most `begin_deadline` ago by both
//! clocks. From its answer to the keystore nothing may be dropped: the task is one that shutdown waits for. What the
//! task cannot find out is left in the ledger as `Creating`, and judged later by the account.

mod attempt;

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::Instant;
use tracing::{Instrument, info, warn};

use self::attempt::{Job, carry_out};
use super::{
    act::{ensure_finalizer, finalizer_refused, is_race, lost_race, refresh, secret_refused},
    hold::Reason,
    observe::{AccountView, Observation},
    problem::Problem,
    run::Run,
};
use crate::{
    account::{
        credentials::{CredentialSet, trust_of},
        listing::{self, Listed},
        memory::AccountMemory,
    },
    api::{
        BagsAccount, FINALIZER,
        account::{Capability, SlotState},
        name::full_key_name,
    },
    consumer_secret::{ConsumerSecret, Found},
    context::Context,
    env::CallError,
    keystore::{Entry, Placeholder},
    ledger::{Change, Refusal, StoreError},
};

/// What came of asking for the licence.
enum Licence {
    /// Acknowledged; both clocks, read before it was written.
    Taken((Timestamp, Instant)),
    /// Perhaps written: it must be given back.
    Unacknowledged((Timestamp, Instant), Problem),
    /// The ledger moved on: observe again.
    Moved,
}

/// Prepares, takes the licence and begins the attempt (io). Returns as soon as it is begun.
///
/// # Errors
/// What stands in the way; then nothing was made.
pub(super) async fn make(context: &Arc<Context>, o: &Observation, run: &mut Run) -> Result<(), Problem> {
    let Some(view) = &o.account else { return Ok(()) };
    let credentials = match &view.credentials {
        Ok(_) => context.credentials(&view.account)?,
        Err(problem) => return Err(problem.clone().into()),
    };
    let attempt = context.env.randomness.base32(10);
    let memory = context.memory_of(&view.account.name_any(), &view.account);
    // Another ApiKey of the account is preparing an attempt: observe again.
    let Ok(_preparing) = memory.preparing.try_lock() else { return Ok(()) };
    let key_name = full_key_name(&o.key.key_name(), &context.settings.installation.cluster, &attempt);
    let placed_at = context.env.clock.monotonic();
    let (placeholder, checks) = tokio::join!(
        place(context, o, &attempt, &key_name, &credentials.version),
        checks(context, o, view, &memory, &credentials)
    );
    let placeholder = match placeholder {
        Ok(placeholder) => placeholder,
        Err(problem) => return without_place(context, o, problem).await,
    };
    let listed = match checks {
        Ok((key, listed)) => {
            context.refusals.forget(&o.owner.uid);
            if let Some(key) = key {
                run.key = Arc::new(key);
                context.written.note(&run.key);
            }
            listed
        }
        Err(problem) => {
            discard(context, &placeholder).await;
            return match problem {
                Check::Observe => refresh(context, run).await,
                Check::AnotherUser => distrust(context, view, &credentials.version).await,
                Check::Problem(problem) => without_place(context, o, problem).await,
            };
        }
    };
    let licence = license(context, o, view, &attempt, &key_name, listed.as_ref(), placed_at).await?;
    let (licensed, problem) = match licence {
        Licence::Taken(licensed) => (licensed, None),
        Licence::Unacknowledged(licensed, problem) => (licensed, Some(problem)),
        Licence::Moved => {
            discard(context, &placeholder).await;
            return Ok(());
        }
    };
    let account = view.account.name_any();
    let job = Job {
        account,
        attempt: attempt.clone(),
        key_name,
        placeholder,
        credentials,
        memory: memory.clone(),
        licensed,
        acknowledged: problem.is_none(),
    };
    let span = tracing::info_span!("save", attempt = %job.attempt, key_name = %job.key_name);
    let save = carry_out(context.clone(), job).instrument(span);
    if context.env.saves.spawn(attempt.clone(), save).is_err() {
        // Shutting down: certainly not sent. If this write fails, the attempt is judged like any other.
        let change = Change::NotMade { attempt, reason: "ShuttingDown" };
        if let Err(error) = context.ledger.change(&view.account.name_any(), &[change]).await {
            warn!(%error, "Failed to give a licence back at shutdown");
        }
    }
    problem.map_or(Ok(()), Err)
}

async fn place(
    context: &Context,
    o: &Observation,
    attempt: &str,
    key_name: &str,
    credentials: &str,
) -> Result<Entry, Problem> {
    let revision =
        o.slots().iter().find(|slot| slot.state == SlotState::Reserved).map_or(1, |slot| slot.revision);
    let trigger = trigger(o);
    let placeholder = Placeholder {
        account: &o.key.spec.account_ref.name,
        owner: &o.owner,
        key_use: &o.key.key_use(),
        trigger: trigger.as_deref(),
        revision,
        attempt,
        key_name,
        credentials,
        installation: &context.settings.installation,
    };
    let namespace = &context.settings.installation.namespace;
    context.keystore.place(&placeholder).await.map_err(|error| not_placed(namespace, &error))
}

/// The problem that the keystore Secret could not be made. The API server's words about it go to the log only: the Secret does
/// not belong to the tenant, who reads the ApiKey.
fn not_placed(namespace: &str, error: &CallError) -> Problem {
    warn!(%error, "Failed to make the Secret for a key's value");
    let (reason, way_out) = match error.is_refusal() {
        true => (
            Reason::SecretRefused,
            "the platform team has to lift what stands against it (rights, quota, policy: see the operator's log), and the key is made",
        ),
        false => (Reason::ApiServerUnavailable, "it is tried again"),
    };
    let message = format!(
        "the Secret in which the key's value is to be saved, in the operator's namespace \"{namespace}\", could not be made: {}; \
         {way_out}",
        error.kind()
    );
    Problem::transient(reason, message)
}

/// Why a key is not made now.
enum Check {
    /// Something changed: observe again.
    Observe,
    /// The credentials are another user's.
    AnotherUser,
    /// Something stands in the way.
    Problem(Problem),
}

impl<P: Into<Problem>> From<P> for Check {
    fn from(problem: P) -> Self {
        Self::Problem(problem.into())
    }
}

/// A key cannot be made. What the API server refuses may be refused for days, while other ApiKeys need the place: a further one is
/// given back, and taken again after a pause. The next round finds no place, and tells of the refusal.
async fn without_place(context: &Context, o: &Observation, problem: Problem) -> Result<(), Problem> {
    let lasts = matches!(problem.reason, Reason::SecretRefused | Reason::NotPermitted);
    if !lasts || o.slots().len() < 2 {
        return Err(problem);
    }
    warn!(problem = %problem.message, "Refused: the place for the next key is given back");
    // Noted first: the write of the ledger wakes the ApiKey.
    context.refusals.note(&o.owner.uid, &problem, context.env.clock.monotonic());
    let change = Change::GiveBack { owner_uid: o.owner.uid.clone() };
    let given_back = context.ledger.update(&o.key.spec.account_ref.name, |draft| {
        // The owner's other slots may have left the ledger since: then this place is its only one, and stays.
        let is_further =
            draft.status.slots.iter().filter(|slot| slot.owner.uid == o.owner.uid).nth(1).is_some();
        if is_further { draft.apply(&change) } else { Err(Refusal::NotInState) }
    });
    lost_race(given_back.await.map(drop))
}

/// At the same time: finalizer, dry-run of the consumer Secret, a fresh list.
async fn checks(
    context: &Context,
    o: &Observation,
    view: &AccountView,
    memory: &AccountMemory,
    credentials: &CredentialSet,
) -> Result<(Option<crate::api::ApiKey>, Option<Listed>), Check> {
    let consumer = ConsumerSecret::of(context.env.kube.clone(), &o.key);
    let max_age = context.settings.timings.list_fresh;
    let (finalizer, dry_run, listed) = tokio::join!(
        ensure_finalizer(context, o),
        consumer.dry_run(&o.key, o.consumer.as_ref()),
        listing::fresh(context, &view.account, memory, credentials, max_age)
    );
    let key = match finalizer {
        Ok(key) => key,
        Err(error) if error.is_conflict() || error.is_not_found() => return Err(Check::Observe),
        Err(error) => return Err(finalizer_refused(&o.key, error).into()),
    };
    let dry_run = match dry_run {
        // It was changed or made since it was observed, which says nothing of what stands against a change.
        Err(error) if error.is_conflict() => {
            let found = existing(&consumer, o, view).await?;
            consumer.dry_run(&o.key, Some(&found)).await
        }
        told => told,
    };
    match dry_run {
        Ok(()) => {}
        Err(error) if error.is_refusal() || error.is_not_found() => {
            return Err(secret_refused(&o.key, &error.to_string()).into());
        }
        Err(error) => return Err(error.into()),
    }
    let listed = listed.map_err(|error| Problem::of_bags(&view.account.name_any(), &error))?;
    match listed.as_ref().and_then(|listed| objection(&view.account, listed)) {
        Some(objection) => Err(objection),
        None => Ok((key, listed)),
    }
}

/// What a list says against a creation: the token is another user's, and the key would be made for that user. A list without
/// keys does not tell; and if a wallet makes the key, it belongs to the wallet's user.
fn objection(account: &BagsAccount, listed: &Listed) -> Option<Check> {
    if account.spec.credentials.wallet.is_some() || !listed.shows_stranger {
        return None;
    }
    if listed.may_miss_ours {
        let account = account.name_any();
        let message = format!(
            "the list of BagsAccount \"{account}\" names another user, and may be too old to show the key that was published \
             last, which would tell whose list it is; it is asked again"
        );
        return Some(Problem::transient(Reason::WaitingForAccount, message).into());
    }
    Some(Check::AnotherUser)
}

/// Records in the ledger that these credentials are distrusted. Every ApiKey of the account then stops making keys, and
/// rotations give back the places that they keep.
async fn distrust(context: &Context, view: &AccountView, version: &str) -> Result<(), Problem> {
    let distrusted = trust_of(&view.account, version);
    let account = view.account.name_any();
    let outcome = context.ledger.update(&account, |draft| {
        // Somebody may have corrected the account meanwhile, or another installation has taken it over.
        if draft.account.metadata.generation != view.account.metadata.generation
            || draft.status.installation.as_ref() != Some(&context.settings.installation)
        {
            return Err(Refusal::NotInState);
        }
        draft.status.distrusted_credentials = Some(distrusted.clone());
        Ok(())
    });
    lost_race(outcome.await.map(drop))
}

/// The consumer Secret as it is now: if it is there, it must be ours.
async fn existing(consumer: &ConsumerSecret, o: &Observation, view: &AccountView) -> Result<Found, Check> {
    let known =
        view.ledger.owned_by(&o.owner.uid).filter_map(|slot| slot.last_switch).max().unwrap_or_default();
    match consumer.find(known).await? {
        found @ (Found::Missing | Found::Ours(_)) => Ok(found),
        Found::Foreign(foreign) => {
            let message = super::decide::foreign_secret(&o.key, foreign);
            Err(Problem::transient(Reason::of_secret(foreign), message).into())
        }
    }
}

/// The rotate token that the key answers. If the annotation was taken off, the current key's token is kept, so that the same
/// token is not taken for a new one when it is applied again.
fn trigger(o: &Observation) -> Option<String> {
    o.key.rotate_token().or_else(|| o.current()?.trigger.clone())
}

/// Takes the licence, unless the account's spec has changed since it was observed, as that may have withdrawn the permission;
/// or the account has lost its finalizer, as its deletion takes the ledger with it, and `generation` does not change with
/// finalizers; or the placeholder is too old by now, as other writers may have held the ledger for long.
async fn license(
    context: &Context,
    o: &Observation,
    view: &AccountView,
    attempt: &str,
    key_name: &str,
    listed: Option<&Listed>,
    placed_at: Instant,
) -> Result<Licence, Problem> {
    let clock = &context.env.clock;
    let change = Change::License {
        owner_uid: o.owner.uid.clone(),
        attempt: attempt.to_owned(),
        key_name: key_name.to_owned(),
        trigger: trigger(o),
    };
    let mut licensed = (clock.wall(), clock.monotonic());
    let mut full = false;
    let written = context.ledger.update(&o.key.spec.account_ref.name, |draft| {
        licensed = (draft.now(), clock.monotonic());
        let waited = licensed.1.saturating_duration_since(placed_at);
        if waited > context.settings.timings.placeholder_fresh
            || draft.account.metadata.generation != view.account.metadata.generation
            || !draft.account.finalizers().iter().any(|name| name == FINALIZER)
        {
            return Err(Refusal::NotInState);
        }
        if let Some(listed) = listed {
            draft.status.capabilities.list = Capability::Yes;
            draft.status.capacity.get_or_insert_default().unmanaged = listed.unmanaged;
        }
        let applied = draft.apply(&change);
        let user = draft.account.expected_user().map(str::to_owned);
        let own = draft.status.slots.iter_mut().find(|slot| slot.attempt.as_deref() == Some(attempt));
        own.into_iter().for_each(|slot| slot.user.clone_from(&user));
        full = applied == Err(Refusal::NoRoom);
        // What the list showed is written even if it leaves no room; otherwise the next round would decide to make the key
        // again, without end.
        if full { Ok(()) } else { applied }
    });
    match written.await {
        Ok(_) if full => Ok(Licence::Moved),
        Ok(_) => Ok(Licence::Taken(licensed)),
        Err(StoreError::Refused(refusal)) if is_race(refusal) => Ok(Licence::Moved),
        Err(error @ (StoreError::Timeout | StoreError::Kube(_))) if !full => {
            Ok(Licence::Unacknowledged(licensed, error.into()))
        }
        Err(error) => Err(error.into()),
    }
}

async fn discard(context: &Context, placeholder: &Entry) {
    // What is left behind is removed by the account's reaper.
    if let Err(error) = context.keystore.remove(placeholder).await {
        info!(%error, "Failed to remove an unused keystore Secret");
    }
}

#[cfg(test)]
mod tests;
