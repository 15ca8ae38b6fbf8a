//! The body of a request, as a service gets it.
//!
//! It knows its connection: so that the server sees when it was read to its end, keeps what the
//! handler left of it, and bounds how long it may stand still; and so that a service that knows
//! Curtsy learns of its client without the cost of request extensions.

use crate::link::{BodyFault, Link};
use bytes::Bytes;
use curtsy_lifecycle::ConnectionInfo;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The body of a request.
///
/// It is an [`http_body::Body`] of [`Bytes`]; read it with the combinators of `http_body_util`.
///
/// Dropping it before its end is fine: what is left is read and thrown away if it is little, and
/// the connection closes after the answer if it is much.
///
/// Cancel safety: dropping a future that reads a frame loses nothing; the next one reads it.
pub struct Body {
    kind: Kind,
    link: Option<Arc<Link>>,
    read: u64,
    /// No more than this, in bytes.
    most: u64,
}

enum Kind {
    Empty,
    Whole(Option<Bytes>),
    Incoming(Incoming),
}

impl Body {
    /// A body of no bytes, of no connection.
    pub const fn empty() -> Self {
        Self {
            kind: Kind::Empty,
            link: None,
            read: 0,
            most: u64::MAX,
        }
    }

    /// Of a request that has none.
    pub(crate) const fn none(link: Arc<Link>) -> Self {
        Self {
            kind: Kind::Empty,
            link: Some(link),
            read: 0,
            most: u64::MAX,
        }
    }

    /// Of a request that has arrived to its end.
    #[inline]
    pub(crate) fn whole(bytes: Bytes, link: Arc<Link>) -> Self {
        if bytes.is_empty() {
            return Self::none(link);
        }
        let most = link.worker.shared.limits.request_body_bytes;
        Self {
            kind: Kind::Whole(Some(bytes)),
            most: most.unwrap_or(u64::MAX),
            link: Some(link),
            read: 0,
        }
    }

    pub(crate) fn incoming(incoming: Incoming, link: Arc<Link>) -> Self {
        if !incoming.is_end_stream() {
            link.body_opened();
        }
        Self {
            kind: Kind::Incoming(incoming),
            most: link
                .worker
                .shared
                .limits
                .request_body_bytes
                .unwrap_or(u64::MAX),
            link: Some(link),
            read: 0,
        }
    }

    /// Bounds it to so many bytes: for a route that takes less than the server does
    /// ([`Limits::request_body_bytes`](crate::Limits::request_body_bytes), which stays in force).
    /// A longer one fails as soon as its length is known, and its request is answered with 413,
    /// whatever the service answers.
    ///
    /// ```
    /// use curtsy_server::Body;
    /// use http_body_util::BodyExt;
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let body = Body::from("four").limit(3);
    /// assert!(body.collect().await.unwrap_err().is_too_large());
    /// # });
    /// ```
    #[must_use]
    pub fn limit(mut self, bytes: u64) -> Self {
        self.most = self.most.min(bytes);
        self
    }

    /// The connection that brought the request; `None` if the body was made by hand.
    pub fn connection(&self) -> Option<ConnectionInfo> {
        self.link.as_ref().map(|link| link.info())
    }

    fn fault(&mut self, fault: BodyFault) -> BodyError {
        self.kind = Kind::Empty;
        if let Some(link) = &self.link {
            link.body_failed(fault);
        }
        BodyError { fault, cause: None }
    }

    fn ended(&mut self) {
        self.kind = Kind::Empty;
        if let Some(link) = &self.link {
            link.body_ended();
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self {
            kind: Kind::Whole(Some(bytes)),
            link: None,
            read: 0,
            most: u64::MAX,
        }
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

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let expected = this.read.saturating_add(this.size_hint().lower());
        if expected > this.most
            && this
                .link
                .as_ref()
                .is_none_or(|link| link.body_fault().is_none())
        {
            return Poll::Ready(Some(Err(this.fault(BodyFault::TooLarge))));
        }
        let incoming = match &mut this.kind {
            Kind::Empty => return Poll::Ready(None),
            Kind::Whole(bytes) => {
                let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                return Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))));
            }
            Kind::Incoming(incoming) => incoming,
        };
        if let Some(link) = &this.link
            && let Some(fault) = link.body_fault()
        {
            return Poll::Ready(Some(Err(this.fault(fault))));
        }
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        if polled.is_pending()
            && let Some(link) = &this.link
        {
            link.body_waits(cx.waker());
        }
        let frame = ready!(polled);
        if let Some(link) = &this.link {
            link.body_moved();
        }
        let ended = incoming.is_end_stream();
        match frame {
            None => {
                this.ended();
                Poll::Ready(None)
            }
            Some(Err(cause)) => {
                let mut error = this.fault(BodyFault::Framing);
                error.cause = Some(cause);
                Poll::Ready(Some(Err(error)))
            }
            Some(Ok(frame)) => {
                this.read += frame.data_ref().map_or(0, |data| data.len() as u64);
                if this.read > this.most {
                    return Poll::Ready(Some(Err(this.fault(BodyFault::TooLarge))));
                }
                if ended {
                    this.ended();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Kind::Incoming(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Kind::Incoming(incoming) => incoming.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Kind::Incoming(incoming) = std::mem::replace(&mut self.kind, Kind::Empty)
            && let Some(link) = &self.link
            && !incoming.is_end_stream()
        {
            link.leave_body(incoming);
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("read", &self.read)
            .field("size_hint", &self.size_hint())
            .finish_non_exhaustive()
    }
}

/// Why a request's body could not be read to its end.
#[derive(Debug)]
pub struct BodyError {
    fault: BodyFault,
    cause: Option<hyper::Error>,
}

impl BodyError {
    /// Its framing is broken, or the client went away in the middle of it.
    pub fn is_broken(&self) -> bool {
        self.fault == BodyFault::Framing
    }

    /// It is larger than [`Limits::request_body_bytes`](crate::Limits::request_body_bytes).
    pub fn is_too_large(&self) -> bool {
        self.fault == BodyFault::TooLarge
    }

    /// It stood still for longer than [`Limits::body_stall`](crate::Limits::body_stall), or the
    /// whole request took longer than [`Limits::read_timeout`](crate::Limits::read_timeout).
    pub fn is_timeout(&self) -> bool {
        self.fault == BodyFault::TimedOut
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.fault {
            BodyFault::Framing => "the request's body is broken",
            BodyFault::TooLarge => "the request's body is too large",
            BodyFault::TimedOut => "the request's body did not arrive in time",
        })
    }
}

impl StdError for BodyError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::Body;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn made_by_hand() {
        let body = Body::from("four");
        assert!(body.connection().is_none());
        assert_eq!(body.collect().await.unwrap().to_bytes(), "four");
        assert!(Body::empty().collect().await.unwrap().to_bytes().is_empty());
    }
}
