//! The service that both servers have: a request's `Script` field says what its answer is like. Without one, it is
//! what the service saw of the request.
//!
//! A script is words with a blank between: `status=201`, `frames=13,p,5`, `size=unknown`, `with=cookies,close`.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::{Sleep, sleep};

use crate::support::ms;

/// A date that no clock has.
pub(crate) const OWN_DATE: &str = "Thu, 01 Jan 1970 00:00:00 GMT";

/// Answers as the script says.
pub(crate) async fn answer<B>(request: Request<B>) -> Result<Response<Steps>, Infallible>
where
    B: Body<Data = Bytes>,
{
    let script = request.headers().get("script");
    let script = Script(script.map_or(String::new(), |script| script.to_str().unwrap().to_owned()));
    let handler = script.value("handler").unwrap_or_default();
    if handler == "late" {
        tokio::task::yield_now().await;
    }
    let (head, body) = request.into_parts();
    let shape = (body.is_end_stream(), body.size_hint().exact());
    let mut seen = BytesMut::new();
    seen.put(format!("{} {} {:?}\n", head.method, head.uri, head.version).as_bytes());
    put_fields(&mut seen, &head.headers);
    seen.put(format!("{shape:?}\n").as_bytes());
    if script.has("leave") {
        drop(body);
    } else {
        let Ok(body) = body.collect().await else {
            // Its client is gone.
            return Ok(Script("status=400 empty".to_owned()).response(Bytes::new()));
        };
        let trailers = body.trailers().cloned().unwrap_or_default();
        seen.put(body.to_bytes());
        seen.put_u8(b'\n');
        put_fields(&mut seen, &trailers);
    }
    match handler {
        "yield" => tokio::task::yield_now().await,
        "sleep" => sleep(ms(5)).await,
        _ => {}
    }
    Ok(script.response(seen.freeze()))
}

fn put_fields(seen: &mut BytesMut, fields: &HeaderMap) {
    for (name, value) in fields {
        seen.put(name.as_str().as_bytes());
        seen.put(&b": "[..]);
        seen.put(value.as_bytes());
        seen.put_u8(b'\n');
    }
}

struct Script(String);

impl Script {
    fn has(&self, word: &str) -> bool {
        self.0.split(' ').any(|found| found == word)
    }

    fn value(&self, name: &str) -> Option<&str> {
        let mut words = self.0.split(' ');
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn response(&self, seen: Bytes) -> Response<Steps> {
        let mut steps: VecDeque<Step> = match self.value("frames") {
            Some(frames) => frames.split(',').enumerate().map(step).collect(),
            None if self.has("empty") => VecDeque::new(),
            None => [Step::Data(seen)].into(),
        };
        if self.has("trailers") {
            let trailers = [("x-sum", "1"), ("x-unannounced", "2")];
            let trailers = trailers.map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            });
            steps.push_back(Step::Trailers(trailers.into_iter().collect()));
        }
        let body = Steps {
            steps,
            is_exact: self.value("size") != Some("unknown"),
            ends_late: self.has("ends-late"),
            nap: None,
        };
        let length = body.left();
        let mut response = Response::new(body);
        if let Some(status) = self.value("status") {
            *response.status_mut() = StatusCode::from_bytes(status.as_bytes()).unwrap();
        }
        if self.value("version") == Some("1.0") {
            *response.version_mut() = Version::HTTP_10;
        }
        for with in self.value("with").unwrap_or_default().split(',') {
            furnish(&mut response, with, length);
        }
        response
    }
}

/// A number is a frame of so many bytes; `p` is a body that is not ready, `l` one that is not for a while.
fn step((n, step): (usize, &str)) -> Step {
    match step {
        "p" => Step::Pending,
        "l" => Step::Later,
        length => {
            let length: usize = length.parse().unwrap();
            // Whatever is lost, doubled or moved is seen.
            let byte = |at: usize| b"abcdefghijklmnopqrstuvw"[(at + 5 * n) % 23];
            Step::Data((0..length).map(byte).collect())
        }
    }
}

fn furnish(response: &mut Response<Steps>, with: &str, length: u64) {
    let fields: &[(HeaderName, &[u8])] = match with {
        "type" => &[(header::CONTENT_TYPE, b"text/plain; charset=utf-8")],
        "location" => &[(header::LOCATION, b"/there")],
        "cookies" => &[
            (header::SET_COOKIE, b"a=1; Path=/"),
            (header::VARY, b"accept"),
            (header::SET_COOKIE, b"b=2"),
        ],
        "nothing" => &[(HeaderName::from_static("x-empty"), b"")],
        "obs-text" => &[(HeaderName::from_static("x-obs"), b"caf\xe9 \x80\xff\tend")],
        "case" => &[(HeaderName::from_bytes(b"X-MiXeD-CaSe").unwrap(), b"As Is")],
        "date" => &[(header::DATE, OWN_DATE.as_bytes())],
        "close" => &[(header::CONNECTION, b"close")],
        "Close" => &[(header::CONNECTION, b"Close")],
        "keep-alive" => &[(header::CONNECTION, b"keep-alive")],
        "hops" => &[
            (header::CONNECTION, b"keep-alive"),
            (header::CONNECTION, b"x-hop"),
        ],
        "close-hops" => &[
            (header::CONNECTION, b"x-hop"),
            (header::CONNECTION, b"close"),
        ],
        "chunked" => &[(header::TRANSFER_ENCODING, b"chunked")],
        "gzip" => &[(header::TRANSFER_ENCODING, b"gzip")],
        "length-13" => &[(header::CONTENT_LENGTH, b"13")],
        "trailer" => &[(header::TRAILER, b"x-sum")],
        "upgrade" => &[(header::UPGRADE, b"h2c")],
        "long" => &[(HeaderName::from_static("x-long"), &[b'v'; 9_000])],
        "many" => {
            for n in 0..30 {
                let name = HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap();
                response.headers_mut().append(name, HeaderValue::from(n));
            }
            &[]
        }
        "length" => {
            let headers = response.headers_mut();
            headers.append(header::CONTENT_LENGTH, HeaderValue::from(length));
            &[]
        }
        "reason" => {
            let reason = hyper::ext::ReasonPhrase::from_static(b"Quite So");
            response.extensions_mut().insert(reason);
            &[]
        }
        "no-reason" => {
            let reason = hyper::ext::ReasonPhrase::from_static(b"");
            response.extensions_mut().insert(reason);
            &[]
        }
        "extension" => {
            response.extensions_mut().insert("of somebody's");
            &[]
        }
        "" => &[],
        other => panic!("no such thing to answer with: {other}"),
    };
    for (name, value) in fields {
        let value = HeaderValue::from_bytes(value).unwrap();
        response.headers_mut().append(name, value);
    }
}

enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Not ready, and ready when asked again.
    Pending,
    /// Not ready for a while.
    Later,
}

/// A body that takes the steps of a script.
pub(crate) struct Steps {
    steps: VecDeque<Step>,
    /// It says how long it is.
    is_exact: bool,
    /// It does not know its end before it is asked for more.
    ends_late: bool,
    nap: Option<Pin<Box<Sleep>>>,
}

impl Steps {
    fn left(&self) -> u64 {
        let lengths = self.steps.iter().map(|step| match step {
            Step::Data(data) => data.len() as u64,
            Step::Trailers(_) | Step::Pending | Step::Later => 0,
        });
        lengths.sum()
    }
}

impl Body for Steps {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if let Some(nap) = &mut this.nap {
            ready!(nap.as_mut().poll(cx));
            this.nap = None;
        }
        match this.steps.pop_front() {
            None => Poll::Ready(None),
            Some(Step::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Step::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Some(Step::Pending) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::Later) => {
                let nap = this.nap.insert(Box::pin(sleep(ms(2))));
                ready!(nap.as_mut().poll(cx));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.nap.is_none() && !self.ends_late
    }

    fn size_hint(&self) -> SizeHint {
        match self.is_exact {
            true => SizeHint::with_exact(self.left()),
            false => SizeHint::default(),
        }
    }
}
