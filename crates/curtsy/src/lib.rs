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
//! # With a web framework
//!
//! [`web`] is gin's product in Rust: routes, middleware, binding with validation, renders.
//!
#![cfg_attr(feature = "web", doc = "```no_run")]
#![cfg_attr(not(feature = "web"), doc = "```ignore")]
//! use curtsy::web::{Context, Engine, Run};
//!
//! fn main() -> Result<(), curtsy::Error> {
//!     let mut r = Engine::default(); // logger and recovery
//!     r.get("/user/:name", async |c: &mut Context| {
//!         let greeting = format!("Hello, {}!", c.param("name"));
//!         c.string(200, greeting);
//!     });
//!     r.run(":8080")?;
//!     Ok(())
//! }
//! ```
//!
//! # With everything in hand
//!
//! [`Server::builder`] takes any tower or hyper service, several listeners, limits, a drain policy, hooks, a
//! control socket and a place in a row of restarts; a [`Handle`] steers it from anywhere.
//!
//! ```
//! use curtsy::{DrainPolicy, Server};
//! use std::time::Duration;
//!
//! # async fn main_() -> Result<(), curtsy::Error> {
//! # let app = axum::Router::new();
//! let server = Server::builder()
//!     .listen("127.0.0.1:0")
//!     .listen(("admin", "unix:/run/app.sock?mode=660"))
//!     .drain(DrainPolicy { deadline: Duration::from_secs(20), ..DrainPolicy::default() })
//!     .on_shutdown(async || println!("draining"))
//!     .build(app)?;
//! let handle = server.handle(); // shutdown, restart, switch, snapshot
//! let outcome = server.run().await?;
//! println!("{}", outcome.report());
//! # Ok(())
//! # }
//! ```
//!
//! | to | look at |
//! |---|---|
//! | stop, and see what was in the way | [`Outcome`], [`Report`], [`Straggler`] |
//! | restart in place | [`Succession`], [`Builder::restart_on`] |
//! | speak TLS, and switch while in use | [`TlsConfig`], [`Mode`], [`Handle::switch`] |
//! | end what has no end by itself | [`Draining`], `c.draining()` |
//! | bound what clients may do | [`Limits`] |

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
