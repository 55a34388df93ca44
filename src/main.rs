//! `bags-operator`: reads its arguments, sets up its log, runs.

use std::process::ExitCode;

use bags_operator::{
    config::{Cli, Command, Config},
    operator, telemetry,
};
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let Command::Run(arguments) = Cli::parse().command;
    let config = match Config::try_from(*arguments) {
        Ok(config) => config,
        Err(error) => return refuse(&error, 2),
    };
    // Fails only if a provider is installed already; then it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if let Err(error) = telemetry::init(&config) {
        return refuse(&error, 2);
    }
    match operator::run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error, 1),
    }
}

/// Prints an error and its causes.
#[expect(clippy::print_stderr, reason = "the log may not be there yet, and a person started this")]
fn refuse(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    eprintln!("error: {message}");
    ExitCode::from(code)
}
