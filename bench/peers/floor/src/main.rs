//! The floor: a bare epoll loop with httparse. What HTTP/1.1 over sockets costs when nothing else is done.
//!
//! One thread, one epoll set, one listening socket each; a read buffer and a write buffer per thread, none per idle
//! connection. Keep-alive and pipelining work; timeouts, limits, chunked bodies and an orderly stop are deliberately
//! absent. On SIGTERM it closes its sockets one after another and exits, which makes it the bare `close(2)` loop that
//! a stop is measured against.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{fd::AsFd as _, unix::net::UnixStream},
    process, thread,
    time::{Duration, Instant, SystemTime},
};

use peer::{Args, HELLO, TEXT};
use rustix::event::epoll;
use slab::Slab;

const LISTENER: u64 = u64::MAX;
const SIGNAL: u64 = u64::MAX - 1;

/// A head or a small request fits; larger bodies pass through it.
const BUFFER_BYTES: usize = 64 * 1024;

fn main() -> io::Result<()> {
    let args = Args::parse();
    let mut threads = Vec::new();
    for _ in 0..args.threads {
        let (listener, (signal, raised)) = (args.listener()?, UnixStream::pair()?);
        signal_hook::low_level::pipe::register(signal_hook::consts::SIGTERM, raised)?;
        threads.push(thread::spawn(move || Worker::new(listener, signal)?.run()));
    }
    for thread in threads {
        thread.join().expect("a worker panicked")?;
    }
    process::exit(0)
}

/// A request body that has not wholly arrived.
enum Body {
    Echo { left: usize, got: Vec<u8> },
    Count { left: usize, of: usize },
}

struct Connection {
    stream: TcpStream,
    /// The beginning of a head, waiting for its rest.
    head: Vec<u8>,
    body: Option<Body>,
    /// What the socket would not take: the rest of a response, then of a big body.
    unsent: Vec<u8>,
    big: &'static [u8],
    /// A next request had already arrived when the big body was due.
    waited_for_big: bool,
    wants_write: bool,
    last: bool,
}

struct Worker {
    epoll: rustix::fd::OwnedFd,
    listener: TcpListener,
    signal: UnixStream,
    connections: Slab<Connection>,
    input: Box<[u8]>,
    output: Vec<u8>,
    date: String,
    date_until: Instant,
}

impl Worker {
    fn new(listener: TcpListener, signal: UnixStream) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &listener,
            epoll::EventData::new_u64(LISTENER),
            epoll::EventFlags::IN,
        )?;
        epoll::add(
            &epoll,
            &signal,
            epoll::EventData::new_u64(SIGNAL),
            epoll::EventFlags::IN,
        )?;
        Ok(Self {
            epoll,
            listener,
            signal,
            connections: Slab::new(),
            input: vec![0; BUFFER_BYTES].into_boxed_slice(),
            output: Vec::with_capacity(BUFFER_BYTES),
            date: String::new(),
            date_until: Instant::now(),
        })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(512);
        loop {
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            self.tell_date();
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    SIGNAL => {
                        let _ = (&self.signal).read(&mut [0]);
                        self.connections.drain().for_each(drop);
                        return Ok(());
                    }
                    key => self.serve(usize::try_from(key).expect("64 bit")),
                }
            }
        }
    }

    fn tell_date(&mut self) {
        let now = Instant::now();
        if now >= self.date_until {
            self.date = httpdate::fmt_http_date(SystemTime::now());
            self.date_until = now + Duration::from_millis(500);
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Ok(()),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            let data = epoll::EventData::new_u64(entry.key() as u64);
            epoll::add(&self.epoll, stream.as_fd(), data, epoll::EventFlags::IN)?;
            entry.insert(Connection {
                stream,
                head: Vec::new(),
                body: None,
                unsent: Vec::new(),
                big: &[],
                waited_for_big: false,
                wants_write: false,
                last: false,
            });
        }
    }

    fn serve(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let alive = connection.turn(&mut self.input, &mut self.output, &self.date);
        let wants_write = !connection.unsent.is_empty() || !connection.big.is_empty();
        if !alive {
            self.connections.remove(key);
        } else if wants_write != connection.wants_write {
            connection.wants_write = wants_write;
            // A reader that stalls is not read from either: one direction at a time.
            let flags = if wants_write {
                epoll::EventFlags::OUT
            } else {
                epoll::EventFlags::IN
            };
            let data = epoll::EventData::new_u64(key as u64);
            if epoll::modify(&self.epoll, connection.stream.as_fd(), data, flags).is_err() {
                self.connections.remove(key);
            }
        }
    }
}

impl Connection {
    /// Writes what is due, reads what is there, answers it. False: the connection is over.
    fn turn(&mut self, input: &mut [u8], output: &mut Vec<u8>, date: &str) -> bool {
        output.clear();
        output.append(&mut self.unsent);
        let mut emptied = false;
        loop {
            match self.send(output) {
                Ok(true) if self.is_over() => return false,
                Ok(true) => {}
                Ok(false) => return true,
                Err(_) => return false,
            }
            output.clear();
            if self.waited_for_big {
                self.waited_for_big = false;
                let bytes = std::mem::take(&mut self.head);
                if !self.answer(&bytes, output, date) {
                    return false;
                }
                continue;
            }
            // A short read has emptied the socket; epoll says when there is more.
            if emptied {
                return true;
            }
            let had = self.head.len();
            input[..had].copy_from_slice(&self.head);
            let filled = match self.stream.read(&mut input[had..]) {
                Ok(0) => return false,
                Ok(read) => had + read,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            };
            self.head.clear();
            emptied = filled < input.len();
            if !self.answer(&input[..filled], output, date) {
                return false;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.last && self.body.is_none()
    }

    /// Answers every whole request in `bytes` and keeps the rest. False: it is not HTTP.
    fn answer(&mut self, mut bytes: &[u8], output: &mut Vec<u8>, date: &str) -> bool {
        while !bytes.is_empty() && !self.is_over() {
            if self.body.is_some() {
                bytes = self.feed(bytes, output, date);
                continue;
            }
            if !self.big.is_empty() {
                self.waited_for_big = true;
                break;
            }
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut request = httparse::Request::new(&mut headers);
            let head = match request.parse(bytes) {
                Ok(httparse::Status::Complete(head)) => head,
                Ok(httparse::Status::Partial) if bytes.len() < BUFFER_BYTES => break,
                Ok(httparse::Status::Partial) | Err(_) => return false,
            };
            let mut length = 0;
            for header in request.headers.iter() {
                if header.name.eq_ignore_ascii_case("content-length") {
                    let Some(told) = std::str::from_utf8(header.value)
                        .ok()
                        .and_then(|value| value.parse().ok())
                    else {
                        return false;
                    };
                    length = told;
                } else if header.name.eq_ignore_ascii_case("connection") {
                    self.last |= header.value.eq_ignore_ascii_case(b"close");
                }
            }
            let (path, query) =
                request
                    .path
                    .map_or(("/", None), |target| match target.split_once('?') {
                        Some((path, query)) => (path, Some(query)),
                        None => (target, None),
                    });
            bytes = &bytes[head..];
            match (request.method, path) {
                (Some("GET"), "/") => respond(output, "200 OK", HELLO.as_bytes(), date),
                (Some("GET"), "/big") => {
                    self.big = peer::big(peer::number(query, "bytes"));
                    respond_head(output, "200 OK", self.big.len(), date);
                }
                (Some("POST"), "/echo") => {
                    self.body = Some(Body::Echo {
                        left: length,
                        got: Vec::new(),
                    })
                }
                (Some("POST"), "/upload") => {
                    self.body = Some(Body::Count {
                        left: length,
                        of: length,
                    })
                }
                (Some("GET"), path) if path.starts_with("/user/") => {
                    respond(
                        output,
                        "200 OK",
                        format!("Hello, {}!", &path["/user/".len()..]).as_bytes(),
                        date,
                    );
                }
                _ => respond(output, "404 Not Found", b"", date),
            }
            if length == 0 && self.body.is_some() {
                bytes = self.feed(bytes, output, date);
            }
        }
        self.head.extend_from_slice(bytes);
        true
    }

    /// Gives the body its bytes and answers when it is whole; returns what is not the body's.
    fn feed<'a>(&mut self, bytes: &'a [u8], output: &mut Vec<u8>, date: &str) -> &'a [u8] {
        let Some(body) = &mut self.body else {
            return bytes;
        };
        let (Body::Echo { left, .. } | Body::Count { left, .. }) = body;
        let (now, later) = bytes.split_at(bytes.len().min(*left));
        *left -= now.len();
        let whole = *left == 0;
        match body {
            // The usual case: it came in one piece, and is not kept.
            Body::Echo { got, .. } if whole && got.is_empty() => {
                respond(output, "200 OK", now, date)
            }
            Body::Echo { got, .. } => {
                got.extend_from_slice(now);
                if whole {
                    respond(output, "200 OK", got, date);
                }
            }
            Body::Count { of, .. } if whole => {
                respond(output, "200 OK", format!("received={of}").as_bytes(), date);
            }
            Body::Count { .. } => {}
        }
        if whole {
            self.body = None;
        }
        later
    }

    /// Writes `output` and the big body behind it; keeps what the socket does not take. True: all of it went.
    fn send(&mut self, output: &[u8]) -> io::Result<bool> {
        let mut sent = 0;
        while sent < output.len() || !self.big.is_empty() {
            let parts = [
                io::IoSlice::new(&output[sent..]),
                io::IoSlice::new(self.big),
            ];
            let written = match self
                .stream
                .write_vectored(&parts[..1 + usize::from(!self.big.is_empty())])
            {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.unsent.extend_from_slice(&output[sent..]);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            };
            let of_output = written.min(output.len() - sent);
            sent += of_output;
            self.big = &self.big[written - of_output..];
        }
        Ok(true)
    }
}

fn respond(output: &mut Vec<u8>, status: &str, body: &[u8], date: &str) {
    respond_head(output, status, body.len(), date);
    output.extend_from_slice(body);
}

fn respond_head(output: &mut Vec<u8>, status: &str, length: usize, date: &str) {
    for part in [
        "HTTP/1.1 ",
        status,
        "\r\ncontent-type: ",
        TEXT,
        "\r\ncontent-length: ",
    ] {
        output.extend_from_slice(part.as_bytes());
    }
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = length;
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    output.extend_from_slice(&digits[at..]);
    for part in ["\r\ndate: ", date, "\r\n\r\n"] {
        output.extend_from_slice(part.as_bytes());
    }
}
