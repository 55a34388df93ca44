//! Makes a key: everything that can fail first, then the licence, then one request in a task that nothing cancels.
//!
//! # Guarantees
//! The request that creates is sent at most once, under a licence acknowledged at most `begin_deadline` ago by both
//! clocks. From its answer to the keystore nothing may be dropped: the task is one that shutdown waits for. What the
//! task cannot find out is left in the ledger as `Creating`, and judged later by the account.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::Instant;
use tracing::{Instrument, error, info, warn};

use super::{
    act::{Problem, ensure_finalizer, is_race, refresh, secret_refused},
    decide::{self, LIMIT_REACHED},
    hold::Reason,
    observe::{AccountView, Observation, Run},
};
use crate::{
    account::{
        credentials::CredentialSet,
        listing::{self, Listed},
        memory::AccountMemory,
    },
    api::{
        BagsAccount,
        account::{Capability, LimitRefusal, SlotState},
        name::full_key_name,
    },
    bags::{self, Class, CreatedKey},
    consumer_secret::{ConsumerSecret, Found},
    context::Context,
    events::EventReason,
    keystore::{Entry, Placeholder, SaveError, Unsaved},
    ledger::{Change, Ledger, Refusal, StoreError},
    metrics::KeyStep,
};

/// First and longest pause between tries to save a value.
const SAVE_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A licensed attempt.
struct Job {
    account: String,
    attempt: String,
    key_name: String,
    placeholder: Entry,
    credentials: CredentialSet,
    memory: Arc<AccountMemory>,
    /// Both clocks, read before the licence was written.
    licensed: (Timestamp, Instant),
    /// Whether the licence was acknowledged: only then anything is sent.
    acknowledged: bool,
}

/// What came of asking for the licence.
enum Licence {
    /// Acknowledged; both clocks, read before it was written.
    Taken((Timestamp, Instant)),
    /// Perhaps written: it must be given back.
    Unacknowledged((Timestamp, Instant), Problem),
    /// The ledger moved on: observe again.
    Moved,
}

/// Why nothing was created, for certain.
enum NotMade {
    /// Bags said so, or was never asked.
    Bags(bags::Error),
    /// The licence was over before the request could be sent.
    LicenceExpired,
    /// The account has neither wallet nor token.
    NoCredentials,
}

/// What came of the one request.
enum Outcome {
    Made(CreatedKey),
    NotMade(NotMade),
    Unknown(String),
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
    // Another one was faster: observe again.
    let Ok(_preparing) = memory.preparing.try_lock() else { return Ok(()) };
    let key_name = full_key_name(&o.key.key_name(), &context.settings.installation.cluster, &attempt);
    let placed_at = context.env.clock.monotonic();
    let (placeholder, checks) = tokio::join!(
        place(context, o, &attempt, &key_name, &credentials.version),
        checks(context, o, view, &memory, &credentials)
    );
    let placeholder = placeholder?;
    let listed = match checks {
        Ok((key, listed)) => {
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
                Check::Problem(problem) => Err(problem),
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
    Ok(context.keystore.place(&placeholder).await?)
}

/// Why a key is not made now.
enum Check {
    /// Something changed: observe again.
    Observe,
    /// Something stands in the way.
    Problem(Problem),
}

impl<P: Into<Problem>> From<P> for Check {
    fn from(problem: P) -> Self {
        Self::Problem(problem.into())
    }
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
        consumer.dry_run(&o.key),
        listing::fresh(context, &view.account, memory, credentials, max_age)
    );
    let key = match finalizer {
        Ok(key) => key,
        Err(error) if error.is_conflict() || error.is_not_found() => return Err(Check::Observe),
        Err(error) => return Err(error.into()),
    };
    match dry_run {
        Ok(()) => {}
        Err(error) if error.is_conflict() => existing(&consumer, o, view).await?,
        Err(error) if error.is_refusal() || error.is_not_found() => {
            return Err(secret_refused(&o.key, &error.to_string()).into());
        }
        Err(error) => return Err(error.into()),
    }
    let listed = listed.map_err(|error| Problem::of_bags(&view.account.name_any(), &error))?;
    Ok((key, listed))
}

/// The consumer Secret is there already: it must be ours.
async fn existing(consumer: &ConsumerSecret, o: &Observation, view: &AccountView) -> Result<(), Check> {
    let known =
        view.ledger.owned_by(&o.owner.uid).filter_map(|slot| slot.last_switch).max().unwrap_or_default();
    match consumer.find(known).await? {
        Found::Missing | Found::Ours(_) => Ok(()),
        Found::Foreign(foreign) => {
            let message = super::decide::foreign_secret(&o.key, foreign);
            Err(Problem::transient(Reason::of_secret(foreign), message).into())
        }
    }
}

/// The token that the key is made for. Whoever takes it off does not make it a new one.
fn trigger(o: &Observation) -> Option<String> {
    o.key.rotate_token().or_else(|| o.current()?.trigger.clone())
}

/// Takes the licence: on the account as it was observed, as a change of it may have withdrawn the permission, and in
/// time, as others may have held the ledger for long.
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
        let installation = draft.status.installation.as_ref();
        if waited > context.settings.timings.placeholder_fresh
            || draft.account.metadata.generation != view.account.metadata.generation
            || installation != Some(&context.settings.installation)
        {
            return Err(Refusal::NotInState);
        }
        if let Some(listed) = listed {
            draft.status.capabilities.list = Capability::Yes;
            draft.status.capacity.get_or_insert_default().unmanaged = listed.unmanaged;
        }
        let applied = draft.apply(&change);
        full = applied == Err(Refusal::NoRoom);
        // What the list showed is written also where it leaves no room: or it would be decided again, and again.
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

/// The detached task: one request, then the keystore.
async fn carry_out(context: Arc<Context>, job: Job) {
    if !job.acknowledged {
        return not_made(&context, &job, &NotMade::LicenceExpired).await;
    }
    match create(&context, &job).await {
        Outcome::Made(created) => {
            job.memory.note(|facts| facts.refused_credentials = None);
            save(&context, &job, created).await;
        }
        Outcome::NotMade(why) => not_made(&context, &job, &why).await,
        Outcome::Unknown(error) => {
            warn!(%error, "The outcome of a creation is not known; it is judged later");
        }
    }
}

async fn create(context: &Context, job: &Job) -> Outcome {
    let client = context.client(&job.memory);
    let CredentialSet { wallet, token, .. } = &job.credentials;
    match (wallet, token) {
        (Some((wallet, totp)), _) => match client.challenge(wallet).await {
            Ok(challenge) => {
                let request =
                    client.create_with_wallet(wallet, challenge, totp.as_ref(), &job.key_name, || {
                        time_left(context, job).is_some()
                    });
                send(context, job, request).await
            }
            // A challenge makes nothing, whatever became of it.
            Err(error) => Outcome::NotMade(NotMade::Bags(error)),
        },
        (None, Some(token)) => send(context, job, client.create_with_token(token, &job.key_name)).await,
        (None, None) => Outcome::NotMade(NotMade::NoCredentials),
    }
}

/// Sends the request that creates, if the licence still holds.
async fn send(
    context: &Context,
    job: &Job,
    request: impl Future<Output = Result<CreatedKey, bags::Error>>,
) -> Outcome {
    let Some(left) = time_left(context, job) else { return Outcome::NotMade(NotMade::LicenceExpired) };
    match tokio::time::timeout(left, request).await {
        Err(_) => Outcome::Unknown("no answer before the deadline of the attempt".to_owned()),
        Ok(Ok(created)) => Outcome::Made(created),
        Ok(Err(error)) => match error.class() {
            Class::Refused | Class::NotDone | Class::RateLimited { .. } => {
                Outcome::NotMade(NotMade::Bags(error))
            }
            Class::Unknown => Outcome::Unknown(error.to_string()),
        },
    }
}

/// I4: how long the request may take; `None` when the licence is over by either clock.
fn time_left(context: &Context, job: &Job) -> Option<Duration> {
    let timings = &context.settings.timings;
    let (wall, monotonic) = job.licensed;
    let by_wall = context.env.clock.wall().duration_since(wall);
    let by_monotonic = context.env.clock.monotonic().saturating_duration_since(monotonic);
    // A wall clock that went back tells nothing; one second of it is adjustment.
    let by_wall = Duration::try_from(by_wall + jiff::SignedDuration::from_secs(1)).ok()?;
    let elapsed = by_wall.saturating_sub(Duration::from_secs(1)).max(by_monotonic);
    (elapsed <= timings.begin_deadline).then(|| timings.answer_deadline.saturating_sub(elapsed))
}

/// Saves the value; tries again until the save deadline, and gives up only then.
async fn save(context: &Context, job: &Job, created: CreatedKey) {
    let CreatedKey { value, key_id, signed_up, user_id: _ } = created;
    let mut unsaved = Unsaved::new(job.placeholder.clone(), &value, key_id.as_deref());
    let mut pause = SAVE_PAUSES.0;
    loop {
        match context.keystore.save(&mut unsaved).await {
            Ok(()) => break,
            Err(SaveError::Judged) => return lost(context, job, key_id).await,
            Err(error) => warn!(%error, "Failed to save a key's value; it is tried again"),
        }
        let elapsed = context.env.clock.monotonic().saturating_duration_since(job.licensed.1);
        if elapsed + pause > context.settings.timings.save_deadline {
            return lost(context, job, key_id).await;
        }
        context.metrics.save_retried();
        rest(pause).await;
        pause = (pause * 2).min(SAVE_PAUSES.1);
    }
    context.metrics.key(KeyStep::Made);
    info!(key_id = key_id.as_deref().unwrap_or("unknown"), "Made a key and saved its value");
    if signed_up {
        report(
            context,
            job,
            EventReason::AccountSignedUp,
            "the wallet had no account at Bags: one was just made",
        )
        .await;
    }
    if key_id.is_none() && job.credentials.token.is_none() {
        let note = format!("Bags told no id of key {}: only a person can revoke it", job.key_name);
        report(context, job, EventReason::KeyIdUnknown, &note).await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a save is no reconcile: it must go on by itself until it is done"
)]
async fn rest(pause: Duration) {
    tokio::time::sleep(pause).await;
}

/// The key exists and its value has nowhere to go: the ledger says so, or, where the attempt was judged already,
/// this task revokes the key that it knows to have made.
async fn lost(context: &Context, job: &Job, key_id: Option<String>) {
    let change = Change::Lose { attempt: job.attempt.clone(), key_id: key_id.clone() };
    let recorded = context.ledger.change(&job.account, &[change]).await;
    context.metrics.key(KeyStep::Lost);
    error!(
        key_id = key_id.as_deref().unwrap_or("unknown"),
        recorded = recorded.is_ok(),
        "A key's value could not be saved"
    );
    let note = format!("key {} was made and its value could not be saved", job.key_name);
    report(context, job, EventReason::KeyLost, &note).await;
    // A key that is in a slot is not this task's to revoke: its value may have arrived by a write without an answer,
    // and it may be published by now.
    let Ok(account) = context.ledger.read_live(&job.account).await else { return };
    if let (true, Some(token), Some(key_id)) =
        (was_judged(&account, &job.attempt), &job.credentials.token, key_id)
    {
        let client = context.client(&job.memory).urgent();
        match client.revoke(token, account.revocation_path(), &key_id).await {
            Ok(outcome) => info!(?outcome, "Revoked a key whose attempt had been judged"),
            Err(error) => error!(%error, "Failed to revoke a key whose attempt had been judged"),
        }
    }
}

/// Whether an attempt left the ledger. Of one that was lost nobody can tell: its slot is put back.
fn was_judged(account: &BagsAccount, attempt: &str) -> bool {
    let status = account.status.as_ref();
    status.is_some_and(|status| status.installation.is_some())
        && Ledger::of(status).by_attempt(attempt).is_none()
}

/// Nothing was made: the place is kept, and the placeholder goes.
async fn not_made(context: &Context, job: &Job, why: &NotMade) {
    let reason = match why {
        NotMade::Bags(error) => error.reason().name(),
        NotMade::LicenceExpired => "LicenceExpired",
        NotMade::NoCredentials => "NoCredentials",
    };
    let change = Change::NotMade { attempt: job.attempt.clone(), reason };
    if decide::speaks_of_credentials(reason) {
        job.memory.note(|facts| facts.refused_credentials = Some(job.credentials.version.clone()));
    }
    let timings = &context.settings.timings;
    let mut pause = SAVE_PAUSES.0;
    loop {
        let written = context.ledger.update(&job.account, |draft| {
            draft.apply(&change)?;
            if reason == LIMIT_REACHED {
                draft.status.refusal = Some(learnt(draft.account, &draft.status.slots, draft.now()));
            }
            Ok(())
        });
        match written.await {
            Ok(_) | Err(StoreError::Refused(_) | StoreError::NoAccount(_)) => break,
            Err(error) => warn!(%error, "Failed to record that nothing was made; it is tried again"),
        }
        let elapsed = context.env.clock.monotonic().saturating_duration_since(job.licensed.1);
        if elapsed + pause > timings.save_deadline {
            return;
        }
        rest(pause).await;
        pause = (pause * 2).min(SAVE_PAUSES.1);
    }
    if let NotMade::Bags(error) = why {
        warn!(%error, "No key was made");
    }
    discard(context, &job.placeholder).await;
}

/// What a refusal teaches: at least so many keys were made elsewhere that the limit is reached.
fn learnt(account: &BagsAccount, slots: &[crate::api::account::Slot], at: Timestamp) -> LimitRefusal {
    let ours = slots.iter().filter(|slot| slot.state != SlotState::Reserved).count();
    let before = account.status.as_ref().and_then(|status| status.refusal.as_ref());
    LimitRefusal {
        unmanaged: account.limit().saturating_sub(i64::try_from(ours).unwrap_or(i64::MAX)).max(0),
        count: before.map_or(0, |refusal| refusal.count).saturating_add(1),
        generation: account.metadata.generation,
        at,
    }
}

async fn report(context: &Context, job: &Job, reason: EventReason, note: &str) {
    use kube::Resource;
    let account = context.ledger.read(&job.account).await;
    if let Some(account) = account {
        context.events.publish(&account.object_ref(&()), reason, note).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apikey::fixtures::{account, mine, now};

    #[test]
    fn an_attempt_of_a_lost_ledger_was_not_judged() {
        let mut account = account();
        let attempt = mine(SlotState::Creating).attempt.unwrap();
        account.status = None;
        assert!(!was_judged(&account, &attempt), "its status is lost");
        account.status.get_or_insert_default().installation =
            Some(crate::api::account::Installation { cluster: "cluster".into(), namespace: "bags".into() });
        assert!(was_judged(&account, &attempt), "it left");
        account.status.get_or_insert_default().slots.push(mine(SlotState::Creating));
        assert!(!was_judged(&account, &attempt), "it is in a slot");
    }

    #[test]
    fn what_a_refusal_teaches_stays_within_its_numbers() {
        let mut account = account();
        account.spec.limit = Some(i64::MIN);
        let refusal = LimitRefusal { unmanaged: 0, count: i64::MAX, generation: None, at: now() };
        account.status.get_or_insert_default().refusal = Some(refusal);
        let LimitRefusal { unmanaged, count, generation: _, at } =
            learnt(&account, &[mine(SlotState::Live)], now());
        assert_eq!((unmanaged, count, at), (0, i64::MAX, now()));
    }
}
