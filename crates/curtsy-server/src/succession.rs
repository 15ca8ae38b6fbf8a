//! What a process takes over from the one before it, and what it needs to start the next.
//!
//! Taking over is asynchronous and comes before binding; so it is a step of its own, and
//! [`Builder::build`](crate::Builder::build) then finds the listeners by their names.

use crate::error::{Error, Kind};
use crate::ferry;
use crate::shared::Shared;
use curtsy_handover::{
    Arrival, Arrivals, Baker, Inheritance, InheritedListener, Start, Upgrader, inherit,
};
use std::fmt;
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
        let mut inheritance = inherit(&start).await.map_err(|error| {
            Error::because(
                Kind::Inherit,
                "cannot take over from the old process",
                error,
            )
        })?;
        let mut heirlooms = Vec::new();
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
            // The old process may have died meanwhile; its number still counts.
            start.summons = start.summons.or(start.stale);
        }
        Ok(Self {
            start,
            inheritance,
            heirlooms,
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

    /// What was handed over, for whoever binds; `None` in a first process.
    pub(crate) fn heirlooms(&mut self) -> Option<&mut Vec<InheritedListener>> {
        self.inheritance.as_ref().map(|_| &mut self.heirlooms)
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
            bake_at: Some(Instant::now() + self.bake_after),
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

/// A process that has taken over.
pub(crate) struct Heir {
    baker: Baker,
    bake_at: Option<Instant>,
    enough: Arc<Notify>,
}

impl Heir {
    /// Whether the old process may still come back.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.bake_at.is_some()
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
