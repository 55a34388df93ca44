//! ApiKeys as this process last wrote them, or read them after a conflict, until the watch shows that version or a newer one.
//! Otherwise each following run would start from an older version, lose its next write to a conflict, and read the ApiKey
//! again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::ResourceExt;

use crate::{api::ApiKey, env::version};

/// Versions that the watch has not shown yet, by uid.
#[derive(Default)]
pub struct Written(Mutex<HashMap<String, Version>>);

/// What is known of an ApiKey.
struct Version {
    key: Arc<ApiKey>,
    /// A write at this version lost a conflict: there is a newer one, which nobody has read yet.
    beaten: bool,
}

impl Written {
    /// The newer one of what the watch shows and what was written or read since.
    #[must_use]
    pub fn newest(&self, seen: Arc<ApiKey>) -> Arc<ApiKey> {
        let uid = seen.uid().unwrap_or_default();
        let mut written = self.lock();
        match written.get(&uid) {
            Some(ours) if version(&*ours.key) > version(&*seen) => ours.key.clone(),
            Some(ours) if ours.beaten && version(&*ours.key) == version(&*seen) => seen,
            Some(_) => {
                written.remove(&uid);
                seen
            }
            None => seen,
        }
    }

    /// Remembers what was written or read.
    pub fn note(&self, key: &Arc<ApiKey>) {
        self.remember(key, false);
    }

    /// Remembers that a write at this version lost a conflict, until a newer one is noted or seen.
    pub fn beaten(&self, key: &Arc<ApiKey>) {
        self.remember(key, true);
    }

    /// Whether a write at this version would be refused for certain.
    #[must_use]
    pub fn is_beaten(&self, key: &ApiKey) -> bool {
        let written = self.lock();
        let known = key.metadata.uid.as_ref().and_then(|uid| written.get(uid));
        known.is_some_and(|known| known.beaten && version(&*known.key) == version(key))
    }

    /// Forgets an ApiKey that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn remember(&self, key: &Arc<ApiKey>, beaten: bool) {
        self.lock().insert(key.uid().unwrap_or_default(), Version { key: key.clone(), beaten });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Version>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::api_key;

    fn key(version: &str) -> Arc<ApiKey> {
        Arc::new(api_key(&serde_json::json!({"metadata": {"resourceVersion": version}})))
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

    #[test]
    fn a_version_that_was_beaten_is_remembered_until_a_newer_one_is_known() {
        let written = Written::default();
        written.beaten(&key("10"));
        assert!(written.is_beaten(&written.newest(key("9"))));
        assert!(
            written.is_beaten(&written.newest(key("10"))),
            "the watch shows no more than what was beaten"
        );
        assert!(!written.is_beaten(&written.newest(key("11"))));
        written.beaten(&key("11"));
        written.note(&key("12"));
        assert!(!written.is_beaten(&written.newest(key("11"))));
    }
}
