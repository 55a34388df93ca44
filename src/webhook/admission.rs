//! Admission of a new ApiKey: judge → keep its place in the ledger. An ApiKey that loses a race is judged again from
//! scratch, on the ledger as the winner left it.
//!
//! The newest account that this process knows is enough to keep a place: if it is out of date, the write conflicts. Any
//! other answer, above all a refusal, is based on a live read, unless a place was kept for the ApiKey just before; so is
//! the answer to a dry run, which writes nothing that could conflict.
//!
//! Only the answer to the API server depends on it: the controllers ask the same functions before any request to Bags, so
//! an ApiKey that bypassed this webhook waits there.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt, runtime::reflector::ObjectRef};
use tracing::{error, warn};

use super::{
    reads::SharedReads,
    verdict::{Case, Denial, Verdict, judge},
};
use crate::{
    api::{
        ApiKey, BagsAccount,
        account::{Slot, SlotState},
    },
    apikey::{
        claim::{Claim, Others},
        holders,
    },
    context::Context,
    env::{CallError, call},
    ledger::{Ledger, Refusal, StoreError},
};

/// Half of the time that the API server waits (`timeoutSeconds: 5`): the rest is for the way here and back, the body, and
/// the wait for a turn.
const DEADLINE: Duration = Duration::from_millis(2500);
/// After a lost race: a random moment up to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(40);

/// The answer to a person: warnings with the admission, or a denial.
pub(super) type Answer = Result<Vec<String>, Denial>;

/// What a verdict is made of.
#[derive(Default)]
struct Seen {
    account: Option<Arc<BagsAccount>>,
    /// Labels of the namespace, if the account selects namespaces by label.
    labels: BTreeMap<String, String>,
    /// Owners of keys of the same use that the cache lacks.
    holders: Others,
}

/// Judges new ApiKeys.
pub struct Admission {
    context: Arc<Context>,
    accounts: SharedReads<BagsAccount>,
    namespaces: SharedReads<Namespace>,
}

impl Admission {
    /// Judges by the caches and ledgers of this process.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        let kube = context.env.kube.clone();
        Self {
            context,
            accounts: SharedReads::new(Api::all(kube.clone())),
            namespaces: SharedReads::new(Api::all(kube)),
        }
    }

    /// Admits with warnings, or refuses. A place is kept in the ledger before it admits, unless it is only a dry run.
    ///
    /// # Errors
    /// Why it is refused, for the person.
    pub(super) async fn decide(&self, mut key: ApiKey, dry_run: bool) -> Answer {
        // An ApiKey without a creation time counts as the youngest: all that wait were there before it.
        key.metadata.creation_timestamp.get_or_insert_with(|| {
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.context.env.clock.wall())
        });
        let account = key.spec.account_ref.name.clone();
        let lost = AtomicBool::new(false);
        match tokio::time::timeout(DEADLINE, self.rounds(&key, dry_run, &lost)).await {
            Ok(answer) => answer,
            Err(_) if lost.load(Ordering::Relaxed) => Err(busy(&account)),
            Err(_) => Err(slow(&account)),
        }
    }

    /// The monotonic clock, to measure how long a review takes.
    pub(super) fn now(&self) -> tokio::time::Instant {
        self.context.env.clock.monotonic()
    }

    /// Judges until a verdict stands. Sets `lost` once another writer was faster.
    async fn rounds(&self, key: &ApiKey, dry_run: bool, lost: &AtomicBool) -> Answer {
        if self.name_is_taken(key).await {
            return Ok(vec![name_taken(key)]);
        }
        let mut known = match dry_run {
            true => None,
            false => self.context.ledger.read(&key.spec.account_ref.name).await,
        };
        loop {
            let enough = known.as_ref().is_none_or(|account| self.kept_lately(key, account));
            let seen = self.observe(key, known.take()).await.map_err(|error| unanswered(&error))?; // (io)
            match (self.judge(key, seen.account.as_deref(), &seen), &seen.account) {
                (Verdict::Admit { reserve: Some(_), .. }, Some(account)) if !dry_run => {
                    match self.keep_place(key, account.clone(), &seen).await {
                        Err(error) => lost_race(error)?,
                        Ok(warnings) => return Ok(warnings),
                    }
                    lost.store(true, Ordering::Relaxed);
                }
                (Verdict::Admit { reserve: Some(_), warnings }, _) => return Ok(warnings),
                (Verdict::Admit { reserve: None, .. } | Verdict::Deny(_), _) if !enough => continue,
                (Verdict::Admit { reserve: None, warnings }, _) => return Ok(warnings),
                (Verdict::Deny(denial), _) => return Err(denial),
            }
            pause(LONGEST_PAUSE.mul_f64(self.context.env.randomness.fraction())).await;
        }
    }

    /// Whether the API server is going to refuse the ApiKey because its name is taken: a place would be kept for nobody. If
    /// the cache shows another ApiKey of that name, a live read has to confirm it. One that is being deleted does not
    /// count, as it may be gone by then.
    async fn name_is_taken(&self, key: &ApiKey) -> bool {
        let other = |found: &ApiKey| {
            found.metadata.uid != key.metadata.uid && found.metadata.deletion_timestamp.is_none()
        };
        if !self.context.keys.get(&ObjectRef::from_obj(key)).is_some_and(|seen| other(&seen)) {
            return false;
        }
        let namespace = key.namespace().unwrap_or_default();
        let keys: Api<ApiKey> = Api::namespaced(self.context.env.kube.clone(), &namespace);
        // If the read fails, the name counts as free: a place that nobody takes is given back.
        matches!(call(keys.get_opt(&key.name_any())).await, Ok(Some(found)) if other(&found))
    }

    /// Whether a place was kept for this ApiKey so recently that it cannot have been given back yet, as when our answer was
    /// lost and the API server asks again.
    fn kept_lately(&self, key: &ApiKey, account: &BagsAccount) -> bool {
        let now = self.context.env.clock.wall();
        let term = self.context.settings.timings.reserved_reap_after / 2;
        let young =
            |slot: &Slot| Duration::try_from(now.duration_since(slot.since)).is_ok_and(|age| age < term);
        let ledger = Ledger::of(account.status.as_ref());
        let mut own = ledger.owned_by(key.metadata.uid.as_deref().unwrap_or_default());
        own.any(|slot| slot.state == SlotState::Reserved && young(slot))
    }

    /// Reads what a verdict is made of; the account too, live, if it is not `known`.
    async fn observe(&self, key: &ApiKey, known: Option<Arc<BagsAccount>>) -> Result<Seen, Arc<CallError>> {
        let account = match known {
            Some(account) => Some(account),
            None => self.accounts.get(&key.spec.account_ref.name).await?,
        };
        let Some(account) = account else { return Ok(Seen::default()) };
        let labels = match account.allows_by_label() {
            true => self.namespaces.get(&key.namespace().unwrap_or_default()).await?,
            false => None,
        };
        let labels = labels.map(|namespace| namespace.labels().clone()).unwrap_or_default();
        let ledger = Ledger::of(account.status.as_ref());
        let Context { env, keys, .. } = &*self.context;
        let holders = holders::look_for(&env.kube, keys, &ledger, key).await.map_err(Arc::new)?;
        Ok(Seen { account: Some(account), labels, holders })
    }

    fn judge(&self, key: &ApiKey, account: Option<&BagsAccount>, seen: &Seen) -> Verdict {
        let claim = account.map(|account| self.claim(key, account, seen));
        let installation = &self.context.settings.installation;
        judge(&Case { key, account, claim: claim.as_ref(), installation })
    }

    /// The ApiKey's claim on an account, which may be newer than the one in `seen`: an owner who holds the use only in the
    /// newer version was not looked for, and counts as alive.
    fn claim(&self, key: &ApiKey, account: &BagsAccount, seen: &Seen) -> Claim {
        let ledger = Ledger::of(account.status.as_ref());
        let mut others = seen.holders.clone();
        others.keys.extend(holders::beside(&self.context.keys, &ledger, key));
        let now = self.context.env.clock.wall();
        Claim::of(account, &ledger, key, &others, &seen.labels, now, &self.context.settings.timings)
    }

    /// One write that keeps the place, if the newest version of the account still admits the ApiKey.
    async fn keep_place(
        &self,
        key: &ApiKey,
        account: Arc<BagsAccount>,
        seen: &Seen,
    ) -> Result<Vec<String>, StoreError> {
        let mut said = Vec::new();
        let name = account.name_any();
        let write = self.context.ledger.update_once(&name, account, |draft| {
            match self.judge(key, Some(draft.account), seen) {
                Verdict::Admit { reserve: Some(change), warnings } => {
                    said = warnings;
                    draft.apply(&change)
                }
                Verdict::Admit { reserve: None, .. } | Verdict::Deny(_) => Err(Refusal::NotInState),
            }
        });
        write.await.map(|_| said)
    }
}

/// `Ok`: somebody else was faster, and the ApiKey is to be judged again. `Err`: the answer.
fn lost_race(error: StoreError) -> Result<(), Denial> {
    match error {
        StoreError::Refused(_) | StoreError::Contended | StoreError::NoAccount(_) => Ok(()),
        // The tenant who asks is not to learn which slots violate it.
        StoreError::Violation(_) => {
            error!(%error, "A place could not be kept");
            let message = "a slot could not be kept: the account's ledger is not in order; apply the ApiKey again in a moment, \
                           or ask the platform team to look at the operator's log";
            Err(Denial::passing("LedgerInDisorder", message))
        }
        StoreError::Timeout | StoreError::Kube(_) => {
            warn!(%error, "A place could not be kept");
            Err(not_written(error))
        }
    }
}

/// The denial when the API server did not write the ledger. The message of a policy, or of the schema validation, may quote
/// the whole ledger and with it other tenants' objects: it goes to the log only.
fn not_written(error: StoreError) -> Denial {
    let lasting = error.is_rejection();
    let why = match error {
        StoreError::Kube(error) => CallError::Kube(error).kind(),
        error => error.to_string(),
    };
    let way_out = match lasting {
        true => "ask the platform team to look at the operator's log",
        false => "apply the ApiKey again in a moment",
    };
    Denial {
        reason: "ApiServerUnavailable",
        message: format!("a slot could not be kept: {why}; {way_out}"),
        passing: !lasting,
    }
}

/// The warning for an ApiKey that is created all the same, because the other one was deleted meanwhile.
fn name_taken(key: &ApiKey) -> String {
    let (name, namespace) = (key.name_any(), key.namespace().unwrap_or_default());
    format!(
        "there is an ApiKey \"{name}\" in namespace \"{namespace}\" already: no slot is kept for another one"
    )
}

fn busy(account: &str) -> Denial {
    Denial::passing(
        "Contended",
        format!("others keep taking slots of account \"{account}\"; apply the ApiKey again in a moment"),
    )
}

fn slow(account: &str) -> Denial {
    warn!("The API server did not answer in time");
    Denial::passing(
        "ApiServerUnavailable",
        format!(
            "account \"{account}\" could not be read and written within {} s, as the API server did not answer in time; apply the \
             ApiKey again in a moment",
            DEADLINE.as_secs_f64()
        ),
    )
}

fn unanswered(error: &CallError) -> Denial {
    warn!(error = %error.kind(), "What a verdict is made of could not be read");
    Denial::passing(
        "ApiServerUnavailable",
        format!(
            "the account, the namespace or an ApiKey of the same use could not be read: {}; apply the ApiKey again in a \
             moment",
            error.kind()
        ),
    )
}

#[expect(clippy::disallowed_methods, reason = "a review is no reconcile: somebody waits for its answer")]
async fn pause(pause: Duration) {
    tokio::time::sleep(pause).await;
}

#[cfg(test)]
mod tests;
