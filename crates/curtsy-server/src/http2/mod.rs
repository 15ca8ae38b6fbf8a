//! HTTP/2: hyper's connection between a wire that knows its frames and a service that gives each
//! stream a place in the ledger.
//!
//! Invariants:
//! - A connection is active exactly while a stream is open whose answer is not wholly written, as
//!   the frames on the wire tell.
//! - A drain says GOAWAY twice (hyper does): between the two, streams that were on their way are
//!   still served. Then the connection ends with its last stream, at once if there is none.
//! - Every wait for the peer has a bound: preface, header blocks, bodies, windows, the answer to
//!   the GOAWAY's ping.
//! - A connection that idles loses its engine, buffers and all; what a new one must know is remembered
//!   (`memory.rs`), and the new one is made when there is something to say.
//!
//! Deliberately absent: CONNECT other than for WebSockets, server push, and priorities.

mod blame;
mod carrier;
mod connection;
mod flood;
mod frames;
mod limits;
mod memory;
mod payloads;
mod rules;
mod service;
mod table;
mod websocket;
mod wire;

pub(crate) use connection::serve;
pub use limits::Http2Limits;
pub(crate) use memory::Memory;

/// How many frames there are in these pieces.
#[cfg(fuzzing)]
pub(crate) fn count_frames(pieces: &[&[u8]]) -> usize {
    let mut frames = frames::Frames::after(0);
    let mut count = 0;
    for piece in pieces {
        frames.feed(piece, |_| count += 1);
    }
    count
}
