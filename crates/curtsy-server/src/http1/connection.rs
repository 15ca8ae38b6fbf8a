//! The task that serves one HTTP/1 connection: from the moment it has something to say until it
//! falls silent and is parked, or ends.
//!
//! Invariants:
//! - A connection is taken apart only while it is waiting: hyper's write buffer is flushed, the
//!   last request's body read to its end. Bytes that hyper has read of a next head are kept.
//! - The task looks at the server's orders each time it runs, and whoever gives an order wakes it.
//! - Its deadlines are in the worker's wheel, set anew only when one is past or something nearer is
//!   due.

use crate::clock;
use crate::handshake;
use crate::hint::unlikely;
use crate::http1::deadlines::{self, Due, Situation};
use crate::http1::refusal::{self, refuse};
use crate::http1::rules::Refusal;
use crate::http1::service::{Answering, Judge, JudgeForHyper};
use crate::http1::whole;
use crate::http1::wire::Wire;
use crate::link::{BodyFault, Link, Stage};
use crate::lot::Parked;
use crate::seat::Seat;
use crate::service::Service;
use crate::shared::Orders;
use crate::wheel;
use crate::worker::{Fresh, Worker};
use bytes::Bytes;
use curtsy_lifecycle::{Entry, Moment, State};
use curtsy_sys::prefetch::{prefetch, prefetch_first};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use std::future::{Future, poll_fn};
use std::hint::cold_path;
use std::mem::offset_of;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// How much of an entry and of a link a request touches, in cache lines.
const ENTRY_LINES: usize = 2;
const LINK_LINES: usize = 2;

/// Serves a connection until it is parked or ends.
pub(crate) fn serve<S: Service>(service: S, fresh: Fresh, worker: Arc<Worker>) -> Serving<S> {
    let Fresh {
        stream,
        arrival,
        state,
        since,
        served,
        first,
        speaks: _,
    } = fresh;
    let entry = Arc::new(Entry::new(arrival, state, since));
    entry.resume_served(served);
    let link = Arc::new(Link::new(entry.clone(), worker));
    let seat = Arc::new(Seat::take(&link));
    Serving::Attending(Talk {
        entry,
        watching: false,
        wide: false,
        judge: Judge::new(service, link.clone(), seat.clone()),
        wire: Wire::new(stream, link, seat, first),
    })
}

/// The task of a connection. It is no async function, of which the compiler would scatter over a kilobyte what a request
/// touches; it lies in the runtime's memory of the task, behind what that looks at.
#[expect(
    clippy::large_enum_variant,
    reason = "in a box it would be one more thing to fetch, and it is nearly always this one"
)]
pub(crate) enum Serving<S: Service> {
    Attending(Talk<S>),
    /// hyper has it, or what comes of that.
    Aside(Pin<Box<dyn Future<Output = Option<Talk<S>>> + Send>>),
    Over,
}

/// A connection that is attended to: what it says is answered where it is whole. Most of it is read for each request, and
/// cold where there are many connections; the rest of the wire comes last.
#[repr(C)]
pub(crate) struct Talk<S: Service> {
    /// Of the link, and near at hand.
    entry: Arc<Entry>,
    judge: Judge<S>,
    /// Whoever gives orders knows whom to wake.
    watching: bool,
    /// A head had more fields than hyper takes without a larger table.
    wide: bool,
    wire: Wire,
}

/// How a connection goes on that was attended to.
enum Attended<S: Service> {
    /// With hyper, which finds what was begun of an answer, if anything was.
    Engine(Option<Box<Answering<S>>>),
    /// It stays silent.
    Lasting,
    /// The server ends it.
    Cut,
}

// It is moved as anything is: nothing in it is pinned in place.
impl<S: Service> Unpin for Serving<S> {}

impl<S: Service> Future for Serving<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            let attended = match this {
                Self::Attending(talk) => ready!(talk.poll_attended(cx)),
                Self::Aside(aside) => {
                    cold_path();
                    let back = ready!(aside.as_mut().poll(cx));
                    *this = back.map_or(Self::Over, Self::Attending);
                    continue;
                }
                Self::Over => return Poll::Ready(()),
            };
            cold_path();
            if let Self::Attending(talk) = std::mem::replace(this, Self::Over) {
                match attended {
                    // In a box of its own: most connections get by without it.
                    Attended::Engine(begun) => *this = Self::Aside(Box::pin(talk.go_on(begun))),
                    Attended::Lasting => talk.park(),
                    Attended::Cut => {}
                }
            }
        }
    }
}

impl<S: Service> Talk<S> {
    /// How much of it a request touches, in cache lines; it begins at the end of one.
    const LINES: usize = 1 + (offset_of!(Self, wire) + Wire::TOUCHED) / 64;

    /// Waits for what the client says, before any buffer is made for it, and answers what is whole.
    #[inline(always)]
    fn poll_attended(&mut self, cx: &mut Context<'_>) -> Poll<Attended<S>> {
        prefetch_first(self, Self::LINES);
        prefetch_first(&*self.entry, ENTRY_LINES);
        let Self {
            judge,
            wire,
            watching,
            ..
        } = self;
        // Through the judge, which is nearer than the wire.
        prefetch_first(judge.link(), LINK_LINES);
        if unlikely(!*watching) {
            judge.link().entry.watch(cx.waker());
            judge.greet();
            *watching = true;
        }
        let link = judge.link();
        let orders = link.orders();
        if unlikely(link.entry.is_killed() || orders & Orders::CUT != 0) {
            return Poll::Ready(Attended::Cut);
        }
        if S::TAKES_WHOLE {
            if let Some(attended) = answer(judge, wire, cx) {
                return Poll::Ready(attended);
            }
        } else if wire.poll_spoken(cx).is_ready() {
            return Poll::Ready(Attended::Engine(None));
        }
        let link = wire.link();
        link.report();
        if unlikely(orders & (Orders::DRAIN | Orders::CLOSE_IDLE | Orders::HAND_OVER) != 0) {
            return Poll::Ready(Attended::Lasting);
        }
        match next_due(link) {
            Some((at, _)) => poll_alarm(link, at).map(|()| Attended::Lasting),
            None => Poll::Pending,
        }
    }

    fn park(self) {
        let Self { wire, judge, .. } = self;
        drop(judge);
        let link = wire.link().clone();
        park(wire, &link);
    }

    /// Has hyper answer what is not whole; `None` if the connection ends or goes elsewhere with that.
    async fn go_on(self, begun: Option<Box<Answering<S>>>) -> Option<Self> {
        let Self {
            entry,
            judge,
            wide,
            wire,
            ..
        } = self;
        let link = wire.link().clone();
        let (wire, wide) = match converse(judge.for_hyper(begun), wire, &link, wide).await {
            Turn::Again(wire) => (wire, wide),
            Turn::ManyFields(wire) => (wire, true),
            Turn::Over(end) => {
                drop((entry, judge));
                end.carry_out(&link).await;
                return None;
            }
        };
        Some(Self {
            entry,
            judge,
            watching: false,
            wide,
            wire,
        })
    }
}

/// Answers what has arrived and is whole; `None` if that is all that is to be done for now.
#[inline(always)]
fn answer<S: Service>(
    judge: &mut Judge<S>,
    wire: &mut Wire,
    cx: &mut Context<'_>,
) -> Option<Attended<S>> {
    let is_last = match whole::turn(judge, wire, cx) {
        whole::Turn::Silent => return None,
        whole::Turn::Left(begun) => return Some(Attended::Engine(begun)),
        whole::Turn::Closing => wire.is_done(cx),
        whole::Turn::Ended => !wire.stream().is_tls(),
    };
    if is_last {
        return Some(Attended::Cut);
    }
    wire.link().close_after_answer(false);
    Some(Attended::Engine(None))
}

/// How a turn of talking to the client ended.
enum Turn {
    /// Nothing is read, written or in flight, but it is to go on at once: some of a next head is there, or hyper is to
    /// write in another way.
    Again(Wire),
    /// A head had more fields than hyper takes without a larger table.
    ManyFields(Wire),
    Over(End),
}

/// What becomes of a connection that has nothing more to say here.
enum End {
    /// The socket is closed, or belongs to the program.
    Closed,
    /// It waits for its client: nothing is read, written or in flight.
    Parked(Wire),
    /// The same, and there is an heir to take it.
    Leaving(Wire, Bytes),
    /// What came is no request.
    Refused(Wire, Refusal),
    /// What came is no HTTP/1 either: bytes of something else, all of them.
    Other(Wire, Bytes),
}

impl End {
    async fn carry_out(self, link: &Arc<Link>) {
        match self {
            Self::Closed => {}
            Self::Parked(wire) => park(wire, link),
            Self::Leaving(wire, unread) => leave(wire, unread, link),
            // Large futures, and few connections come here.
            Self::Other(other, first) => Box::pin(handshake::other(other, first, link)).await,
            Self::Refused(refused, refusal) => {
                crate::note::malformed(link, refusal.status.as_u16());
                tracing::debug!(
                    peer = %link.entry.peer(),
                    status = refusal.status.as_u16(),
                    why = refusal.text.trim_end(),
                    "not a request"
                );
                let linger = link.worker.shared.limits.close_linger;
                Box::pin(refuse(refused, refusal, linger)).await;
            }
        }
    }
}

/// The largest buffer that hyper grows for one direction of a connection, in bytes: enough for a
/// fast upload, and not what a thousand of them would be remembered for.
const BUFFER_MOST: usize = 128 << 10;

/// Why hyper was stopped.
enum Stop {
    Finished(hyper::Result<()>),
    Rest,
    /// Nothing is in flight, and the answers are large.
    Vectored,
    HeadTimeout,
    Cut,
}

async fn converse<S: Service>(
    judge: JudgeForHyper<S>,
    mut wire: Wire,
    link: &Arc<Link>,
    wide: bool,
) -> Turn {
    let shared = &link.worker.shared;
    let vectored = link.is_large();
    if vectored {
        wire.write_vectored();
    }
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_buf_size(BUFFER_MOST.max(2 * shared.limits.header_bytes))
        .max_header_size(shared.limits.header_bytes)
        // Else it reads on while a request is in flight, into a buffer that it makes for that.
        .half_close(true);
    if wide {
        builder.max_headers(shared.limits.header_fields);
    }
    let mut connection = builder
        .serve_connection(TokioIo::new(wire), judge)
        .with_upgrades();
    if link.is_closing() && link.stage() != Stage::Called && link.stage() != Stage::Answering {
        // The last answer is on its way.
        Pin::new(&mut connection).graceful_shutdown();
    }
    let mut leftover = None;
    let mut watching = false;
    let (facts, entry): (&Link, &Entry) = (link, &link.entry);
    let stop = poll_fn(|cx| {
        // With many connections this one's state is cold.
        prefetch_first(entry, ENTRY_LINES);
        prefetch_first(facts, LINK_LINES);
        prefetch(&connection);
        if !watching {
            link.entry.watch(cx.waker());
            watching = true;
        }
        let orders = link.orders();
        if link.entry.is_killed() || orders & Orders::CUT != 0 {
            return Poll::Ready(Stop::Cut);
        }
        if link.has_leftover() {
            leftover = link.take_leftover().map(Leftover::new);
        }
        if leftover.is_some() {
            discard(&mut leftover, link, cx);
            if leftover.is_none() && link.is_closing() {
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
        if link.has_body_escaped() && orders & (Orders::END_LINGER | Orders::CLOSE_IDLE) != 0 {
            // Only hyper knows whether this one is idle.
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Poll::Ready(finished) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(Stop::Finished(finished));
        }
        link.report();
        let waits = link.entry.state().is_waiting()
            && link.stage() == Stage::Waiting
            && !link.has_body_escaped()
            && link.shutdown_since().is_none();
        if waits && orders & (Orders::DRAIN | Orders::CLOSE_IDLE) != 0 {
            return Poll::Ready(Stop::Rest);
        }
        if waits && orders & Orders::HAND_OVER != 0 {
            return Poll::Ready(Stop::Rest);
        }
        if waits && link.is_large() && !vectored {
            return Poll::Ready(Stop::Vectored);
        }
        poll_deadline(link)
    })
    .await;

    // hyper takes a first read that fails for the end of the input.
    let is_over = match &stop {
        Stop::Finished(Ok(())) => !link.is_head_too_large(),
        Stop::Cut => true,
        Stop::Finished(Err(_)) | Stop::Rest | Stop::Vectored | Stop::HeadTimeout => false,
    };
    if is_over {
        return Turn::Over(End::Closed);
    }
    let Some(parts) = connection.into_parts() else {
        return Turn::Over(End::Closed);
    };
    let (mut wire, unread) = (parts.io.into_inner(), parts.read_buf);
    match stop {
        Stop::Finished(Ok(())) => Turn::Over(End::Refused(wire, refusal::TOO_LARGE)),
        Stop::Cut => Turn::Over(End::Closed),
        Stop::Finished(Err(error)) => failed(wire, unread, &error, link, wide),
        Stop::Rest => {
            let unread = wire.all_unread(unread);
            if unread.is_empty() {
                Turn::Over(End::Parked(wire))
            } else if is_leaving(link, unread.len()) {
                Turn::Over(End::Leaving(wire, unread))
            } else {
                wire.unread(unread);
                Turn::Again(wire)
            }
        }
        Stop::Vectored => {
            wire.unread(unread);
            Turn::Again(wire)
        }
        Stop::HeadTimeout if unread.contains(&b'\n') => {
            Turn::Over(End::Refused(wire, refusal::TOO_SLOW))
        }
        Stop::HeadTimeout => {
            tracing::debug!(peer = %link.entry.peer(), "no request line in time; closed");
            Turn::Over(End::Closed)
        }
    }
}

/// Looks whether something is due, and sets the alarm for what will be.
#[inline]
fn poll_deadline(link: &Link) -> Poll<Stop> {
    loop {
        let Some((at, due)) = next_due(link) else {
            return Poll::Pending;
        };
        ready!(poll_alarm(link, at));
        match due {
            Due::Park if link.has_body_escaped() || link.stage() != Stage::Waiting => {
                return Poll::Pending;
            }
            Due::Park => return Poll::Ready(Stop::Rest),
            Due::Head => return Poll::Ready(Stop::HeadTimeout),
            Due::Body if link.stage() == Stage::Answered => return Poll::Ready(Stop::Cut),
            Due::Body => link.body_failed(BodyFault::TimedOut),
            Due::Answer | Due::Close => return Poll::Ready(Stop::Cut),
        }
    }
}

fn failed(mut wire: Wire, unread: Bytes, error: &hyper::Error, link: &Link, wide: bool) -> Turn {
    if link.entry.served() == 0 && handshake::is_other(&unread, wire.stream().is_tls()) {
        let all = wire.all_unread(unread);
        return Turn::Over(End::Other(wire, all));
    }
    if link.is_head_too_large() {
        return Turn::Over(End::Refused(wire, refusal::TOO_LARGE));
    }
    if !error.is_parse() {
        tracing::debug!(peer = %link.entry.peer(), %error, "connection failed");
        return Turn::Over(End::Closed);
    }
    let head_taken = wire.is_head_taken(unread.len());
    // To try again with what follows a head would make a request of a body.
    if error.is_parse_too_large() && !wide && !head_taken {
        wire.unread(unread);
        return Turn::ManyFields(wire);
    }
    let refusal = refusal::diagnose(error, &unread, wire.framing_lines(), head_taken);
    Turn::Over(End::Refused(wire, refusal))
}

/// Hands the socket to the lot.
fn park(wire: Wire, link: &Arc<Link>) {
    if wire.stream().is_tls() {
        let (stream, seat) = wire.into_stream();
        link.report();
        return crate::tls::rest(stream, seat, None);
    }
    let (bare, seat) = wire.bare();
    let bare = match bare {
        Ok(bare) => bare,
        Err(error) => {
            tracing::warn!(peer = %link.entry.peer(), %error, "cannot park a connection; closed");
            return;
        }
    };
    link.report();
    // Counted there before it leaves here, so that it is never missed.
    let parked = Parked::new(bare, &link.entry);
    if link.worker.lot.park(parked, &link.worker)
        && let Some(seat) = Arc::into_inner(seat)
    {
        seat.give_up();
    }
}

/// Whether a connection that waits, with so many bytes of a next head, goes to the heir.
fn is_leaving(link: &Link, unread: usize) -> bool {
    let worker = &link.worker;
    link.orders() & Orders::HAND_OVER != 0 && worker.way_out.is_open_for(unread)
}

/// Gives the socket to the heir, with the bytes that were read from it.
fn leave(wire: Wire, unread: Bytes, link: &Arc<Link>) {
    let (bare, seat) = wire.bare();
    let bare = match bare {
        Ok(bare) => bare,
        Err(error) => {
            tracing::warn!(peer = %link.entry.peer(), %error, "cannot hand a connection over; closed");
            return;
        }
    };
    link.report();
    let parked = Parked::new(bare, &link.entry);
    // It goes on there, or in another task here, and is counted in both.
    if let Some(seat) = Arc::into_inner(seat) {
        seat.give_up();
    }
    if let Err((parked, unread)) = link.worker.way_out.send(parked, unread) {
        crate::lot::launch(parked, unread, &link.worker);
    }
}

/// Ready if `at` has come; else the task is woken then, or before.
#[inline(always)]
fn poll_alarm(link: &Link, at: Moment) -> Poll<()> {
    if wheel::is_set(&link.entry, at) {
        return Poll::Pending;
    }
    cold_path();
    if clock::now() >= at {
        return Poll::Ready(());
    }
    link.worker.wheel.set(&link.entry, at);
    Poll::Pending
}

#[inline(always)]
fn next_due(link: &Link) -> Option<(Moment, Due)> {
    let limits = &link.worker.shared.limits;
    let entry = &link.entry;
    if entry.state() == State::Idle && link.shutdown_since().is_none() {
        // Where each request ends.
        return Some((deadlines::park_at(limits, entry.since()), Due::Park));
    }
    cold_path();
    deadlines::next(limits, &situation(link))
}

#[inline(never)]
fn situation(link: &Link) -> Situation {
    let entry = &link.entry;
    Situation {
        state: entry.state(),
        stage: link.stage(),
        since: entry.since(),
        accepted: entry.accepted(),
        is_first: entry.served() == 0,
        head_since: link.head_since(),
        called_at: link.called_at(),
        last_read: link.last_read(),
        body_open: link.is_body_open(),
        body_failed: link.body_fault().is_some(),
        body_waits_since: link.body_waits_since(),
        write_blocked_since: link.write_blocked_since(),
        shutdown_since: link.shutdown_since(),
    }
}

/// What a handler left unread of its request's body.
struct Leftover {
    rest: Incoming,
    read: u64,
}

impl Leftover {
    fn new(rest: Incoming) -> Self {
        Self { rest, read: 0 }
    }
}

/// Reads on and throws away, up to the limit; beyond it hyper is left to close.
fn discard(leftover: &mut Option<Leftover>, link: &Link, cx: &mut Context<'_>) {
    while let Some(Leftover { rest, read }) = leftover.as_mut() {
        match Pin::new(&mut *rest).poll_frame(cx) {
            Poll::Pending => return,
            Poll::Ready(Some(Ok(frame))) => {
                *read += frame.data_ref().map_or(0, |data| data.len() as u64);
                if rest.is_end_stream() {
                    *leftover = None;
                    link.body_ended();
                } else if *read > link.worker.shared.limits.unread_body_bytes {
                    *leftover = None;
                    link.close_after_answer(true);
                }
            }
            Poll::Ready(None) => {
                *leftover = None;
                link.body_ended();
            }
            Poll::Ready(Some(Err(_))) => {
                *leftover = None;
                link.close_after_answer(true);
            }
        }
    }
}
