//! Which error a GOAWAY is to name.
//!
//! The engine notices what a client does wrong, and calls most of it PROTOCOL_ERROR. Where the frames' headers show
//! which error the standard names, the GOAWAY is made to name it. Whether there is an error at all is for the engine to
//! say: what is blamed here comes to nothing unless it does.

use crate::http2::frames::{self, Frame};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

/// Where a GOAWAY names its error, in bytes from its beginning.
const NAMED_AT: std::ops::Range<usize> = 13..17;

/// What is known of a connection when a frame comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    /// A header block has begun.
    pub(crate) in_block: bool,
    /// The client has ended the frame's stream, and we have not.
    pub(crate) half_closed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Blame {
    /// The first thing that was wrong.
    wrong: Option<u32>,
}

impl Blame {
    /// The client sent a frame.
    pub(crate) fn received(&mut self, frame: Frame, before: Before) {
        let is_whole = match frame.kind {
            frames::PRIORITY => frame.length == 5,
            frames::RST_STREAM | frames::WINDOW_UPDATE => frame.length == 4,
            frames::PING => frame.length == 8,
            frames::SETTINGS if frame.is_greeting() => frame.length.is_multiple_of(6),
            frames::SETTINGS => frame.length == 0,
            _ => true,
        };
        if !is_whole {
            self.blame(FRAME_SIZE_ERROR);
        }
        if before.half_closed && !before.in_block && frame.is_request() {
            self.blame(STREAM_CLOSED);
        }
    }

    /// The client's settings want windows larger than there are.
    pub(crate) fn window_too_large(&mut self) {
        self.blame(FLOW_CONTROL_ERROR);
    }

    /// A header block is not coded as it should be.
    pub(crate) fn coding(&mut self) {
        self.blame(COMPRESSION_ERROR);
    }

    fn blame(&mut self, error: u32) {
        self.wrong.get_or_insert(error);
    }

    /// The GOAWAY that begins there, naming the right error; `None` if none begins, or names that already.
    pub(crate) fn name(&self, written: &[u8]) -> Option<Vec<u8>> {
        if *written.get(3)? != frames::GOAWAY {
            return None;
        }
        let error = self.wrong?;
        if *written.get(NAMED_AT)? != PROTOCOL_ERROR.to_be_bytes() {
            return None;
        }
        let mut named = written.to_vec();
        named[NAMED_AT].copy_from_slice(&error.to_be_bytes());
        Some(named)
    }
}

#[cfg(test)]
mod tests {
    use super::{Before, Blame, FRAME_SIZE_ERROR, STREAM_CLOSED};
    use crate::http2::frames::{DATA, Frames, HEADERS, PING, SETTINGS};

    fn after(frames: &[(u8, u8, u8)], before: Before) -> Option<u32> {
        let mut blame = Blame::default();
        for (kind, flags, length) in frames {
            let bytes = [0, 0, *length, *kind, *flags, 0, 0, 0, 3, 9, 9, 9, 9];
            Frames::after(0).feed(&bytes, |frame| blame.received(frame, before));
        }
        let mut goaway = [0; 17];
        (goaway[2], goaway[3], goaway[16]) = (8, 7, 1);
        let named = blame.name(&goaway)?;
        assert!(blame.name(&named).is_none());
        assert!(blame.name(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).is_none());
        Some(u32::from_be_bytes(named[13..].try_into().unwrap()))
    }

    #[test]
    fn what_is_blamed() {
        let open = Before {
            in_block: false,
            half_closed: false,
        };
        let half_closed = Before {
            half_closed: true,
            ..open
        };
        let in_block = Before {
            in_block: true,
            half_closed: true,
        };
        for (frames, before, expected) in [
            (&[(PING, 0, 7)][..], open, Some(FRAME_SIZE_ERROR)),
            (&[(SETTINGS, 0, 7)], open, Some(FRAME_SIZE_ERROR)),
            (&[(SETTINGS, 1, 6)], open, Some(FRAME_SIZE_ERROR)),
            (&[(PING, 0, 8), (SETTINGS, 0, 6)], open, None),
            (&[(DATA, 0, 5), (HEADERS, 5, 5)], open, None),
            (
                &[(DATA, 0, 5), (PING, 0, 7)],
                half_closed,
                Some(STREAM_CLOSED),
            ),
            (&[(HEADERS, 5, 5)], half_closed, Some(STREAM_CLOSED)),
            (&[(DATA, 0, 5)], in_block, None),
        ] {
            assert_eq!(after(frames, before), expected, "{frames:?}");
        }
    }
}
