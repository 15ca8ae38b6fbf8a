//! A look at a request's head as it passes: how many lines name the fields that frame its body.
//!
//! hyper drops `Content-Length` when `Transfer-Encoding` is there, in whichever order they come,
//! and a service never learns of it. That pair is how requests are smuggled past a proxy that
//! chose the other one (RFC 9112, section 6.1), so it must be seen on the wire.
//!
//! Deliberately absent: parsing. Lines are told apart by their line feeds and by their names'
//! letters, and a plain number is read where it frames a body, nothing else; hyper judges the rest.

/// Counts framing lines of one head, over however many reads it comes.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) transfer_encodings: u8,
    pub(crate) content_lengths: u8,
    /// What the last `Content-Length` says, if its line came in one piece and is a plain number.
    content_length: Option<u64>,
    /// The beginning of a line whose name has not ended yet.
    line: [u8; LONGEST],
    line_len: u8,
    /// Within a line whose name is known not to matter.
    skip: bool,
    /// A line that is not empty was seen.
    begun: bool,
    done: bool,
    /// Bytes looked at: once done, the length of the head.
    length: u64,
    /// See [`plain_head`].
    plain: bool,
}

/// What the scan has to say of a head to whoever judges the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Head {
    /// None came over the wire: the request is of another protocol.
    #[default]
    Unseen,
    /// It has none of the fields that this server has rules for, but for `Host`.
    Plain,
    /// It has so many lines that name a framing field.
    Lines {
        transfer_encodings: u8,
        content_lengths: u8,
    },
}

const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";
const CONTENT_LENGTH: &[u8] = b"content-length";
/// The longer name of the two, and what ends it.
const LONGEST: usize = TRANSFER_ENCODING.len() + 1;

impl Scan {
    /// Looks at the next bytes of the head. What comes after its empty line is not looked at.
    #[inline]
    pub(crate) fn bytes(&mut self, mut bytes: &[u8]) {
        if self.length == 0
            && let Some(length) = plain_head(bytes)
        {
            self.plain = true;
            self.done = true;
            self.length = length as u64;
            return;
        }
        while !self.done && !bytes.is_empty() {
            let rest = if self.skip || self.line_len == 0 {
                self.whole_lines(bytes)
            } else {
                self.rest_of_line(bytes)
            };
            self.length += (bytes.len() - rest.len()) as u64;
            bytes = rest;
        }
    }

    /// What was found so far.
    #[inline]
    pub(crate) fn head(&self) -> Head {
        if self.plain {
            return Head::Plain;
        }
        Head::Lines {
            transfer_encodings: self.transfer_encodings,
            content_lengths: self.content_lengths,
        }
    }

    /// The length of the head, its empty line included, once that was seen.
    #[inline]
    pub(crate) fn head_length(&self) -> Option<u64> {
        self.done.then_some(self.length)
    }

    /// How long the body is that its one `Content-Length` tells of, if that is known.
    pub(crate) fn content_length(&self) -> Option<u64> {
        self.content_length
            .filter(|_| self.content_lengths == 1 && self.transfer_encodings == 0)
    }

    /// Goes from line feed to line feed; keeps the beginning of a last, unfinished line.
    #[inline]
    fn whole_lines<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let mut start = 0;
        if self.skip {
            match memchr::memchr(b'\n', bytes) {
                Some(end) => {
                    self.skip = false;
                    start = end + 1;
                }
                None => return &[],
            }
        }
        while let Some(length) = memchr::memchr(b'\n', &bytes[start..]) {
            self.line(&bytes[start..start + length], true);
            start += length + 1;
            if self.done {
                return &bytes[start..];
            }
        }
        self.keep(&bytes[start..]);
        &[]
    }

    /// Goes on with a line that began in an earlier read.
    fn rest_of_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = memchr::memchr(b'\n', bytes);
        let more = &bytes[..end.unwrap_or(bytes.len())];
        let have = usize::from(self.line_len);
        let taken = more.len().min(LONGEST - have);
        self.line[have..have + taken].copy_from_slice(&more[..taken]);
        self.line_len += u8::try_from(taken).unwrap_or(0);
        let full = usize::from(self.line_len) == LONGEST;
        if full || end.is_some() {
            let (line, length) = (self.line, usize::from(self.line_len));
            self.line_len = 0;
            self.line(&line[..length], false);
            self.skip = end.is_none();
        }
        end.map_or(&[], |end| &bytes[end + 1..])
    }

    fn keep(&mut self, unfinished: &[u8]) {
        if unfinished.len() >= LONGEST {
            self.line(unfinished, false);
            self.skip = true;
        } else {
            self.line[..unfinished.len()].copy_from_slice(unfinished);
            self.line_len = u8::try_from(unfinished.len()).unwrap_or(0);
        }
    }

    /// Looks at a line, or at the beginning of one.
    #[inline]
    fn line(&mut self, line: &[u8], whole: bool) {
        match line {
            // Empty lines before the request line are passed over, by hyper too.
            [] | [b'\r'] => self.done = self.begun,
            [b't' | b'T', ..] if is_named(line, TRANSFER_ENCODING) => {
                self.begun = true;
                self.transfer_encodings = self.transfer_encodings.saturating_add(1);
            }
            [b'c' | b'C', ..] if is_named(line, CONTENT_LENGTH) => {
                self.begun = true;
                self.content_lengths = self.content_lengths.saturating_add(1);
                self.content_length = whole.then(|| length_in(line)).flatten();
            }
            [_, ..] => self.begun = true,
        }
    }
}

/// The length of the head that these bytes begin with, if it is whole and no line of it can name
/// `Transfer-Encoding`, `Content-Length` or `Expect`: the common case, told eight bytes at a time.
/// When in doubt there is none.
#[inline]
fn plain_head(bytes: &[u8]) -> Option<usize> {
    const EACH: u64 = u64::MAX / 255;
    const LINE_FEEDS: u64 = EACH * b'\n' as u64;
    if line_kind(bytes) != Line::Plain {
        return None;
    }
    // The first line in this word that is not plain, and where it begins.
    let in_word = |word: &[u8; 8], at: usize| {
        let word = u64::from_le_bytes(*word) ^ LINE_FEEDS;
        // The high bit of each byte that is zero, and of some that follow one.
        let mut found = word.wrapping_sub(EACH) & !word & (EACH << 7);
        while found != 0 {
            let begins = at + (found.trailing_zeros() / 8) as usize + 1;
            match line_kind(bytes.get(begins..).unwrap_or_default()) {
                Line::Plain => {}
                line @ (Line::End | Line::Doubtful) => return Some((line, begins)),
            }
            found &= found - 1;
        }
        None
    };
    let (words, _) = bytes.as_chunks::<8>();
    let mut at = 0;
    for word in words {
        if let Some((line, begins)) = in_word(word, at) {
            return (line == Line::End).then_some(begins + 2);
        }
        at += 8;
    }
    // The last word is whole again, some of it for the second time.
    let (line, begins) = in_word(bytes.last_chunk::<8>()?, bytes.len() - 8)?;
    (line == Line::End).then_some(begins + 2)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// It does not matter.
    Plain,
    /// The empty line at the head's end.
    End,
    /// It may be one of interest, or an end of another kind.
    Doubtful,
}

/// What the line that these bytes begin with is.
#[inline]
fn line_kind(bytes: &[u8]) -> Line {
    let doubtful = match bytes {
        [b'\r', b'\n', ..] => return Line::End,
        [] | [b'\n' | b'\r', ..] => true,
        // `Transfer-Encoding`
        [b't' | b'T', rest @ ..] => rest.get(7) == Some(&b'-'),
        // `Content-Length`
        [b'c' | b'C', rest @ ..] => matches!(rest.get(7), Some(b'l' | b'L')),
        // `Expect`
        [b'e' | b'E', rest @ ..] => rest.get(5) == Some(&b':'),
        _ => false,
    };
    if doubtful {
        Line::Doubtful
    } else {
        Line::Plain
    }
}

/// The plain number behind the name of a `Content-Length`.
fn length_in(line: &[u8]) -> Option<u64> {
    let value = line.get(CONTENT_LENGTH.len()..)?.strip_prefix(b":")?;
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Whether the line's name is that one. A name that only begins like it is another; whatever else
/// may stand behind a name is counted, for hyper to refuse.
#[inline]
fn is_named(line: &[u8], name: &[u8]) -> bool {
    line.len() >= name.len()
        && line[..name.len()].eq_ignore_ascii_case(name)
        && !line
            .get(name.len())
            .is_some_and(|next| next.is_ascii_alphanumeric() || matches!(next, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::{Head, Scan};
    use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

    fn counted(parts: &[&[u8]]) -> (u8, u8) {
        let mut scan = Scan::default();
        for part in parts {
            scan.bytes(part);
        }
        (scan.transfer_encodings, scan.content_lengths)
    }

    #[test]
    fn empty_lines_before_the_request_do_not_hide_it() {
        let head: &[u8] = b"\r\n\n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\
                            Content-Length: 3\r\n\r\n";
        assert_eq!(counted(&[head]), (1, 1));
        for cut in 0..head.len() {
            let (front, back) = head.split_at(cut);
            let mut scan = Scan::default();
            scan.bytes(front);
            scan.bytes(back);
            let found = (scan.transfer_encodings, scan.content_lengths);
            assert_eq!(
                (found, scan.head_length()),
                ((1, 1), Some(head.len() as u64))
            );
        }
    }

    #[test]
    fn what_only_begins_like_a_name_is_another_wherever_it_is_cut() {
        let head: &[u8] =
            b"GET / HTTP/1.1\r\nTransfer-Encoding-X: 1\r\nContent-Length-X: 1\r\n\r\n";
        for cut in 0..head.len() {
            let (front, back) = head.split_at(cut);
            assert_eq!(counted(&[front, back]), (0, 0), "{cut}");
        }
    }

    #[test]
    fn counts_framing_lines_of_the_first_head_only() {
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nTRANSFER-Encoding: chunked\r\n\
                     content-length: 4\r\nContent-Length: 4\r\n\r\n\
                     transfer-encoding: no\r\n";
        assert_eq!(counted(&[head]), (1, 2));
        assert_eq!(
            counted(&[b"GET / HTTP/1.1\nHost: x\n\nContent-Length: 1\n"]),
            (0, 0)
        );
        assert_eq!(counted(&[b"GET /content-length: HTTP/1.1\r\n\r\n"]), (0, 0));
    }

    #[test]
    fn heads_without_any_field_of_interest_are_plain() {
        let head = |lines: &str| {
            let mut scan = Scan::default();
            scan.bytes(format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n").as_bytes());
            scan.head()
        };
        for plain in [
            "",
            "Connection: close\r\n",
            "Cookie: a\r\nTe: trailers\r\nETag: x\r\nexpected: y\r\nTrailer: z\r\n",
            "a: Expect: b\r\na: Content-Length: 1\r\na: Transfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(head(plain), Head::Plain, "{plain}");
        }
        let lines = |transfer_encodings, content_lengths| Head::Lines {
            transfer_encodings,
            content_lengths,
        };
        for (other, expected) in [
            ("expect:a\r\n", lines(0, 0)),
            ("eXPECT: 100-continue\r\na: b\r\n", lines(0, 0)),
            ("content-LENGTH:1\r\n", lines(0, 1)),
            ("transfer-encoding:a\r\n", lines(1, 0)),
            ("a: b\nContent-Length : 1\r\n", lines(0, 1)),
        ] {
            assert_eq!(head(other), expected, "{other}");
        }
        for whole in [
            &b"\r\nGET / HTTP/1.1\r\n\r\n"[..],
            b"GET / HTTP/1.1\n\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n",
            b"\r\n\r\n",
            b"Expect: of a first line, too\r\n\r\n",
        ] {
            let mut scan = Scan::default();
            scan.bytes(whole);
            assert_eq!(scan.head(), lines(0, 0), "{}", whole.escape_ascii());
        }
        let head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        for behind in ["\r\n", "G", "GET / HTTP/1.1\r\nExpect: y\r\n\r\n"] {
            let mut scan = Scan::default();
            scan.bytes(&[head, behind.as_bytes()].concat());
            assert_eq!(
                (scan.head(), scan.head_length()),
                (Head::Plain, Some(head.len() as u64))
            );
        }
    }

    fn lines() -> impl Strategy<Value = Vec<String>> {
        let line = prop::sample::select(vec![
            "GET / HTTP/1.1",
            "Host: x",
            "Transfer-Encoding: chunked",
            "transfer-encodin",
            "transfer-encoding",
            "CONTENT-LENGTH: 3",
            "content-length",
            "c",
            "t: content-length: 5",
            "content-length-hint: 5",
            "Transfer-Encodings: chunked",
            "a-rather-long-header-name: with a value that goes on and on",
        ]);
        prop::collection::vec(line.prop_map(str::to_owned), 1..12)
    }

    proptest! {
        /// The short way over a head finds what the long way finds.
        #[test]
        fn plain_heads_are_what_they_seem(lines in lines(), crlf in prop::collection::vec(any::<bool>(), 14)) {
            let mut text = String::new();
            for (line, crlf) in lines.iter().map(String::as_str).chain(["", ""]).zip(crlf) {
                text += line;
                text += if crlf { "\r\n" } else { "\n" };
            }
            let mut whole = Scan::default();
            whole.bytes(text.as_bytes());
            // The first byte by itself: the long way.
            let mut long = Scan::default();
            long.bytes(&text.as_bytes()[..1]);
            long.bytes(&text.as_bytes()[1..]);
            prop_assert_eq!(whole.head_length(), long.head_length());
            prop_assert_eq!(whole.transfer_encodings, long.transfer_encodings);
            prop_assert_eq!(whole.content_lengths, long.content_lengths);
            let mut first = Scan::default();
            first.bytes(format!("{text}\r\nContent-Length: 1\r\n").as_bytes());
            prop_assert_eq!(first.head_length(), whole.head_length());
            prop_assert_eq!(first.content_lengths, whole.content_lengths);
        }

        /// However the bytes are cut into reads, the count is that of the lines.
        #[test]
        fn cuts_do_not_matter(lines in lines(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let text = format!("{}\r\n\r\nTransfer-Encoding: body\r\n", lines.join("\r\n"));
            let bytes = text.as_bytes();
            let count = |name: &str| {
                let named = |line: &&String| {
                    let found = line.split(':').next().map(str::to_lowercase);
                    found.is_some_and(|found| found == name)
                };
                lines.iter().filter(named).count()
            };
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let parts: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let (te, cl) = counted(&parts);
            let mut scan = Scan::default();
            parts.iter().for_each(|part| scan.bytes(part));
            prop_assert!(scan.head() != Head::Plain || (te, cl) == (0, 0));
            let end = text.find("\r\n\r\n").map(|at| at as u64 + 4);
            prop_assert_eq!(scan.head_length(), end);
            prop_assert_eq!((usize::from(te), usize::from(cl)),
                (count("transfer-encoding"), count("content-length")));
        }
    }
}
