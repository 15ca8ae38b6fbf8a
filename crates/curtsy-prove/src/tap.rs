//! Looks on while HTTP/2 goes over a stream: which requests were written before GOAWAY was read, and how the stream ended.
//!
//! It reads frame headers only, changes nothing, and takes anything; judging frames is the business of the `h2` crate. It exists because that
//! crate may still write a request in the same breath in which it reads a GOAWAY, and only the wire knows the order.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What was seen on the wire of one connection.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    is_ended: AtomicBool,
    is_going_away: AtomicBool,
    /// The highest stream that was opened on the wire before the first GOAWAY was read.
    opened: AtomicU32,
}

impl Wire {
    /// The peer ended its side of the stream, without a reset.
    pub(crate) fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Acquire)
    }

    pub(crate) fn is_going_away(&self) -> bool {
        self.is_going_away.load(Ordering::Acquire)
    }

    /// The stream was not on the wire yet when the first GOAWAY was read.
    pub(crate) fn is_late(&self, stream: u32) -> bool {
        self.is_going_away() && stream > self.opened.load(Ordering::Acquire)
    }
}

/// A stream and its looker-on.
#[derive(Debug)]
pub(crate) struct Tap<S> {
    stream: S,
    wire: Arc<Wire>,
    incoming: Frames,
    outgoing: Frames,
}

impl<S> Tap<S> {
    pub(crate) fn new(stream: S, wire: Arc<Wire>) -> Self {
        Self {
            stream,
            wire,
            incoming: Frames::after(0),
            outgoing: Frames::after(PREFACE_BYTES),
        }
    }

    fn wrote(&mut self, bytes: &[u8]) {
        let wire = &self.wire;
        self.outgoing.see(bytes, |kind, stream| {
            if kind == HEADERS && !wire.is_going_away() {
                wire.opened.fetch_max(stream, Ordering::AcqRel);
            }
        });
    }

    fn read(&mut self, bytes: &[u8]) {
        let wire = &self.wire;
        self.incoming.see(bytes, |kind, _| {
            if kind == GOAWAY {
                wire.is_going_away.store(true, Ordering::Release);
            }
        });
    }
}

/// Finds the frame headers in a stream of bytes, however it is cut.
#[derive(Debug)]
struct Frames {
    skip: usize,
    header: [u8; HEADER_BYTES],
    filled: usize,
}

impl Frames {
    fn after(skip: usize) -> Self {
        Self {
            skip,
            header: [0; HEADER_BYTES],
            filled: 0,
        }
    }

    fn see(&mut self, mut bytes: &[u8], mut frame: impl FnMut(u8, u32)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            bytes = &bytes[skipped..];
            self.skip -= skipped;
            if bytes.is_empty() {
                return;
            }
            let taken = (HEADER_BYTES - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEADER_BYTES {
                let [l0, l1, l2, kind, _, s0, s1, s2, s3] = self.header;
                self.skip = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
                self.filled = 0;
                frame(kind, u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let tap = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut tap.stream).poll_read(cx, buf))?;
        let bytes = &buf.filled()[before..];
        if bytes.is_empty() && buf.remaining() > 0 {
            tap.wire.is_ended.store(true, Ordering::Release);
        }
        tap.read(bytes);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tap = self.get_mut();
        let written = ready!(Pin::new(&mut tap.stream).poll_write(cx, buf))?;
        tap.wrote(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

const PREFACE_BYTES: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;
const GOAWAY: u8 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u32, payload: usize) -> Vec<u8> {
        let mut bytes = vec![0, 0, u8::try_from(payload).unwrap(), kind, 0];
        bytes.extend(stream.to_be_bytes());
        bytes.resize(bytes.len() + payload, 0xff);
        bytes
    }

    #[test]
    fn frames_are_found_however_the_stream_is_cut() {
        let bytes = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, 0),
            frame(HEADERS, 1, 200),
            frame(0, 1, 3),
            frame(HEADERS, 3, 0),
        ]
        .concat();
        for step in [1, 2, 9, 10, bytes.len()] {
            let mut frames = Frames::after(PREFACE_BYTES);
            let mut seen = Vec::new();
            for piece in bytes.chunks(step) {
                frames.see(piece, |kind, stream| seen.push((kind, stream)));
            }
            assert_eq!(seen, [(4, 0), (1, 1), (0, 1), (1, 3)], "by {step}");
        }
    }

    #[test]
    fn what_is_opened_after_goaway_is_late() {
        let wire = Arc::new(Wire::default());
        let mut tap = Tap::new((), Arc::clone(&wire));
        tap.wrote(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        tap.wrote(&frame(HEADERS, 5, 10));
        assert!(
            !wire.is_late(5) && !wire.is_late(7),
            "before GOAWAY nothing is late"
        );
        tap.read(&frame(GOAWAY, 0, 8));
        tap.wrote(&frame(HEADERS, 7, 10));
        assert!(!wire.is_late(5) && wire.is_late(7));
    }
}
