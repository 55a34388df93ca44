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
    Rule::new(format!("self.size() <= 52 && self.matches('^{DNS_SUBDOMAIN}$')"))
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
    Rule::new(format!("self.size() <= 52 && self.matches('^{DNS_SUBDOMAIN}$')")).message(
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
    Rule::new(format!("self.matches('^{DNS_SUBDOMAIN}$')")).message(
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
    // The domain has 253 characters at most; of a name alone there are never as many.
    Rule::new(format!(
        "self.all(key, key.size() <= 317 && !key.matches('^[^/]{{254}}') && key.matches('^({DNS_SUBDOMAIN}/)?\
         [A-Za-z0-9]([-_.A-Za-z0-9]{{0,61}}[A-Za-z0-9])?$'))"
    ))
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

/// How often a key is replaced. A minute is for tests and demos.
pub(super) fn every() -> Rule {
    Rule::new(format!("{} && duration(self) >= duration('1m')", is_duration("self"))).message(
        "every is a duration of at least 1m and at most 87600h, in hours, minutes and seconds, for example 720h for 30 \
         days; leave it out to rotate only on demand",
    )
}

/// How long something goes on while both keys are valid.
pub(super) fn overlap() -> Rule {
    Rule::new(is_duration("self")).message(
        "minOverlap, quietFor and maxOverlap are durations of at most 87600h, in hours, minutes and seconds, for example \
         168h for a week, 90m or 1h30m",
    )
}

/// Rotation: an overlap that must be over before it can be would be reported each time.
pub(super) fn overlaps_fit() -> Rule {
    let [min, quiet, max] = [("minOverlap", "'1h'"), ("quietFor", "'24h'"), ("maxOverlap", "'168h'")]
        .map(|(field, default)| or_else("self", &[field], default));
    // One that is no duration has a message of its own.
    let readable = format!("[{min}, {quiet}, {max}].all(text, {})", is_duration("text"));
    Rule::new(format!(
        "!({readable}) || (duration({max}) >= duration({min}) && duration({max}) >= duration({quiet}))"
    ))
    .field_path(".maxOverlap")
    .message(
        "maxOverlap (default: 168h) must be as long as minOverlap (default: 1h) and quietFor (default: 24h), which both \
         pass before the old key goes, for example minOverlap: 1h, quietFor: 24h, maxOverlap: 168h",
    )
}

/// A day twice is a mistake for another day.
pub(super) fn days_differ() -> Rule {
    Rule::new("self.all(day, self.exists_one(other, other == day))")
        .message("name each day once, for example days: [Tue, Thu]; leave the list out for every day")
}

/// A time of the day.
pub(super) fn window_from() -> Rule {
    Rule::new("self.matches('^([01][0-9]|2[0-3]):[0-5][0-9]$')").message(
        "from is the time at which the window opens, in 24 hours, for example \"02:00\" or \"22:30\"",
    )
}

/// How long a window is open.
pub(super) fn window_duration() -> Rule {
    Rule::new(format!(
        "{} && duration(self) > duration('0s') && duration(self) <= duration('24h')",
        is_duration("self")
    ))
    .message("a window is open for more than 0s and at most 24h, for example 2h or 90m")
}

/// What may be the name of a time zone. Which ones exist is not for the API server to know: it changes.
pub(super) fn time_zone() -> Rule {
    Rule::new("self.size() <= 64 && self.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$')").message(
        "timeZone is the name of a time zone, for example Europe/Berlin or America/New_York; leave it out for UTC",
    )
}

/// An account needs a way in.
pub(super) fn some_credential() -> Rule {
    Rule::new("has(self.wallet) || has(self.agentToken)").message(
        "name the Secret of at least one credential, for example agentToken: {secretName: bags-main} or wallet: \
         {secretName: bags-main}",
    )
}

/// A user of Bags. Whoever writes a uuid in capitals means the same one; Bags writes it in small letters, and what differs is
/// another user.
pub(super) fn user() -> Rule {
    Rule::new(
        "self.matches('^[A-Za-z0-9_-]{1,64}$') && \
         !(self.matches('^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$') && self.matches('[A-F]'))",
    )
    .message(
        "expectedUser is the account's uuid at Bags in small letters, for example 6f0c1a52-3b7e-4d0a-9c1e-2f5b8a7d4e10; leave it \
         out to pin the first one seen",
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
    Rule::new(
        "self.size() <= 200 && self.matches('^(/[A-Za-z0-9._-]+)+$') && !self.contains('..') && \
         !self.matches('/[.](/|$)')",
    )
    .message(
        "revocation.path is a path below the base URL of at most 200 letters, digits, dots, hyphens and underscores, without '.' or \
         '..' as a part, for example /agent/dev/keys/revoke",
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

const DNS_SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
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

/// A duration of at most ten years in Go's notation, as `GoDuration` reads it. The number of digits is bounded, since
/// `duration()` fails on what is too long for it, and a rule that fails says nothing of ours.
fn is_duration(text: &str) -> String {
    let parts = "([0-9]{1,5}h|[0-9]{1,7}m|[0-9]{1,9}(s|ms))";
    format!("{text}.matches('^{parts}{{1,4}}$') && duration({text}) <= duration('87600h')")
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
