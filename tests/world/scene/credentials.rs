//! What people do to the account's credentials.

use std::sync::PoisonError;

use bags_operator::sandbox::UserOptions;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{CREDENTIALS, Scene};
use crate::process::OPERATOR_NAMESPACE;

impl Scene {
    /// The platform team writes the same credentials anew, as a GitOps tool or an external store does.
    pub(crate) fn rewrite_credentials(&self) {
        let _ = self.api.edit("secrets", OPERATOR_NAMESPACE, CREDENTIALS, |secret| {
            secret["metadata"]["annotations"]["example.com/written"] = json!("again");
        });
    }

    /// The platform team has a new agent token made at Bags, which refuses the old one from then on, and puts it there.
    pub(crate) fn renew_token(&self) {
        self.renew_token_at_bags();
        self.put_renewed_token();
    }

    /// The same at Bags alone: until somebody puts it there, the account has a token that Bags refuses.
    pub(crate) fn renew_token_at_bags(&self) {
        if let Ok(token) = self.sandbox.renew_token(&self.user) {
            self.secrets.lock().unwrap_or_else(PoisonError::into_inner).push(token.clone());
            self.keep(json!(STANDARD.encode(token)));
        }
    }

    /// Puts what [`Scene::renew_token_at_bags`] got there.
    pub(crate) fn put_renewed_token(&self) {
        let Some(token) = self.take_kept() else { return };
        let _ = self
            .api
            .edit("secrets", OPERATOR_NAMESPACE, CREDENTIALS, |secret| secret["data"]["token"] = token);
    }

    /// Somebody spoils the credentials.
    pub(crate) fn spoil_credentials(&self) {
        let _ = self.api.edit("secrets", OPERATOR_NAMESPACE, CREDENTIALS, |secret| {
            self.keep(secret["data"].clone());
            secret["data"] =
                json!({"token": STANDARD.encode("no-such-token"), "wallet.json": STANDARD.encode("[]")});
        });
    }

    /// Somebody puts the credentials of another user of Bags there.
    pub(crate) fn confuse_credentials(&self) {
        let other = self.sandbox.add_user(UserOptions::default());
        let fields = self.fields(&other.credentials);
        let _ = self.api.edit("secrets", OPERATOR_NAMESPACE, CREDENTIALS, |secret| {
            self.keep(secret["data"].clone());
            secret["data"] = fields;
        });
    }

    /// The platform team moves the account to another user of Bags.
    pub(crate) fn move_to_another_user(&self) {
        let other = self.sandbox.add_user(UserOptions::default());
        let fields = self.fields(&other.credentials);
        let _ = self.api.edit("secrets", OPERATOR_NAMESPACE, CREDENTIALS, |secret| secret["data"] = fields);
        self.edit_account(|spec| spec["expectedUser"] = json!(other.id));
    }

    /// Whether the account lacks credentials that Bags takes: somebody took them away, or had others made, and has not put them
    /// there yet; or their user is suspended.
    pub(crate) fn credentials_are_kept_away(&self) -> bool {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).is_some() || self.user_is_suspended()
    }

    /// Puts back what [`Scene::spoil_credentials`] or [`Scene::confuse_credentials`] took.
    pub(crate) fn mend_credentials(&self) {
        let Some(data) = self.take_kept() else { return };
        let _ = self.api.edit("secrets", OPERATOR_NAMESPACE, CREDENTIALS, |secret| secret["data"] = data);
    }
}
