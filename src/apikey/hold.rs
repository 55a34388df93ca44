//! Why an ApiKey is where it is, in words: the reason and message of its conditions. Pure.

use std::time::Duration;

use crate::{consumer_secret::Foreign, events::EventReason};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident, $event:expr;)+) => {
        /// Reasons in an ApiKey's conditions: a closed set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The word in the condition.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// What it means for a person who waits.
            #[must_use]
            pub const fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)+ }
            }

            /// The event that a person should see when it begins.
            #[must_use]
            pub const fn event(self) -> Option<EventReason> {
                match self { $(Self::$name => $event,)+ }
            }
        }
    };
}

/// What a reason means for a person who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All is as it should be.
    Settled,
    /// It goes on by itself.
    Progressing,
    /// Something has to change first; it goes on by itself then.
    Stalled,
}

reasons! {
    /// The key works and is in the Secret.
    Issued: Settled, None;
    /// The key is being replaced; the current one works and is in the Secret.
    Rotating: Settled, Some(EventReason::RotationStarted);
    /// A rotation does not go on by itself; both keys stay valid.
    RotationHeld: Settled, Some(EventReason::RotationHeld);
    /// A rotation is due and cannot begin.
    RotationBlocked: Settled, Some(EventReason::RotationBlocked);
    /// Nothing is done while `spec.suspend` is true.
    Suspended: Stalled, None;
    /// The BagsAccount does not exist.
    AccountNotFound: Stalled, Some(EventReason::AccountNotFound);
    /// The BagsAccount is being deleted.
    AccountDeleting: Stalled, Some(EventReason::AccountNotReady);
    /// The ledger belongs to another installation of the operator.
    ForeignInstallation: Stalled, Some(EventReason::ForeignInstallation);
    /// The ledger has a slot in a state that this version does not know.
    NewerLedger: Stalled, Some(EventReason::AccountNotReady);
    /// The ledger breaks an invariant, or the next write would: nothing is written.
    LedgerInDisorder: Stalled, Some(EventReason::AccountNotReady);
    /// The account does not allow the namespace.
    NamespaceNotAllowed: Stalled, Some(EventReason::NotAllowed);
    /// The account does not allow the environment in this namespace.
    EnvironmentNotAllowed: Stalled, Some(EventReason::NotAllowed);
    /// The namespace has as many keys of the account as it may have.
    NamespaceQuotaExceeded: Stalled, Some(EventReason::QuotaExceeded);
    /// Another ApiKey of the account has the same application and environment.
    DuplicateUse: Stalled, Some(EventReason::DuplicateUse);
    /// The account has no slot left.
    QuotaExceeded: Stalled, Some(EventReason::QuotaExceeded);
    /// Bags says that the limit is reached although the ledger has room.
    LimitReached: Stalled, Some(EventReason::LimitReached);
    /// The Secret's name is taken.
    SecretConflict: Stalled, Some(EventReason::SecretConflict);
    /// The API server would not take the Secret, or the one in which the operator is to save the key's value.
    SecretRefused: Stalled, Some(EventReason::SecretRefused);
    /// The keystore has no value for the current key.
    ValueMissing: Stalled, Some(EventReason::ReconcileFailed);
    /// A Secret with the account's credentials is missing, or a field of it.
    CredentialsMissing: Stalled, Some(EventReason::CredentialsUnusable);
    /// The account's credentials cannot be read as what they should be.
    CredentialsUnreadable: Stalled, Some(EventReason::CredentialsUnusable);
    /// Bags refused the account's credentials.
    CredentialsRefused: Stalled, Some(EventReason::CredentialsRefused);
    /// The credentials lead to another user of Bags.
    WrongUser: Stalled, Some(EventReason::WrongUser);
    /// Bags refused the creation.
    BagsRefused: Stalled, Some(EventReason::BagsRefused);
    /// Bags counts too many requests.
    RateLimited: Progressing, Some(EventReason::RateLimited);
    /// Bags cannot be reached or fails.
    BagsUnavailable: Progressing, Some(EventReason::BagsUnavailable);
    /// The API server cannot be reached or fails.
    ApiServerUnavailable: Progressing, None;
    /// The operator may not change the ApiKey's finalizers. Pods, or their owners, that it may not read stand in the way of a
    /// rotation only, and show as `RotationBlocked` or `RotationHeld`; in the way of a deletion as `DeletionWaits`.
    NotPermitted: Stalled, Some(EventReason::ReconcileFailed);
    /// Another creation of the account is under way, or the account is not looked at yet.
    WaitingForAccount: Progressing, None;
    /// The key is being made.
    Creating: Progressing, None;
    /// The new key does not work yet.
    KeyNotAccepted: Progressing, Some(EventReason::KeyNotAccepted);
    /// The value of the new key was not kept; the key is revoked, and another one made.
    ValueLost: Stalled, Some(EventReason::ReconcileFailed);
    /// The new key may not use the service.
    KeyForbidden: Stalled, Some(EventReason::BagsRefused);
    /// The creation was sent and its outcome is not known yet.
    OutcomeUnknown: Progressing, Some(EventReason::BagsUnavailable);
    /// Whether a key exists is not known; a person has to look.
    Unresolved: Stalled, Some(EventReason::KeyUnresolved);
    /// An earlier key has to die first.
    Revoking: Progressing, None;
    /// The deletion waits for the workloads, or for a person's word.
    DeletionWaits: Stalled, Some(EventReason::DeletionWaits);
    /// The ApiKey is being deleted.
    Deleting: Progressing, None;
}

impl Reason {
    /// The reason to show where this one concerns only the next key, while the current key works.
    #[must_use]
    pub const fn of_next_key(self) -> Self {
        match self.kind() {
            Kind::Settled => self,
            Kind::Progressing => Self::Rotating,
            Kind::Stalled => Self::RotationBlocked,
        }
    }

    /// The reason to show in the middle of a switch, while both keys are valid: `RotationHeld` if the wait lasts too long or
    /// does not end by itself, else `Rotating`.
    #[must_use]
    pub const fn of_switch(self, overdue: bool) -> Self {
        match (self.kind(), overdue) {
            (Kind::Settled, _) => self,
            (Kind::Progressing, false) => Self::Rotating,
            (Kind::Progressing, true) | (Kind::Stalled, _) => Self::RotationHeld,
        }
    }

    /// Why the Secret cannot hold the key.
    #[must_use]
    pub const fn of_secret(foreign: Foreign) -> Self {
        match foreign {
            Foreign::Unmarked | Foreign::Immutable | Foreign::Type | Foreign::LaterSwitch => {
                Self::SecretConflict
            }
            Foreign::Forbidden => Self::SecretRefused,
        }
    }

    /// Whether the reason speaks of a rotation.
    #[must_use]
    pub const fn is_of_rotation(self) -> bool {
        matches!(self, Self::Rotating | Self::RotationHeld | Self::RotationBlocked)
    }
}

/// Why nothing more is done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// As one word.
    pub reason: Reason,
    /// For people: names the object and the field, and says the way out.
    pub message: String,
    /// When to look again at the latest; `None`: at the resync, or when something changes.
    pub wait: Option<Duration>,
    /// The status is not written: the wait is over in a moment, or another installation writes the status.
    pub quiet: bool,
    /// It waits for a second slot of the account, and for nothing else.
    pub starving: bool,
}

impl Hold {
    /// Waits for a change.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), wait: None, quiet: false, starving: false }
    }

    /// Looks again after `wait`.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self { wait: Some(wait), ..self }
    }
}
