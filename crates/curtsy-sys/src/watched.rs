//! A descriptor that a tokio runtime watches.
//!
//! tokio's own `AsyncFd` trusts its contents to stay at one descriptor, so making one is unsafe. This one owns its
//! descriptor and never lets go of it, which is all that is asked: nothing here gives it out by value or by `&mut`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

pub use tokio::io::Interest;

/// A watched descriptor. It need not be non-blocking, if what is done with it is (`MSG_DONTWAIT`), and it is not made so.
#[derive(Debug)]
pub struct Watched(AsyncFd<OwnedFd>);

impl Watched {
    /// Has the current runtime watch the descriptor.
    ///
    /// # Errors
    /// When it cannot be watched: a regular file, or `epoll` out of room. The descriptor is closed then.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn new(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is open and stays itself; the `AsyncFd` is private, and nothing in this module replaces,
        // takes out or closes what is in it while it is registered.
        let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
        watched.map(Self).map_err(|error| error.into_parts().1)
    }

    /// Waits until it may be readable.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.0.readable().await
    }

    /// Waits until it may be writable.
    ///
    /// # Errors
    /// As [`Watched::readable`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn writable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.0.writable().await
    }

    /// Does something with the descriptor as soon as it may be readable.
    ///
    /// # Errors
    /// What the operation says, except `WouldBlock`, after which it is waited again; and as [`Watched::readable`].
    pub fn poll_read_io<R>(
        &self,
        cx: &mut Context<'_>,
        mut operation: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            if let Ok(done) = ready.try_io(|fd| operation(fd.as_fd())) {
                return Poll::Ready(done);
            }
        }
    }

    /// Does something with the descriptor now if it may be ready, and remembers when it was not.
    ///
    /// # Errors
    /// What the operation says; `WouldBlock` when it is not ready.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        operation: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        self.0.try_io(interest, |fd| operation(fd.as_fd()))
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scm, seqpacket};

    fn own_program() -> io::Result<std::fs::File> {
        std::fs::File::open(std::env::current_exe()?)
    }

    #[tokio::test]
    async fn readiness_is_seen_and_forgotten() {
        let (a, b) = seqpacket::pair().unwrap();
        let b = Watched::new(b, Interest::READABLE).unwrap();
        scm::send(&a, b"x", &[]).unwrap();
        let mut ready = b.readable().await.unwrap();
        let mut buffer = [0; 4];
        assert_eq!(
            ready
                .try_io(|fd| scm::recv(fd.get_ref(), &mut buffer))
                .unwrap()
                .unwrap()
                .len,
            1
        );
        assert!(
            ready
                .try_io(|fd| scm::recv(fd.get_ref(), &mut buffer))
                .is_err()
        );
        let file = own_program().unwrap();
        assert!(
            Watched::new(file.into(), Interest::READABLE).is_err(),
            "a regular file has no readiness"
        );
    }
}
