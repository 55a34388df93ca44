//! `bags-sandbox`: the Bags service in memory, on a socket, to try things on.

use std::error::Error;
use std::future::pending;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bags_operator::clock::{Randomness, SystemClock};
use bags_operator::sandbox::{Capabilities, CredentialsError, Sandbox, Settings, UserOptions, serve};
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The Bags service in memory: both ways of making keys, limits, revocation, faults to order, and a page.
///
/// Makes its users at the start and writes their credentials: wallet.json, token and, with --totp, totp, straight
/// into the credentials directory for the first user, into user-2, user-3, ... below it for the others. The API is
/// below /api/v1, everything that the real service does not have below /sandbox, a table of all keys at /. Whoever
/// reaches the address can revoke every key. Nothing survives the process.
#[derive(Parser)]
#[command(name = "bags-sandbox", version)]
struct Arguments {
    /// Address to listen on; port 0 takes a free one. The first line of output names it.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787", env = "BAGS_SANDBOX_LISTEN")]
    listen: SocketAddr,
    /// Directory for the users' credentials, made if it is not there; files of an earlier run are replaced.
    #[arg(long, value_name = "DIR", env = "BAGS_SANDBOX_CREDENTIALS")]
    credentials: PathBuf,
    /// Users to make at the start, all alike.
    #[arg(long, value_name = "N", default_value_t = 1)]
    users: u32,
    /// Active keys that a user may have.
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: u32,
    /// Ask for a one-time password (RFC 6238: SHA-1, 6 digits, 30 s) when a key is made with a wallet.
    #[arg(long)]
    totp: bool,
    /// Take each one-time password once only.
    #[arg(long, requires = "totp")]
    totp_single_use: bool,
    /// Requests that a user has in any hour, over all keys and credentials.
    #[arg(long, value_name = "N", default_value_t = 5000)]
    rate_limit: u32,
    /// Requests that a wallet has in any hour to the endpoints that make keys with wallets.
    #[arg(long, value_name = "N", default_value_t = 300)]
    auth_rate_limit: u32,
    /// Requests that an IP address has in any hour, over all users; without it addresses are not counted.
    #[arg(long, value_name = "N")]
    ip_rate_limit: Option<u32>,
    /// Agent tokens cannot list keys.
    #[arg(long)]
    no_list: bool,
    /// The list does not show when a key was last used.
    #[arg(long)]
    no_last_use: bool,
    /// There is no revoke endpoint: only a person revokes, on the page.
    #[arg(long)]
    no_revoke: bool,
    /// Answers to creations lack the key's id.
    #[arg(long)]
    no_key_id: bool,
    /// The list shows the keys as they were this many milliseconds ago.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    list_lag_ms: u64,
    /// The list shows a use this many milliseconds after it happened.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    last_use_lag_ms: u64,
    /// Path of the revoke endpoint, below /api/v1.
    #[arg(long, value_name = "PATH", default_value = "/agent/dev/keys/revoke", value_parser = plain_path)]
    revoke_path: String,
}

fn plain_path(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    let taken = [
        "/auth/me",
        "/agent/v2/auth/init",
        "/agent/v2/auth/callback",
        "/agent/dev/keys",
        "/agent/dev/keys/create",
    ];
    if !text.starts_with('/') || !text.chars().all(plain) || taken.contains(&text) {
        return Err(
            "a path of its own that begins with / and holds letters, digits, /, -, _ and . only".to_owned()
        );
    }
    Ok(text.to_owned())
}

impl Arguments {
    fn user(&self) -> UserOptions {
        UserOptions {
            limit: self.limit,
            totp: self.totp,
            totp_single_use: self.totp_single_use,
            capabilities: Capabilities {
                list: !self.no_list,
                last_use: !self.no_last_use,
                revoke: !self.no_revoke,
            },
            list_lag: Duration::from_millis(self.list_lag_ms),
            last_use_lag: Duration::from_millis(self.last_use_lag_ms),
            key_id_in_answer: !self.no_key_id,
            rate_limit: self.rate_limit,
            auth_rate_limit: self.auth_rate_limit,
            suspended: false,
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            credentials: Some(self.credentials.clone()),
            ip_rate_limit: self.ip_rate_limit,
            revoke_path: self.revoke_path.clone(),
            user: self.user(),
        }
    }
}

/// Why the sandbox does not run.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("failed to get randomness from the system")]
    Randomness(#[source] rand::rngs::SysError),
    #[error("failed to write the credentials of user {number}")]
    Credentials {
        number: u32,
        #[source]
        source: CredentialsError,
    },
    #[error("failed to listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("failed to catch the signals that end the process")]
    Signals(#[source] io::Error),
    #[error("failed to say where the sandbox listens")]
    Announce(#[source] io::Error),
    #[error("failed to serve")]
    Serve(#[source] io::Error),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut line = format!("bags-sandbox: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                line.push_str(&format!(": {error}"));
                cause = error.source();
            }
            // Nobody is left to hear that standard error is closed.
            let _ = writeln!(io::stderr(), "{line}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let randomness = Randomness::from_system().map_err(RunError::Randomness)?;
    let sandbox = Sandbox::with_settings(Arc::new(SystemClock), randomness, arguments.settings());
    for number in 1..=arguments.users {
        let below = (number > 1).then(|| format!("user-{number}"));
        let made = sandbox.add_user_on_disk(below.as_deref(), arguments.user());
        made.map_err(|source| RunError::Credentials { number, source })?;
    }
    let address = arguments.listen;
    let listen = |source| RunError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    announce(address).map_err(RunError::Announce)?;
    tokio::select! {
        served = serve(listener, sandbox) => served.map_err(RunError::Serve),
        () = either(&mut terminate, &mut interrupt) => Ok(()),
    }
}

fn announce(address: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "bags-sandbox listening on http://{address}")?;
    out.flush()
}

async fn either(one: &mut tokio::signal::unix::Signal, other: &mut tokio::signal::unix::Signal) {
    let caught = tokio::select! { caught = one.recv() => caught, caught = other.recv() => caught };
    if caught.is_none() {
        pending::<()>().await; // no signal can come any more: serve on
    }
}
