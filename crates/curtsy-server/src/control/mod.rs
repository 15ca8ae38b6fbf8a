//! The control socket: a running server steered from outside, one line of JSON at a time.
//!
//! Invariants:
//! - The socket is a Unix socket with mode 0600, and its peers' user is checked besides: only the
//!   server's own user and root are listened to.
//! - Lines, clients and silence are bounded: nobody who may speak can use the server up by it.
//! - Every line is answered by exactly one line; both carry the version of this language.
//!
//! Deliberately absent: anything over the network.

mod client;
mod message;
mod socket;
mod status;

pub use client::{Control, control_path};
pub(crate) use message::{Command, Reply, Request, parse};
pub(crate) use socket::ControlSocket;
pub(crate) use status::status;
pub use status::{
    Connections, DrainStatus, Latency, ListenerStatus, ProcessStatus, Requests, RestartStatus,
    STRAGGLERS_NAMED, Status, StragglerStatus,
};
