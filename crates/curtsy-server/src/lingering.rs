//! To close without a loss: the output ends first, and what the client still sends is thrown away until it closes, too.
//!
//! What arrives at a closed socket is answered with a reset, and a reset takes along whatever the client has not got
//! (RFC 9112, section 9.6).

use crate::clock;
use crate::link::Link;
use crate::stream::Stream;
use curtsy_lifecycle::Moment;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::has_budget_remaining;

/// A connection that is being closed.
#[derive(Debug, Default)]
pub(crate) struct Lingering {
    output_ended: bool,
    begun: Option<Moment>,
    /// How many bytes the kernel had still to send when it last sent some.
    unsent: usize,
}

impl Lingering {
    /// Ends the output, and is ready when the connection can be closed. That is at once if nothing is there, nothing is
    /// `expected`, and all of the output is on its way. The connection's task bounds how long its client may take nothing
    /// and say nothing; to speak without taking anything helps for `write_stall`.
    pub(crate) fn poll(
        &mut self,
        stream: &mut Stream,
        link: &Link,
        cx: &mut Context<'_>,
        expected: bool,
    ) -> Poll<io::Result<()>> {
        if !self.output_ended {
            match Pin::new(&mut *stream).poll_shutdown(cx) {
                Poll::Ready(ended) => ended?,
                Poll::Pending => {
                    self.waits(stream.unsent(), link, false);
                    return Poll::Pending;
                }
            }
            self.output_ended = true;
        }
        let unsent = stream.unsent();
        let (came, found) = discard(stream, cx);
        if found.is_over(expected || came || unsent > 0) {
            return Poll::Ready(Ok(()));
        }
        self.waits(unsent, link, came);
        Poll::Pending
    }

    /// The client's patience begins anew if it has done something.
    fn waits(&mut self, unsent: usize, link: &Link, came: bool) {
        let now = clock::now();
        let begun = *self.begun.get_or_insert(now);
        let speaks = came && now < begun + link.worker.shared.limits.write_stall;
        if link.shutdown_since().is_none() || unsent < self.unsent || speaks {
            link.shutting_down();
        }
        self.unsent = unsent;
    }
}

/// Throws away what still arrives, until the peer closes. The caller bounds the wait.
pub(crate) fn poll_discard(stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
    match discard(stream, cx).1.is_over(true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    }
}

/// What was found when everything that had arrived was thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The peer has closed, or the connection is broken.
    End,
    /// Nothing more is there.
    Nothing,
    /// A task that has had its turn is told nothing of its socket, and runs again at once.
    Unknown,
}

impl Found {
    fn is_over(self, expected: bool) -> bool {
        self == Self::End || self == Self::Nothing && !expected
    }
}

/// Throws away what has arrived; whether there was anything, and what is behind it.
fn discard(stream: &mut Stream, cx: &mut Context<'_>) -> (bool, Found) {
    let mut scrap = [const { MaybeUninit::uninit() }; 4096];
    let mut came = false;
    loop {
        let mut buf = ReadBuf::uninit(&mut scrap);
        match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => came = true,
            Poll::Ready(_) => return (came, Found::End),
            Poll::Pending if has_budget_remaining() => return (came, Found::Nothing),
            Poll::Pending => return (came, Found::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, discard};
    use crate::stream::Stream;
    use std::future::poll_fn;
    use std::task::Poll;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;
    use tokio::task::coop::{has_budget_remaining, poll_proceed};

    /// To close over bytes that were not read would reset the answer before them.
    #[tokio::test]
    async fn a_task_that_has_had_its_turn_takes_no_socket_for_empty() {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(b"unread").await.unwrap();
        far.readable().await.unwrap();
        drop(near);
        let mut stream = Stream::Unix(far);
        poll_fn(|cx| {
            while has_budget_remaining() {
                if let Poll::Ready(spent) = poll_proceed(cx) {
                    spent.made_progress();
                }
            }
            assert_eq!(discard(&mut stream, cx), (false, Found::Unknown));
            Poll::Ready(())
        })
        .await;
        // Its next turn.
        let mut first = true;
        poll_fn(|cx| {
            if std::mem::take(&mut first) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            assert_eq!(discard(&mut stream, cx), (true, Found::End));
            Poll::Ready(())
        })
        .await;
        assert_eq!(stream.look(), crate::stream::Look::Ended);
    }
}
