//! A connection's place in the ledger and in the count of open connections.
//!
//! Whoever holds the socket holds the seat, after it: so that a connection is counted until its
//! socket is closed, whether it ends, is cut, or was upgraded and belongs to the program.

use crate::link::Link;
use crate::wheel::Awake;
use curtsy_lifecycle::{Key, State};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug)]
pub(crate) struct Seat {
    link: Arc<Link>,
    key: Key,
    kept: AtomicBool,
    /// The seat of the connection, if this is the seat of one of its streams.
    connection: Option<Arc<Seat>>,
}

impl Seat {
    /// Enters a connection that is already counted as open.
    pub(crate) fn take(link: Arc<Link>) -> Self {
        let key = link.worker.ledger.enter(link.entry.clone());
        Self {
            link,
            key,
            kept: AtomicBool::new(false),
            connection: None,
        }
    }

    /// Enters a stream of the connection that sits there. Streams are not counted as open.
    pub(crate) fn take_for_stream(link: Arc<Link>, connection: Arc<Seat>) -> Self {
        let mut seat = Self::take(link);
        seat.connection = Some(connection);
        seat
    }

    /// A stream is over. Its seat stays in the ledger, for the next one, and nobody sees it there.
    pub(crate) fn vacate(&self) {
        // It had no deadlines.
        let was_upgraded = self.link.entry.state() == State::Upgraded;
        self.link.stream_ended();
        drop(was_upgraded.then(|| Awake::begin(&self.link.worker)));
        self.link.worker.shared.moved_on();
    }

    /// Leaves the ledger without closing: the connection goes on elsewhere (the lot), and is
    /// counted there.
    pub(crate) fn give_up(self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let kept = self.kept.load(Ordering::Relaxed);
        if !kept {
            // It had no deadlines.
            let was_upgraded = self.link.entry.state() == State::Upgraded;
            self.link.ended();
            drop(was_upgraded.then(|| Awake::begin(&self.link.worker)));
        }
        self.link.worker.ledger.leave(self.key);
        if self.connection.is_some() {
            self.link.worker.shared.moved_on();
        }
        if !kept && self.connection.is_none() {
            self.link.worker.shared.closed(1);
        }
    }
}
