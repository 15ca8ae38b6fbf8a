//! Exchanges that are whole on both sides: a request that has arrived to its end, a handler that is ready at once, an
//! answer that is one piece of known size. They are answered on the spot, with no engine and no buffers of the
//! connection's own.
//!
//! - hyper has the rest, and goes on where this module stopped: with the request's bytes, which it parses, and with the
//!   handler or the answer that is there already (see `Judge`). Nothing is asked of a service twice.
//! - What is not beyond doubt is hyper's: heads that it may refuse, HTTP/1.0, HEAD, CONNECT, upgrades, expectations,
//!   chunks, answers that say how they are framed.
//! - The bytes of an answer are those that hyper would write; tests hold them against each other.
//! - Nothing waits here. A write that the socket takes only part of is held by the wire, and hyper flushes it.
//!
//! Deliberately absent: an HTTP parser. httparse is the one, as it is hyper's; where the request ends is found by
//! `framing` as well, and where the two disagree, hyper decides.

use crate::body::Body;
use crate::clock;
use crate::http1::answer::Answer;
use crate::http1::framing::Framing;
use crate::http1::scan::Head;
use crate::http1::service::{Answering, Judge};
use crate::http1::wire::{LARGE, Wire};
use crate::link::Link;
use crate::service::{BoxError, Service};
use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

/// How much is read at a time, in bytes: what hyper reads first, so that a request which it is given again is in one
/// piece there as well.
const READ: usize = 8 << 10;

/// Memory for reads, in bytes: a request that is kept for long keeps no more than that.
const INPUT: usize = 2 * READ;

/// How many fields a head has at most; heads with more are hyper's.
const FIELDS_MOST: usize = 64;

/// The largest answer, in bytes: what the socket does not take of it at once is copied.
const ANSWER_MOST: u64 = 64 << 10;

/// How many fields the memory that is kept for the next request's has room for, at most.
const FIELDS_KEPT: usize = 2 * FIELDS_MOST;

/// In how many pieces an answer is sent from where they are, at most; with its head.
const SLICES: usize = 8;

/// How much of answers is gathered before it is sent, in bytes.
const GATHERED_MOST: usize = 64 << 10;

/// How a turn ended.
pub(crate) enum Turn<S: Service> {
    /// All that has arrived is answered.
    Silent,
    /// The client is gone, or the connection broken.
    Ended,
    /// The last answer was the connection's last; some of it may be held.
    Closing,
    /// hyper goes on with what the wire holds, and with what is there of an answer to it.
    Left(Option<Box<Answering<S>>>),
}

/// Answers what has arrived and is whole.
#[inline]
pub(crate) fn turn<S: Service>(
    judge: &mut Judge<S>,
    wire: &mut Wire,
    cx: &mut Context<'_>,
) -> Turn<S> {
    let mut desk = Desk::take();
    let turn = desk.turn(judge, wire, cx);
    desk.put_back();
    turn
}

/// What a thread needs to answer, one connection after another: memory that is warm.
struct Desk {
    input: BytesMut,
    output: Vec<u8>,
    /// The last answer's, for the next request's.
    fields: HeaderMap,
    date: Date,
}

thread_local! {
    /// Taken while it is used: a handler may do whatever it likes on its thread.
    static DESK: Cell<Option<Box<Desk>>> = const { Cell::new(None) };
}

/// What became of one request.
enum Step<S: Service> {
    Answered,
    Closing,
    /// It is not whole, or not beyond doubt; it is as if nobody had looked.
    Doubtful,
    /// It was called, and its answer is not whole.
    Called(Box<Answering<S>>),
}

impl Desk {
    #[inline]
    fn take() -> Box<Self> {
        DESK.take().unwrap_or_else(|| Box::new(Self::new()))
    }

    #[cold]
    fn new() -> Self {
        Self {
            input: BytesMut::with_capacity(INPUT),
            output: Vec::new(),
            fields: HeaderMap::new(),
            date: Date::default(),
        }
    }

    #[inline]
    fn put_back(self: Box<Self>) {
        DESK.set(Some(self));
    }

    #[inline]
    fn turn<S: Service>(
        &mut self,
        judge: &mut Judge<S>,
        wire: &mut Wire,
        cx: &mut Context<'_>,
    ) -> Turn<S> {
        loop {
            let mut bytes = wire.take_first();
            if bytes.is_empty() {
                if !self.input.try_reclaim(READ) {
                    self.input = BytesMut::with_capacity(INPUT);
                }
                match wire.poll_receive(cx, &mut self.input) {
                    Poll::Pending => return Turn::Silent,
                    Poll::Ready(Ok(1..)) => bytes = self.input.split().freeze(),
                    Poll::Ready(Ok(0) | Err(_)) => return Turn::Ended,
                }
            }
            let link = wire.link();
            link.bytes_read(clock::now());
            link.head_arrives();
            let step = self.answer_all(judge, wire, &mut bytes, cx);
            // Nobody reads on behind an answer that was the last.
            if !matches!(step, Step::Closing) {
                wire.keep_first(bytes);
            }
            let is_sent = self.send(wire, cx);
            match step {
                Step::Called(answering) => return Turn::Left(Some(answering)),
                Step::Closing => return Turn::Closing,
                Step::Answered if is_sent => {}
                Step::Answered | Step::Doubtful => return Turn::Left(None),
            }
        }
    }

    /// Answers one request after another, up to the first that is not whole, and says what became of the last.
    #[inline]
    fn answer_all<S: Service>(
        &mut self,
        judge: &mut Judge<S>,
        wire: &mut Wire,
        bytes: &mut Bytes,
        cx: &mut Context<'_>,
    ) -> Step<S> {
        loop {
            let step = self.answer(judge, wire, bytes, cx);
            if !matches!(step, Step::Answered) || bytes.is_empty() {
                return step;
            }
            if self.output.len() > GATHERED_MOST {
                if !self.send(wire, cx) {
                    return Step::Doubtful;
                }
                // With all of it sent the connection was idle, and is not: the next one is here.
                wire.link().head_arrives();
            }
        }
    }

    /// Sends what was gathered; whether the socket took all of it.
    #[inline]
    fn send(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> bool {
        let is_sent = wire.send(cx, &mut [IoSlice::new(&self.output)]);
        self.output.clear();
        is_sent
    }

    /// Answers the request that the bytes begin with, and takes it from them.
    #[inline]
    fn answer<S: Service>(
        &mut self,
        judge: &mut Judge<S>,
        wire: &mut Wire,
        bytes: &mut Bytes,
        cx: &mut Context<'_>,
    ) -> Step<S> {
        let mut framing = Framing::default();
        let length = framing.take(bytes);
        if !framing.is_at_end() || length > READ {
            return Step::Doubtful;
        }
        let whole = bytes.slice(..length);
        let Some((request, closes)) = self.request(&whole, framing.head(), wire.link()) else {
            return Step::Doubtful;
        };
        let Some(service) = judge.ready() else {
            return Step::Doubtful;
        };
        wire.link().head_seen(framing.head());
        let mut answering = judge.judge_whole(service, request);
        let Poll::Ready(Ok(response)) = Pin::new(&mut answering).poll(cx) else {
            return Step::Called(Box::new(answering));
        };
        let before = self.output.len();
        let size = response.body().size_hint().exact();
        let Some(size) = size.filter(|size| self.write_head(&response, *size, closes)) else {
            self.output.truncate(before);
            return Step::Called(Box::new(Answering::made(response)));
        };
        let (parts, mut body) = response.into_parts();
        if size > 0 {
            body = body.settle();
            if !self.write_body(&mut body, size, wire, cx) {
                self.output.truncate(before);
                let response = Response::from_parts(parts, body);
                return Step::Called(Box::new(Answering::made(response)));
            }
        }
        // Told by that: the answer is complete.
        drop(body);
        self.keep_fields(parts.headers);
        bytes.advance(length);
        match closes {
            true => Step::Closing,
            // What follows comes after what is held.
            false if wire.is_holding() && !bytes.is_empty() => Step::Doubtful,
            false => Step::Answered,
        }
    }

    /// The request that these bytes are, and whether the client wants no other; `None` if hyper might see anything in
    /// it that is not seen here.
    #[inline]
    fn request(
        &mut self,
        bytes: &Bytes,
        head: Head,
        link: &Arc<Link>,
    ) -> Option<(Request<Body>, bool)> {
        let is_beyond_doubt = match head {
            Head::Plain => true,
            Head::Lines {
                transfer_encodings,
                content_lengths,
            } => transfer_encodings == 0 && content_lengths <= 1,
            Head::Unseen => false,
        };
        if !is_beyond_doubt {
            return None;
        }
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MOST];
        let mut parsed = httparse::Request::new(&mut []);
        let status = parsed.parse_with_uninit_headers(bytes, &mut fields);
        let Ok(httparse::Status::Complete(length)) = status else {
            return None;
        };
        if parsed.version != Some(1) || length > link.worker.shared.limits.header_bytes {
            return None;
        }
        let method = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
        if method == Method::HEAD || method == Method::CONNECT {
            return None;
        }
        let uri = Uri::from_maybe_shared(bytes.slice_ref(parsed.path?.as_bytes())).ok()?;
        let mut headers = std::mem::take(&mut self.fields);
        let (mut body_length, mut closes) = (0, false);
        for field in &*parsed.headers {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?;
            match name {
                TRANSFER_ENCODING | EXPECT | UPGRADE => return None,
                CONTENT_LENGTH => body_length = value.to_str().ok()?.parse().ok()?,
                CONNECTION => closes |= asks_to_close(&value),
                _ => {}
            }
            headers.try_append(name, value).ok()?;
        }
        let body = bytes.slice(length..);
        if body.len() != body_length {
            return None;
        }
        let mut request = Request::new(Body::whole(body, link.clone()));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        Some((request, closes))
    }

    /// Writes the head of an answer of that size; `false` if only hyper knows what it would write.
    #[inline]
    fn write_head<B: http_body::Body>(
        &mut self,
        response: &Response<B>,
        size: u64,
        closes: bool,
    ) -> bool {
        let status = response.status();
        let is_plain = size <= ANSWER_MOST
            && (size > 0 || response.body().is_end_stream())
            && !status.is_informational()
            && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            && matches!(response.version(), Version::HTTP_11 | Version::HTTP_2)
            && response.extensions().get::<ReasonPhrase>().is_none();
        if !is_plain {
            return false;
        }
        let out = &mut self.output;
        if status == StatusCode::OK {
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        } else {
            let reason = status.canonical_reason().unwrap_or("<none>");
            for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        let (mut is_sized, mut is_dated) = (false, false);
        for (name, value) in response.headers() {
            match *name {
                CONNECTION | TRANSFER_ENCODING | TRAILER => return false,
                CONTENT_LENGTH => {
                    let said = value.to_str().ok().and_then(|said| said.parse().ok());
                    if is_sized || size == 0 || said != Some(size) {
                        return false;
                    }
                    is_sized = true;
                }
                DATE => is_dated = true,
                _ => {}
            }
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if closes {
            out.extend_from_slice(b"connection: close\r\n");
        }
        if !is_sized {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(size).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if !is_dated {
            out.extend_from_slice(b"date: ");
            out.extend_from_slice(self.date.now());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        true
    }

    /// Writes the body of an answer if all of it is there; if not, it is as if nobody had looked.
    #[inline]
    fn write_body<B>(
        &mut self,
        body: &mut Answer<B>,
        size: u64,
        wire: &mut Wire,
        cx: &mut Context<'_>,
    ) -> bool
    where
        B: http_body::Body<Error: Into<BoxError>>,
    {
        let Some(mut data) = body.poll_whole(cx, size) else {
            return false;
        };
        if data.remaining() >= LARGE {
            // To copy it costs more than to write it from where it is.
            let mut slices = [IoSlice::new(&[]); SLICES];
            slices[0] = IoSlice::new(&self.output);
            let count = 1 + data.chunks_vectored(&mut slices[1..]);
            let total: usize = slices[1..count].iter().map(|slice| slice.len()).sum();
            if total == data.remaining() {
                wire.send(cx, &mut slices[..count]);
                self.output.clear();
                return true;
            }
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            self.output.extend_from_slice(chunk);
            let length = chunk.len();
            data.advance(length);
        }
        true
    }

    /// Keeps the memory of an answer's fields for those of the next request.
    #[inline]
    fn keep_fields(&mut self, mut fields: HeaderMap) {
        if (self.fields.capacity()..=FIELDS_KEPT).contains(&fields.capacity()) {
            fields.clear();
            self.fields = fields;
        }
    }
}

/// Whether a `Connection` field asks for this to be the last request (RFC 9112, section 9.6).
fn asks_to_close(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|options| {
        let mut options = options.split(',');
        options.any(|option| option.trim().eq_ignore_ascii_case("close"))
    })
}

/// The field `Date`, made anew once a second.
#[derive(Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    #[inline]
    fn now(&mut self) -> &[u8] {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        let second = u64::try_from(now.tv_sec).unwrap_or(0);
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        }
        self.text.as_bytes()
    }
}
