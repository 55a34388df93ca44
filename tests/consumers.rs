//! The world's model of workloads, kubelets and applications (`tests/world/cluster.rs`) does what the real ones do, as far
//! as anything that restarts them can tell.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

#[path = "world/apiserver.rs"]
mod apiserver;
#[allow(dead_code, reason = "of the world's clock only the time is used here")]
#[path = "world/clock.rs"]
mod clock;
#[path = "world/cluster.rs"]
mod cluster;

use std::{sync::Arc, time::Duration};

use apiserver::ApiServer;
use bags_operator::clock::Clock;
use base64::{Engine, engine::general_purpose::STANDARD};
use clock::VirtualClock;
use cluster::{Cluster, Consumer, Kind, Reads};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    core::v1::Pod,
};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const SHOP: &str = "shop";

/// A namespace with one workload, called `web`, which reads the Secret `web`.
struct Stage {
    api: ApiServer,
    clock: Arc<VirtualClock>,
    cluster: Cluster,
}

impl Stage {
    fn new(consumer: Consumer) -> Self {
        let clock = Arc::new(VirtualClock::new());
        let api = ApiServer::new(clock.clone());
        api.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SHOP}})).unwrap();
        let cluster = Cluster::new(api.clone(), clock.clone(), SHOP);
        cluster.declare(consumer);
        Self { api, clock, cluster }
    }

    /// With a Secret that holds `one`, and all of its pods running.
    async fn settled(consumer: Consumer) -> Self {
        let stage = Self::new(consumer);
        stage.write("one");
        stage.settle().await;
        stage
    }

    fn write(&self, value: &str) {
        let data = json!({"BAGS_API_KEY": STANDARD.encode(value)});
        let metadata = json!({"name": "web", "namespace": SHOP});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data});
        if self.api.create(secret).is_err() {
            self.api.edit("secrets", SHOP, "web", |secret| secret["data"] = data).unwrap();
        }
    }

    fn edit(&self, resource: &str, change: impl FnOnce(&mut Value)) {
        self.api.edit(resource, SHOP, "web", change).unwrap();
    }

    /// As `kubectl rollout restart` does.
    fn restart(&self, resource: &str) {
        let version = self.api.version().to_string();
        self.edit(resource, |object| {
            object["spec"]["template"]["metadata"]["annotations"]["example.com/at"] = json!(version);
        });
    }

    /// Until nothing is due any more.
    async fn settle(&self) {
        self.watched(|_| {}).await;
    }

    /// The same; looks at the pods whenever something happened.
    async fn watched(&self, mut look: impl FnMut(&Stage)) {
        loop {
            self.cluster.step();
            look(self);
            match self.cluster.next_event() {
                Some(at) => tokio::time::sleep_until(at).await,
                None => return,
            }
        }
    }

    /// For so long.
    async fn passes(&self, time: Duration) {
        let end = self.clock.monotonic() + time;
        loop {
            self.cluster.step();
            match self.cluster.next_event().filter(|at| *at <= end) {
                Some(at) => tokio::time::sleep_until(at).await,
                None => break,
            }
        }
        tokio::time::sleep_until(end).await;
        self.cluster.step();
    }

    fn pods(&self) -> Vec<Arc<Value>> {
        self.api.list("pods")
    }

    fn names(&self) -> Vec<String> {
        self.pods().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    fn ready(&self) -> usize {
        let ready = |pod: &&Arc<Value>| pod["status"]["containerStatuses"][0]["ready"] == true;
        self.pods().iter().filter(ready).filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).count()
    }

    fn values(&self) -> Vec<String> {
        self.cluster.held().into_iter().map(|held| held.value).collect()
    }

    fn status(&self, resource: &str) -> Value {
        self.api.get(resource, SHOP, "web").unwrap()["status"].clone()
    }

    /// Why a Deployment's roll-out is where it is.
    fn progress(&self) -> String {
        let status = self.status("deployments");
        let conditions = status["conditions"].as_array().unwrap();
        let one = conditions.iter().find(|one| one["type"] == "Progressing").unwrap();
        one["reason"].as_str().unwrap().to_owned()
    }
}

fn web(kind: Kind, reads: Reads) -> Consumer {
    Consumer::of("web", kind, reads)
}

fn typed<T: DeserializeOwned>(stage: &Stage, resource: &str) -> Vec<T> {
    stage.api.list(resource).iter().map(|object| T::deserialize(&**object).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_restart_brings_the_new_value_to_every_pod_with_no_more_gap_than_the_kind_has() {
    for (kind, resource, fewest) in [
        (Kind::Deployment, "deployments", 3),
        (Kind::StatefulSet, "statefulsets", 2),
        (Kind::DaemonSet, "daemonsets", 2),
    ] {
        let stage = Stage::settled(web(kind, Reads::Env).replicas(3)).await;
        assert_eq!(stage.values(), ["one"; 3], "{kind:?}");
        stage.write("two");
        stage.settle().await;
        assert_eq!(stage.values(), ["one"; 3], "{kind:?}: an environment does not change");
        stage.restart(resource);
        let mut seen = usize::MAX;
        stage.watched(|stage| seen = seen.min(stage.ready())).await;
        assert_eq!(seen, fewest, "{kind:?}");
        assert_eq!(stage.values(), ["two"; 3], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_strategy_may_leave_a_gap_or_wait_for_people() {
    let rolling = |surge, unavailable| json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
    let on_delete = json!({"type": "OnDelete"});
    let (old, new) = (["one"; 2], ["two"; 2]);
    for (kind, resource, strategy, fewest, most, values) in [
        (Kind::Deployment, "deployments", json!({"type": "Recreate"}), 0, 2, new),
        (Kind::Deployment, "deployments", rolling(0, 1), 1, 2, new),
        (Kind::Deployment, "deployments", rolling(2, 0), 2, 4, new),
        (Kind::StatefulSet, "statefulsets", on_delete.clone(), 2, 2, old),
        (Kind::DaemonSet, "daemonsets", on_delete, 2, 2, old),
        (
            Kind::StatefulSet,
            "statefulsets",
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}),
            1,
            2,
            ["one", "two"],
        ),
    ] {
        let words = format!("{kind:?} {strategy}");
        let stage = Stage::settled(web(kind, Reads::Env).grace(Duration::ZERO).strategy(strategy)).await;
        stage.write("two");
        stage.restart(resource);
        let (mut low, mut high) = (usize::MAX, 0);
        stage.watched(|stage| (low, high) = (low.min(stage.ready()), high.max(stage.names().len()))).await;
        assert_eq!((low, high), (fewest, most), "{words}");
        assert_eq!(stage.values(), values, "{words}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_is_made_from_the_lowest_and_rolled_from_the_highest_one_at_a_time() {
    let stage = Stage::settled(web(Kind::StatefulSet, Reads::Env).replicas(3)).await;
    assert_eq!(stage.names(), ["web-0", "web-1", "web-2"]);
    let uid = |stage: &Stage, name: &str| {
        stage.api.get("pods", SHOP, name).map(|pod| pod["metadata"]["uid"].clone())
    };
    let before = stage.names().iter().map(|name| uid(&stage, name)).collect::<Vec<_>>();
    stage.restart("statefulsets");
    let mut order = Vec::new();
    stage
        .watched(|stage| {
            for (index, before) in before.iter().enumerate() {
                if uid(stage, &format!("web-{index}")) != *before && !order.contains(&index) {
                    order.push(index);
                }
            }
        })
        .await;
    assert_eq!(order, [2, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn pods_belong_to_the_workload_through_references() {
    let stage = Stage::settled(web(Kind::Deployment, Reads::File)).await;
    let deployment = typed::<Deployment>(&stage, "deployments").remove(0);
    let set = typed::<ReplicaSet>(&stage, "replicasets").remove(0);
    let owner = &set.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((&*owner.kind, Some(&owner.uid)), ("Deployment", deployment.metadata.uid.as_ref()));
    for pod in typed::<Pod>(&stage, "pods") {
        let owner = &pod.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((&*owner.kind, Some(&owner.uid)), ("ReplicaSet", set.metadata.uid.as_ref()));
        let volume = &pod.spec.unwrap().volumes.unwrap()[0];
        assert_eq!(volume.secret.as_ref().unwrap().secret_name.as_deref(), Some("web"));
    }
    for (kind, resource, name) in [
        (Kind::StatefulSet, "statefulsets", "StatefulSet"),
        (Kind::DaemonSet, "daemonsets", "DaemonSet"),
        (Kind::Job, "", "Job"),
    ] {
        let stage = Stage::new(web(kind, Reads::Env));
        stage.write("one");
        stage.passes(Duration::from_mins(1)).await;
        let owner = typed::<Pod>(&stage, "pods").remove(0).metadata.owner_references.unwrap().remove(0);
        assert_eq!(owner.kind, name);
        let object = stage.api.get(resource, SHOP, "web");
        assert!(object.is_none_or(|object| object["metadata"]["uid"] == *owner.uid));
    }
    assert!(typed::<StatefulSet>(&stage, "statefulsets").is_empty());
    assert!(typed::<DaemonSet>(&stage, "daemonsets").is_empty());
    let alone = Stage::settled(web(Kind::Pod, Reads::Env)).await;
    assert!(typed::<Pod>(&alone, "pods")[0].metadata.owner_references.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_starts_has_the_secret_as_its_kubelet_knew_it() {
    let consumer = web(Kind::Deployment, Reads::Env).served_from_a_cache(Duration::from_secs(45));
    let stage = Stage::settled(consumer).await;
    stage.passes(Duration::from_mins(10)).await;
    stage.write("two");
    stage.restart("deployments");
    stage.settle().await;
    assert_eq!(stage.values(), ["one"; 2], "the pods were made within 45 s of the write");
    stage.passes(Duration::from_secs(45)).await;
    stage.restart("deployments");
    stage.settle().await;
    assert_eq!(stage.values(), ["two"; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_file_is_read_again_only_where_the_template_says_so_and_ninety_seconds_late() {
    for (reads, at_once, later) in [(Reads::ReloadedFile, "one", "two"), (Reads::File, "one", "one")] {
        let stage = Stage::settled(web(Kind::Deployment, reads)).await;
        let says = stage.pods()[0]["metadata"]["annotations"]["keys.bags.fm/reloads"] == "true";
        assert_eq!(says, reads == Reads::ReloadedFile);
        stage.write("two");
        stage.passes(Duration::from_secs(89)).await;
        assert_eq!(stage.values(), [at_once; 2], "{reads:?}");
        stage.passes(Duration::from_secs(2)).await;
        assert_eq!(stage.values(), [later; 2], "{reads:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_a_lagging_kubelet_mounted_is_read_again_once_the_kubelet_knows() {
    let consumer = web(Kind::Deployment, Reads::ReloadedFile).served_from_a_cache(Duration::from_secs(45));
    let stage = Stage::settled(consumer).await;
    stage.passes(Duration::from_mins(10)).await;
    stage.write("two");
    stage.restart("deployments");
    stage.passes(Duration::from_secs(40)).await;
    assert!(stage.values().contains(&"one".to_owned()));
    stage.settle().await;
    assert_eq!(stage.values(), ["two"; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_nodes_clock_is_wrong_about_starts_and_about_nothing_else() {
    for skew in [SignedDuration::from_mins(5), SignedDuration::from_mins(-5)] {
        let stage = Stage::new(web(Kind::Deployment, Reads::Env).clocks_off_by(skew));
        let begin = Timestamp::from_second(stage.clock.wall().as_second()).unwrap();
        stage.write("one");
        stage.settle().await;
        for pod in stage.pods() {
            let time =
                |place: &str| pod.pointer(place).unwrap().as_str().unwrap().parse::<Timestamp>().unwrap();
            let started = time("/status/containerStatuses/0/state/running/startedAt");
            assert_eq!(time("/metadata/creationTimestamp"), begin);
            assert_eq!(started, begin + SignedDuration::from_secs(2) + skew);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_deleted_works_on_until_its_grace_is_over() {
    let stage = Stage::settled(web(Kind::Deployment, Reads::Env).grace(Duration::from_mins(1))).await;
    let names = stage.names();
    stage.write("two");
    stage.restart("deployments");
    stage.passes(Duration::from_secs(30)).await;
    let ending: Vec<_> =
        stage.pods().into_iter().filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null()).collect();
    assert_eq!(ending.len(), 2);
    assert_eq!(stage.values().iter().filter(|value| *value == "one").count(), 2);
    assert_eq!(stage.status("deployments")["updatedReplicas"], 2, "what is ending counts no more");
    assert_eq!(stage.progress(), "NewReplicaSetAvailable");
    stage.passes(Duration::from_secs(60)).await;
    assert_eq!(stage.values(), ["two"; 2]);
    assert!(stage.names().iter().all(|name| !names.contains(name)));
}

#[tokio::test(start_paused = true)]
async fn a_broken_roll_out_keeps_the_old_pods_until_somebody_mends_it() {
    let stage = Stage::settled(web(Kind::Deployment, Reads::Env).which_breaks()).await;
    stage.write("two");
    stage.restart("deployments");
    stage.passes(Duration::from_mins(5)).await;
    assert_eq!((stage.values(), stage.ready()), (vec!["one".to_owned(); 2], 2));
    let waits = |pod: &&Arc<Value>| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    };
    assert_eq!(stage.pods().iter().filter(waits).count(), 1);
    assert_eq!(stage.progress(), "ReplicaSetUpdated");
    stage.passes(Duration::from_mins(6)).await;
    assert_eq!(stage.progress(), "ProgressDeadlineExceeded");
    assert_eq!(stage.cluster.next_event(), None, "nothing moves until somebody does something");
    stage.cluster.mend("web");
    stage.settle().await;
    assert_eq!(stage.values(), ["two"; 2]);
    assert_eq!(stage.progress(), "NewReplicaSetAvailable");
}

#[tokio::test(start_paused = true)]
async fn a_paused_deployment_is_rolled_once_it_goes_on() {
    let stage = Stage::settled(web(Kind::Deployment, Reads::Env).paused()).await;
    stage.write("two");
    stage.restart("deployments");
    stage.settle().await;
    assert_eq!(stage.values(), ["one"; 2]);
    let object = stage.api.get("deployments", SHOP, "web").unwrap();
    assert_eq!(object["status"]["observedGeneration"], object["metadata"]["generation"]);
    stage.edit("deployments", |object| object["spec"]["paused"] = json!(false));
    stage.settle().await;
    assert_eq!(stage.values(), ["two"; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_to_its_end_once_and_a_bare_pod_is_made_again_by_people_only() {
    let job = Stage::settled(web(Kind::Job, Reads::Env).runs_for(Duration::from_mins(3))).await;
    assert_eq!((job.values().len(), job.names().len()), (0, 1));
    assert_eq!(job.pods()[0]["status"]["phase"], "Succeeded");
    let alone = Stage::settled(web(Kind::Pod, Reads::Env)).await;
    alone.write("two");
    alone.settle().await;
    assert_eq!(alone.values(), ["one"]);
    alone.cluster.replace_bare_pod("web");
    alone.settle().await;
    assert_eq!(alone.values(), ["two"]);
    alone.api.delete("pods", SHOP, "web").unwrap();
    alone.settle().await;
    assert!(alone.names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn whoever_is_outside_calls_with_what_they_copied_until_they_stop() {
    let stage = Stage::settled(web(Kind::Outside, Reads::Env)).await;
    assert!(stage.names().is_empty(), "no pod tells of them");
    stage.write("two");
    stage.settle().await;
    assert_eq!(stage.values(), ["one"]);
    stage.cluster.kill_containers("web");
    stage.settle().await;
    assert_eq!(stage.values(), ["two"]);
    stage.cluster.stop_outside("web");
    assert_eq!(stage.cluster.step().calls.len(), 1, "a last time");
    stage.settle().await;
    assert!(stage.values().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_container_waits_for_its_secret() {
    let stage = Stage::new(web(Kind::Deployment, Reads::Env));
    stage.passes(Duration::from_mins(5)).await;
    let reason = stage.pods()[0]["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    assert_eq!((reason, stage.values().len()), (json!("CreateContainerConfigError"), 0));
    stage.write("one");
    stage.settle().await;
    assert_eq!((stage.values(), stage.ready()), (vec!["one".to_owned(); 2], 2));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_starts_again_in_its_pod_has_the_new_value() {
    let stage = Stage::settled(web(Kind::Deployment, Reads::Env)).await;
    let names = stage.names();
    stage.write("two");
    stage.cluster.kill_containers("web");
    assert_eq!(stage.ready(), 0);
    stage.settle().await;
    assert_eq!((stage.values(), stage.names()), (vec!["two".to_owned(); 2], names));
    assert_eq!(stage.pods()[0]["status"]["containerStatuses"][0]["restartCount"], 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_deleted_workload_owned_goes_with_it() {
    for (kind, resource) in [
        (Kind::Deployment, "deployments"),
        (Kind::StatefulSet, "statefulsets"),
        (Kind::DaemonSet, "daemonsets"),
    ] {
        let stage = Stage::settled(web(kind, Reads::Env)).await;
        stage.api.delete(resource, SHOP, "web").unwrap();
        stage.settle().await;
        assert!(stage.names().is_empty() && stage.api.list("replicasets").is_empty(), "{kind:?}");
        assert!(stage.values().is_empty());
        stage.write("two");
        stage.cluster.declare(web(kind, Reads::Env));
        stage.settle().await;
        assert_eq!(stage.values(), ["two"; 2], "{kind:?}: applied again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_goes_is_gone_once_its_pods_have_ended() {
    let stage = Stage::settled(web(Kind::Deployment, Reads::Env)).await;
    stage.api.delete("namespaces", "", SHOP).unwrap();
    assert!(!stage.api.finish_namespace(SHOP));
    let version = stage.api.version();
    assert!(!stage.api.finish_namespace(SHOP));
    assert_eq!(stage.api.version(), version, "to ask again changes nothing");
    stage.settle().await;
    assert!(stage.names().is_empty());
    assert!(stage.api.finish_namespace(SHOP));
}

#[tokio::test(start_paused = true)]
async fn an_application_calls_when_it_begins_to_hold_a_value_and_when_it_lets_go_of_it() {
    let stage = Stage::new(web(Kind::Pod, Reads::ReloadedFile));
    stage.write("one");
    let mut calls = Vec::new();
    let mut go_on = async |stage: &Stage| loop {
        calls.extend(stage.cluster.step().calls.into_iter().map(|held| held.value));
        match stage.cluster.next_event() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => return,
        }
    };
    go_on(&stage).await;
    stage.write("two");
    go_on(&stage).await;
    stage.api.delete("pods", SHOP, "web").unwrap();
    go_on(&stage).await;
    assert_eq!(calls, ["one", "one", "two", "two"]);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_declared_nothing_is_done() {
    let clock = Arc::new(VirtualClock::new());
    let api = ApiServer::new(clock.clone());
    let cluster = Cluster::new(api.clone(), clock, "default");
    let version = api.version();
    let happened = cluster.step();
    assert!(happened.notes.is_empty() && happened.calls.is_empty());
    assert_eq!((cluster.next_event(), cluster.words().len(), api.version()), (None, 0, version));
}

/// What may be done to a Deployment.
#[derive(Clone, Debug)]
enum Deed {
    Write(u8),
    Restart,
    Scale(usize),
    DeleteAPod(usize),
    KillContainers,
    Pause(bool),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => any::<u8>().prop_map(Deed::Write),
        4 => Just(Deed::Restart),
        1 => (1..4_usize).prop_map(Deed::Scale),
        1 => (0..4_usize).prop_map(Deed::DeleteAPod),
        1 => Just(Deed::KillContainers),
        1 => any::<bool>().prop_map(Deed::Pause),
    ]
}

fn kind() -> impl Strategy<Value = (Kind, &'static str)> {
    prop::sample::select(vec![
        (Kind::Deployment, "deployments"),
        (Kind::StatefulSet, "statefulsets"),
        (Kind::DaemonSet, "daemonsets"),
    ])
}

async fn any_order((kind, resource): (Kind, &'static str), lags: [u64; 3], deeds: Vec<(Deed, u64)>) {
    let [start, cache, grace] = lags.map(Duration::from_secs);
    let consumer = web(kind, Reads::Env).starts_after(start).served_from_a_cache(cache).grace(grace);
    let stage = Stage::settled(consumer).await;
    for (deed, wait) in deeds {
        match deed {
            Deed::Write(value) => stage.write(&value.to_string()),
            Deed::Restart => stage.restart(resource),
            Deed::Scale(replicas) => {
                stage.edit(resource, |object| object["spec"]["replicas"] = json!(replicas));
            }
            Deed::DeleteAPod(index) => {
                if let Some(name) = stage.names().get(index) {
                    stage.api.delete("pods", SHOP, name).unwrap();
                }
            }
            Deed::KillContainers => stage.cluster.kill_containers("web"),
            Deed::Pause(paused) => {
                stage.edit(resource, |object| object["spec"]["paused"] = json!(paused));
            }
        }
        stage.passes(Duration::from_secs(wait)).await;
    }
    stage.edit(resource, |object| object["spec"]["paused"] = json!(false));
    stage.settle().await;
    // Whatever was done: once the Secret has been at rest for as long as a cache may lag, a restart brings it everywhere.
    stage.write("last");
    stage.passes(cache).await;
    stage.restart(resource);
    stage.settle().await;
    let object = stage.api.get(resource, SHOP, "web").unwrap();
    let wanted = match kind {
        Kind::DaemonSet => 2,
        _ => usize::try_from(object["spec"]["replicas"].as_u64().unwrap()).unwrap(),
    };
    assert_eq!(stage.values(), vec!["last"; wanted]);
    assert_eq!((stage.ready(), stage.names().len()), (wanted, wanted));
    assert_eq!(object["status"]["observedGeneration"], object["metadata"]["generation"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_was_done_to_a_workload_a_restart_brings_the_newest_value_to_every_pod(
        kind in kind(),
        lags in [0..20_u64, 0..60_u64, 0..90_u64],
        deeds in prop::collection::vec((deed(), 0..120_u64), 0..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(any_order(kind, lags, deeds));
    }
}
