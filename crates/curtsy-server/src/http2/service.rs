//! The service between hyper's HTTP/2 connection and the program: each stream is judged, noted and
//! answered as a request of HTTP/1 is, with a link, a seat and an entry of its own.

use crate::clock;
use crate::http1::{Answer, Answering, Data, Judge};
use crate::http2::carrier::{Carrier, Place};
use crate::http2::{rules, websocket};
use crate::link::Link;
use crate::seat::Seat;
use crate::service::{BoxError, Service};
use bytes::Bytes;
use curtsy_lifecycle::Entry;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// One connection's service.
pub(crate) struct Streams<S> {
    judge: Judge<S>,
    carrier: Arc<Carrier>,
    seat: Arc<Seat>,
}

impl<S: Service> Streams<S> {
    pub(crate) fn new(service: S, carrier: Arc<Carrier>, seat: Arc<Seat>) -> Self {
        Self {
            judge: Judge::new(service, carrier.link.clone(), seat.clone()),
            carrier,
            seat,
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
        let now = clock::now();
        let connection = &self.carrier.link.entry;
        let entry = Arc::new(Entry::stream(connection, now));
        entry.resume_served(connection.served());
        connection.resume_served(connection.served() + 1);
        let link = Arc::new(Link::new(entry, self.carrier.link.worker.clone()));
        link.bytes_read(now);
        link.head_arrives();
        let seat = Arc::new(Seat::take_for_stream(&link, self.seat.clone()));
        let place = self.carrier.enter(link.clone());
        let judge = self.judge.for_stream(link.clone(), seat.clone());
        let form = match *request.method() {
            Method::HEAD => Form::Bare,
            Method::CONNECT if websocket::is_asked(&request) => Form::Socket,
            _ => Form::Plain,
        };
        let inner = if let Some(why) = rules::malformed(&request) {
            judge.refuse(StatusCode::BAD_REQUEST, why)
        } else if form == Form::Socket {
            hyper::service::Service::call(&judge, websocket::as_upgrade(request))
        } else if *request.method() == Method::CONNECT {
            judge.refuse(
                StatusCode::NOT_IMPLEMENTED,
                "this server offers no such CONNECT over HTTP/2\n",
            )
        } else {
            hyper::service::Service::call(&judge, request)
        };
        StreamAnswering {
            inner: Some(Box::pin(inner)),
            form,
            kept: Some(Kept { link, place, seat }),
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

/// What a stream holds for as long as it is with us. In this order: the link is out of the list
/// before the seat leaves the ledger.
pub(crate) struct Kept {
    pub(crate) link: Arc<Link>,
    place: Place,
    #[allow(dead_code, reason = "held for what its drop does")]
    seat: Arc<Seat>,
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
        // It is large, and hyper moves this from hand to hand.
        inner: Option<Pin<Box<Answering<S>>>>,
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
        let mut response = match ready!(inner.as_mut().poll(cx)) {
            Ok(response) => response,
            Err(never) => match never {},
        };
        // It means nothing here; the connection goes on, or GOAWAY has told.
        response.headers_mut().remove(CONNECTION);
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
            inner: Some(inner).filter(|_| !is_bare),
            filler: None,
            kept,
        };
        Poll::Ready(Ok(response.map(body)))
    }
}

/// An answer that reaches nobody. Its date is one that the encoder does not enter into its table, of which the client's
/// would know nothing.
fn fill<B>(length: usize) -> Response<StreamBody<B>> {
    let mut response = Response::new(StreamBody {
        inner: None,
        filler: Some(Bytes::from(vec![0; length])).filter(|bytes| !bytes.is_empty()),
        kept: None,
    });
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
    pub(crate) struct StreamBody<B> {
        #[pin]
        inner: Option<Answer<B>>,
        filler: Option<Bytes>,
        kept: Option<Held>,
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
        let polled = match this.inner.as_pin_mut() {
            Some(inner) => inner.poll_frame(cx),
            None => {
                let filler = this.filler.take().map(Data::Text);
                Poll::Ready(filler.map(|filler| Ok(Frame::data(filler))))
            }
        };
        if let Some(kept) = this.kept {
            let kept = kept.kept();
            kept.place.carrier().taken();
            let part = match &polled {
                Poll::Ready(Some(Ok(frame))) => frame.data_ref(),
                Poll::Ready(_) | Poll::Pending => None,
            };
            if let Some(part) = part {
                kept.link.entry.add_sent(bytes::Buf::remaining(part));
            }
            // From here on it is the client who is waited for, or the service.
            kept.link.write_blocked(false);
            kept.link.write_blocked(part.is_some());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.filler.is_none() && self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.inner, &self.filler) {
            (Some(inner), _) => inner.size_hint(),
            (None, Some(_)) => SizeHint::default(),
            (None, None) => SizeHint::with_exact(0),
        }
    }
}
