//! The context: one request, its answer, and what its handlers tell each other.
//!
//! What a handler reads is in `input`, `bind`, `form`, `multipart`; what it writes in `response`,
//! `render`, `sse`, `file`, `html`. Here are the flow through the chain, the store and the errors.
//!
//! Invariant: what a plain request does not use (store, errors, forms) is not allocated: it lies
//! behind one pointer.

use crate::answer::{Reply, Written};
use crate::body::Body;
use crate::error::{BoxError, Error};
use crate::response::IntoStatus;
use crate::router::Params;
use crate::table::{Handle, Route, Target};
use bytes::Bytes;
use curtsy_lifecycle::{ConnectionInfo, Draining};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// The index of a chain that was aborted: far beyond any link.
const ABORTED: u16 = u16::MAX;

/// One request on its way through the handlers, and its answer.
///
/// ```
/// use curtsy_web::{Context, Engine};
///
/// async fn hello(c: &mut Context) {
///     let name = c.param("name").to_owned();
///     c.string(200, format!("Hello {name}"));
/// }
///
/// let mut r = Engine::new();
/// r.get("/user/:name", hello);
/// ```
pub struct Context {
    pub(crate) engine: Handle,
    pub(crate) request: Parts,
    pub(crate) body: Body,
    pub(crate) bytes: Option<Bytes>,
    pub(crate) info: Option<ConnectionInfo>,
    /// What the parameters are ranges of, if not the URI's own path.
    pub(crate) text: Option<Box<str>>,
    pub(crate) params: Params,
    pub(crate) target: Target,
    index: u16,
    pub(crate) written: bool,
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<HeaderValue>,
    pub(crate) headers: HeaderMap,
    pub(crate) answer: Body,
    pub(crate) query: OnceLock<Vec<(String, String)>>,
    pub(crate) cold: Option<Box<Cold>>,
}

/// What most requests do not need.
#[derive(Default)]
pub(crate) struct Cold {
    store: Vec<(Cow<'static, str>, Box<dyn Any + Send + Sync>)>,
    errors: Vec<Error>,
    pub(crate) extensions: Option<Extensions>,
    pub(crate) form: Option<Arc<crate::form::Form>>,
    pub(crate) same_site: Option<cookie::SameSite>,
}

impl Context {
    pub(crate) fn new(
        engine: Handle,
        request: Parts,
        body: Body,
        info: Option<ConnectionInfo>,
    ) -> Self {
        Self {
            engine,
            request,
            body,
            bytes: None,
            info,
            text: None,
            params: Params::default(),
            target: Target::Missing,
            index: 0,
            written: false,
            status: StatusCode::OK,
            content_type: None,
            headers: HeaderMap::new(),
            answer: Body::empty(),
            query: OnceLock::new(),
            cold: None,
        }
    }

    // ---- flow

    /// Runs the handlers after this one and comes back when they are done. Only middleware calls it.
    ///
    /// A middleware that does not call it is followed by the next handler all the same, unless it
    /// aborts.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine};
    ///
    /// async fn timing(c: &mut Context) {
    ///     let began = std::time::Instant::now();
    ///     c.next().await;
    ///     let took = format!("app;dur={}", began.elapsed().as_millis());
    ///     c.header("Server-Timing", took);
    /// }
    ///
    /// Engine::new().use_middleware(timing);
    /// ```
    ///
    /// Cancel safety: dropping the future stops the handlers where they are.
    pub async fn next(&mut self) {
        let engine = Arc::clone(&self.engine);
        let chain = &engine.route(self.target).chain;
        self.index = self.index.saturating_add(1);
        while let Some(link) = chain.get(usize::from(self.index)) {
            link.run(self).await;
            self.index = self.index.saturating_add(1);
        }
    }

    pub(crate) fn has_next(&self) -> bool {
        usize::from(self.index) + 1 < self.route().chain.len()
    }

    /// Keeps the handlers that have not begun from running. The current one goes on.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// if c.get_header("x-key") != "tea" {
    ///     c.string(403, "no key");
    ///     c.abort();
    /// }
    /// # }
    /// ```
    pub fn abort(&mut self) {
        self.index = ABORTED;
    }

    /// Whether somebody aborted.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.next().await;
    /// if c.is_aborted() {
    ///     c.header("X-Refused", "yes");
    /// }
    /// # }
    /// ```
    pub fn is_aborted(&self) -> bool {
        self.index == ABORTED
    }

    /// Aborts with a status and no body.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.abort_with_status(404);
    /// # }
    /// ```
    pub fn abort_with_status(&mut self, status: impl IntoStatus) {
        self.status(status);
        self.written = true;
        self.abort();
    }

    /// Aborts with a status and a JSON body.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.abort_with_status_json(401, &serde_json::json!({ "error": "who are you?" }));
    /// # }
    /// ```
    pub fn abort_with_status_json<T>(&mut self, status: impl IntoStatus, value: &T)
    where
        T: serde::Serialize + ?Sized,
    {
        self.abort();
        self.json(status, value);
    }

    /// Aborts with a status and notes the error.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// if let Err(error) = std::fs::metadata("/var/lib/app") {
    ///     c.abort_with_error(503, error); // the client gets the status, the log the reason
    /// }
    /// # }
    /// ```
    pub fn abort_with_error(&mut self, status: impl IntoStatus, error: impl Into<BoxError>) {
        self.abort_with_status(status);
        self.error(error);
    }

    /// The pattern of the route that matched, for instance `/user/:name`; empty if none did.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut r = Engine::new();
    /// r.get("/user/:name", async |c: &mut Context| {
    ///     assert_eq!(c.full_path(), "/user/:name");
    /// });
    /// # Client::new(r).get("/user/ann").send().await;
    /// # });
    /// ```
    pub fn full_path(&self) -> &str {
        &self.route().pattern
    }

    /// The name of the route's last handler.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// println!("{} is answered by {}", c.path(), c.handler_name());
    /// # }
    /// ```
    pub fn handler_name(&self) -> &'static str {
        self.route().chain.last().map_or("", |link| link.name())
    }

    /// The names of all the route's handlers in their order.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// println!("{} goes through {:?}", c.path(), c.handler_names());
    /// # }
    /// ```
    pub fn handler_names(&self) -> Vec<&'static str> {
        self.route().chain.iter().map(|link| link.name()).collect()
    }

    pub(crate) fn route(&self) -> &Route {
        self.engine.route(self.target)
    }

    // ---- errors

    /// Notes an error of this request; what becomes of it is up to whoever reads
    /// [`errors`](Self::errors).
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.error(std::io::Error::other("the cache is cold"));
    /// c.string(200, "answered all the same");
    /// # }
    /// ```
    pub fn error(&mut self, error: impl Into<BoxError>) {
        let error = Error::from_box(error.into());
        self.cold().errors.push(error);
    }

    /// The errors noted so far.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.next().await;
    /// for error in c.errors() {
    ///     eprintln!("{} failed: {error:?}", c.path());
    /// }
    /// # }
    /// ```
    pub fn errors(&self) -> &[Error] {
        self.cold.as_ref().map_or(&[], |cold| &cold.errors)
    }

    /// Notes the error once, whoever else reports it later.
    pub(crate) fn record(&mut self, error: &mut Error) {
        if !error.is_recorded() {
            let copy = error.record();
            self.cold().errors.push(copy);
        }
    }

    /// Does what a handler's return value asks for.
    pub(crate) fn reply(&mut self, reply: Reply) {
        match reply.0.map(|written| *written) {
            None => {}
            Some(Written::Error(error)) => self.fail(error),
            Some(Written::Response(response)) => self.take_response(*response),
        }
    }

    /// Aborts, notes the error, and shows its public side unless something was written already.
    pub(crate) fn fail(&mut self, mut error: Error) {
        self.abort();
        let status = error.status();
        // A `bind_*` has set the status, but nobody has explained it yet.
        let unexplained = error.is_recorded() && self.answer.bytes().is_some_and(<[u8]>::is_empty);
        if !self.written || unexplained {
            self.written = false;
            self.json(status, &error.to_json());
        }
        if error.is_recorded() {
            return;
        }
        error.record();
        self.cold().errors.push(error);
    }

    // ---- store

    /// Keeps a value under a key for the handlers after this one.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine};
    /// # async fn example(c: &mut Context) {
    /// c.set("user", String::from("ann"));
    /// let user: Option<&String> = c.get("user");
    /// # let _ = user;
    /// # }
    /// ```
    pub fn set<T>(&mut self, key: impl Into<Cow<'static, str>>, value: T)
    where
        T: Any + Send + Sync,
    {
        let key = key.into();
        let store = &mut self.cold().store;
        store.retain(|(other, _)| *other != key);
        store.push((key, Box::new(value)));
    }

    /// The value under a key, if there is one of that type.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.set("attempts", 3_u32);
    /// assert_eq!(c.get("attempts"), Some(&3_u32));
    /// assert_eq!(c.get::<String>("attempts"), None);
    /// # }
    /// ```
    pub fn get<T: Any>(&self, key: &str) -> Option<&T> {
        let cold = self.cold.as_ref()?;
        let (_, value) = cold.store.iter().find(|(of, _)| of == key)?;
        value.downcast_ref()
    }

    /// The value under a key.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.set("user", String::from("ann"));
    /// let user: &String = c.must_get("user");
    /// # }
    /// ```
    ///
    /// # Panics
    /// If there is none of that type.
    pub fn must_get<T: Any>(&self, key: &str) -> &T {
        self.get(key).unwrap_or_else(|| {
            panic!(
                "no {} is kept under the key \"{key}\"",
                std::any::type_name::<T>()
            )
        })
    }

    /// Keeps a value by its type, for the handlers after this one and for tower layers: it goes
    /// into the request's extensions.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// #[derive(Clone)]
    /// struct User(String);
    ///
    /// c.put(User("ann".into()));
    /// # }
    /// ```
    pub fn put<T: Clone + Send + Sync + 'static>(&mut self, value: T) {
        self.request.extensions.insert(value);
    }

    /// The value kept by its type.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// #[derive(Clone)]
    /// struct User(String);
    ///
    /// c.put(User("ann".into()));
    /// let name = c.of_type::<User>().map(|user| user.0.as_str());
    /// assert_eq!(name, Some("ann"));
    /// # }
    /// ```
    pub fn of_type<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.request.extensions.get()
    }

    /// What the engine was given by [`Engine::with_state`](crate::Engine::with_state).
    ///
    /// # Panics
    /// If the engine was given no value of that type: a mistake in the program, not in the request.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine};
    ///
    /// struct Greeting(&'static str);
    ///
    /// let mut r = Engine::new().with_state(Greeting("hello"));
    /// r.get("/", async |c: &mut Context| {
    ///     let greeting = c.state::<Greeting>();
    ///     c.string(200, greeting.0);
    /// });
    /// ```
    pub fn state<T: Send + Sync + 'static>(&self) -> Arc<T> {
        self.try_state().unwrap_or_else(|| {
            panic!(
                "the engine has no state of type {}: give it one with Engine::with_state",
                std::any::type_name::<T>()
            )
        })
    }

    /// What the engine was given, if it was given a value of that type.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// struct Cache;
    ///
    /// match c.try_state::<Cache>() {
    ///     Some(_cache) => c.string(200, "from the cache"),
    ///     None => c.string(200, "made anew"),
    /// }
    /// # }
    /// ```
    pub fn try_state<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.engine.state()
    }

    // ---- the connection

    /// What is known of the connection, if a server brought the request.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// if let Some(connection) = c.connection() {
    ///     println!("{} over {}", connection.peer(), connection.listener());
    /// }
    /// # }
    /// ```
    pub fn connection(&self) -> Option<&ConnectionInfo> {
        self.info.as_ref()
    }

    /// A flag and a future that say that the server wants to end. Streams, long polls and the like
    /// should watch it.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// let draining = c.draining();
    /// tokio::select! {
    ///     () = tokio::time::sleep(std::time::Duration::from_secs(60)) => c.string(200, "nothing new"),
    ///     () = draining.wait() => c.string(200, "ask again"),
    /// }
    /// # }
    /// ```
    pub fn draining(&self) -> Draining {
        self.info
            .as_ref()
            .map_or_else(Draining::never, ConnectionInfo::draining)
    }

    /// A context in the place of this one while this one is elsewhere.
    pub(crate) fn hollow(&self, request: Parts) -> Self {
        let mut hollow = Self::new(
            Arc::clone(&self.engine),
            request,
            Body::empty(),
            self.info.clone(),
        );
        hollow.target = self.target;
        hollow.text = self.text.clone();
        hollow.params = self.params;
        hollow
    }

    /// Lets no further handler run, without calling it an abortion.
    pub(crate) fn finish_chain(&mut self) {
        if !self.is_aborted() {
            self.index = u16::MAX - 1;
        }
    }

    /// Answers as if there were no route: runs the engine's `no_route` handlers, else writes
    /// `404 page not found`. The handlers after this one do not run.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// let user: Option<&str> = None; // from a database
    /// match user {
    ///     Some(user) => c.string(200, user),
    ///     None => c.not_found().await,
    /// }
    /// # }
    /// ```
    pub async fn not_found(&mut self) {
        self.status(StatusCode::NOT_FOUND);
        let engine = Arc::clone(&self.engine);
        let target = std::mem::replace(&mut self.target, Target::Absent);
        let chain = &engine.route(Target::Absent).chain;
        self.index = 0;
        while let Some(link) = chain.get(usize::from(self.index)) {
            link.run(self).await;
            self.index = self.index.saturating_add(1);
        }
        if !self.written {
            self.write_default();
        }
        self.target = target;
        self.abort();
    }

    pub(crate) fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("method", &self.request.method)
            .field("uri", &self.request.uri)
            .field("full_path", &self.full_path())
            .field("status", &self.status)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}
