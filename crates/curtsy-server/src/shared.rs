//! What every worker and every connection of a server looks at.
//!
//! Invariant: the request path only reads it. What changes (orders) is written a few times in a
//! server's life; what is counted (open connections) is counted once a connection, not a request.

use crate::access_log::Queue;
use crate::control::Crier;
use crate::error::{Error, Kind};
use crate::hooks::Hooks;
use crate::limits::Limits;
use crate::metrics::Life;
use crate::mode::{Asked, Board};
use crate::worker::Worker;
use curtsy_lifecycle::{Moment, Origin, Phase, Signal};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// What happens to a handler whose client has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    /// Its future is dropped: Rust's habit. A client that closes only its sending side counts as
    /// gone, unless its answer is ready at once.
    #[default]
    Cancel,
    /// It runs to its end, detached, and a drain waits for it. A client that closes only its
    /// sending side still gets its answer.
    Finish,
}

/// How requests are handed to the service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    pub(crate) on_disconnect: OnDisconnect,
    /// Put a `ConnectionInfo` and a `Draining` into each request's extensions.
    pub(crate) extensions: bool,
    /// Let the service answer `OPTIONS *`.
    pub(crate) service_answers_options_star: bool,
}

pub(crate) struct Shared {
    pub(crate) orders: Orders,
    pub(crate) limits: Limits,
    pub(crate) manners: Manners,
    pub(crate) signal: Arc<Signal>,
    pub(crate) hooks: Hooks,
    pub(crate) generation: u64,
    pub(crate) life: Life,
    /// Set once, before the first connection, if there is one.
    pub(crate) access_log: OnceLock<Queue>,
    /// Set once, before the first connection.
    pub(crate) workers: OnceLock<Vec<Arc<Worker>>>,
    /// Told when the last connection closed, if somebody waits for that.
    pub(crate) quiet: Notify,
    /// Told when a connection closed while accepting waits for room.
    pub(crate) room: Notify,
    pub(crate) hooks_left: AtomicUsize,
    /// Connections of the process before this one still come in.
    pub(crate) arriving: AtomicBool,
    /// The heir did not take a connection.
    pub(crate) heir_refuses: AtomicBool,
    /// Of listeners that this process does not have.
    orphans: Mutex<Vec<Arc<Origin>>>,
    /// How long connections of a mode that was switched off are still listened to.
    pub(crate) linger: Duration,
    /// When it was made.
    pub(crate) began: Moment,
    /// Where its listeners listen, in their order; set once, with the server.
    pub(crate) addresses: OnceLock<Vec<String>>,
    /// Where its admin listener is, if it has one; set once, with the server.
    pub(crate) admin: OnceLock<String>,
    /// Tells whoever listens at the control socket.
    pub(crate) crier: Crier,
    /// How much is logged, if somebody has said so since the start.
    pub(crate) log_level: Mutex<Option<String>>,
    boards: Vec<Arc<Board>>,
    open: AtomicUsize,
    next_id: AtomicU64,
    phase: AtomicU8,
    times: Mutex<Times>,
}

/// When the drain's steps are, for whoever asks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub(crate) wished_at: Option<Moment>,
    pub(crate) deadline: Option<Moment>,
    /// When a lame duck begins to drain.
    pub(crate) lame_duck_ends: Option<Moment>,
    pub(crate) linger_ends: Option<Moment>,
    /// From the drain's beginning to its deadline.
    pub(crate) patience: Option<Duration>,
    pub(crate) open_at_start: Option<usize>,
}

impl Shared {
    pub(crate) fn new(
        limits: Limits,
        manners: Manners,
        hooks: Hooks,
        generation: u64,
        linger: Duration,
        listeners: Vec<(String, Asked)>,
    ) -> Self {
        let signal = Arc::new(Signal::new());
        let board = |(name, asked)| Arc::new(Board::new(name, &signal, asked));
        Self {
            orders: Orders::default(),
            limits,
            manners,
            linger,
            began: crate::clock::now(),
            addresses: OnceLock::new(),
            admin: OnceLock::new(),
            crier: Crier::new(),
            log_level: Mutex::default(),
            boards: listeners.into_iter().map(board).collect(),
            signal,
            hooks,
            generation,
            life: Life::default(),
            access_log: OnceLock::new(),
            workers: OnceLock::new(),
            quiet: Notify::new(),
            room: Notify::new(),
            hooks_left: AtomicUsize::new(0),
            arriving: AtomicBool::new(false),
            heir_refuses: AtomicBool::new(false),
            orphans: Mutex::default(),
            open: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            phase: AtomicU8::new(Phase::Starting as u8),
            times: Mutex::default(),
        }
    }

    pub(crate) fn workers(&self) -> &[Arc<Worker>] {
        self.workers.get().map_or(&[], Vec::as_slice)
    }

    /// What the plain connections of the listener of that name have in common. A name that no
    /// listener has (any more) is one of connections that another process accepted.
    pub(crate) fn origin(&self, listener: &str) -> Arc<Origin> {
        if let Ok(board) = self.board(listener) {
            return board.epoch().plain.clone();
        }
        let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = orphans.iter().find(|origin| origin.listener == listener) {
            return found.clone();
        }
        let origin = Arc::new(Origin::new(listener, self.signal.clone()));
        orphans.push(origin.clone());
        origin
    }

    /// Whether no connection is open, and none can come from another process.
    pub(crate) fn is_quiet(&self) -> bool {
        self.open() == 0 && !self.arriving.load(Ordering::Acquire)
    }

    /// The listeners' modes.
    pub(crate) fn boards(&self) -> &[Arc<Board>] {
        &self.boards
    }

    /// The mode of the listener of that name.
    pub(crate) fn board(&self, name: &str) -> Result<&Arc<Board>, Error> {
        let found = self.boards.iter().find(|board| board.name == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = self
                .boards
                .iter()
                .map(|board| board.name.as_str())
                .collect();
            let names = names.join(", ");
            Error::new(
                Kind::Config,
                format!("there is no listener {name:?}; there is {names}"),
            )
        })
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Connections open now, the parked ones included.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn closed(&self, connections: usize) {
        let before = self.open.fetch_sub(connections, Ordering::AcqRel);
        if before == connections && self.orders.has(Orders::DRAIN | Orders::HAND_OVER) {
            self.quiet.notify_one();
        }
        self.moved_on();
        if self.limits.connections.is_some() {
            self.room.notify_one();
        }
    }

    /// Something has ended. While the server drains that is worth telling of.
    pub(crate) fn moved_on(&self) {
        if self.orders.has(Orders::DRAIN | Orders::HAND_OVER) {
            self.crier.nudge();
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.limits
            .connections
            .is_none_or(|most| self.open() < most)
    }

    pub(crate) fn phase(&self) -> Phase {
        Phase::from_u8(self.phase.load(Ordering::Acquire)).unwrap_or(Phase::Stopped)
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(crate) fn times(&self) -> Times {
        *self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_times(&self, times: Times) {
        *self.times.lock().unwrap_or_else(PoisonError::into_inner) = times;
    }
}

/// Standing orders to all connections, as bits that are only ever set ([`Orders::CLOSE_IDLE`] and
/// [`Orders::HAND_OVER`] apart).
#[derive(Debug, Default)]
pub(crate) struct Orders(AtomicU32);

impl Orders {
    /// Every answer closes its connection; waiting connections go to the lot and linger.
    pub(crate) const DRAIN: u32 = 1;
    /// Waiting connections close, after a last look.
    pub(crate) const END_LINGER: u32 = 1 << 1;
    /// Everything closes.
    pub(crate) const CUT: u32 = 1 << 2;
    /// Keep-alive is off: every answer closes its connection, waiting connections close.
    pub(crate) const CLOSE_IDLE: u32 = 1 << 3;

    /// There is an heir: waiting connections go to it, busy ones as soon as they wait. Nothing is
    /// announced. Given with [`Orders::DRAIN`] only if the heir does not take them.
    pub(crate) const HAND_OVER: u32 = 1 << 4;
    /// The heir has proved itself: connections that cannot be handed over (encrypted ones, HTTP/2)
    /// drain as they do without one.
    pub(crate) const HEIR_SERVES: u32 = 1 << 5;

    #[inline]
    pub(crate) fn current(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn has(&self, order: u32) -> bool {
        self.current() & order != 0
    }

    pub(crate) fn give(&self, order: u32) {
        self.0.fetch_or(order, Ordering::AcqRel);
    }

    pub(crate) fn withdraw(&self, order: u32) {
        self.0.fetch_and(!order, Ordering::AcqRel);
    }
}
