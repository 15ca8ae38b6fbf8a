//! What an operator looks at: the admin listener of a real process, with real browsers and tools.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in a test a failed unwrap is a failed test, and what is skipped is said"
)]

mod demo;
mod page;
mod probes;
