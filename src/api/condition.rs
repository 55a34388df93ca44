//! Conditions: built in one place, so that generation and transition time are always right.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Types of conditions.
pub mod kind {
    /// The spec is served: the key works and is in the Secret; or the account can be used.
    pub const READY: &str = "Ready";
    /// Something is under way (kstatus).
    pub const RECONCILING: &str = "Reconciling";
    /// Something stands in the way that does not go by itself (kstatus).
    pub const STALLED: &str = "Stalled";
    /// The account has a slot for this ApiKey.
    pub const QUOTA_AVAILABLE: &str = "QuotaAvailable";
    /// The account has more keys than its limit. Absent where it has not.
    pub const OVER_QUOTA: &str = "OverQuota";
    /// The consumer Secret holds the current key.
    pub const SECRET_SYNCED: &str = "SecretSynced";
    /// A key is being replaced. Absent where none is.
    pub const ROTATING: &str = "Rotating";
    /// No earlier key of the ApiKey works any more. Absent before the first rotation.
    pub const OLD_KEY_REVOKED: &str = "OldKeyRevoked";
    /// A rotation would stop a workload for a while. Absent where none waits for that.
    pub const ZERO_DOWNTIME: &str = "ZeroDowntime";
    /// The account's credentials were read and accepted.
    pub const CREDENTIALS_VALID: &str = "CredentialsValid";
    /// The account's list shows a key that is known to live.
    pub const LIST_COVERS: &str = "ListCovers";
    /// Keys wait for a person to revoke them.
    pub const REVOCATION_NEEDS_PERSON: &str = "RevocationNeedsPerson";
    /// Rotations have found no second slot for long. Absent where none waits.
    pub const ROTATIONS_STARVED: &str = "RotationsStarved";
    /// Whether some keys exist is not known: a person has to look. Absent where it is.
    pub const KEY_UNRESOLVED: &str = "KeyUnresolved";
    /// Published keys whose ApiKey vanished: a person says when they may go. Absent where there are none.
    pub const ORPHANED_KEYS: &str = "OrphanedKeys";
    /// New ApiKeys are put before the admission webhook. Absent where there is none.
    pub const ADMISSION_ENFORCED: &str = "AdmissionEnforced";
    /// Keys that carry this cluster's mark are in no slot. Absent where there are none.
    pub const STRAY_KEYS: &str = "StrayKeys";
    /// Keystore Secrets hold values of keys that are in no slot. Absent where there are none.
    pub const STRAY_VALUES: &str = "StrayValues";
}

/// Puts a condition in its place; the transition time moves only with the status.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: bool,
    reason: &str,
    message: String,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = if status { "True" } else { "False" };
    let since = conditions
        .iter()
        .find(|c| c.type_ == type_ && c.status == status)
        .map_or(Time(now), |c| c.last_transition_time.clone());
    let condition = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: since,
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(place) => *place = condition,
        None => conditions.push(condition),
    }
}

/// Takes a condition away that no longer says anything.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|c| c.type_ != type_);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        set(&mut conditions, kind::READY, false, "Waiting", "for a slot".into(), Some(1), at(10));
        set(&mut conditions, kind::READY, false, "Waiting", "for the Secret".into(), Some(2), at(20));
        assert_eq!(conditions.len(), 1);
        assert_eq!(
            (conditions[0].last_transition_time.0, conditions[0].observed_generation),
            (at(10), Some(2))
        );
        assert_eq!(conditions[0].message, "for the Secret");
        set(&mut conditions, kind::READY, true, "Issued", String::new(), Some(2), at(30));
        assert_eq!((conditions[0].last_transition_time.0, &*conditions[0].status), (at(30), "True"));
    }

    #[test]
    fn a_condition_goes_without_taking_others_along() {
        let mut conditions = Vec::new();
        for type_ in [kind::READY, kind::STALLED] {
            set(&mut conditions, type_, true, "Because", String::new(), None, at(1));
        }
        remove(&mut conditions, kind::STALLED);
        assert_eq!(conditions.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(), [kind::READY]);
    }
}
