//! The production leaf, over real sockets.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use super::*;
use crate::clock::SystemClock;

/// Longer than anything here takes that works.
const PATIENT: Duration = Duration::from_secs(20);

/// What the server does with one connection; it returns how many requests it got.
type Serve = fn(&mut TcpStream) -> usize;

/// One connection's server on a thread of its own, and its address.
fn server(serve: Serve) -> (String, JoinHandle<usize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = move || {
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENT)).unwrap();
        serve(&mut stream)
    };
    (address, thread::spawn(serve))
}

/// The server's count, once it has seen its connection end. The runtime goes on meanwhile: it is what ends it.
async fn served(server: JoinHandle<usize>) -> usize {
    tokio::task::spawn_blocking(|| server.join().unwrap()).await.unwrap()
}

/// Reads one request; `None` at the connection's end.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return None;
        }
        request.push(byte[0]);
    }
    let head = String::from_utf8(request).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    Some(head + &String::from_utf8(body).unwrap())
}

fn answer(stream: &mut TcpStream, status: &str, headers: &str, body: &str) {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    stream.write_all(text.as_bytes()).unwrap();
}

fn client(base: &str, deadline: Duration) -> BagsClient {
    drop(rustls::crypto::ring::default_provider().install_default());
    let base = BaseUrl::parse(base, true).unwrap();
    let service = https(&base, Duration::from_secs(5), None).unwrap();
    BagsClient::new(service, base, deadline, Arc::new(SystemClock))
}

/// Creates a key at a server that does that, and gives the failure.
async fn creation_at(serve: Serve, deadline: Duration) -> (Error, usize) {
    let (address, server) = server(serve);
    let client = client(&format!("http://{address}/api/v1"), deadline);
    let error = client.create_with_token(&token(), "Web-Shop").await.unwrap_err();
    drop(client);
    (error, served(server).await)
}

#[tokio::test]
async fn a_request_and_its_answer_go_over_the_wire() {
    let (address, server) = server(|stream| {
        let request = read_request(stream).unwrap();
        assert!(request.starts_with("post /api/v1/agent/dev/keys/create http/1.1\r\n"), "{request}");
        assert!(
            request.contains(concat!("user-agent: bags-operator/", env!("CARGO_PKG_VERSION"))),
            "{request}"
        );
        assert!(request.contains("content-type: application/json"), "{request}");
        assert!(request.ends_with("{\"token\":\"token-for-tests\",\"name\":\"Web-Shop\"}"), "{request}");
        let body = "{\"success\":true,\"response\":{\"apiKey\":{\"key\":\"value-one-for-tests\"}}}";
        answer(stream, "200 OK", "content-type: application/json\r\n", body);
        1
    });
    let client = client(&format!("http://{address}/api/v1"), PATIENT);
    let key = client.create_with_token(&token(), "Web-Shop").await.unwrap();
    assert_eq!(key.value, key_value());
    drop(client);
    served(server).await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_timeout() {
    let (error, requests) = creation_at(
        |stream| {
            let first = read_request(stream).is_some();
            usize::from(first) + usize::from(read_request(stream).is_some())
        },
        Duration::from_secs(3),
    )
    .await;
    assert_eq!((error.class(), error.reason(), requests), (Class::Unknown, Reason::Timeout, 1));
}

#[tokio::test]
async fn a_cut_connection_leaves_a_key_possible() {
    let cuts: [Serve; 3] = [
        |stream| {
            let requests = usize::from(read_request(stream).is_some());
            stream.shutdown(Shutdown::Both).unwrap();
            requests
        },
        |stream| {
            let requests = usize::from(read_request(stream).is_some());
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").unwrap();
            requests
        },
        |stream| {
            let requests = usize::from(read_request(stream).is_some());
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"success\":true";
            stream.write_all(head.as_bytes()).unwrap();
            requests
        },
    ];
    for cut in cuts {
        let (error, requests) = creation_at(cut, PATIENT).await;
        assert_eq!((error.class(), error.reason(), requests), (Class::Unknown, Reason::Broken, 1));
    }
}

#[tokio::test]
async fn a_request_on_a_kept_connection_that_is_cut_is_not_sent_again() {
    let (address, server) = server(|stream| {
        assert!(read_request(stream).is_some());
        answer(stream, "200 OK", "content-type: application/json\r\n", "{\"message\":\"pong\"}");
        usize::from(read_request(stream).is_some())
    });
    let client = client(&format!("http://{address}/api/v1"), PATIENT);
    client.ping().await.unwrap();
    let error = client.create_with_token(&token(), "Web-Shop").await.unwrap_err();
    // A second sending would have met a closed port and been a failure to connect.
    assert_eq!((error.class(), error.reason()), (Class::Unknown, Reason::Broken));
    drop(client);
    assert_eq!(served(server).await, 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (error, requests) = creation_at(
        |stream| {
            let requests = usize::from(read_request(stream).is_some());
            let host = stream.local_addr().unwrap();
            answer(stream, "308 Permanent Redirect", &format!("location: http://{host}/elsewhere\r\n"), "");
            requests + usize::from(read_request(stream).is_some())
        },
        PATIENT,
    )
    .await;
    assert_eq!(
        (error.class(), error.reason(), error.status()),
        (Class::Unknown, Reason::Redirected, Some(308))
    );
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let (error, _) = creation_at(
        |stream| {
            assert!(read_request(stream).is_some());
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            (0..1000).take_while(|_| stream.write_all(chunk.as_bytes()).is_ok()).count()
        },
        PATIENT,
    )
    .await;
    assert_eq!((error.class(), error.reason()), (Class::Unknown, Reason::TooLarge));
}

#[tokio::test]
async fn a_page_in_the_services_stead_is_unreadable() {
    for (status, expected) in [("200 OK", 200), ("403 Forbidden", 403)] {
        let serve: Serve = match expected {
            200 => |stream| {
                let requests = usize::from(read_request(stream).is_some());
                answer(stream, "200 OK", "content-type: text/html\r\n", "<html>log in</html>");
                requests
            },
            _ => |stream| {
                let requests = usize::from(read_request(stream).is_some());
                answer(stream, "403 Forbidden", "content-type: text/html\r\n", "<html>blocked</html>");
                requests
            },
        };
        let (error, _) = creation_at(serve, PATIENT).await;
        assert_eq!(
            (error.class(), error.reason(), error.status()),
            (Class::Unknown, Reason::Unreadable, Some(expected)),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_closed_port_has_certainly_got_nothing() {
    // No test can be given that port, as one that was free a moment ago.
    let client = client("http://127.0.0.1:1", PATIENT);
    let error = client.create_with_token(&token(), "Web-Shop").await.unwrap_err();
    assert_eq!((error.class(), error.reason()), (Class::NotDone, Reason::Connect));
}

#[tokio::test]
async fn a_failed_handshake_has_certainly_sent_nothing() {
    let (address, server) = server(|stream| {
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        // Not closed before the other side has read it.
        stream.read_to_end(&mut Vec::new()).unwrap_or(0)
    });
    let client = client(&format!("https://{address}/api/v1"), PATIENT);
    let error = client.create_with_token(&token(), "Web-Shop").await.unwrap_err();
    assert_eq!((error.class(), error.reason()), (Class::NotDone, Reason::Tls));
    drop(client);
    served(server).await;
}

#[test]
fn a_ca_bundle_that_is_none_is_refused() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let base = BaseUrl::parse(DEFAULT_BASE_URL, false).unwrap();
    for bundle in ["", "not a certificate", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
        let refused = https(&base, Duration::from_secs(5), Some(bundle.as_bytes())).err();
        assert!(matches!(refused, Some(HttpsError::CaBundle)), "{bundle}");
    }
}
