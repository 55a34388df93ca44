//! Reads what is left of a ledger that is nobody's (io): the keystore, and what the consumer Secrets say of it.

use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::{act::ActError, memory::KeyMemory, observe::Found, rebuild::Remnant};
use crate::{
    api::{ApiKey, BagsAccount, account::Owner},
    consumer_secret::{self, ConsumerSecret, Written},
    context::Context,
    env::chain,
    keystore::Entry,
};

/// Reads the keystore Secrets of the account, by a list and not from the cache, which may not show all of them yet. If a consumer
/// Secret cannot be read, which says what was published, nothing is found, and the run goes on so that the status can say why.
///
/// # Errors
/// When the API server does not answer.
pub(super) async fn read(
    context: &Context,
    account: &BagsAccount,
    found: &mut Found,
) -> Result<(), ActError> {
    let entries = context.keystore.live_of(&account.name_any()).await.map_err(ActError::Remnants)?;
    let mut remnants = Vec::new();
    for entry in entries {
        let (Some(attempt), Some(owner)) = (entry.attempt().map(str::to_owned), entry.made_for()) else {
            continue;
        };
        match published(context, &owner).await {
            Ok(published) => {
                remnants.push(Remnant { published, ..remnant(&entry, attempt.clone(), owner) });
            }
            Err(failure) => {
                found.unread = Some(chain(&failure));
                found.failure.get_or_insert(failure);
                return Ok(());
            }
        }
        found.entries.insert(attempt, entry);
    }
    found.remnants = Some(remnants);
    Ok(())
}

fn remnant(entry: &Entry, attempt: String, owner: Owner) -> Remnant {
    Remnant {
        owner,
        key_use: entry.key_use().unwrap_or("unknown").to_owned(),
        trigger: entry.trigger().map(str::to_owned),
        key_name: entry.key_name().map(str::to_owned),
        key_id: entry.key_id().map(str::to_owned),
        revision: entry.revision().unwrap_or(1),
        attempt,
        value: entry.value().is_some(),
        released: entry.released(),
        created: entry.created(),
        installation: entry.installation(),
        published: None,
        memory: KeyMemory::default(),
    }
}

/// The switch that wrote an owner's consumer Secret.
async fn published(context: &Context, owner: &Owner) -> Result<Option<Written>, ActError> {
    let cached = context.keys.get(&ObjectRef::<ApiKey>::new(&owner.name).within(&owner.namespace));
    let key = cached.filter(|key| key.metadata.uid.as_deref() == Some(owner.uid.as_str()));
    let Some(key) = key else { return Ok(None) };
    // A Secret that may not be read does not say that nothing was published.
    let found = ConsumerSecret::of(context.env.kube.clone(), &key).read(i64::MAX).await;
    let (namespace, name) = (owner.namespace.clone(), key.secret_name());
    let found = found.map_err(|source| ActError::ReadSecret { namespace, name, source })?;
    Ok(consumer_secret::switch_of(&found))
}
