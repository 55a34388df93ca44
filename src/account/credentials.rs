//! An account's credentials, read from Secrets of the operator's namespace. Pure but for the cache of those Secrets.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use crate::{
    api::BagsAccount,
    bags::{AgentToken, TotpSecret, Wallet, WalletError},
    keystore::Keystore,
};

/// What an account proves itself with.
pub struct CredentialSet {
    /// The wallet and its second factor.
    pub wallet: Option<(Arc<Wallet>, Option<TotpSecret>)>,
    /// The agent token.
    pub token: Option<AgentToken>,
    /// `<Secret>@<resourceVersion>` of each Secret used: changes when a person changes the credentials.
    pub version: String,
    /// The same of the token's Secret alone.
    pub token_version: Option<String>,
}

/// The wallet of an account as it was last read. To check that its two halves belong together, the key pair has to be derived,
/// and every look at the account would repeat that; the Secret's `resourceVersion` tells when its content changed.
#[derive(Default)]
pub struct LastWallet(Mutex<Option<(WalletSource, Arc<Wallet>)>>);

/// Which field of which Secret, and of which version of it.
#[derive(PartialEq, Eq)]
struct WalletSource {
    secret: String,
    uid: Option<String>,
    version: Option<String>,
    field: String,
}

impl LastWallet {
    /// The wallet in this field of a Secret. A wallet that cannot be read is not remembered, and the one before it is forgotten.
    fn read(&self, secret: &Secret, field: &str, bytes: &[u8]) -> Result<Arc<Wallet>, WalletError> {
        let source = WalletSource {
            secret: secret.name_any(),
            uid: secret.uid(),
            version: secret.resource_version(),
            field: field.to_owned(),
        };
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, wallet)) = last.as_ref().filter(|(known, _)| *known == source) {
            return Ok(wallet.clone());
        }
        *last = None;
        let wallet = Arc::new(Wallet::parse(bytes)?);
        *last = Some((source, wallet.clone()));
        Ok(wallet)
    }

    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
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

/// What is trusted, or distrusted, to lead to the account's user: the credentials of this version together with the user that
/// `spec.expectedUser` names. When a person corrects either of them, they are trusted anew.
#[must_use]
pub fn trust_of(account: &BagsAccount, version: &str) -> String {
    match account.spec.expected_user.as_deref().filter(|user| !user.is_empty()) {
        Some(user) => format!("{version}|{user}"),
        None => version.to_owned(),
    }
}

/// Reads an account's credentials; `last` is that account's, and is forgotten where its wallet cannot be read.
///
/// # Errors
/// The first thing that is wrong with them.
pub fn read(
    account: &BagsAccount,
    keystore: &Keystore,
    namespace: &str,
    last: &LastWallet,
) -> Result<CredentialSet, CredentialProblem> {
    let source = Source { keystore, namespace };
    let mut versions = BTreeSet::new();
    let wallet = match &account.spec.credentials.wallet {
        None => {
            last.forget();
            None
        }
        Some(reference) => {
            let field = reference.field.as_deref().unwrap_or("wallet.json");
            let parse = |secret: &Secret, bytes: &[u8]| last.read(secret, field, bytes);
            let wallet = source
                .parse(&reference.secret_name, field, "WalletUnreadable", parse)
                .inspect_err(|_| last.forget())?;
            let totp = match reference.totp_field.as_deref() {
                None => None,
                Some(field) => {
                    let parse = |_: &Secret, bytes: &[u8]| TotpSecret::parse(bytes);
                    let (totp, version) =
                        source.parse(&reference.secret_name, field, "TotpUnreadable", parse)?;
                    versions.insert(version);
                    Some(totp)
                }
            };
            versions.insert(wallet.1);
            Some((wallet.0, totp))
        }
    };
    let (token, token_version) = source.token(account)?.unzip();
    versions.extend(token_version.clone());
    let version = versions.into_iter().collect::<Vec<_>>().join(",");
    Ok(CredentialSet { wallet, token, version, token_version })
}

/// Reads an account's token alone, whatever is wrong with its wallet: lists and revocations need no more. No key may be made with
/// this. `None`: there is none that can be read.
#[must_use]
pub fn read_token(account: &BagsAccount, keystore: &Keystore, namespace: &str) -> Option<CredentialSet> {
    let (token, version) = Source { keystore, namespace }.token(account).ok()??;
    let token_version = Some(version.clone());
    Some(CredentialSet { wallet: None, token: Some(token), version, token_version })
}

struct Source<'a> {
    keystore: &'a Keystore,
    namespace: &'a str,
}

impl Source<'_> {
    /// The agent token, where the account has one, and its version.
    fn token(&self, account: &BagsAccount) -> Result<Option<(AgentToken, String)>, CredentialProblem> {
        let Some(reference) = &account.spec.credentials.agent_token else { return Ok(None) };
        let field = reference.field.as_deref().unwrap_or("token");
        let parse = |_: &Secret, bytes: &[u8]| AgentToken::parse(bytes);
        self.parse(&reference.secret_name, field, "TokenUnreadable", parse).map(Some)
    }

    fn parse<T, E: std::fmt::Display>(
        &self,
        name: &str,
        field: &str,
        reason: &'static str,
        parse: impl Fn(&Secret, &[u8]) -> Result<T, E>,
    ) -> Result<(T, String), CredentialProblem> {
        let (secret, namespace, field) = (name.to_owned(), self.namespace.to_owned(), field.to_owned());
        let Some(found) = self.keystore.credentials(name) else {
            return Err(CredentialProblem::SecretMissing { secret, namespace, field });
        };
        let Some(bytes) = found.data.as_ref().and_then(|data| data.get(&field)) else {
            let present = fields(&found);
            return Err(CredentialProblem::FieldMissing { secret, namespace, field, present });
        };
        match parse(&found, &bytes.0) {
            // The version names the field, too: a person who names another field in the spec changes the credentials as well.
            Ok(value) => {
                let version = found.resource_version().unwrap_or_default();
                Ok((value, format!("{secret}/{field}@{version}")))
            }
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

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use kube::runtime::{reflector, watcher::Event};
    use serde_json::json;

    use super::*;
    use crate::{
        fixtures::{bags_account, server},
        sandbox::{Sandbox, UserOptions},
    };

    fn secret(version: &str, wallet: &str) -> Secret {
        let metadata =
            json!({"name": "bags-main", "namespace": "bags", "uid": "u", "resourceVersion": version});
        let data = json!({"wallet.json": BASE64_STANDARD.encode(wallet)});
        serde_json::from_value(json!({"metadata": metadata, "data": data})).unwrap()
    }

    fn wallet_file() -> String {
        let sandbox =
            Sandbox::new(Arc::new(crate::clock::SystemClock), crate::clock::Randomness::from_seed(1));
        sandbox.add_user(UserOptions::default()).credentials.wallet_json().to_owned()
    }

    fn account() -> BagsAccount {
        let credentials = json!({"wallet": {"secretName": "bags-main"}});
        bags_account(&json!({"spec": {"credentials": credentials, "allowed": []}}))
    }

    #[test]
    fn a_wallet_is_read_once_for_each_version_of_its_field() {
        let (file, last) = (wallet_file(), LastWallet::default());
        let read = |secret: &Secret, field: &str| last.read(secret, field, file.as_bytes()).unwrap();
        let first = read(&secret("1", &file), "wallet.json");
        assert!(Arc::ptr_eq(&first, &read(&secret("1", &file), "wallet.json")));
        for (other, field) in [
            (secret("2", &file), "wallet.json"),
            (secret("2", &file), "other"),
            (
                Secret {
                    metadata: kube::core::ObjectMeta { uid: Some("v".into()), ..secret("2", &file).metadata },
                    ..Secret::default()
                },
                "other",
            ),
        ] {
            let before = last.0.lock().unwrap().as_ref().unwrap().1.clone();
            assert!(!Arc::ptr_eq(&before, &read(&other, field)));
        }
    }

    fn keystore() -> (Keystore, reflector::store::Writer<Secret>) {
        let (seen, writer) = reflector::store::<Secret>();
        let (silent, _) = server(|_, _| (200, serde_json::Value::Null));
        (Keystore::new(silent, "bags", seen), writer)
    }

    #[tokio::test]
    async fn whoever_has_another_field_read_has_other_credentials() {
        let (keystore, mut writer) = keystore();
        let mut secret = secret("1", &wallet_file());
        let data = secret.data.as_mut().unwrap();
        let same = data["wallet.json"].clone();
        data.insert("other.json".to_owned(), same);
        writer.apply_watcher_event(&Event::Apply(secret));
        let version = |field: Option<&str>| {
            let mut account = account();
            account.spec.credentials.wallet.as_mut().unwrap().field = field.map(str::to_owned);
            read(&account, &keystore, "bags", &LastWallet::default()).unwrap().version
        };
        assert_eq!(version(None), version(Some("wallet.json")));
        assert_ne!(version(None), version(Some("other.json")));
    }

    #[tokio::test]
    async fn a_token_is_read_by_itself_whatever_is_wrong_with_the_wallet() {
        let (keystore, mut writer) = keystore();
        let mut account = account();
        let token = |account: &BagsAccount| {
            read_token(account, &keystore, "bags").map(|set| (set.wallet.is_some(), set.token_version))
        };
        assert_eq!(token(&account), None, "it has none");
        let reference =
            json!({"wallet": {"secretName": "bags-main"}, "agentToken": {"secretName": "bags-main"}});
        account.spec.credentials = serde_json::from_value(reference).unwrap();
        assert_eq!(token(&account), None, "its Secret is missing");
        let mut spoilt = secret("2", "[1,2]");
        let text = k8s_openapi::ByteString(b"token-for-tests".to_vec());
        spoilt.data.as_mut().unwrap().insert("token".to_owned(), text);
        writer.apply_watcher_event(&Event::Apply(spoilt));
        let whole = read(&account, &keystore, "bags", &LastWallet::default());
        assert_eq!(whole.map(|set| set.version).unwrap_err().reason(), "WalletUnreadable");
        assert_eq!(token(&account), Some((false, Some("bags-main/token@2".to_owned()))));
    }

    #[tokio::test]
    async fn a_wallet_whose_secret_changes_or_goes_is_not_kept() {
        let (keystore, mut writer) = keystore();
        let last = LastWallet::default();
        let mut shown = |event: Event<Secret>| {
            writer.apply_watcher_event(&event);
            let read = read(&account(), &keystore, "bags", &last);
            (read.map(|set| set.version), last.0.lock().unwrap().is_some())
        };
        let file = wallet_file();
        assert_eq!(shown(Event::Apply(secret("1", &file))), (Ok("bags-main/wallet.json@1".to_owned()), true));
        let (spoilt, kept) = shown(Event::Apply(secret("2", "[1,2]")));
        assert_eq!((spoilt.unwrap_err().reason(), kept), ("WalletUnreadable", false));
        assert_eq!(shown(Event::Apply(secret("3", &file))), (Ok("bags-main/wallet.json@3".to_owned()), true));
        let (gone, kept) = shown(Event::Delete(secret("3", &file)));
        assert_eq!((gone.unwrap_err().reason(), kept), ("CredentialsSecretMissing", false));
    }
}
