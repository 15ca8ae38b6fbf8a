//! One line for programs that had one.

use curtsy_server::{Builder, DrainPolicy, Error, IntoService, ListenOn, Outcome, Server};
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

/// Serves `service` on `listener` until a signal stops it and the drain is over.
///
/// The listener may be a bound one (of tokio or of the standard library), or an address
/// (`":8080"`, `"unix:/run/app.sock"`); the service an `axum::Router`, or any tower or hyper
/// service of requests.
///
/// ```
/// # async fn main_() -> Result<(), curtsy::Error> {
/// use std::time::Duration;
///
/// let app = axum::Router::new();
/// let outcome = curtsy::serve(":8080", app)
///     .drain(curtsy::DrainPolicy { deadline: Duration::from_secs(10), ..Default::default() })
///     .await?;
/// println!("{}", outcome.report());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Those of [`Builder::build`] and [`Server::run`].
///
/// # Panics
/// Outside a tokio runtime with I/O and time enabled.
///
/// # Cancel safety
/// As for [`Server::run`]: stop it by a signal or a handle, not by dropping the future.
pub fn serve<S, Kind>(listener: impl Into<ListenOn>, service: S) -> Serve<S, Kind>
where
    S: IntoService<Kind>,
{
    Serve {
        builder: Server::builder().listen(listener),
        service,
        kind: PhantomData,
    }
}

/// What [`serve`] returns: await it.
///
/// ```
/// # async fn main_() -> Result<(), curtsy::Error> {
/// let serving = curtsy::serve("127.0.0.1:0", axum::Router::new());
/// let outcome = serving.await?;
/// # Ok(()) }
/// ```
#[must_use = "a server serves only while it is awaited"]
pub struct Serve<S, Kind> {
    builder: Builder,
    service: S,
    kind: PhantomData<fn(Kind)>,
}

impl<S, Kind> Serve<S, Kind> {
    /// Sets how the server drains.
    ///
    /// ```
    /// # async fn main_() -> Result<(), curtsy::Error> {
    /// use curtsy::DrainPolicy;
    /// use std::time::Duration;
    ///
    /// let policy = DrainPolicy { lame_duck: Duration::from_secs(5), ..DrainPolicy::default() };
    /// curtsy::serve(":8080", axum::Router::new()).drain(policy).await?;
    /// # Ok(()) }
    /// ```
    pub fn drain(mut self, policy: DrainPolicy) -> Self {
        self.builder = self.builder.drain(policy);
        self
    }
}

impl<S, Kind> IntoFuture for Serve<S, Kind>
where
    S: IntoService<Kind> + Send + 'static,
    Kind: 'static,
{
    type Output = Result<Outcome, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.builder.build(self.service)?.run().await })
    }
}

impl<S, Kind> fmt::Debug for Serve<S, Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("builder", &self.builder)
            .finish_non_exhaustive()
    }
}
