//! Plain Secrets as the baseline, and a watch that says when Secrets are seen.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
};

/// Label of every Secret that a bench waits for.
pub(crate) const LABEL: &str = "bench";
/// Requests under way at once where many objects are made.
pub(crate) const CLIENTS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(600);

/// Sees Secrets with one value of the label, once they hold something.
pub(crate) struct Seen {
    events: UnboundedReceiver<(String, Instant)>,
    _task: JoinSet<()>,
}

impl Seen {
    /// Begins to watch; returns when the watch is established.
    pub(crate) async fn begin(client: Client, value: &str) -> Self {
        let config = watcher::Config::default().labels(&format!("{LABEL}={value}"));
        let (send, mut events) = unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut stream = watcher(Api::<Secret>::all(client), config).default_backoff().boxed();
            while let Some(event) = stream.next().await {
                let at = Instant::now();
                let name = match event {
                    Ok(watcher::Event::Apply(secret))
                        if secret.data.as_ref().is_some_and(|data| !data.is_empty()) =>
                    {
                        path(&secret)
                    }
                    Ok(watcher::Event::InitDone) => String::new(),
                    Ok(_) => continue,
                    Err(error) => {
                        eprintln!("the watch on Secrets failed: {error}");
                        continue;
                    }
                };
                if send.send((name, at)).is_err() {
                    return;
                }
            }
        });
        let established = events.recv().await.expect("the watch begins");
        assert!(established.0.is_empty());
        Self { events, _task: task }
    }

    /// When this Secret was seen; others are passed over.
    pub(crate) async fn one(&mut self, wanted: &str) -> Instant {
        loop {
            let (name, at) = self.next().await;
            if name == wanted {
                return at;
            }
        }
    }

    /// When each of so many Secrets was first seen.
    pub(crate) async fn many(&mut self, count: usize) -> HashMap<String, Instant> {
        let mut seen = HashMap::new();
        while seen.len() < count {
            let (name, at) = self.next().await;
            seen.entry(name).or_insert(at);
        }
        seen
    }

    async fn next(&mut self) -> (String, Instant) {
        let next = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        next.expect("every Secret is there within ten minutes").expect("the watch goes on")
    }
}

fn path(secret: &Secret) -> String {
    format!("{}/{}", secret.namespace().unwrap_or_default(), secret.name_any())
}

/// Makes a Secret like those that the operator makes.
pub(crate) async fn create_plain(client: &Client, namespace: &str, name: &str) {
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(LABEL.to_owned(), "plain".to_owned())])),
            ..ObjectMeta::default()
        },
        string_data: Some(BTreeMap::from([
            ("BAGS_API_KEY".to_owned(), "value-one-for-tests-of-the-usual-length-of-a-key".to_owned()),
            ("BAGS_BASE_URL".to_owned(), "https://bags.test/api/v1".to_owned()),
        ])),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &secret).await.unwrap();
}

/// How long it takes to make so many plain Secrets, until the last one is seen.
pub(crate) async fn plain_burst(client: &Client, namespace: &str, count: usize) -> Duration {
    let mut seen = Seen::begin(client.clone(), "plain").await;
    let begun = Instant::now();
    let creations = stream::iter(0..count).for_each_concurrent(CLIENTS, |number| async move {
        create_plain(client, namespace, &format!("plain-{number}")).await;
    });
    let (all, ()) = tokio::join!(seen.many(count), creations);
    let last = all.values().max().copied().unwrap_or(begun);
    last.duration_since(begun)
}
