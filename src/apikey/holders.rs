//! Whether the owners of keys are there, also where no cache shows them.

use std::{collections::HashSet, sync::Arc};

use kube::{
    Api, Client,
    runtime::reflector::{ObjectRef, Store},
};

use super::claim::{Others, holders};
use crate::{
    api::{ApiKey, BagsAccount, account::Owner},
    context::Context,
    env::{CallError, call},
    ledger::Ledger,
};

/// The ApiKeys that a claim of `key` is judged beside: those in the cache, and owners of keys of the same use that only a live
/// read shows (io).
///
/// # Errors
/// When the API server does not answer.
pub(super) async fn others(
    context: &Context,
    key: &ApiKey,
    account: &BagsAccount,
) -> Result<Others, CallError> {
    let ledger = Ledger::of(account.status.as_ref());
    let mut others = match key.metadata.deletion_timestamp {
        None => look_for(&context.env.kube, &context.keys, &ledger, key).await?,
        Some(_) => Others::default(),
    };
    others.keys.extend(beside(&context.keys, &ledger, key));
    Ok(others)
}

/// The ApiKeys in the cache that use the account of `key`, and those of other accounts that may have come first to a Secret's
/// name: to that of `key`, or to that of an ApiKey of this account without a slot.
pub(crate) fn beside(cache: &Store<ApiKey>, ledger: &Ledger, key: &ApiKey) -> Vec<Arc<ApiKey>> {
    let account = &key.spec.account_ref;
    let mut keys = cache.state_filter(|other| other.spec.account_ref == *account);
    let has_slot =
        |other: &ApiKey| ledger.owned_by(other.metadata.uid.as_deref().unwrap_or_default()).next().is_some();
    let waiting = keys.iter().filter(|other| !has_slot(other));
    let wanted: HashSet<_> = waiting.map(|other| other.secret_parts()).chain([key.secret_parts()]).collect();
    let of_others = cache
        .state_filter(|other| other.spec.account_ref != *account && wanted.contains(&other.secret_parts()));
    keys.extend(of_others);
    keys
}

/// Looks for the owners of keys of the same use, by a live read where the cache lacks them (io). An owner that exists holds the
/// use even if the watch has not shown it yet. A key that outlived its ApiKey must not hold it: `key` could wait for ever.
/// Returns the ApiKeys that only the live reads showed.
///
/// # Errors
/// When the API server does not answer.
pub(crate) async fn look_for(
    kube: &Client,
    cache: &Store<ApiKey>,
    ledger: &Ledger,
    key: &ApiKey,
) -> Result<Others, CallError> {
    let mut others = Others::default();
    for Owner { namespace, name, uid } in holders(ledger, key) {
        let cached = cache.get(&ObjectRef::new(name).within(namespace));
        let is_it = |found: &ApiKey| found.metadata.uid.as_ref() == Some(uid);
        if others.looked_for.insert(uid.clone()) && !cached.is_some_and(|cached| is_it(&cached)) {
            let keys: Api<ApiKey> = Api::namespaced(kube.clone(), namespace);
            let found = call(keys.get_opt(name)).await?;
            others.keys.extend(found.filter(is_it).map(Arc::new));
        }
    }
    Ok(others)
}
