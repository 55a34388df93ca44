//! Keys: what the service knows of one, and what may be shown.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;

use super::times;

/// What a key's value begins with here, so that nobody takes it for a real one.
pub(super) const VALUE_PREFIX: &str = "bags_sandbox_";

/// One key. Has no `Debug`: it holds its value.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) user: usize,
    pub(super) value: String,
    pub(super) created: Timestamp,
    pub(super) revoked: Option<Timestamp>,
    pub(super) uses: Uses,
}

impl Key {
    /// Whether a list that shows the state of `then` has this key in it.
    pub(super) fn listed_at(&self, then: Timestamp) -> bool {
        self.created <= then && self.revoked.is_none_or(|revoked| revoked > then)
    }
}

/// When a key was used, kept so that it can be told with a lag.
#[derive(Default)]
pub(super) struct Uses {
    /// The last use that everyone may see.
    visible: Option<Timestamp>,
    /// Later uses, at most one for each second.
    hidden: VecDeque<Timestamp>,
}

impl Uses {
    /// The last use of all.
    pub(super) fn latest(&self) -> Option<Timestamp> {
        self.hidden.back().copied().or(self.visible)
    }

    /// Notes a use; lists show the uses up to `visible_until`.
    pub(super) fn note(&mut self, now: Timestamp, visible_until: Timestamp) {
        match self.hidden.back_mut() {
            Some(last) if last.as_second() == now.as_second() => *last = now,
            _ => self.hidden.push_back(now),
        }
        self.seen_at(visible_until);
    }

    /// The last use up to `then`. What was visible once stays visible, also when the lag grows.
    pub(super) fn seen_at(&mut self, then: Timestamp) -> Option<Timestamp> {
        while self.hidden.front().is_some_and(|use_time| *use_time <= then) {
            self.visible = self.hidden.pop_front();
        }
        self.visible
    }
}

/// Whether a key is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// It is.
    Active,
    /// Never again.
    Revoked,
}

/// A key as anyone may see it: without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyView {
    /// The service's id of the key.
    pub id: String,
    /// The name that its maker gave it; not unique.
    pub name: String,
    /// The id of the user who owns it.
    pub user: String,
    /// Whether it is let in.
    pub state: KeyState,
    /// When it was made.
    #[serde(serialize_with = "times::serialize")]
    pub created_at: Timestamp,
    /// When it was revoked.
    #[serde(serialize_with = "times::serialize_option")]
    pub revoked_at: Option<Timestamp>,
    /// Its last use, without any lag.
    #[serde(serialize_with = "times::serialize_option")]
    pub last_used_at: Option<Timestamp>,
}

/// A key at the one moment when its value is shown. Has no `Debug`.
pub struct MadeKey {
    /// The service's id of the key.
    pub id: String,
    /// The value.
    pub value: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_use_is_seen_when_its_lag_has_passed() {
        let mut uses = Uses::default();
        uses.note(at(10), at(0));
        uses.note(at(20), at(10));
        assert_eq!(uses.latest(), Some(at(20)));
        assert_eq!(uses.seen_at(at(19)), Some(at(10)));
        assert_eq!(uses.seen_at(at(20)), Some(at(20)));
        assert_eq!(uses.seen_at(at(5)), Some(at(20)), "a longer lag takes nothing back");
    }

    #[test]
    fn uses_within_one_second_are_kept_once() {
        let mut uses = Uses::default();
        (0..1000).for_each(|n| uses.note(Timestamp::new(1_800_000_000, n).unwrap(), at(-60)));
        assert_eq!(uses.hidden.len(), 1);
        assert_eq!(uses.latest(), Some(Timestamp::new(1_800_000_000, 999).unwrap()));
    }
}
