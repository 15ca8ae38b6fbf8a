//! The I/O below hyper's HTTP/1 connection: the socket, and what is to be learned from its bytes.
//!
//! - Bytes that arrive while no request is in flight are the beginning of a head.
//! - An answer is sent when hyper has flushed it: `poll_flush` reaches this layer only with
//!   hyper's own write buffer empty.
//! - What hyper writes while no request is in flight is its own answer to a head that it could
//!   not parse. It is swallowed: ours says more (see `refusal`).
//! - Closing is gentle where input may still arrive: FIN first, then the rest is read and thrown
//!   away, so that the answer is not lost to a reset.
//! - Answers to pipelined requests are held back until hyper has none left to give, and leave in
//!   one write.

use crate::clock;
use crate::http1::scan::Scan;
use crate::link::{Framing, Link, Stage};
use crate::seat::Seat;
use crate::shared::Orders;
use crate::stream::{Bare, Stream};
use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much of pipelined answers is held back at most, in bytes.
const HELD_MOST: usize = 64 << 10;
/// Up to this size, in bytes, a head and its body are copied together: one buffer and `send` cost
/// the kernel less than two and `writev`, by more than the copy.
const GATHERED_MOST: usize = 4 << 10;

#[derive(Debug)]
pub(crate) struct Wire {
    // Before the seat: the socket closes first.
    stream: Stream,
    link: Arc<Link>,
    /// Bytes that were read before this wire was made.
    first: Bytes,
    held: Vec<u8>,
    gathered: Vec<u8>,
    scan: Scan,
    head_bytes: usize,
    /// Bytes since the last head began, and the last four of them.
    run_bytes: u64,
    tail: [u8; 4],
    /// The head being read began at the beginning of a read: all of it passed the scan.
    scan_is_whole: bool,
    /// hyper found nothing to read when it last tried.
    read_blocked: bool,
    /// hyper wrote an answer of its own.
    swallowed: bool,
    closing: Closing,
    /// Shared with a handler that outlives its client.
    pub(crate) seat: Arc<Seat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// FIN is sent; input is thrown away.
    Discarding,
    Done,
}

impl Wire {
    pub(crate) fn new(stream: Stream, link: Arc<Link>, seat: Arc<Seat>, first: Bytes) -> Self {
        link.worker.tally.received(first.len());
        Self {
            stream,
            link,
            first,
            held: Vec::new(),
            gathered: Vec::new(),
            scan: Scan::default(),
            head_bytes: 0,
            run_bytes: 0,
            tail: *b"\r\n\r\n",
            scan_is_whole: false,
            read_blocked: false,
            swallowed: false,
            closing: Closing::No,
            seat,
        }
    }

    /// Puts bytes back that hyper had read and not used: the beginning of a head.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        self.swallowed = false;
        self.read_blocked = false;
        self.first = bytes;
    }

    /// Puts a whole head back that hyper could not parse, for another try.
    pub(crate) fn reread(&mut self, head: Bytes) {
        self.scan = Scan::default();
        self.head_bytes = 0;
        self.run_bytes = 0;
        self.unread(head);
    }

    pub(crate) fn has_first(&self) -> bool {
        !self.first.is_empty()
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The socket alone, for writing to past hyper.
    pub(crate) fn stream_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// How many framing lines the head that was being read has so far; none are known of a head
    /// that follows another in one read.
    pub(crate) fn scanned(&self) -> (u8, u8) {
        if !self.link.is_first_of_run() {
            return (0, 0);
        }
        (self.scan.transfer_encodings, self.scan.content_lengths)
    }

    /// Whether hyper, which failed and left so many bytes unread, took the head out of its buffer
    /// before it judged it: what is left is then no head. Heads that follow others in one read
    /// cannot be told from what comes after them; for those it is true.
    pub(crate) fn is_head_taken(&self, unread: usize) -> bool {
        let behind = self
            .scan
            .head_length()
            .and_then(|head| self.run_bytes.checked_sub(head));
        !self.link.is_first_of_run() || behind == Some(unread as u64)
    }

    /// Takes the socket out: for the lot. Nothing may be unread, unflushed or held.
    pub(crate) fn bare(self) -> (io::Result<Bare>, Arc<Seat>) {
        (self.stream.bare(), self.seat)
    }

    /// Takes the stream out as it is.
    pub(crate) fn into_stream(self) -> (Stream, Arc<Seat>) {
        (self.stream, self.seat)
    }

    fn received(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.link.bytes_read(clock::now()) {
            self.scan_is_whole = self.is_between_requests();
            self.scan = Scan::default();
            self.head_bytes = 0;
            self.run_bytes = 0;
        }
        self.run_bytes += bytes.len() as u64;
        if let Some(tail) = bytes.last_chunk::<4>() {
            self.tail = *tail;
        } else {
            self.tail.rotate_left(bytes.len());
            self.tail[4 - bytes.len()..].copy_from_slice(bytes);
        }
        if self.link.stage() == Stage::Waiting {
            self.head_bytes += bytes.len();
            self.scan.bytes(bytes);
            if self.scan_is_whole {
                self.link.head_seen(self.scan.head());
            }
            let most = self.link.worker.shared.limits.header_bytes;
            if self.head_bytes > most && self.scan.head_length().is_none() {
                self.link.set_head_too_large();
                return Err(io::Error::other("request head too large"));
            }
        }
        Ok(())
    }

    /// Whether the bytes read so far end exactly where the last request did, so that none of the
    /// next head is in hyper's buffer already.
    fn is_between_requests(&self) -> bool {
        match self.link.framing() {
            Framing::SelfEnding => self.tail == *b"\r\n\r\n",
            Framing::Length(length) => self
                .scan
                .head_length()
                .is_some_and(|head| head.checked_add(length) == Some(self.run_bytes)),
            Framing::Unknown => false,
        }
    }

    fn poll_flush_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(self.poll_write_out(cx, None))?;
            self.held.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes `bufs`, or what is held back, to the socket.
    fn poll_write_out(
        &mut self,
        cx: &mut Context<'_>,
        bufs: Option<&[io::IoSlice<'_>]>,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        let polled = match bufs {
            None => stream.poll_write(cx, &self.held),
            Some([one]) => stream.poll_write(cx, one),
            Some(many) if many.iter().map(|buf| buf.len()).sum::<usize>() <= GATHERED_MOST => {
                self.gathered.clear();
                for buf in many {
                    self.gathered.extend_from_slice(buf);
                }
                stream.poll_write(cx, &self.gathered)
            }
            Some(many) => stream.poll_write_vectored(cx, many),
        };
        self.link.write_blocked(polled.is_pending());
        let written = ready!(polled)?;
        if written == 0 && !self.held.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.link.entry.add_sent(written);
        self.link.wire_sent(written);
        Poll::Ready(Ok(written))
    }

    /// Whether this answer waits for the ones that follow it at once.
    fn holds_back(&self) -> bool {
        !self.read_blocked && self.link.is_pipelining() && !self.link.is_switching()
    }

    /// After an upgrade nobody drives this connection but the program; an order to close reaches
    /// it here.
    fn check_severed(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let (entry, orders) = (&self.link.entry, &self.link.worker.shared.orders);
        entry.watch(cx.waker());
        if entry.is_killed() || orders.has(Orders::CUT) {
            // The other half may wait elsewhere: it wakes too.
            self.stream.sever();
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the server closed the connection",
            ));
        }
        Ok(())
    }
}

impl AsyncRead for Wire {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.held.is_empty() {
            ready!(this.poll_flush_held(cx))?;
            this.link.flushed();
        }
        if this.link.is_switching() {
            this.check_severed(cx)?;
        }
        let before = buf.filled().len();
        if this.first.is_empty() {
            let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
            this.read_blocked = polled.is_pending();
            ready!(polled)?;
            this.link.wire_received(buf.filled().len() - before);
        } else {
            let count = this.first.len().min(buf.remaining());
            buf.put_slice(&this.first[..count]);
            this.first.advance(count);
        }
        let bytes = &buf.filled()[before..];
        if !bytes.is_empty() && !this.link.is_switching() {
            this.received(bytes)?;
        }
        Poll::Ready(Ok(()))
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

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let stage = this.link.stage();
        if stage == Stage::Waiting && !this.link.is_switching() {
            this.swallowed = true;
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        if this.link.is_switching() {
            this.check_severed(cx)?;
        }
        if stage == Stage::Answered && this.holds_back() {
            let total: usize = bufs.iter().map(|buf| buf.len()).sum();
            if this.held.len() + total <= HELD_MOST {
                for buf in bufs {
                    this.held.extend_from_slice(buf);
                }
                return Poll::Ready(Ok(total));
            }
        }
        ready!(this.poll_flush_held(cx))?;
        this.poll_write_out(cx, Some(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.held.is_empty() {
            if this.link.stage() == Stage::Answered && this.holds_back() {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_flush_held(cx))?;
        }
        if this.stream.is_tls() {
            let flushed = Pin::new(&mut this.stream).poll_flush(cx);
            this.link.write_blocked(flushed.is_pending());
            ready!(flushed)?;
        }
        this.link.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_flush_held(cx))?;
        if this.swallowed || this.link.is_head_too_large() {
            // The refusal is still to be written.
            return Poll::Ready(Ok(()));
        }
        if this.closing == Closing::No {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.closing = Closing::Discarding;
        }
        if this.closing == Closing::Discarding {
            this.link.shutting_down();
            ready!(poll_discard(
                &mut this.stream,
                cx,
                this.link.closes_gently()
            ))?;
            this.closing = Closing::Done;
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads and throws away what still arrives. If nothing is there and none is expected, it is done
/// at once; else when the peer closes. The connection's task bounds the wait.
pub(crate) fn poll_discard(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    expected: bool,
) -> Poll<io::Result<()>> {
    let mut scrap = [0u8; 4096];
    let mut expected = expected;
    loop {
        let mut buf = ReadBuf::new(&mut scrap);
        match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) if buf.filled().is_empty() => return Poll::Ready(Ok(())),
            Poll::Ready(Ok(())) => expected = true,
            // The peer is gone: that is what we wait for.
            Poll::Ready(Err(_)) => return Poll::Ready(Ok(())),
            Poll::Pending if expected => return Poll::Pending,
            Poll::Pending => return Poll::Ready(Ok(())),
        }
    }
}
