//! Descriptors of any kind, watched by the runtime.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the current tokio runtime, for reading.
///
/// # Errors
/// If the kernel cannot watch a descriptor of this kind (a regular file), or no more.
///
/// # Panics
/// Outside a tokio runtime with I/O enabled.
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open for as long as it lives, it is moved into the `AsyncFd`, and
    // its number never changes.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}
