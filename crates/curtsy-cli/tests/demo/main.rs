//! The binary as its users meet it: real processes, real signals, real clients.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in a test a failed unwrap is a failed test, and what is skipped is said"
)]

mod clients;
mod descriptors;
mod exit;
mod following;
mod full;
mod handshakes;
mod load;
mod memory;
mod refusals;
mod routes;
mod server;
mod streams;
mod switching;
mod trusting;
mod unread;
