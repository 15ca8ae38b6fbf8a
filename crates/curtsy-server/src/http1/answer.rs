//! The body of an answer on its way to hyper.
//!
//! hyper drops it the moment it needs no more of it: at its end, at once for answers that carry
//! none (HEAD, 204, 304), and when the connection fails. That drop is how the connection knows
//! that the answer is complete.

use crate::link::{Link, Stage};
use crate::note::Note;
use crate::service::BoxError;
use bytes::{Buf, Bytes};
use curtsy_sys::pooled::Pooled;
use http_body::{Body, Frame, SizeHint};
use std::hint::cold_path;
use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

pin_project_lite::pin_project! {
    /// The service's body, or a short text of ours.
    pub(crate) struct Answer<B: Body> {
        #[pin]
        inner: Inner<B>,
        complete: Complete,
    }
}

pin_project_lite::pin_project! {
    #[project = InnerProjection]
    enum Inner<B: Body> {
        Service { #[pin] body: B },
        Settled { body: Pooled<B>, seen: Option<Seen<B::Data>> },
        Text { text: Option<Bytes> },
    }
}

/// What a body gave when it was asked whether it is whole, and the size that it promised.
pub(crate) struct Seen<D> {
    frame: Part<D>,
    size: u64,
}

/// What a body gives when it is asked: the next part of it, or its end.
type Part<D> = Option<Result<Frame<D>, BoxError>>;

/// Says on drop that the answer is complete. A field of its own, because a pinned projection's
/// owner may not implement `Drop`.
///
/// An answer that goes on has its connection's link; one that is asked whether it is whole is lent it.
pub(crate) struct Complete<L: AsRef<Link> = Arc<Link>>(L, Option<Box<Note>>);

impl<L: AsRef<Link>> Drop for Complete<L> {
    #[inline]
    fn drop(&mut self) {
        let link = self.0.as_ref();
        if link.stage() == Stage::Answering {
            link.answered();
        }
    }
}

impl Complete<&Arc<Link>> {
    /// The same for an answer that goes on.
    pub(crate) fn keep(mut self) -> Complete {
        let (link, note) = (self.0.clone(), self.1.take());
        // It is not complete.
        std::mem::forget(self);
        Complete(link, note)
    }

    /// Asks a body for all of it, in one piece of that size, which it promised; or it gave something else, if anything.
    #[inline(always)]
    pub(crate) fn ask<B>(
        &mut self,
        body: &mut Pooled<B>,
        size: u64,
        cx: &mut Context<'_>,
    ) -> Result<B::Data, Option<Seen<B::Data>>>
    where
        B: Body<Error: Into<BoxError>>,
    {
        let frame = match self.poll_frame(body.as_mut(), cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if data.remaining() as u64 == size => return Ok(data),
                Ok(data) => Some(Ok(Frame::data(data))),
                Err(frame) => Some(Ok(frame)),
            },
            Poll::Ready(other) => other,
            Poll::Pending => return Err(None),
        };
        cold_path();
        Err(Some(Seen { frame, size }))
    }
}

impl<L: AsRef<Link>> Complete<L> {
    /// The answer's head is made.
    #[inline(always)]
    pub(crate) fn of(link: L, note: Option<Box<Note>>) -> Self {
        link.as_ref().set_stage(Stage::Answering);
        Self(link, note)
    }

    /// Asks the service's body for the next part of it.
    #[inline(always)]
    fn poll_frame<B>(&mut self, body: Pin<&mut B>, cx: &mut Context<'_>) -> Poll<Part<B::Data>>
    where
        B: Body<Error: Into<BoxError>>,
    {
        // A panic here cuts the answer off: there is no way to take back what went out.
        let polled = catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx)));
        let Ok(polled) = polled else {
            return Poll::Ready(Some(Err(self.panicked())));
        };
        let polled = ready!(polled);
        if let (Some(note), Some(Ok(frame))) = (&mut self.1, &polled) {
            note.sent(frame.data_ref().map_or(0, Buf::remaining));
        }
        Poll::Ready(polled.map(|frame| frame.map_err(Into::into)))
    }

    #[cold]
    fn panicked(&self) -> BoxError {
        let request = self.0.as_ref().entry.straggler(crate::clock::now());
        tracing::error!(
            request = request.map(tracing::field::display),
            "the body of an answer panicked; its connection is cut"
        );
        "the body of the answer panicked".into()
    }
}

impl<B: Body> Answer<B> {
    pub(crate) fn new(body: B, complete: Complete) -> Self {
        Self {
            inner: Inner::Service { body },
            complete,
        }
    }

    /// With a body that stays where it is, and with what it gave when it was asked for all of it.
    pub(crate) fn settled(
        body: Pooled<B>,
        seen: Option<Seen<B::Data>>,
        complete: Complete,
    ) -> Self {
        Self {
            inner: Inner::Settled { body, seen },
            complete,
        }
    }

    pub(crate) fn service(body: B, link: Arc<Link>) -> Self {
        Self::new(body, Complete::of(link, None))
    }

    /// Keeps what is written down of the exchange until it is over.
    pub(crate) fn keep(&mut self, note: Box<Note>) {
        self.complete.1 = Some(note);
    }

    pub(crate) fn text(text: &'static str, link: Arc<Link>) -> Self {
        let text = Some(Bytes::from_static(text.as_bytes())).filter(|text| !text.is_empty());
        Self {
            inner: Inner::Text { text },
            complete: Complete::of(link, None),
        }
    }
}

impl<B> Body for Answer<B>
where
    B: Body<Error: Into<BoxError>>,
{
    type Data = Data<B::Data>;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let this = self.project();
        match this.inner.project() {
            InnerProjection::Text { text } => {
                let text = text.take();
                if let (Some(note), Some(text)) = (&mut this.complete.1, &text) {
                    note.sent(text.len());
                }
                Poll::Ready(text.map(|text| Ok(Frame::data(Data::Text(text)))))
            }
            InnerProjection::Service { body } => of_service(this.complete.poll_frame(body, cx)),
            InnerProjection::Settled { body, seen } => of_service(match seen.take() {
                Some(Seen { frame, .. }) => Poll::Ready(frame),
                None => this.complete.poll_frame(body.as_mut(), cx),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Service { body } => body.is_end_stream(),
            Inner::Settled { body, seen } => seen.is_none() && body.is_end_stream(),
            Inner::Text { text } => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Service { body } => body.size_hint(),
            Inner::Settled { body, seen } => match seen {
                Some(seen) => SizeHint::with_exact(seen.size),
                None => body.size_hint(),
            },
            Inner::Text { text } => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
        }
    }
}

#[inline]
fn of_service<D: Buf>(part: Poll<Part<D>>) -> Poll<Part<Data<D>>> {
    part.map(|part| part.map(|frame| frame.map(|frame| frame.map_data(Data::Service))))
}

/// Bytes of either kind of answer.
pub(crate) enum Data<D> {
    Service(D),
    Text(Bytes),
}

impl<D: Buf> Buf for Data<D> {
    fn remaining(&self) -> usize {
        match self {
            Self::Service(data) => data.remaining(),
            Self::Text(text) => text.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Service(data) => data.chunk(),
            Self::Text(text) => text.chunk(),
        }
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        match self {
            Self::Service(data) => data.chunks_vectored(dst),
            Self::Text(text) => text.chunks_vectored(dst),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Service(data) => data.advance(count),
            Self::Text(text) => text.advance(count),
        }
    }
}
