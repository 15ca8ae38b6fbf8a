//! What a client does while its request is in flight: it sends more, says that it has no more to
//! say, or goes. Nothing that it sent is lost, and its going is noticed.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod support;

use bytes::Bytes;
use curtsy_server::{Body, OnDisconnect, Phase};
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::path::PathBuf;
use support::{App, Client, Running, ms, not_within, request, serve_this, serve_with, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How a client is connected, and so how its going looks.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// It closes.
    Tcp,
    /// It is gone, and whatever is sent to it is answered with a reset.
    TcpReset,
    /// Over a path.
    Unix,
}

const WAYS: [Way; 3] = [Way::Tcp, Way::TcpReset, Way::Unix];

struct Both {
    server: Running,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

/// A server on a port and on a path.
async fn both(on_disconnect: OnDisconnect) -> Both {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let local = format!("unix:{}", path.display());
    let server = serve_with(|builder| {
        builder
            .listen(("local", local.as_str()))
            .on_disconnect(on_disconnect)
    })
    .await;
    Both {
        server,
        path,
        _directory: directory,
    }
}

impl Both {
    async fn client(&self, way: Way) -> Client {
        match way {
            Way::Tcp => self.server.client().await,
            Way::Unix => Client::connect_unix(&self.path).await,
            Way::TcpReset => {
                let socket = TcpStream::connect(self.server.address).await.unwrap();
                socket.set_zero_linger().unwrap();
                Client::over(socket)
            }
        }
    }
}

/// How often a handler has noted that.
fn times(server: &Running, note: &str) -> usize {
    let notes = server.app.notes();
    notes.iter().filter(|noted| *noted == note).count()
}

fn post(target: &str, fields: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}")
}

/// Requests whose handler waits for good, in the pieces that they are sent in.
fn waiting() -> Vec<(&'static str, Vec<String>)> {
    let get = request("GET", "/gate?shut");
    let sized = post("/gate?shut", "Content-Length: 5", "");
    let chunks = post("/gate?shut", "Transfer-Encoding: chunked", "");
    vec![
        ("GET", vec![get.clone()]),
        (
            "behind another",
            vec![format!("{}{get}", request("GET", "/a"))],
        ),
        ("body, at once", vec![format!("{sized}hello")]),
        ("body, later", vec![sized.clone(), "hello".to_owned()]),
        (
            "chunks, later",
            vec![chunks, "5\r\nhello\r\n0\r\n\r\n".to_owned()],
        ),
    ]
}

#[tokio::test]
async fn whoever_goes_is_noticed_and_its_handler_dropped() {
    let both = both(OnDisconnect::Cancel).await;
    let server = &both.server;
    for way in WAYS {
        for (name, pieces) in waiting() {
            let before = times(server, "in /gate?shut");
            let mut client = both.client(way).await;
            for piece in pieces {
                client.send(piece).await;
                server
                    .until("called", |_| times(server, "in /gate?shut") == before + 1)
                    .await;
            }
            if name == "behind another" {
                client.answer().await.is(200, "hello from /a");
            }
            drop(client);
            server
                .until(&format!("gone: {way:?} {name}"), |now| {
                    now.counts.total() == 0
                })
                .await;
            let dropped = times(server, "dropped /gate?shut");
            assert_eq!(dropped, before + 1, "{way:?} {name}");
        }
    }
    assert!(!server.app.notes().contains(&"out /gate?shut".to_owned()));
    both.server.drain().await;
}

#[tokio::test]
async fn whoever_goes_amid_a_streamed_answer_is_noticed() {
    let both = both(OnDisconnect::Cancel).await;
    for way in WAYS {
        let mut client = both.client(way).await;
        client.send(request("GET", "/stream?shut")).await;
        client.head().await;
        assert_eq!(client.take(11).await, b"6\r\nbegun \r\n");
        drop(client);
        both.server
            .until(&format!("gone: {way:?}"), |now| now.counts.total() == 0)
            .await;
    }
    both.server.drain().await;
}

#[tokio::test]
async fn a_handler_that_reads_learns_that_its_client_went() {
    let both = both(OnDisconnect::Cancel).await;
    let cases = [
        ("Content-Length: 10", "hello", "broken after 5"),
        ("Transfer-Encoding: chunked", "9\r\nhello", "broken after 5"),
        (
            "Content-Length: 7\r\nExpect: 100-continue",
            "",
            "broken after 0",
        ),
    ];
    let mut told = 0;
    for way in WAYS {
        for (fields, body, note) in cases {
            let mut client = both.client(way).await;
            client.send(post("/read", fields, body)).await;
            if body.is_empty() {
                assert_eq!(client.answer().await.status, 100);
            } else {
                // What there is of it is with the handler.
                both.server
                    .until("active", |now| now.counts.active == 1)
                    .await;
                assert!(not_within(ms(30), client.read_some()).await);
            }
            drop(client);
            let gone = format!("gone: {way:?} {fields}");
            both.server
                .until(&gone, |now| now.counts.total() == 0)
                .await;
            told += 1;
            let notes = both.server.app.notes();
            let broken = notes.iter().filter(|note| note.starts_with("broken"));
            assert_eq!(broken.count(), told, "{gone}: {notes:?}");
            assert_eq!(notes.last().unwrap(), note, "{gone}");
        }
    }
    both.server.drain().await;
}

/// A drain waits for handlers that outlive their client; a body that had come whole changes nothing.
#[tokio::test]
async fn finish_lets_handlers_with_bodies_run_on_too() {
    for way in WAYS {
        for body in ["hello", ""] {
            let mut both = both(OnDisconnect::Finish).await;
            let mut client = both.client(way).await;
            let fields = format!("Content-Length: {}", body.len());
            client.send(post("/gate?a", &fields, body)).await;
            both.server.app.noted("in /gate?a").await;
            drop(client);
            both.server.handle.wish_shutdown();
            soon("draining", both.server.handle.reached(Phase::Draining)).await;
            assert!(
                not_within(ms(50), &mut both.server.running).await,
                "{way:?}: it did not wait"
            );
            let app = both.server.app.clone();
            app.open("a");
            assert!(both.server.ended().await.is_drained());
            assert!(app.notes().contains(&"out /gate?a".to_owned()), "{way:?}");
        }
    }
}

/// Requests at once, and then no more to say: those before the one that takes long have their
/// answers, whatever becomes of that.
#[tokio::test]
async fn an_answer_that_was_complete_reaches_a_client_that_says_no_more() {
    let both = both(OnDisconnect::Cancel).await;
    for way in WAYS {
        for more in [0, 2] {
            let mut client = both.client(way).await;
            // Its end is there when the first of them is answered.
            let first = request("GET", "/slow?ms=50");
            let quick = request("GET", "/quick").repeat(more);
            let last = request("GET", "/gate?shut");
            client.send(format!("{first}{quick}{last}")).await;
            client.finish_sending().await;
            client.answer().await.is(200, "slept 50");
            for _ in 0..more {
                client.answer().await.is(200, "hello from /quick");
            }
            client.ends().await;
        }
    }
    both.server.drain().await;
}

#[tokio::test]
async fn what_is_sent_ahead_is_served_in_its_turn() {
    let both = both(OnDisconnect::Cancel).await;
    let server = &both.server;
    let body = "0123456789".repeat(6_000);
    let ahead = [
        post("/echo", &format!("Content-Length: {}", body.len()), &body),
        post(
            "/echo",
            "Transfer-Encoding: chunked",
            &format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        ),
        request("GET", "/last"),
    ]
    .concat();
    for way in [Way::Tcp, Way::Unix] {
        // Cut within the first head, at the most that is read ahead, behind it, and in the body.
        for cut in [1, 30, 2_047, 2_048, 2_049, 9_000, ahead.len() - 3] {
            let mut client = both.client(way).await;
            client.send(request("GET", "/gate?a")).await;
            server.until("in", |now| now.counts.active == 1).await;
            let before = server.handle.metrics().received_bytes;
            client.send(&ahead[..cut]).await;
            server
                .until("some of it was read", |_| {
                    server.handle.metrics().received_bytes > before
                })
                .await;
            assert!(not_within(ms(5), client.read_some()).await);
            client.send(&ahead[cut..]).await;
            server.app.open("a");
            client.answer().await.is(200, "through a");
            client.answer().await.is(200, &body).and_keeps_alive();
            client.answer().await.is(200, &body).and_keeps_alive();
            client
                .answer()
                .await
                .is(200, "hello from /last")
                .and_keeps_alive();
            drop(client);
            server.until("gone", |now| now.counts.total() == 0).await;
        }
    }
    both.server.drain().await;
}

/// Whoever has sent more before it goes is noticed when its next request's turn comes.
#[tokio::test]
async fn who_sends_more_and_goes_holds_nothing_up() {
    let both = both(OnDisconnect::Cancel).await;
    for way in WAYS {
        let mut client = both.client(way).await;
        client.send(request("GET", "/gate?a")).await;
        both.server.until("in", |now| now.counts.active == 1).await;
        let before = both.server.handle.metrics().received_bytes;
        client.send(request("GET", "/gate?shut")).await;
        both.server
            .until("it was read", |_| {
                both.server.handle.metrics().received_bytes > before
            })
            .await;
        drop(client);
        both.server.app.open("a");
        let gone = format!("gone: {way:?}");
        both.server
            .until(&gone, |now| now.counts.total() == 0)
            .await;
    }
    both.server.drain().await;
}

/// Takes its time before it changes the protocol; then says back what it hears.
async fn switch(mut request: Request<Body>, app: App) -> Result<Response<Full<Bytes>>, Infallible> {
    let upgrade = hyper::upgrade::on(&mut request);
    app.note("asked");
    app.gate("switch").acquire_owned().await.unwrap().forget();
    let again = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if again.await.is_err() {
            app.note("only once");
        }
        let mut io = TokioIo::new(upgrade.await.unwrap());
        let mut bytes = [0u8; 1024];
        while let Ok(read @ 1..) = io.read(&mut bytes).await {
            if io.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    });
    let response = Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", "echo");
    Ok(response.body(Full::default()).unwrap())
}

#[tokio::test]
async fn row_19_bytes_that_come_before_the_switch_go_to_it_and_it_is_there_once() {
    let app = App::default();
    let service = app.clone();
    let service = hyper::service::service_fn(move |request| switch(request, service.clone()));
    let server = serve_this(app.clone(), service, |builder| builder).await;
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    for (n, length) in [(1, 1), (2, 2_048), (3, 5_000)] {
        let mut client = server.client().await;
        client.send(head).await;
        server
            .until("asked", |_| times(&server, "asked") == n)
            .await;
        let before = server.handle.metrics().received_bytes;
        let early: Vec<u8> = (b'a'..=b'w').cycle().take(length).collect();
        client.send(&early).await;
        server
            .until("some of it was read", |_| {
                server.handle.metrics().received_bytes > before
            })
            .await;
        app.open("switch");
        assert_eq!(client.head().await.status, 101);
        assert!(client.take(length).await == early, "{length}");
        client.send("and more").await;
        assert_eq!(client.take(8).await, b"and more");
        server
            .until("told", |_| times(&server, "only once") == n)
            .await;
        drop(client);
        server.until("gone", |now| now.counts.total() == 0).await;
    }
    // One that goes before the switch is noticed like any other.
    let mut client = server.client().await;
    client.send(head).await;
    server
        .until("asked", |_| times(&server, "asked") == 4)
        .await;
    drop(client);
    server.until("gone", |now| now.counts.total() == 0).await;
    server.drain().await;
}
