//! What is large or deep: memory and stack stay bounded, whatever the service sends.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;

use super::*;

/// A good answer of the operation.
fn good(operation: Operation) -> Value {
    let payload = match operation {
        Operation::Challenge => json!({"message": "abc", "nonce": "nonce-one"}),
        Operation::CreateWithWallet => json!({"apiKey": PLANTED}),
        Operation::CreateWithToken => json!({"apiKey": {"key": PLANTED}}),
        Operation::List => json!([{"name": "Web-Shop", "key": PLANTED}]),
        Operation::Me => json!({"user": {"uuid": "user-1"}}),
        Operation::Revoke => json!({}),
        Operation::Ping => json!({"message": "pong"}),
    };
    json!({"success": true, "response": payload})
}

fn padded(status: u16, body: &Value, length: usize) -> Act {
    let body = body.to_string();
    let answer = Response::builder().status(status).header("content-type", "application/json");
    let answer = answer.header("x-ratelimit-limit", "9").header("x-ratelimit-remaining", "0");
    let body = format!("{body}{}", " ".repeat(length - body.len()));
    Act::Answer(answer.header("x-ratelimit-reset", "1795435230").body(Body::from(body.into_bytes())).unwrap())
}

#[test]
fn an_answer_of_one_byte_too_many_is_refused_unread_whatever_it_says() {
    let refused = json!({"success": false, "error": "maximum number of API keys"});
    for operation in Operation::ALL {
        for (status, body) in [(200, &good(operation)), (401, &refused), (404, &refused), (429, &refused)] {
            let clock = Arc::new(TestClock::new());
            let budget = Arc::new(Budget::per_hour(100, clock.clone()));
            let script =
                Script::new([RESPONSE_LIMIT, RESPONSE_LIMIT + 1].map(|length| padded(status, body, length)));
            let client = script.client_with(clock).with_budgets(budget.clone(), budget.clone()).urgent();
            let at_the_limit = block_on(ask(&script.client(), operation));
            let certain = |error: &Error| error.class() != Class::Unknown;
            assert!(
                at_the_limit.as_ref().err().is_none_or(certain),
                "{operation:?} {status}: {at_the_limit:?}"
            );
            assert!(status != 200 || at_the_limit.is_ok(), "{operation:?}: {at_the_limit:?}");
            let error = block_on(ask(&client, operation)).unwrap_err();
            assert_eq!(
                (error.class(), error.reason()),
                (Class::Unknown, Reason::TooLarge),
                "{operation:?} {status}"
            );
            assert_eq!((error.status(), budget.paused_until()), (None, None));
        }
    }
}

/// Runs where a recursion of a byte a level would end the process.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(512 * 1024).spawn(test).unwrap().join().unwrap();
}

#[test]
fn json_of_any_depth_needs_no_stack() {
    on_a_small_stack(|| {
        let levels = RESPONSE_LIMIT / 8;
        let lists = "[".repeat(levels) + &"]".repeat(levels);
        for operation in Operation::ALL {
            for deep in [&lists, &"{\"a\":".repeat(levels), &"[".repeat(levels)] {
                let text = good(operation).to_string();
                let members = text.match_indices("\":").map(|(at, _)| at + 2);
                let within = members.map(|at| format!("{}{deep},\"x\":{}", &text[..at], &text[at..]));
                for body in within.chain([deep.clone()]) {
                    for status in [200, 400] {
                        let script = Script::new([typed_answer(status, "application/json", &body)]);
                        match block_on(ask(&script.client(), operation)) {
                            Ok(done) => assert!(status == 200 && !operation.creates(), "{done:?}"),
                            Err(error) => assert_eq!(error.class(), Class::Unknown, "{operation:?}"),
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn a_value_is_not_lost_over_something_deep_beside_it() {
    on_a_small_stack(|| {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        for name in ["keyId", "isSignup", "mfaMethod", "authCode", "other"] {
            let body =
                format!("{{\"success\":true,\"response\":{{\"{name}\":{deep},\"apiKey\":\"{PLANTED}\"}}}}");
            let script = Script::new([typed_answer(200, "application/json", &body)]);
            let Done::Made(key) = block_on(ask(&script.client(), Operation::CreateWithWallet)).unwrap()
            else {
                panic!("not a creation")
            };
            assert_eq!((key.value.expose(), key.key_id), (PLANTED, None), "{name}");
        }
    });
}

#[test]
fn a_list_of_more_keys_than_an_answer_has_room_for_is_none() {
    let list = |keys: usize| {
        let keys = vec!["{\"name\":\"\"}"; keys].join(",");
        let act =
            typed_answer(200, "application/json", &format!("{{\"success\":true,\"response\":[{keys}]}}"));
        block_on(Script::new([act]).client().list(&token()))
    };
    assert_eq!(list(10_000).unwrap().keys.len(), 10_000);
    for keys in [10_001, RESPONSE_LIMIT / 13] {
        let error = list(keys).unwrap_err();
        assert_eq!((error.class(), error.reason()), (Class::Unknown, Reason::Unreadable), "{keys}");
    }
}

proptest! {
    #[test]
    fn a_body_is_collected_whole_or_given_up_at_the_limit(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..12),
        limit in 0..400_usize,
        endless in any::<bool>(),
    ) {
        let pulled = AtomicUsize::new(0);
        let whole = chunks.concat();
        let chunks = chunks.into_iter().chain(std::iter::repeat(vec![7; 50]).take_while(|_| endless));
        let frames = stream::iter(chunks).map(|chunk| {
            pulled.fetch_add(chunk.len(), Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(chunk)))
        });
        let body = block_on(Body::collect(StreamBody::new(frames), limit));
        // Nothing is asked for after the chunk that is too much.
        prop_assert!(pulled.load(Ordering::Relaxed) <= limit + 60);
        match body {
            Ok(body) => prop_assert!(!endless && whole.len() <= limit && body.as_bytes() == whole),
            Err(error) => prop_assert!(error == TransportError::TooLarge && (endless || whole.len() > limit)),
        }
    }
}
