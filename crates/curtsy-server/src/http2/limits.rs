//! The bounds of HTTP/2, beside those that both protocols share.

/// The bounds within which HTTP/2 connections are served, beside the general
/// [`Limits`](crate::Limits): those of the head, the body and all times hold for each stream.
///
/// ```
/// use curtsy_server::{Http2Limits, Limits};
///
/// let limits = Limits {
///     http2: Http2Limits { concurrent_streams: 50, ..Http2Limits::default() },
///     ..Limits::default()
/// };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    /// The most streams a connection may have open at a time. 200: more than browsers use, and a
    /// bound on what one client can set in motion.
    pub concurrent_streams: u32,
    /// How much of a request's body may be on its way before the handler reads it, for each
    /// stream, in bytes. 256 KiB.
    pub stream_window_bytes: u32,
    /// The same for a connection as a whole, in bytes. 1 MiB.
    pub connection_window_bytes: u32,
    /// How much of an answer is kept for a client that does not take it, for each stream, in
    /// bytes. 64 KiB.
    pub send_buffer_bytes: usize,
    /// The most streams that a client may have reset before they came to the service; over it the
    /// connection is closed ("rapid reset"). 20.
    pub pending_reset_streams: usize,
    /// The most streams that were reset because of the client's errors; over it the connection is
    /// closed. 1024.
    pub error_reset_streams: usize,
    /// How many frames that cost the client nothing and bring no request (PING, SETTINGS,
    /// PRIORITY, WINDOW_UPDATE, empty DATA, RST_STREAM) may come in a burst before the connection
    /// is closed; requests and answers earn more. 10,000.
    pub idle_frames: u32,
    /// Whether WebSockets may be opened on streams (RFC 8441). `true`: to the service a request
    /// for one looks as it does in HTTP/1.1. When it is off, clients use HTTP/1.1 for them.
    pub websockets: bool,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            concurrent_streams: 200,
            stream_window_bytes: 256 << 10,
            connection_window_bytes: 1 << 20,
            send_buffer_bytes: 64 << 10,
            pending_reset_streams: 20,
            error_reset_streams: 1024,
            idle_frames: 10_000,
            websockets: true,
        }
    }
}
