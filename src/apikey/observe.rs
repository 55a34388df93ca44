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
    problem::Problem,
    quiet::{Shown, Uses},
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
    time::{later, signed, since, until},
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
    /// Number of the last switch when the pods were looked at: they were judged by that switch.
    pub switch: Option<i64>,
    /// When they were listed anew, for a step that cannot be taken back.
    pub confirmed: Option<Timestamp>,
}

/// Another ApiKey that came first to what this one wants.
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
    /// The last use of the current key that any list has told of.
    pub last_used: Option<Timestamp>,
    /// The consumer Secret; read where a key is published.
    pub consumer: Option<Found>,
    /// The pods that read it, where this run looked at them.
    pub pods: Option<PodsSeen>,
    /// What the current key answered in this run.
    pub current_probe: Option<Probe>,
    /// How long ago this process last probed the current key, if it ever did.
    pub current_asked: Option<Duration>,
    /// What the current key last answered, if that was not 200, and how long ago.
    pub current_failure: Option<(Probe, Duration)>,
    /// What the previous key answered in this run: a switch back would lead to it.
    pub previous_probe: Option<Probe>,
    /// What the lists say of the use of keys.
    pub uses: Option<Uses>,
    /// This run asked for a list of the account's keys, after its last probe and recently enough.
    pub listed: bool,
    /// The base URL that the consumer Secret should name.
    pub base_url: String,
    /// Another ApiKey that came first to the Secret's name.
    pub secret_rival: Option<Rival>,
    /// What the API server refused of its next key, and how long until that is tried again.
    pub next_refused: Option<(Duration, Problem)>,
    /// Since when the namespace is being deleted.
    pub namespace_deleted: Option<Timestamp>,
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
    /// How many ApiKeys of its namespace may have keys; `None`: any number.
    pub max: Option<i64>,
    /// Older ApiKeys that wait for a first slot.
    pub ahead: usize,
    /// Another ApiKey that has the same use and goes before, as `namespace/name`.
    pub use_rival: Option<String>,
    /// No request to Bags before this time.
    pub paused_until: Option<Timestamp>,
    /// When its next one-time code is out, if the present one was sent already.
    pub next_code: Option<Timestamp>,
    /// For how long its keys cannot be listed, and why: no key is made without a look at the list.
    pub unlisted: Option<(Duration, bags::Error)>,
    /// Its credentials.
    pub credentials: Result<CredentialSet, CredentialProblem>,
    /// Version of the credentials with which a creation was last refused for them.
    pub refused_credentials: Option<String>,
    /// Another ApiKey of the account is about to take the licence.
    pub preparing: bool,
    /// Whether the ledger belongs to this installation; `None`: nobody pinned it yet.
    pub ours: Option<bool>,
    /// The ledger belongs to another installation in this same cluster, which looks after the same ApiKeys.
    pub neighbours: bool,
}

impl AccountView {
    /// Whether the account can list its keys, and with them their use. If the credentials cannot be read now, the spec decides:
    /// an hour without lists is no proof that nobody used a key.
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

    /// Whether the consumer Secret holds the current key, as far as this run saw: by its value or, if the keystore has lost the
    /// value, by the attempt in the Secret's annotation.
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

    /// When the current key went into the Secret, by the API server's clock; `None`: it is not in it, or the Secret does not
    /// tell when it was written.
    #[must_use]
    pub fn switched_at(&self) -> Option<Timestamp> {
        self.consumer.as_ref().filter(|_| self.published()).and_then(|found| {
            let number = consumer_secret::switch_of(found).map(|switch| switch.number);
            (number == self.current()?.published)
                .then(|| consumer_secret::written_at(found, self.key.api_key_field()))?
        })
    }

    /// How long ago a switch was, counted from the later of two times: that of the Secret write by the API server's clock, and
    /// that of the ledger write by the operator's clock.
    #[must_use]
    pub fn passed_since(&self, switched_at: Timestamp) -> Duration {
        let times = std::iter::once(switched_at).chain(self.current().map(|slot| slot.since));
        times.map(|at| since(self.now, at)).min().unwrap_or(Duration::ZERO)
    }

    /// How much longer a kubelet may give a starting pod what the Secret held before a switch. Until then, the pods that are
    /// seen say nothing of the pods that are still to come.
    #[must_use]
    pub fn settles_in(&self, switched_at: Timestamp) -> Duration {
        until(self.now, self.settles_at(switched_at)).min(self.timings.settle_delay)
    }

    /// When that time ends, by both clocks. If the value was written into the Secret again, the time counts from that write.
    #[must_use]
    pub fn settles_at(&self, switched_at: Timestamp) -> Timestamp {
        let at = self.current().map_or(switched_at, |slot| switched_at.max(slot.since));
        later(at, self.timings.settle_delay)
    }

    /// When the pods were listed for a step that cannot be taken back, if that is recent enough.
    #[must_use]
    pub fn last_look(&self) -> Option<Timestamp> {
        self.pods.as_ref()?.confirmed.filter(|looked_at| still_holds(*looked_at, self.now))
    }

    /// Since when no pod has been seen with another value than that of the last switch. It is kept in the status, as nothing
    /// else could tell it to the next process.
    #[must_use]
    pub fn clean_since(&self) -> Option<Timestamp> {
        let switch = switch_of(&self.key, self.current())?;
        let settled = self.switched_at().map(|at| self.settles_at(at));
        switch.clean_since.filter(|clean| settled.is_none_or(|settled| *clean >= settled))
    }

    /// Since when both the ApiKey and its namespace are being deleted: whichever went first, what runs there has time to end.
    #[must_use]
    pub fn ends_since(&self) -> Option<Timestamp> {
        let deleted = self.key.metadata.deletion_timestamp.as_ref()?.0;
        self.namespace_deleted.map(|at| at.max(deleted))
    }

    /// Whether the ApiKey's slots cannot be seen: there is no account, or its ledger belongs to no installation yet, as it is
    /// new or its status was lost.
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
        // If another process has made a switch since, the pods were judged by the switch before it, and do not count.
        pods: run.pods.clone().filter(|pods| pods.switch == current.and_then(|slot| slot.published)),
        current_probe: run.answer_of(current, now),
        current_asked: asked_ago,
        current_failure: known.failure.zip(asked_ago),
        previous_probe: run.answer_of(previous(&slots), now),
        uses: match (account.as_ref(), previous(&slots)) {
            (Some(view), Some(previous)) => Some(uses(context, view, &key, current, previous).await),
            _ => None,
        },
        listed: run.has_listed(now),
        base_url: context.settings.consumer_bags_url.clone(),
        secret_rival: secret_rival(context, &key),
        next_refused: context.refusals.of(&owner.uid, context.env.clock.monotonic()),
        namespace_deleted: namespace.and_then(|n| n.metadata.deletion_timestamp).map(|at| at.0),
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

/// What the status keeps of the last switch. Only what nothing else could tell the next process is ever read from it.
fn switch_of<'a>(key: &'a ApiKey, current: Option<&Slot>) -> Option<&'a Switch> {
    let switch = key.status.as_ref()?.switch.as_ref()?;
    (Some(switch.count) == current?.published).then_some(switch)
}

/// What is known of the use of the two keys of a switch. A use that a list once told of stays known, even if the account can no
/// longer list its keys.
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
    // A use counts as no later than the list that tells of it: a time in the future would be waited for.
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

/// When the account's next one-time code is out, if the present one was sent already. A time of sending that lies in the future
/// is ignored: the clock was set back.
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
    // A list that Bags refuses may be allowed as soon as a person has dealt with it, so the ApiKey tries again at its own
    // pauses.
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

/// The value of a key. The watch may not have shown a recent save yet, so a value counts as missing only after a live read. For
/// another installation's ledger only the cache is asked: that installation's keystore has the values.
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
