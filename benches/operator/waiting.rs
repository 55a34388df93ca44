//! Many ApiKeys that wait for an account that is full: what a write of the account's status costs, as it wakes them all.

use std::time::{Duration, Instant};

use bags_operator::api::{ApiKey, BagsAccount};
use futures::{StreamExt, stream};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{
    Sizes, process,
    secrets::CLIENTS,
    table::{Durations, Table, seconds},
    world::{Operator, World, account_name, api_key},
};

/// Keys that the account has, and may have.
const LIMIT: usize = 10;
/// Writes that are measured.
const WRITES: usize = 5;
/// Whoever uses less than two ticks of the processor's clock in so long is at rest; the Lease is renewed meanwhile.
const REST: Duration = Duration::from_millis(500);
const LITTLE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) fn measure(sizes: &Sizes) {
    let waiting = sizes.waiting;
    World::run(1, LIMIT, async |world| {
        world.create_namespaces().await;
        let accounts = Api::<BagsAccount>::all(world.client.clone());
        let queue = json!({"spec": {"admission": "Queue"}});
        accounts.patch(&account_name(0), &PatchParams::default(), &Patch::Merge(&queue)).await.unwrap();
        let operator = world.operator().await;
        operator.ready().await;
        world.accounts_ready().await;
        create(&world, 0..LIMIT).await;
        told(&world, "Issued", LIMIT).await;
        at_rest(&operator).await;
        let alone = writes(&accounts, &operator).await;

        let (begun, before) = (Instant::now(), process::cpu(operator.pid()));
        create(&world, LIMIT..LIMIT + waiting).await;
        told(&world, "QuotaExceeded", waiting).await;
        let told = begun.elapsed();
        at_rest(&operator).await;
        let cpu = process::cpu(operator.pid()) - before;
        let beside = writes(&accounts, &operator).await;

        let mut table = Table::new(format!("{waiting} ApiKeys that wait for a full account"));
        table.row("created → each says that it waits", seconds(told), "");
        table.row("the operator's CPU time until then", seconds(cpu), "");
        table.row("  for a write of the account's status after that: p50 / p99", beside.show(), "");
        table.row("  the same while nobody waits", alone.show(), "");
        table.row("resident, at most", process::memory(operator.pid()).1, "");
        table.row("warnings in the operator's log", world.warnings().to_string(), "0");
        table.print();
        operator.stop().await;
    });
}

async fn create(world: &World, numbers: std::ops::Range<usize>) {
    let client = &world.client;
    stream::iter(numbers)
        .for_each_concurrent(CLIENTS, |number| async move {
            let key = api_key(number, 0);
            let api = Api::namespaced(client.clone(), &key.namespace().unwrap());
            api.create(&PostParams::default(), &key).await.unwrap();
        })
        .await;
}

/// Waits until so many ApiKeys give this reason for being ready, or not.
async fn told(world: &World, reason: &str, count: usize) {
    let keys = Api::<ApiKey>::all(world.client.clone());
    let end = Instant::now() + PATIENCE;
    loop {
        let all = keys.list(&ListParams::default()).await.unwrap();
        let say = |key: &&ApiKey| {
            let mut conditions = key.status.iter().flat_map(|status| &status.conditions);
            conditions.any(|condition| condition.type_ == "Ready" && condition.reason == reason)
        };
        let found = all.iter().filter(say).count();
        if found == count {
            return;
        }
        assert!(Instant::now() < end, "{found} of {count} say {reason}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// CPU time of the operator for each of some writes that change nothing that it looks at.
async fn writes(accounts: &Api<BagsAccount>, operator: &Operator) -> Durations {
    let mut all = Durations::default();
    for number in 0..WRITES {
        let mut account = accounts.get(&account_name(0)).await.unwrap();
        let conditions = &mut account.status.as_mut().expect("it has keys").conditions;
        conditions.retain(|condition| condition.type_ != "Bench");
        let condition = json!({"type": "Bench", "status": "True", "reason": "Written", "message": number.to_string(),
                               "lastTransitionTime": "2026-01-01T00:00:00Z"});
        conditions.push(serde_json::from_value(condition).unwrap());
        let before = process::cpu(operator.pid());
        accounts.replace_status(&account.name_any(), &PostParams::default(), &account).await.unwrap();
        at_rest(operator).await;
        all.push(process::cpu(operator.pid()) - before);
    }
    all
}

async fn at_rest(operator: &Operator) {
    let end = Instant::now() + PATIENCE;
    loop {
        let before = process::cpu(operator.pid());
        tokio::time::sleep(REST).await;
        if process::cpu(operator.pid()) - before < LITTLE {
            return;
        }
        assert!(Instant::now() < end, "the operator does not come to rest");
    }
}
