//! Controllers that go pod by pod: StatefulSets and DaemonSets. A pod is gone before it is made again.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{State, controller::Asked, kubelet::Pod, objects};

impl State {
    /// A StatefulSet: made from the lowest ordinal up, rolled from the highest one down, one pod after the other.
    pub(super) fn in_order(&mut self, index: usize, asked: &Asked, now: Instant) {
        self.next_in_order(index, asked, now);
        let pods = self.living(index);
        let (of_new, ready) = counts(&pods, asked.revision);
        let name = self.workloads[index].consumer.name.clone();
        let complete = of_new == asked.replicas && ready == asked.replicas && pods.len() == asked.replicas;
        let before = self.get("statefulsets", &name);
        let before = before.as_deref().map_or(&Value::Null, |object| &object["status"]["currentRevision"]);
        let update = format!("{name}-{}", asked.revision);
        let current = match before.as_str() {
            Some(before) if !complete => before.to_owned(),
            Some(_) | None => update.clone(),
        };
        let of_current = if current == update { of_new } else { pods.len() - of_new };
        let status = json!({
            "observedGeneration": asked.generation(), "replicas": pods.len(), "readyReplicas": ready,
            "availableReplicas": ready, "currentReplicas": of_current, "updatedReplicas": of_new,
            "currentRevision": current, "updateRevision": update,
        });
        self.write_status("statefulsets", &name, status);
    }

    fn next_in_order(&mut self, index: usize, asked: &Asked, now: Instant) {
        let strategy = &asked.object["spec"]["updateStrategy"];
        let partition = strategy["rollingUpdate"]["partition"].as_u64().unwrap_or_default();
        let partition = usize::try_from(partition).unwrap_or(usize::MAX);
        let name = self.workloads[index].consumer.name.clone();
        for ordinal in 0..asked.replicas {
            let pod = format!("{name}-{ordinal}");
            match self.pods.get(&pod) {
                Some(there) if there.is_ready() && !there.is_ending() => {}
                Some(_) => return,
                None => {
                    let owner = objects::owner("apps/v1", "StatefulSet", &asked.object);
                    return self.make_pod(index, (pod, asked.revision, ordinal), Some(owner), now);
                }
            }
        }
        let mut pods = self.living(index);
        pods.sort_by_key(|pod| std::cmp::Reverse(pod.place));
        let surplus = pods.iter().find(|pod| pod.place >= asked.replicas);
        let stale = |pod: &&Pod| pod.revision != asked.revision && pod.place >= partition;
        let stale = pods.iter().find(stale).filter(|_| strategy["type"] != "OnDelete");
        if let Some(pod) = surplus.or(stale) {
            self.delete_pod(&pod.name);
        }
    }

    /// A DaemonSet: one pod on each node, rolled node by node.
    pub(super) fn on_nodes(&mut self, index: usize, asked: &Asked, now: Instant) {
        let name = self.workloads[index].consumer.name.clone();
        for node in 0..self.workloads[index].consumer.replicas {
            if !self.pods.values().any(|pod| pod.workload == index && pod.place == node) {
                let number = self.workloads[index].made + 1;
                let owner = objects::owner("apps/v1", "DaemonSet", &asked.object);
                let pod = format!("{name}-{number}");
                self.make_pod(index, (pod, asked.revision, node), Some(owner), now);
            }
        }
        let nodes = self.workloads[index].consumer.replicas;
        let mut pods = self.living(index);
        // What does not work is replaced first, and counts as missing already.
        pods.sort_by_key(|pod| (pod.is_ready(), pod.place));
        let (_, ready) = counts(&pods, asked.revision);
        let stale = pods.iter().find(|pod| pod.revision != asked.revision);
        let stale = stale.filter(|pod| ready == nodes || !pod.is_ready());
        let rolls = asked.object["spec"]["updateStrategy"]["type"] != "OnDelete";
        if let Some(pod) = stale.filter(|_| rolls) {
            self.delete_pod(&pod.name);
        }
        let pods = self.living(index);
        let (of_new, ready) = counts(&pods, asked.revision);
        let status = json!({
            "observedGeneration": asked.generation(), "desiredNumberScheduled": nodes,
            "currentNumberScheduled": pods.len(), "updatedNumberScheduled": of_new, "numberReady": ready,
            "numberAvailable": ready, "numberUnavailable": nodes - ready, "numberMisscheduled": 0,
        });
        self.write_status("daemonsets", &name, status);
    }
}

/// Pods of the newest template, and ready ones.
fn counts(pods: &[Pod], revision: usize) -> (usize, usize) {
    let of_new = pods.iter().filter(|pod| pod.revision == revision).count();
    (of_new, pods.iter().filter(|pod| pod.is_ready()).count())
}
