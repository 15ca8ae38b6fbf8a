//! What a request must be before a service sees it, where hyper lets more through.

use crate::hint::unlikely;
use crate::http1::scan::Head;
use crate::limits::Limits;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderMap, TRANSFER_ENCODING};
use http::{Method, Request, StatusCode, Version};
use std::hint::cold_path;

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) text: &'static str,
}

impl Refusal {
    pub(crate) const fn new(status: StatusCode, text: &'static str) -> Self {
        Self { status, text }
    }
}

/// What the rules make of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes to the service.
    Serve,
    /// `OPTIONS *`: the server answers it.
    Options,
    /// It is refused.
    Refuse(Refusal),
}

/// Judges a request whose head came over the wire like `head`.
#[inline(always)]
pub(crate) fn judge<B>(
    request: &Request<B>,
    has_body: bool,
    head: Head,
    limits: &Limits,
) -> Verdict {
    let headers = request.headers();
    if let Err(refusal) = host(request) {
        cold_path();
        return Verdict::Refuse(refusal);
    }
    if unlikely(head != Head::Plain)
        && let Some(expect) = headers.get(EXPECT)
        && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Verdict::Refuse(Refusal::new(
            StatusCode::EXPECTATION_FAILED,
            "this server meets no expectation but 100-continue\n",
        ));
    }
    if unlikely(has_body)
        && let Err(refusal) = body(headers, head, limits)
    {
        return Verdict::Refuse(refusal);
    }
    if unlikely(request.method() == Method::OPTIONS) && request.uri().path() == "*" {
        return Verdict::Options;
    }
    Verdict::Serve
}

/// RFC 9112, section 3.2: exactly one `Host` in HTTP/1.1, and a valid one.
#[inline(always)]
fn host<B>(request: &Request<B>) -> Result<(), Refusal> {
    let bad = |text| Err(Refusal::new(StatusCode::BAD_REQUEST, text));
    let headers = request.headers();
    // Cheaper than to count: as many values as names means that no name comes twice.
    let may_repeat = headers.len() != headers.keys_len();
    // Where most clients put it, it need not be looked up.
    let host = match headers.iter().next() {
        Some((name, value)) if *name == HOST => Some(value),
        Some(_) | None => {
            cold_path();
            headers.get(HOST)
        }
    };
    match host {
        None if request.version() == Version::HTTP_10 => Ok(()),
        // HTTP/2 has `:authority` in its place.
        None if request.version() == Version::HTTP_2 && request.uri().authority().is_some() => {
            Ok(())
        }
        None => bad("the Host header is missing\n"),
        Some(_) if unlikely(may_repeat) && headers.get_all(HOST).iter().count() > 1 => {
            bad("there is more than one Host header\n")
        }
        Some(host) if is_host(host.as_bytes()) => Ok(()),
        Some(_) => bad("the Host header is not a host\n"),
    }
}

/// Whether every byte may stand in `uri-host [":" port]` (RFC 3986, section 3.2.2).
pub(crate) fn is_host(host: &[u8]) -> bool {
    const MAY: [bool; 256] = {
        let mut may = [false; 256];
        let allowed =
            b"!$%&'()*+,-.0123456789:;=ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz~";
        let mut i = 0;
        while i < allowed.len() {
            may[allowed[i] as usize] = true;
            i += 1;
        }
        may
    };
    host.iter().all(|byte| MAY[usize::from(*byte)])
}

/// Whether the body's framing is beyond doubt.
fn body(headers: &HeaderMap, head: Head, limits: &Limits) -> Result<(), Refusal> {
    let Some(encoding) = headers.get(TRANSFER_ENCODING) else {
        return length(headers, limits);
    };
    if let Head::Lines {
        transfer_encodings,
        content_lengths,
    } = head
        && let Some(refusal) = bad_framing(transfer_encodings, content_lengths)
    {
        return Err(refusal);
    }
    if headers.get_all(TRANSFER_ENCODING).iter().count() > 1 {
        return Err(MANY_ENCODINGS);
    }
    if !encoding
        .as_bytes()
        .trim_ascii()
        .eq_ignore_ascii_case(b"chunked")
    {
        return Err(NOT_CHUNKED);
    }
    Ok(())
}

pub(crate) const MALFORMED: Refusal = Refusal::new(StatusCode::BAD_REQUEST, "malformed request\n");
const MANY_ENCODINGS: Refusal = Refusal::new(
    StatusCode::BAD_REQUEST,
    "there is more than one Transfer-Encoding header\n",
);
const BOTH_FRAMINGS: Refusal = Refusal::new(
    StatusCode::BAD_REQUEST,
    "Transfer-Encoding and Content-Length exclude each other\n",
);
const NOT_CHUNKED: Refusal = Refusal::new(
    StatusCode::NOT_IMPLEMENTED,
    "this server knows no Transfer-Encoding but chunked, in HTTP/1.1\n",
);
pub(crate) const LENGTH_OUT_OF_RANGE: Refusal = Refusal::new(
    StatusCode::BAD_REQUEST,
    "the Content-Length is out of range\n",
);

/// What is wrong with a head that has so many lines of each framing field; for heads that hyper
/// refused, too.
pub(crate) fn bad_framing(encodings: u8, lengths: u8) -> Option<Refusal> {
    match (encodings, lengths) {
        (2.., _) => Some(MANY_ENCODINGS),
        (1, 1..) => Some(BOTH_FRAMINGS),
        (0 | 1, _) => None,
    }
}

/// The refusal of a lone `Transfer-Encoding` that hyper did not take.
pub(crate) const fn unknown_encoding() -> Refusal {
    NOT_CHUNKED
}

fn length(headers: &HeaderMap, limits: &Limits) -> Result<(), Refusal> {
    /// Beyond it, the length does not fit a signed 64-bit number, as others may use.
    const MOST: u64 = 1 << 63;
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if length > MOST => Err(LENGTH_OUT_OF_RANGE),
        Some(length) if limits.request_body_bytes.is_some_and(|most| length > most) => {
            Err(TOO_LARGE)
        }
        Some(_) | None => Ok(()),
    }
}

/// The refusal of a body over the limit, whenever it is noticed.
pub(crate) const TOO_LARGE: Refusal = Refusal::new(
    StatusCode::PAYLOAD_TOO_LARGE,
    "the request's body is too large\n",
);

/// The refusal of a body whose chunks make no sense.
pub(crate) const BROKEN_BODY: Refusal =
    Refusal::new(StatusCode::BAD_REQUEST, "the request's body is malformed\n");

#[cfg(test)]
mod tests {
    use super::{Verdict, bad_framing, is_host, judge};
    use crate::http1::scan::Head;
    use crate::limits::Limits;
    use http::{Request, Version};

    fn verdict(version: Version, headers: &[(&str, &str)], has_body: bool) -> Verdict {
        let mut request = Request::builder().uri("/").version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let limits = Limits {
            request_body_bytes: Some(100),
            ..Limits::default()
        };
        let head = Head::Lines {
            transfer_encodings: 1,
            content_lengths: 0,
        };
        judge(&request, has_body, head, &limits)
    }

    fn status(verdict: Verdict) -> u16 {
        match verdict {
            Verdict::Refuse(refusal) => refusal.status.as_u16(),
            Verdict::Serve | Verdict::Options => 0,
        }
    }

    #[test]
    fn hosts() {
        use Version as V;
        for (version, headers, expected) in [
            (V::HTTP_11, &[("host", "a")][..], 0),
            (V::HTTP_11, &[("host", "")], 0),
            (V::HTTP_11, &[], 400),
            (V::HTTP_10, &[], 0),
            (V::HTTP_11, &[("host", "a"), ("host", "a")], 400),
            (V::HTTP_10, &[("host", "a"), ("host", "b")], 400),
            (V::HTTP_11, &[("host", "a b")], 400),
            (V::HTTP_11, &[("host", "a/b")], 400),
            (V::HTTP_11, &[("host", "[::1]:80")], 0),
        ] {
            assert_eq!(
                status(verdict(version, headers, false)),
                expected,
                "{headers:?}"
            );
        }
        assert!(is_host(b"xn--bcher-kva.example:8080") && !is_host("bücher".as_bytes()));
    }

    #[test]
    fn expectations_and_bodies() {
        let with = |name: &str, value: &str| {
            status(verdict(
                Version::HTTP_11,
                &[("host", "a"), (name, value)],
                true,
            ))
        };
        assert_eq!(with("expect", "100-Continue"), 0);
        assert_eq!(with("expect", "the-moon"), 417);
        assert_eq!(with("transfer-encoding", "Chunked"), 0);
        assert_eq!(with("transfer-encoding", "gzip, chunked"), 501);
        assert_eq!(with("content-length", "100"), 0);
        assert_eq!(with("content-length", "101"), 413);
        assert_eq!(with("content-length", "9223372036854775809"), 400);
    }

    #[test]
    fn framing_that_is_in_doubt() {
        let status = |te, cl| bad_framing(te, cl).map(|refusal| refusal.status.as_u16());
        assert_eq!(status(0, 0), None);
        assert_eq!(status(1, 0), None);
        assert_eq!(status(1, 1), Some(400));
        assert_eq!(status(2, 0), Some(400));
    }
}
