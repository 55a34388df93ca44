//! The requests that came in, oldest first: what was asked of which route by whom, and how it was answered. No
//! bodies, no header, no values.

use std::collections::VecDeque;
use std::sync::Arc;

use http::{Method, StatusCode};
use jiff::Timestamp;
use serde::Serialize;

use super::times;

/// Requests that are kept.
const KEPT: usize = 100_000;

struct Entry {
    time: Timestamp,
    method: Method,
    route: Option<Arc<str>>,
    fault: Option<u64>,
    user: Option<usize>,
    key: Option<usize>,
    status: Option<StatusCode>,
}

/// The last 100,000 requests.
#[derive(Default)]
pub(super) struct Journal {
    entries: VecDeque<Entry>,
    /// Requests that are no longer kept.
    dropped: u64,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestView {
    /// Its number: 1 is the first since the start.
    pub number: u64,
    /// When it came in.
    #[serde(serialize_with = "times::serialize")]
    pub time: Timestamp,
    /// Its method.
    pub method: String,
    /// Its route; none where no route has the path.
    pub route: Option<String>,
    /// The key that it used, made or revoked.
    pub key_id: Option<String>,
    /// The user whom it spoke for.
    pub user: Option<String>,
    /// The answer's status; none where there is no answer (yet): the connection was cut, or the caller left.
    pub status: Option<u16>,
    /// The fault that it met.
    pub fault: Option<u64>,
}

/// A page of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestPage {
    /// Requests since the start, also those that are no longer kept.
    pub total: u64,
    /// Those asked for, oldest first.
    pub requests: Vec<RequestView>,
}

impl Journal {
    /// Notes a request that came in, and returns its number.
    pub(super) fn open(
        &mut self,
        time: Timestamp,
        method: Method,
        route: Option<Arc<str>>,
        fault: Option<u64>,
    ) -> u64 {
        if self.entries.len() == KEPT {
            self.entries.pop_front();
            self.dropped += 1;
        }
        self.entries.push_back(Entry { time, method, route, fault, user: None, key: None, status: None });
        self.total()
    }

    /// Notes how a request ended, if it is still kept.
    pub(super) fn close(
        &mut self,
        number: u64,
        status: Option<StatusCode>,
        user: Option<usize>,
        key: Option<usize>,
    ) {
        if let Some(entry) = self.position(number).and_then(|at| self.entries.get_mut(at)) {
            entry.status = status;
            entry.user = user;
            entry.key = key;
        }
    }

    /// The requests after a number.
    pub(super) fn page<'state>(
        &self,
        after: u64,
        limit: usize,
        user_id: impl Fn(usize) -> &'state String,
        key_id: impl Fn(usize) -> &'state String,
    ) -> RequestPage {
        let start = after.clamp(self.dropped, self.total());
        let skipped = usize::try_from(start - self.dropped).unwrap_or(usize::MAX);
        let numbered = (start + 1..).zip(self.entries.iter().skip(skipped));
        let requests = numbered.take(limit).map(|(number, entry)| RequestView {
            number,
            time: entry.time,
            method: entry.method.to_string(),
            route: entry.route.as_ref().map(ToString::to_string),
            key_id: entry.key.map(|key| key_id(key).clone()),
            user: entry.user.map(|user| user_id(user).clone()),
            status: entry.status.map(|status| status.as_u16()),
            fault: entry.fault,
        });
        RequestPage { total: self.total(), requests: requests.collect() }
    }

    fn total(&self) -> u64 {
        self.dropped + u64::try_from(self.entries.len()).unwrap_or(u64::MAX)
    }

    fn position(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.dropped + 1)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(journal: &Journal, after: u64, limit: usize) -> RequestPage {
        let name = String::from("id");
        journal.page(after, limit, |_| Box::leak(Box::new(name.clone())), |_| Box::leak(Box::default()))
    }

    fn open(journal: &mut Journal) -> u64 {
        journal.open(Timestamp::UNIX_EPOCH, Method::GET, None, None)
    }

    #[test]
    fn requests_keep_their_numbers_when_older_ones_are_dropped() {
        let mut journal = Journal::default();
        for _ in 0..KEPT + 2 {
            open(&mut journal);
        }
        journal.close(1, Some(StatusCode::OK), None, None);
        let first = page(&journal, 0, 1);
        assert_eq!(first.total, 100_002);
        assert_eq!(first.requests[0].number, 3);
        assert_eq!(first.requests[0].status, None, "the end of a dropped request is nobody else's");
        journal.close(4, Some(StatusCode::OK), Some(0), None);
        let next = page(&journal, 3, 2);
        assert_eq!(next.requests.iter().map(|r| r.number).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(next.requests[0].status, Some(200));
        assert_eq!(next.requests[0].user.as_deref(), Some("id"));
    }

    #[test]
    fn a_page_after_the_last_request_is_empty() {
        let mut journal = Journal::default();
        open(&mut journal);
        assert!(page(&journal, 1, 10).requests.is_empty());
        assert!(page(&journal, u64::MAX, 10).requests.is_empty());
    }
}
