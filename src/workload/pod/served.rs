//! A pod as the API server serves it, and what is kept of it. Pure.
//!
//! Whatever cannot be read counts as what blocks most: a reference as one to any Secret, a container's state as one in which
//! it may hold the old value.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{By, ContainerState, Controller, Pod, SecretName, Use, Way};
use crate::workload::lax::{Items, Lax};

/// An object that is read by hand.
type Object = Map<String, Value>;

/// A pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Served {
    metadata: Lax<Metadata>,
    spec: Lax<Spec>,
    status: Lax<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Lax<String>,
    uid: Lax<String>,
    creation_timestamp: Lax<Timestamp>,
    deletion_timestamp: Lax<Timestamp>,
    owner_references: Items<OwnerReference>,
    annotations: Lax<Annotations>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OwnerReference {
    api_version: Lax<String>,
    kind: Lax<String>,
    name: Lax<String>,
    uid: Lax<String>,
    controller: Lax<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    /// `api::annotation::RELOADS`.
    #[serde(rename = "keys.bags.fm/reloads")]
    reloads: Lax<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Lax<String>,
    init_containers: Items<Container>,
    containers: Items<Container>,
    ephemeral_containers: Items<Container>,
    volumes: Items<Object>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    name: Lax<String>,
    restart_policy: Lax<String>,
    env: Items<Variable>,
    env_from: Items<Variables>,
    volume_mounts: Items<Mount>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Variable {
    value_from: Lax<Source>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Source {
    secret_key_ref: Lax<Reference>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Variables {
    secret_ref: Lax<Reference>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reference {
    name: Lax<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mount {
    name: Lax<String>,
    sub_path: Lax<String>,
    sub_path_expr: Lax<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: Lax<String>,
    conditions: Items<Condition>,
    init_container_statuses: Items<ContainerStatus>,
    container_statuses: Items<ContainerStatus>,
    ephemeral_container_statuses: Items<ContainerStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: Lax<String>,
    status: Lax<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    name: Lax<String>,
    state: Lax<State>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    waiting: Lax<Anything>,
    running: Lax<Started>,
    terminated: Lax<Started>,
}

/// A record of which nothing is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Anything {}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Started {
    started_at: Lax<Timestamp>,
}

impl Served {
    /// What is judged of the pod; `None`: it is finished.
    pub(super) fn unfinished(self) -> Option<Pod> {
        let Self { metadata, spec, status } = self;
        let spec_unclear = spec.is_unreadable();
        let status_unclear = status.is_unreadable();
        let metadata_unclear = metadata.is_unreadable();
        let metadata = metadata.known().unwrap_or_default();
        // A deletion time that cannot be read may be long past.
        let deletion_unclear = metadata_unclear || metadata.deletion_timestamp.is_unreadable();
        let deleted = match deletion_unclear {
            true => Some(Timestamp::MIN),
            false => metadata.deletion_timestamp.known(),
        };
        let spec = spec.known().unwrap_or_default();
        let status = status.known().unwrap_or_default();
        if is(&status.phase, "Succeeded") || is(&status.phase, "Failed") {
            return None;
        }
        let mut uses = Uses::default();
        if spec_unclear {
            uses.add(SecretName::Any, By::Unclear);
        }
        uses.add_containers(&spec, &status, status_unclear);
        let unscheduled = !spec_unclear && is_absent(&spec.node_name);
        let annotations = metadata.annotations.known().unwrap_or_default();
        let ready = |condition: &Condition| is(&condition.kind, "Ready") && is(&condition.status, "True");
        Some(Pod {
            name: metadata.name.known().unwrap_or_default(),
            uid: metadata.uid.known().unwrap_or_default(),
            created: metadata.creation_timestamp.known(),
            deleted,
            controller: controller(metadata.owner_references),
            node: spec.node_name.known().filter(|node| !node.is_empty()),
            unscheduled,
            reloads: is(&annotations.reloads, "true"),
            ready: known(&status.conditions).any(ready),
            uses: uses.0,
        })
    }
}

fn controller(owners: Items<OwnerReference>) -> Option<Controller> {
    let mut owners = owners.0.into_iter().filter_map(Lax::known);
    let owner = owners.find(|owner| owner.controller == Lax::Known(true))?;
    Some(Controller {
        api_version: owner.api_version.known().unwrap_or_default(),
        kind: owner.kind.known().unwrap_or_default(),
        name: owner.name.known().unwrap_or_default(),
        uid: owner.uid.known().unwrap_or_default(),
    })
}

fn known<T>(items: &Items<T>) -> impl Iterator<Item = &T> {
    items.0.iter().filter_map(|item| item.as_ref().known())
}

fn is(text: &Lax<String>, word: &str) -> bool {
    matches!(text, Lax::Known(text) if text == word)
}

fn is_absent(text: &Lax<String>) -> bool {
    matches!(text, Lax::Missing) || is(text, "")
}

/// The state of a container, by its name.
fn state_of(name: &Lax<String>, statuses: &Items<ContainerStatus>, status_unclear: bool) -> ContainerState {
    let Lax::Known(name) = name else { return ContainerState::Unclear };
    let mut unclear = status_unclear;
    for status in &statuses.0 {
        match status.as_ref().and_then(|status| status.name.as_ref()) {
            Lax::Known(named) if named == name => {
                return status
                    .as_ref()
                    .known()
                    .map_or(ContainerState::Unclear, |status| state(&status.state));
            }
            Lax::Known(_) => {}
            // This status may be the container's.
            Lax::Missing | Lax::Unreadable => unclear = true,
        }
    }
    if unclear { ContainerState::Unclear } else { ContainerState::NoStatus }
}

fn state(state: &Lax<State>) -> ContainerState {
    let Lax::Known(State { waiting, running, terminated }) = state else { return ContainerState::Unclear };
    match (running, waiting, terminated) {
        (Lax::Known(Started { started_at }), _, _) => {
            ContainerState::Running(started_at.as_ref().known().copied())
        }
        (Lax::Unreadable, _, _) => ContainerState::Unclear,
        (Lax::Missing, Lax::Known(_), _) => ContainerState::Waiting,
        (Lax::Missing, _, Lax::Known(Started { started_at })) => {
            ContainerState::Terminated(started_at.as_ref().known().copied())
        }
        (Lax::Missing, Lax::Missing | Lax::Unreadable, Lax::Missing | Lax::Unreadable) => {
            ContainerState::Unclear
        }
    }
}

/// The ways in which a pod refers to Secrets, each once.
#[derive(Default)]
struct Uses(Vec<Use>);

impl Uses {
    fn add(&mut self, secret: SecretName, by: By) {
        let one = Use { secret, by };
        if !self.0.contains(&one) {
            self.0.push(one);
        }
    }

    fn add_containers(&mut self, spec: &Spec, status: &Status, status_unclear: bool) {
        let kinds = [
            (true, &spec.init_containers, &status.init_container_statuses),
            (false, &spec.containers, &status.container_statuses),
            (false, &spec.ephemeral_containers, &status.ephemeral_container_statuses),
        ];
        let mut mounts = Vec::new();
        for (prepares, containers, statuses) in kinds {
            for container in &containers.0 {
                match container {
                    Lax::Missing => {}
                    Lax::Unreadable => self.add(SecretName::Any, By::Unclear),
                    Lax::Known(container) => {
                        // A sidecar (`restartPolicy: Always`) can be restarted within its pod, as a main container can.
                        let prepares = prepares && !is(&container.restart_policy, "Always");
                        let state = match state_of(&container.name, statuses, status_unclear) {
                            ContainerState::Terminated(started) if prepares => {
                                ContainerState::HandedOn(started)
                            }
                            state => state,
                        };
                        self.add_variables(container, By::Container(Way::Started, state));
                        mounts.extend(container.volume_mounts.0.iter().map(|mount| (mount, state)));
                    }
                }
            }
        }
        for volume in &spec.volumes.0 {
            match volume {
                Lax::Missing => {}
                Lax::Unreadable => self.add(SecretName::Any, By::Unclear),
                Lax::Known(volume) => self.add_volume(volume, &mounts),
            }
        }
    }

    fn add_variables(&mut self, container: &Container, by: By) {
        let single = container.env.0.iter().map(|variable| {
            variable
                .as_ref()
                .and_then(|variable| variable.value_from.as_ref())
                .and_then(|from| from.secret_key_ref.as_ref())
        });
        let whole =
            container.env_from.0.iter().map(|from| from.as_ref().and_then(|from| from.secret_ref.as_ref()));
        for reference in single.chain(whole) {
            match reference.and_then(|reference| reference.name.as_ref()) {
                Lax::Missing => {}
                Lax::Unreadable => self.add(SecretName::Any, by),
                Lax::Known(name) => self.add(SecretName::Known(name.clone()), by),
            }
        }
    }

    fn add_volume(&mut self, volume: &Object, mounts: &[(&Lax<Mount>, ContainerState)]) {
        let mut files = Vec::new();
        let mut others = Vec::new();
        for (kind, source) in volume {
            match kind.as_str() {
                "name" => {}
                "secret" => file(source, "secretName", &mut files),
                "projected" => projected(source, &mut files, &mut others),
                _ => handed_over(source, &mut others),
            }
        }
        for secret in others {
            self.add(secret, By::Pod);
        }
        if files.is_empty() {
            return;
        }
        for by in mounted_by(volume.get("name"), mounts) {
            for secret in &files {
                self.add(secret.clone(), by);
            }
        }
    }
}

/// Who mounts a volume, and how.
fn mounted_by(volume: Option<&Value>, mounts: &[(&Lax<Mount>, ContainerState)]) -> Vec<By> {
    let Some(Value::String(volume)) = volume else { return vec![By::Unclear] };
    let mut all = Vec::new();
    for (mount, state) in mounts {
        match mount.as_ref().and_then(|mount| mount.name.as_ref()) {
            Lax::Known(name) if name != volume => {}
            Lax::Known(_) => all.push(By::Container(way(mount), *state)),
            Lax::Missing | Lax::Unreadable => all.push(By::Unclear),
        }
    }
    if all.is_empty() { vec![By::Nobody] } else { all }
}

/// A mount with `subPath` is fixed when the container starts, and is never refreshed.
fn way(mount: &Lax<Mount>) -> Way {
    match mount {
        Lax::Known(mount) if is_absent(&mount.sub_path) && is_absent(&mount.sub_path_expr) => Way::Mounted,
        Lax::Known(_) | Lax::Missing | Lax::Unreadable => Way::Part,
    }
}

/// The Secret that an object names in one of its fields.
fn file(object: &Value, field: &str, found: &mut Vec<SecretName>) {
    match object {
        Value::Null => {}
        Value::Object(object) => match object.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) => found.push(SecretName::Known(name.clone())),
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                found.push(SecretName::Any)
            }
        },
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => found.push(SecretName::Any),
    }
}

fn projected(volume: &Value, files: &mut Vec<SecretName>, others: &mut Vec<SecretName>) {
    let sources = match volume {
        Value::Null => return,
        Value::Object(volume) => match volume.get("sources") {
            None | Some(Value::Null) => return,
            Some(Value::Array(sources)) => sources,
            Some(_) => return files.push(SecretName::Any),
        },
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return files.push(SecretName::Any);
        }
    };
    for source in sources {
        let Value::Object(source) = source else {
            files.push(SecretName::Any);
            continue;
        };
        for (kind, source) in source {
            match kind.as_str() {
                "secret" => file(source, "name", files),
                _ => handed_over(source, others),
            }
        }
    }
}

/// Secrets that are handed to the driver of a volume, whatever the volume's type: the driver may pass their values on to the
/// application.
fn handed_over(source: &Value, found: &mut Vec<SecretName>) {
    match source {
        Value::Null => {}
        Value::Object(source) => source.iter().for_each(|(field, value)| handed_over_in(field, value, found)),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => found.push(SecretName::Any),
    }
}

/// `nodePublishSecretRef` of csi, `secretRef` of flexVolume and others, `secretName` of azureFile.
fn handed_over_in(field: &str, value: &Value, found: &mut Vec<SecretName>) {
    let field = field.to_ascii_lowercase();
    if field.ends_with("secretref") {
        return file(value, "name", found);
    }
    match value {
        Value::String(name) if field.ends_with("secretname") => found.push(SecretName::Known(name.clone())),
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)
            if field.ends_with("secretname") =>
        {
            found.push(SecretName::Any);
        }
        Value::Object(inner) => inner.iter().for_each(|(field, value)| handed_over_in(field, value, found)),
        Value::Array(items) => items.iter().for_each(|item| handed_over_in("", item, found)),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
