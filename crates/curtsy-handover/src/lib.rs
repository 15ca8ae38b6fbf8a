//! Moves listening sockets and idle connections from one process to the next

#![forbid(unsafe_code)]

mod record;
pub mod wire;

pub use record::{EXTRA_MAX, Record, UNREAD_MAX};
