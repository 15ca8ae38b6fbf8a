//! Groups of routes: a common path and common middleware.
//!
//! Invariant: middleware applies to what is registered after it, in the order in which it was
//! added, the outer group's first.

use crate::engine::Engine;
use crate::error::Error;
use crate::handler::{Chain, IntoHandlers, Link};
use crate::path::clean;
use http::Method;

/// The methods of [`RouterGroup::any`], in gin's order.
pub(crate) const ANY: [Method; 9] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::HEAD,
    Method::OPTIONS,
    Method::DELETE,
    Method::CONNECT,
    Method::TRACE,
];

/// Routes with a common path and common middleware; it borrows its engine.
///
/// ```
/// use curtsy_web::{Context, Engine, basic_auth};
///
/// async fn secrets(c: &mut Context) {
///     c.string(200, "psst");
/// }
///
/// let mut r = Engine::new();
/// let mut admin = r.group("/admin");
/// admin.use_middleware(basic_auth([("ann", "s3cret")]));
/// admin.get("/secrets", secrets);
/// let mut nested = admin.group("/logs");
/// assert_eq!(nested.base_path(), "/admin/logs");
/// ```
#[derive(Debug)]
pub struct RouterGroup<'r> {
    engine: &'r mut Engine,
    base: String,
    middleware: Chain,
}

impl<'r> RouterGroup<'r> {
    pub(crate) fn root(engine: &'r mut Engine) -> Self {
        let middleware = Chain(engine.0.middleware.clone());
        Self {
            engine,
            base: "/".into(),
            middleware,
        }
    }

    pub(crate) fn into_group(mut self, path: &str) -> Self {
        self.base = self.absolute(path);
        self
    }

    /// The path before all of the group's routes.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine};
    ///
    /// let mut r = Engine::new();
    ///
    /// assert_eq!(r.group("/v1").group("users").base_path(), "/v1/users");
    /// ```
    pub fn base_path(&self) -> &str {
        &self.base
    }

    /// Adds middleware for the routes registered from now on.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine};
    ///
    /// let mut r = Engine::new();
    ///
    /// let mut v1 = r.group("/v1");
    /// v1.use_middleware(async |c: &mut Context| c.header("X-Version", "1"));
    /// v1.get("/tea", async |c: &mut Context| c.string(200, "green"));
    /// ```
    pub fn use_middleware<K>(&mut self, handlers: impl IntoHandlers<K>) -> &mut Self {
        self.middleware.0.extend(handlers.into_chain().0);
        self
    }

    /// A group within this group.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine};
    ///
    /// let mut r = Engine::new();
    ///
    /// let mut v1 = r.group("/v1");
    /// let mut users = v1.group("/users");
    /// users.get("/:id", async |c: &mut Context| c.string(200, "somebody"));
    /// ```
    pub fn group(&mut self, path: &str) -> RouterGroup<'_> {
        let base = self.absolute(path);
        RouterGroup {
            engine: self.engine,
            base,
            middleware: self.middleware.clone(),
        }
    }

    /// A group within this group, with middleware of its own.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine};
    ///
    /// let mut r = Engine::new();
    ///
    /// let mut v1 = r.group("/v1");
    /// let mut admin = v1.group_with("/admin", curtsy_web::basic_auth([("ann", "s3cret")]));
    /// admin.delete("/users/:id", async |c: &mut Context| c.status(204));
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

    /// Registers a route, or says why it cannot be.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine};
    ///
    /// let mut r = Engine::new();
    ///
    /// let mut v1 = r.group("/v1");
    /// let refused = v1.try_handle("get", "/tea", async |c: &mut Context| c.string(200, "green"));
    /// assert!(refused.is_err()); // a method is in capital letters
    /// ```
    ///
    /// # Errors
    /// If the method is not made of capital letters, the path is no pattern, or it collides with a
    /// route that is there: the message quotes both.
    pub fn try_handle<K>(
        &mut self,
        method: &str,
        path: &str,
        handlers: impl IntoHandlers<K>,
    ) -> Result<&mut Self, Error> {
        let upper = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        let Some(method) = Method::from_bytes(method.as_bytes()).ok().filter(|_| upper) else {
            let message = format!("\"{method}\" is no method: capital letters are expected");
            return Err(Error::route(message));
        };
        self.add(&method, path, handlers.into_chain())?;
        Ok(self)
    }

    pub(crate) fn add(&mut self, method: &Method, path: &str, own: Chain) -> Result<(), Error> {
        let path = self.absolute(path);
        let mut chain = self.middleware.clone();
        chain.0.extend(own.0);
        if chain.0.is_empty() {
            return Err(Error::route(format!("route \"{path}\" has no handler")));
        }
        let count = chain.0.len();
        let name = chain.0.last().map_or("", |link: &Link| link.name());
        self.engine.table().add(method, &path, chain)?;
        crate::debug::route(method, &path, name, count);
        Ok(())
    }

    /// Adds a route that must fit.
    #[track_caller]
    pub(crate) fn must_add(&mut self, method: &Method, path: &str, chain: Chain) {
        if let Err(error) = self.add(method, path, chain) {
            panic!("{error}");
        }
    }

    fn absolute(&self, path: &str) -> String {
        if path.is_empty() {
            return self.base.clone();
        }
        clean(&format!("{}/{path}", self.base))
    }
}

/// The methods that engines and groups have in common.
macro_rules! registering {
    ($($(#[$doc:meta])* $name:ident $method:ident;)+) => {
        $(
            $(#[$doc])*
            ///
            /// ```
            /// use curtsy_web::{Context, Engine};
            ///
            /// let mut r = Engine::new();
            #[doc = concat!("r.", stringify!($name), "(\"/tea\", async |c: &mut Context| c.string(200, \"green\"));")]
            /// ```
            ///
            /// # Panics
            /// If the path is no pattern or collides with a route that is there.
            #[track_caller]
            pub fn $name<K>(&mut self, path: &str, handlers: impl IntoHandlers<K>) -> &mut Self {
                self.must(&Method::$method, path, handlers.into_chain());
                self
            }
        )+

        /// Registers a route for a method by its name, which must be made of capital letters.
        ///
        /// ```
        /// use curtsy_web::{Context, Engine};
        ///
        /// let mut r = Engine::new();
        ///
        /// r.handle("PROPFIND", "/files/*path", async |c: &mut Context| c.status(207));
        /// ```
        ///
        /// # Panics
        /// If the method is no such name, or the path is no pattern or collides with a route that
        /// is there. [`try_handle`](Self::try_handle) returns the error instead.
        #[track_caller]
        pub fn handle<K>(
            &mut self,
            method: &str,
            path: &str,
            handlers: impl IntoHandlers<K>,
        ) -> &mut Self {
            match self.try_handle(method, path, handlers) {
                Ok(this) => this,
                Err(error) => panic!("{error}"),
            }
        }

        /// Registers a route for nine methods: GET, POST, PUT, PATCH, HEAD, OPTIONS, DELETE,
        /// CONNECT, TRACE.
        ///
        /// ```
        /// use curtsy_web::{Context, Engine};
        ///
        /// let mut r = Engine::new();
        ///
        /// r.any("/echo", async |c: &mut Context| {
        ///     let body = c.take_body();
        ///     c.body(200, body);
        /// });
        /// assert_eq!(r.routes().len(), 9);
        /// ```
        ///
        /// # Panics
        /// As [`handle`](Self::handle).
        #[track_caller]
        pub fn any<K>(&mut self, path: &str, handlers: impl IntoHandlers<K>) -> &mut Self {
            self.match_methods(&ANY, path, handlers)
        }

        /// Registers a route for several methods.
        ///
        /// ```
        /// use curtsy_web::{Context, Engine, Method};
        ///
        /// let mut r = Engine::new();
        ///
        /// r.match_methods(&[Method::GET, Method::HEAD], "/tea", async |c: &mut Context| {
        ///     c.string(200, "green");
        /// });
        /// ```
        ///
        /// # Panics
        /// As [`handle`](Self::handle).
        #[track_caller]
        pub fn match_methods<K>(
            &mut self,
            methods: &[Method],
            path: &str,
            handlers: impl IntoHandlers<K>,
        ) -> &mut Self {
            let chain = handlers.into_chain();
            for method in methods {
                self.must(method, path, chain.clone());
            }
            self
        }
    };
}

macro_rules! verbs {
    () => {
        registering! {
            /// Registers a route for GET.
            get GET;
            /// Registers a route for POST.
            post POST;
            /// Registers a route for PUT.
            put PUT;
            /// Registers a route for PATCH.
            patch PATCH;
            /// Registers a route for DELETE.
            delete DELETE;
            /// Registers a route for HEAD. GET does not imply it.
            head HEAD;
            /// Registers a route for OPTIONS.
            options OPTIONS;
        }
    };
}

impl RouterGroup<'_> {
    verbs!();

    #[track_caller]
    fn must(&mut self, method: &Method, path: &str, chain: Chain) {
        self.must_add(method, path, chain);
    }
}

impl Engine {
    verbs!();

    #[track_caller]
    fn must(&mut self, method: &Method, path: &str, chain: Chain) {
        self.root().must_add(method, path, chain);
    }

    /// Registers a route, or says why it cannot be.
    ///
    /// # Errors
    /// As [`RouterGroup::try_handle`].
    ///
    /// ```
    /// use curtsy_web::{Context, Engine};
    ///
    /// async fn user(c: &mut Context) {
    ///     c.string(200, "a user");
    /// }
    ///
    /// let mut r = Engine::new();
    /// r.get("/users/:id", user);
    /// let error = r.try_handle("GET", "/users/:name", user).unwrap_err();
    /// assert!(error.to_string().contains("/users/:id"));
    /// ```
    pub fn try_handle<K>(
        &mut self,
        method: &str,
        path: &str,
        handlers: impl IntoHandlers<K>,
    ) -> Result<&mut Self, Error> {
        self.root().try_handle(method, path, handlers)?;
        Ok(self)
    }
}
