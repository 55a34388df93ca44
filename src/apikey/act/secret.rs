//! Writes the consumer Secret.

use kube::ResourceExt;

use super::{api, reference, refresh};
use crate::{
    api::ApiKey,
    apikey::{hold::Reason, observe::Observation, problem::Problem, run::Run},
    consumer_secret::{ConsumerSecret, Desired, Found, in_sync},
    context::Context,
    env::{CallError, call},
    events::EventReason,
    metrics::KeyStep,
};

/// Writes the Secret as the ledger says it should be.
pub(super) async fn project(context: &Context, o: &Observation, run: &mut Run) -> Result<(), Problem> {
    let (Some(slot), Some(value), Some(found)) = (o.current(), &o.current_value, &o.consumer) else {
        return Ok(());
    };
    let desired = Desired { key: &o.key, slot, value, base_url: &o.base_url };
    let restored = o.key.status.as_ref().is_some_and(|status| {
        status.switch.as_ref().is_some_and(|switch| Some(&switch.attempt) == slot.attempt.as_ref())
    });
    match ConsumerSecret::of(context.env.kube.clone(), &o.key).write(found, &desired).await {
        Ok(Some(secret)) => {
            let written = Found::Ours(Box::new(secret));
            if !in_sync(&written, &desired) {
                return Err(changed_on_the_way(&o.key));
            }
            if matches!(found, Found::Missing) && left_behind(context, &o.key).await? {
                return refresh(context, run).await;
            }
            let undone = was_undone(found, &written, o.key.api_key_field());
            run.consumer = Some(written);
            if !restored {
                context.metrics.key(KeyStep::Published);
            }
            if restored && undone {
                let note = format!(
                    "Secret \"{}\" was missing or changed and was written again",
                    o.key.secret_name()
                );
                context.events.publish(&reference(&o.key), EventReason::SecretRestored, &note).await;
            }
            Ok(())
        }
        Ok(None) => Ok(()),
        // Somebody was faster: look again.
        Err(error) if error.is_conflict() => {
            run.consumer = None;
            Ok(())
        }
        Err(error) if error.is_refusal() => Err(secret_refused(&o.key, &error.kind())),
        Err(error) => {
            // The Secret may have been created all the same.
            if matches!(found, Found::Missing) && left_behind(context, &o.key).await? {
                return refresh(context, run).await;
            }
            Err(Problem::transient(
                Reason::ApiServerUnavailable,
                format!("Secret \"{}\" could not be written: {}", o.key.secret_name(), error.kind()),
            ))
        }
    }
}

/// Whether somebody removed or changed the key's value. Everything else in the Secret also changes with the spec, or with the
/// operator's own settings, such as the base URL.
fn was_undone(found: &Found, written: &Found, field: &str) -> bool {
    let held = |found: &Found| match found {
        Found::Ours(secret) => secret.data.as_ref().and_then(|data| data.get(field)).cloned(),
        Found::Missing | Found::Foreign(_) => None,
    };
    held(found) != held(written)
}

/// How many times the check for a Secret that was left behind is tried.
const LOOKS: usize = 3;

/// Whether a Secret was just created for an ApiKey that is gone; if so, the Secret is removed again. A process that stood still
/// while another replica took over may create it that late, and a create has no resourceVersion that could conflict. Without
/// the ApiKey nothing comes back to the Secret, so a check that fails is repeated at once, with new reads.
async fn left_behind(context: &Context, key: &ApiKey) -> Result<bool, Problem> {
    let mut further = 1..LOOKS;
    loop {
        match remove_if_gone(context, key).await {
            Err(_) if further.next().is_some() => {}
            outcome => return Ok(outcome?),
        }
    }
}

async fn remove_if_gone(context: &Context, key: &ApiKey) -> Result<bool, CallError> {
    let live = call(api(context, key).get_opt(&key.name_any())).await?;
    if live.is_some_and(|live| live.metadata.uid == key.metadata.uid) {
        return Ok(false);
    }
    ConsumerSecret::of(context.env.kube.clone(), key).remove().await?;
    Ok(true)
}

/// Something in the cluster changes what is written: writing it again would go on for ever.
fn changed_on_the_way(key: &ApiKey) -> Problem {
    let message = format!(
        "something in the cluster changes what is written into Secret \"{}\", as a mutating webhook does; let it leave \
         the Secret alone, or take what it changes out of spec.secret",
        key.secret_name()
    );
    Problem::transient(Reason::SecretConflict, message)
}

/// The API server does not take the consumer Secret: permissions, quota, a policy.
pub(in crate::apikey) fn secret_refused(key: &ApiKey, said: &str) -> Problem {
    let message = format!(
        "the API server would not take Secret \"{}\" in namespace \"{}\": {said}; lift what stands against it, and the key \
         is made",
        key.secret_name(),
        key.namespace().unwrap_or_default()
    );
    Problem::transient(Reason::SecretRefused, message)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{ByteString, api::core::v1::Secret};

    use super::*;
    use crate::{
        api::account::SlotState,
        apikey::fixtures::{mine, seen},
    };

    #[test]
    fn what_the_spec_or_the_operator_changes_in_a_secret_is_not_told_to_be_restored() {
        let Some(Found::Ours(written)) = seen().with_slot(mine(SlotState::Live)).consumer else {
            panic!("no Secret");
        };
        let undone = |change: fn(&mut Secret)| {
            let mut before = written.clone();
            change(&mut before);
            was_undone(&Found::Ours(before), &Found::Ours(written.clone()), "BAGS_API_KEY")
        };
        assert!(was_undone(&Found::Missing, &Found::Ours(written.clone()), "BAGS_API_KEY"));
        assert!(undone(|secret| put(secret, "BAGS_API_KEY")), "somebody edited the value");
        assert!(undone(|secret| secret.data = None), "somebody took it away");
        assert!(!undone(|secret| put(secret, "BAGS_BASE_URL")), "the operator had another base URL");
        assert!(!undone(|secret| secret.metadata.labels = None), "spec.secret.labels was edited");
    }

    fn put(secret: &mut Secret, field: &str) {
        secret.data.get_or_insert_default().insert(field.into(), ByteString(b"another".to_vec()));
    }
}
