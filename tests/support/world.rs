//! A cluster, a sandbox, an operator between them, and the watch that judges every ledger.
#![allow(dead_code, reason = "each test binary uses its part")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use futures::future::select_all;
use k8s_openapi::api::{admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Namespace};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    Cluster,
    ledgers::LedgerWatch,
    named_by_user,
    operator::{Launch, Operator},
    sandbox::SandboxServer,
};

/// Durations that let a test see the end of what takes minutes in production. The resync stays at its ten minutes, so
/// that what recovers does so because it was woken.
pub(crate) const QUICK: [&str; 20] = [
    "--log=info,bags_operator=trace",
    "--requests-per-hour=100000",
    "--request-deadline=4s",
    "--begin-deadline=5s",
    "--answer-deadline=5s",
    "--save-deadline=6s",
    "--judge-after=7s",
    "--licence-term=6s",
    "--settle-delay=2s",
    "--mark-delay=3s",
    "--propagation=4s",
    "--lists-apart=1s",
    "--death-apart=1s",
    "--death-without-control=2s",
    "--cover-without-key=2s",
    "--refusal-backoff=2s",
    "--limit-recheck=2s",
    "--reserved-reap-after=5s",
    "--deletion-advice=3s",
    "--scan-every=1s",
];

/// Everything that a test of the operator needs.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) sandbox: SandboxServer,
    pub(crate) ledgers: LedgerWatch,
    /// How the operator is started (again).
    pub(crate) launch: Launch,
    /// None while a test has it down.
    pub(crate) operator: Option<Operator>,
}

impl World {
    /// The world that the tests of this binary share, each with a namespace, an account and a user of its own.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceLock<World> = OnceLock::new();
        let boot = || {
            let cluster = Cluster::boot();
            // A runtime of its own, as the world outlives the test that comes first.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(Self::start(cluster, &QUICK))
        };
        tokio::task::spawn_blocking(move || SHARED.get_or_init(boot)).await.expect("the world begins")
    }

    /// A world for tests that take turns: they order faults, or start and end the operator. Two have one at the same
    /// time, where the user names no cluster; it had others before them, the rest is new. The flags take the place of
    /// those of [`QUICK`], or come after them.
    pub(crate) async fn alone(flags: &[&str]) -> Alone {
        Self::alone_after(flags, async |_| {}).await
    }

    /// The same, with something done in the cluster before the operator starts.
    pub(crate) async fn alone_after(flags: &[&str], first: impl AsyncFnOnce(kube::Client)) -> Alone {
        static TURNS: [Mutex<Option<Cluster>>; 2] = [const { Mutex::const_new(None) }; 2];
        let turns = if named_by_user().is_some() { &TURNS[..1] } else { &TURNS };
        let (mut turn, ..) = select_all(turns.iter().map(|turn| Box::pin(turn.lock()))).await;
        if turn.is_none() {
            let boot = tokio::task::spawn_blocking(Cluster::boot);
            *turn = Some(boot.await.expect("the cluster boots; its own words are above"));
        }
        let cluster = turn.clone().expect("it was just booted");
        // A test that failed has left its configuration, which names a webhook that is gone.
        let hooks: Api<ValidatingWebhookConfiguration> = Api::all(cluster.client().await);
        let _ = hooks.delete("bags-operator", &DeleteParams::default()).await;
        first(cluster.client().await).await;
        let name = |flag: &str| flag.split_once('=').map_or(flag.to_owned(), |(name, _)| name.to_owned());
        let replaced = |quick: &&&str| flags.iter().any(|flag| name(flag) == name(quick));
        let quick = QUICK.iter().filter(|quick| !replaced(quick));
        let flags: Vec<&str> = quick.chain(flags).copied().collect();
        Alone { world: Self::start(cluster, &flags).await, _turn: turn }
    }

    async fn start(cluster: Cluster, flags: &[&str]) -> Self {
        static SEED: AtomicU32 = AtomicU32::new(1);
        let sandbox = SandboxServer::start(u64::from(SEED.fetch_add(1, Ordering::Relaxed)));
        let namespace = cluster.namespace(&cluster.client().await, "bags-system").await;
        let launch = Launch::new(&cluster, &sandbox, &namespace, flags);
        let ledgers = LedgerWatch::start(&cluster, launch.timings());
        let operator = Some(launch.start().await);
        Self { cluster, sandbox, ledgers, launch, operator }
    }

    /// The running operator.
    pub(crate) fn operator(&self) -> &Operator {
        self.operator.as_ref().expect("the test has it running")
    }

    /// Kills the operator and starts another one; returns when it is ready.
    pub(crate) async fn restart(&mut self) {
        self.operator.take().expect("the test has it running").kill();
        self.operator = Some(self.launch.start().await);
    }
}

/// A world and the turn in which it is one's own.
pub(crate) struct Alone {
    pub(crate) world: World,
    _turn: MutexGuard<'static, Option<Cluster>>,
}

/// A namespace of the given name.
pub(crate) async fn create_namespace(client: kube::Client, namespace: Namespace) -> Namespace {
    Api::all(client).create(&PostParams::default(), &namespace).await.unwrap()
}
