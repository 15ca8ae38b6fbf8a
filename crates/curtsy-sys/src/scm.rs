//! Descriptors over a Unix socket (`SCM_RIGHTS`).
//!
//! Invariants: neither call blocks (`MSG_DONTWAIT`, because `O_NONBLOCK` belongs to the open file description and
//! would be shared with whoever else holds a duplicate of the socket); no signal is raised when the peer is gone; what
//! is received is close-on-exec from the first instant.
//!
//! Deliberately absent: credentials, several control messages in one packet, stream sockets (there, the kernel may merge
//! or split what was sent, and descriptors would lose the bytes they belong to).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The most descriptors one packet may carry here.
///
/// The kernel's own limit is 253, and some C libraries give up one earlier; 64 keeps a packet's control data small and
/// its loss, when the receiver is out of descriptors, bounded.
pub const FDS_MAX: usize = 64;

/// What one [`recv`] brought.
#[derive(Debug)]
pub struct Received {
    /// Bytes written to the buffer. Zero means that the peer is gone and the queue is empty.
    pub len: usize,
    /// The descriptors, in the order they were sent. A prefix of them when `fds_truncated`.
    pub fds: Vec<OwnedFd>,
    /// `MSG_CTRUNC`: the kernel could not install all descriptors (the receiver is near its `RLIMIT_NOFILE`). Those that
    /// are missing were closed on this side; the sender's own are untouched.
    pub fds_truncated: bool,
    /// `MSG_TRUNC`: the packet was longer than the buffer.
    pub bytes_truncated: bool,
}

/// Sends one packet with its descriptors, which stay the caller's.
///
/// # Errors
/// `InvalidInput` for more than [`FDS_MAX`] descriptors or an empty packet (the receiver would take it for the end);
/// `WouldBlock` when the queue is full; `ETOOMANYREFS` when too many descriptors are under way unreceived;
/// `BrokenPipe` / `ConnectionReset` when the peer is gone.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() || fds.len() > FDS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "an empty packet, or too many descriptors",
        ));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors",
        ));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let sent = loop {
        match sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::WriteZero,
            "a packet went out in part",
        ))
    }
}

/// Receives one packet.
///
/// # Errors
/// `WouldBlock` when nothing is queued. `ConnectionReset` can come *before* packets that are still queued (the kernel
/// reports it once, when the peer died with unread packets of ours): call again until `len` is zero.
pub fn recv(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    Ok(Received {
        len: message.bytes,
        fds,
        fds_truncated: message.flags.contains(ReturnFlags::CTRUNC),
        bytes_truncated: message.flags.contains(ReturnFlags::TRUNC),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seqpacket;

    #[test]
    fn bytes_and_descriptors_arrive_in_order_and_close_on_exec() {
        let (a, b) = seqpacket::pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send(&a, b"x", &[reader.as_fd(), writer.as_fd()]).unwrap();
        let mut buffer = [0; 16];
        let got = recv(&b, &mut buffer).unwrap();
        assert_eq!(
            (
                got.len,
                got.fds.len(),
                got.fds_truncated,
                got.bytes_truncated
            ),
            (1, 2, false, false)
        );
        rustix::io::write(&got.fds[1], b"through").unwrap();
        let mut through = [0; 7];
        rustix::io::read(&reader, &mut through).unwrap();
        assert_eq!(&through, b"through");
        for fd in &got.fds {
            assert!(
                rustix::io::fcntl_getfd(fd)
                    .unwrap()
                    .contains(rustix::io::FdFlags::CLOEXEC)
            );
        }
        let nothing = recv(&b, &mut buffer).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_does_not_fit_is_refused_or_flagged() {
        let (a, b) = seqpacket::pair().unwrap();
        let many = vec![a.as_fd(); FDS_MAX + 1];
        assert_eq!(
            send(&a, b"x", &many).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert_eq!(
            send(&a, b"", &[]).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        send(&a, b"four", &[]).unwrap();
        assert!(recv(&b, &mut [0; 2]).unwrap().bytes_truncated);
        send(&a, b"full", &many[..FDS_MAX]).unwrap();
        assert_eq!(recv(&b, &mut [0; 4]).unwrap().fds.len(), FDS_MAX);
    }

    #[test]
    fn a_reset_comes_before_what_is_still_queued() {
        let (a, b) = seqpacket::pair().unwrap();
        send(&b, b"never read", &[]).unwrap();
        send(&a, b"last words", &[]).unwrap();
        drop(a);
        // A child that another test starts at this moment holds a duplicate until it has become its program.
        let mut gone = [rustix::event::PollFd::new(
            &b,
            rustix::event::PollFlags::empty(),
        )];
        let bound = rustix::event::Timespec {
            tv_sec: 20,
            tv_nsec: 0,
        };
        assert_eq!(rustix::event::poll(&mut gone, Some(&bound)).unwrap(), 1);
        let mut buffer = [0; 16];
        assert_eq!(
            recv(&b, &mut buffer).unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
        assert_eq!(recv(&b, &mut buffer).unwrap().len, 10);
        assert_eq!(recv(&b, &mut buffer).unwrap().len, 0);
        assert!(send(&b, b"x", &[]).is_err());
    }
}
