//! Batches of requests on keep-alive connections: sixteen written at once, the next batch when all are answered.
//!
//! wrk can send them, but its latencies count requests and not batches, and come out as nothing at all. Here a latency
//! is that of a whole batch, from before its write to its last byte. All answers of a connection have to be as long
//! as its first one, and every one of them a 200.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::event::{Timespec, epoll};
use serde_json::{Value, json};

use crate::{
    answer::{self, Progress},
    socket::Sources,
    summary::Latencies,
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

const OK: &[u8] = b"HTTP/1.1 200";

/// Until the first answer has to be there.
const PATIENCE: Duration = Duration::from_secs(10);

struct Connection {
    stream: TcpStream,
    since: Instant,
    got: Vec<u8>,
    answer_bytes: usize,
}

/// Keeps a batch of `depth` under way on each of `conns` connections until `time` is over.
pub fn run(target: SocketAddr, conns: usize, depth: usize, time: Duration) -> Result<Value> {
    ensure!(depth > 0, "a batch has requests");
    let (epoll, mut sources) = (
        epoll::create(epoll::CreateFlags::CLOEXEC)?,
        Sources::default(),
    );
    let batch = REQUEST.repeat(depth);
    let mut connections = Vec::with_capacity(conns);
    for key in 0..conns {
        let connection = Connection::open(&mut sources, target)?;
        epoll::add(
            &epoll,
            connection.stream.as_fd(),
            epoll::EventData::new_u64(key as u64),
            epoll::EventFlags::IN,
        )?;
        connections.push(connection);
    }
    let (mut latencies, begun) = (Latencies::default(), Instant::now());
    for connection in &mut connections {
        connection.ask(&batch)?;
    }
    let mut events = Vec::with_capacity(conns.max(1));
    let mut buffer = vec![0; 64 * 1024];
    while begun.elapsed() < time {
        events.clear();
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: 10_000_000,
        };
        match epoll::wait(
            &epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&wait),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let connection = &mut connections[event.data.u64() as usize];
            if connection.is_answered(&mut buffer, depth)? {
                latencies.push(connection.since.elapsed());
                connection.ask(&batch)?;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let requests = latencies.len() * depth;
    let [p50, p99, p999] = latencies.percentiles([50.0, 99.0, 99.9]);
    Ok(
        json!({"requests": requests, "errors": 0, "seconds": seconds,
              "p50_us": p50, "p99_us": p99, "p999_us": p999}),
    )
}

impl Connection {
    /// Connects and asks once, to learn how long an answer is.
    fn open(sources: &mut Sources, target: SocketAddr) -> Result<Self> {
        let mut stream = sources.connect(target).context("connecting")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(REQUEST)?;
        let (mut buffer, mut filled) = ([0; 4096], 0);
        let answer_bytes = loop {
            let read = stream
                .read(&mut buffer[filled..])
                .context("reading an answer")?;
            ensure!(read > 0, "closed before the answer was whole");
            filled += read;
            if let Progress::Whole(bytes) = answer::progress(&buffer[..filled])? {
                break bytes;
            }
        };
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            since: Instant::now(),
            got: Vec::new(),
            answer_bytes,
        })
    }

    /// The batch fits the socket's buffer, which is empty: everything before it was answered.
    fn ask(&mut self, batch: &[u8]) -> Result<()> {
        self.got.clear();
        self.since = Instant::now();
        ensure!(
            self.stream.write(batch)? == batch.len(),
            "the socket took only part of a batch"
        );
        Ok(())
    }

    fn is_answered(&mut self, buffer: &mut [u8], depth: usize) -> Result<bool> {
        match self.stream.read(buffer) {
            Ok(0) => anyhow::bail!("closed in the middle of a batch"),
            Ok(read) => self.got.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("reading a batch"),
        }
        let expected = depth * self.answer_bytes;
        ensure!(self.got.len() <= expected, "more bytes than a batch has");
        if self.got.len() < expected {
            return Ok(false);
        }
        let all_ok = self
            .got
            .chunks(self.answer_bytes)
            .all(|answer| answer.starts_with(OK));
        ensure!(
            all_ok,
            "an answer in a batch is not a 200 of the usual length"
        );
        Ok(true)
    }
}
