//! ApiKeys and BagsAccounts as JSON that anybody may have written: a person with kubectl, a restore from a backup,
//! another version of the operator. For tests of whatever reads them.
//!
//! First fields of the right type with values at and beyond every edge, then edits that know no schema. What serde
//! refuses of it never reaches the operator; [`for_all_read`] sees to it that enough is left.

use std::cell::Cell;

use jiff::Timestamp;
use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{TestCaseResult, TestRunner},
};
use serde_json::{Value, json};

use super::{FINALIZER, annotation};

/// Boxed, as the types of strategies nest and their trees would fill a test's stack.
type Json = BoxedStrategy<Value>;

/// Judges everything that can be read of what is generated, and fails where that is less than half.
pub(crate) fn for_all_read<S: Strategy, T>(
    source_file: &'static str,
    any: &S,
    read: impl Fn(&S::Value) -> Option<T>,
    judge: impl Fn(T) -> TestCaseResult,
) {
    let (all, good) = (Cell::new(0_u32), Cell::new(0_u32));
    let config = ProptestConfig::with_source_file(source_file);
    let config = ProptestConfig { cases: config.cases.saturating_mul(4), ..config };
    let run = TestRunner::new(config).run(any, |case| {
        all.set(all.get() + 1);
        let Some(case) = read(&case) else { return Ok(()) };
        good.set(good.get() + 1);
        judge(case)
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(good.get() > all.get() / 2, "of {} cases only {} could be read", all.get(), good.get());
}

/// An ApiKey, `now` being the time in seconds.
pub(crate) fn any_api_key(now: i64) -> Json {
    let names = (mostly("main"), mostly("production"), maybe(mostly("app-0")), maybe(text()));
    let spec = (names, maybe(any_template()), maybe(flag())).prop_map(
        |((account, environment, application, key_name), secret, suspend)| {
            json!({"accountRef": {"name": account}, "environment": environment, "keyName": key_name,
                   "application": application, "secret": secret, "suspend": suspend})
        },
    );
    let policy = maybe(select(vec!["Revoke", "Orphan", "Archive"]).prop_map(Value::from));
    let hold = (text(), time(now)).prop_map(|(reason, since)| json!({"reason": reason, "since": since}));
    let rotation = (maybe(time(now)), maybe(text()), maybe(hold));
    let status = (any_conditions(now), maybe(number()), maybe(text()), any_current(now), any_summaries(now));
    let status = (status, rotation).prop_map(|(status, (next, handled, hold))| {
        let (conditions, generation, phase, (current, switch), keys) = status;
        json!({"observedGeneration": generation, "conditions": conditions, "phase": phase,
               "current": current, "switch": switch, "keys": keys, "nextRotation": next,
               "handledRotate": handled, "hold": hold})
    });
    let status = prop_oneof![Just(Value::Null), status];
    let blocks = (maybe(any_rotation()), maybe(any_rollout()));
    let spec = (spec, policy, blocks).prop_map(|(mut spec, policy, (rotation, rollout))| {
        spec["deletionPolicy"] = policy;
        spec["rotation"] = rotation;
        spec["rollout"] = rollout;
        spec
    });
    let word = prop_oneof![Just(annotation::DELETE_NOW), Just(annotation::ROTATE)];
    edited("ApiKey", word.prop_flat_map(move |word| any_metadata(now, word)), spec, status)
}

fn any_rotation() -> Json {
    let policy = maybe(select(vec!["Hold", "SwitchBack", "Rebuild", ""]).prop_map(Value::from));
    let times = [maybe(duration()), maybe(duration()), maybe(duration()), maybe(duration())];
    (times, prop::collection::vec(any_window(), 0..3), policy)
        .prop_map(|([every, min, quiet, max], windows, policy)| {
            json!({"every": every, "windows": windows, "minOverlap": min, "quietFor": quiet,
                   "maxOverlap": max, "onRolloutFailure": policy})
        })
        .boxed()
}

fn any_window() -> Json {
    let days = prop::collection::vec(select(vec!["Mon", "Tue", "Sun", "Weekend", ""]), 0..9);
    let from = prop_oneof![3 => Just(Value::from("02:30")), 1 => Just(Value::from("23:59")), 1 => text()];
    let zone = select(vec!["Europe/Berlin", "America/Santiago", "Etc/GMT-14"]).prop_map(Value::from);
    let zone = maybe(prop_oneof![4 => zone, 1 => text()]);
    (days, from, duration(), zone)
        .prop_map(|(days, from, duration, zone)| {
            json!({"days": days, "from": from, "duration": duration, "timeZone": zone})
        })
        .boxed()
}

fn any_rollout() -> Json {
    let restart = maybe(select(vec!["Stale", "None", "All", ""]).prop_map(Value::from));
    (restart, maybe(flag()), maybe(number()))
        .prop_map(|(restart, gap, most)| json!({"restart": restart, "allowGap": gap, "maxConcurrent": most}))
        .boxed()
}

/// A duration in Go's notation, at the edge, or none.
fn duration() -> Json {
    let words = select(vec!["0s", "1ms", "90s", "1h", "24h", "720h", "87600h", "18446744073709551h", "30d"]);
    prop_oneof![8 => words.prop_map(Value::from), 1 => text()].boxed()
}

/// A BagsAccount, `now` being the time in seconds.
pub(crate) fn any_account(now: i64) -> Json {
    let word = prop_oneof![
        Just(annotation::RESOLVED),
        Just(annotation::REVOKE),
        Just(annotation::TAKE_OVER),
        Just(annotation::FORGET),
        Just("theirs")
    ];
    let metadata = word.prop_flat_map(move |word| any_metadata(now, word));
    edited("BagsAccount", metadata, any_account_spec(), any_account_status(now))
}

fn any_metadata(now: i64, annotation: &'static str) -> Json {
    let deleted = prop_oneof![4 => Just(Value::Null), 1 => served_time(now)];
    let finalizers = prop_oneof![6 => Just(json!([FINALIZER])), 1 => Just(Value::Null)];
    let (name, namespace, uid) = (mostly("app-0"), mostly("shop"), mostly("uid-0"));
    (name, namespace, uid, maybe(number()), deleted, finalizers, text())
        .prop_map(move |(name, namespace, uid, generation, deleted, finalizers, word)| {
            json!({"name": name, "namespace": namespace, "uid": uid, "generation": generation,
                   "deletionTimestamp": deleted, "finalizers": finalizers, "annotations": {annotation: word}})
        })
        .boxed()
}

fn any_template() -> Json {
    (maybe(text()), maybe(text()), maybe(text()), text(), text())
        .prop_map(|(name, key, url, label, value)| {
            json!({"name": name, "apiKeyField": key, "baseUrlField": url, "annotations": {},
                   "labels": {label.as_str().unwrap(): value}})
        })
        .boxed()
}

fn any_conditions(now: i64) -> Json {
    let kind = select(vec!["Ready", "Stalled", "Reconciling", "QuotaAvailable", "Theirs"]);
    let condition = (kind, select(vec!["True", "False", "Unknown"]), text(), served_time(now)).prop_map(
        |(kind, status, message, at)| {
            json!({"type": kind, "status": status, "reason": "Issued", "message": message,
                   "lastTransitionTime": at})
        },
    );
    prop::collection::vec(condition, 0..4).prop_map(Value::from).boxed()
}

/// The key in the Secret, and the last switch.
fn any_current(now: i64) -> impl Strategy<Value = (Value, Value)> {
    let times = [maybe(time(now)), maybe(time(now)), maybe(time(now)), time(now)];
    let marked = prop::collection::vec(text(), 0..3);
    (number(), text(), times, any::<[bool; 2]>(), marked).prop_map(
        |(number, attempt, [published, used, clean, at], [current, switch], marked)| {
            let key = json!({"revision": number, "attempt": attempt, "keyName": "Production-App-0",
                             "publishedAt": published, "lastUsedAt": used});
            let last = json!({"count": number, "attempt": attempt, "at": at, "cleanSince": clean,
                              "oldKeyUsedAt": used, "marked": marked});
            (if current { key } else { Value::Null }, if switch { last } else { Value::Null })
        },
    )
}

fn any_summaries(now: i64) -> Json {
    let summary = (state(), number(), maybe(text()), time(now)).prop_map(|(state, revision, attempt, since)| {
        json!({"state": state, "revision": revision, "attempt": attempt, "since": since})
    });
    prop::collection::vec(summary, 0..3).prop_map(Value::from).boxed()
}

fn any_account_spec() -> Json {
    let allowed = (mostly("shop"), text(), maybe(any_selector()), maybe(number()), any::<bool>()).prop_map(
        |(namespace, environment, selector, max, every)| {
            let environments = if every { json!([]) } else { json!([environment, "production"]) };
            json!({"namespaces": [namespace], "selector": selector, "environments": environments, "max": max})
        },
    );
    let allowed = prop_oneof![1 => Just(vec![]), 6 => prop::collection::vec(allowed, 1..4)];
    let credentials = select(vec![
        json!({"agentToken": {"secretName": "bags-main"}}),
        json!({"wallet": {"secretName": "bags-main"}}),
        json!({}),
    ]);
    let mode = maybe(select(vec!["Auto", "Person", "Delayed"]).prop_map(Value::from));
    (
        credentials,
        [maybe(number()), maybe(number()), maybe(number()), maybe(number())],
        mode,
        maybe(text()),
        allowed,
    )
        .prop_map(|(credentials, [limit, reserve, unmanaged, requests], mode, user, allowed)| {
            json!({"credentials": credentials, "limit": limit, "rotationReserve": reserve,
                   "unmanagedKeys": unmanaged, "requestsPerHour": requests, "expectedUser": user,
                   "revocation": {"mode": mode, "path": user}, "allowed": allowed})
        })
        .boxed()
}

fn any_selector() -> Json {
    let operator = select(vec!["In", "NotIn", "Exists", "DoesNotExist", "Gt", ""]);
    (operator, text(), text(), prop::collection::vec(text(), 0..3))
        .prop_map(|(operator, key, value, values)| {
            json!({"matchLabels": {key.as_str().unwrap(): value},
                   "matchExpressions": [{"key": key, "operator": operator, "values": values}]})
        })
        .boxed()
}

fn any_account_status(now: i64) -> Json {
    let refusal = (number(), number(), time(now))
        .prop_map(|(unmanaged, count, at)| json!({"unmanaged": unmanaged, "count": count, "at": at}));
    let capability = || select(vec!["Yes", "No", "Unknown", "Partly"]);
    let sums = [number(), number(), number()].prop_map(|[limit, unmanaged, available]| {
        json!({"limit": limit, "used": 0, "reserved": 0, "unmanaged": unmanaged, "available": available})
    });
    let ledger = (any_slots(now), prop::collection::vec(text(), 0..4), maybe(sums));
    let known =
        (capability(), capability(), maybe(refusal), maybe(text()), any_installation(), maybe(time(now)));
    (ledger, known, any_conditions(now))
        .prop_map(|((slots, departed, sums), known, conditions)| {
            let (list, revoke, refusal, text, installation, at) = known;
            let tried = json!({"list": list, "revoke": revoke, "revokeTriedAt": at, "revokeTriedWith": text});
            json!({"slots": slots, "departed": departed, "capacity": sums, "capabilities": tried,
                   "refusal": refusal, "installation": installation, "user": text, "pausedUntil": at,
                   "distrustedCredentials": text, "coveringToken": text, "conditions": conditions})
        })
        .boxed()
}

fn any_installation() -> Json {
    prop_oneof![
        8 => Just(json!({"cluster": "01234567-89ab", "namespace": "bags"})),
        1 => Just(json!({"cluster": "", "namespace": "bags"})),
        1 => Just(Value::Null),
    ]
    .boxed()
}

/// The slots of a ledger. Every other time such as the operator could have written, but for its numbers and times.
pub(crate) fn any_slots(now: i64) -> Json {
    (any::<bool>(), prop::collection::vec(any_slot(now), 0..6))
        .prop_map(|(orderly, mut slots)| {
            for (n, slot) in slots.iter_mut().enumerate().filter(|_| orderly) {
                let place = slot["state"] == "Reserved";
                slot["attempt"] = if place { Value::Null } else { format!("attempt-{n}").into() };
                if place || slot["state"] == "Creating" {
                    slot["published"] = Value::Null;
                } else if slot["state"] == "Live" && slot["published"].is_null() {
                    slot["published"] = n.into();
                }
            }
            slots.into()
        })
        .boxed()
}

fn any_slot(now: i64) -> Json {
    let usual = (0..4_u8).prop_map(|n| ("shop".into(), format!("app-{n}").into(), format!("uid-{n}").into()));
    let owner = prop_oneof![8 => usual, 1 => (text(), text(), text())];
    let owner =
        owner.prop_map(|(namespace, name, uid)| json!({"namespace": namespace, "name": name, "uid": uid}));
    let failures =
        (number(), time(now), select(vec!["LimitReached", "Connect", "WrongUser", "OutcomeUnknown", ""]))
            .prop_map(|(count, at, reason)| json!({"count": count, "at": at, "reason": reason}));
    let names = (text(), maybe(text()), maybe(text()), maybe(text()), maybe(text()));
    let numbers = (number(), maybe(number()), maybe(number()));
    (owner, names, state(), numbers, time(now), maybe(failures))
        .prop_map(|(owner, names, state, numbers, since, failures)| {
            let (key_use, attempt, key_name, key_id, trigger) = names;
            let (revision, published, last_switch) = numbers;
            json!({"owner": owner, "use": key_use, "revision": revision, "state": state, "attempt": attempt,
                   "keyName": key_name, "keyId": key_id, "published": published, "lastSwitch": last_switch,
                   "trigger": trigger, "since": since, "failures": failures})
        })
        .boxed()
}

fn state() -> Json {
    let known = vec!["Reserved", "Creating", "Live", "Lost", "Unresolved", "Revoking", "Released"];
    let unknown = select(vec!["Quarantined", "live", "", "\u{0}"]);
    prop_oneof![30 => select(known), 1 => unknown].prop_map(Value::from).boxed()
}

/// The account with one more slot, in a state that only a newer version knows.
pub(crate) fn with_unknown_state(mut account: Value, state: &str) -> Value {
    let owner = json!({"namespace": "shop", "name": "app-9", "uid": "uid-9"});
    let slot = json!({"owner": owner, "use": "production/app-9", "revision": 1, "published": 1, "state": state,
                      "attempt": "newer", "since": "2027-01-15T08:00:00Z"});
    if let Some(slots) = account.pointer_mut("/status/slots").and_then(Value::as_array_mut) {
        slots.push(slot);
    }
    account
}

/// This, or whatever there is.
fn mostly(usual: &'static str) -> Json {
    prop_oneof![8 => Just(Value::from(usual)), 1 => maybe(text())].boxed()
}

fn maybe(value: impl Strategy<Value = Value> + 'static) -> Json {
    prop_oneof![1 => Just(Value::Null), 2 => value].boxed()
}

fn flag() -> Json {
    prop_oneof![4 => Just(false), 1 => Just(true)].prop_map(Value::from).boxed()
}

/// Small, negative, or at the edge.
fn number() -> Json {
    let edge = select(vec![i64::MIN, i64::MIN + 1, -1, 100, 1 << 40, i64::MAX - 1, i64::MAX]);
    prop_oneof![5 => 0..12_i64, 1 => edge].prop_map(Value::from).boxed()
}

/// Before now, after now, or at the edge of all times.
fn time(now: i64) -> Json {
    let near = (-7200..600_i64).prop_map(move |by| Timestamp::from_second(now + by).unwrap());
    let edge = select(vec![
        Timestamp::MIN,
        Timestamp::UNIX_EPOCH,
        "2400-02-29T23:59:60.999999999Z".parse().unwrap(),
        Timestamp::MAX,
    ]);
    prop_oneof![6 => near, 1 => edge].prop_map(|time| time.to_string().into()).boxed()
}

/// The same in Kubernetes' own type: whole seconds, and none before the year 0.
fn served_time(now: i64) -> Json {
    time(now)
        .prop_map(|time| match time.as_str().unwrap() {
            time if time.starts_with('-') => "0000-01-01T00:00:00Z".into(),
            time => time.split_once('.').map_or(time.into(), |(seconds, _)| format!("{seconds}Z").into()),
        })
        .boxed()
}

/// Texts that mean something somewhere, no text, a long one, and whatever there is.
fn text() -> Json {
    let word = select(vec![
        "main",
        "shop",
        "production",
        "app-0",
        "uid-0",
        "attempt-0",
        "attempt-1",
        "user-1",
        "true",
        "bags-main@1",
    ]);
    prop_oneof![
        12 => word.prop_map(Value::from),
        1 => Just(Value::from("")),
        1 => Just(Value::from("\u{1f511}-\u{0}\u{202e}.")),
        1 => Just(Value::from("x".repeat(3000))),
        1 => ".{0,12}".prop_map(Value::from),
    ]
    .boxed()
}

/// A change that knows no schema.
#[derive(Clone, Debug)]
enum Edit {
    /// A number becomes another one.
    Number(Value),
    /// A text becomes another one.
    Text(Value),
    /// A list has everything so many times.
    Repeat(usize),
    /// A scalar, or an empty list, becomes something else.
    Anything(Value),
}

/// An object with up to three edits.
fn edited(
    kind: &'static str,
    metadata: impl Strategy<Value = Value> + 'static,
    spec: impl Strategy<Value = Value> + 'static,
    status: impl Strategy<Value = Value> + 'static,
) -> Json {
    let anything =
        select(vec![json!(null), json!({}), json!([]), json!([null]), json!(1.5), json!(""), json!(true)]);
    let edit = prop_oneof![
        4 => number().prop_map(Edit::Number),
        4 => text().prop_map(Edit::Text),
        2 => (0..20_usize).prop_map(Edit::Repeat),
        1 => anything.prop_map(Edit::Anything),
    ];
    (metadata, spec, status, prop::collection::vec((any::<Index>(), edit), 0..4))
        .prop_map(move |(metadata, spec, status, edits)| {
            let mut value = json!({"apiVersion": "keys.bags.fm/v1alpha1", "kind": kind, "metadata": metadata,
                                   "spec": spec, "status": status});
            for (place, edit) in edits {
                apply(&mut value, &place, edit);
            }
            value
        })
        .boxed()
}

fn apply(value: &mut Value, place: &Index, edit: Edit) {
    let fits: fn(&Value) -> bool = match edit {
        Edit::Number(_) => Value::is_number,
        // A time that is no time would be refused: such an edit is `Anything`'s.
        Edit::Text(_) => |value| value.as_str().is_some_and(|text| text.parse::<Timestamp>().is_err()),
        Edit::Repeat(_) => Value::is_array,
        Edit::Anything(_) => |value| !value.is_object() && value.as_array().is_none_or(Vec::is_empty),
    };
    let mut places = Vec::new();
    gather(value, fits, &mut places);
    if places.is_empty() {
        return;
    }
    let chosen = place.index(places.len());
    let chosen = places.swap_remove(chosen);
    match edit {
        Edit::Number(new) | Edit::Text(new) | Edit::Anything(new) => *chosen = new,
        Edit::Repeat(times) => {
            let items = chosen.as_array().cloned().unwrap_or_default();
            *chosen = std::iter::repeat_n(items, times).flatten().collect::<Vec<_>>().into();
        }
    }
}

/// The outermost values that fit.
fn gather<'a>(value: &'a mut Value, fits: fn(&Value) -> bool, places: &mut Vec<&'a mut Value>) {
    if fits(value) {
        places.push(value);
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| gather(item, fits, places)),
        Value::Object(members) => members.values_mut().for_each(|member| gather(member, fits, places)),
        _ => {}
    }
}

#[test]
#[should_panic(expected = "overflow")]
fn arithmetic_is_checked_where_these_tests_run() {
    let _ = std::hint::black_box(i64::MAX) + std::hint::black_box(1);
}
