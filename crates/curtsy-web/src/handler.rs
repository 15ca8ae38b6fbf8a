//! Handlers and middleware: `async fn(c: &mut Context)`, and how they are kept and called.
//!
//! There is one way to write a handler. A closure that captures nothing is one too:
//! `async |c: &mut Context| { .. }`. What a handler needs from outside it takes from
//! [`Context::state`]; a middleware with settings is a type that implements [`Call`].
//!
//! Invariants:
//! - A request without middleware costs one allocation for its whole chain: the context and the
//!   handler's future lie in the same box ([`Step::serve`]). Each further link costs one more.
//!
//! Deliberately absent: extractors. `c.should_bind_json()` says what it reads, when, and what
//! happens if it fails.

use crate::answer::Answer;
use crate::body::Body;
use crate::context::Context;
use http::Response;
use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A future behind a pointer.
///
/// ```
/// use curtsy_web::BoxFuture;
///
/// fn later() -> BoxFuture<'static, u8> {
///     Box::pin(async { 7 })
/// }
/// ```
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What can be called with a context for one lifetime `'a`.
///
/// Implemented for every `async fn(c: &mut Context)` and every closure of that form that captures
/// nothing. Implement it yourself for a middleware with settings:
///
/// ```
/// use curtsy_web::{BoxFuture, Call, Context};
///
/// #[derive(Clone)]
/// struct ServerName(&'static str);
///
/// impl<'a> Call<'a> for ServerName {
///     type Future = BoxFuture<'a, ()>;
///
///     fn call(&'a self, c: &'a mut Context) -> Self::Future {
///         Box::pin(async move {
///             c.header("Server", self.0);
///             c.next().await;
///         })
///     }
/// }
///
/// let mut r = curtsy_web::Engine::new();
/// r.use_middleware(ServerName("tea"));
/// ```
pub trait Call<'a> {
    /// What runs.
    type Future: Future<Output: Answer> + Send + 'a;

    /// Begins to run.
    fn call(&'a self, c: &'a mut Context) -> Self::Future;

    /// The name to show for it.
    fn name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}

impl<'a, F, Fut> Call<'a> for F
where
    F: Fn(&'a mut Context) -> Fut,
    Fut: Future<Output: Answer> + Send + 'a,
{
    type Future = Fut;

    fn call(&'a self, c: &'a mut Context) -> Fut {
        self(c)
    }
}

/// A handler or middleware: what can be called with any context.
///
/// You never implement this: implement [`Call`].
///
/// ```
/// use curtsy_web::{Context, Engine, Handler};
///
/// fn twice(r: &mut Engine, handler: impl Handler) {
///     r.get("/once", handler.clone());
///     r.get("/again", handler);
/// }
///
/// twice(&mut Engine::new(), async |c: &mut Context| c.string(200, "hi"));
/// ```
pub trait Handler: for<'a> Call<'a> + Clone + Send + Sync + 'static {}

impl<H> Handler for H where H: for<'a> Call<'a> + Clone + Send + Sync + 'static {}

/// One handler, or a tuple of up to eight: middleware first, the handler last.
///
/// ```
/// use curtsy_web::{Context, Engine};
///
/// async fn check(c: &mut Context) {
///     c.next().await;
/// }
/// async fn page(c: &mut Context) {
///     c.string(200, "page");
/// }
///
/// let mut r = Engine::new();
/// r.get("/one", page);
/// r.get("/two", (check, page));
/// r.get("/closure", async |c: &mut Context| c.string(200, "hi"));
/// ```
pub trait IntoHandlers<Kind> {
    #[doc(hidden)]
    fn into_chain(self) -> Chain;
}

/// Marks a single handler: inferred, never written.
#[derive(Debug)]
#[doc(hidden)]
pub struct One;

/// Marks a tuple of handlers: inferred, never written.
#[derive(Debug)]
#[doc(hidden)]
pub struct Many;

/// Handlers in the order of their calls.
#[derive(Clone, Default)]
#[doc(hidden)]
pub struct Chain(pub(crate) Vec<Link>);

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|link| link.name()))
            .finish()
    }
}

/// A handler as a chain holds it.
pub(crate) type Link = Arc<dyn Step>;

/// A handler without its type.
pub(crate) trait Step: Any + Send + Sync {
    /// Runs as a link of a chain.
    fn run<'a>(&'a self, c: &'a mut Context) -> BoxFuture<'a, ()>;

    /// Runs as the first link: takes the context, goes through the chain, makes the response.
    ///
    /// The context is taken from where it lies: it is large, and every hand that it went through
    /// would copy it.
    fn serve(&self, c: &mut Option<Context>) -> BoxFuture<'static, Response<Body>>;

    fn name(&self) -> &'static str;
}

struct Typed<H>(H);

impl<H: Handler> Step for Typed<H> {
    fn run<'a>(&'a self, c: &'a mut Context) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let reply = self.0.call(&mut *c).await.answer();
            c.reply(reply);
        })
    }

    fn serve(&self, c: &mut Option<Context>) -> BoxFuture<'static, Response<Body>> {
        let mut c = c.take();
        if size_of::<H>() == 0 {
            // There is nothing to keep alive: a copy costs nothing.
            let handler = self.0.clone();
            return Box::pin(async move {
                // By reference, and not out of the future, for the same reason.
                let Some(c) = &mut c else {
                    return Response::default();
                };
                let reply = handler.call(&mut *c).await.answer();
                c.reply(reply);
                if c.has_next() {
                    c.next().await;
                }
                c.finish()
            });
        }
        Box::pin(async move {
            let Some(c) = &mut c else {
                return Response::default();
            };
            // Kept by the engine's own count: a copy would count on a line that all workers share.
            let engine = Arc::clone(&c.engine);
            let first = engine.route(c.target).chain.first();
            let first = first.and_then(|link| (&**link as &dyn Any).downcast_ref::<Self>());
            let Some(Self(handler)) = first else {
                return Response::default();
            };
            let reply = handler.call(&mut *c).await.answer();
            c.reply(reply);
            if c.has_next() {
                c.next().await;
            }
            c.finish()
        })
    }

    fn name(&self) -> &'static str {
        self.0.name()
    }
}

impl<H: Handler> IntoHandlers<One> for H {
    fn into_chain(self) -> Chain {
        Chain(vec![Arc::new(Typed(self))])
    }
}

impl IntoHandlers<Chain> for Chain {
    fn into_chain(self) -> Self {
        self
    }
}

macro_rules! tuples {
    ($($handler:ident)+) => {
        impl<$($handler: Handler),+> IntoHandlers<Many> for ($($handler,)+) {
            fn into_chain(self) -> Chain {
                #[allow(non_snake_case, reason = "the type's letter names its value")]
                let ($($handler,)+) = self;
                Chain(vec![$(Arc::new(Typed($handler))),+])
            }
        }
    };
}

tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);
