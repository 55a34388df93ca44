//! Both ways of making a key.

use ed25519_dalek::{Signature, Verifier, VerifyingKey};

use super::*;

const CALLBACK: &str = "POST https://bags.example/api/v1/agent/v2/auth/callback";
const MFA: fn() -> Act =
    || success(&json!({"mfaRequired": true, "mfaMethod": "totp", "authCode": "auth-code-for-tests"}));

async fn with_wallet(script: &Script, totp: Option<&TotpSecret>) -> Result<CreatedKey, Error> {
    script.client().create_with_wallet(&wallet(), challenge(), totp, "Web-Shop-x-y", |_| true).await
}

#[tokio::test]
async fn the_wallet_way_signs_the_bytes_of_the_challenge() {
    let message = bs58::encode(b"prove that it is you").into_string();
    let script = Script::new([
        success(&json!({"message": message, "nonce": "0b7c3f1e-0000-4000-8000-000000000001"})),
        success(&json!({"apiKey": "value-one-for-tests", "keyId": "key-1", "isSignup": false})),
    ]);
    let client = script.client();
    let challenge = client.challenge(&wallet()).await.unwrap();
    let key = client.create_with_wallet(&wallet(), challenge, None, "Web-Shop-x-y", |_| true).await.unwrap();

    assert_eq!((key.value, key.key_id.as_deref(), key.signed_up), (key_value(), Some("key-1"), false));
    assert_eq!(script.lines(), ["POST https://bags.example/api/v1/agent/v2/auth/init", CALLBACK]);
    let bodies = script.bodies();
    assert_eq!(bodies[0], json!({"address": wallet().address()}));
    let signature = bs58::decode(bodies[1]["signature"].as_str().unwrap()).into_vec().unwrap();
    let address = bs58::decode(wallet().address()).into_vec().unwrap();
    VerifyingKey::from_bytes(&address.try_into().unwrap())
        .unwrap()
        .verify(b"prove that it is you", &Signature::from_slice(&signature).unwrap())
        .unwrap();
    let signature = &bodies[1]["signature"];
    assert_eq!(
        bodies[1],
        json!({"signature": signature, "address": wallet().address(),
            "nonce": "0b7c3f1e-0000-4000-8000-000000000001", "keyName": "Web-Shop-x-y"})
    );
}

#[tokio::test]
async fn the_second_step_sends_the_code_of_the_clocks_time() {
    let script = Script::new([MFA(), success(&json!({"apiKey": "value-one-for-tests", "isSignup": true}))]);
    let key = with_wallet(&script, Some(&totp())).await.unwrap();
    assert_eq!((key.value, key.key_id, key.signed_up), (key_value(), None, true));
    let code = totp().code(TestClock::new().wall());
    assert_eq!(
        script.bodies()[1],
        json!({"authCode": "auth-code-for-tests", "mfaCode": code.as_str(), "keyName": "Web-Shop-x-y"})
    );
    assert_eq!(script.lines(), [CALLBACK, CALLBACK]);
}

#[tokio::test]
async fn the_second_step_is_not_sent_when_its_time_is_over() {
    let script = Script::new([MFA()]);
    let (client, wallet, totp) = (script.client(), wallet(), totp());
    let made = client.create_with_wallet(&wallet, challenge(), Some(&totp), "Web-Shop-x-y", |_| false);
    let error = made.await.unwrap_err();
    assert_eq!((error.class(), error.reason()), (Class::NotDone, Reason::OutOfTime));
    assert_eq!(script.lines(), [CALLBACK]);
}

#[tokio::test]
async fn without_a_totp_secret_the_error_names_the_field_to_add() {
    let script = Script::new([MFA()]);
    let error = with_wallet(&script, None).await.unwrap_err();
    assert_eq!((error.class(), error.reason()), (Class::Refused, Reason::MfaRequired));
    assert!(error.to_string().contains("spec.credentials.wallet.totpField"), "{error}");
}

#[tokio::test]
async fn a_second_factor_that_cannot_be_given_is_a_refusal() {
    let cases = [
        (json!({"mfaRequired": true, "mfaMethod": "sms", "authCode": "x"}), Reason::MfaUnsupported),
        (json!({"mfaRequired": true, "mfaMethod": "totp"}), Reason::Unreadable),
    ];
    for (payload, reason) in cases {
        let error = with_wallet(&Script::new([success(&payload)]), Some(&totp())).await.unwrap_err();
        assert_eq!((error.class(), error.reason()), (Class::Refused, reason));
    }
    let error = with_wallet(&Script::new([MFA(), MFA()]), Some(&totp())).await.unwrap_err();
    assert_eq!((error.class(), error.reason()), (Class::Refused, Reason::InvalidMfa));
}

#[tokio::test]
async fn a_failure_in_the_second_step_is_judged_by_that_step() {
    let cases = [
        (
            json_answer(400, &json!({"success": false, "error": "Invalid or expired auth code"})),
            (Class::Refused, Reason::InvalidMfa),
        ),
        (Act::Fail(TransportError::Broken), (Class::Unknown, Reason::Broken)),
        (Act::Fail(TransportError::NotSent(Stage::Tls)), (Class::NotDone, Reason::Tls)),
        (typed_answer(503, "text/html", "<html>"), (Class::Unknown, Reason::ServerError)),
    ];
    for (act, expected) in cases {
        let error = with_wallet(&Script::new([MFA(), act]), Some(&totp())).await.unwrap_err();
        assert_eq!((error.class(), error.reason()), expected);
    }
}

#[tokio::test]
async fn a_transaction_is_not_signed() {
    let key = bs58::decode(wallet().address()).into_vec().unwrap();
    // A legacy Solana message: one signer, header and key count before it.
    let message = [&[1, 0, 1, 2][..], &key, &[7; 64]].concat();
    let challenge = Challenge { message: message.into(), nonce: "nonce-for-tests".to_owned().into() };
    let script = Script::default();
    let error = script
        .client()
        .create_with_wallet(&wallet(), challenge, None, "Web-Shop", |_| true)
        .await
        .unwrap_err();
    assert_eq!((error.class(), error.reason()), (Class::Refused, Reason::UnsafeChallenge));
    assert!(script.lines().is_empty());
}

#[tokio::test]
async fn a_challenge_that_cannot_be_one_is_unreadable() {
    let long = "1".repeat(4097);
    let cases = [
        json!({}),
        json!({"message": "", "nonce": "n"}),
        json!({"message": "0OIl", "nonce": "n"}),
        json!({"message": "abc"}),
        json!({"message": "abc", "nonce": 7}),
        json!({"message": "abc", "nonce": ""}),
        json!({"message": "abc", "nonce": "a\nb"}),
        json!({"message": long, "nonce": "n"}),
        json!("abc"),
    ];
    for payload in cases {
        let error = Script::new([success(&payload)]).client().challenge(&wallet()).await.unwrap_err();
        assert_eq!((error.class(), error.reason()), (Class::Unknown, Reason::Unreadable), "{payload}");
        assert!(!error.may_have_created());
    }
}

#[tokio::test]
async fn the_token_way_reads_the_key_object() {
    let script = Script::new([success(&json!({"apiKey": {
        "status": "active", "userId": "user-1", "name": "Web-Shop-x-y", "keyId": "key-1",
        "key": "value-one-for-tests", "createdAt": "2026-11-23T12:00:00Z", "lastUsedAt": null
    }}))]);
    let key = script.client().create_with_token(&token(), "Web-Shop-x-y").await.unwrap();
    assert_eq!((key.value, key.key_id.as_deref(), key.signed_up), (key_value(), Some("key-1"), false));
    assert_eq!(script.lines(), ["POST https://bags.example/api/v1/agent/dev/keys/create"]);
    assert_eq!(script.bodies(), [json!({"token": "token-for-tests", "name": "Web-Shop-x-y"})]);
    let seen = script.seen.lock().unwrap();
    assert_eq!(seen[0].headers["content-type"], "application/json");
    assert!(seen[0].headers["user-agent"].to_str().unwrap().starts_with("bags-operator/"));
}

#[tokio::test]
async fn a_value_is_not_lost_over_a_missing_envelope_or_content_type() {
    let bare = json!({"apiKey": "value-one-for-tests", "keyId": "key-1"}).to_string();
    let wrapped = json!({"success": true, "response": {"apiKey": "value-one-for-tests"}}).to_string();
    for act in [
        typed_answer(200, "application/json", &bare),
        typed_answer(201, "text/plain", &bare),
        typed_answer(200, "text/html", &wrapped),
    ] {
        assert_eq!(with_wallet(&Script::new([act]), None).await.unwrap().value, key_value());
    }
}

#[tokio::test]
async fn an_id_that_is_none_or_gives_the_value_away_is_left_out() {
    let ids = [
        json!(null),
        json!(""),
        json!(7),
        json!(["key-1"]),
        json!("key\n1"),
        json!("k".repeat(129)),
        json!("value-one-for-tests"),
        json!("id-of-value-one-for-tests"),
        json!("value-one"),
    ];
    for id in ids {
        let payload = json!({"apiKey": "value-one-for-tests", "keyId": id});
        let key = with_wallet(&Script::new([success(&payload)]), None).await.unwrap();
        assert_eq!(key.key_id, None, "{id}");
        let payload = json!({"apiKey": {"key": "value-one-for-tests", "keyId": id}});
        let script = Script::new([success(&payload)]);
        assert_eq!(
            script.client().create_with_token(&token(), "Web-Shop").await.unwrap().key_id,
            None,
            "{id}"
        );
    }
}

#[tokio::test]
async fn an_answer_to_a_creation_that_cannot_be_read_leaves_a_key_possible() {
    let whole = json!({"success": true, "response": {"apiKey": "value-one-for-tests", "keyId": "key-1"}});
    let mut bodies: Vec<String> =
        (0..whole.to_string().len()).map(|end| whole.to_string()[..end].to_owned()).collect();
    bodies.extend(
        [
            json!({"success": false, "response": {"apiKey": "value-one-for-tests"}}),
            json!({"success": "true", "response": {"apiKey": "value-one-for-tests"}}),
            json!({"success": true, "response": null}),
            json!({"success": true}),
            json!({"success": true, "response": {}}),
            json!({"success": true, "response": {"apiKey": "two words"}}),
            json!({"success": true, "response": {"apiKey": "line\nend"}}),
            json!({"success": true, "response": {"apiKey": ""}}),
            json!({"success": true, "response": {"apiKey": 5}}),
            json!({"success": true, "response": {"apiKey": {"key": "x".repeat(1025)}}}),
            json!({"success": true, "response": "value-one-for-tests"}),
            json!([]),
            json!({}),
        ]
        .map(|body| body.to_string()),
    );
    bodies.push("<html><body>Welcome to our hotel</body></html>".to_owned());
    for body in bodies {
        for operation in [Operation::CreateWithWallet, Operation::CreateWithToken] {
            let script = Script::new([typed_answer(200, "application/json", &body)]);
            let error = perform(&script.client(), operation).await.unwrap_err();
            assert_eq!((error.class(), error.reason()), (Class::Unknown, Reason::Unreadable), "{body}");
            assert!(error.may_have_created());
        }
    }
}

#[tokio::test]
async fn a_request_above_the_limit_is_not_sent() {
    let script = Script::default();
    let error = script.client().create_with_token(&token(), &"a".repeat(REQUEST_LIMIT)).await.unwrap_err();
    assert_eq!((error.class(), error.reason()), (Class::Refused, Reason::TooLarge));
    assert!(script.lines().is_empty());
}
