//! One key at a time on an idle cluster: from `kubectl apply` to the Secret, and what happens in between.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::{Api, ResourceExt, api::PostParams};
use serde_json::json;

use crate::{
    Sizes,
    audit::{Request, counts},
    secrets::{Seen, create_plain},
    table::{Durations, Table, each, milliseconds, ratio, show_both},
    world::{OWN, Sandbox, World, api_key, namespace_name},
};

const KEYS_PER_ACCOUNT: usize = 10;
/// Between two keys: everything that the first one caused has come to rest.
const PAUSE: Duration = Duration::from_millis(300);

pub(crate) fn measure(sizes: &Sizes) {
    let keys = sizes.keys;
    World::run(keys.div_ceil(KEYS_PER_ACCOUNT), KEYS_PER_ACCOUNT, async |world| {
        world.create_namespaces().await;
        let operator = world.operator().await;
        operator.ready().await;
        world.accounts_ready().await;
        world.audit.quiet(world.audit.mark(), Duration::from_secs(2), Duration::from_secs(30)).await;

        let plain = plain_secrets(&world, keys).await;
        let bags = ask_directly(&world.sandbox, keys).await;
        let mark = world.audit.mark();
        let asked = world.sandbox.total().await;
        let made = make_keys(&world, keys).await;
        let requests = world.audit.quiet(mark, Duration::from_secs(2), Duration::from_secs(30)).await;
        let of_bags = world.sandbox.requests(asked).await;
        report(keys, &plain, &bags, &made);
        per_key("Requests for each key", keys, &requests, &of_bags);
        timelines(&made, &requests, &of_bags);
        let warnings = world.warnings();
        println!("\nwarnings in the operator's log: {warnings}");
        operator.stop().await;
    });
}

/// Creations of one kind of object.
#[derive(Default)]
struct Made {
    /// The create call.
    call: Durations,
    /// From the call's return to the Secret.
    after: Durations,
    /// From the call's beginning to the Secret.
    whole: Durations,
    /// When each began.
    begun: Vec<Timestamp>,
}

impl Made {
    fn push(&mut self, wall: Timestamp, begun: Instant, returned: Instant, seen: Instant) {
        self.begun.push(wall);
        self.call.push(returned.duration_since(begun));
        self.after.push(seen.saturating_duration_since(returned));
        self.whole.push(seen.duration_since(begun));
    }
}

async fn plain_secrets(world: &World, count: usize) -> Made {
    let mut seen = Seen::begin(world.client.clone(), "plain").await;
    let mut made = Made::default();
    let namespace = namespace_name(0);
    for number in 0..count {
        let (wall, begun) = (Timestamp::now(), Instant::now());
        create_plain(&world.client, &namespace, &format!("plain-{number}")).await;
        let returned = Instant::now();
        made.push(wall, begun, returned, seen.one(&format!("{namespace}/plain-{number}")).await);
        tokio::time::sleep(PAUSE / 10).await;
    }
    made
}

async fn make_keys(world: &World, count: usize) -> Made {
    let mut seen = Seen::begin(world.client.clone(), "consumer").await;
    let accounts = count.div_ceil(KEYS_PER_ACCOUNT);
    let mut made = Made::default();
    for number in 0..count {
        let key = api_key(number, number % accounts);
        let namespace = key.namespace().unwrap();
        let api = Api::namespaced(world.client.clone(), &namespace);
        let (wall, begun) = (Timestamp::now(), Instant::now());
        api.create(&PostParams::default(), &key).await.unwrap();
        let returned = Instant::now();
        made.push(wall, begun, returned, seen.one(&format!("{namespace}/{}", key.name_any())).await);
        tokio::time::sleep(PAUSE).await;
    }
    made
}

/// What Bags takes for one key, as any client sees it.
#[derive(Default)]
struct Bags {
    create: Durations,
    check: Durations,
    list: Durations,
}

async fn ask_directly(sandbox: &Sandbox, count: usize) -> Bags {
    let token = sandbox.further_user().await;
    let mut bags = Bags::default();
    for number in 0..count {
        let begun = Instant::now();
        let body = json!({"token": token, "name": format!("Production-Web-{number}")});
        let made = sandbox.post("/api/v1/agent/dev/keys/create", &body).await;
        bags.create.push(begun.elapsed());
        let value = made["response"]["apiKey"]["key"].as_str().unwrap().to_owned();
        let begun = Instant::now();
        sandbox.get("/api/v1/auth/me", &value).await;
        bags.check.push(begun.elapsed());
        let begun = Instant::now();
        sandbox.post("/api/v1/agent/dev/keys", &json!({"token": token})).await;
        bags.list.push(begun.elapsed());
    }
    bags
}

fn report(count: usize, plain: &Made, bags: &Bags, made: &Made) {
    let mut table = Table::new(format!("One key, idle cluster ({count} in sequence): p50 / p99"));
    table.row("ApiKey: the create call", made.call.show(), "");
    table.row("ApiKey: created → Secret seen by a watch", made.after.show(), "");
    let part = |pick: fn(&Durations) -> Duration| pick(&bags.create) + pick(&bags.check);
    let (p50, p99) = (part(Durations::p50), part(Durations::p99));
    table.row("  of it Bags, asked directly: create + check", show_both(p50, p99), "");
    table.row("  (a list, where none is fresh, runs beside)", bags.list.show(), "");
    let own = |whole: Duration, bags: Duration| whole.saturating_sub(bags);
    let share = show_both(own(made.after.p50(), p50), own(made.after.p99(), p99));
    table.row("  own share", share, "≤ 25 / 50 ms");
    table.row("plain Secret: the create call", plain.call.show(), "");
    table.row("plain Secret: begun → seen", plain.whole.show(), "");
    table.row("ApiKey: begun → seen", made.whole.show(), "");
    table.row("ratio of the last two, p50", ratio(made.whole.p50(), plain.whole.p50()), "");
    table.print();
}

/// Prints how many requests there were for each key, by kind.
pub(crate) fn per_key(title: &str, keys: usize, requests: &[Request], of_bags: &[(String, Timestamp)]) {
    let mut table = Table::new(title);
    table.row("to the API server", each(requests.len(), keys), "≤ 15");
    for (kind, count) in counts(requests.iter().map(|request| request.kind(OWN))) {
        table.row(format!("  {kind}"), each(count, keys), "");
    }
    table.row("to Bags", each(of_bags.len(), keys), "≤ 15 in a key's whole life");
    for (kind, count) in counts(of_bags.iter().map(|(kind, _)| kind.clone())) {
        table.row(format!("  {kind}"), each(count, keys), "");
    }
    table.print();
}

/// What happened for the key of median latency, and for the slowest one, where it is far from that.
fn timelines(made: &Made, requests: &[Request], of_bags: &[(String, Timestamp)]) {
    let [median, slowest] = [made.after.place_of(0.5), made.after.place_of(1.0)];
    timeline("One key step by step", made, median, requests, of_bags);
    if made.after.quantile(1.0) > 4 * made.after.p50() {
        timeline(&format!("The slowest one, number {slowest}"), made, slowest, requests, of_bags);
    }
}

fn timeline(title: &str, made: &Made, place: usize, requests: &[Request], of_bags: &[(String, Timestamp)]) {
    let begun = made.begun[place];
    let end = made.begun.get(place + 1).copied().unwrap_or(Timestamp::MAX);
    let within = |at: Timestamp| at >= begun && at < end;
    let since = |at: Timestamp| at.duration_since(begun).unsigned_abs();
    let of_kubernetes = requests.iter().filter(|request| within(request.received)).map(|request| {
        let took = request.answered.duration_since(request.received).unsigned_abs();
        (since(request.received), format!("{}, {} ms", request.kind(OWN), milliseconds(took)))
    });
    let of_bags =
        of_bags.iter().filter(|(_, at)| within(*at)).map(|(kind, at)| (since(*at), format!("Bags: {kind}")));
    let mut steps: Vec<(Duration, String)> = of_kubernetes.chain(of_bags).collect();
    steps.sort();
    println!("\n## {title}: ms from the beginning of the create call\n");
    for (at, step) in steps {
        println!("{:>6}  {step}", milliseconds(at));
    }
}
