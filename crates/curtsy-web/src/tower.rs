//! Tower services and layers within an engine.
//!
//! Invariants:
//! - A mounted service sees the path after its prefix, and the engine's middleware runs before it.
//! - A layer stands where it was added among the middleware: it wraps the handlers after it. A
//!   request's context survives the layer; if the layer drops the inner call (a timeout), what the
//!   handlers kept in it is gone.

use crate::body::Body;
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{BoxError, Error};
use crate::group::{ANY, RouterGroup};
use crate::handler::{BoxFuture, Call};
use crate::settings::Settings;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use std::convert::Infallible;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};
use tower_layer::Layer;
use tower_service::Service;

/// The rest of a request's handlers as a tower service: what a layer wraps.
///
/// ```
/// use curtsy_web::{Engine, Rest};
/// use tower::layer::layer_fn;
///
/// let mut r = Engine::new();
/// r.layer(layer_fn(|rest: Rest| rest)); // a layer that adds nothing
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Rest(());

/// A context on its way through a layer. The handler's end and the service's end share it.
#[derive(Clone)]
struct Passage(Arc<Mutex<Option<Context>>>);

impl Passage {
    fn put(&self, c: Context) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(c);
    }

    fn take(&self) -> Option<Context> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<R> Service<Request<R>> for Rest
where
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        Box::pin(async move {
            let request = request.map(Body::new);
            let passage = request.extensions().get::<Passage>().cloned();
            let taken = passage.as_ref().and_then(Passage::take);
            let (Some(passage), Some(mut c)) = (passage, taken) else {
                // The layer has lost the context, or calls a second time.
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                return Ok(response);
            };
            let (parts, body) = request.into_parts();
            // Parameters are ranges of the path that was matched, whatever a layer makes of it.
            if c.text.is_none() && parts.uri.path() != c.request.uri.path() {
                c.text = Some(c.request.uri.path().into());
            }
            c.request = parts;
            c.body = body;
            c.next().await;
            let response = c.take_answer();
            passage.put(c);
            Ok(response)
        })
    }
}

/// A tower layer as middleware; see [`Engine::layer`], which makes it.
///
/// ```
/// use curtsy_web::Engine;
/// use tower_http::compression::CompressionLayer;
///
/// Engine::new().layer(CompressionLayer::new());
/// ```
pub struct Layered<S, B> {
    service: S,
    body: PhantomData<fn() -> B>,
}

impl<S: Clone, B> Clone for Layered<S, B> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            body: PhantomData,
        }
    }
}

impl<S, B> std::fmt::Debug for Layered<S, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Layered")
    }
}

impl<'a, S, B> Call<'a> for Layered<S, B>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Future = BoxFuture<'a, ()>;

    fn call(&'a self, c: &'a mut Context) -> Self::Future {
        let service = self.service.clone();
        Box::pin(async move {
            // What the logger needs afterwards, whatever the layer does with the request.
            let mut kept = Request::new(());
            *kept.method_mut() = c.request.method.clone();
            *kept.uri_mut() = c.request.uri.clone();
            *kept.version_mut() = c.request.version;
            *kept.headers_mut() = c.request.headers.clone();
            let (kept, ()) = kept.into_parts();
            let hollow = c.hollow(kept.clone());
            let mut inner = std::mem::replace(c, hollow);
            let parts = std::mem::replace(&mut inner.request, kept.clone());
            let body = std::mem::take(&mut inner.body);
            let passage = Passage(Arc::new(Mutex::new(Some(inner))));
            let mut request = Request::from_parts(parts, body);
            request.extensions_mut().insert(passage.clone());

            let answered = oneshot(service, request).await;
            match passage.take() {
                Some(mut inner) => {
                    inner.request = kept;
                    inner.forget_answer();
                    *c = inner;
                }
                None => c.abort(),
            }
            // Nothing of the chain is left to run, whether the layer let it run or not.
            c.finish_chain();
            match answered {
                Ok(response) => c.take_response(response.map(Body::new)),
                Err(error) => c.fail(Error::from_box(error.into())),
            }
        })
    }
}

/// A tower service under a prefix.
struct Mounted<S, B> {
    service: S,
    /// How many segments of the path the prefix has.
    segments: usize,
    body: PhantomData<fn() -> B>,
}

impl<S: Clone, B> Clone for Mounted<S, B> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            segments: self.segments,
            body: PhantomData,
        }
    }
}

impl<'a, S, B> Call<'a> for Mounted<S, B>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Future = BoxFuture<'a, ()>;

    fn call(&'a self, c: &'a mut Context) -> Self::Future {
        let service = self.service.clone();
        let segments = self.segments;
        Box::pin(async move {
            let slashes = Slashes::of(&c.engine.settings);
            let Some(uri) = without_prefix(&c.request.uri, segments, slashes) else {
                return c.abort_with_status(StatusCode::BAD_REQUEST);
            };
            // The context keeps its own head for the middleware that is still to come.
            let mut request = Request::new(c.take_body());
            *request.method_mut() = c.request.method.clone();
            *request.uri_mut() = uri;
            *request.version_mut() = c.request.version;
            *request.headers_mut() = c.request.headers.clone();
            *request.extensions_mut() = std::mem::take(&mut c.request.extensions);
            if let Some(info) = &c.info {
                request.extensions_mut().insert(info.clone());
            }
            match oneshot(service, request).await {
                Ok(response) => c.take_response(response.map(Body::new)),
                Err(error) => c.fail(Error::from_box(error.into())),
            }
        })
    }
}

async fn oneshot<S, R>(mut service: S, request: R) -> Result<S::Response, S::Error>
where
    S: Service<R>,
{
    poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}

/// What divided the path into segments when it was matched.
#[derive(Clone, Copy, Debug)]
struct Slashes {
    /// `%2F` did as well: the path was decoded first.
    escaped: bool,
    /// Several were one.
    repeated: bool,
}

impl Slashes {
    fn of(settings: &Settings) -> Self {
        Self {
            escaped: !settings.use_raw_path,
            repeated: settings.remove_extra_slash,
        }
    }

    /// How many bytes of a slash a text begins with.
    fn at_start(self, text: &str) -> usize {
        match text.as_bytes() {
            [b'/', ..] => 1,
            [b'%', b'2', b'F' | b'f', ..] if self.escaped => 3,
            _ => 0,
        }
    }

    /// A path after its first segments, as it came. Cut where the router cut it: otherwise the
    /// service would see another path than the one that was let through.
    fn skip(self, path: &str, segments: usize) -> &str {
        let (mut rest, mut seen) = (path, 0);
        loop {
            let slash = self.at_start(rest);
            if slash > 0 {
                rest = &rest[slash..];
                while self.repeated && self.at_start(rest) > 0 {
                    rest = &rest[self.at_start(rest)..];
                }
                if seen == segments {
                    return rest;
                }
                seen += 1;
            } else {
                let mut chars = rest.chars();
                if chars.next().is_none() {
                    return "";
                }
                rest = chars.as_str();
            }
        }
    }
}

/// The URI after its first segments.
fn without_prefix(uri: &Uri, segments: usize, slashes: Slashes) -> Option<Uri> {
    let rest = format!("/{}", slashes.skip(uri.path(), segments));
    let target = match uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}

impl RouterGroup<'_> {
    /// Hands every request under a path to a tower service, which sees the path after it. Nine
    /// methods, as [`any`](Self::any).
    ///
    /// ```
    /// use curtsy_web::{Context, Engine};
    ///
    /// let mut users = Engine::new();
    /// users.get("/:id", async |c: &mut Context| c.string(200, "somebody"));
    ///
    /// let mut r = Engine::new();
    /// r.group("/v1").mount("/users", users); // /v1/users/7
    /// ```
    ///
    /// # Panics
    /// If the path collides with a route that is there.
    #[track_caller]
    pub fn mount<S, B>(&mut self, path: &str, service: S) -> &mut Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (base, segments) = {
            let group = self.group(path);
            let base = group.base_path().trim_end_matches('/').to_owned();
            let segments = base.matches('/').count();
            (base, segments)
        };
        let mounted = Mounted {
            service,
            segments,
            body: PhantomData,
        };
        let within = base.len() - self.base_path().trim_end_matches('/').len();
        let relative = base[base.len() - within..].to_owned();
        if !relative.is_empty() {
            self.match_methods(&ANY, &relative, mounted.clone());
        }
        self.match_methods(&ANY, &format!("{relative}/*mounted"), mounted)
    }

    /// Adds a tower layer as middleware: it wraps the handlers of the routes registered from now
    /// on. An error of its service is answered as a private one: 500.
    ///
    /// ```
    /// use curtsy_web::Engine;
    /// use tower_http::compression::CompressionLayer;
    ///
    /// let mut r = Engine::new();
    /// r.group("/texts").layer(CompressionLayer::new());
    /// ```
    pub fn layer<L, B>(&mut self, layer: L) -> &mut Self
    where
        L: Layer<Rest>,
        L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request<Body>>>::Future: Send,
        <L::Service as Service<Request<Body>>>::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.use_middleware(Layered {
            service: layer.layer(Rest(())),
            body: PhantomData,
        })
    }
}

impl Engine {
    /// Hands every request under a path to a tower service, which sees the path after it.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine, test::Client};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut inner = Engine::new(); // or an axum::Router, a tonic service ..
    /// inner.get("/users", async |c: &mut Context| c.string(200, c.path().to_owned()));
    ///
    /// let mut r = Engine::new();
    /// r.mount("/api", inner);
    /// assert_eq!(Client::new(r).get("/api/users").send().await.text(), "/users");
    /// # });
    /// ```
    ///
    /// # Panics
    /// If the path collides with a route that is there.
    #[track_caller]
    pub fn mount<S, B>(&mut self, path: &str, service: S) -> &mut Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.root().mount(path, service);
        self
    }

    /// Adds a tower layer as middleware: it wraps the handlers of the routes registered from now
    /// on, and what answers without a route. An error of its service is answered as a private one.
    ///
    /// ```
    /// use curtsy_web::Engine;
    /// use tower_http::compression::CompressionLayer;
    ///
    /// let mut r = Engine::new();
    /// r.layer(CompressionLayer::new());
    /// ```
    pub fn layer<L, B>(&mut self, layer: L) -> &mut Self
    where
        L: Layer<Rest>,
        L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request<Body>>>::Future: Send,
        <L::Service as Service<Request<Body>>>::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.use_middleware(Layered {
            service: layer.layer(Rest(())),
            body: PhantomData,
        })
    }
}
