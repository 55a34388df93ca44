//! Observations of all sorts: slots of anybody in any state, and whatever can be seen of the account, the ApiKey, its
//! Secret, pods and Bags.

use jiff::Timestamp;

use super::*;
use crate::{
    api::{
        account::{Capability, Failures, Revocation, RevocationMode},
        annotation,
        apikey::{RolloutSpec, RotationSpec, Switch},
    },
    apikey::{
        fixtures::{CREDENTIALS, consumer, no_credentials, now, reader, rival, value},
        observe::PodsSeen,
        quiet::{Shown, Uses},
    },
    keystore::Entry,
    ledger::Room,
    workload::{Holder, Scan, Why},
};

fn any_state() -> impl Strategy<Value = SlotState> {
    use SlotState::{Creating, Live, Lost, Released, Reserved, Revoking, Unknown, Unresolved};
    prop_oneof![
        3 => Just(Reserved), 3 => Just(Creating), 3 => Just(Live), 2 => Just(Lost), 2 => Just(Unresolved),
        2 => Just(Revoking), 1 => Just(Released), 1 => Just(Unknown("Quarantined".into())),
    ]
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    (-600..7200_i64).prop_map(|age| seen().now.checked_sub(jiff::SignedDuration::from_secs(age)).unwrap())
}

fn any_seconds() -> impl Strategy<Value = Duration> {
    (0..90_u64).prop_map(Duration::from_secs)
}

fn any_failures() -> impl Strategy<Value = Failures> {
    let reasons = vec!["LimitReached", "InvalidToken", "Connect", "WrongUser", "OutcomeUnknown", "Elsewhere"];
    (-1..70_i64, any_time(), prop::sample::select(reasons)).prop_map(|(count, at, reason)| Failures {
        count,
        at,
        reason: reason.into(),
    })
}

fn any_slot() -> impl Strategy<Value = Slot> {
    let failures = prop::option::weighted(0.3, any_failures());
    let published = prop::option::of(0..4_i64);
    (0..3_usize, any_state(), any_time(), published, failures, any::<bool>()).prop_map(
        |(n, state, since, published, failures, known)| {
            let slot = theirs(n, state);
            Slot {
                published: if slot.state == SlotState::Live { published.or(Some(1)) } else { published },
                key_id: slot.key_id.clone().filter(|_| known),
                since,
                failures,
                ..slot
            }
        },
    )
}

fn any_probe() -> impl Strategy<Value = Probe> {
    prop_oneof![
        Just(alive("user-1")),
        Just(alive("user-2")),
        Just(Probe::Dead),
        Just(Probe::Forbidden),
        Just(Probe::UserGone)
    ]
}

fn any_permission() -> impl Strategy<Value = Permission> {
    prop_oneof![
        6 => Just(Permission::Granted),
        1 => Just(Permission::Namespace),
        1 => Just(Permission::Environment(vec!["staging".into()])),
        1 => Just(Permission::Max(1)),
    ]
}

/// A change of an observation.
struct Twist(Box<dyn Fn(Observation) -> Observation>);

impl std::fmt::Debug for Twist {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Twist")
    }
}

fn twist(change: impl Fn(Observation) -> Observation + 'static) -> Twist {
    Twist(Box::new(change))
}

fn of_account() -> impl Strategy<Value = Twist> {
    let user = || prop::option::of(prop::sample::select(vec!["user-1", "user-2", ""]));
    let known = (any::<[bool; 6]>(), user(), user());
    let room = (0..8_i64, 0..3_i64, 0..3_i64, 0..3_usize);
    let until = prop::option::weighted(0.2, any_time());
    let ours = prop_oneof![8 => Just(Some(true)), 1 => Just(Some(false)), 1 => Just(None)];
    (known, room, until, ours, any_permission()).prop_map(|(known, room, until, ours, permission)| {
        let ([rival, readable, distrusted, dying, person, revokes], expected, pinned) = known;
        let (limit, rotation_reserve, unmanaged, ahead) = room;
        twist(move |o| {
            let o = o.account(|account| {
                account.spec.expected_user = expected.map(str::to_owned);
                let mode = person.then_some(RevocationMode::Person);
                account.spec.revocation = Some(Revocation { mode, path: None });
                if dying && rival {
                    account.metadata.deletion_timestamp =
                        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(ago(MINUTE)));
                }
                let status = account.status.get_or_insert_default();
                status.user = pinned.map(str::to_owned);
                status.distrusted_credentials = (distrusted && rival).then(|| CREDENTIALS.to_owned());
                status.capabilities.revoke = if revokes { Capability::Yes } else { Capability::No };
            });
            o.view(|view| {
                view.room = Room { limit, rotation_reserve, unmanaged };
                view.ahead = ahead;
                view.paused_until = until;
                view.next_code = until.filter(|_| rival);
                view.ours = ours;
                view.neighbours = ours == Some(false) && dying;
                view.permission = permission.clone();
                view.use_rival = (rival && !readable).then(|| "shop/app-9".to_owned());
                if !readable {
                    view.credentials = Err(no_credentials());
                }
            })
        })
    })
}

fn of_attempt() -> impl Strategy<Value = Twist> {
    let ages = (prop::option::of(any_seconds()), prop::option::of(any_seconds()));
    (any::<[bool; 3]>(), prop::option::of(any_probe()), ages).prop_map(|([a, b, c], probe, ages)| {
        twist(move |mut o| {
            if let Some(view) = &mut o.creating {
                view.running = a;
                view.saved = (b || c).then(|| Entry::of_tests(Some(&value()), c.then_some("key-id-1")));
                view.probe = probe.clone();
                (view.refused_for, view.probed_ago) = ages;
            }
            o
        })
    })
}

fn of_key() -> impl Strategy<Value = Twist> {
    let deleted = prop::option::weighted(0.4, any_time());
    let word = prop::option::of(prop::sample::select(vec!["true", "false", ""]));
    (deleted, word, any::<[bool; 5]>()).prop_map(|(deleted, word, [a, b, orphan, terminating, d])| {
        twist(move |o| {
            let mut o = o.key(|key| {
                key.metadata.deletion_timestamp =
                    deleted.map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time);
                key.spec.suspend = Some(a && b);
                let policy = if a && d { DeletionPolicy::Unknown } else { DeletionPolicy::Orphan };
                key.spec.deletion_policy = orphan.then_some(policy);
                if a && d {
                    key.metadata.finalizers = None;
                }
            });
            if let Some(word) = word {
                o = o.annotated(DELETE_NOW, word);
            }
            let namespace_deleted = terminating.then(|| ago(if b { MINUTE } else { HOUR }));
            let next_refused = (b && orphan).then(|| (MINUTE, secret_refused()));
            Observation { namespace_deleted, next_refused, secret_rival: (b && d).then(rival), ..o }
        })
    })
}

fn of_world() -> impl Strategy<Value = Twist> {
    let flags = any::<[bool; 3]>();
    (0..20_usize, prop::option::weighted(0.9, Just(())), flags).prop_map(|(found, account, [a, b, c])| {
        twist(move |mut o| {
            let foreign = Foreign::ALL;
            if o.current().is_some() {
                o = match found {
                    0 => Observation { consumer: None, ..o },
                    1 => o.with_consumer(Found::Missing),
                    2 | 3 => o.edited(),
                    4..=8 => o.with_consumer(Found::Foreign(foreign[found - 4])),
                    _ => o,
                };
            }
            if a && b {
                o.current_value = None;
            }
            if a && c {
                (o.timings.propagation, o.timings.handover) = (Duration::ZERO, Duration::ZERO);
            }
            if account.is_none() {
                (o.account, o.creating, o.current_value) = (None, None, None);
            }
            o
        })
    })
}

fn any_holder() -> impl Strategy<Value = Holder> {
    let why = prop::option::of(prop::sample::select(vec![
        Why::Started,
        Why::Mounted,
        Why::NotReady,
        Why::Settling(MINUTE),
        Why::Unknown,
    ]));
    (0..3_usize, why, any::<bool>())
        .prop_map(|(n, why, terminating)| Holder { terminating, ..reader(&format!("web-{n}"), why) })
}

/// Pods and workloads; marked, where they are, for the switch of this number.
#[derive(Clone, Debug)]
struct AnyPods {
    holders: Vec<Holder>,
    workloads: Vec<(usize, &'static str, bool)>,
    confirmed: bool,
}

impl AnyPods {
    fn seen(&self, number: i64) -> PodsSeen {
        let stale = self.holders.iter().any(|holder| holder.why().is_some());
        let consumers = self.workloads.iter().map(|(n, how, marked)| {
            let mark = if *marked { format!("uid-0-{number}") } else { String::new() };
            consumer(&format!("web-{n}"), how, &mark, stale)
        });
        let scan = Scan { holders: self.holders.clone() };
        let confirmed = self.confirmed;
        PodsSeen {
            consumers: consumers.collect(),
            scan,
            confirmed: confirmed.then_some(now()),
            ..PodsSeen::default()
        }
    }
}

fn any_pods() -> impl Strategy<Value = AnyPods> {
    let how = prop::sample::select(vec!["", "Recreate", "paused", "failed"]);
    let workload = (0..3_usize, how, any::<bool>());
    let holders = prop_oneof![Just(vec![]), prop::collection::vec(any_holder(), 0..4)];
    let all = (holders, prop::collection::vec(workload, 0..3), any::<bool>());
    all.prop_map(|(holders, workloads, confirmed)| AnyPods { holders, workloads, confirmed })
}

fn any_ago() -> impl Strategy<Value = Timestamp> {
    (0..60_u32).prop_map(|hours| ago(HOUR * hours))
}

fn of_rotation() -> impl Strategy<Value = Twist> {
    let asked = (prop::option::of(prop::sample::select(vec!["first", "second"])), any::<[bool; 5]>());
    let probe =
        || prop_oneof![2 => Just(None), 2 => any_probe().prop_map(Some), 2 => Just(Some(alive("user-1")))];
    let probes = (probe(), probe());
    let time = || prop::option::of(any_ago());
    let uses = prop::option::of((time(), time(), time(), prop::option::of((any_ago(), 0..3_i64))));
    let pods = prop::option::weighted(0.8, any_pods());
    (asked, pods, probes, uses, time()).prop_map(
        |((asked, [every, back, listed, gap, anew]), pods, probes, uses, clean)| {
            twist(move |o| {
                let count = o.current().and_then(|slot| slot.published);
                // Pods can be seen so only once the switch has settled, unless the Secret was written again since.
                let settled = o.current().and_then(|slot| slot.since.checked_add(MINUTE).ok());
                let clean =
                    if anew { clean } else { clean.map(|clean| settled.map_or(clean, |at| clean.max(at))) };
                let o = o.key(|key| {
                    let failure = if back { OnRolloutFailure::SwitchBack } else { OnRolloutFailure::Hold };
                    key.spec.rotation = Some(RotationSpec {
                        every: every.then(|| "1h".to_owned()),
                        on_rollout_failure: Some(failure),
                        ..RotationSpec::default()
                    });
                    key.spec.rollout = Some(RolloutSpec { allow_gap: Some(gap), ..RolloutSpec::default() });
                    key.status.get_or_insert_default().switch = count.map(|count| Switch {
                        count,
                        attempt: String::new(),
                        at: now(),
                        clean_since: clean,
                        old_key_used_at: None,
                        marked: vec![],
                    });
                });
                let o = asked.iter().fold(o, |o, token| o.annotated(annotation::ROTATE, token));
                let uses = uses.map(|(listed_at, answered, previous, shown)| Uses {
                    may_list: listed_at.is_some() || previous.is_some(),
                    listed_at,
                    tells: previous.is_some(),
                    previous,
                    answered,
                    shown: shown.map(|(answered, minutes)| Shown {
                        answered,
                        lag: jiff::SignedDuration::from_mins(minutes),
                    }),
                });
                let (current_probe, previous_probe) = probes.clone();
                let pods = pods.as_ref().map(|pods| pods.seen(count.unwrap_or_default()));
                Observation { pods, current_probe, previous_probe, uses, listed, ..o }
            })
        },
    )
}

pub(super) fn any_observation() -> impl Strategy<Value = Observation> {
    let slots = prop::collection::vec(any_slot(), 0..6);
    let switch = prop::option::weighted(0.3, prop_oneof![1 => any_time(), 3 => any_ago()]);
    (slots, of_account(), of_attempt(), of_key(), of_world(), (of_rotation(), switch)).prop_map(
        |(slots, account, attempt, key, world, (rotation, switch))| {
            let slots = slots.into_iter().enumerate().map(|(n, slot)| match slot.attempt {
                Some(_) => named(&format!("attempt-{n}"), slot),
                None => slot,
            });
            // Two keys of one ApiKey are rare among slots of anybody in any state.
            let both = switch.map(|since| {
                let live = || mine(SlotState::Live);
                let new = Slot { published: Some(5), revision: 2, since, ..named("new", live()) };
                [Slot { published: Some(4), ..named("old", live()) }, new]
            });
            let both = both.into_iter().flatten();
            let slots = slots.filter(|slot| switch.is_none() || slot.owner.uid != "uid-0");
            let bare = both.chain(slots).fold(seen(), Observation::with_slot);
            [rotation, account, attempt, key, world].into_iter().fold(bare, |o, Twist(change)| change(o))
        },
    )
}
