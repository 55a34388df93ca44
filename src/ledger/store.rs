//! Reads the ledger, and writes it with resourceVersion after checking every invariant.
//!
//! Writes of this process to one account queue behind each other and start from the last acknowledged version:
//! the conflict check of the API server is the live read. After a conflict the whole decision is made again.
//!
//! If a newer version of the operator holds the ledger, only the conditions and the observed generation are written, by a patch:
//! if the status were written as a whole, all that this version cannot read would be lost.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::reflector::{ObjectRef, Store},
};
use serde_json::json;

use super::{
    capacity::Room,
    invariants::{Waiver, violations},
    slots::{Change, Ledger, Refusal, Terms},
};
use crate::{
    api::{
        BagsAccount, BagsAccountStatus,
        account::{Installation, Slot},
    },
    clock::Clock,
    env::{explain, version},
    timings::Timings,
};

/// How often a decision is made again after a conflict before the caller is sent away to come back later.
const TRIES: usize = 5;
/// A write to the API server is given up after this; what became of it is read again.
const WRITE_DEADLINE: Duration = Duration::from_secs(15);

/// Why the ledger was not written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such account.
    #[error("there is no BagsAccount \"{0}\"")]
    NoAccount(String),
    /// The ledger as it is does not allow the change.
    #[error("the ledger does not allow it: {0}")]
    Refused(Refusal),
    /// The write would have broken an invariant; nothing was sent.
    #[error("the write would have broken an invariant: {0}")]
    Violation(String),
    /// Others kept writing.
    #[error("failed to write the ledger: it kept changing")]
    Contended,
    /// The API server did not answer in time.
    #[error("failed to write the ledger: no answer in {} s", WRITE_DEADLINE.as_secs())]
    Timeout,
    /// The API server answered with an error.
    #[error("failed to read or write the ledger: {}", explain(.0))]
    Kube(Box<kube::Error>),
}

impl StoreError {
    /// Whether the API server understood the write and said no: it has no effect, now or later, nor would another one
    /// like it.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        match self {
            Self::Kube(error) => match &**error {
                kube::Error::Api(status) => matches!(status.code, 400 | 403 | 405 | 413 | 422),
                _ => false,
            },
            Self::NoAccount(_) | Self::Refused(_) | Self::Violation(_) | Self::Contended | Self::Timeout => {
                false
            }
        }
    }
}

/// A version of an account being changed.
pub struct Draft<'a> {
    /// The account as last acknowledged.
    pub account: &'a BagsAccount,
    /// Its status as it will be.
    pub status: BagsAccountStatus,
    waiver: Waiver,
    now: jiff::Timestamp,
    timings: &'a Timings,
    /// Who writes.
    installation: &'a Installation,
}

impl Draft<'_> {
    /// The moment of the write.
    #[must_use]
    pub fn now(&self) -> jiff::Timestamp {
        self.now
    }

    /// Whether a newer version holds the ledger: then nothing but conditions can be written.
    #[must_use]
    pub fn is_held(&self) -> bool {
        Ledger::of(self.account.status.as_ref()).unknown_state()
    }

    /// Applies a change to the slots.
    ///
    /// # Errors
    /// When the ledger does not allow it; when it is nobody's, as its slots may have been lost: a change that was decided before
    /// the loss would keep them from being put back; and when another installation has taken it over since.
    pub fn apply(&mut self, change: &Change) -> Result<(), Refusal> {
        self.is_ours()?;
        let next = Ledger::of(Some(&self.status)).apply(change, &self.terms())?;
        if matches!(change, Change::Condemn { emergency: true, .. }) {
            self.waiver = Waiver::Emergency;
        }
        self.status.slots = next.slots;
        self.status.departed = next.departed;
        Ok(())
    }

    /// Takes back a licence whose write was not answered. If the licence is not in the ledger, that write may still be under way:
    /// then its attempt is noted as departed. This write replaces the version that the licence's write starts from, so that one
    /// conflicts from now on.
    ///
    /// # Errors
    /// When the ledger does not allow it: it is not this installation's, or the attempt was judged otherwise.
    pub fn take_back(&mut self, attempt: &str, not_made: &Change) -> Result<(), Refusal> {
        if self.apply(not_made).is_ok() {
            return Ok(());
        }
        self.is_ours()?;
        let mut ledger = Ledger::of(Some(&self.status));
        if ledger.by_attempt(attempt).is_some() {
            return Err(Refusal::NotInState);
        }
        if !ledger.departed.iter().any(|gone| gone == attempt) {
            ledger.depart(attempt);
        }
        self.status.departed = ledger.departed;
        Ok(())
    }

    /// Whether the ledger is this installation's.
    fn is_ours(&self) -> Result<(), Refusal> {
        match &self.status.installation {
            None => Err(Refusal::Nobodys),
            Some(holder) if holder != self.installation => Err(Refusal::Anothers),
            Some(_) => Ok(()),
        }
    }

    /// Puts slots back that were lost with the account's status.
    ///
    /// # Errors
    /// When the ledger has slots: then it was not lost.
    pub fn rebuild(&mut self, slots: Vec<Slot>) -> Result<(), Refusal> {
        if !self.status.slots.is_empty() {
            return Err(Refusal::HasPlace);
        }
        self.waiver = Waiver::Rebuild;
        self.status.slots = slots;
        Ok(())
    }

    fn room(&self) -> Room {
        Room::with(self.account, Some(&self.status), self.now, self.timings)
    }

    fn terms(&self) -> Terms {
        Terms { room: self.room(), now: self.now, licence_term: self.timings.licence_term }
    }
}

/// What is known of an account's last write.
#[derive(Default)]
enum Known {
    /// Nothing but what the watch shows.
    #[default]
    Nothing,
    /// The version that was acknowledged.
    Acknowledged(Arc<BagsAccount>),
    /// A write whose outcome is not known: only a live read tells.
    Doubtful,
}

type Last = Arc<tokio::sync::Mutex<Known>>;

/// The ledgers of all accounts.
pub struct LedgerStore {
    api: Api<BagsAccount>,
    clock: Arc<dyn Clock>,
    timings: Timings,
    /// Whose ledgers are written.
    installation: Installation,
    seen: Store<BagsAccount>,
    last: Mutex<HashMap<String, Last>>,
}

impl LedgerStore {
    /// `seen` is the cache of the watch on accounts.
    #[must_use]
    pub fn new(
        client: Client,
        clock: Arc<dyn Clock>,
        timings: Timings,
        installation: Installation,
        seen: Store<BagsAccount>,
    ) -> Self {
        Self { api: Api::all(client), clock, timings, installation, seen, last: Mutex::default() }
    }

    /// The newest version that this process knows: the last acknowledged write, or what the watch saw since.
    /// `None`: there is no such account.
    pub async fn read(&self, name: &str) -> Option<Arc<BagsAccount>> {
        let seen = self.seen.get(&ObjectRef::new(name))?;
        let last = self.last(name);
        let mut last = last.lock().await;
        if let Known::Doubtful = *last
            && let Ok(account) = self.get(name).await
        {
            *last = Known::Acknowledged(account);
        }
        match &*last {
            Known::Acknowledged(ours) => Some(newer(ours, seen)),
            Known::Nothing | Known::Doubtful => Some(seen),
        }
    }

    /// An account as it is now.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn read_live(&self, name: &str) -> Result<Arc<BagsAccount>, StoreError> {
        self.get(name).await
    }

    /// Reads an account live; the next read through this store returns this version, or a newer one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn refresh(&self, name: &str) -> Result<Arc<BagsAccount>, StoreError> {
        let last = self.last(name);
        let mut last = last.lock().await;
        let account = self.get(name).await?;
        *last = Known::Acknowledged(account.clone());
        Ok(account)
    }

    /// Applies changes in one write.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn change(&self, name: &str, changes: &[Change]) -> Result<Arc<BagsAccount>, StoreError> {
        self.update(name, |draft| changes.iter().try_for_each(|change| draft.apply(change))).await
    }

    /// Writes what `decide` makes of this version, or of a newer one that this process has written since. Tries once: a caller
    /// whose decision depends on more than the ledger has to read all of that again after [`StoreError::Contended`].
    ///
    /// # Errors
    /// See [`StoreError`]. After `Timeout` and `Kube`, and where this future is dropped, the write may have been applied.
    pub async fn update_once(
        &self,
        name: &str,
        live: Arc<BagsAccount>,
        mut decide: impl FnMut(&mut Draft<'_>) -> Result<(), Refusal>,
    ) -> Result<Arc<BagsAccount>, StoreError> {
        let last = self.last(name);
        let mut last = last.lock().await;
        let account = match &*last {
            Known::Acknowledged(ours) => newer(ours, live),
            Known::Nothing => live,
            // `live` may have been read before the write in doubt was applied.
            Known::Doubtful => self.get(name).await?,
        };
        self.attempt(&account, &mut last, &mut decide).await?.ok_or(StoreError::Contended)
    }

    /// Writes what `decide` makes of the newest version; nothing, if it changes nothing. After a conflict
    /// `decide` is asked again, with the version that is there now.
    ///
    /// # Errors
    /// See [`StoreError`]. After `Timeout` and `Kube` the write may have been applied.
    pub async fn update(
        &self,
        name: &str,
        mut decide: impl FnMut(&mut Draft<'_>) -> Result<(), Refusal>,
    ) -> Result<Arc<BagsAccount>, StoreError> {
        let last = self.last(name);
        let mut last = last.lock().await;
        for _ in 0..TRIES {
            let account = self.start(name, &last).await?;
            if let Some(written) = self.attempt(&account, &mut last, &mut decide).await? {
                return Ok(written);
            }
        }
        Err(StoreError::Contended)
    }

    /// One write from this version; `None`: it met a conflict. If a write was not answered, or its future was dropped, its
    /// outcome is not known: the next access starts from a live read.
    async fn attempt(
        &self,
        account: &Arc<BagsAccount>,
        last: &mut Known,
        decide: &mut impl FnMut(&mut Draft<'_>) -> Result<(), Refusal>,
    ) -> Result<Option<Arc<BagsAccount>>, StoreError> {
        *last = Known::Acknowledged(account.clone());
        let Some(next) = self.draft(account, decide)? else { return Ok(Some(account.clone())) };
        let name = account.name_any();
        *last = Known::Doubtful;
        match tokio::time::timeout(WRITE_DEADLINE, self.send(&name, &next)).await {
            Ok(Ok(written)) => {
                let written = Arc::new(written);
                *last = Known::Acknowledged(written.clone());
                Ok(Some(written))
            }
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() => Ok(None),
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => {
                *last = Known::Nothing;
                Err(StoreError::NoAccount(name))
            }
            Ok(Err(error)) => Err(StoreError::Kube(Box::new(error))),
            Err(_) => Err(StoreError::Timeout),
        }
    }

    /// One request: the status as a whole, or the conditions alone where a newer version holds the ledger.
    async fn send(&self, name: &str, next: &BagsAccount) -> kube::Result<BagsAccount> {
        let status = next.status.as_ref();
        if !Ledger::of(status).unknown_state() {
            return self.api.replace_status(name, &PostParams::default(), next).await;
        }
        let patch = json!({
            "metadata": {"resourceVersion": next.resource_version()},
            "status": {
                "conditions": status.map(|status| &status.conditions),
                "observedGeneration": status.and_then(|status| status.observed_generation),
            },
        });
        self.api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await
    }

    /// The version that a write starts from.
    async fn start(&self, name: &str, last: &Known) -> Result<Arc<BagsAccount>, StoreError> {
        match (last, self.seen.get(&ObjectRef::new(name))) {
            (Known::Acknowledged(ours), Some(seen)) => Ok(newer(ours, seen)),
            (Known::Nothing, Some(seen)) => Ok(seen),
            (Known::Doubtful, _) | (_, None) => self.get(name).await,
        }
    }

    /// The next version, checked; `None` if nothing changes.
    fn draft(
        &self,
        account: &BagsAccount,
        decide: &mut impl FnMut(&mut Draft<'_>) -> Result<(), Refusal>,
    ) -> Result<Option<BagsAccount>, StoreError> {
        let before = account.status.clone().unwrap_or_default();
        let mut draft = Draft {
            account,
            status: before.clone(),
            waiver: Waiver::None,
            now: to_microseconds(self.clock.wall()),
            timings: &self.timings,
            installation: &self.installation,
        };
        decide(&mut draft).map_err(StoreError::Refused)?;
        if draft.is_held() {
            let Draft { status, .. } = draft;
            return told(account, &before, status);
        }
        let capacity = draft.room().capacity(&draft.status.slots);
        draft.status.capacity = Some(capacity);
        let (old, new) = (Ledger::of(Some(&before)), Ledger::of(Some(&draft.status)));
        let broken = violations(&old, &new, &draft.terms(), draft.waiver);
        if !broken.is_empty() && old != new {
            return Err(StoreError::Violation(broken.join("; ")));
        }
        let Draft { status, .. } = draft;
        Ok(version_with(account, &before, status))
    }

    async fn get(&self, name: &str) -> Result<Arc<BagsAccount>, StoreError> {
        match tokio::time::timeout(WRITE_DEADLINE, self.api.get_opt(name)).await {
            Ok(Ok(Some(account))) => Ok(Arc::new(account)),
            Ok(Ok(None)) => Err(StoreError::NoAccount(name.to_owned())),
            Ok(Err(error)) => Err(StoreError::Kube(Box::new(error))),
            Err(_) => Err(StoreError::Timeout),
        }
    }

    fn last(&self, name: &str) -> Last {
        let mut all = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(name.to_owned()).or_default().clone()
    }
}

/// The next version of an account whose ledger a newer version of the operator holds: only conditions and observed generation may
/// differ.
fn told(
    account: &BagsAccount,
    before: &BagsAccountStatus,
    next: BagsAccountStatus,
) -> Result<Option<BagsAccount>, StoreError> {
    let words = BagsAccountStatus {
        conditions: next.conditions.clone(),
        observed_generation: next.observed_generation,
        ..before.clone()
    };
    if words != next {
        return Err(StoreError::Refused(Refusal::UnknownState));
    }
    Ok(version_with(account, before, next))
}

/// The account with its next status; `None` if that is the same.
fn version_with(
    account: &BagsAccount,
    before: &BagsAccountStatus,
    next: BagsAccountStatus,
) -> Option<BagsAccount> {
    (next != *before).then(|| BagsAccount {
        metadata: account.metadata.clone(),
        spec: account.spec.clone(),
        status: Some(next),
    })
}

/// The newer one of the last acknowledged version and the one that the watch saw. If the account was created anew under the same
/// name, the one that the watch saw counts.
fn newer(ours: &Arc<BagsAccount>, seen: Arc<BagsAccount>) -> Arc<BagsAccount> {
    if ours.metadata.uid == seen.metadata.uid && version(&**ours) >= version(&*seen) {
        ours.clone()
    } else {
        seen
    }
}

/// Cuts a time to the precision that the API server gives back, so that the two compare as equal.
fn to_microseconds(time: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

#[cfg(test)]
mod tests;
