//! Lists of pods, as this process last saw them: shared by the ApiKeys of a namespace, and kept only while one of them has
//! a switch or a deletion open.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::Client;
use tokio::time::Instant;

use super::pod::{self, Pod};
use crate::{clock::Clock, env::CallError};

/// The unfinished pods of a namespace at one moment.
type Seen = Option<(Instant, Arc<Vec<Pod>>)>;

/// The last lists, by namespace.
#[derive(Default)]
pub struct PodLists(Mutex<HashMap<String, Arc<tokio::sync::Mutex<Seen>>>>);

impl PodLists {
    /// The unfinished pods of a namespace, as a list shows them that was asked for at most `max_age` ago. Whoever asks while
    /// one is under way waits for it.
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
        // Whoever wants a new one has none that was under way before.
        let arrived = clock.monotonic();
        let mut seen = place.lock().await;
        if let Some((at, pods)) = &*seen
            && (*at > arrived || !max_age.is_zero() && arrived.saturating_duration_since(*at) <= max_age)
        {
            return Ok(pods.clone());
        }
        let at = clock.monotonic();
        let pods = Arc::new(pod::list(client, namespace).await?);
        *seen = Some((at, pods.clone()));
        Ok(pods)
    }

    /// Nobody in the namespace needs it any more; whoever does lists anew.
    pub fn forget(&self, namespace: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(namespace);
    }

    fn place(&self, namespace: &str) -> Arc<tokio::sync::Mutex<Seen>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(namespace.to_owned()).or_default().clone()
    }
}
