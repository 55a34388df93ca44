//! The kinds and the webhook, as the API server is told of them.

use std::collections::BTreeMap;

use bags_operator::api;
use serde_json::{Value, json};

use crate::{NAMESPACE, of_kind, template, the};

#[test]
fn the_kinds_are_those_of_the_code_and_are_kept_unless_one_says_otherwise() {
    for (set, keep) in [("minimal", json!("keep")), ("everything", Value::Null)] {
        let objects = template(set, &[]);
        let rendered: Vec<_> = of_kind(&objects, "CustomResourceDefinition");
        let mut specs = BTreeMap::new();
        for definition in rendered {
            let metadata = &definition["metadata"];
            assert_eq!(metadata["annotations"]["helm.sh/resource-policy"], keep, "{set}");
            specs.insert(metadata["name"].as_str().unwrap().to_owned(), definition["spec"].clone());
        }
        let expected = api::definitions().into_iter().map(|definition| {
            let spec = serde_json::to_value(&definition.spec).unwrap();
            (definition.metadata.name.unwrap(), spec)
        });
        assert_eq!(specs, expected.collect(), "{set}");
    }
    assert!(of_kind(&template("cluster-wide", &[]), "CustomResourceDefinition").is_empty());
}

#[test]
fn the_webhook_judges_new_api_keys_and_nothing_else() {
    let objects = template("everything", &[]);
    let configuration = the(&objects, "ValidatingWebhookConfiguration");
    assert_eq!(
        configuration["webhooks"],
        json!([{
            "name": "apikeys.keys.bags.fm",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {
                "name": "bags-operator-webhook", "namespace": NAMESPACE, "path": "/admit", "port": 443,
            }},
            "rules": [{
                "apiGroups": ["keys.bags.fm"], "apiVersions": ["v1alpha1"], "resources": ["apikeys"],
                "operations": ["CREATE"], "scope": "Namespaced",
            }],
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "sideEffects": "NoneOnDryRun",
            "timeoutSeconds": 5,
        }]),
        "no caBundle above all: it is the operator's"
    );
    let service = the(&objects, "Service");
    assert_eq!(service["metadata"]["name"], "bags-operator-webhook");
    assert_eq!(service["spec"]["ports"], json!([{"name": "webhook", "port": 443, "targetPort": "webhook"}]));
    let labels = &the(&objects, "Deployment")["spec"]["template"]["metadata"]["labels"];
    for (label, value) in service["spec"]["selector"].as_object().unwrap() {
        assert_eq!(&labels[label], value);
    }
    let without = template("minimal", &["webhook.enabled=false"]);
    assert!(of_kind(&without, "Service").is_empty());
    assert!(of_kind(&without, "ValidatingWebhookConfiguration").is_empty());
}

#[test]
fn the_configuration_of_the_webhook_is_annotated_as_the_values_say() {
    let annotations = |set: &str| {
        the(&template(set, &[]), "ValidatingWebhookConfiguration")["metadata"]["annotations"].clone()
    };
    assert_eq!(annotations("everything"), json!({"admissions.enforcer/disabled": "true"}));
    assert!(annotations("minimal").is_null());
}
