//! The I/O below hyper's HTTP/1 connection: the socket, and what is to be learned from its bytes.
//!
//! - Bytes that arrive while no request is in flight are the beginning of a head. hyper gets the
//!   bytes of one request at a time (see `framing`); what comes behind them waits here.
//! - An answer is sent when hyper has flushed it: `poll_flush` reaches this layer only with
//!   hyper's own write buffer empty.
//! - What hyper writes while no request is in flight is its own answer to a head that it could
//!   not parse. It is swallowed: ours says more (see `refusal`).
//! - Closing is gentle where input may still arrive: FIN first, then the rest is read and thrown
//!   away, so that the answer is not lost to a reset.
//! - Answers to pipelined requests are held back while more of them wait here, and leave in one
//!   write.
//! - hyper reads nothing while a request is in flight that is read to its end; whether its client
//!   is still there is seen here, where it costs no buffer.

use crate::clock;
use crate::hint::unlikely;
use crate::http1::framing::Framing;
use crate::lingering::Lingering;
use crate::link::{BodyFault, Link, Stage};
use crate::resident::Place;
use crate::seat::Seat;
use crate::shared::Orders;
use crate::stream::{Bare, Received, Stream};
use bytes::{Buf, Bytes, BytesMut};
use curtsy_lifecycle::Moment;
use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::has_budget_remaining;

/// How much of pipelined answers is held back at most, in bytes.
const HELD_MOST: usize = 64 << 10;

/// An answer that leaves in such pieces is large, in bytes: to copy it costs more than to write it
/// from where it is.
pub(crate) const LARGE: usize = 16 << 10;

/// How much is read at most while a request is in flight, in bytes: most heads fit.
const AHEAD_MOST: usize = 2 << 10;

/// What each request touches comes first, side by side: see [`Talk`](super::connection::Talk).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Wire {
    // Before the seat: the socket closes first.
    stream: Stream,
    link: Arc<Link>,
    /// Bytes that were read from the socket and not yet asked for.
    first: Bytes,
    held: Vec<u8>,
    /// How many requests the connection had had when hyper last had nothing left to write and
    /// the answer was complete.
    handed_over: u64,
    framing: Framing,
    /// hyper wrote an answer of its own.
    swallowed: bool,
    /// hyper is to write from where things are, and copies nothing together.
    vectored: bool,
    closing: Closing,
    lingering: Lingering,
    /// Shared with a handler that outlives its client.
    pub(crate) seat: Arc<Seat>,
}

impl Wire {
    /// How much of it a request touches, in bytes from its beginning.
    pub(crate) const TOUCHED: usize = offset_of!(Self, framing) + Framing::TOUCHED;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// The output ends; input is thrown away.
    Lingering,
    Done,
}

impl Wire {
    pub(crate) fn new(stream: Stream, link: Arc<Link>, seat: Arc<Seat>, first: Bytes) -> Self {
        if !first.is_empty() {
            link.worker.tally.received(first.len());
            link.bytes_read(clock::now());
        }
        Self {
            stream,
            link,
            first,
            held: Vec::new(),
            framing: Framing::default(),
            handed_over: 0,
            swallowed: false,
            vectored: false,
            closing: Closing::No,
            lingering: Lingering::default(),
            seat,
        }
    }

    /// For answers like the last, which was large. hyper asks once, when it begins.
    pub(crate) fn write_vectored(&mut self) {
        self.vectored = true;
    }

    /// Puts bytes back that hyper had read and not used: a head, or the beginning of one.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        self.swallowed = false;
        self.framing.restart();
        self.link.forget_head();
        self.first = self.all_unread(bytes);
    }

    /// What hyper had read and not used, and what waits behind it.
    pub(crate) fn all_unread(&mut self, bytes: Bytes) -> Bytes {
        let behind = std::mem::take(&mut self.first);
        match (bytes.is_empty(), behind.is_empty()) {
            (_, true) => bytes,
            (true, false) => behind,
            (false, false) => [bytes, behind].concat().into(),
        }
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// What was read and not yet asked for, if anything was.
    #[inline(always)]
    pub(crate) fn take_first(&mut self) -> Option<Bytes> {
        unlikely(!self.first.is_empty()).then(|| std::mem::take(&mut self.first))
    }

    /// Keeps what is to be asked for next; nothing may be there.
    #[inline(always)]
    pub(crate) fn keep_first(&mut self, bytes: Bytes) {
        self.first = bytes;
    }

    /// Some of an answer is to be sent before anything else.
    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Reads past hyper what has arrived, as much as fits; 0 at the end. The first time that a task does so it was `woken`.
    #[inline(always)]
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        woken: bool,
    ) -> Poll<io::Result<usize>> {
        let polled = self.stream.poll_receive(cx, input, woken);
        if let Poll::Ready(Ok(count)) = &polled {
            self.link.wire_received(*count);
        }
        polled
    }

    /// Ready when hyper has something to do: bytes to read, or the end.
    pub(crate) fn poll_spoken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.first.is_empty() {
            return Poll::Ready(());
        }
        match self.stream.receive() {
            Received::Bytes(first) => {
                self.link.wire_received(first.len());
                self.first = first;
                Poll::Ready(())
            }
            Received::Ended => Poll::Ready(()),
            Received::Nothing => self.stream.poll_read_ready(cx).map(|_| ()),
        }
    }

    /// The same as [`Self::send`] does with one that is not the last, in short where the socket takes all of it. The answer
    /// was made `now`.
    #[inline(always)]
    pub(crate) fn send_all(&mut self, cx: &mut Context<'_>, bytes: &[u8], now: Moment) -> bool {
        if unlikely(!self.held.is_empty() || bytes.is_empty()) {
            return self.send(cx, &mut [io::IoSlice::new(bytes)], false);
        }
        let sent = self.stream.try_send(bytes).unwrap_or(0);
        if sent > 0 {
            // Told what came of it.
            let _ = self.wrote(Poll::Ready(Ok(sent)));
        }
        if unlikely(sent < bytes.len()) {
            return self.send(cx, &mut [io::IoSlice::new(&bytes[sent..])], false);
        }
        if self.link.stage() == Stage::Answered {
            self.handed_over = self.link.entry.served();
        }
        self.flushed(Some(now));
        true
    }

    /// Sends past hyper what answers the requests that were called last; whether the socket took all of it. What it did
    /// not take is held, and leaves before anything of hyper's. With what `is_last` the output ends: before anybody looks
    /// whether the client has sent more, for to close over that would reset the connection and what is kept back on it.
    #[inline]
    pub(crate) fn send(
        &mut self,
        cx: &mut Context<'_>,
        mut bufs: &mut [io::IoSlice<'_>],
        is_last: bool,
    ) -> bool {
        io::IoSlice::advance_slices(&mut bufs, 0);
        while self.held.is_empty() && !bufs.is_empty() {
            let stream = &mut self.stream;
            let polled = match &*bufs {
                [only] if is_last => stream.poll_write_more(cx, only),
                [only] => Pin::new(stream).poll_write(cx, only),
                _ => Pin::new(stream).poll_write_vectored(cx, bufs),
            };
            match self.wrote(polled) {
                Poll::Ready(Ok(count @ 1..)) => io::IoSlice::advance_slices(&mut bufs, count),
                // If it is broken, whoever tries again learns of it.
                Poll::Ready(Ok(0) | Err(_)) | Poll::Pending => break,
            }
        }
        bufs.iter().for_each(|buf| self.held.extend_from_slice(buf));
        if self.link.stage() == Stage::Answered {
            self.handed_over = self.link.entry.served();
        }
        if !self.held.is_empty() {
            return false;
        }
        if self.stream.is_tls() && !matches!(self.poll_flush_tls(cx), Poll::Ready(Ok(()))) {
            return false;
        }
        if is_last && !self.stream.is_tls() {
            self.stream.end_output();
        }
        self.flushed(None);
        true
    }

    /// Sends bytes, and `resident` behind them, which lie in `place` and of which the kernel makes no copy. What it does
    /// not take is held.
    pub(crate) fn send_resident(
        &mut self,
        cx: &mut Context<'_>,
        before: &[u8],
        resident: &[u8],
        mut place: Place,
    ) {
        let (mut before, mut resident) = (before, resident);
        while self.held.is_empty() && !(before.is_empty() && resident.is_empty()) {
            let polled = match before.is_empty() {
                false => self.stream.poll_write_more(cx, before),
                true => self.stream.poll_send_resident(cx, &place, resident.len()),
            };
            let Poll::Ready(Ok(count @ 1..)) = self.wrote(polled) else {
                break;
            };
            if before.is_empty() {
                place.offset += count as u64;
                resident = &resident[count..];
            } else {
                before = &before[count..];
            }
        }
        self.held.extend_from_slice(before);
        self.held.extend_from_slice(resident);
    }

    /// What is encrypted leaves in pieces of its own.
    fn poll_flush_tls(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.link.write_blocked(flushed.is_pending());
        flushed
    }

    /// Whether nothing is held, and nothing more has arrived or is expected, so that to close the socket says all there is
    /// to say.
    #[inline]
    pub(crate) fn is_done(&mut self, cx: &mut Context<'_>) -> bool {
        self.held.is_empty()
            && !self.stream.is_tls()
            && !self.link.closes_gently()
            && self.stream.is_silent(cx)
            && has_budget_remaining()
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The socket alone, for writing to past hyper.
    pub(crate) fn stream_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// How many framing lines the head has that was read last.
    pub(crate) fn framing_lines(&self) -> (u8, u8) {
        self.framing.lines()
    }

    /// Whether hyper, which failed and left so many bytes unread, took the head out of its buffer
    /// before it judged it: what is left is then no head.
    pub(crate) fn is_head_taken(&self, unread: usize) -> bool {
        self.framing.bytes() != unread as u64
    }

    /// Takes the socket out: for the lot. Nothing may be unread, unflushed or held.
    pub(crate) fn bare(self) -> (io::Result<Bare>, Arc<Seat>) {
        (self.stream.bare(), self.seat)
    }

    /// Takes the stream out as it is.
    pub(crate) fn into_stream(self) -> (Stream, Arc<Seat>) {
        (self.stream, self.seat)
    }

    /// Says how many of these bytes, the next on the wire, hyper gets now; none while a request is
    /// in flight that they are not of.
    #[inline]
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let link = &self.link;
        self.framing.settle(|| link.body_length());
        if self.framing.is_at_end() {
            if is_in_flight(link.stage()) {
                // hyper does not see the end of a request that we see: it waits in vain.
                return Ok(0);
            }
            if link.is_head_due() {
                // hyper does not see the end of a head that we see.
                return Err(io::Error::other("the end of a head is in doubt"));
            }
            self.framing.restart();
        }
        let was_in_head = self.framing.is_in_head();
        if was_in_head {
            link.head_arrives();
        }
        let taken = self.framing.take(bytes);
        if taken == 0 && self.framing.is_malformed() {
            link.body_failed(BodyFault::Framing);
            return Err(io::Error::other("malformed chunks"));
        }
        if was_in_head {
            let most = link.worker.shared.limits.header_bytes as u64;
            if !self.framing.is_in_head() {
                link.head_seen(self.framing.head());
            } else if self.framing.bytes() > most {
                link.set_head_too_large();
                return Err(io::Error::other("request head too large"));
            }
        }
        Ok(taken)
    }

    /// Looks whether the client is still there while its request is answered: hyper does not (see
    /// `converse`). What it has sent meanwhile waits for its turn.
    #[inline]
    fn watch(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let link = &self.link;
        self.framing.settle(|| link.body_length());
        if !self.first.is_empty() || !self.framing.is_at_end() || self.link.outlives() {
            return Ok(());
        }
        let mut ahead = [const { MaybeUninit::uninit() }; AHEAD_MOST];
        let mut buf = ReadBuf::uninit(&mut ahead);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buf)? {
            Poll::Pending => Ok(()),
            Poll::Ready(()) if buf.filled().is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(()) => {
                self.link.wire_received(buf.filled().len());
                self.link.sends_ahead();
                self.first = Bytes::copy_from_slice(buf.filled());
                Ok(())
            }
        }
    }

    /// The last answer is complete, and hyper has none of it left.
    fn is_handed_over(&self) -> bool {
        self.link.stage() == Stage::Answered && self.handed_over == self.link.entry.served()
    }

    /// Everything written so far has gone to the kernel.
    #[inline(always)]
    fn flushed(&self, now: Option<Moment>) {
        self.link.flushed(now);
        if unlikely(self.framing.is_amid_head()) {
            // It began before the last answer had left.
            self.link.head_arrives();
        }
    }

    /// Writes what is held back.
    pub(crate) fn poll_flush_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(self.poll_write_out(cx, None))?;
            self.held.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes `bytes`, or what is held back, to the socket.
    fn poll_write_out(
        &mut self,
        cx: &mut Context<'_>,
        bytes: Option<&[u8]>,
    ) -> Poll<io::Result<usize>> {
        let bytes = bytes.unwrap_or(&self.held);
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        let written = ready!(self.wrote(polled))?;
        if written == 0 && !self.held.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(written))
    }

    /// Notes what became of a write to the socket.
    #[inline(always)]
    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.link.write_blocked(polled.is_pending());
        let written = ready!(polled)?;
        self.link.entry.add_sent(written);
        self.link.wire_sent(written);
        Poll::Ready(Ok(written))
    }

    /// What happens to bytes of hyper's before they go to the socket; ready if they do not.
    #[inline]
    fn poll_keep(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
        count: usize,
    ) -> Poll<io::Result<()>> {
        let stage = self.link.stage();
        let is_hypers_own =
            stage == Stage::Waiting || self.link.is_head_due() && self.is_handed_over();
        if is_hypers_own && !self.link.is_switching() {
            self.swallowed = true;
            return Poll::Ready(Ok(()));
        }
        if self.link.is_switching() {
            self.check_severed(cx)?;
        }
        // With others before it, the last of them is held back until the flush, too.
        if stage == Stage::Answered
            && (!self.held.is_empty() || self.holds_back())
            && self.held.len() + count <= HELD_MOST
        {
            bufs.iter().for_each(|buf| self.held.extend_from_slice(buf));
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Whether this answer waits for the ones that follow it at once.
    fn holds_back(&self) -> bool {
        let another_comes =
            self.link.is_head_due() || !self.first.is_empty() && self.framing.is_at_end();
        another_comes && !self.link.was_asked_to_switch()
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
        if this.link.is_switching() {
            this.check_severed(cx)?;
        }
        let before = buf.filled().len();
        if this.first.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let bytes = &buf.filled()[before..];
            this.link.wire_received(bytes.len());
            if bytes.is_empty() || this.link.is_switching() {
                return Poll::Ready(Ok(()));
            }
            this.link.bytes_read(clock::now());
            let taken = this.take(bytes)?;
            if taken < bytes.len() {
                this.first = Bytes::copy_from_slice(&bytes[taken..]);
                buf.set_filled(before + taken);
            }
        } else {
            let mut first = std::mem::take(&mut this.first);
            // Its time runs from when it is its turn.
            this.link.bytes_read(clock::now());
            let next = &first[..first.len().min(buf.remaining())];
            let taken = match this.link.is_switching() {
                true => next.len(),
                false => this.take(next)?,
            };
            buf.put_slice(&next[..taken]);
            first.advance(taken);
            this.first = first;
        }
        if buf.filled().len() == before {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Poll::Ready(kept) = this.poll_keep(cx, &[io::IoSlice::new(bytes)], bytes.len()) {
            return Poll::Ready(kept.map(|()| bytes.len()));
        }
        ready!(this.poll_flush_held(cx))?;
        if bytes.len() >= LARGE {
            this.link.set_large();
        }
        this.poll_write_out(cx, Some(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = bufs.iter().map(|buf| buf.len()).sum();
        if let Poll::Ready(kept) = this.poll_keep(cx, bufs, count) {
            return Poll::Ready(kept.map(|()| count));
        }
        ready!(this.poll_flush_held(cx))?;
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.wrote(polled)
    }

    /// As a rule hyper copies head and body together: a small answer is then one buffer for the
    /// kernel and for us, which costs less than two.
    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let stage = this.link.stage();
        if stage == Stage::Answered {
            this.handed_over = this.link.entry.served();
        }
        if !this.held.is_empty() {
            if stage == Stage::Answered && this.holds_back() {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_flush_held(cx))?;
        }
        // After what was held is out: it answers requests that were there before the client went.
        if this.link.is_switching() {
            // Whoever gets it may use it where no runtime is.
            this.stream.watch()?;
        } else if is_in_flight(stage) {
            this.watch(cx)?;
        }
        if this.stream.is_tls() {
            ready!(this.poll_flush_tls(cx))?;
        }
        this.flushed(None);
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
            this.closing = match this.is_done(cx) && this.stream.unsent() == 0 {
                // To close it says the same.
                true => Closing::Done,
                false => Closing::Lingering,
            };
        }
        if this.closing == Closing::Lingering {
            let (link, expected) = (&this.link, this.link.closes_gently());
            ready!((this.lingering).poll(&mut this.stream, link, cx, expected))?;
            this.closing = Closing::Done;
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether a request is with the service, or some of its answer still is.
fn is_in_flight(stage: Stage) -> bool {
    matches!(stage, Stage::Called | Stage::Answering)
}
