//! What the API server accepts and refuses, as one table per kind. `tests/crds.rs` runs it twice: through the CEL of
//! `kube`, and against a real server.

mod rotation;

use serde_json::{Map, Value, json};

/// One write and its outcome.
pub(crate) struct Case {
    /// The case as a sentence.
    pub(crate) says: String,
    /// For an update: the stored object.
    pub(crate) before: Option<Value>,
    /// The object that is written.
    pub(crate) object: Value,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    Accepted,
    /// Refused by a CEL rule, with these words.
    Refused(&'static str),
    /// Refused by the schema, with these words; only a server checks that.
    RefusedBySchema(&'static str),
}

/// The cases of one kind: all are a good object, with something changed.
struct Table {
    base: Value,
    cases: Vec<Case>,
}

impl Table {
    fn create(&mut self, says: impl Into<String>, change: &Value, outcome: Outcome) {
        let object = changed(&self.base, change);
        self.cases.push(Case { says: says.into(), before: None, object, outcome });
    }

    fn accepts(&mut self, says: impl Into<String>, change: &Value) {
        self.create(says, change, Outcome::Accepted);
    }

    fn refuses(&mut self, says: impl Into<String>, change: &Value, words: &'static str) {
        self.create(says, change, Outcome::Refused(words));
    }

    fn schema_refuses(&mut self, says: impl Into<String>, change: &Value, words: &'static str) {
        self.create(says, change, Outcome::RefusedBySchema(words));
    }

    /// The good object with `before` changed is stored; with `after` changed instead, it is written over it.
    fn update(&mut self, says: &str, before: &Value, after: &Value, outcome: Outcome) {
        let stored = Some(changed(&self.base, before));
        let object = changed(&self.base, after);
        self.cases.push(Case { says: says.to_owned(), before: stored, object, outcome });
    }
}

/// A deep copy in which the values of `change` stand; unlike in a merge patch, `null` is a value.
fn changed(base: &Value, change: &Value) -> Value {
    match (base, change) {
        (Value::Object(base), Value::Object(change)) => {
            let mut result = base.clone();
            for (name, value) in change {
                let place = result.entry(name).or_insert(Value::Null);
                *place = changed(place, value);
            }
            Value::Object(result)
        }
        (_, change) => change.clone(),
    }
}

/// A map of so many entries.
fn entries(count: usize) -> Value {
    (0..count).map(|n| (format!("label-{n}"), json!("x"))).collect::<Map<_, _>>().into()
}

const A_GOOD_NAME: &str = "for example Production-Web-Dashboard";
const SAYS_NOTHING: &str = "does not say what the key is for; name environment and application";

/// Every rule of ApiKey.
pub(crate) fn api_keys() -> Vec<Case> {
    let base = json!({
        "apiVersion": "keys.bags.fm/v1alpha1",
        "kind": "ApiKey",
        "metadata": { "name": "web-dashboard" },
        "spec": { "accountRef": { "name": "main" }, "environment": "production" },
    });
    let mut table = Table { base, cases: Vec::new() };
    identity(&mut table);
    key_names(&mut table);
    secrets(&mut table);
    secret_metadata(&mut table);
    rotation::rotations(&mut table);
    edits(&mut table);
    table.cases
}

fn identity(t: &mut Table) {
    t.accepts("an ApiKey needs an account and an environment", &json!({}));
    t.accepts("a name may have 52 characters", &json!({ "metadata": { "name": "n".repeat(52) } }));
    t.accepts("a name may have dots", &json!({ "metadata": { "name": "shop.web-dashboard" } }));
    t.refuses(
        "a name may not have 53 characters",
        &json!({ "metadata": { "name": "n".repeat(53) } }),
        "metadata.name must be at most 52 characters, for example web-dashboard",
    );
    for word in ["production", "staging", "development", "testing", "qa-2", "e", &"e".repeat(20)] {
        t.accepts(format!("{word} is an environment"), &json!({ "spec": { "environment": word } }));
    }
    for word in ["", "Production", "prod_eu", "2nd", "-qa", "qa-", "pre production", "qä", &"e".repeat(21)] {
        t.refuses(
            format!("\"{word}\" is no environment"),
            &json!({ "spec": { "environment": word } }),
            "for example production, staging, development or testing",
        );
    }
    t.schema_refuses("an ApiKey without a spec is refused", &json!({ "spec": null }), "spec: Required value");
    t.schema_refuses(
        "an ApiKey without an environment is refused",
        &json!({ "spec": { "environment": null } }),
        "spec.environment: Required value",
    );
    t.schema_refuses(
        "an ApiKey without an account is refused",
        &json!({ "spec": { "accountRef": null } }),
        "spec.accountRef: Required value",
    );
    t.schema_refuses(
        "an environment out of all bounds is refused",
        &json!({ "spec": { "environment": "e".repeat(254) } }),
        "Too long: may not be more than 253 bytes",
    );
    for name in ["", "Main", "main_2", "https://api.example.com", &"n".repeat(53)] {
        t.refuses(
            format!("\"{name}\" is no BagsAccount"),
            &json!({ "spec": { "accountRef": { "name": name } } }),
            "accountRef.name must be the name of a BagsAccount, for example main",
        );
    }
    for name in ["orders", "orders.v2", "2048", &"a".repeat(52)] {
        t.accepts(format!("{name} is an application"), &json!({ "spec": { "application": name } }));
    }
    for name in ["", "Web Dashboard", "web_dashboard", "web-", ".web", "web..v2", &"a".repeat(53)] {
        t.refuses(
            format!("\"{name}\" is no application"),
            &json!({ "spec": { "application": name } }),
            "at most 52 characters, for example web-dashboard",
        );
    }
    t.accepts("a purpose may have 256 characters", &json!({ "spec": { "purpose": "p".repeat(256) } }));
    t.schema_refuses(
        "a purpose may not have 257 characters",
        &json!({ "spec": { "purpose": "p".repeat(257) } }),
        "spec.purpose: Too long: may not be more than 256",
    );
    t.accepts(
        "a key may be left to people",
        &json!({ "spec": { "deletionPolicy": "Orphan", "suspend": true } }),
    );
    t.schema_refuses(
        "an unknown deletion policy is refused",
        &json!({ "spec": { "deletionPolicy": "Keep" } }),
        "supported values: \"Revoke\", \"Orphan\"",
    );
    t.schema_refuses(
        "suspend is a truth value",
        &json!({ "spec": { "suspend": "yes" } }),
        "spec.suspend: Invalid value: \"string\"",
    );
    t.accepts(
        "an empty value of a template counts as absent",
        &json!({ "spec": {
            "application": null, "keyName": null, "purpose": null, "deletionPolicy": null, "suspend": null,
            "secret": { "name": null, "apiKeyField": null, "baseUrlField": null },
        } }),
    );
    t.accepts("a whole block may be empty", &json!({ "spec": { "secret": null } }));
}

fn key_names(t: &mut Table) {
    for name in [
        "Production-Web-Dashboard",
        "Production-Web-App",
        "Background-Jobs-Server",
        "Mobile-App-iOS",
        "My-Shop-Frontend",
        "Test-Orders",
        "Production-API",
        "Staging-Api-V2",
        "web-dashboard",
        &format!("Web-{}", "k".repeat(76)),
    ] {
        t.accepts(format!("{name} says what a key is for"), &json!({ "spec": { "keyName": name } }));
    }
    for name in [
        "Key-1",
        "My-Key",
        "Test-Key",
        "Temp-Key",
        "New-Key",
        "API-Key",
        "API-Key-2",
        "TEST-KEY",
        "my-new-key",
        "Key-v2",
        "MyKey-Test",
        "1-2",
        "A-B",
        "Foo-Bar",
        "tmp-token",
        "xxx-Key",
        "Bags-API-Key",
        "Default-Key",
        "The-Secret",
    ] {
        t.refuses(format!("{name} says nothing"), &json!({ "spec": { "keyName": name } }), SAYS_NOTHING);
    }
    for name in ["Key1", "Test", "MyKey", "temp", "apikey", "NEW2"] {
        t.refuses(
            format!("{name} says nothing in one word"),
            &json!({ "spec": { "keyName": name } }),
            SAYS_NOTHING,
        );
    }
    for name in [
        "",
        "Key1",
        "Test",
        "MyKey",
        "temp",
        "Production",
        "Web--Dashboard",
        "-Web-Dashboard",
        "Web-Dashboard-",
        "Web Dashboard",
        "Web_Dashboard",
        "Wéb-Dashboard",
        "Web-Dashboard\n",
        &format!("Web-{}", "k".repeat(77)),
    ] {
        t.refuses(
            format!("{name:?} is no name of a key"),
            &json!({ "spec": { "keyName": name } }),
            A_GOOD_NAME,
        );
    }
    t.accepts(
        "environment and application name the key where they say something together",
        &json!({ "metadata": { "name": "api" }, "spec": { "environment": "staging" } }),
    );
    let default = "set keyName, for example Testing-Orders-Backend";
    t.refuses(
        "a default that says nothing is refused",
        &json!({ "metadata": { "name": "key1" }, "spec": { "environment": "test" } }),
        default,
    );
    t.refuses(
        "a default made of an application that says nothing is refused",
        &json!({ "spec": { "environment": "temp", "application": "my-app" } }),
        default,
    );
    t.accepts(
        "with a name of its own the key may be for such an application",
        &json!({ "metadata": { "name": "key1" }, "spec": { "environment": "test", "keyName": "Test-Orders" } }),
    );
}

fn secrets(t: &mut Table) {
    t.accepts(
        "the Secret may be named, and its fields",
        &json!({ "spec": { "secret": { "name": "bags.web", "apiKeyField": "api-key.txt", "baseUrlField": "_URL" } } }),
    );
    t.accepts("the base URL may be left out", &json!({ "spec": { "secret": { "baseUrlField": "" } } }));
    for name in ["", "Web", "web_secret", "-web", "../other", "shop/web"] {
        t.refuses(
            format!("\"{name}\" is no name of a Secret"),
            &json!({ "spec": { "secret": { "name": name } } }),
            "for example web-dashboard-bags",
        );
    }
    t.schema_refuses(
        "the name of a Secret has at most 253 characters",
        &json!({ "spec": { "secret": { "name": "n".repeat(254) } } }),
        "spec.secret.name: Too long: may not be more than 253",
    );
    for field in ["API KEY", ".", "..", "..key", "a/b", "schlüssel"] {
        t.refuses(
            format!("\"{field}\" is no field of a Secret"),
            &json!({ "spec": { "secret": { "apiKeyField": field } } }),
            "for example BAGS_API_KEY",
        );
        t.refuses(
            format!("\"{field}\" is no field for the URL"),
            &json!({ "spec": { "secret": { "baseUrlField": field } } }),
            "for example BAGS_BASE_URL; \"\" leaves it out",
        );
    }
    t.refuses(
        "the value cannot be left out",
        &json!({ "spec": { "secret": { "apiKeyField": "" } } }),
        "for example BAGS_API_KEY",
    );
    let same = "apiKeyField and baseUrlField must differ";
    t.refuses(
        "one field cannot hold value and URL",
        &json!({ "spec": { "secret": { "apiKeyField": "bags", "baseUrlField": "bags" } } }),
        same,
    );
    t.refuses(
        "the value cannot take the default field of the URL",
        &json!({ "spec": { "secret": { "apiKeyField": "BAGS_BASE_URL" } } }),
        same,
    );
    t.refuses(
        "the URL cannot take the default field of the value",
        &json!({ "spec": { "secret": { "baseUrlField": "BAGS_API_KEY" } } }),
        same,
    );
}

fn secret_metadata(t: &mut Table) {
    let domain = "d".repeat(253);
    for key in [
        "team",
        "example.com/team",
        "a.b-c.d/team",
        "app.kubernetes.io/part-of",
        "Team_2",
        "notkubernetes.io/team",
    ] {
        t.accepts(
            format!("{key} may be put on the Secret"),
            &json!({ "spec": { "secret": { "labels": { key: "web-team" }, "annotations": { key: "Any text: ünïcode!" } } } }),
        );
    }
    let longest = format!("{domain}/{}", "k".repeat(63));
    t.accepts(
        "a key may have 63 characters after a domain of 253",
        &json!({ "spec": { "secret": { "annotations": { longest.as_str(): "" } } } }),
    );
    t.accepts(
        "32 labels and annotations are allowed, with values of 63 and 4,096 characters",
        &json!({ "spec": { "secret": {
            "labels": changed(&entries(31), &json!({ "long": "x".repeat(63) })),
            "annotations": changed(&entries(31), &json!({ "long": "x".repeat(4096) })),
        } } }),
    );
    for (place, what) in [("labels", "label"), ("annotations", "annotation")] {
        for key in [
            "kubernetes.io/metadata.name",
            "kubectl.kubernetes.io/last-applied-configuration",
            "k8s.io/team",
            "node.k8s.io/team",
            "keys.bags.fm/owner-uid",
            "restart.keys.bags.fm/web",
            "app.kubernetes.io/managed-by",
        ] {
            t.refuses(
                format!("the {what} {key} is reserved"),
                &json!({ "spec": { "secret": { place: { key: "x" } } } }),
                "use a domain of yours, for example example.com/team",
            );
        }
        let too_long = "k".repeat(64);
        let long_domain = format!("{}/team", "d".repeat(254));
        for key in [
            "two words",
            "/team",
            "example.com/",
            "Example.com/team",
            "a..b/team",
            "a.-b/team",
            "a-.b/team",
            "a/b/c",
            "-team",
            "",
            too_long.as_str(),
            long_domain.as_str(),
        ] {
            t.refuses(
                format!("\"{key}\" is no key of a {what}"),
                &json!({ "spec": { "secret": { place: { key: "x" } } } }),
                "for example team or example.com/team",
            );
        }
        t.schema_refuses(
            format!("33 {place} are too many"),
            &json!({ "spec": { "secret": { place: entries(33) } } }),
            "must have at most 32 items",
        );
    }
    for value in ["two words", "-x", "x.", "ü"] {
        t.refuses(
            format!("\"{value}\" is no value of a label"),
            &json!({ "spec": { "secret": { "labels": { "team": value } } } }),
            "for example web-team; annotations take any text",
        );
    }
    t.schema_refuses(
        "the value of a label has at most 63 characters",
        &json!({ "spec": { "secret": { "labels": { "team": "x".repeat(64) } } } }),
        "may not be more than 63",
    );
    t.schema_refuses(
        "the value of an annotation has at most 4,096 characters",
        &json!({ "spec": { "secret": { "annotations": { "note": "x".repeat(4097) } } } }),
        "may not be more than 4096",
    );
}

/// An immutable field: its name, the change that sets it, its default, and what is said.
type Field = (&'static str, fn(&str) -> Value, &'static str, &'static str);

/// Immutability is judged on effective values.
fn edits(t: &mut Table) {
    let fields: [Field; 4] = [
        (
            "application",
            |value| json!({ "spec": { "application": value } }),
            "web-dashboard",
            "application (default: metadata.name) cannot change, the key was made for it; delete this ApiKey",
        ),
        (
            "secret.name",
            |value| json!({ "spec": { "secret": { "name": value } } }),
            "web-dashboard",
            "secret.name (default: metadata.name) cannot change, workloads read that Secret; delete this ApiKey",
        ),
        (
            "secret.apiKeyField",
            |value| json!({ "spec": { "secret": { "apiKeyField": value } } }),
            "BAGS_API_KEY",
            "secret.apiKeyField (default: BAGS_API_KEY) cannot change, workloads read that field; delete this ApiKey",
        ),
        (
            "secret.baseUrlField",
            |value| json!({ "spec": { "secret": { "baseUrlField": value } } }),
            "BAGS_BASE_URL",
            "secret.baseUrlField (default: BAGS_BASE_URL) cannot change, workloads read that field; delete this ApiKey",
        ),
    ];
    let none = json!({});
    for (field, spec, default, words) in fields {
        let (default, other, third) = (spec(default), spec("other"), spec("third"));
        let mut says = |says: &str, before: &Value, after: &Value, outcome| {
            t.update(&format!("{field}: {says}"), before, after, outcome);
        };
        says("the default may be written down", &none, &default, Outcome::Accepted);
        says("the default need not stay written down", &default, &none, Outcome::Accepted);
        says("what is written down may stay", &other, &other, Outcome::Accepted);
        says("it cannot be set to another value than the default", &none, &other, Outcome::Refused(words));
        says("it cannot go from the default to another value", &default, &other, Outcome::Refused(words));
        says("it cannot go back to the default", &other, &none, Outcome::Refused(words));
        says("it cannot change", &other, &third, Outcome::Refused(words));
    }
    let empty = json!({ "spec": { "secret": {} } });
    t.update("an empty secret says nothing new", &none, &empty, Outcome::Accepted);
    t.update("nor does taking it away", &empty, &none, Outcome::Accepted);
    t.update(
        "the URL cannot be left out later",
        &none,
        &json!({ "spec": { "secret": { "baseUrlField": "" } } }),
        Outcome::Refused("secret.baseUrlField (default: BAGS_BASE_URL) cannot change"),
    );
    t.update(
        "the URL cannot be asked for later",
        &json!({ "spec": { "secret": { "baseUrlField": "" } } }),
        &none,
        Outcome::Refused("secret.baseUrlField (default: BAGS_BASE_URL) cannot change"),
    );
    t.update(
        "the environment cannot change",
        &none,
        &json!({ "spec": { "environment": "staging" } }),
        Outcome::Refused("environment cannot change, a key belongs to one environment; delete this ApiKey"),
    );
    t.update(
        "the account cannot change",
        &none,
        &json!({ "spec": { "accountRef": { "name": "other" } } }),
        Outcome::Refused(
            "accountRef cannot change, a key cannot move to another account; delete this ApiKey",
        ),
    );
    t.update(
        "everything else may change",
        &none,
        &json!({ "spec": {
            "keyName": "Production-Web-Dashboard-2", "purpose": "Another", "deletionPolicy": "Orphan", "suspend": true,
            "secret": { "labels": { "team": "web" }, "annotations": { "example.com/note": "new" } },
        } }),
        Outcome::Accepted,
    );
}

/// Every rule of BagsAccount.
pub(crate) fn accounts() -> Vec<Case> {
    let base = json!({
        "apiVersion": "keys.bags.fm/v1alpha1",
        "kind": "BagsAccount",
        "metadata": { "name": "case-of-a-test" },
        "spec": { "credentials": { "agentToken": { "secretName": "bags-main" } } },
    });
    let mut table = Table { base, cases: Vec::new() };
    credentials(&mut table);
    numbers(&mut table);
    revocation(&mut table);
    allowed(&mut table);
    account_edits(&mut table);
    table.cases
}

fn credentials(t: &mut Table) {
    t.accepts("an account needs one credential", &json!({}));
    t.accepts(
        "a wallet alone will do",
        &json!({ "spec": { "credentials": { "agentToken": null, "wallet": { "secretName": "bags-main" } } } }),
    );
    t.accepts(
        "an account may have both, with fields of any name",
        &json!({ "spec": { "credentials": {
            "agentToken": { "field": "agent.token" },
            "wallet": { "secretName": "bags.wallet", "field": "id.json", "totpField": "totp" },
        } } }),
    );
    t.refuses(
        "an account without a credential is refused",
        &json!({ "spec": { "credentials": { "agentToken": null } } }),
        "at least one credential, for example agentToken: {secretName: bags-main}",
    );
    t.schema_refuses(
        "an account without credentials is refused",
        &json!({ "spec": { "credentials": null } }),
        "spec.credentials: Required value",
    );
    t.schema_refuses(
        "a credential names its Secret",
        &json!({ "spec": { "credentials": { "wallet": {} } } }),
        "spec.credentials.wallet.secretName: Required value",
    );
    for kind in ["agentToken", "wallet"] {
        t.refuses(
            format!("the Secret of the {kind} is a name"),
            &json!({ "spec": { "credentials": { kind: { "secretName": "other/bags" } } } }),
            "the name of a Secret is lower-case letters",
        );
        for field in ["", "my field", "..", "a/b"] {
            t.refuses(
                format!("\"{field}\" is no field of the {kind}"),
                &json!({ "spec": { "credentials": { kind: { "secretName": "bags-main", "field": field } } } }),
                "for example BAGS_API_KEY or wallet.json",
            );
        }
    }
    t.refuses(
        "the second factor's field is one of a Secret",
        &json!({ "spec": { "credentials": { "wallet": { "secretName": "bags-main", "totpField": "one time" } } } }),
        "for example BAGS_API_KEY or wallet.json",
    );
    let uuid = "6f0c1a52-3b7e-4d0a-9c1e-2f5b8a7d4e10";
    t.accepts("the user may be named", &json!({ "spec": { "expectedUser": uuid } }));
    for user in ["", "me@example.com", &"u".repeat(65), &uuid.to_uppercase()] {
        t.refuses(
            format!("\"{user}\" is no user"),
            &json!({ "spec": { "expectedUser": user } }),
            "leave it out to pin the first one seen",
        );
    }
    t.accepts("an account's name may have 52 characters", &json!({ "metadata": { "name": "n".repeat(52) } }));
    t.refuses(
        "an account's name may not have 53 characters",
        &json!({ "metadata": { "name": "n".repeat(53) } }),
        "metadata.name must be at most 52 characters",
    );
}

fn numbers(t: &mut Table) {
    t.accepts(
        "the least of each number",
        &json!({ "spec": { "limit": 1, "rotationReserve": 0, "unmanagedKeys": 0, "requestsPerHour": 30 } }),
    );
    t.accepts(
        "the most of each number",
        &json!({ "spec": { "limit": 100, "rotationReserve": 100, "unmanagedKeys": 100, "requestsPerHour": 5000 } }),
    );
    for (field, low, high) in [
        ("limit", 0, 101),
        ("rotationReserve", -1, 101),
        ("unmanagedKeys", -1, 101),
        ("requestsPerHour", 29, 5001),
    ] {
        t.schema_refuses(
            format!("{field} of {low} is too little"),
            &json!({ "spec": { field: low } }),
            "should be greater than or equal to",
        );
        t.schema_refuses(
            format!("{field} of {high} is too much"),
            &json!({ "spec": { field: high } }),
            "should be less than or equal to",
        );
    }
    t.schema_refuses(
        "a number is no word",
        &json!({ "spec": { "limit": "ten" } }),
        "must be of type integer",
    );
    let within = "rotationReserve (default: 1) must not exceed limit (default: 10)";
    t.refuses(
        "more slots cannot be reserved than there are",
        &json!({ "spec": { "limit": 3, "rotationReserve": 4 } }),
        within,
    );
    t.refuses("nor more than the default limit", &json!({ "spec": { "rotationReserve": 11 } }), within);
    t.accepts("one slot, reserved by default, is allowed", &json!({ "spec": { "limit": 1 } }));
}

fn revocation(t: &mut Table) {
    t.accepts("who revokes may be said", &json!({ "spec": { "revocation": { "mode": "Person" } } }));
    t.schema_refuses(
        "who revokes is one of two",
        &json!({ "spec": { "revocation": { "mode": "Nobody" } } }),
        "supported values: \"Auto\", \"Person\"",
    );
    for path in ["/agent/dev/keys/revoke", "/v2/keys.revoke", &format!("/{}", "p".repeat(199))] {
        t.accepts(format!("{path} is a path"), &json!({ "spec": { "revocation": { "path": path } } }));
    }
    for path in [
        "",
        "/",
        "agent/dev/keys/revoke",
        "https://other.example.com/revoke",
        "//other.example.com/revoke",
        "/\\other.example.com",
        "/agent/../admin",
        "/agent/%2e%2e/admin",
        "/revoke?all=true",
        "/revoke#all",
        "/re voke",
        "/revoke\n",
        "/revoke/",
        "/agent/~dev/revoke",
        "/agent/./revoke",
        "/revoke/.",
        &format!("/{}", "p".repeat(200)),
    ] {
        t.refuses(
            format!("{path:?} is no path"),
            &json!({ "spec": { "revocation": { "path": path } } }),
            "for example /agent/dev/keys/revoke",
        );
    }
}

fn allowed(t: &mut Table) {
    let entry = |entry: Value| json!({ "spec": { "allowed": [entry] } });
    t.accepts(
        "namespaces may be allowed by name, with environments and a bound",
        &entry(
            json!({ "namespaces": ["shop", "2nd-shop"], "environments": ["production", "qa-2"], "max": 6 }),
        ),
    );
    t.accepts("by label", &entry(json!({ "selector": { "matchLabels": { "team": "shop" } } })));
    t.accepts(
        "and by conditions on labels",
        &entry(json!({ "selector": { "matchExpressions": [
            { "key": "team", "operator": "In", "values": ["shop"] },
            { "key": "team", "operator": "NotIn", "values": ["web", "ops"] },
            { "key": "legacy", "operator": "DoesNotExist" },
            { "key": "team", "operator": "Exists", "values": [] },
        ] } })),
    );
    t.accepts(
        "an empty selector beside names adds nothing",
        &entry(json!({ "namespaces": ["shop"], "selector": {}, "max": 0 })),
    );
    let nobody = "name the namespaces, for example namespaces: [shop]";
    for (says, value) in [
        ("an entry that names nobody", json!({})),
        ("an entry with no names", json!({ "namespaces": [], "environments": ["production"] })),
        ("an entry with an empty selector", json!({ "selector": {} })),
        (
            "an entry with a selector without terms",
            json!({ "selector": { "matchLabels": {}, "matchExpressions": [] } }),
        ),
    ] {
        t.refuses(format!("{says} is refused"), &entry(value), nobody);
    }
    for name in ["*", "shop-*", "Shop", "shop.web", ""] {
        t.refuses(
            format!("\"{name}\" is no namespace"),
            &entry(json!({ "namespaces": ["shop", name] })),
            "namespaces are names, not patterns, for example shop",
        );
    }
    for word in ["*", "Production", "", &"e".repeat(21)] {
        t.refuses(
            format!("\"{word}\" cannot be an allowed environment"),
            &entry(json!({ "namespaces": ["shop"], "environments": ["production", word] })),
            "leave the list out to allow all",
        );
    }
    let term = "In and NotIn need values, for example values: [shop]; Exists and DoesNotExist take none";
    for value in [
        json!({ "key": "team", "operator": "In" }),
        json!({ "key": "team", "operator": "NotIn", "values": [] }),
        json!({ "key": "team", "operator": "Exists", "values": ["shop"] }),
    ] {
        t.refuses(
            format!("{value} selects nothing"),
            &entry(json!({ "selector": { "matchExpressions": [value] } })),
            term,
        );
    }
    t.schema_refuses(
        "an operator is one of four",
        &entry(json!({ "selector": { "matchExpressions": [{ "key": "team", "operator": "Like" }] } })),
        "supported values: \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\"",
    );
    t.schema_refuses(
        "a bound is not below nothing",
        &entry(json!({ "namespaces": ["shop"], "max": -1 })),
        "should be greater than or equal to 0",
    );
    let names = |count: usize| (0..count).map(|n| format!("shop-{n}")).collect::<Vec<_>>();
    let shop = json!({ "namespaces": ["shop"] });
    t.accepts("64 entries are allowed", &json!({ "spec": { "allowed": vec![shop.clone(); 64] } }));
    t.schema_refuses(
        "65 are too many",
        &json!({ "spec": { "allowed": vec![shop; 65] } }),
        "must have at most 64 items",
    );
    t.accepts(
        "64 namespaces and 16 environments an entry are allowed",
        &entry(json!({ "namespaces": names(64), "environments": names(16) })),
    );
    t.schema_refuses(
        "65 namespaces are too many",
        &entry(json!({ "namespaces": names(65) })),
        "must have at most 64 items",
    );
    t.schema_refuses(
        "17 environments are too many",
        &entry(json!({ "namespaces": ["shop"], "environments": names(17) })),
        "must have at most 16 items",
    );
}

fn account_edits(t: &mut Table) {
    t.update(
        "everything of an account may change",
        &json!({ "spec": { "limit": 10, "expectedUser": "6f0c1a52" } }),
        &json!({ "spec": {
            "limit": 20, "expectedUser": "7f0c1a52", "rotationReserve": 2, "allowed": [{ "namespaces": ["shop"] }],
            "credentials": { "agentToken": { "secretName": "bags-other" } },
        } }),
        Outcome::Accepted,
    );
    t.update(
        "an edit is held to the same rules",
        &json!({}),
        &json!({ "spec": { "credentials": { "agentToken": null } } }),
        Outcome::Refused("at least one credential"),
    );
}
