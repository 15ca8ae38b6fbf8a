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
//! Deliberately absent: an HTTP parser. httparse is the one, as it is hyper's.

use crate::body::Body;
use crate::clock;
use crate::http1::answer::{Answer, Asked};
use crate::http1::scan::Head;
use crate::http1::service::{Answering, Judge};
use crate::http1::wire::{LARGE, Wire};
use crate::link::Link;
use crate::resident;
use crate::service::Service;
use bytes::{Buf, Bytes, BytesMut};
use curtsy_lifecycle::Moment;
use curtsy_sys::clock::Clock;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;
use std::cell::Cell;
use std::io::IoSlice;
use std::mem::MaybeUninit;
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
    /// When the last answer was made.
    now: Moment,
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
            now: clock::now(),
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
            let mut bytes = match wire.take_first() {
                Some(bytes) => bytes,
                None => {
                    // If nobody has any of it, from its beginning: that the processor has at hand.
                    if !self.input.try_reclaim(INPUT) && !self.input.try_reclaim(READ) {
                        self.input = BytesMut::with_capacity(INPUT);
                    }
                    match wire.poll_receive(cx, &mut self.input) {
                        Poll::Pending => return Turn::Silent,
                        Poll::Ready(Ok(1..)) => self.input.split().freeze(),
                        Poll::Ready(Ok(0) | Err(_)) => return Turn::Ended,
                    }
                }
            };
            let link = wire.link();
            link.bytes_read(clock::now());
            link.head_arrives();
            let step = self.answer_all(judge, wire, &mut bytes, cx);
            // Nobody reads on behind an answer that was the last.
            if bytes.is_empty() || matches!(step, Step::Closing) {
                drop(bytes);
            } else {
                wire.keep_first(bytes);
            }
            let is_sent = self.send(wire, cx, matches!(step, Step::Closing));
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
            wire.link().sends_ahead();
            if self.output.len() > GATHERED_MOST {
                if !self.send(wire, cx, false) {
                    return Step::Doubtful;
                }
                // With all of it sent the connection was idle, and is not: the next one is here.
                wire.link().head_arrives();
            }
        }
    }

    /// Sends what was gathered; whether the socket took all of it.
    #[inline(always)]
    fn send(&mut self, wire: &mut Wire, cx: &mut Context<'_>, is_last: bool) -> bool {
        let is_sent = match is_last {
            false => wire.send_all(cx, &self.output, self.now),
            true => wire.send(cx, &mut [IoSlice::new(&self.output)], true),
        };
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
        // In places of their own: they are large, and to move them costs.
        let (mut request, mut response) = (None, None);
        let Some(outline) = self.request(bytes, wire.link(), &mut request) else {
            return Step::Doubtful;
        };
        let Outline {
            head,
            length,
            closes,
        } = outline;
        let Some(service) = judge.ready() else {
            return Step::Doubtful;
        };
        let complete = match judge.judge_whole(service, &mut request, head, cx, &mut response) {
            Ok(complete) => complete,
            Err(begun) => return Step::Called(begun),
        };
        let before = self.output.len();
        let size = response.as_ref().and_then(|response| {
            let size = response.body().size_hint().exact();
            size.filter(|size| self.write_head(response, *size, closes))
        });
        let Some(response) = response else {
            return Step::Doubtful;
        };
        let Some(size) = size else {
            self.output.truncate(before);
            let response = response.map(|body| Answer::new(body, complete.keep()));
            return Step::Called(Box::new(Answering::made(response)));
        };
        let (mut parts, body) = response.into_parts();
        if size > 0 {
            match complete.ask(body, size, cx) {
                Asked::Whole(data, body, complete) => {
                    self.write_body(data, wire, cx);
                    // Told by that: the answer is complete.
                    drop((body, complete));
                }
                Asked::Other(body) => {
                    self.output.truncate(before);
                    let response = Response::from_parts(parts, body);
                    return Step::Called(Box::new(Answering::made(response)));
                }
            }
        } else {
            drop((body, complete));
        }
        self.keep_fields(&mut parts.headers);
        bytes.advance(length);
        match closes {
            true => Step::Closing,
            // What follows comes after what is held.
            false if wire.is_holding() && !bytes.is_empty() => Step::Doubtful,
            false => Step::Answered,
        }
    }

    /// Puts the request that the bytes begin with into `request`; `None` if it is not whole, or if hyper might see
    /// anything in it that is not seen here.
    #[inline]
    fn request(
        &mut self,
        bytes: &Bytes,
        link: &Arc<Link>,
        request: &mut Option<Request<Body>>,
    ) -> Option<Outline> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MOST];
        let mut parsed = httparse::Request::new(&mut []);
        let status = parsed.parse_with_uninit_headers(bytes, &mut fields);
        let Ok(httparse::Status::Complete(head_length)) = status else {
            return None;
        };
        if parsed.version != Some(1) || head_length > link.worker.shared.limits.header_bytes {
            return None;
        }
        let method = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
        if method == Method::HEAD || method == Method::CONNECT {
            return None;
        }
        let uri = match parsed.path? {
            // The one that is asked for most, and its own default.
            "/" => Uri::default(),
            path => Uri::from_maybe_shared(bytes.slice_ref(path.as_bytes())).ok()?,
        };
        let mut headers = std::mem::take(&mut self.fields);
        let (mut body_length, mut head, mut closes) = (0, Head::Plain, false);
        for field in &*parsed.headers {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?;
            match name {
                TRANSFER_ENCODING | EXPECT | UPGRADE => return None,
                CONTENT_LENGTH if head == Head::Plain => {
                    body_length = plain_number(value.as_bytes())?;
                    head = Head::Lines {
                        transfer_encodings: 0,
                        content_lengths: 1,
                    };
                }
                CONTENT_LENGTH => return None,
                CONNECTION => closes |= asks_to_close(&value),
                _ => {}
            }
            headers.try_append(name, value).ok()?;
        }
        let length = head_length.checked_add(body_length)?;
        if length > bytes.len().min(READ) {
            return None;
        }
        let body = bytes.slice(head_length..length);
        let request = request.insert(Request::new(Body::whole(body, link.clone())));
        *request.method_mut() = method;
        *request.version_mut() = Version::HTTP_11;
        // What was there is empty, and not worth a look.
        std::mem::forget(std::mem::replace(request.uri_mut(), uri));
        std::mem::forget(std::mem::replace(request.headers_mut(), headers));
        Some(Outline {
            head,
            length,
            closes,
        })
    }

    /// Writes the head of an answer of that size; `false` if only hyper knows what it would write.
    #[inline]
    fn write_head<B: http_body::Body>(
        &mut self,
        response: &Response<B>,
        size: u64,
        closes: bool,
    ) -> bool {
        self.now = clock::now();
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
                    let said = plain_number(value.as_bytes()).map(|said| said as u64);
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
        out.extend_from_slice(match is_dated {
            false => self.date.last_line(self.now),
            true => b"\r\n",
        });
        true
    }

    /// Writes the body of an answer.
    #[inline]
    fn write_body(&mut self, mut data: impl Buf, wire: &mut Wire, cx: &mut Context<'_>) {
        if data.remaining() >= LARGE {
            let chunk = data.chunk();
            if chunk.len() == data.remaining()
                && wire.stream().takes_resident()
                && let Some(place) = resident::find(chunk)
            {
                wire.send_resident(cx, &self.output, chunk, place);
                self.output.clear();
                return;
            }
            // To copy it costs more than to write it from where it is.
            let mut slices = [IoSlice::new(&[]); SLICES];
            slices[0] = IoSlice::new(&self.output);
            let count = 1 + data.chunks_vectored(&mut slices[1..]);
            let total: usize = slices[1..count].iter().map(|slice| slice.len()).sum();
            if total == data.remaining() {
                wire.send(cx, &mut slices[..count], false);
                self.output.clear();
                return;
            }
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            self.output.extend_from_slice(chunk);
            let length = chunk.len();
            data.advance(length);
        }
    }

    /// Keeps the memory of an answer's fields for those of the next request.
    #[inline]
    fn keep_fields(&mut self, fields: &mut HeaderMap) {
        if self.fields.capacity() == 0 && fields.capacity() <= FIELDS_KEPT {
            fields.clear();
            // What was there is empty, and not worth a look.
            std::mem::forget(std::mem::replace(&mut self.fields, std::mem::take(fields)));
        }
    }
}

/// What is to be known of a request that has arrived to its end.
struct Outline {
    head: Head,
    /// How many bytes it is.
    length: usize,
    /// The client wants no other.
    closes: bool,
}

/// A number that is nothing but digits, as a length is (RFC 9110, section 8.6).
fn plain_number(digits: &[u8]) -> Option<usize> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Whether a `Connection` field asks for this to be the last request (RFC 9112, section 9.6).
fn asks_to_close(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|options| {
        let mut options = options.split(',');
        options.any(|option| option.trim().eq_ignore_ascii_case("close"))
    })
}

/// The field `Date` at the end of a head, made anew once a second.
#[derive(Default)]
struct Date {
    /// When it was looked at the clock.
    looked: Option<Moment>,
    second: u64,
    line: String,
}

impl Date {
    #[inline]
    fn last_line(&mut self, now: Moment) -> &[u8] {
        // Both clocks move on at the same ticks.
        if self.looked != Some(now) {
            self.looked = Some(now);
            self.look();
        }
        self.line.as_bytes()
    }

    #[cold]
    fn look(&mut self) {
        let second = curtsy_sys::clock::now(Clock::RealtimeCoarse).as_secs();
        if second != self.second || self.line.is_empty() {
            self.second = second;
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            self.line = format!("date: {date}\r\n\r\n");
        }
    }
}
