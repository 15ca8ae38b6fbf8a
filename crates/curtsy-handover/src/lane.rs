//! Offering connections to an heir, and hearing what became of them.
//!
//! Invariant: each offer is answered once, in its own lane; one that cannot be made comes back at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::connection::Connection;
use crate::donor::Returned;

/// What became of an offered connection.
#[derive(Debug)]
pub enum Settled {
    /// It is the heir's.
    Taken,
    /// It is the donor's, as it was.
    Returned(Connection, Returned),
    /// The heir broke the protocol after BAKED: nobody can say whose it is, and this end of it was closed.
    Forgotten,
}

/// A way to offer connections, with the answers to what was offered through it. One for each worker.
///
/// To be read until [`Lane::settled`] says `None`, also after the handover has failed: a connection that comes back to a
/// lane that has been dropped is closed.
#[derive(Debug)]
pub struct Lane {
    commands: mpsc::UnboundedSender<Command>,
    answers: mpsc::UnboundedSender<(u64, Settled)>,
    settled: mpsc::UnboundedReceiver<(u64, Settled)>,
    ids: Arc<AtomicU64>,
    outstanding: usize,
}

impl Lane {
    pub(crate) fn new(commands: mpsc::UnboundedSender<Command>, ids: Arc<AtomicU64>) -> Self {
        let (answers, settled) = mpsc::unbounded_channel();
        Self {
            commands,
            answers,
            settled,
            ids,
            outstanding: 0,
        }
    }

    /// Offers a connection, and gives back the number under which [`Lane::settled`] will tell what became of it.
    ///
    /// The caller must have let go of it before: taken it out of its epoll set, and stopped reading and writing.
    pub fn offer(&mut self, connection: Connection) -> u64 {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        self.outstanding += 1;
        if let Err(unsent) =
            self.commands
                .send(Command::Offer(id, connection, self.answers.clone()))
        {
            let Command::Offer(_, connection, answers) = unsent.0 else {
                return id;
            };
            // The receiver is ours.
            let _ = answers.send((id, Settled::Returned(connection, Returned::Over)));
        }
        id
    }

    /// What became of one of the connections that were offered here; `None` when all have been told.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn settled(&mut self) -> Option<(u64, Settled)> {
        if self.outstanding == 0 {
            return None;
        }
        let settled = self.settled.recv().await;
        self.outstanding -= 1;
        settled
    }

    /// How many are unanswered.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }
}

/// What the server asks of a handover's task.
#[derive(Debug)]
pub(crate) enum Command {
    Offer(u64, Connection, mpsc::UnboundedSender<(u64, Settled)>),
    Finish(String),
    Cancel,
    Restart,
}
