//! The listeners of a running server: opened, given to an heir, opened again, closed.
//!
//! Invariant: what an heir may hold is never told to refuse, only closed: a filter would act on the
//! heir's socket too, and so would the removal of a path.

use crate::accept::{Accepting, Acceptor};
use crate::admin::Admin;
use crate::control::Place;
use crate::error::{Error, Kind};
use crate::keepsake::{self, Keepsake, Of};
use crate::listener::Listener;
use crate::mode::ModeName;
use crate::shared::Shared;
use curtsy_handover::Gift;
use curtsy_handover::wire::Kind as SocketKind;
use curtsy_lifecycle::Address;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The accepting tasks, and how to tell them.
pub(crate) struct Accepters {
    pub(crate) orders: watch::Sender<Accepting>,
    /// Each accepting task, and what became of it.
    pub(crate) tasks: JoinSet<Result<(), Error>>,
}

pub(crate) struct Doors {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) admin: Option<Admin>,
    pub(crate) shared: Arc<Shared>,
    /// What the program leaves to an heir.
    pub(crate) kept: Vec<Keepsake>,
    /// Where the control socket is.
    pub(crate) control: Option<Place>,
}

impl Doors {
    /// Starts accepting on all.
    pub(crate) fn open(&mut self) -> Result<Accepters, Error> {
        let (orders, heard) = watch::channel(Accepting::Yes);
        for listener in &self.listeners {
            tracing::info!(listener = listener.name, address = %listener.local, "accepting");
        }
        let tasks = acceptors(&mut self.listeners, &self.shared, &heard)?;
        if let Some(admin) = &self.admin {
            admin.open(&heard)?;
        }
        Ok(Accepters { orders, tasks })
    }

    /// Tells the kernel to take no new connection; the admin listener goes on. The acceptors have their own descriptors, and
    /// empty the queues.
    pub(crate) fn refuse_new(&mut self) {
        for listener in &mut self.listeners {
            listener.refuse_new();
        }
        self.listeners.clear();
    }

    /// Lets go of listeners that are another process's by now.
    pub(crate) fn leave(&mut self) {
        for mut listener in self.listeners.drain(..) {
            listener.disown();
        }
        if let Some(admin) = self.admin.take() {
            admin.leave();
        }
    }

    /// The listeners are this process's alone, and so is the control socket's path.
    pub(crate) fn own(&mut self) {
        for listener in &mut self.listeners {
            listener.own();
        }
        if let Some(admin) = &self.admin {
            admin.with_listener(Listener::own);
        }
        if let Some(control) = &self.control {
            control.claim();
        }
    }

    /// Everything an heir needs to accept.
    pub(crate) fn gift(&self) -> io::Result<Gift> {
        let mut gift = Gift::new();
        for listener in &self.listeners {
            self.give(&mut gift, listener)?;
        }
        let admin = self.admin.as_ref();
        // One that this process waits for, the heir waits for, too.
        admin
            .and_then(|admin| admin.with_listener(|listener| self.give(&mut gift, listener)))
            .transpose()?;
        let keys = self.shared.boards().iter().filter_map(|board| {
            Some(Keepsake {
                of: Of::Tickets,
                name: board.name.clone(),
                bytes: board.tls()?.tickets.export().to_vec(),
            })
        });
        let log_level = self.shared.log_level.lock();
        let log_level = log_level.unwrap_or_else(PoisonError::into_inner).clone();
        let log_level = log_level.map(|level| Keepsake {
            of: Of::LogLevel,
            name: String::new(),
            bytes: level.into_bytes(),
        });
        let kept = self.kept.iter().cloned();
        let keepsakes: Vec<Keepsake> = keys.chain(log_level).chain(kept).collect();
        if !keepsakes.is_empty() {
            gift.tickets(keepsake::encode(&keepsakes));
        }
        Ok(gift)
    }

    fn give(&self, gift: &mut Gift, listener: &Listener) -> io::Result<()> {
        let kind = match listener.local {
            Address::Tcp(_) => SocketKind::Tcp,
            Address::Unix(_) => SocketKind::Unix,
        };
        let sockets = listener.sockets.iter().map(AsFd::as_fd);
        let mode = match self.shared.board(&listener.name) {
            Ok(board) => board.epoch().mode.name().to_string(),
            Err(_) => ModeName::Plain.to_string(),
        };
        gift.listener(&listener.name, kind, &mode, sockets)
            .map(|_| ())
    }
}

/// Starts an accepting task for each listener and worker.
fn acceptors(
    listeners: &mut [Listener],
    shared: &Arc<Shared>,
    orders: &watch::Receiver<Accepting>,
) -> Result<JoinSet<Result<(), Error>>, Error> {
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let board = shared.board(&listener.name)?;
        let workers = shared.workers();
        // A socket each, or one for all; and no socket without a worker, for its queue would stand.
        for index in 0..workers.len().max(listener.sockets.len()) {
            let worker = &workers[index % workers.len()];
            let socket = &listener.sockets[index % listener.sockets.len()];
            let failed = |error| {
                let text = format!("cannot accept on {}", listener.local);
                Error::because(Kind::Accept, text, error)
            };
            let socket = socket.try_clone().map_err(failed)?;
            let _runtime = worker.handle.enter();
            let acceptor = Acceptor::new(socket, &listener.local, board.clone(), worker.clone())
                .map_err(failed)?;
            tasks.spawn_on(acceptor.run(orders.clone()), &worker.handle);
        }
    }
    Ok(tasks)
}
