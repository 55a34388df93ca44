//! One licensed attempt: one request that creates, then the keystore. Nothing cancels it.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
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
    timings::Timings,
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
            job.memory.note(|facts| {
                facts.refused_credentials = None;
                // They may have been replaced since the request was sent.
                if facts.credentials.as_ref().is_none_or(|now| *now == job.credentials.version) {
                    facts.tried = Some(true);
                }
            });
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
    let (wall, monotonic) = job.licensed;
    let by_wall = context.env.clock.wall().duration_since(wall);
    let by_monotonic = context.env.clock.monotonic().saturating_duration_since(monotonic);
    left_of(&context.settings.timings, by_wall, by_monotonic)
}

/// The same, of a licence that is so old by either clock: one stands still while the machine sleeps, the other one is set by people.
fn left_of(timings: &Timings, by_wall: SignedDuration, by_monotonic: Duration) -> Option<Duration> {
    // A wall clock that went back tells nothing; one second of it is adjustment.
    let by_wall = Duration::try_from(by_wall + SignedDuration::from_secs(1)).ok()?;
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
    if let (Some(token), Some(key_id)) = (&job.credentials.token, key_id)
        && may_revoke(&account, &job.attempt, &key_id)
    {
        let client = context.client(&job.memory).urgent();
        match client.revoke(token, account.revocation_path(), &key_id).await {
            Ok(outcome) => info!(?outcome, "Revoked a key whose attempt had been judged"),
            Err(error) => error!(%error, "Failed to revoke a key whose attempt had been judged"),
        }
    }
}

/// Whether a save may revoke the key of its attempt by itself, by the id that Bags told. Where only a person revokes, StrayKeys
/// names it once a list shows it; so it does where a key in a slot goes by that id, and would be revoked in its place.
fn may_revoke(account: &BagsAccount, attempt: &str, key_id: &str) -> bool {
    let slots = account.status.iter().flat_map(|status| &status.slots);
    let shared = slots.filter_map(|slot| slot.key_id.as_deref()).any(|known| known == key_id);
    was_judged(account, attempt) && !shared && account.revocation_mode() != RevocationMode::Person
}

/// Whether an attempt left the ledger. Of one that was lost nobody can tell: its slot is put back.
fn was_judged(account: &BagsAccount, attempt: &str) -> bool {
    let status = account.status.as_ref();
    status.is_some_and(|status| status.installation.is_some())
        && Ledger::of(status).by_attempt(attempt).is_none()
}

/// Nothing was made: the place is kept, and the placeholder goes. So it is also where nobody knows whether the licence was
/// written: by then it is in the ledger no more, or cannot arrive there.
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
            match job.acknowledged {
                true => draft.apply(&change)?,
                false => draft.take_back(&job.attempt, &change)?,
            }
            if reason == LIMIT_REACHED {
                draft.status.refusal = Some(learnt(draft.account, &draft.status.slots, draft.now()));
            }
            Ok(())
        });
        match written.await {
            Ok(_) | Err(StoreError::Refused(_) | StoreError::NoAccount(_)) => break,
            // Who may not write it has not written the licence either.
            Err(error) if !job.acknowledged && error.is_rejection() => break,
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
    use std::sync::Mutex;

    use http::Method;
    use kube::{ResourceExt, runtime::watcher::Event};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        apikey::fixtures::{CREDENTIALS, account, credentials, mine, now},
        fixtures::{self, Came, failure, installation, process},
        keystore::Placeholder,
        operator::parts::Watches,
    };

    /// An API server with one account and one Secret.
    struct Server {
        account: BagsAccount,
        secret: Value,
        /// The next write of the account is answered with a failure, and is still under way.
        holds: bool,
        /// The write that is under way.
        held: Option<BagsAccount>,
        /// Nobody may write the account.
        refuses: bool,
        requests: Vec<Method>,
    }

    impl Server {
        fn answer(&mut self, request: &Came) -> (u16, Value) {
            let method = &request.method;
            self.requests.push(method.clone());
            if request.path().contains("/secrets") {
                if *method == Method::POST {
                    self.secret = request.body.clone();
                }
                return (200, self.secret.clone());
            }
            if *method == Method::GET {
                return (200, json!(self.account));
            }
            if self.refuses {
                return failure(403, "Forbidden");
            }
            let sent = serde_json::from_value(request.body.clone()).unwrap();
            if std::mem::take(&mut self.holds) {
                self.held = Some(sent);
                return failure(500, "InternalError");
            }
            self.write(sent)
        }

        fn write(&mut self, sent: BagsAccount) -> (u16, Value) {
            let version = self.account.resource_version();
            if sent.resource_version() != version {
                return failure(409, "Conflict");
            }
            let next = version.unwrap().parse::<u64>().unwrap() + 1;
            self.account = sent;
            self.account.metadata.resource_version = Some(next.to_string());
            (200, json!(self.account))
        }
    }

    /// An account with a place for the ApiKey, and a process whose cache shows it.
    fn stage() -> (Arc<Mutex<Server>>, Arc<Context>) {
        let mut account = account();
        account.metadata.resource_version = Some("1".to_owned());
        let status = account.status.get_or_insert_default();
        (status.installation, status.slots) = (Some(installation()), vec![mine(SlotState::Reserved)]);
        let mut watches = Watches::new();
        watches.accounts.1.apply_watcher_event(&Event::Apply(account.clone()));
        let server = Arc::new(Mutex::new(Server {
            account,
            secret: Value::Null,
            holds: false,
            held: None,
            refuses: false,
            requests: vec![],
        }));
        let answering = server.clone();
        let (kube, _) = fixtures::server(move |request, _| answering.lock().unwrap().answer(request));
        let context = process(&watches, kube);
        (server, context)
    }

    /// An attempt whose licence was not acknowledged.
    async fn unacknowledged(context: &Context) -> Job {
        let place = mine(SlotState::Reserved);
        let placeholder = Placeholder {
            account: "main",
            owner: &place.owner,
            key_use: &place.key_use,
            trigger: None,
            revision: 1,
            attempt: "attempt-1",
            key_name: "Production-App-0-attempt-1",
            credentials: CREDENTIALS,
            installation: &context.settings.installation,
        };
        Job {
            account: "main".to_owned(),
            attempt: placeholder.attempt.to_owned(),
            key_name: placeholder.key_name.to_owned(),
            placeholder: context.keystore.place(&placeholder).await.unwrap(),
            credentials: credentials(),
            memory: context.memory_of("main", &account()),
            licensed: (context.env.clock.wall(), context.env.clock.monotonic()),
            acknowledged: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_licence_that_was_not_answered_cannot_arrive_after_its_placeholder_went() {
        for arrived in [false, true] {
            let (server, context) = stage();
            let job = unacknowledged(&context).await;
            let license = Change::License {
                owner_uid: mine(SlotState::Reserved).owner.uid,
                attempt: job.attempt.clone(),
                key_name: job.key_name.clone(),
                trigger: None,
            };
            server.lock().unwrap().holds = true;
            assert!(context.ledger.change("main", &[license]).await.is_err());
            let late = server.lock().unwrap().held.take().unwrap();
            if arrived {
                assert_eq!(server.lock().unwrap().write(late.clone()).0, 200);
            }
            carry_out(context.clone(), job).await;
            let mut server = server.lock().unwrap();
            assert!(server.requests.ends_with(&[Method::PUT, Method::DELETE]), "{:?}", server.requests);
            assert_eq!(server.write(late).0, 409, "it arrives no more");
            let Ledger { slots, departed } = Ledger::of(server.account.status.as_ref());
            let failed = slots[0].failures.as_ref().map(|failures| failures.reason.as_str());
            let expected = arrived.then_some("LicenceExpired");
            assert_eq!((slots.len(), &slots[0].state, failed), (1, &SlotState::Reserved, expected));
            assert_eq!(departed, ["attempt-1"], "arrived: {arrived}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ledger_that_may_not_be_written_is_not_tried_again_for_a_licence_that_it_refused_as_well() {
        let (server, context) = stage();
        let job = unacknowledged(&context).await;
        server.lock().unwrap().refuses = true;
        carry_out(context.clone(), job).await;
        assert_eq!(server.lock().unwrap().requests, [Method::POST, Method::PUT, Method::DELETE]);
    }

    #[test]
    fn an_attempt_of_a_lost_ledger_was_not_judged_and_a_person_may_be_the_only_one_to_revoke() {
        let mut account = account();
        let attempt = mine(SlotState::Creating).attempt.unwrap();
        account.status = None;
        assert!(!was_judged(&account, &attempt), "its status is lost");
        account.status.get_or_insert_default().installation =
            Some(crate::api::account::Installation { cluster: "cluster".into(), namespace: "bags".into() });
        assert!(was_judged(&account, &attempt), "it left");
        let may_revoke = |account: &BagsAccount| may_revoke(account, &attempt, "id-1");
        assert!(may_revoke(&account), "nothing else knows of its key");
        account.spec.revocation.get_or_insert_default().mode = Some(RevocationMode::Person);
        assert!(!may_revoke(&account), "only a person revokes");
        account.status.get_or_insert_default().slots.push(mine(SlotState::Creating));
        assert!(!was_judged(&account, &attempt), "it is in a slot");
    }

    #[test]
    fn a_key_in_a_slot_is_not_revoked_for_one_that_goes_by_the_same_id() {
        let mut account = account();
        let live = mine(SlotState::Live);
        let id = live.key_id.clone().unwrap();
        let status = account.status.get_or_insert_default();
        status.installation =
            Some(crate::api::account::Installation { cluster: "cluster".into(), namespace: "bags".into() });
        status.slots.push(live);
        assert!(may_revoke(&account, "judged", "another-id"));
        assert!(!may_revoke(&account, "judged", &id));
    }

    #[test]
    fn a_licence_is_over_by_either_clock() {
        let timings = Timings::default();
        let (begin, answer) = (timings.begin_deadline, timings.answer_deadline);
        let signed = |time| SignedDuration::try_from(time).unwrap();
        let (none, hour) = (Duration::ZERO, Duration::from_hours(1));
        let left = |by_wall, by_monotonic| left_of(&timings, by_wall, by_monotonic);
        assert_eq!(left(signed(none), none), Some(answer));
        assert_eq!(left(signed(hour), none), None, "the machine slept, and its other clock with it");
        assert_eq!(left(signed(none), hour), None, "somebody set the wall clock back to when it was given");
        assert_eq!(left(-signed(hour), none), None, "nobody can tell by a clock that went back");
        assert_eq!(left(SignedDuration::from_millis(-900), none), Some(answer), "it was adjusted");
        assert_eq!(left(signed(begin), none), Some(answer.saturating_sub(begin)), "the last moment");
        assert_eq!(left(signed(none), begin), Some(answer.saturating_sub(begin)), "the last moment");
        let nanosecond = Duration::from_nanos(1);
        assert_eq!(left(signed(begin + nanosecond), none), None);
        assert_eq!(left(signed(none), begin + nanosecond), None);
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
