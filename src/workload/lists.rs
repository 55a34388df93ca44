//! Lists of pods, as this process last saw them: shared by the ApiKeys of a namespace, and kept only while one of them has
//! a switch or a deletion open.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::Client;
use tokio::{sync::Semaphore, time::Instant};

use super::pod::{self, Pod};
use crate::{clock::Clock, env::CallError};

/// The unfinished pods of a namespace at one moment.
type Seen = Option<(Instant, Arc<Vec<Pod>>)>;

/// At most this many namespaces are listed at the same time: a page of large pods takes tens of megabytes while it is read.
const AT_ONCE: usize = 3;

/// The last lists, by namespace.
pub struct PodLists {
    seen: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Seen>>>>,
    turns: Semaphore,
}

impl Default for PodLists {
    fn default() -> Self {
        Self { seen: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }
}

impl PodLists {
    /// The unfinished pods of a namespace, from a list that was begun at most `max_age` ago; zero: from one begun after this
    /// call. A caller that comes while a list of the namespace is under way waits for it.
    ///
    /// # Errors
    /// When the API server does not answer, or does not let the operator list pods.
    pub async fn get(
        &self,
        client: Client,
        clock: &dyn Clock,
        namespace: &str,
        max_age: Duration,
    ) -> Result<Arc<Vec<Pod>>, CallError> {
        let place = self.place(namespace);
        // A list that was under way before this call may be older than the caller allows.
        let arrived = clock.monotonic();
        let mut seen = place.lock().await;
        if let Some((at, pods)) = &*seen
            && (*at > arrived || !max_age.is_zero() && arrived.saturating_duration_since(*at) <= max_age)
        {
            return Ok(pods.clone());
        }
        // The semaphore is never closed, so every waiter gets a turn.
        let turn = self.turns.acquire().await;
        let at = clock.monotonic();
        let pods = Arc::new(pod::list(client, namespace).await?);
        drop(turn);
        *seen = Some((at, pods.clone()));
        Ok(pods)
    }

    /// Drops the namespace's list: no ApiKey there needs one any more, and the next one that does lists anew.
    pub fn forget(&self, namespace: &str) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(namespace);
    }

    fn place(&self, namespace: &str) -> Arc<tokio::sync::Mutex<Seen>> {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(namespace.to_owned()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;
    use crate::{clock::SystemClock, fixtures::slow_server};

    #[tokio::test(start_paused = true)]
    async fn however_many_namespaces_are_looked_at_few_are_read_at_the_same_time() {
        let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (now, peak) = (open.clone(), most.clone());
        let client = slow_server(move |_| {
            let (now, peak) = (now.clone(), peak.clone());
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                let _ = tokio::time::timeout(Duration::from_secs(1), std::future::pending::<()>()).await;
                now.fetch_sub(1, Ordering::Relaxed);
                (200, json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": []}))
            }
        });
        let lists = PodLists::default();
        let namespaces: Vec<String> = (0..32).map(|n| format!("shop-{n}")).collect();
        let looks =
            namespaces.iter().map(|name| lists.get(client.clone(), &SystemClock, name, Duration::ZERO));
        let seen = futures::future::join_all(looks).await;
        assert!(seen.iter().all(Result::is_ok));
        assert_eq!((most.load(Ordering::Relaxed), open.load(Ordering::Relaxed)), (AT_ONCE, 0));
    }
}
