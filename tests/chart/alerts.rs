//! What a Prometheus is told: which pods to read, and the alerts of `docs/metrics.md`.

use serde_json::{Value, json};

use crate::{CHART, NAMESPACE, ROOT, SETS, of_kind, template, the};

const ON: [&str; 4] = [
    "prometheusRule.enabled=true",
    "prometheusRule.labels.release=prometheus",
    "podMonitor.enabled=true",
    "podMonitor.labels.release=prometheus",
];

/// An alert: its name, its expression, and for how long that must hold.
type Alert = (String, String, Option<String>);

fn document() -> String {
    std::fs::read_to_string(format!("{ROOT}/docs/metrics.md")).unwrap()
}

/// Those of the document.
fn documented() -> Vec<Alert> {
    let document = document();
    let table = document.split("\n## What to be woken for").nth(1).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (name, row) = row.split_once("` | `").unwrap();
        let (expression, row) = row.split_once('`').unwrap();
        let lasting = row.strip_prefix(" for ").map(|row| duration(row.split(" |").next().unwrap()));
        (name.to_owned(), expression.replace("\\|", "|"), lasting)
    })
    .collect()
}

/// `2 minutes` as Prometheus has it.
fn duration(words: &str) -> String {
    let (number, unit) = words.split_once(' ').unwrap();
    format!("{number}{}", &unit[..1])
}

fn rules(changes: &[&str]) -> Vec<Value> {
    let objects = template("minimal", &[&ON[..], changes].concat());
    the(&objects, "PrometheusRule")["spec"]["groups"][0]["rules"].as_array().unwrap().clone()
}

fn rendered(changes: &[&str]) -> Vec<Alert> {
    let text = |rule: &Value, field: &str| rule[field].as_str().map(str::to_owned);
    let alert = |rule: &Value| (text(rule, "alert").unwrap(), text(rule, "expr").unwrap(), text(rule, "for"));
    rules(changes).iter().map(alert).collect()
}

#[test]
fn the_alerts_are_those_of_the_document_and_without_a_webhook_none_speaks_of_it() {
    let documented = documented();
    assert_eq!(rendered(&[]), documented);
    let without = documented.into_iter().filter(|(_, expression, _)| !expression.contains("webhook"));
    assert_eq!(rendered(&["webhook.enabled=false"]), without.collect::<Vec<_>>());
}

#[test]
fn an_alert_about_the_leader_is_of_this_installation_and_one_that_waits_outlasts_a_change_of_leader() {
    let of_this = format!("{{namespace=\"{NAMESPACE}\"");
    let mut waiting = Vec::new();
    for (name, expression, lasting) in rendered(&[]) {
        // Nobody else shows these, and they begin anew with the next one.
        for metric in ["bags_operator_leader", "bags_operator_rotations_held", "bags_operator_not_ready"] {
            for selector in expression.split(metric).skip(1) {
                assert!(selector.starts_with(&of_this), "{name}: {expression}");
            }
        }
        // A sum over all would hide this one behind another one.
        for summed in expression.split("sum(increase(").skip(1) {
            let selector =
                summed.trim_start_matches(|letter: char| letter.is_ascii_lowercase() || letter == '_');
            assert!(selector.starts_with(&of_this), "{name}: {expression}");
        }
        if lasting.is_some_and(|lasting| lasting.ends_with(['h', 'd'])) {
            // The past speaks only where nobody does now: else one after the other would be taken for one that lasts.
            let (now, past) = expression.split_once(" or ").unwrap();
            assert!(!now.contains("max_over_time("), "{name}: {expression}");
            assert!(
                past.contains("max_over_time(") && past.ends_with("[15m]))) > 0"),
                "{name}: {expression}"
            );
            waiting.push(name);
        }
    }
    assert_eq!(waiting, ["BagsRotationHeld", "BagsApiKeyNotReady", "BagsDeletionWaits"]);
    let source = std::fs::read_to_string(format!("{CHART}/templates/prometheusrule.yaml")).unwrap();
    assert!(!source.contains(NAMESPACE), "it is the release's");
}

#[test]
fn each_alert_is_about_metrics_that_there_are_and_says_how_bad_it_is() {
    let document = document();
    let (metrics, alerts) = document.split_once("\n## ").unwrap();
    let critical = alerts.split("Of severity `critical` are ").nth(1).unwrap().split(';').next().unwrap();
    let critical: Vec<&str> = critical.split('`').skip(1).step_by(2).collect();
    assert_eq!(critical.len(), 4);
    for rule in rules(&[]) {
        let expression = rule["expr"].as_str().unwrap();
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names: Vec<_> = words.filter(|word| word.starts_with("bags_operator_")).collect();
        assert!(!names.is_empty(), "{rule}");
        for name in names {
            let name = name.strip_suffix("_total").unwrap_or(name);
            let row = [format!("| `{name}` |"), format!("| `{name}{{")];
            assert!(row.iter().any(|row| metrics.contains(row.as_str())), "{name} is no metric");
        }
        let severity = rule["labels"]["severity"].as_str().unwrap();
        let name = rule["alert"].as_str().unwrap();
        assert_eq!(severity, if critical.contains(&name) { "critical" } else { "warning" }, "{name}");
        assert!(rule["annotations"]["summary"].is_string(), "{rule}");
    }
}

#[test]
fn the_kinds_of_the_prometheus_operator_are_there_only_where_a_value_says_so() {
    for set in SETS {
        let objects = template(set, &[]);
        for kind in ["PrometheusRule", "PodMonitor"] {
            assert!(of_kind(&objects, kind).is_empty(), "{set}: {kind}");
        }
    }
    let objects = template("minimal", &ON);
    for kind in ["PrometheusRule", "PodMonitor"] {
        let metadata = &the(&objects, kind)["metadata"];
        assert_eq!(metadata["namespace"], NAMESPACE, "{kind}");
        assert_eq!(metadata["labels"]["release"], "prometheus", "{kind}");
        assert_eq!(metadata["labels"]["app.kubernetes.io/name"], "bags-operator", "{kind}");
    }
    let monitor = &the(&objects, "PodMonitor")["spec"];
    assert_eq!(monitor["podMetricsEndpoints"], json!([{"port": "admin", "path": "/metrics"}]));
    let pods = &the(&objects, "Deployment")["spec"];
    assert_eq!(monitor["selector"], pods["selector"]);
    let ports = pods["template"]["spec"]["containers"][0]["ports"].as_array().unwrap();
    assert!(ports.iter().any(|port| port["name"] == "admin"), "{ports:?}");
}
