//! An HTTP server for the whole life of a service: start, serve, reload, restart, switch, stop,
//! **without losing one request**.
//!
//! Adopt it in one line, where `axum::serve` stood:
//!
//! ```
//! use axum::{Router, routing::get};
//!
//! # async fn main_() -> Result<(), Box<dyn std::error::Error>> {
//! let app = Router::new().route("/", get(|| async { "Hello, World!" }));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! curtsy::serve(listener, app).await?;
//! # Ok(())
//! # }
//! ```
//!
//! SIGINT, SIGTERM and SIGQUIT now drain the service: the accept queue is emptied, requests in
//! flight finish, a request that an idle connection sends in the same moment is still answered,
//! WebSockets and streams are told. `serve` returns when the last of them is done, or at the
//! deadline with a report of what was still running.
//!
//! With everything in hand: [`Server::builder`]. With a web framework: [`web`].

#![forbid(unsafe_code)]

mod serve;
#[cfg(feature = "web")]
pub mod web;

pub use curtsy_server::*;
pub use serve::{Serve, serve};

/// The guides' examples compile.
#[cfg(all(doctest, feature = "web"))]
#[doc = include_str!("../../../docs/from-gin.md")]
#[doc = include_str!("../../../docs/from-axum.md")]
struct Guides;
