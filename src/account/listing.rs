//! Fetches an account's list of keys. All who need one at the same time share it.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    credentials::CredentialSet,
    lists::{self, Coverage, Snapshot},
    memory::{AccountMemory, ListFailure, class_of},
};
use crate::{api::BagsAccount, backoff::FailureClass, bags, context::Context, ledger::Ledger};

/// What a list says of the account as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Keys made elsewhere.
    pub unmanaged: i64,
    /// Names of those among them that carry this cluster's mark: up to ten.
    pub stray: Vec<String>,
    /// Whether the list speaks of the account.
    pub coverage: Coverage,
    /// Whether any listed key shows a last use.
    pub shows_last_use: bool,
    /// Whether it shows a key of another user than the account's: then the token is that user's.
    pub shows_stranger: bool,
    /// Whether it may be too old to show a key of ours that was published lately. That key would tell whose token it is, whatever
    /// the rows call the user.
    pub may_miss_ours: bool,
}

/// Whether the service has no list, which is no failure: nothing public promises that it has one.
pub(super) fn is_missing(error: &bags::Error) -> bool {
    error.operation() == bags::Operation::List && error.reason() == bags::Reason::NotFound
}

/// Whether an error says that the service has no list: in the service's words, or in those of the server in front of it. A proxy
/// may say so once for another reason; twice in a row it is believed.
fn has_no_answer(error: &bags::Error) -> bool {
    let bare = error.reason() == bags::Reason::Unreadable && matches!(error.status(), Some(404 | 405));
    is_missing(error) || error.operation() == bags::Operation::List && bare
}

/// A list no older than `max_age`; `None` where the account cannot list. A list endpoint that is missing is tried again at the
/// resync.
///
/// # Errors
/// Why Bags did not give one.
pub async fn fresh(
    context: &Context,
    account: &BagsAccount,
    memory: &AccountMemory,
    credentials: &CredentialSet,
    max_age: Duration,
) -> Result<Option<Listed>, bags::Error> {
    let Some(token) = &credentials.token else { return Ok(None) };
    let ledger = Ledger::of(account.status.as_ref());
    let clock = &context.env.clock;
    // A caller that had to wait here takes a list that was asked for since it came; otherwise all who wait would ask for one, one
    // after the other.
    let asked = clock.monotonic();
    let mut lists = memory.lists.lock().await;
    let now = clock.monotonic();
    // The account's reconciler may not have seen these credentials yet, or they are the account's former ones: then an answer to
    // them says nothing of the token that it knows.
    let same_token = memory.facts().token.is_none_or(|token| Some(token) == credentials.token_version);
    let young = |at: Instant| at >= asked || now.saturating_duration_since(at) <= max_age;
    let token_version = credentials.token_version.as_deref();
    if let Some(last) = lists.last().filter(|last| same_token && young(last.at)) {
        let listed = digest(context, account, memory, last, &ledger, token_version);
        // Before the credentials are distrusted, a new list is asked for: a key may have been published since.
        if !listed.shows_stranger || last.at >= asked {
            return Ok(Some(listed));
        }
    }
    let missing = memory.facts().list_failure.filter(|failure| is_missing(&failure.error));
    if missing.is_some_and(|failure| failure.retry_at > now) {
        return Ok(None);
    }
    let wall = clock.wall();
    let answer = match context.client(memory).list(token).await {
        Ok(answer) => answer,
        Err(error) => {
            let error = believed(memory, error);
            if same_token {
                note_failure(context, account, memory, &error);
            }
            return if is_missing(&error) { Ok(None) } else { Err(error) };
        }
    };
    let keys = answer.by_our_clock(wall, clock.wall());
    let keys: Vec<_> = keys.into_iter().filter(bags::ListedKey::is_active).collect();
    let window = context.settings.timings.cover_window;
    let since = now.checked_sub(window).unwrap_or(now);
    let good = |attempt: &str| memory.key(attempt).speaks_for(account, since);
    let covering = account.status.as_ref().and_then(|status| status.covering_token.as_deref());
    let covered_before = account.is_covered_by(token_version, covering);
    let coverage = lists::coverage(&keys, &ledger, good, covered_before);
    for slot in &ledger.slots {
        if let (Some(attempt), Some(key)) = (slot.attempt.as_deref(), lists::find(&keys, slot)) {
            memory.remember(attempt, |known| known.listed(key.last_used_at, now, wall));
        }
    }
    if same_token {
        memory.note(|facts| {
            facts.token_accepted = true;
            facts.refused_token = None;
            facts.list_failure = None;
            facts.shows_last_use |= keys.iter().any(|key| key.last_used_at.is_some());
            if coverage == Coverage::Covers {
                facts.covering_token.clone_from(&credentials.token_version);
                facts.covering_user = account.expected_user().map(str::to_owned);
            }
        });
    }
    let snapshot =
        Snapshot { at: now, wall, keys, coverage, user: account.expected_user().map(str::to_owned) };
    let listed = digest(context, account, memory, &snapshot, &ledger, token_version);
    if same_token {
        lists.push(snapshot);
    }
    Ok(Some(listed))
}

/// What a failure to list is taken for, after the failure before it.
fn believed(memory: &AccountMemory, error: bags::Error) -> bags::Error {
    let before = memory.facts().list_failure.map(|failure| failure.error);
    if before.is_some_and(|before| has_no_answer(&before)) && has_no_answer(&error) {
        return bags::Error::new(bags::Operation::List, bags::Class::Refused, bags::Reason::NotFound);
    }
    error
}

/// Remembers why there is no newer list, or that the token was refused elsewhere.
pub(super) fn note_failure(
    context: &Context,
    account: &BagsAccount,
    memory: &AccountMemory,
    error: &bags::Error,
) {
    let uid = account.metadata.uid.as_deref().unwrap_or_default();
    let clock = &context.env.clock;
    let wait = match class_of(error) {
        FailureClass::RateLimited(until) => context.backoff.after_pause(clock.wall(), until),
        class => context.backoff.after_failure(uid, class, clock.wall()),
    };
    memory.note(|facts| {
        let count = facts.list_failure.as_ref().map_or(0, |failure| failure.count).saturating_add(1);
        let retry_at = clock.monotonic() + wait;
        facts.list_failure = Some(ListFailure { count, error: error.clone(), retry_at });
        if error.reason() == bags::Reason::InvalidToken {
            facts.token_accepted = false;
            facts.refused_token = Some(error.clone());
        }
    });
}

fn digest(
    context: &Context,
    account: &BagsAccount,
    memory: &AccountMemory,
    list: &Snapshot,
    ledger: &Ledger,
    token_version: Option<&str>,
) -> Listed {
    let departed = memory.departed(&ledger.departed, context.env.clock.monotonic());
    let unmanaged = lists::unmanaged(&list.keys, list.at, ledger, &departed);
    let expected = expected_in_rows(account, memory, token_version);
    let mark = format!("-{}-", crate::api::name::cluster_mark(&context.settings.installation.cluster));
    Listed {
        unmanaged: i64::try_from(unmanaged.len()).unwrap_or(i64::MAX),
        stray: unmanaged
            .iter()
            .filter(|key| key.name.contains(&mark))
            .map(|key| key.name.clone())
            .take(10)
            .collect(),
        coverage: list.coverage,
        shows_last_use: list.keys.iter().any(|key| key.last_used_at.is_some()),
        shows_stranger: lists::shows_stranger(&list.keys, list.at, ledger, &departed, expected),
        may_miss_ours: lists::may_miss(ledger, expected, list.wall, &context.settings.timings),
    }
}

/// The user that a list's rows must name; `None` if no user is known, or if a list of this token has covered the account: then
/// the token is that user's, whatever the rows say.
fn expected_in_rows<'a>(
    account: &'a BagsAccount,
    memory: &AccountMemory,
    token_version: Option<&str>,
) -> Option<&'a str> {
    let covered = account.is_covered_by(token_version, memory.facts().covering(account.status.as_ref()));
    account.expected_user().filter(|_| !covered)
}
