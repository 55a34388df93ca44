//! Pods as no API server should serve them, and pods whose time goes on.

use jiff::SignedDuration;
use proptest::{prelude::*, sample::Index, sample::select};

use super::*;
use crate::workload::{Pod, fixtures::any_pod};

/// Places of a JSON value and what stands there, without the whole.
fn places(value: &Value, here: &str, found: &mut Vec<String>) {
    let mut add = |name: &str, inner: &Value| {
        let place = format!("{here}/{}", name.replace('/', "~1"));
        found.push(place.clone());
        places(inner, &place, found);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, inner)| add(name, inner)),
        Value::Array(items) => items.iter().enumerate().for_each(|(n, inner)| add(&n.to_string(), inner)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether nobody who expects the one can read the other.
fn is_garbage_for(expected: &Value, garbage: &Value) -> bool {
    match (expected, garbage) {
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::String(text), Value::String(_)) => text.parse::<Timestamp>().is_ok(),
        (expected, garbage) => std::mem::discriminant(expected) != std::mem::discriminant(garbage),
    }
}

fn any_garbage() -> impl Strategy<Value = Value> {
    select(vec![
        json!(5),
        json!(-0.5),
        json!(true),
        json!("soon"),
        json!(""),
        json!([]),
        json!([{"name": SECRET}]),
        json!({}),
        json!({"name": SECRET}),
    ])
}

/// A pod, and the same with one or more fields that cannot be read. Garbage is what is garbage for the pod as it was:
/// a second edit of a place would make something out of it that can be read, `valueFrom: 5` and then `valueFrom: {}`.
fn any_garbled() -> impl Strategy<Value = (Value, Value)> {
    (any_pod(), prop::collection::vec((any::<Index>(), any_garbage()), 1..4)).prop_map(|(pod, edits)| {
        let mut garbled = pod.clone();
        for (place, garbage) in edits {
            let mut all = Vec::new();
            places(&garbled, "", &mut all);
            all.retain(|place| pod.pointer(place).is_some_and(|was| is_garbage_for(was, &garbage)));
            if !all.is_empty() {
                let place = all.swap_remove(place.index(all.len()));
                *garbled.pointer_mut(&place).unwrap() = garbage;
            }
        }
        (pod, garbled)
    })
}

fn found(pod: Option<Pod>, now: Timestamp) -> Scan {
    scan(&Vec::from_iter(pod), SECRET, switched(at(0), now), now, &Timings::default())
}

/// Every container starts anew, so much later.
fn restarted(value: &mut Value, later: i64) {
    match value {
        Value::Object(members) => {
            for (name, inner) in members {
                match inner.as_str().and_then(|text| text.parse::<Timestamp>().ok()) {
                    Some(time) if name == "startedAt" => {
                        *inner = json!(time.checked_add(SignedDuration::from_secs(later)).unwrap());
                    }
                    Some(_) | None => restarted(inner, later),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| restarted(item, later)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

proptest! {
    #[test]
    fn a_field_that_cannot_be_read_never_makes_a_pod_that_blocks_one_that_does_not(
        (pod, garbled) in any_garbled(), now in -60..1200_i64,
    ) {
        let before = found(Pod::of_tests(&pod), at(now));
        let after = found(Pod::of_tests(&garbled), at(now));
        prop_assert!(before.is_clean() || !after.is_clean(), "{before:?}\n{garbled:#}\n{after:?}");
    }

    #[test]
    fn what_has_moved_stays_moved_as_time_goes_on_and_containers_start_anew(
        pod in any_pod(), now in -60..1200_i64, passed in 0..4000_i64, later in 0..4000_i64,
    ) {
        // One that should be gone is believed less as time goes on.
        prop_assume!(Pod::of_tests(&pod).is_none_or(|pod| !pod.is_terminating()));
        let mut then = pod.clone();
        restarted(&mut then, later.min(passed));
        let before = found(Pod::of_tests(&pod), at(now));
        let after = found(Pod::of_tests(&then), at(now + passed));
        prop_assert!(!before.is_clean() || after.is_clean(), "{before:?}\n{pod:#}\n{after:?}");
    }

    #[test]
    fn a_deadline_is_kept(pod in any_pod(), now in 0..400_i64) {
        let before = found(Pod::of_tests(&pod), at(now));
        if let Some(wait) = before.next_look() {
            prop_assert!(!wait.is_zero());
            let then = at(now).checked_add(SignedDuration::try_from(wait).unwrap()).unwrap();
            prop_assert_eq!(found(Pod::of_tests(&pod), then).next_look(), None);
        }
    }

    #[test]
    fn who_is_told_to_wait_for_is_a_reader(pod in any_pod()) {
        let pods = Vec::from_iter(Pod::of_tests(&pod));
        let found = scan(&pods, SECRET, switched(at(0), at(0)), at(0), &Timings::default());
        prop_assert_eq!(readers(&pods, SECRET).len(), found.holders.len());
    }
}
