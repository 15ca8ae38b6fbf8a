//! Thousands who begin a handshake and leave it there: they slow nobody down, and are gone after
//! the time a handshake may take.

use crate::server::{BOUND, Demo, demo};
use crate::trusting::{localhost, trusting};
use curtsy_prove::child::Child;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

const SILENT: usize = 10_000;
/// What the tests beside this one need, and this one apart from them.
const OTHER_DESCRIPTORS: u64 = 2_000;
/// The server's default.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many clients go on asking all the while.
const ASKING: usize = 10;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// How many descriptors this process may have, as many as can be.
fn descriptors() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    limit.current.unwrap_or(u64::MAX)
}

/// What a client says first.
fn hello() -> Vec<u8> {
    let config = trusting(&["h2", "http/1.1"]).config().clone();
    let mut client = rustls::ClientConnection::new(config, localhost()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

async fn connect(address: SocketAddr) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(address).await.unwrap();
    trusting(&[]).connect(localhost(), socket).await.unwrap()
}

async fn ask(client: &mut TlsStream<TcpStream>) -> Duration {
    let begun = Instant::now();
    client.write_all(REQUEST).await.unwrap();
    client.flush().await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"Hello, World!") {
        assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0, "closed");
    }
    begun.elapsed()
}

/// Requests on kept connections, and now and then on a new one, until told to stop; how long the
/// answers and the handshakes took.
async fn go_on(address: SocketAddr, stop: Arc<AtomicBool>) -> (Vec<Duration>, Vec<Duration>) {
    let mut client = connect(address).await;
    let (mut answers, mut handshakes) = (Vec::new(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        answers.push(ask(&mut client).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
        if answers.len() % 10 == 0 {
            let begun = Instant::now();
            let mut new = connect(address).await;
            handshakes.push(begun.elapsed());
            ask(&mut new).await;
        }
    }
    (answers, handshakes)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

struct Crowd {
    stop: Arc<AtomicBool>,
    clients: JoinSet<(Vec<Duration>, Vec<Duration>)>,
}

impl Crowd {
    fn begin(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..ASKING {
            clients.spawn(go_on(address, stop.clone()));
        }
        Self { stop, clients }
    }

    /// The median answer and handshake, and how many answers there were.
    async fn end(mut self) -> (Duration, Duration, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut answers, mut handshakes) = (Vec::new(), Vec::new());
        while let Some(client) = timeout(BOUND, self.clients.join_next()).await.unwrap() {
            let (a, h) = client.unwrap();
            answers.extend(a);
            handshakes.extend(h);
        }
        let count = answers.len();
        (median(&mut answers), median(&mut handshakes), count)
    }
}

fn open_descriptors(server: &Child) -> usize {
    let pid = server.pid().unwrap();
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_silent_handshakes_slow_nobody_down() {
    let most = descriptors().saturating_sub(OTHER_DESCRIPTORS);
    let silent = usize::try_from(most).unwrap().min(SILENT);
    if silent < SILENT {
        println!("SKIPPED: only {silent} connections, as there are no more descriptors");
    }
    let mut command = demo(&["--tls", "self-signed"]);
    let directory = tempfile::tempdir().unwrap();
    command
        .arg("--control")
        .arg(directory.path().join("c.sock"));
    let server = Demo::spawn(command).await;
    let address = server.address;

    let alone = Crowd::begin(address);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (answer_alone, handshake_alone, count) = alone.end().await;
    assert!(count > ASKING);
    let before = server.child.usage().unwrap();
    let descriptors_before = open_descriptors(&server.child);

    let crowd = Crowd::begin(address);
    let hello = hello();
    let mut held = Vec::with_capacity(silent);
    let begun = Instant::now();
    for n in 0..silent {
        let mut socket = timeout(BOUND, TcpStream::connect(address))
            .await
            .unwrap()
            .unwrap();
        // Nothing at all, part of a hello, or all of it and no answer to what the server says.
        let said = match n % 4 {
            0 | 1 => &[][..],
            2 => &hello[..hello.len() / 2],
            _ => &hello,
        };
        socket.write_all(said).await.unwrap();
        held.push((socket, Instant::now()));
    }
    let opened_in = begun.elapsed();
    let seen = async {
        while open_descriptors(&server.child) < descriptors_before + silent {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // All at once, unless it took longer to open them than they may last.
    let all_at_once = timeout(HANDSHAKE_TIMEOUT.saturating_sub(opened_in), seen).await;
    let amid = server.child.usage().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (answer, handshake, answered) = crowd.end().await;
    let each = amid.pss_bytes.saturating_sub(before.pss_bytes) / silent as u64;
    println!(
        "{silent} silent handshakes opened in {opened_in:?}: {each} bytes each; \
         median answer {answer:?} (alone {answer_alone:?}), \
         handshake {handshake:?} (alone {handshake_alone:?}), {answered} answers"
    );
    assert!(all_at_once.is_ok() || opened_in > HANDSHAKE_TIMEOUT / 2);
    assert!(answered > 10 * ASKING, "{answered} answers");
    let slack = Duration::from_millis(100);
    assert!(
        answer < 10 * answer_alone + slack,
        "{answer:?}, alone {answer_alone:?}"
    );
    assert!(
        handshake < 10 * handshake_alone + slack,
        "{handshake:?}, alone {handshake_alone:?}"
    );

    // Each is closed by the server, not before its time.
    let all_gone = async {
        for (mut socket, since) in held {
            let mut scrap = Vec::new();
            // A reset is an end as well.
            let _ = socket.read_to_end(&mut scrap).await;
            assert!(since.elapsed() >= HANDSHAKE_TIMEOUT - Duration::from_secs(1));
        }
    };
    timeout(BOUND + HANDSHAKE_TIMEOUT, all_gone).await.unwrap();
    let closed = async {
        while open_descriptors(&server.child) > descriptors_before + ASKING {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(BOUND, closed).await.unwrap();
    server.stop().await;
}
