//! The payloads of a client's SETTINGS and of its header blocks, however the bytes are cut.
//!
//! What has arrived whole is looked at where it is; only a payload in pieces is gathered, and no
//! more of it than the engine takes.

use crate::http2::frames::{CONTINUATION, HEADERS, SETTINGS};

const HEADER: usize = 9;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The most of a payload or a header block that is gathered, in bytes.
const MOST: usize = 128 << 10;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Payload<'a> {
    /// Settings of the client, not an acknowledgement of ours.
    Settings(&'a [u8]),
    /// A whole header block.
    Block(&'a [u8]),
    /// Something that cannot be made out.
    Broken,
}

#[derive(Debug)]
pub(crate) struct Payloads {
    /// Bytes to pass over: the preface, other payloads.
    skip: u64,
    /// A frame that is there in part, header included.
    frame: Vec<u8>,
    /// A header block that is there in part.
    block: Vec<u8>,
    in_block: bool,
}

impl Payloads {
    /// After `preface` bytes that belong to no frame.
    pub(crate) fn after(preface: usize) -> Self {
        Self {
            skip: preface as u64,
            frame: Vec::new(),
            block: Vec::new(),
            in_block: false,
        }
    }

    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Payload<'_>)) {
        loop {
            if self.skip > 0 {
                let passed = usize::try_from(self.skip).map_or(bytes.len(), |n| n.min(bytes.len()));
                self.skip -= passed as u64;
                bytes = &bytes[passed..];
            }
            if bytes.is_empty() {
                return;
            }
            if self.frame.is_empty()
                && let Some((kind, length)) = begins(bytes)
            {
                if !is_wanted(kind) {
                    self.skip = (HEADER + length) as u64;
                    continue;
                }
                if let Some((frame, rest)) = bytes.split_at_checked(HEADER + length) {
                    self.whole(frame, &mut seen);
                    bytes = rest;
                    continue;
                }
            }
            let wanted = match begins(&self.frame) {
                None => HEADER,
                Some((kind, length)) if is_wanted(kind) && length <= MOST => HEADER + length,
                Some((kind, length)) => {
                    if is_wanted(kind) {
                        seen(Payload::Broken);
                    }
                    self.frame = Vec::new();
                    self.skip = length as u64;
                    continue;
                }
            };
            let taken = (wanted - self.frame.len()).min(bytes.len());
            self.frame.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if let Some((kind, length)) = begins(&self.frame)
                && is_wanted(kind)
                && self.frame.len() == HEADER + length
            {
                let frame = std::mem::take(&mut self.frame);
                self.whole(&frame, &mut seen);
            }
        }
    }

    fn whole(&mut self, frame: &[u8], seen: &mut impl FnMut(Payload<'_>)) {
        let (kind, flags, payload) = (frame[3], frame[4], &frame[HEADER..]);
        let fragment = match kind {
            SETTINGS if flags & ACK != 0 => return,
            SETTINGS => return seen(Payload::Settings(payload)),
            // A block is one HEADERS and its CONTINUATIONs.
            _ if (kind == HEADERS) == self.in_block => return seen(Payload::Broken),
            HEADERS => match bare(flags, payload) {
                Some(fragment) => fragment,
                None => return seen(Payload::Broken),
            },
            _ => payload,
        };
        let is_last = flags & END_HEADERS != 0;
        self.in_block = !is_last;
        if is_last && self.block.is_empty() {
            return seen(Payload::Block(fragment));
        }
        if self.block.len() + fragment.len() > MOST {
            return seen(Payload::Broken);
        }
        self.block.extend_from_slice(fragment);
        if is_last {
            seen(Payload::Block(&std::mem::take(&mut self.block)));
        }
    }
}

fn is_wanted(kind: u8) -> bool {
    matches!(kind, SETTINGS | HEADERS | CONTINUATION)
}

/// The kind and length of the frame that begins there, once its header is whole.
fn begins(bytes: &[u8]) -> Option<(u8, usize)> {
    let [a, b, c, kind, ..] = *bytes.first_chunk::<HEADER>()?;
    let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
    Some((kind, length))
}

/// The part of a HEADERS frame that is header block.
fn bare(flags: u8, mut payload: &[u8]) -> Option<&[u8]> {
    if flags & PADDED != 0 {
        let (pad, rest) = payload.split_first()?;
        payload = rest.get(..rest.len().checked_sub(usize::from(*pad))?)?;
    }
    if flags & PRIORITY != 0 {
        payload = payload.get(5..)?;
    }
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::{Payload, Payloads};

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn seen(payloads: &mut Payloads, bytes: &[u8]) -> Vec<(char, Vec<u8>)> {
        let mut found = Vec::new();
        payloads.feed(bytes, |payload| {
            found.push(match payload {
                Payload::Settings(bytes) => ('s', bytes.to_vec()),
                Payload::Block(bytes) => ('b', bytes.to_vec()),
                Payload::Broken => ('x', Vec::new()),
            });
        });
        found
    }

    #[test]
    fn payloads_are_found_however_the_bytes_are_cut() {
        let bytes = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, b"settin"),
            frame(4, 1, b""),
            frame(1, 0x4, b"plain"),
            frame(0, 0, &[7; 300]),
            frame(1, 0x4 | 0x8 | 0x20, b"\x0312345bare000"),
            frame(1, 0, b"in "),
            frame(9, 0, b"three "),
            frame(9, 4, b"parts"),
            frame(8, 0, &[0; 4]),
            frame(1, 0x4 | 0x8, b"\x09"),
            frame(1, 0x4, b""),
            frame(9, 0x4, b"stray"),
            frame(1, 0, b""),
            frame(1, 0x4, b"another"),
        ]
        .concat();
        let expected = [
            ('s', "settin"),
            ('b', "plain"),
            ('b', "bare"),
            ('b', "in three parts"),
            ('x', ""),
            ('b', ""),
            ('x', ""),
            ('x', ""),
        ]
        .map(|(kind, text)| (kind, text.as_bytes().to_vec()));
        for size in 1..bytes.len() {
            let mut payloads = Payloads::after(24);
            let found: Vec<_> = bytes
                .chunks(size)
                .flat_map(|part| seen(&mut payloads, part))
                .collect();
            assert_eq!(found, expected, "{size} at a time");
        }
    }

    #[test]
    fn what_is_too_much_is_not_gathered() {
        let mut payloads = Payloads::after(0);
        let mut head = frame(1, 4, b"");
        head[0] = 0xff;
        assert_eq!(seen(&mut payloads, &head), []);
        assert_eq!(seen(&mut payloads, &[0; 10]), [('x', Vec::new())]);
        assert!(payloads.frame.capacity() == 0);
    }
}
