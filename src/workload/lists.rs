//! Lists of pods, as this process last saw them: shared by the ApiKeys of a namespace, and kept hardly longer than one of them
//! has a switch or a deletion open.

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

    /// Drops the namespace's list, as one of its ApiKeys is gone: the next one that needs it lists anew.
    pub fn forget(&self, namespace: &str) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(namespace);
    }

    /// Drops the namespace's list, unless it is young enough to serve another ApiKey there, or is under way.
    pub fn forget_old(&self, namespace: &str, now: Instant, young: Duration) {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_young = |(at, _): &(Instant, Arc<Vec<Pod>>)| now.saturating_duration_since(*at) <= young;
        // Whoever lists holds the place.
        let is_wanted = |place: &Arc<tokio::sync::Mutex<Seen>>| {
            place.try_lock().map_or(true, |seen| seen.as_ref().is_some_and(is_young))
        };
        if !all.get(namespace).is_some_and(is_wanted) {
            all.remove(namespace);
        }
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
    use crate::{
        clock::SystemClock,
        fixtures::{server, slow_server},
    };

    fn nothing() -> (u16, serde_json::Value) {
        (200, json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": []}))
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_others_may_share_stays_and_an_older_one_goes() {
        let (young, lists) = (Duration::from_secs(7), PodLists::default());
        let (client, asked) = server(|_, _| nothing());
        let get = || lists.get(client.clone(), &SystemClock, "shop", young);
        get().await.unwrap();
        lists.forget_old("shop", SystemClock.monotonic(), young);
        get().await.unwrap();
        assert_eq!(asked.lock().unwrap().len(), 1);
        tokio::time::advance(young + Duration::from_secs(1)).await;
        lists.forget_old("shop", SystemClock.monotonic(), young);
        assert!(lists.seen.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_under_way_is_not_begun_a_second_time() {
        let (asked, lists) = (Arc::new(AtomicUsize::new(0)), PodLists::default());
        let counted = asked.clone();
        let client = slow_server(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            async {
                let _ = tokio::time::timeout(Duration::from_secs(1), std::future::pending::<()>()).await;
                nothing()
            }
        });
        let get = || lists.get(client.clone(), &SystemClock, "shop", Duration::from_secs(7));
        let idle = async { lists.forget_old("shop", SystemClock.monotonic(), Duration::from_secs(7)) };
        // In this order.
        let (first, (), second) = tokio::join!(biased; get(), idle, get());
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

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
                nothing()
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
