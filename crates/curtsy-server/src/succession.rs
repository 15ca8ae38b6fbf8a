//! What a process takes over from the one before it, and what it needs to start the next.
//!
//! Taking over is asynchronous and comes before binding; so it is a step of its own, and
//! [`Builder::build`](crate::Builder::build) then finds the listeners by their names.

use crate::error::{Error, Kind};
use crate::ferry;
use crate::herald::Herald;
use crate::keepsake::{self, Keepsake, Of};
use crate::shared::Shared;
use curtsy_handover::broker::{Broker, Role};
use curtsy_handover::heir::Limits;
use curtsy_handover::{
    Arrival, Arrivals, Baker, Error as HandoverError, Inheritance, InheritedListener, Start,
    Summons, Upgrader, inherit, inherit_over,
};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A process's place in a row of processes that hand their service on.
///
/// Begin it early in `main`, before anything is bound, and give it to
/// [`Builder::succession`](crate::Builder::succession). The first process of a row finds nothing to
/// take over; a later one finds the listeners of the process that started it.
///
/// ```no_run
/// use curtsy_server::{Server, SignalKind, Succession};
///
/// # async fn main_() -> Result<(), curtsy_server::Error> {
/// # let service = hyper::service::service_fn(async |_: http::Request<curtsy_server::Body>| {
/// #     Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
/// # });
/// let succession = Succession::begin().await?;
/// println!("generation {}", succession.generation());
/// let server = Server::builder()
///     .listen(("main", "127.0.0.1:8080"))
///     .succession(succession)
///     .restart_on(SignalKind::hangup())
///     .build(service)?;
/// server.run().await?;
/// # Ok(()) }
/// ```
pub struct Succession {
    start: Start,
    inheritance: Option<Inheritance>,
    heirlooms: Vec<InheritedListener>,
    /// What the process before this one left.
    left: Vec<Keepsake>,
    /// What this one leaves.
    kept: Vec<Keepsake>,
    /// The supervisor that started this process, if it brokers.
    broker: Option<Broker>,
    pidfile: Option<PathBuf>,
    bake_after: Duration,
    ready_timeout: Duration,
}

impl Succession {
    /// How long a new process lives, by default, until the old one lets go of the listeners.
    pub const BAKE_AFTER: Duration = Duration::from_secs(1);
    /// How long a new process may take, by default, until it is ready.
    pub const READY_TIMEOUT: Duration = Duration::from_secs(30);

    /// Reads what this process was started with, and takes over from the process that started it if
    /// that one hands over.
    ///
    /// # Errors
    /// If there is a handover and it fails ([`Error::is_inherit`]): end the process, the old one goes
    /// on serving.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled. It must be the runtime that the server
    /// is run in.
    ///
    /// # Cancel safety
    /// Not cancel safe: the handover is given up, and the old process ends this one.
    pub async fn begin() -> Result<Self, Error> {
        let mut start = Start::capture();
        let broker = match start.summons {
            Some(_) => None,
            None => Broker::find(&start).unwrap_or_else(|error| {
                tracing::warn!(%error, "the supervisor cannot be reached; it does not broker");
                None
            }),
        };
        let inherited = match &broker {
            Some(broker) => inherit_by(broker, &mut start).await,
            None => inherit(&start).await,
        };
        let mut inheritance = inherited.map_err(|error| {
            Error::because(
                Kind::Inherit,
                "cannot take over from the old process",
                error,
            )
        })?;
        let mut heirlooms = Vec::new();
        let mut left = Vec::new();
        if let Some(inheritance) = &mut inheritance {
            let names: Vec<String> = inheritance
                .listeners()
                .iter()
                .map(|listener| listener.name.clone())
                .collect();
            heirlooms.extend(
                names
                    .iter()
                    .filter_map(|name| inheritance.take_listener(name)),
            );
            left = keepsake::decode(inheritance.tickets().unwrap_or_default());
            // The old process may have died meanwhile; its number still counts.
            start.summons = start.summons.or(start.stale);
        }
        Ok(Self {
            start,
            inheritance,
            heirlooms,
            left,
            kept: Vec::new(),
            broker,
            pidfile: None,
            bake_after: Self::BAKE_AFTER,
            ready_timeout: Self::READY_TIMEOUT,
        })
    }

    /// 0 for the first process, one more for each that follows.
    pub fn generation(&self) -> u64 {
        match &self.inheritance {
            Some(inheritance) => u64::from(inheritance.generation()),
            None => u64::from(self.start.generation()),
        }
    }

    /// Whether there was a process before this one.
    pub fn is_heir(&self) -> bool {
        self.inheritance.is_some()
    }

    /// The number of the process before this one, which need not have started it.
    pub(crate) fn donor(&self) -> Option<u32> {
        self.inheritance.as_ref().map(Inheritance::donor_pid)
    }

    /// How long this process, as a new one, lives until the old one lets go of the listeners. Until
    /// then its death brings the old one back. Default 1 s.
    #[must_use]
    pub fn bake_after(mut self, after: Duration) -> Self {
        self.bake_after = after;
        self
    }

    /// How long the next process may take until it is ready; then it is ended and this one goes on.
    /// Default 30 s.
    #[must_use]
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }

    /// Writes the number of the process that serves into a file: the new process's, at once and whole,
    /// when it has proved itself.
    #[must_use]
    pub fn pidfile(mut self, path: impl Into<PathBuf>) -> Self {
        self.pidfile = Some(path.into());
        self
    }

    /// What the process before this one left under a name ([`Succession::keep`]).
    pub fn keepsake(&self, name: &str) -> Option<&[u8]> {
        let found = self
            .left
            .iter()
            .find(|left| left.of == Of::Program && left.name == name);
        found.map(|left| left.bytes.as_slice())
    }

    /// Leaves something to the next process, which finds it by its name: a key that must not touch a
    /// disk, say. It goes from process to process only if each keeps it again.
    ///
    /// # Errors
    /// If it is more than 32 KiB, with everything that was kept before.
    pub fn keep(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Result<Self, Error> {
        self.kept.push(Keepsake {
            of: Of::Program,
            name: name.to_owned(),
            bytes: bytes.into(),
        });
        let size: usize = self.kept.iter().map(|kept| kept.bytes.len()).sum();
        if size > keepsake::MOST_BYTES {
            let text = format!("{name:?} is too large to be left to the next process");
            return Err(Error::new(Kind::Config, text));
        }
        Ok(self)
    }

    /// What this process leaves to the next, beside its listeners.
    pub(crate) fn kept(&self) -> Vec<Keepsake> {
        self.kept.clone()
    }

    /// Lets the listeners go on with the ticket keys they had.
    pub(crate) fn resume_tickets(&self, shared: &Shared) {
        for left in self.left.iter().filter(|left| left.of == Of::Tickets) {
            let config = shared.board(&left.name).ok().and_then(|board| board.tls());
            // A listener that does not encrypt any more has no use for them.
            if let Some(config) = config
                && !config.tickets.adopt(&left.bytes)
            {
                tracing::warn!(listener = left.name, "its ticket keys cannot be used");
            }
        }
    }

    /// How much the process before this one logged, if somebody had said so.
    pub(crate) fn log_level(&self) -> Option<&str> {
        let found = self.left.iter().find(|left| left.of == Of::LogLevel);
        found.and_then(|left| std::str::from_utf8(&left.bytes).ok())
    }

    /// What was handed over, for whoever binds; `None` in a first process.
    pub(crate) fn heirlooms(&mut self) -> Option<&mut Vec<InheritedListener>> {
        self.inheritance.as_ref().map(|_| &mut self.heirlooms)
    }

    /// Who tells of this process, and whether it is the service as soon as it serves.
    pub(crate) fn herald(&self) -> Herald {
        Herald::new(&self.start, self.pidfile.clone())
    }

    /// Who may ask for more, by and by.
    pub(crate) fn take_broker(&mut self) -> Option<Broker> {
        self.broker.take()
    }

    /// What starts the next process.
    pub(crate) fn upgrader(&self) -> Upgrader {
        let upgrader = Upgrader::new(self.start.clone()).ready_timeout(self.ready_timeout);
        match &self.inheritance {
            Some(inheritance) => upgrader.ancestors(inheritance.ancestors()),
            None => upgrader,
        }
    }

    /// Says that this process accepts now, and takes the old one's connections from here on.
    pub(crate) async fn ready(
        self,
        shared: &Arc<Shared>,
        restart: impl Fn() + Send + 'static,
        is_brokered: bool,
    ) -> Result<Option<Heir>, Error> {
        let Some(inheritance) = self.inheritance else {
            return Ok(None);
        };
        let arrivals = inheritance.ready(None).await.map_err(|error| {
            Error::because(Kind::Inherit, "the old process goes on serving", error)
        })?;
        let baker = arrivals.baker();
        let enough = Arc::new(Notify::new());
        shared.arriving.store(true, Ordering::Release);
        tokio::spawn(receive(arrivals, shared.clone(), enough.clone(), restart));
        Ok(Some(Heir {
            baker,
            is_on_trial: true,
            bake_at: (!is_brokered).then(|| Instant::now() + self.bake_after),
            enough,
        }))
    }
}

impl fmt::Debug for Succession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Succession")
            .field("generation", &self.generation())
            .field("program", &self.start.program)
            .field("heir", &self.is_heir())
            .finish_non_exhaustive()
    }
}

/// Takes over by way of the supervisor that started both.
async fn inherit_by(
    broker: &Broker,
    start: &mut Start,
) -> Result<Option<Inheritance>, HandoverError> {
    let summons = |generation| Summons {
        // Neither is found by its number.
        channel: 0,
        stderr: None,
        parent: start.parent.unwrap_or_default(),
        generation,
    };
    match broker.role().await {
        Ok(Role::First { generation }) => {
            start.summons = Some(summons(generation));
            Ok(None)
        }
        Ok(Role::Heir {
            generation,
            channel,
        }) => {
            let summons = summons(generation);
            start.summons = Some(summons);
            let inherited = inherit_over(channel, None, summons, Limits::default());
            inherited.await.map(Some)
        }
        Err(error) => {
            tracing::warn!(%error, "the supervisor says nothing; it does not broker");
            Ok(None)
        }
    }
}

/// A process that has taken over.
pub(crate) struct Heir {
    baker: Baker,
    is_on_trial: bool,
    /// When this process has lived long enough, if nobody else is to say so.
    bake_at: Option<Instant>,
    enough: Arc<Notify>,
}

impl Heir {
    /// Whether the old process may still come back.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.is_on_trial
    }

    /// Waits until this process has lived long enough; for ever once it has been said.
    pub(crate) async fn proved(&self) {
        match self.bake_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Tells the old process to let go of the listeners.
    pub(crate) fn bake(&mut self) {
        self.is_on_trial = false;
        self.bake_at = None;
        self.baker.bake();
    }

    /// Takes no more connections from the old process.
    pub(crate) fn refuse(&self) {
        self.enough.notify_one();
    }
}

/// Takes what the old process offers until it is gone, one worker after the other.
async fn receive(
    mut arrivals: Arrivals,
    shared: Arc<Shared>,
    enough: Arc<Notify>,
    restart: impl Fn(),
) {
    let mut turn = 0;
    loop {
        let arrival = tokio::select! {
            arrival = arrivals.next() => arrival,
            () = enough.notified() => {
                arrivals.stop();
                continue;
            }
        };
        match arrival {
            Some(Arrival::Connection(connection)) => {
                let workers = shared.workers();
                let Some(worker) = workers.get(turn % workers.len().max(1)) else {
                    continue;
                };
                turn += 1;
                shared.opened();
                worker.tally.adopted();
                ferry::adopt(connection, worker);
            }
            Some(Arrival::Restart) => restart(),
            Some(Arrival::DonorGone(report)) => {
                tracing::info!(report, "the old process is gone");
            }
            None => break,
        }
    }
    shared.arriving.store(false, Ordering::Release);
    shared.quiet.notify_one();
}
