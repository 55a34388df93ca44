//! The requests to Bags. The answers go into this process's memory.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::{Actor, PAGE, named};
use crate::{
    account::{
        death, listing,
        memory::{Endpoint, RefusedRevocation},
    },
    api::account::SlotState,
    bags::{self, BagsClient, Budget, Probe, Revocation},
    events::EventReason,
    time::until,
};

/// A ping that failed is sent again after this.
const PING_PAUSE: Duration = Duration::from_secs(30);
/// So many 404 in a row to a revocation are believed: what stands before the service may answer so for a moment, in its place.
const BELIEVED: u32 = 3;
/// The longest pause after a probe that was not answered.
const LONGEST_PROBE_PAUSE: Duration = Duration::from_mins(5);

/// Whether a key was refused in words that are not those of Bags, as by a proxy in front of it. Such a probe counts as answered:
/// repeating it at once would bring the same answer.
fn is_strange(error: &bags::Error) -> bool {
    error.reason() == bags::Reason::Unreadable && matches!(error.status(), Some(401 | 403 | 404))
}

impl Actor<'_> {
    pub(super) async fn list(&self) {
        let Ok(credentials) = self.context.token_of(&self.seen.account) else { return };
        let account = &self.seen.account;
        let answer = listing::fresh(self.context, account, self.memory, &credentials, Duration::ZERO).await;
        if let Err(error) = answer {
            warn!(%error, "List of keys was not answered");
        }
    }

    pub(super) async fn probe(&self, attempt: &str) {
        let clock = &self.context.env.clock;
        let slot = self.slot(attempt);
        let revoking = slot.is_some_and(|seen| seen.slot.state == SlotState::Revoking);
        // A live read of this run is newer than the cache.
        let live = self.found.entries.get(attempt).cloned();
        let entry = live.or_else(|| self.context.keystore.cached(attempt));
        let value = entry.and_then(|entry| entry.value());
        let Some(value) = value else {
            let now = clock.monotonic();
            self.memory.remember(attempt, |key| key.silent(now, now + LONGEST_PROBE_PAUSE));
            return;
        };
        let asked = clock.monotonic();
        let answer = self.client(revoking).me(&value).await;
        let now = clock.monotonic();
        let floor = slot.filter(|_| revoking).and_then(|seen| self.seen.death(seen).counts_from(now));
        let ineffective = match answer {
            Ok(Probe::Alive { user }) => {
                let mut ineffective = false;
                self.memory.remember(attempt, |key| {
                    ineffective = key.answered_alive(asked, now, &user, revoking);
                });
                ineffective
            }
            Ok(Probe::Dead) => {
                self.memory.remember(attempt, |key| key.answered_dead(now, floor));
                false
            }
            Ok(unclear @ (Probe::Forbidden | Probe::UserGone)) => {
                self.memory.remember(attempt, |key| key.answered_unclear(now, unclear));
                false
            }
            Err(error) if is_strange(&error) => {
                warn!(%error, attempt, "Key was refused, but not in the words of Bags");
                self.memory.remember(attempt, |key| key.refused_strangely(now));
                false
            }
            Err(error) => {
                warn!(%error, attempt, "Key was not answered for");
                self.memory.remember(attempt, |key| {
                    let pause = death::pause(key.unanswered + 1, LONGEST_PROBE_PAUSE);
                    key.silent(now, self.retry_at(&error, now, pause, revoking));
                });
                false
            }
        };
        if ineffective {
            self.ineffective(attempt).await;
        }
    }

    pub(super) async fn ping(&self) {
        let answer = self.client(true).ping().await;
        let now = self.context.env.clock.monotonic();
        self.memory.note(|facts| match &answer {
            Ok(()) => {
                facts.pinged = Some(now);
                facts.ping_after = None;
            }
            Err(error) => facts.ping_after = Some(self.retry_at(error, now, PING_PAUSE, false)),
        });
    }

    pub(super) async fn revoke(&self, attempt: &str, key_id: &str) {
        let Ok(credentials) = self.context.token_of(&self.seen.account) else { return };
        let Some(token) = credentials.token else { return };
        let path = self.seen.account.revocation_path();
        let clock = &self.context.env.clock;
        let untold = self.seen.endpoint_untold();
        // Where the endpoint is known to be there, a 404 is about this key; and so it may be where the token's list lacks the key.
        let with = self.seen.endpoint();
        let of_key = self.seen.endpoint_found() || self.slot(attempt).is_some_and(|seen| seen.lacking);
        let answer = self.client(true).revoke(&token, path, key_id).await;
        // One is enough where it only says again what is known: people are asked already, and go on being asked.
        let passing = self.is_passing(attempt, &answer) && !self.seen.endpoint_was_missing();
        let answer = match answer {
            Ok(Revocation::NoEndpoint) if of_key && !passing => {
                Err(bags::Error::new(bags::Operation::Revoke, bags::Class::Refused, bags::Reason::NotFound))
            }
            answer => answer,
        };
        let (now, at) = (clock.monotonic(), clock.wall());
        let endpoint = |found| {
            self.memory.note(|facts| facts.endpoint = Some(Endpoint { found, at, with: with.clone() }));
        };
        match answer {
            Ok(Revocation::Acknowledged) => {
                info!(attempt, "Revocation was acknowledged");
                endpoint(true);
                self.memory.remember(attempt, |key| {
                    key.acknowledged = Some(now);
                    key.probe_after = None;
                });
            }
            // The revocation is sent again without waiting for a list; the list that is asked for meanwhile tells what the 404
            // means.
            Ok(Revocation::NoEndpoint) if untold || passing => self.memory.remember(attempt, |key| {
                key.revocations = key.revocations.saturating_add(1);
                key.revoke_after = Some(now + death::revocation_pause(key.revocations));
            }),
            Ok(Revocation::NoEndpoint) => endpoint(false),
            Err(error) => {
                warn!(%error, attempt, "Revocation failed");
                let of_token = error.reason() == bags::Reason::InvalidToken;
                let refused = error.class() == bags::Class::Refused && !of_token;
                // The operator's own budget refills by itself: that is no failure that a person has to hear of.
                let failed = error.reason() != bags::Reason::BudgetSpent;
                self.memory.remember(attempt, |key| {
                    key.revocations = key.revocations.saturating_add(u32::from(failed));
                    let pause = death::revocation_pause(key.revocations);
                    key.revoke_after = Some(self.retry_at(&error, now, pause, true));
                    let refusal = || RefusedRevocation { at, with: with.clone(), error: error.clone() };
                    key.revocation_refused = refused.then(refusal);
                });
                if of_token {
                    listing::note_failure(self.context, &self.seen.account, self.memory, &error);
                }
            }
        }
    }

    /// Whether this answer is a 404 that has not come often enough to be the service's.
    fn is_passing(&self, attempt: &str, answer: &Result<Revocation, bags::Error>) -> bool {
        let lacks = matches!(answer, Ok(Revocation::NoEndpoint));
        let mut times = 0;
        self.memory.remember(attempt, |key| {
            key.not_found = if lacks { key.not_found.saturating_add(1) } else { 0 };
            times = key.not_found;
        });
        lacks && times < BELIEVED
    }

    pub(super) async fn ineffective(&self, attempt: &str) {
        let now = self.context.env.clock.monotonic();
        self.memory.remember(attempt, |key| {
            key.acknowledged = None;
            key.revocations = key.revocations.saturating_add(1);
            key.revoke_after = Some(now + death::revocation_pause(key.revocations));
        });
        let Some(seen) = self.slot(attempt) else { return };
        let note = format!(
            "Bags acknowledged the revocation of {}, yet it still works; the revocation is sent again. If this goes on, \
             revoke it at {PAGE}",
            named(seen)
        );
        self.publish(seen, EventReason::RevocationHasNoEffect, &note).await;
    }

    fn client(&self, urgent: bool) -> BagsClient {
        let client = self.context.client(self.memory);
        if urgent { client.urgent() } else { client }
    }

    /// When a failed request may be sent again. A revocation does not wait for the end of a rate limit: the budget lets one pass
    /// every `PAUSED_REVOCATION_EVERY`, as a key that leaked cannot wait for hours.
    fn retry_at(&self, error: &bags::Error, now: Instant, pause: Duration, revocation: bool) -> Instant {
        let wall = self.context.env.clock.wall();
        let told = error.retry_at().map_or(Duration::ZERO, |at| until(wall, at));
        let has_turns = revocation && error.reason() == bags::Reason::RateLimited;
        let told = if has_turns { told.min(Budget::PAUSED_REVOCATION_EVERY) } else { told };
        now + told.max(pause)
    }
}
