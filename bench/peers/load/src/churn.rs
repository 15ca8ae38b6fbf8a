//! A new connection for every request: connect, ask with `Connection: close`, read to the end.
//!
//! A latency is from before `connect` to the end of the stream. The server closes first, as it was asked to.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::event::epoll;
use serde_json::Value;
use slab::Slab;

use crate::{
    answer::{self, Progress},
    events::Events,
    socket::Sources,
    summary::Latencies,
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// A look at the clock is due this often.
const TICK: Duration = Duration::from_millis(10);

/// One connection with its one request.
pub struct Try {
    stream: TcpStream,
    since: Instant,
    asked: bool,
    got: Vec<u8>,
}

/// How far a try has come.
pub enum Step {
    GoesOn,
    Done,
    Failed,
}

/// Keeps `conns` tries under way until `time` is over.
pub fn run(target: SocketAddr, conns: usize, time: Duration) -> Result<Value> {
    let (mut events, mut sources) = (Events::new(conns)?, Sources::default());
    let mut tries = Slab::<Try>::with_capacity(conns);
    let (mut latencies, mut errors) = (Latencies::default(), 0_usize);
    let begun = Instant::now();
    while begun.elapsed() < time {
        while tries.len() < conns {
            let (entry, since) = (tries.vacant_entry(), Instant::now());
            let key = entry.key();
            entry.insert(Try::begin(&mut sources, target, &events, key, since)?);
        }
        events.wait(TICK)?;
        for key in events.keys() {
            let Some(one) = tries.get_mut(key) else {
                continue;
            };
            match one.step() {
                Step::GoesOn => continue,
                Step::Done => latencies.push(one.since.elapsed()),
                Step::Failed => errors += 1,
            }
            tries.remove(key);
        }
    }
    let requests = latencies.len();
    Ok(latencies.line(requests, errors, begun.elapsed()))
}

impl Try {
    /// Begins to connect; `events` speaks of it as `key`. Its latency counts from `since`.
    pub fn begin(
        sources: &mut Sources,
        target: SocketAddr,
        events: &Events,
        key: usize,
        since: Instant,
    ) -> Result<Self> {
        let stream = sources.begin(target)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        events.add(&stream, key, flags)?;
        Ok(Self {
            stream,
            since,
            asked: false,
            got: Vec::with_capacity(512),
        })
    }

    /// From when its latency counts.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Does what can be done without waiting.
    pub fn step(&mut self) -> Step {
        if !self.asked {
            match self.stream.write(REQUEST) {
                Ok(REQUEST_BYTES) => self.asked = true,
                Ok(_) => return Step::Failed,
                Err(error) if waits(&error) => return Step::GoesOn,
                Err(_) => return Step::Failed,
            }
        }
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) if matches!(answer::progress(&self.got), Ok(Progress::Whole(_))) => {
                    return Step::Done;
                }
                Ok(0) => return Step::Failed,
                Ok(read) => self.got.extend_from_slice(&buffer[..read]),
                Err(error) if waits(&error) => return Step::GoesOn,
                Err(_) => return Step::Failed,
            }
        }
    }
}

const REQUEST_BYTES: usize = REQUEST.len();

/// Not connected yet, or nothing there yet.
fn waits(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
    )
}
