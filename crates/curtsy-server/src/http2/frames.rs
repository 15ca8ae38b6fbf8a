//! The frames in a run of bytes: kinds, flags and streams, however the bytes are cut.
//!
//! It only listens: hyper's engine judges what is legal. Payloads are skipped, but for their first
//! four bytes.

/// The length of a frame's header, in bytes.
const HEADER: usize = 9;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

const ACK_OR_END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// A frame, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    flags: u8,
    pub(crate) stream: u32,
    pub(crate) length: u32,
    /// The payload's first four bytes, zeroes where it is shorter.
    pub(crate) word: u32,
}

impl Frame {
    /// The frame that begins so.
    #[inline]
    fn read(head: &[u8; HEADER + 4]) -> Self {
        let [a, b, c, kind, flags, s, t, u, v, w, x, y, z] = *head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let word = u32::from_be_bytes([w, x, y, z]);
        Self {
            kind,
            flags,
            stream: u32::from_be_bytes([s, t, u, v]) & (u32::MAX >> 1),
            length,
            word: match length {
                4.. => word,
                // What follows is the next frame's.
                short => word & !(u32::MAX >> (short * 8)),
            },
        }
    }

    /// Whether the sender sends nothing more on the stream.
    pub(crate) fn ends_stream(&self) -> bool {
        self.is_request() && self.flags & ACK_OR_END_STREAM != 0
    }

    /// Whether it is part of a request.
    pub(crate) fn is_request(&self) -> bool {
        matches!(self.kind, DATA | HEADERS)
    }

    /// Whether it may be the first of a client: settings of its own.
    pub(crate) fn is_greeting(&self) -> bool {
        self.kind == SETTINGS && self.flags & ACK_OR_END_STREAM == 0
    }

    /// Whether it answers a PING.
    pub(crate) fn is_pong(&self) -> bool {
        self.kind == PING && self.flags & ACK_OR_END_STREAM != 0
    }

    /// Whether it begins a header block that it does not end.
    pub(crate) fn leaves_headers_open(&self) -> bool {
        matches!(self.kind, HEADERS | CONTINUATION) && self.flags & END_HEADERS == 0
    }
}

/// Finds frames in bytes that come in pieces.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Bytes to pass over: the preface, the rest of a payload.
    skip: u64,
    head: [u8; HEADER + 4],
    have: usize,
}

impl Frames {
    /// After `preface` bytes that belong to no frame.
    pub(crate) fn after(preface: usize) -> Self {
        Self {
            skip: preface as u64,
            head: [0; HEADER + 4],
            have: 0,
        }
    }

    /// Calls `seen` with each frame, as soon as its header and first bytes are there.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            // Most frames come whole.
            if self.skip == 0
                && self.have == 0
                && let Some(head) = bytes.first_chunk()
            {
                let frame = Frame::read(head);
                let whole = HEADER as u64 + u64::from(frame.length);
                let passed = usize::try_from(whole).map_or(bytes.len(), |n| n.min(bytes.len()));
                self.skip = whole - passed as u64;
                bytes = &bytes[passed..];
                seen(frame);
                continue;
            }
            if self.skip > 0 {
                let passed = usize::try_from(self.skip).map_or(bytes.len(), |n| n.min(bytes.len()));
                self.skip -= passed as u64;
                bytes = &bytes[passed..];
                continue;
            }
            let wanted = match self.have {
                0..HEADER => HEADER,
                _ => self.wanted(),
            };
            let taken = (wanted - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have >= HEADER && self.have == self.wanted() {
                let frame = self.frame();
                self.skip = u64::from(frame.length) - (self.have - HEADER) as u64;
                self.head = [0; HEADER + 4];
                self.have = 0;
                seen(frame);
            }
        }
    }

    /// How many bytes of the frame are looked at, once its header is there.
    fn wanted(&self) -> usize {
        HEADER + usize::try_from(self.length()).map_or(4, |length| length.min(4))
    }

    /// Whether no frame has begun that has not ended.
    pub(crate) fn is_between(&self) -> bool {
        self.skip == 0 && self.have == 0
    }

    fn length(&self) -> u32 {
        let [a, b, c, ..] = self.head;
        u32::from_be_bytes([0, a, b, c])
    }

    fn frame(&self) -> Frame {
        Frame::read(&self.head)
    }
}

#[cfg(test)]
mod tests {
    use super::{DATA, Frame, Frames, GOAWAY, HEADERS, SETTINGS};
    use proptest::prelude::*;

    fn encode(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    fn seen(frames: &mut Frames, bytes: &[u8]) -> Vec<Frame> {
        let mut seen = Vec::new();
        frames.feed(bytes, |frame| seen.push(frame));
        seen
    }

    #[test]
    fn frames_are_told_apart() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(encode(SETTINGS, 0, 0, &[]));
        bytes.extend(encode(HEADERS, 4, 1, b"block"));
        bytes.extend(encode(DATA, 1, 0x8000_0001, b"x"));
        bytes.extend(encode(GOAWAY, 0, 0, &[0, 0, 0, 9, 0, 0, 0, 0]));
        let found = seen(&mut Frames::after(24), &bytes);
        let kinds: Vec<_> = found.iter().map(|f| (f.kind, f.stream, f.length)).collect();
        assert_eq!(kinds, [(4, 0, 0), (1, 1, 5), (0, 1, 1), (7, 0, 8)]);
        assert!(!found[1].ends_stream() && !found[1].leaves_headers_open());
        assert!(found[2].ends_stream());
        assert_eq!(found[3].word, 9);
        let open = seen(&mut Frames::after(0), &encode(HEADERS, 1, 3, &[]));
        assert!(open[0].ends_stream() && open[0].leaves_headers_open());
    }

    proptest! {
        #[test]
        fn the_cut_makes_no_difference(
            frames in prop::collection::vec(
                (any::<u8>(), any::<u8>(), any::<u32>(),
                 prop::collection::vec(any::<u8>(), 0..20)), 0..20),
            cuts in prop::collection::vec(1..30usize, 1..50),
        ) {
            let bytes: Vec<u8> = frames.iter()
                .flat_map(|(kind, flags, stream, payload)| encode(*kind, *flags, *stream, payload))
                .collect();
            let whole = seen(&mut Frames::after(0), &bytes);
            prop_assert_eq!(whole.len(), frames.len());
            let mut pieces = Frames::after(0);
            let (mut rest, mut cut) = (bytes.as_slice(), cuts.iter().cycle());
            let mut found = Vec::new();
            while !rest.is_empty() {
                let length = (*cut.next().unwrap()).min(rest.len());
                found.extend(seen(&mut pieces, &rest[..length]));
                rest = &rest[length..];
            }
            prop_assert_eq!(found, whole);
        }
    }
}
