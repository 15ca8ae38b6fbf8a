//! The control socket as operators and their scripts meet it: real processes, the documented language, the commands.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in a test a failed unwrap is a failed test, and what is skipped is said"
)]

mod commands;
mod documented;
mod documents;
mod found;
mod pictures;
mod server;
mod terminal;
