//! HTTP/2 connections that lose their engine whenever they idle: the client must not notice.

use crate::conformance::{lost, met};
use crate::http2::{Client, frame};
use crate::support::*;
use crate::tools::{find, run_on};
use bytes::Bytes;
use curtsy_server::{Limits, ListenOn};
use http::{Method, Request, StatusCode};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// How large a body may be on its way to a server that was told nothing else, in bytes.
const WINDOW: u32 = 1 << 20;

/// A server whose connections rest the moment that they have nothing to do.
async fn restless(listener: ListenOn, limits: Limits) -> Running {
    let limits = Limits {
        park_after: Duration::ZERO,
        ..limits
    };
    serve(listener, |b| b.limits(limits).drain(linger(Duration::ZERO))).await
}

/// Until as many connections rest.
async fn rest(server: &Running, count: usize) {
    server.until(|seen| seen.counts.parked == count).await;
}

/// A client that sees frames.
struct Raw {
    socket: TcpStream,
    /// What DATA it got, and by how much the server opened its window, in bytes.
    got: usize,
    opened: u32,
}

impl Raw {
    async fn connect(server: &Running, settings: &[u8]) -> Self {
        let mut socket = connect(server.address).await;
        soon(socket.write_all(PREFACE)).await.unwrap();
        let mut raw = Self {
            socket,
            got: 0,
            opened: 0,
        };
        raw.say(&frame(SETTINGS, 0, 0, settings)).await;
        raw.say(&frame(SETTINGS, 1, 0, &[])).await;
        raw
    }

    async fn say(&mut self, bytes: &[u8]) {
        soon(self.socket.write_all(bytes)).await.unwrap();
    }

    /// A request with the static table's entries, and with its host entered into the dynamic one.
    async fn ask(&mut self, stream: u32, path: &str, ends: bool) {
        let mut block = vec![if ends { 0x82 } else { 0x83 }, 0x86, 0x44];
        block.push(u8::try_from(path.len()).unwrap());
        block.extend(path.as_bytes());
        match stream {
            1 => block.extend(b"\x41\x09localhost"),
            // The path has entered since.
            _ => block.push(0x80 | u8::try_from(61 + stream.div_ceil(2)).unwrap()),
        }
        let flags = if ends { 0x5 } else { 0x4 };
        self.say(&frame(HEADERS, flags, stream, &block)).await;
    }

    /// The next frame; `None` at the end.
    async fn hear(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        soon(self.socket.read_exact(&mut head)).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        soon(self.socket.read_exact(&mut payload)).await.unwrap();
        let stream = u32::from_be_bytes(stream);
        match kind {
            DATA => self.got += payload.len(),
            WINDOW_UPDATE if stream == 0 => {
                self.opened += u32::from_be_bytes(payload[..4].try_into().unwrap());
            }
            _ => {}
        }
        Some((kind, flags, stream, payload))
    }

    async fn until(&mut self, kind: u8, flag: u8, stream: u32) -> Vec<u8> {
        loop {
            let (k, flags, s, payload) = self.hear().await.expect("closed");
            assert_ne!(k, GOAWAY, "{payload:?}");
            if (k, s) == (kind, stream) && flags & flag == flag {
                return payload;
            }
        }
    }

    /// What was on its way has come then.
    async fn ping(&mut self) {
        self.say(&frame(PING, 0, 0, b"12345678")).await;
        assert_eq!(self.until(PING, 1, 0).await, b"12345678");
    }
}

#[tokio::test]
async fn requests_go_on_after_each_rest() {
    for (listener, encrypted) in [(any_port(), false), (any_port().tls(config()), true)] {
        let server = restless(listener, Limits::default()).await;
        let mut client = match encrypted {
            false => Client::plain(server.address).await,
            true => Client::over(secure(server.address, &["h2"]).await).await,
        };
        for turn in 0..40_usize {
            // Fields that come again, by their numbers, and so many others that those go.
            let said = format!("{}-{}", turn % 5, "x".repeat(turn % 5 * 50));
            let mut request = Request::post(format!("http://localhost/echo-said/{turn}"))
                .header("x-said", &said)
                .header("user-agent", "somebody")
                .header(format!("x-{turn}"), "y".repeat(300));
            if turn % 3 == 0 {
                request = request.method(Method::GET);
            }
            let request = request.body(()).unwrap();
            let has_body = request.method() == Method::POST;
            let mut ready = soon(client.send.clone().ready()).await.unwrap();
            let (answer, mut body) = ready.send_request(request, !has_body).unwrap();
            if has_body {
                body.send_data(Bytes::from(vec![b'z'; turn * 100]), true)
                    .unwrap();
            }
            let (status, text) = crate::http2::hear(answer).await;
            assert_eq!((status, text), (StatusCode::OK, said), "turn {turn}");
            rest(&server, 1).await;
        }
        assert_eq!(client.ask("/big").await.1.len(), 1 << 20);
        rest(&server, 1).await;
        assert_eq!(client.ask("/a").await.1, "HTTP/2.0 /a");
        drop(client);
        server.stop().await;
    }
}

#[tokio::test]
async fn windows_are_as_they_were() {
    let server = restless(any_port(), Limits::default()).await;
    let mut raw = Raw::connect(&server, &[]).await;
    raw.ask(1, "/a", true).await;
    raw.until(DATA, 1, 1).await;
    rest(&server, 1).await;

    // It uploads, and is told that there is room for as much again.
    raw.ask(3, "/echo", false).await;
    raw.say(&frame(DATA, 1, 3, &[b'u'; 5_000])).await;
    raw.until(DATA, 1, 3).await;
    rest(&server, 1).await;
    raw.ping().await;
    assert_eq!(65_535 + raw.opened - 5_000, WINDOW);
    rest(&server, 1).await;

    // It downloads, and gets what it has room for and no more.
    raw.ask(5, "/big", true).await;
    while raw.got < 65_535 {
        raw.hear().await.expect("closed");
    }
    raw.ping().await;
    assert_eq!(raw.got, 65_535);
    raw.say(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 10])).await;
    raw.say(&frame(WINDOW_UPDATE, 0, 5, &[0, 0, 0, 10])).await;
    while raw.got < 65_545 {
        raw.hear().await.expect("closed");
    }
    raw.ping().await;
    assert_eq!(raw.got, 65_545);
    server.handle.close();
    server.stopped().await;
}

#[tokio::test]
async fn a_window_that_was_opened_wide_is_as_wide_as_before() {
    let server = restless(any_port(), Limits::default()).await;
    let mut raw = Raw::connect(&server, &[0, 4, 0x7f, 0xff, 0xff, 0xff]).await;
    let wide = (2_000_000u32 - 65_535).to_be_bytes();
    raw.say(&frame(WINDOW_UPDATE, 0, 0, &wide)).await;
    for stream in [1, 3, 5] {
        if stream < 5 {
            raw.ask(stream, "/big", true).await;
        }
        while raw.got < (1 << 20) * (stream as usize).div_ceil(2) && raw.got < 2_000_000 {
            raw.hear().await.expect("closed");
        }
        if stream == 1 {
            rest(&server, 1).await;
        }
    }
    raw.ping().await;
    assert_eq!(raw.got, 2_000_000);
    server.handle.close();
    server.stopped().await;
}

#[tokio::test]
async fn it_says_goodbye_when_it_is_to_go() {
    // When the server drains.
    let server = restless(any_port(), Limits::default()).await;
    let mut raw = Raw::connect(&server, &[]).await;
    raw.ask(1, "/a", true).await;
    raw.until(DATA, 1, 1).await;
    rest(&server, 1).await;
    server.handle.wish_shutdown();
    goes(raw).await;
    server.stopped().await;

    // When it has idled long enough.
    let limits = Limits {
        idle_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = restless(any_port(), limits).await;
    let mut raw = Raw::connect(&server, &[]).await;
    raw.ask(1, "/a", true).await;
    raw.until(DATA, 1, 1).await;
    goes(raw).await;
    server.until(|seen| seen.counts.idle == 0).await;
    server.stop().await;
}

/// It hears two GOAWAY, the second of which names the last stream, answers the PING between, and the server closes.
async fn goes(mut raw: Raw) {
    let mut last = Vec::new();
    while let Some((kind, flags, _, payload)) = raw.hear().await {
        match kind {
            GOAWAY => last.push(u32::from_be_bytes(payload[..4].try_into().unwrap())),
            PING if flags == 0 => raw.say(&frame(PING, 1, 0, &payload)).await,
            _ => {}
        }
    }
    assert_eq!(last, [u32::MAX >> 1, 1]);
}

#[tokio::test]
async fn a_client_that_goes_is_noticed() {
    let server = restless(any_port(), Limits::default()).await;
    let mut raw = Raw::connect(&server, &[]).await;
    raw.ask(1, "/a", true).await;
    raw.until(DATA, 1, 1).await;
    rest(&server, 1).await;
    drop(raw);
    server.until(|seen| seen.counts.idle == 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_are_cut_however_often_it_rests() {
    let server = restless(any_port(), Limits::default()).await;
    let mut raw = Raw::connect(&server, &[]).await;
    raw.ask(1, "/a", true).await;
    raw.until(DATA, 1, 1).await;
    let (mut reader, mut writer) = raw.socket.into_split();
    // So that the server is not kept from reading by answers that nobody takes.
    let drained =
        tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
    let pings = frame(PING, 0, 0, b"12345678").repeat(50);
    let flood = async {
        for sent in 0.. {
            assert!(sent < 100_000, "it is not cut");
            if writer.write_all(&pings).await.is_err() {
                return;
            }
            if sent % 20 == 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    soon(flood).await;
    let _ = soon(drained).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_met_is_met_by_connections_that_rest_at_once() {
    let server = restless(any_port(), Limits::default()).await;
    let Some((met, failed)) = met(&server).await else {
        return;
    };
    let lost = lost(&met);
    assert!(lost.is_empty(), "not met: {lost:#?}\n{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2load_loses_nothing_to_rests() {
    let Some(h2load) = find("h2load") else { return };
    let server = restless(any_port().tls(config()), Limits::default()).await;
    let url = format!("https://{}/x", server.address);
    let arguments = ["-t1", "-c8", "-m1", "-n4000", "-H", "x-some: thing", &url];
    let said = run_on(h2load, &arguments, "").await;
    assert!(
        said.contains("4000 succeeded, 0 failed, 0 errored"),
        "{said}"
    );
    assert!(said.contains("4000 2xx"), "{said}");
    server.stop().await;
}
