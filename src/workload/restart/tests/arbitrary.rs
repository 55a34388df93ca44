//! Plans for whatever consumers there are: never too many at a time, and in the end all that can be.

use proptest::{prelude::*, sample::select};

use super::*;

/// How a workload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Fresh,
    Paused,
    OptedOut,
    BrokenBefore,
    Underway,
    Failed,
    Done,
    /// The same, and it wants no pods.
    Empty,
    /// This process marked it, and the mark is gone.
    Unmarked,
    Gone,
    Job,
}

const ALL: [Stand; 11] = [
    Stand::Fresh,
    Stand::Paused,
    Stand::OptedOut,
    Stand::BrokenBefore,
    Stand::Underway,
    Stand::Failed,
    Stand::Done,
    Stand::Empty,
    Stand::Unmarked,
    Stand::Gone,
    Stand::Job,
];

fn made(n: usize, stand: Stand, stale: bool) -> Consumer {
    let name = format!("app-{n}");
    match stand {
        Stand::Fresh | Stand::Unmarked => consumer(deployment(&name), stale),
        Stand::Paused => consumer(with(deployment(&name), "/spec/paused", true.into()), stale),
        Stand::OptedOut => {
            let told = json!({"keys.bags.fm/restart": "false"});
            consumer(with(deployment(&name), "/metadata/annotations", told), stale)
        }
        Stand::BrokenBefore => consumer(broken(deployment(&name)), stale),
        Stand::Underway => consumer(underway(&name), stale),
        Stand::Failed => consumer(broken(marked(deployment(&name), MARK)), stale),
        Stand::Done => consumer(marked(deployment(&name), MARK), stale),
        Stand::Empty => consumer(empty(&name), stale),
        Stand::Gone => ownerless(Owner::Workload(deployment_ref(&name)), stale),
        Stand::Job => ownerless(Owner::Job { name }, stale),
    }
}

fn any_stands() -> impl Strategy<Value = Vec<(Stand, bool)>> {
    let stand = prop_oneof![3 => Just(Stand::Fresh), 2 => select(ALL.to_vec())];
    prop::collection::vec((stand, any::<bool>()), 0..9)
}

fn plan_of(stands: &[(Stand, bool)], max_concurrent: usize) -> Plan {
    let consumers: Vec<_> =
        stands.iter().enumerate().map(|(n, (stand, stale))| made(n, *stand, *stale)).collect();
    let unmarked = (0..stands.len()).filter(|n| stands[*n].0 == Stand::Unmarked);
    let resting = unmarked.map(|n| (deployment_ref(&format!("app-{n}")), Rest::Pause)).collect();
    plan(
        &consumers,
        API_KEY,
        MARK,
        &Terms { max_concurrent, allow_gap: false, back: false, resting: &resting },
    )
}

fn number(reference: &WorkloadRef) -> usize {
    reference.name.trim_start_matches("app-").parse().unwrap()
}

/// Whether one has shown that workloads come up.
fn has_shown(plan: &Plan, stands: &[(Stand, bool)]) -> bool {
    plan.done.iter().any(|reference| stands[number(reference)].0 != Stand::Empty)
}

proptest! {
    #[test]
    fn never_more_are_marked_than_may_be(stands in any_stands(), max_concurrent in 0..5_usize) {
        let plan = plan_of(&stands, max_concurrent);
        let most = if has_shown(&plan, &stands) { max_concurrent } else { max_concurrent.min(1) };
        prop_assert!(plan.mark.is_empty() || plan.mark.len() + plan.underway.len() <= most);
        prop_assert!(plan.failed.is_empty() || plan.mark.is_empty());
        for reference in &plan.mark {
            prop_assert_eq!(stands[number(reference)], (Stand::Fresh, true));
        }
    }

    #[test]
    fn every_owner_of_stale_pods_has_its_place_and_no_candidate_is_left_out_without_need(
        stands in any_stands(), max_concurrent in 1..5_usize,
    ) {
        let plan = plan_of(&stands, max_concurrent);
        let held = !plan.failed.is_empty() || plan.underway.len() >= max_concurrent
            || (!has_shown(&plan, &stands) && !plan.underway.is_empty());
        let fresh = stands.iter().filter(|stand| **stand == (Stand::Fresh, true)).count();
        prop_assert_eq!(plan.mark.is_empty(), held || fresh == 0);
        for (n, (stand, stale)) in stands.iter().enumerate() {
            let is_in = |list: &[WorkloadRef]| list.contains(&deployment_ref(&format!("app-{n}")));
            let owner = made(n, *stand, *stale).owner;
            let obstructed = plan.obstructed.iter().any(|(named, _)| *named == owner);
            let failed = plan.failed.iter().any(|failure| Owner::Workload(failure.workload.clone()) == owner);
            match stand {
                Stand::Fresh => prop_assert!(!obstructed && !is_in(&plan.done) && !is_in(&plan.underway)),
                Stand::Paused | Stand::OptedOut | Stand::BrokenBefore | Stand::Gone | Stand::Job => {
                    prop_assert_eq!(obstructed, *stale);
                }
                Stand::Underway => prop_assert!(is_in(&plan.underway)),
                // Without stale pods it counts as if it had the mark still.
                Stand::Unmarked => {
                    prop_assert_eq!((is_in(&plan.underway), is_in(&plan.done)), (*stale, !*stale));
                }
                Stand::Failed => prop_assert!(failed),
                Stand::Done | Stand::Empty => prop_assert!(is_in(&plan.done)),
            }
        }
    }

    #[test]
    fn in_the_end_all_that_can_be_restarted_are(stands in any_stands(), max_concurrent in 1..5_usize) {
        let mut stands = stands;
        stands.retain(|(stand, _)| *stand != Stand::Failed);
        let mut rounds = 0;
        loop {
            for (stand, stale) in &mut stands {
                if matches!(stand, Stand::Underway | Stand::Unmarked) {
                    (*stand, *stale) = (Stand::Done, false);
                }
            }
            let plan = plan_of(&stands, max_concurrent);
            if plan.mark.is_empty() {
                break;
            }
            for reference in &plan.mark {
                stands[number(reference)].0 = Stand::Underway;
            }
            rounds += 1;
            prop_assert!(rounds <= stands.len());
        }
        prop_assert!(!stands.contains(&(Stand::Fresh, true)));
    }
}
