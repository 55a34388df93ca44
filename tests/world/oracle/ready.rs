//! `Ready` of an ApiKey stays `True` while its key is replaced, whatever becomes of the next one: a GitOps tool that waits for it does not
//! wait for a week of overlap.

use std::time::Duration;

use bags_operator::api::mark;
use jiff::Timestamp;
use serde_json::Value;

use super::{Oracle, elapsed};
use crate::{
    apiserver::Change,
    cluster::value_in,
    end::condition,
    process::OPERATOR_NAMESPACE,
    scene::{ACCOUNT, CLUSTER, Scene, TENANT, field_of, secret_of},
};

/// What was done, or went wrong, is seen by all, and over, after so long.
const CALM: Duration = Duration::from_mins(5);

impl Oracle {
    /// An ApiKey's status tells that it is ready no more. Judged where nobody has done anything for a while, and nothing went wrong: who
    /// did not hear what became of a write, or was told something else a moment ago, can know no better.
    pub(super) fn stays_ready(&mut self, change: &Change, scene: &Scene, now: Timestamp) {
        let (ready, reason) = condition(&change.object, "Ready");
        let was_ready = change.before.as_deref().is_some_and(|before| condition(before, "Ready").0 == "True");
        let calm = self.disturbed_at.is_none_or(|at| elapsed(at, now) >= CALM) && !self.stood_still(now);
        if ready != "True" && was_ready && calm && self.works(&change.object, scene) {
            let name = &change.object["metadata"]["name"];
            self.blame(format!(
                "{name} is not ready any more ({reason}), and its key works and is in the Secret"
            ));
        }
    }

    /// Whether the Secret of an ApiKey that nobody stops holds a key of it that works, as the ledger says it should, and may be read.
    fn works(&self, key: &Value, scene: &Scene) -> bool {
        if !key["metadata"]["deletionTimestamp"].is_null() || key["spec"]["suspend"] == true {
            return false;
        }
        let account = scene.api.get("bagsaccounts", "", ACCOUNT);
        let ours = account.is_some_and(|account| {
            let installation = &account["status"]["installation"];
            installation["cluster"] == *CLUSTER && installation["namespace"] == *OPERATOR_NAMESPACE
        });
        let Some(secret) = scene.api.get("secrets", TENANT, secret_of(key)).filter(|_| ours) else {
            return false;
        };
        let value = value_in(&secret, field_of(key)).filter(|value| scene.sandbox.works(value));
        let Some(attempt) = value.as_deref().and_then(|value| self.attempt_of(value)) else { return false };
        let uid = key["metadata"]["uid"].as_str().unwrap_or_default();
        let live = self.ledger.by_attempt(attempt).filter(|slot| slot.owner.uid == uid);
        let published = live.and_then(|slot| slot.published).map(|number| number.to_string());
        let switch = secret["metadata"]["annotations"][mark::SWITCH].as_str();
        self.ledger.current(uid).is_some()
            && published.is_some_and(|number| switch == Some(number.as_str()))
            && !scene.api.withholds(TENANT)
    }
}
