//! The I/O below hyper's HTTP/2 connection: the socket, and what is to be learned from its frames.

use crate::clock;
use crate::http1::poll_discard;
use crate::http2::carrier::Carrier;
use crate::http2::flood::Budget;
use crate::http2::frames::Frames;
use crate::seat::Seat;
use crate::stream::Stream;
use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The length of what a client says before its first frame, in bytes.
const PREFACE: usize = 24;

#[derive(Debug)]
pub(crate) struct Wire {
    // Before the seat: the socket closes first.
    stream: Stream,
    carrier: Arc<Carrier>,
    /// Bytes that were read before this wire was made.
    first: Bytes,
    incoming: Frames,
    outgoing: Frames,
    budget: Budget,
    said_goodbye: bool,
    _seat: Arc<Seat>,
}

impl Wire {
    pub(crate) fn new(
        stream: Stream,
        carrier: Arc<Carrier>,
        seat: Arc<Seat>,
        first: Bytes,
    ) -> Self {
        let most = carrier.link.worker.shared.limits.http2.idle_frames;
        Self {
            stream,
            carrier,
            first,
            incoming: Frames::after(PREFACE),
            outgoing: Frames::after(0),
            budget: Budget::new(most, clock::now()),
            said_goodbye: false,
            _seat: seat,
        }
    }

    fn received(&mut self, bytes: &[u8]) -> io::Result<()> {
        let now = clock::now();
        self.carrier.link.wire_received(bytes.len());
        let (budget, carrier) = (&mut self.budget, &self.carrier);
        let (mut is_allowed, mut is_greeted) = (true, true);
        self.incoming.feed(bytes, |frame| {
            is_allowed &= budget.allows(frame, now);
            is_greeted &= carrier.is_greeted() || frame.is_greeting();
            carrier.received(frame, now);
        });
        if !is_greeted {
            // It does not speak HTTP/2, so that a GOAWAY would say nothing to it.
            return Err(io::Error::other("the first frame is not SETTINGS"));
        }
        if is_allowed {
            return Ok(());
        }
        tracing::debug!(peer = %carrier.link.entry.peer(), "a flood of frames; closed");
        Err(io::Error::other("a flood of frames"))
    }

    fn written(&mut self, bufs: &[io::IoSlice<'_>], mut count: usize) {
        let now = clock::now();
        self.carrier.link.wire_sent(count);
        self.budget.sent(count);
        for buf in bufs {
            let part = &buf[..count.min(buf.len())];
            count -= part.len();
            let carrier = &self.carrier;
            self.outgoing.feed(part, |frame| carrier.sent(frame, now));
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.first.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        } else {
            let count = this.first.len().min(buf.remaining());
            buf.put_slice(&this.first[..count]);
            this.first.advance(count);
            if this.first.is_empty() {
                // An empty rest would keep the whole buffer that it was cut from.
                this.first = Bytes::new();
            }
        }
        Poll::Ready(this.received(&buf.filled()[before..]))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.carrier.link.write_blocked(polled.is_pending());
        let count = ready!(polled)?;
        this.written(bufs, count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        if this.stream.is_tls() {
            this.carrier.link.write_blocked(polled.is_pending());
        }
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.carrier.link.shutting_down();
        if !this.said_goodbye {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.said_goodbye = true;
        }
        // What the client still sends, window updates most of the time, must not reset what it
        // has not read yet.
        poll_discard(&mut this.stream, cx, false)
    }
}
