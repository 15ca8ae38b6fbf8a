//! A client's header blocks mean the same to an engine that has seen all of them and to one that was only shown what the
//! connection remembers of those before.
//!
//! The engines are h2's own decoders. The bytes are blocks, each behind its length.
#![no_main]

use bytes::Bytes;
use curtsy_server::fuzzing::HeaderTable;
use futures_core::Stream;
use h2::Codec;
use h2::frame::Frame;
use h2::proto::Error;
use libfuzzer_sys::fuzz_target;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest header list that an engine takes, in bytes, as a server does by default.
const HEADER_BYTES: usize = 64 << 10;
/// The first number of a field that a client has entered, and more than a table has room for.
const ENTERED: std::ops::Range<usize> = 62..200;

/// What a block came to.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// Its fields.
    Fields(String),
    /// A request that is none; the connection goes on.
    Malformed,
    /// The connection ends.
    Dead,
}

/// What the client has sent.
struct Sent(Vec<u8>);

impl AsyncRead for Sent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.0.len().min(buf.remaining());
        if count == 0 {
            return Poll::Pending;
        }
        buf.put_slice(&self.0[..count]);
        self.0.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sent {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Engine(Codec<Sent, Bytes>);

impl Engine {
    fn new() -> Self {
        let mut codec = Codec::new(Sent(Vec::new()));
        codec.set_max_recv_header_list_size(HEADER_BYTES);
        Self(codec)
    }

    /// Hands it a block, as the HEADERS of a stream.
    fn read(&mut self, block: &[u8]) -> Read {
        const HEADERS: u8 = 1;
        const END_STREAM_AND_HEADERS: u8 = 5;
        let length = u32::try_from(block.len()).expect("short").to_be_bytes();
        let sent = &mut self.0.get_mut().0;
        sent.extend(&length[1..]);
        sent.extend([HEADERS, END_STREAM_AND_HEADERS, 0, 0, 0, 1]);
        sent.extend(block);
        match Pin::new(&mut self.0).poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(Frame::Headers(headers)))) => {
                let is_over_size = headers.is_over_size();
                let (pseudo, fields) = headers.into_parts();
                Read::Fields(format!("{is_over_size} {pseudo:?} {fields:?}"))
            }
            Poll::Ready(Some(Err(Error::Reset(..)))) => Read::Malformed,
            Poll::Ready(Some(Err(_))) => Read::Dead,
            other => panic!("{other:?}"),
        }
    }
}

/// The field of that number alone.
fn indexed(number: usize) -> Vec<u8> {
    let Some(more) = number.checked_sub(127) else {
        return vec![0x80 | u8::try_from(number).expect("seven bits")];
    };
    vec![0xff, u8::try_from(more).expect("seven bits")]
}

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    let mut table = HeaderTable::default();
    let mut old = Engine::new();
    while let Some((length, after)) = rest.split_first() {
        let (block, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        let Some(mut new) = shown(&table) else { return };
        let expected = old.read(block);
        let is_read = table.read(block);
        if expected == Read::Dead {
            // Whatever is made of it. It may have meant a field that only the new engine has still.
            return;
        }
        assert!(is_read, "blamed for nothing: {block:?}");
        assert_eq!(new.read(block), expected, "{block:?}");
    }
    let Some(mut new) = shown(&table) else { return };
    for number in ENTERED {
        let expected = old.read(&indexed(number));
        if expected == Read::Dead {
            return;
        }
        assert_eq!(new.read(&indexed(number)), expected, "{number}");
    }
});

/// A new engine that was shown what is remembered, if there can be one.
fn shown(table: &HeaderTable) -> Option<Engine> {
    let block = table.shown(HEADER_BYTES)?;
    let mut engine = Engine::new();
    if !block.is_empty() {
        // That is what has its stream reset, and the connection live.
        assert_eq!(engine.read(&block), Read::Malformed);
    }
    Some(engine)
}
