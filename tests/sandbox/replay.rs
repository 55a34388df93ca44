//! A seed repeats a run, and nothing comes twice within one.

use std::{collections::BTreeSet, sync::Arc};

use axum::body::Body;
use bags_operator::{
    clock::Randomness,
    sandbox::{Sandbox, UserOptions},
};
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

use crate::{CREATE, StillClock};

async fn run(seed: u64) -> Vec<String> {
    let sandbox = Sandbox::new(Arc::new(StillClock), Randomness::from_seed(seed));
    let user = sandbox.add_user(UserOptions::default());
    let mut seen = vec![user.credentials.wallet_json().to_owned(), user.credentials.token().to_owned()];
    for n in 0..3 {
        let body = json!({"token": user.credentials.token(), "name": format!("Key-{n}")}).to_string();
        let request = http::Request::post(CREATE).body(Body::from(body)).unwrap();
        let answer = sandbox.service().oneshot(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        seen.push(String::from_utf8(body.to_vec()).unwrap());
    }
    seen
}

#[tokio::test]
async fn a_seed_repeats_a_run_to_the_byte_and_another_seed_does_not() {
    let first = run(5).await;
    assert_eq!(first, run(5).await);
    assert!(first.iter().zip(run(6).await).all(|(one, other)| *one != other));
}

#[tokio::test]
async fn a_thousand_keys_of_a_hundred_users_are_all_different_and_all_work() {
    let sandbox = Sandbox::new(Arc::new(StillClock), Randomness::from_seed(1));
    let mut values = BTreeSet::new();
    for _ in 0..100 {
        let user = sandbox.add_user(UserOptions::default());
        for _ in 0..10 {
            values.insert(sandbox.make_key(&user.id, "Some-Key").unwrap().value);
        }
    }
    assert_eq!(values.len(), 1000);
    assert!(values.iter().all(|value| sandbox.works(value)));
    let ids: BTreeSet<_> = sandbox.keys().into_iter().map(|key| key.id).collect();
    assert_eq!(ids.len(), 1000);
}
