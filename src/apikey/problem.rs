//! What stood in the way, with the words for it.

use crate::{
    account::credentials::CredentialProblem,
    apikey::{hold::Reason, observe::Observation},
    backoff::FailureClass,
    bags,
    env::CallError,
    ledger::StoreError,
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

    /// What it means where it concerns only the key that is to replace a current one.
    #[must_use]
    pub fn of_next_key(self, o: &Observation) -> Self {
        let reason = match o.superseded().is_empty() {
            true => self.reason.of_next_key(),
            // The Secret holds it already.
            false => self.reason.of_switch(o.is_overdue()),
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
                message: format!("{said}; it is asked again after {until}"),
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

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        Self::transient(
            Reason::ApiServerUnavailable,
            format!("the API server did not do what was asked: {error}"),
        )
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoAccount(name) => {
                Self::transient(Reason::AccountNotFound, format!("there is no BagsAccount \"{name}\""))
            }
            StoreError::Violation(_) => Self::terminal(Reason::NewerLedger, error.to_string()),
            StoreError::Refused(_) | StoreError::Contended | StoreError::Timeout | StoreError::Kube(_) => {
                Self::transient(Reason::ApiServerUnavailable, error.to_string())
            }
        }
    }
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

    #[test]
    fn a_ledger_that_may_not_be_written_says_why() {
        let said =
            "bagsaccounts.keys.bags.fm \"main\" is forbidden: User \"operator\" cannot update resource";
        let forbidden = Status::failure(said, "Forbidden").with_code(403).boxed();
        let error = StoreError::Kube(Box::new(kube::Error::Api(forbidden)));
        let Problem { reason, message, class: _ } = error.into();
        assert_eq!(reason, Reason::ApiServerUnavailable);
        assert!(message.contains(said), "{message}");
    }
}
