//! No value of a key, no wallet, no token and no secret of one-time passwords comes out anywhere: not in the operator's
//! log at its most talkative, not in events, status, metrics, not in the sandbox's own pages, not in the audit log.
//!
//! The service does its worst meanwhile: it cuts answers in half, puts values where none belong, and repeats the
//! credentials in its error messages.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::collections::{BTreeMap, HashSet};

use bags_operator::{
    api::{ApiKey, BagsAccount},
    sandbox::{Action, FaultRule, UserOptions, When},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::Secret,
    events::v1::Event,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use support::{
    scene::{Scene, Way, slots},
    world::World,
};

/// So many characters in a row of a secret are a leak.
const WINDOW: usize = 12;

/// Every form in which a secret could be written, cut into windows.
#[derive(Default)]
struct Secrets {
    windows: HashSet<Vec<u8>>,
}

impl Secrets {
    /// A text, and the base64 of its bytes at each of the three offsets that they can have in something larger.
    fn add(&mut self, secret: &str) {
        self.add_text(secret.as_bytes());
        self.add_bytes(secret.as_bytes());
    }

    /// Bytes as base64 (at each offset), hex, base58, and as numbers.
    fn add_bytes(&mut self, bytes: &[u8]) {
        for offset in 0..3 {
            let shifted = [&b"   "[..offset], bytes].concat();
            let encoded = STANDARD.encode(shifted);
            let whole = &encoded.as_bytes()[if offset == 0 { 0 } else { 4 }..encoded.len().saturating_sub(4)];
            self.add_text(whole);
        }
        self.add_text(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().as_bytes());
        self.add_text(bs58::encode(bytes).into_string().as_bytes());
        let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
        self.add_text(numbers.join(", ").as_bytes());
    }

    fn add_text(&mut self, text: &[u8]) {
        self.windows.extend(text.windows(WINDOW).map(<[u8]>::to_vec));
    }

    /// Where the first leak is, with what is around it.
    fn leak(&self, text: &str) -> Option<String> {
        let at = text.as_bytes().windows(WINDOW).position(|window| self.windows.contains(window))?;
        Some(around(text, at))
    }
}

fn around(text: &str, at: usize) -> String {
    let begin = text.floor_char_boundary(at.saturating_sub(200));
    text[begin..text.ceil_char_boundary((at + 100).min(text.len()))].to_owned()
}

/// Also the values that nobody has ever seen: those of answers that were cut off.
fn value_of_the_sandbox(text: &str) -> Option<String> {
    let value = |at: usize| {
        let rest = &text.as_bytes()[at + PREFIX.len()..];
        rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count() >= 4
    };
    text.match_indices(PREFIX).map(|(at, _)| at).find(|at| value(*at)).map(|at| around(text, at))
}

/// How values of the sandbox begin.
const PREFIX: &str = "bags_sandbox_";

const NAME: &str = "web-dashboard";

#[tokio::test]
async fn no_secret_comes_out_anywhere() {
    let alone = World::alone(&["--log=trace"]).await;
    let world = &alone.world;
    let sandbox = &world.sandbox.sandbox;
    let totp = UserOptions { totp: true, ..UserOptions::default() };
    let scenes = [
        Scene::new(world, Way::Token, UserOptions::default()).await,
        Scene::new(world, Way::Wallet, totp.clone()).await,
        Scene::new(world, Way::WalletAndToken, totp).await,
    ];
    let mut secrets = Secrets::default();
    for scene in &scenes {
        remember_credentials(&mut secrets, scene);
        scene.apply("first-come", json!({})).await;
        scene.ready("first-come").await;
    }

    // The service at its worst.
    let [token, wallet, both] = &scenes;
    for (scene, route, action) in [
        (token, "/agent/dev/keys/create", Action::Malformed),
        (token, "/agent/dev/keys/create", Action::Truncated),
        (token, "/agent/dev/keys/create", misplaced_value(scene_value(token).await)),
        (token, "/agent/dev/keys/create", echo(token.user.credentials.token())),
        (wallet, "/agent/v2/auth/init", echo(wallet.user.credentials.wallet_json())),
        (wallet, "/agent/v2/auth/callback", echo(wallet.user.credentials.totp().unwrap())),
        (both, "/agent/dev/keys", misplaced_value(scene_value(both).await)),
        (both, "/agent/v2/auth/callback", Action::Malformed),
    ] {
        let number = sandbox.add_fault(FaultRule::once(route, action)).unwrap();
        let name = format!("unlucky-{number}");
        scene.apply(&name, json!({})).await;
        scene.ready(&name).await;
        sandbox.clear_faults();
    }
    wrong_credentials(token).await;
    a_secret_is_broken(both).await;
    wallet.delete_now("first-come").await;
    token.delete_now("first-come").await;
    token.account_where("without that slot", |account| slots(account) < 6).await;

    for scene in &scenes {
        remember_values(&mut secrets, scene.secrets()).await;
        remember_values(&mut secrets, scene.keystore()).await;
    }
    let mut all = outputs(world).await;
    let sample = serde_json::to_string(&both.secrets().get("first-come").await.unwrap()).unwrap();
    assert!(secrets.leak(&sample).is_some(), "the search finds what is there");
    assert!(all["log"].len() > 1_000_000, "the log is at its most talkative");
    // What a policy quotes stands in the audit log, whoever was refused.
    policies_quote_what_is_there(token).await;
    remember_values(&mut secrets, token.keystore()).await;
    all.extend(outputs(world).await.into_iter().filter(|(name, _)| *name != "audit log"));
    for (name, text) in &all {
        assert!(!text.is_empty(), "{name} was not looked at");
        // Not with assert_eq: its message would be the leak's next output.
        if let Some(leak) = secrets.leak(text).or_else(|| value_of_the_sandbox(text)) {
            panic!("a secret is in {name}: {leak}");
        }
    }
    for scene in scenes {
        scene.end().await;
    }
}

async fn scene_value(scene: &Scene<'_>) -> String {
    scene.value("first-come").await
}

/// An answer with a value where none belongs.
fn misplaced_value(value: String) -> Action {
    let body =
        json!({"success": true, "response": {"apiKey": {"key": [value.clone()], "keyId": {"key": value}}}});
    Action::Answer { status: 200, headers: BTreeMap::new(), body, when: When::Before }
}

/// A refusal that repeats what it was given.
fn echo(secret: &str) -> Action {
    let error = format!("Invalid request: {secret}");
    let body = json!({"success": false, "error": error.clone(), "response": error});
    Action::Answer { status: 400, headers: BTreeMap::new(), body, when: When::Before }
}

fn remember_credentials(secrets: &mut Secrets, scene: &Scene<'_>) {
    let credentials = &scene.user.credentials;
    secrets.add(credentials.token());
    secrets.add(credentials.wallet_json());
    let wallet: Vec<u8> = serde_json::from_str(credentials.wallet_json()).unwrap();
    secrets.add_bytes(&wallet);
    secrets.add_bytes(&wallet[..32]);
    if let Some(totp) = credentials.totp() {
        secrets.add(totp);
    }
}

/// Every value in a namespace's Secrets that came from the sandbox.
async fn remember_values(secrets: &mut Secrets, api: Api<Secret>) {
    for secret in api.list(&ListParams::default()).await.unwrap() {
        for bytes in secret.data.unwrap_or_default().into_values() {
            let text = String::from_utf8(bytes.0).unwrap_or_default();
            if let Some(value) = text.strip_prefix(PREFIX) {
                secrets.add(value);
            }
        }
    }
}

/// Credentials that cannot be read, and such that Bags refuses.
async fn wrong_credentials(scene: &Scene<'_>) {
    let mut token = scene.user.credentials.token().to_owned();
    token.replace_range(token.len() - 4.., "AAAA");
    scene.put_credentials(&BTreeMap::from([("token".to_owned(), token)])).await;
    scene.apply(NAME, json!({})).await;
    scene.not_ready(NAME, "CredentialsRefused").await;
    let broken = format!("{}\u{7f}\u{7f}", scene.user.credentials.token());
    scene.put_credentials(&BTreeMap::from([("token".to_owned(), broken)])).await;
    scene.not_ready(NAME, "CredentialsUnreadable").await;
    scene.put_credentials(&scene.credentials()).await;
    scene.ready(NAME).await;
}

/// The value's own Secret is taken away, and somebody else's stands in its place.
async fn a_secret_is_broken(scene: &Scene<'_>) {
    scene.apply(NAME, json!({})).await;
    scene.ready(NAME).await;
    scene.secrets().delete(NAME, &DeleteParams::default()).await.unwrap();
    let taken =
        serde_json::from_value(json!({"metadata": {"name": NAME}, "stringData": {"theirs": "theirs"}}));
    scene.secrets().create(&Default::default(), &taken.unwrap()).await.unwrap();
    // Whatever makes the operator look at it.
    scene.patch(NAME, json!({"spec": {"purpose": "looked at again"}})).await;
    scene.not_ready(NAME, "SecretConflict").await;
}

/// A policy refuses every change and removal of a Secret that holds something, in words that quote it: in the middle of a rotation, and
/// while a key is left to people.
async fn policies_quote_what_is_there(scene: &Scene<'_>) {
    scene.apply("left", json!({"deletionPolicy": "Orphan"})).await;
    scene.apply("rotated", json!({})).await;
    for name in ["left", "rotated"] {
        scene.ready(name).await;
    }
    let client = scene.client.clone();
    let options = PostParams::default();
    let secrets = json!({
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE", "DELETE"], "resources": ["secrets"],
    });
    let quoted = "oldObject.data.map(field, string(oldObject.data[field])).join(' ')";
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": {"name": "quotes"},
        "spec": {
            "matchConstraints": {"resourceRules": [secrets]},
            "matchConditions": [{"name": "holds-something", "expression": "has(oldObject.data)"}],
            "validations": [{"expression": "false", "message": "no", "messageExpression": quoted}],
        },
    }))
    .unwrap();
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
        "metadata": {"name": "quotes"}, "spec": {"policyName": "quotes", "validationActions": ["Deny"]},
    }))
    .unwrap();
    let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone());
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client);
    policies.create(&options, &policy).await.unwrap();
    bindings.create(&options, &binding).await.unwrap();
    let tried = DeleteParams { dry_run: true, ..DeleteParams::default() };
    let mut pause = tokio::time::interval(std::time::Duration::from_millis(100));
    let refused = async {
        loop {
            pause.tick().await;
            if let Err(error) = scene.secrets().delete("rotated", &tried).await {
                return error.to_string();
            }
        }
    };
    let said = tokio::time::timeout(std::time::Duration::from_secs(60), refused)
        .await
        .expect("the policy is in force");
    let value = scene.value("rotated").await;
    assert!([STANDARD.encode(&value), value].iter().any(|it| said.contains(it)), "it quotes nothing: {said}");
    scene.patch("rotated", json!({"metadata": {"annotations": {"keys.bags.fm/rotate": "first"}}})).await;
    scene.delete("left").await;
    let refused = |key: &ApiKey| serde_json::to_string(&key.status).unwrap().contains("422 Invalid");
    for name in ["rotated", "left"] {
        scene.key(name, "which says what the API server refuses", refused).await;
    }
    bindings.delete("quotes", &DeleteParams::default()).await.unwrap();
    policies.delete("quotes", &DeleteParams::default()).await.unwrap();
    scene.gone("left").await;
}

/// Everything that anybody but the owner of a Secret can read.
async fn outputs(world: &World) -> BTreeMap<&'static str, String> {
    let client = world.cluster.client().await;
    let parameters = ListParams::default();
    let text = |objects: Result<Value, _>| {
        let objects: Result<Value, serde_json::Error> = objects;
        objects.unwrap().to_string()
    };
    let keys = Api::<ApiKey>::all(client.clone()).list(&parameters).await.unwrap().items;
    let accounts = Api::<BagsAccount>::all(client.clone()).list(&parameters).await.unwrap().items;
    let events = Api::<Event>::all(client).list(&parameters).await.unwrap().items;
    let page = async |path: &str| reqwest::get(world.sandbox.url(path)).await.unwrap().text().await.unwrap();
    let audit = world.cluster.audit_log.as_ref().map(|log| std::fs::read_to_string(log).unwrap());
    BTreeMap::from([
        ("log", world.launch.log()),
        ("metrics", world.operator().metrics().await),
        ("ApiKeys", text(serde_json::to_value(keys))),
        ("BagsAccounts", text(serde_json::to_value(accounts))),
        ("events", text(serde_json::to_value(events))),
        ("/", page("/").await),
        ("/sandbox/keys", page("/sandbox/keys").await),
        ("/sandbox/requests", page("/sandbox/requests?limit=100000").await),
        ("/sandbox/users", page("/sandbox/users").await),
        ("/sandbox/faults", page("/sandbox/faults").await),
        ("audit log", audit.unwrap_or_else(|| "not that of this cluster".to_owned())),
    ])
}
