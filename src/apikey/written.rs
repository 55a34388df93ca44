//! ApiKeys as this process last wrote them, or read them after a conflict, until the watch shows as much: else each run
//! that follows would start from an older version, lose its next write to a conflict, and read it all again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::ResourceExt;

use crate::{api::ApiKey, env::version};

/// Versions that the watch has not shown yet, by uid.
#[derive(Default)]
pub struct Written(Mutex<HashMap<String, Arc<ApiKey>>>);

impl Written {
    /// The newer one of what the watch shows and what was written or read since.
    #[must_use]
    pub fn newest(&self, seen: Arc<ApiKey>) -> Arc<ApiKey> {
        let uid = seen.uid().unwrap_or_default();
        let mut written = self.lock();
        match written.get(&uid) {
            Some(ours) if version(&**ours) > version(&*seen) => ours.clone(),
            Some(_) => {
                written.remove(&uid);
                seen
            }
            None => seen,
        }
    }

    /// Remembers what was written or read.
    pub fn note(&self, key: &Arc<ApiKey>) {
        self.lock().insert(key.uid().unwrap_or_default(), key.clone());
    }

    /// Forgets an ApiKey that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<ApiKey>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(version: &str) -> Arc<ApiKey> {
        Arc::new(
            serde_json::from_value(serde_json::json!({
                "apiVersion": "keys.bags.fm/v1alpha1", "kind": "ApiKey",
                "metadata": {"name": "web", "namespace": "shop", "uid": "uid-0", "resourceVersion": version},
                "spec": {"accountRef": {"name": "main"}, "environment": "production"},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn a_write_counts_until_the_watch_shows_it_or_more() {
        let written = Written::default();
        written.note(&key("10"));
        assert_eq!(written.newest(key("9")).resource_version().as_deref(), Some("10"));
        assert_eq!(written.newest(key("11")).resource_version().as_deref(), Some("11"));
        assert_eq!(
            written.newest(key("9")).resource_version().as_deref(),
            Some("9"),
            "it was forgotten by then"
        );
    }
}
