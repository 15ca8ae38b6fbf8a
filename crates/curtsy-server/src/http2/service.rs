//! The service between hyper's HTTP/2 connection and the program: each stream is judged, noted and
//! answered as a request of HTTP/1 is, with a link, a seat and an entry of its own.

use crate::http1::{Answer, Answering, Data, Head, Judge, refuse};
use crate::http2::carrier::{Carrier, Place};
use crate::http2::rules::Expects;
use crate::http2::{rules, turn, websocket};
use crate::link::Link;
use crate::seat::Seat;
use crate::service::{BoxError, Service};
use bytes::Bytes;
use curtsy_lifecycle::{Entry, Moment};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll, ready};

/// One connection's service.
pub(crate) struct Streams<S: Service> {
    judge: Judge<S>,
    carrier: Arc<Carrier>,
    seat: Arc<Seat>,
    /// The last stream's, for the next one to take if nobody else has it by then.
    berth: RefCell<Option<Arc<Berth>>>,
}

impl<S: Service> Streams<S> {
    pub(crate) fn new(service: S, carrier: Arc<Carrier>, seat: Arc<Seat>) -> Self {
        let mut judge = Judge::new(service, carrier.link.clone(), seat.clone());
        judge.greet();
        Self {
            judge,
            carrier,
            seat,
            berth: RefCell::default(),
        }
    }

    /// Gives a stream, which arrived at `now`, what it is known by.
    fn admit(&self, now: Moment) -> Kept {
        let connection = &self.carrier.link.entry;
        let served = connection.served();
        connection.resume_served(served + 1);
        let mut kept = self.berth.borrow_mut();
        let berth = match kept.as_ref().filter(|berth| berth.is_free()) {
            Some(berth) => {
                berth.link.begin_again(now);
                berth.link.entry.resume_served(served);
                berth.link.bytes_read(now);
                berth.link.head_arrives();
                berth.clone()
            }
            None => {
                let berth = Arc::new(self.new_berth(now, served));
                // Who still has the seat of one that outlives its client is to be seen.
                if !berth.link.outlives() {
                    *kept = Some(berth.clone());
                    self.carrier.keep_place();
                }
                berth
            }
        };
        connection.stream_enters();
        Kept(berth)
    }

    fn new_berth(&self, now: Moment, served: u64) -> Berth {
        let connection = &self.carrier.link;
        let entry = Arc::new(Entry::stream(&connection.entry, now));
        entry.resume_served(served);
        let link = Arc::new(Link::new(entry, connection.worker.clone()));
        link.bytes_read(now);
        link.head_arrives();
        Berth {
            seat: Arc::new(Seat::take_for_stream(&link, self.seat.clone())),
            place: self.carrier.enter(link.clone()),
            link,
        }
    }
}

impl<S: Service> hyper::service::Service<Request<Incoming>> for Streams<S> {
    type Response = Response<StreamBody<S::Body>>;
    type Error = Infallible;
    type Future = StreamAnswering<S>;

    fn call(&self, request: Request<Incoming>) -> StreamAnswering<S> {
        if let Some(length) = self.carrier.introduction() {
            return StreamAnswering::filled(length);
        }
        let (now, at_once) = self.carrier.called();
        if at_once {
            turn::give(&self.carrier);
        }
        let kept = self.admit(now);
        let (link, seat) = (&kept.0.link, &kept.0.seat);
        let form = match *request.method() {
            Method::HEAD => Form::Bare,
            Method::CONNECT if websocket::is_asked(&request) => Form::Socket,
            _ => Form::Plain,
        };
        let judged = rules::judge(&request);
        if judged == Ok(Expects::Nothing) {
            link.head_seen(Head::Plain);
        }
        let inner = if let Err(why) = judged {
            refuse(link, StatusCode::BAD_REQUEST, why)
        } else if form == Form::Socket {
            self.judge.judge(websocket::as_upgrade(request), link, seat)
        } else if *request.method() == Method::CONNECT {
            refuse(
                link,
                StatusCode::NOT_IMPLEMENTED,
                "this server offers no such CONNECT over HTTP/2\n",
            )
        } else {
            self.judge.judge(request, link, seat)
        };
        StreamAnswering {
            inner: Some(inner),
            form,
            kept: Some(kept),
            length: 0,
        }
    }
}

/// What kind of answer a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    /// Without a body, whatever the service gives.
    Bare,
    /// A WebSocket, if the service opens one.
    Socket,
}

/// What a stream is known by: its place among those of its connection, and in the ledger. In this order: the link is out
/// of the list before the seat leaves the ledger.
struct Berth {
    link: Arc<Link>,
    place: Place,
    seat: Arc<Seat>,
}

impl Berth {
    /// Who has the link of a stream that is over: this and the list; and the entry: the link, the seat and the ledger.
    const LINKED: usize = 2;
    const ENTERED: usize = 3;

    /// Whether no stream has it, and nobody who knew its last.
    fn is_free(self: &Arc<Self>) -> bool {
        let is_free = Arc::strong_count(self) == 1
            && Arc::strong_count(&self.seat) == 1
            && Arc::strong_count(&self.link) == Self::LINKED
            && Arc::strong_count(&self.link.entry) == Self::ENTERED
            && self.link.is_like_new();
        // What they wrote comes before what the next one writes.
        fence(Ordering::Acquire);
        is_free
    }
}

/// What a stream holds for as long as it is with us.
pub(crate) struct Kept(Arc<Berth>);

impl Kept {
    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.0.link
    }

    fn carrier(&self) -> &Carrier {
        self.0.place.carrier()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.carrier().left();
        // A handler that outlives its client ends with its seat.
        if !self.link().outlives() {
            self.0.seat.vacate();
        }
    }
}

/// By the body of the answer, or by a socket too.
enum Held {
    Alone(Kept),
    Shared(Arc<Kept>),
}

impl Held {
    fn kept(&self) -> &Kept {
        match self {
            Self::Alone(kept) => kept,
            Self::Shared(kept) => kept,
        }
    }
}

pin_project_lite::pin_project! {
    /// An answer in the making.
    pub(crate) struct StreamAnswering<S: Service> {
        inner: Option<Answering<S>>,
        form: Form,
        kept: Option<Kept>,
        // Of an answer to nobody: how much it fills.
        length: usize,
    }
}

impl<S: Service> StreamAnswering<S> {
    /// So many bytes, whatever was asked.
    fn filled(length: usize) -> Self {
        Self {
            inner: None,
            form: Form::Plain,
            kept: None,
            length,
        }
    }
}

impl<S: Service> Future for StreamAnswering<S> {
    type Output = Result<Response<StreamBody<S::Body>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(inner) = this.inner else {
            return Poll::Ready(Ok(fill(*this.length)));
        };
        let mut response = match ready!(Pin::new(inner).poll(cx)) {
            Ok(response) => response,
            Err(never) => match never {},
        };
        // It means nothing here; the connection goes on, or GOAWAY has told.
        if response.headers().keys().any(|name| *name == CONNECTION) {
            response.headers_mut().remove(CONNECTION);
        }
        let mut kept = this.kept.take().map(Held::Alone);
        if *this.form == Form::Socket
            && let Some(Held::Alone(alone)) = kept
        {
            let shared = Arc::new(alone);
            response = websocket::answer(response, &shared);
            kept = Some(Held::Shared(shared));
        }
        let is_bare = *this.form == Form::Bare || has_no_content(response.status());
        if is_bare {
            keep_length(&mut response);
        }
        let body = |inner| StreamBody {
            inner: match is_bare {
                true => Inner::Nothing,
                false => Inner::Answer { body: inner },
            },
            kept,
        };
        Poll::Ready(Ok(response.map(body)))
    }
}

/// An answer that reaches nobody. Its date is one that the encoder does not enter into its table, of which the client's
/// would know nothing.
fn fill<B: Body>(length: usize) -> Response<StreamBody<B>> {
    let inner = match length {
        0 => Inner::Nothing,
        _ => Inner::Filler {
            bytes: Bytes::from(vec![0; length]),
        },
    };
    let mut response = Response::new(StreamBody { inner, kept: None });
    let mut date = HeaderValue::from_static("now");
    date.set_sensitive(true);
    response.headers_mut().insert(DATE, date);
    response
}

/// Whether an answer of that status never has a body.
fn has_no_content(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Lets an answer that loses its body still say how long that is.
fn keep_length<B: Body>(response: &mut Response<B>) {
    let length = response.body().size_hint().exact();
    if let Some(length) = length.filter(|length| *length > 0)
        && response.status() != StatusCode::NO_CONTENT
        && !response.headers().contains_key(CONTENT_LENGTH)
    {
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

pin_project_lite::pin_project! {
    /// The body of an answer on its way to hyper, which asks for the next part of it when the
    /// client has room for more.
    pub(crate) struct StreamBody<B: Body> {
        #[pin]
        inner: Inner<B>,
        kept: Option<Held>,
    }
}

pin_project_lite::pin_project! {
    #[project = InnerProjection]
    enum Inner<B: Body> {
        Answer { #[pin] body: Answer<B> },
        Filler { bytes: Bytes },
        Nothing,
    }
}

impl<B> Body for StreamBody<B>
where
    B: Body<Error: Into<BoxError>>,
{
    type Data = <Answer<B> as Body>::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let this = self.project();
        let polled = match this.inner.project() {
            InnerProjection::Answer { body } => body.poll_frame(cx),
            InnerProjection::Filler { bytes } => {
                let filler = Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty());
                Poll::Ready(filler.map(|filler| Ok(Frame::data(Data::Text(filler)))))
            }
            InnerProjection::Nothing => Poll::Ready(None),
        };
        if let Some(kept) = this.kept {
            let kept = kept.kept();
            let now = kept.carrier().taken();
            let part = match &polled {
                Poll::Ready(Some(Ok(frame))) => frame.data_ref(),
                Poll::Ready(_) | Poll::Pending => None,
            };
            if let Some(part) = part {
                kept.link().entry.add_sent(bytes::Buf::remaining(part));
            }
            // From here on it is the client who is waited for, or the service.
            kept.link().write_blocked_at(part.map(|_| now));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Answer { body } => body.is_end_stream(),
            Inner::Filler { bytes } => bytes.is_empty(),
            Inner::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Answer { body } => body.size_hint(),
            Inner::Filler { .. } => SizeHint::default(),
            Inner::Nothing => SizeHint::with_exact(0),
        }
    }
}
