//! What a person declares: a workload that reads a key.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::history::FIELD;

/// What a workload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Rolled with one pod more than wanted, if its strategy says nothing else: an old one goes when a new one is ready.
    Deployment,
    /// Rolled one pod after the other, the highest first; each is gone before it is made again.
    StatefulSet,
    /// One pod on each node, rolled as a StatefulSet.
    DaemonSet,
    /// A pod that nobody makes again.
    Pod,
    /// The same, made by a controller of a kind that the operator does not know.
    Custom,
    /// A pod that runs to its end once. Its Job is not an object here.
    Job,
    /// Somebody outside of the cluster, who copied the value once. Nothing in the API server tells of them.
    Outside,
}

impl Kind {
    /// The plural of its object; none: it has none but its pod.
    pub(crate) fn resource(self) -> Option<&'static str> {
        match self {
            Self::Deployment => Some("deployments"),
            Self::StatefulSet => Some("statefulsets"),
            Self::DaemonSet => Some("daemonsets"),
            Self::Pod | Self::Custom | Self::Job | Self::Outside => None,
        }
    }

    /// Whether its pods come to their end.
    pub(super) fn ends_by_itself(self) -> bool {
        match self {
            Self::Job => true,
            Self::Deployment
            | Self::StatefulSet
            | Self::DaemonSet
            | Self::Pod
            | Self::Custom
            | Self::Outside => false,
        }
    }
}

/// How the application gets its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// From its environment, when its container starts.
    Env,
    /// From a mounted file, once, when its container starts.
    File,
    /// From a mounted file, again whenever that changes; its template says so.
    ReloadedFile,
    /// From its environment, which is all of the Secret, when its container starts.
    AllEnv,
    /// From a file that is mounted by itself and never changes, whatever its template says of it.
    Part,
    /// From a file among those of other sources, again whenever that changes; its template says so.
    Projected,
    /// From a container that ran before its own, and had it from its environment.
    Init,
    /// From a container beside its own, which has it from its environment.
    Sidecar,
    /// From the environment of a container that somebody put into its running pod, and no template has.
    Debugger,
}

impl Reads {
    /// Whether a changed Secret is read again.
    pub(super) fn again(self) -> bool {
        match self {
            Self::ReloadedFile | Self::Projected => true,
            Self::Env
            | Self::File
            | Self::AllEnv
            | Self::Part
            | Self::Init
            | Self::Sidecar
            | Self::Debugger => false,
        }
    }

    /// Whether the template says that a changed file is read again.
    pub(super) fn claims_to_reload(self) -> bool {
        self.again() || self == Self::Part
    }
}

/// What the containers of a workload do not run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breaks {
    /// Any but its first template.
    AnotherTemplate,
    /// Any but the first value that one of them ran with.
    AnotherValue,
    /// The same, but that they run on and are not ready.
    ReadyWithAnotherValue,
    /// Any but its first template: not even pods are made of another one, as where a quota is used up.
    PodsOfAnotherTemplate,
}

/// A workload, and what its nodes are like.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub(super) name: String,
    pub(super) secret: String,
    /// The field of it that holds the key.
    pub(super) field: String,
    /// It has the key of another Secret in its environment as well.
    pub(super) second: Option<String>,
    pub(super) kind: Kind,
    pub(super) reads: Reads,
    /// Pods that are wanted; of a DaemonSet, nodes.
    pub(super) replicas: usize,
    /// How it is rolled, as it stands in its object.
    pub(super) strategy: Value,
    /// Its template says that the operator never restarts it.
    pub(super) left_alone: bool,
    /// It was paused once its first pods were there.
    pub(super) paused: bool,
    /// What its containers do not run with until a person mends it.
    pub(super) fault: Option<Breaks>,
    /// A pod has so long to end.
    pub(super) grace: Duration,
    /// A container starts so long after its pod was made.
    pub(super) start_lag: Duration,
    /// A container that starts has the Secret as it was so long before.
    pub(super) cache_lag: Duration,
    /// A mounted file has what its Secret holds so long after it was written.
    pub(super) refresh_lag: Duration,
    /// How far the nodes' clocks are before the API server's.
    pub(super) skew: SignedDuration,
    /// A Job's pod runs so long.
    pub(super) runs_for: Duration,
    /// Its application calls when it begins to hold a value, when it lets go of it, and never in between.
    pub(super) calls_seldom: bool,
}

impl Consumer {
    /// Two pods that read the Secret of an ApiKey, under its name, on nodes that are quick and right.
    pub(crate) fn of(secret: &str, kind: Kind, reads: Reads) -> Self {
        let alone = kind.resource().is_none();
        Self {
            name: secret.to_owned(),
            secret: secret.to_owned(),
            field: FIELD.to_owned(),
            second: None,
            kind,
            reads,
            replicas: if alone { 1 } else { 2 },
            strategy: match kind {
                Kind::Deployment => {
                    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
                }
                Kind::StatefulSet => json!({"type": "RollingUpdate"}),
                Kind::DaemonSet => json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}),
                Kind::Pod | Kind::Custom | Kind::Job | Kind::Outside => Value::Null,
            },
            left_alone: false,
            paused: false,
            fault: None,
            grace: Duration::from_secs(5),
            start_lag: Duration::from_secs(2),
            cache_lag: Duration::ZERO,
            refresh_lag: Duration::from_secs(90),
            skew: SignedDuration::ZERO,
            runs_for: Duration::from_mins(10),
            calls_seldom: false,
        }
    }

    /// Another name than its Secret's.
    pub(crate) fn called(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Its Secret has the key in another field.
    pub(crate) fn in_field(mut self, field: &str) -> Self {
        field.clone_into(&mut self.field);
        self
    }

    /// It has the key of another Secret in its environment as well, whatever it does with the first one.
    pub(crate) fn and_reads(mut self, secret: &str) -> Self {
        self.second = Some(secret.to_owned());
        self
    }

    /// Whether it reads this Secret.
    pub(super) fn reads_from(&self, secret: &str) -> bool {
        self.secret == secret || self.second.as_deref() == Some(secret)
    }

    /// Its Secret, and the field that holds the key.
    pub(super) fn source(&self) -> (&str, &str) {
        (&self.secret, &self.field)
    }

    /// The same of its second Secret, where it reads one.
    pub(super) fn second_source(&self) -> Option<(&str, &str)> {
        self.second.as_deref().map(|secret| (secret, FIELD))
    }

    /// So many pods.
    pub(crate) fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// How it is rolled, as it stands in its object: `{"type": "Recreate"}`, say. Shares of pods are not understood, only
    /// their numbers.
    pub(crate) fn strategy(mut self, strategy: Value) -> Self {
        self.strategy = strategy;
        self
    }

    /// The operator is not to restart it.
    pub(crate) fn left_alone(mut self) -> Self {
        self.left_alone = true;
        self
    }

    /// It was paused once its first pods were there. Of Deployments only.
    pub(crate) fn paused(mut self) -> Self {
        self.paused = true;
        self
    }

    /// Containers of any but its first template do not run until a person mends it.
    pub(crate) fn which_breaks(mut self) -> Self {
        self.fault = Some(Breaks::AnotherTemplate);
        self
    }

    /// Containers do not run with any but its first value until a person mends it.
    pub(crate) fn which_breaks_with_another_value(mut self) -> Self {
        self.fault = Some(Breaks::AnotherValue);
        self
    }

    /// Containers run and are not ready with any but their first value until a person mends it.
    pub(crate) fn which_is_not_ready_with_another_value(mut self) -> Self {
        self.fault = Some(Breaks::ReadyWithAnotherValue);
        self
    }

    /// No pods of any but its first template are made until a person mends it.
    pub(crate) fn which_gets_no_pods_when_changed(mut self) -> Self {
        self.fault = Some(Breaks::PodsOfAnotherTemplate);
        self
    }

    /// A pod has so long to end.
    pub(crate) fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// A container starts so long after its pod was made.
    pub(crate) fn starts_after(mut self, lag: Duration) -> Self {
        self.start_lag = lag;
        self
    }

    /// A container that starts has the Secret as it was so long before.
    pub(crate) fn served_from_a_cache(mut self, lag: Duration) -> Self {
        self.cache_lag = lag;
        self
    }

    /// A mounted file has what its Secret holds so long after it was written.
    pub(crate) fn refreshed_after(mut self, lag: Duration) -> Self {
        self.refresh_lag = lag;
        self
    }

    /// How far the nodes' clocks are before the API server's; negative: behind it.
    pub(crate) fn clocks_off_by(mut self, skew: SignedDuration) -> Self {
        self.skew = skew;
        self
    }

    /// A Job's pod runs so long.
    pub(crate) fn runs_for(mut self, time: Duration) -> Self {
        self.runs_for = time;
        self
    }

    /// Its application calls when it begins to hold a value, when it lets go of it, and never in between: the last use of
    /// its key says nothing of whether it holds it.
    pub(crate) fn calls_seldom(mut self) -> Self {
        self.calls_seldom = true;
        self
    }
}
