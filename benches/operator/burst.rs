//! Many keys at once, then at rest, then a restart beside them.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use kube::{Api, ResourceExt, api::PostParams};

use crate::{
    Sizes,
    audit::counts,
    one_key::per_key,
    process,
    secrets::{CLIENTS, Seen, plain_burst},
    table::{Table, ratio, seconds},
    world::{OWN, Operator, World, api_key, namespace_name},
};

const QUIET: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn measure(sizes: &Sizes) {
    let keys = sizes.accounts * sizes.keys_per_account;
    World::run(sizes.accounts, sizes.keys_per_account, async |world| {
        world.create_namespaces().await;
        let operator = world.operator().await;
        operator.ready().await;
        world.accounts_ready().await;
        world.audit.quiet(world.audit.mark(), Duration::from_secs(2), LIMIT).await;
        let plain = plain_burst(&world.client, &namespace_name(0), keys).await;
        burst(&world, &operator, sizes, plain).await;
        idle(&world, &operator, keys, sizes.idle).await;
        restarts(&world, operator, keys).await;
    });
}

async fn burst(world: &World, operator: &Operator, sizes: &Sizes, plain: Duration) {
    let keys = sizes.accounts * sizes.keys_per_account;
    let (before, _) = process::memory(operator.pid());
    let programs = [operator.pid(), world.sandbox.pid()];
    let cpu = || (process::cpu(programs[0]), process::cpu(programs[1]), process::cpu_of_others(&programs));
    let mark = world.audit.mark();
    let asked = world.sandbox.total().await;
    let mut seen = Seen::begin(world.client.clone(), "consumer").await;
    let cpu_before = cpu();
    let (wall, begun) = (jiff::Timestamp::now(), Instant::now());
    let creations = async {
        let client = &world.client;
        stream::iter(0..keys)
            .for_each_concurrent(CLIENTS, |number| async move {
                let key = api_key(number, number % sizes.accounts);
                let api = Api::namespaced(client.clone(), &key.namespace().unwrap());
                api.create(&PostParams::default(), &key).await.unwrap();
            })
            .await;
        begun.elapsed()
    };
    let (all, applied) = tokio::join!(seen.many(keys), creations);
    let last = all.values().max().copied().unwrap_or(begun).duration_since(begun);
    let cpu_at_last = cpu();
    let requests = world.audit.quiet(mark, QUIET, LIMIT).await;
    let cpu_after = cpu();
    let of_bags = world.sandbox.requests(asked).await;
    let rest = requests.iter().map(|request| request.answered).max().unwrap_or(wall).duration_since(wall);
    let (resident, peak) = process::memory(operator.pid());

    let mut table = Table::new(format!("{keys} ApiKeys of {} accounts at once", sizes.accounts));
    table.row("all ApiKeys stored", seconds(applied), "");
    table.row("all Secrets seen by a watch", seconds(last), "≤ 10 s");
    table.row("the operator's last request", seconds(rest.unsigned_abs()), "");
    table.row("baseline: as many plain Secrets, 16 clients", seconds(plain), "");
    table.row("ratio", ratio(last, plain), "");
    table.row("the operator's CPU time, to the end", seconds(cpu_after.0 - cpu_before.0), "≤ 5 s");
    table.row("meanwhile the control plane's, to the last Secret", seconds(cpu_at_last.2 - cpu_before.2), "");
    table.row("meanwhile the sandbox's", seconds(cpu_at_last.1 - cpu_before.1), "");
    table.row("resident before, after", format!("{before}, {resident}"), "≤ 40 MiB");
    table.row("most resident", peak, "≤ 40 MiB");
    table.row("ApiKeys that are Ready", world.keys_ready().await.to_string(), &keys.to_string());
    table.row("warnings in the operator's log", world.warnings().to_string(), "0");
    table.print();
    per_key("Requests for each key of the burst", keys, &requests, &of_bags);
}

async fn idle(world: &World, operator: &Operator, keys: usize, window: Duration) {
    let mark = world.audit.mark();
    let asked = world.sandbox.total().await;
    let cpu = process::cpu(operator.pid());
    tokio::time::sleep(window).await;
    let requests = world.audit.since(mark);
    let of_bags = world.sandbox.requests(asked).await;
    let cpu = process::cpu(operator.pid()) - cpu;
    let minutes = window.as_secs_f64() / 60.0;
    let rate = |count: usize| format!("{:.1}", count as f64 / minutes);

    let mut table = Table::new(format!("Idle with {keys} present, {} s: per minute", window.as_secs()));
    table.row("requests to the API server", rate(requests.len()), "≤ 120");
    for (kind, count) in counts(requests.iter().map(|request| request.kind(OWN))) {
        table.row(format!("  {kind}"), rate(count), "");
    }
    table.row("requests to Bags", rate(of_bags.len()), "≤ 0.2 for each account");
    for (kind, count) in counts(of_bags.iter().map(|(kind, _)| kind.clone())) {
        table.row(format!("  {kind}"), rate(count), "");
    }
    table.row("the operator's CPU time", format!("{:.2} s", cpu.as_secs_f64() / minutes), "");
    table.row("resident", process::memory(operator.pid()).0, "≤ 40 MiB");
    table.print();
}

/// Restarts twice. The first one learns what the accounts' next lists would have told (last uses, whose keys a list
/// shows) and writes it down; after the second one there is nothing new.
async fn restarts(world: &World, mut operator: Operator, keys: usize) {
    for title in ["First restart", "Second restart, nothing new to learn"] {
        operator = restart(world, operator, keys, &format!("{title}: {keys} present")).await;
    }
    operator.stop().await;
}

async fn restart(world: &World, operator: Operator, keys: usize, title: &str) -> Operator {
    let stopped = operator.stop().await;
    let mark = world.audit.mark();
    let asked = world.sandbox.total().await;
    let operator = world.operator().await;
    let ready = operator.ready().await;
    let reconciled = operator.reconciled(keys).await;
    let cpu = process::cpu(operator.pid());
    let requests = world.audit.quiet(mark, QUIET, LIMIT).await;
    let of_bags = world.sandbox.requests(asked).await;
    let read: HashSet<String> = requests.iter().filter_map(|request| request.consumer_read(OWN)).collect();
    let writes = requests.iter().filter(|request| request.writes()).count();

    let mut table = Table::new(title);
    table.row("SIGTERM → ended", seconds(stopped), "≤ 3 s");
    table.row("start → /readyz", seconds(ready), "≤ 0.1 s");
    table.row("start → all reconciled", seconds(reconciled), "≤ 2 s");
    table.row("the operator's CPU time until then", seconds(cpu), "");
    table.row("consumer Secrets looked at", read.len().to_string(), &keys.to_string());
    table.row("writes", writes.to_string(), "0");
    table.row("requests to the API server", requests.len().to_string(), "");
    for (kind, count) in counts(requests.iter().map(|request| request.kind(OWN))) {
        table.row(format!("  {kind}"), count.to_string(), "");
    }
    table.row("requests to Bags", of_bags.len().to_string(), "");
    for (kind, count) in counts(of_bags.iter().map(|(kind, _)| kind.clone())) {
        table.row(format!("  {kind}"), count.to_string(), "");
    }
    table.row("resident", process::memory(operator.pid()).0, "≤ 40 MiB");
    table.print();
    operator
}
