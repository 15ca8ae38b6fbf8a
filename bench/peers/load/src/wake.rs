//! What it costs to be asked after a pause.
//!
//! One request at a time. Idle connections take turns so that each rests for the whole pause; between two of them a
//! connection that is always in use is asked, so that both kinds meet the same server in the same moment: asleep, its
//! core idle. The difference of the two is what being parked costs.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{
    answer::{self, Progress},
    socket::Sources,
    summary::Latencies,
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Asks each of `conns` connections `turns` times, each after `idle` without a request.
pub fn run(target: SocketAddr, conns: usize, idle: Duration, turns: usize) -> Result<Value> {
    let mut sources = Sources::default();
    let mut open = || -> Result<TcpStream> {
        let stream = sources.connect(target).context("connecting")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        ask(&stream)?;
        Ok(stream)
    };
    let (hot, resting) = (
        open()?,
        (0..conns).map(|_| open()).collect::<Result<Vec<_>>>()?,
    );
    let step = idle.div_f64(2.0 * conns as f64);
    let (mut of_hot, mut of_resting) = (Latencies::default(), Latencies::default());
    let mut next = Instant::now() + idle;
    let wait = |next: &mut Instant| {
        // Pacing, not waiting for an event: the pause is what is measured.
        thread::sleep(next.saturating_duration_since(Instant::now()));
        *next += step;
    };
    for _ in 0..turns {
        for stream in &resting {
            wait(&mut next);
            of_resting.push(ask(stream)?);
            wait(&mut next);
            of_hot.push(ask(&hot)?);
        }
    }
    let [idle_p50, idle_p99] = of_resting.percentiles([50.0, 99.0]);
    let [hot_p50, hot_p99] = of_hot.percentiles([50.0, 99.0]);
    Ok(
        json!({"idle_p50_us": idle_p50, "idle_p99_us": idle_p99, "hot_p50_us": hot_p50, "hot_p99_us": hot_p99}),
    )
}

fn ask(mut stream: &TcpStream) -> Result<Duration> {
    let since = Instant::now();
    stream.write_all(REQUEST)?;
    let (mut buffer, mut filled) = ([0; 4096], 0);
    loop {
        let read = stream
            .read(&mut buffer[filled..])
            .context("reading an answer")?;
        ensure!(read > 0, "closed before the answer was whole");
        filled += read;
        if let Progress::Whole(_) = answer::progress(&buffer[..filled])? {
            return Ok(since.elapsed());
        }
    }
}
