//! What strangers' bytes reach first, for fuzz targets alone: built under `cfg(fuzzing)`.

/// First bytes of a connection: what they are taken for, and where a request is redirected to.
pub fn first_bytes(bytes: &[u8]) {
    for encrypted in [false, true] {
        if crate::handshake::is_other(bytes, encrypted) {
            let begins = bytes.first() == Some(&0x16) || bytes.starts_with(b"PRI * HTTP/2");
            assert!(begins);
        }
    }
    if let Some(answer) = crate::handshake::redirection(bytes) {
        let (head, _) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        // Nothing a client sends adds a line to it.
        assert!(head.lines().count() <= 7);
    }
}

/// A PROXY header, whole or not, right or wrong.
pub fn proxy_header(bytes: &[u8]) {
    if let crate::proxy::Header::Complete { length, .. } = crate::proxy::parse(bytes) {
        assert!(length <= bytes.len());
        assert_eq!(
            crate::proxy::parse(&bytes[..length]),
            crate::proxy::parse(bytes)
        );
    }
}

/// A line of the control socket.
pub fn control_line(bytes: &[u8]) {
    if let Err(reply) = crate::control::parse(bytes) {
        assert_eq!(reply.lines().count(), 1);
    }
}

/// Frames of HTTP/2, cut anywhere.
pub fn http2_frames(bytes: &[u8]) {
    let found = crate::http2::count_frames(&[bytes]);
    let (cut, bytes) = bytes
        .split_first()
        .map_or((0, bytes), |(cut, rest)| (*cut, rest));
    let whole = crate::http2::count_frames(&[bytes]);
    let (front, back) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(crate::http2::count_frames(&[front, back]), whole);
    assert!(found <= bytes.len() + 1);
}

/// The head of an HTTP/1 request, cut into two reads anywhere: what is counted does not depend on
/// the cut.
pub fn head_scan(bytes: &[u8]) {
    let (cut, bytes) = bytes
        .split_first()
        .map_or((0, bytes), |(cut, rest)| (*cut, rest));
    let whole = crate::http1::count_framing(&[bytes]);
    let (front, back) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(crate::http1::count_framing(&[front, back]), whole);
}

/// A stream of HTTP/1 requests, cut into two reads anywhere: where each ends does not depend on the
/// cut.
pub fn request_stream(bytes: &[u8]) {
    let (cut, bytes) = bytes
        .split_first()
        .map_or((0, bytes), |(cut, rest)| (*cut, rest));
    let whole = crate::http1::ends_of_requests(&[bytes]);
    let (front, back) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(crate::http1::ends_of_requests(&[front, back]), whole);
    assert!(whole.iter().all(|end| *end <= bytes.len()));
}

/// Payloads of HTTP/2 frames, cut anywhere: what is found does not depend on the cut.
pub fn http2_payloads(bytes: &[u8]) {
    let (cut, bytes) = bytes
        .split_first()
        .map_or((0, bytes), |(cut, rest)| (*cut, rest));
    let whole = crate::http2::payloads(&[bytes]);
    let (front, back) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(crate::http2::payloads(&[front, back]), whole);
}

/// The header fields that a client of HTTP/2 may refer to by number, and that a new engine is shown.
#[derive(Debug, Default)]
pub struct HeaderTable(crate::http2::Table);

impl HeaderTable {
    /// Reads a whole header block; false if it is not coded as one.
    pub fn read(&mut self, block: &[u8]) -> bool {
        self.0.read(block).is_some()
    }

    /// The header block by which a new engine is shown them, one that takes lists of so many bytes. Empty if there are
    /// none; `None` if there are too many, so that the connection keeps its engine.
    pub fn shown(&self, header_bytes: usize) -> Option<Vec<u8>> {
        match self.0.written().is_empty() {
            true => Some(Vec::new()),
            false => crate::http2::shown(&self.0, header_bytes),
        }
    }
}
