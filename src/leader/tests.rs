//! The elector on time that jumps, against an API server that knows one Lease.

mod ice;
mod schedules;
mod server;

use std::{
    cell::Cell,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    ice::Ice,
    server::{Fate, Server, Way, Ways},
};
use super::{
    record::{holder, transitions},
    timings::LeaderTimings,
    *,
};
use crate::{
    clock::{Clock, Randomness, SystemClock},
    leader::elector::Participant,
    metrics::Metrics,
};

/// The wall clock is anything; the monotonic one is the runtime's.
struct OddClock {
    skew: SignedDuration,
    start: Instant,
}

impl OddClock {
    fn new(skew: SignedDuration) -> Self {
        Self { skew, start: SystemClock.monotonic() }
    }
}

impl Clock for OddClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + (self.monotonic() - self.start) + self.skew
    }

    fn monotonic(&self) -> Instant {
        SystemClock.monotonic()
    }
}

/// A process as far as the election is concerned.
struct Process {
    leadership: Leadership,
    metrics: Metrics,
    stop: CancellationToken,
    over: CancellationToken,
    way: Arc<Mutex<Way>>,
    /// Requests that set out.
    sent: Arc<AtomicUsize>,
    ice: Ice,
    task: JoinHandle<Result<(), Loss>>,
}

/// Starts a process whose requests go the way that is set for it.
#[expect(clippy::disallowed_methods, reason = "the test waits for it")]
fn start(server: &Server, who: &'static str, skew: SignedDuration) -> Process {
    let (way, sent) = (Arc::<Mutex<Way>>::default(), Arc::<AtomicUsize>::default());
    let ways: Ways = {
        let (way, sent) = (way.clone(), sent.clone());
        Arc::new(move || {
            sent.fetch_add(1, Ordering::Relaxed);
            *way.lock().unwrap()
        })
    };
    let (stop, over) = (CancellationToken::new(), CancellationToken::new());
    let (elector, leadership, metrics) = elector(server, who, ways, skew, 1);
    let ice = Ice::default();
    let task = {
        let (stop, over) = (stop.clone(), over.clone());
        tokio::spawn(ice.around(async move { elector.run(&stop, &over).await }))
    };
    Process { leadership, metrics, stop, over, way, sent, ice, task }
}

fn elector(
    server: &Server,
    who: &'static str,
    ways: Ways,
    skew: SignedDuration,
    seed: u64,
) -> (Elector, Leadership, Metrics) {
    let clock: Arc<dyn Clock> = Arc::new(OddClock::new(skew));
    let metrics = Metrics::new();
    let leadership = Leadership::awaited(clock.clone(), metrics.clone());
    let participant = Participant {
        client: server.client(who, ways),
        namespace: "bags-system".into(),
        instance: who.into(),
        timings: LeaderTimings::default(),
        clock,
        randomness: Randomness::from_seed(seed),
        metrics: metrics.clone(),
    };
    (Elector::new(participant, leadership.clone()), leadership, metrics)
}

impl Process {
    fn goes(&self, fate: Fate) {
        self.way.lock().unwrap().fate = fate;
    }

    /// SIGKILL.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Lets so much time pass.
#[expect(clippy::disallowed_methods, reason = "it is the time itself that is waited for")]
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

const SECOND: Duration = Duration::from_secs(1);
const NONE: SignedDuration = SignedDuration::ZERO;

/// Waits until a process leads; returns how long that took.
async fn leads(process: &Process) -> Duration {
    let begun = SystemClock.monotonic();
    tokio::time::timeout(60 * SECOND, process.leadership.begun()).await.expect("it leads in time");
    assert!(process.leadership.holds());
    SystemClock.monotonic() - begun
}

fn held(server: &Server) -> Option<String> {
    server.lease().as_ref().and_then(holder).map(|holder| holder.split('_').next().unwrap().to_owned())
}

fn holder_is(server: &Server, who: Option<&str>) {
    assert_eq!(held(server).as_deref(), who);
}

#[tokio::test(start_paused = true)]
async fn a_free_lease_is_taken_at_once_and_renewed_every_two_seconds() {
    let server = Server::default();
    let process = start(&server, "a", NONE);
    assert!(!process.leadership.holds());
    assert_eq!(leads(&process).await, Duration::ZERO);
    pass(60 * SECOND).await;
    assert!(process.leadership.holds() && !process.stop.is_cancelled());
    let requests = server.from("a");
    assert_eq!(requests[..2], [(Method::GET, 404), (Method::POST, 201)]);
    assert!(requests[2..].iter().all(|request| *request == (Method::PUT, 200)), "{requests:?}");
    assert!((25..=30).contains(&requests[2..].len()), "{}", requests.len());
    let lease = server.lease().unwrap();
    let spec = lease.spec.as_ref().unwrap();
    assert_eq!((transitions(&lease), spec.lease_duration_seconds), (0, Some(15)));
    assert!(spec.renew_time > spec.acquire_time);
    assert!(process.metrics.encode().contains("bags_operator_leader 1\n"));
}

#[tokio::test(start_paused = true)]
async fn another_process_waits_as_long_as_the_lease_is_renewed_and_takes_over_when_it_was_not() {
    let server = Server::default();
    // The first one's wall clock is an hour ahead, or behind: nobody goes by it.
    for (skew, takes_over) in [(SignedDuration::from_hours(1), 1), (SignedDuration::from_hours(-1), 3)] {
        let first = start(&server, "a", skew);
        leads(&first).await;
        let second = start(&server, "b", NONE);
        pass(300 * SECOND).await;
        assert!(first.leadership.holds() && !second.leadership.holds());
        holder_is(&server, Some("a"));
        first.kill().await;
        let took = leads(&second).await;
        // Fifteen seconds from the last renewal that it saw, which was before the death.
        assert!(took > 10 * SECOND && took <= 15 * SECOND + SECOND / 100, "{took:?}");
        holder_is(&server, Some("b"));
        assert_eq!(transitions(&server.lease().unwrap()), takes_over);
        second.stop.cancel();
        second.over.cancel();
        second.task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_lease_is_not_taken_for_expired_by_a_process_that_has_just_come() {
    let server = Server::default();
    let first = start(&server, "a", NONE);
    leads(&first).await;
    first.kill().await;
    pass(3600 * SECOND).await;
    let second = start(&server, "b", NONE);
    assert_eq!(leads(&second).await, 15 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn of_two_that_take_at_the_same_time_one_meets_a_conflict_and_waits() {
    let server = Server::default();
    let first = start(&server, "a", NONE);
    leads(&first).await;
    first.kill().await;
    // Both see it for the first time, both see it expire, both look once more and both write, before either is answered.
    let others = [start(&server, "b", NONE), start(&server, "c", NONE)];
    pass(14 * SECOND).await;
    for process in &others {
        process.way.lock().unwrap().there = SECOND / 10;
    }
    pass(6 * SECOND).await;
    let leaders: Vec<_> = others.iter().map(|process| process.leadership.holds()).collect();
    let (winner, loser) = if leaders[0] { ("b", "c") } else { ("c", "b") };
    assert_eq!(leaders.iter().filter(|leads| **leads).count(), 1);
    holder_is(&server, Some(winner));
    let writes = |who| server.from(who).into_iter().find(|(method, _)| method == Method::PUT);
    assert_eq!((writes(winner), writes(loser)), (Some((Method::PUT, 200)), Some((Method::PUT, 409))));
    assert_eq!(transitions(&server.lease().unwrap()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_looked_into_and_a_lease_that_is_still_ours_is_kept() {
    let server = Server::default();
    let process = start(&server, "a", NONE);
    leads(&process).await;
    server.edit(|lease| lease["metadata"]["labels"] = json!({"team": "platform"}));
    pass(60 * SECOND).await;
    assert!(process.leadership.holds());
    let requests = server.from("a");
    assert_eq!(requests[2..5], [(Method::PUT, 409), (Method::GET, 200), (Method::PUT, 200)]);
    let lease = server.lease().unwrap();
    assert_eq!(lease.metadata.labels.unwrap()["team"], "platform", "what others wrote is kept");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_finds_the_lease_in_other_hands_stops_at_the_next_renewal() {
    type Change = fn(&mut serde_json::Value);
    let cases: [(&str, Option<Change>, Loss); 4] = [
        (
            "somebody took it",
            Some(|lease| lease["spec"]["holderIdentity"] = json!("z_1")),
            Loss::TakenBy("z_1".into()),
        ),
        ("it was drained", Some(|lease| lease["spec"]["holderIdentity"] = json!(DRAINED)), Loss::Drained),
        ("it was cleared", Some(|lease| lease["spec"]["holderIdentity"] = json!("")), Loss::Vanished),
        ("it was deleted", None, Loss::Vanished),
    ];
    for (case, change, loss) in cases {
        let server = Server::default();
        let process = start(&server, "a", NONE);
        leads(&process).await;
        match change {
            Some(change) => server.edit(change),
            None => server.state().lease = None,
        }
        let left = server.lease();
        let begun = SystemClock.monotonic();
        tokio::time::timeout(60 * SECOND, process.stop.cancelled()).await.expect(case);
        assert!(SystemClock.monotonic() - begun <= SECOND * 5 / 2, "{case}");
        assert!(!process.leadership.holds(), "{case}");
        assert_eq!(process.task.await.unwrap(), Err(loss), "{case}");
        assert_eq!(server.lease(), left, "{case}: it is not ours to write");
        assert!(process.metrics.encode().contains("bags_operator_leader 0\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_api_server_is_out_of_reach_for_ten_seconds_everything_stops_at_that_moment() {
    // Also where its answers were slow: what counts is when the last one was asked for.
    for (fate, back) in [(Fate::Lost, 0), (Fate::Unanswered, 0), (Fate::Refused, 0), (Fate::Lost, 4)] {
        let server = Server::default();
        let process = start(&server, "a", NONE);
        leads(&process).await;
        process.way.lock().unwrap().back = back * SECOND;
        pass(61 * SECOND).await;
        let last_acknowledged = server.state().arrived.last().unwrap().at;
        process.goes(fate);
        tokio::time::timeout(60 * SECOND, process.stop.cancelled()).await.expect("it stops");
        assert_eq!(SystemClock.monotonic() - last_acknowledged, 10 * SECOND, "{fate:?}, {back}");
        assert!(!process.leadership.holds());
        assert_eq!(process.task.await.unwrap(), Err(Loss::NotRenewed(10 * SECOND)), "{fate:?}, {back}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stood_still_too_long_knows_it_before_it_does_anything() {
    let server = Server::default();
    let process = start(&server, "a", NONE);
    leads(&process).await;
    process.ice.freeze(true);
    pass(10 * SECOND).await;
    assert!(!process.leadership.holds() && !process.stop.is_cancelled(), "asked before the elector moves");
    let requests = server.from("a");
    process.ice.freeze(false);
    assert_eq!(process.task.await.unwrap(), Err(Loss::NotRenewed(10 * SECOND)));
    assert_eq!(server.from("a"), requests);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_while_it_took_the_lease_looks_again_before_it_leads() {
    let server = Server::default();
    let process = start(&server, "a", NONE);
    process.way.lock().unwrap().back = SECOND;
    pass(SECOND * 3 / 2).await;
    assert_eq!(server.from("a").last(), Some(&(Method::POST, 201)), "its answer is on the way");
    process.ice.freeze(true);
    pass(12 * SECOND).await;
    process.ice.freeze(false);
    pass(SECOND / 10).await;
    assert!(!process.leadership.holds(), "that answer is too old");
    leads(&process).await;
    assert_eq!(transitions(&server.lease().unwrap()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_comes_back_within_its_deadline_goes_on() {
    for fate in [Fate::Lost, Fate::Unanswered, Fate::Refused] {
        let server = Server::default();
        let process = start(&server, "a", NONE);
        leads(&process).await;
        for _ in 0..20 {
            process.goes(fate);
            pass(5 * SECOND).await;
            assert!(process.leadership.holds(), "{fate:?}");
            process.goes(Fate::Answered);
            pass(7 * SECOND).await;
        }
        assert!(process.leadership.holds() && !process.stop.is_cancelled(), "{fate:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_never_outlives_what_is_left_of_the_leadership() {
    let server = Server::default();
    let process = start(&server, "a", NONE);
    leads(&process).await;
    // By less than a request may take, then by more.
    process.way.lock().unwrap().back = 4 * SECOND;
    pass(300 * SECOND).await;
    assert!(process.leadership.holds(), "slow is not lost");
    process.way.lock().unwrap().back = 6 * SECOND;
    pass(30 * SECOND).await;
    assert_eq!(process.task.await.unwrap(), Err(Loss::NotRenewed(10 * SECOND)));
}

#[tokio::test(start_paused = true)]
async fn after_sigterm_the_lease_is_kept_until_saves_have_ended_and_is_then_free() {
    let server = Server::default();
    let (first, second) = (start(&server, "a", NONE), start(&server, "b", NONE));
    // Whichever came first.
    tokio::select! { () = first.leadership.begun() => {}, () = second.leadership.begun() => {} }
    let (leader, other) = if first.leadership.holds() { (first, second) } else { (second, first) };
    leader.stop.cancel();
    pass(100 * SECOND).await;
    assert!(leader.leadership.holds() && !other.leadership.holds(), "a save runs");
    leader.over.cancel();
    assert_eq!(leader.task.await.unwrap(), Ok(()));
    assert!(!leader.leadership.holds());
    let lease = server.lease().unwrap();
    assert_eq!(holder(&lease), None);
    assert_eq!(lease.spec.unwrap().lease_duration_seconds, Some(1));
    assert!(leads(&other).await <= SECOND * 12 / 5, "one pause");
    assert_eq!(transitions(&server.lease().unwrap()), 1);
}

#[tokio::test(start_paused = true)]
async fn an_end_in_the_middle_of_a_write_still_leaves_the_lease_free() {
    let tenth = SECOND / 10;
    for first_write in [true, false] {
        for (there, back) in [(tenth, Duration::ZERO), (Duration::ZERO, tenth)] {
            let server = Server::default();
            let process = start(&server, "a", NONE);
            if !first_write {
                leads(&process).await;
            }
            *process.way.lock().unwrap() = Way { there, back, fate: Fate::Answered };
            // The first thing that is sent is a look, then comes the write; a leader only writes.
            let sent = process.sent.load(Ordering::Relaxed);
            while process.sent.load(Ordering::Relaxed) < sent + if first_write { 2 } else { 1 } {
                pass(SECOND / 100).await;
            }
            process.stop.cancel();
            process.over.cancel();
            assert_eq!(process.task.await.unwrap(), Ok(()));
            pass(SECOND).await;
            let written = server.from("a").iter().any(|(method, code)| method != Method::GET && *code < 300);
            assert!(written, "the write arrived");
            holder_is(&server, None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_waits_ends_at_once_and_leaves_the_lease_alone() {
    let server = Server::default();
    let first = start(&server, "a", NONE);
    leads(&first).await;
    let second = start(&server, "b", NONE);
    pass(30 * SECOND).await;
    let begun = SystemClock.monotonic();
    second.stop.cancel();
    second.over.cancel();
    assert_eq!(second.task.await.unwrap(), Ok(()));
    assert_eq!(SystemClock.monotonic(), begun);
    assert!(server.from("b").iter().all(|(method, _)| method == Method::GET));
    assert!(first.leadership.holds());
}

#[tokio::test(start_paused = true)]
async fn a_take_whose_answer_was_lost_is_known_for_ours_at_the_next_look() {
    let server = Server::default();
    let process = start(&server, "a", NONE);
    process.goes(Fate::Unanswered);
    pass(SECOND).await;
    process.goes(Fate::Answered);
    let took = leads(&process).await;
    assert!(took < 10 * SECOND, "{took:?}");
    assert_eq!(transitions(&server.lease().unwrap()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_drained_installation_is_left_alone_until_somebody_clears_the_lease() {
    let server = Server::default();
    let lease = json!({
        "metadata": {"name": LEASE_NAME, "uid": "uid-0", "resourceVersion": "0"},
        "spec": {"holderIdentity": DRAINED, "leaseDurationSeconds": 1},
    });
    server.state().lease = Some(lease);
    let process = start(&server, "a", NONE);
    pass(24 * 3600 * SECOND).await;
    assert!(!process.leadership.holds());
    assert!(process.metrics.encode().contains("bags_operator_drained 1\n"));
    assert!(server.from("a").iter().all(|(method, _)| method == Method::GET));
    server.edit(|lease| lease["spec"]["holderIdentity"] = json!(""));
    assert!(leads(&process).await <= SECOND * 12 / 5);
    assert!(process.metrics.encode().contains("bags_operator_drained 0\n"));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_runs_alone_leads_from_the_beginning_and_without_end() {
    let leadership = Leadership::alone(Arc::new(SystemClock), Metrics::new());
    leadership.begun().await;
    pass(1000 * SECOND).await;
    assert!(leadership.holds());
}

#[tokio::test(start_paused = true)]
async fn the_clock_ends_a_leadership_of_which_nothing_was_heard() {
    let leadership = Leadership::awaited(Arc::new(SystemClock), Metrics::new());
    leadership.lead_until(SystemClock.monotonic() + 10 * SECOND);
    assert!(leadership.holds());
    pass(10 * SECOND).await;
    assert!(!leadership.holds(), "nobody called lose(), as nobody had the time to");
}

#[tokio::test(start_paused = true)]
async fn work_goes_no_step_further_once_the_lease_has_run_out() {
    for (passed, goes_on) in [(9, true), (10, false)] {
        let leadership = Leadership::awaited(Arc::new(SystemClock), Metrics::new());
        leadership.lead_until(SystemClock.monotonic() + 10 * SECOND);
        let (answer, answered) = oneshot::channel();
        let taken = Cell::new(false);
        let mut work = pin!(leadership.during(async {
            answered.await.unwrap();
            taken.set(true);
        }));
        assert!(work.as_mut().now_or_never().is_none(), "it waits for an answer");
        // The process stands still; when it goes on, the answer is there, and nobody has called lose() yet.
        pass(passed * SECOND).await;
        answer.send(()).unwrap();
        assert_eq!(work.now_or_never(), Some(goes_on.then_some(())), "after {passed} s");
        assert_eq!(taken.get(), goes_on, "after {passed} s");
    }
}
