//! The binary as its users meet it: real processes, real signals, real clients.

#![allow(
    clippy::unwrap_used,
    reason = "in a test a failed unwrap is a failed test"
)]

mod clients;
mod exit;
mod load;
mod memory;
mod refusals;
mod server;
mod switching;
