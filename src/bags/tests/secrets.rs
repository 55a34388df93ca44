//! No secret gets out, even of a service that repeats everything it was sent wherever it can.

use super::*;

/// The secrets that the script's requests carried.
pub(super) fn sent(script: &Script) -> Vec<String> {
    let mut sent = Vec::new();
    for Seen { headers, body, .. } in &*script.seen.lock().unwrap() {
        sent.extend(headers.get("x-api-key").map(|value| value.to_str().unwrap().to_owned()));
        let fields = ["signature", "nonce", "authCode", "mfaCode", "token"];
        sent.extend(fields.iter().filter_map(|field| body[*field].as_str()).map(str::to_owned));
    }
    sent
}

/// No run of so many characters of a secret may be shown.
pub(super) fn assert_hidden(shown: &str, secrets: &[String]) {
    for secret in secrets {
        for piece in secret.as_bytes().windows(secret.len().min(8)) {
            let piece = std::str::from_utf8(piece).unwrap();
            assert!(!shown.contains(piece), "{shown:?} shows {piece:?} of a secret");
        }
    }
}

/// The ways in which a service may repeat a secret in an error.
fn echoes(secret: &str) -> Vec<String> {
    let mut echoes = vec![
        secret.to_owned(),
        format!("Invalid token: {secret}"),
        format!("unknown \"{secret}\""),
        format!("(key={secret})"),
        format!("{}...", &secret[..secret.len().min(12)]),
        format!("...{}", &secret[secret.len().saturating_sub(8)..]),
    ];
    if secret.len() > 16 {
        echoes.push(format!(
            "Bad: {}",
            secret.chars().map(|c| if c == '-' { '+' } else { c }).collect::<String>()
        ));
    }
    echoes
}

#[tokio::test]
async fn no_error_repeats_what_was_sent() {
    let signature = wallet().sign(b"sign me").to_string();
    let probe = ["value-one-for-tests", "token-for-tests", "nonce-for-tests", &signature];
    for operation in Operation::ALL {
        for status in [200, 301, 400, 401, 403, 404, 405, 413, 429, 500] {
            for echo in probe.into_iter().flat_map(echoes) {
                let bodies = [
                    json!({"success": false, "error": echo}),
                    json!({"success": false, "response": echo}),
                    json!({"success": true, "response": echo}),
                    json!({"success": true, "response": {"user": echo, "message": echo, "nonce": 1}}),
                    json!({"success": echo, "error": {"message": echo}}),
                ];
                for body in bodies {
                    let script = Script::new([json_answer(status, &body)]);
                    if let Err(error) = perform(&script.client(), operation).await {
                        assert_hidden(&format!("{error} {error:?}"), &sent(&script));
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn the_second_steps_error_does_not_repeat_its_codes() {
    let code = totp().code(TestClock::new().wall()).to_string();
    for secret in ["auth-code-for-tests", &code] {
        for echo in echoes(secret) {
            let script = Script::new([
                success(&json!({"mfaRequired": true, "authCode": "auth-code-for-tests"})),
                json_answer(400, &json!({"success": false, "error": echo})),
            ]);
            let error = perform(&script.client(), Operation::CreateWithWallet).await.unwrap_err();
            assert_eq!(error.class(), Class::Refused);
            assert_hidden(&format!("{error} {error:?}"), &[code.clone(), "auth-code-for-tests".to_owned()]);
        }
    }
}

#[tokio::test]
async fn only_short_plain_words_of_the_service_are_shown() {
    let said = async |text: &str| {
        let act = json_answer(400, &json!({"success": false, "error": text}));
        perform(&Script::new([act]).client(), Operation::List).await.unwrap_err().to_string()
    };
    assert!(said("Name must be 1-255 characters").await.ends_with("it says: Name must be 1-255 characters"));
    for hidden in
        ["", "a\nb", "tab\tbed", "n\u{f6}", "value-one-for-tests", &"x".repeat(17), &"word ".repeat(200)]
    {
        assert!(!said(hidden).await.contains("it says"), "{hidden}");
    }
    assert!(said(&"word ".repeat(100)).await.ends_with(&format!("it says: {}", "word ".repeat(40))));
}

#[tokio::test]
async fn nothing_that_holds_a_secret_shows_it_in_debug() {
    let answer = || success(&json!({"apiKey": "value-one-for-tests", "keyId": "key-1"}));
    let script = Script::new([answer()]);
    let key =
        script.client().create_with_wallet(&wallet(), challenge(), None, "Web-Shop", |_| true).await.unwrap();
    let shown = format!(
        "{key:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        challenge(),
        wallet(),
        token(),
        totp(),
        key_value(),
        Body::from(b"value-one-for-tests".to_vec())
    );
    let mut secrets = sent(&script);
    for secret in ["value-one-for-tests", "token-for-tests", "nonce-for-tests", "sign me", "GEZDGNBVGY3TQOJQ"]
    {
        secrets.push(secret.to_owned());
    }
    secrets.push(bs58::encode(&super::super::wallet::tests::pair()[..32]).into_string());
    assert_hidden(&shown, &secrets);
    assert!(shown.contains("[redacted]"));
}

#[tokio::test]
async fn a_list_has_no_place_for_values() {
    let key = json!({"name": "Web-Shop", "keyId": "key-1", "key": "value-one-for-tests", "apiKey": "value-one-for-tests"});
    let list = Script::new([success(&json!([key]))]).client().list(&token()).await.unwrap();
    assert_hidden(&format!("{list:?}"), &["value-one-for-tests".to_owned()]);
}

#[test]
fn credentials_that_cannot_be_read_are_not_repeated() {
    let secret = "sentinel-0OIl-for-tests";
    let texts = [
        secret.to_owned(),
        format!("[{secret}]"),
        format!("{{\"k\": \"{secret}\"}}"),
        format!("{secret} {secret}"),
        format!("Bearer {secret}"),
    ];
    for text in texts {
        let bytes = text.as_bytes();
        let mut shown =
            format!("{:?} {:?}", Wallet::parse(bytes).unwrap_err(), TotpSecret::parse(bytes).unwrap_err());
        shown += &format!("{} {}", Wallet::parse(bytes).unwrap_err(), TotpSecret::parse(bytes).unwrap_err());
        if let Err(error) = AgentToken::parse(bytes) {
            shown += &format!("{error} {error:?}");
        }
        if let Err(error) = KeyValue::parse(bytes) {
            shown += &format!("{error} {error:?}");
        }
        assert_hidden(&shown, &[secret.to_owned()]);
    }
}
