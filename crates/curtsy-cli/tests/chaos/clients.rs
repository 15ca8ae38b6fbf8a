//! Clients that remember what became of each request.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Nothing takes longer, however busy the machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// What one client has to tell.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) answered: Vec<u64>,
    /// Sent, wholly or in part, and never answered: its connection broke.
    pub(crate) lost: Vec<u64>,
}

/// One connection at a time, with numbers that nobody else uses.
struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
    numbers: Arc<AtomicU64>,
    account: Account,
}

impl Client {
    fn new(address: SocketAddr, numbers: Arc<AtomicU64>) -> Self {
        Self {
            address,
            stream: None,
            numbers,
            account: Account::default(),
        }
    }

    /// Asks once; whether it was answered. A number is used once and never sent again.
    fn ask(&mut self, ms: Option<u32>) -> bool {
        if self.stream.is_none() {
            self.stream = connect(self.address).ok();
        }
        let Some(stream) = &mut self.stream else {
            return false;
        };
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let slow = ms.map_or_else(String::new, |ms| format!("/{ms}"));
        let request = format!("GET /{number}{slow} HTTP/1.1\r\nHost: test\r\n\r\n");
        match exchange(stream, &request) {
            Ok(answer) => {
                self.account.answered.push(number);
                if answer.to_lowercase().contains("connection: close") {
                    self.stream = None;
                }
                true
            }
            Err(_) => {
                self.account.lost.push(number);
                self.stream = None;
                false
            }
        }
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, BOUND)?;
    stream.set_read_timeout(Some(BOUND))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b";") {
        let mut buffer = [0; 1024];
        let read = match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => read,
        };
        answer.extend(&buffer[..read]);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(answer)
}

/// Clients at work.
pub(crate) struct Load {
    address: SocketAddr,
    numbers: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Account>>,
    slow: Vec<JoinHandle<Account>>,
}

impl Load {
    /// So many that ask again and again, with pauses; and so many that ask once, for an answer that takes `ms`.
    pub(crate) fn start(address: SocketAddr, clients: usize, slow: usize, ms: u32) -> Self {
        let mut load = Self {
            address,
            numbers: Arc::new(AtomicU64::new(1)),
            stop: Arc::default(),
            answered: Arc::default(),
            clients: Vec::new(),
            slow: Vec::new(),
        };
        for index in 0..clients {
            let (stop, answered) = (load.stop.clone(), load.answered.clone());
            let mut client = Client::new(address, load.numbers.clone());
            load.clients.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if client.ask(None) {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    // Some busy, some idle most of the time.
                    std::thread::park_timeout(Duration::from_millis([1, 5, 30][index % 3]));
                }
                client.account
            }));
        }
        for _ in 0..slow {
            let mut client = Client::new(address, load.numbers.clone());
            load.slow.push(std::thread::spawn(move || {
                client.ask(Some(ms));
                client.account
            }));
        }
        load
    }

    /// Waits for so many more answers.
    pub(crate) fn go_on(&self, more: usize) {
        let from = self.answered.load(Ordering::Relaxed);
        let until = Instant::now() + BOUND;
        while self.answered.load(Ordering::Relaxed) < from + more {
            assert!(Instant::now() < until, "nothing is answered any more");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// How long it takes until a client that comes now is answered.
    pub(crate) fn answers_again(&self) -> Duration {
        let began = Instant::now();
        let mut client = Client::new(self.address, self.numbers.clone());
        while !client.ask(None) {
            assert!(began.elapsed() < BOUND, "the service does not come back");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let took = began.elapsed();
        // It is not part of the account, but its numbers are part of the log.
        assert!(client.account.answered.len() == 1);
        took
    }

    /// Ends it: what became of the others, and of the slow ones.
    pub(crate) fn end(self) -> (Account, Account) {
        self.stop.store(true, Ordering::Relaxed);
        (sum(self.clients), sum(self.slow))
    }
}

fn sum(clients: Vec<JoinHandle<Account>>) -> Account {
    let mut sum = Account::default();
    for client in clients {
        let account = client.join().unwrap();
        sum.answered.extend(account.answered);
        sum.lost.extend(account.lost);
    }
    sum
}

/// Checks the log against what the clients say: nothing twice, nothing answered that was not served.
pub(crate) fn check(log: &Path, account: &Account, what: &str) {
    let bytes = std::fs::read(log).unwrap();
    assert_eq!(bytes.len() % 8, 0, "{what}");
    let mut served = HashSet::new();
    for number in bytes.chunks_exact(8) {
        let number = u64::from_be_bytes(number.try_into().unwrap());
        assert!(
            served.insert(number),
            "{what}: request {number} was served twice"
        );
    }
    for number in &account.answered {
        assert!(
            served.contains(number),
            "{what}: {number} was answered and not served"
        );
    }
}
