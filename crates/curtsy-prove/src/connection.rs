//! One connection: made, used for one exchange after another, watched while nobody uses it.
//!
//! Deliberately absent: a peek before writing. Whether the peer has closed is known from reading while idle, as in any
//! client, or not at all; the gap between is what a strict client is there to measure.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, sleep_until};

use crate::answer::{Answer, Question, read_answer};
use crate::outcome::{Loss, Trouble};
use crate::plan::Upload;
use crate::target::Endpoint;

#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    buffer: BytesMut,
}

/// The bytes of one request.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) head: &'a [u8],
    pub(crate) hold_head: Option<Duration>,
    pub(crate) upload: Option<Upload>,
    pub(crate) question: Question,
}

/// An answer, and whether the connection is fit for another request.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) answer: Answer,
    /// The whole request had gone out before the answer ended.
    pub(crate) is_request_whole: bool,
    /// More came than the answer.
    pub(crate) is_followed: bool,
}

/// What ended an idle connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdleEnd {
    Closed,
    Unsolicited,
}

impl Connection {
    /// Connects; the error of the last address if none answers.
    pub(crate) async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        let stream = match endpoint {
            Endpoint::Tcp(addresses) => {
                let mut outcome = Err(io::Error::from(io::ErrorKind::AddrNotAvailable));
                for address in addresses {
                    outcome = TcpStream::connect(address).await;
                    if outcome.is_ok() {
                        break;
                    }
                }
                let stream = outcome?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Endpoint::Unix(path) => loop {
                match UnixStream::connect(path).await {
                    Ok(stream) => break Stream::Unix(stream),
                    // A full backlog: the kernel offers no event for its end, a blocking connect would wait.
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => sleep(BACKLOG_PAUSE).await,
                    Err(e) => return Err(e),
                }
            },
        };
        Ok(Self {
            stream,
            buffer: BytesMut::new(),
        })
    }

    /// Sends a request and reads its whole answer.
    ///
    /// Not cancel safe: after a cancelled exchange the connection is to be dropped.
    pub(crate) async fn exchange(&mut self, request: &Request<'_>) -> Result<Exchange, Trouble> {
        let (outcome, sent) = if request.upload.is_none() && request.hold_head.is_none() {
            let sent = self.stream.write_all(request.head).await;
            // A failed write does not mean that no answer came: it may lie in the receive buffer.
            let answer = read_answer(&mut self.stream, &mut self.buffer, request.question).await;
            (answer, Some(sent))
        } else {
            self.exchange_both_ways(request).await
        };
        let is_request_whole = matches!(sent, Some(Ok(())));
        match (outcome, sent) {
            (Ok(answer), _) => Ok(Exchange {
                answer,
                is_request_whole,
                is_followed: !self.buffer.is_empty(),
            }),
            (Err(trouble), Some(Err(e))) if trouble.loss != Loss::Garbage => Err(Trouble::new(
                Loss::Reset,
                format!("writing the request: {e}"),
            )),
            (Err(trouble), _) => Err(trouble),
        }
    }

    /// Reads while the request is still being written: a server may answer before it has taken all of it.
    async fn exchange_both_ways(
        &mut self,
        request: &Request<'_>,
    ) -> (Result<Answer, Trouble>, Option<io::Result<()>>) {
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let mut sending = std::pin::pin!(send(&mut writer, request));
        let mut reading =
            std::pin::pin!(read_answer(&mut reader, &mut self.buffer, request.question));
        let mut sent = None;
        loop {
            tokio::select! {
                biased;
                outcome = &mut sending, if sent.is_none() => sent = Some(outcome),
                answer = &mut reading => return (answer, sent),
            }
        }
    }

    /// Waits for the peer to do something on this idle connection; it should not.
    ///
    /// Cancel safe: what was read is in the buffer, and a cancelled wait can be taken up again.
    pub(crate) async fn idle_end(&mut self) -> IdleEnd {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => IdleEnd::Closed,
            Ok(_) => IdleEnd::Unsolicited,
        }
    }
}

async fn send<W: AsyncWrite + Unpin>(writer: &mut W, request: &Request<'_>) -> io::Result<()> {
    if let Some(pause) = request.hold_head {
        let (first, rest) = request.head.split_at(request.head.len() / 2);
        writer.write_all(first).await?;
        writer.flush().await?;
        sleep(pause).await;
        writer.write_all(rest).await?;
    } else {
        writer.write_all(request.head).await?;
    }
    if let Some(upload) = request.upload {
        send_body(writer, upload).await?;
    }
    writer.flush().await
}

async fn send_body<W: AsyncWrite + Unpin>(writer: &mut W, upload: Upload) -> io::Result<()> {
    let begun = Instant::now();
    let mut written = 0;
    while written < upload.bytes {
        let step = match upload.rate_bytes {
            Some(rate) => {
                // Each piece has its due time from the beginning, so that a late timer does not lower the rate.
                let due = Duration::from_secs_f64(written as f64 / rate as f64);
                sleep_until(begun + due).await;
                (rate / PIECES_PER_SECOND).clamp(1, PATTERN.len() as u64)
            }
            None => PATTERN.len() as u64,
        };
        let step = step.min(upload.bytes - written);
        let piece = usize::try_from(step).map_or(PATTERN, |step| &PATTERN[..step]);
        writer.write_all(piece).await?;
        if upload.rate_bytes.is_some() {
            writer.flush().await?;
        }
        written += step;
    }
    Ok(())
}

/// The sockets a connection can run over.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_flush(cx),
            Self::Unix(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

/// What uploads consist of, repeated.
static PATTERN: &[u8] = &[b'x'; 64 * 1024];
/// A paced upload is written in so many pieces a second.
const PIECES_PER_SECOND: u64 = 50;
const BACKLOG_PAUSE: Duration = Duration::from_millis(1);
