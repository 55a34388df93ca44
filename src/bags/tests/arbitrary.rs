//! Arbitrary input: nothing panics, and nothing is taken for what it is not.

use proptest::prelude::*;

use super::*;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn operation() -> impl Strategy<Value = Operation> {
    prop::sample::select(Operation::ALL.to_vec())
}

/// JSON of the names and values that matter, in random places.
fn jsonish() -> impl Strategy<Value = Value> {
    let text = prop::sample::select(vec![
        "",
        "x",
        "value-one-for-tests",
        "2026-11-23T12:00:00Z",
        "a\nb",
        "totp",
        "abc",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "success",
        "response",
        "error",
        "message",
        "nonce",
        "apiKey",
        "key",
        "keyId",
        "name",
        "isSignup",
        "mfaRequired",
        "mfaMethod",
        "authCode",
        "user",
        "uuid",
        "userId",
        "status",
        "createdAt",
        "lastUsedAt",
        "resetTime",
    ]);
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(name.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn answer(status: u16, headers: &[(&str, Vec<u8>)], body: Vec<u8>) -> Act {
    let mut response = Response::builder().status(status).header("content-type", "application/json");
    for (name, value) in headers {
        if let Ok(value) = http::HeaderValue::from_bytes(value) {
            response = response.header(*name, value);
        }
    }
    Act::Answer(response.body(Body::from(body)).unwrap())
}

/// What must hold whatever comes back.
fn judge(operation: Operation, status: u16, result: Result<(), Error>) {
    match result {
        Ok(()) if operation.creates() => assert!((200..300).contains(&status)),
        Ok(()) => {}
        Err(error) => {
            assert!(error.to_string().len() < 700);
            if operation.creates() && error.class() == Class::Refused && !(200..300).contains(&status) {
                assert!(matches!(status, 400 | 401 | 403 | 404 | 413));
            }
            if let Some(until) = error.retry_at() {
                let now = TestClock::new().wall();
                assert!(until > now && until <= now + Duration::from_secs(7200));
            }
        }
    }
}

proptest! {
    #[test]
    fn an_arbitrary_answer_is_judged(
        operation in operation(),
        status in 100_u16..1000,
        date in prop::collection::vec(any::<u8>(), 0..40),
        numbers in prop::collection::vec("[0-9+-]{0,25}", 4),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let number = |index: usize| numbers[index].clone().into_bytes();
        let headers = [
            ("date", date),
            ("retry-after", number(0)),
            ("x-ratelimit-limit", number(1)),
            ("x-ratelimit-remaining", number(2)),
            ("x-ratelimit-reset", number(3)),
        ];
        let clock = Arc::new(TestClock::new());
        let budget = || Arc::new(Budget::per_hour(100, clock.clone()));
        let script = Script::new([answer(status, &headers, body)]);
        let client = script.client_with(clock.clone()).with_budgets(budget(), budget());
        judge(operation, status, block_on(perform(&client, operation)));
    }

    #[test]
    fn an_arbitrary_json_answer_is_judged(operation in operation(), status in 200_u16..600, body in jsonish(), next in jsonish()) {
        let acts = [body, next].map(|body| answer(status, &[], body.to_string().into_bytes()));
        judge(operation, status, block_on(perform(&Script::new(acts).client(), operation)));
    }

    #[test]
    fn an_arbitrary_payload_is_judged(operation in operation(), payloads in prop::collection::vec(jsonish(), 2)) {
        let acts = payloads.iter().map(success);
        judge(operation, 200, block_on(perform(&Script::new(acts).client(), operation)));
    }

    #[test]
    fn arbitrary_credentials_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(Wallet::parse(&bytes));
        if let Ok(secret) = TotpSecret::parse(&bytes) {
            prop_assert_eq!(secret.code(TestClock::new().wall()).len(), 6);
        }
        let _ = AgentToken::parse(&bytes).map(|token| token.expires_at());
        if let Ok(value) = KeyValue::parse(&bytes) {
            prop_assert_eq!(value.expose().as_bytes(), &bytes[..]);
        }
    }

    #[test]
    fn arbitrary_text_is_read_or_refused(text in "(otpauth://totp/)?[ -~]{0,100}|\\[[0-9, ]{0,300}\\]|[1-9A-Za-z.]{0,100}") {
        drop(Wallet::parse(text.as_bytes()));
        drop(TotpSecret::parse(text.as_bytes()).map(|secret| secret.code(Timestamp::MAX)));
        let _ = AgentToken::parse(text.as_bytes()).map(|token| token.expires_at());
        drop(BaseUrl::parse(&text, true));
    }

    #[test]
    fn every_key_pair_is_read_in_every_form(seed in any::<[u8; 32]>()) {
        let signing = ed25519_dalek::SigningKey::from_bytes(&seed);
        let pair = signing.to_keypair_bytes();
        let address = bs58::encode(signing.verifying_key().as_bytes()).into_string();
        for text in [format!("{pair:?}"), bs58::encode(pair).into_string()] {
            let wallet = Wallet::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(wallet.address(), &address);
        }
    }

    #[test]
    fn an_address_that_is_accepted_stays_on_its_host(path in "[/a-z.%?#@:]{0,30}") {
        let base = BaseUrl::parse("https://bags.example/api/v1", false).unwrap();
        if let Some(uri) = base.join(&path) {
            prop_assert_eq!(uri.host(), Some("bags.example"));
            prop_assert!(uri.path().starts_with("/api/v1/") && uri.query().is_none());
        }
    }
}
