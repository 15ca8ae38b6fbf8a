//! The I/O below hyper's HTTP/2 connection: the socket, and what is to be learned from its frames.

use crate::clock;
use crate::http2::blame::{Before, Blame};
use crate::http2::carrier::Carrier;
use crate::http2::carrier::Left;
use crate::http2::flood::Budget;
use crate::http2::frames::{self, Frame, Frames};
use crate::http2::memory::{Memory, PREFACE, SHOWN_ON};
use crate::http2::open::Open;
use crate::lingering::Lingering;
use crate::seat::Seat;
use crate::stream::Stream;
use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Debug)]
pub(crate) struct Wire {
    /// There until this is dropped.
    kept: Option<Left>,
    carrier: Arc<Carrier>,
    introducing: Option<Box<Introducing>>,
    /// To be written before what the engine writes.
    ahead: Vec<u8>,
    /// Bytes that were read before this wire was made.
    first: Bytes,
    incoming: Frames,
    outgoing: Frames,
    open: Open,
    blame: Blame,
    receipt: Receipt,
    /// How much the kernel had still to send when that was last looked at, in bytes.
    unsent: usize,
    lingering: Lingering,
}

/// Whether the client has all that its streams were sent: it answers a PING behind the last of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receipt {
    Confirmed,
    Asked,
    Unknown,
}

/// A new engine is told what the one before it knew.
#[derive(Debug)]
struct Introducing {
    /// What it has not read of it yet.
    told: Bytes,
    /// What it says, of which nothing is sent.
    said: Frames,
    stream: u32,
    /// What is to come of its answers: the stream's end, its settings, the acknowledgement of the client's, its window,
    /// and the reset of the stream on which fields are shown.
    awaited: u8,
    reader: Option<Waker>,
}

const END: u8 = 1;
const SETTINGS: u8 = 2;
const ACKNOWLEDGEMENT: u8 = 4;
const OPEN_WINDOW: u8 = 8;
const RESET: u8 = 16;
const REFUSAL: u8 = 128;

impl Wire {
    /// With a new engine above it: one that begins, or one that goes on from what is in `memory`.
    pub(crate) fn new(
        stream: Stream,
        carrier: Arc<Carrier>,
        seat: Arc<Seat>,
        first: Bytes,
        memory: Option<Box<Memory>>,
    ) -> Self {
        let limits = &carrier.link.worker.shared.limits.http2;
        let introducing = memory.as_deref().map(|memory| {
            carrier.introduce(memory.deficit());
            Box::new(Introducing::new(memory))
        });
        let preface = match introducing {
            None => PREFACE.len(),
            Some(_) => 0,
        };
        let memory = memory.unwrap_or_else(|| {
            let budget = Budget::new(limits.idle_frames, clock::now());
            Box::new(Memory::new(budget))
        });
        Self {
            open: Open::after(memory.newest()),
            kept: Some(Left {
                stream,
                memory,
                seat,
            }),
            carrier,
            introducing,
            ahead: Vec::new(),
            first,
            incoming: Frames::after(preface),
            outgoing: Frames::after(0),
            blame: Blame::default(),
            receipt: Receipt::Confirmed,
            unsent: 0,
            lingering: Lingering::default(),
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Stream>> {
        let kept = self.kept.as_mut();
        let kept = kept.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        Ok(Pin::new(&mut kept.stream))
    }

    fn received(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(kept) = &mut self.kept else {
            return Ok(());
        };
        let now = clock::now();
        self.carrier.read(now);
        self.carrier.link.wire_received(bytes.len());
        let (memory, carrier, blame) = (&mut *kept.memory, &self.carrier, &mut self.blame);
        let (open, receipt) = (&mut self.open, &mut self.receipt);
        let (mut is_allowed, mut is_greeted) = (true, true);
        self.incoming.feed(bytes, |frame| {
            is_allowed &= memory.budget.allows(frame, now);
            is_greeted &= carrier.is_greeted() || frame.is_greeting();
            let before = Before {
                in_block: carrier.headers_since().is_some(),
                half_closed: frame.is_request()
                    && frame.stream <= memory.newest()
                    && open.is_half_closed(frame.stream),
            };
            blame.received(frame, before);
            if *receipt == Receipt::Asked && frame.is_pong() {
                *receipt = Receipt::Confirmed;
            }
            memory.received(frame);
            carrier.received(frame, open, now);
        });
        memory.read(bytes, blame);
        self.look_whether_calm();
        if !is_greeted {
            // It does not speak HTTP/2, so that a GOAWAY would say nothing to it.
            return Err(io::Error::other("the first frame is not SETTINGS"));
        }
        if is_allowed {
            return Ok(());
        }
        let peer = self.carrier.link.entry.peer();
        tracing::debug!(%peer, "a flood of frames; closed");
        Err(io::Error::other("a flood of frames"))
    }

    fn written(&mut self, bufs: &[io::IoSlice<'_>], mut count: usize) {
        let Some(kept) = &mut self.kept else { return };
        let now = clock::now();
        self.carrier.link.wire_sent(count);
        let (memory, carrier, open) = (&mut *kept.memory, &self.carrier, &mut self.open);
        let receipt = &mut self.receipt;
        memory.budget.sent(count);
        for buf in bufs {
            let part = &buf[..count.min(buf.len())];
            count -= part.len();
            self.outgoing.feed(part, |frame| {
                match frame.kind {
                    frames::DATA | frames::HEADERS => *receipt = Receipt::Unknown,
                    frames::PING if !frame.is_pong() => *receipt = Receipt::Asked,
                    _ => {}
                }
                memory.sent(frame);
                carrier.sent(frame, open, now);
            });
        }
        self.look_whether_calm();
    }

    fn look_whether_calm(&self) {
        let limits = &self.carrier.link.worker.shared.limits;
        let window = limits.http2.connection_window_bytes;
        let is_calm = self.incoming.is_between()
            && self.outgoing.is_between()
            && self.first.is_empty()
            && (self.kept.as_ref())
                .is_some_and(|kept| kept.memory.is_enough(limits.header_bytes, window));
        self.carrier.set_calm(is_calm);
    }

    /// The client need not say anything while it takes what it was sent.
    fn look_whether_taken(&mut self) {
        let unsent = self.kept.as_ref().map_or(0, |kept| kept.stream.unsent());
        if unsent < self.unsent {
            self.carrier.client_takes(clock::now());
        }
        self.unsent = unsent;
    }

    /// Tells a new engine what there is to tell, and nothing that the client says before the engine has answered.
    fn poll_introduction(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<()> {
        let Some(introducing) = &mut self.introducing else {
            return Poll::Ready(());
        };
        if introducing.told.is_empty() {
            introducing.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = introducing.told.len().min(buf.remaining());
        buf.put_slice(&introducing.told[..count]);
        introducing.told.advance(count);
        Poll::Ready(())
    }

    /// Takes what a new engine answers to what it was told.
    fn answered(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let Some(introducing) = &mut self.introducing else {
            return Ok(0);
        };
        bufs.iter().for_each(|buf| introducing.heard(buf));
        if introducing.awaited & REFUSAL != 0 {
            let why = "a resting connection could not be taken up again";
            tracing::error!(peer = %self.carrier.link.entry.peer(), "{why}");
            return Err(io::Error::other(why));
        }
        if introducing.awaited == 0 && introducing.said.is_between() {
            let reader = introducing.reader.take();
            self.introducing = None;
            self.carrier.introduced();
            if let Some(kept) = &mut self.kept {
                let limits = &self.carrier.link.worker.shared.limits;
                let window = limits.http2.connection_window_bytes;
                self.ahead = kept.memory.open_window(window);
            }
            reader.into_iter().for_each(Waker::wake);
        }
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.ahead.is_empty() {
            let ahead = std::mem::take(&mut self.ahead);
            let polled = self.stream()?.poll_write(cx, &ahead);
            self.ahead = ahead;
            self.carrier.link.write_blocked(polled.is_pending());
            let count = ready!(polled)?;
            self.carrier.link.wire_sent(count);
            self.ahead.drain(..count);
        }
        Poll::Ready(Ok(()))
    }
}

impl Introducing {
    fn new(memory: &Memory) -> Self {
        let fields = if memory.shows_fields() { RESET } else { 0 };
        Self {
            told: memory.introduction().into(),
            said: Frames::after(0),
            stream: memory.newest(),
            awaited: END | SETTINGS | ACKNOWLEDGEMENT | OPEN_WINDOW | fields,
            reader: None,
        }
    }

    fn heard(&mut self, bytes: &[u8]) {
        let (stream, awaited) = (self.stream, &mut self.awaited);
        self.said.feed(bytes, |frame: Frame| {
            *awaited &= !match frame.kind {
                frames::SETTINGS if frame.is_greeting() => SETTINGS,
                frames::SETTINGS => ACKNOWLEDGEMENT,
                frames::WINDOW_UPDATE if frame.stream == 0 => OPEN_WINDOW,
                frames::RST_STREAM if frame.stream == SHOWN_ON => RESET,
                _ if frame.stream == stream && frame.ends_stream() => END,
                _ => 0,
            };
            if frame.kind == frames::GOAWAY
                || frame.kind == frames::RST_STREAM && frame.stream == stream
            {
                *awaited |= REFUSAL;
            }
        });
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(mut left) = self.kept.take()
            && self.carrier.is_wanted_back()
        {
            left.memory.shrink();
            self.carrier.leave(left);
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
        if this.introducing.is_some() {
            return this.poll_introduction(cx, buf).map(Ok);
        }
        if this.carrier.is_dismissed() {
            this.look_whether_taken();
        }
        let before = buf.filled().len();
        if this.first.is_empty() {
            ready!(this.stream()?.poll_read(cx, buf))?;
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
        if this.introducing.is_some() {
            return Poll::Ready(this.answered(bufs));
        }
        if this.carrier.gathers() {
            // The connection's task asks again.
            this.carrier.hold_back();
            return Poll::Pending;
        }
        ready!(this.poll_ahead(cx))?;
        let named = match bufs.first() {
            Some(first) if this.outgoing.is_between() => this.blame.name(first),
            _ => None,
        };
        let renamed = named.as_deref().map(|named| [io::IoSlice::new(named)]);
        let bufs = renamed.as_ref().map_or(bufs, |named| named);
        let polled = this.stream()?.poll_write_vectored(cx, bufs);
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
        ready!(this.poll_ahead(cx))?;
        let polled = this.stream()?.poll_flush(cx);
        if this.kept.as_ref().is_some_and(|kept| kept.stream.is_tls()) {
            this.carrier.link.write_blocked(polled.is_pending());
        }
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(kept) = &mut this.kept else {
            return Poll::Ready(Ok(()));
        };
        // It sends window updates while it reads, and a GOAWAY of its own.
        let expected = this.receipt != Receipt::Confirmed;
        (this.lingering).poll(&mut kept.stream, &this.carrier.link, cx, expected)
    }
}
