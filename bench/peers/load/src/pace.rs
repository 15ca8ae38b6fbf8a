//! Requests at an even pace, the same for a fast server and for a slow one.
//!
//! Request `k` is due `k / rate` seconds after the beginning, on connection `k % conns`, whether those before it are
//! answered or not. A latency counts from when its request was due, not from when it could be sent: one that waits
//! because its connection waits for an earlier answer is as late as its client finds it, and a stall of the server
//! counts for everything that was due meanwhile.
//!
//! The thread never sleeps, so that its own waking up is not measured. It needs a core to itself.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rustix::event::epoll;
use serde_json::{Value, json};
use slab::Slab;

use crate::{
    churn::{Step, Try},
    events::Events,
    kept::{BUFFER_BYTES, HELLO, Kept},
    socket::Sources,
    summary::Latencies,
};

/// Every latency is kept until the end, in eight bytes.
const REQUESTS_MAX: f64 = 50e6;

/// How long answers may still come after the last request was due.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sent later than this after it was due, a request was late.
const LATE: Duration = Duration::from_millis(1);

/// Requests in a batch.
const DEPTH: usize = 16;

const POST_BYTES: usize = 1024;

/// What is asked for, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Ask {
    /// A few bytes.
    Hello,
    /// 1 KiB there and back.
    Post,
    /// 64 KiB.
    Big,
    /// Sixteen times a few bytes, asked for in one write; the latency is that of the last answer.
    Batch,
    /// A few bytes on a new connection; the latency is from before `connect` to the end of the stream.
    New,
}

/// Asks `rate` times a second for `time`; a batch is asked for once. Requests in the line are what `rate` counts.
pub fn run(target: SocketAddr, conns: usize, rate: f64, time: Duration, ask: Ask) -> Result<Value> {
    ensure!(conns > 0, "no connections");
    let total = (rate * time.as_secs_f64()).floor();
    ensure!(
        rate > 0.0 && (1.0..=REQUESTS_MAX).contains(&total),
        "at least one request, and at most {REQUESTS_MAX}"
    );
    let pace = Pace::new(rate, total as usize);
    match ask {
        Ask::New => fresh(target, conns, pace),
        _ => kept(target, conns, ask, pace),
    }
}

/// Connections that stay take turns.
fn kept(target: SocketAddr, conns: usize, ask: Ask, mut pace: Pace) -> Result<Value> {
    let (mut events, mut sources) = (Events::new(conns)?, Sources::default());
    let (request, depth) = (ask.request(), ask.depth());
    let batch = request.repeat(depth);
    let mut open = |events: &Events, key| -> Result<Kept> {
        let connection = Kept::open(&mut sources, target, &request)?;
        events.add(&connection, key, epoll::EventFlags::IN)?;
        Ok(connection)
    };
    let mut seats = Vec::with_capacity(conns);
    for key in 0..conns {
        seats.push(Seat {
            connection: open(&events, key)?,
            index: key,
            waits: false,
        });
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    pace.begin();
    while pace.goes_on() {
        while let Some(index) = pace.next() {
            seats[index % conns].go_on(&mut pace, &batch);
        }
        events.wait(Duration::ZERO)?;
        for key in events.keys() {
            let seat = &mut seats[key];
            match seat.connection.is_answered(&mut buffer, depth) {
                Ok(true) if seat.waits => pace.answered(pace.due(seat.index)),
                Ok(_) => continue,
                Err(_) => {
                    seat.connection = open(&events, key)?;
                    // Closed while nothing was asked, it is replaced and nothing is lost.
                    if !seat.waits {
                        continue;
                    }
                    pace.failed();
                }
            }
            seat.waits = false;
            seat.index += conns;
            seat.go_on(&mut pace, &batch);
        }
    }
    for seat in seats {
        for index in (seat.index..pace.total).step_by(conns) {
            pace.missed(pace.due(index), seat.waits && index == seat.index);
        }
    }
    Ok(pace.line())
}

/// Every request has a new connection.
fn fresh(target: SocketAddr, conns: usize, mut pace: Pace) -> Result<Value> {
    let (mut events, mut sources) = (Events::new(conns)?, Sources::default());
    let mut tries = Slab::<Try>::with_capacity(conns);
    pace.begin();
    while pace.goes_on() {
        while tries.len() < conns
            && let Some(index) = pace.next()
        {
            let (entry, since) = (tries.vacant_entry(), pace.due(index));
            pace.sent(since);
            let key = entry.key();
            entry.insert(Try::begin(&mut sources, target, &events, key, since)?);
        }
        events.wait(Duration::ZERO)?;
        for key in events.keys() {
            let Some(one) = tries.get_mut(key) else {
                continue;
            };
            match one.step() {
                Step::GoesOn => continue,
                Step::Done => pace.answered(one.since()),
                Step::Failed => pace.failed(),
            }
            tries.remove(key);
        }
    }
    for (_, one) in tries {
        pace.missed(one.since(), true);
    }
    for index in pace.next..pace.total {
        pace.missed(pace.due(index), false);
    }
    Ok(pace.line())
}

/// A connection, and the request that it waits for or asks next.
struct Seat {
    connection: Kept,
    index: usize,
    waits: bool,
}

impl Seat {
    /// Asks if something is due and nothing is under way.
    fn go_on(&mut self, pace: &mut Pace, batch: &[u8]) {
        if self.waits || self.index >= pace.next {
            return;
        }
        pace.sent(pace.due(self.index));
        self.waits = true;
        if self.connection.ask(batch).is_err() {
            // Reading finds it closed, and counts it.
            self.connection.end();
        }
    }
}

impl Ask {
    fn request(self) -> Vec<u8> {
        match self {
            Self::Hello | Self::Batch | Self::New => HELLO.to_vec(),
            Self::Post => {
                let mut request = format!(
                    "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {POST_BYTES}\r\n\r\n"
                );
                request.extend(std::iter::repeat_n('x', POST_BYTES));
                request.into_bytes()
            }
            Self::Big => b"GET /big?bytes=65536 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        }
    }

    fn depth(self) -> usize {
        match self {
            Self::Batch => DEPTH,
            Self::Hello | Self::Post | Self::Big | Self::New => 1,
        }
    }
}

/// When requests are due, and what became of them.
struct Pace {
    rate: f64,
    total: usize,
    begun: Instant,
    /// The first that was not yet due.
    next: usize,
    latencies: Latencies,
    answered: usize,
    errors: usize,
    late: usize,
}

impl Pace {
    fn new(rate: f64, total: usize) -> Self {
        Self {
            rate,
            total,
            begun: Instant::now(),
            next: 0,
            latencies: Latencies::default(),
            answered: 0,
            errors: 0,
            late: 0,
        }
    }

    /// The first request is due now.
    fn begin(&mut self) {
        self.begun = Instant::now();
    }

    fn due(&self, index: usize) -> Instant {
        self.begun + Duration::from_secs_f64(index as f64 / self.rate)
    }

    /// The next request, once it is due.
    fn next(&mut self) -> Option<usize> {
        let is_due = self.next < self.total && self.due(self.next) <= Instant::now();
        is_due.then(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// Whether something is to be asked or answered yet, and there is time for it.
    fn goes_on(&self) -> bool {
        self.answered + self.errors < self.total && Instant::now() < self.due(self.total) + PATIENCE
    }

    fn sent(&mut self, due: Instant) {
        self.late += usize::from(due.elapsed() > LATE);
    }

    fn answered(&mut self, due: Instant) {
        self.latencies.push(due.elapsed());
        self.answered += 1;
    }

    fn failed(&mut self) {
        self.errors += 1;
    }

    /// Without an answer at the end, a request counts with the time it has waited: it is not the less slow for that.
    fn missed(&mut self, due: Instant, asked: bool) {
        self.latencies.push(due.elapsed());
        if !asked {
            self.sent(due);
        }
    }

    fn line(self) -> Value {
        let late = self.late as f64 / self.total as f64;
        let mut line = self
            .latencies
            .line(self.answered, self.errors, self.begun.elapsed());
        line["late"] = json!(late);
        line
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        net::{TcpListener, TcpStream},
        thread,
    };

    use super::*;

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const BAD: &str = "HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno";

    /// What the server says to the `n`th request of a connection, counted from zero: that of its opening.
    type Says = fn(usize) -> Option<&'static str>;

    fn server(says: Says) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                thread::spawn(move || serve(&stream, says));
            }
        });
        address
    }

    fn serve(mut stream: &TcpStream, says: Says) {
        let (mut asked, mut closes) = (0, false);
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            closes |= line == "Connection: close";
            if !line.is_empty() {
                continue;
            }
            let answer = says(asked).unwrap_or_default();
            if stream.write_all(answer.as_bytes()).is_err() || closes {
                return;
            }
            asked += 1;
        }
    }

    /// `count` requests, a hundred a second.
    fn paced(conns: usize, count: u64, ask: Ask, says: Says) -> Value {
        let time = Duration::from_millis(10 * count + 5);
        run(server(says), conns, 100.0, time, ask).unwrap()
    }

    #[test]
    fn everything_that_is_due_is_asked() {
        for ask in [Ask::Hello, Ask::Batch, Ask::New] {
            let line = paced(3, 10, ask, |_| Some(OK));
            assert_eq!(
                (&line["requests"], &line["errors"]),
                (&json!(10), &json!(0))
            );
        }
    }

    #[test]
    fn a_stall_counts_for_everything_that_was_due_meanwhile() {
        let line = paced(1, 20, Ask::Hello, |asked| {
            if asked == 1 {
                // The stall itself is under test.
                thread::sleep(Duration::from_millis(300));
            }
            Some(OK)
        });
        assert_eq!(line["requests"], 20);
        assert!(line["p50_us"].as_f64().unwrap() > 100e3, "{line}");
        assert!(line["late"].as_f64().unwrap() >= 0.95, "{line}");
    }

    #[test]
    fn another_answer_is_an_error_and_the_load_goes_on() {
        let says: Says = |asked| Some(if asked == 2 { BAD } else { OK });
        let line = paced(1, 10, Ask::Hello, says);
        assert_eq!((&line["requests"], &line["errors"]), (&json!(5), &json!(5)));
        let line = paced(1, 10, Ask::New, |_| Some(BAD));
        assert_eq!(
            (&line["requests"], &line["errors"]),
            (&json!(0), &json!(10))
        );
    }

    #[test]
    fn without_an_answer_it_ends_and_the_wait_counts() {
        for conns in [1, 20] {
            let line = paced(conns, 5, Ask::Hello, |asked| (asked == 0).then_some(OK));
            assert_eq!((&line["requests"], &line["errors"]), (&json!(0), &json!(0)));
            assert!(line["p50_us"].as_f64().unwrap() >= 1e6, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_paced_is_refused() {
        let target = SocketAddr::from(([127, 0, 0, 1], 1));
        let second = Duration::from_secs(1);
        for (conns, rate) in [(0, 1.0), (1, 0.0), (1, -1.0), (1, f64::NAN), (1, 1e9)] {
            assert!(run(target, conns, rate, second, Ask::New).is_err());
        }
    }
}
