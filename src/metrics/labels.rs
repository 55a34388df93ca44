//! Closed sets of labels.

use prometheus_client::encoding::EncodeLabelValue;

use crate::backoff::FailureClass;

/// A kind of object that is reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Kind {
    /// ApiKey.
    ApiKey,
    /// BagsAccount.
    BagsAccount,
}

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ReconcileOutcome {
    /// Nothing is left to do.
    Done,
    /// Something is awaited; nothing failed.
    Waiting,
    /// Failed; see the failures.
    Failed,
}

/// A step in a key's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum KeyStep {
    /// Made at Bags, value saved.
    Made,
    /// Accepted by Bags.
    Verified,
    /// Put into its Secret.
    Published,
    /// Revoked and proven dead.
    Revoked,
    /// Made, and the value lost.
    Lost,
    /// Not known whether it was made.
    Unresolved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Class {
    Transient,
    Terminal,
    RateLimited,
}

impl From<FailureClass> for Class {
    fn from(class: FailureClass) -> Self {
        match class {
            FailureClass::Transient => Self::Transient,
            FailureClass::Terminal => Self::Terminal,
            FailureClass::RateLimited(_) => Self::RateLimited,
        }
    }
}

/// What became of an admission review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewOutcome {
    /// Admitted.
    Admitted,
    /// Refused, for one of a closed set of reasons.
    Denied(&'static str),
    /// Not about a new ApiKey: admitted unseen.
    NotJudged,
    /// The request could not be read.
    Unreadable,
    /// Not looked at, as too many came at once.
    Overloaded,
}

impl ReviewOutcome {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Admitted => "Admitted",
            Self::Denied(reason) => reason,
            Self::NotJudged => "NotJudged",
            Self::Unreadable => "Unreadable",
            Self::Overloaded => "Overloaded",
        }
    }
}

/// What a rotation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum RotationOutcome {
    /// A second slot was taken.
    Begun,
    /// The old key was condemned.
    Finished,
    /// The Secret went back to the old key.
    SwitchedBack,
}

impl RotationOutcome {
    pub(super) const ALL: [Self; 3] = [Self::Begun, Self::Finished, Self::SwitchedBack];
}
