//! What stood in the way, with the words for it.

use tracing::{error, warn};

use crate::{
    account::credentials::CredentialProblem,
    apikey::{hold::Reason, observe::Observation},
    backoff::FailureClass,
    bags,
    env::CallError,
    ledger::StoreError,
    time::nearest_second,
};

/// What went wrong, in the words of the condition.
#[derive(Clone, Debug)]
pub struct Problem {
    /// As one word.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// When to try again.
    pub class: FailureClass,
}

impl Problem {
    /// A problem that may go by itself.
    #[must_use]
    pub fn transient(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), class: FailureClass::Transient }
    }

    /// A problem that somebody has to take away.
    #[must_use]
    pub fn terminal(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), class: FailureClass::Terminal }
    }

    /// The problem as it is shown where it concerns only the next key, while the current key works.
    #[must_use]
    pub fn of_next_key(self, o: &Observation) -> Self {
        let reason = match o.superseded().is_empty() {
            true => self.reason.of_next_key(),
            // The Secret holds the next key already: a switch is in progress.
            false => self.reason.of_switch(o.is_overdue() || was_held(o)),
        };
        Self { reason, ..self }
    }

    /// What Bags answered, or did not, to a question about an account.
    #[must_use]
    pub fn of_bags(account: &str, error: &bags::Error) -> Self {
        let said = format!("Bags, asked about BagsAccount \"{account}\": {error}");
        match error.class() {
            bags::Class::RateLimited { until } => Self {
                reason: Reason::RateLimited,
                message: format!("{said}; it is asked again after {}", nearest_second(until)),
                class: FailureClass::RateLimited(until),
            },
            // A change of the credentials wakes whoever waits for it; asking again with the same ones only
            // spends the account's requests.
            bags::Class::Refused if error.reason() == bags::Reason::InvalidToken => Self::terminal(
                Reason::CredentialsRefused,
                format!("{said}; the platform team has to put a valid token into the account's Secret"),
            ),
            bags::Class::Refused => Self::transient(Reason::BagsRefused, said),
            bags::Class::NotDone | bags::Class::Unknown => Self::transient(
                Reason::BagsUnavailable,
                format!("{said}; it is asked again until it answers"),
            ),
        }
    }
}

/// Whether people were last told that the switch does not go on. A look that fails does not show that it does.
fn was_held(o: &Observation) -> bool {
    let hold = o.key.status.as_ref().and_then(|status| status.hold.as_ref());
    hold.is_some_and(|hold| hold.reason == Reason::RotationHeld.as_str())
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        Self::transient(
            Reason::ApiServerUnavailable,
            format!("the API server did not do what was asked: {error}"),
        )
    }
}

/// The API server's words about the ledger (a policy's, or the schema's), and the slots that break an invariant, may name other
/// tenants' objects, so they go to the log only.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoAccount(name) => {
                Self::transient(Reason::AccountNotFound, format!("there is no BagsAccount \"{name}\""))
            }
            StoreError::Violation(_) => {
                error!(%error, "The ledger was not written");
                let message = "the account's ledger is not in order, and is not written; ask the platform team to look at the \
                               operator's log";
                Self::terminal(Reason::LedgerInDisorder, message)
            }
            StoreError::Kube(_) => {
                warn!(%error, "The ledger was not read or written");
                Self::transient(Reason::ApiServerUnavailable, without_words(error))
            }
            StoreError::Refused(_) | StoreError::Contended | StoreError::Timeout => {
                Self::transient(Reason::ApiServerUnavailable, error.to_string())
            }
        }
    }
}

/// Says that the ledger could not be read or written, with the code and reason of the error only.
fn without_words(error: StoreError) -> String {
    let way_out = match error.is_rejection() {
        true => "ask the platform team to look at the operator's log, which has the API server's words",
        false => "it is tried again",
    };
    let why = match error {
        StoreError::Kube(error) => CallError::Kube(error).kind(),
        error => error.to_string(),
    };
    format!("the account's ledger could not be read or written: {why}; {way_out}")
}

impl From<CredentialProblem> for Problem {
    fn from(problem: CredentialProblem) -> Self {
        let reason = match problem {
            CredentialProblem::SecretMissing { .. } | CredentialProblem::FieldMissing { .. } => {
                Reason::CredentialsMissing
            }
            CredentialProblem::Unreadable { .. } => Reason::CredentialsUnreadable,
        };
        Self::terminal(reason, format!("for the platform team: {problem}"))
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;
    use crate::{
        api::apikey::{ApiKeyStatus, HoldStatus},
        apikey::fixtures::{MINUTE, now, switched},
    };

    #[test]
    fn a_switch_that_is_held_stays_so_while_bags_does_not_answer() {
        let of_switch = |told: Option<Reason>| {
            let hold = told.map(|reason| HoldStatus {
                reason: reason.as_str().to_owned(),
                waits_for_slot: false,
                since: now(),
            });
            let status = ApiKeyStatus { hold, ..ApiKeyStatus::default() };
            let o = switched(MINUTE, &[]).key(|key| key.status = Some(status));
            Problem::transient(Reason::BagsUnavailable, "down").of_next_key(&o).reason
        };
        assert_eq!(of_switch(None), Reason::Rotating);
        assert_eq!(of_switch(Some(Reason::RotationBlocked)), Reason::Rotating, "it has begun since");
        assert_eq!(of_switch(Some(Reason::RotationHeld)), Reason::RotationHeld);
    }

    #[test]
    fn what_a_policy_says_of_the_ledger_is_not_the_tenants_to_read() {
        let refused = |code, reason: &str| {
            let said = "status.slots[3]: Invalid value: shop-of-others/billing";
            let refused = Status::failure(said, reason).with_code(code).boxed();
            StoreError::Kube(Box::new(kube::Error::Api(refused)))
        };
        let broken = StoreError::Violation("I2: two slots of shop-of-others/billing".to_owned());
        for (error, expected, words) in [
            (refused(422, "Invalid"), Reason::ApiServerUnavailable, ["422 Invalid", "platform team"]),
            (refused(403, "Forbidden"), Reason::ApiServerUnavailable, ["403 Forbidden", "platform team"]),
            (
                refused(500, "InternalError"),
                Reason::ApiServerUnavailable,
                ["500 InternalError", "tried again"],
            ),
            (broken, Reason::LedgerInDisorder, ["not in order", "platform team"]),
        ] {
            let Problem { reason, message, class: _ } = error.into();
            assert_eq!(reason, expected, "{message}");
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
            assert!(!message.contains("billing"), "{message}");
        }
    }
}
