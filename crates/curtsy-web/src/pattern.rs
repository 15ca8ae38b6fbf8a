//! A route's pattern, parsed: `/user/:name/*rest`.
//!
//! A pattern begins with `/`. `:name` stands for one segment (or its end, as in `/user_:name`) that
//! is not empty, `*name` for all the rest including the slash before it. `\:` is a plain colon.
//! Invariants: at most one wildcard in a segment, a catch-all only as the last thing after a slash,
//! no name twice, at most [`PARAMS_MAX`] wildcards.

use crate::error::Error;

/// The most wildcards in one pattern: they are kept in the context itself, without allocating.
pub(crate) const PARAMS_MAX: usize = 16;

/// The longest pattern in bytes: a URI is never longer than this either.
const PATTERN_BYTES_MAX: usize = u16::MAX as usize;

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes that must be there as they are.
    Static(Vec<u8>),
    /// A segment, or the rest of one.
    Param(String),
    /// All the rest.
    CatchAll(String),
}

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub(crate) text: String,
    pub(crate) pieces: Vec<Piece>,
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |why: &str| Err(Error::route(format!("route \"{text}\": {why}")));
        if !text.starts_with('/') {
            return refuse("a path must begin with '/'");
        }
        if text.len() > PATTERN_BYTES_MAX {
            return refuse("the path is longer than 65535 bytes");
        }
        let mut pieces = Vec::new();
        let mut fixed = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            match first {
                '\\' if rest[1..].starts_with(':') => {
                    fixed.push(b':');
                    rest = &rest[2..];
                }
                ':' | '*' => {
                    let end = rest.find('/').unwrap_or(rest.len());
                    let name = &rest[1..end];
                    if name.is_empty() {
                        return refuse("a wildcard must have a name");
                    }
                    if name.contains([':', '*']) {
                        return refuse("only one wildcard is allowed in a path segment");
                    }
                    if pieces.iter().any(|piece| has_name(piece, name)) {
                        return refuse(&format!("the name \"{name}\" is used twice"));
                    }
                    if first == '*' && end != rest.len() {
                        return refuse("a catch-all is only allowed at the end");
                    }
                    if first == '*' && fixed.last() != Some(&b'/') {
                        return refuse("a catch-all must follow a '/'");
                    }
                    if !fixed.is_empty() {
                        pieces.push(Piece::Static(std::mem::take(&mut fixed)));
                    }
                    pieces.push(if first == ':' {
                        Piece::Param(name.to_owned())
                    } else {
                        Piece::CatchAll(name.to_owned())
                    });
                    rest = &rest[end..];
                }
                other => {
                    let mut buffer = [0; 4];
                    fixed.extend_from_slice(other.encode_utf8(&mut buffer).as_bytes());
                    rest = &rest[other.len_utf8()..];
                }
            }
        }
        if !fixed.is_empty() {
            pieces.push(Piece::Static(fixed));
        }
        let pattern = Self {
            text: text.to_owned(),
            pieces,
        };
        if pattern.names().count() > PARAMS_MAX {
            return refuse("more than 16 wildcards");
        }
        Ok(pattern)
    }

    /// The wildcards' names in the order of their appearance.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Static(_) => None,
            Piece::Param(name) | Piece::CatchAll(name) => Some(name.as_str()),
        })
    }
}

fn has_name(piece: &Piece, wanted: &str) -> bool {
    match piece {
        Piece::Static(_) => false,
        Piece::Param(name) | Piece::CatchAll(name) => name == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::{Pattern, Piece};

    #[test]
    fn patterns_fall_apart_into_pieces() {
        let parse = |text: &str| Pattern::parse(text).unwrap().pieces;
        let fixed = |text: &str| Piece::Static(text.as_bytes().to_vec());
        let param = |name: &str| Piece::Param(name.into());
        assert_eq!(parse("/"), [fixed("/")]);
        assert_eq!(parse("/a/:b"), [fixed("/a/"), param("b")]);
        assert_eq!(
            parse("/user_:name/x"),
            [fixed("/user_"), param("name"), fixed("/x")]
        );
        assert_eq!(
            parse("/:a/*rest"),
            [
                fixed("/"),
                param("a"),
                fixed("/"),
                Piece::CatchAll("rest".into())
            ]
        );
        assert_eq!(parse("/v1/a\\:undelete"), [fixed("/v1/a:undelete")]);
        assert_eq!(parse("/größe/:ö"), [fixed("/größe/"), param("ö")]);
    }

    #[test]
    fn what_is_not_a_pattern_is_refused_with_its_reason() {
        for (text, why) in [
            ("", "begin with"),
            ("a", "begin with"),
            ("/:", "name"),
            ("/*", "name"),
            ("/:/x", "name"),
            ("/:a:b", "only one wildcard"),
            ("/:a*b", "only one wildcard"),
            ("/*a/b", "at the end"),
            ("/x*a", "follow"),
            ("/:a/:a", "twice"),
            (
                "/:a/:b/:c/:d/:e/:f/:g/:h/:i/:j/:k/:l/:m/:n/:o/:p/:q",
                "more than 16",
            ),
        ] {
            let error = Pattern::parse(text).unwrap_err();
            assert!(error.is_route(), "{text}");
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
    }
}
