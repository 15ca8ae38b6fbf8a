//! A connection's place in the ledger and in the count of open connections.
//!
//! Whoever holds the socket holds the seat, after it: so that a connection is counted until its
//! socket is closed, whether it ends, is cut, or was upgraded and belongs to the program.

use crate::clock;
use crate::link::Link;
use crate::wheel::Awake;
use crate::worker::Worker;
use curtsy_lifecycle::{ConnectionInfo, Entry, Event, Key, State, Step};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug)]
pub(crate) struct Seat {
    // And not the link: a connection that rests has none.
    entry: Arc<Entry>,
    worker: Arc<Worker>,
    key: Key,
    kept: AtomicBool,
    /// The seat of the connection, if this is the seat of one of its streams.
    connection: Option<Arc<Seat>>,
}

impl Seat {
    /// Enters a connection that is already counted as open.
    pub(crate) fn take(link: &Link) -> Self {
        let key = link.worker.ledger.enter(link.entry.clone());
        Self {
            entry: link.entry.clone(),
            worker: link.worker.clone(),
            key,
            kept: AtomicBool::new(false),
            connection: None,
        }
    }

    /// Enters a stream of the connection that sits there. Streams are not counted as open.
    pub(crate) fn take_for_stream(link: &Link, connection: Arc<Seat>) -> Self {
        let mut seat = Self::take(link);
        seat.connection = Some(connection);
        seat
    }

    /// A stream is over. Its seat stays in the ledger, for the next one, and nobody sees it there.
    pub(crate) fn vacate(&self) {
        // It had no deadlines.
        let was_upgraded = self.entry.state() == State::Upgraded;
        // Nobody asks since when.
        self.entry.tell(Event::Ended, self.entry.since());
        drop(was_upgraded.then(|| Awake::begin(&self.worker)));
        self.worker.shared.moved_on();
    }

    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// Leaves the ledger without closing: the connection goes on elsewhere (the lot), and is
    /// counted there.
    pub(crate) fn give_up(self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Marks the connection as closed and tells the program's hook.
    fn end(&self) {
        if self.entry.tell(Event::Ended, clock::now()) == Step::To(State::Closed)
            && let Some(hook) = &self.worker.shared.hooks.state
            && !self.entry.is_stream()
        {
            hook(&ConnectionInfo::new(self.entry.clone()), State::Closed);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let kept = self.kept.load(Ordering::Relaxed);
        if !kept {
            // It had no deadlines.
            let was_upgraded = self.entry.state() == State::Upgraded;
            self.end();
            drop(was_upgraded.then(|| Awake::begin(&self.worker)));
        }
        self.worker.ledger.leave(self.key);
        if self.connection.is_some() {
            self.worker.shared.moved_on();
        }
        if !kept && self.connection.is_none() {
            self.worker.shared.closed(1);
        }
    }
}
