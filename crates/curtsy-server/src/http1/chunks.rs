//! Where a chunked body ends (RFC 9112, section 7.1): its framing is followed, not decoded.
//!
//! Stricter than hyper, which lets a bare line feed into trailers and goes on to the next CRLF:
//! what follows it is then a trailer to one reader and a request to the other. Here each line ends
//! in CRLF, or the body is malformed.
//!
//! Deliberately absent: the limits of extensions and trailers. hyper has them.

/// A chunked body, over however many reads it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// At the beginning of a chunk's size.
    Start,
    Size(u64),
    /// Behind a size: blanks and extensions, up to the carriage return.
    Extension(u64),
    /// A carriage return was seen behind a size.
    SizeEnd(u64),
    /// So many bytes of data are to come.
    Data(u64),
    /// The data's carriage return is due, then its line feed.
    DataReturn,
    DataFeed,
    /// At the beginning of a line behind the last chunk.
    Trailers,
    Trailer,
    TrailerEnd,
    /// The line feed of the empty line is due.
    LastFeed,
    Ended,
    /// The next byte cannot stand where it does.
    Malformed,
}

impl Chunks {
    pub(crate) fn is_ended(self) -> bool {
        self == Self::Ended
    }

    /// Goes on over the next bytes; says how many of them belong to the body, and are right.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && !self.is_ended() {
            if let Self::Data(left) = self {
                let here = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len() - at);
                at += here;
                *left -= here as u64;
                if *left == 0 {
                    *self = Self::DataReturn;
                }
                continue;
            }
            let Some(next) = self.step(bytes[at]) else {
                *self = Self::Malformed;
                return at;
            };
            *self = next;
            at += 1;
        }
        at
    }

    fn step(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Start, _) => Self::Size(digit(byte)?),
            (Self::Size(size) | Self::Extension(size), b'\r') => Self::SizeEnd(size),
            (Self::Size(size), b' ' | b'\t' | b';') => Self::Extension(size),
            (Self::Size(size), _) => {
                let size = size.checked_mul(16)?;
                Self::Size(size + digit(byte)?)
            }
            (Self::SizeEnd(0), b'\n') => Self::Trailers,
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::DataReturn, b'\r') => Self::DataFeed,
            (Self::DataFeed, b'\n') => Self::Start,
            (Self::Trailers, b'\r') => Self::LastFeed,
            (Self::Trailer, b'\r') => Self::TrailerEnd,
            (Self::TrailerEnd, b'\n') => Self::Trailers,
            (Self::LastFeed, b'\n') => Self::Ended,
            (Self::Extension(_) | Self::Trailers | Self::Trailer, b'\n')
            | (
                Self::SizeEnd(_)
                | Self::DataReturn
                | Self::DataFeed
                | Self::TrailerEnd
                | Self::LastFeed
                | Self::Malformed,
                _,
            ) => return None,
            (Self::Extension(size), _) => Self::Extension(size),
            (Self::Trailers | Self::Trailer, _) => Self::Trailer,
            (Self::Data(_) | Self::Ended, _) => self,
        })
    }
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::Chunks;

    /// How much of it is right, and where that leads.
    fn followed(body: &[u8], cut: usize) -> (usize, Chunks) {
        let (front, back) = body.split_at(cut);
        let mut chunks = Chunks::Start;
        let mut taken = chunks.take(front);
        if taken == front.len() {
            taken += chunks.take(back);
        }
        (taken, chunks)
    }

    #[test]
    fn bodies_end_where_they_say_wherever_they_are_cut() {
        for body in [
            &b"0\r\n\r\n"[..],
            b"4\r\nbody\r\n0\r\n\r\n",
            b"A;name=\"va;lue\"\r\n0123456789\r\n000\r\n\r\n",
            b"1 \t\r\nx\r\n0;last\r\nX: y\r\nZ:\r\n\r\n",
            b"5\r\n\r\n0\r\n\r\n0\r\n\r\n",
        ] {
            let stream = [body, b"GET / HTTP/1.1\r\n\r\n"].concat();
            for cut in 0..stream.len() {
                let found = followed(&stream, cut);
                assert_eq!(
                    found,
                    (body.len(), Chunks::Ended),
                    "{}",
                    body.escape_ascii()
                );
            }
            for short in 0..body.len() {
                let (taken, chunks) = followed(&body[..short], 0);
                assert_eq!(taken, short);
                assert!(!matches!(chunks, Chunks::Ended | Chunks::Malformed));
            }
        }
    }

    #[test]
    fn malformed_at_the_byte_that_is_wherever_they_are_cut() {
        for (right, wrong) in [
            ("", "\r\n"),
            ("", "x\r\n"),
            ("", "-1\r\n"),
            ("0", "x1\r\n"),
            ("1", "\nx\r\n0\r\n\r\n"),
            ("1;a", "\nx\r\n0\r\n\r\n"),
            ("1\r", "\rx\r\n"),
            ("1\r\nx", "y\r\n"),
            ("1\r\nx", "\n0\r\n\r\n"),
            ("0\r\n", "\n"),
            ("0\r\nX: y", "\n\r\n"),
            ("0\r\nX: y\r", "Z: a\r\n\r\n"),
            ("0\r\n\r", "x"),
            ("1000000000000000", "0\r\n"),
        ] {
            let body = [right, wrong].concat();
            for cut in 0..body.len() {
                let found = followed(body.as_bytes(), cut);
                assert_eq!(found, (right.len(), Chunks::Malformed), "{body:?}");
            }
        }
    }
}
