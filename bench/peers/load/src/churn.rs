//! A new connection for every request: connect, ask with `Connection: close`, read to the end.
//!
//! A latency is from before `connect` to the end of the stream. The server closes first, as it was asked to.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::event::{Timespec, epoll};
use serde_json::{Value, json};
use slab::Slab;

use crate::{
    answer::{self, Progress},
    socket::Sources,
    summary::Latencies,
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

struct Try {
    stream: TcpStream,
    since: Instant,
    asked: bool,
    got: Vec<u8>,
}

enum Step {
    GoesOn,
    Done,
    Failed,
}

/// Keeps `conns` tries under way until `time` is over.
pub fn run(target: SocketAddr, conns: usize, time: Duration) -> Result<Value> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let (mut sources, mut tries) = (Sources::default(), Slab::<Try>::with_capacity(conns));
    let (mut latencies, mut errors) = (Latencies::default(), 0_usize);
    let mut events = Vec::with_capacity(conns.max(1));
    let begun = Instant::now();
    while begun.elapsed() < time {
        while tries.len() < conns {
            let since = Instant::now();
            let stream = sources.begin(target)?;
            let entry = tries.vacant_entry();
            let data = epoll::EventData::new_u64(entry.key() as u64);
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&epoll, stream.as_fd(), data, flags)?;
            entry.insert(Try {
                stream,
                since,
                asked: false,
                got: Vec::with_capacity(512),
            });
        }
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
            let key = event.data.u64() as usize;
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
    let seconds = begun.elapsed().as_secs_f64();
    let requests = latencies.len();
    let [p50, p99, p999] = latencies.percentiles([50.0, 99.0, 99.9]);
    Ok(
        json!({"requests": requests, "errors": errors, "seconds": seconds,
              "p50_us": p50, "p99_us": p99, "p999_us": p999}),
    )
}

impl Try {
    fn step(&mut self) -> Step {
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
