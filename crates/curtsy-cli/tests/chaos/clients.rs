//! Clients that remember what became of each request.

use crate::processes::Service;
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
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
    pub(crate) lost: Vec<Loss>,
}

/// A request that was not answered.
#[derive(Debug)]
pub(crate) struct Loss {
    number: u64,
    #[expect(dead_code, reason = "said when a test fails")]
    why: io::ErrorKind,
    #[expect(dead_code, reason = "said when a test fails")]
    after: Duration,
    /// The client's, of the connection.
    port: u16,
    /// On a connection that was there before anybody died.
    is_first: bool,
}

/// Who was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Donor,
    /// Its number, where more than one can be meant.
    Heir(Option<u32>),
}

/// One connection at a time, with numbers that nobody else uses.
struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
    port: u16,
    connects: usize,
    numbers: Arc<AtomicU64>,
    account: Account,
}

impl Client {
    fn new(address: SocketAddr, numbers: Arc<AtomicU64>) -> Self {
        Self {
            address,
            stream: None,
            port: 0,
            connects: 0,
            numbers,
            account: Account::default(),
        }
    }

    /// Asks once; whether it was answered. A number is used once and never sent again.
    fn ask(&mut self, ms: Option<u32>) -> bool {
        if self.stream.is_none() {
            self.stream = connect(self.address).ok();
            if let Some(stream) = &self.stream {
                self.port = stream.local_addr().unwrap().port();
                self.connects += 1;
            }
        }
        let Some(stream) = &mut self.stream else {
            return false;
        };
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let slow = ms.map_or_else(String::new, |ms| format!("/{ms}"));
        let request = format!("GET /{number}{slow} HTTP/1.1\r\nHost: test\r\n\r\n");
        let began = Instant::now();
        match exchange(stream, &request) {
            Ok(answer) => {
                self.account.answered.push(number);
                if answer.to_lowercase().contains("connection: close") {
                    self.stream = None;
                }
                true
            }
            Err(error) => {
                self.account.lost.push(Loss {
                    number,
                    why: error.kind(),
                    after: began.elapsed(),
                    port: self.port,
                    is_first: self.connects == 1,
                });
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
    /// So many that ask again and again, with pauses; and so many that ask once for an answer that takes `ms`. When this
    /// returns each has its connection, and has been answered on it.
    pub(crate) fn start(address: SocketAddr, clients: usize, slow: usize, ms: u32) -> Self {
        let mut load = Self {
            address,
            numbers: Arc::new(AtomicU64::new(1)),
            stop: Arc::default(),
            answered: Arc::default(),
            clients: Vec::new(),
            slow: Vec::new(),
        };
        let begun = Arc::new(AtomicUsize::new(0));
        for index in 0..clients {
            let (stop, answered) = (load.stop.clone(), load.answered.clone());
            let mut client = Client::new(address, load.numbers.clone());
            let begun = begun.clone();
            load.clients.push(std::thread::spawn(move || {
                assert!(client.ask(None), "the first request is not answered");
                begun.fetch_add(1, Ordering::Relaxed);
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
            let begun = begun.clone();
            load.slow.push(std::thread::spawn(move || {
                assert!(client.ask(None), "the first request is not answered");
                begun.fetch_add(1, Ordering::Relaxed);
                client.ask(Some(ms));
                client.account
            }));
        }
        let until = Instant::now() + BOUND;
        while begun.load(Ordering::Relaxed) < clients + slow {
            assert!(Instant::now() < until, "not all are answered");
            std::thread::park_timeout(Duration::from_millis(1));
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

    /// Waits until a client that comes now is answered.
    fn answers_again(&self) {
        let began = Instant::now();
        let mut client = Client::new(self.address, self.numbers.clone());
        while !client.ask(None) {
            assert!(began.elapsed() < BOUND, "the service does not come back");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        // It is not part of the account, but its numbers are part of the log.
        assert!(client.account.answered.len() == 1);
    }

    /// Ends it: what became of all requests.
    pub(crate) fn end(self) -> Account {
        self.stop.store(true, Ordering::Relaxed);
        sum(self.clients.into_iter().chain(self.slow))
    }
}

fn sum(clients: impl Iterator<Item = JoinHandle<Account>>) -> Account {
    let mut sum = Account::default();
    for client in clients {
        let account = client.join().unwrap();
        sum.answered.extend(account.answered);
        sum.lost.extend(account.lost);
    }
    sum
}

/// Checks what the clients say against what the servers wrote down: nothing was served twice, nothing answered that was not
/// served, and nothing lost but what belonged to the one that was killed. Whose a connection was the one that survived
/// says: it has read everything that the dead had said.
pub(crate) fn check(service: &Service, account: &Account, victim: Victim, what: &str) {
    let bytes = std::fs::read(&service.log).unwrap();
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
    let moved = service.moved(victim);
    for loss in &account.lost {
        let belonged_to_the_dead = match victim {
            Victim::Donor => !moved.contains(&loss.port),
            Victim::Heir(_) => moved.contains(&loss.port),
        };
        assert!(
            loss.is_first && belonged_to_the_dead,
            "{what}: {loss:?} was lost by one that lives (and served: {}); {moved:?} had gone over: {:#?}",
            served.contains(&loss.number),
            service.said()
        );
    }
}

/// How late a thread was that wanted to run now and then: what the machine did not give to anybody here.
#[derive(Debug)]
pub(crate) struct Lateness {
    micros: Arc<AtomicU64>,
    turns: Arc<AtomicU64>,
}

impl Lateness {
    /// Measures from now on, as long as the process lives.
    pub(crate) fn watch() -> Self {
        const EVERY: Duration = Duration::from_millis(2);
        let this = Self {
            micros: Arc::default(),
            turns: Arc::default(),
        };
        let (micros, turns) = (this.micros.clone(), this.turns.clone());
        std::thread::spawn(move || {
            loop {
                let began = Instant::now();
                std::thread::park_timeout(EVERY);
                let late = began.elapsed().saturating_sub(EVERY);
                let late = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
                micros.fetch_add(late, Ordering::Relaxed);
                turns.fetch_add(1, Ordering::Release);
            }
        });
        this
    }

    /// All of it so far, the stall included that is just over.
    pub(crate) fn so_far(&self) -> Duration {
        let turns = self.turns.load(Ordering::Acquire);
        while self.turns.load(Ordering::Acquire) < turns + 2 {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }
}

/// How soon the service must answer again, in this machine's time: a second, beside what a plain start of the same
/// program took in the same round, and what the machine gave to nobody meanwhile.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Waits until the service answers, and checks how long that took since `began`, when its process was killed.
pub(crate) fn answers_in_time(
    load: &Load,
    service: &Service,
    lateness: &Lateness,
    (began, late_before): (Instant, Duration),
    what: &str,
) -> Duration {
    load.answers_again();
    let took = began.elapsed();
    let late = lateness.so_far().saturating_sub(late_before);
    assert!(
        took < ANSWERS_WITHIN + service.start_took + late,
        "{what}: answered after {took:?}; a start took {:?}, the machine was late by {late:?}: {:#?}",
        service.start_took,
        service.said()
    );
    took
}
