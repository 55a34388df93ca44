//! The sandbox on a real socket, in this process, so that tests see every key and can take it off the network.
#![allow(dead_code, reason = "each test binary uses its part")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{net::SocketAddr, sync::Arc};

use bags_operator::{
    clock::{Randomness, SystemClock},
    sandbox::{KeyState, KeyView, Sandbox, serve},
};
use tokio::{net::TcpListener, runtime::Runtime};

/// A sandbox and the address that it is served on.
pub(crate) struct SandboxServer {
    /// The sandbox itself.
    pub(crate) sandbox: Sandbox,
    address: SocketAddr,
    /// Its connections run here: when it goes, they break and nothing listens any more.
    runtime: Option<Runtime>,
}

impl SandboxServer {
    /// An empty sandbox on a free port of loopback.
    pub(crate) fn start(seed: u64) -> Self {
        let sandbox = Sandbox::new(Arc::new(SystemClock), Randomness::from_seed(seed));
        let mut server = Self { sandbox, address: "127.0.0.1:0".parse().unwrap(), runtime: None };
        server.up();
        server
    }

    /// Listens (again), on the same address as before.
    pub(crate) fn up(&mut self) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = self.address;
        // On a thread of its own: a runtime cannot be waited for from within another one.
        let bound = std::thread::scope(|scope| {
            let bind = || runtime.block_on(async { TcpListener::bind(address).await.unwrap() });
            scope.spawn(bind).join().unwrap()
        });
        self.address = bound.local_addr().unwrap();
        let sandbox = self.sandbox.clone();
        runtime.spawn(async move { serve(bound, sandbox).await });
        self.runtime = Some(runtime);
    }

    /// Nothing listens any more, and every connection breaks.
    pub(crate) fn down(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Base URL of the API.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/api/v1", self.address)
    }

    /// A URL outside the API: the sandbox's own routes.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Every key ever made for a user.
    pub(crate) fn keys_of(&self, user: &str) -> Vec<KeyView> {
        self.sandbox.keys().into_iter().filter(|key| key.user == user).collect()
    }

    /// The keys of a user that work.
    pub(crate) fn working_keys_of(&self, user: &str) -> Vec<KeyView> {
        self.keys_of(user).into_iter().filter(|key| key.state == KeyState::Active).collect()
    }

    /// What an application does with the value of its Secret: the user that Bags answers for, or the status.
    pub(crate) async fn user_of(&self, value: &str) -> Result<String, u16> {
        let request = reqwest::Client::new().get(format!("{}/auth/me", self.base_url()));
        let answer = request.header("x-api-key", value).send().await.unwrap();
        if !answer.status().is_success() {
            return Err(answer.status().as_u16());
        }
        let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        Ok(body["response"]["user"]["uuid"].as_str().unwrap().to_owned())
    }
}

impl Drop for SandboxServer {
    fn drop(&mut self) {
        self.down();
    }
}
