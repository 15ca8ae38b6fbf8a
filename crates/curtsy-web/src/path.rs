//! Paths of URLs: cleaning, decoding, encoding.
//!
//! Cleaning is idempotent, and a cleaned path never leaves the root: it begins with one `/` and has
//! no `.`, no `..` and no empty segment.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use std::borrow::Cow;

/// What a path must not contain as it is when it becomes a `Location`. The backslash is here
/// because browsers take it for a slash.
const LOCATION: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The shortest path that means the same: `.`, `..` and repeated slashes resolved, a trailing slash
/// kept.
pub(crate) fn clean(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 1);
    let mut ends_open = path.is_empty();
    for segment in path.split('/') {
        ends_open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => out.truncate(out.rfind('/').unwrap_or(0)),
            name => {
                out.push('/');
                out.push_str(name);
            }
        }
    }
    if out.is_empty() || ends_open {
        out.push('/');
    }
    out
}

/// The path with every run of slashes as one.
pub(crate) fn single_slashes(path: &str) -> Cow<'_, str> {
    if !path.contains("//") {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The bytes that a percent-encoded text stands for, as text; `None` if an escape is broken or the
/// bytes are not UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = hex(bytes.next()?)?;
            let low = hex(bytes.next()?)?;
            out.push(high << 4 | low);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// A text as it came, with what a header cannot hold escaped: everything beyond ASCII.
pub(crate) fn ascii(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            out.extend(utf8_percent_encode(c.encode_utf8(&mut [0; 4]), CONTROLS));
        }
    }
    Cow::Owned(out)
}

/// A path as it came as the path of a `Location`: its escapes stay, and it cannot name another host.
pub(crate) fn raw_location(path: &str) -> String {
    format!("/{}", ascii(path.trim_start_matches('/'))).replace('\\', "%5C")
}

/// A decoded path as the path of a `Location`: escaped, and never with two slashes at its
/// beginning, which would name another host.
pub(crate) fn location(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 1);
    out.push('/');
    out.extend(utf8_percent_encode(path.trim_start_matches('/'), LOCATION));
    out
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{ascii, clean, decode, location, raw_location, single_slashes};
    use proptest::prelude::*;

    #[test]
    fn cleaning() {
        for (path, cleaned) in [
            ("", "/"),
            ("/", "/"),
            ("abc", "/abc"),
            ("/abc/", "/abc/"),
            ("/a/b/../c", "/a/c"),
            ("/a/b/..", "/a/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("//a///b//", "/a/b/"),
            ("/./a/./b/.", "/a/b/"),
            ("/...", "/..."),
            ("/a/..b/c", "/a/..b/c"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }

    #[test]
    fn decoding() {
        assert_eq!(decode("/a%2Fb%20c"), Some("/a/b c".into()));
        assert_eq!(decode("/%c3%a9"), Some("/é".into()));
        for broken in ["%", "%4", "%zz", "/%ff", "%c3"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_location_stays_on_its_host() {
        assert_eq!(location("//evil.example/x"), "/evil.example/x");
        assert_eq!(location("/\\evil.example"), "/%5Cevil.example");
        assert_eq!(location("/a b?\r\n%"), "/a%20b%3F%0D%0A%25");
        assert_eq!(location("/é"), "/%C3%A9");
        assert_eq!(raw_location("//evil.example/x"), "/evil.example/x");
        assert_eq!(raw_location("/\\evil/a%2Fb/é"), "/%5Cevil/a%2Fb/%C3%A9");
        assert_eq!(ascii("/é?q=<%ü>"), "/%C3%A9?q=<%%C3%BC>");
    }

    proptest! {
        #[test]
        fn cleaning_twice_is_cleaning_once(path in "[/.ab]{0,24}") {
            let once = clean(&path);
            prop_assert_eq!(clean(&once), once);
        }

        #[test]
        fn a_clean_path_never_leaves_the_root(path in "(/|\\.|\\.\\.|[a-c]{1,2}){0,16}") {
            let cleaned = clean(&path);
            prop_assert!(cleaned.starts_with('/'));
            let inside = cleaned.trim_matches('/');
            for segment in inside.split('/') {
                prop_assert!(segment != "." && segment != "..");
                prop_assert!(!segment.is_empty() || inside.is_empty());
            }
        }

        #[test]
        fn single_slashes_are_single(path in "[/a]{0,16}") {
            prop_assert!(!single_slashes(&path).contains("//"));
        }

        #[test]
        fn decoding_never_panics(text in "\\PC{0,16}|[%0-9a-f]{0,16}") {
            let _ = decode(&text);
        }
    }
}
