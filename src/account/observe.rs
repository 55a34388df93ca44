//! What the account's reconciler knows before it decides: caches and this process's memory. No request.
//!
//! A decision that needs more says so, and what was looked up comes back in [`Found`]: a run with nothing to do sends no request.

mod look;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tokio::time::Instant;

use self::look::Look;
use super::{
    act::ActError,
    credentials::{CredentialProblem, read_token},
    lists::{Coverage, Verdict},
    memory::{AccountFacts, AccountMemory, Entered, KeyMemory},
    rebuild::Remnant,
    starved::starved,
};
use crate::{
    api::{
        ApiKey, BagsAccount, FINALIZER,
        account::{Installation, Owner, Slot, SlotState},
        name::cluster_mark,
    },
    context::Context,
    keystore::Entry,
    ledger::Ledger,
    time,
    timings::Timings,
    webhook::registration::Registration,
};

/// What the decision is made from.
#[derive(Clone, Debug)]
pub(super) struct Observation {
    pub(super) account: Arc<BagsAccount>,
    /// In the ledger's order.
    pub(super) slots: Vec<SlotSeen>,
    pub(super) departed: Vec<String>,
    pub(super) credentials: CredentialsSeen,
    pub(super) facts: AccountFacts,
    pub(super) list: Option<ListSeen>,
    /// Keystore Secrets of the account whose attempt is in no slot.
    pub(super) loose: Vec<LooseEntry>,
    /// ApiKeys of the account, as `namespace/name`, whose rotation has found no second slot for too long. To be shown.
    pub(super) starved: Vec<String>,
    /// The keystore Secrets of an account whose ledger is nobody's; `None`: they were not read in this run.
    pub(super) remnants: Option<Vec<Remnant>>,
    /// Why `remnants` could not be told in this run: a consumer Secret, which says what was published, could not be read.
    pub(super) unread: Option<String>,
    /// Attempts whose keystore Secret could not be deleted in this run.
    pub(super) uncleared: BTreeSet<String>,
    /// The account is being deleted, and so is one of its ApiKeys, which needs the ledger until it is gone.
    pub(super) leaving: bool,
    /// This run already tried to add the finalizer, or to take it off.
    pub(super) finalizer_done: bool,
    /// No request to Bags before this, apart from revocations.
    pub(super) paused_until: Option<Timestamp>,
    /// This process's.
    pub(super) installation: Installation,
    /// Whether new ApiKeys are put before the admission webhook.
    pub(super) registration: Registration,
    pub(super) timings: Timings,
    pub(super) now: Instant,
    pub(super) wall: Timestamp,
}

/// A slot and what is known of its key.
#[derive(Clone, Debug)]
pub(super) struct SlotSeen {
    pub(super) slot: Slot,
    pub(super) memory: KeyMemory,
    pub(super) stored: Stored,
    /// Its creation runs in this process.
    pub(super) running: bool,
    pub(super) owner: OwnerSeen,
    /// For how long this process has seen it in its state.
    pub(super) watched: Duration,
    /// It is its owner's current key.
    pub(super) current: bool,
    /// What lists say of the key: whether it exists, or whether it is gone, depending on the slot's state.
    pub(super) verdict: Verdict,
    /// The last list was asked for late enough to count for `verdict`.
    pub(super) listed_since: bool,
    /// The last list was asked for after the key last answered 200, and does not show the key.
    pub(super) unlisted: bool,
    /// The last list does not show the key, and was asked for so late that every list of the key's user would show it if it
    /// existed.
    pub(super) lacking: bool,
    /// The key's id, from wherever it is known.
    pub(super) key_id: Option<String>,
}

/// A key's Secret in the keystore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// The cache has none.
    Absent,
    /// It has no value, as the cache says.
    Empty,
    /// It has no value, read live in this run.
    SurelyEmpty,
    /// It holds a value.
    Value,
}

/// The ApiKey of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerSeen {
    /// The cache has it.
    Cached,
    /// The cache has not had it since then.
    Missing(Instant),
    /// It is there, read live in this run.
    Lives,
    /// It is there and being deleted, read live in this run.
    Deleting,
    /// It does not exist, or the ApiKey of its name is not the owner, read live in this run.
    Gone,
}

/// What is known of the credentials, without their content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CredentialsSeen {
    /// Why they cannot be used as a whole: then no key is made.
    pub(super) problem: Option<CredentialProblem>,
    pub(super) wallet: bool,
    /// There is a token; it can be read also where the wallet cannot.
    pub(super) token: bool,
    /// Version of all of them together; `None` if there is a problem.
    pub(super) version: Option<String>,
    pub(super) token_version: Option<String>,
}

/// The last list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListSeen {
    pub(super) at: Instant,
    pub(super) coverage: Coverage,
    /// Whether it shows a live key of ours; `None`: there is none to show.
    pub(super) shows_live: Option<bool>,
    pub(super) unmanaged: i64,
    /// Names of keys with this cluster's mark and without a slot.
    pub(super) stray: Vec<String>,
}

/// A keystore Secret without a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LooseEntry {
    pub(super) attempt: String,
    pub(super) value: bool,
    pub(super) created: Option<Timestamp>,
    /// For how long this process has seen it so.
    pub(super) watched: Duration,
    pub(super) running: bool,
}

/// What was looked up or done in this run.
#[derive(Default)]
pub(super) struct Found {
    pub(super) owners: HashMap<String, OwnerSeen>,
    /// Live reads of the keystore.
    pub(super) entries: HashMap<String, Entry>,
    /// The keystore Secrets of an account whose ledger is nobody's; `None`: they were not read.
    pub(super) remnants: Option<Vec<Remnant>>,
    /// Why `remnants` could not be told.
    pub(super) unread: Option<String>,
    /// Keystore Secrets that were removed in this run: the cache may still show them.
    pub(super) removed: BTreeSet<String>,
    /// Attempts whose keystore Secret could not be deleted in this run: the next one tries again.
    pub(super) uncleared: BTreeSet<String>,
    /// The first failure after which this run went on all the same.
    pub(super) failure: Option<ActError>,
    /// This run already tried to add the finalizer, or to take it off.
    pub(super) finalizer_done: bool,
    /// The account has no finalizer of ours any more.
    pub(super) let_go: bool,
}

/// Gathers what is known of an account.
pub(super) async fn observe(context: &Context, account: Arc<BagsAccount>, found: &Found) -> Observation {
    let name = account.name_any();
    let memory = context.memory_of(&name, &account);
    // The lists are locked before the credentials are read: the answer or failure of a list that is under way belongs to the
    // former credentials, and is forgotten with them.
    let mut lists = memory.lists.lock().await;
    let credentials = credentials(context, &account);
    if memory.note(|facts| start_over(facts, &credentials)) {
        lists.clear();
    }
    let ledger = Ledger::of(account.status.as_ref());
    let (now, wall) = (context.env.clock.monotonic(), context.env.clock.wall());
    let owners = owners(context, &name, &ledger, &memory, found, now);
    let entered = entered(&ledger, &memory, now);
    let entries = entries(context, &name, found);
    let timings = context.settings.timings.clone();
    let departed = memory.departed(&ledger.departed, now);
    let look = Look {
        ledger: &ledger,
        lists: &lists,
        timings: &timings,
        entered: &entered,
        departed: &departed,
        now,
        wall,
    };
    let slots = ledger.slots.iter().map(|slot| {
        let attempt = slot.attempt.as_deref().unwrap_or_default();
        let memory = memory.key(attempt);
        // A live read of this run is newer than the cache.
        let entry = found.entries.get(attempt).or_else(|| entries.get(attempt));
        let running = context.env.saves.running(attempt);
        let owner = owners.get(&slot.owner.uid).copied().unwrap_or(OwnerSeen::Cached);
        let stored = match entry {
            None => Stored::Absent,
            Some(entry) if entry.value().is_some() => Stored::Value,
            Some(_) if found.entries.contains_key(attempt) => Stored::SurelyEmpty,
            Some(_) => Stored::Empty,
        };
        look.slot(slot, memory, stored, entry, running, owner)
    });
    let slots = slots.collect();
    let list = look.list(cluster_mark(&context.settings.installation.cluster));
    let loose = loose(context, &entries, &ledger, &memory, now);
    drop(lists);
    Observation {
        slots,
        departed: ledger.departed,
        credentials,
        facts: memory.facts(),
        list,
        loose,
        starved: starved(|| context.keys.state(), &account, &timings, wall),
        remnants: remnants(found, &memory),
        unread: found.unread.clone(),
        uncleared: found.uncleared.clone(),
        leaving: leaving(context, &account),
        finalizer_done: found.finalizer_done,
        paused_until: memory.budget.paused_until(),
        installation: context.settings.installation.clone(),
        registration: context.registration.borrow().clone(),
        timings,
        now,
        wall,
        account,
    }
}

/// Whether an ApiKey of an account that is being deleted is on its way out.
fn leaving(context: &Context, account: &BagsAccount) -> bool {
    let goes = |key: &ApiKey| {
        key.spec.account_ref.name == account.name_any()
            && key.metadata.deletion_timestamp.is_some()
            && key.finalizers().iter().any(|name| name == FINALIZER)
    };
    account.metadata.deletion_timestamp.is_some() && !context.keys.state_filter(goes).is_empty()
}

fn credentials(context: &Context, account: &BagsAccount) -> CredentialsSeen {
    match context.credentials(account) {
        Ok(set) => CredentialsSeen {
            problem: None,
            wallet: set.wallet.is_some(),
            token: set.token.is_some(),
            version: Some(set.version),
            token_version: set.token_version,
        },
        Err(problem) => {
            let namespace = &context.settings.installation.namespace;
            let token = read_token(account, &context.keystore, namespace);
            CredentialsSeen {
                problem: Some(problem),
                token: token.is_some(),
                token_version: token.and_then(|set| set.token_version),
                ..CredentialsSeen::default()
            }
        }
    }
}

/// If the credentials changed, forgets what the former ones showed, as the new ones may be another account's. Returns whether
/// they changed. If they cannot be read as a whole, the versions of the token alone are compared.
fn start_over(facts: &mut AccountFacts, credentials: &CredentialsSeen) -> bool {
    let CredentialsSeen { version, token_version, .. } = credentials;
    if version.is_none() && token_version.is_none() {
        return false;
    }
    let differs =
        |known: &Option<String>, now: &Option<String>| known.is_some() && now.is_some() && known != now;
    let changed = match version {
        Some(_) => differs(&facts.credentials, version),
        None => differs(&facts.token, token_version),
    };
    if changed {
        let AccountFacts { missing, namespaces, entered, departed, loose, code_sent, .. } =
            std::mem::take(facts);
        let fresh = AccountFacts::default();
        *facts = AccountFacts {
            missing,
            namespaces,
            entered,
            departed,
            loose,
            code_sent,
            tried: Some(false),
            ..fresh
        };
    }
    if version.is_some() {
        facts.credentials.clone_from(version);
    }
    facts.token.clone_from(token_version);
    changed
}

/// Owners by uid, as the cache or a live read shows them; it is remembered since when each of them is missing.
fn owners(
    context: &Context,
    account: &str,
    ledger: &Ledger,
    memory: &AccountMemory,
    found: &Found,
    now: Instant,
) -> BTreeMap<String, OwnerSeen> {
    let owners: BTreeMap<&str, &Owner> =
        ledger.slots.iter().map(|slot| (slot.owner.uid.as_str(), &slot.owner)).collect();
    let cached = |owner: &&&Owner| {
        let seen = context.keys.get(&ObjectRef::<ApiKey>::new(&owner.name).within(&owner.namespace));
        seen.is_some_and(|key| owns(&key, owner, account, ledger.owned_by(&owner.uid)))
    };
    let missing: BTreeSet<&str> =
        owners.values().filter(|owner| !cached(owner)).map(|owner| owner.uid.as_str()).collect();
    let since = memory.note(|facts| {
        facts.missing.retain(|uid, _| missing.contains(uid.as_str()));
        let bereft = |name: &String| {
            owners.values().any(|owner| owner.namespace == *name && missing.contains(owner.uid.as_str()))
        };
        facts.namespaces.retain(|name, _| bereft(name));
        for uid in &missing {
            facts.missing.entry((*uid).to_owned()).or_insert(now);
        }
        facts.missing.clone()
    });
    let seen = |uid: &str| match (found.owners.get(uid), since.get(uid)) {
        (Some(live), _) => *live,
        (None, Some(since)) => OwnerSeen::Missing(*since),
        (None, None) => OwnerSeen::Cached,
    };
    owners.into_keys().map(|uid| (uid.to_owned(), seen(uid))).collect()
}

/// When this process first saw each slot in its state, by the monotonic clock: the wall clock may be set back.
fn entered(ledger: &Ledger, memory: &AccountMemory, now: Instant) -> HashMap<String, Entered> {
    memory.note(|facts| {
        let mut before = std::mem::take(&mut facts.entered);
        let entered = ledger.slots.iter().map(|slot| {
            let (id, state, since) = (place_of(slot).to_owned(), slot.state.clone(), slot.since);
            let before = before.remove(&id);
            let (first_since, first_at) =
                before.as_ref().map_or((since, now), |before| (before.first_since, before.first_at));
            let known = before.filter(|known| known.state == state && known.since == since);
            (id, known.unwrap_or(Entered { state, since, at: now, first_since, first_at }))
        });
        facts.entered = entered.collect();
        facts.entered.clone()
    })
}

/// A slot's key in these maps: its attempt, or for a kept place its owner's uid, as an owner has one kept place at most.
fn place_of(slot: &Slot) -> &str {
    slot.attempt.as_deref().unwrap_or(&slot.owner.uid)
}

/// Whether an ApiKey is the owner of these slots of an account. An ApiKey that refers to another account does not own a mere
/// place in this one: it has no use for it, and would never give it back. A key that may exist it owns in any account.
pub(super) fn owns<'a>(
    key: &ApiKey,
    owner: &Owner,
    account: &str,
    mut slots: impl Iterator<Item = &'a Slot>,
) -> bool {
    key.metadata.uid.as_deref() == Some(owner.uid.as_str())
        && (key.spec.account_ref.name == account || slots.any(|slot| slot.state != SlotState::Reserved))
}

fn entries(context: &Context, account: &str, found: &Found) -> BTreeMap<String, Entry> {
    let ours = context.keystore.all_cached().into_iter().filter(|entry| entry.account() == Some(account));
    ours.filter_map(|entry| Some((entry.attempt()?.to_owned(), entry)))
        .filter(|(attempt, _)| !found.removed.contains(attempt))
        .collect()
}

/// Keystore Secrets without a slot; it is remembered since when this process has seen each of them so.
fn loose(
    context: &Context,
    entries: &BTreeMap<String, Entry>,
    ledger: &Ledger,
    memory: &AccountMemory,
    now: Instant,
) -> Vec<LooseEntry> {
    let loose = entries.iter().filter(|(attempt, _)| ledger.by_attempt(attempt).is_none());
    memory.note(|facts| {
        let mut before = std::mem::take(&mut facts.loose);
        loose
            .map(|(attempt, entry)| {
                let since = before.remove(attempt).unwrap_or(now);
                facts.loose.insert(attempt.clone(), since);
                LooseEntry {
                    attempt: attempt.clone(),
                    value: entry.value().is_some(),
                    created: entry.created(),
                    watched: now.saturating_duration_since(since),
                    running: context.env.saves.running(attempt),
                }
            })
            .collect()
    })
}

/// Remnants with what is known of their keys by now.
fn remnants(found: &Found, memory: &AccountMemory) -> Option<Vec<Remnant>> {
    let left = found.remnants.as_ref()?.iter().filter(|remnant| !found.removed.contains(&remnant.attempt));
    Some(left.map(|remnant| Remnant { memory: memory.key(&remnant.attempt), ..remnant.clone() }).collect())
}

impl SlotSeen {
    /// The attempt; a kept place has none.
    pub(super) fn attempt(&self) -> Option<&str> {
        self.slot.attempt.as_deref()
    }

    /// The user that its key belongs to, as far as that is known: the one that the key itself told, or else the one that it was
    /// licensed for.
    pub(super) fn user(&self) -> Option<&str> {
        self.memory.user.as_deref().or(self.slot.user.as_deref())
    }
}

impl Observation {
    /// How long ago that was, by the wall clock.
    pub(super) fn age(&self, since: Timestamp) -> Duration {
        time::since(self.wall, since)
    }

    /// For how long a slot has surely been in its state.
    pub(super) fn age_of(&self, slot: &SlotSeen) -> Duration {
        self.surely(slot.slot.since, slot.watched)
    }

    /// For how long at least something has been so, although wall clocks may be wrong: since the time that was written, less what
    /// clocks may differ, or for as long as this process has watched it, whichever is longer. Our clock may have been set back
    /// meanwhile, and the time may be by another machine's.
    pub(super) fn surely(&self, since: Timestamp, watched: Duration) -> Duration {
        self.age(since).saturating_sub(CLOCKS_APART).max(watched)
    }
}

/// So far the wall clock of another process may be from ours, or from the API server's.
pub(super) const CLOCKS_APART: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wallet_that_cannot_be_read_for_a_while_takes_nothing_from_what_the_token_showed() {
        // One-time codes are the account's, whatever its credentials.
        let code_sent = Some(Timestamp::UNIX_EPOCH);
        let mut facts = AccountFacts { code_sent, ..AccountFacts::default() };
        let seen = |version: Option<&str>, token: Option<&str>| CredentialsSeen {
            version: version.map(str::to_owned),
            token_version: token.map(str::to_owned),
            ..CredentialsSeen::default()
        };
        let steps = [
            ("at first", Some("w1,t1"), Some("t1"), false),
            ("the wallet is gone", None, Some("t1"), false),
            ("nothing can be read", None, None, false),
            ("it is back", Some("w1,t1"), Some("t1"), false),
            ("another wallet", Some("w2,t1"), Some("t1"), true),
            ("it is gone, and the token is another one", None, Some("t2"), true),
            ("another wallet is there", Some("w3,t2"), Some("t2"), false),
        ];
        for (step, version, token, expected) in steps {
            facts.tried = None;
            assert_eq!(start_over(&mut facts, &seen(version, token)), expected, "{step}");
            assert_eq!((facts.tried, facts.code_sent), (expected.then_some(false), code_sent), "{step}");
        }
    }
}
