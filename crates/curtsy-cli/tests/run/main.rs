//! The supervisor as its users meet it: real processes in several languages, real signals, real load.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in a test a failed unwrap is a failed test, and what is skipped is said"
)]

mod admin;
mod asking;
mod brokered;
mod company;
mod failures;
mod file;
mod init;
mod languages;
mod load;
mod supervisor;
mod surroundings;
mod wishes;
