//! A port that goes back and forth between HTTP and HTTPS while it is in use, from outside, and
//! clients that follow it. Nothing may be lost.

use crate::server::{BOUND, Demo, demo};
use crate::trusting::{localhost, trusting};
use curtsy_prove::child::Child;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;

const CLIENTS: u64 = 200;
const SWITCHES: u32 = 20;
/// From one switch to the next: twenty take ten seconds.
const EVERY: Duration = Duration::from_millis(500);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
const HELLO: &[u8] = b"Hello, World!";

/// What the clients of one pause came to.
#[derive(Debug, Default)]
struct Tally {
    answered: u64,
    /// Answers on a connection that had carried one before.
    reused: u64,
    plain: u64,
    encrypted: u64,
    /// Connections that met the other protocol.
    turned: u64,
    /// Everything that must not be, in words.
    lost: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.reused += other.reused;
        self.plain += other.plain;
        self.encrypted += other.encrypted;
        self.turned += other.turned;
        self.lost.extend(other.lost);
    }
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// Keeps its connection for as long as it may; when it meets the other protocol, it connects anew
/// with that.
struct Follower {
    address: SocketAddr,
    connector: TlsConnector,
    encrypts: bool,
    connection: Option<Box<dyn Socket>>,
    tally: Tally,
}

/// What became of a request on a connection.
enum Became {
    Answered,
    OtherProtocol,
    Lost(String),
}

impl Follower {
    /// Makes one request, on as many connections as it takes.
    async fn request(&mut self) {
        loop {
            let was_open = self.connection.is_some();
            let became = match was_open || self.open().await {
                true => self.exchange().await,
                false => Became::OtherProtocol,
            };
            match became {
                Became::Answered => {
                    self.tally.answered += 1;
                    self.tally.reused += u64::from(was_open);
                    self.tally.encrypted += u64::from(self.encrypts);
                    self.tally.plain += u64::from(!self.encrypts);
                    return;
                }
                Became::OtherProtocol => {
                    self.connection = None;
                    self.encrypts = !self.encrypts;
                    self.tally.turned += 1;
                }
                Became::Lost(why) => {
                    self.connection = None;
                    self.tally.lost.push(why);
                    return;
                }
            }
        }
    }

    /// Connects; `false` if the server speaks no TLS now.
    async fn open(&mut self) -> bool {
        let socket = match TcpStream::connect(self.address).await {
            Ok(socket) => socket,
            Err(error) => {
                // The next exchange fails, too, but this is the reason.
                self.tally.lost.push(format!("connect: {error}"));
                return true;
            }
        };
        if !self.encrypts {
            self.connection = Some(Box::new(socket));
            return true;
        }
        match self.connector.connect(localhost(), socket).await {
            Ok(secure) => {
                self.connection = Some(Box::new(secure));
                true
            }
            // The server says in words of TLS that it speaks none.
            Err(error) if error.to_string().contains("HandshakeFailure") => false,
            Err(error) => {
                self.tally.lost.push(format!("handshake: {error}"));
                true
            }
        }
    }

    async fn exchange(&mut self) -> Became {
        let Some(socket) = &mut self.connection else {
            return Became::Lost("no connection".to_owned());
        };
        let said = async {
            socket.write_all(REQUEST).await?;
            socket.flush().await
        };
        if let Err(error) = said.await {
            return Became::Lost(format!("write: {error}"));
        }
        let mut answer = Vec::with_capacity(512);
        loop {
            match socket.read_buf(&mut answer).await {
                Ok(0) => return Became::Lost(format!("closed after {} bytes", answer.len())),
                Ok(_) => {}
                Err(error) => {
                    return Became::Lost(format!("{error} after {} bytes", answer.len()));
                }
            }
            let Some(end) = answer.windows(4).position(|part| part == b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
            if head.starts_with("http/1.1 400 ") {
                return Became::OtherProtocol;
            }
            let body = &answer[end + 4..];
            if body.len() < HELLO.len() && head.starts_with("http/1.1 200 ") {
                continue;
            }
            if body != HELLO {
                return Became::Lost(format!("unexpected: {head}"));
            }
            if head.contains("\r\nconnection: close") {
                self.connection = None;
            }
            return Became::Answered;
        }
    }
}

async fn follow(
    address: SocketAddr,
    pause: Duration,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
) -> Tally {
    let mut clients = tokio::task::JoinSet::new();
    let connector = trusting(&[]);
    for _ in 0..CLIENTS {
        let (stop, answered) = (stop.clone(), answered.clone());
        let mut follower = Follower {
            address,
            connector: connector.clone(),
            encrypts: false,
            connection: None,
            tally: Tally::default(),
        };
        clients.spawn(async move {
            while !stop.load(Ordering::Relaxed) && follower.tally.lost.len() < 3 {
                follower.request().await;
                answered.fetch_add(1, Ordering::Relaxed);
                match pause.is_zero() {
                    true => tokio::task::yield_now().await,
                    false => sleep(pause).await,
                }
            }
            follower.tally
        });
    }
    let mut all = Tally::default();
    while let Some(tally) = clients.join_next().await {
        all.add(tally.unwrap());
    }
    all
}

pub(crate) async fn switch(control: &Path, mode: &str) {
    let control = control.to_str().unwrap();
    let arguments = ["switch", "main", mode, "--control", control];
    let mut child = Child::start(env!("CARGO_BIN_EXE_curtsy"), arguments).unwrap();
    let exit = child.wait_exit(BOUND).await.unwrap();
    assert!(exit.status.success(), "{}", child.stderr());
}

async fn run(pause: Duration) -> Tally {
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control.sock");
    // Clients that the machine does not let run for a second must not be taken for idle ones.
    let flags = ["--tls", "self-signed", "--mode", "plain", "--linger", "5s"];
    let mut command = demo(&flags);
    command.arg("--control").arg(&control);
    let server = Demo::spawn(command).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let following = follow(server.address, pause, stop.clone(), Arc::clone(&answered));
    let following = tokio::spawn(following);
    let begun = async {
        while answered.load(Ordering::Relaxed) < CLIENTS {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, begun).await.unwrap();
    let mut next = Instant::now();
    for n in 0..SWITCHES {
        switch(&control, ["tls", "plain"][n as usize % 2]).await;
        next += EVERY;
        sleep_until(next).await;
    }
    stop.store(true, Ordering::Relaxed);
    let tally = timeout(BOUND, following).await.unwrap().unwrap();
    server.stop().await;
    tally
}

/// The three at once, each with a server of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_follow_twenty_switches_and_lose_nothing() {
    let (none, two, fifty) = tokio::join!(
        tokio::spawn(run(Duration::ZERO)),
        tokio::spawn(run(Duration::from_millis(2))),
        tokio::spawn(run(Duration::from_millis(50))),
    );
    for (pause, tally) in [(0, none), (2, two), (50, fifty)] {
        let tally = tally.unwrap();
        println!("pause {pause} ms: {tally:?}");
        assert!(tally.lost.is_empty(), "pause {pause} ms: {tally:?}");
        assert!(tally.reused > CLIENTS, "pause {pause} ms: {tally:?}");
        assert!(tally.plain > 0 && tally.encrypted > 0, "{tally:?}");
        assert!(tally.turned > 0, "pause {pause} ms: {tally:?}");
    }
}
