//! The validation rules of the kinds, as CEL, each with a message that says what to write instead.
//!
//! The API server runs them; nothing here runs in the operator. Three things shape them:
//! - What a rule walks is bounded in the schema, or the server refuses the kind for its estimated cost. Those
//!   bounds are wider than the rules, since a value that is too long for the schema gets no message of ours.
//! - Immutability is judged on effective values: writing down what was the default, or taking it away again,
//!   changes nothing. A rule on an optional field is skipped when the field comes or goes, so it stands on a parent.
//! - The rules that need `metadata.name` stand at the root and also run on writes of the status; the others stand
//!   as deep as they can, where the server excuses a stored value that an edit leaves alone.

use kube::core::{Reason, Rule};

/// `metadata.name` becomes the value of labels, part of an annotation's key, and the default of other names.
pub(super) fn object_name() -> Rule {
    Rule::new("self.metadata.name.size() <= 52")
        .message("metadata.name must be at most 52 characters, for example web-dashboard")
}

/// A word such as `production`.
pub(super) fn environment() -> Rule {
    Rule::new("self.matches('^[a-z]([-a-z0-9]{0,18}[a-z0-9])?$')").message(
        "an environment is one lower-case word of at most 20 characters, for example production, staging, \
         development or testing",
    )
}

/// A required field that keeps its first value.
pub(super) fn environment_stays() -> Rule {
    Rule::new("self == oldSelf").reason(Reason::FieldValueForbidden).message(
        "environment cannot change, a key belongs to one environment; delete this ApiKey and make another one",
    )
}

/// The name of a BagsAccount.
pub(super) fn account_name() -> Rule {
    Rule::new(format!("self.size() <= 52 && self.matches('{DNS_SUBDOMAIN}')"))
        .message("accountRef.name must be the name of a BagsAccount, for example main")
}

/// A key cannot move to another account.
pub(super) fn account_stays() -> Rule {
    Rule::new("self == oldSelf").reason(Reason::FieldValueForbidden).message(
        "accountRef cannot change, a key cannot move to another account; delete this ApiKey and make another one",
    )
}

/// As an object's name, since that is the default.
pub(super) fn application() -> Rule {
    Rule::new(format!("self.size() <= 52 && self.matches('{DNS_SUBDOMAIN}')")).message(
        "application must be lower-case letters, digits, '-' and '.', at most 52 characters, for example \
         web-dashboard",
    )
}

/// Root: the effective application keeps its first value.
pub(super) fn application_stays() -> Rule {
    stays(&|object| or_else(object, &["spec", "application"], &format!("{object}.metadata.name")))
        .field_path(".spec.application")
        .message(
            "application (default: metadata.name) cannot change, the key was made for it; delete this ApiKey \
             and make another one",
        )
}

/// Two or more words of letters and digits.
pub(super) fn key_name_words() -> Rule {
    Rule::new("self.size() <= 80 && self.matches('^[A-Za-z0-9]+(-[A-Za-z0-9]+)+$')").message(
        "keyName must say what the key is for: two or more words of letters and digits joined by '-', at most 80 \
         characters, for example Production-Web-Dashboard",
    )
}

/// At least one word that says something.
pub(super) fn key_name_says_something() -> Rule {
    let poor = poor_name(&format!("{EMPTY_WORDS}|{MORE_EMPTY_WORDS}"));
    Rule::new(format!("!self.matches('{poor}')")).message(
        "keyName does not say what the key is for; name environment and application, for example \
         Production-Web-Dashboard",
    )
}

/// Root: the default key name is held to the same rule. The other bounds hold by construction: 20 + 1 + 52 ≤ 80.
pub(super) fn default_key_name_says_something() -> Rule {
    let application = or_else("self", &["spec", "application"], "self.metadata.name");
    let poor = poor_name(EMPTY_WORDS);
    Rule::new(format!(
        "has(self.spec.keyName) || !(self.spec.environment + '-' + {application}).matches('{poor}')"
    ))
    .field_path(".spec.keyName")
    .message(
        "the default name of the key, environment and application, does not say what the key is for; set \
         keyName, for example Testing-Orders-Backend",
    )
}

/// The name of the Secret in the ApiKey's namespace.
pub(super) fn secret_name() -> Rule {
    Rule::new(format!("self.matches('{DNS_SUBDOMAIN}')")).message(
        "the name of a Secret is lower-case letters, digits, '-' and '.', for example web-dashboard-bags",
    )
}

/// Root: the effective name of the consumer Secret keeps its first value.
pub(super) fn secret_name_stays() -> Rule {
    stays(&|object| or_else(object, &["spec", "secret", "name"], &format!("{object}.metadata.name")))
        .field_path(".spec.secret.name")
        .message(
            "secret.name (default: metadata.name) cannot change, workloads read that Secret; delete this ApiKey \
             and make another one",
        )
}

/// A key in a Secret's `data`.
pub(super) fn data_field() -> Rule {
    Rule::new(format!("self.matches('{DATA_FIELD}') && self != '.' && !self.startsWith('..')")).message(
        "a field of a Secret is letters, digits, '-', '_' and '.', for example BAGS_API_KEY or wallet.json",
    )
}

/// A key in a Secret's `data`, or nothing.
pub(super) fn data_field_or_none() -> Rule {
    Rule::new(format!("self == '' || (self.matches('{DATA_FIELD}') && self != '.' && !self.startsWith('..'))"))
        .message(
            "a field of a Secret is letters, digits, '-', '_' and '.', for example BAGS_BASE_URL; \"\" leaves it out",
        )
}

/// Spec: the effective field of the value keeps its first value.
pub(super) fn api_key_field_stays() -> Rule {
    stays(&|object| or_else(object, &["secret", "apiKeyField"], "'BAGS_API_KEY'"))
        .field_path(".secret.apiKeyField")
        .message(
            "secret.apiKeyField (default: BAGS_API_KEY) cannot change, workloads read that field; delete this \
             ApiKey and make another one",
        )
}

/// Spec: the effective field of the base URL keeps its first value.
pub(super) fn base_url_field_stays() -> Rule {
    stays(&|object| or_else(object, &["secret", "baseUrlField"], "'BAGS_BASE_URL'"))
        .field_path(".secret.baseUrlField")
        .message(
            "secret.baseUrlField (default: BAGS_BASE_URL) cannot change, workloads read that field; delete this \
             ApiKey and make another one",
        )
}

/// Secret: one field cannot hold two values.
pub(super) fn fields_differ() -> Rule {
    let value = or_else("self", &["apiKeyField"], "'BAGS_API_KEY'");
    let url = or_else("self", &["baseUrlField"], "'BAGS_BASE_URL'");
    Rule::new(format!("{value} != {url}")).message(
        "apiKeyField and baseUrlField must differ, for example BAGS_API_KEY and BAGS_BASE_URL; baseUrlField: \"\" \
         leaves the URL out",
    )
}

/// Keys of labels and annotations that Kubernetes accepts.
pub(super) fn metadata_keys() -> Rule {
    Rule::new(
        "self.all(key, key.size() <= 317 && key.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?\
         [A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?$'))",
    )
    .message("keys are names of at most 63 characters, with or without a domain, for example team or example.com/team")
}

/// Keys that belong to Kubernetes or to the operator.
pub(super) fn metadata_keys_are_free() -> Rule {
    Rule::new(
        "self.all(key, key != 'app.kubernetes.io/managed-by' && (key.startsWith('app.kubernetes.io/') || \
         !key.matches('^([^/]*[.])?(kubernetes[.]io|k8s[.]io|keys[.]bags[.]fm)/')))",
    )
    .message(
        "keys of kubernetes.io, k8s.io and keys.bags.fm are reserved, app.kubernetes.io/managed-by too; use a domain \
         of yours, for example example.com/team",
    )
}

/// Values of labels that Kubernetes accepts.
pub(super) fn label_values() -> Rule {
    Rule::new("self.all(key, self[key].matches('^([A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?)?$'))").message(
        "the value of a label is letters, digits, '-', '_' and '.', at most 63 characters, for example web-team; \
         annotations take any text",
    )
}

/// An account needs a way in.
pub(super) fn some_credential() -> Rule {
    Rule::new("has(self.wallet) || has(self.agentToken)").message(
        "name the Secret of at least one credential, for example agentToken: {secretName: bags-main} or wallet: \
         {secretName: bags-main}",
    )
}

/// A user of Bags.
pub(super) fn user() -> Rule {
    Rule::new("self.matches('^[A-Za-z0-9_-]{1,64}$')").message(
        "expectedUser is the account's uuid at Bags, for example 6f0c1a52-3b7e-4d0a-9c1e-2f5b8a7d4e10; leave it out \
         to pin the first one seen",
    )
}

/// More places cannot be kept than there are.
pub(super) fn reserve_within_limit() -> Rule {
    let reserve = or_else("self", &["rotationReserve"], "1");
    let limit = or_else("self", &["limit"], "10");
    Rule::new(format!("{reserve} <= {limit}"))
        .field_path(".rotationReserve")
        .message("rotationReserve (default: 1) must not exceed limit (default: 10), for example 1 of 10")
}

/// A path and nothing that could lead to another one, or to another host.
pub(super) fn path() -> Rule {
    Rule::new("self.size() <= 200 && self.matches('^(/[A-Za-z0-9._~-]+)+$') && !self.contains('..')").message(
        "revocation.path is a path below the base URL of at most 200 characters, without '..', '?', '#' or spaces, \
         for example /agent/dev/keys/revoke",
    )
}

/// An entry that speaks of no namespace is a mistake; an empty selector must not mean everybody.
pub(super) fn names_namespaces() -> Rule {
    Rule::new(
        "(has(self.namespaces) && self.namespaces.size() > 0) || (has(self.selector) && \
         ((has(self.selector.matchLabels) && self.selector.matchLabels.size() > 0) || \
         (has(self.selector.matchExpressions) && self.selector.matchExpressions.size() > 0)))",
    )
    .message(
        "name the namespaces, for example namespaces: [shop] or selector: {matchLabels: {team: shop}}; an empty \
         selector matches none",
    )
}

/// The name of a namespace.
pub(super) fn namespaces() -> Rule {
    Rule::new("self.all(name, name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))").message(
        "namespaces are names, not patterns, for example shop; to match several by label use selector",
    )
}

/// Words such as `production`.
pub(super) fn environments() -> Rule {
    Rule::new("self.all(word, word.matches('^[a-z]([-a-z0-9]{0,18}[a-z0-9])?$'))").message(
        "environments are lower-case words of at most 20 characters, for example production, staging, development \
         or testing; leave the list out to allow all",
    )
}

/// A term that the API server's own label selectors would refuse.
pub(super) fn selector_term() -> Rule {
    Rule::new(
        "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 : \
         !has(self.values) || self.values.size() == 0",
    )
    .message("In and NotIn need values, for example values: [shop]; Exists and DoesNotExist take none")
}

const DNS_SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const DATA_FIELD: &str = "^[-._a-zA-Z0-9]{1,253}$";

/// Words that say nothing about what a key is for. Words of the environment are not among them.
const EMPTY_WORDS: &str = "api|app|demo|foo|key|keys|my|new|old|secret|temp|test|tests|tmp|token|x+";

/// More of them, for names whose length the schema bounds: the estimated cost is length of text times length of
/// pattern, and `metadata.name` counts as unbounded.
const MORE_EMPTY_WORDS: &str = "abc|access|asdf|bags|bar|baz|copy|credential|credentials|default|dummy|example|final|\
    first|latest|misc|name|none|noname|null|one|other|our|placeholder|sample|second|some|stuff|temporary|the|thing|\
    third|three|todo|two|unnamed|untitled|value";

/// A name of which every word is empty, a run of empty ones (`mykey`), a letter or nothing, each with or without a
/// number: `Key1`, `My-Key`, `API-Key-2`, `Key-v2`.
fn poor_name(empty_words: &str) -> String {
    format!("(?i)^((({empty_words})+|[a-z])?[0-9]*([-.]|$))*$")
}

/// The value at a path of optional fields, or a default.
fn or_else(object: &str, path: &[&str], default: &str) -> String {
    let mut field = object.to_owned();
    let mut present = Vec::new();
    for name in path {
        field = format!("{field}.{name}");
        if *name != "spec" {
            present.push(format!("has({field})"));
        }
    }
    format!("({} ? {field} : {default})", present.join(" && "))
}

/// A transition rule: an expression over the object has the value that it had before.
fn stays(effective: &dyn Fn(&str) -> String) -> Rule {
    Rule::new(format!("{} == {}", effective("self"), effective("oldSelf")))
        .reason(Reason::FieldValueForbidden)
}
