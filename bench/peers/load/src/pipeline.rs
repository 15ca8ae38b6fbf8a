//! Batches of requests on keep-alive connections: sixteen written at once, the next batch when all are answered.
//!
//! wrk can send them, but its latencies count requests and not batches, and come out as nothing at all. Here a latency
//! is that of a whole batch, from before its write to its last byte.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rustix::event::epoll;
use serde_json::Value;

use crate::{
    events::Events,
    kept::{BUFFER_BYTES, HELLO, Kept},
    socket::Sources,
    summary::Latencies,
};

/// A look at the clock is due this often.
const TICK: Duration = Duration::from_millis(10);

/// Keeps a batch of `depth` under way on each of `conns` connections until `time` is over.
pub fn run(target: SocketAddr, conns: usize, depth: usize, time: Duration) -> Result<Value> {
    ensure!(depth > 0, "a batch has requests");
    let (mut events, mut sources) = (Events::new(conns)?, Sources::default());
    let batch = HELLO.repeat(depth);
    let mut connections = Vec::with_capacity(conns);
    for key in 0..conns {
        let connection = Kept::open(&mut sources, target, HELLO)?;
        events.add(&connection, key, epoll::EventFlags::IN)?;
        connections.push((connection, Instant::now()));
    }
    let (mut latencies, begun) = (Latencies::default(), Instant::now());
    for (connection, since) in &mut connections {
        *since = Instant::now();
        connection.ask(&batch)?;
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    while begun.elapsed() < time {
        events.wait(TICK)?;
        for key in events.keys() {
            let (connection, since) = &mut connections[key];
            if connection.is_answered(&mut buffer, depth)? {
                latencies.push(since.elapsed());
                *since = Instant::now();
                connection.ask(&batch)?;
            }
        }
    }
    let requests = latencies.len() * depth;
    Ok(latencies.line(requests, 0, begun.elapsed()))
}
