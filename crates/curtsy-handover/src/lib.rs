//! Moves listening sockets and idle connections from one process to the next

#![forbid(unsafe_code)]

pub mod donor;
mod failure;
pub mod heir;
mod record;
pub mod wire;

pub use failure::Failure;
pub use record::{EXTRA_MAX, Record, UNREAD_MAX};
