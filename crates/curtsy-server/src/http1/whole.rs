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
use crate::hint::{expected, unlikely};
use crate::http1::answer::Answer;
use crate::http1::scan::Head;
use crate::http1::service::{Answering, Judge};
use crate::http1::wire::{LARGE, Wire};
use crate::link::Link;
use crate::resident;
use crate::service::Service;
use bytes::{Buf, Bytes, BytesMut};
use curtsy_lifecycle::Moment;
use curtsy_sys::clock::Clock;
use curtsy_sys::pooled::Pooled;
use http::header::{
    CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HOST, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    response,
};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;
use std::cell::Cell;
use std::hint::cold_path;
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
#[inline(always)]
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
    #[inline(always)]
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

    #[inline(always)]
    fn put_back(self: Box<Self>) {
        DESK.set(Some(self));
    }

    #[inline(always)]
    fn turn<S: Service>(
        &mut self,
        judge: &mut Judge<S>,
        wire: &mut Wire,
        cx: &mut Context<'_>,
    ) -> Turn<S> {
        let mut woken = true;
        loop {
            let mut bytes = match wire.take_first() {
                Some(bytes) => bytes,
                None => {
                    // If nobody has any of it, from its beginning: that the processor has at hand.
                    if unlikely(!self.input.try_reclaim(INPUT)) {
                        self.make_room();
                    }
                    match wire.poll_receive(cx, &mut self.input, std::mem::take(&mut woken)) {
                        Poll::Pending => return Turn::Silent,
                        Poll::Ready(Ok(1..)) => self.input.split().freeze(),
                        Poll::Ready(Ok(0) | Err(_)) => {
                            cold_path();
                            return Turn::Ended;
                        }
                    }
                }
            };
            let link = wire.link();
            link.bytes_read(clock::now());
            link.head_arrives();
            let step = self.answer_all(judge, wire, &mut bytes, cx);
            // Nobody reads on behind an answer that was the last.
            if unlikely(!bytes.is_empty() && !matches!(step, Step::Closing)) {
                wire.keep_first(bytes);
            } else {
                drop(bytes);
            }
            let is_sent = self.send(wire, cx, matches!(step, Step::Closing));
            if let Step::Answered = step
                && is_sent
            {
                continue;
            }
            cold_path();
            return match step {
                Step::Called(answering) => Turn::Left(Some(answering)),
                Step::Closing => Turn::Closing,
                Step::Answered | Step::Doubtful => Turn::Left(None),
            };
        }
    }

    /// Somebody has some of what was read last.
    #[cold]
    fn make_room(&mut self) {
        if !self.input.try_reclaim(READ) {
            self.input = BytesMut::with_capacity(INPUT);
        }
    }

    /// Answers one request after another, up to the first that is not whole, and says what became of the last.
    #[inline(always)]
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
            if unlikely(self.output.len() > GATHERED_MOST) && !self.send_gathered(wire, cx) {
                return Step::Doubtful;
            }
        }
    }

    /// Sends what was gathered of many answers before more are made; whether the socket took all of it.
    #[cold]
    fn send_gathered(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> bool {
        let is_sent = self.send(wire, cx, false);
        if is_sent {
            // With all of it sent the connection was idle, and is not: the next one is here.
            wire.link().head_arrives();
        }
        is_sent
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
    #[inline(always)]
    fn answer<S: Service>(
        &mut self,
        judge: &mut Judge<S>,
        wire: &mut Wire,
        bytes: &mut Bytes,
        cx: &mut Context<'_>,
    ) -> Step<S> {
        // In places of their own: they are large, and to move them costs.
        let (mut request, mut answer) = (None, None);
        let Some(Outline {
            head,
            length,
            closes,
        }) = self.request(bytes, wire.link(), &mut request)
        else {
            cold_path();
            return Step::Doubtful;
        };
        let Some(service) = expected(judge.ready()) else {
            return Step::Doubtful;
        };
        let mut complete = match judge.judge_whole(service, &mut request, head, cx, &mut answer) {
            Ok(complete) => complete,
            Err(begun) => {
                cold_path();
                return Step::Called(begun);
            }
        };
        let before = self.output.len();
        let Some((parts, body)) = &mut answer else {
            cold_path();
            return Step::Doubtful;
        };
        let size = body.size_hint().exact();
        let size = size.filter(|size| self.write_head(parts, &**body, *size, closes));
        let Some(size) = expected(size) else {
            self.output.truncate(before);
            return go_on_with(answer, |body| Answer::settled(body, None, complete.keep()));
        };
        if !unlikely(size == 0) {
            match complete.ask(body, size, cx) {
                Ok(data) => self.write_body(data, wire, cx),
                Err(seen) => {
                    cold_path();
                    self.output.truncate(before);
                    return go_on_with(answer, |body| Answer::settled(body, seen, complete.keep()));
                }
            }
        }
        self.keep_fields(&mut parts.headers);
        drop(answer);
        // Told by that: the answer is complete.
        drop(complete);
        bytes.advance(length);
        if unlikely(closes) {
            return Step::Closing;
        }
        // What follows comes after what is held.
        match unlikely(wire.is_holding()) && !bytes.is_empty() {
            true => Step::Doubtful,
            false => Step::Answered,
        }
    }

    /// Puts the request that the bytes begin with into `request`; `None` if it is not whole, or if hyper might see
    /// anything in it that is not seen here.
    #[inline(always)]
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
            cold_path();
            return None;
        };
        let most = link.worker.shared.limits.header_bytes;
        if unlikely(parsed.version != Some(1) || head_length > most) {
            return None;
        }
        let method = match expected(parsed.method)? {
            "GET" => Method::GET,
            other => expected(Method::from_bytes(other.as_bytes()).ok())?,
        };
        if unlikely(method == Method::HEAD || method == Method::CONNECT) {
            return None;
        }
        let request = request.insert(Request::new(Body::none(link.clone())));
        // What was there is empty, and not worth a look.
        std::mem::forget(std::mem::replace(request.method_mut(), method));
        std::mem::swap(request.headers_mut(), &mut self.fields);
        let path = expected(parsed.path)?;
        // The one that is asked for most is what is there.
        if path != "/" {
            let uri = Uri::from_maybe_shared(bytes.slice_ref(path.as_bytes()));
            std::mem::forget(std::mem::replace(request.uri_mut(), expected(uri.ok())?));
        }
        let (mut body_length, mut head, mut closes) = (0, Head::Plain, false);
        for field in &*parsed.headers {
            // Each request has it (RFC 9112, section 3.2), so that it pays to know it without a look into a table.
            let name = match field.name.eq_ignore_ascii_case("host") {
                true => HOST,
                false => expected(HeaderName::from_bytes(field.name.as_bytes()).ok())?,
            };
            let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
            let value = expected(value.ok())?;
            match name {
                TRANSFER_ENCODING | EXPECT | UPGRADE => {
                    cold_path();
                    return None;
                }
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
            expected(request.headers_mut().try_append(name, value).ok())?;
        }
        let length = expected(head_length.checked_add(body_length))?;
        if unlikely(length > bytes.len().min(READ)) {
            return None;
        }
        if unlikely(body_length > 0) {
            let body = bytes.slice(head_length..length);
            *request.body_mut() = Body::whole(body, link.clone());
        }
        Some(Outline {
            head,
            length,
            closes,
        })
    }

    /// Writes the head of an answer of that size; `false` if only hyper knows what it would write.
    #[inline(always)]
    fn write_head<B: http_body::Body>(
        &mut self,
        parts: &response::Parts,
        body: &B,
        size: u64,
        closes: bool,
    ) -> bool {
        self.now = clock::now();
        let status = parts.status;
        let is_plain = size <= ANSWER_MOST
            && (!unlikely(size == 0) || body.is_end_stream())
            && !status.is_informational()
            && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            && matches!(parts.version, Version::HTTP_11 | Version::HTTP_2)
            && parts.extensions.get::<ReasonPhrase>().is_none();
        if unlikely(!is_plain) {
            return false;
        }
        let out = &mut self.output;
        if status == StatusCode::OK {
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        } else {
            write_status(out, status);
        }
        let (mut is_sized, mut is_dated) = (false, false);
        for (name, value) in &parts.headers {
            match *name {
                CONNECTION | TRANSFER_ENCODING | TRAILER => {
                    cold_path();
                    return false;
                }
                CONTENT_LENGTH => {
                    cold_path();
                    let said = plain_number(value.as_bytes()).map(|said| said as u64);
                    if is_sized || size == 0 || said != Some(size) {
                        return false;
                    }
                    is_sized = true;
                }
                DATE => {
                    cold_path();
                    is_dated = true;
                }
                _ => {}
            }
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if unlikely(closes) {
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
    #[inline(always)]
    fn write_body(&mut self, mut data: impl Buf, wire: &mut Wire, cx: &mut Context<'_>) {
        if unlikely(data.remaining() >= LARGE) && self.write_large(&data, wire, cx) {
            return;
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            self.output.extend_from_slice(chunk);
            let length = chunk.len();
            data.advance(length);
        }
    }

    /// Sends a large one from where it is, and what was gathered before it; whether it could.
    #[inline(never)]
    fn write_large(&mut self, data: &impl Buf, wire: &mut Wire, cx: &mut Context<'_>) -> bool {
        let chunk = data.chunk();
        if chunk.len() == data.remaining()
            && wire.stream().takes_resident()
            && let Some(place) = resident::find(chunk)
        {
            wire.send_resident(cx, &self.output, chunk, place);
            self.output.clear();
            return true;
        }
        // To copy it costs more than to write it from where it is.
        let mut slices = [IoSlice::new(&[]); SLICES];
        slices[0] = IoSlice::new(&self.output);
        let count = 1 + data.chunks_vectored(&mut slices[1..]);
        let total: usize = slices[1..count].iter().map(|slice| slice.len()).sum();
        if total == data.remaining() {
            wire.send(cx, &mut slices[..count], false);
            self.output.clear();
            return true;
        }
        false
    }

    /// Keeps the memory of an answer's fields for those of the next request.
    #[inline(always)]
    fn keep_fields(&mut self, fields: &mut HeaderMap) {
        if self.fields.capacity() == 0 && fields.capacity() <= FIELDS_KEPT {
            fields.clear();
            std::mem::swap(&mut self.fields, fields);
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

/// Goes on elsewhere with an answer of which nothing is sent.
#[cold]
fn go_on_with<S: Service>(
    answer: Option<(response::Parts, Pooled<S::Body>)>,
    body: impl FnOnce(Pooled<S::Body>) -> Answer<S::Body>,
) -> Step<S> {
    let Some((parts, there)) = answer else {
        return Step::Doubtful;
    };
    let response = Response::from_parts(parts, body(there));
    Step::Called(Box::new(Answering::made(response)))
}

/// Writes the line of a status that is none of the usual.
#[cold]
fn write_status(out: &mut Vec<u8>, status: StatusCode) {
    let reason = status.canonical_reason().unwrap_or("<none>");
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// A number that is nothing but digits, as a length is (RFC 9110, section 8.6).
fn plain_number(digits: &[u8]) -> Option<usize> {
    if unlikely(!digits.iter().all(u8::is_ascii_digit)) {
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
    #[inline(always)]
    fn last_line(&mut self, now: Moment) -> &[u8] {
        // Both clocks move on at the same ticks.
        if unlikely(self.looked != Some(now)) {
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
