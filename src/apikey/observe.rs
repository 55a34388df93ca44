//! Gathers what a decision needs. Reads only: caches first, the API server where a cache would not do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt};
use tokio::time::Instant;

use super::{
    claim::{Claim, Others, has_secret_before},
    holders,
    permission::Permission,
    quiet::{Shown, Uses, signed},
    run::{Run, still_holds},
};
use crate::{
    account::{
        credentials::{CredentialProblem, CredentialSet},
        lists::{self, Coverage},
        memory::AccountFacts,
    },
    api::{
        ApiKey, BagsAccount, FINALIZER,
        account::{Owner, Slot, SlotState},
        apikey::Switch,
        mark,
    },
    bags::{self, KeyValue, Probe},
    consumer_secret::{self, ConsumerSecret, Found},
    context::Context,
    env::{CallError, call},
    keystore::Entry,
    ledger::{Ledger, Room, slots},
    timings::Timings,
    workload::{Consumer, Rest, Scan, WorkloadRef},
};

/// The pods of an ApiKey's namespace that read its Secret.
#[derive(Clone, Debug, Default)]
pub struct PodsSeen {
    /// Which of them may hold another value than the Secret's; where no switch is known, all of them.
    pub scan: Scan,
    /// Their owners; not looked up for a deletion.
    pub consumers: Vec<Consumer>,
    /// Workloads that this process marked for the switch, or tried to: whether each may be marked once more.
    pub resting: BTreeMap<WorkloadRef, Rest>,
    /// Number of the last switch when they were looked at: what they hold was judged by it.
    pub switch: Option<i64>,
    /// When they were listed anew, for a step that cannot be taken back.
    pub confirmed: Option<Timestamp>,
}

/// An ApiKey that came first to what another one wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Its name.
    pub name: String,
    /// It is being deleted.
    pub going: bool,
}

/// Everything that a decision looks at.
pub struct Observation {
    /// The ApiKey.
    pub key: Arc<ApiKey>,
    /// Its name in the ledger.
    pub owner: Owner,
    /// The wall clock.
    pub now: Timestamp,
    /// Durations.
    pub timings: Timings,
    /// Its account; `None`: there is none of that name.
    pub account: Option<AccountView>,
    /// The attempt under way.
    pub creating: Option<CreatingView>,
    /// The value of the current key, where the keystore has it.
    pub current_value: Option<KeyValue>,
    /// When Bags last saw the current key used, as the last list told.
    pub last_used: Option<Timestamp>,
    /// The consumer Secret; read where a key is published.
    pub consumer: Option<Found>,
    /// The pods that read it, where this run looked at them.
    pub pods: Option<PodsSeen>,
    /// What the current key answered in this run.
    pub current_probe: Option<Probe>,
    /// Whether this process ever asked it.
    pub current_asked: bool,
    /// What it answered last, where that was not 200, and how long ago.
    pub current_failure: Option<(Probe, Duration)>,
    /// What the key answered in this run to which a switch back would lead.
    pub previous_probe: Option<Probe>,
    /// What the lists say of the use of keys.
    pub uses: Option<Uses>,
    /// The lists were asked in this run, for a step that cannot be taken back.
    pub listed: bool,
    /// The base URL that the consumer Secret should name.
    pub base_url: String,
    /// Another ApiKey that came first to the Secret's name.
    pub secret_rival: Option<Rival>,
    /// The namespace is being deleted.
    pub namespace_terminating: bool,
}

/// An account, as far as an ApiKey is concerned.
pub struct AccountView {
    /// The account.
    pub account: Arc<BagsAccount>,
    /// Its ledger.
    pub ledger: Ledger,
    /// What it offers.
    pub room: Room,
    /// Whether the ApiKey may use it.
    pub permission: Permission,
    /// So many ApiKeys of its namespace may have keys; `None`: any number.
    pub max: Option<i64>,
    /// Older ApiKeys that wait for a first slot.
    pub ahead: usize,
    /// Another ApiKey that has the same use and goes before, as `namespace/name`.
    pub use_rival: Option<String>,
    /// No request to Bags before this time.
    pub paused_until: Option<Timestamp>,
    /// Its next one-time code is out then: the present one was sent already.
    pub next_code: Option<Timestamp>,
    /// Its keys cannot be listed for so long, and why: none is made without a look at them.
    pub unlisted: Option<(Duration, bags::Error)>,
    /// Its credentials.
    pub credentials: Result<CredentialSet, CredentialProblem>,
    /// Version of the credentials with which a creation was last refused for them.
    pub refused_credentials: Option<String>,
    /// Another ApiKey of the account is about to take the licence.
    pub preparing: bool,
    /// Whether the ledger belongs to this installation; `None`: nobody pinned it yet.
    pub ours: Option<bool>,
    /// It belongs to another installation of this very cluster, which sees to the same ApiKeys.
    pub neighbours: bool,
}

impl AccountView {
    /// Whether lists tell of the use of its keys. Credentials that cannot be read now promise them all the same: an hour without
    /// them is not one in which nobody called.
    #[must_use]
    pub fn may_list(&self) -> bool {
        match &self.credentials {
            Ok(credentials) => credentials.token.is_some(),
            Err(_) => self.account.spec.credentials.agent_token.is_some(),
        }
    }
}

/// An attempt that was licensed.
pub struct CreatingView {
    /// Its slot.
    pub slot: Slot,
    /// Its save runs in this process.
    pub running: bool,
    /// Its keystore Secret, where that has a value.
    pub saved: Option<Entry>,
    /// What its key answered in this run.
    pub probe: Option<Probe>,
    /// For how long its key has answered 401.
    pub refused_for: Option<Duration>,
    /// How long ago it was last probed.
    pub probed_ago: Option<Duration>,
}

impl Observation {
    /// The ApiKey's slots.
    #[must_use]
    pub fn slots(&self) -> Vec<&Slot> {
        self.account.as_ref().map_or_else(Vec::new, |view| view.ledger.owned_by(&self.owner.uid).collect())
    }

    /// The slot of the current key (I2).
    #[must_use]
    pub fn current(&self) -> Option<&Slot> {
        slots::current(self.slots())
    }

    /// The keys that were published before the current one and still live, the one that was published last at the end.
    #[must_use]
    pub fn superseded(&self) -> Vec<&Slot> {
        let current = self.current().and_then(|slot| slot.attempt.clone());
        let mut old: Vec<&Slot> = self.slots();
        old.retain(|slot| slot.state == SlotState::Live && slot.attempt != current);
        old.sort_by_key(|slot| slot.published);
        old
    }

    /// Whether the consumer Secret holds the current key, as far as this run saw: by its value, or, where the keystore
    /// has lost that, by the Secret's own word.
    #[must_use]
    pub fn published(&self) -> bool {
        let (Some(Found::Ours(secret)), Some(slot)) = (&self.consumer, self.current()) else { return false };
        match &self.current_value {
            Some(value) => {
                let held = secret.data.as_ref().and_then(|data| data.get(self.key.api_key_field()));
                held.and_then(|held| KeyValue::parse(&held.0).ok()).as_ref() == Some(value)
            }
            None => secret.annotations().get(mark::SWITCH_ATTEMPT) == slot.attempt.as_ref(),
        }
    }

    /// When the current key went into the Secret, by the API server's clock; `None`: it is not in it.
    #[must_use]
    pub fn switched_at(&self) -> Option<Timestamp> {
        self.consumer.as_ref().filter(|_| self.published()).and_then(|found| {
            let number = consumer_secret::switch_of(found).map(|switch| switch.number);
            (number == self.current()?.published)
                .then(|| consumer_secret::written_at(found, self.key.api_key_field()))?
        })
    }

    /// How long ago a switch was. Both clocks have to say so: the API server's, which dates the switch, and the operator's,
    /// which wrote it.
    #[must_use]
    pub fn passed_since(&self, switched_at: Timestamp) -> Duration {
        let times = std::iter::once(switched_at).chain(self.current().map(|slot| slot.since));
        let passed =
            |at: Timestamp| Duration::try_from(self.now.duration_since(at)).unwrap_or(Duration::ZERO);
        times.map(passed).min().unwrap_or(Duration::ZERO)
    }

    /// For how long yet a pod that starts may be given what the Secret held before a switch: until then, pods that are seen
    /// say nothing of those that come.
    #[must_use]
    pub fn settles_in(&self, switched_at: Timestamp) -> Duration {
        let wait = self.settles_at(switched_at).duration_since(self.now);
        Duration::try_from(wait).unwrap_or(Duration::ZERO).min(self.timings.settle_delay)
    }

    /// When that ends, by both clocks. The Secret may have been written again: then it counts from then on.
    fn settles_at(&self, switched_at: Timestamp) -> Timestamp {
        let at = self.current().map_or(switched_at, |slot| switched_at.max(slot.since));
        at.saturating_add(signed(self.timings.settle_delay)).unwrap_or(Timestamp::MAX)
    }

    /// When the pods were listed for a step that cannot be taken back, where that still holds.
    #[must_use]
    pub fn last_look(&self) -> Option<Timestamp> {
        self.pods.as_ref()?.confirmed.filter(|looked_at| still_holds(*looked_at, self.now))
    }

    /// Since when no pod has been seen with another value than that of the last switch: kept in the status, as nothing else
    /// could tell it to the next process.
    #[must_use]
    pub fn clean_since(&self) -> Option<Timestamp> {
        let switch = switch_of(&self.key, self.current())?;
        let settled = self.switched_at().map(|at| self.settles_at(at));
        switch.clean_since.filter(|clean| settled.is_none_or(|settled| *clean >= settled))
    }

    /// Whether nothing can be seen of its slots: there is no account, or nobody has looked at it since its status is empty.
    #[must_use]
    pub fn is_ledger_unseen(&self) -> bool {
        self.account.as_ref().is_none_or(|view| view.ours.is_none())
    }

    /// Whether our finalizer is on the ApiKey.
    #[must_use]
    pub fn has_finalizer(&self) -> bool {
        self.key.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
    }
}

/// Observes (io).
///
/// # Errors
/// When the API server does not answer.
pub async fn observe(context: &Context, run: &Run) -> Result<Observation, CallError> {
    let key = run.key.clone();
    let owner = key.owner();
    let account = context.ledger.read(&key.spec.account_ref.name).await;
    let deleting = key.metadata.deletion_timestamp.is_some();
    let selectors = account.as_ref().is_some_and(|account| account.allows_by_label());
    let namespace =
        if deleting || selectors { read_namespace(context, &owner.namespace).await? } else { None };
    let labels = namespace.as_ref().map(|namespace| namespace.labels().clone()).unwrap_or_default();
    let others = match &account {
        Some(account) => holders::others(context, &key, account).await?,
        None => Others::default(),
    };
    let account = account.map(|account| view(context, &key, account, &others, &labels));
    let slots: Vec<Slot> =
        account.as_ref().map_or_else(Vec::new, |view| view.ledger.owned_by(&owner.uid).cloned().collect());
    let current = slots::current(&slots);
    let consumer = match (&run.consumer, current) {
        (Some(found), _) => Some(found.clone()),
        (None, Some(slot)) => {
            let known = slot.published.unwrap_or_default();
            Some(ConsumerSecret::of(context.env.kube.clone(), &key).find(known).await?)
        }
        (None, None) => None,
    };
    let current_attempt = current.and_then(|slot| slot.attempt.as_deref());
    let known = current_attempt
        .zip(account.as_ref())
        .map(|(attempt, view)| context.memory_of(&view.account.name_any(), &view.account).key(attempt));
    let known = known.unwrap_or_default();
    let asked_ago = known.probed.map(|at| context.env.clock.monotonic().saturating_duration_since(at));
    let now = context.env.clock.wall();
    Ok(Observation {
        now,
        timings: context.settings.timings.clone(),
        creating: match slots.iter().find(|slot| slot.state == SlotState::Creating) {
            Some(slot) => Some(creating(context, run, account.as_ref(), slot).await?),
            None => None,
        },
        current_value: match current_attempt {
            Some(attempt) => value(context, account.as_ref(), attempt).await?,
            None => None,
        },
        last_used: known.last_used,
        consumer,
        // Another process may have made a switch since: then they were judged by the one before.
        pods: run.pods.clone().filter(|pods| pods.switch == current.and_then(|slot| slot.published)),
        current_probe: run.answer_of(current, now),
        current_asked: known.probed.is_some(),
        current_failure: known.failure.zip(asked_ago),
        previous_probe: run.answer_of(previous(&slots), now),
        uses: match (account.as_ref(), previous(&slots)) {
            (Some(view), Some(previous)) => Some(uses(context, view, &key, current, previous).await),
            _ => None,
        },
        listed: run.has_listed(now),
        base_url: context.settings.consumer_bags_url.clone(),
        secret_rival: secret_rival(context, &key),
        namespace_terminating: namespace.is_some_and(|n| n.metadata.deletion_timestamp.is_some()),
        account,
        owner,
        key,
    })
}

/// The key that was published before the current one, and still lives.
fn previous(slots: &[Slot]) -> Option<&Slot> {
    let current = slots::current(slots)?;
    slots::current(slots.iter().filter(|slot| slot.attempt != current.attempt))
}

/// What the status keeps of the last switch: of it only what nothing else could tell the next process is ever asked.
fn switch_of<'a>(key: &'a ApiKey, current: Option<&Slot>) -> Option<&'a Switch> {
    let switch = key.status.as_ref()?.switch.as_ref()?;
    (Some(switch.count) == current?.published).then_some(switch)
}

/// What is known of the use of the two keys of a switch: a use that was told once is one, also where the account cannot list
/// any more.
async fn uses(
    context: &Context,
    view: &AccountView,
    key: &ApiKey,
    current: Option<&Slot>,
    previous: &Slot,
) -> Uses {
    let memory = context.memory_of(&view.account.name_any(), &view.account);
    let (now, wall) = (context.env.clock.monotonic(), context.env.clock.wall());
    let wall_of = |at: Instant| {
        wall.saturating_sub(signed(now.saturating_duration_since(at))).unwrap_or(Timestamp::MIN)
    };
    let known = memory.key(current.and_then(|slot| slot.attempt.as_deref()).unwrap_or_default());
    let lists = memory.lists.lock().await;
    let list = lists.last();
    // No later than it was told of: a time that lies ahead would be waited for.
    let told = list.and_then(|list| Some(lists::find(&list.keys, previous)?.last_used_at?.min(list.wall)));
    Uses {
        may_list: view.may_list(),
        listed_at: list.filter(|list| list.coverage == Coverage::Covers).map(|list| list.wall),
        tells: told.is_some(),
        previous: told
            .max(memory.key(previous.attempt.as_deref().unwrap_or_default()).last_used)
            .max(switch_of(key, current).and_then(|switch| switch.old_key_used_at)),
        answered: known.good.map(wall_of),
        shown: known.shown.map(|(at, lag)| Shown { answered: wall_of(at), lag: signed(lag) }),
    }
}

async fn read_namespace(context: &Context, name: &str) -> Result<Option<Namespace>, CallError> {
    call(Api::<Namespace>::all(context.env.kube.clone()).get_opt(name)).await
}

fn view(
    context: &Context,
    key: &ApiKey,
    account: Arc<BagsAccount>,
    others: &Others,
    labels: &BTreeMap<String, String>,
) -> AccountView {
    let now = context.env.clock.wall();
    let ledger = Ledger::of(account.status.as_ref());
    let installation = account.status.as_ref().and_then(|status| status.installation.as_ref());
    let claim = Claim::of(&account, &ledger, key, others, labels, now, &context.settings.timings);
    let Claim { room, permission, max, ahead, use_rival, secret_rival: _ } = claim;
    let memory = context.memory_of(&account.name_any(), &account);
    let this = &context.settings.installation;
    let credentials = context.credentials(&account);
    AccountView {
        room,
        permission,
        max,
        ahead,
        use_rival,
        paused_until: context.paused_until(&memory).filter(|until| *until > now),
        unlisted: unlisted(&memory.facts(), context.env.clock.monotonic()),
        next_code: next_code(&credentials, memory.facts().code_sent, now),
        credentials,
        refused_credentials: memory.facts().refused_credentials,
        preparing: memory.preparing.try_lock().is_err(),
        ours: installation.map(|installation| installation == this),
        neighbours: installation.is_some_and(|of| of != this && of.cluster == this.cluster),
        ledger,
        account,
    }
}

/// When the account's credentials give a code that was not sent yet, where that is not now. A clock that was set back is not
/// waited for.
fn next_code(
    credentials: &Result<CredentialSet, CredentialProblem>,
    sent: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let (_, second_factor) = credentials.as_ref().ok()?.wallet.as_ref()?;
    second_factor.as_ref()?;
    sent.filter(|sent| *sent <= now).map(bags::next_code).filter(|next| *next > now)
}

fn unlisted(facts: &AccountFacts, now: Instant) -> Option<(Duration, bags::Error)> {
    // What was refused may be let in as soon as a person has seen to it: that is tried by the ApiKey's own pauses.
    let failure =
        facts.list_failure.as_ref().filter(|failure| failure.error.class() != bags::Class::Refused)?;
    let wait = failure.retry_at.saturating_duration_since(now);
    (!wait.is_zero()).then(|| (wait, failure.error.clone()))
}

fn secret_rival(context: &Context, key: &ApiKey) -> Option<Rival> {
    let rivals = context.keys.state_filter(|other| has_secret_before(other, key));
    let rival = rivals.first()?;
    Some(Rival { name: rival.name_any(), going: rival.metadata.deletion_timestamp.is_some() })
}

/// The value of a key. The watch may not have shown yet what was just saved: nobody is told that it is missing before the
/// API server has said so. The keystore of another installation has the values of its ledger.
async fn value(
    context: &Context,
    account: Option<&AccountView>,
    attempt: &str,
) -> Result<Option<KeyValue>, CallError> {
    let ours = account.is_some_and(|view| view.ours == Some(true));
    match context.keystore.cached(attempt).and_then(|entry| entry.value()) {
        None if ours => Ok(context.keystore.live(attempt).await?.and_then(|entry| entry.value())),
        known => Ok(known),
    }
}

async fn creating(
    context: &Context,
    run: &Run,
    account: Option<&AccountView>,
    slot: &Slot,
) -> Result<CreatingView, CallError> {
    let attempt = slot.attempt.clone().unwrap_or_default();
    let now = context.env.clock.monotonic();
    let known = account.map(|view| context.memory_of(&view.account.name_any(), &view.account).key(&attempt));
    let known = known.unwrap_or_default();
    let ago = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
    let running = context.env.saves.running(&attempt);
    let valued = |entry: Option<Entry>| entry.filter(|entry| entry.value().is_some());
    let saved = match valued(context.keystore.cached(&attempt)) {
        // The watch may not have shown yet what a save that just ended wrote.
        None if !running => valued(context.keystore.live(&attempt).await?),
        saved => saved,
    };
    Ok(CreatingView {
        slot: slot.clone(),
        running,
        saved,
        probe: run.answer_of(Some(slot), context.env.clock.wall()),
        refused_for: ago(known.refused_since),
        probed_ago: ago(known.probed),
    })
}
