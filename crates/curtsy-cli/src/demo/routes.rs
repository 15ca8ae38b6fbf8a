//! The demo's routes.
//!
//! The quick ones answer without a task, a box or a lock, so that benchmarks measure the server.

use crate::demo::websocket;
use bytes::Bytes;
use curtsy::{Body, BoxError, Draining};
use futures_util::stream;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::sleep;

const HELLO: &str = "Hello, World!";
/// The pause between two server-sent events.
const EVENT_PAUSE: Duration = Duration::from_millis(100);
/// The longest `/slow` and the largest `/big`: a demo must not be turned against its host.
const SLOW_MOST_MS: u64 = 600_000;
const BIG_MOST_BYTES: u64 = 1 << 30;
/// What `/big` sends at a time, at most.
const BIG_PIECE_BYTES: usize = 64 << 10;
/// `/big` repeats itself after so many bytes: a prime, so that no piece, page or packet that is lost, doubled or moved
/// leaves the rest looking right.
const BIG_PERIOD_BYTES: usize = 8191;
/// Letters in no order, long enough for a piece from any place of the period, where the kernel can send them from.
static BIG: LazyLock<Bytes> = LazyLock::new(|| {
    // Without a descriptor for them, they are copied.
    curtsy::resident(&LETTERS).unwrap_or_else(|_| Bytes::from_static(&LETTERS))
});
static LETTERS: [u8; BIG_PERIOD_BYTES + BIG_PIECE_BYTES] = big_letters();

const fn big_letters() -> [u8; BIG_PERIOD_BYTES + BIG_PIECE_BYTES] {
    let mut letters = [0; BIG_PERIOD_BYTES + BIG_PIECE_BYTES];
    let mut index = 0;
    let mut state: u32 = 1;
    while index < letters.len() {
        if index < BIG_PERIOD_BYTES {
            // The generator of the C standard's example; its upper half is random enough.
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            letters[index] = b"abcdefghijklmnopqrstuvwxyz012345"[(state >> 16 & 31) as usize];
        } else {
            letters[index] = letters[index - BIG_PERIOD_BYTES];
        }
        index += 1;
    }
    letters
}

/// The demo, as a service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demo {
    identity: &'static str,
}

impl Demo {
    pub(crate) fn new(generation: u64) -> Self {
        let pid = std::process::id();
        Self {
            // One for the life of the process: what is copied for each request costs nothing.
            identity: format!("pid={pid} generation={generation}").leak(),
        }
    }
}

type Answer = Response<DemoBody>;

/// An answer, or one in the making.
pub(crate) enum Answering {
    There(Option<Answer>),
    Making(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

impl Future for Answering {
    type Output = Result<Answer, Infallible>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            // Nobody polls again.
            Self::There(answer) => answer
                .take()
                .map_or(Poll::Pending, |it| Poll::Ready(Ok(it))),
            Self::Making(answer) => answer.as_mut().poll(cx).map(Ok),
        }
    }
}

impl tower_service::Service<Request<Body>> for Demo {
    type Response = Answer;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Answering {
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        let post = request.method() == Method::POST;
        match request.uri().path() {
            "/" if get => brief(&mut request, StatusCode::OK, HELLO),
            "/pid" if get => brief(&mut request, StatusCode::OK, self.identity),
            "/slow" if get => match number(&request, "ms", 1000, SLOW_MOST_MS) {
                Ok(ms) => making(async move {
                    sleep(Duration::from_millis(ms)).await;
                    text(StatusCode::OK, format!("slept {ms} ms\n"))
                }),
                Err(why) => brief(&mut request, StatusCode::BAD_REQUEST, why),
            },
            "/big" if get => match number(&request, "bytes", 1 << 20, BIG_MOST_BYTES) {
                Ok(bytes) => there(big(bytes)),
                Err(why) => brief(&mut request, StatusCode::BAD_REQUEST, why),
            },
            "/echo" if post => there(echo(request)),
            "/upload" if post => making(upload(request.into_body())),
            "/events" if get => {
                let draining = request.body().connection().map(|c| c.draining());
                there(events(draining.unwrap_or_else(Draining::never)))
            }
            "/ws" if get => making(async { websocket::accept(request) }),
            "/panic" => making(async { panic!("asked for by /panic") }),
            "/" | "/pid" | "/slow" | "/big" | "/events" | "/ws" => not_allowed("GET, HEAD"),
            "/echo" | "/upload" => not_allowed("POST"),
            _ => brief(&mut request, StatusCode::NOT_FOUND, "no such page\n"),
        }
    }
}

/// A short text, in the memory of the request's fields.
#[inline]
fn brief(request: &mut Request<Body>, status: StatusCode, text: impl Into<Bytes>) -> Answering {
    let mut fields = std::mem::take(request.headers_mut());
    fields.clear();
    Answering::There(Some(text_in(fields, status, text)))
}

#[inline]
fn there(answer: Answer) -> Answering {
    Answering::There(Some(answer))
}

fn making(answer: impl Future<Output = Answer> + Send + 'static) -> Answering {
    Answering::Making(Box::pin(answer))
}

/// A short text.
#[inline]
pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    text_in(HeaderMap::new(), status, text)
}

/// The same in memory that is there.
#[inline]
fn text_in(mut fields: HeaderMap, status: StatusCode, text: impl Into<Bytes>) -> Answer {
    fields.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    let mut answer = Response::new(DemoBody::Text(Some(text.into())));
    *answer.status_mut() = status;
    // What was there is empty, and not worth a look.
    std::mem::forget(std::mem::replace(answer.headers_mut(), fields));
    answer
}

fn not_allowed(allowed: &'static str) -> Answering {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    there(answer)
}

/// A number from the query, at most `most`.
fn number(request: &Request<Body>, name: &str, default: u64, most: u64) -> Result<u64, String> {
    let given = request.uri().query().unwrap_or_default();
    let value = given
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    match value.map(str::parse) {
        None => Ok(default),
        Some(Ok(number)) if number <= most => Ok(number),
        Some(_) => Err(format!("{name} must be a number from 0 to {most}\n")),
    }
}

fn echo(request: Request<Body>) -> Answer {
    let (mut parts, body) = request.into_parts();
    let kind = parts.headers.remove(CONTENT_TYPE);
    let mut answer = Response::new(DemoBody::Echo(body));
    if let Some(kind) = kind {
        answer.headers_mut().insert(CONTENT_TYPE, kind);
    }
    answer
}

fn big(bytes: u64) -> Answer {
    let mut answer = Response::new(DemoBody::Big {
        left: bytes,
        sent: 0,
    });
    answer.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    answer
}

async fn upload(mut body: Body) -> Answer {
    let mut received = 0;
    loop {
        match body.frame().await {
            None => return text(StatusCode::OK, format!("received={received}")),
            Some(Ok(frame)) => received += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(error)) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
}

/// A tick each pause until the server drains; then a last event and the end.
fn events(draining: Draining) -> Answer {
    let ticks = stream::unfold(Some(0u64), move |tick| {
        let draining = draining.clone();
        async move {
            let tick = tick?;
            if tick > 0 {
                tokio::select! {
                    () = draining.wait() => {
                        let last = Bytes::from_static(b"event: draining\ndata: bye\n\n");
                        return Some((Ok(Frame::data(last)), None));
                    }
                    () = sleep(EVENT_PAUSE) => {}
                }
            }
            let event = Bytes::from(format!("data: tick {tick}\n\n"));
            Some((Ok::<_, BoxError>(Frame::data(event)), Some(tick + 1)))
        }
    });
    let mut answer = Response::new(DemoBody::Stream(StreamBody::new(ticks).boxed_unsync()));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// The bodies of the demo's answers.
pub(crate) enum DemoBody {
    Text(Option<Bytes>),
    Big { left: u64, sent: usize },
    Echo(Body),
    Stream(http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>),
}

impl http_body::Body for DemoBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Big { left: 0, .. } => Poll::Ready(None),
            Self::Big { left, sent } => {
                let most = BIG_PIECE_BYTES;
                let size = usize::try_from(*left).map_or(most, |left| left.min(most));
                let from = *sent % BIG_PERIOD_BYTES;
                *left -= size as u64;
                *sent += size;
                let piece = BIG.slice(from..from + size);
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Self::Echo(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Stream(stream) => Pin::new(stream).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Big { left, .. } => *left == 0,
            Self::Echo(body) => body.is_end_stream(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Big { left, .. } => SizeHint::with_exact(*left),
            Self::Echo(body) => body.size_hint(),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}
