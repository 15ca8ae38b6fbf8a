//! Reads one HTTP/1.1 answer from the wire: heads by `httparse`, the framing of bodies by this file.
//!
//! Invariants: nothing beyond the answer is consumed (what follows stays in the buffer); an end of the stream is told apart by
//! where it came; everything read is bounded. Deliberately absent: any tolerance. A client that mends what it reads
//! cannot say what the server sent.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::outcome::{Loss, Trouble};

/// What an answer was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Length of the body in bytes.
    pub(crate) length: u64,
    /// The beginning of the body, at most as much as was asked for.
    pub(crate) body: Vec<u8>,
    /// The connection cannot be used again, and the peer said so.
    pub(crate) last: bool,
    /// The number in the answer's `Prove-Request` field, if the server echoed it.
    pub(crate) number: Option<u64>,
}

/// What the reader has to know of the question.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    /// It was a HEAD request: its answer has no body whatever the head says.
    pub(crate) is_head: bool,
    /// How many bytes of the body to keep.
    pub(crate) keep_bytes: usize,
}

/// Reads a whole answer. `buffer` may hold its beginning, and afterwards holds what followed it.
///
/// Not cancel safe: after a cancelled read the connection is to be dropped.
pub(crate) async fn read_answer<R: AsyncRead + Unpin>(
    stream: &mut R,
    buffer: &mut BytesMut,
    question: Question,
) -> Result<Answer, Trouble> {
    let mut reader = Reader {
        stream,
        buffer,
        begun: false,
    };
    let head = loop {
        let head = reader.head().await?;
        // Interim answers announce the real one. 101 ends HTTP on this connection and was not asked for.
        if head.status >= 200 || head.status == 101 {
            break head;
        }
    };
    let mut body = Body {
        length: 0,
        kept: Vec::new(),
        keep_bytes: question.keep_bytes,
    };
    let framing = head.framing(question.is_head)?;
    match framing {
        Framing::None => {}
        Framing::Length(length) => reader.exactly(length, &mut body).await?,
        Framing::Chunked => reader.chunked(&mut body).await?,
        Framing::UntilClose => reader.until_close(&mut body).await?,
    }
    Ok(Answer {
        status: head.status,
        length: body.length,
        body: body.kept,
        last: head.close || framing == Framing::UntilClose,
        number: head.number,
    })
}

struct Reader<'a, R> {
    stream: &'a mut R,
    buffer: &'a mut BytesMut,
    /// A byte of the answer was seen.
    begun: bool,
}

struct Body {
    length: u64,
    kept: Vec<u8>,
    keep_bytes: usize,
}

impl Body {
    fn take(&mut self, buffer: &mut BytesMut, bytes: usize) {
        let keep = bytes.min(self.keep_bytes - self.kept.len());
        self.kept.extend_from_slice(&buffer[..keep]);
        self.length += bytes as u64;
        buffer.advance(bytes);
    }
}

impl<R: AsyncRead + Unpin> Reader<'_, R> {
    /// Reads more, at least a byte; an end is told by where it came.
    async fn fill(&mut self) -> Result<(), Trouble> {
        if self.fill_or_end().await? {
            return Ok(());
        }
        if self.begun {
            Err(Trouble::new(
                Loss::EofInside,
                "end of stream inside the answer",
            ))
        } else {
            Err(Trouble::new(
                Loss::EofBefore,
                "end of stream before the answer",
            ))
        }
    }

    /// Reads more; false at the end of the stream.
    async fn fill_or_end(&mut self) -> Result<bool, Trouble> {
        self.begun |= !self.buffer.is_empty();
        if self.buffer.capacity() == self.buffer.len() {
            self.buffer.reserve(READ_BYTES);
        }
        match self.stream.read_buf(self.buffer).await {
            Ok(0) => Ok(false),
            Ok(_) => {
                self.begun = true;
                Ok(true)
            }
            // TLS that ends without saying so: an end of stream that cannot be a body's.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                let loss = if self.begun {
                    Loss::EofInside
                } else {
                    Loss::EofBefore
                };
                Err(Trouble::new(loss, format!("cut off: {e}")))
            }
            Err(e) => {
                let place = if self.begun { "inside" } else { "before" };
                Err(Trouble::from_io(&e, &format!("{place} the answer")))
            }
        }
    }

    async fn head(&mut self) -> Result<Head, Trouble> {
        loop {
            if !self.buffer.is_empty()
                && let Some((head, length)) = Head::parse(self.buffer)?
            {
                self.buffer.advance(length);
                return Ok(head);
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(Trouble::new(
                    Loss::Garbage,
                    "the head is longer than 64 KiB",
                ));
            }
            self.fill().await?;
        }
    }

    async fn exactly(&mut self, length: u64, body: &mut Body) -> Result<(), Trouble> {
        let mut left = length;
        while left > 0 {
            if self.buffer.is_empty() {
                self.fill().await?;
            }
            let bytes =
                usize::try_from(left).map_or(self.buffer.len(), |l| l.min(self.buffer.len()));
            body.take(self.buffer, bytes);
            left -= bytes as u64;
        }
        Ok(())
    }

    async fn chunked(&mut self, body: &mut Body) -> Result<(), Trouble> {
        loop {
            let line = self.line().await?;
            let size =
                chunk_size(&line).ok_or_else(|| Trouble::new(Loss::Garbage, "a bad chunk size"))?;
            if size == 0 {
                break;
            }
            self.exactly(size, body).await?;
            if !self.line().await?.is_empty() {
                return Err(Trouble::new(
                    Loss::Garbage,
                    "a chunk is longer than it said",
                ));
            }
        }
        for _ in 0..FIELDS_MAX {
            if self.line().await?.is_empty() {
                return Ok(());
            }
        }
        Err(Trouble::new(Loss::Garbage, "more than 256 trailer fields"))
    }

    async fn until_close(&mut self, body: &mut Body) -> Result<(), Trouble> {
        loop {
            let bytes = self.buffer.len();
            body.take(self.buffer, bytes);
            if !self.fill_or_end().await? {
                return Ok(());
            }
        }
    }

    /// A line of chunk framing, without its CRLF.
    async fn line(&mut self) -> Result<Vec<u8>, Trouble> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return line
                    .strip_suffix(b"\r\n")
                    .map(<[u8]>::to_vec)
                    .ok_or_else(|| Trouble::new(Loss::Garbage, "a bare line feed"));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(Trouble::new(
                    Loss::Garbage,
                    "a line of chunk framing is too long",
                ));
            }
            self.fill().await?;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

#[derive(Debug)]
struct Head {
    status: u16,
    close: bool,
    length: Option<u64>,
    chunked: bool,
    number: Option<u64>,
}

impl Head {
    /// The head and its length in bytes; `None` if it is not whole yet.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Trouble> {
        let garbage = |why: String| Trouble::new(Loss::Garbage, why);
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let length = match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(e) => return Err(garbage(format!("the head: {e}"))),
        };
        let mut head = Self {
            status: response.code.unwrap_or(0),
            close: response.version == Some(0),
            length: None,
            chunked: false,
            number: None,
        };
        if !(100..=599).contains(&head.status) {
            return Err(garbage(format!("status {}", head.status)));
        }
        for field in response.headers.iter() {
            let value = String::from_utf8_lossy(field.value);
            if field.name.eq_ignore_ascii_case("content-length") {
                let n =
                    decimal(&value).ok_or_else(|| garbage(format!("Content-Length: {value}")))?;
                if head.length.is_some_and(|other| other != n) {
                    return Err(garbage("two different Content-Lengths".to_owned()));
                }
                head.length = Some(n);
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                if head.chunked || !value.trim().eq_ignore_ascii_case("chunked") {
                    return Err(garbage(format!("Transfer-Encoding: {value}")));
                }
                head.chunked = true;
            } else if field.name.eq_ignore_ascii_case("connection") {
                for token in value.split(',').map(str::trim) {
                    head.close |= token.eq_ignore_ascii_case("close");
                    if token.eq_ignore_ascii_case("keep-alive") && response.version == Some(0) {
                        head.close = false;
                    }
                }
            } else if field.name.eq_ignore_ascii_case(NUMBER_FIELD) {
                head.number = decimal(&value);
            }
        }
        Ok(Some((head, length)))
    }

    fn framing(&self, is_head: bool) -> Result<Framing, Trouble> {
        if self.chunked && self.length.is_some() {
            let why = "Transfer-Encoding together with Content-Length";
            return Err(Trouble::new(Loss::Garbage, why));
        }
        Ok(match self.length {
            _ if is_head || matches!(self.status, 101 | 204 | 304) => Framing::None,
            Some(length) => Framing::Length(length),
            None if self.chunked => Framing::Chunked,
            None => Framing::UntilClose,
        })
    }
}

/// Digits only: `+5` and an empty value are no numbers here.
fn decimal(text: &str) -> Option<u64> {
    let text = text.trim();
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line).ok()?;
    let digits = text.split(';').next()?.trim_end();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

/// The field that carries a request's number; a server may echo it.
pub(crate) const NUMBER_FIELD: &str = "Prove-Request";

const HEAD_BYTES_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 256;
const LINE_BYTES_MAX: usize = 8 * 1024;
/// How much room a read is given: an ordinary answer in one go, without weighing on thousands of connections.
const READ_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Question = Question {
        is_head: false,
        keep_bytes: 64,
    };

    /// Reads `wire` in pieces of `step` bytes, then the end of the stream; gives the answer and what was left over.
    async fn read(
        wire: &[u8],
        step: usize,
        question: Question,
    ) -> (Result<Answer, Trouble>, Vec<u8>) {
        let (mut near, mut far) = tokio::io::duplex(step);
        let wire = wire.to_vec();
        let writer = tokio::spawn(async move {
            // The reader may stop early; what it does not take is its own affair.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut far, &wire).await;
        });
        let mut buffer = BytesMut::new();
        let answer = read_answer(&mut near, &mut buffer, question).await;
        drop(near);
        writer.await.expect("the writer does not panic");
        (answer, buffer.to_vec())
    }

    async fn loss(wire: &[u8]) -> Loss {
        let (answer, _) = read(wire, 4096, PLAIN).await;
        let other = read(wire, 1, PLAIN).await.0;
        let loss = answer.expect_err("a loss").loss;
        assert_eq!(loss, other.expect_err("a loss").loss, "byte by byte");
        loss
    }

    #[tokio::test]
    async fn every_framing_gives_the_same_body() {
        for (wire, last) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..], false),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n\r\nhello", true),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\nT: x\r\n\r\n", false),
            (b"HTTP/1.1 200 OK\r\n\r\nhello", true),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", true),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello", false),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false),
        ] {
            for step in [1, 3, 4096] {
                let (answer, rest) = read(wire, step, PLAIN).await;
                let answer = answer.expect("a whole answer");
                assert_eq!((answer.status, answer.length, answer.last), (200, 5, last));
                assert_eq!(answer.body, b"hello");
                assert!(rest.is_empty());
            }
        }
    }

    #[tokio::test]
    async fn answers_without_a_body_end_with_their_head() {
        let head = Question {
            is_head: true,
            keep_bytes: 0,
        };
        let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(read(wire, 4096, head).await.0.map(|a| a.length), Ok(0));
        for status in [204, 304] {
            let wire = format!("HTTP/1.1 {status} X\r\n\r\n");
            let answer = read(wire.as_bytes(), 4096, PLAIN).await.0.expect("whole");
            assert_eq!((answer.status, answer.last), (status, false));
        }
    }

    #[tokio::test]
    async fn what_follows_an_answer_stays_in_the_buffer() {
        let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 408";
        let (answer, rest) = read(wire, 4096, PLAIN).await;
        assert_eq!(answer.map(|a| a.status), Ok(200));
        assert_eq!(rest, b"HTTP/1.1 408");
    }

    #[tokio::test]
    async fn an_early_end_is_told_by_its_place() {
        assert_eq!(loss(b"").await, Loss::EofBefore);
        assert_eq!(loss(b"H").await, Loss::EofInside);
        assert_eq!(
            loss(b"HTTP/1.1 100 Continue\r\n\r\n").await,
            Loss::EofInside
        );
        assert_eq!(
            loss(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell").await,
            Loss::EofInside
        );
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
        assert_eq!(loss(chunked).await, Loss::EofInside);
    }

    #[tokio::test]
    async fn what_is_not_http_is_garbage() {
        for wire in [
            &b"SSH-2.0-OpenSSH\r\n"[..],
            b"\0\0\0\0",
            b"HTTP/1.1 999 X\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nhe\r\n0\r\n\r\n",
        ] {
            assert_eq!(loss(wire).await, Loss::Garbage, "{}", wire.escape_ascii());
        }
    }

    #[tokio::test]
    async fn a_head_without_end_is_bounded() {
        let mut wire = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
        wire.resize(200_000, b'x');
        let (answer, _) = read(&wire, 65_536, PLAIN).await;
        assert_eq!(answer.expect_err("refused").loss, Loss::Garbage);
    }
}
