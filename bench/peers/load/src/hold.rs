//! Thousands of connections that stay.
//!
//! When all are open (and have done what they do first) one line of JSON says so. Then every line on standard input
//! is answered with how many the server has not closed; the end of standard input ends everything.

use std::{
    io::{self, BufRead as _, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{
    answer::{self, Progress},
    socket::Sources,
};

/// More would not fit under a descriptor limit of 20,000 with room to spare.
const CONNECTIONS_MAX: usize = 15_000;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

const UPLOAD_BYTES: usize = 1 << 20;

/// How many uploads are under way at a time.
const UPLOADS: usize = 32;

/// Until one answer has to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the connections do before they stay.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum How {
    /// Nothing at all.
    Silent,
    /// One request each, one connection after another.
    One,
    /// All connect, then all ask, then all read.
    Burst,
    /// An upload of 1 MiB each, 32 at a time.
    Upload,
}

/// Opens `conns` connections and holds them until standard input or `time` ends.
pub fn run(target: SocketAddr, conns: usize, how: How, time: Duration) -> Result<Value> {
    ensure!(
        conns <= CONNECTIONS_MAX,
        "at most {CONNECTIONS_MAX} connections"
    );
    let begun = Instant::now();
    let mut sources = Sources::default();
    let held = match how {
        How::Silent => connect(&mut sources, target, conns)?,
        How::One => one_after_another(&mut sources, target, conns)?,
        How::Burst => burst(&mut sources, target, conns)?,
        How::Upload => uploads(&mut sources, target, conns)?,
    };
    for stream in &held {
        stream.set_nonblocking(true)?;
    }
    tell(&json!({"open": held.len(), "seconds": begun.elapsed().as_secs_f64()}))?;

    let (asked, asks) = mpsc::channel();
    // Ends with the process: a read of standard input cannot be called off.
    thread::spawn(move || {
        io::stdin()
            .lock()
            .lines()
            .map_while(Result::ok)
            .try_for_each(|_| asked.send(()))
    });
    while let Some(left) = time.checked_sub(begun.elapsed()) {
        match asks.recv_timeout(left) {
            Ok(()) => tell(&json!({"open": held.iter().filter(|stream| is_open(stream)).count()}))?,
            Err(_) => break,
        }
    }
    Ok(json!({"held": held.len()}))
}

fn tell(line: &Value) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn connect(sources: &mut Sources, target: SocketAddr, conns: usize) -> Result<Vec<TcpStream>> {
    let one = |_| {
        let stream = sources.connect(target).context("connecting")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    (0..conns).map(one).collect()
}

fn one_after_another(
    sources: &mut Sources,
    target: SocketAddr,
    conns: usize,
) -> Result<Vec<TcpStream>> {
    let mut held = Vec::with_capacity(conns);
    for _ in 0..conns {
        let mut streams = connect(sources, target, 1)?;
        ask(&streams[0], REQUEST)?;
        read(&streams[0])?;
        held.append(&mut streams);
    }
    Ok(held)
}

fn burst(sources: &mut Sources, target: SocketAddr, conns: usize) -> Result<Vec<TcpStream>> {
    let held = connect(sources, target, conns)?;
    held.iter().try_for_each(|stream| ask(stream, REQUEST))?;
    held.iter().try_for_each(read)?;
    Ok(held)
}

/// Several threads, because a server under test may have several too; every connection is one thread's.
fn uploads(sources: &mut Sources, target: SocketAddr, conns: usize) -> Result<Vec<TcpStream>> {
    let mut request = format!(
        "POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {UPLOAD_BYTES}\r\n\r\n"
    );
    request.extend(std::iter::repeat_n('x', UPLOAD_BYTES));
    let request = request.as_bytes();
    let mut held = Vec::with_capacity(conns);
    while held.len() < conns {
        let mut batch = connect(sources, target, UPLOADS.min(conns - held.len()))?;
        thread::scope(|scope| {
            let one = |stream: &TcpStream| ask(stream, request).and_then(|()| read(stream));
            let threads: Vec<_> = batch
                .iter()
                .map(|stream| scope.spawn(move || one(stream)))
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().expect("an upload panicked"))
        })?;
        held.append(&mut batch);
    }
    Ok(held)
}

fn ask(mut stream: &TcpStream, request: &[u8]) -> Result<()> {
    stream.write_all(request).context("asking")
}

fn read(mut stream: &TcpStream) -> Result<()> {
    let (mut buffer, mut filled) = ([0; 4096], 0);
    loop {
        let read = stream
            .read(&mut buffer[filled..])
            .context("reading an answer")?;
        ensure!(read > 0, "closed before the answer was whole");
        filled += read;
        if let Progress::Whole(_) = answer::progress(&buffer[..filled])? {
            return Ok(());
        }
    }
}
