//! Where on the wire one request ends and the next begins.
//!
//! hyper is given one request's bytes at a time: its head, then its body as far as its framing
//! fields say, and nothing of the next before it asks for one. So each head is seen by itself,
//! whatever comes with it; and where hyper and this module should ever disagree about an end,
//! neither takes part of a body for a request: one of the two waits in vain or refuses.

use crate::http1::chunks::Chunks;
use crate::http1::scan::{Head, Scan};
use std::mem::offset_of;

/// What is asked on each request comes first.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Framing {
    part: Part,
    /// Bytes of this request so far.
    bytes: u64,
    scan: Scan,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Head,
    /// The head is whole, and only hyper knows what follows.
    Told,
    /// So many bytes of the body are to come; none at the request's end.
    Length(u64),
    Chunked(Chunks),
}

/// What hyper makes of a head that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLength {
    Known(u64),
    Chunked,
}

impl Framing {
    /// How much of it is asked on each request, in bytes from its beginning.
    pub(crate) const TOUCHED: usize = offset_of!(Self, scan);

    /// Starts over, with another request.
    #[inline]
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// All of the request has been taken.
    #[inline]
    pub(crate) fn is_at_end(&self) -> bool {
        self.part == Part::Length(0)
    }

    #[inline]
    pub(crate) fn is_in_head(&self) -> bool {
        self.part == Part::Head
    }

    /// Some of a head was taken, and it is not whole.
    #[inline]
    pub(crate) fn is_amid_head(&self) -> bool {
        self.is_in_head() && self.bytes > 0
    }

    /// How many bytes of this request were taken.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn head(&self) -> Head {
        self.scan.head()
    }

    /// How many lines of the head so far name `Transfer-Encoding` and `Content-Length`.
    pub(crate) fn lines(&self) -> (u8, u8) {
        (self.scan.transfer_encodings, self.scan.content_lengths)
    }

    /// Learns how long the body is that only hyper knows of.
    #[inline]
    pub(crate) fn settle(&mut self, told: impl FnOnce() -> BodyLength) {
        if self.part == Part::Told {
            self.part = match told() {
                BodyLength::Known(length) => Part::Length(length),
                BodyLength::Chunked => Part::Chunked(Chunks::Start),
            };
        }
    }

    /// The byte after the last that was taken cannot stand there.
    pub(crate) fn is_malformed(&self) -> bool {
        self.part == Part::Chunked(Chunks::Malformed)
    }

    /// Says how many of these bytes, which are the next on the wire, belong to this request.
    #[inline]
    pub(crate) fn take(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        if self.is_in_head() {
            let before = self.bytes;
            self.scan.bytes(bytes);
            let Some(length) = self.scan.head_length() else {
                self.bytes += bytes.len() as u64;
                return bytes.len();
            };
            taken = usize::try_from(length - before).unwrap_or(bytes.len());
            self.part = self.behind_head();
        }
        taken += self.take_body(&bytes[taken..]);
        self.bytes += taken as u64;
        taken
    }

    #[inline]
    fn behind_head(&self) -> Part {
        match self.lines() {
            (0, 0) => Part::Length(0),
            (0, _) => self.scan.content_length().map_or(Part::Told, Part::Length),
            (1, 0) => Part::Chunked(Chunks::Start),
            // Nobody serves it.
            (_, _) => Part::Length(0),
        }
    }

    #[inline]
    fn take_body(&mut self, bytes: &[u8]) -> usize {
        match &mut self.part {
            Part::Head | Part::Told => 0,
            Part::Length(left) => {
                let here = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                *left -= here as u64;
                here
            }
            Part::Chunked(chunks) => {
                let here = chunks.take(bytes);
                if chunks.is_ended() {
                    self.part = Part::Length(0);
                }
                here
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BodyLength, Framing};
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    const REQUESTS: [&str; 7] = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 22\r\n\r\nGET / HTTP/1.1\r\n\r\nHost",
        "POST / HTTP/1.1\r\nHost: a\r\ncontent-length:0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n\r\n\r\n0\r\n0\r\nX: y\r\n\r\n",
        "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length:  4 \r\n\r\nbody",
        "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    ];

    /// What hyper would say of a request with a length.
    fn told(request: &str) -> BodyLength {
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        BodyLength::Known(body.len() as u64)
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_each_request_ends_where_it_ends(
            kinds in prop::collection::vec(0..REQUESTS.len(), 1..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let stream: String = kinds.iter().map(|kind| REQUESTS[*kind]).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let mut framing = Framing::default();
            let mut ends = Vec::new();
            let mut at = 0;
            for pair in cuts.windows(2) {
                let mut read = &stream.as_bytes()[pair[0]..pair[1]];
                while !read.is_empty() {
                    if framing.is_at_end() {
                        framing.restart();
                    }
                    let taken = framing.take(read);
                    framing.settle(|| told(REQUESTS[kinds[ends.len()]]));
                    at += taken;
                    read = &read[taken..];
                    if framing.is_at_end() {
                        ends.push(at);
                    }
                }
            }
            let expected: Vec<usize> = kinds
                .iter()
                .scan(0, |end, kind| {
                    *end += REQUESTS[*kind].len();
                    Some(*end)
                })
                .collect();
            prop_assert_eq!(ends, expected);
        }
    }
}
