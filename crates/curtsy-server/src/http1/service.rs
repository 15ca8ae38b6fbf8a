//! The service between hyper and the program: it judges each request, notes it, hands it on, and
//! sees to its answer.

use crate::body::Body;
use crate::hint::unlikely;
use crate::http1::answer::{Answer, Complete};
use crate::http1::framing::BodyLength;
use crate::http1::rules::{self, Refusal, Verdict};
use crate::http1::scan::Head;
use crate::link::{BodyFault, Link};
use crate::note::Note;
use crate::seat::Seat;
use crate::service::{Arrived, BoxError, Service};
use crate::shared::Orders;
use curtsy_lifecycle::Draining;
use curtsy_sys::pooled::Pooled;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue};
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::hint::cold_path;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use tokio::task::JoinHandle;
use tracing::Instrument;

/// One connection's service.
pub(crate) struct Judge<S: Service> {
    link: Arc<Link>,
    service: S,
    /// What the program puts into each request of this connection.
    extensions: Option<Extensions>,
    /// Kept by handlers that outlive their client.
    seat: Arc<Seat>,
}

/// The same as hyper knows it.
pub(crate) struct JudgeForHyper<S: Service> {
    judge: Judge<S>,
    /// The answer, in the making or made, to the request that hyper is about to hand over.
    begun: Cell<Option<Box<Answering<S>>>>,
}

impl<S: Service> Judge<S> {
    pub(crate) fn new(service: S, link: Arc<Link>, seat: Arc<Seat>) -> Self {
        Self {
            link,
            service,
            extensions: None,
            seat,
        }
    }

    #[inline]
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Asks the program for what it puts into each request of this connection, once. In the connection's own task, which
    /// is all that ends if the program panics.
    pub(crate) fn greet(&mut self) {
        if let Some(hook) = &self.link.worker.shared.hooks.connection
            && self.extensions.is_none()
        {
            let mut extensions = Extensions::new();
            hook(&self.link.info(), &mut extensions);
            self.extensions = Some(extensions);
        }
    }

    /// The same for hyper, with what was begun of an answer to the first request that it will find.
    pub(crate) fn for_hyper(&self, begun: Option<Box<Answering<S>>>) -> JudgeForHyper<S> {
        JudgeForHyper {
            judge: Self {
                link: self.link.clone(),
                service: self.service.clone(),
                extensions: self.extensions.clone(),
                seat: self.seat.clone(),
            },
            begun: Cell::new(begun),
        }
    }

    /// A service that takes a request now, if it does.
    #[inline(always)]
    pub(crate) fn ready(&self) -> Option<S> {
        let mut service = self.service.clone();
        let ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(()))).then_some(service)
    }

    #[inline(always)]
    fn furnish(&self, link: &Link, extensions: &mut Extensions) {
        if unlikely(self.extensions.is_some() || link.worker.shared.manners.extensions) {
            self.furnish_with(link, extensions);
        }
    }

    #[inline(never)]
    fn furnish_with(&self, link: &Link, extensions: &mut Extensions) {
        if let Some(own) = &self.extensions {
            extensions.extend(own.clone());
        }
        if link.worker.shared.manners.extensions {
            extensions.insert(link.info());
            extensions.insert(Draining::of_connection(link.entry.clone()));
        }
    }
}

impl<S: Service> hyper::service::Service<Request<Incoming>> for JudgeForHyper<S> {
    type Response = Response<Answer<S::Body>>;
    type Error = Infallible;
    type Future = Answering<S>;

    #[inline]
    fn call(&self, request: Request<Incoming>) -> Answering<S> {
        let judge = &self.judge;
        match self.begun.take() {
            Some(begun) => {
                judge.link.forget_head();
                *begun
            }
            None => {
                if request.extensions().get::<OnUpgrade>().is_some() {
                    judge.link.asked_to_switch();
                }
                judge.judge(request, &judge.link, &judge.seat)
            }
        }
    }
}

impl<S: Service> Judge<S> {
    /// Judges a request of the connection, or of the stream of it whose link and seat these are, and calls the service.
    #[inline]
    pub(crate) fn judge(
        &self,
        mut request: Request<Incoming>,
        link: &Arc<Link>,
        seat: &Arc<Seat>,
    ) -> Answering<S> {
        let has_body = !request.body().is_end_stream();
        let (note, admitted) = admit(link, &mut request, has_body, link.take_head_seen());
        if let Err(instead) = admitted {
            return done(link, instead, has_body, note);
        }
        let manner = Manner {
            expects_continue: has_body && request.headers().contains_key(EXPECT),
            is_connect: request.method() == Method::CONNECT,
        };
        self.furnish(link, request.extensions_mut());
        let mut answering = Answering {
            state: State::Done { done: Done::Panic },
            manner,
            link: Some(link.clone()),
            seat: link.outlives().then(|| seat.clone()),
            note,
        };
        let entered = answering.note.as_deref().map(Note::enter);
        let called = catch_unwind(AssertUnwindSafe(|| {
            let request = Arrived {
                request,
                link,
                has_body,
            };
            answering.state = State::begin(self.service.clone(), request, &mut answering.seat);
        }));
        drop(entered);
        if called.is_err() {
            answering.state = State::Done { done: Done::Panic };
        }
        answering
    }

    /// The same with a request that has arrived to its end and a service that is ready, which is then asked for the
    /// answer. That is put into `came`, its body where it stays; or there is more to do.
    #[inline(always)]
    pub(crate) fn judge_whole<'a>(
        &'a self,
        mut service: S,
        request: &mut Option<Request<Body>>,
        head: Head,
        cx: &mut Context<'_>,
        came: &mut Option<(response::Parts, Pooled<S::Body>)>,
    ) -> Result<Complete<&'a Arc<Link>>, Box<Answering<S>>> {
        let link = &self.link;
        let mut note = None;
        if let Some(request) = request {
            let has_body = !request.body().is_end_stream();
            let (written, admitted) = admit(link, request, has_body, head);
            if let Err(instead) = admitted {
                cold_path();
                return Err(Box::new(done(link, instead, has_body, written)));
            }
            note = written;
            self.furnish(link, request.extensions_mut());
        }
        let entered = note.as_deref().map(Note::enter);
        let called = catch_unwind(AssertUnwindSafe(|| {
            let Some(request) = request.take() else {
                cold_path();
                return None;
            };
            let Some(mut future) = service.call_whole(request) else {
                cold_path();
                return None;
            };
            if unlikely(link.outlives()) {
                return Some(detach(future, self.seat.clone()));
            }
            match future.as_mut().poll(cx) {
                Poll::Ready(Ok(response)) => {
                    let (parts, body) = response.into_parts();
                    *came = Some((parts, Pooled::new(body)));
                    None
                }
                Poll::Ready(Err(error)) => {
                    cold_path();
                    let done = Done::Error(error.into());
                    Some(State::Done { done })
                }
                Poll::Pending => Some(State::Called { future }),
            }
        }));
        drop(entered);
        let mut instead = match called {
            Ok(instead) => instead,
            Err(_) => {
                cold_path();
                // If it was made before that, it is not sent.
                *came = None;
                Some(State::Done { done: Done::Panic })
            }
        };
        if let Some((parts, _)) = came {
            match see_to(parts.status, &mut parts.headers, Manner::default(), link) {
                Ok(()) => return Ok(Complete::of(link, answered(note, parts.status))),
                Err(refusal) => {
                    let done = Done::Refused(refusal);
                    instead = Some(State::Done { done });
                }
            }
        }
        cold_path();
        let state = instead.unwrap_or(State::Done { done: Done::Panic });
        Err(Box::new(Answering {
            state,
            manner: Manner::default(),
            link: Some(link.clone()),
            seat: None,
            note,
        }))
    }
}

/// Notes that the head of an answer is made.
#[inline(always)]
fn answered(note: Option<Box<Note>>, status: StatusCode) -> Option<Box<Note>> {
    let mut note = note?;
    note.answered(status);
    Some(note)
}

/// Takes a request up, which is in flight from here on; and says what is answered instead if it is not for the service.
#[inline(always)]
fn admit<B: http_body::Body>(
    link: &Arc<Link>,
    request: &mut Request<B>,
    has_body: bool,
    head: Head,
) -> (Option<Box<Note>>, Result<(), Done>) {
    let uri = request.uri();
    let target = match uri.path_and_query() {
        Some(target) => target.as_str(),
        None => {
            cold_path();
            uri.authority().map_or("", |authority| authority.as_str())
        }
    };
    let length = if unlikely(has_body) {
        let exact = request.body().size_hint().exact();
        exact.map_or(BodyLength::Chunked, BodyLength::Known)
    } else {
        BodyLength::Known(0)
    };
    link.called(request.method().as_str(), target.as_bytes(), length);
    let note = Note::begin(link, request);
    let shared = &link.worker.shared;
    let admitted = if unlikely(head == Head::Unseen) && !link.entry.is_stream() {
        // hyper found it where the wire saw none.
        Err(Done::Refused(rules::MALFORMED))
    } else {
        match rules::judge(request, has_body, head, &shared.limits) {
            Verdict::Serve => Ok(()),
            Verdict::Options if shared.manners.service_answers_options_star => Ok(()),
            Verdict::Options => Err(Done::Options),
            Verdict::Refuse(refusal) => Err(Done::Refused(refusal)),
        }
    };
    (note, admitted)
}

/// An answer past the service.
pub(crate) fn refuse<S: Service>(
    link: &Arc<Link>,
    status: StatusCode,
    text: &'static str,
) -> Answering<S> {
    done(link, Done::Refused(Refusal::new(status, text)), false, None)
}

fn done<S: Service>(
    link: &Arc<Link>,
    done: Done,
    has_body: bool,
    note: Option<Box<Note>>,
) -> Answering<S> {
    if has_body {
        // Its body was dropped unread, and may be a trap.
        link.close_after_answer(true);
    }
    Answering {
        state: State::Done { done },
        manner: Manner::default(),
        link: Some(link.clone()),
        seat: None,
        note,
    }
}

/// Lets the handler run to its end whatever becomes of its client.
fn detach<S: Service>(future: Pooled<S::Future>, seat: Arc<Seat>) -> State<S> {
    let work = async move {
        let answer = AssertUnwindSafe(future);
        let answer = futures_util::FutureExt::catch_unwind(answer).await;
        drop(seat);
        answer
            .map_err(|_| ())
            .map(|answer| answer.map_err(Into::into))
    };
    // In the request's span, which is entered here.
    let handle = tokio::spawn(work.in_current_span());
    State::Detached { handle }
}

/// What of the request its answer depends on.
#[derive(Clone, Copy, Debug, Default)]
struct Manner {
    expects_continue: bool,
    is_connect: bool,
}

#[derive(Debug)]
enum Done {
    Refused(Refusal),
    Options,
    Panic,
    Error(BoxError),
}

/// An answer in the making.
pub(crate) struct Answering<S: Service> {
    state: State<S>,
    manner: Manner,
    /// Goes on into the answer.
    link: Option<Arc<Link>>,
    /// Kept by the handler if it outlives its client.
    seat: Option<Arc<Seat>>,
    /// What is written down of it, if anything is; goes on into the answer.
    note: Option<Box<Note>>,
}

impl<S: Service> Unpin for Answering<S> {}

type Detached<S> = Result<Result<Response<<S as Service>::Body>, BoxError>, ()>;

/// Small, for hyper moves it: what is large is elsewhere.
enum State<S: Service> {
    Unready {
        call: Option<Box<(S, Request<Incoming>)>>,
    },
    Called {
        future: Pooled<S::Future>,
    },
    Detached {
        handle: JoinHandle<Detached<S>>,
    },
    Done {
        done: Done,
    },
    /// It is there, whole or to be gone on with.
    Made {
        response: Option<Box<Response<Answer<S::Body>>>>,
    },
}

impl<S: Service> Answering<S> {
    /// An answer that is there already.
    pub(crate) fn made(response: Response<Answer<S::Body>>) -> Self {
        let response = Some(Box::new(response));
        Self {
            state: State::Made { response },
            manner: Manner::default(),
            link: None,
            seat: None,
            note: None,
        }
    }
}

/// What came of the service.
enum Came<B> {
    Response(Response<B>),
    Done(Done),
}

impl<S: Service> State<S> {
    /// Calls the service, if it is ready.
    #[inline]
    fn begin(mut service: S, request: Arrived<'_>, seat: &mut Option<Arc<Seat>>) -> Self {
        // If it is not, it is asked again at once, with a waker that wakes.
        match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Self::call(&mut service, request, seat),
            Poll::Ready(Err(error)) => {
                request.leave();
                Self::Done {
                    done: Done::Error(error.into()),
                }
            }
            Poll::Pending => Self::Unready {
                call: Some(Box::new((service, request.wait()))),
            },
        }
    }

    #[inline]
    fn call(service: &mut S, request: Arrived<'_>, seat: &mut Option<Arc<Seat>>) -> Self {
        let future = service.call(request);
        match seat.take() {
            None => Self::Called {
                future: Pooled::new(future),
            },
            Some(seat) => detach(Pooled::new(future), seat),
        }
    }

    /// Goes on until there is something to answer, which is put into `came`: moved as seldom as
    /// can be, because it is large.
    #[inline]
    fn poll(
        &mut self,
        link: &Option<Arc<Link>>,
        seat: &mut Option<Arc<Seat>>,
        cx: &mut Context<'_>,
        came: &mut Came<S::Body>,
    ) -> Poll<()> {
        if matches!(self, Self::Unready { .. }) {
            ready!(self.poll_unready(link, seat, cx));
        }
        *came = match self {
            Self::Called { future } => match ready!(future.as_mut().poll(cx)) {
                Ok(response) => Came::Response(response),
                Err(error) => Came::Done(Done::Error(error.into())),
            },
            Self::Detached { handle } => match ready!(Pin::new(handle).poll(cx)) {
                Ok(Ok(Ok(response))) => Came::Response(response),
                Ok(Ok(Err(error))) => Came::Done(Done::Error(error)),
                Ok(Err(())) | Err(_) => return Poll::Ready(()),
            },
            Self::Done { done } => Came::Done(std::mem::replace(done, Done::Panic)),
            Self::Unready { .. } | Self::Made { .. } => return Poll::Ready(()),
        };
        Poll::Ready(())
    }

    /// Calls the service as soon as it is ready.
    #[cold]
    fn poll_unready(
        &mut self,
        link: &Option<Arc<Link>>,
        seat: &mut Option<Arc<Seat>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Self::Unready { call } = self else {
            return Poll::Ready(());
        };
        let ready = match call {
            Some(call) => ready!(call.0.poll_ready(cx)),
            None => return Poll::Ready(()),
        };
        let (Some(call), Some(link)) = (call.take(), link) else {
            return Poll::Ready(());
        };
        let (mut service, request) = *call;
        let has_body = !request.body().is_end_stream();
        let request = Arrived {
            request,
            link,
            has_body,
        };
        *self = match ready {
            Ok(()) => Self::call(&mut service, request, seat),
            Err(error) => {
                request.leave();
                Self::Done {
                    done: Done::Error(error.into()),
                }
            }
        };
        Poll::Ready(())
    }
}

impl<S: Service> Future for Answering<S> {
    type Output = Result<Response<Answer<S::Body>>, Infallible>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let State::Made { response } = &mut this.state {
            // Nobody polls again.
            return response
                .take()
                .map_or(Poll::Pending, |response| Poll::Ready(Ok(*response)));
        }
        let (state, seat) = (&mut this.state, &mut this.seat);
        let entered = this.note.as_deref().map(Note::enter);
        let mut came = Came::Done(Done::Panic);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            state.poll(&this.link, seat, cx, &mut came)
        }));
        drop(entered);
        match polled {
            Ok(polled) => ready!(polled),
            Err(_) => came = Came::Done(Done::Panic),
        }
        let Some(link) = this.link.take() else {
            // Answered already: nobody polls again.
            return Poll::Pending;
        };
        let mut answer = match came {
            Came::Response(response) => served(response, this.manner, link),
            Came::Done(Done::Error(error)) => failed(&error, link),
            Came::Done(Done::Panic) => panicked(link),
            Came::Done(Done::Refused(refusal)) => refused(refusal, link),
            Came::Done(Done::Options) => options(link),
        };
        if let Some(note) = answered(this.note.take(), answer.status()) {
            answer.body_mut().keep(note);
        }
        Poll::Ready(Ok(answer))
    }
}

#[inline]
fn served<B: http_body::Body>(
    mut response: Response<B>,
    manner: Manner,
    link: Arc<Link>,
) -> Response<Answer<B>> {
    match see_to(response.status(), response.headers_mut(), manner, &link) {
        Ok(()) => response.map(|body| Answer::service(body, link)),
        Err(refusal) => refused(refusal, link),
    }
}

/// Sees to an answer of the service: what it means for the connection, and the connection for it. Or the request is
/// refused, whatever the service says.
#[inline(always)]
fn see_to(
    status: StatusCode,
    headers: &mut HeaderMap,
    manner: Manner,
    link: &Link,
) -> Result<(), Refusal> {
    match link.body_fault() {
        None => {}
        Some(fault) => {
            cold_path();
            match fault {
                BodyFault::Framing => return Err(rules::BROKEN_BODY),
                BodyFault::TooLarge => return Err(rules::TOO_LARGE),
                BodyFault::TimedOut => {}
            }
        }
    }
    link.worker.tally.answer(status.as_u16());
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    if unlikely(switches || manner.is_connect && status.is_success()) {
        link.switching();
        return Ok(());
    }
    if unlikely(link.is_body_open()) {
        unread(manner, link);
    }
    let orders = link.orders();
    if unlikely(orders & (Orders::DRAIN | Orders::CLOSE_IDLE) != 0) {
        link.close_after_answer(false);
    }
    if unlikely(orders & Orders::HAND_OVER != 0) && link.has_body_escaped() {
        // Only hyper knows when this one waits: it cannot be handed over.
        link.close_after_answer(false);
    }
    if unlikely(link.is_closing()) {
        set_close(headers);
    }
    Ok(())
}

/// The answer is ready and the request's body was not read to its end.
#[inline(never)]
fn unread(manner: Manner, link: &Link) {
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

#[inline(never)]
fn set_close(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

fn refused<B: http_body::Body>(refusal: Refusal, link: Arc<Link>) -> Response<Answer<B>> {
    link.close_after_answer(link.is_body_open() || link.closes_gently());
    tracing::debug!(
        peer = %link.entry.peer(),
        status = refusal.status.as_u16(),
        why = refusal.text.trim_end(),
        "request refused"
    );
    let mut response = text(refusal.status, refusal.text, link);
    set_close(response.headers_mut());
    response
}

fn failed<B: http_body::Body>(error: &BoxError, link: Arc<Link>) -> Response<Answer<B>> {
    let request = link.entry.straggler(crate::clock::now());
    tracing::error!(
        request = request.map(tracing::field::display),
        %error,
        "the service failed; its request is answered with 500"
    );
    internal_error(link)
}

fn panicked<B: http_body::Body>(link: Arc<Link>) -> Response<Answer<B>> {
    let request = link.entry.straggler(crate::clock::now());
    tracing::error!(
        request = request.map(tracing::field::display),
        "a handler panicked; its request is answered with 500"
    );
    internal_error(link)
}

fn internal_error<B: http_body::Body>(link: Arc<Link>) -> Response<Answer<B>> {
    link.close_after_answer(link.is_body_open());
    let mut response = text(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal server error\n",
        link,
    );
    set_close(response.headers_mut());
    response
}

fn options<B: http_body::Body>(link: Arc<Link>) -> Response<Answer<B>> {
    link.worker.tally.answer(StatusCode::OK.as_u16());
    if link.orders() & Orders::DRAIN != 0 {
        link.close_after_answer(false);
    }
    let closes = link.is_closing();
    let mut response = Response::new(Answer::text("", link));
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    if closes {
        set_close(response.headers_mut());
    }
    response
}

fn text<B: http_body::Body>(
    status: StatusCode,
    text: &'static str,
    link: Arc<Link>,
) -> Response<Answer<B>> {
    link.worker.tally.answer(status.as_u16());
    let mut response = Response::new(Answer::text(text, link));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
