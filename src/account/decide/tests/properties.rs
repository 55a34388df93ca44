//! Random accounts: every change of a slot has its grounds.

use proptest::prelude::*;

use super::*;
use crate::account::memory::NamespaceSeen;

fn any_state() -> impl Strategy<Value = SlotState> {
    use SlotState::{Creating, Live, Lost, Released, Reserved, Revoking, Unknown, Unresolved};
    prop_oneof![
        10 => proptest::sample::select(vec![Reserved, Creating, Live, Lost, Unresolved, Revoking, Released]),
        1 => Just(Unknown("Shelved".into())),
    ]
}

prop_compose! {
    fn any_slot()(
        state in any_state(),
        age in 0..9000i64,
        stored in proptest::sample::select(vec![
            Stored::Absent, Stored::Empty, Stored::SurelyEmpty, Stored::Value,
        ]),
        (running, current, closed, listed_since, acknowledged, identified, alive)
            in any::<(bool, bool, bool, bool, bool, bool, bool)>(),
        refusals in 0..4u32,
        span in 0..900u64,
        owner in 0..5usize,
        verdict in prop_oneof![
            Just(Verdict::Shown { key_id: None }),
            Just(Verdict::Absent),
            Just(Verdict::NotCovered),
            (0..60u64).prop_map(|wait| Verdict::Undecided { wait: Duration::from_secs(wait) }),
        ],
    ) -> (SlotSeen, i64) {
        let now = clock();
        let back = |seconds: u64| now.checked_sub(Duration::from_secs(seconds));
        let owner = match owner {
            0 => OwnerSeen::Cached,
            1 => OwnerSeen::Lives,
            2 => OwnerSeen::Deleting,
            3 => OwnerSeen::Gone,
            _ => OwnerSeen::Missing(now),
        };
        let memory = KeyMemory {
            closed,
            refusals,
            refused_since: (refusals > 0).then(|| back(span)).flatten(),
            probed: (refusals > 0).then_some(now),
            acknowledged: acknowledged.then(|| back(span + 1)).flatten(),
            alive_before_revocation: alive,
            ..KeyMemory::default()
        };
        let mut slot = SlotSeen { memory, stored, running, current, verdict, listed_since, owner, ..seen(0, state) };
        slot.slot.since = Timestamp::from_second(NOW - age).unwrap();
        if !identified {
            slot.key_id = None;
        }
        (slot, age)
    }
}

prop_compose! {
    fn any_account()(
        slots in proptest::collection::vec(any_slot(), 0..6),
        (token, foreign, resolved, revoke, going, listed) in any::<(bool, bool, bool, bool, bool, bool)>(),
        namespace in proptest::option::of(proptest::option::of(0..7200u64)),
    ) -> Observation {
        let mut account = account();
        if let Some(gone) = namespace {
            let gone_since = gone.and_then(|ago| account.now.checked_sub(Duration::from_secs(ago)));
            account.facts.namespaces.insert("shop".into(), NamespaceSeen { asked: account.now, gone_since });
        }
        account.credentials.token = token;
        for (n, (mut slot, _)) in slots.into_iter().enumerate() {
            slot.slot.owner = owner(n % 3);
            slot.slot.attempt = slot.slot.attempt.map(|_| format!("attempt-{n}"));
            account.slots.push(slot);
        }
        if foreign {
            account = pinned(account, "89abcdef-0123", "bags");
        }
        if resolved {
            account = annotated(account, annotation::RESOLVED, "attempt-0,attempt-1");
        }
        if revoke {
            account = annotated(account, annotation::REVOKE, "attempt-1,attempt-2");
        }
        if going {
            account = deleting(account);
        }
        if !listed {
            account.list = None;
        }
        account
    }
}

/// Whether a change of a slot is allowed by what is known of it.
fn justified(account: &Observation, change: &Change) -> bool {
    let of = |attempt: &str| account.slots.iter().find(|seen| seen.attempt() == Some(attempt)).unwrap();
    let gone = |seen: &SlotSeen| seen.owner == OwnerSeen::Gone;
    match change {
        Change::Bury { attempt, owner_lives } => {
            let seen = of(attempt);
            let proven = death::next(&account.death(seen)) == Next::Dead;
            seen.slot.state == SlotState::Revoking
                && proven
                && (!owner_lives || seen.owner == OwnerSeen::Lives)
        }
        Change::Condemn { attempt, emergency, looked_at } => {
            let seen = of(attempt);
            let namespace = account.facts.namespaces.get(&seen.slot.owner.namespace);
            let namespace_gone = namespace.is_some_and(|known| known.gone_since.is_some());
            let may_go = account.let_go(seen) || namespace_gone && looked_at.is_some();
            let orphan = seen.slot.state == SlotState::Live && gone(seen) && may_go;
            !emergency && (seen.slot.state == SlotState::Lost || orphan)
        }
        Change::GiveBack { owner_uid } => account.slots.iter().any(|seen| {
            seen.slot.owner.uid == *owner_uid && seen.slot.state == SlotState::Reserved && gone(seen)
        }),
        Change::Abandon { attempt } => gone(of(attempt)) && of(attempt).stored == Stored::Value,
        Change::NotMade { attempt, .. } => {
            let seen = of(attempt);
            seen.memory.closed && seen.stored != Stored::Value && seen.verdict == Verdict::Absent
        }
        Change::Doubt { attempt, .. } => of(attempt).memory.closed && of(attempt).stored != Stored::Value,
        Change::Lose { attempt, .. } => matches!(of(attempt).verdict, Verdict::Shown { .. }),
        Change::Dismiss { attempt } => {
            let seen = of(attempt);
            account.resolved(seen) || seen.verdict == Verdict::Absent && !of_another_user(seen)
        }
        Change::Reserve { .. }
        | Change::ReserveFurther { .. }
        | Change::ReserveNext { .. }
        | Change::License { .. }
        | Change::Identify { .. }
        | Change::Publish { .. }
        | Change::SwitchBack { .. }
        | Change::Retire { .. }
        | Change::Release { .. } => false,
    }
}

proptest! {
    #[test]
    fn every_change_of_a_slot_has_its_grounds(account in any_account()) {
        let held = held_by_unknown_state(&account) || standing(&account) == Standing::Foreign;
        match decide(&account) {
            Decision::Act(Effect::Change(change)) => {
                prop_assert!(!held);
                prop_assert!(justified(&account, &change), "{change:?}");
            }
            Decision::Act(Effect::Revoke { attempt, .. }) => {
                let seen = account.slots.iter().find(|seen| seen.attempt() == Some(attempt.as_str())).unwrap();
                prop_assert!(!held && seen.slot.state == SlotState::Revoking);
            }
            Decision::Act(Effect::Close(attempt)) => {
                let seen = account.slots.iter().find(|seen| seen.attempt() == Some(attempt.as_str())).unwrap();
                prop_assert!(!held && !seen.running && seen.stored == Stored::SurelyEmpty);
            }
            Decision::Act(Effect::RemoveFinalizer) => prop_assert!(account.slots.is_empty()),
            Decision::Rest(Some(wait)) => prop_assert!(!wait.is_zero()),
            _ => {}
        }
    }
}
