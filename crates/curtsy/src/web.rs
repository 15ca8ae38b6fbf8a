//! The web framework, with a server under it.
//!
//! Everything of `curtsy_web`, and [`Run`], which gives its [`Engine`] the ways to be served.
//!
//! ```no_run
//! use curtsy::web::{Context, Engine, Run};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut r = Engine::default(); // logger and recovery
//!     r.get("/", async |c: &mut Context| c.string(200, "Hello, World!"));
//!     r.run(":8080")?; // returns when a signal came and everything is answered
//!     Ok(())
//! }
//! ```

use curtsy_server::{self as below, Certificate, ListenOn, Outcome, Phase, Server, TlsConfig};
use http::{Request, Response};
use std::convert::Infallible;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::task::{Context as TaskContext, Poll};

pub use curtsy_web::*;

/// Serves an [`Engine`].
///
/// The `run` methods block, with a thread for each core, until a signal came (SIGINT, SIGTERM,
/// SIGQUIT) and the drain is over. Inside an asynchronous program, or for limits, a drain policy,
/// hooks and a handle, take [`Run::into_server`] or [`Run::into_service`].
///
/// ```no_run
/// use curtsy::web::{Context, Engine, Run};
///
/// # fn main() -> Result<(), curtsy::Error> {
/// let mut r = Engine::new();
/// r.get("/", async |c: &mut Context| c.string(200, "Hello, World!"));
/// let outcome = r.run("127.0.0.1:8080")?;
/// println!("{}", outcome.report());
/// # Ok(()) }
/// ```
///
/// # Errors
/// Each returns an error if the listener cannot be had, if accepting fails for good, or if it is
/// called inside a tokio runtime, which it would block.
pub trait Run: Sized {
    /// Serves on an address: `":8080"`, `"127.0.0.1:9000"`, `"unix:/run/app.sock"`; with `""`, on
    /// the environment's `PORT`, else on 8080.
    ///
    /// ```no_run
    /// # use curtsy::web::{Engine, Run};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let r = Engine::new();
    /// r.run(":8080")?;
    /// # Ok(()) }
    /// ```
    fn run(self, address: &str) -> Result<Outcome, below::Error>;

    /// The same over TLS, with a certificate chain and its key from PEM files. HTTP/2 is offered.
    ///
    /// ```no_run
    /// # use curtsy::web::{Engine, Run};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let r = Engine::new();
    /// r.run_tls(":8443", "chain.pem", "key.pem")?;
    /// # Ok(()) }
    /// ```
    fn run_tls(
        self,
        address: &str,
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Outcome, below::Error>;

    /// Serves on a Unix socket.
    ///
    /// ```no_run
    /// # use curtsy::web::{Engine, Run};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let r = Engine::new();
    /// r.run_unix("/run/app.sock")?;
    /// # Ok(()) }
    /// ```
    fn run_unix(self, path: impl AsRef<Path>) -> Result<Outcome, below::Error>;

    /// Serves on a listening socket that somebody else opened.
    ///
    /// ```no_run
    /// # use curtsy::web::{Engine, Run};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let r = Engine::new();
    /// use std::os::fd::OwnedFd;
    ///
    /// let socket = OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:8080")?);
    /// r.run_fd(socket)?;
    /// # Ok(()) }
    /// ```
    fn run_fd(self, socket: OwnedFd) -> Result<Outcome, below::Error>;

    /// Serves on a bound listener.
    ///
    /// ```no_run
    /// # use curtsy::web::{Engine, Run};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let r = Engine::new();
    /// r.run_listener(std::net::TcpListener::bind("127.0.0.1:8080")?)?;
    /// # Ok(()) }
    /// ```
    fn run_listener(self, listener: TcpListener) -> Result<Outcome, below::Error>;

    /// The server under it, bound, to be run inside an asynchronous program; its handle steers it.
    ///
    /// ```
    /// use curtsy::web::{Engine, Run};
    ///
    /// # async fn example() -> Result<(), curtsy::Error> {
    /// let server = Engine::new().into_server("127.0.0.1:0")?;
    /// let handle = server.handle();
    /// # handle.wish_shutdown();
    /// # let _ = handle;
    /// server.run().await?;
    /// # Ok(())
    /// # }
    /// ```
    fn into_server(self, on: impl Into<ListenOn>) -> Result<Server, below::Error>;

    /// The service alone, for [`Server::builder`]. Build it with
    /// `connection_in_extensions(false)`: it takes what it needs from the body.
    ///
    /// ```
    /// use curtsy::web::{Engine, Run};
    /// use curtsy::{DrainPolicy, Server};
    ///
    /// # fn build() -> Result<(), curtsy::Error> {
    /// let server = Server::builder()
    ///     .listen("127.0.0.1:0")
    ///     .drain(DrainPolicy::default())
    ///     .connection_in_extensions(false)
    ///     .build(Engine::new().into_service())?;
    /// # Ok(()) }
    /// ```
    fn into_service(self) -> EngineService;
}

impl Run for Engine {
    fn run(self, address: &str) -> Result<Outcome, below::Error> {
        if !address.is_empty() {
            return run(self, address);
        }
        // Every address of the machine, as `":8080"` means: not only those of IPv4.
        let address = listen_address(None);
        run(self, address.strip_prefix("0.0.0.0").unwrap_or(&address))
    }

    fn run_tls(
        self,
        address: &str,
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Outcome, below::Error> {
        let certificate = Certificate::from_pem_files(chain.as_ref(), key.as_ref())?;
        run(
            self,
            ListenOn::from(address).tls(TlsConfig::new([certificate])?),
        )
    }

    fn run_unix(self, path: impl AsRef<Path>) -> Result<Outcome, below::Error> {
        run(self, format!("unix:{}", path.as_ref().display()).as_str())
    }

    fn run_fd(self, socket: OwnedFd) -> Result<Outcome, below::Error> {
        run(self, socket)
    }

    fn run_listener(self, listener: TcpListener) -> Result<Outcome, below::Error> {
        run(self, listener)
    }

    fn into_server(self, on: impl Into<ListenOn>) -> Result<Server, below::Error> {
        server(self, on.into(), None)
    }

    fn into_service(self) -> EngineService {
        EngineService(self)
    }
}

fn server(
    engine: Engine,
    on: ListenOn,
    workers: Option<NonZeroUsize>,
) -> Result<Server, below::Error> {
    let mut builder = Server::builder().listen(on).connection_in_extensions(false);
    if let Some(workers) = workers {
        builder = builder.workers(workers);
    }
    let server = builder.build(EngineService(engine.clone()))?;
    if Mode::current() == Mode::Debug {
        announce_when_serving(engine, &server);
    }
    Ok(server)
}

/// Says where the engine is served as soon as it is: when a signal would drain it, and not before.
fn announce_when_serving(engine: Engine, server: &Server) {
    let addresses: Vec<String> = server
        .listeners()
        .map(|(_, address)| address.to_string())
        .collect();
    let handle = server.handle();
    // There may be no runtime yet to do it in.
    std::thread::spawn(move || {
        let waiting = tokio::runtime::Builder::new_current_thread().build();
        let is_serving =
            waiting.is_ok_and(|runtime| runtime.block_on(handle.reached(Phase::Serving)));
        for address in addresses.iter().filter(|_| is_serving) {
            announce(&engine, address);
        }
    });
}

fn run(engine: Engine, on: impl Into<ListenOn>) -> Result<Outcome, below::Error> {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    server(engine, on.into(), Some(cores))?.run_blocking()
}

/// An [`Engine`] as a service of Curtsy's server: it takes the connection from the body.
///
/// ```
/// use curtsy::web::{Engine, EngineService, Run};
///
/// let service: EngineService = Engine::new().into_service();
/// ```
#[derive(Clone, Debug)]
pub struct EngineService(Engine);

impl tower_service::Service<Request<below::Body>> for EngineService {
    type Response = Response<curtsy_web::Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<below::Body>) -> Self::Future {
        let connection = request.body().connection();
        self.0.call_with(request, connection)
    }
}
