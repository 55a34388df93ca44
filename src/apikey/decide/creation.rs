//! Rule 5: from nothing to a key under way.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;

use super::{Decision, Rule, is_in, rotation::is_stopped, words};
use crate::{
    account::credentials::trust_of,
    api::{
        FINALIZER,
        account::{Failures, Slot, SlotState},
    },
    apikey::{
        hold::{Hold, Reason},
        observe::{AccountView, Observation},
        problem::Problem,
    },
    ledger::Change,
    time::{since, until},
    timings::Timings,
};

/// With this many slots of keys that never worked (unknown outcome, lost, refused by Bags), no further slot is taken until one
/// of them is settled.
pub(super) const ATTEMPTS_WITHOUT_SUCCESS: usize = 2;
/// The preparation of an attempt seldom takes longer.
const PREPARATION: Duration = Duration::from_secs(1);
/// The longest pause between refused attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// The longest pause between attempts that were never sent.
const LONGEST_PAUSE_UNASKED: Duration = Duration::from_secs(300);

pub(super) fn rule(o: &Observation) -> Rule {
    // Without an account, or with a key or an attempt under way, the rules before this one have spoken.
    let Some(view) = &o.account else { return Rule::Pass };
    let (slots, blocked) = (o.slots(), !matches!(super::blocked(o), Rule::Pass));
    let waits = || !blocked && o.secret_rival.as_ref().is_some_and(|rival| !rival.going);
    if let [place] = slots.as_slice()
        && is_fresh(place)
        && (is_stopped(o) || waits())
    {
        return Rule::change(Change::GiveBack { owner_uid: place.owner.uid.clone() });
    }
    if o.current().is_some() || o.creating.is_some() || blocked {
        return Rule::Pass;
    }
    if slots.is_empty() {
        return first_place(o, view);
    }
    match slots.iter().find(|slot| slot.state == SlotState::Reserved) {
        Some(place) => match &view.use_rival {
            // A lagging cache let two ApiKeys of one use in. Only one of them gets a key, and the one that waits keeps no
            // place.
            Some(_) => Rule::change(Change::GiveBack { owner_uid: o.owner.uid.clone() }),
            None => licence(o, view, place),
        },
        None => further_place(o, view, &slots),
    }
}

/// Whether a slot is a place for a first key in which nothing was tried yet. An ApiKey that is stopped, or waits for the name
/// of a Secret, would keep it from the others for as long as that lasts.
fn is_fresh(slot: &Slot) -> bool {
    slot.state == SlotState::Reserved && slot.last_switch.is_none() && slot.failures.is_none()
}

fn first_place(o: &Observation, view: &AccountView) -> Rule {
    if let Some(rival) = &view.use_rival {
        return Rule::wait(Reason::DuplicateUse, words::duplicate_use(&o.key, rival));
    }
    if let Some(rival) = &o.secret_rival {
        return Rule::wait(Reason::SecretConflict, words::secret_rival(&o.key, rival));
    }
    // Another request to create an ApiKey of this name may have taken the place over and come to nothing: the place is taken
    // back.
    let ledger = view.ledger.clone().without_earlier_try(&o.owner);
    if !view.room.fits_new(&ledger.slots, view.ahead) {
        return Rule::wait(Reason::QuotaExceeded, words::no_room(view));
    }
    let (owner, key_use) = (o.owner.clone(), o.key.key_use());
    Rule::change(Change::Reserve { owner, key_use, ahead: view.ahead, max: view.max })
}

pub(super) fn licence(o: &Observation, view: &AccountView, place: &Slot) -> Rule {
    // An ApiKey whose key is in the Secret keeps it, even against one that counts as older, as when both were created in the
    // same second.
    if let Some(rival) = o.secret_rival.as_ref().filter(|_| !o.published()) {
        return Rule::wait(Reason::SecretConflict, words::secret_rival(&o.key, rival));
    }
    // An account that is deleted without its finalizer takes the ledger with it. Setting the finalizer wakes the ApiKeys that
    // wait for it.
    if !view.account.finalizers().iter().any(|name| name == FINALIZER) {
        return Rule::wait(Reason::WaitingForAccount, words::unprotected(view));
    }
    if distrusted(view) {
        return Rule::wait(Reason::WrongUser, words::wrong_user(view));
    }
    if let Some(hold) = place.failures.as_ref().and_then(|failures| pause(o, view, failures)) {
        return Rule::Wait(hold);
    }
    if let Some(until) = view.paused_until {
        let hold = Hold::new(Reason::RateLimited, words::paused(view, until));
        return Rule::Wait(hold.after(until_then(o.now, until)));
    }
    if let Some(next) = view.next_code {
        let hold = Hold::new(Reason::WaitingForAccount, words::code_sent(view, next));
        return Rule::Wait(hold.after(until_then(o.now, next)));
    }
    // Asking for a list so soon again would fail in the same way, and spend what is left of the account's requests.
    if let Some((wait, error)) = &view.unlisted {
        let problem = Problem::of_bags(&view.account.name_any(), error);
        return Rule::Wait(Hold::new(problem.reason, problem.message).after(*wait));
    }
    if let Some(open) = view.ledger.open_licence(o.now, o.timings.licence_term) {
        let left = o.timings.licence_term.saturating_sub(since(o.now, open.since));
        let hold = Hold::new(Reason::WaitingForAccount, words::licence_open(view));
        return Rule::Wait(hold.after(left.max(Duration::from_secs(1))));
    }
    if !view.room.fits_creation(&view.ledger.slots, place) {
        let hold = Hold::new(Reason::QuotaExceeded, words::no_room(view));
        return Rule::Wait(Hold { starving: o.current().is_some(), ..hold });
    }
    if view.preparing {
        // The other ApiKey's licence wakes this one; but a preparation that fails wakes nobody.
        return Rule::Wait(
            Hold::new(Reason::WaitingForAccount, words::licence_open(view)).after(PREPARATION),
        );
    }
    Rule::Act(Decision::Make)
}

/// Whether the credentials are those that led to another user than the one still expected.
pub(super) fn distrusted(view: &AccountView) -> bool {
    let status = view.account.status.as_ref();
    let distrusted = status.and_then(|status| status.distrusted_credentials.as_ref());
    let credentials = view.credentials.as_ref().ok();
    let trust = credentials.map(|credentials| trust_of(&view.account, &credentials.version));
    distrusted.is_some() && distrusted == trust.as_ref()
}

/// Why no key can be made on the account: its credentials lead to another user, or cannot be read.
pub(super) fn without_credentials(view: &AccountView) -> Option<Hold> {
    if distrusted(view) {
        return Some(Hold::new(Reason::WrongUser, words::wrong_user(view)));
    }
    let problem = Problem::from(view.credentials.as_ref().err()?.clone());
    Some(Hold::new(problem.reason, problem.message))
}

/// Every slot of the ApiKey is out of use: one more attempt is made, if a slot is free. After that the ApiKey waits; otherwise
/// it could fill its account with keys that never worked.
fn further_place(o: &Observation, view: &AccountView, slots: &[&Slot]) -> Rule {
    let unresolved: Vec<&&Slot> = slots.iter().filter(|slot| slot.state == SlotState::Unresolved).collect();
    if distrusted(view) {
        return Rule::wait(Reason::WrongUser, words::wrong_user(view));
    }
    if slots
        .iter()
        .any(|slot| !is_in(&slot.state, &[SlotState::Lost, SlotState::Unresolved, SlotState::Revoking]))
    {
        return Rule::Pass;
    }
    let never_worked = slots.iter().filter(|slot| slot.published.is_none()).count();
    if never_worked >= ATTEMPTS_WITHOUT_SUCCESS || !view.room.fits_extra(&view.ledger.slots) {
        return match unresolved.is_empty() {
            true => Rule::wait(Reason::Revoking, words::revoking(view, slots)),
            false => Rule::wait(Reason::Unresolved, words::unresolved(view, &unresolved)),
        };
    }
    if let Some(hold) = refusals(o, view, slots) {
        return Rule::Wait(hold);
    }
    Rule::change(Change::ReserveFurther { owner: o.owner.clone(), key_use: o.key.key_use() })
}

/// What is left of the pause after refused attempts in further slots. Such a slot goes when its attempt is refused, and the
/// refusal is recorded at another slot of its owner; or, where the API server refused it before the licence, remembered.
pub(super) fn refusals(o: &Observation, view: &AccountView, slots: &[&Slot]) -> Option<Hold> {
    if let Some((left, problem)) = &o.next_refused {
        return Some(Hold::new(problem.reason, problem.message.clone()).after(*left));
    }
    let refusals = slots.iter().filter_map(|slot| {
        // A doubt has the time at which its slot became `Unresolved`; a later time is that of a refusal.
        slot.failures.as_ref().filter(|failures| !words::is_doubt(failures) || failures.at > slot.since)
    });
    refusals.filter_map(|failures| pause(o, view, failures)).max_by_key(|hold| hold.wait)
}

/// What is left of the pause after a refused attempt; nothing once the cause is gone.
fn pause(o: &Observation, view: &AccountView, failures: &Failures) -> Option<Hold> {
    let pause = refusal_pause(failures, &o.timings);
    let left = pause.saturating_sub(since(o.now, failures.at));
    if left.is_zero() || credentials_changed(failures, view) {
        return None;
    }
    let (reason, message) = words::refused(failures, view, pause);
    Some(Hold::new(reason, message).after(left))
}

/// Whether the last attempt was refused for credentials that have changed since. Their version is remembered by this
/// process only: after a restart one attempt is made at once.
fn credentials_changed(failures: &Failures, view: &AccountView) -> bool {
    let now = view.credentials.as_ref().ok().map(|credentials| &credentials.version);
    speaks_of_credentials(&failures.reason) && now.is_some() && now != view.refused_credentials.as_ref()
}

/// Whether an attempt that failed for this reason needs other credentials.
pub(crate) fn speaks_of_credentials(reason: &str) -> bool {
    matches!(
        reason,
        "InvalidToken"
            | "InvalidSignature"
            | "InvalidMfa"
            | "MfaRequired"
            | "MfaUnsupported"
            | "NoCredentials"
    )
}

/// The pause after failed attempts, 1 min·2ⁿ: an hour at most, or five minutes where Bags was never asked, and so refused
/// nothing.
pub(super) fn refusal_pause(failures: &Failures, timings: &Timings) -> Duration {
    let doublings = u32::try_from(failures.count.saturating_sub(1).clamp(0, 20)).unwrap_or(20);
    let longest = if words::never_asked(&failures.reason) { LONGEST_PAUSE_UNASKED } else { LONGEST_PAUSE };
    timings.refusal_backoff.saturating_mul(1 << doublings).min(longest.max(timings.refusal_backoff))
}

fn until_then(now: Timestamp, then: Timestamp) -> Duration {
    until(now, then).max(Duration::from_secs(1))
}
