//! A webhook that is asked about ApiKeys: beside the real server a program that listens, in the one in memory a hook.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Json, Router, routing::post};
use bags_operator::server::{Limits, Server};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use tokio::task::JoinSet;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};
use tokio_util::sync::CancellationToken;

use super::{
    Api, DeleteParams, Patch, PatchParams, PostParams, ResourceExt, Subject, Table, Value, from, json, key,
    said,
};
use crate::apiserver::AdmissionVerdict;

/// As long as no ApiKey of this name is refused, the server does not know the webhook yet.
const PROBE: &str = "probe";

pub(super) fn add(table: &mut Table) {
    table.case(
        "a webhook is asked once about what would be stored, and about nothing else than creations",
        async |subject: Subject| {
            let asked = subject.ask_about_keys().await;
            let (create, dry_run) =
                (PostParams::default(), PostParams { dry_run: true, ..PostParams::default() });
            let keys = subject.keys();
            let tried = keys.create(&dry_run, &from(key("tried"))).await;
            let made = keys.create(&create, &from(key("web"))).await.unwrap();
            let same = asked.uids().contains(&made.uid().unwrap());
            let taken = keys.create(&create, &from(key("web"))).await;
            let mut unqualified = key("unqualified");
            unqualified["metadata"]["labels"] = json!({"two words": ""});
            let invalid = keys.create(&create, &from(unqualified)).await;
            let mut generated = key("");
            generated["metadata"] = json!({"generateName": "made-"});
            let generated = keys.create(&create, &from(generated)).await.unwrap();
            let named = asked.names().contains(&generated.name_any());
            let written = keys.replace("web", &create, &made).await;
            let patch = Patch::Merge(json!({"metadata": {"labels": {"team": "red"}}}));
            let patched = keys.patch("web", &PatchParams::default(), &patch).await;
            let deleted = keys.delete("web", &DeleteParams::default()).await;
            let told = asked.told(&[&generated.name_any()]);
            asked.end().await;
            json!([
                said(&tried),
                same,
                said(&taken),
                said(&invalid),
                named,
                [said(&written), said(&patched), said(&deleted)],
                told
            ])
        },
        json!([
            "done",
            true,
            "409 AlreadyExists",
            "422 Invalid",
            true,
            ["done", "done", "done"],
            [
                "tried, dry run, with uid, generation 1",
                "web, with uid, generation 1",
                "web, with uid, generation 1",
                "(generated), with uid, generation 1",
            ]
        ]),
    );
    table.case(
        "what a webhook says is passed on, with its name",
        async |subject: Subject| {
            let asked = subject.ask_about_keys().await;
            let mut answers = Vec::new();
            for name in ["no", "later"] {
                let answer = subject.post(&subject.keys_path(), &key(name)).await;
                let kept = subject.keys().get_opt(name).await.unwrap().is_some();
                answers.push(json!([answer.said(), answer.body["message"], kept]));
            }
            asked.end().await;
            json!(answers)
        },
        json!([
            [
                "403 Forbidden",
                "admission webhook \"test.keys.bags.fm\" denied the request: not this one",
                false
            ],
            [
                "429 TooManyRequests",
                "admission webhook \"test.keys.bags.fm\" denied the request: not now",
                false
            ],
        ]),
    );
}

/// A webhook that is asked, until it is ended.
struct Asked {
    seen: Arc<Mutex<Vec<Question>>>,
    /// Of the real server.
    configuration: Option<(Api<ValidatingWebhookConfiguration>, String, JoinSet<()>)>,
}

struct Question {
    name: String,
    dry_run: bool,
    object: Value,
}

impl Question {
    fn verdict(&self) -> AdmissionVerdict {
        let deny = |code, message: &str| AdmissionVerdict::Deny { code, message: message.to_owned() };
        match self.name.as_str() {
            "no" | PROBE => deny(403, "not this one"),
            "later" => deny(429, "not now"),
            _ => AdmissionVerdict::Allow,
        }
    }

    fn uid(&self) -> String {
        self.object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
    }
}

impl Asked {
    fn questions<T>(&self, of_each: impl Fn(&Question) -> T) -> Vec<T> {
        self.seen.lock().unwrap().iter().filter(|question| question.name != PROBE).map(of_each).collect()
    }

    fn uids(&self) -> Vec<String> {
        self.questions(Question::uid)
    }

    fn names(&self) -> Vec<String> {
        self.questions(|question| question.name.clone())
    }

    /// Each question in a few words; names that the server made are not the same twice.
    fn told(&self, generated: &[&str]) -> Vec<String> {
        self.questions(|question| {
            let mut said = match generated.contains(&question.name.as_str()) {
                true => "(generated)".to_owned(),
                false => question.name.clone(),
            };
            if question.dry_run {
                said += ", dry run";
            }
            if !question.uid().is_empty() {
                said += ", with uid";
            }
            let metadata = &question.object["metadata"];
            said += &format!(", generation {}", metadata["generation"]);
            if !metadata["resourceVersion"].is_null() {
                said += ", with version";
            }
            said
        })
    }

    async fn end(self) {
        if let Some((configurations, name, _)) = self.configuration {
            configurations.delete(&name, &DeleteParams::default()).await.unwrap();
        }
    }
}

impl Subject {
    /// Has a webhook asked before an ApiKey is made in the namespace.
    async fn ask_about_keys(&self) -> Asked {
        let seen = Arc::<Mutex<Vec<Question>>>::default();
        let Some(server) = &self.server else { return self.ask_over_the_network(seen).await };
        let (asked, namespace) = (seen.clone(), self.namespace.clone());
        server.set_admission(move |request| {
            if request.resource != "apikeys" || request.namespace != namespace {
                return AdmissionVerdict::Allow;
            }
            let question = Question {
                name: request.name.to_owned(),
                dry_run: request.dry_run,
                object: request.object.clone(),
            };
            let verdict = question.verdict();
            asked.lock().unwrap().push(question);
            verdict
        });
        Asked { seen, configuration: None }
    }

    async fn ask_over_the_network(&self, seen: Arc<Mutex<Vec<Question>>>) -> Asked {
        let (address, bundle, running) = listen(seen.clone()).await;
        let configurations: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let configuration = json!({
            "metadata": {"name": self.namespace},
            "webhooks": [{
                "name": "test.keys.bags.fm",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "NoneOnDryRun",
                "failurePolicy": "Fail",
                "clientConfig": {"url": format!("https://{address}/"), "caBundle": bundle},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}},
                "rules": [{
                    "apiGroups": ["keys.bags.fm"], "apiVersions": ["v1alpha1"], "operations": ["CREATE"],
                    "resources": ["apikeys"],
                }],
            }],
        });
        configurations.create(&PostParams::default(), &from(configuration)).await.unwrap();
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        while self.keys().create(&dry_run, &from(key(PROBE))).await.is_ok() {}
        Asked { seen, configuration: Some((configurations, self.namespace.clone(), running)) }
    }
}

/// A webhook on loopback: its address and, in base64, its certificate.
async fn listen(seen: Arc<Mutex<Vec<Question>>>) -> (SocketAddr, k8s_openapi::ByteString, JoinSet<()>) {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let answer = async move |Json(review): Json<Value>| {
        let request = &review["request"];
        let question = Question {
            name: request["name"].as_str().unwrap_or_default().to_owned(),
            dry_run: request["dryRun"] == true,
            object: request["object"].clone(),
        };
        let verdict = question.verdict();
        seen.lock().unwrap().push(question);
        let mut response = json!({"uid": request["uid"], "allowed": true});
        if let AdmissionVerdict::Deny { code, message } = verdict {
            let reason = if code == 429 { "TooManyRequests" } else { "Forbidden" };
            response["allowed"] = json!(false);
            response["status"] = json!({"code": code, "reason": reason, "message": message});
        }
        Json(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
    };
    let limits = Limits {
        connections: 64,
        first_request: Duration::from_secs(60),
        idle: Duration::from_mins(5),
        lifetime: Duration::from_hours(1),
    };
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = server.address();
    let mut running = JoinSet::new();
    let router = Router::new().route("/", post(answer));
    running.spawn(server.serve(
        router,
        limits,
        Some(TlsAcceptor::from(Arc::new(tls))),
        CancellationToken::new(),
    ));
    (address, k8s_openapi::ByteString(certified.cert.pem().into_bytes()), running)
}
