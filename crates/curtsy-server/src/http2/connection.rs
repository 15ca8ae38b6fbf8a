//! The task that serves one HTTP/2 connection to its end.
//!
//! Invariants:
//! - The task looks at the server's orders each time it runs, and whoever gives an order wakes it.
//! - One timer a connection, set anew only when it fires or something nearer is due. Streams are
//!   looked at only when it fires: none of their deadlines is nearer than the least limit.

use crate::alarm::Alarm;
use crate::clock;
use crate::http1::{Due, Situation, next_deadline};
use crate::http2::Memory;
use crate::http2::carrier::Carrier;
use crate::http2::service::Streams;
use crate::http2::turn::{Tasks, Turns};
use crate::http2::wire::Wire;
use crate::limits::Limits;
use crate::link::{BodyFault, Link};
use crate::seat::Seat;
use crate::service::Service;
use crate::shared::Orders;
use crate::stream::Stream;
use crate::tls::rest;
use crate::wheel::Awake;
use crate::worker::{Fresh, Speaks, Worker};
use bytes::Bytes;
use curtsy_lifecycle::{Entry, Moment, State};
use hyper::server::conn::http2;
use hyper_util::rt::TokioIo;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// How long a connection without streams may take to answer our GOAWAY before it is closed anyway.
const GOODBYE: Duration = Duration::from_secs(1);
/// When a connection that could not rest is looked at again.
const KEPT: Duration = Duration::from_secs(1);
/// Who shares the seat of a connection without streams: its task, the wire, the service twice, and the place that is kept
/// for the next stream, if one is. A handler that outlives its stream has it too.
const SEATED: usize = 4;
/// What has arrived before the end of the linger is seen within this.
const LAST_LOOK: Duration = Duration::from_millis(20);

/// Serves a connection until it ends.
pub(crate) async fn serve<S: Service>(service: S, fresh: Fresh, worker: Arc<Worker>) {
    let _awake = Awake::begin(&worker);
    let entry = Arc::new(Entry::new(fresh.arrival, fresh.state, fresh.since));
    entry.resume_served(fresh.served);
    let memory = match fresh.speaks {
        Speaks::Http2(memory) => memory,
        Speaks::Http1 | Speaks::Unknown(_) => None,
    };
    let is_dismissed = memory.as_ref().is_some_and(|memory| memory.goodbye);
    let link = Arc::new(Link::new(entry, worker));
    let seat = Arc::new(Seat::take(&link));
    let carrier = Arc::new(Carrier::new(link.clone()));
    if !converse(
        service,
        (fresh.stream, fresh.first),
        memory,
        &carrier,
        &seat,
        is_dismissed,
    )
    .await
    {
        return;
    }
    drop(seat);
    if let Some(left) = carrier.take_left() {
        rest(left.stream, left.seat, Some(left.memory));
    }
}

/// Talks to the client; whether the connection is to rest when all of this is dropped.
async fn converse<S: Service>(
    service: S,
    (stream, first): (Stream, Bytes),
    memory: Option<Box<Memory>>,
    carrier: &Arc<Carrier>,
    seat: &Arc<Seat>,
    is_dismissed: bool,
) -> bool {
    let link = &carrier.link;
    let wire = Wire::new(stream, carrier.clone(), seat.clone(), first, memory);
    let streams = Streams::new(service, carrier.clone(), seat.clone());
    let builder = builder(&link.worker.shared.limits);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(wire), streams));
    let mut watch = Watch {
        carrier,
        seat,
        begun: clock::now(),
        kept_until: Moment::from_millis(0),
        goaway_at: None,
        linger_over_at: None,
        look_at: None,
        alarm: Alarm::default(),
    };
    let mut turns = Turns::default();
    poll_fn(|cx| {
        // Before the orders are looked at: one that comes later wakes us.
        link.entry.watch(cx.waker());
        let orders = link.orders();
        if link.entry.is_killed() || orders & Orders::CUT != 0 {
            return Poll::Ready(false);
        }
        let is_going = orders & (Orders::DRAIN | Orders::CLOSE_IDLE | Orders::HEIR_SERVES) != 0;
        // A new engine would say it to nobody while it is introduced.
        if (is_going || is_dismissed) && carrier.introduction().is_none() {
            watch.say_goodbye(connection.as_mut());
        }
        if orders & Orders::END_LINGER != 0 && watch.linger_over_at.is_none() {
            watch.linger_over_at = Some(clock::now());
        }
        loop {
            let waker = turns.waker(cx, carrier);
            let polled = connection.as_mut().poll(&mut Context::from_waker(waker));
            if let Poll::Ready(ended) = polled {
                if let Err(error) = ended {
                    tracing::debug!(peer = %link.entry.peer(), %error, "connection failed");
                }
                return Poll::Ready(false);
            }
            if carrier.let_go() {
                continue;
            }
            match watch.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Verdict::End) => return Poll::Ready(false),
                Poll::Ready(Verdict::Rest) => {
                    carrier.want_back();
                    return Poll::Ready(true);
                }
                Poll::Ready(Verdict::Goodbye) => watch.say_goodbye(connection.as_mut()),
            }
        }
    })
    .await
}

fn builder(limits: &Limits) -> http2::Builder<Tasks> {
    let own = &limits.http2;
    let header_bytes = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(Tasks);
    builder
        .max_concurrent_streams(own.concurrent_streams)
        .max_header_list_size(header_bytes)
        .initial_stream_window_size(own.stream_window_bytes)
        .initial_connection_window_size(own.connection_window_bytes)
        .max_send_buf_size(own.send_buffer_bytes)
        .max_pending_accept_reset_streams(own.pending_reset_streams)
        .max_local_error_reset_streams(own.error_reset_streams);
    if own.websockets {
        builder.enable_connect_protocol();
    }
    builder
}

/// What the connection's patience comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is closed as it is.
    End,
    /// It is told to go.
    Goodbye,
    /// It needs no engine until the client speaks.
    Rest,
}

struct Watch<'a> {
    carrier: &'a Carrier,
    seat: &'a Arc<Seat>,
    /// When this engine was made.
    begun: Moment,
    /// It may not rest before.
    kept_until: Moment,
    goaway_at: Option<Moment>,
    /// When a drain stopped to wait for those who had not begun.
    linger_over_at: Option<Moment>,
    /// When the streams are next looked at.
    look_at: Option<Moment>,
    alarm: Alarm,
}

impl Watch<'_> {
    fn say_goodbye<S: Service>(
        &mut self,
        connection: Pin<&mut http2::Connection<TokioIo<Wire>, Streams<S>, Tasks>>,
    ) {
        if self.goaway_at.is_none() {
            self.goaway_at = Some(clock::now());
            self.carrier.dismiss();
            connection.graceful_shutdown();
        }
    }

    /// Looks whether something is due, and sets the alarm for what will be.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        loop {
            let now = clock::now();
            if self.carrier.is_busy() {
                if self.look_at.is_none_or(|at| now >= at) && self.look(now) == Some(Verdict::End) {
                    return Poll::Ready(Verdict::End);
                }
            } else {
                self.look_at = None;
            }
            let (at, verdict) = self.next();
            let nearest = self.look_at.map_or(at, |look_at| look_at.min(at));
            if now >= at {
                if verdict == Verdict::Rest && !self.may_rest() {
                    // A handler goes on without its client.
                    self.kept_until = now + KEPT;
                    continue;
                }
                return Poll::Ready(verdict);
            }
            if self.alarm.poll(cx, nearest, now).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// The connection's own nearest deadline.
    fn next(&self) -> (Moment, Verdict) {
        let (carrier, link) = (self.carrier, &self.carrier.link);
        let limits = &link.worker.shared.limits;
        let entry = &link.entry;
        if let Some(since) = link.shutdown_since() {
            return (since + limits.close_linger, Verdict::End);
        }
        let mut nearest = (Moment::from_millis(u64::MAX), Verdict::End);
        let mut bound = |at: Moment, verdict| {
            if at < nearest.0 {
                nearest = (at, verdict);
            }
        };
        if carrier.introduction().is_some() {
            // Nobody but us speaks with the engine.
            return (self.begun + limits.handshake_timeout, Verdict::End);
        }
        if !carrier.is_greeted() {
            bound(self.begun + limits.handshake_timeout, Verdict::End);
            if let Some(at) = self.linger_over_at {
                bound(at + LAST_LOOK, Verdict::End);
            }
        }
        if let Some(since) = carrier.headers_since() {
            bound(since + limits.header_timeout, Verdict::End);
        }
        match (link.write_blocked_since(), carrier.is_busy()) {
            (Some(since), _) => bound(since + limits.write_stall, Verdict::End),
            // Nobody but the client can be who is waited for.
            (None, true) if carrier.has_answered_all() => {
                let since = carrier.moved_at().max(entry.since());
                bound(since + limits.write_stall, Verdict::End);
            }
            (None, true) => {}
            (None, false) => match self.goaway_at {
                Some(at) => {
                    let since = at.max(entry.since()).max(carrier.taken_at());
                    bound(since + GOODBYE, Verdict::End);
                }
                None => {
                    bound(entry.since() + limits.idle_timeout, Verdict::Goodbye);
                    if carrier.is_calm() && entry.state() == State::Idle {
                        let rested = entry.since().max(self.begun) + limits.park_after;
                        bound(rested.max(self.kept_until), Verdict::Rest);
                    }
                }
            },
        }
        nearest
    }

    /// Whether nothing would be lost with the engine.
    fn may_rest(&self) -> bool {
        let carrier = self.carrier;
        carrier.is_calm()
            && carrier.has_answered_all()
            && carrier.link.write_blocked_since().is_none()
            && Arc::strong_count(self.seat) == SEATED + usize::from(carrier.keeps_place())
    }

    /// Looks at each stream, and sets the time of the next look.
    fn look(&mut self, now: Moment) -> Option<Verdict> {
        let limits = &self.carrier.link.worker.shared.limits;
        let least = [
            Some(limits.body_stall),
            Some(limits.write_stall),
            limits.read_timeout,
            limits.write_timeout,
        ];
        let mut next = now
            + least
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(limits.body_stall);
        let mut verdict = None;
        self.carrier.for_each(|link| {
            let Some((at, due)) = next_deadline(limits, &situation(link)) else {
                return;
            };
            if now < at {
                next = next.min(at);
                return;
            }
            match due {
                Due::Body => link.body_failed(BodyFault::TimedOut),
                Due::Answer => {
                    // One stream may be held back while the client takes others.
                    let stuck = self.carrier.moved_at() + limits.write_stall;
                    if now >= stuck || limits.write_timeout.is_some() {
                        verdict = Some(Verdict::End);
                    } else {
                        next = next.min(stuck);
                    }
                }
                Due::Park | Due::Head | Due::Close => {}
            }
        });
        self.look_at = Some(next);
        verdict
    }
}

fn situation(link: &Link) -> Situation {
    let entry = &link.entry;
    Situation {
        state: entry.state(),
        stage: link.stage(),
        since: entry.since(),
        accepted: entry.accepted(),
        is_first: false,
        head_since: link.head_since(),
        called_at: link.called_at(),
        last_read: None,
        body_open: link.is_body_open(),
        body_failed: link.body_fault().is_some(),
        body_waits_since: link.body_waits_since(),
        write_blocked_since: link.write_blocked_since(),
        shutdown_since: None,
    }
}
