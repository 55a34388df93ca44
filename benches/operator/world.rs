//! The operator as a program, beside a real control plane and the sandbox.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use bags_operator::api::{ApiKey, BagsAccount, condition};
use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{Namespace, Secret, ServiceAccount},
        rbac::v1::ClusterRoleBinding,
    },
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, ObjectMeta, PostParams},
    config::Kubeconfig,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    task::JoinSet,
};

use crate::{audit::Audit, secrets::LABEL, support::Cluster};

/// The operator's own namespace.
pub(crate) const OWN: &str = "bags-system";
const USER: &str = "system:serviceaccount:bags-system:bags-operator";
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything but the operator.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) audit: Audit,
    pub(crate) sandbox: Sandbox,
    kubeconfig: PathBuf,
    folder: Folder,
}

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // A bench that ended tells its figures, not that a folder of its own resisted.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl World {
    /// Boots a cluster and runs `measure` beside it.
    pub(crate) fn run(accounts: usize, keys_per_account: usize, measure: impl AsyncFnOnce(World)) {
        let cluster = Cluster::boot();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async { measure(Self::begin(&cluster, accounts, keys_per_account).await).await });
    }

    async fn begin(cluster: &Cluster, accounts: usize, keys_per_account: usize) -> Self {
        let folder = Folder(std::env::temp_dir().join(format!("bags-bench-{}", std::process::id())));
        fs::create_dir_all(&folder.0).unwrap();
        let client = cluster.client().await;
        let path =
            cluster.audit_log.clone().expect("requests are counted in the audit log of a cluster of our own");
        let sandbox = Sandbox::start(&folder.0.join("credentials"), accounts, keys_per_account).await;
        create_namespace(&client, OWN).await;
        let kubeconfig = operator_kubeconfig(&client, &cluster.kubeconfig, &folder.0).await;
        let world = Self { client, audit: Audit::new(path, USER.to_owned()), sandbox, kubeconfig, folder };
        for number in 0..accounts {
            world.create_account(number, keys_per_account).await;
        }
        world
    }

    /// Starts the operator; its log goes into a file.
    pub(crate) async fn operator(&self) -> Operator {
        self.operator_with(&[]).await
    }

    /// The same with further flags.
    pub(crate) async fn operator_with(&self, flags: &[&str]) -> Operator {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bags-operator"));
        command
            .args(["run", "--namespace", OWN, "--allow-http-loopback", "--admin-listen", "127.0.0.1:0"])
            .args(["--requests-per-hour", "1000000", "--log-format", "json"])
            .arg(format!("--bags-url={}/api/v1", self.sandbox.base))
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(flags);
        let started = Instant::now();
        let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let line: Value = serde_json::from_str(&next_line(&mut lines).await).unwrap();
            if let Some(address) = line["address"].as_str() {
                break address.parse().unwrap();
            }
        };
        let log = self.folder.0.join("operator.log");
        let mut file = tokio::fs::File::options().create(true).append(true).open(log).await.unwrap();
        let mut drain = JoinSet::new();
        drain.spawn(async move {
            tokio::io::copy_buf(&mut lines, &mut file).await.unwrap();
            file.flush().await.unwrap();
        });
        Operator { child, address, started, http: http_client(), drain }
    }

    /// How many lines of the operator's log are warnings or worse.
    pub(crate) fn warnings(&self) -> usize {
        let log = fs::read_to_string(self.folder.0.join("operator.log")).unwrap_or_default();
        let loud: Vec<&str> =
            log.lines().filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\"")).collect();
        for line in loud.iter().take(3) {
            println!("{line}");
        }
        loud.len()
    }

    /// Waits until every account is ready.
    pub(crate) async fn accounts_ready(&self) {
        let end = Instant::now() + PATIENCE;
        let accounts = Api::<BagsAccount>::all(self.client.clone());
        loop {
            let all = accounts.list(&ListParams::default()).await.unwrap();
            let waiting =
                all.iter().find(|account| !ready(account.status.as_ref().map(|s| s.conditions.as_slice())));
            let Some(account) = waiting else { return };
            assert!(Instant::now() < end, "BagsAccount {}: {:?}", account.name_any(), account.status);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// How many ApiKeys are ready.
    pub(crate) async fn keys_ready(&self) -> usize {
        let keys = Api::<ApiKey>::all(self.client.clone()).list(&ListParams::default()).await.unwrap();
        keys.iter()
            .filter(|key| ready(key.status.as_ref().map(|status| status.conditions.as_slice())))
            .count()
    }

    async fn create_account(&self, number: usize, keys: usize) {
        let token = fs::read(self.sandbox.token_file(number)).unwrap();
        let name = account_name(number);
        let secret = Secret {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            data: Some([("token".to_owned(), ByteString(token))].into()),
            ..Secret::default()
        };
        let options = PostParams::default();
        Api::namespaced(self.client.clone(), OWN).create(&options, &secret).await.unwrap();
        let namespaces: Vec<String> = (0..NAMESPACES).map(namespace_name).collect();
        let account: BagsAccount = serde_json::from_value(json!({
            "apiVersion": "keys.bags.fm/v1alpha1", "kind": "BagsAccount", "metadata": {"name": name},
            "spec": {
                "credentials": {"agentToken": {"secretName": name}},
                "limit": keys, "rotationReserve": 0, "requestsPerHour": 5000,
                "allowed": [{"namespaces": namespaces, "environments": ["production"]}],
            },
        }))
        .unwrap();
        Api::all(self.client.clone()).create(&options, &account).await.unwrap();
    }

    /// Makes the namespaces of the ApiKeys.
    pub(crate) async fn create_namespaces(&self) {
        for number in 0..NAMESPACES {
            create_namespace(&self.client, &namespace_name(number)).await;
        }
    }
}

/// Namespaces over which the ApiKeys are spread.
const NAMESPACES: usize = 10;

pub(crate) fn namespace_name(number: usize) -> String {
    format!("team-{number}")
}

pub(crate) fn account_name(number: usize) -> String {
    format!("account-{number}")
}

/// An ApiKey for an account; its Secret has the same name and the label that is watched for.
pub(crate) fn api_key(number: usize, account: usize) -> ApiKey {
    serde_json::from_value(json!({
        "apiVersion": "keys.bags.fm/v1alpha1", "kind": "ApiKey",
        "metadata": {"name": format!("web-{number}"), "namespace": namespace_name(number % NAMESPACES)},
        "spec": {
            "accountRef": {"name": account_name(account)}, "environment": "production",
            "secret": {"labels": {LABEL: "consumer"}},
        },
    }))
    .unwrap()
}

fn ready(conditions: Option<&[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]>) -> bool {
    conditions.unwrap_or_default().iter().any(|c| c.type_ == condition::kind::READY && c.status == "True")
}

async fn create_namespace(client: &Client, name: &str) {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

/// A kubeconfig with the token of a service account: the operator's requests carry its name in the audit log, and
/// wait in the API server's queues as those of any operator do.
async fn operator_kubeconfig(client: &Client, administrator: &Path, folder: &Path) -> PathBuf {
    let options = PostParams::default();
    let name = "bags-operator";
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), OWN);
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    accounts.create(&options, &ServiceAccount { metadata, ..ServiceAccount::default() }).await.unwrap();
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": OWN}],
    }))
    .unwrap();
    Api::all(client.clone()).create(&options, &binding).await.unwrap();
    let spec = TokenRequestSpec { expiration_seconds: Some(86_400), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let token = accounts.create_token_request(name, &options, &request).await.unwrap().status.unwrap().token;
    let mut kubeconfig = Kubeconfig::read_from(administrator).unwrap();
    for user in &mut kubeconfig.auth_infos {
        user.auth_info = serde_json::from_value(json!({"token": token})).unwrap();
    }
    let path = folder.join("kubeconfig");
    fs::write(&path, serde_json::to_string(&kubeconfig).unwrap()).unwrap();
    path
}

/// The operator as a program.
pub(crate) struct Operator {
    child: Child,
    address: SocketAddr,
    /// When it was started.
    pub(crate) started: Instant,
    http: reqwest::Client,
    drain: JoinSet<()>,
}

impl Operator {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Waits until it is ready; returns how long that took from its start.
    pub(crate) async fn ready(&self) -> Duration {
        self.until("/readyz", |status, _| status == 200).await
    }

    /// Waits until so many reconciles of ApiKeys have ended with nothing left to do.
    pub(crate) async fn reconciled(&self, keys: usize) -> Duration {
        self.until("/metrics", |_, metrics| reconciles_done(metrics) >= keys).await
    }

    async fn until(&self, path: &str, good: impl Fn(u16, &str) -> bool) -> Duration {
        let url = format!("http://{}{path}", self.address);
        loop {
            let answer = self.http.get(&url).send().await.unwrap();
            let status = answer.status().as_u16();
            let body = answer.text().await.unwrap();
            let took = self.started.elapsed();
            if good(status, &body) {
                return took;
            }
            assert!(took < PATIENCE, "{path} does not come up: {body}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it as Kubernetes would; returns how long that took.
    pub(crate) async fn stop(mut self) -> Duration {
        let begun = Instant::now();
        let killed = Command::new("kill").arg(self.pid().to_string()).status().await.unwrap();
        assert!(killed.success());
        let status = self.child.wait().await.unwrap();
        let took = begun.elapsed();
        assert!(status.success(), "the operator ended with {status}");
        while let Some(drained) = self.drain.join_next().await {
            drained.unwrap();
        }
        took
    }
}

fn reconciles_done(metrics: &str) -> usize {
    metrics
        .lines()
        .filter(|line| line.starts_with("bags_operator_reconciles_total{"))
        .filter(|line| line.contains("kind=\"ApiKey\"") && line.contains("outcome=\"Done\""))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}

/// The sandbox as a program.
pub(crate) struct Sandbox {
    child: Child,
    pub(crate) base: String,
    http: reqwest::Client,
    credentials: PathBuf,
}

impl Sandbox {
    async fn start(credentials: &Path, users: usize, limit: usize) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bags-sandbox"))
            .args(["--listen", "127.0.0.1:0", "--rate-limit", "1000000", "--auth-rate-limit", "1000000"])
            .args(["--users".to_owned(), users.to_string(), "--limit".to_owned(), limit.to_string()])
            .arg("--credentials")
            .arg(credentials)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let line = next_line(&mut BufReader::new(child.stdout.take().unwrap())).await;
        let base = line.trim_end().rsplit(' ').next().unwrap().to_owned();
        Self { child, base, http: http_client(), credentials: credentials.to_owned() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    fn token_file(&self, number: usize) -> PathBuf {
        match number {
            0 => self.credentials.join("token"),
            _ => self.credentials.join(format!("user-{}/token", number + 1)),
        }
    }

    /// A user of one's own with room for many keys; returns its token.
    pub(crate) async fn further_user(&self) -> String {
        self.post("/sandbox/users", &json!({"credentialsDir": "further", "options": {"limit": 100_000}}))
            .await;
        fs::read_to_string(self.credentials.join("further/token")).unwrap().trim().to_owned()
    }

    /// Sends a body and returns the answer.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        self.answer(self.http.post(format!("{}{path}", self.base)).body(body.to_string())).await
    }

    /// Asks with a key.
    pub(crate) async fn get(&self, path: &str, key: &str) -> Value {
        self.answer(self.http.get(format!("{}{path}", self.base)).header("x-api-key", key)).await
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Value {
        let answer = request.send().await.unwrap().error_for_status().unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    /// How many requests were asked of the service so far.
    pub(crate) async fn total(&self) -> u64 {
        self.get("/sandbox/requests?limit=1", "").await["total"].as_u64().unwrap()
    }

    /// The requests after this number, each as method, route and time.
    pub(crate) async fn requests(&self, mut after: u64) -> Vec<(String, jiff::Timestamp)> {
        let mut all = Vec::new();
        loop {
            let page = self.get(&format!("/sandbox/requests?after={after}&limit=1000"), "").await;
            let page = page["requests"].as_array().unwrap().clone();
            let Some(last) = page.last() else { return all };
            after = last["number"].as_u64().unwrap();
            all.extend(page.iter().map(|request| {
                let text = |field: &str| request[field].as_str().unwrap();
                let route = text("route").trim_start_matches("/api/v1");
                (format!("{} {route}", text("method")), text("time").parse().unwrap())
            }));
        }
    }
}

fn http_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub(crate) async fn next_line(lines: &mut (impl AsyncBufRead + Unpin)) -> String {
    let mut line = String::new();
    let read = lines.read_line(&mut line).await.unwrap();
    assert!(read > 0, "the program ended before it said where it listens; its words are above");
    line
}
