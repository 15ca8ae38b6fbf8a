//! JSON in gin's flavours, by serde_json's formatters.
//!
//! `escaped` makes `<`, `>`, `&` and the two line separators of Unicode harmless in HTML; `pure`
//! leaves them; `ascii` writes everything beyond ASCII as escapes.

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};
use std::io;

type Written = Result<Vec<u8>, serde_json::Error>;

/// Room for a typical answer, so that a small one is written without growing.
const FIRST_BYTES: usize = 128;

pub(crate) fn pure<T: Serialize + ?Sized>(value: &T) -> Written {
    serde_json::to_vec(value)
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
    let mut out = Vec::with_capacity(FIRST_BYTES);
    value.serialize(&mut Serializer::with_formatter(&mut out, formatter))?;
    Ok(out)
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
    use super::{ascii, escape_script, escaped, indented, pure};

    #[test]
    fn the_flavours_differ_in_texts_only() {
        let value = serde_json::json!({ "a<": ["<b>&é\u{2028}😀\"\n", 1, null, true] });
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
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

    #[test]
    fn a_callback_cannot_end_the_script() {
        assert_eq!(escape_script("a.b[0]$_"), "a.b[0]$_");
        assert_eq!(escape_script("x</s(é"), "x\\u003C\\u002Fs\\u0028\\u00E9");
    }
}
