//! What the parts of one HTTP/2 connection tell each other: the wire below hyper, the streams
//! above it, and the task that drives them.

use crate::clock;
use crate::http2::frames::{self, Frame};
use crate::http2::memory::Memory;
use crate::link::Link;
use crate::seat::Seat;
use crate::shared::Orders;
use crate::stream::Stream;
use curtsy_lifecycle::{Event, Moment};
use slab::Slab;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// For how many open streams room is kept while there are none.
const FEW: usize = 64;

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
    left: Mutex<Option<Left>>,
    streams: Mutex<Slab<Arc<Link>>>,
    open: Mutex<Open>,
}

/// A stream that is open.
#[derive(Clone, Copy, Debug)]
struct Opened {
    number: u32,
    /// The client sends nothing more on it.
    half_closed: bool,
}

/// What is left of a connection without its engine.
#[derive(Debug)]
pub(crate) struct Left {
    // Before the seat: the socket closes first.
    pub(crate) stream: Stream,
    pub(crate) memory: Box<Memory>,
    pub(crate) seat: Arc<Seat>,
}

/// The streams that are open on the wire.
#[derive(Debug)]
struct Open {
    /// In the order in which they were opened, which is that of their numbers.
    streams: Vec<Opened>,
    newest: u32,
    /// What the last GOAWAY said: streams beyond it are not served.
    last: u32,
}

impl Open {
    fn place(&self, stream: u32) -> Result<usize, usize> {
        self.streams
            .binary_search_by_key(&stream, |stream| stream.number)
    }
}

impl Carrier {
    /// Of a connection whose last stream so far had that number.
    pub(crate) fn new(link: Arc<Link>, newest: u32) -> Self {
        Self {
            link,
            greeted: AtomicBool::new(false),
            headers_since: AtomicU64::new(0),
            moved_at: AtomicU64::new(0),
            calm: AtomicBool::new(false),
            introduced: AtomicI64::new(-1),
            wants_back: AtomicBool::new(false),
            left: Mutex::default(),
            streams: Mutex::default(),
            open: Mutex::new(Open {
                streams: Vec::new(),
                newest,
                last: u32::MAX,
            }),
        }
    }

    // ---- what the wire says

    /// The client sent a frame.
    pub(crate) fn received(&self, frame: Frame, now: Moment) {
        self.greeted.store(true, Ordering::Relaxed);
        let headers_since = match (frame.leaves_headers_open(), self.headers_since()) {
            (false, _) => 0,
            (true, Some(since)) => since.as_millis(),
            (true, None) => now.as_millis(),
        };
        self.headers_since.store(headers_since, Ordering::Relaxed);
        match frame.kind {
            frames::HEADERS => self.opened(frame.stream, frame.ends_stream(), now),
            frames::DATA if frame.ends_stream() => self.half_closed(frame.stream),
            frames::RST_STREAM => self.closed(frame.stream, now),
            _ => {}
        }
    }

    /// A frame went to the client.
    pub(crate) fn sent(&self, frame: Frame, now: Moment) {
        if matches!(frame.kind, frames::DATA | frames::HEADERS) {
            self.moved_at.store(now.as_millis(), Ordering::Relaxed);
        }
        if frame.ends_stream() || frame.kind == frames::RST_STREAM {
            self.closed(frame.stream, now);
        } else if frame.kind == frames::GOAWAY {
            let mut open = self.open();
            open.last = frame.word & (u32::MAX >> 1);
            let last = open.last;
            let before = open.streams.len();
            open.streams.retain(|stream| stream.number <= last);
            let emptied = before > 0 && open.streams.is_empty();
            drop(open);
            if emptied {
                self.rests(now);
            }
        }
    }

    fn opened(&self, stream: u32, half_closed: bool, now: Moment) {
        let mut open = self.open();
        // Trailers come on streams that were opened before.
        if stream <= open.newest || stream > open.last {
            drop(open);
            if half_closed {
                self.half_closed(stream);
            }
            return;
        }
        open.newest = stream;
        open.streams.push(Opened {
            number: stream,
            half_closed,
        });
        let is_first = open.streams.len() == 1;
        drop(open);
        if is_first {
            self.link.report();
            self.link.entry.tell(Event::Bytes, now);
            self.link.report();
        }
    }

    fn closed(&self, stream: u32, now: Moment) {
        let mut open = self.open();
        let Ok(place) = open.place(stream) else {
            return;
        };
        open.streams.remove(place);
        let was_last = open.streams.is_empty();
        if was_last && open.streams.capacity() > FEW {
            open.streams = Vec::new();
        }
        drop(open);
        if was_last {
            self.rests(now);
        }
    }

    fn half_closed(&self, stream: u32) {
        let mut open = self.open();
        if let Ok(place) = open.place(stream) {
            open.streams[place].half_closed = true;
        }
    }

    /// Whether the client has ended a stream that we have not ended.
    pub(crate) fn is_half_closed(&self, stream: u32) -> bool {
        let open = self.open();
        (open.place(stream)).is_ok_and(|place| open.streams[place].half_closed)
    }

    fn rests(&self, now: Moment) {
        self.link.entry.tell(Event::Answered, now);
        self.link.report();
    }

    /// Whether a stream's answer is not wholly written.
    pub(crate) fn is_busy(&self) -> bool {
        !self.open().streams.is_empty()
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
        let mut streams = self.streams();
        let key = streams.insert(link);
        self.link.entry.multiplex(true);
        drop(streams);
        Place {
            carrier: self.clone(),
            key,
        }
    }

    /// A part of an answer went to hyper, which asks for one when the client's window is open.
    pub(crate) fn taken(&self) {
        let now = clock::now().as_millis();
        self.moved_at.store(now, Ordering::Relaxed);
    }

    pub(crate) fn moved_at(&self) -> Moment {
        Moment::from_millis(self.moved_at.load(Ordering::Relaxed))
    }

    /// Whether no stream is with the service; the rest of their answers may not be written yet.
    pub(crate) fn has_answered_all(&self) -> bool {
        self.streams().is_empty()
    }

    /// Calls `visit` with each stream that is with the service.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Link)) {
        for (_, link) in self.streams().iter() {
            visit(link);
        }
    }

    fn streams(&self) -> MutexGuard<'_, Slab<Arc<Link>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut streams = self.carrier.streams();
        let gone = streams.try_remove(self.key);
        let is_empty = streams.is_empty();
        if is_empty {
            // What is left of the answers is the connection's own to tell.
            self.carrier.link.entry.multiplex(false);
        }
        drop(streams);
        drop(gone);
        if is_empty && self.carrier.link.orders() & (Orders::DRAIN | Orders::HEIR_SERVES) != 0 {
            self.carrier.link.entry.wake();
        }
    }
}
