//! The service between hyper and the program: it judges each request, notes it, hands it on, and
//! sees to its answer.

use crate::body::Body;
use crate::http1::answer::Answer;
use crate::http1::rules::{self, Refusal, Verdict};
use crate::link::{BodyFault, Link};
use crate::seat::Seat;
use crate::service::{BoxError, Service};
use crate::shared::{OnDisconnect, Orders};
use curtsy_lifecycle::Draining;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue};
use http::{Extensions, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use tokio::task::JoinHandle;

/// One connection's service.
pub(crate) struct Judge<S> {
    service: S,
    link: Arc<Link>,
    /// What the program puts into each request of this connection.
    extensions: Option<Extensions>,
    /// Kept by handlers that outlive their client.
    seat: Arc<Seat>,
}

impl<S> Judge<S> {
    pub(crate) fn new(service: S, link: Arc<Link>, seat: Arc<Seat>) -> Self {
        let extensions = link.worker.shared.connection_hook.as_ref().map(|hook| {
            let mut extensions = Extensions::new();
            hook(&link.info(), &mut extensions);
            extensions
        });
        Self {
            service,
            link,
            extensions,
            seat,
        }
    }

    /// The same, for a stream of the connection.
    pub(crate) fn for_stream(&self, link: Arc<Link>, seat: Arc<Seat>) -> Self
    where
        S: Clone,
    {
        Self {
            service: self.service.clone(),
            link,
            extensions: self.extensions.clone(),
            seat,
        }
    }

    fn furnish(&self, extensions: &mut Extensions) {
        if let Some(own) = &self.extensions {
            extensions.extend(own.clone());
        }
        if self.link.worker.shared.manners.extensions {
            extensions.insert(self.link.info());
            extensions.insert(Draining::of_connection(self.link.entry.clone()));
        }
    }
}

impl<S: Service> hyper::service::Service<Request<Incoming>> for Judge<S> {
    type Response = Response<Answer<S::Body>>;
    type Error = Infallible;
    type Future = Answering<S>;

    #[inline]
    fn call(&self, request: Request<Incoming>) -> Answering<S> {
        let link = &self.link;
        let has_body = !request.body().is_end_stream();
        let uri = request.uri();
        let target = match uri.path_and_query() {
            Some(target) => target.as_str(),
            None => uri.authority().map_or("", |authority| authority.as_str()),
        };
        let length = if has_body {
            request.body().size_hint().exact()
        } else {
            None
        };
        link.called(request.method().as_str(), target.as_bytes(), length);

        let limits = &link.worker.shared.limits;
        let lines = link.take_head_seen();
        match rules::judge(&request, has_body, lines, limits) {
            Verdict::Serve => {}
            Verdict::ServeAndClose => link.close_after_answer(false),
            Verdict::Options if link.worker.shared.manners.service_answers_options_star => {}
            Verdict::Options => return self.done(Done::Options, has_body),
            Verdict::Refuse(refusal) => return self.done(Done::Refused(refusal), has_body),
        }
        let manner = Manner {
            expects_continue: has_body && request.headers().contains_key(EXPECT),
            is_connect: request.method() == Method::CONNECT,
        };
        let mut request = request.map(|incoming| Body::incoming(incoming, link.clone()));
        self.furnish(request.extensions_mut());
        Answering {
            // A request is large; it is moved as seldom as can be.
            state: catch_unwind(AssertUnwindSafe(|| self.ask(request))).unwrap_or(State::Panicked),
            manner,
            link: link.clone(),
        }
    }
}

impl<S: Service> Judge<S> {
    /// Hands the request to the service, if it is ready.
    #[inline]
    fn ask(&self, request: Request<Body>) -> State<S> {
        let mut service = self.service.clone();
        let mut noop = Context::from_waker(Waker::noop());
        match service.poll_ready(&mut noop) {
            Poll::Ready(Ok(())) => {
                let future = service.call(request);
                match self.link.worker.shared.manners.on_disconnect {
                    OnDisconnect::Cancel => State::Called { future },
                    OnDisconnect::Finish => self.detach(future),
                }
            }
            Poll::Ready(Err(error)) => State::Failed {
                error: Some(error.into()),
            },
            Poll::Pending => State::Waiting {
                service: Some(Box::new((service, request))),
            },
        }
    }

    /// An answer past the service.
    pub(crate) fn refuse(&self, status: StatusCode, text: &'static str) -> Answering<S> {
        self.done(Done::Refused(Refusal::new(status, text)), false)
    }

    fn done(&self, done: Done, has_body: bool) -> Answering<S> {
        if has_body {
            // Its body was dropped unread, and may be a trap.
            self.link.close_after_answer(true);
        }
        Answering {
            state: State::Done { done },
            manner: Manner::default(),
            link: self.link.clone(),
        }
    }

    /// Lets the handler run to its end whatever becomes of its client.
    fn detach(&self, future: S::Future) -> State<S> {
        let seat = self.seat.clone();
        let handle = tokio::spawn(async move {
            let answer = AssertUnwindSafe(future);
            let answer = futures_util::FutureExt::catch_unwind(answer).await;
            drop(seat);
            answer
                .map_err(|_| ())
                .map(|answer| answer.map_err(Into::into))
        });
        State::Detached { handle }
    }
}

/// What of the request its answer depends on.
#[derive(Clone, Copy, Debug, Default)]
struct Manner {
    expects_continue: bool,
    is_connect: bool,
}

#[derive(Clone, Copy, Debug)]
enum Done {
    Refused(Refusal),
    Options,
}

pin_project_lite::pin_project! {
    /// An answer in the making.
    pub(crate) struct Answering<S: Service> {
        #[pin]
        state: State<S>,
        manner: Manner,
        link: Arc<Link>,
    }
}

type Detached<S> = Result<Result<Response<<S as Service>::Body>, BoxError>, ()>;

pin_project_lite::pin_project! {
    #[project = StateProjection]
    enum State<S: Service> {
        Called { #[pin] future: S::Future },
        Waiting { service: Option<Box<(S, Request<Body>)>> },
        Detached { handle: JoinHandle<Detached<S>> },
        Failed { error: Option<BoxError> },
        Done { done: Done },
        Panicked,
    }
}

impl<S: Service> Future for Answering<S> {
    type Output = Result<Response<Answer<S::Body>>, Infallible>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            let (link, manner) = (&*this.link, *this.manner);
            let answer = match this.state.as_mut().project() {
                StateProjection::Called { future } => {
                    match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
                        Ok(polled) => match ready!(polled) {
                            Ok(response) => served(response, manner, link),
                            Err(error) => failed(&error.into(), link),
                        },
                        Err(_) => panicked(link),
                    }
                }
                StateProjection::Waiting { service } => {
                    let Some(waiting) = service else {
                        return Poll::Pending;
                    };
                    let next = match ready!(waiting.0.poll_ready(cx)) {
                        Ok(()) => service.take().map(|waiting| {
                            let (mut service, request) = *waiting;
                            State::Called {
                                future: service.call(request),
                            }
                        }),
                        Err(error) => Some(State::Failed {
                            error: Some(error.into()),
                        }),
                    };
                    if let Some(next) = next {
                        this.state.set(next);
                    }
                    continue;
                }
                StateProjection::Detached { handle } => match ready!(Pin::new(handle).poll(cx)) {
                    Ok(Ok(Ok(response))) => served(response, manner, link),
                    Ok(Ok(Err(error))) => failed(&error, link),
                    Ok(Err(())) | Err(_) => panicked(link),
                },
                StateProjection::Failed { error } => {
                    let error = error.take().unwrap_or_else(|| "polled twice".into());
                    failed(&error, link)
                }
                StateProjection::Done { done } => match *done {
                    Done::Refused(refusal) => refused(refusal, link),
                    Done::Options => options(link),
                },
                StateProjection::Panicked => panicked(link),
            };
            return Poll::Ready(Ok(answer));
        }
    }
}

#[inline]
fn served<B>(response: Response<B>, manner: Manner, link: &Arc<Link>) -> Response<Answer<B>> {
    match link.body_fault() {
        Some(BodyFault::Framing) => return refused(rules::BROKEN_BODY, link),
        Some(BodyFault::TooLarge) => return refused(rules::TOO_LARGE, link),
        Some(BodyFault::TimedOut) | None => {}
    }
    let status = response.status();
    link.worker.tally.answer(status.as_u16());
    let mut response = response.map(|body| Answer::service(body, link.clone()));
    if status == StatusCode::SWITCHING_PROTOCOLS || (manner.is_connect && status.is_success()) {
        link.switching();
        return response;
    }
    if link.is_body_open() {
        unread(manner, link);
    }
    let orders = link.orders();
    if orders & (Orders::DRAIN | Orders::CLOSE_IDLE) != 0 {
        link.close_after_answer(false);
    }
    if orders & Orders::HAND_OVER != 0 && link.has_body_escaped() {
        // Only hyper knows when this one waits: it cannot be handed over.
        link.close_after_answer(false);
    }
    if link.is_closing() {
        set_close(&mut response);
    }
    response
}

/// The answer is ready and the request's body was not read to its end.
fn unread(manner: Manner, link: &Arc<Link>) {
    // Without a leftover, somebody still reads it.
    let Some(rest) = link.has_leftover().then(|| link.take_leftover()).flatten() else {
        return;
    };
    let limit = link.worker.shared.limits.unread_body_bytes;
    let is_much = rest.size_hint().lower() > limit;
    if manner.expects_continue || is_much {
        // To read it would ask the client to send it.
        link.close_after_answer(true);
    } else {
        link.leave_body(rest);
    }
}

fn set_close<B>(response: &mut Response<B>) {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
}

fn refused<B>(refusal: Refusal, link: &Arc<Link>) -> Response<Answer<B>> {
    link.close_after_answer(link.is_body_open() || link.closes_gently());
    let mut response = text(refusal.status, refusal.text, link);
    set_close(&mut response);
    tracing::debug!(
        peer = %link.entry.peer(),
        status = refusal.status.as_u16(),
        why = refusal.text.trim_end(),
        "request refused"
    );
    response
}

fn failed<B>(error: &BoxError, link: &Arc<Link>) -> Response<Answer<B>> {
    let request = link.entry.straggler(crate::clock::now());
    tracing::error!(
        request = request.map(tracing::field::display),
        %error,
        "the service failed; its request is answered with 500"
    );
    internal_error(link)
}

fn panicked<B>(link: &Arc<Link>) -> Response<Answer<B>> {
    let request = link.entry.straggler(crate::clock::now());
    tracing::error!(
        request = request.map(tracing::field::display),
        "a handler panicked; its request is answered with 500"
    );
    internal_error(link)
}

fn internal_error<B>(link: &Arc<Link>) -> Response<Answer<B>> {
    link.close_after_answer(link.is_body_open());
    let mut response = text(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal server error\n",
        link,
    );
    set_close(&mut response);
    response
}

fn options<B>(link: &Arc<Link>) -> Response<Answer<B>> {
    link.worker.tally.answer(StatusCode::OK.as_u16());
    let mut response = Response::new(Answer::text("", link.clone()));
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    if link.is_closing() || link.orders() & Orders::DRAIN != 0 {
        link.close_after_answer(false);
        set_close(&mut response);
    }
    response
}

fn text<B>(status: StatusCode, text: &'static str, link: &Arc<Link>) -> Response<Answer<B>> {
    link.worker.tally.answer(status.as_u16());
    let mut response = Response::new(Answer::text(text, link.clone()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
