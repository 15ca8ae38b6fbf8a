//! The restart as its users meet it: real processes, real signals, a client that counts.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in a test a failed unwrap is a failed test, and what is skipped or measured is said"
)]

#[path = "../run/asking.rs"]
mod asking;
mod content;
mod drained;
mod failure;
mod idle;
mod load;
mod many;
mod modes;
mod row;
mod span;
mod surroundings;
mod swarm;
mod tickets;
mod units;
mod versions;
