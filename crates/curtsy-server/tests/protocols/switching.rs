//! One port, three modes, switched while in use.

use crate::support::*;
use curtsy_server::{Limits, Mode, ModeName};
use futures_util::{SinkExt, StreamExt};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

type Socket1 = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The old mode's connections drain by the old mode: what runs is finished and closed, idle ones
/// are still served within the linger, and new ones speak the new mode at once.
#[tokio::test]
async fn a_switch_drains_the_old_mode_and_serves_the_new() {
    let server = serve(any_port(), |builder| {
        builder
            .drain(linger(Duration::from_millis(600)))
            .limits(Limits {
                park_after: Duration::from_millis(10),
                ..Limits::default()
            })
    })
    .await;
    let mut busy = connect(server.address).await;
    say(&mut busy, "/gate").await;
    let mut idle = connect(server.address).await;
    ask(&mut idle, "/").await;
    let mut quiet = connect(server.address).await;
    ask(&mut quiet, "/").await;
    server
        .until(|now| now.counts.active == 1 && now.counts.parked == 2)
        .await;

    let tls = config();
    server.handle.switch("main", Mode::Tls(tls)).unwrap();
    assert_eq!(server.handle.mode("main"), Some(ModeName::Tls));
    let mut new = secure(server.address, &[]).await;
    assert!(ask(&mut new, "/who").await.1.ends_with("tls=true"));
    let (head, body) = ask(&mut idle, "/still").await;
    assert!(
        head.contains("connection: close") && body.ends_with("/still"),
        "{head}"
    );
    assert!(rest(&mut idle).await.is_empty());
    assert!(rest(&mut quiet).await.is_empty());
    server.gate.add_permits(1);
    let (head, body) = hear(&mut busy).await;
    assert!(
        head.contains("connection: close") && body == "through",
        "{head}"
    );
    let mut late = connect(server.address).await;
    assert!(ask(&mut late, "/").await.0.starts_with("HTTP/1.1 400 "));

    // And back: an HTTP/2 stream in flight is finished, its connection is told to go.
    let socket = secure(server.address, &["h2"]).await;
    let (mut send, connection) = soon(h2::client::handshake(socket)).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = || {
        http::Request::get("https://localhost/gate")
            .body(())
            .unwrap()
    };
    let (answer, _) = send.send_request(request(), true).unwrap();
    server.until(|now| now.stragglers.len() == 1).await;
    server.handle.switch_to("main", ModeName::Plain).unwrap();
    server.gate.add_permits(1);
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    drop((answer, send));
    soon(driver).await.unwrap().unwrap();
    assert!(rest(&mut new).await.is_empty());
    let mut plain = connect(server.address).await;
    assert!(ask(&mut plain, "/").await.0.starts_with("HTTP/1.1 200 "));
    assert!(server.stop().await.is_drained());
}

/// What would go on without end is told to go, over HTTP/1.1 and on a stream of HTTP/2, and only
/// there where the new mode does not take it.
#[tokio::test]
async fn websockets_of_the_old_mode_are_told_to_go() {
    let server = serve(any_port().both(config()), |b| b).await;
    let url = format!("ws://{}/ws", server.address);
    let echo = async |socket: &mut Socket1| {
        soon(socket.send(Message::text("hello"))).await.unwrap();
        assert_eq!(
            soon(socket.next()).await.unwrap().unwrap(),
            Message::text("hello")
        );
    };
    let (mut plain, _) = soon(tokio_tungstenite::connect_async(&url)).await.unwrap();
    echo(&mut plain).await;
    let encrypted = secure(server.address, &[]).await;
    let (mut encrypted, _) = soon(tokio_tungstenite::client_async(&url, encrypted))
        .await
        .unwrap();
    let mut client = crate::http2::Client::plain(server.address).await;
    let mut on_a_stream = client.open_socket("/ws").await;

    server.handle.switch_to("main", ModeName::Tls).unwrap();
    let told = soon(plain.next()).await.unwrap().unwrap();
    let Message::Close(Some(close)) = told else {
        panic!("{told:?}");
    };
    assert_eq!(u16::from(close.code), 1001);
    assert!(soon(plain.next()).await.is_none());
    assert_eq!(on_a_stream.read(4).await[2..], 1001u16.to_be_bytes());
    on_a_stream.close();
    soon(client.driver).await.unwrap().unwrap();
    // The new mode takes this one.
    soon(encrypted.send(Message::text("still"))).await.unwrap();
    assert_eq!(
        soon(encrypted.next()).await.unwrap().unwrap(),
        Message::text("still")
    );
    server.until(|now| now.counts.total() == 1).await;
    server.handle.wish_shutdown();
    assert!(soon(encrypted.next()).await.unwrap().unwrap().is_close());
    while let Some(Ok(_)) = soon(encrypted.next()).await {}
    assert!(server.stopped().await.is_drained());
}

#[tokio::test]
async fn a_switch_leaves_those_alone_whom_the_new_mode_takes() {
    let server = serve(any_port().tls(config()), |b| {
        b.drain(linger(Duration::ZERO))
    })
    .await;
    let mut client = secure(server.address, &[]).await;
    ask(&mut client, "/").await;
    for mode in [ModeName::Both, ModeName::Tls, ModeName::Tls, ModeName::Both] {
        server.handle.switch_to("main", mode).unwrap();
        let (head, _) = ask(&mut client, "/").await;
        assert!(!head.contains("connection: close"), "{head}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_done_changes_nothing() {
    let server = serve(any_port(), |b| b).await;
    let error = server.handle.switch("other", Mode::Plain).unwrap_err();
    assert!(
        error.is_config() && error.to_string().contains("there is main"),
        "{error}"
    );
    let error = server.handle.switch_to("main", ModeName::Tls).unwrap_err();
    assert!(
        error.is_config() && error.to_string().contains("no certificate"),
        "{error}"
    );
    assert_eq!(server.handle.mode("main"), Some(ModeName::Plain));
    let mut client = connect(server.address).await;
    assert!(ask(&mut client, "/").await.0.starts_with("HTTP/1.1 200 "));
    server.stop().await;
}

/// A client that follows the mode: it keeps its connection for as long as it may, and one that
/// meets the other protocol connects anew with that.
struct Follower {
    address: SocketAddr,
    encrypted: bool,
    connection: Option<Box<dyn Socket>>,
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// What became of one request on one connection.
enum Became {
    Answered,
    /// The server speaks the other protocol; the request was not taken.
    OtherProtocol,
    /// The connection was closed before a byte of the answer.
    Closed,
}

impl Follower {
    /// Makes one request until it is answered; how often it was lost on the way.
    async fn request(&mut self, reused: &mut u64) -> Result<u64, String> {
        let mut lost = 0;
        for _ in 0..20 {
            let was_open = self.connection.is_some();
            if !was_open && !self.open().await? {
                continue;
            }
            *reused += u64::from(was_open);
            match self.exchange().await? {
                Became::Answered => return Ok(lost),
                Became::OtherProtocol => self.other(),
                Became::Closed => {
                    self.connection = None;
                    lost += 1;
                }
            }
        }
        Err("no answer after 20 connections".to_owned())
    }

    fn other(&mut self) {
        self.connection = None;
        self.encrypted = !self.encrypted;
    }

    /// Whether it is open now.
    async fn open(&mut self) -> Result<bool, String> {
        let socket = TcpStream::connect(self.address).await;
        let socket = socket.map_err(|error| format!("refused: {error}"))?;
        if !self.encrypted {
            self.connection = Some(Box::new(socket));
            return Ok(true);
        }
        match secure_over(socket, "localhost", client_config(&[])).await {
            Ok(secure) => {
                self.connection = Some(Box::new(secure));
                Ok(true)
            }
            Err(error) if error.to_string().contains("HandshakeFailure") => {
                self.other();
                Ok(false)
            }
            Err(error) => Err(format!("handshake: {error}")),
        }
    }

    async fn exchange(&mut self) -> Result<Became, String> {
        let Some(socket) = &mut self.connection else {
            return Ok(Became::Closed);
        };
        let request = b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n";
        if socket.write_all(request).await.is_err() || socket.flush().await.is_err() {
            return Ok(Became::Closed);
        }
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match socket.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) if head.is_empty() => return Ok(Became::Closed),
                Err(error) => return Err(format!("cut in a head: {error}")),
            }
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        if head.starts_with("http/1.1 400 ") {
            return Ok(Became::OtherProtocol);
        }
        if !head.starts_with("http/1.1 200 ") {
            return Err(format!("unexpected: {head}"));
        }
        let mut body = [0; "HTTP/1.1 /x".len()];
        let read = socket.read_exact(&mut body).await;
        read.map_err(|error| format!("cut in a body: {error}"))?;
        if head.contains("connection: close") {
            self.connection = None;
        }
        Ok(Became::Answered)
    }
}

/// The case it was made for: 200 keep-alive connections, 20 switches, nothing lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_follow_twenty_switches() {
    const CLIENTS: u64 = 200;
    const SWITCHES: usize = 20;
    let server = serve(any_port().tls_in_reserve(config()), |builder| {
        builder
            .drain(linger(Duration::from_secs(1)))
            .limits(Limits {
                park_after: Duration::from_millis(20),
                ..Limits::default()
            })
    })
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..CLIENTS {
        let (stop, answered) = (stop.clone(), answered.clone());
        let pause = Duration::from_millis([0, 2, 50][(n % 3) as usize]);
        let mut follower = Follower {
            address: server.address,
            encrypted: false,
            connection: None,
        };
        clients.spawn(async move {
            let (mut lost, mut reused) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                lost += follower.request(&mut reused).await?;
                answered.fetch_add(1, Ordering::Relaxed);
                match pause.is_zero() {
                    true => tokio::task::yield_now().await,
                    false => tokio::time::sleep(pause).await,
                }
            }
            Ok::<_, String>((lost, reused))
        });
    }
    for n in 0..SWITCHES {
        let before = answered.load(Ordering::Relaxed);
        let mode = [ModeName::Tls, ModeName::Plain][n % 2];
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.handle.switch_to("main", mode).unwrap();
        // Everybody is served in the new mode before the next switch.
        soon(async {
            while answered.load(Ordering::Relaxed) < before + CLIENTS {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut lost, mut reused) = (0, 0);
    while let Some(client) = soon(clients.join_next()).await {
        let (l, r) = client.unwrap().unwrap();
        lost += l;
        reused += r;
    }
    assert_eq!(lost, 0, "of {} requests", answered.load(Ordering::Relaxed));
    assert!(reused > 0, "connections were kept");
    assert!(server.stop().await.is_drained());
}
