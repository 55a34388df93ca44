//! The program: its files, its one line, its end, and a failure in words.

use std::{os::unix::fs::PermissionsExt, process::Stdio, time::Duration};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
};

use crate::{CREATE, Directory, answer};

#[tokio::test]
async fn the_program_writes_its_users_says_where_it_listens_and_ends_when_asked() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = Directory::new("program");
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_bags-sandbox"))
        .args(["--listen", "127.0.0.1:0", "--users", "2", "--totp", "--limit", "1", "--no-key-id"])
        .arg("--credentials")
        .arg(&directory.0)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let base = line.strip_prefix("bags-sandbox listening on ").unwrap();
    for name in ["wallet.json", "token", "totp", "user-2/wallet.json", "user-2/token", "user-2/totp"] {
        let mode = directory.0.join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let token = std::fs::read_to_string(directory.0.join("user-2/token")).unwrap();
    let body = json!({"token": token, "name": "Some-Key"}).to_string();
    let made = answer(client.post(format!("{base}{CREATE}")).body(body.clone())).await;
    made.made_key();
    assert!(made.body["response"]["apiKey"].get("keyId").is_none());
    assert_eq!(answer(client.post(format!("{base}{CREATE}")).body(body)).await.status, 400);

    let id = child.id().unwrap().to_string();
    // The shell's own command: not every machine has a program for it.
    let kill = ["-c", "kill -TERM \"$0\"", &id];
    let killed = tokio::process::Command::new("sh").args(kill).status().await.unwrap();
    assert!(killed.success());
    let ended = tokio::time::timeout(Duration::from_secs(10), child.wait()).await.unwrap().unwrap();
    assert!(ended.success());
    assert_eq!(lines.next_line().await.unwrap(), None, "one line is all it says");
}

#[tokio::test]
async fn a_taken_address_is_told_with_its_cause() {
    let directory = Directory::new("taken");
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_bags-sandbox"))
        .args(["--listen", &address, "--credentials"])
        .arg(&directory.0)
        .output()
        .await
        .unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with(&format!("bags-sandbox: failed to listen on {address}: ")), "{told}");
}
