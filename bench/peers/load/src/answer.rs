//! Reading one answer, strictly: 200, a length or chunks, exactly that many bytes.

use anyhow::{Context as _, Result, anyhow, bail, ensure};

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
    let field = |name: &str| {
        let mut headers = response.headers.iter();
        let header = headers.find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(header.value)
    };
    let body = match (field("content-length"), field("transfer-encoding")) {
        (Some(length), None) => std::str::from_utf8(length)?
            .parse()
            .context("content-length")?,
        (None, Some(b"chunked")) => match chunks(&bytes[head..])? {
            Some(body) => body,
            None => return Ok(Progress::Partial),
        },
        _ => bail!("an answer without a length"),
    };
    let whole = head + body;
    ensure!(bytes.len() <= whole, "more bytes than the answer has");
    Ok(if bytes.len() == whole {
        Progress::Whole(whole)
    } else {
        Progress::Partial
    })
}

/// How many bytes the chunks take up, if the last one is there. Trailers are not expected.
fn chunks(bytes: &[u8]) -> Result<Option<usize>> {
    const END: &[u8] = b"\r\n";
    let mut place = 0;
    while let Some(rest) = bytes.get(place..) {
        let size = httparse::parse_chunk_size(rest).map_err(|_| anyhow!("no size of a chunk"))?;
        let httparse::Status::Complete((line, size)) = size else {
            break;
        };
        let end = (place + line).saturating_add(usize::try_from(size)?);
        place = end.saturating_add(END.len());
        match bytes.get(end..place) {
            Some(END) if size == 0 => return Ok(Some(place)),
            Some(END) => {}
            Some(_) => bail!("a chunk does not end where it should"),
            None => break,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_at_its_last_byte() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ] {
            for end in 0..answer.len() {
                assert_eq!(
                    progress(&answer[..end]).unwrap(),
                    Progress::Partial,
                    "{end}"
                );
            }
            assert_eq!(progress(answer).unwrap(), Progress::Whole(answer.len()));
        }
    }

    #[test]
    fn what_is_not_the_answer_is_an_error() {
        for answer in [
            &b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nok\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nok",
            b"nonsense\r\n\r\n",
        ] {
            assert!(progress(answer).is_err());
        }
    }
}
