//! A connection on its way from one process to the next.

use std::os::fd::OwnedFd;

use crate::record::Record;

/// An idle connection: its descriptor and what goes along.
#[derive(Debug)]
pub struct Connection {
    /// The socket. `O_NONBLOCK` stays as it is: it belongs to the socket, not to the descriptor, and both processes
    /// share it while the connection is under way.
    pub fd: OwnedFd,
    /// What the heir must know.
    pub record: Record,
}
