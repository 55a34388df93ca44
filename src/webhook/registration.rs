//! The ValidatingWebhookConfiguration: made by the installer, who renders no `caBundle`; that is kept here.

use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{ValidatingWebhook, ValidatingWebhookConfiguration},
};
use kube::{Api, Client, api::PostParams};
use tracing::{info, warn};

use super::certificates::is_ours;
use crate::env::{CallError, call};

/// Whether new ApiKeys are put before this installation's webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Registration {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// There is no webhook, or nobody said which configuration is its.
    Unwatched,
    /// The configuration trusts our certificates.
    Registered,
    /// There is no configuration of this name, or it names no webhook.
    Missing(String),
    /// The configuration of this name trusted somebody else, or could not be corrected; in words.
    Wrong(String, String),
}

/// The configuration of one installation.
pub(super) struct Configuration {
    api: Api<ValidatingWebhookConfiguration>,
    name: String,
}

impl Configuration {
    pub(super) fn new(client: Client, name: &str) -> Self {
        Self { api: Api::all(client), name: name.to_owned() }
    }

    /// Sees that the configuration trusts this bundle and nothing else.
    ///
    /// # Errors
    /// When the API server does not answer, or somebody else was faster: to be looked at again.
    pub(super) async fn ensure(&self, bundle: &str) -> Result<Registration, CallError> {
        let Some(mut configuration) = call(self.api.get_opt(&self.name)).await? else {
            return Ok(Registration::Missing(self.name.clone()));
        };
        let ours = ByteString(bundle.as_bytes().to_vec());
        let webhooks = configuration.webhooks.get_or_insert_default();
        if webhooks.is_empty() {
            return Ok(Registration::Missing(self.name.clone()));
        }
        if webhooks.iter().all(|webhook| webhook.client_config.ca_bundle.as_ref() == Some(&ours)) {
            return Ok(Registration::Registered);
        }
        if webhooks.iter().any(foreign) {
            warn!(configuration = self.name, "Somebody else's caBundle is replaced");
        }
        for webhook in webhooks {
            webhook.client_config.ca_bundle = Some(ours.clone());
        }
        match call(self.api.replace(&self.name, &PostParams::default(), &configuration)).await {
            Ok(_) => {
                info!(configuration = self.name, "The caBundle of the webhook's configuration was written");
                Ok(Registration::Registered)
            }
            Err(error) if error.is_refusal() => Ok(Registration::Wrong(self.name.clone(), error.kind())),
            Err(error) => Err(error),
        }
    }
}

fn foreign(webhook: &ValidatingWebhook) -> bool {
    webhook.client_config.ca_bundle.as_ref().is_some_and(|bundle| !bundle.0.is_empty() && !is_ours(&bundle.0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_configuration_without_a_webhook_is_none() {
        for webhooks in [json!([]), json!(null)] {
            let answer = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
                                "metadata": {"name": "bags-operator"}, "webhooks": webhooks});
            let service = tower::service_fn(move |_| {
                let body = kube::client::Body::from(answer.to_string().into_bytes());
                async { Ok::<_, std::convert::Infallible>(http::Response::new(body)) }
            });
            let configuration = Configuration::new(Client::new(service, "bags-system"), "bags-operator");
            let found = configuration.ensure("a bundle").await.unwrap();
            assert_eq!(found, Registration::Missing("bags-operator".to_owned()));
        }
    }
}
