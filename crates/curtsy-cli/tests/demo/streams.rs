//! Answers that go on for as long as they may, over every protocol, when their port is switched: they are told, they
//! end in their own words, and those whom the new mode takes are left alone.

use crate::following::switch;
use crate::server::{BOUND, Demo, demo};
use crate::trusting::{localhost, trusting};
use bytes::Bytes;
use curtsy_prove::child::Child;
use h2::ext::Protocol;
use http::{Method, Request, Response, StatusCode, Version};
use std::future::Future;
use std::path::PathBuf;
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn soon<F: Future>(what: F) -> F::Output {
    timeout(BOUND, what).await.expect("not in time")
}

/// A demo that speaks either protocol, and the path at which it is switched.
async fn both() -> (Demo, PathBuf, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control.sock");
    let mut command = demo(&["--tls", "self-signed", "--mode", "both"]);
    command.arg("--control").arg(&control);
    (Demo::spawn(command).await, control, directory)
}

/// A WebSocket on a stream of HTTP/2.
struct Socket {
    answer: Response<()>,
    from: h2::RecvStream,
    to: h2::SendStream<Bytes>,
    /// Without it the client would close the connection by itself.
    _send: h2::client::SendRequest<Bytes>,
    connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Socket {
    async fn open(demo: &Demo, encrypts: bool) -> Self {
        let socket = soon(TcpStream::connect(demo.address)).await.unwrap();
        let (mut send, connection) = if encrypts {
            let secure = soon(trusting(&["h2"]).connect(localhost(), socket));
            let (send, connection) = h2::client::handshake(secure.await.unwrap()).await.unwrap();
            (send, tokio::spawn(connection))
        } else {
            let (send, connection) = h2::client::handshake(socket).await.unwrap();
            (send, tokio::spawn(connection))
        };
        let request = |method: Method, path: &str| {
            let uri = format!("http://localhost{path}");
            let request = Request::builder().method(method).uri(uri);
            request.version(Version::HTTP_2).body(()).unwrap()
        };
        // With the first answer come the server's settings, at the latest.
        let (answer, _) = send
            .send_request(request(Method::GET, "/pid"), true)
            .unwrap();
        assert_eq!(soon(answer).await.unwrap().status(), StatusCode::OK);
        send = soon(send.ready()).await.unwrap();
        assert!(send.is_extended_connect_protocol_enabled());
        let mut connect = request(Method::CONNECT, "/ws");
        connect
            .headers_mut()
            .insert("sec-websocket-version", "13".parse().unwrap());
        connect
            .extensions_mut()
            .insert(Protocol::from_static("websocket"));
        let (answer, to) = send.send_request(connect, false).unwrap();
        let (head, from) = soon(answer).await.unwrap().into_parts();
        Self {
            answer: Response::from_parts(head, ()),
            from,
            to,
            _send: send,
            connection,
        }
    }

    /// Sends a frame, masked with zeroes.
    fn send(&mut self, kind: u8, payload: &[u8], ends: bool) {
        let length = u8::try_from(payload.len()).unwrap();
        let frame = [&[0x80 | kind, 0x80 | length, 0, 0, 0, 0], payload].concat();
        self.to.send_data(frame.into(), ends).unwrap();
    }

    /// Gets a Close that says 1001: going away.
    async fn is_told(&mut self) {
        let told = self.read(4).await;
        assert_eq!((told[0], &told[2..4]), (0x88, &[3, 0xe9][..]), "{told:?}");
        let length = 2 + usize::from(told[1]);
        assert!(self.read(length - told.len()).await.len() + told.len() == length);
    }

    async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut read = Vec::new();
        while read.len() < length {
            let part = soon(self.from.data()).await.expect("ended").unwrap();
            read.extend_from_slice(&part);
        }
        read
    }
}

#[tokio::test]
async fn the_websocket_works_over_http2_and_is_told_of_a_switch() {
    let (demo, control, _directory) = both().await;
    let mut encrypted = Socket::open(&demo, true).await;
    let mut plain = Socket::open(&demo, false).await;
    for socket in [&mut encrypted, &mut plain] {
        assert_eq!(socket.answer.status(), StatusCode::OK);
        assert!(socket.answer.headers().get("upgrade").is_none());
        socket.send(1, b"hello", false);
        assert_eq!(socket.read(7).await, b"\x81\x05hello");
    }

    switch(&control, "plain").await;
    encrypted.is_told().await;
    // It is waited for until it has said goodbye, too.
    encrypted.send(8, &[3, 0xe9], true);
    while let Some(rest) = soon(encrypted.from.data()).await {
        assert!(rest.unwrap().is_empty());
    }
    soon(encrypted.connection).await.unwrap().unwrap();

    plain.send(1, b"still here", false);
    assert_eq!(plain.read(12).await, b"\x81\x0astill here");
    switch(&control, "tls").await;
    plain.is_told().await;
    plain.send(8, &[3, 0xe9], true);
    soon(plain.connection).await.unwrap().unwrap();
    demo.stop().await;
}

/// Begins to read `/events` with those flags; `None` where curl is missing.
async fn events(demo: &Demo, scheme: &str, flags: &[&str]) -> Option<Child> {
    let url = format!("{scheme}://{}/events", demo.address);
    let common = ["-sSkN", "--max-time", "60", url.as_str()];
    let Ok(mut curl) = Child::start("curl", flags.iter().chain(&common)) else {
        println!("SKIPPED: curl is not installed");
        return None;
    };
    let is_tick = |line: &str| line == "data: tick 3";
    curl.wait_for_line(is_tick, BOUND).await.unwrap();
    Some(curl)
}

/// They end by themselves, with the last word that the handler has.
async fn said_goodbye(mut curl: Child, what: &str) {
    let exit = curl.wait_exit(BOUND).await.unwrap();
    curl.wait_output_end(BOUND).await.unwrap();
    let heard = curl.stdout();
    assert!(exit.status.success(), "{what}: {}", curl.stderr());
    assert!(
        heard.trim_end().ends_with("event: draining\ndata: bye"),
        "{what}: {heard}"
    );
}

#[tokio::test]
async fn events_end_with_the_mode_that_they_began_in() {
    let (demo, control, _directory) = both().await;
    let mut old = Vec::new();
    for flags in [&["--http1.1"][..], &["--http2"]] {
        match events(&demo, "https", flags).await {
            Some(curl) => old.push((flags, curl)),
            None => return demo.stop().await,
        }
    }
    let mut kept = Vec::new();
    for flags in [&["--http1.1"][..], &["--http2-prior-knowledge"]] {
        kept.extend(events(&demo, "http", flags).await);
    }

    switch(&control, "plain").await;
    for (flags, curl) in old {
        said_goodbye(curl, &format!("encrypted, {flags:?}")).await;
    }
    // Those whom the new mode takes go on.
    for curl in &mut kept {
        let heard = curl.stdout().matches("data: tick").count();
        let next = format!("data: tick {}", heard + 1);
        let is_next = |line: &str| line == next;
        curl.wait_for_line(is_next, BOUND).await.unwrap();
        assert!(!curl.stdout().contains("draining"));
    }

    switch(&control, "tls").await;
    for curl in kept {
        said_goodbye(curl, "plain").await;
    }
    demo.stop().await;
}
