//! Who answers on the admin listener: one request a connection.

use crate::admin::{events, page};
use crate::control::Status;
use crate::exposition::{OPEN_METRICS, PROMETHEUS};
use crate::handle::Handle;
use crate::stream::Stream;
use bytes::Bytes;
use curtsy_lifecycle::Phase;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName,
    HeaderValue, RETRY_AFTER,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

/// How long a client may be silent, and take for its head.
const HEAD_MOST: Duration = Duration::from_secs(10);
/// How long one exchange may take, a stream of events apart.
const EXCHANGE_MOST: Duration = Duration::from_secs(60);
/// The most streams of events at a time.
const STREAMS_MOST: usize = 16;
/// How old what is told may be, for all who ask at about the same time.
const FRESH: Duration = Duration::from_millis(100);
/// The largest head, in bytes.
const HEAD_BYTES_MOST: usize = 16 << 10;

pub(super) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

pub(super) struct Desk {
    pub(super) handle: Handle,
    /// Bound to loopback: requests must have been made to an address, or to `localhost`.
    is_local: bool,
    pub(super) streams: Arc<Semaphore>,
    told: Mutex<Option<Told>>,
}

struct Told {
    at: Instant,
    phase: Phase,
    json: Bytes,
}

impl Desk {
    pub(super) fn new(handle: Handle, is_local: bool) -> Self {
        Self {
            handle,
            is_local,
            streams: Arc::new(Semaphore::new(STREAMS_MOST)),
            told: Mutex::new(None),
        }
    }

    /// Answers what comes over one connection.
    pub(super) async fn answer(self: Arc<Self>, mut stream: Stream) {
        let speaks = poll_fn(|cx| stream.poll_read_ready(cx));
        if !matches!(timeout(HEAD_MOST, speaks).await, Ok(Ok(()))) {
            return;
        }
        let is_stream = Arc::new(AtomicBool::new(false));
        let (desk, flag) = (self.clone(), is_stream.clone());
        let service = service_fn(move |request| {
            let answer = desk.decide(&request);
            let is_events = request.uri().path() == "/events";
            flag.store(is_events && answer.status().is_success(), Ordering::Relaxed);
            std::future::ready(Ok::<_, Infallible>(answer))
        });
        let mut connection = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_MOST)
                .max_buf_size(HEAD_BYTES_MOST)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service)
        );
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = sleep(EXCHANGE_MOST) => None,
        };
        let ended = match ended {
            None if is_stream.load(Ordering::Relaxed) => connection.await,
            None => return,
            Some(ended) => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an admin client was left");
        }
    }

    fn decide(self: &Arc<Self>, request: &Request<Incoming>) -> Answer {
        let (method, headers) = (request.method(), request.headers());
        let mut answer = if self.is_local && !is_local_host(headers) {
            text(
                StatusCode::MISDIRECTED_REQUEST,
                "ask for this by its address, or as localhost\n",
            )
        } else if !matches!(*method, Method::GET | Method::HEAD) {
            let mut answer = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "nothing can be changed here\n",
            );
            let allowed = HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(ALLOW, allowed);
            answer
        } else {
            self.tell(request.uri().path(), headers)
        };
        // hyper sends no body to HEAD, but would wait for the end of a stream.
        if *method == Method::HEAD {
            *answer.body_mut() = empty();
        }
        furnish(answer)
    }

    fn tell(self: &Arc<Self>, path: &str, headers: &HeaderMap) -> Answer {
        match path {
            "/" => page::answer_page(),
            "/livez" => text(StatusCode::OK, "alive\n"),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics(headers),
            "/status" => answer("application/json", self.status()),
            "/events" => match self.streams.clone().try_acquire_owned() {
                Ok(place) => events::answer(self.clone(), place),
                Err(_) => later("too many watch already\n"),
            },
            _ => text(
                StatusCode::NOT_FOUND,
                "there are: / /livez /readyz /metrics /status /events\n",
            ),
        }
    }

    fn readiness(&self) -> Answer {
        let phase = self.handle.phase();
        if phase.is_ready() {
            return text(StatusCode::OK, "ready\n");
        }
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {phase}\n"),
        )
    }

    fn metrics(&self, headers: &HeaderMap) -> Answer {
        let metrics = self.handle.metrics();
        let accepted = headers.get_all(ACCEPT).iter();
        let wants_open = accepted
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.contains("application/openmetrics-text"));
        match wants_open {
            true => answer(OPEN_METRICS, metrics.open_metrics()),
            false => answer(PROMETHEUS, metrics.prometheus()),
        }
    }

    /// What the server is doing, as JSON: at most a moment old, and never of another phase.
    pub(super) fn status(&self) -> Bytes {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, phase) = (Instant::now(), self.handle.phase());
        if let Some(told) = &*told
            && told.phase == phase
            && now - told.at < FRESH
        {
            return told.json.clone();
        }
        let json = describe(&self.handle.status());
        *told = Some(Told {
            at: now,
            phase,
            json: json.clone(),
        });
        json
    }
}

fn describe(status: &Status) -> Bytes {
    // Numbers, text and lists: nothing that could not be written.
    serde_json::to_vec(status).unwrap_or_default().into()
}

/// Whether the request was made to an address or to this machine's own name for itself. A name that anybody can have
/// point here is neither.
fn is_local_host(headers: &HeaderMap) -> bool {
    let Some(Ok(host)) = headers.get(HOST).map(HeaderValue::to_str) else {
        return false;
    };
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => host,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

fn empty() -> UnsyncBoxBody<Bytes, Infallible> {
    Full::default().boxed_unsync()
}

pub(super) fn answer(kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed_unsync());
    let kind = HeaderValue::from_static(kind);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = answer("text/plain; charset=utf-8", text);
    *answer.status_mut() = status;
    answer
}

fn later(why: &'static str) -> Answer {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, why);
    let seconds = HeaderValue::from_static("5");
    answer.headers_mut().insert(RETRY_AFTER, seconds);
    answer
}

/// What all answers have in common: nothing is kept, nothing is guessed, nothing is framed.
fn furnish(mut answer: Answer) -> Answer {
    const SAME_ORIGIN: HeaderValue = HeaderValue::from_static("same-origin");
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in [
        (
            "x-content-type-options",
            HeaderValue::from_static("nosniff"),
        ),
        ("referrer-policy", HeaderValue::from_static("no-referrer")),
        ("cross-origin-resource-policy", SAME_ORIGIN),
        ("cross-origin-opener-policy", SAME_ORIGIN),
    ] {
        headers.insert(HeaderName::from_static(name), value);
    }
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
    answer
}

#[cfg(test)]
mod tests {
    use super::is_local_host;
    use http::HeaderMap;
    use http::header::{HOST, HeaderValue};

    #[test]
    fn a_name_that_may_point_anywhere_is_not_local() {
        for (host, local) in [
            ("127.0.0.1:9001", true),
            ("127.0.0.1", true),
            ("[::1]:9001", true),
            ("[::1]", true),
            ("localhost:9001", true),
            ("LOCALHOST", true),
            ("10.0.0.7:9001", true),
            ("evil.test:9001", false),
            ("localhost.evil.test", false),
            ("127.0.0.1.evil.test:9001", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            assert_eq!(is_local_host(&headers), local, "{host}");
        }
        assert!(!is_local_host(&HeaderMap::new()));
    }
}
