//! What the derived schemas need to be good ones for Kubernetes. Pure; runs only where a CRD is generated.

use schemars::{
    Schema, SchemaGenerator, json_schema,
    transform::{Transform, transform_subschemas},
};
use serde_json::{Value, json};

use super::rules;

/// Optional means absent, and defaults live in code.
///
/// A nullable field would keep an explicit `null` (an empty value in a template), which `has()` in a rule takes for
/// present; without it the server drops the `null` first. A `default:` would be written into stored objects and shown
/// as a difference by GitOps tools for ever.
pub(super) fn absent_is_absent(schema: &mut Schema) {
    AbsentIsAbsent.transform(schema);
}

struct AbsentIsAbsent;

impl Transform for AbsentIsAbsent {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let Some(object) = schema.as_object_mut() else { return };
        object.remove("default");
        if let Some(Value::Array(types)) = object.get_mut("type") {
            types.retain(|kind| kind != "null");
            if let [only] = &types[..] {
                let only = only.clone();
                object.insert("type".into(), only);
            }
        }
        if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
            choices.retain(|choice| choice != &json!({ "type": "null" }));
            if let [Value::Object(only)] = &choices[..] {
                let only = only.clone();
                object.remove("anyOf");
                for (keyword, value) in only {
                    object.entry(keyword).or_insert(value);
                }
            }
        }
    }
}

/// Labels to put on a Secret: as many and as long as is sane.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 32, "additionalProperties": { "type": "string", "maxLength": 63 },
    })
}

/// Annotations to put on a Secret: 32 of 4,096 bytes stay below the server's 256 KiB.
pub(super) fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 32, "additionalProperties": { "type": "string", "maxLength": 4096 },
    })
}

/// A label selector whose lists are bounded, so that rules may walk them.
pub(super) fn selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "type": "object", "maxProperties": 16, "additionalProperties": { "type": "string", "maxLength": 63 },
                "description": "Labels that a namespace must have, with these values.",
            },
            "matchExpressions": {
                "type": "array", "maxItems": 16, "x-kubernetes-list-type": "atomic",
                "description": "Conditions on labels that a namespace must meet, all of them.",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "x-kubernetes-validations": [rules::selector_term()],
                    "properties": {
                        "key": { "type": "string", "maxLength": 317, "description": "Key of the label." },
                        "operator": {
                            "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                            "description": "How the label's value relates to the values.",
                        },
                        "values": {
                            "type": "array", "maxItems": 64, "x-kubernetes-list-type": "atomic",
                            "items": { "type": "string", "maxLength": 63 },
                            "description": "Values, for In and NotIn.",
                        },
                    },
                },
            },
        },
    })
}
