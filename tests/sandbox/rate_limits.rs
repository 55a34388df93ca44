//! How many requests an hour has, and the headers that tell of it.

use bags_operator::sandbox::{Settings, UserOptions};
use serde_json::json;

use crate::{Answer, CREATE, HOUR, ME, World};

#[tokio::test]
async fn all_keys_and_credentials_of_a_user_share_one_sliding_hour() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions { rate_limit: 3, ..UserOptions::default() });
    let made = world.create(&user, "Some-Key").await;
    let (_, value) = made.made_key();
    let reset = world.sandbox.now().as_second() + 3601;
    let told = |answer: &Answer| {
        ["limit", "remaining", "reset"].map(|name| answer.number(&format!("x-ratelimit-{name}")))
    };
    assert_eq!(told(&made), [3, 2, reset]);
    world.sandbox.advance(HOUR / 2);
    assert_eq!(told(&world.me(&value).await), [3, 1, reset]);
    assert_eq!(told(&world.list(&user).await), [3, 0, reset]);
    let over = world.me(&value).await;
    assert_eq!(over.refusal(), (429, "error", "Rate limit exceeded"));
    assert_eq!(told(&over), [3, 0, reset]);
    let numbers = [&over.body["limit"], &over.body["remaining"], &over.body["resetTime"]];
    assert_eq!(numbers, [&json!(3), &json!(0), &json!(reset)]);
    assert_eq!(world.list(&user).await.refusal().2, "Rate limit exceeded");
    world.sandbox.advance(HOUR / 2);
    assert_eq!(told(&world.me(&value).await), [3, 0, reset + 1800]);
}

#[tokio::test]
async fn an_address_has_a_budget_over_all_users_where_it_is_counted() {
    let world = World::with(Settings { ip_rate_limit: Some(3), ..Settings::default() }).await;
    let users = [(); 4].map(|()| world.sandbox.add_user(UserOptions::default()));
    for user in &users[..3] {
        assert_eq!(world.list(user).await.status, 200);
    }
    assert_eq!(world.list(&users[3]).await.refusal().2, "Rate limit exceeded");
    assert_eq!(world.me("unknown").await.status, 429, "also for those whom nobody knows");
    world.sandbox.advance(HOUR);
    assert_eq!(world.list(&users[3]).await.status, 200);
}

#[tokio::test]
async fn every_public_answer_carries_the_headers_and_the_services_time() {
    let world = World::new().await;
    world.sandbox.advance(HOUR);
    for path in ["/ping", ME, CREATE, "/api/v1/nowhere"] {
        let answer = world.get(path).await;
        assert_eq!(answer.number("x-ratelimit-limit"), 5000, "{path}");
        assert_eq!(answer.headers["date"], "Mon, 23 Nov 2026 13:00:00 GMT");
    }
}
