//! Tells when every cache is filled: before that, an object that is missing in a cache may exist all the same.
//!
//! kube's `Store::wait_until_ready` serves one waiter only: it keeps the waker of the last one, and the others are never
//! woken. A controller waits on its own store already, so nobody else may.

use tokio::sync::watch;

use crate::admin::Readiness;

/// How many watches there are.
const WATCHES: usize = 3;

/// Which watches have filled their cache.
#[derive(Clone)]
pub(super) struct Synced {
    kinds: watch::Sender<Vec<&'static str>>,
    readiness: Readiness,
}

impl Synced {
    pub(super) fn new(readiness: Readiness) -> Self {
        Self { kinds: watch::Sender::new(Vec::new()), readiness }
    }

    /// A watch has filled its cache.
    pub(super) fn done(&self, kind: &'static str) {
        self.readiness.synced(kind);
        self.kinds.send_if_modified(|kinds| {
            let new = !kinds.contains(&kind);
            if new {
                kinds.push(kind);
            }
            new
        });
    }

    /// Waits until every watch has filled its cache.
    pub(super) async fn wait(&self) {
        // An error would mean that every sender is gone, and `self` holds one.
        let _ = self.kinds.subscribe().wait_for(|kinds| kinds.len() == WATCHES).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Poll};

    use futures::{FutureExt, future::join_all};

    use super::*;

    #[tokio::test]
    async fn every_waiter_is_woken_whoever_waited_last() {
        let synced = Synced::new(Readiness::awaiting(["a", "b", "c"]));
        // `join_all` polls each future with a waker of its own once there are more than thirty.
        let mut waiters = pin!(join_all((0..64).map(|_| synced.wait())));
        assert_eq!(futures::poll!(waiters.as_mut()).map(drop), Poll::Pending);
        for kind in ["a", "a", "b"] {
            synced.done(kind);
        }
        assert!(waiters.as_mut().now_or_never().is_none());
        synced.done("c");
        waiters.await;
    }
}
