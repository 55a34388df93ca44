//! Flags of the admission webhook.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use clap::Args;

use crate::{
    api::duration::GoDuration,
    webhook::{WebhookConfig, certificates::Lives},
};

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Admission webhook")]
pub(super) struct WebhookArgs {
    /// Address of the admission webhook (HTTPS); port 0 takes a free one, which the log names [default: no webhook].
    #[arg(long, env = "BAGS_WEBHOOK_LISTEN", value_name = "ADDRESS")]
    webhook_listen: Option<SocketAddr>,
    /// Names and addresses under which the API server calls it, joined by ",": for example
    /// bags-operator-webhook.bags-system.svc.
    #[arg(
        long,
        env = "BAGS_WEBHOOK_HOSTS",
        value_name = "HOSTS",
        value_delimiter = ',',
        value_parser = host,
        requires = "webhook_listen"
    )]
    webhook_hosts: Vec<String>,
    /// The ValidatingWebhookConfiguration whose caBundle is kept [default: somebody else keeps it].
    #[arg(long, env = "BAGS_WEBHOOK_CONFIGURATION", value_name = "NAME", requires = "webhook_listen")]
    webhook_configuration: Option<String>,
    /// How long an authority of the webhook's certificates lives; its successor is made when a third is left.
    #[arg(long, env = "BAGS_WEBHOOK_CA_LIFE", value_name = "DURATION", default_value = "8760h")]
    webhook_ca_life: GoDuration,
    /// How long a serving certificate lives; it is renewed when a third is left.
    #[arg(long, env = "BAGS_WEBHOOK_CERTIFICATE_LIFE", value_name = "DURATION", default_value = "168h")]
    webhook_certificate_life: GoDuration,
    /// Pause between two steps of the replacement of an authority, in which every API server and replica learns of it.
    #[arg(long, env = "BAGS_WEBHOOK_CA_SETTLE", value_name = "DURATION", default_value = "10m")]
    webhook_ca_settle: GoDuration,
}

/// Flags of the webhook that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebhookArgsError {
    /// A certificate needs a name.
    #[error(
        "--webhook-listen needs --webhook-hosts: write the names under which the API server calls, for example \
         --webhook-hosts=bags-operator-webhook.bags-system.svc"
    )]
    NoHosts,
    /// A certificate would end at once.
    #[error("--webhook-certificate-life must not be zero; write a duration, for example 168h")]
    NoLife,
    /// An authority would end before its successor is trusted.
    #[error(
        "--webhook-ca-life ({life}) must be at least nine times --webhook-ca-settle ({settle}): a third of it is left for \
         the replacement, which settles twice"
    )]
    AuthorityTooShort {
        /// `--webhook-ca-life`.
        life: GoDuration,
        /// `--webhook-ca-settle`.
        settle: GoDuration,
    },
}

impl WebhookArgs {
    pub(super) fn check(self) -> Result<Option<WebhookConfig>, WebhookArgsError> {
        let Some(listen) = self.webhook_listen else { return Ok(None) };
        if self.webhook_hosts.is_empty() {
            return Err(WebhookArgsError::NoHosts);
        }
        let (GoDuration(authority), GoDuration(leaf), GoDuration(settle)) =
            (self.webhook_ca_life, self.webhook_certificate_life, self.webhook_ca_settle);
        if leaf < Duration::from_secs(1) {
            return Err(WebhookArgsError::NoLife);
        }
        if authority < settle.saturating_mul(9) || authority < Duration::from_secs(1) {
            let (life, settle) = (self.webhook_ca_life, self.webhook_ca_settle);
            return Err(WebhookArgsError::AuthorityTooShort { life, settle });
        }
        Ok(Some(WebhookConfig {
            listen,
            hosts: self.webhook_hosts,
            configuration: self.webhook_configuration.filter(|name| !name.is_empty()),
            lives: Lives { authority, leaf, settle },
        }))
    }
}

/// A DNS name or an address.
fn host(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let valid = text.parse::<IpAddr>().is_ok() || text.len() <= 253 && text.split('.').all(label);
    valid.then(|| text.to_owned()).ok_or_else(|| {
        "write DNS names or addresses joined by \",\", for example bags-operator-webhook.bags-system.svc"
            .to_owned()
    })
}
