//! The restart as its users meet it: real processes, real signals, a client that counts.

#![allow(
    clippy::unwrap_used,
    reason = "in a test a failed unwrap is a failed test"
)]

mod failure;
mod idle;
mod load;
mod row;
mod span;
