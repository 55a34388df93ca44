//! The open connections, and which of them is closed to make room for a new one.
//!
//! A full server that lets new clients wait can be blocked by anybody who opens connections and stays silent. Here a new
//! connection is always accepted. It displaces one of the address that holds the most connections: the one that has been
//! silent for longest.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::task::{AbortHandle, Id};
use tracing::debug;

/// The connections of one server.
#[derive(Default)]
pub(super) struct Peers {
    open: HashMap<Id, Peer>,
    signs: Arc<AtomicU64>,
}

struct Peer {
    address: IpAddr,
    sign: Arc<Sign>,
    task: AbortHandle,
}

/// The last sign of life of one connection, as a number in a sequence that all connections share: only which of two is
/// older matters.
pub(super) struct Sign {
    signs: Arc<AtomicU64>,
    last: AtomicU64,
    asked: AtomicBool,
    answering: AtomicBool,
}

impl Sign {
    /// A request has come.
    pub(super) fn request(&self) {
        self.asked.store(true, Ordering::Relaxed);
        self.answering.store(true, Ordering::Relaxed);
        self.give();
    }

    /// The request has been answered.
    pub(super) fn answer(&self) {
        self.answering.store(false, Ordering::Relaxed);
        self.give();
    }

    /// Whether a request has ever come.
    pub(super) fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    fn give(&self) {
        self.last.store(self.signs.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Peers {
    /// Records the signs of life of a new connection, of which connecting is the first.
    pub(super) fn sign(&self) -> Arc<Sign> {
        let sign = Sign {
            signs: self.signs.clone(),
            last: AtomicU64::default(),
            asked: AtomicBool::default(),
            answering: AtomicBool::default(),
        };
        sign.give();
        Arc::new(sign)
    }

    /// A connection was opened, and this task drives it.
    pub(super) fn joined(&mut self, address: IpAddr, sign: Arc<Sign>, task: AbortHandle) {
        self.open.insert(task.id(), Peer { address, sign, task });
    }

    /// A connection has ended.
    pub(super) fn left(&mut self, task: Id) {
        self.open.remove(&task);
    }

    /// Closes connections until one more fits within `most`.
    pub(super) fn make_way(&mut self, newcomer: IpAddr, most: usize) {
        while self.open.len() >= most.max(1)
            && let Some(last) = self.last_among(newcomer).and_then(|id| self.open.remove(&id))
        {
            debug!(peer = %last.address, "A connection made way for another one");
            last.task.abort();
        }
    }

    /// The connection to close: one of the address that holds the most, the new connection included; of these, one that
    /// waits for no answer if there is one; of these, the one that has been silent for longest.
    fn last_among(&self, newcomer: IpAddr) -> Option<Id> {
        let mut held = HashMap::from([(newcomer, 1_usize)]);
        for peer in self.open.values() {
            *held.entry(peer.address).or_default() += 1;
        }
        let rank = |peer: &Peer| {
            let answering = peer.sign.answering.load(Ordering::Relaxed);
            (held.get(&peer.address), !answering, Reverse(peer.sign.last.load(Ordering::Relaxed)))
        };
        self.open.iter().max_by_key(|(_, peer)| rank(peer)).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    /// What a connection of a case has done since it came.
    #[derive(Clone, Copy)]
    enum Did {
        Nothing,
        WasAnswered,
        IsAnswered,
    }

    /// The case in words, who is connected, the address of a new connection, and the index of the one that is closed for
    /// it.
    type Case = (&'static str, &'static [(u8, Did)], u8, usize);

    /// The index of the connection that is closed for a new one from `newcomer`; `peers` are in the order of their arrival.
    fn goes(peers: &[(u8, Did)], newcomer: u8) -> usize {
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let (mut tasks, mut crowd, mut ids) = (JoinSet::new(), Peers::default(), Vec::new());
        for (from, _) in peers {
            let task = tasks.spawn(std::future::pending::<()>());
            ids.push(task.id());
            let sign = crowd.sign();
            crowd.joined(address(*from), sign, task);
        }
        for (id, (_, did)) in ids.iter().zip(peers) {
            let sign = &crowd.open[id].sign;
            match did {
                Did::Nothing => {}
                Did::WasAnswered => {
                    sign.request();
                    sign.answer();
                }
                Did::IsAnswered => sign.request(),
            }
        }
        crowd.make_way(address(newcomer), peers.len());
        let gone: Vec<usize> = (0..ids.len()).filter(|n| !crowd.open.contains_key(&ids[*n])).collect();
        assert_eq!(gone.len(), 1, "one goes where one comes");
        gone[0]
    }

    #[tokio::test]
    async fn whoever_holds_most_loses_what_has_been_silent_for_longest() {
        use Did::{IsAnswered, Nothing, WasAnswered};
        let cases: [Case; 7] = [
            ("all of one address: the oldest", &[(1, Nothing), (1, Nothing), (1, Nothing)], 1, 0),
            ("the first has asked since", &[(1, WasAnswered), (1, Nothing), (1, Nothing)], 1, 1),
            ("the first is being answered", &[(1, IsAnswered), (1, WasAnswered)], 1, 1),
            ("all are being answered", &[(1, IsAnswered), (1, IsAnswered)], 1, 0),
            ("one address alone holds two", &[(1, Nothing), (2, WasAnswered), (2, WasAnswered)], 3, 1),
            ("its connections are all busy", &[(1, Nothing), (2, IsAnswered), (2, IsAnswered)], 3, 1),
            ("the newcomer counts as well", &[(1, Nothing), (2, Nothing)], 2, 1),
        ];
        for (what, peers, newcomer, expected) in cases {
            assert_eq!(goes(peers, newcomer), expected, "{what}");
        }
    }

    #[tokio::test]
    async fn nobody_goes_while_there_is_room() {
        let (mut tasks, mut peers) = (JoinSet::new(), Peers::default());
        let task = tasks.spawn(std::future::pending::<()>());
        let (id, address) = (task.id(), IpAddr::from([10, 0, 0, 1]));
        let sign = peers.sign();
        peers.joined(address, sign, task);
        peers.make_way(address, 2);
        assert!(peers.open.contains_key(&id));
        peers.left(id);
        assert!(peers.open.is_empty());
    }
}
