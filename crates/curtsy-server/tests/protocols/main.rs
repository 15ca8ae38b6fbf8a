//! TLS, HTTP/2, the detection of either, and switching between them: over real sockets, with
//! clients that see bytes and with those that people use.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::large_futures,
    reason = "a failed unwrap in a test is a failed test"
)]

mod clients;
mod conformance;
mod control;
#[path = "../support/gullible.rs"]
mod gullible;
mod http2;
mod in_flight;
mod quiet;
mod resting;
mod streams;
mod support;
mod switching;
mod tls;
mod tools;
mod websocket;
