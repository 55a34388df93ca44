//! An account's credentials, read from Secrets of the operator's namespace. Pure but for that cache.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use crate::{
    api::BagsAccount,
    bags::{AgentToken, TotpSecret, Wallet},
    keystore::Keystore,
};

/// What an account proves itself with.
pub struct CredentialSet {
    /// The wallet and its second factor.
    pub wallet: Option<(Wallet, Option<TotpSecret>)>,
    /// The agent token.
    pub token: Option<AgentToken>,
    /// `<Secret>@<resourceVersion>` of each Secret used: changes when a person changes the credentials.
    pub version: String,
    /// The same of the token's Secret alone.
    pub token_version: Option<String>,
}

/// Why credentials cannot be read; the text names object and field and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialProblem {
    /// There is no such Secret.
    #[error(
        "Secret \"{secret}\" is not in the operator's namespace \"{namespace}\"; create it there with the field \
         \"{field}\", or correct spec.credentials"
    )]
    SecretMissing {
        #[doc = "its name"]
        secret: String,
        #[doc = "where it should be"]
        namespace: String,
        #[doc = "what it should hold"]
        field: String,
    },
    /// The Secret has no such field.
    #[error(
        "Secret \"{secret}\" in namespace \"{namespace}\" has no field \"{field}\" (it has: {present}); add the field, or \
         name another one in spec.credentials"
    )]
    FieldMissing {
        #[doc = "its name"]
        secret: String,
        #[doc = "where it is"]
        namespace: String,
        #[doc = "what is missing"]
        field: String,
        #[doc = "what is there"]
        present: String,
    },
    /// The field holds nothing usable.
    #[error(
        "field \"{field}\" of Secret \"{secret}\" in namespace \"{namespace}\" cannot be used: {problem}"
    )]
    Unreadable {
        #[doc = "its name"]
        secret: String,
        #[doc = "where it is"]
        namespace: String,
        #[doc = "which field"]
        field: String,
        #[doc = "what is wrong, without its content"]
        problem: String,
        #[doc = "the condition's reason"]
        reason: &'static str,
    },
}

impl CredentialProblem {
    /// The condition's reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::SecretMissing { .. } => "CredentialsSecretMissing",
            Self::FieldMissing { .. } => "CredentialsFieldMissing",
            Self::Unreadable { reason, .. } => reason,
        }
    }
}

/// What is trusted, or not, to lead to the account's user: the credentials of this version, and the user that
/// `spec.expectedUser` names. Whoever corrects either of them is trusted anew.
#[must_use]
pub fn trust_of(account: &BagsAccount, version: &str) -> String {
    match account.spec.expected_user.as_deref().filter(|user| !user.is_empty()) {
        Some(user) => format!("{version}|{user}"),
        None => version.to_owned(),
    }
}

/// Reads an account's credentials.
///
/// # Errors
/// The first thing that is wrong with them.
pub fn read(
    account: &BagsAccount,
    keystore: &Keystore,
    namespace: &str,
) -> Result<CredentialSet, CredentialProblem> {
    let source = Source { keystore, namespace };
    let mut versions = BTreeSet::new();
    let wallet = match &account.spec.credentials.wallet {
        None => None,
        Some(reference) => {
            let field = reference.field.as_deref().unwrap_or("wallet.json");
            let wallet = source.parse(&reference.secret_name, field, "WalletUnreadable", Wallet::parse)?;
            let totp = match reference.totp_field.as_deref() {
                None => None,
                Some(field) => {
                    Some(source.parse(&reference.secret_name, field, "TotpUnreadable", TotpSecret::parse)?.0)
                }
            };
            versions.insert(wallet.1);
            Some((wallet.0, totp))
        }
    };
    let token = match &account.spec.credentials.agent_token {
        None => None,
        Some(reference) => {
            let field = reference.field.as_deref().unwrap_or("token");
            Some(source.parse(&reference.secret_name, field, "TokenUnreadable", AgentToken::parse)?)
        }
    };
    let (token, token_version) = token.unzip();
    versions.extend(token_version.clone());
    let version = versions.into_iter().collect::<Vec<_>>().join(",");
    Ok(CredentialSet { wallet, token, version, token_version })
}

struct Source<'a> {
    keystore: &'a Keystore,
    namespace: &'a str,
}

impl Source<'_> {
    fn parse<T, E: std::fmt::Display>(
        &self,
        name: &str,
        field: &str,
        reason: &'static str,
        parse: impl Fn(&[u8]) -> Result<T, E>,
    ) -> Result<(T, String), CredentialProblem> {
        let (secret, namespace, field) = (name.to_owned(), self.namespace.to_owned(), field.to_owned());
        let Some(found) = self.keystore.credentials(name) else {
            return Err(CredentialProblem::SecretMissing { secret, namespace, field });
        };
        let Some(bytes) = found.data.as_ref().and_then(|data| data.get(&field)) else {
            let present = fields(&found);
            return Err(CredentialProblem::FieldMissing { secret, namespace, field, present });
        };
        match parse(&bytes.0) {
            Ok(value) => Ok((value, format!("{secret}@{}", found.resource_version().unwrap_or_default()))),
            Err(problem) => {
                let problem = problem.to_string();
                Err(CredentialProblem::Unreadable { secret, namespace, field, problem, reason })
            }
        }
    }
}

fn fields(secret: &Secret) -> String {
    let names: Vec<&str> = secret.data.iter().flatten().map(|(name, _)| name.as_str()).take(10).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
