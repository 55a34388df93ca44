//! Counts objects by a label that changes.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::metrics::{family::Family, gauge::Gauge};

use super::Kind;

/// Objects counted under the one label that each has now.
pub(super) struct Tally<L> {
    /// The gauges, for the registry.
    pub(super) counts: Family<L, Gauge>,
    labels: Arc<Mutex<HashMap<(Kind, String), L>>>,
}

impl<L> Clone for Tally<L> {
    fn clone(&self) -> Self {
        Self { counts: self.counts.clone(), labels: self.labels.clone() }
    }
}

impl<L: Clone + Eq + Hash> Default for Tally<L> {
    fn default() -> Self {
        Self { counts: Family::default(), labels: Arc::default() }
    }
}

impl<L: Clone + Eq + Hash> Tally<L> {
    /// The object of this uid counts under this label from now on; `None`: under none.
    pub(super) fn put(&self, kind: Kind, uid: &str, label: Option<L>) {
        let mut labels = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match label.clone() {
            Some(label) => labels.insert((kind, uid.to_owned()), label),
            None => labels.remove(&(kind, uid.to_owned())),
        };
        if before == label {
            return;
        }
        if let Some(before) = before {
            self.counts.get_or_create(&before).dec();
        }
        if let Some(label) = label {
            self.counts.get_or_create(&label).inc();
        }
    }
}
