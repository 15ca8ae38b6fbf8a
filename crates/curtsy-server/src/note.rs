//! What is written down of a request while it is answered: its span, and its line in the access log.
//!
//! Invariants:
//! - Where nobody wants either, there is no note: the request path asks two questions and goes on.
//! - A note ends with its request, however that ends: it travels with the answer, and writes on drop.

use crate::access_log::{Exchange, Outcome};
use crate::link::Link;
use crate::trace::TraceParent;
use http::header::{REFERER, USER_AGENT};
use http::{Request, StatusCode};
use std::time::{Instant, SystemTime};
use tracing::field::Empty;
use tracing::span::Entered;
use tracing::{Level, Span};

#[derive(Debug)]
pub(crate) struct Note {
    span: Span,
    /// Dropped last: it is sent when the span is closed.
    line: Option<Line>,
}

#[derive(Debug)]
struct Line {
    exchange: Option<Box<Exchange>>,
    begun: Instant,
    queue: crate::access_log::Queue,
}

impl Note {
    /// Begins a note of `request`, if somebody wants one.
    #[inline(always)]
    pub(crate) fn begin<B>(link: &Link, request: &mut Request<B>) -> Option<Box<Self>> {
        let wants_span = tracing::enabled!(target: "curtsy::request", Level::INFO);
        if !wants_span && link.worker.shared.access_log.get().is_none() {
            return None;
        }
        Some(Self::write(link, request, wants_span))
    }

    #[cold]
    fn write<B>(link: &Link, request: &mut Request<B>, wants_span: bool) -> Box<Self> {
        let given = TraceParent::from_headers(request.headers());
        let trace = match wants_span {
            // Whoever traces here finds this request again by what it asks of others.
            true => given.or_else(|| Some(TraceParent::begin())),
            false => given,
        };
        if let Some(trace) = trace {
            request.extensions_mut().insert(trace);
        }
        let span = match trace.filter(|_| wants_span) {
            Some(trace) => span(link, request, trace, given.is_some()),
            None => Span::none(),
        };
        let line = link.worker.shared.access_log.get().map(|queue| Line {
            exchange: Some(Box::new(Exchange {
                asked: Some((
                    request.method().clone(),
                    request.uri().clone(),
                    request.version(),
                )),
                referer: request.headers().get(REFERER).cloned(),
                user_agent: request.headers().get(USER_AGENT).cloned(),
                trace,
                begins_trace: given.is_none() && trace.is_some(),
                ..exchange(link)
            })),
            begun: Instant::now(),
            queue: queue.clone(),
        });
        Box::new(Self { span, line })
    }

    /// While the request is worked on.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.span.enter()
    }

    /// The answer's head is made.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        let status = status.as_u16();
        self.span.record("http.response.status_code", status);
        if let Some(exchange) = self.exchange() {
            exchange.outcome.status = Some(status);
        }
    }

    /// So many bytes of the answer's body went on their way.
    pub(crate) fn sent(&mut self, bytes: usize) {
        if let Some(exchange) = self.exchange() {
            exchange.outcome.body_bytes += bytes as u64;
        }
    }

    fn exchange(&mut self) -> Option<&mut Exchange> {
        self.line.as_mut()?.exchange.as_deref_mut()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.outcome.took = self.begun.elapsed();
            self.queue.write(exchange);
        }
    }
}

/// Named as OpenTelemetry names these things.
fn span<B>(link: &Link, request: &Request<B>, trace: TraceParent, is_given: bool) -> Span {
    let span = tracing::info_span!(
        target: "curtsy::request",
        "request",
        http.request.method = %request.method(),
        url.path = request.uri().path(),
        http.response.status_code = Empty,
        client.address = %link.entry.peer(),
        curtsy.connection = link.entry.id(),
        curtsy.listener = link.entry.arrival().origin.listener,
        trace_id = %format_args!("{:032x}", trace.trace_id),
        parent_id = Empty,
        span_id = Empty,
    );
    // What came before this request; or, in a trace that begins here, this request's own number.
    let own = if is_given { "parent_id" } else { "span_id" };
    span.record(own, format!("{:016x}", trace.parent_id));
    span
}

/// Counts and logs what was no request, and was answered all the same.
pub(crate) fn malformed(link: &Link, status: u16) {
    link.worker.tally.malformed();
    let Some(queue) = link.worker.shared.access_log.get() else {
        return;
    };
    let mut exchange = exchange(link);
    exchange.outcome.status = Some(status);
    queue.write(Box::new(exchange));
}

/// What is known of the connection, and nothing of a request.
fn exchange(link: &Link) -> Exchange {
    Exchange {
        at: SystemTime::now(),
        peer: link.entry.peer().clone(),
        connection: link.entry.id(),
        listener: link.entry.arrival().origin.clone(),
        asked: None,
        referer: None,
        user_agent: None,
        trace: None,
        begins_trace: false,
        outcome: Outcome::default(),
    }
}

/// The span of a connection, if somebody wants one: from its accept, or its return from the parking lot, until it ends
/// or is parked.
#[inline]
pub(crate) fn connection_span(arrival: &curtsy_lifecycle::Arrival) -> Option<Span> {
    if !tracing::enabled!(target: "curtsy::connection", Level::DEBUG) {
        return None;
    }
    Some(tracing::debug_span!(
        target: "curtsy::connection",
        "connection",
        client.address = %arrival.peer,
        curtsy.connection = arrival.id,
        curtsy.listener = arrival.origin.listener,
        tls = arrival.tls,
    ))
}
