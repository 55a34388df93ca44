//! What this process remembers of accounts: budgets, lists, and which keys answered how.
//!
//! All of it may be lost: what is missing is asked for again, and until then nothing is proven.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::lists::Lists;
use crate::bags::Budget;

/// What this process remembers of all accounts.
#[derive(Default)]
pub struct Memory {
    accounts: Mutex<HashMap<String, Arc<AccountMemory>>>,
}

/// What this process remembers of one account.
pub struct AccountMemory {
    /// Requests that may be spent on it.
    pub budget: Arc<Budget>,
    per_hour: i64,
    /// Its lists; held while one is being fetched, so that all who need one share it.
    pub lists: tokio::sync::Mutex<Lists>,
    keys: Mutex<HashMap<String, KeyMemory>>,
}

/// What this process saw of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyMemory {
    /// When it last answered 200.
    pub good: Option<Instant>,
    /// Since when it has answered 401, without a 200 in between.
    pub refused_since: Option<Instant>,
    /// How often in a row it answered 401, apart enough to count.
    pub refusals: u32,
    /// When it last answered anything.
    pub probed: Option<Instant>,
    /// It answered 200 after `Revoking` was written and before the revocation was sent.
    pub alive_before_revocation: bool,
    /// When Bags acknowledged our revocation.
    pub acknowledged: Option<Instant>,
    /// Revocations in a row that failed, and when the last was sent.
    pub revocations: u32,
    /// When a revocation was last sent.
    pub sent: Option<Instant>,
    /// Last use as the last list told it.
    pub last_used: Option<Timestamp>,
}

impl Memory {
    /// The memory of an account; `budget` makes its budget, anew when the hourly rate changed.
    pub fn of(&self, name: &str, per_hour: i64, budget: impl FnOnce() -> Budget) -> Arc<AccountMemory> {
        let mut accounts = lock(&self.accounts);
        if let Some(known) = accounts.get(name).filter(|known| known.per_hour == per_hour) {
            return known.clone();
        }
        let keys = accounts.get(name).map(|known| lock(&known.keys).clone()).unwrap_or_default();
        let fresh = Arc::new(AccountMemory {
            budget: Arc::new(budget()),
            per_hour,
            lists: tokio::sync::Mutex::default(),
            keys: Mutex::new(keys),
        });
        accounts.insert(name.to_owned(), fresh.clone());
        fresh
    }

    /// Forgets an account that is gone.
    pub fn forget(&self, name: &str) {
        lock(&self.accounts).remove(name);
    }
}

impl AccountMemory {
    /// What is remembered of a key.
    #[must_use]
    pub fn key(&self, attempt: &str) -> KeyMemory {
        lock(&self.keys).get(attempt).cloned().unwrap_or_default()
    }

    /// Changes what is remembered of a key.
    pub fn remember(&self, attempt: &str, change: impl FnOnce(&mut KeyMemory)) {
        change(lock(&self.keys).entry(attempt.to_owned()).or_default());
    }

    /// Forgets keys that are in no slot.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        lock(&self.keys).retain(|attempt, _| keep(attempt));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
