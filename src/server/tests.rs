use axum::routing::get;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{PrivateKeyDer, ServerName},
    },
};

use super::*;

const LIMITS: Limits = Limits {
    connections: 1,
    first_request: Duration::from_secs(5),
    idle: Duration::from_mins(3),
    lifetime: Duration::from_hours(24),
};

fn serve(tls: Option<TlsAcceptor>) -> DuplexStream {
    serve_until(CancellationToken::new(), tls, Router::new().route("/", get(async || "here")))
}

fn serve_until(over: CancellationToken, tls: Option<TlsAcceptor>, router: Router) -> DuplexStream {
    let (client, server) = duplex(64 * 1024);
    let mut connections = JoinSet::new();
    let sign = Peers::default().sign();
    connections.spawn(connection(server, router, LIMITS, tls, sign, over));
    connections.detach_all();
    client
}

/// A connection whose handshake is done.
async fn shake_hands() -> TlsStream<DuplexStream> {
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let certified = rcgen::generate_simple_self_signed(["webhook".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let certificate = certified.cert.der().clone();
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = serve(Some(TlsAcceptor::from(Arc::new(server))));
    let name = ServerName::try_from("webhook").unwrap();
    TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap()
}

async fn pass(duration: Duration) {
    let _ = timeout(duration, std::future::pending::<()>()).await;
}

/// What is answered to a request; empty where the connection was closed.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let request = b"GET / HTTP/1.1\r\nhost: webhook\r\nconnection: close\r\n\r\n";
    let mut answer = Vec::new();
    if stream.write_all(request).await.is_ok() {
        let _ = stream.read_to_end(&mut answer).await;
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_api_server_opened_for_later_is_there_when_it_is_needed() {
    let stream = shake_hands().await;
    pass(LIMITS.first_request * 20).await;
    assert!(ask(stream).await.ends_with("here"));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_byte_by_byte_has_no_longer_than_one_that_does_not_come() {
    let mut stream = shake_hands().await;
    stream.write_all(b"GET / HTTP/1.1\r\nslow: ").await.unwrap();
    let (mut seconds, mut byte) = (0, [0]);
    while timeout(Duration::from_secs(1), stream.read(&mut byte)).await.is_err() {
        seconds += 1;
        assert!(seconds <= LIMITS.idle.as_secs(), "it is still waited for");
        if stream.write_all(b"a").await.is_err() || stream.flush().await.is_err() {
            break;
        }
    }
    assert!(seconds + 2 >= LIMITS.idle.as_secs(), "it was sent away after {seconds} s");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_never_used_is_closed_in_the_end() {
    let stream = shake_hands().await;
    pass(LIMITS.idle * 2).await;
    assert_eq!(ask(stream).await, "");
}

#[tokio::test(start_paused = true)]
async fn without_tls_a_connection_without_a_request_is_closed_soon() {
    let stream = serve(None);
    pass(LIMITS.first_request * 2).await;
    assert_eq!(ask(stream).await, "");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_as_long_as_a_review_may_comes_although_the_server_ends() {
    let slow = async || {
        pass(Duration::from_millis(4500)).await;
        "here"
    };
    let over = CancellationToken::new();
    let stream = serve_until(over.clone(), None, Router::new().route("/", get(slow)));
    let end = async {
        pass(Duration::from_millis(100)).await;
        over.cancel();
    };
    let (answer, ()) = tokio::join!(ask(stream), end);
    assert!(answer.ends_with("here"), "{answer}");
}

/// Before the end of a test's patience, which no limit of the server is shorter than.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), what).await.expect("it comes soon")
}

#[tokio::test]
async fn where_all_connections_are_taken_by_silent_ones_the_next_is_answered_at_once() {
    const HOUR: Duration = Duration::from_hours(1);
    let limits = Limits { connections: 2, first_request: HOUR, idle: HOUR, lifetime: HOUR };
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, stop) = (server.address(), CancellationToken::new());
    let router = Router::new().route("/", get(async || "here"));
    let clients = async {
        let mut silent = Vec::new();
        for _ in 0..2 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(soon(ask(TcpStream::connect(address).await.unwrap())).await.ends_with("here"));
        // The first of them made way, the second is there to be used.
        assert_eq!(soon(silent[0].read(&mut [0])).await.unwrap_or(0), 0);
        assert!(soon(ask(silent.remove(1))).await.ends_with("here"));
        stop.cancel();
    };
    tokio::join!(server.serve(router, limits, None, stop.clone()), clients);
}
