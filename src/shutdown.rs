//! From SIGTERM and SIGINT to one cancellation token. What then ends, and in which order, is decided in `operator/end.rs`.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// The signals that end the process, caught from the moment of [`catch`](Self::catch).
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches SIGTERM and SIGINT from now on: neither ends the process by itself any more.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first signal and cancels the token; ends as well when the token is cancelled elsewhere.
    pub async fn cancel(mut self, token: CancellationToken) {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = token.cancelled() => return,
        };
        info!(signal = name, "Shutdown begins");
        token.cancel();
    }
}

#[cfg(test)]
mod tests {
    use tokio::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_signal_cancels_the_token_even_if_it_came_before_anyone_waited() {
        for name in ["-TERM", "-INT"] {
            let signals = Signals::catch().unwrap();
            let token = CancellationToken::new();
            let own = std::process::id().to_string();
            let kill = ["-c", "kill \"$0\" \"$1\"", name, &own];
            assert!(Command::new("sh").args(kill).status().await.unwrap().success());
            signals.cancel(token.clone()).await;
            assert!(token.is_cancelled(), "{name}");
        }
    }

    #[tokio::test]
    async fn waiting_for_a_signal_ends_with_the_token() {
        let token = CancellationToken::new();
        token.cancel();
        Signals::catch().unwrap().cancel(token).await;
    }
}
