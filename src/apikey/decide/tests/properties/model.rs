//! A model of what follows from decisions: a ledger, Bags, the account's own work, a clock that jumps to deadlines.

use jiff::Timestamp;

use super::*;
use crate::{
    apikey::fixtures::{SECOND, value},
    keystore::Entry,
    ledger::{
        Room,
        invariants::{Waiver, violations},
    },
};

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug)]
enum Luck {
    /// The key is saved after so many looks, and accepted after so many seconds.
    Good { looks: usize, seconds: u64 },
    /// Bags refuses to make it.
    Refused(&'static str),
    /// No usable answer comes.
    Unknown,
    /// It is made, and its value cannot be saved.
    Unsaved,
    /// It is made and never accepted.
    Dead,
}

struct World {
    ledger: Ledger,
    room: Room,
    now: Timestamp,
    /// Luck of the next attempts, the last one first; then luck is good.
    script: Vec<Luck>,
    luck: Luck,
    /// Looks until the attempt's save ends.
    looks: usize,
    attempts: usize,
    probe: Option<Probe>,
    refused_since: Option<Timestamp>,
    probed: Option<Timestamp>,
    secret: Found,
}

impl World {
    fn new(others: usize, script: Vec<Luck>) -> Self {
        let slots = (1..=others).map(|n| theirs(n, SlotState::Live)).collect();
        Self {
            ledger: Ledger { slots, departed: vec![] },
            room: Room { limit: 10, rotation_reserve: 1, unmanaged: 0 },
            now: seen().now,
            script,
            luck: Luck::Good { looks: 0, seconds: 0 },
            looks: 0,
            attempts: 0,
            probe: None,
            refused_since: None,
            probed: None,
            secret: Found::Missing,
        }
    }

    fn observe(&self) -> Observation {
        let mut o = seen().view(|view| (view.ledger, view.room) = (Ledger::default(), self.room));
        for slot in &self.ledger.slots {
            o = o.with_slot(slot.clone());
        }
        o.now = self.now;
        o.consumer = o.current().map(|_| self.secret.clone());
        let luck = self.luck;
        let arrived = matches!(luck, Luck::Good { .. } | Luck::Dead) && self.looks == 0;
        if let Some(view) = &mut o.creating {
            view.running = self.looks > 0;
            view.saved = arrived.then(|| Entry::of_tests(Some(&value()), Some("key-id-1")));
            view.probe = self.probe.clone();
            view.refused_for = self.refused_since.map(|at| since(self.now, at));
            view.probed_ago = self.probed.map(|at| since(self.now, at));
        }
        o
    }

    fn change(&mut self, change: &Change) -> Result<(), TestCaseError> {
        let terms = Terms { room: self.room, now: self.now, licence_term: Duration::from_secs(120) };
        let next = self.ledger.apply(change, &terms);
        let next =
            next.map_err(|refusal| TestCaseError::fail(format!("{change:?} is refused: {refusal}")))?;
        let broken = violations(&self.ledger, &next, &terms, Waiver::None);
        prop_assert!(broken.is_empty(), "{change:?}: {broken:?}");
        self.ledger = next;
        Ok(())
    }

    fn make(&mut self, o: &Observation) -> Result<(), TestCaseError> {
        let attempt = format!("attempt-{}", self.attempts);
        self.attempts += 1;
        (self.probe, self.refused_since, self.probed) = (None, None, None);
        let key_name = format!("Production-App-0-{attempt}");
        let licence = Change::License {
            owner_uid: o.owner.uid.clone(),
            attempt: attempt.clone(),
            key_name,
            trigger: o.key.rotate_token(),
        };
        self.change(&licence)?;
        self.luck = self.script.pop().unwrap_or(Luck::Good { looks: 0, seconds: 0 });
        self.looks = 0;
        match self.luck {
            Luck::Good { looks, .. } => self.looks = looks,
            Luck::Refused(reason) => self.change(&Change::NotMade { attempt, reason })?,
            Luck::Unsaved => self.change(&Change::Lose { attempt, key_id: Some("key-id-1".into()) })?,
            Luck::Unknown | Luck::Dead => {}
        }
        Ok(())
    }

    fn ask(&mut self, o: &Observation) {
        let licensed = o.creating.as_ref().map_or(self.now, |view| view.slot.since);
        let accepted = match self.luck {
            Luck::Good { seconds, .. } => since(self.now, licensed) >= Duration::from_secs(seconds),
            _ => false,
        };
        self.probed = Some(self.now);
        if accepted {
            (self.probe, self.refused_since) = (Some(alive("user-1")), None);
        } else {
            (self.probe, self.refused_since) = (Some(Probe::Dead), self.refused_since.or(Some(self.now)));
        }
    }

    /// Time passes: a save goes on, the account settles what is its own, half an hour later a person what is left.
    fn pass(&mut self, hold: &Hold) -> Result<(), TestCaseError> {
        self.probe = None;
        if self.looks > 0 {
            // The end of a save wakes the ApiKey.
            self.looks -= 1;
            self.now = self.now.checked_add(SECOND).expect("a time");
            return Ok(());
        }
        let wait = hold.wait.unwrap_or(Duration::from_mins(10));
        self.now = self.now.checked_add(wait).expect("a time");
        for slot in self.ledger.clone().owned_by("uid-0") {
            let attempt = slot.attempt.clone().unwrap_or_default();
            let age = since(self.now, slot.since);
            match slot.state {
                SlotState::Creating
                    if matches!(self.luck, Luck::Unknown) && age >= Duration::from_mins(4) =>
                {
                    self.change(&Change::Doubt { attempt, reason: "OutcomeUnknown" })?;
                }
                SlotState::Lost => {
                    self.change(&Change::Condemn { attempt, emergency: false, looked_at: None })?;
                }
                SlotState::Revoking => self.change(&Change::Bury { attempt, owner_lives: true })?,
                SlotState::Unresolved if age >= Duration::from_mins(30) => {
                    self.change(&Change::Dismiss { attempt })?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Rounds until the key is in the Secret; `None` where more than `most` are needed.
    fn rounds(&mut self, most: usize) -> Result<Option<usize>, TestCaseError> {
        for round in 1..=most {
            let o = self.observe();
            match decide(&o) {
                Decision::Change(changes) => changes.iter().try_for_each(|change| self.change(change))?,
                Decision::Make => self.make(&o)?,
                Decision::Probe { .. } => self.ask(&o),
                Decision::Publish { attempt, key_id, .. } => {
                    if let Some(key_id) = key_id {
                        self.change(&Change::Identify { attempt: attempt.clone(), key_id })?;
                    }
                    self.change(&Change::Publish { attempt })?;
                }
                Decision::Project => self.secret = o.synced().consumer.expect("a Secret"),
                Decision::Wait(Hold { reason: Reason::Issued, .. }) => return Ok(Some(round)),
                Decision::Wait(hold) => self.pass(&hold)?,
                other @ (Decision::Distrust { .. }
                | Decision::EnsureFinalizer
                | Decision::Finish { .. }
                | Decision::LookAtPods { .. }
                | Decision::LookAtLists
                | Decision::Restart(_)) => {
                    prop_assert!(false, "not in this world: {other:?}");
                }
            }
        }
        Ok(None)
    }
}

fn bad_luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        prop::sample::select(vec!["Connect", "InvalidToken", "ServerError"]).prop_map(Luck::Refused),
        Just(Luck::Unknown),
        Just(Luck::Unsaved),
        Just(Luck::Dead),
        (0..3_usize, 0..50_u64).prop_map(|(looks, seconds)| Luck::Good { looks, seconds }),
    ]
}

proptest! {
    #[test]
    fn where_bags_behaves_a_key_is_in_its_secret_within_twelve_rounds(
        (others, looks, seconds) in (0..9_usize, 0..4_usize, 0..2_u64),
    ) {
        let mut world = World::new(others, vec![Luck::Good { looks, seconds }]);
        let rounds = world.rounds(12)?;
        prop_assert!(rounds.is_some(), "not ready: {:#?}", world.ledger);
        prop_assert_eq!(world.attempts, 1);
    }

    #[test]
    fn whatever_went_wrong_before_a_key_comes_when_it_goes_right(
        (others, script) in (0..9_usize, prop::collection::vec(bad_luck(), 0..6)),
    ) {
        let most = script.len() + 1;
        let mut world = World::new(others, script);
        let rounds = world.rounds(60 * most)?;
        prop_assert!(rounds.is_some(), "not ready: {:#?}", world.ledger);
        prop_assert!(world.attempts <= most, "{} keys were tried", world.attempts);
        let live = world.ledger.owned_by("uid-0").filter(|slot| slot.state == SlotState::Live).count();
        prop_assert_eq!(live, 1);
    }
}

#[test]
fn a_refused_further_attempt_is_not_repeated_without_a_pause() {
    let refusals = [Luck::Refused("InvalidToken"); 3];
    let mut world = World::new(0, refusals.into_iter().chain([Luck::Unknown]).collect());
    let begun = world.now;
    assert!(world.rounds(200).unwrap().is_some());
    // 4m until it is doubted; the first refusal counts as the second failure in a row: 2m, 4m, 8m.
    assert!(since(world.now, begun) >= MINUTE * 18, "{} after {begun}", world.now);
}

#[test]
fn keys_that_are_never_accepted_do_not_fill_the_account() {
    let mut world = World::new(0, vec![Luck::Dead; 9]);
    let mut most = 0;
    for _ in 0..400 {
        let o = world.observe();
        most = most.max(world.ledger.slots.len());
        match decide(&o) {
            Decision::Change(changes) => changes.iter().for_each(|change| world.change(change).unwrap()),
            Decision::Make => world.make(&o).unwrap(),
            Decision::Probe { .. } => world.ask(&o),
            // Nobody revokes: only time passes.
            Decision::Wait(hold) => {
                world.probe = None;
                world.now = world.now.checked_add(hold.wait.unwrap_or(MINUTE)).unwrap();
            }
            other => panic!("not in this world: {other:?}"),
        }
    }
    assert_eq!((most, world.attempts), (2, 2));
}
