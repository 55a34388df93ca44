use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::clock::SystemClock;

/// A clock that stands still until it is moved.
#[derive(Clone)]
struct HandClock(Arc<Mutex<Instant>>);

impl Clock for HandClock {
    fn wall(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }

    fn monotonic(&self) -> Instant {
        *self.0.lock().unwrap()
    }
}

fn hand_clock() -> HandClock {
    HandClock(Arc::new(Mutex::new(SystemClock.monotonic())))
}

fn state(clock: &HandClock) -> AdminState {
    AdminState {
        readiness: Readiness::awaiting(["ApiKey", "BagsAccount"]),
        heartbeat: Heartbeat::new(Arc::new(clock.clone())),
        metrics: Metrics::new(),
    }
}

struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[expect(clippy::disallowed_methods, reason = "the test is the one that waits for the server")]
async fn serve(state: &AdminState) -> Served {
    let server = AdminServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = server.address();
    let stop = CancellationToken::new();
    let task = tokio::spawn(server.serve(state.clone(), stop.clone()));
    Served { address, stop, task }
}

/// Everything that the server answers until it closes the connection.
async fn answer(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    answer(address, &format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn ready_means_every_watch_is_synced_and_no_shutdown_began() {
    let state = state(&hand_clock());
    let served = serve(&state).await;
    let waiting = get(served.address, "/readyz").await;
    assert!(waiting.starts_with("HTTP/1.1 503"), "{waiting}");
    assert!(waiting.ends_with("waiting for: ApiKey, BagsAccount\n"), "{waiting}");
    state.readiness.synced("ApiKey");
    assert!(!state.readiness.is_ready());
    state.readiness.synced("BagsAccount");
    assert!(get(served.address, "/readyz").await.starts_with("HTTP/1.1 200"));
    state.readiness.shut_down();
    assert!(get(served.address, "/readyz").await.ends_with("shutting down\n"));
}

#[tokio::test]
async fn alive_means_a_beat_within_half_a_minute() {
    let clock = hand_clock();
    let state = state(&clock);
    let served = serve(&state).await;
    assert!(get(served.address, "/livez").await.starts_with("HTTP/1.1 200"));
    *clock.0.lock().unwrap() += Heartbeat::LONGEST_SILENCE;
    assert!(get(served.address, "/livez").await.starts_with("HTTP/1.1 503"));
    state.heartbeat.beat();
    assert!(get(served.address, "/livez").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_running_heartbeat_beats_until_it_is_stopped() {
    let clock = hand_clock();
    let heartbeat = Heartbeat::new(Arc::new(clock.clone()));
    *clock.0.lock().unwrap() += Heartbeat::LONGEST_SILENCE;
    assert!(!heartbeat.is_alive());
    let stop = CancellationToken::new();
    let stopping = async {
        let _ = timeout(Heartbeat::INTERVAL * 2, std::future::pending::<()>()).await;
        stop.cancel();
    };
    tokio::join!(heartbeat.run(stop.clone()), stopping);
    assert!(heartbeat.is_alive());
}

#[tokio::test]
async fn metrics_are_served_with_their_content_type() {
    let state = state(&hand_clock());
    state.metrics.save_retried();
    let served = serve(&state).await;
    let page = get(served.address, "/metrics").await;
    assert!(page.contains("content-type: application/openmetrics-text; version=1.0.0"), "{page}");
    assert!(page.contains("bags_operator_save_retries_total 1\n"), "{page}");
}

#[tokio::test]
async fn there_is_nothing_else_and_nothing_to_write() {
    let served = serve(&state(&hand_clock())).await;
    for path in ["/", "/debug/pprof", "/readyz/ApiKey"] {
        assert!(get(served.address, path).await.starts_with("HTTP/1.1 404"), "{path}");
    }
    let post = "POST /metrics HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert!(answer(served.address, post).await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let served = serve(&state(&hand_clock())).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let head = format!("GET /livez HTTP/1.1\r\nx: {}", "x".repeat(64 * 1024));
    // The server may close before it has read everything: then the write or the read fails.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_dawdles_loses_its_connection() {
    let served = serve(&state(&hand_clock())).await;
    let half = answer(served.address, "GET /livez HTTP/1.1\r\nhost:").await;
    assert!(!half.starts_with("HTTP/1.1 200"), "{half}");
    let idle = answer(served.address, "GET /livez HTTP/1.1\r\nhost: admin\r\n\r\n").await;
    assert!(idle.starts_with("HTTP/1.1 200"), "answered, then closed while idle: {idle}");
}

#[tokio::test]
async fn the_server_stops_when_told_to_with_a_client_connected() {
    let served = serve(&state(&hand_clock())).await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: admin\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    served.stop.cancel();
    served.task.await.unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn a_taken_address_is_named_with_the_flag() {
    let first = AdminServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let error = AdminServer::bind(first.address()).await.unwrap_err().to_string();
    assert!(error.contains(&first.address().to_string()) && error.contains("--admin-listen"), "{error}");
}
