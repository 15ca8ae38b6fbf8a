//! What answers requests: tower's services and hyper's, unchanged.

use crate::body::Body;
use crate::link::Link;
use curtsy_sys::pooled::Pooled;
use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use std::error::Error as StdError;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Any error.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The one shape in which the server calls a service. You do not implement it: any
/// [`tower_service::Service`] or [`hyper::service::Service`] of requests becomes one by
/// [`IntoService`].
pub trait Service: Clone + Send + 'static {
    /// The body of its answers.
    type Body: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static;
    /// What it fails with; a failure is answered with 500.
    type Error: Into<BoxError>;
    /// Its answer in the making.
    type Future: Future<Output = Result<Response<Self::Body>, Self::Error>> + Send + 'static;

    /// Whether it can take a request now.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;

    /// Takes a request.
    fn call(&mut self, request: Arrived<'_>) -> Self::Future;

    /// Takes a request that has arrived to its end; `None` if it takes none but hyper's.
    #[doc(hidden)]
    fn call_whole(&mut self, request: Request<Body>) -> Option<Pooled<Self::Future>>;

    /// Whether it takes requests that have arrived to their end.
    const TAKES_WHOLE: bool;
}

/// A request as hyper hands it over, and the connection that brought it.
#[derive(Debug)]
pub struct Arrived<'a> {
    pub(crate) request: Request<Incoming>,
    pub(crate) link: &'a Arc<Link>,
    pub(crate) has_body: bool,
}

impl Arrived<'_> {
    /// With a body that knows its connection.
    #[inline]
    fn into_request(self) -> Request<Body> {
        let (link, has_body) = (self.link, self.has_body);
        self.request.map(|incoming| match has_body {
            true => Body::incoming(incoming, link.clone()),
            // To ask HTTP/2's again and again whether it is at its end takes a lock each time.
            false => Body::none(link.clone()),
        })
    }

    /// Nobody will read its body.
    pub(crate) fn leave(self) {
        drop(self.into_request());
    }

    /// Whoever shall read its body is not ready.
    pub(crate) fn wait(self) -> Request<Incoming> {
        if !self.request.body().is_end_stream() {
            self.link.body_opened();
        }
        self.request
    }

    /// With hyper's own body: who reads that, the server does not see.
    #[inline]
    fn into_incoming(self) -> Request<Incoming> {
        if !self.request.body().is_end_stream() {
            self.link.body_opened();
            self.link.body_escaped();
        }
        self.request
    }
}

/// Turns what answers requests into the shape that the server calls.
///
/// `Kind` only tells the implementations apart; it is always inferred.
///
/// ```
/// use curtsy_server::{Body, Server};
/// use http::{Request, Response};
/// use std::convert::Infallible;
///
/// # async fn build() -> Result<(), curtsy_server::Error> {
/// let hello = hyper::service::service_fn(async |_: Request<Body>| {
///     Ok::<_, Infallible>(Response::new("Hello, World!".to_owned()))
/// });
/// let server = Server::builder().listen("127.0.0.1:0").build(hello)?;
/// # drop(server);
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(build()).unwrap();
/// ```
pub trait IntoService<Kind> {
    /// The service it becomes.
    type Service: Service;

    /// Does it.
    fn into_service(self) -> Self::Service;
}

/// A [`tower_service::Service`] of requests.
#[derive(Clone, Debug)]
pub struct Tower<S>(S);

impl<S, B> IntoService<Tower<Body>> for S
where
    S: tower_service::Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Service = Tower<S>;

    fn into_service(self) -> Tower<S> {
        Tower(self)
    }
}

impl<S, B> Service for Tower<S>
where
    S: tower_service::Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Arrived<'_>) -> S::Future {
        self.0.call(request.into_request())
    }

    #[inline(always)]
    fn call_whole(&mut self, request: Request<Body>) -> Option<Pooled<S::Future>> {
        Some(Pooled::new(self.0.call(request)))
    }

    const TAKES_WHOLE: bool = true;
}

/// A [`hyper::service::Service`] of requests with `R` for a body: [`Body`], or hyper's own
/// [`Incoming`].
#[derive(Debug)]
pub struct Hyper<S, R>(S, std::marker::PhantomData<fn(R)>);

impl<S: Clone, R> Clone for Hyper<S, R> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), std::marker::PhantomData)
    }
}

impl<S, B> IntoService<Hyper<(), Body>> for S
where
    S: hyper::service::Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Service = Hyper<S, Body>;

    fn into_service(self) -> Hyper<S, Body> {
        Hyper(self, std::marker::PhantomData)
    }
}

impl<S, B> Service for Hyper<S, Body>
where
    S: hyper::service::Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Arrived<'_>) -> S::Future {
        self.0.call(request.into_request())
    }

    #[inline(always)]
    fn call_whole(&mut self, request: Request<Body>) -> Option<Pooled<S::Future>> {
        Some(Pooled::new(self.0.call(request)))
    }

    const TAKES_WHOLE: bool = true;
}

impl<S, B> IntoService<Hyper<(), Incoming>> for S
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Service = Hyper<S, Incoming>;

    fn into_service(self) -> Hyper<S, Incoming> {
        Hyper(self, std::marker::PhantomData)
    }
}

impl<S, B> Service for Hyper<S, Incoming>
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Arrived<'_>) -> S::Future {
        self.0.call(request.into_incoming())
    }

    fn call_whole(&mut self, _: Request<Body>) -> Option<Pooled<S::Future>> {
        None
    }

    const TAKES_WHOLE: bool = false;
}
