//! Answers of every status, the reads, budgets and counting.

use super::*;

fn envelope(text: &str) -> Value {
    json!({"success": false, "error": text})
}

async fn failure(operation: Operation, act: Act) -> Error {
    perform(&Script::new([act]).client(), operation).await.unwrap_err()
}

/// A refusal by status that no operation gives a meaning of its own.
#[tokio::test]
async fn each_status_in_the_services_envelope_has_its_class() {
    use Operation::{Challenge, CreateWithToken, CreateWithWallet, List, Ping};
    let refused = |reason| (Class::Refused, reason);
    let unknown = |reason| (Class::Unknown, reason);
    let cases = [
        (400, refused(Reason::OtherRefusal)),
        (401, refused(Reason::OtherRefusal)),
        (403, refused(Reason::Forbidden)),
        (404, refused(Reason::NotFound)),
        (413, refused(Reason::TooLarge)),
        (409, unknown(Reason::Unreadable)),
        (418, unknown(Reason::Unreadable)),
        (301, unknown(Reason::Redirected)),
        (308, unknown(Reason::Redirected)),
        (500, unknown(Reason::ServerError)),
        (502, unknown(Reason::ServerError)),
        (503, unknown(Reason::ServerError)),
    ];
    for (status, expected) in cases {
        for operation in [Challenge, CreateWithWallet, CreateWithToken, List, Ping] {
            let error = failure(operation, json_answer(status, &envelope("No"))).await;
            assert_eq!((error.class(), error.reason()), expected, "{status} {operation:?}");
            assert_eq!(error.status(), Some(status));
            assert_eq!(error.operation(), operation);
        }
    }
}

#[tokio::test]
async fn a_refusal_outside_the_envelope_refuses_nothing() {
    let bodies = [
        ("text/plain", "Bad Request"),
        ("text/html", "<html>403 Forbidden</html>"),
        ("application/json", ""),
        ("application/json", "{\"success\":false"),
        ("application/json", "{\"success\":false}"),
        ("application/json", "{\"success\":false,\"error\":{\"code\":7}}"),
        ("application/json", "{\"success\":true,\"error\":\"No\"}"),
        ("application/json", "{\"error\":\"No\"}"),
        ("application/json", "\"No\""),
        ("text/html", "{\"success\":false,\"error\":\"No\"}"),
    ];
    for status in [400, 401, 403, 404, 413] {
        for (content_type, body) in bodies {
            for operation in [Operation::CreateWithWallet, Operation::CreateWithToken, Operation::Me] {
                let error = failure(operation, typed_answer(status, content_type, body)).await;
                assert_eq!(
                    (error.class(), error.reason()),
                    (Class::Unknown, Reason::Unreadable),
                    "{status} {body}"
                );
            }
        }
    }
}

#[tokio::test]
async fn both_forms_of_the_envelope_are_read_and_the_known_texts_understood() {
    let cases = [
        ("You have reached the maximum number of API keys", Reason::LimitReached),
        ("Nonce not found or expired", Reason::NonceExpired),
        ("Invalid signature", Reason::InvalidSignature),
        ("Invalid or expired auth code", Reason::InvalidMfa),
        ("Invalid token", Reason::InvalidToken),
        ("Invalid address", Reason::OtherRefusal),
    ];
    for (text, reason) in cases {
        for field in ["error", "response", "message"] {
            let act = json_answer(400, &json!({"success": false, field: text}));
            let error = failure(Operation::CreateWithToken, act).await;
            assert_eq!((error.class(), error.reason()), (Class::Refused, reason), "{field}: {text}");
            assert!(error.to_string().ends_with(&format!("it says: {text}")), "{error}");
        }
    }
    let both = json!({"success": false, "message": "third", "response": "second", "error": "first"});
    assert!(failure(Operation::List, json_answer(400, &both)).await.to_string().ends_with("it says: first"));
    let second = json!({"success": false, "message": "third", "response": "second", "error": null});
    assert!(
        failure(Operation::List, json_answer(400, &second)).await.to_string().ends_with("it says: second")
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_transport_knows_decides_whether_a_key_may_exist() {
    let cases: [(fn() -> Act, _); 7] = [
        (|| Act::Fail(TransportError::NotSent(Stage::Dns)), (Class::NotDone, Reason::Dns)),
        (|| Act::Fail(TransportError::NotSent(Stage::Connect)), (Class::NotDone, Reason::Connect)),
        (|| Act::Fail(TransportError::NotSent(Stage::Tls)), (Class::NotDone, Reason::Tls)),
        (|| Act::Fail(TransportError::Timeout), (Class::Unknown, Reason::Timeout)),
        (|| Act::Fail(TransportError::Broken), (Class::Unknown, Reason::Broken)),
        (|| Act::Fail(TransportError::TooLarge), (Class::Unknown, Reason::TooLarge)),
        (|| Act::Hang, (Class::Unknown, Reason::Timeout)),
    ];
    for (act, expected) in cases {
        for operation in Operation::ALL {
            let error = failure(operation, act()).await;
            assert_eq!((error.class(), error.reason()), expected, "{operation:?}");
            let may = operation.creates() && expected.0 == Class::Unknown;
            assert_eq!(error.may_have_created(), may, "{operation:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_above_the_limit_is_not_read_whatever_the_leaf_does() {
    let act = typed_answer(200, "application/json", &" ".repeat(RESPONSE_LIMIT + 1));
    assert_eq!(failure(Operation::List, act).await.reason(), Reason::TooLarge);
}

#[tokio::test]
async fn a_probe_tells_living_dead_forbidden_and_orphaned_keys_apart() {
    let probe = async |act| {
        let script = Script::new([act]);
        let result = script.client().me(&key_value()).await;
        assert_eq!(script.lines(), ["GET https://bags.example/api/v1/auth/me"]);
        let headers = &script.seen.lock().unwrap()[0].headers;
        assert_eq!(headers["x-api-key"], "value-one-for-tests");
        assert!(headers["x-api-key"].is_sensitive());
        result
    };
    let user = json!({"user": {"uuid": "user-1", "username": "somebody", "status": "active"}});
    assert_eq!(probe(success(&user)).await, Ok(Probe::Alive { user: UserId::parse("user-1").unwrap() }));
    let invalid = envelope("Invalid API key. Please check your x-api-key header.");
    assert_eq!(probe(json_answer(401, &invalid)).await, Ok(Probe::Dead));
    assert_eq!(probe(json_answer(403, &envelope("No permission"))).await, Ok(Probe::Forbidden));
    assert_eq!(probe(json_answer(404, &envelope("User not found"))).await, Ok(Probe::UserGone));
    assert_eq!(probe(json_answer(400, &envelope("No"))).await.unwrap_err().class(), Class::Refused);
    for strange in [json!({}), json!({"user": {}}), json!({"user": {"uuid": "a b"}}), json!({"user": null})] {
        assert_eq!(probe(success(&strange)).await.unwrap_err().reason(), Reason::Unreadable);
    }
    let echo = json!({"user": {"uuid": "value-one-for-tests"}});
    assert_eq!(probe(success(&echo)).await.unwrap_err().reason(), Reason::Unreadable);
}

#[tokio::test]
async fn a_list_has_names_ids_and_times_and_the_services_clock() {
    let listed = json!([
        {"status": "active", "userId": "user-1", "name": "Web-Shop-x-y", "keyId": "key-1", "key": "value-one-for-tests",
            "createdAt": "2026-11-23T11:00:00.000Z", "updatedAt": "x", "lastUsedAt": "2026-11-23T11:59:00+01:00"},
        {"name": "by a\u{7} person", "keyId": null, "createdAt": 1_795_000_000, "lastUsedAt": 1_795_000_000_000_u64},
        {"keyId": "key-3", "status": "revoked", "createdAt": "yesterday", "lastUsedAt": {"at": 1}},
        {"keyId": "key-4", "createdAt": "-001000-01-01T00:00:00Z", "lastUsedAt": -99_999_999_999_i64},
        {"keyId": "key-5", "createdAt": "+010000-01-01T00:00:00Z", "lastUsedAt": 253_402_300_800_000_u64},
        {"keyId": "key-6", "createdAt": "1970-01-01T00:00:00Z", "lastUsedAt": "1969-12-31T23:59:59Z"},
    ]);
    let mut act = success(&listed);
    if let Act::Answer(response) = &mut act {
        response.headers_mut().insert("date", "Mon, 23 Nov 2026 12:00:05 GMT".parse().unwrap());
    }
    let script = Script::new([act]);
    let list = script.client().list(&token()).await.unwrap();
    assert_eq!(script.lines(), ["POST https://bags.example/api/v1/agent/dev/keys"]);
    assert_eq!(script.bodies(), [json!({"token": "token-for-tests"})]);
    assert_eq!(list.server_time, Some("2026-11-23T12:00:05Z".parse().unwrap()));
    let time = |text: &str| Some(text.parse::<Timestamp>().unwrap());
    let timeless = |key_id: &str, status: &str| ListedKey {
        key_id: Some(key_id.to_owned()),
        name: String::new(),
        status: status.to_owned(),
        created_at: None,
        last_used_at: None,
        user_id: None,
    };
    assert_eq!(
        list.keys,
        [
            ListedKey {
                key_id: Some("key-1".to_owned()),
                name: "Web-Shop-x-y".to_owned(),
                status: "active".to_owned(),
                created_at: time("2026-11-23T11:00:00Z"),
                last_used_at: time("2026-11-23T10:59:00Z"),
                user_id: UserId::parse("user-1"),
            },
            ListedKey {
                key_id: None,
                name: "by a\u{fffd} person".to_owned(),
                status: String::new(),
                created_at: time("2026-11-18T11:06:40Z"),
                last_used_at: time("2026-11-18T11:06:40Z"),
                user_id: None,
            },
            timeless("key-3", "revoked"),
            timeless("key-4", ""),
            timeless("key-5", ""),
            ListedKey { created_at: time("1970-01-01T00:00:00Z"), ..timeless("key-6", "") },
        ]
    );
    let active = list.keys.iter().map(ListedKey::is_active).collect::<Vec<_>>();
    assert_eq!(active, [true, true, false, true, true, true]);
}

#[test]
fn times_of_a_list_are_told_by_our_clock_as_far_as_its_date_proves_that_the_services_is_off() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    // Asked at 12:00:10.2, answered at 12:00:10.9; the key was used at 11:30 by the service's clock.
    let cases = [
        ("no date", None, "11:30:00"),
        ("the same second", Some("12:00:10"), "11:30:00"),
        ("the second before, which was over", Some("12:00:09"), "11:30:00.2"),
        ("behind by a minute, and at most a second of it unproven", Some("11:59:10"), "11:30:59.2"),
        ("ahead by a minute", Some("12:01:10"), "11:29:00.9"),
        ("ahead by less than a second", Some("12:00:11"), "11:29:59.9"),
    ];
    for (name, date, used) in cases {
        let key = ListedKey {
            key_id: None,
            name: "Web-Shop-x-y".to_owned(),
            status: String::new(),
            created_at: Some(at("2026-11-23T11:30:00Z")),
            last_used_at: Some(at("2026-11-23T11:30:00Z")),
            user_id: None,
        };
        let server_time = date.map(|time| at(&format!("2026-11-23T{time}Z")));
        let list = KeyList { keys: vec![key], server_time };
        let keys = list.by_our_clock(at("2026-11-23T12:00:10.2Z"), at("2026-11-23T12:00:10.9Z"));
        let expected = Some(at(&format!("2026-11-23T{used}Z")));
        assert_eq!(keys.first().unwrap().last_used_at, expected, "{name}");
        assert_eq!(keys.first().unwrap().created_at, expected, "{name}");
    }
}

#[test]
fn a_date_that_makes_no_sense_moves_no_time_out_of_what_a_status_can_hold() {
    let key = ListedKey {
        key_id: None,
        name: "Web-Shop-x-y".to_owned(),
        status: String::new(),
        created_at: Some(Timestamp::from_second(1_790_000_000).unwrap()),
        last_used_at: Some(Timestamp::MAX),
        user_id: None,
    };
    let moved = |server_time| {
        let list = KeyList { keys: vec![key.clone()], server_time: Some(server_time) };
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let keys = list.by_our_clock(now, now);
        (keys.first().unwrap().created_at.unwrap(), keys.first().unwrap().last_used_at.unwrap())
    };
    assert_eq!(moved(Timestamp::MAX).0, Timestamp::UNIX_EPOCH, "not before 1970");
    assert_eq!(moved(Timestamp::MIN).1, Timestamp::MAX, "not after the end of time");
    assert!(Timestamp::MAX.to_string().starts_with("9999-"), "which RFC 3339 can tell");
}

#[tokio::test]
async fn an_empty_list_is_a_list_and_anything_else_is_not() {
    assert_eq!(Script::new([success(&json!([]))]).client().list(&token()).await.unwrap().keys, []);
    let one = json!([{"name": "Web-Shop-x-y", "keyId": "key-1"}]).to_string();
    let mut bodies: Vec<String> =
        (0..one.len()).map(|end| format!("{{\"success\":true,\"response\":{}", &one[..end])).collect();
    bodies.extend(
        [
            json!({}),
            json!(null),
            json!("x"),
            json!([{}]),
            json!([7]),
            json!([{"name": "a"}, {"status": "active"}]),
        ]
        .map(|payload| json!({"success": true, "response": payload}).to_string()),
    );
    for body in bodies {
        let error = failure(Operation::List, typed_answer(200, "application/json", &body)).await;
        assert_eq!(error.reason(), Reason::Unreadable, "{body}");
    }
}

#[tokio::test]
async fn a_revocation_is_acknowledged_or_has_no_endpoint() {
    let revoke = async |act| {
        let script = Script::new([act]);
        let result = script.client().revoke(&token(), "/agent/dev/keys/revoke", "key-1").await;
        assert_eq!(script.lines(), ["POST https://bags.example/api/v1/agent/dev/keys/revoke"]);
        assert_eq!(script.bodies(), [json!({"token": "token-for-tests", "keyId": "key-1"})]);
        result
    };
    for act in
        [success(&json!({})), json_answer(200, &json!({"success": true})), typed_answer(204, "x/y", "")]
    {
        assert_eq!(revoke(act).await, Ok(Revocation::Acknowledged));
    }
    for act in [
        typed_answer(404, "text/html", "Cannot POST"),
        json_answer(404, &envelope("Not found")),
        json_answer(405, &envelope("No")),
    ] {
        assert_eq!(revoke(act).await, Ok(Revocation::NoEndpoint));
    }
    let refused = revoke(json_answer(400, &envelope("Invalid token"))).await.unwrap_err();
    assert_eq!((refused.class(), refused.reason()), (Class::Refused, Reason::InvalidToken));
    for act in [typed_answer(200, "text/html", "<html>"), json_answer(200, &json!({"success": false}))] {
        assert_eq!(revoke(act).await.unwrap_err().reason(), Reason::Unreadable);
    }
}

#[tokio::test]
async fn a_revocation_goes_to_a_plain_path_only() {
    let script = Script::default();
    for path in ["", "https://other.example/x", "//other.example/x", "/a/../../x", "/a?b=c", "/a b"] {
        let error = script.client().revoke(&token(), path, "key-1").await.unwrap_err();
        assert_eq!((error.class(), error.reason()), (Class::Refused, Reason::InvalidPath), "{path}");
    }
    assert!(script.lines().is_empty());
}

#[tokio::test]
async fn a_ping_wants_a_pong() {
    let script = Script::new([json_answer(200, &json!({"message": "pong"}))]);
    script.client().ping().await.unwrap();
    assert_eq!(script.lines(), ["GET https://bags.example/ping"]);
    let error = failure(Operation::Ping, typed_answer(200, "text/html", "<html>login</html>")).await;
    assert_eq!(error.reason(), Reason::Unreadable);
}

fn limited(headers: &[(&'static str, &str)], body: &Value) -> Act {
    let mut act = json_answer(429, body);
    if let Act::Answer(response) = &mut act {
        for (name, value) in headers {
            response.headers_mut().insert(*name, value.parse().unwrap());
        }
    }
    act
}

/// Seconds after the test clock's start.
fn in_seconds(seconds: i64) -> String {
    (TestClock::new().wall().as_second() + seconds).to_string()
}

#[tokio::test]
async fn a_rate_limit_ends_when_the_service_says_within_bounds() {
    let over = |reset: i64| {
        let reset = TestClock::new().wall().as_second() + reset;
        json!({"success": false, "error": "Rate limit exceeded", "limit": 5000, "remaining": 0, "resetTime": reset})
    };
    let old = json!({"success": false, "response": "Too many agent auth requests. Please try again later."});
    let reset = in_seconds(200);
    let past = in_seconds(-5);
    let cases = [
        ("in the body", limited(&[("x-ratelimit-reset", &reset), ("retry-after", "300")], &over(100)), 100),
        ("in the header", limited(&[("x-ratelimit-reset", &reset), ("retry-after", "300")], &old), 200),
        ("in Retry-After", limited(&[("x-ratelimit-reset", &past), ("retry-after", "300")], &old), 300),
        ("Retry-After as a date", limited(&[("retry-after", "Mon, 23 Nov 2026 12:05:00 GMT")], &old), 300),
        ("nowhere", limited(&[], &old), 60),
        ("in the past", limited(&[("retry-after", "0")], &over(-100)), 60),
        ("nonsense", limited(&[("x-ratelimit-reset", "soon"), ("retry-after", "later")], &old), 60),
        ("in a year", limited(&[("retry-after", "99999999999999999999")], &over(31_536_000)), 7200),
        ("by a clock a minute ahead", limited(&[("date", "Mon, 23 Nov 2026 12:01:00 GMT")], &over(100)), 40),
    ];
    for (case, act, seconds) in cases {
        let error = failure(Operation::List, act).await;
        let until = TestClock::new().wall() + Duration::from_secs(seconds);
        assert_eq!(error.class(), Class::RateLimited { until }, "{case}");
        assert_eq!((error.reason(), error.retry_at()), (Reason::RateLimited, Some(until)), "{case}");
    }
}

#[tokio::test]
async fn a_rate_limit_that_is_not_the_services_own_leaves_a_key_possible() {
    for (operation, expected) in
        [(Operation::CreateWithToken, true), (Operation::CreateWithWallet, true), (Operation::List, false)]
    {
        let error = failure(operation, typed_answer(429, "text/html", "slow down")).await;
        assert_eq!(error.reason(), Reason::RateLimited);
        assert_eq!(error.may_have_created(), expected, "{operation:?}");
        assert_eq!(error.retry_at().is_none(), expected, "{operation:?}");
    }
}

fn budgets(clock: &Arc<TestClock>) -> (Arc<Budget>, Arc<Budget>) {
    (Arc::new(Budget::per_hour(10, clock.clone())), Arc::new(Budget::per_hour(100, clock.clone())))
}

#[tokio::test]
async fn every_request_is_taken_from_both_budgets_and_none_is_sent_without() {
    let clock = Arc::new(TestClock::new());
    let (account, operator) = budgets(&clock);
    let pong = || json_answer(200, &json!({"message": "pong"}));
    let script = Script::new([pong(), pong(), pong(), pong(), pong()]);
    let client = script.client_with(clock.clone()).with_budgets(account.clone(), operator.clone());
    for _ in 0..4 {
        client.ping().await.unwrap();
    }
    assert_eq!((account.remaining(), operator.remaining()), (1, 46));
    let error = client.ping().await.unwrap_err();
    assert_eq!(error.reason(), Reason::BudgetSpent);
    assert!(error.retry_at().unwrap() > clock.wall());
    assert!(!error.may_have_created());
    client.urgent().ping().await.unwrap();
    assert_eq!((script.lines().len(), account.remaining(), operator.remaining()), (5, 0, 45));
}

#[tokio::test]
async fn a_request_that_the_operator_s_budget_holds_back_costs_the_account_nothing() {
    let clock = Arc::new(TestClock::new());
    let (account, operator) = budgets(&clock);
    operator.pause_until(clock.wall() + Duration::from_secs(30));
    let script = Script::default();
    let client = script.client_with(clock).with_budgets(account.clone(), operator);
    assert_eq!(client.ping().await.unwrap_err().reason(), Reason::RateLimited);
    assert_eq!(account.remaining(), 5);
}

#[tokio::test]
async fn a_rate_limit_pauses_the_account_and_for_a_minute_the_operator() {
    let clock = Arc::new(TestClock::new());
    let (account, operator) = budgets(&clock);
    let limit = in_seconds(600);
    let headers =
        [("x-ratelimit-limit", "5000"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &*limit)];
    let script = Script::new([limited(&headers, &envelope("Rate limit exceeded"))]);
    let client = script.client_with(clock.clone()).with_budgets(account.clone(), operator.clone());
    client.list(&token()).await.unwrap_err();
    let after = |seconds| Some(clock.wall() + Duration::from_secs(seconds));
    assert_eq!((account.paused_until(), operator.paused_until()), (after(600), after(60)));
    assert_eq!(client.list(&token()).await.unwrap_err().retry_at(), after(600));
    assert_eq!(script.lines().len(), 1);
}

#[tokio::test]
async fn an_account_whose_limit_is_reached_again_and_again_stalls_no_other() {
    let clock = Arc::new(TestClock::new());
    let (busy, operator) = (Arc::new(Budget::per_hour(1000, clock.clone())), budgets(&clock).1);
    let script = Script::new((0..62).map(|_| limited(&[], &envelope("Rate limit exceeded"))));
    let client = script.client_with(clock.clone()).with_budgets(busy.clone(), operator.clone());
    let mut held = 0;
    for _ in 0..62 {
        client.list(&token()).await.unwrap_err();
        held += u32::from(operator.paused_until().is_some());
        clock.advance(Duration::from_secs(61));
    }
    assert_eq!((script.lines().len(), held), (62, 2), "once an hour");
}

#[tokio::test]
async fn each_request_is_counted_once_with_its_outcome_and_its_time_if_it_was_sent() {
    #[derive(Default)]
    struct Counts(Mutex<Vec<(Operation, Outcome, bool)>>);
    impl Observer for Counts {
        fn request(&self, operation: Operation, outcome: Outcome, took: Option<Duration>) {
            self.0.lock().unwrap().push((operation, outcome, took.is_some()));
        }
    }
    let counts = Arc::new(Counts::default());
    let script = Script::new([
        success(&json!([])),
        json_answer(401, &envelope("Invalid API key")),
        success(&json!({"mfaRequired": true, "mfaMethod": "totp", "authCode": "a"})),
        json_answer(400, &envelope("Invalid or expired auth code")),
        Act::Fail(TransportError::Broken),
    ]);
    let client = script.client().with_observer(counts.clone());
    for operation in [Operation::List, Operation::Me, Operation::CreateWithWallet, Operation::Ping] {
        drop(perform(&client, operation).await);
    }
    let (account, operator) = budgets(&Arc::new(TestClock::new()));
    account.pause_until(Timestamp::MAX);
    let held = client.with_budgets(account, operator);
    drop(perform(&held, Operation::List).await);
    assert_eq!(
        *counts.0.lock().unwrap(),
        [
            (Operation::List, Outcome::Done, true),
            (Operation::Me, Outcome::Done, true),
            (Operation::CreateWithWallet, Outcome::Done, true),
            (Operation::CreateWithWallet, Outcome::Failed(Reason::InvalidMfa), true),
            (Operation::Ping, Outcome::Failed(Reason::Broken), true),
            (Operation::List, Outcome::Failed(Reason::RateLimited), false),
        ]
    );
}
