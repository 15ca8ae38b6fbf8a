//! The byte streams that connections run over: TCP, Unix sockets, and TLS on TCP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;
use tokio_rustls::client::TlsStream;

use crate::target::Endpoint;
use crate::tls::Tls;

#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why there is no stream.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// Nobody listens: refused, or (Unix) the socket's path is gone.
    Refused,
    Other(String),
}

impl Stream {
    /// Connects, and shakes hands if there is TLS to speak.
    pub(crate) async fn open(endpoint: &Endpoint, tls: Option<&Tls>) -> Result<Self, OpenError> {
        match endpoint {
            Endpoint::Tcp(addresses) => {
                let mut outcome = Err(io::Error::from(io::ErrorKind::AddrNotAvailable));
                for address in addresses {
                    outcome = TcpStream::connect(address).await;
                    if outcome.is_ok() {
                        break;
                    }
                }
                let stream = outcome.map_err(OpenError::connecting)?;
                stream.set_nodelay(true).map_err(OpenError::connecting)?;
                let Some(tls) = tls else {
                    return Ok(Self::Tcp(stream));
                };
                let stream = tls.handshake(stream).await.map_err(OpenError::Other)?;
                Ok(Self::Tls(Box::new(stream)))
            }
            Endpoint::Unix(path) => loop {
                match UnixStream::connect(path).await {
                    Ok(stream) => return Ok(Self::Unix(stream)),
                    // A full backlog: the kernel offers no event for its end, a blocking connect would wait.
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => sleep(BACKLOG_PAUSE).await,
                    Err(e) => return Err(OpenError::connecting(e)),
                }
            },
        }
    }
}

impl OpenError {
    fn connecting(error: io::Error) -> Self {
        let kind = error.kind();
        if kind == io::ErrorKind::ConnectionRefused || kind == io::ErrorKind::NotFound {
            Self::Refused
        } else {
            Self::Other(error.to_string())
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_write(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_flush(cx),
            Self::Unix(s) => Pin::new(s).poll_flush(cx),
            Self::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

const BACKLOG_PAUSE: Duration = Duration::from_millis(1);
