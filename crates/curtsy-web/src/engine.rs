//! The engine: routes and middleware as one tower service.
//!
//! Invariants:
//! - Registering is copy on write: a clone that serves already never sees half a change.
//! - A request costs the engine no lock, no shared counter and, for a plain handler, one allocation.
//!
//! Deliberately absent: sockets, signals, TLS. What serves an engine is `curtsy_server`, hyper or
//! any tower server.

use crate::body::Body;
use crate::context::Context;
use crate::error::{BoxError, Error};
use crate::group::RouterGroup;
use crate::handler::{BoxFuture, IntoHandlers};
use crate::proxy::Proxies;
use crate::settings::Settings;
use crate::table::{Handle, Table};
use bytes::Bytes;
use curtsy_lifecycle::ConnectionInfo;
use http::{Method, Request, Response};
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use tower_service::Service;

/// Routes, middleware and options: a web application.
///
/// It is a [`tower_service::Service`] for requests with any body: serve it with Curtsy, with hyper,
/// or nest it in another framework. A clone is a handle to the same routes and costs one small
/// allocation; a server clones it once per connection.
///
/// ```
/// use curtsy_web::{Context, Engine, test::Client};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut r = Engine::new();
/// r.get("/ping", async |c: &mut Context| c.string(200, "pong"));
///
/// let answer = Client::new(r).get("/ping").send().await;
/// assert_eq!(answer.text(), "pong");
/// # });
/// ```
pub struct Engine(pub(crate) Handle);

/// A route that an engine has.
///
/// ```
/// use curtsy_web::{Context, Engine, RouteInfo};
///
/// let mut r = Engine::new();
/// r.get("/tea", async |c: &mut Context| c.string(200, "green"));
/// let RouteInfo { method, path, .. } = &r.routes()[0];
/// assert_eq!((method.as_str(), path.as_str()), ("GET", "/tea"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteInfo {
    /// Its method.
    pub method: Method,
    /// Its pattern.
    pub path: String,
    /// The name of its last handler.
    pub handler: &'static str,
    /// How many handlers it has, middleware included.
    pub handlers: usize,
}

impl Engine {
    /// An engine without any middleware.
    ///
    /// ```
    /// let mut r = curtsy_web::Engine::new();
    /// assert!(r.routes().is_empty());
    /// ```
    pub fn new() -> Self {
        crate::debug::welcome();
        Self(Arc::new(Arc::new(Table::new())))
    }

    /// The same engine with a value that handlers get by [`Context::state`]. One value per type;
    /// the last one given counts.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine};
    ///
    /// struct Db(String);
    ///
    /// let mut r = Engine::new().with_state(Db("users.db".into()));
    /// r.get("/", async |c: &mut Context| {
    ///     let db = c.state::<Db>();
    ///     c.string(200, db.0.clone());
    /// });
    /// ```
    #[must_use]
    pub fn with_state<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.table().put_state(Arc::new(value));
        self
    }

    /// What [`with_state`](Self::with_state) was given, if it was given a value of that type.
    ///
    /// ```
    /// use curtsy_web::Engine;
    ///
    /// let r = Engine::new().with_state(7_u8);
    /// assert_eq!(r.state::<u8>().as_deref(), Some(&7));
    /// assert_eq!(r.state::<u16>(), None);
    /// ```
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.state()
    }

    /// The same engine after `configure` was at it: for options in one expression.
    ///
    /// ```
    /// use curtsy_web::Engine;
    ///
    /// let r = Engine::new().with(|r| r.settings_mut().redirect_trailing_slash = false);
    /// assert!(!r.settings().redirect_trailing_slash);
    /// ```
    #[must_use]
    pub fn with(mut self, configure: impl FnOnce(&mut Self)) -> Self {
        configure(&mut self);
        self
    }

    /// The options.
    ///
    /// ```
    /// assert!(curtsy_web::Engine::new().settings().redirect_trailing_slash);
    /// ```
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The options, to change.
    ///
    /// ```
    /// let mut r = curtsy_web::Engine::new();
    /// r.settings_mut().max_body = 1 << 20; // a megabyte
    /// ```
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.table().settings
    }

    /// Sets all options at once.
    ///
    /// ```
    /// use curtsy_web::{Engine, Settings};
    ///
    /// let mut r = Engine::new();
    /// r.set_settings(Settings { use_raw_path: true, ..Settings::default() });
    /// ```
    pub fn set_settings(&mut self, settings: Settings) -> &mut Self {
        self.table().settings = settings;
        self
    }

    /// Adds middleware for every route registered from now on, and for requests without a route.
    ///
    /// ```
    /// use curtsy_web::{Engine, Logger, Recovery};
    ///
    /// let mut r = Engine::new();
    /// r.use_middleware((Logger::new(), Recovery::new()));
    /// ```
    pub fn use_middleware<K>(&mut self, handlers: impl IntoHandlers<K>) -> &mut Self {
        let table = self.table();
        table.middleware.extend(handlers.into_chain().0);
        table.refresh();
        self
    }

    /// Sets what answers a request without a route. Without it: `404 page not found`.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine};
    ///
    /// let mut r = Engine::new();
    /// r.no_route(async |c: &mut Context| c.string(404, "there is no such page"));
    /// ```
    pub fn no_route<K>(&mut self, handlers: impl IntoHandlers<K>) -> &mut Self {
        let table = self.table();
        table.no_route = handlers.into_chain().0;
        table.refresh();
        self
    }

    /// Sets what answers a request whose path has routes for other methods only. Asked only if
    /// [`Settings::handle_method_not_allowed`] is on.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine};
    ///
    /// let mut r = Engine::new();
    /// r.settings_mut().handle_method_not_allowed = true;
    /// r.no_method(async |c: &mut Context| c.string(405, "not like that"));
    /// ```
    pub fn no_method<K>(&mut self, handlers: impl IntoHandlers<K>) -> &mut Self {
        let table = self.table();
        table.no_method = handlers.into_chain().0;
        table.refresh();
        self
    }

    /// The routes in the order of their registration.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine};
    ///
    /// let mut r = Engine::new();
    /// r.get("/tea", async |c: &mut Context| c.string(200, "green"));
    /// for route in r.routes() {
    ///     println!("{} {} -> {}", route.method, route.path, route.handler);
    /// }
    /// ```
    pub fn routes(&self) -> Vec<RouteInfo> {
        let info = |route: &crate::table::Route| RouteInfo {
            method: route.method.clone(),
            path: (*route.pattern).to_owned(),
            handler: route.chain.last().map_or("", |link| link.name()),
            handlers: route.chain.len(),
        };
        self.0.routes().iter().map(info).collect()
    }

    /// The pattern of the route that a path has for a method, if it has one. Allocates nothing.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine, Method};
    ///
    /// let mut r = Engine::new();
    /// r.get("/user/:name", async |c: &mut Context| c.string(200, "user"));
    /// assert_eq!(r.route_of(&Method::GET, "/user/ann"), Some("/user/:name"));
    /// assert_eq!(r.route_of(&Method::GET, "/user"), None);
    /// ```
    pub fn route_of(&self, method: &Method, path: &str) -> Option<&str> {
        let mut params = crate::router::Params::default();
        let id = self.0.find(method, path, &mut params)?;
        Some(&self.0.route(crate::table::Target::Route(id)).pattern)
    }

    /// Sets which peers are believed when they say for whom they speak: addresses (`10.0.0.1`) and
    /// networks (`10.0.0.0/8`, `fd00::/8`). None at all: `set_trusted_proxies([])`.
    ///
    /// Until this is called every peer is believed, as in gin: set it before you rely on
    /// [`Context::client_ip`].
    ///
    /// ```
    /// # fn set() -> Result<(), curtsy_web::Error> {
    /// let mut r = curtsy_web::Engine::new();
    /// r.set_trusted_proxies(["10.0.0.0/8", "fd00::/8", "192.168.1.2"])?;
    /// # Ok(()) }
    /// # set().unwrap();
    /// ```
    ///
    /// # Errors
    /// If an entry is neither an address nor a network; nothing is changed then.
    pub fn set_trusted_proxies<'p>(
        &mut self,
        proxies: impl IntoIterator<Item = &'p str>,
    ) -> Result<&mut Self, Error> {
        self.table().proxies = Proxies::parse(proxies)?;
        Ok(self)
    }

    /// Whether a peer's word about the client's address is taken.
    ///
    /// ```
    /// # fn ask() -> Result<(), curtsy_web::Error> {
    /// let mut r = curtsy_web::Engine::new();
    /// r.set_trusted_proxies(["10.0.0.0/8"])?;
    /// assert!(r.is_trusted_proxy([10, 1, 2, 3].into()));
    /// assert!(!r.is_trusted_proxy([192, 0, 2, 1].into()));
    /// # Ok(()) }
    /// # ask().unwrap();
    /// ```
    pub fn is_trusted_proxy(&self, peer: std::net::IpAddr) -> bool {
        self.0.proxies.trusts(peer)
    }

    /// The group of all routes: its path is `/`, its middleware the engine's.
    ///
    /// ```
    /// let mut r = curtsy_web::Engine::new();
    /// assert_eq!(r.root().base_path(), "/");
    /// ```
    pub fn root(&mut self) -> RouterGroup<'_> {
        RouterGroup::root(self)
    }

    /// A group of routes under a path.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine};
    ///
    /// async fn login(c: &mut Context) {
    ///     c.string(200, "in");
    /// }
    ///
    /// let mut r = Engine::new();
    /// let mut v1 = r.group("/v1");
    /// v1.post("/login", login);
    /// let mut v2 = r.group("/v2");
    /// v2.post("/login", login);
    /// assert_eq!(r.routes()[1].path, "/v2/login");
    /// ```
    pub fn group(&mut self, path: &str) -> RouterGroup<'_> {
        RouterGroup::root(self).into_group(path)
    }

    /// A group of routes under a path with middleware of its own.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine, basic_auth};
    ///
    /// let mut r = Engine::new();
    /// let mut admin = r.group_with("/admin", basic_auth([("ann", "s3cret")]));
    /// admin.get("/stats", async |c: &mut Context| c.string(200, "all is well"));
    /// ```
    pub fn group_with<K>(
        &mut self,
        path: &str,
        middleware: impl IntoHandlers<K>,
    ) -> RouterGroup<'_> {
        let mut group = self.group(path);
        group.use_middleware(middleware);
        group
    }

    /// Answers a request whose connection is known, without going through the request's extensions
    /// (they allocate). This is the way in for servers.
    ///
    /// ```
    /// # use curtsy_web::{Body, Engine};
    /// # async fn example(engine: Engine, request: http::Request<Body>, info: curtsy_lifecycle::ConnectionInfo) {
    /// let response = engine.call_with(request, Some(info)).await;
    /// # }
    /// ```
    pub fn call_with<B>(&self, request: Request<B>, info: Option<ConnectionInfo>) -> ResponseFuture
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let info = info.or_else(|| parts.extensions.get().cloned());
        let c = Context::new(Arc::clone(&self.0), parts, Body::new(body), info);
        let (table, mut slot) = (&**self.0, Some(c));
        let Some(c) = &mut slot else {
            return ResponseFuture::ready(Response::default());
        };
        if let Some(response) = crate::dispatch::find(table, c) {
            return ResponseFuture::ready(response);
        }
        match table.route(c.target).chain.first() {
            None => ResponseFuture::ready(c.finish()),
            Some(first) => ResponseFuture::running(first.serve(&mut slot)),
        }
    }

    pub(crate) fn table(&mut self) -> &mut Table {
        Arc::make_mut(Arc::make_mut(&mut self.0))
    }
}

impl Default for Engine {
    /// An engine with [`Logger`](crate::Logger) and [`Recovery`](crate::Recovery).
    fn default() -> Self {
        let mut engine = Self::new();
        crate::debug::warn(format_args!(
            "an engine made by default() has the logger and recovery attached already"
        ));
        engine.use_middleware((crate::Logger::new(), crate::Recovery::new()));
        engine
    }
}

impl Clone for Engine {
    fn clone(&self) -> Self {
        Self(Arc::new(Arc::clone(&*self.0)))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("routes", &self.0.routes().len())
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for Engine
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        self.call_with(request, None)
    }
}

/// The future of an engine's answer.
///
/// ```
/// use curtsy_web::{Body, Engine, ResponseFuture};
///
/// let answer: ResponseFuture = Engine::new().call_with(http::Request::new(Body::empty()), None);
/// ```
///
/// Cancel safety: dropping it drops the handlers where they are.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture(Progress);

enum Progress {
    Running(BoxFuture<'static, Response<Body>>),
    Ready(Option<Box<Response<Body>>>),
}

impl ResponseFuture {
    pub(crate) fn running(future: BoxFuture<'static, Response<Body>>) -> Self {
        Self(Progress::Running(future))
    }

    pub(crate) fn ready(response: Response<Body>) -> Self {
        Self(Progress::Ready(Some(Box::new(response))))
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Progress::Running(future) => future.as_mut().poll(cx).map(Ok),
            Progress::Ready(response) => match response.take() {
                Some(response) => Poll::Ready(Ok(*response)),
                None => Poll::Pending,
            },
        }
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
