//! JSON in gin's flavours, by serde_json's formatters.
//!
//! `escaped` makes `<`, `>`, `&` and the two line separators of Unicode harmless in HTML; `pure`
//! leaves them; `ascii` writes everything beyond ASCII as escapes.

use bytes::Bytes;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};
use std::cell::Cell;
use std::io;

type Written = Result<Bytes, serde_json::Error>;

/// The longest answer that is written into the thread's own buffer and copied from there, in bytes:
/// a copy of exactly its size costs less than a buffer that grew and its bookkeeping. A longer one
/// keeps the buffer it was written into, so that no thread holds on to much.
const COPIED_BYTES_MAX: usize = 16 << 10;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

pub(crate) fn pure<T: Serialize + ?Sized>(value: &T) -> Written {
    write(value, CompactFormatter)
}

pub(crate) fn escaped<T: Serialize + ?Sized>(value: &T) -> Written {
    write(value, Escaping(CompactFormatter))
}

/// With four spaces for each level.
pub(crate) fn indented<T: Serialize + ?Sized>(value: &T) -> Written {
    write(value, Escaping(PrettyFormatter::with_indent(b"    ")))
}

pub(crate) fn ascii<T: Serialize + ?Sized>(value: &T) -> Written {
    write(value, Ascii)
}

fn write<T: Serialize + ?Sized>(value: &T, formatter: impl Formatter) -> Written {
    // Taken, not borrowed: a value may write JSON while it is written itself.
    let mut out = BUFFER.take();
    out.clear();
    value.serialize(&mut Serializer::with_formatter(&mut out, formatter))?;
    if out.capacity() > COPIED_BYTES_MAX {
        return Ok(out.into());
    }
    let bytes = Bytes::copy_from_slice(&out);
    BUFFER.set(out);
    Ok(bytes)
}

/// A formatter whose texts are harmless in HTML.
struct Escaping<F>(F);

/// Passes a formatter's layout on; only texts are written otherwise.
macro_rules! layout {
    ($($name:ident($($arg:ident: $kind:ty),*);)+) => {
        $(
            fn $name<W: io::Write + ?Sized>(&mut self, w: &mut W $(, $arg: $kind)*) -> io::Result<()> {
                self.0.$name(w $(, $arg)*)
            }
        )+
    };
}

impl<F: Formatter> Formatter for Escaping<F> {
    layout! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
    }

    fn write_string_fragment<W>(&mut self, w: &mut W, text: &str) -> io::Result<()>
    where
        W: io::Write + ?Sized,
    {
        let special = |byte: &u8| matches!(byte, b'<' | b'>' | b'&' | 0xE2);
        if !text.as_bytes().iter().any(special) {
            return w.write_all(text.as_bytes());
        }
        let mut plain = 0;
        for (at, c) in text.char_indices() {
            let escape: &[u8] = match c {
                '<' => b"\\u003c",
                '>' => b"\\u003e",
                '&' => b"\\u0026",
                '\u{2028}' => b"\\u2028",
                '\u{2029}' => b"\\u2029",
                _ => continue,
            };
            w.write_all(&text.as_bytes()[plain..at])?;
            w.write_all(escape)?;
            plain = at + c.len_utf8();
        }
        w.write_all(&text.as_bytes()[plain..])
    }
}

/// A formatter whose texts are ASCII.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W>(&mut self, w: &mut W, text: &str) -> io::Result<()>
    where
        W: io::Write + ?Sized,
    {
        for c in text.chars() {
            if c.is_ascii() {
                w.write_all(c.encode_utf8(&mut [0; 4]).as_bytes())?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(w, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

/// A text as the inside of a JavaScript string or name: nothing in it can end the script.
pub(crate) fn escape_script(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.' | '[' | ']') {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04X}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{COPIED_BYTES_MAX, ascii, escape_script, escaped, indented, pure};
    use bytes::Bytes;
    use serde::{Serialize, Serializer};

    #[test]
    fn the_flavours_differ_in_texts_only() {
        let value = serde_json::json!({ "a<": ["<b>&é\u{2028}😀\"\n", 1, null, true] });
        let text = |bytes: Bytes| String::from_utf8(bytes.into()).unwrap();
        assert_eq!(
            text(pure(&value).unwrap()),
            "{\"a<\":[\"<b>&é\u{2028}😀\\\"\\n\",1,null,true]}"
        );
        assert_eq!(
            text(escaped(&value).unwrap()),
            "{\"a\\u003c\":[\"\\u003cb\\u003e\\u0026é\\u2028😀\\\"\\n\",1,null,true]}"
        );
        assert_eq!(
            text(ascii(&value).unwrap()),
            "{\"a<\":[\"<b>&\\u00e9\\u2028\\ud83d\\ude00\\\"\\n\",1,null,true]}"
        );
        assert!(text(indented(&value).unwrap()).starts_with("{\n    \"a\\u003c\": [\n        \""));
        for bytes in [escaped(&value), ascii(&value), indented(&value)] {
            let back: serde_json::Value = serde_json::from_slice(&bytes.unwrap()).unwrap();
            assert_eq!(back, value);
        }
    }

    /// Writes JSON while it is written.
    struct Nested;

    impl Serialize for Nested {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            let inner = pure("inner").map_err(serde::ser::Error::custom)?;
            to.serialize_str(std::str::from_utf8(&inner).unwrap())
        }
    }

    /// Writes half of itself.
    struct Broken;

    impl Serialize for Broken {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            use serde::ser::{Error, SerializeSeq};
            to.serialize_seq(None)?.serialize_element("half")?;
            Err(S::Error::custom("no more"))
        }
    }

    #[test]
    fn answers_share_a_buffer_and_nothing_else() {
        let long = "x".repeat(2 * COPIED_BYTES_MAX);
        let first = pure("first").unwrap();
        assert_eq!(pure(&long).unwrap().len(), long.len() + 2);
        assert!(escaped(&Broken).is_err());
        let nested = pure(&["before", "after"].map(|text| (text, Nested))).unwrap();
        assert_eq!(nested, r#"[["before","\"inner\""],["after","\"inner\""]]"#);
        assert_eq!(pure("second").unwrap(), "\"second\"");
        assert_eq!(first, "\"first\"");
    }

    #[test]
    fn a_callback_cannot_end_the_script() {
        assert_eq!(escape_script("a.b[0]$_"), "a.b[0]$_");
        assert_eq!(escape_script("x</s(é"), "x\\u003C\\u002Fs\\u0028\\u00E9");
    }
}
