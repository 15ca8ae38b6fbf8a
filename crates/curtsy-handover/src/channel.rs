//! Packets over a Unix socket on tokio: the thin layer between the machines and the kernel.
//!
//! Invariants
//! - A peer that dies with unread packets of ours makes the kernel report a reset *before* what it had sent last. The
//!   reset is swallowed here: [`Channel::recv`] says `None` only when the queue is empty and the peer gone.
//! - The socket stays as it is: no `O_NONBLOCK` is set on it, because that would be set on every duplicate of it.
//! - A packet goes out whole or not at all, so both directions are cancel safe.
//!
//! Deliberately absent: what packets mean, retries, buffering.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use curtsy_sys::scm;
use curtsy_sys::watched::{Interest, Watched};

use crate::wire::{FRAME_MAX, Frame, WireError};

/// One end of a handover's channel.
#[derive(Debug)]
pub struct Channel {
    socket: Watched,
}

/// One packet.
#[derive(Debug)]
pub struct Packet {
    /// What it says, or why it says nothing.
    pub frame: Result<Frame, WireError>,
    /// The descriptors that arrived: fewer than the frame speaks of when this process is out of them.
    pub fds: Vec<OwnedFd>,
}

/// What became of an attempt to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is in the peer's queue.
    Done,
    /// The queue is full: wait for [`Channel::writable`].
    Full,
    /// Too many descriptors of this user are under way in the whole system: try again soon. Nothing wakes for it.
    Congested,
    /// The peer's end is closed. What was sent before may or may not have been read.
    Closed,
}

impl Channel {
    /// Drives this end of a [`curtsy_sys::seqpacket::pair`].
    ///
    /// # Errors
    /// When the socket cannot be watched.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        Ok(Self {
            socket: Watched::new(socket, interest)?,
        })
    }

    /// The next packet, or `None` at the end.
    ///
    /// # Errors
    /// What the kernel says, a reset excepted.
    ///
    /// # Cancel safety
    /// Cancel safe: a packet is taken in the poll that returns it.
    pub async fn recv(&self, buffer: &mut Buffer) -> io::Result<Option<Packet>> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| receive(socket.get_ref().as_fd(), buffer)) {
                Ok(done) => return done,
                Err(_would_block) => {}
            }
        }
    }

    /// The next packet if one is queued. `Ok(None)` at the end; `WouldBlock` when the queue is empty and the peer's end
    /// still open.
    ///
    /// # Errors
    /// As [`Channel::recv`].
    pub fn try_recv(&self, buffer: &mut Buffer) -> io::Result<Option<Packet>> {
        receive(self.socket.as_fd(), buffer)
    }

    /// Sends one packet, if there is room for it now.
    ///
    /// # Errors
    /// What the kernel says, apart from what [`Sent`] has a name for.
    pub fn try_send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<Sent> {
        // First past the runtime, which does not know that a new socket is writable before it has waited once. Then
        // through it, so that it forgets that the socket was.
        let mut sent = scm::send(&self.socket, bytes, fds);
        if sent
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        {
            sent = self
                .socket
                .try_io(Interest::WRITABLE, |socket| scm::send(socket, bytes, fds));
        }
        match sent {
            Ok(()) => Ok(Sent::Done),
            Err(error) if error.raw_os_error() == Some(CONGESTED) => Ok(Sent::Congested),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Sent::Full),
            Err(error) if is_closed(error.kind()) => Ok(Sent::Closed),
            Err(error) => Err(error),
        }
    }

    /// Waits until there may be room to send.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket
            .writable()
            .await
            .map(|mut ready| ready.retain_ready())
    }
}

/// Room for the longest packet.
pub struct Buffer(Box<[u8]>);

impl Default for Buffer {
    fn default() -> Self {
        // One more than the longest frame, so that a longer packet is seen to be one.
        Self(vec![0; FRAME_MAX + 1].into_boxed_slice())
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Buffer")
    }
}

fn is_closed(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(kind, BrokenPipe | ConnectionReset | NotConnected)
}

const CONGESTED: i32 = rustix::io::Errno::TOOMANYREFS.raw_os_error();

fn receive(socket: BorrowedFd<'_>, buffer: &mut Buffer) -> io::Result<Option<Packet>> {
    loop {
        match scm::recv(socket, &mut buffer.0) {
            // Reported once; what is queued behind it comes at the next call.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error),
            Ok(received) if received.len == 0 => return Ok(None),
            Ok(received) => {
                let bytes = &buffer.0[..received.len];
                let frame = if received.bytes_truncated {
                    Err(WireError::TooLong)
                } else {
                    Frame::decode(bytes)
                };
                return Ok(Some(Packet {
                    frame,
                    fds: received.fds,
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use curtsy_sys::seqpacket;

    use super::*;
    use crate::wire::Message;

    fn frame(sequence: u32) -> Vec<u8> {
        Frame {
            generation: 0,
            sequence,
            message: Message::Ready,
        }
        .encode()
        .unwrap()
    }

    #[tokio::test]
    async fn last_words_are_heard_after_a_reset() {
        let (a, b) = seqpacket::pair().unwrap();
        let b = Channel::new(b).unwrap();
        let mut buffer = Buffer::default();
        assert_eq!(b.try_send(&frame(1), &[]).unwrap(), Sent::Done);
        scm::send(&a, &frame(7), &[]).unwrap();
        scm::send(&a, &frame(8), &[]).unwrap();
        drop(a);
        for sequence in [7, 8] {
            assert_eq!(
                b.recv(&mut buffer)
                    .await
                    .unwrap()
                    .unwrap()
                    .frame
                    .unwrap()
                    .sequence,
                sequence
            );
        }
        assert!(b.recv(&mut buffer).await.unwrap().is_none());
        assert_eq!(b.try_send(&frame(2), &[]).unwrap(), Sent::Closed);
    }

    #[tokio::test]
    async fn a_full_queue_is_waited_for() {
        let (a, b) = seqpacket::pair().unwrap();
        let (a, b) = (Channel::new(a).unwrap(), Channel::new(b).unwrap());
        let mut sent = 0;
        let full = loop {
            a.writable().await.unwrap();
            match a.try_send(&frame(sent), &[a.socket.as_fd()]).unwrap() {
                Sent::Done => sent += 1,
                other @ (Sent::Full | Sent::Congested | Sent::Closed) => break other,
            }
        };
        assert_eq!(full, Sent::Full);
        let mut buffer = Buffer::default();
        for sequence in 0..sent {
            let packet = b.recv(&mut buffer).await.unwrap().unwrap();
            assert_eq!(
                (packet.frame.unwrap().sequence, packet.fds.len()),
                (sequence, 1)
            );
        }
        a.writable().await.unwrap();
        assert_eq!(a.try_send(&frame(9), &[]).unwrap(), Sent::Done);
    }

    #[tokio::test]
    async fn a_packet_that_is_too_long_is_no_frame() {
        let (a, b) = seqpacket::pair().unwrap();
        scm::send(&a, &vec![0; FRAME_MAX + 100], &[]).unwrap();
        let packet = Channel::new(b)
            .unwrap()
            .recv(&mut Buffer::default())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(packet.frame.unwrap_err(), WireError::TooLong);
    }
}
