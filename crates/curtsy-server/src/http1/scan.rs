//! A look at a request's head as it passes: how many lines name the fields that frame its body.
//!
//! hyper drops `Content-Length` when `Transfer-Encoding` is there, in whichever order they come,
//! and a service never learns of it. That pair is how requests are smuggled past a proxy that
//! chose the other one (RFC 9112, section 6.1), so it must be seen on the wire.
//!
//! Deliberately absent: parsing. Lines are told apart by their line feeds and by their names'
//! letters, nothing else; hyper judges the rest.

/// Counts framing lines of one head, over however many reads it comes.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) transfer_encodings: u8,
    pub(crate) content_lengths: u8,
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
}

const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";
const CONTENT_LENGTH: &[u8] = b"content-length";
/// The longer name of the two, and what ends it.
const LONGEST: usize = TRANSFER_ENCODING.len() + 1;

impl Scan {
    /// Looks at the next bytes of the head. What comes after its empty line is not looked at.
    #[inline]
    pub(crate) fn bytes(&mut self, mut bytes: &[u8]) {
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

    /// The length of the head, its empty line included, once that was seen.
    pub(crate) fn head_length(&self) -> Option<u64> {
        self.done.then_some(self.length)
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
            self.line(&bytes[start..start + length]);
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
            self.line(&line[..length]);
            self.skip = end.is_none();
        }
        end.map_or(&[], |end| &bytes[end + 1..])
    }

    fn keep(&mut self, unfinished: &[u8]) {
        if unfinished.len() >= LONGEST {
            self.line(unfinished);
            self.skip = true;
        } else {
            self.line[..unfinished.len()].copy_from_slice(unfinished);
            self.line_len = u8::try_from(unfinished.len()).unwrap_or(0);
        }
    }

    #[inline]
    fn line(&mut self, line: &[u8]) {
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
            }
            [_, ..] => self.begun = true,
        }
    }
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
    use super::Scan;
    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, proptest};

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
            let end = text.find("\r\n\r\n").map(|at| at as u64 + 4);
            prop_assert_eq!(scan.head_length(), end);
            prop_assert_eq!((usize::from(te), usize::from(cl)),
                (count("transfer-encoding"), count("content-length")));
        }
    }
}
