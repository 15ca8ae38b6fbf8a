//! A connected socket of either kind, encrypted or not.

use crate::resident::Place;
use crate::tls::Secure;
use bytes::{Bytes, BytesMut};
use curtsy_sys::descriptors;
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send};
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<Secure>),
    /// A socket that no runtime watches yet. It is registered with the one that it is used in when
    /// somebody has to wait for it: many a connection is answered and closed before.
    Unwatched(Option<Bare>),
}

/// A socket that belongs to no runtime: what is parked and handed over.
#[derive(Debug)]
pub(crate) struct Bare {
    pub(crate) fd: OwnedFd,
    pub(crate) unix: bool,
}

impl Stream {
    /// A socket that must not block.
    pub(crate) fn new(bare: Bare) -> Self {
        Self::Unwatched(Some(bare))
    }

    /// Has the current runtime watch the socket, if none does.
    ///
    /// # Errors
    /// When it cannot be watched. The socket is closed then.
    pub(crate) fn watch(&mut self) -> io::Result<()> {
        if let Self::Unwatched(bare) = self {
            let Some(bare) = bare.take() else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            *self = match bare.unix {
                true => Self::Unix(UnixStream::from_std(bare.fd.into())?),
                false => Self::Tcp(TcpStream::from_std(bare.fd.into())?),
            };
        }
        Ok(())
    }

    /// Takes what has arrived on a socket that nobody watches.
    pub(crate) fn receive(&self) -> Received {
        match self {
            Self::Unwatched(Some(bare)) => receive(bare.fd.as_fd()),
            Self::Unwatched(None) => Received::Ended,
            Self::Tcp(_) | Self::Unix(_) | Self::Tls(_) => Received::Nothing,
        }
    }

    /// Whether it is encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether it holds part of something that its peer has not sent the rest of.
    pub(crate) fn is_amid_record(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.is_amid_record(),
            Self::Tcp(_) | Self::Unix(_) | Self::Unwatched(_) => false,
        }
    }

    /// Takes the socket out of its runtime. An encrypted one has a session, and stays.
    pub(crate) fn bare(self) -> io::Result<Bare> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(|stream| Bare {
                fd: stream.into(),
                unix: false,
            }),
            Self::Unix(stream) => stream.into_std().map(|stream| Bare {
                fd: stream.into(),
                unix: true,
            }),
            Self::Unwatched(bare) => bare.ok_or_else(|| io::ErrorKind::NotConnected.into()),
            Self::Tls(_) => Err(io::Error::other("an encrypted stream is no bare socket")),
        }
    }

    /// Ready when there may be something to read, the end included.
    pub(crate) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch()?;
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) => stream.poll_read_ready(cx),
            Self::Unwatched(_) => Poll::Pending,
        }
    }

    /// Receives what has arrived, as much as the buffer has room for; 0 at the end.
    ///
    /// It is tried from here, not from within the runtime: as near to the call as it goes, because what the kernel does
    /// makes the processor forget where a deep stack returns to. And at once if the task was `woken`, most likely by what
    /// has arrived: the runtime is asked only where that was not so, and counts it (`tokio::task::coop`) only then.
    #[inline(always)]
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        woken: bool,
    ) -> Poll<io::Result<usize>> {
        let Self::Tcp(stream) = self else {
            return self.poll_receive_other(cx, buf);
        };
        let mut is_asked = !woken;
        loop {
            if is_asked {
                ready!(stream.poll_read_ready(cx))?;
            }
            is_asked = true;
            let room = buf.capacity() - buf.len();
            let mut short = None;
            let received = stream.try_io(Interest::READABLE, || {
                match descriptors::receive(stream.as_fd(), buf)? {
                    count if (1..room).contains(&count) => {
                        // That has emptied it, and it says when there is more (epoll(7), question 9).
                        short = Some(count);
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                    count => Ok(count),
                }
            });
            match (short, received) {
                (Some(count), _) | (None, Ok(count)) => return Poll::Ready(Ok(count)),
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                (None, Err(error)) => return Poll::Ready(Err(error)),
            }
        }
    }

    #[inline(never)]
    fn poll_receive_other(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        pin!(self.read_buf(buf)).poll(cx)
    }

    /// Sends what the socket takes of it at once, for a socket that a runtime watches; from here, for the same reason.
    #[inline(always)]
    pub(crate) fn try_send(&self, buf: &[u8]) -> Option<usize> {
        match self {
            // Whoever tries again learns why not, and the runtime with that.
            Self::Tcp(stream) => {
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                send(stream, buf, flags).ok()
            }
            Self::Unix(_) | Self::Tls(_) | Self::Unwatched(_) => None,
        }
    }

    /// Whether nothing has arrived that was not read. A watched socket is asked what its runtime
    /// knows; to be asked again it must be polled.
    pub(crate) fn is_silent(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Unwatched(_) => self.look() == Look::Nothing,
            Self::Tcp(_) | Self::Unix(_) | Self::Tls(_) => self.poll_read_ready(cx).is_pending(),
        }
    }

    /// Writes bytes that others follow at once, or the end. The kernel keeps them until then, and sends them as one
    /// (Linux, `send(2)`, `MSG_MORE`): half of the packets, and the client wakes once.
    pub(crate) fn poll_write_more(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = match self {
            Self::Tcp(stream) => try_send(stream, buf, SendFlags::MORE),
            Self::Unwatched(Some(bare)) => {
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT | SendFlags::MORE;
                send(&bare.fd, buf, flags).map_err(Into::into)
            }
            Self::Unix(_) | Self::Tls(_) | Self::Unwatched(None) => {
                return Pin::new(self).poll_write(cx, buf);
            }
        };
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Pin::new(self).poll_write(cx, buf)
            }
            sent => Poll::Ready(sent),
        }
    }

    /// Whether the kernel sends bytes of its own over it, without a copy.
    pub(crate) fn takes_resident(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            Self::Unwatched(bare, ..) => bare.as_ref().is_some_and(|bare| !bare.unix),
            Self::Unix(_) | Self::Tls(_) => false,
        }
    }

    /// Has the kernel send some of its own bytes, `count` at most (`sendfile(2)`). Not for a stream that takes none.
    pub(crate) fn poll_send_resident(
        &mut self,
        cx: &mut Context<'_>,
        place: &Place,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        let send = |socket: BorrowedFd<'_>| {
            let (file, mut offset) = (place.file(), place.offset);
            sendfile(socket, file, Some(&mut offset), count).map_err(io::Error::from)
        };
        if let Self::Unwatched(Some(bare)) = self {
            match send(bare.fd.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
        self.watch()?;
        let Self::Tcp(stream) = self else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        loop {
            match stream.try_io(Interest::WRITABLE, || send(stream.as_fd())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(stream.poll_write_ready(cx))?;
                }
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// Ends the output: what was kept back leaves, and the end with it. Not for an encrypted one, which says so itself.
    pub(crate) fn end_output(&self) {
        if let Some(fd) = self.fd() {
            // It fails only if the peer was faster.
            let _ = rustix::net::shutdown(fd, Shutdown::Write);
        }
    }

    /// How many written bytes the kernel has still to send.
    pub(crate) fn unsent(&self) -> usize {
        self.fd().map_or(0, curtsy_sys::descriptors::unsent)
    }

    /// Looks at what has arrived at the socket.
    pub(crate) fn look(&self) -> Look {
        self.fd().map_or(Look::Ended, look)
    }

    /// Ends both directions at once; whoever waits on the socket wakes.
    pub(crate) fn sever(&self) {
        if let Some(fd) = self.fd() {
            // It fails only if the peer was faster.
            let _ = rustix::net::shutdown(fd, Shutdown::Both);
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(stream) => Some(stream.as_fd()),
            Self::Unix(stream) => Some(stream.as_fd()),
            Self::Tls(stream) => stream.socket().fd(),
            Self::Unwatched(bare) => bare.as_ref().map(|bare| bare.fd.as_fd()),
        }
    }
}

/// Sends what the socket takes at once.
#[inline(always)]
fn try_send(stream: &TcpStream, buf: &[u8], flags: SendFlags) -> io::Result<usize> {
    stream.try_io(Interest::WRITABLE, || {
        send(stream, buf, SendFlags::NOSIGNAL | flags).map_err(Into::into)
    })
}

/// What a socket's input has to offer at this moment.
#[derive(Debug)]
pub(crate) enum Received {
    /// Nothing has arrived.
    Nothing,
    /// The first bytes of what has.
    Bytes(Bytes),
    /// The peer has closed, or the connection is broken.
    Ended,
}

/// How much is taken at once, in bytes: most heads fit, and what does not is read later.
const SIZE: usize = 2048;

/// Takes what has arrived, without waiting.
pub(crate) fn receive(fd: BorrowedFd<'_>) -> Received {
    let mut buffer = [0u8; SIZE];
    match recv(fd, &mut buffer, RecvFlags::DONTWAIT) {
        Ok((0, _)) => Received::Ended,
        Ok((count, _)) => Received::Bytes(Bytes::copy_from_slice(&buffer[..count.min(SIZE)])),
        Err(Errno::AGAIN | Errno::INTR) => Received::Nothing,
        Err(_) => Received::Ended,
    }
}

/// Takes what has arrived, as much as fits in 2 KiB, without waiting; `None` if nothing has.
fn receive_into(fd: BorrowedFd<'_>, buf: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
    let mut bytes = [const { MaybeUninit::uninit() }; SIZE];
    let most = SIZE.min(buf.remaining());
    match recv(fd, &mut bytes[..most], RecvFlags::DONTWAIT) {
        Ok(((received, _), _)) => {
            buf.put_slice(received);
            Some(Ok(()))
        }
        Err(Errno::AGAIN | Errno::INTR) => None,
        Err(error) => Some(Err(error.into())),
    }
}

/// What a look at a socket's input shows, without taking any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing has arrived.
    Nothing,
    /// Unread bytes are there.
    Bytes,
    /// The peer has closed, or the connection is broken.
    Ended,
}

/// Looks at what has arrived.
fn look(fd: BorrowedFd<'_>) -> Look {
    let mut byte = [0u8; 1];
    match recv(fd, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => Look::Ended,
        Ok(_) => Look::Bytes,
        Err(Errno::AGAIN | Errno::INTR) => Look::Nothing,
        Err(_) => Look::Ended,
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
            Self::Unwatched(bare) => {
                // It may have said all that it will say: then nobody has to wait for it.
                if let Some(bare) = bare
                    && let Some(received) = receive_into(bare.fd.as_fd(), buf)
                {
                    return Poll::Ready(received);
                }
                this.watch()?;
                Pin::new(this).poll_read(cx, buf)
            }
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this {
            // What is tried first asks less of the runtime.
            Self::Tcp(stream) => match try_send(stream, buf, SendFlags::empty()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    Pin::new(stream).poll_write(cx, buf)
                }
                written => Poll::Ready(written),
            },
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, buf),
            Self::Unwatched(bare) => {
                if let Some(bare) = bare {
                    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                    match send(&bare.fd, buf, flags) {
                        Err(Errno::AGAIN | Errno::INTR) => {}
                        sent => return Poll::Ready(sent.map_err(Into::into)),
                    }
                }
                this.watch()?;
                Pin::new(this).poll_write(cx, buf)
            }
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, bufs),
            Self::Unwatched(_) => {
                this.watch()?;
                Pin::new(this).poll_write_vectored(cx, bufs)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // The kernel takes what is written; there is nothing to flush.
            Self::Tcp(_) | Self::Unix(_) | Self::Unwatched(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            Self::Unwatched(Some(bare)) => {
                Poll::Ready(rustix::net::shutdown(&bare.fd, Shutdown::Write).map_err(Into::into))
            }
            Self::Unwatched(None) => Poll::Ready(Ok(())),
        }
    }
}
