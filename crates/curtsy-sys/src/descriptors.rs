//! This process's descriptors: how many are open, and how many more it may open.

use std::ffi::c_int;
use std::io;
use std::os::fd::BorrowedFd;

use bytes::BytesMut;
use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, recv};
use rustix::process::{Resource, getrlimit};

/// How many descriptors this process has open, this count's own not included.
///
/// # Errors
/// When `/proc` is not there.
pub fn open_count() -> io::Result<usize> {
    // The directory that is being read is itself one of them.
    Ok(std::fs::read_dir("/proc/self/fd")?
        .count()
        .saturating_sub(1))
}

/// How many more this process may open before `RLIMIT_NOFILE`.
///
/// # Errors
/// As [`open_count`].
pub fn room() -> io::Result<usize> {
    let limit = getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
    Ok(limit.saturating_sub(open_count()?))
}

/// Receives what has arrived at a socket into the room that a buffer has, behind what is in it, and says how much
/// that was; 0 at the end, or where there is no room. It waits only if the socket blocks (`recv(2)`).
///
/// # Errors
/// As the call.
#[inline]
pub fn receive(fd: BorrowedFd<'_>, buf: &mut BytesMut) -> io::Result<usize> {
    let received = retry_on_intr(|| {
        let room = buf.spare_capacity_mut();
        recv(fd, room, RecvFlags::empty()).map(|((received, _), _)| received.len())
    })?;
    // SAFETY: so many bytes of it the kernel has written.
    unsafe { buf.set_len(buf.len() + received) };
    Ok(received)
}

/// How many bytes written to a socket its kernel has still to send, the end of the output counted as one; 0 for what is
/// no such socket (Linux, `linux/sockios.h`, `SIOCOUTQNSD`).
pub fn unsent(fd: BorrowedFd<'_>) -> usize {
    const SIOCOUTQNSD: rustix::ioctl::Opcode = 0x894b;
    // SAFETY: it writes one int, for any socket, and nothing where it fails.
    let count = unsafe { rustix::ioctl::Getter::<SIOCOUTQNSD, c_int>::new() };
    // SAFETY: as above.
    let count = unsafe { rustix::ioctl::ioctl(fd, count) };
    count.map_or(0, |count| usize::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_goes_behind_what_is_there_as_far_as_there_is_room() {
        use std::io::Write as _;
        use std::os::fd::AsFd as _;
        use std::os::unix::net::UnixStream;
        let (mut client, socket) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut buf = BytesMut::with_capacity(8);
        let room = buf.capacity();
        buf.extend_from_slice(b"ab");
        let nothing = receive(socket.as_fd(), &mut buf).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"cdefghij").unwrap();
        assert_eq!(receive(socket.as_fd(), &mut buf).unwrap(), room - 2);
        assert_eq!(buf, b"abcdefghij"[..room]);
        assert_eq!(receive(socket.as_fd(), &mut buf).unwrap(), 0);
        drop(client);
        buf.reserve(64);
        let rest = 10 - room;
        assert_eq!(receive(socket.as_fd(), &mut buf).unwrap(), rest);
        assert_eq!(receive(socket.as_fd(), &mut buf).unwrap(), 0);
        assert_eq!(buf, b"abcdefghij"[..]);
    }

    #[test]
    fn the_count_follows_what_is_opened_and_leaves_the_same_room() {
        // Other tests of this binary open and close theirs meanwhile, so only a large step shows.
        let before = open_count().unwrap();
        let held: Vec<_> = (0..200).map(|_| rustix::pipe::pipe().unwrap()).collect();
        let during = open_count().unwrap();
        assert!(during >= before + 300, "{before} -> {during}");
        assert!(room().unwrap() > 0);
        drop(held);
        assert!(open_count().unwrap() < during - 300);
    }
}
