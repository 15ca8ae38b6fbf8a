//! The same bytes to both servers, and what comes back.

use crate::scripted::{OWN_DATE, answer};
use crate::support::{App, PATIENCE, Running, ms, serve_this, soon};
use curtsy_server::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::SystemTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Ends every connection that is still open: whether it is answered says whether it was.
pub(crate) const LAST: &[u8] = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// hyper alone.
pub(crate) struct Bare {
    pub(crate) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Bare {
    pub(crate) async fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                let service = service_fn(answer::<Incoming>);
                let io = TokioIo::new(socket);
                // What it has to say, its client sees.
                tokio::spawn(http1::Builder::new().serve_connection(io, service));
            }
        });
        Self { address, accepting }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Curtsy, with the service that hyper has.
pub(crate) async fn curtsy() -> Running {
    serve_this(App::default(), service_fn(answer::<Body>), |builder| {
        builder
    })
    .await
}

/// Curtsy, whose service takes hyper's own bodies.
pub(crate) async fn curtsy_with_hypers_bodies() -> Running {
    serve_this(App::default(), service_fn(answer::<Incoming>), |builder| {
        builder
    })
    .await
}

/// Curtsy, with nothing put into requests, and a hook called for each change of state.
pub(crate) async fn curtsy_otherwise() -> Running {
    serve_this(App::default(), service_fn(answer::<Body>), |builder| {
        builder
            .connection_in_extensions(false)
            .on_connection_state(|_, _| {})
    })
    .await
}

/// How requests are sent.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// Each when the one before it is answered.
    OneByOne,
    /// All of them, cut at these places.
    Pipelined(Vec<usize>),
}

/// What a connection brought back: with every `date` of the server's own blotted out, and the answer to [`LAST`]
/// if it got that far.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Record(pub(crate) Vec<u8>);

/// Sends the requests, each with whether it is a HEAD, and `LAST` behind them; with them if `together`.
pub(crate) async fn record(
    server: SocketAddr,
    requests: &[(Vec<u8>, bool)],
    manner: &Manner,
    together: bool,
) -> Record {
    let begun = SystemTime::now();
    let mut client = Client::connect(server).await;
    match manner {
        Manner::OneByOne => {
            for (request, is_head) in requests {
                client.exchange(&[request], &[*is_head]).await;
            }
        }
        Manner::Pipelined(cuts) => {
            let mut bytes: Vec<u8> = requests
                .iter()
                .flat_map(|(bytes, _)| bytes.clone())
                .collect();
            let mut heads: Vec<bool> = requests.iter().map(|(_, is_head)| *is_head).collect();
            if together {
                bytes.extend_from_slice(LAST);
                heads.push(false);
            }
            let mut pieces = Vec::new();
            let mut at = 0;
            for cut in cuts.iter().copied().chain([bytes.len()]) {
                pieces.push(&bytes[at..cut]);
                at = cut;
            }
            client.exchange(&pieces, &heads).await;
        }
    }
    client.exchange(&[LAST], &[false]).await;
    client.read_to_end().await;
    Record(without_dates(client.read, begun))
}

struct Client {
    socket: TcpStream,
    read: Vec<u8>,
    /// Where the next answer begins.
    next: usize,
    ended: bool,
}

impl Client {
    async fn connect(server: SocketAddr) -> Self {
        let socket = soon("connect", TcpStream::connect(server)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            read: Vec::new(),
            next: 0,
            ended: false,
        }
    }

    /// Writes the pieces, with a pause between, and reads at the same time: until there is an answer for each of
    /// `heads`, or the end.
    async fn exchange(&mut self, pieces: &[&[u8]], heads: &[bool]) {
        if self.ended {
            return;
        }
        let (mut from, mut to) = self.socket.split();
        let write = async {
            for (n, piece) in pieces.iter().enumerate() {
                if n > 0 {
                    tokio::time::sleep(ms(1)).await;
                }
                // Who has closed need not read it.
                if to.write_all(piece).await.is_err() {
                    return;
                }
            }
        };
        let (all, next, ended) = (&mut self.read, &mut self.next, &mut self.ended);
        let read = async {
            let mut heads = heads.iter();
            let mut is_head = heads.next();
            while let Some(head) = is_head {
                match end_of_answer(&all[*next..], *head) {
                    Some(end) => {
                        *next += end;
                        is_head = heads.next();
                    }
                    None => {
                        // Closed over what it had not read, it resets; what it has said comes first.
                        if matches!(from.read_buf(all).await, Ok(0) | Err(_)) {
                            *ended = true;
                            return;
                        }
                    }
                }
            }
        };
        let both = async {
            tokio::pin!(write);
            tokio::select! {
                biased;
                () = read => {}
                () = async { (&mut write).await; std::future::pending::<()>().await } => {}
            }
        };
        if tokio::time::timeout(PATIENCE, both).await.is_err() {
            self.give_up();
        }
    }

    /// What is compared shows it, beside the name of the case.
    fn give_up(&mut self) {
        self.read.extend(b"(neither answered nor closed in time)");
        self.ended = true;
    }

    async fn read_to_end(&mut self) {
        while !self.ended {
            let read = self.socket.read_buf(&mut self.read);
            match tokio::time::timeout(PATIENCE, read).await {
                Ok(read) => self.ended = matches!(read, Ok(0) | Err(_)),
                Err(_) => self.give_up(),
            }
        }
    }
}

/// Where the answer ends that begins here; `None` if that is not known yet, or only by the connection's end.
fn end_of_answer(bytes: &[u8], is_head: bool) -> Option<usize> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Response::new(&mut fields);
    let parsed = head.parse(bytes).expect("no answer");
    let httparse::Status::Complete(at) = parsed else {
        return None;
    };
    let status = head.code?;
    if status < 200 {
        return Some(at + end_of_answer(&bytes[at..], is_head)?);
    }
    if is_head || matches!(status, 204 | 304) {
        return Some(at);
    }
    let field = |name: &str| {
        let mut fields = head.headers.iter();
        let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(field.value).ok()
    };
    if field("transfer-encoding").is_some() {
        return Some(at + end_of_chunks(&bytes[at..])?);
    }
    let length: usize = field("content-length")?.parse().unwrap();
    (bytes.len() >= at + length).then_some(at + length)
}

fn end_of_chunks(bytes: &[u8]) -> Option<usize> {
    let line = |at: usize| {
        let mut pairs = bytes[at..].windows(2);
        pairs.position(|pair| pair == b"\r\n").map(|end| at + end)
    };
    let mut at = 0;
    loop {
        let end = line(at)?;
        let size = std::str::from_utf8(&bytes[at..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        at = end + 2;
        if size == 0 {
            break;
        }
        at += size + 2;
        if bytes.len() < at {
            return None;
        }
    }
    // Trailers, to the empty line.
    loop {
        let end = line(at)?;
        if end == at {
            return Some(at + 2);
        }
        at = end + 2;
    }
}

/// The value of each `date` that a server has made is replaced; it must be one of now.
fn without_dates(mut bytes: Vec<u8>, begun: SystemTime) -> Vec<u8> {
    const NAME: &[u8] = b"\r\ndate: ";
    let at: Vec<usize> = memchr::memmem::find_iter(&bytes, NAME).collect();
    for at in at {
        let value = at + NAME.len()..at + NAME.len() + OWN_DATE.len();
        let Some(date) = bytes.get(value.clone()) else {
            continue;
        };
        if date == OWN_DATE.as_bytes() {
            continue;
        }
        let date = String::from_utf8_lossy(date).into_owned();
        let time = httpdate::parse_http_date(&date).expect(&date);
        let off = begun
            .duration_since(time)
            .or_else(|_| time.duration_since(begun));
        assert!(off.unwrap() < PATIENCE, "not now: {date}");
        bytes[value].fill(b'D');
    }
    bytes
}

/// What the first differing bytes of the two are, with what stands around them; `None` if there are none.
pub(crate) fn difference(hyper: &Record, curtsy: &Record) -> Option<String> {
    if hyper == curtsy {
        return None;
    }
    let pairs = hyper.0.iter().zip(&curtsy.0);
    let at = pairs.take_while(|(one, other)| one == other).count();
    let around = |record: &Record| {
        let (from, to) = (at.saturating_sub(300), (at + 300).min(record.0.len()));
        record.0[from..to]
            .escape_ascii()
            .to_string()
            .replace("\\r\\n", "\\r\\n\n    ")
    };
    Some(format!(
        "differ at byte {at} of {} and {}\n  hyper:\n    {}\n  curtsy:\n    {}",
        hyper.0.len(),
        curtsy.0.len(),
        around(hyper),
        around(curtsy)
    ))
}
