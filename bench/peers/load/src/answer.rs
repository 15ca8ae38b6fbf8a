//! Reading one answer, strictly: 200, a length, exactly that many bytes.

use anyhow::{Context as _, Result, bail, ensure};

/// How far an answer has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are due.
    Partial,
    /// The answer takes up this many bytes.
    Whole(usize),
}

/// Looks at what has been read so far of an answer.
pub fn progress(bytes: &[u8]) -> Result<Progress> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes)? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return Ok(Progress::Partial),
    };
    ensure!(response.code == Some(200), "answered {:?}", response.code);
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let Some(length) = length else {
        bail!("an answer without a length")
    };
    let length: usize = std::str::from_utf8(length.value)?
        .parse()
        .context("content-length")?;
    let whole = head + length;
    ensure!(bytes.len() <= whole, "more bytes than the answer has");
    Ok(if bytes.len() == whole {
        Progress::Whole(whole)
    } else {
        Progress::Partial
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_at_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        for end in 0..answer.len() {
            assert_eq!(
                progress(&answer[..end]).unwrap(),
                Progress::Partial,
                "{end}"
            );
        }
        assert_eq!(progress(answer).unwrap(), Progress::Whole(answer.len()));
    }

    #[test]
    fn what_is_not_the_answer_is_an_error() {
        for answer in [
            &b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nok",
            b"nonsense\r\n\r\n",
        ] {
            assert!(progress(answer).is_err());
        }
    }
}
