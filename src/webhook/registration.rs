//! The ValidatingWebhookConfiguration: the installer makes it, without a `caBundle`; that is written and maintained here.

use std::{collections::VecDeque, time::Duration};

use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        RuleWithOperations, ValidatingWebhook, ValidatingWebhookConfiguration, WebhookClientConfig,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{certificates::is_ours, service::PATH};
use crate::{
    api::GROUP,
    env::{CallError, call},
};

/// The field manager of our writes, whose fields GitOps tools may be told to leave alone.
const FIELD_MANAGER: &str = "bags-operator";
/// Pause between two writes of one object: if somebody keeps undoing our writes, we do not answer as fast as the API server
/// allows.
const PAUSE: Duration = Duration::from_secs(1);
/// How many times our bundle may be overwritten, and be put back, within [`MEMORY`] before it is reported: an installation
/// or a restore does so.
const FEW: usize = 3;
/// Such a replacement is remembered for so long.
const MEMORY: Duration = Duration::from_hours(1);
/// What comes of an ApiKey that gets past the webhook.
const PAST: &str =
    "as long as that is so, one that does not fit is not refused at once, it waits without a key";

/// Whether the API server sends new ApiKeys to this installation's webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Registration {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// There is no webhook, or it was not configured which configuration belongs to it.
    Unwatched,
    /// The configuration sends every new ApiKey to the webhook, and trusts our certificates.
    Registered,
    /// There is no configuration of this name, or it names no webhook.
    Missing(String),
    /// The configuration of this name could not be read, or trusts somebody else and could not be corrected; the second
    /// text says why.
    Wrong(String, String),
    /// The configuration of this name trusts our certificates, but does not send every new ApiKey to the webhook: it lets
    /// some past, or calls where nobody answers. The second text says which.
    Incomplete(String, String),
    /// The configuration of this name trusts our certificates at the moment, but somebody keeps writing another `caBundle`;
    /// the second text names them.
    Contended(String, String),
}

impl Registration {
    /// Whether the API server trusts our certificates when it calls by the configuration, as far as we know.
    pub(super) fn trusts(&self) -> bool {
        matches!(self, Self::Registered | Self::Unwatched | Self::Incomplete(..) | Self::Contended(..))
    }

    /// For the condition: whether it is as it should be, why, and in words. `None`: there is nothing to be said.
    #[must_use]
    pub fn told(&self) -> Option<(bool, &'static str, String)> {
        match self {
            Self::Unknown | Self::Unwatched => None,
            Self::Registered => {
                let message = "new ApiKeys are put before the operator's admission webhook";
                Some((true, "Registered", message.to_owned()))
            }
            Self::Missing(name) => Some((
                false,
                "WebhookMissing",
                format!(
                    "there is no ValidatingWebhookConfiguration \"{name}\": an ApiKey that does not fit is not refused at once, \
                     it waits without a key; install the operator's webhook again"
                ),
            )),
            Self::Wrong(name, why) => Some((
                false,
                "WebhookNotTrusted",
                format!(
                    "the caBundle of ValidatingWebhookConfiguration \"{name}\" is not known to be the operator's, as it could not be \
                     read or written ({why}): it may be that no ApiKey can be made; let the operator get and update it, and let \
                     nobody else"
                ),
            )),
            Self::Incomplete(name, what) => Some((
                false,
                "WebhookIncomplete",
                format!(
                    "ValidatingWebhookConfiguration \"{name}\" does not put every new ApiKey before the operator's admission \
                     webhook: {what}"
                ),
            )),
            Self::Contended(name, who) => Some((
                false,
                "WebhookContended",
                format!(
                    "{who} keeps writing another caBundle into ValidatingWebhookConfiguration \"{name}\", which the operator \
                     replaces: no ApiKey can be made in between; let the operator write it, and nobody else"
                ),
            )),
        }
    }
}

/// Sees that an object is not written without a pause.
#[derive(Default)]
pub(super) struct Pace(Option<Instant>);

impl Pace {
    /// What is left of the pause; `None`: a write may be sent, and the next pause begins now.
    pub(super) fn pause(&mut self, now: Instant) -> Option<Duration> {
        let passed = self.0.map_or(PAUSE, |last| now.saturating_duration_since(last));
        let left = PAUSE.checked_sub(passed).filter(|left| !left.is_zero());
        if left.is_none() {
            self.0 = Some(now);
        }
        left
    }
}

/// What this process remembers of a configuration.
#[derive(Default)]
pub(super) struct Dealings {
    pace: Pace,
    /// The bundle of ours that the configuration had when it was last seen or written, and its generation then: removing
    /// the bundle, or putting it back, makes a new generation.
    held: Option<(String, Option<i64>)>,
    /// When we replaced what somebody else had put in the place of our bundle, be it an older one of ours.
    replaced: VecDeque<Instant>,
    /// Who had written what was replaced last.
    by: String,
}

impl Dealings {
    /// The generation in which the configuration last had our bundle.
    pub(super) fn generation(&self) -> Option<i64> {
        self.held.as_ref().and_then(|(_, generation)| *generation)
    }

    fn holds(&mut self, bundle: &str, configuration: &ValidatingWebhookConfiguration) {
        self.held = Some((bundle.to_owned(), configuration.metadata.generation));
    }

    fn replaces(&mut self, by: String, now: Instant) {
        self.by = by;
        self.replaced.push_back(now);
        if self.replaced.len() > FEW + 1 {
            self.replaced.pop_front();
        }
    }

    fn contended(&self, now: Instant) -> bool {
        let lately = |when: &&Instant| now.saturating_duration_since(**when) < MEMORY;
        self.replaced.iter().filter(lately).count() > FEW
    }
}

/// What came of a look at the configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// The configuration is in this state, after a write if one was needed.
    Settled(Registration),
    /// The configuration has to be written, but only after this pause.
    Paused(Duration),
}

/// The configuration, or what to report if it is missing or may not be read.
pub(super) type Seen = Result<ValidatingWebhookConfiguration, Registration>;

/// The configuration of one installation.
pub(super) struct Configuration<'a> {
    api: Api<ValidatingWebhookConfiguration>,
    name: String,
    /// Under which names and addresses the webhook is called.
    hosts: &'a [String],
}

impl<'a> Configuration<'a> {
    pub(super) fn new(client: Client, name: &str, hosts: &'a [String]) -> Self {
        Self { api: Api::all(client), name: name.to_owned(), hosts }
    }

    /// The configuration as it is. To be read before the Secret with the bundle to write: a write with this resourceVersion
    /// can then never replace a newer bundle by an older one, however long this process stands still before it writes.
    ///
    /// # Errors
    /// When the API server does not answer: to be looked at again.
    pub(super) async fn read(&self) -> Result<Seen, CallError> {
        match call(self.api.get_opt(&self.name)).await {
            Ok(Some(configuration)) => Ok(Ok(configuration)),
            Ok(None) => Ok(Err(Registration::Missing(self.name.clone()))),
            Err(error) if error.is_refusal() => Ok(Err(self.wrong(&error))),
            Err(error) => Err(error),
        }
    }

    /// Makes sure that the configuration, as it was [read](Self::read), trusts this bundle and nothing else.
    ///
    /// # Errors
    /// When the API server does not answer, or somebody else was faster: to be looked at again.
    pub(super) async fn ensure(
        &self,
        seen: Seen,
        bundle: &str,
        dealings: &mut Dealings,
        now: Instant,
    ) -> Result<Look, CallError> {
        let mut configuration = match seen {
            Ok(configuration) => configuration,
            Err(instead) => return Ok(Look::Settled(instead)),
        };
        let writer = writer(&configuration);
        let ours = ByteString(bundle.as_bytes().to_vec());
        let webhooks = configuration.webhooks.get_or_insert_default();
        if webhooks.is_empty() {
            return Ok(Look::Settled(Registration::Missing(self.name.clone())));
        }
        if webhooks.iter().all(|webhook| webhook.client_config.ca_bundle.as_ref() == Some(&ours)) {
            let registered = self.registered(webhooks, dealings, now);
            dealings.holds(bundle, &configuration);
            return Ok(Look::Settled(registered));
        }
        if let Some(left) = dealings.pace.pause(now) {
            return Ok(Look::Paused(left));
        }
        // If our bundle was there and is not any more, somebody else took it away: no replica of ours goes back to an older
        // bundle, as each reads the configuration before the authorities.
        let taken_away = dealings.held.as_ref().is_some_and(|(held, _)| held == bundle);
        let replaces = taken_away || webhooks.iter().any(foreign);
        for webhook in &mut *webhooks {
            webhook.client_config.ca_bundle = Some(ours.clone());
        }
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = call(self.api.replace(&self.name, &params, &configuration)).await;
        // Counted only once it is replaced, by us or (a conflict) by a faster replica: each bundle counts once, however
        // many tries failed.
        let replaced = match &written {
            Ok(_) => replaces,
            Err(error) => replaces && error.is_conflict(),
        };
        if replaced {
            warn!(configuration = self.name, by = writer, "Somebody else's caBundle was replaced");
            dealings.replaces(writer, now);
        }
        match written {
            Ok(written) => {
                dealings.holds(bundle, &written);
                info!(configuration = self.name, "The caBundle of the webhook's configuration was written");
                let webhooks = configuration.webhooks.unwrap_or_default();
                Ok(Look::Settled(self.registered(&webhooks, dealings, now)))
            }
            Err(error) if error.is_refusal() => Ok(Look::Settled(self.wrong(&error))),
            Err(error) => Err(error),
        }
    }

    /// What to report of a configuration that has our bundle.
    fn registered(&self, webhooks: &[ValidatingWebhook], dealings: &Dealings, now: Instant) -> Registration {
        let name = self.name.clone();
        if dealings.contended(now) {
            return Registration::Contended(name, dealings.by.clone());
        }
        let mut gaps = webhooks.iter().map(|webhook| gap(webhook, self.hosts));
        match gaps.clone().any(|gap| gap.is_none()) {
            true => Registration::Registered,
            false => Registration::Incomplete(name, gaps.find_map(|gap| gap).unwrap_or_default()),
        }
    }

    fn wrong(&self, error: &CallError) -> Registration {
        Registration::Wrong(self.name.clone(), error.kind())
    }
}

/// Why the API server does not send every new ApiKey to this webhook, and what comes of that; `None`: it does.
fn gap(webhook: &ValidatingWebhook, hosts: &[String]) -> Option<String> {
    let ValidatingWebhook { name, client_config, .. } = webhook;
    let (host, path) = called(client_config);
    if !hosts.contains(&host) {
        return Some(format!(
            "its webhook \"{name}\" calls \"{host}\", which is not the operator's, so that somebody else judges them or none \
             can be made; call {}",
            hosts.join(" or ")
        ));
    }
    let narrow = |selector: &Option<LabelSelector>| {
        selector.as_ref().is_some_and(|it| *it != LabelSelector::default())
    };
    let gaps = [
        (
            !webhook.rules.iter().flatten().any(matches_creation),
            format!(
                "no rule of its webhook \"{name}\" has operation CREATE of resource apikeys of {GROUP}/v1alpha1; add one"
            ),
        ),
        (
            webhook.failure_policy.as_deref().is_some_and(|policy| policy != "Fail"),
            format!("failurePolicy of its webhook \"{name}\" is not Fail; set it"),
        ),
        (
            narrow(&webhook.namespace_selector),
            format!("its webhook \"{name}\" has a namespaceSelector; remove it"),
        ),
        (
            narrow(&webhook.object_selector),
            format!("its webhook \"{name}\" has an objectSelector; remove it"),
        ),
        (
            webhook.match_conditions.iter().flatten().next().is_some(),
            format!("its webhook \"{name}\" has matchConditions; remove them"),
        ),
    ];
    if let Some((_, words)) = gaps.into_iter().find(|(is_there, _)| *is_there) {
        return Some(format!("{words}; {PAST}"));
    }
    // The API server calls the path without a slash at its end.
    (path.trim_end_matches('/') != PATH).then(|| {
        format!(
            "its webhook \"{name}\" calls path \"{path}\", where nobody answers, so that no ApiKey can be made; call {PATH}"
        )
    })
}

/// The name or address under which a webhook is called, and the path.
fn called(client_config: &WebhookClientConfig) -> (String, String) {
    match (&client_config.service, &client_config.url) {
        (Some(service), _) => {
            let path = service.path.as_deref().filter(|path| !path.is_empty());
            (format!("{}.{}.svc", service.name, service.namespace), path.unwrap_or("/").to_owned())
        }
        (None, Some(url)) => match url.parse::<http::Uri>() {
            // An IPv6 address stands in brackets in a URL, and nowhere else.
            Ok(url) => {
                let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
                (host.to_owned(), url.path().to_owned())
            }
            Err(_) => (String::new(), String::new()),
        },
        (None, None) => (String::new(), String::new()),
    }
}

/// Whether a rule matches the creation of an ApiKey.
fn matches_creation(rule: &RuleWithOperations) -> bool {
    let has = |list: &Option<Vec<String>>, words: &[&str]| {
        list.iter().flatten().any(|word| words.contains(&word.as_str()))
    };
    has(&rule.api_groups, &["*", GROUP])
        && has(&rule.api_versions, &["*", "v1alpha1"])
        && has(&rule.operations, &["*", "CREATE"])
        && has(&rule.resources, &["*", "*/*", "apikeys"])
        && rule.scope.as_deref().is_none_or(|scope| scope != "Cluster")
}

fn foreign(webhook: &ValidatingWebhook) -> bool {
    webhook.client_config.ca_bundle.as_ref().is_some_and(|bundle| !bundle.0.is_empty() && !is_ours(&bundle.0))
}

/// Who wrote the present bundle, according to the managedFields.
fn writer(configuration: &ValidatingWebhookConfiguration) -> String {
    let wrote = configuration.managed_fields().iter().find(|entry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.to_string().contains("\"f:caBundle\""))
    });
    let manager = wrote.and_then(|entry| entry.manager.as_deref());
    manager.map_or_else(|| "somebody".to_owned(), |manager| format!("\"{manager}\""))
}

#[cfg(test)]
mod tests;
