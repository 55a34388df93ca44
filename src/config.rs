//! Flags and environment, read once and turned into a validated [`Config`].
//!
//! Nothing else in the library reads the environment: `clippy.toml` forbids it. The defaults live here and in
//! [`timings`](crate::timings); a message about a wrong flag says what to write instead.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tracing_subscriber::EnvFilter;
use url::Url;

use crate::{
    api::duration::GoDuration,
    bags::{BaseUrl, BaseUrlError, DEFAULT_BASE_URL},
    leader::timings::{LeaderArgs, LeaderTimings, LeaderTimingsError},
    timings::{TimingArgs, Timings, TimingsError},
    webhook::WebhookConfig,
};

mod webhook;

use webhook::{WebhookArgs, WebhookArgsError};

/// Makes, delivers and revokes the API keys of a Bags account.
#[derive(Parser, Debug)]
#[command(name = "bags-operator", version, about, long_about = None, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the operator until SIGTERM or Ctrl-C.
    Run(Box<RunArgs>),
}

/// Flags of `run`, as they were written.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    bags: BagsArgs,
    #[command(flatten)]
    kubernetes: KubernetesArgs,
    #[command(flatten)]
    process: ProcessArgs,
    #[command(flatten)]
    leader: LeaderArgs,
    #[command(flatten)]
    webhook: WebhookArgs,
    #[command(flatten)]
    timings: TimingArgs,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Bags")]
struct BagsArgs {
    /// Base URL of the Bags API; the account's credentials go there.
    // A String, as clap's message about a URL that does not parse would repeat it, and a password with it.
    #[arg(long, env = "BAGS_URL", value_name = "URL", default_value = DEFAULT_BASE_URL, hide_env_values = true)]
    bags_url: String,
    /// Allow http in --bags-url where the host is this machine's loopback (for a sandbox).
    #[arg(long, env = "BAGS_ALLOW_HTTP_LOOPBACK")]
    allow_http_loopback: bool,
    /// Base URL written into the Secrets, where applications reach Bags by another one [default: --bags-url]. With
    /// http, keys travel readable unless the network encrypts.
    #[arg(long, env = "BAGS_CONSUMER_URL", value_name = "URL", hide_env_values = true)]
    consumer_bags_url: Option<String>,
    /// PEM file of certificate authorities trusted for --bags-url besides the system's.
    #[arg(long, env = "BAGS_CA_FILE", value_name = "FILE")]
    bags_ca_file: Option<PathBuf>,
    /// One request to Bags may take so long; at most --answer-deadline.
    #[arg(long, env = "BAGS_REQUEST_DEADLINE", value_name = "DURATION", default_value = "30s")]
    request_deadline: GoDuration,
    /// Requests an hour to Bags, over all accounts: Bags counts per address as well, and applications behind the same
    /// address share what it allows.
    #[arg(
        long,
        env = "BAGS_REQUESTS_PER_HOUR",
        value_name = "COUNT",
        default_value_t = 2500,
        value_parser = clap::value_parser!(u32).range(30..)
    )]
    requests_per_hour: u32,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Kubernetes")]
struct KubernetesArgs {
    /// The operator's own namespace: keystore, credentials.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", value_parser = namespace)]
    namespace: String,
    /// Name of this replica, shown in events and, with a random suffix, in the Lease.
    #[arg(
        long,
        env = "POD_NAME",
        value_name = "NAME",
        default_value = "bags-operator",
        value_parser = NonEmptyStringValueParser::new()
    )]
    instance: String,
    /// Kubeconfig files, joined by ":" [default: the pod's service account].
    #[arg(long, env = "KUBECONFIG", value_name = "FILES")]
    kubeconfig: Option<OsString>,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Process")]
struct ProcessArgs {
    /// Address of /livez, /readyz and /metrics; port 0 takes a free one, which the log names.
    #[arg(long, env = "BAGS_ADMIN_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    admin_listen: SocketAddr,
    /// Objects of one kind worked on at the same time.
    #[arg(
        long,
        env = "BAGS_CONCURRENCY",
        value_name = "COUNT",
        default_value_t = 32,
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    concurrency: u16,
    /// How log lines look.
    #[arg(long, env = "BAGS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// What is logged: a level, or levels by module, for example "info,bags_operator=debug".
    #[arg(long, env = "BAGS_LOG", value_name = "FILTER", default_value = "info", value_parser = log_filter)]
    log: String,
}

/// How log lines look.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything that can be set, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Base URL of the Bags API: https, or http on loopback.
    pub bags_url: BaseUrl,
    /// Base URL written into Secrets, without a slash at the end.
    pub consumer_bags_url: String,
    /// PEM file of certificate authorities trusted for Bags besides the system's.
    pub bags_ca_file: Option<PathBuf>,
    /// How long one request to Bags may take.
    pub request_deadline: Duration,
    /// Requests an hour to Bags, over all accounts; at least 30.
    pub requests_per_hour: u32,
    /// The operator's own namespace.
    pub namespace: String,
    /// Name of this replica, shown in events.
    pub instance: String,
    /// How the API server is reached.
    pub kubernetes: KubernetesAccess,
    /// Address of the admin server; port 0: a free one.
    pub admin_listen: SocketAddr,
    /// Objects of one kind worked on at the same time; at least 1.
    pub concurrency: u16,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged; parses as an [`EnvFilter`].
    pub log_filter: String,
    /// Durations of the election of a leader; `None`: the process runs alone.
    pub leader: Option<LeaderTimings>,
    /// How the admission webhook is served; `None`: it is not.
    pub webhook: Option<WebhookConfig>,
    /// Durations of the workflows; they fit together.
    pub timings: Timings,
}

/// How the API server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubernetesAccess {
    /// By the service account of the pod.
    InCluster,
    /// By kubeconfig files, merged as kubectl does: the first one to set a value wins.
    Kubeconfig(Vec<PathBuf>),
}

/// Flags that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// `--bags-url` cannot be used.
    #[error("--bags-url: {0}")]
    BagsUrl(BaseUrlError),
    /// `--consumer-bags-url` cannot be used. The message does not repeat it: people put passwords into URLs.
    #[error(
        "--consumer-bags-url: not a base URL; write scheme, host and path only, for example {DEFAULT_BASE_URL}"
    )]
    ConsumerBagsUrl,
    /// Durations of the workflows contradict each other.
    #[error(transparent)]
    Timings(TimingsError),
    /// Durations of the election contradict each other.
    #[error(transparent)]
    Leader(LeaderTimingsError),
    /// The flags of the webhook contradict each other.
    #[error(transparent)]
    Webhook(WebhookArgsError),
    /// No request could ever be made.
    #[error("--request-deadline must not be zero; write a duration, for example --request-deadline=30s")]
    NoRequestTime,
    /// A request could outlive the creation that it serves.
    #[error(
        "--request-deadline ({request}) must be at most --answer-deadline ({answer}); shorten the first or lengthen the second"
    )]
    RequestOutlivesCreation {
        /// `--request-deadline`.
        request: GoDuration,
        /// `--answer-deadline`.
        answer: GoDuration,
    },
}

impl TryFrom<RunArgs> for Config {
    type Error = ConfigError;

    fn try_from(args: RunArgs) -> Result<Self, Self::Error> {
        let RunArgs { bags, kubernetes, process, leader, webhook, timings } = args;
        let bags_url =
            BaseUrl::parse(&bags.bags_url, bags.allow_http_loopback).map_err(ConfigError::BagsUrl)?;
        let consumer_bags_url = match bags.consumer_bags_url {
            Some(url) => consumer_base_url(&url).ok_or(ConfigError::ConsumerBagsUrl)?,
            None => bags_url.as_str().to_owned(),
        };
        let timings = Timings::from(timings);
        timings.check().map_err(ConfigError::Timings)?;
        let leader = leader.timings().map_err(ConfigError::Leader)?;
        let GoDuration(request_deadline) = bags.request_deadline;
        if request_deadline.is_zero() {
            return Err(ConfigError::NoRequestTime);
        }
        if request_deadline > timings.answer_deadline {
            return Err(ConfigError::RequestOutlivesCreation {
                request: bags.request_deadline,
                answer: GoDuration(timings.answer_deadline),
            });
        }
        Ok(Self {
            bags_url,
            consumer_bags_url,
            bags_ca_file: bags.bags_ca_file,
            request_deadline,
            requests_per_hour: bags.requests_per_hour,
            namespace: kubernetes.namespace,
            instance: kubernetes.instance,
            kubernetes: KubernetesAccess::from_flag(kubernetes.kubeconfig),
            admin_listen: process.admin_listen,
            concurrency: process.concurrency,
            log_format: process.log_format,
            log_filter: process.log,
            leader,
            webhook: webhook.check().map_err(ConfigError::Webhook)?,
            timings,
        })
    }
}

/// A failure to learn how the API server is reached.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesAccessError {
    /// A kubeconfig file could not be read or merged.
    #[error("failed to read the kubeconfig {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// The kubeconfig says nothing usable.
    #[error("failed to use the kubeconfig")]
    Use(#[source] kube::config::KubeconfigError),
    /// There is no kubeconfig and the process is in no pod.
    #[error("failed to find the pod's service account; outside a cluster write --kubeconfig=FILE")]
    InCluster(#[source] kube::config::InClusterError),
}

impl KubernetesAccess {
    /// An empty flag or variable is as good as none.
    fn from_flag(kubeconfig: Option<OsString>) -> Self {
        let joined = kubeconfig.unwrap_or_default();
        let paths: Vec<_> =
            std::env::split_paths(&joined).filter(|path| !path.as_os_str().is_empty()).collect();
        if paths.is_empty() { Self::InCluster } else { Self::Kubeconfig(paths) }
    }

    /// Reads the kubeconfig files or the pod's service account (I/O).
    ///
    /// # Errors
    /// When a file is missing, unreadable or says nothing usable.
    pub async fn read(&self) -> Result<kube::Config, KubernetesAccessError> {
        let paths = match self {
            Self::InCluster => return kube::Config::incluster().map_err(KubernetesAccessError::InCluster),
            Self::Kubeconfig(paths) => paths,
        };
        let mut merged = Kubeconfig::default();
        for path in paths {
            merged = Kubeconfig::read_from(path)
                .and_then(|file| merged.merge(file))
                .map_err(|source| KubernetesAccessError::Read { path: path.clone(), source })?;
        }
        kube::Config::from_custom_kubeconfig(merged, &KubeConfigOptions::default())
            .await
            .map_err(KubernetesAccessError::Use)
    }
}

/// A URL to which applications can add paths: http or https, a host, no user, query or fragment, no slash at the end.
/// The operator sends nothing there, so http is the installer's to choose.
fn consumer_base_url(text: &str) -> Option<String> {
    let url = Url::parse(text.trim()).ok()?;
    let usable = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    usable.then(|| url.as_str().trim_end_matches('/').to_owned())
}

/// A namespace is an RFC 1123 label.
fn namespace(text: &str) -> Result<String, String> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let valid = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    valid
        .then(|| text.to_owned())
        .ok_or_else(|| "write the namespace the operator runs in, for example bags-system".to_owned())
}

fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("{error}; write a level or levels by module, for example info,kube=warn"))
}

#[cfg(test)]
mod tests;
