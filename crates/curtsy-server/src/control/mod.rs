//! The control socket: a running server steered from outside, one line of JSON at a time.
//!
//! [`Control`] is a client of it. A server has one by [`Builder::control`](crate::Builder::control);
//! a program that is no server speaks the same language with a [`ControlSocket`] of its own.
//!
//! Invariants:
//! - The socket is a Unix socket with mode 0600, and its peers' user is checked besides: only the
//!   server's own user and root are listened to.
//! - Lines, clients and silence are bounded: nobody who may speak can use the server up by it.
//! - Every line is answered by exactly one line; both carry the version of this language.
//! - Nobody who listens is waited for: who does not keep up is cut.
//!
//! Deliberately absent: anything over the network.

mod client;
mod event;
mod listing;
mod message;
mod path;
mod session;
mod socket;
mod status;
mod steer;

pub use client::Control;
pub use event::{Crier, Event};
pub use listing::{ConnectionStatus, Filter};
#[cfg(fuzzing)]
pub(crate) use message::parse;
pub use message::{Answer, Command, LINE_MOST, VERSION};
pub use path::{control_path, control_paths};
pub use socket::{ControlSocket, Hearing, Subject};
pub use status::{
    Connections, DrainStatus, Latency, ListenerStatus, ProcessStatus, Requests, RestartFailed,
    RestartStatus, STRAGGLERS_NAMED, Status, StragglerStatus,
};

pub(crate) use path::Place;
pub(crate) use socket::Wanted;
pub(crate) use steer::{LogLevelHook, Steered, inherit_log_level, tell_progress};
