//! One HTTP/1.1 connection: used for one exchange after another, watched while nobody uses it.
//!
//! Deliberately absent: a peek before writing. Whether the peer has closed is known from reading while idle, as in any
//! client, or not at all; the gap between is what a strict client is there to measure.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::sleep;

use crate::answer::{Answer, Question, read_answer};
use crate::outcome::{Loss, Trouble};
use crate::stream::Stream;
use crate::upload::{Pieces, Upload};

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
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// Sends a request and reads its whole answer.
    ///
    /// Not cancel safe: after a cancelled exchange the connection is to be dropped.
    pub(crate) async fn exchange(&mut self, request: &Request<'_>) -> Result<Exchange, Trouble> {
        let (outcome, sent) = if request.upload.is_none() && request.hold_head.is_none() {
            let sent = send(&mut self.stream, request).await;
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
    let mut pieces = Pieces::of(upload);
    while let Some(piece) = pieces.next().await {
        writer.write_all(piece).await?;
        if upload.rate_bytes.is_some() {
            writer.flush().await?;
        }
    }
    Ok(())
}
