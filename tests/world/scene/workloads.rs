//! What people do to workloads, and to the keys that those read.

use std::{sync::Arc, time::Duration};

use bags_operator::api::mark;
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Scene, TENANT};
use crate::cluster::{FIELD, value_in};

impl Scene {
    /// Somebody makes a key on Bags' page and writes it into a Secret of the tenant, which is made where it is missing.
    pub(crate) fn write_key_by_hand(&self, secret: &str) {
        let count = self.sandbox.keys().len();
        let Ok(made) = self.sandbox.make_key(&self.user, &format!("Made-By-Hand-{count}")) else { return };
        let data = json!({FIELD: STANDARD.encode(made.value)});
        let edited = self.api.edit("secrets", TENANT, secret, |object| object["data"] = data.clone());
        if edited.is_err() {
            let metadata = json!({"name": secret, "namespace": TENANT});
            let _ = self
                .api
                .create(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}));
        }
    }

    /// Somebody writes what a Secret of the tenant holds into another one, which is nobody's.
    pub(crate) fn copy_secret(&self, name: &str, copy: &str) {
        let Some(secret) = self.api.get("secrets", TENANT, name) else { return };
        let metadata = json!({"name": copy, "namespace": TENANT});
        let _ = self.api.create(
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": secret["data"]}),
        );
    }

    /// Somebody revokes the key that a Secret of the tenant holds.
    pub(crate) fn revoke_key_in(&self, secret: &str) {
        let secret = self.api.get("secrets", TENANT, secret);
        let attempt =
            secret.as_ref().and_then(|it| it["metadata"]["annotations"][mark::SWITCH_ATTEMPT].as_str());
        let Some(attempt) = attempt else { return };
        let named = |name: &str| name.ends_with(&format!("-{attempt}"));
        if let Some(key) = self.sandbox.keys().into_iter().find(|key| named(&key.name)) {
            let _ = self.sandbox.revoke_key(&key.id);
        }
    }

    /// A person restarts a workload, as `kubectl rollout restart` does.
    pub(crate) fn restart_workload(&self, name: &str) {
        self.edit_workload(name, |object| {
            let template = &mut object["spec"]["template"]["metadata"];
            let before = template["annotations"]["example.com/restarted"].as_str().unwrap_or_default().len();
            template["annotations"]["example.com/restarted"] = json!("x".repeat(before + 1));
        });
    }

    /// A person restarts, or makes anew, what has held an earlier key for so long, as the ApiKey says. Whether there was
    /// something to do.
    pub(crate) fn restart_what_holds_on(&self, now: Timestamp, patience: Duration) -> bool {
        let held = |key: &&Arc<Value>| {
            let at = key["status"]["switch"]["at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
            let age = at.and_then(|at| Duration::try_from(now.duration_since(at)).ok());
            key["status"]["phase"] == "Restarting" && age.is_some_and(|age| age >= patience)
        };
        let keys = self.api.list("apikeys");
        let names: Vec<&str> =
            keys.iter().filter(held).filter_map(|key| key["metadata"]["name"].as_str()).collect();
        for name in &names {
            self.restart_workload(name);
            self.cluster.replace_bare_pod(name);
        }
        !names.is_empty()
    }

    /// A GitOps tool writes a workload's template as it stands in its repository: without the operator's marks.
    pub(crate) fn write_template_back(&self, name: &str) {
        self.edit_workload(name, |object| {
            let template = &mut object["spec"]["template"]["metadata"];
            let Some(annotations) = template["annotations"].as_object_mut() else { return };
            annotations.retain(|name, _| !name.starts_with(mark::RESTART_MARK_PREFIX));
            // A template without annotations is the one that it was.
            if annotations.is_empty() {
                template.as_object_mut().map(|template| template.remove("annotations"));
            }
        });
    }

    /// Whether a workload carries a mark of the operator's.
    pub(crate) fn is_marked(&self, name: &str) -> bool {
        let resource = self.cluster.object_of(name).unwrap_or_default();
        let object = self.api.get(resource, TENANT, name);
        let annotations =
            object.as_ref().and_then(|it| it["spec"]["template"]["metadata"]["annotations"].as_object());
        annotations.is_some_and(|them| them.keys().any(|name| name.starts_with(mark::RESTART_MARK_PREFIX)))
    }

    /// A person pauses a Deployment, or lets it go on.
    pub(crate) fn pause_workload(&self, name: &str, paused: bool) {
        self.edit_workload(name, |object| object["spec"]["paused"] = json!(paused));
    }

    /// A person wants so many pods of a workload.
    pub(crate) fn scale_workload(&self, name: &str, replicas: usize) {
        self.edit_workload(name, |object| object["spec"]["replicas"] = json!(replicas));
    }

    /// A person edits a workload, where it is an object of its own.
    pub(crate) fn edit_workload(&self, name: &str, change: impl FnOnce(&mut Value)) {
        if let Some(resource) = self.cluster.object_of(name) {
            let _ = self.api.edit(resource, TENANT, name, change);
        }
    }

    /// A person deletes a workload.
    pub(crate) fn delete_workload(&self, name: &str) {
        if let Some(resource) = self.cluster.object_of(name) {
            let _ = self.api.delete(resource, TENANT, name);
        }
    }

    /// Whether ApiKey "web" has its key, and all that reads it runs.
    pub(crate) fn is_in_use(&self) -> bool {
        self.is_ready("web") && self.cluster.is_up()
    }

    /// Whether so many pods hold what a Secret of the tenant holds.
    pub(crate) fn hold_the_newest(&self, secret: &str, pods: usize) -> bool {
        let value = self.api.get("secrets", TENANT, secret).and_then(|secret| value_in(&secret, FIELD));
        value.is_some_and(|value| self.cluster.holders(&value).len() == pods)
    }
}
