//! A connection that waits for its client and cannot be a bare descriptor, as it has a session or a
//! past: a small task without protocol state or buffers.
//!
//! The rules are the lot's: it is closed only after a look, and what has arrived is served. One that
//! speaks HTTP/2 is never closed here: it is woken to say so itself.

use crate::alarm::Alarm;
use crate::clock;
use crate::http2::Memory;
use crate::seat::Seat;
use crate::shared::Orders;
use crate::stream::{Look, Stream};
use crate::worker::{Fresh, Speaks};
use bytes::Bytes;
use curtsy_lifecycle::{Moment, State};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

/// How much of what arrives is read here; the rest stays with the stream.
const FIRST: usize = 1024;

/// How long to wait for bytes of which the runtime has not been told yet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How the rest ended.
enum Awake {
    /// A request arrives; its first bytes.
    Bytes(Bytes),
    /// The client has gone, or the server cuts it off.
    Gone,
    /// The client sends nothing more.
    Ended,
    /// Nobody waits for it any longer.
    Dismissed,
}

/// Keeps a waiting connection until its client speaks or its time is over. With a memory it speaks HTTP/2.
pub(crate) fn rest(stream: Stream, seat: Arc<Seat>, memory: Option<Box<Memory>>) {
    let worker = seat.worker().clone();
    let seat = match Arc::try_unwrap(seat) {
        Ok(seat) => seat,
        Err(seat) => {
            // Somebody still works for it, and it cannot go on without its seat.
            let linger = worker.shared.limits.close_linger;
            drop(worker.handle.spawn(close(stream, seat, linger)));
            return;
        }
    };
    worker.tally.parked();
    seat.entry().begin_rest();
    drop(worker.handle.spawn(Resting {
        says_goodbye: memory.is_some(),
        kept: Some((stream, memory, seat)),
        partial_since: None,
        alarm: Alarm::default(),
    }));
}

/// A future by hand: there are many of them, and an async function would keep everything twice.
struct Resting {
    // Dropped in this order: the socket closes before its seat is given up.
    kept: Option<(Stream, Option<Box<Memory>>, Seat)>,
    /// Since when part of a record is there.
    partial_since: Option<Moment>,
    alarm: Alarm,
    /// To end it is not for us.
    says_goodbye: bool,
}

impl Future for Resting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some((mut stream, memory, seat)) = this.kept.take() else {
            return Poll::Ready(());
        };
        let awake = match this.watch(&mut stream, &seat, cx) {
            Poll::Ready(awake) => awake,
            Poll::Pending => {
                this.kept = Some((stream, memory, seat));
                return Poll::Pending;
            }
        };
        match (awake, memory) {
            (Awake::Bytes(first), memory) => wake(stream, seat, first, memory),
            (Awake::Gone, _) => {}
            (Awake::Dismissed, Some(mut memory)) => {
                memory.goodbye = true;
                wake(stream, seat, Bytes::new(), Some(memory));
            }
            (Awake::Dismissed, None) | (Awake::Ended, _) => {
                let linger = seat.worker().shared.limits.close_linger;
                drop(tokio::spawn(close(stream, seat, linger)));
            }
        }
        Poll::Ready(())
    }
}

/// Says goodbye in the terms of the session, for as long as the client may take for it.
async fn close<S>(mut stream: Stream, seat: S, linger: Duration) {
    // It is closed either way.
    let _ = timeout(linger, stream.shutdown()).await;
    drop(stream);
    drop(seat);
}

fn wake(stream: Stream, seat: Seat, first: Bytes, memory: Option<Box<Memory>>) {
    let entry = seat.entry();
    let fresh = Fresh {
        stream,
        arrival: entry.arrival().clone(),
        state: entry.state(),
        since: entry.since(),
        served: entry.served(),
        first,
        speaks: match memory {
            Some(memory) => Speaks::Http2(Some(memory)),
            None => Speaks::Http1,
        },
    };
    seat.worker().launch(fresh);
    seat.give_up();
}

impl Resting {
    fn watch(&mut self, stream: &mut Stream, seat: &Seat, cx: &mut Context<'_>) -> Poll<Awake> {
        const GOING: u32 = Orders::DRAIN | Orders::HEIR_SERVES | Orders::CLOSE_IDLE;
        let entry = seat.entry();
        // Before the orders are looked at: one that comes later wakes us.
        entry.watch(cx.waker());
        let orders = seat.worker().orders(entry, entry.origin());
        if entry.is_killed() || orders & Orders::CUT != 0 {
            return Poll::Ready(Awake::Gone);
        }
        // Of tickets, most of all: it may rest before anything was asked.
        if let Poll::Ready(Err(_)) = Pin::new(&mut *stream).poll_flush(cx) {
            return Poll::Ready(Awake::Gone);
        }
        let mut first = [0u8; FIRST];
        let mut buf = ReadBuf::new(&mut first);
        match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) if buf.filled().is_empty() => return Poll::Ready(Awake::Ended),
            Poll::Ready(Ok(())) => {
                return Poll::Ready(Awake::Bytes(Bytes::copy_from_slice(buf.filled())));
            }
            Poll::Ready(Err(_)) => return Poll::Ready(Awake::Gone),
            Poll::Pending => {}
        }
        if self.says_goodbye && orders & (GOING | Orders::END_LINGER) != 0 {
            return Poll::Ready(Awake::Dismissed);
        }
        let now = clock::now();
        self.partial_since = match stream.is_amid_record() {
            true => self.partial_since.or(Some(now)),
            false => None,
        };
        let leave = orders & (Orders::END_LINGER | Orders::CLOSE_IDLE) != 0;
        let until = match self.partial_since {
            // Its descriptor is wanted for somebody else.
            None if entry.is_dismissed() => now,
            _ => self.patience(seat, leave),
        };
        if now >= until {
            // The runtime may not have been told yet of what has arrived; it will be.
            if self.partial_since.is_none() && stream.look() == Look::Bytes {
                let again = now + LOOK_AGAIN;
                return self.alarm.poll(cx, again, now).map(|()| Awake::Dismissed);
            }
            return Poll::Ready(Awake::Dismissed);
        }
        self.alarm.poll(cx, until, now).map(|()| Awake::Dismissed)
    }

    /// When it is closed unless something arrives.
    fn patience(&self, seat: &Seat, leave: bool) -> Moment {
        let limits = &seat.worker().shared.limits;
        let entry = seat.entry();
        match (self.partial_since, entry.state()) {
            // A request has begun.
            (Some(since), _) => since + limits.header_timeout,
            (None, State::New) if leave => entry.since() + limits.close_linger,
            (None, _) if leave => Moment::from_millis(0),
            (None, State::New) => entry.accepted() + limits.header_timeout,
            (None, _) => entry.since() + limits.idle_timeout,
        }
    }
}
