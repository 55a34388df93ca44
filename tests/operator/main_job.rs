//! An ApiKey becomes a key that works in a Secret.

use bags_operator::sandbox::UserOptions;
use kube::ResourceExt;
use serde_json::json;

use crate::support::{
    scene::{Scene, Way, holds, slots, text},
    world::World,
};

async fn a_key_arrives(way: Way, options: UserOptions) {
    let world = World::shared().await;
    let scene = Scene::new(world, way, options).await;
    scene.apply("web-dashboard", json!({"purpose": "the main web application"})).await;
    let key = scene.ready("web-dashboard").await;
    scene.working_value("web-dashboard").await;
    let secret = scene.secrets().get("web-dashboard").await.unwrap();
    assert_eq!(text(&secret, "BAGS_BASE_URL"), world.sandbox.base_url());
    assert!(secret.owner_references().is_empty(), "foreground deletion would take the Secret first");

    let made = scene.made();
    assert_eq!(made.len(), 1, "{made:?}");
    let status = key.status.as_ref().unwrap();
    let current = status.current.as_ref().unwrap();
    assert_eq!(current.key_id.as_deref(), Some(made[0].id.as_str()));
    assert_eq!((current.revision, &current.key_name), (1, &made[0].name));
    // <keyName>-<cluster>-<attempt>
    let name = made[0].name.strip_prefix("Production-Web-Dashboard-").expect("it says what it is for");
    let (cluster, attempt) = name.split_once('-').unwrap();
    assert_eq!((cluster.len(), attempt), (8, current.attempt.as_str()));
    assert_eq!(status.binding.as_ref().map(|binding| binding.name.as_str()), Some("web-dashboard"));
    assert_eq!(status.observed_generation, key.metadata.generation);
    for (kind, expected) in [("Ready", "True"), ("QuotaAvailable", "True"), ("SecretSynced", "True")] {
        assert!(holds(&key, kind, expected), "{kind} is not {expected}: {:#?}", status.conditions);
    }
    for kind in ["Reconciling", "Stalled"] {
        assert!(!holds(&key, kind, "True"), "{kind}: {:#?}", status.conditions);
    }
    let published = scene.events("web-dashboard", "KeyPublished").await;
    assert_eq!(published.len(), 1, "{published:?}");

    let account = scene.account_where("Ready", |account| holds(account, "Ready", "True")).await;
    assert_eq!(slots(&account), 1);
    let slot = &account.status.as_ref().unwrap().slots[0];
    assert_eq!((slot.state.as_str(), slot.published), ("Live", Some(1)));
    assert_eq!(
        (slot.owner.name.as_str(), slot.key_use.as_str()),
        ("web-dashboard", "production/web-dashboard")
    );
    assert_eq!(account.status.as_ref().unwrap().user.as_deref(), Some(scene.user.id.as_str()));
    assert_eq!(scene.stored().await.len(), 1, "one keystore Secret for the one key");
    scene.end().await;
}

#[tokio::test]
async fn a_key_made_with_a_token_arrives_in_its_secret_and_works() {
    a_key_arrives(Way::Token, UserOptions::default()).await;
}

#[tokio::test]
async fn a_key_made_with_a_wallet_arrives_in_its_secret_and_works() {
    a_key_arrives(Way::Wallet, UserOptions::default()).await;
}

#[tokio::test]
async fn a_key_made_with_a_wallet_and_a_second_factor_arrives_in_its_secret_and_works() {
    a_key_arrives(Way::Wallet, UserOptions { totp: true, ..UserOptions::default() }).await;
}

#[tokio::test]
async fn two_keys_made_with_a_second_factor_whose_codes_are_taken_once_are_made_with_two_codes() {
    let world = World::shared().await;
    let options = UserOptions { totp: true, totp_single_use: true, ..UserOptions::default() };
    let scene = Scene::new(world, Way::Wallet, options).await;
    for name in ["web", "worker"] {
        scene.apply(name, json!({})).await;
    }
    for name in ["web", "worker"] {
        scene.ready(name).await;
        assert_eq!(scene.notes(name, "CredentialsRefused").await, Vec::<String>::new());
    }
    assert_eq!(scene.requests_to("/agent/v2/auth/callback"), 4, "signature and code of each");
    scene.end().await;
}

#[tokio::test]
async fn a_key_made_with_a_wallet_beside_a_token_arrives_in_its_secret_and_works() {
    a_key_arrives(Way::WalletAndToken, UserOptions::default()).await;
}

#[tokio::test]
async fn kubectl_tells_the_story_in_its_columns() {
    let world = World::shared().await;
    let scene = Scene::new(world, Way::Token, UserOptions::default()).await;
    scene.apply("web-dashboard", json!({})).await;
    scene.ready("web-dashboard").await;
    let key_id = scene.made()[0].id.clone();
    let rows = |arguments: &[&str]| {
        let kubectl = std::process::Command::new(&world.cluster.kubectl)
            .arg(format!("--kubeconfig={}", world.cluster.kubeconfig.display()))
            .args(arguments)
            .output()
            .unwrap();
        assert!(kubectl.status.success(), "{}", String::from_utf8_lossy(&kubectl.stderr));
        String::from_utf8(kubectl.stdout).unwrap()
    };
    let table = rows(&["get", "bkey", "-n", &scene.name]);
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let header = lines.next().unwrap();
    assert_eq!(
        header,
        [
            "NAME",
            "ACCOUNT",
            "ENVIRONMENT",
            "SECRET",
            "READY",
            "REASON",
            "LAST",
            "USED",
            "NEXT",
            "ROTATION",
            "AGE"
        ]
    );
    let row = lines.next().unwrap();
    assert_eq!(row[..6], ["web-dashboard", &scene.name, "production", "web-dashboard", "True", "Issued"]);
    let wide = rows(&["get", "apikeys", "-n", &scene.name, "-o", "wide"]);
    assert!(wide.contains(&key_id) && wide.contains("Production-Web-Dashboard-"), "{wide}");
    scene.account_where("Ready", |account| holds(account, "Ready", "True")).await;
    let accounts = rows(&["get", "bacct", &scene.name]);
    let row: Vec<_> = accounts.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        (row[0], row[1], &row[3..8]),
        (scene.name.as_str(), "True", ["1", "10", "0", "0", "9"].as_slice()),
        "{accounts}"
    );
    scene.end().await;
}
