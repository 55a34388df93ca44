//! Rules 7 to 9: what becomes of creations of unknown outcome, of unresolved keys and of released ones.

use super::*;

#[test]
fn a_creation_of_unknown_outcome_is_judged_once_its_value_cannot_arrive() {
    let attempt = attempt(0, SlotState::Creating);
    let creating = |age: i64, stored| {
        let mut seen = SlotSeen { stored, ..seen(0, SlotState::Creating) };
        seen.slot.since = Timestamp::from_second(NOW - age).unwrap();
        seen.watched = Duration::from_secs(age.unsigned_abs());
        seen
    };
    let closed = |verdict| SlotSeen {
        memory: KeyMemory { closed: true, ..KeyMemory::default() },
        verdict,
        listed_since: true,
        ..creating(240, Stored::Absent)
    };
    let watched = |seconds, seen| SlotSeen { watched: Duration::from_secs(seconds), ..seen };
    let name = || attempt.clone();
    let other = SlotSeen { memory: KeyMemory::default(), ..seen(1, SlotState::Live) };
    let undecided = |seconds| Verdict::Undecided { wait: Duration::from_secs(seconds) };
    let unlisted = |mut seen: SlotSeen| {
        seen.listed_since = false;
        seen
    };
    let wallet = CredentialsSeen { wallet: true, ..CredentialsSeen::default() };
    let id = Some("id-1".to_owned());
    let cases = [
        ("its value arrived", with([creating(300, Stored::Value)]), rest(RESYNC)),
        ("its save runs here", with([SlotSeen { running: true, ..creating(100, Stored::Empty) }]), rest(140)),
        (
            "its save still runs here",
            with([SlotSeen { running: true, ..creating(300, Stored::Empty) }]),
            rest(1),
        ),
        ("it may still be saved", with([creating(239, Stored::Empty)]), rest(1)),
        (
            "also if the wall clock was set back",
            with([watched(239, creating(-5000, Stored::Empty))]),
            rest(1),
        ),
        (
            "which does not keep it from being judged",
            with([watched(240, creating(-5000, Stored::Empty))]),
            Decision::Look(Look::Entry(name())),
        ),
        (
            "or if it was licensed by a clock that was behind ours",
            with([watched(17, creating(500, Stored::Empty))]),
            rest(40),
        ),
        (
            "also where no process has watched it for so long",
            with([watched(17, creating(540, Stored::Empty))]),
            Decision::Look(Look::Entry(name())),
        ),
        (
            "its Secret is read live",
            with([creating(240, Stored::Empty)]),
            Decision::Look(Look::Entry(name())),
        ),
        (
            "also if the cache has none",
            with([creating(240, Stored::Absent)]),
            Decision::Look(Look::Entry(name())),
        ),
        (
            "and deleted while it is empty",
            with([creating(240, Stored::SurelyEmpty)]),
            Decision::Act(Effect::Close(name())),
        ),
        (
            "what cannot be deleted now is the next run's",
            Observation { uncleared: BTreeSet::from([name()]), ..with([creating(240, Stored::SurelyEmpty)]) },
            rest(RESYNC),
        ),
        ("then a list is asked for", with([unlisted(closed(undecided(0)))]), Decision::Look(Look::List)),
        (
            "which must show a key that answered lately",
            with([unlisted(closed(undecided(0))), other]),
            Decision::Look(Look::Probe(self::attempt(1, SlotState::Live))),
        ),
        ("then another one", with([closed(undecided(30))]), rest(30)),
        (
            "one shows it",
            with([closed(Verdict::Shown { key_id: id.clone() })]),
            change_of(Change::Lose { attempt: name(), key_id: id }),
        ),
        (
            "two lack it",
            with([closed(Verdict::Absent)]),
            change_of(Change::NotMade { attempt: name(), reason: OUTCOME_UNKNOWN }),
        ),
        (
            "the list is somebody else's",
            with([closed(Verdict::NotCovered)]),
            change_of(Change::Doubt { attempt: name(), reason: OUTCOME_UNKNOWN }),
        ),
        (
            "there is no list",
            Observation { credentials: wallet, ..with([closed(undecided(0))]) },
            change_of(Change::Doubt { attempt: name(), reason: OUTCOME_UNKNOWN }),
        ),
    ];
    for (name, case, expected) in cases {
        assert_eq!(decide(&case), expected, "{name}");
    }
}

#[test]
fn unresolved_and_released_keys_leave_by_lists_or_by_a_persons_word() {
    let unresolved = attempt(0, SlotState::Unresolved);
    let released = attempt(0, SlotState::Released);
    let slot =
        |state, verdict| SlotSeen { verdict, listed_since: true, stored: Stored::Absent, ..seen(0, state) };
    let failed = |reason, stored| {
        let mut seen = SlotSeen { stored, ..slot(SlotState::Unresolved, Verdict::Absent) };
        let failures = json!({"count": 1, "at": "2026-01-01T00:00:00Z", "reason": reason});
        seen.slot.failures = serde_json::from_value(failures).unwrap();
        with([seen])
    };
    let wrong_user = || failed(WRONG_USER, Stored::Absent);
    let dismiss = |attempt: &str| change_of(Change::Dismiss { attempt: attempt.to_owned() });
    let not_covered = |state| with([slot(state, Verdict::NotCovered)]);
    let cases = [
        (
            "a list shows it",
            with([slot(SlotState::Unresolved, Verdict::Shown { key_id: None })]),
            change_of(Change::Lose { attempt: unresolved.clone(), key_id: None }),
        ),
        ("lists lack it", with([slot(SlotState::Unresolved, Verdict::Absent)]), dismiss(&unresolved)),
        ("no list tells", not_covered(SlotState::Unresolved), rest(RESYNC)),
        (
            "a person tells",
            annotated(not_covered(SlotState::Unresolved), annotation::RESOLVED, &unresolved),
            dismiss(&unresolved),
        ),
        ("another user's key is in no list of ours", wrong_user(), rest(RESYNC)),
        (
            "whose value is known is another user's, whatever failed since",
            failed("Connect", Stored::Value),
            rest(RESYNC),
        ),
        (
            "a person tells of it",
            annotated(wrong_user(), annotation::RESOLVED, &unresolved),
            dismiss(&unresolved),
        ),
        ("a released key stays", not_covered(SlotState::Released), rest(RESYNC)),
        (
            "nor is it looked for",
            with([SlotSeen { listed_since: false, ..seen(0, SlotState::Released) }]),
            rest(RESYNC),
        ),
        (
            "lists lack the released key",
            with([slot(SlotState::Released, Verdict::Absent)]),
            dismiss(&released),
        ),
        (
            "a person removed it",
            annotated(not_covered(SlotState::Released), annotation::RESOLVED, &released),
            dismiss(&released),
        ),
        (
            "an attempt that is not there changes nothing",
            annotated(account(), annotation::RESOLVED, "gone"),
            rest(RESYNC),
        ),
    ];
    for (name, case, expected) in cases {
        assert_eq!(decide(&case), expected, "{name}");
    }
}
