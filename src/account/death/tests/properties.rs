//! Everything that can be known of a key: none is dead without a proof, and none waits for nothing.

use proptest::prelude::*;

use super::*;

fn any_way() -> impl Strategy<Value = Way> {
    prop_oneof![
        Just(Way::Operator),
        Just(Way::Unidentified),
        Just(Way::Person(PersonReason::Mode)),
        Just(Way::Person(PersonReason::NoKeyId)),
    ]
}

fn any_list() -> impl Strategy<Value = Evidence> {
    prop_oneof![
        Just(Evidence::None),
        Just(Evidence::Ask),
        (1..60u64).prop_map(|seconds| Evidence::Later(Duration::from_secs(seconds))),
        (0..60u64).prop_map(|seconds| Evidence::Lacking(Duration::from_secs(seconds))),
        Just(Evidence::Shown { key_id: None }),
        Just(Evidence::Absent),
    ]
}

fn any_witness() -> impl Strategy<Value = Witness> {
    prop_oneof![
        Just(Witness::Good),
        Just(Witness::After),
        Just(Witness::Ask("other".into())),
        (1..60u64).prop_map(|seconds| Witness::Later(Duration::from_secs(seconds))),
        Just(Witness::Nobody),
    ]
}

prop_compose! {
    fn any_known()(
        now in 0..10_000u64,
        alive_before in any::<bool>(),
        (tried, unclear) in (proptest::option::of(0.0..1.0f64), proptest::option::of(0.0..1.0f64)),
        refused in proptest::option::of((1..5u32, 0.0..1.0f64, 0.0..1.0f64)),
        acknowledged in proptest::option::of(0.0..1.0f64),
        (revocations, revoke_after) in (0..4u32, proptest::option::of(0..20_000u64)),
        (value, resolved, worked) in any::<(bool, bool, bool)>(),
        (way, list, witness) in (any_way(), any_list(), any_witness()),
        listed in proptest::option::of(0.0..1.0f64),
        pinged in proptest::option::of(0.0..1.0f64),
    ) -> Known {
        let past = |share: f64| (share * now as f64) as u64;
        Known {
            now,
            alive_before,
            tried: tried.map(past),
            unclear: unclear.filter(|_| tried.is_some()).map(past),
            refused: refused.map(|(count, a, b)| (count, past(a.min(b)), past(a.max(b)))),
            acknowledged: acknowledged.map(past),
            revocations,
            revoke_after,
            value,
            worked: worked || acknowledged.is_some(),
            way,
            list,
            listed: listed.map(past),
            witness,
            resolved,
            pinged: pinged.map(past),
        }
    }
}

/// §9 of the workflows, said in another way than the code says it.
fn proof(known: &Known) -> bool {
    let counted = known.refused.filter(|(_, first, _)| known.acknowledged.is_none_or(|at| *first >= at));
    let (count, span) = counted.map_or((0, 0), |(count, first, last)| (count, last - first));
    let last = counted.map(|(_, _, last)| last);
    let asked = known.tried.is_some_and(|tried| known.acknowledged.is_none_or(|at| tried >= at));
    let unclear = known.unclear.is_some() && known.refused.is_none() && asked;
    let by_person = known.resolved && (!known.value || count >= 1 || unclear);
    let ours = known.alive_before && known.acknowledged.is_some() && count >= 2 && span >= 1;
    let lists_allow = known.list == Evidence::Absent || known.list == Evidence::None && known.worked;
    let by_witness = count >= 2 && span >= 30 && known.witness == Witness::Good && lists_allow;
    let no_witness = known.witness == Witness::Nobody;
    let by_list = count >= 2 && span >= 30 && known.list == Evidence::Absent && no_witness;
    let by_time = count >= 3 && span >= 600 && no_witness && lists_allow && known.pinged >= last;
    let without_value = !known.value && known.list == Evidence::Absent;
    by_person || without_value || known.value && (ours || by_witness || by_list || by_time)
}

proptest! {
    #[test]
    fn nothing_is_dead_without_a_proof(known in any_known()) {
        if with(&known, next) == Next::Dead {
            prop_assert!(proof(&known), "{known:?}");
        }
    }

    #[test]
    fn nothing_is_revoked_that_a_person_must_revoke_or_that_is_acknowledged(known in any_known()) {
        if with(&known, next) == Next::Revoke {
            prop_assert_eq!(known.way, Way::Operator);
            prop_assert_eq!(known.acknowledged, None);
        }
    }

    #[test]
    fn a_key_without_a_value_is_never_asked_and_waits_are_real(known in any_known()) {
        match with(&known, next) {
            Next::Probe => prop_assert!(known.value),
            Next::Wait(Some(wait)) => prop_assert!(!wait.is_zero(), "{known:?}"),
            _ => {}
        }
    }

    #[test]
    fn a_key_that_may_live_never_waits_for_nothing_unless_a_list_or_a_person_speaks(known in any_known()) {
        if with(&known, next) == Next::Wait(None) {
            let list = !matches!(known.list, Evidence::None);
            prop_assert!(list || with(&known, needs_person).is_some() || known.way == Way::Unidentified, "{known:?}");
        }
    }
}
