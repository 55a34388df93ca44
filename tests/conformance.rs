//! The server in memory that other tests run on (`tests/world/apiserver.rs`) does what the real one does: one list of
//! cases, run against both. Where they differ, the real server is right.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

#[path = "conformance/alone.rs"]
mod alone;
#[path = "world/apiserver.rs"]
mod apiserver;
#[path = "conformance/arbitrary.rs"]
mod arbitrary;
#[path = "conformance/cases.rs"]
mod cases;
mod support;

use std::{fmt::Write, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use apiserver::ApiServer;
use bags_operator::clock::SystemClock;
use cases::{Case, Subject};
use futures::{FutureExt, StreamExt, stream};
use serde_json::json;
use support::Cluster;

/// One case may take so long.
const LIMIT: Duration = Duration::from_secs(60);
/// So many run at once against the real server.
const AT_ONCE: usize = 6;

#[tokio::test(start_paused = true)]
async fn in_memory_server_conforms() {
    let mut differences = Vec::new();
    for case in cases::all() {
        let server = ApiServer::new(Arc::new(SystemClock));
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "case"}});
        server.create(namespace).unwrap();
        differences.extend(run(&case, Subject::in_memory(server, "case")).await);
    }
    none(&differences);
}

#[tokio::test]
async fn real_server_conforms() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let runs = cases::all().into_iter().map(async |case| {
        let namespace = cluster.namespace(&client, "conformance").await;
        let subject = Subject::real(client.clone(), &namespace);
        let difference = run(&case, subject.clone()).await;
        subject.clean().await;
        difference
    });
    let differences: Vec<Option<String>> = stream::iter(runs).buffered(AT_ONCE).collect().await;
    none(&differences.into_iter().flatten().collect::<Vec<_>>());
}

#[test]
fn every_case_has_a_name_of_its_own() {
    let mut names: Vec<&str> = cases::all().iter().map(|case| case.says).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// What was observed, if it is not what was expected.
async fn run(case: &Case, subject: Subject) -> Option<String> {
    // What a case panics with is above; the other cases are run all the same.
    let run = AssertUnwindSafe((case.run)(subject)).catch_unwind();
    let observed = match tokio::time::timeout(LIMIT, run).await {
        Ok(Ok(observed)) => observed,
        Ok(Err(_)) => json!("a panic"),
        Err(_) => json!("nothing, in time"),
    };
    (observed != case.expected)
        .then(|| format!("{}:\n    expected {}\n    observed {observed}", case.says, case.expected))
}

/// All differences together, so that one run shows them all.
fn none(differences: &[String]) {
    let mut said = String::new();
    for difference in differences {
        writeln!(said, "- {difference}").expect("a text takes everything");
    }
    assert!(differences.is_empty(), "{} cases differ:\n{said}", differences.len());
}
