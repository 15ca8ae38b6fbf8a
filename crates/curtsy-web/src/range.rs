//! What to send of a file: all, parts, nothing. HTTP's preconditions and ranges as a pure function.
//!
//! As in Go, ranges that together are more than the whole are answered with the whole: nobody can
//! make a small file large.

use http::{HeaderMap, HeaderName, Method, header};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The most ranges that are answered one by one; of more the whole is sent.
const RANGES_MAX: usize = 32;

/// What is known of a file before it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) len: u64,
    pub(crate) etag: Option<String>,
    pub(crate) modified: Option<SystemTime>,
}

/// What to send. Ranges are `start..end` in bytes, never empty, within the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    Whole,
    Part(std::ops::Range<u64>),
    Parts(Vec<std::ops::Range<u64>>),
    NotModified,
    PreconditionFailed,
    /// No range lies within the file, or what was asked for is no range.
    Unsatisfiable,
}

/// Decides what to send, by RFC 9110's order of preconditions.
pub(crate) fn plan(method: &Method, headers: &HeaderMap, meta: &Meta) -> Plan {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let date = |name| text(name).and_then(|text| httpdate::parse_http_date(text).ok());
    let modified = meta.modified.map(whole_seconds);
    let etag = meta.etag.as_deref();

    if let Some(wanted) = text(header::IF_MATCH) {
        if !lists(wanted, etag, false) {
            return Plan::PreconditionFailed;
        }
    } else if let (Some(since), Some(modified)) = (date(header::IF_UNMODIFIED_SINCE), modified)
        && modified > since
    {
        return Plan::PreconditionFailed;
    }
    let reads = *method == Method::GET || *method == Method::HEAD;
    if let Some(known) = text(header::IF_NONE_MATCH) {
        if lists(known, etag, true) {
            return if reads {
                Plan::NotModified
            } else {
                Plan::PreconditionFailed
            };
        }
    } else if let (Some(since), Some(modified)) = (date(header::IF_MODIFIED_SINCE), modified)
        && reads
        && modified <= since
    {
        return Plan::NotModified;
    }
    let Some(range) = text(header::RANGE) else {
        return Plan::Whole;
    };
    if let Some(condition) = text(header::IF_RANGE) {
        let same_tag = etag == Some(condition) && !condition.starts_with("W/");
        let same_date = modified.is_some() && modified == httpdate::parse_http_date(condition).ok();
        if !same_tag && !same_date {
            return Plan::Whole;
        }
    }
    ranges(range, meta.len)
}

/// Whether a list of tags has this one; weakly compared, `W/` does not matter.
fn lists(list: &str, etag: Option<&str>, weak: bool) -> bool {
    if list.trim() == "*" {
        return true;
    }
    let Some(etag) = etag else {
        return false;
    };
    let bare = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    list.split(',').map(str::trim).any(|tag| {
        if weak {
            bare(tag) == bare(etag)
        } else {
            tag == etag && !tag.starts_with("W/")
        }
    })
}

fn ranges(text: &str, len: u64) -> Plan {
    let Some(list) = text.strip_prefix("bytes=") else {
        return Plan::Unsatisfiable;
    };
    let mut found = Vec::new();
    for spec in list
        .split(',')
        .map(str::trim)
        .filter(|spec| !spec.is_empty())
    {
        match range(spec, len) {
            None => return Plan::Unsatisfiable,
            Some(range) if range.is_empty() => {}
            Some(range) => found.push(range),
        }
    }
    let sum: u64 = found
        .iter()
        .map(|range| range.end - range.start)
        .fold(0, u64::saturating_add);
    match found.len() {
        0 => Plan::Unsatisfiable,
        _ if sum > len || found.len() > RANGES_MAX => Plan::Whole,
        1 => Plan::Part(found.remove(0)),
        _ => Plan::Parts(found),
    }
}

/// One range: `None` if it is malformed, empty if it lies beyond the end.
fn range(spec: &str, len: u64) -> Option<std::ops::Range<u64>> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| match text.parse::<u64>() {
        Ok(number) if digits(text) => Some(number),
        // More digits than fit are a number all the same: a very large one.
        Err(_) if digits(text) && !text.is_empty() => Some(u64::MAX),
        Ok(_) | Err(_) => None,
    };
    let (first, last) = spec.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        let suffix = number(last)?;
        return Some(len - suffix.min(len)..len);
    }
    let first = number(first)?;
    let last = if last.is_empty() {
        u64::MAX
    } else {
        number(last)?
    };
    if last < first {
        return None;
    }
    if first >= len {
        return Some(0..0);
    }
    Some(first..last.min(len - 1) + 1)
}

/// HTTP's dates have no fractions.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::{Meta, Plan, plan, ranges};
    use http::{HeaderMap, HeaderName, Method};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn range_headers() {
        for (text, expected) in [
            ("bytes=0-0", Plan::Part(0..1)),
            ("bytes=2-4", Plan::Part(2..5)),
            ("bytes=5-", Plan::Part(5..10)),
            ("bytes=5-99", Plan::Part(5..10)),
            ("bytes=-3", Plan::Part(7..10)),
            ("bytes=-99", Plan::Part(0..10)),
            ("bytes=0-99999999999999999999999", Plan::Part(0..10)),
            ("bytes=0-1,4-5", Plan::Parts(vec![0..2, 4..6])),
            ("bytes=0-1, ,-1", Plan::Parts(vec![0..2, 9..10])),
            ("bytes=0-1,20-30", Plan::Part(0..2)),
            ("bytes=0-9,0-9", Plan::Whole),
            ("bytes=10-", Plan::Unsatisfiable),
            ("bytes=-0", Plan::Unsatisfiable),
            ("bytes=", Plan::Unsatisfiable),
            ("bytes=4-2", Plan::Unsatisfiable),
            ("bytes=a-b", Plan::Unsatisfiable),
            ("bytes=+1-2", Plan::Unsatisfiable),
            ("bytes=1", Plan::Unsatisfiable),
            ("lines=1-2", Plan::Unsatisfiable),
        ] {
            assert_eq!(ranges(text, 10), expected, "{text}");
        }
        assert_eq!(ranges("bytes=0-", 0), Plan::Unsatisfiable);
    }

    #[test]
    fn preconditions() {
        let day = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let (at, before, after) = (
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:36 GMT",
            "Sun, 06 Nov 1994 08:49:38 GMT",
        );
        let meta = Meta {
            len: 10,
            etag: Some("\"x\"".into()),
            modified: Some(day + Duration::from_millis(5)),
        };
        let part = Plan::Part(0..2);
        for (headers, expected) in [
            (vec![("if-none-match", "\"x\"")], Plan::NotModified),
            (vec![("if-none-match", "W/\"x\"")], Plan::NotModified),
            (vec![("if-none-match", "\"y\", \"x\"")], Plan::NotModified),
            (vec![("if-none-match", "*")], Plan::NotModified),
            (vec![("if-none-match", "\"y\"")], Plan::Whole),
            (
                vec![("if-none-match", "\"y\""), ("if-modified-since", at)],
                Plan::Whole,
            ),
            (vec![("if-modified-since", at)], Plan::NotModified),
            (vec![("if-modified-since", after)], Plan::NotModified),
            (vec![("if-modified-since", before)], Plan::Whole),
            (vec![("if-modified-since", "nonsense")], Plan::Whole),
            (vec![("if-match", "\"y\"")], Plan::PreconditionFailed),
            (vec![("if-match", "\"x\"")], Plan::Whole),
            (
                vec![("if-unmodified-since", before)],
                Plan::PreconditionFailed,
            ),
            (vec![("if-unmodified-since", at)], Plan::Whole),
            (
                vec![("range", "bytes=0-1"), ("if-range", "\"x\"")],
                part.clone(),
            ),
            (vec![("range", "bytes=0-1"), ("if-range", at)], part),
            (
                vec![("range", "bytes=0-1"), ("if-range", "\"y\"")],
                Plan::Whole,
            ),
            (
                vec![("range", "bytes=0-1"), ("if-range", before)],
                Plan::Whole,
            ),
        ] {
            let map: HeaderMap = headers
                .iter()
                .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
                .collect();
            assert_eq!(plan(&Method::GET, &map, &meta), expected, "{headers:?}");
        }
    }
}
