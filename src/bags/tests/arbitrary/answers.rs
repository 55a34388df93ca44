//! Whatever an operation is answered: judged by what the documentation says of the service, and not by the code.

use std::{cell::RefCell, collections::BTreeMap};

use super::super::secrets::{assert_hidden, sent};
use super::{
    bodies::{any_body, any_of, refusals, successes},
    *,
};
use crate::api::arbitrary::for_all_read;

const HOURS: Duration = Duration::from_secs(2 * 60 * 60);

/// One answer.
#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    kind: &'static str,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
}

impl Answer {
    fn act(&self) -> Act {
        let mut response = Response::builder().status(self.status).header("content-type", self.kind);
        for (name, value) in &self.headers {
            if let Ok(value) = http::HeaderValue::from_bytes(value) {
                response = response.header(*name, value);
            }
        }
        Act::Answer(response.body(Body::from(self.body.clone())).unwrap())
    }

    fn good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The envelope's `response`, or the whole answer where there is no envelope.
    fn payload(&self) -> Option<Value> {
        let whole = self.json()?;
        match whole.get("success") {
            None => Some(whole),
            Some(success) if *success == json!(true) => whole.get("response").cloned(),
            Some(_) => None,
        }
    }

    /// Whether it is a refusal in the service's own envelope.
    fn refusal(&self) -> bool {
        let kind = self.kind.split(';').next();
        let json = kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
        let said = self.json().map(|whole| {
            let text = ["error", "response", "message"].iter().any(|name| whole[*name].is_string());
            whole["success"] == json!(false) && text
        });
        !self.good() && json && said.unwrap_or_else(|| self.names("success"))
    }

    /// Whether it demands a second factor, and brings no key.
    fn demands(&self) -> bool {
        if self.json().is_none() {
            return self.good() && self.names("mfaRequired");
        }
        let payload = self.payload().unwrap_or_default();
        let key = payload.get("apiKey").is_some_and(|key| *key != json!(null) && *key != json!(""));
        self.good() && payload["mfaRequired"] == json!(true) && !key
    }

    /// Whether a member is called so. All there is to know of JSON that is odd in a place that nobody reads.
    fn names(&self, member: &str) -> bool {
        self.body.windows(member.len()).any(|name| name == member.as_bytes())
    }
}

fn any_header() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let names = vec![
        "date",
        "date",
        "retry-after",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "content-length",
    ];
    let known = select(vec![
        "Mon, 23 Nov 2026 12:00:00 GMT",
        "Mon, 23 Nov 2026 13:00:00 +0000",
        "Sat, 01 Jan 0000 00:00:00 -2359",
        "Fri, 31 Dec 9999 23:59:60 GMT",
        "0",
        "30",
        "-1",
        "+5",
        " 7 ",
        "1e3",
        "1795435230",
        "253402300800",
        "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
    ]);
    let value = prop_oneof![
        4 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    (select(names), value)
}

fn any_answer(operation: Operation) -> BoxedStrategy<Answer> {
    // A creation that is answered a limit that says so is rare enough as it is.
    let refused = || select(vec![400_u16, 401, 403, 404, 413, 429, 429, 429]);
    let status = prop_oneof![
        2 => Just(200),
        1 => 200_u16..300,
        2 => refused(),
        2 => select(vec![301, 405, 409, 500, 503]),
        1 => 100_u16..1000,
    ];
    let usual = [successes(operation), refusals()].concat();
    let told = prop_oneof![
        4 => (Just(200), any_of(successes(operation))),
        3 => (refused(), any_of(refusals())),
        2 => (status.clone(), any_of(usual)),
        2 => (status, any_body()),
    ];
    let kind = prop_oneof![
        6 => Just("application/json; charset=utf-8"),
        1 => select(vec!["APPLICATION/JSON", "text/html", "", "application/jsonp", "application/json-seq;"]),
    ];
    (told, kind, prop::collection::vec(any_header(), 0..5))
        .prop_map(|((status, body), kind, headers)| Answer { status, kind, headers, body })
        .boxed()
}

/// An operation, and the answers to its requests: the wallet way may send two.
fn any_case() -> impl Strategy<Value = (Operation, [Answer; 2])> {
    let operations = [&Operation::ALL[..], &[Operation::CreateWithWallet; 3]].concat();
    select(operations).prop_flat_map(|operation| {
        let demand = Answer {
            status: 200,
            kind: "application/json",
            headers: vec![],
            body:
                json!({"success": true, "response": {"mfaRequired": true, "authCode": "auth-code-for-tests"}})
                    .to_string()
                    .into_bytes(),
        };
        let first = match operation {
            Operation::CreateWithWallet => prop_oneof![Just(demand), any_answer(operation)].boxed(),
            _ => any_answer(operation),
        };
        (Just(operation), [first, any_answer(operation)])
    })
}

/// What a success may rest on.
fn judge_success(operation: Operation, last: &Answer, done: &Done) -> Result<(), TestCaseError> {
    let payload = last.payload().unwrap_or_default();
    let id = |id: &str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    match done {
        Done::Challenged(Challenge { message, nonce }) => {
            prop_assert!(last.good() && !message.is_empty() && id(nonce));
        }
        Done::Made(CreatedKey { value, key_id, .. }) => {
            let field = if operation == Operation::CreateWithToken { "/apiKey/key" } else { "/apiKey" };
            let told = payload.pointer(field).and_then(Value::as_str);
            prop_assert!(last.good() && KeyValue::parse(value.expose().as_bytes()).is_ok());
            let named = last.json().is_none() && last.names("apiKey");
            prop_assert!(named || told == Some(value.expose()), "{value:?}");
            prop_assert!(key_id.as_deref().is_none_or(|known| id(known) && !known.contains(value.expose())));
        }
        Done::Listed(KeyList { keys, .. }) => {
            prop_assert!(last.good());
            for key in keys {
                prop_assert!(key.key_id.as_deref().is_none_or(id) && key.name.chars().count() <= 255);
                prop_assert!(!key.name.contains(char::is_control) && !key.status.contains(char::is_control));
            }
        }
        Done::Probed(Probe::Alive { user }) => prop_assert!(last.good() && id(user.as_str())),
        Done::Probed(Probe::Dead) => prop_assert!(last.status == 401 && last.refusal()),
        Done::Probed(Probe::Forbidden) => prop_assert!(last.status == 403 && last.refusal()),
        Done::Probed(Probe::UserGone) => prop_assert!(last.status == 404 && last.refusal()),
        Done::Revoked(Revocation::NoEndpoint) => prop_assert!([404, 405].contains(&last.status)),
        Done::Revoked(Revocation::Acknowledged) => {
            let says = last.json().is_none_or(|whole| whole["success"] == json!(true));
            prop_assert!(last.status == 204 || last.good() && says);
        }
        Done::Pong => {
            let pong = payload["message"] == json!("pong") || last.json().is_none() && last.names("pong");
            prop_assert!(last.good() && pong);
        }
    }
    Ok(())
}

/// What a failure may say, and of what it may be certain.
fn judge_failure(
    operation: Operation,
    last: &Answer,
    error: &Error,
    sent: &[String],
) -> Result<(), TestCaseError> {
    let shown = format!("{error} {error:?}");
    prop_assert!(error.to_string().len() < 700, "{error}");
    prop_assert!(hides(&shown, PLANTED.as_bytes(), 17), "{shown}");
    // A time that was sent as a code may be that of the next try.
    let mut secrets = sent.iter().filter(|secret| !secret.contains("2026-11"));
    prop_assert!(secrets.all(|secret| hides(&shown, secret.as_bytes(), 8)), "{shown}");
    prop_assert_eq!(error.may_have_created(), operation.creates() && error.class() == Class::Unknown);
    match error.class() {
        Class::Refused if last.good() => prop_assert!(last.demands(), "{shown}"),
        Class::Refused => {
            prop_assert!(last.refusal() && [400, 401, 403, 404, 413].contains(&last.status), "{shown}");
        }
        Class::RateLimited { until } => {
            let now = TestClock::new().wall();
            prop_assert!(until > now && until <= now + HOURS, "{until}");
            prop_assert!(last.status == 429 && (last.refusal() || !operation.creates()));
        }
        Class::NotDone => prop_assert!(false, "{shown}"),
        Class::Unknown => {}
    }
    Ok(())
}

/// Pauses come of rate limits only, and one account's holds the others up for a minute at most.
fn judge_budgets(answers: &[Answer], account: &Budget, operator: &Budget) -> Result<(), TestCaseError> {
    let now = TestClock::new().wall();
    let paused = [account.paused_until(), operator.paused_until()];
    prop_assert_eq!(paused[0].is_some(), answers.iter().any(|answer| answer.status == 429));
    prop_assert!(paused[0].is_none_or(|until| until <= now + HOURS));
    prop_assert!(paused[1].is_none_or(|until| until <= now + Duration::from_secs(60)));
    Ok(())
}

#[test]
fn whatever_an_operation_is_answered_it_is_judged_by_what_the_service_said() {
    let outcomes = RefCell::new(BTreeMap::<String, u32>::new());
    for_all_read(
        file!(),
        &any_case(),
        |case| Some(case.clone()),
        |(operation, answers)| {
            let script = Script::new(answers.iter().map(Answer::act));
            let clock = Arc::new(TestClock::new());
            let budgets = [(); 2].map(|()| Arc::new(Budget::per_hour(100, clock.clone())));
            let client = script.client_with(clock).with_budgets(budgets[0].clone(), budgets[1].clone());
            let result = block_on(ask(&client, operation));

            let answered = &answers[..script.lines().len()];
            prop_assert!(operation == Operation::CreateWithWallet || answered.len() == 1);
            prop_assert!(answered.len() == 1 || answers[0].demands());
            let last = answered.last().unwrap();
            match &result {
                Ok(done) => judge_success(operation, last, done)?,
                Err(error) => judge_failure(operation, last, error, &sent(&script))?,
            }
            judge_budgets(answered, &budgets[0], &budgets[1])?;
            let class = result.map_or_else(|error| format!("{:?}", error.class()), |_| "Done".to_owned());
            let class = class.split(' ').next().unwrap_or_default().to_owned();
            let way = if operation.creates() { "creation" } else { "other" };
            *outcomes.borrow_mut().entry(format!("{way} {class} {}", answered.len())).or_default() += 1;
            Ok(())
        },
    );
    let outcomes = outcomes.into_inner();
    for class in ["Done 1", "Refused 1", "Unknown 1", "RateLimited 1", "Done 2", "Refused 2", "Unknown 2"] {
        let ways = if class.ends_with('1') { &["creation", "other"][..] } else { &["creation"] };
        for way in ways {
            assert!(outcomes.contains_key(&format!("{way} {class}")), "no {way} {class}: {outcomes:?}");
        }
    }
}

#[test]
fn a_key_that_cannot_be_used_is_one_that_may_exist_even_beside_the_demand_for_a_code() {
    for key in [json!({"key": PLANTED}), json!("two words"), json!([PLANTED]), json!(7), json!(false)] {
        for method in ["totp", "sms"] {
            let payload =
                json!({"apiKey": key, "mfaRequired": true, "mfaMethod": method, "authCode": "code"});
            let script = Script::new([success(&payload)]);
            let error = block_on(perform(&script.client(), Operation::CreateWithWallet)).unwrap_err();
            assert_eq!((error.class(), error.reason()), (Class::Unknown, Reason::Unreadable), "{payload}");
            assert_eq!(script.lines().len(), 1, "no second key is asked for");
        }
    }
}

#[test]
fn an_answer_without_a_key_may_say_so_with_null_or_an_empty_text() {
    for key in [json!(null), json!("")] {
        let demand = json!({"apiKey": key, "mfaRequired": true, "authCode": "auth-code-for-tests"});
        let script = Script::new([success(&demand), success(&json!({"apiKey": PLANTED}))]);
        block_on(perform(&script.client(), Operation::CreateWithWallet)).unwrap();
    }
}

#[test]
fn the_second_steps_error_repeats_nothing_of_the_first_step() {
    let demand = json!({"mfaRequired": true, "authCode": "auth-code-for-tests"});
    let signature = wallet().sign(b"sign me").to_string();
    for said in ["nonce-for-tests", &signature[..16], &signature[20..30]] {
        let refused = json_answer(400, &json!({"success": false, "error": format!("Bad {said}")}));
        let script = Script::new([success(&demand), refused]);
        let error = block_on(perform(&script.client(), Operation::CreateWithWallet)).unwrap_err();
        assert_eq!(error.class(), Class::Refused);
        assert_hidden(&format!("{error} {error:?}"), &sent(&script));
    }
}

#[test]
fn an_array_is_not_taken_for_the_object_that_it_could_be() {
    let refused = || typed_answer(401, "application/json", "[false,\"Unauthorized\"]");
    let error = block_on(Script::new([refused()]).client().me(&key_value())).unwrap_err();
    assert_eq!(
        (error.class(), error.reason()),
        (Class::Unknown, Reason::Unreadable),
        "no proof that a key is dead"
    );
    let payloads =
        [json!([PLANTED]), json!([[PLANTED]]), json!({"apiKey": [PLANTED]}), json!({"user": ["user-1"]})];
    let lists = [json!([["key-1", "Web-Shop"]]), json!({"name": "x"}), json!(["key-1"])];
    for payload in payloads.iter().chain(&lists) {
        for operation in
            [Operation::CreateWithWallet, Operation::CreateWithToken, Operation::Me, Operation::List]
        {
            for body in
                [json!({"success": true, "response": payload}), json!([true, payload]), payload.clone()]
            {
                let script = Script::new([json_answer(200, &body)]);
                let error = block_on(perform(&script.client(), operation)).unwrap_err();
                assert_eq!((error.class(), error.reason()), (Class::Unknown, Reason::Unreadable), "{body}");
            }
        }
    }
    let error =
        block_on(perform(&Script::new([json_answer(200, &json!([true]))]).client(), Operation::Revoke));
    assert_eq!(error.unwrap_err().reason(), Reason::Unreadable);
}
