//! HTTP/2: served, drained, bounded.

use crate::support::*;
use bytes::Bytes;
use curtsy_server::{Http2Limits, Limits, ListenOn};
use h2::client::SendRequest;
use http::{Request, Response, StatusCode, Version};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The answer to the PING that goes with a GOAWAY.
const PONG: [u8; 17] = *b"\0\0\x08\x06\x01\0\0\0\0\x0b\x7b\xa2\xf0\x8b\x9b\xfe\x54";

pub(crate) struct Client {
    pub(crate) send: SendRequest<Bytes>,
    /// Ends when the server has closed.
    pub(crate) driver: JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    pub(crate) async fn over<S>(socket: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (send, connection) = soon(h2::client::handshake(socket)).await.unwrap();
        Self {
            send,
            driver: tokio::spawn(connection),
        }
    }

    pub(crate) async fn plain(address: SocketAddr) -> Self {
        Self::over(connect(address).await).await
    }

    pub(crate) async fn say(&mut self, path: &str) -> h2::client::ResponseFuture {
        let uri = format!("http://localhost{path}");
        let request = Request::get(uri).version(Version::HTTP_2).body(()).unwrap();
        let mut ready = soon(self.send.clone().ready()).await.unwrap();
        ready.send_request(request, true).unwrap().0
    }

    pub(crate) async fn ask(&mut self, path: &str) -> (StatusCode, String) {
        let answer = self.say(path).await;
        hear(answer).await
    }
}

pub(crate) async fn hear(answer: h2::client::ResponseFuture) -> (StatusCode, String) {
    let response = soon(answer).await.unwrap();
    read(response).await
}

async fn read(response: Response<h2::RecvStream>) -> (StatusCode, String) {
    let (head, mut body) = response.into_parts();
    let mut text = Vec::new();
    while let Some(part) = soon(body.data()).await {
        let part = part.unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        text.extend_from_slice(&part);
    }
    (head.status, String::from_utf8(text).unwrap())
}

/// A frame by hand.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET` with the static table's entries.
fn get(path: &str, stream: u32) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x41, 9];
    block.extend(b"localhost");
    block.extend([0x44, u8::try_from(path.len()).unwrap()]);
    block.extend(path.bytes());
    frame(1, 0x5, stream, &block)
}

fn get_gate(stream: u32) -> Vec<u8> {
    get("/gate", stream)
}

#[tokio::test]
async fn by_alpn_and_with_prior_knowledge_on_every_mode() {
    for (listener, plain, encrypted) in [
        (any_port(), true, false),
        (any_port().tls(config()), false, true),
        (any_port().both(config()), true, true),
    ] {
        let server = serve(listener, |b| b).await;
        if plain {
            let mut client = Client::plain(server.address).await;
            for _ in 0..2 {
                let (status, body) = client.ask("/a").await;
                assert_eq!((status, body.as_str()), (StatusCode::OK, "HTTP/2.0 /a"));
            }
            assert!(client.ask("/who").await.1.ends_with("tls=false"));
        }
        if encrypted {
            let socket = secure(server.address, &["h2", "http/1.1"]).await;
            assert_eq!(socket.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let mut client = Client::over(socket).await;
            assert!(client.ask("/who").await.1.ends_with("tls=true"));
            assert_eq!(client.ask("/big").await.1.len(), 1 << 20);
            // HTTP/2 without having been asked for by ALPN.
            let socket = secure(server.address, &[]).await;
            assert_eq!(Client::over(socket).await.ask("/a").await.1, "HTTP/2.0 /a");
        }
        assert!(server.stop().await.is_drained());
    }
}

#[tokio::test]
async fn a_preface_in_pieces_is_detected() {
    let server = serve(any_port(), |b| b).await;
    let mut socket = connect(server.address).await;
    for piece in [&PREFACE[..5], &PREFACE[5..17], &PREFACE[17..]] {
        socket.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    socket.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let mut header = [0; 9];
    soon(socket.read_exact(&mut header)).await.unwrap();
    assert_eq!(header[3], 4, "the server's settings come first");
    drop(socket);
    server.stop().await;
}

#[tokio::test]
async fn the_rules_of_requests_hold() {
    let server = serve(any_port(), |builder| {
        builder.limits(Limits {
            request_body_bytes: Some(10),
            body_stall: Duration::from_millis(100),
            ..Limits::default()
        })
    })
    .await;
    let mut client = Client::plain(server.address).await;
    assert_eq!(
        client.ask("/panic").await.0,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    let send = async |client: &mut Client, request: Request<()>, body: &'static [u8], end: bool| {
        let mut ready = soon(client.send.clone().ready()).await.unwrap();
        let (answer, mut stream) = ready.send_request(request, body.is_empty() && end).unwrap();
        if !body.is_empty() {
            stream.send_data(Bytes::from_static(body), end).unwrap();
        }
        (answer, stream)
    };
    let echo = || Request::post("http://localhost/echo").version(Version::HTTP_2);
    let request = echo().header("content-length", 11).body(()).unwrap();
    let (answer, _stream) = send(&mut client, request, b"", false).await;
    assert_eq!(hear(answer).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let (answer, _stream) = send(&mut client, echo().body(()).unwrap(), b"eleven byte", true).await;
    assert_eq!(hear(answer).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let (answer, _stream) = send(&mut client, echo().body(()).unwrap(), b"ten bytes!", true).await;
    assert_eq!(hear(answer).await.1, "ten bytes!");
    // A body that stands still fails, and its connection goes on.
    let (answer, _stream) = send(&mut client, echo().body(()).unwrap(), b"half", false).await;
    let (status, text) = hear(answer).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(text.contains("did not arrive in time"), "{text}");
    let request = Request::connect("localhost:1")
        .version(Version::HTTP_2)
        .body(())
        .unwrap();
    let (answer, _stream) = send(&mut client, request, b"", false).await;
    assert_eq!(hear(answer).await.0, StatusCode::NOT_IMPLEMENTED);
    assert_eq!(client.ask("/a").await.1, "HTTP/2.0 /a");
    assert!(server.stop().await.is_drained());
}

#[tokio::test]
async fn options_of_everything_is_answered_by_the_server() {
    let server = serve(any_port(), |b| b).await;
    let mut socket = connect(server.address).await;
    let mut block = vec![0x42, 7];
    block.extend(b"OPTIONS");
    block.extend([0x86, 0x41, 9]);
    block.extend(b"localhost");
    block.extend([0x44, 1, b'*']);
    let request = [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 0x5, 1, &block)].concat();
    socket.write_all(&request).await.unwrap();
    loop {
        let mut header = [0; 9];
        soon(socket.read_exact(&mut header)).await.unwrap();
        let length = usize::from(header[1]) << 8 | usize::from(header[2]);
        let mut payload = vec![0; length];
        soon(socket.read_exact(&mut payload)).await.unwrap();
        if header[3] == 1 {
            assert_eq!(payload[0], 0x88, "status 200");
            break;
        }
    }
    drop(socket);
    server.stop().await;
}

#[tokio::test]
async fn streams_are_told_one_by_one() {
    let server = serve(any_port(), |b| b).await;
    let mut client = Client::plain(server.address).await;
    client.ask("/a").await;
    server
        .until(|now| now.counts.idle == 1 && now.stragglers.is_empty())
        .await;
    let first = client.say("/gate?n=1").await;
    let second = client.say("/gate?n=2").await;
    server.until(|now| now.stragglers.len() == 2).await;
    let now = server.handle.snapshot();
    assert_eq!((now.counts.active, now.counts.total()), (1, 1));
    let mut lines: Vec<_> = (now.stragglers.iter())
        .map(|s| format!("{} {} {}", s.method, s.target, s.listener))
        .collect();
    lines.sort();
    assert_eq!(lines, ["GET /gate?n=1 main", "GET /gate?n=2 main"]);
    server.gate.add_permits(2);
    assert_eq!(hear(first).await.1, "through");
    assert_eq!(hear(second).await.1, "through");
    server
        .until(|now| now.counts.idle == 1 && now.stragglers.is_empty())
        .await;
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_gone_at_once_when_the_server_drains() {
    let server = serve(any_port(), |b| b.drain(linger(Duration::from_secs(5)))).await;
    let mut client = Client::plain(server.address).await;
    client.ask("/a").await;
    let outcome = server.stop().await;
    assert!(outcome.is_drained());
    let took = outcome.report().took;
    assert!(took < Duration::from_millis(500), "{took:?}");
    soon(client.driver).await.unwrap().unwrap();
}

/// Streams in flight finish, and those that the client begins before it knows are served.
#[tokio::test]
async fn a_drain_finishes_every_stream() {
    let server = serve(any_port(), |b| b).await;
    let mut client = Client::plain(server.address).await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(client.say("/gate").await);
    }
    // Read at once: it takes the whole window.
    let big = tokio::spawn(hear(client.say("/big").await));
    server.until(|now| now.stragglers.len() >= 20).await;
    server.handle.wish_shutdown();
    // Sent without a look at what the server says meanwhile.
    let late = client.say("/late").await;
    server.handle.reached(curtsy_server::Phase::Draining).await;
    assert_eq!(hear(late).await.1, "HTTP/2.0 /late");
    server.gate.add_permits(20);
    for answer in answers {
        assert_eq!(hear(answer).await.1, "through");
    }
    assert_eq!(soon(big).await.unwrap().1.len(), 1 << 20);
    soon(client.driver).await.unwrap().unwrap();
    assert!(server.stopped().await.is_drained());
}

/// A client that is slow takes its last answer while the server has long written it, and says so by window updates: at a
/// closed socket they would be answered by a reset, which takes along what the kernel has still to send.
#[tokio::test]
async fn a_drain_waits_for_what_is_written_to_be_taken() {
    for answers_ping_first in [true, false] {
        for encrypted in [false, true] {
            let server = serve(any_port().both(config()), |builder| {
                let builder = builder.drain(linger(Duration::ZERO));
                builder.limits(Limits {
                    close_linger: Duration::from_millis(400),
                    ..Limits::default()
                })
            })
            .await;
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4 << 10).unwrap();
            let socket = socket.connect(server.address).await.unwrap();
            if encrypted {
                let socket = secure_over(socket, "localhost", client_config(&["h2"])).await;
                take_slowly(server, socket.unwrap(), answers_ping_first).await;
            } else {
                take_slowly(server, socket, answers_ping_first).await;
            }
        }
    }
}

async fn take_slowly<S>(server: Running, mut client: S, answers_ping_first: bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    const ALL: u32 = 1 << 20;
    let update = |stream, by: u32| frame(8, 0, stream, &by.to_be_bytes());
    // With no window yet for the answer's body.
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let greeting = [PREFACE, &settings, &frame(4, 1, 0, &[]), &get("/big", 1)].concat();
    client.write_all(&greeting).await.unwrap();
    let mut client = BufReader::new(client);
    until_frame(&mut client, 1).await;
    server.handle.wish_shutdown();
    until_frame(&mut client, 6).await;
    if answers_ping_first {
        client.write_all(&PONG).await.unwrap();
    }
    let windows = [update(0, ALL), update(1, ALL)].concat();
    client.write_all(&windows).await.unwrap();

    let mut running = std::pin::pin!(server.stopped());
    let (mut taken, mut goodbyes) = (0, 0);
    let mut slow = 8;
    while taken < ALL as usize {
        if slow > 0 && taken >= (8 - slow) * 60_000 {
            slow -= 1;
            let waits = timeout(Duration::from_millis(200), &mut running).await;
            assert!(waits.is_err(), "it has ended over what was not received");
        }
        match next_frame(&mut client).await {
            (0, part) => taken += part.len(),
            (7, _) => goodbyes += 1,
            other => panic!("{other:?}"),
        }
        client.write_all(&update(0, 1)).await.unwrap();
        client.flush().await.unwrap();
    }
    if !answers_ping_first {
        client.write_all(&PONG).await.unwrap();
        client.flush().await.unwrap();
    }
    if goodbyes == 0 {
        until_frame(&mut client, 7).await;
    }
    let mut rest = Vec::new();
    soon(client.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    drop(client);
    assert!(soon(running).await.is_drained());
}

/// What is sent behind the drain's PING may be on its way when all is said: the client says what it has to say, and closes.
#[tokio::test]
async fn a_client_that_is_answered_behind_the_ping_closes_first() {
    let server = serve(any_port(), |b| b.drain(linger(Duration::ZERO))).await;
    let mut client = connect(server.address).await;
    let greeting = [PREFACE, &frame(4, 0, 0, &[]), &get_gate(1)].concat();
    client.write_all(&greeting).await.unwrap();
    server.until(|now| !now.stragglers.is_empty()).await;
    server.handle.wish_shutdown();
    until_frame(&mut client, 6).await;
    client.write_all(&PONG).await.unwrap();
    until_frame(&mut client, 7).await;
    server.gate.add_permits(1);
    let mut rest = Vec::new();
    soon(client.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.ends_with(b"through"), "{rest:?}");
    let mut running = std::pin::pin!(server.stopped());
    let waits = timeout(Duration::from_millis(150), &mut running).await;
    assert!(waits.is_err(), "closed before its client had said anything");
    client
        .write_all(&frame(8, 0, 0, &[0, 0, 0, 7]))
        .await
        .unwrap();
    drop(client);
    assert!(soon(running).await.is_drained());
}

async fn next_frame(socket: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let mut head = [0; 9];
    soon(socket.read_exact(&mut head)).await.unwrap();
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    soon(socket.read_exact(&mut payload)).await.unwrap();
    (head[3], payload)
}

/// Reads up to the first frame of that kind.
async fn until_frame(socket: &mut (impl AsyncRead + Unpin), kind: u8) {
    while next_frame(socket).await.0 != kind {}
}

/// What hyper alone waits for without end.
#[tokio::test]
async fn silent_peers_bound_no_drain() {
    let server = serve(any_port(), |b| b.drain(linger(Duration::from_millis(100)))).await;
    // Never answers the ping that goes with the GOAWAY.
    let mut deaf = connect(server.address).await;
    deaf.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat())
        .await
        .unwrap();
    // The same, with a stream in flight.
    let mut busy = connect(server.address).await;
    let greeting = [PREFACE, &frame(4, 0, 0, &[]), &get_gate(1)].concat();
    busy.write_all(&greeting).await.unwrap();
    // Half a preface, and one without its settings.
    let mut half = connect(server.address).await;
    half.write_all(&PREFACE[..20]).await.unwrap();
    let mut bare = connect(server.address).await;
    bare.write_all(PREFACE).await.unwrap();
    server
        .until(|now| now.counts.total() == 4 && !now.stragglers.is_empty())
        .await;
    server.handle.wish_shutdown();
    server.handle.reached(curtsy_server::Phase::Draining).await;
    server.gate.add_permits(1);
    let begun = Instant::now();
    let outcome = server.stopped().await;
    assert!(outcome.is_drained(), "{}", outcome.report());
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{}",
        outcome.report()
    );
    let mut said = Vec::new();
    soon(busy.read_to_end(&mut said)).await.ok();
    assert!(
        said.windows(7).any(|part| part == b"through"),
        "the stream was answered"
    );
}

#[tokio::test]
async fn the_deadline_cuts_and_names_streams() {
    let server = serve(any_port(), |builder| {
        builder.drain(curtsy_server::DrainPolicy {
            linger: Duration::ZERO,
            deadline: Duration::from_millis(200),
            ..Default::default()
        })
    })
    .await;
    let mut client = Client::plain(server.address).await;
    let _one = client.say("/gate?one").await;
    let _two = client.say("/gate?two").await;
    server.until(|now| now.stragglers.len() == 2).await;
    let outcome = server.stop().await;
    assert!(!outcome.is_drained());
    let mut targets: Vec<_> = outcome
        .report()
        .stragglers
        .iter()
        .map(|s| &s.target)
        .collect();
    targets.sort();
    assert_eq!(targets, ["/gate?one", "/gate?two"]);
    // It ends, and does not wait for its streams.
    let _ = soon(client.driver).await.unwrap();
}

#[tokio::test]
async fn prefaces_and_idle_times_are_bounded() {
    let server = serve(any_port(), |builder| {
        builder.limits(Limits {
            handshake_timeout: Duration::from_millis(100),
            header_timeout: Duration::from_millis(150),
            idle_timeout: Duration::from_millis(200),
            ..Limits::default()
        })
    })
    .await;
    let mut half = connect(server.address).await;
    half.write_all(PREFACE).await.unwrap();
    let mut block = connect(server.address).await;
    // A header block that goes on and on, slowly.
    let open = frame(1, 0, 1, &[0x82]);
    block
        .write_all(&[PREFACE, &frame(4, 0, 0, &[]), &open].concat())
        .await
        .unwrap();
    let mut client = Client::plain(server.address).await;
    client.ask("/a").await;
    let begun = Instant::now();
    let mut scrap = Vec::new();
    soon(half.read_to_end(&mut scrap)).await.ok();
    soon(block.read_to_end(&mut scrap)).await.ok();
    soon(client.driver).await.unwrap().unwrap();
    server.until(|now| now.counts.total() == 0).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    server.stop().await;
}

/// The client's window stays shut, and nothing else moves.
#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let server = serve(any_port(), |builder| {
        builder.limits(Limits {
            write_stall: Duration::from_millis(200),
            ..Limits::default()
        })
    })
    .await;
    let mut client = Client::plain(server.address).await;
    let response = soon(client.say("/big").await).await.unwrap();
    let error = soon(client.driver).await.unwrap().err();
    server.until(|now| now.counts.total() == 0).await;
    assert!(read_fails(response).await, "{error:?}");
    server.stop().await;
}

async fn read_fails(response: Response<h2::RecvStream>) -> bool {
    let mut body = response.into_body();
    loop {
        match soon(body.data()).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => return true,
            None => return false,
        }
    }
}

/// Each flood ends its connection, within a bounded number of frames.
#[tokio::test]
async fn floods_are_cut() {
    let limits = Limits {
        http2: Http2Limits {
            idle_frames: 2_000,
            ..Http2Limits::default()
        },
        ..Limits::default()
    };
    let server = serve(any_port(), |b| b.limits(limits)).await;
    let ping = frame(6, 0, 0, &[0; 8]);
    let settings = frame(4, 0, 0, &[]);
    let window = frame(8, 0, 0, &[0, 0, 0, 1]);
    let empty_data = [get_gate(1), frame(0, 0, 3, &[])].concat();
    let unknown = frame(0xAA, 0, 0, &[]);
    let priority = frame(2, 0, 3, &[0, 0, 0, 0, 1]);
    for (name, flood) in [
        ("ping", ping),
        ("settings", settings),
        ("window", window),
        ("data", empty_data),
        ("unknown", unknown),
        ("priority", priority),
    ] {
        let socket = connect(server.address).await;
        let (mut read, mut write) = socket.into_split();
        // Acknowledgements are read, so that it is not the full pipe that stops the flood.
        let reading = tokio::spawn(async move {
            let mut scrap = [0; 4096];
            while read.read(&mut scrap).await.is_ok_and(|count| count > 0) {}
        });
        write
            .write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat())
            .await
            .unwrap();
        let batch = flood.repeat(100);
        let mut sent = 0;
        while write.write_all(&batch).await.is_ok() && sent < 1_000_000 {
            sent += 100;
            tokio::task::yield_now().await;
        }
        assert!(sent < 1_000_000, "{name} was never stopped");
        soon(reading).await.unwrap();
    }
    server.until(|now| now.counts.total() == 0).await;
    server.stop().await;
}

/// Rapid reset: requests that are cancelled as soon as they are made.
#[tokio::test]
async fn rapid_resets_are_cut() {
    let server = serve(ListenOn::from("127.0.0.1:0"), |b| b).await;
    let mut socket = connect(server.address).await;
    socket
        .write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat())
        .await
        .unwrap();
    let mut stream = 1;
    let begun = Instant::now();
    loop {
        let mut batch = Vec::new();
        for _ in 0..50 {
            batch.extend(get_gate(stream));
            batch.extend(frame(3, 0, stream, &[0, 0, 0, 8]));
            stream += 2;
        }
        if socket.write_all(&batch).await.is_err() {
            break;
        }
        // What is sent after the GOAWAY is thrown away for the time of `close_linger`.
        assert!(begun.elapsed() < Duration::from_secs(10), "never stopped");
        tokio::task::yield_now().await;
    }
    server
        .until(|now| now.counts.total() == 0 && now.stragglers.is_empty())
        .await;
    server.stop().await;
}

#[tokio::test]
async fn header_lists_and_streams_are_limited() {
    let server = serve(any_port(), |builder| {
        builder.limits(Limits {
            http2: Http2Limits {
                concurrent_streams: 3,
                ..Http2Limits::default()
            },
            ..Limits::default()
        })
    })
    .await;
    let mut client = Client::plain(server.address).await;
    client.ask("/a").await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(client.say("/gate").await);
    }
    server.until(|now| now.stragglers.len() == 3).await;
    // The fourth waits in the client, which was told of the limit.
    let fourth = client.send.clone();
    let request = Request::get("http://localhost/a")
        .version(Version::HTTP_2)
        .body(())
        .unwrap();
    let (fourth, _) = soon(fourth.ready())
        .await
        .map(|mut r| r.send_request(request, true).unwrap())
        .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.handle.snapshot().stragglers.len(), 3);
    server.gate.add_permits(3);
    for answer in answers {
        hear(answer).await;
    }
    assert_eq!(hear(fourth).await.1, "HTTP/2.0 /a");
    let large = "x".repeat(70_000);
    let request = Request::get("http://localhost/a")
        .version(Version::HTTP_2)
        .header("large", large)
        .body(())
        .unwrap();
    let mut ready = soon(client.send.clone().ready()).await.unwrap();
    let answer = ready.send_request(request, true).map(|(answer, _)| answer);
    let refused = match answer {
        Ok(answer) => match soon(answer).await {
            Ok(response) => response.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Err(_) => true,
        },
        Err(_) => true,
    };
    assert!(refused);
    server.stop().await;
}

/// Under load: every stream is answered, or known not to have been begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_loses_no_stream() {
    let server = serve(any_port().both(config()), |b| b).await;
    let address = server.address;
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..20 {
        clients.spawn(async move {
            let client = match n % 2 {
                0 => Client::plain(address).await,
                _ => Client::over(secure(address, &["h2"]).await).await,
            };
            let mut streams = tokio::task::JoinSet::new();
            for _ in 0..8 {
                streams.spawn(ask_on(client.send.clone()));
            }
            drop(client.send);
            let (mut answered, mut lost) = (0, 0);
            while let Some(stream) = streams.join_next().await {
                let (a, l) = stream.unwrap();
                answered += a;
                lost += l;
            }
            (answered, lost)
        });
    }
    let called = server.called.clone();
    server
        .until(|_| called.load(Ordering::Relaxed) > 2_000)
        .await;
    let outcome = server.stop().await;
    assert!(outcome.is_drained(), "{}", outcome.report());
    let (mut answered, mut lost) = (0, 0);
    while let Some(client) = soon(clients.join_next()).await {
        let (a, l) = client.unwrap();
        answered += a;
        lost += l;
    }
    assert!(answered > 1_000, "{answered} answered");
    assert_eq!(lost, 0, "of {answered}");
}

/// Asks until the server goes: how many were answered, and how many lost.
async fn ask_on(mut send: SendRequest<Bytes>) -> (u64, u64) {
    let mut answered = 0;
    loop {
        // Refused here, nothing was sent.
        let Ok(mut ready) = soon(send.ready()).await else {
            return (answered, 0);
        };
        let request = Request::get("http://localhost/a").version(Version::HTTP_2);
        let Ok((answer, _)) = ready.send_request(request.body(()).unwrap(), true) else {
            return (answered, 0);
        };
        send = ready;
        match soon(answer).await {
            Ok(response) => {
                let mut body = response.into_body();
                while let Some(part) = soon(body.data()).await {
                    let Ok(part) = part else {
                        return (answered, 1);
                    };
                    body.flow_control().release_capacity(part.len()).unwrap();
                }
                answered += 1;
            }
            // Beyond the last stream that the GOAWAY names: it can be sent again elsewhere.
            Err(error) if error.is_go_away() && error.is_remote() => return (answered, 0),
            Err(_) => return (answered, 1),
        }
    }
}

/// Whatever the service gives.
#[tokio::test]
async fn head_is_answered_with_a_length_and_no_body() {
    let server = serve(any_port(), |b| b).await;
    let client = Client::plain(server.address).await;
    let mut send = soon(client.send.clone().ready()).await.unwrap();
    let request = Request::head("http://localhost/big").version(Version::HTTP_2);
    let (answer, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
    let response = soon(answer).await.unwrap();
    assert_eq!(response.headers()["content-length"], "1048576");
    assert!(response.body().is_end_stream());
    server.stop().await;
}

#[tokio::test]
async fn each_stream_is_counted_as_a_request() {
    let server = serve(any_port(), |b| b).await;
    let mut client = Client::plain(server.address).await;
    for _ in 0..5 {
        client.ask("/").await;
    }
    assert_eq!(client.ask("/panic").await.0, 500);
    let counted = async {
        while server.handle.metrics().latency.count() < 6 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon(counted).await;
    let metrics = server.handle.metrics();
    assert_eq!((metrics.requests, metrics.accepted), (6, 1));
    assert_eq!(metrics.answers, [0, 5, 0, 0, 1]);
    assert!(
        metrics.received_bytes > 24 && metrics.sent_bytes > 6 * 9,
        "{metrics:?}"
    );
    drop(client);
    server.stop().await;
}
