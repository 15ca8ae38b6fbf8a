//! An encrypted stream over a socket.
//!
//! Between two reads or writes it holds the session and nothing else: bytes go through one
//! scratch buffer a thread, and only what is left over, part of a record or what the socket did
//! not take, is kept with the connection. So a resting connection costs little more than its keys.
//!
//! Invariants:
//! - What was encrypted is sent, in order, before anything else is.
//! - Plaintext is given out in order; the end of the stream only after the last of it.
//! - The end is clean after the peer's close alert; without one it is an error, as someone may
//!   have cut the stream off.

use crate::stream::Stream;
use rustls::ProtocolVersion;
use rustls::server::ServerConnectionData;
use rustls::server::{ServerConfig, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
    WriteTraffic,
};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is read from the socket at a time, in bytes: two full records.
const READ: usize = 36 << 10;
/// How much plaintext is encrypted at a time, in bytes: two full records.
const WRITE: usize = 32 << 10;
/// What encryption adds to that at most, in bytes.
const OVERHEAD: usize = 1 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ.max(WRITE + OVERHEAD)]);
}

/// The server's side of an encrypted connection.
pub(crate) struct Secure {
    socket: Stream,
    session: UnbufferedServerConnection,
    input: Input,
    /// Encrypted, and not taken by the socket yet.
    outgoing: Vec<u8>,
    /// What is outgoing are tickets, which leave with what is written next.
    tickets_wait: bool,
    ending: Ending,
}

/// What was received and not given out.
#[derive(Default)]
struct Input {
    /// Part of a record, or of a handshake message.
    encrypted: Vec<u8>,
    plain: Vec<u8>,
    /// How much of `plain` was given out.
    taken: usize,
    /// By its alert.
    peer_closed: bool,
    /// The socket has nothing more to give.
    has_ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    /// Our close alert is on its way.
    Said,
}

impl Secure {
    /// A stream whose handshake is still to come; `first` was read from the socket before.
    ///
    /// # Errors
    /// If the configuration is unusable.
    pub(crate) fn new(
        socket: Stream,
        config: Arc<ServerConfig>,
        first: Vec<u8>,
    ) -> Result<Self, rustls::Error> {
        Ok(Self {
            socket,
            session: UnbufferedServerConnection::new(config)?,
            input: Input {
                encrypted: first,
                ..Input::default()
            },
            outgoing: Vec::new(),
            tickets_wait: false,
            ending: Ending::No,
        })
    }

    /// Completes the handshake. If it fails, the peer has been told why. Tickets of TLS 1.3 may be
    /// left to be sent: they go with the first write or flush.
    pub(crate) async fn handshake(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_handshake(cx)).await
    }

    /// Whether the client chose HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.session.alpn_protocol() == Some(b"h2")
    }

    pub(crate) fn socket(&self) -> &Stream {
        &self.socket
    }

    pub(crate) fn socket_mut(&mut self) -> &mut Stream {
        &mut self.socket
    }

    /// Whether something was received that could not be given out yet: a part of a record.
    pub(crate) fn is_amid_record(&self) -> bool {
        !self.input.encrypted.is_empty()
    }

    /// Ready when there may be plaintext to read, the end included.
    pub(crate) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.input.has_plain() || self.input.peer_closed || self.input.has_ended {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_read_ready(cx)
    }

    /// Whether hands are shaken, by TLS 1.3.
    fn is_open_tls13(&self) -> bool {
        !self.session.is_handshaking()
            && self.session.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut nothing = ReadBuf::new(&mut []);
        loop {
            let processed = self.process_kept(&mut nothing);
            if processed.is_ok() && self.is_open_tls13() {
                // One segment and one waking of the client less than if they were sent now.
                self.tickets_wait = !self.outgoing.is_empty();
                return Poll::Ready(Ok(()));
            }
            // What is to be sent goes out, an alert included.
            ready!(self.poll_send(cx))?;
            processed?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.input.peer_closed {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if ready!(self.poll_receive(cx, &mut nothing))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Decrypts what was kept.
    fn process_kept(&mut self, out: &mut ReadBuf<'_>) -> io::Result<()> {
        let mut kept = std::mem::take(&mut self.input.encrypted);
        let processed = self.process(&mut kept, out);
        if let Ok(used) = processed {
            self.input.keep(kept, used);
        }
        processed.map(drop)
    }

    /// Reads from the socket once and decrypts; how many bytes came.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.input.has_ended {
            return Poll::Ready(Ok(0));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(&mut scratch[..READ]);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf))?;
            let received = buf.filled_mut();
            let count = received.len();
            if count == 0 {
                self.input.has_ended = true;
                return Poll::Ready(Ok(0));
            }
            let processed = if self.input.encrypted.is_empty() {
                self.process(received, out).map(|used| {
                    self.input.encrypted.extend_from_slice(&received[used..]);
                })
            } else {
                self.input.encrypted.extend_from_slice(received);
                self.process_kept(out)
            };
            if let Err(error) = processed {
                // The peer is told why, if it still listens.
                let _ = self.poll_send(cx);
                return Poll::Ready(Err(error));
            }
            Poll::Ready(Ok(count))
        })
    }

    /// Lets the session work through `records`; how many of their bytes are done with. Plaintext
    /// goes to `out` as far as it fits, and is kept beyond it; what the session has to say is
    /// queued.
    fn process(&mut self, records: &mut [u8], out: &mut ReadBuf<'_>) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let status = self.session.process_tls_records(&mut records[used..]);
            let UnbufferedStatus { discard, state } = status;
            let mut is_done = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(broken)?;
                        used += record.discard;
                        self.input.give(record.payload, out);
                    }
                }
                Ok(ConnectionState::ReadEarlyData(mut early)) => {
                    // None is offered; what comes unasked is dropped.
                    while let Some(record) = early.next_record() {
                        used += record.map_err(broken)?.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.outgoing, |room| data.encode(room))?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.input.peer_closed = true,
                Ok(_) => is_done = true,
                Err(error) => {
                    self.queue_alerts(&mut records[used + discard..]);
                    return Err(broken(error));
                }
            }
            used += discard;
            if is_done {
                return Ok(used);
            }
        }
    }

    /// After an error over `records`: queues the alert that says so. The session must be shown what it has seen
    /// already: it remembers where it was in it.
    fn queue_alerts(&mut self, records: &mut [u8]) {
        let mut used = 0;
        loop {
            let status = self.session.process_tls_records(&mut records[used..]);
            let UnbufferedStatus { discard, state } = status;
            used += discard;
            match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    if append(&mut self.outgoing, |room| data.encode(room)).is_err() {
                        return;
                    }
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Sends what is queued.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tickets_wait = false;
        let mut sent = 0;
        let result = loop {
            if sent == self.outgoing.len() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.socket).poll_write(cx, &self.outgoing[sent..]) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => sent += count,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if sent == self.outgoing.len() {
            self.outgoing = Vec::new();
        } else if sent > 0 {
            self.outgoing.drain(..sent);
        }
        result
    }

    /// Encrypts into `room`, once everything the session itself has to say is queued.
    fn with_traffic<T>(
        &mut self,
        encrypt: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            let UnbufferedStatus { state, .. } = self.session.process_tls_records(&mut []);
            match state.map_err(broken)? {
                ConnectionState::WriteTraffic(mut traffic) => return encrypt(&mut traffic),
                ConnectionState::EncodeTlsData(mut data) => {
                    append(&mut self.outgoing, |room| data.encode(room))?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.input.peer_closed = true,
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let payload = record.map_err(broken)?.payload;
                        self.input.plain.extend_from_slice(payload);
                    }
                }
                // Closed, or not open yet.
                ConnectionState::Closed
                | ConnectionState::ReadEarlyData(_)
                | ConnectionState::BlockedHandshake
                | _ => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }

    /// Encrypts as much of `bufs` as one turn takes, and sends as much of it as the socket takes.
    fn poll_encrypt(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.tickets_wait {
            ready!(self.poll_send(cx))?;
        }
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        let gathered;
        let plain = match bufs.iter().find(|buf| !buf.is_empty()) {
            Some(first) if first.len() == total || first.len() >= WRITE => {
                &first[..first.len().min(WRITE)]
            }
            _ => {
                gathered = gather(bufs, WRITE);
                gathered.as_slice()
            }
        };
        SCRATCH.with_borrow_mut(|scratch| {
            let count = self.with_traffic(|traffic| {
                let encrypted = traffic.encrypt(plain, scratch);
                encrypted.map_err(|error| io::Error::other(error.to_string()))
            })?;
            if self.outgoing.is_empty() {
                let sent = match Pin::new(&mut self.socket).poll_write(cx, &scratch[..count]) {
                    Poll::Ready(sent) => sent?,
                    Poll::Pending => 0,
                };
                self.outgoing.extend_from_slice(&scratch[sent..count]);
            } else {
                // Tickets waited for it, or the session had something to say first.
                self.outgoing.extend_from_slice(&scratch[..count]);
                if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                    return Poll::Ready(Err(error));
                }
            }
            Poll::Ready(Ok(plain.len()))
        })
    }
}

impl Input {
    fn has_plain(&self) -> bool {
        self.taken < self.plain.len()
    }

    /// Hands plaintext on.
    fn give(&mut self, plain: &[u8], out: &mut ReadBuf<'_>) {
        let fits = match self.has_plain() {
            true => 0,
            false => plain.len().min(out.remaining()),
        };
        out.put_slice(&plain[..fits]);
        self.plain.extend_from_slice(&plain[fits..]);
    }

    /// Hands on what was kept.
    fn take(&mut self, out: &mut ReadBuf<'_>) {
        let rest = &self.plain[self.taken..];
        let fits = rest.len().min(out.remaining());
        out.put_slice(&rest[..fits]);
        self.taken += fits;
        if !self.has_plain() {
            self.plain = Vec::new();
            self.taken = 0;
        }
    }

    /// Keeps what the session could not use yet, and no buffer for nothing.
    fn keep(&mut self, mut bytes: Vec<u8>, used: usize) {
        if used < bytes.len() {
            bytes.drain(..used);
            self.encrypted = bytes;
        }
    }
}

/// Lets `encode` append to `queue`, with as much room as it asks for.
fn append(
    queue: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> io::Result<()> {
    let before = queue.len();
    match encode(&mut []) {
        Ok(_) => Ok(()),
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
            queue.resize(before + required_size, 0);
            let written = encode(&mut queue[before..]);
            let written = written.map_err(|error| io::Error::other(error.to_string()))?;
            queue.truncate(before + written);
            Ok(())
        }
        Err(error) => Err(io::Error::other(error.to_string())),
    }
}

fn gather(bufs: &[IoSlice<'_>], most: usize) -> Vec<u8> {
    let mut gathered = Vec::new();
    for buf in bufs {
        let fits = buf.len().min(most - gathered.len());
        gathered.extend_from_slice(&buf[..fits]);
    }
    gathered
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl AsyncRead for Secure {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            if this.input.has_plain() {
                this.input.take(buf);
                return Poll::Ready(Ok(()));
            }
            if buf.filled().len() > before || this.input.peer_closed || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if ready!(this.poll_receive(cx, buf))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

impl AsyncWrite for Secure {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_encrypt(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_encrypt(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ending == Ending::No {
            this.ending = Ending::Said;
            let mut alert = [0; 256];
            let queued =
                this.with_traffic(|traffic| match traffic.queue_close_notify(&mut alert) {
                    Ok(count) => Ok(count),
                    Err(EncryptError::InsufficientSize(_) | EncryptError::EncryptExhausted) => {
                        Ok(0)
                    }
                });
            // A session that is broken or was never open has nothing to say goodbye with.
            this.outgoing
                .extend_from_slice(&alert[..queued.unwrap_or(0)]);
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secure")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Secure;
    use crate::stream::Stream;
    use crate::tls::gullible::gullible;
    use crate::{Certificate, TlsConfig};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion};
    use std::future::poll_fn;
    use std::io::{ErrorKind, Read, Write};
    use std::net::Shutdown;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{sleep, timeout};

    /// Both ends after the handshake; the client's socket does not block.
    async fn pair(
        version: &'static SupportedProtocolVersion,
    ) -> (Secure, ClientConnection, std::net::TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shaking = tokio::task::spawn_blocking(move || {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(gullible())
                .with_no_client_auth();
            let name = ServerName::try_from("localhost").unwrap();
            let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
            let mut socket = std::net::TcpStream::connect(address).unwrap();
            while client.is_handshaking() || client.wants_write() {
                client.complete_io(&mut socket).unwrap();
            }
            socket.set_nonblocking(true).unwrap();
            (client, socket)
        });
        let (socket, _) = listener.accept().await.unwrap();
        let config = TlsConfig::new([Certificate::self_signed(["localhost"]).unwrap()]).unwrap();
        let mut server =
            Secure::new(Stream::Tcp(socket), config.server.clone(), Vec::new()).unwrap();
        server.handshake().await.unwrap();
        let (client, socket) = shaking.await.unwrap();
        (server, client, socket)
    }

    /// What of the server's data has arrived, once some has.
    async fn hear(client: &mut ClientConnection, socket: &mut std::net::TcpStream) -> Vec<u8> {
        let mut plain = vec![0; 1 << 16];
        loop {
            match client.read_tls(socket) {
                Ok(_) => drop(client.process_new_packets().unwrap()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            if let Ok(count) = client.reader().read(&mut plain) {
                plain.truncate(count);
                return plain;
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn say(client: &mut ClientConnection, socket: &mut std::net::TcpStream, words: &[u8]) {
        client.writer().write_all(words).unwrap();
        while client.wants_write() {
            client.write_tls(socket).unwrap();
        }
    }

    #[tokio::test]
    async fn tickets_leave_with_the_first_answer() {
        let (mut server, mut client, mut socket) = pair(&rustls::version::TLS13).await;
        sleep(Duration::from_millis(20)).await;
        let mut byte = [0];
        let early = socket.peek(&mut byte).unwrap_err();
        assert_eq!(early.kind(), ErrorKind::WouldBlock);
        server.write_all(b"answer").await.unwrap();
        // Before any flush.
        assert_eq!(hear(&mut client, &mut socket).await, b"answer");
        assert_eq!(client.tls13_tickets_received(), 1);
    }

    #[tokio::test]
    async fn a_stream_that_is_cut_off_has_no_end_and_is_not_asked_again() {
        let (mut server, client, socket) = pair(&rustls::version::TLS13).await;
        let mut part = [0; 64];
        drop((client, socket));
        let error = server.read(&mut part).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        // A socket that would have to be waited for.
        let (silent, _other) = tokio::net::UnixStream::pair().unwrap();
        server.socket = Stream::Unix(silent);
        poll_fn(|cx| server.poll_read_ready(cx)).await.unwrap();
        let again = timeout(Duration::from_secs(5), server.read(&mut part)).await;
        let error = again.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "and stays none");
    }

    #[tokio::test]
    async fn the_end_is_said_after_one_that_was_seen() {
        for is_clean in [true, false] {
            let (mut server, mut client, mut socket) = pair(&rustls::version::TLS13).await;
            if is_clean {
                client.send_close_notify();
                say(&mut client, &mut socket, b"");
            }
            socket.shutdown(Shutdown::Write).unwrap();
            let mut part = [0; 64];
            assert_eq!(server.read(&mut part).await.is_ok(), is_clean);
            server.shutdown().await.unwrap();
            // The alert, and no cut.
            assert!(hear(&mut client, &mut socket).await.is_empty());
            assert_eq!(client.tls13_tickets_received(), 1, "before it");
        }
    }
}
