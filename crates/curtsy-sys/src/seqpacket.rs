//! A connected pair of Unix sockets that keep packets whole (`SOCK_SEQPACKET`), and taking one end over by its number.
//!
//! Invariants: both ends are close-on-exec, so only a spawn that names one lets it out of the process; a number can be
//! adopted once in a process's life.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// How much may be queued in one direction, bytes. Above the largest packet several times over, so that a batch can be
/// written while the one before it is read; the kernel may grant less (`net.core.wmem_max`).
const QUEUE_BYTES: usize = 512 * 1024;

/// A new pair.
///
/// # Errors
/// What `socketpair(2)` says, `EMFILE` first of all.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    for end in [&a, &b] {
        sockopt::set_socket_send_buffer_size(end, QUEUE_BYTES)?;
    }
    Ok((a, b))
}

/// Whether the descriptor is a Unix socket that keeps packets whole.
#[must_use]
pub fn is_one(fd: BorrowedFd<'_>) -> bool {
    let family = rustix::net::getsockname(fd).map(|name| name.address_family());
    let kind = sockopt::socket_type(fd);
    matches!(
        (family, kind),
        (Ok(AddressFamily::UNIX), Ok(SocketType::SEQPACKET))
    )
}

/// Whether this process was started with such a socket at `number`, and nobody has adopted it yet.
#[must_use]
pub fn is_inherited(number: RawFd) -> bool {
    let adopted = ADOPTED.lock().unwrap_or_else(PoisonError::into_inner);
    if number <= 2 || adopted.contains(&number) {
        return false;
    }
    // SAFETY: the borrow lives for this call only, and is used for calls that report a closed number as an error.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(borrowed);
    flags.is_ok_and(|flags| !flags.contains(rustix::io::FdFlags::CLOEXEC)) && is_one(borrowed)
}

/// Takes over the end that this process was started with at `number`, and makes it close-on-exec.
///
/// # Errors
/// `InvalidInput` when nothing is open there, or something else than such a socket; `AlreadyExists` the second time.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    adopt_if(number, is_one, "is not a Unix socket of packets")
}

/// Takes over whatever this process was started with at `number` (a saved standard error, a lock), close-on-exec.
///
/// # Errors
/// As [`adopt`].
pub fn adopt_any(number: RawFd) -> io::Result<OwnedFd> {
    adopt_if(number, |_| true, "is not open")
}

fn adopt_if(
    number: RawFd,
    is_right: impl Fn(BorrowedFd<'_>) -> bool,
    wrong: &str,
) -> io::Result<OwnedFd> {
    let refuse = |why: &str| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("descriptor {number} {why}"),
        )
    };
    if number <= 2 {
        return Err(refuse("is a standard stream"));
    }
    let mut adopted = ADOPTED.lock().unwrap_or_else(PoisonError::into_inner);
    if adopted.contains(&number) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("descriptor {number} was taken already"),
        ));
    }
    {
        // SAFETY: the borrow lives for this block only, and is used for calls that report a closed number as an error.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        let flags = rustix::io::fcntl_getfd(borrowed).map_err(|_| refuse("is not open"))?;
        // Everything this program opens by itself is close-on-exec; what is not was given to it from outside.
        if flags.contains(rustix::io::FdFlags::CLOEXEC) {
            return Err(refuse("was opened by this process"));
        }
        if !is_right(borrowed) {
            return Err(refuse(wrong));
        }
        rustix::io::fcntl_setfd(borrowed, flags | rustix::io::FdFlags::CLOEXEC)?;
    }
    adopted.insert(number);
    // SAFETY: the number is open, came from outside (it was not close-on-exec) and has not been adopted before, so nobody
    // else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A duplicate that keeps the original's open file description, close-on-exec.
///
/// # Errors
/// What `fcntl(2)` says, `EMFILE` first of all.
pub fn duplicate(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

static ADOPTED: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn an_inherited_end_is_adopted_once_and_nothing_else_is() {
        let (a, _b) = pair().unwrap();
        assert!(is_one(a.as_fd()));
        assert_eq!(
            adopt(a.as_raw_fd()).unwrap_err().kind(),
            io::ErrorKind::InvalidInput,
            "ours is close-on-exec"
        );
        rustix::io::fcntl_setfd(&a, rustix::io::FdFlags::empty()).unwrap();
        let number = a.into_raw_fd();
        assert!(is_inherited(number));
        let adopted = adopt(number).unwrap();
        assert!(!is_inherited(number) && !is_inherited(9_999) && !is_inherited(1));
        assert!(
            rustix::io::fcntl_getfd(&adopted)
                .unwrap()
                .contains(rustix::io::FdFlags::CLOEXEC)
        );
        assert_eq!(
            adopt(number).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(adopt(2).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(
            adopt(9_999).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert!(!is_one(reader.as_fd()));
        assert_eq!(
            adopt(reader.as_raw_fd()).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
