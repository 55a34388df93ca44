//! Bodies: noise, JSON of the names that matter in random places, and the service's own answers, damaged.

use super::*;

/// JSON tokens that a parser may stumble over: beyond every number, deep, long, or no text.
const ODD: [&str; 12] = [
    "1e999",
    "-0",
    "123456789012345678901234567890",
    "-9223372036854775809",
    "1e-999",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"planted-value-for-tests-AbCdEfGh \"",
    "[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]",
    "{\"apiKey\":{\"key\":{\"key\":{}}},\"success\":false}",
    "\"\"",
    "nul",
];

/// What the service answers where it does what is asked.
pub(super) fn successes(operation: Operation) -> Vec<Value> {
    let success = |response: Value| json!({"success": true, "response": response});
    let code = json!({"mfaRequired": true, "mfaMethod": "totp", "authCode": "auth-code-for-tests"});
    let key = json!({"key": PLANTED, "keyId": "key-1", "userId": "user-1", "name": "Web-Shop-x-y",
                     "status": "active", "createdAt": "2026-11-23T12:00:00Z", "lastUsedAt": 1_795_000_000});
    match operation {
        Operation::Challenge => {
            vec![success(json!({"message": bs58::encode(b"sign me").into_string(), "nonce": "nonce-one"}))]
        }
        Operation::CreateWithWallet => vec![
            success(json!({"apiKey": PLANTED, "keyId": "key-1", "isSignup": false})),
            json!({"apiKey": PLANTED}),
            success(code.clone()),
            success(code),
            success(
                json!({"apiKey": {"key": PLANTED}, "mfaRequired": true, "authCode": "auth-code-for-tests"}),
            ),
        ],
        Operation::CreateWithToken => {
            vec![
                success(json!({"apiKey": key})),
                success(json!({"apiKey": {"key": PLANTED}})),
                json!({"apiKey": key}),
            ]
        }
        Operation::List => vec![success(json!([key, {"name": "x"}, {"keyId": "key-2"}])), json!([])],
        Operation::Me => vec![success(json!({"user": {"uuid": "user-1"}, "apiKey": PLANTED}))],
        Operation::Revoke => vec![json!({"success": true}), success(json!(PLANTED))],
        Operation::Ping => vec![json!({"message": "pong"})],
    }
}

/// How the service refuses.
pub(super) fn refusals() -> Vec<Value> {
    let refused = |text: &str| json!({"success": false, "error": text});
    vec![
        refused("Name must be 1-255 characters"),
        refused(&format!("Invalid token: {PLANTED}")),
        refused("token-for-tests"),
        refused("nonce-for-tests is gone"),
        refused("value-one-for-tests"),
        refused("auth-code-for-tests"),
        json!({"success": false, "response": PLANTED, "resetTime": i64::MAX}),
        json!({"success": false, "message": "Too many", "resetTime": "2026-11-23T12:00:30Z"}),
    ]
}

/// An array of what an object's members are, which a parser may take for the object.
fn bare(answer: &Value) -> Value {
    let Value::Object(members) = answer else { return answer.clone() };
    let (first, rest): (Vec<_>, Vec<_>) = members.iter().partition(|(name, _)| *name == "success");
    first.into_iter().chain(rest).map(|(_, member)| bare(member)).collect::<Vec<_>>().into()
}

/// The same of the envelope's payload alone.
fn bare_within(answer: &Value) -> Value {
    let mut answer = answer.clone();
    if let Some(payload) = answer.get_mut("response") {
        *payload = bare(payload);
    }
    answer
}

/// JSON of the names and values that matter, in random places.
fn jsonish() -> impl Strategy<Value = Value> {
    let text = select(vec!["", "x", PLANTED, "2026-11-23T12:00:00Z", "a\nb", "totp", "abc", "pong"]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    let names = "success response error message nonce apiKey key keyId name isSignup mfaRequired mfaMethod \
                 authCode user uuid userId status createdAt lastUsedAt resetTime";
    let name = select(names.split_whitespace().collect::<Vec<_>>());
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(name.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A usual answer with one scalar in it replaced by an odd token, or with one of its members there twice.
fn odd(answer: &Value, place: &Index, token: &str) -> String {
    let text = answer.to_string();
    let ends: Vec<usize> = text.match_indices("\":").map(|(at, _)| at + 2).collect();
    if ends.is_empty() {
        return text;
    }
    let at = ends[place.index(ends.len())];
    let name = text[..at - 2].rfind('"').unwrap_or(0);
    let rest = text[at..].find([',', '}']).map_or(text.len(), |length| at + length);
    match (token, text.as_bytes()[at]) {
        ("nul", _) => format!("{}{}null,{}", &text[..name], &text[name..at], &text[name..]),
        (_, b'{' | b'[') => format!("{}{token}", &text[..at]),
        _ => format!("{}{token}{}", &text[..at], &text[rest..]),
    }
}

/// A usual answer as it may arrive.
pub(super) fn any_of(usual: Vec<Value>) -> BoxedStrategy<Vec<u8>> {
    let bytes = |answer: &Value| answer.to_string().into_bytes();
    let usual = select(usual);
    let damages = prop::collection::vec(any_damage(), 1..4);
    prop_oneof![
        4 => usual.clone().prop_map(move |answer| bytes(&answer)),
        1 => usual.clone().prop_map(move |answer| bytes(&bare(&answer))),
        1 => usual.clone().prop_map(move |answer| bytes(&bare_within(&answer))),
        3 => (usual.clone(), damages).prop_map(move |(answer, damages)| damaged(bytes(&answer), damages)),
        2 => (usual, any::<Index>(), select(&ODD[..]))
            .prop_map(|(answer, place, token)| odd(&answer, &place, token).into_bytes()),
    ]
    .boxed()
}

/// Bytes, and JSON of any shape.
pub(super) fn any_body() -> BoxedStrategy<Vec<u8>> {
    let enveloped = |payload: Value| json!({"success": true, "response": payload}).to_string().into_bytes();
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        jsonish().prop_map(|json| json.to_string().into_bytes()),
        jsonish().prop_map(enveloped),
    ]
    .boxed()
}
