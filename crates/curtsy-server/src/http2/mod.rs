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
//! - While requests that were read have not come to the service, nothing is written: what their handlers answer at once
//!   (`turn.rs`) goes out together.
//!
//! Deliberately absent: CONNECT other than for WebSockets, server push, and priorities.

mod blame;
mod carrier;
mod connection;
mod flood;
mod frames;
mod limits;
mod memory;
mod open;
mod payloads;
mod rules;
mod service;
mod table;
mod turn;
mod websocket;
mod wire;

pub(crate) use connection::serve;
pub use limits::Http2Limits;
pub(crate) use memory::Memory;

#[cfg(fuzzing)]
pub(crate) use table::Table;

/// The header block by which a new engine is shown these fields; `None` where a connection with them keeps its engine,
/// or there are none.
#[cfg(fuzzing)]
pub(crate) fn shown(table: &Table, header_bytes: usize) -> Option<Vec<u8>> {
    memory::shown(table, header_bytes)
}

/// What payloads there are in these pieces: the settings, the header blocks, and where something is broken.
#[cfg(fuzzing)]
pub(crate) fn payloads(pieces: &[&[u8]]) -> Vec<(char, Vec<u8>)> {
    let mut payloads = payloads::Payloads::after(0);
    let mut found = Vec::new();
    for piece in pieces {
        payloads.feed(piece, |payload| {
            found.push(match payload {
                payloads::Payload::Settings(bytes) => ('s', bytes.to_vec()),
                payloads::Payload::Block(bytes) => ('b', bytes.to_vec()),
                payloads::Payload::Broken => ('x', Vec::new()),
            });
        });
    }
    found
}

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
