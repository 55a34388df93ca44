//! Lets an ApiKey go: removes its Secret, reports keys that stay, and takes the finalizer off. Also puts the finalizer on.

use std::{sync::Arc, time::Duration};

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
    ledger::{Ledger, StoreError},
    time::since,
};

/// For how long a Secret that the operator may not remove, and in which no key was ever seen, holds up its ApiKey's deletion:
/// time to restore permissions that were taken away, or to lift a policy that was set up, by mistake.
const HELD_BY_AN_UNSEEN_SECRET: Duration = Duration::from_hours(1);

/// Removes the Secret, if `remove_secret`, and then the finalizer.
pub(super) async fn finish(
    context: &Context,
    o: &Observation,
    remove_secret: bool,
    run: &mut Run,
) -> Result<(), Problem> {
    if !is_still_so(context, o).await? {
        return Ok(());
    }
    if remove_secret {
        match ConsumerSecret::of(context.env.kube.clone(), &o.key).remove().await {
            Err(error) if error.is_conflict() => return Ok(()),
            Err(error) if error.is_refusal() && is_given_up(o) => {}
            Err(error) if error.is_refusal() => return Err(secret_stays(&o.key, &error)),
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
            // An ApiKey without finalizers is gone, and the watch may have told so already: it is not remembered again.
            if !run.key.finalizers().is_empty() {
                context.written.note(&run.key);
            }
        }
        Err(error) if error.is_not_found() => run.gone = true,
        Err(error) if error.is_conflict() => refresh(context, run).await?,
        Err(error) => return Err(finalizer_refused(&o.key, error)),
    }
    Ok(())
}

/// Whether the ledger, read live, is as it was observed. What follows cannot be taken back, and the cache of a process that has
/// just become leader may lack a key that pods hold. The next observation starts from the version that is read here.
async fn is_still_so(context: &Context, o: &Observation) -> Result<bool, Problem> {
    let name = &o.key.spec.account_ref.name;
    let Some(view) = &o.account else {
        return match context.ledger.read_live(name).await {
            Ok(_) => Err(account_not_seen(name)),
            Err(StoreError::NoAccount(_)) => Ok(true),
            Err(error) => Err(error.into()),
        };
    };
    let live = match context.ledger.refresh(name).await {
        Ok(live) if live.metadata.uid == view.account.metadata.uid => live,
        Ok(_) | Err(StoreError::NoAccount(_)) => return Err(account_not_seen(name)),
        Err(error) => return Err(error.into()),
    };
    let installation = live.status.as_ref().and_then(|status| status.installation.as_ref());
    let ours = installation.map(|installation| *installation == context.settings.installation);
    let ledger = Ledger::of(live.status.as_ref());
    Ok(ours == view.ours && ledger.owned_by(&o.owner.uid).eq(o.slots()))
}

/// Whether an ApiKey goes although its Secret may not be removed.
fn is_given_up(o: &Observation) -> bool {
    let deleted = o.key.metadata.deletion_timestamp.as_ref();
    let deleting_for = deleted.map_or(Duration::ZERO, |at| since(o.now, at.0));
    was_never_published(&o.key) && deleting_for >= HELD_BY_AN_UNSEEN_SECRET
}

/// Whether no key was ever seen in the Secret. Only the status tells, as the ledger forgets dead keys. No key's fate depends on
/// it: by now the ledger has none of this ApiKey that is `Live`. If the status was lost, or was never written before the
/// permissions went, the worst that can happen is that a Secret with a revoked key stays behind.
fn was_never_published(key: &ApiKey) -> bool {
    key.status.as_ref().is_none_or(|status| status.switch.is_none())
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

/// Puts our finalizer back on, after somebody took it off.
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
        Err(error) => Err(finalizer_refused(&o.key, error)),
    }
}

/// The problem that our finalizer could not be put on or taken off. A refusal lasts until somebody lifts its cause. The API
/// server's words about it may be shown: the ApiKey is the tenant's own.
pub(in crate::apikey) fn finalizer_refused(key: &ApiKey, error: CallError) -> Problem {
    if !error.is_refusal() {
        return error.into();
    }
    let message = format!(
        "the API server does not let the operator change the finalizers of ApiKey \"{}\": {error}; lift what stands against it \
         (rights, a policy, or a field of the ApiKey that is not valid any more), and it goes on",
        key.name_any()
    );
    Problem::transient(Reason::NotPermitted, message)
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

/// The ApiKey's keys are dealt with, but permissions or a policy keep the operator from removing its Secret.
fn secret_stays(key: &ApiKey, error: &CallError) -> Problem {
    let in_the_end = match was_never_published(key) {
        true => "; no key was seen in it, so the ApiKey goes without that an hour after its deletion",
        false => "",
    };
    let message = format!(
        "the API server does not let the operator remove Secret \"{}\" from namespace \"{}\" ({}); let the namespace take part \
         again (consumerNamespaces of the chart, or docs/rbac.yaml), lift the policy that stands against it, or remove the Secret \
         and the finalizer {FINALIZER} of the ApiKey by hand{in_the_end}",
        key.secret_name(),
        key.namespace().unwrap_or_default(),
        error.kind()
    );
    Problem::transient(Reason::SecretRefused, message)
}

/// The live read showed another account than the cache: the watch is behind, and will show the change in a moment.
fn account_not_seen(name: &str) -> Problem {
    let message = format!("BagsAccount \"{name}\" is not the one that was seen; looking again soon");
    Problem::transient(Reason::ApiServerUnavailable, message)
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::{
        api::{BagsAccount, apikey::Switch},
        apikey::fixtures::{HOUR, MINUTE, account, ago, key, mine, seen},
        fixtures::{failure, installation, methods, process, server},
        operator::parts::Watches,
    };

    /// This version of the account, with these slots in this installation's ledger.
    fn version(number: u64, slots: Vec<Slot>) -> BagsAccount {
        let mut account = account();
        account.metadata.resource_version = Some(number.to_string());
        let status = account.status.get_or_insert_default();
        (status.installation, status.slots) = (Some(installation()), slots);
        account
    }

    fn cached(account: &BagsAccount) -> Watches {
        let mut watches = Watches::new();
        watches.accounts.1.apply_watcher_event(&Event::Apply(account.clone()));
        watches
    }

    /// An ApiKey that was deleted so long ago, of an account as it is in the cache.
    fn deleted(age: Duration, account: &BagsAccount) -> Observation {
        seen().deleted(age).view(|view| view.account = Arc::new(account.clone()))
    }

    #[tokio::test]
    async fn an_apikey_is_not_let_go_by_a_cache_that_lacks_its_key() {
        let shown = version(1, vec![]);
        let lost = BagsAccount { status: None, ..version(2, vec![]) };
        let mut another = version(2, vec![]);
        another.metadata.uid = Some("uid-another".to_owned());
        for (case, live, expected) in [
            ("it is as it was seen", shown.clone(), Ok("GET GET PATCH")),
            ("it has a key", version(2, vec![mine(SlotState::Live)]), Ok("GET")),
            ("its status is lost", lost, Ok("GET")),
            ("it is another account", another, Err(Reason::ApiServerUnavailable)),
        ] {
            let there = live.clone();
            let (kube, asked) = server(move |request, _| match request.path() {
                path if path.contains("/bagsaccounts") => (200, json!(there)),
                path if path.contains("/secrets") => failure(404, "NotFound"),
                _ => (200, json!(key())),
            });
            let context = process(&cached(&shown), kube);
            let o = deleted(HOUR, &shown);
            let outcome = finish(&context, &o, true, &mut Run::of(o.key.clone())).await;
            match expected {
                Ok(requests) => {
                    outcome.unwrap();
                    assert_eq!(methods(&asked), requests, "{case}");
                    let next = context.ledger.read("main").await.unwrap();
                    let versions = (next.resource_version(), live.resource_version());
                    assert_eq!(versions.0, versions.1, "{case}: the next observation looks at it");
                }
                Err(reason) => {
                    assert_eq!(outcome.unwrap_err().reason, reason, "{case}");
                    assert_eq!(methods(&asked), "GET", "{case}");
                }
            }
        }
    }

    #[tokio::test]
    async fn an_apikey_without_an_account_is_let_go_where_there_is_none_and_not_where_none_was_seen_yet() {
        for (there, expected) in [(false, "GET POST PATCH"), (true, "GET")] {
            let (kube, asked) =
                server(move |request, _| match (request.path().contains("/bagsaccounts"), there) {
                    (true, true) => (200, json!(version(1, vec![mine(SlotState::Live)]))),
                    (true, false) => failure(404, "NotFound"),
                    (false, _) => (200, json!(key())),
                });
            let context = process(&Watches::new(), kube);
            let o = seen().without_account().deleted(HOUR);
            let outcome = finish(&context, &o, false, &mut Run::of(o.key.clone())).await;
            assert_eq!((outcome.is_err(), methods(&asked).as_str()), (there, expected));
        }
    }

    #[tokio::test]
    async fn a_secret_that_may_not_be_removed_holds_an_apikey_for_good_only_where_a_key_was_seen_in_it() {
        let shown = version(1, vec![]);
        let switch = Switch {
            count: 1,
            attempt: "attempt-1".to_owned(),
            at: ago(HOUR * 25),
            clean_since: None,
            old_key_used_at: None,
            marked: vec![],
        };
        for (case, age, switch, goes) in [
            ("no key was seen in it", HOUR, None, true),
            ("nor was one, and the rights may come back", HOUR - MINUTE, None, false),
            ("a key was", HOUR * 24, Some(switch), false),
        ] {
            // By rights; by a policy that says no more, or a webhook.
            for (code, word) in [(403, "Forbidden"), (422, "Invalid"), (400, "BadRequest")] {
                let there = shown.clone();
                let (kube, asked) = server(move |request, _| match request.path() {
                    path if path.contains("/bagsaccounts") => (200, json!(there)),
                    path if path.contains("/secrets") => failure(code, word),
                    _ => (200, json!(key())),
                });
                let context = process(&cached(&shown), kube);
                let switch = switch.clone();
                let o = deleted(age, &shown).key(|key| key.status.get_or_insert_default().switch = switch);
                let problem = finish(&context, &o, true, &mut Run::of(o.key.clone())).await.err();
                let reason = problem.as_ref().map(|problem| problem.reason);
                assert_eq!(reason, (!goes).then_some(Reason::SecretRefused), "{case}: {code}");
                let said =
                    problem.is_none_or(|problem| problem.message.contains(&format!("({code} {word})")));
                assert!(said, "{case}: {code}");
                assert_eq!(methods(&asked).contains("PATCH"), goes, "{case}: {code}");
            }
        }
    }

    #[tokio::test]
    async fn a_finalizer_that_may_not_be_changed_is_no_outage_of_the_api_server() {
        for (code, word, expected) in [
            (422, "Invalid", Reason::NotPermitted),
            (403, "Forbidden", Reason::NotPermitted),
            (500, "InternalError", Reason::ApiServerUnavailable),
        ] {
            let shown = version(1, vec![]);
            let there = shown.clone();
            let (kube, _) = server(move |request, _| match request.path() {
                path if path.contains("/bagsaccounts") => (200, json!(there)),
                _ => failure(code, word),
            });
            let context = process(&cached(&shown), kube);
            let o = deleted(HOUR, &shown);
            let taken_off = finish(&context, &o, false, &mut Run::of(o.key.clone())).await;
            let o = seen().key(|key| key.metadata.finalizers = None);
            let put_on = put_finalizer_back(&context, &o, &mut Run::of(o.key.clone())).await;
            let told = [taken_off, put_on].map(|outcome| outcome.unwrap_err().reason);
            assert_eq!(told, [expected; 2], "{code}");
        }
    }
}
