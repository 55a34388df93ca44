//! Rule 5.

use super::{super::creation::refusal_pause, *};
use crate::{
    api::account::{Failures, SlotState},
    apikey::fixtures::{CREDENTIALS, SECOND, distrusting, failing, named, no_credentials, unanswered},
    timings::Timings,
};

fn placed() -> Observation {
    seen().with_slot(mine(SlotState::Reserved))
}

fn full(observation: Observation) -> Observation {
    observation.view(|view| view.room.limit = i64::try_from(view.ledger.slots.len()).unwrap())
}

/// An attempt was refused in its place.
fn failed() -> Observation {
    seen().with_slot(failing(1, SECOND * 20, "Connect", mine(SlotState::Reserved)))
}

const FURTHER: &str = "ReserveFurther uid-0 production/app-0";

#[test]
fn the_first_place_is_taken_when_it_fits() {
    let beside = |n: usize| (1..=n).fold(seen(), |o, n| o.with_slot(theirs(n, SlotState::Live)));
    let place = "Reserve uid-0 production/app-0 behind 0";
    let rival = |o: Observation| o.view(|view| view.use_rival = Some("shop/app-9".into()));
    check(vec![
        ("into an empty account", seen(), place),
        ("as the ninth of ten, one kept for rotations", beside(8), place),
        ("not as the tenth, which is kept for rotations", beside(9), "QuotaExceeded"),
        ("as the tenth where none is kept", beside(9).view(|view| view.room.rotation_reserve = 0), place),
        ("not as the eleventh", beside(10).view(|view| view.room.rotation_reserve = 0), "QuotaExceeded"),
        ("keys made elsewhere count", beside(7).view(|view| view.room.unmanaged = 2), "QuotaExceeded"),
        (
            "behind older ones that wait",
            seen().view(|view| view.ahead = 2),
            "Reserve uid-0 production/app-0 behind 2",
        ),
        (
            "with what its namespace may have, for the ledger to judge once more",
            seen().view(|view| view.max = Some(3)),
            "Reserve uid-0 production/app-0 behind 0 of 3",
        ),
        (
            "not where the older ones need what is left",
            beside(8).view(|view| view.ahead = 1),
            "QuotaExceeded",
        ),
        ("not while another ApiKey has the same use", rival(seen()), "DuplicateUse"),
        ("the same use is told before a full account", rival(beside(9)), "DuplicateUse"),
        (
            "nor in a place that was kept by what a cache showed that was behind: it is given back",
            rival(placed()),
            "GiveBack uid-0",
        ),
    ]);
}

#[test]
fn a_key_is_made_in_its_place_when_nothing_stands_against_it() {
    let limit = |n: i64| placed().view(|view| view.room.limit = n);
    let older = aged(HOUR * 2, theirs(1, SlotState::Reserved));
    let younger = aged(MINUTE, theirs(1, SlotState::Reserved));
    check(vec![
        ("nothing stands against it", placed(), "Make"),
        (
            "the last place of a full account is served",
            full(placed().with_slot(theirs(1, SlotState::Live))),
            "Make",
        ),
        ("over the limit the oldest place is served", limit(1).with_slot(younger), "Make"),
        ("over the limit a younger place waits", limit(1).with_slot(older), "QuotaExceeded"),
        (
            "keys made elsewhere may have taken the room",
            full(placed()).view(|v| v.room.unmanaged = 1),
            "QuotaExceeded",
        ),
        (
            "another ApiKey was first to the Secret's name",
            Observation { secret_rival: Some(rival()), ..placed() },
            "GiveBack uid-0",
        ),
        (
            "another ApiKey was first to the Secret's name, and goes by itself",
            Observation { secret_rival: Some(Rival { going: true, ..rival() }), ..placed() },
            "SecretConflict",
        ),
        (
            "another ApiKey was first to the Secret's name, and something was tried: its pause must not begin anew",
            Observation { secret_rival: Some(rival()), ..failed() },
            "SecretConflict",
        ),
        ("a place is not kept for one that is suspended", placed().suspended(), "GiveBack uid-0"),
        (
            "no place is kept while nothing could be put into the Secret",
            Observation { secret_rival: Some(rival()), ..seen() },
            "SecretConflict",
        ),
        ("the credentials led to another user", distrusting(placed(), CREDENTIALS), "WrongUser"),
        (
            "the account's list was asked for in vain: not before its turn",
            placed().view(|view| view.unlisted = Some((SECOND * 9, unanswered()))),
            "BagsUnavailable, 9s",
        ),
        (
            "nothing holds the account, and with it the ledger, yet",
            placed().account(|account| account.metadata.finalizers = None),
            "WaitingForAccount",
        ),
        ("other credentials led to another user", distrusting(placed(), "bags-main@0"), "Make"),
        (
            "credentials that cannot be read are told where they are read",
            placed().view(|view| view.credentials = Err(no_credentials())),
            "Make",
        ),
        (
            "the rate limit is used up",
            placed().view(|view| view.paused_until = Some(in_future(SECOND * 90))),
            "RateLimited, 1m30s",
        ),
        (
            "the rate limit ends in this moment",
            placed().view(|view| view.paused_until = Some(in_future(Duration::ZERO))),
            "RateLimited, 1s",
        ),
        (
            "the present one-time code was sent already",
            placed().view(|view| view.next_code = Some(in_future(SECOND * 12))),
            "WaitingForAccount, 12s",
        ),
        (
            "another creation of the account is under way",
            placed().with_slot(aged(SECOND * 30, theirs(1, SlotState::Creating))),
            "WaitingForAccount, 1m30s",
        ),
        (
            "a creation whose licence ran out keeps nobody waiting",
            placed().with_slot(aged(MINUTE * 2, theirs(1, SlotState::Creating))),
            "Make",
        ),
    ]);
}

#[test]
fn what_stands_against_a_key_is_told_in_order() {
    let mut all = distrusting(placed(), CREDENTIALS)
        .view(|view| {
            view.paused_until = Some(in_future(MINUTE));
            view.room.limit = 0;
            view.ledger.slots[0] = failing(1, SECOND * 20, "Connect", view.ledger.slots[0].clone());
        })
        .with_slot(aged(SECOND, theirs(1, SlotState::Creating)));
    all.secret_rival = Some(rival());
    assert_eq!(told(&decide(&all)), "SecretConflict");
    all.secret_rival = None;
    assert_eq!(told(&decide(&all)), "WrongUser");
    let all = distrusting(all, "bags-main@0");
    assert_eq!(told(&decide(&all)), "BagsUnavailable, 40s");
    let all = all.view(|view| view.ledger.slots[0].failures = None);
    assert_eq!(told(&decide(&all)), "RateLimited, 1m");
    let all = all.view(|view| view.paused_until = None);
    assert_eq!(told(&decide(&all)), "WaitingForAccount, 1m59s");
    let all = all.view(|view| drop(view.ledger.slots.pop()));
    assert_eq!(told(&decide(&all)), "QuotaExceeded");
    let all = all.view(|view| view.room.limit = 1);
    assert_eq!(told(&decide(&all)), "Make");
}

#[test]
fn the_pause_after_a_refusal_doubles_up_to_an_hour() {
    let minutes = |count, reason: &str| {
        let failures = Failures { count, at: ago(MINUTE), reason: reason.into() };
        refusal_pause(&failures, &Timings::default()).as_secs() / 60
    };
    let pause = |count| minutes(count, "Forbidden");
    assert_eq!([1, 2, 3, 4, 5, 6, 7, 8, i64::MAX].map(pause), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!([0, -1, i64::MIN].map(pause), [1, 1, 1]);
    for reason in ["Connect", "OutOfTime", "NonceExpired", "ShuttingDown", "BudgetSpent"] {
        let unasked = [1, 2, 3, 4, i64::MAX].map(|count| minutes(count, reason));
        assert_eq!(unasked, [1, 2, 4, 5, 5], "nobody refused anything: {reason}");
    }
    let failures = Failures { count: 3, at: ago(MINUTE), reason: "Connect".into() };
    let longer = Timings { refusal_backoff: HOUR * 2, ..Timings::default() };
    assert_eq!(refusal_pause(&failures, &longer), HOUR * 2, "a longer pause is the platform team's choice");
}

#[test]
fn what_is_said_of_a_pause_stays_while_it_lasts() {
    // A text that changes with the time left is a write of the status at each look.
    let failures = Failures { count: 3, at: ago(SECOND * 20), reason: "Connect".into() };
    let slot = Slot { failures: Some(failures), ..mine(SlotState::Reserved) };
    let now = seen().with_slot(slot);
    let said = hold(&now).message.clone();
    let later = Observation { now: now.now + SECOND * 40, ..now };
    assert_eq!(hold(&later).message, said);
}

#[test]
fn a_refused_attempt_pauses_and_says_whose_turn_it_is() {
    let refused =
        |count, age, reason| seen().with_slot(failing(count, age, reason, mine(SlotState::Reserved)));
    let cases: Vec<(&str, &str, &[&str])> = vec![
        (
            "LimitReached",
            "LimitReached, 40s",
            &[ACCOUNT, "have 0 of 10", "lower spec.limit", "spec.unmanagedKeys", "dev.bags.fm"],
        ),
        ("NoCredentials", "CredentialsMissing, 40s", &[ACCOUNT, "neither a wallet nor", "spec.credentials"]),
        ("InvalidToken", "CredentialsRefused, 40s", &[ACCOUNT, "agent token", "spec.credentials"]),
        ("InvalidSignature", "CredentialsRefused, 40s", &[ACCOUNT, "wallet", "spec.credentials"]),
        ("InvalidMfa", "CredentialsRefused, 40s", &[ACCOUNT, "totpField"]),
        ("MfaRequired", "CredentialsRefused, 40s", &[ACCOUNT, "totpField"]),
        ("MfaUnsupported", "CredentialsRefused, 40s", &[ACCOUNT, "second factor"]),
        ("RateLimited", "RateLimited, 40s", &[ACCOUNT, "rate limit"]),
        ("BudgetSpent", "RateLimited, 40s", &[ACCOUNT, "spec.requestsPerHour", "--requests-per-hour"]),
        ("Connect", "BagsUnavailable, 40s", &["(Connect)", "nothing was made"]),
        ("ServerError", "BagsUnavailable, 40s", &["(ServerError)", "nothing was made"]),
        ("LicenceExpired", "BagsUnavailable, 40s", &["nothing was made"]),
        ("ShuttingDown", "BagsUnavailable, 40s", &["nothing was made"]),
        ("Forbidden", "BagsRefused, 40s", &["(Forbidden)", "nothing was made"]),
        ("FromANewerVersion", "BagsRefused, 40s", &["(FromANewerVersion)"]),
    ];
    for (reason, expected, parts) in cases {
        let observation = refused(1, SECOND * 20, reason);
        let hold = hold(&observation);
        assert_eq!(told(&decide(&observation)), expected, "{reason}");
        fit_for_a_person(reason, &hold);
        assert!(hold.message.contains("attempt 2 after "), "{}", hold.message);
        for part in parts {
            assert!(hold.message.contains(part), "{part:?} is not in {:?}", hold.message);
        }
    }
    for reason in crate::bags::Reason::ALL {
        fit_for_a_person(reason.name(), &hold(&refused(1, SECOND * 20, reason.name())));
    }
    check(vec![
        ("the third refusal pauses 4m", refused(3, MINUTE, "Connect"), "BagsUnavailable, 3m"),
        ("after the pause it is tried again", refused(1, MINUTE, "Connect"), "Make"),
        (
            "other credentials are tried at once",
            refused(9, MINUTE, "InvalidToken")
                .view(|view| view.refused_credentials = Some("bags-main@0".into())),
            "Make",
        ),
        (
            "other credentials do not help where they were not refused",
            refused(3, MINUTE, "Forbidden")
                .view(|view| view.refused_credentials = Some("bags-main@0".into())),
            "BagsRefused, 3m",
        ),
        (
            "credentials that cannot be read are no other ones",
            refused(3, MINUTE, "InvalidToken").view(|view| view.credentials = Err(no_credentials())),
            "CredentialsRefused, 3m",
        ),
    ]);
    // A clock that went back: the pause begins anew and ends.
    let future = placed().view(|view| {
        let failures = Failures { count: 1, at: in_future(HOUR), reason: "Connect".into() };
        view.ledger.slots[0].failures = Some(failures);
    });
    assert_eq!(told(&decide(&future)), "BagsUnavailable, 1m");
}

#[test]
fn an_owner_whose_keys_are_out_of_use_gets_one_more_attempt() {
    let with = |state| seen().with_slot(mine(state));
    let never = |o: Observation, state| o.with_slot(Slot { published: None, ..named("b", mine(state)) });
    let doubted = |age, reason| {
        seen().with_slot(failing(1, age, reason, aged(SECOND * 40, mine(SlotState::Unresolved))))
    };
    let emergency = || {
        seen()
            .with_slot(Slot { published: Some(1), ..named("a", mine(SlotState::Revoking)) })
            .with_slot(Slot { published: Some(2), ..named("b", mine(SlotState::Revoking)) })
    };
    check(vec![
        ("its key was lost", with(SlotState::Lost), FURTHER),
        ("its key is unresolved", with(SlotState::Unresolved), FURTHER),
        ("its key is being revoked", with(SlotState::Revoking), FURTHER),
        ("its two published keys are being revoked", emergency(), FURTHER),
        ("the further place is used", with(SlotState::Lost).with_slot(mine(SlotState::Reserved)), "Make"),
        ("no slot is free, and the account revokes", full(with(SlotState::Revoking)), "Revoking"),
        ("no slot is free, and a person has to look", full(with(SlotState::Unresolved)), "Unresolved"),
        (
            "two of unknown outcome: a person has to look",
            never(with(SlotState::Unresolved), SlotState::Unresolved),
            "Unresolved",
        ),
        (
            "two that never worked: one has to go first, or it would fill the account",
            never(with(SlotState::Revoking), SlotState::Revoking),
            "Revoking",
        ),
        (
            "one lost and one unresolved: a person has to look",
            never(with(SlotState::Lost), SlotState::Unresolved),
            "Unresolved",
        ),
        (
            "the credentials led to another user",
            distrusting(with(SlotState::Unresolved), CREDENTIALS),
            "WrongUser",
        ),
        (
            "the credentials that led to another user were replaced",
            distrusting(doubted(SECOND * 40, "WrongUser"), "bags-main@0"),
            FURTHER,
        ),
        (
            "a further attempt was refused, and the first key is still another user's",
            distrusting(doubted(SECOND * 20, "WrongUser"), "bags-main@0"),
            "BagsRefused, 40s",
        ),
        (
            "another user is expected now",
            distrusting(with(SlotState::Unresolved), CREDENTIALS)
                .account(|account| account.spec.expected_user = Some("user-2".into())),
            FURTHER,
        ),
        ("the unknown outcome itself is no refusal", doubted(SECOND * 40, "OutcomeUnknown"), FURTHER),
        ("a further attempt was just refused", doubted(SECOND * 20, "Connect"), "BagsUnavailable, 40s"),
        ("a further attempt was refused a while ago", doubted(MINUTE, "Connect"), FURTHER),
        ("its only key was left to people", with(SlotState::Released), "WaitingForAccount"),
        (
            "an attempt is under way",
            with(SlotState::Lost).with_slot(mine(SlotState::Creating)).running(),
            "Creating, 1m",
        ),
    ]);
}
