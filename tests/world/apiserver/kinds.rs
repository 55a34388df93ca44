//! The resources that are served, and which of them a path means.

/// Which changes move an object's `metadata.generation` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// None: it has no generation.
    Nothing,
    /// Those of the spec.
    Spec,
    /// Those of the spec, and those of the object's own annotations.
    SpecAndAnnotations,
}

/// A resource.
#[derive(Debug)]
pub(super) struct Kind {
    /// The plural, as in paths.
    pub(super) resource: &'static str,
    pub(super) kind: &'static str,
    pub(super) list_kind: &'static str,
    pub(super) group: &'static str,
    pub(super) api_version: &'static str,
    pub(super) namespaced: bool,
    /// Of a CustomResourceDefinition: the server treats these otherwise in many small ways.
    pub(super) custom: bool,
    pub(super) has_status: bool,
    pub(super) counted: Counted,
    /// What an object has besides its types and metadata; anything else is dropped, as the server does.
    pub(super) fields: &'static [&'static str],
    /// Fields that a field selector may name, besides name and namespace; each with its place.
    pub(super) selectable: &'static [(&'static str, &'static str)],
    /// Place in the tables of the store.
    pub(super) index: usize,
}

pub(super) const COUNT: usize = 10;
const APPS: (&str, &str) = ("apps", "apps/v1");
pub(super) const CUSTOM_GROUP: &str = "keys.bags.fm";

pub(super) static KINDS: [Kind; COUNT] = [
    Kind {
        resource: "apikeys",
        kind: "ApiKey",
        list_kind: "ApiKeyList",
        group: CUSTOM_GROUP,
        api_version: "keys.bags.fm/v1alpha1",
        namespaced: true,
        custom: true,
        has_status: true,
        counted: Counted::Spec,
        fields: &["spec", "status"],
        selectable: &[
            ("spec.accountRef.name", "/spec/accountRef/name"),
            ("spec.environment", "/spec/environment"),
        ],
        index: 0,
    },
    Kind {
        resource: "bagsaccounts",
        kind: "BagsAccount",
        list_kind: "BagsAccountList",
        group: CUSTOM_GROUP,
        api_version: "keys.bags.fm/v1alpha1",
        namespaced: false,
        custom: true,
        has_status: true,
        counted: Counted::Spec,
        fields: &["spec", "status"],
        selectable: &[],
        index: 1,
    },
    Kind {
        resource: "events",
        kind: "Event",
        list_kind: "EventList",
        group: "events.k8s.io",
        api_version: "events.k8s.io/v1",
        namespaced: true,
        custom: false,
        has_status: false,
        counted: Counted::Nothing,
        fields: &[
            "action",
            "deprecatedCount",
            "deprecatedFirstTimestamp",
            "deprecatedLastTimestamp",
            "deprecatedSource",
            "eventTime",
            "note",
            "reason",
            "regarding",
            "related",
            "reportingController",
            "reportingInstance",
            "series",
            "type",
        ],
        selectable: &[("reason", "/reason"), ("type", "/type")],
        index: 2,
    },
    Kind {
        resource: "namespaces",
        kind: "Namespace",
        list_kind: "NamespaceList",
        group: "",
        api_version: "v1",
        namespaced: false,
        custom: false,
        has_status: true,
        counted: Counted::Nothing,
        fields: &["spec", "status"],
        selectable: &[("status.phase", "/status/phase")],
        index: 3,
    },
    Kind {
        resource: "secrets",
        kind: "Secret",
        list_kind: "SecretList",
        group: "",
        api_version: "v1",
        namespaced: true,
        custom: false,
        has_status: false,
        counted: Counted::Nothing,
        fields: &["data", "immutable", "stringData", "type"],
        selectable: &[("type", "/type")],
        index: 4,
    },
    Kind {
        resource: "pods",
        kind: "Pod",
        list_kind: "PodList",
        group: "",
        api_version: "v1",
        namespaced: true,
        custom: false,
        has_status: true,
        counted: Counted::Nothing,
        fields: &["spec", "status"],
        selectable: &[("spec.nodeName", "/spec/nodeName"), ("status.phase", "/status/phase")],
        index: 5,
    },
    workload("replicasets", "ReplicaSet", "ReplicaSetList", Counted::Spec, 6),
    workload("deployments", "Deployment", "DeploymentList", Counted::SpecAndAnnotations, 7),
    workload("statefulsets", "StatefulSet", "StatefulSetList", Counted::Spec, 8),
    workload("daemonsets", "DaemonSet", "DaemonSetList", Counted::Spec, 9),
];

/// A kind of `apps/v1` that has pods.
const fn workload(
    resource: &'static str,
    kind: &'static str,
    list_kind: &'static str,
    counted: Counted,
    index: usize,
) -> Kind {
    Kind {
        resource,
        kind,
        list_kind,
        group: APPS.0,
        api_version: APPS.1,
        namespaced: true,
        custom: false,
        has_status: true,
        counted,
        fields: &["spec", "status"],
        selectable: &[],
        index,
    }
}

/// The namespaces themselves, which some rules are about.
pub(super) static NAMESPACES: &Kind = &KINDS[3];

impl Kind {
    /// By the plural.
    pub(super) fn of_resource(resource: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.resource == resource)
    }

    /// By what stands in an object.
    pub(super) fn of_types(api_version: &str, kind: &str) -> Option<&'static Self> {
        KINDS.iter().find(|known| known.api_version == api_version && known.kind == kind)
    }

    pub(super) fn is_namespaces(&self) -> bool {
        self.index == NAMESPACES.index
    }

    pub(super) fn is_pods(&self) -> bool {
        self.resource == "pods"
    }

    pub(super) fn is_secrets(&self) -> bool {
        self.resource == "secrets"
    }

    /// The resource with its group, as in messages.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }

    /// The key of an object in the table: its order is that of the real server's store.
    pub(super) fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { [namespace, "/", name].concat() } else { name.to_owned() }
    }
}

/// Which part of an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All but the status, where there is a status subresource.
    Main,
    /// The status.
    Status,
}

/// What a path means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route<'a> {
    pub(super) kind: &'static Kind,
    /// None: all namespaces, or cluster-scoped.
    pub(super) namespace: Option<&'a str>,
    /// None: the collection.
    pub(super) name: Option<&'a str>,
    pub(super) part: Part,
}

impl<'a> Route<'a> {
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let (api_version, rest) = match &*parts {
            ["api", "v1", rest @ ..] => ("v1".to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => return None,
        };
        let found =
            |resource: &str| Kind::of_resource(resource).filter(|kind| kind.api_version == api_version);
        let (kind, namespace, rest) = match rest {
            // A namespace's own subresource, not a resource inside.
            ["namespaces", _, "status"] => (found("namespaces")?, None, &rest[1..]),
            ["namespaces", namespace, resource, rest @ ..] => {
                (found(resource).filter(|kind| kind.namespaced)?, Some(*namespace), rest)
            }
            [resource, rest @ ..] => (found(resource)?, None, rest),
            [] => return None,
        };
        let (name, part) = match rest {
            [] => (None, Part::Main),
            [name] => (Some(*name), Part::Main),
            [name, "status"] if kind.has_status => (Some(*name), Part::Status),
            _ => return None,
        };
        // An object of a namespace has no path without it.
        let named = !kind.namespaced || namespace.is_some() || name.is_none();
        (named && name != Some("")).then_some(Self { kind, namespace, name, part })
    }
}
