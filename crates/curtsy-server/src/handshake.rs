//! What comes before the first request: the PROXY header, the question which protocol it is, and
//! the TLS handshake.
//!
//! Each connection does it in a task of its own, so that accepting never waits for a client, and
//! within [`Limits::handshake_timeout`](crate::Limits::handshake_timeout). Then the task ends, and
//! the connection is launched anew as what it turned out to be.
//!
//! A plain listener has no part in this: HTTP/1 is assumed, and only what turns out to be none
//! comes here, by [`other`].

use crate::clock;
use crate::http1::Wire;
use crate::http1::is_host;
use crate::lingering::poll_discard;
use crate::link::Link;
use crate::metrics::HandshakeTrouble;
use crate::mode::{Epoch, Mode, PlainOnTls};
use crate::proxy::{self, Carried, Header};
use crate::seat::Seat;
use crate::shared::Orders;
use crate::stream::Stream;
use crate::tls::{Secure, TlsConfig};
use crate::wheel::Awake;
use crate::worker::{Fresh, Speaks, Worker};
use bytes::Bytes;
use curtsy_lifecycle::{Address, Arrival, Entry, State};
use http::StatusCode;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout};

/// The first byte of a TLS handshake's record.
const TLS: u8 = 0x16;
/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How many bytes of it an HTTP/1 parser takes before it sees that this is something else.
const PREFACE_LEAST: usize = b"PRI * HTTP/2".len();
/// A TLS record with a fatal `handshake_failure`: TLS is not spoken here.
const ALERT: &[u8] = &[0x15, 3, 1, 0, 2, 2, 40];
/// How long a handshake that has begun may go on when a drain's linger is over.
const GRACE: Duration = Duration::from_secs(1);
/// What has arrived before the end of the linger is seen within this.
const LAST_LOOK: Duration = Duration::from_millis(20);
/// The most of a head that is read to redirect it, in bytes.
const HEAD_MOST: usize = 16 << 10;
const HEAD_FIELDS_MOST: usize = 128;
const READ: usize = 2048;

/// Whether the first bytes of a connection, which are no HTTP/1, are something that [`other`] has
/// an answer to.
pub(crate) fn is_other(first: &[u8], encrypted: bool) -> bool {
    if first.first() == Some(&TLS) {
        return !encrypted;
    }
    let both = first.len().min(PREFACE.len());
    both >= PREFACE_LEAST && first[..both] == PREFACE[..both]
}

/// Goes on with a connection that turned out not to speak HTTP/1.
pub(crate) async fn other(wire: Wire, first: Bytes, link: &Arc<Link>) {
    let (mut stream, seat) = wire.into_stream();
    if first.first() == Some(&TLS) {
        let peer = link.entry.peer();
        link.worker
            .tally
            .handshake_failed(HandshakeTrouble::Refused);
        tracing::debug!(%peer, "TLS on a plain listener; told so by an alert");
        return say_and_close(&mut stream, ALERT, link.worker.shared.limits.close_linger).await;
    }
    let entry = &link.entry;
    let fresh = Fresh {
        stream,
        arrival: entry.arrival().clone(),
        state: State::New,
        since: entry.accepted(),
        served: 0,
        first,
        speaks: Speaks::Http2(None),
    };
    if let Some(seat) = Arc::into_inner(seat) {
        link.worker.launch(fresh);
        seat.give_up();
    }
}

/// What a connection turned out to be.
enum Found {
    /// Something to serve.
    Http {
        stream: Stream,
        first: Bytes,
        speaks: Speaks,
    },
    /// It does not encrypt where it should; the answer it gets.
    Unencrypted { stream: Stream, answer: String },
}

/// Finds out what a connection speaks under `epoch`, and launches it as that.
pub(crate) async fn receive(fresh: Fresh, epoch: Arc<Epoch>, worker: Arc<Worker>) {
    let _awake = Awake::begin(&worker);
    let Fresh {
        stream,
        mut arrival,
        state,
        since,
        ..
    } = fresh;
    let entry = Arc::new(Entry::new(arrival.clone(), state, since));
    let link = Arc::new(Link::new(entry, worker));
    let seat = Seat::take(&link);
    let shared = &link.worker.shared;
    let heard = AtomicBool::new(false);
    let found = within(&link, &heard, find(stream, &mut arrival, &epoch, &heard)).await;
    match found {
        Some(Ok(Found::Http {
            stream,
            first,
            speaks,
        })) => {
            arrival.tls = stream.is_tls();
            let origin = if arrival.tls {
                &epoch.tls
            } else {
                &epoch.plain
            };
            arrival.origin = origin.clone();
            if let Some(hook) = &shared.hooks.state {
                let entry = Entry::new(arrival.clone(), State::New, clock::now());
                hook(
                    &curtsy_lifecycle::ConnectionInfo::new(Arc::new(entry)),
                    State::New,
                );
            }
            link.worker.launch(Fresh {
                stream,
                arrival,
                state: State::New,
                since: clock::now(),
                served: 0,
                first,
                speaks,
            });
            seat.give_up();
        }
        Some(Ok(Found::Unencrypted { mut stream, answer })) => {
            link.worker
                .tally
                .handshake_failed(HandshakeTrouble::Unencrypted);
            say_and_close(&mut stream, answer.as_bytes(), shared.limits.close_linger).await;
        }
        Some(Err(error)) => {
            let is_gone = matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            );
            let trouble = match is_gone {
                true => HandshakeTrouble::Closed,
                false => HandshakeTrouble::Refused,
            };
            link.worker.tally.handshake_failed(trouble);
            tracing::debug!(peer = %link.entry.peer(), %error, "handshake failed");
        }
        None => {
            link.worker
                .tally
                .handshake_failed(HandshakeTrouble::Timeout);
            tracing::debug!(peer = %link.entry.peer(), "no handshake in time; closed");
        }
    }
}

/// Awaits `work` for as long as the connection may be in its handshake; `None` when it must end.
async fn within<F: Future>(link: &Link, heard: &AtomicBool, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    let limit = link.worker.shared.limits.handshake_timeout;
    let mut alarm = Box::pin(sleep(limit));
    let mut grace: Option<(Duration, Pin<Box<Sleep>>)> = None;
    poll_fn(|cx| {
        // Before the orders are looked at: one that comes later wakes us.
        link.entry.watch(cx.waker());
        let orders = link.orders();
        if link.entry.is_killed() || orders & Orders::CUT != 0 {
            return Poll::Ready(None);
        }
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        if orders & (Orders::END_LINGER | Orders::CLOSE_IDLE) != 0 {
            let begun = heard.load(Ordering::Relaxed);
            let (patience, sleep) =
                grace.get_or_insert_with(|| (LAST_LOOK, Box::pin(sleep(LAST_LOOK))));
            if begun && *patience != GRACE {
                *patience = GRACE;
                sleep.as_mut().reset(Instant::now() + GRACE);
            }
            if sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
        }
        alarm.as_mut().poll(cx).map(|()| None)
    })
    .await
}

async fn find(
    mut stream: Stream,
    arrival: &mut Arrival,
    epoch: &Epoch,
    heard: &AtomicBool,
) -> io::Result<Found> {
    let mut first = Vec::new();
    if let Some(proxies) = &epoch.proxies
        && proxies.contains(&arrival.peer)
        && let Some(carried) = read_proxy_header(&mut stream, &mut first, heard).await?
    {
        arrival.peer = Address::Tcp(carried.client);
        arrival.local = Address::Tcp(carried.server);
        arrival.carried = true;
    }
    let Some(config) = epoch.mode.tls() else {
        return Ok(http1(stream, first));
    };
    if first.is_empty() {
        read_some(&mut stream, &mut first, heard).await?;
    }
    if first.first() == Some(&TLS) {
        return secure(stream, config, first).await;
    }
    match (&epoch.mode, epoch.plain_on_tls) {
        (Mode::Plain | Mode::Both(_), _) | (Mode::Tls(_), PlainOnTls::Serve) => {
            Ok(http1(stream, first))
        }
        (Mode::Tls(_), PlainOnTls::Refuse400) => Ok(Found::Unencrypted {
            stream,
            answer: refusal(),
        }),
        (Mode::Tls(_), PlainOnTls::Redirect308) => {
            let answer = loop {
                if let Some(answer) = redirection(&first) {
                    break answer;
                }
                read_some(&mut stream, &mut first, heard).await?;
            };
            Ok(Found::Unencrypted { stream, answer })
        }
    }
}

fn http1(stream: Stream, first: Vec<u8>) -> Found {
    Found::Http {
        stream,
        first: first.into(),
        speaks: Speaks::Http1,
    }
}

async fn secure(stream: Stream, config: &TlsConfig, first: Vec<u8>) -> io::Result<Found> {
    let mut secure = Secure::new(stream, config.server.clone(), first).map_err(io::Error::other)?;
    if let Err(error) = secure.handshake().await {
        // The alert that says why must not be lost to a reset.
        let _ = secure.socket_mut().shutdown().await;
        let gone = poll_fn(|cx| poll_discard(secure.socket_mut(), cx));
        let _ = timeout(GRACE, gone).await;
        return Err(error);
    }
    let speaks = match secure.is_http2() {
        true => Speaks::Http2(None),
        false => Speaks::Http1,
    };
    Ok(Found::Http {
        stream: Stream::Tls(Box::new(secure)),
        first: Bytes::new(),
        speaks,
    })
}

async fn read_proxy_header(
    stream: &mut Stream,
    first: &mut Vec<u8>,
    heard: &AtomicBool,
) -> io::Result<Option<Carried>> {
    loop {
        match proxy::parse(first) {
            Header::Complete { length, addresses } => {
                first.drain(..length);
                return Ok(addresses);
            }
            Header::Bad => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "no header of the PROXY protocol",
                ));
            }
            Header::Incomplete => read_some(stream, first, heard).await?,
        }
    }
}

/// Reads what there is, and something at least. No buffer is made before it is there.
async fn read_some(stream: &mut Stream, bytes: &mut Vec<u8>, heard: &AtomicBool) -> io::Result<()> {
    poll_fn(|cx| {
        let mut room = [0u8; READ];
        let mut buf = ReadBuf::new(&mut room);
        std::task::ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
        heard.store(true, Ordering::Relaxed);
        bytes.extend_from_slice(buf.filled());
        Poll::Ready(match buf.filled().is_empty() {
            true => Err(io::ErrorKind::UnexpectedEof.into()),
            false => Ok(()),
        })
    })
    .await
}

/// The answer to a client that does not encrypt.
fn refusal() -> String {
    answer(StatusCode::BAD_REQUEST, "", "this port speaks HTTPS\n")
}

/// The answer that sends a request to the same host and path under `https`; `None` while its head
/// is incomplete.
pub(crate) fn redirection(head: &[u8]) -> Option<String> {
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MOST];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Partial) if head.len() < HEAD_MOST => return None,
        Ok(httparse::Status::Partial) | Err(_) => return Some(refusal()),
        Ok(httparse::Status::Complete(_)) => {}
    }
    let mut hosts = request
        .headers
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("host"))
        .map(|field| field.value.trim_ascii());
    let (host, path) = match (hosts.next(), hosts.next(), request.path) {
        (Some(host), None, Some(path)) if !host.is_empty() && is_host(host) => (host, path),
        _ => return Some(refusal()),
    };
    let (Ok(host), true) = (std::str::from_utf8(host), path.starts_with('/')) else {
        return Some(refusal());
    };
    let location = format!("location: https://{host}{path}\r\n");
    Some(answer(StatusCode::PERMANENT_REDIRECT, &location, ""))
}

fn answer(status: StatusCode, fields: &str, text: &str) -> String {
    format!(
        "HTTP/1.1 {} {}\r\n{fields}content-type: text/plain; charset=utf-8\r\n\
         content-length: {}\r\nconnection: close\r\ndate: {}\r\n\r\n{text}",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        text.len(),
        httpdate::fmt_http_date(SystemTime::now()),
    )
}

/// Sends `last` and closes, so that it is not lost to a reset. Takes at most twice `linger`.
async fn say_and_close(stream: &mut Stream, last: &[u8], linger: Duration) {
    let written = timeout(linger, async {
        stream.write_all(last).await?;
        stream.shutdown().await
    })
    .await;
    if matches!(written, Ok(Ok(()))) {
        let discard = poll_fn(|cx| poll_discard(stream, cx));
        // Whether the peer closes in time makes no difference to what we do next: close.
        let _ = timeout(linger, discard).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{PREFACE, is_other, redirection};

    #[test]
    fn what_is_not_http1() {
        for (first, encrypted, expected) in [
            (&[0x16, 3, 1][..], false, true),
            (&[0x16, 3, 1], true, false),
            (PREFACE, false, true),
            (PREFACE, true, true),
            (&PREFACE[..12], false, true),
            (b"PRI * HTTP/2.0\r\n\r\nXX", false, false),
            (b"PRI / HTTP/2.0", false, false),
            (b"POST / HTTP/1.1", false, false),
            (b"", false, false),
        ] {
            assert_eq!(is_other(first, encrypted), expected, "{first:?}");
        }
        let more = [PREFACE, &[0; 40]].concat();
        assert!(is_other(&more, false));
    }

    #[test]
    fn a_redirection_keeps_host_and_path_and_nothing_else() {
        let to = |head: &str| redirection(head.as_bytes());
        let good = to("GET /a?b=c HTTP/1.1\r\nHost: x.test:9000\r\n\r\n").unwrap();
        assert!(good.starts_with("HTTP/1.1 308 "), "{good}");
        assert!(
            good.contains("\r\nlocation: https://x.test:9000/a?b=c\r\n"),
            "{good}"
        );
        assert_eq!(to("GET / HTTP/1.1\r\nHost: x"), None);
        for bad in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \r\n\r\n",
            "GET x HTTP/1.1\r\nHost: a\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert!(to(bad).unwrap().starts_with("HTTP/1.1 400 "), "{bad}");
        }
        let endless = format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(20_000));
        assert!(to(&endless).unwrap().starts_with("HTTP/1.1 400 "));
    }
}
