//! HTTP/1: what is whole is answered on the spot; for the rest, hyper's connection stands between a wire that knows its
//! bytes and a service that knows its requests.

mod answer;
mod chunks;
mod connection;
mod deadlines;
mod framing;
mod refusal;
mod rules;
mod scan;
mod service;
mod whole;
mod wire;

pub(crate) use answer::{Answer, Data};
pub(crate) use connection::serve;
pub(crate) use deadlines::{Due, Situation, next as next_deadline, park_at};
pub(crate) use framing::BodyLength;
pub(crate) use rules::is_host;
pub(crate) use scan::Head;
pub(crate) use service::{Answering, Judge, refuse};
pub(crate) use wire::Wire;

/// What the scan finds in a head that comes in `reads`: lines of the two framing fields, and the
/// head's length; for fuzz targets.
#[cfg(fuzzing)]
pub(crate) fn count_framing(reads: &[&[u8]]) -> (u8, u8, Option<u64>) {
    let mut scan = scan::Scan::default();
    for read in reads {
        scan.bytes(read);
    }
    (
        scan.transfer_encodings,
        scan.content_lengths,
        scan.head_length(),
    )
}

/// Where each request of a stream that comes in `reads` ends, up to the first that is malformed; a
/// body that only hyper knows of has one byte. For fuzz targets.
#[cfg(fuzzing)]
pub(crate) fn ends_of_requests(reads: &[&[u8]]) -> Vec<usize> {
    let mut framing = framing::Framing::default();
    let (mut ends, mut at) = (Vec::new(), 0);
    for mut read in reads.iter().copied() {
        while !read.is_empty() {
            if framing.is_at_end() {
                framing.restart();
            }
            let taken = framing.take(read);
            framing.settle(|| BodyLength::Known(1));
            at += taken;
            read = &read[taken..];
            if framing.is_malformed() {
                return ends;
            }
            if framing.is_at_end() {
                ends.push(at);
            }
        }
    }
    ends
}
