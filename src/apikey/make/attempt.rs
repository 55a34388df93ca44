//! One licensed attempt: one request that creates, then the keystore. Nothing cancels it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::discard;
use crate::{
    account::{credentials::CredentialSet, memory::AccountMemory},
    api::{
        BagsAccount,
        account::{LimitRefusal, RevocationMode, Slot, SlotState},
    },
    apikey::decide::{self, LIMIT_REACHED},
    bags::{self, CreatedKey},
    context::Context,
    events::EventReason,
    keystore::{Entry, SaveError, Unsaved},
    ledger::{Change, Ledger, StoreError},
    metrics::KeyStep,
};

/// First and longest pause between tries to save a value.
const SAVE_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A licensed attempt.
pub(super) struct Job {
    pub(super) account: String,
    pub(super) attempt: String,
    pub(super) key_name: String,
    pub(super) placeholder: Entry,
    pub(super) credentials: CredentialSet,
    pub(super) memory: Arc<AccountMemory>,
    /// Both clocks, read before the licence was written.
    pub(super) licensed: (Timestamp, Instant),
    /// Whether the licence was acknowledged: only then anything is sent.
    pub(super) acknowledged: bool,
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

/// The detached task: one request, then the keystore.
pub(super) async fn carry_out(context: Arc<Context>, job: Job) {
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
                let may_send = |code_of| {
                    let in_time = time_left(context, job).is_some();
                    if in_time {
                        job.memory.note(|facts| facts.code_sent = Some(code_of));
                    }
                    in_time
                };
                let request =
                    client.create_with_wallet(wallet, challenge, totp.as_ref(), &job.key_name, may_send);
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
        Ok(Err(error)) if error.may_have_created() => Outcome::Unknown(error.to_string()),
        Ok(Err(error)) => Outcome::NotMade(NotMade::Bags(error)),
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
    let CreatedKey { value, key_id, signed_up } = created;
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
        (may_revoke(&account, &job.attempt), &job.credentials.token, key_id)
    {
        let client = context.client(&job.memory).urgent();
        match client.revoke(token, account.revocation_path(), &key_id).await {
            Ok(outcome) => info!(?outcome, "Revoked a key whose attempt had been judged"),
            Err(error) => error!(%error, "Failed to revoke a key whose attempt had been judged"),
        }
    }
}

/// Whether a save may revoke the key of its attempt by itself. Where only a person revokes, StrayKeys names it once a list shows it.
fn may_revoke(account: &BagsAccount, attempt: &str) -> bool {
    was_judged(account, attempt) && account.revocation_mode() != RevocationMode::Person
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
fn learnt(account: &BagsAccount, slots: &[Slot], at: Timestamp) -> LimitRefusal {
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
    fn an_attempt_of_a_lost_ledger_was_not_judged_and_a_person_may_be_the_only_one_to_revoke() {
        let mut account = account();
        let attempt = mine(SlotState::Creating).attempt.unwrap();
        account.status = None;
        assert!(!was_judged(&account, &attempt), "its status is lost");
        account.status.get_or_insert_default().installation =
            Some(crate::api::account::Installation { cluster: "cluster".into(), namespace: "bags".into() });
        assert!(was_judged(&account, &attempt), "it left");
        assert!(may_revoke(&account, &attempt), "nothing else knows of its key");
        account.spec.revocation.get_or_insert_default().mode = Some(RevocationMode::Person);
        assert!(!may_revoke(&account, &attempt), "only a person revokes");
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
