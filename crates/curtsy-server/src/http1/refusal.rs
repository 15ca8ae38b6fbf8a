//! Answers to what is not a request: written past hyper, which would send an empty one.

use crate::http1::rules::{self, Refusal};
use crate::http1::wire::Wire;
use crate::lingering::poll_discard;
use http::StatusCode;
use std::future::poll_fn;
use std::time::{Duration, SystemTime};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

const VERSION: Refusal = Refusal::new(
    StatusCode::HTTP_VERSION_NOT_SUPPORTED,
    "this server speaks HTTP/1.0 and HTTP/1.1\n",
);
pub(crate) const TOO_LARGE: Refusal = Refusal::new(
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    "the request's head is too large\n",
);
pub(crate) const TOO_SLOW: Refusal = Refusal::new(
    StatusCode::REQUEST_TIMEOUT,
    "the request's head did not arrive in time\n",
);

/// What is wrong with a head that hyper could not parse: `unread` is what it left of it, `framing`
/// how many of its lines name `Transfer-Encoding` and `Content-Length`, `head_taken` whether what
/// is unread comes after it.
pub(crate) fn diagnose(
    error: &hyper::Error,
    unread: &[u8],
    framing: (u8, u8),
    head_taken: bool,
) -> Refusal {
    if error.is_parse_too_large() {
        // Of what hyper judges after it took the head, only a length can be too large.
        return if head_taken && framing.1 > 0 {
            rules::LENGTH_OUT_OF_RANGE
        } else {
            TOO_LARGE
        };
    }
    if error.is_parse_version_h2() || has_other_version(unread) {
        return VERSION;
    }
    if let Some(refusal) = rules::bad_framing(framing.0, framing.1) {
        return refusal;
    }
    if framing.0 == 1 && head_taken {
        return rules::unknown_encoding();
    }
    rules::MALFORMED
}

/// Whether a request line is whole and ends with a version that is none of ours.
fn has_other_version(head: &[u8]) -> bool {
    let line = head
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(_), Some(_), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    match version.strip_prefix(b"HTTP/") {
        Some([major, b'.', minor]) => {
            major.is_ascii_digit()
                && minor.is_ascii_digit()
                && !matches!((major, minor), (b'1', b'0' | b'1'))
        }
        Some([major]) => major.is_ascii_digit(),
        Some(_) | None => false,
    }
}

/// Answers and closes gently. Takes at most twice `linger`.
pub(crate) async fn refuse(mut wire: Wire, refusal: Refusal, linger: Duration) {
    let Refusal { status, text } = refusal;
    let answer = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         connection: close\r\ndate: {}\r\n\r\n{text}",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        text.len(),
        httpdate::fmt_http_date(SystemTime::now()),
    );
    let written = timeout(linger, async {
        poll_fn(|cx| wire.poll_flush_held(cx)).await?;
        let stream = wire.stream_mut();
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
    if matches!(written, Ok(Ok(()))) {
        // More of the head may be on its way; without this its arrival would reset the answer.
        let discard = poll_fn(|cx| poll_discard(wire.stream_mut(), cx));
        // Whether the peer closes in time makes no difference to what we do next: close.
        let _ = timeout(linger, discard).await;
    }
}

#[cfg(test)]
mod tests {
    use super::has_other_version;

    #[test]
    fn other_versions() {
        for (head, expected) in [
            (&b"GET / HTTP/2.0\r\n"[..], true),
            (b"GET / HTTP/1.2\r\n", true),
            (b"GET / HTTP/0.9\r\nHost: a\r\n", true),
            (b"\r\nGET / HTTP/3\r\n", true),
            (b"GET / HTTP/1.1\r\n", false),
            (b"GET / HTTP/1.0\r\n", false),
            (b"GET / HTTP/11.1\r\n", false),
            (b"GET / FTP/2.0\r\n", false),
            (b"GET / a HTTP/2.0\r\n", false),
            (b"GET /", false),
            (b"", false),
        ] {
            let text = String::from_utf8_lossy(head);
            assert_eq!(has_other_version(head), expected, "{text:?}");
        }
    }
}
