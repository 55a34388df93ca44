//! What lists and other keys tell about the keys of an account, in the terms that decisions are made from. Pure.

use std::time::Duration;

use super::{
    death::{self, Evidence, PersonReason, Way, Witness},
    listing,
    lists::{Coverage, Verdict},
    memory::Endpoint,
    observe::{Observation, SlotSeen, Stored},
};
use crate::{
    api::{
        account::{Capabilities, Capability, RevocationMode, SlotState},
        annotation,
    },
    bags,
};

/// Another key that did not answer 200 is asked again after this.
const ASK_AGAIN: Duration = Duration::from_mins(5);
/// After this many failed lists in a row none is expected soon; that takes a quarter of a minute, as each wait is twice as long
/// as the one before.
const GIVEN_UP: u32 = 5;

/// Whether the account's keys can be listed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListWay {
    /// There is no token, or it cannot be read.
    NoToken,
    /// The service does not accept the token.
    Refused,
    /// The service has no such endpoint.
    Missing,
    /// Not before this long from now.
    Failing(Duration),
    /// Yes.
    Open,
}

impl Observation {
    /// Whether the service refuses the token.
    pub(super) fn token_refused(&self) -> bool {
        self.credentials.token && self.facts.refused_token.is_some()
    }

    /// Whether the service has no list to show.
    pub(super) fn list_missing(&self) -> bool {
        let failure = self.facts.list_failure.as_ref();
        self.credentials.token && failure.is_some_and(|failure| listing::is_missing(&failure.error))
    }

    /// Whether the account's keys can be listed now.
    pub(super) fn list_way(&self) -> ListWay {
        if !self.credentials.token {
            return ListWay::NoToken;
        }
        if self.token_refused() {
            return ListWay::Refused;
        }
        if self.list_missing() {
            return ListWay::Missing;
        }
        match &self.facts.list_failure {
            Some(failure) if failure.retry_at > self.now => {
                ListWay::Failing(failure.retry_at.saturating_duration_since(self.now))
            }
            Some(_) | None => ListWay::Open,
        }
    }

    /// What lists say of a slot's key.
    pub(super) fn evidence(&self, seen: &SlotSeen) -> Evidence {
        let way = self.list_way();
        let open = |evidence| match way {
            ListWay::NoToken | ListWay::Refused | ListWay::Missing => Evidence::None,
            ListWay::Failing(wait) => Evidence::Later(wait),
            ListWay::Open => evidence,
        };
        match &seen.verdict {
            // What is to be revoked may have gone since, and no list will tell.
            Verdict::Shown { .. }
                if seen.slot.state == SlotState::Revoking
                    && matches!(way, ListWay::NoToken | ListWay::Refused | ListWay::Missing) =>
            {
                Evidence::None
            }
            Verdict::Shown { key_id } => Evidence::Shown { key_id: key_id.clone() },
            Verdict::Absent => Evidence::Absent,
            Verdict::Undecided { wait } if seen.listed_since => open(Evidence::Lacking(*wait)),
            Verdict::Undecided { wait } if wait.is_zero() => open(Evidence::Ask),
            Verdict::Undecided { wait } => open(Evidence::Later(*wait)),
            Verdict::NotCovered => match self.covers_in() {
                None => Evidence::None,
                Some(wait) if wait.is_zero() => open(Evidence::Ask),
                Some(wait) => open(Evidence::Later(wait)),
            },
        }
    }

    /// After how long a new list may cover the account although the last one did not; `None`: none will, as things are.
    fn covers_in(&self) -> Option<Duration> {
        let Some(last) = &self.list else { return Some(Duration::ZERO) };
        let apart = (last.at + self.timings.lists_apart).saturating_duration_since(self.now);
        match self.cover() {
            Witness::Ask(_) => Some(apart),
            Witness::Good | Witness::After => {
                let since = self.slots.iter().any(|seen| seen.memory.good > Some(last.at));
                since.then_some(apart)
            }
            Witness::Later(wait) => Some(wait.max(apart)),
            Witness::Nobody => None,
        }
    }

    /// Whether a key answered 200 within the last hour, which a list of the account must show. A key that had answered by the
    /// time of the last list, and that this list lacks, makes no list cover: it was revoked since, or the list is another
    /// account's.
    pub(super) fn cover(&self) -> Witness {
        let since = self.now.checked_sub(self.timings.cover_window).unwrap_or(self.now);
        let good = |seen: &SlotSeen| seen.memory.speaks_for(&self.account, since);
        if self.slots.iter().any(|seen| good(seen) && !seen.unlisted) {
            return Witness::Good;
        }
        // A key that lately answered otherwise is no help; nor is one that answered 200 but is not listed, as it would answer 200
        // again.
        self.ask_other(None, |seen| {
            let lately = |at| self.now.saturating_duration_since(at) <= ASK_AGAIN;
            (!good(seen) && !seen.memory.probed.is_some_and(lately)).then_some(Duration::ZERO)
        })
    }

    /// What another key of the account has answered since this one first answered 401.
    pub(super) fn witness(&self, of: &SlotSeen) -> Witness {
        let since = of.memory.refused_since;
        let live = self.slots.iter().filter(|seen| seen.slot.state == SlotState::Live);
        let good: Vec<_> = live.map(|seen| seen.memory.good).filter(|good| *good >= since).collect();
        if since.is_some() && !good.is_empty() {
            // What was let in only after the last refusal does not show that anybody was at the time of the refusals.
            let between = good.iter().any(|good| *good <= of.memory.probed);
            return if between { Witness::Good } else { Witness::After };
        }
        // A key that answered otherwise is probed again: as long as no key works, something else is wrong.
        self.ask_other(of.attempt(), |seen| {
            let answered = seen.memory.probed.filter(|at| Some(*at) >= since);
            let again = answered.map(|at| (at + ASK_AGAIN).saturating_duration_since(self.now));
            Some(again.unwrap_or_default())
        })
    }

    /// Which current key (other than `but`) may be probed, or when. `usable` tells after how long a key may be; `None`: not at
    /// all.
    fn ask_other(&self, but: Option<&str>, usable: impl Fn(&SlotSeen) -> Option<Duration>) -> Witness {
        let mut earliest: Option<Duration> = None;
        let others = self.slots.iter().filter(|seen| seen.current && seen.stored == Stored::Value);
        for seen in others {
            let Some(attempt) = seen.attempt().filter(|attempt| Some(*attempt) != but) else { continue };
            let Some(wait) = usable(seen) else { continue };
            let resting = seen.memory.probe_after.map(|at| at.saturating_duration_since(self.now));
            let wait = wait.max(resting.unwrap_or_default());
            if wait.is_zero() {
                return Witness::Ask(attempt.to_owned());
            }
            earliest = Some(earliest.map_or(wait, |known| known.min(wait)));
        }
        earliest.map_or(Witness::Nobody, Witness::Later)
    }

    /// The revoke endpoint that revocations are sent to now: its path, and the version of the token that is sent with them.
    pub(super) fn endpoint(&self) -> String {
        let token = self.credentials.token_version.as_deref().unwrap_or_default();
        format!("{} {token}", self.account.revocation_path())
    }

    /// Whether the revoke endpoint was found missing lately.
    fn endpoint_missing(&self) -> bool {
        let missing_since = match self.endpoint_tried() {
            Some(endpoint) => (!endpoint.found).then_some(endpoint.at),
            None => self.endpoint_recorded(Capability::No).and_then(|known| known.revoke_tried_at),
        };
        missing_since.is_some_and(|at| self.age(at) < self.timings.capability_retry)
    }

    /// Whether the revoke endpoint was missing when it was last tried, however long ago.
    pub(super) fn endpoint_was_missing(&self) -> bool {
        match self.endpoint_tried() {
            Some(endpoint) => !endpoint.found,
            None => self.endpoint_recorded(Capability::No).is_some(),
        }
    }

    /// Whether the revoke endpoint is known to exist: a new process knows it from the account's status.
    pub(super) fn endpoint_found(&self) -> bool {
        match self.endpoint_tried() {
            Some(endpoint) => endpoint.found,
            None => self.endpoint_recorded(Capability::Yes).is_some(),
        }
    }

    /// Whether a 404 of the revoke endpoint tells nothing yet: the endpoint is not known to exist, and no list of this token has
    /// told whether the key belongs to the token's user. If lists fail again and again, none will tell.
    pub(super) fn endpoint_untold(&self) -> bool {
        let failed = self.facts.list_failure.as_ref().map_or(0, |failure| failure.count);
        let may_tell = matches!(self.list_way(), ListWay::Open | ListWay::Failing(_)) && failed < GIVEN_UP;
        self.list.is_none() && may_tell && !self.endpoint_found()
    }

    /// The revoke endpoint as this process last tried it.
    fn endpoint_tried(&self) -> Option<&Endpoint> {
        let with = self.endpoint();
        self.facts.endpoint.as_ref().filter(|endpoint| endpoint.with == with)
    }

    /// The capabilities in the account's status, if they say this of the revoke endpoint, for the path and token of now.
    fn endpoint_recorded(&self, revoke: Capability) -> Option<&Capabilities> {
        let with = self.endpoint();
        let known = &self.account.status.as_ref()?.capabilities;
        (known.revoke == revoke && known.revoke_tried_with.as_deref() == Some(with.as_str())).then_some(known)
    }

    /// Why Bags lately refused to revoke a slot's key, by this path and token.
    pub(super) fn revocation_refused<'a>(&self, seen: &'a SlotSeen) -> Option<&'a bags::Error> {
        let refused = seen.memory.revocation_refused.as_ref()?;
        let lately = refused.with == self.endpoint() && self.age(refused.at) < self.timings.capability_retry;
        lately.then_some(&refused.error)
    }

    /// Whether a slot's key belongs to another user than the account's, as after the account was moved to another user. The token
    /// is not one of the key's user, so what Bags answers to it about this key says nothing of other keys. But if a list shows
    /// the key, the token is one of the key's user, whatever user a person expects.
    fn belongs_to_another(&self, seen: &SlotSeen) -> bool {
        let listed = matches!(seen.verdict, Verdict::Shown { .. });
        !listed && seen.user().zip(self.account.expected_user()).is_some_and(|(its, ours)| its != ours)
    }

    /// Whether another key, which is to live, is known by the same id: a revocation by that id might hit the other key.
    fn shares_key_id(&self, seen: &SlotSeen) -> bool {
        let others = self.slots.iter().filter(|other| other.attempt() != seen.attempt());
        let mut living = others.filter(|other| other.slot.state != SlotState::Revoking);
        seen.key_id.is_some() && living.any(|other| other.key_id == seen.key_id)
    }

    /// Who revokes a slot's key.
    pub(super) fn way(&self, seen: &SlotSeen) -> Way {
        if self.account.revocation_mode() == RevocationMode::Person {
            return Way::Person(PersonReason::Mode);
        }
        if self.credentials.problem.is_some() && !self.credentials.token {
            return Way::Person(PersonReason::CredentialsUnusable);
        }
        if !self.credentials.token {
            return Way::Person(PersonReason::NoToken);
        }
        if self.token_refused() {
            return Way::Person(PersonReason::TokenRefused);
        }
        if self.belongs_to_another(seen) {
            // Whatever user a person expects, only a list that was asked for since tells whose the token is.
            let told = seen.listed_since || self.list_way() != ListWay::Open;
            return if told { Way::Person(PersonReason::OtherUser) } else { Way::Unidentified };
        }
        if self.endpoint_missing() {
            return Way::Person(PersonReason::NoEndpoint);
        }
        if self.revocation_refused(seen).is_some() {
            return Way::Person(PersonReason::Refused);
        }
        if self.shares_key_id(seen) {
            return Way::Person(PersonReason::SharedKeyId);
        }
        match (&seen.key_id, seen.listed_since) {
            (Some(_), _) => Way::Operator,
            (None, true) => Way::Person(PersonReason::NoKeyId),
            (None, false) if self.list_missing() => Way::Person(PersonReason::NoKeyId),
            (None, false) => Way::Unidentified,
        }
    }

    /// What is known of a key in `Revoking`.
    pub(super) fn death<'a>(&'a self, seen: &'a SlotSeen) -> death::Facts<'a> {
        death::Facts {
            memory: &seen.memory,
            value: seen.stored == Stored::Value,
            way: self.way(seen),
            worked: seen.slot.published.is_some()
                || seen.memory.good.is_some()
                || seen.memory.acknowledged.is_some(),
            list: self.evidence(seen),
            listed: self.list.as_ref().map(|list| list.at),
            witness: self.witness(seen),
            resolved: self.resolved(seen),
            pinged: self.facts.pinged,
            ping_after: self.facts.ping_after,
            age: self.age_of(seen),
            now: self.now,
            timings: &self.timings,
        }
    }

    /// Whether a person said that a slot's key is removed.
    pub(super) fn resolved(&self, seen: &SlotSeen) -> bool {
        self.names(annotation::RESOLVED, seen)
    }

    /// Whether a person said that a slot's key is to be revoked, although its ApiKey vanished. That differs from `resolved`, by
    /// which a person says that it is removed: a key of a suspended user, which Bags neither accepts nor revokes for now, is not
    /// removed.
    pub(super) fn let_go(&self, seen: &SlotSeen) -> bool {
        self.names(annotation::REVOKE, seen)
    }

    fn names(&self, annotation: &str, seen: &SlotSeen) -> bool {
        let Some(attempt) = seen.attempt() else { return false };
        self.annotation(annotation)
            .is_some_and(|attempts| attempts.split(',').any(|named| named.trim() == attempt))
    }

    /// An annotation of the account.
    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.account.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether the account's list can be relied on, and why; `None`: nothing is known yet.
    pub(super) fn covers(&self) -> Option<bool> {
        let last = self.list.as_ref()?;
        let before = self.facts.covering(self.account.status.as_ref());
        let covered = self.account.is_covered_by(self.credentials.token_version.as_deref(), before);
        match (last.coverage, last.shows_live) {
            (Coverage::Covers, _) => Some(true),
            (Coverage::Tentative | Coverage::No, Some(shown)) => Some(shown),
            (Coverage::Tentative | Coverage::No, None) => covered.then_some(true),
        }
    }
}
