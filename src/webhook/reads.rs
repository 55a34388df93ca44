//! Live reads that many reviews share: whoever comes while one is under way waits for the next, which then serves all of
//! them. So each review sees an object as it was after the review arrived, and a crowd costs two reads, not a crowd of them.
//! Of a crowd that wants many objects a few read at once, in the order of their arrival: asked for all at once, the API server
//! takes no less time for them, and lets some of them wait for long.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use kube::Api;
use tokio::sync::Semaphore;

use crate::env::{CallError, call};

/// What a read gave: the object, or that there is none, or why that is not known.
pub(super) type Read<K> = Result<Option<Arc<K>>, Arc<CallError>>;

/// Shared reads of cluster-scoped objects of one kind.
pub(super) struct SharedReads<K> {
    api: Api<K>,
    arrivals: AtomicU64,
    turns: Semaphore,
    last: Mutex<HashMap<String, Place<K>>>,
}

/// Where those meet who want the same object: one reads, the others wait.
type Place<K> = Arc<tokio::sync::Mutex<Option<Last<K>>>>;

struct Last<K> {
    /// Whoever had arrived by then is served by it.
    began: u64,
    read: Read<K>,
}

/// Names that are remembered; a request may name any.
const NAMES: usize = 256;
/// Reads of one kind that are under way at once.
const AT_ONCE: usize = 16;

impl<K> SharedReads<K>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    pub(super) fn new(api: Api<K>) -> Self {
        Self { api, arrivals: AtomicU64::new(0), turns: Semaphore::new(AT_ONCE), last: Mutex::default() }
    }

    /// The object as a read shows it that began after this call.
    pub(super) async fn get(&self, name: &str) -> Read<K> {
        let arrived = self.arrivals.fetch_add(1, Ordering::SeqCst);
        let place = self.place(name);
        let mut last = place.lock().await;
        if let Some(Last { began, read }) = &*last
            && arrived < *began
        {
            return read.clone();
        }
        // Nobody closes it, and a read without a turn would be no worse than late.
        let _turn = self.turns.acquire().await;
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
    use http::{Request, Response};
    use kube::{Client, client::Body};

    use super::*;
    use crate::api::BagsAccount;

    /// What an API server was asked.
    #[derive(Default)]
    struct Count {
        reads: AtomicUsize,
        under_way: AtomicUsize,
        most: AtomicUsize,
    }

    /// Answers each read after a turn of the others, with the number of reads so far.
    fn reads(count: &Arc<Count>) -> SharedReads<BagsAccount> {
        let count = count.clone();
        let service = tower::service_fn(move |_: Request<Body>| {
            let count = count.clone();
            let number = count.reads.fetch_add(1, Ordering::SeqCst) + 1;
            count.most.fetch_max(count.under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            async move {
                tokio::task::yield_now().await;
                count.under_way.fetch_sub(1, Ordering::SeqCst);
                let account = serde_json::json!({
                    "apiVersion": "keys.bags.fm/v1alpha1", "kind": "BagsAccount",
                    "metadata": {"name": "main", "resourceVersion": number.to_string()}, "spec": {"credentials": {}},
                });
                let body = Body::from(serde_json::to_vec(&account).unwrap());
                Ok::<_, std::convert::Infallible>(Response::builder().body(body).unwrap())
            }
        });
        SharedReads::new(Api::all(Client::new(service, "default")))
    }

    fn version(read: &Read<BagsAccount>) -> String {
        read.as_ref().unwrap().as_ref().unwrap().metadata.resource_version.clone().unwrap()
    }

    #[tokio::test]
    async fn a_crowd_that_comes_during_a_read_shares_the_next_one() {
        let count = Arc::<Count>::default();
        let reads = reads(&count);
        let crowd = join_all((0..50).map(|_| reads.get("main"))).await;
        assert_eq!(version(&crowd[0]), "1", "the first one reads at once");
        assert!(crowd[1..].iter().all(|read| version(read) == "2"), "the others came while it was under way");
        assert_eq!(count.reads.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_crowd_that_wants_many_objects_reads_a_few_at_once_in_the_order_of_its_arrival() {
        let count = Arc::<Count>::default();
        let reads = reads(&count);
        let names: Vec<String> = (0..50).map(|number| format!("account-{number}")).collect();
        let crowd = join_all(names.iter().map(|name| reads.get(name))).await;
        let versions: Vec<String> = crowd.iter().map(version).collect();
        assert_eq!(versions, (1..=50).map(|number| number.to_string()).collect::<Vec<_>>());
        assert_eq!(count.most.load(Ordering::SeqCst), AT_ONCE);
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
        let count = Arc::<Count>::default();
        let reads = reads(&count);
        {
            let mut dropped = pin!(reads.get("main"));
            // The client hands requests to a task of its own: until it is on its way.
            while count.reads.load(Ordering::SeqCst) == 0 {
                assert!(futures::poll!(dropped.as_mut()).is_pending());
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(version(&reads.get("main").await), "2");
    }
}
