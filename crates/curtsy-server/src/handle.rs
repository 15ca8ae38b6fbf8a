//! The handle: how a running server is asked and steered, from any task and any thread.
//!
//! Invariant: what is asked before the server runs is kept, and done when it does.

use crate::error::{Error, Kind};
use crate::metrics::Metrics;
use crate::mode::{Mode, ModeName};
use crate::restart::{Reply, Restarted};
use crate::server::Outcome;
use crate::shared::{Orders, Shared};
use crate::shutdown::Wish;
use curtsy_lifecycle::{Draining, Phase, Snapshot};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

/// Steers a server from anywhere: another task, another thread, a handler.
#[derive(Clone)]
pub struct Handle {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) wishes: mpsc::UnboundedSender<Wish>,
    pub(crate) restarts: mpsc::UnboundedSender<Reply>,
    pub(crate) phases: watch::Receiver<Phase>,
    pub(crate) result: watch::Receiver<Option<Outcome>>,
    pub(crate) before_run: Mutex<BeforeRun>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BeforeRun {
    running: bool,
    stopped: bool,
}

impl Inner {
    /// Whether somebody wanted it stopped; from here on wishes go to the driver.
    pub(crate) fn is_stopped_before_run(&self) -> bool {
        let mut before = self
            .before_run
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        before.running = true;
        before.stopped
    }

    fn wish(&self, wish: Wish) {
        let mut before = self
            .before_run
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if before.running {
            // It fails only when the server has stopped: nothing is left to wish for.
            let _ = self.wishes.send(wish);
        } else if !matches!(wish, Wish::Recall(_)) {
            before.stopped = true;
        }
    }
}

impl Handle {
    /// Drains the server and waits for the end; the report of that one drain, however many ask.
    /// `None` if the server never ran, or was dropped.
    ///
    /// Cancel safety: dropping the future gives up the wait, not the drain.
    pub async fn shutdown(&self) -> Option<Outcome> {
        self.wish_shutdown();
        self.stopped().await
    }

    /// Asks for a drain and does not wait. A second wish joins the first.
    pub fn wish_shutdown(&self) {
        self.inner.wish(Wish::Shutdown);
    }

    /// Takes the wish back while the server is a lame duck; later it does nothing.
    pub fn recall(&self) {
        self.inner.wish(Wish::Recall(oneshot::channel().0));
    }

    /// Takes the wish back, and says whether that was in time.
    ///
    /// # Errors
    /// If the server is not a lame duck ([`Error::is_control`]): it drains already, or nobody wished
    /// it to.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the answer, not the recall.
    pub async fn undrain(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.inner.wish(Wish::Recall(reply));
        let refused = |why: &str| Err(Error::new(Kind::Control, format!("not undrained: {why}")));
        match answer.await {
            Ok(Phase::LameDuck) => Ok(()),
            Ok(Phase::Serving) => refused("the server is not draining"),
            Ok(Phase::Draining) => refused("it is too late, the drain has begun"),
            Ok(Phase::Starting | Phase::Stopped) | Err(_) => refused("the server is not running"),
        }
    }

    /// Closes every connection at once, whatever it is doing, and runs no hooks.
    pub fn close(&self) {
        self.inner.wish(Wish::Close);
    }

    /// Restarts the program: starts the running executable's path again with the same arguments,
    /// environment and directory, and hands it the listeners and, as they fall idle, the
    /// connections. Returns when the new process has proved itself; this one drains then, and
    /// [`Server::run`](crate::Server::run) returns.
    ///
    /// During another restart it waits for that one: if it fails, this one has its turn; if it
    /// succeeds, the new process is asked in this one's place.
    ///
    /// # Errors
    /// Why there is no new process ([`Error::is_restart`]): it could not be started, ended, was not
    /// ready in time, or the server is stopping. This process goes on as before.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the answer, not the restart.
    pub async fn restart(&self) -> Result<Restarted, Error> {
        let (reply, answer) = oneshot::channel();
        let stopped = || Error::new(Kind::Restart, "the server has stopped");
        self.inner.restarts.send(reply).map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Asks for a restart and does not wait.
    pub(crate) fn restarter(&self) -> impl Fn() + Send + Sync + 'static {
        let restarts = self.inner.restarts.clone();
        move || {
            // It fails only when the server has stopped.
            let _ = restarts.send(oneshot::channel().0);
        }
    }

    /// Waits until the server has stopped, whoever stopped it. `None` if it never ran, or was
    /// dropped.
    pub async fn stopped(&self) -> Option<Outcome> {
        let mut result = self.inner.result.clone();
        let outcome = result.wait_for(Option::is_some).await;
        outcome.ok().and_then(|outcome| outcome.clone())
    }

    /// Waits for a phase, or a later one. False if the server was dropped before.
    pub async fn reached(&self, phase: Phase) -> bool {
        let mut phases = self.inner.phases.clone();
        phases.wait_for(|now| *now >= phase).await.is_ok()
    }

    /// Turns keep-alive off or on. Off: idle connections close, after a look at each, and every
    /// answer closes its connection.
    pub fn set_keep_alives(&self, enabled: bool) {
        let shared = &self.inner.shared;
        if enabled {
            shared.orders.withdraw(Orders::CLOSE_IDLE);
            return;
        }
        shared.orders.give(Orders::CLOSE_IDLE);
        for worker in shared.workers() {
            worker.ledger.wake_all();
            worker.lot.clear(worker);
        }
    }

    /// Switches the listener of that name to another mode. Connections that the new mode would not
    /// take are drained by the old one: their next answer closes them, idle ones are listened to
    /// for the drain's linger. The socket stays as it is, and so does its queue.
    ///
    /// # Errors
    /// If there is no such listener or the certificate has expired; then nothing has changed.
    pub fn switch(&self, listener: &str, mode: Mode) -> Result<(), Error> {
        crate::mode::switch(&self.inner.shared, listener, mode)
    }

    /// Switches the listener of that name to the mode of that name, with the certificates that it
    /// had last or has in reserve.
    ///
    /// # Errors
    /// As for [`Handle::switch`], and if there are no certificates.
    pub fn switch_to(&self, listener: &str, mode: ModeName) -> Result<(), Error> {
        let mode = self.inner.shared.board(listener)?.named(mode)?;
        self.switch(listener, mode)
    }

    /// The mode of the listener of that name, if there is one.
    pub fn mode(&self, listener: &str) -> Option<ModeName> {
        let board = self.inner.shared.board(listener).ok()?;
        Some(board.epoch().mode.name())
    }

    /// Reads all listeners' certificates that came from files again. Blocks on the file system for
    /// as long as the files take to read.
    ///
    /// # Errors
    /// Of each listener the first; its old certificates stay then. And if no listener has any.
    pub fn reload_certificates(&self) -> Result<(), Error> {
        let configs = self
            .inner
            .shared
            .boards()
            .iter()
            .filter_map(|board| board.tls());
        let reloaded: Vec<_> = configs
            .map(|config| config.certificates().reload())
            .collect();
        if reloaded.is_empty() {
            return Err(Error::new(
                Kind::Config,
                "there are no certificates to read again",
            ));
        }
        reloaded.into_iter().collect()
    }

    /// The files that [`Handle::reload_certificates`] reads.
    pub(crate) fn certificate_files(&self) -> Vec<PathBuf> {
        let boards = self.inner.shared.boards().iter();
        let configs = boards.filter_map(|board| board.tls());
        configs
            .flat_map(|config| config.certificates().files())
            .collect()
    }

    /// The phase the server is in.
    pub fn phase(&self) -> Phase {
        self.inner.shared.phase()
    }

    /// What the server is doing: phase, connections by state, stragglers oldest first. It looks at
    /// every connection, and disturbs none; one that is just being parked may be counted twice.
    pub fn snapshot(&self) -> Snapshot {
        self.inner.shared.snapshot()
    }

    /// What has been counted since the server was built. Nothing is disturbed by it; it costs a look at every
    /// connection.
    pub fn metrics(&self) -> Metrics {
        Metrics::gather(&self.inner.shared)
    }

    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.inner.phases.clone()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// The server's drain, as a flag and a future: for tasks of the program that should end with
    /// it.
    pub fn draining(&self) -> Draining {
        Draining::of_server(self.inner.shared.signal.clone())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("phase", &self.phase())
            .field("open", &self.inner.shared.open())
            .finish_non_exhaustive()
    }
}
