//! What happens outside of the cluster: at Bags, on the way there, and to whoever copied a key.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use super::{Scene, secret_of};

impl Scene {
    /// Somebody makes a key on Bags' page.
    pub(crate) fn make_key_elsewhere(&self) {
        let count = self.sandbox.keys().len();
        self.make_key_called(&format!("Made-By-Hand-{count}"));
    }

    fn make_key_called(&self, name: &str) {
        if let Ok(made) = self.sandbox.make_key(&self.user, name) {
            self.by_hand.lock().unwrap_or_else(PoisonError::into_inner).push(made.id);
        }
    }

    /// Whether people made a key on the page.
    pub(crate) fn is_by_hand(&self, id: &str) -> bool {
        self.by_hand.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|known| known == id)
    }

    /// Somebody revokes the oldest key that was made on the page.
    pub(crate) fn revoke_key_elsewhere(&self) {
        let by_hand = self
            .sandbox
            .keys()
            .into_iter()
            .find(|key| key.name.starts_with("Made-By-Hand") && key.revoked_at.is_none());
        if let Some(key) = by_hand {
            let _ = self.sandbox.revoke_key(&key.id);
        }
    }

    /// Whether there are lists of the account's keys.
    pub(crate) fn lists_keys(&self) -> bool {
        let user = self.sandbox.users().into_iter().find(|user| user.id == self.user);
        self.lists && user.is_some_and(|user| user.options.capabilities.list)
    }

    /// Whether lists show when a key was used last.
    pub(crate) fn shows_last_use(&self) -> bool {
        let user = self.sandbox.users().into_iter().find(|user| user.id == self.user);
        self.lists_keys() && user.is_some_and(|user| user.options.capabilities.last_use)
    }

    /// From now on no list shows any use that it has not shown before.
    pub(crate) fn freeze_last_use(&self) {
        let _ = self.sandbox.change_user(&self.user, |user| user.last_use_lag = Duration::from_hours(1000));
    }

    /// Bags suspends the account's user, or lets the user go on.
    pub(crate) fn suspend_user(&self, suspended: bool) {
        let _ = self.sandbox.change_user(&self.user, |user| user.suspended = suspended);
    }

    /// Whether no key of the account's user is let in for now.
    pub(crate) fn user_is_suspended(&self) -> bool {
        self.sandbox.users().into_iter().any(|user| user.id == self.user && user.options.suspended)
    }

    /// Nothing that the operator asks Bags for arrives there from now on, or it does again. Applications are elsewhere, and
    /// reach it.
    pub(crate) fn take_bags_away(&self, away: bool) {
        self.bags_is_away.store(away, Ordering::Relaxed);
    }

    /// Bags answers whoever asks about a key as if there were none, or does so no more. Applications are let in.
    pub(crate) fn refuse_keys(&self, refused: bool) {
        self.keys_are_refused.store(refused, Ordering::Relaxed);
    }

    /// Whether Bags does so.
    pub(crate) fn keys_are_refused(&self) -> bool {
        self.keys_are_refused.load(Ordering::Relaxed)
    }

    /// Whether Bags is away.
    pub(crate) fn bags_is_away(&self) -> bool {
        self.bags_is_away.load(Ordering::Relaxed)
    }

    /// A person gives whoever is outside of the cluster the value that their ApiKey's Secret holds, once it is there for
    /// so long that nobody takes it for the old one. Whether there was somebody to tell.
    pub(crate) fn tell_who_is_outside(&self) -> bool {
        let keys = self.api.list("apikeys");
        let settled = keys
            .iter()
            .filter(|key| key["metadata"]["name"].as_str().is_some_and(|name| self.has_settled(name)));
        let late: Vec<String> =
            settled.flat_map(|key| self.cluster.who_outside_holds_another(secret_of(key))).collect();
        late.iter().for_each(|name| self.cluster.kill_containers(name));
        !late.is_empty()
    }
}
