//! The page: one file, which loads nothing and may do nothing but listen to the events beside it.

use crate::admin::desk::{Answer, answer};
use http::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use std::sync::OnceLock;

const PAGE: &str = include_str!("page.html");

pub(super) fn answer_page() -> Answer {
    static POLICY: OnceLock<HeaderValue> = OnceLock::new();
    let policy = POLICY.get_or_init(|| {
        // Hashes and fixed words: always a header's value.
        HeaderValue::try_from(policy(PAGE))
            .unwrap_or(HeaderValue::from_static("default-src 'none'"))
    });
    let mut answer = answer("text/html; charset=utf-8", PAGE);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
    answer
}

/// What a browser may do with `page`: run its one script and its one style, by their hashes, and ask where it came from.
fn policy(page: &str) -> String {
    let script = digest(between(page, "<script>", "</script>"));
    let style = digest(between(page, "<style>", "</style>"));
    format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

fn between<'a>(page: &'a str, begin: &str, end: &str) -> &'a str {
    let after = page.split_once(begin).map_or("", |(_, after)| after);
    after.split_once(end).map_or("", |(inner, _)| inner)
}

fn digest(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    format!("sha256-{}", base64(digest.as_ref()))
}

/// Thirty-two bytes are all that is ever written so.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let letter = (word >> (18 - 6 * place) & 63) as usize;
            text.push(match place <= chunk.len() {
                true => char::from(LETTERS[letter]),
                false => '=',
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{PAGE, base64, digest, policy};

    #[test]
    fn base64_is_as_everybody_writes_it() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        // As `openssl dgst -sha256 -binary | base64` says.
        assert_eq!(
            digest(""),
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        );
    }

    #[test]
    fn the_page_stands_alone() {
        for (what, count) in [
            ("<script>", 1),
            ("<style>", 1),
            ("</script>", 1),
            ("</style>", 1),
        ] {
            assert_eq!(PAGE.matches(what).count(), count, "{what}");
        }
        let lower = PAGE.to_ascii_lowercase();
        for foreign in [
            "http://",
            "https://",
            "<script ",
            "<link rel=\"stylesheet",
            "@import",
            "url(",
            " style=",
            "onclick",
            "innerhtml",
        ] {
            // The namespace of SVG is a name and not a place.
            let rest = lower.replace("http://www.w3.org/2000/svg", "");
            assert!(!rest.contains(foreign), "{foreign}");
        }
        let policy = policy(PAGE);
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(!policy.contains(&digest("")), "{policy}");
    }
}
