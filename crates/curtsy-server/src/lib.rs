//! An HTTP server whose stop, restart and reload lose no request.
//!
//! hyper speaks the protocol; this crate is what is around it: listeners, accepting, the exact
//! state of every connection, parking, limits, and the drain.
//!
//! Most programs depend on the `curtsy` crate, which re-exports all of this.
//!
//! Deliberately absent: an HTTP parser, routing, and anything that blocks.

#![forbid(unsafe_code)]

mod accept;
mod access_log;
mod address;
mod admin;
mod alarm;
mod body;
mod clock;
pub mod control;
mod doors;
mod error;
mod exposition;
mod ferry;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handle;
mod handshake;
mod herald;
mod hint;
mod hooks;
mod http1;
mod http2;
mod keepsake;
mod limits;
mod lingering;
mod link;
mod listener;
mod lot;
mod metrics;
mod mode;
mod note;
mod proxy;
mod resident;
mod restart;
mod seat;
mod server;
mod service;
mod shared;
mod shutdown;
mod signals;
mod spare;
mod stream;
mod succession;
mod threads;
mod tls;
mod trace;
mod vacancy;
mod watchdog;
mod wheel;
mod worker;

pub use access_log::{AccessLog, AccessLogFormat};
pub use address::ListenAddress;
pub use admin::AdminAddress;
pub use body::{Body, BodyError};
pub use control::{Control, Status, control_path};
pub use curtsy_lifecycle::{
    Address, AtDeadline, ConnectionInfo, Counts, DrainPolicy, Draining, Ending, Phase, Report,
    Snapshot, State, Straggler,
};
pub use error::Error;
pub use handle::Handle;
pub use http2::Http2Limits;
pub use limits::Limits;
pub use listener::{ListenOn, Listener};
pub use metrics::{Latency, Metrics};
pub use mode::{Mode, ModeName, PlainOnTls};
pub use proxy::ProxyPeers;
pub use resident::resident;
pub use restart::{RestartStep, Restarted};
pub use server::{Builder, Outcome, Server};
pub use service::{Arrived, BoxError, Hyper, IntoService, Service, Tower};
pub use shared::OnDisconnect;
pub use succession::Succession;
pub use tls::{Certificate, CertificateStore, ClientCertificates, TlsBuilder, TlsConfig};
pub use tokio::signal::unix::SignalKind;
pub use trace::{BadTraceParent, TraceParent};
