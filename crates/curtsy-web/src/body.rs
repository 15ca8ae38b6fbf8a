//! The body of a request or an answer: nothing, bytes at hand, hyper's own, or a stream.
//!
//! Bytes and hyper's bodies are held without a box: a request without a body and an answer made of
//! bytes allocate nothing here. Everything is `Send + Sync`, so that `&Context` may be held across
//! an `.await`.

use crate::error::{BoxError, Error};
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use sync_wrapper::SyncWrapper;

/// The body of a request or an answer.
///
/// ```
/// use curtsy_web::Body;
/// use http_body_util::BodyExt;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let body = Body::from("hello");
/// assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
/// # });
/// ```
#[derive(Default)]
pub struct Body(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    Incoming(SyncWrapper<Incoming>, SizeHint),
    Boxed(Boxed),
    /// Was begun to be read, and not to its end: what is left would pass for a whole body.
    Lost(Lost),
}

/// Why a body cannot be read (any more).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lost {
    /// It is larger than so many bytes.
    TooLarge(usize),
    /// Whoever read it gave up, or the client did.
    Unread,
}

impl Lost {
    fn error(self) -> Error {
        match self {
            Self::TooLarge(limit) => Error::too_large(limit),
            Self::Unread => Error::bind("the body was not read to its end"),
        }
    }
}

/// A body behind a pointer. What it says of its size is kept beside it: it cannot be asked through
/// a shared reference.
struct Boxed {
    body: SyncWrapper<Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>>,
    hint: SizeHint,
    ended: bool,
}

impl Body {
    /// No body.
    ///
    /// ```
    /// use http_body::Body as _;
    ///
    /// assert_eq!(curtsy_web::Body::empty().size_hint().exact(), Some(0));
    /// ```
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// Any other body.
    ///
    /// ```
    /// use curtsy_web::Body;
    ///
    /// let of_axum = axum::body::Body::from("hello");
    /// let body = Body::new(of_axum);
    /// ```
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        let mut slot = Some(body);
        // What is known by type needs no box: our own bodies and hyper's.
        let any: &mut dyn Any = &mut slot;
        if let Some(own) = any.downcast_mut::<Option<Self>>() {
            return own.take().unwrap_or_default();
        }
        if let Some(incoming) = any.downcast_mut::<Option<Incoming>>() {
            return incoming.take().map_or_else(Self::empty, |incoming| {
                let hint = http_body::Body::size_hint(&incoming);
                Self(Kind::Incoming(SyncWrapper::new(incoming), hint))
            });
        }
        let Some(body) = slot else {
            return Self::empty();
        };
        let hint = body.size_hint();
        let body = http_body_util::BodyExt::map_err(body, Into::into);
        Self(Kind::Boxed(Boxed {
            body: SyncWrapper::new(Box::pin(body)),
            hint,
            ended: false,
        }))
    }

    /// A body made of a stream's chunks.
    ///
    /// ```
    /// use curtsy_web::Body;
    /// use futures_util::stream;
    ///
    /// let chunks = stream::iter(["a", "b"].map(Ok::<_, std::io::Error>));
    /// let body = Body::from_stream(chunks);
    /// ```
    pub fn from_stream<S, T, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<T, E>> + Send + 'static,
        T: Into<Bytes> + 'static,
        E: Into<BoxError> + 'static,
    {
        use futures_util::TryStreamExt;
        let frames = stream
            .map_ok(|chunk| Frame::data(chunk.into()))
            .map_err(Into::<BoxError>::into);
        Self::new(http_body_util::StreamBody::new(frames))
    }

    /// A body that says why it cannot be read.
    pub(crate) const fn lost(why: Lost) -> Self {
        Self(Kind::Lost(why))
    }

    /// Whether it is made while it is read.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.0, Kind::Boxed(_))
    }

    /// The bytes at hand, if the body is not a stream.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Kind::Empty => Some(&[]),
            Kind::Full(bytes) => Some(bytes),
            Kind::Incoming(..) | Kind::Boxed(_) | Kind::Lost(_) => None,
        }
    }

    /// Adds bytes after those at hand; `false` if the body is a stream.
    pub(crate) fn append(&mut self, more: Bytes) -> bool {
        match &mut self.0 {
            Kind::Empty => self.0 = Kind::Full(more),
            Kind::Full(_) if more.is_empty() => {}
            Kind::Full(bytes) => {
                let mut all = BytesMut::from(std::mem::take(bytes));
                all.extend_from_slice(&more);
                *bytes = all.freeze();
            }
            Kind::Incoming(..) | Kind::Boxed(_) | Kind::Lost(_) => return false,
        }
        true
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                if bytes.is_empty() {
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Incoming(body, hint) => {
                let body = body.get_mut();
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                *hint = http_body::Body::size_hint(&*body);
                if frame.is_none() {
                    self.0 = Kind::Empty;
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Kind::Boxed(boxed) => {
                let body = boxed.body.get_mut();
                let frame = ready!(body.as_mut().poll_frame(cx));
                boxed.hint = body.size_hint();
                boxed.ended = body.is_end_stream();
                if frame.is_none() {
                    self.0 = Kind::Empty;
                }
                Poll::Ready(frame)
            }
            Kind::Lost(why) => Poll::Ready(Some(Err(why.error().into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Incoming(_, hint) => hint.exact() == Some(0),
            Kind::Boxed(boxed) => boxed.ended,
            Kind::Lost(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(_, hint) => *hint,
            Kind::Boxed(boxed) => boxed.hint,
            Kind::Lost(_) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Empty => f.write_str("Body(empty)"),
            Kind::Full(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Kind::Incoming(..) | Kind::Boxed(_) => f.write_str("Body(stream)"),
            Kind::Lost(_) => f.write_str("Body(lost)"),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            return Self::empty();
        }
        Self(Kind::Full(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}
