//! Live reads that many reviews share: a review that arrives while a read is under way waits for the next read, which then
//! serves all that wait. So each review sees an object as it was after the review arrived, and a crowd of reviews costs two
//! reads.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use kube::Api;

use crate::env::{CallError, call};

/// What a read gave: the object, or that there is none, or why that is not known.
pub(super) type Read<K> = Result<Option<Arc<K>>, Arc<CallError>>;

/// Shared reads of cluster-scoped objects of one kind.
pub(super) struct SharedReads<K> {
    api: Api<K>,
    arrivals: AtomicU64,
    last: Mutex<HashMap<String, Place<K>>>,
}

/// Shared by all callers that want the same object: one reads, the others wait for its lock.
type Place<K> = Arc<tokio::sync::Mutex<Option<Last<K>>>>;

struct Last<K> {
    /// How many callers had arrived when the read began: it serves these, and no later ones.
    began: u64,
    read: Read<K>,
}

/// How many names are remembered; a request may name any.
const NAMES: usize = 256;

impl<K> SharedReads<K>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    pub(super) fn new(api: Api<K>) -> Self {
        Self { api, arrivals: AtomicU64::new(0), last: Mutex::default() }
    }

    /// The object, as shown by a read that began after this call.
    pub(super) async fn get(&self, name: &str) -> Read<K> {
        let arrived = self.arrivals.fetch_add(1, Ordering::SeqCst);
        let place = self.place(name);
        let mut last = place.lock().await;
        if let Some(Last { began, read }) = &*last
            && arrived < *began
        {
            return read.clone();
        }
        let began = self.arrivals.load(Ordering::SeqCst);
        let read = call(self.api.get_opt(name)).await.map(|found| found.map(Arc::new)).map_err(Arc::new);
        *last = Some(Last { began, read: read.clone() });
        read
    }

    fn place(&self, name: &str) -> Place<K> {
        let mut all = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= NAMES {
            all.retain(|_, place| Arc::strong_count(place) > 1);
        }
        all.entry(name.to_owned()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::atomic::AtomicUsize};

    use futures::future::join_all;
    use serde_json::json;

    use super::*;
    use crate::{
        api::BagsAccount,
        fixtures::{bags_account, slow_server},
    };

    /// Answers each read a turn of the runtime later; its resourceVersion is the number of reads so far.
    fn reads(count: &Arc<AtomicUsize>) -> SharedReads<BagsAccount> {
        let count = count.clone();
        let client = slow_server(move |_| {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                tokio::task::yield_now().await;
                let version = json!({"metadata": {"resourceVersion": number.to_string()}});
                (200, json!(bags_account(&version)))
            }
        });
        SharedReads::new(Api::all(client))
    }

    fn version(read: &Read<BagsAccount>) -> String {
        read.as_ref().unwrap().as_ref().unwrap().metadata.resource_version.clone().unwrap()
    }

    #[tokio::test]
    async fn a_crowd_that_comes_during_a_read_shares_the_next_one() {
        let count = Arc::default();
        let reads = reads(&count);
        let crowd = join_all((0..50).map(|_| reads.get("main"))).await;
        assert_eq!(version(&crowd[0]), "1", "the first one reads at once");
        assert!(crowd[1..].iter().all(|read| version(read) == "2"), "the others came while it was under way");
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn nobody_is_told_of_a_read_that_began_before_they_came() {
        let count = Arc::default();
        let reads = reads(&count);
        for number in 1..=3 {
            assert_eq!(version(&reads.get("main").await), number.to_string());
        }
    }

    #[tokio::test]
    async fn who_gives_up_in_the_middle_of_a_read_leaves_the_others_one_of_their_own() {
        let count: Arc<AtomicUsize> = Arc::default();
        let reads = reads(&count);
        {
            let mut dropped = pin!(reads.get("main"));
            // The client hands requests to a task of its own: wait until this one is on its way.
            while count.load(Ordering::SeqCst) == 0 {
                assert!(futures::poll!(dropped.as_mut()).is_pending());
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(version(&reads.get("main").await), "2");
    }
}
