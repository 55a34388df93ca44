//! The kinds as the API server sees them: every rule accepts and refuses what it says (through the CEL of `kube`, and
//! on a real server with its cost budget), the files in `crds/` are fresh, and every example applies.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

#[path = "crds/cases.rs"]
mod cases;
mod support;

use std::{collections::BTreeMap, fmt::Write, path::Path, process::Command};

use bags_operator::api::{self, ApiKey, BagsAccount};
use cases::{Case, Outcome};
use kube::{
    Api, Client, CustomResourceExt, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, PostParams, TypeMeta},
    core::{
        GroupVersionKind,
        cel::{ValidationErrors, validate_cel, validate_cel_update},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use support::Cluster;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

// ---- the tables, twice

#[test]
fn the_rules_of_api_keys_hold_in_cel() {
    run_in_cel::<ApiKey>(&cases::api_keys());
}

#[test]
fn the_rules_of_accounts_hold_in_cel() {
    run_in_cel::<BagsAccount>(&cases::accounts());
}

#[tokio::test]
async fn the_rules_of_api_keys_hold_on_a_server() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let namespace = cluster.namespace(&client, "crds").await;
    let kind = ApiResource::erase::<ApiKey>(&());
    run_on_server(&Api::namespaced_with(client, &namespace, &kind), &cases::api_keys()).await;
}

#[tokio::test]
async fn the_rules_of_accounts_hold_on_a_server() {
    let cluster = Cluster::shared().await;
    let kind = ApiResource::erase::<BagsAccount>(&());
    run_on_server(&Api::all_with(cluster.client().await, &kind), &cases::accounts()).await;
}

fn run_in_cel<K: CustomResourceExt + Serialize + DeserializeOwned>(cases: &[Case]) {
    let typed = |object: &Value| serde_json::from_value::<K>(object.clone());
    let mut failures = Failures::default();
    for case in cases.iter().filter(|case| !matches!(case.outcome, Outcome::RefusedBySchema(_))) {
        let verdict = typed(&case.object).map_err(|error| error.to_string()).and_then(|object| {
            let verdict: Result<(), ValidationErrors> = match &case.before {
                None => validate_cel(&object),
                Some(before) => {
                    validate_cel_update(&object, &typed(before).expect("what is stored is typed"))
                }
            };
            verdict.map_err(|errors| errors.to_string())
        });
        failures.judge(case, verdict);
    }
    failures.none();
}

async fn run_on_server(api: &Api<DynamicObject>, cases: &[Case]) {
    let really = PostParams::default();
    let dry_run = PostParams { dry_run: true, field_manager: None };
    let object = |value: &Value| serde_json::from_value::<DynamicObject>(value.clone()).unwrap();
    let mut failures = Failures::default();
    for case in cases {
        let written = match &case.before {
            None => api.create(&dry_run, &object(&case.object)).await,
            Some(before) => {
                let stored = api.create(&really, &object(before)).await.expect("what is stored is good");
                let name = stored.name_any();
                let mut object = object(&case.object);
                object.metadata.resource_version = stored.resource_version();
                let written = api.replace(&name, &dry_run, &object).await;
                api.delete(&name, &Default::default()).await.unwrap();
                written
            }
        };
        let verdict = match written {
            Ok(written) if written.data["spec"] == without_nulls(&case.object["spec"]) => Ok(()),
            Ok(written) => Err(format!("the server stored something else: {}", written.data["spec"])),
            Err(error) => Err(error.to_string()),
        };
        failures.judge(case, verdict);
    }
    failures.none();
}

/// Explicit nulls are dropped; nothing else is, and nothing is added.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), without_nulls(value)))
            .collect(),
        other => other.clone(),
    }
}

/// All cases that went wrong, so that one run shows them all.
#[derive(Default)]
struct Failures(String);

impl Failures {
    fn judge(&mut self, case: &Case, verdict: Result<(), String>) {
        let wrong = match (&case.outcome, verdict) {
            (Outcome::Accepted, Ok(())) => return,
            (Outcome::Accepted, Err(error)) => format!("was refused: {error}"),
            (Outcome::Refused(_) | Outcome::RefusedBySchema(_), Ok(())) => "was accepted".to_owned(),
            (Outcome::Refused(words) | Outcome::RefusedBySchema(words), Err(error)) => {
                if error.contains(words) {
                    return;
                }
                format!("was refused without the words \"{words}\": {error}")
            }
        };
        writeln!(self.0, "- {}: {wrong}", case.says).unwrap();
    }

    fn none(self) {
        assert!(self.0.is_empty(), "wrong cases:\n{}", self.0);
    }
}

#[test]
fn every_rule_has_a_case_that_it_refuses() {
    let tables = cases::api_keys().into_iter().chain(cases::accounts());
    let refusals: Vec<_> = tables
        .filter_map(|case| match case.outcome {
            Outcome::Refused(words) => Some(words),
            Outcome::Accepted | Outcome::RefusedBySchema(_) => None,
        })
        .collect();
    for definition in api::definitions() {
        let mut messages = Vec::new();
        collect_messages(&schema_of(&definition), &mut messages);
        assert!(messages.len() > 10, "the rules are found");
        for message in messages {
            assert!(
                refusals.iter().any(|words| message.contains(words)),
                "no case is refused with: {message}"
            );
        }
    }
}

fn collect_messages(schema: &Value, messages: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            for rule in fields.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten()
            {
                messages.push(
                    rule["message"].as_str().expect("every rule says what to write instead").to_owned(),
                );
            }
            fields.values().for_each(|field| collect_messages(field, messages));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_messages(item, messages)),
        _ => {}
    }
}

// ---- the definitions

#[test]
fn the_committed_definitions_are_what_the_code_says() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_crdgen")).arg("--check").current_dir(ROOT).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_stale_definition_is_named_with_the_way_to_refresh_it() {
    let folder = std::env::temp_dir().join(format!("crdgen-{}", std::process::id()));
    let crdgen = |check: &[&str]| {
        let (out, chart) = (folder.join("crds"), folder.join("chart"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_crdgen"));
        command.arg("--out").arg(out).arg("--chart").arg(chart).args(check).output().unwrap()
    };
    assert!(!crdgen(&["--check"]).status.success(), "nothing is there yet");
    assert!(crdgen(&[]).status.success());
    assert!(crdgen(&["--check"]).status.success());
    for stale in ["crds", "chart"] {
        std::fs::write(folder.join(stale).join("apikeys.yaml"), "edited by hand").unwrap();
        let output = crdgen(&["--check"]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1));
        assert!(words.contains(&format!("{stale}/apikeys.yaml")), "{words}");
        assert!(words.contains("cargo run --bin crdgen") && words.lines().count() == 1, "{words}");
        assert!(crdgen(&[]).status.success());
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_schemas_have_no_defaults_nothing_nullable_and_a_description_for_every_field() {
    for definition in api::definitions() {
        let schema = schema_of(&definition);
        for part in ["spec", "status"] {
            let mut path = vec![definition.spec.names.kind.clone(), part.to_owned()];
            check_fields(&schema["properties"][part]["properties"], &mut path);
        }
    }
}

fn check_fields(fields: &Value, path: &mut Vec<String>) {
    for (name, field) in fields.as_object().into_iter().flatten() {
        path.push(name.clone());
        let place = path.join(".");
        assert!(field.get("default").is_none(), "{place} has a default: they live in code");
        assert!(field.get("nullable").is_none(), "{place} is nullable: a null must count as absent");
        assert!(field["description"].is_string(), "{place} has no description");
        check_fields(&field["properties"], path);
        check_fields(&field["items"]["properties"], path);
        path.pop();
    }
}

#[test]
fn conditions_are_a_map_by_type() {
    for definition in api::definitions() {
        let conditions = &schema_of(&definition)["properties"]["status"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map");
        assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
    }
}

fn schema_of(
    definition: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
) -> Value {
    serde_json::to_value(definition).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
}

#[tokio::test]
async fn the_server_prints_the_columns_that_people_read() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let namespace = cluster.namespace(&client, "columns").await;
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    let key: ApiKey =
        from_yaml("{metadata: {name: web}, spec: {accountRef: {name: main}, environment: production}}");
    let mut key = keys.create(&PostParams::default(), &key).await.unwrap();
    key.status = Some(from_yaml(
        "{phase: Live, binding: {name: web-bags}, nextRotation: '2999-01-02T03:04:05Z', \
          current: {revision: 3, attempt: abcdefghij, keyId: id-3, keyName: Production-Web-x-y}, \
          conditions: [{type: Ready, status: 'True', reason: Issued, message: '', lastTransitionTime: '2026-01-02T03:04:05Z'}]}",
    ));
    keys.replace_status("web", &PostParams::default(), &key).await.unwrap();
    let table = table(&client, &format!("/apis/keys.bags.fm/v1alpha1/namespaces/{namespace}/apikeys")).await;
    let row: BTreeMap<_, _> = table.iter().map(|(name, _, cell)| (name.as_str(), cell.clone())).collect();
    for (column, cell) in [
        ("Account", json!("main")),
        ("Environment", json!("production")),
        ("Secret", json!("web-bags")),
        ("Ready", json!("True")),
        ("Reason", json!("Issued")),
        ("Next rotation", json!("2999-01-02T03:04:05Z")),
        ("Key id", json!("id-3")),
        ("Key name", json!("Production-Web-x-y")),
        ("Revision", json!(3)),
        ("Phase", json!("Live")),
    ] {
        assert_eq!(row.get(column), Some(&cell), "{column}");
    }
    let narrow: Vec<_> =
        table.iter().filter(|(_, priority, _)| *priority == 0).map(|(name, ..)| name.as_str()).collect();
    assert_eq!(
        narrow,
        ["Name", "Account", "Environment", "Secret", "Ready", "Reason", "Last used", "Next rotation", "Age"]
    );
}

#[tokio::test]
async fn the_server_prints_what_an_account_has_left() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let accounts: Api<BagsAccount> = Api::all(client.clone());
    let account: BagsAccount = from_yaml(
        "{metadata: {name: columns}, spec: {credentials: {agentToken: {secretName: bags-main}}, limit: 7}}",
    );
    let mut account = accounts.create(&PostParams::default(), &account).await.unwrap();
    account.status = Some(from_yaml(
        "{user: user-1, capacity: {limit: 7, used: 3, reserved: 1, unmanaged: 2, available: 1}, \
          conditions: [{type: Ready, status: 'True', reason: Usable, message: '', lastTransitionTime: '2026-01-02T03:04:05Z'}]}",
    ));
    accounts.replace_status("columns", &PostParams::default(), &account).await.unwrap();
    let table = table(&client, "/apis/keys.bags.fm/v1alpha1/bagsaccounts/columns").await;
    let narrow = table.iter().filter(|(name, priority, _)| *priority == 0 && name != "Age");
    let narrow: Vec<_> = narrow.map(|(name, _, cell)| (name.as_str(), cell.clone())).collect();
    assert_eq!(
        narrow,
        [
            ("Name", json!("columns")),
            ("Ready", json!("True")),
            ("Reason", json!("Usable")),
            ("Used", json!(3)),
            ("Limit", json!(7)),
            ("Reserved", json!(1)),
            ("Unmanaged", json!(2)),
            ("Available", json!(1)),
        ]
    );
}

/// The first row of what `kubectl get` asks for: column, priority, cell.
async fn table(client: &Client, path: &str) -> Vec<(String, i64, Value)> {
    let request = http::Request::get(path)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
    let table: Value = client.request(request).await.unwrap();
    let columns = table["columnDefinitions"].as_array().unwrap();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    let named = columns.iter().zip(cells);
    named
        .map(|(column, cell)| {
            (column["name"].as_str().unwrap().to_owned(), column["priority"].as_i64().unwrap(), cell.clone())
        })
        .collect()
}

#[tokio::test]
async fn api_keys_are_found_by_account_and_environment() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let namespace = cluster.namespace(&client, "fields").await;
    let keys: Api<ApiKey> = Api::namespaced(client, &namespace);
    for (name, account, environment) in
        [("one", "main", "production"), ("two", "other", "production"), ("three", "main", "staging")]
    {
        let key = from_yaml(&format!(
            "{{metadata: {{name: {name}}}, spec: {{accountRef: {{name: {account}}}, environment: {environment}}}}}"
        ));
        keys.create(&PostParams::default(), &key).await.unwrap();
    }
    let params = ListParams::default().fields("spec.accountRef.name=main,spec.environment=production");
    let found: Vec<_> = keys.list(&params).await.unwrap().into_iter().map(|key| key.name_any()).collect();
    assert_eq!(found, ["one"]);
}

// ---- the examples

#[tokio::test]
async fn every_example_applies() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let documents = examples();
    // Namespaces first, and for good: without them nothing can be tried in them.
    for (file, document) in documents.iter().filter(|(_, document)| document["kind"] == "Namespace") {
        match api_of(&client, document).create(&PostParams::default(), &object(document)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => panic!("{file}: {error}"),
        }
    }
    let dry_run = PostParams { dry_run: true, field_manager: None };
    for (file, document) in documents.iter().filter(|(_, document)| document["kind"] != "Namespace") {
        let stored = api_of(&client, document).create(&dry_run, &object(document)).await;
        let stored = stored.unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(
            stored.data["spec"], document["spec"],
            "{file}: a field is unknown, or not as the server reads it"
        );
    }
}

#[test]
fn every_example_is_what_the_operator_reads() {
    let mut kinds = BTreeMap::new();
    for (file, document) in examples() {
        let kind = document["kind"].as_str().unwrap().to_owned();
        match kind.as_str() {
            "ApiKey" => validate_cel(&serde_json::from_value::<ApiKey>(document).unwrap()),
            "BagsAccount" => validate_cel(&serde_json::from_value::<BagsAccount>(document).unwrap()),
            "Namespace" => Ok(()),
            other => panic!("{file}: this test does not know {other}"),
        }
        .unwrap_or_else(|errors| panic!("{file}: {errors}"));
        *kinds.entry(kind).or_insert(0) += 1;
    }
    assert_eq!((kinds["ApiKey"], kinds["BagsAccount"]), (5, 1));
}

/// Every document of every file in `examples/`, with the file's name.
fn examples() -> Vec<(String, Value)> {
    let folder = Path::new(ROOT).join("examples");
    let mut documents = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let parts: Vec<Value> =
            serde_saphyr::from_multiple(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert!(!parts.is_empty(), "{file} is empty");
        documents.extend(parts.into_iter().map(|part| (file.clone(), part)));
    }
    documents
}

fn object(document: &Value) -> DynamicObject {
    serde_json::from_value(document.clone()).unwrap()
}

fn api_of(client: &Client, document: &Value) -> Api<DynamicObject> {
    let types: TypeMeta = serde_json::from_value(document.clone()).unwrap();
    let kind = match types.kind.as_str() {
        "ApiKey" => ApiResource::erase::<ApiKey>(&()),
        "BagsAccount" => ApiResource::erase::<BagsAccount>(&()),
        _ => ApiResource::from_gvk(&GroupVersionKind::try_from(types).unwrap()),
    };
    match document["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
        None => Api::all_with(client.clone(), &kind),
    }
}

fn from_yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap()
}
