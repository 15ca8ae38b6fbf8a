//! The server as programs hold it: built, run, and steered from anywhere by its handle.

use crate::access_log::AccessLog;
use crate::admin::{Admin, AdminAddress, AdminListener};
use crate::control::{self, ControlSocket, LogLevelHook, Steered};
use crate::doors::Doors;
use crate::error::{Error, Kind};
use crate::handle::{Handle, Inner};
use crate::hooks::{Hooks, ShutdownHook};
use crate::limits::Limits;
use crate::listener::{ListenOn, Listener, Source, bind_all};
use crate::note::connection_span;
use crate::restart::{Plea, Reply, RestartHook, RestartStep, Restarting, Restarts, Stage};
use crate::service::{BoxError, IntoService, Service};
use crate::shared::{Manners, OnDisconnect, Shared};
use crate::shutdown::{Driver, Ended, Wish};
use crate::signals::Stopping;
use crate::succession::Succession;
use crate::threads::Threads;
use crate::worker::{Fresh, Launch, Speaks, Worker};
use curtsy_handover::Start;
use curtsy_handover::broker::is_supervised;
use curtsy_lifecycle::{Address, ConnectionInfo, Drain, DrainPolicy, Ending, Phase, Report, State};
use http::Extensions;
use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::SignalKind;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::Instrument;

/// How a server's run ended. None of these is an error: the server was told to stop, and did.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Everything finished.
    Drained(Report),
    /// The deadline came first; the report names what was still running.
    DeadlinePassed(Report),
    /// It was told to end at once; the report names what was still running.
    Closed(Report),
}

impl Outcome {
    /// The report, whichever way it went.
    pub fn report(&self) -> &Report {
        match self {
            Self::Drained(report) | Self::DeadlinePassed(report) | Self::Closed(report) => report,
        }
    }

    /// Whether everything finished.
    pub fn is_drained(&self) -> bool {
        matches!(self, Self::Drained(_))
    }
}

impl From<Report> for Outcome {
    fn from(report: Report) -> Self {
        match report.ending {
            Ending::Drained => Self::Drained(report),
            Ending::DeadlinePassed => Self::DeadlinePassed(report),
            Ending::Closed => Self::Closed(report),
        }
    }
}

/// An HTTP server whose listeners are bound.
///
/// ```
/// use curtsy_server::{Outcome, Server};
/// use http::Response;
/// use std::convert::Infallible;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let service = hyper::service::service_fn(async |_: http::Request<curtsy_server::Body>| {
///     Ok::<_, Infallible>(Response::new("Hello, World!".to_owned()))
/// });
/// let server = Server::builder()
///     .listen(("main", "127.0.0.1:0"))
///     .on_shutdown(async || { /* flush, say goodbye */ })
///     .build(service)?;
/// let handle = server.handle();
/// # let stopper = handle.clone();
/// # tokio::spawn(async move {
/// #     stopper.reached(curtsy_server::Phase::Serving).await;
/// #     stopper.wish_shutdown();
/// # });
/// // elsewhere: handle.shutdown().await;
/// match server.run().await? {
///     Outcome::Drained(report) => println!("{report}"),
///     Outcome::DeadlinePassed(report) | Outcome::Closed(report) => eprintln!("{report}"),
/// }
/// # Ok::<(), curtsy_server::Error>(()) }).unwrap();
/// ```
#[must_use = "a server serves only while it runs"]
pub struct Server {
    listeners: Vec<Listener>,
    workers: Option<NonZeroUsize>,
    launch: Box<dyn Launch>,
    hooks: Vec<ShutdownHook>,
    drain: DrainPolicy,
    signals: bool,
    control: Option<ControlSocket>,
    admin: Option<AdminListener>,
    log_level: Option<LogLevelHook>,
    watch_certificates: Option<Duration>,
    succession: Option<Succession>,
    restart_on: Vec<SignalKind>,
    restart_hook: Option<RestartHook>,
    handle: Handle,
    wishes: mpsc::UnboundedReceiver<Wish>,
    restart_wishes: mpsc::UnboundedReceiver<Reply>,
    phases: watch::Sender<Phase>,
    result: watch::Sender<Option<Outcome>>,
}

impl Server {
    /// A server to be described.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A handle to steer the server with.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The listeners: name and address, the port the kernel chose included.
    pub fn listeners(&self) -> impl Iterator<Item = (&str, &Address)> {
        self.listeners
            .iter()
            .map(|listener| (listener.name.as_str(), &listener.local))
    }

    /// Where the admin listener is, if there is one; `None` as well while another process has its address.
    pub fn admin(&self) -> Option<&Address> {
        self.admin.as_ref().and_then(AdminListener::address)
    }

    /// Serves until it is told to stop and the drain is over.
    ///
    /// Unless [`Builder::signals`] says otherwise, SIGINT, SIGTERM and SIGQUIT stop it, and a
    /// second one of them cuts.
    ///
    /// # Errors
    /// If the server was stopped before it ran ([`Error::is_server_closed`]), if accepting failed
    /// for good ([`Error::is_accept`]; what was connected has been served to its end), or if
    /// threads or signals could not be had.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    ///
    /// # Cancel safety
    /// Dropping the future drops the listeners and leaves the connections to their tasks: nothing
    /// is drained. Stop it by its handle instead.
    pub async fn run(self) -> Result<Outcome, Error> {
        // A large future, which whoever awaits it need not hold in its own.
        Box::pin(self.serve()).await
    }

    async fn serve(self) -> Result<Outcome, Error> {
        let Self {
            listeners,
            workers,
            launch,
            hooks,
            drain,
            signals,
            control,
            admin,
            log_level,
            watch_certificates,
            mut succession,
            restart_on,
            restart_hook,
            handle,
            wishes,
            restart_wishes,
            phases,
            result,
        } = self;
        let shared = handle.inner.shared.clone();
        if handle.inner.is_stopped_before_run() {
            return Err(Error::new(
                Kind::Closed,
                "the server was stopped before it ran",
            ));
        }
        let stopping = signals.then(Stopping::catch).transpose()?;
        let restarting = Restarting::catch(&restart_on)?;
        let threads = Threads::start(workers, &shared, launch)?;
        let upgrader = succession.as_ref().map(Succession::upgrader);
        let kept = succession.as_ref().map(Succession::kept);
        let herald = succession.as_ref().map(Succession::herald);
        let broker = succession.as_mut().and_then(Succession::take_broker);
        let heir = match succession {
            // From here on the old process does not accept.
            Some(succession) => {
                let is_brokered = broker.is_some();
                let restart = handle.restarter();
                succession.ready(&shared, restart, is_brokered).await?
            }
            None => None,
        };
        let (admin, last_words) = admin.map(|admin| Admin::new(admin, handle.clone())).unzip();
        let mut doors = Doors {
            listeners,
            admin,
            shared: shared.clone(),
            kept: kept.unwrap_or_default(),
            control: control.as_ref().map(ControlSocket::place),
        };
        let accepters = doors.open()?;

        let watching =
            watch_certificates.map(|every| tokio::spawn(crate::tls::watch(handle.clone(), every)));
        let steered = || Arc::new(Steered::new(handle.clone(), log_level));
        let hearing = control
            .map(|control| {
                let drains = handle.clone();
                // Whoever drains is not who is to be steered; nor is one that was dropped.
                let too_late = async move {
                    let _ = drains.reached(Phase::Draining).await;
                };
                control.serve_unless(steered(), too_late)
            })
            .transpose()?;
        let restart = Arc::new(handle.restarter());
        let mut obeying = JoinSet::new();
        obeying.spawn(restarting.obey(restart));
        if hearing.is_some() {
            obeying.spawn(control::tell_progress(shared.clone()));
        }
        if let Some(stopping) = stopping {
            obeying.spawn(stopping.obey(handle.clone()));
        }
        let driver = Driver {
            shared: shared.clone(),
            drain: Drain::new(drain),
            wishes,
            accepters,
            doors,
            restarts: Restarts {
                upgrader,
                wishes: restart_wishes,
                hook: Some(crate::metrics::counting(shared.clone(), restart_hook)),
                herald: herald.unwrap_or_default(),
                broker,
                is_brokered: false,
                plea: Plea::None,
                crier: shared.crier.clone(),
                heir,
                stage: Stage::Alone,
                asked: Vec::new(),
                waiting: Vec::new(),
                moving: JoinSet::new(),
                ready_at: std::time::Instant::now(),
                passing: JoinSet::new(),
                stop_wished: false,
            },
            hooks,
            phases,
        };
        let Ended { report, failure } = driver.run().await;
        drop(obeying);
        if let Some(watching) = watching {
            watching.abort();
        }
        shared.crier.tell_end(&report);
        if let Some(hearing) = hearing {
            // Its path is gone when the server is.
            hearing.end().await;
        }
        threads.stop();
        let outcome = Outcome::from(report);
        result.send_replace(Some(outcome.clone()));
        if let Some(log) = shared.access_log.get() {
            log.finish().await;
        }
        if let Some(last_words) = last_words {
            last_words.said().await;
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(outcome),
        }
    }
}

impl Server {
    /// [`Server::run`] for programs that are not asynchronous: blocks until the server has stopped.
    ///
    /// # Errors
    /// Those of [`Server::run`]; and inside a tokio runtime, whose thread it would block.
    pub fn run_blocking(self) -> Result<Outcome, Error> {
        if tokio::runtime::Handle::try_current().is_ok() {
            return Err(Error::new(
                Kind::Runtime,
                "this program is asynchronous already; await `Server::run` instead of blocking",
            ));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::because(Kind::Runtime, "cannot start a runtime", e))?;
        let outcome = runtime.block_on(self.run());
        // A handler that blocks its thread must not keep the program from ending.
        runtime.shutdown_background();
        outcome
    }
}

/// Describes a server.
#[must_use]
pub struct Builder {
    listeners: Vec<ListenOn>,
    workers: Option<NonZeroUsize>,
    limits: Limits,
    drain: DrainPolicy,
    manners: Manners,
    signals: bool,
    generation: u64,
    control: Option<control::Wanted>,
    admin: Option<AdminAddress>,
    access_log: Option<AccessLog>,
    log_level: Option<LogLevelHook>,
    watch_certificates: Option<Duration>,
    succession: Option<Succession>,
    restart_on: Vec<SignalKind>,
    restart_hook: Option<RestartHook>,
    shutdown_hooks: Vec<ShutdownHook>,
    hooks: Hooks,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            workers: None,
            limits: Limits::default(),
            drain: DrainPolicy::default(),
            manners: Manners {
                on_disconnect: OnDisconnect::Cancel,
                extensions: true,
                service_answers_options_star: false,
            },
            signals: true,
            generation: 0,
            control: None,
            admin: None,
            access_log: None,
            log_level: None,
            watch_certificates: None,
            succession: None,
            restart_on: Vec::new(),
            restart_hook: None,
            shutdown_hooks: Vec::new(),
            hooks: Hooks::default(),
        }
    }
}

impl Builder {
    /// Adds a listener: an address (`":8080"`, `"unix:/run/app.sock"`), a socket that is bound
    /// already, or [`ListenOn::inherited`]; with a name if a pair of name and listener is given.
    /// Call it again for more.
    pub fn listen(mut self, on: impl Into<ListenOn>) -> Self {
        self.listeners.push(on.into());
        self
    }

    /// Serves from that many threads, each with a runtime, connections and accepting of its own,
    /// instead of the runtime that the server is run in.
    pub fn workers(mut self, workers: NonZeroUsize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Sets the limits of time, size and number.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how the server drains.
    pub fn drain(mut self, policy: DrainPolicy) -> Self {
        self.drain = policy;
        self
    }

    /// What happens to a handler whose client has gone.
    pub fn on_disconnect(mut self, what: OnDisconnect) -> Self {
        self.manners.on_disconnect = what;
        self
    }

    /// Whether each request's extensions carry a [`ConnectionInfo`] and a [`Draining`](crate::Draining); they do by
    /// default. A service that takes them from [`Body::connection`](crate::Body::connection) saves
    /// the few allocations.
    pub fn connection_in_extensions(mut self, whether: bool) -> Self {
        self.manners.extensions = whether;
        self
    }

    /// Whether `OPTIONS *` goes to the service; by default the server answers it.
    pub fn service_answers_options_star(mut self, whether: bool) -> Self {
        self.manners.service_answers_options_star = whether;
        self
    }

    /// Whether SIGINT, SIGTERM and SIGQUIT stop the server; they do by default.
    pub fn signals(mut self, whether: bool) -> Self {
        self.signals = whether;
        self
    }

    /// The number of this process in a row of successors.
    pub fn generation(mut self, generation: u64) -> Self {
        self.generation = generation;
        self
    }

    /// Lets the server be steered over a Unix socket at `path` (see [`Control`](crate::Control) and
    /// [`control_path`](crate::control_path)); only by its own user and by root. Of several processes of one supervisor,
    /// one has it, as with [`Builder::admin`].
    pub fn control(mut self, path: impl Into<PathBuf>) -> Self {
        self.control = Some(control::Wanted::needed(path.into()));
        self
    }

    /// The same; but where the socket cannot be, the server goes on without one and logs why. For a
    /// path that nobody chose.
    pub fn control_if_possible(mut self, path: impl Into<PathBuf>) -> Self {
        self.control = Some(control::Wanted::if_possible(path.into()));
        self
    }

    /// Lets the control socket change how much is logged. The server does not log by itself, so it is
    /// the program that knows how; what `hook` takes is its own to say. Its error is told to whoever
    /// asked.
    ///
    /// ```no_run
    /// # use curtsy_server::Server;
    /// # fn set_filter(_: &str) -> Result<(), std::num::ParseIntError> { Ok(()) }
    /// # // With tracing_subscriber's `reload::Handle`: `handle.reload(EnvFilter::try_new(level)?)?`.
    /// let server = Server::builder().on_log_level(|level| Ok(set_filter(level)?));
    /// ```
    pub fn on_log_level<F>(mut self, hook: F) -> Self
    where
        F: Fn(&str) -> Result<(), BoxError> + Send + Sync + 'static,
    {
        self.log_level = Some(Arc::new(hook));
        self
    }

    /// Tells operators and orchestrators what the server is doing, over HTTP at `address`: `/` is a page, `/metrics` is
    /// for Prometheus, `/livez` and `/readyz` for whoever starts and routes, `/status` and `/events` are JSON. On loopback,
    /// unless a host is named: `9001` and `:9001` are `127.0.0.1:9001`.
    ///
    /// Its connections are none of the server's, and it answers until the drain is over. In a program whose sockets are a
    /// supervisor's, which may keep several processes of it, one has the address; the others say so in the log, serve
    /// without it, and take it when it is free.
    pub fn admin(mut self, address: impl Into<AdminAddress>) -> Self {
        self.admin = Some(address.into());
        self
    }

    /// Writes a line for each request, by a thread of its own: what it cannot keep up with is dropped and counted. There
    /// is none by default.
    pub fn access_log(mut self, log: AccessLog) -> Self {
        self.access_log = Some(log);
        self
    }

    /// Looks at the certificates' files every so often, and reads them again when they have
    /// changed. Ones that cannot be used are logged, and the old ones stay.
    pub fn watch_certificates(mut self, every: Duration) -> Self {
        self.watch_certificates = Some(every);
        self
    }

    /// Makes the server one of a row that hand their service on: it takes the listeners of the
    /// process before it by their names (a name that is new is bound, one that nobody asks for is
    /// closed), and can be restarted.
    pub fn succession(mut self, succession: Succession) -> Self {
        self.generation = succession.generation();
        self.succession = Some(succession);
        self
    }

    /// Restarts with this signal, as [`Handle::restart`] does; SIGHUP by custom. Call it again for
    /// more. It needs a [`Builder::succession`].
    pub fn restart_on(mut self, signal: SignalKind) -> Self {
        self.restart_on.push(signal);
        self
    }

    /// Calls `hook` with each step of a restart, whoever asked for it. Keep it short.
    pub fn on_restart<F>(mut self, hook: F) -> Self
    where
        F: FnMut(&RestartStep<'_>) + Send + 'static,
    {
        self.restart_hook = Some(Box::new(hook));
        self
    }

    /// Adds something to do when the server drains. All hooks run once, at the same time, beside
    /// the drain, and are awaited up to its deadline. A panic in one stops neither the others nor
    /// the drain.
    pub fn on_shutdown<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.shutdown_hooks.push(Box::new(move || Box::pin(hook())));
        self
    }

    /// Calls `hook` with every change of a connection's state, on the thread that serves it. Keep
    /// it short. A panic in it is logged, and changes nothing for the connection.
    pub fn on_connection_state<F>(mut self, hook: F) -> Self
    where
        F: Fn(&ConnectionInfo, State) + Send + Sync + 'static,
    {
        // It is called where connections are accepted and where they are dropped: neither may panic.
        self.hooks.state = Some(Arc::new(move |connection: &ConnectionInfo, state| {
            if catch_unwind(AssertUnwindSafe(|| hook(connection, state))).is_err() {
                tracing::error!(%state, "the hook for connections' states panicked");
            }
        }));
        self
    }

    /// Calls `hook` on a worker's thread a second after the last of its busy connections was parked or
    /// closed, whatever it spoke; WebSockets over HTTP/1 do not count as busy, but their ends do as
    /// something that happened. While others stay busy, once a second at most and only when thousands were parked.
    /// Each worker calls it by itself; a server in a runtime of many threads calls it on one of
    /// them.
    ///
    /// It is the moment to give memory back: allocators keep what a busy minute has used, and some
    /// never look again while nothing is asked of them.
    pub fn on_quiet<F>(mut self, hook: F) -> Self
    where
        F: Fn() + Send + Sync + 'static,
    {
        self.hooks.quiet = Some(Arc::new(hook));
        self
    }

    /// Calls `hook` for each connection; what it puts into the extensions goes into each of the
    /// connection's requests. The listener is known by [`ConnectionInfo::listener`]. A connection
    /// that rested for long is asked again. A panic in the hook ends that connection alone.
    pub fn on_connection<F>(mut self, hook: F) -> Self
    where
        F: Fn(&ConnectionInfo, &mut Extensions) + Send + Sync + 'static,
    {
        self.hooks.connection = Some(Arc::new(hook));
        self
    }

    /// Whether there may be other processes of the same program: those of a supervisor, which alone has the sockets.
    fn has_company(&self) -> bool {
        let is_inherited = |on: &ListenOn| matches!(on.source, Source::Inherited);
        self.listeners.iter().any(is_inherited) || is_supervised(&Start::capture())
    }

    /// Binds the listeners and makes the server of them and `service`.
    ///
    /// # Errors
    /// If an address cannot be understood or bound, if nothing is to be listened on, or if an
    /// option is out of range. Nothing is left bound then.
    pub fn build<S, Kind>(mut self, service: S) -> Result<Server, Error>
    where
        S: IntoService<Kind>,
    {
        if self.listeners.is_empty() {
            return Err(Error::new(
                crate::error::Kind::Config,
                "the server has nothing to listen on; call `listen`",
            ));
        }
        let sockets = self.workers.map_or(1, NonZeroUsize::get);
        if !self.restart_on.is_empty() && self.succession.is_none() {
            return Err(Error::new(
                crate::error::Kind::Config,
                "a restart by signal needs a succession; call `succession`",
            ));
        }
        let waits = self.has_company();
        let mut heirlooms = self.succession.as_mut().and_then(Succession::heirlooms);
        // Before the others, which may take all that is left.
        let admin = AdminListener::bind(self.admin, heirlooms.as_deref_mut(), waits)?;
        let mut listeners = bind_all(self.listeners, sockets, heirlooms)?;
        let donor = self.succession.as_ref().and_then(Succession::donor);
        let control = self.control.map(|wanted| wanted.open(donor, waits));
        let control = control.transpose()?.flatten();
        let shared = Arc::new(Shared::new(
            self.limits,
            self.manners,
            self.hooks,
            self.generation,
            self.drain.linger,
            listeners
                .iter_mut()
                .map(|listener| (listener.name.clone(), std::mem::take(&mut listener.asked)))
                .collect(),
        ));
        if let Some(succession) = &self.succession {
            succession.resume_tickets(&shared);
            if let (Some(hook), Some(level)) = (&self.log_level, succession.log_level()) {
                control::inherit_log_level(&shared, hook, level);
            }
        }
        let addresses = listeners.iter().map(|listener| listener.local.to_string());
        if let Some(log) = self.access_log {
            let _ = shared.access_log.set(log.open()?);
        }
        // Nobody else has seen it yet.
        let _ = shared.addresses.set(addresses.collect());
        if let Some(address) = admin.as_ref().and_then(AdminListener::address) {
            let _ = shared.admin.set(address.to_string());
        }
        let (wish, wishes) = mpsc::unbounded_channel();
        let (restarts, restart_wishes) = mpsc::unbounded_channel();
        let (phases, phase) = watch::channel(Phase::Starting);
        let (result, outcome) = watch::channel(None);
        Ok(Server {
            listeners,
            workers: self.workers,
            launch: Box::new(Launcher(Mutex::new(service.into_service()))),
            hooks: self.shutdown_hooks,
            drain: self.drain,
            signals: self.signals,
            control,
            admin,
            log_level: self.log_level,
            watch_certificates: self.watch_certificates,
            succession: self.succession,
            restart_on: self.restart_on,
            restart_hook: self.restart_hook,
            handle: Handle {
                inner: Arc::new(Inner {
                    shared,
                    wishes: wish,
                    restarts,
                    phases: phase,
                    result: outcome,
                    before_run: Mutex::default(),
                }),
            },
            wishes,
            restart_wishes,
            phases,
            result,
        })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listeners", &self.listeners)
            .field("workers", &self.workers)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("listeners", &self.listeners)
            .field("workers", &self.workers)
            .field("limits", &self.limits)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

/// Clones the service for each connection. The lock is taken once a connection; it lets the
/// service do without `Sync`.
struct Launcher<S>(Mutex<S>);

impl<S: Service> Launcher<S> {
    fn service(&self) -> S {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl<S: Service> Launch for Launcher<S> {
    fn launch(&self, fresh: Fresh, worker: Arc<Worker>) {
        let service = self.service();
        let handle = worker.handle.clone();
        // In boxes where they are large: the runtime moves what it spawns and what has ended, whole.
        drop(match (&fresh.speaks, connection_span(&fresh.arrival)) {
            (Speaks::Http1, None) => handle.spawn(crate::http1::serve(service, fresh, worker)),
            (Speaks::Http2(_), None) => {
                handle.spawn(Box::pin(crate::http2::serve(service, fresh, worker)))
            }
            (Speaks::Http1, Some(span)) => {
                let serving = crate::http1::serve(service, fresh, worker);
                handle.spawn(serving.instrument(span))
            }
            (Speaks::Http2(_), Some(span)) => {
                let serving = Box::pin(crate::http2::serve(service, fresh, worker));
                handle.spawn(serving.instrument(span))
            }
            (Speaks::Unknown(epoch), _) => {
                let epoch = epoch.clone();
                handle.spawn(Box::pin(crate::handshake::receive(fresh, epoch, worker)))
            }
        });
    }

    fn duplicate(&self) -> Box<dyn Launch> {
        Box::new(Self(Mutex::new(self.service())))
    }
}
