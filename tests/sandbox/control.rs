//! The sandbox's own routes and its page: users, keys, the clock, requests; none shows a secret.

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use bags_operator::sandbox::{Capabilities, Settings, UserOptions};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{CREATE, Directory, HOUR, ME, World, answer, lacking, names};

fn with_credentials(directory: &Path) -> Settings {
    Settings { credentials: Some(directory.to_owned()), ..Settings::default() }
}

#[tokio::test]
async fn a_user_made_over_http_has_its_credentials_in_files_of_its_own() {
    let directory = Directory::new("users");
    let world = World::with(with_credentials(&directory.0)).await;
    let order = json!({"credentialsDir": "team-b", "options": {"limit": 2, "totp": true, "capabilities": {"list": false}}});
    let made = world.post("/sandbox/users", order.clone()).await;
    assert_eq!((made.status, &made.body["credentialsDir"]), (201, &json!("team-b")));
    assert_eq!(made.body["options"]["limit"], 2);
    assert_eq!(made.body["options"]["capabilities"], json!({"list": false, "lastUse": true, "revoke": true}));
    for name in ["wallet.json", "token", "totp"] {
        let file = directory.0.join("team-b").join(name);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    let token = std::fs::read_to_string(directory.0.join("team-b/token")).unwrap();
    world.post(CREATE, json!({"token": token, "name": "Some-Key"})).await.made_key();
    assert_eq!(world.post("/sandbox/users", order).await.status, 409, "it is another user's");
    for name in ["", "..", "a/b", "/tmp"] {
        assert_eq!(world.post("/sandbox/users", json!({"credentialsDir": name})).await.status, 400, "{name}");
    }
    let unknown = json!({"credentialsDir": "team-c", "options": {"limmit": 2}});
    assert_eq!(world.post("/sandbox/users", unknown).await.status, 400);
    assert_eq!(world.sandbox.users().len(), 1);
}

#[tokio::test]
async fn files_of_an_earlier_run_are_replaced() {
    let directory = Directory::new("earlier");
    let with_totp = UserOptions { totp: true, ..UserOptions::default() };
    let mut tokens = BTreeSet::new();
    for options in [with_totp, UserOptions::default()] {
        let world = World::with(with_credentials(&directory.0)).await;
        world.sandbox.advance(HOUR * u32::try_from(tokens.len()).unwrap());
        world.sandbox.add_user_on_disk(None, options.clone()).unwrap();
        assert!(world.sandbox.add_user_on_disk(None, options.clone()).is_err());
        tokens.insert(std::fs::read_to_string(directory.0.join("token")).unwrap());
        assert_eq!(directory.0.join("totp").exists(), options.totp);
    }
    assert_eq!(tokens.len(), 2);
}

#[tokio::test]
async fn what_is_no_order_is_refused() {
    let world = World::new().await;
    for (path, status) in [("/sandbox/requests?after=x", 400), ("/sandbox/nothing", 404)] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, status);
        assert!(answer.body["error"].is_string());
    }
    assert_eq!(world.sandbox.requests(0, 1).total, 0, "and is no request to the service");
}

#[tokio::test]
async fn without_a_directory_no_user_can_be_made_over_http() {
    let world = World::new().await;
    assert_eq!(world.post("/sandbox/users", json!({"credentialsDir": "team-b"})).await.status, 409);
}

#[tokio::test]
async fn a_change_replaces_only_what_it_names() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions { limit: 7, ..UserOptions::default() });
    let path = format!("/sandbox/users/{}", user.id);
    let change =
        json!({"capabilities": {"revoke": false}, "listLagMs": 1500, "suspended": true, "rateLimit": 9});
    let changed = world.send(Method::PATCH, &path, change).await;
    assert_eq!((changed.status, &changed.body["status"]), (200, &json!("suspended")));
    let wanted = UserOptions {
        limit: 7,
        list_lag: Duration::from_millis(1500),
        suspended: true,
        rate_limit: 9,
        ..lacking(Capabilities { revoke: false, ..Capabilities::default() })
    };
    assert_eq!(world.sandbox.users()[0].options, wanted);
    assert_eq!(world.send(Method::PATCH, &path, json!({"limit": "many"})).await.status, 400);
    assert_eq!(world.send(Method::PATCH, "/sandbox/users/none", json!({})).await.status, 404);
    let removed = world.send(Method::DELETE, &path, json!({})).await;
    assert_eq!((removed.status, &removed.body["status"]), (200, &json!("gone")));
    assert_eq!(world.get("/sandbox/users").await.body["users"][0]["status"], "gone");
}

#[tokio::test]
async fn a_person_makes_and_revokes_keys() {
    let world = World::new().await;
    world.sandbox.add_user(UserOptions::default());
    let second = world.sandbox.add_user(UserOptions::default());
    let made = world.post("/sandbox/keys", json!({"name": "By-Hand", "user": second.id})).await;
    assert_eq!((made.status, &made.body["user"]), (201, &json!(second.id)));
    assert_eq!(names(&world.list(&second).await), ["By-Hand"]);
    let id = made.body["id"].as_str().unwrap();
    let revoked = world.post(&format!("/sandbox/keys/{id}/revoke"), json!({})).await;
    assert_eq!((revoked.status, &revoked.body["state"]), (200, &json!("revoked")));
    assert_eq!(world.post("/sandbox/keys/none/revoke", json!({})).await.status, 404);
    assert_eq!(world.post("/sandbox/keys", json!({"name": "By-Hand", "user": "none"})).await.status, 404);
}

#[tokio::test]
async fn the_clock_is_read_and_advanced() {
    let world = World::new().await;
    let wanted = json!({"now": "2026-11-23T12:00:00.500Z", "advancedMs": 0});
    assert_eq!(world.get("/sandbox/clock").await.body, wanted);
    let moved = world.post("/sandbox/clock", json!({"advanceMs": 1500})).await;
    assert_eq!(moved.body, json!({"now": "2026-11-23T12:00:02.000Z", "advancedMs": 1500}));
    assert_eq!(world.get("/sandbox/clock").await.body, moved.body);
    world.post("/sandbox/clock", json!({"advanceMs": u64::MAX})).await;
    assert_eq!(world.get("/ping").await.status, 200, "even at the end of time");
}

#[tokio::test]
async fn requests_are_paged_and_say_who_asked_for_what() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions::default());
    let (id, value) = world.create(&user, "Some-Key").await.made_key();
    world.me(&value).await;
    world.get("/api/v1/nowhere").await;
    world.get("/sandbox/keys").await;
    let page = world.get("/sandbox/requests?after=1&limit=1").await;
    let wanted = json!({"total": 3, "requests": [{
        "number": 2, "time": "2026-11-23T12:00:00.500Z", "method": "GET", "route": ME, "keyId": id,
        "user": user.id, "status": 200, "fault": null,
    }]});
    assert_eq!(page.body, wanted);
    let all = world.get("/sandbox/requests").await;
    assert_eq!(all.body["requests"][2]["route"], Value::Null);
    assert_eq!(all.body["requests"][2]["status"], 404);
}

#[tokio::test]
async fn the_page_shows_every_key_and_its_button_revokes() {
    let world = World::new().await;
    let user = world.sandbox.add_user(UserOptions::default());
    let (id, value) = world.create(&user, "<b>Some-Key</b>").await.made_key();
    let page = world.get("/").await.body;
    let page = page.as_str().unwrap();
    assert!(page.contains("&lt;b&gt;Some-Key&lt;/b&gt;") && page.contains("sandbox-1"));
    let path = format!("/keys/{id}/revoke");
    assert!(page.contains(&format!("<form method=\"post\" action=\"{path}\">")));
    let foreign = world.request(Method::POST, &path).header("sec-fetch-site", "cross-site");
    assert_eq!(answer(foreign).await.status, 403);
    assert!(world.sandbox.works(&value));
    let clicked = answer(world.request(Method::POST, &path).header("sec-fetch-site", "same-origin")).await;
    assert_eq!((clicked.status, clicked.headers["location"].to_str().unwrap()), (303, "/"));
    assert!(!world.sandbox.works(&value));
    assert!(!world.get("/").await.body.as_str().unwrap().contains(&path));
}

#[tokio::test]
async fn nothing_under_sandbox_and_no_page_shows_a_secret() {
    let directory = Directory::new("secrets");
    let world = World::with(with_credentials(&directory.0)).await;
    let user = world.sandbox.add_user(UserOptions { totp: true, ..UserOptions::default() });
    let (id, value) = world.create(&user, "Some-Key").await.made_key();
    world.me(&value).await;
    let wallet: Vec<u8> = serde_json::from_str(user.credentials.wallet_json()).unwrap();
    let mut secrets = vec![
        value,
        user.credentials.token().to_owned(),
        user.credentials.totp().unwrap().to_owned(),
        user.credentials.wallet_json().to_owned(),
        bs58::encode(&wallet).into_string(),
        bs58::encode(&wallet[32..]).into_string(),
    ];
    let mut shown = Vec::new();
    for path in
        ["/", "/sandbox/keys", "/sandbox/requests", "/sandbox/users", "/sandbox/faults", "/sandbox/clock"]
    {
        shown.push(world.get(path).await.body.to_string());
    }
    let by_hand = world.sandbox.make_key(&user.id, "By-Hand").unwrap();
    secrets.push(by_hand.value);
    for (path, order) in [
        ("/sandbox/keys".to_owned(), json!({"name": "Other-Key"})),
        (format!("/sandbox/keys/{id}/revoke"), json!({})),
        ("/sandbox/users".to_owned(), json!({"credentialsDir": "second"})),
    ] {
        shown.push(world.post(&path, order).await.body.to_string());
    }
    let path = format!("/sandbox/users/{}", user.id);
    shown.push(world.send(Method::PATCH, &path, json!({"totp": false})).await.body.to_string());
    for name in ["wallet.json", "token"] {
        secrets.push(std::fs::read_to_string(directory.0.join("second").join(name)).unwrap());
    }
    for text in shown {
        assert!(!text.is_empty() && !text.contains("bags_sandbox_"));
        assert!(secrets.iter().all(|secret| !text.contains(secret)));
    }
}
