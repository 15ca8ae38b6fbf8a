//! Every limit of the server in one place: what it bounds, its unit, its default and why.
//!
//! Go's servers have none of these by default, which is why each of its users learns of slow
//! clients the hard way.

use crate::http2::Http2Limits;
use std::time::Duration;

/// The bounds of time, size and number within which connections are served.
///
/// ```
/// use curtsy_server::Limits;
/// use std::time::Duration;
///
/// let limits = Limits {
///     idle_timeout: Duration::from_secs(20),
///     request_body_bytes: Some(10 << 20),
///     ..Limits::default()
/// };
/// assert_eq!(limits.header_timeout, Duration::from_secs(10));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a request's head may take: for the first request counted from the accept, for
    /// later ones from the head's first byte. 10 s: a head is one packet for an honest client.
    pub header_timeout: Duration,
    /// How long a whole request, its body included, may take. None by default: an upload takes as
    /// long as it takes, as long as it moves; see `body_stall`.
    pub read_timeout: Option<Duration>,
    /// How long a request's body may stand still while the handler waits for more of it. 30 s.
    pub body_stall: Duration,
    /// How long a whole answer may take, counted from the end of the request's head. None by
    /// default, as for `read_timeout`.
    pub write_timeout: Option<Duration>,
    /// How long a client may take no byte of an answer that waits for it. 30 s.
    pub write_stall: Duration,
    /// How long a connection may rest between two requests. 120 s: longer than the common load
    /// balancers' own, so that they are the ones to close.
    pub idle_timeout: Duration,
    /// How long a TLS handshake or the detection of the protocol may take. 10 s.
    pub handshake_timeout: Duration,
    /// The largest head of a request, in bytes. 64 KiB; a larger one is answered with 431.
    pub header_bytes: usize,
    /// The most header fields of a request. 500; more are answered with 431.
    pub header_fields: usize,
    /// The largest body of a request, in bytes; a larger one is answered with 413. None by
    /// default: it depends on the route, and nothing here holds a body in memory.
    pub request_body_bytes: Option<u64>,
    /// How much of a body that the handler left unread is read and thrown away so that the
    /// connection can go on. 256 KiB: beyond it a new connection is cheaper.
    pub unread_body_bytes: u64,
    /// How long a connection that is closed with input still arriving is listened to, so that the
    /// answer is not lost to a reset. 500 ms.
    pub close_linger: Duration,
    /// The most connections at a time. None by default. Over it, accepting waits: clients stay in
    /// the kernel's queue and are not refused.
    pub connections: Option<usize>,
    /// How long a connection rests before its memory is given back and only its descriptor is
    /// kept. 100 ms.
    pub park_after: Duration,
    /// How long a handler may block the thread of its worker before the log names it. 1 s. For
    /// servers with [`workers`](crate::Builder::workers); a program's own runtime is its own.
    pub blocked_after: Duration,
    /// The bounds of HTTP/2.
    pub http2: Http2Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            read_timeout: None,
            body_stall: Duration::from_secs(30),
            write_timeout: None,
            write_stall: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            handshake_timeout: Duration::from_secs(10),
            header_bytes: 64 << 10,
            header_fields: 500,
            request_body_bytes: None,
            unread_body_bytes: 256 << 10,
            close_linger: Duration::from_millis(500),
            connections: None,
            park_after: Duration::from_millis(100),
            blocked_after: Duration::from_secs(1),
            http2: Http2Limits::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;
    use std::time::Duration;

    /// What is written down elsewhere for users and operators holds here.
    #[test]
    fn everything_is_bounded_by_default_and_by_how_much() {
        let Limits {
            header_timeout,
            read_timeout,
            body_stall,
            write_timeout,
            write_stall,
            idle_timeout,
            handshake_timeout,
            header_bytes,
            header_fields,
            request_body_bytes,
            unread_body_bytes,
            close_linger,
            connections,
            park_after,
            blocked_after,
            http2: _,
        } = Limits::default();
        let s = Duration::from_secs;
        assert_eq!((header_timeout, handshake_timeout), (s(10), s(10)));
        assert_eq!(
            (body_stall, write_stall, idle_timeout),
            (s(30), s(30), s(120))
        );
        assert_eq!((header_bytes, header_fields), (65_536, 500));
        assert_eq!(
            (unread_body_bytes, close_linger),
            (262_144, Duration::from_millis(500))
        );
        assert_eq!(
            (park_after, blocked_after),
            (Duration::from_millis(100), s(1))
        );
        // These depend on what is served.
        assert_eq!((read_timeout, write_timeout), (None, None));
        assert_eq!((request_body_bytes, connections), (None, None));
        let drain = curtsy_lifecycle::DrainPolicy::default();
        assert_eq!((drain.linger, drain.deadline), (s(1), s(30)));
        assert_eq!(drain.lame_duck, Duration::ZERO);
    }
}
