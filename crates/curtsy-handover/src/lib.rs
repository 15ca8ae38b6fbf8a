//! Moves listening sockets and idle connections from one process to the next
//!
//! The old process, the *donor*, starts the new one, the *heir*, and gives it its listeners over a socket pair. The heir
//! says READY and accepts; the donor stops, and offers its connections whenever they are idle; the heir says BAKED when
//! it has proved itself, and only then does the donor let go of the listeners. Until then, whatever goes wrong, the donor
//! serves on and says why. `docs/handover.md` has the protocol and who owns what at each step.
//!
//! ```no_run
//! use std::os::fd::AsFd;
//! use std::time::Duration;
//! use curtsy_handover::{Arrival, Gift, Start, Upgrader, inherit, wire::Kind};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let start = Start::capture();
//! // As an heir: take over. As the first process: bind.
//! let (listener, ancestors) = match inherit(&start).await? {
//!     Some(mut inheritance) => {
//!         let listener = inheritance.take_listener("main").ok_or("no listener of that name")?;
//!         let ancestors = inheritance.ancestors();
//!         let mut arrivals = inheritance.ready(Some(Duration::from_secs(1))).await?;
//!         tokio::spawn(async move {
//!             while let Some(arrival) = arrivals.next().await {
//!                 if let Arrival::Connection(connection) = arrival { /* serve it */ }
//!             }
//!         });
//!         (listener.sockets.into_iter().next().ok_or("no socket")?, ancestors)
//!     }
//!     None => (std::net::TcpListener::bind("127.0.0.1:9000")?.into(), Default::default()),
//! };
//! // As a donor, when asked to restart.
//! let upgrader = Upgrader::new(start).ancestors(ancestors);
//! let mut gift = Gift::new();
//! gift.listener("main", Kind::Tcp, "plain", [listener.as_fd()])?;
//! let successor = upgrader.upgrade(gift).await?;
//! // Stop accepting, offer what is idle through `successor.lane()`, and drain.
//! successor.baked().await?;
//! drop(listener);
//! successor.finish("drained").await?;
//! # Ok(()) }
//! ```

#![forbid(unsafe_code)]

pub mod broker;
pub mod channel;
mod chaos;
mod connection;
pub mod donor;
pub mod env;
mod error;
mod failure;
mod gift;
pub mod heir;
mod inheritance;
mod lane;
pub mod notify;
mod outbox;
pub mod pidfile;
mod record;
mod successor;
mod upgrader;
pub mod wire;

pub use connection::Connection;
pub use donor::Returned;
pub use env::{Start, Summons};
pub use error::Error;
pub use failure::Failure;
pub use gift::Gift;
pub use inheritance::{
    Arrival, Arrivals, Baker, Inheritance, InheritedListener, inherit, inherit_over,
};
pub use lane::{Lane, Settled};
pub use record::{EXTRA_MAX, Record, UNREAD_MAX};
pub use successor::Successor;
pub use upgrader::{Ancestors, Upgrader};
