//! What a program may ask to be called for.

use curtsy_lifecycle::{ConnectionInfo, State};
use http::Extensions;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// What is called while the server serves.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) state: Option<StateHook>,
    pub(crate) connection: Option<ConnectionHook>,
    pub(crate) quiet: Option<QuietHook>,
}

/// Called with each change of a connection's state, on the thread that serves the connection.
pub(crate) type StateHook = Arc<dyn Fn(&ConnectionInfo, State) + Send + Sync>;

/// Called once a connection (and once more each time it comes back from the parking lot); what it
/// puts into the extensions goes into each of the connection's requests.
pub(crate) type ConnectionHook = Arc<dyn Fn(&ConnectionInfo, &mut Extensions) + Send + Sync>;

/// Called on a worker's thread when its connections have fallen silent.
pub(crate) type QuietHook = Arc<dyn Fn() + Send + Sync>;

/// Run once, when the server drains.
pub(crate) type ShutdownHook = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;
