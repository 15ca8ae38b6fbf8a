//! What the parts of one HTTP/2 connection tell each other: the wire below hyper, the streams
//! above it, and the task that drives them.

use crate::clock;
use crate::http2::frames::{self, Frame};
use crate::http2::memory::Memory;
use crate::http2::open::Open;
use crate::link::Link;
use crate::seat::Seat;
use crate::shared::Orders;
use crate::stream::Stream;
use curtsy_lifecycle::{Event, Moment, State};
use slab::Slab;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::RuntimeFlavor;

/// How long the streams that came together may take until the rest of them have tasks of their own: about a tick of the
/// clock.
const TURN: Duration = Duration::from_millis(5);

/// One connection.
#[derive(Debug)]
pub(crate) struct Carrier {
    /// The connection's own; each stream has another.
    pub(crate) link: Arc<Link>,
    /// The client's preface and settings are there.
    greeted: AtomicBool,
    /// Since when a header block is incomplete; 0 if none is.
    headers_since: AtomicU64,
    /// When a part of any answer last went to hyper or to the client.
    moved_at: AtomicU64,
    /// Nothing is half read or half written, and what is remembered is enough for a new engine.
    calm: AtomicBool,
    /// While a new engine is introduced: how long the answer is that it is asked for. Else -1.
    introduced: AtomicI64,
    /// The socket is wanted back when the engine is dropped.
    wants_back: AtomicBool,
    /// Requests are answered in the connection's own task, if their handlers are quick.
    at_once: bool,
    /// A stream is open on the wire.
    busy: AtomicBool,
    /// When bytes were last read.
    read_at: AtomicU64,
    /// How many requests were read that have not come to the service; those that never will are among them.
    due: AtomicU32,
    /// Something is to be written once none is due.
    holds_back: AtomicBool,
    keeps_place: AtomicBool,
    /// It was told to go.
    dismissed: AtomicBool,
    /// When the client last took some of what it was sent, since then.
    taken_at: AtomicU64,
    left: Mutex<Option<Left>>,
    /// Those that are with the service, and the place that is kept for the next.
    streams: Mutex<Slab<Arc<Link>>>,
}

/// What is left of a connection without its engine.
#[derive(Debug)]
pub(crate) struct Left {
    // Before the seat: the socket closes first.
    pub(crate) stream: Stream,
    pub(crate) memory: Box<Memory>,
    pub(crate) seat: Arc<Seat>,
}

impl Carrier {
    /// Of that connection.
    pub(crate) fn new(link: Arc<Link>) -> Self {
        // Where a runtime has many threads, they share the work of one connection.
        let flavor = link.worker.handle.runtime_flavor();
        Self {
            at_once: flavor == RuntimeFlavor::CurrentThread,
            link,
            greeted: AtomicBool::new(false),
            headers_since: AtomicU64::new(0),
            moved_at: AtomicU64::new(0),
            calm: AtomicBool::new(false),
            introduced: AtomicI64::new(-1),
            wants_back: AtomicBool::new(false),
            left: Mutex::default(),
            streams: Mutex::default(),
            busy: AtomicBool::new(false),
            read_at: AtomicU64::new(0),
            due: AtomicU32::new(0),
            holds_back: AtomicBool::new(false),
            keeps_place: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
            taken_at: AtomicU64::new(0),
        }
    }

    // ---- what the wire says

    /// The client sent a frame.
    #[inline]
    pub(crate) fn received(&self, frame: Frame, open: &mut Open, now: Moment) {
        self.greeted.store(true, Ordering::Relaxed);
        let headers_since = match (frame.leaves_headers_open(), self.headers_since()) {
            (false, _) => 0,
            (true, Some(since)) => since.as_millis(),
            (true, None) => now.as_millis(),
        };
        self.headers_since.store(headers_since, Ordering::Relaxed);
        match frame.kind {
            frames::HEADERS if open.headers(frame.stream, frame.ends_stream()) => self.opened(now),
            frames::DATA if frame.ends_stream() => open.half_close(frame.stream),
            frames::RST_STREAM if open.close(frame.stream) => self.rests(now),
            frames::WINDOW_UPDATE if self.is_dismissed() => self.client_takes(now),
            _ => {}
        }
    }

    /// The client has taken some of what it was sent.
    pub(crate) fn client_takes(&self, now: Moment) {
        self.taken_at.store(now.as_millis(), Ordering::Relaxed);
    }

    /// A frame went to the client.
    #[inline]
    pub(crate) fn sent(&self, frame: Frame, open: &mut Open, now: Moment) {
        if matches!(frame.kind, frames::DATA | frames::HEADERS) {
            self.moved_at.store(now.as_millis(), Ordering::Relaxed);
        }
        let is_last = if frame.ends_stream() || frame.kind == frames::RST_STREAM {
            open.close(frame.stream)
        } else if frame.kind == frames::GOAWAY {
            open.go_away(frame.word & (u32::MAX >> 1))
        } else {
            false
        };
        if is_last {
            self.rests(now);
        }
    }

    fn opened(&self, now: Moment) {
        if self.at_once {
            let due = self.due.load(Ordering::Relaxed);
            self.due.store(due.saturating_add(1), Ordering::Relaxed);
        }
        if !self.is_busy() {
            self.busy.store(true, Ordering::Relaxed);
            self.link.report();
            self.link.entry.tell(Event::Bytes, now);
            self.link.report();
        }
    }

    fn rests(&self, now: Moment) {
        self.busy.store(false, Ordering::Relaxed);
        self.link.entry.tell(Event::Answered, now);
        self.link.report();
    }

    /// Whether a stream's answer is not wholly written.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Bytes were read at `now`.
    pub(crate) fn read(&self, now: Moment) {
        self.read_at.store(now.as_millis(), Ordering::Relaxed);
    }

    // ---- how answers are gathered

    /// Whether more requests are on their way from the wire to the service, so that what is to be written waits for
    /// their answers.
    pub(crate) fn gathers(&self) -> bool {
        self.due.load(Ordering::Relaxed) > 0
    }

    /// Something that was to be written waits.
    pub(crate) fn hold_back(&self) {
        self.holds_back.store(true, Ordering::Relaxed);
    }

    /// No request is on its way any more; whether something waits to be written.
    pub(crate) fn let_go(&self) -> bool {
        self.due.store(0, Ordering::Relaxed);
        let held_back = self.holds_back.load(Ordering::Relaxed);
        self.holds_back.store(false, Ordering::Relaxed);
        held_back
    }

    /// A request comes to the service: when its bytes were read, and whether it may be answered at once, in the
    /// connection's own task.
    pub(crate) fn called(&self) -> (Moment, bool) {
        let due = self.due.load(Ordering::Relaxed);
        self.due.store(due.saturating_sub(1), Ordering::Relaxed);
        let read_at = Moment::from_millis(self.read_at.load(Ordering::Relaxed));
        // Where the answers to those before it took time, others have their turn.
        (read_at, self.at_once && self.moved_at() <= read_at + TURN)
    }

    pub(crate) fn is_greeted(&self) -> bool {
        self.greeted.load(Ordering::Relaxed)
    }

    pub(crate) fn headers_since(&self) -> Option<Moment> {
        match self.headers_since.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(Moment::from_millis(ms)),
        }
    }

    // ---- how it rests

    pub(crate) fn set_calm(&self, calm: bool) {
        self.calm.store(calm, Ordering::Relaxed);
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// A new engine is asked for an answer of so many bytes.
    pub(crate) fn introduce(&self, length: u32) {
        self.introduced.store(length.into(), Ordering::Relaxed);
    }

    /// The new engine knows what the old one knew.
    pub(crate) fn introduced(&self) {
        self.introduced.store(-1, Ordering::Relaxed);
        self.greeted.store(true, Ordering::Relaxed);
    }

    /// How long the answer is that a new engine is asked for, while it is.
    pub(crate) fn introduction(&self) -> Option<usize> {
        usize::try_from(self.introduced.load(Ordering::Relaxed)).ok()
    }

    /// When its engine is dropped, what is left is to be left here.
    pub(crate) fn want_back(&self) {
        self.wants_back.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_wanted_back(&self) -> bool {
        self.wants_back.load(Ordering::Relaxed)
    }

    pub(crate) fn leave(&self, left: Left) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
    }

    pub(crate) fn take_left(&self) -> Option<Left> {
        self.left
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    // ---- what the streams say

    /// A stream came to the service.
    pub(crate) fn enter(self: &Arc<Self>, link: Arc<Link>) -> Place {
        let key = self.streams().insert(link);
        Place {
            carrier: self.clone(),
            key,
        }
    }

    /// A stream has gone from the service.
    pub(crate) fn left(&self) {
        // What is left of the answers is the connection's own to tell.
        let was_last = self.link.entry.stream_leaves();
        if was_last && self.link.orders() & (Orders::DRAIN | Orders::HEIR_SERVES) != 0 {
            self.link.entry.wake();
        }
    }

    /// Whether a place is kept for the next stream, seat and all.
    pub(crate) fn keeps_place(&self) -> bool {
        self.keeps_place.load(Ordering::Relaxed)
    }

    pub(crate) fn keep_place(&self) {
        self.keeps_place.store(true, Ordering::Relaxed);
    }

    /// A part of an answer went to hyper, which asks for one when the client's window is open.
    pub(crate) fn taken(&self) -> Moment {
        let now = clock::now();
        self.moved_at.store(now.as_millis(), Ordering::Relaxed);
        now
    }

    pub(crate) fn moved_at(&self) -> Moment {
        Moment::from_millis(self.moved_at.load(Ordering::Relaxed))
    }

    /// From now on the client's patience is measured by what it takes.
    pub(crate) fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Relaxed)
    }

    pub(crate) fn taken_at(&self) -> Moment {
        Moment::from_millis(self.taken_at.load(Ordering::Relaxed))
    }

    /// Whether no stream is with the service; the rest of their answers may not be written yet.
    pub(crate) fn has_answered_all(&self) -> bool {
        !self.link.entry.is_multiplexed()
    }

    /// Whether requests may be answered in the connection's own task.
    pub(crate) fn answers_at_once(&self) -> bool {
        self.at_once
    }

    /// Calls `visit` with each stream that is with the service.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Link)) {
        for (_, link) in self.streams().iter() {
            if link.entry.state() != State::Closed {
                visit(link);
            }
        }
    }

    fn streams(&self) -> MutexGuard<'_, Slab<Arc<Link>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's place among those of its connection, given up on drop.
#[derive(Debug)]
pub(crate) struct Place {
    carrier: Arc<Carrier>,
    key: usize,
}

impl Place {
    pub(crate) fn carrier(&self) -> &Carrier {
        &self.carrier
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let gone = self.carrier.streams().try_remove(self.key);
        drop(gone);
    }
}
