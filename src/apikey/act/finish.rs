//! Lets an ApiKey go: its Secret, what is told of keys that stay, and the finalizer, which is put on here as well.

use std::sync::Arc;

use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};

use super::{api, reference, refresh};
use crate::{
    api::{
        ApiKey, FINALIZER,
        account::{Slot, SlotState},
    },
    apikey::{hold::Reason, observe::Observation, problem::Problem, run::Run},
    consumer_secret::ConsumerSecret,
    context::Context,
    env::{CallError, call},
    events::EventReason,
};

/// Removes the Secret where that is to be, and then the finalizer.
pub(super) async fn finish(
    context: &Context,
    o: &Observation,
    remove_secret: bool,
    run: &mut Run,
) -> Result<(), Problem> {
    if remove_secret {
        match ConsumerSecret::of(context.env.kube.clone(), &o.key).remove().await {
            Err(error) if error.is_conflict() => return Ok(()),
            Err(error) if error.is_forbidden() => return Err(secret_stays(&o.key)),
            outcome => outcome?,
        }
    }
    let (released, left): (Vec<&Slot>, Vec<&Slot>) =
        o.slots().into_iter().partition(|slot| slot.state == SlotState::Released);
    if !released.is_empty() {
        let note = format!("left to people, by spec.deletionPolicy: {}", named(&released));
        context.events.publish(&reference(&o.key), EventReason::KeyReleased, &note).await;
    }
    if !left.is_empty() || o.account.is_none() {
        let note = handed_over(o, &left);
        context.events.publish(&reference(&o.key), EventReason::DeletionHandedOver, &note).await;
    }
    let finalizers: Vec<&String> =
        o.key.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
    match patch_finalizers(context, &o.key, &serde_json::json!(finalizers)).await {
        Ok(key) => {
            run.key = Arc::new(key);
            // One without finalizers is gone; the watch may have told so by now.
            if !run.key.finalizers().is_empty() {
                context.written.note(&run.key);
            }
        }
        Err(error) if error.is_not_found() => run.gone = true,
        Err(error) if error.is_conflict() => refresh(context, run).await?,
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn named(slots: &[&Slot]) -> String {
    let named = slots.iter().filter_map(|slot| {
        Some(format!("{} ({})", slot.key_name.as_deref()?, slot.key_id.as_deref().unwrap_or("id unknown")))
    });
    named.collect::<Vec<_>>().join(", ")
}

fn handed_over(o: &Observation, left: &[&Slot]) -> String {
    if o.account.is_none() {
        let status = o.key.status.as_ref();
        let keys: Vec<String> = status
            .map(|status| status.keys.iter().filter_map(|key| key.key_id.clone()).collect())
            .unwrap_or_default();
        return format!(
            "BagsAccount \"{}\" does not exist: nothing was revoked; keys that may be left at Bags: {}",
            o.key.spec.account_ref.name,
            if keys.is_empty() { "none known".to_owned() } else { keys.join(", ") }
        );
    }
    format!("BagsAccount \"{}\" finishes: {}", o.key.spec.account_ref.name, named(left))
}

/// Puts our finalizer on; returns the ApiKey as it is then.
///
/// # Errors
/// What the API server says; `409` and `404` mean observe again.
pub(in crate::apikey) async fn ensure_finalizer(
    context: &Context,
    o: &Observation,
) -> Result<Option<ApiKey>, CallError> {
    if o.has_finalizer() {
        return Ok(None);
    }
    let mut finalizers = o.key.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    patch_finalizers(context, &o.key, &serde_json::json!(finalizers)).await.map(Some)
}

/// Puts our finalizer on again, which somebody took off.
///
/// # Errors
/// What stood in the way.
pub(super) async fn put_finalizer_back(
    context: &Context,
    o: &Observation,
    run: &mut Run,
) -> Result<(), Problem> {
    match ensure_finalizer(context, o).await {
        Ok(None) => Ok(()),
        Ok(Some(key)) => {
            run.key = Arc::new(key);
            context.written.note(&run.key);
            Ok(())
        }
        Err(error) if error.is_conflict() || error.is_not_found() => refresh(context, run).await,
        Err(error) => Err(error.into()),
    }
}

async fn patch_finalizers(
    context: &Context,
    key: &ApiKey,
    finalizers: &serde_json::Value,
) -> Result<ApiKey, CallError> {
    let patch = serde_json::json!({
        "metadata": {"finalizers": finalizers, "resourceVersion": key.metadata.resource_version, "uid": key.metadata.uid},
    });
    let options = PatchParams::default();
    call(api(context, key).patch(&key.name_any(), &options, &Patch::Merge(&patch))).await
}

/// The key is gone, and its Secret may not be removed.
fn secret_stays(key: &ApiKey) -> Problem {
    let message = format!(
        "the operator may not remove Secret \"{}\" from namespace \"{}\"; let the namespace take part again (consumerNamespaces of \
         the chart, or docs/rbac.yaml), or remove the Secret and the finalizer {FINALIZER} of the ApiKey by hand",
        key.secret_name(),
        key.namespace().unwrap_or_default()
    );
    Problem::transient(Reason::SecretRefused, message)
}
