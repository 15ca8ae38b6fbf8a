//! A connected socket of either kind, encrypted or not.

use crate::tls::Secure;
use bytes::Bytes;
use rustix::net::{RecvFlags, recv};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A socket that is registered with the runtime it was made in.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<Secure>),
}

/// A socket that belongs to no runtime: what is parked and handed over.
#[derive(Debug)]
pub(crate) struct Bare {
    pub(crate) fd: OwnedFd,
    pub(crate) unix: bool,
}

impl Stream {
    /// Registers a bare socket with the current runtime.
    pub(crate) fn register(bare: Bare) -> io::Result<Self> {
        if bare.unix {
            UnixStream::from_std(bare.fd.into()).map(Self::Unix)
        } else {
            TcpStream::from_std(bare.fd.into()).map(Self::Tcp)
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
            Self::Tcp(_) | Self::Unix(_) => false,
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
            Self::Tls(_) => Err(io::Error::other("an encrypted stream is no bare socket")),
        }
    }

    /// Ready when there may be something to read, the end included.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Ends both directions at once; whoever waits on the socket wakes.
    pub(crate) fn sever(&self) {
        // It fails only if the peer was faster.
        let _ = rustix::net::shutdown(self.as_fd(), rustix::net::Shutdown::Both);
    }
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

/// Takes what has arrived, without waiting.
pub(crate) fn receive(fd: BorrowedFd<'_>) -> Received {
    /// Most heads fit; what does not is read later.
    const SIZE: usize = 2048;
    let mut buffer = [0u8; SIZE];
    match recv(fd, &mut buffer, RecvFlags::DONTWAIT) {
        Ok((0, _)) => Received::Ended,
        Ok((count, _)) => Received::Bytes(Bytes::copy_from_slice(&buffer[..count.min(SIZE)])),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Received::Nothing,
        Err(_) => Received::Ended,
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
pub(crate) fn look(fd: BorrowedFd<'_>) -> Look {
    let mut byte = [0u8; 1];
    match recv(fd, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => Look::Ended,
        Ok(_) => Look::Bytes,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Look::Nothing,
        Err(_) => Look::Ended,
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.socket().as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
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
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, buf),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // The kernel takes what is written; there is nothing to flush.
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}
