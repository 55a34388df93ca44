//! The operator as people run it: its binary, as a process of its own, with its whole output kept in a file.
//!
//! A shell stands between: it kills the operator when our end of a pipe closes, so none is left behind when a test
//! process ends in whatever way.
#![allow(dead_code, reason = "each test binary uses its part")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bags_operator::{
    config::{Cli, Command as Subcommand, Config},
    timings::Timings,
};
use clap::Parser;
use kube::config::Kubeconfig;
use tokio::sync::watch;

use super::{Cluster, sandbox::SandboxServer};

/// The user whom the operator's requests are shown under in the audit log.
pub(crate) const USER: &str = "bags-operator";

/// It must be ready within this.
const START_LIMIT: Duration = Duration::from_secs(60);
/// It must end within this once it is told to.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Runs its arguments until they end or its own input does; tells the process id before and the exit code after.
const SUPERVISE: &str = r#"
    exec 3<&0
    "$@" </dev/null 3<&- 2>&1 &
    child=$!
    echo "pid $child"
    { cat <&3; kill -9 "$child"; } >/dev/null 2>&1 &
    watcher=$!
    wait "$child"
    code=$?
    kill "$watcher"
    echo "exit $code"
"#;

/// How an operator is started.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// Kubeconfig of the user [`USER`].
    kubeconfig: PathBuf,
    /// Base URL of the service.
    bags_url: String,
    /// The operator's own namespace.
    pub(crate) namespace: String,
    /// Further flags.
    flags: Vec<String>,
    /// Where its output goes.
    log: PathBuf,
}

impl Launch {
    /// With these further flags, against that cluster and sandbox.
    pub(crate) fn new(cluster: &Cluster, sandbox: &SandboxServer, namespace: &str, flags: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let kubeconfig = folder.join(format!("operator-{name}.kubeconfig"));
        write_kubeconfig(&cluster.kubeconfig, &kubeconfig, USER, &["system:masters"]);
        Self {
            kubeconfig,
            bags_url: sandbox.base_url(),
            namespace: namespace.to_owned(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            log: folder.join(format!("operator-{name}.log")),
        }
    }

    /// Another replica, with a log of its own.
    pub(crate) fn another(&self) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { log: self.log.with_extension(format!("replica-{number}.log")), ..self.clone() }
    }

    /// As another user, with no more rights than are bound to that name.
    pub(crate) fn with_user(self, cluster: &Cluster, user: &str) -> Self {
        let kubeconfig = self.log.with_extension("kubeconfig");
        write_kubeconfig(&cluster.kubeconfig, &kubeconfig, user, &[]);
        Self { kubeconfig, ..self }
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "run".to_owned(),
            format!("--kubeconfig={}", self.kubeconfig.display()),
            format!("--bags-url={}", self.bags_url),
            "--allow-http-loopback".to_owned(),
            format!("--namespace={}", self.namespace),
            "--admin-listen=127.0.0.1:0".to_owned(),
        ];
        arguments.extend(self.flags.iter().cloned());
        arguments
    }

    /// The durations that these flags mean.
    pub(crate) fn timings(&self) -> Timings {
        let line = std::iter::once("bags-operator".to_owned()).chain(self.arguments());
        let Subcommand::Run(arguments) = Cli::try_parse_from(line).unwrap().command;
        Config::try_from(*arguments).unwrap().timings
    }

    /// Starts the process; does not wait until it is ready.
    pub(crate) fn spawn(&self) -> Operator {
        let mut shell = Command::new("sh")
            .args(["-c", SUPERVISE, "sh"])
            .arg(env!("CARGO_BIN_EXE_bags-operator"))
            .args(self.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (tell, seen) = watch::channel(Seen::default());
        let output = shell.stdout.take().expect("its output is a pipe");
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let reader = std::thread::spawn(move || keep(BufReader::new(output), log, &tell));
        Operator { shell, reader: Some(reader), seen, launch: self.clone() }
    }

    /// Starts the process and waits until it is ready.
    pub(crate) async fn start(&self) -> Operator {
        let operator = self.spawn();
        operator.ready().await;
        operator
    }

    /// Everything that operators of this launch have written so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

/// The administrator's kubeconfig, but the requests are those of a user of their own, so that the audit log tells them
/// apart.
fn write_kubeconfig(from: &Path, to: &Path, name: &str, groups: &[&str]) {
    let mut kubeconfig = Kubeconfig::read_from(from).unwrap();
    for user in kubeconfig.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()) {
        user.impersonate = Some(name.to_owned());
        user.impersonate_groups = Some(groups.iter().map(|group| (*group).to_owned()).collect());
    }
    std::fs::write(to, serde_saphyr::to_string(&kubeconfig).unwrap()).unwrap();
}

/// What the first lines of the output tell.
#[derive(Clone, Debug, Default)]
struct Seen {
    process: Option<u32>,
    admin: Option<SocketAddr>,
    /// Its exit code; with SIGKILL 137.
    exit: Option<i32>,
    ended: bool,
}

/// Writes all output to a file and finds out what [`Seen`] is for.
fn keep(mut output: impl BufRead, mut log: File, tell: &watch::Sender<Seen>) {
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        log.write_all(&line).unwrap();
        let text = String::from_utf8_lossy(&line);
        if let Some(code) = text.strip_prefix("exit ").and_then(|code| code.trim().parse().ok()) {
            tell.send_modify(|seen| seen.exit = Some(code));
        }
        if let Some(process) = text.strip_prefix("pid ").and_then(|pid| pid.trim().parse().ok()) {
            tell.send_modify(|seen| seen.process = Some(process));
        }
        if tell.borrow().admin.is_none() {
            let address = text.split_whitespace().find_map(|word| word.strip_prefix("address="));
            if let Some(address) = address.and_then(|address| address.trim_matches('"').parse().ok()) {
                tell.send_modify(|seen| seen.admin = Some(address));
            }
        }
        line.clear();
    }
    tell.send_modify(|seen| seen.ended = true);
}

/// A running operator. Dropped, it is killed.
pub(crate) struct Operator {
    shell: Child,
    reader: Option<std::thread::JoinHandle<()>>,
    seen: watch::Receiver<Seen>,
    pub(crate) launch: Launch,
}

impl Operator {
    /// Waits until every watch is synced.
    pub(crate) async fn ready(&self) {
        let wait = async {
            let address = self.admin().await;
            let mut pause = tokio::time::interval(Duration::from_millis(20));
            loop {
                pause.tick().await;
                let answer = reqwest::get(format!("http://{address}/readyz")).await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
            }
        };
        if tokio::time::timeout(START_LIMIT, wait).await.is_err() {
            panic!("the operator is not ready in time; the end of its log: {}", self.tail());
        }
    }

    /// Waits until its metrics have this line.
    pub(crate) async fn shows(&self, line: &str) {
        let wait = async {
            let mut pause = tokio::time::interval(Duration::from_millis(50));
            loop {
                pause.tick().await;
                if self.metrics().await.lines().any(|shown| shown == line) {
                    return;
                }
            }
        };
        if tokio::time::timeout(START_LIMIT, wait).await.is_err() {
            panic!("the operator's metrics do not show \"{line}\"; the end of its log: {}", self.tail());
        }
    }

    async fn admin(&self) -> SocketAddr {
        let mut seen = self.seen.clone();
        let seen = seen.wait_for(|seen| seen.admin.is_some() || seen.ended).await.unwrap().clone();
        seen.admin.unwrap_or_else(|| panic!("the operator ended at once: {}", self.tail()))
    }

    /// What Prometheus would read.
    pub(crate) async fn metrics(&self) -> String {
        let address = self.admin().await;
        reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap()
    }

    /// What a series of its metrics is at now; `None`: it has no such series.
    pub(crate) async fn measures(&self, series: &str) -> Option<f64> {
        let metrics = self.metrics().await;
        let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.parse().unwrap())
    }

    /// Its process id.
    pub(crate) fn process(&self) -> u32 {
        self.seen.borrow().process.expect("it was started")
    }

    /// SIGKILL: nothing is tidied up. Returns when the process is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// SIGTERM, and its orderly end.
    pub(crate) async fn stop(mut self) {
        let process = self.process();
        assert!(terminate(process), "the operator had ended before it was told to: {}", self.tail());
        let exit = self.exit().await;
        self.end();
        assert_eq!(exit, Some(0), "the operator did not end in order: {}", self.tail());
    }

    /// Waits until it ends by itself; its exit code.
    pub(crate) async fn ends(mut self) -> Option<i32> {
        let exit = self.exit().await;
        self.end();
        exit
    }

    async fn exit(&self) -> Option<i32> {
        let mut seen = self.seen.clone();
        match tokio::time::timeout(END_LIMIT, seen.wait_for(|seen| seen.ended)).await {
            Ok(seen) => seen.unwrap().exit,
            Err(_) => panic!("the operator did not end in time: {}", self.tail()),
        }
    }

    fn end(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    /// The last lines of its log, for messages of failed tests.
    pub(crate) fn tail(&self) -> String {
        self.tail_about("")
    }

    /// The last lines of its log that speak of something.
    pub(crate) fn tail_about(&self, what: &str) -> String {
        let log = self.launch.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(what)).collect();
        let last = lines.iter().skip(lines.len().saturating_sub(60));
        last.fold(String::new(), |text, line| format!("{text}\n{line}"))
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.end();
    }
}

/// SIGTERM, by the shell's own command: not every machine has a program for it. Whether there was such a process.
pub(crate) fn terminate(process: u32) -> bool {
    Command::new("sh").args(["-c", "kill -TERM \"$0\"", &process.to_string()]).status().unwrap().success()
}
